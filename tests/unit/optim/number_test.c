/* Decimal numbers: what is taken, what is refused, and the shortest text that reads back. */
#include <math.h>
#include <stdlib.h>

#include "fixture.h"
#include "optim/number.h"

static void reads_what_strtod_reads(void **state) {
  (void)state;
  const char *texts[] = {"0",
                         "1",
                         "-1",
                         "+1",
                         "1.",
                         ".5",
                         "-.5",
                         "0.1",
                         "1e3",
                         "1E3",
                         "1e+3",
                         "1e-3",
                         "00012",
                         "3.e-4",
                         "1e-400",
                         "5e-324",
                         "1.7976931348623157e308"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    double value = -7;
    assert_true(esp_number_parse(texts[i], strlen(texts[i]), &value));
    assert_true(value == strtod(texts[i], NULL));
  }
  double value = 0;
  assert_true(esp_number_parse("1e999", 5, &value));
  assert_true(isinf(value));
  assert_true(esp_number_parse("-0", 2, &value));
  assert_false(signbit(value));
}

static void refuses_the_rest(void **state) {
  (void)state;
  const char *texts[] = {"",     "+",    "-",        ".",     "e",     "e3",  ".e3",  "1e",    "1e+",
                         "1e-",  "1e3.", "1..2",     "1.2.3", "--1",   "+-1", "0x10", "0x1p3", "inf",
                         "-inf", "nan",  "infinity", "1f",    "1_000", "1 ",  " 1",   "1,5"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    double value = -7;
    if (esp_number_parse(texts[i], strlen(texts[i]), &value))
      fail_msg("'%s' was read as %g", texts[i], value);
    assert_true(value == -7);
  }
}

static void prints_the_shortest(void **state) {
  (void)state;
  const struct {
    double number;
    const char *text;
  } cases[] = {{0, "0"},
               {-0.0, "0"},
               {1, "1"},
               {-1, "-1"},
               {0.1, "0.1"},
               {0.9, "0.9"},
               {0.05, "0.05"},
               {0.01, "0.01"},
               {0.999, "0.999"},
               {0.001, "1e-3"},
               {3e-4, "3e-4"},
               {1e-8, "1e-8"},
               {-2.5e-7, "-2.5e-7"},
               {0.00125, "0.00125"},
               {100, "100"},
               {1000, "1e3"},
               {1024, "1024"},
               {1500000, "1.5e6"},
               {123456.5, "123456.5"},
               {1e22, "1e22"},
               {1.7976931348623157e308, "1.7976931348623157e308"},
               {5e-324, "5e-324"},
               {-2.2250738585072014e-308, "-2.2250738585072014e-308"},
               {0.1 + 0.2, "0.30000000000000004"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char text[ESP_NUMBER_TEXT_MAX];
    assert_int_equal(esp_number_print(cases[i].number, text), strlen(cases[i].text));
    assert_string_equal(text, cases[i].text);
  }
}

static void reads_back_any_double(void **state) {
  (void)state;
  uint64_t seed = 1;
  for (int i = 0; i < 20000; i++) {
    const uint64_t bits = esp_test_random(&seed) << 32 ^ esp_test_random(&seed);
    double number = 0, back = 0;
    memcpy(&number, &bits, sizeof number);
    if (!isfinite(number))
      continue;
    if (i % 2 == 0)
      number = round(next_unit(&seed) * 1e6) * pow(10, (int)(esp_test_random(&seed) % 30) - 20); /* few digits */
    char text[ESP_NUMBER_TEXT_MAX], again[ESP_NUMBER_TEXT_MAX];
    const size_t len = esp_number_print(number, text);
    assert_int_equal(len, strlen(text));
    assert_true(esp_number_parse(text, len, &back));
    assert_true(back == number);
    esp_number_print(back, again);
    assert_string_equal(again, text);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(reads_what_strtod_reads),
      ESP_TEST(refuses_the_rest),
      ESP_TEST(prints_the_shortest),
      ESP_TEST(reads_back_any_double),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
