/* A step's bits depend on neither the instruction set, nor the cut into ranges, nor where the memory lies. The
 * reference is the same step done one element at a time with SSE2. */
#include <math.h>

#include "fixture.h"

#define SMALL_MAX 70   /* lengths up to here are all tried */
#define LARGE_LEN 3001 /* several blocks and a tail */
#define MARGIN 128     /* bytes that must stay as they were */
#define STEPS 3
#define GRADS 3
#define STATES_MAX 5

static const char *const expressions[] = {
    "sgd(lr=0.1)",
    "sgd(lr=0.1, weight_decay=0.3)",
    "sgd(lr=0.1, momentum=0.9)",
    "sgd(lr=0.1, momentum=0.9, dampening=0.2, weight_decay=0.3)",
    "sgd(lr=0.1, momentum=0.9, nesterov=true)",
    "sgd(lr=0.1, momentum=0.9, nesterov=true, weight_decay=0.3)",
    "adam(lr=0.1)",
    "adam(lr=0.1, weight_decay=0.3, beta2=0.5)",
    "adam(lr=0.1, amsgrad=true, beta2=0.5)",
    "adam(lr=0.1, amsgrad=true, weight_decay=0.3, beta2=0.5)",
    "adamw(lr=0.1, weight_decay=0.3)",
    "clip_value(0.3)",
    "clip_value(0.3) | adam(lr=0.1) | clip_value(0.01)",
    "clip_norm(1)",
    "clip_group_norm(3) | sgd(lr=0.1, momentum=0.9)",
    "clip_global_norm(1, eps=0) | clip_value(0.1) | adamw(lr=0.1)",
    "sgd(lr=0.5, momentum=0.9) | adamw(lr=0.1, weight_decay=0.3) | adam(lr=1) | sgd(lr=1, weight_decay=0.1)",
};
#define EXPRESSIONS_LEN (sizeof expressions / sizeof *expressions)

/* How many gradients a step sums, and the factor after it. */
static const struct mix {
  size_t grads_len;
  double scale;
} mixes[] = {{1, 1}, {1, 0.3}, {2, 1}, {3, 0.3}};
#define MIXES_LEN (sizeof mixes / sizeof *mixes)

/* A parameter of LARGE_LEN elements: bytes, so that one code does both types and every alignment. */
struct param {
  enum esp_dtype dtype;
  size_t size; /* of an element */
  size_t n;    /* elements in use; what lies after them stays as it was made */
  size_t skew; /* bytes that everything is moved by */
  size_t room; /* bytes of each array that are looked at: its elements and what lies around them */
  unsigned char x[LARGE_LEN * 8 + MARGIN];
  unsigned char out[LARGE_LEN * 8 + MARGIN];
  unsigned char grads[GRADS][LARGE_LEN * 8 + MARGIN];
  unsigned char states[STATES_MAX][LARGE_LEN * 8 + MARGIN];
};

/* Of every size, with zeros of both signs and subnormals among them. */
static double value_at(uint64_t *seed, size_t i) {
  const double unit = next_unit(seed) * 2 - 1;
  switch (i % 11) {
  case 3:
    return 0.0;
  case 5:
    return -0.0;
  case 7:
    return unit * 1e-39;
  case 9:
    return unit * 1e5;
  default:
    return unit;
  }
}

static void fill(unsigned char *data, enum esp_dtype dtype, size_t n, uint64_t seed) {
  for (size_t i = 0; i < n; i++) {
    const double value = value_at(&seed, i + seed % 11);
    const float value_f32 = (float)value;
    if (dtype == ESP_DTYPE_F32)
      memcpy(data + i * 4, &value_f32, 4);
    else
      memcpy(data + i * 8, &value, 8);
  }
}

static void param_init(struct param *param, enum esp_dtype dtype, size_t n, size_t skew) {
  param->dtype = dtype;
  param->size = esp_dtype_size(dtype);
  param->n = n;
  param->skew = skew;
  param->room = n * param->size + MARGIN;
  memset(param->x, 0, param->room);
  memset(param->out, 0, param->room);
  for (size_t i = 0; i < STATES_MAX; i++)
    memset(param->states[i], 0, param->room);
  fill(param->x + skew, dtype, n, 1);
  for (size_t i = 0; i < GRADS; i++)
    fill(param->grads[i] + skew, dtype, n, 2 + i);
}

