/* Inside server/options: the table's rows, and how one value is read and printed. */
#ifndef ESP_OPTIONS_TABLE_H
#define ESP_OPTIONS_TABLE_H

#include "options/options.h"

#define ESP_OPTION_MESSAGE_SLACK (UINT64_C(64) << 10) /* what a message may hold beside a chunk of the full size */

enum esp_option_type {
  ESP_OPTION_BOOL,     /* bool */
  ESP_OPTION_COUNT,    /* uint64_t */
  ESP_OPTION_SIZE,     /* uint64_t, bytes */
  ESP_OPTION_DURATION, /* uint64_t, milliseconds */
  ESP_OPTION_CHOICE,   /* uint64_t, place in `words` */
  ESP_OPTION_TEXT,     /* char *, owned */
  ESP_OPTION_LIST,     /* struct esp_options_list: repeatable */
};

enum esp_option_where {
  ESP_OPTION_EVERYWHERE, /* a flag and a key of the file */
  ESP_OPTION_FLAG,       /* a flag only */
  ESP_OPTION_HIDDEN,     /* a flag that help and reference leave out */
};

struct esp_option {
  const char *name;            /* without the dashes; the same in the file */
  enum esp_option_type type;   /* of the value */
  enum esp_option_where where; /* may be given */
  size_t field;                /* the value's offset in struct esp_options */
  uint64_t min, max;           /* of count, size and duration, both included */
  const char *words;           /* choice: "a|b"; text and list: what a value is, as "NAME=EXPR" */
  const char *value;           /* the default, as it would be written; NULL: none, or computed */
  uint64_t (*compute)(void);   /* the default where the machine decides it, or NULL */
  const char *computed;        /* says what compute comes to */
  const char *help;            /* a sentence or two */
};

/* Ends with a row whose name is NULL. */
extern const struct esp_option esp_option_table[];
size_t esp_option_table_len(void);

/* Reads text into the option's field; a list gets one more value. source is "--threads" or "FILE: threads": the
 * message begins with it. */
enum esp_code esp_option_read(const struct esp_option *option, const char *source, const char *text,
                              struct esp_options *options, struct esp_status *st) ESP_WARN_UNUSED;
/* Frees what the option's field holds and zeroes it. */
void esp_option_clear(const struct esp_option *option, struct esp_options *options);
/* What the option takes, as "a size from 1KiB to 1TiB"; into buffer, cut to size; returns buffer. */
const char *esp_option_accepts(const struct esp_option *option, char *buffer, size_t size);

/* Reads the file and gives each of its values to the options that `given` (by place in the table) does not mark. */
enum esp_code esp_options_read_file(const char *path, const bool *given, struct esp_options *options,
                                    struct esp_status *st) ESP_WARN_UNUSED;

/* Facts of the machine, for defaults. */
uint64_t esp_machine_cores(void);  /* that this process may run on; at least 1 */
uint64_t esp_machine_memory(void); /* bytes, of the machine or of the cgroup where that is less */

#endif
