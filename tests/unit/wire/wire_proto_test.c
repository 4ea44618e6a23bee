/* wire.c against protobuf-c: random messages, with fields in any order, repeated and unknown, cut into spans anywhere,
 * truncated and mutated, must read the same; what the writer writes must be what protobuf-c packs. Each span is a
 * block of its own, so that ASan sees a read past its end.
 *
 * protobuf-c 1.4.1 does not merge the scalars of a message that occurs twice. The standard says that two occurrences
 * equal one with the bytes of both, so protobuf-c is given that twin of each message. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "espalier/v1/parameter_server.pb-c.h"
#include "tests/support/test.h"
#include "wire/wire.h"

typedef Espalier__V1__PushRequest push_request;
typedef Espalier__V1__Chunk proto_chunk;
typedef Espalier__V1__TensorHeader proto_tensor;

enum { CHUNKS_FIELD = 2, MESSAGE_MAX = 16384, SPANS_MAX = 64 };

/* ---- a generator of messages ---- */

struct message {
  size_t len;
  uint8_t bytes[MESSAGE_MAX];
};

static uint64_t below(uint64_t *seed, uint64_t n) {
  return esp_test_random(seed) % n;
}

static void add_varint(struct message *to, uint64_t value) {
  for (; value >= 0x80; value >>= 7)
    to->bytes[to->len++] = (uint8_t)(value | 0x80);
  to->bytes[to->len++] = (uint8_t)value;
}

static void append(struct message *to, const struct message *from) {
  memcpy(to->bytes + to->len, from->bytes, from->len);
  to->len += from->len;
}

static void add_number(struct message *to, uint32_t number, uint64_t value) {
  add_varint(to, number << 3);
  add_varint(to, value);
}

static void add_bytes(struct message *to, uint32_t number, const void *bytes, size_t len) {
  add_varint(to, number << 3 | 2);
  add_varint(to, len);
  memcpy(to->bytes + to->len, bytes, len);
  to->len += len;
}

/* Of any size from 1 to 10 bytes; 0 now and then. */
static uint64_t random_number(uint64_t *seed) {
  return below(seed, 10) == 0 ? 0 : esp_test_random(seed) >> below(seed, 64);
}

static void add_unknown(struct message *to, uint64_t *seed, uint32_t number) {
  uint8_t bytes[20];
  for (size_t i = 0; i < sizeof(bytes); i++)
    bytes[i] = (uint8_t)esp_test_random(seed);
  switch (below(seed, 4)) {
  case 0:
    add_number(to, number, random_number(seed));
    break;
  case 1:
    add_bytes(to, number, bytes, below(seed, sizeof(bytes)));
    break;
  default: {
    bool wide = below(seed, 2);
    add_varint(to, number << 3 | (wide ? 1 : 5));
    memcpy(to->bytes + to->len, bytes, wide ? 8 : 4);
    to->len += wide ? 8 : 4;
  }
  }
}

/* A few numbers of one repeated field, packed or not. */
static size_t add_list(struct message *to, uint64_t *seed, uint32_t number, size_t len_max) {
  size_t len = below(seed, len_max + 1);
  struct message packed = {0};
  bool pack = below(seed, 2);
  for (size_t i = 0; i < len; i++)
    if (pack)
      add_varint(&packed, random_number(seed));
    else
      add_number(to, number, random_number(seed));
  if (pack)
    add_bytes(to, number, packed.bytes, packed.len);
  return len;
}

static const uint32_t unknown_numbers[] = {16, 17, 100, 20000, (1u << 29) - 1};

/* The fields of a TensorHeader. */
static void add_tensor_fields(struct message *tensor, uint64_t *seed, size_t *dims_left) {
  for (size_t i = below(seed, 7); i > 0; i--) {
    uint32_t number = (uint32_t)below(seed, 9);
    if (number == 0)
      add_unknown(tensor, seed, unknown_numbers[below(seed, 5)]);
    else if (number == 2)
      *dims_left -= add_list(tensor, seed, number, *dims_left);
    else if (number == 4)
      add_list(tensor, seed, number, 5);
    else if (number < 8)
      add_number(tensor, number, random_number(seed));
  }
}

static void add_message(struct message *to, uint32_t number, const struct message *message) {
  add_bytes(to, number, message->bytes, message->len);
}

