/* espbench delta: what a pull costs of which 0, 50, 90 and 100 % of the bytes are frozen.
 *
 * The workload and adam. In a round each share is frozen in turn, all gradients are pushed, so that what is free has
 * changed, and everything is pulled into memory that holds the values of the pull before. How many bytes came is told
 * by the kernel, of the connection, with everything that gRPC and TCP's user adds. In the end every element has the
 * value that its leaf's steps give, and what the pulls left in memory is the same. */
#include <dirent.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/alloc.h"
#include "tests/bench/bench.h"

#define FROZEN_BYTES_ALLOWED 10000 /* of a pull of what is all frozen */
#define SOCKETS_MAX 16
#define OPTIMIZER "adam(lr=0.001)"

static const struct share {
  unsigned percent; /* frozen */
  struct figure time;
  struct figure bytes;
} shares[] = {
    {0, {"ms_0", "pull, nothing frozen", "ms", LESS_IS_BETTER}, {"bytes_0", "received", "B", LESS_IS_BETTER}},
    {50, {"ms_50", "50 % of the bytes frozen", "ms", LESS_IS_BETTER}, {"bytes_50", "received", "B", LESS_IS_BETTER}},
    {90, {"ms_90", "90 %", "ms", LESS_IS_BETTER}, {"bytes_90", "received", "B", LESS_IS_BETTER}},
    {100, {"ms_100", "all", "ms", LESS_IS_BETTER}, {"bytes_100", "received", "B", LESS_IS_BETTER}},
};
#define SHARES_LEN (sizeof(shares) / sizeof(shares[0]))

struct bench {
  esp_client *client;
  struct workload load;
  struct esp_weight weights[LEAVES_MAX]; /* of the delta pulls */
  struct esp_have have[LEAVES_MAX];      /* what those have */
  bool frozen[LEAVES_MAX];
};

/* ---- bytes ---- */

/* Connections that were counted: gRPC has several descriptors of one. */
struct sockets {
  ino_t inodes[SOCKETS_MAX];
  size_t len;
};

static bool is_new(struct sockets *sockets, ino_t inode) {
  for (size_t i = 0; i < sockets->len; i++) {
    if (sockets->inodes[i] == inode)
      return false;
  }
  if (sockets->len == SOCKETS_MAX)
    bench_die("this process has more than %d connections", SOCKETS_MAX);
  sockets->inodes[sockets->len++] = inode;
  return true;
}

/* 0 of what is no TCP connection, or one that was counted. */
static uint64_t received_by(int fd, struct sockets *sockets) {
  struct tcp_info info = {0};
  struct stat about;
  socklen_t len = sizeof(info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 || fstat(fd, &about) != 0 ||
      !is_new(sockets, about.st_ino))
    return 0;
  if (len < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(info.tcpi_bytes_received))
    bench_die("this kernel does not count what a connection received");
  return info.tcpi_bytes_received;
}

/* By all connections of this process: the client's is the only one that anything comes by. */
static uint64_t received(void) {
  DIR *directory = opendir("/proc/self/fd");
  struct sockets sockets = {.len = 0};
  const struct dirent *entry;
  uint64_t sum = 0;
  if (directory == NULL)
    bench_die("/proc/self/fd can't be read");
  while ((entry = readdir(directory)) != NULL) {
    if (entry->d_name[0] != '.')
      sum += received_by((int)strtol(entry->d_name, NULL, 10), &sockets);
  }
  closedir(directory);
  if (sum == 0)
    bench_die("this process has no connection that received anything");
  return sum;
}

/* ---- a round ---- */

/* The library sends no gradient of a leaf that it knows as frozen, and hears with the answer to any push what is. */
static void hear(const struct bench *bench) {
  struct esp_status st;
  bench_check(esp_push(bench->client, NULL, 0, NULL, &st), "push of nothing", &st);
}

/* Freezes leaves from the first on, as many as do not exceed the share; returns the bytes of the others. */
static size_t freeze(struct bench *bench, unsigned percent) {
  const struct workload *load = &bench->load;
  struct esp_op ops[LEAVES_MAX];
  struct esp_status st;
  size_t len = 0, bytes = 0, allowed = load->bytes / 100 * percent;
  if (percent == 100)
    allowed = load->bytes;
  for (size_t i = 0; i < load->len; i++) {
    bench->frozen[i] = bytes + load->weights[i].bytes <= allowed;
    if (!bench->frozen[i])
      continue;
    bytes += load->weights[i].bytes;
    ops[len++] = (struct esp_op){.kind = ESP_OP_FREEZE, .selection = load->specs[i].path};
  }
  if (len > 0)
    bench_check(esp_apply(bench->client, ops, len, NULL, NULL, &st), "freeze", &st);
  hear(bench);
  return load->bytes - bytes;
}

