/* Tensors on their way out.
 *
 * The happy path: a tensor is cut so that each message carries ESP_CHUNK_BYTES_USUAL of payload; small tensors share
 * one. What precedes a chunk is copied to the message, as is a small payload; a larger one refers to the caller's
 * memory. A full message is sent, the last one is left to the caller. It fails with how the call ended. */
#include "client/src/client.h"

/* Keeps a message of nothing but prefixes below the largest size. */
#define CHUNKS_MAX 8192
#define COPIED_BYTES_MAX 4096 /* payloads up to this size are copied: to lend them would cost more */

static enum esp_code put_prefix(struct esp_chunk_writer *writer, const struct esp_chunk_name *name, uint64_t offset,
                                size_t len, struct esp_status *st) {
  if (name->path == NULL) {
    uint8_t prefix[ESP_CHUNK_PREFIX_MAX];
    const struct esp_chunk_tensor tensor = {.dtype = name->dtype};
    size_t prefix_len = esp_wire_chunk_prefix(prefix, ESP_REQUEST_CHUNKS, name->leaf, name->index, offset,
                                              offset == 0 && name->dtype != ESP_DTYPE_NONE ? &tensor : NULL, len);
    esp_call_append(writer->call, prefix, prefix_len);
    return ESP_OK;
  }
  struct esp_buf buf = {0};
  enum esp_code code = esp_encode_chunk_path(&buf, name->path, offset, offset == 0 ? name->tensor : NULL, len, st);
  if (code == ESP_OK)
    esp_call_append(writer->call, buf.data, buf.len);
  esp_buf_done(&buf);
  return code;
}

bool esp_chunks_is_full(const struct esp_chunk_writer *writer) {
  return writer->payload == ESP_CHUNK_BYTES_USUAL || writer->chunks == CHUNKS_MAX;
}

enum esp_code esp_chunks_fill(struct esp_chunk_writer *writer, const struct esp_chunk_name *name, const void *data,
                              size_t bytes, size_t *offset, struct esp_status *st) {
  size_t room = ESP_CHUNK_BYTES_USUAL - writer->payload;
  size_t len = bytes - *offset < room ? bytes - *offset : room;
  enum esp_code code = put_prefix(writer, name, *offset, len, st);
  if (code != ESP_OK)
    return code;
  const uint8_t *payload = (const uint8_t *)data + *offset;
  if (len <= COPIED_BYTES_MAX)
    esp_call_append(writer->call, payload, len);
  else
    esp_call_append_loan(writer->call, payload, len);
  writer->payload += len;
  writer->chunks++;
  *offset += len;
  return ESP_OK;
}

enum esp_code esp_chunks_put(struct esp_chunk_writer *writer, const struct esp_chunk_name *name, const void *data,
                             size_t bytes, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  for (size_t offset = 0; offset < bytes && code == ESP_OK;) {
    if (esp_chunks_is_full(writer)) {
      code = esp_call_send(writer->call, false, writer->deadline_ms, st);
      writer->payload = 0;
      writer->chunks = 0;
    }
    if (code == ESP_OK)
      code = esp_chunks_fill(writer, name, data, bytes, &offset, st);
  }
  return code;
}
