/*
** save_test.c: states as bytes: whole, truncated, changed, and of another graph.
*/
#include <string.h>

#include "check.h"

/* 0 is a map, 1 falls back to 2, 3 is a loop over 4 and asks, 5 joins. */
static void start(fixture *f) {
  const cvg_node_spec nodes[] = {NODE(0), FALLBACK(0, 2), NODE(0), SCOPE(CVG_ON_ERROR_ASK, 1, 3),
                                 NODE(0), NODE(2)};
  const cvg_edge_spec edges[] = {EDGE(0, 5), {1, 5, 7}, EDGE(3, 5)};
  fixture_start(f, nodes, 6, edges, 3);
  expanded(f, 0, 10, 3);
  item_done(f, 0, 1);
  chose(f, 1, 7);
  iterated(f, 3);
}

static cvg_status load(fixture *f, const uint8_t *bytes, size_t size) {
  cvg_sched *sched = NULL;
  cvg_status status = cvg_sched_load(f->graph, &f->allocator, bytes, size, &sched, f->delta, NULL);
  cvg_sched_free(sched);
  return status;
}

static size_t save(const fixture *f, uint8_t bytes[256]) {
  size_t size = 0;
  CHECK_STATUS(cvg_sched_save(f->sched, bytes, 256, &size), CVG_OK);
  return size;
}

/* The header names FNV-1a: whoever changes bytes can make the checksum fit. */
static void seal(uint8_t *bytes, size_t size) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (size_t i = 0; i < size - 8; i++) hash = (hash ^ bytes[i]) * 0x00000100000001B3u;
  for (size_t i = 0; i < 8; i++) bytes[size - 8 + i] = (uint8_t)(hash >> 8 * i);
}

static void what_is_saved_is_what_is_loaded(void) {
  fixture f;
  start(&f);
  CHECK(reloaded(&f));
  CHECK_TEXT(delta_text(&f), "running");
  CHECK_TEXT(item_done(&f, 0, 0), "ready 0:4 running");
  CHECK_TEXT(done(&f, 4), "ready 3:0 running");
  CHECK_TEXT(done(&f, 3), "ready 5 running");
  fixture_end(&f);
}

static void the_room_needed_is_told(void) {
  uint8_t bytes[256];
  size_t size = 0;
  fixture f;
  start(&f);
  CHECK_STATUS(cvg_sched_save(f.sched, NULL, 0, &size), CVG_BUFFER_TOO_SMALL);
  CHECK(size == save(&f, bytes));
  CHECK_STATUS(cvg_sched_save(f.sched, bytes, size - 1, &size), CVG_BUFFER_TOO_SMALL);
  CHECK_STATUS(cvg_sched_save(f.sched, bytes, size, &size), CVG_OK);
  CHECK_STATUS(cvg_sched_save(f.sched, NULL, 1, &size), CVG_BAD_ARGUMENT);
  CHECK_STATUS(cvg_sched_hash(f.sched, NULL), CVG_BAD_ARGUMENT);
  fixture_end(&f);
}

static void no_truncation_and_no_flipped_bit_is_taken(void) {
  uint8_t bytes[256], other[256];
  fixture f;
  start(&f);
  size_t size = save(&f, bytes);
  for (size_t i = 0; i < size; i++) CHECK_STATUS(load(&f, bytes, i), CVG_BAD_BYTES);
  for (size_t i = 0; i < 8 * size; i++) {
    memcpy(other, bytes, size);
    other[i / 8] ^= (uint8_t)(1u << i % 8);
    CHECK_STATUS(load(&f, other, size), CVG_BAD_BYTES);
  }
  fixture_end(&f);
}

/* Any byte set to any value: an answer or a refusal, and what is taken is saved just so. */
static void what_is_taken_in_spite_of_changes_is_canonical(void) {
  uint8_t bytes[256], other[256], again[256];
  fixture f;
  start(&f);
  size_t size = save(&f, bytes);
  for (size_t at = 20; at < size - 8; at++) {
    for (unsigned value = 0; value < 256; value++) {
      cvg_sched *sched = NULL;
      size_t saved = 0;
      memcpy(other, bytes, size);
      other[at] = (uint8_t)value;
      seal(other, size);
      cvg_status status = cvg_sched_load(f.graph, &f.allocator, other, size, &sched, f.delta, NULL);
      CHECK(status == CVG_OK || status == CVG_BAD_BYTES || status == CVG_BAD_STATE);
      if (status != CVG_OK) continue;
      CHECK_STATUS(cvg_sched_save(sched, again, sizeof again, &saved), CVG_OK);
      CHECK(saved == size && memcmp(other, again, size) == 0);
      cvg_sched_free(sched);
    }
  }
  fixture_end(&f);
}

static void states_of_another_graph_are_refused(void) {
  const cvg_node_spec nodes[] = {NODE(0), NODE(0)};
  uint8_t bytes[256];
  fixture f, other;
  fixture_start(&f, nodes, 2, NULL, 0);
  fixture_start(&other, nodes, 1, NULL, 0);
  CHECK_STATUS(load(&other, bytes, save(&f, bytes)), CVG_BAD_BYTES);
  CHECK_STATUS(load(&f, NULL, 5), CVG_BAD_ARGUMENT);
  fixture_end(&other);
  fixture_end(&f);
}

const test_case save_tests[] = {
    {"what_is_saved_is_what_is_loaded", what_is_saved_is_what_is_loaded},
    {"the_room_needed_is_told", the_room_needed_is_told},
    {"no_truncation_and_no_flipped_bit_is_taken", no_truncation_and_no_flipped_bit_is_taken},
    {"what_is_taken_in_spite_of_changes_is_canonical",
     what_is_taken_in_spite_of_changes_is_canonical},
    {"states_of_another_graph_are_refused", states_of_another_graph_are_refused},
    {NULL, NULL},
};
