/* What the parts of espbench share. The parent starts a server and other processes of espbench, which do what lines on
 * their stdin ask, and answer with a line on stdout. What fails says so on stderr and ends its process, and so all. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <espalier/admin.h>

#include <stdio.h>
#include <sys/types.h>

/* ---- the commands of espbench ---- */

#define WORKERS_MAX 64
#define ADDRESS_MAX 256

/* What a command does not use is 0. */
struct bench_options {
  const char *server;    /* of a child: the address */
  const char *optimizer; /* an expression */
  const char *espalierd; /* the program */
  uint64_t rounds;       /* of phases that take turns */
  uint64_t seconds;      /* about how long the whole takes */
  uint64_t workers;
  bool limits; /* measure what the machine allows, in the same rounds */
  bool json;
};
int bench_admin(const struct bench_options *options);
int bench_worker(const struct bench_options *options);
int bench_operator(const struct bench_options *options);

/* One line on stderr, and the end of the process. */
_Noreturn void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Where code is not ESP_OK. */
void bench_check(enum esp_code code, const char *what, const struct esp_status *st);

/* ---- time ---- */

#define MS_NS UINT64_C(1000000)
#define SECOND_NS UINT64_C(1000000000)

uint64_t bench_now_ns(void);
void bench_wait_until(uint64_t at_ns);
/* User and system time of all threads of a process since its start. */
uint64_t bench_cpu_ns(pid_t pid);

/* ---- samples ---- */

/* Durations. Zeroed: none. */
struct samples {
  uint64_t *ns; /* owned */
  size_t len;
  size_t capacity;
};
void samples_add(struct samples *samples, uint64_t ns);
void samples_add_all(struct samples *samples, const struct samples *others);
/* The nearest rank: the least that at least so many percent are not above. 0 of none. Sorts. */
uint64_t samples_percentile(struct samples *samples, double percent);
void samples_done(struct samples *samples);

/* ---- the report ---- */

enum better { MORE_IS_BETTER, LESS_IS_BETTER };

/* What is measured. Lives as long as the report. */
struct figure {
  const char *name; /* in JSON */
  const char *text; /* for people: at most 50 characters */
  const char *unit; /* "": none */
  enum better better;
};

/* What a run found, in the order in which it was first told. Zeroed: nothing. */
struct report {
  struct result *results; /* owned */
  size_t len;
  size_t capacity;
};
/* Begins with the benchmark's name and what figures depend on: congestion control, cores, load before the run. */
void report_begin(struct report *report, const char *benchmark);
/* A word instead of a number, copied. */
void report_word(struct report *report, const struct figure *figure, const char *word);
/* The figure of one more round; or the only one, of all rounds together. */
void report_add(struct report *report, const struct figure *figure, double value);
/* What the figure is held against, likewise. The figure must have been added. */
void report_limit(struct report *report, const struct figure *figure, double limit);
/* Medians of the rounds, as a table or (json) an object a line; frees the report. docs/performance.md tells the keys.
 */
void report_print(struct report *report, bool json);

/* ---- processes ---- */

/* A child: this program again, or a server. */
struct process {
  pid_t pid;
  FILE *to;   /* its stdin */
  FILE *from; /* its stdout */
};
/* argv ends with NULL, and argv[0] is the program's path. */
void process_start(struct process *process, const char *const *argv);
void process_ask(struct process *process, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Its next line, without the end. */
void process_answer(struct process *process, char *line, size_t size);
/* Closes its stdin, or sends the signal where it is not 0, and waits; it must end with 0. */
void process_end(struct process *process, int signal_number);
/* SIGKILL to those that have not ended. */
void process_kill_all(void);

/* Starts the server with the options that all benchmarks have. ret_address takes where it listens. */
void server_start(const struct bench_options *options, const char *optimizer, struct process *ret,
                  char ret_address[ADDRESS_MAX]);
/* Starts this program again with a command of its own, for a server at the address (NULL: it needs none), and returns
 * once it has said "ready". */
void child_start(const char *command, const char *address, struct process *ret);

/* ---- the workload: the trainable tensors of ResNet-50 ---- */

#define LEAVES_MAX 256
#define LEARNING_RATE 0.001

struct workload {
  struct esp_leaf_spec specs[LEAVES_MAX];
  esp_leaf_id ids[LEAVES_MAX];
  struct esp_gradient grads[LEAVES_MAX]; /* all the same in each push */
  struct esp_weight weights[LEAVES_MAX]; /* where pulls put them */
  size_t elements[LEAVES_MAX];
  size_t len;
  size_t bytes; /* of all */
};
/* Reads the list and makes the gradients. weights: with memory for pulls. Lives as long as the process. */
void workload_init(struct workload *load, bool weights);
void workload_declare(struct workload *load, esp_client *client);
/* Ends the process unless each element of each leaf is what so many steps of adam make of it. `steps` has the leaves'
 * counts in path order. */
void workload_check(struct workload *load, const struct esp_description *description);

esp_client *bench_open(const char *server);

#endif
