/* espbench admin: a server with the workload and adam, two workers at full speed, and an operator.
 *
 * The happy path: everything is started; the time of applying a push is taken while nothing else happens; then rounds
 * of five phases: the workers alone, the workers and the operator, nobody, the operator alone, health checks alone; in
 * the end all values and counts are checked and the figures printed. Only figures of one run are comparable. */
#include <inttypes.h>
#include <string.h>

#include "tests/bench/bench.h"

#define WORKERS 2
#define OPTIMIZER "adam(lr=0.001)"
#define APPLIES 5 /* pushes of each kind to take the time of */
#define SETUP_S 3 /* about how long everything else takes, beside the phases */
#define LINE_BYTES 1024

/* The shares of the phases in a round's time, in percent. */
enum { SHARE_ALONE = 22, SHARE_MIXED = 44, SHARE_IDLE = 8, SHARE_PLAIN = 13, SHARE_CHECK = 13 };

struct latency {
  uint64_t p50;
  uint64_t p99;
  uint64_t max;
};

struct figures {
  uint64_t free_ns; /* of a push of free leaves, and of frozen ones */
  uint64_t frozen_ns;
  uint64_t ops;       /* of the mixed phases */
  uint64_t mixed_ns;  /* likewise, of the operator */
  uint64_t plain_ops; /* of the operator alone */
  uint64_t plain_ns;  /* likewise, as is the next */
  uint64_t plain_cpu_ns;
  uint64_t checks; /* of health checks alone, as the next two */
  uint64_t checks_ns;
  uint64_t checks_cpu_ns;
  uint64_t idle_ns;
  uint64_t idle_cpu_ns;
  struct latency op;    /* under load */
  struct latency check; /* likewise */
  struct latency plain; /* an operation without load */
};

struct bench {
  const struct bench_options *options;
  struct team team;
  struct process operator;
  uint64_t pushes;  /* of all */
  uint64_t applied; /* leaves, of all pushes */
  uint64_t frozen;
  struct figures figures;
  struct report report;
};

static const struct figure steps_alone = {"steps_s_alone", "steps a second of both workers alone", "1/s",
                                          MORE_IS_BETTER},
                           steps_mixed = {"steps_s_mixed", "with the operator", "1/s", MORE_IS_BETTER},
                           steps_ratio = {"steps_ratio", "the ratio", "", MORE_IS_BETTER};

/* ---- phases ---- */

static void take_calls(struct bench *bench, uint64_t *ns, uint64_t *calls) {
  char line[LINE_BYTES];
  uint64_t got_ns, got_ops;
  process_answer(&bench->operator, line, sizeof(line));
  if (sscanf(line, "%" SCNu64 " %" SCNu64, &got_ns, &got_ops) != 2)
    bench_die("the operator says %s", line);
  *ns += got_ns;
  *calls += got_ops;
}

/* What the server needs for the operator's calls alone. */
static void take_cpu(struct bench *bench, const char *what, uint64_t ms, uint64_t *ns, uint64_t *calls,
                     uint64_t *cpu_ns) {
  uint64_t cpu = bench_cpu_ns(bench->team.server.pid);
  process_ask(&bench->operator, "%s %" PRIu64, what, ms);
  take_calls(bench, ns, calls);
  *cpu_ns += bench_cpu_ns(bench->team.server.pid) - cpu;
}

static void round_of(struct bench *bench, uint64_t ms) {
  struct figures *figures = &bench->figures;
  struct pace alone = team_run(&bench->team, "step", ms * SHARE_ALONE / 100);
  team_ask(&bench->team, "step", ms * SHARE_MIXED / 100);
  process_ask(&bench->operator, "mixed %" PRIu64, ms * SHARE_MIXED / 100);
  struct pace mixed = team_take(&bench->team);
  take_calls(bench, &figures->mixed_ns, &figures->ops);
  bench->pushes += alone.count + mixed.count;
  report_add(&bench->report, &steps_alone, alone.per_s);
  report_add(&bench->report, &steps_mixed, mixed.per_s);
  report_add(&bench->report, &steps_ratio, mixed.per_s / alone.per_s);
  uint64_t begin = bench_now_ns(), cpu = bench_cpu_ns(bench->team.server.pid);
  bench_wait_until(begin + ms * SHARE_IDLE / 100 * MS_NS);
  uint64_t now = bench_now_ns(), cpu_now = bench_cpu_ns(bench->team.server.pid);
  figures->idle_ns += now - begin;
  figures->idle_cpu_ns += cpu_now - cpu;
  take_cpu(bench, "plain", ms * SHARE_PLAIN / 100, &figures->plain_ns, &figures->plain_ops, &figures->plain_cpu_ns);
  take_cpu(bench, "checks", ms * SHARE_CHECK / 100, &figures->checks_ns, &figures->checks, &figures->checks_cpu_ns);
}

