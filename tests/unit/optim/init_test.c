/* First values: the generator's bits, ranges, cuts, and that they are distributed as they say. */
#include <float.h>
#include <math.h>

#include "fixture.h"
#include "tests/vectors/optim_vectors.h"

#define LEN 100000

static double values[LEN];
static float values_f32[LEN];

static void equals_python(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof vectors_init / sizeof *vectors_init; i++) {
    const struct vector_init *vector = &vectors_init[i];
    const struct esp_init init = {.kind = vector->is_normal ? ESP_INIT_NORMAL : ESP_INIT_UNIFORM,
                                  .a = vector->a,
                                  .b = vector->b,
                                  .seed = vector->seed};
    for (size_t k = 0; k < VECTOR_INIT_LEN; k++) {
      esp_init_fill(&init, ESP_DTYPE_F64, vector->first + k, 1, values);
      esp_init_fill(&init, ESP_DTYPE_F32, vector->first + k, 1, values_f32);
      assert_true(values[0] == vector->values[k]);
      assert_true(values_f32[0] == (float)vector->values[k]);
    }
  }
}

static void constants(void **state) {
  (void)state;
  const struct esp_init init = {.kind = ESP_INIT_CONSTANT, .a = 0.1, .seed = 7};
  const struct esp_init zeros = {.kind = ESP_INIT_ZEROS, .a = 0.1};
  esp_init_fill(&init, ESP_DTYPE_F64, 5, 100, values);
  esp_init_fill(&init, ESP_DTYPE_F32, 5, 100, values_f32);
  for (size_t i = 0; i < 100; i++)
    assert_true(values[i] == 0.1 && values_f32[i] == 0.1f);
  esp_init_fill(&zeros, ESP_DTYPE_F64, 5, 99, values);
  esp_init_fill(&zeros, ESP_DTYPE_F32, 5, 99, values_f32);
  for (size_t i = 0; i < 99; i++)
    assert_true(values[i] == 0 && values_f32[i] == 0);
  assert_true(values[99] == 0.1 && values_f32[99] == 0.1f);
}

static void cuts_do_not_matter(void **state) {
  (void)state;
  static double parts[1000];
  static float parts_f32[1000];
  uint64_t seed = 3;
  for (enum esp_init_kind kind = ESP_INIT_UNIFORM; kind <= ESP_INIT_NORMAL; kind++) {
    const struct esp_init init = {.kind = kind, .a = -1, .b = 2, .seed = 99};
    esp_init_fill(&init, ESP_DTYPE_F64, 1 << 20, 1000, values);
    esp_init_fill(&init, ESP_DTYPE_F32, 1 << 20, 1000, values_f32);
    for (size_t at = 0, n = 0; at < 1000; at += n) {
      n = esp_test_random(&seed) % 20;
      n = n < 1000 - at ? n : 1000 - at;
      esp_init_fill(&init, ESP_DTYPE_F64, (1 << 20) + at, n, parts + at);
      esp_init_fill(&init, ESP_DTYPE_F32, (1 << 20) + at, n, parts_f32 + at);
    }
    assert_memory_equal(parts, values, sizeof parts);
    assert_memory_equal(parts_f32, values_f32, sizeof parts_f32);
  }
}

/* Mean, variance, and the correlation of neighbours, each within five standard errors. */
static void assert_moments(double mean, double stddev) {
  double sum = 0, squares = 0, neighbours = 0;
  for (size_t i = 0; i < LEN; i++) {
    const double z = (values[i] - mean) / stddev, before = i > 0 ? (values[i - 1] - mean) / stddev : 0;
    sum += z;
    squares += z * z;
    neighbours += z * before;
  }
  assert_true(fabs(sum / LEN) < 5 / sqrt(LEN));
  assert_true(fabs(squares / LEN - 1) < 5 * sqrt(2.0 / LEN));
  assert_true(fabs(neighbours / LEN) < 5 / sqrt(LEN));
}

/* Pearson's test of 32 cells that are equally likely; 31 degrees of freedom exceed 75 once in 50,000 times. */
static void assert_cells(double (*quantile)(double value)) {
  size_t cells[32] = {0};
  double chi = 0;
  for (size_t i = 0; i < LEN; i++) {
    const double q = quantile(values[i]);
    assert_true(q >= 0 && q <= 1);
    cells[q < 1 ? (size_t)(q * 32) : 31]++;
  }
  for (size_t i = 0; i < 32; i++)
    chi += ((double)cells[i] - LEN / 32.0) * ((double)cells[i] - LEN / 32.0) / (LEN / 32.0);
  assert_true(chi > 8 && chi < 75);
}

static double quantile_uniform(double value) {
  return (value + 3) / 5;
}

static double quantile_normal(double value) {
  return erfc(-(value - 1) / 2 / sqrt(2)) / 2;
}

static void uniform_is_uniform(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 3; seed++) { /* neighbouring seeds are as good as any */
    const struct esp_init init = {.kind = ESP_INIT_UNIFORM, .a = -3, .b = 2, .seed = seed};
    esp_init_fill(&init, ESP_DTYPE_F64, 0, LEN, values);
    assert_moments(-0.5, 5 / sqrt(12));
    assert_cells(quantile_uniform);
  }
}

static void normal_is_normal(void **state) {
  (void)state;
  for (uint64_t seed = UINT64_MAX - 2; seed != 0; seed++) {
    const struct esp_init init = {.kind = ESP_INIT_NORMAL, .a = 1, .b = 2, .seed = seed};
    esp_init_fill(&init, ESP_DTYPE_F64, 0, LEN, values);
    assert_moments(1, 2);
    assert_cells(quantile_normal);
  }
}

