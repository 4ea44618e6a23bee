/* Unpacking what a peer sent, and packing what goes back.
 *
 * Happy path: the bytes are walked once by the message's descriptor, to find strings that protobuf-c would accept and
 * silently shorten, and are then unpacked into an arena whose limit follows from the message's size, since unpacking
 * amplifies: an empty submessage is two bytes on the wire and a hundred in memory.
 *
 * How it fails: by a status; whatever was allocated lies in the arena and goes with it. */
#include "rpc/codec.h"

#include <string.h>

#include "base/alloc.h"
#include "base/handoff.h"

#define AMPLIFICATION_MAX 32
#define ARENA_BYTES_MIN 65536
#define TAG_BYTES_MAX 20 /* a tag and a length */

void esp_decoded_done(struct esp_decoded *decoded) {
  esp_arena_done(&decoded->arena);
  decoded->message = NULL;
}

/* The length of the UTF-8 sequence that begins with these bytes (at most `left` of them), or 0. */
static size_t sequence_len(const uint8_t *s, size_t left) {
  static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
  size_t len = s[0] < 0x80 ? 1 : (s[0] & 0xe0) == 0xc0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : (s[0] & 0xf8) == 0xf0 ? 4 : 0;
  if (len <= 1)
    return s[0] == 0 ? 0 : len;
  if (len > left)
    return 0;
  uint32_t code = s[0] & (0x7fu >> len);
  for (size_t i = 1; i < len; i++) {
    if ((s[i] & 0xc0) != 0x80)
      return 0;
    code = (code << 6) | (s[i] & 0x3fu);
  }
  bool is_surrogate = code >= 0xd800 && code <= 0xdfff;
  return code < least[len] || code > 0x10ffff || is_surrogate ? 0 : len;
}

bool esp_text_is_valid(const void *text, size_t len) {
  const uint8_t *s = text;
  for (size_t i = 0; i < len;) {
    size_t n = sequence_len(s + i, len - i);
    if (n == 0)
      return false;
    i += n;
  }
  return true;
}

/* Reads a varint; false at the end of the bytes or after ten of them. */
static bool take_varint(const uint8_t **at, const uint8_t *end, uint64_t *ret) {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 70 && *at < end; shift += 7) {
    uint8_t byte = *(*at)++;
    value |= shift < 64 ? (uint64_t)(byte & 0x7f) << shift : 0;
    if ((byte & 0x80) == 0) {
      *ret = value;
      return true;
    }
  }
  return false;
}

/* Checks the strings of a message that lies at bytes. What is malformed is left to protobuf-c to refuse. The
 * descriptors of our messages are not recursive, so neither is this beyond a few levels. */
static enum esp_code check_strings(const ProtobufCMessageDescriptor *type, const uint8_t *at, size_t len,
                                   struct esp_status *st) {
  const uint8_t *end = at + len;
  uint64_t tag, value;
  while (at < end && take_varint(&at, end, &tag)) {
    unsigned wire_type = tag & 7;
    if (wire_type == PROTOBUF_C_WIRE_TYPE_VARINT) {
      if (!take_varint(&at, end, &value))
        break;
      continue;
    }
    if (wire_type == PROTOBUF_C_WIRE_TYPE_64BIT)
      value = 8;
    else if (wire_type == PROTOBUF_C_WIRE_TYPE_32BIT)
      value = 4;
    else if (wire_type != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED || !take_varint(&at, end, &value))
      break;
    if (value > (uint64_t)(end - at))
      break;
    const ProtobufCFieldDescriptor *field =
        (tag >> 3) > UINT32_MAX ? NULL : protobuf_c_message_descriptor_get_field(type, (unsigned)(tag >> 3));
    bool is_text = field != NULL && field->type == PROTOBUF_C_TYPE_STRING;
    if (wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED && is_text && !esp_text_is_valid(at, (size_t)value))
      return esp_fail(st, ESP_INVALID_ARGUMENT, "field %s of %s is not UTF-8 text without a NUL", field->name,
                      type->short_name);
    if (wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED && field != NULL && field->type == PROTOBUF_C_TYPE_MESSAGE) {
      enum esp_code code = check_strings(field->descriptor, at, (size_t)value, st);
      if (code != ESP_OK)
        return code;
    }
    at += value;
  }
  return ESP_OK;
}

/* protobuf-c gives NULL for bad bytes and for no memory alike, so the allocator remembers. */
struct limited {
  struct esp_arena arena;
  bool failed; /* an allocation was refused */
};

