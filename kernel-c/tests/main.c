/*
** main.c: runs every test and closes with "N passed, N failed".
*/
#include <stdio.h>
#include <string.h>

#include "check.h"

static int test_holds;

void check_true(int holds, const char *what, const char *file, int line) {
  if (holds) return;
  test_holds = 0;
  printf("%s:%d: not so: %s\n", file, line, what);
}

void check_status(cvg_status actual, cvg_status wanted, const char *what, const char *file,
                  int line) {
  if (actual == wanted) return;
  test_holds = 0;
  printf("%s:%d: %s\n  is     %s\n  wanted %s\n", file, line, what, cvg_status_text(actual),
         cvg_status_text(wanted));
}

void check_text(const char *actual, const char *wanted, const char *what, const char *file,
                int line) {
  if (strcmp(actual, wanted) == 0) return;
  test_holds = 0;
  printf("%s:%d: %s\n  is     %s\n  wanted %s\n", file, line, what, actual, wanted);
}

int main(void) {
  const test_case *const suites[] = {abi_tests,  graph_tests,  schedule_tests,
                                     map_tests,  scope_tests,  restore_tests,
                                     save_tests, memory_tests, route_tests};
  int passed_count = 0, failed_count = 0;
  for (size_t i = 0; i < COUNT(suites); i++) {
    for (const test_case *test = suites[i]; test->name != NULL; test++) {
      test_holds = 1;
      test->run();
      if (!test_holds) printf("FAILED %s\n", test->name);
      passed_count += test_holds;
      failed_count += !test_holds;
    }
  }
  printf("%d passed, %d failed\n", passed_count, failed_count);
  return failed_count == 0 ? 0 : 1;
}
