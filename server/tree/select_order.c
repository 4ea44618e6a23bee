/* The nodes that a selector names, in the order in which it names them: esp_select_in_order.
 *
 * A pattern is matched from the root on, node by node. Of the children of one node those that may match are put into
 * the order of the alternatives and ranges of their component, else they stay in path order; then each is gone down
 * from, or, where it matches, is the next selection. So the leftmost component is the slowest.
 *
 * It fails as esp_select does, and for what names no nodes. */
#include <espalier/status.h>

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tree/select_internal.h"

struct order {
  const struct esp_layout *layout;
  const struct esp_sel_pattern *pattern;
  uint8_t *taken; /* by leaf: an earlier selection has it */
  struct esp_selection *selections;
  size_t len;      /* of selections */
  size_t capacity; /* likewise */
};

/* A child of a node that is looked at. */
struct child {
  size_t first; /* of its leaves */
  size_t len;   /* of them */
  size_t end;   /* bytes of its path */
  uint64_t state;
  bool matched;
  uint64_t ranks[ESP_SEL_RANKS_MAX];
};

static int child_compare(const void *a, const void *b) {
  const struct child *x = a;
  const struct child *y = b;
  for (size_t i = 0; i < ESP_SEL_RANKS_MAX; i++) {
    if (x->ranks[i] != y->ranks[i]) {
      return x->ranks[i] < y->ranks[i] ? -1 : 1;
    }
  }
  return x->first < y->first ? -1 : x->first > y->first;
}

/* Leaves that are not taken yet become the next selection. */
static bool emit(struct order *order, size_t first, size_t len) {
  size_t left = 0;
  for (size_t i = first; i < first + len; i++) {
    left += !order->taken[i];
  }
  if (left == 0) {
    return true;
  }
  struct esp_selection sel = {.leaves = esp_malloc_array(left, sizeof *sel.leaves)};
  if (!sel.leaves ||
      !esp_grow((void **)&order->selections, &order->capacity, order->len + 1, sizeof *order->selections)) {
    esp_selection_done(&sel);
    return false;
  }
  for (size_t i = first; i < first + len; i++) {
    if (!order->taken[i]) {
      sel.leaves[sel.len++] = (uint32_t)i;
      order->taken[i] = 1;
    }
  }
  order->selections[order->len++] = sel;
  return true;
}

/* The component's ranks are those of the first glob that may come next and matches. */
static void ranks_find(const struct order *order, uint64_t state, const char *component, size_t len, uint64_t *ranks) {
  for (; state != 0; state &= state - 1) {
    const struct esp_sel_glob *glob = &order->pattern->globs[__builtin_ctzll(state)];
    if (esp_sel_glob_matches(glob, component, len)) {
      esp_sel_glob_rank(glob, component, len, ranks);
      return;
    }
  }
}

/* The children that match or may lead to what does, of the node whose leaves are these and whose path, with its dot,
 * has `base` bytes. false without memory. */
static bool children_find(const struct order *order, size_t first, size_t len, size_t base, uint64_t state,
                          struct child **ret, size_t *ret_len) {
  size_t capacity = 0;
  for (size_t i = first; i < first + len;) {
    const struct esp_leaf *leaf = &order->layout->leaves[i];
    const char *component = leaf->path + base;
    const char *dot = memchr(component, '.', leaf->path_len - base);
    struct child child = {.end = dot ? (size_t)(dot - leaf->path) : leaf->path_len};
    esp_layout_range(order->layout, leaf->path, child.end, &child.first, &child.len);
    child.state = esp_sel_pattern_step(order->pattern, state, component, child.end - base, &child.matched);
    i = child.first + child.len;
    if (!child.matched && (child.state == 0 || !dot)) {
      continue;
    }
    ranks_find(order, state, component, child.end - base, child.ranks);
    if (!esp_grow((void **)ret, &capacity, *ret_len + 1, sizeof child)) {
      return false;
    }
    (*ret)[(*ret_len)++] = child;
  }
  return true;
}

