/* The load of one process: the same thing made again and again for as long as a line on stdin says. */
#include <inttypes.h>

#include "tests/bench/bench.h"

uint64_t passes_make(void (*make)(void *data), void *data, uint64_t ms, struct samples *samples) {
  uint64_t begin = bench_now_ns(), before = begin, now;
  do {
    make(data);
    now = bench_now_ns();
    samples_add(samples, now - before);
    before = now;
  } while (now - begin < ms * MS_NS);
  return now - begin;
}

void passes_print(uint64_t ns, struct samples *samples) {
  printf("%" PRIu64 " %zu %" PRIu64 " %" PRIu64 "\n", ns, samples->len, samples_percentile(samples, 50),
         samples_percentile(samples, 99));
}

void passes_answer(void (*make)(void *data), void *data, uint64_t ms, struct samples *all) {
  struct samples samples = {0};
  uint64_t ns = passes_make(make, data, ms, &samples);
  passes_print(ns, &samples);
  fflush(stdout);
  if (all != NULL)
    samples_add_all(all, &samples);
  samples_done(&samples);
}
