/* Selecting: a program is run on bitmaps, one bit a leaf.
 *
 *   text -> esp_sel_parse -> program -> each term to a bitmap -> & | ! on words of 64 leaves -> indices
 *
 * A path alone needs none of that: it is a range. A named selection is run where its name first stands, and kept for
 * where it stands again; so however they name each other, each runs once. One that is still running when its name
 * stands again refers to itself.
 *
 * With each set that is empty goes who is to blame: the term or the operator that esp_sel_explain is asked about where
 * that is what is left in the end.
 *
 * It fails for syntax, for named selections, where nothing matches, and without memory. */
#include <espalier/status.h>

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tree/select_internal.h"

struct set {
  uint64_t *bits;                  /* owned */
  size_t len;                      /* leaves in it */
  const struct esp_sel_step *step; /* what made it */
  struct esp_sel_culprit culprit;  /* where len is 0 */
};

/* A named selection that was met. */
struct named {
  const struct esp_named_selection *selection;
  struct esp_sel_program program;
  struct set set; /* once it is done */
  bool done;
};

struct evaluation {
  const struct esp_layout *layout;
  struct set *stack; /* of all programs that are running */
  size_t stack_len;
  size_t stack_capacity;
  struct named
      named[ESP_SELECTOR_NAMED_MAX]; /* in the order they were met, so those that run are in the order of the calls */
  size_t named_len;
  struct esp_status *st; /* of the caller */
};

void esp_selection_done(struct esp_selection *sel) {
  esp_free(sel->leaves);
  *sel = (struct esp_selection){0};
}

/* ---- sets ---- */

static size_t words_of(const struct evaluation *evaluation) {
  return (evaluation->layout->leaves_len + 63) / 64;
}

static size_t bits_count(const uint64_t *bits, size_t words) {
  size_t n = 0;
  for (size_t i = 0; i < words; i++) {
    n += (size_t)__builtin_popcountll(bits[i]);
  }
  return n;
}

/* An empty set on top of the stack; NULL without memory. */
static struct set *stack_push(struct evaluation *evaluation) {
  uint64_t *bits = esp_calloc(words_of(evaluation) + 1, sizeof *bits);
  if (!bits || !esp_grow((void **)&evaluation->stack, &evaluation->stack_capacity, evaluation->stack_len + 1,
                         sizeof *evaluation->stack)) {
    esp_free(bits);
    return NULL;
  }
  struct set *set = &evaluation->stack[evaluation->stack_len++];
  *set = (struct set){.bits = bits};
  return set;
}

/* Whether the term says which leaves it means by a name that may be misspelled. */
static bool culprit_is_name(const struct esp_sel_culprit *culprit) {
  return culprit->step->op == ESP_SEL_TERM && culprit->step->term->kind <= ESP_SEL_GROUP;
}

/* Who is to blame of two: names first, then other terms, then operators. */
static struct esp_sel_culprit culprit_worse(const struct esp_sel_culprit *a, const struct esp_sel_culprit *b) {
  int a_rank = 2 * culprit_is_name(a) + (a->step->op == ESP_SEL_TERM);
  int b_rank = 2 * culprit_is_name(b) + (b->step->op == ESP_SEL_TERM);
  return b_rank > a_rank ? *b : *a;
}

static void set_invert(const struct evaluation *evaluation, struct set *set, const struct esp_sel_step *step,
                       const struct esp_sel_program *program) {
  size_t leaves = evaluation->layout->leaves_len;
  for (size_t i = 0; i < words_of(evaluation); i++) {
    set->bits[i] = ~set->bits[i];
  }
  if (leaves % 64 != 0) {
    set->bits[leaves / 64] &= (UINT64_C(1) << leaves % 64) - 1;
  }
  set->len = leaves - set->len;
  set->step = step;
  set->culprit = (struct esp_sel_culprit){.program = program, .step = step};
}

/* Takes the upper set of the stack and leaves in the lower one what is in both, or in either. */
static void sets_combine(struct evaluation *evaluation, const struct esp_sel_step *step,
                         const struct esp_sel_program *program) {
  struct set *right = &evaluation->stack[--evaluation->stack_len];
  struct set *left = right - 1;
  for (size_t i = 0; i < words_of(evaluation); i++) {
    left->bits[i] = step->op == ESP_SEL_AND ? left->bits[i] & right->bits[i] : left->bits[i] | right->bits[i];
  }
  esp_free(right->bits);
  if (left->len > 0 && right->len > 0) {
    left->culprit = (struct esp_sel_culprit){
        .program = program, .step = step, .left = left->step, .left_len = left->len, .right_len = right->len};
  } else if (right->len == 0) {
    left->culprit = left->len == 0 ? culprit_worse(&left->culprit, &right->culprit) : right->culprit;
  }
  left->len = bits_count(left->bits, words_of(evaluation));
  left->step = step;
}

