/*
** scope_test.c: sub-graphs, bounded loops, nodes that ask, and runs that are cancelled.
*/
#include "check.h"

/* 0, then the scope 1 with 2 -> 3, then 4. */
static void start_loop(fixture *f, uint32_t on_error, uint32_t max_iterations) {
  const cvg_node_spec nodes[] = {NODE(0), SCOPE(on_error, 2, max_iterations), NODE(0), NODE(0),
                                 NODE(0)};
  const cvg_edge_spec edges[] = {EDGE(0, 1), EDGE(2, 3), EDGE(1, 4)};
  fixture_start(f, nodes, 5, edges, 3);
}

static void a_loop_goes_round_as_often_as_it_may(void) {
  fixture f;
  start_loop(&f, CVG_ON_ERROR_FAIL, 2);
  CHECK_TEXT(delta_text(&f), "ready 0 running");
  CHECK_TEXT(done(&f, 0), "ready 1 running");
  for (unsigned iteration = 0; iteration < 2; iteration++) {
    CHECK_TEXT(iterated(&f, 1), "ready 2 running");
    CHECK_STATUS(cvg_sched_iterate(f.sched, 1, f.delta), CVG_ALREADY_EXPANDED);
    CHECK(reloaded(&f));
    CHECK_TEXT(done(&f, 2), "ready 3 running");
    CHECK_TEXT(done(&f, 3), iteration == 0 ? "ready 1:0 running" : "ready 1:1 running");
    CHECK(reloaded(&f));
  }
  CHECK_STATUS(cvg_sched_iterate(f.sched, 1, f.delta), CVG_ITERATION_LIMIT);
  CHECK_TEXT(done(&f, 1), "ready 4 running");
  CHECK_TEXT(done(&f, 4), "succeeded");
  CHECK(reloaded(&f));
  fixture_end(&f);
}

static void a_scope_may_be_done_without_an_iteration(void) {
  fixture f;
  start_loop(&f, CVG_ON_ERROR_FAIL, 3);
  done(&f, 0);
  CHECK_TEXT(done(&f, 1), "ready 4 running");
  CHECK(status_of(&f, 2) == CVG_NODE_PENDING);
  CHECK_TEXT(done(&f, 4), "succeeded");
  fixture_end(&f);
}

static void what_has_no_body_cannot_iterate_and_what_has_one_is_no_map(void) {
  const cvg_outcome success = {CVG_OUTCOME_DONE, CVG_NONE};
  fixture f;
  start_loop(&f, CVG_ON_ERROR_FAIL, 1);
  CHECK_STATUS(cvg_sched_iterate(f.sched, 0, f.delta), CVG_BAD_SCOPE);
  CHECK_STATUS(cvg_sched_iterate(f.sched, 1, f.delta), CVG_NOT_READY);
  CHECK_STATUS(cvg_sched_iterate(f.sched, 9, f.delta), CVG_BAD_NODE);
  CHECK_STATUS(cvg_sched_iterate(NULL, 0, f.delta), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_sched_iterate(f.sched, 0, NULL), CVG_BAD_ARGUMENT);
  done(&f, 0);
  CHECK_STATUS(cvg_sched_expand(f.sched, 1, 3, 1, f.delta), CVG_ALREADY_EXPANDED);
  iterated(&f, 1);
  CHECK_STATUS(cvg_sched_complete(f.sched, 1, success, f.delta), CVG_ALREADY_EXPANDED);
  fixture_end(&f);
}

static void a_failure_in_the_body_fails_the_scope(void) {
  fixture f;
  start_loop(&f, CVG_ON_ERROR_SKIP, 1);
  done(&f, 0);
  iterated(&f, 1);
  CHECK_TEXT(failed(&f, 2), "skipped 4 succeeded");
  CHECK(status_of(&f, 1) == CVG_NODE_FAILED);
  CHECK(status_of(&f, 3) == CVG_NODE_PENDING);
  CHECK(reloaded(&f));
  fixture_end(&f);
  start_loop(&f, CVG_ON_ERROR_FAIL, 1);
  done(&f, 0);
  iterated(&f, 1);
  CHECK_TEXT(failed(&f, 2), "failed");
  CHECK(reloaded(&f));
  fixture_end(&f);
}

