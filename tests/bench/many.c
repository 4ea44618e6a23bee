/* espbench many: what becomes of the throughput where many workers push and pull at a time, each over a connection of
 * its own.
 *
 * The happy path: a server; a team of two workers, and one of two crowds (crowd.c) with all the others; rounds in which
 * they take turns; in the end all values and counts are checked. A call that fails anywhere ends everything. */
#include <inttypes.h>
#include <string.h>

#include "tests/bench/bench.h"

#define FEW 2           /* workers that the many are held against */
#define CROWDS 2        /* processes */
#define SHARE_FEW 25    /* of a round's time, in percent: a step of each of the many takes far longer */
#define SETUP_S 5       /* about how long everything else takes */
#define RATIO_LEAST 0.8 /* what is asked for */
#define LINE_BYTES 1024

struct bench {
  const struct bench_options *options;
  struct team few;
  struct team many;
  uint64_t pushes; /* of all */
  struct report report;
};

enum { OPTIMIZER, WORKERS, FEW_STEPS, MANY_STEPS, RATIO, MANY_P50, MANY_P99, PUSHES };

static const struct figure figures[] = {
    [OPTIMIZER] = {"optimizer", "optimizer", "", MORE_IS_BETTER},
    [WORKERS] = {"workers", "workers", "", MORE_IS_BETTER},
    [FEW_STEPS] = {"few_steps_s", "steps a second, of two workers together", "1/s", MORE_IS_BETTER},
    [MANY_STEPS] = {"many_steps_s", "of all the many together", "1/s", MORE_IS_BETTER},
    [RATIO] = {"steps_ratio", "the ratio", "", MORE_IS_BETTER},
    [MANY_P50] = {"many_step_p50_ms", "a step of one of the many, p50", "ms", LESS_IS_BETTER},
    [MANY_P99] = {"many_step_p99_ms", "p99", "ms", LESS_IS_BETTER},
    [PUSHES] = {"pushes", "pushes, each checked", "", MORE_IS_BETTER},
};

static void round_of(struct bench *bench, uint64_t ms) {
  struct report *report = &bench->report;
  struct pace few = team_run(&bench->few, "step", ms * SHARE_FEW / 100);
  struct pace many = team_run(&bench->many, "step", ms * (100 - SHARE_FEW) / 100);
  bench->pushes += few.count + many.count;
  report_add(report, &figures[FEW_STEPS], few.per_s);
  report_add(report, &figures[MANY_STEPS], many.per_s);
  report_add(report, &figures[RATIO], many.per_s / few.per_s);
  report_limit(report, &figures[RATIO], RATIO_LEAST);
  report_add(report, &figures[MANY_P50], (double)many.p50_ns / 1e6);
  report_add(report, &figures[MANY_P99], (double)many.p99_ns / 1e6);
}

/* ---- the check ---- */

static void check_values(struct bench *bench, struct team *team, uint64_t steps_expected) {
  char line[LINE_BYTES];
  for (size_t i = 0; i < team->len; i++) {
    uint64_t steps;
    process_ask(&team->workers[i], "check %s", bench->options->optimizer);
    process_answer(&team->workers[i], line, sizeof(line));
    if (sscanf(line, "%" SCNu64, &steps) != 1 || steps != steps_expected)
      bench_die("all leaves together made %s steps by %" PRIu64 " pushes", line, bench->pushes);
  }
}

/* All are there, each with a session and a connection of its own; all pushes were made, and no others. */
static void check(struct bench *bench) {
  struct esp_server_info info;
  struct esp_status st;
  const uint64_t workers = FEW + bench->options->workers;
  esp_client *client = bench_open(bench->few.address);
  bench_check(esp_server_info(client, &info, &st), "info", &st);
  esp_client_close(client);
  if (info.sessions != workers || info.connections != workers + 1)
    bench_die("%" PRIu64 " workers have %" PRIu64 " sessions and, with this one, %" PRIu64 " connections", workers,
              info.sessions, info.connections);
  if (info.commit != 1 + bench->pushes || info.pushes_refused != 0)
    bench_die("there are %" PRIu64 " commits after %" PRIu64 " pushes, and %" PRIu64 " were refused", info.commit,
              bench->pushes, info.pushes_refused);
  check_values(bench, &bench->few, bench->pushes * info.leaves);
  check_values(bench, &bench->many, bench->pushes * info.leaves);
}

static void start(struct bench *bench, const struct bench_options *options) {
  struct bench_options few = *options;
  if (options->workers < CROWDS)
    bench_die("--workers must be %d or more, for %d processes", CROWDS, CROWDS);
  few.workers = FEW;
  bench->options = options;
  report_begin(&bench->report, "many");
  report_word(&bench->report, &figures[OPTIMIZER], options->optimizer);
  report_add(&bench->report, &figures[WORKERS], (double)options->workers);
  team_start(&bench->few, &few);
  team_start_crowds(&bench->many, bench->few.address, CROWDS, options->workers);
}

int bench_many(const struct bench_options *options) {
  static struct bench bench; /* large */
  start(&bench, options);
  uint64_t seconds = options->seconds > SETUP_S ? options->seconds - SETUP_S : 1;
  bench.pushes += team_run(&bench.few, "step", 0).count; /* makes the state, and is not measured */
  for (uint64_t i = 0; i < options->rounds; i++)
    round_of(&bench, seconds * 1000 / options->rounds);
  check(&bench);
  report_add(&bench.report, &figures[PUSHES], (double)bench.pushes);
  team_leave(&bench.many);
  team_end(&bench.few);
  report_print(&bench.report, options->json);
  return 0;
}
