/* Parameters. An item begins (where it writes is chosen), runs in one or many shares, and ends (the new value is
 * published, counters go up). */
#include "engine/param.h"

#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/transpose.h"

/* State tensors begin on cache lines. */
static size_t state_stride(const struct esp_param *param) {
  return (param->bytes + ESP_CACHE_LINE - 1) / ESP_CACHE_LINE * ESP_CACHE_LINE;
}

size_t esp_param_state_bytes(const struct esp_param *param) {
  return state_stride(param) * param->states_len;
}

uint8_t *esp_param_states_new(struct esp_param *param, size_t states_len) {
  ESP_CHECK(states_len > 0 && states_len <= ESP_OPTIM_STATES_MAX);
  if (state_stride(param) > SIZE_MAX / states_len)
    return NULL;
  uint8_t *state = esp_calloc_aligned(state_stride(param) * states_len);
  if (state != NULL)
    atomic_fetch_add(&param->world->bytes_state, state_stride(param) * states_len);
  return state;
}

void esp_param_states_free(struct esp_param *param, uint8_t *state, size_t states_len) {
  if (state == NULL)
    return;
  atomic_fetch_sub(&param->world->bytes_state, state_stride(param) * states_len);
  esp_free(state);
}

static void param_destroy(struct esp_object *object) {
  struct esp_param *param = (struct esp_param *)object;
  ESP_CHECK(param->first == NULL && !param->running);
  esp_buffer_retire(param->value);
  atomic_fetch_sub(&param->world->bytes_params, param->bytes);
  esp_param_states_free(param, param->state, param->states_len);
  esp_optim_unref(param->optim);
  esp_free(param->wide);
  pthread_mutex_destroy(&param->lock);
  esp_free(param);
}

