#include <string.h>

#include "base/alloc.h"
#include "client/src/codec.h"
#include "espalier/v1/admin.pb-c.h"
#include "espalier/v1/parameter_server.pb-c.h"
#include "tests/support/test.h"

/* ---- runs of ids ---- */

static void test_runs(void **state) {
  (void)state;
  struct esp_id_run runs[] = {{7, 2}, {100, 1}, {3, 3}};
  esp_leaf_id ids[6];
  assert_int_equal(esp_id_runs_expand(runs, 3, ids, 6, NULL), ESP_OK);
  const esp_leaf_id want[6] = {7, 8, 100, 3, 4, 5};
  assert_memory_equal(ids, want, sizeof want);
}

static void test_runs_that_do_not_fit(void **state) {
  (void)state;
  const struct {
    struct esp_id_run run;
    size_t len;
  } cases[] = {{{7, 2}, 1}, {{7, 2}, 3}, {{0, 2}, 2}, {{7, UINT64_MAX}, 2}, {{UINT64_MAX, 2}, 2}, {{7, 0}, 1}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    esp_leaf_id ids[4] = {9, 9, 9, 9};
    assert_int_equal(esp_id_runs_expand(&cases[i].run, 1, ids, cases[i].len, NULL), ESP_INTERNAL);
    assert_int_equal(ids[0], 9);
  }
  /* Counts whose sum, modulo 2^64, is right. */
  struct esp_id_run wrapped[] = {{1, UINT64_MAX - 1}, {9, 4}};
  esp_leaf_id ids[2];
  assert_int_equal(esp_id_runs_expand(wrapped, 2, ids, 2, NULL), ESP_INTERNAL);
  assert_int_equal(esp_id_runs_expand(NULL, 0, NULL, 0, NULL), ESP_OK);
}

/* ---- requests ---- */

static void test_leaf_is_one_of_a_declaration(void **state) {
  (void)state;
  struct esp_leaf_spec specs[3] = {
      {.path = "a.w", .shape = {3, 4}, .rank = 2, .dtype = ESP_F64, .init = ESP_NORMAL, .a = 1, .b = 2, .seed = 5},
      {.path = "a.c", .dtype = ESP_F32, .kind = ESP_BUFFER, .init = ESP_CONSTANT, .tag = "T", .group = "g"},
      {.path = "a.v", .shape = {300}, .rank = 1, .dtype = ESP_F32, .init = ESP_VALUE, .frozen = true}};
  struct esp_declare_head head = {.session = 9, .total_bytes = 1200, .leaf_count = 1, .wait_ms = 50};
  struct esp_buf buf = {0};
  assert_int_equal(esp_encode_declare(&buf, &head, NULL), ESP_OK);
  for (size_t i = 0; i < 3; i++)
    assert_int_equal(esp_encode_leaf(&buf, &specs[i], NULL), ESP_OK);
  Espalier__V1__DeclareRequest *message = espalier__v1__declare_request__unpack(NULL, buf.len, buf.data);
  assert_non_null(message);
  assert_int_equal(message->header->session, 9);
  assert_int_equal(message->header->total_bytes, 1200);
  assert_int_equal(message->header->leaf_count, 1);
  assert_int_equal(message->n_leaves, 3);
  Espalier__V1__LeafSpec **leaves = message->leaves;
  assert_string_equal(leaves[0]->path, "a.w");
  assert_int_equal(leaves[0]->n_shape, 2);
  assert_int_equal(leaves[0]->shape[1], 4);
  assert_int_equal(leaves[0]->dtype, 2);
  assert_int_equal(leaves[0]->kind, ESPALIER__V1__KIND__KIND_TRAINED);
  assert_int_equal(leaves[0]->init->value_case, ESPALIER__V1__INITIALIZER__VALUE_NORMAL);
  assert_true(leaves[0]->init->normal->stddev == 2 && leaves[0]->init->seed == 5);
  /* A constant of 0 must still say that it is one. */
  assert_int_equal(leaves[1]->init->value_case, ESPALIER__V1__INITIALIZER__VALUE_CONSTANT);
  assert_int_equal(leaves[1]->kind, ESPALIER__V1__KIND__KIND_BUFFER);
  assert_string_equal(leaves[1]->group, "g");
  assert_int_equal(leaves[1]->n_shape, 0);
  assert_int_equal(leaves[2]->init->value_case, ESPALIER__V1__INITIALIZER__VALUE_FOLLOWS);
  assert_true(leaves[2]->frozen);
  espalier__v1__declare_request__free_unpacked(message, NULL);
  esp_buf_done(&buf);
}

