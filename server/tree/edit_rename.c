/* Giving a node another path: esp_edit_rename.
 *
 * Leaves below a node are neighbours and stay so in the same order, so they are merged with what lies between their old
 * place and their new one; nothing else moves. Explicit assignments and tags go to the new nodes by way of what is
 * collected (pending.c). Groups stay: parameters whose primary leaf moved are noted to keep theirs (edit_settle.c); but
 * where nothing else is at the new place, one assignment of the node says what its former place said.
 *
 * It fails with NOT_FOUND, or INVALID_ARGUMENT naming the leaf, before anything changes, or without memory. */
#include <espalier/status.h>

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tree/tree_internal.h"

/* A leaf of the span in its new order. */
struct shifted {
  struct esp_leaf leaf;
  const char *former; /* its path before, or NULL: it kept it */
  bool is_primary;
};

struct renaming {
  struct esp_edit *edit; /* borrowed */
  const char *from;      /* borrowed */
  size_t from_len;
  const char *to; /* borrowed */
  size_t to_len;
  size_t first;          /* of the leaves that are renamed */
  size_t len;            /* of them */
  char *paths;           /* their new paths, each with its NUL */
  struct shifted *span;  /* leaves from the first that moves to the last, in the new order; owned */
  size_t span_first;     /* index of its first in the layout */
  size_t span_len;       /* of span */
  size_t nodes_first;    /* of the assignments that move */
  size_t nodes_len;      /* of them */
  size_t tags_first;     /* of the tags that move */
  size_t tags_len;       /* of them */
  bool is_alone;         /* there is nothing else at the new place, assignments included */
  const char *inherited; /* the group that the former place gives the node by what lies above it */
};

static bool is_below(const struct renaming *name, const char *path, size_t len) {
  return esp_path_within(path, len, name->from, name->from_len);
}

/* ---- checks ---- */

static enum esp_code check(const struct renaming *name, struct esp_status *st) {
  const struct esp_layout *now = esp_edit_now(name->edit);
  char text[ESP_PATH_TEXT_MAX];
  if (name->from_len == 0 || name->to_len == 0) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the root can't be renamed, and nothing can become the root");
  }
  enum esp_code code = esp_path_check(name->from, name->from_len, st);
  code = code == ESP_OK ? esp_path_check(name->to, name->to_len, st) : code;
  if (code != ESP_OK || name->len > 0) {
    return code;
  }
  char near[3 * ESP_PATH_TEXT_MAX];
  esp_suggest(now, name->from, name->from_len, near, sizeof near);
  return esp_fail(st, ESP_NOT_FOUND, "no leaf matches \"%s\"%s%s",
                  esp_path_print(name->from, name->from_len, text, sizeof text), *near ? "; nearest: " : "", near);
}

static const char *path_put(struct renaming *name, char **at, const struct esp_leaf *leaf, struct esp_status *st) {
  char *path = *at;
  size_t rest = leaf->path_len - name->from_len; /* with its dot */
  memcpy(path, name->to, name->to_len);
  memcpy(path + name->to_len, leaf->path + name->from_len, rest + 1);
  *at += name->to_len + rest + 1;
  struct esp_status why;
  if (esp_path_check(path, name->to_len + rest, &why) != ESP_OK) {
    char text[ESP_PATH_TEXT_MAX];
    (void)esp_fail(st, ESP_INVALID_ARGUMENT, "leaf \"%s\" can't have its new path: %s",
                   esp_path_print(leaf->path, leaf->path_len, text, sizeof text), why.message);
    return NULL;
  }
  return path;
}

/* Neighbours in the new order, of which the second would lie at or below the first; one of them at least is renamed. */
static enum esp_code conflict(const struct renaming *name, const struct esp_leaf *first, const struct esp_leaf *second,
                              struct esp_status *st) {
  char text[3][ESP_PATH_TEXT_MAX];
  esp_path_print(first->path, first->path_len, text[0], sizeof text[0]);
  esp_path_print(second->path, second->path_len, text[1], sizeof text[1]);
  esp_path_print(name->from, name->from_len, text[2], sizeof text[2]);
  if (first->path_len == second->path_len) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "with \"%s\" renamed there would be two leaves \"%s\"", text[2], text[0]);
  }
  return esp_fail(st, ESP_INVALID_ARGUMENT,
                  "with \"%s\" renamed leaf \"%s\" would lie below \"%s\", which is a leaf too", text[2], text[1],
                  text[0]);
}

