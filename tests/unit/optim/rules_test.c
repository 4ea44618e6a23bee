/* The rules' numbers: to the last bit against Python's, within tolerance against PyTorch's and others' own. */
#include <math.h>

#include "fixture.h"
#include "tests/vectors/optim_vectors.h"

#define STATES_MAX 6

static void assert_bits(const char *what, const char *expression, enum esp_isa isa, int step, const void *got,
                        const void *want, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) {
    if (((const unsigned char *)got)[i] != ((const unsigned char *)want)[i])
      fail_msg("%s, %s, step %d: %s differs at byte %zu", expression, esp_isa_name(isa), step, what, i);
  }
}

/* Of the parameter alone, with what other parameters are taken to add. */
static struct esp_norms norms_of(enum esp_isa isa, enum esp_dtype dtype, size_t n, const struct esp_grad *gradient,
                                 double group, double global) {
  const double squares = esp_optim_squares(isa, dtype, 0, n, gradient, 1, 1);
  return (struct esp_norms){.param = squares, .group = squares + group, .global = squares + global};
}

static void run_f64(const struct vector_f64 *vector, enum esp_isa isa) {
  struct esp_optim *optim = must_parse(vector->expression);
  double x[VECTOR_LEN], states[STATES_MAX][VECTOR_LEN] = {{0}};
  void *const state_data[STATES_MAX] = {states[0], states[1], states[2], states[3], states[4], states[5]};
  memcpy(x, vector_x0, sizeof x);
  assert_int_equal(esp_optim_states_len(optim), vector->states_len);
  for (int t = 1, kept = 0; t <= VECTOR_STEPS; t++) {
    struct esp_step step;
    const struct esp_grad grads[] = {{.data = vector_grads[t - 1]}};
    const struct esp_norms norms =
        norms_of(isa, ESP_DTYPE_F64, VECTOR_LEN, grads, vector_others_group, vector_others_global);
    esp_optim_step_init(optim, (uint64_t)t, &norms, &step);
    esp_optim_apply(optim, &step, isa, ESP_DTYPE_F64, 0, VECTOR_LEN, grads, 1, 1, x, x, state_data);
    if (t == vector_kept[kept])
      assert_bits("x", vector->expression, isa, t, x, vector->x[kept++], sizeof x);
  }
  for (size_t k = 0; k < vector->states_len; k++)
    assert_bits(esp_optim_state_name(optim, k), vector->expression, isa, VECTOR_STEPS, states[k], vector->states[k],
                sizeof x);
  esp_optim_unref(optim);
}

static void run_f32(const struct vector_f32 *vector, enum esp_isa isa) {
  struct esp_optim *optim = must_parse(vector->expression);
  float x[VECTOR_LEN], gradient[VECTOR_LEN], states[STATES_MAX][VECTOR_LEN] = {{0}};
  void *const state_data[STATES_MAX] = {states[0], states[1], states[2], states[3], states[4], states[5]};
  for (size_t i = 0; i < VECTOR_LEN; i++)
    x[i] = (float)vector_x0[i];
  for (int t = 1, kept = 0; t <= VECTOR_STEPS; t++) {
    struct esp_step step;
    for (size_t i = 0; i < VECTOR_LEN; i++)
      gradient[i] = (float)vector_grads[t - 1][i];
    const struct esp_grad grads[] = {{.data = gradient}};
    const struct esp_norms norms =
        norms_of(isa, ESP_DTYPE_F32, VECTOR_LEN, grads, vector_others_group, vector_others_global);
    esp_optim_step_init(optim, (uint64_t)t, &norms, &step);
    esp_optim_apply(optim, &step, isa, ESP_DTYPE_F32, 0, VECTOR_LEN, grads, 1, 1, x, x, state_data);
    if (t == vector_kept[kept])
      assert_bits("x", vector->expression, isa, t, x, vector->x[kept++], sizeof x);
  }
  for (size_t k = 0; k < vector->states_len; k++)
    assert_bits(esp_optim_state_name(optim, k), vector->expression, isa, VECTOR_STEPS, states[k], vector->states[k],
                sizeof x);
  esp_optim_unref(optim);
}

