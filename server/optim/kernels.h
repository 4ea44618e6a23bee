/* The block kernels and their table. Private to server/optim.
 *
 * kernels.c is compiled once for each instruction set and gives one table each time. Every kernel does n elements,
 * element i of each output from element i of each input alone, in IEEE operations of the element type that no compiler
 * flag may contract or reorder: so neither the instruction set nor the cut of a tensor into blocks changes a bit. The
 * one that adds elements up, squares, does so in an order that depends on n alone. */
#ifndef ESP_OPTIM_KERNELS_H
#define ESP_OPTIM_KERNELS_H

#include <stdbool.h>
#include <stddef.h>

/* Kernels of rules. */
enum esp_kernel { ESP_KERNEL_SGD, ESP_KERNEL_ADAM, ESP_KERNEL_CLIP_VALUE, ESP_KERNEL_CLIP_NORM, ESP_KERNEL_LEN };

/* What scalars[] of a step holds, by kernel. Doubles; a kernel rounds each once to its element type. */
enum esp_sgd_scalar {
  ESP_SGD_LR,
  ESP_SGD_WEIGHT_DECAY,
  ESP_SGD_MOMENTUM,
  ESP_SGD_KEEP,     /* 1 - dampening */
  ESP_SGD_NESTEROV, /* 0 or 1 */
  ESP_SGD_FIRST,    /* 1 on a parameter's first step */
};
enum esp_adam_scalar {
  ESP_ADAM_WEIGHT_DECAY, /* the coupled one; 0 for adamw */
  ESP_ADAM_BETA1,
  ESP_ADAM_BETA2,
  ESP_ADAM_STEP_SIZE,             /* lr / (1 - beta1^t) */
  ESP_ADAM_BIAS_CORRECTION2_SQRT, /* sqrt(1 - beta2^t) */
  ESP_ADAM_EPS,
  ESP_ADAM_AMSGRAD, /* 0 or 1 */
};

enum esp_clip_value_scalar { ESP_CLIP_VALUE_MAX };
enum esp_clip_norm_scalar { ESP_CLIP_NORM_FACTOR };

/* One rule on one block: u becomes the update made of g. g and u may be the same memory. */
typedef void esp_rule_kernel(size_t n, const double *scalars, const void *g, const void *x, void *const *states,
                             void *u);

/* The kernels of one element type. */
struct esp_kernels_of {
  esp_rule_kernel *rules[ESP_KERNEL_LEN];                                            /* by enum esp_kernel */
  void (*add)(size_t n, const void *a, const void *b, void *out);                    /* out = a + b */
  void (*multiply)(size_t n, const void *a, double factor, void *out);               /* out = a * factor */
  void (*finish)(size_t n, const void *x, double scale, const void *u, void *x_out); /* x_out = x * scale - u */
  bool (*finite)(size_t n, const void *data);                                        /* neither NaN nor infinity */
  double (*squares)(size_t n, const void *data);                                     /* their sum, in double */
};

/* The kernels of an element type of 16 bits, in which floats travel. Widening is exact (a NaN becomes a quiet one),
 * narrowing rounds to nearest, ties to even. */
struct esp_kernels_half {
  bool (*finite)(size_t n, const void *data);
  void (*widen)(size_t n, const void *from, void *out);           /* to float */
  void (*add)(size_t n, const void *a, const void *b, void *out); /* out = a + b: floats, but for b */
  void (*narrow)(size_t n, const void *from, void *out); /* from float; what is too large becomes an infinity */
};

struct esp_kernels {
  struct esp_kernels_of f32; /* of float */
  struct esp_kernels_of f64; /* of double */
  struct esp_kernels_half bf16;
  struct esp_kernels_half f16;
};

extern const struct esp_kernels esp_kernels_sse2;
extern const struct esp_kernels esp_kernels_avx2;
extern const struct esp_kernels esp_kernels_avx512;

#endif
