/* Inside the engine: a pull, and which leaves it takes. */
#ifndef ESP_ENGINE_PULL_H
#define ESP_ENGINE_PULL_H

#include "engine/internal.h"

/* What a pull takes, in one layout. */
struct esp_wanted {
  struct esp_layout *layout; /* ref'd */
  uint32_t *leaves;          /* indices in it, in the order in which they are to come */
  size_t len;
  uint8_t *dtypes; /* by index: in which it is wanted; ESP_DTYPE_NONE: it is not */
  uint64_t *have;  /* by index: the version that the reader has, 0 for none; NULL: he has none at all */
  uint64_t bytes;  /* of all tensors, as they are wanted */
  uint64_t cost;   /* of pins on all of them */
  size_t largest;  /* the place in leaves of the tensor whose pin costs most */
};

/* Takes over the layout's reference in any case. NOT_FOUND, INVALID_ARGUMENT, RESOURCE_EXHAUSTED (no memory). */
enum esp_code esp_wanted_init(struct esp_wanted *wanted, struct esp_layout *layout, uint64_t lineage,
                              const struct esp_pull_request *request, struct esp_status *st) ESP_WARN_UNUSED;
void esp_wanted_done(struct esp_wanted *wanted); /* idempotent */

static inline const struct esp_leaf *esp_wanted_leaf(const struct esp_wanted *wanted, size_t i) {
  return &wanted->layout->leaves[wanted->leaves[i]];
}
static inline struct esp_param *esp_wanted_param(const struct esp_wanted *wanted, size_t i) {
  return esp_place_param(esp_layout_place(wanted->layout, esp_wanted_leaf(wanted, i)));
}
static inline enum esp_dtype esp_wanted_dtype(const struct esp_wanted *wanted, size_t i) {
  return (enum esp_dtype)wanted->dtypes[wanted->leaves[i]];
}
static inline uint64_t esp_wanted_bytes(const struct esp_wanted *wanted, size_t i) {
  return esp_wanted_param(wanted, i)->elements * esp_dtype_size(esp_wanted_dtype(wanted, i));
}
/* Whether it is seen as it lies. */
static inline bool esp_wanted_is_plain(const struct esp_wanted *wanted, size_t i) {
  return esp_wanted_leaf(wanted, i)->view == ESP_VIEW_IDENTITY &&
         esp_wanted_dtype(wanted, i) == esp_wanted_param(wanted, i)->dtype;
}
/* What a pin on one of them may cost. */
static inline uint64_t esp_wanted_cost(const struct esp_wanted *wanted, size_t i) {
  uint64_t bytes = esp_wanted_param(wanted, i)->bytes;
  return esp_wanted_is_plain(wanted, i) ? esp_hold_cost(bytes)
                                        : esp_hold_cost_copied(bytes, esp_wanted_bytes(wanted, i));
}
static inline uint64_t esp_wanted_have(const struct esp_wanted *wanted, size_t i) {
  return wanted->have == NULL ? 0 : wanted->have[wanted->leaves[i]];
}

/* A tensor of a consistent pull, pinned and not given yet. */
struct esp_taken {
  struct esp_hold *hold; /* NULL: the reader has it already */
  uint64_t version;
};

/*  new --next--> plain:      the header, then a hold a tensor: next --> asks --> (waits) --> pins --> callback
 *           '--> consistent: asks for all --> (waits) --> takes all at one commit --> the header; then what was taken
 */
struct esp_pull {
  struct esp_item item; /* plain: pins the leaf that is being asked for */
  struct esp_engine *engine;
  struct esp_pull_request request; /* borrowed until the header came */
  esp_pull_callback callback;
  void *data;
  struct esp_wanted wanted;
  struct esp_pull_header header;
  struct esp_reservation reservation; /* while it asks for memory */
  bool begun;                         /* the header was asked for */
  size_t next;                        /* the leaf that comes next */
  struct esp_hold *hold;              /* plain: for the leaf that is being asked for */
  struct esp_taken *taken;            /* consistent: one a leaf, once the header came */
};

/* Asks for --max-copy-on-write, from the pull's own deadline on. */
enum esp_code esp_pull_reserve(struct esp_pull *pull, uint64_t bytes, bool *ret_granted,
                               struct esp_status *st) ESP_WARN_UNUSED;
/* Its only callback for this next. */
void esp_pull_fail(struct esp_pull *pull, enum esp_code code, const struct esp_status *st);
void esp_pull_give_header(struct esp_pull *pull);
void esp_pull_give(struct esp_pull *pull, struct esp_hold *hold, uint64_t version);

/* Of a consistent pull: asks for the header (pull_consistent.c). */
enum esp_pull_answer esp_pull_begin_consistent(struct esp_pull *pull);

#endif
