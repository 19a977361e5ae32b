/*
** schema.h: a compiled schema, as rules that a single pass over a JSON document applies.
*/
#ifndef CVG_SCHEMA_H
#define CVG_SCHEMA_H

#include "json.h"

/* A number without fraction, in a rule's types. */
#define CVGI_INTEGER 64u
#define CVGI_ANY_TYPE 127u

/* What a subschema demands. Values and lists lie in the schema's document. */
typedef struct cvgi_rule {
  uint32_t source; /* the subschema */
  uint32_t types;  /* allowed */
  uint32_t constant;
  uint32_t enumeration;
  uint32_t minimum;
  uint32_t maximum;
  uint32_t exclusive_minimum;
  uint32_t exclusive_maximum;
  uint32_t length[2]; /* least and most, in code points */
  uint32_t items_count[2];
  uint32_t members_count[2];
  uint32_t properties_begin; /* of the sorted members, in `sorted` */
  uint32_t properties_count;
  uint32_t required_begin; /* of the sorted strings, in `sorted` */
  uint32_t required_count;
  uint32_t additional; /* rule of members that properties does not name, or CVG_NONE */
  uint32_t items;      /* rule of items, or CVG_NONE */
} cvgi_rule;

struct cvg_schema {
  cvg_allocator allocator;
  cvgi_document document; /* its text is `text` */
  uint8_t *text;
  size_t text_size;
  cvgi_rule *rules;
  uint32_t *rule_of; /* of each value of the document, or CVG_NONE */
  uint32_t *sorted;
  uint32_t rule_count;
  uint32_t sorted_count;
};

/* Notes what is wrong with a value of a document. `violation` may be null. */
void cvgi_violate(cvg_violation *violation, uint32_t kind, const cvgi_document *document,
                  uint32_t value, uint32_t schema_offset);

/* Notes that a text is no JSON at `offset`. */
void cvgi_violate_json(cvg_violation *violation, uint32_t offset);

/* Whether a document, whose scratch is used, fits the schema. NO_MEMORY, MISMATCH or OK. */
cvg_status cvgi_schema_check(const cvg_schema *schema, const cvg_allocator *allocator,
                             const cvgi_document *document, cvg_violation *violation);

/* Sorts values by their keys, or else by themselves as strings. */
void cvgi_sort_strings(const cvgi_document *document, uint32_t *values, uint32_t count, int by_key);

/* One of the sorted values, or CVG_NONE. */
uint32_t cvgi_find_string(const cvgi_document *document, const uint32_t *values, uint32_t count,
                          int by_key, cvgi_string wanted);

#endif
