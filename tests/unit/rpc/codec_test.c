/* codec.c: what is no message, no text or too much is refused; pages hold what was put in. */
#include <espalier/v1/parameter_server.pb-c.h>

#include <string.h>

#include "base/alloc.h"
#include "rpc/codec.h"
#include "tests/support/test.h"

static const ProtobufCMessageDescriptor *const join_type = &espalier__v1__join_request__descriptor;
static const ProtobufCMessageDescriptor *const declare_type = &espalier__v1__declare_request__descriptor;

static enum esp_code decode_code(const ProtobufCMessageDescriptor *type, const void *bytes, size_t len) {
  struct esp_decoded decoded = {0};
  struct esp_status st;
  enum esp_code code = esp_decode(type, bytes, len, &decoded, &st);
  esp_decoded_done(&decoded);
  return code;
}

static void decoded(void **state) {
  (void)state;
  struct esp_decoded decoded = {0};
  struct esp_status st;
  assert_int_equal(esp_decode(join_type, (const uint8_t *)"\x12\x02hi\x18\x07", 6, &decoded, &st), ESP_OK);
  const Espalier__V1__JoinRequest *request = (const Espalier__V1__JoinRequest *)decoded.message;
  assert_string_equal(request->worker, "hi");
  assert_int_equal(request->session, 7);
  esp_decoded_done(&decoded);
  esp_decoded_done(&decoded);
}

static void not_text(void **state) {
  (void)state;
  struct esp_decoded decoded = {0};
  struct esp_status st;
  assert_int_equal(esp_decode(join_type, (const uint8_t *)"\x12\x03h\0i", 5, &decoded, &st), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(st.message, "worker of JoinRequest"));
  assert_int_equal(decode_code(join_type, "\x12\x01\xff", 3), ESP_INVALID_ARGUMENT);
  /* In a submessage: leaves = 3, path = 1. */
  assert_int_equal(esp_decode(declare_type, (const uint8_t *)"\x1a\x03\x0a\x01\0", 5, &decoded, &st),
                   ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(st.message, "path of LeafSpec"));
  /* After fields of every other wire type, and an unknown field that is no text at all. */
  assert_int_equal(decode_code(join_type,
                               "\x18\x01\x21"
                               "12345678"
                               "\x2d"
                               "1234"
                               "\x7a\x01\xff\x12\x01\0",
                               22),
                   ESP_INVALID_ARGUMENT);
  assert_int_equal(decode_code(join_type,
                               "\x18\x01\x21"
                               "12345678"
                               "\x2d"
                               "1234"
                               "\x7a\x01\xff\x12\x01z",
                               22),
                   ESP_OK);
}

/* Every cut of a message that has submessages, and every byte of it changed: an answer, and nothing leaks. */
static void garbage(void **state) {
  (void)state;
  static const uint8_t message[] = "\x0a\x04\x10\x05\x18\x06\x1a\x0e\x0a\x03"
                                   "a.b"
                                   "\x12\x02\x02\x03\x18\x02\x5a\x01\x30";
  uint8_t bytes[sizeof(message) - 1];
  for (size_t len = 0; len <= sizeof(bytes); len++)
    (void)decode_code(declare_type, message, len);
  for (size_t at = 0; at < sizeof(bytes); at++)
    for (int value = 0; value < 256; value++) {
      memcpy(bytes, message, sizeof(bytes));
      bytes[at] = (uint8_t)value;
      (void)decode_code(declare_type, bytes, sizeof(bytes));
    }
  assert_int_equal(decode_code(join_type, "\xff", 1), ESP_INVALID_ARGUMENT);
  assert_int_equal(decode_code(join_type, "\x12\x7f", 2), ESP_INVALID_ARGUMENT);
}

