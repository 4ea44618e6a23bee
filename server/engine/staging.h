/* The budget for pushes that are arriving (--max-staged): all of a push's bytes are reserved before it is read on,
 * first come first served, so half-staged pushes cannot wait for each other. */
#ifndef ESP_ENGINE_STAGING_H
#define ESP_ENGINE_STAGING_H

#include <pthread.h>

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

struct esp_staging {
  pthread_mutex_t lock;
  uint64_t bytes_max;
  uint64_t bytes;                /* granted */
  struct esp_reservation *first; /* those that wait */
  struct esp_reservation *last;
  size_t waiting_len;
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

#endif
