/* Undoing an earlier transaction: its diff, read backwards, becomes edits of the layout of now. Groups come before
 * bindings, because a leaf that is untied keeps the group that it has then; flags and names come last. What was
 * overwritten is not kept, and is told in notes. An assignment that was written so that a parameter keeps its group
 * stays.
 *
 * It is refused where a later transaction has touched the same leaf, node, group or selection: undoing would then undo
 * that one too. Later ones that were undone themselves do not count: one can go back step by step. */
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

static enum esp_code check_later(const struct esp_change **sorted, struct esp_record *const *records, size_t len,
                                 struct esp_status *st) {
  bool *settled = esp_calloc(len, sizeof(*settled));
  if (settled == NULL)
    return esp_transaction_memory(st);
  find_settled(records, len, settled);
  enum esp_code code = ESP_OK;
  for (size_t i = 1; i < len && code == ESP_OK; i++) {
    if (!settled[i])
      code = check_record(sorted, records[0]->diff.len, records[i], st);
  }
  esp_free(settled);
  return code;
}

/* Counts its leaves, and looks whether all that came later left them alone. */
static enum esp_code check(struct esp_transaction *tx, struct esp_record *const *records, size_t len,
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
  enum esp_code code = esp_transaction_count(tx, leaves, st);
  if (code == ESP_OK)
    code = check_later(sorted, records, len, st);
  esp_free(sorted);
  return code;
}

/* ---- lines ---- */

static bool is_field(const struct esp_change *change, const char *field) {
  return strcmp(change->field, field) == 0;
}

/* The leaf of a line in the tree of now; NULL where it is gone. */
static const struct esp_leaf *leaf_of(const struct esp_layout *view, const struct esp_change *change) {
  return change->leaf_id == 0 ? NULL : esp_layout_leaf_by_id(view, change->leaf_id);
}

/* ---- leaves that are chosen line by line ---- */

struct chosen {
  const struct esp_layout *view; /* borrowed: nothing changes the order of its leaves meanwhile */
  uint8_t *marks;                /* by leaf */
  struct esp_selection sel;      /* owned */
};

static void chosen_done(struct chosen *chosen) {
  esp_free(chosen->marks);
  esp_selection_done(&chosen->sel);
}

static enum esp_code chosen_init(struct chosen *chosen, const struct esp_layout *view, struct esp_status *st) {
  *chosen = (struct chosen){.view = view};
  chosen->marks = esp_calloc(view->leaves_len + 1, 1);
  chosen->sel.leaves = esp_malloc_array(view->leaves_len + 1, sizeof(uint32_t));
  if (chosen->marks != NULL && chosen->sel.leaves != NULL)
    return ESP_OK;
  (void)esp_transaction_memory(st);
  return ESP_RESOURCE_EXHAUSTED;
}

/* After the last was marked: all of them, in path order. */
static const struct esp_selection *chosen_list(struct chosen *chosen) {
  for (size_t i = 0; i < chosen->view->leaves_len; i++) {
    if (chosen->marks[i])
      chosen->sel.leaves[chosen->sel.len++] = (uint32_t)i;
  }
  return &chosen->sel;
}

/* By leaf of the view: the first of its lines that is one of those, + 1, or 0. NULL without memory. */
static size_t *first_lines(const struct undo *undo, const struct esp_layout *view,
                           bool (*is_one)(const struct esp_change *)) {
  size_t *lines = esp_calloc(view->leaves_len + 1, sizeof(*lines));
  for (size_t i = lines == NULL ? 0 : undo->record->diff.len; i > 0; i--) {
    const struct esp_change *change = &undo->record->diff.changes[i - 1];
    const struct esp_leaf *leaf = leaf_of(view, change);
    if (leaf != NULL && is_one(change))
      lines[leaf - view->leaves] = i;
  }
  return lines;
}

static bool is_binding(const struct esp_change *change) {
  return is_field(change, "parameter") && change->from[0] != '\0';
}

/* Of a tie: what groups have brought, and their definitions, goes with those. */
static bool is_stepped(const struct esp_change *change) {
  return is_field(change, "stepped_by") && change->because[0] != '\0';
}

