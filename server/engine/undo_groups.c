/* Undoing, the groups: each node is assigned what it was before, as the diff's lines say. Of the last transaction they
 * say all. Where others came after it, it is where by now the node is:
 *
 *     what was assigned, and groups that were defined -> as they were
 *     assignments that were written so that a parameter keeps its group, by the transaction or by the undo of its
 *         places and bindings -> as they were, too, unless a parameter's group would change by that
 *     parameters whose former primary leaf can't be that again -> the group that its place has
 *
 * It fails without memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/undo.h"

static enum esp_code set(struct esp_edit *edit, const char *node, const char *group, struct esp_status *st) {
  return group[0] == '\0' ? esp_edit_unassign(edit, node, strlen(node), st)
                          : esp_edit_assign(edit, node, strlen(node), group, st);
}

static bool is_kept(const struct esp_change *change) {
  return esp_undo_is_field(change, "group") && change->because[0] != '\0';
}

/* Where what was renamed after the line, and so before it by the undo, went back to. */
static const char *moved_back(const struct esp_undo *undo, const char *path, size_t line,
                              char buffer[ESP_PATH_BYTES_MAX + 1]) {
  size_t len = strlen(path);
  if (len > ESP_PATH_BYTES_MAX)
    return path;
  memcpy(buffer, path, len + 1);
  for (size_t i = 0; i < undo->moves_len; i++) {
    const struct esp_undo_move *move = &undo->moves[i];
    if (line < move->line || !esp_path_within(buffer, len, move->to, move->to_len) ||
        move->from_len + len - move->to_len > ESP_PATH_BYTES_MAX)
      continue;
    memmove(buffer + move->from_len, buffer + move->to_len, len - move->to_len + 1);
    memcpy(buffer, move->from, move->from_len);
    len = move->from_len + len - move->to_len;
  }
  return buffer;
}

/* The path that the node of a line has by now. Leaves are known by their ids. */
static const char *node_now(const struct esp_undo *undo, const struct esp_layout *view, size_t line,
                            char buffer[ESP_PATH_BYTES_MAX + 1]) {
  const struct esp_change *change = &undo->record->diff.changes[line];
  const struct esp_leaf *leaf = esp_undo_leaf_of(view, change);
  return leaf != NULL ? leaf->path : moved_back(undo, change->path, line, buffer);
}

enum esp_code esp_undo_regrouped(struct esp_undo *undo, struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(undo->tx->edit);
  char buffer[ESP_PATH_BYTES_MAX + 1];
  undo->regrouped = esp_calloc(view->leaves_len + 1, sizeof(*undo->regrouped));
  if (undo->regrouped == NULL)
    return esp_transaction_memory(st);
  for (size_t i = 0; i < undo->since_len; i++) {
    size_t first, len;
    const char *node = moved_back(undo, undo->since[i], SIZE_MAX, buffer);
    esp_layout_range(view, node, strlen(node), &first, &len);
    memset(undo->regrouped + first, true, len);
  }
  return ESP_OK;
}

/* ---- what was assigned and defined ---- */

static enum esp_code undo_optimizer(const struct esp_undo *undo, const struct esp_change *change,
                                    struct esp_status *st) {
  const struct esp_operation define = {.kind = ESP_OPERATION_DEFINE_GROUP, .name = change->path, .to = change->from};
  return change->from[0] == '\0' ? esp_edit_group_delete(undo->tx->edit, change->path, st)
                                 : esp_operation_define(undo->tx, &define, st);
}

