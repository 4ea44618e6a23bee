/* The norms that some optimizers want to know of a commit before it is applied (clip_norm and its kin): sums of
 * squares, measured on the pool before the commit takes its number. */
#ifndef ESP_ENGINE_NORMS_H
#define ESP_ENGINE_NORMS_H

#include "engine/internal.h"

/* What a commit applies to one parameter. */
struct esp_run {
  uint32_t param; /* index in the layout; runs are in the order of the parameters */
  const struct esp_grad *grads;
  size_t grads_len;
  bool wanted;        /* somebody wants to know its squares */
  bool known;         /* norms.param is there */
  size_t first_range; /* while it is measured: its place among all ranges */
  struct esp_norms norms;
};

/* Of one commit; its runs are found anew whenever the layout has changed meanwhile. */
struct esp_measure {
  struct esp_job job; /* one share a range */
  struct esp_engine *engine;
  const struct esp_layout *layout; /* borrowed */
  struct esp_run *runs;
  size_t runs_len;
  struct esp_run *old_runs; /* of the layout before: what was measured of a run that is the same stays known */
  size_t old_runs_len;
  struct esp_grad *old_grads; /* theirs */
  double *ranges;             /* sums of squares */
  double *groups;             /* likewise, by group of the layout */
  size_t capacity;            /* runs, and gradients */
  _Atomic size_t pending;     /* ranges that have not been measured */
  void (*done)(struct esp_measure *measure);
  void *data; /* the owner's */
};

/* Whether any optimizer of the layout wants norms. */
bool esp_layout_wants_norms(const struct esp_layout *layout);
/* For a commit of so many tensors and bytes at most. NULL without memory. */
struct esp_measure *esp_measure_new(struct esp_engine *engine, size_t tensors, uint64_t bytes,
                                    void (*done)(struct esp_measure *measure));
void esp_measure_free(struct esp_measure *measure); /* NULL is fine */

/* Forgets the runs, for those of another layout; what was measured of them is remembered. False without memory. */
bool esp_measure_begin(struct esp_measure *measure, const struct esp_layout *layout) ESP_WARN_UNUSED;
void esp_measure_add(struct esp_measure *measure, uint32_t param, const struct esp_grad *grads, size_t grads_len);
/* False: all runs' norms are known. True: they are being measured; done follows in one of the pool's threads, and the
 * same is to be asked again. */
bool esp_measure_start(struct esp_measure *measure) ESP_WARN_UNUSED;

#endif
