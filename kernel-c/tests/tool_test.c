/*
** tool_test.c: what the built-in tools answer.
*/
#include <stdio.h>
#include <string.h>

#include "check.h"

#define NOW_MS 1795241696789 /* 2026-11-21T06:14:56.789Z */

static cvg_text text(const char *bytes) {
  return (cvg_text){bytes, strlen(bytes)};
}

/* The answer, or why there is none. */
static const char *called(const char *tool, const char *arguments) {
  static char answer[512];
  test_heap heap = {UNLIMITED, 0, 0};
  const cvg_allocator allocator = heap_allocator(&heap);
  size_t size = 0;
  const char *why = NULL;
  cvg_violation violation = {0, 0, 0, ""};
  cvg_status status = cvg_tool_call(&allocator, text(tool), text(arguments), NOW_MS,
                                    (uint8_t *)answer, sizeof answer - 1, &size, &violation, &why);
  CHECK(heap.lent_blocks == 0);
  if (status == CVG_TOOL_FAILED) return why;
  if (status != CVG_OK) return cvg_status_text(status);
  answer[size] = '\0';
  return answer;
}

typedef struct example {
  const char *tool;
  const char *arguments;
  const char *answer;
} example;

static void check_examples(const example *examples, size_t count) {
  for (size_t i = 0; i < count; i++) {
    CHECK_TEXT(called(examples[i].tool, examples[i].arguments), examples[i].answer);
  }
}

static void texts(void) {
  static const example examples[] = {
      {"text.length", "{\"text\":\"a\\ud83d\\ude00\xC3\xA4\"}", "3"},
      {"text.slice", "{\"text\":\"a\\ud83d\\ude00bc\",\"from\":1,\"to\":3}",
       "\"\xF0\x9F\x98\x80"
       "b\""},
      {"text.slice", "{\"text\":\"abc\",\"from\":2}", "\"c\""},
      {"text.slice", "{\"text\":\"abc\",\"from\":9,\"to\":1}", "\"\""},
      {"text.trim", "{\"text\":\" \\n a b\\t\"}", "\"a b\""},
      {"text.lower", "{\"text\":\"AB\\u00c4\\\"\"}", "\"ab\xC3\x84\\\"\""},
      {"text.upper", "{\"text\":\"a\\u0000z{\"}", "\"A\\u0000Z{\""},
      {"text.contains", "{\"text\":\"banana\",\"find\":\"nana\"}", "true"},
      {"text.contains", "{\"text\":\"banana\",\"find\":\"nab\"}", "false"},
      {"text.contains", "{\"text\":\"\",\"find\":\"\"}", "true"},
      {"text.replace", "{\"text\":\"aaaa\",\"from\":\"aa\",\"to\":\"\\n\"}", "\"\\n\\n\""},
      {"text.replace", "{\"text\":\"abc\",\"from\":\"x\",\"to\":\"y\"}", "\"abc\""},
      {"text.parts", "{\"text\":\",a,,b\",\"separator\":\",\"}", "[\"\",\"a\",\"\",\"b\"]"},
      {"text.parts", "{\"text\":\"\",\"separator\":\",\"}", "[\"\"]"},
      {"text.join", "{\"items\":[\"a\\n\",\"\",\"b\"],\"separator\":\"\\\"\"}",
       "\"a\\n\\\"\\\"b\""},
      {"text.join", "{\"items\":[],\"separator\":\",\"}", "\"\""},
      {"text.join", "{\"items\":[\"a\",1.50,null,[\"\\\"\"]]}",
       "\"a\\n1.50\\n\\n[\\\"\\\\\\\"\\\"]\""},
      {"text.join", "{\"items\":[\"a\",{\"t\":\"b\"}],\"field\":\"t\",\"separator\":\"-\"}",
       "\"a-b\""},
      {"text.join", "{\"items\":[{\"t\":1}],\"field\":\"u\"}",
       "a map of `items` has no such field"},
  };
  check_examples(examples, COUNT(examples));
}

