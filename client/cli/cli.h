/* espctl, the operator's program: its parts, for each other and for the tests.
 *
 *   args.c      words of the command line to a struct esp_cli
 *   commands.c  the table of commands, help, and running one
 *   look.c      commands that look: ping, status, tree, select, groups, digest, workers, timers, version
 *   watch.c     watch: what changes in the tree, as it happens
 *   top.c       top: numbers of a live server, again and again; terminal.c is the terminal
 *   operate.c   commands that change the tree: words to operations, dry run, asking, applying
 *   plan.c      operations in words (formats/plan.h) to those of the library
 *   group.c     group create, set, show, delete
 *   history.c   history
 *   explain.c   explain
 *   files.c     get: a tensor to a file
 *   export.c    export: the tree to a file
 *   complete.c  what the shell's completion asks for
 *   render.c    what a command prints for people, from plain structs; render_top.c for top, render_apply.c for diffs;
 * text.c and table.c below json.c      what it prints with --json groups.c    what is in each group, added up;
 * workers.c: workers in the order in which they are shown exit.c      exit codes
 *
 * One thread. What is printed for people goes to out as text, or as JSON with --json; errors go to err. */
#ifndef ESP_CLI_H
#define ESP_CLI_H

#include <espalier/admin.h>

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/dtype.h"
#include "base/env.h"
#include "formats/plan.h"

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
  ESP_CLI_VERSION = 1 << 8,
  ESP_CLI_INTERVAL = 1 << 9,
  ESP_CLI_COUNT = 1 << 10,
  ESP_CLI_PIECEWISE = 1 << 11,
  ESP_CLI_YES = 1 << 12,
  ESP_CLI_REASON = 1 << 13,
  ESP_CLI_EXPRESSION = 1 << 14, /* -e */
  ESP_CLI_STATE = 1 << 15,
  ESP_CLI_VALUE = 1 << 16,
  ESP_CLI_TRANSPOSE = 1 << 17,
  ESP_CLI_INIT = 1 << 18,
  ESP_CLI_SEED = 1 << 19,
  ESP_CLI_KIND = 1 << 20,
  ESP_CLI_TAG = 1 << 21,
  ESP_CLI_GROUP = 1 << 22,
  ESP_CLI_FROZEN = 1 << 23,
  ESP_CLI_DETACHED = 1 << 24,
  ESP_CLI_ALIAS_OF = 1 << 25,
  ESP_CLI_FOR = 1 << 26,
  ESP_CLI_UNTIL_COMMIT = 1 << 27,
  ESP_CLI_AT_COMMIT = 1 << 28,
  ESP_CLI_ONE_BY_ONE = 1 << 29,
  ESP_CLI_EVERY = 1 << 30
};

/* What every command takes. */
#define ESP_CLI_COMMON (ESP_CLI_SERVER | ESP_CLI_JSON | ESP_CLI_TIMEOUT | ESP_CLI_HELP | ESP_CLI_VERSION)

/* What commands take that go on until they are ended. */
#define ESP_CLI_LASTING (ESP_CLI_INTERVAL | ESP_CLI_COUNT)

#define ESP_CLI_ARGS_MAX 64
#define ESP_CLI_WORDS_MAX 32
#define ESP_CLI_MAX_LEAVES_DEFAULT 10000
#define ESP_CLI_SERVER_DEFAULT "127.0.0.1:7433"
#define ESP_CLI_TIMEOUT_MS_DEFAULT 30000
#define ESP_CLI_INTERVAL_MS_DEFAULT 1000

