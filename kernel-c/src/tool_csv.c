/*
** tool_csv.c: the tools on CSV, as RFC 4180 has it; lines may also end with a line feed alone.
*/
#include <string.h>

#include "tool.h"

/* Where a CSV text is read. `field` is what was read last, without quotes but with "" inside. */
typedef struct csv {
  const char *at;
  const char *end;
  char separator;
  cvg_text field;
  int quoted;
} csv;

enum ending { END_OF_FIELD, END_OF_ROW, BAD_FIELD };

/* Behind a field: its separator, a line end or the end of the text. */
static enum ending end_field(csv *c) {
  if (c->at == c->end) return END_OF_ROW;
  char byte = *c->at++;
  if (byte == c->separator) return END_OF_FIELD;
  if (byte == '\r' && c->at < c->end && *c->at == '\n') c->at++;
  return byte == '\n' || byte == '\r' ? END_OF_ROW : BAD_FIELD;
}

static enum ending read_quoted(csv *c) {
  const char *begin = ++c->at;
  for (; c->at < c->end; c->at++) {
    if (*c->at != '"') continue;
    if (c->at + 1 == c->end || c->at[1] != '"') break;
    c->at++;
  }
  if (c->at == c->end) return BAD_FIELD;
  c->field = (cvg_text){begin, (size_t)(c->at - begin)};
  c->at++;
  return end_field(c);
}

static enum ending read_field(csv *c) {
  const char *begin = c->at;
  c->quoted = c->at < c->end && *c->at == '"';
  if (c->quoted) return read_quoted(c);
  while (c->at < c->end && *c->at != c->separator && *c->at != '\n' && *c->at != '\r') {
    if (*c->at == '"') return BAD_FIELD;
    c->at++;
  }
  c->field = (cvg_text){begin, (size_t)(c->at - begin)};
  return end_field(c);
}

/* The field as a JSON string; of two quotes in it only one remains. */
static void put_field(cvgi_call *call, const csv *c) {
  size_t begin = 0;
  cvgi_put(call, "\"", 1);
  for (size_t i = 0; c->quoted && i < c->field.size; i++) {
    if (c->field.bytes[i] != '"') continue;
    cvgi_put_escaped(call, c->field.bytes + begin, i + 1 - begin);
    begin = ++i + 1;
  }
  if (begin < c->field.size) {
    cvgi_put_escaped(call, c->field.bytes + begin, c->field.size - begin);
  }
  cvgi_put(call, "\"", 1);
}

/* One row as a list. Returns its width, or -1 for a bad field. */
static int64_t put_row(cvgi_call *call, csv *c) {
  int64_t width = 0;
  enum ending ending = END_OF_FIELD;
  cvgi_put(call, "[", 1);
  for (; ending == END_OF_FIELD; width++) {
    ending = read_field(c);
    if (ending == BAD_FIELD) return -1;
    if (width > 0) cvgi_put(call, ",", 1);
    put_field(call, c);
  }
  cvgi_put(call, "]", 1);
  return width;
}

static const char bad_field[] = "a quote is not closed, or stands where none may";

static cvg_status put_lists(cvgi_call *call, csv *c) {
  cvgi_put(call, "[", 1);
  for (int first = 1; c->at < c->end; first = 0) {
    if (!first) cvgi_put(call, ",", 1);
    if (put_row(call, c) < 0) return cvgi_fail(call, bad_field);
  }
  cvgi_put(call, "]", 1);
  return CVG_OK;
}

/* One row as an object; `keys` reads the header again for each row. */
static cvg_status put_object(cvgi_call *call, csv *c, csv keys) {
  enum ending ending = END_OF_FIELD, key_ending = END_OF_FIELD;
  cvgi_put(call, "{", 1);
  for (int first = 1; ending == END_OF_FIELD && key_ending == END_OF_FIELD; first = 0) {
    key_ending = read_field(&keys);
    ending = read_field(c);
    if (ending == BAD_FIELD) return cvgi_fail(call, bad_field);
    if (!first) cvgi_put(call, ",", 1);
    put_field(call, &keys);
    cvgi_put(call, ":", 1);
    put_field(call, c);
  }
  if (ending != key_ending) return cvgi_fail(call, "a row is not as wide as the header");
  cvgi_put(call, "}", 1);
  return CVG_OK;
}

/* Whether two fields stand for the same text. */
static int same_field(const csv *a, const csv *b) {
  size_t i = 0, k = 0;
  while (i < a->field.size && k < b->field.size) {
    if (a->field.bytes[i] != b->field.bytes[k]) return 0;
    i += a->quoted && a->field.bytes[i] == '"' ? 2 : 1;
    k += b->quoted && b->field.bytes[k] == '"' ? 2 : 1;
  }
  return i >= a->field.size && k >= b->field.size;
}

#define HEADER_SIZE_MAX 65536

