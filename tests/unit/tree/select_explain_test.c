/* Tests of server/tree/select_explain.c: what is said where nothing matches. */
#include <stdio.h>

#include "base/alloc.h"
#include "select_fixture.h"

static void nothing_found_says_why(void **state) {
  (void)state;
  static const struct {
    const char *text;
    const char *message;
  } cases[] = {
      {" a.c ", "no leaf matches \"a.c\"; nearest: \"a.a\""},
      {"frozn", "no leaf matches \"frozn\"; nearest: \"frozen\""},
      {"frozn.{a,b}", "no leaf matches \"frozn.{a,b}\"; nearest: \"frozen\""},
      {"b.[4-5].x", "no leaf matches \"b.[4-5].x\"; nearest: \"a\", \"b\""},
      {"name:forzen", "no leaf matches \"name:forzen\"; nearest: \"frozen\""},
      {"b > aba", "no leaf matches \"b > aba\"; nearest: \"b.a.a\", \"b.aab\", \"a.a.a\""},
      {"tag:t.V", "no leaf matches \"tag:t.V\"; the tags are: \"t.U\", \"T\", \"U\", \"V\""},
      {"tag:V", "no leaf matches \"tag:V\"; the tags are: \"V\", "},
      {"tag:V > x", "no leaf matches \"tag:V > x\"; the tags are: \"V\", "},
      {"tag:t.U > aaab", "no leaf matches \"tag:t.U > aaab\"; nearest: \"b.aab\""},
      {"group:haed", "no leaf matches \"group:haed\"; the groups are: \"head\", \"default\", \"nobody's\""},
      {"dtype:f16", "no leaf matches \"dtype:f16\""},
      {"rank:8", "no leaf matches \"rank:8\""},
      {"!a & frozen & detached & tied",
       "no leaf matches \"!a & frozen & detached & tied\": 1 match \"!a & frozen & detached\", 4 match \"tied\", none "
       "matches both"},
      {"!**", "no leaf matches \"!**\": what it leaves out is every leaf"},
      {"a & !(frozen | !frozen)", "no leaf matches \"!(frozen | !frozen)\": what it leaves out is every leaf"},
      {"frozen & kind:buffer | xyz", "no leaf matches \"xyz\"; nearest: "},
      {"rank:8 & xyz", "no leaf matches \"xyz\"; nearest: "},
      {"a & b | rank:8", "no leaf matches \"rank:8\""},
      {"xyz & a & b", "no leaf matches \"xyz\"; nearest: "},
      {"a & xyz", "no leaf matches \"xyz\"; nearest: "},
      {"a & b | ab & aa", "no leaf matches \"a & b\": 4 match \"a\", 8 match \"b\", none matches both"},
      {"b & @none", "no leaf matches \"nosuch\", in @none; nearest: "},
  };
  struct esp_layout *layout = select_tree();
  struct esp_selection sel;
  struct esp_status st;
  for (size_t i = 0; i < LEN_OF(cases); i++) {
    expect_fail(esp_select(layout, cases[i].text, strlen(cases[i].text), &sel, &st), &st, ESP_NOT_FOUND,
                cases[i].message);
  }
  struct esp_group groups[3];
  memcpy(groups, layout->groups, 2 * sizeof *groups);
  groups[2] = (struct esp_group){.name = "unused", .expression = ""};
  esp_free(layout->groups);
  layout->groups = select_array(groups, sizeof groups);
  layout->groups_len = 3;
  expect_fail(esp_select(layout, "group:unus*", 11, &sel, &st), &st, ESP_NOT_FOUND,
              "no leaf matches \"group:unus*\": the group has no leaves");
  tree_drop(layout);
  layout = tree_of((const char *[]){"p"}, 1);
  expect_fail(esp_select(layout, "tag:*", 5, &sel, &st), &st, ESP_NOT_FOUND,
              "no leaf matches \"tag:*\": nothing has a tag");
  tree_drop(layout);
  layout = tree_empty();
  expect_fail(esp_select(layout, " a | !b ", 8, &sel, &st), &st, ESP_NOT_FOUND,
              "no leaf matches \"a | !b\": the tree is empty");
  tree_drop(layout);
}

/* What is right of `>`, with a node's path before it, is longer than a path can be. */
static void children_too_deep_are_none(void **state) {
  (void)state;
  static char text[ESP_SELECTOR_BYTES_MAX];
  struct esp_layout *layout = select_tree();
  for (size_t len = ESP_PATH_BYTES_MAX - 4; len < ESP_PATH_BYTES_MAX + 100; len += len < ESP_PATH_BYTES_MAX ? 1 : 90) {
    strcpy(text, "tag:T > ");
    memset(text + 8, 'a', len);
    text[8 + len] = '\0';
    struct esp_selection sel;
    struct esp_status st;
    expect_fail(esp_select(layout, text, strlen(text), &sel, &st), &st, ESP_NOT_FOUND, "no leaf matches \"tag:T > aaa");
  }
  tree_drop(layout);
}

/* n leaves with as many tags, of which the last is "tag". */
static struct esp_layout *tree_of_tags(size_t n, size_t tag_len) {
  static char paths[16][24];
  static char tags[16][ESP_TAG_BYTES_MAX];
  struct esp_leaf_new leaves[16];
  for (size_t i = 0; i < n; i++) {
    snprintf(paths[i], sizeof paths[i], "p%02zu", i);
    memset(tags[i], 'x', tag_len);
    snprintf(tags[i] + tag_len, sizeof tags[i] - tag_len, "%02zu", i);
    leaves[i] = leaf_of(paths[i]);
    leaves[i].tag = i + 1 < n ? tags[i] : "tag";
  }
  struct esp_layout *layout = tree_empty();
  struct esp_edit *edit = esp_edit_new(layout);
  edit_add_ok(edit, leaves, n);
  struct esp_diff diff = finish_ok(edit, &layout);
  esp_diff_done(&diff);
  return layout;
}

static void long_lists_are_cut(void **state) {
  (void)state;
  static const struct {
    size_t tags;
    size_t tag_len;
    const char *end;
  } cases[] = {
      {12, 1,
       "; the tags are: \"tag\", \"x00\", \"x01\", \"x02\", \"x03\", \"x04\", \"x05\", \"x06\", \"x07\", \"x08\", "
       "\"x09\", \"x10\""},
      {13, 1, "\"x09\", \"x10\", ..."},
      {10, 150, "xxx05\", ..."},
  };
  for (size_t i = 0; i < LEN_OF(cases); i++) {
    struct esp_layout *layout = tree_of_tags(cases[i].tags, cases[i].tag_len);
    struct esp_selection sel;
    struct esp_status st;
    expect_fail(esp_select(layout, "tag:tga", 7, &sel, &st), &st, ESP_NOT_FOUND, "; the tags are: \"tag\", \"x");
    size_t end = strlen(cases[i].end);
    assert_true(strlen(st.message) > end);
    assert_string_equal(st.message + strlen(st.message) - end, cases[i].end);
    tree_drop(layout);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(nothing_found_says_why),
      ESP_TEST(children_too_deep_are_none),
      ESP_TEST(long_lists_are_cut),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
