/* Connections and calls on gRPC's C core.
 *
 * The happy path: a connection is a channel over a socket that was connected by esp_dial. A call has a completion queue
 * of its own, which the thread that waits for the call drives. At its start the call asks for its status and its first
 * message, so that an early refusal is seen while sending. At most one send and one receive are outstanding.
 *
 *   esp_call_new: START, INITIAL, STATUS, RECV posted
 *   esp_call_send: waits for START or the SEND before, posts SEND
 *   esp_call_recv: waits for RECV; the next function that needs one posts it again
 *   esp_call_wake: WAKE, which is an empty batch, completes at once
 *   esp_call_free: cancels, waits until nothing is posted, lets go of the call, waits until nothing is lent
 *
 * How it fails: the server's status comes with STATUS. A connection that was cut ends every call on it with UNAVAILABLE
 * and is not usable again. Where a peer has stopped reading, gRPC neither ends a write nor closes a channel before that
 * write is done; then the socket is shut down under it (through a duplicate of its descriptor, which stays ours), and
 * everything comes back at once.
 *
 * libgrpc is not instrumented for ThreadSanitizer: the order between posting an operation and taking its completion,
 * and between gRPC's last use of lent memory and ours, is carried by atomics of our own (`posted`, `loans`, and
 * base/handoff.h). */
#include "client/src/transport.h"

#include <fcntl.h>
#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/slice_buffer.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/handoff.h"
#include "client/src/address.h"
#include "client/src/retry.h"
#include "wire/wire.h"

/* A message of the largest size has its chunk's payload and a little more. */
#define MESSAGE_BYTES_MAX ((int)ESP_CHUNK_BYTES_MAX + (64 << 10))
/* A declaration's answer has some ten bytes a leaf, where the leaves were there before in another order. */
#define ANSWER_BYTES_MAX (64 << 20)
/* How long a cancelled call may take to give its memory back before its connection is broken. */
#define RETURN_MS_MAX 200
/* What is copied to messages goes to pages of this size: a slice of its own for each piece would cost more. */
#define PAGE_BYTES (64 << 10)

struct esp_conn {
  atomic_uint refs;      /* the client's and one of each call */
  atomic_bool failed;    /* a call on it was cut or waited in vain */
  grpc_channel *channel; /* owned */
  int fd;                /* the socket, of which the channel has a duplicate: it can be shut down at any time */
  char address[ESP_ADDRESS_TEXT_MAX]; /* for messages */
};

enum call_op { OP_START, OP_INITIAL, OP_STATUS, OP_SEND, OP_RECV, OP_WAKE, OPS };

struct esp_call {
  struct esp_conn *conn;         /* a reference */
  grpc_completion_queue *queue;  /* driven by whoever waits */
  grpc_call *call;               /* owned */
  char tags[OPS];                /* their addresses are the operations' tags */
  atomic_uint posted;            /* a bit for each operation under way */
  struct esp_loans loans;        /* slices that refer to callers' memory and are not destroyed */
  struct esp_loans *lend_under;  /* the account of those to come: loans, or one whose parent it is */
  grpc_byte_buffer *message_out; /* being built; NULL: nothing appended yet */
  grpc_slice page;               /* what is left of one; not there where it is empty */
  size_t page_used;              /* its bytes that are the message's, but not in message_out yet */
  grpc_byte_buffer *message_in;  /* received; NULL at the stream's end */
  struct esp_span *spans;        /* of message_in */
  size_t spans_capacity;         /* of spans */
  bool in_taken;                 /* message_in was handed to the caller: the next receive may be posted */
  bool in_ended;                 /* no more messages come */
  bool over;                     /* the status is there */
  grpc_metadata_array initial;   /* received and ignored */
  grpc_metadata_array trailing;  /* likewise */
  grpc_status_code status;       /* once `over` */
  grpc_slice details;            /* once `over` */
};

void esp_transport_init(void) {
  grpc_init();
}

void esp_transport_done(void) {
  grpc_shutdown();
}

/* ---- connections ---- */

static grpc_arg arg_integer(const char *key, int value) {
  grpc_arg arg = {.type = GRPC_ARG_INTEGER, .key = (char *)key, .value = {.integer = value}};
  return arg;
}

