/* Element types and shapes. Pure functions, any thread. */
#ifndef ESP_BASE_DTYPE_H
#define ESP_BASE_DTYPE_H

#include <espalier/status.h>

#include <stddef.h>
#include <stdint.h>

/* The values are the wire's (proto DType). */
enum esp_dtype { ESP_DTYPE_NONE = 0, ESP_DTYPE_F32 = 1, ESP_DTYPE_F64 = 2, ESP_DTYPE_BF16 = 3, ESP_DTYPE_F16 = 4 };

#define ESP_RANK_MAX 8

struct esp_shape {
  uint64_t dims[ESP_RANK_MAX]; /* the first `rank` count */
  unsigned rank;               /* 0: a scalar */
};

#define ESP_SHAPE_TEXT_MAX 192

size_t esp_dtype_size(enum esp_dtype dtype);      /* bytes an element; 0 for none of them */
const char *esp_dtype_name(enum esp_dtype dtype); /* "f32"; "none" for none of them */

/* Elements and bytes of a tensor: INVALID_ARGUMENT for a rank over 8, a dimension 0, or a product over 2^62 bytes. */
enum esp_code esp_shape_bytes(const struct esp_shape *shape, enum esp_dtype dtype, uint64_t *ret_elements,
                              uint64_t *ret_bytes, struct esp_status *st) ESP_WARN_UNUSED;
int esp_shape_equal(const struct esp_shape *a, const struct esp_shape *b);
/* "[64, 32]" into text, of ESP_SHAPE_TEXT_MAX bytes; returns text. */
const char *esp_shape_print(const struct esp_shape *shape, char *text);

#endif
