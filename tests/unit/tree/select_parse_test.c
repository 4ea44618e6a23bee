/* Tests of server/tree/select_parse.c: what is a selector and what is not, with the columns; depth; memory. */
#include <stdio.h>

#include "base/alloc.h"
#include "fixture.h"

static void expect_syntax(const char *text, const char *words) {
  struct esp_status st = {0};
  enum esp_code code = esp_selector_check(text, strlen(text), &st);
  if (words) {
    expect_fail(code, &st, ESP_INVALID_ARGUMENT, words);
  } else if (code != ESP_OK) {
    fail_msg("\"%s\": %s", text, st.message);
  }
}

static void selectors_are_accepted(void **state) {
  (void)state;
  static const char *const texts[] = {
      "",
      "encoder",
      " encoder\t\r\n",
      "encoder.layers.*.weight",
      "**",
      "**.**.a",
      "a*b.*c*",
      "layer[0-11]_{attn,mlp}*",
      "{a,b}{c,}[3-1]",
      "{ a , b }.c",
      "{a[0-3]*,b}",
      "[000-999999999999999999]",
      "name:bias",
      "name : {weight,bias}",
      "tag:torch.nn.LayerNorm",
      "tag:{torch.*,Dense}",
      "tag:Chain>enc",
      "tag:Chain > enc > 0.* > **.w",
      "a > b",
      "name:attn > q",
      "group:head*",
      "dtype:f32",
      "dtype:{b,}f16",
      "kind:buffer",
      "rank:1",
      "rank != 2",
      "size>=1000000",
      "size<5 & size > 2 | size<=9 & size=3",
      "frozen",
      "frozen & tied&detached",
      "frozen.**",
      "a > frozen",
      "size",
      "rank.w",
      "tag & name | group",
      "@backbone",
      "@ my.selection_2 & a",
      "!a",
      "!!!a",
      "! ( a | b ) & !c",
      "((a))",
      "\xc3\xa9.\xc3\xa9*",
  };
  for (size_t i = 0; i < LEN_OF(texts); i++) {
    expect_syntax(texts[i], NULL);
  }
}

static void words_and_patterns_have_columns(void **state) {
  (void)state;
  static const struct {
    const char *text;
    const char *words;
  } cases[] = {
      {"a..b", "selector, column 3: a component is empty"},
      {".a", "column 1: a component is empty"},
      {"a.", "column 3: a component is empty"},
      {"a.b**", "column 4: ** has to be a whole component"},
      {"***", "column 1: ** has to be a whole component"},
      {"a\"", "column 2: \"\"\" can't be part of a path"},
      {"a.b?", "column 4: \"?\" can't"},
      {"a\x01", "column 2: \"\\x01\" can't"},
      {"\xc3\xa4\xc3\xa4.\xff", "column 4: \"\\xff\" can't"},
      {"a{b", "column 2: \"{\" has no \"}\""},
      {"a | x{b & c}", "column 6: \"{\" has no \"}\""},
      {"a{b,{c}}", "column 5: braces inside braces"},
      {"ab}", "column 3: \"}\" without \"{\""},
      {"{a}}", "column 4: \"}\" without \"{\""},
      {"{}", "column 1: the braces are empty"},
      {"b.{ }", "column 3: the braces are empty"},
      {"{a b,c}", "column 3: a blank inside an alternative"},
      {"{a.b,c}", "column 3: a dot inside braces"},
      {"{a**}", "column 3: ** has to be"},
      {"a,b", "column 2: \",\" outside of braces"},
      {"a]", "column 2: \"]\" without \"[\""},
      {"a[b-c]", "column 2: \"[\" begins a range of numbers"},
      {"[0-1", "column 1: \"[\" begins a range"},
      {"[0-]", "column 1: \"[\" begins a range"},
      {"[-1]", "column 1: \"[\" begins a range"},
      {"[3]", "column 1: \"[\" begins a range"},
      {"[0-3,5]", "column 1: \"[\" begins a range"},
      {"[0.5]", "column 1: \"[\" begins a range"},
      {"{[0-1,2]}", "column 2: \"[\" begins a range"},
      {"[0-1000000000000000000]", "column 4: a number has more than 18 digits"},
      {"[0000000000000000000-1]", "column 2: a number has more than 18 digits"},
  };
  for (size_t i = 0; i < LEN_OF(cases); i++) {
    expect_syntax(cases[i].text, cases[i].words);
  }
  struct esp_status st;
  expect_fail(esp_selector_check("a\0b", 3, &st), &st, ESP_INVALID_ARGUMENT, "column 2: \"\\x00\" can't");
  expect_fail(esp_selector_check("{a\0}", 4, &st), &st, ESP_INVALID_ARGUMENT, "column 3: \"\\x00\" can't");
}

