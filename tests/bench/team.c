/* A server and its workers: Espalier's, or those of a limit, which do the same work and understand the same lines. */
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "tests/bench/bench.h"

#define LINE_BYTES 1024

static void hire(struct team *team, const char *command, const char *option, size_t len) {
  for (team->len = 0; team->len < len; team->len++)
    child_start(command, team->address, option, &team->workers[team->len], NULL);
}

void team_start(struct team *team, const struct bench_options *options) {
  server_start(options, options->optimizer, &team->server, team->address);
  team->server_signal = SIGTERM;
  const char *wire = options->wire == 0 ? NULL : options->wire == ESP_BF16 ? "--wire=bf16" : "--wire=f16";
  hire(team, "worker", wire, options->workers);
}

void team_start_crowds(struct team *team, const char *address, size_t crowds, size_t workers) {
  char option[32];
  for (team->len = 0; team->len < crowds; team->len++) {
    size_t before = workers * team->len / crowds, after = workers * (team->len + 1) / crowds;
    snprintf(option, sizeof(option), "--workers=%zu", after - before);
    child_start("crowd", address, option, &team->workers[team->len], NULL);
  }
}

void team_start_limit(struct team *team, const char *server, const char *worker, size_t len) {
  child_start(server, NULL, NULL, &team->server, team->address);
  team->server_signal = 0;
  hire(team, worker, NULL, len);
}

void team_ask(struct team *team, const char *what, uint64_t ms) {
  for (size_t i = 0; i < team->len; i++)
    process_ask(&team->workers[i], "%s %" PRIu64, what, ms);
}

struct pace team_take(struct team *team) {
  char line[LINE_BYTES];
  struct pace pace = {0};
  for (size_t i = 0; i < team->len; i++) {
    uint64_t ns, count, p50, p99;
    process_answer(&team->workers[i], line, sizeof(line));
    if (sscanf(line, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &ns, &count, &p50, &p99) != 4)
      bench_die("a worker says %s", line);
    pace.per_s += (double)count * 1e9 / (double)ns;
    pace.count += count;
    pace.p50_ns = p50 > pace.p50_ns ? p50 : pace.p50_ns;
    pace.p99_ns = p99 > pace.p99_ns ? p99 : pace.p99_ns;
  }
  return pace;
}

struct pace team_run(struct team *team, const char *what, uint64_t ms) {
  team_ask(team, what, ms);
  return team_take(team);
}

void team_leave(struct team *team) {
  for (size_t i = 0; i < team->len; i++)
    process_end(&team->workers[i], 0);
}

void team_end(struct team *team) {
  team_leave(team);
  process_end(&team->server, team->server_signal);
}
