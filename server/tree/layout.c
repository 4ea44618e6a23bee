/* Layouts: making the first one, copying, counting references, looking things up.
 *
 * A layout that was published is never changed. It holds one reference to its names, one to the list of its parameters'
 * storages and one to each group's optimizer; whoever drops the last reference to the layout drops those, on any
 * thread. The list has the references to the storages, so that a layout which differs in flags only touches none of
 * them.
 *
 * Only making one can fail: INVALID_ARGUMENT for its groups, RESOURCE_EXHAUSTED without memory. */
#include <espalier/status.h>

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tree/tree_internal.h"

void esp_object_ref(struct esp_object *object) {
  if (object) {
    atomic_fetch_add_explicit(&object->refs, 1, memory_order_relaxed);
  }
}

void esp_object_unref(struct esp_object *object) {
  if (object && atomic_fetch_sub_explicit(&object->refs, 1, memory_order_acq_rel) == 1) {
    object->destroy(object);
  }
}

char *esp_text_block_new(struct esp_text_block **list, size_t bytes) {
  struct esp_text_block *block = esp_malloc(sizeof *block + bytes);
  if (!block) {
    return NULL;
  }
  block->next = *list;
  *list = block;
  return block->bytes;
}

void esp_text_blocks_free(struct esp_text_block *list) {
  while (list) {
    struct esp_text_block *next = list->next;
    esp_free(list);
    list = next;
  }
}

struct esp_storages {
  _Atomic uint64_t refs;
  size_t len;
  struct esp_object *held[]; /* one reference each; NULL is fine */
};

static struct esp_storages *storages_ref(struct esp_storages *storages) {
  if (storages) {
    atomic_fetch_add_explicit(&storages->refs, 1, memory_order_relaxed);
  }
  return storages;
}

static void storages_unref(struct esp_storages *storages) {
  if (!storages || atomic_fetch_sub_explicit(&storages->refs, 1, memory_order_acq_rel) != 1) {
    return;
  }
  for (size_t i = 0; i < storages->len; i++) {
    esp_object_unref(storages->held[i]);
  }
  esp_free(storages);
}

bool esp_layout_hold(struct esp_layout *layout, uint64_t param_id_next) {
  struct esp_storages *storages =
      esp_malloc(sizeof *storages + layout->params_len * sizeof *storages->held); /* params_len fits 32 bits */
  if (!storages) {
    return false;
  }
  atomic_init(&storages->refs, 1);
  storages->len = layout->params_len;
  for (size_t i = 0; i < layout->params_len; i++) {
    storages->held[i] = layout->params[i].storage;
    if (layout->params[i].id < param_id_next) {
      esp_object_ref(storages->held[i]);
    }
  }
  storages_unref(layout->storages);
  layout->storages = storages;
  return true;
}

struct esp_names *esp_names_ref(struct esp_names *names) {
  atomic_fetch_add_explicit(&names->refs, 1, memory_order_relaxed);
  return names;
}

void esp_names_unref(struct esp_names *names) {
  if (names && atomic_fetch_sub_explicit(&names->refs, 1, memory_order_acq_rel) == 1) {
    esp_text_blocks_free(names->blocks);
    esp_free(names);
  }
}

struct esp_layout *esp_layout_ref(struct esp_layout *layout) {
  atomic_fetch_add_explicit(&layout->refs, 1, memory_order_relaxed);
  return layout;
}

void esp_layout_unref(struct esp_layout *layout) {
  if (!layout || atomic_fetch_sub_explicit(&layout->refs, 1, memory_order_acq_rel) != 1) {
    return;
  }
  for (size_t i = 0; i < layout->groups_len; i++) {
    esp_object_unref(layout->groups[i].optim);
  }
  esp_free(layout->leaves);
  esp_free(layout->params);
  esp_free(layout->by_id);
  esp_free(layout->groups);
  esp_free(layout->assignments);
  esp_free(layout->tags);
  esp_free(layout->selections);
  esp_free(layout->removed);
  esp_free(layout->gone);
  esp_free(layout->timers);
  esp_names_unref(layout->names);
  storages_unref(layout->storages);
  esp_free(layout);
}

static int group_compare(const void *a, const void *b) {
  return strcmp(((const struct esp_group *)a)->name, ((const struct esp_group *)b)->name);
}

