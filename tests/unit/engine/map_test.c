/* The map against an array that is searched. */
#include "base/alloc.h"
#include "engine/map.h"
#include "tests/support/test.h"

#define KEYS 64

static void test_random_operations(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 50; seed++) {
    uint64_t random = seed;
    struct esp_map map = {0};
    uintptr_t model[KEYS + 1] = {0};
    size_t len = 0;
    for (int i = 0; i < 2000; i++) {
      uint64_t key = 1 + esp_test_random(&random) % KEYS;
      uintptr_t *value = esp_map_get(&map, key);
      assert_int_equal(value == NULL ? 0 : *value, model[key]);
      if (model[key] == 0) {
        assert_true(esp_map_reserve(&map, len + 1));
        model[key] = (uintptr_t)i + 1;
        esp_map_put(&map, key, model[key]);
        len++;
      } else {
        esp_map_remove(&map, key);
        model[key] = 0;
        len--;
      }
      esp_map_remove(&map, KEYS + 5); /* is not there */
      assert_int_equal(map.len, len);
    }
    esp_map_done(&map);
    esp_map_done(&map);
  }
}

static void test_without_memory(void **state) {
  (void)state;
  struct esp_map map = {0};
  assert_null(esp_map_get(&map, 1));
  assert_true(esp_map_reserve(&map, 1));
  esp_map_put(&map, 9, 1);
  esp_alloc_fail_at(0);
  assert_false(esp_map_reserve(&map, 1000));
  esp_alloc_fail_at(-1);
  assert_int_equal(*esp_map_get(&map, 9), 1);
  esp_map_done(&map);
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(test_random_operations), ESP_TEST(test_without_memory)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
