/* Decimal numbers of expressions, read and printed. Pure functions. Private to server/optim. */
#ifndef ESP_OPTIM_NUMBER_H
#define ESP_OPTIM_NUMBER_H

#include <stdbool.h>
#include <stddef.h>

#define ESP_NUMBER_TEXT_MAX 32

/* True where text[0..len) is a decimal number, whole: a sign, digits with a point, an exponent; no hexadecimal,
 * infinity or NaN. Then *ret is its double: an infinity past a double's range, and never -0. The byte after it must not
 * be a letter, digit or point. */
bool esp_number_parse(const char *text, size_t len, double *ret);

/* Prints a finite number in the fewest characters that read back to the same double (0.05, 3e-4, 1000000 as 1e6);
 * returns the length. */
size_t esp_number_print(double number, char text[ESP_NUMBER_TEXT_MAX]);

#endif
