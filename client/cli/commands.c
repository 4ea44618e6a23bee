/* The commands of espctl: one table that parsing, help and running read.
 *
 * A run: parse the words, open a client where the command needs one (which does not connect yet), run the command's
 * handler, close. Each handler prints its own result or error and returns the exit code. */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "base/alloc.h"
#include "client/cli/cli.h"

#define REPEATED_TIMEOUT_MS 2000 /* without --timeout, of a command that asks again by itself */
#define ATTEMPTS_MAX_DEFAULT 5   /* without --timeout: enough for a cut connection, soon over where nothing listens */

#define CHANGE_OPTIONS (ESP_CLI_DRY_RUN | ESP_CLI_IF_EPOCH | ESP_CLI_MAX_LEAVES | ESP_CLI_YES | ESP_CLI_REASON)
#define THAW_OPTIONS (ESP_CLI_RESET_STATE | ESP_CLI_AT_COMMIT | ESP_CLI_ONE_BY_ONE | ESP_CLI_EVERY)
#define ADD_OPTIONS                                                                                                    \
  (ESP_CLI_INIT | ESP_CLI_SEED | ESP_CLI_KIND | ESP_CLI_TAG | ESP_CLI_GROUP | ESP_CLI_FROZEN | ESP_CLI_DETACHED |      \
   ESP_CLI_ALIAS_OF | ESP_CLI_TRANSPOSE)

