/* server/options: flags and the YAML file, as an operator may mistype them. A refusal is a sentence, nothing leaks, and
 * what was taken is within its bounds. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/check.h"
#include "options/table.h"
#include "tests/fuzz/fuzz.h"

#define ARGS_MAX 16

static void check_bounds(const struct esp_options *options) {
  for (const struct esp_option *option = esp_option_table; option->name != NULL; option++) {
    const void *field = (const char *)options + option->field;
    bool is_number =
        option->type == ESP_OPTION_COUNT || option->type == ESP_OPTION_SIZE || option->type == ESP_OPTION_DURATION;
    if (is_number)
      ESP_CHECK(*(const uint64_t *)field >= option->min && *(const uint64_t *)field <= option->max);
    if (option->type == ESP_OPTION_LIST)
      ESP_CHECK(((const struct esp_options_list *)field)->len <= ESP_OPTIONS_LIST_MAX);
  }
}

/* One argument a line. --config is left out: it would read files of this machine. */
static enum esp_code read_flags(char *text, struct esp_options *options, struct esp_status *st) {
  char name[] = "espalierd";
  char *argv[ARGS_MAX + 2] = {name};
  int argc = 1;
  for (char *line = strtok(text, "\n"); line != NULL && argc <= ARGS_MAX; line = strtok(NULL, "\n")) {
    if (strncmp(line, "--c", 3) != 0)
      argv[argc++] = line;
  }
  enum esp_code code = esp_options_parse(argc, argv, options, st);
  if (code == ESP_OK && !options->help && !options->version && !options->print_markdown)
    check_bounds(options);
  return code;
}

static enum esp_code read_file(const char *text, struct esp_options *options, struct esp_status *st) {
  bool given[64] = {0};
  ESP_CHECK(esp_option_table_len() <= sizeof given);
  size_t len = strlen(text);
  int file = memfd_create("options", 0);
  ESP_CHECK(file >= 0 && write(file, text, len) == (ssize_t)len);
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  enum esp_code code = esp_options_read_file(path, given, options, st);
  close(file);
  return code;
}

/* The first byte says whether it is flags or a file. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  size_t live = esp_alloc_live();
  struct esp_fuzz_input input = {.at = data, .left = size};
  bool is_flags = esp_fuzz_below(&input, 2) == 0;
  char *text = esp_fuzz_text(&input);
  struct esp_options options = {0};
  struct esp_status st;
  enum esp_code code = is_flags ? read_flags(text, &options, &st) : read_file(text, &options, &st);
  if (code != ESP_OK)
    esp_fuzz_check_failure(code, &st);
  esp_options_done(&options);
  esp_options_done(&options);
  esp_free(text);
  ESP_CHECK(esp_alloc_live() == live);
  return 0;
}
