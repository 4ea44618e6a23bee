/* Walking over bytes that lie in pieces. A cursor is a value: copying it is how one looks ahead or goes back. */
#include "base/span.h"

#include <string.h>

struct esp_cursor esp_cursor_init(const struct esp_span *spans, size_t spans_len) {
  struct esp_cursor cursor = {.spans = spans, .spans_len = spans_len};
  for (size_t i = 0; i < spans_len; i++)
    cursor.left += spans[i].len;
  return cursor;
}

bool esp_cursor_take(struct esp_cursor *cursor, size_t len_max, struct esp_span *ret) {
  if (cursor->left == 0 || len_max == 0)
    return false;
  /* left counts bytes that are there, so a span with some of them follows. */
  while (cursor->offset == cursor->spans[cursor->index].len) {
    cursor->index++;
    cursor->offset = 0;
  }
  const struct esp_span *span = &cursor->spans[cursor->index];
  size_t len = span->len - cursor->offset;
  if (len > len_max)
    len = len_max;
  if (len > cursor->left)
    len = (size_t)cursor->left;
  *ret = (struct esp_span){.data = span->data + cursor->offset, .len = len};
  cursor->offset += len;
  cursor->left -= len;
  return true;
}

bool esp_cursor_skip(struct esp_cursor *cursor, uint64_t n) {
  if (n > cursor->left)
    return false;
  if (n > 0 && n <= cursor->spans[cursor->index].len - cursor->offset) { /* most often within one */
    cursor->offset += (size_t)n;
    cursor->left -= n;
    return true;
  }
  struct esp_span piece;
  while (n > 0 && esp_cursor_take(cursor, n > SIZE_MAX ? SIZE_MAX : (size_t)n, &piece))
    n -= piece.len;
  return true;
}

bool esp_cursor_copy(struct esp_cursor *cursor, void *to, size_t n) {
  if (n > cursor->left)
    return false;
  struct esp_span piece;
  for (char *end = to; n > 0 && esp_cursor_take(cursor, n, &piece); end += piece.len, n -= piece.len)
    memcpy(end, piece.data, piece.len);
  return true;
}
