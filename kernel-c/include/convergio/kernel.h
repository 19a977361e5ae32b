/*
** kernel.h: the deterministic core of Convergio.
**
** Four parts: a scheduler (which node of a graph runs next; here), a router (which model answers a
** request; router.h), tools (may a call be made, and what do the built-in ones answer; tools.h) and
** recall (what of a memory fits into a prompt; recall.h). This header includes the others. The same
** input always yields the same answer, in the same order, on every machine.
**
** Rules that hold for every function here:
** - Memory. Every byte comes from the caller's cvg_allocator. Nothing is global, nothing is static
**   and mutable. No input or output, no clock, no randomness, no recursion; nothing aborts.
** - Errors. A function that can fail returns a cvg_status. When it is not CVG_OK, every handle is
**   as it was before the call and no out-parameter has been written but `fault`, the delta, and the
**   `size` that a buffer would have needed.
** - Ownership. Arrays passed in are read during the call only and stay the caller's. A handle
**   written to `out` belongs to the caller, who gives it back with the matching _free function.
** - Threads. "Any thread" means: any thread, also at the same time as others. "One thread at a
**   time" means: the caller keeps other calls on that handle away; the thread itself may change.
** - Null. A null pointer where one is not allowed yields CVG_BAD_ARGUMENT; _free takes null.
**
** Some functions are for embedders alone: Convergio itself decides by its log and calls none of
** cvg_sched_iterate, _cancel, _save, _load and _hash, cvg_graph_hash, cvg_complexity (router.h) and
** cvg_memory_* (recall.h). They are tested and fuzzed as all others.
*/
#ifndef CONVERGIO_KERNEL_H
#define CONVERGIO_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Changes whenever a struct, a constant or a meaning in this file changes. */
#define CVG_ABI_VERSION 2u

/* "No node", "no edge", "no item", "no choice", "not measured": never a valid index. */
#define CVG_NONE 0xFFFFFFFFu

/* The port of an edge that is live whenever its source completes. */
#define CVG_PORT_ALWAYS 0xFFFFFFFFu

/* Limits. More is CVG_TOO_LARGE. */
#define CVG_NODES_MAX 16777216u
#define CVG_EDGES_MAX 268435456u
#define CVG_MAP_WIDTH_MAX 1048576u
#define CVG_ITERATIONS_MAX 65535u

/*
** {==================================================================
** Status
** ===================================================================
*/

typedef enum cvg_status {
  CVG_OK = 0,
  CVG_NO_MEMORY = 1,         /* the allocator returned null */
  CVG_BAD_ARGUMENT = 2,      /* a null pointer, or a value outside its enum or range */
  CVG_TOO_LARGE = 3,         /* more than a limit above */
  CVG_ABI_MISMATCH = 4,      /* caller and library were built from different headers */
  CVG_BAD_NODE = 5,          /* no node has this index */
  CVG_BAD_EDGE = 6,          /* an edge names a node that does not exist */
  CVG_DUPLICATE_EDGE = 7,    /* the same source, target and port twice */
  CVG_CYCLE = 8,             /* a node waits for itself */
  CVG_BAD_JOIN = 9,          /* a join asks for more in-edges than the node has */
  CVG_BAD_FALLBACK = 10,     /* the fallback is missing, unwanted, unknown or the node itself */
  CVG_NOT_READY = 11,        /* the node is not in flight */
  CVG_NOT_EXPANDED = 12,     /* the node has no items */
  CVG_ALREADY_EXPANDED = 13, /* the node has items: they complete it, one by one */
  CVG_ITEM_NOT_READY = 14,   /* the item is not in flight */
  CVG_RUN_ENDED = 15,        /* the run has failed: nothing more is started */
  CVG_BAD_STATE = 16,        /* the states given cannot come from a run of this graph */
  CVG_BAD_SCOPE = 17,        /* a body, or what crosses its border, is wrong; or there is no body */
  CVG_ITERATION_LIMIT = 18,  /* the scope may not be iterated once more */
  CVG_NOT_ASKING = 19,       /* the node asks nothing */
  CVG_BUFFER_TOO_SMALL = 20, /* the answer does not fit into the room given */
  CVG_BAD_BYTES = 21,        /* not bytes of this format, version and graph, or damaged */
  CVG_BAD_JSON = 22,         /* not JSON, or beyond the limits of the reader */
  CVG_BAD_SCHEMA = 23,       /* not a schema of the subset */
  CVG_MISMATCH = 24,         /* the arguments break the schema */
  CVG_DENIED = 25,           /* the permissions do not cover the call */
  CVG_UNKNOWN_TOOL = 26,     /* no built-in tool has this name */
  CVG_TOOL_FAILED = 27       /* the tool has no answer for these arguments */
} cvg_status;

