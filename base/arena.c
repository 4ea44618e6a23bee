/* A bump allocator: blocks of doubling size, all freed at once by esp_arena_done.
 *
 * An allocation comes from the newest block or, where that is full, from a new one. Failure is NULL, and the arena
 * stays as it was: the limit is passed, or there is no memory. */
#include "base/arena.h"

#include <stdint.h>
#include <string.h>

#include "base/alloc.h"

#define ALIGNMENT 16
#define BLOCK_BYTES_MIN 1024
#define BLOCK_BYTES_MAX (1u << 20)

struct esp_arena_block {
  struct esp_arena_block *next; /* the one before it in time */
  size_t used;                  /* of bytes */
  size_t capacity;              /* of bytes */
  size_t padding;               /* keeps bytes aligned */
  unsigned char bytes[];
};
_Static_assert(sizeof(struct esp_arena_block) % ALIGNMENT == 0, "bytes must begin aligned");

void esp_arena_init(struct esp_arena *arena, size_t limit) {
  *arena = (struct esp_arena){.limit = limit};
}

void esp_arena_done(struct esp_arena *arena) {
  while (arena->blocks != NULL) {
    struct esp_arena_block *block = arena->blocks;
    arena->blocks = block->next;
    esp_free(block);
  }
  arena->used = 0;
}

/* A new block in front that has room for size bytes. */
static bool add_block(struct esp_arena *arena, size_t size) {
  size_t capacity = arena->blocks == NULL ? BLOCK_BYTES_MIN : arena->blocks->capacity * 2;
  if (capacity > BLOCK_BYTES_MAX)
    capacity = BLOCK_BYTES_MAX;
  if (capacity < size)
    capacity = size;
  if (capacity > SIZE_MAX - sizeof(struct esp_arena_block))
    return false;
  struct esp_arena_block *block = esp_malloc(sizeof(*block) + capacity);
  if (block == NULL)
    return false;
  *block = (struct esp_arena_block){.next = arena->blocks, .capacity = capacity};
  arena->blocks = block;
  return true;
}

void *esp_arena_alloc(struct esp_arena *arena, size_t size) {
  if (size > SIZE_MAX - ALIGNMENT)
    return NULL;
  size_t padded = (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
  if (padded == 0)
    padded = ALIGNMENT;
  if (padded > SIZE_MAX - arena->used || (arena->limit != 0 && arena->used + padded > arena->limit))
    return NULL;
  struct esp_arena_block *block = arena->blocks;
  if ((block == NULL || block->capacity - block->used < padded) && !add_block(arena, padded))
    return NULL;
  block = arena->blocks;
  void *memory = block->bytes + block->used;
  block->used += padded;
  arena->used += padded;
  return memory;
}

char *esp_arena_strndup(struct esp_arena *arena, const char *text, size_t len) {
  char *copy = len == SIZE_MAX ? NULL : esp_arena_alloc(arena, len + 1);
  if (copy == NULL)
    return NULL;
  if (len > 0)
    memcpy(copy, text, len);
  copy[len] = '\0';
  return copy;
}