static grpc_channel *channel_new(int fd, const char *address) {
  bool is_unix = strncmp(address, "unix:", 5) == 0;
  grpc_arg args[] = {
      {.type = GRPC_ARG_STRING,
       .key = (char *)GRPC_ARG_DEFAULT_AUTHORITY,
       .value = {.string = (char *)(is_unix ? "localhost" : address)}},
      arg_integer(GRPC_ARG_ENABLE_RETRIES, 0), /* retries are ours, and gRPC's would keep every slice */
      arg_integer(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, ANSWER_BYTES_MAX),
      arg_integer(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, MESSAGE_BYTES_MAX),
      arg_integer(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0), /* it inflates without a bound */
      arg_integer(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
  };
  grpc_channel_args all = {.num_args = sizeof args / sizeof args[0], .args = args};
  grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
  grpc_channel *channel = grpc_channel_create_from_fd(address, fd, credentials, &all);
  grpc_channel_credentials_release(credentials);
  return channel;
}

enum esp_code esp_conn_new(int fd, const char *address, struct esp_conn **ret, struct esp_status *st) {
  struct esp_conn *conn = esp_calloc(1, sizeof *conn);
  int copy = conn == NULL ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) {
    close(fd);
    esp_free(conn);
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory or file descriptors for a connection to %s", address);
  }
  conn->fd = fd;
  atomic_init(&conn->refs, 1);
  atomic_init(&conn->failed, false);
  snprintf(conn->address, sizeof conn->address, "%s", address);
  /* The duplicate is gRPC's, for the thread sanitizer's sake: it does not see gRPC's close, so the number of a socket
   * that gRPC closed would stay the dialling thread's. */
  conn->channel = channel_new(copy, conn->address);
  *ret = conn;
  return ESP_OK;
}

struct esp_conn *esp_conn_ref(struct esp_conn *conn) {
  atomic_fetch_add_explicit(&conn->refs, 1, memory_order_relaxed);
  return conn;
}

void esp_conn_unref(struct esp_conn *conn) {
  if (conn == NULL || atomic_fetch_sub_explicit(&conn->refs, 1, memory_order_acq_rel) > 1)
    return;
  grpc_channel_destroy(conn->channel);
  /* Without this the socket of a peer that has stopped reading would stay open, its write never done. */
  shutdown(conn->fd, SHUT_RDWR);
  close(conn->fd);
  esp_free(conn);
}

bool esp_conn_is_usable(const struct esp_conn *conn) {
  if (atomic_load_explicit(&conn->failed, memory_order_relaxed))
    return false;
  struct pollfd poller = {.fd = conn->fd, .events = POLLRDHUP};
  return poll(&poller, 1, 0) == 0;
}

void esp_conn_break(struct esp_conn *conn) {
  atomic_store_explicit(&conn->failed, true, memory_order_relaxed);
  shutdown(conn->fd, SHUT_RDWR);
}

/* ---- operations ---- */

static gpr_timespec time_of(uint64_t deadline_ms) {
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                      gpr_time_from_millis((int64_t)esp_left_ms(deadline_ms), GPR_TIMESPAN));
}

static bool is_posted(struct esp_call *call, enum call_op which) {
  return (atomic_load_explicit(&call->posted, memory_order_acquire) & (1u << which)) != 0;
}

static void post(struct esp_call *call, enum call_op which, const grpc_op *ops, size_t ops_len) {
  unsigned before = atomic_fetch_or_explicit(&call->posted, 1u << which, memory_order_acq_rel);
  ESP_CHECK((before & (1u << which)) == 0);
  grpc_call_error error = grpc_call_start_batch(call->call, ops, ops_len, &call->tags[which], NULL);
  ESP_CHECK(error == GRPC_CALL_OK);
}

static void post_recv(struct esp_call *call) {
  grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data = {.recv_message = {.recv_message = &call->message_in}}};
  post(call, OP_RECV, &op, 1);
}

static void post_start(struct esp_call *call) {
  grpc_op start = {.op = GRPC_OP_SEND_INITIAL_METADATA};
  post(call, OP_START, &start, 1);
  grpc_op initial = {.op = GRPC_OP_RECV_INITIAL_METADATA,
                     .data = {.recv_initial_metadata = {.recv_initial_metadata = &call->initial}}};
  post(call, OP_INITIAL, &initial, 1);
  grpc_op status = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                    .data = {.recv_status_on_client = {.trailing_metadata = &call->trailing,
                                                       .status = &call->status,
                                                       .status_details = &call->details}}};
  post(call, OP_STATUS, &status, 1);
  post_recv(call);
}

