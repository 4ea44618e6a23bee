/* A bound on memory of one kind (--max-staged, --max-copy-on-write): whoever needs some reserves all of it before he
 * begins, first come first served, so that those who have begun never wait for each other. */
#ifndef ESP_ENGINE_BUDGET_H
#define ESP_ENGINE_BUDGET_H

#include <pthread.h>

#include "base/alloc.h"
#include "engine/engine.h"

struct esp_reservation {
  struct esp_reservation *next; /* in the queue of those that wait */
  uint64_t bytes;
  uint64_t since_ms;    /* asked at */
  uint64_t deadline_ms; /* answered before this */
  enum { ESP_RESERVATION_NONE, ESP_RESERVATION_WAITING, ESP_RESERVATION_GRANTED } state;
  /* Once, without a lock: granted (ESP_OK) or not. Not called where the request was granted at once or was released. */
  void (*answered)(struct esp_reservation *reservation, enum esp_code code, const struct esp_status *st);
};

/* Memory that one has given back and the next takes: fresh pages from the kernel cost as much as the copy into them.
 * The first member of what lies in it, at its beginning. */
struct esp_block {
  struct esp_block *next;
  size_t size;      /* bytes, this header included */
  uint64_t kept_ms; /* since when it is spare */
};

struct esp_budget {
  const char *option; /* "--max-staged", for messages; static */
  const char *what;   /* "staging", likewise */
  pthread_mutex_t lock;
  uint64_t bytes_max;
  uint64_t bytes;                /* granted */
  uint64_t now_ms;               /* of the last tick */
  struct esp_reservation *first; /* those that wait */
  struct esp_reservation *last;
  size_t waiting_len;
  struct esp_block *spare; /* blocks for later; with what is granted never more than bytes_max */
  uint64_t spare_bytes;
  bool closed; /* draining */
};

void esp_budget_init(struct esp_budget *budget, const char *option, const char *what, uint64_t bytes_max);
void esp_budget_done(struct esp_budget *budget);
/* RESOURCE_EXHAUSTED at once for more than there is in all, UNAVAILABLE when closed. Else it is granted at once
 * (*ret_granted, and no answer comes), or waits and is answered. */
enum esp_code esp_budget_request(struct esp_budget *budget, struct esp_reservation *reservation, uint64_t bytes,
                                 uint64_t now_ms, uint64_t deadline_ms, bool *ret_granted,
                                 struct esp_status *st) ESP_WARN_UNUSED;
/* Gives back, or stops waiting. True: it waited, and no answer will come. Idempotent; others may be answered inside. */
bool esp_budget_release(struct esp_budget *budget, struct esp_reservation *reservation);
/* Stops waiting. True: it waited, and no answer will come. */
bool esp_budget_cancel(struct esp_budget *budget, struct esp_reservation *reservation) ESP_WARN_UNUSED;
/* Gives back some bytes of what was granted, and answers nobody: for threads that may not call others. True: somebody
 * waits, and esp_budget_grant is to be called from elsewhere. */
bool esp_budget_return(struct esp_budget *budget, uint64_t bytes) ESP_WARN_UNUSED;
/* Answers those for whom there is room now. */
void esp_budget_grant(struct esp_budget *budget);
/* Answers those whose time is over. */
void esp_budget_tick(struct esp_budget *budget, uint64_t now_ms);
/* Refuses those that wait, and later requests. */
void esp_budget_close(struct esp_budget *budget);

struct esp_budget_use {
  uint64_t bytes; /* granted */
  uint64_t spare; /* kept for later */
};
struct esp_budget_use esp_budget_use(struct esp_budget *budget);

/* A block of at least size bytes, its header included, not zeroed, aligned to a cache line, for who holds a reservation
 * of as much; NULL without memory. */
struct esp_block *esp_budget_take(struct esp_budget *budget, size_t size);
/* A zeroed one that no reservation covers: it may be given to a budget later. */
struct esp_block *esp_block_new(size_t size);
/* Takes it back. NULL is fine. No callback comes from inside. */
void esp_budget_give(struct esp_budget *budget, struct esp_block *block);

#endif
