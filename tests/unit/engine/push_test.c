/* One push: what it does to values, what is refused and with which words, and that a refusal leaves no trace. */
#include <math.h>

#include "fixture.h"

static void test_steps_and_counts(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 3), b = declare_vector(&fixture, "b", 1);
  (void)b;
  const double grad[3] = {1, 2, 3};
  assert_int_equal(push_one(&fixture, a, grad, sizeof(grad), &outcome), ESP_OK);
  assert_int_equal(outcome.push.applied, 1);
  assert_int_equal(outcome.push.absent, 1);
  assert_int_equal(outcome.push.commit, 3); /* two declarations came before */
  assert_int_equal(outcome.push.epoch, 4);  /* the assignment of the fixture, too */
  struct esp_pin pin = pin_one(&fixture, a);
  assert_memory_equal(pin.bytes, ((double[3]){-1, -2, -3}), sizeof(grad));
  assert_int_equal(pin.version, 2);
  esp_hold_unref(pin.hold);
  assert_true(first_of(&fixture, b) == 0);
  assert_int_equal(staged(&fixture), 0);
  fixture_close(&fixture);
}

static void test_empty_push_is_a_commit(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  declare_vector(&fixture, "a", 3);
  assert_int_equal(push_many(&fixture, 0, 0, NULL, 0, &outcome), ESP_OK);
  assert_int_equal(outcome.push.commit, 2);
  assert_int_equal(outcome.push.absent, 1);
  fixture_close(&fixture);
}

/* Every way to cut 24 bytes into pieces of one length, and one byte at a time. */
static void test_any_cut_gives_the_same(void **state) {
  (void)state;
  const double grad[3] = {0.25, -7, 1e-9};
  for (size_t step = 1; step <= sizeof(grad); step++) {
    struct fixture fixture;
    struct outcome outcome;
    struct esp_push *push;
    fixture_open(&fixture);
    uint64_t a = declare_vector(&fixture, "a", 3);
    struct esp_push_header header = {.leaf_count = 1, .total_bytes = sizeof(grad)};
    outcome_init(&outcome);
    assert_int_equal(esp_push_new(fixture.engine, &header, on_push, &outcome, &push, NULL), ESP_OK);
    for (size_t at = 0; at < sizeof(grad); at += step) {
      assert_false(esp_push_is_whole(push));
      size_t len = sizeof(grad) - at < step ? sizeof(grad) - at : step;
      assert_int_equal(feed(push, a, at, (const char *)grad + at, len, NULL), ESP_OK);
    }
    esp_push_commit(push);
    outcome_wait(&outcome);
    assert_int_equal(outcome.code, ESP_OK);
    esp_push_free(push);
    struct esp_pin pin = pin_one(&fixture, a);
    assert_memory_equal(pin.bytes, ((double[3]){-0.25, 7, -1e-9}), sizeof(grad));
    esp_hold_unref(pin.hold);
    fixture_close(&fixture);
  }
}

/* ---- refusals ---- */

/* Sends one piece under a header, expects this code and these words, and that nothing is left of it. */
static void refuse(struct fixture *fixture, const struct esp_push_header *header, const struct esp_piece *pieces,
                   size_t len, enum esp_code code, const char *words) {
  struct outcome before, after, outcome;
  struct esp_push *push = NULL;
  outcome_init(&outcome);
  assert_int_equal(digest(fixture, "", &before), ESP_OK);
  enum esp_code got = esp_push_new(fixture->engine, header, on_push, &outcome, &push, &outcome.st);
  for (size_t i = 0; i < len && got == ESP_OK; i++)
    got = esp_push_feed(push, &pieces[i], &outcome.st);
  if (got == ESP_OK) {
    assert_true(esp_push_is_whole(push));
    esp_push_commit(push);
    outcome_wait(&outcome);
    got = outcome.code;
  }
  esp_push_free(push);
  if (got != code || strstr(outcome.st.message, words) == NULL)
    fail_msg("expected %s with \"%s\", got %s: %s", esp_code_name(code), words, esp_code_name(got), outcome.st.message);
  assert_int_equal(digest(fixture, "", &after), ESP_OK);
  assert_memory_equal(&before.digest, &after.digest, sizeof(before.digest));
  assert_int_equal(before.commit, after.commit);
  assert_int_equal(staged(fixture), 0);
}

static struct esp_piece piece_of(uint64_t leaf, uint64_t offset, const struct esp_span *span) {
  return (struct esp_piece){.leaf_id = leaf, .path = "", .offset = offset, .data = esp_cursor_init(span, 1)};
}

