/* Tests of base/env_system.c, in a directory of its own. */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/env.h"
#include "tests/support/test.h"

static const struct esp_env *env;
static char directory[64];

static int enter_directory(void **state) {
  env = esp_env_system();
  snprintf(directory, sizeof(directory), "esp_env_system_XXXXXX");
  return mkdtemp(directory) == NULL || chdir(directory) != 0 ? -1 : esp_test_setup(state);
}

static int leave_directory(void **state) {
  if (chdir("..") != 0 || rmdir(directory) != 0) {
    print_error("%s is not empty\n", directory);
    return -1;
  }
  return esp_test_teardown(state);
}

static size_t read_file(const char *path, char *bytes, size_t size) {
  FILE *file = fopen(path, "rb");
  assert_non_null(file);
  size_t len = fread(bytes, 1, size, file);
  fclose(file);
  return len;
}

static void clocks_go_forward(void **state) {
  (void)state;
  uint64_t now = env->now_ms(env->data);
  for (int i = 0; i < 1000; i++) {
    uint64_t next = env->now_ms(env->data);
    assert_true(next >= now);
    now = next;
  }
  assert_true(env->wall_ms(env->data) > UINT64_C(1700000000000));
}

static void randomness_differs(void **state) {
  (void)state;
  assert_true(env->random_u64(env->data) != env->random_u64(env->data));
}

static void a_file_is_written_renamed_and_removed(void **state) {
  (void)state;
  struct esp_file *file;
  struct esp_status st;
  mode_t mask = umask(0);
  assert_int_equal(env->file_create(env->data, "a", &file, &st), ESP_OK);
  umask(mask);
  assert_int_equal(env->file_write(env->data, file, "one ", 4, &st), ESP_OK);
  assert_int_equal(env->file_write(env->data, file, "", 0, &st), ESP_OK);
  assert_int_equal(env->file_write(env->data, file, "two", 3, &st), ESP_OK);
  assert_int_equal(env->file_sync(env->data, file, &st), ESP_OK);
  env->file_close(env->data, file);
  env->file_close(env->data, NULL);
  struct stat attributes;
  assert_int_equal(stat("a", &attributes), 0);
  assert_int_equal(attributes.st_mode & 0777, 0644);
  char path[256], bytes[16];
  assert_int_equal(env->file_rename(env->data, "a", "b", &st), ESP_OK);
  assert_non_null(getcwd(path, sizeof(path) - 2));
  strcat(path, "/c"); /* an absolute path has another directory to sync */
  assert_int_equal(env->file_rename(env->data, "b", path, &st), ESP_OK);
  assert_int_equal(read_file("c", bytes, sizeof(bytes)), 7);
  assert_memory_equal(bytes, "one two", 7);
  assert_int_equal(env->file_remove(env->data, "c", &st), ESP_OK);
}

static void failures_name_path_and_reason(void **state) {
  (void)state;
  struct esp_file *file = NULL, *other = NULL;
  struct esp_status st;
  assert_int_equal(env->file_create(env->data, "no/such", &other, &st), ESP_NOT_FOUND);
  assert_string_equal(st.message, "cannot create no/such: No such file or directory");
  assert_int_equal(env->file_create(env->data, "a", &file, &st), ESP_OK);
  assert_int_equal(env->file_create(env->data, "a", &other, &st), ESP_ALREADY_EXISTS);
  assert_null(other);
  assert_string_equal(st.message, "cannot create a: File exists");
  assert_int_equal(env->file_rename(env->data, "x", "y", &st), ESP_NOT_FOUND);
  assert_string_equal(st.message, "cannot rename x to y: No such file or directory");
  assert_int_equal(env->file_remove(env->data, "x", NULL), ESP_NOT_FOUND);
  env->file_close(env->data, file);
  assert_int_equal(env->file_remove(env->data, "a", &st), ESP_OK);
}

/* The limit makes write(2) fall short first and fail then, as a full disk does. */
static void a_full_disk_is_an_error(void **state) {
  (void)state;
  struct esp_file *file;
  struct esp_status st;
  struct rlimit before;
  char bytes[1000] = {0}, got[2000];
  getrlimit(RLIMIT_FSIZE, &before);
  signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(env->file_create(env->data, "a", &file, &st), ESP_OK);
  setrlimit(RLIMIT_FSIZE, &(struct rlimit){.rlim_cur = 1500, .rlim_max = before.rlim_max});
  enum esp_code first = env->file_write(env->data, file, bytes, sizeof(bytes), &st);
  enum esp_code second = env->file_write(env->data, file, bytes, sizeof(bytes), &st);
  setrlimit(RLIMIT_FSIZE, &before);
  assert_int_equal(first, ESP_OK);
  assert_int_equal(second, ESP_RESOURCE_EXHAUSTED);
  assert_string_equal(st.message, "cannot write a: File too large");
  env->file_close(env->data, file);
  assert_int_equal(read_file("a", got, sizeof(got)), 1500);
  assert_int_equal(env->file_remove(env->data, "a", &st), ESP_OK);
}

static void memory_may_fail(void **state) {
  (void)state;
  struct esp_file *file;
  struct esp_status st;
  esp_alloc_fail_at(0);
  assert_int_equal(env->file_create(env->data, "a", &file, &st), ESP_RESOURCE_EXHAUSTED);
  assert_int_equal(access("a", F_OK), -1);
  assert_int_equal(env->file_create(env->data, "a", &file, &st), ESP_OK);
  env->file_close(env->data, file);
  esp_alloc_fail_at(0);
  assert_int_equal(env->file_rename(env->data, "a", "b", &st), ESP_RESOURCE_EXHAUSTED);
  assert_int_equal(env->file_remove(env->data, "b", &st), ESP_OK);
}

#define IN_DIRECTORY(function) cmocka_unit_test_setup_teardown(function, enter_directory, leave_directory)

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(clocks_go_forward),
      ESP_TEST(randomness_differs),
      IN_DIRECTORY(a_file_is_written_renamed_and_removed),
      IN_DIRECTORY(failures_name_path_and_reason),
      IN_DIRECTORY(a_full_disk_is_an_error),
      IN_DIRECTORY(memory_may_fail),
  };
  env = esp_env_system();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
