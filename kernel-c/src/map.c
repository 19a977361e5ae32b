/*
** map.c: nodes that were expanded into items, while they are in flight.
*/
#include "map.h"

#include <string.h>

#include "memory.h"

static size_t map_bytes(uint32_t width) {
  return sizeof(cvgi_map) + width / 8 + 1;
}

cvgi_map *cvgi_map_new(const cvg_allocator *allocator, uint32_t width, uint32_t max_parallel) {
  cvgi_map *map = cvgi_allocate(allocator, 1, map_bytes(width));
  if (map == NULL) return NULL;
  memset(map, 0, map_bytes(width));
  map->width = width;
  map->max_parallel = max_parallel;
  return map;
}

void cvgi_map_free(const cvg_allocator *allocator, cvgi_map *map) {
  if (map != NULL) cvgi_release(allocator, map, 1, map_bytes(map->width));
}

int cvgi_map_can_emit(const cvgi_map *map) {
  return map->emitted < map->width && map->emitted - map->done_count < map->max_parallel;
}

int cvgi_map_item_in_flight(const cvgi_map *map, uint32_t item) {
  return item < map->emitted && (map->done[item / 8] >> item % 8 & 1) == 0;
}

void cvgi_map_item_done(cvgi_map *map, uint32_t item) {
  map->done[item / 8] |= (uint8_t)(1u << item % 8);
  map->done_count++;
}

int cvgi_map_table_reserve(const cvg_allocator *allocator, cvgi_map_table *table, uint32_t room) {
  if (room <= table->room) return 1;
  cvgi_map **slots = cvgi_allocate(allocator, room, sizeof *slots);
  if (slots == NULL) return 0;
  if (table->count > 0) memcpy(slots, table->slots, table->count * sizeof *slots);
  cvgi_release(allocator, table->slots, table->room, sizeof *slots);
  table->slots = slots;
  table->room = room;
  return 1;
}

uint32_t cvgi_map_table_add(cvgi_map_table *table, cvgi_map *map) {
  table->slots[table->count] = map;
  return table->count++;
}

void cvgi_map_table_drop(const cvg_allocator *allocator, cvgi_map_table *table, uint32_t slot) {
  cvgi_map_free(allocator, table->slots[slot]);
  table->slots[slot] = NULL;
}

int cvgi_map_table_copy(const cvg_allocator *allocator, const cvgi_map_table *from,
                        cvgi_map_table *to) {
  for (uint32_t i = 0; i < from->count; i++) {
    const cvgi_map *map = from->slots[i];
    cvgi_map *copy = NULL;
    if (map != NULL) {
      copy = cvgi_allocate(allocator, 1, map_bytes(map->width));
      if (copy == NULL) return 0;
      memcpy(copy, map, map_bytes(map->width));
    }
    cvgi_map_table_add(to, copy);
  }
  return 1;
}

void cvgi_map_table_free(const cvg_allocator *allocator, cvgi_map_table *table) {
  for (uint32_t i = 0; i < table->count; i++) cvgi_map_free(allocator, table->slots[i]);
  cvgi_release(allocator, table->slots, table->room, sizeof *table->slots);
}
