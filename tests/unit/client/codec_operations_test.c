/* Operations and declarations as bytes, read again by protobuf-c: everything that was said is there. What the server
 * makes of it is in tests/unit/rpc/convert_test.c. */
#include <string.h>

#include "base/alloc.h"
#include "client/src/codec.h"
#include "espalier/v1/admin.pb-c.h"
#include "espalier/v1/parameter_server.pb-c.h"
#include "tests/support/test.h"

#define CASE(name) ESPALIER__V1__OPERATION__OPERATION_##name

static Espalier__V1__ApplyRequest *encode(const struct esp_op *ops, size_t len,
                                          const struct esp_apply_options *options) {
  const struct esp_apply_options defaults = {0};
  struct esp_buf buf = {0};
  struct esp_status st = {0};
  if (esp_encode_apply(&buf, ops, len, options != NULL ? options : &defaults, "key", &st) != ESP_OK)
    fail_msg("%s", st.message);
  Espalier__V1__ApplyRequest *message = espalier__v1__apply_request__unpack(NULL, buf.len, buf.data);
  assert_non_null(message);
  assert_int_equal(message->n_operations, len);
  esp_buf_done(&buf);
  return message;
}

static Espalier__V1__Operation *only(Espalier__V1__ApplyRequest *message) {
  return message->operations[0];
}

static void done(Espalier__V1__ApplyRequest *message) {
  espalier__v1__apply_request__free_unpacked(message, NULL);
}

static void selections(void **state) {
  (void)state;
  const struct esp_op ops[] = {{.kind = ESP_OP_FREEZE, .selection = "a"},
                               {.kind = ESP_OP_THAW, .selection = "b", .reset_state = true},
                               {.kind = ESP_OP_DETACH, .selection = "c"},
                               {.kind = ESP_OP_ATTACH, .selection = "d"},
                               {.kind = ESP_OP_UNTIE, .selection = "e"},
                               {.kind = ESP_OP_UNTIE, .selection = "f", .reset_state = true},
                               {.kind = ESP_OP_REMOVE, .selection = "g"},
                               {.kind = ESP_OP_RESET, .selection = "h"},
                               {.kind = ESP_OP_SET, .selection = "i", .stage = 9, .reset_state = true},
                               {.kind = ESP_OP_FREEZE}};
  Espalier__V1__ApplyRequest *message = encode(ops, 10, NULL);
  Espalier__V1__Operation **got = message->operations;
  const int cases[] = {CASE(FREEZE), CASE(THAW),   CASE(DETACH), CASE(ATTACH), CASE(UNTIE),
                       CASE(UNTIE),  CASE(REMOVE), CASE(RESET),  CASE(SET),    CASE(FREEZE)};
  for (size_t i = 0; i < 10; i++)
    assert_int_equal(got[i]->operation_case, cases[i]);
  const char *const texts[] = {got[0]->freeze->selection, got[1]->thaw->selection,  got[2]->detach->selection,
                               got[3]->attach->selection, got[4]->untie->selection, got[5]->untie->selection,
                               got[6]->remove->selection, got[7]->reset->selection, got[8]->set->selection};
  for (size_t i = 0; i < 9; i++)
    assert_string_equal(texts[i], ops[i].selection);
  assert_true(got[1]->thaw->reset_state && !got[4]->untie->reset_state && got[5]->untie->reset_state);
  assert_true(got[8]->set->stage == 9 && got[8]->set->reset_state);
  assert_string_equal(got[9]->freeze->selection, "");
  done(message);
}

static void ties(void **state) {
  (void)state;
  const struct esp_op ops[] = {
      {.kind = ESP_OP_TIE, .selection = "a", .to = "b"},
      {.kind = ESP_OP_TIE, .selection = "a", .to = "b", .transposed = true},
      {.kind = ESP_OP_TIE, .selection = "a", .to = "b", .mean = true},
  };
  Espalier__V1__ApplyRequest *message = encode(ops, 3, NULL);
  for (size_t i = 0; i < 3; i++) {
    const Espalier__V1__Operation__Tie *tie = message->operations[i]->tie;
    assert_int_equal(message->operations[i]->operation_case, CASE(TIE));
    assert_string_equal(tie->leaf, "a");
    assert_string_equal(tie->to, "b");
    assert_int_equal(tie->view, i == 1);
    assert_int_equal(tie->value, i == 2);
  }
  done(message);
}

