/* Messages between gRPC's byte buffers and protobuf-c. Pure functions on memory; any thread. */
#ifndef ESP_RPC_CODEC_H
#define ESP_RPC_CODEC_H

#include <espalier/status.h>

#include <grpc/grpc.h>
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/span.h"

/* A message that was unpacked: everything in it lives in the arena, which decode begins and the caller ends. */
struct esp_decoded {
  struct esp_arena arena;
  ProtobufCMessage *message; /* NULL where nothing is decoded */
};
void esp_decoded_done(struct esp_decoded *decoded); /* idempotent; of a zeroed one too */

/* Unpacks bytes as a message of this type. INVALID_ARGUMENT where they are none, or where a string holds a NUL or is
 * not UTF-8 (names the field); RESOURCE_EXHAUSTED without memory, or where the message would unpack to far more than it
 * is. */
enum esp_code esp_decode(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t len,
                         struct esp_decoded *ret, struct esp_status *st) ESP_WARN_UNUSED;
/* The same of bytes in pieces. */
enum esp_code esp_decode_spans(const ProtobufCMessageDescriptor *type, const struct esp_span *spans, size_t spans_len,
                               struct esp_decoded *ret, struct esp_status *st) ESP_WARN_UNUSED;

/* An encoded message that grows by fields: what is appended twice is merged, as protobuf has it. */
struct esp_page {
  uint8_t *bytes; /* owned */
  size_t len;
  size_t capacity;
};
void esp_page_done(struct esp_page *page); /* idempotent */
/* These return false, with the page as it was, without memory. */
bool esp_page_add_bytes(struct esp_page *page, const void *bytes, size_t len);
bool esp_page_add_varint(struct esp_page *page, uint64_t value);
bool esp_page_add_head(struct esp_page *page, const ProtobufCMessage *message);            /* its fields as they are */
bool esp_page_add(struct esp_page *page, uint32_t field, const ProtobufCMessage *message); /* as one submessage */
bool esp_page_add_text(struct esp_page *page, uint32_t field, const char *text);           /* as one string */
/* The page's bytes as a buffer to send, without a copy; the page is empty after it. */
grpc_byte_buffer *esp_page_take(struct esp_page *page);

#endif
