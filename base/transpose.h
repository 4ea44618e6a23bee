/* A tensor of rank 2 seen the other way round. Any thread; nothing here fails. */
#ifndef ESP_BASE_TRANSPOSE_H
#define ESP_BASE_TRANSPOSE_H

#include <stddef.h>
#include <stdint.h>

/* Elements first .. first+n of a row-major tensor of [rows, cols], whose transpose is in `from` (row-major, [cols,
 * rows], whole), into out (which gets n elements). An element has `size` bytes, 1, 2, 4 or 8; nothing need be
 * aligned. */
void esp_transpose(size_t size, uint64_t rows, uint64_t cols, const void *from, uint64_t first, size_t n, void *out);

/* Of the same tensor the rectangle of [height, width] that begins at element `first` (it lies within the rows and
 * columns), row-major, into out. */
void esp_transpose_rectangle(size_t size, uint64_t rows, uint64_t cols, const void *from, uint64_t first, size_t height,
                             size_t width, void *out);

#endif
