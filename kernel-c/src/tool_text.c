/*
** tool_text.c: the tools on texts.
*/
#include <string.h>

#include "tool.h"
#include "utf8.h"

/* Where the code point with an index begins, or the size. The text is valid UTF-8. */
static size_t offset_of(cvg_text text, int64_t index) {
  const uint8_t *bytes = (const uint8_t *)text.bytes;
  size_t at = 0;
  for (; index > 0 && at < text.size; index--) at += cvgi_utf8_length(bytes + at, text.size - at);
  return at;
}

cvg_status cvgi_text_length(cvgi_call *call) {
  cvg_text text;
  int64_t length = 0;
  cvg_status status = cvgi_text_argument(call, "text", &text);
  if (status != CVG_OK) return status;
  for (size_t i = 0; i < text.size; i++) length += ((uint8_t)text.bytes[i] & 0xC0) != 0x80;
  cvgi_put_int(call, length);
  return CVG_OK;
}

cvg_status cvgi_text_slice(cvgi_call *call) {
  cvg_text text;
  cvg_status status = cvgi_text_argument(call, "text", &text);
  if (status != CVG_OK) return status;
  size_t begin = offset_of(text, cvgi_int_argument(call, "from", 0));
  size_t end = offset_of(text, cvgi_int_argument(call, "to", INT64_MAX));
  if (end < begin) end = begin;
  cvgi_put_string(call, (cvg_text){text.bytes + begin, end - begin});
  return CVG_OK;
}

static int is_space(char byte) {
  return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

cvg_status cvgi_text_trim(cvgi_call *call) {
  cvg_text text;
  cvg_status status = cvgi_text_argument(call, "text", &text);
  if (status != CVG_OK) return status;
  while (text.size > 0 && is_space(text.bytes[text.size - 1])) text.size--;
  while (text.size > 0 && is_space(text.bytes[0])) {
    text.bytes++;
    text.size--;
  }
  cvgi_put_string(call, text);
  return CVG_OK;
}

/* Moves the letters from `first` to `last` by `distance`. */
static cvg_status shift_letters(cvgi_call *call, char first, char last, int distance) {
  cvg_text text;
  cvg_status status = cvgi_text_argument(call, "text", &text);
  if (status != CVG_OK) return status;
  cvgi_put(call, "\"", 1);
  for (size_t i = 0; i < text.size; i++) {
    char byte = text.bytes[i];
    if (byte >= first && byte <= last) byte = (char)(byte + distance);
    cvgi_put_escaped(call, &byte, 1);
  }
  cvgi_put(call, "\"", 1);
  return CVG_OK;
}

cvg_status cvgi_text_lower(cvgi_call *call) {
  return shift_letters(call, 'A', 'Z', 'a' - 'A');
}

cvg_status cvgi_text_upper(cvgi_call *call) {
  return shift_letters(call, 'a', 'z', 'A' - 'a');
}

static cvg_status text_and(cvgi_call *call, const char *name, cvg_text *text, cvg_text *other) {
  cvg_status status = cvgi_text_argument(call, "text", text);
  return status == CVG_OK ? cvgi_text_argument(call, name, other) : status;
}

cvg_status cvgi_text_contains(cvgi_call *call) {
  cvg_text text, find;
  cvg_status status = text_and(call, "find", &text, &find);
  if (status != CVG_OK) return status;
  cvgi_put_bool(call, find.size == 0 || cvgi_find(text, 0, find) < text.size);
  return CVG_OK;
}

/* Each part of a text between occurrences of `find`, with something before all but the first. */
static void put_parts(cvgi_call *call, cvg_text text, cvg_text find, const char *between,
                      cvg_text with) {
  size_t begin = 0;
  for (;;) {
    size_t end = cvgi_find(text, begin, find);
    cvgi_put_escaped(call, text.bytes + begin, end - begin);
    if (end == text.size || call->too_large) return;
    cvgi_put(call, between, strlen(between));
    cvgi_put_escaped(call, with.bytes, with.size);
    begin = end + find.size;
  }
}

cvg_status cvgi_text_replace(cvgi_call *call) {
  cvg_text text, find, with;
  cvg_status status = text_and(call, "from", &text, &find);
  if (status == CVG_OK) status = cvgi_text_argument(call, "to", &with);
  if (status != CVG_OK) return status;
  cvgi_put(call, "\"", 1);
  put_parts(call, text, find, "", with);
  cvgi_put(call, "\"", 1);
  return CVG_OK;
}

cvg_status cvgi_text_parts(cvgi_call *call) {
  cvg_text text, separator;
  cvg_status status = text_and(call, "separator", &text, &separator);
  if (status != CVG_OK) return status;
  cvgi_put(call, "[\"", 2);
  put_parts(call, text, separator, "\",\"", (cvg_text){"", 0});
  cvgi_put(call, "\"]", 2);
  return CVG_OK;
}

/* What an item says: itself, or the member of a map that `field` names. CVG_NONE if it has none. */
static uint32_t said(const cvgi_call *call, uint32_t item, uint32_t field) {
  const cvgi_document *document = call->arguments;
  if (field == CVG_NONE || document->values[item].type != CVGI_OBJECT) return item;
  return cvgi_json_member(document, item, cvgi_string_of(document, field));
}

static void put_said(cvgi_call *call, uint32_t value) {
  const cvgi_document *document = call->arguments;
  cvg_text source = cvgi_json_source(document, value);
  switch (document->values[value].type) {
    case CVGI_NULL: return;
    /* It is escaped already. */
    case CVGI_STRING: cvgi_put(call, source.bytes + 1, source.size - 2); return;
    default: cvgi_put_escaped(call, source.bytes, source.size);
  }
}

cvg_status cvgi_text_join(cvgi_call *call) {
  const cvgi_document *document = call->arguments;
  cvg_text separator = {"\n", 1};
  uint32_t field = cvgi_argument(call, "field");
  cvg_status status = CVG_OK;
  if (cvgi_argument(call, "separator") != CVG_NONE) {
    status = cvgi_text_argument(call, "separator", &separator);
  }
  if (status != CVG_OK) return status;
  uint32_t first = cvgi_json_first(document, cvgi_argument(call, "items"));
  cvgi_put(call, "\"", 1);
  for (uint32_t i = first; i != CVG_NONE && !call->too_large; i = document->values[i].next) {
    uint32_t value = said(call, i, field);
    if (value == CVG_NONE) return cvgi_fail(call, "a map of `items` has no such field");
    if (i != first) cvgi_put_escaped(call, separator.bytes, separator.size);
    put_said(call, value);
  }
  cvgi_put(call, "\"", 1);
  return CVG_OK;
}
