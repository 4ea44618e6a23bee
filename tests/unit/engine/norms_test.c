/* Clipping by the norm of a parameter, a group and a commit: what counts in it, and that it is what was applied. */
#include <math.h>

#include "fixture.h"

#define WIDE 200003 /* elements: several ranges, and not the pushing thread's work */

struct run {
  struct fixture fixture;
  uint64_t a, b, head;
};

static void open(struct run *run, const char *expression) {
  fixture_open_with(&run->fixture, 3, ESP_ISA_SSE2, expression, 64 << 20, ESP_NONFINITE_REJECT);
  run->a = declare_vector(&run->fixture, "a", WIDE);
  run->b = declare_vector(&run->fixture, "b", 2);
  run->head = declare_vector(&run->fixture, "assigned.h", 1); /* sgd(lr=1), which clips nothing */
}

/* Pushes a constant to each, and tells what each became after having been zero. */
static void push(struct run *run, double a, double b, double head, double ret[3]) {
  struct outcome outcome;
  double *grad = malloc(WIDE * sizeof(*grad));
  for (size_t i = 0; i < WIDE; i++)
    grad[i] = a;
  const double small[2] = {b, b};
  const struct grad grads[3] = {{run->a, grad, WIDE * sizeof(double)}, {run->b, small, 16}, {run->head, &head, 8}};
  if (push_many(&run->fixture, 0, 0, grads, 3, &outcome) != ESP_OK)
    fail_msg("%s", outcome.st.message);
  free(grad);
  ret[0] = -first_of(&run->fixture, run->a);
  ret[1] = -first_of(&run->fixture, run->b);
  ret[2] = -first_of(&run->fixture, run->head);
}

static void assert_near(double got, double expected) {
  if (fabs(got - expected) > 1e-12 * fabs(expected))
    fail_msg("%.17g, not %.17g", got, expected);
}

static void test_param(void **state) {
  (void)state;
  struct run run;
  double got[3];
  open(&run, "clip_norm(max=1, eps=0) | sgd(lr=1)");
  push(&run, 2, 0.25, 5, got);
  assert_near(got[0], 1 / sqrt(WIDE));
  assert_true(got[1] == 0.25 && got[2] == 5); /* its norm is less than 1; the other group does not clip */
  fixture_close(&run.fixture);
}

static void test_group(void **state) {
  (void)state;
  struct run run;
  double got[3];
  open(&run, "clip_group_norm(max=1, eps=0) | sgd(lr=1)");
  push(&run, 2, 3, 1000, got);
  double norm = sqrt(4.0 * WIDE + 18);
  assert_near(got[0], 2 / norm);
  assert_near(got[1], 3 / norm);
  assert_true(got[2] == 1000);
  fixture_close(&run.fixture);
}

static void test_global(void **state) {
  (void)state;
  struct run run;
  double got[3];
  open(&run, "clip_global_norm(max=1, eps=0) | sgd(lr=1)");
  push(&run, 2, 3, 1000, got);
  double norm = sqrt(4.0 * WIDE + 18 + 1e6);
  assert_near(got[0], 2 / norm);
  assert_true(got[2] == 1000);
  fixture_close(&run.fixture);
}

/* Frozen and detached gradients count in no norm: the free parameters' bits are those of a push that never named them.
 */
static void test_frozen(void **state) {
  (void)state;
  const char *ways[] = {"freeze", "detach", "absent"};
  double got[3][3];
  for (size_t way = 0; way < 3; way++) {
    struct run run;
    struct outcome outcome;
    open(&run, "clip_global_norm(max=1, eps=0) | sgd(lr=1)");
    if (way < 2)
      assert_int_equal(apply_one(&run.fixture, way == 0 ? ESP_OPERATION_FREEZE : ESP_OPERATION_DETACH, "a", &outcome),
                       ESP_OK);
    if (way < 2) {
      push(&run, way == 0 ? NAN : INFINITY, 3, 4, got[way]);
    } else {
      const double small[2] = {3, 3}, head = 4;
      const struct grad grads[2] = {{run.b, small, 16}, {run.head, &head, 8}};
      assert_int_equal(push_many(&run.fixture, 0, 0, grads, 2, &outcome), ESP_OK);
      got[way][0] = -first_of(&run.fixture, run.a);
      got[way][1] = -first_of(&run.fixture, run.b);
    }
    fixture_close(&run.fixture);
    if (got[way][0] != 0 || got[way][1] != got[0][1])
      fail_msg("%s: %g %g", ways[way], got[way][0], got[way][1]);
  }
  assert_near(got[0][1], 3 / sqrt(18 + 16));
}

/* Tied leaves count summed. */
static void test_tied(void **state) {
  (void)state;
  struct run run;
  struct outcome outcome;
  open(&run, "clip_norm(max=1, eps=0) | sgd(lr=1)");
  uint64_t c = declare_vector(&run.fixture, "c", 2);
  struct esp_operation tie = {.kind = ESP_OPERATION_TIE, .selection = "c", .to = "b"};
  struct esp_apply_request request = {.operations = &tie, .operations_len = 1, .idempotency_key = ""};
  assert_int_equal(apply_request(&run.fixture, &request, &outcome), ESP_OK);
  const double one[2] = {3, 0}, two[2] = {0, 4};
  const struct grad grads[2] = {{run.b, one, 16}, {c, two, 16}};
  assert_int_equal(push_many(&run.fixture, 0, 0, grads, 2, &outcome), ESP_OK);
  assert_near(first_of(&run.fixture, c), -3.0 / 5);
  fixture_close(&run.fixture);
}

/* Any number of threads, the same bits; and the layout may change between the measuring and the commit. */
static void *freeze_and_thaw(void *data) {
  struct run *run = data;
  struct outcome outcome;
  for (int i = 0; i < 200; i++)
    assert_int_equal(apply_one(&run->fixture, i % 2 == 0 ? ESP_OPERATION_FREEZE : ESP_OPERATION_THAW, "b", &outcome),
                     ESP_OK);
  return NULL;
}

static void test_while_the_layout_changes(void **state) {
  (void)state;
  struct run run;
  double got[3], before = 0;
  pthread_t operator_thread;
  open(&run, "clip_global_norm(max=1, eps=0) | sgd(lr=1)");
  assert_int_equal(pthread_create(&operator_thread, NULL, freeze_and_thaw, &run), 0);
  const double with = 1 / sqrt(WIDE + 2 * 1e10 + 1), without = 1 / sqrt(WIDE + 1);
  for (int i = 0; i < 60; i++) {
    double b = -first_of(&run.fixture, run.b);
    push(&run, 1, 1e5, 1, got);
    bool stepped = got[1] != b;
    assert_near(got[0] - before + 1,
                (stepped ? with : without) + 1); /* b counts where it was applied, and only there */
    before = got[0];
  }
  assert_int_equal(pthread_join(operator_thread, NULL), 0);
  fixture_close(&run.fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_param),  ESP_TEST(test_group), ESP_TEST(test_global),
      ESP_TEST(test_frozen), ESP_TEST(test_tied),  ESP_TEST(test_while_the_layout_changes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
