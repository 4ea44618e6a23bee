// The workload, its values, its check and the worker's dialogue with run.py, for C++ drivers (see shapes.py,
// common.py).
#ifndef PEERS_WORKLOAD_H
#define PEERS_WORKLOAD_H
#include <algorithm>
#include <functional>
#include <map>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <time.h>
#include <vector>

#include "kernels.h"

struct workload {
  std::vector<size_t> size, offset; // of each tensor, in elements; offset has one more, the total
};

static workload load_workload(const char *path) {
  workload x;
  char line[512];
  size_t total = 0;
  FILE *f = fopen(path, "r");
  if (!f) {
    perror(path);
    exit(2);
  }
  while (fgets(line, sizeof line, f)) {
    size_t n = 1;
    strtok(line, " \n");
    for (char *d = strtok(NULL, " \n"); d; d = strtok(NULL, " \n"))
      n *= strtoul(d, NULL, 10);
    x.size.push_back(n);
    x.offset.push_back(total);
    total += n;
  }
  x.offset.push_back(total);
  fclose(f);
  return x;
}

static float first_weight(size_t k) {
  return (float)(0.01 * (double)(k % 50 + 1));
}

static float gradient(size_t j) {
  return (float)((int)(j % 5) - 2) * 0.001f;
}

static double expected_change(const std::string &opt, size_t j, int steps) {
  double g = gradient(j), w = 0, m = 0, v = 0;
  for (int t = 1; t <= steps; t++) {
    if (opt == "sgd") {
      w -= 0.01 * g;
    } else if (opt == "momentum") {
      m = 0.9 * m + g;
      w -= 0.01 * m;
    } else {
      m = 0.9 * m + 0.1 * g;
      v = 0.999 * v + 0.001 * g * g;
      w -= 0.01 * (m / (1 - pow(0.9, t))) / (sqrt(v / (1 - pow(0.999, t))) + 1e-8);
    }
  }
  return w;
}

static void say_ready(const std::string &opt, const workload &x, const float *weights) {
  double want[5], worst = 0, change = 0;
  if (!weights) {
    printf("@{\"ready\": true}\n");
    fflush(stdout);
    return;
  }
  for (size_t j = 0; j < 5; j++) {
    want[j] = expected_change(opt, j, 2);
    change = std::max(change, fabs(want[j]));
  }
  for (size_t k = 0; k < x.size.size(); k++)
    for (size_t j = 0; j < x.size[k]; j++)
      worst = std::max(worst, fabs(weights[x.offset[k] + j] - (first_weight(k) + want[j % 5])));
  printf("@{\"ready\": true, \"check\": \"%s\", \"worst\": %g}\n", worst <= 0.01 * change ? "ok" : "WRONG",
         worst / change);
  fflush(stdout);
}

static double now_s() {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void answer_phases(std::map<std::string, std::function<void()>> phases) {
  char phase[64];
  double seconds;
  while (scanf("%63s", phase) == 1 && strcmp(phase, "GO") == 0 && scanf("%63s %lf", phase, &seconds) == 2) {
    std::vector<double> times;
    double begin = now_s(), last = begin;
    while (last - begin < seconds) {
      phases.at(phase)();
      double t = now_s();
      times.push_back(t - last);
      last = t;
    }
    std::sort(times.begin(), times.end());
    size_t n = times.size();
    printf("@{\"phase\": \"%s\", \"steps\": %zu, \"seconds\": %.6f, \"p50_us\": %.2f, \"p99_us\": %.2f}\n", phase, n,
           last - begin, times[n / 2] * 1e6, times[std::min(n - 1, n * 99 / 100)] * 1e6);
    fflush(stdout);
  }
}
#endif
