/* What transactions wait for goes first: a pool whose only thread is held up shows what needs no thread of it, and in
 * which order it goes on. */
#include "fixture.h"

#define SMALL 6000   /* elements: of one share, and too many for a push to be applied where it arrived */
#define LARGE 140001 /* of several shares */

/* Holds up a thread of the pool. */
struct block {
  struct esp_job job;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  bool is_held; /* the thread has come to it */
  bool is_open;
};

static void block_run(struct esp_job *job, unsigned share) {
  (void)share;
  struct block *block = (struct block *)job;
  pthread_mutex_lock(&block->lock);
  block->is_held = true;
  pthread_cond_broadcast(&block->changed);
  while (!block->is_open)
    pthread_cond_wait(&block->changed, &block->lock);
  pthread_mutex_unlock(&block->lock);
}

static void block_begin(struct block *block, struct fixture *fixture) {
  *block = (struct block){.job = {.run = block_run, .shares = 1}};
  pthread_mutex_init(&block->lock, NULL);
  pthread_cond_init(&block->changed, NULL);
  esp_pool_submit(fixture->engine->pool, &block->job);
}

static void block_wait(struct block *block) {
  pthread_mutex_lock(&block->lock);
  while (!block->is_held)
    pthread_cond_wait(&block->changed, &block->lock);
  pthread_mutex_unlock(&block->lock);
}

static void block_end(struct block *block) {
  pthread_mutex_lock(&block->lock);
  block->is_open = true;
  pthread_cond_broadcast(&block->changed);
  pthread_mutex_unlock(&block->lock);
}

static uint64_t steps_of(struct fixture *fixture, const char *path) {
  struct esp_layout *layout = esp_engine_layout(fixture->engine, NULL);
  struct esp_param_stat stat;
  esp_place_stat(esp_layout_place(layout, esp_layout_leaf_by_path(layout, path, strlen(path))), &stat);
  esp_layout_unref(layout);
  return stat.steps;
}

/* Commits a push of leaves of ones, which waits for the pool. */
static struct esp_push *push_begin(struct fixture *fixture, const uint64_t *ids, const size_t *lens, size_t len,
                                   struct outcome *outcome) {
  static double ones[LARGE];
  struct grad grads[4];
  struct esp_push *push;
  for (size_t i = 0; i < len; i++)
    grads[i] = (struct grad){.leaf = ids[i], .data = ones, .bytes = lens[i] * sizeof(double)};
  assert_int_equal(push_arrive(fixture, 0, 0, grads, len, outcome, &push), ESP_OK);
  esp_push_commit(push);
  return push;
}

static void freeze(struct fixture *fixture, const char *selection) {
  struct outcome outcome;
  assert_int_equal(apply_one(fixture, ESP_OPERATION_FREEZE, selection, &outcome), ESP_OK);
}

/* Neither leaves that nobody pushed to nor small ones wait for the pool; the rest of the push does. */
static void test_no_thread_is_needed(void **state) {
  (void)state;
  struct fixture fixture;
  struct block block;
  struct outcome pushed;
  fixture_open_with(&fixture, 1, ESP_ISA_SSE2, "sgd(lr=1)", 64 << 20, ESP_NONFINITE_REJECT);
  const size_t lens[] = {SMALL, SMALL};
  const uint64_t ids[] = {declare_vector(&fixture, "a", SMALL), declare_vector(&fixture, "b", SMALL)};
  declare_vector(&fixture, "idle.small", SMALL);
  declare_vector(&fixture, "idle.large", LARGE);
  block_begin(&block, &fixture);
  struct esp_push *push = push_begin(&fixture, ids, lens, 2, &pushed);
  freeze(&fixture, "idle");
  assert_int_equal(steps_of(&fixture, "b"), 0);
  freeze(&fixture, "b");
  assert_int_equal(steps_of(&fixture, "b"), 1);
  assert_int_equal(steps_of(&fixture, "a"), 0);
  assert_int_equal(pushed.done, 0);
  block_end(&block);
  outcome_wait(&pushed);
  assert_int_equal(pushed.push.applied, 2);
  assert_int_equal(steps_of(&fixture, "a"), 1);
  assert_int_equal(steps_of(&fixture, "b"), 1);
  esp_push_free(push);
  fixture_close(&fixture);
}

/* What the last leaf had when the freeze was answered, which one of the pool's threads does. */
struct answered {
  struct fixture *fixture;
  struct outcome outcome;
  uint64_t frozen_steps;
  uint64_t other_steps;
};