static enum esp_code check_neighbours(const struct renaming *name, struct esp_status *st) {
  const struct esp_layout *layout = name->edit->layout;
  size_t behind = name->span_first + name->span_len;
  const struct esp_leaf *last = name->span_first > 0 ? &layout->leaves[name->span_first - 1] : NULL;
  for (size_t i = 0; i <= name->span_len; i++) {
    const struct esp_leaf *leaf = i < name->span_len            ? &name->span[i].leaf
                                  : behind < layout->leaves_len ? &layout->leaves[behind]
                                                                : NULL;
    if (last && leaf && esp_path_within(leaf->path, leaf->path_len, last->path, last->path_len)) {
      return conflict(name, last, leaf, st);
    }
    last = leaf;
  }
  return ESP_OK;
}

/* ---- the new order ---- */

static struct shifted shifted_of(const struct esp_layout *layout, size_t index) {
  const struct esp_leaf *leaf = &layout->leaves[index];
  return (struct shifted){.leaf = *leaf, .is_primary = layout->params[leaf->param].primary == index};
}

/* Merges the leaves that are renamed, which `renamed` has in order, with the others of the span. */
static void span_merge(struct renaming *name, const struct shifted *renamed) {
  const struct esp_layout *layout = name->edit->layout;
  size_t next = 0;
  size_t to = 0;
  for (size_t i = name->span_first; i < name->span_first + name->span_len; i++) {
    if (i >= name->first && i < name->first + name->len) {
      continue;
    }
    const struct esp_leaf *other = &layout->leaves[i];
    while (next < name->len &&
           esp_path_compare(renamed[next].leaf.path, renamed[next].leaf.path_len, other->path, other->path_len) < 0) {
      name->span[to++] = renamed[next++];
    }
    name->span[to++] = shifted_of(layout, i);
  }
  while (next < name->len) {
    name->span[to++] = renamed[next++];
  }
  ESP_CHECK(to == name->span_len);
}

/* The leaves with their new paths, and the span that they have to be merged into. */
static enum esp_code renamed_make(struct renaming *name, struct shifted *renamed, struct esp_status *st) {
  const struct esp_layout *layout = name->edit->layout;
  char *at = name->paths;
  for (size_t i = 0; i < name->len; i++) {
    renamed[i] = shifted_of(layout, name->first + i);
    struct esp_leaf *leaf = &renamed[i].leaf;
    const char *path = path_put(name, &at, leaf, st);
    if (!path) {
      return ESP_INVALID_ARGUMENT;
    }
    renamed[i].former = leaf->path;
    leaf->path = path;
    leaf->path_len = (uint32_t)(leaf->path_len - name->from_len + name->to_len);
    leaf->path_epoch = layout->epoch;
    leaf->changed_epoch = layout->epoch;
  }
  const struct esp_leaf *last = &renamed[name->len - 1].leaf;
  size_t begin = esp_layout_lower_bound(layout, renamed[0].leaf.path, renamed[0].leaf.path_len);
  size_t end = esp_layout_lower_bound(layout, last->path, last->path_len);
  name->span_first = begin < name->first ? begin : name->first;
  size_t behind = end > name->first + name->len ? end : name->first + name->len;
  name->span_len = behind - name->span_first;
  return ESP_OK;
}

static enum esp_code span_make(struct renaming *name, struct esp_status *st) {
  const struct esp_layout *layout = name->edit->layout;
  size_t bytes = 0;
  for (size_t i = 0; i < name->len; i++) {
    bytes += layout->leaves[name->first + i].path_len - name->from_len + name->to_len + 1;
  }
  name->paths = esp_text_block_new(&name->edit->texts, bytes);
  struct shifted *renamed = esp_malloc_array(name->len, sizeof *renamed);
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  if (name->paths && renamed) {
    code = renamed_make(name, renamed, st);
    name->span = code == ESP_OK ? esp_malloc_array(name->span_len, sizeof *name->span) : NULL;
    code = code == ESP_OK && !name->span ? ESP_RESOURCE_EXHAUSTED : code;
  }
  if (code == ESP_OK) {
    span_merge(name, renamed);
    code = check_neighbours(name, st);
  }
  esp_free(renamed);
  return code == ESP_RESOURCE_EXHAUSTED ? esp_fail(st, code, "no memory to rename %zu leaves", name->len) : code;
}

/* ---- assignments and tags ---- */

