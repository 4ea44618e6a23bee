// The fused optimizer loops that the C and C++ references share: gradient, value and state are each read once.
#ifndef PEERS_KERNELS_H
#define PEERS_KERNELS_H
#include <math.h>
#include <stddef.h>

#define LR 0.01f
#define MOMENTUM 0.9f
#define BETA1 0.9f
#define BETA2 0.999f
#define EPS 1e-8f

static inline void sgd_step(float *__restrict w, const float *__restrict g, size_t n) {
  for (size_t i = 0; i < n; i++)
    w[i] -= LR * g[i];
}

static inline void momentum_step(float *__restrict w, float *__restrict m, const float *__restrict g, size_t n) {
  for (size_t i = 0; i < n; i++) {
    m[i] = MOMENTUM * m[i] + g[i];
    w[i] -= LR * m[i];
  }
}

// t counts from 1
static inline void adam_step(float *__restrict w, float *__restrict m, float *__restrict v, const float *__restrict g,
                             size_t n, long t) {
  const float lr = (float)(LR / (1 - pow(BETA1, (double)t)));
  const float scale = (float)(1 / (1 - pow(BETA2, (double)t)));
  for (size_t i = 0; i < n; i++) {
    m[i] = BETA1 * m[i] + (1 - BETA1) * g[i];
    v[i] = BETA2 * v[i] + (1 - BETA2) * g[i] * g[i];
    w[i] -= lr * m[i] / (sqrtf(v[i] * scale) + EPS);
  }
}
#endif
