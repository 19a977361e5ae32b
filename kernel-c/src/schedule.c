/*
** schedule.c: starts, copies and advances the run of a graph.
*/
#include "schedule.h"

#include <string.h>

#include "memory.h"

static size_t sched_bytes(const cvg_graph *graph) {
  return sizeof(cvg_sched) + graph->node_count * sizeof(cvgi_run_node);
}

void cvgi_reset_node(cvg_sched *sched, uint32_t node) {
  const cvgi_run_node fresh = {.missing = sched->graph->nodes[node].need,
                               .unresolved = sched->graph->nodes[node].in_degree,
                               .value = CVG_NONE};
  sched->nodes[node] = fresh;
}

cvg_sched *cvgi_sched_new(const cvg_graph *graph, const cvg_allocator *allocator,
                          uint32_t map_room) {
  cvg_sched *sched = cvgi_allocate(allocator, 1, sched_bytes(graph));
  if (sched == NULL) return NULL;
  memset(sched, 0, sched_bytes(graph));
  sched->graph = graph;
  sched->allocator = *allocator;
  for (uint32_t i = 0; i < graph->node_count; i++) {
    cvgi_reset_node(sched, i);
    if (graph->nodes[i].scope == CVG_NONE) sched->open++;
  }
  if (cvgi_map_table_reserve(allocator, &sched->maps, map_room)) return sched;
  cvg_sched_free(sched);
  return NULL;
}

void cvg_sched_free(cvg_sched *sched) {
  if (sched == NULL) return;
  const cvg_allocator allocator = sched->allocator;
  cvgi_map_table_free(&allocator, &sched->maps);
  cvgi_release(&allocator, sched, 1, sched_bytes(sched->graph));
}

cvg_status cvg_sched_clone(const cvg_sched *sched, cvg_sched **out) {
  if (sched == NULL || out == NULL) return CVG_BAD_ARGUMENT;
  cvg_sched *copy = cvgi_sched_new(sched->graph, &sched->allocator, sched->maps.count);
  if (copy == NULL) return CVG_NO_MEMORY;
  if (!cvgi_map_table_copy(&sched->allocator, &sched->maps, &copy->maps)) {
    cvg_sched_free(copy);
    return CVG_NO_MEMORY;
  }
  copy->open = sched->open;
  copy->ended = sched->ended;
  memcpy(copy->nodes, sched->nodes, sched->graph->node_count * sizeof *sched->nodes);
  *out = copy;
  return CVG_OK;
}

uint32_t cvgi_sched_result(const cvg_sched *sched) {
  if (sched->ended) return sched->ended;
  return sched->open == 0 ? CVG_RUN_SUCCEEDED : CVG_RUN_RUNNING;
}

cvg_status cvg_sched_result(const cvg_sched *sched, uint32_t *out) {
  if (sched == NULL || out == NULL) return CVG_BAD_ARGUMENT;
  *out = cvgi_sched_result(sched);
  return CVG_OK;
}

cvg_status cvg_sched_node_status(const cvg_sched *sched, uint32_t node, uint32_t *out) {
  if (sched == NULL || out == NULL) return CVG_BAD_ARGUMENT;
  if (node >= sched->graph->node_count) return CVG_BAD_NODE;
  *out = sched->nodes[node].status;
  return CVG_OK;
}

cvg_status cvg_sched_start(const cvg_graph *graph, const cvg_allocator *allocator, cvg_sched **out,
                           cvg_delta *delta) {
  if (delta == NULL) return CVG_BAD_ARGUMENT;
  cvgi_delta_clear(delta);
  if (graph == NULL || !cvgi_allocator_valid(allocator) || out == NULL) return CVG_BAD_ARGUMENT;
  cvg_status status = cvgi_delta_reserve(delta, graph->node_count, 0);
  if (status != CVG_OK) return status;
  cvg_sched *sched = cvgi_sched_new(graph, allocator, 0);
  if (sched == NULL) return CVG_NO_MEMORY;
  for (uint32_t i = 0; i < graph->node_count; i++) cvgi_judge(sched, i, delta);
  cvgi_finish_call(sched, delta);
  *out = sched;
  return CVG_OK;
}

int cvgi_in_flight(const cvg_sched *sched, uint32_t node) {
  uint32_t status = sched->nodes[node].status;
  return status == CVG_NODE_READY || status == CVG_NODE_ASKING;
}

int cvgi_status_resolved(uint32_t status) {
  return status != CVG_NODE_PENDING && status != CVG_NODE_READY && status != CVG_NODE_ASKING;
}

/* What every call on a node in flight checks before it changes anything. */
static cvg_status begin_call(const cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  if (delta == NULL) return CVG_BAD_ARGUMENT;
  cvgi_delta_clear(delta);
  if (sched == NULL) return CVG_BAD_ARGUMENT;
  if (node >= sched->graph->node_count) return CVG_BAD_NODE;
  return sched->nodes[node].status == CVG_NODE_READY ? CVG_OK : CVG_NOT_READY;
}

