/* Spare blocks: taken again, within the budget, and not for ever. (Reservations are tested through pushes.) */
#include "engine/budget.h"
#include "tests/support/test.h"

#define MIB ((size_t)1 << 20)

static void test_a_block_is_taken_again(void **state) {
  (void)state;
  struct esp_budget budget;
  esp_budget_init(&budget, "--max-staged", "staging", 100 * MIB);
  struct esp_block *a = esp_budget_take(&budget, 4 * MIB), *b = esp_budget_take(&budget, 3 * MIB);
  assert_int_equal((uintptr_t)a % ESP_CACHE_LINE, 0);
  esp_budget_give(&budget, a);
  esp_budget_give(&budget, b);
  assert_int_equal(budget.spare_bytes, 7 * MIB);
  assert_ptr_equal(esp_budget_take(&budget, 2 * MIB), b);  /* the smallest that holds it */
  struct esp_block *small = esp_budget_take(&budget, MIB); /* a is more than twice as large */
  assert_ptr_not_equal(small, a);
  assert_ptr_equal(esp_budget_take(&budget, 4 * MIB), a);
  assert_int_equal(budget.spare_bytes, 0);
  esp_budget_give(&budget, a);
  esp_budget_give(&budget, b);
  esp_budget_give(&budget, small);
  esp_budget_give(&budget, NULL);
  esp_budget_give(&budget, esp_budget_take(&budget, 100)); /* too small to be kept */
  assert_int_equal(budget.spare_bytes, 8 * MIB);
  esp_budget_done(&budget);
}

static void test_spare_blocks_stay_within_the_budget(void **state) {
  (void)state;
  struct esp_budget budget;
  struct esp_reservation reservation = {0};
  bool granted;
  esp_budget_init(&budget, "--max-staged", "staging", 10 * MIB);
  esp_budget_give(&budget, esp_budget_take(&budget, 6 * MIB));
  esp_budget_give(&budget, esp_budget_take(&budget, 2 * MIB));
  assert_int_equal(budget.spare_bytes, 8 * MIB);
  assert_int_equal(esp_budget_request(&budget, &reservation, 5 * MIB, 3, 4, &granted, NULL), ESP_OK);
  assert_true(granted);
  struct esp_block *block = esp_budget_take(&budget, 5 * MIB); /* the one of 6 MiB serves */
  assert_int_equal(block->size, 6 * MIB);
  esp_budget_give(&budget, esp_budget_take(&budget, MIB)); /* the one of 2 MiB did */
  assert_int_equal(budget.spare_bytes, 2 * MIB);
  esp_budget_give(&budget, esp_budget_take(&budget, 4 * MIB)); /* the older makes room */
  assert_int_equal(budget.spare_bytes, 4 * MIB);
  esp_budget_give(&budget, block);
  assert_int_equal(budget.spare_bytes, 0); /* 4 and 6 spare and 5 granted are too much, and so are 6 and 5 */
  esp_budget_release(&budget, &reservation);
  esp_budget_done(&budget);
}

static void test_old_blocks_go(void **state) {
  (void)state;
  struct esp_budget budget;
  esp_budget_init(&budget, "--max-staged", "staging", 10 * MIB);
  struct esp_block *a = esp_budget_take(&budget, 2 * MIB), *b = esp_budget_take(&budget, 3 * MIB);
  esp_budget_tick(&budget, 1000);
  esp_budget_give(&budget, a);
  esp_budget_tick(&budget, 5000);
  esp_budget_give(&budget, b);
  esp_budget_tick(&budget, 11000);
  assert_int_equal(budget.spare_bytes, 5 * MIB);
  esp_budget_tick(&budget, 11001);
  assert_int_equal(budget.spare_bytes, 3 * MIB);
  esp_budget_tick(&budget, 60000);
  assert_int_equal(budget.spare_bytes, 0);
  esp_budget_done(&budget);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_a_block_is_taken_again),
      ESP_TEST(test_spare_blocks_stay_within_the_budget),
      ESP_TEST(test_old_blocks_go),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
