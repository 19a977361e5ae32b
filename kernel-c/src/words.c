/*
** words.c: which items hold a word, and how often.
*/
#include "words.h"

#include <string.h>

#include "hash.h"
#include "memory.h"

/* A letter or digit in lower case, or 0 for what parts words. */
static uint8_t letter(char byte) {
  uint8_t b = (uint8_t)byte;
  if (b >= 'A' && b <= 'Z') return (uint8_t)(b | 0x20);
  if ((b >= 'a' && b <= 'z') || (b >= '0' && b <= '9') || b >= 0x80) return b;
  return 0;
}

uint64_t cvgi_next_word(cvg_text *rest) {
  size_t at = 0;
  uint64_t hash = CVGI_HASH_START;
  while (at < rest->size && letter(rest->bytes[at]) == 0) at++;
  size_t begin = at;
  for (; at < rest->size && letter(rest->bytes[at]) != 0; at++) {
    hash = cvgi_hash_byte(hash, letter(rest->bytes[at]));
  }
  int found = at > begin;
  if (at > 0) *rest = (cvg_text){rest->bytes + at, rest->size - at};
  if (!found) return 0;
  return hash == 0 ? 1 : hash;
}

/*
** Where a hash is, or where it would be. There is an empty place. The highest bits of the product
** depend on all bits of the hash, and two hashes seldom agree in them (multiply-shift hashing).
*/
static cvgi_word *place_of(const cvgi_words *words, uint64_t hash) {
  size_t mask = words->room - 1;
  size_t at = (size_t)(hash * words->factor >> words->shift);
  while (words->places[at].hash != 0 && words->places[at].hash != hash) at = (at + 1) & mask;
  return &words->places[at];
}

const cvgi_word *cvgi_words_find(const cvgi_words *words, uint64_t hash) {
  if (words->room == 0) return NULL;
  const cvgi_word *word = place_of(words, hash);
  return word->hash == hash ? word : NULL;
}

/* An odd number from where something lies in memory, which differs by process. */
static uint64_t factor_of(const void *address) {
  uint64_t bits = (uint64_t)(uintptr_t)address;
  bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9u;
  bits = (bits ^ bits >> 27) * 0x94D049BB133111EBu;
  return (bits ^ bits >> 31) | 1;
}

static int grow(const cvg_allocator *allocator, cvgi_words *words) {
  if (2 * (words->count + 1) <= words->room) return 1;
  cvgi_words larger = *words;
  larger.room = words->room == 0 ? 64 : 2 * words->room;
  larger.shift = words->room == 0 ? 58 : words->shift - 1;
  larger.places = cvgi_allocate(allocator, larger.room, sizeof *larger.places);
  if (larger.places == NULL) return 0;
  if (words->room == 0) larger.factor = factor_of(larger.places);
  memset(larger.places, 0, larger.room * sizeof *larger.places);
  for (size_t i = 0; i < words->room; i++) {
    if (words->places[i].hash != 0) *place_of(&larger, words->places[i].hash) = words->places[i];
  }
  cvgi_release(allocator, words->places, words->room, sizeof *words->places);
  *words = larger;
  return 1;
}

static int grow_postings(const cvg_allocator *allocator, cvgi_word *word) {
  if (word->count < word->room) return 1;
  uint32_t room = word->room == 0 ? 2 : 2 * word->room;
  cvgi_posting *postings = cvgi_allocate(allocator, room, sizeof *postings);
  if (postings == NULL) return 0;
  if (word->count > 0) memcpy(postings, word->postings, word->count * sizeof *postings);
  cvgi_release(allocator, word->postings, word->room, sizeof *postings);
  word->postings = postings;
  word->room = room;
  return 1;
}

static int is_last(const cvgi_word *word, uint32_t item) {
  return word->count > 0 && word->postings[word->count - 1].item == item;
}

static int note(const cvg_allocator *allocator, cvgi_words *words, uint32_t item, uint64_t hash) {
  if (!grow(allocator, words)) return 0;
  cvgi_word *word = place_of(words, hash);
  if (word->hash == 0) {
    word->hash = hash;
    words->count++;
  }
  if (is_last(word, item)) {
    word->postings[word->count - 1].occurrences++;
    return 1;
  }
  if (!grow_postings(allocator, word)) return 0;
  word->postings[word->count++] = (cvgi_posting){item, 1};
  return 1;
}

/* Takes back what was noted of the last item. Words without postings may stay. */
static void take_back(cvgi_words *words, uint32_t item, cvg_text text) {
  uint64_t hash;
  while ((hash = cvgi_next_word(&text)) != 0) {
    if (words->room == 0) return;
    cvgi_word *word = place_of(words, hash);
    if (word->hash == hash && is_last(word, item)) word->count--;
  }
}

int cvgi_words_add(const cvg_allocator *allocator, cvgi_words *words, uint32_t item, cvg_text text,
                   uint32_t *length) {
  cvg_text rest = text;
  uint64_t hash;
  *length = 0;
  while ((hash = cvgi_next_word(&rest)) != 0) {
    ++*length;
    if (note(allocator, words, item, hash)) continue;
    take_back(words, item, text);
    return 0;
  }
  return 1;
}

void cvgi_words_free(const cvg_allocator *allocator, cvgi_words *words) {
  for (size_t i = 0; i < words->room; i++) {
    cvgi_word *word = &words->places[i];
    cvgi_release(allocator, word->postings, word->room, sizeof *word->postings);
  }
  cvgi_release(allocator, words->places, words->room, sizeof *words->places);
}
