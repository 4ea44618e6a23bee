/* Timers: at which commit they come, whoever pushes and however many; time; what is asked for one by one. */
#include "timer_fixture.h"

static void until_a_commit(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t leaf = declare_vector(&fixture, "x", 2);
  uint64_t commit = info_of(&fixture).commit;
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x", .until_commit = commit + 5},
           &outcome);
  assert_int_equal(outcome.commit, commit + 1);
  char text[256];
  snprintf(text, sizeof(text), "x frozen false->true\nx timer ->thaw at commit %d (timer 1)\n", (int)commit + 5);
  assert_string_equal(outcome.text, text);
  for (uint64_t i = 2; i < 5; i++) { /* commits of pushes that step nothing count */
    struct outcome pushed = push_ok(&fixture, leaf);
    assert_int_equal(pushed.push.commit, commit + i);
    assert_int_equal(pushed.push.frozen, 1);
  }
  wait_epoch(&fixture, outcome.epoch + 1); /* though nobody pushes any more */
  assert_int_equal(info_of(&fixture).commit, commit + 5);
  snprintf(text, sizeof(text), "timer 1 of epoch %d: x", (int)outcome.epoch);
  expect_fired(&fixture, commit + 5, text);
  struct outcome pushed = push_ok(&fixture, leaf);
  assert_int_equal(pushed.push.commit, commit + 6);
  assert_int_equal(pushed.push.applied, 1);
  assert_true(first_of(&fixture, leaf) == -1);
  assert_int_equal(timers_len(&fixture), 0);
  assert_int_equal(info_of(&fixture).push_commits, 4);
  fixture_close(&fixture);
}

static void at_a_commit_until_another(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t leaf = declare_vector(&fixture, "x", 2);
  uint64_t commit = info_of(&fixture).commit;
  apply_ok(&fixture,
           (struct esp_operation){
               .kind = ESP_OPERATION_FREEZE, .selection = "x", .at_commit = commit + 4, .until_commit = commit + 7},
           &outcome);
  assert_false(is_frozen(&fixture, "x"));
  static const uint64_t numbers[] = {2, 3, 5, 6, 8, 9};
  for (size_t i = 0; i < 6; i++) {
    struct outcome pushed = push_ok(&fixture, leaf);
    assert_int_equal(pushed.push.commit, commit + numbers[i]);
    assert_int_equal(pushed.push.frozen, i == 2 || i == 3);
  }
  assert_true(first_of(&fixture, leaf) == -4);
  fixture_close(&fixture);
}

/* Where its number is taken it is the next free one: of a transaction, or of the one that sets it. */
static void the_next_free_commit(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  declare_vector(&fixture, "x", 2);
  declare_vector(&fixture, "y", 2);
  uint64_t commit = info_of(&fixture).commit;
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x", .until_commit = commit + 1},
           &outcome);
  assert_int_equal(outcome.commit, commit + 1);
  wait_epoch(&fixture, outcome.epoch + 1);
  assert_int_equal(info_of(&fixture).commit, commit + 2);
  assert_false(is_frozen(&fixture, "x"));
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x", .at_commit = commit + 5},
           &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_DETACH, .selection = "y"}, &outcome);
  wait_epoch(&fixture, outcome.epoch + 1); /* a transaction brought it near */
  assert_int_equal(info_of(&fixture).commit, commit + 5);
  assert_true(is_frozen(&fixture, "x"));
  fixture_close(&fixture);
}

static void for_a_time(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  declare_vector(&fixture, "x", 2);
  declare_vector(&fixture, "y", 2);
  uint64_t commit = info_of(&fixture).commit;
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x", .for_ms = 600000},
           &outcome);
  assert_string_equal(outcome.text, "x frozen false->true\nx timer ->thaw after 600000 ms (timer 1)\n");
  apply_ok(&fixture,
           (struct esp_operation){
               .kind = ESP_OPERATION_FREEZE, .selection = "y", .at_commit = commit + 4, .for_ms = 1000000},
           &outcome);
  assert_int_equal(outcome.changes_len, 1);
  esp_env_virtual_advance(fixture.twin, 599999);
  esp_engine_tick(fixture.engine);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_DETACH, .selection = "x"}, &outcome);
  wait_epoch(&fixture, outcome.epoch + 1); /* y's, at its commit */
  assert_true(is_frozen(&fixture, "x") && is_frozen(&fixture, "y"));
  esp_env_virtual_advance(fixture.twin, 1);
  esp_engine_tick(fixture.engine);
  wait_epoch(&fixture, outcome.epoch + 2);
  assert_true(!is_frozen(&fixture, "x") && is_frozen(&fixture, "y"));
  esp_env_virtual_advance(fixture.twin, 999998);
  esp_engine_tick(fixture.engine);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_ATTACH, .selection = "x"}, &outcome);
  assert_true(is_frozen(&fixture, "y")); /* from when it was frozen */
  esp_env_virtual_advance(fixture.twin, 1);
  esp_engine_tick(fixture.engine);
  wait_epoch(&fixture, outcome.epoch + 1);
  assert_false(is_frozen(&fixture, "y"));
  esp_engine_tick(fixture.engine);
  assert_int_equal(timers_len(&fixture), 0);
  fixture_close(&fixture);
}

