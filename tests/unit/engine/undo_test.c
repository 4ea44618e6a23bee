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

/* All that a layout says, but for epochs and ids of parameters: a line a leaf, the groups, and what is assigned. */
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
  for (size_t i = 0; i < layout->assignments_len; i++)
    used += (size_t)snprintf(text + used, 4096 - used, "'%s' has %s\n", layout->assignments[i].node,
                             layout->assignments[i].group);
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

/* The operations, and their undo alone: all is as it was, the primary leaves and what is assigned as well; the undo's
 * undo brings them about again. */
static void expect_back(struct fixture *fixture, const struct esp_operation *ops, size_t len) {
  struct outcome outcome;
  char before[4096], between[4096], after[4096];
  print_tree(fixture, before);
  if (apply_ops(fixture, ops, len, &outcome) != ESP_OK)
    fail_msg("%s", outcome.st.message);
  print_tree(fixture, between);
  undo_ok(fixture, 0, &outcome);
  assert_string_equal(before, print_tree(fixture, after));
  undo_ok(fixture, 0, &outcome);
  assert_string_equal(between, print_tree(fixture, after));
  undo_ok(fixture, 0, &outcome);
  assert_string_equal(before, print_tree(fixture, after));
}

/* x.a is the primary leaf of what y.a and y.b share, and is tied away. */
static void test_primary_tied_away(void **state) {
  (void)state;
  const struct esp_operation away = {.kind = ESP_OPERATION_TIE, .selection = "x.a", .to = "x.b"};
  const struct esp_operation regroup = {.kind = ESP_OPERATION_REGROUP, .selection = "y.a", .to = "head"};
  const struct esp_operation node = {.kind = ESP_OPERATION_REGROUP, .selection = "y", .to = "head"};
  const struct esp_operation untie = {.kind = ESP_OPERATION_UNTIE, .selection = "x.a"};
  const struct esp_operation lead = {.kind = ESP_OPERATION_TIE, .selection = "y.a", .to = "x.b"};
  const struct esp_operation lists[][3] = {{away},  {regroup, away},  {away, regroup},    {node, away},
                                           {untie}, {regroup, untie}, {away, lead, node}, {lead, away}};
  static const size_t lens[] = {1, 2, 2, 2, 1, 2, 3, 2};
  for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
    struct fixture fixture;
    struct outcome outcome;
    open_tree(&fixture);
    apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_DEFINE_GROUP, .name = "slow", .to = "sgd(lr=0.1)"},
             &outcome);
    apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "y.a", .to = "x.a"}, &outcome);
    apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "y.b", .to = "x.a"}, &outcome);
    apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_REGROUP, .selection = "x.a", .to = "slow"},
             &outcome);
    expect_back(&fixture, lists[i], lens[i]);
    fixture_close(&fixture);
  }
}

/* What a later transaction made of the group stays, and so does what it assigned to a node that goes back. */
static void test_group_since(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome tied, outcome;
  char after[4096];
  open_tree(&fixture);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "y.a", .to = "x.a"}, &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "x.a", .to = "x.b"}, &tied);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_REGROUP, .selection = "y", .to = "head"}, &outcome);
  undo_ok(&fixture, tied.epoch, &outcome);
  assert_non_null(strstr(print_tree(&fixture, after), "x.a head 000 x.a\n"));
  assert_non_null(strstr(after, "y.a head 000 x.a\n"));
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_RENAME, .selection = "x", .to = "z"}, &tied);
  declare_vector(&fixture, "z.c.d", 2);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_REGROUP, .selection = "z.c", .to = "head"}, &outcome);
  undo_ok(&fixture, tied.epoch, &outcome);
  assert_non_null(strstr(print_tree(&fixture, after), "z.c.d head"));
  fixture_close(&fixture);
}

/* A rename writes an assignment where the new place is in another group, and other operations follow under the new
 * name. */
static void test_renamed_into_group(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  open_tree(&fixture);
  declare_vector(&fixture, "x.c.d", 2);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_REGROUP, .selection = "y.b", .to = "head"}, &outcome);
  const struct esp_operation into = {.kind = ESP_OPERATION_RENAME, .selection = "x", .to = "assigned.x"};
  const struct esp_operation alone = {.kind = ESP_OPERATION_RENAME, .selection = "x.c", .to = "assigned.c"};
  const struct esp_operation leaf = {.kind = ESP_OPERATION_RENAME, .selection = "y.a", .to = "assigned.y"};
  const struct esp_operation regroup = {.kind = ESP_OPERATION_REGROUP, .selection = "assigned.x", .to = "head"};
  const struct esp_operation below = {.kind = ESP_OPERATION_REGROUP, .selection = "assigned.x.c", .to = "none"};
  const struct esp_operation before = {.kind = ESP_OPERATION_REGROUP, .selection = "x.c", .to = "head"};
  const struct esp_operation tie = {.kind = ESP_OPERATION_TIE, .selection = "assigned.x.a", .to = "y.a"};
  const struct esp_operation lists[][3] = {{into},          {alone},         {leaf},
                                           {into, regroup}, {into, below},   {before, into, below},
                                           {before, alone}, {regroup, into}, {into, below, regroup}};
  static const size_t lens[] = {1, 1, 1, 2, 2, 3, 2, 0, 3};
  for (size_t i = 0; i < sizeof(lens) / sizeof(*lens); i++) {
    if (lens[i] > 0)
      expect_back(&fixture, lists[i], lens[i]);
  }
  const struct esp_operation both[] = {into, tie};
  char tree[4096], after[4096];
  print_tree(&fixture, tree);
  assert_int_equal(apply_ops(&fixture, both, 2, &outcome), ESP_OK);
  undo_ok(&fixture, 0, &outcome);
  assert_string_equal(tree, print_tree(&fixture, after));
  fixture_close(&fixture);
}

