/* Codes' names and the writing of messages. Nothing here can fail; what is too long is cut between characters, and what
 * is not fit to be shown is replaced: messages repeat what peers, files and operators wrote, and end on terminals. */
#include <espalier/status.h>

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

const char *esp_code_name(enum esp_code code) {
  switch (code) {
#define CODE_NAME(name, value)                                                                                         \
  case ESP_##name:                                                                                                     \
    return #name;
    ESP_CODE_MAP(CODE_NAME)
#undef CODE_NAME
  }
  return "UNKNOWN";
}

/* Where to cut text, which was longer than len: before a character that would lose bytes. */
static size_t cut_at_character(const char *text, size_t len) {
  size_t start = len;
  while (start > 0 && len - start < 3 && ((unsigned char)text[start - 1] & 0xC0) == 0x80)
    start--;
  if (start == 0)
    return len;
  unsigned char lead = (unsigned char)text[start - 1];
  size_t width = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
  return start - 1 + width > len ? start - 1 : len;
}

/* Each control character and each byte that is not UTF-8 becomes a question mark. */
static void make_plain(char *text, size_t len) {
  size_t n;
  for (size_t i = 0; i < len; i += n) {
    uint32_t character;
    n = esp_utf8_next(text + i, len - i, &character);
    bool is_plain = n > 0 && !esp_character_is_control(character);
    n = n > 0 ? n : 1;
    if (!is_plain)
      memset(text + i, '?', n);
  }
}

enum esp_code esp_fail_v(struct esp_status *st, enum esp_code code, const char *format, va_list args) {
  if (st == NULL)
    return code;
  /* Not written in place: a caller may add to the message that st holds ("leaf x: %s", st->message). */
  char message[ESP_MESSAGE_BYTES_MAX];
  int len = vsnprintf(message, sizeof(message), format, args);
  if (len < 0)
    message[0] = '\0';
  else if ((size_t)len >= sizeof(message))
    message[cut_at_character(message, sizeof(message) - 1)] = '\0';
  size_t message_len = strlen(message);
  make_plain(message, message_len);
  st->code = code;
  memcpy(st->message, message, message_len + 1);
  return code;
}

#undef esp_fail /* status.h's, for the analyzer */
enum esp_code esp_fail(struct esp_status *st, enum esp_code code, const char *format, ...) {
  va_list args;
  va_start(args, format);
  esp_fail_v(st, code, format, args);
  va_end(args);
  return code;
}
