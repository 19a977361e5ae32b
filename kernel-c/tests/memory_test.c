/*
** memory_test.c: every allocation refused in turn: a status, no leak, and the state as it was.
*/
#include "check.h"

/* 0 is a map, 1 falls back to 2, 3 joins all. */
static const cvg_node_spec nodes[] = {NODE(0), FALLBACK(0, 2), NODE(0), NODE(0)};
static const cvg_edge_spec edges[] = {EDGE(0, 3), EDGE(1, 3)};
static const uint8_t items[] = {CVG_ITEM_DONE, CVG_ITEM_READY, CVG_ITEM_WAITING};
static const cvg_node_state states[] = {
    {CVG_NODE_READY, CVG_NONE, 2, COUNT(items), 0, 0, items},
    {CVG_NODE_FAILED, CVG_NONE, 0, 0, 0, 0, NULL},
    {CVG_NODE_READY, CVG_NONE, 0, 0, 0, 0, NULL},
    {CVG_NODE_PENDING, CVG_NONE, 0, 0, 0, 0, NULL},
};

static uint32_t status_of_sched(const cvg_sched *sched, uint32_t node) {
  uint32_t status = CVG_NONE;
  CHECK_STATUS(cvg_sched_node_status(sched, node, &status), CVG_OK);
  return status;
}

typedef cvg_status (*operation)(fixture *f);

static cvg_status compile(fixture *f) {
  cvg_graph *graph = NULL;
  cvg_status status = cvg_graph_compile(&f->allocator, nodes, 4, edges, 2, &graph, NULL);
  cvg_graph_free(graph);
  return status;
}

static cvg_status start(fixture *f) {
  cvg_delta *delta = NULL;
  cvg_sched *sched = NULL;
  cvg_status status = cvg_delta_new(&f->allocator, &delta);
  if (status == CVG_OK) status = cvg_sched_start(f->graph, &f->allocator, &sched, delta);
  cvg_sched_free(sched);
  cvg_delta_free(delta);
  return status;
}

static cvg_status restore(fixture *f) {
  cvg_delta *delta = NULL;
  cvg_sched *sched = NULL;
  cvg_status status = cvg_delta_new(&f->allocator, &delta);
  if (status == CVG_OK) {
    status = cvg_sched_restore(f->graph, &f->allocator, states, 4, &sched, delta, NULL);
  }
  cvg_sched_free(sched);
  cvg_delta_free(delta);
  return status;
}

/* Saved once with all memory there is, then loaded. */
static cvg_status load(fixture *f) {
  uint8_t bytes[256];
  size_t size = 0;
  cvg_delta *delta = NULL;
  cvg_sched *sched = NULL;
  CHECK_STATUS(cvg_sched_save(f->sched, bytes, sizeof bytes, &size), CVG_OK);
  cvg_status status = cvg_delta_new(&f->allocator, &delta);
  if (status == CVG_OK) {
    status = cvg_sched_load(f->graph, &f->allocator, bytes, size, &sched, delta, NULL);
  }
  cvg_sched_free(sched);
  cvg_delta_free(delta);
  return status;
}

/* Cancels a copy with a new delta. */
static cvg_status cancel(fixture *f) {
  cvg_delta *delta = NULL;
  cvg_sched *sched = NULL;
  cvg_status status = cvg_sched_clone(f->sched, &sched);
  if (status == CVG_OK) status = cvg_delta_new(&f->allocator, &delta);
  if (status == CVG_OK) status = cvg_sched_cancel(sched, delta);
  if (status == CVG_NO_MEMORY && delta != NULL) CHECK(status_of_sched(sched, 0) == CVG_NODE_READY);
  cvg_sched_free(sched);
  cvg_delta_free(delta);
  return status;
}

static cvg_status copy(fixture *f) {
  cvg_sched *sched = NULL;
  cvg_status status = cvg_sched_clone(f->sched, &sched);
  cvg_sched_free(sched);
  return status;
}

/* Expands a copy with a new delta; whatever is refused can be had afterwards. */
static cvg_status expand(fixture *f) {
  fixture copied = *f;
  copied.sched = NULL;
  copied.delta = NULL;
  cvg_status status = cvg_sched_clone(f->sched, &copied.sched);
  if (status == CVG_OK) status = cvg_delta_new(&f->allocator, &copied.delta);
  if (status == CVG_OK) {
    status = cvg_sched_expand(copied.sched, 0, 3, 2, copied.delta);
    f->heap.grants = UNLIMITED;
    if (status == CVG_OK) CHECK_TEXT(delta_text(&copied), "ready 0:0 0:1 running");
    if (status != CVG_OK) {
      CHECK_TEXT(delta_text(&copied), "running");
      CHECK(status_of(&copied, 0) == CVG_NODE_READY);
      CHECK_TEXT(expanded(&copied, 0, 3, 2), "ready 0:0 0:1 running");
    }
  }
  cvg_sched_free(copied.sched);
  cvg_delta_free(copied.delta);
  return status;
}

/* Repeats an operation with one more grant each time; returns how often it was refused. */
static size_t refusals(fixture *f, operation operate) {
  size_t grants = 0, blocks = f->heap.lent_blocks;
  for (;;) {
    f->heap.grants = grants;
    cvg_status status = operate(f);
    f->heap.grants = UNLIMITED;
    if (status == CVG_OK) return grants;
    CHECK_STATUS(status, CVG_NO_MEMORY);
    CHECK(f->heap.lent_blocks == blocks);
    grants++;
  }
}

