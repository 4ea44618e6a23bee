/* Pulls: what was pinned stands still while pushes go on, and nobody waits for a reader. */
#include "fixture.h"

static void test_a_pin_stands_still(void **state) {
  (void)state;
  for (size_t len = 1; len <= 200000; len = len * 19 + 1) { /* of one share, and of several */
    struct fixture fixture;
    struct outcome outcome;
    struct esp_engine_info info;
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
    esp_engine_info(fixture.engine, &info);
    assert_int_equal(info.memory_copy_on_write, 2 * len * 8);
    assert_memory_equal(first.bytes, seen, len * 8);
    for (size_t i = 0; i < len; i++)
      seen[i] = -1;
    assert_memory_equal(second.bytes, seen, len * 8);
    assert_int_equal(second.version, first.version + 1);
    assert_true(first_of(&fixture, a) == -3);
    esp_pin_unref(first.buffer);
    esp_pin_unref(second.buffer);
    assert_int_equal(push_one(&fixture, a, ones, len * 8, &outcome), ESP_OK);
    esp_engine_info(fixture.engine, &info);
    assert_int_equal(info.memory_copy_on_write, 0);
    for (size_t i = 0; i < len; i++)
      seen[i] = -4;
    struct esp_pin last = pin_one(&fixture, a);
    assert_memory_equal(last.bytes, seen, len * 8);
    esp_pin_unref(last.buffer);
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
  struct esp_pull_header header;
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
    outcome_init(&outcome);
    assert_int_equal(esp_pull_new(fixture.engine, &cases[i].request, on_pull, &outcome, &pull, &header, &outcome.st),
                     cases[i].code);
    if (cases[i].code != ESP_OK) {
      assert_non_null(strstr(outcome.st.message, cases[i].words));
      continue;
    }
    assert_int_equal(header.leaf_count, cases[i].leaves);
    assert_int_equal(header.total_bytes, cases[i].bytes);
    uint64_t leaves = 0, bytes = 0;
    while (esp_pull_next(pull)) {
      outcome_wait(&outcome);
      outcome.done = 0;
      leaves++;
      bytes += outcome.pin.bytes_len;
      esp_pin_unref(outcome.pin.buffer);
    }
    assert_int_equal(leaves, header.leaf_count);
    assert_int_equal(bytes, header.total_bytes);
    esp_pull_free(pull);
  }
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_a_pin_stands_still),
      ESP_TEST(test_what_is_pulled),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
