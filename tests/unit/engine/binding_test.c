/* Operations that bind leaves to other parameters or move values between them: tie, untie, copy, add, remove, rename.
 */
#include "fixture.h"

#define WIDE 70001 /* elements: more than one share */

static uint64_t declare_matrix(struct fixture *fixture, const char *path, uint64_t rows, uint64_t cols) {
  struct outcome outcome;
  struct esp_declare_leaf leaf = vector_f64(path, rows);
  leaf.shape = (struct esp_shape){.rank = 2, .dims = {rows, cols}};
  if (declare(fixture, &leaf, 1, &outcome) != ESP_OK)
    fail_msg("%s", outcome.st.message);
  return outcome.ids[0];
}

/* Gradients of n elements, each `value` + its index * `slope`. */
static double *gradient(size_t n, double value, double slope) {
  double *grad = malloc(n * sizeof(*grad));
  for (size_t i = 0; i < n; i++)
    grad[i] = value + (double)i * slope;
  return grad;
}

static void push_value(struct fixture *fixture, uint64_t leaf, size_t n, double value, double slope) {
  struct outcome outcome;
  double *grad = gradient(n, value, slope);
  if (push_one(fixture, leaf, grad, n * sizeof(*grad), &outcome) != ESP_OK)
    fail_msg("%s", outcome.st.message);
  free(grad);
}

static double element_of(struct fixture *fixture, uint64_t leaf, size_t index) {
  struct esp_pin pin = pin_one(fixture, leaf);
  double value = ((const double *)pin.bytes)[index];
  esp_hold_unref(pin.hold);
  return value;
}

static uint64_t steps_of(struct fixture *fixture, const char *path) {
  struct outcome outcome;
  assert_int_equal(digest(fixture, path, &outcome), ESP_OK);
  return outcome.stat.steps;
}

/* Two pushes, of different gradients, to the same effect: what is behind both leaves is the same. */
static void assert_same_future(struct fixture *fixture, uint64_t a, uint64_t b, size_t n) {
  push_value(fixture, a, n, 3, 0.5);
  push_value(fixture, b, n, 3, 0.5);
  assert_true(element_of(fixture, a, 0) == element_of(fixture, b, 0));
  assert_true(element_of(fixture, a, n - 1) == element_of(fixture, b, n - 1));
}

static void test_tie(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", WIDE), b = declare_vector(&fixture, "b", WIDE);
  push_value(&fixture, a, WIDE, -1, 0);
  push_value(&fixture, b, WIDE, -5, 0);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "a", .to = "b"}, &outcome);
  assert_int_equal(outcome.matched, 1);
  assert_non_null(strstr(outcome.text, "a parameter "));
  assert_true(element_of(&fixture, a, WIDE - 1) == 5);
  double *one = gradient(WIDE, 1, 0), *two = gradient(WIDE, 2, 0);
  const struct grad grads[2] = {{a, one, WIDE * sizeof(double)}, {b, two, WIDE * sizeof(double)}};
  assert_int_equal(push_many(&fixture, 0, 0, grads, 2, &outcome), ESP_OK);
  assert_int_equal(outcome.push.applied, 2);
  assert_true(element_of(&fixture, a, 7) == 2 && element_of(&fixture, b, WIDE - 1) == 2); /* one step, of the sum */
  assert_int_equal(steps_of(&fixture, "a"), 2);
  struct esp_operation again = {.kind = ESP_OPERATION_TIE, .selection = "a", .to = "b"};
  apply_ok(&fixture, again, &outcome);
  assert_int_equal(outcome.changes_len, 0);
  free(one);
  free(two);
  fixture_close(&fixture);
}

static void test_tie_mean(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t a = declare_matrix(&fixture, "a", 300, 401), b = declare_matrix(&fixture, "b", 401, 300);
  push_value(&fixture, a, 300 * 401, -1, -1);
  push_value(&fixture, b, 300 * 401, -5, 0);
  apply_ok(&fixture,
           (struct esp_operation){
               .kind = ESP_OPERATION_TIE, .selection = "a", .to = "b", .view = ESP_VIEW_TRANSPOSE, .mean = true},
           &outcome);
  assert_non_null(strstr(outcome.text, "b value ->mean with a"));
  assert_true(element_of(&fixture, a, 1) == (1 + 1 + 5) / 2.0);   /* row 0, column 1 */
  assert_true(element_of(&fixture, b, 300) == (1 + 1 + 5) / 2.0); /* row 1, column 0 */
  assert_true(element_of(&fixture, a, 401) == (1 + 401 + 5) / 2.0);
  fixture_close(&fixture);
}

