/*
** schema.c: compiles a JSON Schema of the subset into rules.
*/
#include "schema.h"

#include <string.h>

#include "memory.h"
#include "number.h"
#include "sort.h"

#define SCHEMA_SIZE_MAX 262144u

typedef struct strings {
  const cvgi_document *document;
  int by_key;
} strings;

static cvgi_string string_at(const strings *s, uint32_t value) {
  return s->by_key ? cvgi_key_of(s->document, value) : cvgi_string_of(s->document, value);
}

static int string_before(const void *context, const void *left, const void *right) {
  const uint32_t *a = left, *b = right;
  return cvgi_string_compare(string_at(context, *a), string_at(context, *b)) < 0;
}

void cvgi_sort_strings(const cvgi_document *document, uint32_t *values, uint32_t count,
                       int by_key) {
  const strings s = {document, by_key};
  cvgi_sort(values, count, sizeof *values, string_before, &s);
}

uint32_t cvgi_find_string(const cvgi_document *document, const uint32_t *values, uint32_t count,
                          int by_key, cvgi_string wanted) {
  const strings s = {document, by_key};
  uint32_t begin = 0, end = count;
  while (begin < end) {
    uint32_t middle = begin + (end - begin) / 2;
    int order = cvgi_string_compare(string_at(&s, values[middle]), wanted);
    if (order == 0) return values[middle];
    if (order < 0) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return CVG_NONE;
}

void cvgi_violate_json(cvg_violation *violation, uint32_t offset) {
  if (violation == NULL) return;
  *violation = (cvg_violation){CVG_VIOLATION_JSON, offset, CVG_NONE, ""};
}

void cvgi_violate(cvg_violation *violation, uint32_t kind, const cvgi_document *document,
                  uint32_t value, uint32_t schema_offset) {
  if (violation == NULL) return;
  violation->kind = kind;
  violation->offset = document->values[value].begin;
  violation->schema_offset = schema_offset;
  cvgi_json_path(document, value, violation->path, sizeof violation->path);
}

/* What goes on while a schema is compiled; `wrong` and `kind` tell the first mistake. */
typedef struct compiler {
  cvg_schema *schema;
  const cvgi_document *document;
  cvgi_rule *rule;
  uint32_t wrong;
  uint32_t kind;
} compiler;

static const cvgi_value *at(const compiler *c, uint32_t value) {
  return &c->document->values[value];
}

static int has_type(const compiler *c, uint32_t value, uint32_t types) {
  return (at(c, value)->type & types) != 0;
}

static uint32_t add_rule(compiler *c, uint32_t value) {
  c->schema->rule_of[value] = c->schema->rule_count;
  return c->schema->rule_count++;
}

/* A subschema, which is compiled when its turn comes. */
static int subschema(compiler *c, uint32_t value, uint32_t *rule) {
  *rule = add_rule(c, value);
  return has_type(c, value, CVGI_OBJECT | CVGI_BOOLEAN);
}

static uint32_t type_named(cvgi_string name) {
  static const struct {
    const char *name;
    uint32_t type;
  } types[] = {{"null", CVGI_NULL},      {"boolean", CVGI_BOOLEAN}, {"object", CVGI_OBJECT},
               {"array", CVGI_ARRAY},    {"number", CVGI_NUMBER},   {"string", CVGI_STRING},
               {"integer", CVGI_INTEGER}};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    if (cvgi_string_compare(name, cvgi_string_from(types[i].name)) == 0) return types[i].type;
  }
  return 0;
}

static int add_type(compiler *c, uint32_t value) {
  if (!has_type(c, value, CVGI_STRING)) return 0;
  uint32_t type = type_named(cvgi_string_of(c->document, value));
  c->rule->types |= type;
  return type != 0;
}

static int on_type(compiler *c, uint32_t value) {
  c->rule->types = 0;
  if (!has_type(c, value, CVGI_ARRAY)) return add_type(c, value);
  uint32_t child = cvgi_json_first(c->document, value);
  if (child == CVG_NONE) return 0;
  for (; child != CVG_NONE; child = at(c, child)->next) {
    if (!add_type(c, child)) return 0;
  }
  return 1;
}

/* The children of a value, sorted. */
static void collect(compiler *c, uint32_t value, int by_key, uint32_t *begin, uint32_t *count) {
  uint32_t *list = c->schema->sorted + c->schema->sorted_count;
  uint32_t child = cvgi_json_first(c->document, value);
  *begin = c->schema->sorted_count;
  *count = at(c, value)->count;
  for (uint32_t i = 0; child != CVG_NONE; child = at(c, child)->next) list[i++] = child;
  cvgi_sort_strings(c->document, list, *count, by_key);
  c->schema->sorted_count += *count;
}

