/* The one reader of durations, for options of the server and of espctl and for operations in words. */
#include "base/duration.h"

#include <stddef.h>
#include <string.h>

/* Largest first. */
static const struct {
  const char *name;
  uint64_t ms;
} units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
#define UNITS_LEN (sizeof units / sizeof units[0])

static bool is_digit(char byte) {
  return byte >= '0' && byte <= '9';
}

bool esp_duration_parse(const char *text, uint64_t *ret_ms) {
  uint64_t sum = 0;
  size_t unit = 0; /* the largest that may come */
  const char *at = text;
  do {
    uint64_t number = 0;
    if (!is_digit(*at))
      return false;
    for (; is_digit(*at); at++)
      if (__builtin_mul_overflow(number, UINT64_C(10), &number) ||
          __builtin_add_overflow(number, (uint64_t)(*at - '0'), &number))
        return false;
    size_t len = 0;
    while (at[len] != '\0' && !is_digit(at[len]))
      len++;
    while (unit < UNITS_LEN && (strlen(units[unit].name) != len || strncmp(units[unit].name, at, len) != 0))
      unit++;
    if (unit == UNITS_LEN || __builtin_mul_overflow(number, units[unit].ms, &number) ||
        __builtin_add_overflow(sum, number, &sum))
      return false;
    unit++;
    at += len;
  } while (*at != '\0');
  *ret_ms = sum;
  return true;
}
