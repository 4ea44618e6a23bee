/* Chunks read and written in place.
 *
 * One reader, read_field, takes a field from a cursor: a varint's value, or a cursor over the bytes of what has a
 * length. It works over spans, so a cut at any byte changes nothing; payloads are skipped, not touched. Messages
 * within messages are cursors with an end of their own, and nothing is read past it. Scalars, path and data are
 * overwritten by a later occurrence, a second TensorHeader is read into the first: what a protobuf library does.
 *
 * It fails, naming the byte, where the bytes are no message or a known field has another wire type than the proto
 * says. Nothing is allocated but the rest's buffer, which can't grow beyond the message. */
#include "wire/wire.h"

#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

/* The numbers of types.proto. */
enum {
  CHUNK_LEAF_ID = 1,
  CHUNK_PATH = 2,
  CHUNK_INDEX = 3,
  CHUNK_OFFSET = 4,
  CHUNK_TENSOR = 5,
  CHUNK_DATA = 15,
};
enum {
  TENSOR_DTYPE = 1,
  TENSOR_SHAPE = 2,
  TENSOR_BYTES = 3,
  TENSOR_ROWS = 4,
  TENSOR_PARAMETER = 5,
  TENSOR_VERSION = 6,
  TENSOR_VIEW = 7,
};

#define VARINT_BYTES_MAX 10
#define SHORT_VARINT_BYTES_MAX 5 /* tags and lengths have 32 bits */

struct field {
  uint32_t number;        /* never 0 */
  enum wire_type type;    /* as it travels */
  uint64_t value;         /* of a varint */
  struct esp_cursor body; /* of what has a length: its bytes */
};

/* ---- reading ---- */

static enum esp_code fail_at(const struct esp_cursor *cursor, struct esp_status *st, const char *problem) {
  uint64_t position = cursor->offset;
  for (size_t i = 0; i < cursor->index; i++)
    position += cursor->spans[i].len;
  return esp_fail(st, ESP_INVALID_ARGUMENT, "malformed message: at byte %" PRIu64 ": %s", position, problem);
}

static enum esp_code read_varint(struct esp_cursor *cursor, unsigned bytes_max, uint64_t *ret, struct esp_status *st) {
  uint64_t value = 0;
  for (unsigned i = 0; i < bytes_max; i++) {
    uint8_t byte;
    if (!esp_cursor_byte(cursor, &byte))
      return fail_at(cursor, st, "a number is cut off");
    value |= (uint64_t)(byte & 0x7f) << (7 * i); /* of the tenth byte one bit counts, as everywhere */
    if ((byte & 0x80) == 0) {
      *ret = value;
      return ESP_OK;
    }
  }
  return fail_at(cursor, st, "a number has too many bytes");
}

static enum esp_code read_tag(struct esp_cursor *cursor, struct field *field, struct esp_status *st) {
  uint64_t tag = 0;
  enum esp_code code = read_varint(cursor, SHORT_VARINT_BYTES_MAX, &tag, st);
  if (code != ESP_OK)
    return code;
  if (tag > UINT32_MAX)
    return fail_at(cursor, st, "a field number is over 2^29");
  if (tag >> 3 == 0)
    return fail_at(cursor, st, "a field number is 0");
  *field = (struct field){.number = (uint32_t)(tag >> 3), .type = (enum wire_type)(tag & 7)};
  return ESP_OK;
}

/* Takes the next field, its content included. The cursor must not be at its end. */
static enum esp_code read_field(struct esp_cursor *cursor, struct field *field, struct esp_status *st) {
  enum esp_code code = read_tag(cursor, field, st);
  if (code != ESP_OK)
    return code;
  uint64_t len = 0;
  switch (field->type) {
  case WIRE_VARINT:
    return read_varint(cursor, VARINT_BYTES_MAX, &field->value, st);
  case WIRE_FIXED64:
    return esp_cursor_skip(cursor, 8) ? ESP_OK : fail_at(cursor, st, "a field of 8 bytes is cut off");
  case WIRE_FIXED32:
    return esp_cursor_skip(cursor, 4) ? ESP_OK : fail_at(cursor, st, "a field of 4 bytes is cut off");
  case WIRE_BYTES:
    code = read_varint(cursor, SHORT_VARINT_BYTES_MAX, &len, st);
    if (code != ESP_OK)
      return code;
    field->body = *cursor;
    field->body.left = len;
    return esp_cursor_skip(cursor, len) ? ESP_OK : fail_at(cursor, st, "a length passes the end of its message");
  }
  return fail_at(cursor, st, "a wire type that is neither varint, fixed32, fixed64 nor length-delimited");
}

