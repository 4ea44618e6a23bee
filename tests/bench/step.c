/* espbench step: how fast workers push all gradients and pull all weights, and how fast they could.
 *
 * The happy path: a team of espalierd and its workers, and with --limits one of raw TCP and one of bare gRPC; one step
 * that is not measured, since it makes the state; rounds of all phases by turns; in the end all values are checked. */
#include <inttypes.h>
#include <string.h>

#include "tests/bench/limits.h"

#define LINE_BYTES 1024
#define PHASES 3        /* of a round: step, push, pull */
#define PHASES_LIMITS 6 /* beside them: TCP and gRPC both ways, triad, memcpy */
#define SETUP_S 3       /* about how long everything else takes */
#define GB 1e9

struct bench {
  const struct bench_options *options;
  struct rule rule;
  double bytes;   /* one way, of a step, as the values are, and what limits move */
  double wire;    /* as they travel */
  double traffic; /* of the optimizer, in a step */
  struct team espalier;
  struct team tcp;
  struct team grpc;
  struct memory memory;
  uint64_t phase_ms;
  uint64_t pushes; /* of all workers */
  struct report report;
};

/* What the machine allows, of one round: bytes a second. */
struct limits {
  double tcp_up;
  double tcp_down;
  double grpc_up;
  double grpc_down;
  double triad;
  double copy;
};

enum {
  OPTIMIZER,
  WIRE,
  WORKERS,
  STEPS,
  RATE,
  P50,
  ALL_P50,
  ALL_P99,
  ALL_MAX,
  CPU,
  PUSH,
  PUSH_GRPC,
  PULL,
  PULL_GRPC,
  MEMORY,
  PUSHES,
  TCP_UP,
  TCP_DOWN,
  GRPC_UP,
  GRPC_DOWN,
  TRIAD,
  COPY
};

static const struct figure figures[] = {
    [OPTIMIZER] = {"optimizer", "optimizer", "", MORE_IS_BETTER},
    [WIRE] = {"wire", "dtype on the wire", "", MORE_IS_BETTER},
    [WORKERS] = {"workers", "workers", "", MORE_IS_BETTER},
    [STEPS] = {"steps_s", "steps a second, of all workers together", "1/s", MORE_IS_BETTER},
    [RATE] = {"step_gb_s", "their bytes, each way", "GB/s", MORE_IS_BETTER},
    [P50] = {"step_p50_ms", "a step, p50", "ms", LESS_IS_BETTER},
    [ALL_P50] = {"step_all_p50_ms", "of all rounds together, p50", "ms", LESS_IS_BETTER},
    [ALL_P99] = {"step_all_p99_ms", "p99", "ms", LESS_IS_BETTER},
    [ALL_MAX] = {"step_all_max_ms", "the longest", "ms", LESS_IS_BETTER},
    [CPU] = {"cpu_s_step", "the server's CPU time of a step", "s", LESS_IS_BETTER},
    [PUSH] = {"push_gb_s", "pushes alone", "GB/s", MORE_IS_BETTER},
    [PUSH_GRPC] = {"push_without_optimizer_gb_s", "pushes, without the optimizer's time", "GB/s", MORE_IS_BETTER},
    [PULL] = {"pull_gb_s", "pulls alone", "GB/s", MORE_IS_BETTER},
    [PULL_GRPC] = {"pull_to_grpc_gb_s", "pulls, against bare gRPC", "GB/s", MORE_IS_BETTER},
    [MEMORY] = {"memory_above_mb", "the server's peak memory above values and state", "MB", LESS_IS_BETTER},
    [PUSHES] = {"pushes", "pushes, each checked", "", MORE_IS_BETTER},
    [TCP_UP] = {"tcp_up_gb_s", "raw TCP to the server", "GB/s", MORE_IS_BETTER},
    [TCP_DOWN] = {"tcp_down_gb_s", "raw TCP from the server", "GB/s", MORE_IS_BETTER},
    [GRPC_UP] = {"grpc_up_gb_s", "bare gRPC to the server", "GB/s", MORE_IS_BETTER},
    [GRPC_DOWN] = {"grpc_down_gb_s", "bare gRPC from the server", "GB/s", MORE_IS_BETTER},
    [TRIAD] = {"triad_gb_s", "triad, with the server's threads", "GB/s", MORE_IS_BETTER},
    [COPY] = {"memcpy_gb_s", "memcpy, likewise, read and written", "GB/s", MORE_IS_BETTER},
};

/* ---- phases ---- */

