/* Other hyperparameters for a chain: which names reach which, what is refused and how it is said. */
#include <stdio.h>

#include "fixture.h"

#define CHANGES_MAX 4

static const struct {
  const char *expression;
  struct esp_hyper_change changes[CHANGES_MAX]; /* up to the first without a name */
  const char *printed;
} good[] = {
    {"adam", {{0}}, "adam"},
    {"adam", {{"lr", "3e-4"}}, "adam(lr=3e-4)"},
    {"adam(lr=3e-4)", {{"lr", "0.001"}}, "adam"},
    {"adam", {{"adam.lr", " 1 "}, {"0.beta1", "\t0.5\n"}}, "adam(lr=1, beta1=0.5)"},
    {"adam", {{"amsgrad", "true"}}, "adam(amsgrad=true)"},
    {"adam(amsgrad=true)", {{"amsgrad", "0"}}, "adam"},
    {"sgd", {{"nesterov", "1"}, {"momentum", "0.9"}}, "sgd(momentum=0.9, nesterov=true)"}, /* checked as a whole */
    {"sgd(momentum=0.9)", {{"momentum", "0"}}, "sgd"},
    {"sgd(lr=1) | adamw", {{"sgd.lr", "2"}, {"adamw.lr", "3"}}, "sgd(lr=2) | adamw(lr=3)"},
    {"sgd(lr=1) | adamw", {{"1.lr", "3"}, {"0.lr", "2"}}, "sgd(lr=2) | adamw(lr=3)"},
    {"sgd(lr=1) | adamw", {{"momentum", "0.5"}, {"beta2", "0.9"}}, "sgd(lr=1, momentum=0.5) | adamw(beta2=0.9)"},
    {"sgd | sgd | adam", {{"1.lr", "0.5"}, {"adam.lr", "2"}}, "sgd | sgd(lr=0.5) | adam(lr=2)"},
    {"clip_norm(1) | adam", {{"max", "0.25"}, {"clip_norm.eps", "0"}}, "clip_norm(max=0.25, eps=0) | adam"},
    {"clip_value(1) | sgd | clip_value(2)", {{"2.max", "3"}}, "clip_value(max=1) | sgd | clip_value(max=3)"},
};

static const struct {
  const char *expression;
  struct esp_hyper_change changes[CHANGES_MAX];
  const char *message; /* whole */
  enum esp_code code;  /* 0: INVALID_ARGUMENT */
} bad[] = {
    {"sgd",
     {{"beta1", "0"}},
     "sgd has no hyperparameter 'beta1'; known are: lr, momentum, dampening, weight_decay, nesterov",
     0},
    {"sgd",
     {{"adam.lr", "0"}},
     "sgd has no hyperparameter 'adam.lr'; known are: lr, momentum, dampening, weight_decay, nesterov",
     0},
    {"clip_norm(1)", {{"1.max", "1"}}, "clip_norm has no hyperparameter '1.max'; known are: max, eps", 0},
    {"clip_norm(1)", {{"00.max", "1"}}, "clip_norm has no hyperparameter '00.max'; known are: max, eps", 0},
    {"clip_norm(1)", {{"", "1"}}, "clip_norm has no hyperparameter ''; known are: max, eps", 0},
    {"clip_norm(1)", {{".max", "1"}}, "clip_norm has no hyperparameter '.max'; known are: max, eps", 0},
    {"clip_norm(1)", {{"max.", "1"}}, "clip_norm has no hyperparameter 'max.'; known are: max, eps", 0},
    {"clip_norm(1)", {{"Max", "1"}}, "clip_norm has no hyperparameter 'Max'; known are: max, eps", 0},
    {"clip_norm(1)", {{"m\x01\xff", "1"}}, "clip_norm has no hyperparameter 'm\?\?'; known are: max, eps", 0},
    {"clip_norm(1) | clip_value(1) | clip_value(1)",
     {{"nosuch", "1"}},
     "the chain has no hyperparameter 'nosuch'; known are: clip_norm.max, eps, 1.max, 2.max",
     0},
    {"sgd | adamw", {{"lr", "1"}}, "'lr' is in several rules of the chain; name one of: sgd.lr, adamw.lr", 0},
    {"sgd | sgd | adam", {{"lr", "1"}}, "'lr' is in several rules of the chain; name one of: 0.lr, 1.lr, adam.lr", 0},
    {"sgd | sgd | adam",
     {{"sgd.momentum", "1"}},
     "'sgd.momentum' is in several rules of the chain; name one of: 0.momentum, 1.momentum",
     0},
    {"sgd", {{"lr", "1"}, {"lr", "1"}}, "lr is given twice, first as lr", 0},
    {"sgd | adam", {{"sgd.lr", "1"}, {"momentum", "0.5"}, {"0.lr", "1"}}, "0.lr is given twice, first as sgd.lr", 0},
    {"sgd", {{"lr", "-1"}}, "lr must be a finite number, at least 0, got '-1'", 0},
    {"sgd | adam", {{"1.lr", "x"}}, "1.lr must be a finite number, at least 0, got 'x'", 0},
    {"sgd", {{"lr", ""}}, "lr must be a finite number, at least 0, got ''", 0},
    {"sgd", {{"lr", "1 2"}}, "lr must be a finite number, at least 0, got '1 2'", 0},
    {"sgd", {{"lr", "1,momentum=2"}}, "lr must be a finite number, at least 0, got '1,momentum=2'", 0},
    {"sgd", {{"lr", "1e999"}}, "lr must be a finite number, at least 0, got '1e999'", 0},
    {"sgd", {{"lr", "nan"}}, "lr must be a finite number, at least 0, got 'nan'", 0},
    {"adam", {{"beta1", "1"}}, "beta1 must be a number in [0, 1), got '1'", 0},
    {"clip_value(1)", {{"max", "0"}}, "max must be a finite number above 0, got '0'", 0},
    {"adam", {{"amsgrad", "yes"}}, "amsgrad must be true, false, 1 or 0, got 'yes'", 0},
    {"sgd",
     {{"lr", "cosine(3e-4, warmup=10)"}},
     "lr=cosine(3e-4, warmup=10): schedules are not implemented yet; give a finite number, at least 0",
     ESP_UNIMPLEMENTED},
    {"sgd", {{"nesterov", "true"}}, "nesterov: Nesterov momentum requires a momentum and zero dampening", 0},
    {"sgd(momentum=0.9, nesterov=true)",
     {{"momentum", "0"}},
     "nesterov: Nesterov momentum requires a momentum and zero dampening",
     0},
    {"sgd(momentum=0.9, nesterov=true) | sgd",
     {{"0.dampening", "1"}},
     "0.nesterov: Nesterov momentum requires a momentum and zero dampening",
     0},
    {"adam|adam|adam|adam|adam|adam|adam|adam",
     {{"7.amsgrad", "true"}},
     "with these values the chain has more than 16 state tensors",
     0},
};

