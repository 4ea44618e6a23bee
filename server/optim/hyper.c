/* The domains of hyperparameters: their sentences and their bounds. Pure functions; nothing here fails. */
#include "optim/hyper.h"

#include <math.h>
#include <string.h>

#include "optim/number.h"

const char *esp_domain_text(enum esp_domain domain) {
  switch (domain) {
  case ESP_DOMAIN_ANY:
    return "a finite number";
  case ESP_DOMAIN_NONNEGATIVE:
    return "a finite number, at least 0";
  case ESP_DOMAIN_POSITIVE:
    return "a finite number above 0";
  case ESP_DOMAIN_FRACTION:
    return "a number in [0, 1)";
  case ESP_DOMAIN_FLAG:
    break;
  }
  return "true, false, 1 or 0";
}

static bool domain_has(enum esp_domain domain, double value) {
  switch (domain) {
  case ESP_DOMAIN_ANY:
    return isfinite(value);
  case ESP_DOMAIN_NONNEGATIVE:
    return value >= 0 && isfinite(value);
  case ESP_DOMAIN_POSITIVE:
    return value > 0 && isfinite(value);
  case ESP_DOMAIN_FRACTION:
    return value >= 0 && value < 1;
  case ESP_DOMAIN_FLAG:
    break;
  }
  return value == 0 || value == 1;
}

static bool is_text(const char *text, size_t len, const char *word) {
  return strlen(word) == len && memcmp(text, word, len) == 0;
}

bool esp_domain_read(enum esp_domain domain, const char *text, size_t len, double *ret) {
  double value = 0;
  if (domain == ESP_DOMAIN_FLAG && (is_text(text, len, "true") || is_text(text, len, "false")))
    value = is_text(text, len, "true");
  else if (!esp_number_parse(text, len, &value) || !domain_has(domain, value))
    return false;
  *ret = value;
  return true;
}
