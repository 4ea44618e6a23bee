/* Names of instruction sets. */
#include "fixture.h"

static void parses_names(void **state) {
  (void)state;
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    enum esp_isa got = ESP_ISA_LEN;
    struct esp_status st = {0};
    const enum esp_code code = esp_isa_parse(esp_isa_name(isa), &got, &st);
    if (esp_isa_supported(isa)) {
      assert_int_equal(code, ESP_OK);
      assert_int_equal(got, isa);
    } else {
      assert_int_equal(code, ESP_FAILED_PRECONDITION);
      assert_int_equal(got, ESP_ISA_LEN);
      assert_non_null(strstr(st.message, esp_isa_name(isa)));
    }
  }
}

static void auto_is_the_best(void **state) {
  (void)state;
  enum esp_isa best = ESP_ISA_LEN;
  assert_int_equal(esp_isa_parse("auto", &best, NULL), ESP_OK);
  assert_true(esp_isa_supported(best));
  for (enum esp_isa isa = best + 1; isa < ESP_ISA_LEN; isa++)
    assert_false(esp_isa_supported(isa));
}

static void refuses_other_words(void **state) {
  (void)state;
  const char *words[] = {"", "AVX2", "avx", "avx512f", "auto ", "neon"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    enum esp_isa isa = ESP_ISA_LEN;
    struct esp_status st = {0};
    assert_int_equal(esp_isa_parse(words[i], &isa, &st), ESP_INVALID_ARGUMENT);
    assert_non_null(strstr(st.message, "auto, sse2, avx2 or avx512"));
    assert_int_equal(isa, ESP_ISA_LEN);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(parses_names), ESP_TEST(auto_is_the_best), ESP_TEST(refuses_other_words)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
