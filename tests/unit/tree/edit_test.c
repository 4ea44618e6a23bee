/* Tests of server/tree/edit.c: freeze, thaw and set, with ties; several operations in one edit; random operations
 * against plain arrays; every allocation failing. */
#include <stdio.h>

#include "base/alloc.h"
#include "fixture.h"

static void touch_ok(struct esp_edit *edit, const char *text) {
  struct esp_selection sel = pick(esp_edit_view(edit), text);
  struct esp_status st;
  expect_ok(esp_edit_touch(edit, &sel, "value", "set", &st), &st);
  esp_selection_done(&sel);
}

/* a, d and b.x are one parameter, whose primary is d; c.y and b.y are another, whose primary is b.y. All of epoch 2. */
static struct esp_layout *tied_tree(void) {
  const char *paths[] = {"a", "b.x", "b.y", "c.y", "d", "e"};
  struct esp_leaf_new leaves[LEN_OF(paths)];
  for (size_t i = 0; i < LEN_OF(paths); i++) {
    leaves[i] = leaf_of(paths[i]);
  }
  struct esp_layout *layout = tree_empty();
  struct esp_edit *edit = esp_edit_new(layout);
  edit_add_ok(edit, leaves, LEN_OF(paths));
  tie_ok(edit, "a", "d", ESP_VIEW_IDENTITY);
  tie_ok(edit, "b.x", "d", ESP_VIEW_IDENTITY);
  tie_ok(edit, "c.y", "b.y", ESP_VIEW_IDENTITY);
  finish(edit, &layout);
  return layout;
}

static void freezing_is_exact_and_idempotent(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"enc.b", "enc.w", "out"}, 3);
  struct esp_edit *edit = esp_edit_new(layout);
  freeze_ok(edit, "enc", true);
  struct esp_diff diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 2);
  expect_change(&diff.changes[0], "enc.b", "frozen", "false", "true", "");
  expect_change(&diff.changes[1], "enc.w", "frozen", "false", "true", "");
  assert_int_equal(diff.changes[1].leaf_id, 2);
  esp_diff_done(&diff);
  expect_sound(layout);
  assert_int_equal(layout->epoch, 3);
  assert_int_equal(layout->frozen_len, 2);
  assert_int_equal(layout->leaves[0].changed_epoch, 3);
  assert_int_equal(layout->leaves[2].changed_epoch, 2);
  struct esp_layout *before = layout;
  edit = esp_edit_new(layout);
  freeze_ok(edit, "enc.w", true);
  diff = finish_ok(edit, &layout);
  assert_ptr_equal(layout, before);
  assert_int_equal(diff.len, 0);
  edit = esp_edit_new(layout);
  freeze_ok(edit, "**", true); /* only what was free changes */
  freeze_ok(edit, "enc.b", false);
  diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 2);
  expect_change(&diff.changes[0], "out", "frozen", "false", "true", "");
  expect_change(&diff.changes[1], "enc.b", "frozen", "true", "false", "");
  esp_diff_done(&diff);
  expect_sound(layout);
  assert_int_equal(layout->leaves[1].changed_epoch, 3);
  tree_drop(layout);
}

static void ties_change_together_and_say_because(void **state) {
  (void)state;
  struct esp_layout *layout = tied_tree();
  struct esp_edit *edit = esp_edit_new(layout);
  freeze_ok(edit, "b", true);
  struct esp_diff diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 5);
  expect_change(&diff.changes[0], "a", "frozen", "false", "true", "b.x");
  expect_change(&diff.changes[1], "b.x", "frozen", "false", "true", "");
  expect_change(&diff.changes[2], "b.y", "frozen", "false", "true", "");
  expect_change(&diff.changes[3], "c.y", "frozen", "false", "true", "b.y");
  expect_change(&diff.changes[4], "d", "frozen", "false", "true", "b.x");
  esp_diff_done(&diff);
  expect_sound(layout);
  assert_int_equal(layout->frozen_len, 5);
  for (size_t i = 0; i < 6; i++) {
    assert_int_equal(layout->leaves[i].changed_epoch, i < 5 ? 3 : 2);
  }
  edit = esp_edit_new(layout);
  touch_ok(edit, "c");
  diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 2);
  expect_change(&diff.changes[0], "b.y", "value", "", "set", "c.y");
  expect_change(&diff.changes[1], "c.y", "value", "", "set", "");
  esp_diff_done(&diff);
  assert_int_equal(layout->epoch, 4);
  assert_int_equal(layout->leaves[3].changed_epoch, 3);
  tree_drop(layout);
}

