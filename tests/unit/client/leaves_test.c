#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "client/src/leaves.h"
#include "tests/support/test.h"

static void put(struct esp_leaves *leaves, esp_leaf_id id) {
  char path[32];
  snprintf(path, sizeof path, "leaf%llu", (unsigned long long)id);
  struct esp_leaf_known leaf = {.id = id, .bytes = id * 3, .path = esp_strdup(path)};
  assert_true(esp_leaves_reserve(leaves, 1));
  esp_leaves_put(leaves, &leaf);
}

static void test_find(void **state) {
  (void)state;
  struct esp_leaves leaves = {0};
  assert_null(esp_leaves_find(&leaves, 1));
  for (esp_leaf_id id = 1; id < 3000; id += 2)
    put(&leaves, id);
  put(&leaves, UINT64_MAX);
  assert_int_equal(leaves.len, 1501);
  assert_true(leaves.len <= leaves.capacity / 2);
  for (esp_leaf_id id = 0; id < 3000; id++) {
    const struct esp_leaf_known *leaf = esp_leaves_find(&leaves, id);
    assert_int_equal(leaf != NULL, id % 2 == 1);
    if (leaf != NULL)
      assert_int_equal(leaf->bytes, id * 3);
  }
  assert_non_null(esp_leaves_find(&leaves, UINT64_MAX));
  esp_leaves_done(&leaves);
  assert_null(esp_leaves_find(&leaves, 1));
  esp_leaves_done(&leaves);
}

static void test_put_replaces(void **state) {
  (void)state;
  struct esp_leaves leaves = {0};
  put(&leaves, 5);
  esp_leaves_find(&leaves, 5)->frozen = true;
  put(&leaves, 5);
  assert_int_equal(leaves.len, 1);
  assert_false(esp_leaves_find(&leaves, 5)->frozen);
  esp_leaves_done(&leaves);
}

static void test_spec_copy(void **state) {
  (void)state;
  char path[] = "a.b", tag[] = "Dense", alias_of[] = "a.c";
  struct esp_leaf_spec spec = {.path = path,
                               .tag = tag,
                               .alias_of = alias_of,
                               .detached = true,
                               .shape = {3},
                               .rank = 1,
                               .dtype = ESP_F64,
                               .value = path};
  struct esp_leaf_spec *copy = esp_leaf_spec_copy(&spec);
  memset(path, 'x', 3);
  memset(tag, 'x', 5);
  memset(alias_of, 'x', 3);
  assert_string_equal(copy->path, "a.b");
  assert_string_equal(copy->tag, "Dense");
  assert_string_equal(copy->alias_of, "a.c");
  assert_true(copy->detached && !copy->transposed);
  assert_null(copy->group);
  assert_null(copy->value);
  assert_true(copy->shape[0] == 3 && copy->rank == 1 && copy->dtype == ESP_F64);
  esp_free(copy);
  esp_alloc_fail_at(0);
  assert_null(esp_leaf_spec_copy(&spec));
}

static void test_no_memory(void **state) {
  (void)state;
  struct esp_leaves leaves = {0};
  put(&leaves, 1);
  esp_alloc_fail_at(0);
  assert_false(esp_leaves_reserve(&leaves, 1000));
  esp_alloc_fail_at(-1);
  assert_non_null(esp_leaves_find(&leaves, 1));
  assert_false(esp_leaves_reserve(&leaves, SIZE_MAX / 4));
  esp_leaves_done(&leaves);
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(test_find), ESP_TEST(test_put_replaces), ESP_TEST(test_spec_copy),
                                     ESP_TEST(test_no_memory)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
