/* convert.c: every operation of the wire, as the engine is told it; what can't be told is refused by name. */
#include <string.h>

#include "base/alloc.h"
#include "rpc/convert.h"
#include "tests/support/test.h"

#define TEXT(text) ((char *)(uintptr_t)(text))

/* The operation of a list of one, which is freed by the caller. */
static struct esp_converted convert_one(Espalier__V1__Operation *operation) {
  struct esp_converted converted = {0};
  struct esp_status st = {0};
  Espalier__V1__Operation *list[] = {operation};
  if (esp_convert_operations(list, 1, &converted, &st) != ESP_OK)
    fail_msg("refused: %s", st.message);
  assert_int_equal(converted.len, 1);
  return converted;
}

static void assert_refused(Espalier__V1__Operation *operation, enum esp_code code, const char *message) {
  struct esp_converted converted = {0};
  struct esp_status st = {0};
  Espalier__V1__Operation *list[] = {operation};
  assert_int_equal(esp_convert_operations(list, 1, &converted, &st), code);
  assert_string_equal(st.message, message);
  assert_null(converted.operations);
}

/* Declares `operation`, whose member of this name is `part`, of this type. */
#define OPERATION(part, name, NAME, type)                                                                              \
  Espalier__V1__Operation__##type part;                                                                                \
  espalier__v1__operation__##name##__init(&part);                                                                      \
  Espalier__V1__Operation operation = ESPALIER__V1__OPERATION__INIT;                                                   \
  operation.operation_case = ESPALIER__V1__OPERATION__OPERATION_##NAME;                                                \
  operation.part = &part

static void assert_selects(Espalier__V1__Operation *operation, enum esp_operation_kind kind, bool reset_state) {
  struct esp_converted converted = convert_one(operation);
  const struct esp_operation want = {.kind = kind, .selection = "enc", .reset_state = reset_state};
  assert_string_equal(converted.operations[0].selection, want.selection);
  assert_int_equal(converted.operations[0].kind, want.kind);
  assert_int_equal(converted.operations[0].reset_state, want.reset_state);
  assert_null(converted.operations[0].to);
  assert_null(converted.operations[0].name);
  esp_converted_done(&converted);
  esp_converted_done(&converted);
}

#define SELECTS(part, name, NAME, type, kind)                                                                          \
  do {                                                                                                                 \
    OPERATION(part, name, NAME, type);                                                                                 \
    part.selection = TEXT("enc");                                                                                      \
    assert_selects(&operation, kind, false);                                                                           \
  } while (0)

static void a_selection_and_nothing_else(void **state) {
  (void)state;
  SELECTS(freeze, freeze, FREEZE, Freeze, ESP_OPERATION_FREEZE);
  SELECTS(thaw, thaw, THAW, Thaw, ESP_OPERATION_THAW);
  SELECTS(detach, detach, DETACH, Detach, ESP_OPERATION_DETACH);
  SELECTS(attach, attach, ATTACH, Attach, ESP_OPERATION_ATTACH);
  SELECTS(untie, untie, UNTIE, Untie, ESP_OPERATION_UNTIE);
  SELECTS(remove, remove, REMOVE, Remove, ESP_OPERATION_REMOVE);
  SELECTS(reset, reset_state, RESET, ResetState, ESP_OPERATION_RESET);
  {
    OPERATION(thaw, thaw, THAW, Thaw);
    thaw.selection = TEXT("enc");
    thaw.reset_state = 1;
    assert_selects(&operation, ESP_OPERATION_THAW, true);
  }
  OPERATION(untie, untie, UNTIE, Untie);
  untie.selection = TEXT("enc");
  untie.reset_state = 1;
  assert_selects(&operation, ESP_OPERATION_UNTIE, true);
}

