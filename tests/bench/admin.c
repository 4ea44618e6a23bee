/* espbench admin: a server with the workload and adam, two workers at full speed, and an operator.
 *
 * The happy path: everything is started; the time of applying a push is taken while nothing else happens; then rounds
 * of four phases: the workers alone, the workers and the operator, nobody, the operator alone; in the end all values
 * and counts are checked and the figures printed. Only figures of one run are comparable. */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/bench.h"

#define WORKERS 2
#define ROUNDS 4
#define APPLIES 5 /* pushes of each kind to take the time of */
#define SETUP_S 3 /* about how long everything else takes, beside the phases */
#define LINE_BYTES 1024

/* The shares of the phases in a round's time, in percent. */
enum { SHARE_ALONE = 25, SHARE_MIXED = 50, SHARE_IDLE = 8, SHARE_PLAIN = 17 };

/* Sums of one kind of phase. */
struct work {
  uint64_t ns;    /* of the workers, both together */
  uint64_t steps; /* likewise */
  double steps_s; /* a second, both together: the mean of the rounds */
};

struct latency {
  uint64_t p50;
  uint64_t p99;
  uint64_t max;
};

struct figures {
  uint64_t free_ns; /* of a push of free leaves, and of frozen ones */
  uint64_t frozen_ns;
  struct work alone;
  struct work mixed;
  uint64_t ops;       /* of the mixed phases */
  uint64_t mixed_ns;  /* likewise, of the operator */
  uint64_t plain_ops; /* of the operator alone */
  uint64_t plain_ns;  /* likewise, as is the next */
  uint64_t plain_cpu_ns;
  uint64_t idle_ns;
  uint64_t idle_cpu_ns;
  struct latency op;    /* under load */
  struct latency check; /* likewise */
  struct latency plain; /* an operation without load */
};

struct bench {
  const struct bench_options *options;
  struct process server;
  struct process workers[WORKERS];
  struct process operator;
  char address[256];
  uint64_t pushes;  /* of all */
  uint64_t applied; /* leaves, of all pushes */
  uint64_t frozen;
  uint64_t transactions;
  struct figures figures;
};

/* ---- start ---- */

static void start_server(struct bench *bench) {
  const char *argv[] = {bench->options->espalierd, "--listen=127.0.0.1:0", "--group=default=adam(lr=0.001)",
                        "--log-level=warn", NULL};
  char line[LINE_BYTES];
  process_start(&bench->server, argv);
  process_answer(&bench->server, line, sizeof(line));
  if (sscanf(line, "espalierd %*s ready on %255s", bench->address) != 1)
    bench_die("the server says %s", line);
}

static void start_child(struct bench *bench, const char *command, struct process *ret) {
  char self[4096], server[300], line[LINE_BYTES];
  ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
  if (len <= 0)
    bench_die("this program does not find itself");
  self[len] = '\0';
  snprintf(server, sizeof(server), "--server=%s", bench->address);
  const char *argv[] = {self, command, server, NULL};
  process_start(ret, argv);
  process_answer(ret, line, sizeof(line));
  if (strcmp(line, "ready") != 0)
    bench_die("%s says %s", command, line);
}

/* ---- phases ---- */

static void ask_workers(struct bench *bench, uint64_t ms) {
  for (size_t i = 0; i < WORKERS; i++)
    process_ask(&bench->workers[i], "steps %" PRIu64, ms);
}

static void take_steps(struct bench *bench, struct work *work) {
  char line[LINE_BYTES];
  for (size_t i = 0; i < WORKERS; i++) {
    uint64_t ns, steps, applied, frozen;
    process_answer(&bench->workers[i], line, sizeof(line));
    if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &ns, &steps, &applied, &frozen) != 4)
      bench_die("a worker says %s", line);
    bench->pushes += steps;
    bench->applied += applied;
    bench->frozen += frozen;
    work->ns += ns;
    work->steps += steps;
    work->steps_s += (double)steps * 1e9 / (double)ns / ROUNDS;
  }
}

static void take_operations(struct bench *bench, uint64_t *ns, uint64_t *ops) {
  char line[LINE_BYTES];
  uint64_t got_ns, got_ops;
  process_answer(&bench->operator, line, sizeof(line));
  if (sscanf(line, "%" SCNu64 " %" SCNu64, &got_ns, &got_ops) != 2)
    bench_die("the operator says %s", line);
  bench->transactions += got_ops;
  *ns += got_ns;
  *ops += got_ops;
}