/* Takes one completion; false where none came before the deadline. */
static bool step(struct esp_call *call, uint64_t deadline_ms) {
  grpc_event event = grpc_completion_queue_next(call->queue, time_of(deadline_ms), NULL);
  if (event.type != GRPC_OP_COMPLETE)
    return false;
  unsigned which = (unsigned)((char *)event.tag - call->tags);
  ESP_CHECK(which < OPS);
  if (which == OP_RECV && (!event.success || call->message_in == NULL))
    call->in_ended = true;
  if (which == OP_STATUS)
    call->over = true;
  atomic_fetch_and_explicit(&call->posted, ~(1u << which), memory_order_acq_rel);
  return true;
}

/* Frees the message that the caller has read and asks for the next. */
static void recv_again(struct esp_call *call) {
  if (!call->in_taken)
    return;
  grpc_byte_buffer_destroy(call->message_in);
  call->message_in = NULL;
  call->in_taken = false;
  post_recv(call);
}

/* ---- how a call ends ---- */

/* gRPC gives a status of its own to a call whose connection was cut, with one of these sentences. */
static bool is_cut(grpc_status_code status, const char *details) {
  static const char *const signs[] = {"Socket closed", "Connection reset", "Broken pipe",      "recvmsg",
                                      "sendmsg",       "Endpoint",         "Transport closed", "GOAWAY received"};
  if (strncmp(details, "Received RST_STREAM", strlen("Received RST_STREAM")) == 0)
    return true;
  for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++)
    if (status == GRPC_STATUS_UNAVAILABLE && strstr(details, signs[i]) != NULL)
      return true;
  return false;
}

/* The server's sentence is passed on as it is. */
static enum esp_code fail_over(struct esp_call *call, struct esp_status *st) {
  char details[ESP_MESSAGE_BYTES_MAX];
  size_t len = GRPC_SLICE_LENGTH(call->details);
  len = len < sizeof details ? len : sizeof details - 1;
  memcpy(details, GRPC_SLICE_START_PTR(call->details), len);
  details[len] = 0;
  if (is_cut(call->status, details)) {
    atomic_store_explicit(&call->conn->failed, true, memory_order_relaxed);
    return esp_fail(st, ESP_UNAVAILABLE, "the connection to %s was cut (%s)", call->conn->address, details);
  }
  if (call->status == GRPC_STATUS_OK)
    return esp_fail(st, ESP_UNAVAILABLE, "the server at %s ended the call before it was done", call->conn->address);
  if (call->status == GRPC_STATUS_UNAVAILABLE)
    atomic_store_explicit(&call->conn->failed, true, memory_order_relaxed);
  enum esp_code code = call->status > GRPC_STATUS_UNAUTHENTICATED ? ESP_UNKNOWN : (enum esp_code)call->status;
  return esp_fail(st, code, "%s", details[0] == 0 ? esp_code_name(code) : details);
}

enum esp_code esp_call_give_up(struct esp_call *call, struct esp_status *st) {
  atomic_store_explicit(&call->conn->failed, true, memory_order_relaxed);
  return esp_fail(st, ESP_DEADLINE_EXCEEDED, "the server at %s did not answer before the deadline",
                  call->conn->address);
}

/* ---- calls ---- */

