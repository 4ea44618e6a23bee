/* UTF-8 as the Unicode standard has it: no surrogates, nothing beyond U+10FFFF, no longer form than is needed. Any
 * thread; nothing fails. */
#ifndef ESP_BASE_UTF8_H
#define ESP_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at the start of text, 1 to 4; 0 where it is not valid UTF-8 (left is at least 1). */
size_t esp_utf8_next(const char *text, size_t left, uint32_t *ret_character);
/* Whether the bytes are UTF-8 without a NUL, as strings from peers must be: with one they would seem shorter. */
bool esp_utf8_is_text(const char *text, size_t len);

/* U+0000 to U+001F, U+007F to U+009F. */
bool esp_character_is_control(uint32_t character);

#endif
