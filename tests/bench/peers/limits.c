// What this machine's memory allows, one JSON line: memcpy of large arrays (GB/s copied, counting each byte once) and
// the fused optimizer loops over 25,557,032 float32 (ms per pass), with 1 and 2 threads. usage: limits SECONDS_EACH
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels.h"

enum { COUNT = 25557032, THREADS_MAX = 2 };

static float *w, *m, *v, *g;

static double now_s(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

struct part {
  const char *what;
  size_t begin, count;
  double until;
  long passes;
  double seconds;
};

// Each thread repeats its own part until the time is over; the rates are added up.
static void *run_part(void *arg) {
  struct part *p = arg;
  size_t b = p->begin, n = p->count;
  double begin = now_s(), now = begin;
  while (now < p->until) {
    if (!strcmp(p->what, "memcpy"))
      memcpy(w + b, g + b, n * sizeof *w);
    else if (!strcmp(p->what, "sgd"))
      sgd_step(w + b, g + b, n);
    else if (!strcmp(p->what, "momentum"))
      momentum_step(w + b, m + b, g + b, n);
    else
      adam_step(w + b, m + b, v + b, g + b, n, 10 + p->passes);
    p->passes++;
    now = now_s();
  }
  p->seconds = now - begin;
  return NULL;
}

static double passes_per_s(const char *what, int threads, double seconds) {
  struct part parts[THREADS_MAX];
  pthread_t ids[THREADS_MAX];
  double rate = 0, until = now_s() + seconds;
  for (int i = 0; i < threads; i++) {
    parts[i] = (struct part){what, COUNT / (size_t)threads * (size_t)i, COUNT / (size_t)threads, until, 0, 0};
    pthread_create(&ids[i], NULL, run_part, &parts[i]);
  }
  for (int i = 0; i < threads; i++) {
    pthread_join(ids[i], NULL);
    rate += (double)parts[i].passes / parts[i].seconds / threads;
  }
  return rate;
}

static float *filled(float x) {
  float *a = aligned_alloc(64, (COUNT + 15) / 16 * 64);
  for (size_t i = 0; i < COUNT; i++)
    a[i] = x;
  return a;
}

int main(int argc, char **argv) {
  double seconds = argc > 1 ? atof(argv[1]) : 1;
  const char *whats[] = {"memcpy", "sgd", "momentum", "adam"};
  w = filled(1), m = filled(0), v = filled(0), g = filled(0.001f);
  printf("{");
  for (int i = 0; i < 4; i++)
    for (int n = 1; n <= THREADS_MAX; n++) {
      double rate = passes_per_s(whats[i], n, seconds);
      if (i == 0)
        printf("\"memcpy_%dt_GBps\": %.2f", n, rate * COUNT * 4 / 1e9);
      else
        printf(", \"%s_%dt_ms\": %.2f", whats[i], n, 1e3 / rate);
      if (i == 0 && n == 1)
        printf(", ");
    }
  printf("}\n");
  return 0;
}
