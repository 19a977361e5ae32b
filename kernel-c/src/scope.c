/*
** scope.c: iterates bodies, answers nodes that ask, and cancels runs.
*/
#include "schedule.h"

static cvg_status may_iterate(const cvg_sched *sched, uint32_t node) {
  const cvgi_node *spec = &sched->graph->nodes[node];
  const cvgi_run_node *state = &sched->nodes[node];
  if (state->status != CVG_NODE_READY) return CVG_NOT_READY;
  if (spec->body == 0) return CVG_BAD_SCOPE;
  if (cvgi_has(sched, node, CVGI_ITERATING)) return CVG_ALREADY_EXPANDED;
  if (sched->ended) return CVG_RUN_ENDED;
  return state->iterations < spec->max_iterations ? CVG_OK : CVG_ITERATION_LIMIT;
}

/* Nothing in the body is in flight, or the last iteration would not be over. */
static void begin_iteration(cvg_sched *sched, uint32_t scope, cvg_delta *delta) {
  const cvg_graph *graph = sched->graph;
  cvgi_run_node *state = &sched->nodes[scope];
  uint32_t end = scope + graph->nodes[scope].body + 1;
  state->iterations++;
  state->flags |= CVGI_ITERATING;
  state->value = 0;
  for (uint32_t i = scope + 1; i < end; i++) {
    cvgi_reset_node(sched, i);
    state->value += graph->nodes[i].scope == scope;
  }
  for (uint32_t i = scope + 1; i < end; i += graph->nodes[i].body + 1) cvgi_judge(sched, i, delta);
}

cvg_status cvg_sched_iterate(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  if (delta == NULL) return CVG_BAD_ARGUMENT;
  cvgi_delta_clear(delta);
  if (sched == NULL) return CVG_BAD_ARGUMENT;
  if (node >= sched->graph->node_count) return CVG_BAD_NODE;
  cvg_status status = may_iterate(sched, node);
  if (status == CVG_OK) status = cvgi_delta_reserve(delta, sched->graph->node_count, 0);
  if (status != CVG_OK) return status;
  begin_iteration(sched, node, delta);
  cvgi_finish_call(sched, delta);
  return CVG_OK;
}

/* A scope starts over, and its body is as if it had never run. */
static void retry(cvg_sched *sched, uint32_t node, cvg_delta *delta) {
  uint32_t end = node + sched->graph->nodes[node].body + 1;
  for (uint32_t i = node + 1; i < end; i++) cvgi_reset_node(sched, i);
  sched->nodes[node].status = CVG_NODE_READY;
  sched->nodes[node].iterations = 0;
  cvgi_delta_ready(delta, node, CVG_NONE);
}

cvg_status cvg_sched_answer(cvg_sched *sched, uint32_t node, uint32_t answer, cvg_delta *delta) {
  if (delta == NULL) return CVG_BAD_ARGUMENT;
  cvgi_delta_clear(delta);
  if (sched == NULL || answer > CVG_ANSWER_FAIL) return CVG_BAD_ARGUMENT;
  if (node >= sched->graph->node_count) return CVG_BAD_NODE;
  if (sched->nodes[node].status != CVG_NODE_ASKING) return CVG_NOT_ASKING;
  if (sched->ended) return CVG_RUN_ENDED;
  cvg_status status = cvgi_delta_reserve(delta, sched->graph->node_count, 0);
  if (status != CVG_OK) return status;
  switch (answer) {
    case CVG_ANSWER_RETRY: retry(sched, node, delta); break;
    case CVG_ANSWER_SKIP: cvgi_skip(sched, node, delta); break;
    default: cvgi_give_up(sched, node, delta); break;
  }
  cvgi_finish_call(sched, delta);
  return CVG_OK;
}

cvg_status cvg_sched_cancel(cvg_sched *sched, cvg_delta *delta) {
  if (delta == NULL) return CVG_BAD_ARGUMENT;
  cvgi_delta_clear(delta);
  if (sched == NULL) return CVG_BAD_ARGUMENT;
  if (cvgi_sched_result(sched) != CVG_RUN_RUNNING) return CVG_RUN_ENDED;
  cvg_status status = cvgi_delta_reserve(delta, sched->graph->node_count, 0);
  if (status != CVG_OK) return status;
  sched->ended = CVG_RUN_CANCELLED;
  cvgi_cancel_range(sched, 0, sched->graph->node_count, delta);
  cvgi_finish_call(sched, delta);
  return CVG_OK;
}
