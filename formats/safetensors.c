/* A writer of safetensors files.
 *
 * A file is the length of a header (u64), the header (a JSON object, padded with spaces to 8 bytes), and the data. The
 * header names each tensor's dtype, shape and place in the data. It is made one tensor at a time by Jansson, whose
 * integers keep offsets exact, into one buffer: a tree of JSON values for a million tensors would take a gigabyte. The
 * data streams through.
 *
 * Everything that can be wrong with the tensors is found before the file is made; a failed write leaves an unfinished
 * temporary file, which abort removes. */
#include "formats/safetensors.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"

/* The header while it grows. */
struct header {
  char *data;
  size_t capacity;
  size_t len;
  bool failed; /* an append failed: for good, because Jansson (2.14) forgets it where that was in a key */
};

static enum esp_code no_memory(struct esp_status *st) {
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for the header of a safetensors file");
}

/* Jansson's callback: 0 is success. */
static int header_append(const char *bytes, size_t len, void *data) {
  struct header *header = data;
  if (header->failed || !esp_grow((void **)&header->data, &header->capacity, header->len + len, 1)) {
    header->failed = true;
    return -1;
  }
  memcpy(header->data + header->len, bytes, len);
  header->len += len;
  return 0;
}

static enum esp_code header_append_text(struct header *header, const char *text, struct esp_status *st) {
  return header_append(text, strlen(text), header) == 0 ? ESP_OK : no_memory(st);
}

/* Takes the value; NULL stands for one that there was no memory for. */
static enum esp_code header_append_json(struct header *header, json_t *value, struct esp_status *st) {
  bool failed = value == NULL || json_dump_callback(value, header_append, header, JSON_COMPACT | JSON_ENCODE_ANY) != 0;
  json_decref(value);
  return failed ? no_memory(st) : ESP_OK;
}

/* A string of somebody else's: the header must be UTF-8. */
static enum esp_code header_append_string(struct header *header, const char *text, struct esp_status *st) {
  json_t *value = json_string(text);
  if (value == NULL) {
    json_t *unchecked = json_string_nocheck(text);
    bool invalid = unchecked != NULL;
    json_decref(unchecked);
    return invalid
               ? esp_fail(st, ESP_INVALID_ARGUMENT, "'%s' is not UTF-8, as names in a safetensors file must be", text)
               : no_memory(st);
  }
  return header_append_json(header, value, st);
}

static const char *dtype_text(enum esp_dtype dtype) {
  switch (dtype) {
  case ESP_DTYPE_F32:
    return "F32";
  case ESP_DTYPE_F64:
    return "F64";
  case ESP_DTYPE_BF16:
    return "BF16";
  case ESP_DTYPE_F16:
    return "F16";
  case ESP_DTYPE_NONE:
    break;
  }
  return NULL;
}

static json_t *shape_json(const struct esp_shape *shape) {
  json_t *array = json_array();
  for (unsigned i = 0; array != NULL && i < shape->rank; i++) {
    if (json_array_append_new(array, json_integer((json_int_t)shape->dims[i])) != 0) {
      json_decref(array);
      return NULL;
    }
  }
  return array;
}

/* The separator, the key, and a colon. */
static enum esp_code header_append_key(struct header *header, const char *key, struct esp_status *st) {
  char last = header->data[header->len - 1];
  enum esp_code code = last == '{' ? ESP_OK : header_append_text(header, ",", st);
  if (code == ESP_OK)
    code = header_append_string(header, key, st);
  return code == ESP_OK ? header_append_text(header, ":", st) : code;
}

static enum esp_code header_append_metadata(struct header *header, const struct esp_safetensors_metadata *metadata,
                                            size_t len, struct esp_status *st) {
  enum esp_code code = header_append_text(header, "{\"__metadata__\":{", st);
  for (size_t i = 0; code == ESP_OK && i < len; i++) {
    code = header_append_key(header, metadata[i].key, st);
    if (code == ESP_OK)
      code = header_append_string(header, metadata[i].value, st);
  }
  return code == ESP_OK ? header_append_text(header, "}", st) : code;
}

static enum esp_code header_append_tensor(struct header *header, const struct esp_safetensors_tensor *tensor,
                                          uint64_t start, uint64_t bytes, struct esp_status *st) {
  enum esp_code code = header_append_key(header, tensor->name, st);
  if (code != ESP_OK)
    return code;
  json_t *shape = shape_json(&tensor->shape);
  if (shape == NULL)
    return no_memory(st);
  uint64_t end = start + bytes;
  return header_append_json(header,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_text(tensor->dtype), "shape", shape,
                                      "data_offsets", (json_int_t)start, (json_int_t)end),
                            st);
}

static enum esp_code header_finish(struct header *header, struct esp_status *st) {
  enum esp_code code = header_append_text(header, "}", st);
  while (code == ESP_OK && header->len % 8 != 0)
    code = header_append_text(header, " ", st);
  if (code == ESP_OK && header->len > ESP_SAFETENSORS_HEADER_BYTES_MAX)
    return esp_fail(
        st, ESP_RESOURCE_EXHAUSTED,
        "the header of a safetensors file would have %zu bytes, and its readers take %d at most: write fewer "
        "tensors into each file",
        header->len, ESP_SAFETENSORS_HEADER_BYTES_MAX);
  return code;
}

