/* Opening and closing a client, its connections, and calls with one request.
 *
 * The happy path: open copies the options and starts the heart; the first call dials, and all share the connection, or
 * with several channels streams take turns. A connection on which a call was cut or waited in vain is replaced by the
 * next call; calls that are on it keep it until they end. It fails with UNAVAILABLE where nobody listens, which the
 * callers retry. */
#include "client/src/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "client/src/dial.h"
#include "client/src/lane.h"

#define DEADLINE_MS_MAX ((uint64_t)1 << 40) /* 34 years: sums with it never overflow */
#define LEAVE_MS_MAX 1000
/* How long handles may take to end by themselves before their connections are broken. */
#define CANCEL_MS_MAX 1000

const char *esp_version(void) {
  return ESPALIER_VERSION;
}

void esp_memory_free(void *memory) {
  esp_free(memory);
}

/* ---- open and close ---- */

static enum esp_code check_options(const struct esp_client_options *options, struct esp_status *st) {
  if (options->deadline_ms == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "deadline_ms is 0: no call could ever succeed; the default is 30000");
  if (options->backoff_ms == 0 || options->backoff_ms_max < options->backoff_ms)
    return esp_fail(st, ESP_INVALID_ARGUMENT,
                    "backoff_ms (%llu) is at least 1 and backoff_ms_max (%llu) not less; the defaults are 20 and 1000",
                    (unsigned long long)options->backoff_ms, (unsigned long long)options->backoff_ms_max);
  if (options->worker != NULL && strlen(options->worker) > ESP_WORKER_BYTES_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the worker's name has %zu bytes, of 255 at most",
                    strlen(options->worker));
  if ((unsigned)options->on_new_lineage > ESP_LINEAGE_REDECLARE)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "on_new_lineage is %u, which is none of enum esp_lineage_policy",
                    (unsigned)options->on_new_lineage);
  if (options->channels > ESP_CHANNELS_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "channels is %u, of %d at most", options->channels, ESP_CHANNELS_MAX);
  if (options->in_flight_max > ESP_OPEN_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "in_flight_max is %u, of %d at most", options->in_flight_max,
                    ESP_OPEN_MAX);
  return ESP_OK;
}

static void name_worker(struct esp_client *client) {
  if (client->options.worker != NULL) {
    snprintf(client->worker, sizeof client->worker, "%s", client->options.worker);
    return;
  }
  char host[128] = "";
  if (gethostname(host, sizeof host - 1) != 0 || host[0] == 0)
    snprintf(host, sizeof host, "worker");
  snprintf(client->worker, sizeof client->worker, "%s-%ld", host, (long)getpid());
}

static const char *target_of(const struct esp_client_options *options) {
  if (options->target != NULL)
    return options->target;
  const char *named = getenv("ESPALIER_SERVER");
  return named == NULL || named[0] == 0 ? ESP_ADDRESS_DEFAULT : named;
}

void esp_cond_init(pthread_cond_t *cond) {
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(cond, &attr);
  pthread_condattr_destroy(&attr);
}

static void locks_init(struct esp_client *client) {
  esp_cond_init(&client->changed);
  esp_cond_init(&client->heart_due);
  esp_cond_init(&client->ended);
  esp_cond_init(&client->to_call);
  pthread_mutex_init(&client->mutex, NULL);
  atomic_init(&client->closing, false);
}

static void client_free(struct esp_client *client) {
  esp_stream_drop_idle(client);
  for (unsigned i = 0; i < ESP_CHANNELS_MAX; i++)
    esp_conn_unref(client->conns[i]);
  esp_leaves_done(&client->leaves);
  pthread_cond_destroy(&client->changed);
  pthread_cond_destroy(&client->heart_due);
  pthread_cond_destroy(&client->ended);
  pthread_cond_destroy(&client->to_call);
  pthread_mutex_destroy(&client->mutex);
  esp_free(client);
  esp_transport_done();
}