/* Of several that go to one parameter the last one counts, also for what is tied to it; what is one tensor with its
 * target already is not overwritten. */
static void test_copy_to_tied(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "x.a", 3), b = declare_vector(&fixture, "x.b", 3);
  uint64_t c = declare_vector(&fixture, "y.a", 3);
  declare_vector(&fixture, "y.b", 3);
  declare_vector(&fixture, "z", 3);
  push_value(&fixture, a, 3, -1, 0);
  push_value(&fixture, b, 3, -2, 0);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "y.a", .to = "y.b"}, &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "z", .to = "y.b"}, &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_COPY, .selection = "x", .to = "y"}, &outcome);
  assert_string_equal(outcome.text, "y.a value ->copied from x.b\n"
                                    "y.b value ->copied from x.b\n"
                                    "z value ->copied from x.b\n");
  assert_true(element_of(&fixture, c, 0) == 2);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_COPY, .selection = "z", .to = "y.a"}, &outcome);
  assert_int_equal(outcome.changes_len, 0);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "y.a", .to = "y.b", .mean = true},
           &outcome);
  assert_int_equal(outcome.changes_len, 0);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "x.*", .to = "y.*", .mean = true},
           &outcome);
  assert_non_null(strstr(outcome.text, "z value ->mean with x.b\n"));
  assert_true(element_of(&fixture, a, 0) == 1.75); /* (2 + 1) / 2, with 2 of x.b */
  fixture_close(&fixture);
}

static void test_tie_transposed(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open_with(&fixture, 2, ESP_ISA_SSE2, "adam(lr=0.5)", 64 << 20, ESP_NONFINITE_REJECT);
  uint64_t emb = declare_matrix(&fixture, "emb", 4, 3), head = declare_matrix(&fixture, "head", 3, 4);
  uint64_t other = declare_matrix(&fixture, "other", 4, 3);
  struct esp_operation tie = {.kind = ESP_OPERATION_TIE, .selection = "head", .to = "emb", .view = ESP_VIEW_TRANSPOSE};
  apply_ok(&fixture, tie, &outcome);
  double sum[12];
  double *g = gradient(12, 1, 1), *h = gradient(12, -2, 3);
  for (size_t row = 0; row < 4; row++) {
    for (size_t col = 0; col < 3; col++)
      sum[row * 3 + col] = g[row * 3 + col] + h[col * 4 + row];
  }
  const struct grad grads[3] = {{emb, g, 96}, {head, h, 96}, {other, sum, 96}};
  assert_int_equal(push_many(&fixture, 0, 0, grads, 3, &outcome), ESP_OK);
  assert_int_equal(steps_of(&fixture, "emb"), 1);
  for (size_t i = 0; i < 12; i++) {
    assert_true(element_of(&fixture, emb, i) == element_of(&fixture, other, i));
    assert_true(element_of(&fixture, head, i % 3 * 4 + i / 3) == element_of(&fixture, other, i));
  }
  free(g);
  free(h);
  fixture_close(&fixture);
}

static void untie(bool reset_state) {
  struct fixture fixture;
  struct outcome outcome;
  fixture_open_with(&fixture, 2, ESP_ISA_SSE2, "sgd(lr=1, momentum=0.5)", 64 << 20, ESP_NONFINITE_REJECT);
  uint64_t a = declare_vector(&fixture, "a", WIDE), b = declare_vector(&fixture, "b", WIDE);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "a", .to = "b"}, &outcome);
  push_value(&fixture, a, WIDE, -2, -1);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_UNTIE, .selection = "a", .reset_state = reset_state},
           &outcome);
  assert_true(element_of(&fixture, a, WIDE - 1) == 2 + WIDE - 1);
  assert_int_equal(steps_of(&fixture, "a"), reset_state ? 0 : 1);
  assert_int_equal(steps_of(&fixture, "b"), 1);
  if (!reset_state) {
    assert_same_future(&fixture, a, b, WIDE);
  } else {
    push_value(&fixture, a, WIDE, 0, 0);
    push_value(&fixture, b, WIDE, 0, 0);
    assert_true(element_of(&fixture, a, 0) == 2 && element_of(&fixture, b, 0) == 3);
  }
  push_value(&fixture, a, WIDE, 1, 0); /* and they are two */
  assert_true(element_of(&fixture, a, 0) != element_of(&fixture, b, 0));
  fixture_close(&fixture);
}

