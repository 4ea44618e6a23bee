/* What has a name beside leaves: groups, named selections and tags of nodes.
 *
 * Groups and selections are few and their arrays are sorted by name, so one is put in at once. A group that comes or
 * goes changes who steps the parameters that it is assigned to, which is told leaf by leaf.
 *
 * It fails with INVALID_ARGUMENT, NOT_FOUND or FAILED_PRECONDITION before anything changes, or without memory. */
#include <espalier/status.h>

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tree/tree_internal.h"

#define NAMES_TEXT_MAX 1024

/* ---- names that are known, for messages ---- */

/* Adds `"name"`, or `...` where the buffer is about full; returns the new length. */
static size_t names_add(char *buffer, size_t len, const char *name) {
  if (len + strlen(name) + 10 > NAMES_TEXT_MAX) {
    if (len > 0 && buffer[len - 1] != '.') {
      len += (size_t)snprintf(buffer + len, NAMES_TEXT_MAX - len, ", ...");
    }
    return len;
  }
  return len + (size_t)snprintf(buffer + len, NAMES_TEXT_MAX - len, "%s\"%s\"", len > 0 ? ", " : "", name);
}

/* ---- groups ---- */

/* The index of the first group whose name is not before this one. */
static size_t groups_from(const struct esp_layout *layout, const char *name) {
  size_t at = 0;
  while (at < layout->groups_len && strcmp(layout->groups[at].name, name) < 0) {
    at++;
  }
  return at;
}

/* Leaves of parameters that the name is assigned to. */
static size_t followers_count(const struct esp_layout *layout, const char *name) {
  size_t count = 0;
  for (size_t i = 0; i < layout->params_len; i++) {
    count += strcmp(layout->params[i].group_assigned, name) == 0 ? layout->params[i].leaves_len : 0;
  }
  return count;
}

/* Points parameters at their groups again, after one came or went at index `at`, and tells of the leaves of those that
 * `name` is assigned to. */
static void followers_note(struct esp_edit *edit, const char *name, size_t at, bool came) {
  struct esp_layout *layout = edit->layout;
  uint32_t fallback = (uint32_t)esp_group_find(layout, ESP_GROUP_DEFAULT);
  for (size_t i = 0; i < layout->params_len; i++) {
    struct esp_place *place = &layout->params[i];
    edit->marks[i] = strcmp(place->group_assigned, name) == 0;
    if (edit->marks[i]) {
      place->group = came ? (uint32_t)at : fallback;
    } else if (came) {
      place->group += place->group >= at;
    } else {
      place->group -= place->group > at;
    }
  }
  const char *words[] = {ESP_GROUP_DEFAULT, name};
  for (size_t i = 0; i < layout->leaves_len; i++) {
    struct esp_leaf *leaf = &layout->leaves[i];
    if (edit->marks[leaf->param]) {
      leaf->changed_epoch = layout->epoch;
      esp_edit_add_change(edit, &(struct esp_change){.leaf_id = leaf->id,
                                                     .path = leaf->path,
                                                     .field = "stepped_by",
                                                     .from = words[!came],
                                                     .to = words[came],
                                                     .because = ""});
    }
  }
  edit->changed = true;
}

/* Marks the parameters of the selection that another group steps: with the first selected leaf's index + 1. */
static void regrouped_mark(struct esp_edit *edit, const struct esp_selection *sel, const char *group) {
  const struct esp_layout *layout = edit->layout;
  memset(edit->marks, 0, layout->params_len * sizeof *edit->marks);
  for (size_t i = 0; i < sel->len; i++) {
    uint32_t param = layout->leaves[sel->leaves[i]].param;
    bool moves = strcmp(layout->groups[layout->params[param].group].name, group) != 0;
    if (moves && edit->marks[param] == 0) {
      edit->marks[param] = sel->leaves[i] + 1;
    }
  }
}