static void names(void **state) {
  (void)state;
  const struct esp_op ops[] = {
      {.kind = ESP_OP_REGROUP, .selection = "a", .to = "g"},
      {.kind = ESP_OP_COPY, .selection = "b", .to = "c"},
      {.kind = ESP_OP_RENAME, .selection = "d", .to = "e"},
      {.kind = ESP_OP_DEFINE_GROUP, .name = "g", .to = "x"},
      {.kind = ESP_OP_DELETE_GROUP, .name = "h"},
      {.kind = ESP_OP_NAME_SELECTION, .name = "n", .selection = "f"},
  };
  Espalier__V1__ApplyRequest *message = encode(ops, 6, NULL);
  Espalier__V1__Operation **got = message->operations;
  const char *const pairs[][2] = {{got[0]->regroup->selection, "a"},
                                  {got[0]->regroup->group, "g"},
                                  {got[1]->copy->from, "b"},
                                  {got[1]->copy->to, "c"},
                                  {got[2]->rename->from, "d"},
                                  {got[2]->rename->to, "e"},
                                  {got[3]->define_group->name, "g"},
                                  {got[3]->define_group->expression, "x"},
                                  {got[4]->delete_group->name, "h"},
                                  {got[5]->name_selection->name, "n"},
                                  {got[5]->name_selection->selection, "f"}};
  for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
    assert_string_equal(pairs[i][0], pairs[i][1]);
  done(message);
}

static void hyperparameters(void **state) {
  (void)state;
  const struct esp_hyper first[] = {{"lr", "1"}, {"adamw.beta1", "2"}}, second[] = {{"lr", "3"}};
  const struct esp_op ops[] = {{.kind = ESP_OP_ADJUST, .name = "a", .hypers = first, .hypers_len = 2},
                               {.kind = ESP_OP_ADJUST, .name = "b"},
                               {.kind = ESP_OP_ADJUST, .name = "c", .hypers = second, .hypers_len = 1}};
  Espalier__V1__ApplyRequest *message = encode(ops, 3, NULL);
  Espalier__V1__Operation__Adjust *a = message->operations[0]->adjust, *c = message->operations[2]->adjust;
  assert_string_equal(a->group, "a");
  assert_int_equal(a->n_hyperparameters, 2);
  assert_string_equal(a->hyperparameters[1]->key, "adamw.beta1");
  assert_string_equal(a->hyperparameters[1]->value, "2");
  assert_int_equal(message->operations[1]->adjust->n_hyperparameters, 0);
  assert_string_equal(c->group, "c");
  assert_string_equal(c->hyperparameters[0]->value, "3");
  done(message);
}

static void initializers(void **state) {
  (void)state;
  struct esp_op op = {.kind = ESP_OP_REINIT, .selection = "a", .init = ESP_UNIFORM, .a = -1, .b = 2, .seed = 7};
  Espalier__V1__ApplyRequest *message = encode(&op, 1, NULL);
  const Espalier__V1__Initializer *init = only(message)->reinit->init;
  assert_string_equal(only(message)->reinit->selection, "a");
  assert_int_equal(init->value_case, ESPALIER__V1__INITIALIZER__VALUE_UNIFORM);
  assert_true(init->uniform->low == -1 && init->uniform->high == 2 && init->seed == 7);
  done(message);
  op.init = ESP_ZEROS; /* must be said, too: the server wants to be told */
  message = encode(&op, 1, NULL);
  assert_int_equal(only(message)->reinit->init->value_case, ESPALIER__V1__INITIALIZER__VALUE_ZEROS);
  done(message);
}

