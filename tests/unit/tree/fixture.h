/* Trees for the tests of server/tree: made from a list of paths, checked against naive definitions. */
#ifndef ESP_TREE_FIXTURE_H
#define ESP_TREE_FIXTURE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "tests/support/test.h"
#include "tree/tree.h"

#define LEN_OF(array) (sizeof(array) / sizeof((array)[0]))

static atomic_int objects_live; /* storages and optimizers that were not destroyed */

static inline void object_destroy(struct esp_object *object) {
  atomic_fetch_sub(&objects_live, 1);
  free(object);
}

/* Not from base/alloc.h, so that a sweep of failing allocations spares it. */
static inline struct esp_object *object_new(void) {
  struct esp_object *object = calloc(1, sizeof *object);
  assert_non_null(object);
  atomic_init(&object->refs, 1);
  object->destroy = object_destroy;
  atomic_fetch_add(&objects_live, 1);
  return object;
}

static inline void expect_ok(enum esp_code code, const struct esp_status *st) {
  if (code != ESP_OK) {
    fail_msg("%s: %s", esp_code_name(code), st->message);
  }
}

/* The code is as expected, and the message holds the words. */
static inline void expect_fail(enum esp_code code, const struct esp_status *st, enum esp_code expected,
                               const char *words) {
  assert_string_equal(esp_code_name(code), esp_code_name(expected));
  if (!strstr(st->message, words)) {
    fail_msg("\"%s\" is not in \"%s\"", words, st->message);
  }
}

/* An f32 leaf of two elements. */
static inline struct esp_leaf_new leaf_of(const char *path) {
  return (struct esp_leaf_new){.path = path,
                               .path_len = strlen(path),
                               .shape = {.dims = {2}, .rank = 1},
                               .dtype = ESP_DTYPE_F32,
                               .kind = ESP_KIND_TRAINED,
                               .tag = "",
                               .group = ""};
}

/* An empty tree with the groups "default" and "head". */
static inline struct esp_layout *tree_empty(void) {
  struct esp_group groups[] = {{.name = "head", .expression = "sgd(lr=2)", .optim = object_new()},
                               {.name = "default", .expression = "sgd(lr=1)", .optim = object_new()}};
  struct esp_layout *layout;
  struct esp_status st;
  expect_ok(esp_layout_new(groups, LEN_OF(groups), &layout, &st), &st);
  esp_object_unref(groups[0].optim);
  esp_object_unref(groups[1].optim);
  return layout;
}

/* Adds leaves, with their storages. */
static inline void edit_add_ok(struct esp_edit *edit, const struct esp_leaf_new *leaves, size_t len) {
  struct esp_status st;
  uint64_t *ids = calloc(len + 1, sizeof *ids);
  bool *added = calloc(len + 1, sizeof *added);
  expect_ok(esp_edit_add(edit, leaves, len, ids, added, &st), &st);
  for (size_t i = 0; i < len; i++) {
    if (added[i]) {
      esp_edit_bind(edit, ids[i], object_new());
    }
  }
  free(ids);
  free(added);
}

/* Ends an edit of *layout, which becomes the new layout. */
static inline struct esp_diff finish_ok(struct esp_edit *edit, struct esp_layout **layout) {
  struct esp_status st;
  struct esp_layout *next;
  struct esp_diff diff;
  expect_ok(esp_edit_finish(edit, &next, &diff, &st), &st);
  esp_layout_unref(*layout);
  *layout = next;
  return diff;
}

/* A tree of epoch 2 with leaf_of each path. */
static inline struct esp_layout *tree_of(const char *const *paths, size_t len) {
  struct esp_layout *layout = tree_empty();
  struct esp_leaf_new *leaves = calloc(len + 1, sizeof *leaves);
  for (size_t i = 0; i < len; i++) {
    leaves[i] = leaf_of(paths[i]);
  }
  struct esp_edit *edit = esp_edit_new(layout);
  edit_add_ok(edit, leaves, len);
  struct esp_diff diff = finish_ok(edit, &layout);
  esp_diff_done(&diff);
  free(leaves);
  return layout;
}

