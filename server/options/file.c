/* The YAML file: a mapping from the options' names to their values, read through libcyaml by a schema that is built
 * from the table. libcyaml checks the shape (unknown and repeated keys, a list where one belongs); every scalar is
 * taken as text and goes through the parser that reads flags. On failure the first thing that libcyaml complained of
 * becomes the message, with its line. */
#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "options/table.h"

/* What libcyaml loads: of each option either a text or a list. */
struct slot {
  char *text;           /* of an option that is no list, or NULL */
  char **items;         /* of a list */
  uint64_t items_count; /* as libcyaml counts */
};

/* libcyaml's complaint: the first line of its log, and the place from its backtrace. */
struct complaint {
  char text[256];  /* "" for none */
  char place[128]; /* "" for none */
};

/* Of every list. */
static const cyaml_schema_value_t item_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, ESP_OPTIONS_TEXT_BYTES_MAX)};

static void *memory(void *ctx, void *ptr, size_t size) {
  (void)ctx;
  if (size == 0) {
    esp_free(ptr);
    return NULL;
  }
  return esp_realloc(ptr, size);
}

static ESP_PRINTF(3, 0) void complain(cyaml_log_t level, void *ctx, const char *format, va_list args) {
  struct complaint *complaint = ctx;
  char line[256];
  (void)level;
  vsnprintf(line, sizeof(line), format, args);
  line[strcspn(line, "\n")] = 0;
  const char *place = strrchr(line, '(');
  if (strncmp(line, "  in ", 5) == 0) {
    if (!complaint->place[0] && place) {
      snprintf(complaint->place, sizeof(complaint->place), " %.100s", place);
    }
  } else if (!complaint->text[0] && !strstr(line, "Backtrace")) {
    snprintf(complaint->text, sizeof(complaint->text), "%s", line + (strncmp(line, "Load: ", 6) == 0 ? 6 : 0));
  }
}

static bool in_file(const struct esp_option *option) {
  return option->where == ESP_OPTION_EVERYWHERE;
}

/* One row of the schema; the slot's offset is what ties it to the table. */
static cyaml_schema_field_t row_of(const struct esp_option *option, size_t place) {
  size_t slot = place * sizeof(struct slot);
  cyaml_schema_field_t row = {.key = option->name};
  if (option->type == ESP_OPTION_LIST) {
    row.data_offset = (uint32_t)(slot + offsetof(struct slot, items));
    row.count_offset = (uint32_t)(slot + offsetof(struct slot, items_count));
    row.count_size = sizeof(uint64_t);
    row.value = (cyaml_schema_value_t){
        CYAML_VALUE_SEQUENCE(CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, char *, &item_schema, 1, ESP_OPTIONS_LIST_MAX)};
  } else {
    row.data_offset = (uint32_t)(slot + offsetof(struct slot, text));
    row.value = (cyaml_schema_value_t){
        CYAML_VALUE_STRING(CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, char, 0, ESP_OPTIONS_TEXT_BYTES_MAX)};
  }
  return row;
}

static enum esp_code fail_load(const char *path, cyaml_err_t err, const struct complaint *complaint,
                               struct esp_status *st) {
  switch (err) {
  case CYAML_ERR_OOM:
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "--config %s: no memory", path);
  case CYAML_ERR_FILE_OPEN:
    return esp_fail(st, ESP_NOT_FOUND, "--config %s: %s", path, strerror(errno));
  case CYAML_ERR_INVALID_KEY: /* the place would be that of the key before */
    return esp_fail(st, ESP_INVALID_ARGUMENT, "--config %s: %s; the keys are the options that --help lists", path,
                    complaint->text);
  default:
    return esp_fail(st, ESP_INVALID_ARGUMENT, "--config %s: %s%s", path,
                    complaint->text[0] ? complaint->text : cyaml_strerror(err), complaint->place);
  }
}

/* Gives one slot's values to its option. */
static enum esp_code slot_read(const char *path, const struct esp_option *option, const struct slot *slot,
                               struct esp_options *options, struct esp_status *st) {
  char source[512];
  snprintf(source, sizeof(source), "--config %.400s: %s", path, option->name);
  enum esp_code code = ESP_OK;
  if (slot->text) {
    code = esp_option_read(option, source, slot->text, options, st);
  }
  for (uint64_t i = 0; i < slot->items_count && !code; i++) {
    code = esp_option_read(option, source, slot->items[i], options, st);
  }
  return code;
}

enum esp_code esp_options_read_file(const char *path, const bool *given, struct esp_options *options,
                                    struct esp_status *st) {
  size_t len = esp_option_table_len();
  struct complaint complaint = {0};
  struct slot *slots = NULL;
  enum esp_code code = ESP_OK;
  const cyaml_config_t config = {.log_fn = complain,
                                 .log_ctx = &complaint,
                                 .mem_fn = memory,
                                 .log_level = CYAML_LOG_ERROR,
                                 .flags = CYAML_CFG_NO_ALIAS};
  cyaml_schema_field_t *rows = esp_calloc(len + 1, sizeof(*rows));
  if (!rows) {
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "--config %s: no memory", path);
  }
  size_t rows_len = 0;
  for (size_t i = 0; i < len; i++) {
    if (in_file(&esp_option_table[i])) {
      rows[rows_len++] = row_of(&esp_option_table[i], i);
    }
  }
  const cyaml_schema_value_t top = {.type = CYAML_MAPPING,
                                    .flags = CYAML_FLAG_POINTER,
                                    .data_size = (uint32_t)(len * sizeof(*slots)),
                                    .mapping = {.fields = rows}};
  cyaml_err_t err = cyaml_load_file(path, &config, &top, (cyaml_data_t **)&slots, NULL);
  if (err) {
    code = fail_load(path, err, &complaint, st);
  }
  for (size_t i = 0; i < len && slots && !code; i++) { /* an empty file loads as nothing */
    if (!given[i]) {
      code = slot_read(path, &esp_option_table[i], &slots[i], options, st);
    }
  }
  cyaml_free(&config, &top, slots, 0);
  esp_free(rows);
  return code;
}
