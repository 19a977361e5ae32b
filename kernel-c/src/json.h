/*
** json.h: a JSON text as an array of values, in the order of the text.
*/
#ifndef CVG_JSON_H
#define CVG_JSON_H

#include "convergio/kernel.h"

/* Types are bits, so that a set of them is their union. */
#define CVGI_NULL 1u
#define CVGI_BOOLEAN 2u
#define CVGI_NUMBER 4u
#define CVGI_STRING 8u
#define CVGI_ARRAY 16u
#define CVGI_OBJECT 32u

/* The first child of a container is the value behind it. */
typedef struct cvgi_value {
  uint32_t begin; /* of the text; strings without their quotes */
  uint32_t end;
  uint32_t key_begin; /* of a member: its key without quotes */
  uint32_t key_end;
  uint32_t parent; /* CVG_NONE for the whole */
  uint32_t next;   /* sibling, or CVG_NONE */
  uint32_t count;  /* of children */
  uint32_t type;
} cvgi_value;

/* The text is not owned. `scratch` has one place a value. */
typedef struct cvgi_document {
  const uint8_t *text;
  cvgi_value *values;
  uint32_t *scratch;
  uint32_t count;
} cvgi_document;

/* A JSON string, or a part of it, escaped as in the text; or, if `raw`, plain UTF-8. */
typedef struct cvgi_string {
  const uint8_t *at;
  const uint8_t *end;
  int raw;
} cvgi_string;

/*
** Reads a text; free the document if this succeeds. On BAD_JSON `offset` tells where the text goes
** wrong. Errors: NO_MEMORY, TOO_LARGE, BAD_JSON.
*/
cvg_status cvgi_json_read(const cvg_allocator *allocator, cvg_text text, cvgi_document *out,
                          uint32_t *offset);

void cvgi_json_free(const cvg_allocator *allocator, cvgi_document *document);

cvgi_string cvgi_string_of(const cvgi_document *document, uint32_t value);
cvgi_string cvgi_key_of(const cvgi_document *document, uint32_t value);

/* A terminated constant. */
cvgi_string cvgi_string_from(const char *text);

/* Takes the next code point; there is one. */
uint32_t cvgi_string_next(cvgi_string *string);

/* Less than, equal to or greater than 0, by code points. */
int cvgi_string_compare(cvgi_string left, cvgi_string right);

/* The member with this key, or CVG_NONE. */
uint32_t cvgi_json_member(const cvgi_document *document, uint32_t object, cvgi_string key);

/* The first child, or CVG_NONE. */
uint32_t cvgi_json_first(const cvgi_document *document, uint32_t value);

/* The kind of byte that begins a value, as it stands in the text with its quotes. */
cvg_text cvgi_json_source(const cvgi_document *document, uint32_t value);

/* Writes the JSON pointer to a value, terminated and cut to `size` bytes. */
void cvgi_json_path(const cvgi_document *document, uint32_t value, char *path, size_t size);

/* Deep equality as JSON Schema has it: numbers by value, members in any order. */
int cvgi_json_equal(const cvgi_document *a, uint32_t left, const cvgi_document *b, uint32_t right);

#endif