static void one_by_one(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t leaf = declare_vector(&fixture, "x.0", 2);
  declare_vector(&fixture, "x.1", 2);
  declare_vector(&fixture, "x.2", 2);
  declare_vector(&fixture, "x.3", 2);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "x.0", .to = "x.2"}, &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x"}, &outcome);
  push_ok(&fixture, leaf);
  apply_ok(&fixture,
           (struct esp_operation){.kind = ESP_OPERATION_THAW, .selection = "x.[3-0]", .one_by_one = true, .every = 3},
           &outcome);
  assert_string_equal(outcome.text, "x.3 frozen true->false\n"
                                    "x.0 timer ->thaw after 3 pushes (timer 1)\n"
                                    "x.2 timer ->thaw after 3 pushes (timer 1)\n"
                                    "x.1 timer ->thaw after 6 pushes (timer 2)\n"); /* x.0 goes with x.2 */
  assert_int_equal(outcome.matched, 4);
  uint64_t epoch = outcome.epoch;
  for (uint64_t i = 1; i <= 7; i++) {
    struct outcome pushed = push_ok(&fixture, leaf);
    assert_int_equal(pushed.push.frozen, i <= 3);
    assert_int_equal(pushed.push.epoch, epoch + (i > 3) + (i > 6));
    if (i == 3) /* transactions do not count */
      apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_DETACH, .selection = "x.3"}, &outcome), epoch++;
  }
  assert_false(is_frozen(&fixture, "x.1"));
  assert_int_equal(timers_len(&fixture), 0);
  fixture_close(&fixture);
}

static void state_is_reset_when_it_is_thawed(void **state) {
  (void)state;
  for (int reset = 0; reset < 2; reset++) {
    struct fixture fixture;
    struct outcome outcome;
    fixture_open_with(&fixture, 2, ESP_ISA_SSE2, "adam(lr=1)", 64 << 20, ESP_NONFINITE_REJECT);
    uint64_t leaf = declare_vector(&fixture, "x", 2);
    push_ok(&fixture, leaf);
    push_ok(&fixture, leaf);
    apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x"}, &outcome);
    apply_ok(&fixture,
             (struct esp_operation){
                 .kind = ESP_OPERATION_THAW, .selection = "x", .at_commit = outcome.commit + 3, .reset_state = reset},
             &outcome);
    assert_int_equal(digest(&fixture, "x", &outcome), ESP_OK);
    assert_int_equal(outcome.stat.steps, 2);
    push_ok(&fixture, leaf); /* the one before the timer's */
    push_ok(&fixture, leaf);
    assert_int_equal(digest(&fixture, "x", &outcome), ESP_OK);
    assert_int_equal(outcome.stat.steps, reset ? 1 : 3);
    fixture_close(&fixture);
  }
}

/* ---- many pushers ---- */

enum { PUSHERS = 4, PUSHES = 60 };

struct pusher {
  struct fixture *fixture;
  const struct grad *grads;
  size_t grads_len;
  struct esp_push_reply replies[PUSHES];
};

static void *pusher_run(void *data) {
  struct pusher *pusher = data;
  for (size_t i = 0; i < PUSHES; i++) {
    struct outcome outcome;
    if (push_many(pusher->fixture, 0, 0, pusher->grads, pusher->grads_len, &outcome) != ESP_OK)
      fail_msg("%s", outcome.st.message);
    pusher->replies[i] = outcome.push;
  }
  return NULL;
}

/* A freeze at one commit until another, while four push: each push before, between or after steps, or does not, as its
 * number says, and no push has one of the two numbers. Returns the steps. */
