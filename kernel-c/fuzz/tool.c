/*
** tool.c: any arguments for any built-in tool; what is answered is JSON. Rules over calls besides.
*/
#include "fuzz.h"

static void check_answer(uint8_t *answer, size_t size) {
  heap h = {SIZE_MAX, 0};
  const cvg_allocator allocator = heap_allocator(&h);
  cvg_schema *anything = NULL;
  const cvg_text text = {"true", 4}, value = {(const char *)answer, size};
  MUST(cvg_schema_compile(&allocator, text, &anything, NULL) == CVG_OK);
  MUST(cvg_schema_check(anything, &allocator, value, NULL) == CVG_OK);
  cvg_schema_free(anything);
}

static void permit(bytes b, const cvg_tool *tool) {
  cvg_permission rules[4];
  uint32_t verdict = 7, rule = 7;
  for (size_t i = 0; i < 4; i++) {
    size_t size = take_below(&b, 8);
    if (size > b.left) size = b.left;
    rules[i] = (cvg_permission){{(const char *)b.at, size}, take(&b) & 127, take_below(&b, 4)};
  }
  cvg_status status = cvg_permit(rules, 4, tool->name, take(&b) & 127, &verdict, &rule);
  if (status != CVG_OK) return;
  MUST(verdict <= CVG_VERDICT_DENY && (rule < 4 || rule == CVG_NONE));
  MUST(rule < 4 ? rules[rule].verdict == verdict : verdict == CVG_VERDICT_DENY);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint8_t answer[1 << 16];
  bytes b = {data, size};
  heap h = take_heap(&b);
  const cvg_allocator allocator = heap_allocator(&h);
  cvg_tool tool;
  size_t answer_size = 0;
  MUST(cvg_tool_at(take_below(&b, (uint32_t)cvg_tool_count()), &tool) == CVG_OK);
  permit(b, &tool);
  const cvg_text arguments = {(const char *)b.at, b.left};
  cvg_violation violation;
  const char *why = NULL;
  cvg_status status = cvg_tool_call(&allocator, tool.name, arguments, 0, answer, sizeof answer,
                                    &answer_size, &violation, &why);
  MUST(h.lent == 0);
  if (status == CVG_OK) check_answer(answer, answer_size);
  if (status == CVG_TOOL_FAILED) MUST(why != NULL);
  return 0;
}
