/*
** call.c: what built-in tools share: arguments, memory until the call ends, and the answer.
*/
#include <string.h>

#include "memory.h"
#include "number.h"
#include "tool.h"
#include "utf8.h"

struct cvgi_block {
  cvgi_block *before;
  size_t size;
  uint8_t bytes[];
};

cvg_status cvgi_fail(cvgi_call *call, const char *why) {
  call->why = why;
  return CVG_TOOL_FAILED;
}

void *cvgi_borrow(cvgi_call *call, size_t size) {
  if (size > SIZE_MAX - sizeof(cvgi_block)) return NULL;
  cvgi_block *block = cvgi_allocate(call->allocator, 1, sizeof *block + size);
  if (block == NULL) return NULL;
  block->before = call->blocks;
  block->size = size;
  call->blocks = block;
  return block->bytes;
}

void cvgi_return_block(cvgi_call *call) {
  cvgi_block *block = call->blocks;
  call->blocks = block->before;
  cvgi_release(call->allocator, block, 1, sizeof *block + block->size);
}

uint32_t cvgi_argument(const cvgi_call *call, const char *name) {
  return cvgi_json_member(call->arguments, 0, cvgi_string_from(name));
}

cvg_status cvgi_plain(cvgi_call *call, uint32_t value, cvg_text *out) {
  cvgi_string string = cvgi_string_of(call->arguments, value);
  size_t size = (size_t)(string.end - string.at);
  *out = (cvg_text){(const char *)string.at, size};
  if (size == 0 || memchr(string.at, '\\', size) == NULL) return CVG_OK;
  uint8_t *bytes = cvgi_borrow(call, size);
  if (bytes == NULL) return CVG_NO_MEMORY;
  size_t at = 0;
  /* An escape is never shorter than what it stands for. */
  while (string.at < string.end) {
    uint8_t code_point[4];
    size_t length = cvgi_utf8_write(cvgi_string_next(&string), code_point);
    memcpy(bytes + at, code_point, length);
    at += length;
  }
  *out = (cvg_text){(const char *)bytes, at};
  return CVG_OK;
}

cvg_status cvgi_text_argument(cvgi_call *call, const char *name, cvg_text *out) {
  return cvgi_plain(call, cvgi_argument(call, name), out);
}

int64_t cvgi_int_argument(const cvgi_call *call, const char *name, int64_t otherwise) {
  uint32_t value = cvgi_argument(call, name);
  int64_t number = 0;
  if (value == CVG_NONE) return otherwise;
  return cvgi_number_int64(cvgi_json_source(call->arguments, value), &number) ? number : otherwise;
}

int cvgi_bool_argument(const cvgi_call *call, const char *name, int otherwise) {
  uint32_t value = cvgi_argument(call, name);
  if (value == CVG_NONE) return otherwise;
  return call->arguments->text[call->arguments->values[value].begin] == 't';
}

void cvgi_put(cvgi_call *call, const char *bytes, size_t size) {
  if (call->too_large || size > CVG_JSON_SIZE_MAX - call->size) {
    call->too_large = 1;
    return;
  }
  if (size > 0 && call->size < call->room) {
    size_t left = call->room - call->size;
    memcpy(call->bytes + call->size, bytes, size < left ? size : left);
  }
  call->size += size;
}

static void put_escape(cvgi_call *call, uint8_t byte) {
  static const char digits[] = "0123456789abcdef";
  static const char shorts[] = "\"\\\b\f\n\r\t";
  static const char letters[] = "\"\\bfnrt";
  const char *found = memchr(shorts, byte, sizeof shorts - 1);
  char escape[6] = {'\\', 'u', '0', '0', digits[byte >> 4], digits[byte & 15]};
  if (found == NULL) {
    cvgi_put(call, escape, 6);
  } else {
    escape[1] = letters[found - shorts];
    cvgi_put(call, escape, 2);
  }
}

void cvgi_put_escaped(cvgi_call *call, const char *bytes, size_t size) {
  size_t begin = 0;
  for (size_t i = 0; i < size; i++) {
    uint8_t byte = (uint8_t)bytes[i];
    if (byte >= 0x20 && byte != '"' && byte != '\\') continue;
    cvgi_put(call, bytes + begin, i - begin);
    put_escape(call, byte);
    begin = i + 1;
  }
  if (size > begin) cvgi_put(call, bytes + begin, size - begin);
}

void cvgi_put_string(cvgi_call *call, cvg_text text) {
  cvgi_put(call, "\"", 1);
  cvgi_put_escaped(call, text.bytes, text.size);
  cvgi_put(call, "\"", 1);
}

void cvgi_put_padded(cvgi_call *call, int64_t value, int width) {
  char digits[24];
  size_t at = sizeof digits;
  uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
  do {
    digits[--at] = (char)('0' + left % 10);
    left /= 10;
    width--;
  } while (left > 0 || (width > 0 && at > 1));
  if (value < 0) digits[--at] = '-';
  cvgi_put(call, digits + at, sizeof digits - at);
}

void cvgi_put_int(cvgi_call *call, int64_t value) {
  cvgi_put_padded(call, value, 1);
}

void cvgi_put_bool(cvgi_call *call, int value) {
  cvgi_put(call, value ? "true" : "false", value ? 4 : 5);
}

size_t cvgi_find(cvg_text text, size_t at, cvg_text needle) {
  while (needle.size <= text.size && at <= text.size - needle.size) {
    const char *found = memchr(text.bytes + at, needle.bytes[0], text.size - needle.size - at + 1);
    if (found == NULL) break;
    if (memcmp(found, needle.bytes, needle.size) == 0) return (size_t)(found - text.bytes);
    at = (size_t)(found - text.bytes) + 1;
  }
  return text.size;
}
