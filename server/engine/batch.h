/* A list of items that are put into their parameters' queues at one commit and run together: what a push, an admin
 * transaction or a digest does to parameters. All memory is taken when the batch is made. */
#ifndef ESP_ENGINE_BATCH_H
#define ESP_ENGINE_BATCH_H

#include "engine/param.h"

struct esp_batch {
  struct esp_job job;     /* starts the queues of idle parameters on the pool */
  _Atomic unsigned refs;  /* the pending items' one, and one a share of the job */
  _Atomic size_t pending; /* items that have not run, and one for the owner until it starts the batch */
  struct esp_batch_item *items;
  size_t len;
  size_t capacity;
  struct esp_param **starts; /* idle parameters that got items */
  size_t starts_len;
  size_t starts_per_share;
  struct esp_pool *pool;                             /* borrowed */
  void (*done)(struct esp_batch *batch, void *data); /* once, when all items have run; the batch is still there */
  void *data;
};

struct esp_batch_item {
  struct esp_item item;
  struct esp_batch *batch;
};

/* Room for `capacity` items. NULL without memory. */
struct esp_batch *esp_batch_new(struct esp_pool *pool, size_t capacity, void (*done)(struct esp_batch *, void *),
                                void *data);
/* Of a batch that was not started. NULL is fine. */
void esp_batch_free(struct esp_batch *batch);
/* Appends an item and puts it into the parameter's queue: to be called with the commit lock held, which makes the
 * order. */
void esp_batch_enqueue(struct esp_batch *batch, struct esp_param *param, const struct esp_item *item);
/* Runs it, outside the commit lock: inside this call where it is little work (`here`), else on the pool. The batch
 * frees itself after done. */
void esp_batch_start(struct esp_batch *batch, bool here);
/* The same for a transaction, whose items are urgent: where they are few, inside this call and before what other
 * parameters wait for. */
void esp_batch_start_urgent(struct esp_batch *batch);

#endif
