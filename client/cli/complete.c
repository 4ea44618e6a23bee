/* What the shell's completion asks for (deploy/completion): `espctl complete WORDS...`, the words of a line that is
 * being typed, the last of which is to be completed.
 *
 * The happy path: the words before the last are parsed as any line is, as far as they go; the command's usage then says
 * what comes next. Paths are those of the live tree, one component at a time. What a person types must not wait for a
 * server: one attempt, soon given up, and silence. */
#include <inttypes.h>
#include <string.h>

#include "client/cli/cli.h"

#define TIMEOUT_MS 1000

static bool begins_with(const char *text, const char *prefix) {
  return strncmp(text, prefix, strlen(prefix)) == 0;
}

static void complete_commands(FILE *out, const char *prefix) {
  size_t len = 0;
  const struct esp_cli_command *commands = esp_cli_commands(&len);
  for (size_t i = 0; i < len; i++)
    if (begins_with(commands[i].name, prefix))
      fprintf(out, "%s\n", commands[i].name);
}

/* Leaves come in path order, so that those with the same next component are neighbours. */
static void print_components(FILE *out, const struct esp_description *description, const char *prefix) {
  const char *last = "";
  size_t last_len = 0;
  for (size_t i = 0; i < description->leaves_len; i++) {
    const char *path = description->leaves[i].path;
    if (!begins_with(path, prefix))
      continue;
    size_t len = strlen(prefix);
    len += strcspn(path + len, ".");
    len += path[len] == '.'; /* a node ends with the dot after which the next component is typed */
    if (len == last_len && strncmp(path, last, len) == 0)
      continue;
    fprintf(out, "%.*s\n", (int)len, path);
    last = path;
    last_len = len;
  }
}

static void print_groups(FILE *out, const struct esp_description *description, const char *prefix) {
  for (size_t i = 0; i < description->groups_len; i++)
    if (begins_with(description->groups[i].name, prefix))
      fprintf(out, "%s\n", description->groups[i].name);
}

static enum esp_code open_client(struct esp_cli *cli) {
  struct esp_client_options options = ESP_CLIENT_OPTIONS_INIT;
  options.target = cli->server;
  options.deadline_ms = TIMEOUT_MS;
  options.attempts_max = 1;
  return esp_client_open(&options, &cli->client, NULL);
}

/* Asks the server for what lies below the node, and prints what of it may stand there. */
static enum esp_cli_exit complete_live(struct esp_cli *cli, const char *node, const char *prefix,
                                       void (*print)(FILE *out, const struct esp_description *description,
                                                     const char *prefix)) {
  enum esp_code code = open_client(cli);
  if (code != ESP_OK)
    return esp_cli_exit_of(code);
  struct esp_description *description = NULL;
  code = esp_describe(cli->client, node, false, &description, NULL);
  if (code == ESP_OK)
    print(cli->out, description, prefix);
  esp_description_free(description);
  esp_client_close(cli->client);
  return esp_cli_exit_of(code);
}

static enum esp_cli_exit complete_path(struct esp_cli *cli, const char *prefix) {
  const char *dot = strrchr(prefix, '.');
  char parent[ESP_CLI_SCRATCH_MAX] = "";
  if (dot != NULL && (size_t)(dot - prefix) < sizeof parent)
    memcpy(parent, prefix, (size_t)(dot - prefix));
  return complete_live(cli, parent, prefix, print_components);
}

static enum esp_cli_exit complete_timer(struct esp_cli *cli, const char *prefix) {
  enum esp_code code = open_client(cli);
  if (code != ESP_OK)
    return esp_cli_exit_of(code);
  struct esp_timers *timers = NULL;
  code = esp_timers_list(cli->client, &timers, NULL);
  for (size_t i = 0; code == ESP_OK && i < timers->len; i++) {
    char id[32];
    snprintf(id, sizeof id, "%" PRIu64, timers->timers[i].timer);
    if (begins_with(id, prefix))
      fprintf(cli->out, "%s\n", id);
  }
  esp_timers_free(timers);
  esp_client_close(cli->client);
  return esp_cli_exit_of(code);
}

static void complete_actions(const struct esp_cli *cli, const char *prefix) {
  static const char *const of_groups[] = {"create", "set", "show", "delete"};
  static const char *const of_timers[] = {"cancel"};
  bool is_group = strcmp(cli->command->name, "group") == 0;
  const char *const *actions = is_group ? of_groups : of_timers;
  size_t len = is_group ? sizeof of_groups / sizeof of_groups[0] : 1;
  for (size_t i = 0; i < len; i++)
    if (begins_with(actions[i], prefix))
      fprintf(cli->out, "%s\n", actions[i]);
}

/* Whether the command's next argument, by its usage ("FILE [SELECTION]"), is this. */
static bool is_next(const struct esp_cli *cli, const char *name) {
  const char *at = cli->command->arguments;
  for (size_t i = 0; i < cli->args_len; i++) {
    at += strcspn(at, " ");
    at += strspn(at, " ");
  }
  return begins_with(at + (*at == '['), name);
}

static bool is_path_next(const struct esp_cli *cli) {
  static const char *const names[] = {"SELECTION", "PATH", "LEAF", "FROM", "TO"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (is_next(cli, names[i]))
      return true;
  return false;
}

static enum esp_cli_exit complete_word(struct esp_cli *cli, const char *word) {
  const struct esp_cli_command *command = cli->command;
  if (word[0] == '-')
    esp_cli_complete_options(cli->out, ESP_CLI_COMMON | (command != NULL ? command->options : 0), word);
  else if (command == NULL || is_next(cli, "COMMAND"))
    complete_commands(cli->out, word);
  else if (is_next(cli, "FILE"))
    fputs("<files>\n", cli->out);
  else if (is_next(cli, "ACTION"))
    complete_actions(cli, word);
  else if (is_next(cli, "ID"))
    return complete_timer(cli, word);
  else if (is_next(cli, "GROUP"))
    return complete_live(cli, "", word, print_groups);
  else if (is_path_next(cli))
    return complete_path(cli, word);
  return ESP_CLI_DONE;
}

enum esp_cli_exit esp_cli_complete(struct esp_cli *cli, int argc, char *const *argv) {
  int before = argc - 2; /* "complete", in place of the program's name, and the words before the last */
  if (before < 1)
    return ESP_CLI_USAGE;
  if (esp_cli_option_takes_next(argv[argc - 2]))
    return ESP_CLI_DONE;
  struct esp_status unfinished; /* a line that is being typed may lack arguments */
  enum esp_code code = esp_cli_parse(cli, before, argv + 1, &unfinished);
  (void)code;
  return complete_word(cli, argv[argc - 1]);
}
