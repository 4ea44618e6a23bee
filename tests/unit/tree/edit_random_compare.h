/* What random edits must have made of a layout: what the naive model says; and a diff that, line by line, leads from
 * one layout to the next. */
#ifndef ESP_TREE_EDIT_RANDOM_COMPARE_H
#define ESP_TREE_EDIT_RANDOM_COMPARE_H

#include "edit_random_model.h"

/* ---- comparing ---- */

static void expect_note(struct notes *notes, const char *name, const char *text) {
  const struct model_note *note = note_find(notes, name);
  if (!note) {
    fail_msg("%s is not in the model", name);
  }
  assert_string_equal(note->text, text);
}

static void expect_notes(const struct esp_layout *layout, struct model *model) {
  assert_int_equal(layout->groups_len, model->groups.len);
  for (size_t i = 0; i < layout->groups_len; i++) {
    expect_note(&model->groups, layout->groups[i].name, layout->groups[i].expression);
    assert_non_null(layout->groups[i].optim);
  }
  assert_int_equal(layout->assignments_len, model->assignments.len);
  for (size_t i = 0; i < layout->assignments_len; i++) {
    expect_note(&model->assignments, layout->assignments[i].node, layout->assignments[i].group);
  }
  assert_int_equal(layout->tags_len, model->tags.len);
  for (size_t i = 0; i < layout->tags_len; i++) {
    expect_note(&model->tags, layout->tags[i].node, layout->tags[i].tag);
  }
  assert_int_equal(layout->selections_len, model->selections.len);
  for (size_t i = 0; i < layout->selections_len; i++) {
    char name[TEXT];
    snprintf(name, sizeof name, "@%s", layout->selections[i].name);
    expect_note(&model->selections, name, layout->selections[i].text);
  }
  assert_int_equal(layout->removed_len, model->removed.len);
  for (size_t i = 0; i < layout->removed_len; i++) {
    expect_note(&model->removed, layout->removed[i], "");
  }
}

static void expect_model(const struct esp_layout *layout, struct model *model) {
  expect_sound(layout);
  expect_notes(layout, model);
  assert_int_equal(layout->leaves_len, model->leaves_len);
  assert_int_equal(layout->params_len, model->params_len);
  assert_int_equal(layout->leaf_id_next, model->leaf_id_next);
  assert_int_equal(layout->timer_id_next, model->timer_id_next);
  for (size_t i = 0; i < model->leaves_len; i++) {
    const struct model_leaf *expected = &model->leaves[i];
    const struct model_param *param = model_param(model, expected->param);
    const struct esp_leaf *leaf = esp_layout_leaf_by_id(layout, expected->id);
    assert_non_null(leaf);
    const struct esp_place *place = esp_layout_place(layout, leaf);
    assert_string_equal(leaf->path, expected->path);
    assert_int_equal(place->id, expected->param);
    assert_int_equal(leaf->view, expected->view);
    assert_int_equal(leaf->kind, expected->kind);
    assert_int_equal(leaf->detached, expected->detached);
    assert_int_equal(layout->leaves[place->primary].id, param->primary);
    assert_int_equal(place->frozen, param->frozen);
    assert_int_equal(place->timer, param->timer);
    assert_int_equal(place->dtype, param->dtype);
    assert_true(esp_shape_equal(&place->shape, &param->shape));
    assert_string_equal(place->group_assigned, param->group);
  }
}

