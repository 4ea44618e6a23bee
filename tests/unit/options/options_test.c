/* Flags, file and defaults together, and each type of value at its bounds. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "options/table.h"
#include "tests/support/test.h"

#define PARSE(...) parse((const char *const[]){"espalierd", __VA_ARGS__, NULL})

static struct esp_options options;
static struct esp_status st;

static enum esp_code parse(const char *const *argv) {
  int argc = 0;
  while (argv[argc]) {
    argc++;
  }
  esp_options_done(&options);
  st = (struct esp_status){0};
  return esp_options_parse(argc, (char *const *)argv, &options, &st);
}

static void expect_failure(enum esp_code code, const char *message) {
  assert_int_equal(code, ESP_INVALID_ARGUMENT);
  assert_string_equal(st.message, message);
}

static void test_defaults(void **state) {
  (void)state;
  assert_int_equal(PARSE(NULL), ESP_OK);
  assert_null(options.config);
  assert_int_equal(options.listen.len, 1);
  assert_string_equal(options.listen.items[0], "127.0.0.1:7433");
  assert_false(options.insecure);
  assert_int_equal(options.threads, esp_machine_cores());
  assert_true(options.rpc_threads >= 1 && options.rpc_threads <= 4);
  assert_true(esp_isa_supported(options.isa));
  assert_int_equal(options.max_staged, esp_machine_memory() / 4);
  assert_int_equal(options.stall_timeout_ms, 30000);
  assert_int_equal(options.drain_timeout_ms, 3000);
  assert_int_equal(options.lease_ms, 30000);
  assert_int_equal(options.session_retention_ms, 24 * 3600 * 1000);
  assert_int_equal(options.max_sessions, 10000);
  assert_int_equal(options.max_streams, 1000);
  assert_int_equal(options.max_connections, 1000);
  assert_int_equal(options.max_pushes, 10000);
  assert_int_equal(options.max_in_flight, ESP_IN_FLIGHT_MAX);
  assert_int_equal(options.max_chunk, 4 << 20);
  assert_int_equal(options.max_message, (4 << 20) + (64 << 10));
  assert_int_equal(options.idle_timeout_ms, 3600 * 1000);
  assert_int_equal(options.keepalive_ms, 60000);
  assert_int_equal(options.keepalive_timeout_ms, 30000);
  assert_int_equal(options.on_nonfinite, ESP_NONFINITE_REJECT);
  assert_int_equal(options.group.len, 1);
  assert_string_equal(options.groups[0].name, "default");
  assert_string_equal(options.groups[0].value, "sgd(lr=0.01)");
  assert_int_equal(options.assign.len, 0);
  esp_options_done(&options);
}

static void test_a_message_has_room_for_a_chunk(void **state) {
  (void)state;
  assert_int_equal(PARSE("--max-chunk=8MiB", "--max-message=8256KiB"), ESP_OK);
  expect_failure(
      PARSE("--max-chunk=8MiB", "--max-message=8255KiB"),
      "--max-message (8453120 bytes) has no room for --max-chunk (8388608) and 65536 more for what is around "
      "it");
  expect_failure(
      PARSE("--max-chunk=8MiB"),
      "--max-message (4259840 bytes) has no room for --max-chunk (8388608) and 65536 more for what is around "
      "it");
  esp_options_done(&options);
}

static void test_flags(void **state) {
  (void)state;
  assert_int_equal(PARSE("--listen", "127.0.0.1:0", "--listen=unix:/tmp/x", "--insecure", "--threads=7", "--isa=sse2",
                         "--max-staged", "256MiB", "--on-nonfinite=skip", "--group", "slow=adam(lr=1e-3, beta1=0.9)",
                         "--assign", "a.b=slow", "--assign", "=slow", "--log-level=error"),
                   ESP_OK);
  assert_int_equal(options.listen.len, 2);
  assert_string_equal(options.listen.items[1], "unix:/tmp/x");
  assert_true(options.insecure);
  assert_int_equal(options.threads, 7);
  assert_int_equal(options.isa, ESP_ISA_SSE2);
  assert_int_equal(options.max_staged, 256 << 20);
  assert_int_equal(options.on_nonfinite, ESP_NONFINITE_SKIP);
  assert_int_equal(options.log_level, 3);
  assert_int_equal(options.group.len, 2);
  assert_string_equal(options.groups[0].name, "slow");
  assert_string_equal(options.groups[0].value, "adam(lr=1e-3, beta1=0.9)");
  assert_string_equal(options.groups[1].name, "default");
  assert_int_equal(options.assign.len, 2);
  assert_string_equal(options.assigns[0].name, "a.b");
  assert_string_equal(options.assigns[0].value, "slow");
  assert_string_equal(options.assigns[1].name, "");
  /* A group of one's own named default leaves no room for the table's. */
  assert_int_equal(PARSE("--group=default=adam(lr=1)"), ESP_OK);
  assert_int_equal(options.group.len, 1);
  /* Of what is not repeatable the last one counts, and a flag can be taken back. */
  assert_int_equal(PARSE("--threads=2", "--threads=3", "--insecure", "--insecure=no"), ESP_OK);
  assert_int_equal(options.threads, 3);
  assert_false(options.insecure);
  esp_options_done(&options);
}

