/* Taking leaves out of the tree: esp_edit_remove, and the paths that are remembered for it.
 *
 * What a leaf was is told line by line, then the arrays close up over it. A parameter goes with its last leaf; one that
 * loses its primary leaf only keeps its group (edit_settle.c). The ids of removed leaves are kept with the epoch, for
 * those who watch, and their paths, so that a worker that declares its tree again does not bring them back.
 *
 * It fails only without memory. */
#include <espalier/status.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tree/tree_internal.h"

#define NO_LEAF UINT32_MAX

/* ---- removed paths ---- */

/* The index of the first removed path that is not before this one. */
static size_t removed_lower_bound(const struct esp_layout *layout, const char *path, size_t len) {
  size_t low = 0;
  size_t high = layout->removed_len;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const char *removed = layout->removed[middle];
    if (esp_path_compare(removed, strlen(removed), path, len) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

bool esp_layout_is_removed(const struct esp_layout *layout, const char *path, size_t len) {
  size_t at = removed_lower_bound(layout, path, len);
  return at < layout->removed_len && strlen(layout->removed[at]) == len && memcmp(layout->removed[at], path, len) == 0;
}

void esp_layout_forget_removed(struct esp_layout *layout) {
  size_t left = 0;
  for (size_t i = 0; i < layout->removed_len; i++) {
    const char *path = layout->removed[i];
    if (!esp_layout_leaf_by_path(layout, path, strlen(path))) {
      layout->removed[left++] = path;
    }
  }
  layout->removed_len = left;
}

/* Adds the selected leaves' paths, which are in path order too; there is room. From the back, in place. */
static void removed_add(struct esp_layout *layout, const struct esp_selection *sel) {
  size_t old_left = layout->removed_len;
  size_t left = sel->len;
  layout->removed_len += sel->len;
  while (left > 0) {
    const struct esp_leaf *leaf = &layout->leaves[sel->leaves[left - 1]];
    const char *old = old_left > 0 ? layout->removed[old_left - 1] : NULL;
    if (old && esp_path_compare(old, strlen(old), leaf->path, leaf->path_len) > 0) {
      layout->removed[old_left + left - 1] = old;
      old_left--;
    } else {
      layout->removed[old_left + left - 1] = leaf->path;
      left--;
    }
  }
}

/* ---- the diff ---- */

static void note(struct esp_edit *edit, const struct esp_leaf *leaf, const char *field, const char *from) {
  esp_edit_add_change(
      edit, &(struct esp_change){
                .leaf_id = leaf->id, .path = leaf->path, .field = field, .from = from, .to = "", .because = ""});
}

/* All that a removed leaf was; false without memory for texts. */
static bool note_leaf(struct esp_edit *edit, const struct esp_leaf *leaf) {
  const struct esp_layout *layout = edit->layout;
  const struct esp_place *place = esp_layout_place(layout, leaf);
  struct esp_shape shape = esp_layout_shape(layout, leaf);
  const char *text = esp_edit_leaf_text(edit, &shape, place->dtype, leaf->kind);
  const char *timer = esp_edit_timer_text(edit, place->timer);
  if (!text || !timer) {
    return false;
  }
  note(edit, leaf, "leaf", text);
  if (place->frozen) {
    note(edit, leaf, "frozen", "true");
  }
  if (place->timer != 0) {
    note(edit, leaf, "timer", timer);
  }
  if (leaf->detached) {
    note(edit, leaf, "detached", "true");
  }
  if (*leaf->tag) {
    note(edit, leaf, "tag", leaf->tag);
  }
  return true;
}

/* Where a removed leaf's parameter stays: how it was bound. false without memory. */
static bool note_binding(struct esp_edit *edit, const struct esp_leaf *leaf) {
  const struct esp_place *place = esp_layout_place(edit->layout, leaf);
  const char *text = esp_edit_binding_text(edit, place->id, &edit->layout->leaves[place->primary], leaf->view);
  if (text) {
    note(edit, leaf, "parameter", text);
  }
  return text != NULL;
}

/* ---- remove ---- */

/* By parameter, in marks: how many of its leaves are selected. Returns how many parameters stay without their primary
 * leaf. */
static size_t count(struct esp_edit *edit, const struct esp_selection *sel, size_t *ret_lines) {
  const struct esp_layout *layout = edit->layout;
  for (size_t i = 0; i < layout->params_len; i++) {
    edit->marks[i] = 0;
  }
  size_t lines = 0;
  for (size_t i = 0; i < sel->len; i++) {
    ESP_CHECK(sel->leaves[i] < layout->leaves_len && (i == 0 || sel->leaves[i - 1] < sel->leaves[i]));
    const struct esp_leaf *leaf = &layout->leaves[sel->leaves[i]];
    const struct esp_place *place = esp_layout_place(layout, leaf);
    edit->marks[leaf->param]++;
    lines += 1 + (place->leaves_len > 1) + place->frozen + (place->timer != 0) + leaf->detached + (*leaf->tag != '\0');
  }
  size_t orphans = 0;
  for (size_t i = 0; i < sel->len; i++) {
    uint32_t param = layout->leaves[sel->leaves[i]].param;
    const struct esp_place *place = &layout->params[param];
    orphans += place->primary == sel->leaves[i] && edit->marks[param] < place->leaves_len;
  }
  *ret_lines = lines;
  return orphans;
}

static bool reserve(struct esp_edit *edit, const struct esp_selection *sel) {
  struct esp_layout *layout = edit->layout;
  size_t lines;
  size_t orphans = count(edit, sel, &lines);
  return esp_edit_reserve_kept(edit, orphans) && esp_edit_reserve_changes(edit, orphans + lines) &&
         esp_edit_lengthen(&layout->removed, layout->removed_len + sel->len, sizeof *layout->removed) &&
         esp_edit_lengthen(&layout->gone, layout->gone_len + sel->len, sizeof *layout->gone);
}

/* Counts a leaf out. Its parameter's primary leaf is left to others, if it was that. */
static void count_out(struct esp_edit *edit, uint32_t index) {
  struct esp_layout *layout = edit->layout;
  const struct esp_leaf *leaf = &layout->leaves[index];
  struct esp_place *place = &layout->params[leaf->param];
  uint64_t elements = 0;
  uint64_t bytes = 0;
  ESP_CHECK(esp_shape_bytes(&place->shape, place->dtype, &elements, &bytes, NULL) == ESP_OK);
  layout->leaf_bytes -= bytes;
  layout->trained_len -= leaf->kind == ESP_KIND_TRAINED;
  layout->frozen_len -= place->frozen;
  layout->detached_len -= leaf->detached;
  layout->by_id[leaf->id] = 0;
  layout->gone_bytes += bytes;
  layout->gone[layout->gone_len++] =
      (struct esp_leaf_gone){.id = leaf->id, .epoch = layout->epoch, .bytes = bytes, .dtype = place->dtype};
  if (place->primary == index && place->leaves_len > 1) {
    place->primary = NO_LEAF;
    if (edit->marks[leaf->param] != 0) {
      esp_edit_keep_group(edit, leaf->param, leaf->path);
    }
  }
  esp_edit_unbind(edit, leaf->param);
}

/* Closes the leaves up over those that are selected. */
static void close_up(struct esp_layout *layout, const struct esp_selection *sel) {
  size_t next = 0;
  uint32_t to = 0;
  for (uint32_t i = 0; i < layout->leaves_len; i++) {
    if (next < sel->len && sel->leaves[next] == i) {
      next++;
      continue;
    }
    const struct esp_leaf *leaf = &layout->leaves[i];
    struct esp_place *place = &layout->params[leaf->param];
    if (place->primary == i || place->primary == NO_LEAF) {
      place->primary = to; /* not after i, so no leaf that is still to come is taken for it */
    }
    layout->by_id[leaf->id] = to + 1;
    layout->leaves[to++] = *leaf;
  }
  layout->leaves_len = to;
}

static bool remove_leaves(struct esp_edit *edit, const struct esp_selection *sel) {
  if (!esp_edit_own(edit) || !reserve(edit, sel)) {
    return false;
  }
  struct esp_layout *layout = edit->layout;
  for (size_t i = 0; i < sel->len; i++) {
    const struct esp_leaf *leaf = &layout->leaves[sel->leaves[i]];
    const struct esp_place *place = esp_layout_place(layout, leaf);
    bool stays = edit->marks[leaf->param] < place->leaves_len;
    if (!note_leaf(edit, leaf) || (stays && !note_binding(edit, leaf))) {
      return false;
    }
  }
  for (size_t i = 0; i < layout->params_len; i++) { /* from here on: whether the parameter stays */
    edit->marks[i] = edit->marks[i] < layout->params[i].leaves_len;
  }
  for (size_t i = 0; i < sel->len; i++) {
    count_out(edit, sel->leaves[i]);
  }
  qsort(layout->gone, layout->gone_len, sizeof *layout->gone, esp_gone_compare);
  removed_add(layout, sel);
  close_up(layout, sel);
  edit->ring_len = 0;
  edit->changed = true;
  return true;
}

enum esp_code esp_edit_remove(struct esp_edit *edit, const struct esp_selection *sel, struct esp_status *st) {
  esp_edit_settle(edit); /* also where nothing is selected: what is written never depends on how much was */
  if (sel->len == 0) {
    return ESP_OK;
  }
  if (!remove_leaves(edit, sel)) {
    return esp_edit_failed(edit, esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory to remove %zu leaves", sel->len));
  }
  esp_edit_settle(edit);
  return ESP_OK;
}
