/* Tests of wire/wire.c, case by case; wire_proto_test.c compares it with protobuf-c. */
#include <string.h>

#include "base/alloc.h"
#include "tests/support/test.h"
#include "wire/wire.h"

enum { CHUNKS_FIELD = 2, VISITS_MAX = 4 };

struct visits {
  size_t len;                          /* chunks seen */
  struct esp_chunk chunks[VISITS_MAX]; /* each as it came; its path is in paths */
  char paths[VISITS_MAX][ESP_WIRE_PATH_MAX + 1];
  enum esp_code answer; /* what the visitor returns */
};

static enum esp_code record(void *data, const struct esp_chunk *chunk, struct esp_status *st) {
  struct visits *visits = data;
  assert_true(visits->len < VISITS_MAX);
  memcpy(visits->paths[visits->len], chunk->path, chunk->path_len);
  visits->chunks[visits->len++] = *chunk;
  return visits->answer == ESP_OK ? ESP_OK : esp_fail(st, visits->answer, "the visitor's");
}

/* Reads a message in one span; the visitor must not allocate, nor may the scan. */
static enum esp_code read_chunks(const void *bytes, size_t len, struct visits *visits, struct esp_status *st) {
  struct esp_span span = {bytes, len};
  visits->len = 0;
  esp_alloc_fail_at(0);
  enum esp_code code = esp_wire_chunks(&span, 1, CHUNKS_FIELD, record, visits, st);
  esp_alloc_fail_at(-1);
  return code;
}

#define BYTES(...) ((const uint8_t[]){__VA_ARGS__}), sizeof((const uint8_t[]){__VA_ARGS__})
#define FF9 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff

static void malformed_messages_are_refused_where_they_are(void **state) {
  (void)state;
  static const struct {
    uint8_t bytes[32];
    size_t len;
    const char *problem;
  } cases[] = {
#define CASE(problem, ...) {{__VA_ARGS__}, sizeof((uint8_t[]){__VA_ARGS__}), problem}
      CASE("at byte 1: a number is cut off", 0x80),
      CASE("at byte 1: a number is cut off", 0x08),
      CASE("at byte 5: a number has too many bytes", 0x80, 0x80, 0x80, 0x80, 0x80, 0x01),
      CASE("at byte 5: a field number is over 2^29", 0xf8, 0xff, 0xff, 0xff, 0x1f, 0x01),
      CASE("at byte 1: a field number is 0", 0x00, 0x01),
      CASE("at byte 2: a field number is 0", 0x80, 0x00, 0x01),
      CASE("at byte 1: a field number is 0", 0x02, 0x00),
      CASE("at byte 11: a number has too many bytes", 0x08, FF9, 0xff, 0x01),
      CASE("at byte 1: a field of 8 bytes is cut off", 0x09, 1, 2, 3, 4, 5, 6, 7),
      CASE("at byte 1: a field of 4 bytes is cut off", 0x0d, 1, 2, 3),
      CASE("at byte 1: a number is cut off", 0x0a),
      CASE("at byte 2: a length passes the end of its message", 0x0a, 1),
      CASE("at byte 6: a length passes the end of its message", 0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f, 1),
      CASE("at byte 6: a number has too many bytes", 0x0a, 0x81, 0x80, 0x80, 0x80, 0x80, 0x00, 1),
      CASE("at byte 1: a wire type", 0x0b),
      CASE("at byte 1: a wire type", 0x0c),
      CASE("at byte 1: a wire type", 0x0e),
      CASE("at byte 1: a wire type", 0x0f),
      CASE("a field has another wire type", 0x10, 0x01), /* chunks as a varint */
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    struct visits visits = {0};
    struct esp_status st;
    struct esp_rest rest = {0};
    struct esp_span span = {cases[i].bytes, cases[i].len};
    assert_int_equal(read_chunks(cases[i].bytes, cases[i].len, &visits, &st), ESP_INVALID_ARGUMENT);
    if (strstr(st.message, cases[i].problem) == NULL)
      fail_msg("case %zu: '%s' has no '%s'", i, st.message, cases[i].problem);
    assert_int_equal(esp_wire_rest(&span, 1, CHUNKS_FIELD, &rest, NULL), ESP_INVALID_ARGUMENT);
    esp_rest_done(&rest);
  }
}

