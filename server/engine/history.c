/* The history: a ring of records. Whoever lists them holds what he got, so making room waits for nobody. A diff that is
 * longer than all others together might be is not kept: its record is a copy without lines. */
#include "engine/history.h"

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "engine/internal.h"

/* ---- records ---- */

struct esp_record *esp_record_new(uint64_t at_ms, const char *actor, const char *reason) {
  struct esp_record *record = esp_calloc(1, sizeof(*record));
  if (record == NULL)
    return NULL;
  record->refs = 1;
  record->at_ms = at_ms;
  record->actor = esp_strdup(actor == NULL ? "" : actor);
  record->reason = esp_strdup(reason == NULL ? "" : reason);
  if (record->actor != NULL && record->reason != NULL)
    return record;
  esp_record_unref(record);
  return NULL;
}

struct esp_record *esp_record_ref(struct esp_record *record) {
  atomic_fetch_add_explicit(&record->refs, 1, memory_order_relaxed);
  return record;
}

void esp_record_unref(struct esp_record *record) {
  if (record == NULL || atomic_fetch_sub_explicit(&record->refs, 1, memory_order_acq_rel) != 1)
    return;
  esp_diff_done(&record->diff);
  esp_free(record->actor);
  esp_free(record->reason);
  esp_free(record);
}

/* ---- the ring ---- */

void esp_history_init(struct esp_history *history) {
  *history = (struct esp_history){0};
  pthread_mutex_init(&history->lock, NULL);
}

static void drop_first(struct esp_history *history) {
  struct esp_record *record = history->records[history->first];
  history->first = (history->first + 1) % ESP_HISTORY_MAX;
  history->len--;
  history->lines -= record->diff.len;
  esp_record_unref(record);
}

void esp_history_done(struct esp_history *history) {
  while (history->len > 0)
    drop_first(history);
  esp_free(history->records);
  pthread_mutex_destroy(&history->lock);
}

bool esp_history_reserve(struct esp_history *history) {
  if (history->records == NULL) /* only whoever adds looks at it without the lock */
    history->records = esp_malloc_array(ESP_HISTORY_MAX, sizeof(struct esp_record *));
  return history->records != NULL;
}

/* Without lines; NULL without memory. */
static struct esp_record *copy_bare(const struct esp_record *record) {
  struct esp_record *copy = esp_record_new(record->at_ms, record->actor, record->reason);
  if (copy != NULL) {
    copy->epoch = record->epoch;
    copy->commit = record->commit;
    copy->undoes = record->undoes;
    copy->changes_len = record->changes_len;
  }
  return copy;
}

void esp_history_add(struct esp_history *history, struct esp_record *record) {
  bool too_long = record->diff.len > ESP_HISTORY_RECORD_MAX;
  struct esp_record *own = too_long ? copy_bare(record) : esp_record_ref(record);
  if (own == NULL) /* the lines must not be kept, and there is no memory to say so */
    return;
  pthread_mutex_lock(&history->lock);
  while (history->len == ESP_HISTORY_MAX ||
         (history->len > 0 && history->lines + own->diff.len > ESP_HISTORY_LINES_MAX))
    drop_first(history);
  history->records[(history->first + history->len++) % ESP_HISTORY_MAX] = own;
  history->lines += own->diff.len;
  pthread_mutex_unlock(&history->lock);
}

enum esp_code esp_engine_history(struct esp_engine *engine, uint64_t since_epoch, uint64_t limit,
                                 struct esp_record ***ret, size_t *ret_len, struct esp_status *st) {
  struct esp_history *history = &engine->history;
  struct esp_record **list = esp_malloc_array(ESP_HISTORY_MAX, sizeof(struct esp_record *));
  if (list == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for the history");
  pthread_mutex_lock(&history->lock);
  size_t from = history->len;
  while (from > 0 && (limit == 0 || history->len - from < limit) &&
         history->records[(history->first + from - 1) % ESP_HISTORY_MAX]->epoch > since_epoch)
    from--;
  *ret_len = history->len - from;
  for (size_t i = 0; i < *ret_len; i++)
    list[i] = esp_record_ref(history->records[(history->first + from + i) % ESP_HISTORY_MAX]);
  pthread_mutex_unlock(&history->lock);
  *ret = list;
  return ESP_OK;
}
