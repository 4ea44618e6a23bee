/* The operators' calls: apply, describe, the server's own numbers, its workers, history and timers.
 *
 * The happy path: one request, and pages that are put together to one result. Each is retried as a whole, from an empty
 * result; Apply carries a key, a random one if not the caller's, by which the server knows a retry from a second call.
 */
#include <inttypes.h>
#include <stdio.h>

#include "base/env.h"
#include "client/src/client.h"

#define KEY_BYTES 40 /* 32 digits and a NUL */

/* A call whose answers make up one result. */
struct ask {
  const char *method;
  struct esp_buf request;      /* owned */
  esp_message_handler handler; /* of one answer */
  void *data;                  /* the handler's */
  void (*reset)(void *data);   /* drops the answers of a failed attempt */
};

static enum esp_code ask(struct esp_client *client, const struct ask *ask, struct esp_retry retry,
                         struct esp_status *st) {
  for (;;) {
    enum esp_code code =
        esp_client_call(client, ask->method, &ask->request, retry.deadline_ms, ask->handler, ask->data, 1, st);
    if (code == ESP_OK)
      return code;
    ask->reset(ask->data);
    if (!esp_retry_wait(&retry, code))
      return code;
  }
}

/* ---- apply ---- */

static enum esp_code take_apply(void *data, struct esp_in in, struct esp_status *st) {
  return esp_decode_apply(in, data, st);
}

static void reset_apply(void *data) {
  struct esp_apply_result **result = data;
  esp_apply_result_free(*result);
  *result = NULL;
}

static void make_key(char key[KEY_BYTES]) {
  const struct esp_env *env = esp_env_system();
  uint64_t high = env->random_u64(env->data), low = env->random_u64(env->data);
  snprintf(key, KEY_BYTES, "%016" PRIx64 "%016" PRIx64, high, low);
}

/* What would be read from where there is nothing. The rest is the server's to refuse. */
static enum esp_code check_op(const struct esp_op *op, struct esp_status *st) {
  uint64_t bytes;
  if ((unsigned)op->kind > ESP_OP_CANCEL_TIMER)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "its kind is %u, which is none of enum esp_op_kind", (unsigned)op->kind);
  if (op->kind == ESP_OP_REINIT && (unsigned)op->init >= ESP_VALUE)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "its init is %u, which no reinit can have", (unsigned)op->init);
  if (op->kind == ESP_OP_ADJUST && op->hypers == NULL && op->hypers_len > 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "its hypers are NULL");
  if (op->kind != ESP_OP_ADD)
    return ESP_OK;
  if (op->leaf == NULL)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "its leaf is NULL");
  if (op->leaf->init == ESP_VALUE)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a leaf is added with an initializer, not ESP_VALUE; set its value then");
  return esp_leaf_spec_check(op->leaf, 0, &bytes, st);
}

static enum esp_code check_ops(const struct esp_op *ops, size_t len, struct esp_status *st) {
  for (size_t i = 0; i < len; i++) {
    struct esp_status why;
    enum esp_code code = check_op(&ops[i], &why);
    if (code != ESP_OK)
      return esp_fail(st, code, "operation %zu of %zu: %s", i + 1, len, why.message);
  }
  return ESP_OK;
}

enum esp_code esp_apply_within(struct esp_client *client, const struct esp_op *ops, size_t len,
                               const struct esp_apply_options *options, struct esp_retry retry,
                               struct esp_apply_result **ret, struct esp_status *st) {
  const struct esp_apply_options defaults = {0};
  struct esp_apply_result *result = NULL;
  struct ask call = {.method = ESP_METHOD_ADMIN("Apply"), .handler = take_apply, .data = &result, .reset = reset_apply};
  char made[KEY_BYTES];
  make_key(made);
  options = options == NULL ? &defaults : options;
  const char *key = options->idempotency_key;
  key = key == NULL || key[0] == 0 ? made : key;
  enum esp_code code = check_ops(ops, len, st);
  if (code == ESP_OK)
    code = esp_encode_apply(&call.request, ops, len, options, key, st);
  if (code == ESP_OK)
    code = ask(client, &call, retry, st);
  if (code == ESP_OK && ret != NULL)
    *ret = result;
  else
    esp_apply_result_free(result);
  esp_buf_done(&call.request);
  return code;
}

enum esp_code esp_apply(esp_client *client, const struct esp_op *ops, size_t len,
                        const struct esp_apply_options *options, struct esp_apply_result **ret, struct esp_status *st) {
  return esp_apply_within(client, ops, len, options, esp_client_retry(client), ret, st);
}

/* ---- describe ---- */

static enum esp_code take_describe(void *data, struct esp_in in, struct esp_status *st) {
  return esp_decode_describe(in, data, st);
}

static void reset_describe(void *data) {
  struct esp_description **description = data;
  esp_description_free(*description);
  *description = NULL;
}

