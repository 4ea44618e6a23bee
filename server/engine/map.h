/* A hash map from u64 keys (never 0) to u32 values or pointers: leaf ids to slots, session and stage ids to records.
 * Open addressing with linear probing. Not thread safe. */
#ifndef ESP_ENGINE_MAP_H
#define ESP_ENGINE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct esp_map_entry {
  uint64_t key; /* 0: empty */
  uintptr_t value;
};

struct esp_map {
  struct esp_map_entry *entries; /* NULL until something is put */
  size_t capacity;               /* a power of two, or 0 */
  size_t len;
};

void esp_map_done(struct esp_map *map); /* idempotent */
/* Makes room so that `len` keys in all can be put without failing; false without memory. */
bool esp_map_reserve(struct esp_map *map, size_t len);
/* The value's place, or NULL. Valid until the next put, reserve or remove. */
uintptr_t *esp_map_get(const struct esp_map *map, uint64_t key);
/* Puts a key that is not there; room must have been reserved. */
void esp_map_put(struct esp_map *map, uint64_t key, uintptr_t value);
void esp_map_remove(struct esp_map *map, uint64_t key); /* of a key that is not there: nothing */

#endif