/* ---- places: added leaves go, renamed ones get their old path ---- */

/* Lines before *at, from the last to the first, up to one that tells of a path: what they added goes, at once. */
static enum esp_code undo_added(const struct undo *undo, size_t *at, struct esp_status *st) {
  struct chosen chosen;
  enum esp_code code = chosen_init(&chosen, esp_edit_view(undo->tx->edit), st);
  for (; code == ESP_OK && *at > 0 && !is_field(&undo->record->diff.changes[*at - 1], "path"); --*at) {
    const struct esp_change *change = &undo->record->diff.changes[*at - 1];
    const struct esp_leaf *leaf = leaf_of(chosen.view, change);
    if (leaf != NULL && is_field(change, "leaf") && change->from[0] == '\0')
      chosen.marks[leaf - chosen.view->leaves] = 1;
  }
  if (code == ESP_OK)
    code = esp_edit_remove(undo->tx->edit, chosen_list(&chosen), st);
  chosen_done(&chosen);
  return code;
}

/* The node that leaves were renamed with: its path then and before, of which it has the first so many bytes. */
struct moved {
  const char *to;
  const char *from;
  size_t to_len;
  size_t from_len;
};

static bool is_moved(const struct moved *moved, const struct esp_change *change) {
  return esp_path_within(change->to, strlen(change->to), moved->to, moved->to_len) &&
         esp_path_within(change->from, strlen(change->from), moved->from, moved->from_len) &&
         strcmp(change->to + moved->to_len, change->from + moved->from_len) == 0;
}

/* Where the path's last component begins; 0 where it is the only one. */
static size_t last_component(const char *path, size_t len) {
  while (len > 0 && path[len - 1] != '.')
    len--;
  return len;
}

/* Makes it the nearest node that was renamed so and has this leaf too; false where there is none. */
static bool moved_widen(struct moved *moved, const struct esp_change *change) {
  struct moved wider = *moved;
  while (!is_moved(&wider, change)) {
    size_t to = last_component(wider.to, wider.to_len), from = last_component(wider.from, wider.from_len);
    if (to == 0 || from == 0 || wider.to_len - to != wider.from_len - from ||
        memcmp(wider.to + to, wider.from + from, wider.to_len - to) != 0)
      return false;
    wider.to_len = to - 1; /* without the dot */
    wider.from_len = from - 1;
  }
  *moved = wider;
  return true;
}

/* Renames back what the lines before *at say, as far as they are of one node: as one, where nothing else is in it. */
static enum esp_code undo_paths(const struct undo *undo, size_t *at, struct esp_status *st) {
  struct esp_edit *edit = undo->tx->edit;
  const struct esp_layout *view = esp_edit_peek(edit);
  const struct esp_change *changes = undo->record->diff.changes, *last = &changes[*at - 1];
  struct moved moved = {.to = last->to, .from = last->from, .to_len = strlen(last->to), .from_len = strlen(last->from)};
  size_t end = *at, len = 0, first, below;
  for (; *at > 0 && is_field(&changes[*at - 1], "path"); --*at) {
    const struct esp_leaf *leaf = leaf_of(view, &changes[*at - 1]);
    if (leaf == NULL) /* the transaction removed it afterwards */
      continue;
    if (strcmp(leaf->path, changes[*at - 1].to) != 0 || !moved_widen(&moved, &changes[*at - 1]))
      break;
    len++;
  }
  if (*at == end)
    return esp_fail(st, ESP_FAILED_PRECONDITION, "an operation before this one has renamed %.300s", last->to);
  esp_layout_range(view, moved.to, moved.to_len, &first, &below);
  if (len > 0 && below == len)
    return esp_edit_rename(edit, moved.to, moved.to_len, moved.from, moved.from_len, st);
  enum esp_code code = ESP_OK;
  for (size_t i = end; i > *at && code == ESP_OK; i--) {
    const struct esp_change *change = &changes[i - 1];
    if (leaf_of(esp_edit_peek(edit), change) != NULL)
      code = esp_edit_rename(edit, change->to, strlen(change->to), change->from, strlen(change->from), st);
  }
  return code;
}

