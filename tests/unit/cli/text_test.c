/* Tests of client/cli/text.c: numbers as people read them. */
#include <string.h>

#include "base/dtype.h"
#include "client/cli/cli.h"
#include "tests/support/test.h"

static void bytes_have_binary_units(void **state) {
  (void)state;
  static const struct {
    uint64_t bytes;
    const char *text;
  } cases[] = {{0, "0 B"},
               {1, "1 B"},
               {1023, "1023 B"},
               {1024, "1.0 KiB"},
               {1536, "1.5 KiB"},
               {1048575, "1.0 MiB"}, /* not 1024.0 KiB */
               {1572864, "1.5 MiB"},
               {UINT64_C(1) << 30, "1.0 GiB"},
               {UINT64_C(3) << 40, "3.0 TiB"},
               {UINT64_C(1) << 50, "1.0 PiB"},
               {UINT64_MAX, "16.0 EiB"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char text[ESP_CLI_TEXT_MAX];
    assert_string_equal(esp_cli_print_bytes(cases[i].bytes, text), cases[i].text);
  }
}

static void durations_have_two_units(void **state) {
  (void)state;
  static const struct {
    uint64_t ms;
    const char *text;
  } cases[] = {{0, "0ms"},          {999, "999ms"},       {1000, "1s"},       {59999, "59s"},
               {60000, "1m 0s"},    {3599999, "59m 59s"}, {3600000, "1h 0m"}, {86399999, "23h 59m"},
               {86400000, "1d 0h"}, {176400000, "2d 1h"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char text[ESP_CLI_TEXT_MAX];
    assert_string_equal(esp_cli_print_duration(cases[i].ms, text), cases[i].text);
  }
}

static void digests_and_lineages_are_hexadecimal(void **state) {
  (void)state;
  char text[ESP_CLI_TEXT_MAX];
  const uint8_t digest[16] = {0x00, 0x01, 0xab, [15] = 0xff};
  assert_string_equal(esp_cli_print_digest(digest, text), "0001ab000000000000000000000000ff");
  assert_string_equal(esp_cli_print_id(0x2a, text), "000000000000002a");
  assert_string_equal(esp_cli_print_id(UINT64_MAX, text), "ffffffffffffffff");
}

static void width_counts_characters(void **state) {
  (void)state;
  assert_int_equal(esp_cli_text_width(""), 0);
  assert_int_equal(esp_cli_text_width("abc"), 3);
  assert_int_equal(esp_cli_text_width("caf\xc3\xa9"), 4);
}

static void shapes_of_any_rank_are_printed(void **state) {
  (void)state;
  char text[ESP_SHAPE_TEXT_MAX];
  const uint64_t dims[ESP_LEAF_RANK_MAX] = {64, 32, 1, 1, 1, 1, 1, 9};
  assert_string_equal(esp_cli_print_shape(dims, 0, text), "[]");
  assert_string_equal(esp_cli_print_shape(dims, 2, text), "[64, 32]");
  assert_string_equal(esp_cli_print_shape(dims, 8, text), "[64, 32, 1, 1, 1, 1, 1, 9]");
}

static void what_peers_wrote_moves_no_cursor(void **state) {
  (void)state;
  char text[32];
  assert_string_equal(esp_cli_print_plain("gpu-\xC3\xA9 1", text, sizeof text), "gpu-\xC3\xA9 1");
  assert_string_equal(esp_cli_print_plain("a\033[2J\n\x7F\xC2\x9Bz", text, sizeof text), "a?[2J???z");
  assert_string_equal(esp_cli_print_plain("longer", text, 4), "lon");
  assert_string_equal(esp_cli_print_plain("\xC2", text, sizeof text), "\xC2"); /* cut text is not read beyond */
}

static void shares_tell_some_from_none_and_all(void **state) {
  (void)state;
  static const struct {
    uint64_t part;
    uint64_t whole;
    const char *text;
  } cases[] = {{0, 0, "-"},         {0, 7, "-"},    {1, 101, "<1%"},
               {1, 100, "1%"},      {3, 7, "43%"},  {99, 100, "99%"},
               {999, 1000, ">99%"}, {7, 7, "100%"}, {UINT64_MAX, UINT64_MAX, "100%"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char text[ESP_CLI_TEXT_MAX];
    assert_string_equal(esp_cli_print_share(cases[i].part, cases[i].whole, text), cases[i].text);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(bytes_have_binary_units),
      ESP_TEST(durations_have_two_units),
      ESP_TEST(digests_and_lineages_are_hexadecimal),
      ESP_TEST(what_peers_wrote_moves_no_cursor),
      ESP_TEST(shares_tell_some_from_none_and_all),
      ESP_TEST(width_counts_characters),
      ESP_TEST(shapes_of_any_rank_are_printed),
  };
  return cmocka_run_group_tests_name("cli.text", tests, NULL, NULL);
}