static void test_bad_flags(void **state) {
  (void)state;
  expect_failure(PARSE("--threads=0"), "--threads takes a number from 1 to 256, not \"0\"");
  expect_failure(PARSE("--threads=257"), "--threads takes a number from 1 to 256, not \"257\"");
  expect_failure(PARSE("--threads= 1"), "--threads takes a number from 1 to 256, not \" 1\"");
  expect_failure(PARSE("--threads=-1"), "--threads takes a number from 1 to 256, not \"-1\"");
  expect_failure(PARSE("--lease=30"), "--lease takes a duration from 100ms to 24h (ms, s, m, h, d), not \"30\"");
  expect_failure(PARSE("--max-staged=1KB"),
                 "--max-staged takes a size from 1KiB to 16TiB (bytes, KiB, MiB, GiB, TiB), not \"1KB\"");
  expect_failure(PARSE("--on-nonfinite=rejec"), "--on-nonfinite takes one of reject/skip, not \"rejec\"");
  expect_failure(PARSE("--insecure=maybe"), "--insecure takes true or false, not \"maybe\"");
  expect_failure(PARSE("--group=x"), "--group takes NAME=EXPR, not \"x\"");
  expect_failure(PARSE("--threads"), "--threads takes a number from 1 to 256, and nothing follows it");
  expect_failure(PARSE("--nosuch"), "--nosuch: no such option; espalierd --help lists them");
  expect_failure(PARSE("-x"), "-x: no such option; espalierd --help lists them");
  expect_failure(PARSE("x"), "x: espalierd takes options only; --help lists them");
  esp_options_done(&options);
}

/* Every number is taken at both ends of its range and refused one beyond. */
static void test_ranges(void **state) {
  (void)state;
  for (const struct esp_option *option = esp_option_table; option->name; option++) {
    if (option->type != ESP_OPTION_COUNT && option->type != ESP_OPTION_SIZE && option->type != ESP_OPTION_DURATION) {
      continue;
    }
    const char *unit = option->type == ESP_OPTION_DURATION ? "ms" : "";
    for (int i = 0; i < 4; i++) {
      uint64_t value = (const uint64_t[]){option->min - 1, option->min, option->max, option->max + 1}[i];
      char text[64];
      struct esp_options got = {0};
      snprintf(text, sizeof(text), "%llu%s", (unsigned long long)value, unit);
      enum esp_code code = esp_option_read(option, option->name, text, &got, &st);
      assert_int_equal(code, i == 1 || i == 2 ? ESP_OK : ESP_INVALID_ARGUMENT);
      assert_int_equal(*(uint64_t *)((char *)&got + option->field), code ? 0 : value);
    }
  }
}