/* With one connection only: iperf3 3.12 drives several from one thread. */
static void compare_tcp(struct bench *bench) {
  if (bench->options->workers > 1 || !iperf3_is_installed())
    return;
  report_limit(&bench->report, &figures[TCP_UP], iperf3_rate(false, bench->phase_ms) / GB);
  report_limit(&bench->report, &figures[TCP_DOWN], iperf3_rate(true, bench->phase_ms) / GB);
}

static void measure_limits(struct bench *bench, struct limits *ret) {
  uint64_t ms = bench->phase_ms;
  *ret = (struct limits){
      .tcp_up = team_run(&bench->tcp, "push", ms).per_s * bench->bytes,
      .tcp_down = team_run(&bench->tcp, "pull", ms).per_s * bench->bytes,
      .grpc_up = team_run(&bench->grpc, "push", ms).per_s * bench->bytes,
      .grpc_down = team_run(&bench->grpc, "pull", ms).per_s * bench->bytes,
      .triad = memory_triad(&bench->memory, server_threads(), ms),
      .copy = memory_copy(&bench->memory, server_threads(), ms),
  };
  report_add(&bench->report, &figures[TCP_UP], ret->tcp_up / GB);
  report_add(&bench->report, &figures[TCP_DOWN], ret->tcp_down / GB);
  report_add(&bench->report, &figures[GRPC_UP], ret->grpc_up / GB);
  report_add(&bench->report, &figures[GRPC_DOWN], ret->grpc_down / GB);
  report_add(&bench->report, &figures[TRIAD], ret->triad / GB);
  report_add(&bench->report, &figures[COPY], ret->copy / GB);
  compare_tcp(bench);
}

static struct pace run(struct bench *bench, const char *what) {
  struct pace pace = team_run(&bench->espalier, what, bench->phase_ms);
  bench->pushes += strcmp(what, "pull") == 0 ? 0 : pace.count;
  return pace;
}

/* A round against its limits. */
static void compare(struct bench *bench, const struct limits *limits, double push_per_s, double pull_per_s) {
  struct report *report = &bench->report;
  double apply_s = bench->traffic / limits->triad;
  double up_s = bench->wire / limits->tcp_up, down_s = bench->wire / limits->tcp_down;
  double step_s = up_s + down_s + apply_s, bare_s = 1 / push_per_s - apply_s;
  report_limit(report, &figures[STEPS], 1 / step_s);
  report_limit(report, &figures[RATE], bench->wire / step_s / GB);
  report_limit(report, &figures[PUSH], bench->wire / (up_s + apply_s) / GB);
  report_limit(report, &figures[PULL], limits->tcp_down / GB);
  if (bare_s > 0) { /* a triad that was disturbed may take longer than a push that was not */
    report_add(report, &figures[PUSH_GRPC], bench->wire / bare_s / GB);
    report_limit(report, &figures[PUSH_GRPC], limits->grpc_up / GB);
  }
  report_add(report, &figures[PULL_GRPC], pull_per_s * bench->wire / GB);
  report_limit(report, &figures[PULL_GRPC], limits->grpc_down / GB);
}

static void round_of(struct bench *bench) {
  struct report *report = &bench->report;
  struct limits limits;
  uint64_t cpu_ns = bench_cpu_ns(bench->espalier.server.pid);
  struct pace step = run(bench, "step");
  cpu_ns = bench_cpu_ns(bench->espalier.server.pid) - cpu_ns;
  report_add(report, &figures[STEPS], step.per_s);
  report_add(report, &figures[RATE], step.per_s * bench->wire / GB);
  report_add(report, &figures[P50], (double)step.p50_ns / 1e6);
  report_add(report, &figures[CPU], (double)cpu_ns / 1e9 / (double)step.count);
  double push_per_s = run(bench, "push").per_s;
  double pull_per_s = run(bench, "pull").per_s;
  report_add(report, &figures[PUSH], push_per_s * bench->wire / GB);
  report_add(report, &figures[PULL], pull_per_s * bench->wire / GB);
  if (!bench->options->limits)
    return;
  measure_limits(bench, &limits);
  compare(bench, &limits, push_per_s, pull_per_s);
}

/* ---- the end ---- */

/* Of all steps; of several workers the longest. */
static void take_latencies(struct bench *bench) {
  char line[LINE_BYTES];
  uint64_t most[3] = {0};
  for (size_t i = 0; i < bench->espalier.len; i++) {
    uint64_t ns[3];
    process_ask(&bench->espalier.workers[i], "latencies");
    process_answer(&bench->espalier.workers[i], line, sizeof(line));
    if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNu64, &ns[0], &ns[1], &ns[2]) != 3)
      bench_die("a worker says %s", line);
    for (size_t j = 0; j < 3; j++)
      most[j] = ns[j] > most[j] ? ns[j] : most[j];
  }
  report_add(&bench->report, &figures[ALL_P50], (double)most[0] / 1e6);
  report_add(&bench->report, &figures[ALL_P99], (double)most[1] / 1e6);
  report_add(&bench->report, &figures[ALL_MAX], (double)most[2] / 1e6);
}

