/* The budget for pushes that are arriving (--max-staged): all of a push's bytes are reserved before it is read on,
 * first come first served, so half-staged pushes cannot wait for each other. */
#ifndef ESP_ENGINE_STAGING_H
#define ESP_ENGINE_STAGING_H

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

/* Memory that a push has given back and the next one takes: fresh pages from the kernel cost as much as the copy into
 * them. The header lies in the memory itself. */
struct esp_block {
  struct esp_block *next;
  size_t size;      /* bytes after the header */
  uint64_t kept_ms; /* since when it is spare */
  _Alignas(ESP_CACHE_LINE) uint8_t data[];
};

struct esp_staging {
  pthread_mutex_t lock;
  uint64_t bytes_max;
  uint64_t bytes;                /* granted */
  struct esp_reservation *first; /* those that wait */
  struct esp_reservation *last;
  size_t waiting_len;
  struct esp_block *spare; /* blocks for later pushes; with what is granted never more than bytes_max */
  uint64_t spare_bytes;
  bool closed; /* draining */
};

void esp_staging_init(struct esp_staging *staging, uint64_t bytes_max);
void esp_staging_done(struct esp_staging *staging);
/* RESOURCE_EXHAUSTED at once for more than there is in all, UNAVAILABLE when closed. Else it is granted at once
 * (*ret_granted, and no answer comes), or waits and is answered. */
enum esp_code esp_staging_request(struct esp_staging *staging, struct esp_reservation *reservation, uint64_t bytes,
                                  uint64_t now_ms, uint64_t deadline_ms, bool *ret_granted,
                                  struct esp_status *st) ESP_WARN_UNUSED;
/* Gives back, or stops waiting. True: it waited, and no answer will come. Idempotent; others may be answered inside. */
bool esp_staging_release(struct esp_staging *staging, struct esp_reservation *reservation);
/* Answers those whose time is over. */
void esp_staging_tick(struct esp_staging *staging, uint64_t now_ms);
/* Refuses those that wait, and later requests. */
void esp_staging_close(struct esp_staging *staging);
uint64_t esp_staging_bytes(struct esp_staging *staging);

/* A block of at least size bytes, not zeroed, aligned to a cache line, for who holds a reservation of as much; NULL
 * without memory. */
struct esp_block *esp_staging_take(struct esp_staging *staging, size_t size);
/* Takes it back. NULL is fine. */
void esp_staging_give(struct esp_staging *staging, struct esp_block *block, uint64_t now_ms);

#endif
