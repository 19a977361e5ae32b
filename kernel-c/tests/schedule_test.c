/*
** schedule_test.c: what starts when: edges, joins, ports and failure policies.
*/
#include "check.h"

static void a_diamond_runs_side_by_side(void) {
  const cvg_node_spec nodes[] = {NODE(0), NODE(0), NODE(0), NODE(0)};
  const cvg_edge_spec edges[] = {EDGE(2, 3), EDGE(0, 2), EDGE(0, 1), EDGE(1, 3)};
  fixture f;
  fixture_start(&f, nodes, 4, edges, 4);
  CHECK_TEXT(delta_text(&f), "ready 0 running");
  CHECK_TEXT(done(&f, 0), "ready 1 2 running");
  CHECK_TEXT(done(&f, 2), "running");
  CHECK(status_of(&f, 3) == CVG_NODE_PENDING);
  CHECK_TEXT(done(&f, 1), "ready 3 running");
  CHECK_TEXT(done(&f, 3), "succeeded");
  fixture_end(&f);
}

static void a_choice_opens_its_port_and_skips_the_rest(void) {
  const cvg_node_spec nodes[] = {NODE(0), NODE(0), NODE(0), NODE(0), NODE(0), NODE(1)};
  const cvg_edge_spec edges[] = {{0, 1, 0},  {0, 2, 1},  EDGE(0, 3),
                                 EDGE(2, 4), EDGE(1, 5), EDGE(4, 5)};
  fixture f;
  fixture_start(&f, nodes, 6, edges, 6);
  CHECK_TEXT(chose(&f, 0, 0), "ready 1 3 skipped 2 4 running");
  CHECK_TEXT(done(&f, 1), "ready 5 running");
  CHECK(status_of(&f, 4) == CVG_NODE_SKIPPED);
  fixture_end(&f);
}

static void without_a_choice_only_open_edges_are_live(void) {
  const cvg_node_spec nodes[] = {NODE(0), NODE(0), NODE(0)};
  const cvg_edge_spec edges[] = {{0, 1, 0}, EDGE(0, 2)};
  fixture f;
  fixture_start(&f, nodes, 3, edges, 2);
  CHECK_TEXT(done(&f, 0), "ready 2 skipped 1 running");
  fixture_end(&f);
}

static void a_join_starts_at_its_count_and_once(void) {
  const cvg_node_spec nodes[] = {NODE(0), NODE(0), NODE(0), NODE(2)};
  const cvg_edge_spec edges[] = {EDGE(0, 3), EDGE(1, 3), EDGE(2, 3)};
  fixture f;
  fixture_start(&f, nodes, 4, edges, 3);
  CHECK_TEXT(done(&f, 1), "running");
  CHECK_TEXT(done(&f, 0), "ready 3 running");
  CHECK_TEXT(done(&f, 2), "running");
  CHECK_TEXT(done(&f, 3), "succeeded");
  fixture_end(&f);
}

static void a_join_is_skipped_when_it_can_no_longer_be_met(void) {
  const cvg_node_spec nodes[] = {SKIPPING(0), SKIPPING(0), SKIPPING(0), NODE(2), NODE(0)};
  const cvg_edge_spec edges[] = {EDGE(0, 3), EDGE(1, 3), EDGE(2, 3), EDGE(3, 4)};
  fixture f;
  fixture_start(&f, nodes, 5, edges, 4);
  CHECK_TEXT(failed(&f, 1), "running");
  CHECK_TEXT(failed(&f, 0), "skipped 3 4 running");
  CHECK_TEXT(done(&f, 2), "succeeded");
  fixture_end(&f);
}

static void a_failure_ends_the_run_but_what_is_in_flight_may_report(void) {
  const cvg_node_spec nodes[] = {NODE(0), NODE(0), NODE(0), NODE(0)};
  const cvg_edge_spec edges[] = {EDGE(0, 2), EDGE(1, 3)};
  fixture f;
  fixture_start(&f, nodes, 4, edges, 2);
  CHECK_TEXT(failed(&f, 0), "failed");
  CHECK(status_of(&f, 2) == CVG_NODE_PENDING);
  CHECK_TEXT(done(&f, 1), "failed");
  CHECK(status_of(&f, 1) == CVG_NODE_DONE);
  CHECK(status_of(&f, 3) == CVG_NODE_PENDING);
  fixture_end(&f);
}

