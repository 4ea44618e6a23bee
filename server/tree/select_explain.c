/* What to say where a selector matches nothing: of a term that by itself matches nothing, what there is instead
 * (nearest paths, tags, groups); of an operator, what its operands matched.
 *
 * Nothing here allocates; it always fails, that is what it is for. The work is bounded as suggest.c's. */
#include <espalier/status.h>

#include <stdio.h>
#include <string.h>

#include "tree/select_internal.h"

#define SUGGESTION_BYTES_MAX 1024
#define SAMPLES_MAX 20000 /* leaves and tags that are looked at, evenly spaced */

/* A culprit's step, or an operand's, for people. */
static const char *step_print(const struct esp_sel_culprit *culprit, const struct esp_sel_step *step, char *buffer) {
  return esp_path_print(culprit->program->source.text + step->at, step->len, buffer, ESP_PATH_TEXT_MAX);
}

#define WHERE_BYTES_MAX (ESP_NAME_BYTES_MAX + 16)

/* `, in @name` where the culprit is in a named selection, else "". */
static const char *where_print(const struct esp_sel_culprit *culprit, char *buffer) {
  const char *name = culprit->program->source.name;
  snprintf(buffer, WHERE_BYTES_MAX, "%s%s", name ? ", in @" : "", name ? name : "");
  return buffer;
}

/* NOT_FOUND for the culprit's text; because, and a list behind it or "", say why. */
static enum esp_code nothing(const struct esp_sel_culprit *culprit, const char *because, const char *list,
                             struct esp_status *st) {
  char text[ESP_PATH_TEXT_MAX];
  char where[WHERE_BYTES_MAX];
  return esp_fail(st, ESP_NOT_FOUND, "no leaf matches \"%s\"%s%s%s", step_print(culprit, culprit->step, text),
                  where_print(culprit, where), because, list);
}

static const char *value_of(const struct esp_sel_culprit *culprit, size_t *ret_len) {
  *ret_len = culprit->step->term->value_len;
  return culprit->program->source.text + culprit->step->term->value_at;
}

static enum esp_code explain_pattern(const struct esp_layout *layout, const struct esp_sel_culprit *culprit,
                                     struct esp_status *st) {
  const struct esp_sel_pattern *pattern = &culprit->step->term->pattern;
  char list[SUGGESTION_BYTES_MAX];
  return nothing(culprit, "; nearest: ", esp_suggest(layout, pattern->text, pattern->text_len, list, sizeof list), st);
}

/* The first node that has the tag and leaves below it, or NULL. */
static const struct esp_node_tag *tagged_node(const struct esp_layout *layout, const struct esp_sel_term *term) {
  for (size_t i = 0; i < layout->tags_len; i++) {
    const struct esp_node_tag *tag = &layout->tags[i];
    size_t first;
    size_t len;
    esp_layout_range(layout, tag->node, tag->node_len, &first, &len);
    if (len > 0 && esp_sel_glob_matches(&term->glob, tag->tag, strlen(tag->tag))) {
      return tag;
    }
  }
  return NULL;
}

/* There are nodes with the tag, but nothing below them is what is right of `>`. */
static enum esp_code explain_children(const struct esp_layout *layout, const struct esp_sel_culprit *culprit,
                                      const struct esp_node_tag *node, struct esp_status *st) {
  const struct esp_sel_pattern *pattern = &culprit->step->term->pattern;
  char path[ESP_PATH_BYTES_MAX];
  size_t len = node->node_len + 1 + pattern->text_len;
  if (len > sizeof path) {
    return nothing(culprit, "", "", st);
  }
  memcpy(path, node->node, node->node_len);
  path[node->node_len] = '.';
  memcpy(path + node->node_len + 1, pattern->text, pattern->text_len);
  char list[SUGGESTION_BYTES_MAX];
  return nothing(culprit, "; nearest: ", esp_suggest(layout, path, len, list, sizeof list), st);
}