static void test_refusals(void **state) {
  (void)state;
  struct fixture fixture;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "net.a", 3), b = declare_vector(&fixture, "net.b", 2);
  struct outcome outcome;
  struct esp_declare_leaf buffer = vector_f64("net.mean", 2);
  buffer.kind = ESP_KIND_BUFFER;
  assert_int_equal(declare(&fixture, &buffer, 1, &outcome), ESP_OK);
  uint64_t mean = outcome.ids[0];
  const double data[5] = {1, 2, 3, 4, 5}, bad[3] = {1, 2, NAN}, inf[3] = {-INFINITY, 2, 3};
  struct esp_span three = {(const uint8_t *)data, 24}, two = {(const uint8_t *)data, 16},
                  one = {(const uint8_t *)data, 8};
  struct esp_span nan = {(const uint8_t *)bad, 24}, infinite = {(const uint8_t *)inf, 24};
  struct esp_push_header h1 = {.leaf_count = 1, .total_bytes = 24}, h2 = {.leaf_count = 2, .total_bytes = 40};
  struct esp_piece p[3];

  p[0] = piece_of(99, 0, &three);
  refuse(&fixture, &h1, p, 1, ESP_NOT_FOUND, "no leaf has the id 99");
  p[0] = piece_of(0, 0, &three);
  refuse(&fixture, &h1, p, 1, ESP_INVALID_ARGUMENT, "names no leaf");
  p[0].path = "net.c", p[0].path_len = 5;
  refuse(&fixture, &h1, p, 1, ESP_NOT_FOUND, "no leaf has the path net.c; nearest: ");
  p[0] = piece_of(mean, 0, &two);
  refuse(&fixture, &(struct esp_push_header){.leaf_count = 1, .total_bytes = 16}, p, 1, ESP_INVALID_ARGUMENT,
         "leaf net.mean is a buffer");
  p[0] = piece_of(a, 8, &two);
  refuse(&fixture, &h1, p, 1, ESP_INVALID_ARGUMENT, "leaf net.a: offset 0 expected, got 8");
  p[0] = piece_of(a, 0, &two), p[1] = piece_of(a, 8, &two);
  refuse(&fixture, &h1, p, 2, ESP_INVALID_ARGUMENT, "leaf net.a: offset 16 expected, got 8");
  p[0] = piece_of(b, 0, &three);
  refuse(&fixture, &h1, p, 1, ESP_INVALID_ARGUMENT, "leaf net.b: 16 bytes expected, got 24");
  p[0] = piece_of(a, 0, &three), p[1] = piece_of(a, 0, &one);
  refuse(&fixture, &h2, p, 2, ESP_INVALID_ARGUMENT, "leaf net.a was sent twice");
  p[0] = piece_of(a, 0, &three);
  refuse(&fixture, &(struct esp_push_header){.leaf_count = 1, .total_bytes = 16}, p, 1, ESP_INVALID_ARGUMENT,
         "leaf net.a: its 24 bytes do not fit");
  p[0] = piece_of(a, 0, &three), p[1] = piece_of(b, 0, &two);
  refuse(&fixture, &(struct esp_push_header){.leaf_count = 1, .total_bytes = 40}, p, 2, ESP_INVALID_ARGUMENT,
         "leaf net.b is one more than the 1 leaves");
  p[0] = piece_of(a, 0, &three);
  refuse(&fixture, &(struct esp_push_header){.leaf_count = 2, .total_bytes = 24}, p, 1, ESP_INVALID_ARGUMENT,
         "only 1 of the 2 leaves");
  refuse(&fixture, &(struct esp_push_header){.leaf_count = 4, .total_bytes = 8}, p, 0, ESP_INVALID_ARGUMENT,
         "4 leaves are declared, but the tree has 3");
  refuse(&fixture, &(struct esp_push_header){.leaf_count = 1, .total_bytes = UINT64_C(1) << 62}, p, 0,
         ESP_INVALID_ARGUMENT, "all leaves together have 56");
  refuse(&fixture, &(struct esp_push_header){.leaf_count = 0, .total_bytes = 8}, p, 0, ESP_INVALID_ARGUMENT,
         "8 bytes in 0 leaves");
  p[0] = piece_of(a, 0, &three), p[0].has_tensor = true, p[0].dtype = ESP_DTYPE_F32;
  refuse(&fixture, &h1, p, 1, ESP_UNIMPLEMENTED,
         "leaf net.a: dtype f64 expected, got f32: only f32 travels narrower yet");
  p[0] = piece_of(a, 0, &three), p[0].has_tensor = true, p[0].has_shape = true;
  p[0].shape = (struct esp_shape){.rank = 2, .dims = {1, 3}};
  refuse(&fixture, &h1, p, 1, ESP_INVALID_ARGUMENT, "leaf net.a: shape [3] expected, got [1, 3]");
  p[0] = piece_of(a, 0, &three), p[0].has_tensor = true, p[0].tensor_bytes = 25;
  refuse(&fixture, &h1, p, 1, ESP_INVALID_ARGUMENT, "leaf net.a: 24 bytes expected, got 25");
  p[0] = piece_of(a, 0, &three), p[0].has_tensor = true, p[0].rows_len = 1;
  refuse(&fixture, &h1, p, 1, ESP_UNIMPLEMENTED, "leaf net.a: row-sparse");
  p[0] = piece_of(b, 0, &two), p[1] = piece_of(a, 0, &nan);
  refuse(&fixture, &h2, p, 2, ESP_INVALID_ARGUMENT, "leaf net.a: element 2 of the gradient is NaN");
  p[0] = piece_of(a, 0, &infinite);
  refuse(&fixture, &h1, p, 1, ESP_INVALID_ARGUMENT, "leaf net.a: element 0 of the gradient is -infinity");
  struct esp_engine_info info;
  esp_engine_info(fixture.engine, &info);
  assert_int_equal(info.pushes_nonfinite, 2);
  p[0] = piece_of(a, 0, &three);
  struct esp_push_header other = h1;
  other.require_epoch = 77;
  refuse(&fixture, &other, p, 1, ESP_ABORTED, "requires epoch 77");
  other = h1;
  other.lineage = 5;
  refuse(&fixture, &other, p, 0, ESP_ABORTED, "lineage 0000000000000005");
  other = h1;
  other.session = 5, other.sequence = 1;
  refuse(&fixture, &other, p, 0, ESP_FAILED_PRECONDITION, "session 0000000000000005 is unknown");
  other.sequence = 0;
  refuse(&fixture, &other, p, 0, ESP_INVALID_ARGUMENT, "needs a sequence");
  fixture_close(&fixture);
}

