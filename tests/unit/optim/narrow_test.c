/* Floats to and from 16 bits: every one of the 65,536 patterns widened, every border between two of them rounded, on
 * every instruction set. What is expected comes of exact arithmetic in double. */
#include <math.h>

#include "fixture.h"

static const enum esp_dtype dtypes[] = {ESP_DTYPE_BF16, ESP_DTYPE_F16};

#define ALL 65536
#define INF(dtype) ((dtype) == ESP_DTYPE_BF16 ? 0x7f80 : 0x7c00)
#define MANTISSA_BITS(dtype) ((dtype) == ESP_DTYPE_BF16 ? 7 : 10)

/* The value of a pattern below INF. */
static double value_of(enum esp_dtype dtype, unsigned pattern) {
  const int bits = MANTISSA_BITS(dtype), bias = dtype == ESP_DTYPE_BF16 ? 127 : 15;
  const int exponent = (int)(pattern >> bits);
  const double mantissa = pattern & ((1U << bits) - 1);
  return exponent == 0 ? ldexp(mantissa, 1 - bias - bits) : ldexp(mantissa + (1 << bits), exponent - bias - bits);
}

static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static uint32_t widened(enum esp_dtype dtype, unsigned pattern) {
  const uint32_t sign = (pattern & 0x8000) << 16;
  const unsigned rest = pattern & 0x7fff;
  if (rest < INF(dtype))
    return sign | bits_of((float)value_of(dtype, rest));
  const uint32_t mantissa = (uint32_t)(rest - INF(dtype)) << (23 - MANTISSA_BITS(dtype));
  return sign | 0x7f800000 | mantissa | (mantissa != 0 ? 0x400000 : 0);
}

static void widens_every_pattern(void **state) {
  (void)state;
  uint16_t *half = esp_malloc_array(ALL, sizeof *half);
  char *out = esp_malloc_array(ALL + 1, sizeof(float));
  for (size_t i = 0; i < ALL; i++)
    half[i] = (uint16_t)i;
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    for (size_t d = 0; esp_isa_supported(isa) && d < 2; d++) {
      esp_widen(isa, dtypes[d], ALL, half, out + 1);
      for (size_t i = 0; i < ALL; i++) {
        uint32_t got;
        memcpy(&got, out + 1 + i * sizeof got, sizeof got);
        assert_int_equal(got, widened(dtypes[d], (unsigned)i));
      }
    }
  }
  esp_free(half);
  esp_free(out);
}

/* Around the border between a pattern and the next one, and both themselves, of both signs. */
#define BORDER_LEN 10

static void list_border(enum esp_dtype dtype, unsigned pattern, float from[BORDER_LEN], uint16_t expected[BORDER_LEN]) {
  /* Past the largest one the next one would be, were there one; from the border on it is the infinity. */
  const double low = value_of(dtype, pattern);
  const double high = pattern + 1 < INF(dtype) ? value_of(dtype, pattern + 1) : 2 * low - value_of(dtype, pattern - 1);
  const float middle = (float)(low / 2 + high / 2);
  const float floats[] = {(float)low, nextafterf(middle, 0), middle, nextafterf(middle, INFINITY),
                          pattern + 1 < INF(dtype) ? (float)high : INFINITY};
  const unsigned wanted[] = {pattern, pattern, pattern % 2 == 0 ? pattern : pattern + 1, pattern + 1, pattern + 1};
  for (size_t i = 0; i < BORDER_LEN / 2; i++) {
    from[2 * i] = floats[i];
    from[2 * i + 1] = -floats[i];
    expected[2 * i] = (uint16_t)wanted[i];
    expected[2 * i + 1] = (uint16_t)(wanted[i] | 0x8000);
  }
}