/* From the last line to the first: those of nodes that are elsewhere by now (moved), or all others. */
static enum esp_code undo_lines(const struct esp_undo *undo, bool moved, struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(undo->tx->edit); /* assigning is merely collected */
  char buffer[ESP_PATH_BYTES_MAX + 1];
  enum esp_code code = ESP_OK;
  for (size_t i = undo->record->diff.len; i > 0 && code == ESP_OK; i--) {
    const struct esp_change *change = &undo->record->diff.changes[i - 1];
    if (esp_undo_is_field(change, "optimizer") && !moved)
      code = undo_optimizer(undo, change, st);
    if (!esp_undo_is_field(change, "group") || is_kept(change))
      continue;
    const char *node = node_now(undo, view, i - 1, buffer);
    if ((strcmp(node, change->path) != 0) == moved)
      code = set(undo->tx->edit, node, change->from, st);
  }
  return code;
}

/* ---- what parameters had as their primary leaf ---- */

/* What the first line says that names a parameter. */
struct former {
  uint64_t param;
  size_t line;
};

struct formers {
  struct former *list; /* by parameter, then by line; owned */
  size_t len;
};

static int former_compare(const void *a, const void *b) {
  const struct former *x = a, *y = b;
  if (x->param != y->param)
    return x->param < y->param ? -1 : 1;
  return x->line < y->line ? -1 : x->line > y->line;
}

static enum esp_code formers_find(struct formers *formers, const struct esp_diff *diff, struct esp_status *st) {
  *formers = (struct formers){.list = esp_malloc_array(diff->len + 1, sizeof(*formers->list))};
  if (formers->list == NULL)
    return esp_transaction_memory(st);
  for (size_t i = 0; i < diff->len; i++) {
    if (esp_undo_is_binding(&diff->changes[i]))
      formers->list[formers->len++] =
          (struct former){.param = esp_undo_parameter(diff->changes[i].from, NULL), .line = i};
  }
  qsort(formers->list, formers->len, sizeof(*formers->list), former_compare);
  return ESP_OK;
}

/* What assignments are taken back by. */
struct taking {
  const struct esp_undo *undo;
  size_t *bindings; /* by leaf: its first line that says what it was bound to, + 1, or 0; owned */
  struct formers formers;
};

/* The path that the primary leaf had that the parameter had first, as it is by now; NULL where no line tells. */
static const char *former_primary(const struct taking *taking, uint64_t param, char buffer[ESP_PATH_BYTES_MAX + 1]) {
  const struct formers *formers = &taking->formers;
  char text[ESP_PATH_BYTES_MAX + 1];
  size_t low = 0, high = formers->len;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (formers->list[middle].param < param)
      low = middle + 1;
    else
      high = middle;
  }
  if (low == formers->len || formers->list[low].param != param)
    return NULL;
  size_t line = formers->list[low].line;
  const char *path;
  (void)esp_undo_parameter(taking->undo->record->diff.changes[line].from, &path);
  const char *end = path == NULL ? NULL : strrchr(path, ')');
  if (end == NULL || end - path > ESP_PATH_BYTES_MAX)
    return NULL;
  snprintf(text, sizeof(text), "%.*s", (int)(end - path), path);
  return moved_back(taking->undo, text, line, buffer);
}

/* Whether the parameter that the leaf was bound to went with the transaction. */
static bool is_bound_anew(const struct taking *taking, const struct esp_layout *view, size_t index) {
  size_t line = taking->bindings[index];
  return line != 0 && esp_layout_place(view, &view->leaves[index])->id !=
                          esp_undo_parameter(taking->undo->record->diff.changes[line - 1].from, NULL);
}

/* Whether the group of a parameter, by its primary leaf, is to stay as it is: a later transaction has given it that, or
 * its former primary leaf is gone, whose place would give it the group that it had. */
static bool keeps_group(const struct taking *taking, const struct esp_layout *view, size_t index) {
  const struct esp_leaf *leaf = &view->leaves[index];
  char buffer[ESP_PATH_BYTES_MAX + 1];
  if (taking->undo->regrouped[index])
    return true;
  if (is_bound_anew(taking, view, index))
    return false;
  const char *path = former_primary(taking, esp_layout_place(view, leaf)->id, buffer);
  return path != NULL && strcmp(path, leaf->path) != 0;
}

/* ---- assignments that keep groups: of nodes ---- */