static size_t changes_len(const struct esp_hyper_change *changes) {
  size_t len = 0;
  while (len < CHANGES_MAX && changes[len].name != NULL)
    len++;
  return len;
}

/* As the parser would have made it, and the chain that it came from is as it was. */
static void changes_what_is_named(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    struct esp_optim *optim = must_parse(good[i].expression), *next = NULL;
    char before[256];
    snprintf(before, sizeof before, "%s", esp_optim_print(optim));
    struct esp_status st = {0};
    if (esp_optim_adjust(optim, good[i].changes, changes_len(good[i].changes), &next, &st) != ESP_OK)
      fail_msg("%s: %s", good[i].expression, st.message);
    assert_string_equal(esp_optim_print(next), good[i].printed);
    assert_string_equal(esp_optim_print(optim), before);
    struct esp_optim *again = must_parse(good[i].printed);
    assert_int_equal(esp_optim_states_len(next), esp_optim_states_len(again));
    for (size_t k = 0; k < esp_optim_states_len(again); k++)
      assert_string_equal(esp_optim_state_name(next, k), esp_optim_state_name(again, k));
    const struct esp_norms norms = {.param = 5, .group = 6, .global = 7};
    struct esp_step step, step_again;
    esp_optim_step_init(next, 3, &norms, &step);
    esp_optim_step_init(again, 3, &norms, &step_again);
    assert_memory_equal(&step, &step_again, sizeof step);
    esp_optim_unref(again);
    esp_optim_unref(next);
    esp_optim_unref(optim);
  }
}

static void says_what_it_refuses(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    struct esp_optim *optim = must_parse(bad[i].expression), *next = NULL;
    struct esp_status st = {0};
    const size_t len = changes_len(bad[i].changes);
    const enum esp_code code = esp_optim_adjust(optim, bad[i].changes, len, &next, &st);
    if (code != (bad[i].code != 0 ? bad[i].code : ESP_INVALID_ARGUMENT))
      fail_msg("%s, %s: %s", bad[i].expression, bad[i].changes[0].name, esp_code_name(code));
    assert_string_equal(st.message, bad[i].message);
    assert_null(next);
    assert_int_equal(esp_optim_adjust(optim, bad[i].changes, len, &next, NULL), code); /* a status is optional */
    esp_optim_unref(optim);
  }
}

/* The names listed for the longest chain all fit. */
static void lists_every_name(void **state) {
  (void)state;
  struct esp_optim *optim = must_parse("adamw|adamw|adamw|adamw|adamw|adamw|adamw|adamw"), *next = NULL;
  struct esp_status st = {0};
  char name[5000];
  memset(name, 'x', sizeof name - 1);
  name[sizeof name - 1] = '\0';
  const struct esp_hyper_change change = {.name = name, .value = "1"};
  assert_int_equal(esp_optim_adjust(optim, &change, 1, &next, &st), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(st.message, ", 7.weight_decay, 7.amsgrad"));
  esp_optim_unref(optim);
}

static void survives_failing_allocations(void **state) {
  (void)state;
  struct esp_optim *optim = must_parse("sgd | adam"), *next = NULL;
  const struct esp_hyper_change change = {.name = "momentum", .value = "0.9"};
  const size_t before = esp_alloc_live();
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  int64_t failures = 0;
  for (; code != ESP_OK; failures++) {
    struct esp_status st = {0};
    esp_alloc_fail_at(failures);
    code = esp_optim_adjust(optim, &change, 1, &next, &st);
    esp_alloc_fail_at(-1);
    assert_true(code == ESP_OK || (code == ESP_RESOURCE_EXHAUSTED && next == NULL && esp_alloc_live() == before));
  }
  assert_true(failures > 1);
  esp_optim_unref(next);
  esp_optim_unref(optim);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(changes_what_is_named),
      ESP_TEST(says_what_it_refuses),
      ESP_TEST(lists_every_name),
      ESP_TEST(survives_failing_allocations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
