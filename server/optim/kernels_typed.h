/* The kernels of one element type: kernels.c includes this once for each, with
 *   ESP_T          the type of an element in memory, of any alignment
 *   ESP_V          the type of a value
 *   ESP_SQRT       its square root, correctly rounded
 *   ESP_BITS       an unsigned integer of its size, in memory; ESP_BITS_V as a value
 *   ESP_EXPONENT   its exponent bits
 *   ESP_TYPED(x)   the name x with a suffix
 * No include guard, for that reason.
 *
 * ivdep says that no element depends on another. The compiler can't see it where x_out is x or u is g, and would fall
 * back to one element at a time. */

ESP_INLINE void ESP_TYPED(sgd_with)(unsigned knobs, size_t n, const double *scalars, const ESP_T *g, const ESP_T *x,
                                    ESP_T *buffer, ESP_T *u) {
  const ESP_V lr = (ESP_V)scalars[ESP_SGD_LR];
  const ESP_V weight_decay = (ESP_V)scalars[ESP_SGD_WEIGHT_DECAY];
  const ESP_V momentum = (ESP_V)scalars[ESP_SGD_MOMENTUM];
  const ESP_V keep = (ESP_V)scalars[ESP_SGD_KEEP];
#pragma GCC ivdep
  for (size_t i = 0; i < n; i++) {
    ESP_V d = g[i];
    if (knobs & SGD_DECAY)
      d = d + weight_decay * x[i];
    if (knobs & SGD_MOMENTUM) {
      const ESP_V b = knobs & SGD_FIRST ? d : momentum * buffer[i] + keep * d;
      buffer[i] = b;
      d = knobs & SGD_NESTEROV ? d + momentum * b : b;
    }
    u[i] = lr * d;
  }
}

static void ESP_TYPED(sgd)(size_t n, const double *scalars, const void *g, const void *x, void *const *states,
                           void *u) {
  unsigned knobs = scalars[ESP_SGD_WEIGHT_DECAY] != 0 ? SGD_DECAY : 0;
  if (scalars[ESP_SGD_MOMENTUM] != 0)
    knobs |= SGD_MOMENTUM | (scalars[ESP_SGD_NESTEROV] != 0 ? SGD_NESTEROV : 0) |
             (scalars[ESP_SGD_FIRST] != 0 ? SGD_FIRST : 0);
  ESP_T *buffer = knobs & SGD_MOMENTUM ? states[0] : NULL;
  switch (knobs) {
#define ESP_SGD_CASE(k)                                                                                                \
  case (k):                                                                                                            \
    ESP_TYPED(sgd_with)((k), n, scalars, g, x, buffer, u);                                                             \
    break;
    ESP_SGD_CASE(0)
    ESP_SGD_CASE(SGD_DECAY)
    ESP_SGD_CASE(SGD_MOMENTUM)
    ESP_SGD_CASE(SGD_MOMENTUM | SGD_DECAY)
    ESP_SGD_CASE(SGD_MOMENTUM | SGD_NESTEROV)
    ESP_SGD_CASE(SGD_MOMENTUM | SGD_NESTEROV | SGD_DECAY)
    ESP_SGD_CASE(SGD_MOMENTUM | SGD_FIRST)
    ESP_SGD_CASE(SGD_MOMENTUM | SGD_FIRST | SGD_DECAY)
    ESP_SGD_CASE(SGD_MOMENTUM | SGD_FIRST | SGD_NESTEROV)
    ESP_SGD_CASE(SGD_MOMENTUM | SGD_FIRST | SGD_NESTEROV | SGD_DECAY)
#undef ESP_SGD_CASE
  }
}

ESP_INLINE void ESP_TYPED(adam_with)(unsigned knobs, size_t n, const double *scalars, const ESP_T *g, const ESP_T *x,
                                     void *const *states, ESP_T *u) {
  const ESP_V weight_decay = (ESP_V)scalars[ESP_ADAM_WEIGHT_DECAY];
  const ESP_V beta1 = (ESP_V)scalars[ESP_ADAM_BETA1], keep1 = (ESP_V)(1.0 - scalars[ESP_ADAM_BETA1]);
  const ESP_V beta2 = (ESP_V)scalars[ESP_ADAM_BETA2], keep2 = (ESP_V)(1.0 - scalars[ESP_ADAM_BETA2]);
  const ESP_V step_size = (ESP_V)scalars[ESP_ADAM_STEP_SIZE];
  const ESP_V correction = (ESP_V)scalars[ESP_ADAM_BIAS_CORRECTION2_SQRT];
  const ESP_V eps = (ESP_V)scalars[ESP_ADAM_EPS];
  ESP_T *exp_avg = states[0], *exp_avg_sq = states[1];
  ESP_T *max_exp_avg_sq = knobs & ADAM_AMSGRAD ? states[2] : NULL;
#pragma GCC ivdep
  for (size_t i = 0; i < n; i++) {
    ESP_V d = g[i];
    if (knobs & ADAM_DECAY)
      d = d + weight_decay * x[i];
    const ESP_V m = beta1 * exp_avg[i] + keep1 * d;
    ESP_V v = beta2 * exp_avg_sq[i] + (keep2 * d) * d;
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    if (knobs & ADAM_AMSGRAD) {
      const ESP_V top = max_exp_avg_sq[i];
      v = v <= top ? top : v; /* a NaN in v stays one */
      max_exp_avg_sq[i] = v;
    }
    u[i] = (step_size * m) / (ESP_SQRT(v) / correction + eps);
  }
}

