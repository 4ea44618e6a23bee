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
  const char *isa;       /* instructions, as the server's --isa */
  const char *espalierd; /* the program */
  uint64_t rounds;       /* of phases that take turns */
  uint64_t seconds;      /* about how long the whole takes */
  uint64_t workers;
  uint64_t rank;            /* of a worker among the peers' */
  enum esp_leaf_dtype wire; /* in which gradients and weights travel; 0: their own */
  bool limits;              /* measure what the machine allows, in the same rounds */
  bool json;
};
int bench_admin(const struct bench_options *options);
int bench_step(const struct bench_options *options);
int bench_kernels(const struct bench_options *options);
int bench_latency(const struct bench_options *options);
int bench_small(const struct bench_options *options);
int bench_delta(const struct bench_options *options);
int bench_worker(const struct bench_options *options);
int bench_operator(const struct bench_options *options);
int bench_many(const struct bench_options *options);
int bench_crowd(const struct bench_options *options);
int bench_peer(const struct bench_options *options);

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
/* As many threads as a server started here runs kernels with. */
unsigned server_threads(void);
/* Starts this program again with a command of its own, for a server at the address (NULL: it needs none), and with one
 * option more (NULL: none), and returns once it has said "ready". ret_address takes where it listens; NULL: it does
 * not. */
void child_start(const char *command, const char *address, const char *option, struct process *ret,
                 char ret_address[ADDRESS_MAX]);
/* In the child: says so. address: where it listens, or NULL. */
void child_ready(const char *address);

/* ---- teams ---- */

/* A server and its workers, each a process. */
struct team {
  struct process server;
  struct process workers[WORKERS_MAX];
  size_t len;        /* workers */
  int server_signal; /* that ends it; 0: the end of its stdin */
  char address[ADDRESS_MAX];
};
/* What workers did at a time. */
struct pace {
  double per_s;    /* passes, of all workers together, each by its own clock */
  uint64_t count;  /* likewise */
  uint64_t p50_ns; /* of a pass: of the worker with the longest, as is the next */
  uint64_t p99_ns;
};
/* espalierd with options->optimizer, and options->workers workers. */
void team_start(struct team *team, const struct bench_options *options);
/* A limit's, by the names of their commands (limits.h). */
void team_start_limit(struct team *team, const char *server, const char *worker, size_t len);
/* So many processes, with so many workers as threads of theirs altogether, who join the server at the address. */
void team_start_crowds(struct team *team, const char *address, size_t crowds, size_t workers);
/* All workers for so long; each makes one pass at least. Asking and taking the answer are two, where something else is
 * to go on meanwhile. */
struct pace team_run(struct team *team, const char *what, uint64_t ms);
void team_ask(struct team *team, const char *what, uint64_t ms);
struct pace team_take(struct team *team);
void team_end(struct team *team);
/* The same of workers that have joined another team's server: it is not theirs to end. */
void team_leave(struct team *team);

/* In a worker: one pass at least, and others for so long. samples takes their durations. Returns the time of all. */
uint64_t passes_make(void (*make)(void *data), void *data, uint64_t ms, struct samples *samples);
/* Answers with NS PASSES P50 P99. */
void passes_print(uint64_t ns, struct samples *samples);
/* Answers a line "WHAT MS" by both. all (or NULL) takes the durations, too. */
void passes_answer(void (*make)(void *data), void *data, uint64_t ms, struct samples *all);

/* ---- the workload: the trainable tensors of ResNet-50 ---- */

#define LEAVES_MAX 256

struct workload {
  struct esp_leaf_spec specs[LEAVES_MAX];
  esp_leaf_id ids[LEAVES_MAX];
  struct esp_gradient grads[LEAVES_MAX]; /* all the same in each push */
  struct esp_weight weights[LEAVES_MAX]; /* where pulls put them */
  size_t elements[LEAVES_MAX];
  size_t len;
  size_t bytes;             /* of all values */
  enum esp_leaf_dtype wire; /* of gradients and pulls; 0: of the values */
};
/* Reads the list and makes the gradients. weights: with memory for pulls. Lives as long as the process. */
void workload_init(struct workload *load, enum esp_leaf_dtype wire, bool weights);
/* The same list and gradients (which both go on using), and memory of its own for pulls. */
void workload_share(struct workload *load, const struct workload *other);
/* Values begin as the specs say, which the caller may have changed: 0 or ESP_CONSTANT. */
void workload_declare(struct workload *load, esp_client *client);
/* Pulls all values and ends the process unless each element of each leaf is, to the last bit, what as many steps as its
 * leaf has made make of it, with the gradients as they travelled; and pulled as weights are, the nearest to that.
 * Nobody pushes meanwhile. Returns the steps of all leaves together. */
uint64_t workload_check(struct workload *load, esp_client *client, const char *optimizer);
/* The same of what the last pull has left in weights, where each leaf has made so many steps. */
void workload_check_pulled(const struct workload *load, const char *optimizer, uint64_t steps);
/* Of all gradients, and of the largest: for who needs no more than that. */
size_t workload_bytes(void);
size_t workload_bytes_largest(void);

/* ---- what a worker does ---- */

struct worker {
  struct workload load;
  esp_client *client;
  uint64_t applied; /* leaves, of all its pushes */
  uint64_t frozen;  /* likewise */
  struct samples steps;
};
/* One step, push or pull of all leaves. data: a struct worker. */
void worker_step(void *data);
void worker_push(void *data);
void worker_pull(void *data);

/* ---- bfloat16 and float16 ---- */

uint16_t half_round(enum esp_leaf_dtype dtype, float value); /* to nearest, ties to even */
float half_value(enum esp_leaf_dtype dtype, uint16_t half);

/* ---- what an optimizer does ---- */

/* One rule of docs/optimizers.md, read from there and not from the server's source. */
struct rule {
  enum { RULE_SGD, RULE_ADAM, RULE_ADAMW } kind;
  double lr;
  double momentum; /* of sgd */
  double beta1;    /* of adam and adamw, as is all that follows */
  double beta2;
  double eps;
  double weight_decay;
  size_t states; /* arrays, each as large as the value */
};
/* Ends the process where an expression is not one of those that can be replayed: sgd(lr, momentum), adam(lr, beta1,
 * beta2, eps) and adamw(the same, weight_decay). */
void rule_parse(const char *expression, struct rule *ret);
/* What becomes of a value by so many steps with the same gradient. */
float rule_replay(const struct rule *rule, float value, float gradient, uint64_t steps);
/* Traffic of a step: one read of the gradient, one read and one write of the value and of each state. */
double rule_traffic(const struct rule *rule, double gradient_bytes, double value_bytes);

esp_client *bench_open(const char *server);

#endif
