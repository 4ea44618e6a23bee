/* Tests of server/tree/edit_tie.c and what settles after it: bindings, views, primary leaves, groups that stay,
 * refusals, many ties at once, every allocation failing. */
#include <stdio.h>

#include "fixture.h"

static struct esp_leaf_new matrix(const char *path, uint64_t rows, uint64_t columns) {
  struct esp_leaf_new leaf = leaf_of(path);
  leaf.shape = (struct esp_shape){.dims = {rows, columns}, .rank = 2};
  return leaf;
}

/* Epoch 2: enc.emb and dec.emb are [3, 2], dec.head and enc.proj [2, 3], sq.a and sq.b [2, 2], x.a to x.d [2]. */
static struct esp_layout *tree(void) {
  struct esp_leaf_new leaves[] = {
      matrix("enc.emb", 3, 2), matrix("dec.emb", 3, 2), matrix("dec.head", 2, 3), matrix("enc.proj", 2, 3),
      matrix("sq.a", 2, 2),    matrix("sq.b", 2, 2),    leaf_of("x.a"),           leaf_of("x.b"),
      leaf_of("x.c"),          leaf_of("x.d")};
  struct esp_layout *layout = tree_empty();
  struct esp_edit *edit = esp_edit_new(layout);
  edit_add_ok(edit, leaves, LEN_OF(leaves));
  finish(edit, &layout);
  return layout;
}

static enum esp_view view_of(const struct esp_layout *layout, const char *path) {
  return layout->leaves[index_of(layout, path)].view;
}

static const char *primary_of(const struct esp_layout *layout, const char *path) {
  return layout->leaves[place_of(layout, path)->primary].path;
}

static void a_tie_binds_and_the_former_parameter_goes(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_layout *base = esp_layout_ref(layout);
  struct snapshot snapshot = snapshot_of(base);
  uint64_t gone = place_of(layout, "dec.head")->id;
  uint64_t kept = place_of(layout, "enc.emb")->id;
  struct esp_edit *edit = esp_edit_new(layout);
  tie_ok(edit, "dec.head", "enc.emb", ESP_VIEW_TRANSPOSE);
  struct esp_diff diff = finish_ok(edit, &layout);
  expect_sound(layout);
  assert_int_equal(diff.len, 1);
  char from[64];
  char to[64];
  snprintf(from, sizeof from, "parameter %d (dec.head)", (int)gone);
  snprintf(to, sizeof to, "parameter %d (enc.emb) transposed", (int)kept);
  expect_change(&diff.changes[0], "dec.head", "parameter", from, to, "");
  assert_int_equal(diff.changes[0].leaf_id, layout->leaves[index_of(layout, "dec.head")].id);
  esp_diff_done(&diff);
  const struct esp_place *place = place_of(layout, "dec.head");
  assert_ptr_equal(place, place_of(layout, "enc.emb"));
  assert_int_equal(place->id, kept);
  assert_int_equal(place->leaves_len, 2);
  assert_string_equal(primary_of(layout, "dec.head"), "enc.emb"); /* bound first, though dec.head comes before it */
  struct esp_shape shape = esp_layout_shape(layout, &layout->leaves[index_of(layout, "dec.head")]);
  assert_int_equal(shape.dims[0], 2);
  assert_int_equal(shape.dims[1], 3);
  assert_int_equal(layout->params_len, base->params_len - 1);
  assert_int_equal(layout->elements, base->elements - 6);
  assert_int_equal(layout->leaf_bytes, base->leaf_bytes);
  assert_int_equal(layout->leaves[index_of(layout, "dec.head")].changed_epoch, 3);
  assert_int_equal(layout->leaves[index_of(layout, "dec.head")].path_epoch, 2);
  assert_int_equal(layout->leaves[index_of(layout, "enc.emb")].changed_epoch, 2);
  expect_unchanged(base, snapshot);
  assert_int_equal(atomic_load(&objects_live), 12); /* base still has the parameter that went */
  esp_layout_unref(base);
  assert_int_equal(atomic_load(&objects_live), 11);
  tree_drop(layout);
}

