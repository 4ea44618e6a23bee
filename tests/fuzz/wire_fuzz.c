/* wire/wire.c: a message reads the same however it is cut into spans, and as protobuf-c reads it where both take it.
 *
 * protobuf-c 1.4.1 does not merge the scalars of a submessage that occurs twice, as the standard wants, so a message
 * with a chunk that has two TensorHeaders is not compared with it. */
#include <espalier/v1/parameter_server.pb-c.h>

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tests/fuzz/fuzz.h"
#include "wire/wire.h"

enum { CHUNKS_FIELD = 2, TENSOR_FIELD = 5, CUTS_LEN = 8 };

/* What was read, as bytes that can be compared. */
struct reading {
  enum esp_code rest_code;
  enum esp_code chunks_code;
  struct esp_status rest_st;
  struct esp_status chunks_st;
  struct esp_rest rest;
  uint8_t *log; /* of each chunk its numbers, path and data */
  size_t log_len;
  size_t log_capacity;
};

static void log_bytes(struct reading *reading, const void *bytes, size_t len) {
  ESP_CHECK(esp_grow((void **)&reading->log, &reading->log_capacity, reading->log_len + len + 1, 1));
  memcpy(reading->log + reading->log_len, bytes, len);
  reading->log_len += len;
}

static enum esp_code log_chunk(void *data, const struct esp_chunk *chunk, struct esp_status *st) {
  (void)st;
  struct reading *reading = data;
  const struct esp_chunk_tensor *tensor = &chunk->tensor;
  const uint64_t numbers[] = {chunk->leaf_id,     chunk->index,     chunk->offset,           chunk->path_len,
                              chunk->has_tensor,  chunk->data.left, (uint64_t)tensor->dtype, tensor->has_shape,
                              tensor->shape.rank, tensor->bytes,    tensor->rows_len,        tensor->parameter,
                              tensor->version,    tensor->view};
  log_bytes(reading, numbers, sizeof numbers);
  log_bytes(reading, tensor->shape.dims, sizeof tensor->shape.dims);
  log_bytes(reading, chunk->path, chunk->path_len);
  struct esp_cursor cursor = chunk->data;
  for (struct esp_span piece; esp_cursor_take(&cursor, SIZE_MAX, &piece);)
    log_bytes(reading, piece.data, piece.len);
  return ESP_OK;
}

static void read_all(struct reading *reading, const struct esp_fuzz_spans *spans) {
  *reading = (struct reading){0};
  reading->rest_code = esp_wire_rest(spans->spans, spans->len, CHUNKS_FIELD, &reading->rest, &reading->rest_st);
  reading->chunks_code =
      esp_wire_chunks(spans->spans, spans->len, CHUNKS_FIELD, log_chunk, reading, &reading->chunks_st);
}

static void reading_done(struct reading *reading) {
  esp_rest_done(&reading->rest);
  esp_free(reading->log);
}

static void check_same(const struct reading *a, const struct reading *b) {
  ESP_CHECK(a->rest_code == b->rest_code && a->chunks_code == b->chunks_code);
  ESP_CHECK(a->log_len == b->log_len && (a->log_len == 0 || memcmp(a->log, b->log, a->log_len) == 0));
  ESP_CHECK(strcmp(a->rest_st.message, b->rest_st.message) == 0);
  ESP_CHECK(strcmp(a->chunks_st.message, b->chunks_st.message) == 0);
  bool has_rest = a->rest_code == ESP_OK && a->rest.len > 0;
  ESP_CHECK(!has_rest || (a->rest.len == b->rest.len && memcmp(a->rest.bytes, b->rest.bytes, a->rest.len) == 0));
  if (a->rest_code != ESP_OK)
    esp_fuzz_check_failure(a->rest_code, &a->rest_st);
  if (a->chunks_code != ESP_OK)
    esp_fuzz_check_failure(a->chunks_code, &a->chunks_st);
}

/* ---- against protobuf-c ---- */

typedef Espalier__V1__PushRequest push_request;

/* A message without fields: protobuf-c keeps each field of any other as an unknown one. */
static Espalier__V1__LeaveReply *fields_of(const uint8_t *bytes, size_t len) {
  return espalier__v1__leave_reply__unpack(NULL, len, bytes);
}

/* Whether the chunk's bytes, which are behind their length, have more than one TensorHeader. */
static bool chunk_has_two_tensors(const ProtobufCMessageUnknownField *chunk) {
  size_t prefix = 1;
  while (prefix <= chunk->len && chunk->data[prefix - 1] >= 0x80)
    prefix++;
  Espalier__V1__LeaveReply *fields = fields_of(chunk->data + prefix, chunk->len - prefix);
  if (fields == NULL)
    return false;
  unsigned count = 0;
  for (unsigned i = 0; i < fields->base.n_unknown_fields; i++)
    count += fields->base.unknown_fields[i].tag == TENSOR_FIELD;
  espalier__v1__leave_reply__free_unpacked(fields, NULL);
  return count > 1;
}

static bool has_two_tensors(const uint8_t *bytes, size_t len) {
  Espalier__V1__LeaveReply *fields = fields_of(bytes, len);
  if (fields == NULL)
    return false;
  bool has = false;
  for (unsigned i = 0; i < fields->base.n_unknown_fields && !has; i++) {
    const ProtobufCMessageUnknownField *field = &fields->base.unknown_fields[i];
    has = field->tag == CHUNKS_FIELD && field->wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED &&
          chunk_has_two_tensors(field);
  }
  espalier__v1__leave_reply__free_unpacked(fields, NULL);
  return has;
}

