/* What commands print for people: what matters first, numbers to the right, totals last. Nothing here fails; a stream
 * that can't be written is noticed at the end. */
#include <inttypes.h>

#include "base/dtype.h"
#include "client/cli/cli.h"

void esp_cli_render_status(FILE *out, const char *server, const struct esp_server_info *info) {
  char a[ESP_CLI_TEXT_MAX];
  char b[ESP_CLI_TEXT_MAX];
  char c[ESP_CLI_TEXT_MAX];
  char d[ESP_CLI_TEXT_MAX];
  fprintf(out, "server   %s, version %s, up %s, %" PRIu64 " thread%s, isa %s%s\n", server, info->version,
          esp_cli_print_duration(info->uptime_ms, a), info->threads, esp_cli_plural(info->threads), info->isa,
          info->draining ? ", DRAINING: it takes no new pushes and is about to stop" : "");
  fprintf(out, "tree     %" PRIu64 " leaves (%" PRIu64 " frozen), %" PRIu64 " parameters, %" PRIu64 " elements\n",
          info->leaves, info->frozen, info->parameters, info->elements);
  fprintf(out, "order    epoch %" PRIu64 ", commit %" PRIu64 ", lineage %s, mode %s\n", info->epoch, info->commit,
          esp_cli_print_lineage(info->lineage, a), info->mode);
  fprintf(out, "workers  %" PRIu64 "\n", info->sessions);
  fprintf(out, "pushes   %" PRIu64 " applied, %" PRIu64 " refused, %" PRIu64 " not finite; %s received\n",
          info->pushes_applied, info->pushes_refused, info->pushes_nonfinite,
          esp_cli_print_bytes(info->bytes_pushed, a));
  fprintf(out, "pulls    %" PRIu64 "; %s sent\n", info->pulls, esp_cli_print_bytes(info->bytes_pulled, a));
  fprintf(out, "memory   values %s, optimizer state %s, staged %s of at most %s",
          esp_cli_print_bytes(info->memory_parameters, a), esp_cli_print_bytes(info->memory_state, b),
          esp_cli_print_bytes(info->memory_staged, c), esp_cli_print_bytes(info->memory_staged_max, d));
  fprintf(out, ", copy-on-write %s\n", esp_cli_print_bytes(info->memory_copy_on_write, a));
}

/* ---- tree ---- */

static void tree_note(const struct esp_leaf_info *leaf, char *text, size_t size) {
  text[0] = '\0';
  if (leaf->tied_to[0] != '\0')
    snprintf(text, size, "tied to %s", leaf->tied_to);
  else if (leaf->kind == ESP_BUFFER)
    snprintf(text, size, "buffer");
  else if (leaf->group_assigned[0] != '\0')
    snprintf(text, size, "no group is called %s", leaf->group_assigned);
  else if (leaf->detached)
    snprintf(text, size, "detached");
}

static void tree_row(const void *data, size_t index, struct esp_cli_row *ret) {
  const struct esp_description *description = data;
  const struct esp_leaf_info *leaf = &description->leaves[index];
  ret->cells[0] = leaf->path;
  ret->cells[1] = esp_cli_print_shape(leaf->shape, leaf->rank, ret->scratch[1]);
  ret->cells[2] = esp_dtype_name((enum esp_dtype)leaf->dtype);
  ret->cells[3] = leaf->group;
  ret->cells[4] = leaf->frozen ? "yes" : "-";
  ret->cells[5] = "-";
  if (leaf->kind != ESP_BUFFER) {
    snprintf(ret->scratch[5], ESP_CLI_SCRATCH_MAX, "%" PRIu64, leaf->steps);
    ret->cells[5] = ret->scratch[5];
  }
  tree_note(leaf, ret->scratch[6], ESP_CLI_SCRATCH_MAX);
  ret->cells[6] = ret->scratch[6];
}

static void group_row(const void *data, size_t index, struct esp_cli_row *ret) {
  const struct esp_description *description = data;
  const struct esp_group_info *group = &description->groups[index];
  ret->cells[0] = group->name;
  snprintf(ret->scratch[1], ESP_CLI_SCRATCH_MAX, "%" PRIu64, group->parameters);
  ret->cells[1] = ret->scratch[1];
  ret->cells[2] = group->expression;
}

