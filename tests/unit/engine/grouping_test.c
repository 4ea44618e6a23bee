/* Operations about groups, and what becomes of optimizer state; values and states set afresh. */
#include "fixture.h"

#define WIDE 70001 /* elements: more than one share */

static struct esp_operation define(const char *name, const char *expression) {
  return (struct esp_operation){.kind = ESP_OPERATION_DEFINE_GROUP, .name = name, .to = expression};
}

static struct esp_operation regroup(const char *selection, const char *group) {
  return (struct esp_operation){.kind = ESP_OPERATION_REGROUP, .selection = selection, .to = group};
}

static void push_value(struct fixture *fixture, uint64_t leaf, size_t n, double value) {
  struct outcome outcome;
  double *grad = malloc(n * sizeof(*grad));
  for (size_t i = 0; i < n; i++)
    grad[i] = value;
  if (push_one(fixture, leaf, grad, n * sizeof(*grad), &outcome) != ESP_OK)
    fail_msg("%s", outcome.st.message);
  free(grad);
}

static double last_of(struct fixture *fixture, uint64_t leaf) {
  struct esp_pin pin = pin_one(fixture, leaf);
  double value = ((const double *)pin.bytes)[pin.bytes_len / sizeof(double) - 1];
  esp_hold_unref(pin.hold);
  return value;
}

static struct esp_param_stat stat_of(struct fixture *fixture, const char *path) {
  struct outcome outcome;
  assert_int_equal(digest(fixture, path, &outcome), ESP_OK);
  return outcome.stat;
}

static uint64_t state_bytes(struct fixture *fixture) {
  struct esp_engine_info info;
  esp_engine_info(fixture->engine, &info);
  return info.memory_state;
}

static const char *group_of(struct fixture *fixture, uint64_t id, char name[64]) {
  struct esp_layout *layout = esp_engine_layout(fixture->engine, NULL);
  snprintf(name, 64, "%s", esp_layout_group_of(layout, esp_layout_leaf_by_id(layout, id))->name);
  esp_layout_unref(layout);
  return name;
}

/* A group that wants another state: what it has too is kept. */
static void test_regroup(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  char name[64];
  fixture_open_with(&fixture, 2, ESP_ISA_SSE2, "sgd(lr=1, momentum=0.5)", 64 << 20, ESP_NONFINITE_REJECT);
  uint64_t a = declare_vector(&fixture, "n.a", WIDE), b = declare_vector(&fixture, "n.b", 1);
  push_value(&fixture, a, WIDE, 1);
  const struct esp_operation ops[2] = {define("slow", "sgd(lr=0.25, momentum=0.5)"), regroup("n", "slow")};
  assert_int_equal(apply_ops(&fixture, ops, 2, &outcome), ESP_OK);
  assert_int_equal(outcome.notes_len, 0); /* the same state: nothing is lost, and nothing to be told */
  assert_string_equal(group_of(&fixture, a, name), "slow");
  uint64_t later = declare_vector(&fixture, "n.later", 1);
  assert_string_equal(group_of(&fixture, later, name), "slow"); /* the node has it */
  push_value(&fixture, a, WIDE, 0);
  assert_true(last_of(&fixture, a) == -1 - 0.5 * 0.25); /* momentum went on */
  apply_ok(&fixture, define("slow", "adam(lr=1)"), &outcome);
  assert_int_equal(outcome.notes_len, 1);
  assert_int_equal(stat_of(&fixture, "n.a").steps, 0);
  assert_int_equal(stat_of(&fixture, "n.a").state_bytes / stat_of(&fixture, "n.b").state_bytes, WIDE * 8 / 64 + 1);
  push_value(&fixture, a, WIDE, 1);
  apply_ok(&fixture, define("slow", "adamw(lr=1, weight_decay=0)"), &outcome); /* the same moments */
  assert_int_equal(outcome.notes_len, 0);
  assert_int_equal(stat_of(&fixture, "n.a").steps, 1);
  apply_ok(&fixture, define("slow", "adam(lr=1, amsgrad=true)"), &outcome); /* one more */
  assert_int_equal(outcome.notes_len, 1);
  assert_int_equal(stat_of(&fixture, "n.a").steps, 1);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_DELETE_GROUP, .name = "slow"}, &outcome);
  assert_string_equal(group_of(&fixture, b, name), "default");
  push_value(&fixture, b, 1, 1);
  assert_true(last_of(&fixture, b) == -1);
  fixture_close(&fixture);
}

