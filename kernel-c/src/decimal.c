/*
** decimal.c: exact decimal arithmetic on digits, as taught at school.
**
** A decimal as read has up to 80 digits (40 and an exponent of 40) and a scale of up to 80.
*Aligning
** two makes at most 160 digits, a product has at most 160, and a dividend 80 + 40 + 80.
*/
#include "decimal.h"

#include <string.h>

static void trim(cvgi_digits *n) {
  while (n->count > 0 && n->digit[n->count - 1] == 0) n->count--;
}

/* n * 10^by */
static void shift(cvgi_digits *n, int by) {
  if (n->count == 0 || by <= 0) return;
  memmove(n->digit + by, n->digit, (size_t)n->count);
  memset(n->digit, 0, (size_t)by);
  n->count += by;
}

static int compare(const cvgi_digits *a, const cvgi_digits *b) {
  if (a->count != b->count) return a->count < b->count ? -1 : 1;
  for (int i = a->count - 1; i >= 0; i--) {
    if (a->digit[i] != b->digit[i]) return a->digit[i] < b->digit[i] ? -1 : 1;
  }
  return 0;
}

static int digit_at(const cvgi_digits *n, int index) {
  return index < n->count ? n->digit[index] : 0;
}

static void add(cvgi_digits *a, const cvgi_digits *b) {
  int carry = 0, count = a->count > b->count ? a->count : b->count;
  for (int i = 0; i < count || carry > 0; i++) {
    int sum = digit_at(a, i) + digit_at(b, i) + carry;
    a->digit[i] = (uint8_t)(sum % 10);
    carry = sum / 10;
    if (i >= a->count) a->count = i + 1;
  }
}

/* a - b, where a is not less. */
static void subtract(cvgi_digits *a, const cvgi_digits *b) {
  int borrow = 0;
  for (int i = 0; i < a->count; i++) {
    int difference = a->digit[i] - digit_at(b, i) - borrow;
    borrow = difference < 0;
    a->digit[i] = (uint8_t)(difference + 10 * borrow);
  }
  trim(a);
}

static void multiply(const cvgi_digits *a, const cvgi_digits *b, cvgi_digits *out) {
  memset(out, 0, sizeof *out);
  for (int i = 0; i < a->count; i++) {
    int carry = 0;
    for (int k = 0; k < b->count || carry > 0; k++) {
      int sum = out->digit[i + k] + a->digit[i] * digit_at(b, k) + carry;
      out->digit[i + k] = (uint8_t)(sum % 10);
      carry = sum / 10;
    }
  }
  out->count = a->count + b->count;
  trim(out);
}

/* Leaves the remainder in `a`. */
static void divide(cvgi_digits *a, const cvgi_digits *b, cvgi_digits *quotient) {
  cvgi_digits rest = {.count = 0};
  memset(quotient, 0, sizeof *quotient);
  quotient->count = a->count;
  for (int i = a->count - 1; i >= 0; i--) {
    shift(&rest, 1);
    rest.digit[0] = a->digit[i];
    if (rest.count == 0 && rest.digit[0] > 0) rest.count = 1;
    while (compare(&rest, b) >= 0) {
      subtract(&rest, b);
      quotient->digit[i]++;
    }
  }
  trim(quotient);
  *a = rest;
}

static int is_digit(char byte) {
  return byte >= '0' && byte <= '9';
}

/* The exponent behind an e, or a number beyond the limit. */
static int read_exponent(const char *at, const char *end, int *out) {
  int value = 0, negative = at < end && *at == '-';
  if (at < end && (*at == '-' || *at == '+')) at++;
  if (at == end) return 0;
  for (; at < end; at++) {
    if (!is_digit(*at)) return 0;
    if (value <= CVGI_DECIMAL_EXPONENT) value = value * 10 + (*at - '0');
  }
  *out = negative ? -value : value;
  return value <= CVGI_DECIMAL_EXPONENT;
}

/* Digits with at most one point among them, from the most significant on. */
static const char *read_digits(const char *at, const char *end, cvgi_decimal *out) {
  int seen = 0, behind_point = 0;
  for (; at < end && (is_digit(*at) || (*at == '.' && !behind_point)); at++) {
    if (*at == '.') {
      if (!seen || at + 1 == end || !is_digit(at[1])) return NULL;
      behind_point = 1;
      continue;
    }
    seen = 1;
    out->scale += behind_point;
    if (out->digits.count == 0 && *at == '0') continue;
    if (out->digits.count == CVGI_DECIMAL_DIGITS) return NULL;
    out->digits.digit[out->digits.count++] = (uint8_t)(*at - '0');
  }
  return seen ? at : NULL;
}

