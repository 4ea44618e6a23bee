/* freeze and thaw with all that they may say of when: for how long, until or at which commit, one node after the other.
 * What does not happen now becomes a timer of the layout. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "engine/operations.h"

bool esp_timer_is_ahead(const struct esp_timer *timer, const struct esp_moment *moment) {
  switch (timer->due) {
  case ESP_TIMER_COMMIT:
    return timer->at > moment->commit;
  case ESP_TIMER_PUSHES:
    return timer->at > moment->push_commits;
  default:
    return timer->at > moment->wall_ms;
  }
}

/* ---- what an operation says ---- */

enum esp_code esp_operation_timing_check(const struct esp_operation *op, struct esp_status *st) {
  bool freezes = op->kind == ESP_OPERATION_FREEZE;
  const char *why = NULL;
  if (!freezes && (op->until_commit != 0 || op->for_ms != 0))
    why = "a thaw does not end by itself: only a freeze is until a commit or for a time";
  else if (freezes && (op->one_by_one || op->every != 0))
    why = "only a thaw goes one by one";
  else if (op->until_commit != 0 && op->for_ms != 0)
    why = "a freeze ends at a commit or after a time: one of them can be given";
  else if (op->one_by_one && op->at_commit != 0)
    why = "what is thawed one by one begins now, and not at a commit";
  else if (op->one_by_one && op->every == 0)
    why = "one by one needs a number of commits of pushes from one to the next";
  else if (!op->one_by_one && op->every != 0)
    why = "a number of commits from one to the next is for what is thawed one by one";
  if (why != NULL)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%s", why);
  if (op->at_commit != 0 && op->until_commit != 0 && op->until_commit <= op->at_commit)
    return esp_fail(st, ESP_INVALID_ARGUMENT,
                    "a freeze at commit %" PRIu64 " can't end at commit %" PRIu64 ", which is not after it",
                    op->at_commit, op->until_commit);
  return ESP_OK;
}

/* FAILED_PRECONDITION where the commit has been. */
static enum esp_code commit_check(const struct esp_transaction *tx, uint64_t commit, struct esp_status *st) {
  if (commit == 0 || commit > tx->moment.commit)
    return ESP_OK;
  return esp_fail(st, ESP_FAILED_PRECONDITION, "commit %" PRIu64 " has been: the tree is at commit %" PRIu64, commit,
                  tx->moment.commit);
}

enum esp_code esp_operation_freeze_timed(struct esp_transaction *tx, const struct esp_operation *op,
                                         const struct esp_selection *sel, struct esp_status *st) {
  bool frozen = op->kind == ESP_OPERATION_FREEZE;
  struct esp_timer timer = {.due = ESP_TIMER_COMMIT, .selection = op->selection};
  enum esp_code code = commit_check(tx, op->at_commit, st);
  if (code == ESP_OK)
    code = commit_check(tx, op->until_commit, st);
  if (code != ESP_OK)
    return code;
  if (op->for_ms > UINT64_MAX - tx->moment.wall_ms)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%" PRIu64 " ms from now is later than any time", op->for_ms);
  if (op->at_commit != 0) {
    timer.at = op->at_commit;
    timer.frozen = frozen;
    timer.reset_state = op->reset_state && !frozen;
    timer.until_commit = op->until_commit;
    timer.for_ms = op->for_ms;
    return esp_edit_timer(tx->edit, sel, &timer, st);
  }
  timer.at = op->until_commit;
  if (op->for_ms != 0) {
    timer.due = ESP_TIMER_TIME;
    timer.at = tx->moment.wall_ms + op->for_ms;
    timer.after = op->for_ms;
  }
  bool ends = op->until_commit != 0 || op->for_ms != 0;
  return esp_operation_freeze(tx, frozen, op->reset_state, sel, ends ? &timer : NULL, st);
}

/* ---- one by one ---- */

