/* Ties, unties and copies under pushes: every push lands before or after each of them, as the order of commits says, to
 * the last element. */
#include "fixture.h"

#define WIDE 70001 /* elements: more than one share */
#define PUSHERS 4
#define ROUNDS 25 /* of tie, copy, untie */
#define PUSHES_MAX 4000

/* What happened at a commit. */
enum what { NOTHING, PUSH, TIE, UNTIE, COPY };

struct load {
  struct fixture fixture;
  uint64_t a, b, c;
  size_t n;                         /* elements of each */
  _Atomic unsigned char log[65536]; /* enum what, by commit */
  _Atomic bool over;
};

static void note(struct load *load, uint64_t commit, enum what what) {
  assert_true(commit < sizeof(load->log));
  assert_int_equal(atomic_exchange(&load->log[commit], (unsigned char)what), NOTHING);
}

/* Each push steps every leaf by one. */
static void *push_all(void *data) {
  struct load *load = data;
  struct outcome outcome;
  double *ones = malloc(load->n * sizeof(*ones));
  for (size_t i = 0; i < load->n; i++)
    ones[i] = -1;
  const size_t bytes = load->n * sizeof(*ones);
  const struct grad grads[3] = {{load->a, ones, bytes}, {load->b, ones, bytes}, {load->c, ones, bytes}};
  for (int i = 0; i < PUSHES_MAX && !load->over; i++) {
    assert_int_equal(push_many(&load->fixture, 0, 0, grads, 3, &outcome), ESP_OK);
    assert_int_equal(outcome.push.applied, 3);
    note(load, outcome.push.commit, PUSH);
  }
  free(ones);
  return NULL;
}

static void operate(struct load *load, enum esp_operation_kind kind, const char *selection, const char *to,
                    enum what what) {
  struct outcome outcome;
  struct esp_operation op = {.kind = kind, .selection = selection, .to = to};
  struct esp_apply_request request = {.operations = &op, .operations_len = 1, .idempotency_key = ""};
  if (apply_request(&load->fixture, &request, &outcome) != ESP_OK)
    fail_msg("%s", outcome.st.message);
  note(load, outcome.commit, what);
}

static void assert_all(struct load *load, uint64_t leaf, double expected) {
  struct esp_pin pin = pin_one(&load->fixture, leaf);
  for (size_t i = 0; i < load->n; i++) {
    double got = ((const double *)pin.bytes)[i];
    if (got != expected)
      fail_msg("element %zu is %g, not %g", i, got, expected);
  }
  esp_hold_unref(pin.hold);
}

/* The same, one after the other. */
static void assert_as_ordered(struct load *load) {
  struct outcome outcome;
  assert_int_equal(digest(&load->fixture, "", &outcome), ESP_OK);
  double a = 0, b = 0, c = 0;
  bool tied = false;
  for (uint64_t commit = 0; commit <= outcome.commit; commit++) {
    switch ((enum what)load->log[commit]) {
    case PUSH:
      b += tied ? 2 : 1;
      a = tied ? b : a + 1;
      c += 1;
      break;
    case TIE:
      a = b;
      tied = true;
      break;
    case UNTIE:
      tied = false;
      break;
    case COPY:
      c = b;
      break;
    case NOTHING: /* a declaration */
      break;
    }
  }
  assert_all(load, load->a, a);
  assert_all(load, load->b, b);
  assert_all(load, load->c, c);
}

static void run(size_t n) {
  struct load *load = calloc(1, sizeof(*load));
  pthread_t pushers[PUSHERS];
  fixture_open_with(&load->fixture, 3, ESP_ISA_SSE2, "sgd(lr=1)", 64 << 20, ESP_NONFINITE_REJECT);
  load->n = n;
  load->a = declare_vector(&load->fixture, "a", n);
  load->b = declare_vector(&load->fixture, "b", n);
  load->c = declare_vector(&load->fixture, "c", n);
  for (int i = 0; i < PUSHERS; i++)
    assert_int_equal(pthread_create(&pushers[i], NULL, push_all, load), 0);
  for (int i = 0; i < ROUNDS; i++) {
    operate(load, ESP_OPERATION_TIE, "a", "b", TIE);
    operate(load, ESP_OPERATION_COPY, "b", "c", COPY);
    operate(load, ESP_OPERATION_UNTIE, "a", "", UNTIE);
  }
  load->over = true;
  for (int i = 0; i < PUSHERS; i++)
    assert_int_equal(pthread_join(pushers[i], NULL), 0);
  assert_as_ordered(load);
  fixture_close(&load->fixture);
  free(load);
}

static void test_small(void **state) {
  (void)state;
  run(3);
}

static void test_wide(void **state) {
  (void)state;
  run(WIDE);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_small),
      ESP_TEST(test_wide),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
