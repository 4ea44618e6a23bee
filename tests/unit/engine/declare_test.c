/* Declarations: joins, disagreements, first values, groups, and that a refusal adds nothing. */
#include <math.h>

#include "fixture.h"

static void test_join_and_disagreement(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  struct esp_engine_info info;
  fixture_open(&fixture);
  struct esp_declare_leaf leaves[3] = {vector_f64("b", 2), vector_f64("a", 2), vector_f64("c", 2)};
  assert_int_equal(declare(&fixture, leaves, 2, &outcome), ESP_OK);
  assert_int_equal(outcome.added, 2);
  uint64_t b = outcome.ids[0], a = outcome.ids[1], commit = outcome.commit;
  assert_int_equal(declare(&fixture, leaves, 2, &outcome), ESP_OK);
  assert_int_equal(outcome.added, 0);
  assert_int_equal(outcome.commit, commit); /* a join is no commit */
  assert_true(outcome.ids[0] == b && outcome.ids[1] == a);
  leaves[1].shape.dims[0] = 3;
  assert_int_equal(declare(&fixture, leaves, 3, &outcome), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(outcome.st.message, "[2]"));
  assert_non_null(strstr(outcome.st.message, "[3]"));
  esp_engine_info(fixture.engine, &info);
  assert_int_equal(info.leaves, 2);
  assert_int_equal(info.memory_params, 32);
  leaves[1] = vector_f64("a.below", 1);
  assert_int_equal(declare(&fixture, leaves, 2, &outcome), ESP_INVALID_ARGUMENT);
  leaves[0].dtype = ESP_DTYPE_BF16;
  assert_int_equal(declare(&fixture, leaves, 1, &outcome), ESP_UNIMPLEMENTED);
  leaves[0] = vector_f64("x", 0);
  assert_int_equal(declare(&fixture, leaves, 1, &outcome), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(outcome.st.message, "leaf x"));
  leaves[0] = vector_f64("x", UINT64_C(1) << 60);
  assert_int_equal(declare(&fixture, leaves, 1, &outcome), ESP_INVALID_ARGUMENT);
  leaves[0] = vector_f64("x", UINT64_C(1) << 58); /* a size that a shape may have */
  assert_int_equal(declare(&fixture, leaves, 1, &outcome), ESP_RESOURCE_EXHAUSTED);
  assert_non_null(strstr(outcome.st.message, "leaf x"));
  assert_non_null(strstr(outcome.st.message, "--max-tree 1073741824"));
  fixture_close(&fixture);
}

static void test_initialisers(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  struct esp_declare_leaf leaves[3] = {vector_f64("c", 100000), vector_f64("n1", 100000), vector_f64("n2", 100000)};
  leaves[0].init = (struct esp_init){.kind = ESP_INIT_CONSTANT, .a = 2.5};
  leaves[1].init = leaves[2].init = (struct esp_init){.kind = ESP_INIT_NORMAL, .a = 0, .b = 1, .seed = 3};
  assert_int_equal(declare(&fixture, leaves, 3, &outcome), ESP_OK);
  struct esp_pin c = pin_one(&fixture, outcome.ids[0]), n1 = pin_one(&fixture, outcome.ids[1]);
  struct esp_pin n2 = pin_one(&fixture, outcome.ids[2]);
  assert_true(((const double *)c.bytes)[0] == 2.5 && ((const double *)c.bytes)[99999] == 2.5);
  assert_memory_equal(n1.bytes, n2.bytes, n1.bytes_len); /* one seed, the same bits */
  assert_true(((const double *)n1.bytes)[0] != ((const double *)n1.bytes)[1]);
  esp_hold_unref(c.hold);
  esp_hold_unref(n1.hold);
  esp_hold_unref(n2.hold);
  leaves[0] = vector_f64("bad", 1);
  leaves[0].init = (struct esp_init){.kind = ESP_INIT_CONSTANT, .a = NAN};
  assert_int_equal(declare(&fixture, leaves, 1, &outcome), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(outcome.st.message, "leaf bad"));
  fixture_close(&fixture);
}

/* Declares one leaf whose value follows. */
static enum esp_code declare_value(struct fixture *fixture, const char *path, const double *value, size_t len,
                                   size_t sent, struct outcome *ret) {
  struct outcome ready;
  struct esp_declare *handle;
  struct esp_push_header header = {.leaf_count = 1, .total_bytes = len * 8};
  struct esp_declare_leaf leaf = vector_f64(path, len);
  leaf.init.kind = ESP_INIT_VALUE;
  outcome_init(&ready);
  outcome_init(ret);
  assert_int_equal(esp_declare_new(fixture->engine, &header, on_push, &ready, &handle, &ret->st), ESP_OK);
  assert_true(ready.ready);
  assert_int_equal(esp_declare_add_leaf(handle, &leaf, &ret->st), ESP_OK);
  struct esp_span span = {(const uint8_t *)value, sent * 8};
  struct esp_piece piece = {.path = "", .index = 0, .data = esp_cursor_init(&span, 1)};
  ret->code = esp_declare_feed(handle, &piece, &ret->st);
  if (ret->code != ESP_OK) {
    esp_declare_free(handle);
    return ret->code;
  }
  esp_declare_commit(handle, on_declare, ret);
  outcome_wait(ret);
  return ret->code;
}

