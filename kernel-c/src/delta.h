/*
** delta.h: what one scheduler call changed, and the list of nodes it has still to settle.
*/
#ifndef CVG_DELTA_H
#define CVG_DELTA_H

#include "convergio/kernel.h"

/*
** Room is made before a call changes anything, so that no call can run out of memory halfway. In
** one call a node settles at most once, and is told to start or cancelled at most once. So what is
** cancelled is kept, from the end backwards, in the block of what is ready; and what was skipped
** has settled too, and is kept in the block of what settled once that has been gone through.
*/
struct cvg_delta {
  cvg_allocator allocator;
  cvg_ready *ready;
  uint32_t *settling; /* a queue: [settled_count, settling_count) is still to do */
  size_t ready_room;
  size_t node_room; /* of settling */
  size_t ready_count;
  size_t cancelled_count;
  size_t skipped_count;
  size_t settling_count;
  size_t settled_count;
  uint32_t asking;
  uint32_t result;
};

/* Empties the delta. */
void cvgi_delta_clear(cvg_delta *delta);

/* Makes room for a graph of `nodes` nodes and `items` ready items besides. The delta is empty. */
cvg_status cvgi_delta_reserve(cvg_delta *delta, size_t nodes, size_t items);

/* Notes something to be started or stopped, or a node to settle. There is room. */
void cvgi_delta_ready(cvg_delta *delta, uint32_t node, uint32_t item);
void cvgi_delta_cancelled(cvg_delta *delta, uint32_t node);
void cvgi_delta_settling(cvg_delta *delta, uint32_t node);

/* The next node to settle, or CVG_NONE. */
uint32_t cvgi_delta_next(cvg_delta *delta);

/* Notes a node that was skipped; its entry among the settled ones has been read. */
void cvgi_delta_skipped(cvg_delta *delta, uint32_t node);

/* Puts the lists in order and sets the result. */
void cvgi_delta_finish(cvg_delta *delta, uint32_t result);

#endif