/* Through a leaf that itself sees its parameter transposed. */
static void views_compose(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_edit *edit = esp_edit_new(layout);
  tie_ok(edit, "dec.head", "enc.emb", ESP_VIEW_TRANSPOSE);
  tie_ok(edit, "enc.proj", "dec.head", ESP_VIEW_IDENTITY);
  tie_ok(edit, "dec.emb", "dec.head", ESP_VIEW_TRANSPOSE);
  finish(edit, &layout);
  assert_int_equal(view_of(layout, "enc.emb"), ESP_VIEW_IDENTITY);
  assert_int_equal(view_of(layout, "dec.head"), ESP_VIEW_TRANSPOSE);
  assert_int_equal(view_of(layout, "enc.proj"), ESP_VIEW_TRANSPOSE);
  assert_int_equal(view_of(layout, "dec.emb"), ESP_VIEW_IDENTITY);
  assert_int_equal(place_of(layout, "dec.emb")->leaves_len, 4);
  /* The primary goes: what sees the parameter transposed is primary then. An untied leaf's shape is its own. */
  edit = esp_edit_new(layout);
  assert_int_equal(untie_ok(edit, "enc.emb dec.emb"), 2);
  finish(edit, &layout);
  assert_string_equal(primary_of(layout, "enc.proj"), "dec.head");
  assert_int_equal(view_of(layout, "dec.head"), ESP_VIEW_TRANSPOSE);
  assert_int_equal(place_of(layout, "dec.head")->shape.dims[0], 3);
  assert_int_equal(place_of(layout, "dec.emb")->shape.dims[0], 3);
  edit = esp_edit_new(layout);
  assert_int_equal(untie_ok(edit, "enc.proj"), 1);
  finish(edit, &layout);
  assert_int_equal(view_of(layout, "enc.proj"), ESP_VIEW_IDENTITY);
  assert_int_equal(place_of(layout, "enc.proj")->shape.dims[0], 2);
  tree_drop(layout);
}

/* Of a square one the view may change alone; what is bound so already does not change. */
static void tying_again(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_edit *edit = esp_edit_new(layout);
  tie_ok(edit, "sq.b", "sq.a", ESP_VIEW_IDENTITY);
  tie_ok(edit, "sq.b", "sq.a", ESP_VIEW_TRANSPOSE);
  finish(edit, &layout);
  assert_int_equal(view_of(layout, "sq.b"), ESP_VIEW_TRANSPOSE);
  assert_int_equal(place_of(layout, "sq.b")->leaves_len, 2);
  struct esp_layout *before = layout;
  edit = esp_edit_new(layout);
  tie_ok(edit, "sq.b", "sq.a", ESP_VIEW_TRANSPOSE);
  tie_ok(edit, "sq.a", "sq.b", ESP_VIEW_TRANSPOSE); /* the same, said the other way round */
  assert_ptr_equal(esp_edit_view(edit), layout);    /* no copy was made */
  finish(edit, &layout);
  assert_ptr_equal(layout, before);
  tree_drop(layout);
}

static void expect_refused(const char *leaf, const char *to, enum esp_view view, const char *words) {
  struct esp_layout *layout = tree();
  struct esp_leaf_new news[] = {leaf_of("buf"), leaf_of("wide")};
  news[0].kind = ESP_KIND_BUFFER;
  news[1].dtype = ESP_DTYPE_F64;
  struct esp_edit *edit = esp_edit_new(layout);
  edit_add_ok(edit, news, LEN_OF(news));
  finish(edit, &layout);
  struct snapshot snapshot = snapshot_of(layout);
  struct esp_status st;
  edit = esp_edit_new(layout);
  expect_fail(esp_edit_tie(edit, index_of(layout, leaf), index_of(layout, to), view, &st), &st, ESP_INVALID_ARGUMENT,
              words);
  struct esp_layout *next;
  struct esp_diff diff;
  expect_fail(esp_edit_finish(edit, &next, &diff, &st), &st, ESP_INVALID_ARGUMENT, "an earlier operation");
  expect_unchanged(layout, snapshot);
  tree_drop(layout);
}