static void test_units(void **state) {
  (void)state;
  static const struct {
    const char *text;
    uint64_t bytes; /* 0: refused */
  } sizes[] = {{"1024", 1024},
               {"64KiB", 65536},
               {"3MiB", 3 << 20},
               {"2GiB", UINT64_C(2) << 30},
               {"16TiB", UINT64_C(16) << 40},
               {"18446744073709551616", 0},
               {"17592186044417MiB", 0},
               {"1 MiB", 0},
               {"1.5MiB", 0},
               {"MiB", 0},
               {"", 0},
               {"0x400", 0}};
  for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
    enum esp_code code = PARSE("--max-staged", sizes[i].text);
    assert_int_equal(code, sizes[i].bytes ? ESP_OK : ESP_INVALID_ARGUMENT);
    if (!code) {
      assert_int_equal(options.max_staged, sizes[i].bytes);
    }
  }
  assert_int_equal(PARSE("--lease=500ms", "--stall-timeout=2m", "--session-retention=1h30m", "--drain-timeout=0s"),
                   ESP_OK);
  assert_int_equal(options.lease_ms, 500);
  assert_int_equal(options.stall_timeout_ms, 120000);
  assert_int_equal(options.session_retention_ms, 5400000);
  assert_int_equal(options.drain_timeout_ms, 0);
  esp_options_done(&options);
}

static void test_defaults_follow_the_cores(void **state) {
  (void)state;
  cpu_set_t before, one;
  assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
  CPU_ZERO(&one);
  for (int cpu = 0; CPU_COUNT(&one) == 0; cpu++) {
    if (CPU_ISSET(cpu, &before)) {
      CPU_SET(cpu, &one);
    }
  }
  assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
  assert_int_equal(PARSE(NULL), ESP_OK);
  assert_int_equal(options.threads, 1);
  assert_int_equal(options.rpc_threads, 1);
  esp_options_done(&options);
  assert_int_equal(sched_setaffinity(0, sizeof(before), &before), 0);
}

/* ---- the file ---- */

static char file_path[] = "/tmp/espalier-options-XXXXXX";
static char file_flag[64];

static void file_write(const char *text) {
  FILE *file = fopen(file_path, "w");
  assert_non_null(file);
  assert_true(fputs(text, file) >= 0);
  assert_int_equal(fclose(file), 0);
}

static void expect_file_failure(const char *text, const char *message) {
  char whole[512];
  file_write(text);
  snprintf(whole, sizeof(whole), "--config %s: %s", file_path, message);
  expect_failure(PARSE(file_flag), whole);
}

static const char whole_file[] = "listen:\n"
                                 "  - 127.0.0.1:0\n"
                                 "  - unix:/tmp/y\n"
                                 "threads: 5\n"
                                 "insecure: true\n"
                                 "max-staged: 1GiB\n"
                                 "group:\n"
                                 "  - slow=adam(lr=1e-3, beta1=0.9)\n"
                                 "assign: [a.b=slow, =default]\n"
                                 "on-nonfinite: skip\n";

static void test_file(void **state) {
  (void)state;
  file_write(whole_file);
  assert_int_equal(PARSE(file_flag), ESP_OK);
  assert_int_equal(options.listen.len, 2);
  assert_string_equal(options.listen.items[1], "unix:/tmp/y");
  assert_int_equal(options.threads, 5);
  assert_true(options.insecure);
  assert_int_equal(options.max_staged, 1 << 30);
  assert_int_equal(options.group.len, 2);
  assert_string_equal(options.groups[0].value, "adam(lr=1e-3, beta1=0.9)");
  assert_string_equal(options.groups[1].name, "default");
  assert_int_equal(options.assign.len, 2);
  assert_int_equal(options.on_nonfinite, ESP_NONFINITE_SKIP);
  assert_int_equal(options.lease_ms, 30000);
  /* Flags win, before and after --config; of a list they replace the whole. */
  assert_int_equal(PARSE("--config=/nonexistent", "--threads=2", file_flag, "--listen=[::1]:0", "--insecure=false"),
                   ESP_OK);
  assert_int_equal(options.threads, 2);
  assert_int_equal(options.listen.len, 1);
  assert_string_equal(options.listen.items[0], "[::1]:0");
  assert_false(options.insecure);
  assert_int_equal(options.max_staged, 1 << 30);
  file_write("# nothing but a comment\n");
  assert_int_equal(PARSE(file_flag), ESP_OK);
  esp_options_done(&options);
}