static void test_untie(void **state) {
  (void)state;
  untie(false);
  untie(true);
}

static void test_untie_transposed(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open_with(&fixture, 2, ESP_ISA_SSE2, "sgd(lr=1, momentum=0.5)", 64 << 20, ESP_NONFINITE_REJECT);
  uint64_t a = declare_matrix(&fixture, "a", 2, 3), b = declare_matrix(&fixture, "b", 3, 2);
  struct esp_operation tie = {.kind = ESP_OPERATION_TIE, .selection = "a", .to = "b", .view = ESP_VIEW_TRANSPOSE};
  apply_ok(&fixture, tie, &outcome);
  push_value(&fixture, a, 6, 0, -1); /* a: 0 1 2 / 3 4 5 */
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_UNTIE, .selection = "a"}, &outcome);
  push_value(&fixture, a, 6, 0, 0); /* momentum goes on, each element its own */
  push_value(&fixture, b, 6, 0, 0);
  for (size_t i = 0; i < 6; i++) {
    assert_true(element_of(&fixture, a, i) == 1.5 * (double)i);
    assert_true(element_of(&fixture, b, i % 3 * 2 + i / 3) == 1.5 * (double)i);
  }
  fixture_close(&fixture);
}

/* Both ways in one transaction: what each had before it. */
static void test_copy(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "x.a", WIDE), b = declare_vector(&fixture, "y.a", WIDE);
  uint64_t c = declare_vector(&fixture, "z.a", WIDE);
  push_value(&fixture, a, WIDE, -1, 0);
  push_value(&fixture, b, WIDE, -2, 0);
  const struct esp_operation swap[3] = {{.kind = ESP_OPERATION_COPY, .selection = "x", .to = "z"},
                                        {.kind = ESP_OPERATION_COPY, .selection = "y", .to = "x"},
                                        {.kind = ESP_OPERATION_COPY, .selection = "z.*", .to = "y.*"}};
  if (apply_ops(&fixture, swap, 3, &outcome) != ESP_OK)
    fail_msg("%s", outcome.st.message);
  assert_string_equal(outcome.text, "z.a value ->copied from x.a\n"
                                    "x.a value ->copied from y.a\n"
                                    "y.a value ->copied from z.a\n");
  assert_true(element_of(&fixture, a, WIDE - 1) == 2 && element_of(&fixture, b, WIDE - 1) == 1);
  assert_true(element_of(&fixture, c, 0) == 1);
  assert_int_equal(steps_of(&fixture, "x"), 1); /* the state is the target's still */
  struct esp_engine_info info;
  esp_engine_info(fixture.engine, &info);
  assert_int_equal(info.memory_params, 3 * WIDE * sizeof(double)); /* what lay between is gone */
  fixture_close(&fixture);
}

/* From one view of a parameter to the other: its queue must not wait for itself. */
static void test_copy_to_itself(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t a = declare_matrix(&fixture, "a", 300, 300), b = declare_matrix(&fixture, "b", 300, 300);
  struct esp_operation tie = {.kind = ESP_OPERATION_TIE, .selection = "a", .to = "b", .view = ESP_VIEW_TRANSPOSE};
  apply_ok(&fixture, tie, &outcome);
  push_value(&fixture, b, 300 * 300, 0, -1);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_COPY, .selection = "a", .to = "b"}, &outcome);
  assert_true(element_of(&fixture, b, 1) == 300 && element_of(&fixture, a, 1) == 1);
  fixture_close(&fixture);
}

