/* Other hyperparameters for a chain.
 *
 * Each change is resolved to one hyperparameter of one member and its value read; then the members are held against
 * what only whole ones show, and the copy gets its text and the names of its states. One allocation. Fails with a
 * sentence that names the hyperparameter; the chain itself never changes. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "optim/optim.h"
#include "optim/rules.h"

#define SHOWN_BYTES_MAX 48    /* of a wrong name or value that a message repeats */
#define LISTED_BYTES_MAX 1536 /* of the names that a message lists */

/* A hyperparameter of a chain. */
struct place {
  size_t member;
  size_t hyper;
};

/* What a name asks for: `lr`, `adamw.lr`, `1.lr`. */
struct wanted {
  const char *member; /* a rule or a place, not NUL-terminated; NULL: any */
  size_t member_len;
  const char *hyper;
};

static struct wanted wanted_of(const char *name) {
  const char *dot = strrchr(name, '.');
  if (dot == NULL)
    return (struct wanted){.hyper = name};
  return (struct wanted){.member = name, .member_len = (size_t)(dot - name), .hyper = dot + 1};
}

static bool is_text(const char *text, size_t len, const char *want) {
  return strlen(want) == len && memcmp(text, want, len) == 0;
}

static bool member_is(const struct esp_optim *optim, size_t member, const struct wanted *wanted) {
  char place[24];
  snprintf(place, sizeof place, "%zu", member);
  return wanted->member == NULL || is_text(wanted->member, wanted->member_len, place) ||
         is_text(wanted->member, wanted->member_len, optim->members[member].rule->name);
}

/* The hyperparameters that answer to a name: their number, and the first of them. */
static size_t find(const struct esp_optim *optim, const struct wanted *wanted, struct place *ret) {
  size_t count = 0;
  for (size_t i = 0; i < optim->members_len; i++) {
    const struct esp_rule *rule = optim->members[i].rule;
    for (size_t k = 0; k < rule->hypers_len && member_is(optim, i, wanted); k++) {
      if (strcmp(rule->hypers[k].name, wanted->hyper) != 0)
        continue;
      if (count++ == 0)
        *ret = (struct place){.member = i, .hyper = k};
    }
  }
  return count;
}

/* The shortest name that is one hyperparameter's alone. */
static void name_place(const struct esp_optim *optim, struct place place, char *out, size_t size) {
  const struct esp_rule *rule = optim->members[place.member].rule;
  struct place first;
  snprintf(out, size, "%s", rule->hypers[place.hyper].name);
  const struct wanted plain = wanted_of(out);
  if (find(optim, &plain, &first) == 1)
    return;
  snprintf(out, size, "%s.%s", rule->name, rule->hypers[place.hyper].name);
  const struct wanted of_rule = wanted_of(out);
  if (find(optim, &of_rule, &first) == 1)
    return;
  snprintf(out, size, "%zu.%s", place.member, rule->hypers[place.hyper].name);
}

/* The names of a chain's hyperparameters: of all, or of those that answer to `wanted`. */
static void list(const struct esp_optim *optim, const struct wanted *wanted, char out[LISTED_BYTES_MAX]) {
  size_t len = 0;
  out[0] = '\0';
  for (size_t i = 0; i < optim->members_len; i++) {
    const struct esp_rule *rule = optim->members[i].rule;
    for (size_t k = 0; k < rule->hypers_len && len < LISTED_BYTES_MAX; k++) {
      if (wanted != NULL && (!member_is(optim, i, wanted) || strcmp(rule->hypers[k].name, wanted->hyper) != 0))
        continue;
      char name[64];
      name_place(optim, (struct place){.member = i, .hyper = k}, name, sizeof name);
      len += (size_t)snprintf(out + len, LISTED_BYTES_MAX - len, "%s%s", len > 0 ? ", " : "", name);
    }
  }
}

