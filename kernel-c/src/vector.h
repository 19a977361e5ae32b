/*
** vector.h: sums over vectors of bytes, which are exact.
*/
#ifndef CVG_VECTOR_H
#define CVG_VECTOR_H

#include <stddef.h>
#include <stdint.h>

/* The sum of products, with SIMD where the compiler offers it. Up to 65,536 dimensions. */
int32_t cvgi_dot(const int8_t *a, const int8_t *b, size_t dimensions);

/* The same in plain code. */
int32_t cvgi_dot_scalar(const int8_t *a, const int8_t *b, size_t dimensions);

/* The cosine from a sum of products and the squared lengths. */
double cvgi_cosine_of(int32_t dot, int32_t a_squared, int32_t b_squared);

#endif
