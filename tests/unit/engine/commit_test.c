/* A commit of several pushes, as a round will be: one number, one step a parameter, gradients summed in the order of
 * the list; a member that is refused takes nothing from the others. */
#include <math.h>

#include "fixture.h"

#define MEMBERS 3

struct members {
  struct outcome outcomes[MEMBERS];
  struct esp_push *pushes[MEMBERS];
};

static void arrive(struct fixture *fixture, struct members *members, unsigned at, uint64_t session,
                   const struct grad *grads, size_t len) {
  assert_int_equal(
      push_arrive(fixture, session, session == 0 ? 0 : 1, grads, len, &members->outcomes[at], &members->pushes[at]),
      ESP_OK);
  assert_true(esp_push_hand_over(members->pushes[at]));
}

static void commit_all(struct fixture *fixture, struct members *members) {
  esp_commit_pushes(fixture->engine, members->pushes, MEMBERS);
  for (unsigned i = 0; i < MEMBERS; i++) {
    outcome_wait(&members->outcomes[i]);
    esp_push_free(members->pushes[i]);
  }
}

static uint64_t version_of(struct fixture *fixture, uint64_t leaf) {
  struct esp_pin pin = pin_one(fixture, leaf);
  esp_hold_unref(pin.hold);
  return pin.version;
}

static void test_one_step_in_order(void **state) {
  (void)state;
  struct fixture fixture;
  struct members members;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 1), b = declare_vector(&fixture, "b", 1);
  const double big = 1e16, one = 1, minus = -1e16;
  /* (1e16 + 1) - 1e16 is 0 in double; in any other order it is 1. The first also sends b, after a. */
  arrive(&fixture, &members, 0, 0, (const struct grad[]){{a, &big, 8}, {b, &one, 8}}, 2);
  arrive(&fixture, &members, 1, 0, (const struct grad[]){{a, &one, 8}}, 1);
  arrive(&fixture, &members, 2, 0, (const struct grad[]){{a, &minus, 8}}, 1);
  commit_all(&fixture, &members);
  for (unsigned i = 0; i < MEMBERS; i++) {
    assert_int_equal(members.outcomes[i].code, ESP_OK);
    assert_int_equal(members.outcomes[i].push.commit, 3);
  }
  assert_int_equal(members.outcomes[0].push.applied, 2);
  assert_int_equal(members.outcomes[1].push.absent, 1);
  assert_true(first_of(&fixture, a) == 0 && first_of(&fixture, b) == -1);
  assert_int_equal(version_of(&fixture, a), 2);
  assert_int_equal(staged(&fixture), 0);
  fixture_close(&fixture);
}

static void test_a_refused_member(void **state) {
  (void)state;
  struct fixture fixture;
  struct members members;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 1);
  const double one = 1, bad = NAN;
  struct esp_join join;
  assert_int_equal(esp_session_join(fixture.engine, "w", 0, &join, NULL), ESP_OK);
  arrive(&fixture, &members, 0, 0, (const struct grad[]){{a, &one, 8}}, 1);
  arrive(&fixture, &members, 1, 0, (const struct grad[]){{a, &bad, 8}}, 1);
  arrive(&fixture, &members, 2, join.session, (const struct grad[]){{a, &one, 8}}, 1);
  /* The third loses its session between its arrival and the commit. */
  assert_int_equal(esp_session_leave(fixture.engine, join.session, NULL), ESP_OK);
  commit_all(&fixture, &members);
  assert_int_equal(members.outcomes[0].code, ESP_OK);
  assert_int_equal(members.outcomes[1].code, ESP_INVALID_ARGUMENT);
  assert_int_equal(members.outcomes[2].code, ESP_FAILED_PRECONDITION);
  assert_true(first_of(&fixture, a) == -1);
  fixture_close(&fixture);
}

/* With every member refused there is no commit. */
static void test_all_refused(void **state) {
  (void)state;
  struct fixture fixture;
  struct members members;
  struct esp_engine_info info;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 1);
  const double bad = INFINITY;
  for (unsigned i = 0; i < MEMBERS; i++)
    arrive(&fixture, &members, i, 0, (const struct grad[]){{a, &bad, 8}}, 1);
  commit_all(&fixture, &members);
  esp_engine_info(fixture.engine, &info);
  assert_int_equal(info.commit, 1);
  assert_int_equal(info.pushes_refused, MEMBERS);
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_one_step_in_order),
      ESP_TEST(test_a_refused_member),
      ESP_TEST(test_all_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
