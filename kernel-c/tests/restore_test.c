/*
** restore_test.c: a run rebuilt from the states of its nodes.
*/
#include "check.h"

#define STATE(status) \
  { status, CVG_NONE, 0, 0, 0, 0, NULL }
#define CHOSE(choice) \
  { CVG_NODE_DONE, choice, 0, 0, 0, 0, NULL }
#define MAP(items, max_parallel) \
  { CVG_NODE_READY, CVG_NONE, max_parallel, COUNT(items), 0, 0, items }

#define PENDING STATE(CVG_NODE_PENDING)
#define READY STATE(CVG_NODE_READY)
#define DONE STATE(CVG_NODE_DONE)
#define FAILED STATE(CVG_NODE_FAILED)
#define SKIPPED STATE(CVG_NODE_SKIPPED)

static cvg_status try_restore(fixture *f, const cvg_node_state *states, size_t count,
                              cvg_fault *fault) {
  cvg_sched *sched = NULL;
  cvg_status status =
      cvg_sched_restore(f->graph, &f->allocator, states, count, &sched, f->delta, fault);
  if (status != CVG_OK) return status;
  cvg_sched_free(f->sched);
  f->sched = sched;
  return CVG_OK;
}

static const char *restored(fixture *f, const cvg_node_state *states, size_t count) {
  CHECK_STATUS(try_restore(f, states, count, NULL), CVG_OK);
  return delta_text(f);
}

static void refused(fixture *f, const cvg_node_state *states, size_t count, cvg_status wanted,
                    uint32_t node) {
  cvg_fault fault = {7, 7};
  CHECK_STATUS(try_restore(f, states, count, &fault), wanted);
  CHECK(fault.node == node);
  CHECK(fault.edge == CVG_NONE);
  CHECK_TEXT(delta_text(f), "running");
}

/* 0 chooses 1 or 2; 3 takes whichever comes. */
static void start_branch(fixture *f) {
  static const cvg_node_spec nodes[] = {NODE(0), NODE(0), NODE(0), NODE(1)};
  static const cvg_edge_spec edges[] = {{0, 1, 0}, {0, 2, 1}, EDGE(1, 3), EDGE(2, 3)};
  fixture_start(f, nodes, 4, edges, 4);
}

static void a_complete_account_implies_nothing_new(void) {
  const cvg_node_state states[] = {CHOSE(1), SKIPPED, READY, PENDING};
  fixture f;
  start_branch(&f);
  CHECK_TEXT(restored(&f, states, 4), "running");
  CHECK_TEXT(done(&f, 2), "ready 3 running");
  CHECK_TEXT(done(&f, 3), "succeeded");
  fixture_end(&f);
}

static void what_the_account_leaves_out_follows(void) {
  const cvg_node_state states[] = {CHOSE(1), PENDING, PENDING, PENDING};
  const cvg_node_state untouched[] = {PENDING, PENDING, PENDING, PENDING};
  fixture f;
  start_branch(&f);
  CHECK_TEXT(restored(&f, states, 4), "ready 2 skipped 1 running");
  CHECK_TEXT(restored(&f, untouched, 4), "ready 0 running");
  fixture_end(&f);
}

static void accounts_that_cannot_be_are_refused(void) {
  const cvg_node_state too_early[] = {READY, PENDING, READY, PENDING};
  const cvg_node_state wrong_branch[] = {CHOSE(1), DONE, PENDING, PENDING};
  const cvg_node_state skipped_in_vain[] = {CHOSE(1), SKIPPED, SKIPPED, PENDING};
  const cvg_node_state unknown[] = {CHOSE(1), STATE(7), PENDING, PENDING};
  const cvg_node_state half_map[] = {
      {CVG_NODE_READY, CVG_NONE, 0, 3, 0, 0, NULL}, PENDING, PENDING, PENDING};
  fixture f;
  start_branch(&f);
  refused(&f, too_early, 4, CVG_BAD_STATE, 2);
  refused(&f, wrong_branch, 4, CVG_BAD_STATE, 1);
  refused(&f, skipped_in_vain, 4, CVG_BAD_STATE, 2);
  refused(&f, unknown, 4, CVG_BAD_ARGUMENT, 1);
  refused(&f, half_map, 4, CVG_BAD_STATE, 0);
  refused(&f, too_early, 3, CVG_BAD_ARGUMENT, CVG_NONE);
  refused(&f, NULL, 4, CVG_BAD_ARGUMENT, CVG_NONE);
  fixture_end(&f);
}

static void maps_go_on_where_they_were(void) {
  static const uint8_t items[] = {CVG_ITEM_READY, CVG_ITEM_DONE, CVG_ITEM_WAITING,
                                  CVG_ITEM_WAITING};
  const cvg_node_state same[] = {MAP(items, 1), PENDING};
  const cvg_node_state roomier[] = {MAP(items, 2), PENDING};
  const cvg_node_spec nodes[] = {NODE(0), NODE(0)};
  const cvg_edge_spec edges[] = {EDGE(0, 1)};
  fixture f;
  fixture_start(&f, nodes, 2, edges, 1);
  CHECK_TEXT(restored(&f, same, 2), "running");
  CHECK_TEXT(item_done(&f, 0, 0), "ready 0:2 running");
  CHECK_TEXT(restored(&f, roomier, 2), "ready 0:2 running");
  CHECK_TEXT(item_done(&f, 0, 0), "ready 0:3 running");
  CHECK_TEXT(item_done(&f, 0, 2), "running");
  CHECK_TEXT(item_done(&f, 0, 3), "ready 1 running");
  fixture_end(&f);
}

