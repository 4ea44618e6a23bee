/* The parser of optimizer expressions.
 *
 *     expression     = rule { "|" rule }
 *     rule           = name [ "(" [ hyperparameter { "," hyperparameter } ] ")" ]
 *     hyperparameter = [ name "=" ] ( decimal | "true" | "false" )
 *
 * with spaces, tabs and line ends between any two of these; only a rule's first hyperparameter may go without its name,
 * where it has no default. One pass over the text fills one object; what is left out has its default. Every failure is
 * a sentence that starts with its column, in bytes from 1 (all that precedes an error is ASCII, so bytes are
 * characters). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "optim/optim.h"
#include "optim/rules.h"

#define SHOWN_BYTES_MAX 48 /* of a wrong word that a message repeats */

struct parser {
  const char *text;                    /* NUL-terminated */
  size_t at;                           /* of the next byte */
  struct esp_optim *optim;             /* filled so far */
  struct esp_status *st;               /* of the caller; may be NULL */
  size_t columns[ESP_RULE_HYPERS_MAX]; /* of the current rule's hyperparameters; 0 where not given */
};

struct word {
  const char *text; /* in the expression */
  size_t len;       /* 0: there is none */
  size_t column;    /* of its first byte */
};

static bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

static bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static void skip_spaces(struct parser *parser) {
  while (is_space(parser->text[parser->at]))
    parser->at++;
}

/* Names may hold points (optax.adam); signs are for values alone. */
static struct word take_word(struct parser *parser, bool with_signs) {
  skip_spaces(parser);
  struct word word = {.text = parser->text + parser->at, .column = parser->at + 1};
  for (;; word.len++) {
    const char c = word.text[word.len];
    if (!is_letter(c) && !is_digit(c) && c != '.' && !(with_signs && (c == '+' || c == '-')))
      break;
  }
  parser->at += word.len;
  return word;
}

static bool take_char(struct parser *parser, char c) {
  skip_spaces(parser);
  if (parser->text[parser->at] != c)
    return false;
  parser->at++;
  return true;
}

static bool word_is(struct word word, const char *text) {
  return strlen(text) == word.len && memcmp(word.text, text, word.len) == 0;
}

/* How many bytes of a word a message shows. */
static int shown_len(struct word word) {
  return (int)(word.len < SHOWN_BYTES_MAX ? word.len : SHOWN_BYTES_MAX);
}

/* "expected X, got Y", where Y is what comes next. */
static enum esp_code fail_expected(struct parser *parser, const char *expected) {
  skip_spaces(parser);
  const unsigned char c = (unsigned char)parser->text[parser->at];
  char got[16];
  if (c == '\0')
    snprintf(got, sizeof got, "the end");
  else if (c > ' ' && c < 0x7f)
    snprintf(got, sizeof got, "'%c'", c);
  else
    snprintf(got, sizeof got, "byte 0x%02x", c);
  return esp_fail(parser->st, ESP_INVALID_ARGUMENT, "column %zu: expected %s, got %s", parser->at + 1, expected, got);
}

static enum esp_code fail_rule(struct parser *parser, struct word name) {
  char known[256] = "";
  for (size_t i = 0, len = 0; i < esp_rules_len && len < sizeof known; i++)
    len += (size_t)snprintf(known + len, sizeof known - len, "%s%s", i > 0 ? ", " : "", esp_rules[i].name);
  return esp_fail(parser->st, ESP_INVALID_ARGUMENT, "column %zu: unknown rule '%.*s'; known are: %s", name.column,
                  shown_len(name), name.text, known);
}

static enum esp_code fail_hyper(struct parser *parser, const struct esp_rule *rule, struct word name) {
  char known[256] = "";
  for (size_t i = 0, len = 0; i < rule->hypers_len && len < sizeof known; i++)
    len += (size_t)snprintf(known + len, sizeof known - len, "%s%s", i > 0 ? ", " : "", rule->hypers[i].name);
  return esp_fail(parser->st, ESP_INVALID_ARGUMENT, "column %zu: %s has no hyperparameter '%.*s'; known are: %s",
                  name.column, rule->name, shown_len(name), name.text, known);
}