static void reverse(cvgi_digits *n) {
  for (int i = 0; i < n->count / 2; i++) {
    uint8_t kept = n->digit[i];
    n->digit[i] = n->digit[n->count - 1 - i];
    n->digit[n->count - 1 - i] = kept;
  }
}

int cvgi_decimal_read(cvg_text text, cvgi_decimal *out) {
  const char *at = text.bytes, *end = at + text.size;
  int exponent = 0;
  memset(out, 0, sizeof *out);
  if (text.size > 0 && *at == '-') {
    out->negative = 1;
    at++;
  }
  at = read_digits(at, end, out);
  if (at == NULL || out->scale > CVGI_DECIMAL_DIGITS) return 0;
  if (at < end && *at != 'e' && *at != 'E') return 0;
  if (at < end && !read_exponent(at + 1, end, &exponent)) return 0;
  reverse(&out->digits);
  out->scale -= exponent;
  if (out->scale < 0) {
    shift(&out->digits, -out->scale);
    out->scale = 0;
  }
  if (out->digits.count == 0) out->negative = 0;
  return 1;
}

/* Without zeros at the end of the fraction. */
static void normalise(cvgi_decimal *value) {
  int zeros = 0;
  while (zeros < value->scale && zeros < value->digits.count && value->digits.digit[zeros] == 0) {
    zeros++;
  }
  value->digits.count -= zeros;
  value->scale -= zeros;
  memmove(value->digits.digit, value->digits.digit + zeros, (size_t)value->digits.count);
  if (value->digits.count > 0) return;
  value->scale = 0;
  value->negative = 0;
}

size_t cvgi_decimal_write(const cvgi_decimal *value, char text[2 * CVGI_DIGITS_MAX]) {
  cvgi_decimal shown = *value;
  size_t at = 0;
  normalise(&shown);
  int first = shown.digits.count > shown.scale ? shown.digits.count - 1 : shown.scale;
  if (shown.negative) text[at++] = '-';
  for (int i = first; i >= 0; i--) {
    text[at++] = (char)('0' + digit_at(&shown.digits, i));
    if (i == shown.scale && i > 0) text[at++] = '.';
  }
  return at;
}

int cvgi_decimal_is_zero(const cvgi_decimal *value) {
  return value->digits.count == 0;
}

/* Brings a copy of a decimal to a scale that is not smaller. */
static cvgi_decimal rescaled(const cvgi_decimal *value, int scale) {
  cvgi_decimal copy = *value;
  shift(&copy.digits, scale - copy.scale);
  copy.scale = scale;
  return copy;
}

void cvgi_decimal_add(const cvgi_decimal *a, const cvgi_decimal *b, cvgi_decimal *out) {
  int scale = a->scale > b->scale ? a->scale : b->scale;
  cvgi_decimal left = rescaled(a, scale), right = rescaled(b, scale);
  if (left.negative == right.negative) {
    add(&left.digits, &right.digits);
    *out = left;
  } else if (compare(&left.digits, &right.digits) >= 0) {
    subtract(&left.digits, &right.digits);
    *out = left;
  } else {
    subtract(&right.digits, &left.digits);
    *out = right;
  }
}

int cvgi_decimal_compare(const cvgi_decimal *a, const cvgi_decimal *b) {
  cvgi_decimal minus = *b, difference;
  minus.negative = !b->negative && !cvgi_decimal_is_zero(b);
  cvgi_decimal_add(a, &minus, &difference);
  if (cvgi_decimal_is_zero(&difference)) return 0;
  return difference.negative ? -1 : 1;
}

void cvgi_decimal_multiply(const cvgi_decimal *a, const cvgi_decimal *b, cvgi_decimal *out) {
  multiply(&a->digits, &b->digits, &out->digits);
  out->scale = a->scale + b->scale;
  out->negative = a->negative != b->negative && out->digits.count > 0;
}

void cvgi_decimal_divide(const cvgi_decimal *a, const cvgi_decimal *b, int places,
                         cvgi_decimal *out) {
  static const cvgi_digits one = {{1}, 1};
  cvgi_digits rest = a->digits, divisor = b->digits;
  shift(&rest, places + b->scale);
  shift(&divisor, a->scale);
  divide(&rest, &divisor, &out->digits);
  cvgi_digits twice = rest;
  add(&twice, &rest);
  int order = compare(&twice, &divisor);
  int odd = digit_at(&out->digits, 0) % 2;
  if (order > 0 || (order == 0 && odd)) add(&out->digits, &one);
  out->scale = places;
  out->negative = a->negative != b->negative && out->digits.count > 0;
}
