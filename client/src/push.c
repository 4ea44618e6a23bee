/* Pushes and pulls that block: the calling thread drives them on a stream of its own.
 *
 * The happy path: the push takes a sequence, the exchange is sent on a stream that is open already, and its answers are
 * received. It fails with the attempt's code: its stream is dropped, which waits for the lent memory; UNAVAILABLE is
 * sent again, and for what else makes sense to be tried again see exchange.c. */
#include "client/src/exchange.h"

static enum esp_code drive(struct esp_exchange *ex, struct esp_call *call, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  while (code == ESP_OK && !esp_exchange_is_sent(ex))
    code = esp_exchange_send(ex, call, st);
  while (code == ESP_OK && !esp_exchange_is_answered(ex))
    code = esp_exchange_receive(ex, call, st);
  return code;
}

static enum esp_code attempt(struct esp_exchange *ex, struct esp_status *st) {
  struct esp_stream *stream;
  enum esp_code code = ESP_OK;
  if (ex->pushes && ex->push.session.sequence == 0)
    code = esp_session_push_begin(ex->client, ex->retry.deadline_ms, &ex->push.session, st);
  if (code == ESP_OK)
    code = esp_exchange_start(ex, st);
  if (code == ESP_OK)
    code = esp_stream_take(ex->client, ex->retry.deadline_ms, &stream, st);
  if (code != ESP_OK)
    return code;
  code = drive(ex, stream->call, st);
  /* All is answered, so a stream that still holds memory of the caller's is only not worth keeping. */
  if (code == ESP_OK && esp_call_settle(stream->call, ex->retry.deadline_ms, NULL) == ESP_OK)
    esp_stream_give(ex->client, stream);
  else
    esp_stream_drop(ex->client, stream);
  return code;
}

static enum esp_code run(struct esp_exchange *ex, struct esp_status *st) {
  for (;;) {
    enum esp_code code = attempt(ex, st);
    if (code == ESP_OK)
      return ESP_OK;
    enum esp_code after = esp_exchange_recover(ex, code, st);
    if (after == ESP_OK && esp_left_ms(ex->retry.deadline_ms) > 0)
      continue;
    if (after == ESP_OK || !esp_retry_wait(&ex->retry, after))
      return after == ESP_OK ? code : after;
  }
}

static enum esp_code exchange(struct esp_exchange *ex, struct esp_push_result *ret_push,
                              struct esp_pull_result *ret_pull, struct esp_status *st) {
  enum esp_code code = esp_exchange_plan(ex, st);
  if (code == ESP_OK)
    code = run(ex, st);
  esp_exchange_done(ex);
  if (ex->push.done)
    esp_flags_refresh(ex->client, ex->push.result.epoch, ex->retry.deadline_ms);
  if (code == ESP_OK && ret_push != NULL)
    *ret_push = ex->push.result;
  if (code == ESP_OK && ret_pull != NULL)
    *ret_pull = ex->pull.result;
  return code;
}

enum esp_code esp_push(esp_client *client, const struct esp_gradient *grads, size_t len, struct esp_push_result *ret,
                       struct esp_status *st) {
  struct esp_exchange ex = {.client = client, .pushes = true, .push = {.grads = grads, .len = len}};
  return exchange(&ex, ret, NULL, st);
}

enum esp_code esp_pull(esp_client *client, const struct esp_weight *weights, size_t len, struct esp_pull_result *ret,
                       struct esp_status *st) {
  return esp_pull_with(client, weights, len, NULL, ret, st);
}

enum esp_code esp_pull_with(esp_client *client, const struct esp_weight *weights, size_t len,
                            const struct esp_pull_options *options, struct esp_pull_result *ret,
                            struct esp_status *st) {
  struct esp_exchange ex = {.client = client, .pulls = true, .pull = {.weights = weights, .len = len}};
  esp_exchange_set_options(&ex, options);
  return exchange(&ex, NULL, ret, st);
}

enum esp_code esp_push_pull(esp_client *client, const struct esp_gradient *grads, size_t grads_len,
                            const struct esp_weight *weights, size_t weights_len, struct esp_push_result *ret_push,
                            struct esp_pull_result *ret_pull, struct esp_status *st) {
  struct esp_exchange ex = {.client = client,
                            .pushes = true,
                            .pulls = true,
                            .push = {.grads = grads, .len = grads_len},
                            .pull = {.weights = weights, .len = weights_len}};
  return exchange(&ex, ret_push, ret_pull, st);
}

bool esp_leaf_is_frozen(esp_client *client, esp_leaf_id leaf) {
  pthread_mutex_lock(&client->mutex);
  const struct esp_leaf_known *known = esp_leaves_find(&client->leaves, leaf);
  bool frozen = known != NULL && known->frozen;
  pthread_mutex_unlock(&client->mutex);
  return frozen;
}
