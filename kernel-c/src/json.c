/*
** json.c: looks into a JSON document.
*/
#include "json.h"

#include <string.h>

#include "number.h"
#include "utf8.h"

static cvgi_string span(const cvgi_document *document, uint32_t begin, uint32_t end) {
  return (cvgi_string){document->text + begin, document->text + end, 0};
}

cvgi_string cvgi_string_of(const cvgi_document *document, uint32_t value) {
  return span(document, document->values[value].begin, document->values[value].end);
}

cvgi_string cvgi_key_of(const cvgi_document *document, uint32_t value) {
  return span(document, document->values[value].key_begin, document->values[value].key_end);
}

cvgi_string cvgi_string_from(const char *text) {
  const uint8_t *bytes = (const uint8_t *)text;
  return (cvgi_string){bytes, bytes + strlen(text), 1};
}

static uint32_t hex_digit(uint8_t byte) {
  if (byte <= '9') return byte - (uint32_t)'0';
  return (byte | 0x20u) - (uint32_t)'a' + 10;
}

static uint32_t unit(const uint8_t *digits) {
  uint32_t value = 0;
  for (int i = 0; i < 4; i++) value = value << 4 | hex_digit(digits[i]);
  return value;
}

/* Behind \u; the parser has seen to it that surrogates come in pairs. */
static uint32_t unescape_unit(cvgi_string *string) {
  uint32_t high = unit(string->at);
  string->at += 4;
  if (high < 0xD800 || high > 0xDBFF) return high;
  uint32_t low = unit(string->at + 2);
  string->at += 6;
  return 0x10000 + (high - 0xD800) * 0x400 + (low - 0xDC00);
}

uint32_t cvgi_string_next(cvgi_string *string) {
  if (*string->at != '\\' || string->raw) {
    size_t length = cvgi_utf8_length(string->at, (size_t)(string->end - string->at));
    uint32_t code_point = cvgi_utf8_read(string->at, length);
    string->at += length;
    return code_point;
  }
  uint8_t escape = string->at[1];
  string->at += 2;
  switch (escape) {
    case 'b': return '\b';
    case 'f': return '\f';
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'u': return unescape_unit(string);
    default: return escape;
  }
}

int cvgi_string_compare(cvgi_string left, cvgi_string right) {
  while (left.at < left.end && right.at < right.end) {
    uint32_t a = cvgi_string_next(&left), b = cvgi_string_next(&right);
    if (a != b) return a < b ? -1 : 1;
  }
  return (left.at < left.end) - (right.at < right.end);
}

uint32_t cvgi_json_first(const cvgi_document *document, uint32_t value) {
  return document->values[value].count == 0 ? CVG_NONE : value + 1;
}

uint32_t cvgi_json_member(const cvgi_document *document, uint32_t object, cvgi_string key) {
  uint32_t child = cvgi_json_first(document, object);
  while (child != CVG_NONE && cvgi_string_compare(cvgi_key_of(document, child), key) != 0) {
    child = document->values[child].next;
  }
  return child;
}

cvg_text cvgi_json_source(const cvgi_document *document, uint32_t value) {
  const cvgi_value *v = &document->values[value];
  uint32_t quote = v->type == CVGI_STRING;
  return (cvg_text){(const char *)document->text + v->begin - quote, v->end - v->begin + 2 * quote};
}

/* A text that is cut when it does not fit. */
typedef struct path_writer {
  char *path;
  size_t size;
  size_t at;
} path_writer;

static void put(path_writer *w, const char *bytes, size_t count) {
  if (count >= w->size - w->at) {
    w->size = w->at + 1; /* nothing more fits, so that the end is missing and not the middle */
    return;
  }
  memcpy(w->path + w->at, bytes, count);
  w->at += count;
}

