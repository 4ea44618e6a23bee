/* Setup and teardown of unit tests: counts blocks before and after, so that a leak fails the test that made it. */
#include "tests/support/test.h"

#include "base/alloc.h"

static size_t live_before;

int esp_test_setup(void **state) {
  (void)state;
  live_before = esp_alloc_live();
  return 0;
}

int esp_test_teardown(void **state) {
  (void)state;
  esp_alloc_fail_at(-1);
  size_t live_after = esp_alloc_live();
  if (live_after == live_before)
    return 0;
  print_error("%zu blocks were allocated before the test, %zu after it\n", live_before, live_after);
  return -1;
}

uint64_t esp_test_random(uint64_t *state) {
  uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}