static void json_values(void) {
  static const example examples[] = {
      {"json.get", "{\"value\":{\"a\":[1,{\"b/~\": [ 2 ]}]},\"pointer\":\"/a/1/b~1~0\"}", "[ 2 ]"},
      {"json.get", "{\"value\":\"x\\u0041\",\"pointer\":\"\"}", "\"x\\u0041\""},
      {"json.get", "{\"value\":{\"\":0},\"pointer\":\"/\"}", "0"},
      {"json.get", "{\"value\":{\"\\u0061\":0},\"pointer\":\"/a\"}", "0"},
      {"json.get", "{\"value\":[7],\"pointer\":\"/0\"}", "7"},
      {"json.get", "{\"value\":[7],\"pointer\":\"/00\"}",
       "the pointer names nothing in this value"},
      {"json.get", "{\"value\":[7],\"pointer\":\"/1\"}", "the pointer names nothing in this value"},
      {"json.get", "{\"value\":[7],\"pointer\":\"/-\"}", "the pointer names nothing in this value"},
      {"json.get", "{\"value\":7,\"pointer\":\"/a\"}", "the pointer names nothing in this value"},
      {"json.get", "{\"value\":7,\"pointer\":\"/a\",\"default\":{\"b\":2}}", "{\"b\":2}"},
      {"json.get", "{\"value\":{},\"pointer\":\"a\"}", "a pointer is empty or begins with /"},
      {"json.get", "{\"value\":{\"a\":1},\"pointer\":\"/~2\"}",
       "in a pointer ~ is written ~0 and / is written ~1"},
      {"json.keys", "{\"value\":{\"b\":1,\"a\\n\":{\"c\":1}}}", "[\"b\",\"a\\n\"]"},
      {"json.keys", "{\"value\":{}}", "[]"},
  };
  check_examples(examples, COUNT(examples));
}

static void decimals(void) {
  static const char limits[] = "a decimal has up to 40 digits and an exponent of up to 40";
  static const example examples[] = {
      {"math.add", "{\"a\":0.1,\"b\":\"0.2\"}", "\"0.3\""},
      {"math.add", "{\"a\":\"999999999999999999999999999999\",\"b\":1}",
       "\"1000000000000000000000000000000\""},
      {"math.add", "{\"a\":\"1e40\",\"b\":\"1e-40\"}",
       "\"10000000000000000000000000000000000000000."
       "0000000000000000000000000000000000000001\""},
      {"math.subtract", "{\"a\":1,\"b\":1.0}", "\"0\""},
      {"math.subtract", "{\"a\":0.05,\"b\":1}", "\"-0.95\""},
      {"math.subtract", "{\"a\":-3,\"b\":-5.5}", "\"2.5\""},
      {"math.multiply", "{\"a\":\"-1.5\",\"b\":\"0.40\"}", "\"-0.6\""},
      {"math.multiply", "{\"a\":\"-0\",\"b\":5}", "\"0\""},
      {"math.multiply", "{\"a\":\"123456789012345678901234567890\",\"b\":\"987654321\"}",
       "\"121932631124828532112482853211126352690\""},
      {"math.divide", "{\"a\":1,\"b\":3,\"places\":5}", "\"0.33333\""},
      {"math.divide", "{\"a\":2,\"b\":-3,\"places\":0}", "\"-1\""},
      {"math.divide", "{\"a\":\"1e40\",\"b\":\"1e-40\",\"places\":40}",
       "\"1000000000000000000000000000000000000000000000000000000000000000000000000000000"
       "00\""},
      {"math.divide", "{\"a\":1,\"b\":0,\"places\":0}", "nothing can be divided by zero"},
      {"math.round", "{\"a\":\"2.5\",\"places\":0}", "\"2\""},
      {"math.round", "{\"a\":\"3.5\",\"places\":0}", "\"4\""},
      {"math.round", "{\"a\":\"-2.675\",\"places\":2}", "\"-2.68\""},
      {"math.round", "{\"a\":\"-0.4\",\"places\":0}", "\"0\""},
      {"math.round", "{\"a\":\"9.99\",\"places\":1}", "\"10\""},
      {"math.compare", "{\"a\":\"1.10\",\"b\":1.1}", "0"},
      {"math.compare", "{\"a\":-2,\"b\":1}", "-1"},
      {"math.compare", "{\"a\":\"1e-40\",\"b\":0}", "1"},
      {"math.add", "{\"a\":\"1e41\",\"b\":0}", limits},
      {"math.add", "{\"a\":\"12345678901234567890123456789012345678901\",\"b\":0}", limits},
      {"math.add", "{\"a\":\"1.\",\"b\":0}", limits},
      {"math.add", "{\"a\":\"\",\"b\":0}", limits},
      {"math.add", "{\"a\":\" 1\",\"b\":0}", limits},
      {"math.add", "{\"a\":\"0x1\",\"b\":0}", limits},
  };
  check_examples(examples, COUNT(examples));
}

