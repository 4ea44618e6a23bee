/* Tests of server/tree/path.c: what a path may hold, for every byte and limit; its order, for all small paths. */
#include <stdio.h>

#include "fixture.h"

/* All paths of one to three components, some of which sort below the dot in ASCII (! is not legal, but ordered all the
 * same). */
static size_t small_paths(char paths[][16]) {
  const char *components[] = {"!", "+", "-", "a", "b", "a-", "ab", "~"};
  size_t n = 0;
  for (size_t i = 0; i < LEN_OF(components); i++) {
    snprintf(paths[n++], 16, "%s", components[i]);
    for (size_t j = 0; j < LEN_OF(components); j++) {
      snprintf(paths[n++], 16, "%s.%s", components[i], components[j]);
      for (size_t k = 0; k < LEN_OF(components); k++) {
        snprintf(paths[n++], 16, "%s.%s.%s", components[i], components[j], components[k]);
      }
    }
  }
  return n;
}

static int sign(int x) {
  return (x > 0) - (x < 0);
}

static void order_is_that_of_components(void **state) {
  (void)state;
  static char paths[584][16];
  size_t n = small_paths(paths);
  assert_int_equal(n, 8 + 64 + 512);
  for (size_t i = 0; i < n; i++) {
    for (size_t j = 0; j < n; j++) {
      size_t i_len = strlen(paths[i]);
      size_t j_len = strlen(paths[j]);
      int expected = sign(naive_compare(paths[i], paths[j]));
      assert_int_equal(sign(esp_path_compare(paths[i], i_len, paths[j], j_len)), expected);
      assert_int_equal(esp_path_within(paths[i], i_len, paths[j], j_len), naive_within(paths[i], paths[j]));
    }
    assert_true(esp_path_within(paths[i], strlen(paths[i]), "", 0));
    assert_false(esp_path_within("", 0, paths[i], strlen(paths[i])));
    assert_true(esp_path_compare("", 0, paths[i], strlen(paths[i])) < 0);
  }
  assert_true(esp_path_compare("a", 1, "a.b", 3) < 0);
  assert_true(esp_path_compare("a.b", 3, "a-b", 3) < 0);
}

static void order_looks_past_eight_bytes(void **state) {
  (void)state;
  const char *sorted[] = {"component",
                          "component.aaaaaaaaaaaaaaaaaa",
                          "component.aaaaaaaaaaaaaaaaaa.b",
                          "component.aaaaaaaaaaaaaaaaaa-b",
                          "component.b",
                          "component\xc3\xa4",
                          "component-"};
  for (size_t i = 0; i < LEN_OF(sorted); i++) {
    for (size_t j = 0; j < LEN_OF(sorted); j++) {
      assert_int_equal(sign(esp_path_compare(sorted[i], strlen(sorted[i]), sorted[j], strlen(sorted[j]))),
                       sign(naive_compare(sorted[i], sorted[j])));
    }
  }
}

static void every_ascii_character_is_judged(void **state) {
  (void)state;
  for (int c = 0; c < 128; c++) {
    char path[] = {'a', 'b', '.', 'x', (char)c, 'y'};
    char name[] = {'x', (char)c, 'y', '\0'};
    bool legal = c > ' ' && c < 0x7f && !strchr("*?{}[]()&|!:<>=@,\"", c);
    struct esp_status st;
    enum esp_code code = esp_path_check(path, sizeof path, &st);
    assert_int_equal(code, legal ? ESP_OK : ESP_INVALID_ARGUMENT);
    if (!legal) {
      char expected[64];
      const char *reason = c == ' '               ? "white space: \" \""
                           : c < ' ' || c == 0x7f ? "a control character: \"\\x"
                                                  : "a character that selectors use: \"";
      snprintf(expected, sizeof expected, "component 2 has %s", reason);
      expect_fail(code, &st, ESP_INVALID_ARGUMENT, expected);
    }
    if (c != '\0') {
      assert_int_equal(esp_name_check("group", name, &st), legal ? ESP_OK : ESP_INVALID_ARGUMENT);
    }
  }
}

/* A straightforward encoder, so that the decoder is checked for every character and for what no character encodes to.
 */
static size_t encode(uint32_t c, size_t n, char *out) {
  static const unsigned char leads[] = {0, 0, 0xc0, 0xe0, 0xf0};
  if (n == 1) {
    out[0] = (char)c;
    return 1;
  }
  for (size_t i = n - 1; i > 0; i--, c >>= 6) {
    out[i] = (char)(0x80 | (c & 0x3f));
  }
  out[0] = (char)(leads[n] | c);
  return n;
}

static bool path_is_legal(const char *path, size_t len) {
  return esp_path_check(path, len, NULL) == ESP_OK;
}

static void every_character_is_judged(void **state) {
  (void)state;
  for (uint32_t c = 0x80; c <= 0x1fffff; c += c < 0x11000 || (c & 0xffff) > 0xff00 ? 1 : 251) {
    size_t least = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    bool legal = c >= 0xa0 && c <= 0x10ffff && !(c >= 0xd800 && c <= 0xdfff);
    for (size_t n = least; n <= 4; n++) {
      char path[8] = "a";
      size_t len = 1 + encode(c, n, path + 1);
      if (path_is_legal(path, len) != (legal && n == least)) {
        fail_msg("U+%04X in %zu bytes", c, n);
      }
      if (path_is_legal(path, len - 1)) {
        fail_msg("U+%04X cut short", c);
      }
    }
  }
  for (int lead = 0x80; lead < 0x100; lead++) {
    char path[] = {(char)lead, 'a', 'a', 'a', 'a'};
    assert_false(path_is_legal(path, sizeof path));
  }
}