enum esp_code esp_call_new(struct esp_conn *conn, const char *method, struct esp_call **ret, struct esp_status *st) {
  struct esp_call *call = esp_calloc(1, sizeof *call);
  if (call == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for a call");
  atomic_init(&call->posted, 0);
  atomic_init(&call->loans.count, 0);
  call->lend_under = &call->loans;
  call->conn = esp_conn_ref(conn);
  call->details = grpc_empty_slice();
  call->page = grpc_empty_slice();
  grpc_metadata_array_init(&call->initial);
  grpc_metadata_array_init(&call->trailing);
  call->queue = grpc_completion_queue_create_for_next(NULL);
  call->call =
      grpc_channel_create_call(conn->channel, NULL, GRPC_PROPAGATE_DEFAULTS, call->queue,
                               grpc_slice_from_static_string(method), NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
  post_start(call);
  *ret = call;
  return ESP_OK;
}

/* Waits until nothing is posted and (with `loans`) nothing lent, or the deadline. Driving the queue also drives the
 * connection's writes. */
static bool come_to_rest(struct esp_call *call, bool loans, uint64_t deadline_ms) {
  while (atomic_load_explicit(&call->posted, memory_order_acquire) != 0 ||
         (loans && !esp_loans_are_back(&call->loans))) {
    uint64_t now_ms = esp_now_ms();
    if (now_ms >= deadline_ms)
      return false;
    step(call, now_ms + 1);
  }
  return true;
}

/* The same, where it must come true: with the connection broken nothing keeps operations or memory. */
static void force_rest(struct esp_call *call, bool loans, uint64_t deadline_ms) {
  if (come_to_rest(call, loans, deadline_ms))
    return;
  esp_conn_break(call->conn);
  bool rested = come_to_rest(call, loans, UINT64_MAX);
  ESP_CHECK(rested);
}

static void queue_free(grpc_completion_queue *queue) {
  grpc_completion_queue_shutdown(queue);
  while (grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type != GRPC_QUEUE_SHUTDOWN) {
  }
  grpc_completion_queue_destroy(queue);
}

void esp_call_free(struct esp_call *call) {
  if (call == NULL)
    return;
  if (!call->over)
    grpc_call_cancel(call->call, NULL);
  if (call->message_out != NULL)
    grpc_byte_buffer_destroy(call->message_out);
  call->message_out = NULL;
  grpc_slice_unref(call->page);
  uint64_t deadline_ms = esp_now_ms() + RETURN_MS_MAX;
  force_rest(call, false, deadline_ms);
  if (call->message_in != NULL)
    grpc_byte_buffer_destroy(call->message_in);
  grpc_call_unref(call->call); /* the call itself holds what flow control kept back */
  force_rest(call, true, deadline_ms);
  queue_free(call->queue);
  grpc_metadata_array_destroy(&call->initial);
  grpc_metadata_array_destroy(&call->trailing);
  grpc_slice_unref(call->details);
  esp_conn_unref(call->conn);
  esp_free(call->spans);
  esp_free(call);
}

static void append_slice(struct esp_call *call, grpc_slice slice) {
  if (call->message_out == NULL)
    call->message_out = grpc_raw_byte_buffer_create(NULL, 0);
  grpc_slice_buffer_add(&call->message_out->data.raw.slice_buffer, slice);
}

/* Makes what was copied a slice of the message. */
static void close_page(struct esp_call *call) {
  if (call->page_used > 0)
    append_slice(call, grpc_slice_split_head(&call->page, call->page_used));
  call->page_used = 0;
}

static void next_page(struct esp_call *call) {
  close_page(call);
  grpc_slice_unref(call->page);
  call->page = grpc_slice_malloc(PAGE_BYTES);
}

void esp_call_append(struct esp_call *call, const void *bytes, size_t len) {
  for (size_t done = 0, piece; done < len; done += piece) {
    if (call->page_used == GRPC_SLICE_LENGTH(call->page))
      next_page(call);
    size_t room = GRPC_SLICE_LENGTH(call->page) - call->page_used;
    piece = len - done < room ? len - done : room;
    memcpy(GRPC_SLICE_START_PTR(call->page) + call->page_used, (const uint8_t *)bytes + done, piece);
    call->page_used += piece;
  }
}

bool esp_loans_are_back(const struct esp_loans *loans) {
  return atomic_load_explicit(&loans->count, memory_order_acquire) == 0;
}

void esp_call_lend_under(struct esp_call *call, struct esp_loans *loans) {
  call->lend_under = loans == NULL ? &call->loans : loans;
  /* Written only while nothing is lent under it: gRPC's threads read it as they give back what was. */
  if (loans != NULL && loans->parent != &call->loans)
    loans->parent = &call->loans;
}

/* Runs on gRPC's threads, perhaps while the waiting thread frees an account right after its last loan: the decrement is
 * the last access, and the parent is kept by the loan that is still counted there. */
static void loan_back(void *data) {
  esp_handoff_take();
  for (struct esp_loans *loans = data, *parent; loans != NULL; loans = parent) {
    parent = loans->parent;
    atomic_fetch_sub_explicit(&loans->count, 1, memory_order_release);
  }
}

void esp_call_append_loan(struct esp_call *call, const void *bytes, size_t len) {
  for (struct esp_loans *loans = call->lend_under; loans != NULL; loans = loans->parent)
    atomic_fetch_add_explicit(&loans->count, 1, memory_order_relaxed);
  esp_handoff_give();
  close_page(call);
  append_slice(call, grpc_slice_new_with_user_data((void *)bytes, len, loan_back, call->lend_under));
}

bool esp_call_may_send(struct esp_call *call) {
  return (!is_posted(call, OP_SEND) && !is_posted(call, OP_START)) || call->over;
}

enum esp_code esp_call_send(struct esp_call *call, bool last, uint64_t deadline_ms, struct esp_status *st) {
  while (!esp_call_may_send(call)) {
    recv_again(call);
    if (!step(call, deadline_ms))
      return esp_call_give_up(call, st);
  }
  if (call->over)
    return fail_over(call, st);
  close_page(call);
  if (call->message_out == NULL)
    call->message_out = grpc_raw_byte_buffer_create(NULL, 0);
  grpc_op ops[2] = {
      {.op = GRPC_OP_SEND_MESSAGE, .data = {.send_message = {.send_message = call->message_out}}},
      {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
  };
  post(call, OP_SEND, ops, last ? 2 : 1);
  grpc_byte_buffer_destroy(call->message_out); /* gRPC has taken the slices */
  call->message_out = NULL;
  recv_again(call); /* after: with it gRPC writes a window update, for which the server would wake up first */
  return ESP_OK;
}

static enum esp_code list_spans(struct esp_call *call, struct esp_received *ret, struct esp_status *st) {
  if (call->message_in->data.raw.compression != GRPC_COMPRESS_NONE)
    return esp_fail(st, ESP_UNIMPLEMENTED, "the server at %s sent a compressed message", call->conn->address);
  grpc_slice_buffer *buffer = &call->message_in->data.raw.slice_buffer;
  if (!esp_grow((void **)&call->spans, &call->spans_capacity, buffer->count + 1, sizeof *call->spans))
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED,
                    "out of memory for the server's answer: what was asked for may have been done");
  for (size_t i = 0; i < buffer->count; i++) {
    call->spans[i].data = GRPC_SLICE_START_PTR(buffer->slices[i]);
    call->spans[i].len = GRPC_SLICE_LENGTH(buffer->slices[i]);
  }
  ret->spans = call->spans;
  ret->spans_len = buffer->count;
  ret->bytes = buffer->length;
  return ESP_OK;
}

bool esp_call_may_recv(struct esp_call *call) {
  recv_again(call);
  return !is_posted(call, OP_RECV) && (!call->in_ended || call->over);
}

enum esp_code esp_call_recv(struct esp_call *call, uint64_t deadline_ms, struct esp_received *ret,
                            struct esp_status *st) {
  while (!esp_call_may_recv(call))
    if (!step(call, deadline_ms))
      return esp_call_give_up(call, st);
  if (!call->in_ended) {
    call->in_taken = true;
    return list_spans(call, ret, st);
  }
  if (call->status != GRPC_STATUS_OK)
    return fail_over(call, st);
  *ret = (struct esp_received){0};
  return ESP_OK;
}

void esp_call_step(struct esp_call *call, uint64_t deadline_ms) {
  step(call, deadline_ms);
}

void esp_call_wake(struct esp_call *call) {
  unsigned before = atomic_fetch_or_explicit(&call->posted, 1u << OP_WAKE, memory_order_acq_rel);
  if ((before & (1u << OP_WAKE)) != 0)
    return; /* it has not been taken yet */
  grpc_call_error error = grpc_call_start_batch(call->call, NULL, 0, &call->tags[OP_WAKE], NULL);
  ESP_CHECK(error == GRPC_CALL_OK);
}

enum esp_code esp_call_settle(struct esp_call *call, uint64_t deadline_ms, struct esp_status *st) {
  while (!esp_loans_are_back(&call->loans)) {
    uint64_t now_ms = esp_now_ms();
    if (now_ms >= deadline_ms)
      return esp_call_give_up(call, st);
    step(call, now_ms + 1);
  }
  return ESP_OK;
}
