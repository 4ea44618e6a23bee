/* Which parameter a leaf is bound to: esp_edit_tie, esp_edit_untie.
 *
 * A binding is an index and a view, so a tie changes one leaf and two counts. What follows of it for the order of
 * parameters and for groups waits until somebody looks (edit_settle.c). Only the primary leaf that leaves a parameter
 * needs to know the others that are bound to it: they form a ring, which the first tie of an edit makes for all leaves.
 *
 * They fail with INVALID_ARGUMENT naming both leaves, before anything changes, or without memory. */
#include <espalier/status.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tree/tree_internal.h"

#define NO_LEAF UINT32_MAX

static const char *const flag_words[] = {"false", "true"};

/* ---- what the diff says of a binding ---- */

const char *esp_edit_binding_text(struct esp_edit *edit, uint64_t param_id, const struct esp_leaf *primary,
                                  enum esp_view view) {
  char text[ESP_PATH_BYTES_MAX + 64];
  int len = snprintf(text, sizeof text, "parameter %" PRIu64 " (%s)%s", param_id, primary->path,
                     view == ESP_VIEW_TRANSPOSE ? " transposed" : "");
  return esp_arena_strndup(&edit->memory->texts, text, (size_t)len);
}

static const char *binding_of(struct esp_edit *edit, const struct esp_leaf *leaf) {
  const struct esp_place *place = esp_layout_place(edit->layout, leaf);
  return esp_edit_binding_text(edit, place->id, &edit->layout->leaves[place->primary], leaf->view);
}

/* ---- rings ---- */

static bool ring_make(struct esp_edit *edit) {
  struct esp_layout *layout = edit->layout;
  if (edit->ring_len == layout->leaves_len) {
    return true;
  }
  if (!esp_grow((void **)&edit->ring, &edit->ring_capacity, layout->leaves_len, sizeof *edit->ring)) {
    return false;
  }
  uint32_t *last = edit->marks; /* the leaf of each parameter that was met last */
  for (size_t i = 0; i < layout->params_len; i++) {
    last[i] = NO_LEAF;
  }
  struct esp_ring_link *ring = edit->ring;
  for (uint32_t i = 0; i < layout->leaves_len; i++) {
    uint32_t *at = &last[layout->leaves[i].param];
    ring[i] = (struct esp_ring_link){.before = i, .after = i};
    if (*at != NO_LEAF) {
      ring[i] = (struct esp_ring_link){.before = *at, .after = ring[*at].after};
      ring[ring[i].after].before = i;
      ring[*at].after = i;
    }
    *at = i;
  }
  edit->ring_len = layout->leaves_len;
  return true;
}

/* Takes the leaf out of its ring and puts it before another one in that one's. */
static void ring_move(struct esp_ring_link *ring, uint32_t leaf, uint32_t to) {
  ring[ring[leaf].before].after = ring[leaf].after;
  ring[ring[leaf].after].before = ring[leaf].before;
  ring[leaf] = (struct esp_ring_link){.before = ring[to].before, .after = to};
  ring[ring[to].before].after = leaf;
  ring[to].before = leaf;
}

/* The first in path order of the others. */
static uint32_t ring_first_other(const struct esp_ring_link *ring, uint32_t leaf) {
  uint32_t first = NO_LEAF;
  for (uint32_t i = ring[leaf].after; i != leaf; i = ring[i].after) {
    first = i < first ? i : first;
  }
  return first;
}

/* ---- tie ---- */

/* INVALID_ARGUMENT: why `leaf` can't be tied to `to`. */
static enum esp_code tie_fail(const struct esp_leaf *leaf, const struct esp_leaf *to, const char *why,
                              struct esp_status *st) {
  char text[2][ESP_PATH_TEXT_MAX];
  return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf \"%s\" can't be tied to \"%s\": %s",
                  esp_path_print(leaf->path, leaf->path_len, text[0], sizeof text[0]),
                  esp_path_print(to->path, to->path_len, text[1], sizeof text[1]), why);
}

