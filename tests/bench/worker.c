/* A worker: passes at full speed when it is asked to.
 *
 *   step MS, push MS, pull MS  ->  NS PASSES P50 P99    a step is a push of all gradients and a pull of all weights
 *   fates                      ->  APPLIED FROZEN       leaves of all pushes that were stepped, and that were frozen
 *   latencies                  ->  P50 P99 MAX          of all steps so far
 *   check OPTIMIZER            ->  STEPS                all values, and the steps of all leaves together */
#include <inttypes.h>
#include <string.h>

#include "tests/bench/bench.h"

struct work {
  struct workload load;
  esp_client *client;
  uint64_t applied;
  uint64_t frozen;
  struct samples steps;
};

static void count_push(struct work *work, const struct esp_push_result *result) {
  work->applied += result->applied;
  work->frozen += result->frozen;
}

static void count_pull(const struct work *work, const struct esp_pull_result *result) {
  if (result->sent != work->load.len)
    bench_die("%" PRIu64 " leaves were pulled of %zu", result->sent, work->load.len);
}

static void step(void *data) {
  struct work *work = data;
  const struct workload *load = &work->load;
  struct esp_push_result pushed;
  struct esp_pull_result pulled;
  struct esp_status st;
  bench_check(esp_push_pull(work->client, load->grads, load->len, load->weights, load->len, &pushed, &pulled, &st),
              "a step", &st);
  count_push(work, &pushed);
  count_pull(work, &pulled);
}

static void push(void *data) {
  struct work *work = data;
  struct esp_push_result result;
  struct esp_status st;
  bench_check(esp_push(work->client, work->load.grads, work->load.len, &result, &st), "a push", &st);
  count_push(work, &result);
}

static void pull(void *data) {
  struct work *work = data;
  struct esp_pull_result result;
  struct esp_status st;
  bench_check(esp_pull(work->client, work->load.weights, work->load.len, &result, &st), "a pull", &st);
  count_pull(work, &result);
}

static void answer(struct work *work, const char *line) {
  uint64_t ms;
  char optimizer[512];
  if (sscanf(line, "step %" SCNu64, &ms) == 1)
    passes_answer(step, work, ms, &work->steps);
  else if (sscanf(line, "push %" SCNu64, &ms) == 1)
    passes_answer(push, work, ms, NULL);
  else if (sscanf(line, "pull %" SCNu64, &ms) == 1)
    passes_answer(pull, work, ms, NULL);
  else if (sscanf(line, "check %511[^\n]", optimizer) == 1)
    printf("%" PRIu64 "\n", workload_check(&work->load, work->client, optimizer));
  else if (strcmp(line, "fates\n") == 0)
    printf("%" PRIu64 " %" PRIu64 "\n", work->applied, work->frozen);
  else if (strcmp(line, "latencies\n") == 0)
    printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", samples_percentile(&work->steps, 50),
           samples_percentile(&work->steps, 99), samples_percentile(&work->steps, 100));
  else
    bench_die("a worker is asked for %s", line);
  fflush(stdout);
}

int bench_worker(const struct bench_options *options) {
  static struct work work; /* large */
  char line[1024];
  work.client = bench_open(options->server);
  workload_init(&work.load, options->wire, true);
  workload_declare(&work.load, work.client);
  child_ready(NULL);
  while (fgets(line, sizeof(line), stdin) != NULL)
    answer(&work, line);
  esp_client_close(work.client);
  samples_done(&work.steps);
  return 0;
}
