/* What the tests of server/optim share. */
#ifndef ESP_TESTS_OPTIM_FIXTURE_H
#define ESP_TESTS_OPTIM_FIXTURE_H

#include <string.h>

#include "base/alloc.h"
#include "optim/optim.h"
#include "tests/support/test.h"

/* An expression that has to parse. */
static inline struct esp_optim *must_parse(const char *text) {
  struct esp_optim *optim = NULL;
  struct esp_status st = {0};
  if (esp_optim_parse(text, &optim, &st) != ESP_OK)
    fail_msg("%s: %s", text, st.message);
  return optim;
}

/* In [0, 1). */
static inline double next_unit(uint64_t *seed) {
  return (double)(esp_test_random(seed) >> 11) * 0x1p-53;
}

#endif
