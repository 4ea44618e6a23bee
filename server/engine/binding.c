/* Operations that bind leaves to other parameters, make new ones, or move values between them. A value is taken from
 * where it is at this commit (esp_work_give): into the new parameter itself, or into one that lives only until what is
 * made of it has been written. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "engine/operations.h"

static struct esp_param *param_of(const struct esp_layout *layout, uint32_t leaf) {
  return esp_place_param(esp_layout_place(layout, &layout->leaves[leaf]));
}

static bool is_transposed(enum esp_view view) {
  return view == ESP_VIEW_TRANSPOSE;
}

/* What `from` has at this commit is made part of `to` by an item of this kind. */
static enum esp_code blend(struct esp_transaction *tx, const char *path, struct esp_param *from, struct esp_param *to,
                           bool transposed, enum esp_item_kind kind, struct esp_status *st) {
  struct esp_shape shape = {.rank = 1, .dims = {to->elements}};
  struct esp_param *between = NULL;
  if (to->rows != 0)
    shape = (struct esp_shape){.rank = 2, .dims = {to->rows, to->cols}};
  enum esp_code code = esp_work_param_new(&tx->work, path, to->dtype, &shape, &between, st);
  if (code != ESP_OK)
    return code;
  struct esp_item item = {.kind = kind, .write = {.from = between->value->data}};
  bool done = esp_work_give(&tx->work, from, between, to, transposed, false) && esp_work_add(&tx->work, to, &item);
  esp_object_unref(&between->object); /* the work has its own */
  return done ? ESP_OK : esp_transaction_memory(st);
}

/* ---- tie ---- */

/* What of a leaf's former parameter is lost, where it differs. */
static void tie_note(struct esp_transaction *tx, const struct esp_layout *view, const struct esp_pair *pair) {
  const struct esp_leaf *leaf = &view->leaves[pair->from], *to = &view->leaves[pair->to];
  const struct esp_place *from_place = esp_layout_place(view, leaf), *to_place = esp_layout_place(view, to);
  if (from_place == to_place)
    return;
  const char *group = view->groups[from_place->group].name, *to_group = view->groups[to_place->group].name;
  if (strcmp(group, to_group) != 0)
    esp_work_note(&tx->work, "leaf %s was in group %s, and is stepped as %s, in group %s, now", leaf->path, group,
                  to->path, to_group);
  if (from_place->frozen != to_place->frozen)
    esp_work_note(&tx->work, "leaf %s was %s, and is %s as %s now", leaf->path, from_place->frozen ? "frozen" : "free",
                  to_place->frozen ? "frozen" : "free", to->path);
}

/* Before anything is tied: what the values of both are. A mean is of tensors that can be tied, and ends up in all
 * leaves that were tied to the target before. Where both are one parameter already nothing is overwritten. */
static enum esp_code tie_means(struct esp_transaction *tx, const struct esp_operation *op, const struct esp_pair *pairs,
                               size_t len, struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(tx->edit);
  struct esp_pair *moved = esp_malloc_array(len + 1, sizeof(*moved));
  size_t moved_len = 0;
  enum esp_code code = ESP_OK;
  if (moved == NULL)
    return esp_transaction_memory(st);
  for (size_t i = 0; i < len && code == ESP_OK; i++) {
    const struct esp_leaf *leaf = &view->leaves[pairs[i].from], *to = &view->leaves[pairs[i].to];
    bool transposed = (leaf->view != to->view) != is_transposed(op->view);
    code = esp_tie_check(view, pairs[i].from, pairs[i].to, op->view, st);
    if (code != ESP_OK || leaf->param == to->param)
      continue;
    moved[moved_len++] = pairs[i];
    code =
        blend(tx, to->path, param_of(view, pairs[i].from), param_of(view, pairs[i].to), transposed, ESP_ITEM_MEAN, st);
  }
  if (code == ESP_OK)
    code = esp_edit_touch_pairs(tx->edit, moved, moved_len, "mean with", st);
  esp_free(moved);
  return code;
}