static void on_frozen(void *data, enum esp_code code, const struct esp_status *st,
                      const struct esp_apply_reply *reply) {
  struct answered *answered = data;
  answered->frozen_steps = steps_of(answered->fixture, "c");
  answered->other_steps = steps_of(answered->fixture, "a") + steps_of(answered->fixture, "b");
  on_apply(&answered->outcome, code, st, reply);
}

/* The last of three large leaves, to which two pushes wait to be applied: before their queues were started (has_begun
 * false), or when they wait for their first item to come to its turn. */
static void large_ones_go_first(bool has_begun) {
  struct fixture fixture;
  struct block first, second;
  struct outcome pushed[2];
  struct esp_push *pushes[2];
  struct answered answered = {.fixture = &fixture};
  fixture_open_with(&fixture, 1, ESP_ISA_SSE2, "sgd(lr=1)", 64 << 20, ESP_NONFINITE_REJECT);
  const size_t lens[] = {LARGE, LARGE, LARGE};
  const uint64_t ids[] = {declare_vector(&fixture, "a", LARGE), declare_vector(&fixture, "b", LARGE),
                          declare_vector(&fixture, "c", LARGE)};
  declare_vector(&fixture, "idle", SMALL);
  block_begin(&first, &fixture);
  for (unsigned i = 0; i < 2; i++)
    pushes[i] = push_begin(&fixture, ids, lens, 3, &pushed[i]);
  block_begin(&second, &fixture);
  if (has_begun) {
    block_end(&first);
    block_wait(&second);
  }
  const struct esp_operation op = {.kind = ESP_OPERATION_FREEZE, .selection = "c"};
  const struct esp_apply_request request = {.operations = &op, .operations_len = 1, .idempotency_key = ""};
  outcome_init(&answered.outcome);
  esp_engine_apply(fixture.engine, &request, on_frozen, &answered);
  freeze(&fixture, "idle"); /* transactions run one after the other: that one has put first what it waits for */
  block_end(&first);
  block_end(&second);
  outcome_wait(&answered.outcome);
  assert_int_equal(answered.frozen_steps, 2);
  assert_int_equal(answered.other_steps, 0);
  for (unsigned i = 0; i < 2; i++) {
    outcome_wait(&pushed[i]);
    assert_int_equal(pushed[i].push.applied, 3);
    esp_push_free(pushes[i]);
  }
  fixture_close(&fixture);
}

static void test_large_ones_go_first(void **state) {
  (void)state;
  large_ones_go_first(false);
  large_ones_go_first(true);
}

/* An undo that freezes again, or detaches, is answered when what was being applied is over, as a freeze is. */
static void undo_waits(enum esp_operation_kind set, enum esp_operation_kind clear) {
  struct fixture fixture;
  struct block block;
  struct outcome outcome, pushed;
  struct answered answered = {.fixture = &fixture};
  fixture_open_with(&fixture, 1, ESP_ISA_SSE2, "sgd(lr=1)", 64 << 20, ESP_NONFINITE_REJECT);
  const size_t lens[] = {LARGE};
  const uint64_t ids[] = {declare_vector(&fixture, "c", LARGE)};
  declare_vector(&fixture, "a", SMALL);
  declare_vector(&fixture, "b", SMALL);
  assert_int_equal(apply_one(&fixture, set, "c", &outcome), ESP_OK);
  assert_int_equal(apply_one(&fixture, clear, "c", &outcome), ESP_OK);
  block_begin(&block, &fixture);
  block_wait(&block);
  struct esp_push *push = push_begin(&fixture, ids, lens, 1, &pushed);
  const struct esp_operation op = {.kind = ESP_OPERATION_UNDO, .epoch = outcome.epoch};
  const struct esp_apply_request request = {.operations = &op, .operations_len = 1, .idempotency_key = ""};
  outcome_init(&answered.outcome);
  esp_engine_apply(fixture.engine, &request, on_frozen, &answered);
  freeze(&fixture, "a"); /* comes after the undo, which waits */
  assert_int_equal(steps_of(&fixture, "c"), 0);
  block_end(&block);
  outcome_wait(&answered.outcome);
  assert_int_equal(answered.outcome.code, ESP_OK);
  assert_int_equal(answered.frozen_steps, 1);
  outcome_wait(&pushed);
  esp_push_free(push);
  fixture_close(&fixture);
}

static void test_undo_waits(void **state) {
  (void)state;
  undo_waits(ESP_OPERATION_FREEZE, ESP_OPERATION_THAW);
  undo_waits(ESP_OPERATION_DETACH, ESP_OPERATION_ATTACH);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_no_thread_is_needed),
      ESP_TEST(test_large_ones_go_first),
      ESP_TEST(test_undo_waits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
