/* Admin transactions: freeze, thaw and set, all or nothing, dry runs, retries. */
#include <math.h>

#include "fixture.h"

static void test_freeze_and_thaw(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "enc.a", 1), b = declare_vector(&fixture, "enc.b", 1);
  uint64_t c = declare_vector(&fixture, "head.c", 1);
  const double one = 1, bad = NAN;
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "enc", &outcome), ESP_OK);
  assert_string_equal(outcome.text, "enc.a frozen false->true\nenc.b frozen false->true\n");
  assert_int_equal(outcome.matched, 2);
  uint64_t epoch = outcome.epoch, commit = outcome.commit;
  assert_true(commit > 0);
  const struct grad grads[3] = {{a, &one, 8}, {b, &bad, 8}, {c, &one, 8}}; /* a NaN for a frozen leaf is no error */
  assert_int_equal(push_many(&fixture, 0, 0, grads, 3, &outcome), ESP_OK);
  assert_int_equal(outcome.push.frozen, 2);
  assert_int_equal(outcome.push.applied, 1);
  assert_int_equal(outcome.push.absent, 0);
  assert_int_equal(outcome.push.epoch, epoch);
  assert_int_equal(outcome.push.commit, commit + 1);
  assert_true(first_of(&fixture, a) == 0 && first_of(&fixture, b) == 0 && first_of(&fixture, c) == -1);
  /* Again: nothing changes, no epoch, no commit. */
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "enc", &outcome), ESP_OK);
  assert_int_equal(outcome.changes_len, 0);
  assert_int_equal(outcome.commit, 0);
  assert_int_equal(outcome.epoch, epoch);
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_THAW, "**.a", &outcome), ESP_OK);
  assert_string_equal(outcome.text, "enc.a frozen true->false\n");
  assert_int_equal(outcome.epoch, epoch + 1);
  assert_int_equal(push_one(&fixture, a, &one, 8, &outcome), ESP_OK);
  assert_true(first_of(&fixture, a) == -1);
  fixture_close(&fixture);
}

static void test_refusals(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  declare_vector(&fixture, "encoder", 1);
  declare_vector(&fixture, "head", 1);
  struct esp_layout *before = esp_engine_layout(fixture.engine, NULL);
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "encodr", &outcome), ESP_NOT_FOUND);
  assert_non_null(strstr(outcome.st.message, "\"encoder\""));
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "", &outcome), ESP_INVALID_ARGUMENT);
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "a..b", &outcome), ESP_INVALID_ARGUMENT);
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "name:bias", &outcome), ESP_NOT_FOUND);
  struct esp_operation ops[2] = {{.kind = ESP_OPERATION_FREEZE, .selection = "head"},
                                 {.kind = ESP_OPERATION_FREEZE, .selection = "nosuch"}};
  struct esp_apply_request request = {.operations = ops, .operations_len = 2, .idempotency_key = ""};
  assert_int_equal(apply_request(&fixture, &request, &outcome), ESP_NOT_FOUND); /* the first is not done either */
  assert_non_null(strstr(outcome.st.message, "operation 2 of 2"));
  request.operations_len = 1;
  request.if_epoch = 1;
  assert_int_equal(apply_request(&fixture, &request, &outcome), ESP_ABORTED);
  request.if_epoch = 0;
  ops[0].selection = "**";
  request.max_leaves = 1;
  assert_int_equal(apply_request(&fixture, &request, &outcome), ESP_FAILED_PRECONDITION);
  request.max_leaves = 0;
  request.operations_len = 0;
  assert_int_equal(apply_request(&fixture, &request, &outcome), ESP_INVALID_ARGUMENT);
  struct esp_layout *after = esp_engine_layout(fixture.engine, NULL);
  assert_ptr_equal(before, after);
  esp_layout_unref(before);
  esp_layout_unref(after);
  fixture_close(&fixture);
}

static void test_dry_run_then_if_epoch(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome dry, real;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 1);
  struct esp_operation op = {.kind = ESP_OPERATION_FREEZE, .selection = "a"};
  struct esp_apply_request request = {.operations = &op, .operations_len = 1, .dry_run = true, .idempotency_key = ""};
  assert_int_equal(apply_request(&fixture, &request, &dry), ESP_OK);
  assert_int_equal(dry.commit, 0);
  const double one = 1;
  assert_int_equal(push_one(&fixture, a, &one, 8, &real), ESP_OK);
  assert_int_equal(real.push.applied, 1);
  request.dry_run = false;
  request.if_epoch = dry.epoch;
  assert_int_equal(apply_request(&fixture, &request, &real), ESP_OK);
  assert_string_equal(dry.text, real.text);
  assert_int_equal(real.epoch, dry.epoch + 1);
  assert_int_equal(apply_request(&fixture, &request, &real), ESP_ABORTED);
  fixture_close(&fixture);
}