static uint64_t push_through(struct fixture *fixture, const struct grad *grads, size_t grads_len) {
  static struct pusher pushers[PUSHERS];
  pthread_t threads[PUSHERS];
  struct outcome outcome;
  uint64_t commit = info_of(fixture).commit, epoch = info_of(fixture).epoch, steps = 0;
  uint64_t at = commit + 50, until = commit + 150;
  apply_ok(
      fixture,
      (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x", .at_commit = at, .until_commit = until},
      &outcome);
  for (size_t i = 0; i < PUSHERS; i++) {
    pushers[i] = (struct pusher){.fixture = fixture, .grads = grads, .grads_len = grads_len};
    assert_int_equal(pthread_create(&threads[i], NULL, pusher_run, &pushers[i]), 0);
  }
  for (size_t i = 0; i < PUSHERS; i++)
    pthread_join(threads[i], NULL);
  uint8_t seen[PUSHERS * PUSHES + 4] = {0};
  for (size_t i = 0; i < PUSHERS * PUSHES; i++) {
    const struct esp_push_reply *reply = &pushers[i / PUSHES].replies[i % PUSHES];
    assert_true(reply->commit > commit + 1 && reply->commit <= commit + PUSHERS * PUSHES + 3);
    assert_int_equal(seen[reply->commit - commit]++, 0);
    assert_true(reply->commit != at && reply->commit != until);
    bool between = reply->commit > at && reply->commit < until;
    assert_int_equal(reply->frozen, between);
    assert_int_equal(reply->applied, grads_len - between);
    assert_int_equal(reply->epoch, epoch + 1 + (reply->commit > at) + (reply->commit > until));
    steps += !between;
  }
  assert_int_equal(info_of(fixture).commit, commit + PUSHERS * PUSHES + 3);
  return steps;
}

static void four_pushers_see_it_at_one_commit(void **state) {
  (void)state;
  struct fixture fixture;
  fixture_open(&fixture);
  uint64_t leaf = declare_vector(&fixture, "x", 2);
  const struct grad grad = {leaf, one, sizeof(one)};
  assert_int_equal(push_through(&fixture, &grad, 1), PUSHERS * PUSHES - 99);
  assert_true(first_of(&fixture, leaf) == -(PUSHERS * PUSHES - 99));
  fixture_close(&fixture);
}

/* Norms are measured before a commit takes its number: of what was parked they are measured again, as the layout is
 * another one. x has 3 of the norm of 5, until it is frozen: then y is clipped alone. */
static void parked_pushes_are_measured_again(void **state) {
  (void)state;
  enum { LEN = 20000 };
  static double x[LEN], y[LEN];
  struct fixture fixture;
  fixture_open_with(&fixture, 2, ESP_ISA_SSE2, "clip_global_norm(1) | sgd(lr=1)", 64 << 20, ESP_NONFINITE_REJECT);
  uint64_t leaves[2] = {declare_vector(&fixture, "x", LEN), declare_vector(&fixture, "y", LEN)};
  x[0] = 3;
  y[0] = 4;
  const struct grad grads[2] = {{leaves[0], x, sizeof(x)}, {leaves[1], y, sizeof(y)}};
  uint64_t steps = push_through(&fixture, grads, 2);
  assert_int_equal(steps, PUSHERS * PUSHES - 99);
  double expected[2] = {-0.6 * (double)steps, -0.8 * (double)steps - 1.0 * 99};
  for (size_t i = 0; i < 2; i++) {
    double difference = first_of(&fixture, leaves[i]) - expected[i];
    assert_true(difference < 1e-4 && difference > -1e-4);
  }
  fixture_close(&fixture);
}

/* ---- parked ---- */

/* In the order in which they came, also where the server is shutting down by then. */
static void parked_pushes_go_on_in_order(void **state) {
  (void)state;
  enum { PARKED = 5 };
  for (int drains = 0; drains < 2; drains++) {
    struct fixture fixture;
    struct gate gate;
    struct outcome applied, outcomes[PARKED];
    struct esp_push *pushes[PARKED];
    fixture_open(&fixture);
    uint64_t leaf = declare_vector(&fixture, "x", 2);
    uint64_t commit = info_of(&fixture).commit;
    const struct esp_operation op = {.kind = ESP_OPERATION_FREEZE, .selection = "x", .until_commit = commit + 2};
    const struct grad grad = {leaf, one, sizeof(one)};
    gate_close(&gate, &fixture, &op, &applied);
    for (size_t i = 0; i < PARKED; i++) {
      assert_int_equal(push_arrive(&fixture, 0, 0, &grad, 1, &outcomes[i], &pushes[i]), ESP_OK);
      esp_push_commit(pushes[i]);
      assert_int_equal(outcomes[i].done, 0);
    }
    assert_int_equal(info_of(&fixture).commit, commit + 1);
    if (drains)
      esp_engine_drain(fixture.engine);
    assert_false(esp_engine_is_idle(fixture.engine));
    gate_open(&gate, &applied);
    for (size_t i = 0; i < PARKED; i++) {
      outcome_wait(&outcomes[i]);
      assert_int_equal(outcomes[i].code, ESP_OK);
      assert_int_equal(outcomes[i].push.commit, commit + 3 + i);
      assert_int_equal(outcomes[i].push.applied, 1);
      esp_push_free(pushes[i]);
    }
    fixture_close(&fixture);
  }
}

/* The next timer that is due stops those that were parked before it again. */
static void timers_among_the_parked(void **state) {
  (void)state;
  enum { PARKED = 6 };
  struct fixture fixture;
  struct gate gate;
  struct outcome applied, outcomes[PARKED];
  struct esp_push *pushes[PARKED];
  fixture_open(&fixture);
  uint64_t leaf = declare_vector(&fixture, "x", 2);
  declare_vector(&fixture, "y", 2);
  uint64_t commit = info_of(&fixture).commit;
  apply_ok(&fixture,
           (struct esp_operation){
               .kind = ESP_OPERATION_FREEZE, .selection = "x", .at_commit = commit + 5, .until_commit = commit + 8},
           &applied);
  const struct esp_operation op = {.kind = ESP_OPERATION_FREEZE, .selection = "y", .until_commit = commit + 3};
  const struct grad grad = {leaf, one, sizeof(one)};
  gate_close(&gate, &fixture, &op, &applied); /* commit + 2 */
  for (size_t i = 0; i < PARKED; i++) {
    assert_int_equal(push_arrive(&fixture, 0, 0, &grad, 1, &outcomes[i], &pushes[i]), ESP_OK);
    esp_push_commit(pushes[i]);
  }
  gate_open(&gate, &applied);
  static const uint64_t numbers[PARKED] = {4, 6, 7, 9, 10, 11};
  for (size_t i = 0; i < PARKED; i++) {
    outcome_wait(&outcomes[i]);
    assert_int_equal(outcomes[i].code, ESP_OK);
    assert_int_equal(outcomes[i].push.commit, commit + numbers[i]);
    assert_int_equal(outcomes[i].push.frozen, i == 1 || i == 2);
    esp_push_free(pushes[i]);
  }
  fixture_close(&fixture);
}

/* The Nth allocation of the timers' transaction fails: the push that waits for it is refused, the timer stays due, and
 * comes before the next push. */
static void without_memory(void **state) {
  (void)state;
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  int64_t failing = 0;
  for (; code != ESP_OK; failing++) {
    struct fixture fixture;
    struct gate gate;
    struct outcome applied, outcome, again;
    struct esp_push *push;
    fixture_open(&fixture);
    uint64_t leaf = declare_vector(&fixture, "x", 2);
    push_ok(&fixture, leaf);
    apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_DETACH, .selection = "x"}, &applied);
    apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_ATTACH, .selection = "x"}, &applied);
    uint64_t commit = info_of(&fixture).commit;
    const struct esp_operation op = {
        .kind = ESP_OPERATION_FREEZE, .selection = "x", .at_commit = commit + 2, .for_ms = 9};
    const struct grad grad = {leaf, one, sizeof(one)};
    gate_close(&gate, &fixture, &op, &applied);
    assert_int_equal(push_arrive(&fixture, 0, 0, &grad, 1, &outcome, &push), ESP_OK);
    esp_push_commit(push);
    esp_alloc_fail_at(failing);
    gate_open(&gate, &applied);
    outcome_wait(&outcome);
    bool failed = !esp_alloc_fail_is_due();
    esp_alloc_fail_at(-1);
    esp_push_free(push);
    code = outcome.code;
    assert_int_equal(code, failed ? ESP_RESOURCE_EXHAUSTED : ESP_OK);
    if (failed)
      assert_non_null(strstr(outcome.st.message, "a timer is due before this push, and failed: no memory"));
    again = push_ok(&fixture, leaf);
    assert_int_equal(again.push.commit, commit + 3 + !failed);
    assert_int_equal(again.push.frozen, 1);
    expect_fired(&fixture, commit + 2, "timer 1 of epoch 6: x");
    assert_int_equal(timers_len(&fixture), 1); /* the thaw */
    fixture_close(&fixture);
  }
  assert_true(failing > 10);
}

