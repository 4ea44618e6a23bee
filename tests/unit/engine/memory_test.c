/* The Nth allocation fails, for N = 0, 1, 2, ..., in every call of the engine that allocates: each says so, has changed
 * nothing, leaks nothing, and does its work when it is called again. */
#include "fixture.h"

#define ALLOCATIONS_MAX 300 /* of one call: more would mean one a leaf or worse */
#define LARGE 70000         /* elements: several shares of work */

/* An engine with a small tree, a worker, and what the calls below need. */
struct scene {
  struct fixture fixture;
  uint64_t leaves[3]; /* net.large, net.mean (a buffer), net.small */
  uint64_t session;
  uint64_t stage; /* of `set` */
};

static double values[LARGE];

static const struct {
  const char *path;
  uint64_t len;
} tree[3] = {{"net.large", LARGE}, {"net.mean", 2}, {"net.small", 3}};

/* A call under test. It returns the call's code, and the first time that it is ESP_OK it has done its work. */
struct call {
  const char *name;
  void (*prepare)(struct scene *scene); /* with memory; NULL: nothing is to be prepared */
  enum esp_code (*run)(struct scene *scene, struct outcome *outcome);
};

static void scene_open(struct scene *scene) {
  struct esp_declare_leaf leaves[3];
  struct outcome outcome;
  struct esp_join join;
  fixture_open_with(&scene->fixture, 2, ESP_ISA_SSE2, "adam(lr=0.5)", 64 << 20, ESP_NONFINITE_REJECT);
  for (size_t i = 0; i < 3; i++)
    leaves[i] = vector_f64(tree[i].path, tree[i].len);
  leaves[1].kind = ESP_KIND_BUFFER;
  assert_int_equal(declare(&scene->fixture, leaves, 3, &outcome), ESP_OK);
  memcpy(scene->leaves, outcome.ids, sizeof(scene->leaves));
  assert_int_equal(esp_session_join(scene->fixture.engine, "w", 0, &join, &outcome.st), ESP_OK);
  scene->session = join.session;
  scene->stage = 0;
}

/* ---- the calls ---- */

static enum esp_code run_join(struct scene *scene, struct outcome *outcome) {
  struct esp_join join;
  return esp_session_join(scene->fixture.engine, "another", 0, &join, &outcome->st);
}

static enum esp_code run_list(struct scene *scene, struct outcome *outcome) {
  uint64_t *sessions;
  size_t len;
  enum esp_code code = esp_sessions_list(scene->fixture.engine, &sessions, &len, &outcome->st);
  if (code == ESP_OK)
    esp_free(sessions);
  return code;
}

/* A leaf whose value follows, one with an initialiser, one that is there, and a node with a group. */
static enum esp_code collect(struct esp_declare *handle, struct esp_status *st) {
  struct esp_declare_leaf leaves[3] = {vector_f64("new.value", 3), vector_f64("new.filled", LARGE),
                                       vector_f64("net.small", 3)};
  const struct esp_declare_node node = {.path = "new", .path_len = 3, .tag = "", .group = "head", .frozen = true};
  struct esp_span span = {(const uint8_t *)values, 3 * 8};
  struct esp_piece piece = {.path = "", .index = 0, .data = esp_cursor_init(&span, 1)};
  leaves[0].init.kind = ESP_INIT_VALUE;
  leaves[1].init = (struct esp_init){.kind = ESP_INIT_NORMAL, .b = 1, .seed = 3};
  leaves[1].group = "nosuch"; /* makes a note */
  enum esp_code code = esp_declare_add_node(handle, &node, st);
  for (size_t i = 0; i < 3 && code == ESP_OK; i++)
    code = esp_declare_add_leaf(handle, &leaves[i], st);
  return code == ESP_OK ? esp_declare_feed(handle, &piece, st) : code;
}

static enum esp_code run_declare(struct scene *scene, struct outcome *outcome) {
  struct outcome ready;
  struct esp_declare *handle;
  const struct esp_push_header header = {.leaf_count = 1, .total_bytes = 3 * 8};
  outcome_init(&ready);
  enum esp_code code = esp_declare_new(scene->fixture.engine, &header, on_push, &ready, &handle, &outcome->st);
  if (code != ESP_OK)
    return code;
  code = ready.done > 0 ? ready.code : collect(handle, &outcome->st);
  if (code != ESP_OK) {
    esp_declare_free(handle);
    return code;
  }
  esp_declare_commit(handle, on_declare, outcome);
  outcome_wait(outcome);
  return outcome->code;
}

static enum esp_code run_push(struct scene *scene, struct outcome *outcome) {
  const struct grad grads[2] = {{scene->leaves[0], values, LARGE * 8}, {scene->leaves[2], values, 3 * 8}};
  enum esp_code code = push_many(&scene->fixture, scene->session, 1, grads, 2, outcome);
  if (code == ESP_OK)
    assert_true(outcome->push.applied == 2 && !outcome->push.replayed);
  return code;
}

