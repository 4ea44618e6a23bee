/* The history, and undoing what is in it. */
#include "fixture.h"

static enum esp_code undo(struct fixture *fixture, uint64_t epoch, struct outcome *ret) {
  const struct esp_operation op = {.kind = ESP_OPERATION_UNDO, .epoch = epoch};
  return apply_ops(fixture, &op, 1, ret);
}

static void undo_ok(struct fixture *fixture, uint64_t epoch, struct outcome *ret) {
  if (undo(fixture, epoch, ret) != ESP_OK)
    fail_msg("%s", ret->st.message);
}

/* All that a layout says, but for epochs and ids of parameters: a line a leaf, and the groups. */
static const char *print_tree(struct fixture *fixture, char text[4096]) {
  struct esp_layout *layout = esp_engine_layout(fixture->engine, NULL);
  size_t used = 0;
  for (size_t i = 0; i < layout->leaves_len; i++) {
    const struct esp_leaf *leaf = &layout->leaves[i];
    const struct esp_place *place = esp_layout_place(layout, leaf);
    used +=
        (size_t)snprintf(text + used, 4096 - used, "%s %s %d%d%d %s\n", leaf->path, layout->groups[place->group].name,
                         place->frozen, leaf->detached, (int)leaf->view, layout->leaves[place->primary].path);
  }
  for (size_t i = 0; i < layout->groups_len; i++)
    used +=
        (size_t)snprintf(text + used, 4096 - used, "%s: %s\n", layout->groups[i].name, layout->groups[i].expression);
  for (size_t i = 0; i < layout->selections_len; i++)
    used +=
        (size_t)snprintf(text + used, 4096 - used, "@%s: %s\n", layout->selections[i].name, layout->selections[i].text);
  esp_layout_unref(layout);
  return text;
}

static void open_tree(struct fixture *fixture) {
  fixture_open(fixture);
  declare_vector(fixture, "x.a", 2);
  declare_vector(fixture, "x.b", 2);
  declare_vector(fixture, "y.a", 2);
  declare_vector(fixture, "y.b", 2);
}

/* Each operation, then its undo: the tree is as it was. */
static void test_each(void **state) {
  (void)state;
  const struct esp_hyper_change hypers[1] = {{"lr", "4"}};
  struct esp_declare_leaf leaf = vector_f64("z.new", 1);
  leaf.frozen = true;
  const struct esp_operation ops[] = {
      {.kind = ESP_OPERATION_FREEZE, .selection = "x"},
      {.kind = ESP_OPERATION_DETACH, .selection = "x.a"},
      {.kind = ESP_OPERATION_TIE, .selection = "x", .to = "y"},
      {.kind = ESP_OPERATION_REGROUP, .selection = "x", .to = "head"},
      {.kind = ESP_OPERATION_REGROUP, .selection = "**.a", .to = "head"},
      {.kind = ESP_OPERATION_ADJUST, .name = "default", .hypers = hypers, .hypers_len = 1},
      {.kind = ESP_OPERATION_DEFINE_GROUP, .name = "new", .to = "adam"},
      {.kind = ESP_OPERATION_DELETE_GROUP, .name = "head"},
      {.kind = ESP_OPERATION_NAME_SELECTION, .name = "some", .selection = "x | y.a"},
      {.kind = ESP_OPERATION_RENAME, .selection = "x", .to = "q.r"},
      {.kind = ESP_OPERATION_ADD, .leaf = &leaf},
  };
  for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++) {
    struct fixture fixture;
    struct outcome outcome;
    char before[4096], between[4096], after[4096];
    open_tree(&fixture);
    print_tree(&fixture, before);
    apply_ok(&fixture, ops[i], &outcome);
    if (strcmp(before, print_tree(&fixture, between)) == 0)
      fail_msg("operation %zu changes nothing", i);
    undo_ok(&fixture, 0, &outcome);
    assert_string_equal(before, print_tree(&fixture, after));
    if (ops[i].kind != ESP_OPERATION_ADD) { /* what was added is gone for good */
      undo_ok(&fixture, 0, &outcome);
      assert_string_equal(between, print_tree(&fixture, after));
    }
    fixture_close(&fixture);
  }
}

