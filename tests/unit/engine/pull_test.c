/* Plain pulls: what was pinned stands still while pushes go on, and nobody waits for a reader. */
#include "engine/value.h"
#include "fixture.h"

static void test_a_pin_stands_still(void **state) {
  (void)state;
  for (size_t len = 1; len <= 200000; len = len * 19 + 1) { /* of one share, and of several */
    struct fixture fixture;
    struct outcome outcome;
    fixture_open(&fixture);
    uint64_t a = declare_vector(&fixture, "a", len);
    double *ones = calloc(len, sizeof(double)), *seen = calloc(len, sizeof(double));
    for (size_t i = 0; i < len; i++)
      ones[i] = 1;
    struct esp_pin first = pin_one(&fixture, a);
    assert_int_equal(push_one(&fixture, a, ones, len * 8, &outcome), ESP_OK);
    struct esp_pin second = pin_one(&fixture, a);
    assert_int_equal(push_one(&fixture, a, ones, len * 8, &outcome), ESP_OK);
    assert_int_equal(push_one(&fixture, a, ones, len * 8, &outcome), ESP_OK);
    assert_int_equal(copies(&fixture), 2 * esp_hold_cost(len * 8));
    assert_memory_equal(first.bytes, seen, len * 8);
    for (size_t i = 0; i < len; i++)
      seen[i] = -1;
    assert_memory_equal(second.bytes, seen, len * 8);
    assert_int_equal(second.version, first.version + 1);
    assert_true(first_of(&fixture, a) == -3);
    esp_hold_unref(first.hold);
    esp_hold_unref(second.hold);
    assert_int_equal(push_one(&fixture, a, ones, len * 8, &outcome), ESP_OK);
    assert_int_equal(copies(&fixture), 0);
    for (size_t i = 0; i < len; i++)
      seen[i] = -4;
    struct esp_pin last = pin_one(&fixture, a);
    assert_memory_equal(last.bytes, seen, len * 8);
    esp_hold_unref(last.hold);
    free(ones);
    free(seen);
    fixture_close(&fixture);
  }
}

static void test_what_is_pulled(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  struct esp_pull *pull;
  fixture_open(&fixture);
  uint64_t b = declare_vector(&fixture, "n.b", 2), a = declare_vector(&fixture, "n.a", 1);
  declare_vector(&fixture, "m", 3);
  const char *const path = "n.a";
  const struct {
    struct esp_pull_request request;
    enum esp_code code;
    const char *words;
    uint64_t leaves, bytes;
  } cases[] = {
      {{.selection = ""}, ESP_OK, "", 3, 48},
      {{.selection = "n"}, ESP_OK, "", 2, 24},
      {{.leaf_ids = &b, .leaf_ids_len = 1, .paths = &path, .paths_len = 1, .selection = "m"}, ESP_OK, "", 3, 48},
      {{.leaf_ids = &a, .leaf_ids_len = 1, .paths = &path, .paths_len = 1, .selection = ""},
       ESP_INVALID_ARGUMENT,
       "leaf n.a is named twice",
       0,
       0},
      {{.leaf_ids = (const uint64_t[]){77}, .leaf_ids_len = 1, .selection = ""}, ESP_NOT_FOUND, "id 77", 0, 0},
      {{.paths = (const char *const[]){"n.aa"}, .paths_len = 1, .selection = ""}, ESP_NOT_FOUND, "\"n.a\"", 0, 0},
      {{.paths = (const char *const[]){"n"}, .paths_len = 1, .selection = ""},
       ESP_NOT_FOUND,
       "n is a node with 2 leaves below it",
       0,
       0},
      {{.selection = "x"}, ESP_NOT_FOUND, "x", 0, 0},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
    assert_int_equal(pull_begin(&fixture, &cases[i].request, &outcome, &pull), cases[i].code);
    if (cases[i].code != ESP_OK) {
      assert_non_null(strstr(outcome.st.message, cases[i].words));
      continue;
    }
    assert_int_equal(outcome.header.leaf_count, cases[i].leaves);
    assert_int_equal(outcome.header.total_bytes, cases[i].bytes);
    uint64_t leaves = 0, bytes = 0;
    while (pull_next(pull, &outcome)) {
      leaves++;
      bytes += outcome.pin.bytes_len;
      esp_hold_unref(outcome.pin.hold);
    }
    assert_int_equal(leaves, outcome.header.leaf_count);
    assert_int_equal(bytes, outcome.header.total_bytes);
    esp_pull_free(pull);
  }
  fixture_close(&fixture);
}

