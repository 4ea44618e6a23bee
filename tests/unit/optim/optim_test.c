/* The parsed object: references, names of states, scalars of a step. */
#include <math.h>
#include <stdio.h>

#include "fixture.h"
#include "optim/rules.h"

static void assert_states(const char *expression, const char *const *names, size_t len) {
  struct esp_optim *optim = must_parse(expression);
  assert_int_equal(esp_optim_states_len(optim), len);
  for (size_t i = 0; i < len; i++)
    assert_string_equal(esp_optim_state_name(optim, i), names[i]);
  esp_optim_unref(optim);
}
#define ASSERT_STATES(expression, ...)                                                                                 \
  assert_states(expression, (const char *const[]){__VA_ARGS__},                                                        \
                sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static void names_states(void **state) {
  (void)state;
  assert_states("sgd", NULL, 0);
  assert_states("sgd | sgd(dampening=1)", NULL, 0);
  ASSERT_STATES("sgd(momentum=0.9)", "momentum_buffer");
  ASSERT_STATES("adam", "exp_avg", "exp_avg_sq");
  ASSERT_STATES("adamw", "exp_avg", "exp_avg_sq");
  ASSERT_STATES("adam(amsgrad=true)", "exp_avg", "exp_avg_sq", "max_exp_avg_sq");
  ASSERT_STATES("sgd | adam", "exp_avg", "exp_avg_sq");
  ASSERT_STATES("sgd(momentum=1) | adam", "momentum_buffer", "exp_avg", "exp_avg_sq");
  ASSERT_STATES("sgd(momentum=1) | sgd | sgd(momentum=0.5)", "0.momentum_buffer", "2.momentum_buffer");
  ASSERT_STATES("adam | adamw(amsgrad=1)", "0.exp_avg", "0.exp_avg_sq", "1.exp_avg", "1.exp_avg_sq", "max_exp_avg_sq");
}

static void is_counted(void **state) {
  (void)state;
  const size_t before = esp_alloc_live();
  struct esp_optim *optim = must_parse("sgd");
  assert_ptr_equal(esp_optim_ref(optim), optim);
  esp_optim_unref(optim);
  assert_string_equal(esp_optim_print(optim), "sgd");
  esp_optim_unref(optim);
  assert_int_equal(esp_alloc_live(), before);
  esp_optim_unref(NULL);
}

static void computes_the_scalars(void **state) {
  (void)state;
  struct esp_optim *optim = must_parse("sgd(lr=0.5, momentum=0.9, dampening=0.25, weight_decay=0.125) | adam(lr=0.5, "
                                       "beta1=0.5, weight_decay=0.25) | adamw(lr=0.5, weight_decay=0.25)");
  for (uint64_t t = 1; t < 4; t++) {
    struct esp_step step;
    memset(&step, 0xff, sizeof step);
    esp_optim_step_init(optim, t, NULL, &step);
    const double *sgd = step.scalars[0], *adam = step.scalars[1], *adamw = step.scalars[2];
    assert_true(sgd[ESP_SGD_LR] == 0.5 && sgd[ESP_SGD_MOMENTUM] == 0.9 && sgd[ESP_SGD_KEEP] == 0.75);
    assert_true(sgd[ESP_SGD_WEIGHT_DECAY] == 0.125 && sgd[ESP_SGD_NESTEROV] == 0 && sgd[ESP_SGD_FIRST] == (t == 1));
    assert_true(adam[ESP_ADAM_STEP_SIZE] == 0.5 / (1 - pow(0.5, (double)t)));
    assert_true(adam[ESP_ADAM_BIAS_CORRECTION2_SQRT] == sqrt(1 - pow(0.999, (double)t)));
    assert_true(adam[ESP_ADAM_WEIGHT_DECAY] == 0.25 && adamw[ESP_ADAM_WEIGHT_DECAY] == 0);
    assert_true(step.scale == 1 - 0.5 * 0.25);
    for (size_t i = 3; i < ESP_OPTIM_RULES_MAX; i++)
      assert_true(step.scalars[i][0] == 0); /* what a journal writes is all defined */
  }
  esp_optim_unref(optim);
}

static void multiplies_the_scales(void **state) {
  (void)state;
  struct esp_step step;
  struct esp_optim *optim = must_parse("adamw(lr=0.5, weight_decay=0.5) | sgd | adamw(lr=0.5, weight_decay=1)");
  esp_optim_step_init(optim, UINT64_MAX, NULL, &step);
  assert_true(step.scale == 0.75 * 0.5);
  assert_true(step.scalars[0][ESP_ADAM_STEP_SIZE] == 0.5); /* the corrections have gone to 1 */
  esp_optim_unref(optim);
}

static void finds_states(void **state) {
  (void)state;
  struct esp_optim *optim = must_parse("sgd(momentum=1) | adam | sgd(momentum=0.5)");
  assert_int_equal(esp_optim_state_find(optim, "0.momentum_buffer"), 0);
  assert_int_equal(esp_optim_state_find(optim, "exp_avg"), 1);
  assert_int_equal(esp_optim_state_find(optim, "exp_avg_sq"), 2);
  assert_int_equal(esp_optim_state_find(optim, "2.momentum_buffer"), 3);
  assert_true(esp_optim_state_find(optim, "momentum_buffer") == SIZE_MAX);
  assert_true(esp_optim_state_find(optim, "exp_av") == SIZE_MAX);
  assert_true(esp_optim_state_find(optim, "") == SIZE_MAX);
  esp_optim_unref(optim);
}

static double factor_of(const char *expression, double squares) {
  struct esp_optim *optim = must_parse(expression);
  const unsigned wanted = esp_optim_norms(optim);
  const struct esp_norms norms = {
      .param = wanted == ESP_NORM_PARAM ? squares : NAN, /* the others are not looked at */
      .group = wanted == ESP_NORM_GROUP ? squares : NAN,
      .global = wanted == ESP_NORM_GLOBAL ? squares : NAN,
  };
  struct esp_step step;
  esp_optim_step_init(optim, 1, &norms, &step);
  esp_optim_unref(optim);
  return step.scalars[0][ESP_CLIP_NORM_FACTOR];
}

static unsigned norms_wanted(const char *expression) {
  struct esp_optim *optim = must_parse(expression);
  const unsigned wanted = esp_optim_norms(optim);
  esp_optim_unref(optim);
  return wanted;
}

static void wants_the_norm_in_its_name(void **state) {
  (void)state;
  assert_int_equal(norms_wanted("clip_value(1) | adamw | sgd"), 0);
  assert_int_equal(norms_wanted("clip_norm(1)"), ESP_NORM_PARAM);
  assert_int_equal(norms_wanted("clip_group_norm(1) | adam"), ESP_NORM_GROUP);
  assert_int_equal(norms_wanted("clip_global_norm(1) | adam"), ESP_NORM_GLOBAL);
}

/* PyTorch's coefficient, min(1, max / (norm + eps)). */
static void clips_by_a_factor(void **state) {
  (void)state;
  static const char *const rules[] = {"clip_norm", "clip_group_norm", "clip_global_norm"};
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
    char expression[64];
    snprintf(expression, sizeof expression, "%s(max=2)", rules[i]);
    assert_true(factor_of(expression, 25) == 2 / (5 + 1e-6));
    assert_true(factor_of(expression, 4) == 2 / (2 + 1e-6)); /* at the limit eps counts */
    assert_true(factor_of(expression, 3.9) == 1);
    assert_true(factor_of(expression, 0) == 1);
    snprintf(expression, sizeof expression, "%s(max=2, eps=0)", rules[i]);
    assert_true(factor_of(expression, 25) == 2 / 5.0);
    assert_true(factor_of(expression, 4) == 1);
    assert_true(factor_of(expression, 0) == 1);
    assert_true(factor_of(expression, 1e308) == 2 / sqrt(1e308));
    assert_true(factor_of(expression, INFINITY) == 0); /* the sum overflowed */
    assert_true(factor_of(expression, NAN) == 0);
  }
}

