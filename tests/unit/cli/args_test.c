/* Tests of client/cli/args.c: options before and after the command, and what each wrong line is told. */
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "tests/support/test.h"

#define WORDS_MAX 16

/* Parses a line, split at its spaces; words keeps them. */
static enum esp_code parse(const char *line, struct esp_cli *cli, struct esp_status *st) {
  static char words[1024];
  char *argv[WORDS_MAX + 1] = {(char *)(uintptr_t) "espctl"};
  int argc = 1;
  snprintf(words, sizeof words, "%s", line);
  char *rest = words;
  for (char *word; (word = strsep(&rest, " ")) != NULL && argc < WORDS_MAX;)
    if (word[0] != '\0')
      argv[argc++] = word;
  *cli = (struct esp_cli){0};
  return esp_cli_parse(cli, argc, argv, st);
}

static void parse_ok(const char *line, struct esp_cli *cli) {
  struct esp_status st;
  if (parse(line, cli, &st) != ESP_OK)
    fail_msg("\"%s\": %s", line, st.message);
}

static void assert_usage(const char *line, const char *what) {
  struct esp_cli cli;
  struct esp_status st = {0};
  assert_int_equal(parse(line, &cli, &st), ESP_INVALID_ARGUMENT);
  if (strstr(st.message, what) == NULL)
    fail_msg("\"%s\" says \"%s\", not \"%s\"", line, st.message, what);
}

static void options_stand_anywhere(void **state) {
  (void)state;
  const char *const lines[] = {
      "--json --server s:1 --timeout 30s --dry-run --if-epoch 7 --max-leaves 9 thaw --reset-state enc",
      "thaw enc --json --server s:1 --timeout 30s --dry-run --if-epoch 7 --max-leaves 9 --reset-state",
      "--server=s:1 thaw --json --timeout=30s enc --dry-run --if-epoch=7 --reset-state --max-leaves=9",
      "thaw --json --server s:1 --timeout 30s --dry-run --if-epoch 7 --max-leaves 9 --reset-state -- enc"};
  for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
    struct esp_cli cli;
    parse_ok(lines[i], &cli);
    assert_string_equal(cli.command->name, "thaw");
    assert_int_equal(cli.options, ESP_CLI_JSON | ESP_CLI_SERVER | ESP_CLI_TIMEOUT | ESP_CLI_DRY_RUN | ESP_CLI_IF_EPOCH |
                                      ESP_CLI_MAX_LEAVES | ESP_CLI_RESET_STATE);
    assert_string_equal(cli.server, "s:1");
    assert_int_equal(cli.timeout_ms, 30000);
    assert_int_equal(cli.if_epoch, 7);
    assert_int_equal(cli.max_leaves, 9);
    assert_int_equal(cli.args_len, 1);
    assert_string_equal(cli.args[0], "enc");
  }
}

/* Options of the operation go to what reads its words, each with its value. */
static void an_operation_has_options_of_its_own(void **state) {
  (void)state;
  struct esp_cli cli;
  parse_ok("tie --value=mean a --transpose b --dry-run --reason because --yes", &cli);
  static const char *const words[] = {"--value", "mean", "--transpose"};
  assert_int_equal(cli.words_len, 3);
  for (size_t i = 0; i < 3; i++)
    assert_string_equal(cli.words[i], words[i]);
  assert_int_equal(cli.options, ESP_CLI_VALUE | ESP_CLI_TRANSPOSE | ESP_CLI_DRY_RUN | ESP_CLI_REASON | ESP_CLI_YES);
  assert_string_equal(cli.reason, "because");
  assert_int_equal(cli.args_len, 2);
  parse_ok("apply -e a --operation b -ec file", &cli);
  assert_int_equal(cli.expressions_len, 3);
  assert_string_equal(cli.expressions[2], "c");
  assert_string_equal(cli.args[0], "file");
  assert_usage("freeze -e a", "freeze takes no --operation");
  assert_usage("freeze a --seed 1", "freeze takes no --seed");
  assert_usage("apply -e", "-e needs a value");
}

static void words_that_look_like_options_are_words(void **state) {
  (void)state;
  struct esp_cli cli;
  parse_ok("get enc -", &cli);
  assert_string_equal(cli.args[1], "-");
  parse_ok("freeze -- --odd", &cli);
  assert_string_equal(cli.args[0], "--odd");
  parse_ok("tree !name:bias", &cli);
  assert_string_equal(cli.args[0], "!name:bias");
  setenv("POSIXLY_CORRECT", "1", 1); /* glibc then stops at the first word, and we don't */
  parse_ok("tree enc --json", &cli);
  unsetenv("POSIXLY_CORRECT");
  assert_int_equal(cli.options, ESP_CLI_JSON);
}

