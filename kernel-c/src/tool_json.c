/*
** tool_json.c: the tools on JSON values.
*/
#include "tool.h"

/* The next code point of a step: ~0 is ~ and ~1 is /. CVG_NONE at the end, or for a bad escape. */
static uint32_t step_next(cvgi_string *pointer, int *bad) {
  if (pointer->at == pointer->end) return CVG_NONE;
  cvgi_string before = *pointer;
  uint32_t code_point = cvgi_string_next(pointer);
  if (code_point == '/') {
    *pointer = before;
    return CVG_NONE;
  }
  if (code_point != '~') return code_point;
  if (pointer->at < pointer->end) {
    uint32_t escape = cvgi_string_next(pointer);
    if (escape == '0') return '~';
    if (escape == '1') return '/';
  }
  *bad = 1;
  return CVG_NONE;
}

/* Whether the step that a pointer begins with is this key. */
static int step_is(cvgi_string pointer, cvgi_string key, int *bad) {
  for (;;) {
    uint32_t code_point = step_next(&pointer, bad);
    if (code_point == CVG_NONE || key.at == key.end) {
      return code_point == CVG_NONE && key.at == key.end;
    }
    if (code_point != cvgi_string_next(&key)) return 0;
  }
}

/* The array index that a step spells, without leading zeros; CVG_NONE if it spells none. */
static uint32_t step_index(cvgi_string pointer, int *bad) {
  uint32_t index = 0, digits = 0, code_point;
  while ((code_point = step_next(&pointer, bad)) != CVG_NONE) {
    if (code_point < '0' || code_point > '9' || digits == 9) return CVG_NONE;
    if (digits > 0 && index == 0) return CVG_NONE;
    index = index * 10 + (code_point - '0');
    digits++;
  }
  return digits == 0 ? CVG_NONE : index;
}

static uint32_t take_step(const cvgi_document *document, uint32_t value, cvgi_string pointer,
                          int *bad) {
  uint32_t child = cvgi_json_first(document, value);
  if (document->values[value].type == CVGI_OBJECT) {
    while (child != CVG_NONE && !step_is(pointer, cvgi_key_of(document, child), bad)) {
      child = document->values[child].next;
    }
    return child;
  }
  uint32_t index = step_index(pointer, bad);
  if (document->values[value].type != CVGI_ARRAY || index >= document->values[value].count) {
    return CVG_NONE;
  }
  for (; index > 0; index--) child = document->values[child].next;
  return child;
}

cvg_status cvgi_json_get(cvgi_call *call) {
  const cvgi_document *document = call->arguments;
  uint32_t value = cvgi_argument(call, "value");
  cvgi_string pointer = cvgi_string_of(document, cvgi_argument(call, "pointer"));
  int bad = 0;
  while (pointer.at < pointer.end && value != CVG_NONE && !bad) {
    if (cvgi_string_next(&pointer) != '/') {
      return cvgi_fail(call, "a pointer is empty or begins with /");
    }
    value = take_step(document, value, pointer, &bad);
    while (step_next(&pointer, &bad) != CVG_NONE) continue;
  }
  if (bad) return cvgi_fail(call, "in a pointer ~ is written ~0 and / is written ~1");
  if (value == CVG_NONE) value = cvgi_argument(call, "default");
  if (value == CVG_NONE) return cvgi_fail(call, "the pointer names nothing in this value");
  cvg_text source = cvgi_json_source(document, value);
  cvgi_put(call, source.bytes, source.size);
  return CVG_OK;
}

cvg_status cvgi_json_keys(cvgi_call *call) {
  const cvgi_document *document = call->arguments;
  uint32_t first = cvgi_json_first(document, cvgi_argument(call, "value"));
  cvgi_put(call, "[", 1);
  for (uint32_t i = first; i != CVG_NONE; i = document->values[i].next) {
    cvgi_string key = cvgi_key_of(document, i);
    cvgi_put(call, i == first ? "\"" : ",\"", i == first ? 1 : 2);
    cvgi_put(call, (const char *)key.at, (size_t)(key.end - key.at));
    cvgi_put(call, "\"", 1);
  }
  cvgi_put(call, "]", 1);
  return CVG_OK;
}
