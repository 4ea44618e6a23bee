/* Tests of base/check.c. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "tests/support/test.h"

/* Evaluates ESP_CHECK(holds) in a child; returns its wait status and what it wrote to stderr. */
static int run_check(int holds, char *output, size_t size) {
  int ends[2];
  assert_int_equal(pipe(ends), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    const struct rlimit no_core = {0};
    setrlimit(RLIMIT_CORE, &no_core);
    signal(SIGABRT, SIG_DFL); /* cmocka and sanitizers catch it */
    dup2(ends[1], STDERR_FILENO);
    ESP_CHECK(holds == 1);
    _exit(0);
  }
  close(ends[1]);
  size_t len = 0;
  for (ssize_t got; (got = read(ends[0], output + len, size - 1 - len)) > 0;)
    len += (size_t)got;
  output[len] = '\0';
  close(ends[0]);
  int status;
  assert_int_equal(waitpid(child, &status, 0), child);
  return status;
}

static void what_holds_goes_on(void **state) {
  (void)state;
  char output[512];
  int status = run_check(1, output, sizeof(output));
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  assert_string_equal(output, "");
}

static void what_is_broken_aborts_and_says_where(void **state) {
  (void)state;
  char output[512];
  int status = run_check(0, output, sizeof(output));
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  assert_non_null(strstr(output, "broken invariant: holds == 1 ("));
  assert_non_null(strstr(output, "check_test.c:"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(what_holds_goes_on),
      ESP_TEST(what_is_broken_aborts_and_says_where),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
