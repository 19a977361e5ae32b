/*
** sort.c: heap sort. The library's qsort may allocate or recurse, which the kernel must not.
**
** The hole sinks to a leaf along the greater children and the element then climbs, which takes
** about one comparison a level instead of two.
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

/* The usual sizes are known to the compiler, which then needs no call. */
static void copy(const heap *h, void *to, const void *from) {
  switch (h->size) {
    case 4: memcpy(to, from, 4); break;
    case 8: memcpy(to, from, 8); break;
    case 16: memcpy(to, from, 16); break;
    default: memcpy(to, from, h->size); break;
  }
}

/* Puts `element` where it belongs in the heap (greatest first) below `root`, which is a hole. */
static void sink(const heap *h, size_t root, size_t count, const unsigned char *element) {
  size_t hole = root;
  while (hole < count / 2) {
    size_t child = 2 * hole + 1;
    if (child + 1 < count && less(h, child, child + 1)) child++;
    copy(h, at(h, hole), at(h, child));
    hole = child;
  }
  while (hole > root) {
    size_t parent = (hole - 1) / 2;
    if (!h->before(h->context, at(h, parent), element)) break;
    copy(h, at(h, hole), at(h, parent));
    hole = parent;
  }
  copy(h, at(h, hole), element);
}

static int in_order(const heap *h, size_t count) {
  for (size_t i = 1; i < count; i++) {
    if (less(h, i, i - 1)) return 0;
  }
  return 1;
}

void cvgi_sort(void *base, size_t count, size_t size, cvgi_before before, const void *context) {
  const heap h = {base, size, before, context};
  unsigned char element[CVGI_SORT_ELEMENT_MAX];
  if (count < 2 || in_order(&h, count)) return;
  for (size_t root = count / 2; root > 0; root--) {
    copy(&h, element, at(&h, root - 1));
    sink(&h, root - 1, count, element);
  }
  for (size_t end = count - 1; end > 0; end--) {
    copy(&h, element, at(&h, end));
    copy(&h, at(&h, end), at(&h, 0));
    sink(&h, 0, end, element);
  }
}
