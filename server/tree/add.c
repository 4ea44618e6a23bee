/* Adding leaves: esp_edit_add.
 *
 * Everything is checked before anything changes: each leaf by itself; then, in path order, each against its
 * neighbours in the batch and in the tree (what lies below a leaf comes right after it in path order, so looking at
 * neighbours finds every conflict). Then memory is taken for all of it; then new leaves are merged into the sorted
 * arrays from the back, in place. For n leaves in the tree and m in the batch that is n + m log m.
 *
 * It fails with INVALID_ARGUMENT naming the leaf, FAILED_PRECONDITION for one that was removed, or RESOURCE_EXHAUSTED.
 */
#include <espalier/status.h>

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tree/tree_internal.h"

#define LEAVES_MAX (UINT32_MAX - 1u) /* by_id holds an index + 1 */
#define BYTES_MAX (UINT64_C(1) << 62)

/* A leaf of the batch that the tree lacks. */
struct fresh {
  uint32_t index; /* in the batch */
  uint32_t at;    /* leaves of the tree that come before it */
};

struct adding {
  struct esp_edit *edit;            /* borrowed */
  const struct esp_leaf_new *batch; /* borrowed */
  size_t len;                       /* of the batch */
  bool in_order;                    /* all are new, and lines of the diff are in the order of the batch */
  struct esp_sort_item *items;      /* the batch in path order, then room to sort in */
  uint32_t *joined;                 /* by place in the batch: the index of the leaf in the tree + 1, or 0 */
  struct fresh *fresh;              /* in path order */
  size_t fresh_len;                 /* used */
  uint64_t bytes;                   /* of the tree with the new leaves */
  uint64_t elements;                /* of the new leaves */
  size_t groups_len;                /* new leaves that come with a group */
  size_t text_bytes;                /* of the new leaves' strings, at most */
  uint32_t *remap;                  /* the new index of each of the tree's parameters */
  char *text_end;                   /* strings are put in front of this one, from the back to the front */
  const char *tag;                  /* the last one put there */
  const char *group;                /* likewise */
};

static void adding_done(struct adding *add) {
  esp_free(add->items);
  esp_free(add->joined);
  esp_free(add->fresh);
  esp_free(add->remap);
}

static enum esp_code no_memory(const struct adding *add, struct esp_status *st) {
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory to declare %zu leaves", add->len);
}

/* INVALID_ARGUMENT: `leaf "a.b"`, what, detail. */
static enum esp_code leaf_fail(struct esp_status *st, const char *path, size_t len, const char *what,
                               const char *detail) {
  char text[ESP_PATH_TEXT_MAX];
  return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf \"%s\"%s%s", esp_path_print(path, len, text, sizeof text), what,
                  detail);
}

/* What the leaf says of itself. */
static enum esp_code leaf_check(const struct esp_leaf_new *leaf, struct esp_status *st) {
  enum esp_code code = esp_path_check(leaf->path, leaf->path_len, st);
  if (code != ESP_OK) {
    return code;
  }
  struct esp_status why;
  uint64_t elements;
  uint64_t bytes;
  if (esp_dtype_size(leaf->dtype) == 0) {
    return leaf_fail(st, leaf->path, leaf->path_len, " has no dtype that is known", "");
  }
  if (leaf->kind != ESP_KIND_TRAINED && leaf->kind != ESP_KIND_BUFFER) {
    return leaf_fail(st, leaf->path, leaf->path_len, " is neither trained nor a buffer", "");
  }
  if (esp_shape_bytes(&leaf->shape, leaf->dtype, &elements, &bytes, &why) != ESP_OK ||
      (*leaf->tag && esp_name_check("tag", leaf->tag, &why) != ESP_OK) ||
      (*leaf->group && esp_name_check("group", leaf->group, &why) != ESP_OK)) {
    return leaf_fail(st, leaf->path, leaf->path_len, ": ", why.message);
  }
  return ESP_OK;
}

/* Checks each leaf by itself and sorts the batch. */
static enum esp_code adding_sort(struct adding *add, struct esp_status *st) {
  if (add->len > LEAVES_MAX) {
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "%zu leaves are more than a tree holds", add->len);
  }
  add->items = esp_malloc_array(add->len, 2 * sizeof *add->items);
  add->joined = esp_calloc(add->len, sizeof *add->joined);
  add->fresh = esp_malloc_array(add->len, sizeof *add->fresh);
  if (!add->items || !add->joined || !add->fresh) {
    return no_memory(add, st);
  }
  for (size_t i = 0; i < add->len; i++) {
    enum esp_code code = leaf_check(&add->batch[i], st);
    if (code != ESP_OK) {
      return code;
    }
    add->items[i] = (struct esp_sort_item){
        .path = add->batch[i].path, .path_len = (uint32_t)add->batch[i].path_len, .index = (uint32_t)i};
  }
  esp_sort_paths(add->items, add->items + add->len, add->len);
  return ESP_OK;
}

