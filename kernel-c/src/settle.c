/*
** settle.c: what follows when a node has ended.
**
** A node settles when its out-edges are resolved for good. A queue instead of recursion: each node
** passes through it at most once in an iteration of its scope, and thus at most once in a call.
*/
#include "schedule.h"

unsigned cvgi_has(const cvg_sched *sched, uint32_t node, unsigned flag) {
  return sched->nodes[node].flags & flag;
}

static void queue(cvg_sched *sched, uint32_t node, unsigned delivered, cvg_delta *delta) {
  sched->nodes[node].flags |= (uint8_t)(CVGI_SETTLED | delivered);
  cvgi_delta_settling(delta, node);
}

/* Whether the surroundings of a node run, so that it may start. */
static int scope_runs(const cvg_sched *sched, uint32_t node) {
  uint32_t scope = sched->graph->nodes[node].scope;
  if (sched->ended) return 0;
  return scope == CVG_NONE || cvgi_has(sched, scope, CVGI_ITERATING);
}

void cvgi_end_iteration(cvg_sched *sched, uint32_t scope, cvg_delta *delta) {
  cvgi_run_node *state = &sched->nodes[scope];
  if (sched->ended) return;
  state->flags &= (uint8_t)~CVGI_ITERATING;
  state->value = CVG_NONE;
  cvgi_delta_ready(delta, scope, state->iterations - 1u);
}

/* A node is resolved: one less that its scope, or the run, waits for. */
static void close_node(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  uint32_t scope = sched->graph->nodes[node].scope;
  if (scope == CVG_NONE) {
    sched->open--;
  } else if (cvgi_has(sched, scope, CVGI_ITERATING) && --sched->nodes[scope].value == 0) {
    cvgi_end_iteration(sched, scope, delta);
  }
}

void cvgi_skip(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  cvgi_run_node *state = &sched->nodes[node];
  state->status = CVG_NODE_SKIPPED;
  state->flags |= CVGI_JUST_SKIPPED;
  cvgi_announce(sched, node, delta);
  close_node(sched, node, delta);
}

void cvgi_judge(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  cvgi_run_node *state = &sched->nodes[node];
  int decided = state->missing == 0 || state->unresolved < state->missing;
  if (!decided || state->status != CVG_NODE_PENDING || !scope_runs(sched, node)) return;
  if (state->missing == 0) {
    state->status = CVG_NODE_READY;
    cvgi_delta_ready(delta, node, CVG_NONE);
  } else {
    cvgi_skip(sched, node, delta);
  }
}

/* Counts go on after the node has started or was skipped; they change nothing any more. */
static void resolve_edge(cvg_sched *sched, uint32_t to, unsigned live, cvg_delta *delta) {
  cvgi_run_node *state = &sched->nodes[to];
  state->unresolved--;
  if (live && state->missing > 0) state->missing--;
  cvgi_judge(sched, to, delta);
}

/* The out-edges of a failed node stay open until its fallback settles, which may have happened. */
static void fail_over(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  uint32_t fallback = sched->graph->nodes[node].fallback;
  resolve_edge(sched, fallback, 1, delta);
  if (cvgi_has(sched, fallback, CVGI_SETTLED) && !cvgi_has(sched, node, CVGI_SETTLED)) {
    queue(sched, node, cvgi_has(sched, fallback, CVGI_DELIVERED), delta);
  }
}

void cvgi_announce(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  uint32_t status = sched->nodes[node].status;
  uint32_t on_error = sched->graph->nodes[node].on_error;
  if (status == CVG_NODE_DONE || status == CVG_NODE_SKIPPED) {
    queue(sched, node, status == CVG_NODE_DONE ? CVGI_DELIVERED : 0, delta);
  } else if (status == CVG_NODE_FAILED && on_error == CVG_ON_ERROR_SKIP) {
    queue(sched, node, 0, delta);
  } else if (status == CVG_NODE_FAILED && on_error == CVG_ON_ERROR_FALLBACK) {
    fail_over(sched, node, delta);
  }
}

/* Stops what a node in flight has going: its items, or its body. */
static void stop_inner(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  cvgi_run_node *state = &sched->nodes[node];
  unsigned was_iterating = cvgi_has(sched, node, CVGI_ITERATING);
  if (cvgi_has(sched, node, CVGI_EXPANDED)) {
    cvgi_map_table_drop(&sched->allocator, &sched->maps, state->value);
  }
  state->flags &= (uint8_t) ~(CVGI_EXPANDED | CVGI_ITERATING);
  state->value = CVG_NONE;
  if (was_iterating) {
    cvgi_cancel_range(sched, node + 1, node + sched->graph->nodes[node].body + 1, delta);
  }
}

