/* Tests of server/tree/add.c: what is refused and in which words, joining, identities, order; random batches against a
 * plain list; every allocation failing. */
#include <stdio.h>

#include "base/alloc.h"
#include "fixture.h"

/* One batch on a tree that has the leaves `enc.w` (f32 [2]) and `head` (f64 [3, 4], a buffer). */
static struct esp_layout *two_leaves(void) {
  struct esp_layout *layout = tree_empty();
  struct esp_leaf_new leaves[] = {leaf_of("enc.w"), leaf_of("head")};
  leaves[1].shape = (struct esp_shape){.dims = {3, 4}, .rank = 2};
  leaves[1].dtype = ESP_DTYPE_F64;
  leaves[1].kind = ESP_KIND_BUFFER;
  struct esp_edit *edit = esp_edit_new(layout);
  edit_add_ok(edit, leaves, 2);
  struct esp_diff diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 2);
  assert_string_equal(diff.changes[0].field, "leaf");
  assert_string_equal(diff.changes[0].path, "enc.w");
  assert_string_equal(diff.changes[0].from, "");
  assert_string_equal(diff.changes[0].to, "f32 [2]");
  assert_string_equal(diff.changes[0].because, "");
  assert_string_equal(diff.changes[1].to, "f64 [3, 4] buffer");
  assert_int_equal(diff.changes[1].leaf_id, 2);
  esp_diff_done(&diff);
  return layout;
}

/* The batch is refused with these words, and the edit can't be finished. */
static void expect_refused(const struct esp_leaf_new *leaves, size_t len, const char *words) {
  struct esp_layout *layout = two_leaves();
  struct esp_edit *edit = esp_edit_new(layout);
  struct esp_status st;
  struct esp_layout *next = NULL;
  struct esp_diff diff;
  uint64_t ids[4] = {77, 77, 77, 77};
  bool added[4] = {0};
  expect_fail(esp_edit_add(edit, leaves, len, ids, added, &st), &st, ESP_INVALID_ARGUMENT, words);
  assert_int_equal(ids[0], 77);
  expect_fail(esp_edit_finish(edit, &next, &diff, &st), &st, ESP_INVALID_ARGUMENT, "earlier operation");
  assert_null(next);
  expect_sound(layout);
  tree_drop(layout);
}

static void bad_leaves_are_refused(void **state) {
  (void)state;
  struct esp_leaf_new leaf = leaf_of("a..b");
  expect_refused(&leaf, 1, "path \"a..b\": component 2 is empty");
  leaf = leaf_of("x.y");
  leaf.dtype = ESP_DTYPE_NONE;
  expect_refused(&leaf, 1, "leaf \"x.y\" has no dtype that is known");
  leaf = leaf_of("x.y");
  leaf.kind = 3;
  expect_refused(&leaf, 1, "leaf \"x.y\" is neither trained nor a buffer");
  leaf = leaf_of("x.y");
  leaf.shape.dims[0] = 0;
  expect_refused(&leaf, 1, "leaf \"x.y\": ");
  leaf = leaf_of("x.y");
  leaf.shape.rank = 9;
  expect_refused(&leaf, 1, "leaf \"x.y\": rank 9");
  leaf = leaf_of("x.y");
  leaf.tag = "a b";
  expect_refused(&leaf, 1, "leaf \"x.y\": tag \"a b\" has white space");
  leaf = leaf_of("x.y");
  leaf.group = "a|b";
  expect_refused(&leaf, 1, "leaf \"x.y\": group \"a|b\" has");
}

