/* The gradient of a tile: gathered where it arrived transposed, widened where it arrived narrow, summed in order,
 * multiplied.
 *
 * Each element is made of its own alone, in the element type, so no cut into tiles changes a bit. The usual case, one
 * gradient that needs nothing, is read in place. Nothing here fails. */
#include "optim/gradient.h"

#include <string.h>

#include "base/check.h"
#include "base/transpose.h"
#include "optim/rules.h"

/* NULL where it arrived in the element type: then a comparison is all that it costs a block. */
static inline const struct esp_kernels_half *half_of(const struct esp_gradient *gradient, const struct esp_grad *grad) {
  if (grad->dtype == gradient->dtype || grad->dtype == ESP_DTYPE_NONE)
    return NULL;
  return esp_kernels_half_get(gradient->isa, grad->dtype);
}

void esp_gradient_init(struct esp_gradient *gradient, enum esp_isa isa, enum esp_dtype dtype,
                       const struct esp_grad *grads, size_t grads_len, double scale) {
  ESP_CHECK(grads_len >= 1);
  *gradient = (struct esp_gradient){
      .isa = isa,
      .dtype = dtype,
      .kernels = esp_kernels_get(isa, dtype),
      .size = esp_dtype_size(dtype),
      .grads = grads,
      .grads_len = grads_len,
      .scale = scale,
  };
  for (size_t i = 0; i < grads_len; i++) {
    ESP_CHECK(half_of(gradient, &grads[i]) == NULL || dtype == ESP_DTYPE_F32);
    if (gradient->matrix == NULL && grads[i].transposed && grads[i].rows > 1 && grads[i].cols > 1)
      gradient->matrix = &grads[i];
  }
}

/* Of an element of it, as it arrived. */
static size_t size_of(const struct esp_gradient *gradient, const struct esp_grad *grad) {
  return half_of(gradient, grad) == NULL ? gradient->size : esp_dtype_size(grad->dtype);
}

/* n elements of the first gradient: borrowed, or widened into room. */
static const void *begin_sum(const struct esp_gradient *gradient, size_t n, const void *part, void *room) {
  const struct esp_kernels_half *half = half_of(gradient, &gradient->grads[0]);
  if (half == NULL)
    return part;
  half->widen(n, part, room);
  return room;
}

/* out = sum + n elements of gradient i. */
static void add(const struct esp_gradient *gradient, size_t i, size_t n, const void *sum, const void *part, void *out) {
  const struct esp_kernels_half *half = half_of(gradient, &gradient->grads[i]);
  (half == NULL ? gradient->kernels->add : half->add)(n, sum, part, out);
}

static const void *range_of(const struct esp_gradient *gradient, size_t i, uint64_t first) {
  return (const char *)gradient->grads[i].data + first * size_of(gradient, &gradient->grads[i]);
}

const void *esp_gradient_range(const struct esp_gradient *gradient, uint64_t first, size_t n, void *room) {
  const void *sum = begin_sum(gradient, n, range_of(gradient, 0, first), room);
  for (size_t i = 1; i < gradient->grads_len; i++) {
    add(gradient, i, n, sum, range_of(gradient, i, first), room);
    sum = room;
  }
  if (gradient->scale == 1)
    return sum;
  gradient->kernels->multiply(n, sum, gradient->scale, room);
  return room;
}

/* Gradient i of a tile, as it arrived: its first row, the others *ret_stride bytes apart. */
static const char *tile_of(const struct esp_gradient *gradient, size_t i, struct esp_tile tile, char *room,
                           size_t *ret_stride) {
  const struct esp_grad *grad = &gradient->grads[i], *matrix = gradient->matrix;
  const size_t size = size_of(gradient, grad);
  *ret_stride = (tile.height > 1 ? matrix->cols : tile.width) * size;
  if (!grad->transposed)
    return range_of(gradient, i, tile.first);
  ESP_CHECK(grad->rows == matrix->rows && grad->cols == matrix->cols);
  if (tile.height == 1)
    esp_transpose(size, grad->rows, grad->cols, grad->data, tile.first, tile.width, room);
  else
    esp_transpose_rectangle(size, grad->rows, grad->cols, grad->data, tile.first, tile.height, tile.width, room);
  *ret_stride = tile.width * size;
  return room;
}

/* The first gradient of a tile, its rows one after the other: borrowed, or made in room->sum. */
static const char *begin_tile(const struct esp_gradient *gradient, struct esp_tile tile, struct esp_tile_room *room) {
  const struct esp_kernels_half *half = half_of(gradient, &gradient->grads[0]);
  const size_t row = tile.width * gradient->size;
  size_t stride = 0;
  const char *from = tile_of(gradient, 0, tile, half == NULL ? room->sum : room->part, &stride);
  if (half == NULL && stride == row)
    return from;
  for (size_t r = 0; r < tile.height; r++) {
    if (half == NULL)
      memcpy(room->sum + r * row, from + r * stride, row);
    else
      half->widen(tile.width, from + r * stride, room->sum + r * row);
  }
  return room->sum;
}

const void *esp_gradient_tile(const struct esp_gradient *gradient, struct esp_tile tile, struct esp_tile_room *room) {
  const size_t row = tile.width * gradient->size;
  const char *sum = begin_tile(gradient, tile, room);
  for (size_t i = 1; i < gradient->grads_len; i++) {
    size_t stride = 0;
    const char *part = tile_of(gradient, i, tile, room->part, &stride);
    for (size_t r = 0; r < tile.height; r++)
      add(gradient, i, tile.width, sum + r * row, part + r * stride, room->sum + r * row);
    sum = room->sum;
  }
  if (gradient->scale == 1)
    return sum;
  gradient->kernels->multiply(tile.height * tile.width, sum, gradient->scale, room->sum);
  return room->sum;
}
