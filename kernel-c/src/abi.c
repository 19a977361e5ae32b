/*
** abi.c: do caller and library agree on the header?
*/
#include <string.h>

#include "convergio/kernel.h"

uint32_t cvg_abi_version(void) {
  return CVG_ABI_VERSION;
}

cvg_status cvg_abi_check(const cvg_abi *caller, size_t size) {
  const cvg_abi own = CVG_ABI_OF_CALLER;
  if (caller == NULL) return CVG_BAD_ARGUMENT;
  /* The struct itself may differ, so its size is compared before its fields are read. */
  if (size != sizeof own) return CVG_ABI_MISMATCH;
  /* All fields are of one type, so there is no padding to compare. */
  int same = memcmp(caller, &own, sizeof own) == 0;
  return same ? CVG_OK : CVG_ABI_MISMATCH;
}
