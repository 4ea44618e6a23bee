/* The Nth allocation fails, for N = 0, 1, 2, ..., in every call that a server answers: it says so, it has changed
 * nothing or says that it has, the next call is answered as ever, and nothing is left when the server ends. The client
 * is bare gRPC, so that the allocations are the server's. */
#include <espalier/v1/admin.pb-c.h>
#include <espalier/v1/parameter_server.pb-c.h>

#include <grpc/byte_buffer.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/health/v1/health.pb-c.h>
#include <grpc/reflection/v1/reflection.pb-c.h>
#include <grpc/support/alloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "fixture.h"
#include "rpc/call.h"

#define ALLOCATIONS_MAX 300 /* of one call */
#define REQUESTS_MAX 3
#define WORKER "/espalier.v1.ParameterServer/"
#define ADMIN "/espalier.v1.Admin/"

/* ---- a client ---- */

struct requests {
  grpc_slice packed[REQUESTS_MAX];
  size_t len;
};

static void add(struct requests *requests, const ProtobufCMessage *message) {
  assert_true(requests->len < REQUESTS_MAX);
  grpc_slice slice = grpc_slice_malloc(protobuf_c_message_get_packed_size(message));
  protobuf_c_message_pack(message, GRPC_SLICE_START_PTR(slice));
  requests->packed[requests->len++] = slice;
}

struct answer {
  unsigned messages; /* that came before the status */
  grpc_status_code code;
  char details[512];
};

static grpc_channel *channel;
static grpc_completion_queue *queue;

/* Begins an operation. */
static void begin(grpc_call *call, grpc_op *op) {
  assert_int_equal(grpc_call_start_batch(call, op, 1, op, NULL), GRPC_CALL_OK);
}

/* Waits for it. */
static void finish(grpc_op *op) {
  grpc_event event = grpc_completion_queue_pluck(queue, op, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
  assert_int_equal(event.type, GRPC_OP_COMPLETE);
}

static void send_requests(grpc_call *call, struct requests *requests) {
  for (size_t i = 0; i < requests->len; i++) {
    grpc_byte_buffer *buffer = grpc_raw_byte_buffer_create(&requests->packed[i], 1);
    grpc_op op = {.op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = buffer};
    begin(call, &op);
    finish(&op);
    grpc_byte_buffer_destroy(buffer);
    grpc_slice_unref(requests->packed[i]);
  }
  grpc_op op = {.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT};
  begin(call, &op);
  finish(&op);
}

/* Returns how many came. */
static unsigned receive_all(grpc_call *call) {
  for (unsigned count = 0;; count++) {
    grpc_byte_buffer *buffer = NULL;
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &buffer};
    begin(call, &op);
    finish(&op);
    if (buffer == NULL)
      return count;
    grpc_byte_buffer_destroy(buffer);
  }
}

/* Sends the requests, takes the responses, and returns how it ended. */
static struct answer ask(const char *method, struct requests *requests) {
  gpr_timespec deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_seconds(60, GPR_TIMESPAN));
  grpc_slice path = grpc_slice_from_copied_string(method);
  grpc_call *call = grpc_channel_create_call(channel, NULL, GRPC_PROPAGATE_DEFAULTS, queue, path, NULL, deadline, NULL);
  grpc_slice_unref(path);
  struct answer answer = {0};
  grpc_metadata_array initial, trailing;
  grpc_slice details = grpc_empty_slice();
  grpc_metadata_array_init(&initial);
  grpc_metadata_array_init(&trailing);
  grpc_op start = {.op = GRPC_OP_SEND_INITIAL_METADATA};
  grpc_op head = {.op = GRPC_OP_RECV_INITIAL_METADATA, .data.recv_initial_metadata.recv_initial_metadata = &initial};
  grpc_op status = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                    .data.recv_status_on_client = {
                        .trailing_metadata = &trailing, .status = &answer.code, .status_details = &details}};
  begin(call, &status);
  begin(call, &start);
  begin(call, &head);
  finish(&start);
  send_requests(call, requests);
  finish(&head);
  answer.messages = receive_all(call);
  finish(&status);
  char *text = grpc_slice_to_c_string(details);
  (void)snprintf(answer.details, sizeof(answer.details), "%s", text);
  gpr_free(text);
  grpc_slice_unref(details);
  grpc_metadata_array_destroy(&initial);
  grpc_metadata_array_destroy(&trailing);
  grpc_call_unref(call);
  return answer;
}