static void maps_whose_items_are_done_are_done(void) {
  static const uint8_t items[] = {CVG_ITEM_DONE, CVG_ITEM_DONE};
  const cvg_node_state full[] = {MAP(items, 2), PENDING};
  const cvg_node_state empty[] = {{CVG_NODE_READY, CVG_NONE, 2, 0, 0, 0, NULL}, PENDING};
  const cvg_node_spec nodes[] = {NODE(0), NODE(0)};
  const cvg_edge_spec edges[] = {EDGE(0, 1)};
  fixture f;
  fixture_start(&f, nodes, 2, edges, 1);
  CHECK_TEXT(restored(&f, full, 2), "ready 1 running");
  CHECK_TEXT(restored(&f, empty, 2), "ready 1 running");
  fixture_end(&f);
}

static void maps_that_cannot_be_are_refused(void) {
  static const uint8_t gap[] = {CVG_ITEM_WAITING, CVG_ITEM_READY};
  static const uint8_t odd[] = {CVG_ITEM_READY, 3};
  const cvg_node_state with_gap[] = {READY, MAP(gap, 2)};
  const cvg_node_state with_odd[] = {READY, MAP(odd, 2)};
  const cvg_node_state too_wide[] = {
      READY, {CVG_NODE_READY, CVG_NONE, 1, CVG_MAP_WIDTH_MAX + 1, 0, 0, gap}};
  const cvg_node_state no_items[] = {READY, {CVG_NODE_READY, CVG_NONE, 1, 2, 0, 0, NULL}};
  const cvg_node_spec nodes[] = {NODE(0), NODE(0)};
  fixture f;
  fixture_start(&f, nodes, 2, NULL, 0);
  refused(&f, with_gap, 2, CVG_BAD_STATE, 1);
  refused(&f, with_odd, 2, CVG_BAD_ARGUMENT, 1);
  refused(&f, too_wide, 2, CVG_TOO_LARGE, 1);
  refused(&f, no_items, 2, CVG_BAD_ARGUMENT, 1);
  fixture_end(&f);
}

static void a_failed_run_stays_failed(void) {
  static const uint8_t items[] = {CVG_ITEM_READY, CVG_ITEM_WAITING};
  const cvg_node_state states[] = {FAILED, DONE, PENDING, MAP(items, 2)};
  const cvg_node_spec nodes[] = {NODE(0), NODE(0), NODE(0), NODE(0)};
  const cvg_edge_spec edges[] = {EDGE(1, 2)};
  fixture f;
  fixture_start(&f, nodes, 4, edges, 1);
  CHECK_TEXT(restored(&f, states, 4), "failed");
  CHECK_TEXT(item_done(&f, 3, 0), "failed");
  CHECK(status_of(&f, 2) == CVG_NODE_PENDING);
  fixture_end(&f);
}

/* 0 falls back to 1 and that to 2; 3 hangs on 0. */
static void fallbacks_are_where_they_were(void) {
  const cvg_node_spec nodes[] = {FALLBACK(0, 1), FALLBACK(0, 2), NODE(0), NODE(0)};
  const cvg_edge_spec edges[] = {EDGE(0, 3)};
  const cvg_node_state in_flight[] = {FAILED, FAILED, READY, PENDING};
  const cvg_node_state at_once[] = {FAILED, FAILED, DONE, PENDING};
  const cvg_node_state unspoken[] = {FAILED, PENDING, PENDING, PENDING};
  const cvg_node_state unneeded[] = {DONE, PENDING, PENDING, READY};
  fixture f;
  fixture_start(&f, nodes, 4, edges, 1);
  CHECK_TEXT(restored(&f, in_flight, 4), "running");
  CHECK_TEXT(done(&f, 2), "ready 3 running");
  CHECK_TEXT(restored(&f, at_once, 4), "ready 3 running");
  CHECK_TEXT(restored(&f, unspoken, 4), "ready 1 running");
  CHECK_TEXT(restored(&f, unneeded, 4), "skipped 1 2 running");
  fixture_end(&f);
}

const test_case restore_tests[] = {
    {"a_complete_account_implies_nothing_new", a_complete_account_implies_nothing_new},
    {"what_the_account_leaves_out_follows", what_the_account_leaves_out_follows},
    {"accounts_that_cannot_be_are_refused", accounts_that_cannot_be_are_refused},
    {"maps_go_on_where_they_were", maps_go_on_where_they_were},
    {"maps_whose_items_are_done_are_done", maps_whose_items_are_done_are_done},
    {"maps_that_cannot_be_are_refused", maps_that_cannot_be_are_refused},
    {"a_failed_run_stays_failed", a_failed_run_stays_failed},
    {"fallbacks_are_where_they_were", fallbacks_are_where_they_were},
    {NULL, NULL},
};