static void conflicts_are_refused(void **state) {
  (void)state;
  struct esp_leaf_new twice[] = {leaf_of("x.y"), leaf_of("x.x"), leaf_of("x.y")};
  expect_refused(twice, 3, "leaf \"x.y\" is declared twice");
  struct esp_leaf_new nested[] = {leaf_of("x.y.z"), leaf_of("x.y-"), leaf_of("x.y")};
  expect_refused(nested, 3, "leaf \"x.y.z\" would lie below \"x.y\", which is a leaf too");
  struct esp_leaf_new below[] = {leaf_of("enc.w-"), leaf_of("enc.w.deep.er")};
  expect_refused(below, 2, "leaf \"enc.w.deep.er\" would lie below \"enc.w\", which is a leaf too");
  struct esp_leaf_new above[] = {leaf_of("enc-"), leaf_of("enc")};
  expect_refused(above, 2, "leaf \"enc\" would lie above \"enc.w\", which is a leaf too");
  struct esp_leaf_new joined[] = {leaf_of("enc.w"), leaf_of("enc.w.b")};
  expect_refused(joined, 2, "leaf \"enc.w.b\" would lie below \"enc.w\"");
}

static void differences_from_what_is_there_are_refused(void **state) {
  (void)state;
  struct esp_leaf_new leaf = leaf_of("head");
  expect_refused(&leaf, 1, "leaf \"head\" is f64 [3, 4] buffer, and is declared as f32 [2]");
  leaf = leaf_of("enc.w");
  leaf.kind = ESP_KIND_BUFFER;
  expect_refused(&leaf, 1, "leaf \"enc.w\" is f32 [2], and is declared as f32 [2] buffer");
  leaf = leaf_of("enc.w");
  leaf.dtype = ESP_DTYPE_F64;
  expect_refused(&leaf, 1, "declared as f64 [2]");
  leaf = leaf_of("enc.w");
  leaf.shape = (struct esp_shape){.rank = 0};
  expect_refused(&leaf, 1, "declared as f32 []");
}

static void more_than_the_address_space_is_refused(void **state) {
  (void)state;
  struct esp_layout *layout = two_leaves();
  struct esp_edit *edit = esp_edit_new(layout);
  struct esp_leaf_new leaf = leaf_of("large");
  struct esp_status st;
  uint64_t id;
  bool added;
  leaf.shape = (struct esp_shape){.dims = {UINT64_C(1) << 60}, .rank = 1};
  expect_fail(esp_edit_add(edit, &leaf, 1, &id, &added, &st), &st, ESP_RESOURCE_EXHAUSTED, "2^62 bytes");
  esp_edit_free(edit);
  tree_drop(layout);
}

/* A second worker: all settings but shape, dtype and kind are of the first. */
static void joining_changes_nothing(void **state) {
  (void)state;
  struct esp_layout *layout = two_leaves();
  struct esp_layout *before = layout;
  struct esp_edit *edit = esp_edit_new(layout);
  struct esp_leaf_new leaf = leaf_of("enc.w");
  leaf.frozen = true;
  leaf.tag = "Linear";
  leaf.group = "head";
  uint64_t id = 0;
  bool added = true;
  struct esp_status st;
  expect_ok(esp_edit_add(edit, &leaf, 1, &id, &added, &st), &st);
  assert_int_equal(id, 1);
  assert_false(added);
  struct esp_diff diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 0);
  assert_null(diff.changes);
  esp_diff_done(&diff);
  esp_diff_done(&diff);
  assert_ptr_equal(layout, before);
  assert_int_equal(layout->refs, 1);
  tree_drop(layout);
}