/*
** What a status means, in English, without a final stop. Never null; an unknown value has a text
** too. The text is constant and lives as long as the program. Any thread.
*/
const char *cvg_status_text(cvg_status status);

/* Where a mistake lies: an index into the array that was given, or CVG_NONE. */
typedef struct cvg_fault {
  uint32_t node;
  uint32_t edge;
} cvg_fault;

/* }================================================================== */

/*
** {==================================================================
** Memory and ABI
** ===================================================================
*/

/*
** Where memory comes from. `allocate` returns `size` (> 0) bytes aligned for any object, or null.
** `release` takes a block back with the size it was asked with. Both must return normally (no
** longjmp, no unwinding). A handle keeps a copy of this struct; `context` must outlive the handle,
** and both functions are called on whatever thread calls the kernel.
*/
typedef struct cvg_allocator {
  void *(*allocate)(void *context, size_t size);
  void (*release)(void *context, void *block, size_t size);
  void *context;
} cvg_allocator;

/* Bytes, not terminated; `bytes` may be null when `size` is 0. */
typedef struct cvg_text {
  const char *bytes;
  size_t size;
} cvg_text;

/* What the caller was compiled against; fill it with CVG_ABI_OF_CALLER. */
typedef struct cvg_abi {
  uint32_t version;
  uint32_t allocator_size;
  uint32_t node_spec_size;
  uint32_t edge_spec_size;
  uint32_t node_state_size;
  uint32_t delta_view_size;
  uint32_t candidate_size;
  uint32_t route_request_size;
  uint32_t decision_size;
  uint32_t features_size;
  uint32_t text_size;
  uint32_t violation_size;
  uint32_t permission_size;
  uint32_t tool_size;
  uint32_t memory_item_size;
  uint32_t query_size;
  uint32_t weights_size;
  uint32_t recalled_size;
} cvg_abi;

/* clang-format off */
#define CVG_ABI_OF_CALLER \
  { CVG_ABI_VERSION, (uint32_t)sizeof(cvg_allocator), (uint32_t)sizeof(cvg_node_spec), \
    (uint32_t)sizeof(cvg_edge_spec), (uint32_t)sizeof(cvg_node_state), \
    (uint32_t)sizeof(cvg_delta_view), (uint32_t)sizeof(cvg_candidate), \
    (uint32_t)sizeof(cvg_route_request), (uint32_t)sizeof(cvg_decision), \
    (uint32_t)sizeof(cvg_features), (uint32_t)sizeof(cvg_text), \
    (uint32_t)sizeof(cvg_violation), (uint32_t)sizeof(cvg_permission), \
    (uint32_t)sizeof(cvg_tool), (uint32_t)sizeof(cvg_memory_item), \
    (uint32_t)sizeof(cvg_query), (uint32_t)sizeof(cvg_weights), \
    (uint32_t)sizeof(cvg_recalled) }
/* clang-format on */

/* The CVG_ABI_VERSION that the library was built with. Any thread. */
uint32_t cvg_abi_version(void);

/*
** CVG_OK when caller and library agree on version and struct sizes, else CVG_ABI_MISMATCH. `size`
** is sizeof(cvg_abi) as the caller knows it. Call it once before anything else. Any thread.
*/
cvg_status cvg_abi_check(const cvg_abi *caller, size_t size);

/* }================================================================== */

/*
** {==================================================================
** Graph
** ===================================================================
**
** A graph is nodes and edges between them. It is compiled once and never changes.
**
** Whether an edge is live, dead or unresolved follows from its source:
** - source PENDING or READY: unresolved;
** - source DONE with a choice: live if the port is CVG_PORT_ALWAYS or equals the choice, else dead;
** - source SKIPPED, or FAILED with CVG_ON_ERROR_SKIP: dead;
** - source FAILED with CVG_ON_ERROR_FALLBACK: unresolved until the fallback is resolved. If the
**   fallback delivers, the CVG_PORT_ALWAYS edges are live and the others dead; if it does not, all
**   are dead. A fallback that fails over to a fallback of its own delivers if that one delivers.
**
** A node with a fallback has one more edge, to that fallback: live if the node fails, dead if it
** is done or skipped. It counts among the fallback's in-edges like any other.
**
** A node becomes READY as soon as `join` of its in-edges are live (0: all of them; a node without
** in-edges at once) and SKIPPED as soon as that can no longer happen. Nothing takes that back.
**
** A node with a body is a scope: a sub-graph (one iteration) or a bounded loop (several). Its body
** is the `body` nodes that follow it in the array, and may hold scopes in turn. Edges and fallbacks
** join nodes of the same scope only. A READY scope is idle until cvg_sched_iterate starts its body
** afresh; when every member is resolved it is idle again, and the caller completes it or iterates
** once more. A failure that nothing in the body catches fails the scope; members still in flight
** are then CANCELLED.
*/

