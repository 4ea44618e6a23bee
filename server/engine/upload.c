/* Uploads. A tensor gets its place in the buffer with its first piece; pieces of one tensor come in ascending order.
 * Bytes are copied once, slice by slice, and looked at for NaN and infinity while they are in the cache. A non-finite
 * element is only noted: whether it matters is known at the commit, for the leaf may be frozen by then. */
#include "engine/upload.h"

#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"

/* Where the tensors begin in the block. */
#define BLOCK_HEAD ESP_CACHE_LINE
_Static_assert(sizeof(struct esp_block) <= BLOCK_HEAD, "the block's header lies before the tensors");

uint64_t esp_upload_cost(uint64_t total_bytes, uint64_t slots) {
  uint64_t per_slot = sizeof(struct esp_slot) + ESP_CACHE_LINE + 4 * sizeof(struct esp_map_entry);
  if (slots > UINT64_MAX / 4 / per_slot || total_bytes > UINT64_MAX / 4)
    return UINT64_MAX;
  return total_bytes + slots * per_slot;
}

enum esp_code esp_upload_init(struct esp_upload *upload, struct esp_budget *staging, uint64_t total_bytes,
                              uint64_t slots, enum esp_isa isa, struct esp_status *st) {
  *upload = (struct esp_upload){.total_bytes = total_bytes, .slots_declared = slots, .staging = staging, .isa = isa};
  if (slots == 0)
    return ESP_OK;
  upload->slots = esp_malloc_array(slots, sizeof(*upload->slots));
  upload->block = esp_budget_take(staging, BLOCK_HEAD + total_bytes + slots * ESP_CACHE_LINE);
  if (upload->slots != NULL && upload->block != NULL && esp_map_reserve(&upload->map, slots))
    return ESP_OK;
  esp_upload_done(upload);
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory to stage %" PRIu64 " bytes", total_bytes);
}

void esp_upload_done(struct esp_upload *upload) {
  esp_free(upload->slots);
  esp_budget_give(upload->staging, upload->block);
  esp_map_done(&upload->map);
  *upload = (struct esp_upload){0};
}

const struct esp_slot *esp_upload_slot(const struct esp_upload *upload, uint64_t key) {
  const uintptr_t *index = esp_map_get(&upload->map, key);
  return index == NULL ? NULL : &upload->slots[*index];
}

bool esp_upload_is_whole(const struct esp_upload *upload) {
  return upload->received == upload->total_bytes && upload->slots_len == upload->slots_declared;
}

enum esp_code esp_travel_check(const char *path, enum esp_dtype dtype, enum esp_dtype wire, struct esp_status *st) {
  size_t size = esp_dtype_size(wire);
  if (wire == dtype || (dtype == ESP_DTYPE_F32 && size == sizeof(uint16_t)))
    return ESP_OK;
  if (size > 0 && size < esp_dtype_size(dtype))
    return esp_fail(st, ESP_UNIMPLEMENTED, "leaf %s: dtype %s expected, got %s: only f32 travels narrower yet", path,
                    esp_dtype_name(dtype), esp_dtype_name(wire));
  return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: dtype %s expected, got %s", path,
                  dtype == ESP_DTYPE_F32 ? "f32, bf16 or f16" : esp_dtype_name(dtype), esp_dtype_name(wire));
}

/* The dtype of a tensor's bytes: said with its first piece, or the target's. slot is NULL before that. */
static enum esp_code wire_dtype(const struct esp_slot *slot, const struct esp_upload_target *target,
                                const struct esp_piece *piece, enum esp_dtype *ret, struct esp_status *st) {
  *ret = slot != NULL ? slot->dtype : target->dtype;
  if (piece->dtype == ESP_DTYPE_NONE || piece->dtype == *ret)
    return ESP_OK;
  if (slot != NULL || !target->may_be_narrow)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: dtype %s expected, got %s", target->path, esp_dtype_name(*ret),
                    esp_dtype_name(piece->dtype));
  *ret = piece->dtype;
  return esp_travel_check(target->path, target->dtype, piece->dtype, st);
}

/* What else the sender says of the tensor, if anything, must be what the leaf is. */
static enum esp_code check_description(const struct esp_upload_target *target, const struct esp_piece *piece,
                                       uint64_t bytes, struct esp_status *st) {
  char expected[ESP_SHAPE_TEXT_MAX], got[ESP_SHAPE_TEXT_MAX];
  if (piece->rows_len > 0)
    return esp_fail(st, ESP_UNIMPLEMENTED, "leaf %s: row-sparse tensors are not built yet", target->path);
  if (piece->has_shape && target->shape != NULL && !esp_shape_equal(&piece->shape, target->shape))
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: shape %s expected, got %s", target->path,
                    esp_shape_print(target->shape, expected), esp_shape_print(&piece->shape, got));
  if (piece->tensor_bytes != 0 && piece->tensor_bytes != bytes)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: %" PRIu64 " bytes expected, got %" PRIu64, target->path, bytes,
                    piece->tensor_bytes);
  return ESP_OK;
}

