/* surgery: every operation on many leaves of a tree, while workers push another part of it.
 *
 *   surgery ADDRESS COUNT TREE [SERVER-PID]      declares TREE leaves and operates on COUNT of them
 *
 * The server is new, and its default group is an adam. Half of the COUNT leaves lie below model.a, the other half, with
 * the same paths, below model.b. Two workers push 64 leaves each that no operation names, as fast as they can: the
 * first one by esp_push, which returns when the library has also heard what changed in the tree (a leaf more or less
 * for each that the operation changed), the second by handles, for which it hears that beside.
 *
 * Prints a line an operation: how long the call took and until when a worker had a push that met its layout (the rest
 * is the reply: its diff has a line a leaf), the processor time of this program's caller and of the server in it, the
 * lines of the diff, and the longest time that the first and the second worker went without a completed push. Exit code
 * 0: all was as it must be; otherwise a line on stderr says what was not. */
#include <espalier/admin.h>

#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LAYERS 1000 /* the leaves of each half are spread over so many nodes */
#define ELEMENTS 16
#define PUSHED 64 /* leaves of a worker */
#define WORKERS 2
#define ADDED_MAX 10000               /* operations that a transaction may have */
#define BASELINE_PUSHES 2000          /* of each worker before the operations; a hundredth for small trees */
#define BETWEEN_PUSHES 50             /* of each worker around each operation; a tenth */
#define SMALL 10000                   /* leaves that a tree has at most that only has to show that all of it works */
#define DEADLINE_MS UINT64_C(3600000) /* of a call: it takes as long as it takes */

struct worker {
  pthread_t thread;
  bool by_handles;
  esp_client *client;
  esp_leaf_id leaves[PUSHED];
  uint64_t last_ns;  /* when the last push completed; its thread's own */
  uint64_t pushes;   /* that have completed; this and what follows under the lock */
  uint64_t wanted;   /* of them, that somebody waits for */
  uint64_t gap_ns;   /* the longest between two since it was last set to 0 */
  uint64_t epoch;    /* of the last one */
  uint64_t epoch_ns; /* when that epoch was met first */
};

