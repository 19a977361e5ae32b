/*
** decimal.h: exact decimal arithmetic on digits.
*/
#ifndef CVG_DECIMAL_H
#define CVG_DECIMAL_H

#include "convergio/kernel.h"

/* What a decimal may have when it is read: digits that count, and the size of its exponent. */
#define CVGI_DECIMAL_DIGITS 40
#define CVGI_DECIMAL_EXPONENT 40

/* Enough for every operation on decimals that were read. */
#define CVGI_DIGITS_MAX 256

/* The least significant digit is first; no leading zeros, so zero has no digits. */
typedef struct cvgi_digits {
  uint8_t digit[CVGI_DIGITS_MAX];
  int count;
} cvgi_digits;

/* digits / 10^scale */
typedef struct cvgi_decimal {
  cvgi_digits digits;
  int scale;
  int negative;
} cvgi_decimal;

/* Reads -12.5e3 and the like; 0 if it is not a decimal or beyond the limits. */
int cvgi_decimal_read(cvg_text text, cvgi_decimal *out);

/* Writes a decimal without exponent and trailing zeros; returns the length. */
size_t cvgi_decimal_write(const cvgi_decimal *value, char text[2 * CVGI_DIGITS_MAX]);

int cvgi_decimal_compare(const cvgi_decimal *a, const cvgi_decimal *b);
void cvgi_decimal_add(const cvgi_decimal *a, const cvgi_decimal *b, cvgi_decimal *out);
void cvgi_decimal_multiply(const cvgi_decimal *a, const cvgi_decimal *b, cvgi_decimal *out);

/* a / b, half to even, to `places` (0 to 40); b is not zero. */
void cvgi_decimal_divide(const cvgi_decimal *a, const cvgi_decimal *b, int places,
                         cvgi_decimal *out);

int cvgi_decimal_is_zero(const cvgi_decimal *value);

#endif
