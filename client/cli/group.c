/* group: create, set and delete are operations as any other; show looks.
 *
 * The happy path of show: the tree is described, and what is not in the group is left out. A name that leaves are
 * assigned to and that no group has is no group: its leaves are in `default`, and the error says how many they are. */
#include <string.h>

#include "base/alloc.h"
#include "client/cli/cli.h"

static const struct esp_cli_group *find(const struct esp_cli_group *groups, size_t len, const char *name) {
  for (size_t i = 0; i < len; i++)
    if (strcmp(groups[i].info->name, name) == 0)
      return &groups[i];
  return NULL;
}

static enum esp_code fail_missing(const struct esp_description *description, const char *name, struct esp_status *st) {
  size_t assigned = 0;
  for (size_t i = 0; i < description->leaves_len; i++)
    assigned += strcmp(description->leaves[i].group_assigned, name) == 0;
  if (assigned > 0)
    return esp_fail(st, ESP_NOT_FOUND,
                    "there is no group %s; %zu lea%s assigned to it and in the group default meanwhile", name, assigned,
                    assigned == 1 ? "f is" : "ves are");
  return esp_fail(st, ESP_NOT_FOUND, "there is no group %s; espctl groups lists them", name);
}

/* The indices of the group's leaves; NULL without memory. */
static size_t *list_members(const struct esp_description *description, const struct esp_cli_group *group) {
  size_t len = 0;
  size_t *members = esp_malloc_array((size_t)group->leaves + 1, sizeof *members);
  for (size_t i = 0; members != NULL && i < description->leaves_len; i++)
    if (strcmp(description->leaves[i].group, group->info->name) == 0)
      members[len++] = i;
  return members;
}

static enum esp_code show(struct esp_cli *cli, const struct esp_description *description,
                          const struct esp_cli_group *groups, bool *ret_ok, struct esp_status *st) {
  const struct esp_cli_group *group = find(groups, description->groups_len, cli->args[1]);
  if (group == NULL)
    return fail_missing(description, cli->args[1], st);
  size_t *members = list_members(description, group);
  if (members == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory to list %zu leaves", (size_t)group->leaves);
  if ((cli->options & ESP_CLI_JSON) != 0)
    *ret_ok = esp_cli_json_group(cli->out, group, description, members);
  else
    esp_cli_render_group(cli->out, group, description, members);
  esp_free(members);
  return ESP_OK;
}

static enum esp_cli_exit run_show(struct esp_cli *cli) {
  struct esp_status st;
  struct esp_description *description = NULL;
  if (cli->args_len != 2)
    return esp_cli_usage(cli, "group show needs GROUP, and nothing else");
  if (esp_describe(cli->client, NULL, false, &description, &st) != ESP_OK)
    return esp_cli_fail(cli, &st);
  struct esp_cli_group *groups = esp_cli_groups_sum(description);
  bool ok = true;
  enum esp_code code =
      groups != NULL ? show(cli, description, groups, &ok, &st)
                     : esp_fail(&st, ESP_RESOURCE_EXHAUSTED, "no memory to add up %zu groups", description->groups_len);
  esp_free(groups);
  esp_description_free(description);
  return code == ESP_OK ? esp_cli_finish(cli, ok) : esp_cli_fail(cli, &st);
}

enum esp_cli_exit esp_cli_run_group(struct esp_cli *cli) {
  return strcmp(cli->args[0], "show") == 0 ? run_show(cli) : esp_cli_run_operation(cli);
}