static void a_tie_has_two_sides_a_view_and_a_value(void **state) {
  (void)state;
  OPERATION(tie, tie, TIE, Tie);
  tie.leaf = TEXT("head.w");
  tie.to = TEXT("emb.w");
  struct esp_converted converted = convert_one(&operation);
  const struct esp_operation *op = converted.operations;
  assert_int_equal(op->kind, ESP_OPERATION_TIE);
  assert_string_equal(op->selection, "head.w");
  assert_string_equal(op->to, "emb.w");
  assert_true(op->view == ESP_VIEW_IDENTITY && !op->mean);
  esp_converted_done(&converted);
  tie.view = ESPALIER__V1__VIEW__VIEW_TRANSPOSE;
  tie.value = ESPALIER__V1__OPERATION__TIE__VALUE__MEAN;
  converted = convert_one(&operation);
  assert_true(converted.operations[0].view == ESP_VIEW_TRANSPOSE && converted.operations[0].mean);
  esp_converted_done(&converted);
  tie.value = (Espalier__V1__Operation__Tie__Value)2;
  assert_refused(&operation, ESP_INVALID_ARGUMENT, "a tie of \"head.w\" with no value that is known (2)");
  tie.value = ESPALIER__V1__OPERATION__TIE__VALUE__KEEP;
  tie.view = (Espalier__V1__View)7;
  assert_refused(&operation, ESP_INVALID_ARGUMENT, "\"head.w\" has no view that is known (7)");
}

static void assert_pair(Espalier__V1__Operation *operation, const struct esp_operation *want) {
  struct esp_converted converted = convert_one(operation);
  const struct esp_operation *op = converted.operations;
  assert_int_equal(op->kind, want->kind);
  const char *const texts[][2] = {{op->selection, want->selection}, {op->to, want->to}, {op->name, want->name}};
  for (size_t i = 0; i < 3; i++) {
    assert_int_equal(texts[i][0] == NULL, texts[i][1] == NULL);
    if (texts[i][0] != NULL)
      assert_string_equal(texts[i][0], texts[i][1]);
  }
  esp_converted_done(&converted);
}

static void names_land_where_the_engine_looks_for_them(void **state) {
  (void)state;
  {
    OPERATION(regroup, regroup, REGROUP, Regroup);
    regroup.selection = TEXT("enc");
    regroup.group = TEXT("fast");
    assert_pair(&operation, &(struct esp_operation){.kind = ESP_OPERATION_REGROUP, .selection = "enc", .to = "fast"});
  }
  {
    OPERATION(copy, copy, COPY, Copy);
    copy.from = TEXT("a");
    copy.to = TEXT("b");
    assert_pair(&operation, &(struct esp_operation){.kind = ESP_OPERATION_COPY, .selection = "a", .to = "b"});
  }
  {
    OPERATION(rename, rename, RENAME, Rename);
    rename.from = TEXT("a");
    rename.to = TEXT("b");
    assert_pair(&operation, &(struct esp_operation){.kind = ESP_OPERATION_RENAME, .selection = "a", .to = "b"});
  }
  {
    OPERATION(define_group, define_group, DEFINE_GROUP, DefineGroup);
    define_group.name = TEXT("fast");
    define_group.expression = TEXT("sgd(lr=1)");
    assert_pair(&operation,
                &(struct esp_operation){.kind = ESP_OPERATION_DEFINE_GROUP, .name = "fast", .to = "sgd(lr=1)"});
  }
  {
    OPERATION(delete_group, delete_group, DELETE_GROUP, DeleteGroup);
    delete_group.name = TEXT("fast");
    assert_pair(&operation, &(struct esp_operation){.kind = ESP_OPERATION_DELETE_GROUP, .name = "fast"});
  }
  OPERATION(name_selection, name_selection, NAME_SELECTION, NameSelection);
  name_selection.name = TEXT("backbone");
  assert_pair(&operation,
              &(struct esp_operation){.kind = ESP_OPERATION_NAME_SELECTION, .name = "backbone", .selection = ""});
}

static void an_undo_names_its_epoch(void **state) {
  (void)state;
  OPERATION(undo, undo, UNDO, Undo);
  undo.epoch = 17;
  struct esp_converted converted = convert_one(&operation);
  assert_true(converted.operations[0].kind == ESP_OPERATION_UNDO && converted.operations[0].epoch == 17);
  esp_converted_done(&converted);
}

