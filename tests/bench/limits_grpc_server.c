/* A bare gRPC server on the C core: a stream that takes and gives bytes, and a unary call that does nothing; no work.
 * As many completion queues, with a thread each, as espalierd has.
 *
 *   accept --> stream: START --> RECV, and SEND while a pass is given --> FINISH, when the client has ended it
 *          --> unary:  RECV --> FINISH
 *
 * A call that breaks ends with FINISH, too, since its RECV comes back empty. */
#include <grpc/grpc_security.h>
#include <pthread.h>
#include <stdlib.h>

#include "tests/bench/limits_grpc.h"

#define SLOTS 32 /* calls that may arrive before the thread looks */
#define QUEUES_MAX 4

enum op { OP_ACCEPT, OP_START, OP_SEND, OP_RECV, OP_FINISH, OPS };

struct call {
  grpc_call *call;
  grpc_call_details details;
  grpc_metadata_array metadata;
  grpc_byte_buffer *in;     /* received; NULL at the end */
  struct outgoing outgoing; /* of a pass that is given */
  size_t got;               /* of a pass that is taken */
  int cancelled;            /* gRPC wants to say so */
  bool is_unary;
  bool sends; /* OP_SEND is under way */
  bool ends;  /* the client has ended the call */
  struct tag {
    struct call *owner;
    enum op op;
  } tags[OPS];
};

struct queue {
  grpc_server *server;
  grpc_completion_queue *grpc;
  pthread_t thread;
};

static struct outgoing weights; /* what all calls give */

static void await_call(const struct queue *queue) {
  struct call *call = calloc(1, sizeof(*call));
  if (call == NULL)
    bench_die("no memory for a call");
  for (int i = 0; i < OPS; i++)
    call->tags[i] = (struct tag){call, (enum op)i};
  grpc_call_details_init(&call->details);
  grpc_metadata_array_init(&call->metadata);
  grpc_call_error error = grpc_server_request_call(queue->server, &call->call, &call->details, &call->metadata,
                                                   queue->grpc, queue->grpc, &call->tags[OP_ACCEPT]);
  if (error != GRPC_CALL_OK)
    bench_die("gRPC takes no call: %s", grpc_call_error_to_string(error));
}

static void post_recv(struct call *call) {
  const grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data = {.recv_message = {.recv_message = &call->in}}};
  bare_post(call->call, &op, 1, &call->tags[OP_RECV]);
}

static void post_start(struct call *call) {
  const grpc_op op = {.op = GRPC_OP_SEND_INITIAL_METADATA};
  bare_post(call->call, &op, 1, &call->tags[OP_START]);
}

/* Takes the message. */
static void post_send(struct call *call, grpc_byte_buffer *message) {
  const grpc_op op = {.op = GRPC_OP_SEND_MESSAGE, .data = {.send_message = {.send_message = message}}};
  bare_post(call->call, &op, 1, &call->tags[OP_SEND]);
  grpc_byte_buffer_destroy(message);
  call->sends = true;
}

/* A unary call has all of its answer in one batch. */
static void post_finish(struct call *call) {
  grpc_byte_buffer *nothing = grpc_raw_byte_buffer_create(NULL, 0);
  const grpc_op ops[] = {
      {.op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data = {.recv_close_on_server = {.cancelled = &call->cancelled}}},
      {.op = GRPC_OP_SEND_STATUS_FROM_SERVER, .data = {.send_status_from_server = {.status = GRPC_STATUS_OK}}},
      {.op = GRPC_OP_SEND_INITIAL_METADATA},
      {.op = GRPC_OP_SEND_MESSAGE, .data = {.send_message = {.send_message = nothing}}}};
  bare_post(call->call, ops, call->is_unary ? 4 : 2, &call->tags[OP_FINISH]);
  grpc_byte_buffer_destroy(nothing);
}

static void call_free(struct call *call) {
  grpc_call_unref(call->call);
  grpc_call_details_destroy(&call->details);
  grpc_metadata_array_destroy(&call->metadata);
  free(call);
}

/* ---- events ---- */

/* What came of a pass; or one byte, which asks for one. */
static void take_message(struct call *call) {
  size_t len = grpc_byte_buffer_length(call->in);
  grpc_byte_buffer_destroy(call->in);
  call->in = NULL;
  if (len == 1) {
    call->outgoing = weights;
    post_send(call, outgoing_next(&call->outgoing));
  } else {
    call->got += len;
    if (call->got > weights.bytes)
      bench_die("%zu bytes came of %zu", call->got, weights.bytes);
    if (call->got == weights.bytes) {
      call->got = 0;
      post_send(call, bare_short());
    }
  }
  post_recv(call);
}

static void received(struct call *call) {
  if (call->in != NULL && !call->is_unary) {
    take_message(call);
    return;
  }
  if (call->in != NULL)
    grpc_byte_buffer_destroy(call->in);
  call->ends = true;
  if (!call->sends)
    post_finish(call);
}

static void sent(struct call *call) {
  call->sends = false;
  if (call->ends)
    post_finish(call);
  else if (call->outgoing.sent < call->outgoing.bytes)
    post_send(call, outgoing_next(&call->outgoing));
}

static void accepted(struct call *call) {
  call->is_unary = grpc_slice_str_cmp(call->details.method, BARE_UNARY) == 0;
  (call->is_unary ? post_recv : post_start)(call);
}

static void handle(const struct queue *queue, const struct tag *tag) {
  switch (tag->op) {
  case OP_ACCEPT:
    accepted(tag->owner);
    await_call(queue);
    break;
  case OP_START:
    post_recv(tag->owner);
    break;
  case OP_SEND:
    sent(tag->owner);
    break;
  case OP_RECV:
    received(tag->owner);
    break;
  default:
    call_free(tag->owner);
  }
}

static void *run(void *data) {
  const struct queue *queue = data;
  for (grpc_event event = {.type = GRPC_OP_COMPLETE}; event.type != GRPC_QUEUE_SHUTDOWN;) {
    event = grpc_completion_queue_next(queue->grpc, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    if (event.type == GRPC_OP_COMPLETE)
      handle(queue, event.tag);
  }
  return NULL;
}

int limits_grpc_server(const struct bench_options *options) {
  static struct queue queues[QUEUES_MAX];
  char text[ADDRESS_MAX];
  unsigned cores = server_threads(), len = cores <= 2 ? 1 : cores / 2 < QUEUES_MAX ? cores / 2 : QUEUES_MAX;
  (void)options;
  outgoing_init(&weights);
  grpc_init();
  grpc_server *server = grpc_server_create(bare_args(), NULL);
  grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
  int port = grpc_server_add_http2_port(server, "127.0.0.1:0", credentials);
  if (port <= 0)
    bench_die("gRPC does not listen");
  for (unsigned i = 0; i < len; i++) {
    queues[i] = (struct queue){.server = server, .grpc = grpc_completion_queue_create_for_next(NULL)};
    grpc_server_register_completion_queue(server, queues[i].grpc, NULL);
  }
  grpc_server_start(server);
  for (unsigned i = 0; i < len; i++) {
    for (unsigned j = 0; j < SLOTS; j++)
      await_call(&queues[i]);
    if (pthread_create(&queues[i].thread, NULL, run, &queues[i]) != 0)
      bench_die("no thread");
  }
  snprintf(text, sizeof(text), "127.0.0.1:%d", port);
  child_ready(text);
  while (getchar() != EOF)
    continue;
  _Exit(EXIT_SUCCESS); /* the threads wait for what never comes */
}