static void test_add_and_remove(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 1), b = declare_vector(&fixture, "b", 1);
  const double one = 1;
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_REMOVE, .selection = "a"}, &outcome);
  const struct grad grads[2] = {{a, &one, 8}, {b, &one, 8}};
  assert_int_equal(push_many(&fixture, 0, 0, grads, 2, &outcome), ESP_OK); /* from one who has not heard of it */
  assert_int_equal(outcome.push.removed, 1);
  assert_int_equal(outcome.push.applied, 1);
  const struct grad unknown = {b + 1, &one, 8};
  struct esp_push *push;
  assert_int_equal(push_arrive(&fixture, 0, 0, &unknown, 1, &outcome, &push), ESP_NOT_FOUND);
  struct esp_declare_leaf leaf = vector_f64("a", 1);
  assert_int_equal(declare(&fixture, &leaf, 1, &outcome), ESP_FAILED_PRECONDITION); /* it stays removed */
  leaf.init = (struct esp_init){.kind = ESP_INIT_CONSTANT, .a = 7};
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_ADD, .leaf = &leaf}, &outcome);
  assert_string_equal(outcome.text, "a leaf ->f64 [1]\n");
  assert_int_equal(declare(&fixture, &leaf, 1, &outcome), ESP_OK); /* joined */
  assert_int_equal(outcome.added, 0);
  assert_true(outcome.ids[0] != a);
  assert_true(first_of(&fixture, outcome.ids[0]) == 7);
  struct esp_operation add = {.kind = ESP_OPERATION_ADD, .leaf = &leaf};
  assert_int_equal(apply_ops(&fixture, &add, 1, &outcome), ESP_FAILED_PRECONDITION);
  leaf.path = "alias";
  leaf.path_len = 5;
  leaf.alias_of = "b";
  apply_ok(&fixture, add, &outcome);
  assert_int_equal(steps_of(&fixture, "alias"), 1);
  fixture_close(&fixture);
}

/* Additions in a row are one walk, and as if each were made by itself: lines in their order, and the first that can't
 * be made is told, wherever it stands and whatever it is. */
static void test_add_many(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  const char *const paths[] = {"z", "n.b", "n.a", "m", "a", "c", "b"};
  enum { LEN = sizeof(paths) / sizeof(*paths) };
  struct esp_declare_leaf leaves[LEN];
  struct esp_operation ops[LEN];
  fixture_open(&fixture);
  declare_vector(&fixture, "k", 1);
  for (size_t i = 0; i < LEN; i++) {
    leaves[i] = vector_f64(paths[i], 1);
    leaves[i].init = (struct esp_init){.kind = ESP_INIT_CONSTANT, .a = (double)i};
    ops[i] = (struct esp_operation){.kind = ESP_OPERATION_ADD, .leaf = &leaves[i]};
  }
  leaves[4].group = "head";
  leaves[5].alias_of = "k";
  const struct esp_declare_leaf kept = leaves[3], bad[] = {vector_f64("n.a", 1), vector_f64("k", 1),
                                                           vector_f64("z.below", 1), vector_f64("x", 0)};
  const enum esp_code codes[] = {ESP_FAILED_PRECONDITION, ESP_FAILED_PRECONDITION, ESP_INVALID_ARGUMENT,
                                 ESP_INVALID_ARGUMENT};
  for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
    leaves[3] = bad[i];
    assert_int_equal(apply_ops(&fixture, ops, LEN, &outcome), codes[i]);
    assert_non_null(strstr(outcome.st.message, "operation 4 of 7"));
  }
  leaves[3] = kept;
  assert_int_equal(apply_ops(&fixture, ops, LEN, &outcome), ESP_OK);
  const char *lines = "z leaf ->f64 [1]\nn.b leaf ->f64 [1]\nn.a leaf ->f64 [1]\nm leaf ->f64 [1]\n"
                      "a leaf ->f64 [1]\n";
  assert_memory_equal(outcome.text, lines, strlen(lines));
  assert_int_equal(outcome.matched, LEN);
  struct esp_layout *layout = esp_engine_layout(fixture.engine, NULL);
  for (size_t i = 0; i < LEN; i++) {
    const struct esp_leaf *leaf = esp_layout_leaf_by_path(layout, paths[i], strlen(paths[i]));
    assert_int_equal(leaf->id, i + 2);
    assert_true(first_of(&fixture, leaf->id) == (i == 5 ? 0 : (double)i));
    assert_string_equal(esp_layout_place(layout, leaf)->group_assigned, i == 4 ? "head" : "default");
  }
  esp_layout_unref(layout);
  fixture_close(&fixture);
}

