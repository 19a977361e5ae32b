/*
** schema_test.c: JSON read strictly, schemas of the subset, and values that fit or do not.
*/
#include <stdio.h>
#include <string.h>

#include "check.h"

static cvg_text text(const char *bytes) {
  return (cvg_text){bytes, strlen(bytes)};
}

/* What is wrong with a value, like "range /a/0 @12 by 30", or "fits". */
static const char *checked(const char *schema, const char *value) {
  static const char *const kinds[] = {"?",       "json",    "type",    "enum",         "range",
                                      "missing", "unknown", "keyword", "keyword value"};
  static char result[400];
  test_heap heap = {UNLIMITED, 0, 0};
  const cvg_allocator allocator = heap_allocator(&heap);
  cvg_schema *compiled = NULL;
  cvg_violation v = {0, 0, 0, ""};
  cvg_status status = cvg_schema_compile(&allocator, text(schema), &compiled, &v);
  if (status == CVG_OK) status = cvg_schema_check(compiled, &allocator, text(value), &v);
  cvg_schema_free(compiled);
  CHECK(heap.lent_blocks == 0);
  if (status == CVG_OK) return "fits";
  int known = status == CVG_BAD_JSON || status == CVG_MISMATCH || status == CVG_BAD_SCHEMA;
  if (!known) return cvg_status_text(status);
  int used = snprintf(result, sizeof result, "%s %s @%u", kinds[v.kind], v.path, v.offset);
  if (v.schema_offset != CVG_NONE) {
    snprintf(result + used, sizeof result - (size_t)used, " by %u", v.schema_offset);
  }
  return result;
}

static void json_is_read_strictly(void) {
  static const char *const good[] = {"null", " [1,-0,1.5e+9,0.1E-2] ", "{\"\":{},\"a\":[]}",
                                     "\"\\ud83d\\ude00 \xF0\x9F\x98\x80 \\u0000\"",
                                     "{\"a\":1,\"\\u0041\":2}"};
  static const char *const bad[] = {"",
                                    "nul",
                                    "01",
                                    "1.",
                                    "+1",
                                    ".5",
                                    "1e",
                                    "[1,]",
                                    "{\"a\":1,}",
                                    "{a:1}",
                                    "'a'",
                                    "\"\t\"",
                                    "\"\\x\"",
                                    "\"\\ud800\"",
                                    "\"\\udc00\"",
                                    "\"\\ud800\\u0041\"",
                                    "\"\xC0\x80\"",
                                    "\"\xED\xA0\x80\"",
                                    "\"\xF4\x90\x80\x80\"",
                                    "\"\xE2\x82\"",
                                    "1 2",
                                    "[",
                                    "{\"a\"",
                                    "\"",
                                    "[}",
                                    "// 1",
                                    "NaN",
                                    "{\"a\":1,\"\\u0061\":2}"};
  for (size_t i = 0; i < COUNT(good); i++) CHECK_TEXT(checked("true", good[i]), "fits");
  for (size_t i = 0; i < COUNT(bad); i++) {
    CHECK(strncmp(checked("true", bad[i]), "json", 4) == 0);
  }
  CHECK_TEXT(checked("true", "{\"a\":1,\"b\":2,\"a\":3}"), "json  @14");
  CHECK_TEXT(checked("true", "[1,2,x]"), "json  @5");
}

static void depth_is_limited(void) {
  char deep[2 * CVG_JSON_DEPTH_MAX + 3];
  size_t depth = CVG_JSON_DEPTH_MAX;
  memset(deep, '[', depth);
  memset(deep + depth, ']', depth);
  deep[2 * depth] = '\0';
  CHECK_TEXT(checked("true", deep), "fits");
  memset(deep, '[', depth + 1);
  memset(deep + depth + 1, ']', depth + 1);
  deep[2 * depth + 2] = '\0';
  CHECK_TEXT(checked("true", deep), "json  @64");
}

