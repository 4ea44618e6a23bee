/* Commands that change the server: each is one transaction, and prints what it changed, or would change in a dry run.
 */
#include <stdlib.h>

#include "client/cli/cli.h"
#include "client/cli/input.h"
#include "formats/npy.h"

static enum esp_cli_exit apply(struct esp_cli *cli, const struct esp_op *op) {
  struct esp_status st;
  struct esp_apply_result *result = NULL;
  const struct esp_apply_options options = {
      .if_epoch = cli->if_epoch,
      .dry_run = (cli->options & ESP_CLI_DRY_RUN) != 0,
      .max_leaves = cli->max_leaves,
  };
  if (esp_apply(cli->client, op, 1, &options, &result, &st) != ESP_OK)
    return esp_cli_fail(cli, &st);
  bool ok = true;
  if ((cli->options & ESP_CLI_JSON) != 0)
    ok = esp_cli_json_apply(cli->out, result);
  else
    esp_cli_render_apply(cli->out, result);
  esp_apply_result_free(result);
  return esp_cli_finish(cli, ok);
}

enum esp_cli_exit esp_cli_run_freeze(struct esp_cli *cli) {
  const struct esp_op op = {.kind = ESP_OP_FREEZE, .selection = cli->args[0]};
  return apply(cli, &op);
}

enum esp_cli_exit esp_cli_run_thaw(struct esp_cli *cli) {
  const struct esp_op op = {
      .kind = ESP_OP_THAW, .selection = cli->args[0], .reset_state = (cli->options & ESP_CLI_RESET_STATE) != 0};
  return apply(cli, &op);
}

/* Reads the file and uploads its array, which the server checks against the leaf. */
static enum esp_code stage(struct esp_cli *cli, const char *path, const char *file, uint64_t *ret_stage,
                           struct esp_status *st) {
  struct esp_cli_input input = {0};
  struct esp_npy array;
  enum esp_code code = esp_cli_input_read(&input, file, st);
  if (code != ESP_OK)
    return code;
  code = esp_npy_parse(input.data, input.len, &array, st);
  if (code != ESP_OK) {
    esp_fail(st, code, "%s: %s", file, st->message);
    goto done;
  }
  struct esp_tensor tensor = {.dtype = (enum esp_leaf_dtype)array.dtype,
                              .rank = array.shape.rank,
                              .data = input.data + (input.len - array.bytes), /* the data ends the file */
                              .bytes = array.bytes};
  for (unsigned i = 0; i < array.shape.rank; i++)
    tensor.shape[i] = array.shape.dims[i];
  code = esp_stage(cli->client, path, &tensor, ret_stage, st);
done:
  esp_cli_input_free(&input);
  return code;
}

enum esp_cli_exit esp_cli_run_set(struct esp_cli *cli) {
  struct esp_status st;
  struct esp_op op = {
      .kind = ESP_OP_SET, .selection = cli->args[0], .reset_state = (cli->options & ESP_CLI_RESET_STATE) != 0};
  if (stage(cli, cli->args[0], cli->args[1], &op.stage, &st) != ESP_OK)
    return esp_cli_fail(cli, &st);
  return apply(cli, &op);
}