typedef struct cvg_graph cvg_graph;

/* What the failure of a node does. */
enum cvg_on_error {
  CVG_ON_ERROR_FAIL = 0,     /* the scope, or else the run, fails; nothing more becomes ready */
  CVG_ON_ERROR_SKIP = 1,     /* the run goes on without what hangs on the node */
  CVG_ON_ERROR_FALLBACK = 2, /* another node stands in for it */
  CVG_ON_ERROR_ASK = 3       /* it is ASKING until cvg_sched_answer decides; the rest goes on */
};

typedef struct cvg_node_spec {
  uint32_t join;           /* live in-edges needed; 0 = all */
  uint32_t on_error;       /* enum cvg_on_error */
  uint32_t fallback;       /* node index with CVG_ON_ERROR_FALLBACK, else CVG_NONE */
  uint32_t body;           /* how many of the following nodes are its body; 0 = not a scope */
  uint32_t max_iterations; /* of a scope: 1 to CVG_ITERATIONS_MAX; else 0 */
} cvg_node_spec;

typedef struct cvg_edge_spec {
  uint32_t from; /* node index */
  uint32_t to;   /* node index */
  uint32_t port; /* CVG_PORT_ALWAYS, or the choice of `from` that makes the edge live */
} cvg_edge_spec;

/*
** Checks and compiles a graph. `nodes` and `edges` may be null when their count is 0. A cycle is
** also one that closes only through fallbacks, since what hangs on a node waits for its fallback.
** On error `fault` (may be null) names the first wrong node or edge. Any thread.
** Graph, scheduler and delta together take at most 64 bytes a node, 8 an edge, 1024 in all and
** what the maps in flight need.
** Errors: BAD_ARGUMENT, TOO_LARGE, NO_MEMORY, BAD_EDGE, DUPLICATE_EDGE, CYCLE, BAD_JOIN,
** BAD_FALLBACK, BAD_SCOPE.
*/
cvg_status cvg_graph_compile(const cvg_allocator *allocator, const cvg_node_spec *nodes,
                             size_t node_count, const cvg_edge_spec *edges, size_t edge_count,
                             cvg_graph **out, cvg_fault *fault);

/* Frees a graph. No scheduler that was started on it may be in use any more. One thread. */
void cvg_graph_free(cvg_graph *graph);

/* Number of nodes; 0 for null. Any thread. */
uint32_t cvg_graph_node_count(const cvg_graph *graph);

/* Number of edges as given, without those to fallbacks; 0 for null. Any thread. */
uint32_t cvg_graph_edge_count(const cvg_graph *graph);

/*
** Writes a 64-bit hash of everything that was compiled; the same on every machine. Not meant to
** withstand forgery. Any thread. Errors: BAD_ARGUMENT.
*/
cvg_status cvg_graph_hash(const cvg_graph *graph, uint64_t *out);

/* }================================================================== */

/*
** {==================================================================
** Delta: what one scheduler call changed
** ===================================================================
*/

typedef struct cvg_delta cvg_delta;

enum cvg_run_result {
  CVG_RUN_RUNNING = 0,
  CVG_RUN_SUCCEEDED = 1,
  CVG_RUN_FAILED = 2,
  CVG_RUN_CANCELLED = 3
};

/* A node, or one item of a map, that is to be started now; or a scope that is idle again. */
typedef struct cvg_ready {
  uint32_t node;
  uint32_t item; /* CVG_NONE for the node itself; of a scope: the iteration, from 0, that is over */
} cvg_ready;

/* All lists ascend by node, then item. */
typedef struct cvg_delta_view {
  const cvg_ready *ready;
  size_t ready_count;
  const uint32_t *skipped; /* node indices */
  size_t skipped_count;
  const uint32_t *cancelled; /* node indices: they were in flight and are to be stopped */
  size_t cancelled_count;
  uint32_t asking; /* the node that has failed and asks what to do, or CVG_NONE */
  uint32_t result; /* enum cvg_run_result, of the run as a whole */
} cvg_delta_view;

