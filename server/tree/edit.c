/* Edits: a transaction on a copy of a layout, and its diff.
 *
 * The copy is made when there is something to change, so an edit that changes nothing (a second worker that declares
 * the same leaves, a freeze of what is frozen) costs no copy. Each call appends to the diff. Finishing hands over
 * the copy as the layout of the next epoch, and the edit's strings to the names that all layouts of the tree share.
 *
 * base is never changed. A call that fails for its input leaves the copy as it was, one that fails for memory may not,
 * and either way the edit can't be finished: a transaction is applied as a whole or not at all. */
#include <espalier/status.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tree/tree_internal.h"

static void diff_memory_free(struct esp_diff_memory *memory) {
  if (memory) {
    esp_names_unref(memory->names);
    esp_arena_done(&memory->texts);
    esp_free(memory);
  }
}

void esp_diff_done(struct esp_diff *diff) {
  esp_free(diff->changes);
  esp_free(diff->timers);
  diff_memory_free(diff->memory);
  *diff = (struct esp_diff){0};
}

struct esp_edit *esp_edit_new(struct esp_layout *base) {
  struct esp_edit *edit = esp_calloc(1, sizeof *edit);
  if (!edit) {
    return NULL;
  }
  edit->memory = esp_calloc(1, sizeof *edit->memory);
  if (!edit->memory) {
    esp_free(edit);
    return NULL;
  }
  esp_arena_init(&edit->memory->texts, 0);
  edit->base = esp_layout_ref(base);
  return edit;
}

/* Lets go of the storages that were bound in this edit, which nobody else holds. */
static void storages_drop(struct esp_edit *edit) {
  const struct esp_layout *layout = edit->layout;
  for (size_t i = 0; layout && edit->storages_stale && i < layout->params_len; i++) {
    if (layout->params[i].id >= edit->base->param_id_next) {
      esp_object_unref(layout->params[i].storage);
    }
  }
}

void esp_edit_free(struct esp_edit *edit) {
  if (!edit) {
    return;
  }
  storages_drop(edit);
  esp_layout_unref(edit->layout);
  esp_layout_unref(edit->base);
  esp_text_blocks_free(edit->texts);
  esp_free(edit->changes);
  diff_memory_free(edit->memory);
  esp_free(edit->known);
  esp_pendings_done(&edit->groups);
  esp_pendings_done(&edit->tags);
  esp_free(edit->kept);
  esp_free(edit->marks);
  esp_free(edit->ring);
  esp_free(edit->formers);
  esp_free(edit);
}

const struct esp_layout *esp_edit_now(const struct esp_edit *edit) {
  return edit->layout ? edit->layout : edit->base;
}

bool esp_edit_own(struct esp_edit *edit) {
  if (!edit->layout) {
    edit->layout = esp_layout_copy(edit->base);
    if (!edit->layout) {
      return false;
    }
    edit->layout->epoch = edit->base->epoch + 1;
    edit->assignments_capacity = edit->layout->assignments_len;
    edit->tags_capacity = edit->layout->tags_len;
    edit->timers_capacity = edit->layout->timers_len;
  }
  return esp_grow((void **)&edit->marks, &edit->marks_capacity, edit->layout->params_len, sizeof *edit->marks);
}

bool esp_edit_reserve_changes(struct esp_edit *edit, size_t n) {
  return esp_grow((void **)&edit->changes, &edit->changes_capacity,
                  edit->changes_len + edit->groups.len + edit->tags.len + edit->kept_len + n, sizeof *edit->changes);
}

struct esp_change *esp_edit_add_change(struct esp_edit *edit, const struct esp_change *change) {
  ESP_CHECK(edit->changes_len < edit->changes_capacity);
  edit->changes[edit->changes_len] = *change;
  return &edit->changes[edit->changes_len++];
}

const char *esp_edit_text(struct esp_edit *edit, const char *text, size_t len) {
  char *copy = esp_text_block_new(&edit->texts, len + 1);
  if (copy) {
    memcpy(copy, text, len);
    copy[len] = '\0';
  }
  return copy;
}

