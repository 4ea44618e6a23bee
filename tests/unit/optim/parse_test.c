/* Expressions: what parses and how it is printed, what does not and which column is blamed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "fixture.h"
#include "optim/rules.h"

#define CHAIN_8 "sgd|sgd|sgd|sgd|sgd|sgd|sgd|sgd"
#define AMSGRAD "adam(amsgrad=1)"

static const struct {
  const char *text;
  const char *printed;
} good[] = {
    {"sgd", "sgd"},
    {"sgd()", "sgd"},
    {"sgd(lr=0.001)", "sgd"},
    {"sgd(lr=.1)", "sgd(lr=0.1)"},
    {"  sgd\t(\n lr\r = 1e-1 , momentum=0.90 ) ", "sgd(lr=0.1, momentum=0.9)"},
    {"sgd(nesterov=true, momentum=0.9)", "sgd(momentum=0.9, nesterov=true)"},
    {"sgd(nesterov=1,momentum=1.5)", "sgd(momentum=1.5, nesterov=true)"},
    {"sgd(nesterov=false)", "sgd"},
    {"sgd(nesterov=0)", "sgd"},
    {"sgd(nesterov=0.0)", "sgd"},
    {"sgd(dampening=-2)", "sgd(dampening=-2)"},
    {"sgd(lr=0)", "sgd(lr=0)"},
    {"sgd(lr=-0)", "sgd(lr=0)"},
    {"sgd(weight_decay=-0)", "sgd"},
    {"sgd(lr=1e-999)", "sgd(lr=0)"},
    {"adam", "adam"},
    {"adam(beta1=0, beta2=0.99999)", "adam(beta1=0, beta2=0.99999)"},
    {"adam(weight_decay=0.01)", "adam(weight_decay=0.01)"},
    {"adamw(weight_decay=0.01)", "adamw"},
    {"adamw(weight_decay=0, amsgrad=true, eps=0, lr=3e-4)", "adamw(lr=3e-4, eps=0, weight_decay=0, amsgrad=true)"},
    {"sgd(lr=0.1) | sgd(lr=1)", "sgd(lr=0.1) | sgd(lr=1)"},
    {"sgd|adam", "sgd | adam"},
    {"clip_value(max=2)", "clip_value(max=2)"},
    {"sgd | clip_value(max=0.001) | adam", "sgd | clip_value(max=1e-3) | adam"},
    {"clip_norm(1.0) | adamw(lr=3e-4)", "clip_norm(max=1) | adamw(lr=3e-4)"},
    {"clip_norm( +.5 , eps=0)", "clip_norm(max=0.5, eps=0)"},
    {"clip_norm(eps=1e-6, max=10)", "clip_norm(max=10)"},
    {"clip_group_norm(max=1)|clip_value(2)", "clip_group_norm(max=1) | clip_value(max=2)"},
    {"clip_global_norm(max=0.25)", "clip_global_norm(max=0.25)"},
    {CHAIN_8, "sgd | sgd | sgd | sgd | sgd | sgd | sgd | sgd"},
    {AMSGRAD "|" AMSGRAD "|" AMSGRAD "|" AMSGRAD "|" AMSGRAD "|sgd(momentum=1)",
     "adam(amsgrad=true) | adam(amsgrad=true) | adam(amsgrad=true) | adam(amsgrad=true) | adam(amsgrad=true) | "
     "sgd(momentum=1)"},
};

static const struct {
  const char *text;
  size_t column;
  const char *message; /* a part of it */
  enum esp_code code;  /* 0: INVALID_ARGUMENT */
} bad[] = {
    {"", 1, "expected a rule, got the end", 0},
    {"   ", 4, "expected a rule, got the end", 0},
    {"|", 1, "expected a rule, got '|'", 0},
    {"(lr=1)", 1, "expected a rule, got '('", 0},
    {"sgd |", 6, "expected a rule, got the end", 0},
    {"sgd || sgd", 6, "expected a rule, got '|'", 0},
    {"nosuch", 1, "unknown rule 'nosuch'; known are: sgd, adam, adamw", 0},
    {"sgd | optax.adam(lr=1)", 7, "unknown rule 'optax.adam'; known are: sgd, adam, adamw", 0},
    {"SGD", 1, "unknown rule 'SGD'", 0},
    {"sgd sgd", 5, "expected '|' or the end, got 's'", 0},
    {"sgd)", 4, "expected '|' or the end, got ')'", 0},
    {"sgd()()", 6, "expected '|' or the end, got '('", 0},
    {"sgd(", 5, "expected a hyperparameter's name, got the end", 0},
    {"sgd(,)", 5, "expected a hyperparameter's name, got ','", 0},
    {"sgd(lr=1,)", 10, "expected a hyperparameter's name, got ')'", 0},
    {"sgd(lr)", 7, "expected '=', got ')'", 0},
    {"sgd(lr 1)", 8, "expected '=', got '1'", 0},
    {"sgd(lr=)", 8, "expected a finite number, at least 0, got ')'", 0},
    {"sgd(lr=", 8, "expected a finite number, at least 0, got the end", 0},
    {"sgd(lr=1", 9, "expected ',' or ')', got the end", 0},
    {"sgd(lr=1 momentum=2)", 10, "expected ',' or ')', got 'm'", 0},
    {"sgd(lr=1|sgd", 9, "expected ',' or ')', got '|'", 0},
    {"sgd(0.1)", 5, "sgd has no hyperparameter '0.1'; known are: lr, momentum, dampening, weight_decay, nesterov", 0},
    {"sgd(beta1=0.9)", 5, "sgd has no hyperparameter 'beta1'", 0},
    {"adam(momentum=1)", 6,
     "adam has no hyperparameter 'momentum'; known are: lr, beta1, beta2, eps, weight_decay, amsgrad", 0},
    {"sgd(lr=1, lr=2)", 11, "lr is given twice, first in column 5", 0},
    {"sgd(lr=-1)", 8, "lr must be a finite number, at least 0, got '-1'", 0},
    {"sgd(lr=1e999)", 8, "lr must be a finite number, at least 0, got '1e999'", 0},
    {"sgd(dampening=-1e999)", 15, "dampening must be a finite number, got '-1e999'", 0},
    {"sgd(lr=inf)", 8, "got 'inf'", 0},
    {"sgd(lr=-inf)", 8, "got '-inf'", 0},
    {"sgd(lr=nan)", 8, "got 'nan'", 0},
    {"sgd(lr=0x10)", 8, "got '0x10'", 0},
    {"sgd(lr=1+2)", 8, "got '1+2'", 0},
    {"sgd(lr=1e)", 8, "got '1e'", 0},
    {"sgd(lr=true)", 8, "got 'true'", 0},
    {"sgd(lr='1')", 8, "got '''", 0},
    {"sgd(momentum=-0.1)", 14, "momentum must be", 0},
    {"sgd(weight_decay=-1)", 18, "weight_decay must be", 0},
    {"sgd(nesterov=2)", 14, "nesterov must be true, false, 1 or 0, got '2'", 0},
    {"sgd(nesterov=yes)", 14, "nesterov must be true, false, 1 or 0, got 'yes'", 0},
    {"sgd(nesterov=)", 14, "expected true, false, 1 or 0, got ')'", 0},
    {"sgd(nesterov=true)", 5, "Nesterov momentum requires a momentum and zero dampening", 0},
    {"sgd(lr=1, nesterov=1, momentum=0.9, dampening=0.1)", 11, "Nesterov momentum requires", 0},
    {"adam(beta1=1)", 12, "beta1 must be a number in [0, 1), got '1'", 0},
    {"adam(beta2=-0.1)", 12, "beta2 must be a number in [0, 1), got '-0.1'", 0},
    {"adam(beta2=1e999)", 12, "beta2 must be", 0},
    {"adam(eps=-1e-8)", 10, "eps must be", 0},
    {"adam(amsgrad=maybe)", 14, "amsgrad must be", 0},
    {"sgd(lr=cosine(3e-4, warmup=10))", 8, "lr=cosine(...): schedules are not implemented yet", ESP_UNIMPLEMENTED},
    {"sgd(lr=linear (", 8, "schedules are not implemented yet", ESP_UNIMPLEMENTED},
    {"sgd(lr=1) | adamw(beta1=0.5, lr=step(1))", 33, "schedules are not implemented yet", ESP_UNIMPLEMENTED},
    {CHAIN_8 "|sgd", 33, "a chain has at most 8 rules", 0},
    {AMSGRAD "|" AMSGRAD "|" AMSGRAD "|" AMSGRAD "|" AMSGRAD "|adam", 81, "more than 16 state tensors", 0},
    {"clip_value", 1, "clip_value needs max, which has no default: clip_value(max=...), a finite number above 0", 0},
    {"sgd | clip_norm()", 7, "clip_norm needs max", 0},
    {"clip_norm(eps=1)", 1, "clip_norm needs max", 0},
    {"clip_norm(max=0)", 15, "max must be a finite number above 0, got '0'", 0},
    {"clip_norm(max=-1)", 15, "max must be a finite number above 0, got '-1'", 0},
    {"clip_norm(-1)", 11, "max must be a finite number above 0, got '-1'", 0},
    {"clip_norm(1e999)", 11, "max must be", 0},
    {"clip_norm(max=1e-999)", 15, "max must be", 0},
    {"clip_norm(1, max=2)", 14, "max is given twice, first in column 11", 0},
    {"clip_norm(1, 2)", 14, "clip_norm has no hyperparameter '2'; known are: max, eps", 0},
    {"clip_norm(eps=0, 1)", 18, "clip_norm has no hyperparameter '1'", 0},
    {"clip_norm(max=1, eps=-1)", 22, "eps must be a finite number, at least 0", 0},
    {"clip_norm(max=linear(1))", 15, "schedules are not implemented yet; give a finite number above 0",
     ESP_UNIMPLEMENTED},
    {"clip_value(max=1, eps=1)", 19, "clip_value has no hyperparameter 'eps'; known are: max", 0},
    {"sgd | clip_norm(1)", 7,
     "clip_norm must be the first rule of its chain: it goes by the norm of the gradients as they arrive, and sgd "
     "changes them",
     0},
    {"clip_value(1) | adam | clip_global_norm(1)", 24, "clip_global_norm must be the first rule of its chain", 0},
    {"clip_norm(1) | adam | clip_global_norm(1)", 23,
     "a chain has at most one rule that clips by a norm, and has clip_norm already", 0},
    {"s\xc3\xa4gd", 1, "unknown rule 's'", 0},
    {"sgd\x01", 4, "got byte 0x01", 0},
    {"sgd(\xff", 5, "got byte 0xff", 0},
};

