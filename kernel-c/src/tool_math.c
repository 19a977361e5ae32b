/*
** tool_math.c: the tools on decimals, which come as numbers or strings and go as strings.
*/
#include "decimal.h"
#include "tool.h"

static cvg_status decimal_argument(cvgi_call *call, const char *name, cvgi_decimal *out) {
  uint32_t value = cvgi_argument(call, name);
  cvgi_string text = cvgi_string_of(call->arguments, value);
  const cvg_text bytes = {(const char *)text.at, (size_t)(text.end - text.at)};
  if (cvgi_decimal_read(bytes, out)) return CVG_OK;
  return cvgi_fail(call, "a decimal has up to 40 digits and an exponent of up to 40");
}

static cvg_status pair(cvgi_call *call, cvgi_decimal *a, cvgi_decimal *b) {
  cvg_status status = decimal_argument(call, "a", a);
  return status == CVG_OK ? decimal_argument(call, "b", b) : status;
}

static void put_decimal(cvgi_call *call, const cvgi_decimal *value) {
  char text[2 * CVGI_DIGITS_MAX];
  cvgi_put_string(call, (cvg_text){text, cvgi_decimal_write(value, text)});
}

static cvg_status sum(cvgi_call *call, int subtract) {
  cvgi_decimal a, b, result;
  cvg_status status = pair(call, &a, &b);
  if (status != CVG_OK) return status;
  if (subtract) b.negative = !b.negative && !cvgi_decimal_is_zero(&b);
  cvgi_decimal_add(&a, &b, &result);
  put_decimal(call, &result);
  return CVG_OK;
}

cvg_status cvgi_math_add(cvgi_call *call) {
  return sum(call, 0);
}

cvg_status cvgi_math_subtract(cvgi_call *call) {
  return sum(call, 1);
}

cvg_status cvgi_math_multiply(cvgi_call *call) {
  cvgi_decimal a, b, result;
  cvg_status status = pair(call, &a, &b);
  if (status != CVG_OK) return status;
  cvgi_decimal_multiply(&a, &b, &result);
  put_decimal(call, &result);
  return CVG_OK;
}

cvg_status cvgi_math_divide(cvgi_call *call) {
  cvgi_decimal a, b, result;
  cvg_status status = pair(call, &a, &b);
  if (status != CVG_OK) return status;
  if (cvgi_decimal_is_zero(&b)) return cvgi_fail(call, "nothing can be divided by zero");
  cvgi_decimal_divide(&a, &b, (int)cvgi_int_argument(call, "places", 0), &result);
  put_decimal(call, &result);
  return CVG_OK;
}

cvg_status cvgi_math_round(cvgi_call *call) {
  static const cvgi_decimal one = {.digits = {{1}, 1}};
  cvgi_decimal a, result;
  cvg_status status = decimal_argument(call, "a", &a);
  if (status != CVG_OK) return status;
  cvgi_decimal_divide(&a, &one, (int)cvgi_int_argument(call, "places", 0), &result);
  put_decimal(call, &result);
  return CVG_OK;
}

cvg_status cvgi_math_compare(cvgi_call *call) {
  cvgi_decimal a, b;
  cvg_status status = pair(call, &a, &b);
  if (status != CVG_OK) return status;
  cvgi_put_int(call, cvgi_decimal_compare(&a, &b));
  return CVG_OK;
}
