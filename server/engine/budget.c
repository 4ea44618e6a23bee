/* Budgets: first come, first served. Those that were granted or refused are taken off the queue under the lock
 * and told after it, so an answer may call back into the engine. */
#include "engine/budget.h"

#include <inttypes.h>
#include <string.h>

#include "base/check.h"

/* ---- spare blocks ---- */

#define BLOCK_BYTES_MIN ((size_t)1 << 20) /* smaller ones are the allocator's business, which keeps them */
#define BLOCK_KEPT_MS 10000

/* Frees spare blocks, the oldest first, until the rest have at most bytes_max and each is younger than since_ms. Under
 * the lock, or alone. */
static void spare_drop(struct esp_budget *budget, uint64_t bytes_max, uint64_t since_ms) {
  struct esp_block **at = &budget->spare; /* the oldest is first */
  while (*at != NULL && (budget->spare_bytes > bytes_max || (*at)->kept_ms < since_ms)) {
    struct esp_block *block = *at;
    *at = block->next;
    budget->spare_bytes -= block->size;
    esp_free(block);
  }
}

/* Takes the smallest spare block that holds size bytes and is not much too large. Under the lock. */
static struct esp_block *spare_take(struct esp_budget *budget, size_t size) {
  struct esp_block **best = NULL;
  for (struct esp_block **at = &budget->spare; *at != NULL; at = &(*at)->next) {
    if ((*at)->size >= size && (*at)->size / 2 <= size && (best == NULL || (*at)->size < (*best)->size))
      best = at;
  }
  if (best == NULL)
    return NULL;
  struct esp_block *block = *best;
  *best = block->next;
  budget->spare_bytes -= block->size;
  return block;
}

struct esp_block *esp_budget_take(struct esp_budget *budget, size_t size) {
  pthread_mutex_lock(&budget->lock);
  struct esp_block *block = size < BLOCK_BYTES_MIN ? NULL : spare_take(budget, size);
  if (block == NULL) /* what is granted has room; what is spare must not take it */
    spare_drop(budget, budget->bytes_max - budget->bytes, 0);
  pthread_mutex_unlock(&budget->lock);
  if (block != NULL)
    return block;
  block = esp_malloc_aligned(size);
  if (block != NULL)
    block->size = size;
  return block;
}

struct esp_block *esp_block_new(size_t size) {
  struct esp_block *block = esp_calloc_aligned(size);
  if (block != NULL)
    block->size = size;
  return block;
}

void esp_budget_give(struct esp_budget *budget, struct esp_block *block) {
  if (block == NULL)
    return;
  pthread_mutex_lock(&budget->lock);
  bool keep = block->size >= BLOCK_BYTES_MIN && !budget->closed;
  if (keep) {
    struct esp_block **end = &budget->spare;
    while (*end != NULL)
      end = &(*end)->next;
    block->next = NULL;
    block->kept_ms = budget->now_ms;
    *end = block;
    budget->spare_bytes += block->size;
    spare_drop(budget, budget->bytes_max - budget->bytes, 0);
  }
  pthread_mutex_unlock(&budget->lock);
  if (!keep)
    esp_free(block);
}

void esp_budget_init(struct esp_budget *budget, const char *option, const char *what, uint64_t bytes_max) {
  *budget = (struct esp_budget){.option = option, .what = what, .bytes_max = bytes_max};
  pthread_mutex_init(&budget->lock, NULL);
}

void esp_budget_done(struct esp_budget *budget) {
  spare_drop(budget, 0, UINT64_MAX);
  ESP_CHECK(budget->first == NULL && budget->bytes == 0);
  pthread_mutex_destroy(&budget->lock);
}

static void append(struct esp_budget *budget, struct esp_reservation *reservation) {
  reservation->next = NULL;
  if (budget->first == NULL)
    budget->first = reservation;
  else
    budget->last->next = reservation;
  budget->last = reservation;
  budget->waiting_len++;
}

/* Takes it out of the queue; false where it is not in it. */
static bool unlink_waiting(struct esp_budget *budget, struct esp_reservation *reservation) {
  struct esp_reservation *before = NULL;
  for (struct esp_reservation *at = budget->first; at != NULL; before = at, at = at->next) {
    if (at != reservation)
      continue;
    if (before == NULL)
      budget->first = at->next;
    else
      before->next = at->next;
    if (budget->last == at)
      budget->last = before;
    budget->waiting_len--;
    return true;
  }
  return false;
}

