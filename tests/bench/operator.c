/* An operator: freezes and thaws at 100 a second, and asks the health service as often.
 *
 *   mixed MS     ->  NS OPERATIONS      freezes and thaws by turns, each followed by a health check
 *   plain MS     ->  NS OPERATIONS      without the health checks
 *   checks MS    ->  NS CHECKS          as many health checks, without the operations
 *   apply COUNT  ->  FREE_NS FROZEN_NS APPLIED FROZEN     the medians of so many pushes, of all leaves free and frozen
 *   latencies    ->  P50 P99 MAX of operations, P50 P99 MAX of health checks, in ns; of `mixed`, since the start
 *   plain-latencies  ->  the same, of `plain`
 *
 * Several threads take turns, for an answer may come later than the next turn. Each has leaves of its own, so that
 * every operation changes something, and two connections: one for operations, one for health checks. */
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include "client/src/client.h"
#include "tests/bench/bench.h"

#define THREADS 4
#define RATE 100 /* operations a second, of all threads */
#define DEADLINE_MS 60000

static struct workload load; /* large */

enum turn { TURN_PLAIN, TURN_MIXED, TURN_CHECK };

struct turns {
  esp_client *admin;     /* for operations */
  esp_client *health;    /* for health checks */
  uint64_t count;        /* operations, since the start: even ones freeze, odd ones thaw the same */
  uint64_t begin_ns;     /* of what is asked for */
  uint64_t end_ns;       /* likewise */
  uint64_t made;         /* likewise: operations */
  struct samples ops[2]; /* by turn */
  struct samples checks;
  pthread_t thread;
  unsigned number; /* from 0 */
  enum turn turn;  /* of what is asked for */
};

/* ---- one call of either kind ---- */

static enum esp_code take_nothing(void *data, struct esp_in in, struct esp_status *st) {
  (void)data, (void)in, (void)st;
  return ESP_OK;
}

/* By the library's own way to make a call, on a connection as any other. */
static uint64_t check_health(esp_client *client) {
  struct esp_buf request = {0};
  struct esp_status st;
  uint64_t begin = bench_now_ns();
  bench_check(esp_client_call(client, "/grpc.health.v1.Health/Check", &request, esp_now_ms() + DEADLINE_MS,
                              take_nothing, NULL, 1, &st),
              "health check", &st);
  return bench_now_ns() - begin;
}

static uint64_t apply(esp_client *client, enum esp_op_kind kind, const char *selection) {
  struct esp_op op = {.kind = kind, .selection = selection};
  struct esp_apply_result *result;
  struct esp_status st;
  uint64_t begin = bench_now_ns();
  bench_check(esp_apply(client, &op, 1, NULL, &result, &st), "apply", &st);
  uint64_t ns = bench_now_ns() - begin;
  if (result->commit == 0 || result->changes_len == 0)
    bench_die("an operation on %s changed nothing", selection);
  esp_apply_result_free(result);
  return ns;
}

/* ---- turns ---- */

/* The thread's leaves by turns, one of each number: all shapes are met. */
static const char *selection_of(const struct turns *turns) {
  size_t mine = (load.len - turns->number + THREADS - 1) / THREADS;
  return load.specs[turns->number + turns->count / 2 % mine * THREADS].path;
}

static void take_turn(struct turns *turns) {
  turns->made++;
  if (turns->turn == TURN_CHECK) {
    (void)check_health(turns->health);
    return;
  }
  enum esp_op_kind kind = turns->count % 2 == 0 ? ESP_OP_FREEZE : ESP_OP_THAW;
  samples_add(&turns->ops[turns->turn], apply(turns->admin, kind, selection_of(turns)));
  turns->count++;
  if (turns->turn == TURN_MIXED)
    samples_add(&turns->checks, check_health(turns->health));
}

static void *take_turns(void *data) {
  struct turns *turns = data;
  uint64_t period_ns = THREADS * SECOND_NS / RATE;
  turns->made = 0;
  for (uint64_t at = turns->begin_ns + turns->number * SECOND_NS / RATE; at < turns->end_ns; at += period_ns) {
    bench_wait_until(at);
    take_turn(turns);
  }
  if (turns->count % 2 != 0) /* nothing stays frozen */
    take_turn(turns);
  return NULL;
}