enum esp_code esp_client_open(const struct esp_client_options *options, esp_client **ret, struct esp_status *st) {
  const struct esp_client_options defaults = ESP_CLIENT_OPTIONS_INIT;
  if (options == NULL)
    options = &defaults;
  struct esp_address address;
  enum esp_code code = check_options(options, st);
  if (code == ESP_OK)
    code = esp_address_parse(target_of(options), &address, st);
  if (code != ESP_OK)
    return code;
  struct esp_client *client = esp_calloc(1, sizeof *client);
  if (client == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for a client");
  client->address = address;
  client->options = *options;
  if (client->options.deadline_ms > DEADLINE_MS_MAX)
    client->options.deadline_ms = DEADLINE_MS_MAX;
  name_worker(client);
  locks_init(client);
  esp_transport_init();
  if (pthread_create(&client->heart, NULL, esp_session_heart, client) != 0) {
    client_free(client);
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no thread to be had for a client");
  }
  *ret = client;
  return ESP_OK;
}

void esp_client_close(esp_client *client) {
  if (client == NULL)
    return;
  esp_lanes_cancel(client, esp_now_ms() + CANCEL_MS_MAX);
  esp_session_leave(client, esp_now_ms() + LEAVE_MS_MAX);
  pthread_mutex_lock(&client->mutex);
  atomic_store(&client->closing, true);
  for (unsigned i = 0; i < ESP_CHANNELS_MAX; i++)
    if (client->conns[i] != NULL)
      esp_conn_break(client->conns[i]); /* a thread of ours may be waiting for an answer on it */
  pthread_cond_broadcast(&client->changed);
  pthread_cond_signal(&client->heart_due);
  pthread_mutex_unlock(&client->mutex);
  esp_lanes_join(client);
  pthread_join(client->heart, NULL);
  client_free(client);
}

/* ---- leaves ---- */

bool esp_client_learn(struct esp_client *client, uint64_t lineage, const struct esp_leaf_known *leaves, size_t len) {
  struct esp_leaves empty = {0};
  pthread_mutex_lock(&client->mutex);
  bool same = client->leaves_lineage == lineage;
  struct esp_leaves *into = same ? &client->leaves : &empty;
  bool ok = esp_leaves_reserve(into, len);
  for (size_t i = 0; i < len && ok; i++)
    esp_leaves_put(into, &leaves[i]);
  if (ok && !same) {
    esp_leaves_done(&client->leaves);
    client->leaves = empty;
    client->leaves_lineage = lineage;
  }
  pthread_mutex_unlock(&client->mutex);
  return ok;
}

/* ---- waiting ---- */

bool esp_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t deadline_ms) {
  struct timespec at = {.tv_sec = (time_t)(deadline_ms / 1000), .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
  pthread_cond_timedwait(cond, mutex, &at);
  return esp_left_ms(deadline_ms) > 0;
}

bool esp_client_wait(struct esp_client *client, uint64_t deadline_ms) {
  return esp_cond_wait(&client->changed, &client->mutex, deadline_ms);
}

unsigned esp_client_channels(const struct esp_client *client) {
  return client->options.channels == 0 ? 1 : client->options.channels;
}

struct esp_retry esp_client_retry(const struct esp_client *client) {
  return (struct esp_retry){.backoff_ms = client->options.backoff_ms,
                            .backoff_ms_max = client->options.backoff_ms_max,
                            .attempts_max = client->options.attempts_max,
                            .deadline_ms = esp_now_ms() + client->options.deadline_ms};
}

/* ---- connections ---- */

/* A reference to the channel's connection where it is usable; NULL otherwise. A useless one is dropped. */
static struct esp_conn *connected(struct esp_client *client, unsigned channel) {
  struct esp_conn *conn = NULL, *useless = NULL;
  pthread_mutex_lock(&client->mutex);
  struct esp_conn **place = &client->conns[channel];
  if (*place != NULL && esp_conn_is_usable(*place)) {
    conn = esp_conn_ref(*place);
  } else {
    useless = *place;
    *place = NULL;
  }
  pthread_mutex_unlock(&client->mutex);
  esp_conn_unref(useless);
  return conn;
}

static enum esp_code fail_closing(struct esp_status *st) {
  return esp_fail(st, ESP_CANCELLED, "the client is being closed");
}

/* Makes a connection that was just dialled the channel's, where no other thread was faster; takes it over. */
static enum esp_code adopt(struct esp_client *client, unsigned channel, struct esp_conn *conn, struct esp_conn **ret,
                           struct esp_status *st) {
  pthread_mutex_lock(&client->mutex);
  struct esp_conn *spare = conn;
  bool closing = atomic_load(&client->closing);
  struct esp_conn **place = &client->conns[channel];
  if (!closing && (*place == NULL || !esp_conn_is_usable(*place))) {
    spare = *place;
    *place = conn;
  }
  if (!closing)
    *ret = esp_conn_ref(*place);
  pthread_mutex_unlock(&client->mutex);
  esp_conn_unref(spare);
  return closing ? fail_closing(st) : ESP_OK;
}

static enum esp_code connect_channel(struct esp_client *client, unsigned channel, uint64_t deadline_ms,
                                     const atomic_bool *stop, struct esp_conn **ret, struct esp_status *st) {
  struct esp_conn *conn = connected(client, channel);
  if (conn != NULL) {
    *ret = conn;
    return ESP_OK;
  }
  int fd;
  enum esp_code code = esp_dial(&client->address, deadline_ms, stop, &fd, st);
  if (code == ESP_OK)
    code = esp_conn_new(fd, client->address.text, &conn, st);
  if (code == ESP_OK)
    return adopt(client, channel, conn, ret, st);
  return atomic_load(&client->closing) ? fail_closing(st) : code;
}

enum esp_code esp_client_connect(struct esp_client *client, uint64_t deadline_ms, struct esp_conn **ret,
                                 struct esp_status *st) {
  return connect_channel(client, 0, deadline_ms, &client->closing, ret, st);
}

enum esp_code esp_client_connect_next(struct esp_client *client, uint64_t deadline_ms, const atomic_bool *stop,
                                      struct esp_conn **ret, struct esp_status *st) {
  pthread_mutex_lock(&client->mutex);
  unsigned channel = client->channel_next++ % esp_client_channels(client);
  pthread_mutex_unlock(&client->mutex);
  return connect_channel(client, channel, deadline_ms, stop, ret, st);
}

/* ---- calls with one request ---- */

enum esp_code esp_client_answers(struct esp_call *call, uint64_t deadline_ms, esp_message_handler handler, void *data,
                                 size_t answers_min, struct esp_status *st) {
  for (size_t answers = 0;; answers++) {
    struct esp_received message;
    enum esp_code code = esp_call_recv(call, deadline_ms, &message, st);
    if (code == ESP_OK && message.spans == NULL)
      return answers >= answers_min ? ESP_OK : esp_fail(st, ESP_INTERNAL, "the server ended a call without an answer");
    if (code == ESP_OK)
      code = handler(data, (struct esp_in){.spans = message.spans, .len = message.spans_len}, st);
    if (code != ESP_OK)
      return code;
  }
}

enum esp_code esp_client_call(struct esp_client *client, const char *method, const struct esp_buf *request,
                              uint64_t deadline_ms, esp_message_handler handler, void *data, size_t answers_min,
                              struct esp_status *st) {
  struct esp_conn *conn;
  enum esp_code code = esp_client_connect(client, deadline_ms, &conn, st);
  if (code != ESP_OK)
    return code;
  struct esp_call *call = NULL;
  code = esp_call_new(conn, method, &call, st);
  esp_conn_unref(conn);
  if (code == ESP_OK) {
    esp_call_append(call, request->data, request->len);
    code = esp_call_send(call, true, deadline_ms, st);
  }
  if (code == ESP_OK)
    code = esp_client_answers(call, deadline_ms, handler, data, answers_min, st);
  esp_call_free(call);
  return code;
}
