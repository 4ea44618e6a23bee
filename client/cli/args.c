/* The command line: options may stand before or after the command, each command says which it takes. One table of
 * options serves parsing, help and the complaint about one in the wrong place.
 *
 * An error of usage is INVALID_ARGUMENT with a sentence that says what was expected. */
#include <ctype.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/duration.h"
#include "client/cli/cli.h"

#define TIME_MS_MAX (24 * UINT64_C(3600000))

static const struct {
  const char *word;     /* with its dashes */
  const char *argument; /* NULL: takes none */
  const char *help;
  enum esp_cli_option option;
  bool is_operation; /* is the operation's, and handed on to what reads its words */
} options[] = {
    {"--server", "ADDR", "as 127.0.0.1:7433 or unix:/path; else $ESPALIER_SERVER", ESP_CLI_SERVER, false},
    {"--json", NULL, "print JSON instead of text", ESP_CLI_JSON, false},
    {"--timeout", "TIME", "keep trying for this long: 500ms, 30s, 2m", ESP_CLI_TIMEOUT, false},
    {"--dry-run", NULL, "print what would change, and change nothing", ESP_CLI_DRY_RUN, false},
    {"--if-epoch", "N", "refuse unless the tree is still at this epoch", ESP_CLI_IF_EPOCH, false},
    {"--max-leaves", "N", "ask before more leaves than this, 10000 if not given", ESP_CLI_MAX_LEAVES, false},
    {"--yes", NULL, "do not ask, however many leaves it is", ESP_CLI_YES, false},
    {"--reason", "TEXT", "why, for the history", ESP_CLI_REASON, false},
    {"--operation", "OPERATION", "an operation, as a line of FILE; again for more", ESP_CLI_EXPRESSION, false},
    {"--reset-state", NULL, "start the optimizer of these leaves afresh", ESP_CLI_RESET_STATE, true},
    {"--for", "TIME", "thaw them again after this long: 500ms, 10m, 1h30m", ESP_CLI_FOR, true},
    {"--until-commit", "N", "thaw them again at commit N", ESP_CLI_UNTIL_COMMIT, true},
    {"--at-commit", "N", "not now, but at commit N", ESP_CLI_AT_COMMIT, true},
    {"--one-by-one", NULL, "node after node in SELECTION's order, with --every", ESP_CLI_ONE_BY_ONE, true},
    {"--every", "N", "the next after N commits of pushes", ESP_CLI_EVERY, true},
    {"--state", "WHAT", "the new optimizer state: copy (default) or reset", ESP_CLI_STATE, true},
    {"--value", "WHAT", "the value after: keep (TO's, default) or mean", ESP_CLI_VALUE, true},
    {"--transpose", NULL, "it sees the other leaf's tensor transposed", ESP_CLI_TRANSPOSE, true},
    {"--init", "INIT", "first value: zeros, constant(x), normal(m,s), ...", ESP_CLI_INIT, true},
    {"--seed", "N", "of uniform and normal: the same gives the same bits", ESP_CLI_SEED, true},
    {"--kind", "WHAT", "trained (default) or buffer", ESP_CLI_KIND, true},
    {"--tag", "NAME", "its layer type, for tag: selectors", ESP_CLI_TAG, true},
    {"--group", "GROUP", "its optimizer group; else the nearest node's", ESP_CLI_GROUP, true},
    {"--frozen", NULL, "it is born frozen", ESP_CLI_FROZEN, true},
    {"--detached", NULL, "it is born detached", ESP_CLI_DETACHED, true},
    {"--alias-of", "LEAF", "it is born tied to this leaf, whose value it has", ESP_CLI_ALIAS_OF, true},
    {"--piecewise", NULL, "in pieces that may be of different commits", ESP_CLI_PIECEWISE, false},
    {"--interval", "TIME", "from one snapshot to the next, 1s if not given", ESP_CLI_INTERVAL, false},
    {"--count", "N", "end after so many lines, or snapshots", ESP_CLI_COUNT, false},
    {"--help", NULL, "print help, of a command where one is named", ESP_CLI_HELP, false},
    {"--version", NULL, "print espctl's version", ESP_CLI_VERSION, false},
};
#define OPTIONS_LEN (sizeof options / sizeof options[0])
#define OPTION_FOUND 256 /* what getopt_long returns for the first option; the next is one more */