static void assert_narrows(enum esp_isa isa, enum esp_dtype dtype, size_t n, const float *from,
                           const uint16_t *expected) {
  uint16_t *out = esp_malloc_array(n + 1, sizeof *out);
  uint64_t index = 0;
  const bool fits = esp_narrow(isa, dtype, 1, n, from, false, out, &index);
  for (size_t i = 0; i < n && (fits || i <= index); i++) {
    if (out[i] != expected[i])
      fail_msg("%s, %s: %a became %04x, not %04x", esp_isa_name(isa), esp_dtype_name(dtype), (double)from[i],
               (unsigned)out[i], (unsigned)expected[i]);
    const bool overflows = isfinite(from[i]) && (expected[i] & 0x7fff) == INF(dtype);
    assert_int_equal(overflows, !fits && i == index);
  }
  esp_free(out);
}

static void rounds_at_every_border(void **state) {
  (void)state;
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    for (size_t d = 0; esp_isa_supported(isa) && d < 2; d++) {
      const size_t patterns = INF(dtypes[d]) - 1; /* but for the last border */
      float *from = esp_malloc_array(patterns * BORDER_LEN, sizeof *from);
      uint16_t *expected = esp_malloc_array(patterns * BORDER_LEN, sizeof *expected);
      for (unsigned pattern = 0; pattern < patterns; pattern++)
        list_border(dtypes[d], pattern, from + pattern * (size_t)BORDER_LEN, expected + pattern * (size_t)BORDER_LEN);
      assert_narrows(isa, dtypes[d], patterns * BORDER_LEN, from, expected);
      esp_free(from);
      esp_free(expected);
    }
  }
}

/* Beyond the largest number; an infinity stays one. */
static void tells_what_is_too_large(void **state) {
  (void)state;
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    for (size_t d = 0; esp_isa_supported(isa) && d < 2; d++) {
      float from[BORDER_LEN];
      uint16_t expected[BORDER_LEN];
      list_border(dtypes[d], (unsigned)INF(dtypes[d]) - 1, from, expected);
      for (size_t i = 0; i < BORDER_LEN; i++)
        assert_narrows(isa, dtypes[d], 1, &from[i], &expected[i]); /* each by itself */
      assert_narrows(isa, dtypes[d], BORDER_LEN, from, expected);
      const float large[] = {1e5F, -1e38F, 3.4e38F, -INFINITY};
      const uint16_t large_f16[] = {0x7c00, 0xfc00, 0x7c00, 0xfc00}, large_bf16[] = {0x47c3, 0xfe96, 0x7f80, 0xff80};
      for (size_t i = 0; i < 4; i++)
        assert_narrows(isa, dtypes[d], 1, &large[i], d == 0 ? &large_bf16[i] : &large_f16[i]);
    }
  }
}

/* The first that is too large, wherever it is, and beside infinities and NaNs, which are not. */
static void finds_the_first_too_large(void **state) {
  (void)state;
  const size_t n = 10000, places[] = {0, 1, 4095, 4096, 8191, 9999};
  float *from = esp_calloc(n, sizeof *from);
  uint16_t *out = esp_malloc_array(n, sizeof *out);
  uint64_t index;
  for (size_t i = 0; i < n; i += 100)
    from[i + 2] = i % 200 == 0 ? INFINITY : NAN;
  assert_true(esp_narrow(ESP_ISA_SSE2, ESP_DTYPE_F16, 100, 100, from, false, out, &index));
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    from[places[i]] = -65520;
    assert_false(esp_narrow(ESP_ISA_SSE2, ESP_DTYPE_F16, 100, 100, from, false, out, &index));
    assert_int_equal(index, places[i]);
    assert_false(esp_narrow(ESP_ISA_SSE2, ESP_DTYPE_F16, 100, 100, from, true, out, &index));
    assert_int_equal(index, places[i] % 100 * 100 + places[i] / 100);
    from[places[i]] = 65519;
  }
  assert_true(esp_narrow(ESP_ISA_SSE2, ESP_DTYPE_F16, 100, 100, from, true, out, &index));
  esp_free(from);
  esp_free(out);
}

