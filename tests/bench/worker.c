/* A worker: steps at full speed when it is asked to, each a push of all gradients and a pull of all weights.
 *
 *   steps MS     ->  NS STEPS APPLIED FROZEN       for so long; leaves that were stepped, and that were frozen
 *   check        ->  STEPS                         all values, and the steps of all leaves together */
#include <inttypes.h>
#include <string.h>

#include "tests/bench/bench.h"

static struct workload load; /* large */

static void steps(esp_client *client, uint64_t ms) {
  struct esp_push_result pushed;
  struct esp_pull_result pulled;
  struct esp_status st;
  uint64_t begin = bench_now_ns(), now = begin, count = 0, applied = 0, frozen = 0;
  for (; now - begin < ms * MS_NS; now = bench_now_ns(), count++) {
    bench_check(esp_push_pull(client, load.grads, load.len, load.weights, load.len, &pushed, &pulled, &st), "a step",
                &st);
    applied += pushed.applied;
    frozen += pushed.frozen;
  }
  printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", now - begin, count, applied, frozen);
}

static void check(esp_client *client) {
  struct esp_pull_options options = {.consistent = true};
  struct esp_description *description;
  struct esp_status st;
  uint64_t total = 0;
  bench_check(esp_describe(client, NULL, false, &description, &st), "describe", &st);
  bench_check(esp_pull_with(client, load.weights, load.len, &options, NULL, &st), "pull", &st);
  workload_check(&load, description);
  for (size_t i = 0; i < description->leaves_len; i++)
    total += description->leaves[i].steps;
  esp_description_free(description);
  printf("%" PRIu64 "\n", total);
}

int bench_worker(const struct bench_options *options) {
  char line[256];
  uint64_t ms;
  esp_client *client = bench_open(options->server);
  workload_init(&load, true);
  workload_declare(&load, client);
  printf("ready\n");
  fflush(stdout);
  while (fgets(line, sizeof(line), stdin) != NULL) {
    if (sscanf(line, "steps %" SCNu64, &ms) == 1)
      steps(client, ms);
    else if (strcmp(line, "check\n") == 0)
      check(client);
    else
      bench_die("a worker is asked for %s", line);
    fflush(stdout);
  }
  esp_client_close(client);
  return 0;
}
