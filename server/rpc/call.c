/* The life of one RPC. call.h draws its states.
 *
 * Happy path: a slot that waits at a completion queue becomes a call; its method is found, its close asked for, so that
 * the client's going away is heard of, and its first message. Each event is handled in turn, and after each whatever
 * can be sent is sent: at most one write is outstanding, and the status goes with the last message where both are
 * there. A method that answers soon, and whether anybody still waits or not, asks for the close with its status: one
 * batch and one event less.
 *
 * How it fails: a client that goes away shows as a failed read or write, which are ignored, and as the close event,
 * which ends the call. The call's memory lives until every event that was armed has been handled or cancelled. */
#include "rpc/call.h"

#include <stdarg.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/env.h"
#include "rpc/listen.h"

void esp_tag_arm(struct esp_tag *tag) {
  atomic_store_explicit(&tag->armed, true, memory_order_release);
}

void esp_tag_complete(struct esp_tag *tag, bool ok) {
  ESP_CHECK(atomic_exchange_explicit(&tag->armed, false, memory_order_acquire));
  tag->complete(tag, ok);
}

/* ---- events ---- */

void esp_event_arm(struct esp_event *event, struct esp_call *call, void (*handle)(struct esp_event *event)) {
  ESP_CHECK(event->call == NULL);
  event->call = call;
  event->handle = handle;
  esp_call_ref(call);
}

static void flush(struct esp_call *call);
static void begin_read(struct esp_call *call);

/* Takes the next event off the queue; without one the thread is no longer running. */
static struct esp_event *take_event(struct esp_call *call) {
  pthread_mutex_lock(&call->mutex);
  if (call->first == NULL && call->wants_message) {
    pthread_mutex_unlock(&call->mutex);
    begin_read(call);
    pthread_mutex_lock(&call->mutex);
  }
  struct esp_event *event = call->first;
  if (event == NULL) {
    call->running = false;
  } else {
    call->first = event->next;
    event->queued = false;
  }
  pthread_mutex_unlock(&call->mutex);
  return event;
}

/* Handles events until there are none. By the queue's thread only, which holds a reference of its own. */
static void run(struct esp_call *call) {
  pthread_mutex_lock(&call->mutex);
  call->running = true;
  pthread_mutex_unlock(&call->mutex);
  for (struct esp_event *event; (event = take_event(call)) != NULL;) {
    event->call = NULL;
    event->handle(event);
    flush(call);
    esp_call_unref(call);
  }
}

/* Adds the event to the queue, under the mutex. Once that is released the event may be handled, and its reference to
 * the call gone. */
static void append(struct esp_event *event) {
  struct esp_call *call = event->call;
  event->next = NULL;
  event->queued = true;
  if (call->first == NULL)
    call->first = event;
  else
    call->last->next = event;
  call->last = event;
}

static void complete_wake(struct esp_tag *tag, bool ok) {
  (void)ok;
  struct esp_call *call = (struct esp_call *)((char *)tag - offsetof(struct esp_call, wake));
  pthread_mutex_lock(&call->mutex);
  call->waking = false;
  pthread_mutex_unlock(&call->mutex);
  run(call);
  esp_call_unref(call);
}

void esp_event_post(struct esp_event *event) {
  struct esp_call *call = event->call;
  esp_call_ref(call);
  pthread_mutex_lock(&call->mutex);
  append(event);
  bool must_wake = !call->running && !call->waking;
  call->waking |= must_wake;
  pthread_mutex_unlock(&call->mutex);
  if (!must_wake) {
    esp_call_unref(call);
    return;
  }
  /* A batch of nothing comes back at once, at the call's own queue. Unlike others it may be begun by any thread. */
  grpc_call *grpc = call->grpc;
  call->wake.complete = complete_wake;
  esp_tag_arm(&call->wake); /* the last look at the call from here */
  ESP_CHECK(grpc_call_start_batch(grpc, NULL, 0, &call->wake, NULL) == GRPC_CALL_OK);
}

void esp_event_cancel(struct esp_event *event) {
  struct esp_call *call = event->call;
  if (call == NULL)
    return;
  pthread_mutex_lock(&call->mutex);
  if (event->queued) {
    struct esp_event *previous = NULL;
    for (struct esp_event *at = call->first; at != event; at = at->next)
      previous = at;
    *(previous == NULL ? &call->first : &previous->next) = event->next;
    if (call->last == event)
      call->last = previous;
    event->queued = false;
  }
  pthread_mutex_unlock(&call->mutex);
  event->call = NULL;
  esp_call_unref(call);
}

