/* What changes of an edit leave to be done, and doing it, once for many of them.
 *
 *     assign, tag, ... collect -------------------------> merge
 *     tie, untie, remove, rename change bindings -------> parameters in order; those that nobody is bound to go
 *     and note parameters whose groups are to stay -----> groups resolved, with assignments for those
 *
 * A tie does not move any other leaf, so thousands in one edit are settled by one walk. All memory was taken by whoever
 * left the work, so nothing here fails. */
#include <espalier/status.h>

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tree/tree_internal.h"

bool esp_edit_reserve_kept(struct esp_edit *edit, size_t n) {
  return esp_edit_reserve_groups(edit, n) &&
         esp_grow((void **)&edit->kept, &edit->kept_capacity, edit->kept_len + n, sizeof *edit->kept);
}

void esp_edit_keep_group(struct esp_edit *edit, uint32_t param, const char *because) {
  ESP_CHECK(edit->kept_len < edit->kept_capacity && edit->layout->params[param].group_assigned);
  edit->kept[edit->kept_len++] = (struct esp_kept){.param = param, .because = because};
}

void esp_edit_unbind(struct esp_edit *edit, uint32_t param) {
  struct esp_place *place = &edit->layout->params[param];
  ESP_CHECK(place->leaves_len > 0);
  edit->params_stale = true;
  if (--place->leaves_len > 0) {
    return;
  }
  uint64_t elements = 0;
  uint64_t bytes = 0;
  ESP_CHECK(esp_shape_bytes(&place->shape, place->dtype, &elements, &bytes, NULL) == ESP_OK);
  edit->layout->elements -= elements;
  edit->timers_stale = edit->timers_stale || place->timer != 0;
  if (place->id >= edit->base->param_id_next) { /* others are held by base */
    esp_object_unref(place->storage);
  }
  place->storage = NULL;
  edit->storages_stale = true;
}

/* Each parameter's place in the order of primary leaves, those that nobody is bound to behind all others: how many are
 * before those. */
static size_t order_find(const struct esp_layout *layout, uint32_t *order) {
  uint32_t next = 0;
  for (size_t i = 0; i < layout->leaves_len; i++) {
    uint32_t param = layout->leaves[i].param;
    if (layout->params[param].primary == i) {
      order[param] = next++;
    }
  }
  size_t live = next;
  for (size_t i = 0; i < layout->params_len; i++) {
    if (layout->params[i].leaves_len == 0) {
      order[i] = next++;
    }
  }
  ESP_CHECK(next == layout->params_len);
  return live;
}

static void params_sort(struct esp_edit *edit) {
  struct esp_layout *layout = edit->layout;
  uint32_t *order = edit->marks;
  size_t live = order_find(layout, order);
  for (size_t i = 0; i < layout->leaves_len; i++) {
    layout->leaves[i].param = order[layout->leaves[i].param];
  }
  size_t kept_len = 0;
  for (size_t i = 0; i < edit->kept_len; i++) {
    struct esp_kept kept = edit->kept[i];
    kept.param = order[kept.param];
    if (kept.param < live) {
      edit->kept[kept_len++] = kept;
    }
  }
  edit->kept_len = kept_len;
  for (uint32_t i = 0; i < layout->params_len; i++) {
    while (order[i] != i) { /* what is here goes where it belongs, and what was there comes here */
      uint32_t to = order[i];
      struct esp_place place = layout->params[to];
      layout->params[to] = layout->params[i];
      layout->params[i] = place;
      order[i] = order[to];
      order[to] = to;
    }
  }
  layout->params_len = live;
}

static void groups_resolve(struct esp_edit *edit) {
  struct esp_layout *layout = edit->layout;
  uint32_t *marks = edit->marks;
  for (size_t i = 0; i < layout->params_len; i++) {
    marks[i] = 0;
  }
  for (size_t i = 0; i < edit->kept_len; i++) {
    marks[edit->kept[i].param] = (uint32_t)i + 1;
  }
  edit->kept_len = 0; /* their room is that of what they make pending */
  esp_groups_resolve(edit, marks);
  esp_edit_merge_groups(edit);
  for (size_t i = 0; i < layout->leaves_len; i++) {
    struct esp_leaf *leaf = &layout->leaves[i];
    leaf->changed_epoch = marks[leaf->param] == ESP_MARK_CHANGED ? layout->epoch : leaf->changed_epoch;
  }
}

void esp_edit_settle(struct esp_edit *edit) {
  if (!edit->layout) {
    return;
  }
  esp_edit_merge_groups(edit);
  esp_edit_merge_tags(edit);
  if (edit->params_stale) {
    params_sort(edit);
    edit->params_stale = false;
  }
  if (edit->groups_stale || edit->kept_len > 0) {
    groups_resolve(edit);
    edit->groups_stale = false;
  }
  if (edit->timers_stale) {
    esp_edit_drop_timers(edit);
  }
}

void esp_edit_settle_groups(struct esp_edit *edit) {
  if (edit->groups_stale || edit->groups.len > 0 || edit->tags.len > 0) {
    esp_edit_settle(edit);
  }
}
