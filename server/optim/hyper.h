/* Hyperparameters: what each may be, and the values that a chain has. Private to server/optim. */
#ifndef ESP_OPTIM_HYPER_H
#define ESP_OPTIM_HYPER_H

#include <stdbool.h>
#include <stddef.h>

/* What a hyperparameter may be. */
enum esp_domain {
  ESP_DOMAIN_ANY,         /* a number */
  ESP_DOMAIN_NONNEGATIVE, /* a number of at least 0 */
  ESP_DOMAIN_POSITIVE,    /* a number above 0 */
  ESP_DOMAIN_FRACTION,    /* a number in [0, 1) */
  ESP_DOMAIN_FLAG,        /* false (0) or true (1) */
};

/* "a finite number, at least 0", for messages. */
const char *esp_domain_text(enum esp_domain domain);

/* True where text[0..len) is a value of the domain; then it is in *ret. The byte after it must not be a letter, digit
 * or point. */
bool esp_domain_read(enum esp_domain domain, const char *text, size_t len, double *ret);

#endif
