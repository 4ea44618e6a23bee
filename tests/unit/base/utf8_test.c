/* Tests of base/utf8.c, by another rule than the code's: the table of well-formed sequences in the Unicode standard. */
#include "base/utf8.h"
#include "tests/support/test.h"

static bool is_between(uint8_t byte, uint8_t least, uint8_t most) {
  return byte >= least && byte <= most;
}

/* The bytes of a well-formed character without a NUL, or 0. */
static size_t reference_next(const uint8_t *s, size_t left) {
  if (is_between(s[0], 1, 0x7f))
    return 1;
  if (is_between(s[0], 0xc2, 0xdf))
    return left >= 2 && is_between(s[1], 0x80, 0xbf) ? 2 : 0;
  if (is_between(s[0], 0xe0, 0xef))
    return left >= 3 && is_between(s[1], s[0] == 0xe0 ? 0xa0 : 0x80, s[0] == 0xed ? 0x9f : 0xbf) &&
                   is_between(s[2], 0x80, 0xbf)
               ? 3
               : 0;
  if (is_between(s[0], 0xf0, 0xf4))
    return left >= 4 && is_between(s[1], s[0] == 0xf0 ? 0x90 : 0x80, s[0] == 0xf4 ? 0x8f : 0xbf) &&
                   is_between(s[2], 0x80, 0xbf) && is_between(s[3], 0x80, 0xbf)
               ? 4
               : 0;
  return 0;
}

static bool reference_is_text(const uint8_t *s, size_t len) {
  size_t n;
  for (size_t i = 0; i < len; i += n)
    if ((n = reference_next(s + i, len - i)) == 0)
      return false;
  return true;
}

/* Every sequence of up to four bytes from the edges of the table's ranges. */
static void sequences_exhaustively(void **state) {
  (void)state;
  static const uint8_t edges[] = {0x00, 0x01, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0,
                                  0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xfe, 0xff};
  const size_t n = sizeof(edges);
  for (size_t i = 0; i < n * n * n * n; i++) {
    const uint8_t s[4] = {edges[i % n], edges[i / n % n], edges[i / n / n % n], edges[i / n / n / n]};
    for (size_t len = 0; len <= 4; len++)
      if (esp_utf8_is_text((const char *)s, len) != reference_is_text(s, len))
        fail_msg("%zu bytes of %02x %02x %02x %02x", len, s[0], s[1], s[2], s[3]);
  }
}

/* Every number of up to 21 bits, written in every length that holds it: only the shortest form of a character counts.
 */
static void characters_exhaustively(void **state) {
  (void)state;
  for (uint32_t character = 1; character < 1u << 21; character++) {
    size_t shortest = character < 0x80 ? 1 : character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
    bool exists = character <= 0x10ffff && (character < 0xd800 || character > 0xdfff);
    for (size_t n = shortest; n <= 4; n++) {
      char text[4];
      uint32_t left = character;
      for (size_t i = n - 1; i > 0; i--, left >>= 6)
        text[i] = (char)(0x80 | (left & 0x3f));
      text[0] = (char)(n == 1 ? left : (0xf00u >> n & 0xff) | left);
      uint32_t got = 0;
      size_t expected = exists && n == shortest ? n : 0;
      if (esp_utf8_next(text, n, &got) != expected || (expected > 0 && got != character))
        fail_msg("U+%04X in %zu bytes", character, n);
      if (n > 1 && esp_utf8_next(text, n - 1, &got) != 0)
        fail_msg("U+%04X in %zu bytes, cut short", character, n);
    }
  }
}

static void nul_is_a_character_but_no_text(void **state) {
  (void)state;
  uint32_t character = 1;
  assert_int_equal(esp_utf8_next("", 1, &character), 1);
  assert_int_equal(character, 0);
  assert_false(esp_utf8_is_text("a\0b", 3));
  assert_true(esp_utf8_is_text("a\0b", 1));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(sequences_exhaustively),
      ESP_TEST(characters_exhaustively),
      ESP_TEST(nul_is_a_character_but_no_text),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
