/* Element types and shapes: sizes, names, text. What a peer sent is checked for overflow here, in esp_shape_bytes,
 * before anybody computes with it. */
#include "base/dtype.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* No address space is larger, and sums of a few such sizes do not overflow either. */
#define TENSOR_BYTES_MAX (UINT64_C(1) << 62)

static const struct {
  const char *name; /* as in listings and selectors */
  size_t size;      /* bytes an element */
} dtypes[] = {
    [ESP_DTYPE_NONE] = {"none", 0}, [ESP_DTYPE_F32] = {"f32", 4}, [ESP_DTYPE_F64] = {"f64", 8},
    [ESP_DTYPE_BF16] = {"bf16", 2}, [ESP_DTYPE_F16] = {"f16", 2},
};

/* The table's index: a value from the wire may be anything. */
static size_t dtype_index(enum esp_dtype dtype) {
  size_t index = (size_t)dtype;
  return index < sizeof(dtypes) / sizeof(dtypes[0]) ? index : ESP_DTYPE_NONE;
}

size_t esp_dtype_size(enum esp_dtype dtype) {
  return dtypes[dtype_index(dtype)].size;
}

const char *esp_dtype_name(enum esp_dtype dtype) {
  return dtypes[dtype_index(dtype)].name;
}

enum esp_code esp_shape_bytes(const struct esp_shape *shape, enum esp_dtype dtype, uint64_t *ret_elements,
                              uint64_t *ret_bytes, struct esp_status *st) {
  uint64_t size = esp_dtype_size(dtype);
  if (size == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "dtype %d is none that is known", (int)dtype);
  if (shape->rank > ESP_RANK_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "rank %u is over %d", shape->rank, ESP_RANK_MAX);
  char text[ESP_SHAPE_TEXT_MAX];
  uint64_t elements = 1;
  for (unsigned i = 0; i < shape->rank; i++) {
    if (shape->dims[i] == 0)
      return esp_fail(st, ESP_INVALID_ARGUMENT, "shape %s has a dimension 0", esp_shape_print(shape, text));
    if (shape->dims[i] > TENSOR_BYTES_MAX / size / elements)
      return esp_fail(st, ESP_INVALID_ARGUMENT, "shape %s of %s is over 2^62 bytes", esp_shape_print(shape, text),
                      esp_dtype_name(dtype));
    elements *= shape->dims[i];
  }
  *ret_elements = elements;
  *ret_bytes = elements * size;
  return ESP_OK;
}

int esp_shape_equal(const struct esp_shape *a, const struct esp_shape *b) {
  if (a->rank != b->rank)
    return 0;
  for (unsigned i = 0; i < a->rank && i < ESP_RANK_MAX; i++)
    if (a->dims[i] != b->dims[i])
      return 0;
  return 1;
}

const char *esp_shape_print(const struct esp_shape *shape, char *text) {
  size_t len = 0;
  text[len++] = '[';
  for (unsigned i = 0; i < shape->rank && i < ESP_RANK_MAX; i++)
    len += (size_t)snprintf(text + len, ESP_SHAPE_TEXT_MAX - len, "%s%" PRIu64, i == 0 ? "" : ", ", shape->dims[i]);
  snprintf(text + len, ESP_SHAPE_TEXT_MAX - len, "%s]", shape->rank > ESP_RANK_MAX ? ", ..." : "");
  return text;
}
