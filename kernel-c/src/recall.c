/*
** recall.c: a memory of items, ranked for a query and packed into a budget.
*/
#include <string.h>

#include "memory.h"
#include "score.h"
#include "sort.h"
#include "vector.h"
#include "words.h"

typedef struct item {
  int64_t time_ms;
  uint32_t tokens;
  uint32_t importance;
  uint32_t length; /* in words */
  int32_t squared; /* length of the vector */
  uint32_t forgotten;
} item;

struct cvg_memory {
  cvg_allocator allocator;
  size_t dimensions;
  item *items;
  int8_t *vectors; /* of all items, one behind the other */
  uint32_t count;
  uint32_t room;
  uint32_t forgotten_count;
  uint64_t length; /* of all items not forgotten, in words */
  cvgi_words words;
};

cvg_status cvg_memory_new(const cvg_allocator *allocator, size_t dimensions, cvg_memory **out) {
  if (!cvgi_allocator_valid(allocator) || out == NULL) return CVG_BAD_ARGUMENT;
  if (dimensions > CVG_DIMENSIONS_MAX) return CVG_TOO_LARGE;
  cvg_memory *memory = cvgi_allocate(allocator, 1, sizeof *memory);
  if (memory == NULL) return CVG_NO_MEMORY;
  *memory = (cvg_memory){.allocator = *allocator, .dimensions = dimensions};
  *out = memory;
  return CVG_OK;
}

static void release_items(cvg_memory *memory) {
  cvgi_release(&memory->allocator, memory->items, memory->room, sizeof *memory->items);
  cvgi_release(&memory->allocator, memory->vectors, memory->room, memory->dimensions);
}

void cvg_memory_free(cvg_memory *memory) {
  if (memory == NULL) return;
  const cvg_allocator allocator = memory->allocator;
  release_items(memory);
  cvgi_words_free(&allocator, &memory->words);
  cvgi_release(&allocator, memory, 1, sizeof *memory);
}

/* Makes room for one more item. */
static int grow(cvg_memory *memory) {
  if (memory->count < memory->room) return 1;
  uint32_t room = memory->room == 0 ? 16 : 2 * memory->room;
  item *items = cvgi_allocate(&memory->allocator, room, sizeof *items);
  int8_t *vectors = cvgi_allocate(&memory->allocator, room, memory->dimensions);
  if (items == NULL || (vectors == NULL && memory->dimensions > 0)) {
    cvgi_release(&memory->allocator, items, room, sizeof *items);
    cvgi_release(&memory->allocator, vectors, room, memory->dimensions);
    return 0;
  }
  if (memory->count > 0) {
    memcpy(items, memory->items, memory->count * sizeof *items);
    if (vectors != NULL) memcpy(vectors, memory->vectors, memory->count * memory->dimensions);
  }
  release_items(memory);
  memory->items = items;
  memory->vectors = vectors;
  memory->room = room;
  return 1;
}

static int text_valid(cvg_text text) {
  return text.bytes != NULL || text.size == 0;
}

static void copy_vector(cvg_memory *memory, const int8_t *vector, item *to) {
  if (memory->dimensions == 0) return;
  memcpy(memory->vectors + memory->count * memory->dimensions, vector, memory->dimensions);
  to->squared = cvgi_dot(vector, vector, memory->dimensions);
}

cvg_status cvg_memory_add(cvg_memory *memory, const cvg_memory_item *given, uint32_t *id) {
  if (memory == NULL || given == NULL || id == NULL) return CVG_BAD_ARGUMENT;
  if (!text_valid(given->text) || given->importance > CVG_IMPORTANCE_MAX) return CVG_BAD_ARGUMENT;
  if (given->vector == NULL && memory->dimensions > 0) return CVG_BAD_ARGUMENT;
  if (given->text.size > CVG_ITEM_TEXT_MAX || memory->count == CVG_ITEMS_MAX) return CVG_TOO_LARGE;
  item added = {given->time_ms, given->tokens, given->importance, 0, 0, 0};
  if (!grow(memory) || !cvgi_words_add(&memory->allocator, &memory->words, memory->count,
                                       given->text, &added.length)) {
    return CVG_NO_MEMORY;
  }
  copy_vector(memory, given->vector, &added);
  memory->items[memory->count] = added;
  memory->length += added.length;
  *id = memory->count++;
  return CVG_OK;
}

cvg_status cvg_memory_remove(cvg_memory *memory, uint32_t id) {
  if (memory == NULL) return CVG_BAD_ARGUMENT;
  if (id >= memory->count || memory->items[id].forgotten) return CVG_BAD_NODE;
  item *gone = &memory->items[id];
  memory->length -= gone->length;
  memory->forgotten_count++;
  if (memory->dimensions > 0) {
    memset(memory->vectors + id * memory->dimensions, 0, memory->dimensions);
  }
  *gone = (item){.forgotten = 1};
  return CVG_OK;
}

uint32_t cvg_memory_count(const cvg_memory *memory) {
  return memory == NULL ? 0 : memory->count - memory->forgotten_count;
}

