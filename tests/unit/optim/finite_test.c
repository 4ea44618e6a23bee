/* The search for a NaN or an infinity: every place, alignment, exponent and instruction set. */
#include <float.h>
#include <math.h>

#include "fixture.h"

#define LEN_MAX 70

static const enum esp_dtype dtypes[] = {ESP_DTYPE_F32, ESP_DTYPE_F64, ESP_DTYPE_BF16, ESP_DTYPE_F16};

static void put(enum esp_dtype dtype, unsigned char *data, size_t index, uint64_t bits) {
  const size_t size = esp_dtype_size(dtype);
  memcpy(data + index * size, &bits, size); /* little-endian */
}

/* The first bad element of n at `at`, whatever follows it, at each alignment. */
static void finds_every_place(void **state) {
  (void)state;
  const uint64_t bad[][6] = {
      {0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001, 0xffffffff},
      {0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000, 0xfff8000000000000, 0x7ff0000000000001,
       0xffffffffffffffff},
      {0x7f80, 0xff80, 0x7fc0, 0xffc0, 0x7f81, 0xffff},
      {0x7c00, 0xfc00, 0x7e00, 0xfe00, 0x7c01, 0xffff},
  };
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    for (size_t d = 0; esp_isa_supported(isa) && d < 4; d++) {
      const size_t size = esp_dtype_size(dtypes[d]);
      for (size_t n = 0; n <= LEN_MAX; n++) {
        unsigned char *memory = esp_malloc(n * size + n % 8 + 1);
        assert_non_null(memory);
        unsigned char *data = memory + n % 8 + 1;
        memset(data, 0x11, n * size);
        assert_int_equal(esp_finite_check(isa, dtypes[d], n, data), n);
        for (size_t at = n; at-- > 0;) { /* those after it are bad already */
          put(dtypes[d], data, at, bad[d][at % 6]);
          assert_int_equal(esp_finite_check(isa, dtypes[d], n, data), at);
        }
        esp_free(memory);
      }
    }
  }
}

static void knows_every_exponent(void **state) {
  (void)state;
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    for (uint64_t high = 0; esp_isa_supported(isa) && high < 1 << 12; high++) { /* sign and exponent */
      const uint64_t mantissas[] = {0, 1, UINT64_C(0x8000000000000), UINT64_C(0xfffffffffffff)};
      for (size_t i = 0; i < 4; i++) {
        const uint64_t bits = high << 52 | mantissas[i];
        const uint32_t bits32 = (uint32_t)((high & 0x1ff) << 23 | mantissas[i] >> 29 | (mantissas[i] & 1));
        double number = 0;
        float number32 = 0;
        memcpy(&number, &bits, sizeof number);
        memcpy(&number32, &bits32, sizeof number32);
        assert_int_equal(esp_finite_check(isa, ESP_DTYPE_F64, 1, &bits), isfinite(number) != 0);
        assert_int_equal(esp_finite_check(isa, ESP_DTYPE_F32, 1, &bits32), isfinite(number32) != 0);
      }
    }
  }
}

static void knows_every_half(void **state) {
  (void)state;
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    for (unsigned i = 0; esp_isa_supported(isa) && i < 65536; i++) {
      const uint16_t bits = (uint16_t)i;
      assert_int_equal(esp_finite_check(isa, ESP_DTYPE_BF16, 1, &bits), (i & 0x7f80) != 0x7f80);
      assert_int_equal(esp_finite_check(isa, ESP_DTYPE_F16, 1, &bits), (i & 0x7c00) != 0x7c00);
    }
  }
}

/* Across the sub-blocks of a long array. */
static void searches_long_data(void **state) {
  (void)state;
  const size_t n = 10000;
  const size_t places[] = {0, 1, 2046, 2047, 2048, 2049, 4095, 4096, 5000, 8191, 8192, 9998, 9999};
  float *data = esp_malloc_array(n, sizeof *data);
  assert_non_null(data);
  for (size_t i = 0; i < n; i++)
    data[i] = i % 2 == 0 ? FLT_MAX : -FLT_MIN / 4;
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    if (!esp_isa_supported(isa))
      continue;
    assert_int_equal(esp_finite_check(isa, ESP_DTYPE_F32, n, data), n);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
      data[places[i]] = NAN;
      data[n - 1] = INFINITY;
      assert_int_equal(esp_finite_check(isa, ESP_DTYPE_F32, n, data), places[i]);
      data[places[i]] = data[n - 1] = 1;
    }
  }
  esp_free(data);
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(finds_every_place), ESP_TEST(knows_every_exponent),
                                     ESP_TEST(knows_every_half), ESP_TEST(searches_long_data)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