/*
** Creates an empty delta. One delta may serve any number of schedulers in turn; it grows to the
** largest graph and then allocates no more. Any thread. Errors: BAD_ARGUMENT, NO_MEMORY.
*/
cvg_status cvg_delta_new(const cvg_allocator *allocator, cvg_delta **out);

/* Frees a delta. One thread at a time. */
void cvg_delta_free(cvg_delta *delta);

/*
** What the last call that was given this delta changed; nothing if that call failed. The arrays
** belong to the delta and hold until it is next passed to a scheduler call or freed. Any thread.
*/
cvg_status cvg_delta_read(const cvg_delta *delta, cvg_delta_view *out);

/* }================================================================== */

/*
** {==================================================================
** Scheduler: where one run of a graph stands
** ===================================================================
*/

typedef struct cvg_sched cvg_sched;

enum cvg_node_status {
  CVG_NODE_PENDING = 0,
  CVG_NODE_READY = 1, /* in flight: told to start, not yet resolved */
  CVG_NODE_DONE = 2,
  CVG_NODE_FAILED = 3,
  CVG_NODE_SKIPPED = 4,
  CVG_NODE_ASKING = 5,   /* failed, and not yet decided; counts as in flight */
  CVG_NODE_CANCELLED = 6 /* was in flight when its scope failed or the run was cancelled */
};

enum cvg_outcome_kind { CVG_OUTCOME_DONE = 0, CVG_OUTCOME_FAILED = 1 };

typedef struct cvg_outcome {
  uint32_t kind;   /* enum cvg_outcome_kind */
  uint32_t choice; /* with CVG_OUTCOME_DONE of a node: the port taken, or CVG_NONE */
} cvg_outcome;

enum cvg_answer {
  CVG_ANSWER_RETRY = 0, /* the node is READY again */
  CVG_ANSWER_SKIP = 1,  /* the node is SKIPPED: the run goes on without what hangs on it */
  CVG_ANSWER_FAIL = 2   /* as with CVG_ON_ERROR_FAIL */
};

enum cvg_item_state { CVG_ITEM_WAITING = 0, CVG_ITEM_READY = 1, CVG_ITEM_DONE = 2 };

/* A node as the log knows it. `max_parallel` > 0 marks a READY node that is an expanded map. */
typedef struct cvg_node_state {
  uint32_t status;       /* enum cvg_node_status; PENDING when the log does not speak of the node */
  uint32_t choice;       /* of a DONE node, or CVG_NONE */
  uint32_t max_parallel; /* of a map, else 0 */
  uint32_t width;        /* of a map, else 0 */
  uint32_t iterations;   /* of a scope: how many were begun, else 0 */
  uint32_t iterating;    /* of a READY scope: 1 if the last one is not over, else 0 */
  const uint8_t *items;  /* `width` values of enum cvg_item_state; may be null when width is 0 */
} cvg_node_state;

/*
** Starts a run: the delta holds the nodes without in-edges. The scheduler refers to `graph`, which
** must outlive it. Any thread. Errors: BAD_ARGUMENT, NO_MEMORY.
*/
cvg_status cvg_sched_start(const cvg_graph *graph, const cvg_allocator *allocator, cvg_sched **out,
                           cvg_delta *delta);

/*
** Rebuilds a scheduler from the states of all nodes (`state_count` = node count). From there on it
** answers as one that has lived through the run. The delta holds what the states imply but do not
** say: nodes and items that should be ready, nodes that should be skipped; normally nothing. Items
** in flight or done must precede all that wait, since that is the order in which they start.
** On error `fault` (may be null) names the node. Any thread.
** Errors: BAD_ARGUMENT, TOO_LARGE, NO_MEMORY, BAD_STATE.
*/
cvg_status cvg_sched_restore(const cvg_graph *graph, const cvg_allocator *allocator,
                             const cvg_node_state *states, size_t state_count, cvg_sched **out,
                             cvg_delta *delta, cvg_fault *fault);

/*
** Writes the state as bytes that cvg_sched_load reads: a header with format version and the graph's
** hash, the nodes, a checksum. Equal states have equal bytes, on every machine. `size` gets the
** bytes needed also when `room` is too small (then `bytes`, which may be null, is not written).
** Any thread, while nobody changes `sched`. Errors: BAD_ARGUMENT, BUFFER_TOO_SMALL.
*/
cvg_status cvg_sched_save(const cvg_sched *sched, uint8_t *bytes, size_t room, size_t *size);