static enum esp_code tie_check_shape(const struct esp_layout *layout, const struct esp_leaf *leaf,
                                     const struct esp_leaf *to, enum esp_view view, struct esp_status *st) {
  struct esp_shape shape = esp_layout_shape(layout, leaf);
  struct esp_shape seen = esp_layout_shape(layout, to);
  char text[2][ESP_SHAPE_TEXT_MAX];
  char why[3 * ESP_SHAPE_TEXT_MAX];
  if (view == ESP_VIEW_TRANSPOSE) {
    if (seen.rank != 2) {
      snprintf(why, sizeof why, "only what is of rank 2 has a transpose, and its shape is %s",
               esp_shape_print(&seen, text[0]));
      return tie_fail(leaf, to, why, st);
    }
    uint64_t rows = seen.dims[0];
    seen.dims[0] = seen.dims[1];
    seen.dims[1] = rows;
  }
  if (esp_shape_equal(&shape, &seen)) {
    return ESP_OK;
  }
  snprintf(why, sizeof why, "its shape is %s, and the other's%s is %s", esp_shape_print(&shape, text[0]),
           view == ESP_VIEW_TRANSPOSE ? " transpose" : "", esp_shape_print(&seen, text[1]));
  return tie_fail(leaf, to, why, st);
}

static enum esp_code tie_check(const struct esp_layout *layout, const struct esp_leaf *leaf, const struct esp_leaf *to,
                               enum esp_view view, struct esp_status *st) {
  char why[ESP_PATH_TEXT_MAX];
  if (leaf == to) {
    return tie_fail(leaf, to, "it is the same leaf", st);
  }
  if (leaf->kind != to->kind) {
    return tie_fail(leaf, to,
                    leaf->kind == ESP_KIND_BUFFER ? "it is a buffer, and the other is trained"
                                                  : "it is trained, and the other is a buffer",
                    st);
  }
  enum esp_dtype dtype = esp_layout_place(layout, leaf)->dtype;
  enum esp_dtype other = esp_layout_place(layout, to)->dtype;
  if (dtype != other) {
    snprintf(why, sizeof why, "it is %s, and the other %s", esp_dtype_name(dtype), esp_dtype_name(other));
    return tie_fail(leaf, to, why, st);
  }
  return tie_check_shape(layout, leaf, to, view, st);
}

enum esp_code esp_tie_check(const struct esp_layout *layout, uint32_t leaf, uint32_t to, enum esp_view view,
                            struct esp_status *st) {
  return tie_check(layout, &layout->leaves[leaf], &layout->leaves[to], view, st);
}

/* The lines of a tie: of the binding, and of what the other parameter has otherwise. There is room; false without
 * memory for texts. */
static bool tie_note(struct esp_edit *edit, const struct esp_leaf *leaf, const struct esp_leaf *to,
                     enum esp_view composed) {
  const struct esp_layout *layout = edit->layout;
  const struct esp_place *old = esp_layout_place(layout, leaf);
  const struct esp_place *new = esp_layout_place(layout, to);
  struct esp_change change = {.leaf_id = leaf->id, .path = leaf->path, .because = ""};
  const char *from = binding_of(edit, leaf);
  const char *bound = esp_edit_binding_text(edit, new->id, &layout->leaves[new->primary], composed);
  const char *from_timer = old->timer == new->timer ? "" : esp_edit_timer_text(edit, old->timer);
  const char *timer = old->timer == new->timer ? "" : esp_edit_timer_text(edit, new->timer);
  if (!from || !bound || !from_timer || !timer) {
    return false;
  }
  change.field = "parameter";
  change.from = from;
  change.to = bound;
  esp_edit_add_change(edit, &change);
  change.because = to->path;
  if (old->frozen != new->frozen) {
    change.field = "frozen";
    change.from = flag_words[old->frozen];
    change.to = flag_words[new->frozen];
    esp_edit_add_change(edit, &change);
  }
  if (old->timer != new->timer) {
    change.field = "timer";
    change.from = from_timer;
    change.to = timer;
    esp_edit_add_change(edit, &change);
  }
  if (old->group != new->group && leaf->kind == ESP_KIND_TRAINED) {
    change.field = "stepped_by";
    change.from = layout->groups[old->group].name;
    change.to = layout->groups[new->group].name;
    esp_edit_add_change(edit, &change);
  }
  return true;
}

