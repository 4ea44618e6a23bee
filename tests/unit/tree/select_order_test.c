/* Tests of server/tree/select_order.c: the order of alternatives, ranges and wildcards, each leaf once, what it
 * refuses, every allocation failing. */
#include <stdio.h>

#include "fixture.h"

static struct esp_layout *tree(void) {
  static const char *const paths[] = {
      "dec.layers.0.w", "dec.layers.1.w",  "enc.layers.0.b", "enc.layers.0.w",
      "enc.layers.1.b", "enc.layers.1.w",  "enc.layers.2.b", "enc.layers.2.w",
      "enc.layers.9.w", "enc.layers.10.w", "enc.norm.w",     "head.w",
      "x.a1z",          "x.a2z",           "x.a3y",          "x.b",
      "x.b2z.deep.er",
  };
  return tree_of(paths, LEN_OF(paths));
}

/* The first leaf of each selection and how many it has, as `path+n`, with blanks between them. */
static const char *ordered(const struct esp_layout *layout, const char *text, char *buffer, size_t size) {
  struct esp_selection *sels = NULL;
  size_t len = 0;
  struct esp_status st;
  size_t used = 0;
  uint8_t seen[64] = {0};
  expect_ok(esp_select_in_order(layout, text, strlen(text), &sels, &len, &st), &st);
  size_t all_len = 0;
  for (size_t i = 0; i < len; i++) {
    assert_true(sels[i].len > 0);
    for (size_t j = 0; j < sels[i].len; j++) {
      assert_true(j == 0 || sels[i].leaves[j - 1] < sels[i].leaves[j]);
      assert_int_equal(seen[sels[i].leaves[j]]++, 0);
    }
    used +=
        (size_t)snprintf(buffer + used, size - used, "%s%s", i > 0 ? " " : "", layout->leaves[sels[i].leaves[0]].path);
    if (sels[i].len > 1) {
      used += (size_t)snprintf(buffer + used, size - used, "+%d", (int)sels[i].len - 1);
    }
    all_len += sels[i].len;
    esp_selection_done(&sels[i]);
  }
  esp_free(sels);
  struct esp_selection all; /* together they are what the selector selects */
  expect_ok(esp_select(layout, text, strlen(text), &all, &st), &st);
  assert_int_equal(all.len, all_len);
  for (size_t i = 0; i < all.len; i++) {
    assert_int_equal(seen[all.leaves[i]], 1);
  }
  esp_selection_done(&all);
  return buffer;
}

static void nodes_come_as_they_are_written(void **state) {
  (void)state;
  static const char *const cases[][2] = {
      {"enc.layers.[2-0]", "enc.layers.2.b+1 enc.layers.1.b+1 enc.layers.0.b+1"},
      {"enc.layers.[0-2]", "enc.layers.0.b+1 enc.layers.1.b+1 enc.layers.2.b+1"},
      {"enc.layers.[11-2]", "enc.layers.10.w enc.layers.9.w enc.layers.2.b+1"},
      {"enc.layers.[10-9].w", "enc.layers.10.w enc.layers.9.w"},
      {"{head,enc.norm}", NULL},
      {"{head,enc}", "head.w enc.layers.0.b+8"},
      {"{enc,dec}.layers.[1-0].w", "enc.layers.1.w enc.layers.0.w dec.layers.1.w dec.layers.0.w"},
      {"*.layers.[1-0].w", "dec.layers.1.w dec.layers.0.w enc.layers.1.w enc.layers.0.w"},
      {"enc.layers.[1-0].{w,b}", "enc.layers.1.w enc.layers.1.b enc.layers.0.w enc.layers.0.b"},
      {"enc.layers.*.b", "enc.layers.0.b enc.layers.1.b enc.layers.2.b"},
      {"x.{b,a}*", "x.b x.b2z.deep.er x.a1z x.a2z x.a3y"},
      {"x.{a[3-1],b}{y,z,}", "x.a3y x.a2z x.a1z x.b"},
      {"x.{a,b}[3-1]{z,y}", "x.a3y x.a2z x.a1z x.b2z.deep.er"},
      {"**.{norm,er}", "enc.norm.w x.b2z.deep.er"},
      {"enc.**.{w,b}", NULL},
      {"enc.layers.0 | head | enc.layers.[1-0] | dec.layers.1",
       "enc.layers.0.b+1 head.w enc.layers.1.b+1 dec.layers.1.w"},
      {"enc.layers.1.w | enc.layers", "enc.layers.1.w enc.layers.0.b+6"},
      {"head | **", "head.w dec.layers.0.w+15"},
      {"(head | x.b) | dec > layers > [1-0]", "head.w x.b dec.layers.1.w dec.layers.0.w"},
      {"name:{w,b}", NULL},
      {"nosuch | head", "head.w"},
  };
  struct esp_layout *layout = tree();
  for (size_t i = 0; i < LEN_OF(cases); i++) {
    char text[512];
    struct esp_selection all;
    struct esp_status st;
    if (esp_select(layout, cases[i][0], strlen(cases[i][0]), &all, &st) != ESP_OK) {
      assert_null(cases[i][1]); /* a dot inside braces */
      continue;
    }
    esp_selection_done(&all);
    ordered(layout, cases[i][0], text, sizeof text);
    if (cases[i][1]) {
      assert_string_equal(text, cases[i][1]);
    }
  }
  tree_drop(layout);
}

