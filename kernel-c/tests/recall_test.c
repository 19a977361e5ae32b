/*
** recall_test.c: cosines, scores, and what a memory recalls.
*/
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "../src/vector.h"
#include "check.h"

#define HOUR_MS 3600000

static cvg_text text(const char *bytes) {
  return (cvg_text){bytes, strlen(bytes)};
}

static int near(double a, double b) {
  return fabs(a - b) < 1e-12;
}

static void simd_and_plain_code_agree(void) {
  static int8_t a[CVG_DIMENSIONS_MAX], b[CVG_DIMENSIONS_MAX];
  uint32_t random = 1;
  for (size_t i = 0; i < CVG_DIMENSIONS_MAX; i++) {
    random = random * 1664525 + 1013904223;
    a[i] = (int8_t)(random >> 24);
    b[i] = (int8_t)(random >> 16);
  }
  for (size_t count = 0; count < 100; count++) {
    CHECK(cvgi_dot(a + 1, b + count % 7, count) == cvgi_dot_scalar(a + 1, b + count % 7, count));
  }
  CHECK(cvgi_dot(a, b, CVG_DIMENSIONS_MAX) == cvgi_dot_scalar(a, b, CVG_DIMENSIONS_MAX));
  memset(a, -128, sizeof a);
  CHECK(cvgi_dot(a, a, CVG_DIMENSIONS_MAX) == 1 << 30);
  memset(b, 127, sizeof b);
  CHECK(cvgi_dot(a, b, CVG_DIMENSIONS_MAX) == -128 * 127 * (int32_t)CVG_DIMENSIONS_MAX);
}

static void cosines_are_those_of_the_angles(void) {
  static const int8_t right[] = {3, 0}, up[] = {0, 5}, both[] = {1, 1}, left[] = {-1, 0};
  static const int8_t nothing[] = {0, 0};
  double cosine = 7;
  CHECK_STATUS(cvg_cosine(right, up, 2, &cosine), CVG_OK);
  CHECK(cosine == 0);
  CHECK_STATUS(cvg_cosine(right, both, 2, &cosine), CVG_OK);
  CHECK(near(cosine, sqrt(0.5)));
  CHECK_STATUS(cvg_cosine(right, left, 2, &cosine), CVG_OK);
  CHECK(cosine == -1);
  CHECK_STATUS(cvg_cosine(right, nothing, 2, &cosine), CVG_OK);
  CHECK(cosine == 0);
  CHECK_STATUS(cvg_cosine(right, up, CVG_DIMENSIONS_MAX + 1, &cosine), CVG_TOO_LARGE);
  CHECK_STATUS(cvg_cosine(NULL, up, 2, &cosine), CVG_BAD_ARGUMENT);
}

static void floats_become_bytes(void) {
  static const float vector[] = {0.5f, -1.0f, 0.004f, 0.0f, 1.0f};
  static const float odd[] = {1, INFINITY};
  static const float zeros[] = {0, -0.0f};
  static const int8_t wanted[] = {64, -127, 1, 0, 127};
  int8_t out[5];
  CHECK_STATUS(cvg_quantise(vector, 5, out), CVG_OK);
  CHECK(memcmp(out, wanted, 5) == 0);
  CHECK_STATUS(cvg_quantise(zeros, 2, out), CVG_OK);
  CHECK(out[0] == 0 && out[1] == 0);
  CHECK_STATUS(cvg_quantise(odd, 2, out), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_quantise(NULL, 2, out), CVG_BAD_ARGUMENT);
}

static void scores_are_weighted_means(void) {
  const cvg_weights weights = {1, 1, 1, 1, HOUR_MS}, text_only = {5, 0, 0, 0, 1};
  const cvg_weights none = {0, 0, 0, 0, 1}, no_half_life = {1, 0, 0, 0, 0},
                    heavy = {1001, 0, 0, 0, 1};
  double score = 7;
  CHECK_STATUS(cvg_score(&weights, 1, 0.5, HOUR_MS, 250, &score), CVG_OK);
  CHECK(near(score, (0.5 + 0.5 + 0.5 + 0.25) / 4));
  CHECK_STATUS(cvg_score(&text_only, 3, -1, INT64_MAX, 0, &score), CVG_OK);
  CHECK(score == 0.75);
  CHECK_STATUS(cvg_score(&weights, 0, -1, INT64_MIN, 0, &score), CVG_OK);
  CHECK(score == 0.25);
  CHECK_STATUS(cvg_score(&none, 1, 0, 0, 0, &score), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_score(&no_half_life, 1, 0, 0, 0, &score), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_score(&heavy, 1, 0, 0, 0, &score), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_score(&weights, -1, 0, 0, 0, &score), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_score(&weights, NAN, 0, 0, 0, &score), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_score(&weights, 0, NAN, 0, 0, &score), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_score(&weights, 0, 0, 0, 1001, &score), CVG_BAD_ARGUMENT);
}