static void ESP_TYPED(adam)(size_t n, const double *scalars, const void *g, const void *x, void *const *states,
                            void *u) {
  const unsigned knobs =
      (scalars[ESP_ADAM_WEIGHT_DECAY] != 0 ? ADAM_DECAY : 0) | (scalars[ESP_ADAM_AMSGRAD] != 0 ? ADAM_AMSGRAD : 0);
  switch (knobs) {
#define ESP_ADAM_CASE(k)                                                                                               \
  case (k):                                                                                                            \
    ESP_TYPED(adam_with)((k), n, scalars, g, x, states, u);                                                            \
    break;
    ESP_ADAM_CASE(0)
    ESP_ADAM_CASE(ADAM_DECAY)
    ESP_ADAM_CASE(ADAM_AMSGRAD)
    ESP_ADAM_CASE(ADAM_AMSGRAD | ADAM_DECAY)
#undef ESP_ADAM_CASE
  }
}

/* A NaN stays one. */
static void ESP_TYPED(clip_value)(size_t n, const double *scalars, const void *g_data, const void *x,
                                  void *const *states, void *u_data) {
  (void)x;
  (void)states;
  const ESP_T *g = g_data;
  ESP_T *u = u_data;
  const ESP_V max = (ESP_V)scalars[ESP_CLIP_VALUE_MAX];
#pragma GCC ivdep
  for (size_t i = 0; i < n; i++) {
    ESP_V d = g[i];
    d = d < -max ? -max : d;
    u[i] = d > max ? max : d;
  }
}

static void ESP_TYPED(add)(size_t n, const void *a_data, const void *b_data, void *out_data) {
  const ESP_T *a = a_data, *b = b_data;
  ESP_T *out = out_data;
#pragma GCC ivdep
  for (size_t i = 0; i < n; i++)
    out[i] = a[i] + b[i];
}

static void ESP_TYPED(multiply)(size_t n, const void *a_data, double factor, void *out_data) {
  const ESP_T *a = a_data;
  ESP_T *out = out_data;
  const ESP_V f = (ESP_V)factor;
#pragma GCC ivdep
  for (size_t i = 0; i < n; i++)
    out[i] = a[i] * f;
}

/* A factor of 1 changes no bit. */
static void ESP_TYPED(clip_norm)(size_t n, const double *scalars, const void *g, const void *x, void *const *states,
                                 void *u) {
  (void)x;
  (void)states;
  ESP_TYPED(multiply)(n, g, scalars[ESP_CLIP_NORM_FACTOR], u);
}

/* A scale of 1 gives exactly x - u, since x * 1 is x. */
static void ESP_TYPED(finish)(size_t n, const void *x_data, double scale, const void *u_data, void *out_data) {
  const ESP_T *x = x_data, *u = u_data;
  ESP_T *out = out_data;
  const ESP_V s = (ESP_V)scale;
#pragma GCC ivdep
  for (size_t i = 0; i < n; i++)
    out[i] = x[i] * s - u[i];
}

/* An exponent of all ones is NaN or infinity; adding its lowest bit to it, and to no other, carries into the sign. */
static bool ESP_TYPED(finite)(size_t n, const void *data) {
  const ESP_BITS *bits = data;
  ESP_BITS_V seen = 0;
  for (size_t i = 0; i < n; i++)
    seen |= (bits[i] & ESP_EXPONENT) + (ESP_EXPONENT & -ESP_EXPONENT);
  return (seen & ~(ESP_EXPONENT | (ESP_EXPONENT - 1))) == 0;
}

/* Element i goes to lane i % 8, the lanes are added as a tree. The square of a float is exact in double. */
static double ESP_TYPED(squares)(size_t n, const void *data) {
  const ESP_T *a = data;
  double lanes[8] = {0};
  size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (size_t k = 0; k < 8; k++)
      lanes[k] += (double)a[i + k] * (double)a[i + k];
  }
  for (size_t k = 0; i + k < n; k++)
    lanes[k] += (double)a[i + k] * (double)a[i + k];
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}
