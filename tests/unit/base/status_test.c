/* Tests of base/status.c. */
#include <espalier/status.h>

#include <string.h>

#include "tests/support/test.h"

static void names_are_those_of_grpc(void **state) {
  (void)state;
  static const char *const names[] = {
      "OK",        "CANCELLED",       "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS",  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",    "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED",
  };
  for (int i = 0; i < 17; i++)
    assert_string_equal(esp_code_name((enum esp_code)i), names[i]);
  assert_string_equal(esp_code_name((enum esp_code)17), "UNKNOWN");
  assert_string_equal(esp_code_name((enum esp_code) - 1), "UNKNOWN");
}

static void fail_writes_code_and_sentence(void **state) {
  (void)state;
  struct esp_status st;
  assert_int_equal(esp_fail(&st, ESP_NOT_FOUND, "leaf %s: expected %d, got %d", "a.b", 1, 2), ESP_NOT_FOUND);
  assert_int_equal(st.code, ESP_NOT_FOUND);
  assert_string_equal(st.message, "leaf a.b: expected 1, got 2");
  assert_int_equal(esp_fail(NULL, ESP_ABORTED, "nobody reads %s", "this"), ESP_ABORTED);
}

static void a_message_may_be_made_of_the_one_before(void **state) {
  (void)state;
  struct esp_status st;
  esp_fail(&st, ESP_INTERNAL, "inner");
  esp_fail(&st, ESP_ABORTED, "outer: %s; and again: %s", st.message, st.message);
  assert_string_equal(st.message, "outer: inner; and again: inner");
}

/* Characters of 1 to 4 bytes, moved over the place of the cut by every offset. */
static void a_long_message_is_cut_between_characters(void **state) {
  (void)state;
  static const char *const characters[] = {"x", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x8c\xb3"};
  for (size_t width = 1; width <= 4; width++)
    for (size_t before = 0; before < width; before++) {
      char text[2 * ESP_MESSAGE_BYTES_MAX];
      memset(text, 'a', before);
      size_t len = before;
      for (; len + width < sizeof(text); len += width)
        memcpy(text + len, characters[width - 1], width);
      text[len] = '\0';
      struct esp_status st;
      esp_fail(&st, ESP_INTERNAL, "%s", text);
      size_t got = strlen(st.message);
      assert_memory_equal(st.message, text, got);
      assert_int_equal((got - before) % width, 0);
      assert_true(got + width > ESP_MESSAGE_BYTES_MAX - 1 && got <= ESP_MESSAGE_BYTES_MAX - 1);
    }
}

static void bytes_that_are_no_characters_are_cut_anywhere(void **state) {
  (void)state;
  char text[2 * ESP_MESSAGE_BYTES_MAX];
  memset(text, 0x80, sizeof(text) - 1);
  text[sizeof(text) - 1] = '\0';
  struct esp_status st;
  esp_fail(&st, ESP_INTERNAL, "%s", text);
  assert_in_range(strlen(st.message), ESP_MESSAGE_BYTES_MAX - 5, ESP_MESSAGE_BYTES_MAX - 1);
}

static void what_is_not_fit_to_be_shown_becomes_a_question_mark(void **state) {
  (void)state;
  struct esp_status st;
  esp_fail(&st, ESP_INTERNAL, "a\x1b[2Jb\n\x7f c\xff \xc2\x9b \xc3\xa9 \xe2\x82 \xed\xa0\x80.");
  assert_string_equal(st.message, "a?[2Jb?? c? ?? \xc3\xa9 ?? ???.");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(names_are_those_of_grpc),
      ESP_TEST(fail_writes_code_and_sentence),
      ESP_TEST(a_message_may_be_made_of_the_one_before),
      ESP_TEST(a_long_message_is_cut_between_characters),
      ESP_TEST(bytes_that_are_no_characters_are_cut_anywhere),
      ESP_TEST(what_is_not_fit_to_be_shown_becomes_a_question_mark),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