static void complete_event(struct esp_tag *tag, bool ok) {
  struct esp_event *event = (struct esp_event *)((char *)tag - offsetof(struct esp_event, tag));
  struct esp_call *call = event->call;
  event->ok = ok;
  esp_call_ref(call);
  pthread_mutex_lock(&call->mutex);
  append(event);
  pthread_mutex_unlock(&call->mutex);
  run(call);
  esp_call_unref(call);
}

/* Begins a batch whose end is the event. */
static void start_batch(struct esp_call *call, const grpc_op *ops, size_t ops_len, struct esp_event *event,
                        void (*handle)(struct esp_event *event)) {
  event->tag.complete = complete_event;
  esp_event_arm(event, call, handle);
  esp_tag_arm(&event->tag);
  ESP_CHECK(grpc_call_start_batch(call->grpc, ops, ops_len, &event->tag, NULL) == GRPC_CALL_OK);
}

/* ---- reading ---- */

static void release_message(struct esp_call *call) {
  if (call->incoming != NULL)
    grpc_byte_buffer_destroy(call->incoming);
  call->incoming = NULL;
  call->spans_len = 0;
}

/* Lists the message's pieces in place; false without memory. */
static bool list_spans(struct esp_call *call) {
  grpc_slice_buffer *slices = &call->incoming->data.raw.slice_buffer;
  if (!esp_grow((void **)&call->spans, &call->spans_capacity, slices->count, sizeof(*call->spans)))
    return false;
  for (size_t i = 0; i < slices->count; i++)
    call->spans[i] = (struct esp_span){GRPC_SLICE_START_PTR(slices->slices[i]), GRPC_SLICE_LENGTH(slices->slices[i])};
  call->spans_len = slices->count;
  return true;
}

static void handle_message(struct esp_call *call) {
  call->messages++;
  atomic_fetch_add_explicit(&call->moved, 1, memory_order_relaxed);
  if (call->incoming->type != GRPC_BB_RAW || call->incoming->data.raw.compression != GRPC_COMPRESS_NONE) {
    esp_call_fail(call, ESP_UNIMPLEMENTED, "the message is compressed, which this server does not take");
    return;
  }
  if (!list_spans(call))
    esp_call_fail(call, ESP_RESOURCE_EXHAUSTED, "no memory for a message");
  else
    call->method->message(call);
}

static void handle_recv(struct esp_event *event) {
  struct esp_call *call = (struct esp_call *)((char *)event - offsetof(struct esp_call, recv));
  if (esp_call_is_over(call))
    return;
  if (call->incoming != NULL) {
    handle_message(call);
    return;
  }
  /* A stream that broke looks the same as one that ended, but for this. What broke is about to be closed; or freed,
   * where the close is not waited for yet. */
  if (!event->ok || grpc_call_failed_before_recv_message(call->grpc))
    return;
  if (call->method->half_close != NULL)
    call->method->half_close(call);
  else if (call->messages == 0)
    esp_call_fail(call, ESP_INVALID_ARGUMENT, "the request has no message");
}

void esp_call_read(struct esp_call *call) {
  if (esp_call_is_over(call))
    return;
  release_message(call);
  call->wants_message = true;
}

/* When what was read is dealt with, and the answer sent where it is there: with a read gRPC writes a window update of
 * its own, and the peer would wake up for that first. */
static void begin_read(struct esp_call *call) {
  call->wants_message = false;
  if (esp_call_is_over(call))
    return;
  grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &call->incoming};
  start_batch(call, &op, 1, &call->recv, handle_recv);
}

/* ---- writing ---- */

static void close_call(struct esp_call *call);

static void handle_send(struct esp_event *event) {
  struct esp_call *call = (struct esp_call *)((char *)event - offsetof(struct esp_call, send));
  bool was_message = call->sending != NULL;
  if (was_message) {
    grpc_byte_buffer_destroy(call->sending);
    atomic_fetch_add_explicit(&call->moved, 1, memory_order_relaxed);
  }
  call->sending = NULL;
  atomic_store_explicit(&call->sending_since_ms, 0, memory_order_relaxed);
  if (was_message && call->writes_first == call->writes_len && !esp_call_is_over(call) &&
      call->method->writable != NULL)
    call->method->writable(call);
  if (call->status_sent && call->method->answers_always)
    close_call(call);
}

/* Takes the next message to send, or NULL. */
static grpc_byte_buffer *take_write(struct esp_call *call) {
  if (call->writes_first == call->writes_len)
    return NULL;
  grpc_byte_buffer *buffer = call->writes[call->writes_first++];
  if (call->writes_first == call->writes_len)
    call->writes_first = call->writes_len = 0;
  return buffer;
}

