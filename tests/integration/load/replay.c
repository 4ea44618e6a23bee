/* A log, applied to another server that had nothing yet.
 *
 * The happy path: one client declares the tree; another, which never declared and so takes no leaf for frozen, makes
 * every push of the log with exactly the leaves that were sent then, and every change, in commit order. The server must
 * count as it did then: the same commit numbers, the same number of leaves stepped. It fails at the first difference.
 */
#include <inttypes.h>

#include "base/alloc.h"
#include "tests/integration/load/load.h"

/* What a replay holds. */
struct replay {
  const struct load_options *options;
  esp_client *declarer;             /* declares, and changes what is frozen */
  esp_client *pusher;               /* pushes */
  esp_leaf_id ids[LOAD_LEAVES_MAX]; /* as declared */
  struct load_gradients grads;
};

static bool check(const struct load_commit *commit, uint64_t got_commit, uint64_t got_applied) {
  if (got_commit == commit->commit && got_applied == commit->applied)
    return true;
  fprintf(stderr,
          "pusher: commit %" PRIu64 " (seed %" PRIu64 ", number %" PRIu64 ", applied %" PRIu64
          ") became commit %" PRIu64 ", applied %" PRIu64 "\n",
          commit->commit, commit->seed, commit->number, commit->applied, got_commit, got_applied);
  return false;
}

static bool failed(const char *what, const struct esp_status *st) {
  fprintf(stderr, "pusher: replay: %s: %s: %s\n", what, esp_code_name(st->code), st->message);
  return false;
}

static bool push(struct replay *replay, const struct load_commit *commit) {
  const struct load_options *options = replay->options;
  struct esp_gradient list[LOAD_LEAVES_MAX];
  struct esp_push_result result;
  struct esp_status st;
  size_t len = load_fill(&replay->grads, &options->tree, &options->recipe, commit->seed, commit->number, commit->sent,
                         replay->ids, list);
  if (esp_push(replay->pusher, list, len, &result, &st) != ESP_OK)
    return failed("push", &st);
  return check(commit, result.commit, result.applied);
}

static bool change(struct replay *replay, const struct load_commit *commit) {
  struct esp_op op = {.kind = commit->is_freeze ? ESP_OP_FREEZE : ESP_OP_THAW, .selection = commit->selection};
  struct esp_apply_result *result;
  struct esp_status st;
  if (esp_apply(replay->declarer, &op, 1, NULL, &result, &st) != ESP_OK)
    return failed(commit->is_freeze ? "freeze" : "thaw", &st);
  uint64_t number = result->commit;
  esp_apply_result_free(result);
  return check(commit, number, 0);
}

static bool apply(struct replay *replay, const struct load_commit *commits, size_t len) {
  for (size_t i = 0; i < len && commits[i].commit < replay->options->below; i++)
    if (!(commits[i].is_push ? push(replay, &commits[i]) : change(replay, &commits[i])))
      return false;
  return true;
}

static bool open_clients(struct replay *replay) {
  struct esp_client_options options = ESP_CLIENT_OPTIONS_INIT;
  options.target = replay->options->server;
  options.deadline_ms = replay->options->deadline_ms;
  struct esp_status st;
  if (esp_client_open(&options, &replay->declarer, &st) != ESP_OK ||
      esp_client_open(&options, &replay->pusher, &st) != ESP_OK)
    return failed("open", &st);
  if (load_tree_declare(&replay->options->tree, replay->declarer, replay->ids, &st) != ESP_OK)
    return failed("declare", &st);
  return true;
}

bool load_replay(const struct load_options *options) {
  struct replay replay = {.options = options};
  struct load_commit *commits;
  size_t len;
  if (!load_log_read(options->replay, &commits, &len))
    return false;
  bool good = load_gradients_init(&replay.grads, &options->tree);
  if (!good)
    fprintf(stderr, "pusher: out of memory for gradients\n");
  good = good && open_clients(&replay) && apply(&replay, commits, len);
  esp_client_close(replay.pusher);
  esp_client_close(replay.declarer);
  load_gradients_done(&replay.grads);
  esp_free(commits);
  return good;
}