static void identities_follow_the_batch(void **state) {
  (void)state;
  struct esp_layout *layout = two_leaves();
  struct esp_leaf_new leaves[] = {leaf_of("z"), leaf_of("head"), leaf_of("a"), leaf_of("enc.b"), leaf_of("enc.w")};
  leaves[1].shape = (struct esp_shape){.dims = {3, 4}, .rank = 2};
  leaves[1].dtype = ESP_DTYPE_F64;
  leaves[1].kind = ESP_KIND_BUFFER;
  leaves[0].tag = leaves[2].tag = "Linear";
  leaves[0].group = leaves[2].group = "head";
  leaves[3].frozen = true;
  leaves[3].group = "nosuch";
  uint64_t ids[5];
  bool added[5];
  struct esp_status st;
  struct esp_edit *edit = esp_edit_new(layout);
  expect_ok(esp_edit_add(edit, leaves, 5, ids, added, &st), &st);
  const uint64_t expected[] = {3, 2, 4, 5, 1};
  for (size_t i = 0; i < 5; i++) {
    assert_int_equal(ids[i], expected[i]);
    assert_int_equal(added[i], expected[i] > 2);
    if (added[i]) {
      esp_edit_bind(edit, ids[i], object_new());
    }
  }
  struct esp_diff diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, 6);
  assert_string_equal(diff.changes[0].path, "a");
  assert_string_equal(diff.changes[1].path, "enc.b");
  assert_string_equal(diff.changes[2].path, "z");
  const char *const assigned[][2] = {{"a", "head"}, {"enc.b", "nosuch"}, {"z", "head"}};
  for (size_t i = 0; i < 3; i++) {
    expect_change(&diff.changes[3 + i], assigned[i][0], "group", "", assigned[i][1], "");
    assert_int_equal(diff.changes[3 + i].leaf_id, diff.changes[i].leaf_id);
  }
  esp_diff_done(&diff);
  expect_sound(layout);
  assert_int_equal(layout->epoch, 3);
  const struct esp_leaf *z = esp_layout_leaf_by_id(layout, 3);
  assert_string_equal(z->path, "z");
  assert_string_equal(z->tag, "Linear");
  assert_string_equal(esp_layout_leaf_by_id(layout, 5)->tag, "");
  assert_int_equal(z->changed_epoch, 3);
  assert_int_equal(z->path_epoch, 3);
  assert_int_equal(esp_layout_leaf_by_id(layout, 1)->changed_epoch, 2);
  assert_string_equal(esp_layout_group_of(layout, z)->name, "head");
  const struct esp_leaf *enc_b = esp_layout_leaf_by_id(layout, 5);
  assert_true(esp_layout_place(layout, enc_b)->frozen);
  assert_string_equal(esp_layout_place(layout, enc_b)->group_assigned, "nosuch");
  assert_string_equal(esp_layout_group_of(layout, enc_b)->name, "default");
  tree_drop(layout);
}

/* ---- random batches against a plain list ---- */

struct model_leaf {
  char path[16];
  struct esp_leaf_new leaf;
  uint64_t id;
  bool frozen;
};

struct model {
  struct model_leaf leaves[512];
  size_t len;
};

static const struct model_leaf *model_find(const struct model *model, const char *path) {
  for (size_t i = 0; i < model->len; i++) {
    if (strcmp(model->leaves[i].path, path) == 0) {
      return &model->leaves[i];
    }
  }
  return NULL;
}

static bool model_same(const struct model_leaf *there, const struct model_leaf *leaf) {
  return esp_shape_equal(&there->leaf.shape, &leaf->leaf.shape) && there->leaf.dtype == leaf->leaf.dtype &&
         there->leaf.kind == leaf->leaf.kind;
}

/* Whether the batch may be added, by the definition: pairs. */
static bool model_allows(const struct model *model, const struct model_leaf *batch, size_t len) {
  for (size_t i = 0; i < len; i++) {
    const struct model_leaf *there = model_find(model, batch[i].path);
    if (there && !model_same(there, &batch[i])) {
      return false;
    }
    for (size_t j = 0; j < model->len; j++) {
      const char *path = model->leaves[j].path;
      if (!there && (naive_within(path, batch[i].path) || naive_within(batch[i].path, path))) {
        return false;
      }
    }
    for (size_t j = 0; j < len; j++) {
      if (i != j && naive_within(batch[i].path, batch[j].path)) {
        return false;
      }
    }
  }
  return true;
}

static void random_path(uint64_t *seed, char *path) {
  const char *components[] = {"a", "b", "a-", "+", "ab", "~"};
  size_t depth = 1 + esp_test_random(seed) % 4;
  size_t len = 0;
  for (size_t i = 0; i < depth; i++) {
    len +=
        (size_t)sprintf(path + len, "%s%s", i > 0 ? "." : "", components[esp_test_random(seed) % LEN_OF(components)]);
  }
}

