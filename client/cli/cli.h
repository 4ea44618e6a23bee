/* espctl, the operator's program: its parts, for each other and for the tests.
 *
 *   args.c      words of the command line to a struct esp_cli
 *   commands.c  the table of commands, help, and running one
 *   look.c      commands that look: ping, status, tree, digest, version
 *   change.c    commands that change: freeze, thaw, set
 *   files.c     commands that take away: get, export
 *   render.c    what a command prints for people, from plain structs; text.c and table.c below it
 *   json.c      what it prints with --json
 *   exit.c      exit codes
 *
 * One thread. What is printed for people goes to out as text, or as one JSON object with --json; errors go to err. */
#ifndef ESP_CLI_H
#define ESP_CLI_H

#include <espalier/espalier.h>

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/env.h"

/* ---- exit codes ---- */

enum esp_cli_exit {
  ESP_CLI_DONE = 0,
  ESP_CLI_FAILED = 1,
  ESP_CLI_USAGE = 2,
  ESP_CLI_NOT_FOUND = 3,
  ESP_CLI_REFUSED = 4,
  ESP_CLI_NO_ANSWER = 5,
  ESP_CLI_UNIMPLEMENTED = 6,
  ESP_CLI_NOT_PERMITTED = 7,
  ESP_CLI_NO_ROOM = 8
};

enum esp_cli_exit esp_cli_exit_of(enum esp_code code);
void esp_cli_print_exit_codes(FILE *out);

/* ---- the command line ---- */

/* One bit an option: what a command takes, and what was given. */
enum esp_cli_option {
  ESP_CLI_SERVER = 1 << 0,
  ESP_CLI_JSON = 1 << 1,
  ESP_CLI_TIMEOUT = 1 << 2,
  ESP_CLI_DRY_RUN = 1 << 3,
  ESP_CLI_IF_EPOCH = 1 << 4,
  ESP_CLI_MAX_LEAVES = 1 << 5,
  ESP_CLI_RESET_STATE = 1 << 6,
  ESP_CLI_HELP = 1 << 7,
  ESP_CLI_VERSION = 1 << 8
};

/* What every command takes. */
#define ESP_CLI_COMMON (ESP_CLI_SERVER | ESP_CLI_JSON | ESP_CLI_TIMEOUT | ESP_CLI_HELP | ESP_CLI_VERSION)

#define ESP_CLI_ARGS_MAX 2
#define ESP_CLI_SERVER_DEFAULT "127.0.0.1:7433"
#define ESP_CLI_TIMEOUT_MS_DEFAULT 30000

struct esp_cli {
  const struct esp_cli_command *command; /* NULL where the words named none */
  unsigned options;                      /* bits of enum esp_cli_option that were given */
  const char *server;                    /* never NULL once parsed */
  uint64_t timeout_ms;                   /* of each call to the server */
  uint64_t if_epoch;                     /* 0: any */
  uint64_t max_leaves;                   /* 0: no bound */
  const char *args[ESP_CLI_ARGS_MAX];    /* what follows the command; borrowed from argv */
  size_t args_len;
  const struct esp_env *env; /* clock and disk */
  FILE *out;                 /* results */
  FILE *err;                 /* errors */
  esp_client *client;        /* open while a command runs that needs one */
};

struct esp_cli_command {
  const char *name;
  const char *arguments; /* as in the usage line, "" for none */
  size_t args_min;       /* how many arguments there are */
  size_t args_max;       /* at most ESP_CLI_ARGS_MAX */
  unsigned options;      /* that it takes beside the common ones */
  bool local;            /* needs no server */
  bool changes;          /* changes the server: without an answer one has to look */
  const char *summary;   /* one line */
  const char *help;      /* the rest, for `help COMMAND` */
  enum esp_cli_exit (*run)(struct esp_cli *cli);
};

/* Reads the words into cli, whose other fields are set already. INVALID_ARGUMENT is an error of usage. */
enum esp_code esp_cli_parse(struct esp_cli *cli, int argc, char *const *argv, struct esp_status *st) ESP_WARN_UNUSED;
void esp_cli_print_options(FILE *out, unsigned options);
/* "1500ms", "30s", "2m", "1h": 1 ms to 24 hours. */
enum esp_code esp_cli_parse_time(const char *text, uint64_t *ret_ms, struct esp_status *st) ESP_WARN_UNUSED;

/* ---- commands ---- */