struct seen {
  unsigned count;
  uint64_t offset;
  uint64_t len;
};

static enum esp_code see_chunk(void *data, const struct esp_chunk *chunk, struct esp_status *st) {
  struct seen *seen = data;
  (void)st;
  assert_int_equal(chunk->path_len, 3);
  assert_memory_equal(chunk->path, "a.b", 3);
  assert_int_equal(chunk->offset, seen->offset);
  assert_int_equal(chunk->data.left, seen->len);
  assert_int_equal(chunk->has_tensor, seen->offset == 0);
  if (chunk->has_tensor)
    assert_true(chunk->tensor.bytes == 300000 && chunk->tensor.shape.dims[0] == 75000);
  seen->count++;
  return ESP_OK;
}

static void test_chunk_by_path(void **state) {
  (void)state;
  const uint64_t lens[] = {1, 127, 128, 16383, 16384, 300000};
  struct esp_tensor tensor = {.dtype = ESP_F32, .shape = {75000}, .rank = 1, .bytes = 300000};
  for (size_t i = 0; i < 12; i++) {
    struct seen seen = {.offset = i % 2 == 0 ? 0 : 1u << 20, .len = lens[i / 2]};
    struct esp_buf buf = {0};
    assert_int_equal(
        esp_encode_chunk_path(&buf, "a.b", seen.offset, seen.offset == 0 ? &tensor : NULL, (size_t)seen.len, NULL),
        ESP_OK);
    uint8_t *payload = esp_calloc(1, (size_t)seen.len);
    struct esp_span spans[2] = {{buf.data, buf.len}, {payload, (size_t)seen.len}};
    assert_int_equal(esp_wire_chunks(spans, 2, ESP_REQUEST_CHUNKS, see_chunk, &seen, NULL), ESP_OK);
    assert_int_equal(seen.count, 1);
    esp_free(payload);
    esp_buf_done(&buf);
  }
}

/* What is had of another lineage is not told. */
static void test_pull(void **state) {
  (void)state;
  float data[3];
  struct esp_weight weights[3] = {{7, data, 4, 0}, {8, data, 4, 0}, {9, data, 4, 0}};
  const struct esp_have have[3] = {{.lineage = 5, .parameter = 70, .version = 3, .dtype = 3},
                                   {.lineage = 4},
                                   {.lineage = 5, .parameter = 90, .view = 1}};
  struct esp_pull_ask ask = {
      .weights = weights, .have = have, .len = 3, .consistent = true, .have_lineage = 5, .wait_ms = 11};
  struct esp_buf buf = {0};
  assert_int_equal(esp_encode_pull(&buf, &ask, NULL), ESP_OK);
  Espalier__V1__StreamRequest *message = espalier__v1__stream_request__unpack(NULL, buf.len, buf.data);
  const Espalier__V1__PullRequest *pull = message->pull;
  assert_int_equal(pull->n_leaf_ids, 3);
  assert_true(pull->leaf_ids[0] == 7 && pull->leaf_ids[1] == 8 && pull->leaf_ids[2] == 9);
  assert_true(pull->consistent && pull->have_lineage == 5 && pull->wait_ms == 11);
  assert_int_equal(pull->n_have, 2);
  assert_true(pull->have[0]->leaf_id == 7 && pull->have[0]->parameter == 70 && pull->have[0]->version == 3);
  assert_true(pull->have[1]->leaf_id == 9 && pull->have[1]->view == ESPALIER__V1__VIEW__VIEW_TRANSPOSE);
  assert_int_equal(pull->have[0]->dtype, ESPALIER__V1__DTYPE__DTYPE_BF16);
  assert_int_equal(pull->n_dtypes, 0);
  espalier__v1__stream_request__free_unpacked(message, NULL);
  weights[1].dtype = ESP_F16;
  esp_buf_done(&buf);
  assert_int_equal(esp_encode_pull(&buf, &ask, NULL), ESP_OK);
  message = espalier__v1__stream_request__unpack(NULL, buf.len, buf.data);
  assert_int_equal(message->pull->n_dtypes, 3);
  assert_int_equal(message->pull->dtypes[0], ESPALIER__V1__DTYPE__DTYPE_UNSPECIFIED);
  assert_int_equal(message->pull->dtypes[1], ESPALIER__V1__DTYPE__DTYPE_F16);
  espalier__v1__stream_request__free_unpacked(message, NULL);
  for (int n = 0; n < 3; n++) {
    esp_alloc_fail_at(n);
    assert_int_equal(esp_encode_pull(&buf, &ask, NULL), ESP_RESOURCE_EXHAUSTED);
  }
  esp_buf_done(&buf);
}