static size_t random_batch(uint64_t *seed, const struct model *model, struct model_leaf *batch) {
  size_t len = 1 + esp_test_random(seed) % 5;
  for (size_t i = 0; i < len; i++) {
    batch[i] = (struct model_leaf){0};
    bool again = model->len > 0 && esp_test_random(seed) % 3 == 0;
    if (again) {
      batch[i] = model->leaves[esp_test_random(seed) % model->len];
    } else {
      random_path(seed, batch[i].path);
      batch[i].leaf = leaf_of("");
      batch[i].leaf.shape.dims[0] = 1 + esp_test_random(seed) % 3;
      batch[i].leaf.dtype = esp_test_random(seed) % 8 ? ESP_DTYPE_F32 : ESP_DTYPE_F64;
      batch[i].leaf.kind = esp_test_random(seed) % 8 ? ESP_KIND_TRAINED : ESP_KIND_BUFFER;
    }
    batch[i].frozen = esp_test_random(seed) % 4 == 0;
    batch[i].leaf.path_len = strlen(batch[i].path);
    batch[i].leaf.frozen = batch[i].frozen;
  }
  return len;
}

static void expect_model(const struct esp_layout *layout, const struct model *model) {
  expect_sound(layout);
  assert_int_equal(layout->leaves_len, model->len);
  for (size_t i = 0; i < model->len; i++) {
    const struct model_leaf *expected = &model->leaves[i];
    const struct esp_leaf *leaf = esp_layout_leaf_by_id(layout, expected->id);
    assert_non_null(leaf);
    assert_string_equal(leaf->path, expected->path);
    const struct esp_place *place = esp_layout_place(layout, leaf);
    assert_true(esp_shape_equal(&place->shape, &expected->leaf.shape));
    assert_int_equal(place->dtype, expected->leaf.dtype);
    assert_int_equal(leaf->kind, expected->leaf.kind);
    assert_int_equal(place->kind, expected->leaf.kind);
    assert_int_equal(place->frozen, expected->frozen);
    assert_int_equal(place->id, expected->id); /* without ties and removals they go up together */
  }
}

/* Adds the batch to both; whether it was allowed. */
static bool add_to_both(struct esp_edit *edit, struct model *model, struct model_leaf *batch, size_t len) {
  struct esp_leaf_new leaves[8];
  uint64_t ids[8];
  bool added[8];
  struct esp_status st;
  for (size_t i = 0; i < len; i++) {
    leaves[i] = batch[i].leaf;
    leaves[i].path = batch[i].path;
  }
  bool allowed = model_allows(model, batch, len);
  enum esp_code code = esp_edit_add(edit, leaves, len, ids, added, &st);
  assert_string_equal(esp_code_name(code), allowed ? "OK" : "INVALID_ARGUMENT");
  for (size_t i = 0; i < len && allowed; i++) {
    const struct model_leaf *there = model_find(model, batch[i].path);
    assert_int_equal(added[i], !there);
    if (there) {
      assert_int_equal(ids[i], there->id);
      continue;
    }
    esp_edit_bind(edit, ids[i], object_new());
    assert_int_equal(ids[i], model->len + 1);
    batch[i].id = ids[i];
    model->leaves[model->len++] = batch[i];
  }
  return allowed;
}

static void random_batches_agree_with_a_list(void **state) {
  (void)state;
  static struct model model, tried;
  for (uint64_t round = 0; round < 60; round++) {
    uint64_t seed = round;
    model.len = 0;
    struct esp_layout *layout = tree_empty();
    for (int transaction = 0; transaction < 40; transaction++) {
      struct esp_edit *edit = esp_edit_new(layout);
      bool allowed = true;
      tried = model;
      for (uint64_t n = esp_test_random(&seed) % 3; n > 0 && allowed; n--) {
        struct model_leaf batch[8];
        size_t len = random_batch(&seed, &tried, batch);
        allowed = add_to_both(edit, &tried, batch, len);
      }
      if (!allowed) {
        esp_edit_free(edit);
        continue;
      }
      expect_model(esp_edit_view(edit), &tried);
      uint64_t epoch = layout->epoch + (tried.len != model.len);
      struct esp_diff diff = finish_ok(edit, &layout);
      assert_int_equal(diff.len, tried.len - model.len);
      assert_int_equal(layout->epoch, epoch);
      esp_diff_done(&diff);
      model = tried;
      expect_model(layout, &model);
    }
    tree_drop(layout);
  }
}

