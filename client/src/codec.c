/* Messages of the workers' service as bytes.
 *
 * The happy path: a protobuf-c struct on the stack, whose strings are the caller's, is packed to the end of a buffer;
 * what arrives is freed of its chunks, unpacked into an arena, and copied to a plain struct. It fails with
 * RESOURCE_EXHAUSTED without memory, and with INTERNAL where the server sent what is no such message. */
#include "client/src/codec.h"

#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "client/src/codec_pb.h"
#include "espalier/v1/parameter_server.pb-c.h"

/* A message of 4 MiB may unpack to more than that; this bounds what a strange server costs. */
#define UNPACKED_BYTES_MAX ((size_t)128 << 20)

void esp_buf_done(struct esp_buf *buf) {
  esp_free(buf->data);
  *buf = (struct esp_buf){0};
}

char *esp_pb_text(const char *text) {
  return (char *)(text == NULL ? "" : text);
}

enum esp_code esp_buf_reserve(struct esp_buf *buf, size_t len, struct esp_status *st) {
  if (!esp_grow((void **)&buf->data, &buf->capacity, buf->len + len, 1))
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for a message of %zu bytes", buf->len + len);
  return ESP_OK;
}

void esp_buf_add_varint(struct esp_buf *buf, uint64_t value) {
  for (; value >= 0x80; value >>= 7)
    buf->data[buf->len++] = (uint8_t)(value | 0x80);
  buf->data[buf->len++] = (uint8_t)value;
}

size_t esp_varint_bytes(uint64_t value) {
  size_t bytes = 1;
  for (; value >= 0x80; value >>= 7)
    bytes++;
  return bytes;
}

enum esp_code esp_pb_pack(struct esp_buf *buf, const ProtobufCMessage *message, struct esp_status *st) {
  size_t len = protobuf_c_message_get_packed_size(message);
  enum esp_code code = esp_buf_reserve(buf, len, st);
  if (code == ESP_OK && len > 0)
    buf->len += protobuf_c_message_pack(message, buf->data + buf->len);
  return code;
}

/* protobuf-c does not say whether it lacked memory or sense. */
struct memory {
  struct esp_arena *arena;
  bool exhausted; /* an allocation failed */
};

static void *arena_alloc(void *data, size_t size) {
  struct memory *memory = data;
  void *block = esp_arena_alloc(memory->arena, size);
  memory->exhausted = memory->exhausted || block == NULL;
  return block;
}

/* protobuf-c frees what it has allocated when it fails half-way; the arena frees all at once. */
static void arena_free(void *data, void *memory) {
  (void)data;
  (void)memory;
}

/* Not a refusal: the server has done what it was asked for, or some of it. */
static enum esp_code answer_lost(const ProtobufCMessageDescriptor *descriptor, struct esp_status *st) {
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED,
                  "out of memory for the server's answer (%s): what was asked for may have been done",
                  descriptor->short_name);
}

enum esp_code esp_pb_unpack(struct esp_in in, uint32_t chunks_field, const ProtobufCMessageDescriptor *descriptor,
                            struct esp_arena *arena, void *ret_message, struct esp_status *st) {
  esp_arena_init(arena, UNPACKED_BYTES_MAX);
  struct esp_rest rest = {0};
  enum esp_code code = esp_wire_rest(in.spans, in.len, chunks_field, &rest, st);
  if (code == ESP_RESOURCE_EXHAUSTED)
    code = answer_lost(descriptor, st);
  else if (code != ESP_OK)
    code = esp_fail(st, ESP_INTERNAL, "the server sent a malformed %s", descriptor->short_name);
  ProtobufCMessage *message = NULL;
  if (code == ESP_OK) {
    struct memory memory = {.arena = arena};
    ProtobufCAllocator allocator = {.alloc = arena_alloc, .free = arena_free, .allocator_data = &memory};
    message = protobuf_c_message_unpack(descriptor, &allocator, rest.len, rest.bytes);
    if (message == NULL && memory.exhausted)
      code = answer_lost(descriptor, st);
    else if (message == NULL)
      code = esp_fail(st, ESP_INTERNAL, "the server sent a malformed %s", descriptor->short_name);
    else
      memcpy(ret_message, &message, sizeof message); /* to a pointer of the message's own type */
  }
  esp_rest_done(&rest);
  return code;
}

/* ---- sessions ---- */

enum esp_code esp_encode_join(struct esp_buf *buf, const char *worker, uint64_t resume, struct esp_status *st) {
  Espalier__V1__JoinRequest message = ESPALIER__V1__JOIN_REQUEST__INIT;
  message.worker = esp_pb_text(worker);
  message.session = resume;
  return esp_pb_pack(buf, &message.base, st);
}

