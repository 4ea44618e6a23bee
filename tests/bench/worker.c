/* A worker: passes at full speed when it is asked to.
 *
 *   step MS, push MS, pull MS  ->  NS PASSES P50 P99    a step is a push of all gradients and a pull of all weights
 *   fates                      ->  APPLIED FROZEN       leaves of all pushes that were stepped, and that were frozen
 *   latencies                  ->  P50 P99 MAX          of all steps so far
 *   check OPTIMIZER            ->  STEPS                all values, and the steps of all leaves together */
#include <inttypes.h>
#include <string.h>

#include "tests/bench/bench.h"

static void count_push(struct worker *worker, const struct esp_push_result *result) {
  worker->applied += result->applied;
  worker->frozen += result->frozen;
}

static void count_pull(const struct worker *worker, const struct esp_pull_result *result) {
  if (result->sent != worker->load.len)
    bench_die("%" PRIu64 " leaves were pulled of %zu", result->sent, worker->load.len);
}

void worker_step(void *data) {
  struct worker *worker = data;
  const struct workload *load = &worker->load;
  struct esp_push_result pushed;
  struct esp_pull_result pulled;
  struct esp_status st;
  bench_check(esp_push_pull(worker->client, load->grads, load->len, load->weights, load->len, &pushed, &pulled, &st),
              "a step", &st);
  count_push(worker, &pushed);
  count_pull(worker, &pulled);
}

void worker_push(void *data) {
  struct worker *worker = data;
  struct esp_push_result result;
  struct esp_status st;
  bench_check(esp_push(worker->client, worker->load.grads, worker->load.len, &result, &st), "a push", &st);
  count_push(worker, &result);
}

void worker_pull(void *data) {
  struct worker *worker = data;
  struct esp_pull_result result;
  struct esp_status st;
  bench_check(esp_pull(worker->client, worker->load.weights, worker->load.len, &result, &st), "a pull", &st);
  count_pull(worker, &result);
}

static void answer(struct worker *worker, const char *line) {
  uint64_t ms;
  char optimizer[512];
  if (sscanf(line, "step %" SCNu64, &ms) == 1)
    passes_answer(worker_step, worker, ms, &worker->steps);
  else if (sscanf(line, "push %" SCNu64, &ms) == 1)
    passes_answer(worker_push, worker, ms, NULL);
  else if (sscanf(line, "pull %" SCNu64, &ms) == 1)
    passes_answer(worker_pull, worker, ms, NULL);
  else if (sscanf(line, "check %511[^\n]", optimizer) == 1)
    printf("%" PRIu64 "\n", workload_check(&worker->load, worker->client, optimizer));
  else if (strcmp(line, "fates\n") == 0)
    printf("%" PRIu64 " %" PRIu64 "\n", worker->applied, worker->frozen);
  else if (strcmp(line, "latencies\n") == 0)
    printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", samples_percentile(&worker->steps, 50),
           samples_percentile(&worker->steps, 99), samples_percentile(&worker->steps, 100));
  else
    bench_die("a worker is asked for %s", line);
  fflush(stdout);
}

int bench_worker(const struct bench_options *options) {
  static struct worker worker; /* large */
  char line[1024];
  worker.client = bench_open(options->server);
  workload_init(&worker.load, options->wire, true);
  workload_declare(&worker.load, worker.client);
  child_ready(NULL);
  while (fgets(line, sizeof(line), stdin) != NULL)
    answer(&worker, line);
  esp_client_close(worker.client);
  samples_done(&worker.steps);
  return 0;
}
