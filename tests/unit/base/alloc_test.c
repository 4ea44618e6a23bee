/* Tests of base/alloc.c. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "tests/support/test.h"

static void blocks_are_counted(void **state) {
  (void)state;
  size_t before = esp_alloc_live();
  void *blocks[] = {esp_malloc(0),          esp_malloc(1),           esp_calloc(3, 5),
                    esp_malloc_array(7, 9), esp_strdup("text"),      esp_strndup("text", 2),
                    esp_calloc_aligned(0),  esp_calloc_aligned(100), esp_realloc(NULL, 4)};
  size_t len = sizeof(blocks) / sizeof(blocks[0]);
  assert_int_equal(esp_alloc_live(), before + len);
  assert_string_equal(blocks[4], "text");
  assert_string_equal(blocks[5], "te");
  for (size_t i = 0; i < len; i++) {
    assert_non_null(blocks[i]);
    esp_free(blocks[i]);
  }
  esp_free(NULL);
  assert_int_equal(esp_alloc_live(), before);
}

static void every_size_is_aligned_and_usable(void **state) {
  (void)state;
  for (size_t size = 0; size < 600; size++) {
    uint8_t *plain = esp_malloc(size);
    uint8_t *aligned = esp_calloc_aligned(size);
    assert_int_equal((uintptr_t)plain % 16, 0);
    assert_int_equal((uintptr_t)aligned % ESP_CACHE_LINE, 0);
    for (size_t i = 0; i < size; i++)
      assert_int_equal(aligned[i], 0);
    memset(plain, 0xff, size);
    memset(aligned, 0xff, size);
    esp_free(plain);
    esp_free(aligned);
  }
}

static void realloc_keeps_content(void **state) {
  (void)state;
  size_t before = esp_alloc_live();
  uint8_t *block = NULL;
  for (size_t size = 1; size < 100000; size *= 3) {
    block = esp_realloc(block, size);
    assert_non_null(block);
    for (size_t i = 0; i < size / 3; i++)
      assert_int_equal(block[i], i % 251);
    for (size_t i = 0; i < size; i++)
      block[i] = (uint8_t)(i % 251);
  }
  assert_int_equal(esp_alloc_live(), before + 1);
  esp_alloc_fail_at(0);
  assert_null(esp_realloc(block, 200000));
  assert_int_equal(block[77], 77);
  esp_free(block);
}

static void sizes_that_overflow_are_refused(void **state) {
  (void)state;
  /* volatile: the compiler would warn of what is tested here */
  volatile size_t most = SIZE_MAX, half = SIZE_MAX / 2 + 1;
  assert_null(esp_malloc(most));
  assert_null(esp_malloc(most - 15));
  assert_null(esp_calloc_aligned(most));
  assert_null(esp_calloc_aligned(most - 79));
  assert_null(esp_calloc(half, 2));
  assert_null(esp_malloc_array(half, 2));
  assert_null(esp_malloc_array(3, most / 3 + 1));
  assert_null(esp_strndup("", most));
  void *block = esp_malloc(1);
  assert_null(esp_realloc(block, most));
  esp_free(block);
}

/* Pages of this process that are in memory. */
static long resident_pages(void) {
  long total, resident;
  FILE *file = fopen("/proc/self/statm", "r");
  assert_non_null(file);
  assert_int_equal(fscanf(file, "%ld %ld", &total, &resident), 2);
  fclose(file);
  return resident;
}

static void large_buffers_are_not_touched(void **state) {
  (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  skip(); /* a sanitizer's own pages are in the way */
#endif
  const size_t size = (size_t)256 << 20;
  long before = resident_pages();
  uint8_t *buffer = esp_calloc_aligned(size);
  assert_non_null(buffer);
  assert_true((resident_pages() - before) * sysconf(_SC_PAGESIZE) < (16 << 20));
  assert_int_equal(buffer[0] | buffer[size / 2] | buffer[size - 1], 0);
  buffer[size - 1] = 1;
  esp_free(buffer);
}

static void the_allocation_after_n_successes_fails_once(void **state) {
  (void)state;
  for (int n = 0; n < 5; n++) {
    esp_alloc_fail_at(n);
    for (int i = 0; i < 10; i++) {
      void *block = i % 3 == 0 ? esp_malloc(8) : i % 3 == 1 ? esp_calloc_aligned(8) : esp_calloc(1, 8);
      assert_int_equal(block == NULL, i == n);
      assert_int_equal(esp_alloc_fail_is_due(), i < n);
      esp_free(block);
    }
  }
}

static void grow_doubles_and_changes_nothing_on_failure(void **state) {
  (void)state;
  uint32_t *array = NULL;
  size_t capacity = 0;
  assert_true(esp_grow((void **)&array, &capacity, 0, sizeof(*array)));
  assert_null(array);
  for (uint32_t i = 0; i < 1000; i++) {
    assert_true(esp_grow((void **)&array, &capacity, i + 1, sizeof(*array)));
    array[i] = i;
  }
  assert_true(capacity >= 1000 && capacity < 3000);
  uint32_t *array_before = array;
  size_t capacity_before = capacity;
  esp_alloc_fail_at(0);
  assert_false(esp_grow((void **)&array, &capacity, 5000, sizeof(*array)));
  volatile size_t most = SIZE_MAX;
  assert_false(esp_grow((void **)&array, &capacity, most, sizeof(*array)));
  assert_ptr_equal(array, array_before);
  assert_int_equal(capacity, capacity_before);
  assert_true(esp_grow((void **)&array, &capacity, 5000, sizeof(*array)));
  for (uint32_t i = 0; i < 1000; i++)
    assert_int_equal(array[i], i);
  esp_free(array);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(blocks_are_counted),
      ESP_TEST(every_size_is_aligned_and_usable),
      ESP_TEST(realloc_keeps_content),
      ESP_TEST(sizes_that_overflow_are_refused),
      ESP_TEST(large_buffers_are_not_touched),
      ESP_TEST(the_allocation_after_n_successes_fails_once),
      ESP_TEST(grow_doubles_and_changes_nothing_on_failure),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
