/* explain: why leaves are as they are, as the server has it. */
#include <inttypes.h>

#include "client/cli/cli.h"

/* Actors, reasons and selections are anybody's text. */
static void fact_row(const void *data, size_t index, struct esp_cli_row *ret) {
  const struct esp_leaf_fact *fact = (const struct esp_leaf_fact *)data + index;
  snprintf(ret->scratch[0], ESP_CLI_SCRATCH_MAX, "  %s", fact->what);
  ret->cells[0] = ret->scratch[0];
  ret->cells[1] = esp_cli_print_plain(fact->value, ret->scratch[1], ESP_CLI_SCRATCH_MAX);
  ret->cells[2] = esp_cli_print_plain(fact->because, ret->scratch[2], ESP_CLI_SCRATCH_MAX);
  ret->scratch[3][0] = '\0';
  if (fact->epoch != 0)
    snprintf(ret->scratch[3], ESP_CLI_SCRATCH_MAX, "epoch %" PRIu64, fact->epoch);
  ret->cells[3] = ret->scratch[3];
}

static void render(FILE *out, const struct esp_explanation *explanation) {
  static const struct esp_cli_column columns[] = {{NULL, false}, {NULL, false}, {NULL, false}, {NULL, false}};
  for (size_t i = 0; i < explanation->len; i++) {
    const struct esp_leaf_explanation *leaf = &explanation->leaves[i];
    const struct esp_cli_table table = {columns, 4, leaf->facts_len, fact_row, leaf->facts};
    fprintf(out, "%s%s\n", i > 0 ? "\n" : "", leaf->path);
    esp_cli_table_print(&table, out);
  }
}

enum esp_cli_exit esp_cli_run_explain(struct esp_cli *cli) {
  struct esp_status st;
  struct esp_explanation *explanation = NULL;
  if (esp_explain(cli->client, cli->args[0], &explanation, &st) != ESP_OK)
    return esp_cli_fail(cli, &st);
  bool ok = true;
  if ((cli->options & ESP_CLI_JSON) != 0)
    ok = esp_cli_json_explain(cli->out, explanation);
  else
    render(cli->out, explanation);
  esp_explanation_free(explanation);
  return esp_cli_finish(cli, ok);
}