static enum esp_code undo_places(const struct undo *undo, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  for (size_t at = undo->record->diff.len; at > 0 && code == ESP_OK;) {
    const struct esp_change *change = &undo->record->diff.changes[at - 1];
    if (is_field(change, "path"))
      code = undo_paths(undo, &at, st);
    else if (is_field(change, "leaf"))
      code = undo_added(undo, &at, st);
    else
      at--;
  }
  return code;
}

/* ---- bindings ---- */

/* What a leaf was bound to is what the first of its lines says. Ties come first, since none of them needs a walk, and
 * then all leaves whose parameter is gone are untied at once. */
struct rebinding {
  const struct undo *undo;
  const struct esp_layout *view; /* borrowed: ties change no order in it */
  size_t *lines;                 /* by leaf: the first of its lines + 1, or 0 */
  uint64_t (*params)[2];         /* id and index, by id */
  size_t params_len;
  struct chosen gone; /* leaves whose former parameters are */
};

static int pair_compare(const void *a, const void *b) {
  const uint64_t *x = a, *y = b;
  return x[0] < y[0] ? -1 : x[0] > y[0];
}

static void rebinding_done(struct rebinding *rebinding) {
  esp_free(rebinding->lines);
  esp_free(rebinding->params);
  chosen_done(&rebinding->gone);
}

static enum esp_code rebinding_init(struct rebinding *rebinding, const struct undo *undo, struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(undo->tx->edit);
  *rebinding = (struct rebinding){.undo = undo, .view = view, .params_len = view->params_len};
  rebinding->lines = first_lines(undo, view, is_binding);
  rebinding->params = esp_malloc_array(view->params_len + 1, sizeof(*rebinding->params));
  if (rebinding->lines == NULL || rebinding->params == NULL) {
    (void)esp_transaction_memory(st);
    return ESP_RESOURCE_EXHAUSTED;
  }
  for (size_t i = 0; i < view->params_len; i++)
    memcpy(rebinding->params[i], (uint64_t[2]){view->params[i].id, i}, sizeof(*rebinding->params));
  qsort(rebinding->params, view->params_len, sizeof(*rebinding->params), pair_compare);
  return chosen_init(&rebinding->gone, view, st);
}

/* The parameter that a line says the leaf was bound to, in the layout of now; NULL where it is gone. */
static const struct esp_place *former_place(const struct rebinding *rebinding, const struct esp_layout *now,
                                            const char *text) {
  uint64_t key[2] = {0};
  if (sscanf(text, "parameter %" SCNu64, &key[0]) != 1)
    return NULL;
  const uint64_t *found =
      bsearch(key, rebinding->params, rebinding->params_len, sizeof(*rebinding->params), pair_compare);
  return found == NULL || now->params[found[1]].leaves_len == 0 ? NULL : &now->params[found[1]];
}

