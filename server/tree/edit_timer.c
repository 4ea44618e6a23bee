/* What will freeze or thaw parameters later: esp_edit_timer, esp_edit_cancel_timer.
 *
 * A parameter's place has the id of its timer, the layout has the timers by id. An edit only ever changes places and
 * adds timers; those that no place has any more are dropped when the edit is settled. The diff tells of a timer by its
 * text, and keeps what it was for those who would bring it back.
 *
 * They fail without memory, and past ESP_TIMERS_MAX. */
#include <espalier/status.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tree/tree_internal.h"

const char *esp_timer_print(const struct esp_timer *timer, char buffer[ESP_TIMER_TEXT_MAX]) {
  const char *what = timer->frozen ? "freeze" : timer->reset_state ? "thaw and reset state" : "thaw";
  char due[64];
  char until[64] = "";
  if (timer->due == ESP_TIMER_COMMIT) {
    snprintf(due, sizeof due, "at commit %" PRIu64, timer->at);
  } else {
    snprintf(due, sizeof due, "after %" PRIu64 " %s", timer->after, timer->due == ESP_TIMER_TIME ? "ms" : "pushes");
  }
  if (timer->until_commit != 0) {
    snprintf(until, sizeof until, " until commit %" PRIu64, timer->until_commit);
  } else if (timer->for_ms != 0) {
    snprintf(until, sizeof until, " for %" PRIu64 " ms", timer->for_ms);
  }
  snprintf(buffer, ESP_TIMER_TEXT_MAX, "%s %s%s (timer %" PRIu64 ")", what, due, until, timer->id);
  return buffer;
}

/* ---- the layout's timers ---- */

void esp_timers_due_find(struct esp_layout *layout) {
  for (size_t due = 0; due < sizeof layout->timers_due / sizeof *layout->timers_due; due++) {
    layout->timers_due[due] = UINT64_MAX;
  }
  for (size_t i = 0; i < layout->timers_len; i++) {
    uint64_t *due = &layout->timers_due[layout->timers[i].due];
    *due = layout->timers[i].at < *due ? layout->timers[i].at : *due;
  }
}

