/*
** memory.c: blocks from the caller's allocator, with sizes that cannot overflow.
*/
#include "memory.h"

int cvgi_allocator_valid(const cvg_allocator *allocator) {
  return allocator != NULL && allocator->allocate != NULL && allocator->release != NULL;
}

int cvgi_size_add(size_t *total, size_t count, size_t size) {
  if (size != 0 && count > (SIZE_MAX - *total) / size) return 0;
  *total += count * size;
  return 1;
}

void *cvgi_allocate(const cvg_allocator *allocator, size_t count, size_t size) {
  size_t total = 0;
  if (!cvgi_size_add(&total, count, size) || total == 0) return NULL;
  return allocator->allocate(allocator->context, total);
}

void cvgi_release(const cvg_allocator *allocator, void *block, size_t count, size_t size) {
  if (block != NULL) allocator->release(allocator->context, block, count * size);
}
