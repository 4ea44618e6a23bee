/* Unpacking what a peer sent, and packing what goes back.
 *
 * Happy path: the bytes are walked once by the message's descriptor, to find strings that protobuf-c would accept and
 * silently shorten, and submessages in parts (parts.h); they are then unpacked into an arena whose limit follows from
 * the message's size, since unpacking amplifies: an empty submessage is two bytes on the wire and a hundred in memory.
 *
 * How it fails: by a status; whatever was allocated lies in the arena and goes with it. */
#include "rpc/codec.h"

#include <string.h>

#include "base/alloc.h"
#include "base/handoff.h"
#include "base/utf8.h"
#include "rpc/parts.h"

#define AMPLIFICATION_MAX 32
#define ARENA_BYTES_MIN 65536
#define VARINT_BYTES_MAX 10

void esp_decoded_done(struct esp_decoded *decoded) {
  esp_arena_done(&decoded->arena);
  decoded->message = NULL;
}

static enum esp_code fail_bytes(const ProtobufCMessageDescriptor *type, struct esp_status *st) {
  return esp_fail(st, ESP_INVALID_ARGUMENT, "the bytes are not a %s", type->short_name);
}

/* Checks that a message is made of fields and that its strings are text, and looks for submessages in parts. A field
 * number of 0 is refused in any encoding: protobuf-c takes one in more bytes than it needs. The descriptors of our
 * messages are not recursive, so neither is this beyond a few levels. */
static enum esp_code check(const ProtobufCMessageDescriptor *type, const uint8_t *at, size_t len, bool *ret_in_parts,
                           struct esp_status *st) {
  const uint8_t *end = at + len;
  struct esp_field field;
  uint64_t seen = 0; /* a bit for each field of the message that holds one submessage */
  while (esp_field_take(&at, end, type, &field)) {
    if (field.number == 0)
      return fail_bytes(type, st);
    if (field.is_text && !esp_utf8_is_text((const char *)field.payload, field.len))
      return esp_fail(st, ESP_INVALID_ARGUMENT, "field %s of %s is not UTF-8 text without a NUL",
                      field.descriptor->name, type->short_name);
    if (!field.is_message)
      continue;
    *ret_in_parts |= (seen & esp_field_bit(type, &field)) != 0;
    seen |= esp_field_bit(type, &field);
    enum esp_code code = check(field.descriptor->descriptor, field.payload, field.len, ret_in_parts, st);
    if (code != ESP_OK)
      return code;
  }
  return at == end ? ESP_OK : fail_bytes(type, st);
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

static enum esp_code unpack(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t len,
                            struct esp_decoded *ret, struct esp_status *st) {
  struct limited limited = {0};
  esp_arena_init(&limited.arena, ARENA_BYTES_MIN + len * AMPLIFICATION_MAX);
  ProtobufCAllocator allocator = {.alloc = arena_alloc, .free = arena_free, .allocator_data = &limited};
  ProtobufCMessage *message = protobuf_c_message_unpack(type, &allocator, len, bytes);
  if (message == NULL) {
    esp_arena_done(&limited.arena);
    return limited.failed
               ? esp_fail(st, ESP_RESOURCE_EXHAUSTED, "a %s of %zu bytes needs too much memory", type->short_name, len)
               : fail_bytes(type, st);
  }
  *ret = (struct esp_decoded){.arena = limited.arena, .message = message};
  return ESP_OK;
}

enum esp_code esp_decode(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t len,
                         struct esp_decoded *ret, struct esp_status *st) {
  bool in_parts = false;
  enum esp_code code = check(type, bytes, len, &in_parts, st);
  if (code != ESP_OK || !in_parts)
    return code == ESP_OK ? unpack(type, bytes, len, ret, st) : code;
  struct esp_page joined = {0};
  code = esp_parts_join(type, bytes, len, &joined)
             ? unpack(type, joined.bytes, joined.len, ret, st)
             : esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a message of %zu bytes", len);
  esp_page_done(&joined);
  return code;
}

enum esp_code esp_decode_spans(const ProtobufCMessageDescriptor *type, const struct esp_span *spans, size_t spans_len,
                               struct esp_decoded *ret, struct esp_status *st) {
  if (spans_len <= 1)
    return esp_decode(type, spans_len == 1 ? spans->data : (const uint8_t *)"", spans_len == 1 ? spans->len : 0, ret,
                      st);
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
  if (len > 0) /* of nothing, either pointer may be NULL */
    memcpy(page->bytes + page->len, bytes, len);
  page->len += len;
  return true;
}

bool esp_page_add_varint(struct esp_page *page, uint64_t value) {
  if (!page_reserve(page, VARINT_BYTES_MAX))
    return false;
  for (; value >= 0x80; value >>= 7)
    page->bytes[page->len++] = (uint8_t)(value | 0x80);
  page->bytes[page->len++] = (uint8_t)value;
  return true;
}

static bool page_add_tag(struct esp_page *page, uint32_t field, size_t len) {
  return page_reserve(page, 2 * VARINT_BYTES_MAX + len) &&
         esp_page_add_varint(page, (uint64_t)field << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED) &&
         esp_page_add_varint(page, len);
}

bool esp_page_add_head(struct esp_page *page, const ProtobufCMessage *message) {
  if (!page_reserve(page, protobuf_c_message_get_packed_size(message) + 1))
    return false;
  page->len += protobuf_c_message_pack(message, page->bytes + page->len);
  return true;
}

bool esp_page_add(struct esp_page *page, uint32_t field, const ProtobufCMessage *message) {
  size_t len = protobuf_c_message_get_packed_size(message);
  if (!page_add_tag(page, field, len))
    return false;
  page->len += protobuf_c_message_pack(message, page->bytes + page->len);
  return true;
}

bool esp_page_add_text(struct esp_page *page, uint32_t field, const char *text) {
  size_t len = strlen(text);
  return page_add_tag(page, field, len) && esp_page_add_bytes(page, text, len);
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
