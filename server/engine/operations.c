/* Admin operations, each by its kind. Those that take a selection have it evaluated in the transaction's current view:
 * an operation sees what those before it did. */
#include "engine/operations.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"

enum esp_code esp_transaction_memory(struct esp_status *st) {
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for so large a transaction");
}

enum esp_code esp_transaction_count(struct esp_transaction *tx, uint64_t leaves, struct esp_status *st) {
  tx->matched += leaves;
  if (tx->max_leaves == 0 || tx->matched <= tx->max_leaves)
    return ESP_OK;
  return esp_fail(st, ESP_FAILED_PRECONDITION,
                  "this touches %" PRIu64 " leaves, more than the %" PRIu64 " that were allowed", tx->matched,
                  tx->max_leaves);
}

/* ---- one item a parameter ---- */

static void print_init(const struct esp_init *init, char *text, size_t size) {
  switch (init->kind) {
  case ESP_INIT_CONSTANT:
    snprintf(text, size, "constant(%.17g)", init->a);
    break;
  case ESP_INIT_UNIFORM:
    snprintf(text, size, "uniform(%.17g, %.17g), seed %" PRIu64, init->a, init->b, init->seed);
    break;
  case ESP_INIT_NORMAL:
    snprintf(text, size, "normal(%.17g, %.17g), seed %" PRIu64, init->a, init->b, init->seed);
    break;
  case ESP_INIT_ZEROS:
  case ESP_INIT_VALUE:
    snprintf(text, size, "zeros");
    break;
  }
}

/* Puts an item into the queue of each parameter of the selection, once. */
static enum esp_code each_param(struct esp_transaction *tx, const struct esp_selection *sel,
                                const struct esp_item *item, struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(tx->edit);
  uint8_t *seen = esp_calloc(view->params_len / 8 + 1, 1);
  enum esp_code code = seen == NULL ? esp_transaction_memory(st) : ESP_OK;
  for (size_t i = 0; i < sel->len && code == ESP_OK; i++) {
    uint32_t param = view->leaves[sel->leaves[i]].param;
    const struct esp_place *place = &view->params[param];
    if ((seen[param / 8] & (1U << param % 8)) != 0)
      continue;
    seen[param / 8] |= (uint8_t)(1U << param % 8);
    tx->work.resets += item->kind == ESP_ITEM_RESET;
    if (!esp_work_add(&tx->work, esp_place_param(place), item))
      code = esp_transaction_memory(st);
  }
  esp_free(seen);
  return code;
}

enum esp_code esp_operation_reset(struct esp_transaction *tx, const struct esp_selection *sel, bool only_frozen,
                                  struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(tx->edit);
  struct esp_item item = {.kind = ESP_ITEM_RESET};
  struct esp_selection meant = {.leaves = esp_malloc_array(sel->len + 1, sizeof(uint32_t))};
  enum esp_code code = meant.leaves == NULL ? esp_transaction_memory(st) : ESP_OK;
  for (size_t i = 0; code == ESP_OK && i < sel->len; i++) {
    const struct esp_leaf *leaf = &view->leaves[sel->leaves[i]];
    if (leaf->kind == ESP_KIND_TRAINED && (!only_frozen || esp_layout_place(view, leaf)->frozen))
      meant.leaves[meant.len++] = sel->leaves[i];
  }
  if (code == ESP_OK)
    code = each_param(tx, &meant, &item, st);
  if (code == ESP_OK)
    code = esp_edit_touch(tx->edit, &meant, "state", "reset", st);
  esp_selection_done(&meant);
  return code;
}

enum esp_code esp_operation_wait(struct esp_transaction *tx, const struct esp_selection *sel, struct esp_status *st) {
  struct esp_item barrier = {.kind = ESP_ITEM_BARRIER};
  return each_param(tx, sel, &barrier, st);
}

/* It waits for what is being applied to all that it names, also to what somebody else froze a moment ago. */
enum esp_code esp_operation_freeze(struct esp_transaction *tx, bool frozen, bool reset_state,
                                   const struct esp_selection *sel, const struct esp_timer *timer,
                                   struct esp_status *st) {
  enum esp_code code = frozen ? esp_operation_wait(tx, sel, st) : ESP_OK;
  if (code == ESP_OK && reset_state)
    code = esp_operation_reset(tx, sel, true, st);
  return code == ESP_OK ? esp_edit_freeze_timed(tx->edit, sel, frozen, timer, st) : code;
}

