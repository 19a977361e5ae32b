/*
** number.c: JSON numbers compared by value, at any length.
**
** A number is seen as 0.d1d2d3... times a power of ten, with d1 not 0, which makes comparing easy.
*/
#include "number.h"

/* Exponents beyond this differ from all others that a text within the size limit can spell. */
#define EXPONENT_MAX 1000000000

typedef struct number {
  const char *first; /* first digit that counts; `last` is behind the last one that is not 0 */
  const char *last;
  int64_t point; /* how many digits stand before the point; may be negative */
  int negative;
} number;

static int is_digit(char byte) {
  return byte >= '0' && byte <= '9';
}

static int64_t read_exponent(const char *at, const char *end) {
  int64_t value = 0;
  int negative = *at == '-';
  if (*at == '-' || *at == '+') at++;
  for (; at < end; at++) {
    if (value < EXPONENT_MAX) value = value * 10 + (*at - '0');
  }
  return negative ? -value : value;
}

static number view(cvg_text text) {
  const char *at = text.bytes, *end = text.bytes + text.size;
  number n = {NULL, NULL, 0, *at == '-'};
  int behind_point = 0;
  int64_t point = 0, exponent = 0;
  if (*at == '-') at++;
  for (; at < end && *at != 'e' && *at != 'E'; at++) {
    if (!is_digit(*at)) {
      behind_point = 1;
      continue;
    }
    if (*at != '0') {
      if (n.first == NULL) n.first = at;
      n.last = at + 1;
    }
    if (n.first != NULL && !behind_point) point++;
    if (n.first == NULL && behind_point) point--;
  }
  if (at < end) exponent = read_exponent(at + 1, end);
  n.point = point + exponent;
  if (n.first == NULL) n = (number){NULL, NULL, 0, 0};
  return n;
}

static const char *next_digit(const char *at, const char *last) {
  while (at < last && !is_digit(*at)) at++;
  return at;
}

static int compare_sizes(const number *a, const number *b) {
  if (a->point != b->point) return a->point < b->point ? -1 : 1;
  const char *l = a->first, *r = b->first;
  for (;;) {
    l = next_digit(l, a->last);
    r = next_digit(r, b->last);
    if (l == a->last || r == b->last) return (l < a->last) - (r < b->last);
    if (*l != *r) return *l < *r ? -1 : 1;
    l++;
    r++;
  }
}

int cvgi_number_compare(cvg_text left, cvg_text right) {
  number a = view(left), b = view(right);
  int a_sign = a.first == NULL ? 0 : a.negative ? -1 : 1;
  int b_sign = b.first == NULL ? 0 : b.negative ? -1 : 1;
  if (a_sign != b_sign) return a_sign < b_sign ? -1 : 1;
  if (a_sign == 0) return 0;
  return a_sign * compare_sizes(&a, &b);
}

static int64_t digits_of(const number *n) {
  int64_t count = 0;
  for (const char *at = n->first; at < n->last; at++) count += is_digit(*at);
  return count;
}

int cvgi_number_is_whole(cvg_text text) {
  number n = view(text);
  return n.first == NULL || n.point >= digits_of(&n);
}

int cvgi_number_int64(cvg_text text, int64_t *out) {
  number n = view(text);
  int64_t value = 0, left = n.point;
  if (n.first == NULL) {
    *out = 0;
    return 1;
  }
  if (n.point < digits_of(&n) || n.point > 18) return 0;
  for (const char *at = n.first; at < n.last; at++) {
    if (!is_digit(*at)) continue;
    value = value * 10 + (*at - '0');
    left--;
  }
  for (; left > 0; left--) value *= 10;
  *out = n.negative ? -value : value;
  return 1;
}

uint32_t cvgi_number_count(cvg_text text) {
  int64_t value = 0;
  if (!cvgi_number_int64(text, &value) || value < 0 || value >= CVG_NONE) return CVG_NONE;
  return (uint32_t)value;
}
