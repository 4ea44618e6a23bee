/* Random transactions of every edit, against a naive model: what the layout is, what base stays, and that the diff,
 * line by line, leads from one to the other. ESP_SEED=n runs from another seed, ESP_ROUNDS=n more of them. */
#include <stdio.h>

#include "edit_random_compare.h"

enum { ROUNDS = 400, TRANSACTIONS = 60 };

/* ---- random things ---- */

struct run {
  uint64_t seed;
  bool is_uniform; /* any leaf can be tied to any other, and most operations are of bindings */
  struct model model;
  struct model before; /* at the transaction's beginning */
  struct esp_edit *edit;
  uint64_t tried[32]; /* by index of an operation */
  uint64_t accepted[32];
};

static uint64_t draw(struct run *run, uint64_t below) {
  return esp_test_random(&run->seed) % below;
}

static void random_path(struct run *run, char path[TEXT]) {
  static const char *const components[] = {"a", "b", "a-", "c0"};
  size_t len = 0;
  for (uint64_t n = 1 + draw(run, 3); n > 0; n--) {
    len += (size_t)snprintf(path + len, TEXT - len, "%s%s", len > 0 ? "." : "", components[draw(run, 4)]);
  }
}

/* A path of the tree, or the node above one, most often. */
static void random_node(struct run *run, char node[TEXT]) {
  random_path(run, node);
  if (run->model.leaves_len > 0 && draw(run, 8) > 0) {
    snprintf(node, TEXT, "%s", run->model.leaves[draw(run, run->model.leaves_len)].path);
    char *dot = strrchr(node, '.');
    if (dot && draw(run, 2) == 0) {
      *dot = '\0';
    }
  }
}

static const char *random_group(struct run *run) {
  static const char *const names[] = {"default", "head", "ghost", "late", "early"};
  return names[draw(run, 5)];
}

/* Leaves by id in the order of their indices, and the selection of them. */
static struct esp_selection random_selection(struct run *run, uint64_t ids[LEAVES]) {
  struct esp_selection sel = {.leaves = esp_malloc_array(LEAVES, sizeof *sel.leaves)};
  uint64_t odds = 1 + draw(run, 12);
  uint64_t by_index[LEAVES] = {0};
  for (size_t i = 0; i < run->model.leaves_len; i++) {
    by_index[model_index(&run->model, &run->model.leaves[i])] = run->model.leaves[i].id;
  }
  for (uint32_t i = 0; i < run->model.leaves_len; i++) {
    if (draw(run, odds) == 0) {
      ids[sel.len] = by_index[i];
      sel.leaves[sel.len++] = i;
    }
  }
  return sel;
}

static struct esp_shape random_shape(struct run *run) {
  static const struct esp_shape shapes[] = {
      {.dims = {2, 3}, .rank = 2}, {.dims = {3, 2}, .rank = 2}, {.dims = {2, 2}, .rank = 2}, {.dims = {4}, .rank = 1}};
  return shapes[run->is_uniform ? 2 : draw(run, 4)];
}

/* ---- operations: done to the edit and to the model; whether they are to succeed ---- */

typedef enum esp_code (*operation)(struct run *run, bool *ret_expected);

