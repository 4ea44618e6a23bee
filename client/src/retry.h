/* Deadlines and backoff: how long a call goes on, and how long it waits before it is sent again. */
#ifndef ESP_CLIENT_RETRY_H
#define ESP_CLIENT_RETRY_H

#include <espalier/status.h>

#include <stdbool.h>
#include <stdint.h>

/* The machine's monotonic clock. */
uint64_t esp_now_ms(void);
/* From now to the deadline; 0 where it has passed. */
uint64_t esp_left_ms(uint64_t deadline_ms);

/* The wait before retry number `retry` (the first is 0): base doubled with each, at most max, of which the upper half
 * is drawn by `random` so that workers that failed together do not come back together. Pure. */
uint64_t esp_backoff_ms(uint64_t base_ms, uint64_t max_ms, unsigned retry, uint64_t random);

struct esp_retry {
  uint64_t backoff_ms;     /* before the first retry */
  uint64_t backoff_ms_max; /* of one wait */
  unsigned attempts_max;   /* sends, the first included; 0: no bound */
  unsigned attempts;       /* sends that have failed */
  uint64_t deadline_ms;    /* of the whole call, on esp_now_ms's clock */
};

/* Whether a failure may be retried at all: the server was not reached, or the connection was cut. */
bool esp_code_is_transient(enum esp_code code);
/* After a failed attempt: the wait before the next one, or false where there is to be none (another kind of failure,
 * attempts used up, no time left). Pure but for the count. */
bool esp_retry_next(struct esp_retry *retry, enum esp_code code, uint64_t now_ms, uint64_t random,
                    uint64_t *ret_wait_ms);
/* Waits as esp_retry_next says; false where the call has failed for good. */
bool esp_retry_wait(struct esp_retry *retry, enum esp_code code);

#endif
