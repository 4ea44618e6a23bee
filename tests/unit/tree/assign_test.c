/* Tests of server/tree/assign.c: the nearest enclosing assignment wins, whatever the order; diffs; failing memory. */
#include <stdio.h>

#include "base/alloc.h"
#include "fixture.h"

static void the_nearest_wins_also_for_what_comes_later(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"enc.a.w", "enc.b.w", "enc-", "out"}, 4);
  struct esp_edit *edit = esp_edit_new(layout);
  assign_ok(edit, "enc", "head");
  assign_ok(edit, "enc.a", "default");
  struct esp_leaf_new late = leaf_of("enc.c.w");
  edit_add_ok(edit, &late, 1);
  assert_string_equal(group_of(esp_edit_view(edit), "enc.c.w"), "head");
  struct esp_diff diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 3);
  esp_diff_done(&diff);
  expect_sound(layout);
  assert_string_equal(group_of(layout, "enc.a.w"), "default");
  assert_string_equal(group_of(layout, "enc.b.w"), "head");
  assert_string_equal(group_of(layout, "enc-"), "default");
  assert_string_equal(group_of(layout, "out"), "default");
  late = leaf_of("enc.d");
  edit = esp_edit_new(layout);
  edit_add_ok(edit, &late, 1);
  diff = finish_ok(edit, &layout);
  esp_diff_done(&diff);
  assert_string_equal(group_of(layout, "enc.d"), "head");
  tree_drop(layout);
}

static void undefined_names_fall_back_and_are_kept(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a", "b"}, 2);
  struct esp_edit *edit = esp_edit_new(layout);
  assign_ok(edit, "b", "not-yet");
  struct esp_diff diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 1);
  assert_string_equal(diff.changes[0].field, "group");
  assert_string_equal(diff.changes[0].from, "");
  assert_string_equal(diff.changes[0].to, "not-yet");
  assert_string_equal(diff.changes[0].path, "b");
  assert_int_equal(diff.changes[0].leaf_id, 2);
  esp_diff_done(&diff);
  assert_string_equal(group_of(layout, "b"), "default");
  assert_string_equal(layout->params[1].group_assigned, "not-yet");
  tree_drop(layout);
}

static void assigning_again_changes_nothing(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a.w"}, 1);
  struct esp_edit *edit = esp_edit_new(layout);
  assign_ok(edit, "a", "head");
  struct esp_diff diff = finish_ok(edit, &layout);
  assert_int_equal(diff.changes[0].leaf_id, 0);
  esp_diff_done(&diff);
  struct esp_layout *before = layout;
  edit = esp_edit_new(layout);
  assign_ok(edit, "a", "head");
  assign_ok(edit, "", "default");
  diff = finish_ok(edit, &layout);
  assert_ptr_equal(layout, before);
  assert_int_equal(diff.len, 0);
  edit = esp_edit_new(layout);
  assign_ok(edit, "a", "default"); /* there and back in one edit */
  assign_ok(edit, "a", "head");
  diff = finish_ok(edit, &layout);
  assert_ptr_equal(layout, before);
  assert_int_equal(diff.len, 0);
  edit = esp_edit_new(layout);
  assign_ok(edit, "", "head");
  assign_ok(edit, "a", "default");
  diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 2);
  assert_string_equal(diff.changes[0].path, "");
  assert_string_equal(diff.changes[0].from, "default");
  assert_string_equal(diff.changes[1].from, "head");
  assert_string_equal(diff.changes[1].to, "default");
  esp_diff_done(&diff);
  expect_sound(layout);
  tree_drop(layout);
}

/* A node that was assigned before its leaf is declared with another group: the leaf's own counts, and is told. */
static void a_leaf_born_with_a_group_overrides(void **state) {
  (void)state;
  struct esp_layout *layout = tree_empty();
  struct esp_edit *edit = esp_edit_new(layout);
  assign_ok(edit, "a.w", "head");
  struct esp_diff diff = finish_ok(edit, &layout);
  esp_diff_done(&diff);
  struct esp_leaf_new leaf = leaf_of("a.w");
  leaf.group = "default";
  edit = esp_edit_new(layout);
  edit_add_ok(edit, &leaf, 1);
  diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 2);
  assert_string_equal(diff.changes[0].field, "leaf");
  assert_string_equal(diff.changes[1].field, "group");
  assert_string_equal(diff.changes[1].from, "head");
  esp_diff_done(&diff);
  assert_string_equal(group_of(layout, "a.w"), "default");
  tree_drop(layout);
}

