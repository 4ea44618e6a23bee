/* Sums of squares, for norms.
 *
 * The blocks, the lanes in a block and the order in which both are added are fixed, so the bits depend on the gradient
 * alone: not on the instruction set, and not on how it arrived. Squares of f32 can't overflow a double; those of f64 do
 * past 1e154, and the sum is then an infinity. Nothing here fails. */
#include "base/check.h"
#include "optim/gradient.h"
#include "optim/optim.h"

static double sum_blocks(const struct esp_gradient *gradient, size_t n, const char *data, double sum) {
  for (size_t i = 0; i < n; i += ESP_BLOCK_ELEMENTS) {
    const size_t block = n - i < ESP_BLOCK_ELEMENTS ? n - i : ESP_BLOCK_ELEMENTS;
    sum += gradient->kernels->squares(block, data + i * gradient->size);
  }
  return sum;
}

double esp_optim_squares(enum esp_isa isa, enum esp_dtype dtype, uint64_t first, size_t n, const struct esp_grad *grads,
                         size_t grads_len, double grad_scale) {
  ESP_CHECK(first % ESP_SQUARES_ELEMENTS == 0 && n <= ESP_SQUARES_ELEMENTS);
  struct esp_gradient gradient;
  struct esp_tile_room room;
  esp_gradient_init(&gradient, isa, dtype, grads, grads_len, grad_scale);
  const size_t tile_max = ESP_TILE_BYTES / gradient.size; /* whole blocks */
  double sum = 0;
  for (size_t done = 0; done < n; done += tile_max) {
    const struct esp_tile tile = {
        .first = first + done, .height = 1, .width = n - done < tile_max ? n - done : tile_max};
    sum = sum_blocks(&gradient, tile.width,
                     gradient.matrix != NULL ? esp_gradient_tile(&gradient, tile, &room)
                                             : esp_gradient_range(&gradient, tile.first, tile.width, room.sum),
                     sum);
  }
  return sum;
}