/* LeaveRequest and HeartbeatRequest have the same fields under the same numbers. */
enum esp_code esp_encode_session(struct esp_buf *buf, uint64_t session, struct esp_status *st) {
  Espalier__V1__HeartbeatRequest message = ESPALIER__V1__HEARTBEAT_REQUEST__INIT;
  message.session = session;
  return esp_pb_pack(buf, &message.base, st);
}

enum esp_code esp_decode_join(struct esp_in in, struct esp_session_reply *ret, struct esp_status *st) {
  struct esp_arena arena;
  Espalier__V1__JoinReply *message;
  enum esp_code code = esp_pb_unpack(in, NO_CHUNKS, &espalier__v1__join_reply__descriptor, &arena, &message, st);
  if (code == ESP_OK && (message->session == 0 || message->lineage == 0))
    code = esp_fail(st, ESP_INTERNAL, "the server's answer to Join has no session or no lineage");
  if (code == ESP_OK)
    *ret = (struct esp_session_reply){.session = message->session,
                                      .lineage = message->lineage,
                                      .epoch = message->epoch,
                                      .lease_ms = message->lease_ms,
                                      .in_flight_max = message->in_flight_max};
  esp_arena_done(&arena);
  return code;
}

enum esp_code esp_decode_heartbeat(struct esp_in in, struct esp_session_reply *ret, struct esp_status *st) {
  struct esp_arena arena;
  Espalier__V1__HeartbeatReply *message;
  enum esp_code code = esp_pb_unpack(in, NO_CHUNKS, &espalier__v1__heartbeat_reply__descriptor, &arena, &message, st);
  if (code == ESP_OK)
    *ret =
        (struct esp_session_reply){.lineage = message->lineage, .epoch = message->epoch, .lease_ms = message->lease_ms};
  esp_arena_done(&arena);
  return code;
}

/* ---- layout events ---- */

enum esp_code esp_encode_watch(struct esp_buf *buf, uint64_t since_epoch, bool follow, struct esp_status *st) {
  Espalier__V1__WatchRequest message = ESPALIER__V1__WATCH_REQUEST__INIT;
  message.since_epoch = since_epoch;
  message.follow = follow;
  return esp_pb_pack(buf, &message.base, st);
}

/* Sizes are those of a message that was received: no sum overflows. */
static struct esp_layout_event *copy_event(const Espalier__V1__LayoutEvent *message) {
  size_t len = message->n_leaves, paths_bytes = 0;
  for (size_t i = 0; i < len; i++)
    paths_bytes += strlen(message->leaves[i]->path) + 1;
  struct esp_layout_event *event;
  struct esp_layout_change *changes;
  event = esp_malloc(sizeof *event + len * sizeof *changes + paths_bytes);
  if (event == NULL)
    return NULL;
  changes = (struct esp_layout_change *)(event + 1);
  char *path = (char *)(changes + len);
  for (size_t i = 0; i < len; i++) {
    const Espalier__V1__LayoutEvent__Leaf *leaf = message->leaves[i];
    changes[i] = (struct esp_layout_change){.leaf = leaf->id,
                                            .path = path,
                                            .frozen = leaf->frozen != 0,
                                            .detached = leaf->detached != 0,
                                            .removed = leaf->removed != 0};
    path = stpcpy(path, leaf->path) + 1;
  }
  *event = (struct esp_layout_event){.epoch = message->epoch,
                                     .commit = message->commit,
                                     .lineage = message->lineage,
                                     .changes_len = len,
                                     .changes = changes};
  return event;
}

enum esp_code esp_decode_event(struct esp_in in, struct esp_layout_event **ret, struct esp_status *st) {
  struct esp_arena arena;
  Espalier__V1__LayoutEvent *message;
  enum esp_code code = esp_pb_unpack(in, NO_CHUNKS, &espalier__v1__layout_event__descriptor, &arena, &message, st);
  if (code == ESP_OK) {
    struct esp_layout_event *event = copy_event(message);
    if (event != NULL)
      *ret = event;
    else
      code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for %zu changed leaves", message->n_leaves);
  }
  esp_arena_done(&arena);
  return code;
}

/* ---- pushes and pulls ---- */

enum esp_code esp_encode_push(struct esp_buf *buf, const struct esp_push_head *head, struct esp_status *st) {
  Espalier__V1__PushHeader push = ESPALIER__V1__PUSH_HEADER__INIT;
  push.session = head->session;
  push.sequence = head->sequence;
  push.total_bytes = head->total_bytes;
  push.leaf_count = head->leaf_count;
  push.wait_ms = head->wait_ms;
  push.lineage = head->lineage;
  Espalier__V1__StreamRequest message = ESPALIER__V1__STREAM_REQUEST__INIT;
  message.push = &push;
  return esp_pb_pack(buf, &message.base, st);
}

/* What is told of the weights, each by its own message, and pointers to them; *ret_len of them. One block; NULL without
 * memory. */
