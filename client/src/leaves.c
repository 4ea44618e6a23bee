/* A hash table of leaves.
 *
 * The happy path: the table is kept at most half full, so a look-up ends after a few places. Growing is the only thing
 * that can fail; it happens before anything is put. */
#include "client/src/leaves.h"

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"

#define CAPACITY_MIN 16

static size_t text_bytes(const char *text) {
  return text == NULL ? 0 : strlen(text) + 1;
}

/* To *to, which moves on. */
static const char *copy_text(const char *text, char **to) {
  if (text == NULL)
    return NULL;
  char *copy = *to;
  *to = stpcpy(copy, text) + 1;
  return copy;
}

struct esp_leaf_spec *esp_leaf_spec_copy(const struct esp_leaf_spec *spec) {
  struct esp_leaf_spec *copy = esp_malloc(sizeof *copy + text_bytes(spec->path) + text_bytes(spec->tag) +
                                          text_bytes(spec->group) + text_bytes(spec->alias_of));
  if (copy == NULL)
    return NULL;
  char *to = (char *)(copy + 1);
  *copy = *spec;
  copy->path = copy_text(spec->path, &to);
  copy->tag = copy_text(spec->tag, &to);
  copy->group = copy_text(spec->group, &to);
  copy->alias_of = copy_text(spec->alias_of, &to);
  copy->value = NULL;
  return copy;
}

static void place_done(struct esp_leaf_known *place) {
  esp_free(place->path);
  esp_free(place->spec);
}

void esp_leaves_done(struct esp_leaves *leaves) {
  for (size_t i = 0; i < leaves->capacity; i++)
    place_done(&leaves->places[i]);
  esp_free(leaves->places);
  *leaves = (struct esp_leaves){0};
}

/* The place of the id, or the empty one where it belongs. Ids are consecutive, so their product with an odd constant
 * spreads them. */
static struct esp_leaf_known *place_of(const struct esp_leaves *leaves, esp_leaf_id id) {
  size_t mask = leaves->capacity - 1;
  size_t at = (size_t)((id * 0x9e3779b97f4a7c15u) >> 32) & mask;
  while (leaves->places[at].id != 0 && leaves->places[at].id != id)
    at = (at + 1) & mask;
  return &leaves->places[at];
}

bool esp_leaves_reserve(struct esp_leaves *leaves, size_t more) {
  size_t capacity = leaves->capacity == 0 ? CAPACITY_MIN : leaves->capacity;
  while (capacity / 2 < leaves->len + more) {
    if (capacity > SIZE_MAX / 2)
      return false;
    capacity *= 2;
  }
  if (capacity == leaves->capacity)
    return true;
  struct esp_leaves grown = {.capacity = capacity, .places = esp_calloc(capacity, sizeof *grown.places)};
  if (grown.places == NULL)
    return false;
  for (size_t i = 0; i < leaves->capacity; i++)
    if (leaves->places[i].id != 0)
      *place_of(&grown, leaves->places[i].id) = leaves->places[i];
  grown.len = leaves->len;
  esp_free(leaves->places);
  *leaves = grown;
  return true;
}

struct esp_leaf_known *esp_leaves_find(const struct esp_leaves *leaves, esp_leaf_id id) {
  if (leaves->capacity == 0 || id == 0)
    return NULL;
  struct esp_leaf_known *place = place_of(leaves, id);
  return place->id == 0 ? NULL : place;
}

void esp_leaves_put(struct esp_leaves *leaves, const struct esp_leaf_known *leaf) {
  ESP_CHECK(leaf->id != 0 && leaves->len < leaves->capacity);
  struct esp_leaf_known *place = place_of(leaves, leaf->id);
  if (place->id == 0)
    leaves->len++;
  place_done(place);
  *place = *leaf;
}
