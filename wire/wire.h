/* The data path's messages read in place: chunks of PushRequest, StreamRequest, StageRequest, DeclareRequest,
 * PullResponse and StreamResponse, without unpacking and without a copy of the payload. Server and client share it.
 *
 * A message comes in spans. One scan walks the fields and skips the payloads, so any order of fields, repeated fields
 * (the last wins) and unknown ones give the same result as a protobuf library's. Everything that is not a chunk is
 * copied, field by field, into a small buffer that protobuf-c unpacks. Nothing here knows gRPC or protobuf-c. */
#ifndef ESP_WIRE_H
#define ESP_WIRE_H

#include <espalier/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"
#include "base/span.h"

#define ESP_WIRE_PATH_MAX 4096
#define ESP_CHUNK_BYTES_MAX (4u << 20)   /* a message on a data stream */
#define ESP_CHUNK_BYTES_USUAL (1u << 20) /* payload that our writers put in one */
#define ESP_CHUNK_PREFIX_MAX 208         /* bytes before a chunk's payload, if every number takes its ten */

/* A chunk's TensorHeader. */
struct esp_chunk_tensor {
  enum esp_dtype dtype;   /* of the bytes; as it came, so it may be none that is known */
  bool has_shape;         /* a scalar's empty shape can't be told from none */
  struct esp_shape shape; /* of the leaf; its dimensions are not checked */
  uint64_t bytes;         /* of the whole tensor in this transfer */
  uint64_t rows_len;      /* row-sparse pushes are not built: only their presence is read */
  uint64_t parameter;     /* pulls: the id of the parameter behind the leaf */
  uint64_t version;       /* pulls: the parameter's */
  uint64_t view;          /* pulls: proto View, as it came */
};

struct esp_chunk {
  uint64_t leaf_id;               /* 0: named by path or index */
  uint64_t index;                 /* in Declare: the leaf's place in the stream */
  uint64_t offset;                /* of data in the tensor, in bytes */
  const char *path;               /* "" for none; no NUL behind it; lives as long as the visit */
  size_t path_len;                /* bytes */
  bool has_tensor;                /* whether tensor was there */
  struct esp_chunk_tensor tensor; /* zeros where it was not */
  struct esp_cursor data;         /* its `left` is the payload's length; lives as long as the spans */
};

/* What a visit returns other than ESP_OK ends the scan and is its result. */
typedef enum esp_code (*esp_chunk_visitor)(void *data, const struct esp_chunk *chunk, struct esp_status *st);

/* Bytes that are not chunks, in the order of the message, to be unpacked by the caller. */
struct esp_rest {
  uint8_t *bytes;  /* owned */
  size_t len;      /* of bytes */
  size_t capacity; /* of bytes */
};
void esp_rest_done(struct esp_rest *rest); /* idempotent */

/* Collects what is not in the repeated message field chunks_field; rest->len is 0 before and stays 0 for a message of
 * nothing but chunks. To be called first, since headers come before payload in meaning wherever they stand.
 * INVALID_ARGUMENT where the bytes are no message (truncated, group or unknown wire type, field number 0, a number of
 * too many bytes) or a chunk is not length-delimited; RESOURCE_EXHAUSTED without memory. After any result the caller
 * calls esp_rest_done. */
enum esp_code esp_wire_rest(const struct esp_span *spans, size_t spans_len, uint32_t chunks_field,
                            struct esp_rest *rest, struct esp_status *st) ESP_WARN_UNUSED;

/* Visits each chunk of the message in order, without allocating. INVALID_ARGUMENT as above, and for what is wrong
 * inside a chunk: a known field of another wire type, a shape of rank over 8, a path over ESP_WIRE_PATH_MAX. Earlier
 * chunks of the message have been visited then. A path is passed on as raw bytes: NUL and bad UTF-8 are the visitor's
 * to refuse. */
enum esp_code esp_wire_chunks(const struct esp_span *spans, size_t spans_len, uint32_t chunks_field,
                              esp_chunk_visitor visit, void *data, struct esp_status *st) ESP_WARN_UNUSED;

/* Writes what precedes a chunk's payload of data_len bytes: the field's tag and length in the outer message, then the
 * chunk's fields, then data's tag and length. The payload must follow as it is. tensor may be NULL; its rows_len is not
 * written. Fields that are 0 are left out. Returns the bytes written, at most ESP_CHUNK_PREFIX_MAX. */
size_t esp_wire_chunk_prefix(uint8_t prefix[ESP_CHUNK_PREFIX_MAX], uint32_t chunks_field, uint64_t leaf_id,
                             uint64_t index, uint64_t offset, const struct esp_chunk_tensor *tensor, size_t data_len);

#endif