static void refusals_name_both_and_what_differs(void **state) {
  (void)state;
  expect_refused("x.a", "x.a", ESP_VIEW_IDENTITY, "leaf \"x.a\" can't be tied to \"x.a\": it is the same leaf");
  expect_refused("sq.a", "sq.a", ESP_VIEW_TRANSPOSE, "it is the same leaf");
  expect_refused("x.a", "buf", ESP_VIEW_IDENTITY, "\"x.a\" can't be tied to \"buf\": it is trained, and the other is");
  expect_refused("buf", "x.a", ESP_VIEW_IDENTITY, "it is a buffer, and the other is trained");
  expect_refused("x.a", "wide", ESP_VIEW_IDENTITY, "it is f32, and the other f64");
  expect_refused("x.a", "sq.a", ESP_VIEW_IDENTITY, "its shape is [2], and the other's is [2, 2]");
  expect_refused("dec.head", "enc.emb", ESP_VIEW_IDENTITY, "its shape is [2, 3], and the other's is [3, 2]");
  expect_refused("dec.emb", "enc.emb", ESP_VIEW_TRANSPOSE, "its shape is [3, 2], and the other's transpose is [2, 3]");
  expect_refused("x.a", "x.b", ESP_VIEW_TRANSPOSE, "only what is of rank 2 has a transpose, and its shape is [2]");
}

/* Flag and group are those of the other parameter, which is told where they differed. */
static void what_differs_is_told(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_edit *edit = esp_edit_new(layout);
  assign_ok(edit, "x.b", "head");
  freeze_ok(edit, "x.b", true);
  finish(edit, &layout);
  assert_int_equal(layout->frozen_len, 1);
  edit = esp_edit_new(layout);
  tie_ok(edit, "x.a", "x.b", ESP_VIEW_IDENTITY);
  struct esp_diff diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 3);
  expect_change(&diff.changes[1], "x.a", "frozen", "false", "true", "x.b");
  expect_change(&diff.changes[2], "x.a", "stepped_by", "default", "head", "x.b");
  esp_diff_done(&diff);
  assert_int_equal(layout->frozen_len, 2);
  assert_string_equal(group_of(layout, "x.a"), "head");
  edit = esp_edit_new(layout);
  assert_int_equal(untie_ok(edit, "x.a"), 1);
  diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 2); /* it keeps the group that it had, which its place does not give it */
  expect_change(&diff.changes[1], "x.a", "group", "", "head", "x.b");
  esp_diff_done(&diff);
  expect_sound(layout);
  assert_true(place_of(layout, "x.a")->frozen);
  assert_int_equal(layout->frozen_len, 2);
  assert_int_equal(place_of(layout, "x.a")->leaves_len, 1);
  tree_drop(layout);
}

/* The primary leaf goes elsewhere: the first of the others follows, and the parameter keeps its group. */
static void the_next_primary_keeps_the_group(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_edit *edit = esp_edit_new(layout);
  tie_ok(edit, "x.c", "x.b", ESP_VIEW_IDENTITY);
  tie_ok(edit, "x.a", "x.b", ESP_VIEW_IDENTITY);
  assign_ok(edit, "x.b", "ghost"); /* that is not defined */
  finish(edit, &layout);
  uint64_t id = place_of(layout, "x.a")->id;
  edit = esp_edit_new(layout);
  tie_ok(edit, "x.b", "x.d", ESP_VIEW_IDENTITY);
  struct esp_diff diff = finish_ok(edit, &layout);
  expect_sound(layout);
  assert_int_equal(diff.len, 2);
  expect_change(&diff.changes[1], "x.a", "group", "", "ghost", "x.b");
  assert_int_equal(diff.changes[1].leaf_id, layout->leaves[index_of(layout, "x.a")].id);
  esp_diff_done(&diff);
  assert_int_equal(place_of(layout, "x.a")->id, id);
  assert_string_equal(primary_of(layout, "x.c"), "x.a");
  assert_string_equal(place_of(layout, "x.c")->group_assigned, "ghost");
  assert_string_equal(primary_of(layout, "x.b"), "x.d");
  assert_string_equal(group_of(layout, "x.b"), "default");
  /* Back again, to the former primary's alias: the group is as it was. */
  edit = esp_edit_new(layout);
  tie_ok(edit, "x.b", "x.c", ESP_VIEW_IDENTITY);
  finish(edit, &layout);
  assert_string_equal(primary_of(layout, "x.b"), "x.a"); /* bound before it */
  tree_drop(layout);
}

