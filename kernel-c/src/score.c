/*
** score.c: the parts of a score, from operations that are rounded the same way everywhere.
*/
#include "score.h"

#include <math.h>
#include <string.h>

#define K1 1.2
#define B 0.75

/*
** The natural logarithm of x >= 1. The library's own differs from one to the next in its last bits.
** x = m * 2^e with m from 1 to 2, and ln m = 2 artanh s with s = (m - 1) / (m + 1), at most 1/3.
*/
static double logarithm(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  int exponent = (int)(bits >> 52) - 1023;
  bits = (bits & 0x000FFFFFFFFFFFFFu) | 0x3FF0000000000000u;
  memcpy(&x, &bits, sizeof x);
  double s = (x - 1) / (x + 1), square = s * s, sum = 0;
  for (int i = 33; i >= 1; i -= 2) sum = sum * square + 1.0 / i;
  return exponent * 0.69314718055994530942 + 2 * s * sum;
}

double cvgi_word_weight(uint32_t items, uint32_t holders) {
  return logarithm(1 + ((double)(items - holders) + 0.5) / ((double)holders + 0.5));
}

double cvgi_bm25(double weight, uint32_t occurrences, uint32_t length, double mean_length) {
  double share = mean_length > 0 ? length / mean_length : 1;
  return weight * occurrences * (K1 + 1) / (occurrences + K1 * (1 - B + B * share));
}

int cvgi_weights_valid(const cvg_weights *weights) {
  const uint32_t parts[] = {weights->text, weights->vector, weights->recency, weights->importance};
  uint32_t sum = 0;
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    if (parts[i] > CVG_WEIGHT_MAX) return 0;
    sum += parts[i];
  }
  return sum > 0 && weights->half_life_ms > 0;
}

static double recency(int64_t age_ms, int64_t half_life_ms) {
  if (age_ms <= 0) return 1;
  return (double)half_life_ms / ((double)half_life_ms + (double)age_ms);
}

double cvgi_score(const cvg_weights *weights, double bm25, double cosine, int64_t age_ms,
                  uint32_t importance) {
  double sum = weights->text * (bm25 / (1 + bm25));
  sum += weights->vector * (cosine > 0 ? cosine : 0);
  sum += weights->recency * recency(age_ms, weights->half_life_ms);
  sum += weights->importance * ((double)importance / CVG_IMPORTANCE_MAX);
  return sum / (weights->text + weights->vector + weights->recency + weights->importance);
}

cvg_status cvg_score(const cvg_weights *weights, double bm25, double cosine, int64_t age_ms,
                     uint32_t importance, double *out) {
  if (weights == NULL || out == NULL || !cvgi_weights_valid(weights)) return CVG_BAD_ARGUMENT;
  if (!isfinite(bm25) || bm25 < 0 || importance > CVG_IMPORTANCE_MAX) return CVG_BAD_ARGUMENT;
  if (!(cosine >= -1 && cosine <= 1)) return CVG_BAD_ARGUMENT;
  *out = cvgi_score(weights, bm25, cosine, age_ms, importance);
  return CVG_OK;
}