static void thaw(struct bench *bench) {
  const struct esp_op op = {.kind = ESP_OP_THAW, .selection = "**"};
  struct esp_status st;
  bench_check(esp_apply(bench->client, &op, 1, NULL, NULL, &st), "thaw", &st);
  hear(bench);
}

static void push(struct bench *bench, size_t frozen) {
  struct esp_push_result result;
  struct esp_status st;
  bench_check(esp_push(bench->client, bench->load.grads, bench->load.len, &result, &st), "push", &st);
  if (result.frozen != frozen || result.applied != bench->load.len - frozen)
    bench_die("%zu leaves are frozen, and a push met %zu", frozen, (size_t)result.frozen);
}

static void pull(struct bench *bench, size_t frozen) {
  const struct esp_pull_options options = {.have = bench->have};
  struct esp_pull_result result;
  struct esp_status st;
  bench_check(esp_pull_with(bench->client, bench->weights, bench->load.len, &options, &result, &st), "pull", &st);
  if (result.sent + result.unchanged != bench->load.len || result.unchanged != frozen)
    bench_die("%zu leaves are frozen, and a pull left %zu", frozen, (size_t)result.unchanged);
}

static size_t frozen_of(const struct bench *bench) {
  size_t frozen = 0;
  for (size_t i = 0; i < bench->load.len; i++)
    frozen += bench->frozen[i];
  return frozen;
}

static void round_of(struct bench *bench, struct report *report) {
  double all_ms = 0;
  for (size_t i = 0; i < SHARES_LEN; i++) {
    const struct share *share = &shares[i];
    size_t free_bytes = freeze(bench, share->percent), frozen = frozen_of(bench);
    push(bench, frozen);
    uint64_t before = received(), begin = bench_now_ns();
    pull(bench, frozen);
    double ms = (double)(bench_now_ns() - begin) / 1e6;
    uint64_t bytes = received() - before;
    thaw(bench);
    if (free_bytes == 0 && bytes >= FROZEN_BYTES_ALLOWED)
      bench_die("a pull received %zu bytes, and all is frozen", (size_t)bytes);
    if (i == 0)
      all_ms = ms;
    report_add(report, &share->time, ms);
    report_limit(report, &share->time, all_ms * (double)free_bytes / (double)bench->load.bytes);
    report_add(report, &share->bytes, (double)bytes);
    report_limit(report, &share->bytes, free_bytes == 0 ? FROZEN_BYTES_ALLOWED : (double)free_bytes);
  }
}

/* ---- the run ---- */

/* Memory of their own: the check of the workload pulls to its. */
static void make_weights(struct bench *bench) {
  for (size_t i = 0; i < bench->load.len; i++) {
    bench->weights[i] = bench->load.weights[i];
    bench->weights[i].data = esp_calloc(1, bench->weights[i].bytes);
    if (bench->weights[i].data == NULL)
      bench_die("no memory for %zu bytes", bench->weights[i].bytes);
  }
}

static void check(struct bench *bench) {
  (void)workload_check(&bench->load, bench->client, OPTIMIZER);
  for (size_t i = 0; i < bench->load.len; i++) {
    if (memcmp(bench->weights[i].data, bench->load.weights[i].data, bench->weights[i].bytes) != 0)
      bench_die("leaf %s: delta pulls left other values than a whole one", bench->load.specs[i].path);
  }
}

int bench_delta(const struct bench_options *options) {
  static struct bench bench;
  struct report report = {0};
  struct process server;
  char address[ADDRESS_MAX];
  report_begin(&report, "delta");
  server_start(options, OPTIMIZER, &server, address);
  bench.client = bench_open(address);
  workload_init(&bench.load, 0, true);
  workload_declare(&bench.load, bench.client);
  make_weights(&bench);
  pull(&bench, 0); /* the first values */
  for (uint64_t i = 0; i < options->rounds; i++)
    round_of(&bench, &report);
  push(&bench, 0);
  pull(&bench, 0);
  check(&bench);
  esp_client_close(bench.client);
  process_end(&server, SIGTERM);
  report_print(&report, options->json);
  return 0;
}
