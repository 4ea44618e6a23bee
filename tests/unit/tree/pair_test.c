/* Pairing leaves by paths and patterns. */
#include <stdio.h>

#include "fixture.h"

static struct esp_layout *tree(void) {
  const char *paths[] = {"dec.0.b", "dec.0.w", "dec.1.w", "enc.0.w", "enc.1.w", "h", "l1.q", "l2.q", "m1.q", "m2.q"};
  return tree_of(paths, LEN_OF(paths));
}

/* Of each pair "from>to", a blank between them. */
static void expect_pairs(const struct esp_layout *layout, const char *from, const char *to, const char *expected) {
  struct esp_pair *pairs = NULL;
  struct esp_status st;
  size_t len = 0;
  size_t used = 0;
  char text[512] = "";
  expect_ok(esp_pair_leaves(layout, from, to, &pairs, &len, &st), &st);
  for (size_t i = 0; i < len; i++) {
    used += (size_t)snprintf(text + used, sizeof text - used, "%s%s>%s", i > 0 ? " " : "",
                             layout->leaves[pairs[i].from].path, layout->leaves[pairs[i].to].path);
  }
  esp_free(pairs);
  assert_string_equal(text, expected);
}

static void expect_none(const struct esp_layout *layout, const char *from, const char *to, enum esp_code code,
                        const char *message) {
  struct esp_pair *pairs = NULL;
  struct esp_status st;
  size_t len = 0;
  expect_fail(esp_pair_leaves(layout, from, to, &pairs, &len, &st), &st, code, message);
  assert_null(pairs);
}

static void pairs(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  expect_pairs(layout, "h", "l1.q", "h>l1.q");
  expect_pairs(layout, "enc", "dec", "enc.0.w>dec.0.w enc.1.w>dec.1.w"); /* what the other side has besides is left */
  expect_pairs(layout, "enc.*", "dec.*", "enc.0.w>dec.0.w enc.1.w>dec.1.w");
  expect_pairs(layout, "*.1.w", "*.0.w", "dec.1.w>dec.0.w enc.1.w>enc.0.w");
  expect_pairs(layout, "enc.**", "dec.**", "enc.0.w>dec.0.w enc.1.w>dec.1.w");
  tree_drop(layout);
}

static void stars_inside(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  expect_pairs(layout, "l*", "m*", "l1.q>m1.q l2.q>m2.q");
  expect_pairs(layout, "l*.q", "m*.q", "l1.q>m1.q l2.q>m2.q");
  expect_pairs(layout, "*1.*", "*2.*", "l1.q>l2.q m1.q>m2.q");
  tree_drop(layout);
}

static void refusals(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  expect_none(layout, "h", "h", ESP_INVALID_ARGUMENT, "itself");
  expect_none(layout, "enc", "enc.0", ESP_INVALID_ARGUMENT, "below the other");
  expect_none(layout, "dec", "enc", ESP_NOT_FOUND, "there is no leaf enc.0.b");
  expect_none(layout, "nosuch", "enc", ESP_NOT_FOUND, "no leaf matches \"nosuch\"");
  expect_none(layout, "enc.*", "dec", ESP_INVALID_ARGUMENT, "wildcards");
  expect_none(layout, "enc.*", "dec.**", ESP_INVALID_ARGUMENT, "column 5");
  expect_none(layout, "enc.a**", "dec.b**", ESP_INVALID_ARGUMENT, "column 6: ** has to be a whole component");
  expect_none(layout, "enc..w", "dec", ESP_INVALID_ARGUMENT, "empty");
  expect_none(layout, "e*c.*.w", "d*c.*.w", ESP_NOT_FOUND, "there is no leaf dnc.0.w");
  expect_none(layout, "*.0", "*.1", ESP_NOT_FOUND, "there is no leaf dec.1.b");
  expect_none(layout, "**.w", "**.b", ESP_NOT_FOUND, "there is no leaf dec.1.b");
  tree_drop(layout);
}

/* A leaf that is the source of one pair and the target of another. */
static void both_sides(void **state) {
  (void)state;
  const char *paths[] = {"a.a", "a.b", "b.b"};
  struct esp_layout *layout = tree_of(paths, LEN_OF(paths));
  expect_none(layout, "a.*", "*.b", ESP_INVALID_ARGUMENT, "leaf a.b is on both sides");
  tree_drop(layout);
}

static void without_memory(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  for (int n = 0; n < 20 && code != ESP_OK; n++) {
    struct esp_pair *pairs = NULL;
    struct esp_status st;
    size_t len = 0;
    esp_alloc_fail_at(n);
    code = esp_pair_leaves(layout, "enc.*", "dec.*", &pairs, &len, &st);
    esp_alloc_fail_at(-1);
    assert_true(code == ESP_OK || (code == ESP_RESOURCE_EXHAUSTED && !pairs));
    esp_free(pairs);
  }
  assert_int_equal(code, ESP_OK);
  tree_drop(layout);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(pairs), ESP_TEST(stars_inside), ESP_TEST(refusals), ESP_TEST(both_sides), ESP_TEST(without_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