/* A submessage in parts is all of them, wherever they are and however deep. */
static void parts(void **state) {
  (void)state;
  /* session 5, a leaf, then total_bytes 6 and session 7. The leaf: path a, init normal(mean 0.5), then its stddev 2. */
  static const uint8_t message[] = "\x0a\x02\x10\x05"
                                   "\x1a\x1f\x0a\x01"
                                   "a"
                                   "\x5a\x0b\x22\x09\x09\0\0\0\0\0\0\xe0\x3f"
                                   "\x5a\x0d\x22\x09\x11\0\0\0\0\0\0\0\x40\x30\x09"
                                   "\x0a\x04\x18\x06\x10\x07";
  struct esp_decoded decoded = {0};
  assert_int_equal(esp_decode(declare_type, message, sizeof(message) - 1, &decoded, NULL), ESP_OK);
  const Espalier__V1__DeclareRequest *request = (const Espalier__V1__DeclareRequest *)decoded.message;
  assert_int_equal(request->header->session, 7);
  assert_int_equal(request->header->total_bytes, 6);
  assert_int_equal(request->n_leaves, 1);
  assert_string_equal(request->leaves[0]->path, "a");
  const Espalier__V1__Initializer *init = request->leaves[0]->init;
  assert_int_equal(init->seed, 9);
  assert_int_equal(init->value_case, ESPALIER__V1__INITIALIZER__VALUE_NORMAL);
  assert_true(init->normal->mean == 0.5 && init->normal->stddev == 2);
  esp_decoded_done(&decoded);
}

/* Of a oneof the last member counts, and of that only what came after the others. */
static void parts_of_a_oneof(void **state) {
  (void)state;
  static const uint8_t message[] = "\x1a\x22\x5a\x20"                 /* a leaf with an init: */
                                   "\x22\x09\x09\0\0\0\0\0\0\xe0\x3f" /* normal, mean 0.5 */
                                   "\x1a\x02\x30\x01"                 /* uniform, an unknown field */
                                   "\x22\x09\x11\0\0\0\0\0\0\0\x40"   /* normal, stddev 2 */
                                   "\x22\x02\x30\x01"
                                   "\x30\x09";
  struct esp_decoded decoded = {0};
  assert_int_equal(esp_decode(declare_type, message, sizeof(message) - 1, &decoded, NULL), ESP_OK);
  const Espalier__V1__DeclareRequest *request = (const Espalier__V1__DeclareRequest *)decoded.message;
  const Espalier__V1__Initializer *init = request->leaves[0]->init;
  assert_int_equal(init->value_case, ESPALIER__V1__INITIALIZER__VALUE_NORMAL);
  assert_true(init->normal->mean == 0 && init->normal->stddev == 2 && init->seed == 9);
  esp_decoded_done(&decoded);
}

/* A part that ends in the middle of a field is not made whole by the next one. */
static void a_broken_part(void **state) {
  (void)state;
  assert_int_equal(decode_code(declare_type, "\x0a\x01\x10\x0a\x01\x05", 6), ESP_INVALID_ARGUMENT);
  assert_int_equal(decode_code(declare_type, "\x0a\x02\x10\x05\x0a\x01\x05", 7), ESP_INVALID_ARGUMENT);
}

/* Empty submessages take two bytes each on the wire and many times that in memory. */
static void amplification(void **state) {
  (void)state;
  size_t len = 1 << 20;
  uint8_t *bytes = esp_malloc(len);
  for (size_t i = 0; i < len; i += 2) {
    bytes[i] = 0x1a;
    bytes[i + 1] = 0;
  }
  assert_int_equal(decode_code(declare_type, bytes, len), ESP_RESOURCE_EXHAUSTED);
  esp_free(bytes);
}

/* A thousand leaves of the shortest sensible kind are not taken for that. */
static void dense_declaration(void **state) {
  (void)state;
  struct esp_page page = {0};
  for (int i = 0; i < 100000; i++) {
    Espalier__V1__LeafSpec leaf = ESPALIER__V1__LEAF_SPEC__INIT;
    uint64_t shape[1] = {7};
    leaf.path = (char *)"a.b";
    leaf.n_shape = 1;
    leaf.shape = shape;
    leaf.dtype = ESPALIER__V1__DTYPE__DTYPE_F32;
    assert_true(esp_page_add(&page, 3, &leaf.base));
  }
  assert_int_equal(decode_code(declare_type, page.bytes, page.len), ESP_OK);
  esp_page_done(&page);
}

