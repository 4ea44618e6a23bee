/* Tests of server/tree/select.c: all small patterns against a recursive matcher, syntax with columns, what is not built
 * yet, hard patterns in bounded time. */
#include <stdio.h>

#include "base/alloc.h"
#include "fixture.h"

/* ---- the naive matcher: tries everything ---- */

static bool naive_component(const char *pattern, size_t pattern_len, const char *text, size_t len) {
  if (pattern_len == 0) {
    return len == 0;
  }
  if (*pattern == '*') {
    for (size_t taken = 0; taken <= len; taken++) {
      if (naive_component(pattern + 1, pattern_len - 1, text + taken, len - taken)) {
        return true;
      }
    }
    return false;
  }
  return len > 0 && *pattern == *text && naive_component(pattern + 1, pattern_len - 1, text + 1, len - 1);
}

/* The pattern matches the path or a node above it. NULL: no component is left. */
static bool naive_matches(const char *pattern, const char *path) {
  if (!pattern) {
    return true;
  }
  size_t pattern_len = strcspn(pattern, ".");
  const char *pattern_rest = pattern[pattern_len] ? pattern + pattern_len + 1 : NULL;
  if (pattern_len == 2 && memcmp(pattern, "**", 2) == 0 && naive_matches(pattern_rest, path)) {
    return true;
  }
  if (!path) {
    return false;
  }
  size_t len = strcspn(path, ".");
  const char *rest = path[len] ? path + len + 1 : NULL;
  if (pattern_len == 2 && memcmp(pattern, "**", 2) == 0) {
    return naive_matches(pattern, rest);
  }
  return naive_component(pattern, pattern_len, path, len) && naive_matches(pattern_rest, rest);
}

/* The selection of text is what the naive matcher finds; NOT_FOUND where that is nothing. */
static void expect_as_naive(const struct esp_layout *layout, const char *text) {
  struct esp_selection sel = {0};
  struct esp_status st;
  enum esp_code code = esp_select(layout, text, strlen(text), &sel, &st);
  size_t at = 0;
  for (uint32_t i = 0; i < layout->leaves_len; i++) {
    bool expected = naive_matches(text, layout->leaves[i].path);
    bool selected = at < sel.len && sel.leaves[at] == i;
    if (selected != expected) {
      fail_msg("%s %s %s", text, selected ? "selects" : "does not select", layout->leaves[i].path);
    }
    at += selected;
  }
  assert_int_equal(at, sel.len);
  assert_int_equal(code, sel.len > 0 ? ESP_OK : ESP_NOT_FOUND);
  esp_selection_done(&sel);
  esp_selection_done(&sel);
}

static struct esp_layout *bushy_tree(void) {
  const char *paths[] = {"a.a.a", "a.a.b", "a.ab.a",  "a.ba", "aa.a.a", "aa.bb", "ab", "b.a.a.a.a",
                         "b.a.b", "b.b.a", "b.aab.b", "ba.a", "ba.aa",  "bb",    "b-", "a-.b"};
  return tree_of(paths, LEN_OF(paths));
}

static void all_small_patterns(void **state) {
  (void)state;
  const char *components[] = {"a", "b", "*", "**", "a*", "*b", "*a*", "c"};
  struct esp_layout *layout = bushy_tree();
  const size_t n = LEN_OF(components);
  for (size_t depth = 1; depth <= 4; depth++) {
    size_t count = 1;
    for (size_t i = 0; i < depth; i++) {
      count *= n;
    }
    for (size_t code = 0; code < count; code++) {
      char text[32];
      size_t len = 0;
      size_t rest = code;
      for (size_t i = 0; i < depth; i++, rest /= n) {
        len += (size_t)sprintf(text + len, "%s%s", i > 0 ? "." : "", components[rest % n]);
      }
      expect_as_naive(layout, text);
    }
  }
  tree_drop(layout);
}

static void all_small_components(void **state) {
  (void)state;
  const char *paths[] = {"a",   "b",   "aa",  "ab",  "ba",  "bb",  "aaa",  "aab",
                         "aba", "abb", "baa", "bab", "bba", "bbb", "abab", "aabb"};
  struct esp_layout *layout = tree_of(paths, LEN_OF(paths));
  for (size_t code = 0; code < 3 * 3 * 3 * 3 * 3; code++) {
    char text[8];
    size_t rest = code;
    for (size_t i = 0; i < 5; i++, rest /= 3) {
      text[i] = "ab*"[rest % 3];
    }
    for (size_t len = 1; len <= 5; len++) {
      char cut[8] = {0};
      memcpy(cut, text, len);
      bool whole = strcmp(cut, "**") == 0;
      struct esp_selection sel;
      if (strstr(cut, "**") && !whole) {
        assert_int_equal(esp_select(layout, cut, len, &sel, NULL), ESP_INVALID_ARGUMENT);
      } else {
        expect_as_naive(layout, cut);
      }
    }
  }
  tree_drop(layout);
}

