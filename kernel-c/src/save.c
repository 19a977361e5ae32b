/*
** save.c: a scheduler's state as bytes, and back.
**
** Layout, little-endian: magic, format version, hash of the graph, number of nodes; one record a
** node; FNV-1a of all that. A record is a head byte (status and what follows), then for a DONE node
** with a choice the choice, for a map its width, parallelism, number of items started and a bit an
** item for those that are done, for a scope the number of iterations begun.
*/
#include "bytes.h"
#include "memory.h"
#include "schedule.h"

#define MAGIC 0x53475643u /* "CVGS" */
#define FORMAT_VERSION 1u
#define HEADER_SIZE 20u
#define CHECKSUM_SIZE 8u

#define HEAD_STATUS 7u
#define HEAD_CHOICE 8u
#define HEAD_MAP 16u
#define HEAD_ITERATIONS 32u
#define HEAD_ITERATING 64u
#define HEAD_UNUSED 128u

static void write_map(cvgi_writer *writer, const cvgi_map *map) {
  cvgi_write(writer, map->width, 4);
  cvgi_write(writer, map->max_parallel, 4);
  cvgi_write(writer, map->emitted, 4);
  for (size_t i = 0; i < (map->width + 7) / 8; i++) cvgi_write(writer, map->done[i], 1);
}

static void write_node(cvgi_writer *writer, const cvg_sched *sched, uint32_t node) {
  const cvgi_run_node *state = &sched->nodes[node];
  unsigned has_choice = state->status == CVG_NODE_DONE && state->value != CVG_NONE;
  unsigned is_map = cvgi_has(sched, node, CVGI_EXPANDED);
  unsigned head = state->status;
  if (has_choice) head |= HEAD_CHOICE;
  if (is_map) head |= HEAD_MAP;
  if (state->iterations > 0) head |= HEAD_ITERATIONS;
  if (cvgi_has(sched, node, CVGI_ITERATING)) head |= HEAD_ITERATING;
  cvgi_write(writer, head, 1);
  if (has_choice) cvgi_write(writer, state->value, 4);
  if (is_map) write_map(writer, cvgi_map_of(sched, node));
  if (state->iterations > 0) cvgi_write(writer, state->iterations, 2);
}

static void write_all(cvgi_writer *writer, const cvg_sched *sched) {
  uint64_t graph_hash = 0;
  (void)cvg_graph_hash(sched->graph, &graph_hash);
  cvgi_write(writer, MAGIC, 4);
  cvgi_write(writer, FORMAT_VERSION, 4);
  cvgi_write(writer, graph_hash, 8);
  cvgi_write(writer, sched->graph->node_count, 4);
  for (uint32_t i = 0; i < sched->graph->node_count; i++) write_node(writer, sched, i);
}

cvg_status cvg_sched_save(const cvg_sched *sched, uint8_t *bytes, size_t room, size_t *size) {
  if (sched == NULL || size == NULL || (bytes == NULL && room > 0)) return CVG_BAD_ARGUMENT;
  cvgi_writer counting = {NULL, 0, 0, CVGI_HASH_START};
  write_all(&counting, sched);
  *size = counting.size + CHECKSUM_SIZE;
  if (room < *size) return CVG_BUFFER_TOO_SMALL;
  cvgi_writer writer = {bytes, room, 0, CVGI_HASH_START};
  write_all(&writer, sched);
  cvgi_write(&writer, writer.hash, CHECKSUM_SIZE);
  return CVG_OK;
}

cvg_status cvg_sched_hash(const cvg_sched *sched, uint64_t *out) {
  if (sched == NULL || out == NULL) return CVG_BAD_ARGUMENT;
  cvgi_writer counting = {NULL, 0, 0, CVGI_HASH_START};
  write_all(&counting, sched);
  *out = counting.hash;
  return CVG_OK;
}

/* The states read, and the items of all maps in one array. */
typedef struct loaded {
  cvg_node_state *states;
  uint8_t *items;
  size_t item_room;
  size_t item_count;
  uint64_t hash; /* of the bytes */
} loaded;

static int bit(const uint8_t *bits, uint32_t index) {
  return bits[index / 8] >> index % 8 & 1;
}

/* Without `items` the record is only checked and counted. */
static void read_map(cvgi_reader *reader, loaded *to, cvg_node_state *state) {
  uint32_t width = (uint32_t)cvgi_read(reader, 4);
  uint32_t max_parallel = (uint32_t)cvgi_read(reader, 4);
  uint32_t emitted = (uint32_t)cvgi_read(reader, 4);
  const uint8_t *done = NULL;
  if (width > CVG_MAP_WIDTH_MAX || emitted > width || max_parallel == 0) reader->failed = 1;
  if (!reader->failed) done = cvgi_read_bytes(reader, (width + 7) / 8);
  if (done == NULL) return;
  state->width = width;
  state->max_parallel = max_parallel;
  if (to->items != NULL) {
    uint8_t *items = to->items + to->item_count;
    for (uint32_t i = 0; i < width; i++) {
      items[i] = i >= emitted ? CVG_ITEM_WAITING : bit(done, i) ? CVG_ITEM_DONE : CVG_ITEM_READY;
    }
    state->items = items;
  }
  to->item_count += width;
}

