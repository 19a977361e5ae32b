/*
** graph_test.c: what compiles, and where the mistake lies in what does not.
*/
#include "check.h"

/* Compiles a graph that is wrong; `node` and `edge` are where, or CVG_NONE. */
static void refused(const cvg_node_spec *nodes, size_t node_count, const cvg_edge_spec *edges,
                    size_t edge_count, cvg_status wanted, uint32_t node, uint32_t edge) {
  test_heap heap = {UNLIMITED, 0, 0};
  const cvg_allocator allocator = heap_allocator(&heap);
  cvg_graph *graph = NULL;
  cvg_fault fault = {7, 7};
  CHECK_STATUS(cvg_graph_compile(&allocator, nodes, node_count, edges, edge_count, &graph, &fault),
               wanted);
  CHECK(graph == NULL);
  CHECK(fault.node == node);
  CHECK(fault.edge == edge);
  CHECK(heap.lent_blocks == 0);
}

static void counts_are_those_given(void) {
  const cvg_node_spec nodes[] = {FALLBACK(0, 2), NODE(0), NODE(0)};
  const cvg_edge_spec edges[] = {EDGE(0, 1)};
  fixture f;
  fixture_start(&f, nodes, COUNT(nodes), edges, COUNT(edges));
  CHECK(cvg_graph_node_count(f.graph) == 3);
  CHECK(cvg_graph_edge_count(f.graph) == 1);
  CHECK(cvg_graph_node_count(NULL) == 0);
  CHECK(cvg_graph_edge_count(NULL) == 0);
  fixture_end(&f);
}

static void an_empty_graph_is_done(void) {
  fixture f;
  fixture_start(&f, NULL, 0, NULL, 0);
  CHECK_TEXT(delta_text(&f), "succeeded");
  fixture_end(&f);
}

static void edges_must_name_nodes(void) {
  const cvg_node_spec nodes[] = {NODE(0), NODE(0)};
  const cvg_edge_spec from[] = {EDGE(0, 1), EDGE(2, 1)};
  const cvg_edge_spec to[] = {EDGE(0, CVG_NONE)};
  refused(nodes, 2, from, 2, CVG_BAD_EDGE, CVG_NONE, 1);
  refused(nodes, 2, to, 1, CVG_BAD_EDGE, CVG_NONE, 0);
}

static void an_edge_may_repeat_only_with_another_port(void) {
  const cvg_node_spec nodes[] = {NODE(0), NODE(0)};
  const cvg_edge_spec ports[] = {{0, 1, 3}, EDGE(0, 1), {0, 1, 2}, {0, 1, 3}};
  fixture f;
  fixture_start(&f, nodes, 2, ports, 3);
  fixture_end(&f);
  refused(nodes, 2, ports, 4, CVG_DUPLICATE_EDGE, CVG_NONE, 3);
}

static void a_join_needs_that_many_edges(void) {
  const cvg_node_spec nodes[] = {NODE(0), NODE(0), NODE(3)};
  const cvg_node_spec source[] = {NODE(1)};
  const cvg_edge_spec edges[] = {EDGE(0, 2), EDGE(1, 2)};
  refused(nodes, 3, edges, 2, CVG_BAD_JOIN, 2, CVG_NONE);
  refused(source, 1, NULL, 0, CVG_BAD_JOIN, 0, CVG_NONE);
}

static void a_fallback_is_another_node(void) {
  const cvg_node_spec itself[] = {NODE(0), FALLBACK(0, 1)};
  const cvg_node_spec missing[] = {FALLBACK(0, CVG_NONE)};
  const cvg_node_spec unknown[] = {FALLBACK(0, 1)};
  const cvg_node_spec unwanted[] = {{0, CVG_ON_ERROR_SKIP, 1, 0, 0}, NODE(0)};
  const cvg_node_spec policy[] = {{0, 4, CVG_NONE, 0, 0}};
  refused(itself, 2, NULL, 0, CVG_BAD_FALLBACK, 1, CVG_NONE);
  refused(missing, 1, NULL, 0, CVG_BAD_FALLBACK, 0, CVG_NONE);
  refused(unknown, 1, NULL, 0, CVG_BAD_FALLBACK, 0, CVG_NONE);
  refused(unwanted, 2, NULL, 0, CVG_BAD_FALLBACK, 0, CVG_NONE);
  refused(policy, 1, NULL, 0, CVG_BAD_ARGUMENT, 0, CVG_NONE);
}