const char *esp_edit_leaf_text(struct esp_edit *edit, const struct esp_shape *shape, enum esp_dtype dtype,
                               enum esp_kind kind) {
  if (!edit->known && !(edit->known = esp_calloc(ESP_KNOWN_LEN, sizeof *edit->known))) {
    return NULL;
  }
  uint64_t hash = (uint64_t)dtype * 2 + kind;
  for (unsigned i = 0; i < shape->rank; i++) {
    hash = (hash + shape->dims[i]) * UINT64_C(0x9e3779b97f4a7c15);
  }
  struct esp_known *slot = &edit->known[hash >> 32 & (ESP_KNOWN_LEN - 1)];
  if (!slot->text || slot->dtype != dtype || slot->kind != kind || !esp_shape_equal(&slot->shape, shape)) {
    char dims[ESP_SHAPE_TEXT_MAX];
    char text[ESP_SHAPE_TEXT_MAX + 16];
    int len = snprintf(text, sizeof text, "%s %s%s", esp_dtype_name(dtype), esp_shape_print(shape, dims),
                       kind == ESP_KIND_BUFFER ? " buffer" : "");
    *slot = (struct esp_known){.shape = *shape, .dtype = dtype, .kind = kind};
    slot->text = esp_arena_strndup(&edit->memory->texts, text, (size_t)len);
  }
  return slot->text;
}

bool esp_edit_lengthen(void *array, size_t len, size_t size) {
  void *old;
  memcpy(&old, array, sizeof old);
  size_t bytes;
  if (__builtin_mul_overflow(len, size, &bytes)) {
    return false;
  }
  void *new = esp_realloc(old, bytes);
  if (new) {
    memcpy(array, &new, sizeof new);
  }
  return new != NULL;
}

enum esp_code esp_edit_failed(struct esp_edit *edit, enum esp_code code) {
  edit->failed = edit->failed == ESP_OK ? code : edit->failed;
  return code;
}

/* The edit is the caller's, const or not; what is settled is what it would have been anyway. */
const struct esp_layout *esp_edit_view(const struct esp_edit *edit) {
  if (edit->layout) {
    esp_edit_settle((struct esp_edit *)edit);
  }
  return esp_edit_now(edit);
}

const struct esp_layout *esp_edit_peek(struct esp_edit *edit) {
  esp_edit_settle_groups(edit);
  return esp_edit_now(edit);
}

const struct esp_change *esp_edit_changes(const struct esp_edit *edit, size_t *ret_len) {
  (void)esp_edit_view(edit);
  *ret_len = edit->changes_len;
  return edit->changes;
}

void esp_edit_bind(struct esp_edit *edit, uint64_t leaf_id, struct esp_object *storage) {
  ESP_CHECK(edit->layout);
  const struct esp_leaf *leaf = esp_layout_leaf_by_id(edit->layout, leaf_id);
  ESP_CHECK(leaf);
  struct esp_place *place = &edit->layout->params[leaf->param];
  ESP_CHECK(!place->storage);
  place->storage = storage;
  edit->storages_stale = true;
}

/* Parameters that an operation on a selection changes: for each, the first selected leaf that is bound to it, plus 1,
 * or 0. */
struct marks {
  uint32_t *first; /* params_len, owned */
  size_t lines;    /* leaves bound to them: the diff's lines */
};

/* Marks the selected leaves' parameters: all, or those whose frozen flag is not `frozen`. Makes the copy and room in
 * the diff. */
static enum esp_code marks_init(struct marks *marks, struct esp_edit *edit, const struct esp_selection *sel, bool all,
                                bool frozen, struct esp_status *st) {
  *marks = (struct marks){0};
  if (esp_edit_own(edit)) {
    marks->first = esp_calloc(edit->layout->params_len, sizeof *marks->first);
  }
  if (!marks->first) {
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a change of %zu leaves", sel->len);
  }
  for (size_t i = 0; i < sel->len; i++) {
    ESP_CHECK(sel->leaves[i] < edit->layout->leaves_len);
    uint32_t param = edit->layout->leaves[sel->leaves[i]].param;
    const struct esp_place *place = &edit->layout->params[param];
    if (marks->first[param] == 0 && (all || place->frozen != frozen)) {
      marks->first[param] = sel->leaves[i] + 1;
      marks->lines += place->leaves_len;
    }
  }
  if (!esp_edit_reserve_changes(edit, marks->lines)) {
    esp_free(marks->first);
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a diff of %zu leaves", marks->lines);
  }
  return ESP_OK;
}