static enum esp_code run_stage(struct scene *scene, struct outcome *outcome) {
  struct esp_push *push;
  struct esp_push_header header = {.leaf_count = 3};
  uint64_t expires_ms;
  for (size_t i = 0; i < 3; i++)
    header.total_bytes += tree[i].len * 8;
  enum esp_code code = esp_stage_new(scene->fixture.engine, &header, on_push, outcome, &push, &outcome->st);
  if (code != ESP_OK)
    return code;
  if (outcome->done > 0)
    code = outcome->code;
  for (size_t i = 0; i < 3 && code == ESP_OK; i++)
    code = feed(push, scene->leaves[i], 0, values, tree[i].len * 8, &outcome->st);
  if (code == ESP_OK)
    return esp_stage_keep(push, &scene->stage, &expires_ms, &outcome->st);
  esp_push_free(push);
  return code;
}

static void prepare_stage(struct scene *scene) {
  struct outcome outcome;
  outcome_init(&outcome);
  assert_int_equal(run_stage(scene, &outcome), ESP_OK);
}

static enum esp_code run_set(struct scene *scene, struct outcome *outcome) {
  struct esp_operation op = {.kind = ESP_OPERATION_SET, .selection = "net", .stage = scene->stage, .reset_state = true};
  struct esp_apply_request request = {.operations = &op, .operations_len = 1, .idempotency_key = ""};
  return apply_request(&scene->fixture, &request, outcome);
}

/* Under a key: what failed is not remembered as done. */
static enum esp_code run_freeze(struct scene *scene, struct outcome *outcome) {
  struct esp_operation ops[2] = {{.kind = ESP_OPERATION_FREEZE, .selection = "net.l*"},
                                 {.kind = ESP_OPERATION_FREEZE, .selection = "net.small"}};
  struct esp_apply_request request = {.operations = ops, .operations_len = 2, .idempotency_key = "key"};
  enum esp_code code = apply_request(&scene->fixture, &request, outcome);
  if (code == ESP_OK)
    assert_int_equal(outcome->changes_len, 2);
  return code;
}

static void prepare_freeze(struct scene *scene) {
  struct outcome outcome;
  assert_int_equal(apply_one(&scene->fixture, ESP_OPERATION_FREEZE, "net", &outcome), ESP_OK);
}

static enum esp_code run_thaw(struct scene *scene, struct outcome *outcome) {
  struct esp_operation op = {.kind = ESP_OPERATION_THAW, .selection = "net", .reset_state = true};
  struct esp_apply_request request = {.operations = &op, .operations_len = 1, .idempotency_key = ""};
  return apply_request(&scene->fixture, &request, outcome);
}

/* Nearly every operation, in one transaction. */
static enum esp_code run_surgery(struct scene *scene, struct outcome *outcome) {
  struct esp_declare_leaf twin = vector_f64("net.twin", 3);
  const struct esp_hyper_change hypers[] = {{"lr", "2"}};
  const struct esp_operation ops[] = {
      {.kind = ESP_OPERATION_ADD, .leaf = &twin},
      {.kind = ESP_OPERATION_COPY, .selection = "net.small", .to = "net.twin"},
      {.kind = ESP_OPERATION_TIE, .selection = "net.twin", .to = "net.small", .mean = true},
      {.kind = ESP_OPERATION_UNTIE, .selection = "net.twin"},
      {.kind = ESP_OPERATION_DEFINE_GROUP, .name = "new", .to = "sgd(lr=1, momentum=0.5)"},
      {.kind = ESP_OPERATION_REGROUP, .selection = "net.small | net.large", .to = "new"},
      {.kind = ESP_OPERATION_ADJUST, .name = "new", .hypers = hypers, .hypers_len = 1},
      {.kind = ESP_OPERATION_NAME_SELECTION, .name = "some", .selection = "net & !name:mean"},
      {.kind = ESP_OPERATION_DETACH, .selection = "@some"},
      {.kind = ESP_OPERATION_ATTACH, .selection = "@some"},
      {.kind = ESP_OPERATION_REINIT, .selection = "net.large", .init = {.kind = ESP_INIT_CONSTANT, .a = 1}},
      {.kind = ESP_OPERATION_RESET, .selection = "net.large"},
      {.kind = ESP_OPERATION_RENAME, .selection = "net.twin", .to = "net.other"},
      {.kind = ESP_OPERATION_REMOVE, .selection = "net.other"},
  };
  const struct esp_apply_request request = {
      .operations = ops, .operations_len = sizeof(ops) / sizeof(*ops), .idempotency_key = "", .actor = "a"};
  return apply_request(&scene->fixture, &request, outcome);
}

