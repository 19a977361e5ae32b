/*
** sort.h: sorting in place, without recursion and without memory.
*/
#ifndef CVG_SORT_H
#define CVG_SORT_H

#include <stddef.h>

/* Whether `left` must come before `right`; a strict total order. */
typedef int (*cvgi_before)(const void *context, const void *left, const void *right);

/* The largest element that can be sorted, in bytes. */
#define CVGI_SORT_ELEMENT_MAX 16

/* Sorts `count` elements of `size` bytes. O(count) when they are in order already. */
void cvgi_sort(void *base, size_t count, size_t size, cvgi_before before, const void *context);

#endif