void esp_cli_print_options(FILE *out, unsigned mask) {
  for (size_t i = 0; i < OPTIONS_LEN; i++) {
    if ((options[i].option & mask) == 0)
      continue;
    char name[32];
    snprintf(name, sizeof name, "%s%s%s", options[i].option == ESP_CLI_EXPRESSION ? "-e" : options[i].word,
             options[i].argument != NULL ? " " : "", options[i].argument != NULL ? options[i].argument : "");
    fprintf(out, "  %-16s  %s\n", name, options[i].help);
  }
}

void esp_cli_complete_options(FILE *out, unsigned mask, const char *prefix) {
  for (size_t i = 0; i < OPTIONS_LEN; i++)
    if ((options[i].option & mask) != 0 && strncmp(options[i].word, prefix, strlen(prefix)) == 0)
      fprintf(out, "%s\n", options[i].word);
}

bool esp_cli_option_takes_next(const char *word) {
  for (size_t i = 0; i < OPTIONS_LEN; i++)
    if (strcmp(word, options[i].word) == 0)
      return options[i].argument != NULL;
  return strcmp(word, "-e") == 0;
}

/* Reads decimal digits; false where there are none or the number is over 2^64-1. *ret_end is what follows them. */
static bool read_digits(const char *text, uint64_t *ret, const char **ret_end) {
  uint64_t value = 0;
  const char *at = text;
  for (; *at >= '0' && *at <= '9'; at++) {
    unsigned digit = (unsigned)(*at - '0');
    if (value > (UINT64_MAX - digit) / 10)
      return false;
    value = value * 10 + digit;
  }
  *ret = value;
  *ret_end = at;
  return at != text;
}

enum esp_code esp_cli_parse_time(const char *text, uint64_t *ret_ms, struct esp_status *st) {
  uint64_t ms = 0;
  if (!esp_duration_parse(text, &ms) || ms == 0 || ms > TIME_MS_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "'%s' is no time; expected 1ms to 24h, as 500ms, 30s, 2m, 1h30m", text);
  *ret_ms = ms;
  return ESP_OK;
}

static enum esp_code parse_number(const char *name, const char *text, uint64_t *ret, struct esp_status *st) {
  uint64_t value = 0;
  const char *end = NULL;
  if (!read_digits(text, &value, &end) || *end != '\0' || value == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "--%s '%s': expected a number from 1", name, text);
  *ret = value;
  return ESP_OK;
}

/* A word of the operation. */
static enum esp_code take_operation_word(struct esp_cli *cli, const char *word, struct esp_status *st) {
  if (cli->words_len == ESP_CLI_WORDS_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "there are too many options");
  cli->words[cli->words_len++] = word;
  return ESP_OK;
}

static enum esp_code take_expression(struct esp_cli *cli, const char *text, struct esp_status *st) {
  if (cli->expressions_len == ESP_CLI_ARGS_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "there are more than %d -e; write them to a file, one a line",
                    ESP_CLI_ARGS_MAX);
  cli->expressions[cli->expressions_len++] = text;
  return ESP_OK;
}

/* One option that was found, with its argument. */
static enum esp_code take_option(struct esp_cli *cli, enum esp_cli_option option, const char *argument,
                                 struct esp_status *st) {
  cli->options |= option;
  switch (option) {
  case ESP_CLI_SERVER:
    cli->server = argument;
    return argument[0] != '\0' ? ESP_OK : esp_fail(st, ESP_INVALID_ARGUMENT, "--server needs an address");
  case ESP_CLI_TIMEOUT:
    return esp_cli_parse_time(argument, &cli->timeout_ms, st);
  case ESP_CLI_IF_EPOCH:
    return parse_number("if-epoch", argument, &cli->if_epoch, st);
  case ESP_CLI_MAX_LEAVES:
    return parse_number("max-leaves", argument, &cli->max_leaves, st);
  case ESP_CLI_INTERVAL:
    return esp_cli_parse_time(argument, &cli->interval_ms, st);
  case ESP_CLI_COUNT:
    return parse_number("count", argument, &cli->count, st);
  case ESP_CLI_REASON:
    cli->reason = argument;
    return ESP_OK;
  case ESP_CLI_EXPRESSION:
    return take_expression(cli, argument, st);
  default:
    return ESP_OK;
  }
}

