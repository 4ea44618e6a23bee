/* A hash map with linear probing. Room is reserved before it is needed, so that putting cannot fail in the middle of
 * something; removal moves later entries of the run back, so there are no tombstones. */
#include "engine/map.h"

#include "base/alloc.h"
#include "base/check.h"

static size_t capacity_for(size_t len) {
  size_t capacity = 8;
  while (capacity < len * 2)
    capacity *= 2;
  return capacity;
}

/* Leaf ids are consecutive: the multiplication spreads them, the shift takes the well-mixed bits. */
static size_t home(const struct esp_map *map, uint64_t key) {
  return (size_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (map->capacity - 1);
}

void esp_map_done(struct esp_map *map) {
  esp_free(map->entries);
  *map = (struct esp_map){0};
}

bool esp_map_reserve(struct esp_map *map, size_t len) {
  size_t capacity = capacity_for(len);
  if (capacity <= map->capacity)
    return true;
  struct esp_map bigger = {.capacity = capacity};
  bigger.entries = esp_calloc(capacity, sizeof(*bigger.entries));
  if (bigger.entries == NULL)
    return false;
  for (size_t i = 0; i < map->capacity; i++) {
    if (map->entries[i].key != 0)
      esp_map_put(&bigger, map->entries[i].key, map->entries[i].value);
  }
  esp_map_done(map);
  *map = bigger;
  return true;
}

uintptr_t *esp_map_get(const struct esp_map *map, uint64_t key) {
  if (map->capacity == 0 || key == 0)
    return NULL;
  for (size_t i = home(map, key);; i = (i + 1) & (map->capacity - 1)) {
    if (map->entries[i].key == key)
      return &map->entries[i].value;
    if (map->entries[i].key == 0)
      return NULL;
  }
}

void esp_map_put(struct esp_map *map, uint64_t key, uintptr_t value) {
  ESP_CHECK(key != 0 && (map->len + 1) * 2 <= map->capacity);
  size_t i = home(map, key);
  while (map->entries[i].key != 0) {
    ESP_CHECK(map->entries[i].key != key);
    i = (i + 1) & (map->capacity - 1);
  }
  map->entries[i] = (struct esp_map_entry){.key = key, .value = value};
  map->len++;
}

void esp_map_remove(struct esp_map *map, uint64_t key) {
  uintptr_t *value = esp_map_get(map, key);
  if (value == NULL)
    return;
  size_t mask = map->capacity - 1;
  size_t hole =
      (size_t)((struct esp_map_entry *)((char *)value - offsetof(struct esp_map_entry, value)) - map->entries);
  for (size_t i = (hole + 1) & mask; map->entries[i].key != 0; i = (i + 1) & mask) {
    size_t want = home(map, map->entries[i].key);
    if (((i - want) & mask) >= ((i - hole) & mask)) {
      map->entries[hole] = map->entries[i];
      hole = i;
    }
  }
  map->entries[hole] = (struct esp_map_entry){0};
  map->len--;
}