/* What became of an edit in which an allocation may have failed: finishing fails as an earlier call did, or for memory
 * of its own. */
static inline enum esp_code finish_expected(enum esp_code finish_code, enum esp_code earlier) {
  assert_int_equal(finish_code, earlier == ESP_OK && finish_code == ESP_RESOURCE_EXHAUSTED ? finish_code : earlier);
  return finish_code;
}

/* The last reference: nothing may be left. */
static inline void tree_drop(struct esp_layout *layout) {
  esp_layout_unref(layout);
  assert_int_equal(atomic_load(&objects_live), 0);
}

/* ---- naive definitions ---- */

/* Path order by its words: component after component, a missing one first. */
static inline int naive_compare(const char *a, const char *b) {
  if (*a == '\0' || *b == '\0') {
    return (*a != '\0') - (*b != '\0');
  }
  size_t a_len = strcspn(a, ".");
  size_t b_len = strcspn(b, ".");
  size_t len = a_len < b_len ? a_len : b_len;
  int order = memcmp(a, b, len);
  if (order != 0 || a_len != b_len) {
    return order != 0 ? order : a_len < b_len ? -1 : 1;
  }
  return naive_compare(a + a_len + (a[a_len] == '.'), b + b_len + (b[b_len] == '.'));
}

/* path is node or below it. */
static inline bool naive_within(const char *path, const char *node) {
  if (*node == '\0') {
    return true;
  }
  size_t a = strcspn(path, ".");
  size_t b = strcspn(node, ".");
  return a == b && memcmp(path, node, a) == 0 &&
         (node[b] == '\0' || (path[a] == '.' && naive_within(path + a + 1, node + b + 1)));
}

/* The name that the longest assignment enclosing the path gives. */
static inline const char *naive_group(const struct esp_layout *layout, const char *path) {
  const struct esp_assignment *nearest = NULL;
  for (size_t i = 0; i < layout->assignments_len; i++) {
    const struct esp_assignment *assignment = &layout->assignments[i];
    if (naive_within(path, assignment->node) && (!nearest || assignment->node_len > nearest->node_len)) {
      nearest = assignment;
    }
  }
  assert_non_null(nearest);
  return nearest->group;
}

static inline void expect_place(const struct esp_layout *layout, size_t index) {
  const struct esp_place *place = &layout->params[index];
  const struct esp_leaf *primary = &layout->leaves[place->primary];
  assert_int_equal(primary->param, index);
  assert_in_range(place->primary, 0, layout->leaves_len - 1);
  assert_true(index == 0 || layout->params[index - 1].primary < place->primary);
  assert_in_range(place->id, 1, layout->param_id_next - 1);
  assert_non_null(place->storage);
  assert_string_equal(place->group_assigned, naive_group(layout, primary->path));
  bool defined = false;
  for (size_t i = 0; i < layout->groups_len; i++) {
    defined = defined || strcmp(layout->groups[i].name, place->group_assigned) == 0;
  }
  assert_string_equal(layout->groups[place->group].name, defined ? place->group_assigned : "default");
}

/* Arrays that are in order. */
static inline void expect_arrays(const struct esp_layout *layout) {
  for (size_t i = 1; i < layout->assignments_len; i++) {
    assert_true(naive_compare(layout->assignments[i - 1].node, layout->assignments[i].node) < 0);
  }
  for (size_t i = 0; i < layout->assignments_len; i++) {
    assert_int_equal(strlen(layout->assignments[i].node), layout->assignments[i].node_len);
    assert_non_null(layout->assignments[i].group);
  }
  assert_string_equal(layout->assignments[0].node, "");
  for (size_t i = 0; i < layout->tags_len; i++) {
    assert_true(i == 0 || naive_compare(layout->tags[i - 1].node, layout->tags[i].node) < 0);
    assert_int_equal(strlen(layout->tags[i].node), layout->tags[i].node_len);
    assert_true(*layout->tags[i].tag != '\0');
  }
  for (size_t i = 0; i < layout->selections_len; i++) {
    assert_true(i == 0 || strcmp(layout->selections[i - 1].name, layout->selections[i].name) < 0);
    assert_true(*layout->selections[i].text != '\0');
  }
  for (size_t i = 1; i < layout->groups_len; i++) {
    assert_true(strcmp(layout->groups[i - 1].name, layout->groups[i].name) < 0);
  }
  assert_non_null(esp_layout_group(layout, "default"));
  for (size_t i = 0; i < layout->removed_len; i++) {
    const char *path = layout->removed[i];
    assert_true(i == 0 || naive_compare(layout->removed[i - 1], path) < 0);
    assert_null(esp_layout_leaf_by_path(layout, path, strlen(path)));
  }
  for (size_t i = 0; i < layout->gone_len; i++) {
    assert_true(i == 0 || layout->gone[i - 1].id < layout->gone[i].id);
    assert_ptr_equal(esp_layout_gone_by_id(layout, layout->gone[i].id), &layout->gone[i]);
    assert_true(layout->gone[i].epoch <= layout->epoch);
    assert_null(esp_layout_leaf_by_id(layout, layout->gone[i].id));
  }
}

