/* Tests of server/tree/edit_rename.c: every place a node may go to, assignments and tags that go with it, groups that
 * stay, refusals. */
#include <stdio.h>

#include "fixture.h"

static void ids_bindings_and_flags_stay(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a.w", "b.v", "b.w", "c"}, 4);
  struct esp_edit *edit = esp_edit_new(layout);
  tie_ok(edit, "a.w", "b.w", ESP_VIEW_IDENTITY);
  freeze_ok(edit, "b.v", true);
  finish(edit, &layout);
  struct esp_layout *base = esp_layout_ref(layout);
  struct snapshot snapshot = snapshot_of(base);
  edit = esp_edit_new(layout);
  rename_ok(edit, "b", "z.new.b");
  struct esp_diff diff = finish_ok(edit, &layout);
  expect_sound(layout);
  assert_int_equal(diff.len, 2);
  expect_change(&diff.changes[0], "z.new.b.v", "path", "b.v", "z.new.b.v", "");
  expect_change(&diff.changes[1], "z.new.b.w", "path", "b.w", "z.new.b.w", "");
  assert_int_equal(diff.changes[1].leaf_id, 3);
  esp_diff_done(&diff);
  assert_int_equal(layout->leaves[index_of(layout, "z.new.b.v")].id, 2);
  assert_int_equal(layout->leaves[index_of(layout, "z.new.b.w")].path_epoch, layout->epoch);
  assert_int_equal(layout->leaves[index_of(layout, "z.new.b.w")].changed_epoch, layout->epoch);
  assert_int_equal(layout->leaves[index_of(layout, "a.w")].path_epoch, 2);
  assert_true(place_of(layout, "z.new.b.v")->frozen);
  assert_ptr_equal(place_of(layout, "a.w"), place_of(layout, "z.new.b.w"));
  assert_string_equal(layout->leaves[place_of(layout, "a.w")->primary].path, "z.new.b.w");
  assert_int_equal(layout->removed_len, 0);
  expect_unchanged(base, snapshot);
  esp_layout_unref(base);
  struct esp_layout *before = layout;
  edit = esp_edit_new(layout);
  rename_ok(edit, "a.w", "a.w");
  finish(edit, &layout);
  assert_ptr_equal(layout, before);
  tree_drop(layout);
}

/* From each of some nodes to each of many places: as by moving strings, or refused where that gives no tree. */
static void everywhere(void **state) {
  (void)state;
  const char *paths[] = {"a.b.c", "a.b.d", "a.e", "b", "c.a", "c.d.e"};
  const char *nodes[] = {"a", "a.b", "a.b.c", "a.e", "b", "c", "c.d", "c.d.e"};
  const char *places[] = {"0",   "a",  "a.b", "a.b.c", "a.b.d", "a.b.c.x", "a.a",   "a.f", "b",
                          "b.x", "bb", "c",   "c.a",   "c.b",   "c.d",     "c.d.e", "d",   "a.e.f.g"};
  int renamed = 0;
  int refused = 0;
  for (size_t n = 0; n < LEN_OF(nodes); n++) {
    for (size_t p = 0; p < LEN_OF(places); p++) {
      struct esp_layout *layout = tree_of(paths, LEN_OF(paths));
      char expected[LEN_OF(paths)][32];
      bool is_tree = true;
      for (size_t i = 0; i < LEN_OF(paths); i++) {
        bool moves = naive_within(paths[i], nodes[n]);
        snprintf(expected[i], sizeof expected[i], "%s%s", moves ? places[p] : paths[i],
                 moves ? paths[i] + strlen(nodes[n]) : "");
      }
      for (size_t i = 0; i < LEN_OF(paths); i++) {
        for (size_t j = 0; j < LEN_OF(paths); j++) {
          is_tree = is_tree && (i == j || !naive_within(expected[i], expected[j]));
        }
      }
      struct esp_status st;
      struct esp_edit *edit = esp_edit_new(layout);
      enum esp_code code = esp_edit_rename(edit, nodes[n], strlen(nodes[n]), places[p], strlen(places[p]), &st);
      assert_int_equal(code, is_tree ? ESP_OK : ESP_INVALID_ARGUMENT);
      renamed += is_tree;
      refused += !is_tree;
      if (is_tree) {
        finish(edit, &layout);
        for (size_t i = 0; i < LEN_OF(paths); i++) {
          assert_string_equal(esp_layout_leaf_by_id(layout, i + 1)->path, expected[i]);
        }
      } else {
        esp_edit_free(edit);
      }
      tree_drop(layout);
    }
  }
  assert_true(renamed > 50 && refused > 20);
}

