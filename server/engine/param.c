/* Parameters. An item begins (where it writes is chosen), runs in one or many shares, and ends (the new value is
 * published, counters go up). An update whose value is pinned writes to the spare buffer, which the pin provided: so an
 * update never waits for a reader and never fails, and a reader is what pays for copy on write. */
#include "engine/param.h"

#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/check.h"

static struct esp_buffer *buffer_new(struct esp_world *world, size_t len) {
  if (len > SIZE_MAX - sizeof(struct esp_buffer))
    return NULL;
  struct esp_buffer *buffer = esp_calloc_aligned(sizeof(*buffer) + len);
  if (buffer == NULL)
    return NULL;
  buffer->refs = 1;
  buffer->world = world;
  buffer->len = len;
  atomic_fetch_add(&world->bytes_values, len);
  return buffer;
}

void esp_pin_ref(struct esp_buffer *buffer) {
  atomic_fetch_add_explicit(&buffer->refs, 1, memory_order_relaxed);
}

void esp_pin_unref(struct esp_buffer *buffer) {
  if (buffer == NULL || atomic_fetch_sub_explicit(&buffer->refs, 1, memory_order_acq_rel) != 1)
    return;
  atomic_fetch_sub(&buffer->world->bytes_values, buffer->len);
  esp_free(buffer);
}

/* State tensors begin on cache lines. */
static size_t state_stride(const struct esp_param *param) {
  return (param->bytes + ESP_CACHE_LINE - 1) / ESP_CACHE_LINE * ESP_CACHE_LINE;
}

size_t esp_param_state_bytes(const struct esp_param *param) {
  return state_stride(param) * param->states_len;
}

static void param_destroy(struct esp_object *object) {
  struct esp_param *param = (struct esp_param *)object;
  ESP_CHECK(param->first == NULL && !param->running);
  esp_pin_unref(param->value);
  esp_pin_unref(param->spare);
  atomic_fetch_sub(&param->world->bytes_params, param->bytes);
  atomic_fetch_sub(&param->world->bytes_state, esp_param_state_bytes(param));
  esp_free(param->state);
  esp_free(param->wide);
  pthread_mutex_destroy(&param->lock);
  esp_free(param);
}

struct esp_param *esp_param_new(struct esp_world *world, enum esp_dtype dtype, uint64_t elements) {
  struct esp_param *param = esp_calloc(1, sizeof(*param));
  if (param == NULL)
    return NULL;
  param->object.refs = 1;
  param->object.destroy = param_destroy;
  param->world = world;
  param->elements = elements;
  param->bytes = elements * esp_dtype_size(dtype);
  param->dtype = dtype;
  param->version = 1;
  pthread_mutex_init(&param->lock, NULL);
  atomic_fetch_add(&world->bytes_params, param->bytes);
  param->value = buffer_new(world, param->bytes);
  if (elements > ESP_SHARE_ELEMENTS)
    param->wide = esp_calloc(1, sizeof(*param->wide));
  if (param->value == NULL || (elements > ESP_SHARE_ELEMENTS && param->wide == NULL)) {
    esp_object_unref(&param->object);
    return NULL;
  }
  if (param->wide != NULL)
    param->wide->param = param;
  return param;
}

bool esp_param_add_states(struct esp_param *param, size_t states_len) {
  ESP_CHECK(param->state == NULL && states_len <= ESP_OPTIM_STATES_MAX);
  if (states_len == 0)
    return true;
  if (state_stride(param) > SIZE_MAX / states_len)
    return false;
  param->state = esp_calloc_aligned(state_stride(param) * states_len);
  if (param->state == NULL)
    return false;
  param->states_len = (unsigned)states_len;
  atomic_fetch_add(&param->world->bytes_state, esp_param_state_bytes(param));
  return true;
}

/* ---- running one item ---- */

static bool item_writes(const struct esp_item *item) {
  return item->kind == ESP_ITEM_STEP || item->kind == ESP_ITEM_WRITE || item->kind == ESP_ITEM_FILL;
}

static bool item_is_wide(const struct esp_item *item) {
  return item->param->wide != NULL && (item_writes(item) || item->kind == ESP_ITEM_RESET);
}

/* Chooses where the item writes. The acquire pairs with the last reader's release: its reads are over. */
static void item_begin(struct esp_item *item, struct esp_step *step) {
  struct esp_param *param = item->param;
  if (item->kind == ESP_ITEM_STEP)
    esp_optim_step_init(item->step.optim, param->steps + 1, step);
  if (!item_writes(item))
    return;
  if (atomic_load_explicit(&param->value->refs, memory_order_acquire) == 1) {
    esp_pin_unref(param->spare);
    param->out = param->value;
  } else {
    ESP_CHECK(param->spare != NULL);
    param->out = param->spare;
  }
  param->spare = NULL;
}

static void item_step(const struct esp_item *item, const struct esp_step *step, size_t first, size_t n) {
  const struct esp_param *param = item->param;
  size_t size = esp_dtype_size(param->dtype);
  void *states[ESP_OPTIM_STATES_MAX];
  for (unsigned i = 0; i < param->states_len; i++)
    states[i] = param->state + i * state_stride(param) + first * size;
  const void *grads[ESP_ITEM_GRADS_MAX];
  for (size_t i = 0; i < item->step.grads_len; i++)
    grads[i] = (const uint8_t *)item->step.grads[i] + first * size;
  esp_optim_apply(item->step.optim, step, param->world->isa, param->dtype, n, grads, item->step.grads_len,
                  item->step.grad_scale, param->value->data + first * size, param->out->data + first * size, states);
}

