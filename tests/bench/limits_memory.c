/* What memory allows: a triad and memcpy over arrays as large as the workload. Each thread repeats its own part until
 * the time is over, and the rates are added up. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/bench/limits.h"

#define HUGE_PAGE ((size_t)2 << 20)
#define THREADS_MAX 256
#define FILL_B 1.0F
#define FILL_C 2.0F
#define SCALE 3.0F

struct part {
  void (*make)(struct part *part);
  float *a; /* what is the thread's of the arrays */
  float *b;
  float *c;
  size_t elements;
  uint64_t until_ns;
  double passes_s; /* result */
  pthread_t thread;
};

/* ---- the arrays ---- */

/* In huge pages where the machine gives them: translations must not be what is measured. */
static float *make_array(size_t bytes, float value) {
  size_t size = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
  char *at = mmap(NULL, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED)
    bench_die("no memory for %zu bytes: %s", size, strerror(errno));
  at += HUGE_PAGE - (uintptr_t)at % HUGE_PAGE;
  (void)madvise(at, size, MADV_HUGEPAGE); /* without them it is a little slower, and as right */
  float *ret = (float *)(void *)at;
  for (size_t i = 0; i < bytes / sizeof(float); i++)
    ret[i] = value;
  return ret;
}

void memory_init(struct memory *memory, size_t bytes) {
  *memory = (struct memory){make_array(bytes, 0), make_array(bytes, FILL_B), make_array(bytes, FILL_C),
                            bytes / sizeof(float)};
}

/* ---- passes ---- */

/* A pass is not done before its stores are: else the compiler may leave out all but the last. */
static void keep(void) {
  __asm__ volatile("" ::: "memory");
}

static inline __attribute__((always_inline)) void triad_loop(const struct part *part) {
  float *restrict a = part->a;
  const float *restrict b = part->b, *restrict c = part->c;
  for (size_t i = 0; i < part->elements; i++)
    a[i] = b[i] + SCALE * c[i];
  keep();
}

static void triad(struct part *part) {
  triad_loop(part);
}

/* Wider vectors make no difference where memory is waited for. */
__attribute__((target("avx2"))) static void triad_avx2(struct part *part) {
  triad_loop(part);
}

static void copy(struct part *part) {
  memcpy(part->a, part->b, part->elements * sizeof(float));
  keep();
}

static void *run(void *data) {
  struct part *part = data;
  uint64_t begin = bench_now_ns(), now = begin, count = 0;
  for (; now < part->until_ns || count == 0; now = bench_now_ns(), count++)
    part->make(part);
  part->passes_s = (double)count * 1e9 / (double)(now - begin);
  return NULL;
}

/* Elements a second. */
static double measure(struct memory *memory, unsigned threads, uint64_t ms, void (*make)(struct part *part)) {
  struct part parts[THREADS_MAX];
  double sum = 0;
  if (threads < 1 || threads > THREADS_MAX)
    bench_die("%u threads are not between 1 and %d", threads, THREADS_MAX);
  size_t each = memory->elements / threads;
  for (unsigned i = 0; i < threads; i++) {
    size_t first = i * each;
    parts[i] = (struct part){.make = make,
                             .a = memory->a + first,
                             .b = memory->b + first,
                             .c = memory->c + first,
                             .elements = each,
                             .until_ns = bench_now_ns() + ms * MS_NS};
    if (pthread_create(&parts[i].thread, NULL, run, &parts[i]) != 0)
      bench_die("no thread");
  }
  for (unsigned i = 0; i < threads; i++) {
    pthread_join(parts[i].thread, NULL);
    sum += parts[i].passes_s * (double)each;
  }
  return sum;
}

/* Of all elements that some thread had. */
static void check(const struct memory *memory, float expected, unsigned threads) {
  for (size_t i = 0; i < memory->elements / threads * threads; i++) {
    if (memory->a[i] != expected)
      bench_die("element %zu is %g, and not %g", i, (double)memory->a[i], (double)expected);
  }
}

double memory_triad(struct memory *memory, unsigned threads, uint64_t ms) {
  double elements_s = measure(memory, threads, ms, __builtin_cpu_supports("avx2") ? triad_avx2 : triad);
  check(memory, FILL_B + SCALE * FILL_C, threads);
  return elements_s * 3 * sizeof(float);
}

double memory_copy(struct memory *memory, unsigned threads, uint64_t ms) {
  double elements_s = measure(memory, threads, ms, copy);
  check(memory, FILL_B, threads);
  return elements_s * 2 * sizeof(float);
}
