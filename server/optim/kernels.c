/* The block kernels, compiled once for each instruction set (CMakeLists.txt) as the table that ESP_KERNELS names.
 *
 * The loops are plain C that GCC vectorises at -O3; body and tail are the same operations. -ffp-contract=off (no fused
 * multiply-add), -fno-math-errno (sqrt is the instruction) and no -ffast-math keep each of them exact IEEE, which is
 * why the tables give equal bits. Nothing here can fail. */
#include "optim/kernels.h"

#include <math.h>
#include <stdint.h>

/* Elements in callers' memory: of any alignment, and written by whoever wrote the bytes. */
typedef float esp_f32_any __attribute__((aligned(1), may_alias));
typedef double esp_f64_any __attribute__((aligned(1), may_alias));
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

#define ESP_TABLE(type)                                                                                                \
  {                                                                                                                    \
    .rules = {[ESP_KERNEL_SGD] = sgd_##type,                                                                           \
              [ESP_KERNEL_ADAM] = adam_##type,                                                                         \
              [ESP_KERNEL_CLIP_VALUE] = clip_value_##type,                                                             \
              [ESP_KERNEL_CLIP_NORM] = clip_norm_##type},                                                              \
    .add = add_##type, .multiply = multiply_##type, .finish = finish_##type, .finite = finite_##type,                  \
    .squares = squares_##type,                                                                                         \
  }

const struct esp_kernels ESP_KERNELS = {.f32 = ESP_TABLE(f32), .f64 = ESP_TABLE(f64)};