static enum esp_code op_add(struct run *run, bool *ret_expected) {
  struct model *model = &run->model;
  char path[TEXT];
  random_path(run, path);
  struct esp_leaf_new leaf = leaf_of(path);
  leaf.shape = random_shape(run);
  leaf.dtype = run->is_uniform || draw(run, 6) ? ESP_DTYPE_F32 : ESP_DTYPE_F64;
  leaf.kind = run->is_uniform || draw(run, 6) ? ESP_KIND_TRAINED : ESP_KIND_BUFFER;
  leaf.frozen = draw(run, 4) == 0;
  leaf.detached = draw(run, 4) == 0;
  leaf.again = draw(run, 4) == 0;
  leaf.group = draw(run, 4) ? "" : random_group(run);
  *ret_expected = leaf.again || !note_find(&model->removed, path);
  const struct model_leaf *there = NULL;
  for (size_t i = 0; i < model->leaves_len; i++) {
    struct model_leaf *other = &model->leaves[i];
    struct esp_shape shape = leaf_shape(model, other);
    if (strcmp(other->path, path) == 0) {
      there = other;
      *ret_expected = esp_shape_equal(&shape, &leaf.shape) && other->kind == leaf.kind &&
                      model_param(model, other->param)->dtype == leaf.dtype;
    } else if (naive_within(path, other->path) || naive_within(other->path, path)) {
      *ret_expected = false;
    }
  }
  if (!there && model->leaves_len == LEAVES) {
    *ret_expected = true;
    return ESP_OK;
  }
  uint64_t id;
  bool added;
  enum esp_code code = esp_edit_add(run->edit, &leaf, 1, &id, &added, NULL);
  if (code != ESP_OK || !*ret_expected) {
    return code;
  }
  assert_int_equal(added, !there);
  assert_int_equal(id, there ? there->id : model->leaf_id_next);
  if (added) {
    esp_edit_bind(run->edit, id, object_new());
    struct model_leaf *new = &model->leaves[model->leaves_len++];
    *new = (struct model_leaf){.id = model->leaf_id_next++, .param = model->param_id_next++, .kind = leaf.kind};
    snprintf(new->path, sizeof new->path, "%s", path);
    new->detached = leaf.detached &&leaf.kind == ESP_KIND_TRAINED;
    struct model_param *param = &model->params[model->params_len++];
    *param = (struct model_param){.id = new->param, .primary = new->id, .shape = leaf.shape, .dtype = leaf.dtype};
    param->frozen = leaf.frozen;
    if (*leaf.group) {
      note_set(&model->assignments, path, leaf.group);
    }
    note_set(&model->removed, path, NULL);
    groups_follow(model);
  }
  return code;
}

static enum esp_code op_freeze(struct run *run, bool *ret_expected) {
  *ret_expected = true;
  uint64_t ids[LEAVES];
  struct esp_selection sel = random_selection(run, ids);
  bool frozen = draw(run, 2);
  enum esp_code code = esp_edit_freeze(run->edit, &sel, frozen, NULL);
  for (size_t i = 0; i < sel.len; i++) {
    uint64_t param = model_leaf(&run->model, ids[i])->param;
    model_param(&run->model, param)->frozen = frozen;
    model_param(&run->model, param)->timer = 0;
    touch_param(&run->model, param);
  }
  esp_selection_done(&sel);
  return code;
}

/* A new timer, one that waits, or none. */
static enum esp_code op_timer(struct run *run, bool *ret_expected) {
  struct model *model = &run->model;
  *ret_expected = true;
  uint64_t ids[LEAVES];
  struct esp_selection sel = random_selection(run, ids);
  struct esp_timer timer = {.due = (enum esp_timer_due)(1 + draw(run, 3)),
                            .at = draw(run, 9),
                            .after = draw(run, 9),
                            .frozen = draw(run, 2),
                            .selection = "a"};
  bool is_none = draw(run, 5) == 0;
  const struct model_param *other = model->params_len > 0 ? &model->params[draw(run, model->params_len)] : NULL;
  if (!is_none && other && draw(run, 3) == 0) {
    timer.id = other->timer;
  }
  uint64_t id = is_none ? 0 : timer.id != 0 ? timer.id : model->timer_id_next;
  enum esp_code code = esp_edit_timer(run->edit, &sel, is_none ? NULL : &timer, NULL);
  for (size_t i = 0; i < sel.len; i++) {
    model_param(model, model_leaf(model, ids[i])->param)->timer = id;
  }
  model->timer_id_next += sel.len > 0 && id == model->timer_id_next;
  esp_selection_done(&sel);
  return code;
}

static enum esp_code op_cancel_timer(struct run *run, bool *ret_expected) {
  struct model *model = &run->model;
  uint64_t id = draw(run, 8) == 0 ? draw(run, model->timer_id_next) : 0;
  *ret_expected = false;
  for (size_t i = 0; i < model->params_len; i++) {
    id = id == 0 ? model->params[i].timer : id;
  }
  for (size_t i = 0; i < model->params_len; i++) {
    struct model_param *param = &model->params[i];
    *ret_expected = *ret_expected || (id != 0 && param->timer == id);
    param->timer = param->timer == id ? 0 : param->timer;
  }
  if (!*ret_expected && draw(run, 4) > 0) {
    *ret_expected = true;
    return ESP_OK;
  }
  return esp_edit_cancel_timer(run->edit, id, NULL);
}

