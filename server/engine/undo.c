/* Undoing an earlier transaction: its diff, read backwards, becomes edits of the layout of now. Groups come before
 * bindings, because a leaf that is untied keeps the group that it has then; flags and names come last. What was
 * overwritten is not kept, and is told in notes. An assignment that was written so that a parameter keeps its group
 * stays.
 *
 * It is refused where a later transaction has touched the same leaf, node, group or selection: undoing would then undo
 * that one too. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "engine/operations.h"

struct undo {
  struct esp_transaction *tx;
  const struct esp_record *record; /* ref'd */
};

/* ---- which transaction, and whether ---- */

/* The records from the one to be undone on, ref'd. epoch 0: the newest. */
static enum esp_code records_from(struct esp_engine *engine, uint64_t epoch, struct esp_record ***ret, size_t *ret_len,
                                  struct esp_status *st) {
  enum esp_code code = esp_engine_history(engine, epoch == 0 ? 0 : epoch - 1, epoch == 0 ? 1 : 0, ret, ret_len, st);
  if (code != ESP_OK || (*ret_len > 0 && (epoch == 0 || (*ret)[0]->epoch == epoch)))
    return code;
  for (size_t i = 0; i < *ret_len; i++)
    esp_record_unref((*ret)[i]);
  esp_free(*ret);
  if (epoch == 0)
    return esp_fail(st, ESP_NOT_FOUND, "there is nothing to undo");
  return esp_fail(st, ESP_NOT_FOUND, "no transaction that is kept in the history made epoch %" PRIu64, epoch);
}

/* Lines of nodes, groups and selections have no leaf: they are of the same thing where path and field are. */
static bool is_same_thing(const struct esp_change *a, const struct esp_change *b) {
  if (a->leaf_id != 0 || b->leaf_id != 0)
    return a->leaf_id == b->leaf_id;
  return strcmp(a->field, b->field) == 0 && strcmp(a->path, b->path) == 0;
}

static int change_compare(const void *a, const void *b) {
  const struct esp_change *x = *(const struct esp_change *const *)a, *y = *(const struct esp_change *const *)b;
  if (x->leaf_id != y->leaf_id)
    return x->leaf_id < y->leaf_id ? -1 : 1;
  if (x->leaf_id != 0)
    return 0;
  int order = strcmp(x->path, y->path);
  return order != 0 ? order : strcmp(x->field, y->field);
}

/* The first line of a later record that is of a thing that `sorted` has. */
static const struct esp_change *find_touched(const struct esp_change **sorted, size_t len,
                                             const struct esp_record *later) {
  for (size_t i = 0; i < later->diff.len; i++) {
    const struct esp_change *change = &later->diff.changes[i];
    const struct esp_change **found = bsearch(&change, sorted, len, sizeof(*sorted), change_compare);
    if (found != NULL && is_same_thing(*found, change))
      return change;
  }
  return NULL;
}

static enum esp_code check_later(struct esp_record *const *records, size_t len, struct esp_status *st) {
  const struct esp_diff *diff = &records[0]->diff;
  enum esp_code code = ESP_OK;
  const struct esp_change **sorted = esp_malloc_array(diff->len + 1, sizeof(*sorted));
  if (sorted == NULL)
    return esp_transaction_memory(st);
  for (size_t i = 0; i < diff->len; i++)
    sorted[i] = &diff->changes[i];
  qsort(sorted, diff->len, sizeof(*sorted), change_compare);
  for (size_t i = 1; i < len && code == ESP_OK; i++) {
    const struct esp_change *touched = find_touched(sorted, diff->len, records[i]);
    if (records[i]->diff.len < records[i]->changes_len)
      code = esp_fail(st, ESP_FAILED_PRECONDITION,
                      "what epoch %" PRIu64 " changed was too much to be kept, and may be the same", records[i]->epoch);
    else if (touched != NULL)
      code = esp_fail(st, ESP_FAILED_PRECONDITION, "epoch %" PRIu64 " has changed %s of %.300s since: undo that first",
                      records[i]->epoch, touched->field, touched->path);
  }
  esp_free(sorted);
  return code;
}

/* ---- one line ---- */

static bool is_field(const struct esp_change *change, const char *field) {
  return strcmp(change->field, field) == 0;
}

/* The leaf of a line, as a selection of one in the view of now; empty where it is gone. */
static struct esp_selection one_leaf(const struct undo *undo, const struct esp_change *change, uint32_t *index) {
  const struct esp_layout *view = esp_edit_view(undo->tx->edit);
  const struct esp_leaf *leaf = change->leaf_id == 0 ? NULL : esp_layout_leaf_by_id(view, change->leaf_id);
  if (leaf == NULL)
    return (struct esp_selection){0};
  *index = (uint32_t)(leaf - view->leaves);
  return (struct esp_selection){.leaves = index, .len = 1};
}