static void equals_python_in_f64(void **state) {
  (void)state;
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    for (size_t i = 0; esp_isa_supported(isa) && i < sizeof vectors_f64 / sizeof *vectors_f64; i++)
      run_f64(&vectors_f64[i], isa);
  }
}

static void equals_python_in_f32(void **state) {
  (void)state;
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    for (size_t i = 0; esp_isa_supported(isa) && i < sizeof vectors_f32 / sizeof *vectors_f32; i++)
      run_f32(&vectors_f32[i], isa);
  }
}

static void assert_close(const struct torch_case *test, const char *what, size_t step, double got, double want,
                         double tol) {
  if (!(fabs(got - want) <= tol * (1 + fabs(want))))
    fail_msg("%s, step %zu: %s is %.9g, theirs is %.9g", test->id, step, what, got, want);
}

static void follow_torch_f64(const struct torch_case *test) {
  struct esp_optim *optim = must_parse(test->expression);
  double x[TORCH_LEN_MAX], states[3][TORCH_LEN_MAX] = {{0}};
  void *const state_data[] = {states[0], states[1], states[2]};
  memcpy(x, test->x0, sizeof x);
  for (size_t t = 1; t <= test->steps_len; t++) {
    struct esp_step step;
    const struct esp_grad grads[] = {{.data = test->grads[t - 1]}};
    const struct esp_norms norms = norms_of(ESP_ISA_SSE2, ESP_DTYPE_F64, test->n, grads, 0, 0);
    esp_optim_step_init(optim, t, &norms, &step);
    esp_optim_apply(optim, &step, ESP_ISA_SSE2, ESP_DTYPE_F64, 0, test->n, grads, 1, 1, x, x, state_data);
    for (size_t i = 0; i < test->n; i++)
      assert_close(test, "x", t, x[i], test->xs[t - 1][i], test->tol);
  }
  for (size_t k = 0; k < test->states_len; k++) {
    assert_string_equal(esp_optim_state_name(optim, k), test->states[k].name);
    for (size_t i = 0; i < test->n; i++)
      assert_close(test, test->states[k].name, test->steps_len, states[k][i], test->states[k].values[i], test->tol);
  }
  esp_optim_unref(optim);
}

static void follow_torch_f32(const struct torch_case *test) {
  struct esp_optim *optim = must_parse(test->expression);
  float x[TORCH_LEN_MAX], gradient[TORCH_LEN_MAX], states[3][TORCH_LEN_MAX] = {{0}};
  void *const state_data[] = {states[0], states[1], states[2]};
  for (size_t i = 0; i < test->n; i++)
    x[i] = (float)test->x0[i];
  for (size_t t = 1; t <= test->steps_len; t++) {
    struct esp_step step;
    for (size_t i = 0; i < test->n; i++)
      gradient[i] = (float)test->grads[t - 1][i];
    const struct esp_grad grads[] = {{.data = gradient}};
    const struct esp_norms norms = norms_of(ESP_ISA_SSE2, ESP_DTYPE_F32, test->n, grads, 0, 0);
    esp_optim_step_init(optim, t, &norms, &step);
    esp_optim_apply(optim, &step, ESP_ISA_SSE2, ESP_DTYPE_F32, 0, test->n, grads, 1, 1, x, x, state_data);
    for (size_t i = 0; i < test->n; i++)
      assert_close(test, "x", t, x[i], test->xs[t - 1][i], test->tol);
  }
  for (size_t k = 0; k < test->states_len; k++) {
    assert_string_equal(esp_optim_state_name(optim, k), test->states[k].name);
    for (size_t i = 0; i < test->n; i++) /* what the catalogue allows for states */
      assert_close(test, test->states[k].name, test->steps_len, states[k][i], test->states[k].values[i],
                   fmax(test->tol, 1e-5));
  }
  esp_optim_unref(optim);
}

static void follows_torch(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof torch_cases / sizeof *torch_cases; i++) {
    if (torch_cases[i].is_f32)
      follow_torch_f32(&torch_cases[i]);
    else
      follow_torch_f64(&torch_cases[i]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(equals_python_in_f64), ESP_TEST(equals_python_in_f32),
                                     ESP_TEST(follows_torch)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