static void refusals_say_why(void **state) {
  (void)state;
  static const struct {
    const char *text;
    enum esp_code code;
    const char *words;
  } cases[] = {
      {"", ESP_INVALID_ARGUMENT, "nothing is named"},
      {"head & enc", ESP_INVALID_ARGUMENT, "one by one go the nodes that a path, a pattern"},
      {"head | !enc", ESP_INVALID_ARGUMENT, "column 8: one by one"},
      {"head | frozen", ESP_INVALID_ARGUMENT, "column 8: one by one"},
      {"@named", ESP_INVALID_ARGUMENT, "one by one"},
      {"head |", ESP_INVALID_ARGUMENT, "column"},
      {"x.[0-1]a[0-1]a[0-1]a[0-1]a[0-1]a[0-1]a[0-1]a[0-1]a[0-1]", ESP_INVALID_ARGUMENT,
       "more than 8 ranges and braces"},
      {"haed", ESP_NOT_FOUND, "head"},
      {"enc.layers.[77-70]", ESP_NOT_FOUND, "enc.layers.[77-70]"},
  };
  struct esp_layout *layout = tree();
  for (size_t i = 0; i < LEN_OF(cases); i++) {
    struct esp_selection *sels = NULL;
    size_t len = 0;
    struct esp_status st;
    enum esp_code code = esp_select_in_order(layout, cases[i].text, strlen(cases[i].text), &sels, &len, &st);
    expect_fail(code, &st, cases[i].code, cases[i].words);
  }
  tree_drop(layout);
}

/* Patterns of ranges and alternatives against every way of writing them out. */
static void ranges_inside_braces_agree_with_what_they_stand_for(void **state) {
  (void)state;
  char names[64][32];
  const char *paths[64];
  size_t len = 0;
  for (int i = 0; i < 8; i++) {
    for (int j = 0; j < 8; j++) {
      snprintf(names[len], sizeof names[len], "n.%c%d-%d", 'a' + i % 2, i, j);
      paths[len] = names[len];
      len++;
    }
  }
  struct esp_layout *layout = tree_of(paths, len);
  char expected[2048];
  size_t used = 0;
  for (int i = 7; i >= 1; i -= 2) {
    for (int j = 2; j <= 5; j++) {
      used += (size_t)snprintf(expected + used, sizeof expected - used, "%sn.b%d-%d", used > 0 ? " " : "", i, j);
    }
  }
  for (int i = 0; i < 8; i += 2) {
    for (int j = 2; j <= 5; j++) {
      used += (size_t)snprintf(expected + used, sizeof expected - used, " n.a%d-%d", i, j);
    }
  }
  char text[2048];
  assert_string_equal(ordered(layout, "n.{b[9-0],a[0-9]}-[2-5]", text, sizeof text), expected);
  tree_drop(layout);
}

static void every_allocation_may_fail(void **state) {
  (void)state;
  struct esp_layout *layout = tree();
  const char *text = "{enc,dec}.layers.[9-0] | head";
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  for (int64_t failing = 0; code != ESP_OK; failing++) {
    size_t live = esp_alloc_live();
    struct esp_selection *sels = NULL;
    size_t len = 0;
    struct esp_status st;
    esp_alloc_fail_at(failing);
    code = esp_select_in_order(layout, text, strlen(text), &sels, &len, &st);
    esp_alloc_fail_at(-1);
    assert_true(code == ESP_OK || code == ESP_RESOURCE_EXHAUSTED);
    for (size_t i = 0; i < len; i++) {
      esp_selection_done(&sels[i]);
    }
    esp_free(sels);
    assert_int_equal(esp_alloc_live(), live);
    assert_true(code != ESP_OK || (len == 7 && failing > 10));
  }
  tree_drop(layout);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(nodes_come_as_they_are_written),
      ESP_TEST(refusals_say_why),
      ESP_TEST(ranges_inside_braces_agree_with_what_they_stand_for),
      ESP_TEST(every_allocation_may_fail),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
