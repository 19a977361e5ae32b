/*
** vector.c: cosines of vectors of bytes. Integer sums are the same in any order, so that SIMD needs
** no proof of its own.
*/
#include "vector.h"

#include <math.h>

#include "convergio/kernel.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

/* |sum| <= 65536 * 128 * 128 = 2^30 */
int32_t cvgi_dot_scalar(const int8_t *a, const int8_t *b, size_t dimensions) {
  int32_t sum = 0;
  for (size_t i = 0; i < dimensions; i++) sum += (int32_t)a[i] * b[i];
  return sum;
}

#if defined(__SSE2__)

#define LANES 16u

/* Bytes become words by their sign; pairs of products are added to four sums. */
static __m128i add_products(__m128i sum, const int8_t *a, const int8_t *b) {
  __m128i left = _mm_loadu_si128((const __m128i *)(const void *)a);
  __m128i right = _mm_loadu_si128((const __m128i *)(const void *)b);
  __m128i left_sign = _mm_cmpgt_epi8(_mm_setzero_si128(), left);
  __m128i right_sign = _mm_cmpgt_epi8(_mm_setzero_si128(), right);
  __m128i low =
      _mm_madd_epi16(_mm_unpacklo_epi8(left, left_sign), _mm_unpacklo_epi8(right, right_sign));
  __m128i high =
      _mm_madd_epi16(_mm_unpackhi_epi8(left, left_sign), _mm_unpackhi_epi8(right, right_sign));
  return _mm_add_epi32(sum, _mm_add_epi32(low, high));
}

static int32_t dot_lanes(const int8_t *a, const int8_t *b, size_t dimensions) {
  int32_t sums[4];
  __m128i sum = _mm_setzero_si128();
  for (size_t i = 0; i < dimensions; i += LANES) sum = add_products(sum, a + i, b + i);
  _mm_storeu_si128((__m128i *)(void *)sums, sum);
  return sums[0] + sums[1] + sums[2] + sums[3];
}

#elif defined(__ARM_NEON)

#define LANES 16u

static int32_t dot_lanes(const int8_t *a, const int8_t *b, size_t dimensions) {
  int32_t sums[4];
  int32x4_t sum = vdupq_n_s32(0);
  for (size_t i = 0; i < dimensions; i += LANES) {
    int8x16_t left = vld1q_s8(a + i), right = vld1q_s8(b + i);
    sum = vpadalq_s16(sum, vmull_s8(vget_low_s8(left), vget_low_s8(right)));
    sum = vpadalq_s16(sum, vmull_s8(vget_high_s8(left), vget_high_s8(right)));
  }
  vst1q_s32(sums, sum);
  return sums[0] + sums[1] + sums[2] + sums[3];
}

#else

#define LANES 1u
#define dot_lanes cvgi_dot_scalar

#endif

int32_t cvgi_dot(const int8_t *a, const int8_t *b, size_t dimensions) {
  size_t whole = dimensions - dimensions % LANES;
  return dot_lanes(a, b, whole) + cvgi_dot_scalar(a + whole, b + whole, dimensions - whole);
}

double cvgi_cosine_of(int32_t dot, int32_t a_squared, int32_t b_squared) {
  if (a_squared == 0 || b_squared == 0) return 0;
  /* The product is below 2^60 and its root is rounded once. */
  double cosine = dot / sqrt((double)a_squared * (double)b_squared);
  return cosine > 1 ? 1 : cosine < -1 ? -1 : cosine;
}

cvg_status cvg_cosine(const int8_t *a, const int8_t *b, size_t dimensions, double *out) {
  if (out == NULL || (dimensions > 0 && (a == NULL || b == NULL))) return CVG_BAD_ARGUMENT;
  if (dimensions > CVG_DIMENSIONS_MAX) return CVG_TOO_LARGE;
  *out = 0;
  if (dimensions == 0) return CVG_OK;
  *out = cvgi_cosine_of(cvgi_dot(a, b, dimensions), cvgi_dot(a, a, dimensions),
                        cvgi_dot(b, b, dimensions));
  return CVG_OK;
}

cvg_status cvg_quantise(const float *vector, size_t dimensions, int8_t *out) {
  double largest = 0;
  if (dimensions > 0 && (vector == NULL || out == NULL)) return CVG_BAD_ARGUMENT;
  if (dimensions > CVG_DIMENSIONS_MAX) return CVG_TOO_LARGE;
  for (size_t i = 0; i < dimensions; i++) {
    if (!isfinite(vector[i])) return CVG_BAD_ARGUMENT;
    if (fabs((double)vector[i]) > largest) largest = fabs((double)vector[i]);
  }
  for (size_t i = 0; i < dimensions; i++) {
    double scaled = largest > 0 ? vector[i] / largest * 127 : 0;
    out[i] = (int8_t)(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
  }
  return CVG_OK;
}
