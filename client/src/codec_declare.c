/* Messages of declarations and stages as bytes. As codec.c, whose helpers it uses. */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "client/src/codec_pb.h"
#include "espalier/v1/parameter_server.pb-c.h"

#define DECLARE_LEAVES 3 /* fields of DeclareRequest */
#define DECLARE_NODES 4
#define CHUNK_DATA 15 /* the field of Chunk */
#define TAG_BYTES(field) (((uint64_t)(field) << 3) | 2)

enum esp_code esp_encode_declare(struct esp_buf *buf, const struct esp_declare_head *head, struct esp_status *st) {
  Espalier__V1__DeclareHeader header = ESPALIER__V1__DECLARE_HEADER__INIT;
  header.session = head->session;
  header.total_bytes = head->total_bytes;
  header.leaf_count = head->leaf_count;
  header.wait_ms = head->wait_ms;
  Espalier__V1__DeclareRequest message = ESPALIER__V1__DECLARE_REQUEST__INIT;
  message.header = &header;
  return esp_pb_pack(buf, &message.base, st);
}

void esp_pb_fill_init(enum esp_leaf_init kind, double a, double b, uint64_t seed, struct esp_pb_init *fill) {
  espalier__v1__initializer__init(&fill->init);
  espalier__v1__initializer__uniform__init(&fill->uniform);
  espalier__v1__initializer__normal__init(&fill->normal);
  fill->init.seed = seed;
  switch (kind) {
  case ESP_ZEROS:
    fill->init.value_case = ESPALIER__V1__INITIALIZER__VALUE_ZEROS;
    fill->init.zeros = 1;
    break;
  case ESP_CONSTANT:
    fill->init.value_case = ESPALIER__V1__INITIALIZER__VALUE_CONSTANT;
    fill->init.constant = a;
    break;
  case ESP_UNIFORM:
    fill->init.value_case = ESPALIER__V1__INITIALIZER__VALUE_UNIFORM;
    fill->uniform.low = a;
    fill->uniform.high = b;
    fill->init.uniform = &fill->uniform;
    break;
  case ESP_NORMAL:
    fill->init.value_case = ESPALIER__V1__INITIALIZER__VALUE_NORMAL;
    fill->normal.mean = a;
    fill->normal.stddev = b;
    fill->init.normal = &fill->normal;
    break;
  case ESP_VALUE:
    fill->init.value_case = ESPALIER__V1__INITIALIZER__VALUE_FOLLOWS;
    fill->init.follows = 1;
    break;
  }
}

void esp_pb_fill_leaf(const struct esp_leaf_spec *spec, struct esp_pb_leaf *fill) {
  Espalier__V1__LeafSpec *leaf = &fill->leaf;
  espalier__v1__leaf_spec__init(leaf);
  esp_pb_fill_init(spec->init, spec->a, spec->b, spec->seed, &fill->init);
  leaf->path = (char *)spec->path;
  leaf->n_shape = spec->rank;
  leaf->shape = (uint64_t *)spec->shape;
  leaf->dtype = (Espalier__V1__DType)spec->dtype;
  leaf->kind = spec->kind == 0 ? ESPALIER__V1__KIND__KIND_TRAINED : (Espalier__V1__Kind)spec->kind;
  leaf->tag = esp_pb_text(spec->tag);
  leaf->group = esp_pb_text(spec->group);
  leaf->alias_of = esp_pb_text(spec->alias_of);
  leaf->view = spec->transposed ? ESPALIER__V1__VIEW__VIEW_TRANSPOSE : ESPALIER__V1__VIEW__VIEW_IDENTITY;
  leaf->frozen = spec->frozen;
  leaf->detached = spec->detached;
  leaf->init = &fill->init.init;
}

/* As one of a DeclareRequest's. */
static enum esp_code add_part(struct esp_buf *buf, uint32_t field, const ProtobufCMessage *part,
                              struct esp_status *st) {
  size_t len = protobuf_c_message_get_packed_size(part);
  enum esp_code code = esp_buf_reserve(buf, 20 + len, st); /* tag and length have 20 bytes at most */
  if (code != ESP_OK)
    return code;
  esp_buf_add_varint(buf, TAG_BYTES(field));
  esp_buf_add_varint(buf, len);
  return esp_pb_pack(buf, part, st);
}

enum esp_code esp_encode_leaf(struct esp_buf *buf, const struct esp_leaf_spec *spec, struct esp_status *st) {
  struct esp_pb_leaf fill;
  esp_pb_fill_leaf(spec, &fill);
  return add_part(buf, DECLARE_LEAVES, &fill.leaf.base, st);
}

enum esp_code esp_encode_node(struct esp_buf *buf, const struct esp_node_spec *spec, struct esp_status *st) {
  Espalier__V1__NodeSpec node = ESPALIER__V1__NODE_SPEC__INIT;
  node.path = esp_pb_text(spec->path);
  node.tag = esp_pb_text(spec->tag);
  node.group = esp_pb_text(spec->group);
  node.frozen = spec->frozen;
  node.detached = spec->detached;
  return add_part(buf, DECLARE_NODES, &node.base, st);
}

