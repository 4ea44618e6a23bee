/* Tests of server/tree/select*.c: small patterns, globs and expressions in all combinations, and random ones on larger
 * trees, against the fixture's naive evaluator; named selections; hard patterns in bounded time. select_parse_test.c
 * has syntax, select_explain_test.c what is said where nothing matches. */
#include <stdio.h>

#include "base/alloc.h"
#include "select_fixture.h"

/* The selection of text is what the naive matcher finds; NOT_FOUND where that is nothing. */
static void expect_as_naive(const struct esp_layout *layout, const char *text) {
  struct esp_selection sel = {0};
  struct esp_status st;
  enum esp_code code = esp_select(layout, text, strlen(text), &sel, &st);
  size_t at = 0;
  for (uint32_t i = 0; i < layout->leaves_len; i++) {
    bool expected = naive_selects(layout, i, text, strlen(text));
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

/* ---- globs ---- */

static void all_small_globs(void **state) {
  (void)state;
  const char *paths[] = {"0",  "00",  "01", "1",  "10", "11",  "12",  "2",   "3",   "a",   "a0", "a00",
                         "a1", "a1a", "aa", "ab", "b",  "b01", "b10", "b1b", "1a2", "112", "03", "z.1"};
  const char *pieces[] = {"a", "1", "*", "[0-2]", "[11-2]", "[00-10]", "{a,b}", "{,1}", "{a*,[1-2], b }"};
  struct esp_layout *layout = tree_of(paths, LEN_OF(paths));
  const size_t n = LEN_OF(pieces);
  for (size_t code = 0; code < n * n * n * n; code++) {
    char text[80] = "";
    size_t rest = code;
    for (size_t i = 0; i < 4; i++, rest /= n) {
      strcat(text, pieces[rest % n]);
      if (!strstr(text, "**")) {
        expect_as_naive(layout, text);
      }
    }
  }
  tree_drop(layout);
}

/* The text selects exactly these paths: with a blank behind each. */
static void expect_selects(const struct esp_layout *layout, const char *text, const char *expected) {
  char paths[512] = "";
  struct esp_selection sel;
  struct esp_status st;
  expect_ok(esp_select(layout, text, strlen(text), &sel, &st), &st);
  for (size_t i = 0; i < sel.len; i++) {
    strcat(strcat(paths, layout->leaves[sel.leaves[i]].path), " ");
  }
  esp_selection_done(&sel);
  assert_string_equal(paths, expected);
}

static void ranges_count_digits(void **state) {
  (void)state;
  const char *paths[] = {"l.0", "l.00", "l.01", "l.007", "l.08", "l.09", "l.1", "l.10", "l.11", "l.100", "l.9", "l.x"};
  struct esp_layout *layout = tree_of(paths, LEN_OF(paths));
  expect_selects(layout, "l.[0-10]", "l.0 l.1 l.10 l.9 ");
  expect_selects(layout, "l.[10-0]", "l.0 l.1 l.10 l.9 ");
  expect_selects(layout, "l.[00-10]", "l.00 l.01 l.08 l.09 l.10 ");
  expect_selects(layout, "l.[11-08]", "l.08 l.09 l.10 l.11 ");
  expect_selects(layout, "l.[0-007]", "l.007 ");
  expect_selects(layout, "l.[1-1]0", "l.10 ");
  expect_selects(layout, "l.[0-1][0-1]", "l.00 l.01 l.10 l.11 ");
  expect_selects(layout, "l.[0-11]0", "l.00 l.10 l.100 ");
  expect_selects(layout, "l.[0-999999999999999999]", "l.0 l.1 l.10 l.100 l.11 l.9 ");
  tree_drop(layout);
}

/* ---- the whole language ---- */

static void the_words_mean_what_they_say(void **state) {
  (void)state;
  struct esp_layout *layout = select_tree();
  expect_selects(layout, "name:b", "a.a.b b.00 b.03.a b.10.a b.3.a b.a.a.a.a b.a.b b.a1b2.a b.aab.b.0 ");
  expect_selects(layout, "name:a > b", "a.a.b b.a.b ");
  expect_selects(layout, "name:b > [0-10].a", "b.10.a b.3.a ");
  expect_selects(layout, "tag:T", "a.a.a a.a.b a.ab.a a.ba ab b.a.a.a.a b.a.b ");
  expect_selects(layout, "tag:U", "a.a.a a.a.b a.ba ");
  expect_selects(layout, "tag:T > a", "a.a.a a.a.b b.a.a.a.a ");
  expect_selects(layout, "tag:t.U > 0*", "b.00 b.03.a ");
  expect_selects(layout, "tag:T > a > b", "a.a.b ");
  expect_selects(layout, "tag:{t*,U} > a", "a.a.a b.a.a.a.a b.a.b ");
  expect_selects(layout, "group:head", "a.a.a a.a.b aa.a.a ");
  expect_selects(layout, "group:nobody's & rank:2", "b.3.a b.a.a.a.a ");
  expect_selects(layout, "group:default & dtype:f64", "a.ab.a ab ba.a ");
  expect_selects(layout, "group:de* & b & size>7", "b.3.a b.a.a.a.a ");
  expect_selects(layout, "kind:buffer", "a.ba b.a.a.a.a ");
  expect_selects(layout, "rank:0", "a.ba ab ");
  expect_selects(layout, "rank<2 & rank!=1", "a.ba ab ");
  expect_selects(layout, "size=1 | size:15 & dtype:*64", "a.ab.a a.ba ab ");
  expect_selects(layout, "frozen", "a.a.b aa.bb b.a1b2.a ");
  expect_selects(layout, "frozen.**", "frozen.a ");
  expect_selects(layout, "tied", "a.a.a aa.a.a b.00 \xc3\xa9 ");
  expect_selects(layout, "detached", "a.ab.a aa.bb ");
  expect_selects(layout, "@twice", "a.a.a a.ab.a a.ba b.a.a.a.a b.a.b ");
  tree_drop(layout);
}

static void operators_bind_in_their_order(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of((const char *[]){"p", "q", "r"}, 3);
  expect_selects(layout, "p | q & r | q", "p q ");
  expect_selects(layout, "(p | q) & (r | q)", "q ");
  expect_selects(layout, "!p & q | r", "q r ");
  expect_selects(layout, "!(p | q)", "r ");
  expect_selects(layout, "!!p", "p ");
  expect_selects(layout, "!!!p", "q r ");
  expect_selects(layout, "\t(\n!p\r&!q)", "r ");
  expect_selects(layout, "p|q|r|p", "p q r ");
  tree_drop(layout);
}

static void numbers_are_compared(void **state) {
  (void)state;
  const char *operators[] = {":", "=", "!=", "<", "<=", ">", ">="};
  const int numbers[] = {0, 1, 2, 3, 7, 15, 16};
  struct esp_layout *layout = select_tree();
  for (size_t i = 0; i < LEN_OF(operators) * LEN_OF(numbers); i++) {
    char text[16];
    for (int size = 0; size < 2; size++) {
      snprintf(text, sizeof text, "%s%s%d", size ? "size" : "rank", operators[i % LEN_OF(operators)],
               numbers[i / LEN_OF(operators)]);
      expect_as_naive(layout, text);
    }
  }
  tree_drop(layout);
}

/* Every operator with every operand, three deep. */
static void all_small_expressions(void **state) {
  (void)state;
  const char *terms[] = {"a",          "b.*",       "**",           "name:{a,b} > a", "tag:T",  "tag:*U > *a* > **",
                         "group:head", "dtype:f32", "kind:trained", "rank>=1",        "size:7", "frozen",
                         "tied",       "detached",  "@deep",        "nosuch"};
  const struct {
    const char *before, *between, *between_too, *behind;
  } forms[] = {{"", " & ", " | ", ""}, {"", "|!(", "&", ")"}, {"!", " & !", " & ", ""}, {"(", " | ", ") & !(", ")"}};
  struct esp_layout *layout = select_tree();
  const size_t n = LEN_OF(terms);
  for (size_t code = 0; code < LEN_OF(forms) * n * n * n; code++) {
    char text[128];
    size_t rest = code / LEN_OF(forms);
    size_t form = code % LEN_OF(forms);
    snprintf(text, sizeof text, "%s%s%s%s%s%s%s", forms[form].before, terms[rest % n], forms[form].between,
             terms[rest / n % n], forms[form].between_too, terms[rest / n / n], forms[form].behind);
    expect_as_naive(layout, text);
  }
  tree_drop(layout);
}

/* What is behind `>` in all combinations, below patterns, names and tags. */
static void all_small_chains(void **state) {
  (void)state;
  const char *nodes[] = {"a", "b.a", "**", "*.a*", "a.**", "name:a", "name:*", "tag:T", "tag:*", "tag:U"};
  const char *children[] = {"a", "*", "**", "**.a", "a.*", "b", "**.**", "{a,b}b"};
  struct esp_layout *layout = select_tree();
  for (size_t code = 0; code < LEN_OF(nodes) * LEN_OF(children) * LEN_OF(children); code++) {
    const char *node = nodes[code % LEN_OF(nodes)];
    const char *first = children[code / LEN_OF(nodes) % LEN_OF(children)];
    const char *second = children[code / LEN_OF(nodes) / LEN_OF(children)];
    char text[64];
    snprintf(text, sizeof text, "%s > %s", node, first);
    expect_as_naive(layout, text);
    snprintf(text, sizeof text, "%s>%s>%s", node, first, second);
    expect_as_naive(layout, text);
  }
  tree_drop(layout);
}

/* ---- larger trees ---- */

static struct esp_layout *random_tree(uint64_t *seed, size_t leaves) {
  static const char *const components[] = {"a", "b", "ab", "ba", "a-", "0", "1", "10", "w"};
  char(*paths)[48] = calloc(leaves, sizeof *paths);
  const char **texts = calloc(leaves, sizeof *texts);
  for (size_t i = 0; i < leaves; i++) {
    size_t len = 0;
    for (size_t depth = 1 + esp_test_random(seed) % 5; depth > 0; depth--) {
      const char *component = components[esp_test_random(seed) % LEN_OF(components)];
      len += (size_t)snprintf(paths[i] + len, sizeof paths[i] - len, "%s.", component);
    }
    snprintf(paths[i] + len, sizeof paths[i] - len, "leaf%zu", i);
    texts[i] = paths[i];
  }
  struct esp_layout *layout = tree_of(texts, leaves);
  free(texts);
  free(paths);
  return layout;
}

static void random_patterns_on_larger_trees(void **state) {
  (void)state;
  static const char *const components[] = {"a", "b", "*", "**", "a*", "*b*", "[0-10]", "{ab,w}", "leaf*[0-7]", "1"};
  uint64_t seed = 5;
  for (int round = 0; round < 30; round++) {
    struct esp_layout *layout = random_tree(&seed, 1 + esp_test_random(&seed) % 300);
    for (int pattern = 0; pattern < 60; pattern++) {
      char text[128] = "";
      for (size_t depth = esp_test_random(&seed) % 5;; depth--) {
        strcat(text, components[esp_test_random(&seed) % LEN_OF(components)]);
        if (depth == 0) {
          break;
        }
        strcat(text, ".");
      }
      expect_as_naive(layout, text);
    }
    tree_drop(layout);
  }
}

static void random_expressions_on_larger_trees(void **state) {
  (void)state;
  static const char *const terms[] = {"a", "**", "**.b", "name:[0-9]", "@w", "*.*.* > leaf*", "!b", "(b | !@w)"};
  static const struct esp_named_selection named[] = {{"w", "name:w | a* & !0"}};
  uint64_t seed = 6;
  for (int round = 0; round < 30; round++) {
    struct esp_layout *layout = random_tree(&seed, 1 + esp_test_random(&seed) % 300);
    layout->selections = select_array(named, sizeof named);
    layout->selections_len = 1;
    for (int expression = 0; expression < 30; expression++) {
      char text[128] = "";
      for (size_t more = esp_test_random(&seed) % 4;; more--) {
        strcat(text, terms[esp_test_random(&seed) % LEN_OF(terms)]);
        if (more == 0) {
          break;
        }
        strcat(text, esp_test_random(&seed) % 2 ? " & " : " | ");
      }
      expect_as_naive(layout, text);
    }
    tree_drop(layout);
  }
}

/* ---- named selections ---- */

static void named_selections_are_found(void **state) {
  (void)state;
  struct esp_layout *layout = select_tree();
  static const struct {
    const char *text;
    const char *words;
  } cases[] = {
      {"@nine", "selector, column 2: no selection is named \"nine\"; there are: \"none\", \"a\", \"bad\""},
      {"a | @aa", "column 6: no selection is named \"aa\""},
      {"@loop", "the named selection @loop refers to itself, through @pool, @self"},
      {"b & !@self", "the named selection @self refers to itself, through @loop, @pool"},
      {"a | @bad", "named selection @bad, column 4: a path or pattern is missing"},
  };
  struct esp_selection sel;
  struct esp_status st;
  for (size_t i = 0; i < LEN_OF(cases); i++) {
    expect_fail(esp_select(layout, cases[i].text, strlen(cases[i].text), &sel, &st), &st, ESP_INVALID_ARGUMENT,
                cases[i].words);
  }
  layout->selections[0].text = "@a";
  expect_fail(esp_select(layout, "@a", 2, &sel, &st), &st, ESP_INVALID_ARGUMENT,
              "the named selection @a refers to itself");
  assert_null(strstr(st.message, "through"));
  layout->selections_len = 0;
  expect_fail(esp_select(layout, "@a", 2, &sel, &st), &st, ESP_INVALID_ARGUMENT,
              "no selection is named \"a\"; there are none");
  tree_drop(layout);
}

/* n selections, each of which names the next one twice. */
static struct esp_layout *tree_of_named(size_t n) {
  static char names[100][24];
  static char texts[100][56];
  static struct esp_named_selection named[100];
  struct esp_layout *layout = tree_of((const char *[]){"p", "q"}, 2);
  for (size_t i = 0; i < n; i++) {
    snprintf(names[i], sizeof names[i], "n%02zu", i);
    snprintf(texts[i], sizeof texts[i], "@n%02zu & @n%02zu", i + 1, i + 1);
    named[i] = (struct esp_named_selection){.name = names[i], .text = i + 1 < n ? texts[i] : "p"};
  }
  layout->selections = select_array(named, n * sizeof *named);
  layout->selections_len = n;
  return layout;
}

static void named_selections_are_bounded(void **state) {
  (void)state;
  struct esp_layout *layout = tree_of_named(64);
  expect_selects(layout, "@n00", "p ");
  expect_selects(layout, "@n63 | !@n00", "p q ");
  tree_drop(layout);
  layout = tree_of_named(65);
  struct esp_selection sel;
  struct esp_status st;
  expect_fail(esp_select(layout, "@n00", 4, &sel, &st), &st, ESP_INVALID_ARGUMENT,
              "named selection @n63, column 2: more than 64 named selections are used");
  expect_selects(layout, "@n01", "p ");
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

static void selections_survive_failing_allocations(void **state) {
  (void)state;
  struct esp_layout *layout = select_tree();
  const char *texts[] = {"", "b.a", "**.a", "*.*", "tag:T > a | !@deep & size>3", "(a | (b & rank:1)) & !name:b"};
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
      ESP_TEST(all_small_globs),
      ESP_TEST(ranges_count_digits),
      ESP_TEST(the_words_mean_what_they_say),
      ESP_TEST(operators_bind_in_their_order),
      ESP_TEST(numbers_are_compared),
      ESP_TEST(all_small_expressions),
      ESP_TEST(all_small_chains),
      ESP_TEST(random_patterns_on_larger_trees),
      ESP_TEST(random_expressions_on_larger_trees),
      ESP_TEST(named_selections_are_found),
      ESP_TEST(named_selections_are_bounded),
      ESP_TEST(limits_are_kept),
      ESP_TEST(hard_patterns_end),
      ESP_TEST(selections_survive_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
