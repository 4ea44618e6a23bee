/* Tests of server/tree/sort.c: against a naive order, stable, with prefixes of all lengths. */
#include <stdio.h>

#include "fixture.h"
#include "tree/tree_internal.h"

#define ITEMS_MAX 600

static void expect_sorted(const struct esp_sort_item *items, size_t len) {
  for (size_t i = 1; i < len; i++) {
    int order = naive_compare(items[i - 1].path, items[i].path);
    assert_true(order < 0 || (order == 0 && items[i - 1].index < items[i].index));
  }
}

static void sort_random(uint64_t *seed, size_t len, const char *prefix, size_t letters) {
  static char paths[ITEMS_MAX][128];
  static struct esp_sort_item items[2 * ITEMS_MAX];
  static const char alphabet[] = "a.-b.cd";
  for (size_t i = 0; i < len; i++) {
    size_t n = (size_t)snprintf(paths[i], sizeof paths[i], "%s", prefix);
    size_t rest = esp_test_random(seed) % 20;
    for (size_t j = 0; j < rest; j++) {
      char c = alphabet[esp_test_random(seed) % letters];
      paths[i][n] = n == 0 || paths[i][n - 1] == '.' ? 'a' : c;
      n++;
    }
    while (n > 0 && paths[i][n - 1] == '.') {
      n--;
    }
    paths[i][n] = '\0';
    items[i] = (struct esp_sort_item){.path = paths[i], .path_len = (uint32_t)n, .index = (uint32_t)i};
  }
  esp_sort_paths(items, items + len, len);
  expect_sorted(items, len);
}

static void random_batches_are_sorted(void **state) {
  (void)state;
  uint64_t seed = 1;
  const char *prefixes[] = {"", "seven77", "eight.88", "model.layers.12.attention.self.query.weight"};
  for (size_t round = 0; round < 400; round++) {
    size_t len = round < 100 ? round : esp_test_random(&seed) % ITEMS_MAX;
    sort_random(&seed, len, prefixes[round % LEN_OF(prefixes)], 1 + round % 7);
  }
}

/* Nothing is compared beyond the end of a path, which need not have a NUL. */
static void ends_are_kept(void **state) {
  (void)state;
  const char *text = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
  struct esp_sort_item items[64];
  for (uint32_t i = 0; i < 32; i++) {
    items[i] = (struct esp_sort_item){.path = text, .path_len = 32 - i, .index = i};
  }
  esp_sort_paths(items, items + 32, 32);
  for (uint32_t i = 0; i < 32; i++) {
    assert_int_equal(items[i].path_len, i + 1);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(random_batches_are_sorted),
      ESP_TEST(ends_are_kept),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
