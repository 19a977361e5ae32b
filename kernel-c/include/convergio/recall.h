/*
** recall.h: what of a memory fits into a prompt. Part of kernel.h, whose rules hold here too.
**
** A memory is a set of items: a text, a vector, a size in tokens, an importance and a time. To
** recall is to rank all items for a query and to take the best that fit into a token budget. The
** score of an item is the weighted mean of four parts, each from 0 to 1:
** - text: s / (1 + s), where s is BM25 (k1 = 1.2, b = 0.75) over the words of the query;
** - vector: the cosine of the angle between item and query, 0 if it is negative;
** - recency: half_life / (half_life + age), 1 for what lies in the future;
** - importance / CVG_IMPORTANCE_MAX.
** Only operations that IEEE 754 rounds exactly are used, so that ranks are the same everywhere.
**
** Words are runs of ASCII letters and digits, of which case does not count, and of bytes above 127.
*/
#ifndef CONVERGIO_RECALL_H
#define CONVERGIO_RECALL_H

#include "kernel.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Limits. More is CVG_TOO_LARGE. */
#define CVG_DIMENSIONS_MAX 65536u
#define CVG_ITEMS_MAX 16777216u
#define CVG_ITEM_TEXT_MAX 1048576u
#define CVG_QUERY_WORDS_MAX 256u /* further words of a query do not count */

#define CVG_IMPORTANCE_MAX 1000u
#define CVG_WEIGHT_MAX 1000u

/*
** {==================================================================
** Scores
** ===================================================================
*/

/* What each part counts; not all 0. */
typedef struct cvg_weights {
  uint32_t text;
  uint32_t vector;
  uint32_t recency;
  uint32_t importance;
  int64_t half_life_ms; /* the age at which recency is one half; > 0 */
} cvg_weights;

/*
** Turns `dimensions` floats into bytes, the largest of them (by size) into 127 or -127, which is
** near enough for a cosine. All zeros stay so. Any thread.
** Errors: BAD_ARGUMENT (also for what is not finite), TOO_LARGE.
*/
cvg_status cvg_quantise(const float *vector, size_t dimensions, int8_t *out);

/*
** Writes the cosine of two vectors, -1 to 1; 0 if one is all zeros. The sums are exact, so that
** SIMD and plain code agree to the last bit. Any thread. Errors: BAD_ARGUMENT, TOO_LARGE.
*/
cvg_status cvg_cosine(const int8_t *a, const int8_t *b, size_t dimensions, double *out);

/*
** Writes the score of an item, 0 to 1. `bm25` is not negative. Any thread. Errors: BAD_ARGUMENT.
*/
cvg_status cvg_score(const cvg_weights *weights, double bm25, double cosine, int64_t age_ms,
                     uint32_t importance, double *out);

/* }================================================================== */

/*
** {==================================================================
** Memory
** ===================================================================
*/

typedef struct cvg_memory cvg_memory;

typedef struct cvg_memory_item {
  cvg_text text;
  const int8_t *vector; /* as many as the memory has dimensions; may be null when these are 0 */
  int64_t time_ms;
  uint32_t tokens;
  uint32_t importance; /* 0 to CVG_IMPORTANCE_MAX */
} cvg_memory_item;

typedef struct cvg_query {
  cvg_text text;
  const int8_t *vector; /* null: no vector, and its part is 0 */
  int64_t now_ms;
  cvg_weights weights;
} cvg_query;

typedef struct cvg_recalled {
  double score;
  uint32_t item;
  uint32_t tokens;
} cvg_recalled;

/*
** Creates an empty memory whose vectors have `dimensions` (0: no vectors). Any thread.
** Errors: BAD_ARGUMENT, TOO_LARGE, NO_MEMORY.
*/
cvg_status cvg_memory_new(const cvg_allocator *allocator, size_t dimensions, cvg_memory **out);

/* Frees a memory. One thread at a time. */
void cvg_memory_free(cvg_memory *memory);

/*
** Adds an item; text and vector are copied into the index. `id` gets its number: items are numbered
** from 0 in the order in which they come, and numbers are not given anew. Costs O(words of the
** item), on average. One thread at a time. Errors: BAD_ARGUMENT, TOO_LARGE, NO_MEMORY.
*/
cvg_status cvg_memory_add(cvg_memory *memory, const cvg_memory_item *item, uint32_t *id);

/*
** Forgets an item: it is never recalled again and counts in no statistic; its vector is zeroed at
** once. One thread at a time. Errors: BAD_ARGUMENT, BAD_NODE (no such item).
*/
cvg_status cvg_memory_remove(cvg_memory *memory, uint32_t id);

/* How many items there are that are not forgotten; 0 for null. Any thread. */
uint32_t cvg_memory_count(const cvg_memory *memory);

/*
** Writes the `room` best items at most, best first: by score, then newer, then of lower number.
** `count` gets how many. Takes 8 bytes an item while it works. Any thread, while nobody changes
** `memory`. Errors: BAD_ARGUMENT, NO_MEMORY.
*/
cvg_status cvg_memory_rank(const cvg_memory *memory, const cvg_query *query, cvg_recalled *out,
                           size_t room, size_t *count);

/*
** Keeps of a ranked list what fits into `budget` tokens, in its order: each item is taken if there
** is room for it after those before it. `count` is that of the list, and then of what is kept; the
** rest of the list is lost. Any thread. Errors: BAD_ARGUMENT.
*/
cvg_status cvg_pack(cvg_recalled *list, size_t *count, uint64_t budget);

/* }================================================================== */

#ifdef __cplusplus
}
#endif

#endif
