/* Tests of base/span.c: eight bytes cut into spans in every way, empty spans among them. */
#include <string.h>

#include "base/span.h"
#include "tests/support/test.h"

enum { LEN = 8 };
static const uint8_t bytes[LEN] = {10, 11, 12, 13, 14, 15, 16, 17};

/* Cuts bytes after i where bit i is set, into pieces that do not lie one behind the other; an empty span before,
 * between and behind where `empties`. */
static size_t cut(unsigned cuts, bool empties, struct esp_span *spans) {
  static uint8_t pieces[LEN][LEN];
  size_t len = 0, start = 0;
  memset(pieces, 0, sizeof(pieces));
  if (empties)
    spans[len++] = (struct esp_span){NULL, 0};
  for (size_t i = 0; i < LEN; i++)
    if (i == LEN - 1 || cuts >> i & 1) {
      spans[len++] = (struct esp_span){memcpy(pieces[LEN - 1 - start], bytes + start, i + 1 - start), i + 1 - start};
      start = i + 1;
      if (empties)
        spans[len++] = (struct esp_span){NULL, 0};
    }
  return len;
}

/* Skip `skip` bytes, then byte by byte to the end, of a cursor that is at `at`. */
static void walk_bytes(struct esp_cursor cursor, size_t at, size_t skip) {
  uint8_t byte = 0;
  bool fits = at + skip <= LEN;
  assert_int_equal(esp_cursor_skip(&cursor, skip), fits);
  for (at += fits ? skip : 0; esp_cursor_byte(&cursor, &byte); at++) {
    assert_int_equal(byte, bytes[at]);
    assert_int_equal(cursor.left, LEN - at - 1);
  }
  assert_int_equal(at, LEN);
}

/* Skip `from`, copy `len`, then take the rest in pieces of at most `max`. */
static void walk(const struct esp_span *spans, size_t spans_len, size_t from, size_t len, size_t max) {
  struct esp_cursor cursor = esp_cursor_init(spans, spans_len);
  assert_int_equal(cursor.left, LEN);
  assert_true(esp_cursor_skip(&cursor, from));
  uint8_t copy[LEN];
  bool fits = from + len <= LEN;
  struct esp_cursor before = cursor;
  assert_int_equal(esp_cursor_copy(&cursor, copy, len), fits);
  if (!fits) {
    assert_memory_equal(&cursor, &before, sizeof(cursor));
    assert_false(esp_cursor_skip(&cursor, len));
    assert_memory_equal(&cursor, &before, sizeof(cursor));
    return;
  }
  if (len > 0)
    assert_memory_equal(copy, bytes + from, len);
  size_t at = from + len;
  struct esp_span piece;
  walk_bytes(cursor, at, max);
  while (esp_cursor_take(&cursor, max, &piece)) {
    assert_in_range(piece.len, 1, max);
    assert_memory_equal(piece.data, bytes + at, piece.len);
    at += piece.len;
    assert_int_equal(cursor.left, LEN - at);
  }
  assert_int_equal(at, LEN);
}

static void every_cut_and_every_step(void **state) {
  (void)state;
  for (unsigned cuts = 0; cuts < 1u << (LEN - 1); cuts++)
    for (int empties = 0; empties < 2; empties++) {
      struct esp_span spans[2 * LEN + 1];
      size_t spans_len = cut(cuts, empties, spans);
      for (size_t from = 0; from <= LEN; from++)
        for (size_t len = 0; len <= LEN; len++)
          for (size_t max = 1; max <= LEN; max += 3)
            walk(spans, spans_len, from, len, max);
    }
}

static void a_cursor_ends_where_left_says(void **state) {
  (void)state;
  struct esp_span spans[2 * LEN + 1];
  size_t spans_len = cut(0x15, false, spans);
  struct esp_cursor part = esp_cursor_init(spans, spans_len);
  part.left = 3;
  uint8_t copy[LEN];
  assert_false(esp_cursor_copy(&part, copy, 4));
  assert_true(esp_cursor_copy(&part, copy, 3));
  assert_memory_equal(copy, bytes, 3);
  struct esp_span piece;
  assert_false(esp_cursor_take(&part, 1, &piece));
  assert_false(esp_cursor_byte(&part, copy));
  for (size_t left = 1; left <= LEN; left++) {
    part = esp_cursor_init(spans, cut(0, false, spans));
    part.left = left;
    assert_true(esp_cursor_take(&part, LEN, &piece));
    assert_int_equal(piece.len, left);
  }
}

static void nothing_is_an_end(void **state) {
  (void)state;
  struct esp_cursor cursor = esp_cursor_init(NULL, 0);
  struct esp_span piece;
  uint8_t byte;
  assert_false(esp_cursor_take(&cursor, 1, &piece));
  assert_false(esp_cursor_byte(&cursor, &byte));
  assert_true(esp_cursor_skip(&cursor, 0));
  assert_false(esp_cursor_skip(&cursor, 1));
  assert_false(esp_cursor_skip(&cursor, UINT64_MAX));
  assert_true(esp_cursor_copy(&cursor, NULL, 0));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(every_cut_and_every_step),
      ESP_TEST(a_cursor_ends_where_left_says),
      ESP_TEST(nothing_is_an_end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