static uint32_t add(cvg_memory *memory, const char *words, int8_t x, int8_t y, int64_t time_ms) {
  const int8_t vector[] = {x, y};
  const cvg_memory_item item = {text(words), vector, time_ms, (uint32_t)strlen(words), 500};
  uint32_t id = CVG_NONE;
  CHECK_STATUS(cvg_memory_add(memory, &item, &id), CVG_OK);
  return id;
}

/* The numbers of the best three, like "2 0 1". */
static const char *ranked(const cvg_memory *memory, const cvg_query *query) {
  static char list[64];
  cvg_recalled best[3];
  size_t count = 0, at = 0;
  list[0] = '\0';
  CHECK_STATUS(cvg_memory_rank(memory, query, best, 3, &count), CVG_OK);
  for (size_t i = 0; i < count; i++) {
    at += (size_t)snprintf(list + at, sizeof list - at, i == 0 ? "%u" : " %u", best[i].item);
    CHECK(best[i].score >= 0 && best[i].score <= 1);
  }
  return list;
}

static void each_part_ranks(void) {
  test_heap heap = {UNLIMITED, 0, 0};
  const cvg_allocator allocator = heap_allocator(&heap);
  static const int8_t up[] = {0, 9};
  cvg_memory *memory = NULL;
  cvg_query query = {text("Apple PIE, apple"), up, 10 * HOUR_MS, {1, 0, 0, 0, HOUR_MS}};
  CHECK_STATUS(cvg_memory_new(&allocator, 2, &memory), CVG_OK);
  CHECK_TEXT(ranked(memory, &query), "");
  add(memory, "an apple a day", 1, 0, 0);
  add(memory, "apple pie with apples", 1, 1, 1);
  add(memory, "nothing of the kind", 0, 1, 2);
  add(memory, "nothing of the kind", 0, 1, 9 * HOUR_MS);
  CHECK_TEXT(ranked(memory, &query), "1 0 3");
  query.weights = (cvg_weights){0, 1, 0, 0, HOUR_MS};
  CHECK_TEXT(ranked(memory, &query), "3 2 1");
  query.vector = NULL;
  CHECK_TEXT(ranked(memory, &query), "3 2 1");
  query.weights = (cvg_weights){0, 0, 1, 0, HOUR_MS};
  query.now_ms = 0;
  CHECK_TEXT(ranked(memory, &query), "3 2 1");
  query.now_ms = INT64_MIN;
  CHECK_TEXT(ranked(memory, &query), "3 2 1");
  cvg_memory_free(memory);
  CHECK(heap.lent_blocks == 0);
}

static void what_is_forgotten_counts_no_more(void) {
  test_heap heap = {UNLIMITED, 0, 0};
  const cvg_allocator allocator = heap_allocator(&heap);
  cvg_memory *memory = NULL, *other = NULL;
  const cvg_query query = {text("red ball"), NULL, 0, {1, 0, 0, 0, 1}};
  cvg_recalled with[2], without[2];
  size_t count = 0;
  CHECK_STATUS(cvg_memory_new(&allocator, 2, &memory), CVG_OK);
  CHECK_STATUS(cvg_memory_new(&allocator, 2, &other), CVG_OK);
  add(memory, "red ball red ball red", 1, 1, 0);
  add(memory, "a red car", 1, 1, 0);
  add(memory, "a blue ball, quite large", 1, 1, 0);
  CHECK_STATUS(cvg_memory_remove(memory, 0), CVG_OK);
  CHECK_STATUS(cvg_memory_remove(memory, 0), CVG_BAD_NODE);
  CHECK_STATUS(cvg_memory_remove(memory, 3), CVG_BAD_NODE);
  CHECK(cvg_memory_count(memory) == 2);
  add(other, "a red car", 1, 1, 0);
  add(other, "a blue ball, quite large", 1, 1, 0);
  CHECK_STATUS(cvg_memory_rank(memory, &query, with, 2, &count), CVG_OK);
  CHECK(count == 2);
  CHECK_STATUS(cvg_memory_rank(other, &query, without, 2, &count), CVG_OK);
  for (size_t i = 0; i < 2; i++) {
    CHECK(with[i].score == without[i].score);
    CHECK(with[i].item == without[i].item + 1);
  }
  cvg_memory_free(other);
  cvg_memory_free(memory);
  CHECK(heap.lent_blocks == 0);
}

static void the_budget_is_kept(void) {
  cvg_recalled list[] = {{0.9, 1, 60}, {0.8, 2, 50}, {0.7, 3, 40}, {0.6, 4, 0}};
  size_t count = COUNT(list);
  CHECK_STATUS(cvg_pack(list, &count, 100), CVG_OK);
  CHECK(count == 3);
  CHECK(list[0].item == 1 && list[1].item == 3 && list[2].item == 4);
  CHECK_STATUS(cvg_pack(list, &count, 0), CVG_OK);
  CHECK(count == 1 && list[0].item == 4);
  CHECK_STATUS(cvg_pack(NULL, &count, 0), CVG_BAD_ARGUMENT);
}