/* What a factor of 1 leaves as it was, and what an overflow leaves: a step on zeros, of the gradient's signs. */
static void clips_all_or_nothing(void **state) {
  (void)state;
  const double gradient[] = {-0.0, 5e-324, -1e200, 3, -4};
  const struct esp_grad grads[] = {{.data = gradient}};
  static const char *const texts[] = {"clip_norm(max=1e300, eps=0)", "clip_norm(max=1)"};
  for (int overflows = 0; overflows < 2; overflows++) {
    struct esp_optim *optim = must_parse(texts[overflows]);
    const struct esp_norms norms = {.param = overflows ? INFINITY : 1};
    double x[5] = {0};
    struct esp_step step;
    esp_optim_step_init(optim, 1, &norms, &step);
    esp_optim_apply(optim, &step, ESP_ISA_SSE2, ESP_DTYPE_F64, 0, 5, grads, 1, 1, x, x, NULL);
    for (size_t i = 0; i < 5; i++)
      assert_true(x[i] == (overflows ? 0 : 0 - gradient[i]));
    esp_optim_unref(optim);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(names_states),         ESP_TEST(is_counted),
                                     ESP_TEST(computes_the_scalars), ESP_TEST(multiplies_the_scales),
                                     ESP_TEST(finds_states),         ESP_TEST(wants_the_norm_in_its_name),
                                     ESP_TEST(clips_by_a_factor),    ESP_TEST(clips_all_or_nothing)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
