/*
** map_test.c: nodes that were expanded into items.
*/
#include "check.h"

/* A map in node 0, with node 1 behind it. */
static void start_map(fixture *f, const cvg_node_spec *first) {
  const cvg_node_spec nodes[] = {*first, NODE(0)};
  const cvg_edge_spec edges[] = {EDGE(0, 1)};
  fixture_start(f, nodes, 2, edges, 1);
}

static const cvg_node_spec plain = NODE(0);
static const cvg_node_spec skipping = SKIPPING(0);

static void items_follow_one_another(void) {
  fixture f;
  start_map(&f, &plain);
  CHECK_TEXT(expanded(&f, 0, 4, 2), "ready 0:0 0:1 running");
  CHECK_TEXT(item_done(&f, 0, 1), "ready 0:2 running");
  CHECK_TEXT(item_done(&f, 0, 2), "ready 0:3 running");
  CHECK_TEXT(item_done(&f, 0, 3), "running");
  CHECK(status_of(&f, 0) == CVG_NODE_READY);
  CHECK_TEXT(item_done(&f, 0, 0), "ready 1 running");
  CHECK(status_of(&f, 0) == CVG_NODE_DONE);
  fixture_end(&f);
}

static void more_room_than_items(void) {
  fixture f;
  start_map(&f, &plain);
  CHECK_TEXT(expanded(&f, 0, 2, CVG_NONE), "ready 0:0 0:1 running");
  fixture_end(&f);
}

static void a_map_of_nothing_is_done(void) {
  fixture f;
  start_map(&f, &plain);
  CHECK_TEXT(expanded(&f, 0, 0, 3), "ready 1 running");
  CHECK(status_of(&f, 0) == CVG_NODE_DONE);
  fixture_end(&f);
}

static void a_failed_item_fails_the_node(void) {
  const cvg_outcome ok = {CVG_OUTCOME_DONE, CVG_NONE};
  fixture f;
  start_map(&f, &skipping);
  expanded(&f, 0, 3, 2);
  CHECK_TEXT(item_failed(&f, 0, 1), "skipped 1 succeeded");
  CHECK(status_of(&f, 0) == CVG_NODE_FAILED);
  CHECK_STATUS(cvg_sched_complete_item(f.sched, 0, 0, ok, f.delta), CVG_NOT_READY);
  fixture_end(&f);
  start_map(&f, &plain);
  expanded(&f, 0, 3, 2);
  CHECK_TEXT(item_failed(&f, 0, 0), "failed");
  fixture_end(&f);
}

static void a_map_can_fail_as_a_whole_but_not_be_done(void) {
  const cvg_outcome ok = {CVG_OUTCOME_DONE, CVG_NONE};
  fixture f;
  start_map(&f, &skipping);
  expanded(&f, 0, 3, 2);
  CHECK_STATUS(cvg_sched_complete(f.sched, 0, ok, f.delta), CVG_ALREADY_EXPANDED);
  CHECK_TEXT(failed(&f, 0), "skipped 1 succeeded");
  fixture_end(&f);
}

static void a_failed_run_starts_no_items(void) {
  const cvg_node_spec nodes[] = {NODE(0), NODE(0), NODE(0)};
  fixture f;
  fixture_start(&f, nodes, 3, NULL, 0);
  expanded(&f, 0, 2, 1);
  CHECK_TEXT(failed(&f, 1), "failed");
  CHECK_TEXT(item_done(&f, 0, 0), "failed");
  CHECK_STATUS(cvg_sched_expand(f.sched, 2, 2, 1, f.delta), CVG_RUN_ENDED);
  fixture_end(&f);
}

static void wrong_calls_change_nothing(void) {
  const cvg_outcome ok = {CVG_OUTCOME_DONE, CVG_NONE}, odd = {2, CVG_NONE};
  fixture f;
  start_map(&f, &plain);
  CHECK_STATUS(cvg_sched_complete_item(f.sched, 0, 0, ok, f.delta), CVG_NOT_EXPANDED);
  CHECK_STATUS(cvg_sched_expand(f.sched, 1, 2, 2, f.delta), CVG_NOT_READY);
  CHECK_STATUS(cvg_sched_expand(f.sched, 2, 2, 2, f.delta), CVG_BAD_NODE);
  CHECK_STATUS(cvg_sched_expand(f.sched, 0, 2, 0, f.delta), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_sched_expand(f.sched, 0, CVG_MAP_WIDTH_MAX + 1, 1, f.delta), CVG_TOO_LARGE);
  CHECK_TEXT(expanded(&f, 0, 3, 2), "ready 0:0 0:1 running");
  CHECK_STATUS(cvg_sched_expand(f.sched, 0, 3, 2, f.delta), CVG_ALREADY_EXPANDED);
  CHECK_STATUS(cvg_sched_complete_item(f.sched, 0, 2, ok, f.delta), CVG_ITEM_NOT_READY);
  CHECK_STATUS(cvg_sched_complete_item(f.sched, 0, 3, ok, f.delta), CVG_ITEM_NOT_READY);
  CHECK_STATUS(cvg_sched_complete_item(f.sched, 0, CVG_NONE, ok, f.delta), CVG_ITEM_NOT_READY);
  CHECK_STATUS(cvg_sched_complete_item(f.sched, 0, 0, odd, f.delta), CVG_BAD_ARGUMENT);
  CHECK_TEXT(item_done(&f, 0, 0), "ready 0:2 running");
  CHECK_STATUS(cvg_sched_complete_item(f.sched, 0, 0, ok, f.delta), CVG_ITEM_NOT_READY);
  fixture_end(&f);
}

static void a_copy_goes_its_own_way(void) {
  fixture f;
  cvg_sched *copy = NULL;
  start_map(&f, &plain);
  expanded(&f, 0, 9, 3);
  item_done(&f, 0, 2);
  CHECK_STATUS(cvg_sched_clone(f.sched, &copy), CVG_OK);
  CHECK_TEXT(item_failed(&f, 0, 0), "failed");
  cvg_sched_free(f.sched);
  f.sched = copy;
  CHECK_TEXT(item_done(&f, 0, 1), "ready 0:4 running");
  CHECK(status_of(&f, 0) == CVG_NODE_READY);
  CHECK_STATUS(cvg_sched_clone(NULL, &copy), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_sched_clone(f.sched, NULL), CVG_BAD_ARGUMENT);
  fixture_end(&f);
}

const test_case map_tests[] = {
    {"items_follow_one_another", items_follow_one_another},
    {"more_room_than_items", more_room_than_items},
    {"a_map_of_nothing_is_done", a_map_of_nothing_is_done},
    {"a_failed_item_fails_the_node", a_failed_item_fails_the_node},
    {"a_map_can_fail_as_a_whole_but_not_be_done", a_map_can_fail_as_a_whole_but_not_be_done},
    {"a_failed_run_starts_no_items", a_failed_run_starts_no_items},
    {"wrong_calls_change_nothing (map)", wrong_calls_change_nothing},
    {"a_copy_goes_its_own_way", a_copy_goes_its_own_way},
    {NULL, NULL},
};
