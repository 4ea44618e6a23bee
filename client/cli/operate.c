/* Commands that change the tree: each is one transaction, and prints what it changed, or would change in a dry run.
 *
 * The happy path: the command's words, or those of -e and of a file, become a plan, the plan the library's operations,
 * and one call applies them, bounded by --max-leaves. Where there are more leaves than that, a dry run says how many,
 * and a person at a terminal is asked; the call is then bound to the epoch of the dry run, so that nothing else happens
 * than what was shown.
 *
 * How it fails: wrong words are an error of usage, whatever the server refuses has changed nothing. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "client/cli/input.h"

/* ---- groups that are to be there, or not to be ---- */

/* Asks by a dry run that would delete it, which costs little however large the tree is. */
static enum esp_code ask_group(struct esp_cli *cli, const char *name, uint64_t if_epoch, bool *ret_is_there,
                               struct esp_status *st) {
  const struct esp_op op = {.kind = ESP_OP_DELETE_GROUP, .name = name};
  const struct esp_apply_options options = {.dry_run = true, .if_epoch = if_epoch};
  enum esp_code code = esp_apply(cli->client, &op, 1, &options, NULL, st);
  *ret_is_there = code != ESP_NOT_FOUND;
  return code == ESP_NOT_FOUND || code == ESP_FAILED_PRECONDITION ? ESP_OK : code; /* `default` can't be deleted */
}

/* `create` is of a group that is not there, `set` of one that is. */
static enum esp_code check_group(struct esp_cli *cli, const struct esp_plan *plan, size_t index,
                                 struct esp_apply_options *options, struct esp_status *st) {
  bool is_new = plan->ops[index].kind == ESP_PLAN_CREATE_GROUP;
  const char *name = plan->ops[index].name;
  bool is_there = false;
  enum esp_code code = ESP_OK;
  if (!esp_plan_says_group(plan, index, &is_there)) {
    struct esp_server_info info = {.epoch = options->if_epoch};
    if (options->if_epoch == 0) /* what is found out here is to be so when it is applied */
      code = esp_server_info(cli->client, &info, st);
    options->if_epoch = info.epoch;
    if (code == ESP_OK)
      code = ask_group(cli, name, info.epoch, &is_there, st);
  }
  if (code == ESP_OK && is_new && is_there)
    return esp_fail(st, ESP_ALREADY_EXISTS, "there is a group %s already; group set gives it another optimizer", name);
  if (code == ESP_OK && !is_new && !is_there)
    return esp_fail(st, ESP_NOT_FOUND, "there is no group %s; group create makes one", name);
  return code;
}

static enum esp_code check_groups(struct esp_cli *cli, const struct esp_plan *plan, struct esp_apply_options *options,
                                  struct esp_status *st) {
  enum esp_code code = ESP_OK;
  for (size_t i = 0; i < plan->len && code == ESP_OK; i++)
    if (plan->ops[i].kind == ESP_PLAN_CREATE_GROUP || plan->ops[i].kind == ESP_PLAN_SET_GROUP)
      code = check_group(cli, plan, i, options, st);
  return code;
}

/* ---- many leaves ---- */

/* Asks a person; false too where there is none. */
static bool is_agreed(struct esp_cli *cli, const struct esp_apply_result *dry) {
  char line[16];
  fflush(cli->out);
  fprintf(cli->err, "This touches %" PRIu64 " leaves, with %zu change%s. Go on? [y/N] ", dry->matched, dry->changes_len,
          esp_cli_plural(dry->changes_len));
  fflush(cli->err);
  if (fgets(line, sizeof line, stdin) == NULL)
    return false;
  return strcmp(line, "y\n") == 0 || strcmp(line, "yes\n") == 0;
}

/* After a refusal with this bound: where the number of leaves was the reason, and somebody agrees, once more without
 * it. Otherwise the refusal stands, with what to do. */
static enum esp_code ask_and_apply(struct esp_cli *cli, const struct esp_cli_ops *ops,
                                   struct esp_apply_options *options, struct esp_apply_result **ret,
                                   struct esp_status *st) {
  uint64_t bound = options->max_leaves;
  struct esp_apply_result *dry = NULL;
  struct esp_apply_options dry_options = *options;
  dry_options.dry_run = true;
  dry_options.max_leaves = 0;
  if (esp_apply(cli->client, ops->ops, ops->len, &dry_options, &dry, NULL) != ESP_OK || dry->matched <= bound) {
    esp_apply_result_free(dry);
    return ESP_FAILED_PRECONDITION;
  }
  enum esp_code code = ESP_FAILED_PRECONDITION;
  bool has_person = isatty(STDIN_FILENO) && isatty(fileno(cli->err));
  if (!has_person) {
    esp_fail(st, code,
             "this touches %" PRIu64 " leaves, more than %" PRIu64 ": look with --dry-run, then pass --yes or a larger "
             "--max-leaves",
             dry->matched, bound);
  } else if (!is_agreed(cli, dry)) {
    esp_fail(st, code, "nothing was changed");
  } else {
    options->max_leaves = 0;
    options->if_epoch = dry->epoch;
    code = esp_apply(cli->client, ops->ops, ops->len, options, ret, st);
  }
  esp_apply_result_free(dry);
  return code;
}

