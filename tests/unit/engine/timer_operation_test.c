/* What is asked of timers: what is refused, what a dry run says, undoing. */
#include "timer_fixture.h"

static void refusals(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t leaf = declare_vector(&fixture, "x", 2);
  for (int i = 0; i < 5; i++)
    push_ok(&fixture, leaf);
  const struct {
    struct esp_operation op;
    enum esp_code code;
    const char *words;
  } cases[] = {
      {{.kind = ESP_OPERATION_FREEZE, .for_ms = 1, .until_commit = 99},
       ESP_INVALID_ARGUMENT,
       "one of them can be given"},
      {{.kind = ESP_OPERATION_FREEZE, .at_commit = 99, .until_commit = 99},
       ESP_INVALID_ARGUMENT,
       "a freeze at commit 99 can't end at commit 99, which is not after it"},
      {{.kind = ESP_OPERATION_FREEZE, .every = 3}, ESP_INVALID_ARGUMENT, "only a thaw goes one by one"},
      {{.kind = ESP_OPERATION_FREEZE, .one_by_one = true}, ESP_INVALID_ARGUMENT, "only a thaw goes one by one"},
      {{.kind = ESP_OPERATION_THAW, .until_commit = 99}, ESP_INVALID_ARGUMENT, "only a freeze is until"},
      {{.kind = ESP_OPERATION_THAW, .for_ms = 99}, ESP_INVALID_ARGUMENT, "only a freeze is until"},
      {{.kind = ESP_OPERATION_THAW, .every = 3}, ESP_INVALID_ARGUMENT, "for what is thawed one by one"},
      {{.kind = ESP_OPERATION_THAW, .one_by_one = true}, ESP_INVALID_ARGUMENT, "one by one needs a number"},
      {{.kind = ESP_OPERATION_THAW, .one_by_one = true, .every = 3, .at_commit = 99},
       ESP_INVALID_ARGUMENT,
       "begins now, and not at a commit"},
      {{.kind = ESP_OPERATION_THAW, .one_by_one = true, .every = UINT64_MAX - 4},
       ESP_INVALID_ARGUMENT,
       "is more than can be counted"},
      {{.kind = ESP_OPERATION_THAW, .selection = "frozen", .one_by_one = true, .every = 1},
       ESP_INVALID_ARGUMENT,
       "one by one go the nodes"},
      {{.kind = ESP_OPERATION_FREEZE, .for_ms = UINT64_MAX}, ESP_INVALID_ARGUMENT, "later than any time"},
      {{.kind = ESP_OPERATION_FREEZE, .at_commit = 99, .for_ms = UINT64_MAX}, ESP_INVALID_ARGUMENT, "later than any"},
      {{.kind = ESP_OPERATION_FREEZE, .at_commit = 6},
       ESP_FAILED_PRECONDITION,
       "commit 6 has been: the tree is at commit 6"},
      {{.kind = ESP_OPERATION_FREEZE, .until_commit = 2}, ESP_FAILED_PRECONDITION, "commit 2 has been"},
      {{.kind = ESP_OPERATION_THAW, .at_commit = 1}, ESP_FAILED_PRECONDITION, "commit 1 has been"},
      {{.kind = ESP_OPERATION_CANCEL_TIMER}, ESP_INVALID_ARGUMENT, "it names no timer"},
      {{.kind = ESP_OPERATION_CANCEL_TIMER, .timer = 4}, ESP_NOT_FOUND, "no timer 4 waits; none does"},
  };
  uint64_t epoch = info_of(&fixture).epoch;
  assert_int_equal(info_of(&fixture).commit, 6);
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    struct esp_operation op = cases[i].op;
    op.selection = op.selection == NULL ? "x" : op.selection;
    enum esp_code code = apply_ops(&fixture, &op, 1, &outcome);
    assert_int_equal(code, cases[i].code);
    if (strstr(outcome.st.message, cases[i].words) == NULL)
      fail_msg("\"%s\" is not in \"%s\"", cases[i].words, outcome.st.message);
  }
  assert_int_equal(info_of(&fixture).epoch, epoch);
  assert_int_equal(info_of(&fixture).commit, 6);
  fixture_close(&fixture);
}

