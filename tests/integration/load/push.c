/* The load itself: workers, each a thread, and the operator beside them.
 *
 * The happy path: each worker opens a client (or uses the one that all share), declares the tree, and pushes; the
 * operator freezes and thaws one selection as often as it was told. Each answer is checked against what the push named,
 * and written to the log. The first failure of anything is written to stderr and stops everything. */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "tests/integration/load/load.h"

static atomic_bool stop; /* set once: end after what is under way */

/* What the threads share. */
struct run {
  const struct load_options *options;
  FILE *log;
  esp_client *client; /* of all workers; NULL: each has one of its own */
  atomic_bool failed;
};

struct worker {
  struct run *run;
  uint64_t seed;
  esp_client *client;               /* its own, or the run's */
  esp_leaf_id ids[LOAD_LEAVES_MAX]; /* as declared */
  struct load_gradients grads;
  pthread_t thread;
};

void load_push_stop(void) {
  atomic_store(&stop, true);
}

static void fail(struct run *run, const char *what, const struct esp_status *st) {
  fprintf(stderr, "pusher: %s: %s: %s\n", what, esp_code_name(st->code), st->message);
  atomic_store(&run->failed, true);
  load_push_stop();
}

static void on_lineage(void *data, uint64_t lineage_old, uint64_t lineage_new) {
  struct run *run = data;
  load_log_lineage(run->log, lineage_old, lineage_new);
}

static bool open_client(struct run *run, esp_client **ret) {
  struct esp_client_options options = ESP_CLIENT_OPTIONS_INIT;
  options.target = run->options->server;
  options.deadline_ms = run->options->deadline_ms;
  options.on_lineage = on_lineage;
  options.on_lineage_data = run;
  struct esp_status st;
  if (esp_client_open(&options, ret, &st) == ESP_OK)
    return true;
  fail(run, "open", &st);
  return false;
}

/* ---- workers ---- */

static bool declare(struct worker *worker) {
  struct esp_status st;
  if (load_tree_declare(&worker->run->options->tree, worker->client, worker->ids, &st) == ESP_OK)
    return true;
  fail(worker->run, "declare", &st);
  return false;
}

/* The leaves of a set that the client knows to be frozen. With a client of one's own nobody changes that before the
 * push reads it. */
static uint64_t frozen_of(const struct worker *worker, uint64_t set) {
  uint64_t frozen = 0;
  for (size_t i = 0; i < worker->run->options->tree.len; i++)
    if ((set >> i & 1) != 0 && esp_leaf_is_frozen(worker->client, worker->ids[i]))
      frozen |= UINT64_C(1) << i;
  return frozen;
}

/* Every leaf of the tree is accounted for. */
static bool check(struct run *run, uint64_t named, const struct esp_push_result *result) {
  size_t named_len = (size_t)__builtin_popcountll(named);
  struct esp_status st;
  if (result->applied + result->frozen == named_len && result->absent == run->options->tree.len - named_len &&
      result->commit > 0 && result->detached == 0 && result->removed == 0 && !result->skipped)
    return true;
  (void)!esp_fail(&st, ESP_INTERNAL,
                  "of %zu leaves named: applied %" PRIu64 ", frozen %" PRIu64 ", detached %" PRIu64 ", absent %" PRIu64
                  ", removed %" PRIu64 ", commit %" PRIu64,
                  named_len, result->applied, result->frozen, result->detached, result->absent, result->removed,
                  result->commit);
  fail(run, "a push's answer", &st);
  return false;
}

/* One push, sent again under the same number where the server has a new lineage and that is no failure. */
static bool push(struct worker *worker, uint64_t number) {
  struct run *run = worker->run;
  const struct load_options *options = run->options;
  struct esp_gradient list[LOAD_LEAVES_MAX];
  struct esp_push_result result;
  struct esp_status st;
  uint64_t named = load_named(&options->tree, &options->recipe, worker->seed, number);
  for (;;) {
    size_t len =
        load_fill(&worker->grads, &options->tree, &options->recipe, worker->seed, number, named, worker->ids, list);
    uint64_t sent = named & ~frozen_of(worker, named);
    enum esp_code code = esp_push(worker->client, list, len, &result, &st);
    if (code == ESP_OK) {
      load_log_push(run->log, worker->seed, number, named, sent, &result);
      return check(run, named, &result);
    }
    load_log_failed(run->log, worker->seed, number, code);
    if (code != ESP_ABORTED || !options->redeclare) {
      fail(run, "push", &st);
      return false;
    }
    if (!declare(worker))
      return false;
  }
}