static int on_properties(compiler *c, uint32_t value) {
  uint32_t rule;
  if (!has_type(c, value, CVGI_OBJECT)) return 0;
  uint32_t child = cvgi_json_first(c->document, value);
  for (; child != CVG_NONE; child = at(c, child)->next) {
    if (!subschema(c, child, &rule)) return 0;
  }
  collect(c, value, 1, &c->rule->properties_begin, &c->rule->properties_count);
  return 1;
}

static int on_required(compiler *c, uint32_t value) {
  if (!has_type(c, value, CVGI_ARRAY)) return 0;
  uint32_t child = cvgi_json_first(c->document, value);
  for (; child != CVG_NONE; child = at(c, child)->next) {
    if (!has_type(c, child, CVGI_STRING)) return 0;
  }
  collect(c, value, 0, &c->rule->required_begin, &c->rule->required_count);
  return 1;
}

static int on_additional(compiler *c, uint32_t value) {
  return subschema(c, value, &c->rule->additional);
}

static int on_items(compiler *c, uint32_t value) {
  return subschema(c, value, &c->rule->items);
}

static int on_enum(compiler *c, uint32_t value) {
  c->rule->enumeration = value;
  return has_type(c, value, CVGI_ARRAY);
}

static int on_const(compiler *c, uint32_t value) {
  c->rule->constant = value;
  return 1;
}

static int number_into(const compiler *c, uint32_t value, uint32_t *field) {
  *field = value;
  return has_type(c, value, CVGI_NUMBER);
}

static int count_into(const compiler *c, uint32_t value, uint32_t *field) {
  if (!has_type(c, value, CVGI_NUMBER)) return 0;
  *field = cvgi_number_count(cvgi_json_source(c->document, value));
  return *field != CVG_NONE;
}

static int on_minimum(compiler *c, uint32_t value) {
  return number_into(c, value, &c->rule->minimum);
}

static int on_maximum(compiler *c, uint32_t value) {
  return number_into(c, value, &c->rule->maximum);
}

static int on_exclusive_minimum(compiler *c, uint32_t value) {
  return number_into(c, value, &c->rule->exclusive_minimum);
}

static int on_exclusive_maximum(compiler *c, uint32_t value) {
  return number_into(c, value, &c->rule->exclusive_maximum);
}

static int on_min_length(compiler *c, uint32_t value) {
  return count_into(c, value, &c->rule->length[0]);
}

static int on_max_length(compiler *c, uint32_t value) {
  return count_into(c, value, &c->rule->length[1]);
}

static int on_min_items(compiler *c, uint32_t value) {
  return count_into(c, value, &c->rule->items_count[0]);
}

static int on_max_items(compiler *c, uint32_t value) {
  return count_into(c, value, &c->rule->items_count[1]);
}

static int on_min_properties(compiler *c, uint32_t value) {
  return count_into(c, value, &c->rule->members_count[0]);
}

static int on_max_properties(compiler *c, uint32_t value) {
  return count_into(c, value, &c->rule->members_count[1]);
}

static int on_note(compiler *c, uint32_t value) {
  (void)c;
  (void)value;
  return 1;
}

typedef int (*keyword_compiler)(compiler *c, uint32_t value);

static const struct {
  const char *name;
  keyword_compiler compile;
} keywords[] = {
    {"type", on_type},
    {"properties", on_properties},
    {"required", on_required},
    {"additionalProperties", on_additional},
    {"items", on_items},
    {"enum", on_enum},
    {"const", on_const},
    {"minimum", on_minimum},
    {"maximum", on_maximum},
    {"exclusiveMinimum", on_exclusive_minimum},
    {"exclusiveMaximum", on_exclusive_maximum},
    {"minLength", on_min_length},
    {"maxLength", on_max_length},
    {"minItems", on_min_items},
    {"maxItems", on_max_items},
    {"minProperties", on_min_properties},
    {"maxProperties", on_max_properties},
    {"title", on_note},
    {"description", on_note},
    {"default", on_note},
    {"examples", on_note},
    {"format", on_note},
    {"deprecated", on_note},
    {"readOnly", on_note},
    {"writeOnly", on_note},
    {"$schema", on_note},
    {"$id", on_note},
    {"$comment", on_note},
};

static keyword_compiler keyword_named(cvgi_string name) {
  for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++) {
    if (cvgi_string_compare(name, cvgi_string_from(keywords[i].name)) == 0) {
      return keywords[i].compile;
    }
  }
  return NULL;
}

static int wrong(compiler *c, uint32_t value, uint32_t kind) {
  c->wrong = value;
  c->kind = kind;
  return 0;
}

