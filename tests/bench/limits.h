/* What the machine allows, measured as espbench's own work is. docs/performance.md tells the conventions. */
#ifndef BENCH_LIMITS_H
#define BENCH_LIMITS_H

#include "tests/bench/bench.h"

/* Servers and workers of a team: see team_start_limit. */
#define LIMITS_TCP "tcp-server", "tcp-worker"    /* push, pull, ping */
#define LIMITS_GRPC "grpc-server", "grpc-worker" /* push, pull, unary, unary16 */
int limits_tcp_server(const struct bench_options *options);
int limits_tcp_worker(const struct bench_options *options);
int limits_grpc_server(const struct bench_options *options);
int limits_grpc_worker(const struct bench_options *options);

/* Bytes a second through one connection of iperf3, for a second at least. */
bool iperf3_is_installed(void);
double iperf3_rate(bool from_server, uint64_t ms);

/* ---- memory ---- */

/* Three arrays of `bytes`, far more than any cache. Lives as long as the process. */
struct memory {
  float *a;
  float *b;
  float *c;
  size_t elements; /* of each */
};
void memory_init(struct memory *memory, size_t bytes);
/* a[i] = b[i] + s * c[i], by so many threads: bytes a second, of which each element of each array counts once. */
double memory_triad(struct memory *memory, unsigned threads, uint64_t ms);
/* memcpy from b to a, likewise: what is read and what is written. */
double memory_copy(struct memory *memory, unsigned threads, uint64_t ms);

#endif
