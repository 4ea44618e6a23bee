/* What was changed, by whom and when: the last transactions, in memory. */
#ifndef ESP_ENGINE_HISTORY_H
#define ESP_ENGINE_HISTORY_H

#include <pthread.h>

#include "engine/engine.h"

#define ESP_HISTORY_MAX 10000         /* transactions */
#define ESP_HISTORY_LINES_MAX 1000000 /* of all their diffs */
#define ESP_HISTORY_RECORD_MAX 250000 /* lines of one diff: a longer one is counted, and not kept */

struct esp_history {
  pthread_mutex_t lock;
  struct esp_record **records; /* a ring of ESP_HISTORY_MAX; NULL until the first */
  size_t first;
  size_t len;
  uint64_t lines;
};

void esp_history_init(struct esp_history *history);
void esp_history_done(struct esp_history *history);
/* One reference; NULL without memory. */
struct esp_record *esp_record_new(uint64_t at_ms, const char *actor, const char *reason);
struct esp_record *esp_record_ref(struct esp_record *record);
/* Makes room, so that adding one can't fail; false without memory. */
bool esp_history_reserve(struct esp_history *history) ESP_WARN_UNUSED;
/* Its epoch, commit and diff are there. A reference of the history's own is taken; the oldest make room. */
void esp_history_add(struct esp_history *history, struct esp_record *record);

#endif
