/* The leaves that a client knows: what it declared or found, and which of them are frozen. A hash table from ids. Not
 * thread safe. */
#ifndef ESP_CLIENT_LEAVES_H
#define ESP_CLIENT_LEAVES_H

#include <espalier/espalier.h>

struct esp_leaf_known {
  esp_leaf_id id;             /* 0: an empty place */
  uint64_t bytes;             /* of the tensor; 0: not known, nor is its dtype */
  enum esp_leaf_dtype dtype;  /* its own */
  char *path;                 /* owned */
  bool frozen;                /* as last heard */
  struct esp_leaf_spec *spec; /* as it was declared, in a block of its own; NULL where it is not kept */
};
/* A copy in one block, strings included but no value; NULL without memory. To be freed with esp_free. */
struct esp_leaf_spec *esp_leaf_spec_copy(const struct esp_leaf_spec *spec);

struct esp_leaves {
  struct esp_leaf_known *places; /* open addressing with linear probing; a power of two of them */
  size_t capacity;               /* of places */
  size_t len;                    /* places in use, at most half of them */
};
void esp_leaves_done(struct esp_leaves *leaves); /* idempotent */
/* Makes room for `more` leaves; false, and nothing changed, without memory. */
bool esp_leaves_reserve(struct esp_leaves *leaves, size_t more);
/* NULL for an id that is not known. */
struct esp_leaf_known *esp_leaves_find(const struct esp_leaves *leaves, esp_leaf_id id);
/* Adds a leaf, or replaces what is known of it, in a place that was reserved. Takes the path and the spec over. */
void esp_leaves_put(struct esp_leaves *leaves, const struct esp_leaf_known *leaf);

#endif