/* A frozen parameter's state changes hands as well. */
static void test_redefine_frozen(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open_with(&fixture, 2, ESP_ISA_SSE2, "sgd(lr=1, momentum=0.5)", 64 << 20, ESP_NONFINITE_REJECT);
  uint64_t a = declare_vector(&fixture, "a", 1);
  push_value(&fixture, a, 1, 1);
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "a", &outcome), ESP_OK);
  const struct esp_hyper_change hypers[1] = {{"lr", "4"}};
  apply_ok(&fixture,
           (struct esp_operation){.kind = ESP_OPERATION_ADJUST, .name = "default", .hypers = hypers, .hypers_len = 1},
           &outcome);
  assert_string_equal(outcome.text, "default optimizer sgd(lr=1, momentum=0.5)->sgd(lr=4, momentum=0.5)\n");
  push_value(&fixture, a, 1, 1);
  assert_true(last_of(&fixture, a) == -1); /* frozen */
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_THAW, "a", &outcome), ESP_OK);
  push_value(&fixture, a, 1, 0);
  assert_true(last_of(&fixture, a) == -1 - 4 * 0.5); /* honoured now, with the momentum of before */
  fixture_close(&fixture);
}

static void test_adjust_refused(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  const struct esp_hyper_change bad[1] = {{"nosuch", "4"}};
  struct esp_operation op = {.kind = ESP_OPERATION_ADJUST, .name = "default", .hypers = bad, .hypers_len = 1};
  assert_int_equal(apply_ops(&fixture, &op, 1, &outcome), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(outcome.st.message, "lr"));
  op.name = "nosuch";
  assert_int_equal(apply_ops(&fixture, &op, 1, &outcome), ESP_NOT_FOUND);
  assert_non_null(strstr(outcome.st.message, "head"));
  op = define("x", "sgd(");
  assert_int_equal(apply_ops(&fixture, &op, 1, &outcome), ESP_INVALID_ARGUMENT);
  op = (struct esp_operation){.kind = ESP_OPERATION_DELETE_GROUP, .name = "default"};
  assert_int_equal(apply_ops(&fixture, &op, 1, &outcome), ESP_FAILED_PRECONDITION);
  fixture_close(&fixture);
}

/* Tied leaves: the parameter follows its primary leaf, wherever the selection lies. */
static void test_regroup_alias(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  char name[64];
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "x.a", 1), b = declare_vector(&fixture, "y.b", 1);
  struct esp_operation tie = {.kind = ESP_OPERATION_TIE, .selection = "x.a", .to = "y.b"};
  apply_ok(&fixture, tie, &outcome);
  apply_ok(&fixture, regroup("x", "head"), &outcome);
  assert_string_equal(outcome.text, "y.b stepped_by default->head\n"
                                    "x group ->head\n"
                                    "y.b group ->head\n");
  assert_string_equal(group_of(&fixture, a, name), "head");
  assert_string_equal(group_of(&fixture, b, name), "head");
  apply_ok(&fixture, regroup("x.*", "head"), &outcome);
  assert_int_equal(outcome.changes_len, 0);
  apply_ok(&fixture, regroup("**", "nosuch"), &outcome);
  assert_int_equal(outcome.notes_len, 1);
  assert_string_equal(group_of(&fixture, b, name), "default");
  apply_ok(&fixture, define("nosuch", "sgd(lr=8)"), &outcome);
  push_value(&fixture, a, 1, 1);
  assert_true(last_of(&fixture, b) == -8);
  fixture_close(&fixture);
}