static enum esp_code op_detach(struct run *run, bool *ret_expected) {
  *ret_expected = true;
  uint64_t ids[LEAVES];
  struct esp_selection sel = random_selection(run, ids);
  bool detached = draw(run, 2);
  enum esp_code code = esp_edit_detach(run->edit, &sel, detached, NULL);
  for (size_t i = 0; i < sel.len; i++) {
    struct model_leaf *leaf = model_leaf(&run->model, ids[i]);
    leaf->detached = leaf->kind == ESP_KIND_TRAINED && detached;
    leaf->is_touched = true;
  }
  esp_selection_done(&sel);
  return code;
}

static enum esp_code op_tie(struct run *run, bool *ret_expected) {
  struct model *model = &run->model;
  *ret_expected = true;
  if (model->leaves_len == 0) {
    return ESP_OK;
  }
  struct model_leaf *leaf = &model->leaves[draw(run, model->leaves_len)];
  struct model_leaf *to = &model->leaves[draw(run, model->leaves_len)];
  enum esp_view view = draw(run, 2) ? ESP_VIEW_TRANSPOSE : ESP_VIEW_IDENTITY;
  struct esp_shape shape = leaf_shape(model, leaf);
  struct esp_shape seen = leaf_shape(model, to);
  if (view == ESP_VIEW_TRANSPOSE && seen.rank == 2) {
    seen = transposed(seen);
  }
  struct model_param *old = model_param(model, leaf->param);
  *ret_expected = leaf != to && leaf->kind == to->kind && old->dtype == model_param(model, to->param)->dtype &&
                  esp_shape_equal(&shape, &seen) && !(view == ESP_VIEW_TRANSPOSE && seen.rank != 2);
  if (!*ret_expected && draw(run, 16) > 0) { /* most are: the others should have their turn */
    *ret_expected = true;
    return ESP_OK;
  }
  enum esp_code code = esp_edit_tie(run->edit, model_index(model, leaf), model_index(model, to), view, NULL);
  if (code == ESP_OK && *ret_expected) {
    leaf->view = to->view == view ? ESP_VIEW_IDENTITY : ESP_VIEW_TRANSPOSE;
    leaf->param = to->param;
    leaf->is_touched = true;
    param_left(model, old->id);
    model->keep_is_due = true;
  }
  return code;
}

static enum esp_code op_untie(struct run *run, bool *ret_expected) {
  struct model *model = &run->model;
  *ret_expected = true;
  uint64_t ids[LEAVES];
  uint64_t leaves[LEAVES];
  uint64_t from[LEAVES];
  enum esp_view views[LEAVES];
  size_t len = 0;
  struct esp_selection sel = random_selection(run, ids);
  enum esp_code code = esp_edit_untie(run->edit, &sel, leaves, from, views, &len, NULL);
  struct model before = *model;
  size_t untied = 0;
  for (size_t i = 0; i < sel.len; i++) {
    struct model_leaf *leaf = model_leaf(model, ids[i]);
    size_t selected = 0;
    for (size_t j = 0; j < sel.len; j++) {
      selected += model_leaf(&before, ids[j])->param == leaf->param;
    }
    size_t bound = bound_len(&before, leaf->param);
    struct model_param *old = model_param(model, leaf->param);
    if (bound == 1 || (selected == bound && model_param(&before, leaf->param)->primary == leaf->id)) {
      continue;
    }
    assert_int_equal(leaves[untied], leaf->id);
    assert_int_equal(from[untied], leaf->param);
    assert_int_equal(views[untied], leaf->view);
    struct model_param *new = &model->params[model->params_len++];
    *new = *old;
    new->id = model->param_id_next++;
    new->primary = leaf->id;
    new->shape = leaf_shape(model, leaf);
    leaf->param = new->id;
    leaf->view = ESP_VIEW_IDENTITY;
    leaf->is_touched = true;
    untied++;
  }
  for (size_t i = 0; i < before.params_len; i++) {
    param_left(model, before.params[i].id);
  }
  groups_keep(model);
  assert_int_equal(len, untied);
  for (size_t i = 0; i < len; i++) {
    esp_edit_bind(run->edit, leaves[i], object_new());
  }
  esp_selection_done(&sel);
  return code;
}