enum esp_code esp_edit_note_regroup(struct esp_edit *edit, const struct esp_selection *sel, const char *group,
                                    struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(edit);
  size_t lines = 0;
  for (size_t i = 0; i < sel->len; i++) { /* at most: those that are selected too have none */
    lines += esp_layout_place(view, &view->leaves[sel->leaves[i]])->leaves_len - 1;
  }
  if (lines == 0) {
    return ESP_OK;
  }
  if (!esp_edit_own(edit) || !esp_edit_reserve_changes(edit, lines)) {
    return esp_edit_failed(edit, esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a diff of %zu leaves", lines));
  }
  const struct esp_layout *layout = edit->layout;
  const struct esp_group *to = esp_layout_group(layout, group);
  to = to ? to : esp_layout_group(layout, ESP_GROUP_DEFAULT);
  regrouped_mark(edit, sel, to->name);
  for (size_t i = 0, selected = 0; i < layout->leaves_len; i++) {
    const struct esp_leaf *leaf = &layout->leaves[i];
    if (selected < sel->len && sel->leaves[selected] == i) {
      selected++;
    } else if (edit->marks[leaf->param] != 0) {
      esp_edit_add_change(edit, &(struct esp_change){.leaf_id = leaf->id,
                                                     .path = leaf->path,
                                                     .field = "stepped_by",
                                                     .from = layout->groups[layout->params[leaf->param].group].name,
                                                     .to = to->name,
                                                     .because = layout->leaves[edit->marks[leaf->param] - 1].path});
    }
  }
  return ESP_OK;
}

static void group_note(struct esp_edit *edit, const char *name, const char *from, const char *to) {
  esp_edit_add_change(edit,
                      &(struct esp_change){.path = name, .field = "optimizer", .from = from, .to = to, .because = ""});
  edit->changed = true;
}

static void group_redefine(struct esp_edit *edit, struct esp_group *group, const char *expression,
                           struct esp_object *optim) {
  group_note(edit, group->name, group->expression, expression);
  esp_object_ref(optim);
  esp_object_unref(group->optim);
  group->optim = optim;
  group->expression = expression;
}

static void group_insert(struct esp_edit *edit, size_t at, struct esp_group group) {
  struct esp_layout *layout = edit->layout;
  memmove(&layout->groups[at + 1], &layout->groups[at], (layout->groups_len - at) * sizeof group);
  layout->groups[at] = group;
  layout->groups_len++;
  esp_object_ref(group.optim);
  group_note(edit, group.name, "", group.expression);
  followers_note(edit, group.name, at, true);
}

static enum esp_code group_define(struct esp_edit *edit, const char *name, const char *expression,
                                  struct esp_object *optim, struct esp_status *st) {
  const struct esp_layout *now = esp_edit_now(edit);
  size_t at = groups_from(now, name);
  bool is_there = at < now->groups_len && strcmp(now->groups[at].name, name) == 0;
  if (is_there && strcmp(now->groups[at].expression, expression) == 0) {
    return ESP_OK;
  }
  if (!is_there && now->groups_len >= ESP_GROUPS_MAX) {
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "there are %d groups already", ESP_GROUPS_MAX);
  }
  const char *text = NULL;
  if (esp_edit_own(edit) && (text = esp_edit_text(edit, expression, strlen(expression)))) {
    struct esp_layout *layout = edit->layout;
    if (is_there && esp_edit_reserve_changes(edit, 1)) {
      group_redefine(edit, &layout->groups[at], text, optim);
      return ESP_OK;
    }
    const char *own = is_there ? NULL : esp_edit_text(edit, name, strlen(name));
    if (own && esp_edit_reserve_changes(edit, 1 + followers_count(layout, name)) &&
        esp_edit_lengthen(&layout->groups, layout->groups_len + 1, sizeof *layout->groups)) {
      group_insert(edit, at, (struct esp_group){.name = own, .expression = text, .optim = optim});
      return ESP_OK;
    }
  }
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for group \"%s\"", name);
}

enum esp_code esp_edit_group(struct esp_edit *edit, const char *name, const char *expression, struct esp_object *optim,
                             struct esp_status *st) {
  enum esp_code code = esp_name_check("group", name, st);
  if (code == ESP_OK) {
    esp_edit_settle(edit);
    code = group_define(edit, name, expression, optim, st);
  }
  return esp_edit_failed(edit, code);
}