/* where: "below" or "above". */
static enum esp_code leaf_conflict(const struct esp_sort_item *item, const char *where, const char *other,
                                   size_t other_len, struct esp_status *st) {
  char text[2][ESP_PATH_TEXT_MAX];
  return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf \"%s\" would lie %s \"%s\", which is a leaf too",
                  esp_path_print(item->path, item->path_len, text[0], sizeof text[0]), where,
                  esp_path_print(other, other_len, text[1], sizeof text[1]));
}

static const char *kind_name(enum esp_kind kind) {
  return kind == ESP_KIND_BUFFER ? " buffer" : "";
}

/* A leaf that is there already has to be the same. */
static enum esp_code leaf_join(const struct adding *add, const struct esp_leaf *leaf, const struct esp_leaf_new *other,
                               struct esp_status *st) {
  const struct esp_place *place = esp_layout_place(esp_edit_now(add->edit), leaf);
  struct esp_shape shape = esp_layout_shape(esp_edit_now(add->edit), leaf);
  if (esp_shape_equal(&shape, &other->shape) && place->dtype == other->dtype && leaf->kind == other->kind) {
    return ESP_OK;
  }
  char path[ESP_PATH_TEXT_MAX];
  char text[2][ESP_SHAPE_TEXT_MAX];
  return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf \"%s\" is %s %s%s, and is declared as %s %s%s",
                  esp_path_print(leaf->path, leaf->path_len, path, sizeof path), esp_dtype_name(place->dtype),
                  esp_shape_print(&shape, text[0]), kind_name(leaf->kind), esp_dtype_name(other->dtype),
                  esp_shape_print(&other->shape, text[1]), kind_name(other->kind));
}

static enum esp_code fresh_note(struct adding *add, const struct esp_sort_item *item, size_t at,
                                struct esp_status *st) {
  const struct esp_layout *layout = esp_edit_now(add->edit);
  const struct esp_leaf *before = at > 0 ? &layout->leaves[at - 1] : NULL;
  const struct esp_leaf *after = at < layout->leaves_len ? &layout->leaves[at] : NULL;
  if (before && esp_path_within(item->path, item->path_len, before->path, before->path_len)) {
    return leaf_conflict(item, "below", before->path, before->path_len, st);
  }
  if (after && esp_path_within(after->path, after->path_len, item->path, item->path_len)) {
    return leaf_conflict(item, "above", after->path, after->path_len, st);
  }
  const struct esp_leaf_new *leaf = &add->batch[item->index];
  if (!leaf->again && esp_layout_is_removed(layout, item->path, item->path_len)) {
    char text[ESP_PATH_TEXT_MAX];
    return esp_fail(st, ESP_FAILED_PRECONDITION, "leaf \"%s\" was removed: it does not come back by being declared",
                    esp_path_print(item->path, item->path_len, text, sizeof text));
  }
  uint64_t elements = 0;
  uint64_t bytes = 0;
  ESP_CHECK(esp_shape_bytes(&leaf->shape, leaf->dtype, &elements, &bytes, NULL) == ESP_OK);
  add->elements += elements;
  add->bytes += bytes;
  if (add->bytes > BYTES_MAX || layout->leaves_len + add->fresh_len >= LEAVES_MAX) {
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "the tree would have more than %u leaves or 2^62 bytes", LEAVES_MAX);
  }
  add->groups_len += *leaf->group != '\0';
  add->text_bytes += leaf->path_len + strlen(leaf->tag) + strlen(leaf->group) + 3;
  add->fresh[add->fresh_len++] = (struct fresh){.index = item->index, .at = (uint32_t)at};
  return ESP_OK;
}

/* Walks the batch and the tree side by side: which leaves are new, and is there anything against them? */
static enum esp_code adding_match(struct adding *add, struct esp_status *st) {
  const struct esp_layout *layout = esp_edit_now(add->edit);
  size_t at = 0;
  for (size_t i = 0; i < add->len; i++) {
    const struct esp_sort_item *item = &add->items[i];
    const struct esp_sort_item *last = i > 0 ? item - 1 : NULL;
    if (last && esp_path_within(item->path, item->path_len, last->path, last->path_len)) {
      return last->path_len == item->path_len ? leaf_fail(st, item->path, item->path_len, " is declared twice", "")
                                              : leaf_conflict(item, "below", last->path, last->path_len, st);
    }
    int order = 1;
    while (at < layout->leaves_len && (order = esp_path_compare(layout->leaves[at].path, layout->leaves[at].path_len,
                                                                item->path, item->path_len)) < 0) {
      at++;
    }
    enum esp_code code;
    if (at < layout->leaves_len && order == 0) {
      add->joined[item->index] = (uint32_t)at + 1;
      code = leaf_join(add, &layout->leaves[at], &add->batch[item->index], st);
    } else {
      code = fresh_note(add, item, at, st);
    }
    if (code != ESP_OK) {
      return code;
    }
  }
  return ESP_OK;
}