/*
** Reads what cvg_sched_save wrote for the same graph. Checks as cvg_sched_restore does, and needs
** up to 32 bytes a node and 8 a byte read while it works. The delta is empty afterwards.
** Errors: BAD_ARGUMENT, NO_MEMORY, BAD_BYTES, BAD_STATE.
*/
cvg_status cvg_sched_load(const cvg_graph *graph, const cvg_allocator *allocator,
                          const uint8_t *bytes, size_t size, cvg_sched **out, cvg_delta *delta,
                          cvg_fault *fault);

/*
** Writes a 64-bit hash of the state and its graph: equal for equal states, on every machine. Not
** meant to withstand forgery. Any thread, while nobody changes `sched`. Errors: BAD_ARGUMENT.
*/
cvg_status cvg_sched_hash(const cvg_sched *sched, uint64_t *out);

/*
** Copies a scheduler; the copy refers to the same graph and allocator and is independent from then
** on. Any thread, while nobody changes `sched`. Errors: BAD_ARGUMENT, NO_MEMORY.
*/
cvg_status cvg_sched_clone(const cvg_sched *sched, cvg_sched **out);

/* Frees a scheduler, not its graph. One thread at a time. */
void cvg_sched_free(cvg_sched *sched);

/*
** Records how a READY node ended. A map, and a scope that iterates, can be failed as a whole but is
** done only by its items or once it is idle. Once the run has failed, outcomes of nodes in flight
*are recorded and start nothing. Costs
** O(edges resolved). One thread at a time.
** Errors: BAD_ARGUMENT, BAD_NODE, NOT_READY, ALREADY_EXPANDED, NO_MEMORY.
*/
cvg_status cvg_sched_complete(cvg_sched *sched, uint32_t node, cvg_outcome outcome,
                              cvg_delta *delta);

/*
** Turns a READY node into a map of `width` items, of which at most `max_parallel` (> 0) are in
** flight at once; the delta holds the first ones. Width 0 completes the node. One thread at a time.
** Errors: BAD_ARGUMENT, TOO_LARGE, BAD_NODE, NOT_READY, ALREADY_EXPANDED, RUN_ENDED, NO_MEMORY.
*/
cvg_status cvg_sched_expand(cvg_sched *sched, uint32_t node, uint32_t width, uint32_t max_parallel,
                            cvg_delta *delta);

/*
** Records how an item in flight ended (its choice means nothing). A done item lets the next one
** start; the last one completes the node. A failed item fails the node, and its siblings, in
** flight or waiting, no longer count. One thread at a time.
** Errors: BAD_ARGUMENT, BAD_NODE, NOT_READY, NOT_EXPANDED, ITEM_NOT_READY, NO_MEMORY.
*/
cvg_status cvg_sched_complete_item(cvg_sched *sched, uint32_t node, uint32_t item,
                                   cvg_outcome outcome, cvg_delta *delta);

/*
** Starts an idle scope's body afresh; the delta holds its first members. Costs O(body). One thread
** at a time. Errors: BAD_ARGUMENT, BAD_NODE, NOT_READY, BAD_SCOPE (not a scope), ALREADY_EXPANDED
** (it iterates), ITERATION_LIMIT, RUN_ENDED, NO_MEMORY.
*/
cvg_status cvg_sched_iterate(cvg_sched *sched, uint32_t node, cvg_delta *delta);

/*
** Decides what becomes of an ASKING node: an enum cvg_answer. One thread at a time.
** Errors: BAD_ARGUMENT, BAD_NODE, NOT_ASKING, RUN_ENDED, NO_MEMORY.
*/
cvg_status cvg_sched_answer(cvg_sched *sched, uint32_t node, uint32_t answer, cvg_delta *delta);

/*
** Ends a run that is RUNNING: whatever is in flight is CANCELLED and nothing more starts. Costs
** O(nodes). One thread at a time. Errors: BAD_ARGUMENT, RUN_ENDED, NO_MEMORY.
*/
cvg_status cvg_sched_cancel(cvg_sched *sched, cvg_delta *delta);

/*
** Writes the enum cvg_node_status of a node to `out`. Any thread, while nobody changes `sched`.
** Errors: BAD_ARGUMENT, BAD_NODE.
*/
cvg_status cvg_sched_node_status(const cvg_sched *sched, uint32_t node, uint32_t *out);

/*
** Writes the enum cvg_run_result of the run to `out`: FAILED from the first failure that nothing
** catches, SUCCEEDED once every node outside of scopes is DONE, FAILED or SKIPPED. Any thread,
*while nobody changes
** `sched`. Errors: BAD_ARGUMENT.
*/
cvg_status cvg_sched_result(const cvg_sched *sched, uint32_t *out);

/* }================================================================== */

#ifdef __cplusplus
}
#endif

#include "recall.h"
#include "router.h"
#include "tools.h"

#endif
