/* rpc/codec.c and parts.c: each request that the server unpacks. What is taken holds only text, packs to a message that
 * unpacks to the same, and is what protobuf-c reads without our limits, of the message whose parts are joined (where
 * there are none that is the message itself). */
#include <espalier/v1/admin.pb-c.h>
#include <espalier/v1/parameter_server.pb-c.h>

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "rpc/codec.h"
#include "rpc/parts.h"
#include "tests/fuzz/fuzz.h"

static const ProtobufCMessageDescriptor *const requests[] = {
    &espalier__v1__join_request__descriptor,      &espalier__v1__leave_request__descriptor,
    &espalier__v1__heartbeat_request__descriptor, &espalier__v1__declare_request__descriptor,
    &espalier__v1__push_request__descriptor,      &espalier__v1__pull_request__descriptor,
    &espalier__v1__stream_request__descriptor,    &espalier__v1__watch_request__descriptor,
    &espalier__v1__stage_request__descriptor,     &espalier__v1__apply_request__descriptor,
    &espalier__v1__describe_request__descriptor,  &espalier__v1__server_info_request__descriptor,
    &espalier__v1__save_request__descriptor,      &espalier__v1__load_request__descriptor,
    &espalier__v1__workers_request__descriptor,   &espalier__v1__history_request__descriptor,
    &espalier__v1__timers_request__descriptor,
};

static void check_texts(const ProtobufCMessage *message);

/* One value of a field that has text or a message in it. */
static void check_value(const ProtobufCFieldDescriptor *field, const void *member) {
  if (field->type == PROTOBUF_C_TYPE_STRING) {
    const char *text = *(const char *const *)member;
    ESP_CHECK(text == NULL || esp_fuzz_is_utf8(text, strlen(text)));
  } else if (*(const ProtobufCMessage *const *)member != NULL) {
    check_texts(*(const ProtobufCMessage *const *)member);
  }
}

/* Every string of the message is text. */
static void check_texts(const ProtobufCMessage *message) {
  const char *bytes = (const char *)message;
  for (unsigned i = 0; i < message->descriptor->n_fields; i++) {
    const ProtobufCFieldDescriptor *field = &message->descriptor->fields[i];
    if (field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE)
      continue;
    const char *member = bytes + field->offset;
    size_t quantity = 0;
    memcpy(&quantity, bytes + field->quantifier_offset,
           field->label == PROTOBUF_C_LABEL_REPEATED ? sizeof quantity : 0);
    bool is_absent_choice = (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 &&
                            *(const uint32_t *)(bytes + field->quantifier_offset) != field->id;
    if (field->label != PROTOBUF_C_LABEL_REPEATED && !is_absent_choice)
      check_value(field, member);
    for (size_t k = 0; k < quantity; k++)
      check_value(field, *(char *const *)member + k * sizeof(void *));
  }
}

/* A block of the message packed; esp_free it. */
static struct esp_span pack(const ProtobufCMessage *message) {
  size_t len = protobuf_c_message_get_packed_size(message);
  uint8_t *bytes = esp_malloc(len);
  ESP_CHECK(bytes != NULL && protobuf_c_message_pack(message, bytes) == len);
  return (struct esp_span){.data = bytes, .len = len};
}

static void check_packs_to(const ProtobufCMessage *message, struct esp_span expected) {
  ESP_CHECK(message != NULL);
  struct esp_span packed = pack(message);
  ESP_CHECK(packed.len == expected.len && memcmp(packed.data, expected.data, packed.len) == 0);
  esp_free((void *)(uintptr_t)packed.data);
}

static void check_decoded(const ProtobufCMessageDescriptor *type, const struct esp_decoded *decoded,
                          struct esp_fuzz_input bytes) {
  check_texts(decoded->message);
  struct esp_span packed = pack(decoded->message);
  struct esp_page joined = {0};
  ESP_CHECK(esp_parts_join(type, bytes.at, bytes.left, &joined));
  ProtobufCMessage *unlimited = protobuf_c_message_unpack(type, NULL, joined.len, joined.bytes);
  check_packs_to(unlimited, packed);
  protobuf_c_message_free_unpacked(unlimited, NULL);
  esp_page_done(&joined);
  struct esp_decoded again = {0};
  struct esp_status st;
  if (esp_decode(type, packed.data, packed.len, &again, &st) == ESP_OK)
    check_packs_to(again.message, packed);
  else
    ESP_CHECK(st.code == ESP_RESOURCE_EXHAUSTED); /* packing may be shorter, and the limit with it */
  esp_decoded_done(&again);
  esp_free((void *)(uintptr_t)packed.data);
}

/* The first byte is the type, the second where the rest is cut in two. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  size_t live = esp_alloc_live();
  struct esp_fuzz_input input = {.at = data, .left = size};
  const ProtobufCMessageDescriptor *type = requests[esp_fuzz_below(&input, sizeof requests / sizeof requests[0])];
  const uint8_t cut = esp_fuzz_byte(&input);
  struct esp_fuzz_spans spans;
  esp_fuzz_cut(&spans, &cut, 1, input);
  struct esp_decoded decoded = {0};
  struct esp_status st;
  enum esp_code code = esp_decode_spans(type, spans.spans, spans.len, &decoded, &st);
  if (code == ESP_OK) {
    check_decoded(type, &decoded, input);
  } else {
    esp_fuzz_check_failure(code, &st);
    ESP_CHECK(code == ESP_INVALID_ARGUMENT || code == ESP_RESOURCE_EXHAUSTED);
    ESP_CHECK(decoded.message == NULL);
  }
  esp_decoded_done(&decoded);
  esp_fuzz_spans_done(&spans);
  ESP_CHECK(esp_alloc_live() == live);
  return 0;
}
