/* A parsed chain: references, canonical text, names of states, the scalars of a step.
 *
 * parse.c makes the object in one allocation, which holds everything; it never changes after. Nothing here fails. */
#include "optim/optim.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "optim/number.h"
#include "optim/rules.h"

struct esp_optim *esp_optim_ref(struct esp_optim *optim) {
  atomic_fetch_add_explicit(&optim->refs, 1, memory_order_relaxed);
  return optim;
}

void esp_optim_unref(struct esp_optim *optim) {
  if (optim == NULL)
    return;
  if (atomic_fetch_sub_explicit(&optim->refs, 1, memory_order_acq_rel) == 1)
    esp_free(optim);
}

const char *esp_optim_print(const struct esp_optim *optim) {
  return optim->text;
}

size_t esp_optim_states_len(const struct esp_optim *optim) {
  return optim->states_len;
}

const char *esp_optim_state_name(const struct esp_optim *optim, size_t index) {
  ESP_CHECK(index < optim->states_len);
  return optim->state_names[index];
}

size_t esp_optim_state_find(const struct esp_optim *optim, const char *name) {
  for (size_t i = 0; i < optim->states_len; i++) {
    if (strcmp(optim->state_names[i], name) == 0)
      return i;
  }
  return SIZE_MAX;
}

unsigned esp_optim_norms(const struct esp_optim *optim) {
  unsigned wanted = 0;
  for (size_t i = 0; i < optim->members_len; i++)
    wanted |= optim->members[i].rule->norm;
  return wanted;
}

static double squares_of(const struct esp_norms *norms, unsigned wanted) {
  switch (wanted) {
  case ESP_NORM_PARAM:
    return norms->param;
  case ESP_NORM_GROUP:
    return norms->group;
  case ESP_NORM_GLOBAL:
    return norms->global;
  default:
    return 0;
  }
}

void esp_optim_step_init(const struct esp_optim *optim, uint64_t step, const struct esp_norms *norms,
                         struct esp_step *ret) {
  ESP_CHECK(step >= 1);
  ESP_CHECK(norms != NULL || esp_optim_norms(optim) == 0);
  memset(ret, 0, sizeof *ret);
  ret->scale = 1;
  for (size_t i = 0; i < optim->members_len; i++) {
    const struct esp_member *member = &optim->members[i];
    const struct esp_rule_step at = {
        .count = step,
        .squares = squares_of(norms, member->rule->norm),
        .scalars = ret->scalars[i],
        .scale = &ret->scale,
    };
    member->rule->step(member->values, &at);
  }
}

static size_t text_append(struct esp_optim *optim, size_t len, const char *piece) {
  const size_t piece_len = strlen(piece);
  ESP_CHECK(piece_len < sizeof optim->text - len); /* the longest chain fits: see rules.h */
  memcpy(optim->text + len, piece, piece_len + 1);
  return len + piece_len;
}

static size_t print_value(struct esp_optim *optim, size_t len, const struct esp_hyper *hyper, double value) {
  if (hyper->domain == ESP_DOMAIN_FLAG)
    return text_append(optim, len, value != 0 ? "true" : "false");
  char number[ESP_NUMBER_TEXT_MAX];
  esp_number_print(value, number);
  return text_append(optim, len, number);
}

static size_t print_member(struct esp_optim *optim, size_t len, const struct esp_member *member) {
  const char *separator = "(";
  len = text_append(optim, len, member->rule->name);
  for (size_t i = 0; i < member->rule->hypers_len; i++) {
    const struct esp_hyper *hyper = &member->rule->hypers[i];
    if (member->values[i] == hyper->value_default)
      continue;
    len = text_append(optim, len, separator);
    len = text_append(optim, len, hyper->name);
    len = text_append(optim, len, "=");
    len = print_value(optim, len, hyper, member->values[i]);
    separator = ", ";
  }
  return separator[0] == ',' ? text_append(optim, len, ")") : len;
}

static size_t member_states_len(const struct esp_member *member) {
  return member->rule->states_len(member->values);
}

/* Members of the chain that have a state of this name. */
static size_t state_owners(const struct esp_optim *optim, const char *name) {
  size_t owners = 0;
  for (size_t i = 0; i < optim->members_len; i++) {
    for (size_t k = 0; k < member_states_len(&optim->members[i]); k++)
      owners += strcmp(optim->members[i].rule->states[k], name) == 0;
  }
  return owners;
}

static void name_states(struct esp_optim *optim, size_t place) {
  const struct esp_member *member = &optim->members[place];
  for (size_t k = 0; k < member_states_len(member); k++) {
    const char *name = member->rule->states[k];
    char *out = optim->state_names[member->states_first + k];
    if (state_owners(optim, name) > 1)
      snprintf(out, ESP_STATE_NAME_BYTES_MAX, "%zu.%s", place, name);
    else
      snprintf(out, ESP_STATE_NAME_BYTES_MAX, "%s", name);
  }
}

void esp_optim_finish(struct esp_optim *optim) {
  size_t len = 0;
  for (size_t i = 0; i < optim->members_len; i++) {
    if (i > 0)
      len = text_append(optim, len, " | ");
    len = print_member(optim, len, &optim->members[i]);
    name_states(optim, i);
  }
}
