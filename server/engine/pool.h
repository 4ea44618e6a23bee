/* A pool of threads that runs jobs, first come first served but for those that somebody asks to be first. A job is
 * split into shares that may run at the same time; it lives in its owner's memory, so that handing it over cannot fail.
 */
#ifndef ESP_ENGINE_POOL_H
#define ESP_ENGINE_POOL_H

#include <espalier/status.h>

#include <stdbool.h>

struct esp_pool;

struct esp_job {
  struct esp_job *next;                             /* the pool's */
  void (*run)(struct esp_job *job, unsigned share); /* runs share 0 <= share < shares, on any of the pool's threads */
  unsigned shares;                                  /* at least 1 */
  unsigned taken;                                   /* the pool's */
};

/* threads named `name`. RESOURCE_EXHAUSTED where the machine gives none. */
enum esp_code esp_pool_new(unsigned threads, const char *name, struct esp_pool **ret,
                           struct esp_status *st) ESP_WARN_UNUSED;
/* Runs what was submitted, then joins the threads. NULL is fine. Not from a thread of the pool. */
void esp_pool_free(struct esp_pool *pool);
/* The job may be submitted again, and its memory reused, once its last share has begun to run. */
void esp_pool_submit(struct esp_pool *pool, struct esp_job *job);
/* The same, ahead of all that waits. */
void esp_pool_submit_first(struct esp_pool *pool, struct esp_job *job);
/* Runs a job of one share in the caller's thread, in the stead of the pool's only thread, which begins nothing
 * meanwhile; false where that one has something to do. The pool must outlive the call. */
bool esp_pool_run_here(struct esp_pool *pool, struct esp_job *job);
/* Moves a job ahead of all that waits. One that does not wait (any more), or is just being submitted, stays as it is.
 */
void esp_pool_hurry(struct esp_pool *pool, struct esp_job *job);

#endif
