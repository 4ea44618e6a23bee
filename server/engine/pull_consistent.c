/* Consistent pulls: reserve the pins of all leaves, then pin them at one commit, by an item in each parameter's queue
 * that is put there under the commit lock. What the pull takes is looked up again in the layout of that moment. */
#include <inttypes.h>

#include "base/alloc.h"
#include "base/check.h"
#include "engine/pull.h"

static void fail_and_return(struct esp_pull *pull, enum esp_code code, const struct esp_status *st) {
  struct esp_world *world = &pull->engine->world;
  uint64_t bytes = pull->reservation.bytes;
  pull->reservation.bytes = 0;
  if (esp_budget_return(&world->copies, bytes))
    esp_budget_grant(&world->copies);
  esp_pull_fail(pull, code, st);
}

static void drop_taken(struct esp_pull *pull) {
  for (size_t i = 0; pull->taken != NULL && i < pull->wanted.len; i++)
    esp_hold_unref(pull->taken[i].hold);
  esp_free(pull->taken);
  pull->taken = NULL;
}

/* All items have run: what was reserved lies with the holds. */
static void take_done(struct esp_batch *batch, void *data) {
  struct esp_pull *pull = data;
  struct esp_engine *engine = pull->engine;
  struct esp_status st;
  enum esp_code code = ESP_OK;
  for (size_t i = 0; i < batch->len; i++) {
    const struct esp_item *item = &batch->items[i].item;
    pull->taken[i].version = item->pin.version;
    if (item->pin.failed && code == ESP_OK)
      code = esp_fail(&st, ESP_RESOURCE_EXHAUSTED, "leaf %s: no memory to keep its value apart while it is read",
                      esp_wanted_leaf(&pull->wanted, i)->path);
    if (pull->taken[i].hold->buffer == NULL) { /* unchanged, or failed */
      esp_hold_unref(pull->taken[i].hold);
      pull->taken[i].hold = NULL;
    }
  }
  if (code == ESP_OK) {
    esp_pull_give_header(pull);
  } else {
    drop_taken(pull);
    esp_pull_fail(pull, code, &st);
  }
  atomic_fetch_sub(&engine->committing, 1);
}

static enum esp_code take_prepare(struct esp_pull *pull, struct esp_batch **ret, struct esp_status *st) {
  size_t len = pull->wanted.len;
  struct esp_batch *batch = esp_batch_new(pull->engine->pool, len, take_done, pull);
  pull->taken = esp_calloc(len + 1, sizeof(*pull->taken));
  bool is_made = batch != NULL && pull->taken != NULL;
  for (size_t i = 0; i < len && is_made; i++) {
    pull->taken[i].hold = esp_hold_new(&pull->engine->world);
    is_made = pull->taken[i].hold != NULL;
  }
  if (is_made) {
    *ret = batch;
    return ESP_OK;
  }
  esp_batch_free(batch);
  drop_taken(pull);
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a consistent pull of %zu leaves", len);
}

/* Under the commit lock: pins all leaves. Their costs go from the reservation to the holds. */
static void take_enqueue(struct esp_pull *pull, struct esp_batch *batch) {
  for (size_t i = 0; i < pull->wanted.len; i++) {
    struct esp_param *param = esp_wanted_param(&pull->wanted, i);
    struct esp_item item = {.kind = ESP_ITEM_PIN};
    item.pin.hold = pull->taken[i].hold;
    item.pin.have = esp_wanted_have(&pull->wanted, i);
    item.pin.hold->bytes = esp_wanted_cost(&pull->wanted, i);
    esp_batch_enqueue(batch, param, &item);
  }
}

/* Pins everything that is wanted, if the layout is still the one that it was looked up in. */
static enum esp_code take_try(struct esp_pull *pull, bool *ret_taken, struct esp_status *st) {
  struct esp_engine *engine = pull->engine;
  struct esp_batch *batch = NULL;
  enum esp_code code = take_prepare(pull, &batch, st);
  if (code != ESP_OK)
    return code;
  pthread_mutex_lock(&engine->commit_lock);
  *ret_taken = engine->layout == pull->wanted.layout;
  if (*ret_taken) {
    atomic_fetch_add(&engine->committing, 1);
    pull->header.commit = engine->commit;
    take_enqueue(pull, batch);
  }
  pthread_mutex_unlock(&engine->commit_lock);
  if (!*ret_taken) {
    esp_batch_free(batch);
    drop_taken(pull);
    return ESP_OK;
  }
  uint64_t left = pull->reservation.bytes - pull->wanted.cost;
  bool is_small = pull->wanted.cost < ESP_HERE_BYTES_MAX;
  if (esp_budget_return(&engine->world.copies, left))
    esp_budget_grant(&engine->world.copies);
  esp_batch_start(batch, is_small); /* the pull may be gone after this */
  return ESP_OK;
}

/* Looks everything up in the layout of now. */
static enum esp_code look_again(struct esp_pull *pull, struct esp_status *st) {
  struct esp_layout *layout = esp_engine_layout(pull->engine, NULL);
  if (layout == pull->wanted.layout) {
    esp_layout_unref(layout);
    return ESP_OK;
  }
  esp_wanted_done(&pull->wanted);
  enum esp_code code = esp_wanted_init(&pull->wanted, layout, pull->engine->lineage, &pull->request, st);
  if (code != ESP_OK)
    return code;
  pull->header.epoch = layout->epoch;
  pull->header.leaf_count = pull->wanted.len;
  pull->header.total_bytes = pull->wanted.bytes;
  if (pull->wanted.cost <= pull->reservation.bytes)
    return ESP_OK;
  return esp_fail(st, ESP_UNAVAILABLE, "the tree grew while the pull waited for --max-copy-on-write: pull again");
}

/* The reservation was granted. */
static void take(struct esp_pull *pull) {
  struct esp_status st;
  bool is_taken = false;
  while (!is_taken) {
    enum esp_code code = look_again(pull, &st);
    if (code == ESP_OK)
      code = take_try(pull, &is_taken, &st);
    if (code != ESP_OK) {
      fail_and_return(pull, code, &st);
      return;
    }
  }
}

static void answered(struct esp_reservation *reservation, enum esp_code code, const struct esp_status *st) {
  struct esp_pull *pull = (struct esp_pull *)((char *)reservation - offsetof(struct esp_pull, reservation));
  if (code == ESP_OK)
    take(pull);
  else
    esp_pull_fail(pull, code, st);
}

enum esp_pull_answer esp_pull_begin_consistent(struct esp_pull *pull) {
  struct esp_status st;
  bool granted = false;
  pull->reservation.answered = answered;
  enum esp_code code = esp_pull_reserve(pull, pull->wanted.cost, &granted, &st);
  if (code != ESP_OK)
    esp_pull_fail(pull, code, &st);
  else if (granted)
    take(pull);
  return granted || code != ESP_OK ? ESP_PULL_ASKED : ESP_PULL_WAITS;
}