/* The index of the first assignment that is not before the node. */
static size_t assignments_from(const struct esp_layout *layout, const char *node, size_t len) {
  size_t low = 0;
  size_t high = layout->assignments_len;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const struct esp_assignment *assignment = &layout->assignments[middle];
    bool is_before = esp_path_compare(assignment->node, assignment->node_len, node, len) < 0;
    low = is_before ? middle + 1 : low;
    high = is_before ? high : middle;
  }
  return low;
}

/* The group that what lies above a node gives it. */
static const char *inherited(const struct esp_layout *layout, const char *node, size_t len) {
  while (len > 0 && node[--len] != '.') {
  }
  return esp_layout_nearest(layout, node, len)->group;
}

/* Counts what moves, and looks at what the old place and the new one say. */
static void nodes_look(struct renaming *name) {
  const struct esp_layout *layout = name->edit->layout;
  name->nodes_first = assignments_from(layout, name->from, name->from_len);
  for (size_t i = name->nodes_first; i < layout->assignments_len; i++) {
    if (!is_below(name, layout->assignments[i].node, layout->assignments[i].node_len)) {
      break;
    }
    name->nodes_len++;
  }
  name->tags_first = esp_layout_tags_from(layout, name->from, name->from_len);
  for (size_t i = name->tags_first; i < layout->tags_len; i++) {
    if (!is_below(name, layout->tags[i].node, layout->tags[i].node_len)) {
      break;
    }
    name->tags_len++;
  }
  size_t first;
  size_t leaves;
  esp_layout_range(layout, name->to, name->to_len, &first, &leaves);
  size_t at = assignments_from(layout, name->to, name->to_len);
  bool is_assigned =
      at < layout->assignments_len &&
      esp_path_within(layout->assignments[at].node, layout->assignments[at].node_len, name->to, name->to_len);
  name->is_alone = leaves == 0 && !is_assigned;
  name->inherited = inherited(layout, name->from, name->from_len);
}

/* Moves the text of a node to its new one. The old ones go first: the new place may lie inside the old one. */
static bool node_move(struct renaming *name, struct esp_pendings *pendings, const char *node, size_t node_len,
                      const char *text) {
  struct esp_pending pending = {.text = text, .because = ""};
  if (!text) {
    esp_pendings_add(pendings, node, node_len, &pending);
    return true;
  }
  size_t rest = node_len - name->from_len;
  char *path = esp_text_block_new(&name->edit->texts, name->to_len + rest + 1);
  if (!path) {
    return false;
  }
  memcpy(path, name->to, name->to_len);
  memcpy(path + name->to_len, node + name->from_len, rest + 1);
  if (esp_path_check(path, name->to_len + rest, NULL) == ESP_OK) { /* else nothing could ever lie there */
    esp_pendings_add(pendings, path, name->to_len + rest, &pending);
  }
  return true;
}

static bool nodes_move(struct renaming *name) {
  struct esp_edit *edit = name->edit;
  const struct esp_assignment *assignments = edit->layout->assignments + name->nodes_first;
  const struct esp_node_tag *tags = name->tags_len > 0 ? edit->layout->tags + name->tags_first : NULL;
  bool ok = true;
  for (int put = 0; put < 2; put++) {
    for (size_t i = 0; ok && i < name->nodes_len; i++) {
      ok = node_move(name, &edit->groups, assignments[i].node, assignments[i].node_len,
                     put ? assignments[i].group : NULL);
    }
    for (size_t i = 0; ok && i < name->tags_len; i++) {
      ok = node_move(name, &edit->tags, tags[i].node, tags[i].node_len, put ? tags[i].tag : NULL);
    }
  }
  edit->groups_stale = edit->groups_stale || name->nodes_len > 0;
  return ok;
}

/* Whether any parameter of a renamed primary leaf has the group that its former place inherited, and the new place
 * inherits another one: what is written then, of the node. Before anything moved. */
static bool inherits_other(const struct renaming *name) {
  const struct esp_layout *layout = name->edit->layout;
  if (!name->is_alone || esp_layout_assignment(layout, name->from, name->from_len) ||
      strcmp(inherited(layout, name->to, name->to_len), name->inherited) == 0) {
    return false;
  }
  for (size_t i = name->first; i < name->first + name->len; i++) {
    const struct esp_place *place = esp_layout_place(layout, &layout->leaves[i]);
    if (place->primary == i && strcmp(place->group_assigned, name->inherited) == 0) {
      return true;
    }
  }
  return false;
}

/* ---- putting it in place ---- */