/* Waits for a line on stdin; false at its end. */
static bool wait_for_line(void) {
  char line[256];
  return fgets(line, sizeof line, stdin) != NULL;
}

static void *work(void *data) {
  struct worker *worker = data;
  struct run *run = worker->run;
  worker->client = run->client;
  if ((run->client != NULL || open_client(run, &worker->client)) && declare(worker))
    for (uint64_t number = 1; !atomic_load(&stop); number++) {
      if (run->options->pushes > 0 && number > run->options->pushes)
        break;
      if ((run->options->paced && !wait_for_line()) || !push(worker, number))
        break;
    }
  if (run->client == NULL)
    esp_client_close(worker->client);
  return NULL;
}

/* ---- the operator ---- */

/* *epoch is what the transaction's is to follow; 0 for the first. */
static bool change(struct run *run, esp_client *client, bool is_freeze, uint64_t *epoch) {
  struct esp_op op = {.kind = is_freeze ? ESP_OP_FREEZE : ESP_OP_THAW, .selection = run->options->selection};
  struct esp_apply_result *result;
  struct esp_status st;
  if (esp_apply(client, &op, 1, NULL, &result, &st) != ESP_OK) {
    fail(run, is_freeze ? "freeze" : "thaw", &st);
    return false;
  }
  load_log_change(run->log, is_freeze, op.selection, result);
  bool good = result->commit > 0 && (*epoch == 0 || result->epoch == *epoch + 1);
  if (!good) {
    (void)!esp_fail(&st, ESP_INTERNAL, "epoch %" PRIu64 " after %" PRIu64 ", commit %" PRIu64, result->epoch, *epoch,
                    result->commit);
    fail(run, "an apply's answer", &st);
  }
  *epoch = result->epoch;
  esp_apply_result_free(result);
  return good;
}

static void operate(struct run *run) {
  esp_client *client = NULL;
  uint64_t epoch = 0;
  bool good = open_client(run, &client);
  for (uint64_t i = 0; good && i < run->options->cycles && !atomic_load(&stop); i++)
    good = change(run, client, true, &epoch) && change(run, client, false, &epoch);
  esp_client_close(client);
  load_push_stop();
}

/* ---- the run ---- */

static size_t start_workers(struct run *run, struct worker *workers) {
  for (size_t i = 0; i < run->options->threads; i++) {
    workers[i].run = run;
    workers[i].seed = run->options->seed + i;
    if (!load_gradients_init(&workers[i].grads, &run->options->tree) ||
        pthread_create(&workers[i].thread, NULL, work, &workers[i]) != 0) {
      struct esp_status st;
      (void)!esp_fail(&st, ESP_RESOURCE_EXHAUSTED, "no memory or thread for worker %zu", i);
      load_gradients_done(&workers[i].grads);
      fail(run, "start", &st);
      return i;
    }
  }
  return run->options->threads;
}

bool load_push(const struct load_options *options, FILE *log) {
  static struct worker workers[LOAD_THREADS_MAX]; /* large */
  struct run run = {.options = options, .log = log};
  atomic_init(&run.failed, false);
  if (options->shared && !open_client(&run, &run.client))
    return false;
  /* The operator has something to name from its first operation on. */
  esp_leaf_id ids[LOAD_LEAVES_MAX];
  struct esp_status st;
  esp_client *first = run.client;
  if ((first != NULL || open_client(&run, &first)) && load_tree_declare(&options->tree, first, ids, &st) != ESP_OK)
    fail(&run, "declare", &st);
  if (run.client == NULL)
    esp_client_close(first);
  size_t len = start_workers(&run, workers);
  if (options->cycles > 0)
    operate(&run);
  for (size_t i = 0; i < len; i++) {
    pthread_join(workers[i].thread, NULL);
    load_gradients_done(&workers[i].grads);
  }
  esp_client_close(run.client);
  return !atomic_load(&run.failed);
}