/* A line for each leaf that is bound to a marked parameter, in path order; those that are not selected say because. */
static void marks_note(const struct marks *marks, struct esp_edit *edit, const struct esp_selection *sel,
                       const struct esp_change *line) {
  const struct esp_layout *layout = edit->layout;
  size_t selected = 0;
  size_t len_before = edit->changes_len;
  for (size_t i = 0; i < layout->leaves_len; i++) {
    while (selected < sel->len && sel->leaves[selected] < i) {
      selected++;
    }
    const struct esp_leaf *leaf = &layout->leaves[i];
    uint32_t first = marks->first[leaf->param];
    if (first == 0) {
      continue;
    }
    struct esp_change *change = esp_edit_add_change(edit, line);
    change->leaf_id = leaf->id;
    change->path = leaf->path;
    change->because = selected < sel->len && sel->leaves[selected] == i ? "" : layout->leaves[first - 1].path;
  }
  ESP_CHECK(edit->changes_len - len_before == marks->lines);
  edit->changed = edit->changed || marks->lines > 0;
}

static bool any_differs(const struct esp_layout *layout, const struct esp_selection *sel, bool frozen) {
  for (size_t i = 0; i < sel->len; i++) {
    ESP_CHECK(sel->leaves[i] < layout->leaves_len);
    if (layout->params[layout->leaves[sel->leaves[i]].param].frozen != frozen) {
      return true;
    }
  }
  return false;
}

/* No parameter of the selected leaves is bound to another leaf: what is done to them takes no walk over the tree, so
 * that thousands of operations on a leaf each are no thousand walks. */
static bool are_alone(const struct esp_layout *layout, const struct esp_selection *sel) {
  bool alone = true;
  for (size_t i = 0; i < sel->len && alone; i++) {
    alone = layout->params[layout->leaves[sel->leaves[i]].param].leaves_len == 1;
  }
  return alone;
}

static void note_alone(struct esp_edit *edit, struct esp_leaf *leaf, const struct esp_change *line) {
  struct esp_change *change = esp_edit_add_change(edit, line);
  change->leaf_id = leaf->id;
  change->path = leaf->path;
  change->because = "";
  edit->changed = true;
}

/* Freezes the parameters of leaves that are alone; there is room in the diff. */
static void freeze_alone(struct esp_edit *edit, const struct esp_selection *sel, bool frozen) {
  const char *words[] = {"false", "true"};
  struct esp_layout *layout = edit->layout;
  for (size_t i = 0; i < sel->len; i++) {
    struct esp_leaf *leaf = &layout->leaves[sel->leaves[i]];
    struct esp_place *place = &layout->params[leaf->param];
    if (place->frozen == frozen) {
      continue;
    }
    note_alone(edit, leaf, &(struct esp_change){.field = "frozen", .from = words[!frozen], .to = words[frozen]});
    place->frozen = frozen;
    leaf->changed_epoch = layout->epoch;
    layout->frozen_len = frozen ? layout->frozen_len + 1 : layout->frozen_len - 1;
  }
}

