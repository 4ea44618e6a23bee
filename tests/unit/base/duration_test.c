/* Tests of base/duration.c. */
#include "base/duration.h"
#include "tests/support/test.h"

static void what_is_taken(void **state) {
  (void)state;
  static const struct {
    const char *text;
    uint64_t ms;
  } cases[] = {{"0ms", 0},
               {"0d", 0},
               {"500ms", 500},
               {"10s", 10000},
               {"010s", 10000},
               {"10m", 600000},
               {"2h", 7200000},
               {"1d", 86400000},
               {"1h30m", 5400000},
               {"90m", 5400000},
               {"1d2h3m4s5ms", 93784005},
               {"1d5ms", 86400005},
               {"18446744073709551615ms", UINT64_MAX},
               {"18446744073709551s615ms", UINT64_MAX},
               {"213503982334d", UINT64_C(213503982334) * 86400000}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    uint64_t ms = 7;
    if (!esp_duration_parse(cases[i].text, &ms))
      fail_msg("%s is refused", cases[i].text);
    assert_int_equal(ms, cases[i].ms);
  }
}

static void what_is_refused(void **state) {
  (void)state;
  static const char *const wrong[] = {"",
                                      "10",
                                      "s",
                                      "10 s",
                                      " 10s",
                                      "10s ",
                                      "-1s",
                                      "+1s",
                                      "1.5h",
                                      "10S",
                                      "10sec",
                                      "10s5",
                                      "30m1h",   /* the smaller first */
                                      "1s1s",    /* twice */
                                      "1ms500s", /* likewise the smaller first */
                                      "1h 30m",
                                      "1hm",
                                      "18446744073709551616ms",
                                      "18446744073709551s616ms",
                                      "213503982335d",
                                      "99999999999999999999d"};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    uint64_t ms = 7;
    if (esp_duration_parse(wrong[i], &ms))
      fail_msg("\"%s\" is taken", wrong[i]);
    assert_int_equal(ms, 7);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(what_is_taken), ESP_TEST(what_is_refused)};
  return cmocka_run_group_tests_name("base.duration", tests, NULL, NULL);
}