/* Any field of a Chunk but a TensorHeader. */
static void add_chunk_field(struct message *chunk, uint64_t *seed) {
  static const uint32_t numbers[] = {1, 2, 3, 4, 15, 0};
  uint32_t number = numbers[below(seed, 6)];
  char text[40];
  for (size_t k = 0; k < sizeof(text); k++)
    text[k] = (char)('a' + below(seed, 26));
  if (number == 0)
    add_unknown(chunk, seed, unknown_numbers[below(seed, 5)]);
  else if (number == 2 || number == 15)
    add_bytes(chunk, number, text, below(seed, sizeof(text) + 1));
  else
    add_number(chunk, number, random_number(seed));
}

/* A chunk with any number of TensorHeaders; in the twin with one, of all their bytes. */
static void add_chunk(struct message *to, struct message *twin, uint64_t *seed, size_t fields_max) {
  struct message chunk = {0}, others = {0}, tensors = {0};
  bool has_tensor = false;
  size_t dims_left = ESP_RANK_MAX;
  for (size_t i = below(seed, fields_max + 1); i > 0; i--) {
    struct message field = {0};
    bool is_tensor = below(seed, 4) == 0;
    if (is_tensor) {
      add_tensor_fields(&field, seed, &dims_left);
      add_message(&chunk, 5, &field);
    } else {
      add_chunk_field(&field, seed);
      append(&chunk, &field);
    }
    append(is_tensor ? &tensors : &others, &field);
    has_tensor |= is_tensor;
  }
  if (has_tensor)
    add_message(&others, 5, &tensors);
  add_message(to, CHUNKS_FIELD, &chunk);
  add_message(twin, CHUNKS_FIELD, &others);
}

static void add_header(struct message *to, uint64_t *seed) {
  struct message header = {0};
  for (uint32_t number = 2; number <= 8; number++)
    add_number(&header, number, random_number(seed));
  add_bytes(to, 1, header.bytes, header.len);
}

static void random_message(struct message *to, struct message *twin, uint64_t *seed, size_t parts_max,
                           size_t fields_max) {
  to->len = twin->len = 0;
  for (size_t i = below(seed, parts_max + 1); i > 0; i--) {
    struct message part = {0};
    uint64_t kind = below(seed, 6);
    if (kind == 0)
      add_header(&part, seed);
    else if (kind == 1)
      add_unknown(&part, seed, unknown_numbers[below(seed, 5)]);
    else
      add_chunk(to, twin, seed, fields_max);
    append(to, &part);
    append(twin, &part);
  }
}

/* ---- the comparison ---- */

struct expected {
  const push_request *message; /* as protobuf-c read it */
  size_t next;                 /* the chunk that has to come */
};

static void assert_tensor_equal(const struct esp_chunk_tensor *got, const proto_tensor *expected) {
  assert_int_equal((uint32_t)got->dtype, (uint32_t)expected->dtype);
  assert_int_equal(got->has_shape, expected->n_shape > 0);
  assert_int_equal(got->shape.rank, expected->n_shape);
  for (size_t i = 0; i < expected->n_shape; i++)
    assert_true(got->shape.dims[i] == expected->shape[i]);
  assert_true(got->bytes == expected->bytes);
  assert_int_equal(got->rows_len, expected->n_rows);
  assert_true(got->parameter == expected->parameter && got->version == expected->version);
  assert_int_equal(got->view, (uint32_t)expected->view);
}

static enum esp_code compare_chunk(void *data, const struct esp_chunk *got, struct esp_status *st) {
  (void)st;
  struct expected *expected = data;
  assert_true(expected->next < expected->message->n_chunks);
  const proto_chunk *chunk = expected->message->chunks[expected->next++];
  assert_true(got->leaf_id == chunk->leaf_id && got->index == chunk->index && got->offset == chunk->offset);
  size_t path_len = strlen(chunk->path); /* protobuf-c's strings end at a NUL */
  assert_int_equal(strnlen(got->path, got->path_len), path_len);
  assert_memory_equal(got->path, chunk->path, path_len);
  assert_int_equal(got->has_tensor, chunk->tensor != NULL);
  if (got->has_tensor)
    assert_tensor_equal(&got->tensor, chunk->tensor);
  assert_int_equal(got->data.left, chunk->data.len);
  uint8_t payload[MESSAGE_MAX];
  struct esp_cursor cursor = got->data;
  assert_true(esp_cursor_copy(&cursor, payload, chunk->data.len));
  if (chunk->data.len > 0)
    assert_memory_equal(payload, chunk->data.data, chunk->data.len);
  return ESP_OK;
}

