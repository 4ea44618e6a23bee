/* The parsed object: references, names of states, scalars of a step. */
#include <math.h>

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
    esp_optim_step_init(optim, t, &step);
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
  esp_optim_step_init(optim, UINT64_MAX, &step);
  assert_true(step.scale == 0.75 * 0.5);
  assert_true(step.scalars[0][ESP_ADAM_STEP_SIZE] == 0.5); /* the corrections have gone to 1 */
  esp_optim_unref(optim);
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(names_states), ESP_TEST(is_counted), ESP_TEST(computes_the_scalars),
                                     ESP_TEST(multiplies_the_scales)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