static enum esp_code group_unknown(const struct esp_layout *layout, const char *name, struct esp_status *st) {
  char known[NAMES_TEXT_MAX] = "";
  size_t len = 0;
  for (size_t i = 0; i < layout->groups_len; i++) {
    len = names_add(known, len, layout->groups[i].name);
  }
  char text[ESP_PATH_TEXT_MAX];
  return esp_fail(st, ESP_NOT_FOUND, "no group is called \"%s\"; there are %s",
                  esp_path_print(name, strlen(name), text, sizeof text), known);
}

static void group_drop(struct esp_edit *edit, size_t at) {
  struct esp_layout *layout = edit->layout;
  struct esp_group group = layout->groups[at];
  layout->groups_len--;
  memmove(&layout->groups[at], &layout->groups[at + 1], (layout->groups_len - at) * sizeof group);
  esp_object_unref(group.optim);
  group_note(edit, group.name, group.expression, "");
  followers_note(edit, group.name, at, false);
}

enum esp_code esp_edit_group_delete(struct esp_edit *edit, const char *name, struct esp_status *st) {
  if (strcmp(name, ESP_GROUP_DEFAULT) == 0) {
    return esp_edit_failed(edit, esp_fail(st, ESP_FAILED_PRECONDITION,
                                          "group \"" ESP_GROUP_DEFAULT
                                          "\" can't be deleted: it steps what no other group does"));
  }
  esp_edit_settle(edit);
  const struct esp_layout *now = esp_edit_now(edit);
  size_t at = groups_from(now, name);
  if (at == now->groups_len || strcmp(now->groups[at].name, name) != 0) {
    return esp_edit_failed(edit, group_unknown(now, name, st));
  }
  if (!esp_edit_own(edit) || !esp_edit_reserve_changes(edit, 1 + followers_count(now, name))) {
    return esp_edit_failed(edit, esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory to delete group \"%s\"", name));
  }
  group_drop(edit, at);
  return ESP_OK;
}

/* ---- named selections ---- */

static enum esp_code selection_unknown(const struct esp_layout *layout, const char *name, struct esp_status *st) {
  char known[NAMES_TEXT_MAX] = "";
  size_t len = 0;
  for (size_t i = 0; i < layout->selections_len; i++) {
    len = names_add(known, len, layout->selections[i].name);
  }
  return esp_fail(st, ESP_NOT_FOUND, "no selection is called \"%s\"%s%s", name, len > 0 ? "; there are " : "", known);
}

/* `@name`, which the line's path is. */
static const char *selection_path(struct esp_edit *edit, const char *name) {
  char text[ESP_NAME_BYTES_MAX + 2];
  int len = snprintf(text, sizeof text, "@%s", name);
  return esp_edit_text(edit, text, (size_t)len);
}

/* Puts the selection at its index, replaces it, or takes it away (text ""). There is memory. */
static void selection_put(struct esp_layout *layout, size_t at, bool is_there, struct esp_named_selection sel) {
  struct esp_named_selection *selections = layout->selections;
  size_t behind = layout->selections_len - at;
  if (*sel.text == '\0') {
    memmove(selections + at, selections + at + 1, (behind - 1) * sizeof sel);
    layout->selections_len--;
    return;
  }
  if (!is_there) {
    memmove(selections + at + 1, selections + at, behind * sizeof sel);
    layout->selections_len++;
  }
  selections[at] = sel;
}