/* The rest, unpacked, is the message without its chunks: both pack to the same bytes. */
static void assert_rest_equal(const struct esp_rest *rest, push_request *whole) {
  push_request *got = espalier__v1__push_request__unpack(NULL, rest->len, rest->bytes);
  assert_non_null(got);
  assert_int_equal(got->n_chunks, 0);
  size_t n_chunks = whole->n_chunks;
  whole->n_chunks = 0;
  uint8_t a[MESSAGE_MAX], b[MESSAGE_MAX];
  size_t len = espalier__v1__push_request__pack(got, a);
  assert_int_equal(espalier__v1__push_request__pack(whole, b), len);
  assert_memory_equal(a, b, len);
  whole->n_chunks = n_chunks;
  espalier__v1__push_request__free_unpacked(got, NULL);
}

/* Where protobuf-c refused the message, or where we may: only reads what a chunk points at. */
static enum esp_code touch_chunk(void *data, const struct esp_chunk *got, struct esp_status *st) {
  (void)data, (void)st;
  uint8_t bytes[MESSAGE_MAX];
  struct esp_cursor cursor = got->data;
  assert_true(esp_cursor_copy(&cursor, bytes, (size_t)cursor.left));
  memcpy(bytes, got->path, got->path_len);
  return ESP_OK;
}

/* What we alone refuse: protobuf-c has no bound on a shape, and drops bits of a field number. */
static bool is_stricter(const struct esp_status *st) {
  return strstr(st->message, "rank over 8") != NULL || strstr(st->message, "field number") != NULL;
}

/* Whether all of it can be read, the rest by protobuf-c; compares with message, unless that is NULL. */
static bool read_spans(const struct esp_span *spans, size_t spans_len, push_request *message, struct esp_status *st) {
  struct esp_rest rest = {0};
  struct expected expected = {.message = message};
  enum esp_code code = esp_wire_rest(spans, spans_len, CHUNKS_FIELD, &rest, st);
  if (code == ESP_OK)
    code = esp_wire_chunks(spans, spans_len, CHUNKS_FIELD, touch_chunk, NULL, st);
  push_request *header = code == ESP_OK ? espalier__v1__push_request__unpack(NULL, rest.len, rest.bytes) : NULL;
  if (header != NULL && message != NULL) {
    assert_rest_equal(&rest, message);
    assert_int_equal(esp_wire_chunks(spans, spans_len, CHUNKS_FIELD, compare_chunk, &expected, st), ESP_OK);
    assert_int_equal(expected.next, message->n_chunks);
  }
  esp_rest_done(&rest);
  if (header != NULL)
    espalier__v1__push_request__free_unpacked(header, NULL);
  return header != NULL;
}

/* Cuts bytes at the places given, in order, into blocks of their own, and reads them. */
static void check_cut(const uint8_t *bytes, size_t len, const size_t *cuts, size_t cuts_len, push_request *message) {
  struct esp_span spans[SPANS_MAX];
  size_t start = 0;
  for (size_t i = 0; i <= cuts_len; i++) {
    size_t end = i == cuts_len ? len : cuts[i];
    uint8_t *block = malloc(end - start); /* of exactly this size, for ASan */
    memcpy(block, bytes + start, end - start);
    spans[i] = (struct esp_span){block, end - start};
    start = end;
  }
  struct esp_status st = {0};
  bool accepted = read_spans(spans, cuts_len + 1, message, &st);
  if (accepted != (message != NULL) && !(message != NULL && is_stricter(&st)))
    fail_msg("%s by us, %s by protobuf-c: %s", accepted ? "taken" : "refused", message ? "taken" : "refused",
             st.message);
  for (size_t i = 0; i <= cuts_len; i++)
    free((void *)(uintptr_t)spans[i].data);
}

static int compare_places(const void *a, const void *b) {
  size_t left = *(const size_t *)a, right = *(const size_t *)b;
  return left < right ? -1 : left > right;
}

