/*
** delta.c: what one scheduler call changed, in deterministic order.
*/
#include "delta.h"

#include "memory.h"
#include "sort.h"

cvg_status cvg_delta_new(const cvg_allocator *allocator, cvg_delta **out) {
  if (!cvgi_allocator_valid(allocator) || out == NULL) return CVG_BAD_ARGUMENT;
  cvg_delta *delta = cvgi_allocate(allocator, 1, sizeof *delta);
  if (delta == NULL) return CVG_NO_MEMORY;
  *delta = (cvg_delta){.allocator = *allocator, .asking = CVG_NONE};
  *out = delta;
  return CVG_OK;
}

static void release_ready(cvg_delta *delta) {
  cvgi_release(&delta->allocator, delta->ready, delta->ready_room, sizeof *delta->ready);
}

static void release_nodes(cvg_delta *delta) {
  cvgi_release(&delta->allocator, delta->settling, delta->node_room, sizeof *delta->settling);
}

/* The list of what is cancelled, which ends where the room of what is ready ends. */
static uint32_t *cancelled(const cvg_delta *delta) {
  return (uint32_t *)(delta->ready + delta->ready_room) - delta->cancelled_count;
}

void cvg_delta_free(cvg_delta *delta) {
  if (delta == NULL) return;
  const cvg_allocator allocator = delta->allocator;
  release_ready(delta);
  release_nodes(delta);
  cvgi_release(&allocator, delta, 1, sizeof *delta);
}

cvg_status cvg_delta_read(const cvg_delta *delta, cvg_delta_view *out) {
  if (delta == NULL || out == NULL) return CVG_BAD_ARGUMENT;
  out->ready = delta->ready;
  out->ready_count = delta->ready_count;
  out->skipped = delta->settling;
  out->skipped_count = delta->skipped_count;
  out->cancelled = delta->ready_room == 0 ? NULL : cancelled(delta);
  out->cancelled_count = delta->cancelled_count;
  out->asking = delta->asking;
  out->result = delta->result;
  return CVG_OK;
}

void cvgi_delta_clear(cvg_delta *delta) {
  delta->ready_count = 0;
  delta->cancelled_count = 0;
  delta->skipped_count = 0;
  delta->settling_count = 0;
  delta->settled_count = 0;
  delta->asking = CVG_NONE;
  delta->result = CVG_RUN_RUNNING;
}

static cvg_status reserve_ready(cvg_delta *delta, size_t room) {
  if (room <= delta->ready_room) return CVG_OK;
  cvg_ready *ready = cvgi_allocate(&delta->allocator, room, sizeof *ready);
  if (ready == NULL) return CVG_NO_MEMORY;
  release_ready(delta);
  delta->ready = ready;
  delta->ready_room = room;
  return CVG_OK;
}

static cvg_status reserve_nodes(cvg_delta *delta, size_t room) {
  if (room <= delta->node_room) return CVG_OK;
  uint32_t *settling = cvgi_allocate(&delta->allocator, room, sizeof *settling);
  if (settling == NULL) return CVG_NO_MEMORY;
  release_nodes(delta);
  delta->settling = settling;
  delta->node_room = room;
  return CVG_OK;
}

cvg_status cvgi_delta_reserve(cvg_delta *delta, size_t nodes, size_t items) {
  if (items > SIZE_MAX - nodes) return CVG_NO_MEMORY;
  cvg_status status = reserve_ready(delta, nodes + items);
  return status == CVG_OK ? reserve_nodes(delta, nodes) : status;
}

void cvgi_delta_ready(cvg_delta *delta, uint32_t node, uint32_t item) {
  cvg_ready *slot = &delta->ready[delta->ready_count++];
  slot->node = node;
  slot->item = item;
}

void cvgi_delta_cancelled(cvg_delta *delta, uint32_t node) {
  delta->cancelled_count++;
  *cancelled(delta) = node;
}

void cvgi_delta_skipped(cvg_delta *delta, uint32_t node) {
  delta->settling[delta->skipped_count++] = node;
}

void cvgi_delta_settling(cvg_delta *delta, uint32_t node) {
  delta->settling[delta->settling_count++] = node;
}

uint32_t cvgi_delta_next(cvg_delta *delta) {
  if (delta->settled_count == delta->settling_count) return CVG_NONE;
  return delta->settling[delta->settled_count++];
}

static int ready_before(const void *context, const void *left, const void *right) {
  const cvg_ready *a = left, *b = right;
  (void)context;
  return a->node != b->node ? a->node < b->node : a->item < b->item;
}

static int node_before(const void *context, const void *left, const void *right) {
  const uint32_t *a = left, *b = right;
  (void)context;
  return *a < *b;
}

void cvgi_delta_finish(cvg_delta *delta, uint32_t result) {
  cvgi_sort(delta->ready, delta->ready_count, sizeof *delta->ready, ready_before, NULL);
  cvgi_sort(delta->settling, delta->skipped_count, sizeof *delta->settling, node_before, NULL);
  if (delta->cancelled_count > 0) {
    cvgi_sort(cancelled(delta), delta->cancelled_count, sizeof(uint32_t), node_before, NULL);
  }
  delta->result = result;
}
