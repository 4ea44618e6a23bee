/* Tests of server/tree/edit_group.c and of esp_edit_unassign: groups that come, change and go, who is stepped by them,
 * named selections, tags of nodes. */
#include <stdio.h>

#include "fixture.h"

static void define_ok(struct esp_edit *edit, const char *name, const char *expression) {
  struct esp_object *optim = object_new();
  struct esp_status st;
  expect_ok(esp_edit_group(edit, name, expression, optim, &st), &st);
  esp_object_unref(optim);
  expect_sound(esp_edit_view(edit));
}

static void delete_ok(struct esp_edit *edit, const char *name) {
  struct esp_status st;
  expect_ok(esp_edit_group_delete(edit, name, &st), &st);
  expect_sound(esp_edit_view(edit));
}

static void unassign_ok(struct esp_edit *edit, const char *node) {
  struct esp_status st;
  expect_ok(esp_edit_unassign(edit, node, strlen(node), &st), &st);
}

/* What was assigned before it was defined follows, and goes back to "default"; each time leaf by leaf. */
static void a_group_comes_and_goes(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a.v", "a.w", "b", "c", "d"}, 5);
  struct esp_edit *edit = esp_edit_new(layout);
  tie_ok(edit, "c", "a.w", ESP_VIEW_IDENTITY);
  assign_ok(edit, "a", "early");
  assign_ok(edit, "d", "head"); /* its index moves */
  finish(edit, &layout);
  assert_string_equal(group_of(layout, "c"), "default");
  struct esp_layout *base = esp_layout_ref(layout);
  struct snapshot snapshot = snapshot_of(base);
  edit = esp_edit_new(layout);
  define_ok(edit, "early", "adam(lr=1)");
  struct esp_diff diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 4);
  expect_change(&diff.changes[0], "early", "optimizer", "", "adam(lr=1)", "");
  assert_int_equal(diff.changes[0].leaf_id, 0);
  expect_change(&diff.changes[1], "a.v", "stepped_by", "default", "early", "");
  expect_change(&diff.changes[2], "a.w", "stepped_by", "default", "early", "");
  expect_change(&diff.changes[3], "c", "stepped_by", "default", "early", "");
  assert_int_equal(diff.changes[3].leaf_id, layout->leaves[index_of(layout, "c")].id);
  esp_diff_done(&diff);
  assert_string_equal(group_of(layout, "c"), "early");
  assert_string_equal(group_of(layout, "d"), "head");
  assert_int_equal(layout->leaves[index_of(layout, "c")].changed_epoch, layout->epoch);
  assert_int_equal(layout->leaves[index_of(layout, "b")].changed_epoch, 2);
  edit = esp_edit_new(layout);
  delete_ok(edit, "early");
  diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 4);
  expect_change(&diff.changes[0], "early", "optimizer", "adam(lr=1)", "", "");
  expect_change(&diff.changes[2], "a.w", "stepped_by", "early", "default", "");
  esp_diff_done(&diff);
  expect_sound(layout);
  assert_string_equal(group_of(layout, "a.v"), "default");
  assert_string_equal(place_of(layout, "a.v")->group_assigned, "early");
  assert_string_equal(group_of(layout, "d"), "head");
  expect_unchanged(base, snapshot);
  esp_layout_unref(base);
  tree_drop(layout);
}

static void redefining(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a"}, 1);
  int live = atomic_load(&objects_live);
  struct esp_edit *edit = esp_edit_new(layout);
  define_ok(edit, "default", "sgd(lr=3)");
  struct esp_diff diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 1);
  expect_change(&diff.changes[0], "default", "optimizer", "sgd(lr=1)", "sgd(lr=3)", "");
  esp_diff_done(&diff);
  assert_int_equal(atomic_load(&objects_live), live); /* the former optimizer is gone */
  assert_int_equal(layout->leaves[0].changed_epoch, 2);
  struct esp_layout *before = layout;
  edit = esp_edit_new(layout);
  define_ok(edit, "default", "sgd(lr=3)");
  finish(edit, &layout);
  assert_ptr_equal(layout, before);
  tree_drop(layout);
}

static void groups_are_refused(void **state) {
  (void)state;
  struct esp_layout *layout = tree_empty();
  struct esp_status st;
  struct esp_edit *edit = esp_edit_new(layout);
  expect_fail(esp_edit_group(edit, "a b", "sgd(lr=1)", NULL, &st), &st, ESP_INVALID_ARGUMENT, "group \"a b\" has");
  expect_fail(esp_edit_group_delete(edit, "default", &st), &st, ESP_FAILED_PRECONDITION, "can't be deleted");
  expect_fail(esp_edit_group_delete(edit, "haed", &st), &st, ESP_NOT_FOUND,
              "no group is called \"haed\"; there are \"default\", \"head\"");
  esp_edit_free(edit);
  tree_drop(layout);
}

