/* Tests of formats/safetensors.c: golden bytes, alignment, the errors, every failing write and allocation. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "formats/safetensors.h"
#include "tests/support/env_virtual.h"
#include "tests/support/test.h"

static const struct esp_safetensors_metadata metadata[] = {{"format", "pt"}, {"commit", "7"}};

/* Two bytes, four, eight: in path order none would be aligned. */
static const struct esp_safetensors_tensor mixed[] = {
    {"a.half", ESP_DTYPE_BF16, {{1}, 1}},
    {"b.scalar", ESP_DTYPE_F64, {{0}, 0}},
    {"b.weight", ESP_DTYPE_F32, {{1, 3}, 2}},
    {"c", ESP_DTYPE_F16, {{2}, 1}},
};
static const char mixed_header[] = "{\"__metadata__\":{\"format\":\"pt\",\"commit\":\"7\"},"
                                   "\"a.half\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[20,22]},"
                                   "\"b.scalar\":{\"dtype\":\"F64\",\"shape\":[],\"data_offsets\":[0,8]},"
                                   "\"b.weight\":{\"dtype\":\"F32\",\"shape\":[1,3],\"data_offsets\":[8,20]},"
                                   "\"c\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[22,26]}}";
static const char mixed_data[] = "eight...twelve......2.four";

/* Writes the data in pieces of `step` bytes and commits; what fails is aborted. */
static enum esp_code write_mixed(const struct esp_env *env, size_t step, struct esp_status *st) {
  struct esp_safetensors_writer writer;
  enum esp_code code = esp_safetensors_begin(&writer, env, "m", mixed, 4, metadata, 2, st);
  if (code != ESP_OK)
    return code;
  for (size_t at = 0; code == ESP_OK && at < 26; at += step)
    code = esp_safetensors_write(&writer, mixed_data + at, 26 - at < step ? 26 - at : step, st);
  if (code == ESP_OK)
    code = esp_safetensors_commit(&writer, st);
  esp_safetensors_abort(&writer);
  esp_safetensors_abort(&writer);
  return code;
}

static void assert_is_mixed(struct esp_env_virtual *twin) {
  size_t len;
  const char *bytes = esp_env_virtual_read(twin, "m", &len);
  size_t header_len = (sizeof mixed_header - 1 + 7) / 8 * 8;
  assert_int_equal(len, 8 + header_len + 26);
  for (size_t i = 0; i < 8; i++)
    assert_int_equal((uint8_t)bytes[i], header_len >> (8 * i) & 0xff);
  assert_memory_equal(bytes + 8, mixed_header, sizeof mixed_header - 1);
  for (size_t i = sizeof mixed_header - 1; i < header_len; i++)
    assert_int_equal(bytes[8 + i], ' ');
  assert_memory_equal(bytes + 8 + header_len, mixed_data, 26);
}

static void the_file_is_what_the_format_says(void **state) {
  (void)state;
  for (size_t step = 1; step <= 26; step++) {
    struct esp_env_virtual *twin = esp_env_virtual_new(1);
    struct esp_status st;
    assert_int_equal(write_mixed(esp_env_virtual_env(twin), step, &st), ESP_OK);
    assert_is_mixed(twin);
    assert_int_equal(esp_env_virtual_files_len(twin), 1);
    esp_env_virtual_free(twin);
  }
}

static void large_elements_come_first(void **state) {
  (void)state;
  struct esp_env_virtual *twin = esp_env_virtual_new(1);
  struct esp_safetensors_writer writer;
  assert_int_equal(esp_safetensors_begin(&writer, esp_env_virtual_env(twin), "m", mixed, 4, NULL, 0, NULL), ESP_OK);
  const size_t order[] = {1, 2, 0, 3};
  assert_int_equal(writer.order_len, 4);
  assert_memory_equal(writer.order, order, sizeof order);
  esp_safetensors_abort(&writer);
  assert_int_equal(esp_env_virtual_files_len(twin), 0);
  esp_env_virtual_free(twin);
}

