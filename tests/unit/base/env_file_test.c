/* Tests of base/env_file.c on the twin's disk: whatever fails, a reader finds the old file or the new one, whole. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/env.h"
#include "tests/support/env_virtual.h"
#include "tests/support/test.h"

/* Writes a new file at PATH in three pieces; what fails is aborted. */
static enum esp_code replace(const struct esp_env *env, const char *a, const char *b, const char *c) {
  struct esp_status st;
  struct esp_atomic_file file;
  enum esp_code code = esp_atomic_file_begin(&file, env, "model", &st);
  const char *pieces[] = {a, b, c};
  for (int i = 0; i < 3 && code == ESP_OK; i++)
    code = esp_atomic_file_write(&file, pieces[i], strlen(pieces[i]), &st);
  if (code == ESP_OK)
    code = esp_atomic_file_commit(&file, &st);
  if (code != ESP_OK)
    assert_true(strlen(st.message) > 0);
  esp_atomic_file_abort(&file); /* after a commit: nothing */
  esp_atomic_file_abort(&file);
  return code;
}

/* Which of the two the reader finds. */
static bool reader_sees_new(struct esp_env_virtual *twin) {
  size_t len = 0;
  const char *bytes = esp_env_virtual_read(twin, "model", &len);
  assert_non_null(bytes);
  bool is_new = len == 15 && memcmp(bytes, "the new content", len) == 0;
  if (!is_new) {
    assert_int_equal(len, 3);
    assert_memory_equal(bytes, "old", len);
  }
  return is_new;
}

static void commit_replaces_the_whole_file(void **state) {
  (void)state;
  struct esp_env_virtual *twin = esp_env_virtual_new(1);
  const struct esp_env *env = esp_env_virtual_env(twin);
  size_t len;
  assert_null(esp_env_virtual_read(twin, "model", &len));
  assert_int_equal(replace(env, "ol", "", "d"), ESP_OK);
  assert_false(reader_sees_new(twin));
  assert_int_equal(replace(env, "the ", "new ", "content"), ESP_OK);
  assert_true(reader_sees_new(twin));
  esp_env_virtual_crash(twin);
  assert_true(reader_sees_new(twin));
  assert_int_equal(esp_env_virtual_files_len(twin), 1);
  esp_env_virtual_free(twin);
}

static void before_commit_the_old_file_stands(void **state) {
  (void)state;
  struct esp_env_virtual *twin = esp_env_virtual_new(1);
  const struct esp_env *env = esp_env_virtual_env(twin);
  struct esp_atomic_file file;
  assert_int_equal(replace(env, "old", "", ""), ESP_OK);
  assert_int_equal(esp_atomic_file_begin(&file, env, "model", NULL), ESP_OK);
  assert_int_equal(esp_atomic_file_write(&file, "the new content", 15, NULL), ESP_OK);
  assert_false(reader_sees_new(twin));
  assert_int_equal(esp_env_virtual_files_len(twin), 2);
  size_t len;
  assert_non_null(esp_env_virtual_read(twin, file.path_tmp, &len));
  assert_int_equal(strlen(file.path_tmp), strlen("model.tmp-0123456789abcdef"));
  assert_memory_equal(file.path_tmp, "model.tmp-", 10);
  esp_atomic_file_abort(&file);
  assert_false(reader_sees_new(twin));
  assert_int_equal(esp_env_virtual_files_len(twin), 1);
  esp_env_virtual_free(twin);
}

