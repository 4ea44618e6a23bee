/* Watching the layout.
 *
 * The happy path: a thread has a Watch call open and takes each event as it comes: first to the client's own flags,
 * then to the callback or into a queue, from which esp_watch_next takes it. A full queue lets the thread wait, and
 * thereby the server.
 *
 * How it fails: a call that was cut is made again after a pause, from the last event's epoch. A server with another
 * lineage is asked for everything. What the server refuses ends the watch, and is what esp_watch_next returns. */
#include "base/alloc.h"
#include "base/env.h"
#include "client/src/client.h"

#define EVENTS_MAX 64
#define FOREVER_MS ((uint64_t)1 << 40)

struct esp_watch {
  struct esp_client *client;
  esp_layout_callback callback; /* NULL: events go to the queue */
  void *data;                   /* the callback's */
  pthread_t thread;
  atomic_bool closing; /* set with the mutex: the thread is to end */

  /* The thread's. */
  uint64_t since;   /* the epoch up to which everything has come: the last event's */
  uint64_t lineage; /* of the events; 0: none has come */
  bool listing;     /* nothing has come of a listing of all leaves */
  unsigned retries; /* calls that have failed since the last event */

  /* With the client's mutex. */
  pthread_cond_t changed;                      /* one of the following */
  struct esp_call *call;                       /* under way; NULL: none */
  struct esp_layout_event *events[EVENTS_MAX]; /* a ring; owned; NULL stands for a new lineage */
  size_t first;                                /* the oldest of events */
  size_t len;                                  /* of events */
  struct esp_layout_event *current;            /* what esp_watch_next has returned last; owned */
  bool ended;                                  /* for good, with code and st */
  enum esp_code code;
  struct esp_status st;
};

/* ---- events ---- */

/* NULL for a new lineage. Waits for a place in the queue. */
static void queue_put(struct esp_watch *watch, struct esp_layout_event *event) {
  struct esp_client *client = watch->client;
  pthread_mutex_lock(&client->mutex);
  while (watch->len == EVENTS_MAX && !atomic_load(&watch->closing))
    pthread_cond_wait(&watch->changed, &client->mutex);
  bool taken = watch->len < EVENTS_MAX;
  if (taken) {
    watch->events[(watch->first + watch->len++) % EVENTS_MAX] = event;
    pthread_cond_broadcast(&watch->changed);
  }
  pthread_mutex_unlock(&client->mutex);
  if (!taken)
    esp_free(event);
}

/* Takes the event over. */
static void deliver(struct esp_watch *watch, struct esp_layout_event *event) {
  if (watch->callback == NULL) {
    queue_put(watch, event);
    return;
  }
  watch->callback(watch->data, event);
  esp_free(event);
}

/* Takes an event over. ABORTED: the call is to be made again, for everything. */
static enum esp_code take_event(struct esp_watch *watch, struct esp_layout_event *event) {
  bool is_new = watch->lineage != 0 && event->lineage != watch->lineage;
  watch->lineage = event->lineage;
  if (is_new) {
    if (watch->callback == NULL)
      queue_put(watch, NULL);
    if (!watch->listing) {
      watch->since = 0;
      watch->listing = true;
      esp_free(event);
      return ESP_ABORTED;
    }
  }
  watch->since = event->epoch;
  watch->retries = 0;
  esp_flags_take(watch->client, event, event->epoch);
  /* A call begins with an event, though nothing may have changed. */
  bool worth = event->changes_len > 0 || watch->listing;
  watch->listing = false;
  if (worth)
    deliver(watch, event);
  else
    esp_free(event);
  return ESP_OK;
}

/* ---- one call ---- */

static enum esp_code receive(struct esp_watch *watch, struct esp_call *call, struct esp_status *st) {
  while (!atomic_load(&watch->closing)) {
    if (!esp_call_may_recv(call)) {
      esp_call_step(call, esp_now_ms() + FOREVER_MS);
      continue;
    }
    struct esp_received message;
    struct esp_layout_event *event;
    enum esp_code code = esp_call_recv(call, 0, &message, st);
    if (code == ESP_OK && message.spans == NULL)
      return esp_fail(st, ESP_UNAVAILABLE, "the server ended the watch");
    if (code == ESP_OK)
      code = esp_decode_event((struct esp_in){.spans = message.spans, .len = message.spans_len}, &event, st);
    if (code == ESP_OK)
      code = take_event(watch, event);
    if (code != ESP_OK)
      return code;
  }
  return ESP_CANCELLED;
}

static void set_call(struct esp_watch *watch, struct esp_call *call) {
  pthread_mutex_lock(&watch->client->mutex);
  watch->call = call;
  pthread_mutex_unlock(&watch->client->mutex);
}

static enum esp_code follow(struct esp_watch *watch, struct esp_status *st) {
  struct esp_client *client = watch->client;
  uint64_t deadline_ms = esp_now_ms() + client->options.deadline_ms;
  struct esp_buf request = {0};
  struct esp_conn *conn;
  struct esp_call *call = NULL;
  enum esp_code code = esp_client_connect_next(client, deadline_ms, &watch->closing, &conn, st);
  if (code != ESP_OK)
    return code;
  code = esp_call_new(conn, ESP_METHOD_WORKER("Watch"), &call, st);
  esp_conn_unref(conn);
  if (code != ESP_OK)
    return code;
  set_call(watch, call);
  code = esp_encode_watch(&request, watch->since, true, st);
  if (code == ESP_OK) {
    esp_call_append(call, request.data, request.len);
    code = esp_call_send(call, true, deadline_ms, st);
  }
  esp_buf_done(&request);
  if (code == ESP_OK)
    code = receive(watch, call, st);
  set_call(watch, NULL);
  esp_call_free(call);
  return code;
}