static const struct esp_leaf_spec leaf = {.path = "a.w",
                                          .shape = {3, 4},
                                          .rank = 2,
                                          .dtype = ESP_F64,
                                          .tag = "T",
                                          .group = "g",
                                          .init = ESP_CONSTANT,
                                          .a = 5,
                                          .alias_of = "b.w",
                                          .transposed = true,
                                          .detached = true};

static void assert_leaf(const Espalier__V1__LeafSpec *got) {
  assert_string_equal(got->path, "a.w");
  assert_true(got->n_shape == 2 && got->shape[1] == 4 && got->dtype == ESPALIER__V1__DTYPE__DTYPE_F64);
  assert_string_equal(got->tag, "T");
  assert_string_equal(got->group, "g");
  assert_string_equal(got->alias_of, "b.w");
  assert_int_equal(got->view, ESPALIER__V1__VIEW__VIEW_TRANSPOSE);
  assert_true(got->detached && !got->frozen && got->init->constant == 5);
}

static void leaves_and_nodes(void **state) {
  (void)state;
  const struct esp_op op = {.kind = ESP_OP_ADD, .leaf = &leaf};
  Espalier__V1__ApplyRequest *added = encode(&op, 1, NULL);
  assert_leaf(only(added)->add->leaf);
  done(added);
  const struct esp_node_spec nodes[] = {{.path = "", .group = "slow"},
                                        {.path = "a", .tag = "Chain", .frozen = true, .detached = true}};
  struct esp_buf buf = {0};
  assert_int_equal(esp_encode_node(&buf, &nodes[0], NULL), ESP_OK);
  assert_int_equal(esp_encode_node(&buf, &nodes[1], NULL), ESP_OK);
  assert_int_equal(esp_encode_leaf(&buf, &leaf, NULL), ESP_OK);
  Espalier__V1__DeclareRequest *message = espalier__v1__declare_request__unpack(NULL, buf.len, buf.data);
  assert_true(message->n_nodes == 2 && message->n_leaves == 1);
  assert_leaf(message->leaves[0]);
  assert_string_equal(message->nodes[0]->path, "");
  assert_string_equal(message->nodes[0]->group, "slow");
  assert_true(!message->nodes[0]->frozen && !message->nodes[0]->detached);
  assert_string_equal(message->nodes[1]->path, "a");
  assert_string_equal(message->nodes[1]->tag, "Chain");
  assert_true(message->nodes[1]->frozen && message->nodes[1]->detached);
  espalier__v1__declare_request__free_unpacked(message, NULL);
  esp_buf_done(&buf);
}

static void pack(struct esp_buf *buf, const ProtobufCMessage *message) {
  *buf = (struct esp_buf){.len = protobuf_c_message_get_packed_size(message)};
  buf->data = esp_malloc(buf->len + 1);
  protobuf_c_message_pack(message, buf->data);
}

