/* The gRPC server: addresses, completion queues with a thread each, and the list of calls that live.
 *
 * Happy path: each queue has a few calls posted that take whatever method comes; one that is taken is replaced at once.
 * A queue's thread hands every event to its call. At the shutdown gRPC takes no new calls, the calls that live are
 * told, and `done` is called when gRPC has ended and the last call's memory is freed.
 *
 * How it fails: an address that can't be bound fails esp_rpc_server_new, which takes down what it had begun. Without
 * memory for a posted call the queue's thread tries again after its next event. */
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/env.h"
#include "rpc/call.h"
#include "rpc/listen.h"
#include "rpc/rpc.h"
#include "wire/wire.h"

#define SLOTS_PER_QUEUE 4          /* calls that may arrive before a thread looks */
#define MESSAGE_SLACK (64u << 10)  /* what a message may hold beside a chunk of the full size */
#define PING_INTERVAL_MIN_MS 1000  /* clients may ping so often, with calls or without */
#define KEEPALIVE_MS 60000         /* after which a silent connection is asked for a sign of life, */
#define KEEPALIVE_TIMEOUT_MS 30000 /* and how long that may take: a host that vanished does not leave calls behind */
#define WATCH_MS 250               /* how often stalled writes, idle connections and memory for slots are looked for */

struct queue {
  struct esp_rpc_server *server;
  grpc_completion_queue *grpc;
  pthread_t thread;
  bool has_thread;
  uint64_t watched_ms;    /* when the last look was */
  _Atomic unsigned slots; /* calls that are posted */
};

struct esp_rpc_server {
  struct esp_engine *engine;
  grpc_server *grpc;
  struct queue *queues;
  size_t queues_len;
  char **addresses; /* with the real ports */
  size_t addresses_len;
  uint64_t stall_timeout_ms; /* of options */
  struct esp_tag shutdown;   /* gRPC has ended */
  pthread_mutex_t mutex;     /* of what follows */
  struct esp_call *live;     /* calls that were accepted and hold a grpc_call */
  uint64_t live_len;         /* calls that were accepted and are not freed: a little longer */
  bool is_shutting_down;     /* esp_rpc_server_shutdown was called */
  bool is_grpc_done;         /* gRPC has ended */
  bool is_done_called;
  bool was_idle;            /* at the last look the shutdown had begun and no call lived */
  void (*done)(void *data); /* of esp_rpc_server_shutdown */
  void *done_data;
};

/* ---- calls ---- */

/* Calls `done` if everything has ended. Under the mutex, which it releases. */
static void unlock_and_check_done(struct esp_rpc_server *server) {
  bool is_done = server->is_grpc_done && server->live_len == 0 && !server->is_done_called;
  server->is_done_called |= is_done;
  void (*done)(void *data) = server->done;
  void *data = server->done_data;
  pthread_mutex_unlock(&server->mutex);
  if (is_done)
    done(data); /* the server may be freed from here on */
}

void esp_rpc_server_forget(struct esp_rpc_server *server, struct esp_call *call) {
  pthread_mutex_lock(&server->mutex);
  if (call->live_prev != NULL)
    call->live_prev->live_next = call->live_next;
  else
    server->live = call->live_next;
  if (call->live_next != NULL)
    call->live_next->live_prev = call->live_prev;
  pthread_mutex_unlock(&server->mutex);
}

void esp_rpc_server_freed(struct esp_rpc_server *server) {
  pthread_mutex_lock(&server->mutex);
  server->live_len--;
  unlock_and_check_done(server);
}

/* Adds the call to those that live; true where the shutdown has begun, which it has to be told then. */
static bool remember(struct esp_rpc_server *server, struct esp_call *call) {
  pthread_mutex_lock(&server->mutex);
  call->live_next = server->live;
  if (server->live != NULL)
    server->live->live_prev = call;
  server->live = call;
  server->live_len++;
  call->is_drained = server->is_shutting_down;
  pthread_mutex_unlock(&server->mutex);
  return call->is_drained;
}

