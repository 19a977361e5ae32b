/*
** tool.c: the table of built-in tools, and how one is called.
*/
#include "tool.h"

#include <string.h>

#include "memory.h"
#include "schema.h"

typedef struct entry {
  const char *name;
  const char *description;
  const char *schema;
  cvgi_tool run;
} entry;

/* A schema of these properties, of which those in `required` must be given. */
#define ARGUMENTS(properties, required)                                          \
  "{\"type\":\"object\",\"properties\":{" properties "},\"required\":[" required \
  "],"                                                                           \
  "\"additionalProperties\":false}"
#define STRING(name) "\"" name "\":{\"type\":\"string\"}"
/* Searching takes text times needle in the worst case, so needles are short. */
#define NEEDLE(name, least) \
  "\"" name "\":{\"type\":\"string\",\"minLength\":" least ",\"maxLength\":1024}"
#define DECIMAL(name) "\"" name "\":{\"type\":[\"string\",\"number\"]}"
#define WHOLE(name, least, most) \
  "\"" name "\":{\"type\":\"integer\",\"minimum\":" least ",\"maximum\":" most "}"
#define SPAN(name) WHOLE(name, "-1000000000", "1000000000")
#define PLACES WHOLE("places", "0", "40")
#define SEPARATOR "\"separator\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":1}"
#define NAME(name) "\"" name "\""
#define PAIR ARGUMENTS(DECIMAL("a") "," DECIMAL("b"), NAME("a") "," NAME("b"))
#define TEXT ARGUMENTS(STRING("text"), NAME("text"))

static const entry entries[] = {
    {"text.length", "The number of code points of a text.", TEXT, cvgi_text_length},
    {"text.slice", "The code points from `from` (0 when absent) up to and without `to`.",
     ARGUMENTS(STRING("text") "," WHOLE("from", "0", "16777216") "," WHOLE("to", "0", "16777216"),
               NAME("text")),
     cvgi_text_slice},
    {"text.trim", "A text without spaces, tabs and line ends around it.", TEXT, cvgi_text_trim},
    {"text.lower", "A text with A to Z as a to z.", TEXT, cvgi_text_lower},
    {"text.upper", "A text with a to z as A to Z.", TEXT, cvgi_text_upper},
    {"text.contains", "Whether a text contains another.",
     ARGUMENTS(STRING("text") "," NEEDLE("find", "0"), NAME("text") "," NAME("find")),
     cvgi_text_contains},
    {"text.replace", "A text with each occurrence of `from` replaced by `to`.",
     ARGUMENTS(STRING("text") "," NEEDLE("from", "1") "," STRING("to"),
               NAME("text") "," NAME("from") "," NAME("to")),
     cvgi_text_replace},
    {"text.parts", "The parts of a text between separators.",
     ARGUMENTS(STRING("text") "," NEEDLE("separator", "1"), NAME("text") "," NAME("separator")),
     cvgi_text_parts},
    {"text.join",
     "The items of a list as one text with `separator` (a new line when absent) between them: "
     "texts as they are, null as nothing, other values as JSON, of maps only `field` if one is "
     "named.",
     ARGUMENTS("\"items\":{\"type\":\"array\"}," STRING("separator") "," STRING("field"),
               NAME("items")),
     cvgi_text_join},
    {"json.get",
     "The value at a JSON pointer (RFC 6901), as /items/0/name; `default` where there is none.",
     ARGUMENTS("\"value\":true," STRING("pointer") ",\"default\":true",
               NAME("value") "," NAME("pointer")),
     cvgi_json_get},
    {"json.keys", "The keys of an object, in its order.",
     ARGUMENTS("\"value\":{\"type\":\"object\"}", NAME("value")), cvgi_json_keys},
    {"math.add", "a + b, exact.", PAIR, cvgi_math_add},
    {"math.subtract", "a - b, exact.", PAIR, cvgi_math_subtract},
    {"math.multiply", "a * b, exact.", PAIR, cvgi_math_multiply},
    {"math.divide", "a / b, rounded half to even to `places` behind the point.",
     ARGUMENTS(DECIMAL("a") "," DECIMAL("b") "," PLACES,
               NAME("a") "," NAME("b") "," NAME("places")),
     cvgi_math_divide},
    {"math.round", "a, rounded half to even to `places` behind the point.",
     ARGUMENTS(DECIMAL("a") "," PLACES, NAME("a") "," NAME("places")), cvgi_math_round},
    {"math.compare", "-1, 0 or 1: whether a is less than, equal to or greater than b.", PAIR,
     cvgi_math_compare},
    {"date.now", "The time of the call.", ARGUMENTS("", ""), cvgi_date_now},
    {"date.add", "A date moved by months (to the month's last day at most), days and seconds.",
     ARGUMENTS(STRING("date") "," SPAN("months") "," SPAN("days") "," SPAN("seconds"),
               NAME("date")),
     cvgi_date_add},
    {"date.difference", "Seconds from one date to another.",
     ARGUMENTS(STRING("from") "," STRING("to"), NAME("from") "," NAME("to")), cvgi_date_difference},
    {"date.weekday", "1 for Monday to 7 for Sunday.", ARGUMENTS(STRING("date"), NAME("date")),
     cvgi_date_weekday},
    {"csv.parse",
     "The rows of a CSV text (RFC 4180) as maps by the names in its first row, blank lines left "
     "out; with `header` false all rows, as lists. `separator` is a comma when absent.",
     ARGUMENTS(STRING("text") "," SEPARATOR ",\"header\":{\"type\":\"boolean\"}", NAME("text")),
     cvgi_csv_parse},
    {"csv.format", "Rows as a CSV text.",
     ARGUMENTS("\"rows\":{\"type\":\"array\",\"items\":{\"type\":\"array\",\"items\":{\"type\":"
               "[\"string\",\"number\",\"boolean\",\"null\"]}}}," SEPARATOR,
               NAME("rows")),
     cvgi_csv_format},
};