static void a_set_names_its_stage(void **state) {
  (void)state;
  OPERATION(set, set, SET, Set);
  set.selection = TEXT("enc");
  set.stage = 55;
  set.reset_state = 1;
  struct esp_converted converted = convert_one(&operation);
  const struct esp_operation *op = converted.operations;
  assert_true(op->kind == ESP_OPERATION_SET && op->stage == 55 && op->reset_state);
  assert_string_equal(op->selection, "enc");
  esp_converted_done(&converted);
}

static void an_initializer_has_to_be_said(void **state) {
  (void)state;
  Espalier__V1__Initializer init = ESPALIER__V1__INITIALIZER__INIT;
  Espalier__V1__Initializer__Normal normal = ESPALIER__V1__INITIALIZER__NORMAL__INIT;
  OPERATION(reinit, reinit, REINIT, Reinit);
  reinit.selection = TEXT("enc");
  assert_refused(&operation, ESP_INVALID_ARGUMENT, "a reinit of \"enc\" without an initializer that is known");
  reinit.init = &init;
  init.seed = 9;
  assert_refused(&operation, ESP_INVALID_ARGUMENT, "a reinit of \"enc\" without an initializer that is known");
  init.value_case = ESPALIER__V1__INITIALIZER__VALUE_FOLLOWS;
  assert_refused(&operation, ESP_INVALID_ARGUMENT, "a reinit of \"enc\" with a value that follows: that is a set");
  init.value_case = ESPALIER__V1__INITIALIZER__VALUE_NORMAL;
  init.normal = &normal;
  normal.mean = 1;
  normal.stddev = 2;
  struct esp_converted converted = convert_one(&operation);
  const struct esp_operation *op = converted.operations;
  assert_true(op->kind == ESP_OPERATION_REINIT && op->init.kind == ESP_INIT_NORMAL && op->init.seed == 9);
  assert_true(op->init.a == 1 && op->init.b == 2);
  assert_string_equal(op->selection, "enc");
  esp_converted_done(&converted);
}

static void an_added_leaf_is_told_whole(void **state) {
  (void)state;
  Espalier__V1__LeafSpec spec = ESPALIER__V1__LEAF_SPEC__INIT;
  Espalier__V1__Initializer init = ESPALIER__V1__INITIALIZER__INIT;
  uint64_t shape[] = {3, 4, 5, 6, 7, 8, 9, 10, 11};
  OPERATION(add, add, ADD, Add);
  assert_refused(&operation, ESP_INVALID_ARGUMENT, "an operation adds a leaf without saying which");
  add.leaf = &spec;
  spec.path = TEXT("new.w");
  spec.n_shape = 2;
  spec.shape = shape;
  assert_refused(&operation, ESP_INVALID_ARGUMENT, "\"new.w\" has no dtype that is known (0)");
  spec.dtype = ESPALIER__V1__DTYPE__DTYPE_F64;
  spec.kind = ESPALIER__V1__KIND__KIND_BUFFER;
  spec.tag = TEXT("Linear");
  spec.group = TEXT("fast");
  spec.alias_of = TEXT("old.w");
  spec.view = ESPALIER__V1__VIEW__VIEW_TRANSPOSE;
  spec.frozen = spec.detached = 1;
  spec.init = &init;
  init.value_case = ESPALIER__V1__INITIALIZER__VALUE_CONSTANT;
  init.constant = 7;
  struct esp_converted converted = convert_one(&operation);
  assert_int_equal(converted.operations[0].kind, ESP_OPERATION_ADD);
  const struct esp_declare_leaf *leaf = converted.operations[0].leaf;
  assert_string_equal(leaf->path, "new.w");
  assert_int_equal(leaf->path_len, 5);
  assert_true(leaf->shape.rank == 2 && leaf->shape.dims[0] == 3 && leaf->shape.dims[1] == 4);
  assert_true(leaf->dtype == ESP_DTYPE_F64 && leaf->kind == ESP_KIND_BUFFER && leaf->view == ESP_VIEW_TRANSPOSE);
  assert_string_equal(leaf->tag, "Linear");
  assert_string_equal(leaf->group, "fast");
  assert_string_equal(leaf->alias_of, "old.w");
  assert_true(leaf->frozen && leaf->detached && leaf->init.kind == ESP_INIT_CONSTANT && leaf->init.a == 7);
  esp_converted_done(&converted);
  init.value_case = ESPALIER__V1__INITIALIZER__VALUE_FOLLOWS;
  init.follows = 1;
  assert_refused(&operation, ESP_INVALID_ARGUMENT,
                 "\"new.w\": the value of an added leaf can't follow (follows); add it with another initializer, then "
                 "set it");
  spec.view = (Espalier__V1__View)2;
  assert_refused(&operation, ESP_INVALID_ARGUMENT, "\"new.w\" has no view that is known (2)");
  spec.n_shape = 9;
  assert_refused(&operation, ESP_INVALID_ARGUMENT, "\"new.w\" has rank 9, and 8 is the most");
}