static void test_values_that_follow(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  const double value[2] = {7, 8}, other[2] = {1, 1}, bad[2] = {1, INFINITY};
  assert_int_equal(declare_value(&fixture, "a", value, 2, 2, &outcome), ESP_OK);
  uint64_t a = outcome.ids[0];
  assert_true(first_of(&fixture, a) == 7);
  assert_int_equal(declare_value(&fixture, "a", other, 2, 2, &outcome), ESP_OK); /* a join: its value stays */
  assert_true(first_of(&fixture, a) == 7);
  assert_int_equal(declare_value(&fixture, "b", value, 2, 1, &outcome), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(outcome.st.message, "8 of the 16 bytes"));
  assert_int_equal(declare_value(&fixture, "b", bad, 2, 2, &outcome), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(outcome.st.message, "leaf b: element 1"));
  assert_int_equal(staged(&fixture), 0);
  fixture_close(&fixture);
}

static void test_groups_and_nodes(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome, ready;
  fixture_open_with(&fixture, 1, ESP_ISA_SSE2, "sgd(lr=0.5)", 1 << 20, ESP_NONFINITE_REJECT);
  struct esp_declare_leaf leaves[4] = {vector_f64("enc.a", 1), vector_f64("assigned.b", 1), vector_f64("enc.deep.c", 1),
                                       vector_f64("own", 1)};
  leaves[3].group = "nosuch";
  struct esp_declare_node node = {.path = "enc.deep", .path_len = 8, .tag = "", .group = "head", .frozen = true};
  struct esp_declare *handle;
  const struct esp_push_header header = {0};
  outcome_init(&ready);
  outcome_init(&outcome);
  assert_int_equal(esp_declare_new(fixture.engine, &header, on_push, &ready, &handle, NULL), ESP_OK);
  for (int i = 0; i < 4; i++)
    assert_int_equal(esp_declare_add_leaf(handle, &leaves[i], NULL), ESP_OK);
  assert_int_equal(esp_declare_add_node(handle, &node, NULL), ESP_OK);
  esp_declare_commit(handle, on_declare, &outcome);
  outcome_wait(&outcome);
  assert_int_equal(outcome.code, ESP_OK);
  assert_int_equal(outcome.notes_len, 1);
  assert_non_null(strstr(outcome.note, "group nosuch is not defined"));
  const uint64_t *ids = outcome.ids;
  struct outcome pushed;
  const double one = 1;
  const struct grad grads[4] = {{ids[0], &one, 8}, {ids[1], &one, 8}, {ids[2], &one, 8}, {ids[3], &one, 8}};
  assert_int_equal(push_many(&fixture, 0, 0, grads, 4, &pushed), ESP_OK);
  assert_int_equal(pushed.push.frozen, 1);
  assert_true(first_of(&fixture, ids[0]) == -0.5); /* default */
  assert_true(first_of(&fixture, ids[1]) == -1);   /* the server's assignment */
  assert_true(first_of(&fixture, ids[2]) == 0);    /* born frozen */
  assert_true(first_of(&fixture, ids[3]) == -0.5); /* falls back */
  struct outcome thawed;
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_THAW, "enc.deep", &thawed), ESP_OK);
  assert_int_equal(push_many(&fixture, 0, 0, &grads[2], 1, &pushed), ESP_OK);
  assert_true(first_of(&fixture, ids[2]) == -1); /* the node's group, nearer than enc's */
  fixture_close(&fixture);
}

static uint64_t epoch_of_node(struct fixture *fixture, const char *path, const char *group, const char *tag) {
  struct outcome ready, outcome;
  struct esp_declare *handle;
  const struct esp_push_header header = {0};
  const struct esp_declare_node node = {.path = path, .path_len = strlen(path), .tag = tag, .group = group};
  outcome_init(&ready);
  outcome_init(&outcome);
  assert_int_equal(esp_declare_new(fixture->engine, &header, on_push, &ready, &handle, NULL), ESP_OK);
  assert_int_equal(esp_declare_add_node(handle, &node, NULL), ESP_OK);
  esp_declare_commit(handle, on_declare, &outcome);
  outcome_wait(&outcome);
  assert_int_equal(outcome.code, ESP_OK);
  return outcome.epoch;
}

/* What one worker said of a node stands: another's settings of it are passed over. */
static void test_nodes_that_are_there(void **state) {
  (void)state;
  struct fixture fixture;
  fixture_open(&fixture);
  uint64_t epoch = epoch_of_node(&fixture, "enc", "", "Chain");
  assert_int_equal(epoch_of_node(&fixture, "enc", "default", "Dense"), epoch);
  assert_int_equal(epoch_of_node(&fixture, "dec", "default", ""), epoch + 1);
  assert_int_equal(epoch_of_node(&fixture, "dec", "", "Dense"), epoch + 1);
  assert_int_equal(epoch_of_node(&fixture, "de", "", "Dense"), epoch + 2);
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_join_and_disagreement), ESP_TEST(test_initialisers),         ESP_TEST(test_values_that_follow),
      ESP_TEST(test_groups_and_nodes),      ESP_TEST(test_nodes_that_are_there),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