static enum esp_code explain_tag(const struct esp_layout *layout, const struct esp_sel_culprit *culprit,
                                 struct esp_status *st) {
  const struct esp_node_tag *node = tagged_node(layout, culprit->step->term);
  if (node && culprit->step->term->pattern.text_len > 0) {
    return explain_children(layout, culprit, node, st);
  }
  struct esp_suggest_names names = {0};
  names.text = value_of(culprit, &names.len);
  for (size_t i = 0; i < layout->tags_len; i += layout->tags_len / SAMPLES_MAX + 1) {
    esp_suggest_names_add(&names, layout->tags[i].tag);
  }
  const char *last = NULL;
  for (size_t i = 0; i < layout->leaves_len; i += layout->leaves_len / SAMPLES_MAX + 1) {
    if (layout->leaves[i].tag != last) {
      last = layout->leaves[i].tag;
      esp_suggest_names_add(&names, last);
    }
  }
  char list[SUGGESTION_BYTES_MAX];
  esp_suggest_names_print(&names, list, sizeof list);
  return nothing(culprit, *list ? "; the tags are: " : ": nothing has a tag", list, st);
}

static enum esp_code explain_group(const struct esp_layout *layout, const struct esp_sel_culprit *culprit,
                                   struct esp_status *st) {
  const struct esp_sel_glob *glob = &culprit->step->term->glob;
  struct esp_suggest_names names = {0};
  names.text = value_of(culprit, &names.len);
  for (size_t i = 0; i < layout->groups_len; i++) {
    if (esp_sel_glob_matches(glob, layout->groups[i].name, strlen(layout->groups[i].name))) {
      return nothing(culprit, ": the group has no leaves", "", st);
    }
    esp_suggest_names_add(&names, layout->groups[i].name);
  }
  for (size_t i = 0; i < layout->assignments_len; i += layout->assignments_len / SAMPLES_MAX + 1) {
    esp_suggest_names_add(&names, layout->assignments[i].group);
  }
  char list[SUGGESTION_BYTES_MAX];
  return nothing(culprit, "; the groups are: ", esp_suggest_names_print(&names, list, sizeof list), st);
}

static enum esp_code explain_and(const struct esp_sel_culprit *culprit, struct esp_status *st) {
  char text[3][ESP_PATH_TEXT_MAX];
  char where[WHERE_BYTES_MAX];
  const struct esp_sel_step *right = culprit->step - 1; /* what was put on the stack last */
  return esp_fail(st, ESP_NOT_FOUND, "no leaf matches \"%s\"%s: %zu match \"%s\", %zu match \"%s\", none matches both",
                  step_print(culprit, culprit->step, text[0]), where_print(culprit, where), culprit->left_len,
                  step_print(culprit, culprit->left, text[1]), culprit->right_len, step_print(culprit, right, text[2]));
}

enum esp_code esp_sel_explain(const struct esp_layout *layout, const struct esp_sel_culprit *culprit,
                              struct esp_status *st) {
  if (culprit->step->op == ESP_SEL_NOT) {
    return nothing(culprit, ": what it leaves out is every leaf", "", st);
  }
  if (culprit->step->op == ESP_SEL_AND) {
    return explain_and(culprit, st);
  }
  switch (culprit->step->term->kind) {
  case ESP_SEL_PATTERN:
    return explain_pattern(layout, culprit, st);
  case ESP_SEL_TAG:
    return explain_tag(layout, culprit, st);
  case ESP_SEL_GROUP:
    return explain_group(layout, culprit, st);
  default:
    return nothing(culprit, "", "", st);
  }
}

enum esp_code esp_sel_fail_unnamed(const struct esp_layout *layout, const struct esp_sel_source *source,
                                   const struct esp_sel_term *term, struct esp_status *st) {
  struct esp_suggest_names names = {.text = source->text + term->value_at, .len = term->value_len};
  for (size_t i = 0; i < layout->selections_len; i++) {
    esp_suggest_names_add(&names, layout->selections[i].name);
  }
  char text[ESP_PATH_TEXT_MAX];
  char list[SUGGESTION_BYTES_MAX / 2];
  esp_path_print(names.text, names.len, text, sizeof text);
  esp_suggest_names_print(&names, list, sizeof list);
  return esp_sel_fail(source, term->value_at, st, "no selection is named \"%s\"%s%s", text,
                      *list ? "; there are: " : "; there are none", list);
}