void esp_declare_reply_done(struct esp_declare_reply *reply) {
  esp_free(reply->runs);
  *reply = (struct esp_declare_reply){0};
}

enum esp_code esp_decode_declare(struct esp_in in, struct esp_declare_reply *ret, struct esp_status *st) {
  struct esp_arena arena;
  Espalier__V1__DeclareReply *message;
  enum esp_code code = esp_pb_unpack(in, NO_CHUNKS, &espalier__v1__declare_reply__descriptor, &arena, &message, st);
  struct esp_declare_reply reply = {0};
  if (code == ESP_OK) {
    reply.epoch = message->epoch;
    reply.lineage = message->lineage;
    reply.runs_len = message->n_ids;
    reply.runs = esp_malloc_array(message->n_ids + 1, sizeof *reply.runs);
    if (reply.runs == NULL)
      code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for the ids of the declared leaves");
  }
  if (code == ESP_OK) {
    for (size_t i = 0; i < reply.runs_len; i++)
      reply.runs[i] = (struct esp_id_run){.first = message->ids[i]->first, .count = message->ids[i]->count};
    *ret = reply;
  }
  esp_arena_done(&arena);
  return code;
}

enum esp_code esp_id_runs_expand(const struct esp_id_run *runs, size_t runs_len, esp_leaf_id *ret, size_t len,
                                 struct esp_status *st) {
  size_t left = len;
  for (size_t i = 0; i < runs_len; i++) {
    if (runs[i].first == 0 || runs[i].count > left || runs[i].first + runs[i].count < runs[i].first)
      return esp_fail(st, ESP_INTERNAL,
                      "the server answered with ids from %" PRIu64 " on for %" PRIu64 " leaves, where %zu were left",
                      runs[i].first, runs[i].count, left);
    left -= runs[i].count;
  }
  if (left > 0)
    return esp_fail(st, ESP_INTERNAL, "the server answered with ids for %zu leaves, of %zu", len - left, len);
  for (size_t i = 0; i < runs_len; i++)
    for (uint64_t k = 0; k < runs[i].count; k++)
      *ret++ = runs[i].first + k;
  return ESP_OK;
}

/* ---- stages ---- */

enum esp_code esp_encode_stage(struct esp_buf *buf, uint64_t total_bytes, uint64_t wait_ms, struct esp_status *st) {
  Espalier__V1__StageHeader header = ESPALIER__V1__STAGE_HEADER__INIT;
  header.total_bytes = total_bytes;
  header.leaf_count = 1;
  header.wait_ms = wait_ms;
  Espalier__V1__StageRequest message = ESPALIER__V1__STAGE_REQUEST__INIT;
  message.header = &header;
  return esp_pb_pack(buf, &message.base, st);
}

enum esp_code esp_encode_chunk_path(struct esp_buf *buf, const char *path, uint64_t offset,
                                    const struct esp_tensor *tensor, size_t data_len, struct esp_status *st) {
  Espalier__V1__TensorHeader header = ESPALIER__V1__TENSOR_HEADER__INIT;
  Espalier__V1__Chunk chunk = ESPALIER__V1__CHUNK__INIT;
  chunk.path = (char *)path;
  chunk.offset = offset;
  if (tensor != NULL) {
    header.dtype = (Espalier__V1__DType)tensor->dtype;
    header.n_shape = tensor->rank;
    header.shape = (uint64_t *)tensor->shape;
    header.bytes = tensor->bytes;
    chunk.tensor = &header;
  }
  size_t fields_len = protobuf_c_message_get_packed_size(&chunk.base);
  size_t len = fields_len + 1 + esp_varint_bytes(data_len) + data_len;
  enum esp_code code = esp_buf_reserve(buf, fields_len + 40, st);
  if (code != ESP_OK)
    return code;
  esp_buf_add_varint(buf, TAG_BYTES(ESP_REQUEST_CHUNKS));
  esp_buf_add_varint(buf, len);
  code = esp_pb_pack(buf, &chunk.base, st);
  if (code == ESP_OK) {
    esp_buf_add_varint(buf, TAG_BYTES(CHUNK_DATA));
    esp_buf_add_varint(buf, data_len);
  }
  return code;
}

enum esp_code esp_decode_stage(struct esp_in in, uint64_t *ret_stage, struct esp_status *st) {
  struct esp_arena arena;
  Espalier__V1__StageReply *message;
  enum esp_code code = esp_pb_unpack(in, NO_CHUNKS, &espalier__v1__stage_reply__descriptor, &arena, &message, st);
  if (code == ESP_OK)
    *ret_stage = message->stage;
  esp_arena_done(&arena);
  return code;
}
