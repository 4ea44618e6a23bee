/* The table of rules: names, hyperparameters, states, and the scalars of a step.
 *
 * Formulas are PyTorch's (2.x, the single-tensor form); docs/optimizers.md gives them with the order of evaluation.
 * Scalars are computed here in double, once a step; the kernels round each once to the element type. Nothing here
 * fails: the parser holds values to their domains and asks check(). */
#include "optim/rules.h"

#include <math.h>

enum { SGD_LR, SGD_MOMENTUM, SGD_DAMPENING, SGD_WEIGHT_DECAY, SGD_NESTEROV };
enum { ADAM_LR, ADAM_BETA1, ADAM_BETA2, ADAM_EPS, ADAM_WEIGHT_DECAY, ADAM_AMSGRAD };

static size_t sgd_states_len(const double *values) {
  return values[SGD_MOMENTUM] != 0 ? 1 : 0;
}

static const char *sgd_check(const double *values, size_t *ret_hyper) {
  if (values[SGD_NESTEROV] == 0 || (values[SGD_MOMENTUM] > 0 && values[SGD_DAMPENING] == 0))
    return NULL;
  *ret_hyper = SGD_NESTEROV;
  return "Nesterov momentum requires a momentum and zero dampening";
}

static void sgd_step(const double *values, uint64_t step, double *scalars, double *scale) {
  (void)scale;
  scalars[ESP_SGD_LR] = values[SGD_LR];
  scalars[ESP_SGD_WEIGHT_DECAY] = values[SGD_WEIGHT_DECAY];
  scalars[ESP_SGD_MOMENTUM] = values[SGD_MOMENTUM];
  scalars[ESP_SGD_KEEP] = 1.0 - values[SGD_DAMPENING];
  scalars[ESP_SGD_NESTEROV] = values[SGD_NESTEROV];
  scalars[ESP_SGD_FIRST] = step == 1;
}

static size_t adam_states_len(const double *values) {
  return values[ADAM_AMSGRAD] != 0 ? 3 : 2;
}

static void adam_step(const double *values, uint64_t step, double *scalars, double *scale) {
  (void)scale;
  const double t = (double)step;
  scalars[ESP_ADAM_WEIGHT_DECAY] = values[ADAM_WEIGHT_DECAY];
  scalars[ESP_ADAM_BETA1] = values[ADAM_BETA1];
  scalars[ESP_ADAM_BETA2] = values[ADAM_BETA2];
  scalars[ESP_ADAM_STEP_SIZE] = values[ADAM_LR] / (1.0 - pow(values[ADAM_BETA1], t));
  scalars[ESP_ADAM_BIAS_CORRECTION2_SQRT] = sqrt(1.0 - pow(values[ADAM_BETA2], t));
  scalars[ESP_ADAM_EPS] = values[ADAM_EPS];
  scalars[ESP_ADAM_AMSGRAD] = values[ADAM_AMSGRAD];
}

/* Adam's kernel without its coupled decay; the decoupled one goes into the scale of x. */
static void adamw_step(const double *values, uint64_t step, double *scalars, double *scale) {
  adam_step(values, step, scalars, scale);
  scalars[ESP_ADAM_WEIGHT_DECAY] = 0;
  *scale *= 1.0 - values[ADAM_LR] * values[ADAM_WEIGHT_DECAY];
}

/* Adam's and AdamW's hyperparameters are the same but for the default of weight_decay. */
#define ADAM_HYPERS(weight_decay_default)                                                                              \
  {                                                                                                                    \
    [ADAM_LR] = {"lr", 1e-3, ESP_DOMAIN_NONNEGATIVE}, [ADAM_BETA1] = {"beta1", 0.9, ESP_DOMAIN_FRACTION},              \
    [ADAM_BETA2] = {"beta2", 0.999, ESP_DOMAIN_FRACTION}, [ADAM_EPS] = {"eps", 1e-8, ESP_DOMAIN_NONNEGATIVE},          \
    [ADAM_WEIGHT_DECAY] = {"weight_decay", weight_decay_default, ESP_DOMAIN_NONNEGATIVE},                              \
    [ADAM_AMSGRAD] = {"amsgrad", 0, ESP_DOMAIN_FLAG},                                                                  \
  }
#define ADAM_STATES                                                                                                    \
  { "exp_avg", "exp_avg_sq", "max_exp_avg_sq" }

const struct esp_rule esp_rules[] = {
    {
        .name = "sgd",
        .hypers_len = 5,
        .hypers =
            {
                [SGD_LR] = {"lr", 1e-3, ESP_DOMAIN_NONNEGATIVE},
                [SGD_MOMENTUM] = {"momentum", 0, ESP_DOMAIN_NONNEGATIVE},
                [SGD_DAMPENING] = {"dampening", 0, ESP_DOMAIN_ANY},
                [SGD_WEIGHT_DECAY] = {"weight_decay", 0, ESP_DOMAIN_NONNEGATIVE},
                [SGD_NESTEROV] = {"nesterov", 0, ESP_DOMAIN_FLAG},
            },
        .states = {"momentum_buffer"},
        .states_len = sgd_states_len,
        .check = sgd_check,
        .step = sgd_step,
        .kernel = ESP_KERNEL_SGD,
    },
    {
        .name = "adam",
        .hypers_len = 6,
        .hypers = ADAM_HYPERS(0),
        .states = ADAM_STATES,
        .states_len = adam_states_len,
        .step = adam_step,
        .kernel = ESP_KERNEL_ADAM,
    },
    {
        .name = "adamw",
        .hypers_len = 6,
        .hypers = ADAM_HYPERS(0.01),
        .states = ADAM_STATES,
        .states_len = adam_states_len,
        .step = adamw_step,
        .kernel = ESP_KERNEL_ADAM,
    },
};
const size_t esp_rules_len = sizeof esp_rules / sizeof esp_rules[0];
