/* The load of one process: the same thing made again and again for as long as a line on stdin says. */
#include <inttypes.h>

#include "tests/bench/bench.h"

void passes_answer(void (*make)(void *data), void *data, uint64_t ms, struct samples *all) {
  struct samples samples = {0};
  uint64_t begin = bench_now_ns(), before = begin, now;
  do {
    make(data);
    now = bench_now_ns();
    samples_add(&samples, now - before);
    before = now;
  } while (now - begin < ms * MS_NS);
  printf("%" PRIu64 " %zu %" PRIu64 " %" PRIu64 "\n", now - begin, samples.len, samples_percentile(&samples, 50),
         samples_percentile(&samples, 99));
  fflush(stdout);
  if (all != NULL)
    samples_add_all(all, &samples);
  samples_done(&samples);
}