/* The same inside a chunk, which stands after one that is fine. The rest does not look into chunks. */
static void malformed_chunks_are_refused_where_they_are(void **state) {
  (void)state;
  static const struct {
    uint8_t bytes[32];
    size_t len;
    const char *problem;
  } cases[] = {
      CASE("at byte 7: a number is cut off", 0x08),
      CASE("at byte 8: a length passes the end of its message", 0x7a, 1),
      CASE("at byte 7: a field number is 0", 0x00, 0x01),
      CASE("at byte 7: a wire type", 0x0b),
      CASE("a field has another wire type", 0x0a, 0x00),                /* leaf_id as bytes */
      CASE("a field has another wire type", 0x10, 0x01),                /* path as a number */
      CASE("a field has another wire type", 0x7d, 1, 2, 3, 4),          /* data as fixed32 */
      CASE("a field has another wire type", 0x2a, 2, 0x0a, 0x00),       /* dtype as bytes */
      CASE("a field has another wire type", 0x2a, 5, 0x15, 1, 2, 3, 4), /* shape as fixed32 */
      CASE("a field has another wire type", 0x2a, 5, 0x25, 1, 2, 3, 4), /* rows as fixed32 */
      CASE("at byte 10: a length passes the end of its message", 0x2a, 2, 0x12, 1, 5, 5, 5),
      CASE("at byte 11: a number is cut off", 0x2a, 3, 0x12, 1, 0x80),
      CASE("at byte 11: a number is cut off", 0x2a, 3, 0x22, 1, 0x80),
      CASE("a shape of rank over 8", 0x2a, 11, 0x12, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1),
      CASE("a shape of rank over 8", 0x2a, 12, 0x12, 8, 1, 1, 1, 1, 1, 1, 1, 1, 0x10, 1),
      CASE("a shape of rank over 8", 0x2a, 10, 0x12, 8, 1, 1, 1, 1, 1, 1, 1, 1, 0x2a, 2, 0x10, 1),
#undef CASE
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    uint8_t message[64] = {0x12, 2, 0x08, 5, 0x12, (uint8_t)cases[i].len};
    memcpy(message + 6, cases[i].bytes, cases[i].len);
    struct visits visits = {0};
    struct esp_status st;
    struct esp_rest rest = {0};
    struct esp_span span = {message, 6 + cases[i].len};
    assert_int_equal(read_chunks(message, span.len, &visits, &st), ESP_INVALID_ARGUMENT);
    if (strstr(st.message, cases[i].problem) == NULL)
      fail_msg("case %zu: '%s' has no '%s'", i, st.message, cases[i].problem);
    assert_int_equal(visits.len, 1);
    assert_int_equal(esp_wire_rest(&span, 1, CHUNKS_FIELD, &rest, &st), ESP_OK);
    assert_int_equal(rest.len, 0);
    assert_null(rest.bytes);
  }
}

static void numbers_keep_the_bits_that_they_have_room_for(void **state) {
  (void)state;
  struct visits visits = {0};
  /* Ten bytes: 64 bits, whatever else the tenth says. */
  assert_int_equal(read_chunks(BYTES(0x12, 11, 0x08, FF9, 0x01), &visits, NULL), ESP_OK);
  assert_true(visits.chunks[0].leaf_id == UINT64_MAX);
  assert_int_equal(read_chunks(BYTES(0x12, 11, 0x08, FF9, 0x7e), &visits, NULL), ESP_OK);
  assert_true(visits.chunks[0].leaf_id == INT64_MAX);
  /* A number of more bytes than it needs. */
  assert_int_equal(read_chunks(BYTES(0x12, 4, 0x08, 0x85, 0x80, 0x00), &visits, NULL), ESP_OK);
  assert_int_equal(visits.chunks[0].leaf_id, 5);
  /* An enum has 32 bits. */
  assert_int_equal(read_chunks(BYTES(0x12, 16, 0x2a, 14, 0x08, 0x82, 0x80, 0x80, 0x80, 0x10, 0x38, 0x81, 0x80, 0x80,
                                     0x80, 0x80, 0x80, 0x00),
                               &visits, NULL),
                   ESP_OK);
  assert_int_equal(visits.chunks[0].tensor.dtype, ESP_DTYPE_F64);
  assert_int_equal(visits.chunks[0].tensor.view, 1);
}