/* The same by its place in the table. */
static enum esp_code take_option_at(struct esp_cli *cli, size_t index, const char *argument, struct esp_status *st) {
  enum esp_code code = take_option(cli, options[index].option, argument, st);
  if (code != ESP_OK || !options[index].is_operation)
    return code;
  code = take_operation_word(cli, options[index].word, st);
  return code == ESP_OK && argument != NULL ? take_operation_word(cli, argument, st) : code;
}

/* A word that is no option: the command, then its arguments. */
static enum esp_code take_word(struct esp_cli *cli, const char *word, struct esp_status *st) {
  if (cli->command == NULL) {
    cli->command = esp_cli_find_command(word);
    return cli->command != NULL
               ? ESP_OK
               : esp_fail(st, ESP_INVALID_ARGUMENT, "there is no command '%s'; espctl help lists them", word);
  }
  if (cli->args_len == cli->command->args_max) {
    if (cli->args_len == 0)
      return esp_fail(st, ESP_INVALID_ARGUMENT, "%s takes no arguments, and got '%s'", cli->command->name, word);
    return esp_fail(st, ESP_INVALID_ARGUMENT,
                    "%s takes no more than %s, and got '%s' too; a selection with * or spaces needs quotes",
                    cli->command->name, cli->command->arguments, word);
  }
  cli->args[cli->args_len++] = word;
  return ESP_OK;
}

static enum esp_code check(const struct esp_cli *cli, struct esp_status *st) {
  const struct esp_cli_command *command = cli->command;
  if (command == NULL || (cli->options & (ESP_CLI_HELP | ESP_CLI_VERSION)) != 0)
    return ESP_OK;
  unsigned misplaced = cli->options & ~(command->options | ESP_CLI_COMMON);
  for (size_t i = 0; i < OPTIONS_LEN; i++)
    if ((misplaced & options[i].option) != 0)
      return esp_fail(st, ESP_INVALID_ARGUMENT, "%s takes no %s; espctl help %s lists what it takes", command->name,
                      options[i].word, command->name);
  if (cli->args_len < command->args_min)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%s needs %s; see espctl help %s", command->name, command->arguments,
                    command->name);
  return ESP_OK;
}

/* What getopt_long found: a word (1), an option (its place), or an error. */
static enum esp_code take_found(struct esp_cli *cli, int found, const char *where, struct esp_status *st) {
  if (found == 1)
    return take_word(cli, optarg, st);
  if (found == 'h')
    return take_option(cli, ESP_CLI_HELP, NULL, st);
  if (found == ':')
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%s needs a value; see espctl help", where);
  if (found == '?')
    return esp_fail(st, ESP_INVALID_ARGUMENT, "espctl has no option %s, or it is not given like that; see espctl help",
                    where);
  if (found == 'e')
    return take_option(cli, ESP_CLI_EXPRESSION, optarg, st);
  return take_option_at(cli, (size_t)(found - OPTION_FOUND), optarg, st);
}

enum esp_code esp_cli_parse(struct esp_cli *cli, int argc, char *const *argv, struct esp_status *st) {
  struct option table[OPTIONS_LEN + 1] = {0};
  for (size_t i = 0; i < OPTIONS_LEN; i++)
    table[i] = (struct option){.name = options[i].word + 2,
                               .has_arg = options[i].argument != NULL ? required_argument : no_argument,
                               .val = OPTION_FOUND + (int)i};
  const char *from_environment = getenv("ESPALIER_SERVER");
  cli->server = from_environment != NULL && from_environment[0] != '\0' ? from_environment : ESP_CLI_SERVER_DEFAULT;
  cli->timeout_ms = ESP_CLI_TIMEOUT_MS_DEFAULT;
  cli->interval_ms = ESP_CLI_INTERVAL_MS_DEFAULT;
  optind = 0; /* glibc: start anew */
  opterr = 0;
  enum esp_code code = ESP_OK;
  int found;
  while (code == ESP_OK && (found = getopt_long(argc, argv, "-:he:", table, NULL)) != -1) /* "-": words in order */
    code = take_found(cli, found, optind > 0 ? argv[optind - 1] : "", st);
  for (; code == ESP_OK && optind < argc; optind++) /* after "--" */
    code = take_word(cli, argv[optind], st);
  return code == ESP_OK ? check(cli, st) : code;
}
