/* A naive model of a tree, for random edits: arrays in no order, searched from end to end. */
#ifndef ESP_TREE_EDIT_RANDOM_MODEL_H
#define ESP_TREE_EDIT_RANDOM_MODEL_H

#include "fixture.h"

enum { LEAVES = 48, NOTES = 600, TEXT = 64 };

struct model_leaf {
  uint64_t id;
  uint64_t param;
  char path[TEXT];
  enum esp_view view;
  enum esp_kind kind;
  bool detached;
  bool is_touched; /* an operation of this transaction may have changed it */
};

struct model_param {
  uint64_t id;
  uint64_t primary; /* a leaf's id */
  struct esp_shape shape;
  enum esp_dtype dtype;
  bool frozen;
  uint64_t timer;
  char group[TEXT]; /* assigned */
};

struct model_note {
  char name[TEXT];
  char text[TEXT];
};

struct notes {
  struct model_note notes[NOTES];
  size_t len;
};

struct model {
  struct model_leaf leaves[LEAVES];
  size_t leaves_len;
  struct model_param params[LEAVES];
  size_t params_len;
  struct notes groups, assignments, tags, selections, removed;
  bool keep_is_due; /* of groups: ties and renames in a row are one step */
  uint64_t leaf_id_next;
  uint64_t param_id_next;
  uint64_t timer_id_next;
};

static struct model_note *note_find(struct notes *notes, const char *name) {
  for (size_t i = 0; i < notes->len; i++) {
    if (strcmp(notes->notes[i].name, name) == 0) {
      return &notes->notes[i];
    }
  }
  return NULL;
}

/* text NULL: it goes. */
static void note_set(struct notes *notes, const char *name, const char *text) {
  struct model_note *note = note_find(notes, name);
  if (!text) {
    if (note) {
      *note = notes->notes[--notes->len];
    }
    return;
  }
  if (!note) {
    assert_true(notes->len < NOTES);
    note = &notes->notes[notes->len++];
    assert_true(snprintf(note->name, sizeof note->name, "%s", name) < TEXT);
  }
  assert_true(snprintf(note->text, sizeof note->text, "%s", text) < TEXT);
}

/* Those of a node and what is below it follow its rename. */
static void notes_move(struct notes *notes, const char *from, const char *to) {
  struct notes *moved = calloc(1, sizeof *moved);
  for (size_t i = notes->len; i > 0; i--) {
    struct model_note note = notes->notes[i - 1];
    if (naive_within(note.name, from)) {
      char name[2 * TEXT];
      snprintf(name, sizeof name, "%s%s", to, note.name + strlen(from));
      note_set(moved, name, note.text);
      note_set(notes, note.name, NULL);
    }
  }
  for (size_t i = 0; i < moved->len; i++) {
    note_set(notes, moved->notes[i].name, moved->notes[i].text);
  }
  free(moved);
}

static struct model_leaf *model_leaf(struct model *model, uint64_t id) {
  for (size_t i = 0; i < model->leaves_len; i++) {
    if (model->leaves[i].id == id) {
      return &model->leaves[i];
    }
  }
  return NULL;
}

static struct model_param *model_param(struct model *model, uint64_t id) {
  for (size_t i = 0; i < model->params_len; i++) {
    if (model->params[i].id == id) {
      return &model->params[i];
    }
  }
  fail();
  return NULL;
}

static struct esp_shape transposed(struct esp_shape shape) {
  return (struct esp_shape){.dims = {shape.dims[1], shape.dims[0]}, .rank = 2};
}

static struct esp_shape leaf_shape(struct model *model, const struct model_leaf *leaf) {
  struct esp_shape shape = model_param(model, leaf->param)->shape;
  return leaf->view == ESP_VIEW_TRANSPOSE ? transposed(shape) : shape;
}

/* What the longest assignment says that encloses the path; strictly: but for the path's own. */
static const char *model_group(struct model *model, const char *path, bool strictly) {
  const struct model_note *nearest = NULL;
  for (size_t i = 0; i < model->assignments.len; i++) {
    const struct model_note *note = &model->assignments.notes[i];
    if (naive_within(path, note->name) && !(strictly && strcmp(path, note->name) == 0) &&
        (!nearest || strlen(note->name) > strlen(nearest->name))) {
      nearest = note;
    }
  }
  assert_non_null(nearest);
  return nearest->text;
}

static size_t bound_len(const struct model *model, uint64_t param) {
  size_t len = 0;
  for (size_t i = 0; i < model->leaves_len; i++) {
    len += model->leaves[i].param == param;
  }
  return len;
}

static void touch_param(struct model *model, uint64_t param) {
  for (size_t i = 0; i < model->leaves_len; i++) {
    model->leaves[i].is_touched = model->leaves[i].is_touched || model->leaves[i].param == param;
  }
}

/* After a leaf left the parameter. */
static void param_left(struct model *model, uint64_t id) {
  struct model_param *param = model_param(model, id);
  const struct model_leaf *first = NULL;
  for (size_t i = 0; i < model->leaves_len; i++) {
    const struct model_leaf *leaf = &model->leaves[i];
    if (leaf->param == id && leaf->id == param->primary) {
      return;
    }
    if (leaf->param == id && (!first || naive_compare(leaf->path, first->path) < 0)) {
      first = leaf;
    }
  }
  if (first) {
    param->primary = first->id;
  } else {
    *param = model->params[--model->params_len];
  }
}

/* Groups stay as they are: by assignments, where places say otherwise. */
static void groups_keep(struct model *model) {
  model->keep_is_due = false;
  for (size_t i = 0; i < model->params_len; i++) {
    const char *path = model_leaf(model, model->params[i].primary)->path;
    if (strcmp(model_group(model, path, false), model->params[i].group) != 0) {
      note_set(&model->assignments, path, model->params[i].group);
    }
  }
}

/* Groups follow the assignments. */
static void groups_follow(struct model *model) {
  for (size_t i = 0; i < model->params_len; i++) {
    struct model_param *param = &model->params[i];
    const char *group = model_group(model, model_leaf(model, param->primary)->path, false);
    if (strcmp(param->group, group) != 0) {
      snprintf(param->group, sizeof param->group, "%s", group);
      touch_param(model, param->id);
    }
  }
}

/* The leaf's index in path order. */
static uint32_t model_index(const struct model *model, const struct model_leaf *leaf) {
  uint32_t index = 0;
  for (size_t i = 0; i < model->leaves_len; i++) {
    index += naive_compare(model->leaves[i].path, leaf->path) < 0;
  }
  return index;
}

#endif