static void dates(void) {
  static const char form[] = "a date is like 2026-01-31 or 2026-01-31T23:59:59Z, from year 1 on";
  static const char range[] = "the date is outside of the years 1 to 9999";
  static const example examples[] = {
      {"date.now", "{}", "\"2026-11-21T06:14:56.789Z\""},
      {"date.add", "{\"date\":\"2024-01-31\",\"months\":1}", "\"2024-02-29T00:00:00Z\""},
      {"date.add", "{\"date\":\"2023-12-31\",\"months\":-10}", "\"2023-02-28T00:00:00Z\""},
      {"date.add", "{\"date\":\"2023-02-28\",\"days\":1}", "\"2023-03-01T00:00:00Z\""},
      {"date.add", "{\"date\":\"1970-01-01T00:00:00.5Z\",\"seconds\":-1}",
       "\"1969-12-31T23:59:59.500Z\""},
      {"date.add", "{\"date\":\"2026-06-01T12:00:00+05:30\"}", "\"2026-06-01T06:30:00Z\""},
      {"date.add", "{\"date\":\"0001-01-01\",\"seconds\":-1}", range},
      {"date.add", "{\"date\":\"9999-12-31T23:59:59Z\",\"seconds\":1}", range},
      {"date.add", "{\"date\":\"2000-01-01\",\"days\":1000000000}", range},
      {"date.add", "{\"date\":\"2000-01-01\",\"months\":-1000000000}", range},
      {"date.add", "{\"date\":\"2023-02-29\"}", form},
      {"date.add", "{\"date\":\"1900-02-29\"}", form},
      {"date.add", "{\"date\":\"2023-13-01\"}", form},
      {"date.add", "{\"date\":\"2023-01-01T24:00:00Z\"}", form},
      {"date.add", "{\"date\":\"2023-01-01T00:00:00\"}", form},
      {"date.add", "{\"date\":\"2023-01-01 00:00:00Z\"}", form},
      {"date.difference", "{\"from\":\"2000-02-28\",\"to\":\"2000-03-01\"}", "172800"},
      {"date.difference", "{\"from\":\"1970-01-02\",\"to\":\"1970-01-01\"}", "-86400"},
      {"date.weekday", "{\"date\":\"2026-11-21\"}", "6"},
      {"date.weekday", "{\"date\":\"0001-01-01\"}", "1"},
      {"date.weekday", "{\"date\":\"1969-12-28\"}", "7"},
  };
  check_examples(examples, COUNT(examples));
}

static void tables(void) {
  static const char quote[] = "a quote is not closed, or stands where none may";
  static const example examples[] = {
      {"csv.parse", "{\"text\":\"a,b\\r\\n1,\\\"x, \\\"\\\"y\\\"\\\"\\n\\\"\\n\",\"header\":false}",
       "[[\"a\",\"b\"],[\"1\",\"x, \\\"y\\\"\\n\"]]"},
      {"csv.parse", "{\"text\":\"\",\"header\":false}", "[]"},
      {"csv.parse", "{\"text\":\"\\n\",\"header\":false}", "[[\"\"]]"},
      {"csv.parse", "{\"text\":\"a;b\",\"separator\":\";\",\"header\":false}", "[[\"a\",\"b\"]]"},
      {"csv.parse", "{\"text\":\"a,\",\"header\":false}", "[[\"a\",\"\"]]"},
      {"csv.parse", "{\"text\":\"k,\\\"v\\\"\\n1,2\\n3,4\"}",
       "[{\"k\":\"1\",\"v\":\"2\"},{\"k\":\"3\",\"v\":\"4\"}]"},
      {"csv.parse", "{\"text\":\"k,v\"}", "[]"},
      {"csv.parse", "{\"text\":\"\\nk\\r\\n\\r\\n1\\n\\n\\n2\\n\"}",
       "[{\"k\":\"1\"},{\"k\":\"2\"}]"},
      {"csv.parse", "{\"text\":\"k,v\\n1\"}", "a row is not as wide as the header"},
      {"csv.parse", "{\"text\":\"k\\n1,2\"}", "a row is not as wide as the header"},
      {"csv.parse", "{\"text\":\"k,\\\"k\\\"\\n\"}",
       "two columns have the same name"},
      {"csv.parse", "{\"text\":\"\\\"a\",\"header\":false}", quote},
      {"csv.parse", "{\"text\":\"a\\\"b\",\"header\":false}", quote},
      {"csv.parse", "{\"text\":\"\\\"a\\\"b\",\"header\":false}", quote},
      {"csv.parse", "{\"text\":\"a\",\"separator\":\"\\n\",\"header\":false}",
       "a separator is an ASCII character, no quote and no line end"},
      {"csv.format", "{\"rows\":[[\"a\",1.50,null,true],[\"x,\\\"y\\n\"],[]]}",
       "\"a,1.50,,true\\r\\n\\\"x,\\\"\\\"y\\n\\\"\\r\\n\\r\\n\""},
      {"csv.format", "{\"rows\":[[\"a\",\"b;\"]],\"separator\":\";\"}", "\"a;\\\"b;\\\"\\r\\n\""},
  };
  check_examples(examples, COUNT(examples));
}

