/*
** check.c: applies a schema to a document, in one pass and without recursion.
**
** Parents come before their children, so each value finds the rule that its parent gave it.
*/
#include "memory.h"
#include "number.h"
#include "schema.h"

typedef struct checker {
  const cvg_schema *schema;
  const cvgi_document *document;
  uint32_t *rules; /* of each value, or CVG_NONE */
  cvg_violation *violation;
} checker;

/* Where in the schema's text the value of a rule's keyword lies. */
static uint32_t keyword_offset(const cvg_schema *schema, const cvgi_rule *rule,
                               const char *keyword) {
  const cvgi_document *document = &schema->document;
  uint32_t value = rule->source;
  if (document->values[value].type == CVGI_OBJECT) {
    uint32_t member = cvgi_json_member(document, value, cvgi_string_from(keyword));
    if (member != CVG_NONE) value = member;
  }
  return document->values[value].begin;
}

static int broken(const checker *c, uint32_t kind, uint32_t value, const cvgi_rule *rule,
                  const char *keyword) {
  cvgi_violate(c->violation, kind, c->document, value, keyword_offset(c->schema, rule, keyword));
  return 0;
}

static int type_fits(const checker *c, uint32_t value, const cvgi_rule *rule) {
  uint32_t type = c->document->values[value].type;
  if ((type & rule->types) != 0) return 1;
  return type == CVGI_NUMBER && (rule->types & CVGI_INTEGER) != 0 &&
         cvgi_number_is_whole(cvgi_json_source(c->document, value));
}

static int is_listed(const checker *c, uint32_t value, uint32_t list) {
  const cvgi_document *schema = &c->schema->document;
  uint32_t child = cvgi_json_first(schema, list);
  while (child != CVG_NONE && !cvgi_json_equal(schema, child, c->document, value)) {
    child = schema->values[child].next;
  }
  return child != CVG_NONE;
}

/* How a number compares with a limit of the schema; 0 if there is no limit. */
static int compare(const checker *c, uint32_t value, uint32_t limit) {
  if (limit == CVG_NONE) return 0;
  return cvgi_number_compare(cvgi_json_source(c->document, value),
                             cvgi_json_source(&c->schema->document, limit));
}

static int check_number(const checker *c, uint32_t value, const cvgi_rule *rule) {
  const uint32_t kind = CVG_VIOLATION_RANGE;
  if (compare(c, value, rule->minimum) < 0) return broken(c, kind, value, rule, "minimum");
  if (compare(c, value, rule->maximum) > 0) return broken(c, kind, value, rule, "maximum");
  if (rule->exclusive_minimum != CVG_NONE && compare(c, value, rule->exclusive_minimum) <= 0) {
    return broken(c, kind, value, rule, "exclusiveMinimum");
  }
  if (rule->exclusive_maximum != CVG_NONE && compare(c, value, rule->exclusive_maximum) >= 0) {
    return broken(c, kind, value, rule, "exclusiveMaximum");
  }
  return 1;
}

static int check_count(const checker *c, uint32_t value, const cvgi_rule *rule, uint32_t count,
                       const uint32_t limits[2], const char *const keywords[2]) {
  if (count < limits[0]) return broken(c, CVG_VIOLATION_RANGE, value, rule, keywords[0]);
  if (count > limits[1]) return broken(c, CVG_VIOLATION_RANGE, value, rule, keywords[1]);
  return 1;
}

static int check_string(const checker *c, uint32_t value, const cvgi_rule *rule) {
  static const char *const keywords[] = {"minLength", "maxLength"};
  cvgi_string string = cvgi_string_of(c->document, value);
  uint32_t length = 0;
  if (rule->length[0] == 0 && rule->length[1] == CVG_NONE) return 1;
  for (; string.at < string.end; length++) (void)cvgi_string_next(&string);
  return check_count(c, value, rule, length, rule->length, keywords);
}

static int check_array(const checker *c, uint32_t value, const cvgi_rule *rule) {
  static const char *const keywords[] = {"minItems", "maxItems"};
  uint32_t child = cvgi_json_first(c->document, value);
  for (; child != CVG_NONE; child = c->document->values[child].next) c->rules[child] = rule->items;
  return check_count(c, value, rule, c->document->values[value].count, rule->items_count, keywords);
}

