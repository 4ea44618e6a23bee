/* top: what a live server does, again and again. On a terminal each snapshot replaces the one before; elsewhere they
 * follow each other, as text or as one line of JSON each.
 *
 * The happy path: ask for the server's numbers, its workers, and, where the epoch has changed, the tree, which has the
 * groups; take rates from the difference to the answer before; print; wait. A server that does not answer is shown as
 * such and asked again. Only output that cannot be written ends it with an error. */
#include <unistd.h>

#include "base/alloc.h"
#include "client/cli/cli.h"
#include "client/cli/terminal.h"

#define TEXT_COLUMNS 80
#define TEXT_ROWS 60
#define CLEAR "\033[H\033[J"

struct top {
  struct esp_cli *cli;
  struct esp_cli_snapshot snapshot;
  uint64_t answered_ms; /* when the last answer came, or top began */
  bool on_terminal;
};

/* ---- what is known ---- */

static double per_second(uint64_t before, uint64_t now, uint64_t ms) {
  return now > before ? (double)(now - before) * 1000 / (double)ms : 0;
}

static void take_rates(struct esp_cli_snapshot *snapshot, const struct esp_server_info *now, uint64_t ms) {
  const struct esp_server_info *before = &snapshot->info;
  snapshot->has_rates = snapshot->has_info && ms > 0 && now->lineage == before->lineage;
  if (!snapshot->has_rates)
    return;
  snapshot->rates = (struct esp_cli_rates){
      .pushes = per_second(before->pushes_applied, now->pushes_applied, ms),
      .pulls = per_second(before->pulls, now->pulls, ms),
      .bytes_pushed = per_second(before->bytes_pushed, now->bytes_pushed, ms),
      .bytes_pulled = per_second(before->bytes_pulled, now->bytes_pulled, ms),
      .refused = per_second(before->pushes_refused, now->pushes_refused, ms),
      .nonfinite = per_second(before->pushes_nonfinite, now->pushes_nonfinite, ms),
  };
}

static void forget_workers(struct esp_cli_snapshot *snapshot) {
  esp_free(snapshot->workers);
  esp_workers_free(snapshot->workers_list);
  snapshot->workers = NULL;
  snapshot->workers_list = NULL;
}

static void ask_workers(struct top *top) {
  struct esp_cli_snapshot *snapshot = &top->snapshot;
  forget_workers(snapshot);
  snapshot->workers_st.code = esp_workers_list(top->cli->client, &snapshot->workers_list, &snapshot->workers_st);
  if (snapshot->workers_st.code != ESP_OK)
    return;
  snapshot->workers = esp_cli_workers_sort(snapshot->workers_list);
  if (snapshot->workers == NULL)
    snapshot->workers_st.code = esp_fail(&snapshot->workers_st, ESP_RESOURCE_EXHAUSTED, "no memory to sort %zu workers",
                                         snapshot->workers_list->len);
}

static void forget_groups(struct esp_cli_snapshot *snapshot) {
  esp_free(snapshot->groups);
  esp_description_free(snapshot->description);
  snapshot->groups = NULL;
  snapshot->description = NULL;
}

/* The whole tree is asked for, so only where it can be another one. */
static void ask_groups(struct top *top) {
  struct esp_cli_snapshot *snapshot = &top->snapshot;
  const struct esp_description *known = snapshot->description;
  if (snapshot->groups != NULL && known->epoch == snapshot->info.epoch && known->lineage == snapshot->info.lineage)
    return;
  forget_groups(snapshot);
  snapshot->groups_st.code = esp_describe(top->cli->client, NULL, false, &snapshot->description, &snapshot->groups_st);
  if (snapshot->groups_st.code != ESP_OK)
    return;
  snapshot->groups = esp_cli_groups_sum(snapshot->description);
  if (snapshot->groups == NULL)
    snapshot->groups_st.code = esp_fail(&snapshot->groups_st, ESP_RESOURCE_EXHAUSTED, "no memory to add up groups");
}

static void ask(struct top *top) {
  struct esp_cli *cli = top->cli;
  struct esp_cli_snapshot *snapshot = &top->snapshot;
  struct esp_server_info info;
  snapshot->st.code = esp_server_info(cli->client, &info, &snapshot->st);
  uint64_t now_ms = cli->env->now_ms(cli->env->data);
  snapshot->wall_ms = cli->env->wall_ms(cli->env->data);
  snapshot->silent_ms = now_ms - top->answered_ms;
  if (snapshot->st.code != ESP_OK) {
    snapshot->has_rates = false;
    return;
  }
  take_rates(snapshot, &info, snapshot->silent_ms);
  snapshot->info = info;
  snapshot->has_info = true;
  snapshot->silent_ms = 0;
  top->answered_ms = now_ms;
  ask_workers(top);
  ask_groups(top);
}

/* ---- showing it ---- */

static bool show(struct top *top) {
  FILE *out = top->cli->out;
  bool ok = true;
  unsigned columns = TEXT_COLUMNS;
  unsigned rows = TEXT_ROWS;
  if (top->on_terminal) {
    esp_cli_terminal_size(&columns, &rows);
    fputs(CLEAR, out);
  }
  if ((top->cli->options & ESP_CLI_JSON) != 0)
    ok = esp_cli_json_snapshot(out, &top->snapshot);
  else
    esp_cli_render_snapshot(out, &top->snapshot, columns, rows - 1); /* the last line feed would scroll */
  if (!top->on_terminal && (top->cli->options & ESP_CLI_JSON) == 0)
    fputc('\n', out);
  return esp_cli_flush(top->cli) && ok;
}

/* Until the next snapshot is due: shows the last one again where the window has another size. False: it is to end. */
static bool wait_for_next(struct top *top, uint64_t due_ms) {
  const struct esp_env *env = top->cli->env;
  for (uint64_t now_ms; (now_ms = env->now_ms(env->data)) < due_ms;) {
    enum esp_cli_key key = esp_cli_terminal_wait(due_ms - now_ms);
    if (key == ESP_CLI_KEY_NONE)
      break;
    if (key == ESP_CLI_KEY_QUIT || (key == ESP_CLI_KEY_RESIZED && !show(top)))
      return false;
  }
  return true;
}

static bool run(struct top *top) {
  struct esp_cli *cli = top->cli;
  for (uint64_t n = 1;; n++) {
    uint64_t begun_ms = cli->env->now_ms(cli->env->data);
    ask(top);
    if (!show(top))
      return false;
    if (n == cli->count || !wait_for_next(top, begun_ms + cli->interval_ms))
      return true;
  }
}

enum esp_cli_exit esp_cli_run_top(struct esp_cli *cli) {
  struct top top = {.cli = cli, .answered_ms = cli->env->now_ms(cli->env->data), .snapshot = {.server = cli->server}};
  top.on_terminal = (cli->options & ESP_CLI_JSON) == 0 && isatty(fileno(cli->out));
  if (top.on_terminal)
    esp_cli_terminal_begin(STDIN_FILENO, fileno(cli->out));
  bool ok = run(&top);
  esp_cli_terminal_end();
  forget_workers(&top.snapshot);
  forget_groups(&top.snapshot);
  return esp_cli_finish(cli, ok);
}