/* Leaves that are added among tied ones leave every binding as it was. */
static void adding_among_ties(void **state) {
  (void)state;
  const char *news[] = {"0", "a-", "b.w", "b.xx", "b.z", "c.a", "cc", "d-", "f"};
  for (unsigned set = 0; set < 1u << LEN_OF(news); set++) {
    struct esp_layout *layout = tied_tree();
    struct esp_leaf_new leaves[LEN_OF(news)];
    size_t len = 0;
    for (size_t i = 0; i < LEN_OF(news); i++) {
      if (set >> i & 1) {
        leaves[len++] = leaf_of(news[i]);
      }
    }
    struct esp_edit *edit = esp_edit_new(layout);
    edit_add_ok(edit, leaves, len);
    struct esp_diff diff = finish_ok(edit, &layout);
    assert_int_equal(diff.len, len);
    esp_diff_done(&diff);
    expect_sound(layout);
    const struct { uint64_t leaf, param; } bound[] = {{1, 5}, {2, 5}, {3, 3}, {4, 3}, {5, 5}, {6, 6}};
    for (size_t i = 0; i < LEN_OF(bound); i++) {
      const struct esp_leaf *leaf = esp_layout_leaf_by_id(layout, bound[i].leaf);
      assert_int_equal(esp_layout_place(layout, leaf)->id, bound[i].param);
    }
    assert_int_equal(layout->params_len, 3 + len);
    tree_drop(layout);
  }
}

static void buffers_take_the_flag_too(void **state) {
  (void)state;
  struct esp_layout *layout = tree_empty();
  struct esp_leaf_new leaf = leaf_of("mean");
  leaf.kind = ESP_KIND_BUFFER;
  struct esp_edit *edit = esp_edit_new(layout);
  edit_add_ok(edit, &leaf, 1);
  freeze_ok(edit, "mean", true); /* selected in the middle of the edit */
  struct esp_diff diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 2);
  esp_diff_done(&diff);
  assert_true(layout->params[0].frozen);
  assert_int_equal(layout->trained_len, 0);
  expect_sound(layout);
  tree_drop(layout);
}

static void detach_ok(struct esp_edit *edit, const char *text, bool detached) {
  struct esp_selection sel = pick(esp_edit_view(edit), text);
  struct esp_status st;
  expect_ok(esp_edit_detach(edit, &sel, detached, &st), &st);
  esp_selection_done(&sel);
}