struct esp_cli {
  const struct esp_cli_command *command; /* NULL where the words named none */
  unsigned options;                      /* bits of enum esp_cli_option that were given */
  const char *server;                    /* never NULL once parsed */
  uint64_t timeout_ms;                   /* of each call to the server */
  uint64_t if_epoch;                     /* 0: any */
  uint64_t max_leaves;                   /* 0: not given */
  const char *reason;                    /* for the history; NULL: not given */
  uint64_t interval_ms;                  /* from one snapshot to the next */
  uint64_t count;                        /* lines or snapshots after which to end; 0: no end */
  const char *args[ESP_CLI_ARGS_MAX];    /* what follows the command; borrowed from argv */
  size_t args_len;
  const char *words[ESP_CLI_WORDS_MAX]; /* options of the operation, each with its argument behind it */
  size_t words_len;
  const char *expressions[ESP_CLI_ARGS_MAX]; /* of -e */
  size_t expressions_len;
  const struct esp_env *env; /* clock and disk */
  FILE *out;                 /* results */
  FILE *err;                 /* errors */
  int write_errno;           /* why out could not be written; 0: not known */
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
  bool repeats;          /* asks again by itself: a call is sent once, and soon given up */
  const char *summary;   /* one line */
  const char *help;      /* the rest, for `help COMMAND` */
  enum esp_cli_exit (*run)(struct esp_cli *cli);
};

/* Reads the words into cli, whose other fields are set already. INVALID_ARGUMENT is an error of usage. */
enum esp_code esp_cli_parse(struct esp_cli *cli, int argc, char *const *argv, struct esp_status *st) ESP_WARN_UNUSED;
void esp_cli_print_options(FILE *out, unsigned options);
/* The names of these options that begin with prefix, as "--json", one a line. */
void esp_cli_complete_options(FILE *out, unsigned options, const char *prefix);
/* Whether the word is an option that takes the next word as its argument. */
bool esp_cli_option_takes_next(const char *word);
/* "1500ms", "30s", "1h30m" (base/duration.h): 1 ms to 24 hours. */
enum esp_code esp_cli_parse_time(const char *text, uint64_t *ret_ms, struct esp_status *st) ESP_WARN_UNUSED;

/* ---- commands ---- */

const struct esp_cli_command *esp_cli_commands(size_t *ret_len);
const struct esp_cli_command *esp_cli_find_command(const char *name); /* NULL: none */
/* The program: parses, runs, reports. Returns the exit code. */
int esp_cli_main(int argc, char *const *argv, const struct esp_env *env, FILE *out, FILE *err);

/* `espctl complete WORDS...`: prints what may stand in place of the last word, one candidate a line. The words are
 * those of a line that is being typed, after "espctl". "<files>" stands for the names of files. Prints no error: the
 * exit code has it. */
enum esp_cli_exit esp_cli_complete(struct esp_cli *cli, int argc, char *const *argv);

/* Reports an error to err: its message and, where it helps, what to do. Returns the exit code. */
enum esp_cli_exit esp_cli_fail(struct esp_cli *cli, const struct esp_status *st);
enum esp_cli_exit esp_cli_usage(struct esp_cli *cli, const char *format, ...) ESP_PRINTF(2, 3);
/* Whether the file is there and is no ordinary one. A file is replaced by a new one of its name, which would make a
 * file of a device or a pipe. */
bool esp_cli_is_special(const char *file);
/* Writes out what was printed so far. False: it cannot be written, and the command is to end. */
bool esp_cli_flush(struct esp_cli *cli);
/* The end of a command that printed: DONE, or an error where out could not be written or `ok` says that JSON could not
 * be made. */
enum esp_cli_exit esp_cli_finish(struct esp_cli *cli, bool ok);