static enum esp_code run_detach(struct esp_transaction *tx, const struct esp_operation *op,
                                const struct esp_selection *sel, struct esp_status *st) {
  enum esp_code code = esp_operation_wait(tx, sel, st);
  return code == ESP_OK ? esp_edit_detach(tx->edit, sel, op->kind == ESP_OPERATION_DETACH, st) : code;
}

static enum esp_code run_reinit(struct esp_transaction *tx, const struct esp_operation *op,
                                const struct esp_selection *sel, struct esp_status *st) {
  char text[128];
  struct esp_item item = {.kind = ESP_ITEM_FILL, .fill = {.init = op->init}};
  print_init(&op->init, text, sizeof(text));
  enum esp_code code = each_param(tx, sel, &item, st);
  return code == ESP_OK ? esp_edit_touch(tx->edit, sel, "value", text, st) : code;
}

static enum esp_code run_set(struct esp_transaction *tx, const struct esp_operation *op,
                             const struct esp_selection *sel, const struct esp_push *stage, struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(tx->edit);
  if (stage == NULL)
    return esp_fail(st, ESP_FAILED_PRECONDITION,
                    "there is no stage %" PRIu64 ": it was used, or has expired (twice --stall-timeout); stage again",
                    op->stage);
  for (size_t i = 0; i < sel->len; i++) {
    const struct esp_leaf *leaf = &view->leaves[sel->leaves[i]];
    struct esp_param *param = esp_place_param(esp_layout_place(view, leaf));
    const struct esp_slot *slot = esp_upload_slot(&stage->upload, leaf->id);
    if (slot == NULL)
      return esp_fail(st, ESP_FAILED_PRECONDITION, "leaf %s is selected, but the stage has no value for it",
                      leaf->path);
    struct esp_item write = {.kind = ESP_ITEM_WRITE,
                             .write = {.from = slot->data, .transposed = leaf->view == ESP_VIEW_TRANSPOSE}};
    if (!esp_work_add(&tx->work, param, &write))
      return esp_transaction_memory(st);
  }
  enum esp_code code = esp_edit_touch(tx->edit, sel, "value", "set", st);
  return code == ESP_OK && op->reset_state ? esp_operation_reset(tx, sel, false, st) : code;
}

static enum esp_code run_rename(struct esp_transaction *tx, const struct esp_operation *op, struct esp_status *st) {
  size_t first, len, from_len = strlen(op->selection);
  esp_layout_range(esp_edit_peek(tx->edit), op->selection, from_len, &first, &len);
  enum esp_code code = esp_transaction_count(tx, len, st);
  return code == ESP_OK ? esp_edit_rename(tx->edit, op->selection, from_len, op->to, strlen(op->to), st) : code;
}

/* ---- all of them ---- */

static enum esp_code run_selected(struct esp_transaction *tx, const struct esp_operation *op, struct esp_selection *sel,
                                  const struct esp_push *stage, struct esp_status *st) {
  switch (op->kind) {
  case ESP_OPERATION_FREEZE:
  case ESP_OPERATION_THAW:
    return esp_operation_freeze_timed(tx, op, sel, st);
  case ESP_OPERATION_DETACH:
  case ESP_OPERATION_ATTACH:
    return run_detach(tx, op, sel, st);
  case ESP_OPERATION_UNTIE:
    return esp_operation_untie(tx, op, sel, st);
  case ESP_OPERATION_REGROUP:
    return esp_operation_regroup(tx, op, sel, st);
  case ESP_OPERATION_SET:
    return run_set(tx, op, sel, stage, st);
  case ESP_OPERATION_REMOVE:
    tx->settles = true; /* another primary leaf may bring another group */
    return esp_edit_remove(tx->edit, sel, st);
  case ESP_OPERATION_REINIT:
    return run_reinit(tx, op, sel, st);
  case ESP_OPERATION_RESET:
    return esp_operation_reset(tx, sel, false, st);
  default:
    return esp_fail(st, ESP_INTERNAL, "an operation of kind %d takes no selection", (int)op->kind);
  }
}

static bool takes_selection(enum esp_operation_kind kind) {
  switch (kind) {
  case ESP_OPERATION_TIE:
  case ESP_OPERATION_COPY:
  case ESP_OPERATION_RENAME:
  case ESP_OPERATION_ADD:
  case ESP_OPERATION_ADJUST:
  case ESP_OPERATION_DEFINE_GROUP:
  case ESP_OPERATION_DELETE_GROUP:
  case ESP_OPERATION_NAME_SELECTION:
  case ESP_OPERATION_CANCEL_TIMER:
  case ESP_OPERATION_UNDO:
    return false;
  default:
    return true;
  }
}