/* Goes down once for each component of a path: ESP_DEPTH_MAX times at most. */
static bool walk(struct order *order, size_t first, size_t len, size_t base, uint64_t state) {
  struct child *children = NULL;
  size_t children_len = 0;
  bool ok = children_find(order, first, len, base, state, &children, &children_len);
  if (ok && children_len > 1) {
    qsort(children, children_len, sizeof *children, child_compare);
  }
  for (size_t i = 0; ok && i < children_len; i++) {
    const struct child *child = &children[i];
    ok = child->matched ? emit(order, child->first, child->len)
                        : walk(order, child->first, child->len, child->end + 1, child->state);
  }
  esp_free(children);
  return ok;
}

static bool term_run(struct order *order, const struct esp_sel_term *term) {
  order->pattern = &term->pattern;
  if (term->pattern.len == 0) { /* `**`: the root */
    return emit(order, 0, order->layout->leaves_len);
  }
  return walk(order, 0, order->layout->leaves_len, 0, esp_sel_pattern_begin(&term->pattern));
}

/* Patterns, and | between them. */
static enum esp_code program_check(const struct esp_sel_program *program, struct esp_status *st) {
  for (size_t i = 0; i < program->steps_len; i++) {
    const struct esp_sel_step *step = &program->steps[i];
    if (step->op != ESP_SEL_OR && (step->op != ESP_SEL_TERM || step->term->kind != ESP_SEL_PATTERN)) {
      return esp_sel_fail(&program->source, step->at, st,
                          "one by one go the nodes that a path, a pattern, or several of them with | name, in order");
    }
    for (size_t j = 0; step->op == ESP_SEL_TERM && j < step->term->pattern.len; j++) {
      if (esp_sel_glob_rank_len(&step->term->pattern.globs[j]) > ESP_SEL_RANKS_MAX) {
        return esp_sel_fail(&program->source, step->at, st, "more than %d ranges and braces in one component",
                            ESP_SEL_RANKS_MAX);
      }
    }
  }
  return ESP_OK;
}

static enum esp_code program_run(struct order *order, const struct esp_sel_program *program, struct esp_status *st) {
  enum esp_code code = program_check(program, st);
  if (code != ESP_OK) {
    return code;
  }
  order->taken = esp_calloc(order->layout->leaves_len + 1, 1);
  bool ok = order->taken != NULL;
  for (size_t i = 0; ok && i < program->steps_len; i++) {
    ok = program->steps[i].op != ESP_SEL_TERM || term_run(order, program->steps[i].term);
  }
  esp_free(order->taken);
  return ok ? ESP_OK : esp_sel_no_memory(st);
}

enum esp_code esp_select_in_order(const struct esp_layout *layout, const char *text, size_t len,
                                  struct esp_selection **ret, size_t *ret_len, struct esp_status *st) {
  const struct esp_sel_source source = {.text = text, .len = len};
  struct esp_sel_program program;
  struct esp_selection all;
  struct order order = {.layout = layout};
  if (len == 0) {
    return esp_sel_fail(&source, 0, st, "nothing is named");
  }
  enum esp_code code = esp_sel_parse(&source, &program, st);
  if (code != ESP_OK) {
    return code;
  }
  code = program_run(&order, &program, st);
  esp_sel_program_done(&program);
  if (code == ESP_OK && order.len == 0) {
    code = esp_select(layout, text, len, &all, st); /* which says why, as it selects the same */
    ESP_CHECK(code != ESP_OK);
  }
  if (code == ESP_OK) {
    *ret = order.selections;
    *ret_len = order.len;
    return ESP_OK;
  }
  for (size_t i = 0; i < order.len; i++) {
    esp_selection_done(&order.selections[i]);
  }
  esp_free(order.selections);
  return code;
}