/* Reads the header; its columns must differ, since they become keys. */
static cvg_status read_header(cvgi_call *call, csv *c) {
  int64_t width = 0;
  csv start = *c;
  enum ending ending = END_OF_FIELD;
  for (; ending == END_OF_FIELD; width++) {
    ending = read_field(c);
    if (ending == BAD_FIELD) return cvgi_fail(call, bad_field);
    if (c->at - start.at > HEADER_SIZE_MAX) return cvgi_fail(call, "a header has at most 64 KiB");
    csv earlier = start;
    for (int64_t i = 0; i < width; i++) {
      (void)read_field(&earlier);
      if (same_field(&earlier, c)) return cvgi_fail(call, "two columns have the same name");
    }
  }
  return CVG_OK;
}

/* Called where a row begins. */
static void skip_blank_lines(csv *c) {
  while (c->at < c->end && (*c->at == '\n' || *c->at == '\r')) c->at++;
}

static cvg_status put_objects(cvgi_call *call, csv *c) {
  skip_blank_lines(c);
  csv keys = *c;
  cvg_status status = read_header(call, c);
  cvgi_put(call, "[", 1);
  skip_blank_lines(c);
  for (int first = 1; status == CVG_OK && c->at < c->end && !call->too_large; first = 0) {
    if (!first) cvgi_put(call, ",", 1);
    status = put_object(call, c, keys);
    skip_blank_lines(c);
  }
  cvgi_put(call, "]", 1);
  return status;
}

static cvg_status read_separator(cvgi_call *call, char *out) {
  cvg_text text = {",", 1};
  cvg_status status = CVG_OK;
  if (cvgi_argument(call, "separator") != CVG_NONE) {
    status = cvgi_text_argument(call, "separator", &text);
  }
  if (status != CVG_OK) return status;
  *out = text.bytes[0];
  if (text.size != 1 || *out == '"' || *out == '\r' || *out == '\n') {
    return cvgi_fail(call, "a separator is an ASCII character, no quote and no line end");
  }
  return CVG_OK;
}

cvg_status cvgi_csv_parse(cvgi_call *call) {
  cvg_text text;
  csv c = {0};
  cvg_status status = cvgi_text_argument(call, "text", &text);
  if (status == CVG_OK) status = read_separator(call, &c.separator);
  if (status != CVG_OK) return status;
  c.at = text.bytes;
  c.end = text.bytes + text.size;
  return cvgi_bool_argument(call, "header", 1) ? put_objects(call, &c) : put_lists(call, &c);
}

/* A string with its quotes doubled, between quotes if it needs them. The whole is a JSON string. */
static void put_quoted(cvgi_call *call, cvg_text text, char separator) {
  int needs = 0;
  for (size_t i = 0; i < text.size; i++) {
    char byte = text.bytes[i];
    needs |= byte == '"' || byte == separator || byte == '\n' || byte == '\r';
  }
  if (needs) cvgi_put(call, "\\\"", 2);
  for (size_t i = 0; i < text.size; i++) {
    if (text.bytes[i] == '"') cvgi_put(call, "\\\"", 2);
    cvgi_put_escaped(call, text.bytes + i, 1);
  }
  if (needs) cvgi_put(call, "\\\"", 2);
}

static cvg_status put_cell(cvgi_call *call, uint32_t value, char separator) {
  cvg_text text = cvgi_json_source(call->arguments, value);
  cvg_status status = CVG_OK;
  uint32_t type = call->arguments->values[value].type;
  if (type == CVGI_NULL) return CVG_OK;
  if (type == CVGI_STRING) status = cvgi_plain(call, value, &text);
  if (status == CVG_OK) put_quoted(call, text, separator);
  if (status == CVG_OK && call->blocks != NULL) cvgi_return_block(call);
  return status;
}

static cvg_status put_cells(cvgi_call *call, uint32_t row, char separator) {
  const cvgi_value *values = call->arguments->values;
  uint32_t first = cvgi_json_first(call->arguments, row);
  for (uint32_t i = first; i != CVG_NONE; i = values[i].next) {
    if (i != first) cvgi_put_escaped(call, &separator, 1);
    cvg_status status = put_cell(call, i, separator);
    if (status != CVG_OK) return status;
  }
  cvgi_put(call, "\\r\\n", 4);
  return CVG_OK;
}

cvg_status cvgi_csv_format(cvgi_call *call) {
  const cvgi_document *arguments = call->arguments;
  char separator = ',';
  cvg_status status = read_separator(call, &separator);
  uint32_t row = cvgi_json_first(arguments, cvgi_argument(call, "rows"));
  while (call->blocks != NULL) cvgi_return_block(call);
  cvgi_put(call, "\"", 1);
  for (; row != CVG_NONE && status == CVG_OK; row = arguments->values[row].next) {
    status = put_cells(call, row, separator);
  }
  cvgi_put(call, "\"", 1);
  return status;
}
