/*
** graph.c: checks a graph and compiles it to compressed sparse rows.
*/
#include "graph.h"

#include <string.h>

#include "hash.h"
#include "memory.h"
#include "sort.h"

/* The graph as given. */
typedef struct source {
  const cvg_node_spec *nodes;
  size_t node_count;
  const cvg_edge_spec *edges;
  size_t edge_count;
} source;

static cvg_status wrong_node(cvg_fault *fault, cvg_status status, size_t node) {
  fault->node = (uint32_t)node;
  return status;
}

static cvg_status wrong_edge(cvg_fault *fault, cvg_status status, size_t edge) {
  fault->edge = (uint32_t)edge;
  return status;
}

static cvg_status check_size(const source *in) {
  if (in->node_count > 0 && in->nodes == NULL) return CVG_BAD_ARGUMENT;
  if (in->edge_count > 0 && in->edges == NULL) return CVG_BAD_ARGUMENT;
  if (in->node_count > CVG_NODES_MAX || in->edge_count > CVG_EDGES_MAX) return CVG_TOO_LARGE;
  return CVG_OK;
}

static int scope_valid(const source *in, size_t node) {
  uint32_t body = in->nodes[node].body, limit = in->nodes[node].max_iterations;
  if (body == 0) return limit == 0;
  return body < in->node_count - node && limit > 0 && limit <= CVG_ITERATIONS_MAX;
}

static cvg_status check_nodes(const source *in, cvg_fault *fault) {
  for (size_t i = 0; i < in->node_count; i++) {
    const cvg_node_spec *node = &in->nodes[i];
    if (node->on_error > CVG_ON_ERROR_ASK) return wrong_node(fault, CVG_BAD_ARGUMENT, i);
    int usable = node->on_error == CVG_ON_ERROR_FALLBACK
                     ? node->fallback < in->node_count && node->fallback != i
                     : node->fallback == CVG_NONE;
    if (!usable) return wrong_node(fault, CVG_BAD_FALLBACK, i);
    if (!scope_valid(in, i)) return wrong_node(fault, CVG_BAD_SCOPE, i);
  }
  return CVG_OK;
}

static cvg_status check_edges(const source *in, cvg_fault *fault) {
  for (size_t i = 0; i < in->edge_count; i++) {
    const cvg_edge_spec *edge = &in->edges[i];
    if (edge->from >= in->node_count || edge->to >= in->node_count) {
      return wrong_edge(fault, CVG_BAD_EDGE, i);
    }
  }
  return CVG_OK;
}

static uint32_t count_owners(const source *in) {
  uint32_t count = 0;
  for (size_t i = 0; i < in->node_count; i++) count += in->nodes[i].fallback != CVG_NONE;
  return count;
}

/* One block for the handle and its arrays, laid out by descending alignment. */
static cvg_graph *allocate_graph(const cvg_allocator *allocator, const source *in) {
  uint32_t owner_count = count_owners(in);
  size_t bytes = sizeof(cvg_graph);
  if (!cvgi_size_add(&bytes, in->node_count + 1, sizeof(cvgi_node)) ||
      !cvgi_size_add(&bytes, in->edge_count, sizeof(cvgi_edge)) ||
      !cvgi_size_add(&bytes, owner_count, sizeof(uint32_t))) {
    return NULL;
  }
  cvg_graph *graph = cvgi_allocate(allocator, 1, bytes);
  if (graph == NULL) return NULL;
  memset(graph, 0, bytes);
  graph->allocator = *allocator;
  graph->bytes = bytes;
  graph->node_count = (uint32_t)in->node_count;
  graph->edge_count = (uint32_t)in->edge_count;
  graph->owner_count = owner_count;
  graph->nodes = (cvgi_node *)(graph + 1);
  graph->edges = (cvgi_edge *)(graph->nodes + in->node_count + 1);
  graph->owners = (uint32_t *)(graph->edges + in->edge_count);
  return graph;
}

