/* Tests of base/arena.c. */
#include <stdbool.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "tests/support/test.h"

static void allocations_are_apart_and_aligned(void **state) {
  (void)state;
  enum { COUNT = 3000 };
  struct esp_arena arena;
  esp_arena_init(&arena, 0);
  static uint8_t *blocks[COUNT];
  for (size_t i = 0; i < COUNT; i++) {
    blocks[i] = esp_arena_alloc(&arena, i);
    assert_non_null(blocks[i]);
    assert_int_equal((uintptr_t)blocks[i] % 16, 0);
    memset(blocks[i], (int)(i % 251), i);
  }
  for (size_t i = 0; i < COUNT; i++)
    for (size_t k = 0; k < i; k++)
      if (blocks[i][k] != i % 251)
        fail_msg("byte %zu of block %zu was overwritten", k, i);
  esp_arena_done(&arena);
  esp_arena_done(&arena);
  assert_int_equal(arena.used, 0);
}

static void two_empty_allocations_differ(void **state) {
  (void)state;
  struct esp_arena arena;
  esp_arena_init(&arena, 0);
  assert_ptr_not_equal(esp_arena_alloc(&arena, 0), esp_arena_alloc(&arena, 0));
  esp_arena_done(&arena);
}

static void the_limit_holds(void **state) {
  (void)state;
  struct esp_arena arena;
  esp_arena_init(&arena, 100);
  assert_null(esp_arena_alloc(&arena, 101));
  assert_null(esp_arena_alloc(&arena, 97)); /* 112 with its padding */
  assert_non_null(esp_arena_alloc(&arena, 96));
  assert_null(esp_arena_alloc(&arena, 1));
  assert_int_equal(arena.used, 96);
  esp_arena_done(&arena);
  assert_non_null(esp_arena_alloc(&arena, 96)); /* the limit stays, and the arena is empty again */
  esp_arena_done(&arena);
}

static void sizes_that_overflow_are_refused(void **state) {
  (void)state;
  struct esp_arena arena;
  esp_arena_init(&arena, 0);
  volatile size_t most = SIZE_MAX;
  for (size_t below = 0; below < 32; below++)
    assert_null(esp_arena_alloc(&arena, most - below));
  assert_null(esp_arena_strndup(&arena, "", most));
  assert_int_equal(arena.used, 0);
  esp_arena_done(&arena);
}

static void strings_are_copied(void **state) {
  (void)state;
  struct esp_arena arena;
  esp_arena_init(&arena, 0);
  assert_string_equal(esp_arena_strndup(&arena, "encoder.weight", 7), "encoder");
  assert_string_equal(esp_arena_strndup(&arena, NULL, 0), "");
  esp_arena_done(&arena);
}

static void failing_allocations_leave_it_whole(void **state) {
  (void)state;
  for (int n = 0;; n++) {
    struct esp_arena arena;
    esp_arena_init(&arena, 0);
    size_t failures = 0;
    esp_alloc_fail_at(n);
    for (size_t i = 0; i < 10; i++) {
      size_t used = arena.used;
      void *block = esp_arena_alloc(&arena, 5000);
      failures += block == NULL;
      assert_int_equal(arena.used, block == NULL ? used : used + 5008);
    }
    esp_arena_done(&arena);
    if (failures == 0)
      break;
    assert_int_equal(failures, 1);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(allocations_are_apart_and_aligned),
      ESP_TEST(two_empty_allocations_differ),
      ESP_TEST(the_limit_holds),
      ESP_TEST(sizes_that_overflow_are_refused),
      ESP_TEST(strings_are_copied),
      ESP_TEST(failing_allocations_leave_it_whole),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
