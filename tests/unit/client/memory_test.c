/* The Nth allocation fails, for N = 0, 1, 2, ..., in every call of the library, against a real server in a process of
 * its own: each call says so, leaks nothing, and does its work when it is called again. What gRPC allocates is
 * gRPC's. */
#include <espalier/admin.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "tests/support/test.h"

#define ALLOCATIONS_MAX 300 /* of one call */
#define LARGE 300000        /* elements: several messages */
#define READY_MS 60000

extern char **environ;

static pid_t server_pid;
static char server_address[64];

/* ---- the server ---- */

static void read_address(int pipe_fd) {
  char line[256];
  size_t len = 0;
  do {
    struct pollfd fd = {.fd = pipe_fd, .events = POLLIN};
    assert_int_equal(poll(&fd, 1, READY_MS), 1);
    ssize_t got = read(pipe_fd, line + len, sizeof(line) - 1 - len);
    assert_true(got > 0);
    len += (size_t)got;
    line[len] = '\0';
  } while (strchr(line, '\n') == NULL);
  assert_int_equal(sscanf(line, "espalierd %*s ready on %63s", server_address), 1);
}

static int start_server(void **state) {
  (void)state;
  char *const arguments[] = {(char *)"espalierd", (char *)"--listen=127.0.0.1:0", (char *)"--log-level=error", NULL};
  int ends[2];
  assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  assert_int_equal(posix_spawn(&server_pid, ESPALIERD, &actions, NULL, arguments, environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  read_address(ends[0]);
  close(ends[0]);
  return 0;
}

static int stop_server(void **state) {
  (void)state;
  int status;
  kill(server_pid, SIGTERM);
  assert_int_equal(waitpid(server_pid, &status, 0), server_pid);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  return 0;
}

/* ---- the calls ---- */

/* A client that has declared two leaves, and memory for their gradients and weights. */
struct scene {
  esp_client *client;
  esp_leaf_id leaves[2];
};

static float gradients[LARGE], weights[LARGE];

static const struct esp_leaf_spec specs[2] = {{.path = "net.large", .shape = {LARGE}, .rank = 1, .dtype = ESP_F32},
                                              {.path = "net.small", .shape = {3}, .rank = 1, .dtype = ESP_F32}};

static enum esp_code run_open(struct scene *scene, struct esp_status *st) {
  struct esp_client_options options = ESP_CLIENT_OPTIONS_INIT;
  options.target = server_address;
  options.worker = "worker";
  return esp_client_open(&options, &scene->client, st);
}

static enum esp_code run_ping(struct scene *scene, struct esp_status *st) {
  return esp_ping(scene->client, st);
}

static enum esp_code run_declare(struct scene *scene, struct esp_status *st) {
  return esp_declare(scene->client, specs, 2, scene->leaves, st);
}

/* Leaves born tied and detached, and nodes: what the server made of them is looked at once it is there. */
static enum esp_code run_declare_with(struct scene *scene, struct esp_status *st) {
  static const struct esp_leaf_spec born[] = {{.path = "born.a", .shape = {2, 3}, .rank = 2, .dtype = ESP_F32},
                                              {.path = "born.t",
                                               .shape = {3, 2},
                                               .rank = 2,
                                               .dtype = ESP_F32,
                                               .alias_of = "born.a",
                                               .transposed = true,
                                               .detached = true},
                                              {.path = "cold.w", .shape = {3}, .rank = 1, .dtype = ESP_F32}};
  static const struct esp_node_spec nodes[] = {{.path = "cold", .tag = "Dense", .frozen = true}};
  const struct esp_declare_options options = {.nodes = nodes, .nodes_len = 1};
  esp_leaf_id ids[3];
  struct esp_description *description;
  enum esp_code code = esp_declare_with(scene->client, born, 3, &options, ids, st);
  if (code == ESP_OK)
    code = esp_describe(scene->client, "born | tag:Dense", false, &description, st);
  if (code != ESP_OK)
    return code;
  const struct esp_leaf_info *leaves = description->leaves;
  assert_int_equal(description->leaves_len, 3);
  assert_string_equal(leaves[1].tied_to, "born.a");
  assert_true(leaves[1].detached && !leaves[0].detached && !leaves[0].frozen && leaves[2].frozen);
  esp_description_free(description);
  return ESP_OK;
}

static enum esp_code run_apply_all(struct scene *scene, struct esp_status *st) {
  const struct esp_hyper hyper = {"lr", "0.5"};
  const struct esp_leaf_spec leaf = {.path = "added.w", .shape = {3}, .rank = 1, .dtype = ESP_F32};
  const struct esp_op ops[] = {{.kind = ESP_OP_ADJUST, .name = "default", .hypers = &hyper, .hypers_len = 1},
                               {.kind = ESP_OP_ADD, .leaf = &leaf},
                               {.kind = ESP_OP_REINIT, .selection = "added", .init = ESP_CONSTANT, .a = 2}};
  const struct esp_apply_options options = {.dry_run = true};
  return esp_apply(scene->client, ops, 3, &options, NULL, st);
}

static enum esp_code run_history(struct scene *scene, struct esp_status *st) {
  struct esp_history *history;
  enum esp_code code = esp_history_list(scene->client, 0, 1, &history, st);
  if (code == ESP_OK) {
    assert_int_equal(history->len, 1);
    esp_history_free(history);
  }
  return code;
}

static enum esp_code run_explain(struct scene *scene, struct esp_status *st) {
  struct esp_explanation *explanation;
  enum esp_code code = esp_explain(scene->client, "**", &explanation, st);
  if (code == ESP_OK) {
    assert_true(explanation->len > 0 && explanation->leaves[0].facts_len > 0);
    esp_explanation_free(explanation);
  }
  return code;
}

static enum esp_code run_push(struct scene *scene, struct esp_status *st) {
  const struct esp_gradient grads[2] = {{scene->leaves[0], gradients, sizeof(gradients), 0},
                                        {scene->leaves[1], gradients, 12, 0}};
  return esp_push(scene->client, grads, 2, NULL, st);
}

static enum esp_code run_pull(struct scene *scene, struct esp_status *st) {
  const struct esp_weight wanted[2] = {{scene->leaves[1], weights, 12, 0},
                                       {scene->leaves[0], weights, sizeof(weights), 0}};
  return esp_pull(scene->client, wanted, 2, NULL, st);
}

static enum esp_code run_push_pull(struct scene *scene, struct esp_status *st) {
  const struct esp_gradient grad = {scene->leaves[0], gradients, sizeof(gradients), 0};
  const struct esp_weight wanted = {scene->leaves[0], weights, sizeof(weights), 0};
  return esp_push_pull(scene->client, &grad, 1, &wanted, 1, NULL, NULL, st);
}

static enum esp_code run_apply(struct scene *scene, struct esp_status *st) {
  const struct esp_op ops[3] = {{.kind = ESP_OP_FREEZE, .selection = "net"},
                                {.kind = ESP_OP_THAW, .selection = "net"},
                                {.kind = ESP_OP_FREEZE, .selection = "net.small", .at_commit = UINT64_MAX}};
  struct esp_apply_result *result;
  enum esp_code code = esp_apply(scene->client, ops, 3, NULL, &result, st);
  if (code == ESP_OK)
    esp_apply_result_free(result);
  return code;
}

static enum esp_code run_describe(struct scene *scene, struct esp_status *st) {
  struct esp_description *description;
  enum esp_code code = esp_describe(scene->client, "net", true, &description, st);
  if (code == ESP_OK) {
    assert_int_equal(description->leaves_len, 2);
    esp_description_free(description);
  }
  return code;
}

static enum esp_code run_get(struct scene *scene, struct esp_status *st) {
  struct esp_tensor tensor;
  enum esp_code code = esp_get(scene->client, "net.large", &tensor, st);
  if (code == ESP_OK)
    esp_memory_free(tensor.data);
  return code;
}

static enum esp_code run_set(struct scene *scene, struct esp_status *st) {
  const struct esp_tensor tensor = {.dtype = ESP_F32, .shape = {3}, .rank = 1, .data = weights, .bytes = 12};
  struct esp_apply_result *result;
  enum esp_code code = esp_set(scene->client, "net.small", &tensor, &result, st);
  if (code == ESP_OK)
    esp_apply_result_free(result);
  return code;
}

static enum esp_code run_server_info(struct scene *scene, struct esp_status *st) {
  struct esp_server_info info;
  return esp_server_info(scene->client, &info, st);
}

/* What is known of both leaves already is asked about; nothing is. */
static enum esp_code run_pull_with(struct scene *scene, struct esp_status *st) {
  const struct esp_weight wanted[2] = {{scene->leaves[1], weights, 12, 0},
                                       {scene->leaves[0], weights, sizeof(weights), 0}};
  struct esp_have have[2] = {0};
  const struct esp_pull_options options = {.consistent = true, .have = have};
  return esp_pull_with(scene->client, wanted, 2, &options, NULL, st);
}

static enum esp_code run_handle(struct scene *scene, struct esp_status *st) {
  const struct esp_gradient grad = {scene->leaves[0], gradients, sizeof(gradients), 0};
  const struct esp_weight wanted = {scene->leaves[0], weights, sizeof(weights), 0};
  esp_handle *handle;
  enum esp_code code =
      esp_push_pull_begin(scene->client, &grad, 1, &wanted, 1, NULL, NULL, NULL, NULL, NULL, &handle, st);
  if (code != ESP_OK)
    return code;
  size_t index;
  enum esp_code any = esp_wait_any(&handle, 1, UINT64_MAX, &index, NULL);
  assert_true(any == ESP_OK || any == ESP_RESOURCE_EXHAUSTED); /* of its own; the handle goes on */
  code = esp_wait(handle, UINT64_MAX, st);
  esp_handle_free(handle);
  return code;
}

static enum esp_code run_find(struct scene *scene, struct esp_status *st) {
  const char *const paths[2] = {"net.small", "net.large"};
  return esp_find(scene->client, paths, 2, scene->leaves, st);
}

static enum esp_code run_workers(struct scene *scene, struct esp_status *st) {
  struct esp_workers *workers;
  enum esp_code code = esp_workers_list(scene->client, &workers, st);
  if (code == ESP_OK)
    esp_workers_free(workers);
  return code;
}

/* That of run_apply. */
static enum esp_code run_timers(struct scene *scene, struct esp_status *st) {
  struct esp_timers *timers;
  enum esp_code code = esp_timers_list(scene->client, &timers, st);
  if (code != ESP_OK)
    return code;
  assert_int_equal(timers->len, 1);
  assert_string_equal(timers->timers[0].selection, "net.small");
  esp_timers_free(timers);
  return code;
}

/* Its first event, in which all leaves are. */
static enum esp_code run_watch(struct scene *scene, struct esp_status *st) {
  const struct esp_layout_event *event;
  esp_watch *watch;
  enum esp_code code = esp_watch_open(scene->client, 0, NULL, NULL, &watch, st);
  if (code != ESP_OK)
    return code;
  code = esp_watch_next(watch, UINT64_MAX, &event, st);
  if (code == ESP_OK)
    assert_int_equal(event->changes_len, 2);
  esp_watch_close(watch);
  return code;
}

/* How much of the scene a call needs before it. */
enum ready { NOTHING, OPEN, DECLARED };

static const struct call {
  const char *name;
  enum esp_code (*run)(struct scene *scene, struct esp_status *st);
  enum ready ready;
  bool pulls_behind; /* a push that may be applied before the pull behind it fails */
} calls[] = {
    {"open", run_open, NOTHING, false},
    {"ping", run_ping, OPEN, false},
    {"declare", run_declare, OPEN, false},
    {"push", run_push, DECLARED, false},
    {"pull", run_pull, DECLARED, false},
    {"push_pull", run_push_pull, DECLARED, true},
    {"pull_with", run_pull_with, DECLARED, false},
    {"handle", run_handle, DECLARED, true},
    {"find", run_find, OPEN, false},
    {"apply", run_apply, OPEN, false},
    {"describe", run_describe, OPEN, false},
    {"get", run_get, OPEN, false},
    {"set", run_set, OPEN, false},
    {"server_info", run_server_info, OPEN, false},
    {"workers", run_workers, OPEN, false},
    {"watch", run_watch, OPEN, false},
    {"declare_with", run_declare_with, OPEN, false},
    {"apply_all", run_apply_all, OPEN, false},
    {"history", run_history, OPEN, false},
    {"explain", run_explain, OPEN, false},
    {"timers", run_timers, OPEN, false},
};

/* ---- the sweep ---- */

static void check(enum esp_code code, const struct esp_status *st) {
  if (code != ESP_OK)
    fail_msg("%s: %s", esp_code_name(code), st->message);
}

static uint64_t last_commit(struct scene *scene) {
  struct esp_server_info info;
  struct esp_status st;
  check(esp_server_info(scene->client, &info, &st), &st);
  return info.commit;
}

/* The call with the Nth allocation failing, and once more with memory. False where the call makes no more than n. */
static bool fails_cleanly(const struct call *call, int n, unsigned *failures) {
  struct scene scene = {0};
  struct esp_status st;
  if (call->ready >= OPEN)
    check(run_open(&scene, &st), &st);
  if (call->ready >= DECLARED)
    check(run_declare(&scene, &st), &st);
  uint64_t before = call->ready >= OPEN ? last_commit(&scene) : 0;
  esp_alloc_fail_at(n);
  enum esp_code code = call->run(&scene, &st);
  bool has_failed = !esp_alloc_fail_is_due();
  esp_alloc_fail_at(-1);
  if (code != ESP_OK) {
    if (code != ESP_RESOURCE_EXHAUSTED)
      fail_msg("allocation %d of %s: %s: %s", n, call->name, esp_code_name(code), st.message);
    (*failures)++;
    /* Nothing has changed, unless what failed is to take the server's answer, which the message says then. */
    if (call->ready >= OPEN && !call->pulls_behind && strstr(st.message, "the server's answer") == NULL)
      assert_int_equal(last_commit(&scene), before);
    check(call->run(&scene, &st), &st);
  }
  esp_client_close(scene.client);
  return has_failed;
}

static void test_every_call(void **state) {
  (void)state;
  struct scene scene = {0};
  struct esp_status st;
  check(run_open(&scene, &st), &st);
  check(run_declare(&scene, &st), &st); /* so that there is a tree, from here on */
  esp_client_close(scene.client);
  for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
    size_t live = esp_alloc_live();
    unsigned failures = 0;
    int n = 0;
    while (n <= ALLOCATIONS_MAX && fails_cleanly(&calls[i], n, &failures))
      n++;
    print_message("%s: %d allocations, %u of them needed\n", calls[i].name, n, failures);
    assert_in_range(n, 1, ALLOCATIONS_MAX);
    assert_true(failures > 0);
    assert_int_equal(esp_alloc_live(), live);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(test_every_call)};
  return cmocka_run_group_tests(tests, start_server, stop_server);
}