/* Whether a parameter that is to keep its group would have another one if the assignment were another one. */
static bool is_needed(const struct taking *taking, const struct esp_layout *view,
                      const struct esp_assignment *assignment, const char *instead) {
  size_t first, len;
  esp_layout_range(view, assignment->node, assignment->node_len, &first, &len);
  for (size_t i = first; i < first + len; i++) {
    const struct esp_leaf *leaf = &view->leaves[i];
    const struct esp_place *place = esp_layout_place(view, leaf);
    if (place->primary == i && strcmp(place->group_assigned, instead) != 0 &&
        esp_layout_nearest(view, leaf->path, leaf->path_len) == assignment && keeps_group(taking, view, i))
      return true;
  }
  return false;
}

/* What counts for a node where it has no assignment itself. */
static const char *inherited(const struct esp_layout *view, const char *node) {
  size_t len = strlen(node);
  while (len > 0 && node[--len] != '.') {
  }
  return esp_layout_nearest(view, node, len)->group;
}

/* What was assigned to the node: as the first line of its path says, then the first one of what had another path
 * meanwhile, then the undo's own. */
static const char *node_former(const struct esp_undo *undo, const struct esp_layout *view, const char *node) {
  const struct esp_diff *diff = &undo->record->diff;
  char buffer[ESP_PATH_BYTES_MAX + 1];
  for (int moved = 0; moved < 2; moved++) {
    for (size_t i = 0; i < diff->len; i++) {
      const struct esp_change *change = &diff->changes[i];
      if (!esp_undo_is_field(change, "group"))
        continue;
      const char *now = node_now(undo, view, i, buffer);
      if (strcmp(now, node) == 0 && (strcmp(now, change->path) != 0) == moved)
        return change->from;
    }
  }
  size_t len;
  const struct esp_change *own = esp_edit_changes(undo->tx->edit, &len);
  for (size_t i = undo->own; i < len; i++) {
    if (esp_undo_is_field(&own[i], "group") && strcmp(own[i].path, node) == 0)
      return own[i].from;
  }
  return "";
}

static enum esp_code drop_node(const struct taking *taking, const char *node, struct esp_status *st) {
  const struct esp_undo *undo = taking->undo;
  const struct esp_layout *view = esp_edit_view(undo->tx->edit);
  const struct esp_assignment *assignment = esp_layout_assignment(view, node, strlen(node));
  const char *former = node_former(undo, view, node);
  if (assignment == NULL || assignment->node_len == 0 || strcmp(assignment->group, former) == 0 ||
      is_needed(taking, view, assignment, former[0] == '\0' ? inherited(view, node) : former))
    return ESP_OK;
  return set(undo->tx->edit, node, former, st);
}

/* Few: one for each rename, and those of leaves that are gone. */
static enum esp_code drop_nodes(const struct taking *taking, struct esp_status *st) {
  const struct esp_undo *undo = taking->undo;
  const struct esp_diff *diff = &undo->record->diff;
  char buffer[ESP_PATH_BYTES_MAX + 1];
  enum esp_code code = ESP_OK;
  for (size_t i = 0; i < diff->len && code == ESP_OK; i++) {
    const struct esp_layout *view = esp_edit_peek(undo->tx->edit);
    const struct esp_change *change = &diff->changes[i];
    if (!is_kept(change) || esp_undo_leaf_of(view, change) != NULL)
      continue;
    code = drop_node(taking, node_now(undo, view, i, buffer), st);
    if (code == ESP_OK)
      code = drop_node(taking, change->path, st);
  }
  for (size_t i = undo->own; code == ESP_OK; i++) {
    size_t len;
    const struct esp_change *own = esp_edit_changes(undo->tx->edit, &len);
    if (i >= len)
      break;
    if (is_kept(&own[i]) && own[i].leaf_id == 0)
      code = drop_node(taking, own[i].path, st);
  }
  return code;
}

/* ---- assignments that keep groups: of leaves ---- */

