/*
** memory.h: blocks from the caller's allocator, with sizes that cannot overflow.
*/
#ifndef CVG_MEMORY_H
#define CVG_MEMORY_H

#include "convergio/kernel.h"

/* Whether an allocator can be used at all. */
int cvgi_allocator_valid(const cvg_allocator *allocator);

/* Adds count * size to *total. 0 when the sum does not fit, and *total is then meaningless. */
int cvgi_size_add(size_t *total, size_t count, size_t size);

/* A block of count * size bytes, uninitialised; null when empty, too large or out of memory. */
void *cvgi_allocate(const cvg_allocator *allocator, size_t count, size_t size);

/* Gives back a block of count * size bytes; null is fine. */
void cvgi_release(const cvg_allocator *allocator, void *block, size_t count, size_t size);

#endif