/* What a worker declared goes with its epoch only. */
static void test_declaration(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  struct esp_status st;
  struct esp_record **records;
  size_t len;
  open_tree(&fixture);
  assert_int_equal(undo(&fixture, 0, &outcome), ESP_FAILED_PRECONDITION);
  assert_non_null(strstr(outcome.st.message, "name that epoch"));
  assert_int_equal(esp_engine_history(fixture.engine, 0, 1, &records, &len, &st), ESP_OK);
  undo_ok(&fixture, records[0]->epoch, &outcome);
  assert_non_null(strstr(outcome.text, "y.b leaf "));
  esp_record_unref(records[0]);
  esp_free(records);
  undo_ok(&fixture, 0, &outcome); /* the undo is an operator's */
  fixture_close(&fixture);
}

/* A transaction of many, not the last one. */
static void test_transaction(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome, later;
  char before[4096], after[4096];
  open_tree(&fixture);
  print_tree(&fixture, before);
  const struct esp_operation ops[4] = {{.kind = ESP_OPERATION_TIE, .selection = "x.a", .to = "y.a", .mean = true},
                                       {.kind = ESP_OPERATION_FREEZE, .selection = "y.a"},
                                       {.kind = ESP_OPERATION_RESET, .selection = "y.a"},
                                       {.kind = ESP_OPERATION_REGROUP, .selection = "y.a", .to = "head"}};
  assert_int_equal(apply_ops(&fixture, ops, 4, &outcome), ESP_OK);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "y.b"}, &later);
  undo_ok(&fixture, outcome.epoch, &outcome);
  assert_int_equal(outcome.notes_len, 3); /* a value, a state, and the former parameter */
  undo_ok(&fixture, later.epoch, &outcome);
  assert_string_equal(before, print_tree(&fixture, after));
  fixture_close(&fixture);
}

/* A flag that one transaction changed to and fro is as it was before all of it. */
static void test_to_and_fro(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  char before[4096], after[4096];
  open_tree(&fixture);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x.a"}, &outcome);
  print_tree(&fixture, before);
  const struct esp_operation ops[5] = {{.kind = ESP_OPERATION_THAW, .selection = "x.a"},
                                       {.kind = ESP_OPERATION_FREEZE, .selection = "x"},
                                       {.kind = ESP_OPERATION_THAW, .selection = "x.b"},
                                       {.kind = ESP_OPERATION_DETACH, .selection = "y"},
                                       {.kind = ESP_OPERATION_ATTACH, .selection = "y.b"}};
  assert_int_equal(apply_ops(&fixture, ops, 5, &outcome), ESP_OK);
  undo_ok(&fixture, 0, &outcome);
  assert_string_equal(before, print_tree(&fixture, after));
  fixture_close(&fixture);
}

/* A leaf that was tied to one of its own parameter, transposed, sees it as before, also where it is the primary one. */
static void test_view(void **state) {
  (void)state;
  for (int flipped = 0; flipped < 2; flipped++) {
    struct fixture fixture;
    struct outcome outcome;
    char before[4096], after[4096];
    const char *const names[2] = {"a", "b"};
    fixture_open(&fixture);
    struct esp_declare_leaf leaves[2] = {vector_f64("a", 2), vector_f64("b", 2)};
    leaves[0].shape = leaves[1].shape = (struct esp_shape){.rank = 2, .dims = {2, 2}};
    assert_int_equal(declare(&fixture, leaves, 2, &outcome), ESP_OK);
    apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "b", .to = "a"}, &outcome);
    print_tree(&fixture, before);
    const struct esp_operation op = {
        .kind = ESP_OPERATION_TIE, .selection = names[flipped], .to = names[!flipped], .view = ESP_VIEW_TRANSPOSE};
    apply_ok(&fixture, op, &outcome);
    assert_string_not_equal(before, print_tree(&fixture, after));
    undo_ok(&fixture, 0, &outcome);
    assert_string_equal(before, print_tree(&fixture, after));
    fixture_close(&fixture);
  }
}