/* What both optimizers have is kept to the bit: a step afterwards is the one that another leaf makes whose optimizer
 * was the later one all along. */
static void test_kept_state(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open_with(&fixture, 2, ESP_ISA_SSE2, "adam(lr=1)", 64 << 20, ESP_NONFINITE_REJECT);
  uint64_t a = declare_vector(&fixture, "a", WIDE), b = declare_vector(&fixture, "b", WIDE);
  const struct esp_operation ops[2] = {define("w", "adamw(lr=1, weight_decay=0)"), regroup("b", "w")};
  assert_int_equal(apply_ops(&fixture, ops, 2, &outcome), ESP_OK);
  push_value(&fixture, a, WIDE, 3);
  push_value(&fixture, b, WIDE, 3);
  apply_ok(&fixture, define("new", "sgd(lr=1, momentum=0.5) | adam(lr=1)"), &outcome); /* one state more, before them */
  apply_ok(&fixture, regroup("a", "new"), &outcome);
  assert_int_equal(outcome.notes_len, 1);
  apply_ok(&fixture, regroup("a", "w"), &outcome);
  push_value(&fixture, a, WIDE, 1);
  push_value(&fixture, b, WIDE, 1);
  assert_true(last_of(&fixture, a) == last_of(&fixture, b));
  fixture_close(&fixture);
}

/* A node's assignment holds for all below it: nearer ones go. */
static void test_regroup_over_nearer(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  char name[64];
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "n.m.a", 1);
  apply_ok(&fixture, regroup("n.m", "head"), &outcome);
  apply_ok(&fixture, regroup("n", "default"), &outcome);
  assert_string_equal(group_of(&fixture, a, name), "default");
  uint64_t later = declare_vector(&fixture, "n.m.later", 1);
  assert_string_equal(group_of(&fixture, later, name), "default");
  fixture_close(&fixture);
}

/* A word that is a condition names no node. */
static void test_regroup_by_condition(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  char name[64];
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "x.a", 1);
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "x.a", &outcome), ESP_OK);
  apply_ok(&fixture, regroup("frozen", "head"), &outcome);
  assert_string_equal(outcome.text, "x.a group ->head\n");
  assert_string_equal(group_of(&fixture, a, name), "head");
  fixture_close(&fixture);
}

static void test_reset_and_reinit(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open_with(&fixture, 2, ESP_ISA_SSE2, "sgd(lr=1, momentum=0.5)", 64 << 20, ESP_NONFINITE_REJECT);
  uint64_t a = declare_vector(&fixture, "a", WIDE);
  push_value(&fixture, a, WIDE, 1);
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "a", &outcome), ESP_OK);
  struct esp_operation reinit = {
      .kind = ESP_OPERATION_REINIT, .selection = "a", .init = {.kind = ESP_INIT_CONSTANT, .a = 9}};
  apply_ok(&fixture, reinit, &outcome);
  assert_string_equal(outcome.text, "a value ->constant(9)\n");
  assert_true(last_of(&fixture, a) == 9); /* at once, also while frozen */
  assert_int_equal(stat_of(&fixture, "a").steps, 1);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_RESET, .selection = "a"}, &outcome);
  assert_string_equal(outcome.text, "a state ->reset\n");
  struct esp_declare_leaf counter = vector_f64("counter", 1);
  counter.kind = ESP_KIND_BUFFER;
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_ADD, .leaf = &counter}, &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_RESET, .selection = "counter"}, &outcome);
  assert_int_equal(outcome.changes_len, 0); /* a buffer has no state */
  assert_int_equal(stat_of(&fixture, "a").steps, 0);
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_THAW, "a", &outcome), ESP_OK);
  push_value(&fixture, a, WIDE, 0);
  assert_true(last_of(&fixture, a) == 9);
  reinit.init.kind = ESP_INIT_VALUE;
  assert_int_equal(apply_ops(&fixture, &reinit, 1, &outcome), ESP_INVALID_ARGUMENT);
  fixture_close(&fixture);
}

