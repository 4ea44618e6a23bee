/* Shared parts of the fuzz targets. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"

uint8_t esp_fuzz_byte(struct esp_fuzz_input *input) {
  if (input->left == 0)
    return 0;
  input->left--;
  return *input->at++;
}

size_t esp_fuzz_below(struct esp_fuzz_input *input, size_t n) {
  return esp_fuzz_byte(input) % n;
}

uint64_t esp_fuzz_number(struct esp_fuzz_input *input) {
  uint64_t number = 0;
  for (size_t n = esp_fuzz_below(input, 9); n > 0; n--)
    number = number << 8 | esp_fuzz_byte(input);
  return number;
}

char *esp_fuzz_text(struct esp_fuzz_input *input) {
  char *text = esp_strndup(input->left > 0 ? (const char *)input->at : "", input->left);
  ESP_CHECK(text != NULL);
  return text;
}

static struct esp_span block_of(struct esp_fuzz_input *bytes, size_t len) {
  uint8_t *block = esp_malloc(len);
  ESP_CHECK(block != NULL);
  if (len > 0)
    memcpy(block, bytes->at, len);
  bytes->at += len;
  bytes->left -= len;
  return (struct esp_span){.data = block, .len = len};
}

void esp_fuzz_cut(struct esp_fuzz_spans *spans, const uint8_t *cuts, size_t cuts_len, struct esp_fuzz_input bytes) {
  spans->len = 0;
  for (size_t i = 0; i < cuts_len && spans->len < ESP_FUZZ_SPANS_MAX - 1; i++)
    spans->spans[spans->len++] = block_of(&bytes, cuts[i] < bytes.left ? cuts[i] : bytes.left);
  spans->spans[spans->len++] = block_of(&bytes, bytes.left);
}

void esp_fuzz_spans_done(struct esp_fuzz_spans *spans) {
  for (size_t i = 0; i < spans->len; i++)
    esp_free((void *)(uintptr_t)spans->spans[i].data);
  spans->len = 0;
}

/* The Unicode standard's table 3-7: which bytes may follow a first one. */
static const struct sequence {
  uint8_t first_min, first_max;   /* the first byte */
  uint8_t second_min, second_max; /* the second */
  uint8_t len;                    /* bytes; those behind the second are 80 to BF */
} sequences[] = {
    {0x00, 0x7f, 0x00, 0xff, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
    {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
    {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
};

static size_t sequence_len(const uint8_t *at, size_t left) {
  for (size_t i = 0; i < sizeof sequences / sizeof sequences[0]; i++) {
    const struct sequence *row = &sequences[i];
    if (*at < row->first_min || *at > row->first_max)
      continue;
    if (row->len > left || (row->len > 1 && (at[1] < row->second_min || at[1] > row->second_max)))
      return 0;
    for (size_t k = 2; k < row->len; k++) {
      if (at[k] < 0x80 || at[k] > 0xbf)
        return 0;
    }
    return row->len;
  }
  return 0;
}

bool esp_fuzz_is_utf8(const void *bytes, size_t len) {
  const uint8_t *at = bytes;
  for (size_t n; len > 0; at += n, len -= n) {
    n = sequence_len(at, len);
    if (n == 0)
      return false;
  }
  return true;
}

bool esp_fuzz_is_plain(const void *bytes, size_t len) {
  const uint8_t *at = bytes;
  for (size_t i = 0; i < len; i++) {
    if (at[i] < 0x20 || at[i] == 0x7f || (at[i] == 0xc2 && i + 1 < len && at[i + 1] < 0xa0))
      return false;
  }
  return esp_fuzz_is_utf8(bytes, len);
}

void esp_fuzz_check_failure(enum esp_code code, const struct esp_status *st) {
  ESP_CHECK(code != ESP_OK && st->code == code);
  size_t len = strnlen(st->message, sizeof st->message);
  ESP_CHECK(len > 0 && len < sizeof st->message);
  ESP_CHECK(esp_fuzz_is_plain(st->message, len));
}