static enum esp_code parse_value(struct parser *parser, const struct esp_hyper *hyper, double *ret) {
  const struct word word = take_word(parser, true);
  if (word.len == 0)
    return fail_expected(parser, esp_domain_text(hyper->domain));
  if (is_letter(word.text[0]) && take_char(parser, '('))
    return esp_fail(parser->st, ESP_UNIMPLEMENTED,
                    "column %zu: %s=%.*s(...): schedules are not implemented yet; give %s", word.column, hyper->name,
                    shown_len(word), word.text, esp_domain_text(hyper->domain));
  double value = 0;
  if (!esp_domain_read(hyper->domain, word.text, word.len, &value))
    return esp_fail(parser->st, ESP_INVALID_ARGUMENT, "column %zu: %s must be %s, got '%.*s'", word.column, hyper->name,
                    esp_domain_text(hyper->domain), shown_len(word), word.text);
  *ret = value;
  return ESP_OK;
}

/* Whether a value comes next, and no name. */
static bool is_at_value(struct parser *parser) {
  skip_spaces(parser);
  const char c = parser->text[parser->at];
  return is_digit(c) || c == '.' || c == '-' || c == '+';
}

static enum esp_code parse_hyper(struct parser *parser, struct esp_member *member, bool is_first) {
  const struct esp_rule *rule = member->rule;
  if (is_first && isnan(rule->hypers[0].value_default) && is_at_value(parser)) {
    parser->columns[0] = parser->at + 1;
    return parse_value(parser, &rule->hypers[0], &member->values[0]);
  }
  const struct word name = take_word(parser, false);
  if (name.len == 0)
    return fail_expected(parser, "a hyperparameter's name");
  size_t index = 0;
  while (index < rule->hypers_len && !word_is(name, rule->hypers[index].name))
    index++;
  if (index == rule->hypers_len)
    return fail_hyper(parser, rule, name);
  if (parser->columns[index] != 0)
    return esp_fail(parser->st, ESP_INVALID_ARGUMENT, "column %zu: %s is given twice, first in column %zu", name.column,
                    rule->hypers[index].name, parser->columns[index]);
  parser->columns[index] = name.column;
  if (!take_char(parser, '='))
    return fail_expected(parser, "'='");
  return parse_value(parser, &rule->hypers[index], &member->values[index]);
}

static enum esp_code parse_hypers(struct parser *parser, struct esp_member *member) {
  if (!take_char(parser, '(') || take_char(parser, ')'))
    return ESP_OK;
  bool is_first = true;
  do {
    const enum esp_code code = parse_hyper(parser, member, is_first);
    if (code != ESP_OK)
      return code;
    is_first = false;
  } while (take_char(parser, ','));
  return take_char(parser, ')') ? ESP_OK : fail_expected(parser, "',' or ')'");
}

/* Norms are taken of the gradients as they arrive, so a rule that wants one stands first. */
static enum esp_code check_place(const struct parser *parser, const struct esp_rule *rule, size_t column) {
  const struct esp_rule *first = parser->optim->members[0].rule;
  if (rule->norm == 0 || parser->optim->members_len == 1)
    return ESP_OK;
  if (first->norm != 0)
    return esp_fail(parser->st, ESP_INVALID_ARGUMENT,
                    "column %zu: a chain has at most one rule that clips by a norm, and has %s already", column,
                    first->name);
  return esp_fail(parser->st, ESP_INVALID_ARGUMENT,
                  "column %zu: %s must be the first rule of its chain: it goes by the norm of the gradients as they "
                  "arrive, and %s changes them",
                  column, rule->name, first->name);
}