/* An assignment in the same edit, before or behind the tie that keeps a group, counts as it is said. */
static void assignments_around_a_tie(void **state) {
  (void)state;
  for (int behind = 0; behind < 2; behind++) {
    struct esp_layout *layout = tree();
    struct esp_edit *edit = esp_edit_new(layout);
    tie_ok(edit, "x.a", "x.b", ESP_VIEW_IDENTITY);
    assign_ok(edit, "x.b", "head");
    finish(edit, &layout);
    struct esp_status st;
    edit = esp_edit_new(layout);
    if (!behind) {
      assign_ok(edit, "x.a", "ghost");
    }
    uint32_t leaf = index_of(layout, "x.b");
    expect_ok(esp_edit_tie(edit, leaf, index_of(layout, "x.d"), ESP_VIEW_IDENTITY, &st), &st);
    if (behind) {
      assign_ok(edit, "x.a", "ghost");
    }
    finish(edit, &layout);
    assert_string_equal(place_of(layout, "x.a")->group_assigned, behind ? "ghost" : "head");
    tree_drop(layout);
  }
}

/* What the parameter has when it loses its primary leaf is what stays, also where nobody looked since it got that. */
static void a_group_of_the_same_edit_stays(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_edit *edit = esp_edit_new(layout);
  tie_ok(edit, "x.a", "x.b", ESP_VIEW_IDENTITY);
  finish(edit, &layout);
  struct esp_status st;
  edit = esp_edit_new(layout);
  assign_ok(edit, "x.b", "head");
  uint32_t leaf = index_of(layout, "x.b");
  expect_ok(esp_edit_tie(edit, leaf, index_of(layout, "x.d"), ESP_VIEW_IDENTITY, &st), &st);
  finish(edit, &layout);
  assert_string_equal(group_of(layout, "x.a"), "head");
  tree_drop(layout);
}

/* Leaves move, come and go between ties of one edit: who is bound to what is looked up anew. */
static void ties_between_other_edits(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_status st;
  struct esp_edit *edit = esp_edit_new(layout);
  tie_ok(edit, "x.b", "x.a", ESP_VIEW_IDENTITY);
  tie_ok(edit, "x.c", "x.a", ESP_VIEW_IDENTITY);
  rename_ok(edit, "x.b", "y"); /* x.c is the first of the others now */
  tie_ok(edit, "x.a", "x.d", ESP_VIEW_IDENTITY);
  assert_string_equal(primary_of(esp_edit_view(edit), "y"), "x.c");
  assert_int_equal(untie_ok(edit, "y x.a"), 2);
  tie_ok(edit, "y", "x.d", ESP_VIEW_IDENTITY);
  tie_ok(edit, "x.a", "x.d", ESP_VIEW_IDENTITY);
  remove_ok(edit, "enc.emb");
  struct esp_leaf_new leaf = leaf_of("enc.0");
  edit_add_ok(edit, &leaf, 1); /* as many leaves as before, with other indices */
  leaf = leaf_of("z");
  edit_add_ok(edit, &leaf, 1);
  remove_ok(edit, "dec.emb");
  tie_ok(edit, "x.d", "x.c", ESP_VIEW_IDENTITY);
  const struct esp_layout *now = esp_edit_view(edit);
  assert_string_equal(primary_of(now, "y"), "x.a");
  assert_int_equal(place_of(now, "y")->leaves_len, 2);
  expect_ok(esp_edit_tie(edit, index_of(now, "x.a"), index_of(now, "z"), ESP_VIEW_IDENTITY, &st), &st);
  finish(edit, &layout);
  assert_string_equal(primary_of(layout, "y"), "y");
  tree_drop(layout);
}

/* Who was untied is nobody's next primary leaf. */
static void ties_after_an_untie(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_edit *edit = esp_edit_new(layout);
  tie_ok(edit, "x.b", "x.a", ESP_VIEW_IDENTITY);
  tie_ok(edit, "x.c", "x.a", ESP_VIEW_IDENTITY);
  assert_int_equal(untie_ok(edit, "x.b"), 1);
  tie_ok(edit, "x.a", "x.d", ESP_VIEW_IDENTITY);
  finish(edit, &layout);
  assert_string_equal(primary_of(layout, "x.c"), "x.c");
  assert_string_equal(primary_of(layout, "x.b"), "x.b");
  tree_drop(layout);
}