static void every_operation_may_fail(void **state) {
  (void)state;
  int failures = 0;
  for (int64_t n = 0;; n++) {
    struct esp_env_virtual *twin = esp_env_virtual_new((uint64_t)n);
    const struct esp_env *env = esp_env_virtual_env(twin);
    assert_int_equal(replace(env, "old", "", ""), ESP_OK);
    esp_env_virtual_fail_at(twin, n);
    enum esp_code code = replace(env, "the ", "new ", "content");
    bool failed = esp_env_virtual_has_failed(twin);
    assert_int_equal(code == ESP_OK, !failed);
    bool is_new = reader_sees_new(twin);
    assert_true(code != ESP_OK || is_new);
    assert_int_equal(esp_env_virtual_files_len(twin), 1); /* nothing temporary is left */
    esp_env_virtual_crash(twin);
    assert_int_equal(reader_sees_new(twin), is_new);
    esp_env_virtual_fail_at(twin, -1);
    assert_int_equal(replace(env, "the ", "new ", "content"), ESP_OK);
    assert_true(reader_sees_new(twin));
    esp_env_virtual_free(twin);
    failures += failed;
    if (!failed)
      break;
  }
  assert_int_equal(failures, 1 + 3 + 1 + 2); /* create, writes, sync, rename and the directory's sync */
}

/* A crash in the middle: after n operations nobody aborts, and what was not synced is gone. */
static void a_crash_leaves_old_or_new(void **state) {
  (void)state;
  for (int64_t n = 0; n < 8; n++) {
    struct esp_env_virtual *twin = esp_env_virtual_new(7);
    const struct esp_env *env = esp_env_virtual_env(twin);
    assert_int_equal(replace(env, "old", "", ""), ESP_OK);
    struct esp_atomic_file file;
    esp_env_virtual_fail_at(twin, n);
    enum esp_code code = esp_atomic_file_begin(&file, env, "model", NULL);
    if (code == ESP_OK)
      code = esp_atomic_file_write(&file, "the new content", 15, NULL);
    if (code == ESP_OK)
      code = esp_atomic_file_commit(&file, NULL);
    esp_env_virtual_crash(twin);
    bool is_new = reader_sees_new(twin);
    assert_true(code != ESP_OK || is_new);
    esp_atomic_file_abort(&file);
    esp_env_virtual_free(twin);
  }
}

static void memory_may_fail_anywhere(void **state) {
  (void)state;
  for (int64_t n = 0;; n++) {
    struct esp_env_virtual *twin = esp_env_virtual_new(3);
    const struct esp_env *env = esp_env_virtual_env(twin);
    assert_int_equal(replace(env, "old", "", ""), ESP_OK);
    esp_alloc_fail_at(n);
    enum esp_code code = replace(env, "the ", "new ", "content");
    esp_alloc_fail_at(-1);
    assert_int_equal(reader_sees_new(twin), code == ESP_OK);
    assert_int_equal(esp_env_virtual_files_len(twin), 1);
    esp_env_virtual_free(twin);
    if (code == ESP_OK)
      break;
    assert_int_equal(code, ESP_RESOURCE_EXHAUSTED);
  }
}

static void the_clock_stands_still_and_the_seed_decides(void **state) {
  (void)state;
  struct esp_env_virtual *a = esp_env_virtual_new(5), *b = esp_env_virtual_new(5), *c = esp_env_virtual_new(6);
  const struct esp_env *env = esp_env_virtual_env(a);
  uint64_t now = env->now_ms(env->data), wall = env->wall_ms(env->data);
  assert_int_equal(env->now_ms(env->data), now);
  esp_env_virtual_advance(a, 30000);
  assert_int_equal(env->now_ms(env->data), now + 30000);
  assert_int_equal(env->wall_ms(env->data), wall + 30000);
  assert_int_equal(env->random_u64(a), env->random_u64(b));
  assert_true(env->random_u64(a) != env->random_u64(c));
  esp_env_virtual_free(a);
  esp_env_virtual_free(b);
  esp_env_virtual_free(c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(commit_replaces_the_whole_file), ESP_TEST(before_commit_the_old_file_stands),
      ESP_TEST(every_operation_may_fail),       ESP_TEST(a_crash_leaves_old_or_new),
      ESP_TEST(memory_may_fail_anywhere),       ESP_TEST(the_clock_stands_still_and_the_seed_decides),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
