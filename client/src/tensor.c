/* Tensors by path: get, stage, set. None needs a session.
 *
 * The happy path: get is a Pull of one path, whose first chunk describes the tensor that the rest fills; stage is a
 * client stream of one tensor; set is a stage and an Apply. All are retried as a whole: nothing is changed before
 * Apply, which has a key of its own. They fail with what the server says, and with INTERNAL where the bytes do not add
 * up. */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/dtype.h"
#include "client/src/client.h"

static enum esp_code check_path(const char *path, struct esp_status *st) {
  if (path == NULL || path[0] == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "no path was given");
  if (strlen(path) > ESP_WIRE_PATH_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the path has %zu bytes, of %d at most", strlen(path), ESP_WIRE_PATH_MAX);
  return ESP_OK;
}

/* ---- get ---- */

struct get {
  const char *path;         /* the caller's */
  struct esp_tensor tensor; /* data is owned; NULL until the first chunk */
  uint64_t filled;          /* bytes of data that are there */
};

static enum esp_code get_begin(struct get *get, const struct esp_chunk *chunk, struct esp_status *st) {
  const struct esp_chunk_tensor *from = &chunk->tensor;
  uint64_t elements, bytes;
  if (!chunk->has_tensor)
    return esp_fail(st, ESP_INTERNAL, "the server did not say what %s is", get->path);
  enum esp_code code = esp_shape_bytes(&from->shape, from->dtype, &elements, &bytes, st);
  if (code != ESP_OK)
    return code;
  if (bytes != from->bytes || esp_dtype_size(from->dtype) == 0)
    return esp_fail(st, ESP_INTERNAL, "the server gives %s %" PRIu64 " bytes, and a shape of %" PRIu64, get->path,
                    from->bytes, bytes);
  get->tensor.data = esp_malloc((size_t)bytes);
  if (get->tensor.data == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for %s, of %" PRIu64 " bytes", get->path, bytes);
  get->tensor.bytes = (size_t)bytes;
  get->tensor.dtype = (enum esp_leaf_dtype)from->dtype;
  get->tensor.rank = from->shape.rank;
  memcpy(get->tensor.shape, from->shape.dims, from->shape.rank * sizeof from->shape.dims[0]);
  return ESP_OK;
}

static enum esp_code get_chunk(void *data, const struct esp_chunk *chunk, struct esp_status *st) {
  struct get *get = data;
  enum esp_code code = get->tensor.data == NULL ? get_begin(get, chunk, st) : ESP_OK;
  if (code != ESP_OK)
    return code;
  uint64_t len = chunk->data.left;
  struct esp_cursor cursor = chunk->data;
  if (chunk->offset != get->filled || len > get->tensor.bytes - get->filled ||
      !esp_cursor_copy(&cursor, (uint8_t *)get->tensor.data + get->filled, (size_t)len))
    return esp_fail(st, ESP_INTERNAL, "the server sent byte %" PRIu64 " of %s, where byte %" PRIu64 " was due",
                    chunk->offset, get->path, get->filled);
  get->filled += len;
  return ESP_OK;
}

static enum esp_code get_message(void *data, struct esp_in in, struct esp_status *st) {
  return esp_wire_chunks(in.spans, in.len, ESP_RESPONSE_CHUNKS, get_chunk, data, st);
}

static enum esp_code get_attempt(struct esp_client *client, struct get *get, uint64_t deadline_ms,
                                 struct esp_status *st) {
  struct esp_buf request = {0};
  esp_free(get->tensor.data);
  *get = (struct get){.path = get->path};
  enum esp_code code = esp_encode_pull_path(&request, get->path, esp_left_ms(deadline_ms), st);
  if (code == ESP_OK)
    code = esp_client_call(client, ESP_METHOD_WORKER("Pull"), &request, deadline_ms, get_message, get, 1, st);
  if (code == ESP_OK && (get->tensor.data == NULL || get->filled != get->tensor.bytes))
    code =
        esp_fail(st, ESP_INTERNAL, "the server ended the pull of %s after %" PRIu64 " bytes", get->path, get->filled);
  esp_buf_done(&request);
  return code;
}

enum esp_code esp_get(esp_client *client, const char *path, struct esp_tensor *ret, struct esp_status *st) {
  struct esp_retry retry = esp_client_retry(client);
  struct get get = {.path = path};
  enum esp_code code = check_path(path, st);
  if (code != ESP_OK)
    return code;
  do
    code = get_attempt(client, &get, retry.deadline_ms, st);
  while (code != ESP_OK && esp_retry_wait(&retry, code));
  if (code == ESP_OK)
    *ret = get.tensor;
  else
    esp_free(get.tensor.data);
  return code;
}

const void *esp_row(const struct esp_tensor *tensor, uint64_t row, size_t *ret_bytes) {
  uint64_t rows = tensor->rank == 0 ? 1 : tensor->shape[0];
  if (row >= rows)
    return NULL;
  size_t bytes = (size_t)(tensor->bytes / rows);
  if (ret_bytes != NULL)
    *ret_bytes = bytes;
  return (const uint8_t *)tensor->data + row * bytes;
}

/* ---- stage and set ---- */

static enum esp_code check_tensor(const char *path, const struct esp_tensor *tensor, struct esp_status *st) {
  enum esp_code code = check_path(path, st);
  if (code != ESP_OK)
    return code;
  if (tensor->rank > ESP_LEAF_RANK_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the tensor for %s has rank %u, of %d at most", path, tensor->rank,
                    ESP_LEAF_RANK_MAX);
  if (esp_dtype_size((enum esp_dtype)tensor->dtype) == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the tensor for %s has dtype %u, which is none of enum esp_leaf_dtype",
                    path, (unsigned)tensor->dtype);
  struct esp_shape shape = {.rank = tensor->rank};
  memcpy(shape.dims, tensor->shape, tensor->rank * sizeof shape.dims[0]);
  struct esp_status why;
  uint64_t elements, bytes;
  if (esp_shape_bytes(&shape, (enum esp_dtype)tensor->dtype, &elements, &bytes, &why) != ESP_OK)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the tensor for %s: %s", path, why.message);
  if (bytes != tensor->bytes || tensor->data == NULL)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the tensor for %s has %zu bytes, and a shape of %" PRIu64, path,
                    tensor->data == NULL ? 0 : tensor->bytes, bytes);
  return ESP_OK;
}

static enum esp_code take_stage(void *data, struct esp_in in, struct esp_status *st) {
  return esp_decode_stage(in, data, st);
}

static enum esp_code send_stage(struct esp_call *call, const char *path, const struct esp_tensor *tensor,
                                uint64_t deadline_ms, struct esp_status *st) {
  struct esp_buf header = {0};
  enum esp_code code = esp_encode_stage(&header, tensor->bytes, esp_left_ms(deadline_ms), st);
  if (code == ESP_OK)
    esp_call_append(call, header.data, header.len);
  esp_buf_done(&header);
  struct esp_chunk_writer writer = {.call = call, .deadline_ms = deadline_ms};
  struct esp_chunk_name name = {.path = path, .tensor = tensor};
  if (code == ESP_OK)
    code = esp_chunks_put(&writer, &name, tensor->data, tensor->bytes, st);
  return code == ESP_OK ? esp_call_send(call, true, deadline_ms, st) : code;
}

static enum esp_code stage_attempt(struct esp_client *client, const char *path, const struct esp_tensor *tensor,
                                   uint64_t deadline_ms, uint64_t *ret_stage, struct esp_status *st) {
  struct esp_conn *conn;
  struct esp_call *call = NULL;
  enum esp_code code = esp_client_connect(client, deadline_ms, &conn, st);
  if (code != ESP_OK)
    return code;
  code = esp_call_new(conn, ESP_METHOD_WORKER("Stage"), &call, st);
  esp_conn_unref(conn);
  if (code == ESP_OK)
    code = send_stage(call, path, tensor, deadline_ms, st);
  if (code == ESP_OK)
    code = esp_client_answers(call, deadline_ms, take_stage, ret_stage, 1, st);
  esp_call_free(call);
  return code;
}

static enum esp_code stage(struct esp_client *client, const char *path, const struct esp_tensor *tensor,
                           struct esp_retry retry, uint64_t *ret_stage, struct esp_status *st) {
  uint64_t token = 0;
  enum esp_code code = check_tensor(path, tensor, st);
  if (code != ESP_OK)
    return code;
  do
    code = stage_attempt(client, path, tensor, retry.deadline_ms, &token, st);
  while (code != ESP_OK && esp_retry_wait(&retry, code));
  if (code == ESP_OK)
    *ret_stage = token;
  return code;
}

enum esp_code esp_stage(esp_client *client, const char *path, const struct esp_tensor *tensor, uint64_t *ret_stage,
                        struct esp_status *st) {
  return stage(client, path, tensor, esp_client_retry(client), ret_stage, st);
}

enum esp_code esp_set(esp_client *client, const char *path, const struct esp_tensor *tensor,
                      struct esp_apply_result **ret, struct esp_status *st) {
  struct esp_retry retry = esp_client_retry(client);
  struct esp_op op = {.kind = ESP_OP_SET, .selection = path};
  enum esp_code code = stage(client, path, tensor, retry, &op.stage, st);
  return code == ESP_OK ? esp_apply_within(client, &op, 1, NULL, retry, ret, st) : code;
}