/* Added leaves go, renamed ones get their old path. */
static enum esp_code undo_place(const struct undo *undo, const struct esp_change *change, struct esp_status *st) {
  uint32_t index;
  struct esp_edit *edit = undo->tx->edit;
  struct esp_selection sel = one_leaf(undo, change, &index);
  if (is_field(change, "leaf") && change->from[0] == '\0' && sel.len > 0)
    return esp_edit_remove(edit, &sel, st);
  if (is_field(change, "path") && sel.len > 0) /* one that the transaction removed afterwards has no place */
    return esp_edit_rename(edit, change->to, strlen(change->to), change->from, strlen(change->from), st);
  return ESP_OK;
}

/* The parameter that a line says the leaf was bound to: its index, or SIZE_MAX where it is gone. */
static size_t former_param(const struct esp_layout *view, const char *text) {
  uint64_t id = 0;
  if (sscanf(text, "parameter %" SCNu64, &id) != 1)
    return SIZE_MAX;
  for (size_t i = 0; i < view->params_len; i++) {
    if (view->params[i].id == id)
      return i;
  }
  return SIZE_MAX;
}

static bool ends_with(const char *text, const char *end) {
  size_t len = strlen(text), end_len = strlen(end);
  return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* A leaf of the parameter to tie this one to: the primary one, or another where this is that one and only its view was
 * another. Itself where there is no other. */
static uint32_t other_leaf(const struct esp_layout *view, size_t param, uint32_t index) {
  uint32_t primary = view->params[param].primary;
  for (uint32_t i = 0; i < view->leaves_len && primary == index; i++) {
    if (i != index && view->leaves[i].param == param)
      return i;
  }
  return primary;
}

/* Back to the parameter that it was bound to, or, where that went with the tie, to one of its own. */
static enum esp_code undo_binding(const struct undo *undo, const struct esp_change *change, struct esp_status *st) {
  uint32_t index;
  struct esp_selection sel = one_leaf(undo, change, &index);
  if (!is_field(change, "parameter") || sel.len == 0 || change->from[0] == '\0')
    return ESP_OK;
  const struct esp_layout *view = esp_edit_view(undo->tx->edit);
  size_t param = former_param(view, change->from);
  if (param == SIZE_MAX) {
    const struct esp_operation untie = {.kind = ESP_OPERATION_UNTIE, .selection = change->path};
    esp_work_note(&undo->tx->work,
                  "leaf %s: its former value and optimizer state are gone: it has a copy of what it "
                  "was tied to",
                  change->path);
    return esp_operation_untie(undo->tx, &untie, &sel, st);
  }
  uint32_t to = other_leaf(view, param, index);
  if (to == index)
    return ESP_OK;
  bool transposed = ends_with(change->from, " transposed") != (view->leaves[to].view == ESP_VIEW_TRANSPOSE);
  return esp_edit_tie(undo->tx->edit, index, to, transposed ? ESP_VIEW_TRANSPOSE : ESP_VIEW_IDENTITY, st);
}

static enum esp_code undo_group(const struct undo *undo, const struct esp_change *change, struct esp_status *st) {
  struct esp_edit *edit = undo->tx->edit;
  const struct esp_operation define = {.kind = ESP_OPERATION_DEFINE_GROUP, .name = change->path, .to = change->from};
  bool is_assignment = is_field(change, "group") && change->because[0] == '\0';
  if (is_assignment && change->from[0] == '\0')
    return esp_edit_unassign(edit, change->path, strlen(change->path), st);
  if (is_assignment)
    return esp_edit_assign(edit, change->path, strlen(change->path), change->from, st);
  if (is_field(change, "optimizer") && change->from[0] == '\0')
    return esp_edit_group_delete(edit, change->path, st);
  return is_field(change, "optimizer") ? esp_operation_define(undo->tx, &define, st) : ESP_OK;
}

/* What it is tied to brought the leaf into another group without an assignment. Where that was undone it is back. */
static enum esp_code undo_stepped(const struct undo *undo, const struct esp_change *change, struct esp_status *st) {
  uint32_t index;
  struct esp_selection sel = one_leaf(undo, change, &index);
  if (!is_field(change, "stepped_by") || change->because[0] == '\0' || sel.len == 0)
    return ESP_OK;
  const struct esp_layout *view = esp_edit_view(undo->tx->edit);
  if (strcmp(esp_layout_group_of(view, &view->leaves[index])->name, change->from) == 0)
    return ESP_OK;
  return esp_edit_assign(undo->tx->edit, change->path, strlen(change->path), change->from, st);
}

static enum esp_code undo_name(const struct undo *undo, const struct esp_change *change, struct esp_status *st) {
  struct esp_edit *edit = undo->tx->edit;
  if (is_field(change, "selection"))
    return esp_edit_name_selection(edit, change->path + 1, change->from, st); /* behind the @ */
  if (is_field(change, "tag") && change->leaf_id == 0)
    return esp_edit_tag(edit, change->path, strlen(change->path), change->from, st);
  return ESP_OK;
}

/* ---- flags: many leaves at once ---- */

/* What a leaf's flag is to be, by its index in a layout. */
enum flag { FLAG_STAYS, FLAG_SET, FLAG_CLEAR };

/* As the first line of each leaf says: a transaction may have set it and cleared it again. */
static void flags_find(const struct undo *undo, const struct esp_layout *view, const char *field, uint8_t *flags) {
  const struct esp_diff *diff = &undo->record->diff;
  for (size_t i = 0; i < diff->len; i++) {
    const struct esp_change *change = &diff->changes[i];
    const struct esp_leaf *leaf = esp_layout_leaf_by_id(view, change->leaf_id);
    if (leaf != NULL && is_field(change, field) && flags[leaf - view->leaves] == FLAG_STAYS)
      flags[leaf - view->leaves] = strcmp(change->from, "true") == 0 ? FLAG_SET : FLAG_CLEAR;
  }
}

static enum esp_code undo_flags(const struct undo *undo, const char *field, struct esp_status *st) {
  struct esp_edit *edit = undo->tx->edit;
  const struct esp_layout *view = esp_edit_view(edit);
  size_t len = view->leaves_len;
  uint8_t *flags = esp_calloc(len + 1, 1);
  struct esp_selection sel = {.leaves = esp_malloc_array(len + 1, sizeof(uint32_t))};
  if (flags == NULL || sel.leaves == NULL) {
    esp_free(flags);
    esp_selection_done(&sel);
    return esp_transaction_memory(st);
  }
  enum esp_code code = ESP_OK;
  flags_find(undo, view, field, flags);
  for (int flag = FLAG_SET; flag <= FLAG_CLEAR && code == ESP_OK; flag++) {
    sel.len = 0;
    for (size_t i = 0; i < len; i++) {
      if (flags[i] == flag)
        sel.leaves[sel.len++] = (uint32_t)i;
    }
    if (sel.len > 0 && strcmp(field, "frozen") == 0)
      code = esp_edit_freeze(edit, &sel, flag == FLAG_SET, st);
    else if (sel.len > 0)
      code = esp_edit_detach(edit, &sel, flag == FLAG_SET, st);
  }
  esp_free(flags);
  esp_selection_done(&sel);
  return code;
}

/* ---- what can't be brought back ---- */

static void note_lost(const struct undo *undo) {
  const struct esp_diff *diff = &undo->record->diff;
  uint64_t values = 0, states = 0, removed = 0;
  for (size_t i = 0; i < diff->len; i++) {
    const struct esp_change *change = &diff->changes[i];
    values += is_field(change, "value");
    states += is_field(change, "state");
    removed += is_field(change, "leaf") && change->to[0] == '\0';
  }
  if (values > 0)
    esp_work_note(&undo->tx->work, "overwritten values are not kept; leaves whose values stay as they are: %" PRIu64,
                  values);
  if (states > 0)
    esp_work_note(&undo->tx->work,
                  "optimizer state that was reset is not kept; leaves whose state stays as it is: %" PRIu64, states);
  if (removed > 0)
    esp_work_note(&undo->tx->work, "removed leaves can't be brought back: %" PRIu64, removed);
}

/* ---- the whole ---- */

typedef enum esp_code undo_line(const struct undo *undo, const struct esp_change *change, struct esp_status *st);

/* From the last line to the first. */
static enum esp_code undo_lines(const struct undo *undo, undo_line *line, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  for (size_t i = undo->record->diff.len; i > 0 && code == ESP_OK; i--)
    code = line(undo, &undo->record->diff.changes[i - 1], st);
  return code;
}

static enum esp_code undo_record(const struct undo *undo, struct esp_status *st) {
  enum esp_code code = undo_lines(undo, undo_place, st);
  if (code == ESP_OK)
    code = undo_lines(undo, undo_group, st);
  if (code == ESP_OK)
    code = undo_lines(undo, undo_binding, st);
  if (code == ESP_OK)
    code = undo_lines(undo, undo_stepped, st);
  if (code == ESP_OK)
    code = undo_flags(undo, "frozen", st);
  if (code == ESP_OK)
    code = undo_flags(undo, "detached", st);
  if (code == ESP_OK)
    code = undo_lines(undo, undo_name, st);
  note_lost(undo);
  return code;
}

enum esp_code esp_operation_undo(struct esp_transaction *tx, const struct esp_operation *op, struct esp_status *st) {
  struct esp_record **records = NULL;
  size_t len = 0;
  enum esp_code code = records_from(tx->engine, op->epoch, &records, &len, st);
  if (code != ESP_OK)
    return code;
  const struct undo undo = {.tx = tx, .record = records[0]};
  tx->settles = true;
  if (records[0]->diff.len < records[0]->changes_len)
    code = esp_fail(st, ESP_FAILED_PRECONDITION, "what epoch %" PRIu64 " changed was too much to be kept",
                    records[0]->epoch);
  if (code == ESP_OK)
    code = esp_transaction_count(tx, records[0]->diff.len, st);
  if (code == ESP_OK)
    code = check_later(records, len, st);
  if (code == ESP_OK)
    code = undo_record(&undo, st);
  for (size_t i = 0; i < len; i++)
    esp_record_unref(records[i]);
  esp_free(records);
  return code;
}
