/* Undoing, the timers: whose each was is read from the diff, what they were is kept there beside the lines.
 *
 * It fails without memory. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/undo.h"

/* Whose a timer was before the transaction. */
struct former {
  uint64_t timer; /* 0: none */
  uint32_t leaf;  /* index in the view */
};

static uint64_t timer_of(const char *text) {
  const char *id = strstr(text, "(timer ");
  uint64_t timer = 0;
  return id != NULL && sscanf(id, "(timer %" SCNu64, &timer) == 1 ? timer : 0;
}

static int former_compare(const void *a, const void *b) {
  const struct former *x = a, *y = b;
  if (x->timer != y->timer)
    return x->timer < y->timer ? -1 : 1;
  return x->leaf < y->leaf ? -1 : x->leaf > y->leaf;
}

/* By timer, then in path order. NULL without memory. */
static struct former *formers_find(const struct esp_undo *undo, size_t *ret_len) {
  const struct esp_layout *view = esp_edit_view(undo->tx->edit);
  struct former *list = esp_malloc_array(view->leaves_len + 1, sizeof(*list));
  size_t *lines = list == NULL ? NULL : esp_undo_param_lines(undo, view, "timer");
  size_t len = 0;
  for (size_t i = 0; lines != NULL && i < view->leaves_len; i++) {
    if (lines[i] != 0)
      list[len++] =
          (struct former){.timer = timer_of(undo->record->diff.changes[lines[i] - 1].from), .leaf = (uint32_t)i};
  }
  if (lines == NULL) {
    esp_free(list);
    return NULL;
  }
  esp_free(lines);
  qsort(list, len, sizeof(*list), former_compare);
  *ret_len = len;
  return list;
}

/* What it was, or NULL with a note where it can't wait again. */
static const struct esp_timer *former_timer(const struct esp_undo *undo, uint64_t id) {
  const struct esp_diff *diff = &undo->record->diff;
  const struct esp_timer *timer = esp_layout_timer(esp_edit_view(undo->tx->edit), id);
  char text[ESP_TIMER_TEXT_MAX];
  if (timer != NULL) /* others have it still */
    return timer;
  for (size_t i = 0; i < diff->timers_len; i++) {
    if (diff->timers[i].id == id)
      timer = &diff->timers[i];
  }
  if (timer != NULL && esp_timer_is_ahead(timer, &undo->tx->moment))
    return timer;
  if (timer != NULL)
    esp_work_note(&undo->tx->work, "%s is not set again: what it waited for has been", esp_timer_print(timer, text));
  return NULL;
}

/* Whether the leaf is frozen, and has a timer that ends that. */
static bool is_ending(const struct esp_layout *view, uint32_t leaf) {
  const struct esp_place *place = esp_layout_place(view, &view->leaves[leaf]);
  const struct esp_timer *timer = esp_layout_timer(view, place->timer);
  return place->frozen && timer != NULL && !timer->frozen;
}

enum esp_code esp_undo_timers(const struct esp_undo *undo, struct esp_status *st) {
  size_t len = 0;
  struct former *list = formers_find(undo, &len);
  struct esp_selection sel = {.leaves = esp_malloc_array(len + 1, sizeof(uint32_t))};
  enum esp_code code = ESP_OK;
  if (list == NULL || sel.leaves == NULL) {
    esp_free(list);
    esp_selection_done(&sel);
    return esp_transaction_memory(st);
  }
  for (size_t i = 0; i < len && code == ESP_OK;) {
    const struct esp_layout *view = esp_edit_view(undo->tx->edit);
    uint64_t id = list[i].timer;
    const struct esp_timer *timer = id == 0 ? NULL : former_timer(undo, id);
    struct esp_timer copy = timer == NULL ? (struct esp_timer){0} : *timer; /* the layout's may move */
    for (sel.len = 0; i < len && list[i].timer == id; i++) {
      if (id == 0 || timer != NULL || !is_ending(view, list[i].leaf))
        sel.leaves[sel.len++] = list[i].leaf;
    }
    undo->tx->gives_timers_back = undo->tx->gives_timers_back || timer != NULL;
    code = esp_edit_timer(undo->tx->edit, &sel, timer == NULL ? NULL : &copy, st);
  }
  esp_free(list);
  esp_selection_done(&sel);
  return code;
}
