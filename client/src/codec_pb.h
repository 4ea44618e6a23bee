/* What the codec files share: packing to a buffer, and unpacking into a limited arena, since protobuf-c amplifies. Only
 * codec*.c include it. */
#ifndef ESP_CLIENT_CODEC_PB_H
#define ESP_CLIENT_CODEC_PB_H

#include <protobuf-c/protobuf-c.h>

#include "base/arena.h"
#include "client/src/codec.h"
#include "espalier/v1/admin.pb-c.h"

/* protobuf-c takes strings as char *, and never writes to them; NULL is the empty one. */
char *esp_pb_text(const char *text);
/* Makes room for len more bytes. */
enum esp_code esp_buf_reserve(struct esp_buf *buf, size_t len, struct esp_status *st) ESP_WARN_UNUSED;
void esp_buf_add_varint(struct esp_buf *buf, uint64_t value); /* after esp_buf_reserve */
size_t esp_varint_bytes(uint64_t value);
enum esp_code esp_pb_pack(struct esp_buf *buf, const ProtobufCMessage *message, struct esp_status *st) ESP_WARN_UNUSED;
#define NO_CHUNKS 0 /* no field has this number */
/* Unpacks all but the chunks. The message is in the arena, which this initialises and which is to be done in any case.
 */
enum esp_code esp_pb_unpack(struct esp_in in, uint32_t chunks_field, const ProtobufCMessageDescriptor *descriptor,
                            struct esp_arena *arena, void *ret_message, struct esp_status *st) ESP_WARN_UNUSED;

/* ---- an answer in pages (codec_answer.c) ---- */

/* What a result needs beside itself. The result that the caller gets lies right behind it, in the same block. */
struct esp_answer {
  struct esp_arena arena; /* the strings */
  struct {
    void *items; /* owned; moves while it grows */
    size_t len;
    size_t capacity;
  } lists[2];
};
struct esp_answer_kind {
  const ProtobufCMessageDescriptor *page;
  size_t result_bytes;
  /* Adds a page to the result. RESOURCE_EXHAUSTED without memory, which is said for it. */
  enum esp_code (*add_page)(struct esp_answer *answer, void *result, const void *page, struct esp_status *st);
  const char *name; /* of the result: `out of memory for` it */
};
/* Unpacks a page and adds it to *result, a pointer of the result's own type; a NULL one is made first. */
enum esp_code esp_answer_add_page(const struct esp_answer_kind *kind, struct esp_in in, void *result,
                                  struct esp_status *st) ESP_WARN_UNUSED;
void esp_answer_free(void *result); /* NULL is fine */
/* One more item of a list, zeroed. NULL without memory. */
void *esp_answer_add(struct esp_answer *answer, size_t list, size_t item_bytes);
/* A string of an answer; *ret is "" for an empty one. False without memory. */
bool esp_answer_copy_text(struct esp_answer *answer, const char *text, const char **ret);
/* One more change. */
bool esp_answer_add_change(struct esp_answer *answer, size_t list, const Espalier__V1__Change *from);

/* ---- first values ---- */

/* A first value, and a leaf with one, as the wire has them. They point into themselves and into what they are made of.
 */
struct esp_pb_init {
  Espalier__V1__Initializer init;
  Espalier__V1__Initializer__Uniform uniform;
  Espalier__V1__Initializer__Normal normal;
};
void esp_pb_fill_init(enum esp_leaf_init kind, double a, double b, uint64_t seed, struct esp_pb_init *fill);
struct esp_pb_leaf {
  Espalier__V1__LeafSpec leaf;
  struct esp_pb_init init;
};
void esp_pb_fill_leaf(const struct esp_leaf_spec *spec, struct esp_pb_leaf *fill);

#endif