static esp_client *client;
static struct worker workers[WORKERS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t met = PTHREAD_COND_INITIALIZER; /* a worker has as many pushes as are wanted, or a new epoch */
static atomic_bool stopping;
static int server_pid;
static uint64_t count;

static uint64_t clock_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void check(enum esp_code code, const struct esp_status *st, const char *what) {
  if (code == ESP_OK)
    return;
  fprintf(stderr, "surgery: %s: %s: %s\n", what, esp_code_name(code), st->message);
  exit(1);
}

static void expect(bool is_so, const char *what) {
  if (is_so)
    return;
  fprintf(stderr, "surgery: %s\n", what);
  exit(1);
}

static esp_client *open_client(const char *address) {
  struct esp_client_options options = ESP_CLIENT_OPTIONS_INIT;
  struct esp_status st;
  esp_client *opened;
  options.target = address;
  options.deadline_ms = DEADLINE_MS;

  check(esp_client_open(&options, &opened, &st), &st, "open");
  return opened;
}

/* ---- the workers ---- */

static void note_push(struct worker *worker, uint64_t epoch) {
  uint64_t now_ns = clock_ns(CLOCK_MONOTONIC), gap_ns = now_ns - worker->last_ns;
  worker->last_ns = now_ns;
  pthread_mutex_lock(&lock);
  if (gap_ns > worker->gap_ns)
    worker->gap_ns = gap_ns;
  if (++worker->pushes == worker->wanted || epoch != worker->epoch)
    pthread_cond_signal(&met);
  if (epoch != worker->epoch)
    worker->epoch_ns = now_ns;
  worker->epoch = epoch;
  pthread_mutex_unlock(&lock);
}

static enum esp_code push_once(struct worker *worker, const struct esp_gradient *gradients,
                               struct esp_push_result *result, struct esp_status *st) {
  esp_handle *handle;
  if (!worker->by_handles)
    return esp_push(worker->client, gradients, PUSHED, result, st);
  check(esp_push_begin(worker->client, gradients, PUSHED, NULL, NULL, result, &handle, st), st, "begin a push");
  enum esp_code code = esp_wait(handle, UINT64_MAX, st);
  esp_handle_free(handle);
  return code;
}

static void *push(void *data) {
  struct worker *worker = data;
  struct esp_gradient gradients[PUSHED];
  float gradient[ELEMENTS];
  for (size_t i = 0; i < ELEMENTS; i++)
    gradient[i] = (float)i;
  for (size_t i = 0; i < PUSHED; i++)
    gradients[i] = (struct esp_gradient){.leaf = worker->leaves[i], .data = gradient, .bytes = sizeof(gradient)};
  worker->last_ns = clock_ns(CLOCK_MONOTONIC);
  while (!stopping) {
    struct esp_push_result result;
    struct esp_status st;
    check(push_once(worker, gradients, &result, &st), &st, "push");
    expect(result.applied == PUSHED, "a push did not step all of its leaves");
    note_push(worker, result.epoch);
  }
  return NULL;
}

/* Until each worker has completed one push that began after this call did. */
static void let_push(uint64_t pushes) {
  pthread_mutex_lock(&lock);
  for (size_t i = 0; i < WORKERS; i++) {
    workers[i].wanted = workers[i].pushes + pushes + 1;
    while (workers[i].pushes < workers[i].wanted)
      pthread_cond_wait(&met, &lock);
  }
  pthread_mutex_unlock(&lock);
}

static void reset_gaps(void) {
  pthread_mutex_lock(&lock);
  for (size_t i = 0; i < WORKERS; i++)
    workers[i].gap_ns = 0;
  pthread_mutex_unlock(&lock);
}

static double gap_ms(size_t worker) {
  pthread_mutex_lock(&lock);
  uint64_t gap_ns = workers[worker].gap_ns;
  pthread_mutex_unlock(&lock);
  return (double)gap_ns / 1e6;
}

/* ---- declaring ---- */

static void leaf_path(char *text, size_t size, const char *node, uint64_t i) {
  (void)snprintf(text, size, "%s.layers.%" PRIu64 ".block.%" PRIu64 ".weight", node, i % LAYERS, i / LAYERS);
}

static void declare(uint64_t tree) {
  struct esp_leaf_spec *specs = calloc(tree, sizeof(*specs));
  esp_leaf_id *leaves = calloc(tree, sizeof(*leaves));
  char(*paths)[64] = calloc(tree, sizeof(*paths));
  expect(specs != NULL && leaves != NULL && paths != NULL, "no memory for the leaves");
  for (uint64_t i = 0; i < tree; i++) {
    if (i < count)
      leaf_path(paths[i], sizeof(paths[i]), i % 2 == 0 ? "model.a" : "model.b", i / 2);
    else
      leaf_path(paths[i], sizeof(paths[i]), "rest", i - count);
    specs[i] = (struct esp_leaf_spec){
        .path = paths[i], .shape = {ELEMENTS}, .rank = 1, .dtype = ESP_F32, .init = ESP_CONSTANT, .a = 1};
  }
  struct esp_status st;
  uint64_t begin_ns = clock_ns(CLOCK_MONOTONIC);
  check(esp_declare(client, specs, tree, leaves, &st), &st, "declare");
  printf("declared %" PRIu64 " leaves in %.3f s\n", tree, (double)(clock_ns(CLOCK_MONOTONIC) - begin_ns) / 1e9);
  free(specs);
  free(leaves);
  free(paths);
}

static void start_worker(struct worker *worker, size_t index, const char *address) {
  struct esp_leaf_spec specs[PUSHED];
  char paths[PUSHED][32];
  struct esp_status st;
  worker->by_handles = index > 0;
  worker->client = open_client(address);
  for (size_t i = 0; i < PUSHED; i++) {
    (void)snprintf(paths[i], sizeof(paths[i]), "pushed.%zu.%zu", index, i);
    specs[i] = (struct esp_leaf_spec){.path = paths[i], .shape = {ELEMENTS}, .rank = 1, .dtype = ESP_F32};
  }
  check(esp_declare(worker->client, specs, PUSHED, worker->leaves, &st), &st, "declare what is pushed");
  expect(pthread_create(&worker->thread, NULL, push, worker) == 0, "no thread for a worker");
}

/* ---- operations ---- */

/* Of the server, in all of its threads, since it began. 0 where it is not known. */
static uint64_t server_cpu_ns(void) {
  clockid_t clock;
  return server_pid > 0 && clock_getcpuclockid(server_pid, &clock) == 0 ? clock_ns(clock) : 0;
}

/* When every worker had a push that met this epoch. */
static uint64_t met_ns(uint64_t epoch) {
  uint64_t latest_ns = 0;
  pthread_mutex_lock(&lock);
  for (size_t i = 0; i < WORKERS; i++) {
    while (workers[i].epoch < epoch)
      pthread_cond_wait(&met, &lock);
    latest_ns = workers[i].epoch_ns > latest_ns ? workers[i].epoch_ns : latest_ns;
  }
  pthread_mutex_unlock(&lock);
  return latest_ns;
}

static uint64_t apply(const char *name, const struct esp_op *ops, size_t len, bool dry_run) {
  struct esp_apply_options options = {.dry_run = dry_run};
  struct esp_apply_result *result;
  struct esp_status st;
  let_push(count < SMALL ? BETWEEN_PUSHES / 10 : BETWEEN_PUSHES);
  reset_gaps();
  uint64_t begin_ns = clock_ns(CLOCK_MONOTONIC), cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID),
           server_ns = server_cpu_ns();
  check(esp_apply(client, ops, len, &options, &result, &st), &st, name);
  uint64_t took_ns = clock_ns(CLOCK_MONOTONIC) - begin_ns;
  cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns;
  server_ns = server_cpu_ns() - server_ns;
  uint64_t published_ns = dry_run || result->commit == 0 ? begin_ns : met_ns(result->epoch);
  let_push(count < SMALL ? BETWEEN_PUSHES / 10 : BETWEEN_PUSHES); /* also what it left behind may hold them up */
  printf("%-26s %9.0f %9.0f %9.0f %9.0f %8zu %9.1f %9.1f\n", name, (double)took_ns / 1e6,
         (double)(published_ns - begin_ns) / 1e6, (double)cpu_ns / 1e6, (double)server_ns / 1e6, result->changes_len,
         gap_ms(0), gap_ms(1));
  fflush(stdout);
  uint64_t epoch = result->epoch;
  expect(result->changes_len > 0 || ops->kind == ESP_OP_UNDO, "nothing has changed");
  esp_apply_result_free(result);
  return epoch;
}

