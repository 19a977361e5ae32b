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

/* A scope has iterations only once it has started, and one goes on only while it is READY. */
static int iterations_valid(const cvgi_node *node, const cvg_node_state *state) {
  if (state->iterations > node->max_iterations) return 0;
  if (state->iterating > 0) return state->iterations > 0 && state->status == CVG_NODE_READY;
  return state->iterations == 0 || state->status != CVG_NODE_PENDING;
}

static cvg_status check_state(const cvgi_node *node, const cvg_node_state *state) {
  if (state->status > CVG_NODE_CANCELLED || state->iterating > 1) return CVG_BAD_ARGUMENT;
  if (!iterations_valid(node, state)) return CVG_BAD_STATE;
  if (state->status == CVG_NODE_ASKING && node->on_error != CVG_ON_ERROR_ASK) return CVG_BAD_STATE;
  if (is_map(state)) return node->body > 0 ? CVG_BAD_STATE : check_items(state);
  return state->max_parallel == 0 && state->width == 0 ? CVG_OK : CVG_BAD_STATE;
}

/* Whether the node has failed in a way that ends its surroundings. */
static int fatal(const cvg_graph *graph, const cvg_node_state *states, uint32_t node) {
  uint32_t on_error = graph->nodes[node].on_error;
  if (states[node].status != CVG_NODE_FAILED) return 0;
  return on_error == CVG_ON_ERROR_FAIL || on_error == CVG_ON_ERROR_ASK;
}

/* How the run has ended, if a node outside of scopes has failed for good or was cancelled. */
static uint32_t run_end(const cvg_graph *graph, const cvg_node_state *states) {
  for (uint32_t i = 0; i < graph->node_count; i += graph->nodes[i].body + 1) {
    if (states[i].status == CVG_NODE_CANCELLED) return CVG_RUN_CANCELLED;
    if (fatal(graph, states, i)) return CVG_RUN_FAILED;
  }
  return 0;
}

/* Whether a node's state can be, given that of its scope, or how the run has ended. */
static int fits_scope(const cvg_graph *graph, const cvg_node_state *states, uint32_t node,
                      uint32_t ended) {
  uint32_t scope = graph->nodes[node].scope;
  uint32_t status = states[node].status;
  int in_flight = status == CVG_NODE_READY || status == CVG_NODE_ASKING;
  if (ended == CVG_RUN_CANCELLED && in_flight) return 0;
  if (scope == CVG_NONE) return status != CVG_NODE_CANCELLED || ended == CVG_RUN_CANCELLED;
  const cvg_node_state *outer = &states[scope];
  if (outer->iterations == 0) return status == CVG_NODE_PENDING;
  if (outer->status == CVG_NODE_READY || outer->status == CVG_NODE_DONE) {
    if (status == CVG_NODE_CANCELLED) return 0;
    if (fatal(graph, states, node) && !ended) return 0;
    return outer->iterating || cvgi_status_resolved(status);
  }
  return !in_flight;
}

/* What the states ask of memory. */
typedef struct demand {
  uint32_t maps;
  size_t items;
} demand;