size_t esp_timers_lower_bound(const struct esp_layout *layout, uint64_t id) {
  size_t low = 0;
  size_t high = layout->timers_len;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (layout->timers[middle].id < id) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

const struct esp_timer *esp_layout_timer(const struct esp_layout *layout, uint64_t id) {
  size_t at = esp_timers_lower_bound(layout, id);
  return at < layout->timers_len && layout->timers[at].id == id ? &layout->timers[at] : NULL;
}

void esp_layout_postpone(struct esp_layout *layout, uint64_t pushes) {
  for (size_t i = 0; i < layout->timers_len; i++) {
    struct esp_timer *timer = &layout->timers[i];
    if (timer->due == ESP_TIMER_PUSHES && timer->epoch == layout->epoch) {
      timer->at = timer->at > UINT64_MAX - pushes ? UINT64_MAX : timer->at + pushes;
    }
  }
  esp_timers_due_find(layout);
}

void esp_edit_drop_timers(struct esp_edit *edit) {
  struct esp_layout *layout = edit->layout;
  for (size_t i = 0; i < layout->timers_len; i++) {
    layout->timers[i].params_len = 0;
  }
  for (size_t i = 0; layout->timers_len > 0 && i < layout->params_len; i++) {
    const struct esp_place *place = &layout->params[i];
    size_t at = place->timer != 0 && place->leaves_len > 0 ? esp_timers_lower_bound(layout, place->timer) : SIZE_MAX;
    if (at < layout->timers_len && layout->timers[at].id == place->timer) { /* not one that is just being put there */
      layout->timers[at].params_len++;
    }
  }
  size_t left = 0;
  for (size_t i = 0; i < layout->timers_len; i++) {
    if (layout->timers[i].params_len > 0) {
      layout->timers[left++] = layout->timers[i];
    }
  }
  layout->timers_len = left;
  esp_timers_due_find(layout);
  edit->timers_stale = false;
}

/* ---- what the diff says ---- */

static int timer_compare(const void *a, const void *b) {
  const struct esp_timer *x = a;
  const struct esp_timer *y = b;
  return x->id < y->id ? -1 : x->id > y->id;
}

static void formers_sort(struct esp_edit *edit) {
  if (edit->formers_len > 1) {
    qsort(edit->formers, edit->formers_len, sizeof *edit->formers, timer_compare);
  }
  size_t left = 0;
  for (size_t i = 0; i < edit->formers_len; i++) {
    if (left == 0 || edit->formers[left - 1].id != edit->formers[i].id) {
      edit->formers[left++] = edit->formers[i];
    }
  }
  edit->formers_len = left;
}

/* Keeps a timer of base for the diff; false without memory. */
static bool formers_add(struct esp_edit *edit, const struct esp_timer *timer) {
  if (edit->formers_len == edit->formers_capacity) { /* leaves that take turns come back to the same few */
    formers_sort(edit);
  }
  if (!esp_grow((void **)&edit->formers, &edit->formers_capacity, edit->formers_len + edit->formers_len / 2 + 1,
                sizeof *edit->formers)) {
    return false;
  }
  edit->formers[edit->formers_len++] = *timer;
  return true;
}

const char *esp_edit_timer_text(struct esp_edit *edit, uint64_t id) {
  char text[ESP_TIMER_TEXT_MAX];
  if (id == 0) {
    return "";
  }
  if (edit->timer_told == id) {
    return edit->timer_text;
  }
  const struct esp_timer *timer = esp_layout_timer(edit->layout, id);
  ESP_CHECK(timer);
  const struct esp_timer *former = esp_layout_timer(edit->base, id);
  if (former && !formers_add(edit, former)) {
    return NULL;
  }
  esp_timer_print(timer, text);
  const char *copy = esp_arena_strndup(&edit->memory->texts, text, strlen(text));
  if (copy) {
    edit->timer_told = id;
    edit->timer_text = copy;
  }
  return copy;
}

void esp_edit_pass_timers(struct esp_edit *edit, struct esp_diff *diff) {
  formers_sort(edit);
  diff->timers = edit->formers;
  diff->timers_len = edit->formers_len;
  edit->formers = NULL;
}

/* ---- setting ---- */

/* Whose timer changes, by parameter in the edit's marks: the first selected leaf that is bound to it, plus 1; what is
 * not selected has any number. */
struct change {
  uint64_t to;     /* their timer from here on; 0: none */
  size_t lines;    /* leaves that are bound to them */
  size_t selected; /* of these */
};

static struct change change_find(struct esp_edit *edit, const struct esp_selection *sel, uint64_t to) {
  const struct esp_layout *layout = edit->layout;
  struct change change = {.to = to};
  for (size_t i = 0; i < sel->len; i++) {
    edit->marks[layout->leaves[sel->leaves[i]].param] = 0;
  }
  for (size_t i = 0; i < sel->len; i++) {
    uint32_t param = layout->leaves[sel->leaves[i]].param;
    const struct esp_place *place = &layout->params[param];
    if (place->timer == to) {
      continue;
    }
    change.lines += edit->marks[param] == 0 ? place->leaves_len : 0;
    change.selected++;
    edit->marks[param] = edit->marks[param] == 0 ? sel->leaves[i] + 1 : edit->marks[param];
  }
  return change;
}

/* The line of a leaf whose parameter is marked; false without memory. */
static bool note(struct esp_edit *edit, uint32_t index, bool is_selected, const char *to) {
  const struct esp_layout *layout = edit->layout;
  const struct esp_leaf *leaf = &layout->leaves[index];
  const char *from = esp_edit_timer_text(edit, layout->params[leaf->param].timer);
  if (from) {
    esp_edit_add_change(
        edit, &(struct esp_change){.leaf_id = leaf->id,
                                   .path = leaf->path,
                                   .field = "timer",
                                   .from = from,
                                   .to = to,
                                   .because = is_selected ? "" : layout->leaves[edit->marks[leaf->param] - 1].path});
  }
  return from != NULL;
}

/* A line for each leaf, in path order. All leaves are looked at only where some are tied to what is selected. */
static bool note_all(struct esp_edit *edit, const struct esp_selection *sel, const struct change *change,
                     const char *to) {
  const struct esp_layout *layout = edit->layout;
  bool ok = true;
  if (change->lines == change->selected) {
    for (size_t i = 0; ok && i < sel->len; i++) {
      ok = layout->params[layout->leaves[sel->leaves[i]].param].timer == change->to ||
           note(edit, sel->leaves[i], true, to);
    }
    return ok;
  }
  for (size_t i = 0; i < layout->params_len; i++) {
    edit->marks[i] = 0;
  }
  change_find(edit, sel, change->to);
  size_t selected = 0;
  for (uint32_t i = 0; ok && i < layout->leaves_len; i++) {
    while (selected < sel->len && sel->leaves[selected] < i) {
      selected++;
    }
    ok = edit->marks[layout->leaves[i].param] == 0 ||
         note(edit, i, selected < sel->len && sel->leaves[selected] == i, to);
  }
  return ok;
}

/* Puts a timer among the layout's. */
static enum esp_code timer_insert(struct esp_edit *edit, const struct esp_timer *timer, struct esp_status *st) {
  struct esp_layout *layout = edit->layout;
  if (layout->timers_len >= ESP_TIMERS_MAX) {
    esp_edit_drop_timers(edit);
  }
  if (layout->timers_len >= ESP_TIMERS_MAX) {
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "there are %d timers, which is the most", ESP_TIMERS_MAX);
  }
  const char *selection = esp_edit_text(edit, timer->selection, strlen(timer->selection));
  if (!selection ||
      !esp_grow((void **)&layout->timers, &edit->timers_capacity, layout->timers_len + 1, sizeof *layout->timers)) {
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a timer");
  }
  size_t at = esp_timers_lower_bound(layout, timer->id);
  memmove(&layout->timers[at + 1], &layout->timers[at], (layout->timers_len - at) * sizeof *layout->timers);
  layout->timers[at] = *timer;
  layout->timers[at].selection = selection;
  layout->timers_len++;
  return ESP_OK;
}