static uint64_t run(const char *name, const struct esp_op *op) {
  return apply(name, op, 1, false);
}

/* An operation, and its undoing. */
static void run_undo(const char *name, const struct esp_op *op) {
  char text[64];
  const struct esp_op undo = {.kind = ESP_OP_UNDO, .epoch = run(name, op)};
  (void)snprintf(text, sizeof(text), "  undo");
  run(text, &undo);
}

static void run_flags(void) {
  apply("dry run of freeze", &(struct esp_op){.kind = ESP_OP_FREEZE, .selection = "model"}, 1, true);
  run_undo("freeze", &(struct esp_op){.kind = ESP_OP_FREEZE, .selection = "model"});
  run("freeze by a pattern", &(struct esp_op){.kind = ESP_OP_FREEZE, .selection = "model.** & name:weight & rank:1"});
  run_undo("thaw", &(struct esp_op){.kind = ESP_OP_THAW, .selection = "model"});
  run("thaw, reset", &(struct esp_op){.kind = ESP_OP_THAW, .selection = "model", .reset_state = true});
  run_undo("detach", &(struct esp_op){.kind = ESP_OP_DETACH, .selection = "model"});
  run("detach", &(struct esp_op){.kind = ESP_OP_DETACH, .selection = "model"});
  run_undo("attach", &(struct esp_op){.kind = ESP_OP_ATTACH, .selection = "model"});
  run("attach", &(struct esp_op){.kind = ESP_OP_ATTACH, .selection = "model"});
}

static void run_bindings(void) {
  run_undo("tie", &(struct esp_op){.kind = ESP_OP_TIE, .selection = "model.a", .to = "model.b"});
  run("tie, mean", &(struct esp_op){.kind = ESP_OP_TIE, .selection = "model.a", .to = "model.b", .mean = true});
  run_undo("untie", &(struct esp_op){.kind = ESP_OP_UNTIE, .selection = "model.a"});
  run("untie, reset", &(struct esp_op){.kind = ESP_OP_UNTIE, .selection = "model.a", .reset_state = true});
  run("tie by a pattern", &(struct esp_op){.kind = ESP_OP_TIE,
                                           .selection = "model.a.layers.*.block.*.weight",
                                           .to = "model.b.layers.*.block.*.weight"});
  run("untie", &(struct esp_op){.kind = ESP_OP_UNTIE, .selection = "model"});
  run_undo("copy", &(struct esp_op){.kind = ESP_OP_COPY, .selection = "model.a", .to = "model.b"});
}

static void run_groups(void) {
  const struct esp_hyper lr = {.name = "lr", .value = "0.5"};
  run_undo("define group", &(struct esp_op){.kind = ESP_OP_DEFINE_GROUP, .name = "head", .to = "adam(lr=0.1)"});
  run("define group", &(struct esp_op){.kind = ESP_OP_DEFINE_GROUP, .name = "head", .to = "adam(lr=0.1)"});
  run_undo("regroup", &(struct esp_op){.kind = ESP_OP_REGROUP, .selection = "model", .to = "head"});
  run_undo("regroup by a pattern", &(struct esp_op){.kind = ESP_OP_REGROUP, .selection = "model.**", .to = "head"});
  run("regroup", &(struct esp_op){.kind = ESP_OP_REGROUP, .selection = "model", .to = "head"});
  run_undo("adjust", &(struct esp_op){.kind = ESP_OP_ADJUST, .name = "head", .hypers = &lr, .hypers_len = 1});
  run_undo("define group, migrate",
           &(struct esp_op){.kind = ESP_OP_DEFINE_GROUP, .name = "head", .to = "sgd(lr=0.1, momentum=0.9)"});
  run_undo("delete group", &(struct esp_op){.kind = ESP_OP_DELETE_GROUP, .name = "head"});
  run_undo("name selection", &(struct esp_op){.kind = ESP_OP_NAME_SELECTION, .name = "all", .selection = "model.**"});
}

