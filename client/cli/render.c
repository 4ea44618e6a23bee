/* What commands print for people: what matters first, numbers to the right, totals last. Nothing here fails; a stream
 * that can't be written is noticed at the end. */
#include <inttypes.h>
#include <string.h>

#include "base/dtype.h"
#include "client/cli/cli.h"

void esp_cli_render_head(FILE *out, const char *server, const struct esp_server_info *info) {
  char text[ESP_CLI_TEXT_MAX];
  fprintf(out, "server   %s, version %s, up %s, %" PRIu64 " thread%s, isa %s%s\n", server, info->version,
          esp_cli_print_duration(info->uptime_ms, text), info->threads, esp_cli_plural(info->threads), info->isa,
          info->draining ? ", DRAINING: it takes no new pushes and is about to stop" : "");
  fprintf(out, "tree     %" PRIu64 " leaves (%" PRIu64 " frozen), %" PRIu64 " parameters, %" PRIu64 " elements\n",
          info->leaves, info->frozen, info->parameters, info->elements);
  fprintf(out, "order    epoch %" PRIu64 ", commit %" PRIu64 ", lineage %s, mode %s\n", info->epoch, info->commit,
          esp_cli_print_id(info->lineage, text), info->mode);
}

void esp_cli_render_network(FILE *out, const struct esp_server_info *info) {
  char text[ESP_CLI_TEXT_MAX];
  fprintf(out, "network  %s connections, %" PRIu64 " refused; %" PRIu64 " streams, %" PRIu64 " watches\n",
          esp_cli_print_of(info->connections, info->connections_max, text), info->connections_refused, info->streams,
          info->watches);
}

void esp_cli_render_status(FILE *out, const char *server, const struct esp_server_info *info) {
  char text[ESP_CLI_TEXT_MAX];
  char plan[ESP_MESSAGE_BYTES_MAX];
  esp_cli_render_head(out, server, info);
  if (info->plan_waits[0] != '\0')
    fprintf(out, "plan     WAITS, and pushes are refused: %s\n",
            esp_cli_print_plain(info->plan_waits, plan, sizeof plan));
  fprintf(out, "workers  %" PRIu64 "\n", info->sessions);
  fprintf(out, "pushes   %" PRIu64 " applied, %" PRIu64 " refused, %" PRIu64 " not finite; %s received; ",
          info->pushes_applied, info->pushes_refused, info->pushes_nonfinite,
          esp_cli_print_bytes(info->bytes_pushed, text));
  fprintf(out, "%s in flight\n", esp_cli_print_of(info->in_flight, info->in_flight_max, text));
  fprintf(out, "pulls    %" PRIu64 " served; %s sent; %" PRIu64 " under way\n", info->pulls,
          esp_cli_print_bytes(info->bytes_pulled, text), info->pulls_active);
  esp_cli_render_network(out, info);
  esp_cli_render_memory(out, info, 0);
}

static void render_bar(FILE *out, uint64_t bytes, uint64_t bound, unsigned width) {
  double share = bytes < bound ? (double)bytes / (double)bound : 1;
  unsigned full = (unsigned)(share * width + 0.5);
  fputc('[', out);
  for (unsigned i = 0; i < width; i++)
    fputc(i < full ? '#' : '.', out);
  fputs("]  ", out);
}

void esp_cli_render_memory(FILE *out, const struct esp_server_info *info, unsigned bar_width) {
  const struct {
    const char *name;
    uint64_t bytes;
    uint64_t bound; /* 0: none */
  } kinds[] = {{"values", info->memory_parameters, 0},
               {"optimizer state", info->memory_state, 0},
               {"staged", info->memory_staged, info->memory_staged_max},
               {"copy-on-write", info->memory_copy_on_write, info->memory_copy_on_write_max},
               {"spare", info->memory_spare, 0},
               {"whole process", info->memory_resident, 0}};
  char a[ESP_CLI_TEXT_MAX];
  char b[ESP_CLI_TEXT_MAX];
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    fprintf(out, "%-7s  %-15s  ", i == 0 ? "memory" : "", kinds[i].name);
    if (kinds[i].bound > 0 && bar_width > 0)
      render_bar(out, kinds[i].bytes, kinds[i].bound, bar_width);
    fputs(esp_cli_print_bytes(kinds[i].bytes, a), out);
    if (kinds[i].bound > 0)
      fprintf(out, " of at most %s", esp_cli_print_bytes(kinds[i].bound, b));
    fputc('\n', out);
  }
}

/* ---- tree ---- */

/* Adds to what is noted already. */
static void add_note(char *text, size_t size, const char *what, const char *which) {
  size_t len = strlen(text);
  snprintf(text + len, size - len, "%s%s%s", len > 0 ? ", " : "", what, which);
}