static void check_random_cuts(const struct message *in, uint64_t *seed, push_request *message) {
  size_t cuts[SPANS_MAX - 1], len = below(seed, SPANS_MAX);
  for (size_t i = 0; i < len; i++)
    cuts[i] = below(seed, in->len + 1);
  qsort(cuts, len, sizeof(cuts[0]), compare_places);
  check_cut(in->bytes, in->len, cuts, len, message);
}

static push_request *unpack(const struct message *in, size_t len) {
  return espalier__v1__push_request__unpack(NULL, len, in->bytes);
}

static void release(push_request *message) {
  if (message != NULL)
    espalier__v1__push_request__free_unpacked(message, NULL);
}

/* ---- the tests ---- */

static void random_messages_cut_anywhere_read_the_same(void **state) {
  (void)state;
  static struct message in, twin;
  uint64_t seed = 1;
  size_t chunks = 0;
  for (int i = 0; i < 4000; i++) {
    random_message(&in, &twin, &seed, 6, 8);
    push_request *message = unpack(&twin, twin.len);
    assert_non_null(message);
    chunks += message->n_chunks;
    for (int k = 0; k < 4; k++)
      check_random_cuts(&in, &seed, message);
    release(message);
  }
  assert_true(chunks > 5000); /* the generator makes what is to be tested */
}

static void short_messages_are_cut_at_every_two_places(void **state) {
  (void)state;
  static struct message in, twin;
  uint64_t seed = 2;
  for (int tested = 0; tested < 25;) {
    random_message(&in, &twin, &seed, 3, 3);
    if (in.len < 20 || in.len > 60)
      continue;
    push_request *message = unpack(&twin, twin.len);
    for (size_t a = 0; a <= in.len; a++)
      for (size_t b = a; b <= in.len; b++)
        check_cut(in.bytes, in.len, (const size_t[]){a, b}, 2, message);
    size_t every[SPANS_MAX - 1];
    for (size_t i = 0; i < in.len; i++)
      every[i] = i;
    check_cut(in.bytes, in.len, every, in.len, message);
    release(message);
    tested++;
  }
}

static void the_shortest_messages_are_cut_in_every_way(void **state) {
  (void)state;
  static struct message in, twin;
  uint64_t seed = 3;
  for (int tested = 0; tested < 8;) {
    random_message(&in, &twin, &seed, 2, 2);
    if (in.len < 6 || in.len > 10)
      continue;
    push_request *message = unpack(&twin, twin.len);
    for (unsigned mask = 0; mask < 1u << (in.len - 1); mask++) {
      size_t cuts[SPANS_MAX - 1], len = 0;
      for (size_t i = 1; i < in.len; i++)
        if (mask >> (i - 1) & 1)
          cuts[len++] = i;
      check_cut(in.bytes, in.len, cuts, len, message);
    }
    release(message);
    tested++;
  }
}

static void truncation_at_every_byte_is_judged_alike(void **state) {
  (void)state;
  static struct message in, twin;
  uint64_t seed = 4;
  size_t refused = 0;
  for (int i = 0; i < 150; i++) {
    random_message(&in, &twin, &seed, 4, 6);
    for (size_t len = 0; len <= twin.len; len++) {
      push_request *message = unpack(&twin, len);
      refused += message == NULL;
      check_cut(twin.bytes, len, NULL, 0, message);
      check_cut(twin.bytes, len, (const size_t[]){below(&seed, len + 1)}, 1, message);
      release(message);
    }
  }
  assert_true(refused > 1000);
}

static void mutations_are_judged_alike(void **state) {
  (void)state;
  static struct message in, twin, mutant;
  uint64_t seed = 5;
  size_t refused = 0, taken = 0;
  for (int i = 0; i < 20000; i++) {
    if (i % 10 == 0)
      random_message(&in, &twin, &seed, 3, 4);
    mutant = twin;
    for (size_t k = mutant.len == 0 ? 0 : 1 + below(&seed, 3); k > 0; k--) {
      uint8_t *byte = &mutant.bytes[below(&seed, mutant.len)];
      *byte = below(&seed, 2) ? (uint8_t)esp_test_random(&seed) : (uint8_t)(*byte ^ 1u << below(&seed, 8));
    }
    push_request *message = unpack(&mutant, mutant.len);
    refused += message == NULL;
    taken += message != NULL;
    check_random_cuts(&mutant, &seed, message);
    release(message);
  }
  assert_true(refused > 1000 && taken > 1000);
}

