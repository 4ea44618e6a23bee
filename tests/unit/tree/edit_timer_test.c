/* Tests of server/tree/edit_timer.c: what the diff says of timers, whose they are after ties and removals, that they go
 * and come back, the bound, every allocation failing. */
#include <stdio.h>

#include "fixture.h"

static struct esp_layout *tree(void) {
  const char *const paths[] = {"a.w", "b.w", "c.w", "d.w"};
  return tree_of(paths, LEN_OF(paths));
}

static enum esp_code set_timer(struct esp_edit *edit, const char *text, const struct esp_timer *timer,
                               struct esp_status *st) {
  struct esp_selection sel = pick(esp_edit_view(edit), text);
  enum esp_code code = esp_edit_timer(edit, &sel, timer, st);
  esp_selection_done(&sel);
  return code;
}

static void timer_ok(struct esp_edit *edit, const char *text, const struct esp_timer *timer) {
  struct esp_status st;
  expect_ok(set_timer(edit, text, timer, &st), &st);
  expect_sound(esp_edit_view(edit));
}

static struct esp_timer thaw_at(uint64_t commit) {
  return (struct esp_timer){.due = ESP_TIMER_COMMIT, .at = commit, .selection = "some"};
}

static void texts_say_what_and_when(void **state) {
  (void)state;
  char text[ESP_TIMER_TEXT_MAX];
  struct esp_timer timer = {.id = 3, .due = ESP_TIMER_COMMIT, .at = 500, .after = 9};
  assert_string_equal(esp_timer_print(&timer, text), "thaw at commit 500 (timer 3)");
  timer.reset_state = true;
  assert_string_equal(esp_timer_print(&timer, text), "thaw and reset state at commit 500 (timer 3)");
  timer = (struct esp_timer){.id = 4, .due = ESP_TIMER_PUSHES, .at = 1234, .after = 500};
  assert_string_equal(esp_timer_print(&timer, text), "thaw after 500 pushes (timer 4)");
  timer = (struct esp_timer){.id = 3, .due = ESP_TIMER_TIME, .at = 1700000000000, .after = 600000};
  assert_string_equal(esp_timer_print(&timer, text), "thaw after 600000 ms (timer 3)");
  timer = (struct esp_timer){.id = 5, .due = ESP_TIMER_COMMIT, .at = 100, .frozen = true, .until_commit = 200};
  assert_string_equal(esp_timer_print(&timer, text), "freeze at commit 100 until commit 200 (timer 5)");
  timer = (struct esp_timer){.id = 5, .due = ESP_TIMER_COMMIT, .at = 100, .frozen = true, .for_ms = 5000};
  assert_string_equal(esp_timer_print(&timer, text), "freeze at commit 100 for 5000 ms (timer 5)");
  timer = (struct esp_timer){.id = UINT64_MAX, .due = ESP_TIMER_COMMIT, .at = UINT64_MAX, .until_commit = UINT64_MAX};
  timer.reset_state = true;
  assert_true(strlen(esp_timer_print(&timer, text)) < ESP_TIMER_TEXT_MAX - 1);
}

static void a_timer_is_set_and_shared_by_what_is_tied(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_edit *edit = esp_edit_new(layout);
  tie_ok(edit, "c.w", "a.w", ESP_VIEW_IDENTITY);
  finish(edit, &layout);
  uint64_t epoch = layout->epoch;
  uint64_t changed_epoch = layout->leaves[index_of(layout, "b.w")].changed_epoch;
  edit = esp_edit_new(layout);
  struct esp_timer timer = thaw_at(500);
  timer_ok(edit, "a b", &timer);
  struct esp_diff diff = finish_ok(edit, &layout);
  expect_sound(layout);
  assert_int_equal(diff.len, 3);
  expect_change(&diff.changes[0], "a.w", "timer", "", "thaw at commit 500 (timer 1)", "");
  expect_change(&diff.changes[1], "b.w", "timer", "", "thaw at commit 500 (timer 1)", "");
  expect_change(&diff.changes[2], "c.w", "timer", "", "thaw at commit 500 (timer 1)", "a.w");
  assert_int_equal(diff.timers_len, 0);
  esp_diff_done(&diff);
  assert_int_equal(layout->epoch, epoch + 1);
  assert_int_equal(layout->timers_len, 1);
  assert_int_equal(layout->timers[0].epoch, layout->epoch);
  assert_int_equal(layout->timers[0].params_len, 2);
  assert_string_equal(layout->timers[0].selection, "some");
  assert_int_equal(layout->timers_due[ESP_TIMER_COMMIT], 500);
  assert_int_equal(place_of(layout, "c.w")->timer, 1);
  assert_int_equal(place_of(layout, "d.w")->timer, 0);
  assert_int_equal(layout->leaves[index_of(layout, "b.w")].changed_epoch,
                   changed_epoch); /* no leaf is other than it was */
  tree_drop(layout);
}