/* A push that was on its way when its leaf went. */
static void test_remove_under_a_push(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome, pushed;
  struct esp_push *push;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 1), b = declare_vector(&fixture, "b", 1);
  const double one = 1;
  const struct grad grads[2] = {{a, &one, 8}, {b, &one, 8}};
  assert_int_equal(push_arrive(&fixture, 0, 0, grads, 2, &pushed, &push), ESP_OK);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_REMOVE, .selection = "a"}, &outcome);
  esp_push_commit(push);
  outcome_wait(&pushed);
  assert_int_equal(pushed.code, ESP_OK);
  assert_int_equal(pushed.push.removed, 1);
  assert_int_equal(pushed.push.applied, 1);
  esp_push_free(push);
  fixture_close(&fixture);
}

/* It lands by name, on what the leaf is bound to by now. */
static void test_tie_under_a_push(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome, pushed;
  struct esp_push *push;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 1), b = declare_vector(&fixture, "b", 1);
  const double one = 1;
  const struct grad grads[1] = {{a, &one, 8}};
  assert_int_equal(push_arrive(&fixture, 0, 0, grads, 1, &pushed, &push), ESP_OK);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "a", .to = "b"}, &outcome);
  esp_push_commit(push);
  outcome_wait(&pushed);
  assert_int_equal(pushed.code, ESP_OK);
  assert_true(first_of(&fixture, b) == -1);
  esp_push_free(push);
  fixture_close(&fixture);
}

static void test_rename(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "assigned.a", 1); /* in group head */
  const double one = 1;
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_RENAME, .selection = "assigned.a", .to = "z.q"},
           &outcome);
  assert_non_null(strstr(outcome.text, "z.q path assigned.a->z.q"));
  assert_int_equal(push_one(&fixture, a, &one, 8, &outcome), ESP_OK); /* the id is the leaf's */
  assert_int_equal(steps_of(&fixture, "z.q"), 1);
  struct esp_layout *layout = esp_engine_layout(fixture.engine, NULL);
  const struct esp_leaf *leaf = esp_layout_leaf_by_id(layout, a);
  assert_string_equal(esp_layout_group_of(layout, leaf)->name, "head");
  esp_layout_unref(layout);
  fixture_close(&fixture);
}

static void refuse(struct fixture *fixture, struct esp_operation op, enum esp_code code, const char *what) {
  struct outcome outcome;
  struct esp_layout *before = esp_engine_layout(fixture->engine, NULL);
  assert_int_equal(apply_ops(fixture, &op, 1, &outcome), code);
  if (strstr(outcome.st.message, what) == NULL)
    fail_msg("\"%s\" has no \"%s\"", outcome.st.message, what);
  struct esp_layout *after = esp_engine_layout(fixture->engine, NULL);
  assert_ptr_equal(before, after);
  esp_layout_unref(before);
  esp_layout_unref(after);
}

static void test_refusals(void **state) {
  (void)state;
  struct fixture fixture;
  fixture_open(&fixture);
  declare_vector(&fixture, "n.a", 1);
  declare_vector(&fixture, "n.b", 2);
  declare_matrix(&fixture, "m.a", 2, 3);
  declare_vector(&fixture, "m.c", 1);
  const enum esp_operation_kind tie = ESP_OPERATION_TIE;
  refuse(&fixture, (struct esp_operation){.kind = tie, .selection = "n.a", .to = "n.a"}, ESP_INVALID_ARGUMENT,
         "itself");
  refuse(&fixture, (struct esp_operation){.kind = tie, .selection = "n", .to = "n.a"}, ESP_INVALID_ARGUMENT, "below");
  refuse(&fixture, (struct esp_operation){.kind = tie, .selection = "n.a", .to = "n.b"}, ESP_INVALID_ARGUMENT, "n.b");
  refuse(&fixture, (struct esp_operation){.kind = tie, .selection = "n", .to = "m"}, ESP_NOT_FOUND, "m.b");
  refuse(&fixture, (struct esp_operation){.kind = tie, .selection = "n.*", .to = "m"}, ESP_INVALID_ARGUMENT,
         "wildcards");
  refuse(&fixture, (struct esp_operation){.kind = tie, .selection = "x.*", .to = "m.*"}, ESP_NOT_FOUND, "x.*");
  refuse(&fixture, (struct esp_operation){.kind = tie, .selection = "*.a", .to = "m.*"}, ESP_NOT_FOUND, "m.m");
  refuse(&fixture, (struct esp_operation){.kind = tie, .selection = "", .to = "m"}, ESP_INVALID_ARGUMENT, "no leaves");
  refuse(&fixture, (struct esp_operation){.kind = tie, .selection = "n", .to = ""}, ESP_INVALID_ARGUMENT, "where to");
  refuse(&fixture, (struct esp_operation){.kind = ESP_OPERATION_COPY, .selection = "n.a", .to = "n.b"},
         ESP_INVALID_ARGUMENT, "[2]");
  refuse(&fixture, (struct esp_operation){.kind = ESP_OPERATION_RENAME, .selection = "n.a", .to = "n.b"},
         ESP_INVALID_ARGUMENT, "n.b");
  refuse(&fixture, (struct esp_operation){.kind = ESP_OPERATION_ADD}, ESP_INVALID_ARGUMENT, "no leaf");
  refuse(&fixture, (struct esp_operation){.kind = (enum esp_operation_kind)99}, ESP_INVALID_ARGUMENT, "known");
  fixture_close(&fixture);
}

