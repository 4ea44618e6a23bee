/* All heap memory of Espalier's own code, so that tests can count it and make the Nth allocation fail.
 * Any thread. Failure is NULL, never an abort; callers turn it into ESP_RESOURCE_EXHAUSTED. */
#ifndef ESP_BASE_ALLOC_H
#define ESP_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ESP_CACHE_LINE 64

void *esp_malloc(size_t size);
void *esp_calloc(size_t count, size_t size);       /* checks the product */
void *esp_realloc(void *memory, size_t size);      /* on failure the old block stays; not for aligned blocks */
void *esp_malloc_array(size_t count, size_t size); /* checks the product */
char *esp_strdup(const char *text);
char *esp_strndup(const char *text, size_t len); /* len bytes and a NUL */
void esp_free(void *memory);                     /* of any block from here; NULL is fine */

/* A zeroed buffer for tensors, aligned to ESP_CACHE_LINE; release with esp_free. The pages of a large one are not
 * touched until they are used. size 0 gives a valid pointer. */
void *esp_calloc_aligned(size_t size);
/* The same, not zeroed. */
void *esp_malloc_aligned(size_t size);

/* Grows *array, of elements of `size` bytes, so that it holds at least `len_min`; false (and nothing changed) without
 * memory. */
bool esp_grow(void **array, size_t *capacity, size_t len_min, size_t size);

/* For tests. */
size_t esp_alloc_live(void);               /* blocks allocated and not freed */
void esp_alloc_fail_at(int64_t countdown); /* the allocation after `countdown` successes fails, once; -1: never */
bool esp_alloc_fail_is_due(void);          /* that allocation has not come yet */

#endif