static void prints_what_it_parsed(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    struct esp_optim *optim = must_parse(good[i].text);
    assert_string_equal(esp_optim_print(optim), good[i].printed);
    struct esp_optim *again = must_parse(good[i].printed);
    assert_string_equal(esp_optim_print(again), good[i].printed);
    esp_optim_unref(again);
    esp_optim_unref(optim);
  }
}

static void blames_the_column(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct esp_optim *optim = NULL;
    struct esp_status st = {0};
    const enum esp_code code = esp_optim_parse(bad[i].text, &optim, &st);
    char start[32];
    snprintf(start, sizeof start, "column %zu: ", bad[i].column);
    if (code != (bad[i].code != 0 ? bad[i].code : ESP_INVALID_ARGUMENT) ||
        strncmp(st.message, start, strlen(start)) != 0 || strstr(st.message, bad[i].message) == NULL)
      fail_msg("'%s' gave %s: %s", bad[i].text, esp_code_name(code), st.message);
    assert_int_equal(st.code, code);
    assert_null(optim);
    assert_int_equal(esp_optim_parse(bad[i].text, &optim, NULL), code); /* a status is optional */
  }
}

/* Any text parses or fails with a column in it, and what parses prints to a fixed point. */
static bool survives(const char *text) {
  struct esp_optim *optim = NULL;
  struct esp_status st = {0};
  if (esp_optim_parse(text, &optim, &st) != ESP_OK) {
    char *end = NULL;
    assert_memory_equal(st.message, "column ", 7);
    const unsigned long column = strtoul(st.message + 7, &end, 10);
    assert_true(column >= 1 && column <= strlen(text) + 1 && *end == ':');
    return false;
  }
  struct esp_optim *again = must_parse(esp_optim_print(optim));
  assert_string_equal(esp_optim_print(again), esp_optim_print(optim));
  esp_optim_unref(again);
  esp_optim_unref(optim);
  return true;
}

