/*
** fixture.c: a heap that can fail, and a run to play with.
*/
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static void *heap_allocate(void *context, size_t size) {
  test_heap *heap = context;
  if (heap->grants == 0) return NULL;
  if (heap->grants != UNLIMITED) heap->grants--;
  heap->lent_blocks++;
  heap->lent_bytes += size;
  void *block = malloc(size);
  /* Whatever the kernel reads without writing it first shows as nonsense. */
  if (block != NULL) memset(block, 0xA5, size);
  return block;
}

static void heap_release(void *context, void *block, size_t size) {
  test_heap *heap = context;
  heap->lent_blocks--;
  heap->lent_bytes -= size;
  free(block);
}

cvg_allocator heap_allocator(test_heap *heap) {
  const cvg_allocator allocator = {heap_allocate, heap_release, heap};
  return allocator;
}

void fixture_start(fixture *f, const cvg_node_spec *nodes, size_t node_count,
                   const cvg_edge_spec *edges, size_t edge_count) {
  memset(f, 0, sizeof *f);
  f->heap.grants = UNLIMITED;
  f->allocator = heap_allocator(&f->heap);
  CHECK_STATUS(
      cvg_graph_compile(&f->allocator, nodes, node_count, edges, edge_count, &f->graph, NULL),
      CVG_OK);
  CHECK_STATUS(cvg_delta_new(&f->allocator, &f->delta), CVG_OK);
  CHECK_STATUS(cvg_sched_start(f->graph, &f->allocator, &f->sched, f->delta), CVG_OK);
}

void fixture_end(fixture *f) {
  cvg_sched_free(f->sched);
  cvg_delta_free(f->delta);
  cvg_graph_free(f->graph);
  CHECK(f->heap.lent_blocks == 0);
  CHECK(f->heap.lent_bytes == 0);
}

static void append(fixture *f, const char *format, ...) {
  size_t used = strlen(f->text);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(f->text + used, sizeof f->text - used, format, arguments);
  va_end(arguments);
}

static void append_nodes(fixture *f, const char *label, const uint32_t *nodes, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (i == 0) append(f, "%s%s", f->text[0] == '\0' ? "" : " ", label);
    append(f, " %u", nodes[i]);
  }
}

const char *delta_text(fixture *f) {
  static const char *const results[] = {"running", "succeeded", "failed", "cancelled"};
  cvg_delta_view view;
  f->text[0] = '\0';
  CHECK_STATUS(cvg_delta_read(f->delta, &view), CVG_OK);
  for (size_t i = 0; i < view.ready_count; i++) {
    append(f, "%s%u", i == 0 ? "ready " : " ", view.ready[i].node);
    if (view.ready[i].item != CVG_NONE) append(f, ":%u", view.ready[i].item);
  }
  append_nodes(f, "skipped", view.skipped, view.skipped_count);
  append_nodes(f, "stopped", view.cancelled, view.cancelled_count);
  append_nodes(f, "asking", &view.asking, view.asking != CVG_NONE);
  append(f, "%s%s", f->text[0] == '\0' ? "" : " ", results[view.result]);
  return f->text;
}

static const char *complete(fixture *f, uint32_t node, uint32_t kind, uint32_t choice) {
  const cvg_outcome outcome = {kind, choice};
  CHECK_STATUS(cvg_sched_complete(f->sched, node, outcome, f->delta), CVG_OK);
  return delta_text(f);
}

const char *done(fixture *f, uint32_t node) {
  return complete(f, node, CVG_OUTCOME_DONE, CVG_NONE);
}

const char *chose(fixture *f, uint32_t node, uint32_t choice) {
  return complete(f, node, CVG_OUTCOME_DONE, choice);
}

const char *failed(fixture *f, uint32_t node) {
  return complete(f, node, CVG_OUTCOME_FAILED, CVG_NONE);
}

const char *expanded(fixture *f, uint32_t node, uint32_t width, uint32_t max_parallel) {
  CHECK_STATUS(cvg_sched_expand(f->sched, node, width, max_parallel, f->delta), CVG_OK);
  return delta_text(f);
}

static const char *complete_item(fixture *f, uint32_t node, uint32_t item, uint32_t kind) {
  const cvg_outcome outcome = {kind, CVG_NONE};
  CHECK_STATUS(cvg_sched_complete_item(f->sched, node, item, outcome, f->delta), CVG_OK);
  return delta_text(f);
}

const char *item_done(fixture *f, uint32_t node, uint32_t item) {
  return complete_item(f, node, item, CVG_OUTCOME_DONE);
}

const char *item_failed(fixture *f, uint32_t node, uint32_t item) {
  return complete_item(f, node, item, CVG_OUTCOME_FAILED);
}

const char *iterated(fixture *f, uint32_t node) {
  CHECK_STATUS(cvg_sched_iterate(f->sched, node, f->delta), CVG_OK);
  return delta_text(f);
}

const char *answered(fixture *f, uint32_t node, uint32_t answer) {
  CHECK_STATUS(cvg_sched_answer(f->sched, node, answer, f->delta), CVG_OK);
  return delta_text(f);
}

const char *cancelled(fixture *f) {
  CHECK_STATUS(cvg_sched_cancel(f->sched, f->delta), CVG_OK);
  return delta_text(f);
}

int reloaded(fixture *f) {
  uint8_t bytes[512];
  size_t size = 0;
  uint64_t before = 0, after = 1;
  cvg_sched *sched = NULL;
  CHECK_STATUS(cvg_sched_save(f->sched, bytes, sizeof bytes, &size), CVG_OK);
  CHECK_STATUS(cvg_sched_hash(f->sched, &before), CVG_OK);
  cvg_status status = cvg_sched_load(f->graph, &f->allocator, bytes, size, &sched, f->delta, NULL);
  CHECK_STATUS(status, CVG_OK);
  if (status != CVG_OK) return 0;
  CHECK_STATUS(cvg_sched_hash(sched, &after), CVG_OK);
  cvg_sched_free(f->sched);
  f->sched = sched;
  return before == after;
}

uint32_t status_of(const fixture *f, uint32_t node) {
  uint32_t status = CVG_NONE;
  CHECK_STATUS(cvg_sched_node_status(f->sched, node, &status), CVG_OK);
  return status;
}
