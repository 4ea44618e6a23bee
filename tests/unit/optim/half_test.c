/* Gradients that arrive in 16 bits: a step and a norm have the bits that those of the widened gradients have, whatever
 * is summed, turned, multiplied and cut, on every instruction set. */
#include "fixture.h"

#define GRADS 3
#define ELEMENTS_MAX 6000

static const struct {
  uint64_t rows, cols;
} shapes[] = {{1, 1}, {2, 3}, {17, 5}, {16, 300}, {300, 16}, {1, 4500}, {77, 77}};

static const enum esp_dtype dtypes[] = {ESP_DTYPE_F32, ESP_DTYPE_BF16, ESP_DTYPE_F16};

/* Each gradient in each dtype (with an odd beginning) and, in the same order, its floats. */
static char arrived[GRADS][3][ELEMENTS_MAX * sizeof(float) + 1];
static float widened[GRADS][3][ELEMENTS_MAX];

static void make_gradients(void) {
  uint64_t seed = 5, index;
  for (size_t g = 0; g < GRADS; g++) {
    for (size_t i = 0; i < ELEMENTS_MAX; i++)
      widened[g][0][i] = (float)(next_unit(&seed) - 0.5) * (i % 7 == 0 ? 1e-6F : 1);
    memcpy(arrived[g][0] + 1, widened[g][0], sizeof widened[g][0]);
    for (size_t d = 1; d < 3; d++) {
      assert_true(
          esp_narrow(ESP_ISA_SSE2, dtypes[d], 1, ELEMENTS_MAX, widened[g][0], false, arrived[g][d] + 1, &index));
      esp_widen(ESP_ISA_SSE2, dtypes[d], ELEMENTS_MAX, arrived[g][d] + 1, widened[g][d]);
    }
  }
}

/* A combination says each gradient's dtype, and which are transposed. */
#define COMBINATIONS (27U * 8U)

static void list_gradients(unsigned combination, uint64_t rows, uint64_t cols, struct esp_grad narrow[GRADS],
                           struct esp_grad wide[GRADS]) {
  const unsigned kinds[GRADS] = {combination % 3, combination / 3 % 3, combination / 9 % 3};
  for (size_t g = 0; g < GRADS; g++) {
    const bool transposed = combination / 27 >> g & 1;
    narrow[g] = (struct esp_grad){.data = arrived[g][kinds[g]] + 1,
                                  .transposed = transposed,
                                  .rows = rows,
                                  .cols = cols,
                                  .dtype = dtypes[kinds[g]]};
    wide[g] = (struct esp_grad){.data = widened[g][kinds[g]], .transposed = transposed, .rows = rows, .cols = cols};
  }
}

struct result {
  float x[ELEMENTS_MAX], exp_avg[ELEMENTS_MAX], exp_avg_sq[ELEMENTS_MAX];
};

static void step(const struct esp_optim *optim, enum esp_isa isa, size_t n, size_t cut, const struct esp_grad *grads,
                 size_t grads_len, double scale, struct result *ret) {
  struct esp_step at;
  for (size_t i = 0; i < n; i++) {
    ret->x[i] = (float)i / 7;
    ret->exp_avg[i] = (float)i / 1000;
    ret->exp_avg_sq[i] = (float)i / 100;
  }
  void *states[] = {ret->exp_avg, ret->exp_avg_sq};
  esp_optim_step_init(optim, 3, NULL, &at);
  for (size_t first = 0; first < n; first += cut)
    esp_optim_apply(optim, &at, isa, ESP_DTYPE_F32, first, n - first < cut ? n - first : cut, grads, grads_len, scale,
                    ret->x, ret->x, states);
}

static void steps_as_if_widened(void **state) {
  (void)state;
  static struct result expected, got;
  struct esp_optim *optim = must_parse("adam(lr=0.01)");
  make_gradients();
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    for (unsigned i = 0; esp_isa_supported(isa) && i < COMBINATIONS * 7; i++) {
      const uint64_t rows = shapes[i % 7].rows, cols = shapes[i % 7].cols;
      const size_t n = (size_t)(rows * cols), grads_len = 1 + i % GRADS, cut = i % 2 == 0 ? n : n / 3 + 1;
      struct esp_grad narrow[GRADS], wide[GRADS];
      list_gradients(i / 7, rows, cols, narrow, wide);
      memset(&expected, 0, sizeof expected);
      memset(&got, 0, sizeof got);
      step(optim, ESP_ISA_SSE2, n, n, wide, grads_len, i % 5 == 0 ? 0.5 : 1, &expected);
      step(optim, isa, n, cut, narrow, grads_len, i % 5 == 0 ? 0.5 : 1, &got);
      assert_memory_equal(&got, &expected, sizeof got);
    }
  }
  esp_optim_unref(optim);
}

static void measures_as_if_widened(void **state) {
  (void)state;
  make_gradients();
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    for (unsigned i = 0; esp_isa_supported(isa) && i < COMBINATIONS * 7; i++) {
      const uint64_t rows = shapes[i % 7].rows, cols = shapes[i % 7].cols;
      const size_t grads_len = 1 + i % GRADS;
      struct esp_grad narrow[GRADS], wide[GRADS];
      list_gradients(i / 7, rows, cols, narrow, wide);
      const double expected =
          esp_optim_squares(ESP_ISA_SSE2, ESP_DTYPE_F32, 0, (size_t)(rows * cols), wide, grads_len, 1);
      const double got = esp_optim_squares(isa, ESP_DTYPE_F32, 0, (size_t)(rows * cols), narrow, grads_len, 1);
      assert_memory_equal(&got, &expected, sizeof got);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(steps_as_if_widened), ESP_TEST(measures_as_if_widened)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
