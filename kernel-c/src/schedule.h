/*
** schedule.h: where one run of a graph stands, and the moves that change it.
*/
#ifndef CVG_SCHEDULE_H
#define CVG_SCHEDULE_H

#include "delta.h"
#include "graph.h"
#include "map.h"

/* The out-edges are, or are about to be, resolved for good. */
#define CVGI_SETTLED 1u
/* The out-edges that match the choice are live; without it all are dead. */
#define CVGI_DELIVERED 2u

typedef struct cvgi_run_node {
  uint32_t live;       /* in-edges known to be live */
  uint32_t unresolved; /* in-edges not known yet */
  uint32_t choice;     /* once done */
  uint32_t map;        /* slot of an expanded map in flight, else CVG_NONE */
  uint8_t status;      /* enum cvg_node_status */
  uint8_t flags;
} cvgi_run_node;

struct cvg_sched {
  const cvg_graph *graph;
  cvg_allocator allocator;
  cvgi_map_table maps;
  uint32_t open;   /* nodes PENDING or READY */
  uint32_t failed; /* whether a failure has ended the run */
  cvgi_run_node nodes[];
};

/* A scheduler whose nodes are all PENDING, with room for `map_room` maps; null without memory. */
cvg_sched *cvgi_sched_new(const cvg_graph *graph, const cvg_allocator *allocator,
                          uint32_t map_room);

/* How the run stands: enum cvg_run_result. */
uint32_t cvgi_sched_result(const cvg_sched *sched);

/* Makes a PENDING node ready or skipped if its in-edges say so. Nothing once the run has failed. */
void cvgi_judge(cvg_sched *sched, uint32_t node, cvg_delta *delta);

/* The map of an expanded node in flight. */
cvgi_map *cvgi_map_of(const cvg_sched *sched, uint32_t node);

/* Starts as many of its items as may be in flight. Nothing once the run has failed. */
void cvgi_emit_items(cvg_sched *sched, uint32_t node, cvg_delta *delta);

/* Ends a node in flight and drops its map. */
void cvgi_finish_done(cvg_sched *sched, uint32_t node, uint32_t choice, cvg_delta *delta);
void cvgi_finish_failed(cvg_sched *sched, uint32_t node, cvg_delta *delta);

/* Tells the neighbours of a node that is DONE, FAILED or SKIPPED. Settling follows. */
void cvgi_announce(cvg_sched *sched, uint32_t node, cvg_delta *delta);

/* Settles all that is queued, and what that brings about. */
void cvgi_settle_all(cvg_sched *sched, cvg_delta *delta);

#endif
