/* Workers in the order in which they are shown: who lags behind comes first. */
#include <stdlib.h>

#include "base/alloc.h"
#include "client/cli/cli.h"

static int most_stale_first(const void *a, const void *b) {
  const struct esp_worker_info *left = a;
  const struct esp_worker_info *right = b;
  if (left->staleness != right->staleness)
    return left->staleness < right->staleness ? 1 : -1;
  if (left->last_seen_ms != right->last_seen_ms)
    return left->last_seen_ms < right->last_seen_ms ? 1 : -1;
  return left->session < right->session ? -1 : left->session > right->session;
}

struct esp_worker_info *esp_cli_workers_sort(const struct esp_workers *list) {
  struct esp_worker_info *sorted = esp_malloc_array(list->len + 1, sizeof *sorted);
  if (sorted == NULL)
    return NULL;
  for (size_t i = 0; i < list->len; i++)
    sorted[i] = list->workers[i];
  qsort(sorted, list->len, sizeof *sorted, most_stale_first);
  return sorted;
}