static void assignments_and_tags_go_with_it(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a.b.v", "a.b.w", "a.c"}, 3);
  struct esp_status st;
  struct esp_edit *edit = esp_edit_new(layout);
  assign_ok(edit, "a", "head");
  assign_ok(edit, "a.b.w", "default");
  assign_ok(edit, "a.b.none", "ghost"); /* nothing is there yet */
  expect_ok(esp_edit_tag(edit, "a.b", 3, "Dense", &st), &st);
  expect_ok(esp_edit_tag(edit, "a", 1, "Chain", &st), &st);
  finish(edit, &layout);
  edit = esp_edit_new(layout);
  rename_ok(edit, "a", "z");
  struct esp_diff diff = finish_ok(edit, &layout);
  expect_sound(layout);
  assert_int_equal(diff.len, 3 + 2 * 3 + 2 * 2);
  esp_diff_done(&diff);
  assert_int_equal(layout->assignments_len, 4);
  assert_string_equal(esp_layout_assignment(layout, "z", 1)->group, "head");
  assert_string_equal(esp_layout_assignment(layout, "z.b.w", 5)->group, "default");
  assert_string_equal(esp_layout_assignment(layout, "z.b.none", 8)->group, "ghost");
  assert_int_equal(layout->tags_len, 2);
  assert_string_equal(layout->tags[0].node, "z");
  assert_string_equal(layout->tags[0].tag, "Chain");
  assert_string_equal(layout->tags[1].node, "z.b");
  assert_string_equal(group_of(layout, "z.b.v"), "head");
  /* Into itself: the old nodes' are not taken for the new ones'. */
  edit = esp_edit_new(layout);
  rename_ok(edit, "z.b", "z.b.b");
  finish(edit, &layout);
  assert_int_equal(layout->assignments_len, 4);
  assert_string_equal(esp_layout_assignment(layout, "z.b.b.w", 7)->group, "default");
  assert_string_equal(layout->tags[1].node, "z.b.b");
  assert_int_equal(layout->tags_len, 2);
  tree_drop(layout);
}

/* Nothing else is at the new place: one assignment of the node. */
static void the_group_stays_by_the_node(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a.b.v", "a.b.w", "a.c", "d"}, 4);
  struct esp_edit *edit = esp_edit_new(layout);
  assign_ok(edit, "a", "head");
  finish(edit, &layout);
  edit = esp_edit_new(layout);
  rename_ok(edit, "a.b", "new.b");
  struct esp_diff diff = finish_ok(edit, &layout);
  expect_sound(layout);
  assert_int_equal(diff.len, 3);
  expect_change(&diff.changes[2], "new.b", "group", "", "head", "a.b");
  assert_int_equal(diff.changes[2].leaf_id, 0);
  esp_diff_done(&diff);
  assert_string_equal(group_of(layout, "new.b.v"), "head");
  edit = esp_edit_new(layout);
  rename_ok(edit, "d", "new.d"); /* the root's: nothing to write */
  diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 1);
  esp_diff_done(&diff);
  tree_drop(layout);
}

/* Something is there already: nobody's group changes, neither of what comes nor of what was there. */
static void the_groups_of_both_stay(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a.v", "a.w", "b.x", "b.y"}, 4);
  struct esp_edit *edit = esp_edit_new(layout);
  assign_ok(edit, "a", "head");
  assign_ok(edit, "b.w", "ghost"); /* for a leaf that is still to come, not for this one */
  finish(edit, &layout);
  edit = esp_edit_new(layout);
  rename_ok(edit, "a", "b");
  struct esp_diff diff = finish_ok(edit, &layout);
  expect_sound(layout);
  assert_int_equal(diff.len, 2 + 2 + 3);
  expect_change(&diff.changes[2], "a", "group", "head", "", "");
  expect_change(&diff.changes[3], "b", "group", "", "head", "");
  expect_change(&diff.changes[4], "b.w", "group", "ghost", "head", "a");
  expect_change(&diff.changes[5], "b.x", "group", "", "default", "a");
  expect_change(&diff.changes[6], "b.y", "group", "", "default", "a");
  esp_diff_done(&diff);
  assert_string_equal(group_of(layout, "b.v"), "head");
  assert_string_equal(group_of(layout, "b.w"), "head");
  assert_string_equal(group_of(layout, "b.x"), "default");
  tree_drop(layout);
}