/* ---- applying ---- */

static enum esp_code apply(struct esp_cli *cli, const struct esp_plan *plan, const struct esp_cli_ops *ops,
                           struct esp_apply_result **ret, struct esp_status *st) {
  bool is_dry = (cli->options & ESP_CLI_DRY_RUN) != 0;
  struct esp_apply_options options = {
      .if_epoch = cli->if_epoch, .dry_run = is_dry, .max_leaves = cli->max_leaves, .reason = cli->reason};
  if ((cli->options & ESP_CLI_YES) != 0)
    options.max_leaves = 0;
  else if (cli->max_leaves == 0 && !is_dry)
    options.max_leaves = ESP_CLI_MAX_LEAVES_DEFAULT;
  enum esp_code code = check_groups(cli, plan, &options, st);
  if (code == ESP_OK)
    code = esp_apply(cli->client, ops->ops, ops->len, &options, ret, st);
  if (code == ESP_FAILED_PRECONDITION && options.max_leaves != 0 && !is_dry)
    code = ask_and_apply(cli, ops, &options, ret, st);
  return code;
}

enum esp_cli_exit esp_cli_apply_plan(struct esp_cli *cli, const struct esp_plan *plan) {
  struct esp_status st;
  struct esp_cli_ops ops = {0};
  struct esp_apply_result *result = NULL;
  enum esp_code code = esp_cli_ops_make(cli, plan, &ops, &st);
  if (code == ESP_OK)
    code = apply(cli, plan, &ops, &result, &st);
  esp_cli_ops_done(&ops);
  if (code != ESP_OK)
    return esp_cli_fail(cli, &st);
  bool ok = true;
  if ((cli->options & ESP_CLI_JSON) != 0)
    ok = esp_cli_json_apply(cli->out, result);
  else
    esp_cli_render_apply(cli->out, result);
  esp_apply_result_free(result);
  return esp_cli_finish(cli, ok);
}

/* ---- the command line ---- */

/* The line's words as a plan has them: options before --, so that no argument is taken for one. */
static enum esp_code read_line(const struct esp_cli *cli, struct esp_plan *plan, struct esp_status *st) {
  const char *words[ESP_CLI_ARGS_MAX + ESP_CLI_WORDS_MAX + 2];
  size_t len = 0;
  size_t arg = 0;
  words[len++] = cli->command->name;
  if (strncmp(cli->command->arguments, "ACTION", 6) == 0)
    words[len++] = cli->args[arg++];
  for (size_t i = 0; i < cli->words_len; i++)
    words[len++] = cli->words[i];
  words[len++] = "--";
  for (; arg < cli->args_len; arg++)
    words[len++] = cli->args[arg];
  return esp_plan_add_words(plan, words, len, NULL, st);
}

/* How wrong words end: those that are right, but too many for the memory, are no error of usage. */
static enum esp_cli_exit fail_words(struct esp_cli *cli, const struct esp_status *st) {
  return st->code == ESP_INVALID_ARGUMENT ? esp_cli_usage(cli, "%s", st->message) : esp_cli_fail(cli, st);
}

enum esp_cli_exit esp_cli_run_operation(struct esp_cli *cli) {
  struct esp_status st;
  struct esp_plan plan;
  esp_plan_init(&plan);
  enum esp_cli_exit exit_code =
      read_line(cli, &plan, &st) == ESP_OK ? esp_cli_apply_plan(cli, &plan) : fail_words(cli, &st);
  esp_plan_done(&plan);
  return exit_code;
}

static enum esp_code read_expressions(const struct esp_cli *cli, struct esp_plan *plan, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  for (size_t i = 0; i < cli->expressions_len && code == ESP_OK; i++) {
    char source[32];
    snprintf(source, sizeof source, cli->expressions_len > 1 ? "-e %zu" : "-e", i + 1);
    code = esp_plan_add_text(plan, source, cli->expressions[i], strlen(cli->expressions[i]), st);
  }
  return code;
}

static enum esp_code read_file(const char *file, struct esp_plan *plan, struct esp_status *st) {
  struct esp_cli_input input = {0};
  enum esp_code code = esp_cli_input_read(&input, file, st);
  if (code != ESP_OK)
    return code;
  code = esp_plan_add_text(plan, strcmp(file, "-") == 0 ? "standard input" : file, (const char *)input.data, input.len,
                           st);
  esp_cli_input_free(&input);
  return code;
}

static enum esp_cli_exit run_apply(struct esp_cli *cli, struct esp_plan *plan) {
  struct esp_status st;
  enum esp_code code = read_expressions(cli, plan, &st);
  if (code == ESP_OK && cli->args_len > 0)
    code = read_file(cli->args[0], plan, &st);
  if (code != ESP_OK)
    return fail_words(cli, &st);
  if (plan->len == 0)
    return esp_cli_usage(cli, "there is no operation to apply; see espctl help apply");
  return esp_cli_apply_plan(cli, plan);
}

enum esp_cli_exit esp_cli_run_apply(struct esp_cli *cli) {
  struct esp_plan plan;
  esp_plan_init(&plan);
  enum esp_cli_exit exit_code = run_apply(cli, &plan);
  esp_plan_done(&plan);
  return exit_code;
}