/* What an operation before it in the same transaction gave another name. */
static void test_renamed_before(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  open_tree(&fixture);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_RENAME, .selection = "x.a", .to = "z"}, &outcome);
  const struct esp_operation ops[2] = {{.kind = ESP_OPERATION_RENAME, .selection = "z", .to = "z.b"},
                                       {.kind = ESP_OPERATION_UNDO, .epoch = outcome.epoch}};
  assert_int_equal(apply_ops(&fixture, ops, 2, &outcome), ESP_FAILED_PRECONDITION);
  assert_non_null(strstr(outcome.st.message, "renamed z"));
  fixture_close(&fixture);
}

/* What moved with a tied leaf moves back with it, and no assignment remains. */
static void test_regrouped_alias(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  open_tree(&fixture);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "x", .to = "y"}, &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_REGROUP, .selection = "y", .to = "head"}, &outcome);
  assert_string_equal(outcome.text, "x.a stepped_by default->head\n"
                                    "x.b stepped_by default->head\n"
                                    "y group ->head\n");
  undo_ok(&fixture, 0, &outcome);
  assert_string_equal(outcome.text, "y group head->\n");
  fixture_close(&fixture);
}

/* A node that was renamed with its group comes back with it, and nothing is written for its leaves, also where the same
 * transaction removed one of them and added others, there and elsewhere. */
static void test_renamed_node(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  char before[4096], after[4096];
  const struct esp_declare_leaf first = vector_f64("q.x.new", 1), second = vector_f64("z", 1);
  open_tree(&fixture);
  declare_vector(&fixture, "x.c", 2);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_REGROUP, .selection = "x", .to = "head"}, &outcome);
  const struct esp_operation ops[4] = {{.kind = ESP_OPERATION_ADD, .leaf = &second},
                                       {.kind = ESP_OPERATION_RENAME, .selection = "x", .to = "q.x"},
                                       {.kind = ESP_OPERATION_REMOVE, .selection = "q.x.c"},
                                       {.kind = ESP_OPERATION_ADD, .leaf = &first}};
  assert_int_equal(apply_ops(&fixture, ops, 4, &outcome), ESP_OK);
  undo_ok(&fixture, 0, &outcome);
  struct esp_layout *layout = esp_engine_layout(fixture.engine, NULL);
  assert_int_equal(layout->assignments_len, 3); /* the root's, and one that is the fixture's */
  assert_string_equal(layout->assignments[2].node, "x");
  esp_layout_unref(layout);
  print_tree(&fixture, after);
  assert_int_equal(undo(&fixture, 0, &outcome), ESP_OK); /* and again the other way, without what was removed twice */
  assert_int_equal(undo(&fixture, 0, &outcome), ESP_OK);
  assert_string_equal(after, print_tree(&fixture, before));
  fixture_close(&fixture);
}

/* Leaves whose parameters went with a tie into another group are untied, and in their own again. */
static void test_tied_into_group(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  char before[4096], after[4096];
  open_tree(&fixture);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_DEFINE_GROUP, .name = "head", .to = "adam(lr=0.1)"},
           &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_REGROUP, .selection = "y", .to = "head"}, &outcome);
  print_tree(&fixture, before);
  const struct esp_operation ops[2] = {{.kind = ESP_OPERATION_TIE, .selection = "x", .to = "y"},
                                       {.kind = ESP_OPERATION_TIE, .selection = "x.a", .to = "x.b"}};
  assert_int_equal(apply_ops(&fixture, ops, 2, &outcome), ESP_OK);
  undo_ok(&fixture, 0, &outcome);
  assert_string_equal(before, print_tree(&fixture, after));
  fixture_close(&fixture);
}