static enum esp_code op_remove(struct run *run, bool *ret_expected) {
  struct model *model = &run->model;
  *ret_expected = true;
  uint64_t ids[LEAVES];
  struct esp_selection sel = random_selection(run, ids);
  sel.len = sel.len > 4 ? 4 : sel.len; /* the tree should not always be empty */
  enum esp_code code = esp_edit_remove(run->edit, &sel, NULL);
  for (size_t i = 0; i < sel.len; i++) {
    struct model_leaf *leaf = model_leaf(model, ids[i]);
    uint64_t param = leaf->param;
    note_set(&model->removed, leaf->path, "");
    *leaf = model->leaves[--model->leaves_len];
    param_left(model, param);
  }
  groups_keep(model);
  esp_selection_done(&sel);
  return code;
}

static enum esp_code op_rename(struct run *run, bool *ret_expected) {
  struct model *model = &run->model;
  char from[TEXT];
  char to[TEXT];
  random_node(run, from);
  random_path(run, to);
  size_t found = 0;
  bool is_alone = true;
  for (size_t i = 0; i < model->leaves_len; i++) {
    found += naive_within(model->leaves[i].path, from);
    is_alone = is_alone && !naive_within(model->leaves[i].path, to);
  }
  for (size_t i = 0; i < model->assignments.len; i++) {
    is_alone = is_alone && !naive_within(model->assignments.notes[i].name, to);
  }
  bool is_same = strcmp(from, to) == 0;
  *ret_expected = found > 0;
  struct model renamed = *model;
  for (size_t i = 0; i < model->leaves_len && !is_same; i++) {
    struct model_leaf *leaf = &renamed.leaves[i];
    if (naive_within(leaf->path, from)) {
      char path[2 * TEXT];
      snprintf(path, sizeof path, "%s%s", to, leaf->path + strlen(from));
      if (strlen(path) >= TEXT - 8) { /* the model's bound */
        *ret_expected = true;
        return ESP_OK;
      }
      memcpy(leaf->path, path, TEXT);
      leaf->is_touched = true;
      note_set(&renamed.removed, path, NULL);
    }
  }
  for (size_t i = 0; i < renamed.leaves_len; i++) {
    for (size_t j = 0; j < renamed.leaves_len; j++) {
      *ret_expected = *ret_expected && (i == j || !naive_within(renamed.leaves[i].path, renamed.leaves[j].path));
    }
  }
  enum esp_code code = esp_edit_rename(run->edit, from, strlen(from), to, strlen(to), NULL);
  if (code != ESP_OK || !*ret_expected || is_same) {
    return code;
  }
  char inherited[TEXT];
  snprintf(inherited, sizeof inherited, "%s", model_group(model, from, true));
  bool writes =
      is_alone && !note_find(&model->assignments, from) && strcmp(inherited, model_group(model, to, true)) != 0;
  bool inherits = false;
  for (size_t i = 0; i < model->params_len; i++) {
    inherits = inherits || (naive_within(model_leaf(model, model->params[i].primary)->path, from) &&
                            strcmp(model->params[i].group, inherited) == 0);
  }
  *model = renamed;
  size_t moved = 0;
  for (size_t i = 0; i < model->assignments.len; i++) {
    moved += naive_within(model->assignments.notes[i].name, from);
  }
  for (size_t i = 0; i < model->tags.len; i++) {
    moved += naive_within(model->tags.notes[i].name, from);
  }
  notes_move(&model->assignments, from, to);
  notes_move(&model->tags, from, to);
  if (writes && inherits) {
    note_set(&model->assignments, to, inherited);
    moved++;
  }
  model->keep_is_due = true;
  if (moved > 0) {
    groups_keep(model);
  }
  return code;
}