static enum esp_code tie_pairs(struct esp_transaction *tx, const struct esp_operation *op, const struct esp_pair *pairs,
                               size_t len, struct esp_status *st) {
  enum esp_code code = op->mean ? tie_means(tx, op, pairs, len, st) : ESP_OK;
  const struct esp_layout *view = esp_edit_peek(tx->edit);
  for (size_t i = 0; i < len && code == ESP_OK; i++)
    tie_note(tx, view, &pairs[i]);
  for (size_t i = 0; i < len && code == ESP_OK; i++) /* no tie changes the order of leaves */
    code = esp_edit_tie(tx->edit, pairs[i].from, pairs[i].to, op->view, st);
  return code;
}

enum esp_code esp_operation_tie(struct esp_transaction *tx, const struct esp_operation *op, struct esp_status *st) {
  struct esp_pair *pairs = NULL;
  size_t len = 0;
  enum esp_code code = esp_pair_leaves(esp_edit_peek(tx->edit), op->selection, op->to, &pairs, &len, st);
  if (code == ESP_OK)
    code = esp_transaction_count(tx, len, st);
  tx->settles = true;
  if (code == ESP_OK)
    code = tie_pairs(tx, op, pairs, len, st);
  esp_free(pairs);
  return code;
}

/* ---- untie ---- */

struct untying {
  uint64_t *leaves; /* that got a parameter, in the order of the selection */
  uint64_t *from;
  enum esp_view *views;
  size_t len;
  uint64_t *ids;             /* of the selected leaves */
  struct esp_param **params; /* what they were bound to, ref'd */
  size_t ids_len;
};

static void untying_done(struct untying *untying) {
  for (size_t i = 0; i < untying->ids_len; i++)
    esp_object_unref(&untying->params[i]->object);
  esp_free(untying->leaves);
  esp_free(untying->from);
  esp_free(untying->views);
  esp_free(untying->ids);
  esp_free(untying->params);
}

static enum esp_code untying_init(struct untying *untying, const struct esp_layout *view,
                                  const struct esp_selection *sel, struct esp_status *st) {
  *untying = (struct untying){0};
  untying->leaves = esp_malloc_array(sel->len + 1, sizeof(*untying->leaves));
  untying->from = esp_malloc_array(sel->len + 1, sizeof(*untying->from));
  untying->views = esp_malloc_array(sel->len + 1, sizeof(*untying->views));
  untying->ids = esp_malloc_array(sel->len + 1, sizeof(*untying->ids));
  untying->params = esp_malloc_array(sel->len + 1, sizeof(struct esp_param *));
  if (untying->leaves == NULL || untying->from == NULL || untying->views == NULL || untying->ids == NULL ||
      untying->params == NULL)
    return esp_transaction_memory(st);
  for (; untying->ids_len < sel->len; untying->ids_len++) {
    untying->ids[untying->ids_len] = view->leaves[sel->leaves[untying->ids_len]].id;
    untying->params[untying->ids_len] = param_of(view, sel->leaves[untying->ids_len]);
    esp_object_ref(&untying->params[untying->ids_len]->object);
  }
  return ESP_OK;
}

/* A parameter of its own for a leaf, with what it had. */
static enum esp_code untie_leaf(struct esp_transaction *tx, const struct esp_operation *op, uint64_t id,
                                struct esp_param *from, enum esp_view seen, struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(tx->edit);
  const struct esp_leaf *leaf = esp_layout_leaf_by_id(view, id);
  const struct esp_place *place = esp_layout_place(view, leaf);
  struct esp_param *param = NULL;
  enum esp_code code = esp_work_param_new(&tx->work, leaf->path, place->dtype, &place->shape, &param, st);
  if (code != ESP_OK)
    return code;
  esp_edit_bind(tx->edit, id, &param->object);
  bool with_state = from->optim != NULL && !op->reset_state; /* where it is new itself there is none yet */
  if (with_state)
    code = esp_room_check(tx->engine, leaf->path, esp_param_state_bytes(from), st);
  if (code != ESP_OK)
    return code;
  if ((with_state && !esp_param_add_states(param, from->optim)) ||
      !esp_work_give(&tx->work, from, param, param, is_transposed(seen), with_state))
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "leaf %s: no memory for its optimizer state", leaf->path);
  return ESP_OK;
}