enum esp_code esp_edit_freeze_only(struct esp_edit *edit, const struct esp_selection *sel, bool frozen,
                                   struct esp_status *st) {
  if (!any_differs(esp_edit_now(edit), sel, frozen)) {
    return ESP_OK;
  }
  if (are_alone(esp_edit_now(edit), sel)) {
    if (!esp_edit_own(edit) || !esp_edit_reserve_changes(edit, sel->len)) {
      return esp_edit_failed(edit,
                             esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a change of %zu leaves", sel->len));
    }
    freeze_alone(edit, sel, frozen);
    return ESP_OK;
  }
  struct marks marks;
  enum esp_code code = marks_init(&marks, edit, sel, false, frozen, st);
  if (code != ESP_OK) {
    return esp_edit_failed(edit, code);
  }
  const char *words[] = {"false", "true"};
  marks_note(&marks, edit, sel, &(struct esp_change){.field = "frozen", .from = words[!frozen], .to = words[frozen]});
  struct esp_layout *layout = edit->layout;
  for (size_t i = 0; i < layout->params_len; i++) {
    layout->params[i].frozen = marks.first[i] ? frozen : layout->params[i].frozen;
  }
  for (size_t i = 0; i < layout->leaves_len; i++) {
    struct esp_leaf *leaf = &layout->leaves[i];
    leaf->changed_epoch = marks.first[leaf->param] ? layout->epoch : leaf->changed_epoch;
  }
  layout->frozen_len = frozen ? layout->frozen_len + marks.lines : layout->frozen_len - marks.lines;
  esp_free(marks.first);
  return ESP_OK;
}

enum esp_code esp_edit_freeze_timed(struct esp_edit *edit, const struct esp_selection *sel, bool frozen,
                                    const struct esp_timer *timer, struct esp_status *st) {
  enum esp_code code = esp_edit_freeze_only(edit, sel, frozen, st);
  return code == ESP_OK ? esp_edit_timer(edit, sel, timer, st) : code;
}

enum esp_code esp_edit_freeze(struct esp_edit *edit, const struct esp_selection *sel, bool frozen,
                              struct esp_status *st) {
  return esp_edit_freeze_timed(edit, sel, frozen, NULL, st);
}

enum esp_code esp_edit_touch(struct esp_edit *edit, const struct esp_selection *sel, const char *field, const char *to,
                             struct esp_status *st) {
  if (sel->len == 0) {
    return ESP_OK;
  }
  const char *text = esp_arena_strndup(&edit->memory->texts, to, strlen(to));
  if (!text) {
    return esp_edit_failed(edit, esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a diff"));
  }
  const struct esp_change line = {.field = field, .from = "", .to = text};
  if (are_alone(esp_edit_now(edit), sel) && esp_edit_own(edit) && esp_edit_reserve_changes(edit, sel->len)) {
    for (size_t i = 0; i < sel->len; i++) {
      note_alone(edit, &edit->layout->leaves[sel->leaves[i]], &line);
    }
    return ESP_OK;
  }
  struct marks marks;
  enum esp_code code = marks_init(&marks, edit, sel, true, false, st);
  if (code != ESP_OK) {
    return esp_edit_failed(edit, code);
  }
  marks_note(&marks, edit, sel, &line);
  esp_free(marks.first);
  return ESP_OK;
}

/* The leaves that pairs go to, each once. */
static enum esp_code targets_select(const struct esp_layout *layout, const struct esp_pair *pairs, size_t len,
                                    struct esp_selection *ret) {
  uint8_t *chosen = esp_calloc(layout->leaves_len + 1, 1);
  *ret = (struct esp_selection){.leaves = esp_malloc_array(len + 1, sizeof *ret->leaves)};
  if (!chosen || !ret->leaves) {
    esp_free(chosen);
    esp_selection_done(ret);
    return ESP_RESOURCE_EXHAUSTED;
  }
  for (size_t i = 0; i < len; i++) {
    chosen[pairs[i].to] = 1;
  }
  for (size_t i = 0; i < layout->leaves_len; i++) {
    if (chosen[i]) {
      ret->leaves[ret->len++] = (uint32_t)i;
    }
  }
  esp_free(chosen);
  return ESP_OK;
}

/* What the marked parameters' values are from now on, for each of them; NULL without memory. */
static const char **origins_new(struct esp_edit *edit, const struct esp_pair *pairs, size_t len, const char *how) {
  const struct esp_layout *layout = edit->layout;
  const char **origins = esp_calloc(layout->params_len + 1, sizeof *origins);
  for (size_t i = 0; i < len && origins; i++) {
    const struct esp_leaf *from = &layout->leaves[pairs[i].from];
    size_t text_len = strlen(how) + 1 + from->path_len;
    char *text = esp_arena_alloc(&edit->memory->texts, text_len + 1);
    if (!text) {
      esp_free(origins);
      return NULL;
    }
    snprintf(text, text_len + 1, "%s %s", how, from->path);
    origins[layout->leaves[pairs[i].to].param] = text;
  }
  return origins;
}

enum esp_code esp_edit_touch_pairs(struct esp_edit *edit, const struct esp_pair *pairs, size_t len, const char *how,
                                   struct esp_status *st) {
  if (len == 0) {
    return ESP_OK;
  }
  struct marks marks = {0};
  struct esp_selection sel = {0};
  enum esp_code code = targets_select(esp_edit_now(edit), pairs, len, &sel);
  if (code == ESP_OK) {
    code = marks_init(&marks, edit, &sel, true, false, st);
  }
  const char **origins = code == ESP_OK ? origins_new(edit, pairs, len, how) : NULL;
  if (!origins) {
    code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a diff of %zu leaves", len);
  } else {
    size_t first = edit->changes_len;
    marks_note(&marks, edit, &sel, &(struct esp_change){.field = "value", .from = "", .to = ""});
    for (size_t i = first; i < edit->changes_len; i++) {
      struct esp_change *change = &edit->changes[i];
      change->to = origins[esp_layout_leaf_by_id(edit->layout, change->leaf_id)->param];
    }
  }
  esp_free(origins);
  esp_free(marks.first);
  esp_selection_done(&sel);
  return code == ESP_OK ? ESP_OK : esp_edit_failed(edit, code);
}

enum esp_code esp_edit_detach(struct esp_edit *edit, const struct esp_selection *sel, bool detached,
                              struct esp_status *st) {
  const struct esp_layout *now = esp_edit_now(edit);
  size_t lines = 0;
  for (size_t i = 0; i < sel->len; i++) {
    ESP_CHECK(sel->leaves[i] < now->leaves_len);
    const struct esp_leaf *leaf = &now->leaves[sel->leaves[i]];
    lines += leaf->kind == ESP_KIND_TRAINED && leaf->detached != detached;
  }
  if (lines == 0) {
    return ESP_OK;
  }
  if (!esp_edit_own(edit) || !esp_edit_reserve_changes(edit, lines)) {
    return esp_edit_failed(edit, esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a change of %zu leaves", lines));
  }
  const char *words[] = {"false", "true"};
  struct esp_layout *layout = edit->layout;
  for (size_t i = 0; i < sel->len; i++) {
    struct esp_leaf *leaf = &layout->leaves[sel->leaves[i]];
    if (leaf->kind == ESP_KIND_TRAINED && leaf->detached != detached) {
      esp_edit_add_change(edit, &(struct esp_change){.leaf_id = leaf->id,
                                                     .path = leaf->path,
                                                     .field = "detached",
                                                     .from = words[!detached],
                                                     .to = words[detached],
                                                     .because = ""});
      leaf->detached = detached;
      leaf->changed_epoch = layout->epoch;
    }
  }
  layout->detached_len = detached ? layout->detached_len + lines : layout->detached_len - lines;
  edit->changed = true;
  return ESP_OK;
}

/* The strings of the edit pass to the names of the tree. Edits of one tree come one after the other. */
static void texts_pass(struct esp_edit *edit, struct esp_names *names) {
  struct esp_text_block **end = &edit->texts;
  while (*end) {
    end = &(*end)->next;
  }
  *end = names->blocks;
  names->blocks = edit->texts;
  edit->texts = NULL;
}

enum esp_code esp_edit_finish(struct esp_edit *edit, struct esp_layout **ret_layout, struct esp_diff *ret_diff,
                              struct esp_status *st) {
  if (edit->failed != ESP_OK) {
    enum esp_code code = edit->failed;
    esp_edit_free(edit);
    return esp_fail(st, code, "an earlier operation of the same transaction failed");
  }
  esp_edit_view(edit);
  *ret_diff = (struct esp_diff){0};
  if (!edit->changed) {
    *ret_layout = esp_layout_ref(edit->base);
    esp_edit_free(edit);
    return ESP_OK;
  }
  struct esp_layout *layout = edit->layout;
  for (size_t i = 0; i < layout->params_len; i++) {
    ESP_CHECK(layout->params[i].storage || layout->params[i].id < edit->base->param_id_next);
  }
  if (edit->storages_stale && !esp_layout_hold(layout, edit->base->param_id_next)) {
    esp_edit_free(edit);
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for the parameters' list");
  }
  edit->storages_stale = false;
  texts_pass(edit, layout->names);
  edit->memory->names = esp_names_ref(layout->names);
  *ret_diff = (struct esp_diff){.changes = edit->changes, .len = edit->changes_len, .memory = edit->memory};
  esp_edit_pass_timers(edit, ret_diff);
  *ret_layout = layout;
  edit->layout = NULL;
  edit->changes = NULL;
  edit->memory = NULL;
  esp_edit_free(edit);
  return ESP_OK;
}