/* ---- requests ---- */

static char leaf_path[32]; /* of a leaf that each declaration adds: its own each time */
static double values[3];

static Espalier__V1__Chunk chunk_of(const char *path) {
  Espalier__V1__Chunk chunk = ESPALIER__V1__CHUNK__INIT;
  chunk.path = (char *)path;
  chunk.data = (ProtobufCBinaryData){.data = (uint8_t *)values, .len = sizeof(values)};
  return chunk;
}

/* A request of any type, whose fields are all as they are when nothing is said: of no bytes. */
static void make_empty(struct requests *ret) {
  Espalier__V1__TimersRequest request = ESPALIER__V1__TIMERS_REQUEST__INIT;
  add(ret, &request.base);
}

static void make_join(struct requests *ret) {
  Espalier__V1__JoinRequest request = ESPALIER__V1__JOIN_REQUEST__INIT;
  request.worker = (char *)"w";
  add(ret, &request.base);
}

static void make_declare(struct requests *ret) {
  Espalier__V1__DeclareHeader header = ESPALIER__V1__DECLARE_HEADER__INIT;
  Espalier__V1__Initializer init = ESPALIER__V1__INITIALIZER__INIT;
  Espalier__V1__LeafSpec leaf = ESPALIER__V1__LEAF_SPEC__INIT, *leaves = &leaf;
  Espalier__V1__Chunk chunk = chunk_of(""), *chunks = &chunk;
  Espalier__V1__DeclareRequest request = ESPALIER__V1__DECLARE_REQUEST__INIT;
  uint64_t shape = 3;
  header.leaf_count = 1;
  header.total_bytes = sizeof(values);
  request.header = &header;
  add(ret, &request.base);
  init.value_case = ESPALIER__V1__INITIALIZER__VALUE_FOLLOWS;
  init.follows = true;
  leaf.path = leaf_path;
  leaf.n_shape = 1;
  leaf.shape = &shape;
  leaf.dtype = ESPALIER__V1__DTYPE__DTYPE_F64;
  leaf.init = &init;
  request.header = NULL;
  request.n_leaves = 1;
  request.leaves = &leaves;
  add(ret, &request.base);
  request.n_leaves = 0;
  request.n_chunks = 1;
  request.chunks = &chunks;
  add(ret, &request.base);
}

static void make_push(struct requests *ret) {
  Espalier__V1__PushHeader header = ESPALIER__V1__PUSH_HEADER__INIT;
  Espalier__V1__Chunk chunk = chunk_of("net.a"), *chunks = &chunk;
  Espalier__V1__PushRequest request = ESPALIER__V1__PUSH_REQUEST__INIT;
  header.leaf_count = 1;
  header.total_bytes = sizeof(values);
  request.push = &header;
  add(ret, &request.base);
  request.push = NULL;
  request.n_chunks = 1;
  request.chunks = &chunks;
  add(ret, &request.base);
}

static void make_push_pull(struct requests *ret) {
  Espalier__V1__PushHeader header = ESPALIER__V1__PUSH_HEADER__INIT;
  Espalier__V1__Chunk chunk = chunk_of("net.a"), *chunks = &chunk;
  Espalier__V1__PullRequest pull = ESPALIER__V1__PULL_REQUEST__INIT;
  Espalier__V1__StreamRequest request = ESPALIER__V1__STREAM_REQUEST__INIT;
  header.leaf_count = 1;
  header.total_bytes = sizeof(values);
  request.push = &header;
  request.n_chunks = 1;
  request.chunks = &chunks;
  add(ret, &request.base);
  pull.selection = (char *)"net";
  request.push = NULL;
  request.n_chunks = 0;
  request.pull = &pull;
  add(ret, &request.base);
}