static enum esp_code want_type(const struct esp_cursor *cursor, const struct field *field, enum wire_type type,
                               struct esp_status *st) {
  return field->type == type ? ESP_OK : fail_at(cursor, st, "a field has another wire type than its proto says");
}

/* Where repeated numbers go. The only list with a bound is a shape. */
struct numbers {
  uint64_t *to;     /* NULL: they are only counted */
  uint64_t len;     /* read so far */
  uint64_t len_max; /* the room of to */
};

static enum esp_code add_number(const struct esp_cursor *cursor, struct numbers *numbers, uint64_t number,
                                struct esp_status *st) {
  if (numbers->len == numbers->len_max)
    return fail_at(cursor, st, "a shape of rank over 8");
  if (numbers->to != NULL)
    numbers->to[numbers->len] = number;
  numbers->len++;
  return ESP_OK;
}

/* Reads one occurrence of a field of repeated numbers: packed, or a single one. */
static enum esp_code read_numbers(const struct esp_cursor *cursor, const struct field *field, struct numbers *numbers,
                                  struct esp_status *st) {
  if (field->type != WIRE_BYTES) {
    enum esp_code code = want_type(cursor, field, WIRE_VARINT, st);
    return code == ESP_OK ? add_number(cursor, numbers, field->value, st) : code;
  }
  enum esp_code code = ESP_OK;
  for (struct esp_cursor body = field->body; code == ESP_OK && body.left > 0;) {
    uint64_t number = 0;
    code = read_varint(&body, VARINT_BYTES_MAX, &number, st);
    if (code == ESP_OK)
      code = add_number(&body, numbers, number, st);
  }
  return code;
}

static enum esp_code read_shape(const struct esp_cursor *cursor, const struct field *field,
                                struct esp_chunk_tensor *tensor, struct esp_status *st) {
  struct numbers dims = {.to = tensor->shape.dims, .len = tensor->shape.rank, .len_max = ESP_RANK_MAX};
  enum esp_code code = read_numbers(cursor, field, &dims, st);
  tensor->shape.rank = (unsigned)dims.len;
  tensor->has_shape = dims.len > 0;
  return code;
}

static enum esp_code read_rows(const struct esp_cursor *cursor, const struct field *field,
                               struct esp_chunk_tensor *tensor, struct esp_status *st) {
  struct numbers rows = {.len = tensor->rows_len, .len_max = UINT64_MAX};
  enum esp_code code = read_numbers(cursor, field, &rows, st);
  tensor->rows_len = rows.len;
  return code;
}

/* An enum keeps 32 bits of its varint, a uint64 all. */
static void set_tensor_number(struct esp_chunk_tensor *tensor, uint32_t number, uint64_t value) {
  switch (number) {
  case TENSOR_DTYPE:
    tensor->dtype = (enum esp_dtype)(uint32_t)value;
    break;
  case TENSOR_BYTES:
    tensor->bytes = value;
    break;
  case TENSOR_PARAMETER:
    tensor->parameter = value;
    break;
  case TENSOR_VERSION:
    tensor->version = value;
    break;
  case TENSOR_VIEW:
    tensor->view = (uint32_t)value;
    break;
  }
}

/* Reads a TensorHeader into tensor, over what an earlier one left there. */
static enum esp_code read_tensor(struct esp_cursor cursor, struct esp_chunk_tensor *tensor, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  while (code == ESP_OK && cursor.left > 0) {
    struct field field = {0};
    code = read_field(&cursor, &field, st);
    if (code != ESP_OK || field.number > TENSOR_VIEW)
      continue;
    if (field.number == TENSOR_SHAPE)
      code = read_shape(&cursor, &field, tensor, st);
    else if (field.number == TENSOR_ROWS)
      code = read_rows(&cursor, &field, tensor, st);
    else if ((code = want_type(&cursor, &field, WIRE_VARINT, st)) == ESP_OK)
      set_tensor_number(tensor, field.number, field.value);
  }
  return code;
}