static void the_last_occurrence_wins_and_headers_merge(void **state) {
  (void)state;
  struct visits visits = {0};
  const uint8_t message[] = {0x12, 28, 0x08, 1, 0x7a, 2,    'a', 'b', 0x12, 1, 'x', /* leaf, data, path */
                             0x2a, 4,  0x10, 7, 0x18, 9,                            /* shape 7, bytes 9 */
                             0x08, 2,  0x7a, 1, 'c',  0x12, 0,                      /* again */
                             0x2a, 4,  0x10, 8, 0x18, 0};                           /* shape 8, bytes 0 */
  assert_int_equal(sizeof(message), 30);
  assert_int_equal(read_chunks(message, sizeof(message), &visits, NULL), ESP_OK);
  const struct esp_chunk *chunk = &visits.chunks[0];
  assert_int_equal(chunk->leaf_id, 2);
  assert_int_equal(chunk->path_len, 0);
  assert_int_equal(chunk->data.left, 1);
  assert_true(chunk->has_tensor && chunk->tensor.has_shape);
  assert_int_equal(chunk->tensor.shape.rank, 2);
  assert_int_equal(chunk->tensor.shape.dims[0], 7);
  assert_int_equal(chunk->tensor.shape.dims[1], 8);
  assert_int_equal(chunk->tensor.bytes, 0);
}

static void an_empty_chunk_has_defaults(void **state) {
  (void)state;
  struct visits visits = {0};
  assert_int_equal(read_chunks(BYTES(0x12, 0, 0x12, 2, 0x2a, 0), &visits, NULL), ESP_OK);
  assert_int_equal(visits.len, 2);
  assert_string_equal(visits.chunks[0].path, "");
  assert_int_equal(visits.chunks[0].data.left, 0);
  assert_false(visits.chunks[0].has_tensor);
  assert_true(visits.chunks[1].has_tensor);
  assert_false(visits.chunks[1].tensor.has_shape);
  assert_int_equal(read_chunks("", 0, &visits, NULL), ESP_OK);
  assert_int_equal(esp_wire_chunks(NULL, 0, CHUNKS_FIELD, record, &visits, NULL), ESP_OK);
  assert_int_equal(visits.len, 0);
}

static void a_visitor_ends_the_scan(void **state) {
  (void)state;
  struct visits visits = {.answer = ESP_ABORTED};
  struct esp_status st;
  assert_int_equal(read_chunks(BYTES(0x12, 0, 0x12, 0, 0x0b), &visits, &st), ESP_ABORTED);
  assert_string_equal(st.message, "the visitor's");
  assert_int_equal(visits.len, 1);
}

/* A message of one chunk with two paths, the second of len bytes; cut at `at` within that one. */
static enum esp_code read_path(size_t first, size_t len, size_t at, struct visits *visits, struct esp_status *st) {
  static uint8_t message[4 * ESP_WIRE_PATH_MAX];
  uint8_t *end = message;
  size_t chunk_len = first + len + 6;
  *end++ = 0x12, *end++ = (uint8_t)(chunk_len | 0x80), *end++ = (uint8_t)(chunk_len >> 7);
  for (int i = 0; i < 2; i++) {
    size_t path_len = i == 0 ? first : len;
    *end++ = 0x12, *end++ = (uint8_t)(path_len | 0x80), *end++ = (uint8_t)(path_len >> 7);
    for (size_t k = 0; k < path_len; k++)
      *end++ = (uint8_t)(k % 251); /* NUL and bytes that are no UTF-8 among them */
  }
  size_t border = (size_t)(end - message) - len + at;
  const struct esp_span spans[] = {{message, border}, {message + border, (size_t)(end - message) - border}};
  visits->len = 0;
  return esp_wire_chunks(spans, 2, CHUNKS_FIELD, record, visits, st);
}

