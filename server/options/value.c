/* Reads one value of an option, from a flag or from the file alike. A value that the option does not take is an
 * INVALID_ARGUMENT that says where it was given, what the option takes and what it got. */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/duration.h"
#include "options/table.h"

struct unit {
  const char *name; /* what follows the number; NULL ends the list */
  uint64_t factor;  /* what the number is multiplied by */
};

/* Largest first: a number is printed in the largest unit that divides it. */
static const struct unit units_size[] = {
    {"TiB", UINT64_C(1) << 40}, {"GiB", UINT64_C(1) << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}, {NULL, 0}};
static const struct unit units_duration[] = {{"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}, {NULL, 0}};
static const struct unit units_count[] = {{"", 1}, {NULL, 0}};

static const struct unit *units_of(enum esp_option_type type) {
  switch (type) {
  case ESP_OPTION_SIZE:
    return units_size;
  case ESP_OPTION_DURATION:
    return units_duration;
  default:
    return units_count;
  }
}

static const char *number_print(enum esp_option_type type, uint64_t number, char *buffer, size_t size) {
  const struct unit *unit = units_of(type);
  while (unit[1].name && (number < unit->factor || number % unit->factor)) {
    unit++;
  }
  snprintf(buffer, size, "%" PRIu64 "%s", number / unit->factor, unit->name);
  return buffer;
}

static bool unit_parse(const struct unit *unit, const char *text, uint64_t *ret) {
  char *end = NULL;
  if (!isdigit((unsigned char)*text)) {
    return false; /* strtoull would take blanks and signs */
  }
  unsigned long long number = strtoull(text, &end, 10); /* beyond its range: the largest, which no option takes */
  while (unit->name && strcmp(unit->name, end) != 0) {
    unit++;
  }
  return unit->name && !__builtin_mul_overflow((uint64_t)number, unit->factor, ret);
}

static bool number_parse(const struct esp_option *option, const char *text, uint64_t *ret) {
  uint64_t number = 0;
  bool taken = option->type == ESP_OPTION_DURATION ? esp_duration_parse(text, &number)
                                                   : unit_parse(units_of(option->type), text, &number);
  if (!taken || number < option->min || number > option->max) {
    return false;
  }
  *ret = number;
  return true;
}

static bool choice_parse(const char *words, const char *text, uint64_t *ret) {
  size_t len = strlen(text);
  for (uint64_t place = 0;; place++) {
    size_t word = strcspn(words, "|");
    if (word == len && memcmp(words, text, len) == 0) {
      *ret = place;
      return true;
    }
    if (!words[word]) {
      return false;
    }
    words += word + 1;
  }
}

static bool bool_parse(const char *text, bool *ret) {
  uint64_t place = 0;
  if (!choice_parse("false|no|off|true|yes|on", text, &place)) {
    return false;
  }
  *ret = place >= 3;
  return true;
}

static enum esp_code fail_memory(struct esp_status *st) {
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for options");
}

static enum esp_code list_add(struct esp_options_list *list, const char *source, const char *text,
                              struct esp_status *st) {
  if (list->len == ESP_OPTIONS_LIST_MAX) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%s is given more than %d times", source, ESP_OPTIONS_LIST_MAX);
  }
  char **items = esp_realloc(list->items, (list->len + 1) * sizeof(*items));
  if (!items) {
    return fail_memory(st);
  }
  list->items = items;
  char *item = esp_strdup(text);
  if (!item) {
    return fail_memory(st);
  }
  items[list->len++] = item;
  return ESP_OK;
}

/* "NAME=EXPR" and the like need their '='. */
static bool text_fits(const struct esp_option *option, const char *text) {
  return strlen(text) <= ESP_OPTIONS_TEXT_BYTES_MAX && (!strchr(option->words, '=') || strchr(text, '='));
}

static enum esp_code text_set(char **field, const char *text, struct esp_status *st) {
  char *copy = esp_strdup(text);
  if (!copy) {
    return fail_memory(st);
  }
  esp_free(*field);
  *field = copy;
  return ESP_OK;
}

enum esp_code esp_option_read(const struct esp_option *option, const char *source, const char *text,
                              struct esp_options *options, struct esp_status *st) {
  void *field = (char *)options + option->field;
  char accepts[256];
  bool taken = false;
  switch (option->type) {
  case ESP_OPTION_BOOL:
    taken = bool_parse(text, field);
    break;
  case ESP_OPTION_CHOICE:
    taken = choice_parse(option->words, text, field);
    break;
  case ESP_OPTION_TEXT:
    if (text_fits(option, text)) {
      return text_set(field, text, st);
    }
    break;
  case ESP_OPTION_LIST:
    if (text_fits(option, text)) {
      return list_add(field, source, text, st);
    }
    break;
  default:
    taken = number_parse(option, text, field);
  }
  if (taken) {
    return ESP_OK;
  }
  return esp_fail(st, ESP_INVALID_ARGUMENT, "%s takes %s, not \"%.200s\"", source,
                  esp_option_accepts(option, accepts, sizeof(accepts)), text);
}

void esp_option_clear(const struct esp_option *option, struct esp_options *options) {
  void *field = (char *)options + option->field;
  if (option->type == ESP_OPTION_TEXT) {
    char **text = field;
    esp_free(*text);
    *text = NULL;
  } else if (option->type == ESP_OPTION_LIST) {
    struct esp_options_list *list = field;
    for (size_t i = 0; i < list->len; i++) {
      esp_free(list->items[i]);
    }
    esp_free(list->items);
    *list = (struct esp_options_list){0};
  }
}

const char *esp_option_accepts(const struct esp_option *option, char *buffer, size_t size) {
  char min[32], max[32];
  switch (option->type) {
  case ESP_OPTION_BOOL:
    snprintf(buffer, size, "true or false");
    break;
  case ESP_OPTION_CHOICE:
    snprintf(buffer, size, "one of %s", option->words);
    for (char *bar = buffer; (bar = strchr(bar, '|'));) {
      *bar = '/';
    }
    break;
  case ESP_OPTION_TEXT:
  case ESP_OPTION_LIST:
    snprintf(buffer, size, "%s", option->words);
    break;
  default:
    snprintf(buffer, size, "a %s from %s to %s%s",
             option->type == ESP_OPTION_SIZE       ? "size"
             : option->type == ESP_OPTION_DURATION ? "duration"
                                                   : "number",
             number_print(option->type, option->min, min, sizeof(min)),
             number_print(option->type, option->max, max, sizeof(max)),
             option->type == ESP_OPTION_SIZE       ? " (bytes, KiB, MiB, GiB, TiB)"
             : option->type == ESP_OPTION_DURATION ? " (ms, s, m, h, d)"
                                                   : "");
  }
  return buffer;
}