/* A declaration's aliases, also of one that comes later. */
static void test_born_tied(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  struct esp_declare_leaf leaves[3] = {vector_f64("a", 2), vector_f64("b", 2), vector_f64("c", 2)};
  leaves[0].alias_of = "b";
  leaves[1].alias_of = "c";
  leaves[1].detached = true;
  leaves[2].init = (struct esp_init){.kind = ESP_INIT_CONSTANT, .a = 3};
  assert_int_equal(declare(&fixture, leaves, 3, &outcome), ESP_OK);
  assert_int_equal(outcome.added, 3);
  assert_true(first_of(&fixture, outcome.ids[0]) == 3);
  const double grad[2] = {1, 1};
  uint64_t a = outcome.ids[0], b = outcome.ids[1], c = outcome.ids[2];
  const struct grad grads[3] = {{a, grad, 16}, {b, grad, 16}, {c, grad, 16}};
  assert_int_equal(push_many(&fixture, 0, 0, grads, 3, &outcome), ESP_OK);
  assert_int_equal(outcome.push.detached, 1);
  assert_true(first_of(&fixture, b) == 1); /* two gradients, one step */
  struct esp_engine_info info;
  esp_engine_info(fixture.engine, &info);
  assert_int_equal(info.params, 1);
  leaves[0] = vector_f64("d", 2);
  leaves[0].alias_of = "b";
  leaves[0].frozen = true;
  assert_int_equal(declare(&fixture, leaves, 1, &outcome), ESP_OK);
  esp_engine_info(fixture.engine, &info);
  assert_int_equal(info.frozen, 4); /* it, and all that it is tied to */
  leaves[0] = vector_f64("x", 2);
  leaves[1] = vector_f64("y", 2);
  leaves[0].alias_of = "y";
  leaves[1].alias_of = "x";
  assert_int_equal(declare(&fixture, leaves, 2, &outcome), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(outcome.st.message, "leaf x is an alias of y, which leads back"));
  leaves[0].alias_of = "nosuch";
  assert_int_equal(declare(&fixture, leaves, 1, &outcome), ESP_NOT_FOUND);
  leaves[0].alias_of = "a";
  leaves[0].shape.dims[0] = 3;
  assert_int_equal(declare(&fixture, leaves, 1, &outcome), ESP_INVALID_ARGUMENT);
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_tie),
      ESP_TEST(test_tie_mean),
      ESP_TEST(test_tie_transposed),
      ESP_TEST(test_untie),
      ESP_TEST(test_untie_transposed),
      ESP_TEST(test_copy),
      ESP_TEST(test_copy_to_tied),
      ESP_TEST(test_copy_to_itself),
      ESP_TEST(test_add_and_remove),
      ESP_TEST(test_add_many),
      ESP_TEST(test_remove_under_a_push),
      ESP_TEST(test_tie_under_a_push),
      ESP_TEST(test_rename),
      ESP_TEST(test_refusals),
      ESP_TEST(test_born_tied),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