static uint64_t now_ms(void) {
  const struct esp_env *env = esp_env_system();
  return env->now_ms(env->data);
}

static grpc_op recv_close(struct esp_call *call) {
  return (grpc_op){.op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data.recv_close_on_server.cancelled = &call->close_cancelled};
}

/* Sends what there is to send, if nothing is being sent. */
static void flush(struct esp_call *call) {
  if (call->grpc == NULL || call->send.call != NULL || call->closed || call->status_sent)
    return;
  grpc_op ops[4] = {0};
  size_t ops_len = 0;
  call->sending = take_write(call);
  bool is_status = call->finished && call->writes_len == 0;
  if (!call->metadata_sent && (call->sending != NULL || is_status || call->method->is_eager)) {
    ops[ops_len++] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
    call->metadata_sent = true;
  }
  if (call->sending != NULL)
    ops[ops_len++] = (grpc_op){.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = call->sending};
  grpc_slice details = grpc_empty_slice();
  if (is_status) {
    details = grpc_slice_from_copied_string(call->status.message);
    ops[ops_len++] =
        (grpc_op){.op = GRPC_OP_SEND_STATUS_FROM_SERVER,
                  .data.send_status_from_server = {.status = (grpc_status_code)call->code, .status_details = &details}};
    call->status_sent = true;
    if (call->method->answers_always)
      ops[ops_len++] = recv_close(call);
  }
  if (ops_len > 0) {
    atomic_store_explicit(&call->sending_since_ms, now_ms(), memory_order_relaxed);
    start_batch(call, ops, ops_len, &call->send, handle_send);
  }
  grpc_slice_unref(details);
}

static void fail_reply(struct esp_call *call) {
  esp_call_fail(call, ESP_UNAVAILABLE, ESP_REPLY_LOST_TEXT);
}

void esp_call_write(struct esp_call *call, grpc_byte_buffer *buffer) {
  if (esp_call_is_over(call)) {
    grpc_byte_buffer_destroy(buffer);
    return;
  }
  if (!esp_grow((void **)&call->writes, &call->writes_capacity, call->writes_len + 1, sizeof(*call->writes))) {
    grpc_byte_buffer_destroy(buffer);
    fail_reply(call);
    return;
  }
  call->writes[call->writes_len++] = buffer;
}

void esp_call_write_message(struct esp_call *call, const ProtobufCMessage *message) {
  struct esp_page page = {0};
  if (esp_page_add_head(&page, message))
    esp_call_write(call, esp_page_take(&page));
  else
    fail_reply(call);
}

size_t esp_call_unsent(const struct esp_call *call) {
  return call->writes_len - call->writes_first;
}

bool esp_call_is_stalled(const struct esp_call *call, uint64_t since_ms) {
  uint64_t began = atomic_load_explicit(&call->sending_since_ms, memory_order_relaxed);
  return began != 0 && began < since_ms;
}

/* ---- the end ---- */

void esp_call_finish(struct esp_call *call, enum esp_code code, const struct esp_status *st) {
  if (call->finished)
    return;
  call->finished = true;
  call->code = code;
  if (code != ESP_OK && st != NULL)
    memcpy(call->status.message, st->message, sizeof(st->message));
}

void esp_call_fail(struct esp_call *call, enum esp_code code, const char *format, ...) {
  struct esp_status st;
  va_list args;
  va_start(args, format);
  code = esp_fail_v(&st, code, format, args);
  va_end(args);
  esp_call_finish(call, code, &st);
}

bool esp_call_is_over(const struct esp_call *call) {
  return call->finished || call->closed;
}

static void close_call(struct esp_call *call) {
  call->closed = true;
  for (grpc_byte_buffer *buffer; (buffer = take_write(call)) != NULL;)
    grpc_byte_buffer_destroy(buffer);
  if (call->method->closed != NULL)
    call->method->closed(call);
}

static void handle_close(struct esp_event *event) {
  close_call((struct esp_call *)((char *)event - offsetof(struct esp_call, close)));
}

static void handle_drain(struct esp_event *event) {
  struct esp_call *call = (struct esp_call *)((char *)event - offsetof(struct esp_call, drain));
  if (!esp_call_is_over(call) && call->method->drain != NULL)
    call->method->drain(call);
}

void esp_call_drain(struct esp_call *call) {
  esp_event_arm(&call->drain, call, handle_drain);
  esp_event_post(&call->drain);
}