static void limits_are_kept(void **state) {
  (void)state;
  static char path[ESP_PATH_BYTES_MAX + 2];
  struct esp_status st;
  memset(path, 'a', sizeof path);
  assert_int_equal(esp_path_check(path, ESP_COMPONENT_BYTES_MAX, &st), ESP_OK);
  expect_fail(esp_path_check(path, ESP_COMPONENT_BYTES_MAX + 1, &st), &st, ESP_INVALID_ARGUMENT,
              "component 1 has 256 bytes; at most 255 are allowed");
  for (size_t i = 100; i < sizeof path; i += 100) {
    path[i] = '.';
  }
  assert_int_equal(esp_path_check(path, ESP_PATH_BYTES_MAX, &st), ESP_OK);
  expect_fail(esp_path_check(path, ESP_PATH_BYTES_MAX + 1, &st), &st, ESP_INVALID_ARGUMENT,
              "has 4097 bytes; at most 4096 are allowed");
  for (size_t i = 0; i < sizeof path; i++) {
    path[i] = i % 2 ? '.' : 'a';
  }
  assert_int_equal(esp_path_check(path, 2 * ESP_DEPTH_MAX - 1, &st), ESP_OK);
  expect_fail(esp_path_check(path, 2 * ESP_DEPTH_MAX + 1, &st), &st, ESP_INVALID_ARGUMENT,
              "has 65 components; at most 64 are allowed");
}

static void empty_components_are_named(void **state) {
  (void)state;
  static const struct {
    const char *path;
    const char *words;
  } cases[] = {{"", "a path is empty"},
               {".", "path \".\": component 1 is empty"},
               {".a", "component 1 is empty"},
               {"a.", "path \"a.\": component 2 is empty"},
               {"a..b", "component 2 is empty"}};
  for (size_t i = 0; i < LEN_OF(cases); i++) {
    struct esp_status st;
    expect_fail(esp_path_check(cases[i].path, strlen(cases[i].path), &st), &st, ESP_INVALID_ARGUMENT, cases[i].words);
  }
}

static void names_may_have_dots_and_end(void **state) {
  (void)state;
  struct esp_status st;
  char name[ESP_NAME_BYTES_MAX + 2];
  memset(name, 'n', sizeof name);
  name[ESP_NAME_BYTES_MAX + 1] = '\0';
  expect_fail(esp_name_check("tag", name, &st), &st, ESP_INVALID_ARGUMENT, "has more than 255 bytes");
  name[ESP_NAME_BYTES_MAX] = '\0';
  assert_int_equal(esp_name_check("tag", name, &st), ESP_OK);
  assert_int_equal(esp_name_check("tag", "torch.nn.LayerNorm", &st), ESP_OK);
  expect_fail(esp_name_check("group", "", &st), &st, ESP_INVALID_ARGUMENT, "the name of a group is empty");
  expect_fail(esp_name_check("tag", "a b", &st), &st, ESP_INVALID_ARGUMENT, "tag \"a b\" has white space: \" \"");
}

static void printing_escapes_and_cuts(void **state) {
  (void)state;
  const char path[] = "a\x01\xff\xc3\xa4\xc2\x85\0b";
  char text[64];
  assert_string_equal(esp_path_print(path, sizeof path - 1, text, sizeof text), "a\\x01\\xff\xc3\xa4\\xc2\\x85\\x00b");
  assert_string_equal(esp_path_print("abcdef", 6, text, 7), "abcdef");
  assert_string_equal(esp_path_print("abcdef", 6, text, 6), "ab...");
  assert_string_equal(esp_path_print("\xc3\xa4\xc3\xa4\xc3\xa4", 6, text, 6), "\xc3\xa4...");
  assert_string_equal(esp_path_print("ab\x01", 3, text, 6), "ab...");
  assert_string_equal(esp_path_print("", 0, text, 1), "");
}

/* Whatever the bytes and the room are, the text fits and is clean. */
static void printing_is_always_clean(void **state) {
  (void)state;
  uint64_t seed = 7;
  for (int round = 0; round < 20000; round++) {
    char path[12];
    char text[16];
    for (size_t i = 0; i < sizeof path; i++) {
      path[i] = (char)(esp_test_random(&seed) % 3 ? 0x78 + esp_test_random(&seed) % 0x60 : esp_test_random(&seed));
    }
    size_t size = 1 + esp_test_random(&seed) % sizeof text;
    memset(text, 'X', sizeof text);
    esp_path_print(path, sizeof path, text, size);
    size_t len = strnlen(text, size);
    assert_true(len < size);
    for (size_t i = size; i < sizeof text; i++) {
      assert_int_equal(text[i], 'X');
    }
    for (size_t i = 0; i < len; i++) {
      text[i] = strchr("*?{}[]()&|!:<>=@,\" .", text[i]) ? '_' : text[i];
    }
    assert_true(len == 0 || path_is_legal(text, len));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(order_is_that_of_components),
      ESP_TEST(order_looks_past_eight_bytes),
      ESP_TEST(every_ascii_character_is_judged),
      ESP_TEST(every_character_is_judged),
      ESP_TEST(limits_are_kept),
      ESP_TEST(empty_components_are_named),
      ESP_TEST(names_may_have_dots_and_end),
      ESP_TEST(printing_escapes_and_cuts),
      ESP_TEST(printing_is_always_clean),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
