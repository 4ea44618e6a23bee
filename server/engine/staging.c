/* Staging: a first-come-first-served budget. Those that were granted or refused are taken off the queue under the lock
 * and told after it, so an answer may call back into the engine. */
#include "engine/staging.h"

#include <inttypes.h>
#include <string.h>

#include "base/check.h"

/* ---- spare blocks ---- */

#define BLOCK_BYTES_MIN ((size_t)1 << 20) /* smaller ones are the allocator's business, which keeps them */
#define BLOCK_KEPT_MS 10000

/* Frees spare blocks, the oldest first, until the rest have at most bytes_max and each is younger than since_ms. Under
 * the lock, or alone. */
static void spare_drop(struct esp_staging *staging, uint64_t bytes_max, uint64_t since_ms) {
  struct esp_block **at = &staging->spare; /* the oldest is first */
  while (*at != NULL && (staging->spare_bytes > bytes_max || (*at)->kept_ms < since_ms)) {
    struct esp_block *block = *at;
    *at = block->next;
    staging->spare_bytes -= block->size;
    esp_free(block);
  }
}

/* Takes the smallest spare block that holds size bytes and is not much too large. Under the lock. */
static struct esp_block *spare_take(struct esp_staging *staging, size_t size) {
  struct esp_block **best = NULL;
  for (struct esp_block **at = &staging->spare; *at != NULL; at = &(*at)->next) {
    if ((*at)->size >= size && (*at)->size / 2 <= size && (best == NULL || (*at)->size < (*best)->size))
      best = at;
  }
  if (best == NULL)
    return NULL;
  struct esp_block *block = *best;
  *best = block->next;
  staging->spare_bytes -= block->size;
  return block;
}

struct esp_block *esp_staging_take(struct esp_staging *staging, size_t size) {
  pthread_mutex_lock(&staging->lock);
  struct esp_block *block = size < BLOCK_BYTES_MIN ? NULL : spare_take(staging, size);
  if (block == NULL) /* what is granted has room; what is spare must not take it */
    spare_drop(staging, staging->bytes_max - staging->bytes, 0);
  pthread_mutex_unlock(&staging->lock);
  if (block != NULL || size > SIZE_MAX - sizeof(*block) - ESP_CACHE_LINE)
    return block;
  block = esp_malloc_aligned(sizeof(*block) + size);
  if (block != NULL)
    block->size = size;
  return block;
}

void esp_staging_give(struct esp_staging *staging, struct esp_block *block, uint64_t now_ms) {
  if (block == NULL)
    return;
  pthread_mutex_lock(&staging->lock);
  bool keep = block->size >= BLOCK_BYTES_MIN && !staging->closed;
  if (keep) {
    struct esp_block **end = &staging->spare;
    while (*end != NULL)
      end = &(*end)->next;
    block->next = NULL;
    block->kept_ms = now_ms;
    *end = block;
    staging->spare_bytes += block->size;
    spare_drop(staging, staging->bytes_max - staging->bytes, 0);
  }
  pthread_mutex_unlock(&staging->lock);
  if (!keep)
    esp_free(block);
}

void esp_staging_init(struct esp_staging *staging, uint64_t bytes_max) {
  *staging = (struct esp_staging){.bytes_max = bytes_max};
  pthread_mutex_init(&staging->lock, NULL);
}

void esp_staging_done(struct esp_staging *staging) {
  spare_drop(staging, 0, UINT64_MAX);
  ESP_CHECK(staging->first == NULL && staging->bytes == 0);
  pthread_mutex_destroy(&staging->lock);
}

static void append(struct esp_staging *staging, struct esp_reservation *reservation) {
  reservation->next = NULL;
  if (staging->first == NULL)
    staging->first = reservation;
  else
    staging->last->next = reservation;
  staging->last = reservation;
  staging->waiting_len++;
}

/* Takes it out of the queue; false where it is not in it. */
static bool unlink_waiting(struct esp_staging *staging, struct esp_reservation *reservation) {
  struct esp_reservation *before = NULL;
  for (struct esp_reservation *at = staging->first; at != NULL; before = at, at = at->next) {
    if (at != reservation)
      continue;
    if (before == NULL)
      staging->first = at->next;
    else
      before->next = at->next;
    if (staging->last == at)
      staging->last = before;
    staging->waiting_len--;
    return true;
  }
  return false;
}

/* Moves those that fit now off the queue, in order; the first that does not fit keeps its turn. */
static struct esp_reservation *grant(struct esp_staging *staging) {
  struct esp_reservation *granted = NULL, **end = &granted;
  while (staging->first != NULL && staging->first->bytes <= staging->bytes_max - staging->bytes) {
    struct esp_reservation *reservation = staging->first;
    staging->first = reservation->next;
    staging->waiting_len--;
    staging->bytes += reservation->bytes;
    reservation->state = ESP_RESERVATION_GRANTED;
    reservation->next = NULL;
    *end = reservation;
    end = &reservation->next;
  }
  return granted;
}

