/* What the tests of server/optim share. Each test asserts that it freed what it allocated. */
#ifndef ESP_TESTS_OPTIM_FIXTURE_H
#define ESP_TESTS_OPTIM_FIXTURE_H

#include <espalier/status.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"
#include "optim/optim.h"

#include <cmocka.h>

static size_t live_before;

static inline int setup(void **state) {
  (void)state;
  live_before = esp_alloc_live();
  return 0;
}

static inline int teardown(void **state) {
  (void)state;
  assert_int_equal(esp_alloc_live(), live_before);
  return 0;
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

/* An expression that has to parse. */
static inline struct esp_optim *must_parse(const char *text) {
  struct esp_optim *optim = NULL;
  struct esp_status st = {0};
  if (esp_optim_parse(text, &optim, &st) != ESP_OK)
    fail_msg("%s: %s", text, st.message);
  return optim;
}

/* The same numbers in every run. */
static inline uint64_t next_random(uint64_t *seed) {
  *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return *seed >> 16;
}

static inline double next_unit(uint64_t *seed) {
  return (double)(next_random(seed) & 0xffffffff) / 4294967296.0;
}

#endif