/* Of nobody's push: the tick tries it again. */
static void the_tick_tries_again(void **state) {
  (void)state;
  struct fixture fixture;
  struct gate gate;
  struct outcome applied;
  fixture_open(&fixture);
  declare_vector(&fixture, "x", 2);
  uint64_t commit = info_of(&fixture).commit;
  const struct esp_operation op = {.kind = ESP_OPERATION_FREEZE, .selection = "x", .until_commit = commit + 2};
  gate_close(&gate, &fixture, &op, &applied);
  esp_alloc_fail_at(0);
  gate_open(&gate, &applied);
  while (!esp_engine_is_idle(fixture.engine))
    sched_yield();
  assert_false(esp_alloc_fail_is_due());
  esp_alloc_fail_at(-1);
  assert_int_equal(info_of(&fixture).commit, commit + 1);
  esp_engine_tick(fixture.engine);
  wait_epoch(&fixture, applied.epoch + 1);
  assert_int_equal(info_of(&fixture).commit, commit + 2);
  fixture_close(&fixture);
}

/* What is as the timer wants it already stays; the timer goes all the same. Two that are due are one transaction. */
static void several_are_one_transaction(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  declare_vector(&fixture, "x", 2);
  declare_vector(&fixture, "y", 2);
  declare_vector(&fixture, "z", 2);
  const struct esp_operation ops[] = {
      {.kind = ESP_OPERATION_FREEZE, .selection = "y"},
      {.kind = ESP_OPERATION_THAW, .selection = "x", .at_commit = 6},
      {.kind = ESP_OPERATION_THAW, .selection = "y", .at_commit = 5},
      {.kind = ESP_OPERATION_FREEZE, .selection = "z", .at_commit = 4, .for_ms = 3},
  };
  assert_int_equal(apply_ops(&fixture, ops, 4, &outcome), ESP_OK);
  assert_int_equal(outcome.commit, 4);
  expect_fired(&fixture, 5, "timer 2 of epoch 6: y; timer 3 of epoch 6: z");
  struct esp_record *record = record_of(&fixture, 6); /* its commit is the next */
  assert_int_equal(record->diff.len, 1);
  assert_string_equal(record->diff.changes[0].field, "timer");
  assert_string_equal(record->diff.changes[0].to, "");
  esp_record_unref(record);
  assert_int_equal(timers_len(&fixture), 1);
  assert_true(is_frozen(&fixture, "z") && !is_frozen(&fixture, "y") && !is_frozen(&fixture, "x"));
  fixture_close(&fixture);
}

