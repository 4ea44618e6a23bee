/* Values: the buffers that hold tensors, and pins on them, which let a reader take its time without holding up anybody.
 *
 * Who pins a value provides, out of --max-copy-on-write, the memory that an update needs while the value is pinned: so
 * an update never waits for a reader and never fails, and what readers may cost is known before they begin. One thread
 * at a time pins and updates a value (its parameter's queue sees to that); pins are let go by any thread. */
#ifndef ESP_ENGINE_VALUE_H
#define ESP_ENGINE_VALUE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "engine/budget.h"
#include "engine/engine.h"
#include "engine/pool.h"

/* What all parameters of an engine use. */
struct esp_world {
  _Atomic uint64_t bytes_params; /* of values */
  _Atomic uint64_t bytes_state;  /* of optimizer states */
  struct esp_budget copies;      /* --max-copy-on-write */
  pthread_mutex_t values_lock;   /* of every buffer's spare and is_current; nothing is locked under it */
  struct esp_pool *pool;         /* runs large items */
  enum esp_isa isa;              /* kernels */
};

struct esp_buffer {
  struct esp_block block; /* the memory */
  struct esp_world *world;
  struct esp_buffer *spare; /* there while it is current and pinned, unless an update has taken it */
  size_t len;               /* bytes of data */
  _Atomic uint32_t pins;    /* grows only in the parameter's queue */
  bool is_current;          /* a parameter's value, or about to be */
  _Alignas(ESP_CACHE_LINE) uint8_t data[];
};

/* A value of zeros; NULL without memory. */
struct esp_buffer *esp_buffer_new(struct esp_world *world, size_t len);
/* Where the next value is to be written: the buffer itself, or its spare where it is pinned. */
struct esp_buffer *esp_buffer_target(struct esp_buffer *current);
/* The value is another one now, or none: frees the buffer once it is not pinned. NULL is fine. */
void esp_buffer_retire(struct esp_buffer *buffer);

/* A reservation in --max-copy-on-write that becomes a pin, and is given back when that was let go. */
struct esp_hold {
  _Atomic uint64_t refs;
  struct esp_world *world;
  struct esp_buffer *buffer; /* pinned, or NULL */
  struct esp_block *copy;    /* instead: as the reader sees it, or NULL */
  uint64_t bytes;            /* reserved */
  struct esp_job job;        /* answers those who wait for the bytes */
};

/* What a pin on a value of len bytes may cost; of one that is to be copied to copy_len bytes too. */
uint64_t esp_hold_cost(uint64_t len);
uint64_t esp_hold_cost_copied(uint64_t len, uint64_t copy_len);
/* One reference, and no bytes until whoever had them granted sets them. NULL without memory. */
struct esp_hold *esp_hold_new(struct esp_world *world);
/* Pins the value. False without memory for the spare. */
bool esp_hold_pin(struct esp_hold *hold, struct esp_buffer *current) ESP_WARN_UNUSED;
/* How a reader sees a value. */
struct esp_seen {
  bool transposed; /* of rank 2: it lies the other way round */
  uint64_t rows;   /* that he sees; of another rank 1, and all elements */
  uint64_t cols;
  enum esp_dtype dtype;      /* of the value */
  enum esp_dtype wire_dtype; /* of what he sees: the same, or one of 16 bits for f32 */
};
/* Holds a copy of the value as it is seen, and lets go of the value itself. RESOURCE_EXHAUSTED without memory;
 * OUT_OF_RANGE, naming the element, where it is too large for what is seen. */
enum esp_code esp_hold_copy(struct esp_hold *hold, const struct esp_seen *seen, struct esp_status *st) ESP_WARN_UNUSED;
const void *esp_hold_bytes(const struct esp_hold *hold);

#endif