static void round_of(struct bench *bench, uint64_t ms) {
  struct figures *figures = &bench->figures;
  ask_workers(bench, ms * SHARE_ALONE / 100);
  take_steps(bench, &figures->alone);
  ask_workers(bench, ms * SHARE_MIXED / 100);
  process_ask(&bench->operator, "mixed %" PRIu64, ms * SHARE_MIXED / 100);
  take_steps(bench, &figures->mixed);
  take_operations(bench, &figures->mixed_ns, &figures->ops);
  uint64_t begin = bench_now_ns(), cpu = bench_cpu_ns(bench->server.pid);
  bench_wait_until(begin + ms * SHARE_IDLE / 100 * MS_NS);
  uint64_t now = bench_now_ns(), cpu_now = bench_cpu_ns(bench->server.pid);
  figures->idle_ns += now - begin;
  figures->idle_cpu_ns += cpu_now - cpu;
  process_ask(&bench->operator, "plain %" PRIu64, ms * SHARE_PLAIN / 100);
  take_operations(bench, &figures->plain_ns, &figures->plain_ops);
  figures->plain_cpu_ns += bench_cpu_ns(bench->server.pid) - cpu_now;
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
  bench->transactions += UINT64_C(2) * APPLIES;
}

static void take_latencies(struct bench *bench, const char *what, struct latency *op, struct latency *check) {
  char line[LINE_BYTES];
  process_ask(&bench->operator, "%s", what);
  process_answer(&bench->operator, line, sizeof(line));
  if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &op->p50, &op->p99, &op->max,
             &check->p50, &check->p99, &check->max) != 6)
    bench_die("the operator says %s", line);
}

/* ---- the check ---- */

/* All that was answered was done, and nothing else: commits, steps of all leaves, values of all elements. */
static void check(struct bench *bench) {
  char line[LINE_BYTES];
  struct esp_server_info info;
  struct esp_status st;
  uint64_t steps;
  process_ask(&bench->workers[0], "check");
  process_answer(&bench->workers[0], line, sizeof(line));
  esp_client *client = bench_open(bench->address);
  bench_check(esp_server_info(client, &info, &st), "info", &st);
  esp_client_close(client);
  if (sscanf(line, "%" SCNu64, &steps) != 1 || steps != bench->applied)
    bench_die("all leaves together made %s steps, and %" PRIu64 " were answered", line, bench->applied);
  if (bench->applied + bench->frozen != bench->pushes * info.leaves)
    bench_die("%" PRIu64 " leaves stepped and %" PRIu64 " frozen are not those of %" PRIu64 " pushes", bench->applied,
              bench->frozen, bench->pushes);
  if (info.commit != 1 + bench->pushes + bench->transactions || info.frozen != 0)
    bench_die("there are %" PRIu64 " commits and %" PRIu64 " frozen leaves after %" PRIu64 " pushes and %" PRIu64
              " transactions",
              info.commit, info.frozen, bench->pushes, bench->transactions);
}

/* ---- the report ---- */

/* A figure by its name in JSON, and in words. */
struct figure {
  const char *key;
  const char *text;
  const char *unit;
  double value;
};

static double ms_of(uint64_t ns) {
  return (double)ns / 1e6;
}

static double share_of(uint64_t part, uint64_t whole) {
  return whole == 0 ? 0 : (double)part / (double)whole;
}

static void print_json(const struct figure *figures, size_t len, const char *control) {
  printf("{\"benchmark\": \"admin\", \"congestion_control\": \"%s\"", control);
  for (size_t i = 0; i < len; i++)
    printf(", \"%s\": %.6g", figures[i].key, figures[i].value);
  printf("}\n");
}

static void print_text(const struct figure *figures, size_t len, const char *control) {
  printf("congestion control %s\n", control);
  for (size_t i = 0; i < len; i++)
    printf("%-58s %10.3f %s\n", figures[i].text, figures[i].value, figures[i].unit);
}

static void read_control(char *ret, size_t size) {
  FILE *file = fopen("/proc/sys/net/ipv4/tcp_congestion_control", "r");
  if (file == NULL || fgets(ret, (int)size, file) == NULL)
    snprintf(ret, size, "unknown");
  ret[strcspn(ret, "\n")] = '\0';
  if (file != NULL)
    fclose(file);
}