static enum esp_code op_assign(struct run *run, bool *ret_expected) {
  *ret_expected = true;
  char node[TEXT] = "";
  if (draw(run, 10) > 0) {
    random_node(run, node);
  }
  const char *group = random_group(run);
  enum esp_code code = esp_edit_assign(run->edit, node, strlen(node), group, NULL);
  note_set(&run->model.assignments, node, group);
  groups_follow(&run->model);
  return code;
}

static enum esp_code op_unassign(struct run *run, bool *ret_expected) {
  struct notes *assignments = &run->model.assignments;
  char node[TEXT];
  snprintf(node, sizeof node, "%s", assignments->notes[draw(run, assignments->len)].name);
  *ret_expected = *node != '\0';
  if (!*ret_expected && draw(run, 4) > 0) {
    *ret_expected = true;
    return ESP_OK;
  }
  enum esp_code code = esp_edit_unassign(run->edit, node, strlen(node), NULL);
  if (*ret_expected) {
    note_set(assignments, node, NULL);
    groups_follow(&run->model);
  }
  return code;
}

static void touch_followers(struct model *model, const char *group) {
  for (size_t i = 0; i < model->params_len; i++) {
    if (strcmp(model->params[i].group, group) == 0) {
      touch_param(model, model->params[i].id);
    }
  }
}

static enum esp_code op_group(struct run *run, bool *ret_expected) {
  *ret_expected = true;
  const char *name = random_group(run);
  char expression[TEXT];
  snprintf(expression, sizeof expression, "sgd(lr=%u)", (unsigned)draw(run, 4));
  struct esp_object *optim = object_new();
  enum esp_code code = esp_edit_group(run->edit, name, expression, optim, NULL);
  esp_object_unref(optim);
  note_set(&run->model.groups, name, expression);
  touch_followers(&run->model, name);
  return code;
}

static enum esp_code op_group_delete(struct run *run, bool *ret_expected) {
  const char *name = random_group(run);
  *ret_expected = strcmp(name, "default") != 0 && note_find(&run->model.groups, name);
  enum esp_code code = esp_edit_group_delete(run->edit, name, NULL);
  if (*ret_expected) {
    note_set(&run->model.groups, name, NULL);
    touch_followers(&run->model, name);
  }
  return code;
}

static enum esp_code op_selection(struct run *run, bool *ret_expected) {
  char name[] = "@s0";
  name[2] = (char)('0' + draw(run, 5));
  const char *text = draw(run, 3) ? (draw(run, 2) ? "a.**" : "b") : "";
  *ret_expected = *text || note_find(&run->model.selections, name);
  enum esp_code code = esp_edit_name_selection(run->edit, name + 1, text, NULL);
  note_set(&run->model.selections, name, *text ? text : NULL);
  return code;
}

static enum esp_code op_tag(struct run *run, bool *ret_expected) {
  char node[TEXT];
  random_node(run, node);
  *ret_expected = true;
  for (size_t i = 0; i < run->model.leaves_len; i++) {
    *ret_expected = *ret_expected && strcmp(run->model.leaves[i].path, node) != 0;
  }
  if (!*ret_expected && draw(run, 4) > 0) {
    *ret_expected = true;
    return ESP_OK;
  }
  const char *tag = draw(run, 3) ? (draw(run, 2) ? "Dense" : "Chain") : "";
  enum esp_code code = esp_edit_tag(run->edit, node, strlen(node), tag, NULL);
  if (*ret_expected) {
    note_set(&run->model.tags, node, *tag ? tag : NULL);
  }
  return code;
}

enum { OPERATIONS_OF_BINDINGS = 8 };
static const operation operations[] = {op_add,    op_add,      op_tie,         op_tie,    op_tie,          op_untie,
                                       op_remove, op_rename,   op_add,         op_freeze, op_detach,       op_assign,
                                       op_assign, op_unassign, op_group,       op_tag,    op_group_delete, op_selection,
                                       op_timer,  op_timer,    op_cancel_timer};

/* ---- running ---- */