/* All leaves of a parameter are untied: the primary one keeps it. Those that share nothing are passed over. */
static void untying_all(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_edit *edit = esp_edit_new(layout);
  tie_ok(edit, "x.a", "x.b", ESP_VIEW_IDENTITY);
  tie_ok(edit, "x.c", "x.b", ESP_VIEW_IDENTITY);
  finish(edit, &layout);
  uint64_t id = place_of(layout, "x.b")->id;
  uint64_t next = layout->param_id_next;
  edit = esp_edit_new(layout);
  struct esp_selection sel = pick(layout, "x");
  uint64_t leaves[4];
  uint64_t from[4];
  enum esp_view views[4];
  size_t len;
  struct esp_status st;
  expect_ok(esp_edit_untie(edit, &sel, leaves, from, views, &len, &st), &st);
  esp_selection_done(&sel);
  assert_int_equal(len, 2);
  for (size_t i = 0; i < len; i++) {
    assert_int_equal(leaves[i], layout->leaves[index_of(layout, i == 0 ? "x.a" : "x.c")].id);
    assert_int_equal(from[i], id);
    assert_int_equal(views[i], ESP_VIEW_IDENTITY);
    esp_edit_bind(edit, leaves[i], object_new());
  }
  struct esp_diff diff = finish_ok(edit, &layout);
  expect_sound(layout);
  assert_int_equal(diff.len, 2);
  char was[64];
  char is[64];
  snprintf(was, sizeof was, "parameter %d (x.b)", (int)id);
  snprintf(is, sizeof is, "parameter %d (x.a)", (int)next);
  expect_change(&diff.changes[0], "x.a", "parameter", was, is, "");
  esp_diff_done(&diff);
  assert_int_equal(place_of(layout, "x.b")->id, id);
  assert_int_equal(layout->params_len, 10);
  struct esp_layout *before = layout;
  edit = esp_edit_new(layout);
  assert_int_equal(untie_ok(edit, "**"), 0);
  finish(edit, &layout);
  assert_ptr_equal(layout, before);
  tree_drop(layout);
}

/* Added, tied and never bound: the leaf's first parameter is gone before it had a storage. */
static void born_tied(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_leaf_new leaf = leaf_of("x.0");
  struct esp_edit *edit = esp_edit_new(layout);
  uint64_t id;
  bool added;
  struct esp_status st;
  expect_ok(esp_edit_add(edit, &leaf, 1, &id, &added, &st), &st);
  const struct esp_layout *now = esp_edit_view(edit);
  expect_ok(esp_edit_tie(edit, index_of(now, "x.0"), index_of(now, "x.d"), ESP_VIEW_IDENTITY, &st), &st);
  finish(edit, &layout);
  assert_string_equal(primary_of(layout, "x.0"), "x.d");
  assert_int_equal(layout->params_len, 10);
  tree_drop(layout);
}

/* Every assignment of four leaves to each other, one after the other, without a look between them. */
static void all_small_sequences(void **state) {
  (void)state;
  const char *paths[] = {"a", "b", "c", "d"};
  for (unsigned sequence = 0; sequence < 1u << 16; sequence++) {
    struct esp_layout *layout = tree_of(paths, 4);
    struct esp_edit *edit = esp_edit_new(layout);
    unsigned bound[4] = {0, 1, 2, 3};   /* leaf to parameter */
    unsigned primary[4] = {0, 1, 2, 3}; /* parameter to leaf */
    struct esp_status st;
    for (unsigned i = 0; i < 4; i++) {
      unsigned leaf = sequence >> 4 * i & 3;
      unsigned to = sequence >> (4 * i + 2) & 3;
      if (leaf == to) {
        continue;
      }
      expect_ok(esp_edit_tie(edit, leaf, to, ESP_VIEW_IDENTITY, &st), &st);
      unsigned old = bound[leaf];
      bound[leaf] = bound[to];
      for (unsigned j = 0; primary[old] == leaf && old != bound[to] && j < 4; j++) {
        primary[old] = bound[j] == old ? j : primary[old];
      }
    }
    finish(edit, &layout);
    for (unsigned i = 0; i < 4; i++) {
      const struct esp_place *place = place_of(layout, paths[i]);
      assert_int_equal(place->id, bound[i] + 1);
      assert_int_equal(place->primary, primary[bound[i]]);
    }
    tree_drop(layout);
  }
}