/* The line of the diff of a new leaf. */
static struct esp_change *line_of(const struct adding *add, size_t fresh) {
  return &add->edit->changes[add->edit->changes_len + (add->in_order ? add->fresh[fresh].index : fresh)];
}

/* The lines of the diff, all but the paths. */
static bool lines_prepare(struct adding *add) {
  struct esp_edit *edit = add->edit;
  for (size_t i = 0; i < add->fresh_len; i++) {
    const struct esp_leaf_new *leaf = &add->batch[add->fresh[i].index];
    const char *to = esp_edit_leaf_text(edit, &leaf->shape, leaf->dtype, leaf->kind);
    if (!to) {
      return false;
    }
    *line_of(add, i) = (struct esp_change){.field = "leaf", .from = "", .to = to, .because = ""};
  }
  return true;
}

/* All the memory that merging takes. */
static bool merge_prepare(struct adding *add) {
  struct esp_edit *edit = add->edit;
  if (!esp_edit_own(edit) || !esp_edit_reserve_groups(edit, add->groups_len) ||
      !esp_edit_reserve_changes(edit, add->groups_len + add->fresh_len) ||
      !esp_grow((void **)&edit->marks, &edit->marks_capacity, edit->layout->params_len + add->fresh_len,
                sizeof *edit->marks)) {
    return false;
  }
  struct esp_layout *layout = edit->layout;
  char *text = esp_text_block_new(&edit->texts, add->text_bytes);
  add->text_end = text ? text + add->text_bytes : NULL;
  add->remap = esp_malloc_array(layout->params_len, sizeof *add->remap);
  return text && add->remap && lines_prepare(add) &&
         esp_edit_lengthen(&layout->leaves, layout->leaves_len + add->fresh_len, sizeof *layout->leaves) &&
         esp_edit_lengthen(&layout->params, layout->params_len + add->fresh_len, sizeof *layout->params) &&
         esp_edit_lengthen(&layout->by_id, layout->leaf_id_next + add->fresh_len, sizeof *layout->by_id);
}

static const char *text_put(struct adding *add, const char *text, size_t len) {
  add->text_end -= len + 1;
  memcpy(add->text_end, text, len);
  add->text_end[len] = '\0';
  return add->text_end;
}

/* The same, but neighbours share a tag or group. */
static const char *text_put_again(struct adding *add, const char *text, const char **last) {
  if (!*last || strcmp(*last, text) != 0) {
    *last = *text ? text_put(add, text, strlen(text)) : "";
  }
  return *last;
}

/* Puts the new leaf at index `at` of leaves and its parameter at index `param`. */
static void fresh_put(struct adding *add, size_t fresh, size_t at, size_t param, uint64_t id, uint64_t param_id) {
  struct esp_edit *edit = add->edit;
  struct esp_layout *layout = edit->layout;
  const struct esp_leaf_new *leaf = &add->batch[add->fresh[fresh].index];
  const char *path = text_put(add, leaf->path, leaf->path_len);
  layout->leaves[at] = (struct esp_leaf){.id = id,
                                         .path = path,
                                         .path_len = (uint32_t)leaf->path_len,
                                         .param = (uint32_t)param,
                                         .changed_epoch = layout->epoch,
                                         .path_epoch = layout->epoch,
                                         .tag = text_put_again(add, leaf->tag, &add->tag),
                                         .kind = leaf->kind,
                                         .view = ESP_VIEW_IDENTITY,
                                         .detached = leaf->detached && leaf->kind == ESP_KIND_TRAINED};
  layout->params[param] = (struct esp_place){.id = param_id,
                                             .primary = (uint32_t)at,
                                             .leaves_len = 1,
                                             .shape = leaf->shape,
                                             .dtype = leaf->dtype,
                                             .kind = leaf->kind,
                                             .frozen = leaf->frozen};
  struct esp_change *change = line_of(add, fresh);
  change->leaf_id = id;
  change->path = path;
  layout->trained_len += leaf->kind == ESP_KIND_TRAINED;
  layout->frozen_len += leaf->frozen;
  layout->detached_len += layout->leaves[at].detached;
  if (*leaf->group) {
    const char *group = text_put_again(add, leaf->group, &add->group);
    esp_pendings_add(&edit->groups, path, leaf->path_len, &(struct esp_pending){.text = group, .because = ""});
  }
}