static void tell_granted(struct esp_reservation *granted) {
  while (granted != NULL) {
    struct esp_reservation *next = granted->next; /* the callee may free it */
    granted->answered(granted, ESP_OK, NULL);
    granted = next;
  }
}

enum esp_code esp_staging_request(struct esp_staging *staging, struct esp_reservation *reservation, uint64_t bytes,
                                  uint64_t now_ms, uint64_t deadline_ms, bool *ret_granted, struct esp_status *st) {
  if (bytes > staging->bytes_max)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED,
                    "this needs %" PRIu64 " bytes of staging, but --max-staged is %" PRIu64
                    ": send less at once or raise it",
                    bytes, staging->bytes_max);
  pthread_mutex_lock(&staging->lock);
  if (staging->closed) {
    pthread_mutex_unlock(&staging->lock);
    return esp_fail(st, ESP_UNAVAILABLE, "the server is shutting down");
  }
  reservation->bytes = bytes;
  reservation->since_ms = now_ms;
  reservation->deadline_ms = deadline_ms;
  *ret_granted = staging->first == NULL && bytes <= staging->bytes_max - staging->bytes;
  if (*ret_granted) {
    staging->bytes += bytes;
    reservation->state = ESP_RESERVATION_GRANTED;
  } else {
    reservation->state = ESP_RESERVATION_WAITING;
    append(staging, reservation);
  }
  pthread_mutex_unlock(&staging->lock);
  return ESP_OK;
}

bool esp_staging_release(struct esp_staging *staging, struct esp_reservation *reservation) {
  struct esp_reservation *granted = NULL;
  bool waited = false;
  pthread_mutex_lock(&staging->lock);
  if (reservation->state == ESP_RESERVATION_GRANTED) {
    staging->bytes -= reservation->bytes;
    reservation->state = ESP_RESERVATION_NONE;
    granted = grant(staging);
  } else if (reservation->state == ESP_RESERVATION_WAITING) {
    waited = unlink_waiting(staging, reservation);
    granted = grant(staging); /* it may have been the one that did not fit */
  }
  pthread_mutex_unlock(&staging->lock);
  tell_granted(granted);
  return waited;
}

/* Takes those off the queue that `due` chooses: all, or the ones past their deadline. They stay WAITING: an answer is
 * on its way. */
static struct esp_reservation *take_waiting(struct esp_staging *staging, bool all, uint64_t now_ms) {
  struct esp_reservation *taken = NULL, **end = &taken;
  struct esp_reservation *at = staging->first;
  while (at != NULL) {
    struct esp_reservation *next = at->next;
    if (all || at->deadline_ms <= now_ms) {
      unlink_waiting(staging, at);
      at->next = NULL;
      *end = at;
      end = &at->next;
    }
    at = next;
  }
  return taken;
}

void esp_staging_tick(struct esp_staging *staging, uint64_t now_ms) {
  pthread_mutex_lock(&staging->lock);
  spare_drop(staging, UINT64_MAX, now_ms > BLOCK_KEPT_MS ? now_ms - BLOCK_KEPT_MS : 0);
  struct esp_reservation *late = take_waiting(staging, false, now_ms);
  struct esp_reservation *granted = grant(staging);
  uint64_t bytes = staging->bytes;
  size_t waiting_len = staging->waiting_len;
  pthread_mutex_unlock(&staging->lock);
  while (late != NULL) {
    struct esp_reservation *next = late->next;
    struct esp_status st;
    enum esp_code code =
        esp_fail(&st, ESP_DEADLINE_EXCEEDED,
                 "waited %" PRIu64 " ms for %" PRIu64 " bytes of staging: %" PRIu64 " of --max-staged %" PRIu64
                 " are taken and %zu others wait; send less at once, or raise it",
                 now_ms - late->since_ms, late->bytes, bytes, staging->bytes_max, waiting_len);
    late->answered(late, code, &st);
    late = next;
  }
  tell_granted(granted);
}

void esp_staging_close(struct esp_staging *staging) {
  pthread_mutex_lock(&staging->lock);
  staging->closed = true;
  struct esp_reservation *refused = take_waiting(staging, true, 0);
  pthread_mutex_unlock(&staging->lock);
  while (refused != NULL) {
    struct esp_reservation *next = refused->next;
    struct esp_status st;
    enum esp_code code = esp_fail(&st, ESP_UNAVAILABLE, "the server is shutting down");
    refused->answered(refused, code, &st);
    refused = next;
  }
}

uint64_t esp_staging_bytes(struct esp_staging *staging) {
  pthread_mutex_lock(&staging->lock);
  uint64_t bytes = staging->bytes;
  pthread_mutex_unlock(&staging->lock);
  return bytes;
}