/* Thousands in one edit: would each be settled by itself, this took minutes. */
static void many_ties_at_once(void **state) {
  (void)state;
  enum { MANY = 30000 };
  struct esp_layout *layout = tree_empty();
  struct esp_leaf_new *leaves = calloc(2 * MANY, sizeof *leaves);
  char(*paths)[16] = calloc(2 * MANY, sizeof *paths);
  for (size_t i = 0; i < 2 * MANY; i++) {
    snprintf(paths[i], sizeof paths[i], "%c%zu.w", i < MANY ? 'a' : 'b', i % MANY);
    leaves[i] = leaf_of(paths[i]);
  }
  struct esp_edit *edit = esp_edit_new(layout);
  edit_add_ok(edit, leaves, 2 * MANY);
  struct esp_diff diff = finish_ok(edit, &layout);
  esp_diff_done(&diff);
  edit = esp_edit_new(layout);
  struct esp_status st;
  for (uint32_t i = 0; i < MANY; i++) {
    expect_ok(esp_edit_tie(edit, i + MANY, i, ESP_VIEW_IDENTITY, &st), &st);
  }
  diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, MANY);
  esp_diff_done(&diff);
  assert_int_equal(layout->params_len, MANY);
  edit = esp_edit_new(layout); /* crosswise: each parameter loses its primary leaf, and keeps the other */
  for (uint32_t i = 0; i + 1 < MANY; i += 2) {
    expect_ok(esp_edit_tie(edit, i, i + 1, ESP_VIEW_IDENTITY, &st), &st);
  }
  diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, MANY / 2);
  esp_diff_done(&diff);
  assert_int_equal(layout->params_len, MANY);
  for (uint32_t i = 0; i < MANY; i++) {
    assert_int_equal(layout->params[layout->leaves[i + MANY].param].primary, i % 2 ? i : i + MANY);
  }
  free(leaves);
  free(paths);
  tree_drop(layout);
}

/* The Nth allocation fails: base as it was, nothing left behind. */
static void ties_survive_failing_allocations(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  struct esp_edit *first = esp_edit_new(layout);
  tie_ok(first, "x.a", "x.b", ESP_VIEW_IDENTITY);
  tie_ok(first, "x.c", "x.b", ESP_VIEW_IDENTITY);
  assign_ok(first, "x.b", "head");
  finish(first, &layout);
  struct esp_selection sel = pick(layout, "x");
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  int64_t failing = 0;
  for (; code != ESP_OK; failing++) {
    size_t live = esp_alloc_live();
    int objects = atomic_load(&objects_live);
    struct snapshot snapshot = snapshot_of(layout);
    struct esp_status st = {0};
    uint64_t leaves[4];
    uint64_t from[4];
    enum esp_view views[4];
    size_t len = 0;
    struct esp_layout *next;
    struct esp_diff diff;
    esp_alloc_fail_at(failing);
    struct esp_edit *edit = esp_edit_new(layout);
    code = edit ? esp_edit_tie(edit, index_of(layout, "x.b"), index_of(layout, "x.d"), ESP_VIEW_IDENTITY, &st)
                : ESP_RESOURCE_EXHAUSTED;
    code = code == ESP_OK ? esp_edit_untie(edit, &sel, leaves, from, views, &len, &st) : code;
    for (size_t i = 0; code == ESP_OK && i < len; i++) {
      esp_edit_bind(edit, leaves[i], object_new());
    }
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
    assert_int_equal(atomic_load(&objects_live), objects);
    assert_int_equal(layout->refs, 1);
    expect_unchanged(layout, snapshot);
  }
  assert_true(failing > 12);
  esp_selection_done(&sel);
  tree_drop(layout);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(a_tie_binds_and_the_former_parameter_goes),
      ESP_TEST(views_compose),
      ESP_TEST(tying_again),
      ESP_TEST(refusals_name_both_and_what_differs),
      ESP_TEST(what_differs_is_told),
      ESP_TEST(the_next_primary_keeps_the_group),
      ESP_TEST(assignments_around_a_tie),
      ESP_TEST(a_group_of_the_same_edit_stays),
      ESP_TEST(ties_between_other_edits),
      ESP_TEST(ties_after_an_untie),
      ESP_TEST(untying_all),
      ESP_TEST(born_tied),
      ESP_TEST(all_small_sequences),
      ESP_TEST(many_ties_at_once),
      ESP_TEST(ties_survive_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
