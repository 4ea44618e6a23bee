/* Waiting for the layout to change. A watch waits once at a time, in its owner's memory: whoever publishes a layout
 * takes the list of those that wait and calls them one after the other, with no lock held. What has changed is read
 * from the layout, so a watch that is slow to ask again misses nothing, and nothing is queued for it. */
#include "base/check.h"
#include "engine/internal.h"

void esp_watches_init(struct esp_watches *watches) {
  *watches = (struct esp_watches){0};
  pthread_mutex_init(&watches->lock, NULL);
}

void esp_watches_done(struct esp_watches *watches) {
  ESP_CHECK(watches->first == NULL && watches->len == 0);
  pthread_mutex_destroy(&watches->lock);
}

void esp_watch_init(struct esp_watch *watch, struct esp_engine *engine, esp_watch_callback callback, void *data) {
  *watch = (struct esp_watch){.engine = engine, .callback = callback, .data = data};
  atomic_fetch_add(&engine->watches.len, 1);
}

void esp_watch_done(struct esp_watch *watch) {
  if (watch->engine == NULL)
    return;
  ESP_CHECK(!watch->is_waiting);
  atomic_fetch_sub(&watch->engine->watches.len, 1);
  watch->engine = NULL;
}

static uint64_t epoch_of(struct esp_engine *engine) {
  pthread_mutex_lock(&engine->commit_lock);
  uint64_t epoch = engine->layout->epoch;
  pthread_mutex_unlock(&engine->commit_lock);
  return epoch;
}

void esp_watch_wait(struct esp_watch *watch, uint64_t epoch) {
  struct esp_engine *engine = watch->engine;
  struct esp_watches *watches = &engine->watches;
  pthread_mutex_lock(&watches->lock);
  ESP_CHECK(!watch->is_waiting);
  /* A layout that is published after this look finds the watch in the list, since it takes the lock after it. */
  bool must_wait = epoch_of(engine) <= epoch;
  if (must_wait) {
    watch->is_waiting = true;
    watch->before = NULL;
    watch->next = watches->first;
    if (watches->first != NULL)
      watches->first->before = watch;
    watches->first = watch;
  }
  pthread_mutex_unlock(&watches->lock);
  if (!must_wait)
    watch->callback(watch->data);
}

bool esp_watch_cancel(struct esp_watch *watch) {
  if (watch->engine == NULL)
    return false;
  struct esp_watches *watches = &watch->engine->watches;
  pthread_mutex_lock(&watches->lock);
  bool was_waiting = watch->is_waiting;
  if (was_waiting) {
    if (watch->before != NULL)
      watch->before->next = watch->next;
    else
      watches->first = watch->next;
    if (watch->next != NULL)
      watch->next->before = watch->before;
    watch->is_waiting = false;
  }
  pthread_mutex_unlock(&watches->lock);
  return was_waiting;
}

void esp_watches_wake(struct esp_engine *engine) {
  struct esp_watches *watches = &engine->watches;
  pthread_mutex_lock(&watches->lock);
  struct esp_watch *watch = watches->first;
  watches->first = NULL;
  for (struct esp_watch *at = watch; at != NULL; at = at->next)
    at->is_waiting = false;
  pthread_mutex_unlock(&watches->lock);
  while (watch != NULL) {
    struct esp_watch *next = watch->next; /* the callback may wait again, or end the watch */
    watch->callback(watch->data);
    watch = next;
  }
}