static void in_pieces(void **state) {
  (void)state;
  static const uint8_t message[] = "\x12\x02hi\x18\x07";
  for (size_t cut = 0; cut <= 6; cut++) {
    const struct esp_span spans[] = {{message, cut}, {message + cut, 6 - cut}};
    struct esp_decoded decoded = {0};
    struct esp_status st;
    assert_int_equal(esp_decode_spans(join_type, spans, 2, &decoded, &st), ESP_OK);
    assert_string_equal(((const Espalier__V1__JoinRequest *)decoded.message)->worker, "hi");
    esp_decoded_done(&decoded);
  }
  struct esp_decoded decoded = {0};
  struct esp_status st;
  assert_int_equal(esp_decode_spans(join_type, NULL, 0, &decoded, &st), ESP_OK);
  esp_decoded_done(&decoded);
}

static void pages(void **state) {
  (void)state;
  struct esp_page page = {0};
  Espalier__V1__DeclareReply head = ESPALIER__V1__DECLARE_REPLY__INIT;
  head.epoch = 300;
  assert_true(esp_page_add_head(&page, &head.base));
  for (uint64_t i = 0; i < 200; i++) {
    Espalier__V1__DeclareReply__IdRun run = ESPALIER__V1__DECLARE_REPLY__ID_RUN__INIT;
    run.first = i << 40;
    run.count = i;
    assert_true(esp_page_add(&page, 1, &run.base));
  }
  assert_true(esp_page_add_text(&page, 6, "a note"));
  struct esp_decoded decoded = {0};
  struct esp_status st;
  assert_int_equal(esp_decode(&espalier__v1__declare_reply__descriptor, page.bytes, page.len, &decoded, &st), ESP_OK);
  const Espalier__V1__DeclareReply *reply = (const Espalier__V1__DeclareReply *)decoded.message;
  assert_int_equal(reply->epoch, 300);
  assert_int_equal(reply->n_ids, 200);
  assert_true(reply->ids[199]->first == UINT64_C(199) << 40 && reply->ids[199]->count == 199);
  assert_string_equal(reply->notes[0], "a note");
  esp_decoded_done(&decoded);
  size_t len = page.len;
  grpc_byte_buffer *buffer = esp_page_take(&page);
  assert_int_equal(grpc_byte_buffer_length(buffer), len);
  assert_null(page.bytes);
  grpc_byte_buffer_destroy(buffer);
  buffer = esp_page_take(&page);
  assert_int_equal(grpc_byte_buffer_length(buffer), 0);
  grpc_byte_buffer_destroy(buffer);
}

/* Each allocation fails once: the answer says so, and nothing leaks. */
static void no_memory(void **state) {
  (void)state;
  static const uint8_t message[] = "\x12\x02hi\x18\x07";
  const struct esp_span spans[] = {{message, 3}, {message + 3, 3}};
  int64_t n = 0;
  for (enum esp_code code = ESP_UNKNOWN; code != ESP_OK; n++) {
    struct esp_decoded decoded = {0};
    struct esp_status st;
    esp_alloc_fail_at(n);
    code = esp_decode_spans(join_type, spans, 2, &decoded, &st);
    esp_alloc_fail_at(-1);
    assert_true(code == ESP_OK || code == ESP_RESOURCE_EXHAUSTED);
    esp_decoded_done(&decoded);
  }
  assert_true(n > 2);
  struct esp_page page = {0};
  esp_alloc_fail_at(0);
  assert_false(esp_page_add_text(&page, 1, "x"));
  assert_int_equal(page.len, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(decoded),          ESP_TEST(not_text),      ESP_TEST(garbage),       ESP_TEST(parts),
      ESP_TEST(parts_of_a_oneof), ESP_TEST(a_broken_part), ESP_TEST(amplification), ESP_TEST(dense_declaration),
      ESP_TEST(in_pieces),        ESP_TEST(pages),         ESP_TEST(no_memory),
  };
  grpc_init();
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  grpc_shutdown_blocking();
  return failed;
}