enum esp_code esp_operation_untie(struct esp_transaction *tx, const struct esp_operation *op,
                                  const struct esp_selection *sel, struct esp_status *st) {
  struct untying untying;
  tx->settles = true;
  enum esp_code code = untying_init(&untying, esp_edit_view(tx->edit), sel, st);
  if (code == ESP_OK)
    code = esp_edit_untie(tx->edit, sel, untying.leaves, untying.from, untying.views, &untying.len, st);
  for (size_t i = 0, k = 0; i < untying.len && code == ESP_OK; i++) {
    while (untying.ids[k] != untying.leaves[i]) { /* in the order of the selection */
      k++;
      ESP_CHECK(k < untying.ids_len);
    }
    code = untie_leaf(tx, op, untying.leaves[i], untying.params[k], untying.views[i], st);
  }
  untying_done(&untying);
  return code;
}

/* ---- copy ---- */

static enum esp_code copy_check(const struct esp_layout *view, const struct esp_pair *pair, struct esp_status *st) {
  const struct esp_leaf *from = &view->leaves[pair->from], *to = &view->leaves[pair->to];
  struct esp_shape a = esp_layout_shape(view, from), b = esp_layout_shape(view, to);
  enum esp_dtype a_dtype = esp_layout_place(view, from)->dtype, b_dtype = esp_layout_place(view, to)->dtype;
  char text[2][ESP_SHAPE_TEXT_MAX];
  if (from->kind != to->kind)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s and leaf %s: one is a buffer, the other is trained", from->path,
                    to->path);
  if (esp_shape_equal(&a, &b) && a_dtype == b_dtype)
    return ESP_OK;
  return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s is %s %s, and leaf %s %s %s", from->path, esp_dtype_name(a_dtype),
                  esp_shape_print(&a, text[0]), to->path, esp_dtype_name(b_dtype), esp_shape_print(&b, text[1]));
}

enum esp_code esp_operation_copy(struct esp_transaction *tx, const struct esp_operation *op, struct esp_status *st) {
  struct esp_pair *pairs = NULL;
  size_t len = 0, moved = 0;
  const struct esp_layout *view = esp_edit_view(tx->edit);
  enum esp_code code = esp_pair_leaves(view, op->selection, op->to, &pairs, &len, st);
  if (code == ESP_OK)
    code = esp_transaction_count(tx, len, st);
  for (size_t i = 0; i < len && code == ESP_OK; i++) {
    const struct esp_leaf *leaf = &view->leaves[pairs[i].from], *to = &view->leaves[pairs[i].to];
    code = copy_check(view, &pairs[i], st);
    if (code != ESP_OK || (leaf->param == to->param && leaf->view == to->view))
      continue; /* the same tensor */
    pairs[moved++] = pairs[i];
    code = blend(tx, to->path, esp_place_param(esp_layout_place(view, leaf)),
                 esp_place_param(esp_layout_place(view, to)), leaf->view != to->view, ESP_ITEM_WRITE, st);
  }
  if (code == ESP_OK)
    code = esp_edit_touch_pairs(tx->edit, pairs, moved, "copied from", st);
  esp_free(pairs);
  return code;
}

/* ---- add ---- */

static enum esp_code add_param(struct esp_transaction *tx, const struct esp_declare_leaf *leaf, uint64_t id,
                               struct esp_status *st) {
  struct esp_param *param = NULL;
  enum esp_code code = esp_work_param_new(&tx->work, leaf->path, leaf->dtype, &leaf->shape, &param, st);
  if (code != ESP_OK)
    return code;
  esp_edit_bind(tx->edit, id, &param->object);
  struct esp_item item = {.kind = ESP_ITEM_FILL, .fill = {.init = leaf->init}};
  if (leaf->init.kind == ESP_INIT_ZEROS || esp_work_add(&tx->work, param, &item))
    return ESP_OK;
  return esp_transaction_memory(st);
}

