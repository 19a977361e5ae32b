/*
** parse.c: reads JSON strictly, without recursion: once to check and count, once to fill.
*/
#include <string.h>

#include "json.h"
#include "memory.h"
#include "sort.h"
#include "utf8.h"

/* A container that is open. */
typedef struct level {
  uint32_t value;
  uint32_t last; /* child, or CVG_NONE */
  uint32_t is_object;
} level;

/* Without `values` only the count grows. */
typedef struct parser {
  const uint8_t *text;
  size_t size;
  size_t at;
  cvgi_value *values;
  uint32_t count;
  uint32_t depth;
  uint32_t key_begin;
  uint32_t key_end;
  level levels[CVG_JSON_DEPTH_MAX];
} parser;

static int peek(const parser *p) {
  return p->at < p->size ? p->text[p->at] : -1;
}

static void skip_space(parser *p) {
  for (;;) {
    int byte = peek(p);
    if (byte != ' ' && byte != '\t' && byte != '\n' && byte != '\r') return;
    p->at++;
  }
}

static int hex(int byte) {
  if (byte >= '0' && byte <= '9') return byte - '0';
  if (byte >= 'a' && byte <= 'f') return byte - 'a' + 10;
  if (byte >= 'A' && byte <= 'F') return byte - 'A' + 10;
  return -1;
}

/* The four digits behind \u, or -1. */
static int32_t escape_unit(parser *p) {
  int32_t unit = 0;
  for (int i = 0; i < 4; i++) {
    int digit = hex(peek(p));
    if (digit < 0) return -1;
    unit = unit * 16 + digit;
    p->at++;
  }
  return unit;
}

/* Behind the backslash. Surrogates come in pairs. */
static int read_escape(parser *p) {
  int byte = peek(p);
  if (byte < 0) return 0;
  if (byte != 'u') {
    if (memchr("\"\\/bfnrt", byte, 8) == NULL) return 0;
    p->at++;
    return 1;
  }
  p->at++;
  int32_t unit = escape_unit(p);
  if (unit < 0xD800 || unit > 0xDFFF) return unit >= 0;
  if (unit > 0xDBFF || p->size - p->at < 2) return 0;
  if (p->text[p->at] != '\\' || p->text[p->at + 1] != 'u') return 0;
  p->at += 2;
  unit = escape_unit(p);
  return unit >= 0xDC00 && unit <= 0xDFFF;
}

/* Behind the opening quote; ends behind the closing one. */
static int read_string(parser *p, uint32_t *begin, uint32_t *end) {
  *begin = (uint32_t)p->at;
  for (;;) {
    int byte = peek(p);
    if (byte < 0x20) return 0;
    if (byte == '"') break;
    if (byte == '\\') {
      p->at++;
      if (!read_escape(p)) return 0;
    } else {
      size_t length = cvgi_utf8_length(p->text + p->at, p->size - p->at);
      if (length == 0) return 0;
      p->at += length;
    }
  }
  *end = (uint32_t)p->at++;
  return 1;
}

static int read_digits(parser *p) {
  size_t begin = p->at;
  while (peek(p) >= '0' && peek(p) <= '9') p->at++;
  return p->at > begin;
}

static int read_number(parser *p) {
  if (peek(p) == '-') p->at++;
  if (peek(p) == '0') {
    p->at++;
  } else if (!read_digits(p)) {
    return 0;
  }
  if (peek(p) == '.') {
    p->at++;
    if (!read_digits(p)) return 0;
  }
  if (peek(p) == 'e' || peek(p) == 'E') {
    p->at++;
    if (peek(p) == '+' || peek(p) == '-') p->at++;
    if (!read_digits(p)) return 0;
  }
  return 1;
}

static int read_word(parser *p, const char *word) {
  size_t size = strlen(word);
  if (p->size - p->at < size || memcmp(p->text + p->at, word, size) != 0) return 0;
  p->at += size;
  return 1;
}

/* A new value, linked to its surroundings. */
static uint32_t add_value(parser *p, uint32_t type) {
  uint32_t index = p->count++;
  level *around = p->depth > 0 ? &p->levels[p->depth - 1] : NULL;
  if (p->values != NULL) {
    cvgi_value *value = &p->values[index];
    *value = (cvgi_value){
        (uint32_t)p->at, (uint32_t)p->at, p->key_begin, p->key_end, CVG_NONE, CVG_NONE, 0, type};
    if (around != NULL) {
      value->parent = around->value;
      p->values[around->value].count++;
      if (around->last != CVG_NONE) p->values[around->last].next = index;
    }
  }
  if (around != NULL) around->last = index;
  return index;
}

static void set_span(parser *p, uint32_t value, uint32_t begin, uint32_t end) {
  if (p->values == NULL) return;
  p->values[value].begin = begin;
  p->values[value].end = end;
}

static int open_container(parser *p, uint32_t is_object) {
  if (p->depth == CVG_JSON_DEPTH_MAX) return 0;
  uint32_t value = add_value(p, is_object ? CVGI_OBJECT : CVGI_ARRAY);
  p->levels[p->depth++] = (level){value, CVG_NONE, is_object};
  p->at++;
  return 1;
}