static enum esp_code no_memory(struct esp_edit *edit, const struct esp_selection *sel, struct esp_status *st) {
  return esp_edit_failed(
      edit, esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a change of the timers of %zu leaves", sel->len));
}

/* Whether anything would change. */
static bool any_differs(const struct esp_layout *layout, const struct esp_selection *sel, uint64_t to) {
  bool differs = false;
  for (size_t i = 0; i < sel->len; i++) {
    ESP_CHECK(sel->leaves[i] < layout->leaves_len);
    differs = differs || layout->params[layout->leaves[sel->leaves[i]].param].timer != to;
  }
  return differs;
}

enum esp_code esp_edit_timer(struct esp_edit *edit, const struct esp_selection *sel, const struct esp_timer *timer,
                             struct esp_status *st) {
  struct esp_timer own = timer ? *timer : (struct esp_timer){0};
  char text[ESP_TIMER_TEXT_MAX] = "";
  if (timer && timer->id == 0) {
    own.id = esp_edit_now(edit)->timer_id_next;
  }
  if (!any_differs(esp_edit_now(edit), sel, own.id)) {
    return ESP_OK;
  }
  if (!esp_edit_own(edit)) {
    return no_memory(edit, sel, st);
  }
  struct esp_layout *layout = edit->layout;
  own.epoch = timer && timer->id == 0 ? layout->epoch : own.epoch;
  const struct esp_timer *there = esp_layout_timer(layout, own.id);
  if (timer) {
    esp_timer_print(there ? there : &own, text);
  }
  struct change change = change_find(edit, sel, own.id);
  const char *to = esp_arena_strndup(&edit->memory->texts, text, strlen(text));
  if (!to || !esp_edit_reserve_changes(edit, change.lines) || !note_all(edit, sel, &change, to)) {
    return no_memory(edit, sel, st);
  }
  for (size_t i = 0; i < sel->len; i++) {
    layout->params[layout->leaves[sel->leaves[i]].param].timer = own.id;
  }
  edit->timers_stale = true;
  edit->changed = true;
  if (!timer || there) {
    return ESP_OK;
  }
  layout->timer_id_next = own.id == layout->timer_id_next ? own.id + 1 : layout->timer_id_next;
  return esp_edit_failed(edit, timer_insert(edit, &own, st));
}

/* ---- cancelling ---- */

static enum esp_code fail_unknown(const struct esp_layout *layout, uint64_t timer, struct esp_status *st) {
  char ids[512] = "";
  size_t used = 0;
  size_t i = 0;
  for (; i < layout->timers_len && used + 48 < sizeof ids; i++) {
    used += (size_t)snprintf(ids + used, sizeof ids - used, "%s%" PRIu64, i > 0 ? ", " : "", layout->timers[i].id);
  }
  return esp_fail(st, ESP_NOT_FOUND, "no timer %" PRIu64 " waits; %s%s%s", timer,
                  layout->timers_len > 0 ? "those that do: " : "none does", ids, i < layout->timers_len ? ", ..." : "");
}

enum esp_code esp_edit_cancel_timer(struct esp_edit *edit, uint64_t timer, struct esp_status *st) {
  const struct esp_layout *layout = esp_edit_view(edit);
  if (!esp_layout_timer(layout, timer)) {
    return esp_edit_failed(edit, fail_unknown(layout, timer, st));
  }
  struct esp_selection sel;
  enum esp_code code = esp_layout_timed(layout, timer, &sel, st);
  if (code != ESP_OK) {
    return esp_edit_failed(edit, code);
  }
  code = esp_edit_timer(edit, &sel, NULL, st);
  esp_selection_done(&sel);
  return code;
}

enum esp_code esp_layout_timed(const struct esp_layout *layout, uint64_t timer, struct esp_selection *ret,
                               struct esp_status *st) {
  struct esp_selection sel = {.leaves = esp_malloc_array(layout->leaves_len + 1, sizeof *sel.leaves)};
  if (!sel.leaves) {
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a selection");
  }
  for (uint32_t i = 0; i < layout->leaves_len; i++) {
    if (esp_layout_place(layout, &layout->leaves[i])->timer == timer) {
      sel.leaves[sel.len++] = i;
    }
  }
  *ret = sel;
  return ESP_OK;
}