static void take_apply_time(struct bench *bench) {
  char line[LINE_BYTES];
  uint64_t applied, frozen;
  process_ask(&bench->operator, "apply %d", APPLIES);
  process_answer(&bench->operator, line, sizeof(line));
  if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &bench->figures.free_ns, &bench->figures.frozen_ns,
             &applied, &frozen) != 4)
    bench_die("the operator says %s", line);
  bench->applied += applied;
  bench->frozen += frozen;
  bench->pushes += UINT64_C(2) * APPLIES;
}

static void take_latencies(struct bench *bench, const char *what, struct latency *op, struct latency *check) {
  char line[LINE_BYTES];
  process_ask(&bench->operator, "%s", what);
  process_answer(&bench->operator, line, sizeof(line));
  if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &op->p50, &op->p99, &op->max,
             &check->p50, &check->p99, &check->max) != 6)
    bench_die("the operator says %s", line);
}

static uint64_t transactions_of(const struct bench *bench) {
  return UINT64_C(2) * APPLIES + bench->figures.ops + bench->figures.plain_ops;
}

/* ---- the check ---- */

/* Of the workers' pushes. */
static void take_fates(struct bench *bench) {
  char line[LINE_BYTES];
  for (size_t i = 0; i < bench->team.len; i++) {
    uint64_t applied, frozen;
    process_ask(&bench->team.workers[i], "fates");
    process_answer(&bench->team.workers[i], line, sizeof(line));
    if (sscanf(line, "%" SCNu64 " %" SCNu64, &applied, &frozen) != 2)
      bench_die("a worker says %s", line);
    bench->applied += applied;
    bench->frozen += frozen;
  }
}

/* All that was answered was done, and nothing else: commits, steps of all leaves, values of all elements. */
static void check(struct bench *bench) {
  char line[LINE_BYTES];
  struct esp_server_info info;
  struct esp_status st;
  uint64_t steps;
  take_fates(bench);
  process_ask(&bench->team.workers[0], "check %s", OPTIMIZER);
  process_answer(&bench->team.workers[0], line, sizeof(line));
  esp_client *client = bench_open(bench->team.address);
  bench_check(esp_server_info(client, &info, &st), "info", &st);
  esp_client_close(client);
  if (sscanf(line, "%" SCNu64, &steps) != 1 || steps != bench->applied)
    bench_die("all leaves together made %s steps, and %" PRIu64 " were answered", line, bench->applied);
  if (bench->applied + bench->frozen != bench->pushes * info.leaves)
    bench_die("%" PRIu64 " leaves stepped and %" PRIu64 " frozen are not those of %" PRIu64 " pushes", bench->applied,
              bench->frozen, bench->pushes);
  if (info.commit != 1 + bench->pushes + transactions_of(bench) || info.frozen != 0)
    bench_die("there are %" PRIu64 " commits and %" PRIu64 " frozen leaves after %" PRIu64 " pushes and %" PRIu64
              " transactions",
              info.commit, info.frozen, bench->pushes, transactions_of(bench));
}

/* ---- the report ---- */

/* A figure of all rounds together, and what it is held against. */
struct total {
  struct figure figure;
  double value;
  double limit; /* 0: none */
};

static double ms_of(uint64_t ns) {
  return (double)ns / 1e6;
}

static double share_of(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : (double)part / (double)whole;
}

/* Of one core, in percent, for 100 calls a second: what is above that of nothing at all. */
static double cpu_of(const struct figures *f, uint64_t cpu_ns, uint64_t ns, uint64_t calls) {
  double share = share_of(cpu_ns, ns) - share_of(f->idle_cpu_ns, f->idle_ns);
  return calls == 0 ? 0 : share * 100 * 100 / (share_of(calls, ns) * 1e9);
}

