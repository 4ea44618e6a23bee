/* Timers as they were before a transaction that is undone: whose each was is read from its diff, what they were is kept
 * there beside the lines. One whose commit, count or time has been can't be set again, which is told in a note. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/operations.h"

static uint64_t timer_of(const char *text) {
  const char *id = strstr(text, "(timer ");
  uint64_t timer = 0;
  return id != NULL && sscanf(id, "(timer %" SCNu64, &timer) == 1 ? timer : 0;
}

static int former_compare(const void *a, const void *b) {
  const struct esp_former_timer *x = a, *y = b;
  if (x->timer != y->timer)
    return x->timer < y->timer ? -1 : 1;
  return x->leaf < y->leaf ? -1 : x->leaf > y->leaf;
}

/* From the last line to the first, which is the one that counts. A leaf whose flag changes back keeps what it has. */
enum esp_code esp_former_timers_find(const struct esp_transaction *tx, const struct esp_diff *diff,
                                     struct esp_former_timers *ret, struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(tx->edit);
  struct esp_former_timer *list = esp_calloc(view->leaves_len + 1, sizeof(*list));
  uint8_t *told = esp_calloc(view->leaves_len + 1, 1);
  *ret = (struct esp_former_timers){.list = list};
  for (size_t i = diff->len; i > 0 && list != NULL && told != NULL; i--) {
    const struct esp_change *change = &diff->changes[i - 1];
    const struct esp_leaf *leaf = esp_layout_leaf_by_id(view, change->leaf_id);
    bool tells = strcmp(change->field, "timer") == 0;
    if (leaf == NULL || (!tells && strcmp(change->field, "frozen") != 0))
      continue;
    size_t index = (size_t)(leaf - view->leaves);
    if (tells)
      list[index].timer = timer_of(change->from);
    else if (told[index] == 0)
      list[index].timer = esp_layout_place(view, leaf)->timer;
    told[index] = 1;
  }
  for (size_t i = 0; i < view->leaves_len && list != NULL && told != NULL; i++) {
    if (told[i] != 0)
      list[ret->len++] = (struct esp_former_timer){.timer = list[i].timer, .leaf = (uint32_t)i};
  }
  enum esp_code code = list == NULL || told == NULL ? esp_transaction_memory(st) : ESP_OK;
  if (list != NULL && code == ESP_OK)
    qsort(list, ret->len, sizeof(*list), former_compare);
  esp_free(told);
  return code;
}

/* What it was, or NULL with a note where it can't wait again. */
static const struct esp_timer *former_timer(struct esp_transaction *tx, const struct esp_diff *diff, uint64_t id) {
  const struct esp_timer *timer = esp_layout_timer(esp_edit_view(tx->edit), id);
  char text[ESP_TIMER_TEXT_MAX];
  if (timer != NULL) /* others have it still */
    return timer;
  for (size_t i = 0; i < diff->timers_len; i++) {
    if (diff->timers[i].id == id)
      timer = &diff->timers[i];
  }
  if (timer != NULL && esp_timer_is_ahead(timer, &tx->moment))
    return timer;
  if (timer != NULL)
    esp_work_note(&tx->work, "%s is not set again: what it waited for has been", esp_timer_print(timer, text));
  return NULL;
}

enum esp_code esp_former_timers_give(struct esp_transaction *tx, const struct esp_diff *diff,
                                     const struct esp_former_timers *former, struct esp_status *st) {
  struct esp_selection sel = {.leaves = esp_malloc_array(former->len + 1, sizeof(uint32_t))};
  enum esp_code code = sel.leaves == NULL ? esp_transaction_memory(st) : ESP_OK;
  for (size_t i = 0; sel.leaves != NULL && i < former->len && code == ESP_OK;) {
    uint64_t id = former->list[i].timer;
    for (sel.len = 0; i < former->len && former->list[i].timer == id; i++)
      sel.leaves[sel.len++] = former->list[i].leaf;
    const struct esp_timer *timer = id == 0 ? NULL : former_timer(tx, diff, id);
    struct esp_timer copy = timer == NULL ? (struct esp_timer){0} : *timer; /* the layout's may move */
    tx->gives_timers_back = tx->gives_timers_back || timer != NULL;
    code = esp_edit_timer(tx->edit, &sel, timer == NULL ? NULL : &copy, st);
  }
  esp_selection_done(&sel);
  return code;
}

void esp_former_timers_done(struct esp_former_timers *former) {
  esp_free(former->list);
  *former = (struct esp_former_timers){0};
}
