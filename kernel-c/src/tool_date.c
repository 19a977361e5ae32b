/*
** tool_date.c: the tools on dates, in the proleptic Gregorian calendar and UTC.
*/
#include <string.h>

#include "tool.h"

#define DAY_MS 86400000
#define FIRST_DAY (-719162) /* 0001-01-01, counted from 1970-01-01 */
#define LAST_DAY 2932896    /* 9999-12-31 */

typedef struct date {
  int64_t year;
  int64_t month; /* 1 to 12 */
  int64_t day;   /* 1 to 31 */
} date;

static int64_t floor_divide(int64_t a, int64_t b) {
  return a / b - (a % b < 0);
}

static int is_leap(int64_t year) {
  return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int64_t days_in(int64_t year, int64_t month) {
  static const int8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  return days[month - 1] + (month == 2 && is_leap(year));
}

/* Days from 1970-01-01. Years begin in March here, so that the leap day is the last of its year. */
static int64_t to_days(date d) {
  int64_t year = d.month > 2 ? d.year : d.year - 1;
  int64_t month = d.month > 2 ? d.month - 3 : d.month + 9;
  int64_t era = floor_divide(year, 400);
  int64_t of_era = year - era * 400;
  int64_t day_of_year = (153 * month + 2) / 5 + d.day - 1;
  return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719468;
}

static date from_days(int64_t days) {
  int64_t shifted = days + 719468;
  int64_t era = floor_divide(shifted, 146097);
  int64_t of_era = shifted - era * 146097;
  int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
  int64_t day_of_year = of_era - (365 * year + year / 4 - year / 100);
  int64_t month = (5 * day_of_year + 2) / 153;
  date d = {year + era * 400, month < 10 ? month + 3 : month - 9,
            day_of_year - (153 * month + 2) / 5 + 1};
  if (d.month <= 2) d.year++;
  return d;
}

/* What is left of a text. */
typedef struct scanner {
  const char *at;
  const char *end;
} scanner;

static int take(scanner *s, char wanted) {
  if (s->at == s->end || *s->at != wanted) return 0;
  s->at++;
  return 1;
}

static int take_number(scanner *s, int digits, int64_t *out) {
  *out = 0;
  for (; digits > 0; digits--) {
    if (s->at == s->end || *s->at < '0' || *s->at > '9') return 0;
    *out = *out * 10 + (*s->at++ - '0');
  }
  return 1;
}

/* Up to nine digits behind the point, of which three count. */
static int take_fraction(scanner *s, int64_t *milliseconds) {
  int digits = 0;
  int64_t digit;
  *milliseconds = 0;
  if (!take(s, '.')) return 1;
  for (; digits < 9 && take_number(s, 1, &digit); digits++) {
    if (digits < 3) *milliseconds = *milliseconds * 10 + digit;
  }
  for (int i = digits; i < 3; i++) *milliseconds *= 10;
  return digits > 0;
}

/* Z, +hh:mm or -hh:mm, in minutes. */
static int take_offset(scanner *s, int64_t *minutes) {
  int64_t hour, minute;
  *minutes = 0;
  if (take(s, 'Z')) return 1;
  int negative = take(s, '-');
  if (!negative && !take(s, '+')) return 0;
  if (!take_number(s, 2, &hour) || !take(s, ':') || !take_number(s, 2, &minute)) return 0;
  *minutes = (negative ? -1 : 1) * (hour * 60 + minute);
  return hour < 24 && minute < 60;
}

static int take_date(scanner *s, int64_t *days) {
  date d;
  if (!take_number(s, 4, &d.year) || !take(s, '-') || !take_number(s, 2, &d.month) ||
      !take(s, '-') || !take_number(s, 2, &d.day)) {
    return 0;
  }
  if (d.year < 1 || d.month < 1 || d.month > 12) return 0;
  if (d.day < 1 || d.day > days_in(d.year, d.month)) return 0;
  *days = to_days(d);
  return 1;
}

static int take_time(scanner *s, int64_t *milliseconds) {
  int64_t hour, minute, second, fraction, offset;
  if (!take_number(s, 2, &hour) || !take(s, ':') || !take_number(s, 2, &minute) || !take(s, ':') ||
      !take_number(s, 2, &second)) {
    return 0;
  }
  if (hour > 23 || minute > 59 || second > 59) return 0;
  if (!take_fraction(s, &fraction) || !take_offset(s, &offset)) return 0;
  *milliseconds = ((hour * 60 + minute - offset) * 60 + second) * 1000 + fraction;
  return 1;
}

/* A date, or a date with a time and an offset, in milliseconds since 1970. */
static cvg_status date_argument(cvgi_call *call, const char *name, int64_t *out) {
  cvgi_string text = cvgi_string_of(call->arguments, cvgi_argument(call, name));
  scanner s = {(const char *)text.at, (const char *)text.end};
  int64_t days = 0, milliseconds = 0;
  int right = take_date(&s, &days);
  if (right && take(&s, 'T')) right = take_time(&s, &milliseconds);
  if (!right || s.at != s.end) {
    return cvgi_fail(call, "a date is like 2026-01-31 or 2026-01-31T23:59:59Z, from year 1 on");
  }
  *out = days * DAY_MS + milliseconds;
  return CVG_OK;
}

static cvg_status put_date(cvgi_call *call, int64_t milliseconds) {
  int64_t days = floor_divide(milliseconds, DAY_MS);
  if (days < FIRST_DAY || days > LAST_DAY) {
    return cvgi_fail(call, "the date is outside of the years 1 to 9999");
  }
  int64_t rest = milliseconds - days * DAY_MS;
  date d = from_days(days);
  const struct {
    const char *before;
    int64_t value;
    int width;
  } parts[] = {{"\"", d.year, 4},        {"-", d.month, 2},           {"-", d.day, 2},
               {"T", rest / 3600000, 2}, {":", rest / 60000 % 60, 2}, {":", rest / 1000 % 60, 2},
               {".", rest % 1000, 3}};
  size_t count = sizeof parts / sizeof *parts;
  for (size_t i = 0; i < (rest % 1000 == 0 ? count - 1 : count); i++) {
    cvgi_put(call, parts[i].before, strlen(parts[i].before));
    cvgi_put_padded(call, parts[i].value, parts[i].width);
  }
  cvgi_put(call, "Z\"", 2);
  return CVG_OK;
}

cvg_status cvgi_date_now(cvgi_call *call) {
  return put_date(call, call->now_ms);
}

static int64_t add_months(int64_t days, int64_t months) {
  date d = from_days(days);
  int64_t month = d.year * 12 + d.month - 1 + months;
  d.year = floor_divide(month, 12);
  d.month = month - d.year * 12 + 1;
  if (d.day > days_in(d.year, d.month)) d.day = days_in(d.year, d.month);
  return to_days(d);
}

/* Spans are bounded by the schema, so that nothing here overflows. */
cvg_status cvgi_date_add(cvgi_call *call) {
  int64_t begin = 0;
  cvg_status status = date_argument(call, "date", &begin);
  if (status != CVG_OK) return status;
  int64_t days = floor_divide(begin, DAY_MS);
  int64_t rest = begin - days * DAY_MS;
  days = add_months(days, cvgi_int_argument(call, "months", 0));
  days += cvgi_int_argument(call, "days", 0);
  return put_date(call, days * DAY_MS + rest + cvgi_int_argument(call, "seconds", 0) * 1000);
}

cvg_status cvgi_date_difference(cvgi_call *call) {
  int64_t from = 0, to = 0;
  cvg_status status = date_argument(call, "from", &from);
  if (status == CVG_OK) status = date_argument(call, "to", &to);
  if (status != CVG_OK) return status;
  cvgi_put_int(call, (to - from) / 1000);
  return CVG_OK;
}

cvg_status cvgi_date_weekday(cvgi_call *call) {
  int64_t when = 0;
  cvg_status status = date_argument(call, "date", &when);
  if (status != CVG_OK) return status;
  int64_t days = floor_divide(when, DAY_MS) + 3; /* 1970-01-01 was a Thursday */
  cvgi_put_int(call, days - floor_divide(days, 7) * 7 + 1);
  return CVG_OK;
}