static void accept_call(struct esp_tag *tag, bool ok) {
  struct esp_call *call = (struct esp_call *)((char *)tag - offsetof(struct esp_call, accept));
  struct esp_rpc_server *server = call->server;
  for (size_t i = 0; i < server->queues_len; i++)
    if (server->queues[i].grpc == call->queue)
      atomic_fetch_sub(&server->queues[i].slots, 1);
  if (ok) {
    esp_call_begin(call);
    if (remember(server, call))
      esp_call_drain(call);
  }
  esp_call_unref(call);
}

/* Posts calls until the queue has its share; once the shutdown has begun gRPC gives them back as failed. */
static void post_slots(struct queue *queue) {
  struct esp_rpc_server *server = queue->server;
  while (atomic_load(&queue->slots) < SLOTS_PER_QUEUE) {
    pthread_mutex_lock(&server->mutex);
    bool is_late = server->is_shutting_down;
    pthread_mutex_unlock(&server->mutex);
    struct esp_call *call = is_late ? NULL : esp_call_new(server, server->engine, queue->grpc);
    if (call == NULL)
      return;
    call->accept.complete = accept_call;
    atomic_fetch_add(&queue->slots, 1);
    esp_tag_arm(&call->accept);
    if (grpc_server_request_call(server->grpc, &call->grpc, &call->details, &call->metadata, queue->grpc, queue->grpc,
                                 &call->accept) != GRPC_CALL_OK) {
      /* The shutdown overtook this thread. */
      atomic_fetch_sub(&queue->slots, 1);
      esp_call_unref(call);
      return;
    }
  }
}

/* Cancels calls whose clients take nothing of what they are sent, so that no reader holds memory for ever. */
static void cancel_stalled(struct esp_rpc_server *server, uint64_t now) {
  pthread_mutex_lock(&server->mutex);
  for (struct esp_call *call = server->live; call != NULL; call = call->live_next)
    if (esp_call_is_stalled(call, now - server->stall_timeout_ms))
      (void)grpc_call_cancel_with_status(call->grpc, GRPC_STATUS_DEADLINE_EXCEEDED,
                                         "nothing of a reply was taken for so long (--stall-timeout)", NULL);
  pthread_mutex_unlock(&server->mutex);
}

/* Once the last call has ended, connections are closed without waiting for their clients to agree: a client that is
 * idle may not look at its socket for seconds. The second look finds what the first has found, so that the last replies
 * have left. */
static void close_idle(struct esp_rpc_server *server) {
  pthread_mutex_lock(&server->mutex);
  bool is_idle = server->is_shutting_down && !server->is_grpc_done && server->live_len == 0;
  bool is_due = is_idle && server->was_idle;
  server->was_idle = is_idle;
  pthread_mutex_unlock(&server->mutex);
  if (is_due)
    esp_rpc_server_cancel(server);
}

/* What the first queue's thread does every now and then. */
static void watch(struct queue *queue) {
  struct esp_rpc_server *server = queue->server;
  const struct esp_env *env = esp_env_system();
  uint64_t now = env->now_ms(env->data);
  if (queue != server->queues || now < queue->watched_ms + WATCH_MS)
    return;
  queue->watched_ms = now;
  close_idle(server);
  if (server->stall_timeout_ms > 0 && now > server->stall_timeout_ms)
    cancel_stalled(server, now);
}

/* Handles one event, or waits for none for a while; false once the queue has shut down. */
static bool step_queue(struct queue *queue, int64_t wait_ms) {
  gpr_timespec deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(wait_ms, GPR_TIMESPAN));
  grpc_event event = grpc_completion_queue_next(queue->grpc, deadline, NULL);
  if (event.type == GRPC_OP_COMPLETE)
    esp_tag_complete(event.tag, event.success != 0);
  return event.type != GRPC_QUEUE_SHUTDOWN;
}

static void *run_queue(void *data) {
  struct queue *queue = data;
  while (step_queue(queue, WATCH_MS)) {
    watch(queue);
    post_slots(queue);
  }
  return NULL;
}

/* ---- start ---- */

