/* Commands that look and change nothing. */
#include <inttypes.h>

#include "base/alloc.h"
#include "client/cli/cli.h"

enum esp_cli_exit esp_cli_run_ping(struct esp_cli *cli) {
  struct esp_status st;
  uint64_t start = cli->env->now_ms(cli->env->data);
  if (esp_ping(cli->client, &st) != ESP_OK)
    return esp_cli_fail(cli, &st);
  uint64_t ms = cli->env->now_ms(cli->env->data) - start;
  if ((cli->options & ESP_CLI_JSON) != 0)
    return esp_cli_finish(
        cli, esp_cli_json_object(cli->out, json_pack("{s:s, s:I}", "server", cli->server, "ms", esp_cli_json_u64(ms))));
  fprintf(cli->out, "%s answered after %" PRIu64 "ms\n", cli->server, ms);
  return esp_cli_finish(cli, true);
}

enum esp_cli_exit esp_cli_run_status(struct esp_cli *cli) {
  struct esp_status st;
  struct esp_server_info info;
  if (esp_server_info(cli->client, &info, &st) != ESP_OK)
    return esp_cli_fail(cli, &st);
  if ((cli->options & ESP_CLI_JSON) != 0)
    return esp_cli_finish(cli, esp_cli_json_status(cli->out, cli->server, &info));
  esp_cli_render_status(cli->out, cli->server, &info);
  return esp_cli_finish(cli, true);
}

/* tree, select and digest: what differs is what is asked for and how it is printed. */
static enum esp_cli_exit describe(struct esp_cli *cli, bool with_digest,
                                  bool (*json)(FILE *out, const struct esp_description *description),
                                  void (*render)(FILE *out, const struct esp_description *description)) {
  struct esp_status st;
  struct esp_description *description = NULL;
  const char *selection = cli->args_len > 0 ? cli->args[0] : NULL;
  if (esp_describe(cli->client, selection, with_digest, &description, &st) != ESP_OK)
    return esp_cli_fail(cli, &st);
  bool ok = true;
  if ((cli->options & ESP_CLI_JSON) != 0)
    ok = json(cli->out, description);
  else
    render(cli->out, description);
  esp_description_free(description);
  return esp_cli_finish(cli, ok);
}

enum esp_cli_exit esp_cli_run_tree(struct esp_cli *cli) {
  return describe(cli, false, esp_cli_json_tree, esp_cli_render_tree);
}

enum esp_cli_exit esp_cli_run_select(struct esp_cli *cli) {
  return describe(cli, false, esp_cli_json_tree, esp_cli_render_selected);
}

enum esp_cli_exit esp_cli_run_digest(struct esp_cli *cli) {
  return describe(cli, true, esp_cli_json_digest, esp_cli_render_digest);
}

enum esp_cli_exit esp_cli_run_groups(struct esp_cli *cli) {
  struct esp_status st;
  struct esp_description *description = NULL;
  if (esp_describe(cli->client, NULL, false, &description, &st) != ESP_OK)
    return esp_cli_fail(cli, &st);
  struct esp_cli_group *groups = esp_cli_groups_sum(description);
  bool ok = true;
  enum esp_code code = ESP_OK;
  if (groups == NULL)
    code = esp_fail(&st, ESP_RESOURCE_EXHAUSTED, "no memory to add up %zu groups", description->groups_len);
  else if ((cli->options & ESP_CLI_JSON) != 0)
    ok = esp_cli_json_groups(cli->out, description, groups);
  else
    esp_cli_render_groups(cli->out, groups, description->groups_len);
  esp_free(groups);
  esp_description_free(description);
  return code == ESP_OK ? esp_cli_finish(cli, ok) : esp_cli_fail(cli, &st);
}

enum esp_cli_exit esp_cli_run_workers(struct esp_cli *cli) {
  struct esp_status st;
  struct esp_workers *list = NULL;
  if (esp_workers_list(cli->client, &list, &st) != ESP_OK)
    return esp_cli_fail(cli, &st);
  struct esp_worker_info *workers = esp_cli_workers_sort(list);
  bool ok = true;
  enum esp_code code = ESP_OK;
  if (workers == NULL)
    code = esp_fail(&st, ESP_RESOURCE_EXHAUSTED, "no memory to sort %zu workers", list->len);
  else if ((cli->options & ESP_CLI_JSON) != 0)
    ok = esp_cli_json_workers(cli->out, workers, list->len);
  else if (list->len == 0)
    fprintf(cli->out, "no workers: none has joined yet, or the server remembers none\n");
  else
    esp_cli_render_workers(cli->out, workers, list->len);
  esp_free(workers);
  esp_workers_free(list);
  return code == ESP_OK ? esp_cli_finish(cli, ok) : esp_cli_fail(cli, &st);
}

enum esp_cli_exit esp_cli_run_timers(struct esp_cli *cli) {
  struct esp_status st;
  struct esp_timers *timers = NULL;
  if (esp_timers_list(cli->client, &timers, &st) != ESP_OK)
    return esp_cli_fail(cli, &st);
  bool ok = true;
  if ((cli->options & ESP_CLI_JSON) != 0)
    ok = esp_cli_json_timers(cli->out, timers);
  else if (timers->len == 0)
    fprintf(cli->out, "no timers: nothing will freeze or thaw by itself (epoch %" PRIu64 ")\n", timers->epoch);
  else
    esp_cli_render_timers(cli->out, timers);
  esp_timers_free(timers);
  return esp_cli_finish(cli, ok);
}

enum esp_cli_exit esp_cli_run_version(struct esp_cli *cli) {
  if ((cli->options & ESP_CLI_JSON) != 0)
    return esp_cli_finish(cli, esp_cli_json_object(cli->out, json_pack("{s:s}", "version", esp_version())));
  fprintf(cli->out, "espctl %s\n", esp_version());
  return esp_cli_finish(cli, true);
}
