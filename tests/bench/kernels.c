/* espbench kernels: what the optimizers do to arrays far larger than the caches, beside a triad over arrays as large.
 *
 * There is no server, but its own parts: its kernels, its pool of threads, the shares that its engine cuts a parameter
 * into, its allocator. For each rule x and the states start afresh; a round is a step and a triad with one thread, then
 * both with two. In the end every element of x and of the states has the bits that the same steps give without
 * threads, cuts and wide vectors, or the process ends. */
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/pool.h"
#include "optim/optim.h"
#include "tests/bench/limits.h"

#define ELEMENTS ((size_t)25600000)         /* 102 MB, as many as the parameters of ResNet-50 */
#define SHARE_ELEMENTS ESP_SQUARES_ELEMENTS /* as the engine's */
#define SHARES ((ELEMENTS - 1) / SHARE_ELEMENTS + 1)
#define STATES_MAX 3
#define TRIAD_MS 30
#define THREADS_MAX 2
#define PERIOD ((size_t)35) /* elements, after which gradients and first values come again */

#define FIGURES(rule, words)                                                                                           \
  {                                                                                                                    \
    {rule "_1_thread", words ", 1 thread", "GB/s", MORE_IS_BETTER},                                                    \
        {rule "_2_threads", words ", 2 threads", "GB/s", MORE_IS_BETTER},                                              \
  }
static const struct subject {
  const char *expression;
  struct figure figures[THREADS_MAX];
} subjects[] = {
    {"sgd(lr=0.01)", FIGURES("sgd", "sgd")},
    {"sgd(lr=0.01, weight_decay=1e-4)", FIGURES("sgd_decay", "sgd with weight decay")},
    {"sgd(lr=0.01, momentum=0.9)", FIGURES("momentum", "momentum")},
    {"sgd(lr=0.01, momentum=0.9, nesterov=true)", FIGURES("nesterov", "nesterov")},
    {"adam", FIGURES("adam", "adam")},
    {"adam(weight_decay=1e-4)", FIGURES("adam_decay", "adam with weight decay")},
    {"adam(amsgrad=true)", FIGURES("amsgrad", "adam with amsgrad")},
    {"adamw", FIGURES("adamw", "adamw")},
    {"clip_value(0.015) | sgd(lr=0.01, momentum=0.9)", FIGURES("clip_value_momentum", "clip_value, momentum")},
    {"clip_norm(1) | adamw", FIGURES("clip_norm_adamw", "clip_norm, adamw")},
    {"sgd(lr=1, weight_decay=1e-4) | adam", FIGURES("sgd_adam", "a chain of sgd and adam")},
};
#define SUBJECTS_LEN (sizeof(subjects) / sizeof(subjects[0]))

struct bench {
  enum esp_isa isa;
  struct esp_pool *pools[THREADS_MAX]; /* of 1 and of 2 threads */
  float *gradient;
  float *x;
  float *states[STATES_MAX];
  struct memory memory;   /* the triad's */
  double squares[SHARES]; /* of the gradient */
  const struct esp_optim *optim;
  struct esp_step step; /* the one under way */
};

/* A piece of work on elements first .. first+n. */
typedef void range_work(struct bench *bench, size_t first, size_t n);

/* The whole of it, under way. */
struct task {
  struct esp_job job;
  struct bench *bench;
  range_work *work;
  atomic_uint left; /* shares */
  sem_t done;
};

static void task_share(struct esp_job *job, unsigned share) {
  struct task *task = (struct task *)job;
  size_t first = share * (size_t)SHARE_ELEMENTS, left = ELEMENTS - first;
  task->work(task->bench, first, left < SHARE_ELEMENTS ? left : SHARE_ELEMENTS);
  if (atomic_fetch_sub(&task->left, 1) == 1)
    sem_post(&task->done);
}

/* How long it takes, with so many threads. */
static uint64_t time_of(struct bench *bench, range_work *work, unsigned threads) {
  struct task task = {.job = {.run = task_share, .shares = SHARES}, .bench = bench, .work = work, .left = SHARES};
  sem_init(&task.done, 0, 0);
  uint64_t begin = bench_now_ns();
  esp_pool_submit(bench->pools[threads - 1], &task.job);
  while (sem_wait(&task.done) != 0) /* a signal came */
    continue;
  uint64_t ns = bench_now_ns() - begin;
  sem_destroy(&task.done);
  return ns;
}

/* ---- what is timed ---- */

static void squares(struct bench *bench, size_t first, size_t n) {
  const struct esp_grad grad = {.data = bench->gradient};
  bench->squares[first / SHARE_ELEMENTS] = esp_optim_squares(bench->isa, ESP_DTYPE_F32, first, n, &grad, 1, 1);
}

static void step(struct bench *bench, size_t first, size_t n) {
  const struct esp_grad grad = {.data = bench->gradient};
  void *states[STATES_MAX] = {bench->states[0], bench->states[1], bench->states[2]};
  esp_optim_apply(bench->optim, &bench->step, bench->isa, ESP_DTYPE_F32, first, n, &grad, 1, 1, bench->x, bench->x,
                  states);
}

static bool wants_norm(const struct bench *bench) {
  return esp_optim_norms(bench->optim) != 0;
}

static struct esp_norms norms_of(const struct bench *bench) {
  double sum = 0;
  for (size_t i = 0; i < SHARES; i++)
    sum += bench->squares[i];
  return (struct esp_norms){sum, sum, sum};
}

static uint64_t step_time(struct bench *bench, uint64_t count, unsigned threads) {
  uint64_t ns = wants_norm(bench) ? time_of(bench, squares, threads) : 0;
  struct esp_norms norms = norms_of(bench);
  esp_optim_step_init(bench->optim, count, &norms, &bench->step);
  return ns + time_of(bench, step, threads);
}

