/* optim/parse.c: what is taken prints to a text that parses to the same; what is not says where. optim/adjust.c, for
 * inputs of the form `expression;name=value;...`: the same of the chain that comes out. */
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "optim/optim.h"
#include "tests/fuzz/fuzz.h"

/* Parsing the canonical text gives the canonical text, and the same states. */
static void check_again(const struct esp_optim *optim) {
  struct esp_optim *again = NULL;
  struct esp_status st;
  ESP_CHECK(esp_optim_parse(esp_optim_print(optim), &again, &st) == ESP_OK);
  ESP_CHECK(strcmp(esp_optim_print(optim), esp_optim_print(again)) == 0);
  ESP_CHECK(esp_optim_states_len(optim) == esp_optim_states_len(again));
  for (size_t i = 0; i < esp_optim_states_len(optim); i++)
    ESP_CHECK(strcmp(esp_optim_state_name(optim, i), esp_optim_state_name(again, i)) == 0);
  esp_optim_unref(again);
}

static void check_adjust(const struct esp_optim *optim, char *text) {
  struct esp_hyper_change changes[4];
  size_t len = 0;
  while (text != NULL && len < sizeof changes / sizeof *changes) {
    char *name = text;
    text = strchr(name, ';');
    if (text != NULL)
      *text++ = '\0';
    char *value = strchr(name, '=');
    if (value != NULL)
      *value++ = '\0';
    changes[len++] = (struct esp_hyper_change){.name = name, .value = value != NULL ? value : ""};
  }
  struct esp_optim *next = NULL;
  struct esp_status st;
  enum esp_code code = esp_optim_adjust(optim, changes, len, &next, &st);
  if (code == ESP_OK) {
    check_again(next);
  } else {
    esp_fuzz_check_failure(code, &st);
    ESP_CHECK(code == ESP_INVALID_ARGUMENT || code == ESP_UNIMPLEMENTED);
    ESP_CHECK(next == NULL);
  }
  esp_optim_unref(next);
  check_again(optim);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  size_t live = esp_alloc_live();
  struct esp_fuzz_input input = {.at = data, .left = size};
  char *text = esp_fuzz_text(&input);
  char *changes = strchr(text, ';'); /* no expression has one */
  if (changes != NULL)
    *changes++ = '\0';
  struct esp_optim *optim = NULL;
  struct esp_status st;
  enum esp_code code = esp_optim_parse(text, &optim, &st);
  if (code == ESP_OK) {
    check_again(optim);
    if (changes != NULL)
      check_adjust(optim, changes);
  } else {
    esp_fuzz_check_failure(code, &st);
    ESP_CHECK(code == ESP_INVALID_ARGUMENT || code == ESP_UNIMPLEMENTED);
    ESP_CHECK(strncmp(st.message, "column ", 7) == 0);
    ESP_CHECK(optim == NULL);
  }
  esp_optim_unref(optim);
  esp_free(text);
  ESP_CHECK(esp_alloc_live() == live);
  return 0;
}