/* Two pages, the second of which goes on with the first one's diff; every allocation fails in turn. */
static void history_pages(void **state) {
  (void)state;
  Espalier__V1__Change change = ESPALIER__V1__CHANGE__INIT, *changes[] = {&change, &change};
  change.path = (char *)"a.b";
  change.field = (char *)"frozen";
  Espalier__V1__HistoryResponse__Transaction entries[2] = {ESPALIER__V1__HISTORY_RESPONSE__TRANSACTION__INIT,
                                                           ESPALIER__V1__HISTORY_RESPONSE__TRANSACTION__INIT};
  Espalier__V1__HistoryResponse__Transaction *list[] = {&entries[0], &entries[1]};
  entries[0].epoch = 4;
  entries[0].actor = (char *)"unix";
  entries[0].n_changes = 2;
  entries[0].changes = changes;
  entries[1].epoch = 5;
  entries[1].commit = 9;
  entries[1].at_ms = 77;
  entries[1].reason = (char *)"why";
  entries[1].n_changes = 1;
  entries[1].changes = changes;
  entries[1].changes_total = 3;
  Espalier__V1__HistoryResponse message = ESPALIER__V1__HISTORY_RESPONSE__INIT;
  message.n_transactions = 2;
  message.transactions = list;
  struct esp_buf first, second;
  pack(&first, &message.base);
  entries[1].n_changes = 2;
  message.n_transactions = 1;
  message.transactions = &list[1];
  pack(&second, &message.base);
  struct esp_span spans[2] = {{first.data, first.len}, {second.data, second.len}};
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  for (int64_t fail = 0; code != ESP_OK; fail++) {
    struct esp_history *history = NULL;
    assert_true(fail < 100);
    esp_alloc_fail_at(fail);
    code = esp_decode_history((struct esp_in){&spans[0], 1}, &history, NULL);
    if (code == ESP_OK)
      code = esp_decode_history((struct esp_in){&spans[1], 1}, &history, NULL);
    esp_alloc_fail_at(-1);
    if (code == ESP_OK) {
      const struct esp_transaction_info *a = &history->transactions[0], *b = &history->transactions[1];
      assert_int_equal(history->len, 2);
      assert_true(a->epoch == 4 && a->changes_len == 2 && b->epoch == 5 && b->commit == 9 && b->at_ms == 77);
      assert_string_equal(a->actor, "unix");
      assert_string_equal(b->reason, "why");
      assert_true(b->changes_len == 3 && b->changes_total == 3);
      assert_string_equal(b->changes[2].path, "a.b");
      assert_ptr_equal(a->changes + 2, b->changes);
    }
    esp_history_free(history);
  }
  esp_buf_done(&first);
  esp_buf_done(&second);
}

/* Two pages of one leaf each; every allocation fails in turn. */
static void explanation_pages(void **state) {
  (void)state;
  Espalier__V1__ExplainResponse__Fact facts[2] = {ESPALIER__V1__EXPLAIN_RESPONSE__FACT__INIT,
                                                  ESPALIER__V1__EXPLAIN_RESPONSE__FACT__INIT};
  Espalier__V1__ExplainResponse__Fact *fact_list[] = {&facts[0], &facts[1]};
  Espalier__V1__ExplainResponse__Leaf entry = ESPALIER__V1__EXPLAIN_RESPONSE__LEAF__INIT, *leaves[] = {&entry};
  Espalier__V1__ExplainResponse message = ESPALIER__V1__EXPLAIN_RESPONSE__INIT;
  facts[0].what = (char *)"frozen";
  facts[0].value = (char *)"yes";
  facts[0].because = (char *)"by ann";
  facts[0].epoch = 7;
  facts[1].what = (char *)"steps";
  entry.id = 3;
  entry.path = (char *)"a.b";
  entry.n_facts = 2;
  entry.facts = fact_list;
  message.n_leaves = 1;
  message.leaves = leaves;
  message.epoch = 9;
  message.commit = 10;
  message.lineage = 11;
  struct esp_buf first, second;
  pack(&first, &message.base);
  entry.id = 4;
  entry.n_facts = 1;
  facts[0].value = (char *)"no";
  facts[0].epoch = 8;
  pack(&second, &message.base);
  struct esp_span spans[2] = {{first.data, first.len}, {second.data, second.len}};
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  for (int64_t fail = 0; code != ESP_OK; fail++) {
    struct esp_explanation *explanation = NULL;
    assert_true(fail < 100);
    esp_alloc_fail_at(fail);
    code = esp_decode_explain((struct esp_in){&spans[0], 1}, &explanation, NULL);
    if (code == ESP_OK)
      code = esp_decode_explain((struct esp_in){&spans[1], 1}, &explanation, NULL);
    esp_alloc_fail_at(-1);
    if (code == ESP_OK) {
      const struct esp_leaf_explanation *a = &explanation->leaves[0], *b = &explanation->leaves[1];
      assert_int_equal(explanation->len, 2);
      assert_true(explanation->epoch == 9 && explanation->commit == 10 && explanation->lineage == 11);
      assert_true(a->leaf == 3 && a->facts_len == 2 && b->leaf == 4 && b->facts_len == 1);
      assert_string_equal(b->path, "a.b");
      assert_string_equal(a->facts[0].because, "by ann");
      assert_string_equal(a->facts[0].value, "yes");
      assert_int_equal(a->facts[0].epoch, 7);
      assert_string_equal(a->facts[1].what, "steps");
      assert_string_equal(b->facts[0].value, "no");
      assert_int_equal(b->facts[0].epoch, 8);
    }
    esp_explanation_free(explanation);
  }
  esp_buf_done(&first);
  esp_buf_done(&second);
}