/* Onto a path that was removed: it is there again. */
static void a_removed_path_is_taken(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a.w", "b.w"}, 2);
  struct esp_edit *edit = esp_edit_new(layout);
  remove_ok(edit, "a");
  finish(edit, &layout);
  assert_int_equal(layout->removed_len, 1);
  edit = esp_edit_new(layout);
  rename_ok(edit, "b", "a");
  finish(edit, &layout);
  assert_int_equal(layout->removed_len, 0);
  assert_int_equal(layout->gone_len, 1);
  tree_drop(layout);
}

static void expect_refused(const char *from, const char *to, enum esp_code expected, const char *words) {
  struct esp_layout *layout = tree_of((const char *[]){"enc.a.w", "enc.b", "out"}, 3);
  struct snapshot snapshot = snapshot_of(layout);
  struct esp_status st;
  struct esp_edit *edit = esp_edit_new(layout);
  expect_fail(esp_edit_rename(edit, from, strlen(from), to, strlen(to), &st), &st, expected, words);
  struct esp_layout *next;
  struct esp_diff diff;
  expect_fail(esp_edit_finish(edit, &next, &diff, &st), &st, expected, "an earlier operation");
  expect_unchanged(layout, snapshot);
  tree_drop(layout);
}

static void refusals(void **state) {
  (void)state;
  expect_refused("encc", "x", ESP_NOT_FOUND, "no leaf matches \"encc\"; nearest: ");
  expect_refused("enc.a.", "x", ESP_INVALID_ARGUMENT, "component 3 is empty");
  expect_refused("enc", "x..y", ESP_INVALID_ARGUMENT, "component 2 is empty");
  expect_refused("", "x", ESP_INVALID_ARGUMENT, "the root can't be renamed");
  expect_refused("enc", "", ESP_INVALID_ARGUMENT, "nothing can become the root");
  expect_refused("enc.b", "out", ESP_INVALID_ARGUMENT, "with \"enc.b\" renamed there would be two leaves \"out\"");
  expect_refused("enc", "out", ESP_INVALID_ARGUMENT, "leaf \"out.a.w\" would lie below \"out\", which is a leaf too");
  expect_refused("out", "enc", ESP_INVALID_ARGUMENT, "leaf \"enc.a.w\" would lie below \"enc\", which is a leaf too");
  char deep[2 * ESP_DEPTH_MAX];
  for (size_t i = 0; i < ESP_DEPTH_MAX; i++) {
    memcpy(deep + 2 * i, "d.", 2);
  }
  deep[2 * ESP_DEPTH_MAX - 1] = '\0';
  expect_refused("enc", deep, ESP_INVALID_ARGUMENT, "leaf \"enc.a.w\" can't have its new path");
}

static void renaming_survives_failing_allocations(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a.v", "a.w", "b.x", "b.y"}, 4);
  struct esp_status st;
  struct esp_edit *first = esp_edit_new(layout);
  assign_ok(first, "a", "head");
  expect_ok(esp_edit_tag(first, "a", 1, "Dense", &st), &st);
  finish(first, &layout);
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  int64_t failing = 0;
  for (; code != ESP_OK; failing++) {
    size_t live = esp_alloc_live();
    struct snapshot snapshot = snapshot_of(layout);
    struct esp_layout *next;
    struct esp_diff diff;
    esp_alloc_fail_at(failing);
    struct esp_edit *edit = esp_edit_new(layout);
    code = edit ? esp_edit_rename(edit, "a", 1, "b", 1, &st) : ESP_RESOURCE_EXHAUSTED;
    if (edit) {
      enum esp_code finish_code = esp_edit_finish(edit, &next, &diff, &st);
      code = finish_expected(finish_code, code);
    }
    esp_alloc_fail_at(-1);
    if (code == ESP_OK) {
      expect_sound(next);
      esp_diff_done(&diff);
      esp_layout_unref(next);
    } else {
      assert_int_equal(esp_alloc_live(), live); /* a success leaves names, which the tree's layouts share */
    }
    assert_int_equal(layout->refs, 1);
    expect_unchanged(layout, snapshot);
  }
  assert_true(failing > 12);
  tree_drop(layout);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(ids_bindings_and_flags_stay),
      ESP_TEST(everywhere),
      ESP_TEST(assignments_and_tags_go_with_it),
      ESP_TEST(the_group_stays_by_the_node),
      ESP_TEST(the_groups_of_both_stay),
      ESP_TEST(a_removed_path_is_taken),
      ESP_TEST(refusals),
      ESP_TEST(renaming_survives_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