static void test_bad_file(void **state) {
  (void)state;
  expect_file_failure("threads: 4\nnosuch: 5\n", "Unexpected key: nosuch; the keys are the options that --help lists");
  expect_file_failure("config: x\n", "Unexpected key: config; the keys are the options that --help lists");
  expect_file_failure("threads: 0\n", "threads takes a number from 1 to 256, not \"0\"");
  expect_file_failure("threads:\n", "threads takes a number from 1 to 256, not \"\"");
  expect_file_failure("threads: [1]\n", "Expecting STRING, got event: SEQUENCE_START (line: 1, column: 10)");
  expect_file_failure("listen: a\n", "Expecting SEQUENCE, got event: SCALAR (line: 1, column: 9)");
  expect_file_failure("listen: []\n", "Insufficient entries (0 of 1 min) in sequence. (line: 1, column: 9)");
  expect_file_failure("threads: 1\nthreads: 2\n", "Mapping field already seen: threads (line: 1, column: 10)");
  expect_file_failure("threads: &x 1\nmax-sessions: *x\n", "YAML alias unsupported (line: 2, column: 1)");
  expect_file_failure("\tthreads: 1\n", "libyaml: found character that cannot start any token");
  expect_file_failure("- threads\n", "Expecting MAPPING, got event: SEQUENCE_START");
  assert_int_equal(PARSE("--config=/nonexistent/espalier.yaml"), ESP_NOT_FOUND);
  assert_string_equal(st.message, "--config /nonexistent/espalier.yaml: No such file or directory");
  esp_options_done(&options);
}

static void test_no_memory(void **state) {
  (void)state;
  file_write(whole_file);
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  int64_t n = 0;
  for (; code == ESP_RESOURCE_EXHAUSTED; n++) {
    esp_options_done(&options);
    esp_alloc_fail_at(n);
    code = PARSE(file_flag, "--listen=127.0.0.1:0", "--group=a=sgd(lr=1)");
    esp_alloc_fail_at(-1);
  }
  assert_int_equal(code, ESP_OK);
  assert_true(n > 20);
  esp_options_done(&options);
}

/* ---- what is printed ---- */

static char *printed(void (*print)(FILE *)) {
  char *text = NULL;
  size_t len = 0;
  FILE *out = open_memstream(&text, &len);
  assert_non_null(out);
  print(out);
  assert_int_equal(fclose(out), 0);
  return text;
}

static void test_everything_is_documented(void **state) {
  (void)state;
  char *help = printed(esp_options_print_help), *markdown = printed(esp_options_print_markdown);
  for (const struct esp_option *option = esp_option_table; option->name; option++) {
    char flag[64];
    snprintf(flag, sizeof(flag), "--%s", option->name);
    bool hidden = option->where == ESP_OPTION_HIDDEN;
    assert_true(hidden == !strstr(help, flag));
    assert_true(hidden == !strstr(markdown, flag));
  }
  assert_non_null(strstr(help, "Takes a duration from 100ms to 24h (ms, s, m, h, d). Default: 30s.\n"));
  assert_non_null(strstr(markdown, "| `--threads` | a number from 1 to 256 | the number of cores |"));
  free(help);
  free(markdown);
  assert_int_equal(PARSE("--help"), ESP_OK);
  assert_true(options.help);
  assert_int_equal(PARSE("-h", "--config=/nonexistent"), ESP_OK);
  assert_true(options.help);
  assert_int_equal(PARSE("--version"), ESP_OK);
  assert_true(options.version);
  esp_options_done(&options);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_defaults),
      ESP_TEST(test_flags),
      ESP_TEST(test_a_message_has_room_for_a_chunk),
      ESP_TEST(test_bad_flags),
      ESP_TEST(test_ranges),
      ESP_TEST(test_units),
      ESP_TEST(test_defaults_follow_the_cores),
      ESP_TEST(test_file),
      ESP_TEST(test_bad_file),
      ESP_TEST(test_no_memory),
      ESP_TEST(test_everything_is_documented),
  };
  int fd = mkstemp(file_path);
  if (fd < 0) {
    return 1;
  }
  close(fd);
  snprintf(file_flag, sizeof(file_flag), "--config=%s", file_path);
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  unlink(file_path);
  return failed;
}