static enum esp_code resolve(const struct esp_optim *optim, const char *name, struct place *ret,
                             struct esp_status *st) {
  char names[LISTED_BYTES_MAX];
  const struct wanted wanted = wanted_of(name);
  switch (find(optim, &wanted, ret)) {
  case 0:
    list(optim, NULL, names);
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%s has no hyperparameter '%.*s'; known are: %s",
                    optim->members_len == 1 ? optim->members[0].rule->name : "the chain", SHOWN_BYTES_MAX, name, names);
  case 1:
    return ESP_OK;
  default:
    list(optim, &wanted, names);
    return esp_fail(st, ESP_INVALID_ARGUMENT, "'%.*s' is in several rules of the chain; name one of: %s",
                    SHOWN_BYTES_MAX, name, names);
  }
}

static bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_schedule(const char *text, size_t len) {
  return memchr(text, '(', len) != NULL && ((text[0] >= 'a' && text[0] <= 'z') || (text[0] >= 'A' && text[0] <= 'Z'));
}

static enum esp_code read_value(const struct esp_hyper *hyper, const struct esp_hyper_change *change, double *ret,
                                struct esp_status *st) {
  const char *text = change->value;
  while (is_space(*text))
    text++;
  size_t len = strlen(text);
  while (len > 0 && is_space(text[len - 1]))
    len--;
  const int shown = (int)(len < SHOWN_BYTES_MAX ? len : SHOWN_BYTES_MAX);
  if (is_schedule(text, len))
    return esp_fail(st, ESP_UNIMPLEMENTED, "%s=%.*s: schedules are not implemented yet; give %s", change->name, shown,
                    text, esp_domain_text(hyper->domain));
  if (!esp_domain_read(hyper->domain, text, len, ret))
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%s must be %s, got '%.*s'", change->name, esp_domain_text(hyper->domain),
                    shown, text);
  return ESP_OK;
}

static enum esp_code change_all(struct esp_optim *next, const struct esp_hyper_change *changes, size_t len,
                                struct esp_status *st) {
  const char *given[ESP_OPTIM_RULES_MAX][ESP_RULE_HYPERS_MAX] = {{NULL}}; /* the name that it was given by */
  for (size_t i = 0; i < len; i++) {
    struct place at = {0};
    enum esp_code code = resolve(next, changes[i].name, &at, st);
    if (code != ESP_OK)
      return code;
    struct esp_member *member = &next->members[at.member];
    if (given[at.member][at.hyper] != NULL)
      return esp_fail(st, ESP_INVALID_ARGUMENT, "%s is given twice, first as %s", changes[i].name,
                      given[at.member][at.hyper]);
    given[at.member][at.hyper] = changes[i].name;
    code = read_value(&member->rule->hypers[at.hyper], &changes[i], &member->values[at.hyper], st);
    if (code != ESP_OK)
      return code;
  }
  return ESP_OK;
}

/* What only whole rules show, as the parser has it; and the places of their states. */
static enum esp_code check_all(struct esp_optim *next, struct esp_status *st) {
  for (size_t i = 0; i < next->members_len; i++) {
    struct esp_member *member = &next->members[i];
    size_t culprit = 0;
    const char *sentence = member->rule->check != NULL ? member->rule->check(member->values, &culprit) : NULL;
    if (sentence != NULL) {
      char name[64];
      name_place(next, (struct place){.member = i, .hyper = culprit}, name, sizeof name);
      return esp_fail(st, ESP_INVALID_ARGUMENT, "%s: %s", name, sentence);
    }
    member->states_first = next->states_len;
    next->states_len += member->rule->states_len(member->values);
  }
  if (next->states_len > ESP_OPTIM_STATES_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "with these values the chain has more than %d state tensors",
                    ESP_OPTIM_STATES_MAX);
  return ESP_OK;
}

enum esp_code esp_optim_adjust(const struct esp_optim *optim, const struct esp_hyper_change *changes, size_t len,
                               struct esp_optim **ret, struct esp_status *st) {
  struct esp_optim *next = esp_calloc(1, sizeof *next);
  if (next == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for an optimizer expression");
  atomic_init(&next->refs, 1);
  next->members_len = optim->members_len;
  memcpy(next->members, optim->members, sizeof next->members);
  enum esp_code code = change_all(next, changes, len, st);
  if (code == ESP_OK)
    code = check_all(next, st);
  if (code != ESP_OK) {
    esp_optim_unref(next);
    return code;
  }
  esp_optim_finish(next);
  *ret = next;
  return ESP_OK;
}