/* ---- the thread ---- */

/* What may be otherwise later. */
static bool is_passing(enum esp_code code) {
  return esp_code_is_transient(code) || code == ESP_DEADLINE_EXCEEDED || code == ESP_RESOURCE_EXHAUSTED;
}

static void back_off(struct esp_watch *watch) {
  const struct esp_env *env = esp_env_system();
  const struct esp_client_options *options = &watch->client->options;
  uint64_t until_ms = esp_now_ms() + esp_backoff_ms(options->backoff_ms, options->backoff_ms_max, watch->retries++,
                                                    env->random_u64(env->data));
  pthread_mutex_lock(&watch->client->mutex);
  while (!atomic_load(&watch->closing) && esp_cond_wait(&watch->changed, &watch->client->mutex, until_ms)) {
  }
  pthread_mutex_unlock(&watch->client->mutex);
}

static void *run(void *data) {
  struct esp_watch *watch = data;
  struct esp_status st;
  enum esp_code code = ESP_OK;
  while (!atomic_load(&watch->closing) && (code == ESP_OK || code == ESP_ABORTED || is_passing(code))) {
    if (is_passing(code))
      back_off(watch);
    if (!atomic_load(&watch->closing))
      code = follow(watch, &st);
  }
  pthread_mutex_lock(&watch->client->mutex);
  watch->ended = true;
  watch->code = code;
  watch->st = st;
  pthread_cond_broadcast(&watch->changed);
  pthread_mutex_unlock(&watch->client->mutex);
  return NULL;
}

/* ---- the caller's side ---- */

static enum esp_code begin_now(struct esp_watch *watch, struct esp_status *st) {
  struct esp_retry retry = esp_client_retry(watch->client);
  struct esp_layout_event *event;
  enum esp_code code;
  do
    code = esp_layout_now(watch->client, retry.deadline_ms, &event, st);
  while (code != ESP_OK && esp_retry_wait(&retry, code));
  if (code != ESP_OK)
    return code;
  watch->since = event->epoch;
  watch->lineage = event->lineage;
  esp_free(event);
  return ESP_OK;
}

static void watch_free(struct esp_watch *watch) {
  for (size_t i = 0; i < watch->len; i++)
    esp_free(watch->events[(watch->first + i) % EVENTS_MAX]);
  esp_free(watch->current);
  pthread_cond_destroy(&watch->changed);
  esp_free(watch);
}

enum esp_code esp_watch_open(esp_client *client, uint64_t since_epoch, esp_layout_callback callback, void *data,
                             esp_watch **ret, struct esp_status *st) {
  struct esp_watch *watch = esp_calloc(1, sizeof *watch);
  if (watch == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for a watch");
  watch->client = client;
  watch->callback = callback;
  watch->data = data;
  watch->since = since_epoch;
  watch->listing = since_epoch == 0;
  atomic_init(&watch->closing, false);
  esp_cond_init(&watch->changed);
  enum esp_code code = since_epoch == ESP_WATCH_NOW ? begin_now(watch, st) : ESP_OK;
  if (code == ESP_OK && pthread_create(&watch->thread, NULL, run, watch) != 0)
    code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no thread to be had for a watch");
  if (code == ESP_OK)
    *ret = watch;
  else
    watch_free(watch);
  return code;
}

/* The oldest of the queue, with the mutex held. */
static enum esp_code queue_take(struct esp_watch *watch, const struct esp_layout_event **ret, struct esp_status *st) {
  esp_free(watch->current);
  watch->current = watch->events[watch->first];
  watch->first = (watch->first + 1) % EVENTS_MAX;
  watch->len--;
  pthread_cond_broadcast(&watch->changed);
  if (watch->current == NULL)
    return esp_fail(st, ESP_ABORTED,
                    "the server at %s started anew and lost commits: the events that follow are of another lineage",
                    watch->client->address.text);
  *ret = watch->current;
  return ESP_OK;
}

enum esp_code esp_watch_next(esp_watch *watch, uint64_t timeout_ms, const struct esp_layout_event **ret,
                             struct esp_status *st) {
  struct esp_client *client = watch->client;
  uint64_t deadline_ms = esp_now_ms() + (timeout_ms < FOREVER_MS ? timeout_ms : FOREVER_MS);
  if (watch->callback != NULL)
    return esp_fail(st, ESP_FAILED_PRECONDITION, "this watch has a callback, to which its events go");
  enum esp_code code;
  pthread_mutex_lock(&client->mutex);
  bool more = esp_left_ms(deadline_ms) > 0;
  while (watch->len == 0 && !watch->ended && more)
    more = esp_cond_wait(&watch->changed, &client->mutex, deadline_ms);
  if (watch->len > 0) {
    code = queue_take(watch, ret, st);
  } else if (watch->ended) {
    code = watch->code;
    if (st != NULL)
      *st = watch->st;
  } else {
    code = esp_fail(st, ESP_DEADLINE_EXCEEDED, "nothing has changed");
  }
  pthread_mutex_unlock(&client->mutex);
  return code;
}

void esp_watch_close(esp_watch *watch) {
  if (watch == NULL)
    return;
  pthread_mutex_lock(&watch->client->mutex);
  atomic_store(&watch->closing, true);
  if (watch->call != NULL)
    esp_call_wake(watch->call);
  pthread_cond_broadcast(&watch->changed);
  pthread_mutex_unlock(&watch->client->mutex);
  pthread_join(watch->thread, NULL);
  watch_free(watch);
}
