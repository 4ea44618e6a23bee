/* Tests of client/cli/complete.c: what may stand in place of the last word. */
#include "tests/unit/cli/fixture.h"

/* run() cuts at single spaces, so that a space at the end is an empty last word. */
static void assert_completes(const char *line, const char *candidates) {
  char whole[256];
  snprintf(whole, sizeof whole, "complete %s", line);
  assert_run(whole, candidates);
}

static void commands_come_first(void **state) {
  (void)state;
  assert_completes("t", "tree\ntimers\ntop\nthaw\ntimer\ntie\n");
  assert_completes("--json di", "digest\n");
  assert_completes("help fre", "freeze\n");
  assert_completes("nosuch", "");
  assert_completes("nosuch f", "freeze\n");
  run("complete ");
  size_t len = 0;
  esp_cli_commands(&len);
  for (const char *at = result.out; (at = strchr(at, '\n')) != NULL; at++)
    len--;
  assert_int_equal(len, 0);
  assert_null(fake.options.target); /* no server was asked */
}

static void options_are_those_of_the_command(void **state) {
  (void)state;
  assert_completes("freeze --d", "--dry-run\n");
  assert_completes("tree --d", "");
  assert_completes("top --in", "--interval\n");
  assert_completes("-", "--server\n--json\n--timeout\n--help\n--version\n");
  assert_completes("tree --server ", ""); /* an address is nobody's guess */
  assert_completes("tree --timeout 3", "");
}

static void paths_come_one_component_at_a_time(void **state) {
  (void)state;
  assert_completes("tree ", "enc.\nhead.\ntied\n");
  assert_string_equal(fake.selection, "");
  assert_int_equal(fake.options.attempts_max, 1);
  assert_int_equal(fake.options.deadline_ms, 1000);
  assert_completes("freeze --dry-run enc.", "enc.bias\nenc.mean\n");
  assert_string_equal(fake.selection, "enc");
  assert_completes("get enc.m", "enc.mean\n");
  assert_completes("--server there:1 thaw h", "head.\n");
  assert_string_equal(fake.target, "there:1");
  assert_completes("tree nosuch", "");
  assert_completes("tree enc ", ""); /* it takes one argument only */
}

static void groups_are_the_server_s(void **state) {
  (void)state;
  assert_completes("regroup enc ", "default\nslow\n");
  assert_completes("adjust s", "slow\n");
  assert_completes("adjust slow ", "");
  assert_completes("group ", "create\nset\nshow\ndelete\n");
  assert_completes("group s", "set\nshow\n");
  assert_completes("group show d", "default\n");
  assert_completes("group create new ", "");
}

static void timers_are_the_server_s(void **state) {
  (void)state;
  static const struct esp_timer_info timers[] = {{.timer = 3}, {.timer = 31}, {.timer = 4}};
  fake.timers = (struct esp_timers){.len = 3, .timers = timers};
  assert_completes("timer ", "cancel\n");
  assert_completes("timer s", "");
  assert_completes("timer cancel ", "3\n31\n4\n");
  assert_completes("timer cancel 3", "3\n31\n");
  assert_int_equal(fake.options.deadline_ms, 1000);
  assert_completes("timer cancel 3 ", "");
  assert_completes("freeze enc --f", "--for\n");
  assert_completes("thaw enc --one", "--one-by-one\n");
  assert_completes("thaw enc --every ", "");
  fake.code = ESP_UNAVAILABLE;
  fake.message = "nobody is there";
  assert_fails("complete timer cancel 3", 5, "");
}

static void both_sides_of_an_operation_are_paths(void **state) {
  (void)state;
  assert_completes("tie ", "enc.\nhead.\ntied\n");
  assert_completes("tie tied --transpose e", "enc.\n");
  assert_completes("copy enc h", "head.\n");
  assert_completes("untie enc --st", "--state\n");
  assert_completes("tie a b --value ", "");
  assert_completes("apply -e ", "");
  assert_completes("apply --o", "--operation\n");
  assert_completes("apply -e x ", "<files>\n");
}

static void files_are_the_shell_s(void **state) {
  (void)state;
  assert_completes("set enc.bias ", "<files>\n");
  assert_completes("export m", "<files>\n");
  assert_completes("export m ", "enc.\nhead.\ntied\n");
}

static void silence_is_no_candidate(void **state) {
  (void)state;
  fake.code = ESP_UNAVAILABLE;
  fake.message = "nobody is there";
  assert_fails("complete tree e", 5, "");
  assert_string_equal(result.out, "");
  assert_fails("complete", 2, "");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(commands_come_first),     TEST(options_are_those_of_the_command), TEST(paths_come_one_component_at_a_time),
      TEST(groups_are_the_server_s), TEST(timers_are_the_server_s),          TEST(both_sides_of_an_operation_are_paths),
      TEST(files_are_the_shell_s),   TEST(silence_is_no_candidate),
  };
  return cmocka_run_group_tests_name("cli.complete", tests, NULL, NULL);
}