/* What the writer wrote, with its payload, is byte for byte what protobuf-c packs. */
static void check_prefix(const struct esp_chunk *chunk, const struct esp_chunk_tensor *tensor, size_t data_len) {
  static uint8_t payload[300], written[ESP_CHUNK_PREFIX_MAX + sizeof(payload)], packed[1024];
  proto_tensor proto = ESPALIER__V1__TENSOR_HEADER__INIT;
  proto_chunk expected = ESPALIER__V1__CHUNK__INIT;
  expected.leaf_id = chunk->leaf_id;
  expected.index = chunk->index;
  expected.offset = chunk->offset;
  expected.data = (ProtobufCBinaryData){.len = data_len, .data = payload};
  uint64_t dims[ESP_RANK_MAX];
  if (tensor != NULL) {
    memcpy(dims, tensor->shape.dims, sizeof(dims));
    proto.dtype = (Espalier__V1__DType)tensor->dtype;
    proto.n_shape = tensor->has_shape ? tensor->shape.rank : 0;
    proto.shape = dims;
    proto.bytes = tensor->bytes;
    proto.parameter = tensor->parameter;
    proto.version = tensor->version;
    proto.view = (Espalier__V1__View)tensor->view;
    expected.tensor = &proto;
  }
  push_request whole = ESPALIER__V1__PUSH_REQUEST__INIT;
  whole.chunks = (proto_chunk *[]){&expected};
  whole.n_chunks = 1;
  for (size_t i = 0; i < sizeof(payload); i++)
    payload[i] = (uint8_t)(i * 7);
  size_t prefix_len =
      esp_wire_chunk_prefix(written, CHUNKS_FIELD, chunk->leaf_id, chunk->index, chunk->offset, tensor, data_len);
  assert_true(prefix_len <= ESP_CHUNK_PREFIX_MAX);
  memcpy(written + prefix_len, payload, data_len);
  assert_int_equal(espalier__v1__push_request__pack(&whole, packed), prefix_len + data_len);
  assert_memory_equal(written, packed, prefix_len + data_len);
}

static void prefixes_are_what_protobuf_packs(void **state) {
  (void)state;
  uint64_t seed = 6;
  for (int i = 0; i < 4000; i++) {
    struct esp_chunk chunk = {0};
    struct esp_chunk_tensor tensor = {0};
    uint64_t *numbers[] = {&chunk.leaf_id, &chunk.index,      &chunk.offset,
                           &tensor.bytes,  &tensor.parameter, &tensor.version};
    for (size_t k = 0; k < 6; k++)
      *numbers[k] = below(&seed, 2) ? random_number(&seed) : 0;
    tensor.dtype = (enum esp_dtype)below(&seed, 5);
    tensor.view = below(&seed, 2);
    tensor.has_shape = below(&seed, 2);
    tensor.shape.rank = (unsigned)below(&seed, ESP_RANK_MAX + 1);
    for (unsigned k = 0; k < ESP_RANK_MAX; k++)
      tensor.shape.dims[k] = random_number(&seed);
    check_prefix(&chunk, below(&seed, 3) == 0 ? NULL : &tensor, below(&seed, 2) ? below(&seed, 300) : 0);
  }
}

static void the_longest_prefix_fits(void **state) {
  (void)state;
  struct esp_chunk_tensor tensor;
  memset(&tensor, 0xff, sizeof(tensor));
  tensor.has_shape = true;
  tensor.shape.rank = ESP_RANK_MAX;
  uint8_t prefix[ESP_CHUNK_PREFIX_MAX];
  size_t len = esp_wire_chunk_prefix(prefix, (1u << 29) - 1, UINT64_MAX, UINT64_MAX, UINT64_MAX, &tensor,
                                     SIZE_MAX - ESP_CHUNK_PREFIX_MAX);
  assert_in_range(len, 1, ESP_CHUNK_PREFIX_MAX);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(random_messages_cut_anywhere_read_the_same),
      ESP_TEST(short_messages_are_cut_at_every_two_places),
      ESP_TEST(the_shortest_messages_are_cut_in_every_way),
      ESP_TEST(truncation_at_every_byte_is_judged_alike),
      ESP_TEST(mutations_are_judged_alike),
      ESP_TEST(prefixes_are_what_protobuf_packs),
      ESP_TEST(the_longest_prefix_fits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
