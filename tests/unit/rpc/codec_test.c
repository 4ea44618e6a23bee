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

/* Every sequence of up to three bytes from the edges of UTF-8's ranges, by another rule than the code's. */
static bool reference_is_text(const uint8_t *s, size_t len) {
  for (size_t i = 0; i < len;) {
    if (s[i] >= 1 && s[i] <= 0x7f)
      i += 1;
    else if (s[i] >= 0xc2 && s[i] <= 0xdf && i + 1 < len && s[i + 1] >= 0x80 && s[i + 1] <= 0xbf)
      i += 2;
    else if (s[i] >= 0xe0 && s[i] <= 0xef && i + 2 < len && s[i + 1] >= (s[i] == 0xe0 ? 0xa0 : 0x80) &&
             s[i + 1] <= (s[i] == 0xed ? 0x9f : 0xbf) && s[i + 2] >= 0x80 && s[i + 2] <= 0xbf)
      i += 3;
    else
      return false;
  }
  return true;
}

static void text(void **state) {
  (void)state;
  static const uint8_t edges[] = {0x00, 0x01, 0x7f, 0x80, 0x8f, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2,
                                  0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf5, 0xf8, 0xfe, 0xff};
  const size_t n = sizeof(edges);
  for (size_t a = 0; a < n; a++)
    for (size_t b = 0; b < n; b++)
      for (size_t c = 0; c < n; c++) {
        const uint8_t s[3] = {edges[a], edges[b], edges[c]};
        for (size_t len = 0; len <= 3; len++)
          assert_int_equal(esp_text_is_valid(s, len), reference_is_text(s, len));
      }
  assert_true(esp_text_is_valid("\xf0\x90\x80\x80", 4));
  assert_false(esp_text_is_valid("\xf0\x8f\x80\x80", 4));
  assert_true(esp_text_is_valid("\xf4\x8f\xbf\xbf", 4));
  assert_false(esp_text_is_valid("\xf4\x90\x80\x80", 4));
  assert_false(esp_text_is_valid("\xf0\x90\x80\x80", 3));
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
      ESP_TEST(text),      ESP_TEST(decoded),       ESP_TEST(not_text),
      ESP_TEST(garbage),   ESP_TEST(amplification), ESP_TEST(dense_declaration),
      ESP_TEST(in_pieces), ESP_TEST(pages),         ESP_TEST(no_memory),
  };
  grpc_init();
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  grpc_shutdown_blocking();
  return failed;
}
