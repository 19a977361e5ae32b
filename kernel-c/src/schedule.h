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
/* The node is READY and was expanded: `value` is the slot of its map. */
#define CVGI_EXPANDED 4u
/* The scope is READY and its body runs: `value` counts the direct members not yet resolved. */
#define CVGI_ITERATING 8u
/* The node was skipped by the call that goes on. */
#define CVGI_JUST_SKIPPED 16u

typedef struct cvgi_run_node {
  uint32_t missing;    /* in-edges that must still become live for it to be ready */
  uint32_t unresolved; /* in-edges not known yet */
  uint32_t value;      /* of a DONE node its choice; else what the flags say, or CVG_NONE */
  uint8_t status;      /* enum cvg_node_status */
  uint8_t flags;
  uint16_t iterations; /* of a scope: how many were begun */
} cvgi_run_node;

struct cvg_sched {
  const cvg_graph *graph;
  cvg_allocator allocator;
  cvgi_map_table maps;
  uint32_t open;  /* nodes outside of scopes that are not resolved */
  uint32_t ended; /* CVG_RUN_FAILED or CVG_RUN_CANCELLED once that is so, else 0 */
  cvgi_run_node nodes[];
};

/* A scheduler whose nodes are all PENDING, with room for `map_room` maps; null without memory. */
cvg_sched *cvgi_sched_new(const cvg_graph *graph, const cvg_allocator *allocator,
                          uint32_t map_room);

/* What cvg_sched_restore does once its arguments are checked; `fault` is not null. */
cvg_status cvgi_restore(const cvg_graph *graph, const cvg_allocator *allocator,
                        const cvg_node_state *states, cvg_sched **out, cvg_delta *delta,
                        cvg_fault *fault);

/* Makes a node as it is before it runs. It has no map. */
void cvgi_reset_node(cvg_sched *sched, uint32_t node);

/* How the run stands: enum cvg_run_result. */
uint32_t cvgi_sched_result(const cvg_sched *sched);

unsigned cvgi_has(const cvg_sched *sched, uint32_t node, unsigned flag);

/* READY or ASKING. */
int cvgi_in_flight(const cvg_sched *sched, uint32_t node);

/* DONE, FAILED, SKIPPED or CANCELLED. */
int cvgi_status_resolved(uint32_t status);

/* Makes a PENDING node ready or skipped if its in-edges say so and its scope runs. */
void cvgi_judge(cvg_sched *sched, uint32_t node, cvg_delta *delta);

/* The map of an expanded node in flight. */
cvgi_map *cvgi_map_of(const cvg_sched *sched, uint32_t node);

/* Starts as many of its items as may be in flight. Nothing once the run has ended. */
void cvgi_emit_items(cvg_sched *sched, uint32_t node, cvg_delta *delta);

/* Reports a scope whose members are all resolved as idle, unless the run has ended. */
void cvgi_end_iteration(cvg_sched *sched, uint32_t scope, cvg_delta *delta);

/* End a node in flight, drop its map, and stop what runs in its body. */
void cvgi_finish_done(cvg_sched *sched, uint32_t node, uint32_t choice, cvg_delta *delta);
void cvgi_finish_failed(cvg_sched *sched, uint32_t node, cvg_delta *delta);

/* Ends an ASKING node for good. */
void cvgi_give_up(cvg_sched *sched, uint32_t node, cvg_delta *delta);
void cvgi_skip(cvg_sched *sched, uint32_t node, cvg_delta *delta);

/* Cancels the nodes in flight among [begin, end). */
void cvgi_cancel_range(cvg_sched *sched, uint32_t begin, uint32_t end, cvg_delta *delta);

/* Tells the neighbours of a node that is DONE, FAILED or SKIPPED. Settling follows. */
void cvgi_announce(cvg_sched *sched, uint32_t node, cvg_delta *delta);

/* Settles all that is queued, and what that brings about. */
void cvgi_settle_all(cvg_sched *sched, cvg_delta *delta);

/* The same, and completes the delta. */
void cvgi_finish_call(cvg_sched *sched, cvg_delta *delta);

#endif
