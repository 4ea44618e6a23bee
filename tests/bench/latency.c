/* espbench latency: pushes and pulls of one small tensor, one at a time and 16 at once.
 *
 * All is done from this process, the server is another. With --limits each round also asks a bare gRPC server that does
 * nothing, by unary calls, and bounces as many bytes over a bare connection. The optimizer and the gradient are such
 * that every value is exact: at any time it tells how many steps it has made. */
#include <inttypes.h>
#include <signal.h>

#include "tests/bench/limits.h"

#define ELEMENTS 256 /* 1 KiB */
#define DEPTH 16
#define CALLS 1000 /* of each kind in a round */
#define WARM_UP_CALLS 200
#define LIMIT_MS 200 /* of each limit in a round */
#define OPTIMIZER "sgd(lr=0.5)"

static const struct figure depth1_p50 = {"p50_us", "push and pull of 1 KiB, p50", "us", LESS_IS_BETTER},
                           depth1_p99 = {"p99_us", "p99", "us", LESS_IS_BETTER},
                           depth1_rate = {"rate", "how many a second", "", MORE_IS_BETTER},
                           depth16_p50 = {"p50_us_16", "16 at once, p50", "us", LESS_IS_BETTER},
                           depth16_p99 = {"p99_us_16", "p99", "us", LESS_IS_BETTER},
                           depth16_rate = {"rate_16", "how many a second", "", MORE_IS_BETTER},
                           tcp_p50 = {"tcp_p50_us", "1 KiB there and back over bare TCP, p50", "us", LESS_IS_BETTER};

/* One place for a push and pull under way. */
struct slot {
  esp_handle *handle;
  uint64_t begin_ns;
  float value[ELEMENTS];
};

struct bench {
  esp_client *client;
  esp_leaf_id leaf;
  uint64_t steps; /* that were answered */
  float gradient[ELEMENTS];
  struct slot slots[DEPTH];
};

static float gradient_at(size_t i) {
  return (float)((int)(i % 5) - 2) / 1024;
}

/* Of a pull that saw so many steps. */
static void check_value(const float *value, uint64_t steps) {
  for (size_t i = 0; i < ELEMENTS; i++) {
    float expected = -0.5F * gradient_at(i) * (float)steps;
    if (value[i] != expected)
      bench_die("element %zu is %.9g, and %.9g after %" PRIu64 " steps", i, (double)value[i], (double)expected, steps);
  }
}

static struct esp_gradient gradient_of(const struct bench *bench) {
  return (struct esp_gradient){.leaf = bench->leaf, .data = bench->gradient, .bytes = sizeof(bench->gradient)};
}

static struct esp_weight weight_of(const struct bench *bench, struct slot *slot) {
  return (struct esp_weight){.leaf = bench->leaf, .data = slot->value, .bytes = sizeof(slot->value)};
}

/* ---- one at a time ---- */

static void push_pull(struct bench *bench, struct samples *samples) {
  const struct esp_gradient grad = gradient_of(bench);
  const struct esp_weight weight = weight_of(bench, &bench->slots[0]);
  struct esp_status st;
  uint64_t begin = bench_now_ns();
  bench_check(esp_push_pull(bench->client, &grad, 1, &weight, 1, NULL, NULL, &st), "push and pull", &st);
  samples_add(samples, bench_now_ns() - begin);
  check_value(bench->slots[0].value, ++bench->steps);
}

/* ---- several at once ---- */

/* Lent to the library while the handles live, as gradients and weights are. */
struct lent {
  struct esp_gradient grad;
  struct esp_weight weights[DEPTH];
};

static void begin(struct bench *bench, const struct lent *lent, size_t i) {
  struct slot *slot = &bench->slots[i];
  struct esp_status st;
  slot->begin_ns = bench_now_ns();
  bench_check(esp_push_pull_begin(bench->client, &lent->grad, 1, &lent->weights[i], 1, NULL, NULL, NULL, NULL, NULL,
                                  &slot->handle, &st),
              "begin a push and pull", &st);
}

static void end(struct bench *bench, size_t i, struct samples *samples) {
  struct slot *slot = &bench->slots[i];
  struct esp_status st;
  bench_check(esp_wait(slot->handle, UINT64_MAX, &st), "push and pull", &st);
  samples_add(samples, bench_now_ns() - slot->begin_ns);
  esp_handle_free(slot->handle);
  bench->steps++;
}