static void run_values(void) {
  run_undo("reinit zeros", &(struct esp_op){.kind = ESP_OP_REINIT, .selection = "model", .init = ESP_ZEROS});
  run("reinit normal",
      &(struct esp_op){.kind = ESP_OP_REINIT, .selection = "model", .init = ESP_NORMAL, .a = 0, .b = 1, .seed = 3});
  run_undo("reset", &(struct esp_op){.kind = ESP_OP_RESET, .selection = "model"});
}

static void run_places(void) {
  struct esp_op *ops = calloc(ADDED_MAX, sizeof(*ops));
  struct esp_leaf_spec *specs = calloc(ADDED_MAX, sizeof(*specs));
  char(*paths)[64] = calloc(ADDED_MAX, sizeof(*paths));
  size_t len = count < ADDED_MAX ? count : ADDED_MAX;
  expect(ops != NULL && specs != NULL && paths != NULL, "no memory for operations");
  for (size_t i = 0; i < len; i++) {
    leaf_path(paths[i], sizeof(paths[i]), "added", i);
    specs[i] = (struct esp_leaf_spec){.path = paths[i], .shape = {ELEMENTS}, .rank = 1, .dtype = ESP_F32};
    ops[i] = (struct esp_op){.kind = ESP_OP_ADD, .leaf = &specs[i]};
  }
  const struct esp_op undo = {.kind = ESP_OP_UNDO, .epoch = apply("add, one by one", ops, len, false)};
  run("  undo", &undo);
  len = count / 2 < ADDED_MAX ? count / 2 : ADDED_MAX;
  for (size_t i = 0; i < len; i++) {
    leaf_path(paths[i], sizeof(paths[i]), "model.a", i);
    ops[i] = (struct esp_op){.kind = i % 2 == 0 ? ESP_OP_FREEZE : ESP_OP_DETACH, .selection = paths[i]};
  }
  const struct esp_op undo_flags = {.kind = ESP_OP_UNDO, .epoch = apply("freeze, one by one", ops, len, false)};
  run("  undo", &undo_flags);
  run_undo("rename", &(struct esp_op){.kind = ESP_OP_RENAME, .selection = "model", .to = "renamed.model"});
  run_undo("remove", &(struct esp_op){.kind = ESP_OP_REMOVE, .selection = "model.a"});
  run("remove", &(struct esp_op){.kind = ESP_OP_REMOVE, .selection = "model"});
  free(ops);
  free(specs);
  free(paths);
}

static void list_history(void) {
  struct esp_history *history;
  struct esp_status st;
  uint64_t begin_ns = clock_ns(CLOCK_MONOTONIC);
  check(esp_history_list(client, 0, 0, &history, &st), &st, "history");
  printf("history of %zu transactions in %.3f s\n", history->len, (double)(clock_ns(CLOCK_MONOTONIC) - begin_ns) / 1e9);
  esp_history_free(history);
}

int main(int argc, char **argv) {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
  uint64_t tree = argc >= 4 ? strtoull(argv[3], NULL, 10) : 0;
  count = argc >= 4 ? strtoull(argv[2], NULL, 10) : 0;
  server_pid = argc == 5 ? atoi(argv[4]) : 0;
  if (count < 2 || tree < count) {
    fprintf(stderr, "surgery ADDRESS COUNT TREE [SERVER-PID]\n");
    return 2;
  }
  client = open_client(argv[1]);
  declare(tree);
  for (size_t i = 0; i < WORKERS; i++)
    start_worker(&workers[i], i, argv[1]);
  uint64_t baseline = count < SMALL ? BASELINE_PUSHES / 100 : BASELINE_PUSHES;
  let_push(baseline / 10);
  for (size_t i = 0; i < WORKERS; i++)
    workers[i].gap_ns = 0;
  let_push(baseline);
  printf("without operations %" PRIu64 " pushes of each worker, the largest gaps %.1f and %.1f ms\n\n", baseline,
         gap_ms(0), gap_ms(1));
  printf("%-26s %9s %9s %9s %9s %8s %9s %9s\n", "operation, in ms", "took", "met by", "caller's", "server's", "lines",
         "gap 1", "gap 2");
  run_flags();
  run_bindings();
  run_groups();
  run_values();
  run_places();
  list_history();
  stopping = true;
  for (size_t i = 0; i < WORKERS; i++) {
    pthread_join(workers[i].thread, NULL);
    esp_client_close(workers[i].client);
  }
  esp_client_close(client);
  return 0;
}
