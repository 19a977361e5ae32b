/*
** bytes.c: reading and writing little-endian bytes within their bounds.
*/
#include "bytes.h"

void cvgi_write(cvgi_writer *writer, uint64_t value, size_t count) {
  for (size_t i = 0; i < count; i++) {
    uint8_t byte = (uint8_t)(value >> 8 * i);
    if (writer->size < writer->room) writer->bytes[writer->size] = byte;
    writer->size++;
    writer->hash = cvgi_hash_byte(writer->hash, byte);
  }
}

const uint8_t *cvgi_read_bytes(cvgi_reader *reader, size_t count) {
  if (reader->failed || count > reader->size - reader->at) {
    reader->failed = 1;
    return NULL;
  }
  const uint8_t *bytes = reader->bytes + reader->at;
  reader->at += count;
  return bytes;
}

uint64_t cvgi_read(cvgi_reader *reader, size_t count) {
  const uint8_t *bytes = cvgi_read_bytes(reader, count);
  uint64_t value = 0;
  if (bytes == NULL) return 0;
  for (size_t i = count; i > 0; i--) value = value << 8 | bytes[i - 1];
  return value;
}