/* No more than one level of calls: within the range all iterations are over, members first. */
void cvgi_cancel_range(cvg_sched *sched, uint32_t begin, uint32_t end, cvg_delta *delta) {
  for (uint32_t i = begin; i < end; i++) {
    cvgi_run_node *state = &sched->nodes[i];
    if (!cvgi_in_flight(sched, i)) continue;
    if (cvgi_has(sched, i, CVGI_EXPANDED)) {
      cvgi_map_table_drop(&sched->allocator, &sched->maps, state->value);
    }
    state->flags &= (uint8_t) ~(CVGI_EXPANDED | CVGI_ITERATING);
    state->value = CVG_NONE;
    state->status = CVG_NODE_CANCELLED;
    cvgi_delta_cancelled(delta, i);
  }
}

void cvgi_finish_done(cvg_sched *sched, uint32_t node, uint32_t choice, cvg_delta *delta) {
  cvgi_run_node *state = &sched->nodes[node];
  stop_inner(sched, node, delta);
  state->value = choice;
  state->status = CVG_NODE_DONE;
  if (!sched->ended) cvgi_announce(sched, node, delta);
  close_node(sched, node, delta);
}

/* Fails a node, and the scopes around it as far as nothing catches the failure. */
static void fail(cvg_sched *sched, uint32_t node, int may_ask, cvg_delta *delta) {
  for (;;) {
    const cvgi_node *spec = &sched->graph->nodes[node];
    int fatal = spec->on_error == CVG_ON_ERROR_FAIL || spec->on_error == CVG_ON_ERROR_ASK;
    stop_inner(sched, node, delta);
    if (may_ask && spec->on_error == CVG_ON_ERROR_ASK && !sched->ended) {
      sched->nodes[node].status = CVG_NODE_ASKING;
      delta->asking = node;
      return;
    }
    sched->nodes[node].status = CVG_NODE_FAILED;
    if (sched->ended || !fatal || spec->scope == CVG_NONE) {
      if (!sched->ended && fatal) sched->ended = CVG_RUN_FAILED;
      if (!sched->ended) cvgi_announce(sched, node, delta);
      close_node(sched, node, delta);
      return;
    }
    node = spec->scope;
    may_ask = 1;
  }
}

void cvgi_finish_failed(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  fail(sched, node, 1, delta);
}

void cvgi_give_up(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  fail(sched, node, 0, delta);
}

#if defined(__GNUC__)
#define PREFETCH(address) __builtin_prefetch(address, 1)
#else
#define PREFETCH(address) ((void)0)
#endif

/* In a large graph the targets lie far apart: all are fetched while the first one is awaited. */
static void fetch_targets(const cvg_sched *sched, uint32_t node) {
  const cvg_graph *graph = sched->graph;
  for (uint32_t i = graph->nodes[node].out_begin; i < graph->nodes[node + 1].out_begin; i++) {
    PREFETCH(&sched->nodes[graph->edges[i].to]);
  }
}

static void settle_edges(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  const cvg_graph *graph = sched->graph;
  uint32_t choice = sched->nodes[node].value;
  unsigned delivered = cvgi_has(sched, node, CVGI_DELIVERED);
  fetch_targets(sched, node);
  for (uint32_t i = graph->nodes[node].out_begin; i < graph->nodes[node + 1].out_begin; i++) {
    const cvgi_edge *edge = &graph->edges[i];
    unsigned open = edge->port == CVG_PORT_ALWAYS || edge->port == choice;
    resolve_edge(sched, edge->to, delivered && open, delta);
  }
}

/* Those that failed over to `node` share its fate. */
static void settle_owners(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  const cvg_graph *graph = sched->graph;
  unsigned delivered = cvgi_has(sched, node, CVGI_DELIVERED);
  for (uint32_t i = graph->nodes[node].owner_begin; i < graph->nodes[node + 1].owner_begin; i++) {
    uint32_t owner = graph->owners[i];
    int waits =
        sched->nodes[owner].status == CVG_NODE_FAILED && !cvgi_has(sched, owner, CVGI_SETTLED);
    if (waits) queue(sched, owner, delivered, delta);
  }
}

void cvgi_settle_all(cvg_sched *sched, cvg_delta *delta) {
  uint32_t node;
  while ((node = cvgi_delta_next(delta)) != CVG_NONE) {
    uint32_t fallback = sched->graph->nodes[node].fallback;
    settle_edges(sched, node, delta);
    if (fallback != CVG_NONE && sched->nodes[node].status != CVG_NODE_FAILED) {
      resolve_edge(sched, fallback, 0, delta);
    }
    settle_owners(sched, node, delta);
  }
}

void cvgi_finish_call(cvg_sched *sched, cvg_delta *delta) {
  cvgi_settle_all(sched, delta);
  for (size_t i = 0; i < delta->settling_count; i++) {
    uint32_t node = delta->settling[i];
    if (!cvgi_has(sched, node, CVGI_JUST_SKIPPED)) continue;
    sched->nodes[node].flags &= (uint8_t)~CVGI_JUST_SKIPPED;
    cvgi_delta_skipped(delta, node);
  }
  cvgi_delta_finish(delta, cvgi_sched_result(sched));
}