/* An operation that fails after one that took memory: nothing of it is left. */
static void test_all_or_nothing(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome, before, after;
  fixture_open(&fixture);
  declare_vector(&fixture, "n.a", WIDE);
  declare_vector(&fixture, "n.b", WIDE);
  assert_int_equal(digest(&fixture, "", &before), ESP_OK);
  const struct esp_operation ops[4] = {define("default", "adam"),
                                       {.kind = ESP_OPERATION_COPY, .selection = "n.a", .to = "n.b"},
                                       {.kind = ESP_OPERATION_TIE, .selection = "n.a", .to = "n.b", .mean = true},
                                       {.kind = ESP_OPERATION_FREEZE, .selection = "nosuch"}};
  assert_int_equal(apply_ops(&fixture, ops, 4, &outcome), ESP_NOT_FOUND);
  assert_non_null(strstr(outcome.st.message, "operation 4 of 4"));
  assert_int_equal(state_bytes(&fixture), 0);
  struct esp_apply_request dry = {.operations = ops, .operations_len = 3, .idempotency_key = "", .dry_run = true};
  assert_int_equal(apply_request(&fixture, &dry, &outcome), ESP_OK);
  assert_true(outcome.changes_len > 0);
  assert_int_equal(state_bytes(&fixture), 0);
  assert_int_equal(digest(&fixture, "", &after), ESP_OK);
  assert_memory_equal(&before.digest, &after.digest, sizeof(after.digest));
  assert_int_equal(before.commit, after.commit);
  fixture_close(&fixture);
}

/* Whoever adds a leaf to a group that nobody has defined is told, alone or among many, by its own assignment or by one
 * above it; not if the transaction defines it. */
static void test_add_to_an_undefined_group(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  const char *said = "group later is not defined: default steps what is assigned to it";
  fixture_open(&fixture);
  struct esp_declare_leaf leaves[4] = {vector_f64("x.a", 1), vector_f64("x.b", 1), vector_f64("y.a", 1),
                                       vector_f64("z.a", 1)};
  leaves[0].group = leaves[1].group = leaves[3].group = "later";
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_ADD, .leaf = &leaves[0]}, &outcome);
  assert_int_equal(outcome.notes_len, 1);
  assert_string_equal(outcome.note, said);
  const struct esp_operation two[] = {{.kind = ESP_OPERATION_ADD, .leaf = &leaves[1]},
                                      {.kind = ESP_OPERATION_REGROUP, .selection = "x", .to = "later"}};
  assert_int_equal(apply_ops(&fixture, two, 2, &outcome), ESP_OK);
  assert_int_equal(outcome.notes_len, 1);
  assert_string_equal(outcome.note, said);
  leaves[2].path = "x.c";
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_ADD, .leaf = &leaves[2]}, &outcome);
  assert_string_equal(outcome.note, said);
  const struct esp_operation defined[] = {
      {.kind = ESP_OPERATION_ADD, .leaf = &leaves[3]},
      {.kind = ESP_OPERATION_DEFINE_GROUP, .name = "later", .to = "sgd(lr=1)"},
  };
  assert_int_equal(apply_ops(&fixture, defined, 2, &outcome), ESP_OK);
  assert_int_equal(outcome.notes_len, 0);
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_regroup),
      ESP_TEST(test_redefine_frozen),
      ESP_TEST(test_adjust_refused),
      ESP_TEST(test_regroup_alias),
      ESP_TEST(test_regroup_by_condition),
      ESP_TEST(test_kept_state),
      ESP_TEST(test_regroup_over_nearer),
      ESP_TEST(test_reset_and_reinit),
      ESP_TEST(test_all_or_nothing),
      ESP_TEST(test_add_to_an_undefined_group),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
