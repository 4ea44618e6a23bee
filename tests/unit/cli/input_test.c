/* Tests of client/cli/input.c: files and pipes of every size around those that it reads at once. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "client/cli/input.h"
#include "tests/support/test.h"

static const size_t sizes[] = {0, 1, 65535, 65536, 65537, 131071, 131072, 300000};
#define SIZES_LEN (sizeof sizes / sizeof sizes[0])
static uint8_t bytes[300000];

static void assert_read(const char *file, size_t len) {
  struct esp_cli_input input;
  struct esp_status st;
  assert_int_equal(esp_cli_input_read(&input, file, &st), ESP_OK);
  assert_int_equal(input.len, len);
  assert_memory_equal(input.data, bytes, len);
  esp_cli_input_free(&input);
  esp_cli_input_free(&input);
}

static void files_of_any_size_are_read(void **state) {
  (void)state;
  for (size_t i = 0; i < SIZES_LEN; i++) {
    FILE *file = fopen("input_test.bin", "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, sizes[i], file), sizes[i]);
    assert_int_equal(fclose(file), 0);
    assert_read("input_test.bin", sizes[i]);
  }
  unlink("input_test.bin");
}

static void pipes_are_read_to_their_end(void **state) {
  (void)state;
  for (size_t i = 0; i < SIZES_LEN; i++) {
    int ends[2];
    char name[32];
    assert_int_equal(pipe(ends), 0);
    assert_true(fcntl(ends[1], F_SETPIPE_SZ, 1 << 20) >= (1 << 20)); /* so that nobody has to wait for the reader */
    assert_int_equal(write(ends[1], bytes, sizes[i]), sizes[i]);
    close(ends[1]);
    snprintf(name, sizeof name, "/dev/fd/%d", ends[0]);
    assert_read(name, sizes[i]);
    close(ends[0]);
  }
}

static void what_cannot_be_read_is_said(void **state) {
  (void)state;
  struct esp_cli_input input;
  struct esp_status st;
  assert_int_equal(esp_cli_input_read(&input, "no/such", &st), ESP_NOT_FOUND);
  assert_string_equal(st.message, "cannot open no/such: No such file or directory");
  assert_int_equal(esp_cli_input_read(&input, ".", &st), ESP_INTERNAL);
  assert_string_equal(st.message, "cannot read .: Is a directory");
  esp_alloc_fail_at(0);
  assert_int_equal(esp_cli_input_read(&input, "/dev/null", &st), ESP_RESOURCE_EXHAUSTED);
  esp_alloc_fail_at(-1);
}

int main(void) {
  for (size_t i = 0; i < sizeof bytes; i++)
    bytes[i] = (uint8_t)(i * 31 >> 3);
  const struct CMUnitTest tests[] = {
      ESP_TEST(files_of_any_size_are_read),
      ESP_TEST(pipes_are_read_to_their_end),
      ESP_TEST(what_cannot_be_read_is_said),
  };
  return cmocka_run_group_tests_name("cli.input", tests, NULL, NULL);
}
