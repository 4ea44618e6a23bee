/* Sorts a batch of paths.
 *
 * Paths of one tree share long prefixes, so comparing whole strings in random order is a cache miss each time. Instead
 * each item carries the next eight bytes of its path as a number; items are merge-sorted by it, and runs of equal
 * numbers go on with the eight bytes after that. The worst case is bounded (no quicksort: the paths are a peer's), and
 * nothing here can fail. */
#include <string.h>

#include "tree/tree_internal.h"

#define KEY_BYTES 8
#define RUN_LEN 16 /* runs that insertion sort makes for the merges to start with */

/* The end is 0 and a dot 1: both are less than any byte that a path may have, and the end is less than a dot. */
static uint64_t key_at(const struct esp_sort_item *item, size_t depth) {
  unsigned char bytes[KEY_BYTES] = {0};
  size_t left = item->path_len > depth ? item->path_len - depth : 0;
  memcpy(bytes, item->path + (left > 0 ? depth : 0), left < KEY_BYTES ? left : KEY_BYTES);
  uint64_t key = 0;
  for (size_t i = 0; i < KEY_BYTES; i++) {
    key = key << 8 | (bytes[i] == '.' ? 1 : bytes[i]);
  }
  return key;
}

static void insertion_sort(struct esp_sort_item *items, size_t len) {
  for (size_t i = 1; i < len; i++) {
    struct esp_sort_item item = items[i];
    size_t at = i;
    for (; at > 0 && items[at - 1].key > item.key; at--) {
      items[at] = items[at - 1];
    }
    items[at] = item;
  }
}

/* Merges from[0 .. middle) and from[middle .. len), each sorted, into `to`. */
static void merge(const struct esp_sort_item *from, size_t middle, size_t len, struct esp_sort_item *to) {
  size_t left = 0;
  size_t right = middle;
  for (size_t i = 0; i < len; i++) {
    bool take_left = right == len || (left < middle && from[left].key <= from[right].key);
    to[i] = from[take_left ? left++ : right++];
  }
}

static void sort_by_key(struct esp_sort_item *items, struct esp_sort_item *scratch, size_t len) {
  size_t sorted = 1;
  while (sorted < len && items[sorted - 1].key <= items[sorted].key) {
    sorted++;
  }
  if (sorted >= len) {
    return;
  }
  for (size_t at = 0; at < len; at += RUN_LEN) {
    insertion_sort(items + at, len - at < RUN_LEN ? len - at : RUN_LEN);
  }
  struct esp_sort_item *from = items;
  struct esp_sort_item *to = scratch;
  for (size_t width = RUN_LEN; width < len; width *= 2) {
    for (size_t at = 0; at < len; at += 2 * width) {
      size_t pair = len - at < 2 * width ? len - at : 2 * width;
      merge(from + at, width < pair ? width : pair, pair, to + at);
    }
    struct esp_sort_item *swap = from;
    from = to;
    to = swap;
  }
  if (from != items) {
    memcpy(items, from, len * sizeof *items);
  }
}

/* Sorts items that are equal in their first `depth` bytes. Recursion goes as deep as a path has eights of bytes. */
static void sort_from(struct esp_sort_item *items, struct esp_sort_item *scratch, size_t len, size_t depth) {
  for (size_t i = 0; i < len; i++) {
    items[i].key = key_at(&items[i], depth);
  }
  sort_by_key(items, scratch, len);
  for (size_t begin = 0, end; begin < len; begin = end) {
    for (end = begin + 1; end < len && items[end].key == items[begin].key; end++) {
    }
    if (end - begin > 1 && (items[begin].key & 0xff) != 0) {
      sort_from(items + begin, scratch, end - begin, depth + KEY_BYTES);
    }
  }
}

void esp_sort_paths(struct esp_sort_item *items, struct esp_sort_item *scratch, size_t len) {
  sort_from(items, scratch, len, 0);
}
