/* Keeping why something failed. */
#include "base/alloc.h"
#include "base/why.h"
#include "tests/support/test.h"

static void keeps_and_tells(void **state) {
  (void)state;
  struct esp_why why = {0};
  struct esp_status st = {.code = ESP_INTERNAL, .message = "untouched"};
  assert_int_equal(esp_why_tell(&why, &st), ESP_OK);
  assert_string_equal(st.message, "untouched");
  assert_int_equal(esp_why_keep(&why, esp_fail(&st, ESP_ABORTED, "the first, which is longer"), &st), ESP_ABORTED);
  assert_int_equal(esp_why_keep(&why, esp_fail(&st, ESP_NOT_FOUND, "no leaf"), &st), ESP_NOT_FOUND);
  st = (struct esp_status){0};
  assert_int_equal(esp_why_tell(&why, &st), ESP_NOT_FOUND);
  assert_int_equal(st.code, ESP_NOT_FOUND);
  assert_string_equal(st.message, "no leaf");
  assert_int_equal(esp_why_keep(&why, ESP_OK, NULL), ESP_OK);
  assert_null(why.text);
  assert_int_equal(esp_why_tell(&why, NULL), ESP_OK);
  esp_why_done(&why);
  esp_why_done(&why);
}

static void without_memory_the_code_stays(void **state) {
  (void)state;
  struct esp_why why = {0};
  struct esp_status st;
  enum esp_code code = esp_fail(&st, ESP_ABORTED, "the reason");
  esp_alloc_fail_at(0);
  assert_int_equal(esp_why_keep(&why, code, &st), ESP_ABORTED);
  esp_alloc_fail_at(-1);
  assert_int_equal(esp_why_tell(&why, &st), ESP_ABORTED);
  assert_string_equal(st.message, "there was no memory for the reason");
  esp_why_done(&why);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(keeps_and_tells),
      ESP_TEST(without_memory_the_code_stays),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
