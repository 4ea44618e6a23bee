/* Operations about groups: which parameters belong to one, and what their optimizer is. The states that another
 * optimizer wants are seen to at the transaction's end (esp_work_settle). */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "engine/operations.h"

static void group_optim_destroy(struct esp_object *object) {
  struct esp_group_optim *optim = (struct esp_group_optim *)object;
  esp_optim_unref(optim->optim);
  esp_free(optim);
}

enum esp_code esp_group_optim_new(const char *name, struct esp_optim *optim, struct esp_group *ret,
                                  struct esp_status *st) {
  struct esp_group_optim *object = esp_calloc(1, sizeof(*object));
  if (object == NULL) {
    esp_optim_unref(optim);
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for group %s", name);
  }
  *object = (struct esp_group_optim){.object = {.refs = 1, .destroy = group_optim_destroy}, .optim = optim};
  *ret = (struct esp_group){.name = name, .expression = esp_optim_print(optim), .optim = &object->object};
  return ESP_OK;
}

/* ---- regroup ---- */

/* Everything below a node, also what is declared there later: assignments below it would win, and go. */
static enum esp_code assign_node(struct esp_transaction *tx, const char *node, const char *group,
                                 struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(tx->edit);
  size_t node_len = strlen(node), len = 0;
  struct esp_assignment *below = esp_malloc_array(view->assignments_len, sizeof(*below));
  if (below == NULL)
    return esp_transaction_memory(st);
  for (size_t i = 0; i < view->assignments_len; i++) {
    const struct esp_assignment *at = &view->assignments[i];
    if (at->node_len > node_len && esp_path_within(at->node, at->node_len, node, node_len))
      below[len++] = *at; /* their strings are the tree's names: they stay */
  }
  enum esp_code code = esp_edit_assign(tx->edit, node, node_len, group, st);
  for (size_t i = 0; i < len && code == ESP_OK; i++)
    code = esp_edit_unassign(tx->edit, below[i].node, below[i].node_len, st);
  esp_free(below);
  return code;
}

/* A parameter follows its primary leaf, which may lie elsewhere: those that are not in the group yet get an assignment
 * of their own. Looking after each of them would resolve all groups each time. */
static enum esp_code assign_primaries(struct esp_transaction *tx, const struct esp_selection *sel, const char *group,
                                      struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(tx->edit);
  const char **paths = esp_malloc_array(sel->len + 1, sizeof(*paths));
  size_t len = 0;
  if (paths == NULL)
    return esp_transaction_memory(st);
  for (size_t i = 0; i < sel->len; i++) {
    const struct esp_place *place = esp_layout_place(view, &view->leaves[sel->leaves[i]]);
    if (strcmp(place->group_assigned, group) != 0)
      paths[len++] = view->leaves[place->primary].path;
  }
  enum esp_code code = ESP_OK;
  for (size_t i = 0; i < len && code == ESP_OK; i++)
    code = esp_edit_assign(tx->edit, paths[i], strlen(paths[i]), group, st);
  esp_free(paths);
  return code;
}

/* The node that the selection names, or NULL where it is a pattern, a condition or one of the words that are. */
static const char *node_of(const struct esp_operation *op) {
  const char *const words[] = {"frozen", "tied", "detached"};
  if (strcmp(op->selection, "**") == 0)
    return "";
  for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
    if (strcmp(op->selection, words[i]) == 0)
      return NULL;
  }
  return esp_path_check(op->selection, strlen(op->selection), NULL) == ESP_OK ? op->selection : NULL;
}

enum esp_code esp_operation_regroup(struct esp_transaction *tx, const struct esp_operation *op,
                                    const struct esp_selection *sel, struct esp_status *st) {
  const char *node = node_of(op);
  tx->settles = true;
  enum esp_code code = esp_edit_note_regroup(tx->edit, sel, op->to, st);
  if (code == ESP_OK && node != NULL)
    code = assign_node(tx, node, op->to, st);
  if (code == ESP_OK)
    code = assign_primaries(tx, sel, op->to, st);
  if (code == ESP_OK && esp_layout_group(esp_edit_view(tx->edit), op->to) == NULL)
    esp_work_note(&tx->work, "group %s is not defined: %s steps what is assigned to it", op->to, ESP_GROUP_DEFAULT);
  return code;
}

/* ---- define, adjust ---- */

static enum esp_code put_group(struct esp_transaction *tx, const char *name, struct esp_optim *optim,
                               struct esp_status *st) {
  struct esp_group group;
  enum esp_code code = esp_group_optim_new(name, optim, &group, st);
  if (code != ESP_OK)
    return code;
  code = esp_edit_group(tx->edit, name, group.expression, group.optim, st);
  esp_object_unref(group.optim);
  tx->settles = true;
  return code;
}

enum esp_code esp_operation_define(struct esp_transaction *tx, const struct esp_operation *op, struct esp_status *st) {
  struct esp_optim *optim;
  struct esp_status why;
  enum esp_code code = esp_optim_parse(op->to, &optim, &why);
  if (code != ESP_OK)
    return esp_fail(st, code, "group %s: %s", op->name, why.message);
  return put_group(tx, op->name, optim, st);
}

static enum esp_code group_unknown(const struct esp_layout *layout, const char *name, struct esp_status *st) {
  char known[512];
  size_t used = 0;
  for (size_t i = 0; i < layout->groups_len && used < sizeof(known); i++)
    used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", i > 0 ? ", " : "", layout->groups[i].name);
  return esp_fail(st, ESP_NOT_FOUND, "there is no group %s; there are: %s", name, known);
}

enum esp_code esp_operation_adjust(struct esp_transaction *tx, const struct esp_operation *op, struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(tx->edit);
  const struct esp_group *group = esp_layout_group(view, op->name);
  if (group == NULL)
    return group_unknown(view, op->name, st);
  struct esp_optim *optim;
  struct esp_status why;
  enum esp_code code = esp_optim_adjust(esp_group_get_optim(group), op->hypers, op->hypers_len, &optim, &why);
  if (code != ESP_OK)
    return esp_fail(st, code, "group %s: %s", op->name, why.message);
  return put_group(tx, op->name, optim, st);
}
