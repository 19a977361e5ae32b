/*
** fuzz.h: what the fuzz targets share: bytes as choices, and a heap that can fail.
*/
#ifndef CVG_FUZZ_H
#define CVG_FUZZ_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "convergio/kernel.h"

/* What must hold; a fuzzer takes an abort for a finding. */
#define MUST(condition)        \
  do {                         \
    if (!(condition)) abort(); \
  } while (0)

typedef struct bytes {
  const uint8_t *at;
  size_t left;
} bytes;

/* The next byte, or 0 behind the end. */
static inline uint8_t take(bytes *b) {
  if (b->left == 0) return 0;
  b->left--;
  return *b->at++;
}

static inline uint32_t take_below(bytes *b, uint32_t limit) {
  return take(b) % limit;
}

/* Mostly small, sometimes as large as can be. */
static inline uint64_t take_number(bytes *b) {
  uint8_t first = take(b);
  if (first < 0xF8) return first;
  uint64_t value = 0;
  for (int i = 0; i < 8; i++) value = value << 8 | take(b);
  return first == 0xFF ? UINT64_MAX : value >> 8 * (first - 0xF8);
}

typedef struct heap {
  size_t grants; /* blocks that are still granted */
  size_t lent;
} heap;

static inline void *heap_allocate(void *context, size_t size) {
  heap *h = context;
  if (h->grants == 0) return NULL;
  h->grants--;
  h->lent++;
  return malloc(size);
}

static inline void heap_release(void *context, void *block, size_t size) {
  heap *h = context;
  (void)size;
  h->lent--;
  free(block);
}

static inline cvg_allocator heap_allocator(heap *h) {
  const cvg_allocator allocator = {heap_allocate, heap_release, h};
  return allocator;
}

/* A heap that fails after a few blocks, or, more often, never. */
static inline heap take_heap(bytes *b) {
  uint8_t first = take(b);
  heap h = {first < 0x40 ? first : SIZE_MAX, 0};
  return h;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