/* Takes one field of a Chunk; path's place is kept in *path until the last one is known. */
static enum esp_code read_chunk_field(struct esp_cursor *cursor, const struct field *field, struct esp_chunk *chunk,
                                      struct esp_cursor *path, struct esp_status *st) {
  static const enum wire_type types[] = {
      [CHUNK_LEAF_ID] = WIRE_VARINT, [CHUNK_PATH] = WIRE_BYTES,   [CHUNK_INDEX] = WIRE_VARINT,
      [CHUNK_OFFSET] = WIRE_VARINT,  [CHUNK_TENSOR] = WIRE_BYTES,
  };
  bool known = field->number <= CHUNK_TENSOR || field->number == CHUNK_DATA;
  if (!known)
    return ESP_OK;
  enum esp_code code = want_type(cursor, field, field->number == CHUNK_DATA ? WIRE_BYTES : types[field->number], st);
  if (code != ESP_OK)
    return code;
  switch (field->number) {
  case CHUNK_LEAF_ID:
    chunk->leaf_id = field->value;
    break;
  case CHUNK_PATH:
    *path = field->body;
    break;
  case CHUNK_INDEX:
    chunk->index = field->value;
    break;
  case CHUNK_OFFSET:
    chunk->offset = field->value;
    break;
  case CHUNK_TENSOR:
    chunk->has_tensor = true;
    return read_tensor(field->body, &chunk->tensor, st);
  default:
    chunk->data = field->body;
  }
  return ESP_OK;
}

/* Points chunk->path at the path's bytes, or at a copy of them where a cut between spans goes through. */
static enum esp_code set_path(struct esp_chunk *chunk, struct esp_cursor path, char scratch[ESP_WIRE_PATH_MAX],
                              struct esp_status *st) {
  if (path.left > ESP_WIRE_PATH_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a chunk's path has %" PRIu64 " bytes, %d is the most", path.left,
                    ESP_WIRE_PATH_MAX);
  struct esp_cursor whole = path;
  struct esp_span piece;
  if (!esp_cursor_take(&whole, ESP_WIRE_PATH_MAX, &piece))
    return ESP_OK;
  chunk->path = (const char *)piece.data;
  chunk->path_len = (size_t)path.left;
  if (whole.left > 0) {
    ESP_CHECK(esp_cursor_copy(&path, scratch, chunk->path_len));
    chunk->path = scratch;
  }
  return ESP_OK;
}

static enum esp_code visit_chunk(struct esp_cursor cursor, esp_chunk_visitor visit, void *data, struct esp_status *st) {
  struct esp_cursor nothing = cursor;
  nothing.left = 0;
  struct esp_chunk chunk = {.path = "", .data = nothing};
  struct esp_cursor path = nothing;
  while (cursor.left > 0) {
    struct field field = {0};
    enum esp_code code = read_field(&cursor, &field, st);
    if (code == ESP_OK)
      code = read_chunk_field(&cursor, &field, &chunk, &path, st);
    if (code != ESP_OK)
      return code;
  }
  char scratch[ESP_WIRE_PATH_MAX];
  enum esp_code code = set_path(&chunk, path, scratch, st);
  return code == ESP_OK ? visit(data, &chunk, st) : code;
}

enum esp_code esp_wire_chunks(const struct esp_span *spans, size_t spans_len, uint32_t chunks_field,
                              esp_chunk_visitor visit, void *data, struct esp_status *st) {
  struct esp_cursor cursor = esp_cursor_init(spans, spans_len);
  enum esp_code code = ESP_OK;
  while (code == ESP_OK && cursor.left > 0) {
    struct field field = {0};
    code = read_field(&cursor, &field, st);
    if (code == ESP_OK && field.number == chunks_field)
      code = want_type(&cursor, &field, WIRE_BYTES, st);
    if (code == ESP_OK && field.number == chunks_field)
      code = visit_chunk(field.body, visit, data, st);
  }
  return code;
}

/* ---- what is not a chunk ---- */

void esp_rest_done(struct esp_rest *rest) {
  esp_free(rest->bytes);
  *rest = (struct esp_rest){0};
}