static void test_skip_nonfinite(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open_with(&fixture, 1, ESP_ISA_SSE2, "sgd(lr=1)", 1 << 20, ESP_NONFINITE_SKIP);
  uint64_t a = declare_vector(&fixture, "a", 1), b = declare_vector(&fixture, "b", 1);
  const double one = 1, bad = NAN;
  const struct grad grads[2] = {{a, &one, 8}, {b, &bad, 8}};
  assert_int_equal(push_many(&fixture, 0, 0, grads, 2, &outcome), ESP_OK);
  assert_true(outcome.push.skipped);
  assert_int_equal(outcome.push.applied, 0);
  assert_true(first_of(&fixture, a) == 0);
  struct esp_engine_info info;
  esp_engine_info(fixture.engine, &info);
  assert_int_equal(info.pushes_nonfinite, 1);
  fixture_close(&fixture);
}

/* A push that is freed before its commit, at any point, leaves nothing. */
static void test_freed_push_leaves_no_trace(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  struct esp_push *push;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 3);
  const double grad[3] = {1, 2, 3};
  for (size_t bytes = 0; bytes <= sizeof(grad); bytes++) {
    struct esp_push_header header = {.leaf_count = 1, .total_bytes = sizeof(grad)};
    outcome_init(&outcome);
    assert_int_equal(esp_push_new(fixture.engine, &header, on_push, &outcome, &push, NULL), ESP_OK);
    assert_int_equal(feed(push, a, 0, grad, bytes, NULL), ESP_OK);
    assert_true(staged(&fixture) > 0);
    esp_push_free(push);
    assert_int_equal(outcome.done, 0);
    assert_int_equal(staged(&fixture), 0);
  }
  assert_true(first_of(&fixture, a) == 0);
  fixture_close(&fixture);
}

/* ---- staging ---- */

static struct esp_push *begin(struct fixture *fixture, uint64_t bytes, uint64_t wait_ms, struct outcome *ret_outcome) {
  struct esp_push *push = NULL;
  struct esp_push_header header = {.leaf_count = 1, .total_bytes = bytes, .wait_ms = wait_ms};
  outcome_init(ret_outcome);
  if (esp_push_new(fixture->engine, &header, on_push, ret_outcome, &push, &ret_outcome->st) != ESP_OK)
    fail_msg("%s", ret_outcome->st.message);
  return push;
}

static void test_staging_is_first_come_first_served(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome o1, o2, o3, o4;
  fixture_open_with(&fixture, 1, ESP_ISA_SSE2, "sgd", 10000, ESP_NONFINITE_REJECT);
  declare_vector(&fixture, "a", 4096);
  struct esp_push *p1 = begin(&fixture, 6000, 1000, &o1);
  struct esp_push *p2 = begin(&fixture, 6000, 1000, &o2);
  struct esp_push *p3 = begin(&fixture, 100, 1000, &o3); /* would fit, but is not first */
  assert_true(o1.ready && !o2.ready && !o3.ready);
  esp_push_free(p1);
  assert_true(o2.ready && o3.ready);
  struct esp_push *p4 = begin(&fixture, 9000, 1000, &o4);
  esp_push_free(p4); /* while it waits */
  assert_false(o4.ready);
  esp_push_free(p2);
  esp_push_free(p3);
  assert_int_equal(staged(&fixture), 0);
  struct esp_push_header large = {.leaf_count = 1, .total_bytes = 20000};
  assert_int_equal(esp_push_new(fixture.engine, &large, on_push, &o4, &p4, &o4.st), ESP_RESOURCE_EXHAUSTED);
  assert_non_null(strstr(o4.st.message, "--max-staged is 10000"));
  fixture_close(&fixture);
}