/* Counts in-edges, and per node what it has of each row: out_begin and owner_begin hold counts. */
static void count_rows(cvg_graph *graph, const source *in) {
  for (size_t i = 0; i < in->node_count; i++) {
    cvgi_node *node = &graph->nodes[i];
    node->on_error = (uint16_t)in->nodes[i].on_error;
    node->scope = CVG_NONE;
    node->body = in->nodes[i].body;
    node->max_iterations = (uint16_t)in->nodes[i].max_iterations;
    node->fallback = in->nodes[i].fallback;
    if (node->fallback == CVG_NONE) continue;
    graph->nodes[node->fallback].owner_begin++;
    graph->nodes[node->fallback].in_degree++;
  }
  for (size_t i = 0; i < in->edge_count; i++) {
    graph->nodes[in->edges[i].from].out_begin++;
    graph->nodes[in->edges[i].to].in_degree++;
  }
}

/* Turns counts into the ends of rows; filling backwards then moves each end to its begin. */
static void end_rows(cvg_graph *graph) {
  uint32_t out_end = 0, owner_end = 0;
  for (uint32_t i = 0; i <= graph->node_count; i++) {
    out_end += graph->nodes[i].out_begin;
    owner_end += graph->nodes[i].owner_begin;
    graph->nodes[i].out_begin = out_end;
    graph->nodes[i].owner_begin = owner_end;
  }
}

static void fill_rows(cvg_graph *graph, const source *in) {
  for (size_t i = in->edge_count; i > 0; i--) {
    const cvg_edge_spec *edge = &in->edges[i - 1];
    cvgi_edge *slot = &graph->edges[--graph->nodes[edge->from].out_begin];
    slot->to = edge->to;
    slot->port = edge->port;
  }
  for (uint32_t i = graph->node_count; i > 0; i--) {
    uint32_t fallback = graph->nodes[i - 1].fallback;
    if (fallback != CVG_NONE) graph->owners[--graph->nodes[fallback].owner_begin] = i - 1;
  }
}

/* Whether the body of `node` lies within that of `scope`. */
static int nested(const cvg_graph *graph, uint32_t node, uint32_t scope) {
  return scope == CVG_NONE || node + graph->nodes[node].body <= scope + graph->nodes[scope].body;
}

/* Bodies follow their scopes, so the scope of a node is the nearest one before it that reaches. */
static cvg_status set_scopes(cvg_graph *graph, cvg_fault *fault) {
  uint32_t scope = CVG_NONE;
  for (uint32_t i = 0; i < graph->node_count; i++) {
    cvgi_node *node = &graph->nodes[i];
    while (scope != CVG_NONE && i > scope + graph->nodes[scope].body) {
      scope = graph->nodes[scope].scope;
    }
    node->scope = scope;
    if (!nested(graph, i, scope)) return wrong_node(fault, CVG_BAD_SCOPE, i);
    if (node->body > 0) scope = i;
  }
  return CVG_OK;
}

/* Edges and fallbacks stay within a scope. */
static cvg_status check_borders(const cvg_graph *graph, const source *in, cvg_fault *fault) {
  for (uint32_t i = 0; i < graph->node_count; i++) {
    uint32_t fallback = graph->nodes[i].fallback;
    if (fallback == CVG_NONE || graph->nodes[fallback].scope == graph->nodes[i].scope) continue;
    return wrong_node(fault, CVG_BAD_SCOPE, i);
  }
  for (size_t i = 0; i < in->edge_count; i++) {
    const cvg_edge_spec *edge = &in->edges[i];
    if (graph->nodes[edge->from].scope == graph->nodes[edge->to].scope) continue;
    return wrong_edge(fault, CVG_BAD_SCOPE, i);
  }
  return CVG_OK;
}

static cvg_status set_needs(cvg_graph *graph, const source *in, cvg_fault *fault) {
  for (uint32_t i = 0; i < graph->node_count; i++) {
    cvgi_node *node = &graph->nodes[i];
    uint32_t join = in->nodes[i].join;
    if (join > node->in_degree) return wrong_node(fault, CVG_BAD_JOIN, i);
    node->need = join == 0 ? node->in_degree : join;
  }
  return CVG_OK;
}

static int edge_before(const void *context, const void *left, const void *right) {
  const cvgi_edge *a = left, *b = right;
  (void)context;
  return a->to != b->to ? a->to < b->to : a->port < b->port;
}

/* The index of the second edge that equals from -> edge; there is one. */
static size_t find_second(const source *in, uint32_t from, const cvgi_edge *edge) {
  size_t found = 0, i = 0;
  while (i < in->edge_count) {
    const cvg_edge_spec *spec = &in->edges[i];
    found += spec->from == from && spec->to == edge->to && spec->port == edge->port;
    if (found == 2) break;
    i++;
  }
  return i;
}

