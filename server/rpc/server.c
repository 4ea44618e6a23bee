/* The gRPC server: completion queues with a thread each, and the list of calls that live.
 *
 * Happy path: connections come from accept.c and are given to gRPC as sockets (which 1.51 takes without TLS only:
 * sockets with TLS will need another way in). Each queue has a few calls posted that take whatever method comes; one
 * that is taken is replaced at once.
 * A queue's thread hands every event to its call. At the shutdown gRPC takes no new calls, the calls that live are
 * told, and `done` is called when gRPC has ended and the last call's memory is freed.
 *
 * How it fails: an address that can't be bound fails esp_rpc_server_new, which takes down what it had begun. Without
 * memory for a posted call the queue's thread tries again after its next event. */
#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/env.h"
#include "rpc/accept.h"
#include "rpc/call.h"
#include "rpc/inflow.h"
#include "rpc/locks.h"
#include "rpc/methods.h"
#include "rpc/rpc.h"

#define SLOTS_PER_QUEUE 4             /* calls that may arrive before a thread looks */
#define PING_INTERVAL_MIN_MS 1000     /* clients may ping so often, with calls or without */
#define STREAM_WINDOW_BYTES (4 << 20) /* what a client may send on a stream before anybody reads it */
#define WATCH_MS 100 /* how often stalled writes, idle connections and memory for slots are looked for */

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
  struct esp_rpc_options options; /* listen is not kept */
  struct esp_accept *accept;
  grpc_server_credentials *creds; /* of connections: none */
  grpc_server *grpc;
  struct queue *queues;
  size_t queues_len;
  struct esp_tag shutdown; /* gRPC has ended */
  pthread_mutex_t mutex;   /* of what follows */
  struct esp_call *live;   /* calls that were accepted and hold a grpc_call */
  uint64_t calls;          /* that were accepted so far */
  struct esp_inflows inflows;
  uint64_t live_len;     /* calls that were accepted and are not freed: a little longer */
  uint64_t early_len;    /* those among `live` that were accepted before the shutdown */
  bool is_shutting_down; /* esp_rpc_server_shutdown was called */
  bool is_ending;        /* and gRPC was told */
  bool is_grpc_done;     /* gRPC has ended */
  bool is_done_called;
  bool was_idle;            /* at the last look the shutdown had begun and no early call lived */
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
  if (call->connection >= 0)
    esp_inflows_leave(&server->inflows, call->connection);
  server->early_len -= call->is_early;
  pthread_mutex_unlock(&server->mutex);
}

void esp_rpc_server_freed(struct esp_rpc_server *server) {
  pthread_mutex_lock(&server->mutex);
  server->live_len--;
  unlock_and_check_done(server);
}

/* The socket that a call came on: gRPC names the peer after it, since it got nothing else. -1: unknown. */
static int connection_of(const struct esp_call *call) {
  char *peer = grpc_call_get_peer(call->grpc), *end = NULL;
  long connection = -1;
  if (peer != NULL && strncmp(peer, "fd:", 3) == 0)
    connection = strtol(peer + 3, &end, 10);
  if (end == NULL || *end != '\0' || connection < 0 || connection > INT_MAX)
    connection = -1;
  gpr_free(peer);
  return (int)connection;
}

/* Counts the call on its connection. */
static void enter(struct esp_rpc_server *server, struct esp_call *call) {
  int connection = connection_of(call);
  pthread_mutex_lock(&server->mutex);
  uint64_t calls = connection < 0 ? 0 : esp_inflows_enter(&server->inflows, connection);
  call->connection = calls == 0 ? -1 : connection;
  call->is_beyond = calls > server->options.max_streams;
  call->number = ++server->calls;
  pthread_mutex_unlock(&server->mutex);
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
  call->is_early = !server->is_shutting_down;
  server->early_len += call->is_early;
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
    enter(server, call);
    esp_call_begin(call);
    if (remember(server, call))
      esp_call_drain(call);
  }
  esp_call_unref(call);
}