static void report(const struct bench *bench) {
  const struct figures *f = &bench->figures;
  double apply_ms = ms_of(f->free_ns) - ms_of(f->frozen_ns), load = 0;
  double p50 = ms_of(f->op.p50) - ms_of(f->check.p50), p99 = ms_of(f->op.p99) - ms_of(f->check.p99);
  double cpu = (share_of(f->plain_cpu_ns, f->plain_ns) - share_of(f->idle_cpu_ns, f->idle_ns)) * 100;
  double rate = share_of(f->plain_ops, f->plain_ns) * 1e9;
  char control[64];
  read_control(control, sizeof(control));
  (void)getloadavg(&load, 1);
  const struct figure figures[] = {
      {"load", "load of the machine at the end", "", load},
      {"cores", "its cores", "", (double)sysconf(_SC_NPROCESSORS_ONLN)},
      {"op_p50_ms", "a freeze or thaw under load, p50", "ms", ms_of(f->op.p50)},
      {"op_p99_ms", "p99", "ms", ms_of(f->op.p99)},
      {"op_max_ms", "the longest", "ms", ms_of(f->op.max)},
      {"check_p50_ms", "a health check under load, p50", "ms", ms_of(f->check.p50)},
      {"check_p99_ms", "p99", "ms", ms_of(f->check.p99)},
      {"check_max_ms", "the longest", "ms", ms_of(f->check.max)},
      {"ops", "operations under load, and as many health checks", "", (double)f->ops},
      {"ops_s", "operations a second", "", share_of(f->ops, f->mixed_ns) * 1e9},
      {"push_free_ms", "a push without other load, all leaves free", "ms", ms_of(f->free_ns)},
      {"push_frozen_ms", "all leaves frozen", "ms", ms_of(f->frozen_ns)},
      {"apply_ms", "applying a push: the difference", "ms", apply_ms},
      {"p50_above_ms", "p50 above the health check's (criterion: 2 at most)", "ms", p50},
      {"p99_above_ms", "p99 above the health check's", "ms", p99},
      {"p99_allowed_ms", "criterion: applying a push, and 2", "ms", apply_ms + 2},
      {"steps_s_alone", "steps a second of both workers alone", "", f->alone.steps_s},
      {"steps_s_mixed", "with the operator", "", f->mixed.steps_s},
      {"steps_ratio", "the ratio", "", f->mixed.steps_s / f->alone.steps_s},
      {"plain_p50_ms", "a freeze or thaw without load, p50", "ms", ms_of(f->plain.p50)},
      {"plain_p99_ms", "p99", "ms", ms_of(f->plain.p99)},
      {"plain_ops_s", "operations a second without load", "", rate},
      {"cpu_plain_percent", "the server's CPU time then, of one core", "%",
       share_of(f->plain_cpu_ns, f->plain_ns) * 100},
      {"cpu_idle_percent", "without them", "%", share_of(f->idle_cpu_ns, f->idle_ns) * 100},
      {"cpu_percent", "for 100 operations a second (criterion: below 2)", "%", rate > 0 ? cpu * 100 / rate : 0},
      {"pushes", "pushes, each checked", "", (double)bench->pushes},
      {"transactions", "transactions, each checked", "", (double)bench->transactions},
  };
  (bench->options->json ? print_json : print_text)(figures, sizeof(figures) / sizeof(figures[0]), control);
}

int bench_admin(const struct bench_options *options) {
  static struct bench bench;
  struct latency none;
  bench.options = options;
  start_server(&bench);
  for (size_t i = 0; i < WORKERS; i++)
    start_child(&bench, "worker", &bench.workers[i]);
  start_child(&bench, "operator", &bench.operator);
  take_apply_time(&bench);
  uint64_t seconds = options->seconds > SETUP_S ? options->seconds - SETUP_S : 1;
  for (int i = 0; i < ROUNDS; i++)
    round_of(&bench, seconds * 1000 / ROUNDS);
  take_latencies(&bench, "latencies", &bench.figures.op, &bench.figures.check);
  take_latencies(&bench, "plain-latencies", &bench.figures.plain, &none);
  check(&bench);
  for (size_t i = 0; i < WORKERS; i++)
    process_end(&bench.workers[i], 0);
  process_end(&bench.operator, 0);
  process_end(&bench.server, SIGTERM);
  report(&bench);
  return 0;
}