/* Binds the leaf; all memory was taken. */
static void tie_bind(struct esp_edit *edit, uint32_t leaf_index, uint32_t to_index, enum esp_view view) {
  struct esp_layout *layout = edit->layout;
  struct esp_leaf *leaf = &layout->leaves[leaf_index];
  uint32_t to_param = layout->leaves[to_index].param;
  leaf->view = view;
  leaf->changed_epoch = layout->epoch;
  edit->changed = true;
  if (leaf->param == to_param) {
    return;
  }
  struct esp_place *old = &layout->params[leaf->param];
  if (old->primary == leaf_index && old->leaves_len > 1) {
    old->primary = ring_first_other(edit->ring, leaf_index);
    esp_edit_keep_group(edit, leaf->param, leaf->path);
  }
  ring_move(edit->ring, leaf_index, to_index);
  layout->frozen_len += layout->params[to_param].frozen;
  layout->frozen_len -= old->frozen;
  esp_edit_unbind(edit, leaf->param);
  leaf->param = to_param;
  layout->params[to_param].leaves_len++;
}

static enum esp_code tie(struct esp_edit *edit, uint32_t leaf_index, uint32_t to_index, enum esp_view view,
                         struct esp_status *st) {
  esp_edit_settle_groups(edit);
  const struct esp_layout *now = esp_edit_now(edit);
  ESP_CHECK(leaf_index < now->leaves_len && to_index < now->leaves_len);
  const struct esp_leaf *leaf = &now->leaves[leaf_index];
  const struct esp_leaf *to = &now->leaves[to_index];
  enum esp_code code = tie_check(now, leaf, to, view, st);
  if (code != ESP_OK) {
    return code;
  }
  /* Through both views: a transpose of a transpose is what it was. */
  enum esp_view composed = view == to->view ? ESP_VIEW_IDENTITY : ESP_VIEW_TRANSPOSE;
  if (leaf->param == to->param && leaf->view == composed) {
    return ESP_OK;
  }
  if (esp_edit_own(edit) && ring_make(edit) && esp_edit_reserve_kept(edit, 1) &&
      esp_edit_reserve_changes(edit, 1 + 4) &&
      tie_note(edit, &edit->layout->leaves[leaf_index], &edit->layout->leaves[to_index], composed)) {
    tie_bind(edit, leaf_index, to_index, composed);
    return ESP_OK;
  }
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a tie");
}

enum esp_code esp_edit_tie(struct esp_edit *edit, uint32_t leaf, uint32_t to, enum esp_view view,
                           struct esp_status *st) {
  return esp_edit_failed(edit, tie(edit, leaf, to, view, st));
}