static void another_timer_a_freeze_and_a_cancel_take_it_away(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_edit *edit = esp_edit_new(layout);
  struct esp_timer timer = thaw_at(500);
  timer_ok(edit, "a b c", &timer);
  finish(edit, &layout);
  edit = esp_edit_new(layout);
  timer = (struct esp_timer){.due = ESP_TIMER_PUSHES, .at = 30, .after = 20, .selection = ""};
  timer_ok(edit, "a", &timer);
  freeze_ok(edit, "b d", false); /* which they are already */
  struct esp_status st;
  struct esp_selection sel = pick(esp_edit_view(edit), "d");
  timer = (struct esp_timer){.due = ESP_TIMER_TIME, .at = 77, .after = 7, .selection = ""};
  expect_ok(esp_edit_freeze_timed(edit, &sel, true, &timer, &st), &st);
  esp_selection_done(&sel);
  expect_ok(esp_edit_cancel_timer(edit, 1, &st), &st);
  struct esp_diff diff = finish_ok(edit, &layout);
  expect_sound(layout);
  assert_int_equal(diff.len, 5);
  expect_change(&diff.changes[0], "a.w", "timer", "thaw at commit 500 (timer 1)", "thaw after 20 pushes (timer 2)", "");
  expect_change(&diff.changes[1], "b.w", "timer", "thaw at commit 500 (timer 1)", "", "");
  expect_change(&diff.changes[2], "d.w", "frozen", "false", "true", "");
  expect_change(&diff.changes[3], "d.w", "timer", "", "thaw after 7 ms (timer 3)", "");
  expect_change(&diff.changes[4], "c.w", "timer", "thaw at commit 500 (timer 1)", "", "");
  assert_int_equal(diff.timers_len, 1);
  assert_int_equal(diff.timers[0].id, 1);
  assert_int_equal(diff.timers[0].at, 500);
  assert_string_equal(diff.timers[0].selection, "some");
  assert_int_equal(layout->timers_len, 2);
  assert_int_equal(layout->timers_due[ESP_TIMER_COMMIT], UINT64_MAX);
  assert_int_equal(layout->timers_due[ESP_TIMER_PUSHES], 30);
  assert_int_equal(layout->timers_due[ESP_TIMER_TIME], 77);

  edit = esp_edit_new(layout); /* it comes back as it was; one that waits is joined */
  timer_ok(edit, "b", &diff.timers[0]);
  timer_ok(edit, "c", &(struct esp_timer){.id = 1, .due = ESP_TIMER_TIME, .selection = "other"});
  timer_ok(edit, "a", &(struct esp_timer){.id = 2, .due = ESP_TIMER_TIME, .selection = "other"}); /* it has it */
  esp_diff_done(&diff);
  finish(edit, &layout);
  assert_int_equal(layout->timers_len, 3);
  assert_int_equal(layout->timers[0].params_len, 2);
  assert_int_equal(layout->timers[0].at, 500);
  assert_int_equal(layout->timers[0].epoch, 3);
  assert_string_equal(layout->timers[0].selection, "some");
  assert_int_equal(layout->timers[1].due, ESP_TIMER_PUSHES);
  assert_int_equal(layout->timer_id_next, 4);
  tree_drop(layout);
}

