/* One snapshot of top for people: what the server does first, then what it holds, its groups, its workers. What does
 * not fit the window is counted. */
#include <inttypes.h>

#include "client/cli/cli.h"

#define FIXED_ROWS 13    /* lines that are always there, and the empty one after them */
#define BAR_WIDTH_MIN 10 /* characters */
#define BAR_WIDTH_MAX 40 /* characters */
#define BESIDE_BAR_COLUMNS 60

/* "120.5/s", or "-" where there is nothing to compare with. */
static const char *print_rate(bool known, double rate, char *text) {
  if (known)
    snprintf(text, ESP_CLI_TEXT_MAX, "%.1f/s", rate);
  else
    snprintf(text, ESP_CLI_TEXT_MAX, "-");
  return text;
}

static const char *print_speed(bool known, double rate, char *text) {
  char bytes[ESP_CLI_TEXT_MAX];
  snprintf(text, ESP_CLI_TEXT_MAX, "%s%s", known ? esp_cli_print_bytes((uint64_t)rate, bytes) : "-", known ? "/s" : "");
  return text;
}

static void render_rates(FILE *out, const struct esp_cli_snapshot *snapshot) {
  const struct esp_server_info *info = &snapshot->info;
  const struct esp_cli_rates *rates = &snapshot->rates;
  bool known = snapshot->has_rates;
  char a[ESP_CLI_TEXT_MAX];
  char b[ESP_CLI_TEXT_MAX];
  char c[ESP_CLI_TEXT_MAX];
  fprintf(out, "pushes   %s, %s in; ", print_rate(known, rates->pushes, a), print_speed(known, rates->bytes_pushed, b));
  fprintf(out, "refused %s, not finite %s; %s in flight\n", print_rate(known, rates->refused, a),
          print_rate(known, rates->nonfinite, b), esp_cli_print_of(info->in_flight, info->in_flight_max, c));
  fprintf(out, "pulls    %s, %s out; %" PRIu64 " under way\n", print_rate(known, rates->pulls, a),
          print_speed(known, rates->bytes_pulled, b), info->pulls_active);
}

static unsigned bar_width(unsigned columns) {
  unsigned width = columns > BESIDE_BAR_COLUMNS ? columns - BESIDE_BAR_COLUMNS : 0;
  return width < BAR_WIDTH_MIN ? BAR_WIDTH_MIN : width > BAR_WIDTH_MAX ? BAR_WIDTH_MAX : width;
}

/* How many lines of a table of `len` fit into `rows`, with its titles and, where not all do, the line that says so. */
static size_t fitting(size_t len, unsigned rows) {
  if (len + 1 <= rows)
    return len;
  return rows > 2 ? rows - 2 : 0;
}

static void render_rest(FILE *out, size_t len, size_t shown) {
  if (shown < len)
    fprintf(out, "and %zu more\n", len - shown);
}

static unsigned render_groups(FILE *out, const struct esp_cli_snapshot *snapshot, unsigned rows) {
  if (snapshot->groups == NULL) {
    fprintf(out, "groups   not known: %s\n", snapshot->groups_st.message);
    return 1;
  }
  size_t len = snapshot->description->groups_len;
  size_t shown = fitting(len, rows);
  esp_cli_render_groups(out, snapshot->groups, shown);
  render_rest(out, len, shown);
  return (unsigned)(shown + (shown > 0) + (shown < len));
}

static void render_workers(FILE *out, const struct esp_cli_snapshot *snapshot, unsigned rows) {
  if (snapshot->workers == NULL) {
    fprintf(out, "workers  not known: %s\n", snapshot->workers_st.message);
    return;
  }
  size_t len = snapshot->workers_list->len;
  size_t shown = fitting(len, rows);
  if (len == 0)
    fprintf(out, "no workers\n");
  esp_cli_render_workers(out, snapshot->workers, shown);
  render_rest(out, len, shown);
}

void esp_cli_render_snapshot(FILE *out, const struct esp_cli_snapshot *snapshot, unsigned columns, unsigned rows) {
  char text[ESP_CLI_TEXT_MAX];
  if (snapshot->st.code != ESP_OK) {
    fprintf(out, "NO ANSWER since %s: %s\n", esp_cli_print_duration(snapshot->silent_ms, text), snapshot->st.message);
    rows -= rows > 0;
  }
  if (!snapshot->has_info)
    return;
  esp_cli_render_head(out, snapshot->server, &snapshot->info);
  render_rates(out, snapshot);
  esp_cli_render_network(out, &snapshot->info);
  esp_cli_render_memory(out, &snapshot->info, bar_width(columns));
  unsigned left = rows > FIXED_ROWS ? rows - FIXED_ROWS : 0;
  if (left < 4) /* titles and a line of each, with the empty line between them, or nothing of them */
    return;
  fputc('\n', out);
  left -= render_groups(out, snapshot, left / 2);
  fputc('\n', out);
  render_workers(out, snapshot, left - 1);
}
