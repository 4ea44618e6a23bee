/* Clocks: one for durations, and that of another process' work, which counts nanoseconds where /proc counts ticks. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "tests/bench/bench.h"

static uint64_t read_clock(clockid_t clock) {
  struct timespec now;
  if (clock_gettime(clock, &now) != 0)
    bench_die("a clock can't be read: %s", strerror(errno));
  return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

uint64_t bench_now_ns(void) {
  return read_clock(CLOCK_MONOTONIC);
}

void bench_wait_until(uint64_t at_ns) {
  struct timespec at = {.tv_sec = (time_t)(at_ns / SECOND_NS), .tv_nsec = (long)(at_ns % SECOND_NS)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
    continue;
}

uint64_t bench_cpu_ns(pid_t pid) {
  clockid_t clock;
  int error = clock_getcpuclockid(pid, &clock);
  if (error != 0)
    bench_die("no clock of process %d: %s", (int)pid, strerror(error));
  return read_clock(clock);
}
