/* First values of parameters.
 *
 * Random ones come from a counter: 64 random bits are a hash (splitmix64's finalizer, twice) of the seed and a number
 * of their own, so any range of a tensor may be filled alone and in any order. Uniform takes number i for element i,
 * normal takes 2i and 2i + 1 (Box and Muller's cosine branch). All of it in double, by scalar code and libm's scalar
 * functions, rounded once to the element type: --isa changes nothing. What would exceed the type's range becomes its
 * largest value, so that a parameter never starts at an infinity. Fails only in the check of the numbers. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/check.h"
#include "optim/optim.h"

#define TWO_PI 6.283185307179586

static uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

static uint64_t random_bits(uint64_t seed, uint64_t counter) {
  const uint64_t golden = UINT64_C(0x9e3779b97f4a7c15);
  return mix(mix(seed + golden) + (counter + 1) * golden);
}

/* In [0, 1), a multiple of 2^-53. */
static double random_unit(uint64_t seed, uint64_t counter) {
  return (double)(random_bits(seed, counter) >> 11) * 0x1p-53;
}

static double draw_normal(const struct esp_init *init, uint64_t index) {
  const double radius = sqrt(-2.0 * log(1.0 - random_unit(init->seed, 2 * index)));
  return init->a + init->b * (radius * cos(TWO_PI * random_unit(init->seed, 2 * index + 1)));
}

static double draw_uniform(const struct esp_init *init, uint64_t index) {
  return init->a + (init->b - init->a) * random_unit(init->seed, index);
}

static double draw(const struct esp_init *init, uint64_t index) {
  if (init->kind == ESP_INIT_CONSTANT)
    return init->a;
  return init->kind == ESP_INIT_UNIFORM ? draw_uniform(init, index) : draw_normal(init, index);
}

/* Rounding may have reached `high`, which is not in the range: the value below it then, if that is in. */
static float round_f32(const struct esp_init *init, double value) {
  const float rounded = (float)fmin(fmax(value, -FLT_MAX), FLT_MAX);
  if (init->kind != ESP_INIT_UNIFORM || (double)rounded < init->b)
    return rounded;
  const float below = nextafterf(rounded, -FLT_MAX);
  return (double)below >= init->a ? below : rounded;
}

static double round_f64(const struct esp_init *init, double value) {
  const double bounded = fmin(fmax(value, -DBL_MAX), DBL_MAX);
  if (init->kind != ESP_INIT_UNIFORM || bounded < init->b)
    return bounded;
  return fmax(nextafter(init->b, -DBL_MAX), init->a);
}

enum esp_code esp_init_check(const struct esp_init *init, struct esp_status *st) {
  const double a = init->a, b = init->b;
  switch (init->kind) {
  case ESP_INIT_ZEROS:
  case ESP_INIT_VALUE:
    return ESP_OK;
  case ESP_INIT_CONSTANT:
    return isfinite(a) ? ESP_OK : esp_fail(st, ESP_INVALID_ARGUMENT, "initialiser constant: %g is not finite", a);
  case ESP_INIT_UNIFORM:
    if (!isfinite(a) || !isfinite(b) || !isfinite(b - a))
      return esp_fail(st, ESP_INVALID_ARGUMENT,
                      "initialiser uniform: low %g, high %g or their difference is not finite", a, b);
    return a <= b ? ESP_OK : esp_fail(st, ESP_INVALID_ARGUMENT, "initialiser uniform: high %g is below low %g", b, a);
  case ESP_INIT_NORMAL:
    if (!isfinite(a) || !isfinite(b))
      return esp_fail(st, ESP_INVALID_ARGUMENT, "initialiser normal: mean %g or stddev %g is not finite", a, b);
    return b >= 0 ? ESP_OK : esp_fail(st, ESP_INVALID_ARGUMENT, "initialiser normal: stddev %g is below 0", b);
  }
  return esp_fail(st, ESP_INVALID_ARGUMENT, "initialiser: kind %d is none of them", (int)init->kind);
}

void esp_init_fill(const struct esp_init *init, enum esp_dtype dtype, uint64_t first, size_t n, void *out) {
  ESP_CHECK(dtype == ESP_DTYPE_F32 || dtype == ESP_DTYPE_F64);
  ESP_CHECK(init->kind != ESP_INIT_VALUE);
  if (init->kind == ESP_INIT_ZEROS) {
    memset(out, 0, n * esp_dtype_size(dtype));
    return;
  }
  for (size_t i = 0; i < n; i++) {
    const double value = draw(init, first + i);
    if (dtype == ESP_DTYPE_F32)
      ((float *)out)[i] = round_f32(init, value);
    else
      ((double *)out)[i] = round_f64(init, value);
  }
}