static enum esp_code tensor_bytes(const struct esp_safetensors_tensor *tensor, uint64_t *ret, struct esp_status *st) {
  struct esp_status why;
  uint64_t elements = 0;
  if (strcmp(tensor->name, "__metadata__") == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a tensor in a safetensors file can't be called '__metadata__'");
  if (dtype_text(tensor->dtype) == NULL)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "'%s' has no dtype", tensor->name);
  enum esp_code code = esp_shape_bytes(&tensor->shape, tensor->dtype, &elements, ret, &why);
  return code == ESP_OK ? ESP_OK : esp_fail(st, code, "'%s': %s", tensor->name, why.message);
}

/* Gives each tensor its place in the data, the largest elements first: each is then aligned to its own size. */
static enum esp_code place(const struct esp_safetensors_tensor *tensors, size_t len, size_t *order, uint64_t *starts,
                           uint64_t *ret_total, struct esp_status *st) {
  uint64_t total = 0;
  size_t placed = 0;
  for (size_t i = 0; i < len; i++) { /* everything is checked first, in the caller's order */
    enum esp_code code = tensor_bytes(&tensors[i], &starts[i], st);
    if (code != ESP_OK)
      return code;
  }
  for (size_t size = 8; size > 0; size /= 2) {
    for (size_t i = 0; i < len; i++) {
      if (esp_dtype_size(tensors[i].dtype) != size)
        continue;
      uint64_t bytes = starts[i];
      starts[i] = total;
      if (bytes > (uint64_t)INT64_MAX - total)
        return esp_fail(st, ESP_INVALID_ARGUMENT, "the tensors have more than 2^63 bytes together");
      total += bytes;
      order[placed++] = i;
    }
  }
  *ret_total = total;
  return ESP_OK;
}

static enum esp_code make_header(struct header *header, const struct esp_safetensors_tensor *tensors,
                                 size_t tensors_len, const uint64_t *starts,
                                 const struct esp_safetensors_metadata *metadata, size_t metadata_len,
                                 struct esp_status *st) {
  enum esp_code code = header_append_metadata(header, metadata, metadata_len, st);
  for (size_t i = 0; code == ESP_OK && i < tensors_len; i++) {
    uint64_t bytes = 0;
    code = tensor_bytes(&tensors[i], &bytes, st);
    if (code == ESP_OK)
      code = header_append_tensor(header, &tensors[i], starts[i], bytes, st);
  }
  return code == ESP_OK ? header_finish(header, st) : code;
}

static enum esp_code write_header(struct esp_safetensors_writer *writer, const struct esp_env *env, const char *path,
                                  const struct header *header, struct esp_status *st) {
  uint8_t count[8];
  for (size_t i = 0; i < sizeof count; i++)
    count[i] = (uint8_t)((uint64_t)header->len >> (8 * i));
  enum esp_code code = esp_atomic_file_begin(&writer->file, env, path, st);
  if (code == ESP_OK)
    code = esp_atomic_file_write(&writer->file, count, sizeof count, st);
  return code == ESP_OK ? esp_atomic_file_write(&writer->file, header->data, header->len, st) : code;
}

enum esp_code esp_safetensors_begin(struct esp_safetensors_writer *writer, const struct esp_env *env, const char *path,
                                    const struct esp_safetensors_tensor *tensors, size_t tensors_len,
                                    const struct esp_safetensors_metadata *metadata, size_t metadata_len,
                                    struct esp_status *st) {
  *writer = (struct esp_safetensors_writer){.order_len = tensors_len};
  struct header header = {0};
  writer->order = esp_malloc_array(tensors_len, sizeof *writer->order);
  uint64_t *starts = esp_malloc_array(tensors_len, sizeof *starts);
  enum esp_code code = ESP_OK;
  if (tensors_len > 0 && (writer->order == NULL || starts == NULL))
    code = no_memory(st);
  if (code == ESP_OK)
    code = place(tensors, tensors_len, writer->order, starts, &writer->bytes_left, st);
  if (code == ESP_OK)
    code = make_header(&header, tensors, tensors_len, starts, metadata, metadata_len, st);
  if (code == ESP_OK)
    code = write_header(writer, env, path, &header, st);
  esp_free(header.data);
  esp_free(starts);
  if (code != ESP_OK)
    esp_safetensors_abort(writer);
  return code;
}

enum esp_code esp_safetensors_write(struct esp_safetensors_writer *writer, const void *data, size_t len,
                                    struct esp_status *st) {
  if (len > writer->bytes_left)
    return esp_fail(st, ESP_INVALID_ARGUMENT,
                    "%zu bytes for a safetensors file whose tensors have only %" PRIu64 " left", len,
                    writer->bytes_left);
  enum esp_code code = esp_atomic_file_write(&writer->file, data, len, st);
  if (code == ESP_OK)
    writer->bytes_left -= len;
  return code;
}

enum esp_code esp_safetensors_commit(struct esp_safetensors_writer *writer, struct esp_status *st) {
  if (writer->bytes_left > 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a safetensors file lacks %" PRIu64 " bytes of its tensors",
                    writer->bytes_left);
  return esp_atomic_file_commit(&writer->file, st);
}

void esp_safetensors_abort(struct esp_safetensors_writer *writer) {
  esp_atomic_file_abort(&writer->file);
  esp_free(writer->order);
  writer->order = NULL;
}