static void prepare_surgery(struct scene *scene) {
  struct outcome outcome;
  if (run_surgery(scene, &outcome) != ESP_OK)
    fail_msg("%s", outcome.st.message);
}

/* All that a freeze and a thaw may say of when. */
static enum esp_code run_timers(struct scene *scene, struct outcome *outcome) {
  const struct esp_operation ops[] = {
      {.kind = ESP_OPERATION_FREEZE, .selection = "net", .for_ms = 1000000},
      {.kind = ESP_OPERATION_FREEZE, .selection = "net.small", .until_commit = 1000},
      {.kind = ESP_OPERATION_CANCEL_TIMER, .timer = 1},
      {.kind = ESP_OPERATION_FREEZE, .selection = "net.mean", .at_commit = 1000, .for_ms = 5},
      {.kind = ESP_OPERATION_THAW, .selection = "net.large", .at_commit = 1000, .reset_state = true},
      {.kind = ESP_OPERATION_THAW,
       .selection = "net.{small,large,mean}",
       .one_by_one = true,
       .every = 100,
       .reset_state = true},
  };
  const struct esp_apply_request request = {
      .operations = ops, .operations_len = sizeof(ops) / sizeof(*ops), .idempotency_key = "", .actor = "a"};
  return apply_request(&scene->fixture, &request, outcome);
}

/* A transaction that takes timers away. */
static void prepare_timers(struct scene *scene) {
  struct outcome outcome;
  if (run_timers(scene, &outcome) != ESP_OK)
    fail_msg("%s", outcome.st.message);
  assert_int_equal(apply_one(&scene->fixture, ESP_OPERATION_FREEZE, "net", &outcome), ESP_OK);
}

static enum esp_code run_undo(struct scene *scene, struct outcome *outcome) {
  const struct esp_operation op = {.kind = ESP_OPERATION_UNDO};
  const struct esp_apply_request request = {.operations = &op, .operations_len = 1, .idempotency_key = ""};
  return apply_request(&scene->fixture, &request, outcome);
}

static enum esp_code run_history(struct scene *scene, struct outcome *outcome) {
  struct esp_record **records;
  size_t len;
  enum esp_code code = esp_engine_history(scene->fixture.engine, 0, 0, &records, &len, &outcome->st);
  for (size_t i = 0; code == ESP_OK && i < len; i++)
    esp_record_unref(records[i]);
  if (code == ESP_OK)
    esp_free(records);
  return code;
}

static void prepare_clipping(struct scene *scene) {
  struct outcome outcome;
  const struct esp_operation op = {
      .kind = ESP_OPERATION_DEFINE_GROUP, .name = "default", .to = "clip_global_norm(max=1) | adam(lr=0.5)"};
  const struct esp_apply_request request = {.operations = &op, .operations_len = 1, .idempotency_key = ""};
  assert_int_equal(apply_request(&scene->fixture, &request, &outcome), ESP_OK);
}

static enum esp_code run_dry_run(struct scene *scene, struct outcome *outcome) {
  struct esp_operation op = {.kind = ESP_OPERATION_FREEZE, .selection = "net"};
  struct esp_apply_request request = {.operations = &op, .operations_len = 1, .dry_run = true, .idempotency_key = ""};
  return apply_request(&scene->fixture, &request, outcome);
}

static enum esp_code run_digest(struct scene *scene, struct outcome *outcome) {
  return digest(&scene->fixture, "net", outcome);
}

static enum esp_code pull_all(struct scene *scene, const struct esp_pull_request *request, struct outcome *outcome) {
  struct esp_pull *pull;
  enum esp_code code = pull_begin(&scene->fixture, request, outcome, &pull);
  while (code == ESP_OK && pull_next(pull, outcome)) {
    code = outcome->code;
    esp_hold_unref(outcome->pin.hold);
  }
  esp_pull_free(pull);
  assert_int_equal(copies(&scene->fixture), 0);
  return code;
}

static enum esp_code run_pull(struct scene *scene, struct outcome *outcome) {
  const struct esp_pull_request request = {.selection = "net"};
  return pull_all(scene, &request, outcome);
}

static enum esp_code run_consistent_pull(struct scene *scene, struct outcome *outcome) {
  const struct esp_pull_request request = {.selection = "net", .consistent = true};
  return pull_all(scene, &request, outcome);
}

static enum esp_code run_delta_pull(struct scene *scene, struct outcome *outcome) {
  const struct esp_have have = {.leaf_id = scene->leaves[0]};
  const struct esp_pull_request request = {
      .selection = "net", .have_lineage = esp_engine_lineage(scene->fixture.engine), .have = &have, .have_len = 1};
  return pull_all(scene, &request, outcome);
}