/* Leaves long gone have left an assignment at the place, which the renamed leaf overwrites. */
static void test_renamed_over_an_assignment(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  open_tree(&fixture);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_REGROUP, .selection = "y.b", .to = "head"}, &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_REGROUP, .selection = "x.b", .to = "other"},
           &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_REMOVE, .selection = "y.b"}, &outcome);
  const struct esp_operation unassigned = {.kind = ESP_OPERATION_RENAME, .selection = "x.a", .to = "y.b"};
  const struct esp_operation assigned = {.kind = ESP_OPERATION_RENAME, .selection = "x.b", .to = "y.b"};
  const struct esp_operation regroup = {.kind = ESP_OPERATION_REGROUP, .selection = "y.b", .to = "third"};
  const struct esp_operation lists[][2] = {{unassigned}, {assigned}, {unassigned, regroup}, {assigned, regroup}};
  for (size_t i = 0; i < 4; i++)
    expect_back(&fixture, lists[i], 1 + i / 2);
  fixture_close(&fixture);
}

/* The parameter is gone, and another leaf was its primary one: each is in the group that it was in, of its place or
 * not. */
static void test_group_of_the_gone(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  char after[4096];
  open_tree(&fixture);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "y.a", .to = "x.a"}, &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_REGROUP, .selection = "x", .to = "head"}, &outcome);
  const struct esp_operation ops[] = {{.kind = ESP_OPERATION_REGROUP, .selection = "x.a", .to = "none"},
                                      {.kind = ESP_OPERATION_TIE, .selection = "x.a", .to = "y.b"},
                                      {.kind = ESP_OPERATION_TIE, .selection = "y.a", .to = "y.b"}};
  assert_int_equal(apply_ops(&fixture, ops, 3, &outcome), ESP_OK);
  undo_ok(&fixture, 0, &outcome);
  assert_string_equal(print_tree(&fixture, after), "x.a head 000 x.a\n"
                                                   "x.b head 000 x.b\n"
                                                   "y.a head 000 y.a\n"
                                                   "y.b default 000 y.b\n"
                                                   "default: sgd(lr=1)\n"
                                                   "head: sgd(lr=1)\n"
                                                   "'' has default\n"
                                                   "'assigned' has head\n"
                                                   "'x' has head\n"
                                                   "'y.a' has head\n");
  fixture_close(&fixture);
}

/* The primary leaf is removed for good: the group that it gave is given to the one that follows it. */
static void test_group_of_the_removed(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  char after[4096];
  open_tree(&fixture);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "y.a", .to = "x.a"}, &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_REGROUP, .selection = "x", .to = "head"}, &outcome);
  const struct esp_operation ops[] = {{.kind = ESP_OPERATION_REGROUP, .selection = "y.a", .to = "none"},
                                      {.kind = ESP_OPERATION_REMOVE, .selection = "x.a"}};
  assert_int_equal(apply_ops(&fixture, ops, 2, &outcome), ESP_OK);
  assert_non_null(strstr(print_tree(&fixture, after), "y.a default"));
  undo_ok(&fixture, 0, &outcome);
  assert_non_null(strstr(print_tree(&fixture, after), "y.a head"));
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
      ESP_TEST(test_each),
      ESP_TEST(test_declaration),
      ESP_TEST(test_transaction),
      ESP_TEST(test_to_and_fro),
      ESP_TEST(test_view),
      ESP_TEST(test_renamed_before),
      ESP_TEST(test_regrouped_alias),
      ESP_TEST(test_refused),
      ESP_TEST(test_history),
      ESP_TEST(test_renamed_node),
      ESP_TEST(test_tied_into_group),
      ESP_TEST(test_primary_tied_away),
      ESP_TEST(test_group_since),
      ESP_TEST(test_renamed_into_group),
      ESP_TEST(test_renamed_over_an_assignment),
      ESP_TEST(test_group_of_the_gone),
      ESP_TEST(test_group_of_the_removed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