/* Of leaves, not of parameters: what is tied to them stays as it is. Idempotent; buffers are passed over. */
static void detaching_is_of_leaves(void **state) {
  (void)state;
  struct esp_layout *layout = tied_tree();
  struct esp_leaf_new news[] = {leaf_of("f.mean"), leaf_of("f.w"), leaf_of("f.born")};
  news[0].kind = ESP_KIND_BUFFER;
  news[0].detached = true;
  news[2].detached = true;
  struct esp_edit *edit = esp_edit_new(layout);
  edit_add_ok(edit, news, LEN_OF(news));
  finish(edit, &layout);
  assert_int_equal(layout->detached_len, 1);
  edit = esp_edit_new(layout);
  detach_ok(edit, "b.x f", true);
  struct esp_diff diff = finish_ok(edit, &layout);
  expect_sound(layout);
  assert_int_equal(diff.len, 2);
  expect_change(&diff.changes[0], "b.x", "detached", "false", "true", "");
  assert_int_equal(diff.changes[0].leaf_id, 2);
  expect_change(&diff.changes[1], "f.w", "detached", "false", "true", "");
  esp_diff_done(&diff);
  assert_int_equal(layout->detached_len, 3);
  assert_false(layout->leaves[index_of(layout, "a")].detached);
  assert_true(layout->leaves[index_of(layout, "b.x")].detached);
  assert_false(layout->leaves[index_of(layout, "f.mean")].detached);
  assert_int_equal(layout->leaves[index_of(layout, "b.x")].changed_epoch, layout->epoch);
  assert_int_equal(layout->leaves[index_of(layout, "a")].changed_epoch, 2);
  assert_int_equal(layout->leaves[index_of(layout, "f.born")].changed_epoch, 3);
  struct esp_layout *before = layout;
  edit = esp_edit_new(layout);
  detach_ok(edit, "b.x f.w", true);
  detach_ok(edit, "f.mean", true);
  detach_ok(edit, "a", false);
  assert_ptr_equal(esp_edit_view(edit), layout); /* no copy was made */
  finish(edit, &layout);
  assert_ptr_equal(layout, before);
  edit = esp_edit_new(layout);
  detach_ok(edit, "**", false);
  diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 3);
  expect_change(&diff.changes[2], "f.w", "detached", "true", "false", "");
  esp_diff_done(&diff);
  assert_int_equal(layout->detached_len, 0);
  expect_sound(layout);
  tree_drop(layout);
}

static void nothing_selected_changes_nothing(void **state) {
  (void)state;
  struct esp_layout *layout = tree_empty();
  struct esp_layout *before = layout;
  struct esp_edit *edit = esp_edit_new(layout);
  freeze_ok(edit, "", true);
  touch_ok(edit, "");
  assert_ptr_equal(esp_edit_view(edit), layout);
  struct esp_diff diff = finish_ok(edit, &layout);
  assert_ptr_equal(layout, before);
  assert_int_equal(diff.len, 0);
  esp_edit_free(NULL);
  tree_drop(layout);
}

/* A diff outlives its layouts and its tree. */
static void diffs_keep_their_strings(void **state) {
  (void)state;
  struct esp_layout *layout = tree_empty();
  struct esp_leaf_new leaf = leaf_of("a.w");
  struct esp_edit *edit = esp_edit_new(layout);
  struct esp_status st;
  edit_add_ok(edit, &leaf, 1);
  expect_ok(esp_edit_assign(edit, "a", 1, "head", &st), &st);
  struct esp_diff diff = finish_ok(edit, &layout);
  tree_drop(layout);
  expect_change(&diff.changes[0], "a.w", "leaf", "", "f32 [2]", "");
  expect_change(&diff.changes[1], "a", "group", "", "head", "");
  esp_diff_done(&diff);
}

/* What an edit that is dropped added is gone, storages too. */
static void dropped_edits_leave_no_trace(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"a"}, 1);
  size_t live = esp_alloc_live();
  struct esp_leaf_new leaf = leaf_of("b");
  struct esp_edit *edit = esp_edit_new(layout);
  edit_add_ok(edit, &leaf, 1);
  freeze_ok(edit, "a", true);
  assert_int_equal(esp_edit_view(edit)->leaves_len, 2);
  esp_edit_free(edit);
  assert_int_equal(esp_alloc_live(), live);
  assert_int_equal(layout->leaves_len, 1);
  assert_false(layout->params[0].frozen);
  expect_sound(layout);
  tree_drop(layout);
}

/* ---- random operations against plain arrays ---- */

enum { LEAVES = 24 };

struct model {
  uint32_t param[LEAVES]; /* leaf to parameter */
  bool frozen[LEAVES];    /* by parameter */
  uint64_t changed[LEAVES];
};