/* ---- pushes that come while a transaction is being prepared ---- */

/* Submits operations the second of which waits for the stages' lock, which the caller holds; when this returns, the
 * transaction knows at which commit it began. */
static void prepare(struct fixture *fixture, const struct esp_operation *op, uint64_t stage, struct outcome *outcome) {
  const struct esp_operation ops[] = {*op, {.kind = ESP_OPERATION_SET, .selection = "y", .stage = stage}};
  const struct esp_apply_request request = {
      .operations = ops, .operations_len = 2, .idempotency_key = "", .actor = "", .reason = ""};
  struct esp_layout *layout = esp_engine_layout(fixture->engine, NULL);
  size_t refs = atomic_load(&layout->refs);
  outcome_init(outcome);
  esp_engine_apply(fixture->engine, &request, on_apply, outcome);
  while (atomic_load(&layout->refs) == refs)
    sched_yield();
  esp_layout_unref(layout);
  (void)info_of(fixture); /* under the commit lock, under which it looks */
}

static uint64_t stage_of(struct fixture *fixture, uint64_t leaf) {
  const struct esp_push_header header = {.leaf_count = 1, .total_bytes = sizeof(one)};
  struct outcome outcome;
  struct esp_push *push;
  struct esp_status st;
  uint64_t token, expires_ms;
  outcome_init(&outcome);
  assert_int_equal(esp_stage_new(fixture->engine, &header, on_push, &outcome, &push, &st), ESP_OK);
  assert_int_equal(feed(push, leaf, 0, one, sizeof(one), &st), ESP_OK);
  assert_int_equal(esp_stage_keep(push, &token, &expires_ms, &st), ESP_OK);
  return token;
}