/* What the dry run says is what the real call does. */
static void a_dry_run_says_the_same(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome dry, real;
  fixture_open(&fixture);
  declare_vector(&fixture, "x.0", 2);
  declare_vector(&fixture, "x.1", 2);
  declare_vector(&fixture, "x.2", 2);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "x.1", .to = "x.2"}, &real);
  const struct esp_operation ops[] = {
      {.kind = ESP_OPERATION_FREEZE, .selection = "x", .for_ms = 5000},
      {.kind = ESP_OPERATION_FREEZE, .selection = "x.0", .until_commit = 1000},
      {.kind = ESP_OPERATION_FREEZE, .selection = "x.1", .at_commit = 500, .until_commit = 900},
      {.kind = ESP_OPERATION_UNTIE, .selection = "x.1"},
      {.kind = ESP_OPERATION_THAW, .selection = "x.0 | x.1", .at_commit = 77, .reset_state = true},
      {.kind = ESP_OPERATION_THAW, .selection = "x.[2-0]", .one_by_one = true, .every = 7, .reset_state = true},
      {.kind = ESP_OPERATION_CANCEL_TIMER, .timer = 5},
      {.kind = ESP_OPERATION_UNDO},
      {.kind = ESP_OPERATION_REMOVE, .selection = "x.1"},
  };
  for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++) {
    struct esp_apply_request request = {
        .operations = &ops[i], .operations_len = 1, .idempotency_key = "", .dry_run = true};
    uint64_t epoch = info_of(&fixture).epoch;
    assert_int_equal(apply_request(&fixture, &request, &dry), ESP_OK);
    assert_int_equal(info_of(&fixture).epoch, epoch);
    esp_env_virtual_advance(fixture.twin, 13);
    apply_ok(&fixture, ops[i], &real);
    assert_string_equal(dry.text, real.text);
    assert_true(strstr(real.text, "timer") != NULL || ops[i].kind == ESP_OPERATION_UNTIE);
  }
  fixture_close(&fixture);
}

/* ---- undoing ---- */

static void undo_ok_of(struct fixture *fixture, uint64_t epoch, struct outcome *ret) {
  apply_ok(fixture, (struct esp_operation){.kind = ESP_OPERATION_UNDO, .epoch = epoch}, ret);
}

static void undo_ok(struct fixture *fixture, struct outcome *ret) {
  undo_ok_of(fixture, 0, ret);
}

static void undoing(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t leaf = declare_vector(&fixture, "x", 2);
  declare_vector(&fixture, "y", 2);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x", .until_commit = 100},
           &outcome);
  undo_ok(&fixture, &outcome);
  assert_string_equal(outcome.text, "x frozen true->false\nx timer thaw at commit 100 (timer 1)->\n");

  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x", .until_commit = 12},
           &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_THAW, .selection = "x"}, &outcome);
  undo_ok(&fixture, &outcome);
  assert_string_equal(outcome.text, "x frozen false->true\nx timer ->thaw at commit 12 (timer 2)\n");
  assert_int_equal(outcome.notes_len, 0);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "x", .to = "y"}, &outcome);
  assert_int_equal(timers_len(&fixture), 0);
  undo_ok(&fixture, &outcome);
  assert_non_null(strstr(outcome.text, "x timer ->thaw at commit 12 (timer 2)\n"));
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_CANCEL_TIMER, .timer = 2}, &outcome);
  assert_string_equal(outcome.text, "x timer thaw at commit 12 (timer 2)->\n");
  undo_ok(&fixture, &outcome);
  assert_string_equal(outcome.text, "x timer ->thaw at commit 12 (timer 2)\n");
  assert_int_equal(outcome.commit, 11);
  wait_epoch(&fixture, outcome.epoch + 1);
  assert_int_equal(info_of(&fixture).commit, 12);
  assert_false(is_frozen(&fixture, "x"));

  undo_ok(&fixture, &outcome); /* the timer's own */
  assert_string_equal(outcome.text, "x frozen false->true\n");
  assert_int_equal(outcome.notes_len, 1);
  assert_string_equal(outcome.note, "thaw at commit 12 (timer 2) is not set again: what it waited for has been");

  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x", .until_commit = 17},
           &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_CANCEL_TIMER, .timer = 3}, &outcome);
  push_ok(&fixture, leaf);
  push_ok(&fixture, leaf);
  assert_int_equal(info_of(&fixture).commit, 17);
  undo_ok(&fixture, &outcome); /* too late */
  assert_int_equal(outcome.changes_len, 0);
  assert_string_equal(outcome.note, "thaw at commit 17 (timer 3) is not set again: what it waited for has been");
  fixture_close(&fixture);
}

/* A timer of two parameters, one of which is frozen otherwise: given back, it is the same timer. */
static void undoing_joins_a_timer_that_waits(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  declare_vector(&fixture, "x.a", 2);
  declare_vector(&fixture, "x.b", 2);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x", .for_ms = 50}, &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x.a", .for_ms = 70}, &outcome);
  assert_int_equal(timers_len(&fixture), 2);
  undo_ok(&fixture, &outcome);
  assert_string_equal(outcome.text, "x.a timer thaw after 70 ms (timer 2)->thaw after 50 ms (timer 1)\n");
  assert_int_equal(timers_len(&fixture), 1);
  esp_env_virtual_advance(fixture.twin, 50);
  esp_engine_tick(fixture.engine);
  wait_epoch(&fixture, outcome.epoch + 1);
  assert_true(!is_frozen(&fixture, "x.a") && !is_frozen(&fixture, "x.b"));
  fixture_close(&fixture);
}

