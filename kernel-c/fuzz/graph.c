/*
** graph.c: any graph is compiled, or refused; any run of it keeps its books.
*/
#include "fuzz.h"

#define NODES 24u
#define EDGES 48u

typedef struct run {
  cvg_graph *graph;
  cvg_sched *sched;
  cvg_delta *delta;
} run;

static size_t take_graph(bytes *b, cvg_node_spec *nodes, cvg_edge_spec *edges, size_t *edge_count) {
  size_t node_count = take_below(b, NODES + 1);
  *edge_count = take_below(b, EDGES + 1);
  for (size_t i = 0; i < node_count; i++) {
    uint8_t kind = take(b);
    nodes[i] = (cvg_node_spec){kind >> 6, kind & 7, CVG_NONE, 0, 0};
    if ((kind & 7) == CVG_ON_ERROR_FALLBACK) nodes[i].fallback = take(b);
    if (kind & 8) nodes[i].body = take_below(b, 8);
    if (kind & 16) nodes[i].max_iterations = take(b);
  }
  for (size_t i = 0; i < *edge_count; i++) {
    uint8_t port = take(b);
    edges[i] = (cvg_edge_spec){take(b), take(b), port < 192 ? CVG_PORT_ALWAYS : port & 3u};
  }
  return node_count;
}

/* A node is told of in order, once, and has the status that was told. */
static void check_delta(const run *r) {
  cvg_delta_view view;
  uint32_t status = 0;
  MUST(cvg_delta_read(r->delta, &view) == CVG_OK);
  for (size_t i = 0; i < view.ready_count; i++) {
    const cvg_ready *ready = &view.ready[i];
    MUST(i == 0 || ready[-1].node < ready->node ||
         (ready[-1].node == ready->node && ready[-1].item < ready->item));
    MUST(cvg_sched_node_status(r->sched, ready->node, &status) == CVG_OK);
    MUST(status == CVG_NODE_READY);
  }
  for (size_t i = 0; i < view.skipped_count; i++) {
    MUST(i == 0 || view.skipped[i - 1] < view.skipped[i]);
    MUST(cvg_sched_node_status(r->sched, view.skipped[i], &status) == CVG_OK);
    MUST(status == CVG_NODE_SKIPPED);
  }
  for (size_t i = 0; i < view.cancelled_count; i++) {
    MUST(i == 0 || view.cancelled[i - 1] < view.cancelled[i]);
    MUST(cvg_sched_node_status(r->sched, view.cancelled[i], &status) == CVG_OK);
    MUST(status == CVG_NODE_CANCELLED);
  }
}

static uint64_t hash_of(const cvg_sched *sched) {
  uint64_t hash = 0;
  MUST(cvg_sched_hash(sched, &hash) == CVG_OK);
  return hash;
}

/* What was saved is loaded, and is the same. */
static void check_saved(const run *r, const cvg_allocator *allocator) {
  static uint8_t saved[1 << 16];
  size_t size = 0;
  cvg_sched *loaded = NULL;
  cvg_delta *delta = NULL;
  if (cvg_sched_save(r->sched, saved, sizeof saved, &size) != CVG_OK) return;
  if (cvg_delta_new(allocator, &delta) != CVG_OK) return;
  cvg_status status = cvg_sched_load(r->graph, allocator, saved, size, &loaded, delta, NULL);
  MUST(status == CVG_OK || status == CVG_NO_MEMORY);
  if (status == CVG_OK) MUST(hash_of(loaded) == hash_of(r->sched));
  cvg_sched_free(loaded);
  cvg_delta_free(delta);
}

static void step(run *r, bytes *b) {
  uint8_t kind = take(b);
  uint32_t node = take_below(b, NODES + 1);
  const cvg_outcome outcome = {kind >> 7, kind & 64 ? kind & 3u : CVG_NONE};
  uint64_t before = hash_of(r->sched);
  cvg_status status;
  switch (kind >> 2 & 7) {
    case 0:
    case 1: status = cvg_sched_complete(r->sched, node, outcome, r->delta); break;
    case 2: status = cvg_sched_iterate(r->sched, node, r->delta); break;
    case 3: status = cvg_sched_expand(r->sched, node, take(b), take_below(b, 4), r->delta); break;
    case 4:
    case 5: status = cvg_sched_complete_item(r->sched, node, take(b), outcome, r->delta); break;
    case 6: status = cvg_sched_answer(r->sched, node, kind & 3, r->delta); break;
    default: status = kind == 0xFF ? cvg_sched_cancel(r->sched, r->delta) : CVG_BAD_ARGUMENT; break;
  }
  if (status != CVG_OK) {
    MUST(hash_of(r->sched) == before);
  } else {
    check_delta(r);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bytes b = {data, size};
  heap h = take_heap(&b);
  const cvg_allocator allocator = heap_allocator(&h);
  cvg_node_spec nodes[NODES];
  cvg_edge_spec edges[EDGES];
  size_t edge_count = 0, node_count = take_graph(&b, nodes, edges, &edge_count);
  run r = {NULL, NULL, NULL};
  if (cvg_graph_compile(&allocator, nodes, node_count, edges, edge_count, &r.graph, NULL) ==
          CVG_OK &&
      cvg_delta_new(&allocator, &r.delta) == CVG_OK &&
      cvg_sched_start(r.graph, &allocator, &r.sched, r.delta) == CVG_OK) {
    check_delta(&r);
    while (b.left > 0) step(&r, &b);
    check_saved(&r, &allocator);
  }
  cvg_sched_free(r.sched);
  cvg_delta_free(r.delta);
  cvg_graph_free(r.graph);
  MUST(h.lent == 0);
  return 0;
}
