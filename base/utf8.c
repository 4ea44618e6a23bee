/* The one reader of UTF-8. */
#include "base/utf8.h"

size_t esp_utf8_next(const char *text, size_t left, uint32_t *ret_character) {
  static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
  const unsigned char *bytes = (const unsigned char *)text;
  if (bytes[0] < 0x80) {
    *ret_character = bytes[0];
    return 1;
  }
  size_t n = bytes[0] >= 0xf0 ? 4 : bytes[0] >= 0xe0 ? 3 : 2;
  if (bytes[0] < 0xc2 || bytes[0] > 0xf4 || left < n)
    return 0;
  uint32_t character = bytes[0] & (0xffu >> (n + 1));
  for (size_t i = 1; i < n; i++) {
    if ((bytes[i] & 0xc0) != 0x80)
      return 0;
    character = character << 6 | (bytes[i] & 0x3f);
  }
  if (character < least[n] || character > 0x10ffff || (character >= 0xd800 && character <= 0xdfff))
    return 0;
  *ret_character = character;
  return n;
}

bool esp_utf8_is_text(const char *text, size_t len) {
  uint32_t character = 0;
  size_t n;
  for (size_t i = 0; i < len; i += n) {
    n = esp_utf8_next(text + i, len - i, &character);
    if (n == 0 || character == 0)
      return false;
  }
  return true;
}

bool esp_character_is_control(uint32_t character) {
  return character < 0x20 || (character >= 0x7f && character < 0xa0);
}