/* By leaf of the view. */
struct keeping {
  const struct esp_layout *view; /* borrowed: assigning is merely collected */
  const char **former;           /* what was assigned to it, "" for nothing; NULL where no line tells; owned */
  bool *kept;                    /* whether an assignment of it was to keep a group; owned */
};

static void keeping_note(struct keeping *keeping, const struct esp_change *change) {
  const struct esp_layout *view = keeping->view;
  const struct esp_leaf *leaf = change->leaf_id == 0 ? esp_layout_leaf_by_path(view, change->path, strlen(change->path))
                                                     : esp_undo_leaf_of(view, change);
  if (leaf == NULL || !esp_undo_is_field(change, "group"))
    return;
  keeping->former[leaf - view->leaves] = change->from;
  keeping->kept[leaf - view->leaves] = keeping->kept[leaf - view->leaves] || is_kept(change);
}

/* The first line of a leaf's path of now counts; then the first one of the leaf; then the undo's own. */
static void keeping_read(struct keeping *keeping, const struct esp_undo *undo) {
  const struct esp_diff *diff = &undo->record->diff;
  size_t len;
  const struct esp_change *own = esp_edit_changes(undo->tx->edit, &len);
  for (size_t i = len; i > undo->own; i--)
    keeping_note(keeping, &own[i - 1]);
  for (int moved = 1; moved >= 0; moved--) {
    for (size_t i = diff->len; i > 0; i--) {
      const struct esp_change *change = &diff->changes[i - 1];
      const struct esp_leaf *leaf = esp_undo_leaf_of(keeping->view, change);
      bool is_moved = leaf != NULL && strcmp(leaf->path, change->path) != 0;
      if (is_moved == moved)
        keeping_note(keeping, change);
    }
  }
}

static enum esp_code drop_leaf(const struct taking *taking, const struct keeping *keeping, size_t index,
                               struct esp_status *st) {
  const struct esp_layout *view = keeping->view;
  const struct esp_leaf *leaf = &view->leaves[index];
  const char *from = keeping->former[index];
  const struct esp_assignment *assignment = esp_layout_assignment(view, leaf->path, leaf->path_len);
  if (assignment == NULL || strcmp(assignment->group, from) == 0 ||
      is_needed(taking, view, assignment, from[0] == '\0' ? inherited(view, leaf->path) : from))
    return ESP_OK;
  return set(taking->undo->tx->edit, leaf->path, from, st);
}

static enum esp_code drop_leaves(const struct taking *taking, struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(taking->undo->tx->edit);
  struct keeping keeping = {.view = view,
                            .former = esp_calloc(view->leaves_len + 1, sizeof(*keeping.former)),
                            .kept = esp_calloc(view->leaves_len + 1, sizeof(*keeping.kept))};
  enum esp_code code = ESP_OK;
  if (keeping.former == NULL || keeping.kept == NULL) {
    esp_free(keeping.former);
    esp_free(keeping.kept);
    return esp_transaction_memory(st);
  }
  keeping_read(&keeping, taking->undo);
  for (size_t i = 0; i < view->leaves_len && code == ESP_OK; i++) {
    if (keeping.kept[i])
      code = drop_leaf(taking, &keeping, i, st);
  }
  esp_free(keeping.former);
  esp_free(keeping.kept);
  return code;
}

/* ---- parameters that another leaf is the primary one of ---- */

/* A primary leaf's parameter gets the group of the place where the primary leaf of `former` was. */
static enum esp_code regroup(const struct taking *taking, const struct esp_layout *view, const struct esp_leaf *primary,
                             uint64_t former, struct esp_status *st) {
  char buffer[ESP_PATH_BYTES_MAX + 1];
  const char *path = former_primary(taking, former, buffer);
  const char *group = path == NULL ? NULL : esp_layout_nearest(view, path, strlen(path))->group;
  if (group == NULL || strcmp(esp_layout_place(view, primary)->group_assigned, group) == 0)
    return ESP_OK;
  return esp_edit_assign(taking->undo->tx->edit, primary->path, primary->path_len, group, st);
}