/* As the engine looks, to select; but ties and renames may come in a row, and what settles by itself needs no look. */
static void look(struct run *run, operation next) {
  static const operation settles[] = {op_add, op_untie, op_remove, op_assign, op_unassign, op_group, op_group_delete};
  bool in_a_row = next == op_tie || next == op_rename;
  bool is_needed = !in_a_row;
  for (size_t i = 0; i < LEN_OF(settles); i++) {
    is_needed = is_needed && next != settles[i];
  }
  bool looks = is_needed || draw(run, 4) == 0;
  if (looks) {
    esp_edit_view(run->edit);
  }
  if (run->model.keep_is_due && (looks || !in_a_row)) {
    groups_keep(&run->model);
  }
}

/* One transaction of a few operations; the first that is refused ends it, and nothing of it stays. */
static void transaction(struct run *run, struct esp_layout **layout) {
  struct esp_layout *base = esp_layout_ref(*layout);
  struct snapshot snapshot = snapshot_of(base);
  for (size_t i = 0; i < run->model.leaves_len; i++) {
    run->model.leaves[i].is_touched = false;
  }
  run->before = run->model;
  run->edit = esp_edit_new(base);
  bool expected = true;
  enum esp_code code = ESP_OK;
  for (uint64_t n = 1 + draw(run, 10); n > 0 && expected; n--) {
    size_t kind = draw(run, LEN_OF(operations));
    if (run->is_uniform && draw(run, 3) > 0) {
      kind = draw(run, OPERATIONS_OF_BINDINGS);
    }
    look(run, operations[kind]);
    code = operations[kind](run, &expected);
    assert_int_equal(code == ESP_OK, expected);
    run->tried[kind]++;
    run->accepted[kind] += expected;
    if (expected && draw(run, 3) == 0) { /* seldom: what waits for a look must not depend on it */
      groups_keep(&run->model);
      expect_model(esp_edit_view(run->edit), &run->model);
    }
  }
  if (expected) {
    groups_keep(&run->model);
    struct esp_diff diff = finish_ok(run->edit, layout);
    expect_model(*layout, &run->model);
    expect_epochs(base, *layout, &run->model);
    expect_replay(base, &diff, *layout);
    expect_lines_of_leaves(base, &diff, *layout);
    expect_formers(base, &diff);
    assert_int_equal((*layout)->epoch, base->epoch + (diff.len > 0));
    assert_true(diff.len > 0 || *layout == base);
    esp_diff_done(&diff);
  } else {
    struct esp_layout *next;
    struct esp_diff diff;
    assert_int_equal(esp_edit_finish(run->edit, &next, &diff, NULL), code);
    run->model = run->before;
    expect_model(*layout, &run->model);
  }
  expect_unchanged(base, snapshot);
  esp_layout_unref(base);
}

static uint64_t from_environment(const char *name, uint64_t otherwise) {
  const char *text = getenv(name);
  return text ? strtoull(text, NULL, 10) : otherwise;
}

static void random_transactions(void **state) {
  (void)state;
  uint64_t first = from_environment("ESP_SEED", 1);
  uint64_t rounds = from_environment("ESP_ROUNDS", ROUNDS);
  struct run *run = calloc(1, sizeof *run);
  for (uint64_t seed = first; seed < first + rounds; seed++) {
    print_message("seed %d\n", (int)seed);
    run->seed = seed;
    run->is_uniform = seed % 2 == 0;
    run->model = (struct model){.leaf_id_next = 1, .param_id_next = 1, .timer_id_next = 1};
    note_set(&run->model.groups, "default", "sgd(lr=1)");
    note_set(&run->model.groups, "head", "sgd(lr=2)");
    note_set(&run->model.assignments, "", "default");
    struct esp_layout *layout = tree_empty();
    for (int i = 0; i < TRANSACTIONS; i++) {
      transaction(run, &layout);
    }
    tree_drop(layout);
  }
  for (size_t kind = 0; kind < LEN_OF(operations); kind++) {
    assert_true(run->accepted[kind] * 4 > run->tried[kind]); /* of each kind a good part is done */
  }
  free(run);
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(random_transactions)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