/* ---- answers ---- */

static struct esp_in whole(const struct esp_buf *buf, struct esp_span *span) {
  *span = (struct esp_span){buf->data, buf->len};
  return (struct esp_in){.spans = span, .len = 1};
}

static void pack(struct esp_buf *buf, const ProtobufCMessage *message) {
  buf->len = buf->capacity = protobuf_c_message_get_packed_size(message);
  buf->data = esp_malloc(buf->len + 1);
  protobuf_c_message_pack(message, buf->data);
}

static void test_stream_reply(void **state) {
  (void)state;
  Espalier__V1__PushReply push = ESPALIER__V1__PUSH_REPLY__INIT;
  push.sequence = 4;
  push.commit = 77;
  push.absent = 3;
  push.replayed = 1;
  Espalier__V1__PullHeader head = ESPALIER__V1__PULL_HEADER__INIT;
  head.commit = 78;
  head.total_bytes = 1000;
  Espalier__V1__Chunk chunk = ESPALIER__V1__CHUNK__INIT, *chunks[] = {&chunk};
  chunk.leaf_id = 3;
  chunk.data.data = (uint8_t *)"data";
  chunk.data.len = 4;
  Espalier__V1__StreamResponse message = ESPALIER__V1__STREAM_RESPONSE__INIT;
  message.push = &push;
  message.header = &head;
  message.chunks = chunks;
  message.n_chunks = 1;
  struct esp_buf buf = {0};
  pack(&buf, &message.base);
  struct esp_span span;
  struct esp_stream_reply reply;
  assert_int_equal(esp_decode_stream(whole(&buf, &span), &reply, NULL), ESP_OK);
  assert_true(reply.has_push && reply.has_head && !reply.has_end);
  assert_true(reply.sequence == 4 && reply.push.commit == 77 && reply.push.absent == 3 && reply.push.replayed);
  assert_true(reply.head.commit == 78 && reply.head.total_bytes == 1000);
  esp_buf_done(&buf);
}

static void test_field_3_is_no_chunk_elsewhere(void **state) {
  (void)state;
  Espalier__V1__JoinReply message = ESPALIER__V1__JOIN_REPLY__INIT;
  message.session = 1;
  message.lineage = 2;
  message.last_sequence = 3;
  message.lease_ms = 30;
  struct esp_buf buf = {0};
  pack(&buf, &message.base);
  struct esp_span span;
  struct esp_session_reply reply;
  assert_int_equal(esp_decode_join(whole(&buf, &span), &reply, NULL), ESP_OK);
  assert_true(reply.session == 1 && reply.lineage == 2 && reply.lease_ms == 30);
  esp_buf_done(&buf);
}

/* Two pages, with every allocation failing in turn. */
static void test_apply_pages(void **state) {
  (void)state;
  Espalier__V1__Change change = ESPALIER__V1__CHANGE__INIT, *changes[] = {&change, &change};
  change.path = (char *)"a.b";
  change.field = (char *)"frozen";
  change.leaf_id = 8;
  char *notes[] = {(char *)"a note"};
  Espalier__V1__ApplyResponse message = ESPALIER__V1__APPLY_RESPONSE__INIT;
  message.epoch = 5;
  message.matched = 2;
  message.n_changes = 2;
  message.changes = changes;
  message.n_notes = 1;
  message.notes = notes;
  struct esp_buf buf = {0};
  pack(&buf, &message.base);
  struct esp_span span;
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  for (int64_t fail = 0; code != ESP_OK; fail++) {
    struct esp_apply_result *result = NULL;
    struct esp_status st;
    esp_alloc_fail_at(fail);
    code = esp_decode_apply(whole(&buf, &span), &result, &st);
    if (code == ESP_OK)
      code = esp_decode_apply(whole(&buf, &span), &result, &st);
    esp_alloc_fail_at(-1);
    if (code == ESP_OK) {
      assert_true(result->epoch == 5 && result->matched == 2 && result->changes_len == 4 && result->notes_len == 2);
      assert_string_equal(result->changes[3].path, "a.b");
      assert_string_equal(result->changes[3].because, "");
      assert_string_equal(result->notes[1], "a note");
    } else {
      assert_true(fail < 100);
    }
    esp_apply_result_free(result);
  }
  esp_buf_done(&buf);
}

