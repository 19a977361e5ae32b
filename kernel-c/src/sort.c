/*
** sort.c: heap sort. The library's qsort may allocate or recurse, which the kernel must not.
*/
#include "sort.h"

#include <string.h>

typedef struct heap {
  unsigned char *base;
  size_t size;
  cvgi_before before;
  const void *context;
} heap;

static unsigned char *at(const heap *h, size_t index) {
  return h->base + index * h->size;
}

static int less(const heap *h, size_t left, size_t right) {
  return h->before(h->context, at(h, left), at(h, right));
}

static void swap(const heap *h, size_t left, size_t right) {
  unsigned char kept[CVGI_SORT_ELEMENT_MAX];
  memcpy(kept, at(h, left), h->size);
  memcpy(at(h, left), at(h, right), h->size);
  memcpy(at(h, right), kept, h->size);
}

/* Restores the heap (greatest first) below `root`, within the first `count` elements. */
static void sift_down(const heap *h, size_t root, size_t count) {
  while (root < count / 2) {
    size_t child = 2 * root + 1;
    if (child + 1 < count && less(h, child, child + 1)) child++;
    if (!less(h, root, child)) return;
    swap(h, root, child);
    root = child;
  }
}

static int in_order(const heap *h, size_t count) {
  for (size_t i = 1; i < count; i++) {
    if (less(h, i, i - 1)) return 0;
  }
  return 1;
}

void cvgi_sort(void *base, size_t count, size_t size, cvgi_before before, const void *context) {
  const heap h = {base, size, before, context};
  if (count < 2 || in_order(&h, count)) return;
  for (size_t root = count / 2; root > 0; root--) sift_down(&h, root - 1, count);
  for (size_t end = count - 1; end > 0; end--) {
    swap(&h, 0, end);
    sift_down(&h, 0, end);
  }
}