struct esp_param *esp_param_new(struct esp_world *world, enum esp_dtype dtype, const struct esp_shape *shape) {
  uint64_t elements, bytes;
  struct esp_param *param = esp_calloc(1, sizeof(*param));
  if (param == NULL)
    return NULL;
  ESP_CHECK(esp_shape_bytes(shape, dtype, &elements, &bytes, NULL) == ESP_OK);
  param->object.refs = 1;
  param->object.destroy = param_destroy;
  param->world = world;
  param->elements = elements;
  param->bytes = bytes;
  param->rows = shape->rank == 2 ? shape->dims[0] : 0;
  param->cols = shape->rank == 2 ? shape->dims[1] : 0;
  param->dtype = dtype;
  param->version = 1;
  pthread_mutex_init(&param->lock, NULL);
  atomic_fetch_add(&world->bytes_params, param->bytes);
  param->value = esp_buffer_new(world, param->bytes);
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

bool esp_param_add_states(struct esp_param *param, struct esp_optim *optim) {
  size_t states_len = esp_optim_states_len(optim);
  ESP_CHECK(param->state == NULL && param->optim == NULL);
  if (states_len > 0) {
    param->state = esp_param_states_new(param, states_len);
    if (param->state == NULL)
      return false;
  }
  param->states_len = (unsigned)states_len;
  param->optim = esp_optim_ref(optim);
  return true;
}

/* ---- running one item ---- */

static bool item_writes(const struct esp_item *item) {
  switch (item->kind) {
  case ESP_ITEM_STEP:
  case ESP_ITEM_WRITE:
  case ESP_ITEM_MEAN:
  case ESP_ITEM_FILL:
    return true;
  default:
    return false;
  }
}

static bool item_is_wide(const struct esp_item *item) {
  if (item->param->wide == NULL)
    return false;
  return item_writes(item) || item->kind == ESP_ITEM_RESET || item->kind == ESP_ITEM_MIGRATE ||
         item->kind == ESP_ITEM_GIVE;
}

/* Chooses where the item writes. */
static void item_begin(struct esp_item *item, struct esp_step *step) {
  struct esp_param *param = item->param;
  if (item->kind == ESP_ITEM_STEP)
    esp_optim_step_init(item->step.optim, param->steps + 1, &item->step.norms, step);
  if (item_writes(item))
    param->out = esp_buffer_target(param->value);
}

static void item_step(const struct esp_item *item, const struct esp_step *step, size_t first, size_t n) {
  const struct esp_param *param = item->param;
  void *states[ESP_OPTIM_STATES_MAX];
  for (unsigned i = 0; i < param->states_len; i++)
    states[i] = param->state + i * state_stride(param);
  esp_optim_apply(item->step.optim, step, param->world->isa, param->dtype, first, n, item->step.grads,
                  item->step.grads_len, item->step.grad_scale, param->value->data, param->out->data, states);
}

/* Elements first .. first+n as a parameter sees memory that may lie the other way round. */
static void copy_elements(const struct esp_param *param, const void *from, bool transposed, size_t first, size_t n,
                          void *out) {
  size_t size = esp_dtype_size(param->dtype);
  if (transposed)
    esp_transpose(size, param->rows, param->cols, from, first, n, (uint8_t *)out + first * size);
  else
    memcpy((uint8_t *)out + first * size, (const uint8_t *)from + first * size, n * size);
}

static void item_mean(const struct esp_item *item, size_t first, size_t n) {
  const struct esp_param *param = item->param;
  size_t size = esp_dtype_size(param->dtype);
  const uint8_t *x = param->value->data;
  uint8_t *out = param->out->data;
  for (size_t i = first; i < first + n; i++) {
    union {
      double f64;
      float f32;
    } other;
    if (item->write.transposed)
      esp_transpose(size, param->rows, param->cols, item->write.from, i, 1, &other);
    else
      memcpy(&other, (const uint8_t *)item->write.from + i * size, size);
    if (param->dtype == ESP_DTYPE_F64)
      ((double *)out)[i] = ((const double *)x)[i] * 0.5 + other.f64 * 0.5;
    else
      ((float *)out)[i] = ((const float *)x)[i] * 0.5F + other.f32 * 0.5F;
  }
}

static void item_give(const struct esp_item *item, size_t first, size_t n) {
  const struct esp_param *param = item->param;
  struct esp_param *to = item->give.to;
  copy_elements(to, param->value->data, item->give.transposed, first, n, to->value->data);
  for (unsigned i = 0; item->give.with_state && i < param->states_len; i++)
    copy_elements(to, param->state + i * state_stride(param), item->give.transposed, first, n,
                  to->state + i * state_stride(to));
}

static void item_migrate(const struct esp_item *item, size_t first, size_t n) {
  const struct esp_param *param = item->param;
  size_t size = esp_dtype_size(param->dtype), stride = state_stride(param);
  for (unsigned i = 0; i < item->migrate.states_len; i++) {
    unsigned old = item->migrate.kept[i];
    if (old != ESP_STATE_FRESH)
      memcpy(item->migrate.state + i * stride + first * size, param->state + old * stride + first * size, n * size);
  }
}

static void item_share(struct esp_item *item, const struct esp_step *step, size_t first, size_t n) {
  struct esp_param *param = item->param;
  size_t size = esp_dtype_size(param->dtype);
  switch (item->kind) {
  case ESP_ITEM_STEP:
    item_step(item, step, first, n);
    break;
  case ESP_ITEM_WRITE:
    copy_elements(param, item->write.from, item->write.transposed, first, n, param->out->data);
    break;
  case ESP_ITEM_MEAN:
    item_mean(item, first, n);
    break;
  case ESP_ITEM_FILL:
    esp_init_fill(&item->fill.init, param->dtype, first, n, param->out->data + first * size);
    break;
  case ESP_ITEM_RESET:
    for (unsigned i = 0; i < param->states_len; i++)
      memset(param->state + i * state_stride(param) + first * size, 0, n * size);
    break;
  case ESP_ITEM_MIGRATE:
    item_migrate(item, first, n);
    break;
  case ESP_ITEM_GIVE:
    item_give(item, first, n);
    break;
  case ESP_ITEM_WAIT:
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

static void item_pin(struct esp_item *item) {
  struct esp_param *param = item->param;
  item->pin.version = param->version;
  item->pin.failed = item->pin.have != param->version && !esp_hold_pin(item->pin.hold, param->value);
}

static void migrate_end(struct esp_item *item) {
  struct esp_param *param = item->param;
  esp_param_states_free(param, param->state, param->states_len);
  param->state = item->migrate.state;
  param->states_len = item->migrate.states_len;
  if (!item->migrate.keep_steps)
    param->steps = 0;
}

static void go_on(struct esp_param *param, struct esp_item *ended);

/* Goes on with a queue that waited, on the pool: the giver's own runner may be deep in a chain of them. */
static void wait_over(struct esp_job *job, unsigned share) {
  (void)share;
  struct esp_item *item = (struct esp_item *)((char *)job - offsetof(struct esp_item, wait.job));
  struct esp_param *param = item->param;
  go_on(param, item);
}

/* The queue has arrived at its wait, or the giver has given. True: both have, and the caller goes on with the queue. */
static bool wait_arrive(struct esp_item *item) {
  return atomic_fetch_add(&item->wait.arrived, 1) == 1;
}

static void give_end(struct esp_item *item) {
  struct esp_item *wait = item->give.wait;
  if (item->give.with_state)
    item->give.to->steps = (uint64_t)item->param->steps;
  if (wait == NULL || !wait_arrive(wait))
    return;
  wait->wait.job = (struct esp_job){.run = wait_over, .shares = 1};
  esp_pool_submit_first(item->param->world->pool, &wait->wait.job); /* a transaction's, as all that wait are */
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
  if (item->kind == ESP_ITEM_MIGRATE)
    migrate_end(item);
  if (item->kind == ESP_ITEM_GIVE)
    give_end(item);
  if (item_writes(item)) {
    if (param->out != param->value) {
      esp_buffer_retire(param->value);
      param->value = param->out;
    }
    param->out = NULL;
    param->version++;
  }
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
  struct esp_item *item = wide->item;
  item_end(item);
  go_on(param, item);
}

static void wide_start(struct esp_item *item, bool is_urgent) {
  struct esp_wide *wide = item->param->wide;
  unsigned shares = (unsigned)((item->param->elements + ESP_SHARE_ELEMENTS - 1) / ESP_SHARE_ELEMENTS);
  wide->item = item;
  item_begin(item, &wide->step);
  atomic_store_explicit(&wide->pending, shares, memory_order_release);
  wide->job.run = wide_share;
  wide->job.shares = shares;
  (is_urgent ? esp_pool_submit_first : esp_pool_submit)(item->param->world->pool, &wide->job);
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
  param->urgent += item->is_urgent;
  bool start = !param->running;
  if (start) {
    param->running = param->waiting = true;
    esp_object_ref(&param->object); /* the running queue's; go_on drops it */
    esp_object_ref(&param->object); /* esp_param_start's */
  }
  pthread_mutex_unlock(&param->lock);
  return start;
}

/* The next item, or NULL: then the queue does not run any more. */
static struct esp_item *take(struct esp_param *param, bool *ret_urgent) {
  pthread_mutex_lock(&param->lock);
  struct esp_item *item = param->first;
  *ret_urgent = param->urgent > 0;
  if (item != NULL) {
    param->first = item->next;
    param->urgent -= item->is_urgent;
  } else {
    param->running = false;
  }
  pthread_mutex_unlock(&param->lock);
  return item;
}

/* By whoever runs the queue, of which an item has just ended (or NULL). Who hears that the last one is done finds the
 * queue's reference gone. */
static void go_on(struct esp_param *param, struct esp_item *ended) {
  for (;;) {
    bool is_urgent;
    struct esp_item *item = take(param, &is_urgent);
    if (item == NULL)
      esp_object_unref(&param->object);
    if (ended != NULL)
      ended->done(ended);
    if (item == NULL)
      return;
    if (item->kind == ESP_ITEM_WAIT && !wait_arrive(item))
      return; /* who gives goes on, and keeps the reference */
    if (item_is_wide(item)) {
      wide_start(item, is_urgent);
      return;
    }
    struct esp_step step;
    item_begin(item, &step);
    item_share(item, &step, 0, param->elements);
    item_end(item);
    ended = item;
  }
}

/* Whether the caller is the one who runs the queue from here on. */
static bool begin(struct esp_param *param) {
  pthread_mutex_lock(&param->lock);
  bool is_first = param->waiting;
  param->waiting = false;
  pthread_mutex_unlock(&param->lock);
  return is_first;
}

void esp_param_start(struct esp_param *param) {
  bool is_first = begin(param);
  esp_object_unref(&param->object); /* a queue that runs has its own */
  if (is_first)
    go_on(param, NULL);
}

void esp_param_hurry(struct esp_param *param) {
  if (begin(param))
    go_on(param, NULL);
  else if (param->wide != NULL)
    esp_pool_hurry(param->world->pool, &param->wide->job);
}