/* The deepest node that all of these leaves lie under, or the leaf; where that is the root, what was asked for. */
static const char *node_of(const struct esp_layout *view, const struct esp_selection *sel, const char *asked,
                           char buffer[ESP_PATH_BYTES_MAX + 1]) {
  const struct esp_leaf *first = &view->leaves[sel->leaves[0]];
  const struct esp_leaf *last = &view->leaves[sel->leaves[sel->len - 1]];
  size_t len = first->path_len;
  while (len > 0 && !esp_path_within(last->path, last->path_len, first->path, len)) {
    do
      len--;
    while (len > 0 && first->path[len] != '.');
  }
  if (len == 0)
    return asked;
  snprintf(buffer, ESP_PATH_BYTES_MAX + 1, "%.*s", (int)len, first->path);
  return buffer;
}

/* Leaves out those whose parameters were met before: they are thawed with the first that is bound to them. */
static void keep_new(const struct esp_layout *view, struct esp_selection *sel, uint8_t *met) {
  size_t left = 0;
  for (size_t i = 0; i < sel->len; i++) {
    if (!met[view->leaves[sel->leaves[i]].param])
      sel->leaves[left++] = sel->leaves[i];
  }
  sel->len = left;
  for (size_t i = 0; i < left; i++)
    met[view->leaves[sel->leaves[i]].param] = 1;
}

static enum esp_code thaw_nodes(struct esp_transaction *tx, const struct esp_operation *op, struct esp_selection *nodes,
                                size_t len, uint8_t *met, struct esp_status *st) {
  char node[ESP_PATH_BYTES_MAX + 1];
  enum esp_code code = ESP_OK;
  uint64_t after = 0;
  for (size_t i = 0; i < len && code == ESP_OK; i++) {
    const struct esp_layout *view = esp_edit_view(tx->edit);
    keep_new(view, &nodes[i], met);
    if (nodes[i].len == 0)
      continue;
    struct esp_timer timer = {.due = ESP_TIMER_PUSHES,
                              .at = tx->moment.push_commits + after,
                              .after = after,
                              .reset_state = op->reset_state,
                              .selection = node_of(view, &nodes[i], op->selection, node)};
    code = after == 0 ? esp_operation_freeze(tx, false, op->reset_state, &nodes[i], NULL, st)
                      : esp_edit_timer(tx->edit, &nodes[i], &timer, st);
    after += op->every;
  }
  return code;
}

/* The last one's count must be one. */
static enum esp_code steps_check(const struct esp_transaction *tx, const struct esp_operation *op, size_t len,
                                 struct esp_status *st) {
  if (len - 1 > ESP_TIMERS_MAX)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "%zu nodes are named, and there can be %d timers", len, ESP_TIMERS_MAX);
  if (op->every > (UINT64_MAX - tx->moment.push_commits) / len)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%zu times %" PRIu64 " commits of pushes is more than can be counted",
                    len - 1, op->every);
  return ESP_OK;
}

enum esp_code esp_operation_thaw_one_by_one(struct esp_transaction *tx, const struct esp_operation *op,
                                            struct esp_status *st) {
  struct esp_selection *nodes = NULL;
  size_t len = 0;
  const struct esp_layout *view = esp_edit_view(tx->edit);
  enum esp_code code = esp_select_in_order(view, op->selection, strlen(op->selection), &nodes, &len, st);
  if (code != ESP_OK)
    return code;
  uint64_t leaves = 0;
  for (size_t i = 0; i < len; i++)
    leaves += nodes[i].len;
  uint8_t *met = esp_calloc(view->params_len + 1, 1);
  code = met == NULL ? esp_transaction_memory(st) : esp_transaction_count(tx, leaves, st);
  if (code == ESP_OK)
    code = steps_check(tx, op, len, st);
  if (met != NULL && code == ESP_OK)
    code = thaw_nodes(tx, op, nodes, len, met, st);
  for (size_t i = 0; i < len; i++)
    esp_selection_done(&nodes[i]);
  esp_free(nodes);
  esp_free(met);
  return code;
}