static void survives_every_truncation(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    char text[512];
    for (size_t len = 0; len <= strlen(good[i].text); len++) {
      snprintf(text, sizeof text, "%.*s", (int)len, good[i].text);
      survives(text);
    }
  }
}

static void survives_every_changed_byte(void **state) {
  (void)state;
  const char *const original = "adamw(lr=3e-4, amsgrad=true) | sgd(momentum=.9,nesterov=1)";
  size_t parsed = 0;
  for (size_t at = 0; at < strlen(original); at++) {
    for (int byte = 1; byte < 256; byte++) {
      char text[128];
      snprintf(text, sizeof text, "%s", original);
      text[at] = (char)byte;
      parsed += survives(text);
    }
  }
  assert_true(parsed > strlen(original));
}

static void takes_at_most_its_limit(void **state) {
  (void)state;
  static char text[ESP_OPTIM_TEXT_MAX + 2];
  memset(text, ' ', sizeof text - 1);
  memcpy(text, "sgd", 3);
  struct esp_optim *optim = NULL;
  struct esp_status st = {0};
  assert_int_equal(esp_optim_parse(text, &optim, &st), ESP_INVALID_ARGUMENT);
  assert_string_equal(st.message, "column 4097: an optimizer expression has at most 4096 bytes");
  text[ESP_OPTIM_TEXT_MAX] = '\0';
  assert_int_equal(esp_optim_parse(text, &optim, &st), ESP_OK);
  esp_optim_unref(optim);
  memset(text, 'x', ESP_OPTIM_TEXT_MAX); /* a word too long for a message still leaves room for the known rules */
  assert_int_equal(esp_optim_parse(text, &optim, &st), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(st.message, "known are: sgd"));
}