static void pushes_while_it_is_prepared(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t leaf = declare_vector(&fixture, "x.0", 2);
  declare_vector(&fixture, "x.1", 2);
  uint64_t y = declare_vector(&fixture, "y", 2);
  uint64_t commit = info_of(&fixture).commit, epoch = info_of(&fixture).epoch;

  uint64_t stage = stage_of(&fixture, y);
  pthread_mutex_lock(&fixture.engine->stages_lock);
  const struct esp_operation until = {.kind = ESP_OPERATION_FREEZE, .selection = "x", .until_commit = commit + 2};
  prepare(&fixture, &until, stage, &outcome);
  for (int i = 0; i < 3; i++)
    assert_int_equal(push_ok(&fixture, leaf).push.frozen, 0);
  pthread_mutex_unlock(&fixture.engine->stages_lock);
  outcome_wait(&outcome);
  assert_int_equal(outcome.code, ESP_FAILED_PRECONDITION);
  char text[128];
  snprintf(text, sizeof(text), "commit %d came while this was being prepared: the tree is at %d", (int)commit + 2,
           (int)commit + 3);
  assert_string_equal(outcome.st.message, text);
  assert_int_equal(info_of(&fixture).epoch, epoch);
  assert_int_equal(timers_len(&fixture), 0);

  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x"}, &outcome);
  pthread_mutex_lock(&fixture.engine->stages_lock); /* the stage was not taken */
  const struct esp_operation one_by_one = {
      .kind = ESP_OPERATION_THAW, .selection = "x.*", .one_by_one = true, .every = 2};
  prepare(&fixture, &one_by_one, stage, &outcome);
  for (int i = 0; i < 3; i++)
    push_ok(&fixture, leaf);
  pthread_mutex_unlock(&fixture.engine->stages_lock);
  outcome_wait(&outcome);
  assert_int_equal(outcome.code, ESP_OK);
  assert_true(is_frozen(&fixture, "x.1")); /* two from when it was published on */
  push_ok(&fixture, leaf);
  assert_true(is_frozen(&fixture, "x.1"));
  push_ok(&fixture, leaf);
  wait_epoch(&fixture, outcome.epoch + 1);
  assert_false(is_frozen(&fixture, "x.1"));
  fixture_close(&fixture);
}

/* A server that shuts down begins no transaction for what waits for a time; the pushes that it still has meet the
 * freeze.
 */
static void times_while_draining(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome, pushed;
  struct esp_push *push;
  fixture_open(&fixture);
  uint64_t leaf = declare_vector(&fixture, "x", 2);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x", .for_ms = 50}, &outcome);
  const struct grad grad = {leaf, one, sizeof(one)};
  assert_int_equal(push_arrive(&fixture, 0, 0, &grad, 1, &pushed, &push), ESP_OK);
  esp_engine_drain(fixture.engine);
  esp_env_virtual_advance(fixture.twin, 50);
  esp_engine_tick(fixture.engine);
  esp_push_commit(push);
  outcome_wait(&pushed);
  esp_push_free(push);
  assert_int_equal(pushed.code, ESP_OK);
  assert_int_equal(pushed.push.frozen, 1);
  esp_engine_tick(fixture.engine);
  while (!esp_engine_is_idle(fixture.engine))
    sched_yield();
  assert_int_equal(info_of(&fixture).epoch, outcome.epoch);
  assert_true(is_frozen(&fixture, "x"));
  assert_int_equal(timers_len(&fixture), 1);
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(until_a_commit),
      ESP_TEST(at_a_commit_until_another),
      ESP_TEST(the_next_free_commit),
      ESP_TEST(for_a_time),
      ESP_TEST(one_by_one),
      ESP_TEST(state_is_reset_when_it_is_thawed),
      ESP_TEST(four_pushers_see_it_at_one_commit),
      ESP_TEST(parked_pushes_are_measured_again),
      ESP_TEST(parked_pushes_go_on_in_order),
      ESP_TEST(timers_among_the_parked),
      ESP_TEST(without_memory),
      ESP_TEST(the_tick_tries_again),
      ESP_TEST(several_are_one_transaction),
      ESP_TEST(pushes_while_it_is_prepared),
      ESP_TEST(times_while_draining),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
