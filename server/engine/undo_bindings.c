/* Undoing, the bindings: leaves are tied to the parameters that they were bound to; where one went with the
 * transaction, its leaves get one of their own each. A leaf that was its parameter's primary one when the transaction
 * began is that again. Groups stay meanwhile as they are.
 *
 * It fails without memory. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/undo.h"

/* What a leaf was bound to is what the first of its lines says. Ties come first, since none of them needs a walk, and
 * then all leaves whose parameter is gone are untied at once. */
struct rebinding {
  const struct esp_undo *undo;
  const struct esp_layout *view; /* borrowed: ties change no order in it */
  size_t *lines;                 /* by leaf: the first of its lines + 1, or 0 */
  uint64_t (*params)[2];         /* id and index, by id */
  size_t params_len;
  struct esp_chosen gone; /* leaves whose former parameters are */
};

static int pair_compare(const void *a, const void *b) {
  const uint64_t *x = a, *y = b;
  return x[0] < y[0] ? -1 : x[0] > y[0];
}

static void rebinding_done(struct rebinding *rebinding) {
  esp_free(rebinding->lines);
  esp_free(rebinding->params);
  esp_chosen_done(&rebinding->gone);
}

static enum esp_code rebinding_init(struct rebinding *rebinding, const struct esp_undo *undo, struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(undo->tx->edit);
  *rebinding = (struct rebinding){.undo = undo, .view = view, .params_len = view->params_len};
  rebinding->lines = esp_undo_first_lines(undo, view, esp_undo_is_binding);
  rebinding->params = esp_malloc_array(view->params_len + 1, sizeof(*rebinding->params));
  if (rebinding->lines == NULL || rebinding->params == NULL) {
    (void)esp_transaction_memory(st);
    return ESP_RESOURCE_EXHAUSTED;
  }
  for (size_t i = 0; i < view->params_len; i++)
    memcpy(rebinding->params[i], (uint64_t[2]){view->params[i].id, i}, sizeof(*rebinding->params));
  qsort(rebinding->params, view->params_len, sizeof(*rebinding->params), pair_compare);
  return esp_chosen_init(&rebinding->gone, view, st);
}

/* The parameter that a line says the leaf was bound to, in the layout of now; NULL where it is gone. */
static const struct esp_place *former_place(const struct rebinding *rebinding, const struct esp_layout *now,
                                            const char *text) {
  uint64_t key[2] = {esp_undo_parameter(text, NULL)};
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

/* A line that says that the leaf was the primary one of what it was bound to. */
static bool was_primary(const struct esp_change *change) {
  const char *primary;
  size_t len = strlen(change->path);
  (void)esp_undo_parameter(change->from, &primary);
  return primary != NULL && strncmp(primary, change->path, len) == 0 && primary[len] == ')';
}

/* From the last line to the first: of several leaves that were primary ones of the same parameter, one after the other,
 * the first counts. */
static enum esp_code lead(const struct esp_undo *undo, struct esp_status *st) {
  const struct esp_diff *diff = &undo->record->diff;
  enum esp_code code = ESP_OK;
  for (size_t i = diff->len; i > 0 && code == ESP_OK; i--) {
    const struct esp_change *change = &diff->changes[i - 1];
    const struct esp_layout *now = esp_edit_peek(undo->tx->edit);
    const struct esp_leaf *leaf = esp_undo_is_binding(change) ? esp_undo_leaf_of(now, change) : NULL;
    const struct esp_place *place = leaf == NULL ? NULL : esp_layout_place(now, leaf);
    if (place == NULL || !was_primary(change) || place->id != esp_undo_parameter(change->from, NULL))
      continue;
    undo->regrouped[leaf - now->leaves] = undo->regrouped[place->primary];
    code = esp_edit_lead(undo->tx->edit, (uint32_t)(leaf - now->leaves), st);
  }
  return code;
}

enum esp_code esp_undo_bindings(const struct esp_undo *undo, struct esp_status *st) {
  const struct esp_operation untie = {.kind = ESP_OPERATION_UNTIE, .selection = ""};
  const struct esp_change *changes = undo->record->diff.changes;
  struct rebinding rebinding;
  enum esp_code code = rebinding_init(&rebinding, undo, st);
  for (size_t i = code == ESP_OK ? rebinding.view->leaves_len : 0; i > 0 && code == ESP_OK; i--) {
    if (rebinding.lines[i - 1] != 0)
      code = rebind(&rebinding, (uint32_t)i - 1, &changes[rebinding.lines[i - 1] - 1], st);
  }
  if (code == ESP_OK)
    code = lead(undo, st);
  if (code == ESP_OK)
    code = esp_operation_untie(undo->tx, &untie, esp_chosen_list(&rebinding.gone), st);
  rebinding_done(&rebinding);
  return code;
}
