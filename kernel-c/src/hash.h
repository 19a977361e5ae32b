/*
** hash.h: a 64-bit hash that is the same on every machine; not meant to withstand forgery.
*/
#ifndef CVG_HASH_H
#define CVG_HASH_H

#include <stddef.h>
#include <stdint.h>

/* FNV-1a's offset basis and prime. */
#define CVGI_HASH_START 0xCBF29CE484222325u
#define CVGI_HASH_PRIME 0x00000100000001B3u

/* Adds a byte: FNV-1a. */
static inline uint64_t cvgi_hash_byte(uint64_t hash, uint8_t byte) {
  return (hash ^ byte) * CVGI_HASH_PRIME;
}

/* Adds a 32-bit word at once; the shift lets high bits count for what follows. */
static inline uint64_t cvgi_hash_word(uint64_t hash, uint32_t word) {
  hash = (hash ^ word) * CVGI_HASH_PRIME;
  return hash ^ hash >> 29;
}

/* The FNV-1a hash of bytes, going on from `hash`. */
static inline uint64_t cvgi_hash_bytes(uint64_t hash, const uint8_t *bytes, size_t size) {
  for (size_t i = 0; i < size; i++) hash = cvgi_hash_byte(hash, bytes[i]);
  return hash;
}

#endif
