/*
** number.h: JSON numbers compared by value, at any length.
*/
#ifndef CVG_NUMBER_H
#define CVG_NUMBER_H

#include "convergio/kernel.h"

/* Less than, equal to or greater than 0. Both are JSON numbers. */
int cvgi_number_compare(cvg_text left, cvg_text right);

/* Whether the value is whole. */
int cvgi_number_is_whole(cvg_text number);

/* The value, if it is whole and from 0 to UINT32_MAX - 1; else CVG_NONE. */
uint32_t cvgi_number_count(cvg_text number);

/* The value, if it is whole and fits; 0 otherwise. */
int cvgi_number_int64(cvg_text number, int64_t *out);

#endif