struct comparison {
  const push_request *message;
  size_t next; /* the chunk that has to come */
};

static void compare_tensor(const struct esp_chunk_tensor *got, const Espalier__V1__TensorHeader *expected) {
  ESP_CHECK((uint32_t)got->dtype == (uint32_t)expected->dtype);
  ESP_CHECK(got->has_shape == (expected->n_shape > 0) && got->shape.rank == expected->n_shape);
  for (size_t i = 0; i < expected->n_shape; i++)
    ESP_CHECK(got->shape.dims[i] == expected->shape[i]);
  ESP_CHECK(got->bytes == expected->bytes && got->rows_len == expected->n_rows);
  ESP_CHECK(got->parameter == expected->parameter && got->version == expected->version);
  ESP_CHECK(got->view == (uint32_t)expected->view);
}

static enum esp_code compare_chunk(void *data, const struct esp_chunk *got, struct esp_status *st) {
  (void)st;
  struct comparison *comparison = data;
  ESP_CHECK(comparison->next < comparison->message->n_chunks);
  const Espalier__V1__Chunk *chunk = comparison->message->chunks[comparison->next++];
  ESP_CHECK(got->leaf_id == chunk->leaf_id && got->index == chunk->index && got->offset == chunk->offset);
  size_t path_len = strlen(chunk->path); /* protobuf-c's strings end at a NUL */
  ESP_CHECK(strnlen(got->path, got->path_len) == path_len && memcmp(got->path, chunk->path, path_len) == 0);
  ESP_CHECK(got->has_tensor == (chunk->tensor != NULL));
  if (got->has_tensor)
    compare_tensor(&got->tensor, chunk->tensor);
  ESP_CHECK(got->data.left == chunk->data.len);
  size_t at = 0;
  struct esp_cursor cursor = got->data;
  for (struct esp_span piece; esp_cursor_take(&cursor, SIZE_MAX, &piece); at += piece.len)
    ESP_CHECK(memcmp(piece.data, chunk->data.data + at, piece.len) == 0);
  return ESP_OK;
}

/* The rest is the message without its chunks: both pack to the same bytes. */
static void compare_rest(const push_request *header, push_request *whole) {
  size_t chunks_len = whole->n_chunks;
  whole->n_chunks = 0;
  size_t len = espalier__v1__push_request__get_packed_size(whole);
  ESP_CHECK(header->n_chunks == 0 && espalier__v1__push_request__get_packed_size(header) == len);
  uint8_t *a = esp_malloc(len);
  uint8_t *b = esp_malloc(len);
  ESP_CHECK(a != NULL && b != NULL);
  espalier__v1__push_request__pack(header, a);
  espalier__v1__push_request__pack(whole, b);
  ESP_CHECK(memcmp(a, b, len) == 0);
  esp_free(a);
  esp_free(b);
  whole->n_chunks = chunks_len;
}

/* What we alone refuse: protobuf-c has no bound on a shape or a path, and drops bits of a field number. */
static bool is_stricter(const struct reading *reading) {
  const char *rest = reading->rest_st.message;
  const char *chunks = reading->chunks_st.message;
  return strstr(rest, "field number") != NULL || strstr(chunks, "field number") != NULL ||
         strstr(chunks, "rank over 8") != NULL || strstr(chunks, "a chunk's path has") != NULL;
}

static void check_against_protobuf(const struct reading *reading, const struct esp_fuzz_spans *spans,
                                   const uint8_t *bytes, size_t len) {
  push_request *whole = espalier__v1__push_request__unpack(NULL, len, bytes);
  push_request *header = NULL;
  if (reading->rest_code == ESP_OK && reading->chunks_code == ESP_OK)
    header = espalier__v1__push_request__unpack(NULL, reading->rest.len, reading->rest.bytes);
  ESP_CHECK((header != NULL) == (whole != NULL) || (whole != NULL && is_stricter(reading)));
  if (header != NULL) {
    struct comparison comparison = {.message = whole};
    compare_rest(header, whole);
    ESP_CHECK(esp_wire_chunks(spans->spans, spans->len, CHUNKS_FIELD, compare_chunk, &comparison, NULL) == ESP_OK);
    ESP_CHECK(comparison.next == whole->n_chunks);
    espalier__v1__push_request__free_unpacked(header, NULL);
  }
  if (whole != NULL)
    espalier__v1__push_request__free_unpacked(whole, NULL);
}

/* The first bytes are the lengths of spans, then comes the message. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  size_t live = esp_alloc_live();
  struct esp_fuzz_input input = {.at = data, .left = size};
  uint8_t cuts[CUTS_LEN];
  for (size_t i = 0; i < CUTS_LEN; i++)
    cuts[i] = esp_fuzz_byte(&input);
  struct esp_fuzz_spans whole, pieces;
  struct reading of_whole, of_pieces;
  esp_fuzz_cut(&whole, NULL, 0, input);
  esp_fuzz_cut(&pieces, cuts, CUTS_LEN, input);
  read_all(&of_whole, &whole);
  read_all(&of_pieces, &pieces);
  check_same(&of_whole, &of_pieces);
  if (!has_two_tensors(input.at, input.left))
    check_against_protobuf(&of_pieces, &pieces, input.at, input.left);
  reading_done(&of_whole);
  reading_done(&of_pieces);
  esp_fuzz_spans_done(&whole);
  esp_fuzz_spans_done(&pieces);
  ESP_CHECK(esp_alloc_live() == live);
  return 0;
}