static void make_pull(struct requests *ret) {
  Espalier__V1__PullRequest request = ESPALIER__V1__PULL_REQUEST__INIT;
  request.selection = (char *)"net";
  add(ret, &request.base);
}

static void make_stage(struct requests *ret) {
  Espalier__V1__StageHeader header = ESPALIER__V1__STAGE_HEADER__INIT;
  Espalier__V1__Chunk chunk = chunk_of("net.a"), *chunks = &chunk;
  Espalier__V1__StageRequest request = ESPALIER__V1__STAGE_REQUEST__INIT;
  header.leaf_count = 1;
  header.total_bytes = sizeof(values);
  request.header = &header;
  request.n_chunks = 1;
  request.chunks = &chunks;
  add(ret, &request.base);
}

static void make_apply(struct requests *ret) {
  Espalier__V1__Operation__Freeze freeze = ESPALIER__V1__OPERATION__FREEZE__INIT, later = freeze;
  Espalier__V1__Operation__Thaw thaw = ESPALIER__V1__OPERATION__THAW__INIT;
  Espalier__V1__Operation first = ESPALIER__V1__OPERATION__INIT, second = first, third = first;
  Espalier__V1__Operation *operations[3] = {&first, &second, &third};
  Espalier__V1__ApplyRequest request = ESPALIER__V1__APPLY_REQUEST__INIT;
  freeze.selection = thaw.selection = later.selection = (char *)"net";
  later.at_commit = UINT64_MAX; /* a timer, for Timers to list */
  first.operation_case = ESPALIER__V1__OPERATION__OPERATION_FREEZE;
  first.freeze = &freeze;
  second.operation_case = ESPALIER__V1__OPERATION__OPERATION_THAW;
  second.thaw = &thaw;
  third.operation_case = ESPALIER__V1__OPERATION__OPERATION_FREEZE;
  third.freeze = &later;
  request.n_operations = 3;
  request.operations = operations;
  add(ret, &request.base);
}

static void make_describe(struct requests *ret) {
  Espalier__V1__DescribeRequest request = ESPALIER__V1__DESCRIBE_REQUEST__INIT;
  request.selection = (char *)"net";
  request.digest = true;
  add(ret, &request.base);
}

static void make_explain(struct requests *ret) {
  Espalier__V1__ExplainRequest request = ESPALIER__V1__EXPLAIN_REQUEST__INIT;
  request.selection = (char *)"net";
  add(ret, &request.base);
}

static void make_health(struct requests *ret) {
  Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
  request.service = (char *)"espalier.v1.Admin";
  add(ret, &request.base);
}

static void make_reflection(struct requests *ret) {
  Grpc__Reflection__V1__ServerReflectionRequest request = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__INIT;
  request.message_request_case =
      GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL;
  request.file_containing_symbol = (char *)"espalier.v1.Admin";
  add(ret, &request.base);
}

static const struct call {
  const char *method;
  void (*make)(struct requests *ret);
} calls[] = {
    {WORKER "Join", make_join},
    {WORKER "Declare", make_declare},
    {WORKER "Push", make_push},
    {WORKER "PushPull", make_push_pull},
    {WORKER "Pull", make_pull},
    {WORKER "Watch", make_empty},
    {WORKER "Stage", make_stage},
    {ADMIN "Apply", make_apply},
    {ADMIN "Describe", make_describe},
    {ADMIN "Explain", make_explain},
    {ADMIN "ServerInfo", make_empty},
    {ADMIN "Workers", make_empty},
    {ADMIN "Timers", make_empty},
    {ADMIN "History", make_empty},
    {"/grpc.health.v1.Health/Check", make_health},
    {"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", make_reflection},
};

