/* Batches. Queues of idle parameters are started by a job of the pool, several to a share, so that a push of a hundred
 * thousand small leaves does not cost a hand-over each; a small batch is run by the thread that made it. */
#include "engine/batch.h"

#include "base/alloc.h"
#include "base/check.h"

#define STARTS_PER_SHARE_MAX 64
#define URGENT_HERE_MAX 64 /* items; more of them are better spread over the pool */

struct esp_batch *esp_batch_new(struct esp_pool *pool, size_t capacity, void (*done)(struct esp_batch *, void *),
                                void *data) {
  struct esp_batch *batch = esp_calloc(1, sizeof(*batch));
  if (batch == NULL)
    return NULL;
  *batch = (struct esp_batch){.refs = 1, .pending = 1, .capacity = capacity, .pool = pool, .done = done, .data = data};
  batch->items = esp_malloc_array(capacity, sizeof(*batch->items));
  batch->starts = esp_malloc_array(capacity, sizeof(struct esp_param *));
  if (capacity > 0 && (batch->items == NULL || batch->starts == NULL)) {
    esp_batch_free(batch);
    return NULL;
  }
  return batch;
}

void esp_batch_free(struct esp_batch *batch) {
  if (batch == NULL)
    return;
  esp_free(batch->items);
  esp_free(batch->starts);
  esp_free(batch);
}

static void batch_unref(struct esp_batch *batch) {
  if (atomic_fetch_sub(&batch->refs, 1) == 1)
    esp_batch_free(batch);
}

static void batch_ended(struct esp_batch *batch) {
  if (atomic_fetch_sub(&batch->pending, 1) != 1)
    return;
  batch->done(batch, batch->data);
  batch_unref(batch);
}

static void batch_item_done(struct esp_item *item) {
  batch_ended(((struct esp_batch_item *)item)->batch);
}

void esp_batch_enqueue(struct esp_batch *batch, struct esp_param *param, const struct esp_item *item) {
  ESP_CHECK(batch->len < batch->capacity);
  struct esp_batch_item *own = &batch->items[batch->len++];
  own->item = *item;
  own->item.done = batch_item_done;
  own->batch = batch;
  atomic_fetch_add(&batch->pending, 1);
  if (esp_param_enqueue(param, &own->item))
    batch->starts[batch->starts_len++] = param;
}

static void batch_share(struct esp_job *job, unsigned share) {
  struct esp_batch *batch = (struct esp_batch *)job;
  size_t first = share * batch->starts_per_share;
  size_t last = first + batch->starts_per_share;
  for (size_t i = first; i < last && i < batch->starts_len; i++)
    esp_param_start(batch->starts[i]);
  batch_unref(batch);
}

void esp_batch_start(struct esp_batch *batch, bool here) {
  size_t per_share = here ? batch->starts_len : batch->starts_len / 8 + 1;
  batch->starts_per_share = !here && per_share > STARTS_PER_SHARE_MAX ? STARTS_PER_SHARE_MAX : per_share;
  if (batch->starts_len > 0) {
    atomic_fetch_add(&batch->refs, 1);
    if (here) {
      batch_share(&batch->job, 0);
    } else {
      batch->job.run = batch_share;
      batch->job.shares = (unsigned)((batch->starts_len + batch->starts_per_share - 1) / batch->starts_per_share);
      atomic_fetch_add(&batch->refs, batch->job.shares - 1);
      esp_pool_submit(batch->pool, &batch->job);
    }
  }
  batch_ended(batch);
}

/* No item's parameter goes before the batch is done, which it is not before its owner has started it. */
void esp_batch_start_urgent(struct esp_batch *batch) {
  bool here = batch->len <= URGENT_HERE_MAX;
  for (size_t i = 0; i < batch->len && here; i++)
    esp_param_hurry(batch->items[i].item.param);
  esp_batch_start(batch, here);
}