/* 0 is a scope of the scope 1 (of 2 and 3) and of the map 4; 5 stands in for 0. */
static void start_nested(fixture *f) {
  const cvg_node_spec nodes[] = {{0, CVG_ON_ERROR_FALLBACK, 5, 4, 2},
                                 SCOPE(CVG_ON_ERROR_FAIL, 2, 1),
                                 NODE(0),
                                 NODE(0),
                                 NODE(0),
                                 NODE(0)};
  fixture_start(f, nodes, 6, NULL, 0);
}

static void a_failure_climbs_and_stops_what_runs(void) {
  fixture f;
  start_nested(&f);
  CHECK_TEXT(delta_text(&f), "ready 0 running");
  CHECK_TEXT(iterated(&f, 0), "ready 1 4 running");
  CHECK_TEXT(iterated(&f, 1), "ready 2 3 running");
  expanded(&f, 4, 3, 2);
  CHECK(reloaded(&f));
  CHECK_TEXT(failed(&f, 2), "ready 5 stopped 3 4 running");
  CHECK(status_of(&f, 1) == CVG_NODE_FAILED);
  CHECK(status_of(&f, 3) == CVG_NODE_CANCELLED);
  CHECK(reloaded(&f));
  CHECK_TEXT(done(&f, 5), "succeeded");
  fixture_end(&f);
}

static void an_outer_iteration_starts_inner_ones_afresh(void) {
  fixture f;
  start_nested(&f);
  for (unsigned iteration = 0; iteration < 2; iteration++) {
    CHECK_TEXT(iterated(&f, 0), "ready 1 4 running");
    CHECK_TEXT(done(&f, 4), "running");
    CHECK_TEXT(iterated(&f, 1), "ready 2 3 running");
    CHECK_TEXT(done(&f, 3), "running");
    CHECK_TEXT(done(&f, 2), "ready 1:0 running");
    CHECK_TEXT(done(&f, 1), iteration == 0 ? "ready 0:0 running" : "ready 0:1 running");
  }
  CHECK_TEXT(done(&f, 0), "skipped 5 succeeded");
  fixture_end(&f);
}

/* 0 asks; 1 hangs on it; 2 goes on meanwhile. */
static void start_asking(fixture *f) {
  const cvg_node_spec nodes[] = {ASKING(0), NODE(0), NODE(0)};
  const cvg_edge_spec edges[] = {EDGE(0, 1)};
  fixture_start(f, nodes, 3, edges, 1);
}

static void who_asks_is_answered(void) {
  fixture f;
  start_asking(&f);
  CHECK_STATUS(cvg_sched_answer(f.sched, 0, CVG_ANSWER_SKIP, f.delta), CVG_NOT_ASKING);
  CHECK_TEXT(failed(&f, 0), "asking 0 running");
  CHECK_STATUS(cvg_sched_answer(f.sched, 0, 3, f.delta), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_sched_answer(f.sched, 3, 0, f.delta), CVG_BAD_NODE);
  CHECK(reloaded(&f));
  CHECK_TEXT(done(&f, 2), "running");
  CHECK_TEXT(answered(&f, 0, CVG_ANSWER_RETRY), "ready 0 running");
  CHECK_TEXT(failed(&f, 0), "asking 0 running");
  CHECK_TEXT(answered(&f, 0, CVG_ANSWER_SKIP), "skipped 0 1 succeeded");
  CHECK(reloaded(&f));
  fixture_end(&f);
  start_asking(&f);
  failed(&f, 0);
  CHECK_TEXT(answered(&f, 0, CVG_ANSWER_FAIL), "failed");
  CHECK(reloaded(&f));
  CHECK_STATUS(cvg_sched_cancel(f.sched, f.delta), CVG_RUN_ENDED);
  fixture_end(&f);
}

