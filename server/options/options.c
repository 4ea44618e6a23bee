/* From argv to struct esp_options: flags first, then the file for what no flag gave, then defaults for what neither
 * gave, then what depends on several of them. On failure the message names the option, and what was read so far is
 * freed by esp_options_done. */
#include "options/options.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "options/table.h"

#define TABLE_LEN_MAX 64
#define FLAG_BASE 256 /* getopt's value of the table's first row: beyond any character */

/* Flags one by one. A list that is repeated grows; of another option the last one counts. */
static enum esp_code flags_read(int argc, char *const *argv, bool *given, struct esp_options *options,
                                struct esp_status *st) {
  struct option flags[TABLE_LEN_MAX + 1] = {0};
  size_t len = esp_option_table_len();
  ESP_CHECK(len <= TABLE_LEN_MAX);
  for (size_t i = 0; i < len; i++) {
    int argument = esp_option_table[i].type == ESP_OPTION_BOOL ? optional_argument : required_argument;
    flags[i] = (struct option){.name = esp_option_table[i].name, .has_arg = argument, .val = FLAG_BASE + (int)i};
  }
  optind = 0; /* glibc: start anew */
  opterr = 0; /* the messages are ours */
  for (;;) {
    int got = getopt_long(argc, argv, "+:h", flags, NULL);
    if (got == -1) {
      break;
    }
    if (got == 'h') {
      options->help = true;
      continue;
    }
    if (got == ':') {
      char accepts[256];
      const struct esp_option *option = &esp_option_table[optopt - FLAG_BASE];
      return esp_fail(st, ESP_INVALID_ARGUMENT, "--%s takes %s, and nothing follows it", option->name,
                      esp_option_accepts(option, accepts, sizeof(accepts)));
    }
    if (got < FLAG_BASE) {
      return esp_fail(st, ESP_INVALID_ARGUMENT, "%s: no such option; espalierd --help lists them", argv[optind - 1]);
    }
    const struct esp_option *option = &esp_option_table[got - FLAG_BASE];
    char source[64];
    snprintf(source, sizeof(source), "--%s", option->name);
    enum esp_code code = esp_option_read(option, source, optarg ? optarg : "true", options, st);
    if (code) {
      return code;
    }
    given[got - FLAG_BASE] = true;
  }
  if (optind < argc) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%s: espalierd takes options only; --help lists them", argv[optind]);
  }
  return ESP_OK;
}

static enum esp_code defaults_set(struct esp_options *options, struct esp_status *st) {
  for (const struct esp_option *option = esp_option_table; option->name; option++) {
    if (option->compute) {
      *(uint64_t *)((char *)options + option->field) = option->compute();
    } else if (option->value && option->type != ESP_OPTION_LIST) {
      enum esp_code code = esp_option_read(option, option->name, option->value, options, st);
      if (code) {
        return code;
      }
    }
  }
  return ESP_OK;
}

/* A list has its default where nothing was given; of `group` the default is the group "default", unless that is given.
 */
static enum esp_code list_defaults_set(struct esp_options *options, struct esp_status *st) {
  for (const struct esp_option *option = esp_option_table; option->name; option++) {
    if (option->type != ESP_OPTION_LIST || !option->value) {
      continue;
    }
    const struct esp_options_list *list = (const void *)((const char *)options + option->field);
    bool there = list->len > 0;
    if (list == &options->group) {
      there = false;
      for (size_t i = 0; i < list->len; i++) {
        there = there || strncmp(list->items[i], "default=", 8) == 0;
      }
    }
    enum esp_code code = there ? ESP_OK : esp_option_read(option, option->name, option->value, options, st);
    if (code) {
      return code;
    }
  }
  return ESP_OK;
}

/* Cuts each "A=B" at its first '=': neither a group's name nor a path has one. */
static enum esp_code named_split(const struct esp_options_list *list, struct esp_named **ret, struct esp_status *st) {
  struct esp_named *named = esp_calloc(list->len + 1, sizeof(*named));
  if (!named) {
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for options");
  }
  for (size_t i = 0; i < list->len; i++) {
    char *cut = strchr(list->items[i], '=');
    ESP_CHECK(cut);
    *cut = 0;
    named[i] = (struct esp_named){.name = list->items[i], .value = cut + 1};
  }
  *ret = named;
  return ESP_OK;
}

/* The word of the choice goes to the one parser of instruction sets, which knows the machine. */
static enum esp_code isa_resolve(struct esp_options *options, struct esp_status *st) {
  if (options->isa_choice == 0) {
    return esp_isa_parse("auto", &options->isa, st);
  }
  return esp_isa_parse(esp_isa_name((enum esp_isa)(options->isa_choice - 1)), &options->isa, st);
}

/* Options that have to agree. */
static enum esp_code agreement_check(const struct esp_options *options, struct esp_status *st) {
  if (options->max_message >= options->max_chunk + ESP_OPTION_MESSAGE_SLACK) {
    return ESP_OK;
  }
  return esp_fail(st, ESP_INVALID_ARGUMENT,
                  "--max-message (%" PRIu64 " bytes) has no room for --max-chunk (%" PRIu64 ") and %" PRIu64
                  " more for what is around it",
                  options->max_message, options->max_chunk, ESP_OPTION_MESSAGE_SLACK);
}

enum esp_code esp_options_parse(int argc, char *const *argv, struct esp_options *ret, struct esp_status *st) {
  bool given[TABLE_LEN_MAX] = {0};
  enum esp_code code = ESP_OK;
  *ret = (struct esp_options){0};
  if ((code = defaults_set(ret, st)) || (code = flags_read(argc, argv, given, ret, st))) {
    return code;
  }
  if (ret->help || ret->version || ret->print_markdown) {
    return ESP_OK;
  }
  if (ret->config && (code = esp_options_read_file(ret->config, given, ret, st))) {
    return code;
  }
  if ((code = list_defaults_set(ret, st)) || (code = named_split(&ret->group, &ret->groups, st)) ||
      (code = named_split(&ret->assign, &ret->assigns, st)) || (code = agreement_check(ret, st))) {
    return code;
  }
  return isa_resolve(ret, st);
}

void esp_options_done(struct esp_options *options) {
  for (const struct esp_option *option = esp_option_table; option->name; option++) {
    esp_option_clear(option, options);
  }
  esp_free(options->groups);
  esp_free(options->assigns);
  options->groups = NULL;
  options->assigns = NULL;
}
