/* Tests of server/tree/edit_remove.c: what goes, what stays, what is told, what is remembered. */
#include "fixture.h"

static const char *primary_of(const struct esp_layout *layout, const char *path) {
  return layout->leaves[place_of(layout, path)->primary].path;
}

/* Epoch 2: b.x and d.y are tied to a.w; b.x is detached, c.w is frozen and has a tag, e is a buffer. */
static struct esp_layout *tree(void) {
  struct esp_leaf_new leaves[] = {leaf_of("a.w"), leaf_of("b.x"), leaf_of("c.w"), leaf_of("d.y"), leaf_of("e")};
  leaves[1].detached = true;
  leaves[2].tag = "Dense";
  leaves[4].kind = ESP_KIND_BUFFER;
  struct esp_layout *layout = tree_empty();
  struct esp_edit *edit = esp_edit_new(layout);
  edit_add_ok(edit, leaves, LEN_OF(leaves));
  tie_ok(edit, "b.x", "a.w", ESP_VIEW_IDENTITY);
  tie_ok(edit, "d.y", "a.w", ESP_VIEW_IDENTITY);
  freeze_ok(edit, "c", true);
  assign_ok(edit, "a", "head");
  finish(edit, &layout);
  return layout;
}

static void what_it_was_is_told(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_layout *base = esp_layout_ref(layout);
  struct snapshot snapshot = snapshot_of(base);
  uint64_t ids[] = {base->leaves[1].id, base->leaves[2].id, base->leaves[4].id};
  struct esp_edit *edit = esp_edit_new(layout);
  remove_ok(edit, "b.x c e");
  struct esp_diff diff = finish_ok(edit, &layout);
  expect_sound(layout);
  assert_int_equal(diff.len, 7);
  expect_change(&diff.changes[0], "b.x", "leaf", "f32 [2]", "", "");
  assert_int_equal(diff.changes[0].leaf_id, ids[0]);
  expect_change(&diff.changes[1], "b.x", "detached", "true", "", "");
  expect_change(&diff.changes[2], "b.x", "parameter", "parameter 1 (a.w)", "", "");
  expect_change(&diff.changes[3], "c.w", "leaf", "f32 [2]", "", "");
  expect_change(&diff.changes[4], "c.w", "frozen", "true", "", "");
  expect_change(&diff.changes[5], "c.w", "tag", "Dense", "", "");
  expect_change(&diff.changes[6], "e", "leaf", "f32 [2] buffer", "", "");
  esp_diff_done(&diff);
  assert_int_equal(layout->leaves_len, 2);
  assert_int_equal(layout->params_len, 1);
  assert_int_equal(layout->trained_len, 2);
  assert_int_equal(layout->frozen_len, 0);
  assert_int_equal(layout->detached_len, 0);
  assert_int_equal(layout->elements, 2);
  assert_int_equal(layout->leaf_bytes, 16);
  assert_int_equal(layout->removed_len, 3);
  assert_int_equal(layout->gone_len, 3);
  for (size_t i = 0; i < 3; i++) {
    assert_int_equal(layout->gone[i].id, ids[i]);
    assert_int_equal(layout->gone[i].epoch, layout->epoch);
  }
  assert_int_equal(layout->leaves[0].changed_epoch, 2);
  expect_unchanged(base, snapshot);
  assert_int_equal(atomic_load(&objects_live), 5);
  esp_layout_unref(base);
  assert_int_equal(atomic_load(&objects_live), 3);
  tree_drop(layout);
}

/* The primary leaf goes: the parameter stays with the others, in its group. */
static void the_next_primary_keeps_the_group(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_edit *edit = esp_edit_new(layout);
  remove_ok(edit, "a b");
  struct esp_diff diff = finish_ok(edit, &layout);
  expect_sound(layout);
  assert_int_equal(diff.len, 6);
  expect_change(&diff.changes[1], "a.w", "parameter", "parameter 1 (a.w)", "", "");
  expect_change(&diff.changes[5], "d.y", "group", "", "head", "a.w");
  esp_diff_done(&diff);
  assert_string_equal(primary_of(layout, "d.y"), "d.y");
  assert_int_equal(place_of(layout, "d.y")->leaves_len, 1);
  assert_string_equal(group_of(layout, "d.y"), "head");
  tree_drop(layout);
}