static enum esp_code slot_begin(struct esp_upload *upload, const struct esp_upload_target *target, enum esp_dtype dtype,
                                uint64_t bytes, struct esp_status *st) {
  if (upload->slots_len == upload->slots_declared)
    return esp_fail(st, ESP_INVALID_ARGUMENT,
                    "leaf %s is one more than the %" PRIu64 " leaves that the header declares", target->path,
                    upload->slots_declared);
  if (bytes > upload->total_bytes - upload->assigned)
    return esp_fail(st, ESP_INVALID_ARGUMENT,
                    "leaf %s: its %" PRIu64 " bytes do not fit: the header declares %" PRIu64 " in all, and %" PRIu64
                    " belong to other leaves",
                    target->path, bytes, upload->total_bytes, upload->assigned);
  ESP_CHECK(upload->slots != NULL); /* one is declared */
  struct esp_slot *slot = &upload->slots[upload->slots_len];
  *slot = (struct esp_slot){.key = target->key,
                            .bytes = bytes,
                            .nonfinite = ESP_ALL_FINITE,
                            .data = (uint8_t *)upload->block + BLOCK_HEAD + upload->block_used,
                            .dtype = dtype};
  esp_map_put(&upload->map, target->key, upload->slots_len++);
  upload->assigned += bytes;
  upload->block_used += (bytes + ESP_CACHE_LINE - 1) / ESP_CACHE_LINE * ESP_CACHE_LINE;
  upload->recent = slot;
  return ESP_OK;
}

/* The tensor's slot becomes the recent one; NULL where it has none yet. */
static struct esp_slot *slot_find(struct esp_upload *upload, uint64_t key) {
  if (upload->recent != NULL && upload->recent->key == key)
    return upload->recent;
  const uintptr_t *index = esp_map_get(&upload->map, key);
  if (index == NULL)
    return NULL;
  upload->recent = &upload->slots[*index];
  return upload->recent;
}

/* Finds the piece's tensor, or begins it. */
static enum esp_code slot_of(struct esp_upload *upload, const struct esp_upload_target *target,
                             const struct esp_piece *piece, struct esp_status *st) {
  const struct esp_slot *slot = slot_find(upload, target->key);
  if (slot != NULL && !piece->has_tensor)
    return ESP_OK;
  enum esp_dtype dtype;
  enum esp_code code = wire_dtype(slot, target, piece, &dtype, st);
  if (code != ESP_OK)
    return code;
  uint64_t bytes = target->bytes / esp_dtype_size(target->dtype) * esp_dtype_size(dtype);
  code = check_description(target, piece, bytes, st);
  return code != ESP_OK || slot != NULL ? code : slot_begin(upload, target, dtype, bytes, st);
}

/* Looks at the elements that are complete; the rest of one that a cut splits waits for the next piece. */
static void slot_check(struct esp_slot *slot, enum esp_isa isa) {
  size_t size = esp_dtype_size(slot->dtype);
  uint64_t end = slot->received / size * size;
  if (slot->nonfinite == ESP_ALL_FINITE && end > slot->checked) {
    size_t n = (size_t)(end - slot->checked) / size;
    size_t bad = esp_finite_check(isa, slot->dtype, n, slot->data + slot->checked);
    if (bad < n)
      slot->nonfinite = slot->checked / size + bad;
  }
  slot->checked = end;
}

enum esp_code esp_upload_feed(struct esp_upload *upload, const struct esp_upload_target *target,
                              const struct esp_piece *piece, struct esp_status *st) {
  enum esp_code code = slot_of(upload, target, piece, st);
  if (code != ESP_OK)
    return code;
  struct esp_slot *slot = upload->recent;
  if (slot->received == slot->bytes)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s was sent twice", target->path);
  if (piece->offset != slot->received)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: offset %" PRIu64 " expected, got %" PRIu64, target->path,
                    slot->received, piece->offset);
  if (piece->data.left > slot->bytes - slot->received)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: %" PRIu64 " bytes expected, got %" PRIu64 " or more",
                    target->path, slot->bytes, slot->received + piece->data.left);
  struct esp_cursor cursor = piece->data;
  struct esp_span span;
  while (esp_cursor_take(&cursor, SIZE_MAX, &span)) {
    memcpy(slot->data + slot->received, span.data, span.len);
    slot->received += span.len;
    upload->received += span.len;
    slot_check(slot, upload->isa);
  }
  if (upload->received == upload->total_bytes && upload->slots_len < upload->slots_declared)
    return esp_fail(st, ESP_INVALID_ARGUMENT,
                    "all %" PRIu64 " bytes have come, but only %zu of the %" PRIu64 " leaves that the header declares",
                    upload->total_bytes, upload->slots_len, upload->slots_declared);
  return ESP_OK;
}
