/* Which group steps which parameter: assignments of groups to nodes, the nearest enclosing one of which wins.
 *
 * An edit collects its assignments unsorted, with all the memory that merging them takes, and merges them at once when
 * somebody looks (esp_edit_view) or at the end: assigning a million nodes is one sort, and looking can't fail.
 * An assignment that says what is there already is nothing; of several to one node the last counts.
 *
 * Assigning fails for a bad path or name, or without memory; merging and resolving do not. */
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

/* One walk over parameters and assignments, both in path order, with a stack of the assignments that enclose the
 * place where the walk is. */
void esp_groups_resolve(struct esp_layout *layout) {
  struct {
    const struct esp_assignment *assignment;
    uint32_t group;
  } stack[ESP_DEPTH_MAX + 1]; /* each is strictly below the one before, and the first is the root's */
  size_t depth = 0;
  size_t next = 0;
  for (size_t i = 0; i < layout->params_len; i++) {
    struct esp_place *place = &layout->params[i];
    const struct esp_leaf *leaf = &layout->leaves[place->primary];
    for (; next < layout->assignments_len; next++) {
      const struct esp_assignment *assignment = &layout->assignments[next];
      if (esp_path_compare(assignment->node, assignment->node_len, leaf->path, leaf->path_len) > 0) {
        break;
      }
      while (depth > 0 && !esp_path_within(assignment->node, assignment->node_len, stack[depth - 1].assignment->node,
                                           stack[depth - 1].assignment->node_len)) {
        depth--;
      }
      ESP_CHECK(depth <= ESP_DEPTH_MAX);
      stack[depth].assignment = assignment;
      stack[depth].group = (uint32_t)esp_group_find(layout, assignment->group);
      depth++;
    }
    while (!esp_path_within(leaf->path, leaf->path_len, stack[depth - 1].assignment->node,
                            stack[depth - 1].assignment->node_len)) {
      depth--;
    }
    place->group = stack[depth - 1].group;
    place->group_assigned = stack[depth - 1].assignment->group;
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

bool esp_edit_reserve_pending(struct esp_edit *edit, size_t n) {
  size_t len = edit->pending_len + n;
  return len <= UINT32_MAX && esp_grow((void **)&edit->pending, &edit->pending_capacity, len, sizeof *edit->pending) &&
         esp_grow((void **)&edit->pending_items, &edit->pending_items_capacity, 2 * len, sizeof *edit->pending_items) &&
         esp_grow((void **)&edit->layout->assignments, &edit->assignments_capacity, edit->layout->assignments_len + len,
                  sizeof *edit->layout->assignments) &&
         esp_edit_reserve_changes(edit, n);
}

void esp_edit_add_pending(struct esp_edit *edit, const char *node, size_t node_len, const char *group, bool born) {
  size_t index = edit->pending_len++;
  edit->pending[index] = (struct esp_pending){.group = group, .born = born};
  edit->pending_items[index] =
      (struct esp_sort_item){.path = node, .path_len = (uint32_t)node_len, .index = (uint32_t)index};
  edit->groups_stale = true;
}

static enum esp_code edit_assign(struct esp_edit *edit, const char *node, size_t node_len, const char *group,
                                 struct esp_status *st) {
  enum esp_code code = node_len > 0 ? esp_path_check(node, node_len, st) : ESP_OK;
  code = code == ESP_OK ? esp_name_check("group", group, st) : code;
  if (code != ESP_OK) {
    return code;
  }
  const struct esp_assignment *there = esp_layout_assignment(esp_edit_now(edit), node, node_len);
  if (edit->pending_len == 0 && there && strcmp(there->group, group) == 0) {
    return ESP_OK;
  }
  size_t group_len = strlen(group);
  char *text = NULL;
  if (!esp_edit_own(edit) || !esp_edit_reserve_pending(edit, 1) ||
      !(text = esp_text_block_new(&edit->texts, node_len + group_len + 2))) {
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for an assignment of group \"%s\"", group);
  }
  memcpy(text, node, node_len);
  text[node_len] = '\0';
  memcpy(text + node_len + 1, group, group_len + 1);
  esp_edit_add_pending(edit, text, node_len, text + node_len + 1, false);
  return ESP_OK;
}

enum esp_code esp_edit_assign(struct esp_edit *edit, const char *node, size_t node_len, const char *group,
                              struct esp_status *st) {
  return esp_edit_failed(edit, edit_assign(edit, node, node_len, group, st));
}

/* The line of the diff for node, which had the group `from` ("": none). */
static void change_group(struct esp_edit *edit, const struct esp_sort_item *item, const char *from) {
  const struct esp_leaf *leaf = esp_layout_leaf_by_path(edit->layout, item->path, item->path_len);
  edit->changed = true;
  if (*from == '\0' && edit->pending[item->index].born) {
    return;
  }
  ESP_CHECK(edit->changes_len < edit->changes_capacity);
  edit->changes[edit->changes_len++] = (struct esp_change){
      .leaf_id = leaf ? leaf->id : 0,
      .path = item->path,
      .field = "group",
      .from = from,
      .to = edit->pending[item->index].group,
      .because = "",
  };
}

/* Replaces the groups of nodes that have an assignment. What is left in the items, sorted, are the new nodes: their
 * number. */
static size_t pending_replace(struct esp_edit *edit) {
  struct esp_layout *layout = edit->layout;
  struct esp_sort_item *items = edit->pending_items;
  size_t at = 0;
  size_t kept = 0;
  for (size_t i = 0; i < edit->pending_len; i++) {
    struct esp_sort_item item = items[i];
    if (i + 1 < edit->pending_len &&
        esp_path_compare(item.path, item.path_len, items[i + 1].path, items[i + 1].path_len) == 0) {
      continue; /* a later one counts */
    }
    int order = 1;
    while (at < layout->assignments_len &&
           (order = esp_path_compare(layout->assignments[at].node, layout->assignments[at].node_len, item.path,
                                     item.path_len)) < 0) {
      at++;
    }
    const char *group = edit->pending[item.index].group;
    if (at == layout->assignments_len || order > 0) {
      change_group(edit, &item, "");
      items[kept++] = item;
    } else if (strcmp(layout->assignments[at].group, group) != 0) {
      change_group(edit, &item, layout->assignments[at].group);
      layout->assignments[at].group = group;
    }
  }
  return kept;
}

static void pending_merge(struct esp_edit *edit) {
  struct esp_layout *layout = edit->layout;
  esp_sort_paths(edit->pending_items, edit->pending_items + edit->pending_len, edit->pending_len);
  size_t items_left = pending_replace(edit);
  size_t old_left = layout->assignments_len;
  layout->assignments_len += items_left;
  while (items_left > 0) { /* from the back, in place */
    const struct esp_sort_item *item = &edit->pending_items[items_left - 1];
    const struct esp_assignment *old = &layout->assignments[old_left - 1]; /* the root's at the least */
    struct esp_assignment *to = &layout->assignments[old_left + items_left - 1];
    if (esp_path_compare(old->node, old->node_len, item->path, item->path_len) > 0) {
      *to = *old;
      old_left--;
    } else {
      *to = (struct esp_assignment){
          .node = item->path, .node_len = item->path_len, .group = edit->pending[item->index].group};
      items_left--;
    }
  }
  edit->pending_len = 0;
}

void esp_edit_settle(struct esp_edit *edit) {
  if (edit->pending_len > 0) {
    pending_merge(edit);
  }
  if (edit->groups_stale) {
    esp_groups_resolve(edit->layout);
    edit->groups_stale = false;
  }
}
