/* Samples are kept, all of them: percentiles are exact. */
#include <stdlib.h>

#include "base/alloc.h"
#include "tests/bench/bench.h"

void samples_add(struct samples *samples, uint64_t ns) {
  if (!esp_grow((void **)&samples->ns, &samples->capacity, samples->len + 1, sizeof(*samples->ns)))
    bench_die("no memory for samples");
  samples->ns[samples->len++] = ns;
}

void samples_add_all(struct samples *samples, const struct samples *others) {
  for (size_t i = 0; i < others->len; i++)
    samples_add(samples, others->ns[i]);
}

static int compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

uint64_t samples_percentile(struct samples *samples, double percent) {
  if (samples->len == 0)
    return 0;
  qsort(samples->ns, samples->len, sizeof(*samples->ns), compare);
  double rank = percent / 100 * (double)samples->len;
  size_t at = (size_t)rank;
  at -= (double)at == rank && at > 0;
  return samples->ns[at < samples->len ? at : samples->len - 1];
}

void samples_done(struct samples *samples) {
  esp_free(samples->ns);
  *samples = (struct samples){0};
}
