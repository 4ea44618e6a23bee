/* Opening and closing a client, its connection, and calls with one request.
 *
 * The happy path: open copies the options and starts the heart; the first call dials, and all share the connection. A
 * connection on which a call was cut or waited in vain is replaced by the next call; calls that are on it keep it until
 * they end. It fails with UNAVAILABLE where nobody listens, which the callers retry. */
#include "client/src/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "client/src/dial.h"

#define DEADLINE_MS_MAX ((uint64_t)1 << 40) /* 34 years: sums with it never overflow */
#define LEAVE_MS_MAX 1000

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

static void locks_init(struct esp_client *client) {
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&client->changed, &attr);
  pthread_condattr_destroy(&attr);
  pthread_mutex_init(&client->mutex, NULL);
}

static void client_free(struct esp_client *client) {
  esp_stream_drop_idle(client);
  esp_conn_unref(client->conn);
  esp_leaves_done(&client->leaves);
  pthread_cond_destroy(&client->changed);
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
  esp_session_leave(client, esp_now_ms() + LEAVE_MS_MAX);
  pthread_mutex_lock(&client->mutex);
  client->closing = true;
  if (client->conn != NULL)
    esp_conn_break(client->conn); /* the heart may be waiting for an answer on it */
  pthread_cond_broadcast(&client->changed);
  pthread_mutex_unlock(&client->mutex);
  pthread_join(client->heart, NULL);
  client_free(client);
}

/* ---- waiting ---- */

bool esp_client_wait(struct esp_client *client, uint64_t deadline_ms) {
  struct timespec at = {.tv_sec = (time_t)(deadline_ms / 1000), .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
  pthread_cond_timedwait(&client->changed, &client->mutex, &at);
  return esp_left_ms(deadline_ms) > 0;
}

struct esp_retry esp_client_retry(const struct esp_client *client) {
  return (struct esp_retry){.backoff_ms = client->options.backoff_ms,
                            .backoff_ms_max = client->options.backoff_ms_max,
                            .attempts_max = client->options.attempts_max,
                            .deadline_ms = esp_now_ms() + client->options.deadline_ms};
}

/* ---- the connection ---- */

/* A reference to the connection where it is usable; NULL otherwise. A useless one is dropped. */
static struct esp_conn *connected(struct esp_client *client) {
  struct esp_conn *conn = NULL, *useless = NULL;
  pthread_mutex_lock(&client->mutex);
  if (client->conn != NULL && esp_conn_is_usable(client->conn)) {
    conn = esp_conn_ref(client->conn);
  } else {
    useless = client->conn;
    client->conn = NULL;
  }
  pthread_mutex_unlock(&client->mutex);
  esp_conn_unref(useless);
  return conn;
}

/* Makes a connection that was just dialled the client's, where no other thread was faster; takes it over. */
static struct esp_conn *adopt(struct esp_client *client, struct esp_conn *conn) {
  pthread_mutex_lock(&client->mutex);
  struct esp_conn *spare = client->conn;
  if (spare != NULL && esp_conn_is_usable(spare))
    spare = conn;
  else
    client->conn = conn;
  struct esp_conn *adopted = esp_conn_ref(client->conn);
  pthread_mutex_unlock(&client->mutex);
  esp_conn_unref(spare);
  return adopted;
}

enum esp_code esp_client_connect(struct esp_client *client, uint64_t deadline_ms, struct esp_conn **ret,
                                 struct esp_status *st) {
  struct esp_conn *conn = connected(client);
  enum esp_code code = ESP_OK;
  if (conn == NULL) {
    int fd;
    code = esp_dial(&client->address, deadline_ms, &fd, st);
    if (code == ESP_OK)
      code = esp_conn_new(fd, client->address.text, &conn, st);
    if (code == ESP_OK)
      conn = adopt(client, conn);
  }
  if (code == ESP_OK)
    *ret = conn;
  return code;
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