/* 0 falls back to 1; 2 hangs on 0, and 3 on a choice of 0. */
static void start_with_fallback(fixture *f) {
  static const cvg_node_spec nodes[] = {FALLBACK(0, 1), SKIPPING(0), NODE(0), NODE(0)};
  static const cvg_edge_spec edges[] = {EDGE(0, 2), {0, 3, 5}};
  fixture_start(f, nodes, 4, edges, 2);
  CHECK_TEXT(delta_text(f), "ready 0 running");
}

static void a_fallback_that_is_not_needed_is_skipped(void) {
  fixture f;
  start_with_fallback(&f);
  CHECK_TEXT(chose(&f, 0, 5), "ready 2 3 skipped 1 running");
  fixture_end(&f);
}

static void a_fallback_stands_in_for_open_edges_only(void) {
  fixture f;
  start_with_fallback(&f);
  CHECK_TEXT(failed(&f, 0), "ready 1 running");
  CHECK_TEXT(chose(&f, 1, 5), "ready 2 skipped 3 running");
  CHECK_TEXT(done(&f, 2), "succeeded");
  CHECK(status_of(&f, 0) == CVG_NODE_FAILED);
  fixture_end(&f);
}

static void a_fallback_that_fails_takes_the_rest_along(void) {
  fixture f;
  start_with_fallback(&f);
  failed(&f, 0);
  CHECK_TEXT(failed(&f, 1), "skipped 2 3 succeeded");
  fixture_end(&f);
}

static void fallbacks_chain(void) {
  const cvg_node_spec nodes[] = {FALLBACK(0, 1), FALLBACK(0, 2), NODE(0), NODE(0), NODE(0)};
  const cvg_edge_spec edges[] = {EDGE(0, 3), EDGE(1, 4)};
  fixture f;
  fixture_start(&f, nodes, 5, edges, 2);
  CHECK_TEXT(failed(&f, 0), "ready 1 running");
  CHECK_TEXT(failed(&f, 1), "ready 2 running");
  CHECK_TEXT(done(&f, 2), "ready 3 4 running");
  fixture_end(&f);
}

/* 0 and 1 share the fallback 2, which either may start. */
static void start_with_shared_fallback(fixture *f) {
  static const cvg_node_spec nodes[] = {FALLBACK(0, 2), FALLBACK(0, 2), SKIPPING(1), NODE(0),
                                        NODE(0)};
  static const cvg_edge_spec edges[] = {EDGE(0, 3), EDGE(1, 4)};
  fixture_start(f, nodes, 5, edges, 2);
  CHECK_TEXT(failed(f, 0), "ready 2 running");
}

static void a_shared_fallback_serves_whoever_fails_while_it_runs(void) {
  fixture f;
  start_with_shared_fallback(&f);
  CHECK_TEXT(failed(&f, 1), "running");
  CHECK_TEXT(done(&f, 2), "ready 3 4 running");
  fixture_end(&f);
}

static void a_shared_fallback_serves_whoever_fails_after_it(void) {
  fixture f;
  start_with_shared_fallback(&f);
  CHECK_TEXT(done(&f, 2), "ready 3 running");
  CHECK_TEXT(failed(&f, 1), "ready 4 running");
  fixture_end(&f);
  start_with_shared_fallback(&f);
  CHECK_TEXT(failed(&f, 2), "skipped 3 running");
  CHECK_TEXT(failed(&f, 1), "skipped 4 succeeded");
  fixture_end(&f);
}

