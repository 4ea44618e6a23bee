/* Diffs, for people: of a change, of a dry run, of the history. As render.c. */
#include <inttypes.h>
#include <string.h>

#include "client/cli/cli.h"

/* What a line of the diff says, by its field (server/tree/tree.h has them all). */
static void change_text(const struct esp_apply_change *change, char *text, size_t size) {
  static const char *const once[] = {"value", "state"}; /* how it is overwritten */
  static const char param[] = "parameter ";             /* its values repeat the field */
  const char *from = change->from;
  const char *to = change->to;
  if (strcmp(change->field, "leaf") == 0) {
    snprintf(text, size, "%s %s%s", to[0] != '\0' ? "added:" : "removed:", from, to);
    return;
  }
  if (strcmp(change->field, once[0]) == 0 || strcmp(change->field, once[1]) == 0) {
    snprintf(text, size, "%s", to);
    return;
  }
  from += strncmp(from, param, strlen(param)) == 0 ? strlen(param) : 0;
  to += strncmp(to, param, strlen(param)) == 0 ? strlen(param) : 0;
  snprintf(text, size, "%s -> %s", from[0] != '\0' ? from : "(none)", to[0] != '\0' ? to : "(none)");
}

static void change_row(const void *data, size_t index, struct esp_cli_row *ret) {
  const struct esp_apply_change *change = (const struct esp_apply_change *)data + index;
  bool is_kept = strcmp(change->field, "group") == 0; /* an assignment that is written so that the group stays */
  ret->cells[0] = change->path[0] != '\0' ? change->path : "(root)";
  ret->cells[1] = strcmp(change->field, "stepped_by") == 0 ? "stepped by" : change->field;
  change_text(change, ret->scratch[2], ESP_CLI_SCRATCH_MAX);
  ret->cells[2] = ret->scratch[2];
  snprintf(ret->scratch[3], ESP_CLI_SCRATCH_MAX, "%s%s",
           change->because[0] == '\0' ? ""
           : is_kept                  ? "as before at "
                                      : "because tied to ",
           change->because);
  ret->cells[3] = ret->scratch[3];
}

/* The last line: what there was to do, and how to do it. */
static void render_apply_end(FILE *out, const struct esp_apply_result *result) {
  char matched[64] = "";
  if (result->matched > 0) /* operations on groups match none */
    snprintf(matched, sizeof matched, ", %" PRIu64 " %s matched", result->matched,
             result->matched == 1 ? "leaf" : "leaves");
  if (result->changes_len == 0 && result->notes_len > 0) { /* they say why */
    fprintf(out, "nothing was changed (epoch %" PRIu64 ")\n", result->epoch);
    return;
  }
  if (result->changes_len == 0 && result->matched == 0) {
    fprintf(out, "nothing to change: it is so already (epoch %" PRIu64 ")\n", result->epoch);
    return;
  }
  if (result->changes_len == 0) {
    fprintf(out, "nothing to change:%s and %s so already (epoch %" PRIu64 ")\n", matched + 1,
            result->matched == 1 ? "is" : "are", result->epoch);
    return;
  }
  fprintf(out, "%zu change%s%s; ", result->changes_len, esp_cli_plural(result->changes_len), matched);
  if (result->dry_run)
    fprintf(out, "this was a dry run. To make exactly this change, run it with --if-epoch %" PRIu64 "%s\n",
            result->epoch, result->matched > ESP_CLI_MAX_LEAVES_DEFAULT ? " --yes" : "");
  else
    fprintf(out, "commit %" PRIu64 ", epoch %" PRIu64 "\n", result->commit, result->epoch);
}

static void render_changes(FILE *out, const struct esp_apply_change *changes, size_t len) {
  static const struct esp_cli_column columns[] = {{NULL, false}, {NULL, false}, {NULL, false}, {NULL, false}};
  const struct esp_cli_table table = {columns, 4, len, change_row, changes};
  esp_cli_table_print(&table, out);
}

void esp_cli_render_apply(FILE *out, const struct esp_apply_result *result) {
  render_changes(out, result->changes, result->changes_len);
  for (size_t i = 0; i < result->notes_len; i++)
    fprintf(out, "note: %s\n", result->notes[i]);
  render_apply_end(out, result);
}

static void render_transaction(FILE *out, const struct esp_transaction_info *info) {
  char time[ESP_CLI_TEXT_MAX];
  char actor[ESP_CLI_TEXT_MAX * 4];
  char reason[ESP_CLI_SCRATCH_MAX];
  fprintf(out, "epoch %" PRIu64 "  commit %" PRIu64 "  %s%s%s\n", info->epoch, info->commit,
          esp_cli_print_time(info->at_ms, time), info->actor[0] != '\0' ? "  by " : "",
          esp_cli_print_plain(info->actor, actor, sizeof actor));
  if (info->reason[0] != '\0')
    fprintf(out, "reason: %s\n", esp_cli_print_plain(info->reason, reason, sizeof reason));
  render_changes(out, info->changes, info->changes_len);
  if (info->changes_total > info->changes_len)
    fprintf(out, "%" PRIu64 " change%s, which were too many to be remembered one by one\n", info->changes_total,
            esp_cli_plural(info->changes_total));
}

void esp_cli_render_history(FILE *out, const struct esp_history *history) {
  for (size_t i = 0; i < history->len; i++) {
    if (i > 0)
      fputc('\n', out);
    render_transaction(out, &history->transactions[i]);
  }
}