/* ---- scale and memory ---- */

static void many_leaves_in_any_order(void **state) {
  (void)state;
  enum { MANY = 20000 };
  static char paths[MANY][48];
  struct esp_leaf_new *leaves = calloc(MANY, sizeof *leaves);
  uint64_t seed = 3;
  for (size_t i = 0; i < MANY; i++) {
    size_t n = i * 7919 % MANY;
    snprintf(paths[i], sizeof paths[i], "model.layers.%zu.attention.%zu.%s", n / 40, n / 2 % 20, n % 2 ? "w" : "b");
    leaves[i] = leaf_of(paths[i]);
    leaves[i].shape.dims[0] = 1 + esp_test_random(&seed) % 200; /* more shapes than the diff remembers */
  }
  struct esp_layout *layout = tree_empty();
  struct esp_edit *edit = esp_edit_new(layout);
  edit_add_ok(edit, leaves, MANY / 2);
  edit_add_ok(edit, leaves, MANY);
  struct esp_diff diff = finish_ok(edit, &layout);
  assert_int_equal(diff.len, MANY);
  for (size_t i = 0; i < MANY; i++) {
    const struct esp_leaf *leaf = esp_layout_leaf_by_id(layout, diff.changes[i].leaf_id);
    assert_string_equal(leaf->path, diff.changes[i].path);
    char text[ESP_SHAPE_TEXT_MAX + 8] = "f32 ";
    esp_shape_print(&esp_layout_place(layout, leaf)->shape, text + 4);
    assert_string_equal(diff.changes[i].to, text);
  }
  esp_diff_done(&diff);
  expect_sound(layout);
  free(leaves);
  tree_drop(layout);
}

/* A declaration that fails at any allocation leaves base as it was and nothing behind. */
static void declarations_survive_failing_allocations(void **state) {
  (void)state;
  struct esp_layout *layout = two_leaves();
  struct esp_leaf_new leaves[] = {leaf_of("a"), leaf_of("z"), leaf_of("enc.w"), leaf_of("m")};
  leaves[1].group = "head";
  leaves[3].tag = "Linear";
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  int64_t failing = 0;
  for (; code != ESP_OK; failing++) {
    size_t live = esp_alloc_live();
    struct esp_status st;
    uint64_t ids[4];
    bool added[4];
    esp_alloc_fail_at(failing);
    struct esp_edit *edit = esp_edit_new(layout);
    code = edit ? esp_edit_add(edit, leaves, 4, ids, added, &st) : ESP_RESOURCE_EXHAUSTED;
    esp_alloc_fail_at(-1);
    if (edit && code != ESP_OK) {
      expect_fail(code, &st, ESP_RESOURCE_EXHAUSTED, "no memory to declare 4 leaves");
      esp_edit_view(edit); /* what is there may still be looked at */
      struct esp_layout *next;
      struct esp_diff diff;
      expect_fail(esp_edit_finish(edit, &next, &diff, &st), &st, ESP_RESOURCE_EXHAUSTED, "earlier");
    } else {
      esp_edit_free(edit);
    }
    assert_int_equal(esp_alloc_live(), live);
    assert_int_equal(layout->refs, 1);
    expect_sound(layout);
  }
  assert_true(failing > 12);
  tree_drop(layout);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(bad_leaves_are_refused),
      ESP_TEST(conflicts_are_refused),
      ESP_TEST(differences_from_what_is_there_are_refused),
      ESP_TEST(more_than_the_address_space_is_refused),
      ESP_TEST(joining_changes_nothing),
      ESP_TEST(identities_follow_the_batch),
      ESP_TEST(random_batches_agree_with_a_list),
      ESP_TEST(many_leaves_in_any_order),
      ESP_TEST(declarations_survive_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
