/*
** utf8.h: code points in UTF-8.
*/
#ifndef CVG_UTF8_H
#define CVG_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* The length of the code point that valid bytes begin with; 0 if they are not valid or too few. */
size_t cvgi_utf8_length(const uint8_t *bytes, size_t size);

/* The code point that valid bytes begin with. */
uint32_t cvgi_utf8_read(const uint8_t *bytes, size_t length);

/* Writes a code point, up to 4 bytes; returns how many. */
size_t cvgi_utf8_write(uint32_t code_point, uint8_t bytes[4]);

#endif
