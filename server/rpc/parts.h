/* Encoded messages, field by field. A submessage may come in parts, anywhere among the other fields, and means all of
 * them; protobuf-c 1.4.1 loses numbers of one where there are two, so parts are joined before it sees them. */
#ifndef ESP_RPC_PARTS_H
#define ESP_RPC_PARTS_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/codec.h"

struct esp_field {
  uint64_t number;
  const ProtobufCFieldDescriptor *descriptor; /* NULL: unknown */
  const uint8_t *begin;                       /* of its tag; all are borrowed */
  const uint8_t *payload;                     /* what follows tag and length */
  size_t len;                                 /* of the payload */
  bool is_text;                               /* the payload is a string that the message knows */
  bool is_message;                            /* or a message */
};

/* Takes the next field; false at the end, or where the bytes are no field. */
bool esp_field_take(const uint8_t **at, const uint8_t *end, const ProtobufCMessageDescriptor *type,
                    struct esp_field *ret);
/* A bit for each field of a message that holds one submessage; 0 for other fields. */
uint64_t esp_field_bit(const ProtobufCMessageDescriptor *type, const struct esp_field *field);

/* Appends the message, whose bytes are well-formed, to the page with each submessage in one part. Its length is at most
 * the message's, a few bytes for each that was in parts aside. False without memory. */
bool esp_parts_join(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t len, struct esp_page *page);

#endif