/* Moves those that fit now off the queue, in order; the first that does not fit keeps its turn. */
static struct esp_reservation *grant(struct esp_budget *budget) {
  struct esp_reservation *granted = NULL, **end = &granted;
  while (budget->first != NULL && budget->first->bytes <= budget->bytes_max - budget->bytes) {
    struct esp_reservation *reservation = budget->first;
    budget->first = reservation->next;
    budget->waiting_len--;
    budget->bytes += reservation->bytes;
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

enum esp_code esp_budget_request(struct esp_budget *budget, struct esp_reservation *reservation, uint64_t bytes,
                                 uint64_t now_ms, uint64_t deadline_ms, bool *ret_granted, struct esp_status *st) {
  if (bytes > budget->bytes_max)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED,
                    "this needs %" PRIu64 " bytes of %s, but %s is %" PRIu64 ": ask for less at once, or raise it",
                    bytes, budget->what, budget->option, budget->bytes_max);
  pthread_mutex_lock(&budget->lock);
  if (budget->closed) {
    pthread_mutex_unlock(&budget->lock);
    return esp_fail(st, ESP_UNAVAILABLE, "the server is shutting down");
  }
  reservation->bytes = bytes;
  reservation->since_ms = now_ms;
  reservation->deadline_ms = deadline_ms;
  *ret_granted = budget->first == NULL && bytes <= budget->bytes_max - budget->bytes;
  if (*ret_granted) {
    budget->bytes += bytes;
    reservation->state = ESP_RESERVATION_GRANTED;
  } else {
    reservation->state = ESP_RESERVATION_WAITING;
    append(budget, reservation);
  }
  pthread_mutex_unlock(&budget->lock);
  return ESP_OK;
}

bool esp_budget_cancel(struct esp_budget *budget, struct esp_reservation *reservation) {
  pthread_mutex_lock(&budget->lock);
  bool waited = reservation->state == ESP_RESERVATION_WAITING && unlink_waiting(budget, reservation);
  struct esp_reservation *granted = grant(budget); /* it may have been the one that did not fit */
  pthread_mutex_unlock(&budget->lock);
  tell_granted(granted);
  return waited;
}

bool esp_budget_release(struct esp_budget *budget, struct esp_reservation *reservation) {
  pthread_mutex_lock(&budget->lock);
  bool is_granted = reservation->state == ESP_RESERVATION_GRANTED;
  if (is_granted) {
    budget->bytes -= reservation->bytes;
    reservation->state = ESP_RESERVATION_NONE;
  }
  struct esp_reservation *granted = grant(budget);
  pthread_mutex_unlock(&budget->lock);
  tell_granted(granted);
  return !is_granted && esp_budget_cancel(budget, reservation);
}

bool esp_budget_return(struct esp_budget *budget, uint64_t bytes) {
  pthread_mutex_lock(&budget->lock);
  ESP_CHECK(bytes <= budget->bytes);
  budget->bytes -= bytes;
  bool waited_for = budget->first != NULL;
  pthread_mutex_unlock(&budget->lock);
  return waited_for;
}

void esp_budget_grant(struct esp_budget *budget) {
  pthread_mutex_lock(&budget->lock);
  struct esp_reservation *granted = grant(budget);
  pthread_mutex_unlock(&budget->lock);
  tell_granted(granted);
}

/* Takes those off the queue that `due` chooses: all, or the ones past their deadline. They stay WAITING: an answer is
 * on its way. */
static struct esp_reservation *take_waiting(struct esp_budget *budget, bool all, uint64_t now_ms) {
  struct esp_reservation *taken = NULL, **end = &taken;
  struct esp_reservation *at = budget->first;
  while (at != NULL) {
    struct esp_reservation *next = at->next;
    if (all || at->deadline_ms <= now_ms) {
      unlink_waiting(budget, at);
      at->next = NULL;
      *end = at;
      end = &at->next;
    }
    at = next;
  }
  return taken;
}

void esp_budget_tick(struct esp_budget *budget, uint64_t now_ms) {
  pthread_mutex_lock(&budget->lock);
  budget->now_ms = now_ms;
  spare_drop(budget, UINT64_MAX, now_ms > BLOCK_KEPT_MS ? now_ms - BLOCK_KEPT_MS : 0);
  struct esp_reservation *late = take_waiting(budget, false, now_ms);
  struct esp_reservation *granted = grant(budget);
  uint64_t bytes = budget->bytes;
  size_t waiting_len = budget->waiting_len;
  pthread_mutex_unlock(&budget->lock);
  while (late != NULL) {
    struct esp_reservation *next = late->next;
    struct esp_status st;
    enum esp_code code = esp_fail(&st, ESP_DEADLINE_EXCEEDED,
                                  "waited %" PRIu64 " ms for %" PRIu64 " bytes of %s: %" PRIu64 " of %s %" PRIu64
                                  " are taken and %zu others wait; ask for less at once, or raise it",
                                  now_ms - late->since_ms, late->bytes, budget->what, bytes, budget->option,
                                  budget->bytes_max, waiting_len);
    late->answered(late, code, &st);
    late = next;
  }
  tell_granted(granted);
}

void esp_budget_close(struct esp_budget *budget) {
  pthread_mutex_lock(&budget->lock);
  budget->closed = true;
  struct esp_reservation *refused = take_waiting(budget, true, 0);
  pthread_mutex_unlock(&budget->lock);
  while (refused != NULL) {
    struct esp_reservation *next = refused->next;
    struct esp_status st;
    enum esp_code code = esp_fail(&st, ESP_UNAVAILABLE, "the server is shutting down");
    refused->answered(refused, code, &st);
    refused = next;
  }
}

struct esp_budget_use esp_budget_use(struct esp_budget *budget) {
  pthread_mutex_lock(&budget->lock);
  struct esp_budget_use use = {.bytes = budget->bytes, .spare = budget->spare_bytes};
  pthread_mutex_unlock(&budget->lock);
  return use;
}
