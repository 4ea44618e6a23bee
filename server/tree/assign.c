/* Which group steps which parameter: assignments of groups to nodes, the nearest enclosing one of which wins.
 *
 * Assigning only collects (pending.c); who looks at the groups finds them resolved. A parameter whose primary leaf is
 * another one, or elsewhere, than when groups were last resolved keeps its group: by an assignment of the leaf, where
 * its place says otherwise.
 *
 * Assigning fails for a bad path or name, or without memory; resolving does not. */
#include <espalier/status.h>

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tree/tree_internal.h"

size_t esp_group_find(const struct esp_layout *layout, const char *name) {
  size_t low = 0;
  size_t high = layout->groups_len;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    int order = strcmp(layout->groups[middle].name, name);
    if (order == 0) {
      return middle;
    }
    low = order < 0 ? middle + 1 : low;
    high = order < 0 ? high : middle;
  }
  ESP_CHECK(strcmp(name, ESP_GROUP_DEFAULT) != 0);
  return esp_group_find(layout, ESP_GROUP_DEFAULT);
}

struct enclosing {
  const struct esp_assignment *assignment;
  uint32_t group; /* index in layout->groups */
};

/* How many of the stack's assignments enclose the path. */
static size_t depth_enclosing(const struct enclosing *stack, size_t depth, const char *path, size_t len) {
  while (depth > 0 &&
         !esp_path_within(path, len, stack[depth - 1].assignment->node, stack[depth - 1].assignment->node_len)) {
    depth--;
  }
  return depth;
}

/* What the nearest assignment says of a parameter that was resolved before. */
static void place_resolve(struct esp_edit *edit, struct esp_place *place, const struct enclosing *nearest,
                          uint32_t *mark) {
  const char *name = nearest->assignment->group;
  if (place->group_assigned && strcmp(place->group_assigned, name) != 0) {
    if (*mark != 0) {
      const struct esp_leaf *leaf = &edit->layout->leaves[place->primary];
      esp_pendings_add(&edit->groups, leaf->path, leaf->path_len,
                       &(struct esp_pending){.text = place->group_assigned, .because = edit->kept[*mark - 1].because});
      *mark = 0;
      return;
    }
    *mark = ESP_MARK_CHANGED;
  } else {
    *mark = 0;
  }
  place->group = nearest->group;
  place->group_assigned = name;
}

/* One walk over parameters and assignments, both in path order, with a stack of the assignments that enclose the
 * place where the walk is. */
void esp_groups_resolve(struct esp_edit *edit, uint32_t *marks) {
  struct esp_layout *layout = edit->layout;
  struct enclosing stack[ESP_DEPTH_MAX + 1]; /* each is strictly below the one before, and the first is the root's */
  size_t depth = 0;
  size_t next = 0;
  for (size_t i = 0; i < layout->params_len; i++) {
    const struct esp_leaf *leaf = &layout->leaves[layout->params[i].primary];
    for (; next < layout->assignments_len; next++) {
      const struct esp_assignment *assignment = &layout->assignments[next];
      if (esp_path_compare(assignment->node, assignment->node_len, leaf->path, leaf->path_len) > 0) {
        break;
      }
      depth = depth_enclosing(stack, depth, assignment->node, assignment->node_len);
      ESP_CHECK(depth <= ESP_DEPTH_MAX);
      stack[depth].assignment = assignment;
      stack[depth].group = (uint32_t)esp_group_find(layout, assignment->group);
      depth++;
    }
    depth = depth_enclosing(stack, depth, leaf->path, leaf->path_len);
    ESP_CHECK(depth > 0); /* the root's assignment is there, and encloses every leaf */
    place_resolve(edit, &layout->params[i], &stack[depth - 1], &marks[i]);
  }
}

const struct esp_assignment *esp_layout_assignment(const struct esp_layout *layout, const char *node, size_t node_len) {
  size_t low = 0;
  size_t high = layout->assignments_len;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const struct esp_assignment *assignment = &layout->assignments[middle];
    int order = esp_path_compare(assignment->node, assignment->node_len, node, node_len);
    if (order == 0) {
      return assignment;
    }
    low = order < 0 ? middle + 1 : low;
    high = order < 0 ? high : middle;
  }
  return NULL;
}

const struct esp_assignment *esp_layout_nearest(const struct esp_layout *layout, const char *path, size_t path_len) {
  const struct esp_assignment *assignment = NULL;
  while (!(assignment = esp_layout_assignment(layout, path, path_len)) && path_len > 0) {
    while (path_len > 0 && path[--path_len] != '.') {
    }
  }
  ESP_CHECK(assignment);
  return assignment;
}

/* Where the node's path is written already (known, or a leaf's); else a copy. NULL without memory. */
static const char *node_text(struct esp_edit *edit, const char *known, const char *node, size_t len) {
  const struct esp_leaf *leaf = known ? NULL : esp_layout_leaf_by_path(edit->layout, node, len);
  return known ? known : leaf ? leaf->path : esp_edit_text(edit, node, len);
}

/* group NULL: none. Names that the tree has already are not copied: regrouping to and fro takes no memory. */
static enum esp_code assign(struct esp_edit *edit, const char *node, size_t node_len, const char *group,
                            struct esp_status *st) {
  if (edit->params_stale) {
    esp_edit_settle(edit); /* what keeps groups comes before this one */
  }
  const struct esp_assignment *there = esp_layout_assignment(esp_edit_now(edit), node, node_len);
  bool is_same = there && group ? strcmp(there->group, group) == 0 : !there && !group;
  if (edit->groups.len == 0 && is_same) {
    return ESP_OK;
  }
  const char *node_known = there ? there->node : NULL; /* making room may move the array */
  if (esp_edit_own(edit) && esp_edit_reserve_groups(edit, 1)) {
    const struct esp_group *known = group ? esp_layout_group(edit->layout, group) : NULL;
    const char *path = node_text(edit, node_known, node, node_len);
    const char *text = known ? known->name : group ? esp_edit_text(edit, group, strlen(group)) : NULL;
    if (path && (text || !group)) {
      esp_pendings_add(&edit->groups, path, node_len, &(struct esp_pending){.text = text, .because = ""});
      edit->groups_stale = true;
      return ESP_OK;
    }
  }
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for an assignment of a group");
}

enum esp_code esp_edit_assign(struct esp_edit *edit, const char *node, size_t node_len, const char *group,
                              struct esp_status *st) {
  enum esp_code code = node_len > 0 ? esp_path_check(node, node_len, st) : ESP_OK;
  code = code == ESP_OK ? esp_name_check("group", group, st) : code;
  code = code == ESP_OK ? assign(edit, node, node_len, group, st) : code;
  return esp_edit_failed(edit, code);
}

enum esp_code esp_edit_unassign(struct esp_edit *edit, const char *node, size_t node_len, struct esp_status *st) {
  if (node_len == 0) {
    return esp_edit_failed(edit, esp_fail(st, ESP_FAILED_PRECONDITION,
                                          "the root always has a group: it can be given another one, not none"));
  }
  enum esp_code code = esp_path_check(node, node_len, st);
  code = code == ESP_OK ? assign(edit, node, node_len, NULL, st) : code;
  return esp_edit_failed(edit, code);
}
