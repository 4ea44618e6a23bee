/* The commands of espctl: one table that parsing, help and running read.
 *
 * A run: parse the words, open a client where the command needs one (which does not connect yet), run the command's
 * handler, close. Each handler prints its own result or error and returns the exit code. */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/alloc.h"
#include "client/cli/cli.h"

#define ATTEMPTS_MAX_DEFAULT 5 /* without --timeout: enough for a cut connection, soon over where nothing listens */

#define CHANGE_OPTIONS (ESP_CLI_DRY_RUN | ESP_CLI_IF_EPOCH | ESP_CLI_MAX_LEAVES)

static const struct esp_cli_command commands[] = {
    {.name = "status",
     .arguments = "",
     .summary = "what the server holds and has done",
     .help = "Example: espctl status --server db.example:7433",
     .run = esp_cli_run_status},
    {.name = "tree",
     .arguments = "[SELECTION]",
     .args_max = 1,
     .summary = "the leaves: shape, dtype, group, frozen, steps",
     .help = "SELECTION is a path (the node and everything below it) or a pattern, in which *\n"
             "stands for one component of a path and ** for any number. Quote it.\n"
             "Example: espctl tree 'encoder.**.weight'",
     .run = esp_cli_run_tree},
    {.name = "digest",
     .arguments = "[SELECTION]",
     .args_max = 1,
     .summary = "a digest of each leaf, to see whether it changed",
     .help = "It covers value, optimizer state and step count, all at one commit: two equal\n"
             "digests mean that not one bit differs. Example: espctl digest encoder",
     .run = esp_cli_run_digest},
    {.name = "freeze",
     .arguments = "SELECTION",
     .args_min = 1,
     .args_max = 1,
     .options = CHANGE_OPTIONS,
     .changes = true,
     .summary = "stop training these leaves",
     .help = "Value, optimizer state and step count stand still from when it returns, whatever\n"
             "workers push, and workers do not wait. Leaves that are tied to a selected one\n"
             "freeze with it. Example: espctl freeze encoder --dry-run",
     .run = esp_cli_run_freeze},
    {.name = "thaw",
     .arguments = "SELECTION",
     .args_min = 1,
     .args_max = 1,
     .options = CHANGE_OPTIONS | ESP_CLI_RESET_STATE,
     .changes = true,
     .summary = "train these leaves again",
     .help = "They go on with the optimizer state that was kept, or with --reset-state afresh.\n"
             "Example: espctl thaw encoder",
     .run = esp_cli_run_thaw},
    {.name = "set",
     .arguments = "PATH FILE.npy",
     .args_min = 2,
     .args_max = 2,
     .options = CHANGE_OPTIONS | ESP_CLI_RESET_STATE,
     .changes = true,
     .summary = "overwrite a leaf's value from a file",
     .help = "FILE.npy is what numpy.save wrote, of the leaf's shape and dtype; - is standard\n"
             "input. A frozen leaf can be set too. The old value is not kept: get it first.\n"
             "Example: espctl set head.bias bias.npy",
     .run = esp_cli_run_set},
    {.name = "get",
     .arguments = "PATH FILE.npy",
     .args_min = 2,
     .args_max = 2,
     .summary = "write a leaf's value to a file, for NumPy",
     .help = "- is standard output. Example: espctl get head.bias bias.npy",
     .run = esp_cli_run_get},
    {.name = "export",
     .arguments = "FILE [SELECTION]",
     .args_min = 1,
     .args_max = 2,
     .summary = "write all values to one safetensors file",
     .help = "Each tensor is whole; while training goes on they may be of different commits,\n"
             "and the output says so. FILE is replaced once the new one is complete.\n"
             "Example: espctl export model.safetensors",
     .run = esp_cli_run_export},
    {.name = "ping",
     .arguments = "",
     .summary = "whether the server answers",
     .help = "With --timeout it waits until the server does.\n"
             "Example: espctl ping --timeout 10s",
     .run = esp_cli_run_ping},
    {.name = "version",
     .arguments = "",
     .options = ESP_CLI_JSON,
     .local = true,
     .summary = "espctl's own version; status has the server's",
     .help = "Example: espctl version",
     .run = esp_cli_run_version},
    {.name = "help",
     .arguments = "[COMMAND]",
     .args_max = 1,
     .local = true,
     .summary = "this, or all about one command",
     .help = "Example: espctl help freeze",
     .run = esp_cli_run_help},
};
#define COMMANDS_LEN (sizeof commands / sizeof commands[0])

const struct esp_cli_command *esp_cli_commands(size_t *ret_len) {
  *ret_len = COMMANDS_LEN;
  return commands;
}

const struct esp_cli_command *esp_cli_find_command(const char *name) {
  for (size_t i = 0; i < COMMANDS_LEN; i++)
    if (strcmp(commands[i].name, name) == 0)
      return &commands[i];
  return NULL;
}

/* ---- help ---- */