static void seeds_are_independent(void **state) {
  (void)state;
  static double other[LEN];
  const struct esp_init a = {.kind = ESP_INIT_NORMAL, .b = 1, .seed = 1},
                        b = {.kind = ESP_INIT_NORMAL, .b = 1, .seed = 2};
  esp_init_fill(&a, ESP_DTYPE_F64, 0, LEN, values);
  esp_init_fill(&b, ESP_DTYPE_F64, 0, LEN, other);
  double product = 0;
  for (size_t i = 0; i < LEN; i++)
    product += values[i] * other[i];
  assert_true(fabs(product / LEN) < 5 / sqrt(LEN));
}

/* Where rounding to float would reach `high`. */
static void uniform_stays_below_high(void **state) {
  (void)state;
  const struct {
    double low, high;
  } ranges[] = {{0.9999999, 1}, {-1, -0.9999999}, {0, 1e-45}, {0, DBL_TRUE_MIN}, {0, 1}, {1, 1 + DBL_EPSILON}};
  for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++) {
    const struct esp_init init = {.kind = ESP_INIT_UNIFORM, .a = ranges[r].low, .b = ranges[r].high, .seed = 5};
    assert_int_equal(esp_init_check(&init, NULL), ESP_OK);
    esp_init_fill(&init, ESP_DTYPE_F64, 0, 10000, values);
    esp_init_fill(&init, ESP_DTYPE_F32, 0, 10000, values_f32);
    for (size_t i = 0; i < 10000; i++) {
      assert_true(values[i] >= ranges[r].low && values[i] < ranges[r].high);
      if (r < 2 || r == 4)
        assert_true((double)values_f32[i] < ranges[r].high &&
                    (double)values_f32[i] >= (double)(float)ranges[r].low - 1e-7);
    }
  }
  const struct esp_init point = {.kind = ESP_INIT_UNIFORM, .a = 2, .b = 2};
  esp_init_fill(&point, ESP_DTYPE_F32, 0, 10, values_f32);
  assert_true(values_f32[9] == 2);
}

static void never_starts_at_infinity(void **state) {
  (void)state;
  const struct esp_init inits[] = {{.kind = ESP_INIT_CONSTANT, .a = -1e300},
                                   {.kind = ESP_INIT_NORMAL, .a = 1e308, .b = 1e308},
                                   {.kind = ESP_INIT_NORMAL, .b = DBL_MAX},
                                   {.kind = ESP_INIT_UNIFORM, .a = 1e307, .b = 1e308}};
  for (size_t k = 0; k < sizeof inits / sizeof *inits; k++) {
    assert_int_equal(esp_init_check(&inits[k], NULL), ESP_OK);
    esp_init_fill(&inits[k], ESP_DTYPE_F64, 0, 1000, values);
    esp_init_fill(&inits[k], ESP_DTYPE_F32, 0, 1000, values_f32);
    assert_int_equal(esp_finite_check(ESP_ISA_SSE2, ESP_DTYPE_F64, 1000, values), 1000);
    assert_int_equal(esp_finite_check(ESP_ISA_SSE2, ESP_DTYPE_F32, 1000, values_f32), 1000);
  }
}

static void refuses_bad_numbers(void **state) {
  (void)state;
  const struct {
    struct esp_init init;
    const char *message;
  } cases[] = {
      {{.kind = ESP_INIT_CONSTANT, .a = NAN}, "constant: nan is not finite"},
      {{.kind = ESP_INIT_CONSTANT, .a = -INFINITY}, "constant: -inf is not finite"},
      {{.kind = ESP_INIT_UNIFORM, .a = NAN, .b = 1}, "not finite"},
      {{.kind = ESP_INIT_UNIFORM, .a = 0, .b = INFINITY}, "not finite"},
      {{.kind = ESP_INIT_UNIFORM, .a = -1e308, .b = 1e308}, "their difference is not finite"},
      {{.kind = ESP_INIT_UNIFORM, .a = 1, .b = 0.5}, "high 0.5 is below low 1"},
      {{.kind = ESP_INIT_NORMAL, .a = INFINITY, .b = 1}, "not finite"},
      {{.kind = ESP_INIT_NORMAL, .a = 0, .b = NAN}, "not finite"},
      {{.kind = ESP_INIT_NORMAL, .a = 0, .b = -1}, "stddev -1 is below 0"},
      {{.kind = (enum esp_init_kind)99}, "kind 99"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct esp_status st = {0};
    assert_int_equal(esp_init_check(&cases[i].init, &st), ESP_INVALID_ARGUMENT);
    assert_non_null(strstr(st.message, cases[i].message));
  }
  const struct esp_init fine[] = {
      {.kind = ESP_INIT_ZEROS, .a = NAN}, {.kind = ESP_INIT_VALUE, .b = NAN}, {.kind = ESP_INIT_NORMAL, .b = 0}};
  for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
    assert_int_equal(esp_init_check(&fine[i], NULL), ESP_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(equals_python),
      ESP_TEST(constants),
      ESP_TEST(cuts_do_not_matter),
      ESP_TEST(uniform_is_uniform),
      ESP_TEST(normal_is_normal),
      ESP_TEST(seeds_are_independent),
      ESP_TEST(uniform_stays_below_high),
      ESP_TEST(never_starts_at_infinity),
      ESP_TEST(refuses_bad_numbers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