/* ---- birth and death ---- */

struct esp_call *esp_call_new(struct esp_rpc_server *server, struct esp_engine *engine, grpc_completion_queue *queue) {
  struct esp_call *call = esp_calloc(1, sizeof(*call));
  if (call == NULL)
    return NULL;
  call->server = server;
  call->engine = engine;
  call->queue = queue;
  atomic_init(&call->refs, 1);
  pthread_mutex_init(&call->mutex, NULL);
  grpc_call_details_init(&call->details);
  grpc_metadata_array_init(&call->metadata);
  return call;
}

void esp_call_ref(struct esp_call *call) {
  atomic_fetch_add_explicit(&call->refs, 1, memory_order_relaxed);
}

void esp_call_unref(struct esp_call *call) {
  if (atomic_fetch_sub_explicit(&call->refs, 1, memory_order_acq_rel) > 1)
    return;
  if (call->state != NULL && call->method->release != NULL)
    call->method->release(call);
  esp_free(call->state);
  release_message(call);
  esp_free(call->spans);
  esp_free(call->writes);
  grpc_call_details_destroy(&call->details);
  grpc_metadata_array_destroy(&call->metadata);
  struct esp_rpc_server *server = call->server;
  bool was_accepted = call->grpc != NULL;
  if (was_accepted) {
    esp_rpc_server_forget(server, call);
    grpc_call_unref(call->grpc);
  }
  pthread_mutex_destroy(&call->mutex);
  esp_free(call);
  if (was_accepted)
    esp_rpc_server_freed(server);
}

/* What is called where there is no such method. */
static const struct esp_method unknown_method = {.path = ""};

static void find_method(struct esp_call *call) {
  const char *path = (const char *)GRPC_SLICE_START_PTR(call->details.method);
  size_t path_len = GRPC_SLICE_LENGTH(call->details.method);
  call->method = esp_method_find(path, path_len);
  if (call->is_beyond) {
    call->method = &unknown_method;
    esp_call_fail(call, ESP_RESOURCE_EXHAUSTED, "%u calls are open on this connection, which is --max-streams",
                  esp_rpc_server_options(call->server)->max_streams);
  } else if (call->method == NULL) {
    call->method = &unknown_method;
    esp_call_fail(call, ESP_UNIMPLEMENTED, "there is no method %.*s", (int)(path_len > 255 ? 255 : path_len), path);
  } else if (call->method->message == NULL) {
    esp_call_fail(call, ESP_UNIMPLEMENTED, "%s is not built yet", call->method->path);
  } else if ((call->state = esp_calloc(1, call->method->state_size)) == NULL) {
    call->method = &unknown_method; /* its handlers want a state */
    esp_call_fail(call, ESP_RESOURCE_EXHAUSTED, "no memory for a call");
  }
}

static void handle_begin(struct esp_event *event) {
  struct esp_call *call = (struct esp_call *)((char *)event - offsetof(struct esp_call, recv));
  find_method(call);
  if (!call->method->answers_always) {
    grpc_op op = recv_close(call);
    start_batch(call, &op, 1, &call->close, handle_close);
  }
  esp_call_read(call);
}

void esp_call_begin(struct esp_call *call) {
  esp_event_arm(&call->recv, call, handle_begin);
  complete_event(&call->recv.tag, true);
}

void esp_call_peer(const struct esp_call *call, char *ret, size_t size) {
  esp_listen_peer(call->connection, ret, size);
}

/* ---- one request ---- */

enum esp_code esp_tree_check(const char *tree, struct esp_status *st) {
  if (tree == NULL || tree[0] == '\0')
    return ESP_OK;
  return esp_fail(st, ESP_NOT_FOUND,
                  "tree \"%.255s\" is not here: there is one tree per server for now, without a name", tree);
}

bool esp_call_decode(struct esp_call *call, const ProtobufCMessageDescriptor *type, struct esp_decoded *ret) {
  struct esp_status st;
  enum esp_code code = esp_decode_spans(type, call->spans, call->spans_len, ret, &st);
  if (code == ESP_OK) {
    /* Every request of ours has a `tree`, those of gRPC's standard services have none. */
    const ProtobufCFieldDescriptor *tree = protobuf_c_message_descriptor_get_field_by_name(type, "tree");
    if (tree != NULL)
      code = esp_tree_check(*(char **)((char *)ret->message + tree->offset), &st);
    if (code != ESP_OK)
      esp_decoded_done(ret);
  }
  if (code != ESP_OK)
    esp_call_finish(call, code, &st);
  return code == ESP_OK;
}