static int compile_rule(compiler *c, uint32_t source) {
  const cvgi_rule anything = {.source = source,
                              .types = CVGI_ANY_TYPE,
                              .constant = CVG_NONE,
                              .enumeration = CVG_NONE,
                              .minimum = CVG_NONE,
                              .maximum = CVG_NONE,
                              .exclusive_minimum = CVG_NONE,
                              .exclusive_maximum = CVG_NONE,
                              .length = {0, CVG_NONE},
                              .items_count = {0, CVG_NONE},
                              .members_count = {0, CVG_NONE},
                              .additional = CVG_NONE,
                              .items = CVG_NONE};
  c->rule = &c->schema->rules[c->schema->rule_of[source]];
  *c->rule = anything;
  if (has_type(c, source, CVGI_BOOLEAN)) {
    if (c->document->text[at(c, source)->begin] == 'f') c->rule->types = 0;
    return 1;
  }
  if (!has_type(c, source, CVGI_OBJECT)) return wrong(c, source, CVG_VIOLATION_KEYWORD_VALUE);
  uint32_t member = cvgi_json_first(c->document, source);
  for (; member != CVG_NONE; member = at(c, member)->next) {
    keyword_compiler compile = keyword_named(cvgi_key_of(c->document, member));
    if (compile == NULL) return wrong(c, member, CVG_VIOLATION_KEYWORD);
    if (!compile(c, member)) return wrong(c, member, CVG_VIOLATION_KEYWORD_VALUE);
  }
  return 1;
}

/* Subschemas stand behind the schema that names them. */
static cvg_status compile_rules(cvg_schema *schema, cvg_violation *violation) {
  compiler c = {schema, &schema->document, NULL, 0, 0};
  uint32_t count = schema->document.count;
  for (uint32_t i = 0; i < count; i++) schema->rule_of[i] = CVG_NONE;
  (void)add_rule(&c, 0);
  for (uint32_t i = 0; i < count; i++) {
    if (schema->rule_of[i] == CVG_NONE || compile_rule(&c, i)) continue;
    cvgi_violate(violation, c.kind, &schema->document, c.wrong, CVG_NONE);
    return CVG_BAD_SCHEMA;
  }
  return CVG_OK;
}

void cvg_schema_free(cvg_schema *schema) {
  if (schema == NULL) return;
  const cvg_allocator allocator = schema->allocator;
  size_t rule_bytes = sizeof(cvgi_rule) + 2 * sizeof(uint32_t);
  cvgi_release(&allocator, schema->rules, schema->document.count, rule_bytes);
  if (schema->document.values != NULL) cvgi_json_free(&allocator, &schema->document);
  cvgi_release(&allocator, schema->text, schema->text_size + 1, 1);
  cvgi_release(&allocator, schema, 1, sizeof *schema);
}

static cvg_status fill(cvg_schema *schema, cvg_text text, cvg_violation *violation) {
  const cvg_allocator *allocator = &schema->allocator;
  uint32_t offset = 0;
  schema->text = cvgi_allocate(allocator, text.size + 1, 1);
  if (schema->text == NULL) return CVG_NO_MEMORY;
  schema->text_size = text.size;
  if (text.size > 0) memcpy(schema->text, text.bytes, text.size);
  const cvg_text copy = {(const char *)schema->text, text.size};
  cvg_status status = cvgi_json_read(allocator, copy, &schema->document, &offset);
  if (status == CVG_BAD_JSON) cvgi_violate_json(violation, offset);
  if (status != CVG_OK) {
    schema->document = (cvgi_document){NULL, NULL, NULL, 0};
    return status;
  }
  size_t rule_bytes = sizeof(cvgi_rule) + 2 * sizeof(uint32_t);
  schema->rules = cvgi_allocate(allocator, schema->document.count, rule_bytes);
  if (schema->rules == NULL) return CVG_NO_MEMORY;
  schema->rule_of = (uint32_t *)(schema->rules + schema->document.count);
  schema->sorted = schema->rule_of + schema->document.count;
  return compile_rules(schema, violation);
}

cvg_status cvg_schema_compile(const cvg_allocator *allocator, cvg_text schema, cvg_schema **out,
                              cvg_violation *violation) {
  if (!cvgi_allocator_valid(allocator) || out == NULL) return CVG_BAD_ARGUMENT;
  if (schema.bytes == NULL && schema.size > 0) return CVG_BAD_ARGUMENT;
  if (schema.size > SCHEMA_SIZE_MAX) return CVG_TOO_LARGE;
  cvg_schema *built = cvgi_allocate(allocator, 1, sizeof *built);
  if (built == NULL) return CVG_NO_MEMORY;
  memset(built, 0, sizeof *built);
  built->allocator = *allocator;
  cvg_status status = fill(built, schema, violation);
  if (status == CVG_OK) {
    *out = built;
  } else {
    cvg_schema_free(built);
  }
  return status;
}