static grpc_arg int_arg(const char *key, int value) {
  return (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
}

static grpc_server *create_server(unsigned max_streams) {
  grpc_arg args[] = {
      int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)(ESP_CHUNK_BYTES_MAX + MESSAGE_SLACK)),
      /* Inflating knows no bound, so compressed messages are seen as they are, and refused. */
      int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
      int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
      /* Two servers on one port would each get half of the workers. */
      int_arg(GRPC_ARG_ALLOW_REUSEPORT, 0),
      int_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, max_streams > INT_MAX ? INT_MAX : (int)max_streams),
      int_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, PING_INTERVAL_MIN_MS),
      int_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
      int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, KEEPALIVE_MS),
      int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, KEEPALIVE_TIMEOUT_MS),
  };
  grpc_channel_args all = {.num_args = sizeof(args) / sizeof(*args), .args = args};
  return grpc_server_create(&all, NULL);
}

static enum esp_code bind_unix(grpc_server *grpc, const char *address, grpc_server_credentials *creds,
                               struct esp_status *st) {
  enum esp_code code = esp_listen_clear(esp_listen_unix_path(address), st);
  if (code != ESP_OK)
    return code;
  /* The file must never be there with more rights than it is to have. */
  mode_t before = umask(0177);
  int port = grpc_server_add_http2_port(grpc, address, creds);
  umask(before);
  return port != 0 ? ESP_OK : esp_fail(st, ESP_UNAVAILABLE, "can't listen on %s", address);
}

