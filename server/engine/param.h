/* A parameter and its queue. Everything that touches a value (steps, writes, pins, digests, barriers) is an item in the
 * parameter's queue, put there in commit order; items of one parameter run one after the other, of different
 * parameters in parallel, and a large item is itself split over the pool. So no item ever waits with a lock held. */
#ifndef ESP_ENGINE_PARAM_H
#define ESP_ENGINE_PARAM_H

#include "engine/value.h"

/* Elements of one share of a large item: it fits L2 with its states. Results do not depend on it. */
#define ESP_SHARE_ELEMENTS 65536
/* Gradients that one step may sum: a round's workers times a parameter's leaves. */
#define ESP_ITEM_GRADS_MAX 256

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
  uint64_t rows; /* of rank 2; else 0, as cols */
  uint64_t cols;
  enum esp_dtype dtype;
  struct esp_optim *optim;     /* ref'd: whose states it has, by the newest layout; NULL: none. The transactions' */
  _Atomic unsigned states_len; /* state tensors; written by the runner, read by anybody */
  pthread_mutex_t lock;        /* of the queue */
  struct esp_item *first;      /* items that wait */
  struct esp_item *last;
  unsigned urgent;          /* how many of them are */
  bool running;             /* somebody runs the queue, or is about to: new items will be met */
  bool waiting;             /* about to: whoever comes first runs it */
  struct esp_buffer *value; /* from here on only the runner's */
  struct esp_buffer *out;   /* where the running item writes */
  uint8_t *state;           /* all state tensors, each esp_param_state_stride apart */
  struct esp_wide *wide;    /* NULL for parameters of one share */
  _Atomic uint64_t steps;   /* written by the runner, read by anybody */
  _Atomic uint64_t version; /* likewise; 1 for the first value */
};

enum esp_item_kind {
  ESP_ITEM_STEP,    /* one optimizer step */
  ESP_ITEM_WRITE,   /* value from memory */
  ESP_ITEM_MEAN,    /* value: the mean of itself and of memory */
  ESP_ITEM_FILL,    /* value from an initialiser */
  ESP_ITEM_RESET,   /* optimizer state and step count afresh */
  ESP_ITEM_MIGRATE, /* optimizer state as another optimizer has it */
  ESP_ITEM_GIVE,    /* value and perhaps state to another parameter, whose queue waits for it */
  ESP_ITEM_WAIT,    /* the queue waits until another parameter has given */
  ESP_ITEM_PIN,     /* holds the value for a reader */
  ESP_ITEM_HASH,    /* its digest */
  ESP_ITEM_BARRIER, /* nothing: what came before has run */
};

#define ESP_STATE_FRESH UINT8_MAX

struct esp_item {
  struct esp_item *next;   /* the queue's */
  struct esp_param *param; /* borrowed: the queue has its own reference while it runs */
  enum esp_item_kind kind;
  bool is_urgent;                      /* what is before it in the queue, and itself, goes before other parameters' */
  void (*done)(struct esp_item *item); /* once, without a lock; the item is its owner's again */
  union {
    struct {
      const struct esp_optim *optim; /* borrowed until done */
      const struct esp_grad *grads;  /* likewise; summed in order */
      size_t grads_len;
      double grad_scale;
      struct esp_norms norms; /* those that optim wants */
    } step;
    struct {            /* MEAN too */
      const void *from; /* the whole value; borrowed until done */
      bool transposed;  /* of [cols, rows] */
    } write;
    struct {
      uint8_t *state; /* zeros: room for states_len tensors; passes to the parameter */
      unsigned states_len;
      bool keep_steps;
      uint8_t kept[ESP_OPTIM_STATES_MAX]; /* by new state: the old one that it was, or ESP_STATE_FRESH */
    } migrate;
    struct {
      struct esp_param *to;  /* fresh, of as many elements; borrowed until done */
      struct esp_item *wait; /* in the queue that waits; NULL: none does */
      bool transposed;
      bool with_state; /* `to` has the same states */
    } give;
    struct {
      struct esp_job job;       /* goes on with the queue */
      _Atomic unsigned arrived; /* of the queue and the giver: the second one goes on */
    } wait;
    struct {
      struct esp_init init;
    } fill;
    struct {
      struct esp_hold *hold; /* borrowed until done; pins the value unless it is the one that the reader has */
      uint64_t have;         /* the version that the reader has; 0: none */
      uint64_t version;      /* of the value */
      bool failed;           /* there was no memory */
    } pin;
    struct {
      struct esp_digest digest;
      uint64_t steps;
      uint64_t version;
    } hash;
  };
};

/* A parameter of zeros, of one reference; NULL without memory. States are added before it is published. */
struct esp_param *esp_param_new(struct esp_world *world, enum esp_dtype dtype, const struct esp_shape *shape);
/* optim is ref'd, and has its states, zeros, from here on. */
bool esp_param_add_states(struct esp_param *param, struct esp_optim *optim);
size_t esp_param_state_bytes(const struct esp_param *param);
/* Memory for ESP_ITEM_MIGRATE, accounted; free it where the item does not run. NULL without memory. */
uint8_t *esp_param_states_new(struct esp_param *param, size_t states_len);
void esp_param_states_free(struct esp_param *param, uint8_t *state, size_t states_len);

/* Puts an item at the queue's end. True: nobody runs the queue, and the caller must esp_param_start it, once. */
bool esp_param_enqueue(struct esp_param *param, struct esp_item *item) ESP_WARN_UNUSED;
/* Runs the queue until it is empty or a large item has gone to the pool (which then goes on); nothing where
 * esp_param_hurry was faster. The parameter may be gone afterwards. */
void esp_param_start(struct esp_param *param);
/* After an urgent item was put into the queue: runs it, where whoever is to start it has not come to it yet, or takes
 * the large item that waits in the pool out of its turn. The caller has a reference. */
void esp_param_hurry(struct esp_param *param);

#endif