static void report(struct bench *bench) {
  const struct figures *f = &bench->figures;
  double apply_ms = ms_of(f->free_ns) - ms_of(f->frozen_ns);
  double p50 = ms_of(f->op.p50) - ms_of(f->check.p50), p99 = ms_of(f->op.p99) - ms_of(f->check.p99);
  double rate = share_of(f->plain_ops, f->plain_ns) * 1e9;
  const enum better less = LESS_IS_BETTER, more = MORE_IS_BETTER;
  const struct total totals[] = {
      {{"op_p50_ms", "a freeze or thaw under load, p50", "ms", less}, ms_of(f->op.p50), 0},
      {{"op_p99_ms", "p99", "ms", less}, ms_of(f->op.p99), 0},
      {{"op_max_ms", "the longest", "ms", less}, ms_of(f->op.max), 0},
      {{"check_p50_ms", "a health check under load, p50", "ms", less}, ms_of(f->check.p50), 0},
      {{"check_p99_ms", "p99", "ms", less}, ms_of(f->check.p99), 0},
      {{"check_max_ms", "the longest", "ms", less}, ms_of(f->check.max), 0},
      {{"ops", "operations under load, and as many health checks", "", more}, (double)f->ops, 0},
      {{"ops_s", "operations a second", "1/s", more}, share_of(f->ops, f->mixed_ns) * 1e9, 0},
      {{"push_free_ms", "a push without other load, all leaves free", "ms", less}, ms_of(f->free_ns), 0},
      {{"push_frozen_ms", "all leaves frozen", "ms", less}, ms_of(f->frozen_ns), 0},
      {{"apply_ms", "applying a push: the difference", "ms", less}, apply_ms, 0},
      {{"p50_above_ms", "p50 above the health check's", "ms", less}, p50, 2},
      {{"p99_above_ms", "p99 above the health check's", "ms", less}, p99, apply_ms + 2},
      {{"plain_p50_ms", "a freeze or thaw without load, p50", "ms", less}, ms_of(f->plain.p50), 0},
      {{"plain_p99_ms", "p99", "ms", less}, ms_of(f->plain.p99), 0},
      {{"plain_ops_s", "operations a second without load", "1/s", more}, rate, 0},
      {{"cpu_plain_percent", "the server's CPU time then, of one core", "%", less},
       share_of(f->plain_cpu_ns, f->plain_ns) * 100,
       0},
      {{"cpu_idle_percent", "without them", "%", less}, share_of(f->idle_cpu_ns, f->idle_ns) * 100, 0},
      {{"cpu_percent", "for 100 operations a second", "%", less},
       cpu_of(f, f->plain_cpu_ns, f->plain_ns, f->plain_ops),
       2},
      {{"cpu_check_percent", "for 100 health checks a second", "%", less},
       cpu_of(f, f->checks_cpu_ns, f->checks_ns, f->checks),
       0},
      {{"pushes", "pushes, each checked", "", more}, (double)bench->pushes, 0},
      {{"transactions", "transactions, each checked", "", more}, (double)transactions_of(bench), 0},
  };
  for (size_t i = 0; i < sizeof(totals) / sizeof(totals[0]); i++) {
    report_add(&bench->report, &totals[i].figure, totals[i].value);
    if (totals[i].limit != 0)
      report_limit(&bench->report, &totals[i].figure, totals[i].limit);
  }
  report_print(&bench->report, bench->options->json);
}

int bench_admin(const struct bench_options *given) {
  static struct bench bench; /* large */
  struct bench_options options = *given;
  struct latency none;
  options.optimizer = OPTIMIZER;
  options.workers = WORKERS;
  bench.options = &options;
  report_begin(&bench.report, "admin");
  team_start(&bench.team, &options);
  child_start("operator", bench.team.address, NULL, &bench.operator, NULL);
  take_apply_time(&bench);
  uint64_t seconds = options.seconds > SETUP_S ? options.seconds - SETUP_S : 1;
  for (uint64_t i = 0; i < options.rounds; i++)
    round_of(&bench, seconds * 1000 / options.rounds);
  take_latencies(&bench, "latencies", &bench.figures.op, &bench.figures.check);
  take_latencies(&bench, "plain-latencies", &bench.figures.plain, &none);
  check(&bench);
  process_end(&bench.operator, 0);
  team_end(&bench.team);
  report(&bench);
  return 0;
}
