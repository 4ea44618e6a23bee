/* Bytes that lie in several pieces, as messages arrive from gRPC. Borrowed memory; no threads. */
#ifndef ESP_BASE_SPAN_H
#define ESP_BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct esp_span {
  const uint8_t *data;
  size_t len;
};

/* A place in a list of spans, with an end. */
struct esp_cursor {
  const struct esp_span *spans; /* borrowed */
  size_t spans_len;
  size_t index;  /* of the span that holds the next byte */
  size_t offset; /* in that span */
  uint64_t left; /* bytes to the end */
};

struct esp_cursor esp_cursor_init(const struct esp_span *spans, size_t spans_len);
/* Takes the next piece, of at most `len_max` bytes and not across spans; false at the end. */
bool esp_cursor_take(struct esp_cursor *cursor, size_t len_max, struct esp_span *ret);
/* Takes one byte; false at the end. Here, since a small tensor's bytes are less work than the numbers before them. */
static inline bool esp_cursor_byte(struct esp_cursor *cursor, uint8_t *ret) {
  if (cursor->left > 0 && cursor->offset < cursor->spans[cursor->index].len) {
    *ret = cursor->spans[cursor->index].data[cursor->offset++];
    cursor->left--;
    return true;
  }
  struct esp_span piece;
  if (!esp_cursor_take(cursor, 1, &piece))
    return false;
  *ret = piece.data[0];
  return true;
}
/* Moves on by n bytes; false, and nothing moved, where fewer are left. */
bool esp_cursor_skip(struct esp_cursor *cursor, uint64_t n);
/* Copies n bytes and moves on; false, and nothing moved, where fewer are left. */
bool esp_cursor_copy(struct esp_cursor *cursor, void *to, size_t n);

#endif
