/* The one thing that Abseil offers to C++ only. */
#include "rpc/locks.h"

#include <absl/synchronization/mutex.h>

void esp_locks_unwatched(void) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}