static void wrong_calls_change_nothing(void) {
  const cvg_node_spec nodes[] = {NODE(0), NODE(0)};
  const cvg_edge_spec edges[] = {EDGE(0, 1)};
  const cvg_outcome ok = {CVG_OUTCOME_DONE, CVG_NONE}, odd = {2, CVG_NONE};
  uint32_t out = 0;
  fixture f;
  fixture_start(&f, nodes, 2, edges, 1);
  CHECK_STATUS(cvg_sched_complete(f.sched, 1, ok, f.delta), CVG_NOT_READY);
  CHECK_TEXT(delta_text(&f), "running");
  CHECK_STATUS(cvg_sched_complete(f.sched, 2, ok, f.delta), CVG_BAD_NODE);
  CHECK_STATUS(cvg_sched_complete(f.sched, 0, odd, f.delta), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_sched_complete(f.sched, 0, ok, NULL), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_sched_complete(NULL, 0, ok, f.delta), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_sched_node_status(f.sched, 2, &out), CVG_BAD_NODE);
  CHECK_STATUS(cvg_sched_node_status(f.sched, 0, NULL), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_sched_result(NULL, &out), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_delta_read(NULL, NULL), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_sched_start(f.graph, NULL, &f.sched, f.delta), CVG_BAD_ARGUMENT);
  CHECK_TEXT(done(&f, 0), "ready 1 running");
  CHECK_STATUS(cvg_sched_complete(f.sched, 0, ok, f.delta), CVG_NOT_READY);
  CHECK_TEXT(done(&f, 1), "succeeded");
  CHECK_STATUS(cvg_sched_result(f.sched, &out), CVG_OK);
  CHECK(out == CVG_RUN_SUCCEEDED);
  fixture_end(&f);
}

/* A long chain of skips must neither recurse nor come out of order. */
static void skips_run_through_a_long_chain(void) {
  enum { LENGTH = 20000 };
  static cvg_node_spec nodes[LENGTH];
  static cvg_edge_spec edges[LENGTH - 1];
  fixture f;
  cvg_delta_view view;
  for (uint32_t i = 0; i < LENGTH; i++) {
    nodes[i] = (cvg_node_spec)SKIPPING(0);
    /* From the last node down to the first. */
    if (i > 0) edges[i - 1] = (cvg_edge_spec)EDGE(i, i - 1);
  }
  fixture_start(&f, nodes, LENGTH, edges, LENGTH - 1);
  const cvg_outcome failure = {CVG_OUTCOME_FAILED, CVG_NONE};
  CHECK_STATUS(cvg_sched_complete(f.sched, LENGTH - 1, failure, f.delta), CVG_OK);
  CHECK_STATUS(cvg_delta_read(f.delta, &view), CVG_OK);
  CHECK(view.skipped_count == LENGTH - 1);
  CHECK(view.result == CVG_RUN_SUCCEEDED);
  for (uint32_t i = 0; i < view.skipped_count; i++) CHECK(view.skipped[i] == i);
  fixture_end(&f);
}

const test_case schedule_tests[] = {
    {"a_diamond_runs_side_by_side", a_diamond_runs_side_by_side},
    {"a_choice_opens_its_port_and_skips_the_rest", a_choice_opens_its_port_and_skips_the_rest},
    {"without_a_choice_only_open_edges_are_live", without_a_choice_only_open_edges_are_live},
    {"a_join_starts_at_its_count_and_once", a_join_starts_at_its_count_and_once},
    {"a_join_is_skipped_when_it_can_no_longer_be_met",
     a_join_is_skipped_when_it_can_no_longer_be_met},
    {"a_failure_ends_the_run_but_what_is_in_flight_may_report",
     a_failure_ends_the_run_but_what_is_in_flight_may_report},
    {"a_fallback_that_is_not_needed_is_skipped", a_fallback_that_is_not_needed_is_skipped},
    {"a_fallback_stands_in_for_open_edges_only", a_fallback_stands_in_for_open_edges_only},
    {"a_fallback_that_fails_takes_the_rest_along", a_fallback_that_fails_takes_the_rest_along},
    {"fallbacks_chain", fallbacks_chain},
    {"a_shared_fallback_serves_whoever_fails_while_it_runs",
     a_shared_fallback_serves_whoever_fails_while_it_runs},
    {"a_shared_fallback_serves_whoever_fails_after_it",
     a_shared_fallback_serves_whoever_fails_after_it},
    {"wrong_calls_change_nothing", wrong_calls_change_nothing},
    {"skips_run_through_a_long_chain", skips_run_through_a_long_chain},
    {NULL, NULL},
};