/* Many items, so that tables grow; each block refused in turn, and the item added in the end. */
static void each_block_may_be_refused(void) {
  test_heap heap = {UNLIMITED, 0, 0};
  const cvg_allocator allocator = heap_allocator(&heap);
  cvg_memory *memory = NULL;
  char words[64];
  size_t refusals = 0, count = 0;
  cvg_recalled best[40];
  CHECK_STATUS(cvg_memory_new(&allocator, 2, &memory), CVG_OK);
  for (unsigned i = 0; i < 40; i++) {
    snprintf(words, sizeof words, "common w%u x%u y%u common", i, i, i % 5);
    const int8_t vector[] = {1, (int8_t)i};
    const cvg_memory_item item = {text(words), vector, 0, 1, 0};
    uint32_t id = CVG_NONE;
    for (size_t grants = 0; id == CVG_NONE; grants++) {
      heap.grants = grants;
      cvg_status status = cvg_memory_add(memory, &item, &id);
      CHECK(status == CVG_OK || status == CVG_NO_MEMORY);
      CHECK(cvg_memory_count(memory) == (status == CVG_OK ? i + 1 : i));
      refusals += status != CVG_OK;
    }
    CHECK(id == i);
  }
  CHECK(refusals > 40);
  const cvg_query query = {text("common y3"), NULL, 0, {1, 0, 0, 0, 1}};
  heap.grants = 0;
  CHECK_STATUS(cvg_memory_rank(memory, &query, best, 40, &count), CVG_NO_MEMORY);
  heap.grants = UNLIMITED;
  CHECK_STATUS(cvg_memory_rank(memory, &query, best, 40, &count), CVG_OK);
  CHECK(count == 40);
  /* The eight with y3 are alike, and so are the rest: nothing was counted twice. */
  CHECK(best[0].item == 3 && best[0].score == best[7].score && best[7].score > best[8].score);
  CHECK(best[8].item == 0 && best[8].score == best[39].score);
  cvg_memory_free(memory);
  CHECK(heap.lent_blocks == 0);
}

static void wrong_calls_change_nothing(void) {
  test_heap heap = {UNLIMITED, 0, 0};
  const cvg_allocator allocator = heap_allocator(&heap);
  cvg_memory *memory = NULL;
  const int8_t vector[] = {1, 1};
  const cvg_memory_item no_vector = {text("a"), NULL, 0, 1, 0};
  const cvg_memory_item too_important = {text("a"), vector, 0, 1, 1001};
  const cvg_memory_item no_text = {{NULL, 1}, vector, 0, 1, 0};
  const cvg_memory_item too_long = {{"a", CVG_ITEM_TEXT_MAX + 1}, vector, 0, 1, 0};
  const cvg_query no_weights = {text("a"), NULL, 0, {0, 0, 0, 0, 1}};
  cvg_recalled best[1];
  uint32_t id = 0;
  size_t count = 0;
  CHECK_STATUS(cvg_memory_new(&allocator, CVG_DIMENSIONS_MAX + 1, &memory), CVG_TOO_LARGE);
  CHECK_STATUS(cvg_memory_new(NULL, 2, &memory), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_memory_new(&allocator, 2, &memory), CVG_OK);
  CHECK_STATUS(cvg_memory_add(memory, &no_vector, &id), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_memory_add(memory, &too_important, &id), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_memory_add(memory, &no_text, &id), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_memory_add(memory, &too_long, &id), CVG_TOO_LARGE);
  CHECK_STATUS(cvg_memory_rank(memory, &no_weights, best, 1, &count), CVG_BAD_ARGUMENT);
  CHECK(cvg_memory_count(memory) == 0);
  cvg_memory_free(memory);
  cvg_memory_free(NULL);
  CHECK(heap.lent_blocks == 0);
}

const test_case recall_tests[] = {
    {"simd_and_plain_code_agree", simd_and_plain_code_agree},
    {"cosines_are_those_of_the_angles", cosines_are_those_of_the_angles},
    {"floats_become_bytes", floats_become_bytes},
    {"scores_are_weighted_means", scores_are_weighted_means},
    {"each_part_ranks", each_part_ranks},
    {"what_is_forgotten_counts_no_more", what_is_forgotten_counts_no_more},
    {"the_budget_is_kept", the_budget_is_kept},
    {"each_block_may_be_refused (memory)", each_block_may_be_refused},
    {"wrong_calls_change_nothing (memory)", wrong_calls_change_nothing},
    {NULL, NULL},
};