/* The leaf that an alias is to be tied to, by its index. */
static enum esp_code alias_target(const struct esp_layout *view, const struct esp_alias *alias, uint32_t *ret,
                                  struct esp_status *st) {
  const struct esp_leaf *leaf = esp_layout_leaf_by_id(view, alias->id);
  const struct esp_leaf *to = esp_layout_leaf_by_path(view, alias->of, strlen(alias->of));
  if (to != NULL) {
    *ret = (uint32_t)(to - view->leaves);
    return ESP_OK;
  }
  struct esp_status why;
  enum esp_code code = esp_leaf_unknown(view, alias->of, strlen(alias->of), &why);
  return esp_fail(st, code, "leaf %s: %s", leaf->path, why.message);
}

/* Those that are left wait for each other. */
static enum esp_code alias_circle(const struct esp_layout *view, const struct esp_pair *pairs, const uint8_t *waits,
                                  struct esp_status *st) {
  while (!waits[pairs->from])
    pairs++;
  return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s is an alias of %s, which leads back to an alias: a circle",
                  view->leaves[pairs->from].path, view->leaves[pairs->to].path);
}

/* Ties those whose target is no alias that waits itself. No tie changes the order of leaves. */
static enum esp_code tie_ready(struct esp_edit *edit, const struct esp_alias *aliases, const struct esp_pair *pairs,
                               size_t len, uint8_t *waits, size_t *ret_tied, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  for (size_t i = 0; i < len && code == ESP_OK; i++) {
    if (!waits[pairs[i].from] || waits[pairs[i].to])
      continue;
    code = esp_edit_tie(edit, pairs[i].from, pairs[i].to, aliases[i].view, st);
    waits[pairs[i].from] = 0;
    ++*ret_tied;
  }
  return code;
}

/* Freezes those that are born frozen. chosen: one a leaf of the view, zeros. */
static enum esp_code freeze_born(struct esp_edit *edit, const struct esp_alias *aliases, const struct esp_pair *pairs,
                                 size_t len, uint8_t *chosen, struct esp_status *st) {
  size_t leaves_len = esp_edit_view(edit)->leaves_len;
  struct esp_selection sel = {.leaves = esp_malloc_array(len + 1, sizeof(uint32_t))};
  if (sel.leaves == NULL)
    return esp_transaction_memory(st);
  for (size_t i = 0; i < len; i++)
    chosen[pairs[i].from] = aliases[i].frozen;
  for (size_t i = 0; i < leaves_len; i++) {
    if (chosen[i])
      sel.leaves[sel.len++] = (uint32_t)i;
  }
  enum esp_code code = sel.len == 0 ? ESP_OK : esp_edit_freeze(edit, &sel, true, st);
  esp_selection_done(&sel);
  return code;
}

enum esp_code esp_tie_aliases(struct esp_edit *edit, const struct esp_alias *aliases, size_t len,
                              struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(edit);
  struct esp_pair *pairs = esp_malloc_array(len + 1, sizeof(*pairs));
  uint8_t *waits = esp_calloc(view->leaves_len + 1, 1);
  if (pairs == NULL || waits == NULL) {
    esp_free(pairs);
    esp_free(waits);
    return esp_transaction_memory(st);
  }
  enum esp_code code = ESP_OK;
  for (size_t i = 0; i < len && code == ESP_OK; i++) {
    pairs[i].from = (uint32_t)(esp_layout_leaf_by_id(view, aliases[i].id) - view->leaves);
    waits[pairs[i].from] = 1;
    code = alias_target(view, &aliases[i], &pairs[i].to, st);
  }
  for (size_t tied = 0, before = SIZE_MAX; tied < len && code == ESP_OK;) {
    if (tied == before)
      code = alias_circle(view, pairs, waits, st);
    before = tied;
    if (code == ESP_OK)
      code = tie_ready(edit, aliases, pairs, len, waits, &tied, st);
  }
  if (code == ESP_OK)
    code = freeze_born(edit, aliases, pairs, len, waits, st);
  esp_free(pairs);
  esp_free(waits);
  return code;
}