/* The scratch is free between two values. */
static int check_required(const checker *c, uint32_t value, const cvgi_rule *rule) {
  uint32_t *members = c->document->scratch, count = 0;
  const uint32_t *required = c->schema->sorted + rule->required_begin;
  uint32_t child = cvgi_json_first(c->document, value);
  if (rule->required_count == 0) return 1;
  for (; child != CVG_NONE; child = c->document->values[child].next) members[count++] = child;
  cvgi_sort_strings(c->document, members, count, 1);
  for (uint32_t i = 0; i < rule->required_count; i++) {
    cvgi_string key = cvgi_string_of(&c->schema->document, required[i]);
    if (cvgi_find_string(c->document, members, count, 1, key) != CVG_NONE) continue;
    uint32_t offset = c->schema->document.values[required[i]].begin;
    cvgi_violate(c->violation, CVG_VIOLATION_MISSING, c->document, value, offset);
    return 0;
  }
  return 1;
}

static int check_object(const checker *c, uint32_t value, const cvgi_rule *rule) {
  static const char *const keywords[] = {"minProperties", "maxProperties"};
  const uint32_t *properties = c->schema->sorted + rule->properties_begin;
  uint32_t child = cvgi_json_first(c->document, value);
  for (; child != CVG_NONE; child = c->document->values[child].next) {
    uint32_t property = cvgi_find_string(&c->schema->document, properties, rule->properties_count,
                                         1, cvgi_key_of(c->document, child));
    if (property != CVG_NONE) {
      c->rules[child] = c->schema->rule_of[property];
      continue;
    }
    c->rules[child] = rule->additional;
    if (rule->additional != CVG_NONE && c->schema->rules[rule->additional].types == 0) {
      return broken(c, CVG_VIOLATION_UNKNOWN, child, rule, "additionalProperties");
    }
  }
  if (!check_required(c, value, rule)) return 0;
  return check_count(c, value, rule, c->document->values[value].count, rule->members_count,
                     keywords);
}

static int check_value(const checker *c, uint32_t value, const cvgi_rule *rule) {
  if (!type_fits(c, value, rule)) return broken(c, CVG_VIOLATION_TYPE, value, rule, "type");
  if (rule->constant != CVG_NONE &&
      !cvgi_json_equal(&c->schema->document, rule->constant, c->document, value)) {
    return broken(c, CVG_VIOLATION_ENUM, value, rule, "const");
  }
  if (rule->enumeration != CVG_NONE && !is_listed(c, value, rule->enumeration)) {
    return broken(c, CVG_VIOLATION_ENUM, value, rule, "enum");
  }
  switch (c->document->values[value].type) {
    case CVGI_NUMBER: return check_number(c, value, rule);
    case CVGI_STRING: return check_string(c, value, rule);
    case CVGI_ARRAY: return check_array(c, value, rule);
    case CVGI_OBJECT: return check_object(c, value, rule);
    default: return 1;
  }
}

cvg_status cvgi_schema_check(const cvg_schema *schema, const cvg_allocator *allocator,
                             const cvgi_document *document, cvg_violation *violation) {
  uint32_t *rules = cvgi_allocate(allocator, document->count, sizeof *rules);
  if (rules == NULL) return CVG_NO_MEMORY;
  const checker c = {schema, document, rules, violation};
  cvg_status status = CVG_OK;
  for (uint32_t i = 0; i < document->count; i++) rules[i] = CVG_NONE;
  rules[0] = 0;
  for (uint32_t i = 0; i < document->count && status == CVG_OK; i++) {
    if (rules[i] == CVG_NONE || check_value(&c, i, &schema->rules[rules[i]])) continue;
    status = CVG_MISMATCH;
  }
  cvgi_release(allocator, rules, document->count, sizeof *rules);
  return status;
}

cvg_status cvg_schema_check(const cvg_schema *schema, const cvg_allocator *allocator,
                            cvg_text value, cvg_violation *violation) {
  cvgi_document document;
  uint32_t offset = 0;
  if (schema == NULL || !cvgi_allocator_valid(allocator)) return CVG_BAD_ARGUMENT;
  if (value.bytes == NULL && value.size > 0) return CVG_BAD_ARGUMENT;
  cvg_status status = cvgi_json_read(allocator, value, &document, &offset);
  if (status == CVG_BAD_JSON) cvgi_violate_json(violation, offset);
  if (status != CVG_OK) return status;
  status = cvgi_schema_check(schema, allocator, &document, violation);
  cvgi_json_free(allocator, &document);
  return status;
}
