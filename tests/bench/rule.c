/* What rules make of one element, in float32 and to the last bit, as docs/optimizers.md defines it. The expression has
 * been or will be taken by a server, which refuses what is wrong with it; here is refused what can't be replayed. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/bench.h"

/* ---- expressions ---- */

static const struct rule defaults[] = {
    [RULE_SGD] = {.kind = RULE_SGD, .lr = 1e-3},
    [RULE_ADAM] = {.kind = RULE_ADAM, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .states = 2},
    [RULE_ADAMW] =
        {.kind = RULE_ADAMW, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01, .states = 2},
};

static double *hyperparameter(struct rule *rule, const char *name) {
  if (strcmp(name, "lr") == 0)
    return &rule->lr;
  if (rule->kind == RULE_SGD)
    return strcmp(name, "momentum") == 0 ? &rule->momentum : NULL;
  if (strcmp(name, "weight_decay") == 0)
    return rule->kind == RULE_ADAMW ? &rule->weight_decay : NULL;
  return strcmp(name, "beta1") == 0   ? &rule->beta1
         : strcmp(name, "beta2") == 0 ? &rule->beta2
         : strcmp(name, "eps") == 0   ? &rule->eps
                                      : NULL;
}

/* Without spaces. */
static void squeeze(const char *text, char *ret, size_t size) {
  size_t len = 0;
  for (; *text != '\0' && len + 1 < size; text++) {
    if (!isspace((unsigned char)*text))
      ret[len++] = *text;
  }
  ret[len] = '\0';
}

static _Noreturn void refuse(const char *expression) {
  bench_die(
      "the values that %s makes can't be checked: it is none of sgd(lr, momentum), adam(lr, beta1, beta2, eps) and "
      "adamw(lr, beta1, beta2, eps, weight_decay)",
      expression);
}

static void parse_hyperparameters(const char *expression, char *list, struct rule *ret) {
  char *save = NULL;
  for (char *item = strtok_r(list, ",", &save); item != NULL; item = strtok_r(NULL, ",", &save)) {
    char *value = strchr(item, '='), *end;
    if (value == NULL)
      refuse(expression);
    *value++ = '\0';
    double *place = hyperparameter(ret, item);
    if (place == NULL)
      refuse(expression);
    *place = strtod(value, &end);
    if (end == value || *end != '\0')
      refuse(expression);
  }
}

void rule_parse(const char *expression, struct rule *ret) {
  static const char *const names[] = {[RULE_SGD] = "sgd", [RULE_ADAM] = "adam", [RULE_ADAMW] = "adamw"};
  char text[512];
  squeeze(expression, text, sizeof(text));
  char *list = strchr(text, '('), *end = strrchr(text, ')');
  if ((list == NULL) != (end == NULL) || (end != NULL && end[1] != '\0'))
    refuse(expression);
  if (list != NULL)
    *list++ = *end = '\0';
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
    if (strcmp(text, names[i]) != 0)
      continue;
    *ret = defaults[i];
    if (list != NULL)
      parse_hyperparameters(expression, list, ret);
    if (ret->kind == RULE_SGD && ret->momentum != 0)
      ret->states = 1;
    return;
  }
  refuse(expression);
}

double rule_traffic(const struct rule *rule, double gradient_bytes, double value_bytes) {
  return gradient_bytes + 2 * value_bytes * (1 + (double)rule->states);
}

/* ---- steps ---- */

static float replay_sgd(const struct rule *rule, float x, float g, uint64_t steps) {
  float b = 0, lr = (float)rule->lr, momentum = (float)rule->momentum;
  for (uint64_t t = 1; t <= steps; t++) {
    b = t == 1 ? g : (momentum * b) + (1.0F * g);
    x = x - lr * (rule->momentum != 0 ? b : g);
  }
  return x;
}

static float replay_adam(const struct rule *rule, float x, float g, uint64_t steps) {
  float m = 0, v = 0, beta1 = (float)rule->beta1, beta2 = (float)rule->beta2, eps = (float)rule->eps;
  float rest1 = (float)(1 - rule->beta1), rest2 = (float)(1 - rule->beta2);
  float scale = (float)(1 - rule->lr * rule->weight_decay);
  for (uint64_t t = 1; t <= steps; t++) {
    float step_size = (float)(rule->lr / (1 - pow(rule->beta1, (double)t)));
    float correction = (float)sqrt(1 - pow(rule->beta2, (double)t));
    m = (beta1 * m) + (rest1 * g);
    v = (beta2 * v) + ((rest2 * g) * g);
    float u = (step_size * m) / ((sqrtf(v) / correction) + eps);
    x = rule->kind == RULE_ADAMW ? x * scale - u : x - u;
  }
  return x;
}

float rule_replay(const struct rule *rule, float value, float gradient, uint64_t steps) {
  return (rule->kind == RULE_SGD ? replay_sgd : replay_adam)(rule, value, gradient, steps);
}