/* Appends len bytes from the cursor, which has them. */
static enum esp_code rest_append(struct esp_rest *rest, struct esp_cursor from, size_t len, struct esp_status *st) {
  if (!esp_grow((void **)&rest->bytes, &rest->capacity, rest->len + len, 1))
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for the %zu bytes of a message's header",
                    rest->len + len);
  ESP_CHECK(esp_cursor_copy(&from, rest->bytes + rest->len, len));
  rest->len += len;
  return ESP_OK;
}

enum esp_code esp_wire_rest(const struct esp_span *spans, size_t spans_len, uint32_t chunks_field,
                            struct esp_rest *rest, struct esp_status *st) {
  struct esp_cursor cursor = esp_cursor_init(spans, spans_len);
  enum esp_code code = ESP_OK;
  while (code == ESP_OK && cursor.left > 0) {
    struct esp_cursor start = cursor;
    struct field field = {0};
    code = read_field(&cursor, &field, st);
    if (code == ESP_OK && field.number == chunks_field)
      code = want_type(&cursor, &field, WIRE_BYTES, st);
    else if (code == ESP_OK)
      code = rest_append(rest, start, (size_t)(start.left - cursor.left), st);
  }
  return code;
}

/* ---- writing ---- */

static uint8_t *put_varint(uint8_t *to, uint64_t value) {
  for (; value >= 0x80; value >>= 7)
    *to++ = (uint8_t)(value | 0x80);
  *to++ = (uint8_t)value;
  return to;
}

static uint8_t *put_tag(uint8_t *to, uint32_t number, enum wire_type type) {
  return put_varint(to, (uint64_t)number << 3 | type);
}

static uint8_t *put_number(uint8_t *to, uint32_t number, uint64_t value) {
  return value == 0 ? to : put_varint(put_tag(to, number, WIRE_VARINT), value);
}

static uint8_t *put_bytes(uint8_t *to, uint32_t number, const uint8_t *bytes, size_t len) {
  to = put_varint(put_tag(to, number, WIRE_BYTES), len);
  memcpy(to, bytes, len);
  return to + len;
}

static uint8_t *put_tensor(uint8_t *to, const struct esp_chunk_tensor *tensor) {
  to = put_number(to, TENSOR_DTYPE, (uint64_t)tensor->dtype);
  if (tensor->has_shape && tensor->shape.rank > 0) {
    ESP_CHECK(tensor->shape.rank <= ESP_RANK_MAX);
    uint8_t dims[ESP_RANK_MAX * VARINT_BYTES_MAX];
    uint8_t *end = dims;
    for (unsigned i = 0; i < tensor->shape.rank; i++)
      end = put_varint(end, tensor->shape.dims[i]);
    to = put_bytes(to, TENSOR_SHAPE, dims, (size_t)(end - dims));
  }
  to = put_number(to, TENSOR_BYTES, tensor->bytes);
  to = put_number(to, TENSOR_PARAMETER, tensor->parameter);
  to = put_number(to, TENSOR_VERSION, tensor->version);
  return put_number(to, TENSOR_VIEW, tensor->view);
}

size_t esp_wire_chunk_prefix(uint8_t prefix[ESP_CHUNK_PREFIX_MAX], uint32_t chunks_field, uint64_t leaf_id,
                             uint64_t index, uint64_t offset, const struct esp_chunk_tensor *tensor, size_t data_len) {
  uint8_t chunk[ESP_CHUNK_PREFIX_MAX];
  uint8_t *end = put_number(chunk, CHUNK_LEAF_ID, leaf_id);
  end = put_number(end, CHUNK_INDEX, index);
  end = put_number(end, CHUNK_OFFSET, offset);
  if (tensor != NULL) {
    uint8_t header[ESP_CHUNK_PREFIX_MAX];
    end = put_bytes(end, CHUNK_TENSOR, header, (size_t)(put_tensor(header, tensor) - header));
  }
  if (data_len > 0)
    end = put_varint(put_tag(end, CHUNK_DATA, WIRE_BYTES), data_len);
  size_t chunk_len = (size_t)(end - chunk);
  uint8_t *to = put_varint(put_tag(prefix, chunks_field, WIRE_BYTES), chunk_len + data_len);
  memcpy(to, chunk, chunk_len);
  return (size_t)(to - prefix) + chunk_len;
}
