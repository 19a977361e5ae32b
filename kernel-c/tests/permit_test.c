/*
** permit_test.c: the strictest rule that holds decides, and without one nothing is allowed.
*/
#include <string.h>

#include "check.h"

#define RULE(tools, effects, verdict) \
  { {tools, sizeof(tools) - 1}, effects, verdict }

static const cvg_permission rules[] = {
    RULE("text.*", 0, CVG_VERDICT_ALLOW),
    RULE("file.*", CVG_EFFECT_READ | CVG_EFFECT_WRITE, CVG_VERDICT_ALLOW),
    RULE("file.write", CVG_EFFECT_READ | CVG_EFFECT_WRITE, CVG_VERDICT_ASK),
    RULE("*", CVG_EFFECT_MONEY, CVG_VERDICT_DENY),
    RULE("shell", 0, CVG_VERDICT_DENY),
    RULE("shell", CVG_EFFECTS_ALL, CVG_VERDICT_ALLOW),
};

static void decides(const char *tool, uint32_t effects, uint32_t verdict, uint32_t rule) {
  uint32_t given = 7, by = 7;
  const cvg_text name = {tool, strlen(tool)};
  CHECK_STATUS(cvg_permit(rules, COUNT(rules), name, effects, &given, &by), CVG_OK);
  CHECK(given == verdict);
  CHECK(by == rule);
}

static void the_strictest_rule_decides(void) {
  decides("text.trim", 0, CVG_VERDICT_ALLOW, 0);
  decides("text.", 0, CVG_VERDICT_ALLOW, 0);
  decides("text", 0, CVG_VERDICT_DENY, CVG_NONE);
  decides("text.trim", CVG_EFFECT_NETWORK, CVG_VERDICT_DENY, CVG_NONE);
  decides("file.read", CVG_EFFECT_READ, CVG_VERDICT_ALLOW, 1);
  decides("file.write", CVG_EFFECT_WRITE, CVG_VERDICT_ASK, 2);
  decides("file.buy", CVG_EFFECT_READ | CVG_EFFECT_MONEY, CVG_VERDICT_DENY, 3);
  decides("shell", 0, CVG_VERDICT_DENY, 4);
  decides("", 0, CVG_VERDICT_DENY, CVG_NONE);
}

static void what_is_out_of_range_is_refused(void) {
  static const cvg_permission odd[] = {RULE("a", 64, 0), RULE("a", 0, 3), {{NULL, 1}, 0, 0}};
  const cvg_text name = {"a", 1};
  uint32_t verdict = 0;
  for (size_t i = 0; i < COUNT(odd); i++) {
    CHECK_STATUS(cvg_permit(&odd[i], 1, name, 0, &verdict, NULL), CVG_BAD_ARGUMENT);
  }
  CHECK_STATUS(cvg_permit(rules, 1, name, 64, &verdict, NULL), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_permit(NULL, 1, name, 0, &verdict, NULL), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_permit(rules, 1, name, 0, NULL, NULL), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_permit(NULL, 0, name, 0, &verdict, NULL), CVG_OK);
  CHECK(verdict == CVG_VERDICT_DENY);
}

const test_case permit_tests[] = {
    {"the_strictest_rule_decides", the_strictest_rule_decides},
    {"what_is_out_of_range_is_refused", what_is_out_of_range_is_refused},
    {NULL, NULL},
};