/* Every worker pulls and checks all values; all pushes stepped all leaves, and no others were made. */
static void check(struct bench *bench, const struct esp_server_info *info) {
  char line[LINE_BYTES];
  for (size_t i = 0; i < bench->espalier.len; i++) {
    uint64_t steps;
    process_ask(&bench->espalier.workers[i], "check %s", bench->options->optimizer);
    process_answer(&bench->espalier.workers[i], line, sizeof(line));
    if (sscanf(line, "%" SCNu64, &steps) != 1 || steps != bench->pushes * info->leaves)
      bench_die("all leaves together made %s steps by %" PRIu64 " pushes of %" PRIu64 " leaves", line, bench->pushes,
                info->leaves);
  }
  if (info->commit != 1 + bench->pushes)
    bench_die("there are %" PRIu64 " commits after %" PRIu64 " pushes", info->commit, bench->pushes);
}

/* The largest that its memory has ever been. */
static double peak_bytes(pid_t pid) {
  char path[64], line[LINE_BYTES];
  unsigned long long kb = 0;
  snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
  FILE *file = fopen(path, "r");
  while (file != NULL && kb == 0 && fgets(line, sizeof(line), file) != NULL)
    (void)sscanf(line, "VmHWM: %llu", &kb);
  if (kb == 0)
    bench_die("%s does not tell the server's memory", path);
  fclose(file);
  return (double)kb * 1024;
}

/* The limit: a push of each worker on its way, and of each pull the largest tensor as it was, and as it travels where
 * that is another dtype; a tenth of everything, and 32 MiB. */
static void take_memory(struct bench *bench, const struct esp_server_info *info) {
  double kept = (double)info->memory_parameters + (double)info->memory_state;
  double largest = (double)workload_bytes_largest() * (bench->options->wire == 0 ? 1 : 1.5);
  double moved = (double)bench->options->workers * (bench->wire + largest);
  double above = peak_bytes(bench->espalier.server.pid) - kept;
  report_add(&bench->report, &figures[MEMORY], above / 1e6);
  report_limit(&bench->report, &figures[MEMORY], (moved + 0.1 * (kept + moved) + (32 << 20)) / 1e6);
}

static void finish(struct bench *bench) {
  struct esp_server_info info;
  struct esp_status st;
  esp_client *client = bench_open(bench->espalier.address);
  bench_check(esp_server_info(client, &info, &st), "info", &st);
  esp_client_close(client);
  take_latencies(bench);
  take_memory(bench, &info);
  check(bench, &info);
  report_add(&bench->report, &figures[PUSHES], (double)bench->pushes);
  team_end(&bench->espalier);
  if (bench->options->limits) {
    team_end(&bench->tcp);
    team_end(&bench->grpc);
  }
}

static void start(struct bench *bench, const struct bench_options *options) {
  uint64_t seconds = options->seconds > SETUP_S ? options->seconds - SETUP_S : 1;
  uint64_t phases = options->rounds * (options->limits ? PHASES + PHASES_LIMITS : PHASES);
  bench->options = options;
  bench->phase_ms = seconds * 1000 / phases;
  bench->bytes = (double)workload_bytes();
  bench->wire = options->wire == 0 ? bench->bytes : bench->bytes / 2;
  rule_parse(options->optimizer, &bench->rule);
  bench->traffic = rule_traffic(&bench->rule, bench->wire, bench->bytes);
  report_begin(&bench->report, "step");
  report_word(&bench->report, &figures[OPTIMIZER], options->optimizer);
  report_word(&bench->report, &figures[WIRE], options->wire == 0 ? "f32" : options->wire == ESP_BF16 ? "bf16" : "f16");
  report_add(&bench->report, &figures[WORKERS], (double)options->workers);
  team_start(&bench->espalier, options);
  if (options->limits) {
    team_start_limit(&bench->tcp, LIMITS_TCP, options->workers);
    team_start_limit(&bench->grpc, LIMITS_GRPC, options->workers);
    memory_init(&bench->memory, (size_t)bench->bytes);
  }
}

int bench_step(const struct bench_options *options) {
  static struct bench bench; /* large */
  start(&bench, options);
  bench.pushes += team_run(&bench.espalier, "step", 0).count;
  for (uint64_t i = 0; i < options->rounds; i++)
    round_of(&bench);
  finish(&bench);
  report_print(&bench.report, options->json);
  return 0;
}