static void wrong_calls_are_refused(void) {
  CHECK_TEXT(called("text.shout", "{}"), "no built-in tool has this name");
  CHECK_TEXT(called("text.trim", "{"), "the text is not JSON within the reader's limits");
  CHECK_TEXT(called("text.trim", "{}"), "the arguments break the schema");
  CHECK_TEXT(called("text.trim", "{\"text\":1}"), "the arguments break the schema");
  CHECK_TEXT(called("text.trim", "{\"text\":\"\",\"more\":1}"), "the arguments break the schema");
  CHECK_TEXT(called("text.parts", "{\"text\":\"\",\"separator\":\"\"}"),
             "the arguments break the schema");
}

static void the_room_needed_is_told_and_each_block_may_be_refused(void) {
  static const char arguments[] = "{\"text\":\"\\\"a\\\",b\\n1,2\"}";
  static const char wanted[] = "[{\"a\":\"1\",\"b\":\"2\"}]";
  char answer[64];
  size_t size = 0;
  test_heap heap = {UNLIMITED, 0, 0};
  const cvg_allocator allocator = heap_allocator(&heap);
  cvg_status status =
      cvg_tool_call(&allocator, text("csv.parse"), text(arguments), 0, NULL, 0, &size, NULL, NULL);
  CHECK_STATUS(status, CVG_BUFFER_TOO_SMALL);
  CHECK(size == strlen(wanted));
  for (size_t grants = 0;; grants++) {
    heap.grants = grants;
    status = cvg_tool_call(&allocator, text("csv.parse"), text(arguments), 0, (uint8_t *)answer,
                           sizeof answer, &size, NULL, NULL);
    CHECK(heap.lent_blocks == 0);
    if (status == CVG_OK) break;
    CHECK_STATUS(status, CVG_NO_MEMORY);
    CHECK(grants < 10);
  }
  CHECK(size == strlen(wanted) && memcmp(answer, wanted, size) == 0);
}

static void answers_are_limited(void) {
  enum { LONG = 9000 };
  static char arguments[3 * LONG];
  size_t size = 0;
  test_heap heap = {UNLIMITED, 0, 0};
  const cvg_allocator allocator = heap_allocator(&heap);
  char *at = arguments + sprintf(arguments, "{\"text\":\"");
  memset(at, 'a', LONG);
  at += LONG;
  at += sprintf(at, "\",\"from\":\"a\",\"to\":\"");
  memset(at, 'b', LONG);
  strcpy(at + LONG, "\"}");
  CHECK_STATUS(cvg_tool_call(&allocator, text("text.replace"), text(arguments), 0, NULL, 0, &size,
                             NULL, NULL),
               CVG_TOO_LARGE);
  CHECK(heap.lent_blocks == 0);
}

static void every_tool_has_a_schema_that_compiles(void) {
  test_heap heap = {UNLIMITED, 0, 0};
  const cvg_allocator allocator = heap_allocator(&heap);
  cvg_tool tool;
  for (size_t i = 0; i < cvg_tool_count(); i++) {
    cvg_schema *schema = NULL;
    CHECK_STATUS(cvg_tool_at(i, &tool), CVG_OK);
    CHECK(tool.name.size > 0 && tool.description.size > 0);
    CHECK_STATUS(cvg_schema_compile(&allocator, tool.schema, &schema, NULL), CVG_OK);
    cvg_schema_free(schema);
  }
  CHECK_STATUS(cvg_tool_at(cvg_tool_count(), &tool), CVG_BAD_ARGUMENT);
}

const test_case tool_tests[] = {
    {"texts", texts},
    {"json_values", json_values},
    {"decimals", decimals},
    {"dates", dates},
    {"tables", tables},
    {"wrong_calls_are_refused", wrong_calls_are_refused},
    {"the_room_needed_is_told_and_each_block_may_be_refused",
     the_room_needed_is_told_and_each_block_may_be_refused},
    {"answers_are_limited", answers_are_limited},
    {"every_tool_has_a_schema_that_compiles", every_tool_has_a_schema_that_compiles},
    {NULL, NULL},
};
