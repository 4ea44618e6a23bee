/* Tests of server/tree/suggest.c: distances against a plain definition, ranking, patterns, room, bounded work. */
#include <stdio.h>

#include "fixture.h"

static void expect_suggestion(const struct esp_layout *layout, const char *text, const char *expected) {
  char buffer[256];
  assert_string_equal(esp_layout_suggest(layout, text, buffer, sizeof buffer), expected);
}

static void near_paths_are_found(void **state) {
  (void)state;
  const char *paths[] = {"decoder.bias", "encoder.bias", "encoder.layers.0.weight", "encoder.layers.1.weight",
                         "encoder.norm.weight"};
  struct esp_layout *layout = tree_of(paths, LEN_OF(paths));
  expect_suggestion(layout, "encoder.bais", "\"encoder.bias\", \"decoder.bias\"");
  expect_suggestion(layout, "enocder", "\"encoder\"");
  expect_suggestion(layout, "encoder.layer.1", "\"encoder.layers.1\", \"encoder.layers\", \"encoder.layers.0\"");
  expect_suggestion(layout, "bias", "\"decoder.bias\", \"encoder.bias\"");
  expect_suggestion(layout, "wieght",
                    "\"encoder.layers.0.weight\", \"encoder.layers.1.weight\", \"encoder.norm.weight\"");
  expect_suggestion(layout, "norm.weigt", "\"encoder.norm.weight\"");
  expect_suggestion(layout, "encoder.nrom.weight", "\"encoder.norm.weight\"");
  tree_drop(layout);
}

static void far_texts_get_what_is_there(void **state) {
  (void)state;
  const char *paths[] = {"a.x", "b.x", "c.x.longer.one", "c.x.longer.two", "d.x", "leaf"};
  struct esp_layout *layout = tree_of(paths, LEN_OF(paths));
  expect_suggestion(layout, "somethingelse", "\"a\", \"b\", \"c\"");
  expect_suggestion(layout, "", "\"a\", \"b\", \"c\"");
  expect_suggestion(layout, "c.x.somethingelse", "\"c.x.longer\"");
  expect_suggestion(layout, "c.x.longer.somethingelse", "\"c.x.longer.one\", \"c.x.longer.two\"");
  expect_suggestion(layout, "leaf.somethingelse", "\"leaf\"");
  tree_drop(layout);
  layout = tree_empty();
  expect_suggestion(layout, "a", "");
  tree_drop(layout);
}

static void patterns_are_searched_by_their_words(void **state) {
  (void)state;
  const char *paths[] = {"decoder.bias", "encoder.layers.0.weight", "encoder.layers.1.weight"};
  struct esp_layout *layout = tree_of(paths, LEN_OF(paths));
  expect_suggestion(layout, "encodr.**", "\"encoder\"");
  expect_suggestion(layout, "encoder.layer.*.weight", "\"encoder.layers\", \"encoder.layers.0\", \"encoder.layers.1\"");
  expect_suggestion(layout, "**.wieght", "\"encoder.layers.0.weight\", \"encoder.layers.1.weight\"");
  expect_suggestion(layout, "encoder.layers.*.*.*.*", "\"encoder.layers.0\", \"encoder.layers.1\"");
  expect_suggestion(layout, "xyzzy*", "\"decoder\", \"encoder\"");
  tree_drop(layout);
}

/* Optimal string alignment by its recursion. */
static size_t naive_distance(const char *a, size_t n, const char *b, size_t m) {
  if (n == 0 || m == 0) {
    return n + m;
  }
  size_t best = naive_distance(a, n - 1, b, m - 1) + (a[n - 1] != b[m - 1]);
  size_t less = naive_distance(a, n - 1, b, m) + 1;
  best = less < best ? less : best;
  less = naive_distance(a, n, b, m - 1) + 1;
  best = less < best ? less : best;
  if (n > 1 && m > 1 && a[n - 1] == b[m - 2] && a[n - 2] == b[m - 1]) {
    less = naive_distance(a, n - 2, b, m - 2) + 1;
    best = less < best ? less : best;
  }
  return best;
}

/* A tree of one leaf is suggested as near exactly where its distance is small; a leaf `far` beside it shows which. */
static void distances_are_right(void **state) {
  (void)state;
  uint64_t seed = 11;
  for (int round = 0; round < 1500; round++) {
    char text[2][9];
    for (size_t which = 0; which < 2; which++) {
      size_t len = 1 + esp_test_random(&seed) % 7;
      for (size_t i = 0; i < len; i++) {
        text[which][i] = "abcd"[esp_test_random(&seed) % 4];
      }
      text[which][len] = '\0';
    }
    struct esp_layout *layout = tree_of((const char *[]){"-far-far-far-far", text[0]}, 2);
    size_t len = strlen(text[1]);
    size_t max = 1 + len / 4 < 3 ? 1 + len / 4 : 3;
    char expected[64];
    bool near = naive_distance(text[1], len, text[0], strlen(text[0])) <= max;
    snprintf(expected, sizeof expected, near ? "\"%s\"" : "\"-far-far-far-far\", \"%s\"", text[0]);
    expect_suggestion(layout, text[1], expected);
    tree_drop(layout);
  }
}

static void the_buffer_is_kept(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"aaa", "bbb", "ccc"}, 3);
  for (size_t size = 1; size < 24; size++) {
    char buffer[24];
    memset(buffer, 'X', sizeof buffer);
    esp_layout_suggest(layout, "zzzzzzzz", buffer, size);
    assert_string_equal(buffer, size > 19   ? "\"aaa\", \"bbb\", \"ccc\""
                                : size > 12 ? "\"aaa\", \"bbb\""
                                : size > 5  ? "\"aaa\""
                                            : "");
    for (size_t i = size; i < sizeof buffer; i++) {
      assert_int_equal(buffer[i], 'X');
    }
  }
  tree_drop(layout);
}

static void long_texts_and_large_trees(void **state) {
  (void)state;
  enum { MANY = 25000 };
  static char names[MANY][24];
  static const char *paths[MANY];
  for (size_t i = 0; i < MANY; i++) {
    snprintf(names[i], sizeof names[i], "block%zu.unit%zu", i / 100, i % 100);
    paths[i] = names[i];
  }
  struct esp_layout *layout = tree_of(paths, MANY);
  expect_suggestion(layout, "blokc77", "\"block77\", \"block17\", \"block177\"");
  static char text[5000];
  memset(text, 'x', sizeof text - 1);
  expect_suggestion(layout, text, "\"block0\", \"block1\", \"block10\"");
  memcpy(text, "block7.", 7);
  expect_suggestion(layout, text, "\"block7.unit0\", \"block7.unit1\", \"block7.unit10\"");
  tree_drop(layout);
  memset(text, 'x', 1000);
  for (size_t i = 99; i < 1000; i += 100) {
    text[i] = '.';
  }
  text[999] = '\0';
  layout = tree_of((const char *[]){text}, 1);
  text[0] = 'y'; /* near, but nothing is compared with so long a text */
  char buffer[256];
  esp_layout_suggest(layout, text, buffer, sizeof buffer);
  assert_int_equal(strlen(buffer), 99 + 2);
  assert_memory_equal(buffer, "\"xxx", 4);
  tree_drop(layout);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(near_paths_are_found),
      ESP_TEST(far_texts_get_what_is_there),
      ESP_TEST(patterns_are_searched_by_their_words),
      ESP_TEST(distances_are_right),
      ESP_TEST(the_buffer_is_kept),
      ESP_TEST(long_texts_and_large_trees),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