/* Holds its place in --max-copy-on-write (64 MiB): a leaf of 40 MiB, and one that is as large. */
static void test_a_pull_waits_its_turn(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome first, second, third;
  struct esp_pull *pulls[3];
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 5 << 20), b = declare_vector(&fixture, "b", 5 << 20);
  struct esp_pull_request of_a = {.leaf_ids = &a, .leaf_ids_len = 1, .selection = ""};
  struct esp_pull_request of_b = {.leaf_ids = &b, .leaf_ids_len = 1, .selection = "", .wait_ms = 1000};
  assert_int_equal(pull_begin(&fixture, &of_a, &first, &pulls[0]), ESP_OK);
  assert_true(pull_next(pulls[0], &first));
  assert_int_equal(pull_begin(&fixture, &of_b, &second, &pulls[1]), ESP_OK);
  assert_int_equal(pull_begin(&fixture, &of_a, &third, &pulls[2]), ESP_OK);
  second.done = third.done = 0;
  assert_int_equal(esp_pull_next(pulls[1]), ESP_PULL_WAITS);
  assert_int_equal(esp_pull_next(pulls[2]), ESP_PULL_WAITS);
  assert_int_equal(copies(&fixture), esp_hold_cost(40 << 20));
  /* A push does not wait for any of them. */
  double *ones = calloc(5 << 20, sizeof(double));
  struct outcome pushed;
  assert_int_equal(push_one(&fixture, b, ones, 40 << 20, &pushed), ESP_OK);
  /* One waited for too long, and hears for what. */
  esp_env_virtual_advance(fixture.twin, 899);
  esp_engine_tick(fixture.engine);
  assert_int_equal(second.done, 0);
  esp_env_virtual_advance(fixture.twin, 1);
  esp_engine_tick(fixture.engine);
  outcome_wait(&second);
  assert_int_equal(second.code, ESP_DEADLINE_EXCEEDED);
  assert_non_null(strstr(second.st.message, "--max-copy-on-write"));
  assert_false(esp_pull_cancel(pulls[1]));
  esp_pull_free(pulls[1]);
  /* The other one's turn comes when the first lets go: from elsewhere, since nobody is called in here. */
  esp_hold_ref(first.pin.hold);
  esp_hold_unref(first.pin.hold);
  assert_int_equal(third.done, 0);
  esp_hold_unref(first.pin.hold);
  outcome_wait(&third);
  assert_int_equal(third.code, ESP_OK);
  /* One that is not wanted any more leaves the queue. */
  struct esp_pull *gone;
  assert_int_equal(pull_begin(&fixture, &of_b, &second, &gone), ESP_OK);
  second.done = 0;
  assert_int_equal(esp_pull_next(gone), ESP_PULL_WAITS);
  assert_true(esp_pull_cancel(gone));
  esp_pull_free(gone);
  esp_hold_unref(third.pin.hold);
  assert_int_equal(second.done, 0);
  assert_int_equal(copies(&fixture), 0);
  esp_pull_free(pulls[0]);
  esp_pull_free(pulls[2]);
  free(ones);
  fixture_close(&fixture);
}

static void test_a_tensor_beyond_the_bound(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  struct esp_pull *pull;
  fixture_open(&fixture);
  declare_vector(&fixture, "small", 1);
  declare_vector(&fixture, "n.large", (64 << 20) / 8);
  struct esp_pull_request request = {.selection = ""};
  assert_int_equal(pull_begin(&fixture, &request, &outcome, &pull), ESP_RESOURCE_EXHAUSTED);
  assert_non_null(strstr(outcome.st.message, "leaf n.large"));
  assert_non_null(strstr(outcome.st.message, "--max-copy-on-write is 67108864"));
  fixture_close(&fixture);
}

/* What readers kept is theirs to pay, and is used again: no pull leaves a copy behind. */
static void test_copies_are_spare_afterwards(void **state) {
  (void)state;
  struct fixture fixture;
  struct esp_engine_info info;
  size_t bytes = 4 << 20;
  fixture_open_with(&fixture, 1, ESP_ISA_SSE2, "sgd(lr=1)", 1, ESP_NONFINITE_REJECT);
  uint64_t a = declare_vector(&fixture, "a", bytes / 8);
  struct esp_pin pin = pin_one(&fixture, a);
  esp_hold_unref(pin.hold);
  esp_engine_info(fixture.engine, &info);
  assert_int_equal(info.memory_copy_on_write, 0);
  assert_true(info.memory_spare >= bytes && info.memory_spare < 2 * bytes);
  pin = pin_one(&fixture, a);
  esp_engine_info(fixture.engine, &info);
  assert_int_equal(info.memory_spare, 0);
  esp_hold_unref(pin.hold);
  esp_env_virtual_advance(fixture.twin, 60000);
  esp_engine_tick(fixture.engine);
  esp_engine_info(fixture.engine, &info);
  assert_int_equal(info.memory_spare, 0);
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_a_pin_stands_still),          ESP_TEST(test_what_is_pulled),
      ESP_TEST(test_a_pull_waits_its_turn),       ESP_TEST(test_a_tensor_beyond_the_bound),
      ESP_TEST(test_copies_are_spare_afterwards),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