/* Whether the leaf is frozen by a freeze that ends. */
static bool ends(struct fixture *fixture, const char *path) {
  struct esp_layout *layout = esp_engine_layout(fixture->engine, NULL);
  const struct esp_place *place = esp_layout_place(layout, esp_layout_leaf_by_path(layout, path, strlen(path)));
  const struct esp_timer *timer = esp_layout_timer(layout, place->timer);
  bool does = place->frozen && timer != NULL && !timer->frozen;
  esp_layout_unref(layout);
  return does;
}

/* A freeze for a time, and in the same transaction an undo that freezes the same leaf: it ends all the same, be it that
 * what it waited for before has been. */
static void undoing_after_a_timed_freeze(void **state) {
  (void)state;
  for (int waited = 0; waited < 3; waited++) {
    struct fixture fixture;
    struct outcome thawed, outcome;
    fixture_open(&fixture);
    declare_vector(&fixture, "x", 2);
    declare_vector(&fixture, "y", 2);
    uint64_t until = waited == 0 ? 0 : waited == 1 ? 100 : info_of(&fixture).commit + 3;
    apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x", .until_commit = until},
             &outcome);
    apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_THAW, .selection = "x"}, &thawed);
    apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_DETACH, .selection = "y"}, &outcome);
    const struct esp_operation ops[] = {{.kind = ESP_OPERATION_FREEZE, .selection = "x", .for_ms = 50},
                                        {.kind = ESP_OPERATION_UNDO, .epoch = thawed.epoch}};
    assert_int_equal(apply_ops(&fixture, ops, 2, &outcome), ESP_OK);
    assert_true(ends(&fixture, "x"));
    assert_int_equal(outcome.notes_len, waited == 2);
    esp_env_virtual_advance(fixture.twin, 50);
    esp_engine_tick(fixture.engine);
    if (waited != 1)
      wait_epoch(&fixture, outcome.epoch + 1);
    assert_int_equal(is_frozen(&fixture, "x"), waited == 1); /* until commit 100, as before */
    fixture_close(&fixture);
  }
}

/* A freeze that was made to end later is undone when its first end has been: it ends at the later one. */
static void undoing_a_later_end(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  fixture_open(&fixture);
  uint64_t leaf = declare_vector(&fixture, "x", 2);
  uint64_t commit = info_of(&fixture).commit;
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x", .until_commit = commit + 4},
           &outcome);
  const struct esp_operation ops[] = {
      {.kind = ESP_OPERATION_THAW, .selection = "x"},
      {.kind = ESP_OPERATION_FREEZE, .selection = "x", .until_commit = commit + 9},
      {.kind = ESP_OPERATION_RENAME, .selection = "x", .to = "z"},
  };
  assert_int_equal(apply_ops(&fixture, ops, 3, &outcome), ESP_OK);
  push_ok(&fixture, leaf);
  push_ok(&fixture, leaf);
  undo_ok(&fixture, &outcome);
  assert_true(ends(&fixture, "x"));
  assert_int_equal(outcome.notes_len, 1);
  for (int i = 0; i < 3; i++)
    push_ok(&fixture, leaf);
  wait_epoch(&fixture, outcome.epoch + 1);
  assert_false(is_frozen(&fixture, "x"));
  fixture_close(&fixture);
}

/* A leaf that is tied back to its parameter takes nothing back of what became of that meanwhile. */
static void undoing_a_tie_leaves_the_freeze(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome tied, outcome;
  fixture_open(&fixture);
  declare_vector(&fixture, "x", 2);
  declare_vector(&fixture, "y", 2);
  declare_vector(&fixture, "z", 2);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "y", .to = "x"}, &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x", .for_ms = 50}, &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "y", .to = "z"}, &tied);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "x", .for_ms = 90}, &outcome);
  undo_ok_of(&fixture, tied.epoch, &outcome);
  assert_true(ends(&fixture, "x") && ends(&fixture, "y"));
  esp_env_virtual_advance(fixture.twin, 50);
  esp_engine_tick(fixture.engine);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_DETACH, .selection = "z"}, &outcome);
  assert_true(is_frozen(&fixture, "y"));
  esp_env_virtual_advance(fixture.twin, 40);
  esp_engine_tick(fixture.engine);
  wait_epoch(&fixture, outcome.epoch + 1);
  assert_false(is_frozen(&fixture, "y"));
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(refusals),
      ESP_TEST(a_dry_run_says_the_same),
      ESP_TEST(undoing),
      ESP_TEST(undoing_joins_a_timer_that_waits),
      ESP_TEST(undoing_after_a_timed_freeze),
      ESP_TEST(undoing_a_later_end),
      ESP_TEST(undoing_a_tie_leaves_the_freeze),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