static void tree_note(const struct esp_leaf_info *leaf, char *text, size_t size) {
  text[0] = '\0';
  if (leaf->tied_to[0] != '\0')
    add_note(text, size, "tied to ", leaf->tied_to);
  if (leaf->kind == ESP_BUFFER)
    add_note(text, size, "buffer", "");
  if (leaf->detached)
    add_note(text, size, "detached", "");
  if (leaf->group_assigned[0] != '\0' && leaf->tied_to[0] == '\0')
    add_note(text, size, "no group is called ", leaf->group_assigned);
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

static void selected_row(const void *data, size_t index, struct esp_cli_row *ret) {
  const struct esp_leaf_info *leaf = &((const struct esp_description *)data)->leaves[index];
  ret->cells[0] = leaf->path;
  ret->cells[1] = esp_cli_print_shape(leaf->shape, leaf->rank, ret->scratch[1]);
  ret->cells[2] = esp_dtype_name((enum esp_dtype)leaf->dtype);
  tree_note(leaf, ret->scratch[3], ESP_CLI_SCRATCH_MAX);
  ret->cells[3] = ret->scratch[3];
}

void esp_cli_render_selected(FILE *out, const struct esp_description *description) {
  static const struct esp_cli_column columns[] = {{NULL, false}, {NULL, false}, {NULL, false}, {NULL, false}};
  const struct esp_cli_table leaves = {columns, 4, description->leaves_len, selected_row, description};
  esp_cli_table_print(&leaves, out);
  tree_totals(out, description);
}

void esp_cli_render_digest(FILE *out, const struct esp_description *description) {
  char text[ESP_CLI_TEXT_MAX];
  for (size_t i = 0; i < description->leaves_len; i++)
    fprintf(out, "%s  %s\n", esp_cli_print_digest(description->leaves[i].digest, text), description->leaves[i].path);
  fprintf(out, "%s  <all>  at commit %" PRIu64 "\n", esp_cli_print_digest(description->digest, text),
          description->commit);
}

/* ---- watch ---- */

void esp_cli_render_change(FILE *out, const struct esp_cli_change *change) {
  char time[ESP_CLI_TEXT_MAX];
  fprintf(out, "%s  epoch %" PRIu64 "  commit %" PRIu64 "  %s%s%s\n", esp_cli_print_time(change->wall_ms, time),
          change->epoch, change->commit, change->path, change->path[0] != '\0' ? "  " : "", change->what);
}

/* ---- groups ---- */

/* A cell that is made of a number. */
static const char *cell_u64(struct esp_cli_row *row, size_t column, uint64_t value) {
  snprintf(row->scratch[column], ESP_CLI_SCRATCH_MAX, "%" PRIu64, value);
  return row->scratch[column];
}

static void group_sum_row(const void *data, size_t index, struct esp_cli_row *ret) {
  const struct esp_cli_group *group = (const struct esp_cli_group *)data + index;
  ret->cells[0] = group->info->name;
  ret->cells[1] = cell_u64(ret, 1, group->info->parameters);
  ret->cells[2] = cell_u64(ret, 2, group->elements);
  ret->cells[3] = esp_cli_print_bytes(group->bytes, ret->scratch[3]);
  ret->cells[4] = esp_cli_print_bytes(group->state_bytes, ret->scratch[4]);
  ret->cells[5] = esp_cli_print_share(group->elements_frozen, group->elements, ret->scratch[5]);
  ret->cells[6] = group->info->expression;
}

void esp_cli_render_groups(FILE *out, const struct esp_cli_group *groups, size_t len) {
  static const struct esp_cli_column columns[] = {{"GROUP", false},    {"PARAMETERS", true}, {"ELEMENTS", true},
                                                  {"VALUES", true},    {"STATE", true},      {"FROZEN", true},
                                                  {"OPTIMIZER", false}};
  const struct esp_cli_table table = {columns, 7, len, group_sum_row, groups};
  esp_cli_table_print(&table, out);
}

/* The leaves of a group, among all. */
struct members {
  const struct esp_description *description;
  const size_t *indices; /* in its leaves */
};

static void member_row(const void *data, size_t index, struct esp_cli_row *ret) {
  const struct members *members = data;
  const struct esp_leaf_info *leaf = &members->description->leaves[members->indices[index]];
  ret->cells[0] = leaf->path;
  ret->cells[1] = esp_cli_print_shape(leaf->shape, leaf->rank, ret->scratch[1]);
  ret->cells[2] = esp_dtype_name((enum esp_dtype)leaf->dtype);
  ret->cells[3] = leaf->frozen ? "yes" : "-";
  ret->cells[4] = leaf->kind == ESP_BUFFER ? "-" : cell_u64(ret, 4, leaf->steps);
  tree_note(leaf, ret->scratch[5], ESP_CLI_SCRATCH_MAX);
  ret->cells[5] = ret->scratch[5];
}

void esp_cli_render_group(FILE *out, const struct esp_cli_group *group, const struct esp_description *description,
                          const size_t *indices) {
  static const struct esp_cli_column columns[] = {{"PATH", false},   {"SHAPE", false}, {"DTYPE", false},
                                                  {"FROZEN", false}, {"STEPS", true},  {"NOTE", false}};
  const struct members members = {description, indices};
  const struct esp_cli_table leaves = {columns, 6, (size_t)group->leaves, member_row, &members};
  esp_cli_render_groups(out, group, 1);
  if (group->leaves > 0)
    fputc('\n', out);
  esp_cli_table_print(&leaves, out);
}

/* ---- workers ---- */

static void worker_row(const void *data, size_t index, struct esp_cli_row *ret) {
  const struct esp_worker_info *worker = (const struct esp_worker_info *)data + index;
  ret->cells[0] =
      esp_cli_print_plain(worker->name[0] != '\0' ? worker->name : "-", ret->scratch[0], ESP_CLI_SCRATCH_MAX);
  ret->cells[1] = esp_cli_print_plain(worker->peer, ret->scratch[1], ESP_CLI_SCRATCH_MAX);
  ret->cells[2] = esp_cli_print_id(worker->session, ret->scratch[2]);
  ret->cells[3] = worker->live ? "live" : "gone";
  ret->cells[4] = cell_u64(ret, 4, worker->pushes);
  ret->cells[5] = cell_u64(ret, 5, worker->in_flight);
  ret->cells[6] = cell_u64(ret, 6, worker->staleness);
  ret->cells[7] = esp_cli_print_duration(worker->last_seen_ms, ret->scratch[7]);
}

void esp_cli_render_workers(FILE *out, const struct esp_worker_info *workers, size_t len) {
  static const struct esp_cli_column columns[] = {{"WORKER", false}, {"PEER", false},    {"SESSION", false},
                                                  {"LEASE", false},  {"PUSHES", true},   {"IN FLIGHT", true},
                                                  {"BEHIND", true},  {"LAST SEEN", true}};
  const struct esp_cli_table table = {columns, 8, len, worker_row, workers};
  esp_cli_table_print(&table, out);
}

/* ---- timers ---- */

static const char *timer_deed(const struct esp_timer_info *timer, char *text) {
  char end[ESP_CLI_TEXT_MAX] = "";
  char time[ESP_CLI_TEXT_MAX];
  if (timer->until_commit != 0)
    snprintf(end, sizeof end, " until commit %" PRIu64, timer->until_commit);
  else if (timer->for_ms != 0)
    snprintf(end, sizeof end, " for %s", esp_cli_print_duration(timer->for_ms, time));
  snprintf(text, ESP_CLI_SCRATCH_MAX, "%s%s%s", timer->freezes ? "freeze" : "thaw",
           timer->reset_state ? ", state reset" : "", end);
  return text;
}

static const char *timer_when(const struct esp_timer_info *timer, char *text) {
  if (timer->wait == ESP_WAIT_TIME)
    return esp_cli_print_time(timer->at, text);
  snprintf(text, ESP_CLI_SCRATCH_MAX, "%s %" PRIu64, timer->wait == ESP_WAIT_COMMIT ? "commit" : "push", timer->at);
  return text;
}

static const char *timer_left(const struct esp_timer_info *timer, char *text) {
  if (timer->wait == ESP_WAIT_TIME)
    return esp_cli_print_duration(timer->left, text);
  snprintf(text, ESP_CLI_SCRATCH_MAX, "%" PRIu64 " %s%s", timer->left,
           timer->wait == ESP_WAIT_COMMIT ? "commit" : "push",
           timer->left == 1                 ? ""
           : timer->wait == ESP_WAIT_COMMIT ? "s"
                                            : "es");
  return text;
}

static void timer_row(const void *data, size_t index, struct esp_cli_row *ret) {
  const struct esp_timer_info *timer = &((const struct esp_timers *)data)->timers[index];
  ret->cells[0] = cell_u64(ret, 0, timer->timer);
  ret->cells[1] = timer_deed(timer, ret->scratch[1]);
  ret->cells[2] = timer_when(timer, ret->scratch[2]);
  ret->cells[3] = timer_left(timer, ret->scratch[3]);
  ret->cells[4] = cell_u64(ret, 4, timer->leaves);
  ret->cells[5] = cell_u64(ret, 5, timer->epoch);
  ret->cells[6] = esp_cli_print_plain(timer->selection, ret->scratch[6], ESP_CLI_SCRATCH_MAX);
}

void esp_cli_render_timers(FILE *out, const struct esp_timers *timers) {
  static const struct esp_cli_column columns[] = {{"TIMER", true},     {"DOES", false},  {"WHEN", false},
                                                  {"LEFT", true},      {"LEAVES", true}, {"EPOCH", true},
                                                  {"SELECTION", false}};
  const struct esp_cli_table table = {columns, 7, timers->len, timer_row, timers};
  esp_cli_table_print(&table, out);
}