enum esp_code esp_describe(esp_client *client, const char *selection, bool with_digest, struct esp_description **ret,
                           struct esp_status *st) {
  struct esp_description *description = NULL;
  struct ask call = {
      .method = ESP_METHOD_ADMIN("Describe"), .handler = take_describe, .data = &description, .reset = reset_describe};
  enum esp_code code = esp_encode_describe(&call.request, selection, with_digest, st);
  if (code == ESP_OK)
    code = ask(client, &call, esp_client_retry(client), st);
  if (code == ESP_OK)
    *ret = description;
  esp_buf_done(&call.request);
  return code;
}

/* ---- the server ---- */

static enum esp_code take_server_info(void *data, struct esp_in in, struct esp_status *st) {
  return esp_decode_server_info(in, data, st);
}

static void reset_nothing(void *data) {
  (void)data;
}

enum esp_code esp_server_info(esp_client *client, struct esp_server_info *ret, struct esp_status *st) {
  struct esp_server_info info;
  struct ask call = {
      .method = ESP_METHOD_ADMIN("ServerInfo"), .handler = take_server_info, .data = &info, .reset = reset_nothing};
  enum esp_code code = ask(client, &call, esp_client_retry(client), st);
  if (code == ESP_OK)
    *ret = info;
  return code;
}

enum esp_code esp_ping(esp_client *client, struct esp_status *st) {
  struct esp_server_info info;
  return esp_server_info(client, &info, st);
}

/* ---- workers ---- */

static enum esp_code take_workers(void *data, struct esp_in in, struct esp_status *st) {
  return esp_decode_workers(in, data, st);
}

static void reset_workers(void *data) {
  struct esp_workers **workers = data;
  esp_workers_free(*workers);
  *workers = NULL;
}

enum esp_code esp_workers_list(esp_client *client, struct esp_workers **ret, struct esp_status *st) {
  struct esp_workers *workers = NULL;
  struct ask call = {
      .method = ESP_METHOD_ADMIN("Workers"), .handler = take_workers, .data = &workers, .reset = reset_workers};
  enum esp_code code = ask(client, &call, esp_client_retry(client), st);
  if (code == ESP_OK)
    *ret = workers;
  return code;
}

/* ---- history ---- */

static enum esp_code take_history(void *data, struct esp_in in, struct esp_status *st) {
  return esp_decode_history(in, data, st);
}

static void reset_history(void *data) {
  struct esp_history **history = data;
  esp_history_free(*history);
  *history = NULL;
}

enum esp_code esp_history_list(esp_client *client, uint64_t since_epoch, uint64_t limit, struct esp_history **ret,
                               struct esp_status *st) {
  struct esp_history *history = NULL;
  struct ask call = {
      .method = ESP_METHOD_ADMIN("History"), .handler = take_history, .data = &history, .reset = reset_history};
  enum esp_code code = esp_encode_history(&call.request, since_epoch, limit, st);
  if (code == ESP_OK)
    code = ask(client, &call, esp_client_retry(client), st);
  if (code == ESP_OK)
    *ret = history;
  esp_buf_done(&call.request);
  return code;
}

/* ---- timers ---- */

static enum esp_code take_timers(void *data, struct esp_in in, struct esp_status *st) {
  return esp_decode_timers(in, data, st);
}

static void reset_timers(void *data) {
  struct esp_timers **timers = data;
  esp_timers_free(*timers);
  *timers = NULL;
}

enum esp_code esp_timers_list(esp_client *client, struct esp_timers **ret, struct esp_status *st) {
  struct esp_timers *timers = NULL;
  struct ask call = {
      .method = ESP_METHOD_ADMIN("Timers"), .handler = take_timers, .data = &timers, .reset = reset_timers};
  enum esp_code code = ask(client, &call, esp_client_retry(client), st);
  if (code == ESP_OK)
    *ret = timers;
  return code;
}

/* ---- explain ---- */

static enum esp_code take_explain(void *data, struct esp_in in, struct esp_status *st) {
  return esp_decode_explain(in, data, st);
}

static void reset_explain(void *data) {
  struct esp_explanation **explanation = data;
  esp_explanation_free(*explanation);
  *explanation = NULL;
}

enum esp_code esp_explain(esp_client *client, const char *selection, struct esp_explanation **ret,
                          struct esp_status *st) {
  struct esp_explanation *explanation = NULL;
  struct ask call = {
      .method = ESP_METHOD_ADMIN("Explain"), .handler = take_explain, .data = &explanation, .reset = reset_explain};
  enum esp_code code = esp_encode_explain(&call.request, selection, st);
  if (code == ESP_OK)
    code = ask(client, &call, esp_client_retry(client), st);
  if (code == ESP_OK)
    *ret = explanation;
  esp_buf_done(&call.request);
  return code;
}
