/*
** embed.c: a graph is scheduled and a request routed, with nothing but the kernel.
**
**   cc embed.c $(pkg-config --cflags --libs convergio-kernel) && ./a.out
*/
#include <convergio/kernel.h>
#include <stdio.h>
#include <stdlib.h>

static void *allocate(void *context, size_t size) {
  (void)context;
  return malloc(size);
}

static void release(void *context, void *block, size_t size) {
  (void)context;
  (void)size;
  free(block);
}

static const cvg_allocator allocator = {allocate, release, NULL};

static int ok(cvg_status status) {
  if (status != CVG_OK) fprintf(stderr, "%s\n", cvg_status_text(status));
  return status == CVG_OK;
}

/* Does whatever is ready, until the run is over. */
static int run(cvg_sched *sched, cvg_delta *delta) {
  static const char *const names[] = {"plan", "search", "read", "answer"};
  const cvg_outcome done = {CVG_OUTCOME_DONE, CVG_NONE};
  uint32_t queue[4], begin = 0, end = 0;
  cvg_delta_view view;
  for (;;) {
    if (!ok(cvg_delta_read(delta, &view))) return 0;
    for (size_t i = 0; i < view.ready_count; i++) queue[end++] = view.ready[i].node;
    if (view.result != CVG_RUN_RUNNING) return view.result == CVG_RUN_SUCCEEDED;
    printf("%s\n", names[queue[begin]]);
    if (!ok(cvg_sched_complete(sched, queue[begin++], done, delta))) return 0;
  }
}

static int schedule(void) {
  const cvg_node_spec node = {0, CVG_ON_ERROR_FAIL, CVG_NONE, 0, 0};
  const cvg_node_spec nodes[] = {node, node, node, node};
  const cvg_edge_spec edges[] = {{0, 1, CVG_PORT_ALWAYS},
                                 {0, 2, CVG_PORT_ALWAYS},
                                 {1, 3, CVG_PORT_ALWAYS},
                                 {2, 3, CVG_PORT_ALWAYS}};
  cvg_graph *graph = NULL;
  cvg_delta *delta = NULL;
  cvg_sched *sched = NULL;
  int done = ok(cvg_graph_compile(&allocator, nodes, 4, edges, 4, &graph, NULL)) &&
             ok(cvg_delta_new(&allocator, &delta)) &&
             ok(cvg_sched_start(graph, &allocator, &sched, delta)) && run(sched, delta);
  cvg_sched_free(sched);
  cvg_delta_free(delta);
  cvg_graph_free(graph);
  return done;
}

static int choose(void) {
  static const char *const names[] = {"a local model", "a cloud's model"};
  const cvg_candidate models[] = {
      {.context_tokens = 8000,
       .provider_class = CVG_CLASS_LOCAL,
       .platform = CVG_PLATFORM_OLLAMA,
       .flags = CVG_CANDIDATE_HEALTHY,
       .latency_ms = CVG_NONE,
       .quality = 400},
      {.price_in = 2,
       .price_out = 8,
       .context_tokens = 128000,
       .provider_class = CVG_CLASS_CLOUD,
       .platform = CVG_PLATFORM_CLOUD_API,
       .flags = CVG_CANDIDATE_HEALTHY,
       .latency_ms = CVG_NONE,
       .quality = 900},
  };
  cvg_route_request request = {.input_tokens = 1000,
                               .max_output_tokens = 500,
                               .budget = CVG_BUDGET_NONE,
                               .complexity = 700,
                               .pinned = CVG_NONE,
                               .preferred_platform = CVG_NONE};
  cvg_decision decisions[2];
  size_t accepted = 0;
  if (!ok(cvg_route(&request, models, 2, decisions, &accepted))) return 0;
  printf("best: %s\n", names[decisions[0].index]);
  request.flags = CVG_REQUEST_LOCAL_ONLY;
  if (!ok(cvg_route(&request, models, 2, decisions, &accepted)) || accepted != 1) return 0;
  printf("in private: %s\n", names[decisions[0].index]);
  return 1;
}

int main(void) {
  const cvg_abi abi = CVG_ABI_OF_CALLER;
  if (!ok(cvg_abi_check(&abi, sizeof abi))) return 1;
  return schedule() && choose() ? 0 : 1;
}