static void test_refused(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome, first, second;
  open_tree(&fixture);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x"}, &first);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_THAW, .selection = "x.b"}, &second);
  assert_int_equal(undo(&fixture, first.epoch, &outcome), ESP_FAILED_PRECONDITION);
  char text[64];
  snprintf(text, sizeof(text), "epoch %d has changed frozen of x.b", (int)second.epoch);
  assert_non_null(strstr(outcome.st.message, text));
  assert_int_equal(undo(&fixture, 9999, &outcome), ESP_NOT_FOUND);
  undo_ok(&fixture, second.epoch, &outcome);
  assert_string_equal(outcome.text, "x.b frozen false->true\n");
  undo_ok(&fixture, 0, &outcome); /* of the undo: the second one stands again */
  assert_int_equal(undo(&fixture, first.epoch, &outcome), ESP_FAILED_PRECONDITION);
  assert_non_null(strstr(outcome.st.message, text));
  undo_ok(&fixture, 0, &outcome);
  undo_ok(&fixture, first.epoch, &outcome); /* what came between was taken back, by way of two detours */
  assert_string_equal(outcome.text, "x.a frozen true->false\nx.b frozen true->false\n");
  assert_int_equal(undo(&fixture, first.epoch, &outcome), ESP_FAILED_PRECONDITION); /* it was undone */
  fixture_close(&fixture);
  fixture_open(&fixture);
  assert_int_equal(undo(&fixture, 0, &outcome), ESP_NOT_FOUND);
  fixture_close(&fixture);
}

/* What is kept of each transaction, declarations included; a dry run, a refusal and what changes nothing are not. */
static void test_history(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  struct esp_status st;
  struct esp_record **records;
  size_t len;
  fixture_open(&fixture);
  declare_vector(&fixture, "a", 2);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "a"}, &outcome);
  uint64_t epoch = outcome.epoch, commit = outcome.commit;
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "a"}, &outcome);
  const struct esp_operation thaw = {.kind = ESP_OPERATION_THAW, .selection = "a"};
  struct esp_apply_request dry = {.operations = &thaw, .operations_len = 1, .idempotency_key = "", .dry_run = true};
  assert_int_equal(apply_request(&fixture, &dry, &outcome), ESP_OK);
  assert_int_equal(esp_engine_history(fixture.engine, 0, 0, &records, &len, &st), ESP_OK);
  assert_int_equal(len, 2);
  assert_string_equal(records[0]->reason, "declaration");
  assert_string_equal(records[0]->diff.changes[0].field, "leaf");
  assert_string_equal(records[1]->actor, "ann");
  assert_string_equal(records[1]->reason, "because");
  assert_true(records[1]->epoch == epoch && records[1]->commit == commit);
  assert_int_equal(records[1]->changes_len, 1);
  esp_record_unref(records[0]);
  esp_record_unref(records[1]);
  esp_free(records);
  assert_int_equal(esp_engine_history(fixture.engine, epoch - 1, 0, &records, &len, &st), ESP_OK);
  assert_int_equal(len, 1);
  assert_int_equal(records[0]->epoch, epoch);
  esp_record_unref(records[0]);
  esp_free(records);
  assert_int_equal(esp_engine_history(fixture.engine, 0, 1, &records, &len, &st), ESP_OK);
  assert_int_equal(len, 1);
  assert_int_equal(records[0]->epoch, epoch);
  esp_record_unref(records[0]);
  esp_free(records);
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_each),    ESP_TEST(test_declaration),    ESP_TEST(test_transaction),     ESP_TEST(test_to_and_fro),
      ESP_TEST(test_view),    ESP_TEST(test_renamed_before), ESP_TEST(test_regrouped_alias), ESP_TEST(test_refused),
      ESP_TEST(test_history), ESP_TEST(test_renamed_node),   ESP_TEST(test_tied_into_group),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