/* Binds one address and gives its text with the real port. */
static enum esp_code bind_address(grpc_server *grpc, const char *address, grpc_server_credentials *creds,
                                  char **ret_text, struct esp_status *st) {
  if (esp_listen_unix_path(address) != NULL) {
    enum esp_code code = bind_unix(grpc, address, creds, st);
    if (code == ESP_OK && (*ret_text = esp_strdup(address)) == NULL)
      code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for an address");
    return code;
  }
  int port = grpc_server_add_http2_port(grpc, address, creds);
  if (port == 0)
    return esp_fail(st, ESP_UNAVAILABLE, "can't listen on %s: the port is taken, or the address is not of this machine",
                    address);
  size_t host_len = (size_t)(strrchr(address, ':') - address);
  size_t size = host_len + sizeof(":65535");
  char *text = esp_malloc(size);
  if (text == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for an address");
  (void)snprintf(text, size, "%.*s:%d", (int)host_len, address, port);
  *ret_text = text;
  return ESP_OK;
}

static enum esp_code bind_all(struct esp_rpc_server *server, const struct esp_rpc_options *options,
                              struct esp_status *st) {
  server->addresses = esp_calloc(options->listen_len, sizeof(*server->addresses));
  if (server->addresses == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for addresses");
  grpc_server_credentials *creds = grpc_insecure_server_credentials_create();
  enum esp_code code = ESP_OK;
  for (size_t i = 0; i < options->listen_len && code == ESP_OK; i++) {
    code = bind_address(server->grpc, options->listen[i], creds, &server->addresses[i], st);
    server->addresses_len += code == ESP_OK;
  }
  grpc_server_credentials_release(creds);
  return code;
}

static enum esp_code make_queues(struct esp_rpc_server *server, unsigned threads, struct esp_status *st) {
  server->queues = esp_calloc(threads, sizeof(*server->queues));
  if (server->queues == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for completion queues");
  server->queues_len = threads;
  for (size_t i = 0; i < threads; i++) {
    server->queues[i].server = server;
    server->queues[i].grpc = grpc_completion_queue_create_for_next(NULL);
    grpc_server_register_completion_queue(server->grpc, server->queues[i].grpc, NULL);
  }
  return ESP_OK;
}

static enum esp_code start_threads(struct esp_rpc_server *server, struct esp_status *st) {
  for (size_t i = 0; i < server->queues_len; i++)
    post_slots(&server->queues[i]);
  for (size_t i = 0; i < server->queues_len; i++) {
    struct queue *queue = &server->queues[i];
    if (pthread_create(&queue->thread, NULL, run_queue, queue) != 0)
      return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "can't start a thread");
    queue->has_thread = true;
  }
  return ESP_OK;
}

static void end_grpc(struct esp_tag *tag, bool ok) {
  (void)ok;
  struct esp_rpc_server *server = (struct esp_rpc_server *)((char *)tag - offsetof(struct esp_rpc_server, shutdown));
  pthread_mutex_lock(&server->mutex);
  server->is_grpc_done = true;
  unlock_and_check_done(server);
}

static void set_flag(void *data) {
  atomic_store((_Atomic bool *)data, true);
}

/* Takes down a server that did not come up. Queues without a thread are served here. */
static void abandon(struct esp_rpc_server *server) {
  if (server->queues_len > 0) {
    _Atomic bool is_done = false;
    esp_rpc_server_shutdown(server, set_flag, &is_done);
    esp_rpc_server_cancel(server);
    while (!atomic_load(&is_done))
      for (size_t i = 0; i < server->queues_len; i++)
        if (!server->queues[i].has_thread)
          (void)step_queue(&server->queues[i], 1);
  }
  esp_rpc_server_free(server);
}

enum esp_code esp_rpc_server_new(const struct esp_rpc_options *options, struct esp_engine *engine,
                                 struct esp_rpc_server **ret, struct esp_status *st) {
  ESP_CHECK(options->threads >= 1 && options->threads <= 64 && options->listen_len >= 1);
  struct esp_rpc_server *server = esp_calloc(1, sizeof(*server));
  if (server == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a server");
  grpc_init();
  server->engine = engine;
  server->stall_timeout_ms = options->stall_timeout_ms;
  pthread_mutex_init(&server->mutex, NULL);
  server->grpc = create_server(options->max_streams);
  enum esp_code code = make_queues(server, options->threads, st);
  if (code == ESP_OK)
    code = bind_all(server, options, st);
  if (code == ESP_OK) {
    grpc_server_start(server->grpc);
    code = start_threads(server, st);
  }
  if (code != ESP_OK) {
    abandon(server);
    return code;
  }
  *ret = server;
  return ESP_OK;
}

size_t esp_rpc_server_addresses(const struct esp_rpc_server *server, const char *const **ret) {
  *ret = (const char *const *)server->addresses;
  return server->addresses_len;
}

/* ---- the end ---- */

/* A call that lives and has not been told of the shutdown, ref'd, or NULL. */
static struct esp_call *next_to_drain(struct esp_rpc_server *server) {
  pthread_mutex_lock(&server->mutex);
  struct esp_call *call = server->live;
  while (call != NULL && call->is_drained)
    call = call->live_next;
  if (call != NULL) {
    call->is_drained = true;
    esp_call_ref(call);
  }
  pthread_mutex_unlock(&server->mutex);
  return call;
}

void esp_rpc_server_shutdown(struct esp_rpc_server *server, void (*done)(void *data), void *data) {
  pthread_mutex_lock(&server->mutex);
  ESP_CHECK(!server->is_shutting_down);
  server->is_shutting_down = true;
  server->done = done;
  server->done_data = data;
  pthread_mutex_unlock(&server->mutex);
  server->shutdown.complete = end_grpc;
  esp_tag_arm(&server->shutdown);
  grpc_server_shutdown_and_notify(server->grpc, server->queues[0].grpc, &server->shutdown);
  for (struct esp_call *call; (call = next_to_drain(server)) != NULL;) {
    esp_call_drain(call);
    esp_call_unref(call);
  }
}

void esp_rpc_server_cancel(struct esp_rpc_server *server) {
  grpc_server_cancel_all_calls(server->grpc);
}

void esp_rpc_server_free(struct esp_rpc_server *server) {
  if (server == NULL)
    return;
  for (size_t i = 0; i < server->queues_len; i++)
    grpc_completion_queue_shutdown(server->queues[i].grpc);
  for (size_t i = 0; i < server->queues_len; i++) {
    /* Without a thread of its own (the server did not come up) a queue is drained here. */
    if (server->queues[i].has_thread)
      pthread_join(server->queues[i].thread, NULL);
    else
      (void)run_queue(&server->queues[i]);
  }
  grpc_server_destroy(server->grpc);
  for (size_t i = 0; i < server->queues_len; i++)
    grpc_completion_queue_destroy(server->queues[i].grpc);
  esp_free(server->queues);
  for (size_t i = 0; i < server->addresses_len; i++)
    esp_free(server->addresses[i]);
  esp_free(server->addresses);
  pthread_mutex_destroy(&server->mutex);
  esp_free(server);
  /* Blocks until gRPC has let go of every slice, so that no tensor is held when this returns. */
  grpc_shutdown_blocking();
}