static void explanations_are_asked_for(void **state) {
  (void)state;
  struct esp_buf buf = {0};
  assert_int_equal(esp_encode_explain(&buf, "a.b", NULL), ESP_OK);
  Espalier__V1__ExplainRequest *request = espalier__v1__explain_request__unpack(NULL, buf.len, buf.data);
  assert_string_equal(request->selection, "a.b");
  espalier__v1__explain_request__free_unpacked(request, NULL);
  esp_buf_done(&buf);
}

static void undo_and_history_are_asked_for(void **state) {
  (void)state;
  const struct esp_op op = {.kind = ESP_OP_UNDO, .epoch = 17};
  Espalier__V1__ApplyRequest *message = encode(&op, 1, NULL);
  assert_int_equal(only(message)->operation_case, CASE(UNDO));
  assert_int_equal(only(message)->undo->epoch, 17);
  done(message);
  struct esp_buf buf = {0};
  assert_int_equal(esp_encode_history(&buf, 3, 4, NULL), ESP_OK);
  Espalier__V1__HistoryRequest *request = espalier__v1__history_request__unpack(NULL, buf.len, buf.data);
  assert_true(request->since_epoch == 3 && request->limit == 4);
  espalier__v1__history_request__free_unpacked(request, NULL);
  esp_buf_done(&buf);
}

static void timed(void **state) {
  (void)state;
  const struct esp_op ops[] = {
      {.kind = ESP_OP_FREEZE, .selection = "a", .at_commit = 1, .until_commit = 2, .for_ms = 3},
      {.kind = ESP_OP_THAW, .selection = "b", .at_commit = 4},
      {.kind = ESP_OP_THAW, .selection = "c", .reset_state = true, .one_by_one = true, .every = 5},
      {.kind = ESP_OP_CANCEL_TIMER, .timer = 6},
  };
  Espalier__V1__ApplyRequest *message = encode(ops, 4, NULL);
  const Espalier__V1__Operation__Freeze *freeze = message->operations[0]->freeze;
  const Espalier__V1__Operation__Thaw *later = message->operations[1]->thaw, *gradual = message->operations[2]->thaw;
  assert_true(freeze->at_commit == 1 && freeze->until_commit == 2 && freeze->for_ms == 3);
  assert_string_equal(freeze->selection, "a");
  assert_true(later->at_commit == 4 && !later->one_by_one && later->every_commits == 0 && !later->reset_state);
  assert_string_equal(later->selection, "b");
  assert_true(gradual->at_commit == 0 && gradual->one_by_one && gradual->every_commits == 5 && gradual->reset_state);
  assert_int_equal(message->operations[3]->operation_case, CASE(CANCEL_TIMER));
  assert_int_equal(message->operations[3]->cancel_timer->timer, 6);
  done(message);
}

