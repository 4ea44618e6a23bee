/* Transposition against its definition: every range of every small shape, and shapes that cross panels. */
#include <string.h>

#include "base/transpose.h"
#include "tests/support/test.h"

#define SIDE_MAX 9 /* of shapes that are tried whole */
#define LARGE_BYTES (200 * 331 * 8)
#define MARGIN 64
#define UNTOUCHED 0xee

static unsigned char from[LARGE_BYTES + MARGIN], want[LARGE_BYTES], out[LARGE_BYTES + MARGIN];

/* Fills `from`, moved by skew bytes, with a tensor of [cols, rows], and `want` with its transpose. */
static void make(size_t size, size_t rows, size_t cols, size_t skew) {
  uint64_t seed = size + rows * 1000 + cols;
  for (size_t i = 0; i < rows * cols * size; i++)
    from[skew + i] = (unsigned char)(esp_test_random(&seed) >> 33);
  for (size_t r = 0; r < rows; r++) {
    for (size_t c = 0; c < cols; c++)
      memcpy(want + (r * cols + c) * size, from + skew + (c * rows + r) * size, size);
  }
}

/* n elements were written from `skew` on, those of `want` from `first` on, and nothing around them. */
static void assert_written(size_t size, size_t first, size_t n, size_t skew) {
  assert_memory_equal(out + skew, want + first * size, n * size);
  for (size_t i = 0; i < skew; i++)
    assert_int_equal(out[i], UNTOUCHED);
  for (size_t i = 0; i < MARGIN - skew; i++)
    assert_int_equal(out[skew + n * size + i], UNTOUCHED);
}

static void try_range(size_t size, size_t rows, size_t cols, size_t first, size_t n, size_t skew) {
  memset(out, UNTOUCHED, n * size + MARGIN);
  esp_transpose(size, rows, cols, from + skew, first, n, out + skew);
  assert_written(size, first, n, skew);
}

static void takes_every_range_of_every_small_shape(void **state) {
  (void)state;
  for (size_t size = 1; size <= 8; size *= 2) {
    for (size_t rows = 1; rows <= SIDE_MAX; rows++) {
      for (size_t cols = 1; cols <= SIDE_MAX; cols++) {
        const size_t skew = (rows + cols) % 3;
        make(size, rows, cols, skew);
        for (size_t first = 0; first <= rows * cols; first++) {
          for (size_t n = 0; n <= rows * cols - first; n++)
            try_range(size, rows, cols, first, n, skew);
        }
      }
    }
  }
}

static void takes_ranges_of_large_shapes(void **state) {
  (void)state;
  static const size_t shapes[][2] = {{200, 331}, {331, 200}, {64, 1000}, {1000, 64}, {3, 20000}, {20000, 3}, {1, 5000}};
  uint64_t seed = 5;
  for (size_t size = 1; size <= 8; size *= 2) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
      const size_t rows = shapes[i][0], cols = shapes[i][1], skew = i % 4;
      make(size, rows, cols, skew);
      try_range(size, rows, cols, 0, rows * cols, skew);
      for (int round = 0; round < 50; round++) {
        const size_t first = esp_test_random(&seed) % (rows * cols);
        try_range(size, rows, cols, first, esp_test_random(&seed) % (rows * cols - first + 1), skew);
      }
    }
  }
}

static void try_rectangle(size_t size, size_t rows, size_t cols, size_t row, size_t col, size_t height, size_t width) {
  memset(out, UNTOUCHED, height * width * size + MARGIN);
  esp_transpose_rectangle(size, rows, cols, from, row * cols + col, height, width, out);
  for (size_t r = 0; r < height; r++)
    assert_memory_equal(out + r * width * size, want + ((row + r) * cols + col) * size, width * size);
  for (size_t i = 0; i < MARGIN; i++)
    assert_int_equal(out[height * width * size + i], UNTOUCHED);
}

static void takes_every_rectangle_of_small_shapes(void **state) {
  (void)state;
  for (size_t size = 1; size <= 8; size *= 2) {
    for (size_t rows = 1; rows <= 6; rows++) {
      for (size_t cols = 1; cols <= 6; cols++) {
        make(size, rows, cols, 0);
        for (size_t at = 0; at < rows * cols; at++) {
          for (size_t height = 1; height <= rows - at / cols; height++) {
            for (size_t width = 1; width <= cols - at % cols; width++)
              try_rectangle(size, rows, cols, at / cols, at % cols, height, width);
          }
        }
      }
    }
  }
}

static void takes_rectangles_higher_than_a_panel(void **state) {
  (void)state;
  for (size_t size = 1; size <= 8; size *= 2) {
    make(size, 200, 150, 0);
    for (size_t height = 1; height < 200; height += 7)
      try_rectangle(size, 200, 150, 200 - height, 3, height, 147);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(takes_every_range_of_every_small_shape),
      ESP_TEST(takes_ranges_of_large_shapes),
      ESP_TEST(takes_every_rectangle_of_small_shapes),
      ESP_TEST(takes_rectangles_higher_than_a_panel),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