/* A leaf's epoch says whether what is known of it changed; nobody else's does. */
static void expect_epochs(const struct esp_layout *base, const struct esp_layout *next, struct model *model) {
  for (size_t i = 0; i < next->leaves_len; i++) {
    const struct esp_leaf *leaf = &next->leaves[i];
    const struct esp_place *place = esp_layout_place(next, leaf);
    const struct esp_leaf *old = esp_layout_leaf_by_id(base, leaf->id);
    if (!old) {
      assert_int_equal(leaf->changed_epoch, next->epoch);
      assert_int_equal(leaf->path_epoch, next->epoch);
      continue;
    }
    const struct esp_place *was = esp_layout_place(base, old);
    bool differs = place->id != was->id || leaf->view != old->view || place->frozen != was->frozen ||
                   leaf->detached != old->detached || strcmp(leaf->path, old->path) != 0 ||
                   strcmp(place->group_assigned, was->group_assigned) != 0 ||
                   strcmp(esp_layout_group_of(next, leaf)->name, esp_layout_group_of(base, old)->name) != 0;
    assert_true(!differs || leaf->changed_epoch == next->epoch);
    assert_true(strcmp(leaf->path, old->path) == 0 || leaf->path_epoch == next->epoch);
    assert_true(model_leaf(model, leaf->id)->is_touched || leaf->changed_epoch == old->changed_epoch);
  }
}

/* ---- replaying a diff ---- */

/* `parameter 7 (...) transposed` without what is in parentheses: the path is of that moment. */
static void binding_shorten(const char *text, char out[TEXT]) {
  snprintf(out, TEXT, "%.*s%s", (int)strcspn(text, "("), text, strstr(text, " transposed") ? "transposed" : "");
}

/* What is known of leaves: notes by `id field`. */
static void known_set(struct notes *known, uint64_t id, const char *field, const char *text) {
  char name[TEXT];
  snprintf(name, sizeof name, "%d %s", (int)id, field);
  note_set(known, name, text);
}

static void known_of(const struct esp_layout *layout, struct notes *known) {
  for (size_t i = 0; i < layout->leaves_len; i++) {
    const struct esp_leaf *leaf = &layout->leaves[i];
    const struct esp_place *place = esp_layout_place(layout, leaf);
    char text[TEXT];
    snprintf(text, sizeof text, "parameter %d %s", (int)place->id,
             leaf->view == ESP_VIEW_TRANSPOSE ? "transposed" : "");
    known_set(known, leaf->id, "parameter", text);
    known_set(known, leaf->id, "path", leaf->path);
    known_set(known, leaf->id, "frozen", place->frozen ? "true" : "false");
    known_set(known, leaf->id, "detached", leaf->detached ? "true" : "false");
    char timer[ESP_TIMER_TEXT_MAX] = "";
    if (place->timer != 0) {
      esp_timer_print(esp_layout_timer(layout, place->timer), timer);
    }
    known_set(known, leaf->id, "timer", timer);
  }
  for (size_t i = 0; i < layout->assignments_len; i++) {
    char name[TEXT];
    snprintf(name, sizeof name, "%s group", layout->assignments[i].node);
    note_set(known, name, layout->assignments[i].group);
  }
  for (size_t i = 0; i < layout->tags_len; i++) {
    char name[TEXT];
    snprintf(name, sizeof name, "%s tag", layout->tags[i].node);
    note_set(known, name, layout->tags[i].tag);
  }
  for (size_t i = 0; i < layout->groups_len; i++) {
    char name[TEXT];
    snprintf(name, sizeof name, "%s optimizer", layout->groups[i].name);
    note_set(known, name, layout->groups[i].expression);
  }
  for (size_t i = 0; i < layout->selections_len; i++) {
    char name[TEXT];
    snprintf(name, sizeof name, "@%s selection", layout->selections[i].name);
    note_set(known, name, layout->selections[i].text);
  }
}

/* A line changes what is known from its `from` to its `to`. */
static void replay_line(struct notes *known, const struct esp_change *change) {
  char name[TEXT];
  char from[TEXT];
  char to[TEXT];
  bool is_binding = strcmp(change->field, "parameter") == 0;
  bool is_node = strcmp(change->field, "group") == 0 || change->leaf_id == 0;
  snprintf(from, sizeof from, "%s", change->from);
  snprintf(to, sizeof to, "%s", change->to);
  if (is_binding) {
    binding_shorten(change->from, from);
    binding_shorten(change->to, to);
  }
  if (is_node) {
    snprintf(name, sizeof name, "%s %s", change->path, change->field);
  } else {
    snprintf(name, sizeof name, "%d %s", (int)change->leaf_id, change->field);
  }
  const struct model_note *note = note_find(known, name);
  assert_string_equal(note ? note->text : "", from);
  note_set(known, name, *to ? to : NULL);
}

