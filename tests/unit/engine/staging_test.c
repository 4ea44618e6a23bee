/* Spare blocks: taken again, within the budget, and not for ever. (Reservations are tested through pushes.) */
#include "engine/staging.h"
#include "tests/support/test.h"

#define MIB ((size_t)1 << 20)

static void test_a_block_is_taken_again(void **state) {
  (void)state;
  struct esp_staging staging;
  esp_staging_init(&staging, 100 * MIB);
  struct esp_block *a = esp_staging_take(&staging, 4 * MIB), *b = esp_staging_take(&staging, 3 * MIB);
  assert_int_equal((uintptr_t)a->data % ESP_CACHE_LINE, 0);
  esp_staging_give(&staging, a, 0);
  esp_staging_give(&staging, b, 0);
  assert_int_equal(staging.spare_bytes, 7 * MIB);
  assert_ptr_equal(esp_staging_take(&staging, 2 * MIB), b);  /* the smallest that holds it */
  struct esp_block *small = esp_staging_take(&staging, MIB); /* a is more than twice as large */
  assert_ptr_not_equal(small, a);
  assert_ptr_equal(esp_staging_take(&staging, 4 * MIB), a);
  assert_int_equal(staging.spare_bytes, 0);
  esp_staging_give(&staging, a, 0);
  esp_staging_give(&staging, b, 0);
  esp_staging_give(&staging, small, 0);
  esp_staging_give(&staging, NULL, 0);
  esp_staging_give(&staging, esp_staging_take(&staging, 100), 0); /* too small to be kept */
  assert_int_equal(staging.spare_bytes, 8 * MIB);
  esp_staging_done(&staging);
}

static void test_spare_blocks_stay_within_the_budget(void **state) {
  (void)state;
  struct esp_staging staging;
  struct esp_reservation reservation = {0};
  bool granted;
  esp_staging_init(&staging, 10 * MIB);
  esp_staging_give(&staging, esp_staging_take(&staging, 6 * MIB), 1);
  esp_staging_give(&staging, esp_staging_take(&staging, 2 * MIB), 2);
  assert_int_equal(staging.spare_bytes, 8 * MIB);
  assert_int_equal(esp_staging_request(&staging, &reservation, 5 * MIB, 3, 4, &granted, NULL), ESP_OK);
  assert_true(granted);
  struct esp_block *block = esp_staging_take(&staging, 5 * MIB); /* the one of 6 MiB serves */
  assert_int_equal(block->size, 6 * MIB);
  esp_staging_give(&staging, esp_staging_take(&staging, MIB), 3); /* the one of 2 MiB did */
  assert_int_equal(staging.spare_bytes, 2 * MIB);
  esp_staging_give(&staging, esp_staging_take(&staging, 4 * MIB), 4); /* the older makes room */
  assert_int_equal(staging.spare_bytes, 4 * MIB);
  esp_staging_give(&staging, block, 5);
  assert_int_equal(staging.spare_bytes, 0); /* 4 and 6 spare and 5 granted are too much, and so are 6 and 5 */
  esp_staging_release(&staging, &reservation);
  esp_staging_done(&staging);
}

static void test_old_blocks_go(void **state) {
  (void)state;
  struct esp_staging staging;
  esp_staging_init(&staging, 10 * MIB);
  struct esp_block *a = esp_staging_take(&staging, 2 * MIB), *b = esp_staging_take(&staging, 3 * MIB);
  esp_staging_give(&staging, a, 1000);
  esp_staging_give(&staging, b, 5000);
  esp_staging_tick(&staging, 11000);
  assert_int_equal(staging.spare_bytes, 5 * MIB);
  esp_staging_tick(&staging, 11001);
  assert_int_equal(staging.spare_bytes, 3 * MIB);
  esp_staging_tick(&staging, 60000);
  assert_int_equal(staging.spare_bytes, 0);
  esp_staging_done(&staging);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_a_block_is_taken_again),
      ESP_TEST(test_spare_blocks_stay_within_the_budget),
      ESP_TEST(test_old_blocks_go),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