static struct esp_selection random_selection(uint64_t *seed) {
  struct esp_selection sel = {.leaves = esp_malloc_array(LEAVES, sizeof(uint32_t))};
  uint64_t odds = 1 + esp_test_random(seed) % 6;
  for (uint32_t i = 0; i < LEAVES; i++) {
    if (esp_test_random(seed) % odds == 0) {
      sel.leaves[sel.len++] = i;
    }
  }
  return sel;
}

static bool is_selected(const struct esp_selection *sel, uint32_t leaf) {
  for (size_t i = 0; i < sel->len; i++) {
    if (sel->leaves[i] == leaf) {
      return true;
    }
  }
  return false;
}

/* Freezes in the model and returns how many lines the diff has for it; each line is looked for. */
static size_t model_freeze(struct model *model, const struct esp_selection *sel, bool frozen, uint64_t epoch) {
  bool flipped[LEAVES] = {0};
  size_t lines = 0;
  for (size_t i = 0; i < sel->len; i++) {
    uint32_t param = model->param[sel->leaves[i]];
    flipped[param] = flipped[param] || model->frozen[param] != frozen;
    model->frozen[param] = frozen;
  }
  for (size_t i = 0; i < LEAVES; i++) {
    if (flipped[model->param[i]]) {
      model->changed[i] = epoch;
      lines++;
    }
  }
  return lines;
}

static void expect_model(const struct esp_layout *layout, const struct model *model) {
  expect_sound(layout);
  for (size_t i = 0; i < LEAVES; i++) {
    assert_int_equal(layout->leaves[i].param, model->param[i]);
    assert_int_equal(layout->params[model->param[i]].frozen, model->frozen[model->param[i]]);
    assert_int_equal(layout->leaves[i].changed_epoch, model->changed[i]);
  }
}

static struct esp_layout *random_ties(uint64_t *seed, struct model *model) {
  char names[LEAVES][8];
  const char *paths[LEAVES];
  for (size_t i = 0; i < LEAVES; i++) {
    snprintf(names[i], sizeof names[i], "n%02zu", i);
    paths[i] = names[i];
  }
  struct esp_layout *layout = tree_of(paths, LEAVES);
  struct esp_edit *edit = esp_edit_new(layout);
  for (uint64_t ties = esp_test_random(seed) % LEAVES; ties > 0; ties--) {
    size_t alias = esp_test_random(seed) % LEAVES;
    size_t target = esp_test_random(seed) % LEAVES;
    if (alias != target) {
      tie_ok(edit, paths[alias], paths[target], ESP_VIEW_IDENTITY);
    }
  }
  finish(edit, &layout);
  *model = (struct model){0};
  for (size_t i = 0; i < LEAVES; i++) {
    model->param[i] = layout->leaves[i].param;
    model->changed[i] = layout->leaves[i].changed_epoch;
  }
  return layout;
}

static void random_operations_agree_with_arrays(void **state) {
  (void)state;
  for (uint64_t round = 0; round < 200; round++) {
    uint64_t seed = round;
    struct model model;
    struct esp_layout *layout = random_ties(&seed, &model);
    for (int transaction = 0; transaction < 10; transaction++) {
      struct esp_edit *edit = esp_edit_new(layout);
      size_t lines = 0;
      for (uint64_t n = esp_test_random(&seed) % 4; n > 0; n--) {
        struct esp_selection sel = random_selection(&seed);
        bool frozen = esp_test_random(&seed) % 2;
        struct esp_status st;
        expect_ok(esp_edit_freeze(edit, &sel, frozen, &st), &st);
        lines += model_freeze(&model, &sel, frozen, layout->epoch + 1);
        esp_selection_done(&sel);
      }
      expect_model(esp_edit_view(edit), &model);
      uint64_t epoch = layout->epoch + (lines > 0);
      struct esp_diff diff = finish_ok(edit, &layout);
      assert_int_equal(diff.len, lines);
      assert_int_equal(layout->epoch, epoch);
      esp_diff_done(&diff);
      expect_model(layout, &model);
    }
    tree_drop(layout);
  }
}

