/* Floats to and from the types of 16 bits in which they may travel.
 *
 * A tensor that lies the other way round is gathered tile by tile, so that what is read is used by whole cache lines.
 * What is too large for the narrow type becomes an infinity there; that is looked for in the result, which is in the
 * cache, and only where it has one is the tensor searched. Nothing else can fail. */
#include <math.h>
#include <string.h>

#include "base/check.h"
#include "base/transpose.h"
#include "optim/optim.h"
#include "optim/rules.h"

#define TILE_HEIGHT 16 /* a cache line of floats */
#define TILE_WIDTH 256 /* a tile is in L1, with its result */
#define RUN_ELEMENTS 4096

void esp_widen(enum esp_isa isa, enum esp_dtype dtype, size_t n, const void *from, void *out) {
  esp_kernels_half_get(isa, dtype)->widen(n, from, out);
}

/* The index of the first finite element that became an infinity, or n. */
static size_t find_overflow(const struct esp_kernels_half *kernels, size_t n, const char *from, const char *out) {
  for (size_t i = 0; i < n; i++) {
    float value;
    memcpy(&value, from + i * sizeof value, sizeof value);
    if (isfinite(value) && !kernels->finite(1, out + i * sizeof(uint16_t)))
      return i;
  }
  return n;
}

/* Narrows n elements, at most RUN_ELEMENTS; true if none was too large, else *ret_index is the first one's. */
static bool narrow_run(const struct esp_kernels_half *kernels, size_t n, const char *from, char *out,
                       size_t *ret_index) {
  kernels->narrow(n, from, out);
  if (kernels->finite(n, out))
    return true;
  *ret_index = find_overflow(kernels, n, from, out);
  return *ret_index == n;
}

static bool narrow_plain(const struct esp_kernels_half *kernels, uint64_t elements, const char *from, char *out,
                         uint64_t *ret_index) {
  for (uint64_t first = 0; first < elements; first += RUN_ELEMENTS) {
    const size_t n = elements - first < RUN_ELEMENTS ? (size_t)(elements - first) : RUN_ELEMENTS;
    size_t index;
    if (narrow_run(kernels, n, from + first * sizeof(float), out + first * sizeof(uint16_t), &index))
      continue;
    *ret_index = first + index;
    return false;
  }
  return true;
}

/* Elements [row, row + height) x [col, col + width) of the result. */
static bool narrow_tile(const struct esp_kernels_half *kernels, uint64_t rows, uint64_t cols, const char *from,
                        uint64_t first, size_t height, size_t width, char *out, uint64_t *ret_index) {
  _Alignas(64) char tile[TILE_HEIGHT * TILE_WIDTH * sizeof(float)];
  esp_transpose_rectangle(sizeof(float), rows, cols, from, first, height, width, tile);
  for (size_t r = 0; r < height; r++, first += cols) {
    size_t index;
    if (narrow_run(kernels, width, tile + r * width * sizeof(float), out + first * sizeof(uint16_t), &index))
      continue;
    *ret_index = first + index;
    return false;
  }
  return true;
}

bool esp_narrow(enum esp_isa isa, enum esp_dtype dtype, uint64_t rows, uint64_t cols, const void *from, bool transposed,
                void *out, uint64_t *ret_index) {
  const struct esp_kernels_half *kernels = esp_kernels_half_get(isa, dtype);
  if (!transposed)
    return narrow_plain(kernels, rows * cols, from, out, ret_index);
  for (uint64_t row = 0; row < rows; row += TILE_HEIGHT) {
    const size_t height = rows - row < TILE_HEIGHT ? (size_t)(rows - row) : TILE_HEIGHT;
    for (uint64_t col = 0; col < cols; col += TILE_WIDTH) {
      const size_t width = cols - col < TILE_WIDTH ? (size_t)(cols - col) : TILE_WIDTH;
      if (!narrow_tile(kernels, rows, cols, from, row * cols + col, height, width, out, ret_index))
        return false;
    }
  }
  return true;
}