/* Names are valid, unique, and one of them is "default". */
static enum esp_code groups_check(const struct esp_group *groups, size_t groups_len, struct esp_status *st) {
  bool has_default = false;
  for (size_t i = 0; i < groups_len; i++) {
    enum esp_code code = esp_name_check("group", groups[i].name, st);
    if (code != ESP_OK) {
      return code;
    }
    has_default = has_default || strcmp(groups[i].name, ESP_GROUP_DEFAULT) == 0;
    for (size_t other = 0; other < i; other++) {
      if (strcmp(groups[other].name, groups[i].name) == 0) {
        return esp_fail(st, ESP_INVALID_ARGUMENT, "group \"%s\" is defined twice", groups[i].name);
      }
    }
  }
  return has_default ? ESP_OK : esp_fail(st, ESP_INVALID_ARGUMENT, "no group is called \"%s\"", ESP_GROUP_DEFAULT);
}

/* Copies a string with its NUL to *at, moves *at behind it, and returns the copy. */
static const char *text_put(char **at, const char *text) {
  size_t size = strlen(text) + 1;
  char *copy = memcpy(*at, text, size);
  *at += size;
  return copy;
}

/* Fills layout->groups, sorted by name, with strings in the layout's names. */
static bool groups_copy(struct esp_layout *layout, const struct esp_group *groups, size_t groups_len) {
  size_t bytes = 0;
  for (size_t i = 0; i < groups_len; i++) {
    bytes += strlen(groups[i].name) + strlen(groups[i].expression) + 2;
  }
  char *at = esp_text_block_new(&layout->names->blocks, bytes);
  layout->groups = esp_malloc_array(groups_len, sizeof *groups);
  if (!at || !layout->groups) {
    return false;
  }
  for (size_t i = 0; i < groups_len; i++) {
    layout->groups[i].name = text_put(&at, groups[i].name);
    layout->groups[i].expression = text_put(&at, groups[i].expression);
    layout->groups[i].optim = groups[i].optim;
    esp_object_ref(groups[i].optim);
  }
  layout->groups_len = groups_len;
  qsort(layout->groups, groups_len, sizeof *groups, group_compare);
  return true;
}

enum esp_code esp_layout_new(const struct esp_group *groups, size_t groups_len, struct esp_layout **ret,
                             struct esp_status *st) {
  enum esp_code code = groups_check(groups, groups_len, st);
  if (code != ESP_OK) {
    return code;
  }
  struct esp_layout *layout = esp_calloc(1, sizeof *layout);
  if (!layout) {
    goto fail;
  }
  atomic_init(&layout->refs, 1);
  layout->epoch = 1;
  layout->leaf_id_next = 1;
  layout->param_id_next = 1;
  layout->timer_id_next = 1;
  esp_timers_due_find(layout);
  layout->names = esp_calloc(1, sizeof *layout->names);
  if (!layout->names) {
    goto fail;
  }
  atomic_init(&layout->names->refs, 1);
  layout->assignments = esp_malloc(sizeof *layout->assignments);
  if (!layout->assignments || !groups_copy(layout, groups, groups_len)) {
    goto fail;
  }
  layout->assignments[0] = (struct esp_assignment){.node = "", .node_len = 0, .group = ESP_GROUP_DEFAULT};
  layout->assignments_len = 1;
  *ret = layout;
  return ESP_OK;
fail:
  esp_layout_unref(layout);
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a tree");
}

/* A copy of an array of len elements in *ret; false without memory. An empty one is NULL. */
static bool array_copy(const void *array, size_t len, size_t size, void *ret) {
  void *copy = NULL;
  if (len > 0) {
    copy = esp_malloc_array(len, size);
    if (!copy) {
      return false;
    }
    memcpy(copy, array, len * size);
  }
  memcpy(ret, &copy, sizeof copy);
  return true;
}