static cvg_status sort_rows(cvg_graph *graph, const source *in, cvg_fault *fault) {
  for (uint32_t i = 0; i < graph->node_count; i++) {
    cvgi_edge *row = graph->edges + graph->nodes[i].out_begin;
    uint32_t count = graph->nodes[i + 1].out_begin - graph->nodes[i].out_begin;
    cvgi_sort(row, count, sizeof *row, edge_before, NULL);
    for (uint32_t k = 1; k < count; k++) {
      if (edge_before(NULL, &row[k - 1], &row[k])) continue;
      return wrong_edge(fault, CVG_DUPLICATE_EDGE, find_second(in, i, &row[k]));
    }
  }
  return CVG_OK;
}

static cvg_status fill_graph(cvg_graph *graph, const source *in, cvg_fault *fault) {
  count_rows(graph, in);
  cvg_status status = CVG_OK;
  int has_scopes = 0;
  for (uint32_t i = 0; i < graph->node_count && !has_scopes; i++)
    has_scopes = in->nodes[i].body > 0;
  if (has_scopes) status = set_scopes(graph, fault);
  if (has_scopes && status == CVG_OK) status = check_borders(graph, in, fault);
  if (status == CVG_OK) status = set_needs(graph, in, fault);
  if (status != CVG_OK) return status;
  end_rows(graph);
  fill_rows(graph, in);
  status = sort_rows(graph, in, fault);
  if (status != CVG_OK) return status;
  uint32_t node = CVG_NONE;
  status = cvgi_find_cycle(graph, &node);
  return status == CVG_CYCLE ? wrong_node(fault, status, node) : status;
}

static cvg_status compile(const cvg_allocator *allocator, const source *in, cvg_graph **out,
                          cvg_fault *fault) {
  cvg_status status = check_size(in);
  if (status == CVG_OK) status = check_nodes(in, fault);
  if (status == CVG_OK) status = check_edges(in, fault);
  if (status != CVG_OK) return status;
  cvg_graph *graph = allocate_graph(allocator, in);
  if (graph == NULL) return CVG_NO_MEMORY;
  status = fill_graph(graph, in, fault);
  if (status == CVG_OK) {
    *out = graph;
  } else {
    cvg_graph_free(graph);
  }
  return status;
}

cvg_status cvg_graph_compile(const cvg_allocator *allocator, const cvg_node_spec *nodes,
                             size_t node_count, const cvg_edge_spec *edges, size_t edge_count,
                             cvg_graph **out, cvg_fault *fault) {
  cvg_fault unread;
  if (fault == NULL) fault = &unread;
  fault->node = CVG_NONE;
  fault->edge = CVG_NONE;
  if (!cvgi_allocator_valid(allocator) || out == NULL) return CVG_BAD_ARGUMENT;
  const source in = {nodes, node_count, edges, edge_count};
  return compile(allocator, &in, out, fault);
}

void cvg_graph_free(cvg_graph *graph) {
  if (graph == NULL) return;
  const cvg_allocator allocator = graph->allocator;
  cvgi_release(&allocator, graph, 1, graph->bytes);
}

uint32_t cvg_graph_node_count(const cvg_graph *graph) {
  return graph == NULL ? 0 : graph->node_count;
}

uint32_t cvg_graph_edge_count(const cvg_graph *graph) {
  return graph == NULL ? 0 : graph->edge_count;
}

cvg_status cvg_graph_hash(const cvg_graph *graph, uint64_t *out) {
  if (graph == NULL || out == NULL) return CVG_BAD_ARGUMENT;
  uint64_t hash = cvgi_hash_word(CVGI_HASH_START, graph->node_count);
  for (uint32_t i = 0; i < graph->node_count; i++) {
    const cvgi_node *node = &graph->nodes[i];
    const uint32_t words[] = {node[1].out_begin, node->need,           node->fallback,
                              node->body,        node->max_iterations, node->on_error};
    for (size_t k = 0; k < sizeof words / sizeof *words; k++) hash = cvgi_hash_word(hash, words[k]);
  }
  for (uint32_t i = 0; i < graph->edge_count; i++) {
    hash = cvgi_hash_word(hash, graph->edges[i].to);
    hash = cvgi_hash_word(hash, graph->edges[i].port);
  }
  *out = hash;
  return CVG_OK;
}
