/* Deadlines and backoff.
 *
 * The happy path is no retry. After UNAVAILABLE a call waits, with jitter, and is sent again as long as there is time
 * for it; a wait that would outlast the deadline ends the call at once with the failure at hand, which says more than
 * "deadline exceeded". */
#include "client/src/retry.h"

#include <errno.h>
#include <time.h>

#include "base/env.h"

uint64_t esp_now_ms(void) {
  const struct esp_env *env = esp_env_system();
  return env->now_ms(env->data);
}

uint64_t esp_left_ms(uint64_t deadline_ms) {
  uint64_t now_ms = esp_now_ms();
  return now_ms >= deadline_ms ? 0 : deadline_ms - now_ms;
}

uint64_t esp_backoff_ms(uint64_t base_ms, uint64_t max_ms, unsigned retry, uint64_t random) {
  uint64_t wait_ms = base_ms < max_ms ? base_ms : max_ms;
  for (unsigned i = 0; i < retry && wait_ms < max_ms; i++)
    wait_ms = wait_ms > max_ms / 2 ? max_ms : wait_ms * 2;
  uint64_t fixed_ms = wait_ms - wait_ms / 2;
  return fixed_ms + random % (wait_ms / 2 + 1);
}

bool esp_code_is_transient(enum esp_code code) {
  return code == ESP_UNAVAILABLE;
}

bool esp_retry_next(struct esp_retry *retry, enum esp_code code, uint64_t now_ms, uint64_t random,
                    uint64_t *ret_wait_ms) {
  retry->attempts++;
  if (!esp_code_is_transient(code) || (retry->attempts_max > 0 && retry->attempts >= retry->attempts_max))
    return false;
  uint64_t wait_ms = esp_backoff_ms(retry->backoff_ms, retry->backoff_ms_max, retry->attempts - 1, random);
  if (now_ms >= retry->deadline_ms || wait_ms >= retry->deadline_ms - now_ms)
    return false;
  *ret_wait_ms = wait_ms;
  return true;
}

bool esp_retry_wait(struct esp_retry *retry, enum esp_code code) {
  const struct esp_env *env = esp_env_system();
  uint64_t wait_ms;
  if (!esp_retry_next(retry, code, esp_now_ms(), env->random_u64(env->data), &wait_ms))
    return false;
  struct timespec wait = {.tv_sec = (time_t)(wait_ms / 1000), .tv_nsec = (long)(wait_ms % 1000) * 1000000};
  while (nanosleep(&wait, &wait) != 0 && errno == EINTR) {
  }
  return true;
}
