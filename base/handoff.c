/* Everything that was given is before everything that is taken after it: coarser than what gRPC does, and enough. */
#include "base/handoff.h"

#include <stdatomic.h>

static atomic_uint given;

void esp_handoff_give(void) {
  atomic_fetch_add_explicit(&given, 1, memory_order_release);
}

void esp_handoff_take(void) {
  (void)atomic_load_explicit(&given, memory_order_acquire);
}
