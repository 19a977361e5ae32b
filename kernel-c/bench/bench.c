/*
** bench.c: what the kernel takes in time and memory: a table for people, or JSON lines with --json.
*/
#define _POSIX_C_SOURCE 199309L

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "convergio/kernel.h"

static int as_json;
static size_t lent_bytes;

static void *allocate(void *context, size_t size) {
  (void)context;
  lent_bytes += size;
  return malloc(size);
}

static void release(void *context, void *block, size_t size) {
  (void)context;
  lent_bytes -= size;
  free(block);
}

static const cvg_allocator allocator = {allocate, release, NULL};

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* The same numbers in every run. */
static uint64_t random_state = 1;

static uint32_t below(uint32_t limit) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)((random_state >> 32) * limit >> 32);
}

static void report(const char *name, double value, const char *unit, double limit) {
  if (as_json) {
    printf("{\"name\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"limit\":%.6g}\n", name, value, unit,
           limit);
  } else {
    printf("%-44s %12.3f %-10s limit %8.3f %s\n", name, value, unit, limit,
           value <= limit ? "" : "MISSED");
  }
}

static void must(cvg_status status) {
  if (status == CVG_OK) return;
  fprintf(stderr, "%s\n", cvg_status_text(status));
  exit(1);
}

#define NODES 1000000u
#define EDGES 3000000u

static int compare_edges(const void *left, const void *right) {
  const cvg_edge_spec *a = left, *b = right;
  if (a->from != b->from) return a->from < b->from ? -1 : 1;
  return a->to < b->to ? -1 : a->to > b->to;
}

/* Edges between random nodes, from the lower to the higher, in random order. */
static size_t random_edges(cvg_edge_spec *edges) {
  size_t count = 0;
  for (size_t i = 0; i < EDGES; i++) {
    uint32_t a = below(NODES), b = below(NODES);
    if (a == b) continue;
    edges[count++] = (cvg_edge_spec){a < b ? a : b, a < b ? b : a, CVG_PORT_ALWAYS};
  }
  qsort(edges, count, sizeof *edges, compare_edges);
  size_t unique = 0;
  for (size_t i = 0; i < count; i++) {
    if (i == 0 || compare_edges(&edges[i - 1], &edges[i]) != 0) edges[unique++] = edges[i];
  }
  for (size_t i = unique; i > 1; i--) {
    size_t k = below((uint32_t)i);
    cvg_edge_spec kept = edges[i - 1];
    edges[i - 1] = edges[k];
    edges[k] = kept;
  }
  return unique;
}

/* Completes every node, in the order in which they become ready. */
static void run_all(const cvg_graph *graph, cvg_delta *delta) {
  const cvg_outcome done = {CVG_OUTCOME_DONE, CVG_NONE};
  uint32_t *queue = malloc(NODES * sizeof *queue);
  size_t begin = 0, end = 0;
  cvg_sched *sched = NULL;
  cvg_delta_view view;
  double started = now();
  must(cvg_sched_start(graph, &allocator, &sched, delta));
  report("graph, scheduler and delta, a node", (double)lent_bytes / NODES, "bytes", 64.0 + 8.0 * 3);
  for (;;) {
    must(cvg_delta_read(delta, &view));
    for (size_t i = 0; i < view.ready_count; i++) queue[end++] = view.ready[i].node;
    if (view.result != CVG_RUN_RUNNING) break;
    must(cvg_sched_complete(sched, queue[begin++], done, delta));
  }
  report("1,000,000 completions", now() - started, "s", 1);
  size_t size = 0;
  uint64_t hash = 0;
  started = now();
  must(cvg_sched_hash(sched, &hash));
  report("hash of the state", 1e3 * (now() - started), "ms", 1000);
  (void)cvg_sched_save(sched, NULL, 0, &size);
  report("saved state, a node", (double)size / NODES, "bytes", 8);
  cvg_sched_free(sched);
  free(queue);
}

static void bench_scheduler(void) {
  const cvg_node_spec plain = {0, CVG_ON_ERROR_FAIL, CVG_NONE, 0, 0};
  cvg_node_spec *nodes = malloc(NODES * sizeof *nodes);
  cvg_edge_spec *edges = malloc(EDGES * sizeof *edges);
  cvg_graph *graph = NULL;
  cvg_delta *delta = NULL;
  for (size_t i = 0; i < NODES; i++) nodes[i] = plain;
  size_t edge_count = random_edges(edges);
  double started = now();
  must(cvg_graph_compile(&allocator, nodes, NODES, edges, edge_count, &graph, NULL));
  report("compile 1,000,000 nodes, 3,000,000 edges", now() - started, "s", 1);
  must(cvg_delta_new(&allocator, &delta));
  run_all(graph, delta);
  cvg_delta_free(delta);
  cvg_graph_free(graph);
  free(edges);
  free(nodes);
}

#define CANDIDATES 200u
#define DECISIONS 2000u

static void bench_router(void) {
  cvg_candidate candidates[CANDIDATES];
  cvg_decision decisions[CANDIDATES];
  size_t accepted = 0;
  const cvg_route_request request = {.input_tokens = 2000,
                                     .max_output_tokens = 1000,
                                     .budget = 1000000,
                                     .complexity = 500,
                                     .pinned = CVG_NONE,
                                     .preferred_platform = CVG_PLATFORM_OLLAMA};
  for (size_t i = 0; i < CANDIDATES; i++) {
    candidates[i] = (cvg_candidate){.price_in = below(100),
                                    .price_out = below(400),
                                    .context_tokens = 8000 + below(100000),
                                    .provider_class = below(2),
                                    .platform = below(5),
                                    .flags = CVG_CANDIDATE_HEALTHY,
                                    .latency_ms = below(1000),
                                    .quality = below(1000)};
  }
  double started = now();
  for (size_t i = 0; i < DECISIONS; i++) {
    must(cvg_route(&request, candidates, CANDIDATES, decisions, &accepted));
  }
  report("route over 200 candidates", 1e6 * (now() - started) / DECISIONS, "us", 20);
}

int main(int argument_count, char **arguments) {
  as_json = argument_count > 1 && strcmp(arguments[1], "--json") == 0;
  bench_scheduler();
  bench_router();
  return 0;
}
