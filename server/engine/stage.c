/* Stages: uploads that wait for an operator's `set`. A stage is a push that arrived whole and was put aside under a
 * token, with its reservation, until an apply takes it or it is too old. */
#include <inttypes.h>

#include "base/alloc.h"
#include "base/check.h"
#include "engine/internal.h"

enum esp_code esp_stage_new(struct esp_engine *engine, const struct esp_push_header *header, esp_push_callback callback,
                            void *data, struct esp_push **ret, struct esp_status *st) {
  return esp_push_begin(engine, header, callback, data, true, false, ret, st);
}

/* A weight that is not a number would poison what trains on it; a buffer may hold anything. */
static enum esp_code stage_check(const struct esp_push *push, struct esp_status *st) {
  for (size_t i = 0; i < push->upload.slots_len; i++) {
    const struct esp_slot *slot = &push->upload.slots[i];
    const struct esp_leaf *leaf = esp_layout_leaf_by_id(push->layout, slot->key);
    if (slot->nonfinite != ESP_ALL_FINITE && leaf != NULL && leaf->kind == ESP_KIND_TRAINED)
      return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: element %" PRIu64 " of the value is not finite", leaf->path,
                      slot->nonfinite);
  }
  return ESP_OK;
}

static enum esp_code stage_put(struct esp_engine *engine, struct esp_push *push, uint64_t expires_ms,
                               uint64_t *ret_stage, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  struct esp_stage *stage = esp_malloc(sizeof(*stage));
  pthread_mutex_lock(&engine->stages_lock);
  if (engine->stages.len >= ESP_STAGES_MAX) {
    code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "%d stages wait already to be set", ESP_STAGES_MAX);
  } else if (stage == NULL || !esp_map_reserve(&engine->stages, engine->stages.len + 1)) {
    code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a stage");
  } else {
    do
      *ret_stage = esp_engine_random(engine);
    while (esp_map_get(&engine->stages, *ret_stage) != NULL);
    *stage = (struct esp_stage){.push = push, .expires_ms = expires_ms};
    esp_map_put(&engine->stages, *ret_stage, (uintptr_t)stage);
    stage = NULL;
  }
  pthread_mutex_unlock(&engine->stages_lock);
  esp_free(stage);
  return code;
}

enum esp_code esp_stage_keep(struct esp_push *push, uint64_t *ret_stage, uint64_t *ret_expires_ms,
                             struct esp_status *st) {
  struct esp_engine *engine = push->engine;
  ESP_CHECK(push->is_stage && esp_push_is_whole(push));
  uint64_t wait_ms = 2 * engine->options.stall_timeout_ms;
  enum esp_code code = stage_check(push, st);
  if (code == ESP_OK)
    code = esp_push_set_aside(push, st);
  if (code == ESP_OK)
    code = stage_put(engine, push, esp_engine_now(engine) + wait_ms, ret_stage, st);
  if (code != ESP_OK) {
    esp_push_free(push);
    return code;
  }
  *ret_expires_ms = wait_ms;
  return ESP_OK;
}

struct esp_push *esp_stage_find(struct esp_engine *engine, uint64_t token, bool take) {
  struct esp_push *push = NULL;
  pthread_mutex_lock(&engine->stages_lock);
  const uintptr_t *value = esp_map_get(&engine->stages, token);
  if (value != NULL) {
    struct esp_stage *stage = (struct esp_stage *)*value;
    push = stage->push;
    if (take) {
      esp_map_remove(&engine->stages, token);
      esp_free(stage);
    } else {
      esp_push_ref(push);
    }
  }
  pthread_mutex_unlock(&engine->stages_lock);
  return push;
}

/* The token of the first stage that is over, or 0. */
static uint64_t stage_expired(struct esp_engine *engine, uint64_t now_ms) {
  uint64_t token = 0;
  pthread_mutex_lock(&engine->stages_lock);
  for (size_t i = 0; i < engine->stages.capacity && token == 0; i++) {
    const struct esp_map_entry *entry = &engine->stages.entries[i];
    if (entry->key != 0 && ((const struct esp_stage *)entry->value)->expires_ms <= now_ms)
      token = entry->key;
  }
  pthread_mutex_unlock(&engine->stages_lock);
  return token;
}

void esp_stages_tick(struct esp_engine *engine, uint64_t now_ms) {
  uint64_t token;
  while ((token = stage_expired(engine, now_ms)) != 0)
    esp_push_free(esp_stage_find(engine, token, true));
}

void esp_stages_done(struct esp_engine *engine) {
  esp_stages_tick(engine, UINT64_MAX);
  esp_map_done(&engine->stages);
}