static Espalier__V1__PullRequest__Have **list_have(const struct esp_pull_ask *ask, size_t *ret_len) {
  Espalier__V1__PullRequest__Have **list, *messages;
  size_t max = ask->have_lineage == 0 ? 0 : ask->len, len = 0;
  list = esp_malloc_array(max + 1, sizeof *list + sizeof *messages);
  if (list == NULL)
    return NULL;
  messages = (Espalier__V1__PullRequest__Have *)(list + max + 1);
  for (size_t i = 0; i < max; i++) {
    const struct esp_have *have = &ask->have[i];
    if (have->lineage != ask->have_lineage)
      continue;
    Espalier__V1__PullRequest__Have *message = &messages[len];
    espalier__v1__pull_request__have__init(message);
    message->leaf_id = ask->weights[i].leaf;
    message->parameter = have->parameter;
    message->version = have->version;
    message->view = (Espalier__V1__View)have->view;
    message->dtype = (Espalier__V1__DType)have->dtype;
    list[len++] = message;
  }
  *ret_len = len;
  return list;
}

/* In the order of the leaves; empty where all are wanted in their own. NULL without memory. */
static Espalier__V1__DType *list_dtypes(const struct esp_pull_ask *ask, size_t *ret_len) {
  bool any = false;
  Espalier__V1__DType *list = esp_malloc_array(ask->len + 1, sizeof *list);
  for (size_t i = 0; list != NULL && i < ask->len; i++) {
    list[i] = (Espalier__V1__DType)ask->weights[i].dtype;
    any = any || ask->weights[i].dtype != 0;
  }
  *ret_len = any ? ask->len : 0;
  return list;
}

enum esp_code esp_encode_pull(struct esp_buf *buf, const struct esp_pull_ask *ask, struct esp_status *st) {
  Espalier__V1__PullRequest pull = ESPALIER__V1__PULL_REQUEST__INIT;
  pull.n_leaf_ids = ask->len;
  pull.leaf_ids = esp_malloc_array(ask->len + 1, sizeof *pull.leaf_ids);
  pull.have = list_have(ask, &pull.n_have);
  pull.dtypes = list_dtypes(ask, &pull.n_dtypes);
  enum esp_code code = ESP_OK;
  if (pull.leaf_ids == NULL || pull.have == NULL || pull.dtypes == NULL)
    code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for a pull of %zu leaves", ask->len);
  for (size_t i = 0; i < ask->len && code == ESP_OK; i++)
    pull.leaf_ids[i] = ask->weights[i].leaf;
  pull.consistent = ask->consistent;
  pull.have_lineage = ask->have_lineage;
  pull.wait_ms = ask->wait_ms;
  Espalier__V1__StreamRequest message = ESPALIER__V1__STREAM_REQUEST__INIT;
  message.pull = &pull;
  if (code == ESP_OK)
    code = esp_pb_pack(buf, &message.base, st);
  esp_free(pull.leaf_ids);
  esp_free(pull.have);
  esp_free(pull.dtypes);
  return code;
}

enum esp_code esp_encode_pull_path(struct esp_buf *buf, const char *path, uint64_t wait_ms, struct esp_status *st) {
  char *paths[] = {(char *)path};
  Espalier__V1__PullRequest message = ESPALIER__V1__PULL_REQUEST__INIT;
  message.n_paths = 1;
  message.paths = paths;
  message.wait_ms = wait_ms;
  return esp_pb_pack(buf, &message.base, st);
}

static void copy_push(const Espalier__V1__PushReply *push, struct esp_stream_reply *reply) {
  reply->has_push = true;
  reply->sequence = push->sequence;
  reply->lineage = push->lineage;
  reply->push = (struct esp_push_result){.commit = push->commit,
                                         .epoch = push->epoch,
                                         .applied = push->applied,
                                         .frozen = push->frozen,
                                         .detached = push->detached,
                                         .absent = push->absent,
                                         .removed = push->removed,
                                         .skipped = push->skipped != 0,
                                         .replayed = push->replayed != 0};
}

/* A PullResponse has the fields of a StreamResponse, but for the push, under the same numbers. */
enum esp_code esp_decode_stream(struct esp_in in, struct esp_stream_reply *ret, struct esp_status *st) {
  struct esp_arena arena;
  Espalier__V1__StreamResponse *message;
  enum esp_code code =
      esp_pb_unpack(in, ESP_RESPONSE_CHUNKS, &espalier__v1__stream_response__descriptor, &arena, &message, st);
  if (code == ESP_OK) {
    *ret = (struct esp_stream_reply){.has_head = message->header != NULL, .has_end = message->end != NULL};
    if (message->push != NULL)
      copy_push(message->push, ret);
    if (message->header != NULL)
      ret->head = (struct esp_pull_head){.epoch = message->header->epoch,
                                         .commit = message->header->commit,
                                         .lineage = message->header->lineage,
                                         .total_bytes = message->header->total_bytes};
  }
  esp_arena_done(&arena);
  return code;
}