enum esp_code esp_edit_lead(struct esp_edit *edit, uint32_t leaf, struct esp_status *st) {
  esp_edit_settle_groups(edit);
  const struct esp_layout *now = esp_edit_now(edit);
  ESP_CHECK(leaf < now->leaves_len);
  if (esp_layout_place(now, &now->leaves[leaf])->primary == leaf) {
    return ESP_OK;
  }
  if (!esp_edit_own(edit) || !esp_edit_reserve_kept(edit, 1) || !esp_edit_reserve_changes(edit, 1)) {
    return esp_edit_failed(edit, esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a primary leaf"));
  }
  struct esp_layout *layout = edit->layout;
  uint32_t param = layout->leaves[leaf].param;
  esp_edit_keep_group(edit, param, layout->leaves[layout->params[param].primary].path);
  layout->params[param].primary = leaf;
  edit->params_stale = true;
  edit->changed = true;
  return ESP_OK;
}

/* ---- untie ---- */

#define ALL_SELECTED UINT32_MAX
#define NONE_CHANGES 0

/* By parameter, in marks: ALL_SELECTED, or NONE_CHANGES where it has one leaf only, or another number. Returns how many
 * leaves get a parameter of their own. */
static size_t untie_count(struct esp_edit *edit, const struct esp_selection *sel) {
  const struct esp_layout *layout = edit->layout;
  uint32_t *marks = edit->marks;
  for (size_t i = 0; i < layout->params_len; i++) {
    marks[i] = 0;
  }
  for (size_t i = 0; i < sel->len; i++) {
    marks[layout->leaves[sel->leaves[i]].param]++;
  }
  size_t count = 0;
  for (size_t i = 0; i < layout->params_len; i++) {
    uint32_t leaves_len = layout->params[i].leaves_len;
    bool all = marks[i] == leaves_len;
    count += marks[i] - (all && leaves_len > 0); /* its primary leaf keeps it */
    marks[i] = all ? (leaves_len > 1 ? ALL_SELECTED : NONE_CHANGES) : marks[i];
  }
  return count;
}

/* The leaf gets a parameter of its own, as the last of layout->params. false without memory for its texts. */
static bool untie_leaf(struct esp_edit *edit, uint32_t leaf_index) {
  struct esp_layout *layout = edit->layout;
  struct esp_leaf *leaf = &layout->leaves[leaf_index];
  struct esp_place *old = &layout->params[leaf->param];
  const char *from = binding_of(edit, leaf);
  const char *to = esp_edit_binding_text(edit, layout->param_id_next, leaf, ESP_VIEW_IDENTITY);
  if (!from || !to) {
    return false;
  }
  esp_edit_add_change(
      edit, &(struct esp_change){
                .leaf_id = leaf->id, .path = leaf->path, .field = "parameter", .from = from, .to = to, .because = ""});
  uint32_t param = (uint32_t)layout->params_len++;
  struct esp_place *place = &layout->params[param];
  *place = *old;
  place->id = layout->param_id_next++;
  edit->timers_stale = edit->timers_stale || place->timer != 0; /* it has one parameter more */
  place->storage = NULL;
  place->primary = leaf_index;
  place->leaves_len = 1;
  place->shape = esp_layout_shape(layout, leaf);
  uint64_t elements = 0;
  uint64_t bytes = 0;
  ESP_CHECK(esp_shape_bytes(&place->shape, place->dtype, &elements, &bytes, NULL) == ESP_OK);
  layout->elements += elements;
  esp_edit_keep_group(edit, param, layout->leaves[old->primary].path);
  esp_edit_unbind(edit, leaf->param);
  leaf->param = param;
  leaf->view = ESP_VIEW_IDENTITY;
  leaf->changed_epoch = layout->epoch;
  return true;
}

/* Parameters whose primary leaf went get the first of the others. */
static void primaries_mend(struct esp_edit *edit) {
  struct esp_layout *layout = edit->layout;
  for (uint32_t i = 0; i < layout->leaves_len; i++) {
    uint32_t param = layout->leaves[i].param;
    struct esp_place *place = &layout->params[param];
    const struct esp_leaf *primary = &layout->leaves[place->primary];
    if (primary->param != param) {
      esp_edit_keep_group(edit, param, primary->path);
      place->primary = i;
    }
  }
}

static bool shares_any(const struct esp_layout *layout, const struct esp_selection *sel) {
  bool any = false;
  for (size_t i = 0; i < sel->len; i++) {
    ESP_CHECK(sel->leaves[i] < layout->leaves_len);
    any = any || esp_layout_place(layout, &layout->leaves[sel->leaves[i]])->leaves_len > 1;
  }
  return any;
}

static bool untie_reserve(struct esp_edit *edit, size_t count) {
  struct esp_layout *layout = edit->layout;
  size_t params_len = layout->params_len + count;
  return esp_edit_reserve_kept(edit, 2 * count) && /* of the new ones, and of those whose primary leaf goes */
         esp_edit_reserve_changes(edit, 3 * count) &&
         esp_grow((void **)&edit->marks, &edit->marks_capacity, params_len, sizeof *edit->marks) &&
         esp_edit_lengthen(&layout->params, params_len, sizeof *layout->params);
}

enum esp_code esp_edit_untie(struct esp_edit *edit, const struct esp_selection *sel, uint64_t *ret_leaves,
                             uint64_t *ret_from, enum esp_view *ret_views, size_t *ret_len, struct esp_status *st) {
  esp_edit_settle(edit);
  if (!shares_any(esp_edit_now(edit), sel)) {
    *ret_len = 0;
    return ESP_OK;
  }
  bool ok = esp_edit_own(edit) && untie_reserve(edit, untie_count(edit, sel));
  size_t len = 0;
  for (size_t i = 0; ok && i < sel->len; i++) {
    const struct esp_layout *layout = edit->layout;
    const struct esp_leaf *leaf = &layout->leaves[sel->leaves[i]];
    const struct esp_place *place = esp_layout_place(layout, leaf);
    uint32_t mark = edit->marks[leaf->param];
    if (mark == NONE_CHANGES || (mark == ALL_SELECTED && place->primary == sel->leaves[i])) {
      continue;
    }
    ret_leaves[len] = leaf->id;
    ret_from[len] = place->id;
    ret_views[len++] = leaf->view;
    ok = untie_leaf(edit, sel->leaves[i]);
  }
  if (!ok) {
    return esp_edit_failed(edit, esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory to untie %zu leaves", sel->len));
  }
  primaries_mend(edit);
  edit->ring_len = 0;
  edit->changed = true;
  esp_edit_settle(edit);
  *ret_len = len;
  return ESP_OK;
}
