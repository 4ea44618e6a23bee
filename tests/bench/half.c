/* The types of 16 bits, by arithmetic in double and not by the server's kernels. Subnormal numbers have the least
 * exponent. What the workload has is far from the largest numbers. */
#include <math.h>

#include "tests/bench/bench.h"

static int mantissa_bits(enum esp_leaf_dtype dtype) {
  return dtype == ESP_BF16 ? 7 : 10;
}

static int exponent_least(enum esp_leaf_dtype dtype) {
  return dtype == ESP_BF16 ? -126 : -14;
}

/* The sum carries into the exponent where rounding does. nearbyint's ties are even. */
uint16_t half_round(enum esp_leaf_dtype dtype, float value) {
  const int bits = mantissa_bits(dtype), least = exponent_least(dtype);
  const int exponent = value == 0 || ilogb((double)value) < least ? least : ilogb((double)value);
  const double units = nearbyint(ldexp(fabs((double)value), bits - exponent));
  return (uint16_t)((signbit(value) ? 0x8000 : 0) | (((exponent - least) << bits) + (int)units));
}

float half_value(enum esp_leaf_dtype dtype, uint16_t half) {
  const int bits = mantissa_bits(dtype), biased = (half & 0x7fff) >> bits, one = 1 << bits;
  const int units = (half & (one - 1)) + (biased == 0 ? 0 : one);
  const double value = ldexp(units, exponent_least(dtype) + (biased == 0 ? 0 : biased - 1) - bits);
  return (float)(half & 0x8000 ? -value : value);
}