static enum esp_code selection_name(struct esp_edit *edit, const char *name, const char *text, struct esp_status *st) {
  const struct esp_layout *now = esp_edit_now(edit);
  size_t at = 0;
  while (at < now->selections_len && strcmp(now->selections[at].name, name) < 0) {
    at++;
  }
  bool is_there = at < now->selections_len && strcmp(now->selections[at].name, name) == 0;
  const char *from = is_there ? now->selections[at].text : "";
  if (!is_there && *text == '\0') {
    return selection_unknown(now, name, st);
  }
  if (strcmp(from, text) == 0) {
    return ESP_OK;
  }
  if (!is_there && now->selections_len >= ESP_SELECTIONS_MAX) {
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "there are %d named selections already", ESP_SELECTIONS_MAX);
  }
  const char *path = NULL;
  const char *to = NULL;
  if (esp_edit_own(edit) && esp_edit_reserve_changes(edit, 1) && (path = selection_path(edit, name)) &&
      (to = esp_edit_text(edit, text, strlen(text))) &&
      esp_edit_lengthen(&edit->layout->selections, now->selections_len + 1, sizeof *now->selections)) {
    selection_put(edit->layout, at, is_there, (struct esp_named_selection){.name = path + 1, .text = to});
    esp_edit_add_change(
        edit, &(struct esp_change){.path = path, .field = "selection", .from = from, .to = to, .because = ""});
    edit->changed = true;
    return ESP_OK;
  }
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for selection \"%s\"", name);
}

enum esp_code esp_edit_name_selection(struct esp_edit *edit, const char *name, const char *text,
                                      struct esp_status *st) {
  enum esp_code code = esp_name_check("selection", name, st);
  if (code == ESP_OK && *text) {
    struct esp_status why;
    code = esp_selector_check(text, strlen(text), &why);
    code = code == ESP_OK ? esp_selection_check(esp_edit_now(edit), name, text, st)
                          : esp_fail(st, code, "selection \"%s\": %s", name, why.message);
  }
  code = code == ESP_OK ? selection_name(edit, name, text, st) : code;
  return esp_edit_failed(edit, code);
}

/* ---- tags ---- */

size_t esp_layout_tags_from(const struct esp_layout *layout, const char *node, size_t len) {
  size_t low = 0;
  size_t high = layout->tags_len;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    bool is_before = esp_path_compare(layout->tags[middle].node, layout->tags[middle].node_len, node, len) < 0;
    low = is_before ? middle + 1 : low;
    high = is_before ? high : middle;
  }
  return low;
}

const struct esp_node_tag *esp_layout_tag(const struct esp_layout *layout, const char *node, size_t node_len) {
  size_t at = esp_layout_tags_from(layout, node, node_len);
  bool is_there = at < layout->tags_len && layout->tags[at].node_len == node_len &&
                  memcmp(layout->tags[at].node, node, node_len) == 0;
  return is_there ? &layout->tags[at] : NULL;
}

static enum esp_code tag_check(const struct esp_layout *now, const char *node, size_t node_len, const char *tag,
                               struct esp_status *st) {
  enum esp_code code = node_len > 0 ? esp_path_check(node, node_len, st) : ESP_OK;
  code = code == ESP_OK && *tag ? esp_name_check("tag", tag, st) : code;
  if (code == ESP_OK && node_len > 0 && esp_layout_leaf_by_path(now, node, node_len)) {
    char text[ESP_PATH_TEXT_MAX];
    code = esp_fail(st, ESP_INVALID_ARGUMENT, "\"%s\" is a leaf: it has the tag that it was declared with",
                    esp_path_print(node, node_len, text, sizeof text));
  }
  return code;
}

enum esp_code esp_edit_tag(struct esp_edit *edit, const char *node, size_t node_len, const char *tag,
                           struct esp_status *st) {
  enum esp_code code = tag_check(esp_edit_now(edit), node, node_len, tag, st);
  if (code != ESP_OK) {
    return esp_edit_failed(edit, code);
  }
  const struct esp_node_tag *there = esp_layout_tag(esp_edit_now(edit), node, node_len);
  if (edit->tags.len == 0 && strcmp(there ? there->tag : "", tag) == 0) {
    return ESP_OK;
  }
  const char *path = NULL;
  const char *text = NULL;
  if (esp_edit_own(edit) && esp_edit_reserve_tags(edit, 1) && (path = esp_edit_text(edit, node, node_len)) &&
      (*tag == '\0' || (text = esp_edit_text(edit, tag, strlen(tag))))) {
    esp_pendings_add(&edit->tags, path, node_len, &(struct esp_pending){.text = text, .because = ""});
    return ESP_OK;
  }
  return esp_edit_failed(edit, esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a tag"));
}