static void everything(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_edit *edit = esp_edit_new(layout);
  remove_ok(edit, "**");
  finish(edit, &layout);
  assert_int_equal(layout->leaves_len, 0);
  assert_int_equal(layout->params_len, 0);
  assert_int_equal(layout->elements, 0);
  assert_int_equal(layout->leaf_bytes, 0);
  struct esp_layout *before = layout;
  edit = esp_edit_new(layout);
  remove_ok(edit, "**"); /* nothing of nothing */
  finish(edit, &layout);
  assert_ptr_equal(layout, before);
  tree_drop(layout);
}

/* Whoever declares it again is refused, unless he says that he means it; then it is another leaf. */
static void removed_stays_removed(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  uint64_t id = layout->leaves[index_of(layout, "c.w")].id;
  struct esp_edit *edit = esp_edit_new(layout);
  remove_ok(edit, "c");
  finish(edit, &layout);
  edit = esp_edit_new(layout);
  remove_ok(edit, "a");
  finish(edit, &layout);
  assert_string_equal(layout->removed[0], "a.w");
  assert_string_equal(layout->removed[1], "c.w");
  assert_true(layout->gone[0].id < layout->gone[1].id); /* a.w, which went last */
  assert_true(layout->gone[0].epoch > layout->gone[1].epoch);
  assert_int_equal(layout->gone[1].bytes, 8);
  assert_int_equal(layout->gone_bytes, layout->gone[0].bytes + 8);
  struct esp_leaf_new leaves[] = {leaf_of("c.v"), leaf_of("c.w")};
  uint64_t ids[2];
  bool added[2];
  struct esp_status st;
  edit = esp_edit_new(layout);
  expect_fail(esp_edit_add(edit, leaves, 2, ids, added, &st), &st, ESP_FAILED_PRECONDITION, "leaf \"c.w\" was removed");
  esp_edit_free(edit);
  leaves[1].again = true;
  edit = esp_edit_new(layout);
  edit_add_ok(edit, leaves, 2);
  finish(edit, &layout);
  assert_int_equal(layout->removed_len, 1);
  assert_true(layout->leaves[index_of(layout, "c.w")].id > id);
  assert_int_equal(layout->gone_len, 2);
  leaves[1].again = false; /* it is there: declaring it joins */
  edit = esp_edit_new(layout);
  edit_add_ok(edit, leaves, 2);
  struct esp_layout *before = layout;
  finish(edit, &layout);
  assert_ptr_equal(layout, before);
  tree_drop(layout);
}

/* What lies above a removed leaf may be a leaf, and what lay below one. */
static void a_removed_leaf_makes_room(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_edit *edit = esp_edit_new(layout);
  remove_ok(edit, "c e");
  struct esp_leaf_new leaves[] = {leaf_of("c"), leaf_of("e.f")};
  edit_add_ok(edit, leaves, 2);
  finish(edit, &layout);
  assert_int_equal(layout->removed_len, 2);
  tree_drop(layout);
}

static void removing_survives_failing_allocations(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_selection sel = pick(layout, "a b c");
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  int64_t failing = 0;
  for (; code != ESP_OK; failing++) {
    size_t live = esp_alloc_live();
    struct snapshot snapshot = snapshot_of(layout);
    struct esp_status st = {0};
    struct esp_layout *next;
    struct esp_diff diff;
    esp_alloc_fail_at(failing);
    struct esp_edit *edit = esp_edit_new(layout);
    code = edit ? esp_edit_remove(edit, &sel, &st) : ESP_RESOURCE_EXHAUSTED;
    if (edit) {
      enum esp_code finish_code = esp_edit_finish(edit, &next, &diff, &st);
      code = finish_expected(finish_code, code);
    }
    esp_alloc_fail_at(-1);
    if (code == ESP_OK) {
      expect_sound(next);
      esp_diff_done(&diff);
      esp_layout_unref(next);
    }
    assert_int_equal(esp_alloc_live(), live);
    assert_int_equal(layout->refs, 1);
    expect_unchanged(layout, snapshot);
  }
  assert_true(failing > 12);
  esp_selection_done(&sel);
  tree_drop(layout);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(what_it_was_is_told),
      ESP_TEST(the_next_primary_keeps_the_group),
      ESP_TEST(everything),
      ESP_TEST(removed_stays_removed),
      ESP_TEST(a_removed_leaf_makes_room),
      ESP_TEST(removing_survives_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
