/* The gradient of a tile: gathered where it arrived transposed, summed in order, multiplied.
 *
 * Each element is made of its own alone, in the element type, so no cut into tiles changes a bit. The usual case, one
 * gradient that needs nothing, is read in place. Nothing here fails. */
#include "optim/gradient.h"

#include <string.h>

#include "base/check.h"
#include "base/transpose.h"
#include "optim/rules.h"

void esp_gradient_init(struct esp_gradient *gradient, enum esp_isa isa, enum esp_dtype dtype,
                       const struct esp_grad *grads, size_t grads_len, double scale) {
  ESP_CHECK(grads_len >= 1);
  *gradient = (struct esp_gradient){
      .kernels = esp_kernels_get(isa, dtype),
      .size = esp_dtype_size(dtype),
      .grads = grads,
      .grads_len = grads_len,
      .scale = scale,
  };
  for (size_t i = 0; i < grads_len && gradient->matrix == NULL; i++) {
    if (grads[i].transposed && grads[i].rows > 1 && grads[i].cols > 1)
      gradient->matrix = &grads[i];
  }
}

const void *esp_gradient_range(const struct esp_gradient *gradient, uint64_t first, size_t n, void *room) {
  const size_t offset = first * gradient->size;
  const void *sum = (const char *)gradient->grads[0].data + offset;
  for (size_t i = 1; i < gradient->grads_len; i++) {
    gradient->kernels->add(n, sum, (const char *)gradient->grads[i].data + offset, room);
    sum = room;
  }
  if (gradient->scale == 1)
    return sum;
  gradient->kernels->multiply(n, sum, gradient->scale, room);
  return room;
}

/* Gradient i of a tile: its first row, the others *ret_stride bytes apart. */
static const char *tile_of(const struct esp_gradient *gradient, size_t i, struct esp_tile tile, char *room,
                           size_t *ret_stride) {
  const struct esp_grad *grad = &gradient->grads[i], *matrix = gradient->matrix;
  const size_t size = gradient->size;
  *ret_stride = (tile.height > 1 ? matrix->cols : tile.width) * size;
  if (!grad->transposed)
    return (const char *)grad->data + tile.first * size;
  ESP_CHECK(grad->rows == matrix->rows && grad->cols == matrix->cols);
  if (tile.height == 1)
    esp_transpose(size, grad->rows, grad->cols, grad->data, tile.first, tile.width, room);
  else
    esp_transpose_rectangle(size, grad->rows, grad->cols, grad->data, tile.first, tile.height, tile.width, room);
  *ret_stride = tile.width * size;
  return room;
}

const void *esp_gradient_tile(const struct esp_gradient *gradient, struct esp_tile tile, struct esp_tile_room *room) {
  const struct esp_kernels_of *kernels = gradient->kernels;
  const size_t row = tile.width * gradient->size;
  size_t stride = 0;
  const char *sum = tile_of(gradient, 0, tile, room->sum, &stride);
  if (stride != row) {
    for (size_t r = 0; r < tile.height; r++)
      memcpy(room->sum + r * row, sum + r * stride, row);
    sum = room->sum;
  }
  for (size_t i = 1; i < gradient->grads_len; i++) {
    const char *part = tile_of(gradient, i, tile, room->part, &stride);
    for (size_t r = 0; r < tile.height; r++)
      kernels->add(tile.width, sum + r * row, part + r * stride, room->sum + r * row);
    sum = room->sum;
  }
  if (gradient->scale == 1)
    return sum;
  kernels->multiply(tile.height * tile.width, sum, gradient->scale, room->sum);
  return room->sum;
}