bool esp_operation_needs_leaves(const struct esp_operation *op) {
  switch (op->kind) {
  case ESP_OPERATION_TIE:
  case ESP_OPERATION_COPY:
  case ESP_OPERATION_RENAME:
    return true;
  case ESP_OPERATION_ADD:
    return op->leaf->alias_of != NULL && op->leaf->alias_of[0] != '\0';
  default:
    return takes_selection(op->kind);
  }
}

enum esp_code esp_operation_fail(const struct esp_operation *op, size_t index, size_t len, enum esp_code code,
                                 const struct esp_status *why, struct esp_status *st) {
  if (op->place != NULL)
    return esp_fail(st, code, "%s: %s", op->place, why->message);
  if (len > 1)
    return esp_fail(st, code, "operation %zu of %zu: %s", index + 1, len, why->message);
  return esp_fail(st, code, "%s", why->message);
}

enum esp_code esp_operation_check(const struct esp_operation *op, struct esp_status *st) {
  if ((unsigned)op->kind > ESP_OPERATION_UNDO)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "it is of no kind that is known");
  bool names_two = op->kind == ESP_OPERATION_TIE || op->kind == ESP_OPERATION_COPY || op->kind == ESP_OPERATION_RENAME;
  if ((takes_selection(op->kind) || names_two) && op->selection[0] == '\0')
    return esp_fail(st, ESP_INVALID_ARGUMENT, "it names no leaves; ** is all of them");
  if (names_two && op->to[0] == '\0')
    return esp_fail(st, ESP_INVALID_ARGUMENT, "it does not say where to");
  if (op->kind == ESP_OPERATION_ADD && op->leaf == NULL)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "it has no leaf to add");
  if (op->kind == ESP_OPERATION_ADJUST && op->hypers_len == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "it names no hyperparameter");
  if (op->kind == ESP_OPERATION_CANCEL_TIMER && op->timer == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "it names no timer");
  if (op->kind == ESP_OPERATION_FREEZE || op->kind == ESP_OPERATION_THAW)
    return esp_operation_timing_check(op, st);
  if (op->kind != ESP_OPERATION_REINIT)
    return ESP_OK;
  if (op->init.kind == ESP_INIT_VALUE)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a value can't follow: stage it, and set it");
  return esp_init_check(&op->init, st);
}

enum esp_code esp_operation_run(struct esp_transaction *tx, const struct esp_operation *op,
                                const struct esp_push *stage, struct esp_status *st) {
  switch (op->kind) {
  case ESP_OPERATION_TIE:
    return esp_operation_tie(tx, op, st);
  case ESP_OPERATION_COPY:
    return esp_operation_copy(tx, op, st);
  case ESP_OPERATION_RENAME:
    tx->settles = true;
    return run_rename(tx, op, st);
  case ESP_OPERATION_ADD:
    return esp_operation_add(tx, op, st);
  case ESP_OPERATION_ADJUST:
    return esp_operation_adjust(tx, op, st);
  case ESP_OPERATION_DEFINE_GROUP:
    return esp_operation_define(tx, op, st);
  case ESP_OPERATION_DELETE_GROUP:
    tx->settles = true;
    return esp_edit_group_delete(tx->edit, op->name, st);
  case ESP_OPERATION_NAME_SELECTION:
    return esp_edit_name_selection(tx->edit, op->name, op->selection, st);
  case ESP_OPERATION_CANCEL_TIMER:
    return esp_edit_cancel_timer(tx->edit, op->timer, st);
  case ESP_OPERATION_UNDO:
    return esp_operation_undo(tx, op, st);
  default:
    break;
  }
  if (op->kind == ESP_OPERATION_THAW && op->one_by_one)
    return esp_operation_thaw_one_by_one(tx, op, st);
  struct esp_selection sel = {0};
  enum esp_code code = esp_select(esp_edit_view(tx->edit), op->selection, strlen(op->selection), &sel, st);
  if (code == ESP_OK)
    code = esp_transaction_count(tx, sel.len, st);
  if (code == ESP_OK)
    code = run_selected(tx, op, &sel, stage, st);
  esp_selection_done(&sel);
  return code;
}