/* ---- the sweep ---- */

static struct answer run(const struct call *call) {
  struct requests requests = {0};
  call->make(&requests);
  return ask(call->method, &requests);
}

static void check(const struct call *call) {
  struct answer answer = run(call);
  if (answer.code != GRPC_STATUS_OK)
    fail_msg("%s: %d: %s", call->method, (int)answer.code, answer.details);
}

/* The call with the Nth allocation failing, and once more with memory. False where no such allocation came before its
 * answer. */
static bool fails_cleanly(struct esp_engine *engine, const struct call *call, int n, unsigned *failures) {
  struct esp_engine_info before, after;
  (void)snprintf(leaf_path, sizeof(leaf_path), "new.n%d", n);
  esp_engine_info(engine, &before);
  esp_alloc_fail_at(n);
  struct answer answer = run(call);
  bool has_failed = !esp_alloc_fail_is_due();
  esp_alloc_fail_at(-1);
  esp_engine_info(engine, &after);
  *failures += answer.code != GRPC_STATUS_OK;
  if (answer.code == GRPC_STATUS_RESOURCE_EXHAUSTED && answer.messages > 0) {
    assert_string_equal(call->method, WORKER "PushPull"); /* its push was answered, and its pull failed */
  } else if (answer.code == GRPC_STATUS_RESOURCE_EXHAUSTED) {
    assert_int_equal(after.commit, before.commit);
    assert_int_equal(after.epoch, before.epoch);
    assert_int_equal(after.leaves, before.leaves);
    assert_int_equal(after.memory_params, before.memory_params);
    assert_int_equal(after.memory_staged, before.memory_staged);
  } else if (answer.code == GRPC_STATUS_UNAVAILABLE) {
    assert_string_equal(answer.details, ESP_REPLY_LOST_TEXT);
  } else if (answer.code != GRPC_STATUS_OK) {
    fail_msg("allocation %d of %s: %d: %s", n, call->method, (int)answer.code, answer.details);
  }
  check(call);
  return has_failed;
}

static void connect_client(struct esp_rpc_server *server) {
  const char *const *addresses;
  assert_int_equal(esp_rpc_server_addresses(server, &addresses), 1);
  grpc_channel_credentials *credentials = grpc_insecure_credentials_create();
  channel = grpc_channel_create(addresses[0], credentials, NULL);
  grpc_channel_credentials_release(credentials);
  queue = grpc_completion_queue_create_for_pluck(NULL);
}

static void disconnect_client(void) {
  grpc_channel_destroy(channel);
  grpc_completion_queue_shutdown(queue);
  grpc_event event = grpc_completion_queue_pluck(queue, NULL, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
  assert_int_equal(event.type, GRPC_QUEUE_SHUTDOWN);
  grpc_completion_queue_destroy(queue);
}

static void every_call(void **state) {
  (void)state;
  const char *const listen[] = {"127.0.0.1:0"};
  struct esp_engine *engine = make_engine();
  struct esp_rpc_server *server;
  struct esp_status st;
  assert_int_equal(start(engine, listen, 1, &server, &st), ESP_OK);
  connect_client(server);
  (void)snprintf(leaf_path, sizeof(leaf_path), "net.a");
  check(&calls[1]);
  for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
    unsigned failures = 0;
    int n = 0;
    while (n <= ALLOCATIONS_MAX && fails_cleanly(engine, &calls[i], n, &failures))
      n++;
    print_message("%s: %d allocations, %u of them needed\n", calls[i].method, n, failures);
    assert_in_range(n, 1, ALLOCATIONS_MAX);
    assert_true(failures > 0);
  }
  disconnect_client();
  end(server);
  esp_engine_free(engine);
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(every_call)};
  grpc_init();
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  grpc_shutdown_blocking();
  return failed;
}
