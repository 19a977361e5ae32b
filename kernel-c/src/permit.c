/*
** permit.c: may a tool be called?
*/
#include <string.h>

#include "convergio/kernel.h"

static int name_matches(cvg_text pattern, cvg_text tool) {
  size_t size = pattern.size;
  int is_prefix = size > 0 && pattern.bytes[size - 1] == '*';
  if (is_prefix) size--;
  if (is_prefix ? tool.size < size : tool.size != size) return 0;
  return size == 0 || memcmp(pattern.bytes, tool.bytes, size) == 0;
}

static int holds(const cvg_permission *rule, cvg_text tool, uint32_t effects) {
  if (!name_matches(rule->tools, tool)) return 0;
  if (rule->verdict == CVG_VERDICT_DENY) {
    return rule->effects == 0 || (rule->effects & effects) != 0;
  }
  return (effects & ~rule->effects) == 0;
}

static int text_valid(cvg_text text) {
  return text.bytes != NULL || text.size == 0;
}

static int all_valid(const cvg_permission *rules, size_t count, cvg_text tool, uint32_t effects) {
  if (!text_valid(tool) || (effects & ~CVG_EFFECTS_ALL) != 0) return 0;
  for (size_t i = 0; i < count; i++) {
    if (!text_valid(rules[i].tools) || (rules[i].effects & ~CVG_EFFECTS_ALL) != 0) return 0;
    if (rules[i].verdict > CVG_VERDICT_DENY) return 0;
  }
  return 1;
}

cvg_status cvg_permit(const cvg_permission *rules, size_t count, cvg_text tool, uint32_t effects,
                      uint32_t *verdict, uint32_t *rule) {
  if (verdict == NULL || (rules == NULL && count > 0)) return CVG_BAD_ARGUMENT;
  if (count >= CVG_NONE || !all_valid(rules, count, tool, effects)) return CVG_BAD_ARGUMENT;
  uint32_t strictest = CVG_VERDICT_DENY, decided_by = CVG_NONE;
  for (uint32_t i = 0; i < count; i++) {
    if (!holds(&rules[i], tool, effects)) continue;
    if (decided_by != CVG_NONE && rules[i].verdict <= strictest) continue;
    strictest = rules[i].verdict;
    decided_by = i;
  }
  *verdict = strictest;
  if (rule != NULL) *rule = decided_by;
  return CVG_OK;
}
