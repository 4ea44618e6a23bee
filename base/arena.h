/* Memory that is freed all at once, with a limit: for strings of a tree and for decoded messages. Not thread safe. */
#ifndef ESP_BASE_ARENA_H
#define ESP_BASE_ARENA_H

#include <stddef.h>

struct esp_arena_block;

struct esp_arena {
  struct esp_arena_block *blocks; /* newest first */
  size_t used;                    /* bytes handed out, padding included */
  size_t limit;                   /* of `used`; 0: none */
};

void esp_arena_init(struct esp_arena *arena, size_t limit);
void esp_arena_done(struct esp_arena *arena); /* idempotent */
/* 16-byte aligned, not zeroed; NULL without memory or past the limit. */
void *esp_arena_alloc(struct esp_arena *arena, size_t size);
char *esp_arena_strndup(struct esp_arena *arena, const char *text, size_t len);

#endif