static inline void expect_timers(const struct esp_layout *layout) {
  uint64_t due[ESP_TIMER_TIME + 1] = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
  for (size_t i = 0; i < layout->timers_len; i++) {
    const struct esp_timer *timer = &layout->timers[i];
    assert_true(i == 0 || layout->timers[i - 1].id < timer->id);
    assert_true(timer->id < layout->timer_id_next && timer->epoch <= layout->epoch && timer->selection);
    assert_ptr_equal(esp_layout_timer(layout, timer->id), timer);
    size_t params = 0;
    for (size_t j = 0; j < layout->params_len; j++) {
      params += layout->params[j].timer == timer->id;
    }
    assert_true(params > 0);
    assert_int_equal(params, timer->params_len);
    due[timer->due] = timer->at < due[timer->due] ? timer->at : due[timer->due];
  }
  assert_memory_equal(layout->timers_due, due, sizeof due);
  for (size_t i = 0; i < layout->params_len; i++) {
    assert_true(layout->params[i].timer == 0 || esp_layout_timer(layout, layout->params[i].timer));
  }
}

static inline void expect_leaf(const struct esp_layout *layout, size_t i) {
  const struct esp_leaf *leaf = &layout->leaves[i];
  const struct esp_place *place = esp_layout_place(layout, leaf);
  assert_int_equal(strlen(leaf->path), leaf->path_len);
  assert_true(i == 0 || naive_compare(layout->leaves[i - 1].path, leaf->path) < 0);
  assert_true(i == 0 || !naive_within(leaf->path, layout->leaves[i - 1].path));
  assert_ptr_equal(esp_layout_leaf_by_id(layout, leaf->id), leaf);
  assert_ptr_equal(esp_layout_leaf_by_path(layout, leaf->path, leaf->path_len), leaf);
  assert_in_range(leaf->id, 1, layout->leaf_id_next - 1);
  assert_int_equal(leaf->kind, place->kind);
  assert_true(leaf->view == ESP_VIEW_IDENTITY || place->shape.rank == 2);
  assert_true(leaf->kind == ESP_KIND_TRAINED || !leaf->detached);
  assert_true(leaf->path_epoch <= leaf->changed_epoch && leaf->changed_epoch <= layout->epoch);
}