static void read_node(cvgi_reader *reader, loaded *to, cvg_node_state *state) {
  unsigned head = (unsigned)cvgi_read(reader, 1);
  *state = (cvg_node_state){.status = head & HEAD_STATUS, .choice = CVG_NONE};
  if (head & HEAD_UNUSED) reader->failed = 1;
  if (head & HEAD_CHOICE) {
    state->choice = (uint32_t)cvgi_read(reader, 4);
    if (state->status != CVG_NODE_DONE || state->choice == CVG_NONE) reader->failed = 1;
  }
  if (head & HEAD_MAP) {
    if (state->status != CVG_NODE_READY) reader->failed = 1;
    read_map(reader, to, state);
  }
  if (head & HEAD_ITERATIONS) {
    state->iterations = (uint32_t)cvgi_read(reader, 2);
    if (state->iterations == 0) reader->failed = 1;
  }
  state->iterating = (head & HEAD_ITERATING) != 0;
}

/* The records of all nodes, which end where the checksum begins. */
static int read_nodes(const cvg_graph *graph, cvgi_reader reader, loaded *to) {
  to->item_count = 0;
  for (uint32_t i = 0; i < graph->node_count && !reader.failed; i++) {
    read_node(&reader, to, &to->states[i]);
  }
  return !reader.failed && reader.at == reader.size;
}

static int read_header(const cvg_graph *graph, cvgi_reader *reader) {
  uint64_t graph_hash = 0;
  (void)cvg_graph_hash(graph, &graph_hash);
  return cvgi_read(reader, 4) == MAGIC && cvgi_read(reader, 4) == FORMAT_VERSION &&
         cvgi_read(reader, 8) == graph_hash && cvgi_read(reader, 4) == graph->node_count &&
         !reader->failed;
}

static int checksum_right(const uint8_t *bytes, size_t size) {
  cvgi_reader tail = {bytes, size, size - CHECKSUM_SIZE, 0};
  uint64_t wanted = cvgi_hash_bytes(CVGI_HASH_START, bytes, size - CHECKSUM_SIZE);
  return cvgi_read(&tail, CHECKSUM_SIZE) == wanted;
}

static cvg_status read_items(const cvg_graph *graph, const cvg_allocator *allocator,
                             cvgi_reader reader, loaded *to) {
  if (!read_nodes(graph, reader, to)) return CVG_BAD_BYTES;
  if (to->item_count == 0) return CVG_OK;
  to->item_room = to->item_count;
  to->items = cvgi_allocate(allocator, to->item_room, 1);
  if (to->items == NULL) return CVG_NO_MEMORY;
  return read_nodes(graph, reader, to) ? CVG_OK : CVG_BAD_BYTES;
}

/* A state that was saved implies nothing that it does not say, so it is saved as it was read. */
static cvg_status rebuild(const cvg_graph *graph, const cvg_allocator *allocator,
                          const loaded *from, cvg_sched **out, cvg_delta *delta, cvg_fault *fault) {
  uint64_t hash = 0;
  cvg_sched *sched = NULL;
  cvg_status status = cvgi_restore(graph, allocator, from->states, &sched, delta, fault);
  if (status != CVG_OK) return status == CVG_NO_MEMORY ? status : CVG_BAD_STATE;
  (void)cvg_sched_hash(sched, &hash);
  if (hash == from->hash) {
    *out = sched;
    return CVG_OK;
  }
  cvg_sched_free(sched);
  cvgi_delta_clear(delta);
  return CVG_BAD_STATE;
}

static cvg_status load(const cvg_graph *graph, const cvg_allocator *allocator, cvgi_reader reader,
                       cvg_sched **out, cvg_delta *delta, cvg_fault *fault) {
  loaded all = {.hash = cvgi_hash_bytes(CVGI_HASH_START, reader.bytes, reader.size)};
  size_t count = (size_t)graph->node_count + 1;
  all.states = cvgi_allocate(allocator, count, sizeof *all.states);
  if (all.states == NULL) return CVG_NO_MEMORY;
  cvg_status status = read_items(graph, allocator, reader, &all);
  if (status == CVG_OK) status = rebuild(graph, allocator, &all, out, delta, fault);
  cvgi_release(allocator, all.items, all.item_room, 1);
  cvgi_release(allocator, all.states, count, sizeof *all.states);
  return status;
}

cvg_status cvg_sched_load(const cvg_graph *graph, const cvg_allocator *allocator,
                          const uint8_t *bytes, size_t size, cvg_sched **out, cvg_delta *delta,
                          cvg_fault *fault) {
  cvg_fault unread;
  if (fault == NULL) fault = &unread;
  *fault = (cvg_fault){CVG_NONE, CVG_NONE};
  if (delta == NULL) return CVG_BAD_ARGUMENT;
  cvgi_delta_clear(delta);
  if (graph == NULL || !cvgi_allocator_valid(allocator) || out == NULL) return CVG_BAD_ARGUMENT;
  if (bytes == NULL && size > 0) return CVG_BAD_ARGUMENT;
  if (size < HEADER_SIZE + CHECKSUM_SIZE || !checksum_right(bytes, size)) return CVG_BAD_BYTES;
  cvgi_reader reader = {bytes, size - CHECKSUM_SIZE, 0, 0};
  if (!read_header(graph, &reader)) return CVG_BAD_BYTES;
  return load(graph, allocator, reader, out, delta, fault);
}
