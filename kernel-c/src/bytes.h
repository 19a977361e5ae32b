/*
** bytes.h: reading and writing little-endian bytes within their bounds.
*/
#ifndef CVG_BYTES_H
#define CVG_BYTES_H

#include "hash.h"

/* Counts and hashes what is written, and keeps it as far as there is room. */
typedef struct cvgi_writer {
  uint8_t *bytes; /* may be null when `room` is 0 */
  size_t room;
  size_t size;
  uint64_t hash;
} cvgi_writer;

/* A read beyond the end yields 0 and sets `failed`. */
typedef struct cvgi_reader {
  const uint8_t *bytes;
  size_t size;
  size_t at;
  int failed;
} cvgi_reader;

/* Writes the lowest `count` (up to 8) bytes of a value. */
void cvgi_write(cvgi_writer *writer, uint64_t value, size_t count);

uint64_t cvgi_read(cvgi_reader *reader, size_t count);

/* A pointer to the next `count` bytes; null, and failed, if there are fewer. */
const uint8_t *cvgi_read_bytes(cvgi_reader *reader, size_t count);

#endif
