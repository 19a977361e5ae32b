/*
** cycle.c: finds a node that would wait for itself.
**
** Each node is two events: it starts, and it settles (its out-edges are resolved for good). A node
** settles after it starts and, if it has a fallback, after that one settles. So the order in which
** things can happen is a graph of events, and the search is a depth-first walk over it:
**   start(u)  -> settle(u), start(fallback of u)
**   settle(u) -> start(v) for each edge u -> v, settle(p) for each p whose fallback is u
** Whether all can happen is told by letting them happen, which is quick; only if they cannot, the
** walk finds out why.
*/
#include <string.h>

#include "graph.h"
#include "memory.h"

enum colour { UNSEEN = 0, ON_PATH = 1, FINISHED = 2 };

/* `path` is the walk from the root to here; `next[e]` the successor of e to look at next. */
typedef struct walk {
  const cvg_graph *graph;
  uint32_t *path;
  uint32_t *next;
  unsigned char *colours;
  uint32_t depth;
} walk;

static uint32_t start_of(uint32_t node) {
  return 2 * node;
}

static uint32_t settle_of(uint32_t node) {
  return 2 * node + 1;
}

static uint32_t node_of(uint32_t event) {
  return event / 2;
}

/* The index-th event that must wait for `event`, or CVG_NONE behind the last. */
static uint32_t successor(const cvg_graph *graph, uint32_t event, uint32_t index) {
  uint32_t u = node_of(event);
  const cvgi_node *node = &graph->nodes[u];
  if (event == start_of(u)) {
    if (index == 0) return settle_of(u);
    return index == 1 && node->fallback != CVG_NONE ? start_of(node->fallback) : CVG_NONE;
  }
  uint32_t out_count = node[1].out_begin - node->out_begin;
  if (index < out_count) return start_of(graph->edges[node->out_begin + index].to);
  index -= out_count;
  if (index < node[1].owner_begin - node->owner_begin) {
    return settle_of(graph->owners[node->owner_begin + index]);
  }
  return CVG_NONE;
}

static void enter(walk *w, uint32_t event) {
  w->colours[event] = ON_PATH;
  w->next[event] = 0;
  w->path[w->depth++] = event;
}

/* Walks everything behind `root`; returns an event that follows itself, or CVG_NONE. */
static uint32_t search(walk *w, uint32_t root) {
  if (w->colours[root] == UNSEEN) enter(w, root);
  while (w->depth > 0) {
    uint32_t event = w->path[w->depth - 1];
    uint32_t following = successor(w->graph, event, w->next[event]++);
    if (following == CVG_NONE) {
      w->colours[event] = FINISHED;
      w->depth--;
    } else if (w->colours[following] == ON_PATH) {
      return following;
    } else if (w->colours[following] == UNSEEN) {
      enter(w, following);
    }
  }
  return CVG_NONE;
}

static uint32_t search_all(walk *w) {
  uint32_t found = CVG_NONE;
  memset(w->colours, UNSEEN, 2 * (size_t)w->graph->node_count);
  for (uint32_t i = 0; i < w->graph->node_count && found == CVG_NONE; i++) {
    found = search(w, start_of(i));
  }
  return found;
}

enum progress { NOT_STARTED = 0, STARTED = 1, SETTLED = 2 };

/* Events that can happen, in order; `waits[u]` is what start(u) still waits for. */
typedef struct rehearsal {
  const cvg_graph *graph;
  uint32_t *events;
  uint32_t *waits;
  unsigned char *progress; /* of each node: enum progress */
  size_t event_count;
} rehearsal;

static void happen(rehearsal *r, uint32_t event) {
  r->events[r->event_count++] = event;
}

static void one_less(rehearsal *r, uint32_t node) {
  if (--r->waits[node] == 0) happen(r, start_of(node));
}

static void pass_start(rehearsal *r, uint32_t node) {
  uint32_t fallback = r->graph->nodes[node].fallback;
  r->progress[node] = STARTED;
  if (fallback != CVG_NONE) one_less(r, fallback);
  if (fallback == CVG_NONE || r->progress[fallback] == SETTLED) happen(r, settle_of(node));
}

static void pass_settle(rehearsal *r, uint32_t node) {
  const cvgi_node *spec = &r->graph->nodes[node];
  r->progress[node] = SETTLED;
  for (uint32_t i = spec->out_begin; i < spec[1].out_begin; i++) one_less(r, r->graph->edges[i].to);
  for (uint32_t i = spec->owner_begin; i < spec[1].owner_begin; i++) {
    uint32_t owner = r->graph->owners[i];
    if (r->progress[owner] == STARTED) happen(r, settle_of(owner));
  }
}

/* Whether every event can happen. */
static int rehearse(rehearsal *r) {
  memset(r->progress, NOT_STARTED, r->graph->node_count);
  for (uint32_t i = 0; i < r->graph->node_count; i++) {
    r->waits[i] = r->graph->nodes[i].in_degree;
    if (r->waits[i] == 0) happen(r, start_of(i));
  }
  for (size_t i = 0; i < r->event_count; i++) {
    uint32_t node = node_of(r->events[i]);
    if (r->events[i] == start_of(node)) {
      pass_start(r, node);
    } else {
      pass_settle(r, node);
    }
  }
  return r->event_count == 2 * (size_t)r->graph->node_count;
}

cvg_status cvgi_find_cycle(const cvg_graph *graph, uint32_t *node) {
  if (graph->node_count == 0) return CVG_OK;
  size_t events = 2 * (size_t)graph->node_count;
  size_t event_bytes = 2 * sizeof(uint32_t) + 1;
  uint32_t *scratch = cvgi_allocate(&graph->allocator, events, event_bytes);
  if (scratch == NULL) return CVG_NO_MEMORY;
  unsigned char *bytes = (unsigned char *)(scratch + 2 * events);
  rehearsal r = {graph, scratch, scratch + events, bytes, 0};
  cvg_status status = CVG_OK;
  if (!rehearse(&r)) {
    walk w = {graph, scratch, scratch + events, bytes, 0};
    *node = node_of(search_all(&w));
    status = CVG_CYCLE;
  }
  cvgi_release(&graph->allocator, scratch, events, event_bytes);
  return status;
}
