/* What fuzz targets share. A target is a function of bytes: it takes any, and ends the process (ESP_CHECK, a sanitizer,
 * an assertion of cmocka's) where the code under test breaks a promise. */
#ifndef ESP_FUZZ_H
#define ESP_FUZZ_H

#include <espalier/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

/* Each target's only function; the name is libFuzzer's. Returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The bytes that decide: targets that take more than one thing read them one by one. */
struct esp_fuzz_input {
  const uint8_t *at; /* borrowed */
  size_t left;
};
uint8_t esp_fuzz_byte(struct esp_fuzz_input *input); /* 0 at the end */
/* A number under n (1 to 256), with a bias that does not matter. */
size_t esp_fuzz_below(struct esp_fuzz_input *input, size_t n);
/* A number of up to eight bytes, the first of which says how many: small ones are as likely as huge ones. */
uint64_t esp_fuzz_number(struct esp_fuzz_input *input);
/* What is left, with a NUL behind it and none inside: it ends at the first. esp_free it. */
char *esp_fuzz_text(struct esp_fuzz_input *input);

#define ESP_FUZZ_SPANS_MAX 64
/* Bytes in pieces, each a block of its own, so that ASan sees who reads past an end. */
struct esp_fuzz_spans {
  struct esp_span spans[ESP_FUZZ_SPANS_MAX];
  size_t len;
};
/* Cuts bytes into pieces of the lengths that cuts has, in turn; the last piece is what is left. */
void esp_fuzz_cut(struct esp_fuzz_spans *spans, const uint8_t *cuts, size_t cuts_len, struct esp_fuzz_input bytes);
void esp_fuzz_spans_done(struct esp_fuzz_spans *spans);

/* Whether the bytes are UTF-8, by the standard's table and none of our code. */
bool esp_fuzz_is_utf8(const void *bytes, size_t len);
/* UTF-8 without control characters (U+0000 to U+001F, U+007F to U+009F): fit to be shown. */
bool esp_fuzz_is_plain(const void *bytes, size_t len);
/* The status belongs to code, and its message is fit to be shown. */
void esp_fuzz_check_failure(enum esp_code code, const struct esp_status *st);

#endif
