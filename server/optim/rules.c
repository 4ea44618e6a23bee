/* The table of rules: names, hyperparameters, states, and the scalars of a step.
 *
 * Formulas are PyTorch's (2.x, the single-tensor form); docs/optimizers.md gives them with the order of evaluation.
 * Scalars are computed here in double, once a step; the kernels round each once to the element type. Nothing here
 * fails: the parser holds values to their domains and asks check(). */
#include "optim/rules.h"

#include <math.h>

enum { SGD_LR, SGD_MOMENTUM, SGD_DAMPENING, SGD_WEIGHT_DECAY, SGD_NESTEROV };
enum { ADAM_LR, ADAM_BETA1, ADAM_BETA2, ADAM_EPS, ADAM_WEIGHT_DECAY, ADAM_AMSGRAD };
enum { CLIP_MAX, CLIP_EPS };

static size_t sgd_states_len(const double *values) {
  return values[SGD_MOMENTUM] != 0 ? 1 : 0;
}

static const char *sgd_check(const double *values, size_t *ret_hyper) {
  if (values[SGD_NESTEROV] == 0 || (values[SGD_MOMENTUM] > 0 && values[SGD_DAMPENING] == 0))
    return NULL;
  *ret_hyper = SGD_NESTEROV;
  return "Nesterov momentum requires a momentum and zero dampening";
}

static void sgd_step(const double *values, const struct esp_rule_step *at) {
  at->scalars[ESP_SGD_LR] = values[SGD_LR];
  at->scalars[ESP_SGD_WEIGHT_DECAY] = values[SGD_WEIGHT_DECAY];
  at->scalars[ESP_SGD_MOMENTUM] = values[SGD_MOMENTUM];
  at->scalars[ESP_SGD_KEEP] = 1.0 - values[SGD_DAMPENING];
  at->scalars[ESP_SGD_NESTEROV] = values[SGD_NESTEROV];
  at->scalars[ESP_SGD_FIRST] = at->count == 1;
}

static size_t adam_states_len(const double *values) {
  return values[ADAM_AMSGRAD] != 0 ? 3 : 2;
}

static void adam_step(const double *values, const struct esp_rule_step *at) {
  const double t = (double)at->count;
  at->scalars[ESP_ADAM_WEIGHT_DECAY] = values[ADAM_WEIGHT_DECAY];
  at->scalars[ESP_ADAM_BETA1] = values[ADAM_BETA1];
  at->scalars[ESP_ADAM_BETA2] = values[ADAM_BETA2];
  at->scalars[ESP_ADAM_STEP_SIZE] = values[ADAM_LR] / (1.0 - pow(values[ADAM_BETA1], t));
  at->scalars[ESP_ADAM_BIAS_CORRECTION2_SQRT] = sqrt(1.0 - pow(values[ADAM_BETA2], t));
  at->scalars[ESP_ADAM_EPS] = values[ADAM_EPS];
  at->scalars[ESP_ADAM_AMSGRAD] = values[ADAM_AMSGRAD];
}

/* Adam's kernel without its coupled decay; the decoupled one goes into the scale of x. */
static void adamw_step(const double *values, const struct esp_rule_step *at) {
  adam_step(values, at);
  at->scalars[ESP_ADAM_WEIGHT_DECAY] = 0;
  *at->scale *= 1.0 - values[ADAM_LR] * values[ADAM_WEIGHT_DECAY];
}

static size_t clip_states_len(const double *values) {
  (void)values;
  return 0;
}

static void clip_value_step(const double *values, const struct esp_rule_step *at) {
  at->scalars[ESP_CLIP_VALUE_MAX] = values[CLIP_MAX];
}

/* min(1, max / (norm + eps)). Where the sum is no number or overflowed nothing of the gradient is left, as in PyTorch:
 * no other factor is sure to keep within max. */
static void clip_norm_step(const double *values, const struct esp_rule_step *at) {
  const double factor = values[CLIP_MAX] / (sqrt(at->squares) + values[CLIP_EPS]);
  at->scalars[ESP_CLIP_NORM_FACTOR] = !isfinite(at->squares) ? 0 : factor < 1 ? factor : 1;
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

#define CLIP_MAX_HYPER                                                                                                 \
  { "max", NAN, ESP_DOMAIN_POSITIVE }
/* The rules that clip by a norm differ in whose it is. */
#define CLIP_NORM_RULE(rule_name, wanted)                                                                              \
  {                                                                                                                    \
    .name = (rule_name), .hypers_len = 2,                                                                              \
    .hypers = {[CLIP_MAX] = CLIP_MAX_HYPER, [CLIP_EPS] = {"eps", 1e-6, ESP_DOMAIN_NONNEGATIVE}},                       \
    .states_len = clip_states_len, .step = clip_norm_step, .kernel = ESP_KERNEL_CLIP_NORM, .norm = (wanted),           \
  }

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
    {
        .name = "clip_value",
        .hypers_len = 1,
        .hypers = {[CLIP_MAX] = CLIP_MAX_HYPER},
        .states_len = clip_states_len,
        .step = clip_value_step,
        .kernel = ESP_KERNEL_CLIP_VALUE,
    },
    CLIP_NORM_RULE("clip_norm", ESP_NORM_PARAM),
    CLIP_NORM_RULE("clip_group_norm", ESP_NORM_GROUP),
    CLIP_NORM_RULE("clip_global_norm", ESP_NORM_GLOBAL),
};
const size_t esp_rules_len = sizeof esp_rules / sizeof esp_rules[0];
