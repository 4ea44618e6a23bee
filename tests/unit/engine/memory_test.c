/* The Nth allocation fails, for N = 0, 1, 2, ...: every call gives a clean error, nothing leaks, nothing half-done. */
#include "fixture.h"

static bool fine(enum esp_code code) {
  assert_true(code == ESP_OK || code == ESP_RESOURCE_EXHAUSTED);
  return code == ESP_OK;
}

/* A pin, under failing memory. */
static enum esp_code try_pull(struct fixture *fixture) {
  struct outcome outcome;
  struct esp_pull *pull;
  struct esp_pull_header header;
  struct esp_pull_request request = {.selection = ""};
  outcome_init(&outcome);
  enum esp_code code = esp_pull_new(fixture->engine, &request, on_pull, &outcome, &pull, &header, &outcome.st);
  if (code != ESP_OK)
    return code;
  while (outcome.code == ESP_OK && esp_pull_next(pull)) {
    outcome_wait(&outcome);
    if (outcome.code == ESP_OK)
      esp_pin_unref(outcome.pin.buffer);
    outcome.done = 0;
  }
  esp_pull_free(pull);
  return outcome.code;
}

/* Everything once; true when no allocation failed in it. */
static bool everything(struct fixture *fixture, uint64_t known) {
  struct outcome outcome;
  struct esp_join join;
  const double one = 1;
  const struct grad grad = {known, &one, 8};
  struct esp_declare_leaf leaves[2] = {vector_f64("new.a", 3), vector_f64("new.b", 70000)};
  leaves[0].init = (struct esp_init){.kind = ESP_INIT_CONSTANT, .a = 1};
  bool all = fine(declare(fixture, leaves, 2, &outcome));
  all &= fine(esp_session_join(fixture->engine, "w", 0, &join, &outcome.st));
  all &= fine(push_many(fixture, 0, 0, &grad, 1, &outcome));
  all &= fine(apply_one(fixture, ESP_OPERATION_FREEZE, "known", &outcome));
  all &= fine(digest(fixture, "", &outcome));
  all &= fine(try_pull(fixture));
  return all;
}

static void test_nth_allocation_fails(void **state) {
  (void)state;
  bool all = false;
  int n = 0;
  for (; n < 300 && !all; n++) {
    struct fixture fixture;
    struct outcome outcome;
    fixture_open(&fixture);
    uint64_t known = declare_vector(&fixture, "known", 1);
    esp_alloc_fail_at(n);
    all = everything(&fixture, known);
    esp_alloc_fail_at(-1);
    assert_int_equal(staged(&fixture), 0);
    /* It goes on as if nothing had been. */
    const double one = 1;
    assert_int_equal(apply_one(&fixture, ESP_OPERATION_THAW, "known", &outcome), ESP_OK);
    assert_int_equal(push_one(&fixture, known, &one, 8, &outcome), ESP_OK);
    assert_int_equal(outcome.push.applied, 1);
    fixture_close(&fixture);
  }
  assert_true(all && n > 20);
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
  for (int n = 0; n < 300 && code != ESP_OK; n++) {
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
  const struct CMUnitTest tests[] = {ESP_TEST(test_nth_allocation_fails), ESP_TEST(test_engine_without_memory)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