const struct esp_cli_command *esp_cli_commands(size_t *ret_len);
const struct esp_cli_command *esp_cli_find_command(const char *name); /* NULL: none */
/* The program: parses, runs, reports. Returns the exit code. */
int esp_cli_main(int argc, char *const *argv, const struct esp_env *env, FILE *out, FILE *err);

/* Reports an error to err: its message and, where it helps, what to do. Returns the exit code. */
enum esp_cli_exit esp_cli_fail(struct esp_cli *cli, const struct esp_status *st);
enum esp_cli_exit esp_cli_usage(struct esp_cli *cli, const char *format, ...) ESP_PRINTF(2, 3);
/* The end of a command that printed: DONE, or an error where out could not be written or `ok` says that JSON could not
 * be made. */
enum esp_cli_exit esp_cli_finish(struct esp_cli *cli, bool ok);

enum esp_cli_exit esp_cli_run_ping(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_status(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_tree(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_digest(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_version(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_help(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_freeze(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_thaw(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_set(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_get(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_export(struct esp_cli *cli);

/* ---- what is printed ---- */

/* For people. Whether it could be written is asked once, by esp_cli_finish. */
void esp_cli_render_status(FILE *out, const char *server, const struct esp_server_info *info);
void esp_cli_render_tree(FILE *out, const struct esp_description *description);
void esp_cli_render_digest(FILE *out, const struct esp_description *description);
void esp_cli_render_apply(FILE *out, const struct esp_apply_result *result);

/* One JSON object and a line feed. Lists stream: memory is that of one item. False: it could not be written, or there
 * was no memory, or the server sent text that is not UTF-8. */
bool esp_cli_json_status(FILE *out, const char *server, const struct esp_server_info *info);
bool esp_cli_json_tree(FILE *out, const struct esp_description *description);
bool esp_cli_json_digest(FILE *out, const struct esp_description *description);
bool esp_cli_json_apply(FILE *out, const struct esp_apply_result *result);
/* Any other object; takes it. NULL, from a failed json_pack, gives false. */
bool esp_cli_json_object(FILE *out, json_t *object);
json_t *esp_cli_json_shape(const uint64_t *dims, unsigned rank); /* NULL without memory */
/* JSON integers are signed here: a number over 2^63-1, which no counter reaches, is given as that. */
json_int_t esp_cli_json_u64(uint64_t value);

/* Text of numbers, into a buffer of ESP_CLI_TEXT_MAX bytes; they return it. */
#define ESP_CLI_TEXT_MAX 64
const char *esp_cli_print_bytes(uint64_t bytes, char *text);            /* "1.5 MiB" */
const char *esp_cli_print_duration(uint64_t ms, char *text);            /* "2h 5m" */
const char *esp_cli_print_digest(const uint8_t digest[16], char *text); /* 32 hexadecimal digits */
const char *esp_cli_print_lineage(uint64_t lineage, char *text);        /* 16 hexadecimal digits */
const char *esp_cli_plural(uint64_t count);                             /* "" or "s" */
/* Characters that text takes on a terminal, each counted as one. */
size_t esp_cli_text_width(const char *text);
/* "[64, 32]", into a buffer of ESP_SHAPE_TEXT_MAX bytes. */
const char *esp_cli_print_shape(const uint64_t *shape, unsigned rank, char *text);

/* A table in which every column is as wide as its widest cell. The rows are asked for twice, once for the widths, so
 * that a million of them need no memory. A column with nothing in it is left out. */
#define ESP_CLI_COLUMNS_MAX 8
#define ESP_CLI_SCRATCH_MAX 9216 /* two paths and a few words */

struct esp_cli_row {
  const char *cells[ESP_CLI_COLUMNS_MAX];                 /* borrowed, or in scratch */
  char scratch[ESP_CLI_COLUMNS_MAX][ESP_CLI_SCRATCH_MAX]; /* room for cells that are made */
};

struct esp_cli_column {
  const char *title; /* NULL in all of them: no line of titles */
  bool right;        /* numbers */
};

struct esp_cli_table {
  const struct esp_cli_column *columns;
  size_t columns_len;
  size_t rows_len;
  void (*row)(const void *data, size_t index, struct esp_cli_row *ret); /* sets a cell for each column */
  const void *data;                                                     /* for row */
};

void esp_cli_table_print(const struct esp_cli_table *table, FILE *out);

#endif
