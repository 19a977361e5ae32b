/*
** check.h: a tiny test harness, a heap that can fail, and a run to play with.
*/
#ifndef CVG_CHECK_H
#define CVG_CHECK_H

#include "convergio/kernel.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Notes a failure and goes on, so that one test shows all that is wrong with it. */
#define CHECK(condition) check_true((condition) ? 1 : 0, #condition, __FILE__, __LINE__)
#define CHECK_STATUS(actual, wanted) check_status(actual, wanted, #actual, __FILE__, __LINE__)
#define CHECK_TEXT(actual, wanted) check_text(actual, wanted, #actual, __FILE__, __LINE__)

void check_true(int holds, const char *what, const char *file, int line);
void check_status(cvg_status actual, cvg_status wanted, const char *what, const char *file,
                  int line);
void check_text(const char *actual, const char *wanted, const char *what, const char *file,
                int line);

typedef struct test_case {
  const char *name;
  void (*run)(void);
} test_case;

/* Each list ends with a null name. */
extern const test_case abi_tests[];
extern const test_case graph_tests[];
extern const test_case schedule_tests[];
extern const test_case map_tests[];
extern const test_case restore_tests[];
extern const test_case memory_tests[];
extern const test_case scope_tests[];
extern const test_case save_tests[];
extern const test_case route_tests[];

/* Counts what is lent out; refuses once `grants` blocks have been granted. */
typedef struct test_heap {
  size_t grants;
  size_t lent_blocks;
  size_t lent_bytes;
} test_heap;

#define UNLIMITED ((size_t)-1)

cvg_allocator heap_allocator(test_heap *heap);

/* A graph, a run of it and the delta of its last call. */
typedef struct fixture {
  test_heap heap;
  cvg_allocator allocator;
  cvg_graph *graph;
  cvg_sched *sched;
  cvg_delta *delta;
  char text[512];
} fixture;

/* A node with a join and a failure policy; the third argument of FALLBACK is an index. */
#define NODE(join) \
  { join, CVG_ON_ERROR_FAIL, CVG_NONE, 0, 0 }
#define SKIPPING(join) \
  { join, CVG_ON_ERROR_SKIP, CVG_NONE, 0, 0 }
#define FALLBACK(join, node) \
  { join, CVG_ON_ERROR_FALLBACK, node, 0, 0 }
#define ASKING(join) \
  { join, CVG_ON_ERROR_ASK, CVG_NONE, 0, 0 }
#define SCOPE(on_error, body, max_iterations) \
  { 0, on_error, CVG_NONE, body, max_iterations }
#define EDGE(from, to) \
  { from, to, CVG_PORT_ALWAYS }

/* Compiles and starts; the graph must be right. */
void fixture_start(fixture *f, const cvg_node_spec *nodes, size_t node_count,
                   const cvg_edge_spec *edges, size_t edge_count);

/* Frees everything and checks that the heap got all of it back. */
void fixture_end(fixture *f);

/* What the last call changed, like "ready 1 2:0 skipped 4 running". */
const char *delta_text(fixture *f);

/* Each makes one call, which must succeed, and returns its delta as text. */
const char *done(fixture *f, uint32_t node);
const char *chose(fixture *f, uint32_t node, uint32_t choice);
const char *failed(fixture *f, uint32_t node);
const char *expanded(fixture *f, uint32_t node, uint32_t width, uint32_t max_parallel);
const char *item_done(fixture *f, uint32_t node, uint32_t item);
const char *item_failed(fixture *f, uint32_t node, uint32_t item);
const char *iterated(fixture *f, uint32_t node);
const char *answered(fixture *f, uint32_t node, uint32_t answer);
const char *cancelled(fixture *f);

/* Saves the run, loads it, and goes on with what was loaded; returns whether both are the same. */
int reloaded(fixture *f);

uint32_t status_of(const fixture *f, uint32_t node);

#endif
