/* --max-in-flight, --max-pushes, --max-chunk and --max-tensor: one is refused, and what goes makes room. */
#include "fixture.h"

static const double one = 1;

static uint64_t join(struct fixture *fixture) {
  struct esp_join join;
  struct esp_status st;
  assert_int_equal(esp_session_join(fixture->engine, "w", 0, &join, &st), ESP_OK);
  assert_int_equal(join.in_flight_max, fixture->engine->options.max_in_flight);
  assert_int_equal(join.chunk_bytes_max, fixture->engine->options.max_chunk);
  return join.session;
}

static uint64_t in_flight(struct fixture *fixture) {
  struct esp_engine_info info;
  esp_engine_info(fixture->engine, &info);
  return info.pushes_in_flight;
}

static void test_in_flight_of_a_session(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcomes[3], outcome;
  struct esp_push *pushes[3], *push;
  fixture_open(&fixture);
  fixture.engine->options.max_in_flight = 2;
  uint64_t a = declare_vector(&fixture, "a", 1), session = join(&fixture);
  const struct grad grad = {a, &one, 8};
  for (unsigned i = 0; i < 2; i++)
    assert_int_equal(push_arrive(&fixture, session, i + 1, &grad, 1, &outcomes[i], &pushes[i]), ESP_OK);
  assert_int_equal(push_arrive(&fixture, session, 3, &grad, 1, &outcome, &push), ESP_RESOURCE_EXHAUSTED);
  assert_non_null(strstr(outcome.st.message, "--max-in-flight"));
  /* A retry takes its original's place. */
  assert_int_equal(push_arrive(&fixture, session, 2, &grad, 1, &outcomes[2], &pushes[2]), ESP_OK);
  assert_int_equal(outcomes[1].code, ESP_ABORTED);
  esp_push_free(pushes[1]);
  assert_int_equal(push_arrive(&fixture, session, 3, &grad, 1, &outcome, &push), ESP_RESOURCE_EXHAUSTED);
  /* One that is dropped makes room, and so does one that is answered. */
  esp_push_free(pushes[2]);
  assert_int_equal(push_many(&fixture, session, 2, &grad, 1, &outcome), ESP_OK);
  assert_int_equal(push_many(&fixture, session, 3, &grad, 1, &outcome), ESP_OK);
  esp_push_free(pushes[0]);
  assert_int_equal(in_flight(&fixture), 0);
  fixture_close(&fixture);
}

static void test_in_flight_of_all(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcomes[2], outcome;
  struct esp_push *pushes[2], *push;
  fixture_open(&fixture);
  fixture.engine->options.max_pushes = 2;
  uint64_t a = declare_vector(&fixture, "a", 1), session = join(&fixture);
  const struct grad grad = {a, &one, 8};
  assert_int_equal(push_arrive(&fixture, session, 1, &grad, 1, &outcomes[0], &pushes[0]), ESP_OK);
  assert_int_equal(push_arrive(&fixture, 0, 0, &grad, 1, &outcomes[1], &pushes[1]), ESP_OK);
  assert_int_equal(in_flight(&fixture), 2);
  assert_int_equal(push_arrive(&fixture, 0, 0, &grad, 1, &outcome, &push), ESP_RESOURCE_EXHAUSTED);
  assert_non_null(strstr(outcome.st.message, "--max-pushes"));
  assert_int_equal(in_flight(&fixture), 2);
  esp_push_commit(pushes[0]);
  outcome_wait(&outcomes[0]);
  assert_int_equal(in_flight(&fixture), 1); /* answered, though its handle is there */
  for (unsigned i = 0; i < 5; i++)
    assert_int_equal(push_many(&fixture, 0, 0, &grad, 1, &outcome), ESP_OK);
  esp_push_free(pushes[0]);
  esp_push_free(pushes[1]);
  assert_int_equal(in_flight(&fixture), 0);
  fixture_close(&fixture);
}

static void test_chunk(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  fixture.engine->options.max_chunk = 16;
  uint64_t a = declare_vector(&fixture, "a.b", 2), b = declare_vector(&fixture, "c", 3);
  const double values[3] = {1, 2, 3};
  assert_int_equal(push_one(&fixture, a, values, 16, &outcome), ESP_OK);
  assert_int_equal(push_one(&fixture, b, values, 24, &outcome), ESP_RESOURCE_EXHAUSTED);
  assert_string_equal(outcome.st.message, "leaf c: a chunk has 24 bytes, --max-chunk allows 16");
  assert_int_equal(staged(&fixture), 0);
  fixture_close(&fixture);
}

static void test_tensor(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  fixture.engine->options.max_tensor = 800;
  struct esp_declare_leaf leaves[] = {vector_f64("a", 100), vector_f64("b", 101)};
  assert_int_equal(declare(&fixture, leaves, 2, &outcome), ESP_RESOURCE_EXHAUSTED);
  assert_string_equal(outcome.st.message, "leaf b: it has 808 bytes, --max-tensor allows 800");
  assert_int_equal(declare(&fixture, leaves, 1, &outcome), ESP_OK);
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_in_flight_of_a_session),
      ESP_TEST(test_in_flight_of_all),
      ESP_TEST(test_chunk),
      ESP_TEST(test_tensor),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