static void unassigning(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a.b.v", "a.b.w", "c"}, 3);
  struct esp_edit *edit = esp_edit_new(layout);
  assign_ok(edit, "a", "head");
  assign_ok(edit, "a.b", "default");
  assign_ok(edit, "a.b.w", "ghost");
  finish(edit, &layout);
  edit = esp_edit_new(layout);
  unassign_ok(edit, "a.b");
  unassign_ok(edit, "a.b.w");
  struct esp_diff diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 2);
  expect_change(&diff.changes[0], "a.b", "group", "default", "", "");
  assert_int_equal(diff.changes[0].leaf_id, 0);
  expect_change(&diff.changes[1], "a.b.w", "group", "ghost", "", "");
  assert_int_equal(diff.changes[1].leaf_id, 2);
  esp_diff_done(&diff);
  expect_sound(layout);
  assert_int_equal(layout->assignments_len, 2);
  assert_string_equal(group_of(layout, "a.b.v"), "head");
  assert_int_equal(layout->leaves[0].changed_epoch, layout->epoch);
  assert_int_equal(layout->leaves[2].changed_epoch, 2);
  struct esp_layout *before = layout;
  edit = esp_edit_new(layout);
  unassign_ok(edit, "a.b");
  unassign_ok(edit, "nowhere");
  assert_ptr_equal(esp_edit_view(edit), layout);
  assign_ok(edit, "c", "head"); /* there and back */
  unassign_ok(edit, "c");
  finish(edit, &layout);
  assert_ptr_equal(layout, before);
  struct esp_status st;
  edit = esp_edit_new(layout);
  expect_fail(esp_edit_unassign(edit, "", 0, &st), &st, ESP_FAILED_PRECONDITION, "the root always has a group");
  expect_fail(esp_edit_unassign(edit, "a..b", 4, &st), &st, ESP_INVALID_ARGUMENT, "component 2 is empty");
  esp_edit_free(edit);
  tree_drop(layout);
}

static void name_ok(struct esp_edit *edit, const char *name, const char *text) {
  struct esp_status st;
  expect_ok(esp_edit_name_selection(edit, name, text, &st), &st);
  expect_sound(esp_edit_view(edit));
}

static void selections(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a"}, 1);
  struct esp_edit *edit = esp_edit_new(layout);
  name_ok(edit, "m", "a.b");
  name_ok(edit, "z", "z");
  name_ok(edit, "b", "b");
  name_ok(edit, "m", "a.c");
  struct esp_diff diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 4);
  expect_change(&diff.changes[0], "@m", "selection", "", "a.b", "");
  expect_change(&diff.changes[3], "@m", "selection", "a.b", "a.c", "");
  esp_diff_done(&diff);
  assert_int_equal(layout->selections_len, 3);
  assert_string_equal(layout->selections[1].name, "m");
  assert_string_equal(layout->selections[1].text, "a.c");
  struct esp_layout *before = layout;
  edit = esp_edit_new(layout);
  name_ok(edit, "m", "a.c");
  finish(edit, &layout);
  assert_ptr_equal(layout, before);
  edit = esp_edit_new(layout);
  name_ok(edit, "b", "");
  diff = finish_ok(edit, &layout);
  expect_change(&diff.changes[0], "@b", "selection", "b", "", "");
  esp_diff_done(&diff);
  assert_int_equal(layout->selections_len, 2);
  struct esp_status st;
  edit = esp_edit_new(layout);
  expect_fail(esp_edit_name_selection(edit, "b", "", &st), &st, ESP_NOT_FOUND,
              "no selection is called \"b\"; there are \"m\", \"z\"");
  expect_fail(esp_edit_name_selection(edit, "b", "a & (", &st), &st, ESP_INVALID_ARGUMENT, "selection \"b\": ");
  expect_fail(esp_edit_name_selection(edit, "b c", "a", &st), &st, ESP_INVALID_ARGUMENT, "selection \"b c\" has");
  esp_edit_free(edit);
  tree_drop(layout);
}

/* What names itself by way of others is refused; what it names need not be there, and may be named anew later. */
static void selections_in_circles(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a"}, 1);
  struct esp_status st;
  struct esp_edit *edit = esp_edit_new(layout);
  expect_fail(esp_edit_name_selection(edit, "a", "x | @a", &st), &st, ESP_INVALID_ARGUMENT,
              "the named selection @a would refer to itself");
  assert_null(strstr(st.message, "through"));
  esp_edit_free(edit);
  edit = esp_edit_new(layout);
  name_ok(edit, "a", "x & !@b");
  name_ok(edit, "b", "@c | @e | @nosuch");
  name_ok(edit, "c", "@d & (x | @d)");
  name_ok(edit, "e", "@d");
  name_ok(edit, "d", "y");
  finish(edit, &layout);
  struct esp_layout *before = layout;
  edit = esp_edit_new(layout);
  expect_fail(esp_edit_name_selection(edit, "d", "y | @a", &st), &st, ESP_INVALID_ARGUMENT,
              "the named selection @d would refer to itself, through @a, @b, @c");
  struct esp_diff diff;
  assert_int_equal(esp_edit_finish(edit, &layout, &diff, &st), ESP_INVALID_ARGUMENT);
  assert_ptr_equal(layout, before);
  edit = esp_edit_new(layout);
  name_ok(edit, "b", "x");
  name_ok(edit, "d", "@a");
  finish(edit, &layout);
  tree_drop(layout);
}