static void the_server_comes_from_the_environment(void **state) {
  (void)state;
  struct esp_cli cli;
  unsetenv("ESPALIER_SERVER");
  parse_ok("status", &cli);
  assert_string_equal(cli.server, ESP_CLI_SERVER_DEFAULT);
  setenv("ESPALIER_SERVER", "", 1);
  parse_ok("status", &cli);
  assert_string_equal(cli.server, ESP_CLI_SERVER_DEFAULT);
  setenv("ESPALIER_SERVER", "unix:/s", 1);
  parse_ok("status", &cli);
  assert_string_equal(cli.server, "unix:/s");
  parse_ok("status --server a:1", &cli);
  assert_string_equal(cli.server, "a:1");
  unsetenv("ESPALIER_SERVER");
}

static void wrong_lines_say_what_is_wrong(void **state) {
  (void)state;
  assert_usage("frezee enc", "no command 'frezee'");
  assert_usage("freeze", "freeze needs SELECTION");
  assert_usage("set enc", "set needs PATH FILE.npy");
  assert_usage("freeze a b", "and got 'b' too; a selection with * or spaces needs quotes");
  assert_usage("status all", "status takes no arguments, and got 'all'");
  assert_usage("status --dry-run", "status takes no --dry-run");
  assert_usage("freeze enc --reset-state", "freeze takes no --reset-state");
  assert_usage("tree --colour", "no option --colour");
  assert_usage("tree -x", "no option -x");
  assert_usage("tree --json=yes", "--json=yes, or it is not given like that");
  assert_usage("tree --server", "--server needs a value");
  assert_usage("tree --server=", "needs an address");
  assert_usage("freeze enc --if-epoch 0", "--if-epoch '0': expected a number from 1");
  assert_usage("freeze enc --if-epoch -1", "expected a number");
  assert_usage("freeze enc --if-epoch 7x", "expected a number");
  assert_usage("freeze enc --if-epoch 18446744073709551616", "expected a number");
  assert_usage("freeze enc --max-leaves many", "--max-leaves 'many'");
  assert_usage("tree --timeout 30", "'30' is no time");
}

static void help_needs_no_arguments(void **state) {
  (void)state;
  struct esp_cli cli;
  parse_ok("freeze --help", &cli);
  assert_int_equal(cli.options, ESP_CLI_HELP);
  parse_ok("-h", &cli);
  assert_int_equal(cli.options, ESP_CLI_HELP);
  assert_null(cli.command);
  parse_ok("", &cli);
  assert_null(cli.command);
}

static void times_need_a_unit(void **state) {
  (void)state;
  static const struct {
    const char *text;
    uint64_t ms; /* 0: refused */
  } cases[] = {{"1ms", 1},
               {"1500ms", 1500},
               {"30s", 30000},
               {"2m", 120000},
               {"1h", 3600000},
               {"24h", 86400000},
               {"25h", 0},
               {"0s", 0},
               {"", 0},
               {"s", 0},
               {"30", 0},
               {"30 s", 0},
               {"-1s", 0},
               {"1.5s", 0},
               {"30S", 0},
               {"86400001ms", 0},
               {"18446744073709551617ms", 0},
               {"1d", 86400000},
               {"1h30m", 5400000},
               {"1d1ms", 0},
               {"1sx", 0}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    uint64_t ms = 0;
    enum esp_code code = esp_cli_parse_time(cases[i].text, &ms, NULL);
    assert_int_equal(code, cases[i].ms != 0 ? ESP_OK : ESP_INVALID_ARGUMENT);
    assert_int_equal(ms, cases[i].ms);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(options_stand_anywhere),
      ESP_TEST(an_operation_has_options_of_its_own),
      ESP_TEST(words_that_look_like_options_are_words),
      ESP_TEST(the_server_comes_from_the_environment),
      ESP_TEST(wrong_lines_say_what_is_wrong),
      ESP_TEST(help_needs_no_arguments),
      ESP_TEST(times_need_a_unit),
  };
  return cmocka_run_group_tests_name("cli.args", tests, NULL, NULL);
}
