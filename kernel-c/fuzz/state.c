/*
** state.c: any account and any saved bytes are taken or refused, and what is taken can be lived on.
*/
#include "fuzz.h"

#define NODES 9u
#define SAVED_MAX 4096u
/* A saved item takes a bit. */
#define ITEMS_MAX (8 * SAVED_MAX)

/* 1 falls back to 2; 3 is a loop over 4 and the loop 5 (of 6), and asks; 7 asks; 8 joins two. */
static const cvg_node_spec nodes[NODES] = {
    {0, CVG_ON_ERROR_FAIL, CVG_NONE, 0, 0}, {0, CVG_ON_ERROR_FALLBACK, 2, 0, 0},
    {0, CVG_ON_ERROR_SKIP, CVG_NONE, 0, 0}, {0, CVG_ON_ERROR_ASK, CVG_NONE, 3, 2},
    {0, CVG_ON_ERROR_SKIP, CVG_NONE, 0, 0}, {0, CVG_ON_ERROR_FAIL, CVG_NONE, 1, 3},
    {0, CVG_ON_ERROR_FAIL, CVG_NONE, 0, 0}, {0, CVG_ON_ERROR_ASK, CVG_NONE, 0, 0},
    {2, CVG_ON_ERROR_FAIL, CVG_NONE, 0, 0},
};
static const cvg_edge_spec edges[] = {
    {0, 1, 1}, {0, 3, CVG_PORT_ALWAYS}, {4, 5, CVG_PORT_ALWAYS}, {1, 8, CVG_PORT_ALWAYS},
    {3, 8, 2}, {7, 8, CVG_PORT_ALWAYS},
};

static uint8_t items[256];

static void take_states(bytes *b, cvg_node_state states[NODES]) {
  size_t used = 0;
  for (size_t i = 0; i < NODES; i++) {
    uint8_t head = take(b);
    states[i] = (cvg_node_state){head & 7, CVG_NONE, 0, 0, 0, 0, NULL};
    if (head & 8) states[i].choice = take_below(b, 4);
    if (head & 16) states[i].iterations = take_below(b, 5);
    if (head & 32) states[i].iterating = take_below(b, 3);
    if (head & 64) {
      states[i].max_parallel = take_below(b, 4);
      states[i].width = take_below(b, 20);
      states[i].items = items + used;
      for (uint32_t k = 0; k < states[i].width; k++) items[used++] = (uint8_t)take_below(b, 4);
    }
  }
}

/* Makes the checksum fit, so that what lies behind it is reached. */
static void seal(uint8_t *saved, size_t size) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (size_t i = 0; i + 8 < size; i++) hash = (hash ^ saved[i]) * 0x00000100000001B3u;
  for (size_t i = 0; i < 8; i++) saved[size - 8 + i] = (uint8_t)(hash >> 8 * i);
}

/* The header of this graph, then whatever the fuzzer wants. */
static void load(const cvg_graph *graph, const cvg_allocator *allocator, bytes *b, cvg_sched **out,
                 cvg_delta *delta) {
  static uint8_t saved[SAVED_MAX], again[SAVED_MAX];
  uint64_t hash = 0;
  size_t size = 20, saved_size = 0;
  MUST(cvg_graph_hash(graph, &hash) == CVG_OK);
  memcpy(saved, "CVGS\1\0\0\0", 8);
  for (size_t i = 0; i < 8; i++) saved[8 + i] = (uint8_t)(hash >> 8 * i);
  memcpy(saved + 16, "\x09\0\0\0", 4);
  while (b->left > 0 && size < sizeof saved - 8) saved[size++] = take(b);
  size += 8;
  seal(saved, size);
  if (cvg_sched_load(graph, allocator, saved, size, out, delta, NULL) != CVG_OK) return;
  MUST(cvg_sched_save(*out, again, sizeof again, &saved_size) == CVG_OK);
  MUST(saved_size == size && memcmp(saved, again, size) == 0);
}

/* Ends whatever is in flight until the run has ended, which it must. */
static void live_on(cvg_sched *sched, cvg_delta *delta) {
  const cvg_outcome done = {CVG_OUTCOME_DONE, 1};
  uint32_t result = CVG_RUN_RUNNING, status = 0;
  for (int round = 0; round < 200 && result == CVG_RUN_RUNNING; round++) {
    for (uint32_t i = 0; i < NODES; i++) {
      MUST(cvg_sched_node_status(sched, i, &status) == CVG_OK);
      if (status == CVG_NODE_ASKING) (void)cvg_sched_answer(sched, i, CVG_ANSWER_SKIP, delta);
      if (status != CVG_NODE_READY) continue;
      if (cvg_sched_complete(sched, i, done, delta) != CVG_ALREADY_EXPANDED) continue;
      for (uint32_t k = 0; k < ITEMS_MAX; k++) {
        if (cvg_sched_complete_item(sched, i, k, done, delta) == CVG_NOT_READY) break;
      }
    }
    MUST(cvg_sched_result(sched, &result) == CVG_OK);
  }
  MUST(result != CVG_RUN_RUNNING);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bytes b = {data, size};
  uint8_t kind = take(&b);
  heap h = take_heap(&b);
  const cvg_allocator allocator = heap_allocator(&h);
  cvg_graph *graph = NULL;
  cvg_delta *delta = NULL;
  cvg_sched *sched = NULL;
  if (cvg_graph_compile(&allocator, nodes, NODES, edges, 6, &graph, NULL) == CVG_OK &&
      cvg_delta_new(&allocator, &delta) == CVG_OK) {
    if (kind & 1) {
      load(graph, &allocator, &b, &sched, delta);
    } else if (kind & 2) {
      (void)cvg_sched_load(graph, &allocator, b.at, b.left, &sched, delta, NULL);
    } else {
      cvg_node_state states[NODES];
      take_states(&b, states);
      (void)cvg_sched_restore(graph, &allocator, states, NODES, &sched, delta, NULL);
    }
    h.grants = SIZE_MAX;
    if (sched != NULL) live_on(sched, delta);
  }
  cvg_sched_free(sched);
  cvg_delta_free(delta);
  cvg_graph_free(graph);
  MUST(h.lent == 0);
  return 0;
}