/* Elements first .. first+n of one step; in place or into out. */
static void step_range(struct param *param, const struct esp_optim *optim, uint64_t t, enum esp_isa isa,
                       const struct mix *mix, bool in_place, size_t first, size_t n) {
  struct esp_grad grads[GRADS] = {{.data = NULL}};
  void *states[STATES_MAX];
  for (size_t i = 0; i < GRADS; i++)
    grads[(i + t) % GRADS].data = param->grads[i] + param->skew; /* another gradient each step */
  for (size_t i = 0; i < STATES_MAX; i++)
    states[i] = param->states[i] + param->skew;
  struct esp_step step;
  const struct esp_norms norms = {.param = 9, .group = 5, .global = 20.0 / (double)t};
  esp_optim_step_init(optim, t, &norms, &step);
  esp_optim_apply(optim, &step, isa, param->dtype, first, n, grads, mix->grads_len, mix->scale, param->x + param->skew,
                  (in_place ? param->x : param->out) + param->skew, states);
}

static void end_step(struct param *param, bool in_place) {
  if (!in_place)
    memcpy(param->x, param->out, param->room);
}

static void run_by_element(struct param *param, const struct esp_optim *optim, const struct mix *mix) {
  for (uint64_t t = 1; t <= STEPS; t++) {
    for (size_t i = 0; i < param->n; i++)
      step_range(param, optim, t, ESP_ISA_SSE2, mix, false, i, 1);
    end_step(param, false);
  }
}

static void run_at_once(struct param *param, const struct esp_optim *optim, const struct mix *mix, enum esp_isa isa,
                        bool in_place) {
  for (uint64_t t = 1; t <= STEPS; t++) {
    step_range(param, optim, t, isa, mix, in_place, 0, param->n);
    end_step(param, in_place);
  }
}

/* The first n elements equal the reference's, and nothing after them or before them was written. */
static void assert_same(const char *what, const unsigned char *got, const struct param *param,
                        const unsigned char *want) {
  const size_t bytes = param->n * param->size;
  for (size_t i = 0; i < bytes; i++) {
    if (got[param->skew + i] != want[i])
      fail_msg("%s differs in element %zu of %zu (%s)", what, i / param->size, param->n, esp_dtype_name(param->dtype));
  }
  for (size_t i = 0; i < param->room; i++) {
    if ((i < param->skew || i >= param->skew + bytes) && got[i] != 0)
      fail_msg("%s was written outside of its %zu elements", what, param->n);
  }
}

static void assert_params_same(const struct param *got, const struct param *want, const struct esp_optim *optim) {
  assert_same("x", got->x, got, want->x);
  for (size_t k = 0; k < esp_optim_states_len(optim); k++)
    assert_same(esp_optim_state_name(optim, k), got->states[k], got, want->states[k]);
}

static struct param got, want; /* too large for a stack */

static void try_lengths(const struct esp_optim *optim, enum esp_dtype dtype, const struct mix *mix) {
  param_init(&want, dtype, SMALL_MAX, 0);
  run_by_element(&want, optim, mix);
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    for (size_t n = 0; esp_isa_supported(isa) && n <= SMALL_MAX; n++) {
      for (int in_place = 0; in_place < 2; in_place++) {
        param_init(&got, dtype, SMALL_MAX, n * 3 % 17); /* odd bytes too */
        memset(got.x + got.skew + n * got.size, 0, (SMALL_MAX - n) * got.size);
        got.n = n;
        run_at_once(&got, optim, mix, isa, in_place != 0);
        assert_params_same(&got, &want, optim);
      }
    }
  }
}

static void every_length_has_the_same_bits(void **state) {
  (void)state;
  for (size_t e = 0; e < EXPRESSIONS_LEN; e++) {
    struct esp_optim *optim = must_parse(expressions[e]);
    try_lengths(optim, ESP_DTYPE_F32, &mixes[e % MIXES_LEN]);
    try_lengths(optim, ESP_DTYPE_F64, &mixes[(e + 1) % MIXES_LEN]);
    esp_optim_unref(optim);
  }
}