static void tag_ok(struct esp_edit *edit, const char *node, const char *tag) {
  struct esp_status st;
  expect_ok(esp_edit_tag(edit, node, strlen(node), tag, &st), &st);
}

static void tags(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a.b.w", "c"}, 2);
  struct esp_edit *edit = esp_edit_new(layout);
  tag_ok(edit, "later.on", "Dense");
  tag_ok(edit, "a.b", "Dense");
  tag_ok(edit, "", "Model");
  tag_ok(edit, "a", "Chain");
  tag_ok(edit, "a", "Stack"); /* the last one counts */
  tag_ok(edit, "d", "");
  struct esp_diff diff = finish_ok(edit, &layout);
  expect_sound(layout);
  assert_int_equal(diff.len, 4);
  expect_change(&diff.changes[0], "", "tag", "", "Model", "");
  expect_change(&diff.changes[1], "a", "tag", "", "Stack", "");
  expect_change(&diff.changes[3], "later.on", "tag", "", "Dense", "");
  esp_diff_done(&diff);
  assert_int_equal(layout->tags_len, 4);
  struct esp_layout *before = layout;
  edit = esp_edit_new(layout);
  tag_ok(edit, "a.b", "Dense");
  tag_ok(edit, "d", "");
  assert_ptr_equal(esp_edit_view(edit), layout);
  finish(edit, &layout);
  assert_ptr_equal(layout, before);
  edit = esp_edit_new(layout);
  tag_ok(edit, "a", "");
  diff = finish_ok(edit, &layout);
  expect_change(&diff.changes[0], "a", "tag", "Stack", "", "");
  esp_diff_done(&diff);
  assert_int_equal(layout->tags_len, 3);
  struct esp_status st;
  edit = esp_edit_new(layout);
  expect_fail(esp_edit_tag(edit, "a..b", 4, "x", &st), &st, ESP_INVALID_ARGUMENT, "component 2 is empty");
  expect_fail(esp_edit_tag(edit, "a", 1, "x y", &st), &st, ESP_INVALID_ARGUMENT, "tag \"x y\" has");
  expect_fail(esp_edit_tag(edit, "c", 1, "x", &st), &st, ESP_INVALID_ARGUMENT, "\"c\" is a leaf");
  esp_edit_free(edit);
  tree_drop(layout);
}

/* Regrouping to and fro takes no memory that stays: names that the tree knows are not copied. */
static void regrouping_does_not_grow(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a.w", "b"}, 2);
  size_t live = 0;
  for (int i = 0; i < 20; i++) {
    struct esp_edit *edit = esp_edit_new(layout);
    assign_ok(edit, "a", i % 2 ? "head" : "default");
    assign_ok(edit, "b", i % 2 ? "default" : "head");
    finish(edit, &layout);
    if (i > 1) {
      assert_int_equal(esp_alloc_live(), live);
    }
    live = esp_alloc_live();
  }
  tree_drop(layout);
}

static void operations_survive_failing_allocations(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a.w", "b"}, 2);
  struct esp_edit *first = esp_edit_new(layout);
  assign_ok(first, "b", "early");
  finish(first, &layout);
  struct esp_object *optim = object_new();
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
    code = edit ? esp_edit_group(edit, "early", "sgd(lr=5)", optim, &st) : ESP_RESOURCE_EXHAUSTED;
    code = code == ESP_OK ? esp_edit_tag(edit, "a", 1, "Dense", &st) : code;
    code = code == ESP_OK ? esp_edit_unassign(edit, "b", 1, &st) : code;
    code = code == ESP_OK ? esp_edit_name_selection(edit, "all", "**", &st) : code;
    code = code == ESP_OK ? esp_edit_group(edit, "early", "sgd(lr=6)", optim, &st) : code;
    code = code == ESP_OK ? esp_edit_group_delete(edit, "head", &st) : code;
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
    assert_int_equal(optim->refs, 1);
    expect_unchanged(layout, snapshot);
  }
  assert_true(failing > 12);
  esp_object_unref(optim);
  tree_drop(layout);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(a_group_comes_and_goes),
      ESP_TEST(redefining),
      ESP_TEST(groups_are_refused),
      ESP_TEST(unassigning),
      ESP_TEST(selections),
      ESP_TEST(selections_in_circles),
      ESP_TEST(tags),
      ESP_TEST(regrouping_does_not_grow),
      ESP_TEST(operations_survive_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