static int is_scope(const cvg_sched *sched, uint32_t node) {
  return sched->graph->nodes[node].body > 0;
}

cvg_status cvg_sched_complete(cvg_sched *sched, uint32_t node, cvg_outcome outcome,
                              cvg_delta *delta) {
  cvg_status status = begin_call(sched, node, delta);
  if (status != CVG_OK) return status;
  if (outcome.kind > CVG_OUTCOME_FAILED) return CVG_BAD_ARGUMENT;
  int done = outcome.kind == CVG_OUTCOME_DONE;
  if (done && cvgi_has(sched, node, CVGI_EXPANDED | CVGI_ITERATING)) return CVG_ALREADY_EXPANDED;
  status = cvgi_delta_reserve(delta, sched->graph->node_count, 0);
  if (status != CVG_OK) return status;
  if (done) {
    cvgi_finish_done(sched, node, outcome.choice, delta);
  } else {
    cvgi_finish_failed(sched, node, delta);
  }
  cvgi_finish_call(sched, delta);
  return CVG_OK;
}

/* Doubles the room, so that adding maps costs constant time on average. */
static int make_map_room(cvg_sched *sched) {
  cvgi_map_table *maps = &sched->maps;
  uint32_t room = maps->count < maps->room ? maps->room : 2 * maps->room + 1;
  return cvgi_map_table_reserve(&sched->allocator, maps, room);
}

static cvg_status add_map(cvg_sched *sched, uint32_t node, uint32_t width, uint32_t max_parallel) {
  if (!make_map_room(sched)) return CVG_NO_MEMORY;
  cvgi_map *map = cvgi_map_new(&sched->allocator, width, max_parallel);
  if (map == NULL) return CVG_NO_MEMORY;
  sched->nodes[node].value = cvgi_map_table_add(&sched->maps, map);
  sched->nodes[node].flags |= CVGI_EXPANDED;
  return CVG_OK;
}

cvgi_map *cvgi_map_of(const cvg_sched *sched, uint32_t node) {
  return sched->maps.slots[sched->nodes[node].value];
}

void cvgi_emit_items(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  cvgi_map *map = cvgi_map_of(sched, node);
  while (!sched->ended && cvgi_map_can_emit(map)) cvgi_delta_ready(delta, node, map->emitted++);
}

cvg_status cvg_sched_expand(cvg_sched *sched, uint32_t node, uint32_t width, uint32_t max_parallel,
                            cvg_delta *delta) {
  cvg_status status = begin_call(sched, node, delta);
  if (status != CVG_OK) return status;
  if (is_scope(sched, node) || cvgi_has(sched, node, CVGI_EXPANDED)) return CVG_ALREADY_EXPANDED;
  if (max_parallel == 0) return CVG_BAD_ARGUMENT;
  if (width > CVG_MAP_WIDTH_MAX) return CVG_TOO_LARGE;
  if (sched->ended) return CVG_RUN_ENDED;
  uint32_t first = width < max_parallel ? width : max_parallel;
  status = cvgi_delta_reserve(delta, sched->graph->node_count, first);
  if (status != CVG_OK) return status;
  if (width == 0) {
    cvgi_finish_done(sched, node, CVG_NONE, delta);
  } else {
    status = add_map(sched, node, width, max_parallel);
    if (status != CVG_OK) return status;
    cvgi_emit_items(sched, node, delta);
  }
  cvgi_finish_call(sched, delta);
  return CVG_OK;
}

static void item_done(cvg_sched *sched, uint32_t node, uint32_t item, cvg_delta *delta) {
  cvgi_map *map = cvgi_map_of(sched, node);
  cvgi_map_item_done(map, item);
  if (map->done_count == map->width) {
    cvgi_finish_done(sched, node, CVG_NONE, delta);
  } else {
    cvgi_emit_items(sched, node, delta);
  }
}

cvg_status cvg_sched_complete_item(cvg_sched *sched, uint32_t node, uint32_t item,
                                   cvg_outcome outcome, cvg_delta *delta) {
  cvg_status status = begin_call(sched, node, delta);
  if (status != CVG_OK) return status;
  if (outcome.kind > CVG_OUTCOME_FAILED) return CVG_BAD_ARGUMENT;
  if (!cvgi_has(sched, node, CVGI_EXPANDED)) return CVG_NOT_EXPANDED;
  if (!cvgi_map_item_in_flight(cvgi_map_of(sched, node), item)) return CVG_ITEM_NOT_READY;
  status = cvgi_delta_reserve(delta, sched->graph->node_count, 1);
  if (status != CVG_OK) return status;
  if (outcome.kind == CVG_OUTCOME_DONE) {
    item_done(sched, node, item, delta);
  } else {
    cvgi_finish_failed(sched, node, delta);
  }
  cvgi_finish_call(sched, delta);
  return CVG_OK;
}