/* A value that holds no others. */
static int read_scalar(parser *p) {
  int byte = peek(p);
  uint32_t begin = (uint32_t)p->at, end = 0, value;
  if (byte == '"') {
    value = add_value(p, CVGI_STRING);
    p->at++;
    if (!read_string(p, &begin, &end)) return 0;
    set_span(p, value, begin, end);
    return 1;
  }
  value = add_value(p, byte == 'n'                  ? CVGI_NULL
                       : byte == 't' || byte == 'f' ? CVGI_BOOLEAN
                                                    : CVGI_NUMBER);
  int right = byte == 'n'   ? read_word(p, "null")
              : byte == 't' ? read_word(p, "true")
              : byte == 'f' ? read_word(p, "false")
                            : read_number(p);
  set_span(p, value, begin, (uint32_t)p->at);
  return right;
}

/* A key and its colon. */
static int read_key(parser *p) {
  skip_space(p);
  if (peek(p) != '"') return 0;
  p->at++;
  if (!read_string(p, &p->key_begin, &p->key_end)) return 0;
  skip_space(p);
  if (peek(p) != ':') return 0;
  p->at++;
  return 1;
}

/* Ends the innermost container if its bracket is next. */
static int try_close(parser *p) {
  level *innermost = &p->levels[p->depth - 1];
  skip_space(p);
  if (peek(p) != (innermost->is_object ? '}' : ']')) return 0;
  p->at++;
  if (p->values != NULL) p->values[innermost->value].end = (uint32_t)p->at;
  p->depth--;
  return 1;
}

/* Behind a value: closes what ends here, and goes to where the next value begins. */
static int go_on(parser *p) {
  while (p->depth > 0 && try_close(p)) continue;
  if (p->depth == 0) return 1;
  if (peek(p) != ',') return 0;
  p->at++;
  return p->levels[p->depth - 1].is_object ? read_key(p) : 1;
}

/* Into a container that was just opened. An empty one is a value that ends here. */
static int enter(parser *p) {
  if (try_close(p)) return go_on(p);
  return p->levels[p->depth - 1].is_object ? read_key(p) : 1;
}

static int read_text(parser *p) {
  do {
    skip_space(p);
    int byte = peek(p);
    if (byte == '{' || byte == '[') {
      if (!open_container(p, byte == '{') || !enter(p)) return 0;
    } else if (!read_scalar(p) || !go_on(p)) {
      return 0;
    }
  } while (p->depth > 0);
  skip_space(p);
  return p->at == p->size;
}

static int compare_keys(const cvgi_document *document, uint32_t left, uint32_t right) {
  return cvgi_string_compare(cvgi_key_of(document, left), cvgi_key_of(document, right));
}

static int key_before(const void *context, const void *left, const void *right) {
  const uint32_t *a = left, *b = right;
  int order = compare_keys(context, *a, *b);
  return order != 0 ? order < 0 : *a < *b;
}

/* The second of two members with the same key, or CVG_NONE. */
static uint32_t find_duplicate(const cvgi_document *document, uint32_t object) {
  uint32_t count = 0;
  uint32_t child = cvgi_json_first(document, object);
  for (; child != CVG_NONE; child = document->values[child].next) {
    document->scratch[count++] = child;
  }
  cvgi_sort(document->scratch, count, sizeof(uint32_t), key_before, document);
  for (uint32_t i = 1; i < count; i++) {
    if (compare_keys(document, document->scratch[i - 1], document->scratch[i]) == 0) {
      return document->scratch[i];
    }
  }
  return CVG_NONE;
}

static cvg_status check_keys(const cvgi_document *document, uint32_t *offset) {
  for (uint32_t i = 0; i < document->count; i++) {
    if (document->values[i].type != CVGI_OBJECT) continue;
    uint32_t duplicate = find_duplicate(document, i);
    if (duplicate == CVG_NONE) continue;
    *offset = document->values[duplicate].key_begin;
    return CVG_BAD_JSON;
  }
  return CVG_OK;
}

cvg_status cvgi_json_read(const cvg_allocator *allocator, cvg_text text, cvgi_document *out,
                          uint32_t *offset) {
  if (text.size > CVG_JSON_SIZE_MAX) return CVG_TOO_LARGE;
  const uint8_t *bytes = text.size == 0 ? (const uint8_t *)"" : (const uint8_t *)text.bytes;
  parser counting = {.text = bytes, .size = text.size};
  int right = read_text(&counting);
  *offset = (uint32_t)counting.at;
  if (!right) return CVG_BAD_JSON;
  size_t value_bytes = sizeof(cvgi_value) + sizeof(uint32_t);
  parser filling = {.text = bytes, .size = text.size};
  filling.values = cvgi_allocate(allocator, counting.count, value_bytes);
  if (filling.values == NULL) return CVG_NO_MEMORY;
  (void)read_text(&filling);
  *out = (cvgi_document){bytes, filling.values, (uint32_t *)(filling.values + counting.count),
                         counting.count};
  cvg_status status = check_keys(out, offset);
  if (status != CVG_OK) cvgi_json_free(allocator, out);
  return status;
}

void cvgi_json_free(const cvg_allocator *allocator, cvgi_document *document) {
  cvgi_release(allocator, document->values, document->count, sizeof(cvgi_value) + sizeof(uint32_t));
}
