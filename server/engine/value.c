/* Values. A buffer is current (a parameter's value) or retired (kept by pins only). A current one that is pinned has a
 * spare of its size; an update takes that, and what it leaves behind is freed with the last pin. With the last pin of a
 * current one its spare goes, so readers cost nothing once they have ended. */
#include "engine/value.h"

#include <inttypes.h>
#include <string.h>

#include "base/check.h"
#include "base/transpose.h"

static void buffer_free(struct esp_buffer *buffer) {
  if (buffer != NULL)
    esp_budget_give(&buffer->world->copies, &buffer->block);
}

static void buffer_init(struct esp_buffer *buffer, struct esp_world *world, size_t len) {
  buffer->world = world;
  buffer->spare = NULL;
  buffer->len = len;
  buffer->pins = 0;
  buffer->is_current = true;
}

struct esp_buffer *esp_buffer_new(struct esp_world *world, size_t len) {
  if (len > SIZE_MAX / 2)
    return NULL;
  struct esp_buffer *buffer = (struct esp_buffer *)esp_block_new(sizeof(*buffer) + len);
  if (buffer != NULL)
    buffer_init(buffer, world, len);
  return buffer;
}

static struct esp_buffer *spare_new(struct esp_world *world, size_t len) {
  struct esp_buffer *buffer = (struct esp_buffer *)esp_budget_take(&world->copies, sizeof(*buffer) + len);
  if (buffer != NULL)
    buffer_init(buffer, world, len);
  return buffer;
}

struct esp_buffer *esp_buffer_target(struct esp_buffer *current) {
  /* Pins don't appear while this runs. The acquire pairs with the last reader's release: its reads are over. */
  if (atomic_load_explicit(&current->pins, memory_order_acquire) == 0)
    return current;
  struct esp_buffer *target = current;
  pthread_mutex_lock(&current->world->values_lock);
  if (current->pins > 0) {
    target = current->spare;
    current->spare = NULL;
  }
  pthread_mutex_unlock(&current->world->values_lock);
  ESP_CHECK(target != NULL);
  return target;
}

void esp_buffer_retire(struct esp_buffer *buffer) {
  if (buffer == NULL)
    return;
  pthread_mutex_lock(&buffer->world->values_lock);
  buffer->is_current = false;
  struct esp_buffer *spare = buffer->spare;
  buffer->spare = NULL;
  bool is_free = buffer->pins == 0;
  pthread_mutex_unlock(&buffer->world->values_lock);
  buffer_free(spare);
  if (is_free)
    buffer_free(buffer);
}

static bool buffer_pin(struct esp_buffer *current) {
  struct esp_world *world = current->world;
  pthread_mutex_lock(&world->values_lock);
  bool is_pinned = current->pins > 0;
  current->pins += is_pinned;
  pthread_mutex_unlock(&world->values_lock);
  if (is_pinned)
    return true; /* the first pin has provided the spare */
  struct esp_buffer *spare = spare_new(world, current->len);
  if (spare == NULL)
    return false;
  pthread_mutex_lock(&world->values_lock);
  current->spare = spare;
  current->pins = 1;
  pthread_mutex_unlock(&world->values_lock);
  return true;
}

static void buffer_unpin(struct esp_buffer *buffer) {
  struct esp_buffer *spare = NULL;
  pthread_mutex_lock(&buffer->world->values_lock);
  bool is_last = atomic_fetch_sub_explicit(&buffer->pins, 1, memory_order_release) == 1;
  if (is_last) {
    spare = buffer->spare;
    buffer->spare = NULL;
  }
  bool is_free = is_last && !buffer->is_current;
  pthread_mutex_unlock(&buffer->world->values_lock);
  buffer_free(spare);
  if (is_free)
    buffer_free(buffer);
}

/* ---- holds ---- */

uint64_t esp_hold_cost(uint64_t len) {
  return sizeof(struct esp_hold) + sizeof(struct esp_buffer) + len;
}

/* Where the bytes of a copy begin in its block. */
#define COPY_HEAD ESP_CACHE_LINE
_Static_assert(sizeof(struct esp_block) <= COPY_HEAD, "the block's header lies before the bytes");

uint64_t esp_hold_cost_copied(uint64_t len, uint64_t copy_len) {
  return esp_hold_cost(len) + COPY_HEAD + copy_len;
}

static enum esp_code narrow(enum esp_isa isa, const struct esp_seen *seen, const void *from, void *out,
                            struct esp_status *st) {
  uint64_t index;
  if (esp_narrow(isa, seen->wire_dtype, seen->rows, seen->cols, from, seen->transposed, out, &index))
    return ESP_OK;
  return esp_fail(st, ESP_OUT_OF_RANGE, "element %" PRIu64 " is too large for %s", index,
                  esp_dtype_name(seen->wire_dtype));
}

enum esp_code esp_hold_copy(struct esp_hold *hold, const struct esp_seen *seen, struct esp_status *st) {
  size_t size = esp_dtype_size(seen->dtype), elements = (size_t)(seen->rows * seen->cols);
  struct esp_buffer *buffer = hold->buffer;
  ESP_CHECK(buffer != NULL && buffer->len == elements * size);
  hold->copy = esp_budget_take(&hold->world->copies, COPY_HEAD + elements * esp_dtype_size(seen->wire_dtype));
  if (hold->copy == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a copy as it is to be sent");
  void *out = (uint8_t *)hold->copy + COPY_HEAD;
  enum esp_code code = ESP_OK;
  if (seen->wire_dtype != seen->dtype)
    code = narrow(hold->world->isa, seen, buffer->data, out, st);
  else
    esp_transpose(size, seen->rows, seen->cols, buffer->data, 0, elements, out);
  hold->buffer = NULL;
  buffer_unpin(buffer);
  return code;
}

const void *esp_hold_bytes(const struct esp_hold *hold) {
  return hold->copy != NULL ? (const uint8_t *)hold->copy + COPY_HEAD : hold->buffer->data;
}

struct esp_hold *esp_hold_new(struct esp_world *world) {
  struct esp_hold *hold = esp_malloc(sizeof(*hold));
  if (hold != NULL)
    *hold = (struct esp_hold){.refs = 1, .world = world};
  return hold;
}

bool esp_hold_pin(struct esp_hold *hold, struct esp_buffer *current) {
  ESP_CHECK(hold->buffer == NULL && hold->bytes >= esp_hold_cost(current->len));
  if (!buffer_pin(current))
    return false;
  hold->buffer = current;
  return true;
}

void esp_hold_ref(struct esp_hold *hold) {
  atomic_fetch_add_explicit(&hold->refs, 1, memory_order_relaxed);
}

static void hold_answer(struct esp_job *job, unsigned share) {
  (void)share;
  struct esp_hold *hold = (struct esp_hold *)((char *)job - offsetof(struct esp_hold, job));
  esp_budget_grant(&hold->world->copies);
  esp_free(hold);
}

void esp_hold_unref(struct esp_hold *hold) {
  if (hold == NULL || atomic_fetch_sub_explicit(&hold->refs, 1, memory_order_acq_rel) != 1)
    return;
  if (hold->buffer != NULL)
    buffer_unpin(hold->buffer);
  if (hold->copy != NULL)
    esp_budget_give(&hold->world->copies, hold->copy);
  if (!esp_budget_return(&hold->world->copies, hold->bytes)) {
    esp_free(hold);
    return;
  }
  /* This may be one of gRPC's threads, in which nobody else may be called. */
  hold->job = (struct esp_job){.run = hold_answer, .shares = 1};
  esp_pool_submit(hold->world->pool, &hold->job);
}