/* Everything that the header says of a layout, counted from scratch. */
static inline void expect_sound(const struct esp_layout *layout) {
  uint32_t *bound = calloc(layout->params_len + 1, sizeof *bound);
  uint64_t trained = 0, frozen = 0, detached = 0, elements = 0, leaf_bytes = 0, found = 0, n, bytes;
  for (size_t i = 0; i < layout->leaves_len; i++) {
    const struct esp_leaf *leaf = &layout->leaves[i];
    const struct esp_place *place = esp_layout_place(layout, leaf);
    expect_leaf(layout, i);
    bound[leaf->param]++;
    trained += leaf->kind == ESP_KIND_TRAINED;
    frozen += place->frozen;
    detached += leaf->detached;
    assert_int_equal(esp_shape_bytes(&place->shape, place->dtype, &n, &bytes, NULL), ESP_OK);
    leaf_bytes += bytes;
  }
  for (size_t i = 0; i < layout->params_len; i++) {
    expect_place(layout, i);
    assert_int_equal(layout->params[i].leaves_len, bound[i]);
    for (size_t j = 0; j < i && layout->params_len < 100; j++) {
      assert_true(layout->params[j].id != layout->params[i].id);
      assert_ptr_not_equal(layout->params[j].storage, layout->params[i].storage);
    }
    assert_int_equal(esp_shape_bytes(&layout->params[i].shape, layout->params[i].dtype, &n, &bytes, NULL), ESP_OK);
    elements += n;
  }
  assert_int_equal(layout->by_id_len, layout->leaves_len + layout->gone_len > 0 ? layout->leaf_id_next : 0);
  for (size_t id = 0; id < layout->by_id_len; id++) {
    found += layout->by_id[id] != 0;
  }
  expect_arrays(layout);
  expect_timers(layout);
  assert_int_equal(found, layout->leaves_len);
  assert_int_equal(layout->leaves_len + layout->gone_len, layout->leaf_id_next - 1);
  assert_int_equal(layout->trained_len, trained);
  assert_int_equal(layout->frozen_len, frozen);
  assert_int_equal(layout->detached_len, detached);
  assert_int_equal(layout->elements, elements);
  assert_int_equal(layout->leaf_bytes, leaf_bytes);
  free(bound);
}

/* ---- layouts stay as they are ---- */

struct snapshot {
  unsigned char *bytes;
  size_t len;
};

static inline void snapshot_add(struct snapshot *snapshot, const void *bytes, size_t len) {
  snapshot->bytes = realloc(snapshot->bytes, snapshot->len + len + 1);
  if (len > 0) {
    memcpy(snapshot->bytes + snapshot->len, bytes, len);
  }
  snapshot->len += len;
}

/* Every byte of a layout but its count of references. */
static inline struct snapshot snapshot_of(const struct esp_layout *layout) {
  struct snapshot snapshot = {0};
  snapshot_add(&snapshot, &layout->epoch, sizeof *layout - offsetof(struct esp_layout, epoch));
  snapshot_add(&snapshot, layout->leaves, layout->leaves_len * sizeof *layout->leaves);
  snapshot_add(&snapshot, layout->params, layout->params_len * sizeof *layout->params);
  snapshot_add(&snapshot, layout->by_id, layout->by_id_len * sizeof *layout->by_id);
  snapshot_add(&snapshot, layout->groups, layout->groups_len * sizeof *layout->groups);
  snapshot_add(&snapshot, layout->assignments, layout->assignments_len * sizeof *layout->assignments);
  snapshot_add(&snapshot, layout->tags, layout->tags_len * sizeof *layout->tags);
  snapshot_add(&snapshot, layout->selections, layout->selections_len * sizeof *layout->selections);
  snapshot_add(&snapshot, layout->removed, layout->removed_len * sizeof *layout->removed);
  snapshot_add(&snapshot, layout->gone, layout->gone_len * sizeof *layout->gone);
  snapshot_add(&snapshot, layout->timers, layout->timers_len * sizeof *layout->timers);
  return snapshot;
}

/* The layout is what it was; the snapshot is freed. */
static inline void expect_unchanged(const struct esp_layout *layout, struct snapshot snapshot) {
  struct snapshot now = snapshot_of(layout);
  assert_int_equal(now.len, snapshot.len);
  assert_memory_equal(now.bytes, snapshot.bytes, now.len);
  free(now.bytes);
  free(snapshot.bytes);
}

/* ---- edits by name ---- */

static inline uint32_t index_of(const struct esp_layout *layout, const char *path) {
  const struct esp_leaf *leaf = esp_layout_leaf_by_path(layout, path, strlen(path));
  if (!leaf) {
    fail_msg("there is no leaf %s", path);
  }
  return (uint32_t)(leaf - layout->leaves);
}