/* They are carried out in the order in which they begin, so the oldest is the next to end. */
static void push_pull_16(struct bench *bench, size_t calls, struct samples *samples) {
  struct lent lent = {.grad = gradient_of(bench)};
  for (size_t i = 0; i < DEPTH; i++) {
    lent.weights[i] = weight_of(bench, &bench->slots[i]);
    begin(bench, &lent, i);
  }
  for (size_t call = DEPTH; call < calls; call++) {
    end(bench, call % DEPTH, samples);
    begin(bench, &lent, call % DEPTH);
  }
  for (size_t i = 0; i < DEPTH; i++)
    end(bench, (calls + i) % DEPTH, samples);
  check_value(bench->slots[(calls - 1) % DEPTH].value, bench->steps);
}

/* ---- the run ---- */

static double us_of(struct samples *samples, double percent) {
  return (double)samples_percentile(samples, percent) / 1e3;
}

/* A bare gRPC server and a TCP one. */
struct limits {
  struct team grpc;
  struct team tcp;
};

static void limit_of(struct team *team, const char *what, struct report *report, const struct figure *rate,
                     const struct figure *p50, const struct figure *p99) {
  struct pace pace = team_run(team, what, LIMIT_MS);
  report_limit(report, rate, pace.per_s);
  report_limit(report, p50, (double)pace.p50_ns / 1e3);
  report_limit(report, p99, (double)pace.p99_ns / 1e3);
}

static void round_of_limits(struct limits *limits, struct report *report) {
  limit_of(&limits->grpc, "unary", report, &depth1_rate, &depth1_p50, &depth1_p99);
  limit_of(&limits->grpc, "unary16", report, &depth16_rate, &depth16_p50, &depth16_p99);
  report_add(report, &tcp_p50, (double)team_run(&limits->tcp, "ping", LIMIT_MS).p50_ns / 1e3);
}

static void round_of(struct bench *bench, struct report *report) {
  struct samples samples = {0};
  uint64_t begin_ns = bench_now_ns();
  for (size_t i = 0; i < CALLS; i++)
    push_pull(bench, &samples);
  uint64_t ns = bench_now_ns() - begin_ns;
  report_add(report, &depth1_p50, us_of(&samples, 50));
  report_add(report, &depth1_p99, us_of(&samples, 99));
  report_add(report, &depth1_rate, CALLS * 1e9 / (double)ns);
  samples.len = 0;
  begin_ns = bench_now_ns();
  push_pull_16(bench, CALLS, &samples);
  ns = bench_now_ns() - begin_ns;
  report_add(report, &depth16_p50, us_of(&samples, 50));
  report_add(report, &depth16_p99, us_of(&samples, 99));
  report_add(report, &depth16_rate, CALLS * 1e9 / (double)ns);
  samples_done(&samples);
}

static void declare(struct bench *bench) {
  const struct esp_leaf_spec spec = {.path = "small", .shape = {ELEMENTS}, .rank = 1, .dtype = ESP_F32};
  struct esp_status st;
  bench_check(esp_declare(bench->client, &spec, 1, &bench->leaf, &st), "declare", &st);
  for (size_t i = 0; i < ELEMENTS; i++)
    bench->gradient[i] = gradient_at(i);
}

static void warm_up(struct bench *bench) {
  struct samples samples = {0};
  for (size_t i = 0; i < WARM_UP_CALLS; i++)
    push_pull(bench, &samples);
  push_pull_16(bench, WARM_UP_CALLS, &samples);
  samples_done(&samples);
}

static void check(struct bench *bench) {
  const struct esp_weight weight = weight_of(bench, &bench->slots[0]);
  struct esp_status st;
  bench_check(esp_pull(bench->client, &weight, 1, NULL, &st), "pull", &st);
  check_value(bench->slots[0].value, bench->steps);
}

int bench_latency(const struct bench_options *options) {
  static struct bench bench;
  static struct limits limits;
  struct report report = {0};
  struct process server;
  char address[ADDRESS_MAX];
  report_begin(&report, "latency");
  server_start(options, OPTIMIZER, &server, address);
  bench.client = bench_open(address);
  declare(&bench);
  warm_up(&bench);
  if (options->limits) {
    team_start_limit(&limits.grpc, LIMITS_GRPC, 1);
    team_start_limit(&limits.tcp, LIMITS_TCP, 1);
  }
  for (uint64_t i = 0; i < options->rounds; i++) {
    round_of(&bench, &report);
    if (options->limits)
      round_of_limits(&limits, &report);
  }
  check(&bench);
  if (options->limits) {
    team_end(&limits.grpc);
    team_end(&limits.tcp);
  }
  esp_client_close(bench.client);
  process_end(&server, SIGTERM);
  report_print(&report, options->json);
  return 0;
}
