/*
** score.h: the parts of a score.
*/
#ifndef CVG_SCORE_H
#define CVG_SCORE_H

#include "convergio/kernel.h"

int cvgi_weights_valid(const cvg_weights *weights);

/* What cvg_score computes; everything is in range. */
double cvgi_score(const cvg_weights *weights, double bm25, double cosine, int64_t age_ms,
                  uint32_t importance);

/* How much a word tells that stands in `holders` of `items` items. */
double cvgi_word_weight(uint32_t items, uint32_t holders);

/* What a word adds to BM25: its weight, how often it stands in an item, and how long that is. */
double cvgi_bm25(double weight, uint32_t occurrences, uint32_t length, double mean_length);

#endif