/* Leaves that have parameters of their own because the one that they shared is gone, and parameters whose primary leaf
 * was removed: these only where the transaction assigned groups, since else they have kept theirs. */
static enum esp_code regroup_all(const struct taking *taking, struct esp_status *st) {
  const struct esp_diff *diff = &taking->undo->record->diff;
  const struct esp_layout *view = esp_edit_view(taking->undo->tx->edit);
  enum esp_code code = ESP_OK;
  bool assigned = false, removed = false;
  for (size_t i = 0; i < diff->len; i++) {
    const struct esp_change *change = &diff->changes[i];
    assigned = assigned || (esp_undo_is_field(change, "group") && !is_kept(change));
    removed = removed || (esp_undo_is_binding(change) && change->to[0] == '\0');
  }
  for (size_t i = 0; i < view->leaves_len && code == ESP_OK; i++) {
    const struct esp_leaf *leaf = &view->leaves[i];
    const struct esp_place *place = esp_layout_place(view, leaf);
    if (place->primary != i)
      continue;
    if (is_bound_anew(taking, view, i))
      code = regroup(taking, view, leaf, esp_undo_parameter(diff->changes[taking->bindings[i] - 1].from, NULL), st);
    else if (assigned && removed)
      code = regroup(taking, view, leaf, place->id, st);
  }
  return code;
}

/* ---- where nothing came between ---- */

/* Of the last transaction: each node gets what the first line that names it says, or, where the transaction had not
 * touched it, what it had before places went back. */
static enum esp_code undo_exactly(const struct esp_undo *undo, struct esp_status *st) {
  const struct esp_diff *diff = &undo->record->diff;
  enum esp_code code = ESP_OK;
  size_t len;
  (void)esp_edit_changes(undo->tx->edit, &len);
  for (size_t i = len; i > undo->own && code == ESP_OK; i--) {
    const struct esp_change own = esp_edit_changes(undo->tx->edit, &len)[i - 1]; /* each assignment adds to the list */
    if (esp_undo_is_field(&own, "group"))
      code = set(undo->tx->edit, own.path, own.from, st);
  }
  for (size_t i = diff->len; i > 0 && code == ESP_OK; i--) {
    const struct esp_change *change = &diff->changes[i - 1];
    if (esp_undo_is_field(change, "optimizer"))
      code = undo_optimizer(undo, change, st);
    else if (esp_undo_is_field(change, "group"))
      code = set(undo->tx->edit, change->path, change->from, st);
  }
  return code;
}

/* ---- the whole ---- */

/* Where others came between. */
static enum esp_code undo_mapped(const struct taking *taking, struct esp_status *st) {
  enum esp_code code = undo_lines(taking->undo, true, st);
  if (code == ESP_OK)
    code = undo_lines(taking->undo, false, st);
  if (code == ESP_OK)
    code = drop_nodes(taking, st);
  if (code == ESP_OK)
    code = drop_leaves(taking, st);
  return code;
}

enum esp_code esp_undo_groups(const struct esp_undo *undo, struct esp_status *st) {
  struct taking taking = {.undo = undo};
  const struct esp_layout *view = esp_edit_view(undo->tx->edit); /* no leaf moves any more */
  taking.bindings = esp_undo_first_lines(undo, view, esp_undo_is_binding);
  enum esp_code code = taking.bindings == NULL ? esp_transaction_memory(st) : ESP_OK;
  if (code == ESP_OK)
    code = formers_find(&taking.formers, &undo->record->diff, st);
  if (code == ESP_OK)
    code = undo->is_last ? undo_exactly(undo, st) : undo_mapped(&taking, st);
  if (code == ESP_OK)
    code = regroup_all(&taking, st);
  esp_free(taking.bindings);
  esp_free(taking.formers.list);
  return code;
}