static void paths_are_raw_bytes_up_to_4096(void **state) {
  (void)state;
  static struct visits visits;
  struct esp_status st;
  for (size_t len = 0; len <= ESP_WIRE_PATH_MAX; len = len < 300 ? len + 7 : len + 949)
    for (size_t at = 0; at <= len; at += 1 + len / 5) {
      assert_int_equal(read_path(3, len, at, &visits, &st), ESP_OK);
      assert_int_equal(visits.chunks[0].path_len, len);
      for (size_t i = 0; i < len; i++)
        assert_int_equal((uint8_t)visits.paths[0][i], i % 251);
    }
  assert_int_equal(read_path(0, ESP_WIRE_PATH_MAX, 17, &visits, &st), ESP_OK);
  for (size_t at = 0; at < 2; at++) {
    assert_int_equal(read_path(3, ESP_WIRE_PATH_MAX + 1, at, &visits, &st), ESP_INVALID_ARGUMENT);
    assert_string_equal(st.message, "a chunk's path has 4097 bytes, 4096 is the most");
  }
  assert_int_equal(read_path(ESP_WIRE_PATH_MAX + 1, 4, 0, &visits, &st), ESP_OK); /* the last one wins */
}

static void the_rest_is_what_is_no_chunk_in_order(void **state) {
  (void)state;
  const uint8_t message[] = {0x12, 2, 0x08, 5, 0x0a, 1, 'h', 0x12, 0, 0x18, 0x80, 0x01, 0x12, 0, 0x25, 1, 2, 3, 4};
  static const uint8_t expected[] = {0x0a, 1, 'h', 0x18, 0x80, 0x01, 0x25, 1, 2, 3, 4};
  for (size_t cut = 0; cut <= sizeof(message); cut++) {
    const struct esp_span spans[] = {{message, cut}, {message + cut, sizeof(message) - cut}};
    struct esp_rest rest = {0};
    assert_int_equal(esp_wire_rest(spans, 2, CHUNKS_FIELD, &rest, NULL), ESP_OK);
    assert_int_equal(rest.len, sizeof(expected));
    assert_memory_equal(rest.bytes, expected, sizeof(expected));
    esp_rest_done(&rest);
    esp_rest_done(&rest);
    assert_null(rest.bytes);
  }
}

static void the_rest_needs_memory(void **state) {
  (void)state;
  uint8_t message[300];
  for (size_t i = 0; i < sizeof(message); i += 2) {
    message[i] = 0x08;
    message[i + 1] = 1;
  }
  struct esp_span span = {message, sizeof(message)};
  for (int64_t n = 0;; n++) {
    struct esp_rest rest = {0};
    struct esp_status st;
    esp_alloc_fail_at(n);
    enum esp_code code = esp_wire_rest(&span, 1, CHUNKS_FIELD, &rest, &st);
    esp_rest_done(&rest);
    if (code == ESP_OK) {
      assert_true(n > 1);
      break;
    }
    assert_int_equal(code, ESP_RESOURCE_EXHAUSTED);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(malformed_messages_are_refused_where_they_are),
      ESP_TEST(malformed_chunks_are_refused_where_they_are),
      ESP_TEST(numbers_keep_the_bits_that_they_have_room_for),
      ESP_TEST(the_last_occurrence_wins_and_headers_merge),
      ESP_TEST(an_empty_chunk_has_defaults),
      ESP_TEST(a_visitor_ends_the_scan),
      ESP_TEST(paths_are_raw_bytes_up_to_4096),
      ESP_TEST(the_rest_is_what_is_no_chunk_in_order),
      ESP_TEST(the_rest_needs_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