static void cycles_are_named(void) {
  const cvg_node_spec nodes[] = {NODE(0), NODE(0), NODE(0), NODE(0)};
  const cvg_edge_spec self[] = {EDGE(1, 1)};
  /* Node 0 leads into the cycle of 1 and 2, node 3 hangs on it. */
  const cvg_edge_spec pair[] = {EDGE(0, 1), EDGE(1, 2), EDGE(2, 1), EDGE(2, 3)};
  refused(nodes, 4, self, 1, CVG_CYCLE, 1, CVG_NONE);
  refused(nodes, 4, pair, 4, CVG_CYCLE, 1, CVG_NONE);
}

static void cycles_may_close_through_fallbacks(void) {
  const cvg_node_spec mutual[] = {FALLBACK(1, 1), FALLBACK(1, 0)};
  /* What hangs on 0 waits for its fallback 2, which itself hangs on 1. */
  const cvg_node_spec behind[] = {FALLBACK(0, 2), NODE(0), NODE(0)};
  const cvg_edge_spec edges[] = {EDGE(0, 1), EDGE(1, 2)};
  /* The same through a chain of fallbacks: 0 -> 2 -> 3, and 3 hangs on 1. */
  const cvg_node_spec chain[] = {FALLBACK(0, 2), NODE(0), FALLBACK(0, 3), NODE(0)};
  const cvg_edge_spec chain_edges[] = {EDGE(0, 1), EDGE(1, 3)};
  refused(mutual, 2, NULL, 0, CVG_CYCLE, 0, CVG_NONE);
  refused(behind, 3, edges, 2, CVG_CYCLE, 0, CVG_NONE);
  refused(chain, 4, chain_edges, 2, CVG_CYCLE, 0, CVG_NONE);
}

static void null_and_too_much_are_refused(void) {
  const cvg_node_spec nodes[] = {NODE(0)};
  const cvg_edge_spec edges[] = {EDGE(0, 0)};
  test_heap heap = {UNLIMITED, 0, 0};
  const cvg_allocator allocator = heap_allocator(&heap);
  const cvg_allocator none = {NULL, NULL, NULL};
  cvg_graph *graph = NULL;
  refused(NULL, 1, NULL, 0, CVG_BAD_ARGUMENT, CVG_NONE, CVG_NONE);
  refused(nodes, 1, NULL, 1, CVG_BAD_ARGUMENT, CVG_NONE, CVG_NONE);
  refused(nodes, (size_t)CVG_NODES_MAX + 1, NULL, 0, CVG_TOO_LARGE, CVG_NONE, CVG_NONE);
  refused(nodes, 1, edges, (size_t)-1, CVG_TOO_LARGE, CVG_NONE, CVG_NONE);
  CHECK_STATUS(cvg_graph_compile(NULL, nodes, 1, NULL, 0, &graph, NULL), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_graph_compile(&none, nodes, 1, NULL, 0, &graph, NULL), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_graph_compile(&allocator, nodes, 1, NULL, 0, NULL, NULL), CVG_BAD_ARGUMENT);
  cvg_graph_free(NULL);
}

const test_case graph_tests[] = {
    {"counts_are_those_given", counts_are_those_given},
    {"an_empty_graph_is_done", an_empty_graph_is_done},
    {"edges_must_name_nodes", edges_must_name_nodes},
    {"an_edge_may_repeat_only_with_another_port", an_edge_may_repeat_only_with_another_port},
    {"a_join_needs_that_many_edges", a_join_needs_that_many_edges},
    {"a_fallback_is_another_node", a_fallback_is_another_node},
    {"cycles_are_named", cycles_are_named},
    {"cycles_may_close_through_fallbacks", cycles_may_close_through_fallbacks},
    {"null_and_too_much_are_refused", null_and_too_much_are_refused},
    {NULL, NULL},
};
