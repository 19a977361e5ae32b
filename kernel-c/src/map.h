/*
** map.h: nodes that were expanded into items, while they are in flight.
*/
#ifndef CVG_MAP_H
#define CVG_MAP_H

#include "convergio/kernel.h"

/* Items start in ascending order, so those started are [0, emitted). */
typedef struct cvgi_map {
  uint32_t width;
  uint32_t max_parallel;
  uint32_t emitted;
  uint32_t done_count;
  uint8_t done[]; /* a bit an item */
} cvgi_map;

/* Slots are never reused: `count` is how many maps the run has had. */
typedef struct cvgi_map_table {
  cvgi_map **slots;
  uint32_t count;
  uint32_t room;
} cvgi_map_table;

/* A map of which no item has started; null without memory. */
cvgi_map *cvgi_map_new(const cvg_allocator *allocator, uint32_t width, uint32_t max_parallel);

void cvgi_map_free(const cvg_allocator *allocator, cvgi_map *map);

/* Whether another item may start now. */
int cvgi_map_can_emit(const cvgi_map *map);

int cvgi_map_item_in_flight(const cvgi_map *map, uint32_t item);

void cvgi_map_item_done(cvgi_map *map, uint32_t item);

/* Makes room for `room` maps in all. 0 without memory, and the table is as it was. */
int cvgi_map_table_reserve(const cvg_allocator *allocator, cvgi_map_table *table, uint32_t room);

/* Puts a map into the next slot, for which there is room; returns the slot. */
uint32_t cvgi_map_table_add(cvgi_map_table *table, cvgi_map *map);

/* Frees the map in a slot. */
void cvgi_map_table_drop(const cvg_allocator *allocator, cvgi_map_table *table, uint32_t slot);

/* Copies every map into `to`, which is empty and has room. 0 without memory: `to` holds some. */
int cvgi_map_table_copy(const cvg_allocator *allocator, const cvgi_map_table *from,
                        cvgi_map_table *to);

/* Frees all maps and the table's own memory. */
void cvgi_map_table_free(const cvg_allocator *allocator, cvgi_map_table *table);

#endif