static void no_tensors_are_a_file_too(void **state) {
  (void)state;
  struct esp_env_virtual *twin = esp_env_virtual_new(1);
  struct esp_safetensors_writer writer;
  assert_int_equal(esp_safetensors_begin(&writer, esp_env_virtual_env(twin), "m", NULL, 0, NULL, 0, NULL), ESP_OK);
  assert_int_equal(esp_safetensors_commit(&writer, NULL), ESP_OK);
  esp_safetensors_abort(&writer);
  size_t len;
  const char *bytes = esp_env_virtual_read(twin, "m", &len);
  const char expected[] = "\x18\0\0\0\0\0\0\0{\"__metadata__\":{}}      ";
  assert_int_equal(len, 8 + 24);
  assert_memory_equal(bytes, expected, len - 1);
  esp_env_virtual_free(twin);
}

/* Names need JSON's escapes, and offsets more than a double holds. */
static void names_and_offsets_survive(void **state) {
  (void)state;
  struct esp_env_virtual *twin = esp_env_virtual_new(1);
  const uint64_t huge = (UINT64_C(1) << 60) + 4;
  const struct esp_safetensors_tensor tensors[] = {
      {"quote\"\\ \xc3\xa9 \xf0\x9f\x8c\xb3", ESP_DTYPE_F32, {{huge / 4}, 1}}, {"next", ESP_DTYPE_F32, {{1}, 1}}};
  struct esp_safetensors_writer writer;
  assert_int_equal(esp_safetensors_begin(&writer, esp_env_virtual_env(twin), "m", tensors, 2, NULL, 0, NULL), ESP_OK);
  size_t len;
  const char *bytes = esp_env_virtual_read(twin, writer.file.path_tmp, &len);
  json_t *header = json_loadb(bytes + 8, len - 8, 0, NULL);
  assert_non_null(header);
  json_t *offsets = json_object_get(json_object_get(header, tensors[0].name), "data_offsets");
  assert_int_equal(json_integer_value(json_array_get(offsets, 1)), huge);
  offsets = json_object_get(json_object_get(header, "next"), "data_offsets");
  assert_int_equal(json_integer_value(json_array_get(offsets, 1)), huge + 4);
  json_decref(header);
  assert_int_equal(writer.bytes_left, huge + 4);
  esp_safetensors_abort(&writer);
  esp_env_virtual_free(twin);
}

static void assert_begin_fails(const struct esp_safetensors_tensor *tensors, size_t len, const char *what) {
  struct esp_env_virtual *twin = esp_env_virtual_new(1);
  struct esp_safetensors_writer writer;
  struct esp_status st;
  assert_int_equal(esp_safetensors_begin(&writer, esp_env_virtual_env(twin), "m", tensors, len, NULL, 0, &st),
                   ESP_INVALID_ARGUMENT);
  if (strstr(st.message, what) == NULL)
    fail_msg("\"%s\", not \"%s\"", st.message, what);
  assert_int_equal(esp_env_virtual_files_len(twin), 0);
  esp_safetensors_abort(&writer);
  esp_env_virtual_free(twin);
}

static void what_cannot_be_written_is_refused_before_the_file(void **state) {
  (void)state;
  const uint64_t half = UINT64_C(1) << 59;
  const struct esp_safetensors_tensor bad[] = {{"__metadata__", ESP_DTYPE_F32, {{1}, 1}},
                                               {"x", ESP_DTYPE_NONE, {{1}, 1}},
                                               {"x.y", ESP_DTYPE_F32, {{0}, 1}},
                                               {"x\xff", ESP_DTYPE_F32, {{1}, 1}}};
  const char *const messages[] = {"can't be called", "'x' has no dtype", "'x.y': ", "not UTF-8"};
  for (size_t i = 0; i < 4; i++)
    assert_begin_fails(&bad[i], 1, messages[i]);
  const struct esp_safetensors_tensor many[] = {
      {"a", ESP_DTYPE_F64, {{half}, 1}}, {"b", ESP_DTYPE_F64, {{half}, 1}}, {"c", ESP_DTYPE_F64, {{1}, 1}}};
  assert_begin_fails(many, 3, "2^63 bytes together");
}