static void each_block_may_be_refused(void) {
  fixture f;
  fixture_start(&f, nodes, 4, edges, 2);
  /* The graph and the scratch of the cycle search. */
  CHECK(refusals(&f, compile) == 2);
  /* The delta and its two lists, then the scheduler. */
  CHECK(refusals(&f, start) == 4);
  /* The same, then the table of maps and the map. */
  CHECK(refusals(&f, restore) == 6);
  CHECK(refusals(&f, expand) == 6);
  expanded(&f, 0, 3, 2);
  CHECK(refusals(&f, copy) == 3);
  /* The states and the items as read, then what restoring takes. */
  CHECK(refusals(&f, load) == 8);
  CHECK(refusals(&f, cancel) == 6);
  fixture_end(&f);
}

/* Once the delta has seen the graph, completing asks for no memory at all. */
static void completing_needs_no_memory(void) {
  fixture f;
  fixture_start(&f, nodes, 4, edges, 2);
  expanded(&f, 0, 2, 1);
  f.heap.grants = 0;
  CHECK_TEXT(item_done(&f, 0, 0), "ready 0:1 running");
  CHECK_TEXT(item_done(&f, 0, 1), "running");
  CHECK_TEXT(failed(&f, 1), "ready 2 running");
  CHECK_TEXT(done(&f, 2), "ready 3 running");
  CHECK_TEXT(done(&f, 3), "succeeded");
  fixture_end(&f);
}

static void a_fresh_delta_may_fail_a_completion_which_changes_nothing(void) {
  const cvg_outcome failure = {CVG_OUTCOME_FAILED, CVG_NONE};
  fixture f;
  fixture_start(&f, nodes, 4, edges, 2);
  cvg_delta *used = f.delta;
  CHECK_STATUS(cvg_delta_new(&f.allocator, &f.delta), CVG_OK);
  for (size_t grants = 0; grants < 2; grants++) {
    f.heap.grants = grants;
    CHECK_STATUS(cvg_sched_complete(f.sched, 1, failure, f.delta), CVG_NO_MEMORY);
    CHECK_TEXT(delta_text(&f), "running");
    CHECK(status_of(&f, 1) == CVG_NODE_READY);
  }
  f.heap.grants = UNLIMITED;
  CHECK_TEXT(failed(&f, 1), "ready 2 running");
  cvg_delta_free(used);
  fixture_end(&f);
}

static void a_fresh_delta_may_fail_an_iteration_and_an_answer(void) {
  static const cvg_node_spec scoped[] = {SCOPE(CVG_ON_ERROR_FAIL, 1, 2), NODE(0), ASKING(0)};
  fixture f;
  fixture_start(&f, scoped, COUNT(scoped), NULL, 0);
  failed(&f, 2);
  cvg_delta *used = f.delta, *other = NULL;
  CHECK_STATUS(cvg_delta_new(&f.allocator, &f.delta), CVG_OK);
  CHECK_STATUS(cvg_delta_new(&f.allocator, &other), CVG_OK);
  for (size_t grants = 0; grants < 2; grants++) {
    f.heap.grants = grants;
    CHECK_STATUS(cvg_sched_iterate(f.sched, 0, f.delta), CVG_NO_MEMORY);
    CHECK(status_of(&f, 0) == CVG_NODE_READY && status_of(&f, 1) == CVG_NODE_PENDING);
    f.heap.grants = grants;
    CHECK_STATUS(cvg_sched_answer(f.sched, 2, CVG_ANSWER_RETRY, other), CVG_NO_MEMORY);
    CHECK(status_of(&f, 2) == CVG_NODE_ASKING);
  }
  f.heap.grants = UNLIMITED;
  CHECK_TEXT(iterated(&f, 0), "ready 1 running");
  CHECK_TEXT(answered(&f, 2, CVG_ANSWER_RETRY), "ready 2 running");
  cvg_delta_free(other);
  cvg_delta_free(used);
  fixture_end(&f);
}

#define LARGE 4096u

/* Every second node falls back to the next one, which is the dearest kind of graph. */
static void a_run_takes_no_more_memory_than_the_header_says(void) {
  static cvg_node_spec many[LARGE];
  static cvg_edge_spec edges_of_many[3 * LARGE];
  size_t edge_count = 0;
  fixture f;
  for (uint32_t i = 0; i < LARGE; i++) {
    const cvg_node_spec plain = NODE(0), backed = FALLBACK(0, i + 1);
    many[i] = i % 2 == 0 ? backed : plain;
    for (uint32_t k = 2; k < 5 && i + k < LARGE; k++) {
      const cvg_edge_spec edge = EDGE(i, i + k);
      edges_of_many[edge_count++] = edge;
    }
  }
  fixture_start(&f, many, LARGE, edges_of_many, edge_count);
  CHECK(f.heap.lent_bytes <= 64 * LARGE + 8 * edge_count + 1024);
  fixture_end(&f);
}

const test_case memory_tests[] = {
    {"a_run_takes_no_more_memory_than_the_header_says",
     a_run_takes_no_more_memory_than_the_header_says},
    {"each_block_may_be_refused", each_block_may_be_refused},
    {"completing_needs_no_memory", completing_needs_no_memory},
    {"a_fresh_delta_may_fail_an_iteration_and_an_answer",
     a_fresh_delta_may_fail_an_iteration_and_an_answer},
    {"a_fresh_delta_may_fail_a_completion_which_changes_nothing",
     a_fresh_delta_may_fail_a_completion_which_changes_nothing},
    {NULL, NULL},
};