static struct esp_leaf_new leaf_new(const struct esp_declare_leaf *leaf) {
  return (struct esp_leaf_new){.path = leaf->path,
                               .path_len = leaf->path_len,
                               .shape = leaf->shape,
                               .dtype = leaf->dtype,
                               .kind = leaf->kind,
                               .tag = leaf->tag,
                               .group = leaf->group,
                               .frozen = leaf->frozen && leaf->alias_of[0] == '\0',
                               .detached = leaf->detached,
                               .again = true};
}

static enum esp_code add_check(const struct esp_transaction *tx, const struct esp_declare_leaf *leaf,
                               struct esp_status *st) {
  enum esp_code code = esp_declare_leaf_check(tx->engine, leaf, st);
  if (code == ESP_OK && leaf->init.kind == ESP_INIT_VALUE)
    code = esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: its value can't follow: add it, then set it", leaf->path);
  return code;
}

enum esp_code esp_operation_add(struct esp_transaction *tx, const struct esp_operation *op, struct esp_status *st) {
  const struct esp_declare_leaf *leaf = op->leaf;
  struct esp_leaf_new new = leaf_new(leaf);
  uint64_t id;
  bool added;
  tx->settles = true;
  enum esp_code code = add_check(tx, leaf, st);
  if (code == ESP_OK)
    code = esp_transaction_count(tx, 1, st);
  if (code == ESP_OK)
    code = esp_edit_add(tx->edit, &new, 1, &id, &added, st);
  if (code != ESP_OK)
    return code;
  if (!added)
    return esp_fail(st, ESP_FAILED_PRECONDITION, "leaf %s is there already", leaf->path);
  const struct esp_alias alias = {.id = id, .of = leaf->alias_of, .view = leaf->view, .frozen = leaf->frozen};
  if (alias.of[0] != '\0')
    return esp_tie_aliases(tx->edit, &alias, 1, st);
  return add_param(tx, leaf, id, st);
}

/* How many of the first operations add a leaf that has nothing against it by itself, and no alias. */
static size_t adds_plain(const struct esp_transaction *tx, const struct esp_operation *ops, size_t len,
                         struct esp_leaf_new *leaves) {
  size_t n = 0;
  if (tx->max_leaves != 0 && len > tx->max_leaves - tx->matched)
    len = (size_t)(tx->max_leaves - tx->matched);
  while (n < len && ops[n].kind == ESP_OPERATION_ADD && ops[n].leaf->alias_of[0] == '\0' &&
         add_check(tx, ops[n].leaf, NULL) == ESP_OK) {
    leaves[n] = leaf_new(ops[n].leaf);
    n++;
  }
  return n;
}

/* One by one each would take a walk over the tree. Where something is against one of them, half as many are tried, so
 * that soon it is the first and only one. */
enum esp_code esp_operation_adds(struct esp_transaction *tx, const struct esp_operation *ops, size_t len,
                                 size_t *ret_done, struct esp_status *st) {
  struct esp_leaf_new *leaves = esp_malloc_array(len, sizeof(*leaves));
  uint64_t *ids = esp_malloc_array(len, sizeof(*ids));
  size_t n = leaves == NULL || ids == NULL ? 0 : adds_plain(tx, ops, len, leaves);
  while (n > 1 && !esp_edit_add_new(tx->edit, leaves, n, ids))
    n /= 2;
  enum esp_code code = ESP_OK;
  if (n > 1) {
    tx->settles = true;
    code = esp_transaction_count(tx, n, st);
    for (*ret_done = 0; *ret_done < n && code == ESP_OK; *ret_done += code == ESP_OK)
      code = add_param(tx, ops[*ret_done].leaf, ids[*ret_done], st);
  } else {
    code = esp_operation_add(tx, ops, st);
    *ret_done = code == ESP_OK;
  }
  esp_free(leaves);
  esp_free(ids);
  return code;
}