/* Posts calls until the queue has its share; in the end gRPC gives them back as failed. */
static void post_slots(struct queue *queue) {
  struct esp_rpc_server *server = queue->server;
  while (atomic_load(&queue->slots) < SLOTS_PER_QUEUE) {
    pthread_mutex_lock(&server->mutex);
    bool is_late = server->is_ending;
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

/* Ends a call, once: each time anew is as much work for gRPC, and thousands of calls cancelled every 100 ms would keep
 * this thread from hearing that they have ended. Under the mutex. */
static void cancel(struct esp_call *call, grpc_status_code code, const char *text) {
  if (!call->is_cancelled)
    (void)grpc_call_cancel_with_status(call->grpc, code, text, NULL);
  call->is_cancelled = true;
}

/* Cancels calls whose clients take nothing of what they are sent, so that no reader holds memory for ever. */
static void cancel_stalled(struct esp_rpc_server *server, uint64_t now) {
  pthread_mutex_lock(&server->mutex);
  for (struct esp_call *call = server->live; call != NULL; call = call->live_next)
    if (esp_call_is_stalled(call, now - server->options.stall_timeout_ms))
      cancel(call, GRPC_STATUS_DEADLINE_EXCEEDED, "nothing of a reply was taken for so long (--stall-timeout)");
  pthread_mutex_unlock(&server->mutex);
}

/* Cancels the calls of connections on which a message comes in that is longer than it may be. */
static void cancel_endless(struct esp_rpc_server *server) {
  uint64_t bytes_max = server->options.max_message + STREAM_WINDOW_BYTES;
  pthread_mutex_lock(&server->mutex);
  esp_inflows_begin(&server->inflows);
  for (struct esp_call *call = server->live; call != NULL; call = call->live_next)
    if (call->connection >= 0)
      esp_inflows_add(&server->inflows, call->connection, call->number, atomic_load(&call->moved));
  esp_inflows_end(&server->inflows, bytes_max, esp_inflow_received);
  for (struct esp_call *call = server->live; call != NULL; call = call->live_next)
    if (call->connection >= 0 && esp_inflows_is_endless(&server->inflows, call->connection))
      cancel(call, GRPC_STATUS_RESOURCE_EXHAUSTED, "a message is longer than --max-message");
  pthread_mutex_unlock(&server->mutex);
}

static void end_grpc(struct esp_tag *tag, bool ok) {
  (void)ok;
  struct esp_rpc_server *server = (struct esp_rpc_server *)((char *)tag - offsetof(struct esp_rpc_server, shutdown));
  pthread_mutex_lock(&server->mutex);
  server->is_grpc_done = true;
  unlock_and_check_done(server);
}

/* Closes all connections without waiting for their clients to agree: one that is idle may not look at its socket for
 * seconds. Once; by the first queue's thread, or for it. */
static void close_connections(struct esp_rpc_server *server) {
  server->shutdown.complete = end_grpc;
  esp_tag_arm(&server->shutdown);
  grpc_server_shutdown_and_notify(server->grpc, server->queues[0].grpc, &server->shutdown);
  grpc_server_cancel_all_calls(server->grpc);
}

/* gRPC is not told of the shutdown before the calls that it found have ended, since it cancels those that come after
 * that itself, and their clients would not know that they may try again; here they are told so. The second look finds
 * what the first has found, so that the last replies have left. */
static void close_idle(struct esp_rpc_server *server) {
  pthread_mutex_lock(&server->mutex);
  bool is_idle = server->is_shutting_down && !server->is_ending && server->early_len == 0;
  bool is_due = is_idle && server->was_idle;
  server->was_idle = is_idle;
  server->is_ending |= is_due;
  pthread_mutex_unlock(&server->mutex);
  if (is_due)
    close_connections(server);
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
  cancel_endless(server);
  if (server->options.stall_timeout_ms > 0 && now > server->options.stall_timeout_ms)
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

static grpc_server *create_server(const struct esp_rpc_options *options) {
  grpc_arg args[] = {
      int_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)options->max_message),
      /* Left to measure, gRPC grows each stream's window to tens of MiB, which pushes that wait for staging then hold
         beside --max-staged. A fixed one is as fast. */
      int_arg(GRPC_ARG_HTTP2_BDP_PROBE, 0),
      int_arg(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, STREAM_WINDOW_BYTES),
      /* Inflating knows no bound, so compressed messages are seen as they are, and refused. */
      int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
      int_arg(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
      int_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, (int)options->max_streams),
      int_arg(GRPC_ARG_MAX_CONNECTION_IDLE_MS, (int)options->idle_timeout_ms),
      int_arg(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, PING_INTERVAL_MIN_MS),
      int_arg(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1),
      int_arg(GRPC_ARG_KEEPALIVE_TIME_MS, (int)options->keepalive_ms),
      int_arg(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, (int)options->keepalive_timeout_ms),
  };
  grpc_channel_args all = {.num_args = sizeof(args) / sizeof(*args), .args = args};
  return grpc_server_create(&all, NULL);
}

/* A connection came; by the thread that accepts. */
static void connected(void *data, int fd) {
  struct esp_rpc_server *server = data;
  grpc_server_add_channel_from_fd(server->grpc, fd, server->creds);
}

static enum esp_code make_accept(struct esp_rpc_server *server, const struct esp_rpc_options *options,
                                 struct esp_status *st) {
  const struct esp_accept_options wanted = {
      .listen = options->listen,
      .listen_len = options->listen_len,
      .connections_max = options->max_connections,
      .stall_timeout_ms = options->stall_timeout_ms,
      .user_timeout_ms = options->keepalive_timeout_ms,
      .connected = connected,
      .data = server,
  };
  return esp_accept_new(&wanted, &server->accept, st);
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

static void set_flag(void *data) {
  atomic_store((_Atomic bool *)data, true);
}

/* Takes down a server that did not come up. Queues without a thread are served here. */
static void abandon(struct esp_rpc_server *server) {
  if (server->queues_len > 0) {
    _Atomic bool is_done = false;
    esp_rpc_server_shutdown(server, set_flag, &is_done);
    pthread_mutex_lock(&server->mutex);
    bool is_due = !server->is_ending;
    server->is_ending = true;
    pthread_mutex_unlock(&server->mutex);
    if (is_due)
      close_connections(server);
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
  esp_locks_unwatched();
  grpc_init();
  server->engine = engine;
  server->options = *options;
  server->options.listen = NULL;
  pthread_mutex_init(&server->mutex, NULL);
  server->grpc = create_server(options);
  server->creds = grpc_insecure_server_credentials_create();
  enum esp_code code = make_queues(server, options->threads, st);
  if (code == ESP_OK)
    code = make_accept(server, options, st);
  if (code == ESP_OK) {
    grpc_server_start(server->grpc);
    code = start_threads(server, st);
  }
  if (code == ESP_OK)
    code = esp_accept_start(server->accept, st);
  if (code != ESP_OK) {
    abandon(server);
    return code;
  }
  *ret = server;
  return ESP_OK;
}

size_t esp_rpc_server_addresses(const struct esp_rpc_server *server, const char *const **ret) {
  return esp_accept_addresses(server->accept, ret);
}

const struct esp_rpc_options *esp_rpc_server_options(const struct esp_rpc_server *server) {
  return &server->options;
}

void esp_rpc_server_stat(struct esp_rpc_server *server, struct esp_rpc_stat *ret) {
  struct esp_accept_stat stat;
  esp_accept_stat(server->accept, &stat);
  pthread_mutex_lock(&server->mutex);
  *ret = (struct esp_rpc_stat){stat.connections, stat.connections_max, stat.refused, server->live_len};
  pthread_mutex_unlock(&server->mutex);
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
  if (server->accept != NULL)
    esp_accept_stop(server->accept); /* before gRPC's shutdown, which takes no connections any more */
  for (struct esp_call *call; (call = next_to_drain(server)) != NULL;) {
    esp_call_drain(call);
    esp_call_unref(call);
  }
}

void esp_rpc_server_cancel(struct esp_rpc_server *server) {
  pthread_mutex_lock(&server->mutex);
  for (struct esp_call *call = server->live; call != NULL; call = call->live_next)
    cancel(call, GRPC_STATUS_UNAVAILABLE, ESP_SHUTDOWN_TEXT);
  pthread_mutex_unlock(&server->mutex);
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
  grpc_server_credentials_release(server->creds);
  esp_accept_free(server->accept);
  esp_inflows_done(&server->inflows);
  pthread_mutex_destroy(&server->mutex);
  esp_free(server);
  /* Blocks until gRPC has let go of every slice, so that no tensor is held when this returns. */
  grpc_shutdown_blocking();
}