static void a_node_is_told_whole(void **state) {
  (void)state;
  Espalier__V1__NodeSpec spec = ESPALIER__V1__NODE_SPEC__INIT;
  spec.path = TEXT("enc");
  spec.tag = TEXT("Chain");
  spec.group = TEXT("fast");
  struct esp_declare_node node = esp_convert_node(&spec);
  assert_string_equal(node.path, "enc");
  assert_int_equal(node.path_len, 3);
  assert_string_equal(node.tag, "Chain");
  assert_string_equal(node.group, "fast");
  assert_true(!node.frozen && !node.detached);
  spec.frozen = 1;
  assert_true(esp_convert_node(&spec).frozen && !esp_convert_node(&spec).detached);
  spec.frozen = 0;
  spec.detached = 1;
  assert_true(!esp_convert_node(&spec).frozen && esp_convert_node(&spec).detached);
}

/* Two adjustments, whose hyperparameters do not mix, with every allocation failing in turn. */
static void hyperparameters_stay_with_their_operation(void **state) {
  (void)state;
  Espalier__V1__Operation__Adjust__HyperparametersEntry entries[3];
  Espalier__V1__Operation__Adjust__HyperparametersEntry *first[] = {&entries[0], &entries[1]},
                                                        *second[] = {&entries[2]};
  for (size_t i = 0; i < 3; i++)
    espalier__v1__operation__adjust__hyperparameters_entry__init(&entries[i]);
  entries[0].key = TEXT("lr");
  entries[0].value = TEXT("0.1");
  entries[1].key = TEXT("adamw.beta1");
  entries[1].value = TEXT("0.9");
  entries[2].key = TEXT("lr");
  entries[2].value = TEXT("2");
  Espalier__V1__Operation__Adjust adjusts[2] = {ESPALIER__V1__OPERATION__ADJUST__INIT,
                                                ESPALIER__V1__OPERATION__ADJUST__INIT};
  adjusts[0].group = TEXT("a");
  adjusts[0].n_hyperparameters = 2;
  adjusts[0].hyperparameters = first;
  adjusts[1].group = TEXT("b");
  adjusts[1].n_hyperparameters = 1;
  adjusts[1].hyperparameters = second;
  Espalier__V1__Operation operations[2] = {ESPALIER__V1__OPERATION__INIT, ESPALIER__V1__OPERATION__INIT};
  Espalier__V1__Operation *list[2] = {&operations[0], &operations[1]};
  for (size_t i = 0; i < 2; i++) {
    operations[i].operation_case = ESPALIER__V1__OPERATION__OPERATION_ADJUST;
    operations[i].adjust = &adjusts[i];
  }
  struct esp_converted converted = {0};
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  int64_t n = 0;
  for (; code != ESP_OK; n++) {
    esp_alloc_fail_at(n);
    code = esp_convert_operations(list, 2, &converted, NULL);
    esp_alloc_fail_at(-1);
    assert_true(code == ESP_OK || code == ESP_RESOURCE_EXHAUSTED);
    assert_int_equal(code == ESP_OK, converted.operations != NULL);
  }
  assert_int_equal(n, 4);
  const struct esp_operation *ops = converted.operations;
  assert_true(ops[0].kind == ESP_OPERATION_ADJUST && ops[0].hypers_len == 2 && ops[1].hypers_len == 1);
  assert_string_equal(ops[0].name, "a");
  assert_string_equal(ops[0].hypers[0].value, "0.1");
  assert_string_equal(ops[0].hypers[1].name, "adamw.beta1");
  assert_string_equal(ops[0].hypers[1].value, "0.9");
  assert_string_equal(ops[1].name, "b");
  assert_string_equal(ops[1].hypers[0].value, "2");
  esp_converted_done(&converted);
}