struct esp_layout *esp_layout_copy(const struct esp_layout *base) {
  struct esp_layout *layout = esp_calloc(1, sizeof *layout);
  if (!layout) {
    return NULL;
  }
  atomic_init(&layout->refs, 1);
  layout->epoch = base->epoch;
  layout->names = esp_names_ref(base->names);
  layout->storages = storages_ref(base->storages);
  layout->leaf_id_next = base->leaf_id_next;
  layout->param_id_next = base->param_id_next;
  layout->timer_id_next = base->timer_id_next;
  memcpy(layout->timers_due, base->timers_due, sizeof layout->timers_due);
  layout->trained_len = base->trained_len;
  layout->frozen_len = base->frozen_len;
  layout->detached_len = base->detached_len;
  layout->elements = base->elements;
  layout->leaf_bytes = base->leaf_bytes;
  if (!array_copy(base->leaves, base->leaves_len, sizeof *base->leaves, &layout->leaves) ||
      !array_copy(base->params, base->params_len, sizeof *base->params, &layout->params) ||
      !array_copy(base->by_id, base->by_id_len, sizeof *base->by_id, &layout->by_id) ||
      !array_copy(base->groups, base->groups_len, sizeof *base->groups, &layout->groups) ||
      !array_copy(base->assignments, base->assignments_len, sizeof *base->assignments, &layout->assignments) ||
      !array_copy(base->tags, base->tags_len, sizeof *base->tags, &layout->tags) ||
      !array_copy(base->selections, base->selections_len, sizeof *base->selections, &layout->selections) ||
      !array_copy(base->removed, base->removed_len, sizeof *base->removed, &layout->removed) ||
      !array_copy(base->gone, base->gone_len, sizeof *base->gone, &layout->gone) ||
      !array_copy(base->timers, base->timers_len, sizeof *base->timers, &layout->timers)) {
    esp_layout_unref(layout);
    return NULL;
  }
  layout->leaves_len = base->leaves_len;
  layout->params_len = base->params_len;
  layout->by_id_len = base->by_id_len;
  layout->groups_len = base->groups_len;
  layout->assignments_len = base->assignments_len;
  layout->tags_len = base->tags_len;
  layout->selections_len = base->selections_len;
  layout->removed_len = base->removed_len;
  layout->gone_len = base->gone_len;
  layout->gone_bytes = base->gone_bytes;
  layout->timers_len = base->timers_len;
  for (size_t i = 0; i < layout->groups_len; i++) {
    esp_object_ref(layout->groups[i].optim);
  }
  return layout;
}

const struct esp_leaf *esp_layout_leaf_by_id(const struct esp_layout *layout, uint64_t id) {
  return id < layout->by_id_len && layout->by_id[id] != 0 ? &layout->leaves[layout->by_id[id] - 1] : NULL;
}

int esp_gone_compare(const void *a, const void *b) {
  const struct esp_leaf_gone *x = a;
  const struct esp_leaf_gone *y = b;
  return x->id < y->id ? -1 : x->id > y->id;
}

const struct esp_leaf_gone *esp_layout_gone_by_id(const struct esp_layout *layout, uint64_t id) {
  const struct esp_leaf_gone key = {.id = id};
  return layout->gone_len == 0 ? NULL
                               : bsearch(&key, layout->gone, layout->gone_len, sizeof *layout->gone, esp_gone_compare);
}

size_t esp_layout_lower_bound(const struct esp_layout *layout, const char *path, size_t len) {
  size_t low = 0;
  size_t high = layout->leaves_len;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const struct esp_leaf *leaf = &layout->leaves[middle];
    if (esp_path_compare(leaf->path, leaf->path_len, path, len) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

const struct esp_leaf *esp_layout_leaf_by_path(const struct esp_layout *layout, const char *path, size_t len) {
  size_t at = esp_layout_lower_bound(layout, path, len);
  if (at == layout->leaves_len) {
    return NULL;
  }
  const struct esp_leaf *leaf = &layout->leaves[at];
  return leaf->path_len == len && memcmp(leaf->path, path, len) == 0 ? leaf : NULL;
}

void esp_layout_range(const struct esp_layout *layout, const char *node, size_t node_len, size_t *ret_first,
                      size_t *ret_len) {
  size_t first = esp_layout_lower_bound(layout, node, node_len);
  size_t low = first;
  size_t high = layout->leaves_len;
  while (low < high) { /* what is within the node comes before what is not */
    size_t middle = low + (high - low) / 2;
    if (esp_path_within(layout->leaves[middle].path, layout->leaves[middle].path_len, node, node_len)) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  *ret_first = first;
  *ret_len = low - first;
}

const struct esp_place *esp_layout_place(const struct esp_layout *layout, const struct esp_leaf *leaf) {
  ESP_CHECK(leaf->param < layout->params_len);
  return &layout->params[leaf->param];
}

struct esp_shape esp_layout_shape(const struct esp_layout *layout, const struct esp_leaf *leaf) {
  struct esp_shape shape = esp_layout_place(layout, leaf)->shape;
  if (leaf->view == ESP_VIEW_TRANSPOSE) {
    uint64_t rows = shape.dims[0];
    shape.dims[0] = shape.dims[1];
    shape.dims[1] = rows;
  }
  return shape;
}

const struct esp_group *esp_layout_group(const struct esp_layout *layout, const char *name) {
  const struct esp_group key = {.name = name};
  return bsearch(&key, layout->groups, layout->groups_len, sizeof *layout->groups, group_compare);
}

const struct esp_group *esp_layout_group_of(const struct esp_layout *layout, const struct esp_leaf *leaf) {
  return &layout->groups[esp_layout_place(layout, leaf)->group];
}
