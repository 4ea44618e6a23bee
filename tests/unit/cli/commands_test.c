/* Tests of what all commands share: the table, help, a full disk, no memory. */
#include "tests/unit/cli/fixture.h"

static void local_commands_open_no_client(void **state) {
  (void)state;
  assert_run("version", "espctl 1.2.3\n");
  assert_run("--version", "espctl 1.2.3\n");
  json_t *json = run_json("version --json");
  assert_string_equal(json_string_value(json_object_get(json, "version")), "1.2.3");
  json_decref(json);
  run("help");
  assert_int_equal(result.exit_code, 0);
  assert_null(fake.options.target);
}

static void assert_fits_a_terminal(const char *text) {
  for (const char *line = text; *line != '\0';) {
    size_t len = strcspn(line, "\n");
    if (len > 80)
      fail_msg("too long for a terminal: %.*s", (int)len, line);
    line += len + (line[len] == '\n');
  }
}

/* Help comes from the tables: every command and option is in it. */
static void help_lists_everything(void **state) {
  (void)state;
  static const char *const options[] = {
      "--server ADDR", "--json",          "--timeout TIME",  "--dry-run",        "--if-epoch N",  "--max-leaves N",
      "--reset-state", "--piecewise",     "--interval TIME", "--count N",        "--help",        "--version",
      "-e OPERATION",  "--yes",           "--reason TEXT",   "--state WHAT",     "--value WHAT",  "--transpose",
      "--init INIT",   "--seed N",        "--kind WHAT",     "--tag NAME",       "--group GROUP", "--frozen",
      "--detached",    "--alias-of LEAF", "--for TIME",      "--until-commit N", "--at-commit N", "--one-by-one",
      "--every N"};
  size_t len;
  const struct esp_cli_command *commands = esp_cli_commands(&len);
  for (size_t i = 0; i < len; i++) {
    char line[64];
    run("help");
    assert_non_null(strstr(result.out, commands[i].summary));
    assert_fits_a_terminal(result.out);
    snprintf(line, sizeof line, "help %s", commands[i].name);
    run(line);
    assert_non_null(strstr(result.out, commands[i].help));
    assert_fits_a_terminal(result.out);
    snprintf(line, sizeof line, "%s --help", commands[i].name);
    char *help = strdup(result.out);
    run(line);
    assert_string_equal(result.out, help);
    free(help);
  }
  run("help");
  for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
    assert_non_null(strstr(result.out, options[i]));
  run("help thaw");
  assert_non_null(strstr(result.out, "--reset-state"));
  run("help freeze");
  assert_null(strstr(result.out, "--reset-state"));
  assert_fails("help nosuch", 2, "espctl: there is no command 'nosuch'; espctl help lists them\n");
}

static void no_command_is_a_wrong_line(void **state) {
  (void)state;
  run("--json");
  assert_int_equal(result.exit_code, 2);
  assert_int_equal(result.out_len, 0);
  assert_non_null(strstr(result.err, "usage: espctl"));
}

static const struct esp_apply_change changes[] = {{1, "enc.bias", "frozen", "no", "yes", ""},
                                                  {4, "tied", "frozen", "no", "yes", "enc.bias"},
                                                  {3, "head.weight", "value", "", "", ""}};

static void a_full_disk_under_the_output_is_an_error(void **state) {
  (void)state;
  FILE *out = fopen("/dev/full", "w");
  size_t err_len;
  char *const argv[] = {(char *)(uintptr_t) "espctl", (char *)(uintptr_t) "tree"};
  assert_non_null(out);
  forget_result();
  FILE *err = open_memstream(&result.err, &err_len);
  assert_int_equal(esp_cli_main(2, argv, esp_env_virtual_env(twin), out, err), 1);
  fclose(err);
  fclose(out);
  assert_string_equal(result.err, "espctl: cannot write the result: No space left on device\n");
}

/* Without memory a command fails and says so; it never prints something incomplete and succeeds. */
static void a_failed_allocation_is_never_a_success(void **state) {
  (void)state;
  fake.apply = (struct esp_apply_result){.epoch = 5, .commit = 6, .matched = 3, .changes_len = 3, .changes = changes};
  const char *const lines[] = {"status --json",
                               "tree --json",
                               "digest --json",
                               "freeze enc --json",
                               "groups",
                               "groups --json",
                               "workers --json",
                               "timers",
                               "timers --json",
                               "get head.weight w",
                               "export m",
                               "export m --json",
                               "export m --piecewise",
                               "group show default",
                               "group show default --json",
                               "select enc",
                               "group create g sgd"};
  for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
    run(lines[i]);
    char *whole = strdup(result.out);
    for (int64_t n = 0; n < 10000; n++) {
      esp_alloc_fail_at(n);
      run(lines[i]);
      esp_alloc_fail_at(-1);
      if (result.exit_code != 0) {
        assert_true(strlen(result.err) > 0);
        continue;
      }
      assert_string_equal(result.out, whole);
      if (n > 400) /* more than any of these allocates */
        break;
    }
    assert_int_equal(result.exit_code, 0);
    free(whole);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(local_commands_open_no_client),
      TEST(help_lists_everything),
      TEST(no_command_is_a_wrong_line),
      TEST(a_full_disk_under_the_output_is_an_error),
      TEST(a_failed_allocation_is_never_a_success),
  };
  return cmocka_run_group_tests_name("cli.commands", tests, NULL, NULL);
}
