/* Tests of base/log.c: stderr is a pipe while a line is written. */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/support/test.h"

static int ends[2];       /* of the pipe */
static int stderr_before; /* the real one */

static void catch_stderr(void) {
  fflush(stderr);
  assert_int_equal(pipe(ends), 0);
  stderr_before = dup(STDERR_FILENO);
  assert_true(stderr_before >= 0 && dup2(ends[1], STDERR_FILENO) >= 0);
  close(ends[1]);
}

/* Gives stderr back; what was written goes to output. */
static size_t release_stderr(char *output, size_t size) {
  dup2(stderr_before, STDERR_FILENO);
  close(stderr_before);
  size_t len = 0;
  for (ssize_t got; (got = read(ends[0], output + len, size - 1 - len)) > 0;)
    len += (size_t)got;
  output[len] = '\0';
  close(ends[0]);
  return len;
}

static void a_line_has_time_level_and_text(void **state) {
  (void)state;
  static const char *const names[] = {"debug ", "info  ", "warn  ", "error "};
  for (int level = ESP_LOG_DEBUG; level <= ESP_LOG_ERROR; level++) {
    esp_log_level_set(ESP_LOG_DEBUG);
    catch_stderr();
    errno = EDOM;
    esp_log((enum esp_log_level)level, "pushes: %d", 3);
    int errno_after = errno;
    char line[256];
    release_stderr(line, sizeof(line));
    assert_int_equal(errno_after, EDOM);
    int year, month, day, hour, minute, second, ms, at = 0;
    assert_int_equal(
        sscanf(line, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ %n", &year, &month, &day, &hour, &minute, &second, &ms, &at), 7);
    assert_int_equal(at, strlen("2026-01-31T12:00:00.000Z "));
    assert_true(year >= 2024 && month >= 1 && month <= 12 && hour < 24);
    assert_memory_equal(line + at, names[level], 6);
    assert_string_equal(line + at + 6, "pushes: 3\n");
  }
  esp_log_level_set(ESP_LOG_INFO);
}

static void what_is_below_the_level_is_not_written(void **state) {
  (void)state;
  char output[1024];
  for (int least = ESP_LOG_DEBUG; least <= ESP_LOG_ERROR; least++)
    for (int level = ESP_LOG_DEBUG; level <= ESP_LOG_ERROR; level++) {
      esp_log_level_set((enum esp_log_level)least);
      catch_stderr();
      esp_log((enum esp_log_level)level, "text");
      assert_int_equal(release_stderr(output, sizeof(output)) > 0, level >= least);
    }
  esp_log_level_set(ESP_LOG_INFO);
}

static void a_text_cannot_forge_a_line(void **state) {
  (void)state;
  char output[1024];
  catch_stderr();
  esp_log(ESP_LOG_INFO, "worker %s", "a\n2026-01-31\r\x1b[31m\x7f caf\xc3\xa9");
  size_t len = release_stderr(output, sizeof(output));
  assert_ptr_equal(strchr(output, '\n'), output + len - 1);
  assert_non_null(strstr(output, "worker a 2026-01-31  [31m  caf\xc3\xa9\n"));
}

static void a_long_line_is_cut_and_still_ends(void **state) {
  (void)state;
  char text[6000], output[8192];
  memset(text, 'x', sizeof(text) - 1);
  text[sizeof(text) - 1] = '\0';
  catch_stderr();
  esp_log(ESP_LOG_INFO, "%s", text);
  size_t len = release_stderr(output, sizeof(output));
  assert_in_range(len, 3000, 4096);
  assert_int_equal(output[len - 1], '\n');
  assert_int_equal(output[len - 2], 'x');
}

enum { THREADS = 4, LINES = 50 };

static void *write_lines(void *letter) {
  for (int i = 0; i < LINES; i++)
    esp_log(ESP_LOG_INFO, "%c%c%c%c%c%c%c%c", *(char *)letter, *(char *)letter, *(char *)letter, *(char *)letter,
            *(char *)letter, *(char *)letter, *(char *)letter, *(char *)letter);
  return NULL;
}

static void lines_of_threads_do_not_mix(void **state) {
  (void)state;
  static char output[THREADS * LINES * 64];
  static char letters[] = "abcd";
  pthread_t threads[THREADS];
  catch_stderr();
  for (int i = 0; i < THREADS; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, write_lines, &letters[i]), 0);
  for (int i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);
  release_stderr(output, sizeof(output));
  int lines = 0;
  for (char *line = output, *end; (end = strchr(line, '\n')) != NULL; line = end + 1, lines++) {
    const char *text = end - 8;
    assert_int_equal(end - line, strlen("2026-01-31T12:00:00.000Z info  aaaaaaaa"));
    for (int i = 0; i < 8; i++)
      assert_int_equal(text[i], text[0]);
  }
  assert_int_equal(lines, THREADS * LINES);
}

static void a_closed_stderr_is_no_crash(void **state) {
  (void)state;
  int before = dup(STDERR_FILENO);
  close(STDERR_FILENO);
  errno = EDOM;
  esp_log(ESP_LOG_ERROR, "nobody reads this");
  assert_int_equal(errno, EDOM); /* the failed write's is not the caller's */
  dup2(before, STDERR_FILENO);
  close(before);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(a_line_has_time_level_and_text), ESP_TEST(what_is_below_the_level_is_not_written),
      ESP_TEST(a_text_cannot_forge_a_line),     ESP_TEST(a_long_line_is_cut_and_still_ends),
      ESP_TEST(lines_of_threads_do_not_mix),    ESP_TEST(a_closed_stderr_is_no_crash),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
