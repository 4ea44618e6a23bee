/* Handles: beginning, waiting, cancelling, and how they end.
 *
 * The happy path: what can be checked is, the handle is given to a lane (lane.c), and ends when its answer is there and
 * its memory is back. One with a callback goes through the thread that calls back first. It fails before it is given
 * away, or as the blocking call would. A handle that is done belongs to the caller alone, so that it may be looked at
 * and freed also after the client has been closed. */
#include "base/alloc.h"
#include "client/src/lane.h"

#define WAIT_MS_MAX ((uint64_t)1 << 40) /* 34 years: sums with it never overflow */

/* ---- ends ---- */

/* With the mutex held. */
static void finish(struct esp_client *client, struct esp_handle *handle) {
  bool abandoned = handle->abandoned;
  client->handles_len--;
  atomic_store_explicit(&handle->done, true, memory_order_release); /* it may be freed from here on */
  if (abandoned)
    esp_free(handle);
  pthread_cond_broadcast(&client->ended);
}

/* With the mutex held. */
static void call_later(struct esp_client *client, struct esp_handle *handle) {
  handle->next = NULL;
  if (client->calling == NULL)
    client->calling = handle;
  else
    client->calling_last->next = handle;
  client->calling_last = handle;
  pthread_cond_signal(&client->to_call);
}

void esp_handle_end(struct esp_handle *handle, enum esp_code code) {
  struct esp_client *client = handle->ex.client;
  if (code == ESP_OK && handle->ret_push != NULL)
    *handle->ret_push = handle->ex.push.result;
  if (code == ESP_OK && handle->ret_pull != NULL)
    *handle->ret_pull = handle->ex.pull.result;
  if (handle->ex.push.done)
    esp_flags_want(client, handle->ex.push.result.epoch);
  handle->code = code;
  if (code == ESP_OK) { /* of an attempt that failed */
    handle->st.code = ESP_OK;
    handle->st.message[0] = 0;
  }
  esp_exchange_done(&handle->ex);
  pthread_mutex_lock(&client->mutex);
  if (handle->callback != NULL)
    call_later(client, handle);
  else
    finish(client, handle);
  pthread_mutex_unlock(&client->mutex);
}

void *esp_handle_caller(void *data) {
  struct esp_client *client = data;
  pthread_mutex_lock(&client->mutex);
  for (;;) {
    while (client->calling == NULL && !(atomic_load(&client->closing) && client->handles_len == 0))
      pthread_cond_wait(&client->to_call, &client->mutex);
    struct esp_handle *handle = client->calling;
    if (handle == NULL)
      break;
    client->calling = handle->next;
    handle->called = true;
    pthread_mutex_unlock(&client->mutex);
    handle->callback(handle->data, handle, handle->code, &handle->st);
    pthread_mutex_lock(&client->mutex);
    handle->called = false;
    finish(client, handle);
  }
  pthread_mutex_unlock(&client->mutex);
  return NULL;
}

/* ---- beginnings ---- */

static struct esp_handle *handle_new(esp_client *client, esp_handle_callback callback, void *data) {
  struct esp_handle *handle = esp_calloc(1, sizeof *handle);
  if (handle == NULL)
    return NULL;
  handle->ex.client = client;
  handle->callback = callback;
  handle->data = data;
  atomic_init(&handle->done, false);
  return handle;
}