static void each_keyword_holds(void) {
  static const struct {
    const char *schema;
    const char *value;
    const char *wanted;
  } cases[] = {
      {"{\"type\":\"string\"}", "1", "type  @0 by 9"},
      {"{\"type\":[\"null\",\"integer\"]}", "1.0", "fits"},
      {"{\"type\":\"integer\"}", "1e2", "fits"},
      {"{\"type\":\"integer\"}", "1.5", "type  @0 by 9"},
      {"{\"type\":\"integer\"}", "150e-2", "type  @0 by 9"},
      {"{\"minimum\":0.1}", "1e-1", "fits"},
      {"{\"minimum\":0.1}", "0.09999999999999999999999999999", "range  @0 by 11"},
      {"{\"maximum\":-2}", "-2.00000000000000000001", "fits"},
      {"{\"maximum\":1e400}", "2e400", "range  @0 by 11"},
      {"{\"exclusiveMinimum\":0}", "-0.0", "range  @0 by 20"},
      {"{\"exclusiveMaximum\":10}", "9.99", "fits"},
      {"{\"minLength\":2}", "\"\\ud83d\\ude00\"", "range  @1 by 13"},
      {"{\"maxLength\":2}", "\"\xC3\xA4\\n\"", "fits"},
      {"{\"enum\":[1,\"a\",{\"x\":[1]}]}", "{\"x\":[1.0]}", "fits"},
      {"{\"enum\":[1,\"a\"]}", "\"\\u0061\"", "fits"},
      {"{\"enum\":[1,\"a\"]}", "\"b\"", "enum  @1 by 8"},
      {"{\"const\":{\"a\":1,\"b\":[2]}}", "{\"b\":[2],\"a\":1}", "fits"},
      {"{\"const\":{\"a\":1,\"b\":[2]}}", "{\"b\":[3],\"a\":1}", "enum  @0 by 9"},
      {"{\"const\":[[1],[{\"a\":1,\"b\":2},3],4]}", "[[1],[{\"b\":2,\"a\":1},3],4]", "fits"},
      {"{\"const\":[[1],[{\"a\":1},3],4]}", "[[1],[{\"a\":1},4],3]", "enum  @0 by 9"},
      {"{\"const\":[1,2]}", "[2,1]", "enum  @0 by 9"},
      {"{\"items\":{\"type\":\"number\"},\"minItems\":1}", "[]", "range  @0 by 38"},
      {"{\"items\":{\"type\":\"number\"},\"maxItems\":1}", "[1,2]", "range  @0 by 38"},
      {"{\"items\":{\"items\":{\"type\":\"number\"}}}", "[[],[1,\"\"]]", "type /1/1 @8 by 27"},
      {"{\"required\":[\"b\",\"a\"]}", "{\"a\":1}", "missing  @0 by 14"},
      {"{\"required\":[\"a\"]}", "{\"\\u0061\":1}", "fits"},
      {"{\"properties\":{\"a\":{\"type\":\"null\"}}}", "{\"z\":1,\"a\":0}", "type /a @11 by 28"},
      {"{\"properties\":{\"a\":true},\"additionalProperties\":false}", "{\"a\":1,\"b~/\":2}",
       "unknown /b~0~1 @13 by 48"},
      {"{\"additionalProperties\":{\"type\":\"string\"}}", "{\"a\":1}", "type /a @5 by 33"},
      {"{\"minProperties\":1,\"maxProperties\":2}", "{}", "range  @0 by 17"},
      {"{\"properties\":{\"a\":false}}", "{\"a\":1}", "type /a @5 by 19"},
      {"false", "1", "type  @0 by 0"},
      {"{\"title\":\"\",\"format\":\"email\",\"default\":7}", "1", "fits"},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    CHECK_TEXT(checked(cases[i].schema, cases[i].value), cases[i].wanted);
  }
}

static void schemas_beyond_the_subset_are_refused(void) {
  static const struct {
    const char *schema;
    const char *wanted;
  } cases[] = {
      {"{\"anyOf\":[]}", "keyword /anyOf @9"},
      {"{\"properties\":{\"a\":{\"pattern\":\"x\"}}}", "keyword /properties/a/pattern @31"},
      {"{\"type\":\"text\"}", "keyword value /type @9"},
      {"{\"type\":[]}", "keyword value /type @8"},
      {"{\"required\":[1]}", "keyword value /required @12"},
      {"{\"minLength\":-1}", "keyword value /minLength @13"},
      {"{\"minLength\":1.5}", "keyword value /minLength @13"},
      {"{\"minimum\":\"1\"}", "keyword value /minimum @12"},
      {"{\"items\":[true]}", "keyword value /items @9"},
      {"{\"properties\":[]}", "keyword value /properties @14"},
      {"7", "keyword value  @0"},
      {"{", "json  @1"},
  };
  for (size_t i = 0; i < COUNT(cases); i++)
    CHECK_TEXT(checked(cases[i].schema, "1"), cases[i].wanted);
}

static void long_paths_are_cut(void) {
  char value[400] = "{\"", wanted[400] = "type /";
  memset(value + 2, 'k', 300);
  strcpy(value + 302, "\":1}");
  memset(wanted + 6, 'k', CVG_PATH_SIZE - 2);
  strcpy(wanted + 6 + CVG_PATH_SIZE - 2, " @304 by 33");
  CHECK_TEXT(checked("{\"additionalProperties\":{\"type\":\"string\"}}", value), wanted);
}

static void each_block_may_be_refused(void) {
  test_heap heap = {UNLIMITED, 0, 0};
  const cvg_allocator allocator = heap_allocator(&heap);
  cvg_status status = CVG_NO_MEMORY;
  size_t grants = 0;
  for (; status == CVG_NO_MEMORY && grants < 20; grants++) {
    cvg_schema *schema = NULL;
    heap.grants = grants;
    status = cvg_schema_compile(&allocator, text("{\"items\":{\"type\":\"null\"}}"), &schema, NULL);
    if (status == CVG_OK) status = cvg_schema_check(schema, &allocator, text("[null]"), NULL);
    cvg_schema_free(schema);
    CHECK(heap.lent_blocks == 0);
  }
  CHECK_STATUS(status, CVG_OK);
  /* The schema, its text, values and rules; then the values checked and their rules. */
  CHECK(grants == 7);
}

static void wrong_arguments_are_refused(void) {
  test_heap heap = {UNLIMITED, 0, 0};
  const cvg_allocator allocator = heap_allocator(&heap);
  cvg_schema *schema = NULL;
  CHECK_STATUS(cvg_schema_compile(NULL, text("{}"), &schema, NULL), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_schema_compile(&allocator, text("{}"), NULL, NULL), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_schema_compile(&allocator, (cvg_text){NULL, 2}, &schema, NULL),
               CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_schema_compile(&allocator, (cvg_text){NULL, 0}, &schema, NULL), CVG_BAD_JSON);
  CHECK_STATUS(cvg_schema_check(NULL, &allocator, text("{}"), NULL), CVG_BAD_ARGUMENT);
  CHECK(heap.lent_blocks == 0);
}

const test_case schema_tests[] = {
    {"json_is_read_strictly", json_is_read_strictly},
    {"depth_is_limited", depth_is_limited},
    {"each_keyword_holds", each_keyword_holds},
    {"schemas_beyond_the_subset_are_refused", schemas_beyond_the_subset_are_refused},
    {"long_paths_are_cut", long_paths_are_cut},
    {"each_block_may_be_refused (schema)", each_block_may_be_refused},
    {"wrong_arguments_are_refused", wrong_arguments_are_refused},
    {NULL, NULL},
};