static void test_description(void **state) {
  (void)state;
  uint64_t shape[9] = {2, 3, 1, 1, 1, 1, 1, 1, 1};
  uint8_t digest[16] = {1, 2, 3};
  Espalier__V1__LeafInfo leaf = ESPALIER__V1__LEAF_INFO__INIT, *leaves[] = {&leaf};
  leaf.path = (char *)"x";
  leaf.shape = shape;
  leaf.n_shape = 2;
  leaf.digest.data = digest;
  leaf.digest.len = 16;
  Espalier__V1__DescribeResponse message = ESPALIER__V1__DESCRIBE_RESPONSE__INIT;
  message.n_leaves = 1;
  message.leaves = leaves;
  struct esp_buf buf = {0};
  pack(&buf, &message.base);
  struct esp_span span;
  struct esp_description *description = NULL;
  assert_int_equal(esp_decode_describe(whole(&buf, &span), &description, NULL), ESP_OK);
  assert_int_equal(description->leaves_len, 1);
  assert_int_equal(description->leaves[0].shape[1], 3);
  assert_memory_equal(description->leaves[0].digest, digest, 16);
  esp_buf_done(&buf);
  leaf.n_shape = 9;
  pack(&buf, &message.base);
  assert_int_equal(esp_decode_describe(whole(&buf, &span), &description, NULL), ESP_INTERNAL);
  esp_description_free(description);
  esp_buf_done(&buf);
}

/* Two pages, with every allocation failing in turn. */
static void test_workers_pages(void **state) {
  (void)state;
  Espalier__V1__WorkersResponse__Worker worker = ESPALIER__V1__WORKERS_RESPONSE__WORKER__INIT;
  Espalier__V1__WorkersResponse__Worker *workers[] = {&worker, &worker};
  worker.session = 3;
  worker.name = (char *)"gpu-1";
  worker.live = 1;
  worker.last_sequence = 9;
  worker.in_flight = 2;
  worker.pushes = 8;
  worker.last_seen_ms = 40;
  worker.staleness = 5;
  Espalier__V1__WorkersResponse message = ESPALIER__V1__WORKERS_RESPONSE__INIT;
  message.n_workers = 2;
  message.workers = workers;
  struct esp_buf buf = {0};
  pack(&buf, &message.base);
  struct esp_span span;
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  for (int64_t fail = 0; code != ESP_OK; fail++) {
    struct esp_workers *result = NULL;
    esp_alloc_fail_at(fail);
    code = esp_decode_workers(whole(&buf, &span), &result, NULL);
    if (code == ESP_OK)
      code = esp_decode_workers(whole(&buf, &span), &result, NULL);
    esp_alloc_fail_at(-1);
    if (code == ESP_OK) {
      const struct esp_worker_info *last = &result->workers[3];
      assert_int_equal(result->len, 4);
      assert_string_equal(last->name, "gpu-1");
      assert_string_equal(last->peer, "");
      assert_true(last->session == 3 && last->live && last->last_sequence == 9 && last->in_flight == 2);
      assert_true(last->pushes == 8 && last->last_seen_ms == 40 && last->staleness == 5);
    } else {
      assert_int_equal(code, ESP_RESOURCE_EXHAUSTED);
      assert_true(fail < 100);
    }
    esp_workers_free(result);
  }
  esp_buf_done(&buf);
}

static void test_server_info(void **state) {
  (void)state;
  Espalier__V1__MemoryInfo memory = ESPALIER__V1__MEMORY_INFO__INIT;
  memory.copy_on_write_max = 1;
  memory.spare = 2;
  memory.resident = 3;
  Espalier__V1__ServerInfoReply message = ESPALIER__V1__SERVER_INFO_REPLY__INIT;
  message.version = (char *)"a version that has far more than thirty-one bytes";
  message.memory = &memory;
  message.connections = 4;
  message.connections_max = 5;
  message.connections_refused = 6;
  message.streams = 7;
  message.in_flight = 8;
  message.in_flight_max = 9;
  message.pulls_active = 10;
  message.watches = 11;
  struct esp_buf buf = {0};
  pack(&buf, &message.base);
  struct esp_span span;
  struct esp_server_info info;
  assert_int_equal(esp_decode_server_info(whole(&buf, &span), &info, NULL), ESP_OK);
  assert_string_equal(info.version, "a version that has far more tha"); /* cut to its room */
  assert_true(info.memory_copy_on_write_max == 1 && info.memory_spare == 2 && info.memory_resident == 3);
  assert_true(info.connections == 4 && info.connections_max == 5 && info.connections_refused == 6);
  assert_true(info.streams == 7 && info.in_flight == 8 && info.in_flight_max == 9);
  assert_true(info.pulls_active == 10 && info.watches == 11 && info.memory_staged == 0);
  esp_buf_done(&buf);
}

