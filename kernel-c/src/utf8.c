/*
** utf8.c: code points in UTF-8.
*/
#include "utf8.h"

static int continues(uint8_t byte) {
  return (byte & 0xC0) == 0x80;
}

/* What the second byte must be within: it rules out overlong forms, surrogates and the beyond. */
static int second_valid(uint8_t first, uint8_t second) {
  switch (first) {
    case 0xE0: return second >= 0xA0;
    case 0xED: return second < 0xA0;
    case 0xF0: return second >= 0x90;
    case 0xF4: return second < 0x90;
    default: return 1;
  }
}

size_t cvgi_utf8_length(const uint8_t *bytes, size_t size) {
  if (size == 0) return 0;
  uint8_t first = bytes[0];
  size_t length = first < 0x80                    ? 1
                  : first >= 0xC2 && first < 0xE0 ? 2
                  : first >= 0xE0 && first < 0xF0 ? 3
                  : first >= 0xF0 && first < 0xF5 ? 4
                                                  : 0;
  if (length == 0 || length > size) return 0;
  if (length > 1 && !second_valid(first, bytes[1])) return 0;
  for (size_t i = 1; i < length; i++) {
    if (!continues(bytes[i])) return 0;
  }
  return length;
}

uint32_t cvgi_utf8_read(const uint8_t *bytes, size_t length) {
  static const uint8_t masks[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
  uint32_t code_point = bytes[0] & masks[length];
  for (size_t i = 1; i < length; i++) code_point = code_point << 6 | (bytes[i] & 0x3Fu);
  return code_point;
}

size_t cvgi_utf8_write(uint32_t code_point, uint8_t bytes[4]) {
  if (code_point < 0x80) {
    bytes[0] = (uint8_t)code_point;
    return 1;
  }
  size_t length = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
  static const uint8_t leads[] = {0, 0, 0xC0, 0xE0, 0xF0};
  for (size_t i = length - 1; i > 0; i--) {
    bytes[i] = (uint8_t)(0x80 | (code_point & 0x3F));
    code_point >>= 6;
  }
  bytes[0] = (uint8_t)(leads[length] | code_point);
  return length;
}
