/* The table of rules and the parsed chain. Private to server/optim: optim.h is what others see. */
#ifndef ESP_OPTIM_RULES_H
#define ESP_OPTIM_RULES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "optim/hyper.h"
#include "optim/kernels.h"
#include "optim/optim.h"

#define ESP_RULE_HYPERS_MAX 6
#define ESP_RULE_STATES_MAX 3
#define ESP_STATE_NAME_BYTES_MAX 32

struct esp_hyper {
  const char *name; /* as in expressions */
  double
      value_default; /* where an expression does not give it; NaN: it has to. The first's name may be left out then */
  enum esp_domain domain; /* its bounds */
};

/* A rule's part of a step. */
struct esp_rule_step {
  uint64_t count;  /* the parameter's steps after this one */
  double squares;  /* the sum of squares that the rule wants; 0 where it wants none */
  double *scalars; /* filled: by an enum of kernels.h */
  double *scale;   /* multiplied by the rule's own */
};

struct esp_rule {
  const char *name;                             /* as in expressions */
  size_t hypers_len;                            /* of hypers */
  struct esp_hyper hypers[ESP_RULE_HYPERS_MAX]; /* in the order they are printed; `values` below goes by it */
  const char *states[ESP_RULE_STATES_MAX];      /* names; a rule uses the first states_len(values) */
  size_t (*states_len)(const double *values);   /* which may depend on the hyperparameters */
  /* What no bound of one hyperparameter can say: NULL, or a sentence and the index of the one to blame, which differs
   * from its default. */
  const char *(*check)(const double *values, size_t *ret_hyper);
  void (*step)(const double *values, const struct esp_rule_step *at);
  enum esp_kernel kernel; /* reads those scalars */
  unsigned norm;          /* the one that it wants: an enum esp_norms_wanted, or 0 */
};

extern const struct esp_rule esp_rules[];
extern const size_t esp_rules_len;

/* A rule's place in a chain. */
struct esp_member {
  const struct esp_rule *rule;        /* from esp_rules */
  double values[ESP_RULE_HYPERS_MAX]; /* by the rule's hypers */
  size_t states_first;                /* its first state among the chain's */
};

struct esp_optim {
  _Atomic uint64_t refs;
  size_t members_len; /* of members, at least 1 */
  struct esp_member members[ESP_OPTIM_RULES_MAX];
  size_t states_len;                                                /* of state_names */
  char state_names[ESP_OPTIM_STATES_MAX][ESP_STATE_NAME_BYTES_MAX]; /* unique, in table order */
  char text[ESP_OPTIM_TEXT_MAX + 1];                                /* canonical */
};

/* Names the states and prints the text of a chain whose members are complete; what cannot fail of parsing. */
void esp_optim_finish(struct esp_optim *optim);

/* The kernels of an instruction set, which the machine has to support. */
const struct esp_kernels_of *esp_kernels_get(enum esp_isa isa, enum esp_dtype dtype);
/* Those of bf16 or f16. */
const struct esp_kernels_half *esp_kernels_half_get(enum esp_isa isa, enum esp_dtype dtype);

#endif
