/* linear: 8 workers push and 2 operators freeze, tie and regroup, against one server; every answer goes into a log.
 *
 *   linear --server ADDRESS --log FILE [--operations N] [--rate N] [--seed N]
 *
 * The happy path: the tree is declared, the first lines of the log tell of it; the threads run until the operators have
 * made their transactions; the last lines tell the values that there are then. check.py reads it. Beside the lines of
 * worker.c and operator.c:
 *
 *   begin EPOCH COMMIT, and then a line for each leaf:    leaf PATH DTYPE ROWS COLS PARAMETER
 *   end EPOCH COMMIT, and then a line for each leaf:      value PATH PARAMETER TRANSPOSED [NUMBER]...
 *
 * Exit code 0: everything was answered; 1: something failed, and a line on stderr says what; 2: a bad command line. */
#include "tests/integration/linear/linear.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { EXIT_USAGE = 2 };

/* Two matrices of each shape that can be tied, also transposed; vectors; two tensors for which a push is not applied by
 * the thread that received it (worker.c's BIG); one that several threads step (WIDE). */
static const char *const leaves[] = {"enc.w:f32:6x8",     "enc.b:f64:8",        "mid.w:f32:8x6",     "mid.b:f64:8",
                                     "dec.w:f32:6x8",     "dec.b:f64:8",        "head.w:f32:8x6",    "head.b:f64:8",
                                     "big.in:f32:96x100", "big.out:f32:100x96", "wide.w:f32:250x300"};
#define LEAVES_LEN (sizeof(leaves) / sizeof(leaves[0]))

uint64_t linear_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

void linear_fail(struct linear *run, const char *what, const struct esp_status *st) {
  fprintf(stderr, "linear: %s: %s: %s\n", what, esp_code_name(st->code), st->message);
  atomic_store(&run->failed, true);
  atomic_store(&run->stop, true);
}

bool linear_open(struct linear *run, esp_client **ret) {
  struct esp_client_options options = ESP_CLIENT_OPTIONS_INIT;
  struct esp_status st;
  options.target = run->options.server;
  options.deadline_ms = 120000;
  if (esp_client_open(&options, ret, &st) == ESP_OK)
    return true;
  linear_fail(run, "open", &st);
  return false;
}

/* ---- the ends of the log ---- */

static void log_values(FILE *log, const struct esp_leaf_spec *spec, const void *data, size_t elements) {
  for (size_t i = 0; i < elements; i++)
    fprintf(log, "\t%.17g", spec->dtype == ESP_F32 ? (double)((const float *)data)[i] : ((const double *)data)[i]);
}

/* The last words of each line, as a pull of everything has them. */
static enum esp_code log_leaves(struct linear *run, esp_client *client, bool is_end, struct esp_status *st) {
  esp_leaf_id ids[LOAD_LEAVES_MAX];
  struct esp_weight weights[LOAD_LEAVES_MAX];
  struct esp_have have[LOAD_LEAVES_MAX] = {0};
  struct esp_pull_options options = {.consistent = true, .have = have};
  struct esp_pull_result pulled;
  struct load_gradients values;
  const struct load_tree *tree = &run->tree;
  if (!load_gradients_init(&values, tree))
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for values");
  enum esp_code code = load_tree_declare(tree, client, ids, st);
  for (size_t i = 0; i < tree->len; i++)
    weights[i] = (struct esp_weight){.leaf = ids[i], .data = values.data[i], .bytes = tree->bytes[i]};
  if (code == ESP_OK)
    code = esp_pull_with(client, weights, tree->len, &options, &pulled, st);
  if (code == ESP_OK)
    fprintf(run->log, "%s\t%" PRIu64 "\t%" PRIu64 "\n", is_end ? "end" : "begin", pulled.epoch, pulled.commit);
  for (size_t i = 0; i < tree->len && code == ESP_OK; i++) {
    const struct esp_leaf_spec *spec = &tree->specs[i];
    if (is_end) {
      fprintf(run->log, "value\t%s\t%" PRIu64 "\t%d", spec->path, have[i].parameter, have[i].view == 1);
      log_values(run->log, spec, values.data[i], tree->elements[i]);
      fputc('\n', run->log);
    } else {
      fprintf(run->log, "leaf\t%s\t%s\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\n", spec->path,
              spec->dtype == ESP_F32 ? "f32" : "f64", spec->rank == 2 ? spec->shape[0] : 1, spec->shape[spec->rank - 1],
              have[i].parameter);
    }
  }
  load_gradients_done(&values);
  return code;
}

