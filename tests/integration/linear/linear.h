/* linear: pushes and surgery at the same time, and what was answered, for check.py to hold against one order. */
#ifndef LINEAR_LINEAR_H
#define LINEAR_LINEAR_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "tests/integration/load/tree.h"

#define LINEAR_WORKERS 8
#define LINEAR_OPERATORS 2
#define LINEAR_OPS_MAX 3 /* in one transaction */

struct linear_options {
  const char *server;
  uint64_t operations; /* transactions, of all operators */
  uint64_t rate;       /* a second, of all operators */
  uint64_t seed;
};

/* What the threads share. */
struct linear {
  struct linear_options options;
  struct load_tree tree;
  FILE *log;          /* a line of it is written under its own lock */
  atomic_bool stop;   /* the operators are done, or something failed */
  atomic_bool failed; /* and a line on stderr says what */
};

struct linear_worker {
  struct linear *run;
  uint64_t number; /* from 1 */
  pthread_t thread;
};

struct linear_operator {
  struct linear *run;
  uint64_t number; /* from 0 */
  pthread_t thread;
};

/* CLOCK_MONOTONIC, which all threads of a machine share. */
uint64_t linear_now_ns(void);
void linear_fail(struct linear *run, const char *what, const struct esp_status *st);
bool linear_open(struct linear *run, esp_client **ret);

/* Threads: data is the struct of that name. The operators end by themselves, and the workers after them. */
void *linear_work(void *data);
void *linear_operate(void *data);

/* What was declared, and what all has become: the first and the last lines of the log. */
bool linear_log_begin(struct linear *run);
bool linear_log_end(struct linear *run);

#endif