static cvg_status check_states(const cvg_graph *graph, const cvg_node_state *states, demand *sum,
                               cvg_fault *fault) {
  uint32_t ended = run_end(graph, states);
  for (uint32_t i = 0; i < graph->node_count; i++) {
    cvg_status status = check_state(&graph->nodes[i], &states[i]);
    if (status == CVG_OK && !fits_scope(graph, states, i, ended)) status = CVG_BAD_STATE;
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
  sched->nodes[node].value = cvgi_map_table_add(&sched->maps, map);
  sched->nodes[node].flags |= CVGI_EXPANDED;
  while (map->emitted < map->width && state->items[map->emitted] != CVG_ITEM_WAITING) {
    uint32_t item = map->emitted++;
    if (state->items[item] == CVG_ITEM_DONE) cvgi_map_item_done(map, item);
  }
  return 1;
}

/* Counts a member that is not resolved, or a node outside of scopes that is. */
static void count_open(cvg_sched *sched, uint32_t node, uint32_t status) {
  uint32_t scope = sched->graph->nodes[node].scope;
  int resolved = cvgi_status_resolved(status);
  if (scope == CVG_NONE) {
    sched->open -= (uint32_t)resolved;
  } else if (!resolved && cvgi_has(sched, scope, CVGI_ITERATING)) {
    sched->nodes[scope].value++;
  }
}

/*
** Takes over what was given, before anything follows from it. Scopes come before their members, so
** that members are counted. 0 without memory.
*/
static int adopt(cvg_sched *sched, const cvg_node_state *states) {
  sched->ended = run_end(sched->graph, states);
  for (uint32_t i = 0; i < sched->graph->node_count; i++) {
    const cvg_node_state *state = &states[i];
    cvgi_run_node *node = &sched->nodes[i];
    node->status = (uint8_t)state->status;
    node->iterations = (uint16_t)state->iterations;
    if (state->status == CVG_NODE_DONE) node->value = state->choice;
    if (state->iterating) {
      node->flags |= CVGI_ITERATING;
      node->value = 0;
    }
    count_open(sched, i, state->status);
    if (is_map(state) && !restore_map(sched, i, state)) return 0;
  }
  return 1;
}

static int consistent(const cvg_sched *sched, uint32_t node, const cvg_node_state *given) {
  const cvgi_run_node *state = &sched->nodes[node];
  int asks = sched->graph->nodes[node].on_error == CVG_ON_ERROR_ASK;
  switch (given->status) {
    case CVG_NODE_PENDING: return 1;
    case CVG_NODE_SKIPPED:
      if (asks && state->missing == 0) return 1; /* answered so */
      return given->iterations == 0 && state->unresolved < state->missing;
    default: return state->missing == 0;
  }
}

/* Lets everything follow that the given states imply. */
static cvg_status infer(cvg_sched *sched, const cvg_node_state *states, cvg_delta *delta,
                        cvg_fault *fault) {
  uint32_t node_count = sched->graph->node_count;
  for (uint32_t i = 0; i < node_count; i++) {
    cvgi_announce(sched, i, delta);
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

/* Ends iterations whose members are all resolved; later ones end as their last member does. */
static void resume_scopes(cvg_sched *sched, cvg_delta *delta) {
  for (uint32_t i = 0; i < sched->graph->node_count; i++) {
    if (!cvgi_has(sched, i, CVGI_ITERATING)) continue;
    if (sched->nodes[i].value == 0) cvgi_end_iteration(sched, i, delta);
  }
}

/* Starts items that could run, and ends maps whose items are all done. */
static void resume_maps(cvg_sched *sched, cvg_delta *delta) {
  for (uint32_t i = 0; i < sched->graph->node_count; i++) {
    if (!cvgi_has(sched, i, CVGI_EXPANDED)) continue;
    const cvgi_map *map = cvgi_map_of(sched, i);
    cvgi_emit_items(sched, i, delta);
    if (map->done_count == map->width) cvgi_finish_done(sched, i, CVG_NONE, delta);
  }
}

static cvg_status rebuild(cvg_sched *sched, const cvg_node_state *states, cvg_delta *delta,
                          cvg_fault *fault) {
  if (!adopt(sched, states)) return CVG_NO_MEMORY;
  cvg_status status = infer(sched, states, delta, fault);
  if (status != CVG_OK) {
    cvgi_delta_clear(delta);
    return status;
  }
  resume_scopes(sched, delta);
  resume_maps(sched, delta);
  cvgi_finish_call(sched, delta);
  return CVG_OK;
}

cvg_status cvgi_restore(const cvg_graph *graph, const cvg_allocator *allocator,
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
  return cvgi_restore(graph, allocator, states, out, delta, fault);
}
