/* A parameter and its queue. Everything that touches a value (steps, writes, pins, digests, barriers) is an item in the
 * parameter's queue, put there in commit order; items of one parameter run one after the other, of different
 * parameters in parallel, and a large item is itself split over the pool. So no item ever waits with a lock held. */
#ifndef ESP_ENGINE_PARAM_H
#define ESP_ENGINE_PARAM_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "engine/engine.h"
#include "engine/pool.h"

/* Elements of one share of a large item: it fits L2 with its states. Results do not depend on it. */
#define ESP_SHARE_ELEMENTS 65536
/* Gradients that one step may sum: a round's workers times a parameter's leaves. */
#define ESP_ITEM_GRADS_MAX 256

/* Bytes by kind, and what all parameters use. */
struct esp_world {
  _Atomic uint64_t bytes_values; /* of all value buffers: parameters and copies on write */
  _Atomic uint64_t bytes_params; /* of the parameters alone */
  _Atomic uint64_t bytes_state;  /* of optimizer states */
  struct esp_pool *pool;         /* runs large items */
  enum esp_isa isa;              /* kernels */
};

/* A value, counted: one reference is its parameter's, the others are pins. */
struct esp_buffer {
  _Atomic uint64_t refs;
  struct esp_world *world;
  size_t len; /* bytes of data */
  _Alignas(ESP_CACHE_LINE) uint8_t data[];
};

struct esp_item;

/* What a large item needs while its shares run; only parameters of more than one share have it. */
struct esp_wide {
  struct esp_job job;
  struct esp_param *param;
  struct esp_item *item;
  struct esp_step step;
  _Atomic unsigned pending; /* shares that have not ended */
};

struct esp_param {
  struct esp_object object; /* counted by layouts and, while items run, by the queue */
  struct esp_world *world;  /* borrowed */
  size_t elements;
  size_t bytes;
  enum esp_dtype dtype;
  unsigned states_len;    /* state tensors */
  pthread_mutex_t lock;   /* of the queue */
  struct esp_item *first; /* items that wait */
  struct esp_item *last;
  bool running;             /* somebody runs the queue: new items will be met */
  struct esp_buffer *value; /* from here on only the runner's */
  struct esp_buffer *spare; /* there whenever value is pinned: where the next update goes then */
  struct esp_buffer *out;   /* where the running item writes */
  uint8_t *state;           /* all state tensors, each esp_param_state_stride apart */
  struct esp_wide *wide;    /* NULL for parameters of one share */
  _Atomic uint64_t steps;   /* written by the runner, read by anybody */
  _Atomic uint64_t version; /* likewise; 1 for the first value */
};

enum esp_item_kind {
  ESP_ITEM_STEP,    /* one optimizer step */
  ESP_ITEM_WRITE,   /* value from memory */
  ESP_ITEM_FILL,    /* value from an initialiser */
  ESP_ITEM_RESET,   /* optimizer state and step count afresh */
  ESP_ITEM_PIN,     /* a reference to the value */
  ESP_ITEM_HASH,    /* its digest */
  ESP_ITEM_BARRIER, /* nothing: what came before has run */
};

struct esp_item {
  struct esp_item *next;   /* the queue's */
  struct esp_param *param; /* borrowed: the queue has its own reference while it runs */
  enum esp_item_kind kind;
  void (*done)(struct esp_item *item); /* once, without a lock; the item is its owner's again */
  union {
    struct {
      const struct esp_optim *optim; /* borrowed until done */
      const void *const *grads;      /* each a whole gradient; summed in order */
      size_t grads_len;
      double grad_scale;
    } step;
    struct {
      const void *from; /* the whole value; borrowed until done */
    } write;
    struct {
      struct esp_init init;
    } fill;
    struct {
      struct esp_buffer *buffer; /* the pin; NULL: no memory for the spare */
      uint64_t version;
    } pin;
    struct {
      struct esp_digest digest;
      uint64_t steps;
      uint64_t version;
    } hash;
  };
};

/* A parameter of zeros, of one reference; NULL without memory. States are added before it is published. */
struct esp_param *esp_param_new(struct esp_world *world, enum esp_dtype dtype, uint64_t elements);
bool esp_param_add_states(struct esp_param *param, size_t states_len);
size_t esp_param_state_bytes(const struct esp_param *param);

/* Puts an item at the queue's end. True: nobody runs the queue, and the caller must esp_param_start it. */
bool esp_param_enqueue(struct esp_param *param, struct esp_item *item) ESP_WARN_UNUSED;
/* Runs the queue until it is empty or a large item has gone to the pool (which then goes on). */
void esp_param_start(struct esp_param *param);

#endif
