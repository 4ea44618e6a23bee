/* Tests of server/tree/layout.c: first layouts, look-ups, ranges for all small trees, references. */
#include <pthread.h>
#include <stdio.h>

#include "base/alloc.h"
#include "fixture.h"

static void a_new_tree_is_empty(void **state) {
  (void)state;
  struct esp_layout *layout = tree_empty();
  assert_int_equal(layout->epoch, 1);
  assert_int_equal(layout->leaves_len, 0);
  assert_int_equal(layout->groups_len, 2);
  assert_string_equal(layout->groups[0].name, "default");
  assert_string_equal(layout->groups[1].expression, "sgd(lr=2)");
  expect_sound(layout);
  assert_null(esp_layout_leaf_by_id(layout, 0));
  assert_null(esp_layout_leaf_by_id(layout, 1));
  assert_null(esp_layout_leaf_by_path(layout, "a", 1));
  tree_drop(layout);
}

static void groups_are_checked(void **state) {
  (void)state;
  struct esp_status st;
  struct esp_layout *layout;
  struct esp_group twice[] = {{"default", "a", NULL}, {"x", "a", NULL}, {"x", "b", NULL}};
  expect_fail(esp_layout_new(twice, 3, &layout, &st), &st, ESP_INVALID_ARGUMENT, "group \"x\" is defined twice");
  expect_fail(esp_layout_new(twice + 1, 1, &layout, &st), &st, ESP_INVALID_ARGUMENT, "no group is called \"default\"");
  struct esp_group bad[] = {{"default", "a", NULL}, {"a:b", "a", NULL}};
  expect_fail(esp_layout_new(bad, 2, &layout, &st), &st, ESP_INVALID_ARGUMENT, "group \"a:b\" has");
  expect_fail(esp_layout_new(NULL, 0, &layout, &st), &st, ESP_INVALID_ARGUMENT, "no group is called \"default\"");
}

static void a_new_tree_survives_failing_allocations(void **state) {
  (void)state;
  struct esp_group group = {.name = "default", .expression = "sgd", .optim = object_new()};
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  int64_t failing = 0;
  for (; code != ESP_OK; failing++) {
    struct esp_layout *layout;
    struct esp_status st;
    size_t live = esp_alloc_live();
    esp_alloc_fail_at(failing);
    code = esp_layout_new(&group, 1, &layout, &st);
    esp_alloc_fail_at(-1);
    if (code == ESP_OK) {
      esp_layout_unref(layout);
    } else {
      expect_fail(code, &st, ESP_RESOURCE_EXHAUSTED, "no memory");
    }
    assert_int_equal(esp_alloc_live(), live);
  }
  assert_true(failing > 4);
  esp_object_unref(group.optim);
  assert_int_equal(atomic_load(&objects_live), 0);
}

/* For trees of every subset of a few paths and every node: the range holds what is within, and nothing else. */
static void ranges_are_what_is_within(void **state) {
  (void)state;
  const char *universe[] = {"a.b.c", "a.b-", "a-.b", "a", "b.a", "b.b.a", "ab.a", "b-"};
  const char *nodes[] = {"",    "a",   "a.b", "a.b.c", "a.b-", "a-", "a-.b",  "b",
                         "b.a", "b.b", "ab",  "b-",    "c",    "-",  "b.b.a", "b.c"};
  for (unsigned subset = 0; subset < 1u << LEN_OF(universe); subset++) {
    if ((subset & 8) && (subset & 3)) {
      continue; /* the leaf a has no leaves below it */
    }
    const char *paths[LEN_OF(universe)];
    size_t len = 0;
    for (size_t i = 0; i < LEN_OF(universe); i++) {
      if (subset >> i & 1) {
        paths[len++] = universe[i];
      }
    }
    struct esp_layout *layout = tree_of(paths, len);
    expect_sound(layout);
    for (size_t i = 0; i < LEN_OF(nodes); i++) {
      size_t first, range_len;
      esp_layout_range(layout, nodes[i], strlen(nodes[i]), &first, &range_len);
      for (size_t j = 0; j < len; j++) {
        assert_int_equal(j >= first && j < first + range_len, naive_within(layout->leaves[j].path, nodes[i]));
      }
      const struct esp_leaf *leaf = esp_layout_leaf_by_path(layout, nodes[i], strlen(nodes[i]));
      bool there = range_len > 0 && strcmp(layout->leaves[first].path, nodes[i]) == 0;
      assert_ptr_equal(leaf, there ? &layout->leaves[first] : NULL);
    }
    tree_drop(layout);
  }
}

/* The last reference may go on any thread, while a newer layout lives on and shares its strings. */
static void *unref_all(void *data) {
  struct esp_layout **layouts = data;
  for (size_t i = 0; i < 20; i++) {
    size_t first, len;
    esp_layout_range(layouts[i], "a", 1, &first, &len);
    assert_int_equal(len, i);
    esp_layout_unref(layouts[i]);
  }
  return NULL;
}

static void older_layouts_are_read_while_newer_ones_are_made(void **state) {
  (void)state;
  struct esp_layout *layouts[20];
  struct esp_layout *layout = tree_empty();
  for (size_t i = 0; i < 20; i++) {
    layouts[i] = esp_layout_ref(layout);
    char path[16];
    snprintf(path, sizeof path, "a.%zu", i);
    struct esp_leaf_new leaf = leaf_of(path);
    struct esp_edit *edit = esp_edit_new(layout);
    edit_add_ok(edit, &leaf, 1);
    struct esp_diff diff = finish_ok(edit, &layout);
    esp_diff_done(&diff);
  }
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, unref_all, layouts), 0);
  for (size_t i = 0; i < 50; i++) {
    char path[16];
    snprintf(path, sizeof path, "b.%zu", i);
    struct esp_leaf_new leaf = leaf_of(path);
    struct esp_edit *edit = esp_edit_new(layout);
    edit_add_ok(edit, &leaf, 1);
    struct esp_diff diff = finish_ok(edit, &layout);
    esp_diff_done(&diff);
  }
  pthread_join(thread, NULL);
  expect_sound(layout);
  assert_int_equal(layout->epoch, 71);
  tree_drop(layout);
}

static void objects_may_be_absent(void **state) {
  (void)state;
  esp_object_ref(NULL);
  esp_object_unref(NULL);
  esp_layout_unref(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(a_new_tree_is_empty),
      ESP_TEST(groups_are_checked),
      ESP_TEST(a_new_tree_survives_failing_allocations),
      ESP_TEST(ranges_are_what_is_within),
      ESP_TEST(older_layouts_are_read_while_newer_ones_are_made),
      ESP_TEST(objects_may_be_absent),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
