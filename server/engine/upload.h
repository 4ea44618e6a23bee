/* Tensors that are arriving, in one buffer: what a push, a stage and a declaration's values have in common. Checks that
 * every tensor is complete, in order and finite. Not thread safe; knows nothing of who sends it. */
#ifndef ESP_ENGINE_UPLOAD_H
#define ESP_ENGINE_UPLOAD_H

#include "engine/budget.h"
#include "engine/engine.h"
#include "engine/map.h"

/* One tensor. */
struct esp_slot {
  uint64_t key;   /* a leaf's id; in a declaration its place + 1 */
  uint64_t bytes; /* of the whole tensor, in the dtype in which it travels */
  uint64_t received;
  uint64_t checked;     /* bytes whose elements were looked at */
  uint64_t nonfinite;   /* index of the first element that is NaN or infinite, or ESP_ALL_FINITE */
  uint8_t *data;        /* in the upload's block, aligned to a cache line */
  enum esp_dtype dtype; /* likewise */
};

#define ESP_ALL_FINITE UINT64_MAX

struct esp_upload {
  uint64_t total_bytes;    /* declared */
  uint64_t slots_declared; /* declared tensors */
  uint64_t received;
  uint64_t assigned;          /* bytes of the tensors that have begun */
  struct esp_budget *staging; /* borrowed: where the block comes from */
  struct esp_block *block;    /* holds all tensors */
  size_t block_used;
  struct esp_slot *slots;
  size_t slots_len;
  struct esp_map map;      /* key to index in slots */
  struct esp_slot *recent; /* the tensor of the last piece */
  enum esp_isa isa;
};

/* What a tensor must be, and its name for messages. */
struct esp_upload_target {
  uint64_t key;
  const char *path;
  enum esp_dtype dtype;
  const struct esp_shape *shape; /* NULL: not known any more */
  uint64_t bytes;                /* in that dtype */
  bool may_be_narrow;            /* a gradient, which the kernels widen: the slot keeps it as it came */
};

/* Whether a tensor of dtype may travel as wire: INVALID_ARGUMENT, naming the leaf; UNIMPLEMENTED for what is narrower
 * and not built. */
enum esp_code esp_travel_check(const char *path, enum esp_dtype dtype, enum esp_dtype wire,
                               struct esp_status *st) ESP_WARN_UNUSED;

/* Memory that the upload will take: to be reserved first. UINT64_MAX where it overflows. */
uint64_t esp_upload_cost(uint64_t total_bytes, uint64_t slots);
enum esp_code esp_upload_init(struct esp_upload *upload, struct esp_budget *staging, uint64_t total_bytes,
                              uint64_t slots, enum esp_isa isa, struct esp_status *st) ESP_WARN_UNUSED;
/* Idempotent. */
void esp_upload_done(struct esp_upload *upload);
/* INVALID_ARGUMENT naming the leaf (and what was expected and got): a description that does not fit the target, a gap
 * or overlap, too many bytes, more bytes or tensors than declared; UNIMPLEMENTED: row-sparse, a narrow gradient for
 * another dtype than f32. */
enum esp_code esp_upload_feed(struct esp_upload *upload, const struct esp_upload_target *target,
                              const struct esp_piece *piece, struct esp_status *st) ESP_WARN_UNUSED;
bool esp_upload_is_whole(const struct esp_upload *upload);
const struct esp_slot *esp_upload_slot(const struct esp_upload *upload, uint64_t key); /* NULL: none */

#endif