/* A command that is one operation, with as many arguments as it has words. */
#define OPERATION(command_name, words, args_count, its_options)                                                        \
  .name = (command_name), .arguments = (words), .args_min = (args_count), .args_max = (args_count),                    \
  .options = CHANGE_OPTIONS | (its_options), .changes = true, .run = esp_cli_run_operation

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
    {.name = "select",
     .arguments = "SELECTION",
     .args_min = 1,
     .args_max = 1,
     .summary = "which leaves a selection matches",
     .help = "It is the server that says: these, and what is tied to them, are what an\n"
             "operation would touch. Example: espctl select 'encoder.*.bias'",
     .run = esp_cli_run_select},
    {.name = "groups",
     .arguments = "",
     .summary = "the optimizer groups, and what is frozen",
     .help = "FROZEN is the share of the group's elements. What tied leaves share counts once.\n"
             "Example: espctl groups",
     .run = esp_cli_run_groups},
    {.name = "digest",
     .arguments = "[SELECTION]",
     .args_max = 1,
     .summary = "a digest of each leaf, to see what changed",
     .help = "It covers value, optimizer state and step count, all at one commit: two equal\n"
             "digests mean that not one bit differs. Example: espctl digest encoder",
     .run = esp_cli_run_digest},
    {.name = "workers",
     .arguments = "",
     .summary = "the workers that the server remembers",
     .help = "LEASE says whether it still counts as a worker, BEHIND is how many commits there\n"
             "were since its last, LAST SEEN how long ago the server heard of it.\n"
             "Example: espctl workers",
     .run = esp_cli_run_workers},
    {.name = "history",
     .arguments = "[SINCE-EPOCH]",
     .args_max = 1,
     .options = ESP_CLI_COUNT,
     .summary = "what was changed, when, by whom and why",
     .help = "The transactions after that epoch, or all that the server remembers, oldest\n"
             "first; with --count the newest so many. Example: espctl history --count 3",
     .run = esp_cli_run_history},
    {.name = "timers",
     .arguments = "",
     .summary = "freezes and thaws that are yet to come",
     .help = "LEFT says how far off they are, LEAVES how many they are about, EPOCH which\n"
             "transaction set them (see history). Example: espctl timers",
     .run = esp_cli_run_timers},
    {.name = "explain",
     .arguments = "SELECTION",
     .args_min = 1,
     .args_max = 1,
     .summary = "why leaves are as they are",
     .help = "What each is bound to and shares, its group and the assignment that gives it,\n"
             "who froze it, when and why, the named selections that it is in, what becomes of\n"
             "a gradient for it, and the last changes of it that the server remembers.\n"
             "Example: espctl explain encoder.layers.0.weight",
     .run = esp_cli_run_explain},
    {.name = "watch",
     .arguments = "[SELECTION]",
     .args_max = 1,
     .options = ESP_CLI_COUNT,
     .summary = "what changes in the tree, as it happens",
     .help = "One line for each change of a leaf: added, renamed, frozen, thawed, detached,\n"
             "attached, removed. It goes on until Ctrl-C, also when the server is away for a\n"
             "while. Example: espctl watch encoder --json",
     .run = esp_cli_run_watch},
    {.name = "top",
     .arguments = "",
     .options = ESP_CLI_LASTING,
     .repeats = true,
     .summary = "rates, memory, workers, groups: a live view",
     .help = "q or Ctrl-C ends it. Where standard output is no terminal it prints one snapshot\n"
             "after the other. Example: espctl top --interval 5s",
     .run = esp_cli_run_top},
    {OPERATION("freeze", "SELECTION", 1, ESP_CLI_FOR | ESP_CLI_UNTIL_COMMIT | ESP_CLI_AT_COMMIT),
     .summary = "stop training these leaves",
     .help = "Value, optimizer state and step count stand still from when it returns, whatever\n"
             "workers push, and workers do not wait. Leaves that are tied to a selected one\n"
             "freeze with it. With --for or --until-commit it ends by itself, with --at-commit\n"
             "it begins later: timers lists what is to come.\n"
             "Example: espctl freeze encoder --for 10m"},
    {OPERATION("thaw", "SELECTION", 1, THAW_OPTIONS), .summary = "train these leaves again",
     .help = "They go on with the optimizer state that was kept, or with --reset-state afresh;\n"
             "a timer that they had is gone. With --one-by-one the first node that SELECTION\n"
             "names is thawed now, and another one after every so many commits of pushes.\n"
             "Example: espctl thaw 'layers.[11-0]' --one-by-one --every 500"},
    {OPERATION("timer", "ACTION ID", 2, 0), .summary = "cancel a timer: see timers",
     .help = "timer cancel ID  what it was to freeze or thaw stays as it is\n"
             "Example: espctl timer cancel 3"},
    {OPERATION("detach", "SELECTION", 1, 0), .summary = "drop the gradients that come through these",
     .help = "Only through these: a parameter learns on through the other leaves that are tied\n"
             "to it. Example: espctl detach second.tower"},
    {OPERATION("attach", "SELECTION", 1, 0), .summary = "take their gradients again",
     .help = "Example: espctl attach second.tower"},
    {OPERATION("tie", "LEAF TO", 2, ESP_CLI_TRANSPOSE | ESP_CLI_VALUE),
     .summary = "bind a leaf to another one's parameter",
     .help = "From then on both are one tensor with one optimizer state: those of TO; with\n"
             "--value mean the mean of both values. LEAF and TO may be nodes, or patterns\n"
             "whose nth wildcards stand for the same.\n"
             "Example: espctl tie head.w emb.w --transpose"},
    {OPERATION("untie", "SELECTION", 1, ESP_CLI_STATE), .summary = "give tied leaves parameters of their own",
     .help = "With the value as they saw it and a copy of the optimizer state, or a new one\n"
             "with --state reset. Example: espctl untie head.w"},
    {.name = "group",
     .arguments = "ACTION GROUP [OPTIMIZER]",
     .args_min = 2,
     .args_max = 3,
     .options = CHANGE_OPTIONS,
     .changes = true,
     .summary = "create, set, show or delete a group",
     .help = "group create GROUP OPTIMIZER  a group that is not there yet\n"
             "group set GROUP OPTIMIZER     another optimizer; what state both have is kept\n"
             "group show GROUP              its optimizer and its leaves\n"
             "group delete GROUP            its leaves fall back to the group default\n"
             "Example: espctl group create head 'sgd(lr=0.1, momentum=0.9)'",
     .run = esp_cli_run_group},
    {OPERATION("regroup", "SELECTION GROUP", 2, 0), .summary = "move leaves to another optimizer group",
     .help = "Optimizer state that both groups' optimizers have is kept. Leaves tied to a\n"
             "selected one move with it. Example: espctl regroup head fast"},
    {.name = "adjust",
     .arguments = "GROUP NAME=VALUE...",
     .args_min = 2,
     .args_max = ESP_CLI_ARGS_MAX,
     .options = CHANGE_OPTIONS,
     .changes = true,
     .summary = "change hyperparameters of a group",
     .help = "From the next step on; optimizer state stays. RULE.NAME where two rules of a\n"
             "chain have one of that name. Example: espctl adjust head lr=0.01 momentum=0.8",
     .run = esp_cli_run_operation},
    {OPERATION("set", "PATH FILE.npy", 2, ESP_CLI_RESET_STATE), .summary = "overwrite a leaf's value from a file",
     .help = "FILE.npy is what numpy.save wrote, of the leaf's shape and dtype; - is standard\n"
             "input. A frozen leaf can be set too. The old value is not kept: get it first.\n"
             "Example: espctl set head.bias bias.npy"},
    {OPERATION("copy", "FROM TO", 2, 0), .summary = "copy values to another leaf or node",
     .help = "Of nodes, leaf by leaf of the same name below them. Old values are not kept.\n"
             "Example: espctl copy online target"},
    {OPERATION("rename", "FROM TO", 2, 0), .summary = "give a node another path",
     .help = "With everything below it. Workers name leaves by ids, which stay.\n"
             "Example: espctl rename model.enc model.encoder"},
    {OPERATION("add", "PATH DTYPE SHAPE", 3, ADD_OPTIONS), .summary = "add a leaf",
     .help = "SHAPE is 64x32, or scalar. Without --init it begins with zeros.\n"
             "Example: espctl add head.bias f32 10 --init 'normal(0,0.02)' --seed 7"},
    {OPERATION("remove", "SELECTION", 1, 0), .summary = "take leaves out of the tree",
     .help = "Their values are not kept. A worker that declares them again is refused.\n"
             "Example: espctl remove old.head --dry-run"},
    {OPERATION("reinit", "SELECTION INIT", 2, ESP_CLI_SEED), .summary = "begin with first values again",
     .help = "INIT is zeros, constant(x), uniform(low,high) or normal(mean,stddev). Optimizer\n"
             "state stays: see reset. Example: espctl reinit head 'normal(0,0.02)' --seed 7"},
    {OPERATION("reset", "SELECTION", 1, 0), .summary = "start the optimizer of leaves afresh",
     .help = "Optimizer state and step count begin at zero; values stay.\n"
             "Example: espctl reset head"},
    {OPERATION("name", "NAME SELECTION", 2, 0), .summary = "name a selection: @NAME stands for it",
     .help = "It is evaluated where it is used. An empty SELECTION forgets the name.\n"
             "Example: espctl name backbone 'encoder & !name:bias'"},
    {.name = "undo",
     .arguments = "[EPOCH]",
     .args_max = 1,
     .options = CHANGE_OPTIONS,
     .changes = true,
     .summary = "take a transaction back",
     .help = "The one that made EPOCH (see history), or the last one, unless that is a\n"
             "declaration. Refused where a later one touched the same; overwritten values\n"
             "are not kept.\n"
             "Example: espctl undo --dry-run",
     .run = esp_cli_run_operation},
    {.name = "apply",
     .arguments = "[FILE]",
     .args_max = 1,
     .options = CHANGE_OPTIONS | ESP_CLI_EXPRESSION,
     .changes = true,
     .summary = "several operations as one transaction",
     .help = "Those of each -e, then those of FILE (- is standard input), one a line, in the\n"
             "words of the commands, quoted as in a shell. # begins a comment. All are\n"
             "applied, as one epoch, or none.\n"
             "Example: espctl apply -e 'freeze enc' -e 'reset head'",
     .run = esp_cli_run_apply},
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
     .options = ESP_CLI_PIECEWISE,
     .summary = "write all values to one safetensors file",
     .help = "All are of one commit, while training goes on; the server and espctl need the\n"
             "memory for that. With --piecewise they need little, and the output says what\n"
             "commits there may be in it. FILE is replaced once the new one is complete.\n"
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
    fprintf(out, "  %-32s%s\n", usage, commands[i].summary);
  }
  fprintf(out, "\nOptions of all commands\n");
  esp_cli_print_options(out, ESP_CLI_COMMON);
  fprintf(out, "\nOptions of commands that change something\n");
  esp_cli_print_options(out, CHANGE_OPTIONS);
  fprintf(out, "\nOptions of single commands that do\n");
  esp_cli_print_options(out, ESP_CLI_EXPRESSION | ESP_CLI_FOR | ESP_CLI_UNTIL_COMMIT | THAW_OPTIONS | ESP_CLI_STATE |
                                 ESP_CLI_VALUE | ADD_OPTIONS);
  fprintf(out, "\nOption of export\n");
  esp_cli_print_options(out, ESP_CLI_PIECEWISE);
  fprintf(out, "\nOptions of top, and --count of watch and history\n");
  esp_cli_print_options(out, ESP_CLI_LASTING);
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

bool esp_cli_flush(struct esp_cli *cli) {
  errno = 0;
  if (fflush(cli->out) == 0 && !ferror(cli->out))
    return true;
  cli->write_errno = cli->write_errno != 0 ? cli->write_errno : errno;
  return false;
}

enum esp_cli_exit esp_cli_finish(struct esp_cli *cli, bool ok) {
  if (!esp_cli_flush(cli)) {
    fprintf(cli->err, "espctl: cannot write the result: %s\n",
            cli->write_errno != 0 ? strerror(cli->write_errno) : "write error");
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
  bool has_timeout = (cli->options & ESP_CLI_TIMEOUT) != 0;
  options.deadline_ms = cli->command->repeats && !has_timeout ? REPEATED_TIMEOUT_MS : cli->timeout_ms;
  options.attempts_max = cli->command->repeats ? 1 : has_timeout ? 0 : ATTEMPTS_MAX_DEFAULT;
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
  if (argc > 1 && strcmp(argv[1], "complete") == 0)
    return (int)esp_cli_complete(&cli, argc, argv);
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
