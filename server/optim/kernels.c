/* The block kernels, compiled once for each instruction set (CMakeLists.txt) as the table that ESP_KERNELS names.
 *
 * The loops are plain C that GCC vectorises at -O3; body and tail are the same operations. -ffp-contract=off (no fused
 * multiply-add), -fno-math-errno (sqrt is the instruction) and no -ffast-math keep each of them exact IEEE, which is
 * why the tables give equal bits. Nothing here can fail. */
#include "optim/kernels.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Elements in callers' memory: of any alignment, and written by whoever wrote the bytes. */
typedef float esp_f32_any __attribute__((aligned(1), may_alias));
typedef double esp_f64_any __attribute__((aligned(1), may_alias));
typedef uint16_t esp_u16_any __attribute__((aligned(1), may_alias));
typedef uint32_t esp_u32_any __attribute__((aligned(1), may_alias));
typedef uint64_t esp_u64_any __attribute__((aligned(1), may_alias));

#define ESP_INLINE static inline __attribute__((always_inline))

/* The knobs of a rule, constant in each copy of its loop so that every copy vectorises. */
enum { SGD_DECAY = 1, SGD_MOMENTUM = 2, SGD_NESTEROV = 4, SGD_FIRST = 8 };
enum { ADAM_DECAY = 1, ADAM_AMSGRAD = 2 };

#define ESP_T esp_f32_any
#define ESP_V float
#define ESP_SQRT sqrtf
#define ESP_BITS esp_u32_any
#define ESP_BITS_V uint32_t
#define ESP_EXPONENT UINT32_C(0x7f800000)
#define ESP_TYPED(name) name##_f32
#include "optim/kernels_typed.h"
#undef ESP_T
#undef ESP_V
#undef ESP_SQRT
#undef ESP_BITS
#undef ESP_BITS_V
#undef ESP_EXPONENT
#undef ESP_TYPED

#define ESP_T esp_f64_any
#define ESP_V double
#define ESP_SQRT sqrt
#define ESP_BITS esp_u64_any
#define ESP_BITS_V uint64_t
#define ESP_EXPONENT UINT64_C(0x7ff0000000000000)
#define ESP_TYPED(name) name##_f64
#include "optim/kernels_typed.h"
#undef ESP_TYPED
#undef ESP_EXPONENT

ESP_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

ESP_INLINE float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

#define QUIET_NAN UINT32_C(0x00400000) /* of a float */

/* bfloat16 is a float's upper half. */
ESP_INLINE float widen_bf16(uint16_t half) {
  const uint32_t bits = (uint32_t)half << 16;
  return float_of((bits & 0x7fffffff) > 0x7f800000 ? bits | QUIET_NAN : bits);
}

ESP_INLINE uint16_t narrow_bf16(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
  return (uint16_t)(((bits & 0x7fffffff) > 0x7f800000 ? bits | QUIET_NAN : rounded) >> 16);
}

/* Without a branch: GCC would put float operations behind it, and then not vectorise them. */
ESP_INLINE uint32_t choose(bool condition, uint32_t yes, uint32_t no) {
  const uint32_t mask = -(uint32_t)condition;
  return (yes & mask) | (no & ~mask);
}

/* float16 has 5 bits of exponent, with a bias of 15 for a float's 127. A subnormal one, m * 2^-24, is read as the
 * float 2^-14 + m * 2^-24, of which 2^-14 is taken away: exact, and without a subnormal float on the way. */
ESP_INLINE float widen_f16(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = (uint32_t)(half & 0x7fff) << 13;
  const uint32_t normal = rest + ((127 - 15) << 23);
  const uint32_t subnormal = bits_of(float_of(rest + (113 << 23)) - float_of(113 << 23));
  const uint32_t special = (rest + ((255 - 31) << 23)) | choose(rest > 31 << 23, QUIET_NAN, 0);
  return float_of(sign | choose(rest >= 31 << 23, special, choose(rest >= 1 << 23, normal, subnormal)));
}

/* Below 2^-14 the float addition of 1/2 rounds to a multiple of 2^-24, since that is the last bit of what lies between
 * 1/2 and 1; above, what is cut off is rounded with an addition that may carry into the exponent. */
ESP_INLINE uint16_t narrow_f16(float value) {
  const uint32_t bits = bits_of(value), sign = bits & 0x80000000, rest = bits ^ sign;
  const uint32_t normal = (rest - ((127 - 15) << 23) + 0xfff + (rest >> 13 & 1)) >> 13;
  const uint32_t subnormal = bits_of(float_of(rest) + 0.5F) - bits_of(0.5F);
  const uint32_t large = choose(rest > 0x7f800000, 0x7e00 | (rest >> 13 & 0x3ff), 0x7c00);
  return (uint16_t)(sign >> 16 | choose(rest >= 143 << 23, large, choose(rest >= 113 << 23, normal, subnormal)));
}

#define ESP_EXPONENT 0x7f80
#define ESP_WIDEN widen_bf16
#define ESP_NARROW narrow_bf16
#define ESP_TYPED(name) name##_all_bf16
#include "optim/kernels_half.h"
#undef ESP_EXPONENT
#undef ESP_WIDEN
#undef ESP_NARROW
#undef ESP_TYPED

#define ESP_EXPONENT 0x7c00
#define ESP_WIDEN widen_f16
#define ESP_NARROW narrow_f16
#define ESP_TYPED(name) name##_all_f16
#include "optim/kernels_half.h"

#define ESP_TABLE(type)                                                                                                \
  {                                                                                                                    \
    .rules = {[ESP_KERNEL_SGD] = sgd_##type,                                                                           \
              [ESP_KERNEL_ADAM] = adam_##type,                                                                         \
              [ESP_KERNEL_CLIP_VALUE] = clip_value_##type,                                                             \
              [ESP_KERNEL_CLIP_NORM] = clip_norm_##type},                                                              \
    .add = add_##type, .multiply = multiply_##type, .finish = finish_##type, .finite = finite_##type,                  \
    .squares = squares_##type,                                                                                         \
  }

#define ESP_TABLE_HALF(type)                                                                                           \
  { .finite = finite_all_##type, .widen = widen_all_##type, .add = add_all_##type, .narrow = narrow_all_##type, }

const struct esp_kernels ESP_KERNELS = {
    .f32 = ESP_TABLE(f32), .f64 = ESP_TABLE(f64), .bf16 = ESP_TABLE_HALF(bf16), .f16 = ESP_TABLE_HALF(f16)};
