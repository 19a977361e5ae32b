/*
** restore.c: rebuilds a scheduler from what the log says of each node.
**
** The given ends are announced like those of a live run, in index order. The order does not matter:
** edges only ever go from unresolved to live or dead, so any order leads to the same counts. What
** was given is then checked against these counts.
*/
#include "memory.h"
#include "schedule.h"

static int is_map(const cvg_node_state *state) {
  return state->status == CVG_NODE_READY && state->max_parallel > 0;
}

/* Items start in order, so none that waits may precede one that does not. */
static cvg_status check_items(const cvg_node_state *state) {
  int waiting = 0;
  if (state->width > CVG_MAP_WIDTH_MAX) return CVG_TOO_LARGE;
  if (state->width > 0 && state->items == NULL) return CVG_BAD_ARGUMENT;
  for (uint32_t i = 0; i < state->width; i++) {
    if (state->items[i] > CVG_ITEM_DONE) return CVG_BAD_ARGUMENT;
    if (state->items[i] == CVG_ITEM_WAITING) {
      waiting = 1;
    } else if (waiting) {
      return CVG_BAD_STATE;
    }
  }
  return CVG_OK;
}

static cvg_status check_state(const cvg_node_state *state) {
  if (state->status > CVG_NODE_SKIPPED) return CVG_BAD_ARGUMENT;
  if (is_map(state)) return check_items(state);
  return state->max_parallel == 0 && state->width == 0 ? CVG_OK : CVG_BAD_STATE;
}

/* What the states ask of memory. */
typedef struct demand {
  uint32_t maps;
  size_t items;
} demand;

static cvg_status check_states(const cvg_graph *graph, const cvg_node_state *states, demand *sum,
                               cvg_fault *fault) {
  for (uint32_t i = 0; i < graph->node_count; i++) {
    cvg_status status = check_state(&states[i]);
    if (status == CVG_OK && is_map(&states[i])) {
      uint32_t width = states[i].width, at_once = states[i].max_parallel;
      sum->maps++;
      if (!cvgi_size_add(&sum->items, width < at_once ? width : at_once, 1)) status = CVG_TOO_LARGE;
    }
    if (status == CVG_OK) continue;
    fault->node = i;
    return status;
  }
  return CVG_OK;
}

static int restore_map(cvg_sched *sched, uint32_t node, const cvg_node_state *state) {
  cvgi_map *map = cvgi_map_new(&sched->allocator, state->width, state->max_parallel);
  if (map == NULL) return 0;
  sched->nodes[node].map = cvgi_map_table_add(&sched->maps, map);
  while (map->emitted < map->width && state->items[map->emitted] != CVG_ITEM_WAITING) {
    uint32_t item = map->emitted++;
    if (state->items[item] == CVG_ITEM_DONE) cvgi_map_item_done(map, item);
  }
  return 1;
}

/* Takes over what was given, before anything follows from it. 0 without memory. */
static int adopt(cvg_sched *sched, const cvg_node_state *states) {
  for (uint32_t i = 0; i < sched->graph->node_count; i++) {
    const cvg_node_state *state = &states[i];
    cvgi_run_node *node = &sched->nodes[i];
    node->status = (uint8_t)state->status;
    if (state->status > CVG_NODE_READY) sched->open--;
    if (state->status == CVG_NODE_DONE) node->choice = state->choice;
    int fatal = sched->graph->nodes[i].on_error == CVG_ON_ERROR_FAIL;
    if (state->status == CVG_NODE_FAILED && fatal) sched->failed = 1;
    if (is_map(state) && !restore_map(sched, i, state)) return 0;
  }
  return 1;
}

static int consistent(const cvg_sched *sched, uint32_t node, const cvg_node_state *given) {
  const cvgi_run_node *state = &sched->nodes[node];
  uint32_t need = sched->graph->nodes[node].need;
  switch (given->status) {
    case CVG_NODE_PENDING: return 1;
    case CVG_NODE_SKIPPED: return state->live + state->unresolved < need;
    default: return state->live >= need;
  }
}

/* Lets everything follow that the given states imply. */
static cvg_status infer(cvg_sched *sched, const cvg_node_state *states, cvg_delta *delta,
                        cvg_fault *fault) {
  uint32_t node_count = sched->graph->node_count;
  for (uint32_t i = 0; i < node_count; i++) {
    if (states[i].status > CVG_NODE_READY) cvgi_announce(sched, i, delta);
  }
  cvgi_settle_all(sched, delta);
  for (uint32_t i = 0; i < node_count; i++) {
    if (consistent(sched, i, &states[i])) continue;
    fault->node = i;
    return CVG_BAD_STATE;
  }
  for (uint32_t i = 0; i < node_count; i++) cvgi_judge(sched, i, delta);
  return CVG_OK;
}

/* Starts items that could run, and ends maps whose items are all done. */
static void resume_maps(cvg_sched *sched, cvg_delta *delta) {
  for (uint32_t i = 0; i < sched->graph->node_count; i++) {
    if (sched->nodes[i].map == CVG_NONE) continue;
    const cvgi_map *map = cvgi_map_of(sched, i);
    cvgi_emit_items(sched, i, delta);
    if (map->done_count == map->width) cvgi_finish_done(sched, i, CVG_NONE, delta);
  }
  cvgi_settle_all(sched, delta);
}

static cvg_status rebuild(cvg_sched *sched, const cvg_node_state *states, cvg_delta *delta,
                          cvg_fault *fault) {
  if (!adopt(sched, states)) return CVG_NO_MEMORY;
  cvg_status status = infer(sched, states, delta, fault);
  if (status != CVG_OK) {
    cvgi_delta_clear(delta);
    return status;
  }
  resume_maps(sched, delta);
  cvgi_delta_finish(delta, cvgi_sched_result(sched));
  return CVG_OK;
}

static cvg_status restore(const cvg_graph *graph, const cvg_allocator *allocator,
                          const cvg_node_state *states, cvg_sched **out, cvg_delta *delta,
                          cvg_fault *fault) {
  demand sum = {0, 0};
  cvg_status status = check_states(graph, states, &sum, fault);
  if (status == CVG_OK) status = cvgi_delta_reserve(delta, graph->node_count, sum.items);
  if (status != CVG_OK) return status;
  cvg_sched *sched = cvgi_sched_new(graph, allocator, sum.maps);
  if (sched == NULL) return CVG_NO_MEMORY;
  status = rebuild(sched, states, delta, fault);
  if (status == CVG_OK) {
    *out = sched;
  } else {
    cvg_sched_free(sched);
  }
  return status;
}

cvg_status cvg_sched_restore(const cvg_graph *graph, const cvg_allocator *allocator,
                             const cvg_node_state *states, size_t state_count, cvg_sched **out,
                             cvg_delta *delta, cvg_fault *fault) {
  cvg_fault unread;
  if (fault == NULL) fault = &unread;
  fault->node = CVG_NONE;
  fault->edge = CVG_NONE;
  if (delta == NULL) return CVG_BAD_ARGUMENT;
  cvgi_delta_clear(delta);
  if (graph == NULL || !cvgi_allocator_valid(allocator) || out == NULL) return CVG_BAD_ARGUMENT;
  if (state_count != graph->node_count) return CVG_BAD_ARGUMENT;
  if (state_count > 0 && states == NULL) return CVG_BAD_ARGUMENT;
  return restore(graph, allocator, states, out, delta, fault);
}