/* ---- programs ---- */

static enum esp_code program_run(struct evaluation *evaluation, const struct esp_sel_program *program);

static int selection_compare(const char *name, const char *text, size_t len) {
  int order = strncmp(name, text, len);
  return order != 0 ? order : name[len] != '\0';
}

static const struct esp_named_selection *selection_find(const struct esp_layout *layout, const char *name, size_t len) {
  size_t low = 0;
  size_t high = layout->selections_len;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    int order = selection_compare(layout->selections[middle].name, name, len);
    if (order == 0) {
      return &layout->selections[middle];
    }
    if (order < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return NULL;
}

/* The named selection is running already: says through which others it comes back to itself. */
static enum esp_code refers_to_itself(const struct evaluation *evaluation, const struct named *named) {
  char through[512];
  size_t used = 0;
  through[0] = '\0';
  for (const struct named *next = named + 1; next < evaluation->named + evaluation->named_len; next++) {
    if (!next->done && used < sizeof through) {
      used += (size_t)snprintf(through + used, sizeof through - used, "%s@%s", used > 0 ? ", " : ", through ",
                               next->selection->name);
    }
  }
  return esp_fail(evaluation->st, ESP_INVALID_ARGUMENT, "the named selection @%s refers to itself%s",
                  named->selection->name, through);
}

/* Runs a named selection that was not met before. */
static enum esp_code named_run(struct evaluation *evaluation, const struct esp_named_selection *selection,
                               const struct named **ret) {
  struct named *named = &evaluation->named[evaluation->named_len++];
  *named = (struct named){.selection = selection};
  const struct esp_sel_source source = {
      .text = selection->text, .len = strlen(selection->text), .name = selection->name};
  enum esp_code code = esp_sel_parse(&source, &named->program, evaluation->st);
  code = code == ESP_OK ? program_run(evaluation, &named->program) : code;
  if (code != ESP_OK) {
    return code;
  }
  named->set = evaluation->stack[--evaluation->stack_len];
  named->done = true;
  *ret = named;
  return ESP_OK;
}

static enum esp_code named_find(struct evaluation *evaluation, const struct esp_sel_program *program,
                                const struct esp_sel_term *term, const struct named **ret) {
  const char *name = program->source.text + term->value_at;
  const struct esp_named_selection *selection = selection_find(evaluation->layout, name, term->value_len);
  if (!selection) {
    return esp_sel_fail_unnamed(evaluation->layout, &program->source, term, evaluation->st);
  }
  for (struct named *named = evaluation->named; named < evaluation->named + evaluation->named_len; named++) {
    if (named->selection == selection) {
      *ret = named;
      return named->done ? ESP_OK : refers_to_itself(evaluation, named);
    }
  }
  if (evaluation->named_len == ESP_SELECTOR_NAMED_MAX) {
    return esp_sel_fail(&program->source, term->value_at, evaluation->st, "more than %d named selections are used",
                        ESP_SELECTOR_NAMED_MAX);
  }
  return named_run(evaluation, selection, ret);
}

static enum esp_code term_run(struct evaluation *evaluation, const struct esp_sel_program *program,
                              const struct esp_sel_step *step) {
  const struct named *named = NULL;
  enum esp_code code = step->term->kind == ESP_SEL_NAMED ? named_find(evaluation, program, step->term, &named) : ESP_OK;
  if (code != ESP_OK) {
    return code;
  }
  struct set *set = stack_push(evaluation);
  if (!set) {
    return esp_sel_no_memory(evaluation->st);
  }
  set->step = step;
  if (named) {
    memcpy(set->bits, named->set.bits, words_of(evaluation) * sizeof *set->bits);
    set->len = named->set.len;
    set->culprit = named->set.culprit;
    return ESP_OK;
  }
  esp_sel_term_run(evaluation->layout, step->term, set->bits);
  set->len = bits_count(set->bits, words_of(evaluation));
  set->culprit = (struct esp_sel_culprit){.program = program, .step = step};
  return ESP_OK;
}

/* Puts the program's set on the stack. */
static enum esp_code program_run(struct evaluation *evaluation, const struct esp_sel_program *program) {
  enum esp_code code = ESP_OK;
  for (size_t i = 0; code == ESP_OK && i < program->steps_len; i++) {
    const struct esp_sel_step *step = &program->steps[i];
    if (step->op == ESP_SEL_TERM) {
      code = term_run(evaluation, program, step);
      continue;
    }
    ESP_CHECK(evaluation->stack && evaluation->stack_len >= (step->op == ESP_SEL_NOT ? 1u : 2u));
    if (step->op == ESP_SEL_NOT) {
      set_invert(evaluation, &evaluation->stack[evaluation->stack_len - 1], step, program);
    } else {
      sets_combine(evaluation, step, program);
    }
  }
  return code;
}

static void evaluation_done(struct evaluation *evaluation) {
  for (size_t i = 0; i < evaluation->stack_len; i++) {
    esp_free(evaluation->stack[i].bits);
  }
  esp_free(evaluation->stack);
  for (size_t i = 0; i < evaluation->named_len; i++) {
    esp_sel_program_done(&evaluation->named[i].program);
    esp_free(evaluation->named[i].set.bits);
  }
}

/* ---- circles ---- */

/* The named selections that one leads to, each once, in the order in which they are met. */
struct leads {
  const struct esp_layout *layout;
  const char *name; /* whose circle it would be */
  size_t *list;     /* indices in the layout's; owned */
  size_t *from;     /* by index: the place in the list of what named it + 1, 0: the text itself; owned */
  bool *met;        /* by index; owned */
  size_t len;
};

/* Adds what the text names; whether that is the name itself. A text that can't be parsed names nothing. */
static bool leads_add(struct leads *leads, const char *text, size_t from) {
  const struct esp_sel_source source = {.text = text, .len = strlen(text)};
  struct esp_sel_program program;
  bool found = false;
  if (source.len == 0 || esp_sel_parse(&source, &program, NULL) != ESP_OK) {
    return false;
  }
  for (size_t i = 0; i < program.steps_len; i++) {
    const struct esp_sel_term *term = program.steps[i].op == ESP_SEL_TERM ? program.steps[i].term : NULL;
    if (!term || term->kind != ESP_SEL_NAMED) {
      continue;
    }
    found = found || selection_compare(leads->name, text + term->value_at, term->value_len) == 0;
    const struct esp_named_selection *sel = selection_find(leads->layout, text + term->value_at, term->value_len);
    size_t at = sel ? (size_t)(sel - leads->layout->selections) : 0;
    if (sel && !leads->met[at]) {
      leads->met[at] = true;
      leads->from[at] = from;
      leads->list[leads->len++] = at;
    }
  }
  esp_sel_program_done(&program);
  return found;
}

/* last: the place in the list of the one that names the name, + 1, or 0 where the text itself does. */
static enum esp_code leads_fail(const struct leads *leads, size_t last, struct esp_status *st) {
  char through[512] = "";
  size_t used = 0;
  size_t steps = 0;
  for (size_t place = last; place > 0; place = leads->from[leads->list[place - 1]]) {
    steps++;
  }
  for (; steps > 0 && used < sizeof through; steps--) { /* from the first one that the text names */
    size_t place = last;
    for (size_t i = 1; i < steps; i++) {
      place = leads->from[leads->list[place - 1]];
    }
    used += (size_t)snprintf(through + used, sizeof through - used, "%s@%s", used > 0 ? ", " : ", through ",
                             leads->layout->selections[leads->list[place - 1]].name);
  }
  return esp_fail(st, ESP_INVALID_ARGUMENT, "the named selection @%s would refer to itself%s", leads->name, through);
}

enum esp_code esp_selection_check(const struct esp_layout *layout, const char *name, const char *text,
                                  struct esp_status *st) {
  size_t room = layout->selections_len + 1;
  struct leads leads = {.layout = layout,
                        .name = name,
                        .list = esp_calloc(room, sizeof *leads.list),
                        .from = esp_calloc(room, sizeof *leads.from),
                        .met = esp_calloc(room, sizeof *leads.met)};
  enum esp_code code = leads.list && leads.from && leads.met ? ESP_OK : esp_sel_no_memory(st);
  bool found = code == ESP_OK && leads_add(&leads, text, 0);
  size_t place = 0;
  for (; !found && code == ESP_OK && place < leads.len; place++) {
    found = leads_add(&leads, layout->selections[leads.list[place]].text, place + 1);
  }
  code = found ? leads_fail(&leads, place, st) : code;
  esp_free(leads.list);
  esp_free(leads.from);
  esp_free(leads.met);
  return code;
}

/* ---- selections ---- */

static enum esp_code selection_new(size_t len, struct esp_selection *ret, struct esp_status *st) {
  uint32_t *leaves = len > 0 ? esp_malloc_array(len, sizeof *leaves) : NULL;
  if (len > 0 && !leaves) {
    return esp_sel_no_memory(st);
  }
  *ret = (struct esp_selection){.leaves = leaves, .len = len};
  return ESP_OK;
}

static enum esp_code select_range(size_t first, size_t len, struct esp_selection *ret, struct esp_status *st) {
  struct esp_selection sel;
  enum esp_code code = selection_new(len, &sel, st);
  if (code != ESP_OK) {
    return code;
  }
  for (size_t i = 0; i < len; i++) {
    sel.leaves[i] = (uint32_t)(first + i);
  }
  *ret = sel;
  return ESP_OK;
}

static enum esp_code select_set(const struct evaluation *evaluation, const struct set *set, struct esp_selection *ret,
                                struct esp_status *st) {
  struct esp_selection sel;
  enum esp_code code = selection_new(set->len, &sel, st);
  if (code != ESP_OK) {
    return code;
  }
  ESP_CHECK(sel.leaves); /* no set that is empty comes here */
  size_t at = 0;
  for (size_t i = 0; i < words_of(evaluation); i++) {
    for (uint64_t left = set->bits[i]; left != 0; left &= left - 1) {
      sel.leaves[at++] = (uint32_t)(64 * i + (size_t)__builtin_ctzll(left));
    }
  }
  ESP_CHECK(at == sel.len);
  *ret = sel;
  return ESP_OK;
}

static enum esp_code nothing_matches(const struct esp_layout *layout, const struct esp_sel_program *program,
                                     const struct esp_sel_culprit *culprit, struct esp_status *st) {
  char text[ESP_PATH_TEXT_MAX];
  if (layout->leaves_len > 0) {
    return esp_sel_explain(layout, culprit, st);
  }
  const struct esp_sel_step *whole = &program->steps[program->steps_len - 1];
  esp_path_print(program->source.text + whole->at, whole->len, text, sizeof text);
  return esp_fail(st, ESP_NOT_FOUND, "no leaf matches \"%s\": the tree is empty", text);
}

/* The program is a path and nothing else. */
static enum esp_code select_path(const struct esp_layout *layout, const struct esp_sel_program *program,
                                 struct esp_selection *ret, struct esp_status *st) {
  const struct esp_sel_pattern *pattern = &program->steps[0].term->pattern;
  size_t first;
  size_t len;
  esp_layout_range(layout, pattern->text, pattern->prefix_len, &first, &len);
  if (len > 0) {
    return select_range(first, len, ret, st);
  }
  return nothing_matches(layout, program, &(struct esp_sel_culprit){.program = program, .step = &program->steps[0]},
                         st);
}

static enum esp_code select_program(const struct esp_layout *layout, const struct esp_sel_program *program,
                                    struct esp_selection *ret, struct esp_status *st) {
  struct evaluation evaluation = {.layout = layout, .st = st};
  enum esp_code code = program_run(&evaluation, program);
  if (code == ESP_OK) {
    ESP_CHECK(evaluation.stack && evaluation.stack_len == 1);
    const struct set *set = &evaluation.stack[0];
    code = set->len > 0 ? select_set(&evaluation, set, ret, st) : nothing_matches(layout, program, &set->culprit, st);
  }
  evaluation_done(&evaluation);
  return code;
}

enum esp_code esp_select(const struct esp_layout *layout, const char *text, size_t len, struct esp_selection *ret,
                         struct esp_status *st) {
  const struct esp_sel_source source = {.text = text, .len = len};
  struct esp_sel_program program;
  if (len == 0) {
    return select_range(0, layout->leaves_len, ret, st);
  }
  enum esp_code code = esp_sel_parse(&source, &program, st);
  if (code != ESP_OK) {
    return code;
  }
  const struct esp_sel_term *first = program.steps[0].term;
  bool path = program.steps_len == 1 && first->kind == ESP_SEL_PATTERN && esp_sel_pattern_is_path(&first->pattern);
  code = path ? select_path(layout, &program, ret, st) : select_program(layout, &program, ret, st);
  esp_sel_program_done(&program);
  return code;
}