enum esp_cli_exit esp_cli_run_ping(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_status(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_tree(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_groups(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_digest(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_workers(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_history(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_timers(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_explain(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_watch(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_top(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_version(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_help(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_select(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_operation(struct esp_cli *cli); /* of every command that is one operation */
enum esp_cli_exit esp_cli_run_group(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_apply(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_get(struct esp_cli *cli);
enum esp_cli_exit esp_cli_run_export(struct esp_cli *cli);

/* ---- operations ---- */

/* Operations of the library, made of those of a plan, whose strings they use. */
struct esp_cli_ops {
  struct esp_op *ops; /* owned */
  size_t len;
  struct esp_leaf_spec *leaves; /* owned: those that are added */
  struct esp_hyper *hypers;     /* owned: those of all adjusts */
};
/* Reads and uploads the files of `set`. NOT_FOUND for no such file, INVALID_ARGUMENT for what is no array,
 * RESOURCE_EXHAUSTED without memory, and what esp_stage returns. */
enum esp_code esp_cli_ops_make(struct esp_cli *cli, const struct esp_plan *plan, struct esp_cli_ops *ret,
                               struct esp_status *st) ESP_WARN_UNUSED;
void esp_cli_ops_done(struct esp_cli_ops *ops); /* idempotent */
/* Applies the operations as one transaction, asking first where there are many leaves; prints what changed. */
enum esp_cli_exit esp_cli_apply_plan(struct esp_cli *cli, const struct esp_plan *plan);

/* ---- sums ---- */

/* What is in a group; what tied leaves share counts once. */
struct esp_cli_group {
  const struct esp_group_info *info; /* of the description */
  uint64_t leaves;
  uint64_t leaves_frozen;
  uint64_t elements;
  uint64_t elements_frozen;
  uint64_t bytes; /* of the values */
  uint64_t state_bytes;
};

/* One for each of the description's groups, in its order: free it with esp_free. NULL without memory. */
struct esp_cli_group *esp_cli_groups_sum(const struct esp_description *description);

/* The workers, the most stale first: free it with esp_free; strings are those of the list. NULL without memory. */
struct esp_worker_info *esp_cli_workers_sort(const struct esp_workers *list);

/* ---- what watch and top have found out ---- */

/* One change of one leaf, or of the server. */
struct esp_cli_change {
  uint64_t wall_ms; /* when espctl heard of it, since 1970 */
  uint64_t epoch;
  uint64_t commit;
  uint64_t lineage;
  esp_leaf_id leaf; /* 0: of no leaf */
  const char *path; /* "" of no leaf */
  const char *what; /* added, frozen, ... */
};

/* What happens in a second, from two answers of the server. */
struct esp_cli_rates {
  double pushes;
  double pulls;
  double bytes_pushed;
  double bytes_pulled;
  double refused;
  double nonfinite;
};

/* One snapshot. Where there was no answer, numbers are those of the last one. */
struct esp_cli_snapshot {
  const char *server;
  uint64_t wall_ms;            /* when it was made, since 1970 */
  struct esp_status st;        /* why there was no answer; code ESP_OK: there was */
  uint64_t silent_ms;          /* since the last answer, or the start */
  bool has_info;               /* there was an answer, now or before */
  struct esp_server_info info; /* of the last answer */
  bool has_rates;              /* this answer and the one before are of one server */
  struct esp_cli_rates rates;
  struct esp_status workers_st;        /* why the workers are not known */
  struct esp_worker_info *workers;     /* owned; sorted; NULL: not known */
  struct esp_workers *workers_list;    /* owned; what workers is of */
  struct esp_status groups_st;         /* why the groups are not known */
  struct esp_cli_group *groups;        /* owned; NULL: not known */
  struct esp_description *description; /* owned; what groups is of */
};

/* ---- what is printed ---- */

/* For people. Whether it could be written is asked once, by esp_cli_finish. */
void esp_cli_render_status(FILE *out, const char *server, const struct esp_server_info *info);
/* The lines about the server, its tree and its order, which status and top begin with. */
void esp_cli_render_head(FILE *out, const char *server, const struct esp_server_info *info);
void esp_cli_render_network(FILE *out, const struct esp_server_info *info);
/* Memory by kind, one a line; where bar_width is not 0, those that have a bound with a bar of so many characters. */
void esp_cli_render_memory(FILE *out, const struct esp_server_info *info, unsigned bar_width);
void esp_cli_render_tree(FILE *out, const struct esp_description *description);
void esp_cli_render_selected(FILE *out, const struct esp_description *description);
/* A group and its leaves, of which members has the indices in the description. */
void esp_cli_render_group(FILE *out, const struct esp_cli_group *group, const struct esp_description *description,
                          const size_t *members);
void esp_cli_render_groups(FILE *out, const struct esp_cli_group *groups, size_t len);
void esp_cli_render_workers(FILE *out, const struct esp_worker_info *workers, size_t len);
void esp_cli_render_timers(FILE *out, const struct esp_timers *timers);
void esp_cli_render_digest(FILE *out, const struct esp_description *description);
void esp_cli_render_apply(FILE *out, const struct esp_apply_result *result);
void esp_cli_render_history(FILE *out, const struct esp_history *history);
void esp_cli_render_change(FILE *out, const struct esp_cli_change *change);
/* At most `rows` lines (but for the first twelve, which are always there), meant for so many columns. */
void esp_cli_render_snapshot(FILE *out, const struct esp_cli_snapshot *snapshot, unsigned columns, unsigned rows);

/* One JSON object and a line feed. Lists stream: memory is that of one item. False: it could not be written, or there
 * was no memory, or the server sent text that is not UTF-8. */
bool esp_cli_json_status(FILE *out, const char *server, const struct esp_server_info *info);
bool esp_cli_json_tree(FILE *out, const struct esp_description *description);
bool esp_cli_json_groups(FILE *out, const struct esp_description *description, const struct esp_cli_group *groups);
bool esp_cli_json_group(FILE *out, const struct esp_cli_group *group, const struct esp_description *description,
                        const size_t *members);
bool esp_cli_json_workers(FILE *out, const struct esp_worker_info *workers, size_t len);
bool esp_cli_json_timers(FILE *out, const struct esp_timers *timers);
bool esp_cli_json_digest(FILE *out, const struct esp_description *description);
bool esp_cli_json_apply(FILE *out, const struct esp_apply_result *result);
bool esp_cli_json_explain(FILE *out, const struct esp_explanation *explanation);
bool esp_cli_json_history(FILE *out, const struct esp_history *history);
bool esp_cli_json_change(FILE *out, const struct esp_cli_change *change);       /* on one line */
bool esp_cli_json_snapshot(FILE *out, const struct esp_cli_snapshot *snapshot); /* on one line */
/* Any other object; takes it. NULL, from a failed json_pack, gives false. */
bool esp_cli_json_object(FILE *out, json_t *object);
json_t *esp_cli_json_shape(const uint64_t *dims, unsigned rank); /* NULL without memory */
/* JSON integers are signed here: a number over 2^63-1, which no counter reaches, is given as that. */
json_int_t esp_cli_json_u64(uint64_t value);

/* Text of numbers, into a buffer of ESP_CLI_TEXT_MAX bytes; they return it. */
#define ESP_CLI_TEXT_MAX 64
const char *esp_cli_print_bytes(uint64_t bytes, char *text);  /* "1.5 MiB" */
const char *esp_cli_print_duration(uint64_t ms, char *text);  /* "2h 5m" */
const char *esp_cli_print_time(uint64_t wall_ms, char *text); /* "2026-01-31T17:04:05.678Z" */
/* "3", or "3 of at most 64" where there is a bound. */
const char *esp_cli_print_of(uint64_t count, uint64_t bound, char *text);
const char *esp_cli_print_digest(const uint8_t digest[16], char *text); /* 32 hexadecimal digits */
const char *esp_cli_print_id(uint64_t id, char *text); /* of a lineage or session: 16 hexadecimal digits */
const char *esp_cli_plural(uint64_t count);            /* "" or "s" */
/* "42%", "<1%" of what is not nothing, ">99%" of what is not all; "-" for nothing. */
const char *esp_cli_print_share(uint64_t part, uint64_t whole, char *text);
/* Text that a peer wrote, for a terminal: a control character, which could move the cursor or worse, becomes "?". Cut
 * to the room that there is. */
const char *esp_cli_print_plain(const char *text, char *ret, size_t size);
/* Characters that text takes on a terminal, each counted as one. */
size_t esp_cli_text_width(const char *text);
struct esp_shape esp_cli_shape_of(const uint64_t *dims, unsigned rank);
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
