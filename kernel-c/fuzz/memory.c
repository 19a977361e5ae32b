/*
** memory.c: any items come and go; what is recalled is there, in order and within the budget.
*/
#include "fuzz.h"

#define DIMENSIONS 19u

static void take_vector(bytes *b, int8_t vector[DIMENSIONS]) {
  for (size_t i = 0; i < DIMENSIONS; i++) vector[i] = (int8_t)take(b);
}

static cvg_text take_text(bytes *b) {
  size_t size = take_below(b, 40);
  if (size > b->left) size = b->left;
  const cvg_text text = {(const char *)b->at, size};
  b->at += size;
  b->left -= size;
  return text;
}

static void rank(const cvg_memory *memory, bytes *b) {
  int8_t vector[DIMENSIONS];
  cvg_recalled best[16];
  size_t count = 0, room = take_below(b, 17);
  uint64_t tokens = 0, budget = take_number(b);
  take_vector(b, vector);
  const cvg_query query = {
      take_text(b),
      take(b) & 1 ? vector : NULL,
      (int64_t)take_number(b),
      {take_below(b, 5), take_below(b, 5), take(b), take(b), (int64_t)take_number(b)}};
  if (cvg_memory_rank(memory, &query, best, room, &count) != CVG_OK) return;
  MUST(count <= room && count <= cvg_memory_count(memory));
  for (size_t i = 0; i < count; i++) {
    MUST(best[i].score >= 0 && best[i].score <= 1);
    MUST(i == 0 || best[i - 1].score >= best[i].score);
  }
  MUST(cvg_pack(best, &count, budget) == CVG_OK);
  for (size_t i = 0; i < count; i++) tokens += best[i].tokens;
  MUST(tokens <= budget);
}

static void step(cvg_memory *memory, bytes *b) {
  int8_t vector[DIMENSIONS];
  uint8_t kind = take(b);
  uint32_t id = CVG_NONE, before = cvg_memory_count(memory);
  if (kind < 64) {
    rank(memory, b);
  } else if (kind < 96) {
    cvg_status status = cvg_memory_remove(memory, take(b));
    MUST(cvg_memory_count(memory) == (status == CVG_OK ? before - 1 : before));
  } else {
    take_vector(b, vector);
    const cvg_memory_item item = {take_text(b), vector, (int64_t)take_number(b),
                                  (uint32_t)take_number(b), take(b) * 4u};
    cvg_status status = cvg_memory_add(memory, &item, &id);
    MUST(cvg_memory_count(memory) == (status == CVG_OK ? before + 1 : before));
  }
}

static void quantise(const uint8_t *data, size_t size) {
  float vector[8];
  int8_t out[8];
  double cosine = 7;
  if (size < sizeof vector) return;
  memcpy(vector, data, sizeof vector);
  if (cvg_quantise(vector, 8, out) != CVG_OK) return;
  MUST(cvg_cosine(out, out, 8, &cosine) == CVG_OK);
  MUST(cosine == 0 || cosine == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bytes b = {data, size};
  heap h = take_heap(&b);
  const cvg_allocator allocator = heap_allocator(&h);
  cvg_memory *memory = NULL;
  quantise(data, size);
  if (cvg_memory_new(&allocator, DIMENSIONS, &memory) == CVG_OK) {
    while (b.left > 0) step(memory, &b);
  }
  cvg_memory_free(memory);
  MUST(h.lent == 0);
  return 0;
}