static void *arena_alloc(void *data, size_t size) {
  struct limited *limited = data;
  void *memory = esp_arena_alloc(&limited->arena, size);
  limited->failed |= memory == NULL;
  return memory;
}

static void arena_free(void *data, void *memory) {
  (void)data;
  (void)memory;
}

enum esp_code esp_decode(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t len,
                         struct esp_decoded *ret, struct esp_status *st) {
  enum esp_code code = check_strings(type, bytes, len, st);
  if (code != ESP_OK)
    return code;
  struct limited limited = {0};
  esp_arena_init(&limited.arena, ARENA_BYTES_MIN + len * AMPLIFICATION_MAX);
  ProtobufCAllocator allocator = {.alloc = arena_alloc, .free = arena_free, .allocator_data = &limited};
  ProtobufCMessage *message = protobuf_c_message_unpack(type, &allocator, len, bytes);
  if (message == NULL) {
    esp_arena_done(&limited.arena);
    return limited.failed
               ? esp_fail(st, ESP_RESOURCE_EXHAUSTED, "a %s of %zu bytes needs too much memory", type->short_name, len)
               : esp_fail(st, ESP_INVALID_ARGUMENT, "the bytes are not a %s", type->short_name);
  }
  *ret = (struct esp_decoded){.arena = limited.arena, .message = message};
  return ESP_OK;
}

enum esp_code esp_decode_spans(const ProtobufCMessageDescriptor *type, const struct esp_span *spans, size_t spans_len,
                               struct esp_decoded *ret, struct esp_status *st) {
  if (spans_len <= 1)
    return esp_decode(type, spans_len == 1 ? spans->data : NULL, spans_len == 1 ? spans->len : 0, ret, st);
  struct esp_cursor cursor = esp_cursor_init(spans, spans_len);
  size_t len = (size_t)cursor.left;
  uint8_t *bytes = esp_malloc(len);
  if (bytes == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a message of %zu bytes", len);
  (void)esp_cursor_copy(&cursor, bytes, len);
  enum esp_code code = esp_decode(type, bytes, len, ret, st);
  esp_free(bytes);
  return code;
}

void esp_page_done(struct esp_page *page) {
  esp_free(page->bytes);
  *page = (struct esp_page){0};
}

static bool page_reserve(struct esp_page *page, size_t len) {
  return esp_grow((void **)&page->bytes, &page->capacity, page->len + len, 1);
}

bool esp_page_add_bytes(struct esp_page *page, const void *bytes, size_t len) {
  if (!page_reserve(page, len))
    return false;
  memcpy(page->bytes + page->len, bytes, len);
  page->len += len;
  return true;
}

static void put_varint(struct esp_page *page, uint64_t value) {
  for (; value >= 0x80; value >>= 7)
    page->bytes[page->len++] = (uint8_t)(value | 0x80);
  page->bytes[page->len++] = (uint8_t)value;
}

bool esp_page_add_head(struct esp_page *page, const ProtobufCMessage *message) {
  if (!page_reserve(page, protobuf_c_message_get_packed_size(message) + 1))
    return false;
  page->len += protobuf_c_message_pack(message, page->bytes + page->len);
  return true;
}

bool esp_page_add(struct esp_page *page, uint32_t field, const ProtobufCMessage *message) {
  size_t len = protobuf_c_message_get_packed_size(message);
  if (!page_reserve(page, TAG_BYTES_MAX + len))
    return false;
  put_varint(page, (uint64_t)field << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED);
  put_varint(page, len);
  page->len += protobuf_c_message_pack(message, page->bytes + page->len);
  return true;
}

bool esp_page_add_text(struct esp_page *page, uint32_t field, const char *text) {
  size_t len = strlen(text);
  if (!page_reserve(page, TAG_BYTES_MAX + len))
    return false;
  put_varint(page, (uint64_t)field << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED);
  put_varint(page, len);
  return esp_page_add_bytes(page, text, len);
}

static void page_free(void *bytes) {
  esp_handoff_take();
  esp_free(bytes);
}

grpc_byte_buffer *esp_page_take(struct esp_page *page) {
  esp_handoff_give();
  grpc_slice slice = page->len == 0 ? grpc_empty_slice() : grpc_slice_new(page->bytes, page->len, page_free);
  if (page->len == 0)
    esp_free(page->bytes);
  *page = (struct esp_page){0};
  grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&slice, 1);
  grpc_slice_unref(slice);
  return buffer;
}