static void put_key(path_writer *w, cvgi_string key) {
  while (key.at < key.end) {
    uint8_t bytes[4];
    uint32_t code_point = cvgi_string_next(&key);
    if (code_point == '~' || code_point == '/') {
      put(w, code_point == '~' ? "~0" : "~1", 2);
    } else {
      put(w, (const char *)bytes, cvgi_utf8_write(code_point, bytes));
    }
  }
}

static void put_index(path_writer *w, const cvgi_document *document, uint32_t value) {
  char digits[10];
  size_t count = 0;
  uint32_t index = 0;
  uint32_t sibling = document->values[value].parent + 1;
  for (; sibling != value; sibling = document->values[sibling].next) index++;
  do {
    digits[sizeof digits - ++count] = (char)('0' + index % 10);
    index /= 10;
  } while (index > 0);
  put(w, digits + sizeof digits - count, count);
}

void cvgi_json_path(const cvgi_document *document, uint32_t value, char *path, size_t size) {
  uint32_t ancestors[CVG_JSON_DEPTH_MAX + 1];
  size_t depth = 0;
  path_writer w = {path, size, 0};
  for (; document->values[value].parent != CVG_NONE; value = document->values[value].parent) {
    ancestors[depth++] = value;
  }
  while (depth > 0) {
    uint32_t step = ancestors[--depth];
    put(&w, "/", 1);
    if (document->values[document->values[step].parent].type == CVGI_OBJECT) {
      put_key(&w, cvgi_key_of(document, step));
    } else {
      put_index(&w, document, step);
    }
  }
  path[w.at] = '\0';
}

/* Two values themselves, without their children. */
static int alike(const cvgi_document *a, uint32_t left, const cvgi_document *b, uint32_t right) {
  const cvgi_value *l = &a->values[left], *r = &b->values[right];
  if (l->type != r->type || l->count != r->count) return 0;
  switch (l->type) {
    case CVGI_STRING:
      return cvgi_string_compare(cvgi_string_of(a, left), cvgi_string_of(b, right)) == 0;
    case CVGI_NUMBER:
      return cvgi_number_compare(cvgi_json_source(a, left), cvgi_json_source(b, right)) == 0;
    case CVGI_BOOLEAN: return a->text[l->begin] == b->text[r->begin];
    default: return 1;
  }
}

/*
** The child of `right` that stands where `child` stands in its parent, or CVG_NONE. `before` is the
** one for the child before it, or CVG_NONE for a first child: no item is counted to again.
*/
static uint32_t counterpart(const cvgi_document *a, uint32_t child, const cvgi_document *b,
                            uint32_t right, uint32_t before) {
  uint32_t next = before == CVG_NONE ? cvgi_json_first(b, right) : b->values[before].next;
  if (a->values[a->values[child].parent].type == CVGI_ARRAY) return next;
  cvgi_string key = cvgi_key_of(a, child);
  /* Members mostly stand in the same order. */
  if (next != CVG_NONE && cvgi_string_compare(cvgi_key_of(b, next), key) == 0) return next;
  return cvgi_json_member(b, right, key);
}

/* The values of `left` lie behind one another in the array, each behind its parent. */
int cvgi_json_equal(const cvgi_document *a, uint32_t left, const cvgi_document *b, uint32_t right) {
  uint32_t path[CVG_JSON_DEPTH_MAX + 2];
  size_t depth = 0;
  uint32_t at = left;
  if (!alike(a, left, b, right)) return 0;
  path[depth] = right;
  for (;;) {
    uint32_t following = cvgi_json_first(a, at), before = CVG_NONE;
    if (following != CVG_NONE) {
      depth++;
    } else {
      while (at != left && a->values[at].next == CVG_NONE) {
        at = a->values[at].parent;
        depth--;
      }
      if (at == left) return 1;
      following = a->values[at].next;
      before = path[depth];
    }
    uint32_t other = counterpart(a, following, b, path[depth - 1], before);
    if (other == CVG_NONE || !alike(a, following, b, other)) return 0;
    path[depth] = other;
    at = following;
  }
}
