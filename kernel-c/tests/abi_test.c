/*
** abi_test.c: the handshake, and that every status has a text of its own.
*/
#include <string.h>

#include "check.h"

static void callers_of_this_header_are_welcome(void) {
  const cvg_abi caller = CVG_ABI_OF_CALLER;
  CHECK(cvg_abi_version() == CVG_ABI_VERSION);
  CHECK_STATUS(cvg_abi_check(&caller, sizeof caller), CVG_OK);
}

static void callers_of_another_header_are_not(void) {
  const cvg_abi caller = CVG_ABI_OF_CALLER;
  cvg_abi other = caller;
  other.version++;
  CHECK_STATUS(cvg_abi_check(&other, sizeof other), CVG_ABI_MISMATCH);
  other = caller;
  other.candidate_size += 8;
  CHECK_STATUS(cvg_abi_check(&other, sizeof other), CVG_ABI_MISMATCH);
  CHECK_STATUS(cvg_abi_check(&caller, sizeof caller - 4), CVG_ABI_MISMATCH);
  CHECK_STATUS(cvg_abi_check(NULL, sizeof caller), CVG_BAD_ARGUMENT);
}

static void each_status_has_its_text(void) {
  const char *unknown = cvg_status_text((cvg_status)(CVG_TOOL_FAILED + 1));
  for (int a = CVG_OK; a <= CVG_TOOL_FAILED; a++) {
    const char *text = cvg_status_text((cvg_status)a);
    CHECK(strcmp(text, unknown) != 0);
    for (int b = CVG_OK; b < a; b++) CHECK(strcmp(text, cvg_status_text((cvg_status)b)) != 0);
  }
}

const test_case abi_tests[] = {
    {"callers_of_this_header_are_welcome", callers_of_this_header_are_welcome},
    {"callers_of_another_header_are_not", callers_of_another_header_are_not},
    {"each_status_has_its_text", each_status_has_its_text},
    {NULL, NULL},
};
