/*
** tool.h: what a built-in tool sees of its call.
*/
#ifndef CVG_TOOL_H
#define CVG_TOOL_H

#include "json.h"

typedef struct cvgi_block cvgi_block;

typedef struct cvgi_call {
  const cvg_allocator *allocator;
  const cvgi_document *arguments;
  int64_t now_ms;
  uint8_t *bytes; /* the answer, as far as it fits into `room` */
  size_t room;
  size_t size;
  int too_large; /* the answer is beyond CVG_JSON_SIZE_MAX; nothing more is written */
  const char *why;
  cvgi_block *blocks; /* freed when the call ends */
} cvgi_call;

/* OK, NO_MEMORY or TOOL_FAILED. The arguments fit the tool's schema. */
typedef cvg_status (*cvgi_tool)(cvgi_call *call);

/* Says why there is no answer, with a constant text; returns CVG_TOOL_FAILED. */
cvg_status cvgi_fail(cvgi_call *call, const char *why);

/* `size` (> 0) bytes until the call ends, or null. */
void *cvgi_borrow(cvgi_call *call, size_t size);

/* Gives back the block that was borrowed last; there is one. */
void cvgi_return_block(cvgi_call *call);

/* The argument with this name, or CVG_NONE. */
uint32_t cvgi_argument(const cvgi_call *call, const char *name);

/* A string value in plain UTF-8. Errors: NO_MEMORY. */
cvg_status cvgi_plain(cvgi_call *call, uint32_t value, cvg_text *out);

/* The string argument with this name, which is there. Errors: NO_MEMORY. */
cvg_status cvgi_text_argument(cvgi_call *call, const char *name, cvg_text *out);

/* A whole argument, or `otherwise` if it is not there or does not fit into 64 bits. */
int64_t cvgi_int_argument(const cvgi_call *call, const char *name, int64_t otherwise);

/* A boolean argument, or `otherwise` if it is not there. */
int cvgi_bool_argument(const cvgi_call *call, const char *name, int otherwise);

/* Writes to the answer: bytes as they are, a string with quotes and escapes, a number, a word. */
void cvgi_put(cvgi_call *call, const char *bytes, size_t size);
void cvgi_put_string(cvgi_call *call, cvg_text text);
void cvgi_put_int(cvgi_call *call, int64_t value);
void cvgi_put_bool(cvgi_call *call, int value);

/* A string in parts: a quote, any number of parts, a quote. */
void cvgi_put_escaped(cvgi_call *call, const char *bytes, size_t size);

/* Writes `value` with at least `width` digits. */
void cvgi_put_padded(cvgi_call *call, int64_t value, int width);

/* Where `needle` (not empty) first begins in [at, size) of the text, or its size. */
size_t cvgi_find(cvg_text text, size_t at, cvg_text needle);

cvg_status cvgi_text_length(cvgi_call *call);
cvg_status cvgi_text_slice(cvgi_call *call);
cvg_status cvgi_text_trim(cvgi_call *call);
cvg_status cvgi_text_lower(cvgi_call *call);
cvg_status cvgi_text_upper(cvgi_call *call);
cvg_status cvgi_text_contains(cvgi_call *call);
cvg_status cvgi_text_replace(cvgi_call *call);
cvg_status cvgi_text_parts(cvgi_call *call);
cvg_status cvgi_text_join(cvgi_call *call);
cvg_status cvgi_json_get(cvgi_call *call);
cvg_status cvgi_json_keys(cvgi_call *call);
cvg_status cvgi_math_add(cvgi_call *call);
cvg_status cvgi_math_subtract(cvgi_call *call);
cvg_status cvgi_math_multiply(cvgi_call *call);
cvg_status cvgi_math_divide(cvgi_call *call);
cvg_status cvgi_math_round(cvgi_call *call);
cvg_status cvgi_math_compare(cvgi_call *call);
cvg_status cvgi_date_now(cvgi_call *call);
cvg_status cvgi_date_add(cvgi_call *call);
cvg_status cvgi_date_difference(cvgi_call *call);
cvg_status cvgi_date_weekday(cvgi_call *call);
cvg_status cvgi_csv_parse(cvgi_call *call);
cvg_status cvgi_csv_format(cvgi_call *call);

#endif