static void run(struct turns *threads, uint64_t ms, enum turn turn) {
  uint64_t begin = bench_now_ns(), made = 0;
  for (unsigned i = 0; i < THREADS; i++) {
    threads[i].begin_ns = begin;
    threads[i].end_ns = begin + ms * MS_NS;
    threads[i].turn = turn;
    if (pthread_create(&threads[i].thread, NULL, take_turns, &threads[i]) != 0)
      bench_die("no thread");
  }
  for (unsigned i = 0; i < THREADS; i++) {
    pthread_join(threads[i].thread, NULL);
    made += threads[i].made;
  }
  printf("%" PRIu64 " %" PRIu64 "\n", bench_now_ns() - begin, made);
}

static void print_percentiles(struct samples *samples) {
  printf("%" PRIu64 " %" PRIu64 " %" PRIu64, samples_percentile(samples, 50), samples_percentile(samples, 99),
         samples_percentile(samples, 100));
}

static void print_latencies(const struct turns *threads, enum turn turn) {
  struct samples ops = {0}, checks = {0};
  for (unsigned i = 0; i < THREADS; i++) {
    samples_add_all(&ops, &threads[i].ops[turn]);
    samples_add_all(&checks, &threads[i].checks);
  }
  print_percentiles(&ops);
  printf(" ");
  print_percentiles(&checks);
  printf("\n");
  samples_done(&ops);
  samples_done(&checks);
}

/* ---- how long a push takes to be applied ---- */

/* A push whose leaves are frozen is sent, received and looked at like another, and then dropped: what it takes less is
 * the time of the steps. A client that declared nothing knows of no frozen leaf, and sends all. */
static void measure_apply(const struct turns *turns, esp_client *stranger, uint64_t count) {
  struct samples times[2] = {{0}, {0}};
  struct esp_push_result result;
  struct esp_status st;
  uint64_t applied = 0, frozen = 0;
  for (uint64_t i = 0; i < 2 * count; i++) {
    uint64_t begin = bench_now_ns();
    bench_check(esp_push(stranger, load.grads, load.len, &result, &st), "push", &st);
    samples_add(&times[i % 2], bench_now_ns() - begin);
    applied += result.applied;
    frozen += result.frozen;
    if (result.applied != (i % 2 == 0 ? load.len : 0))
      bench_die("a push stepped %" PRIu64 " leaves", result.applied);
    apply(turns->admin, i % 2 == 0 ? ESP_OP_FREEZE : ESP_OP_THAW, "**");
  }
  printf("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", samples_percentile(&times[0], 50),
         samples_percentile(&times[1], 50), applied, frozen);
  samples_done(&times[0]);
  samples_done(&times[1]);
}

/* ---- what is asked for ---- */

static void answer(struct turns *threads, esp_client *stranger, const char *line) {
  uint64_t value;
  if (sscanf(line, "mixed %" SCNu64, &value) == 1)
    run(threads, value, TURN_MIXED);
  else if (sscanf(line, "plain %" SCNu64, &value) == 1)
    run(threads, value, TURN_PLAIN);
  else if (sscanf(line, "checks %" SCNu64, &value) == 1)
    run(threads, value, TURN_CHECK);
  else if (sscanf(line, "apply %" SCNu64, &value) == 1)
    measure_apply(&threads[0], stranger, value);
  else if (strcmp(line, "latencies\n") == 0)
    print_latencies(threads, TURN_MIXED);
  else if (strcmp(line, "plain-latencies\n") == 0)
    print_latencies(threads, TURN_PLAIN);
  else
    bench_die("an operator is asked for %s", line);
}

int bench_operator(const struct bench_options *options) {
  static struct turns threads[THREADS];
  char line[256];
  esp_client *declarer = bench_open(options->server), *stranger = bench_open(options->server);
  workload_init(&load, 0, false);
  workload_declare(&load, declarer);
  for (unsigned i = 0; i < THREADS; i++)
    threads[i] =
        (struct turns){.number = i, .admin = bench_open(options->server), .health = bench_open(options->server)};
  child_ready(NULL);
  while (fgets(line, sizeof(line), stdin) != NULL) {
    answer(threads, stranger, line);
    fflush(stdout);
  }
  for (unsigned i = 0; i < THREADS; i++) {
    esp_client_close(threads[i].admin);
    esp_client_close(threads[i].health);
    for (unsigned j = 0; j < 2; j++)
      samples_done(&threads[i].ops[j]);
    samples_done(&threads[i].checks);
  }
  esp_client_close(stranger);
  esp_client_close(declarer);
  return 0;
}