static bool log_end_of(struct linear *run, bool is_end) {
  esp_client *client = NULL;
  struct esp_status st;
  if (!linear_open(run, &client))
    return false;
  bool good = log_leaves(run, client, is_end, &st) == ESP_OK;
  if (!good)
    linear_fail(run, is_end ? "the end" : "the beginning", &st);
  esp_client_close(client);
  return good;
}

bool linear_log_begin(struct linear *run) {
  return log_end_of(run, false);
}

bool linear_log_end(struct linear *run) {
  return log_end_of(run, true);
}

/* ---- the run ---- */

static void start(void *(*body)(void *), void *data, pthread_t *ret) {
  if (pthread_create(ret, NULL, body, data) != 0) {
    fprintf(stderr, "linear: no thread\n");
    exit(EXIT_FAILURE);
  }
}

static void run_threads(struct linear *run) {
  struct linear_worker workers[LINEAR_WORKERS];
  struct linear_operator operators[LINEAR_OPERATORS];
  for (size_t i = 0; i < LINEAR_WORKERS; i++) {
    workers[i] = (struct linear_worker){.run = run, .number = i + 1};
    start(linear_work, &workers[i], &workers[i].thread);
  }
  for (size_t i = 0; i < LINEAR_OPERATORS; i++) {
    operators[i] = (struct linear_operator){.run = run, .number = i};
    start(linear_operate, &operators[i], &operators[i].thread);
  }
  for (size_t i = 0; i < LINEAR_OPERATORS; i++)
    pthread_join(operators[i].thread, NULL);
  atomic_store(&run->stop, true);
  for (size_t i = 0; i < LINEAR_WORKERS; i++)
    pthread_join(workers[i].thread, NULL);
}

static void usage(const char *what) {
  fprintf(stderr, "linear: %s; the comment in linear.c says how it is used\n", what);
  exit(EXIT_USAGE);
}

static uint64_t number(const char *text) {
  char *end;
  unsigned long long value = strtoull(text, &end, 10);
  if (*text < '0' || *text > '9' || *end != '\0')
    usage("an option takes a number");
  return value;
}

static void read_options(int argc, char **argv, struct linear_options *ret, const char **ret_log) {
  static const struct option table[] = {
      {"server", required_argument, NULL, 's'},     {"log", required_argument, NULL, 'l'},
      {"operations", required_argument, NULL, 'o'}, {"rate", required_argument, NULL, 'r'},
      {"seed", required_argument, NULL, 'x'},       {0}};
  int which;
  while ((which = getopt_long(argc, argv, "", table, NULL)) != -1) {
    if (which == 's')
      ret->server = optarg;
    else if (which == 'l')
      *ret_log = optarg;
    else if (which == 'o')
      ret->operations = number(optarg);
    else if (which == 'r')
      ret->rate = number(optarg);
    else if (which == 'x')
      ret->seed = number(optarg);
    else
      usage("no such option");
  }
  if (optind < argc || *ret_log == NULL || ret->rate == 0)
    usage("it takes --log, options, and a rate above 0");
}

static bool tree_init(struct load_tree *tree) {
  static char texts[LEAVES_LEN][64]; /* the tree keeps the text */
  bool good = true;
  for (size_t i = 0; i < LEAVES_LEN; i++) {
    snprintf(texts[i], sizeof(texts[i]), "%s", leaves[i]);
    good = good && load_tree_add(tree, texts[i]);
  }
  return good;
}

int main(int argc, char **argv) {
  static struct linear run = {.options = {.operations = 600, .rate = 100, .seed = 1}};
  const char *path = NULL;
  read_options(argc, argv, &run.options, &path);
  run.log = fopen(path, "w");
  if (run.log == NULL || !tree_init(&run.tree)) {
    perror("linear: the log");
    return EXIT_FAILURE;
  }
  bool good = linear_log_begin(&run);
  if (good)
    run_threads(&run);
  good = good && !atomic_load(&run.failed) && linear_log_end(&run);
  bool written = ferror(run.log) == 0;
  written = fclose(run.log) == 0 && written;
  if (!written)
    fprintf(stderr, "linear: the log could not be written\n");
  return good && written ? EXIT_SUCCESS : EXIT_FAILURE;
}