static void what_happens_later_is_told_whole(void **state) {
  (void)state;
  {
    OPERATION(freeze, freeze, FREEZE, Freeze);
    freeze.selection = TEXT("enc");
    freeze.for_ms = 1;
    freeze.until_commit = 2;
    freeze.at_commit = 3;
    struct esp_converted converted = convert_one(&operation);
    const struct esp_operation *op = &converted.operations[0];
    assert_int_equal(op->kind, ESP_OPERATION_FREEZE);
    assert_string_equal(op->selection, "enc");
    assert_true(op->for_ms == 1 && op->until_commit == 2 && op->at_commit == 3);
    esp_converted_done(&converted);
  }
  {
    OPERATION(thaw, thaw, THAW, Thaw);
    thaw.selection = TEXT("enc");
    thaw.at_commit = 4;
    thaw.one_by_one = 1;
    thaw.every_commits = 5;
    struct esp_converted converted = convert_one(&operation);
    const struct esp_operation *op = &converted.operations[0];
    assert_int_equal(op->kind, ESP_OPERATION_THAW);
    assert_true(op->at_commit == 4 && op->one_by_one && op->every == 5 && !op->reset_state);
    esp_converted_done(&converted);
  }
  OPERATION(cancel_timer, cancel_timer, CANCEL_TIMER, CancelTimer);
  cancel_timer.timer = 6;
  struct esp_converted converted = convert_one(&operation);
  assert_int_equal(converted.operations[0].kind, ESP_OPERATION_CANCEL_TIMER);
  assert_int_equal(converted.operations[0].timer, 6);
  esp_converted_done(&converted);
}

static void of_several_the_message_says_which(void **state) {
  (void)state;
  OPERATION(freeze, freeze, FREEZE, Freeze);
  Espalier__V1__Operation empty = ESPALIER__V1__OPERATION__INIT;
  Espalier__V1__Operation *list[] = {&operation, &operation, &empty};
  struct esp_converted converted = {0};
  struct esp_status st = {0};
  assert_int_equal(esp_convert_operations(list, 3, &converted, &st), ESP_INVALID_ARGUMENT);
  assert_string_equal(st.message,
                      "operation 3 of 3: an operation is empty, or of a kind that this server does not know");
  assert_int_equal(esp_convert_operations(list, ESP_OPERATIONS_MAX + 1, &converted, &st), ESP_INVALID_ARGUMENT);
  assert_string_equal(st.message, "10001 operations, a transaction may have 10000");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(a_selection_and_nothing_else),
      ESP_TEST(a_tie_has_two_sides_a_view_and_a_value),
      ESP_TEST(names_land_where_the_engine_looks_for_them),
      ESP_TEST(an_undo_names_its_epoch),
      ESP_TEST(a_set_names_its_stage),
      ESP_TEST(an_initializer_has_to_be_said),
      ESP_TEST(an_added_leaf_is_told_whole),
      ESP_TEST(a_node_is_told_whole),
      ESP_TEST(hyperparameters_stay_with_their_operation),
      ESP_TEST(what_happens_later_is_told_whole),
      ESP_TEST(of_several_the_message_says_which),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
