/* Sums of squares: to the last bit by their definition in docs/optimizers.md, near the sum of a long double, the same
 * on every instruction set and whichever way round the gradients came. */
#include <math.h>

#include "fixture.h"

#define ROWS 257
#define COLS 300
#define LEN (ROWS * COLS) /* more than one range */
#define GRADS 3

static unsigned char grads[GRADS][LEN * 8 + 8], mirrored[GRADS][LEN * 8 + 8];

static void put(unsigned char *data, enum esp_dtype dtype, size_t i, double value) {
  const float value_f32 = (float)value;
  if (dtype == ESP_DTYPE_F32)
    memcpy(data + i * 4, &value_f32, 4);
  else
    memcpy(data + i * 8, &value, 8);
}

static double get(const unsigned char *data, enum esp_dtype dtype, size_t i) {
  float value_f32;
  double value;
  memcpy(&value_f32, data + i * 4, 4);
  if (dtype == ESP_DTYPE_F32)
    return value_f32;
  memcpy(&value, data + i * 8, 8);
  return value;
}

static void make(enum esp_dtype dtype) {
  uint64_t seed = 11;
  for (size_t r = 0; r < ROWS; r++) {
    for (size_t c = 0; c < COLS; c++) {
      for (size_t i = 0; i < GRADS; i++) {
        const double value = (next_unit(&seed) - 0.5) * (c % 50 == 7 ? 1e6 : 1);
        put(grads[i] + i, dtype, r * COLS + c, value);
        put(mirrored[i] + i, dtype, c * ROWS + r, value);
      }
    }
  }
}

/* Those of the set come transposed. */
static void list_of(unsigned transposed, struct esp_grad ret[GRADS]) {
  for (size_t i = 0; i < GRADS; i++)
    ret[i] = transposed >> i & 1 ? (struct esp_grad){mirrored[i] + i, .transposed = true, .rows = ROWS, .cols = COLS}
                                 : (struct esp_grad){.data = grads[i] + i};
}

/* Element i of the gradient that a step takes. */
static double summed(enum esp_dtype dtype, size_t i, size_t grads_len, double scale) {
  double sum = get(grads[0], dtype, i);
  for (size_t k = 1; k < grads_len; k++) {
    sum += get(grads[k] + k, dtype, i);
    sum = dtype == ESP_DTYPE_F32 ? (float)sum : sum;
  }
  if (scale == 1)
    return sum;
  return dtype == ESP_DTYPE_F32 ? (float)(sum * (float)scale) : sum * scale;
}

/* The definition: blocks of 512, in each eight lanes. */
static double define(enum esp_dtype dtype, size_t first, size_t n, size_t grads_len, double scale) {
  double total = 0;
  for (size_t block = 0; block < n; block += 512) {
    double lanes[8] = {0};
    for (size_t i = block; i < n && i < block + 512; i++) {
      const double g = summed(dtype, first + i, grads_len, scale);
      lanes[i % 8] += g * g;
    }
    total += ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
  }
  return total;
}

static void assert_near_the_exact_sum(enum esp_dtype dtype, double got, size_t grads_len, double scale) {
  long double want = 0;
  for (size_t i = 0; i < LEN; i++) {
    const long double g = summed(dtype, i, grads_len, scale);
    want += g * g;
  }
  assert_true(fabsl(got - want) <= 1e-14L * want);
}

static void is_what_its_definition_says(void **state) {
  (void)state;
  for (enum esp_dtype dtype = ESP_DTYPE_F32; dtype <= ESP_DTYPE_F64; dtype++) {
    make(dtype);
    for (size_t grads_len = 1; grads_len <= GRADS; grads_len++) {
      const double scale = grads_len == 2 ? 1 : 1 / 3.0;
      struct esp_grad list[GRADS];
      list_of(0, list);
      double total = 0;
      for (size_t first = 0; first < LEN; first += ESP_SQUARES_ELEMENTS) {
        const size_t n = LEN - first < ESP_SQUARES_ELEMENTS ? LEN - first : ESP_SQUARES_ELEMENTS;
        const double got = esp_optim_squares(ESP_ISA_SSE2, dtype, first, n, list, grads_len, scale);
        assert_true(got == define(dtype, first, n, grads_len, scale));
        total += got;
      }
      assert_near_the_exact_sum(dtype, total, grads_len, scale);
    }
  }
}

static void has_the_same_bits_everywhere(void **state) {
  (void)state;
  for (enum esp_dtype dtype = ESP_DTYPE_F32; dtype <= ESP_DTYPE_F64; dtype++) {
    make(dtype);
    for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
      for (unsigned set = 0; esp_isa_supported(isa) && set < 1U << GRADS; set++) {
        struct esp_grad list[GRADS];
        list_of(set, list);
        for (size_t n = 0; n <= LEN - ESP_SQUARES_ELEMENTS; n = n < 40 ? n + 1 : n + 997) {
          const double want = define(dtype, ESP_SQUARES_ELEMENTS, n, GRADS, 0.25);
          assert_true(esp_optim_squares(isa, dtype, ESP_SQUARES_ELEMENTS, n, list, GRADS, 0.25) == want);
        }
        const double want = define(dtype, 0, ESP_SQUARES_ELEMENTS, 1, 1);
        assert_true(esp_optim_squares(isa, dtype, 0, ESP_SQUARES_ELEMENTS, list, 1, 1) == want);
      }
    }
  }
}

/* A float's square always fits a double; a double's is an infinity past 1e154. */
static void overflows_to_infinity_in_f64_alone(void **state) {
  (void)state;
  const float largest[3] = {3.4028235e38F, -3.4028235e38F, 1};
  const double large[3] = {1e200, 1, 2}, small[3] = {1e-170, 3, 4};
  const struct esp_grad f32 = {.data = largest}, f64 = {.data = large}, tiny = {.data = small};
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    if (!esp_isa_supported(isa))
      continue;
    const double square = (double)largest[0] * (double)largest[0];
    assert_true(esp_optim_squares(isa, ESP_DTYPE_F32, 0, 3, &f32, 1, 1) == 2 * square);
    assert_true(isinf(esp_optim_squares(isa, ESP_DTYPE_F64, 0, 3, &f64, 1, 1)));
    assert_true(esp_optim_squares(isa, ESP_DTYPE_F64, 0, 3, &f64, 1, 1e-100) == 1e-100 * 1e200 * (1e-100 * 1e200));
    assert_true(esp_optim_squares(isa, ESP_DTYPE_F64, 0, 3, &tiny, 1, 1) == 25); /* its square is no double */
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(is_what_its_definition_says),
      ESP_TEST(has_the_same_bits_everywhere),
      ESP_TEST(overflows_to_infinity_in_f64_alone),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
