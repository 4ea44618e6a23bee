/* What freezes and thaws parameters when its time has come: when the layout's timers are due, the transaction that does
 * what they say, and the commits of pushes that wait for it. */
#ifndef ESP_ENGINE_TIMERS_H
#define ESP_ENGINE_TIMERS_H

#include "engine/engine.h"
#include "engine/pool.h"

/* A commit of pushes that waits for timers, in its owner's memory. */
struct esp_parked {
  struct esp_parked *next;
  /* It may go on, or (code is not ESP_OK) is refused. Called once for each time that it was parked, with no lock held.
   */
  void (*go)(struct esp_parked *parked, enum esp_code code, const struct esp_status *st);
  bool resumed; /* it has waited already, and goes before those that wait */
};

/* All but code and st are under the commit lock. */
struct esp_timers {
  struct esp_job job;       /* the transaction, on the transactions' thread */
  struct esp_job resume;    /* lets the parked go on, on the kernels' pool */
  uint64_t stop_at;         /* no commit of pushes takes this number or a higher one without a closer look */
  bool submitted;           /* job: until it has run */
  bool resuming;            /* resume: likewise */
  struct esp_parked *first; /* in the order in which they came */
  struct esp_parked *last;
  enum esp_code code; /* of the transaction: the transactions' thread's, as st */
  struct esp_status st;
};

struct esp_transaction;

void esp_timers_init(struct esp_timers *timers);
/* Under the commit lock, all three. */
/* Whether a commit of pushes that would take the next number may have to wait, or makes timers due. */
#define esp_timers_are_near(engine) ((engine)->commit + 2 >= (engine)->timers.stop_at)
/* Where they are: true where it has to wait; then go comes. */
bool esp_timers_park(struct esp_engine *engine, struct esp_parked *parked);
/* A number was taken, or a layout published: what is due now is submitted. */
void esp_timers_look(struct esp_engine *engine);

/* Looks at the wall clock, and tries again what failed. */
void esp_timers_tick(struct esp_engine *engine);

/* What is due at the transaction's moment is done, as edits and work; the record is given its reason. */
enum esp_code esp_timers_fire(struct esp_transaction *tx, struct esp_record *record,
                              struct esp_status *st) ESP_WARN_UNUSED;
/* Runs the transaction of timers (apply.c), on the transactions' thread: published on return, or failed: then code and
 * st of engine->timers say why. */
void esp_apply_timers(struct esp_engine *engine);

#endif