static void span_put(struct renaming *name) {
  struct esp_edit *edit = name->edit;
  struct esp_layout *layout = edit->layout;
  for (size_t i = 0; i < name->span_len; i++) {
    const struct shifted *shifted = &name->span[i];
    size_t index = name->span_first + i;
    layout->leaves[index] = shifted->leaf;
    layout->by_id[shifted->leaf.id] = (uint32_t)index + 1;
    if (shifted->is_primary) {
      layout->params[shifted->leaf.param].primary = (uint32_t)index;
    }
    if (shifted->former) {
      esp_edit_add_change(edit, &(struct esp_change){.leaf_id = shifted->leaf.id,
                                                     .path = shifted->leaf.path,
                                                     .field = "path",
                                                     .from = shifted->former,
                                                     .to = shifted->leaf.path,
                                                     .because = ""});
    }
  }
}

/* Which parameters' groups are to stay: of primary leaves that were renamed, and where assignments came with them, of
 * all that are at the new place. */
static void groups_keep(struct renaming *name, size_t first, size_t len, bool only_renamed, const char *because) {
  struct esp_edit *edit = name->edit;
  for (size_t i = first; i < first + len; i++) {
    const struct esp_leaf *leaf = &edit->layout->leaves[i];
    bool is_renamed = leaf->path_epoch == edit->layout->epoch;
    if (edit->layout->params[leaf->param].primary == i && (is_renamed || !only_renamed)) {
      esp_edit_keep_group(edit, leaf->param, because);
    }
  }
}

/* Renamed leaves may have paths of leaves that were removed. */
static void forget_removed(const struct renaming *name) {
  struct esp_layout *layout = name->edit->layout;
  bool any = false;
  for (size_t i = 0; layout->removed_len > 0 && i < name->span_len; i++) {
    const struct esp_leaf *leaf = &name->span[i].leaf;
    any = any || (name->span[i].former && esp_layout_is_removed(layout, leaf->path, leaf->path_len));
  }
  if (any) {
    esp_layout_forget_removed(layout);
  }
}

static bool put(struct renaming *name) {
  struct esp_edit *edit = name->edit;
  size_t first;
  size_t others;
  esp_layout_range(edit->layout, name->to, name->to_len, &first, &others);
  bool writes_node = inherits_other(name);
  const char *former = esp_edit_text(edit, name->from, name->from_len);
  const char *node = esp_edit_text(edit, name->to, name->to_len);
  if (!former || !node || !esp_edit_reserve_kept(edit, name->len + others) ||
      !esp_edit_reserve_tags(edit, 2 * name->tags_len) ||
      !esp_edit_reserve_groups(edit, name->len + others + 2 * name->nodes_len + 1) ||
      !esp_edit_reserve_changes(edit, 2 * name->len + others + 2 * name->tags_len + 2 * name->nodes_len + 1) ||
      !nodes_move(name)) {
    return false;
  }
  if (writes_node) {
    esp_pendings_add(&edit->groups, node, name->to_len,
                     &(struct esp_pending){.text = name->inherited, .because = former});
    edit->groups_stale = true;
  }
  span_put(name);
  esp_layout_range(edit->layout, name->to, name->to_len, &first, &others);
  groups_keep(name, first, others, name->nodes_len == 0, former);
  return true;
}

enum esp_code esp_edit_rename(struct esp_edit *edit, const char *from, size_t from_len, const char *to, size_t to_len,
                              struct esp_status *st) {
  esp_edit_settle_groups(edit);
  struct renaming name = {.edit = edit, .from = from, .from_len = from_len, .to = to, .to_len = to_len};
  esp_layout_range(esp_edit_now(edit), from, from_len, &name.first, &name.len);
  enum esp_code code = check(&name, st);
  if (code != ESP_OK || (from_len == to_len && memcmp(from, to, from_len) == 0)) {
    return esp_edit_failed(edit, code);
  }
  if (!esp_edit_own(edit)) {
    return esp_edit_failed(edit, esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory to rename %zu leaves", name.len));
  }
  code = span_make(&name, st);
  if (code == ESP_OK) {
    nodes_look(&name);
    code = put(&name) ? ESP_OK : esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory to rename %zu leaves", name.len);
  }
  if (code == ESP_OK) {
    forget_removed(&name);
    edit->ring_len = 0;
    edit->params_stale = true;
    edit->changed = true;
    esp_edit_settle_groups(edit); /* unless nothing but leaves moved: many renames in a row are cheap */
  }
  esp_free(name.span);
  return esp_edit_failed(edit, code);
}