static bool ends_with(const char *text, const char *end) {
  size_t len = strlen(text), end_len = strlen(end);
  return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* A leaf of the parameter to tie this one to: the primary one, or another where this is that one and only its view was
 * another. Itself where there is no other. */
static uint32_t other_leaf(const struct esp_layout *view, uint32_t index, const struct esp_place *place) {
  uint32_t primary = place->primary;
  for (uint32_t i = 0; i < view->leaves_len && primary == index; i++) {
    if (i != index && esp_layout_place(view, &view->leaves[i]) == place)
      return i;
  }
  return primary;
}

/* Back to the parameter that it was bound to, or, where that went with the tie, among those that get one of their own.
 */
static enum esp_code rebind(struct rebinding *rebinding, uint32_t index, const struct esp_change *change,
                            struct esp_status *st) {
  struct esp_transaction *tx = rebinding->undo->tx;
  const struct esp_layout *now = esp_edit_peek(tx->edit);
  const struct esp_place *place = former_place(rebinding, now, change->from);
  if (place == NULL) {
    esp_work_note(&tx->work,
                  "leaf %s: its former value and optimizer state are gone: it has a copy of what it "
                  "was tied to",
                  change->path);
    rebinding->gone.marks[index] = 1;
    return ESP_OK;
  }
  uint32_t to = other_leaf(now, index, place);
  if (to == index)
    return ESP_OK;
  bool transposed = ends_with(change->from, " transposed") != (now->leaves[to].view == ESP_VIEW_TRANSPOSE);
  return esp_edit_tie(tx->edit, index, to, transposed ? ESP_VIEW_TRANSPOSE : ESP_VIEW_IDENTITY, st);
}

static enum esp_code undo_bindings(const struct undo *undo, struct esp_status *st) {
  const struct esp_operation untie = {.kind = ESP_OPERATION_UNTIE, .selection = ""};
  const struct esp_change *changes = undo->record->diff.changes;
  struct rebinding rebinding;
  enum esp_code code = rebinding_init(&rebinding, undo, st);
  for (size_t i = code == ESP_OK ? rebinding.view->leaves_len : 0; i > 0 && code == ESP_OK; i--) {
    if (rebinding.lines[i - 1] != 0)
      code = rebind(&rebinding, (uint32_t)i - 1, &changes[rebinding.lines[i - 1] - 1], st);
  }
  if (code == ESP_OK)
    code = esp_operation_untie(undo->tx, &untie, chosen_list(&rebinding.gone), st);
  rebinding_done(&rebinding);
  return code;
}

/* ---- groups and names ---- */

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

/* What they are tied to brought leaves into another group without an assignment. Those that are not back where the
 * first of their lines says get one: first the primary leaves, which others follow. */
static enum esp_code undo_stepped(const struct undo *undo, bool only_primary, struct esp_status *st) {
  const struct esp_diff *diff = &undo->record->diff;
  const struct esp_layout *view = esp_edit_view(undo->tx->edit); /* assigning is merely collected */
  size_t *lines = first_lines(undo, view, is_stepped);
  enum esp_code code = lines == NULL ? esp_transaction_memory(st) : ESP_OK;
  for (size_t i = 0; i < view->leaves_len && code == ESP_OK; i++) {
    const struct esp_leaf *leaf = &view->leaves[i];
    const struct esp_change *change = lines[i] == 0 ? NULL : &diff->changes[lines[i] - 1];
    if (change == NULL || (only_primary && esp_layout_place(view, leaf)->primary != i) ||
        strcmp(esp_layout_group_of(view, leaf)->name, change->from) == 0)
      continue;
    code = esp_edit_assign(undo->tx->edit, leaf->path, leaf->path_len, change->from, st);
  }
  esp_free(lines);
  return code;
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

/* Flags, which take timers away, then those. */
static enum esp_code undo_frozen(const struct undo *undo, struct esp_status *st) {
  struct esp_former_timers former;
  enum esp_code code = esp_former_timers_find(undo->tx, &undo->record->diff, &former, st);
  if (code == ESP_OK)
    code = undo_flags(undo, "frozen", st);
  if (code == ESP_OK)
    code = esp_former_timers_give(undo->tx, &undo->record->diff, &former, st);
  esp_former_timers_done(&former);
  return code;
}

static enum esp_code undo_record(const struct undo *undo, struct esp_status *st) {
  enum esp_code code = undo_places(undo, st);
  if (code == ESP_OK)
    code = undo_lines(undo, undo_group, st);
  if (code == ESP_OK)
    code = undo_bindings(undo, st);
  if (code == ESP_OK)
    code = undo_stepped(undo, true, st);
  if (code == ESP_OK)
    code = undo_stepped(undo, false, st);
  if (code == ESP_OK)
    code = undo_frozen(undo, st);
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
  tx->undoes = records[0]->epoch;
  code = check_meant(records[0], op->epoch, st);
  if (code == ESP_OK)
    code = check(tx, records, len, st);
  if (code == ESP_OK)
    code = undo_record(&undo, st);
  for (size_t i = 0; i < len; i++)
    esp_record_unref(records[i]);
  esp_free(records);
  return code;
}
