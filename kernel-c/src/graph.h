/*
** graph.h: the compiled graph, as arrays in compressed sparse rows (CSR).
*/
#ifndef CVG_GRAPH_H
#define CVG_GRAPH_H

#include "convergio/kernel.h"

/*
** One node. Its out-edges are edges[out_begin .. next node's out_begin); the nodes that have it as
** their fallback ("owners") are owners[owner_begin .. next node's owner_begin). One entry behind
** the last node holds the two ends.
*/
typedef struct cvgi_node {
  uint32_t out_begin;
  uint32_t owner_begin;
  uint32_t in_degree; /* with the edges from its owners */
  uint32_t need;      /* live in-edges that make it ready */
  uint32_t fallback;  /* CVG_NONE unless on_error is CVG_ON_ERROR_FALLBACK */
  uint32_t scope;     /* the scope it is a member of, or CVG_NONE */
  uint32_t body;      /* how many of the following nodes are its body */
  uint16_t max_iterations;
  uint16_t on_error;
} cvgi_node;

typedef struct cvgi_edge {
  uint32_t to;
  uint32_t port;
} cvgi_edge;

/* Handle and arrays are one block of `bytes`. */
struct cvg_graph {
  cvg_allocator allocator;
  size_t bytes;
  uint32_t node_count;
  uint32_t edge_count;
  uint32_t owner_count;
  cvgi_node *nodes;
  cvgi_edge *edges; /* of each node ascending by target, then port */
  uint32_t *owners; /* of each node ascending */
};

/* CVG_CYCLE and a node on a cycle, CVG_NO_MEMORY, or CVG_OK. */
cvg_status cvgi_find_cycle(const cvg_graph *graph, uint32_t *node);

#endif