static void try_cuts(const struct esp_optim *optim, enum esp_dtype dtype, enum esp_isa isa, const struct mix *mix,
                     uint64_t *seed) {
  param_init(&got, dtype, LARGE_LEN, esp_test_random(seed) % 64);
  for (uint64_t t = 1; t <= STEPS; t++) {
    const bool in_place = esp_test_random(seed) % 2 == 0;
    const uint64_t longest = esp_test_random(seed) % 2 == 0 ? 40 : 1500;
    for (size_t first = 0, n = 0; first < LARGE_LEN; first += n) {
      n = 1 + esp_test_random(seed) % longest;
      n = n < LARGE_LEN - first ? n : LARGE_LEN - first;
      step_range(&got, optim, t, isa, mix, in_place, first, n);
    }
    end_step(&got, in_place);
  }
  assert_params_same(&got, &want, optim);
}

static void every_cut_has_the_same_bits(void **state) {
  (void)state;
  uint64_t seed = 7;
  for (size_t e = 0; e < EXPRESSIONS_LEN; e++) {
    struct esp_optim *optim = must_parse(expressions[e]);
    for (enum esp_dtype dtype = ESP_DTYPE_F32; dtype <= ESP_DTYPE_F64; dtype++) {
      const struct mix *mix = &mixes[(e + dtype) % MIXES_LEN];
      param_init(&want, dtype, LARGE_LEN, 0);
      run_by_element(&want, optim, mix);
      for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
        for (int round = 0; esp_isa_supported(isa) && round < 3; round++)
          try_cuts(optim, dtype, isa, mix, &seed);
      }
    }
    esp_optim_unref(optim);
  }
}

/* Every combination of gradients and factor, against its formula. */
static void sums_in_order_then_scales(void **state) {
  (void)state;
  const double grads[GRADS][2] = {{1e16, 0.1}, {1, 0.2}, {-1e16, 0.3}};
  const struct esp_grad grad_data[] = {{.data = grads[0]}, {.data = grads[1]}, {.data = grads[2]}};
  struct esp_optim *optim = must_parse("sgd(lr=1)");
  struct esp_step step;
  esp_optim_step_init(optim, 1, NULL, &step);
  for (size_t len = 1; len <= GRADS; len++) {
    for (double scale = 1; scale > 0.1; scale /= 3) {
      const double x[2] = {0.5, 0.25};
      double out[2] = {0};
      esp_optim_apply(optim, &step, ESP_ISA_SSE2, ESP_DTYPE_F64, 0, 2, grad_data, len, scale, x, out, NULL);
      for (size_t i = 0; i < 2; i++) {
        double sum = grads[0][i];
        for (size_t k = 1; k < len; k++)
          sum += grads[k][i];
        assert_true(out[i] == x[i] - sum * scale);
      }
    }
  }
  esp_optim_unref(optim);
}

/* No operation on -0 loses its sign where a factor is 1: x * 1 - u is x - u. */
static void keeps_signs_of_zero(void **state) {
  (void)state;
  struct esp_optim *optim = must_parse("sgd(lr=1, momentum=0.5)");
  struct esp_step step;
  esp_optim_step_init(optim, 1, NULL, &step);
  double x = -0.0, buffer = 123, gradient = -0.0; /* whatever is in the buffer, the first step does not read it */
  const struct esp_grad grads[] = {{.data = &gradient}};
  void *states[] = {&buffer};
  esp_optim_apply(optim, &step, ESP_ISA_SSE2, ESP_DTYPE_F64, 0, 1, grads, 1, 1, &x, &x, states);
  assert_true(buffer == 0 && signbit(buffer));
  assert_true(x == 0 && !signbit(x)); /* -0 - -0 */
  esp_optim_unref(optim);
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(every_length_has_the_same_bits), ESP_TEST(every_cut_has_the_same_bits),
                                     ESP_TEST(sums_in_order_then_scales), ESP_TEST(keeps_signs_of_zero)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
