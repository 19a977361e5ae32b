/*
** tools.h: may a call be made, are its arguments right, and what do the built-in tools answer. Part
** of kernel.h, whose rules hold here too. Bytes come in and bytes go out; nothing else is touched.
*/
#ifndef CONVERGIO_TOOLS_H
#define CONVERGIO_TOOLS_H

#include "kernel.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
** JSON is read strictly (RFC 8259): valid UTF-8, no lone surrogates, no duplicate keys, nothing
** behind the value, no deeper and no larger than this.
*/
#define CVG_JSON_DEPTH_MAX 64u
#define CVG_JSON_SIZE_MAX 16777216u

/* The longest JSON pointer that is told in a violation, with its terminating zero. */
#define CVG_PATH_SIZE 256u

/*
** {==================================================================
** Schema
** ===================================================================
**
** A schema is JSON Schema 2020-12 restricted to true, false and objects with these keywords: type,
** properties, required, additionalProperties, items, enum, const, minLength, maxLength (in code
** points), minItems, maxItems, minProperties, maxProperties, minimum, maximum, exclusiveMinimum,
** exclusiveMaximum (exact, at any length). title, description, default, examples, format,
** deprecated, readOnly, writeOnly, $schema, $id and $comment say nothing about validity. Any other
** keyword is CVG_BAD_SCHEMA: it belongs to a larger validator.
*/

typedef struct cvg_schema cvg_schema;

enum cvg_violation_kind {
  CVG_VIOLATION_NONE = 0,
  CVG_VIOLATION_JSON = 1,         /* not JSON at `offset` */
  CVG_VIOLATION_TYPE = 2,         /* another type is wanted */
  CVG_VIOLATION_ENUM = 3,         /* not one of enum, or not const */
  CVG_VIOLATION_RANGE = 4,        /* a number, length or count outside its limits */
  CVG_VIOLATION_MISSING = 5,      /* a required property is not there */
  CVG_VIOLATION_UNKNOWN = 6,      /* a property that is not allowed */
  CVG_VIOLATION_KEYWORD = 7,      /* of a schema: a keyword beyond the subset */
  CVG_VIOLATION_KEYWORD_VALUE = 8 /* of a schema: a keyword with a value that it cannot have */
};

/* The first thing that is wrong. */
typedef struct cvg_violation {
  uint32_t kind;            /* enum cvg_violation_kind */
  uint32_t offset;          /* of the value in the text that was checked */
  uint32_t schema_offset;   /* in the schema: of what the value breaks; else CVG_NONE */
  char path[CVG_PATH_SIZE]; /* JSON pointer to the value, terminated; cut when too long */
} cvg_violation;

/*
** Compiles a schema; its text is copied. `violation` may be null; it is written on BAD_JSON and
** BAD_SCHEMA. Any thread. Errors: BAD_ARGUMENT, NO_MEMORY, TOO_LARGE, BAD_JSON, BAD_SCHEMA.
*/
cvg_status cvg_schema_compile(const cvg_allocator *allocator, cvg_text schema, cvg_schema **out,
                              cvg_violation *violation);

/* Frees a schema. One thread at a time. */
void cvg_schema_free(cvg_schema *schema);

/*
** Whether a text is JSON that fits the schema. `violation` may be null; it is written on BAD_JSON
** and MISMATCH. Needs up to 44 bytes a JSON value while it works, and no recursion. Any thread.
** Errors: BAD_ARGUMENT, NO_MEMORY, TOO_LARGE, BAD_JSON, MISMATCH.
*/
cvg_status cvg_schema_check(const cvg_schema *schema, const cvg_allocator *allocator,
                            cvg_text value, cvg_violation *violation);

/* }================================================================== */

/*
** {==================================================================
** Permissions
** ===================================================================
*/

/* What a tool does beyond computing. */
enum cvg_effect {
  CVG_EFFECT_READ = 1,    /* reads files */
  CVG_EFFECT_WRITE = 2,   /* changes files */
  CVG_EFFECT_NETWORK = 4, /* talks to other machines */
  CVG_EFFECT_PROCESS = 8, /* starts programs */
  CVG_EFFECT_PEOPLE = 16, /* reaches people */
  CVG_EFFECT_MONEY = 32   /* spends money */
};

#define CVG_EFFECTS_ALL 63u

enum cvg_verdict { CVG_VERDICT_ALLOW = 0, CVG_VERDICT_ASK = 1, CVG_VERDICT_DENY = 2 };

/*
** A rule. `tools` is a tool's name, or its beginning followed by "*". A rule that denies holds for
** tools with any of `effects` (0: whatever the effects); one that allows or asks holds for tools
** all of whose effects are among `effects`.
*/
typedef struct cvg_permission {
  cvg_text tools;
  uint32_t effects; /* bits of enum cvg_effect */
  uint32_t verdict; /* enum cvg_verdict */
} cvg_permission;

/*
** The verdict over a call of `tool`, which has `effects`: DENY if a rule that denies holds, or else
** ASK if one that asks holds, or else ALLOW if one that allows holds, or else DENY. `rule` (may be
** null) gets the index of the first rule that decided, or CVG_NONE. Allocates nothing. Any thread.
** Errors: BAD_ARGUMENT.
*/
cvg_status cvg_permit(const cvg_permission *rules, size_t count, cvg_text tool, uint32_t effects,
                      uint32_t *verdict, uint32_t *rule);

/* }================================================================== */

/*
** {==================================================================
** Built-in tools
** ===================================================================
**
** text.*   length, slice, trim, lower, upper (ASCII), contains, replace, parts, join
** json.*   get (RFC 6901 pointer), keys
** math.*   add, subtract, multiply, divide, round, compare: decimals of up to 40 digits, exact;
**          divide and round go half to even
** date.*   now, add, difference, weekday: RFC 3339 in UTC, years 1 to 9999
** csv.*    parse, format: RFC 4180
*/

/* A built-in tool; the texts are constant. */
typedef struct cvg_tool {
  cvg_text name;
  cvg_text description;
  cvg_text schema; /* of its arguments */
} cvg_tool;

/* How many there are. Any thread. */
size_t cvg_tool_count(void);

/* The tool with an index below the count. Any thread. Errors: BAD_ARGUMENT. */
cvg_status cvg_tool_at(size_t index, cvg_tool *out);

/*
** Checks the arguments and answers the call: JSON into `bytes`. `now_ms` is the time that the tool
** sees, in milliseconds since 1970 UTC. `size` gets the bytes needed also when `room` is too small
** (then `bytes`, which may be null, is not to be read). `violation` (may be null) is written on
** BAD_JSON and MISMATCH. `why` (may be null) gets a constant text on TOOL_FAILED. Any thread.
** Errors: BAD_ARGUMENT, NO_MEMORY, TOO_LARGE, UNKNOWN_TOOL, BAD_JSON, MISMATCH, TOOL_FAILED,
** BUFFER_TOO_SMALL.
*/
cvg_status cvg_tool_call(const cvg_allocator *allocator, cvg_text tool, cvg_text arguments,
                         int64_t now_ms, uint8_t *bytes, size_t room, size_t *size,
                         cvg_violation *violation, const char **why);

/* }================================================================== */

#ifdef __cplusplus
}
#endif

#endif
