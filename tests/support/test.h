/* What every unit test needs: cmocka and what its header wants before it, a teardown that finds leaks, random numbers
 * from a seed. */
#ifndef ESP_TEST_H
#define ESP_TEST_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

/* A test after which as many blocks must be allocated as before it, and no allocation is set to fail. */
#define ESP_TEST(function) cmocka_unit_test_setup_teardown(function, esp_test_setup, esp_test_teardown)

int esp_test_setup(void **state);
int esp_test_teardown(void **state);

/* The next number of the sequence that *state, a seed at first, begins (splitmix64). */
uint64_t esp_test_random(uint64_t *state);

#endif
