/* Tests of client/cli/exit.c: every status code has its exit code. */
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "tests/support/test.h"

static void every_code_has_its_exit(void **state) {
  (void)state;
  static const enum esp_cli_exit expected[] = {
      [ESP_OK] = ESP_CLI_DONE,
      [ESP_CANCELLED] = ESP_CLI_FAILED,
      [ESP_UNKNOWN] = ESP_CLI_FAILED,
      [ESP_INVALID_ARGUMENT] = ESP_CLI_REFUSED,
      [ESP_DEADLINE_EXCEEDED] = ESP_CLI_NO_ANSWER,
      [ESP_NOT_FOUND] = ESP_CLI_NOT_FOUND,
      [ESP_ALREADY_EXISTS] = ESP_CLI_REFUSED,
      [ESP_PERMISSION_DENIED] = ESP_CLI_NOT_PERMITTED,
      [ESP_RESOURCE_EXHAUSTED] = ESP_CLI_NO_ROOM,
      [ESP_FAILED_PRECONDITION] = ESP_CLI_REFUSED,
      [ESP_ABORTED] = ESP_CLI_REFUSED,
      [ESP_OUT_OF_RANGE] = ESP_CLI_REFUSED,
      [ESP_UNIMPLEMENTED] = ESP_CLI_UNIMPLEMENTED,
      [ESP_INTERNAL] = ESP_CLI_FAILED,
      [ESP_UNAVAILABLE] = ESP_CLI_NO_ANSWER,
      [ESP_DATA_LOSS] = ESP_CLI_FAILED,
      [ESP_UNAUTHENTICATED] = ESP_CLI_NOT_PERMITTED,
  };
  for (size_t code = 0; code < sizeof expected / sizeof expected[0]; code++)
    assert_int_equal(esp_cli_exit_of((enum esp_code)code), expected[code]);
}

static void a_code_of_tomorrow_is_a_failure(void **state) {
  (void)state;
  assert_int_equal(esp_cli_exit_of((enum esp_code)17), ESP_CLI_FAILED);
  assert_int_equal(esp_cli_exit_of((enum esp_code)31), ESP_CLI_FAILED);
  assert_int_equal(esp_cli_exit_of((enum esp_code)1000), ESP_CLI_FAILED);
}

static void help_lists_all(void **state) {
  (void)state;
  char *text = NULL;
  size_t len = 0;
  FILE *out = open_memstream(&text, &len);
  esp_cli_print_exit_codes(out);
  fclose(out);
  for (int i = ESP_CLI_DONE; i <= ESP_CLI_NO_ROOM; i++) {
    char line[16];
    snprintf(line, sizeof line, "  %d  ", i);
    assert_non_null(strstr(text, line));
  }
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(every_code_has_its_exit),
      ESP_TEST(a_code_of_tomorrow_is_a_failure),
      ESP_TEST(help_lists_all),
  };
  return cmocka_run_group_tests_name("cli.exit", tests, NULL, NULL);
}
