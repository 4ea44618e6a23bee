/* Transposition by ranges.
 *
 * What is read lies `rows` elements apart, so a cache line of it is used whole: up to a line's worth of rows of the
 * result are written side by side. Nothing here fails. */
#include "base/transpose.h"

#include <stdbool.h>
#include <string.h>

#include "base/check.h"

#define PANEL_BYTES 64 /* of a column that are read at once */

/* [height, width] elements; from: the first one's place, whose columns are from_stride elements apart. The loop is
 * compiled for each size. */
static inline __attribute__((always_inline)) void copy_sized(size_t size, const char *from, uint64_t from_stride,
                                                             size_t height, size_t width, char *out,
                                                             size_t out_stride) {
  for (size_t c = 0; c < width; c++) {
    for (size_t r = 0; r < height; r++)
      memcpy(out + (r * out_stride + c) * size, from + (c * from_stride + r) * size, size);
  }
}

static void copy(size_t size, const char *from, uint64_t from_stride, size_t height, size_t width, char *out,
                 size_t out_stride) {
  switch (size) {
  case 1:
    copy_sized(1, from, from_stride, height, width, out, out_stride);
    return;
  case 2:
    copy_sized(2, from, from_stride, height, width, out, out_stride);
    return;
  case 4:
    copy_sized(4, from, from_stride, height, width, out, out_stride);
    return;
  case 8:
    copy_sized(8, from, from_stride, height, width, out, out_stride);
    return;
  default:
    ESP_CHECK(!"an element has 1, 2, 4 or 8 bytes");
  }
}

void esp_transpose_rectangle(size_t size, uint64_t rows, uint64_t cols, const void *from, uint64_t first, size_t height,
                             size_t width, void *out) {
  const uint64_t row = first / cols, col = first % cols;
  ESP_CHECK(height <= rows - row && width <= cols - col);
  const size_t panel = PANEL_BYTES / size;
  for (size_t r = 0; r < height; r += panel)
    copy(size, (const char *)from + (col * rows + row + r) * size, rows, height - r < panel ? height - r : panel, width,
         (char *)out + r * width * size, width);
}

void esp_transpose(size_t size, uint64_t rows, uint64_t cols, const void *from, uint64_t first, size_t n, void *out) {
  char *at = out;
  if (rows == 1 || cols == 1) { /* the same bytes */
    memcpy(at, (const char *)from + first * size, n * size);
    return;
  }
  while (n > 0) { /* the end of a row; whole rows; the beginning of one */
    const uint64_t col = first % cols;
    const bool whole = col == 0 && n >= cols;
    const size_t height = whole ? n / cols : 1;
    const size_t width = whole ? cols : n < cols - col ? n : cols - col;
    esp_transpose_rectangle(size, rows, cols, from, first, height, width, at);
    first += height * width;
    n -= height * width;
    at += height * width * size;
  }
}