static void grammar_has_columns(void **state) {
  (void)state;
  static const struct {
    const char *text;
    const char *words;
  } cases[] = {
      {" ", "column 2: a path or pattern is missing"},
      {"a b", "column 3: an operator is missing"},
      {"a !b", "column 3: an operator is missing"},
      {"a (b)", "column 3: an operator is missing"},
      {"(a) b", "column 5: an operator is missing"},
      {"(a b)", "column 4: an operator is missing before \"b\""},
      {"a @b", "column 3: an operator is missing"},
      {"a &", "column 4: a path or pattern is missing"},
      {"& a", "column 1: a path or pattern is missing before \"&\""},
      {"a & | b", "column 5: a path or pattern is missing before \"|\""},
      {"\xc3\xa4 | !", "column 6: a path or pattern is missing"},
      {"()", "column 2: a path or pattern is missing before \")\""},
      {"(a", "column 1: \"(\" has no \")\""},
      {"b & (a | (c)", "column 5: \"(\" has no \")\""},
      {"a)", "column 2: \")\" without \"(\""},
      {"a > ", "column 5: a path or pattern is missing"},
      {"a > (b)", "column 5: a path or pattern is missing before \"(\""},
      {"a > @b", "column 5: a path or pattern is missing before \"@\""},
      {"a > !b", "column 5: a path or pattern is missing before \"!\""},
      {"a > tag:b", "column 5: right of \">\" is a path or pattern"},
      {"(a) > b", "column 5: left of \">\" is a path, a pattern, name: or tag:"},
      {"@a > b", "column 4: left of \">\""},
      {"frozen > b", "column 8: left of \">\""},
      {"group:a > b", "column 9: left of \">\""},
      {"size > 5 > b", "column 10: left of \">\""},
      {"> a", "column 1: a path or pattern is missing before \">\""},
      {"a: ", "column 1: \"a:\" is not known; these are: name:, tag:, group:, dtype:, kind:, rank:, size:"},
      {"b | frozen:a", "column 5: \"frozen:\" is not known"},
      {"a.*:b", "column 1: \"a.*:\" is not known"},
      {":b", "column 1: a path or pattern is missing before \":\""},
      {"name:", "column 6: a name or pattern is missing"},
      {"tag:(a)", "column 5: a name or pattern is missing before \"(\""},
      {"name:a:b", "column 7: a path or pattern is missing before \":\""},
      {"name:a.b", "column 7: a dot, and name: takes one component"},
      {"name:{a,b.c}", "column 10: a dot inside braces"},
      {"name:**", "column 6: name: takes one component"},
      {"tag:a**", "column 6: ** is for paths"},
      {"dtype:f31", "column 7: \"f31\" is no dtype; these are: f32, f64, bf16, f16"},
      {"kind:trainable", "column 6: \"trainable\" is no kind; these are: trained, buffer"},
      {"rank:x", "column 6: a number of digits is expected"},
      {"size>=1e6", "column 8: a number of digits is expected"},
      {"size >= ", "column 9: a number is missing"},
      {"size > weight", "column 8: a number of digits is expected"},
      {"size == 3", "column 7: a number is missing before \"=\""},
      {"size<1000000000000000000", "column 6: a number has more than 18 digits"},
      {"a < 5", "column 1: \"a\" is no number; rank and size can be compared"},
      {"tag = b", "column 1: \"tag\" is no number"},
      {"a.b != c", "column 1: \"a.b\" is no number"},
      {"@", "column 2: the name of a selection is missing"},
      {"@@a", "column 2: the name of a selection is missing before \"@\""},
      {"@a*", "column 3: the name of a selection is no pattern"},
  };
  for (size_t i = 0; i < LEN_OF(cases); i++) {
    expect_syntax(cases[i].text, cases[i].words);
  }
}

