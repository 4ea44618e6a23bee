/* A bare gRPC client on the C core: passes on one long-lived stream, and unary calls.
 *
 *   push MS, pull MS    ->  NS PASSES P50 P99
 *   unary MS, unary16 MS  ->  NS CALLS P50 P99     one call at a time, and 16
 *
 * One thread drives one completion queue. Anything that fails ends the process. */
#include <grpc/grpc_security.h>
#include <inttypes.h>
#include <string.h>

#include "tests/bench/limits_grpc.h"

#define DEPTH_MAX 16

/* A unary call under way. */
struct unary {
  grpc_call *call;
  grpc_metadata_array initial;
  grpc_metadata_array trailing;
  grpc_byte_buffer *in;
  grpc_status_code status;
  grpc_slice details;
  uint64_t begin_ns;
};

struct bare {
  grpc_channel *channel;
  grpc_completion_queue *queue;
  grpc_call *stream;
  grpc_metadata_array initial;
  grpc_byte_buffer *in;
  struct outgoing outgoing;
  struct unary unary[DEPTH_MAX];
};

static void *next(struct bare *bare) {
  grpc_event event = grpc_completion_queue_next(bare->queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
  if (event.type != GRPC_OP_COMPLETE || !event.success)
    bench_die("a call of the bare server has failed");
  return event.tag;
}

static grpc_call *new_call(struct bare *bare, const char *method) {
  return grpc_channel_create_call(bare->channel, NULL, GRPC_PROPAGATE_DEFAULTS, bare->queue,
                                  grpc_slice_from_static_string(method), NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC),
                                  NULL);
}

/* ---- the stream ---- */

/* Takes the message, and waits until it is on its way. */
static void send_message(struct bare *bare, grpc_byte_buffer *message) {
  const grpc_op op = {.op = GRPC_OP_SEND_MESSAGE, .data = {.send_message = {.send_message = message}}};
  bare_post(bare->stream, &op, 1, bare);
  grpc_byte_buffer_destroy(message);
  (void)next(bare);
}

/* The length of the next. */
static size_t receive_message(struct bare *bare) {
  const grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data = {.recv_message = {.recv_message = &bare->in}}};
  bare_post(bare->stream, &op, 1, bare);
  (void)next(bare);
  if (bare->in == NULL)
    bench_die("the bare server has ended the stream");
  size_t len = grpc_byte_buffer_length(bare->in);
  grpc_byte_buffer_destroy(bare->in);
  return len;
}

static void push(void *data) {
  struct bare *bare = data;
  for (bare->outgoing.sent = 0; bare->outgoing.sent < bare->outgoing.bytes;)
    send_message(bare, outgoing_next(&bare->outgoing));
  if (receive_message(bare) != 1)
    bench_die("the bare server answers a push with something else");
}

static void pull(void *data) {
  struct bare *bare = data;
  size_t got = 0;
  send_message(bare, bare_short());
  while (got < bare->outgoing.bytes)
    got += receive_message(bare);
  if (got != bare->outgoing.bytes)
    bench_die("%zu bytes came of %zu", got, bare->outgoing.bytes);
}

static void open_stream(struct bare *bare) {
  const grpc_op ops[] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
                         {.op = GRPC_OP_RECV_INITIAL_METADATA,
                          .data = {.recv_initial_metadata = {.recv_initial_metadata = &bare->initial}}}};
  bare->stream = new_call(bare, BARE_STREAM);
  grpc_metadata_array_init(&bare->initial);
  bare_post(bare->stream, ops, 2, bare);
  (void)next(bare);
}

/* ---- unary calls ---- */

static void begin_unary(struct bare *bare, struct unary *unary) {
  grpc_byte_buffer *nothing = grpc_raw_byte_buffer_create(NULL, 0);
  unary->begin_ns = bench_now_ns();
  unary->call = new_call(bare, BARE_UNARY);
  grpc_metadata_array_init(&unary->initial);
  grpc_metadata_array_init(&unary->trailing);
  const grpc_op ops[] = {
      {.op = GRPC_OP_SEND_INITIAL_METADATA},
      {.op = GRPC_OP_SEND_MESSAGE, .data = {.send_message = {.send_message = nothing}}},
      {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT},
      {.op = GRPC_OP_RECV_INITIAL_METADATA,
       .data = {.recv_initial_metadata = {.recv_initial_metadata = &unary->initial}}},
      {.op = GRPC_OP_RECV_MESSAGE, .data = {.recv_message = {.recv_message = &unary->in}}},
      {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
       .data = {.recv_status_on_client = {.trailing_metadata = &unary->trailing,
                                          .status = &unary->status,
                                          .status_details = &unary->details}}},
  };
  bare_post(unary->call, ops, sizeof(ops) / sizeof(ops[0]), unary);
  grpc_byte_buffer_destroy(nothing);
}

static void end_unary(struct unary *unary) {
  if (unary->status != GRPC_STATUS_OK || unary->in == NULL)
    bench_die("a unary call of the bare server ended with status %d", (int)unary->status);
  grpc_byte_buffer_destroy(unary->in);
  grpc_slice_unref(unary->details);
  grpc_metadata_array_destroy(&unary->initial);
  grpc_metadata_array_destroy(&unary->trailing);
  grpc_call_unref(unary->call);
}

/* So many calls at a time, all of one thread. */
static void answer_unary(struct bare *bare, unsigned depth, uint64_t ms) {
  struct samples samples = {0};
  uint64_t begin = bench_now_ns(), now = begin;
  for (unsigned i = 0; i < depth; i++)
    begin_unary(bare, &bare->unary[i]);
  for (unsigned under_way = depth; under_way > 0;) {
    struct unary *unary = next(bare);
    end_unary(unary);
    now = bench_now_ns();
    samples_add(&samples, now - unary->begin_ns);
    if (now - begin < ms * MS_NS)
      begin_unary(bare, unary);
    else
      under_way--;
  }
  printf("%" PRIu64 " %zu %" PRIu64 " %" PRIu64 "\n", now - begin, samples.len, samples_percentile(&samples, 50),
         samples_percentile(&samples, 99));
  fflush(stdout);
  samples_done(&samples);
}

static void answer(struct bare *bare, const char *line) {
  char what[16] = "";
  uint64_t ms = 0;
  (void)sscanf(line, "%15s %" SCNu64, what, &ms);
  if (strcmp(what, "push") == 0)
    passes_answer(push, bare, ms, NULL);
  else if (strcmp(what, "pull") == 0)
    passes_answer(pull, bare, ms, NULL);
  else if (strcmp(what, "unary") == 0)
    answer_unary(bare, 1, ms);
  else if (strcmp(what, "unary16") == 0)
    answer_unary(bare, DEPTH_MAX, ms);
  else
    bench_die("a worker is asked for %s", line);
}

int limits_grpc_worker(const struct bench_options *options) {
  static struct bare bare;
  char line[256];
  grpc_init();
  grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
  bare.channel = grpc_channel_create(options->server, credentials, bare_args());
  bare.queue = grpc_completion_queue_create_for_next(NULL);
  outgoing_init(&bare.outgoing);
  open_stream(&bare);
  child_ready(NULL);
  while (fgets(line, sizeof(line), stdin) != NULL)
    answer(&bare, line);
  return 0; /* the stream ends with the process */
}