static enum esp_code check_required(const struct parser *parser, const struct esp_rule *rule, size_t column) {
  for (size_t i = 0; i < rule->hypers_len; i++) {
    const struct esp_hyper *hyper = &rule->hypers[i];
    if (isnan(hyper->value_default) && parser->columns[i] == 0)
      return esp_fail(parser->st, ESP_INVALID_ARGUMENT, "column %zu: %s needs %s, which has no default: %s(%s=...), %s",
                      column, rule->name, hyper->name, rule->name, hyper->name, esp_domain_text(hyper->domain));
  }
  return ESP_OK;
}

/* What only a whole rule shows: hyperparameters that are missing or exclude each other, its place, and the room for its
 * states. */
static enum esp_code check_member(struct parser *parser, struct esp_member *member, size_t column) {
  const struct esp_rule *rule = member->rule;
  enum esp_code code = check_required(parser, rule, column);
  if (code == ESP_OK)
    code = check_place(parser, rule, column);
  if (code != ESP_OK)
    return code;
  size_t culprit = 0;
  const char *sentence = rule->check != NULL ? rule->check(member->values, &culprit) : NULL;
  if (sentence != NULL)
    return esp_fail(parser->st, ESP_INVALID_ARGUMENT, "column %zu: %s", parser->columns[culprit], sentence);
  member->states_first = parser->optim->states_len;
  parser->optim->states_len += rule->states_len(member->values);
  if (parser->optim->states_len > ESP_OPTIM_STATES_MAX)
    return esp_fail(parser->st, ESP_INVALID_ARGUMENT,
                    "column %zu: with this %s the chain has more than %d state tensors", column, rule->name,
                    ESP_OPTIM_STATES_MAX);
  return ESP_OK;
}

static enum esp_code parse_rule(struct parser *parser) {
  const struct word name = take_word(parser, false);
  if (name.len == 0)
    return fail_expected(parser, "a rule");
  if (parser->optim->members_len == ESP_OPTIM_RULES_MAX)
    return esp_fail(parser->st, ESP_INVALID_ARGUMENT, "column %zu: a chain has at most %d rules", name.column,
                    ESP_OPTIM_RULES_MAX);
  struct esp_member *member = &parser->optim->members[parser->optim->members_len];
  for (size_t i = 0; i < esp_rules_len && member->rule == NULL; i++)
    member->rule = word_is(name, esp_rules[i].name) ? &esp_rules[i] : NULL;
  if (member->rule == NULL)
    return fail_rule(parser, name);
  for (size_t i = 0; i < member->rule->hypers_len; i++)
    member->values[i] = member->rule->hypers[i].value_default;
  memset(parser->columns, 0, sizeof parser->columns);
  const enum esp_code code = parse_hypers(parser, member);
  if (code != ESP_OK)
    return code;
  parser->optim->members_len++;
  return check_member(parser, member, name.column);
}

static enum esp_code parse_chain(struct parser *parser) {
  do {
    const enum esp_code code = parse_rule(parser);
    if (code != ESP_OK)
      return code;
  } while (take_char(parser, '|'));
  skip_spaces(parser);
  return parser->text[parser->at] == '\0' ? ESP_OK : fail_expected(parser, "'|' or the end");
}

enum esp_code esp_optim_parse(const char *text, struct esp_optim **ret, struct esp_status *st) {
  if (strnlen(text, ESP_OPTIM_TEXT_MAX + 1) > ESP_OPTIM_TEXT_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "column %d: an optimizer expression has at most %d bytes",
                    ESP_OPTIM_TEXT_MAX + 1, ESP_OPTIM_TEXT_MAX);
  struct esp_optim *optim = esp_calloc(1, sizeof *optim);
  if (optim == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for an optimizer expression");
  atomic_init(&optim->refs, 1);
  struct parser parser = {.text = text, .optim = optim, .st = st};
  const enum esp_code code = parse_chain(&parser);
  if (code != ESP_OK)
    goto fail;
  esp_optim_finish(optim);
  *ret = optim;
  return ESP_OK;
fail:
  esp_optim_unref(optim);
  return code;
}
