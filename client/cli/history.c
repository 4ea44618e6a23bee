/* history: the transactions that the server remembers. */
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"

/* The epoch that the argument names, or 0. */
static enum esp_code read_epoch(const struct esp_cli *cli, uint64_t *ret, struct esp_status *st) {
  uint64_t epoch = 0;
  for (const char *at = cli->args_len > 0 ? cli->args[0] : ""; *at != '\0'; at++) {
    unsigned digit = (unsigned)(*at - '0');
    if (*at < '0' || *at > '9' || epoch > (UINT64_MAX - digit) / 10)
      return esp_fail(st, ESP_INVALID_ARGUMENT, "'%s' is no epoch; expected a number", cli->args[0]);
    epoch = epoch * 10 + digit;
  }
  *ret = epoch;
  return ESP_OK;
}

enum esp_cli_exit esp_cli_run_history(struct esp_cli *cli) {
  struct esp_status st;
  struct esp_history *history = NULL;
  uint64_t since_epoch = 0;
  if (read_epoch(cli, &since_epoch, &st) != ESP_OK)
    return esp_cli_usage(cli, "%s", st.message);
  if (esp_history_list(cli->client, since_epoch, cli->count, &history, &st) != ESP_OK)
    return esp_cli_fail(cli, &st);
  bool ok = true;
  if ((cli->options & ESP_CLI_JSON) != 0)
    ok = esp_cli_json_history(cli->out, history);
  else if (history->len == 0)
    fprintf(cli->out, "nothing was changed, as far as the server remembers\n");
  else
    esp_cli_render_history(cli->out, history);
  esp_history_free(history);
  return esp_cli_finish(cli, ok);
}
