/*
** words.h: which items hold a word, and how often.
*/
#ifndef CVG_WORDS_H
#define CVG_WORDS_H

#include "convergio/kernel.h"

typedef struct cvgi_posting {
  uint32_t item;
  uint32_t occurrences;
} cvgi_posting;

/* A word by its hash; two words of the same 64-bit hash count as one. Postings ascend by item. */
typedef struct cvgi_word {
  uint64_t hash; /* 0: an empty place */
  cvgi_posting *postings;
  uint32_t count;
  uint32_t room;
} cvgi_word;

/*
** A hash table with open addressing, at most half full; its room is a power of two, or 0. Where a
** word is put depends on a factor that whoever chooses the words does not know.
*/
typedef struct cvgi_words {
  cvgi_word *places;
  size_t count;
  size_t room;
  uint64_t factor; /* odd */
  uint32_t shift;  /* 64 without the binary logarithm of the room */
} cvgi_words;

/* Takes the next word of a text; its hash, or 0 at the end. */
uint64_t cvgi_next_word(cvg_text *rest);

/* The word with this hash, or null. */
const cvgi_word *cvgi_words_find(const cvgi_words *words, uint64_t hash);

/*
** Notes the words of an item, whose number is higher than all before; `length` gets how many there
** are. 0 without memory, and then no word is noted.
*/
int cvgi_words_add(const cvg_allocator *allocator, cvgi_words *words, uint32_t item, cvg_text text,
                   uint32_t *length);

void cvgi_words_free(const cvg_allocator *allocator, cvgi_words *words);

#endif