static void test_event(void **state) {
  (void)state;
  Espalier__V1__LayoutEvent__Leaf leaves[2] = {ESPALIER__V1__LAYOUT_EVENT__LEAF__INIT,
                                               ESPALIER__V1__LAYOUT_EVENT__LEAF__INIT};
  Espalier__V1__LayoutEvent__Leaf *list[2] = {&leaves[0], &leaves[1]};
  leaves[0].id = 7;
  leaves[0].path = (char *)"a.b";
  leaves[0].frozen = 1;
  leaves[1].id = 8;
  leaves[1].detached = leaves[1].removed = 1;
  Espalier__V1__LayoutEvent message = ESPALIER__V1__LAYOUT_EVENT__INIT;
  message.epoch = 3;
  message.commit = 4;
  message.lineage = 5;
  message.n_leaves = 2;
  message.leaves = list;
  struct esp_buf buf = {0};
  struct esp_span span;
  pack(&buf, &message.base);
  struct esp_layout_event *event;
  assert_int_equal(esp_decode_event(whole(&buf, &span), &event, NULL), ESP_OK);
  assert_true(event->epoch == 3 && event->commit == 4 && event->lineage == 5 && event->changes_len == 2);
  assert_string_equal(event->changes[0].path, "a.b");
  assert_true(event->changes[0].leaf == 7 && event->changes[0].frozen && !event->changes[0].removed);
  assert_string_equal(event->changes[1].path, "");
  assert_true(event->changes[1].leaf == 8 && event->changes[1].detached && event->changes[1].removed);
  esp_free(event);
  esp_buf_done(&buf);
}

static void test_garbage(void **state) {
  (void)state;
  uint8_t bytes[] = {0x0a, 0xff, 0xff, 0xff};
  struct esp_span span = {bytes, sizeof bytes};
  struct esp_in in = {.spans = &span, .len = 1};
  struct esp_session_reply session;
  struct esp_stream_reply stream;
  struct esp_layout_event *event;
  struct esp_declare_reply declare;
  struct esp_server_info info;
  struct esp_workers *workers = NULL;
  uint64_t stage;
  assert_int_equal(esp_decode_join(in, &session, NULL), ESP_INTERNAL);
  assert_int_equal(esp_decode_heartbeat(in, &session, NULL), ESP_INTERNAL);
  assert_int_equal(esp_decode_stream(in, &stream, NULL), ESP_INTERNAL);
  assert_int_equal(esp_decode_event(in, &event, NULL), ESP_INTERNAL);
  assert_int_equal(esp_decode_declare(in, &declare, NULL), ESP_INTERNAL);
  assert_int_equal(esp_decode_stage(in, &stage, NULL), ESP_INTERNAL);
  assert_int_equal(esp_decode_server_info(in, &info, NULL), ESP_INTERNAL);
  assert_int_equal(esp_decode_workers(in, &workers, NULL), ESP_INTERNAL);
  in.len = 0; /* an empty message is a valid one, but a Join must say which session */
  assert_int_equal(esp_decode_join(in, &session, NULL), ESP_INTERNAL);
  assert_int_equal(esp_decode_server_info(in, &info, NULL), ESP_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(test_runs),
                                     ESP_TEST(test_runs_that_do_not_fit),
                                     ESP_TEST(test_leaf_is_one_of_a_declaration),
                                     ESP_TEST(test_chunk_by_path),
                                     ESP_TEST(test_stream_reply),
                                     ESP_TEST(test_field_3_is_no_chunk_elsewhere),
                                     ESP_TEST(test_apply_pages),
                                     ESP_TEST(test_description),
                                     ESP_TEST(test_workers_pages),
                                     ESP_TEST(test_server_info),
                                     ESP_TEST(test_pull),
                                     ESP_TEST(test_event),
                                     ESP_TEST(test_garbage)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
