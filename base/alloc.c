/* Counted heap memory that can be made to fail.
 *
 * Every block is preceded by a header of 16 bytes that says where the C library's block begins. An ordinary block
 * begins right before its header; an aligned one is cut out of a larger block; of calloc, large ones are fresh pages of
 * the kernel that nobody touched. So esp_free needs not know which it was given, and small blocks cost 16 bytes.
 *
 * Failure is NULL: no memory, a size that overflows, or the countdown of a test. */
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#define HEADER_MAGIC UINT64_C(0x657370616c696572)

struct header {
  void *block;    /* what free() takes */
  uint64_t magic; /* HEADER_MAGIC while the block lives: a foreign pointer or a second free is caught here */
};
_Static_assert(sizeof(struct header) == 16, "malloc's alignment of 16 must survive the header");

static atomic_size_t live;
static atomic_int_least64_t countdown_left = -1;

/* Whether a test wants this allocation to fail. */
static bool must_fail(void) {
  if (atomic_load_explicit(&countdown_left, memory_order_relaxed) < 0)
    return false;
  return atomic_fetch_sub_explicit(&countdown_left, 1, memory_order_relaxed) == 0;
}

static void *wrap(void *block, size_t offset) {
  struct header *header = (struct header *)((char *)block + offset) - 1;
  *header = (struct header){.block = block, .magic = HEADER_MAGIC};
  return header + 1;
}

static struct header *header_of(void *memory) {
  struct header *header = (struct header *)memory - 1;
  ESP_CHECK(header->magic == HEADER_MAGIC);
  return header;
}

/* An ordinary block, zeroed or not. */
static void *allocate(size_t size, bool zeroed) {
  if (must_fail() || size > SIZE_MAX - sizeof(struct header))
    return NULL;
  size_t total = sizeof(struct header) + size;
  void *block = zeroed ? calloc(1, total) : malloc(total);
  if (block == NULL)
    return NULL;
  atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
  return wrap(block, sizeof(struct header));
}

void *esp_malloc(size_t size) {
  return allocate(size, false);
}

void *esp_calloc(size_t count, size_t size) {
  size_t total;
  return __builtin_mul_overflow(count, size, &total) ? NULL : allocate(total, true);
}

void *esp_malloc_array(size_t count, size_t size) {
  size_t total;
  return __builtin_mul_overflow(count, size, &total) ? NULL : allocate(total, false);
}

void *esp_realloc(void *memory, size_t size) {
  if (memory == NULL)
    return esp_malloc(size);
  struct header *header = header_of(memory);
  ESP_CHECK(header->block == header); /* an aligned block would lose its alignment */
  if (must_fail() || size > SIZE_MAX - sizeof(*header))
    return NULL;
  void *block = realloc(header, sizeof(*header) + size);
  return block == NULL ? NULL : wrap(block, sizeof(*header));
}

char *esp_strdup(const char *text) {
  return esp_strndup(text, strlen(text));
}

char *esp_strndup(const char *text, size_t len) {
  if (len == SIZE_MAX)
    return NULL;
  char *copy = esp_malloc(len + 1);
  if (copy == NULL)
    return NULL;
  if (len > 0)
    memcpy(copy, text, len);
  copy[len] = '\0';
  return copy;
}

void esp_free(void *memory) {
  if (memory == NULL)
    return;
  struct header *header = header_of(memory);
  void *block = header->block;
  header->magic = 0;
  atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
  free(block);
}

static void *alloc_aligned(size_t size, bool zeroed) {
  const size_t slack = ESP_CACHE_LINE + sizeof(struct header);
  if (must_fail() || size > SIZE_MAX - slack)
    return NULL;
  char *block = zeroed ? calloc(1, size + slack) : malloc(size + slack);
  if (block == NULL)
    return NULL;
  atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
  uintptr_t start = (uintptr_t)block + sizeof(struct header);
  uintptr_t aligned = (start + ESP_CACHE_LINE - 1) & ~(uintptr_t)(ESP_CACHE_LINE - 1);
  return wrap(block, aligned - (uintptr_t)block);
}

void *esp_calloc_aligned(size_t size) {
  return alloc_aligned(size, true);
}

void *esp_malloc_aligned(size_t size) {
  return alloc_aligned(size, false);
}

bool esp_grow(void **array, size_t *capacity, size_t len_min, size_t size) {
  if (len_min <= *capacity)
    return true;
  size_t capacity_new = *capacity > SIZE_MAX / 2 ? len_min : *capacity * 2;
  if (capacity_new < len_min)
    capacity_new = len_min;
  if (capacity_new < 8)
    capacity_new = 8;
  size_t total;
  if (__builtin_mul_overflow(capacity_new, size, &total))
    return false;
  /* The caller's pointer has a type of its own, so it is read and written as bytes. */
  void *memory;
  memcpy(&memory, array, sizeof(memory));
  memory = esp_realloc(memory, total);
  if (memory == NULL)
    return false;
  memcpy(array, &memory, sizeof(memory));
  *capacity = capacity_new;
  return true;
}

bool esp_alloc_fail_is_due(void) {
  return atomic_load_explicit(&countdown_left, memory_order_relaxed) >= 0;
}

size_t esp_alloc_live(void) {
  return atomic_load_explicit(&live, memory_order_relaxed);
}

void esp_alloc_fail_at(int64_t countdown) {
  atomic_store_explicit(&countdown_left, countdown, memory_order_relaxed);
}