static void item_share(struct esp_item *item, const struct esp_step *step, size_t first, size_t n) {
  struct esp_param *param = item->param;
  size_t size = esp_dtype_size(param->dtype);
  switch (item->kind) {
  case ESP_ITEM_STEP:
    item_step(item, step, first, n);
    break;
  case ESP_ITEM_WRITE:
    memcpy(param->out->data + first * size, (const uint8_t *)item->write.from + first * size, n * size);
    break;
  case ESP_ITEM_FILL:
    esp_init_fill(&item->fill.init, param->dtype, first, n, param->out->data + first * size);
    break;
  case ESP_ITEM_RESET:
    for (unsigned i = 0; i < param->states_len; i++)
      memset(param->state + i * state_stride(param) + first * size, 0, n * size);
    break;
  case ESP_ITEM_PIN:
  case ESP_ITEM_HASH:
  case ESP_ITEM_BARRIER:
    break;
  }
}

static uint64_t little_endian(uint64_t value) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  value = __builtin_bswap64(value);
#endif
  return value;
}

static void item_hash(struct esp_item *item) {
  struct esp_param *param = item->param;
  XXH3_state_t *state = XXH3_createState();
  ESP_CHECK(state != NULL);
  XXH3_128bits_reset(state);
  XXH3_128bits_update(state, param->value->data, param->bytes);
  for (unsigned i = 0; i < param->states_len; i++)
    XXH3_128bits_update(state, param->state + i * state_stride(param), param->bytes);
  uint64_t steps = little_endian(param->steps);
  XXH3_128bits_update(state, &steps, sizeof(steps));
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
  XXH3_freeState(state);
  memcpy(item->hash.digest.bytes, canonical.digest, sizeof(item->hash.digest.bytes));
  item->hash.steps = param->steps;
  item->hash.version = param->version;
}

/* The reader provides the buffer that an update needs while the value is pinned. */
static void item_pin(struct esp_item *item) {
  struct esp_param *param = item->param;
  item->pin.buffer = NULL;
  item->pin.version = param->version;
  if (param->spare == NULL)
    param->spare = buffer_new(param->world, param->bytes);
  if (param->spare == NULL)
    return;
  esp_pin_ref(param->value);
  item->pin.buffer = param->value;
}

static void item_end(struct esp_item *item) {
  struct esp_param *param = item->param;
  if (item->kind == ESP_ITEM_HASH)
    item_hash(item);
  if (item->kind == ESP_ITEM_PIN)
    item_pin(item);
  if (item->kind == ESP_ITEM_STEP)
    param->steps++;
  if (item->kind == ESP_ITEM_RESET)
    param->steps = 0;
  if (item_writes(item)) {
    if (param->out != param->value) {
      esp_pin_unref(param->value);
      param->value = param->out;
    }
    param->out = NULL;
    param->version++;
  }
  item->done(item);
}

/* ---- running the queue ---- */

static void wide_share(struct esp_job *job, unsigned share) {
  struct esp_wide *wide = (struct esp_wide *)job;
  struct esp_param *param = wide->param;
  size_t first = (size_t)share * ESP_SHARE_ELEMENTS;
  size_t n = param->elements - first < ESP_SHARE_ELEMENTS ? param->elements - first : ESP_SHARE_ELEMENTS;
  item_share(wide->item, &wide->step, first, n);
  if (atomic_fetch_sub_explicit(&wide->pending, 1, memory_order_acq_rel) != 1)
    return;
  item_end(wide->item);
  esp_param_start(param);
}

static void wide_start(struct esp_item *item) {
  struct esp_wide *wide = item->param->wide;
  unsigned shares = (unsigned)((item->param->elements + ESP_SHARE_ELEMENTS - 1) / ESP_SHARE_ELEMENTS);
  wide->item = item;
  item_begin(item, &wide->step);
  atomic_store_explicit(&wide->pending, shares, memory_order_release);
  wide->job.run = wide_share;
  wide->job.shares = shares;
  esp_pool_submit(item->param->world->pool, &wide->job);
}

bool esp_param_enqueue(struct esp_param *param, struct esp_item *item) {
  item->next = NULL;
  item->param = param;
  pthread_mutex_lock(&param->lock);
  if (param->first == NULL)
    param->first = item;
  else
    param->last->next = item;
  param->last = item;
  bool start = !param->running;
  param->running = true;
  pthread_mutex_unlock(&param->lock);
  if (start)
    esp_object_ref(&param->object); /* the running queue's; esp_param_start drops it */
  return start;
}

void esp_param_start(struct esp_param *param) {
  for (;;) {
    pthread_mutex_lock(&param->lock);
    struct esp_item *item = param->first;
    if (item != NULL)
      param->first = item->next;
    else
      param->running = false;
    pthread_mutex_unlock(&param->lock);
    if (item == NULL) {
      esp_object_unref(&param->object);
      return;
    }
    if (item_is_wide(item)) {
      wide_start(item);
      return;
    }
    struct esp_step step;
    item_begin(item, &step);
    item_share(item, &step, 0, param->elements);
    item_end(item);
  }
}
