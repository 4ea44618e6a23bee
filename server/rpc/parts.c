/* Joining submessages: the parts of one, in their order, behind each other are that submessage; it takes the place of
 * the last. Of a oneof, what came before another member does not count. */
#include "rpc/parts.h"

#include "base/check.h"

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

bool esp_field_take(const uint8_t **at, const uint8_t *end, const ProtobufCMessageDescriptor *type,
                    struct esp_field *ret) {
  uint64_t tag, value = 0;
  *ret = (struct esp_field){.begin = *at};
  const uint8_t *next = *at;
  if (!take_varint(&next, end, &tag))
    return false;
  unsigned wire_type = tag & 7;
  ret->payload = next;
  if (wire_type == PROTOBUF_C_WIRE_TYPE_64BIT) {
    value = 8;
  } else if (wire_type == PROTOBUF_C_WIRE_TYPE_32BIT) {
    value = 4;
  } else if (wire_type == PROTOBUF_C_WIRE_TYPE_VARINT || wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED) {
    if (!take_varint(&next, end, &value))
      return false;
  } else {
    return false;
  }
  if (wire_type == PROTOBUF_C_WIRE_TYPE_VARINT)
    value = (uint64_t)(next - ret->payload); /* it is the payload */
  else
    ret->payload = next;
  if (value > (uint64_t)(end - ret->payload))
    return false;
  ret->number = tag >> 3;
  ret->len = (size_t)value;
  ret->descriptor =
      ret->number > UINT32_MAX ? NULL : protobuf_c_message_descriptor_get_field(type, (unsigned)ret->number);
  bool is_known = ret->descriptor != NULL && wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
  ret->is_text = is_known && ret->descriptor->type == PROTOBUF_C_TYPE_STRING;
  ret->is_message = is_known && ret->descriptor->type == PROTOBUF_C_TYPE_MESSAGE;
  *at = ret->payload + ret->len;
  return true;
}

uint64_t esp_field_bit(const ProtobufCMessageDescriptor *type, const struct esp_field *field) {
  ESP_CHECK(type->n_fields <= 64);
  if (!field->is_message || field->descriptor->label == PROTOBUF_C_LABEL_REPEATED)
    return 0;
  return UINT64_C(1) << (field->descriptor - type->fields);
}

static bool is_rival(const ProtobufCFieldDescriptor *field, const ProtobufCFieldDescriptor *other) {
  return (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 && other != NULL && other != field &&
         (other->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 && other->quantifier_offset == field->quantifier_offset;
}

/* Appends the payloads of a field that has come for the last time at `end`. */
static bool gather(const ProtobufCMessageDescriptor *type, const ProtobufCFieldDescriptor *descriptor,
                   const uint8_t *at, const uint8_t *end, struct esp_page *page) {
  struct esp_field field;
  while (at < end && esp_field_take(&at, end, type, &field)) {
    if (is_rival(descriptor, field.descriptor))
      page->len = 0;
    else if (field.is_message && field.descriptor == descriptor && !esp_page_add_bytes(page, field.payload, field.len))
      return false;
  }
  return true;
}

/* Appends a field that is a message, after joining what is in it. */
static bool add_message(const struct esp_field *field, const uint8_t *bytes, size_t len, struct esp_page *page) {
  struct esp_page inner = {0};
  bool ok = esp_parts_join(field->descriptor->descriptor, bytes, len, &inner) &&
            esp_page_add_varint(page, field->number << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED) &&
            esp_page_add_varint(page, inner.len) && esp_page_add_bytes(page, inner.bytes, inner.len);
  esp_page_done(&inner);
  return ok;
}

static bool add_joined(const ProtobufCMessageDescriptor *type, const struct esp_field *field, const uint8_t *bytes,
                       struct esp_page *page) {
  struct esp_page joined = {0};
  bool ok = gather(type, field->descriptor, bytes, field->payload + field->len, &joined) &&
            add_message(field, joined.len > 0 ? joined.bytes : field->payload, joined.len, page); /* never NULL */
  esp_page_done(&joined);
  return ok;
}

/* Counts how often each field of one submessage comes. */
static void count(const ProtobufCMessageDescriptor *type, const uint8_t *at, const uint8_t *end, size_t times[64]) {
  struct esp_field field;
  while (esp_field_take(&at, end, type, &field)) {
    if (esp_field_bit(type, &field) != 0)
      times[field.descriptor - type->fields]++;
  }
}

bool esp_parts_join(const ProtobufCMessageDescriptor *type, const uint8_t *bytes, size_t len, struct esp_page *page) {
  const uint8_t *at = bytes, *end = bytes + len;
  size_t left[64] = {0};
  struct esp_field field;
  bool ok = true;
  count(type, bytes, end, left);
  while (ok && esp_field_take(&at, end, type, &field)) {
    if (!field.is_message)
      ok = esp_page_add_bytes(page, field.begin, (size_t)(at - field.begin));
    else if (esp_field_bit(type, &field) == 0)
      ok = add_message(&field, field.payload, field.len, page);
    else if (--left[field.descriptor - type->fields] == 0)
      ok = add_joined(type, &field, bytes, page);
  }
  return ok;
}