static void print_help(FILE *out) {
  fprintf(out, "usage: espctl COMMAND [ARGUMENTS] [OPTIONS]\n\n"
               "Looks after an Espalier parameter server while it trains.\n\nCommands\n");
  for (size_t i = 0; i < COMMANDS_LEN; i++) {
    char usage[64];
    snprintf(usage, sizeof usage, "%s %s", commands[i].name, commands[i].arguments);
    fprintf(out, "  %-26s%s\n", usage, commands[i].summary);
  }
  fprintf(out, "\nOptions of all commands\n");
  esp_cli_print_options(out, ESP_CLI_COMMON);
  fprintf(out, "\nOptions of commands that change something\n");
  esp_cli_print_options(out, ~(unsigned)ESP_CLI_COMMON);
  fprintf(out, "\nExit codes\n");
  esp_cli_print_exit_codes(out);
}

static void print_command_help(FILE *out, const struct esp_cli_command *command) {
  fprintf(out, "usage: espctl %s%s%s [OPTIONS]\n\n%s: %s.\n%s\n", command->name,
          command->arguments[0] != '\0' ? " " : "", command->arguments, command->name, command->summary, command->help);
  if (command->options != 0 || !command->local)
    fprintf(out, "\nOptions\n");
  esp_cli_print_options(out, command->local ? command->options : command->options | ESP_CLI_COMMON);
}

enum esp_cli_exit esp_cli_run_help(struct esp_cli *cli) {
  if (cli->args_len == 0) {
    print_help(cli->out);
    return esp_cli_finish(cli, true);
  }
  const struct esp_cli_command *command = esp_cli_find_command(cli->args[0]);
  if (command == NULL)
    return esp_cli_usage(cli, "there is no command '%s'; espctl help lists them", cli->args[0]);
  print_command_help(cli->out, command);
  return esp_cli_finish(cli, true);
}

/* ---- reports ---- */

enum esp_cli_exit esp_cli_fail(struct esp_cli *cli, const struct esp_status *st) {
  enum esp_cli_exit exit_code = esp_cli_exit_of(st->code);
  fflush(cli->out);
  fprintf(cli->err, "espctl: %s\n", st->message[0] != '\0' ? st->message : esp_code_name(st->code));
  if (exit_code == ESP_CLI_NO_ANSWER && cli->command->changes)
    fprintf(cli->err, "espctl: nothing confirms the change: once the server answers look with espctl tree, or run it "
                      "again\n");
  if (st->code == ESP_ABORTED && cli->if_epoch != 0)
    fprintf(cli->err, "espctl: look at what it would change now with --dry-run, which prints the epoch to use\n");
  return exit_code;
}

enum esp_cli_exit esp_cli_usage(struct esp_cli *cli, const char *format, ...) {
  va_list args;
  va_start(args, format);
  fputs("espctl: ", cli->err);
  vfprintf(cli->err, format, args);
  fputc('\n', cli->err);
  va_end(args);
  return ESP_CLI_USAGE;
}

enum esp_cli_exit esp_cli_finish(struct esp_cli *cli, bool ok) {
  errno = 0;
  if (fflush(cli->out) != 0 || ferror(cli->out)) {
    fprintf(cli->err, "espctl: cannot write the result: %s\n", errno != 0 ? strerror(errno) : "write error");
    return ESP_CLI_FAILED;
  }
  if (!ok) {
    fprintf(cli->err, "espctl: cannot print the result as JSON: no memory, or text that is not UTF-8\n");
    return ESP_CLI_FAILED;
  }
  return ESP_CLI_DONE;
}

/* ---- running ---- */

static enum esp_cli_exit run_with_client(struct esp_cli *cli) {
  struct esp_status st;
  struct esp_client_options options = ESP_CLIENT_OPTIONS_INIT;
  options.target = cli->server;
  options.deadline_ms = cli->timeout_ms;
  options.attempts_max = (cli->options & ESP_CLI_TIMEOUT) != 0 ? 0 : ATTEMPTS_MAX_DEFAULT;
  if (esp_client_open(&options, &cli->client, &st) != ESP_OK)
    return esp_cli_fail(cli, &st);
  enum esp_cli_exit exit_code = cli->command->run(cli);
  esp_client_close(cli->client);
  cli->client = NULL;
  return exit_code;
}

int esp_cli_main(int argc, char *const *argv, const struct esp_env *env, FILE *out, FILE *err) {
  struct esp_status st;
  struct esp_cli cli = {.out = out, .err = err, .env = env};
  if (esp_cli_parse(&cli, argc, argv, &st) != ESP_OK)
    return (int)esp_cli_usage(&cli, "%s", st.message);
  if ((cli.options & ESP_CLI_VERSION) != 0)
    return (int)esp_cli_run_version(&cli);
  if ((cli.options & ESP_CLI_HELP) != 0) {
    cli.args_len = cli.command != NULL;
    cli.args[0] = cli.command != NULL ? cli.command->name : NULL;
    return (int)esp_cli_run_help(&cli);
  }
  if (cli.command == NULL) {
    print_help(err);
    return ESP_CLI_USAGE;
  }
  return (int)(cli.command->local ? cli.command->run(&cli) : run_with_client(&cli));
}