static void test_waiting_ends_before_the_caller_does(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome o1, o2;
  fixture_open_with(&fixture, 1, ESP_ISA_SSE2, "sgd", 10000, ESP_NONFINITE_REJECT);
  declare_vector(&fixture, "a", 4096);
  struct esp_push *p1 = begin(&fixture, 6000, 1000, &o1), *p2 = begin(&fixture, 6000, 1000, &o2);
  esp_env_virtual_advance(fixture.twin, 899);
  esp_engine_tick(fixture.engine);
  assert_int_equal(o2.done, 0);
  esp_env_virtual_advance(fixture.twin, 1);
  esp_engine_tick(fixture.engine);
  assert_int_equal(o2.done, 1);
  assert_int_equal(o2.code, ESP_DEADLINE_EXCEEDED);
  assert_non_null(strstr(o2.st.message, "--max-staged"));
  esp_push_free(p2);
  assert_int_equal(o1.done, 0);
  esp_push_free(p1);
  fixture_close(&fixture);
}

static void test_a_stalled_push_is_ended(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome o1, o2;
  fixture_open_with(&fixture, 1, ESP_ISA_SSE2, "sgd", 10000, ESP_NONFINITE_REJECT);
  uint64_t a = declare_vector(&fixture, "a", 1000);
  const uint8_t bytes[8000] = {0};
  struct esp_push *p1 = begin(&fixture, 8000, 0, &o1), *p2 = begin(&fixture, 8000, 60000, &o2);
  esp_env_virtual_advance(fixture.twin, 29999);
  assert_int_equal(feed(p1, a, 0, bytes, 8, NULL), ESP_OK);
  esp_env_virtual_advance(fixture.twin, 29999);
  esp_engine_tick(fixture.engine);
  assert_int_equal(o1.done, 0);
  esp_env_virtual_advance(fixture.twin, 1);
  esp_engine_tick(fixture.engine);
  assert_int_equal(o1.code, ESP_DEADLINE_EXCEEDED);
  assert_non_null(strstr(o1.st.message, "--stall-timeout"));
  assert_int_equal(feed(p1, a, 8, bytes, 8, &o1.st), ESP_DEADLINE_EXCEEDED);
  esp_push_free(p1);
  assert_int_equal(o1.done, 1);
  assert_int_equal(o2.done, 1); /* its own wait was over, too: 54 s of 60 */
  esp_push_free(p2);
  fixture_close(&fixture);
}

static void test_drain(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome o1, o2, o3;
  fixture_open_with(&fixture, 1, ESP_ISA_SSE2, "sgd(lr=1)", 10000, ESP_NONFINITE_REJECT);
  uint64_t a = declare_vector(&fixture, "a", 1000);
  static const double grad[1000] = {4};
  struct esp_push *p1 = begin(&fixture, 8000, 0, &o1), *p2 = begin(&fixture, 8000, 0, &o2);
  esp_engine_drain(fixture.engine);
  assert_int_equal(o2.code, ESP_UNAVAILABLE);
  esp_push_free(p2);
  assert_false(esp_engine_is_idle(fixture.engine));
  struct esp_push_header header = {0};
  assert_int_equal(esp_push_new(fixture.engine, &header, on_push, &o3, &p2, NULL), ESP_UNAVAILABLE);
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "a", &o3), ESP_UNAVAILABLE);
  assert_int_equal(feed(p1, a, 0, grad, sizeof(grad), NULL), ESP_OK);
  esp_push_commit(p1); /* what is under way finishes */
  outcome_wait(&o1);
  assert_int_equal(o1.code, ESP_OK);
  esp_push_free(p1);
  assert_true(first_of(&fixture, a) == -4);
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_steps_and_counts),
      ESP_TEST(test_empty_push_is_a_commit),
      ESP_TEST(test_any_cut_gives_the_same),
      ESP_TEST(test_refusals),
      ESP_TEST(test_skip_nonfinite),
      ESP_TEST(test_freed_push_leaves_no_trace),
      ESP_TEST(test_staging_is_first_come_first_served),
      ESP_TEST(test_waiting_ends_before_the_caller_does),
      ESP_TEST(test_a_stalled_push_is_ended),
      ESP_TEST(test_drain),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