/* Two pages; every allocation fails in turn. */
static void timers_pages(void **state) {
  (void)state;
  Espalier__V1__TimersResponse__Timer freeze = ESPALIER__V1__TIMERS_RESPONSE__TIMER__INIT, thaw = freeze,
                                      *list[] = {&freeze, &thaw};
  freeze.id = 3;
  freeze.due = ESPALIER__V1__TIMERS_RESPONSE__TIMER__DUE__TIME;
  freeze.at = 4;
  freeze.left = 5;
  freeze.freezes = 1;
  freeze.until_commit = 6;
  freeze.for_ms = 7;
  freeze.selection = (char *)"enc | head";
  freeze.leaves = 8;
  freeze.epoch = 9;
  thaw.id = 10;
  thaw.due = ESPALIER__V1__TIMERS_RESPONSE__TIMER__DUE__PUSHES;
  thaw.reset_state = 1;
  Espalier__V1__TimersResponse message = ESPALIER__V1__TIMERS_RESPONSE__INIT;
  message.epoch = 11;
  message.commit = 12;
  message.lineage = 13;
  message.n_timers = 2;
  message.timers = list;
  struct esp_buf buf;
  pack(&buf, &message.base);
  struct esp_span span = {buf.data, buf.len};
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  int64_t fail = 0;
  for (; code != ESP_OK; fail++) {
    struct esp_timers *timers = NULL;
    esp_alloc_fail_at(fail);
    code = esp_decode_timers((struct esp_in){&span, 1}, &timers, NULL);
    if (code == ESP_OK)
      code = esp_decode_timers((struct esp_in){&span, 1}, &timers, NULL);
    esp_alloc_fail_at(-1);
    assert_true(code == ESP_OK || (code == ESP_RESOURCE_EXHAUSTED && fail < 100));
    if (code == ESP_OK) {
      assert_int_equal(timers->len, 4);
      assert_true(timers->epoch == 11 && timers->commit == 12 && timers->lineage == 13);
      const struct esp_timer_info *a = &timers->timers[2], *b = &timers->timers[3];
      assert_true(a->timer == 3 && a->wait == ESP_WAIT_TIME && a->at == 4 && a->left == 5 && a->freezes);
      assert_true(a->until_commit == 6 && a->for_ms == 7 && a->leaves == 8 && a->epoch == 9 && !a->reset_state);
      assert_string_equal(a->selection, "enc | head");
      assert_true(b->timer == 10 && b->wait == ESP_WAIT_PUSHES && !b->freezes && b->reset_state);
      assert_string_equal(b->selection, "");
    }
    esp_timers_free(timers);
  }
  assert_true(fail > 3);
  esp_buf_done(&buf);
}

static void options(void **state) {
  (void)state;
  const struct esp_op op = {.kind = ESP_OP_FREEZE, .selection = "a"};
  const struct esp_apply_options said = {.if_epoch = 3, .dry_run = true, .max_leaves = 4, .reason = "why"};
  Espalier__V1__ApplyRequest *message = encode(&op, 1, &said);
  assert_true(message->if_epoch == 3 && message->dry_run && message->max_leaves == 4);
  assert_string_equal(message->reason, "why");
  assert_string_equal(message->idempotency_key, "key");
  done(message);
}

static void no_memory(void **state) {
  (void)state;
  const struct esp_hyper hyper = {"lr", "1"};
  const struct esp_op ops[] = {{.kind = ESP_OP_ADJUST, .name = "a", .hypers = &hyper, .hypers_len = 1},
                               {.kind = ESP_OP_ADD, .leaf = &leaf}};
  const struct esp_apply_options defaults = {0};
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  int64_t n = 0;
  for (; code != ESP_OK; n++) {
    struct esp_buf buf = {0};
    esp_alloc_fail_at(n);
    code = esp_encode_apply(&buf, ops, 2, &defaults, "key", NULL);
    esp_alloc_fail_at(-1);
    assert_true(code == ESP_OK || code == ESP_RESOURCE_EXHAUSTED);
    esp_buf_done(&buf);
  }
  assert_int_equal(n, 6); /* four lists and the message */
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(selections),
                                     ESP_TEST(ties),
                                     ESP_TEST(names),
                                     ESP_TEST(hyperparameters),
                                     ESP_TEST(initializers),
                                     ESP_TEST(leaves_and_nodes),
                                     ESP_TEST(options),
                                     ESP_TEST(no_memory),
                                     ESP_TEST(timed),
                                     ESP_TEST(timers_pages),
                                     ESP_TEST(history_pages),
                                     ESP_TEST(explanation_pages),
                                     ESP_TEST(explanations_are_asked_for),
                                     ESP_TEST(undo_and_history_are_asked_for)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
