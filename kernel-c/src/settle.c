/*
** settle.c: how the end of one node travels along the edges. A queue instead of recursion: each
** node passes through it at most once in a run, when its out-edges are resolved for good.
*/
#include "schedule.h"

static void queue(cvg_sched *sched, uint32_t node, unsigned delivered, cvg_delta *delta) {
  sched->nodes[node].flags = (uint8_t)(CVGI_SETTLED | delivered);
  cvgi_delta_settling(delta, node);
}

static unsigned has(const cvg_sched *sched, uint32_t node, unsigned flag) {
  return sched->nodes[node].flags & flag;
}

static void skip(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  sched->nodes[node].status = CVG_NODE_SKIPPED;
  sched->open--;
  cvgi_delta_skipped(delta, node);
  cvgi_announce(sched, node, delta);
}

void cvgi_judge(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  cvgi_run_node *state = &sched->nodes[node];
  uint32_t need = sched->graph->nodes[node].need;
  if (state->status != CVG_NODE_PENDING || sched->failed) return;
  if (state->live >= need) {
    state->status = CVG_NODE_READY;
    cvgi_delta_ready(delta, node, CVG_NONE);
  } else if (state->live + state->unresolved < need) {
    skip(sched, node, delta);
  }
}

/* Counts go on after the node has started or was skipped; they change nothing any more. */
static void resolve_edge(cvg_sched *sched, uint32_t to, unsigned live, cvg_delta *delta) {
  sched->nodes[to].unresolved--;
  if (live) sched->nodes[to].live++;
  cvgi_judge(sched, to, delta);
}

/* The out-edges of a failed node stay open until its fallback settles, which may have happened. */
static void fail_over(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  uint32_t fallback = sched->graph->nodes[node].fallback;
  resolve_edge(sched, fallback, 1, delta);
  if (has(sched, fallback, CVGI_SETTLED) && !has(sched, node, CVGI_SETTLED)) {
    queue(sched, node, has(sched, fallback, CVGI_DELIVERED), delta);
  }
}

static void announce_failure(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  switch (sched->graph->nodes[node].on_error) {
    case CVG_ON_ERROR_FAIL: sched->failed = 1; break;
    case CVG_ON_ERROR_SKIP: queue(sched, node, 0, delta); break;
    default: fail_over(sched, node, delta); break;
  }
}

void cvgi_announce(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  uint32_t status = sched->nodes[node].status;
  if (status == CVG_NODE_FAILED) {
    announce_failure(sched, node, delta);
  } else {
    queue(sched, node, status == CVG_NODE_DONE ? CVGI_DELIVERED : 0, delta);
  }
}

static void settle_edges(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  const cvg_graph *graph = sched->graph;
  uint32_t choice = sched->nodes[node].choice;
  unsigned delivered = has(sched, node, CVGI_DELIVERED);
  for (uint32_t i = graph->nodes[node].out_begin; i < graph->nodes[node + 1].out_begin; i++) {
    const cvgi_edge *edge = &graph->edges[i];
    unsigned open = edge->port == CVG_PORT_ALWAYS || edge->port == choice;
    resolve_edge(sched, edge->to, delivered && open, delta);
  }
}

/* Those that failed over to `node` share its fate. */
static void settle_owners(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  const cvg_graph *graph = sched->graph;
  unsigned delivered = has(sched, node, CVGI_DELIVERED);
  for (uint32_t i = graph->nodes[node].owner_begin; i < graph->nodes[node + 1].owner_begin; i++) {
    uint32_t owner = graph->owners[i];
    int waits = sched->nodes[owner].status == CVG_NODE_FAILED && !has(sched, owner, CVGI_SETTLED);
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