static void ties_and_removals(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_edit *edit = esp_edit_new(layout);
  struct esp_timer timer = thaw_at(5);
  timer_ok(edit, "a", &timer);
  timer = thaw_at(6);
  timer_ok(edit, "b", &timer);
  finish(edit, &layout);
  edit = esp_edit_new(layout);
  tie_ok(edit, "a.w", "b.w", ESP_VIEW_IDENTITY);
  tie_ok(edit, "c.w", "b.w", ESP_VIEW_IDENTITY);
  struct esp_diff diff = finish_ok(edit, &layout);
  expect_sound(layout);
  assert_int_equal(diff.len, 4);
  expect_change(&diff.changes[1], "a.w", "timer", "thaw at commit 5 (timer 1)", "thaw at commit 6 (timer 2)", "b.w");
  expect_change(&diff.changes[3], "c.w", "timer", "", "thaw at commit 6 (timer 2)", "b.w");
  assert_int_equal(diff.timers[0].id, 1);
  esp_diff_done(&diff);
  assert_null(esp_layout_timer(layout, 1)); /* nobody had it any more */
  edit = esp_edit_new(layout);
  untie_ok(edit, "c");
  diff = finish_ok(edit, &layout);
  expect_sound(layout);
  assert_int_equal(diff.len, 1);
  esp_diff_done(&diff);
  assert_int_equal(esp_layout_timer(layout, 2)->params_len, 2);
  assert_ptr_not_equal(place_of(layout, "c.w"), place_of(layout, "b.w"));
  assert_int_equal(place_of(layout, "c.w")->timer, 2);
  edit = esp_edit_new(layout);
  rename_ok(edit, "c", "e");
  remove_ok(edit, "a b");
  diff = finish_ok(edit, &layout);
  expect_sound(layout);
  assert_int_equal(esp_layout_timer(layout, 2)->params_len, 1);
  size_t lines = 0;
  for (size_t i = 0; i < diff.len; i++) {
    if (strcmp(diff.changes[i].field, "timer") == 0) {
      expect_change(&diff.changes[i], lines++ == 0 ? "a.w" : "b.w", "timer", "thaw at commit 6 (timer 2)", "", "");
    }
  }
  assert_int_equal(lines, 2);
  esp_diff_done(&diff);
  edit = esp_edit_new(layout);
  remove_ok(edit, "e");
  finish(edit, &layout);
  assert_int_equal(layout->timers_len, 0);
  tree_drop(layout);
}

static void refusals(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_status st;
  struct esp_edit *edit = esp_edit_new(layout);
  expect_fail(esp_edit_cancel_timer(edit, 7, &st), &st, ESP_NOT_FOUND, "no timer 7 waits; none does");
  esp_edit_free(edit);
  edit = esp_edit_new(layout);
  struct esp_timer timer = thaw_at(5);
  timer_ok(edit, "a", &timer);
  timer_ok(edit, "b", &timer);
  finish(edit, &layout);
  edit = esp_edit_new(layout);
  expect_fail(esp_edit_cancel_timer(edit, 7, &st), &st, ESP_NOT_FOUND, "no timer 7 waits; those that do: 1, 2");
  struct esp_layout *next;
  struct esp_diff diff;
  assert_int_equal(esp_edit_finish(edit, &next, &diff, &st), ESP_NOT_FOUND);
  edit = esp_edit_new(layout); /* nothing changes */
  timer_ok(edit, "c", NULL);
  timer_ok(edit, "nothing", &timer);
  diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 0);
  tree_drop(layout);
}

static void no_more_than_the_most(void **state) {
  (void)state;
  enum { MOST = ESP_TIMERS_MAX };
  struct esp_layout *layout = tree_empty();
  struct esp_leaf_new *leaves = calloc(MOST + 1, sizeof *leaves);
  char(*names)[16] = calloc(MOST + 1, sizeof *names);
  for (size_t i = 0; i <= MOST; i++) {
    snprintf(names[i], sizeof names[i], "a.%d", (int)i);
    leaves[i] = leaf_of(names[i]);
  }
  struct esp_edit *edit = esp_edit_new(layout);
  edit_add_ok(edit, leaves, MOST + 1);
  struct esp_diff diff = finish_ok(edit, &layout);
  esp_diff_done(&diff);
  edit = esp_edit_new(layout);
  struct esp_timer timer = thaw_at(5);
  struct esp_status st;
  esp_edit_view(edit);
  for (uint32_t i = 0; i < MOST; i++) {
    expect_ok(esp_edit_timer(edit, &(struct esp_selection){.leaves = &i, .len = 1}, &timer, &st), &st);
  }
  uint32_t first = 0;
  uint32_t last = MOST;
  const struct esp_selection one = {.leaves = &first, .len = 1};
  expect_ok(esp_edit_timer(edit, &one, &timer, &st), &st); /* in place of another one */
  diff = finish_ok(edit, &layout);
  esp_diff_done(&diff);
  assert_int_equal(layout->timers_len, MOST);
  edit = esp_edit_new(layout);
  expect_fail(esp_edit_timer(edit, &(struct esp_selection){.leaves = &last, .len = 1}, &timer, &st), &st,
              ESP_RESOURCE_EXHAUSTED, "there are 65536 timers, which is the most");
  esp_edit_free(edit);
  free(leaves);
  free(names);
  tree_drop(layout);
}

