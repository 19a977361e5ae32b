/*
** schema.c: any text as schema, any text as value; they part at the first zero byte.
*/
#include "fuzz.h"

static void check_violation(const cvg_violation *violation, cvg_text text) {
  MUST(violation->kind > CVG_VIOLATION_NONE && violation->kind <= CVG_VIOLATION_KEYWORD_VALUE);
  MUST(violation->offset <= text.size);
  MUST(memchr(violation->path, 0, sizeof violation->path) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bytes b = {data, size};
  heap h = take_heap(&b);
  const cvg_allocator allocator = heap_allocator(&h);
  const uint8_t *zero = b.left == 0 ? NULL : memchr(b.at, 0, b.left);
  size_t schema_size = zero == NULL ? b.left : (size_t)(zero - b.at);
  const cvg_text schema_text = {(const char *)b.at, schema_size};
  const cvg_text value = {zero == NULL ? NULL : (const char *)zero + 1,
                          zero == NULL ? 0 : b.left - schema_size - 1};
  cvg_schema *schema = NULL;
  cvg_violation violation = {0, 0, 0, ""};
  cvg_status status = cvg_schema_compile(&allocator, schema_text, &schema, &violation);
  if (status == CVG_BAD_JSON || status == CVG_BAD_SCHEMA) check_violation(&violation, schema_text);
  if (status == CVG_OK) {
    status = cvg_schema_check(schema, &allocator, value, &violation);
    if (status == CVG_BAD_JSON || status == CVG_MISMATCH) check_violation(&violation, value);
    cvg_schema_free(schema);
  }
  MUST(h.lent == 0);
  return 0;
}
