/* Decimal numbers of expressions.
 *
 * Reading: the syntax is checked here, since strtod takes more (hexadecimal, "inf", leading spaces), then strtod
 * rounds. Printing: the fewest significant digits that strtod reads back to the same double, then the shorter of the
 * plain and the exponent form, plain where they are equally long. The programs never leave the C locale. */
#include "optim/number.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#define DIGITS_MAX 17 /* significant ones that tell every double apart */

static size_t digits_count(const char *text, size_t len) {
  size_t count = 0;
  while (count < len && text[count] >= '0' && text[count] <= '9')
    count++;
  return count;
}

static bool is_sign(char c) {
  return c == '+' || c == '-';
}

static bool is_decimal(const char *text, size_t len) {
  size_t at = len > 0 && is_sign(text[0]) ? 1 : 0;
  const size_t whole = digits_count(text + at, len - at);
  at += whole;
  size_t fraction = 0;
  if (at < len && text[at] == '.') {
    at++;
    fraction = digits_count(text + at, len - at);
    at += fraction;
  }
  if (whole + fraction == 0)
    return false;
  if (at < len && (text[at] == 'e' || text[at] == 'E')) {
    at++;
    if (at < len && is_sign(text[at]))
      at++;
    const size_t exponent = digits_count(text + at, len - at);
    if (exponent == 0)
      return false;
    at += exponent;
  }
  return at == len;
}

bool esp_number_parse(const char *text, size_t len, double *ret) {
  if (!is_decimal(text, len))
    return false;
  char *end = NULL;
  const double value = strtod(text, &end);
  ESP_CHECK(end == text + len);
  *ret = value + 0.0; /* -0 becomes 0 */
  return true;
}

/* The digits that tell number (positive) apart, without a point, and its decimal exponent (of the first digit). */
static int digits_shortest(double number, char digits[DIGITS_MAX + 1]) {
  char text[ESP_NUMBER_TEXT_MAX];
  for (int len = 1; len <= DIGITS_MAX; len++) {
    snprintf(text, sizeof text, "%.*e", len - 1, number);
    if (strtod(text, NULL) == number)
      break;
  }
  size_t count = 0;
  const char *at = text;
  for (; *at != 'e'; at++) {
    if (*at != '.')
      digits[count++] = *at;
  }
  digits[count] = '\0';
  return (int)strtol(at + 1, NULL, 10);
}

/* Plain notation is chosen only up to the length of the other, so zeros are few. */
static size_t plain_len(size_t count, int exponent) {
  if (exponent < 0)
    return 1 + (size_t)-exponent + count; /* "0." and -exponent - 1 zeros */
  return (size_t)exponent + 1 >= count ? (size_t)exponent + 1 : count + 1;
}

static size_t print_plain(char *text, const char *digits, size_t count, int exponent) {
  size_t len = 0;
  if (exponent < 0) {
    text[len++] = '0';
    text[len++] = '.';
    for (int i = -1; i > exponent; i--)
      text[len++] = '0';
  }
  for (size_t i = 0; i < count; i++) {
    if (exponent >= 0 && i == (size_t)exponent + 1)
      text[len++] = '.';
    text[len++] = digits[i];
  }
  for (size_t i = count; exponent >= 0 && i < (size_t)exponent + 1; i++)
    text[len++] = '0';
  text[len] = '\0';
  return len;
}

size_t esp_number_print(double number, char text[ESP_NUMBER_TEXT_MAX]) {
  size_t sign = 0;
  if (number < 0) {
    text[sign++] = '-';
    number = -number;
  }
  if (number == 0) {
    memcpy(text, "0", 2);
    return 1;
  }
  char digits[DIGITS_MAX + 1];
  const int exponent = digits_shortest(number, digits);
  const size_t count = strlen(digits);
  char scientific[ESP_NUMBER_TEXT_MAX];
  const int len =
      snprintf(scientific, sizeof scientific, "%c%s%se%d", digits[0], count > 1 ? "." : "", digits + 1, exponent);
  if (plain_len(count, exponent) <= (size_t)len)
    return sign + print_plain(text + sign, digits, count, exponent);
  memcpy(text + sign, scientific, (size_t)len + 1);
  return sign + (size_t)len;
}