static void too_much_and_too_little_data_are_errors(void **state) {
  (void)state;
  struct esp_env_virtual *twin = esp_env_virtual_new(1);
  struct esp_safetensors_writer writer;
  struct esp_status st;
  assert_int_equal(esp_safetensors_begin(&writer, esp_env_virtual_env(twin), "m", mixed, 4, NULL, 0, &st), ESP_OK);
  assert_int_equal(esp_safetensors_write(&writer, mixed_data, 25, &st), ESP_OK);
  assert_int_equal(esp_safetensors_write(&writer, mixed_data, 2, &st), ESP_INVALID_ARGUMENT);
  assert_int_equal(esp_safetensors_commit(&writer, &st), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(st.message, "lacks 1 bytes"));
  esp_safetensors_abort(&writer);
  assert_int_equal(esp_env_virtual_files_len(twin), 0);
  esp_env_virtual_free(twin);
}

static void a_failed_write_leaves_no_new_file(void **state) {
  (void)state;
  int failures = 0;
  for (int64_t n = 0;; n++) {
    struct esp_env_virtual *twin = esp_env_virtual_new(1);
    struct esp_status st;
    esp_env_virtual_fail_at(twin, n);
    enum esp_code code = write_mixed(esp_env_virtual_env(twin), 13, &st);
    bool failed = esp_env_virtual_has_failed(twin);
    assert_int_equal(code != ESP_OK, failed);
    if (esp_env_virtual_files_len(twin) > 0) /* all was well, or only the directory's sync failed */
      assert_is_mixed(twin);
    esp_env_virtual_free(twin);
    if (!failed)
      break;
    failures++;
  }
  assert_int_equal(failures, 8); /* create, four writes, sync, rename, the directory's sync */
}

/* Jansson's allocations are ours here, as in espctl. */
static void a_failed_allocation_is_reported(void **state) {
  (void)state;
  json_set_alloc_funcs(esp_malloc, esp_free);
  int failures = 0;
  for (int64_t n = 0;; n++) {
    struct esp_env_virtual *twin = esp_env_virtual_new(1);
    struct esp_status st;
    esp_alloc_fail_at(n);
    enum esp_code code = write_mixed(esp_env_virtual_env(twin), 26, &st);
    esp_alloc_fail_at(-1);
    if (code != ESP_OK) {
      /* A name that Jansson refuses once and takes unchecked a moment later passes for one that is not UTF-8. */
      assert_true(code == ESP_RESOURCE_EXHAUSTED || code == ESP_INVALID_ARGUMENT);
      assert_int_equal(esp_env_virtual_files_len(twin), 0);
      failures++;
    } else {
      assert_is_mixed(twin);
    }
    esp_env_virtual_free(twin);
    if (code == ESP_OK)
      break;
  }
  assert_true(failures > 20);
}

static void a_header_that_no_reader_takes_is_refused(void **state) {
  (void)state;
  enum { LEN = 2000, NAME = 52000 };
  char *name = esp_malloc(NAME + 1);
  memset(name, 'x', NAME);
  name[NAME] = '\0';
  struct esp_safetensors_tensor *tensors = esp_calloc(LEN, sizeof *tensors);
  for (size_t i = 0; i < LEN; i++) /* one name for all: the writer does not compare them */
    tensors[i] = (struct esp_safetensors_tensor){name, ESP_DTYPE_F32, {{0}, 0}};
  struct esp_env_virtual *twin = esp_env_virtual_new(1);
  struct esp_safetensors_writer writer;
  struct esp_status st;
  assert_int_equal(esp_safetensors_begin(&writer, esp_env_virtual_env(twin), "m", tensors, LEN, NULL, 0, &st),
                   ESP_RESOURCE_EXHAUSTED);
  assert_non_null(strstr(st.message, "100000000"));
  assert_int_equal(esp_env_virtual_files_len(twin), 0);
  esp_env_virtual_free(twin);
  esp_free(tensors);
  esp_free(name);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(the_file_is_what_the_format_says),
      ESP_TEST(large_elements_come_first),
      ESP_TEST(no_tensors_are_a_file_too),
      ESP_TEST(names_and_offsets_survive),
      ESP_TEST(what_cannot_be_written_is_refused_before_the_file),
      ESP_TEST(too_much_and_too_little_data_are_errors),
      ESP_TEST(a_failed_write_leaves_no_new_file),
      ESP_TEST(a_failed_allocation_is_reported),
      ESP_TEST(a_header_that_no_reader_takes_is_refused),
  };
  return cmocka_run_group_tests_name("formats.safetensors", tests, NULL, NULL);
}