static void the_empty_selector_selects_all(void **state) {
  (void)state;
  struct esp_layout *layout = bushy_tree();
  struct esp_selection sel;
  struct esp_status st;
  expect_ok(esp_select(layout, "", 0, &sel, &st), &st);
  assert_int_equal(sel.len, layout->leaves_len);
  esp_selection_done(&sel);
  expect_ok(esp_select(layout, "  b.a ", 6, &sel, &st), &st);
  assert_int_equal(sel.len, 2);
  esp_selection_done(&sel);
  tree_drop(layout);
  layout = tree_empty();
  expect_ok(esp_select(layout, "", 0, &sel, &st), &st);
  assert_int_equal(sel.len, 0);
  esp_selection_done(&sel);
  expect_fail(esp_select(layout, "**", 2, &sel, &st), &st, ESP_NOT_FOUND, "no leaf matches \"**\": the tree is empty");
  tree_drop(layout);
}

static void syntax_errors_have_columns(void **state) {
  (void)state;
  static const struct {
    const char *text;
    enum esp_code code;
    const char *words;
  } cases[] = {
      {" ", ESP_INVALID_ARGUMENT, "column 2: a path or pattern is missing"},
      {"a..b", ESP_INVALID_ARGUMENT, "column 3: a component is empty"},
      {".a", ESP_INVALID_ARGUMENT, "column 1: a component is empty"},
      {"a.", ESP_INVALID_ARGUMENT, "column 3: a component is empty"},
      {"a.b**", ESP_INVALID_ARGUMENT, "column 4: ** has to be a whole component"},
      {"***", ESP_INVALID_ARGUMENT, "column 1: ** has to be a whole component"},
      {"a b", ESP_INVALID_ARGUMENT, "column 3: an operator is missing"},
      {"a\"", ESP_INVALID_ARGUMENT, "column 2: \"\"\" can't be part of a path"},
      {"a\x01", ESP_INVALID_ARGUMENT, "column 2: \"\\x01\" can't"},
      {"\xc3\xa4\xc3\xa4.\xff", ESP_INVALID_ARGUMENT, "column 4: \"\\xff\" can't"},
      {"\xc3\xa4\xc3\xa4&b", ESP_UNIMPLEMENTED, "column 3: \"&\" is not built yet"},
      {"frozen", ESP_UNIMPLEMENTED, "column 1: \"frozen\" is not built yet"},
      {" tied", ESP_UNIMPLEMENTED, "column 2: \"tied\" is not built yet"},
      {"frozen & tied", ESP_UNIMPLEMENTED, "column 8: \"&\""},
  };
  struct esp_layout *layout = bushy_tree();
  for (size_t i = 0; i < LEN_OF(cases); i++) {
    struct esp_selection sel;
    struct esp_status st;
    expect_fail(esp_select(layout, cases[i].text, strlen(cases[i].text), &sel, &st), &st, cases[i].code,
                cases[i].words);
  }
  tree_drop(layout);
}

static void every_operator_is_named(void **state) {
  (void)state;
  static const struct {
    const char *before, *behind;
    int column;
  } cases[] = {{"", "", 1}, {"a", "", 2}, {"a.b ", " c", 5}, {"a.", "b}", 3}};
  struct esp_layout *layout = bushy_tree();
  for (const char *operators = "{}[]?&|!():><=@,"; *operators; operators++) {
    for (size_t i = 0; i < LEN_OF(cases); i++) {
      char text[16];
      char words[48];
      snprintf(text, sizeof text, "%s%c%s", cases[i].before, *operators, cases[i].behind);
      snprintf(words, sizeof words, "column %d: \"%c\" is not built yet", cases[i].column, *operators);
      struct esp_selection sel;
      struct esp_status st;
      expect_fail(esp_select(layout, text, strlen(text), &sel, &st), &st, ESP_UNIMPLEMENTED, words);
    }
  }
  tree_drop(layout);
}