/* What lies at or below any of the nodes, which blanks separate; "**" is all. From base/alloc.h, as selections are. */
static inline struct esp_selection pick(const struct esp_layout *layout, const char *nodes) {
  struct esp_selection sel = {.leaves = esp_malloc_array(layout->leaves_len + 1, sizeof *sel.leaves)};
  assert_non_null(sel.leaves);
  for (uint32_t i = 0; i < layout->leaves_len; i++) {
    bool is_picked = false;
    for (const char *node = nodes; *node != '\0';) {
      size_t len = strcspn(node, " ");
      char *copy = strndup(node, strcmp(node, "**") == 0 ? 0 : len);
      is_picked = is_picked || naive_within(layout->leaves[i].path, copy);
      free(copy);
      node += len + (node[len] == ' ');
    }
    if (is_picked) {
      sel.leaves[sel.len++] = i;
    }
  }
  return sel;
}

static inline void freeze_ok(struct esp_edit *edit, const char *text, bool frozen) {
  struct esp_selection sel = pick(esp_edit_view(edit), text);
  struct esp_status st;
  expect_ok(esp_edit_freeze(edit, &sel, frozen, &st), &st);
  esp_selection_done(&sel);
}

static inline void assign_ok(struct esp_edit *edit, const char *node, const char *group) {
  struct esp_status st;
  expect_ok(esp_edit_assign(edit, node, strlen(node), group, &st), &st);
}

static inline void tie_ok(struct esp_edit *edit, const char *leaf, const char *to, enum esp_view view) {
  struct esp_status st;
  const struct esp_layout *now = esp_edit_view(edit);
  expect_ok(esp_edit_tie(edit, index_of(now, leaf), index_of(now, to), view, &st), &st);
  expect_sound(esp_edit_view(edit));
}

/* Unties and binds; returns how many got a parameter of their own. */
static inline size_t untie_ok(struct esp_edit *edit, const char *text) {
  struct esp_selection sel = pick(esp_edit_view(edit), text);
  uint64_t *leaves = calloc(sel.len + 1, sizeof *leaves);
  uint64_t *from = calloc(sel.len + 1, sizeof *from);
  enum esp_view *views = calloc(sel.len + 1, sizeof *views);
  size_t len;
  struct esp_status st;
  expect_ok(esp_edit_untie(edit, &sel, leaves, from, views, &len, &st), &st);
  for (size_t i = 0; i < len; i++) {
    esp_edit_bind(edit, leaves[i], object_new());
  }
  free(leaves);
  free(from);
  free(views);
  esp_selection_done(&sel);
  expect_sound(esp_edit_view(edit));
  return len;
}

static inline void remove_ok(struct esp_edit *edit, const char *text) {
  struct esp_selection sel = pick(esp_edit_view(edit), text);
  struct esp_status st;
  expect_ok(esp_edit_remove(edit, &sel, &st), &st);
  esp_selection_done(&sel);
  expect_sound(esp_edit_view(edit));
}

static inline void rename_ok(struct esp_edit *edit, const char *from, const char *to) {
  struct esp_status st;
  expect_ok(esp_edit_rename(edit, from, strlen(from), to, strlen(to), &st), &st);
  expect_sound(esp_edit_view(edit));
}

/* Ends the edit and forgets the diff. */
static inline void finish(struct esp_edit *edit, struct esp_layout **layout) {
  struct esp_diff diff = finish_ok(edit, layout);
  esp_diff_done(&diff);
  expect_sound(*layout);
}

static inline const struct esp_place *place_of(const struct esp_layout *layout, const char *path) {
  return esp_layout_place(layout, &layout->leaves[index_of(layout, path)]);
}

/* The name of the group that steps the leaf's parameter. */
static inline const char *group_of(const struct esp_layout *layout, const char *path) {
  return esp_layout_group_of(layout, &layout->leaves[index_of(layout, path)])->name;
}

static inline void expect_change(const struct esp_change *change, const char *path, const char *field, const char *from,
                                 const char *to, const char *because) {
  assert_string_equal(change->path, path);
  assert_string_equal(change->field, field);
  assert_string_equal(change->from, from);
  assert_string_equal(change->to, to);
  assert_string_equal(change->because, because);
}

#endif