static const struct call calls[] = {
    {"join", NULL, run_join},
    {"list of sessions", NULL, run_list},
    {"declare", NULL, run_declare},
    {"push", NULL, run_push},
    {"push that is clipped", prepare_clipping, run_push},
    {"stage", NULL, run_stage},
    {"set", prepare_stage, run_set},
    {"freeze", NULL, run_freeze},
    {"thaw", prepare_freeze, run_thaw},
    {"surgery", NULL, run_surgery},
    {"undo", prepare_surgery, run_undo},
    {"timers", NULL, run_timers},
    {"undo of timers", prepare_timers, run_undo},
    {"history", NULL, run_history},
    {"dry run", NULL, run_dry_run},
    {"digest", NULL, run_digest},
    {"pull", NULL, run_pull},
    {"consistent pull", NULL, run_consistent_pull},
    {"delta pull", NULL, run_delta_pull},
};

/* ---- the sweep ---- */

/* All that a call could have changed. */
struct snapshot {
  struct esp_digest digest; /* of values, states and steps */
  struct esp_engine_info info;
};

static void snapshot_take(struct scene *scene, struct snapshot *ret) {
  struct outcome outcome;
  assert_int_equal(digest(&scene->fixture, "", &outcome), ESP_OK);
  ret->digest = outcome.digest;
  esp_engine_info(scene->fixture.engine, &ret->info);
}

static void assert_unchanged(const struct snapshot *before, struct scene *scene) {
  struct snapshot after;
  snapshot_take(scene, &after);
  assert_memory_equal(&after.digest, &before->digest, sizeof(after.digest));
  assert_int_equal(after.info.epoch, before->info.epoch);
  assert_int_equal(after.info.commit, before->info.commit);
  assert_int_equal(after.info.leaves, before->info.leaves);
  assert_int_equal(after.info.params, before->info.params);
  assert_int_equal(after.info.frozen, before->info.frozen);
  assert_int_equal(after.info.sessions_live, before->info.sessions_live);
  assert_int_equal(after.info.memory_params, before->info.memory_params);
  assert_int_equal(after.info.memory_state, before->info.memory_state);
  assert_int_equal(after.info.memory_staged, before->info.memory_staged);
  assert_int_equal(after.info.pushes_applied, before->info.pushes_applied);
}

/* The call with the Nth allocation failing, and once more with memory. False where the call makes no more than n. */
static bool fails_cleanly(const struct call *call, int n, unsigned *failures) {
  struct scene scene;
  struct snapshot before;
  struct outcome outcome;
  outcome_init(&outcome);
  scene_open(&scene);
  if (call->prepare != NULL)
    call->prepare(&scene);
  snapshot_take(&scene, &before);
  esp_alloc_fail_at(n);
  enum esp_code code = call->run(&scene, &outcome);
  bool has_failed = !esp_alloc_fail_is_due();
  esp_alloc_fail_at(-1);
  if (code != ESP_OK) {
    assert_int_equal(code, ESP_RESOURCE_EXHAUSTED);
    (*failures)++;
    assert_unchanged(&before, &scene);
    outcome_init(&outcome);
    assert_int_equal(call->run(&scene, &outcome), ESP_OK);
  }
  /* Whatever it was, the worker goes on. */
  assert_int_equal(apply_one(&scene.fixture, ESP_OPERATION_THAW, "net", &outcome), ESP_OK);
  const struct grad grad = {scene.leaves[2], values, 3 * 8};
  assert_int_equal(push_many(&scene.fixture, scene.session, 2, &grad, 1, &outcome), ESP_OK);
  assert_int_equal(outcome.push.applied, 1);
  fixture_close(&scene.fixture);
  return has_failed;
}

static void test_every_call(void **state) {
  (void)state;
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

static void test_engine_without_memory(void **state) {
  (void)state;
  const struct esp_named groups[] = {{"default", "adam"}, {"head", "sgd"}};
  const struct esp_named assigns[] = {{"x", "head"}};
  struct esp_env_virtual *twin = esp_env_virtual_new(1);
  struct esp_engine_options options = {.env = esp_env_virtual_env(twin),
                                       .threads = 2,
                                       .max_staged = 100,
                                       .max_tree = 100,
                                       .max_sessions = 1,
                                       .groups = groups,
                                       .groups_len = 2,
                                       .assigns = assigns,
                                       .assigns_len = 1};
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  for (int n = 0; n < ALLOCATIONS_MAX && code != ESP_OK; n++) {
    struct esp_engine *engine;
    esp_alloc_fail_at(n);
    code = esp_engine_new(&options, &engine, NULL);
    esp_alloc_fail_at(-1);
    assert_true(code == ESP_OK || code == ESP_RESOURCE_EXHAUSTED);
    if (code == ESP_OK)
      esp_engine_free(engine);
  }
  assert_int_equal(code, ESP_OK);
  esp_env_virtual_free(twin);
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(test_every_call), ESP_TEST(test_engine_without_memory)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