static void limits_are_kept(void **state) {
  (void)state;
  static char text[ESP_SELECTOR_BYTES_MAX + 1];
  struct esp_layout *layout = bushy_tree();
  struct esp_selection sel;
  struct esp_status st;
  memset(text, 'a', sizeof text);
  expect_fail(esp_select(layout, text, sizeof text, &sel, &st), &st, ESP_INVALID_ARGUMENT, "is longer than 8192");
  assert_int_equal(esp_select(layout, text, sizeof text - 1, &sel, &st), ESP_NOT_FOUND);
  for (size_t i = 0; i < sizeof text; i++) {
    text[i] = i % 2 ? '.' : '*';
  }
  assert_int_equal(esp_select(layout, text, 2 * ESP_DEPTH_MAX - 1, &sel, &st), ESP_NOT_FOUND);
  expect_fail(esp_select(layout, text, 2 * ESP_DEPTH_MAX + 1, &sel, &st), &st, ESP_INVALID_ARGUMENT,
              "column 129: more than 64 components");
  for (size_t i = 0; i < sizeof text; i++) {
    text[i] = "**.*."[i % 5];
  }
  assert_int_equal(esp_select(layout, text, 64 * 5 - 1, &sel, &st), ESP_NOT_FOUND);
  for (size_t i = 0; i < sizeof text; i++) {
    text[i] = i % 3 == 2 ? '.' : '*';
  }
  expect_ok(esp_select(layout, text, 2000, &sel, &st), &st); /* `**.**. ...` is `**` */
  assert_int_equal(sel.len, layout->leaves_len);
  esp_selection_done(&sel);
  tree_drop(layout);
}

/* Patterns that a matcher which tries everything would never finish. */
static void hard_patterns_end(void **state) {
  (void)state;
  static char path[ESP_PATH_BYTES_MAX + 1];
  static char pattern[ESP_SELECTOR_BYTES_MAX + 1];
  memset(path, 'a', ESP_PATH_BYTES_MAX);
  for (size_t i = 63; i < ESP_PATH_BYTES_MAX; i += 64) {
    path[i] = '.';
  }
  path[ESP_PATH_BYTES_MAX - 1] = 'a';
  struct esp_layout *layout = tree_of((const char *[]){path}, 1);
  size_t len = 0;
  for (size_t i = 0; i < 30; i++) {
    len += (size_t)sprintf(pattern + len, "**.a*.*a*a*a*a*a*a*a*a*a*a*a*a*a*a.");
  }
  sprintf(pattern + len, "b");
  struct esp_selection sel;
  struct esp_status st;
  expect_fail(esp_select(layout, pattern, strlen(pattern), &sel, &st), &st, ESP_NOT_FOUND, "no leaf matches");
  sprintf(pattern + len, "**.a*");
  expect_ok(esp_select(layout, pattern, strlen(pattern), &sel, &st), &st);
  assert_int_equal(sel.len, 1);
  esp_selection_done(&sel);
  tree_drop(layout);
}

static void nothing_found_suggests(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"decoder.bias", "encoder.bias", "encoder.weight"}, 3);
  struct esp_selection sel;
  struct esp_status st;
  expect_fail(esp_select(layout, "encodr", 6, &sel, &st), &st, ESP_NOT_FOUND,
              "no leaf matches \"encodr\"; nearest: \"encoder\"");
  expect_fail(esp_select(layout, " nosuch ", 8, &sel, &st), &st, ESP_NOT_FOUND,
              "no leaf matches \"nosuch\"; nearest: \"decoder\", \"encoder\"");
  tree_drop(layout);
}

static void selections_survive_failing_allocations(void **state) {
  (void)state;
  struct esp_layout *layout = bushy_tree();
  const char *texts[] = {"", "b.a", "**.a", "*.*"};
  for (size_t i = 0; i < LEN_OF(texts); i++) {
    enum esp_code code = ESP_RESOURCE_EXHAUSTED;
    int64_t failing = 0;
    for (; code != ESP_OK; failing++) {
      struct esp_selection sel = {0};
      struct esp_status st;
      size_t live = esp_alloc_live();
      esp_alloc_fail_at(failing);
      code = esp_select(layout, texts[i], strlen(texts[i]), &sel, &st);
      esp_alloc_fail_at(-1);
      if (code != ESP_OK) {
        expect_fail(code, &st, ESP_RESOURCE_EXHAUSTED, "no memory for a selection");
        assert_null(sel.leaves);
      }
      esp_selection_done(&sel);
      assert_int_equal(esp_alloc_live(), live);
    }
    assert_true(failing > 1);
  }
  tree_drop(layout);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(all_small_patterns),
      ESP_TEST(all_small_components),
      ESP_TEST(the_empty_selector_selects_all),
      ESP_TEST(syntax_errors_have_columns),
      ESP_TEST(every_operator_is_named),
      ESP_TEST(limits_are_kept),
      ESP_TEST(hard_patterns_end),
      ESP_TEST(nothing_found_suggests),
      ESP_TEST(selections_survive_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