/* Merges from the back, in place. ids: of the batch's leaves. Parameters are in the order of their primary leaves, so
 * their array is merged in the same walk. */
static void merge(struct adding *add, const uint64_t *ids) {
  struct esp_layout *layout = add->edit->layout;
  uint64_t id_first = layout->leaf_id_next;
  size_t fresh = add->fresh_len;
  size_t old = layout->leaves_len;
  size_t param = layout->params_len + fresh;
  while (old + fresh > 0) {
    size_t to = old + fresh - 1;
    if (fresh > 0 && add->fresh[fresh - 1].at == old) {
      uint64_t id = ids[add->fresh[fresh - 1].index];
      fresh_put(add, --fresh, to, --param, id, layout->param_id_next + (id - id_first));
      continue;
    }
    layout->leaves[to] = layout->leaves[--old];
    uint32_t param_old = layout->leaves[to].param;
    if (layout->params[param_old].primary == old) { /* not overwritten yet: primaries descend with the walk */
      add->remap[param_old] = (uint32_t)--param;
      layout->params[param] = layout->params[param_old];
      layout->params[param].primary = (uint32_t)to;
    }
  }
  ESP_CHECK(param == 0);
}

/* The rest of what follows from a merge. */
static void merge_finish(struct adding *add) {
  struct esp_edit *edit = add->edit;
  struct esp_layout *layout = edit->layout;
  uint64_t id_first = layout->leaf_id_next;
  layout->leaves_len += add->fresh_len;
  layout->params_len += add->fresh_len;
  layout->leaf_id_next += add->fresh_len;
  layout->param_id_next += add->fresh_len;
  layout->elements += add->elements;
  layout->leaf_bytes = add->bytes;
  layout->by_id_len = layout->leaf_id_next;
  memset(layout->by_id, 0, layout->by_id_len * sizeof *layout->by_id);
  for (size_t i = 0; i < layout->leaves_len; i++) {
    struct esp_leaf *leaf = &layout->leaves[i];
    leaf->param = leaf->id < id_first ? add->remap[leaf->param] : leaf->param;
    layout->by_id[leaf->id] = (uint32_t)i + 1;
  }
  edit->changes_len += add->fresh_len;
  esp_layout_forget_removed(layout);
  edit->ring_len = 0;
  edit->groups_stale = true;
  edit->changed = true;
}

/* New leaves have ids in the order of the batch, so that they are one run on the wire. */
static void ids_give(const struct adding *add, uint64_t *ret_ids, bool *ret_added) {
  const struct esp_layout *layout = esp_edit_now(add->edit);
  uint64_t id_next = layout->leaf_id_next;
  for (size_t i = 0; i < add->len; i++) {
    bool added = add->joined[i] == 0;
    ret_ids[i] = added ? id_next++ : layout->leaves[add->joined[i] - 1].id;
    if (ret_added) {
      ret_added[i] = added;
    }
  }
}

enum esp_code esp_edit_add(struct esp_edit *edit, const struct esp_leaf_new *leaves, size_t len, uint64_t *ret_ids,
                           bool *ret_added, struct esp_status *st) {
  if (len == 0) {
    return ESP_OK;
  }
  if (edit->params_stale) {
    esp_edit_settle(edit);
  }
  struct adding add = {.edit = edit, .batch = leaves, .len = len, .bytes = esp_edit_now(edit)->leaf_bytes};
  enum esp_code code = adding_sort(&add, st);
  code = code == ESP_OK ? adding_match(&add, st) : code;
  if (code == ESP_OK && add.fresh_len > 0 && !merge_prepare(&add)) {
    code = no_memory(&add, st);
  }
  if (code == ESP_OK) {
    ids_give(&add, ret_ids, ret_added);
  }
  if (code == ESP_OK && add.fresh_len > 0) {
    merge(&add, ret_ids);
    merge_finish(&add);
  }
  adding_done(&add);
  return esp_edit_failed(edit, code);
}

bool esp_edit_add_new(struct esp_edit *edit, const struct esp_leaf_new *leaves, size_t len, uint64_t *ret_ids) {
  if (edit->params_stale) {
    esp_edit_settle(edit);
  }
  struct adding add = {
      .edit = edit, .batch = leaves, .len = len, .in_order = true, .bytes = esp_edit_now(edit)->leaf_bytes};
  bool ok = adding_sort(&add, NULL) == ESP_OK && adding_match(&add, NULL) == ESP_OK && add.fresh_len == len &&
            merge_prepare(&add);
  if (ok) {
    ids_give(&add, ret_ids, NULL);
    merge(&add, ret_ids);
    merge_finish(&add);
  }
  adding_done(&add);
  return ok;
}