/* Adds to each item's BM25 what a word brings. */
static void add_word(const cvg_memory *memory, const cvgi_word *word, double *bm25) {
  uint32_t living = cvg_memory_count(memory), holders = 0;
  double mean = living == 0 ? 0 : (double)memory->length / living;
  for (uint32_t i = 0; i < word->count; i++) {
    holders += !memory->items[word->postings[i].item].forgotten;
  }
  double weight = cvgi_word_weight(living, holders);
  for (uint32_t i = 0; i < word->count; i++) {
    const cvgi_posting *posting = &word->postings[i];
    uint32_t length = memory->items[posting->item].length;
    bm25[posting->item] += cvgi_bm25(weight, posting->occurrences, length, mean);
  }
}

/* The BM25 of all items over the query's words, of which each counts once. */
static void add_words(const cvg_memory *memory, cvg_text text, double *bm25) {
  uint64_t seen[CVG_QUERY_WORDS_MAX], hash;
  size_t count = 0;
  for (uint32_t i = 0; i < memory->count; i++) bm25[i] = 0;
  while (count < CVG_QUERY_WORDS_MAX && (hash = cvgi_next_word(&text)) != 0) {
    size_t at = 0;
    while (at < count && seen[at] != hash) at++;
    if (at < count) continue;
    seen[count++] = hash;
    const cvgi_word *word = cvgi_words_find(&memory->words, hash);
    if (word != NULL) add_word(memory, word, bm25);
  }
}

/* The best items so far: a heap with the worst of them first, once it is full. */
typedef struct best {
  const cvg_memory *memory;
  cvg_recalled *list;
  size_t count;
  size_t room;
} best;

static int better(const void *context, const void *left, const void *right) {
  const cvg_memory *memory = context;
  const cvg_recalled *a = left, *b = right;
  if (a->score != b->score) return a->score > b->score;
  int64_t a_time = memory->items[a->item].time_ms, b_time = memory->items[b->item].time_ms;
  return a_time != b_time ? a_time > b_time : a->item < b->item;
}

/* Lets what is at `at` sink below what is worse. */
static void sink(best *b, size_t at) {
  cvg_recalled moved = b->list[at];
  while (2 * at + 1 < b->count) {
    size_t child = 2 * at + 1;
    if (child + 1 < b->count && better(b->memory, &b->list[child], &b->list[child + 1])) child++;
    if (!better(b->memory, &moved, &b->list[child])) break;
    b->list[at] = b->list[child];
    at = child;
  }
  b->list[at] = moved;
}

static void offer(best *b, cvg_recalled candidate) {
  if (b->count < b->room) {
    b->list[b->count++] = candidate;
    if (b->count < b->room) return;
    for (size_t i = b->count / 2; i > 0; i--) sink(b, i - 1);
  } else if (b->room > 0 && better(b->memory, &candidate, &b->list[0])) {
    b->list[0] = candidate;
    sink(b, 0);
  }
}

static double cosine(const cvg_memory *memory, const cvg_query *query, int32_t squared,
                     uint32_t id) {
  if (squared == 0) return 0;
  const int8_t *vector = memory->vectors + id * memory->dimensions;
  int32_t dot = cvgi_dot(query->vector, vector, memory->dimensions);
  return cvgi_cosine_of(dot, squared, memory->items[id].squared);
}

/* Times far apart have an age that is far enough. */
static int64_t age(int64_t now, int64_t then) {
  if (then >= now) return 0;
  uint64_t difference = (uint64_t)now - (uint64_t)then;
  return difference > INT64_MAX ? INT64_MAX : (int64_t)difference;
}

static void rank_all(const cvg_memory *memory, const cvg_query *query, const double *bm25,
                     best *b) {
  int has_vector = query->vector != NULL && memory->dimensions > 0 && query->weights.vector > 0;
  int32_t squared = has_vector ? cvgi_dot(query->vector, query->vector, memory->dimensions) : 0;
  for (uint32_t i = 0; i < memory->count; i++) {
    const item *candidate = &memory->items[i];
    if (candidate->forgotten) continue;
    double score = cvgi_score(&query->weights, bm25[i], cosine(memory, query, squared, i),
                              age(query->now_ms, candidate->time_ms), candidate->importance);
    offer(b, (cvg_recalled){score, i, candidate->tokens});
  }
}

cvg_status cvg_memory_rank(const cvg_memory *memory, const cvg_query *query, cvg_recalled *out,
                           size_t room, size_t *count) {
  if (memory == NULL || query == NULL || count == NULL) return CVG_BAD_ARGUMENT;
  if ((out == NULL && room > 0) || !text_valid(query->text)) return CVG_BAD_ARGUMENT;
  if (!cvgi_weights_valid(&query->weights)) return CVG_BAD_ARGUMENT;
  best b = {memory, out, 0, room};
  if (memory->count > 0) {
    double *bm25 = cvgi_allocate(&memory->allocator, memory->count, sizeof *bm25);
    if (bm25 == NULL) return CVG_NO_MEMORY;
    add_words(memory, query->text, bm25);
    rank_all(memory, query, bm25, &b);
    cvgi_release(&memory->allocator, bm25, memory->count, sizeof *bm25);
    cvgi_sort(out, b.count, sizeof *out, better, memory);
  }
  *count = b.count;
  return CVG_OK;
}

cvg_status cvg_pack(cvg_recalled *list, size_t *count, uint64_t budget) {
  if (count == NULL || (list == NULL && *count > 0)) return CVG_BAD_ARGUMENT;
  size_t kept = 0;
  for (size_t i = 0; i < *count; i++) {
    if (list[i].tokens > budget) continue;
    budget -= list[i].tokens;
    list[kept++] = list[i];
  }
  *count = kept;
  return CVG_OK;
}