static void limits_are_kept(void **state) {
  (void)state;
  static char text[ESP_SELECTOR_BYTES_MAX + 2];
  struct esp_status st;
  memset(text, 'a', sizeof text);
  assert_int_equal(esp_selector_check(text, ESP_SELECTOR_BYTES_MAX, &st), ESP_OK);
  expect_fail(esp_selector_check(text, ESP_SELECTOR_BYTES_MAX + 1, &st), &st, ESP_INVALID_ARGUMENT,
              "is longer than 8192");
  for (size_t depth = 64; depth <= 65; depth++) {
    memset(text, '(', depth);
    text[depth] = 'a';
    memset(text + depth + 1, ')', depth);
    text[2 * depth + 1] = '\0';
    expect_syntax(text, depth == 64 ? NULL : "column 65: more than 64 parentheses are open");
  }
  for (size_t i = 0; i < 100; i++) { /* one after the other there may be more */
    memcpy(text + 4 * i, "(a)|", 5);
  }
  text[399] = '\0';
  expect_syntax(text, NULL);
  memset(text, '!', ESP_SELECTOR_BYTES_MAX); /* no recursion */
  text[ESP_SELECTOR_BYTES_MAX - 1] = 'a';
  text[ESP_SELECTOR_BYTES_MAX] = '\0';
  expect_syntax(text, NULL);
  for (size_t i = 0; i < ESP_SELECTOR_BYTES_MAX; i++) {
    text[i] = "a|b&"[i % 4];
  }
  text[ESP_SELECTOR_BYTES_MAX - 1] = '\0';
  expect_syntax(text, NULL);
  for (size_t i = 0; i < ESP_SELECTOR_BYTES_MAX; i++) {
    text[i] = i % 2 ? '.' : '*';
  }
  assert_int_equal(esp_selector_check(text, 2 * ESP_DEPTH_MAX - 1, &st), ESP_OK);
  expect_fail(esp_selector_check(text, 2 * ESP_DEPTH_MAX + 1, &st), &st, ESP_INVALID_ARGUMENT,
              "column 129: more than 64 components");
  for (size_t i = 0; i < ESP_SELECTOR_BYTES_MAX; i++) {
    text[i] = i % 2 ? '>' : '*';
  }
  assert_int_equal(esp_selector_check(text, 2 * ESP_DEPTH_MAX - 1, &st), ESP_OK);
  expect_fail(esp_selector_check(text, 2 * ESP_DEPTH_MAX + 1, &st), &st, ESP_INVALID_ARGUMENT,
              "column 129: more than 64 components");
}

static void checks_survive_failing_allocations(void **state) {
  (void)state;
  const char *text = "a.{b,c[0-3]*} > d & !(name:x | tag:T > e) & @sel | size > 3";
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  int64_t failing = 0;
  for (; code != ESP_OK; failing++) {
    struct esp_status st;
    size_t live = esp_alloc_live();
    esp_alloc_fail_at(failing);
    code = esp_selector_check(text, strlen(text), &st);
    esp_alloc_fail_at(-1);
    if (code != ESP_OK) {
      expect_fail(code, &st, ESP_RESOURCE_EXHAUSTED, "no memory for a selection");
    }
    assert_int_equal(esp_alloc_live(), live);
  }
  assert_true(failing > 3);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(selectors_are_accepted), ESP_TEST(words_and_patterns_have_columns),    ESP_TEST(grammar_has_columns),
      ESP_TEST(limits_are_kept),        ESP_TEST(checks_survive_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