static void bad_assignments_are_refused(void **state) {
  (void)state;
  struct esp_layout *layout = tree_empty();
  struct esp_status st;
  struct esp_edit *edit = esp_edit_new(layout);
  expect_fail(esp_edit_assign(edit, "a..b", 4, "head", &st), &st, ESP_INVALID_ARGUMENT, "component 2 is empty");
  expect_fail(esp_edit_assign(edit, "a", 1, "", &st), &st, ESP_INVALID_ARGUMENT, "the name of a group is empty");
  esp_edit_free(edit);
  tree_drop(layout);
}

/* Every set of assignments to a few nested nodes, in two orders, in one edit or several. */
static void all_small_sets_of_assignments(void **state) {
  (void)state;
  const char *nodes[] = {"", "a", "a.a", "a.a.a", "a-", "b"};
  const char *groups[] = {NULL, "head", "default", "ghost"};
  for (unsigned set = 0; set < 4096; set++) {
    struct esp_layout *layout = tree_of((const char *[]){"a.a.a", "a.a.b", "a.b", "a-.a", "b.a", "c"}, 6);
    struct esp_edit *edit = esp_edit_new(layout);
    for (unsigned i = 0; i < LEN_OF(nodes); i++) {
      unsigned node = set % 2 ? i : (unsigned)LEN_OF(nodes) - 1 - i;
      const char *group = groups[set >> 2 * node & 3];
      if (group) {
        assign_ok(edit, nodes[node], group);
      }
      if (set % 3 == 0) {
        expect_sound(esp_edit_view(edit));
      }
    }
    struct esp_diff diff = finish_ok(edit, &layout);
    esp_diff_done(&diff);
    expect_sound(layout);
    for (unsigned node = 1; node < LEN_OF(nodes); node++) {
      const char *group = groups[set >> 2 * node & 3];
      const struct esp_assignment *found = esp_layout_assignment(layout, nodes[node], strlen(nodes[node]));
      assert_int_equal(found != NULL, group != NULL);
      if (group) {
        assert_string_equal(found->node, nodes[node]);
        assert_string_equal(found->group, group);
      }
    }
    tree_drop(layout);
  }
}

static void many_assignments_in_any_order(void **state) {
  (void)state;
  enum { MANY = 5000 };
  struct esp_layout *layout = tree_of((const char *[]){"n17.w", "n170.w", "n4999.x.y", "n.w"}, 4);
  for (int round = 0; round < 3; round++) {
    struct esp_edit *edit = esp_edit_new(layout);
    for (unsigned i = 0; i < MANY; i++) {
      char node[16];
      snprintf(node, sizeof node, "n%u", i * 7919 % MANY);
      assign_ok(edit, node, round == 1 ? "head" : "default");
    }
    struct esp_diff diff = finish_ok(edit, &layout);
    assert_int_equal(diff.len, MANY);
    esp_diff_done(&diff);
    expect_sound(layout);
    assert_int_equal(layout->assignments_len, MANY + 1);
    assert_string_equal(group_of(layout, "n4999.x.y"), round == 1 ? "head" : "default");
  }
  tree_drop(layout);
}

static void assignments_survive_failing_allocations(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a.w", "b.w"}, 2);
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  int64_t failing = 0;
  for (; code != ESP_OK; failing++) {
    size_t live = esp_alloc_live();
    struct esp_status st;
    esp_alloc_fail_at(failing);
    struct esp_edit *edit = esp_edit_new(layout);
    code = edit ? esp_edit_assign(edit, "a", 1, "head", &st) : ESP_RESOURCE_EXHAUSTED;
    esp_alloc_fail_at(-1);
    esp_edit_free(edit);
    assert_int_equal(esp_alloc_live(), live);
    assert_int_equal(layout->refs, 1);
    expect_sound(layout);
  }
  assert_true(failing > 9);
  tree_drop(layout);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(the_nearest_wins_also_for_what_comes_later),
      ESP_TEST(undefined_names_fall_back_and_are_kept),
      ESP_TEST(assigning_again_changes_nothing),
      ESP_TEST(a_leaf_born_with_a_group_overrides),
      ESP_TEST(bad_assignments_are_refused),
      ESP_TEST(all_small_sets_of_assignments),
      ESP_TEST(many_assignments_in_any_order),
      ESP_TEST(assignments_survive_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
