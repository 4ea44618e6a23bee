/* Undoing, the places: leaves that a transaction added go, and those that it renamed get their former paths, as one
 * node where nothing else is in it by now.
 *
 * FAILED_PRECONDITION where an operation before the undo has renamed them once more; else without memory. */
#include <string.h>

#include "base/alloc.h"
#include "engine/undo.h"

/* Lines before *at, from the last to the first, up to one that tells of a path: what they added goes, at once. */
static enum esp_code undo_added(const struct esp_undo *undo, size_t *at, struct esp_status *st) {
  struct esp_chosen chosen;
  enum esp_code code = esp_chosen_init(&chosen, esp_edit_view(undo->tx->edit), st);
  for (; code == ESP_OK && *at > 0 && !esp_undo_is_field(&undo->record->diff.changes[*at - 1], "path"); --*at) {
    const struct esp_change *change = &undo->record->diff.changes[*at - 1];
    const struct esp_leaf *leaf = esp_undo_leaf_of(chosen.view, change);
    if (leaf != NULL && esp_undo_is_field(change, "leaf") && change->from[0] == '\0')
      chosen.marks[leaf - chosen.view->leaves] = 1;
  }
  if (code == ESP_OK)
    code = esp_edit_remove(undo->tx->edit, esp_chosen_list(&chosen), st);
  esp_chosen_done(&chosen);
  return code;
}

static bool is_moved(const struct esp_undo_move *moved, const struct esp_change *change) {
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
static bool moved_widen(struct esp_undo_move *moved, const struct esp_change *change) {
  struct esp_undo_move wider = *moved;
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

static enum esp_code move_back(struct esp_undo *undo, struct esp_undo_move *move, size_t line, struct esp_status *st) {
  if (!esp_grow((void **)&undo->moves, &undo->moves_capacity, undo->moves_len + 1, sizeof(*undo->moves)))
    return esp_transaction_memory(st);
  move->line = line;
  undo->moves[undo->moves_len++] = *move;
  return esp_edit_rename(undo->tx->edit, move->to, move->to_len, move->from, move->from_len, st);
}

/* Renames back what the lines before *at say, as far as they are of one node: as one, where nothing else is in it. */
static enum esp_code undo_paths(struct esp_undo *undo, size_t *at, struct esp_status *st) {
  struct esp_edit *edit = undo->tx->edit;
  const struct esp_layout *view = esp_edit_peek(edit);
  const struct esp_change *changes = undo->record->diff.changes, *last = &changes[*at - 1];
  struct esp_undo_move moved = {
      .to = last->to, .from = last->from, .to_len = strlen(last->to), .from_len = strlen(last->from)};
  size_t end = *at, len = 0, first, below;
  for (; *at > 0 && esp_undo_is_field(&changes[*at - 1], "path"); --*at) {
    const struct esp_leaf *leaf = esp_undo_leaf_of(view, &changes[*at - 1]);
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
    return move_back(undo, &moved, *at, st);
  enum esp_code code = ESP_OK;
  for (size_t i = end; i > *at && code == ESP_OK; i--) {
    const struct esp_change *change = &changes[i - 1];
    moved = (struct esp_undo_move){
        .to = change->to, .from = change->from, .to_len = strlen(change->to), .from_len = strlen(change->from)};
    if (esp_undo_leaf_of(esp_edit_peek(edit), change) != NULL)
      code = move_back(undo, &moved, i - 1, st);
  }
  return code;
}

enum esp_code esp_undo_places(struct esp_undo *undo, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  for (size_t at = undo->record->diff.len; at > 0 && code == ESP_OK;) {
    const struct esp_change *change = &undo->record->diff.changes[at - 1];
    if (esp_undo_is_field(change, "path"))
      code = undo_paths(undo, &at, st);
    else if (esp_undo_is_field(change, "leaf"))
      code = undo_added(undo, &at, st);
    else
      at--;
  }
  return code;
}