/* Tied leaves count as leaves; what they share counts once, at the first bound. */
static void tree_totals(FILE *out, const struct esp_description *description) {
  uint64_t frozen = 0;
  uint64_t tied = 0;
  uint64_t bytes = 0;
  uint64_t state_bytes = 0;
  for (size_t i = 0; i < description->leaves_len; i++) {
    const struct esp_leaf_info *leaf = &description->leaves[i];
    frozen += leaf->frozen;
    tied += leaf->tied_to[0] != '\0';
    bytes += leaf->tied_to[0] == '\0' ? leaf->bytes : 0;
    state_bytes += leaf->tied_to[0] == '\0' ? leaf->state_bytes : 0;
  }
  char values[ESP_CLI_TEXT_MAX];
  char states[ESP_CLI_TEXT_MAX];
  fprintf(out, "%zu lea%s, %" PRIu64 " frozen", description->leaves_len, description->leaves_len == 1 ? "f" : "ves",
          frozen);
  if (tied > 0)
    fprintf(out, ", %" PRIu64 " tied", tied);
  fprintf(out, "; values %s, optimizer state %s; epoch %" PRIu64 ", commit %" PRIu64 "\n",
          esp_cli_print_bytes(bytes, values), esp_cli_print_bytes(state_bytes, states), description->epoch,
          description->commit);
}

void esp_cli_render_tree(FILE *out, const struct esp_description *description) {
  static const struct esp_cli_column leaf_columns[] = {{"PATH", false},  {"SHAPE", false},  {"DTYPE", false},
                                                       {"GROUP", false}, {"FROZEN", false}, {"STEPS", true},
                                                       {"NOTE", false}};
  static const struct esp_cli_column group_columns[] = {{"GROUP", false}, {"PARAMETERS", true}, {"OPTIMIZER", false}};
  if (description->leaves_len == 0) {
    fprintf(out, "no leaves: no worker has declared any yet (epoch %" PRIu64 ")\n", description->epoch);
    return;
  }
  const struct esp_cli_table leaves = {leaf_columns, 7, description->leaves_len, tree_row, description};
  const struct esp_cli_table groups = {group_columns, 3, description->groups_len, group_row, description};
  esp_cli_table_print(&leaves, out);
  if (description->groups_len > 0)
    fputc('\n', out);
  esp_cli_table_print(&groups, out);
  fputc('\n', out);
  tree_totals(out, description);
}

void esp_cli_render_digest(FILE *out, const struct esp_description *description) {
  char text[ESP_CLI_TEXT_MAX];
  for (size_t i = 0; i < description->leaves_len; i++)
    fprintf(out, "%s  %s\n", esp_cli_print_digest(description->leaves[i].digest, text), description->leaves[i].path);
  fprintf(out, "%s  <all>  at commit %" PRIu64 "\n", esp_cli_print_digest(description->digest, text),
          description->commit);
}

/* ---- apply ---- */

static void change_row(const void *data, size_t index, struct esp_cli_row *ret) {
  const struct esp_apply_result *result = data;
  const struct esp_apply_change *change = &result->changes[index];
  bool both = change->from[0] != '\0' && change->to[0] != '\0';
  ret->cells[0] = change->path;
  ret->cells[1] = change->field;
  snprintf(ret->scratch[2], ESP_CLI_SCRATCH_MAX, "%s%s%s", change->from, both ? " -> " : "", change->to);
  ret->cells[2] = ret->scratch[2];
  snprintf(ret->scratch[3], ESP_CLI_SCRATCH_MAX, "%s%s", change->because[0] != '\0' ? "because tied to " : "",
           change->because);
  ret->cells[3] = ret->scratch[3];
}

void esp_cli_render_apply(FILE *out, const struct esp_apply_result *result) {
  static const struct esp_cli_column columns[] = {{NULL, false}, {NULL, false}, {NULL, false}, {NULL, false}};
  const struct esp_cli_table changes = {columns, 4, result->changes_len, change_row, result};
  esp_cli_table_print(&changes, out);
  for (size_t i = 0; i < result->notes_len; i++)
    fprintf(out, "note: %s\n", result->notes[i]);
  const char *leaves = result->matched == 1 ? "leaf" : "leaves";
  const char *plural = esp_cli_plural(result->changes_len);
  if (result->changes_len == 0)
    fprintf(out, "nothing to change: %" PRIu64 " %s matched and %s so already (epoch %" PRIu64 ")\n", result->matched,
            leaves, result->matched == 1 ? "is" : "are", result->epoch);
  else if (result->dry_run)
    fprintf(out,
            "%zu change%s, %" PRIu64 " %s matched; this was a dry run. To make exactly this change, run it with "
            "--if-epoch %" PRIu64 "\n",
            result->changes_len, plural, result->matched, leaves, result->epoch);
  else
    fprintf(out, "%zu change%s, %" PRIu64 " %s matched; commit %" PRIu64 ", epoch %" PRIu64 "\n", result->changes_len,
            plural, result->matched, leaves, result->commit, result->epoch);
}
