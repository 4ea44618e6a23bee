/* A crowd: workers that are threads of one process, each with a connection and memory for pulls of its own. All push
 * the same array of gradients.
 *
 *   step MS          ->  NS PASSES P50 P99    of all threads together, until the last has ended
 *   check OPTIMIZER  ->  STEPS                as of a worker */
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "tests/bench/bench.h"

struct member {
  struct worker worker;
  pthread_t thread;
  uint64_t ms; /* of what is asked for */
};

/* Each member's memory is allocated once and kept. */
struct crowd {
  struct workload load; /* whose gradients all members have */
  struct member *members[WORKERS_MAX];
  size_t len;
};

static void *make_steps(void *data) {
  struct member *member = data;
  passes_make(worker_step, &member->worker, member->ms, &member->worker.steps);
  return NULL;
}

static void answer_step(struct crowd *crowd, uint64_t ms) {
  struct samples all = {0};
  uint64_t begin = bench_now_ns();
  for (size_t i = 0; i < crowd->len; i++) {
    struct member *member = crowd->members[i];
    member->ms = ms;
    if (pthread_create(&member->thread, NULL, make_steps, member) != 0)
      bench_die("no thread");
  }
  for (size_t i = 0; i < crowd->len; i++) {
    struct member *member = crowd->members[i];
    pthread_join(member->thread, NULL);
    samples_add_all(&all, &member->worker.steps);
    samples_done(&member->worker.steps);
  }
  passes_print(bench_now_ns() - begin, &all);
  samples_done(&all);
}

static void answer(struct crowd *crowd, const char *line) {
  uint64_t ms;
  char optimizer[512];
  struct worker *first = &crowd->members[0]->worker;
  if (sscanf(line, "step %" SCNu64, &ms) == 1)
    answer_step(crowd, ms);
  else if (sscanf(line, "check %511[^\n]", optimizer) == 1)
    printf("%" PRIu64 "\n", workload_check(&first->load, first->client, optimizer));
  else
    bench_die("a crowd is asked for %s", line);
  fflush(stdout);
}

static void join(struct crowd *crowd, const char *server) {
  struct member *member = esp_calloc(1, sizeof(*member));
  if (member == NULL)
    bench_die("no memory for a worker");
  crowd->members[crowd->len++] = member;
  member->worker.client = bench_open(server);
  workload_share(&member->worker.load, &crowd->load);
  workload_declare(&member->worker.load, member->worker.client);
}

int bench_crowd(const struct bench_options *options) {
  static struct crowd crowd; /* large */
  char line[1024];
  workload_init(&crowd.load, 0, false);
  while (crowd.len < options->workers)
    join(&crowd, options->server);
  child_ready(NULL);
  while (fgets(line, sizeof(line), stdin) != NULL)
    answer(&crowd, line);
  for (size_t i = 0; i < crowd.len; i++)
    esp_client_close(crowd.members[i]->worker.client);
  return 0;
}