/* A random chain in text, and the values that it gives; returns the text's length. */
static size_t random_chain(uint64_t *seed, char *text, size_t size, double values[][ESP_RULE_HYPERS_MAX],
                           size_t *ret_len) {
  size_t len = 0;
  *ret_len = 1 + esp_test_random(seed) % 4;
  for (size_t i = 0; i < *ret_len; i++) {
    const struct esp_rule *rule = &esp_rules[esp_test_random(seed) % esp_rules_len];
    while (i > 0 && rule->norm != 0) /* only the first may want one */
      rule = &esp_rules[esp_test_random(seed) % esp_rules_len];
    len += (size_t)snprintf(text + len, size - len, "%s%s(", i > 0 ? " |" : "", rule->name);
    const char *separator = "";
    for (size_t k = 0; k < rule->hypers_len; k++) {
      const struct esp_hyper *hyper = &rule->hypers[k];
      values[i][k] = hyper->value_default;
      const bool is_given = isnan(hyper->value_default) || esp_test_random(seed) % 2 == 0;
      if (hyper->domain == ESP_DOMAIN_FLAG || !is_given)
        continue;
      values[i][k] = (1 - next_unit(seed)) * (hyper->domain == ESP_DOMAIN_FRACTION ? 0.999 : 1e3);
      len += (size_t)snprintf(text + len, size - len, "%s %s = %.17g", separator, hyper->name, values[i][k]);
      separator = ",";
    }
    len += (size_t)snprintf(text + len, size - len, ")");
  }
  return len;
}

static void random_chains_read_back(void **state) {
  (void)state;
  uint64_t seed = 42;
  for (int round = 0; round < 2000; round++) {
    char text[ESP_OPTIM_TEXT_MAX];
    double values[ESP_OPTIM_RULES_MAX][ESP_RULE_HYPERS_MAX];
    size_t len = 0;
    assert_true(random_chain(&seed, text, sizeof text, values, &len) < sizeof text);
    struct esp_optim *optim = must_parse(text);
    struct esp_optim *again = must_parse(esp_optim_print(optim));
    assert_string_equal(esp_optim_print(again), esp_optim_print(optim));
    assert_int_equal(again->members_len, len);
    for (size_t i = 0; i < len; i++) {
      for (size_t k = 0; k < again->members[i].rule->hypers_len; k++)
        assert_true(again->members[i].values[k] == values[i][k] && optim->members[i].values[k] == values[i][k]);
    }
    esp_optim_unref(again);
    esp_optim_unref(optim);
  }
}

/* The longest text of every hyperparameter, in the longest chain. */
static void prints_the_longest_chain(void **state) {
  (void)state;
  char text[ESP_OPTIM_TEXT_MAX + 1] = "";
  for (int i = 0; i < ESP_OPTIM_RULES_MAX; i++) {
    strcat(text, i > 0 ? " | " : "");
    strcat(text, "adamw(lr=1.2345678901234568e-300, beta1=1.2345678901234568e-300, beta2=1.2345678901234568e-300, "
                 "eps=1.2345678901234568e-300, weight_decay=1.2345678901234568e-300)");
  }
  struct esp_optim *optim = must_parse(text);
  assert_string_equal(esp_optim_print(optim), text);
  esp_optim_unref(optim);
}

static void survives_failing_allocations(void **state) {
  (void)state;
  const size_t before = esp_alloc_live();
  struct esp_optim *optim = NULL;
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  int64_t failures = 0;
  for (; code != ESP_OK; failures++) {
    struct esp_status st = {0};
    esp_alloc_fail_at(failures);
    code = esp_optim_parse("adamw(lr=3e-4, amsgrad=true) | sgd(momentum=0.9)", &optim, &st);
    esp_alloc_fail_at(-1);
    if (code != ESP_OK) {
      assert_int_equal(code, ESP_RESOURCE_EXHAUSTED);
      assert_null(optim);
      assert_int_equal(esp_alloc_live(), before);
    }
  }
  assert_true(failures > 1);
  esp_optim_unref(optim);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(prints_what_it_parsed),     ESP_TEST(blames_the_column),
      ESP_TEST(survives_every_truncation), ESP_TEST(survives_every_changed_byte),
      ESP_TEST(takes_at_most_its_limit),   ESP_TEST(random_chains_read_back),
      ESP_TEST(prints_the_longest_chain),  ESP_TEST(survives_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