/* `because` is empty exactly for selected leaves, and else a selected leaf of the same parameter. */
static void because_is_right_for_random_ties(void **state) {
  (void)state;
  for (uint64_t round = 0; round < 200; round++) {
    uint64_t seed = 1000 + round;
    struct model model;
    struct esp_layout *layout = random_ties(&seed, &model);
    struct esp_selection sel = random_selection(&seed);
    struct esp_edit *edit = esp_edit_new(layout);
    struct esp_status st;
    expect_ok(esp_edit_touch(edit, &sel, "value", "set", &st), &st);
    struct esp_diff diff = finish_ok(edit, &layout);
    for (size_t i = 0; i < diff.len; i++) {
      const struct esp_change *change = &diff.changes[i];
      uint32_t leaf = (uint32_t)(esp_layout_leaf_by_id(layout, change->leaf_id) - layout->leaves);
      assert_int_equal(*change->because == '\0', is_selected(&sel, leaf));
      if (*change->because) {
        const struct esp_leaf *other = esp_layout_leaf_by_path(layout, change->because, strlen(change->because));
        assert_true(is_selected(&sel, (uint32_t)(other - layout->leaves)));
        assert_int_equal(other->param, layout->leaves[leaf].param);
      }
    }
    assert_true(diff.len >= sel.len);
    esp_diff_done(&diff);
    esp_selection_done(&sel);
    tree_drop(layout);
  }
}

/* Several operations in one edit, with the Nth allocation failing: base as it was, nothing left behind. */
static void operations_survive_failing_allocations(void **state) {
  (void)state;
  struct esp_layout *layout = tied_tree();
  struct esp_selection all = pick(layout, "**");
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  int64_t failing = 0;
  for (; code != ESP_OK; failing++) {
    size_t live = esp_alloc_live();
    struct esp_status st = {0};
    struct esp_layout *next = NULL;
    struct esp_diff diff;
    esp_alloc_fail_at(failing);
    struct esp_edit *edit = esp_edit_new(layout);
    code = edit ? esp_edit_freeze(edit, &all, true, &st) : ESP_RESOURCE_EXHAUSTED;
    code = code == ESP_OK ? esp_edit_touch(edit, &all, "value", "set", &st) : code;
    code = code == ESP_OK ? esp_edit_detach(edit, &all, true, &st) : code;
    if (edit) {
      enum esp_code finish_code = esp_edit_finish(edit, &next, &diff, &st);
      code = finish_expected(finish_code, code);
    }
    esp_alloc_fail_at(-1);
    if (code == ESP_OK) {
      assert_int_equal(diff.len, 18);
      esp_diff_done(&diff);
      esp_layout_unref(next);
    } else {
      assert_null(next);
    }
    assert_int_equal(esp_alloc_live(), live);
    assert_int_equal(layout->refs, 1);
    assert_int_equal(layout->frozen_len, 0);
    expect_sound(layout);
  }
  assert_true(failing > 9);
  esp_selection_done(&all);
  tree_drop(layout);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(freezing_is_exact_and_idempotent),
      ESP_TEST(ties_change_together_and_say_because),
      ESP_TEST(adding_among_ties),
      ESP_TEST(buffers_take_the_flag_too),
      ESP_TEST(detaching_is_of_leaves),
      ESP_TEST(nothing_selected_changes_nothing),
      ESP_TEST(diffs_keep_their_strings),
      ESP_TEST(dropped_edits_leave_no_trace),
      ESP_TEST(random_operations_agree_with_arrays),
      ESP_TEST(because_is_right_for_random_ties),
      ESP_TEST(operations_survive_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
