/* A writer of safetensors files: tensors by name, to be opened by any safetensors library. Pure data; one thread a
 * writer. */
#ifndef ESP_FORMATS_SAFETENSORS_H
#define ESP_FORMATS_SAFETENSORS_H

#include <espalier/status.h>

#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/env.h"

/* The longest header that safetensors' own reader takes. */
#define ESP_SAFETENSORS_HEADER_BYTES_MAX 100000000

struct esp_safetensors_tensor {
  const char *name; /* UTF-8, unlike the others' and not "__metadata__" */
  enum esp_dtype dtype;
  struct esp_shape shape;
};

/* One string of the file's __metadata__. */
struct esp_safetensors_metadata {
  const char *key; /* unlike the others */
  const char *value;
};

struct esp_safetensors_writer {
  struct esp_atomic_file file;
  size_t *order;       /* indices of the tensors, in the order in which their data is to be written */
  size_t order_len;    /* as many as there are tensors */
  uint64_t bytes_left; /* of data that is not written yet */
};

/* Begins the file and writes its header, which names the tensors in the order given. Their data follows in
 * another: `order`, large elements first, because readers that map the file want elements aligned.
 * The inputs are borrowed for the call. INVALID_ARGUMENT names the tensor; RESOURCE_EXHAUSTED: no memory, or a header
 * longer than readers take; the disk's errors. */
enum esp_code esp_safetensors_begin(struct esp_safetensors_writer *writer, const struct esp_env *env, const char *path,
                                    const struct esp_safetensors_tensor *tensors, size_t tensors_len,
                                    const struct esp_safetensors_metadata *metadata, size_t metadata_len,
                                    struct esp_status *st) ESP_WARN_UNUSED;
/* Writes more data, in pieces of any size. INVALID_ARGUMENT for more than the tensors have. */
enum esp_code esp_safetensors_write(struct esp_safetensors_writer *writer, const void *data, size_t len,
                                    struct esp_status *st) ESP_WARN_UNUSED;
/* Makes the file visible. INVALID_ARGUMENT while data is missing. Only abort may follow. */
enum esp_code esp_safetensors_commit(struct esp_safetensors_writer *writer, struct esp_status *st) ESP_WARN_UNUSED;
/* Frees what the writer holds and, unless it was committed, removes what was written. Idempotent. */
void esp_safetensors_abort(struct esp_safetensors_writer *writer);

#endif