static void keeps_nans(void **state) {
  (void)state;
  const uint32_t nans[] = {0x7f800001, 0xff800001, 0x7fc00000, 0xffffffff, 0x7f801fff, 0x7fa00000};
  const uint16_t f16[] = {0x7e00, 0xfe00, 0x7e00, 0xffff, 0x7e00, 0x7f00};
  const uint16_t bf16[] = {0x7fc0, 0xffc0, 0x7fc0, 0xffff, 0x7fc0, 0x7fe0};
  float from[48];
  uint16_t expected[2][48];
  for (size_t i = 0; i < 48; i++) {
    from[i] = float_of(nans[i % 6]);
    expected[0][i] = bf16[i % 6];
    expected[1][i] = f16[i % 6];
  }
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    for (size_t n = 0; esp_isa_supported(isa) && n <= 48; n++) {
      assert_narrows(isa, ESP_DTYPE_BF16, n, from, expected[0]);
      assert_narrows(isa, ESP_DTYPE_F16, n, from, expected[1]);
    }
  }
}

/* Any float: the instruction sets agree, and the nearest pattern is what exact arithmetic says. */
static void rounds_any_float(void **state) {
  (void)state;
  enum { N = 4099 };
  static float from[N];
  static uint16_t out[2][N];
  uint64_t seed = 1, index;
  for (unsigned round = 0; round < 50; round++) {
    for (size_t i = 0; i < N; i++) { /* within the range of f16, or subnormal in it */
      const double exponent = (double)(esp_test_random(&seed) % 46) - 30;
      from[i] = (float)((next_unit(&seed) * 2 - 1) * exp2(exponent));
    }
    for (size_t d = 0; d < 2; d++) {
      for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
        if (!esp_isa_supported(isa))
          continue;
        assert_true(esp_narrow(isa, dtypes[d], 1, N, from, false, out[isa != ESP_ISA_SSE2], &index));
        if (isa != ESP_ISA_SSE2)
          assert_memory_equal(out[0], out[1], sizeof out[0]);
      }
      for (size_t i = 0; i < N; i++) {
        const unsigned rest = out[0][i] & 0x7fff;
        const double off = fabs(fabs((double)from[i]) - value_of(dtypes[d], rest));
        assert_true(off <= fabs(value_of(dtypes[d], rest + 1) - fabs((double)from[i])));
        assert_true(rest == 0 || off <= fabs(value_of(dtypes[d], rest - 1) - fabs((double)from[i])));
      }
    }
  }
}

static void turns_while_it_narrows(void **state) {
  (void)state;
  const uint64_t sides[] = {1, 2, 3, 15, 16, 17, 33, 255, 256, 257, 300};
  const size_t len = sizeof sides / sizeof *sides;
  float *from = esp_malloc_array(300 * 300, sizeof *from);
  uint16_t *plain = esp_malloc_array(300 * 300, sizeof *plain), *turned = esp_malloc_array(300 * 300, sizeof *turned);
  uint64_t seed = 2, index;
  for (size_t i = 0; i < 300 * 300; i++)
    from[i] = (float)next_unit(&seed);
  for (size_t shape = 0; shape < len * len; shape++) {
    const uint64_t rows = sides[shape / len], cols = sides[shape % len];
    assert_true(esp_narrow(ESP_ISA_SSE2, ESP_DTYPE_BF16, cols, rows, from, false, plain, &index));
    assert_true(esp_narrow(ESP_ISA_SSE2, ESP_DTYPE_BF16, rows, cols, from, true, turned, &index));
    for (uint64_t r = 0; r < rows; r++) {
      for (uint64_t c = 0; c < cols; c++)
        assert_int_equal(turned[r * cols + c], plain[c * rows + r]);
    }
  }
  esp_free(from);
  esp_free(plain);
  esp_free(turned);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(widens_every_pattern),
      ESP_TEST(rounds_at_every_border),
      ESP_TEST(tells_what_is_too_large),
      ESP_TEST(finds_the_first_too_large),
      ESP_TEST(keeps_nans),
      ESP_TEST(rounds_any_float),
      ESP_TEST(turns_while_it_narrows),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