static enum esp_code operations(struct esp_edit *edit, const struct esp_selection *sel, struct esp_status *st) {
  const struct esp_timer timer = {.due = ESP_TIMER_COMMIT, .at = 9, .frozen = true, .selection = "two"};
  enum esp_code code = esp_edit_freeze(edit, &sel[0], true, st);
  code = code == ESP_OK ? esp_edit_timer(edit, &sel[1], &timer, st) : code;
  code = code == ESP_OK ? esp_edit_cancel_timer(edit, 4, st) : code;
  code = code == ESP_OK ? esp_edit_tie(edit, 2, 3, ESP_VIEW_IDENTITY, st) : code;
  return code == ESP_OK ? esp_edit_remove(edit, &sel[1], st) : code;
}

static void every_allocation_may_fail(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_edit *edit = esp_edit_new(layout);
  for (int i = 0; i < 4; i++) {
    const char *const names[] = {"a", "b", "c", "d"};
    struct esp_timer timer = thaw_at(5);
    timer_ok(edit, names[i], &timer);
  }
  finish(edit, &layout);
  struct esp_selection sel[] = {pick(layout, "a b"), pick(layout, "a c")};
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  int64_t failing = 0;
  for (; code != ESP_OK; failing++) {
    struct snapshot snapshot = snapshot_of(layout);
    size_t live = esp_alloc_live();
    struct esp_status st = {0};
    struct esp_layout *next = NULL;
    struct esp_diff diff;
    esp_alloc_fail_at(failing);
    edit = esp_edit_new(layout);
    code = edit ? operations(edit, sel, &st) : ESP_RESOURCE_EXHAUSTED;
    assert_true(code == ESP_OK || code == ESP_RESOURCE_EXHAUSTED);
    if (edit) {
      enum esp_code finish_code = esp_edit_finish(edit, &next, &diff, &st);
      code = finish_expected(finish_code, code);
    }
    esp_alloc_fail_at(-1);
    if (code == ESP_OK) {
      expect_sound(next);
      assert_int_equal(diff.timers_len, 4);
      esp_diff_done(&diff);
      esp_layout_unref(next);
    } else {
      assert_int_equal(esp_alloc_live(), live);
    }
    expect_unchanged(layout, snapshot);
  }
  assert_true(failing > 20);
  esp_selection_done(&sel[0]);
  esp_selection_done(&sel[1]);
  tree_drop(layout);
}

/* Pushes that came while a transaction was being prepared: its own timers that count pushes wait for so many more. */
static void own_counts_are_postponed(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_timer pushes = {.due = ESP_TIMER_PUSHES, .at = 10, .after = 10, .selection = "some"};
  struct esp_edit *edit = esp_edit_new(layout);
  timer_ok(edit, "a", &pushes);
  finish(edit, &layout);
  edit = esp_edit_new(layout);
  struct esp_timer commit = thaw_at(12);
  struct esp_timer last = {.due = ESP_TIMER_PUSHES, .at = UINT64_MAX - 2, .after = 5, .selection = "some"};
  pushes.at = 30;
  timer_ok(edit, "b", &pushes);
  timer_ok(edit, "c", &commit);
  timer_ok(edit, "d", &last);
  finish(edit, &layout);
  esp_layout_postpone(layout, 3);
  assert_int_equal(esp_layout_timer(layout, 1)->at, 10); /* of an earlier epoch */
  assert_int_equal(esp_layout_timer(layout, 2)->at, 33);
  assert_int_equal(esp_layout_timer(layout, 3)->at, 12);
  assert_true(esp_layout_timer(layout, 4)->at == UINT64_MAX);
  assert_int_equal(layout->timers_due[ESP_TIMER_PUSHES], 10);
  edit = esp_edit_new(layout);
  struct esp_status st;
  expect_ok(esp_edit_cancel_timer(edit, 1, &st), &st);
  finish(edit, &layout);
  assert_int_equal(layout->timers_due[ESP_TIMER_PUSHES], 33);
  edit = esp_edit_new(layout);
  pushes.at = 20;
  timer_ok(edit, "a", &pushes);
  finish(edit, &layout);
  esp_layout_postpone(layout, 4);
  assert_int_equal(layout->timers_due[ESP_TIMER_PUSHES], 24);
  tree_drop(layout);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(texts_say_what_and_when),
      ESP_TEST(a_timer_is_set_and_shared_by_what_is_tied),
      ESP_TEST(another_timer_a_freeze_and_a_cancel_take_it_away),
      ESP_TEST(ties_and_removals),
      ESP_TEST(refusals),
      ESP_TEST(no_more_than_the_most),
      ESP_TEST(every_allocation_may_fail),
      ESP_TEST(own_counts_are_postponed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