static void a_scope_that_asks_starts_over(void) {
  fixture f;
  start_loop(&f, CVG_ON_ERROR_ASK, 1);
  done(&f, 0);
  iterated(&f, 1);
  CHECK_TEXT(done(&f, 2), "ready 3 running");
  CHECK_TEXT(failed(&f, 3), "asking 1 running");
  CHECK(reloaded(&f));
  CHECK_TEXT(answered(&f, 1, CVG_ANSWER_RETRY), "ready 1 running");
  CHECK(reloaded(&f));
  CHECK_TEXT(iterated(&f, 1), "ready 2 running");
  done(&f, 2);
  CHECK_TEXT(done(&f, 3), "ready 1:0 running");
  fixture_end(&f);
}

static void cancelling_stops_all_that_runs(void) {
  fixture f;
  start_nested(&f);
  iterated(&f, 0);
  expanded(&f, 4, 3, 2);
  CHECK_TEXT(cancelled(&f), "stopped 0 1 4 cancelled");
  CHECK(status_of(&f, 5) == CVG_NODE_PENDING);
  CHECK(reloaded(&f));
  CHECK_STATUS(cvg_sched_cancel(f.sched, f.delta), CVG_RUN_ENDED);
  CHECK_STATUS(cvg_sched_iterate(f.sched, 1, f.delta), CVG_NOT_READY);
  fixture_end(&f);
}

static void bodies_and_borders_are_checked(void) {
  static const cvg_node_spec beyond[] = {SCOPE(0, 2, 1), NODE(0)};
  static const cvg_node_spec endless[] = {SCOPE(0, 1, 0), NODE(0)};
  static const cvg_node_spec bodiless[] = {NODE(0), SCOPE(0, 0, 1)};
  static const cvg_node_spec overlapping[] = {SCOPE(0, 2, 1), NODE(0), SCOPE(0, 1, 1), NODE(0)};
  static const cvg_node_spec out[] = {SCOPE(0, 1, 1), FALLBACK(0, 2), NODE(0)};
  static const cvg_node_spec fine[] = {SCOPE(0, 1, 1), NODE(0), NODE(0)};
  static const cvg_edge_spec across[] = {EDGE(0, 2), EDGE(1, 2)};
  static const struct {
    const cvg_node_spec *nodes;
    size_t count;
    uint32_t node;
  } bad[] = {{beyond, 2, 0}, {endless, 2, 0}, {bodiless, 2, 1}, {overlapping, 4, 2}, {out, 3, 1}};
  test_heap heap = {UNLIMITED, 0, 0};
  const cvg_allocator allocator = heap_allocator(&heap);
  cvg_graph *graph = NULL;
  cvg_fault fault;
  for (size_t i = 0; i < COUNT(bad); i++) {
    CHECK_STATUS(cvg_graph_compile(&allocator, bad[i].nodes, bad[i].count, NULL, 0, &graph, &fault),
                 CVG_BAD_SCOPE);
    CHECK(fault.node == bad[i].node);
  }
  CHECK_STATUS(cvg_graph_compile(&allocator, fine, 3, across, 2, &graph, &fault), CVG_BAD_SCOPE);
  CHECK(fault.edge == 1);
  CHECK(heap.lent_blocks == 0);
}

const test_case scope_tests[] = {
    {"a_loop_goes_round_as_often_as_it_may", a_loop_goes_round_as_often_as_it_may},
    {"a_scope_may_be_done_without_an_iteration", a_scope_may_be_done_without_an_iteration},
    {"what_has_no_body_cannot_iterate_and_what_has_one_is_no_map",
     what_has_no_body_cannot_iterate_and_what_has_one_is_no_map},
    {"a_failure_in_the_body_fails_the_scope", a_failure_in_the_body_fails_the_scope},
    {"a_failure_climbs_and_stops_what_runs", a_failure_climbs_and_stops_what_runs},
    {"an_outer_iteration_starts_inner_ones_afresh", an_outer_iteration_starts_inner_ones_afresh},
    {"who_asks_is_answered", who_asks_is_answered},
    {"a_scope_that_asks_starts_over", a_scope_that_asks_starts_over},
    {"cancelling_stops_all_that_runs", cancelling_stops_all_that_runs},
    {"bodies_and_borders_are_checked", bodies_and_borders_are_checked},
    {NULL, NULL},
};