/* A retry under the same key gets the same answer, and the transaction happens once. */
static void test_idempotency_key(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome first, retry, other;
  fixture_open(&fixture);
  declare_vector(&fixture, "a", 1);
  struct esp_operation op = {.kind = ESP_OPERATION_FREEZE, .selection = "a"};
  struct esp_apply_request request = {.operations = &op, .operations_len = 1, .idempotency_key = "k1"};
  assert_int_equal(apply_request(&fixture, &request, &first), ESP_OK);
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_THAW, "a", &other), ESP_OK);
  assert_int_equal(apply_request(&fixture, &request, &retry), ESP_OK);
  assert_int_equal(retry.commit, first.commit);
  assert_string_equal(retry.text, first.text);
  struct esp_engine_info info;
  esp_engine_info(fixture.engine, &info);
  assert_int_equal(info.frozen, 0); /* still thawed */
  char key[16];
  request.idempotency_key = key;
  for (int i = 0; i < 2 * ESP_KEYS_MAX; i++) { /* the memory of keys is bounded */
    snprintf(key, sizeof(key), "n%d", i);
    assert_int_equal(apply_request(&fixture, &request, &retry), ESP_OK);
  }
  fixture_close(&fixture);
}

/* ---- set ---- */

static uint64_t stage(struct fixture *fixture, uint64_t leaf, const void *data, size_t bytes, struct esp_status *st) {
  struct outcome outcome;
  struct esp_push *push;
  uint64_t token, expires_ms;
  struct esp_push_header header = {.leaf_count = 1, .total_bytes = bytes};
  outcome_init(&outcome);
  assert_int_equal(esp_stage_new(fixture->engine, &header, on_push, &outcome, &push, st), ESP_OK);
  assert_int_equal(feed(push, leaf, 0, data, bytes, st), ESP_OK);
  return esp_stage_keep(push, &token, &expires_ms, st) == ESP_OK ? token : 0;
}

static enum esp_code set(struct fixture *fixture, const char *selection, uint64_t token, bool reset,
                         struct outcome *ret) {
  struct esp_operation op = {.kind = ESP_OPERATION_SET, .selection = selection, .stage = token, .reset_state = reset};
  struct esp_apply_request request = {.operations = &op, .operations_len = 1, .idempotency_key = ""};
  return apply_request(fixture, &request, ret);
}

static void test_set(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  struct esp_status st;
  fixture_open_with(&fixture, 2, ESP_ISA_SSE2, "sgd(lr=1, momentum=0.5)", 1 << 20, ESP_NONFINITE_REJECT);
  uint64_t a = declare_vector(&fixture, "a", 2), b = declare_vector(&fixture, "b", 2);
  (void)b;
  const double grad[2] = {1, 1}, value[2] = {10, 20}, bad[2] = {1, INFINITY};
  assert_int_equal(push_one(&fixture, a, grad, 16, &outcome), ESP_OK);
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "a", &outcome), ESP_OK);
  uint64_t token = stage(&fixture, a, value, 16, &st);
  assert_int_not_equal(token, 0);
  assert_true(staged(&fixture) >= 16);
  assert_int_equal(set(&fixture, "b", token, false, &outcome), ESP_FAILED_PRECONDITION);
  assert_non_null(strstr(outcome.st.message, "leaf b"));
  assert_int_equal(set(&fixture, "a", token, false, &outcome), ESP_OK); /* also while it is frozen */
  assert_string_equal(outcome.text, "a value ->set\n");
  assert_int_equal(staged(&fixture), 0);
  assert_true(first_of(&fixture, a) == 10);
  assert_int_equal(set(&fixture, "a", token, false, &outcome), ESP_FAILED_PRECONDITION); /* used */
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_THAW, "a", &outcome), ESP_OK);
  assert_int_equal(push_one(&fixture, a, grad, 16, &outcome), ESP_OK);
  assert_true(first_of(&fixture, a) == 10 - 1.5); /* the momentum was kept */
  token = stage(&fixture, a, value, 16, &st);
  assert_int_equal(set(&fixture, "a", token, true, &outcome), ESP_OK);
  assert_int_equal(outcome.notes_len, 1);
  assert_int_equal(push_one(&fixture, a, grad, 16, &outcome), ESP_OK);
  assert_true(first_of(&fixture, a) == 9); /* and now it was not */
  assert_int_equal(digest(&fixture, "a", &outcome), ESP_OK);
  assert_int_equal(outcome.stat.steps, 1);
  assert_int_equal(stage(&fixture, a, bad, 16, &st), 0);
  assert_non_null(strstr(st.message, "leaf a: element 1 of the value is not finite"));
  stage(&fixture, a, value, 16, &st); /* forgotten: it expires */
  esp_env_virtual_advance(fixture.twin, 60000);
  esp_engine_tick(fixture.engine);
  assert_int_equal(staged(&fixture), 0);
  stage(&fixture, a, value, 16, &st); /* forgotten: the engine's end frees it */
  fixture_close(&fixture);
}

