/* NumPy's .npy files, one array each: little-endian float32 and float64 in C order. The reader takes format versions
 * 1.0, 2.0 and 3.0, the writer writes 1.0, byte for byte as numpy.save does. Pure data, any thread. */
#ifndef ESP_FORMATS_NPY_H
#define ESP_FORMATS_NPY_H

#include <espalier/status.h>

#include <stddef.h>

#include "base/dtype.h"
#include "base/env.h"

/* The longest dictionary that the reader takes: version 1.0's bound. Ours need a hundred bytes. */
#define ESP_NPY_DICT_BYTES_MAX 65535

/* Room for what goes before the data in a file of ours. */
#define ESP_NPY_HEADER_BYTES_MAX 256

struct esp_npy {
  enum esp_dtype dtype;
  struct esp_shape shape;
  const void *data; /* row-major, little-endian; borrowed; of no alignment */
  size_t bytes;     /* what dtype and shape need */
};

/* Reads a whole file, which lies in buffer; ret->data points into it. INVALID_ARGUMENT says what is wrong with the file
 * and, for an array that only has to be saved differently, how to do that in NumPy; UNIMPLEMENTED for float16. */
enum esp_code esp_npy_parse(const void *buffer, size_t len, struct esp_npy *ret, struct esp_status *st) ESP_WARN_UNUSED;

/* Makes what goes before the data, of ESP_NPY_HEADER_BYTES_MAX bytes at most. INVALID_ARGUMENT for a shape that is none
 * or a wrong number of bytes, UNIMPLEMENTED for a dtype other than f32 and f64. */
enum esp_code esp_npy_make_header(const struct esp_npy *array, char *ret_header, size_t *ret_len,
                                  struct esp_status *st) ESP_WARN_UNUSED;

/* Writes a file as a whole: whoever reads PATH sees the old file or the new one. Errors: esp_npy_make_header's and the
 * disk's. */
enum esp_code esp_npy_write(const struct esp_env *env, const char *path, const struct esp_npy *array,
                            struct esp_status *st) ESP_WARN_UNUSED;

#endif