/* Leaves that came or went are told by their lines; the rest has to lead from base to next. */
static void expect_replay(const struct esp_layout *base, const struct esp_diff *diff, const struct esp_layout *next) {
  struct notes *known = calloc(2, sizeof *known);
  struct notes *expected = known + 1;
  known_of(base, known);
  known_of(next, expected);
  for (size_t i = 0; i < diff->len; i++) {
    const struct esp_change *change = &diff->changes[i];
    assert_non_null(change->because);
    bool is_leafs = change->leaf_id != 0 && strcmp(change->field, "group") != 0;
    bool lasts = esp_layout_leaf_by_id(base, change->leaf_id) && esp_layout_leaf_by_id(next, change->leaf_id);
    if (strcmp(change->field, "stepped_by") != 0 && (!is_leafs || lasts)) {
      replay_line(known, change);
    }
  }
  for (size_t i = 0; i < expected->len; i++) {
    const struct model_note *note = &expected->notes[i];
    if (*note->name < '1' || *note->name > '9' || esp_layout_leaf_by_id(base, strtoull(note->name, NULL, 10))) {
      struct model_note *reached = note_find(known, note->name);
      if (strcmp(reached ? reached->text : "", note->text) != 0) {
        fail_msg("the diff leaves %s at \"%s\", the layout has \"%s\"", note->name, reached ? reached->text : "",
                 note->text);
      }
    }
  }
  for (size_t i = 0; i < known->len; i++) {
    const struct model_note *note = &known->notes[i];
    if (*note->name < '1' || *note->name > '9') {
      assert_non_null(note_find(expected, note->name));
    }
  }
  free(known);
}

/* The diff has what the timers were that its lines tell of. */
static void expect_formers(const struct esp_layout *base, const struct esp_diff *diff) {
  size_t formers = 0;
  for (size_t i = 0; i < base->timers_len; i++) {
    char text[ESP_TIMER_TEXT_MAX];
    bool is_told = false;
    bool is_from = false;
    esp_timer_print(&base->timers[i], text);
    for (size_t j = 0; j < diff->len; j++) {
      is_from = is_from || strcmp(diff->changes[j].from, text) == 0;
      is_told = is_told || strcmp(diff->changes[j].from, text) == 0 || strcmp(diff->changes[j].to, text) == 0;
    }
    if (formers < diff->timers_len && diff->timers[formers].id == base->timers[i].id) {
      assert_memory_equal(&diff->timers[formers++], &base->timers[i], sizeof *diff->timers);
      assert_true(is_told);
    } else {
      assert_false(is_from);
    }
  }
  assert_int_equal(formers, diff->timers_len);
}

/* Leaves that are new, or gone, have a line that says so. */
static void expect_lines_of_leaves(const struct esp_layout *base, const struct esp_diff *diff,
                                   const struct esp_layout *next) {
  for (uint64_t id = 1; id < next->leaf_id_next; id++) {
    bool was = esp_layout_leaf_by_id(base, id);
    bool is = esp_layout_leaf_by_id(next, id);
    size_t came = 0;
    size_t went = 0;
    for (size_t i = 0; i < diff->len; i++) {
      const struct esp_change *change = &diff->changes[i];
      bool is_line = change->leaf_id == id && strcmp(change->field, "leaf") == 0;
      came += is_line && *change->from == '\0';
      went += is_line && *change->to == '\0';
    }
    assert_int_equal(came, id >= base->leaf_id_next);
    assert_int_equal(went, (was || id >= base->leaf_id_next) && !is);
  }
}

#endif