static void test_thaw_with_reset(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open_with(&fixture, 2, ESP_ISA_SSE2, "sgd(lr=1, momentum=0.5)", 1 << 20, ESP_NONFINITE_REJECT);
  uint64_t a = declare_vector(&fixture, "a", 1), b = declare_vector(&fixture, "b", 1);
  const double one = 1;
  const struct grad grads[2] = {{a, &one, 8}, {b, &one, 8}};
  assert_int_equal(push_many(&fixture, 0, 0, grads, 2, &outcome), ESP_OK);
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "a", &outcome), ESP_OK);
  struct esp_operation op = {.kind = ESP_OPERATION_THAW, .selection = "**", .reset_state = true};
  struct esp_apply_request request = {.operations = &op, .operations_len = 1, .idempotency_key = ""};
  assert_int_equal(apply_request(&fixture, &request, &outcome), ESP_OK);
  assert_string_equal(outcome.text, "a state ->reset\na frozen true->false\n");
  assert_int_equal(push_many(&fixture, 0, 0, grads, 2, &outcome), ESP_OK);
  assert_true(first_of(&fixture, a) == -2);   /* thawed, afresh */
  assert_true(first_of(&fixture, b) == -2.5); /* was not frozen: untouched */
  fixture_close(&fixture);
}

/* The diff tells of state that is lost, and so does an undo. Buffers have none. */
static void test_lost_state_is_told(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  struct esp_status st;
  fixture_open(&fixture);
  struct esp_declare_leaf leaves[2] = {vector_f64("x.a", 1), vector_f64("x.b", 1)};
  leaves[1].kind = ESP_KIND_BUFFER;
  assert_int_equal(declare(&fixture, leaves, 2, &outcome), ESP_OK);
  uint64_t a = outcome.ids[0], b = outcome.ids[1];
  const double one = 1;
  const struct esp_operation undo = {.kind = ESP_OPERATION_UNDO};
  const char *lost = "optimizer state that was reset is not kept; leaves whose state stays as it is: 1";
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "x", &outcome), ESP_OK);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_THAW, .selection = "x", .reset_state = true},
           &outcome);
  assert_string_equal(outcome.text, "x.a state ->reset\nx.a frozen true->false\nx.b frozen true->false\n");
  apply_ok(&fixture, undo, &outcome);
  assert_int_equal(outcome.notes_len, 1);
  assert_string_equal(outcome.note, lost);
  assert_int_equal(set(&fixture, "x.a", stage(&fixture, a, &one, 8, &st), true, &outcome), ESP_OK);
  assert_string_equal(outcome.text, "x.a value ->set\nx.a state ->reset\n");
  apply_ok(&fixture, undo, &outcome);
  assert_int_equal(outcome.notes_len, 2); /* of the value, too */
  assert_int_equal(set(&fixture, "x.b", stage(&fixture, b, &one, 8, &st), true, &outcome), ESP_OK);
  assert_string_equal(outcome.text, "x.b value ->set\n");
  fixture_close(&fixture);
}

/* Through a leaf that sees its parameter the other way round. */
static void test_set_transposed(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  struct esp_status st;
  fixture_open(&fixture);
  struct esp_declare_leaf leaves[2] = {vector_f64("a", 2), vector_f64("b", 3)};
  leaves[0].shape = (struct esp_shape){.rank = 2, .dims = {2, 3}};
  leaves[1].shape = (struct esp_shape){.rank = 2, .dims = {3, 2}};
  leaves[0].alias_of = "b";
  leaves[0].view = ESP_VIEW_TRANSPOSE;
  assert_int_equal(declare(&fixture, leaves, 2, &outcome), ESP_OK);
  uint64_t a = outcome.ids[0], b = outcome.ids[1];
  const double value[6] = {1, 2, 3, 4, 5, 6}, turned[6] = {1, 4, 2, 5, 3, 6};
  assert_int_equal(set(&fixture, "a", stage(&fixture, a, value, 48, &st), false, &outcome), ESP_OK);
  struct esp_pin pins[2] = {pin_one(&fixture, a), pin_one(&fixture, b)};
  assert_memory_equal(pins[0].bytes, value, 48);
  assert_memory_equal(pins[1].bytes, turned, 48);
  esp_hold_unref(pins[0].hold);
  esp_hold_unref(pins[1].hold);
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_freeze_and_thaw),
      ESP_TEST(test_refusals),
      ESP_TEST(test_dry_run_then_if_epoch),
      ESP_TEST(test_idempotency_key),
      ESP_TEST(test_set),
      ESP_TEST(test_thaw_with_reset),
      ESP_TEST(test_set_transposed),
      ESP_TEST(test_lost_state_is_told),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
