/* Undoing an earlier transaction: its diff, read backwards, becomes edits of the layout of now. Places come first, so
 * that nodes have the paths that they had; groups after bindings, because a parameter that is bound anew keeps the
 * group that it has then; flags and names last. What was overwritten is not kept, and is told in notes.
 *
 * It is refused where a later transaction has touched the same leaf, node, group or selection: undoing would then undo
 * that one too. Later ones that were undone themselves do not count: one can go back step by step. */
#include "engine/undo.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"

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

/* Who takes back "the last one" means what he did himself: leaves that a worker has declared meanwhile must not go with
 * that. */
static enum esp_code check_meant(const struct esp_record *record, uint64_t epoch, struct esp_status *st) {
  if (epoch != 0 || !record->is_declaration)
    return ESP_OK;
  return esp_fail(st, ESP_FAILED_PRECONDITION,
                  "the last transaction is the declaration that made epoch %" PRIu64
                  ": name that epoch to take it back, or that of another one",
                  record->epoch);
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

/* One later record: whether it touched what `sorted` has. */
static enum esp_code check_record(const struct esp_change **sorted, size_t len, const struct esp_record *later,
                                  struct esp_status *st) {
  const struct esp_change *touched = find_touched(sorted, len, later);
  if (later->diff.len < later->changes_len)
    return esp_fail(st, ESP_FAILED_PRECONDITION,
                    "what epoch %" PRIu64 " changed was too much to be kept, and may be the same", later->epoch);
  if (touched == NULL)
    return ESP_OK;
  const char *field = strcmp(touched->field, "stepped_by") == 0 ? "the group" : touched->field;
  return esp_fail(st, ESP_FAILED_PRECONDITION, "epoch %" PRIu64 " has changed %s of %.300s since: undo that first",
                  later->epoch, field, touched->path);
}

/* Marks the records behind the first that an undo took back, and those undos: together they changed nothing. From the
 * newest on, since an undo that was undone itself took nothing back. */
static void find_settled(struct esp_record *const *records, size_t len, bool *settled) {
  for (size_t i = len; i-- > 1;) {
    if (settled[i] || records[i]->undoes == 0)
      continue;
    size_t j = i - 1;
    while (j > 0 && records[j]->epoch > records[i]->undoes)
      j--;
    if (j > 0 && records[j]->epoch == records[i]->undoes)
      settled[i] = settled[j] = true;
  }
}

static enum esp_code since_note(struct esp_undo *undo, const struct esp_record *later, struct esp_status *st) {
  for (size_t i = 0; i < later->diff.len; i++) {
    const struct esp_change *change = &later->diff.changes[i];
    if (strcmp(change->field, "group") != 0)
      continue;
    if (!esp_grow((void **)&undo->since, &undo->since_capacity, undo->since_len + 1, sizeof(*undo->since)))
      return esp_transaction_memory(st);
    undo->since[undo->since_len++] = change->path;
  }
  return ESP_OK;
}

static enum esp_code check_later(struct esp_undo *undo, const struct esp_change **sorted,
                                 struct esp_record *const *records, size_t len, struct esp_status *st) {
  bool *settled = esp_calloc(len, sizeof(*settled));
  if (settled == NULL)
    return esp_transaction_memory(st);
  find_settled(records, len, settled);
  enum esp_code code = ESP_OK;
  for (size_t i = 1; i < len && code == ESP_OK; i++) {
    if (!settled[i])
      code = check_record(sorted, records[0]->diff.len, records[i], st);
    if (!settled[i] && code == ESP_OK)
      code = since_note(undo, records[i], st);
  }
  esp_free(settled);
  return code;
}

/* Counts its leaves, and looks whether all that came later left them alone. */
static enum esp_code check(struct esp_undo *undo, struct esp_record *const *records, size_t len,
                           struct esp_status *st) {
  const struct esp_diff *diff = &records[0]->diff;
  if (diff->len < records[0]->changes_len)
    return esp_fail(st, ESP_FAILED_PRECONDITION, "what epoch %" PRIu64 " changed was too much to be kept",
                    records[0]->epoch);
  const struct esp_change **sorted = esp_malloc_array(diff->len + 1, sizeof(*sorted));
  if (sorted == NULL)
    return esp_transaction_memory(st);
  for (size_t i = 0; i < diff->len; i++)
    sorted[i] = &diff->changes[i];
  qsort(sorted, diff->len, sizeof(*sorted), change_compare);
  uint64_t leaves = 0;
  for (size_t i = 0; i < diff->len; i++)
    leaves += sorted[i]->leaf_id != 0 && (i == 0 || sorted[i]->leaf_id != sorted[i - 1]->leaf_id);
  enum esp_code code = esp_transaction_count(undo->tx, leaves, st);
  if (code == ESP_OK)
    code = check_later(undo, sorted, records, len, st);
  esp_free(sorted);
  return code;
}

/* ---- lines ---- */

bool esp_undo_is_field(const struct esp_change *change, const char *field) {
  return strcmp(change->field, field) == 0;
}

const struct esp_leaf *esp_undo_leaf_of(const struct esp_layout *view, const struct esp_change *change) {
  return change->leaf_id == 0 ? NULL : esp_layout_leaf_by_id(view, change->leaf_id);
}

/* ---- leaves that are chosen line by line ---- */

void esp_chosen_done(struct esp_chosen *chosen) {
  esp_free(chosen->marks);
  esp_selection_done(&chosen->sel);
}

enum esp_code esp_chosen_init(struct esp_chosen *chosen, const struct esp_layout *view, struct esp_status *st) {
  *chosen = (struct esp_chosen){.view = view};
  chosen->marks = esp_calloc(view->leaves_len + 1, 1);
  chosen->sel.leaves = esp_malloc_array(view->leaves_len + 1, sizeof(uint32_t));
  if (chosen->marks != NULL && chosen->sel.leaves != NULL)
    return ESP_OK;
  (void)esp_transaction_memory(st);
  return ESP_RESOURCE_EXHAUSTED;
}

const struct esp_selection *esp_chosen_list(struct esp_chosen *chosen) {
  for (size_t i = 0; i < chosen->view->leaves_len; i++) {
    if (chosen->marks[i])
      chosen->sel.leaves[chosen->sel.len++] = (uint32_t)i;
  }
  return &chosen->sel;
}

size_t *esp_undo_first_lines(const struct esp_undo *undo, const struct esp_layout *view,
                             bool (*is_one)(const struct esp_change *)) {
  size_t *lines = esp_calloc(view->leaves_len + 1, sizeof(*lines));
  for (size_t i = lines == NULL ? 0 : undo->record->diff.len; i > 0; i--) {
    const struct esp_change *change = &undo->record->diff.changes[i - 1];
    const struct esp_leaf *leaf = esp_undo_leaf_of(view, change);
    if (leaf != NULL && is_one(change))
      lines[leaf - view->leaves] = i;
  }
  return lines;
}

size_t *esp_undo_param_lines(const struct esp_undo *undo, const struct esp_layout *view, const char *field) {
  const struct esp_diff *diff = &undo->record->diff;
  size_t *left = esp_undo_first_lines(undo, view, esp_undo_is_binding);
  size_t *lines = esp_calloc(view->leaves_len + 1, sizeof(*lines));
  for (size_t i = left == NULL || lines == NULL ? 0 : diff->len; i > 0; i--) {
    const struct esp_change *change = &diff->changes[i - 1];
    const struct esp_leaf *leaf = esp_undo_leaf_of(view, change);
    if (leaf == NULL || !esp_undo_is_field(change, field))
      continue;
    size_t at = left[leaf - view->leaves];
    bool is_back =
        at != 0 && i > at && esp_layout_place(view, leaf)->id == esp_undo_parameter(diff->changes[at - 1].from, NULL);
    if (!is_back)
      lines[leaf - view->leaves] = i;
  }
  bool ok = left != NULL && lines != NULL;
  esp_free(left);
  if (!ok)
    esp_free(lines);
  return ok ? lines : NULL;
}

uint64_t esp_undo_parameter(const char *text, const char **ret_primary) {
  uint64_t id = 0;
  const char *open = strchr(text, '(');
  if (ret_primary != NULL)
    *ret_primary = open == NULL ? NULL : open + 1;
  return sscanf(text, "parameter %" SCNu64, &id) == 1 ? id : 0;
}

bool esp_undo_is_binding(const struct esp_change *change) {
  return esp_undo_is_field(change, "parameter") && change->from[0] != '\0';
}

/* ---- names ---- */

static enum esp_code undo_name(const struct esp_undo *undo, const struct esp_change *change, struct esp_status *st) {
  struct esp_edit *edit = undo->tx->edit;
  if (esp_undo_is_field(change, "selection"))
    return esp_edit_name_selection(edit, change->path + 1, change->from, st); /* behind the @ */
  if (esp_undo_is_field(change, "tag") && change->leaf_id == 0)
    return esp_edit_tag(edit, change->path, strlen(change->path), change->from, st);
  return ESP_OK;
}

/* ---- flags: many leaves at once ---- */

/* As the first line of each leaf says: a transaction may have set it and cleared it again. What is frozen or detached
 * by it is waited for as if that were asked for. */
static enum esp_code undo_flags(const struct esp_undo *undo, const char *field, const size_t *lines,
                                struct esp_status *st) {
  struct esp_edit *edit = undo->tx->edit;
  const struct esp_layout *view = esp_edit_view(edit);
  struct esp_selection sel = {.leaves = esp_malloc_array(view->leaves_len + 1, sizeof(uint32_t))};
  enum esp_code code = ESP_OK;
  if (lines == NULL || sel.leaves == NULL) {
    esp_selection_done(&sel);
    return esp_transaction_memory(st);
  }
  for (int flag = 1; flag >= 0 && code == ESP_OK; flag--) {
    sel.len = 0;
    for (size_t i = 0; i < view->leaves_len; i++) {
      if (lines[i] != 0 && (strcmp(undo->record->diff.changes[lines[i] - 1].from, "true") == 0) == flag)
        sel.leaves[sel.len++] = (uint32_t)i;
    }
    if (flag)
      code = esp_operation_wait(undo->tx, &sel, st);
    if (code == ESP_OK && sel.len > 0 && strcmp(field, "frozen") == 0)
      code = esp_edit_freeze_only(edit, &sel, flag, st);
    else if (code == ESP_OK && sel.len > 0)
      code = esp_edit_detach(edit, &sel, flag, st);
  }
  esp_selection_done(&sel);
  return code;
}

static enum esp_code undo_frozen(const struct esp_undo *undo, struct esp_status *st) {
  size_t *lines = esp_undo_param_lines(undo, esp_edit_view(undo->tx->edit), "frozen");
  enum esp_code code = undo_flags(undo, "frozen", lines, st);
  esp_free(lines);
  return code;
}

static bool is_detached(const struct esp_change *change) {
  return esp_undo_is_field(change, "detached");
}

static enum esp_code undo_detached(const struct esp_undo *undo, struct esp_status *st) {
  size_t *lines = esp_undo_first_lines(undo, esp_edit_view(undo->tx->edit), is_detached);
  enum esp_code code = undo_flags(undo, "detached", lines, st);
  esp_free(lines);
  return code;
}

/* ---- what can't be brought back ---- */

static void note_lost(const struct esp_undo *undo) {
  const struct esp_diff *diff = &undo->record->diff;
  uint64_t values = 0, states = 0, removed = 0;
  for (size_t i = 0; i < diff->len; i++) {
    const struct esp_change *change = &diff->changes[i];
    values += esp_undo_is_field(change, "value");
    states += esp_undo_is_field(change, "state");
    removed += esp_undo_is_field(change, "leaf") && change->to[0] == '\0';
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

typedef enum esp_code undo_line(const struct esp_undo *undo, const struct esp_change *change, struct esp_status *st);

/* From the last line to the first. */
static enum esp_code undo_lines(const struct esp_undo *undo, undo_line *line, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  for (size_t i = undo->record->diff.len; i > 0 && code == ESP_OK; i--)
    code = line(undo, &undo->record->diff.changes[i - 1], st);
  return code;
}

static enum esp_code undo_record(struct esp_undo *undo, struct esp_status *st) {
  enum esp_code code = esp_undo_places(undo, st);
  if (code == ESP_OK)
    code = esp_undo_regrouped(undo, st);
  if (code == ESP_OK)
    code = esp_undo_bindings(undo, st);
  if (code == ESP_OK)
    code = esp_undo_groups(undo, st);
  if (code == ESP_OK)
    code = undo_frozen(undo, st);
  if (code == ESP_OK)
    code = esp_undo_timers(undo, st);
  if (code == ESP_OK)
    code = undo_detached(undo, st);
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
  struct esp_undo undo = {.tx = tx, .record = records[0]};
  (void)esp_edit_changes(tx->edit, &undo.own);
  undo.is_last = len == 1 && undo.own == 0;
  tx->settles = true;
  tx->undoes = records[0]->epoch;
  code = check_meant(records[0], op->epoch, st);
  if (code == ESP_OK)
    code = check(&undo, records, len, st);
  if (code == ESP_OK)
    code = undo_record(&undo, st);
  esp_free(undo.moves);
  esp_free(undo.since);
  esp_free(undo.regrouped);
  for (size_t i = 0; i < len; i++)
    esp_record_unref(records[i]);
  esp_free(records);
  return code;
}