/* Of a step: the gradient is read, for a norm once more, x and each state are read and written. */
static double traffic(const struct bench *bench) {
  size_t arrays = (wants_norm(bench) ? 2 : 1) + 2 * (1 + esp_optim_states_len(bench->optim));
  return (double)(arrays * ELEMENTS * sizeof(float));
}

/* ---- values ---- */

static float gradient_at(size_t i) {
  return (float)((int)(i % 5) - 2) * 0.01F;
}

static float first_value(size_t i) {
  return (float)((int)(i % 7) - 3) * 0.01F;
}

static void reset(struct bench *bench) {
  for (size_t i = 0; i < ELEMENTS; i++)
    bench->x[i] = first_value(i);
  for (size_t k = 0; k < STATES_MAX; k++)
    memset(bench->states[k], 0, ELEMENTS * sizeof(float));
}

/* The period that the others repeat, by one call for each step and without wide vectors. */
static void expect(const struct bench *bench, uint64_t steps, float x[PERIOD], float states[STATES_MAX][PERIOD]) {
  float gradient[PERIOD];
  const struct esp_grad grad = {.data = gradient};
  void *const memory[STATES_MAX] = {states[0], states[1], states[2]};
  const struct esp_norms norms = norms_of(bench);
  for (size_t i = 0; i < PERIOD; i++) {
    gradient[i] = gradient_at(i);
    x[i] = first_value(i);
  }
  memset(states, 0, STATES_MAX * sizeof(states[0]));
  for (uint64_t count = 1; count <= steps; count++) {
    struct esp_step at;
    esp_optim_step_init(bench->optim, count, &norms, &at);
    esp_optim_apply(bench->optim, &at, ESP_ISA_SSE2, ESP_DTYPE_F32, 0, PERIOD, &grad, 1, 1, x, x, memory);
  }
}

static uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

static void check_array(const struct subject *subject, const char *what, const float *values, const float *expected) {
  for (size_t i = 0; i < ELEMENTS; i++) {
    if (bits_of(values[i]) != bits_of(expected[i % PERIOD]))
      bench_die("%s: element %zu of %s is %.9g, and not %.9g", subject->expression, i, what, (double)values[i],
                (double)expected[i % PERIOD]);
  }
}

static void check(const struct bench *bench, const struct subject *subject, uint64_t steps) {
  float x[PERIOD], states[STATES_MAX][PERIOD];
  expect(bench, steps, x, states);
  check_array(subject, "x", bench->x, x);
  for (size_t k = 0; k < STATES_MAX; k++)
    check_array(subject, "a state", bench->states[k], states[k]);
  for (size_t i = 0; i < PERIOD; i++) { /* the last bits are the unit tests' affair, but that anything happened */
    if (gradient_at(i) != 0 && (x[i] < first_value(i)) != (gradient_at(i) > 0))
      bench_die("%s: element %zu went to %.9g, up its gradient", subject->expression, i, (double)x[i]);
  }
}

/* ---- the run ---- */

static void measure(struct bench *bench, const struct subject *subject, uint64_t rounds, struct report *report) {
  struct esp_status st;
  struct esp_optim *optim;
  uint64_t steps = 0;
  bench_check(esp_optim_parse(subject->expression, &optim, &st), subject->expression, &st);
  bench->optim = optim;
  reset(bench);
  (void)step_time(bench, ++steps, 1); /* the first one of a parameter may have less to do */
  for (uint64_t round = 0; round < rounds; round++) {
    for (unsigned threads = 1; threads <= THREADS_MAX; threads++) {
      const struct figure *figure = &subject->figures[threads - 1];
      double limit = memory_triad(&bench->memory, threads, TRIAD_MS) / 1e9;
      report_add(report, figure, traffic(bench) / (double)step_time(bench, ++steps, threads));
      report_limit(report, figure, limit);
    }
  }
  check(bench, subject, steps);
  esp_optim_unref(optim);
}

static float *array_new(void) {
  float *array = esp_calloc_aligned(ELEMENTS * sizeof(float));
  if (array == NULL)
    bench_die("no memory for %zu bytes", ELEMENTS * sizeof(float));
  return array;
}

static void bench_init(struct bench *bench, const char *isa) {
  struct esp_status st;
  bench_check(esp_isa_parse(isa, &bench->isa, &st), "--isa", &st);
  for (unsigned i = 0; i < THREADS_MAX; i++)
    bench_check(esp_pool_new(i + 1, "kernels", &bench->pools[i], &st), "a pool", &st);
  bench->gradient = array_new();
  bench->x = array_new();
  for (size_t i = 0; i < STATES_MAX; i++)
    bench->states[i] = array_new();
  for (size_t i = 0; i < ELEMENTS; i++)
    bench->gradient[i] = gradient_at(i);
  memory_init(&bench->memory, ELEMENTS * sizeof(float));
}

static void bench_done(struct bench *bench) {
  for (unsigned i = 0; i < THREADS_MAX; i++)
    esp_pool_free(bench->pools[i]);
  esp_free(bench->gradient);
  esp_free(bench->x);
  for (size_t i = 0; i < STATES_MAX; i++)
    esp_free(bench->states[i]);
}

int bench_kernels(const struct bench_options *options) {
  static const struct figure isa = {"isa", "instruction set", "", MORE_IS_BETTER};
  struct bench bench = {0};
  struct report report = {0};
  report_begin(&report, "kernels");
  bench_init(&bench, options->isa);
  report_word(&report, &isa, esp_isa_name(bench.isa));
  for (size_t i = 0; i < SUBJECTS_LEN; i++)
    measure(&bench, &subjects[i], options->rounds, &report);
  bench_done(&bench);
  report_print(&report, options->json);
  return 0;
}
