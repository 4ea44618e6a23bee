/* The gradient that a step takes: the sum of those that arrived, tile by tile. Private to server/optim. */
#ifndef ESP_OPTIM_GRADIENT_H
#define ESP_OPTIM_GRADIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "optim/kernels.h"
#include "optim/optim.h"

#define ESP_BLOCK_ELEMENTS 512 /* what kernels get at once; larger measured slower */
#define ESP_TILE_BYTES 16384   /* of a tile's elements; 8192 measured slower */

/* What is summed, and how. */
struct esp_gradient {
  enum esp_isa isa;
  enum esp_dtype dtype;                 /* of an element */
  const struct esp_kernels_of *kernels; /* of the element type */
  size_t size;                          /* of an element */
  const struct esp_grad *grads;         /* in the order of the sum */
  size_t grads_len;                     /* at least 1 */
  double scale;                         /* of the sum */
  const struct esp_grad *matrix; /* one that is transposed and no vector, with the shape of all of them; or NULL */
};

void esp_gradient_init(struct esp_gradient *gradient, enum esp_isa isa, enum esp_dtype dtype,
                       const struct esp_grad *grads, size_t grads_len, double scale);

/* Elements first .. first+n of a gradient without matrix: borrowed from the caller's where there is nothing to do, or
 * made in room, which has room for n. */
const void *esp_gradient_range(const struct esp_gradient *gradient, uint64_t first, size_t n, void *room);

/* Elements of a matrix, at most ESP_TILE_BYTES: with height 1 any range, else a rectangle. */
struct esp_tile {
  uint64_t first; /* the first one's index */
  size_t height;  /* rows */
  size_t width;   /* elements of a row */
};

/* Where a tile is summed. */
struct esp_tile_room {
  _Alignas(64) char sum[ESP_TILE_BYTES];
  _Alignas(64) char part[ESP_TILE_BYTES]; /* the next one to be added */
};

/* A tile of a gradient with a matrix, its rows one after the other: borrowed, or made in room->sum. */
const void *esp_gradient_tile(const struct esp_gradient *gradient, struct esp_tile tile, struct esp_tile_room *room);

#endif