#define ENTRY_COUNT (sizeof entries / sizeof *entries)

static cvg_text constant(const char *text) {
  return (cvg_text){text, strlen(text)};
}

size_t cvg_tool_count(void) {
  return ENTRY_COUNT;
}

cvg_status cvg_tool_at(size_t index, cvg_tool *out) {
  if (index >= ENTRY_COUNT || out == NULL) return CVG_BAD_ARGUMENT;
  *out = (cvg_tool){constant(entries[index].name), constant(entries[index].description),
                    constant(entries[index].schema)};
  return CVG_OK;
}

static const entry *entry_named(cvg_text name) {
  for (size_t i = 0; i < ENTRY_COUNT; i++) {
    cvg_text own = constant(entries[i].name);
    if (own.size == name.size && memcmp(own.bytes, name.bytes, own.size) == 0) return &entries[i];
  }
  return NULL;
}

/* Whether the arguments fit the tool's schema. */
static cvg_status check_arguments(const entry *tool, const cvg_allocator *allocator,
                                  const cvgi_document *arguments, cvg_violation *violation) {
  cvg_schema *schema = NULL;
  cvg_status status = cvg_schema_compile(allocator, constant(tool->schema), &schema, NULL);
  if (status != CVG_OK) return status;
  status = cvgi_schema_check(schema, allocator, arguments, violation);
  cvg_schema_free(schema);
  return status;
}

static void return_blocks(cvgi_call *call) {
  while (call->blocks != NULL) cvgi_return_block(call);
}

static cvg_status run(const entry *tool, cvgi_call *call, cvg_violation *violation) {
  cvg_status status = check_arguments(tool, call->allocator, call->arguments, violation);
  if (status != CVG_OK) return status;
  status = tool->run(call);
  return_blocks(call);
  if (status == CVG_OK && call->too_large) return CVG_TOO_LARGE;
  return status;
}

static cvg_status answer(const entry *tool, cvgi_call *call, cvg_text arguments,
                         cvg_violation *violation) {
  cvgi_document document;
  uint32_t offset = 0;
  cvg_status status = cvgi_json_read(call->allocator, arguments, &document, &offset);
  if (status == CVG_BAD_JSON) cvgi_violate_json(violation, offset);
  if (status != CVG_OK) return status;
  call->arguments = &document;
  status = run(tool, call, violation);
  cvgi_json_free(call->allocator, &document);
  return status;
}

cvg_status cvg_tool_call(const cvg_allocator *allocator, cvg_text tool, cvg_text arguments,
                         int64_t now_ms, uint8_t *bytes, size_t room, size_t *size,
                         cvg_violation *violation, const char **why) {
  if (!cvgi_allocator_valid(allocator) || size == NULL) return CVG_BAD_ARGUMENT;
  if (tool.bytes == NULL || (arguments.bytes == NULL && arguments.size > 0))
    return CVG_BAD_ARGUMENT;
  if (bytes == NULL && room > 0) return CVG_BAD_ARGUMENT;
  const entry *found = entry_named(tool);
  if (found == NULL) return CVG_UNKNOWN_TOOL;
  cvgi_call call = {
      .allocator = allocator, .now_ms = now_ms, .bytes = bytes, .room = bytes == NULL ? 0 : room};
  cvg_status status = answer(found, &call, arguments, violation);
  if (status == CVG_TOOL_FAILED && why != NULL) *why = call.why;
  if (status != CVG_OK) return status;
  *size = call.size;
  return call.size <= room ? CVG_OK : CVG_BUFFER_TOO_SMALL;
}