/* Plans what the handle's exchange names, and gives the handle away. Takes it over, NULL for no memory. */
static enum esp_code begin(struct esp_handle *handle, esp_handle **ret, struct esp_status *st) {
  if (handle == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for a handle");
  enum esp_code code = esp_exchange_plan(&handle->ex, st);
  if (code == ESP_OK)
    code = esp_lanes_give(handle->ex.client, handle, ret, st);
  if (code != ESP_OK) {
    esp_exchange_done(&handle->ex);
    esp_free(handle);
  }
  return code;
}

static void set_push(struct esp_handle *handle, const struct esp_gradient *grads, size_t len,
                     struct esp_push_result *ret) {
  if (handle == NULL)
    return;
  handle->ex.pushes = true;
  handle->ex.push.grads = grads;
  handle->ex.push.len = len;
  handle->ret_push = ret;
}

static void set_pull(struct esp_handle *handle, const struct esp_weight *weights, size_t len,
                     const struct esp_pull_options *options, struct esp_pull_result *ret) {
  if (handle == NULL)
    return;
  handle->ex.pulls = true;
  handle->ex.pull.weights = weights;
  handle->ex.pull.len = len;
  esp_exchange_set_options(&handle->ex, options);
  handle->ret_pull = ret;
}

enum esp_code esp_push_begin(esp_client *client, const struct esp_gradient *grads, size_t len,
                             esp_handle_callback callback, void *data, struct esp_push_result *ret_push,
                             esp_handle **ret, struct esp_status *st) {
  struct esp_handle *handle = handle_new(client, callback, data);
  set_push(handle, grads, len, ret_push);
  return begin(handle, ret, st);
}

enum esp_code esp_pull_begin(esp_client *client, const struct esp_weight *weights, size_t len,
                             const struct esp_pull_options *options, esp_handle_callback callback, void *data,
                             struct esp_pull_result *ret_pull, esp_handle **ret, struct esp_status *st) {
  struct esp_handle *handle = handle_new(client, callback, data);
  set_pull(handle, weights, len, options, ret_pull);
  return begin(handle, ret, st);
}

enum esp_code esp_push_pull_begin(esp_client *client, const struct esp_gradient *grads, size_t grads_len,
                                  const struct esp_weight *weights, size_t weights_len,
                                  const struct esp_pull_options *options, esp_handle_callback callback, void *data,
                                  struct esp_push_result *ret_push, struct esp_pull_result *ret_pull, esp_handle **ret,
                                  struct esp_status *st) {
  struct esp_handle *handle = handle_new(client, callback, data);
  set_push(handle, grads, grads_len, ret_push);
  set_pull(handle, weights, weights_len, options, ret_pull);
  return begin(handle, ret, st);
}

/* ---- waiting ---- */

bool esp_handle_is_done(const esp_handle *handle) {
  return atomic_load_explicit(&handle->done, memory_order_acquire);
}

static uint64_t wait_end(uint64_t timeout_ms) {
  return esp_now_ms() + (timeout_ms < WAIT_MS_MAX ? timeout_ms : WAIT_MS_MAX);
}

/* The first of the handles that is done; len for none. */
static size_t first_done(esp_handle *const *handles, size_t len) {
  size_t at = 0;
  while (at < len && (handles[at] == NULL || !esp_handle_is_done(handles[at])))
    at++;
  return at;
}

/* Waits until one is done or the deadline; len for none. Once one is done the client may be gone, but then none has to
 * be waited for. */
static size_t wait_done(struct esp_client *client, esp_handle *const *handles, size_t len, uint64_t deadline_ms) {
  size_t at = first_done(handles, len);
  if (at < len || esp_left_ms(deadline_ms) == 0)
    return at;
  pthread_mutex_lock(&client->mutex);
  bool more = true;
  while ((at = first_done(handles, len)) == len && more)
    more = esp_cond_wait(&client->ended, &client->mutex, deadline_ms);
  pthread_mutex_unlock(&client->mutex);
  return at;
}

enum esp_code esp_wait(esp_handle *handle, uint64_t timeout_ms, struct esp_status *st) {
  if (wait_done(handle->ex.client, &handle, 1, wait_end(timeout_ms)) == 1)
    return esp_fail(st, ESP_DEADLINE_EXCEEDED, "the operation has not ended yet");
  if (st != NULL && handle->code != ESP_OK)
    *st = handle->st;
  return handle->code;
}

enum esp_code esp_wait_any(esp_handle *const *handles, size_t len, uint64_t timeout_ms, size_t *ret_index,
                           struct esp_status *st) {
  struct esp_client *client = NULL;
  for (size_t i = 0; i < len; i++) {
    if (handles[i] == NULL)
      continue;
    if (client != NULL && handles[i]->ex.client != client)
      return esp_fail(st, ESP_INVALID_ARGUMENT, "handle %zu is of another client than those before it", i);
    client = handles[i]->ex.client;
  }
  if (client == NULL)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "there is no handle to wait for");
  size_t at = wait_done(client, handles, len, wait_end(timeout_ms));
  if (at == len)
    return esp_fail(st, ESP_DEADLINE_EXCEEDED, "none of the operations has ended yet");
  *ret_index = at;
  return ESP_OK;
}

/* ---- cancelling, freeing ---- */

void esp_cancel(esp_handle *handle) {
  if (!esp_handle_is_done(handle))
    esp_lane_cancel(handle);
}

/* In the handle's own callback: it is freed when that has returned. */
static bool abandon(struct esp_handle *handle) {
  struct esp_client *client = handle->ex.client;
  pthread_mutex_lock(&client->mutex);
  handle->abandoned = handle->called && pthread_equal(pthread_self(), client->caller);
  bool abandoned = handle->abandoned;
  pthread_mutex_unlock(&client->mutex);
  return abandoned;
}

void esp_handle_free(esp_handle *handle) {
  if (handle == NULL)
    return;
  if (!esp_handle_is_done(handle)) {
    if (abandon(handle))
      return;
    esp_cancel(handle);
    wait_done(handle->ex.client, &handle, 1, wait_end(UINT64_MAX));
  }
  esp_free(handle);
}
