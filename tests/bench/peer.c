/* espbench peer: the worker of Espalier among the systems that peers/run.py measures, which starts the server, too. The
 * dialogue is that of peers/common.py, in JSON:
 *
 *   once it is set up  ->  {"ready": true}, of the first worker with "check": "ok"
 *   GO PHASE SECONDS   ->  {"phase", "steps", "seconds", "p50_us", "p99_us"}    pushpull, push, pull, or small: 1 KiB
 *   EXIT               ends it, as does the end of stdin
 *
 * Weights begin as the other systems' do, and gradients are the same. The first worker makes two steps and checks all
 * values, to the last bit, before it is ready; another pushes nothing until then. */
#include <inttypes.h>
#include <string.h>

#include "tests/bench/bench.h"

#define CHECK_STEPS 2
#define SMALL_ELEMENTS 256
#define SMALL_PATH "small"

static struct worker full, small; /* large */

/* The first values of shapes.py. */
static void set_first_values(struct workload *load) {
  for (size_t i = 0; i < load->len; i++) {
    load->specs[i].init = ESP_CONSTANT;
    load->specs[i].a = 0.01 * (double)(i % 50 + 1);
  }
}

/* One tensor, in float32 whatever the others travel in. */
static void declare_small(void) {
  static float grads[SMALL_ELEMENTS], weights[SMALL_ELEMENTS];
  struct workload *load = &small.load;
  for (size_t i = 0; i < SMALL_ELEMENTS; i++)
    grads[i] = 1;
  load->specs[0] = (struct esp_leaf_spec){.path = SMALL_PATH, .dtype = ESP_F32, .rank = 1, .shape = {SMALL_ELEMENTS}};
  load->grads[0] = (struct esp_gradient){.data = grads, .bytes = sizeof(grads)};
  load->weights[0] = (struct esp_weight){.data = weights, .bytes = sizeof(weights)};
  load->len = 1;
  small.client = full.client;
  workload_declare(load, small.client);
}

/* The first steps: what a step pulls is checked, and what the server has. */
static void check(const char *optimizer) {
  for (int i = 0; i < CHECK_STEPS; i++)
    worker_step(&full);
  workload_check_pulled(&full.load, optimizer, CHECK_STEPS);
  uint64_t steps = workload_check(&full.load, full.client, optimizer);
  if (steps != CHECK_STEPS * full.load.len)
    bench_die("all leaves together made %" PRIu64 " steps by %d pushes", steps, CHECK_STEPS);
}

static const struct phase {
  const char *name;
  void (*make)(void *data);
  struct worker *worker;
} phases[] = {
    {"pushpull", worker_step, &full},
    {"push", worker_push, &full},
    {"pull", worker_pull, &full},
    {"small", worker_step, &small},
};

static void go(const char *name, double seconds) {
  for (size_t i = 0; i < sizeof(phases) / sizeof(phases[0]); i++) {
    if (strcmp(phases[i].name, name) != 0)
      continue;
    struct samples samples = {0};
    uint64_t ns = passes_make(phases[i].make, phases[i].worker, (uint64_t)(seconds * 1e3), &samples);
    printf("@{\"phase\": \"%s\", \"steps\": %zu, \"seconds\": %.6f, \"p50_us\": %.2f, \"p99_us\": %.2f}\n", name,
           samples.len, (double)ns / 1e9, (double)samples_percentile(&samples, 50) / 1e3,
           (double)samples_percentile(&samples, 99) / 1e3);
    fflush(stdout);
    samples_done(&samples);
    return;
  }
  bench_die("there is no phase %s", name);
}

int bench_peer(const struct bench_options *options) {
  char line[256], name[64];
  double seconds;
  full.client = bench_open(options->server);
  workload_init(&full.load, options->wire, true);
  set_first_values(&full.load);
  workload_declare(&full.load, full.client);
  declare_small();
  if (options->rank == 0)
    check(options->optimizer);
  printf("@{\"ready\": true%s}\n", options->rank == 0 ? ", \"check\": \"ok\"" : "");
  fflush(stdout);
  while (fgets(line, sizeof(line), stdin) != NULL && strcmp(line, "EXIT\n") != 0) {
    if (sscanf(line, "GO %63s %lf", name, &seconds) != 2)
      bench_die("a peer is asked for %s", line);
    go(name, seconds);
  }
  esp_client_close(full.client);
  return 0;
}
