/* sharer: one client, used by many threads in every way at once.
 *
 *   sharer ADDRESS ROUNDS      the server is new, and steps by sgd(lr=1)
 *
 * The happy path: each worker has a leaf of its own that only it pushes ones to and sets, so it knows its value; it
 * also pulls everybody's, which only fall, and a leaf that it only sets. The main thread freezes, thaws, describes, and
 * declares again what is there. No pulled tensor may be torn: its elements are always equal.
 * Exit code 0: all of it held; otherwise a line on stderr says what did not. */
#include <espalier/admin.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKERS 6
#define ELEMENTS 20000
#define BYTES (ELEMENTS * sizeof(double))

enum { COUNTED = 0, SET = WORKERS, FLICKER = 2 * WORKERS, LEAVES };

static const char *const paths[LEAVES] = {"counted.a", "counted.b", "counted.c", "counted.d", "counted.e",
                                          "counted.f", "set.a",     "set.b",     "set.c",     "set.d",
                                          "set.e",     "set.f",     "flicker"};

/* What all threads share. Large, and there is one of each: not on the stack. */
static esp_client *client;
static esp_leaf_id ids[LEAVES];
static uint64_t rounds;
static atomic_bool failed;
static double ones[ELEMENTS];
static double pulled[WORKERS][WORKERS][ELEMENTS]; /* a worker's copies of all counted leaves */

struct worker {
  size_t self;           /* which one */
  double value;          /* of its counted leaf */
  double least[WORKERS]; /* the last values seen of the others' */
  pthread_t thread;
};

static bool report(const char *what, const struct esp_status *st) {
  fprintf(stderr, "sharer: %s: %s: %s\n", what, esp_code_name(st->code), st->message);
  atomic_store(&failed, true);
  return false;
}

static bool complain(const char *what, size_t self, double expected, double got) {
  fprintf(stderr, "sharer: worker %zu: %s: expected %g, got %g\n", self, what, expected, got);
  atomic_store(&failed, true);
  return false;
}

static bool is_whole(size_t self, const double *data) {
  for (size_t i = 1; i < ELEMENTS; i++)
    if (data[i] != data[0])
      return complain("a torn tensor", self, data[0], data[i]);
  return true;
}

/* Pushes ones to its own leaf and to the one that flickers, and pulls its own, which must have just that. */
static bool push_pull(struct worker *worker) {
  double *own = pulled[worker->self][worker->self];
  struct esp_gradient grads[] = {{.leaf = ids[worker->self], .data = ones, .bytes = BYTES},
                                 {.leaf = ids[FLICKER], .data = ones, .bytes = BYTES}};
  struct esp_weight weight = {.leaf = ids[worker->self], .data = own, .bytes = BYTES};
  struct esp_push_result push;
  struct esp_pull_result pull;
  struct esp_status st;
  if (esp_push_pull(client, grads, 2, &weight, 1, &push, &pull, &st) != ESP_OK)
    return report("push_pull", &st);
  if (push.applied + push.frozen != 2 || push.applied == 0 || pull.commit < push.commit)
    return complain("leaves of a push", worker->self, 2, (double)(push.applied + push.frozen));
  worker->value -= 1;
  (void)esp_leaf_is_frozen(client, ids[FLICKER]); /* whether it is known yet depends on the others */
  return own[0] == worker->value ? is_whole(worker->self, own)
                                 : complain("its own leaf", worker->self, worker->value, own[0]);
}

static bool pull_all(struct worker *worker) {
  struct esp_weight weights[WORKERS];
  struct esp_status st;
  for (size_t i = 0; i < WORKERS; i++)
    weights[i] = (struct esp_weight){.leaf = ids[i], .data = pulled[worker->self][i], .bytes = BYTES};
  if (esp_pull(client, weights, WORKERS, NULL, &st) != ESP_OK)
    return report("pull", &st);
  for (size_t i = 0; i < WORKERS; i++) {
    double got = pulled[worker->self][i][0];
    if (!is_whole(worker->self, pulled[worker->self][i]))
      return false;
    if (got > worker->least[i])
      return complain("a leaf that went back", worker->self, worker->least[i], got);
    worker->least[i] = got;
  }
  return true;
}

/* Sets a leaf, and its counted leaf to what it is (a step back is noticed by everybody), and gets the former. */
static bool set_and_get(struct worker *worker, uint64_t round) {
  double *own = pulled[worker->self][worker->self];
  struct esp_tensor tensor = {.dtype = ESP_F64, .shape = {ELEMENTS}, .rank = 1, .data = own, .bytes = BYTES};
  struct esp_tensor got;
  struct esp_status st;
  if (esp_set(client, paths[worker->self], &tensor, NULL, &st) != ESP_OK)
    return report("set", &st);
  for (size_t i = 0; i < ELEMENTS; i++)
    own[i] = (double)round + (double)worker->self;
  if (esp_set(client, paths[SET + worker->self], &tensor, NULL, &st) != ESP_OK)
    return report("set", &st);
  if (esp_get(client, paths[SET + worker->self], &got, &st) != ESP_OK)
    return report("get", &st);
  bool good = got.bytes == BYTES && got.rank == 1 && got.shape[0] == ELEMENTS && got.dtype == ESP_F64 &&
              memcmp(got.data, own, BYTES) == 0;
  esp_memory_free(got.data);
  return good || complain("what it has set", worker->self, own[0], 0);
}

static void *work(void *data) {
  struct worker *worker = data;
  for (uint64_t round = 0; round < rounds && !atomic_load(&failed); round++)
    if (!push_pull(worker) || !pull_all(worker) || !push_pull(worker) || !set_and_get(worker, round))
      break;
  return NULL;
}

/* ---- the main thread ---- */

static bool declare(void) {
  struct esp_leaf_spec specs[LEAVES] = {0};
  esp_leaf_id got[LEAVES];
  struct esp_status st;
  for (size_t i = 0; i < LEAVES; i++)
    specs[i] = (struct esp_leaf_spec){.path = paths[i], .shape = {ELEMENTS}, .rank = 1, .dtype = ESP_F64};
  if (esp_declare(client, specs, LEAVES, got, &st) != ESP_OK)
    return report("declare", &st);
  if (ids[0] == 0)
    memcpy(ids, got, sizeof ids);
  return memcmp(ids, got, sizeof ids) == 0 || complain("an id, declared again", 0, 0, 0);
}

static bool flicker(bool frozen) {
  struct esp_op op = {.kind = frozen ? ESP_OP_FREEZE : ESP_OP_THAW, .selection = paths[FLICKER]};
  struct esp_description *description;
  struct esp_status st;
  if (esp_apply(client, &op, 1, NULL, NULL, &st) != ESP_OK)
    return report("apply", &st);
  if (esp_describe(client, paths[FLICKER], true, &description, &st) != ESP_OK)
    return report("describe", &st);
  bool good = description->leaves_len == 1 && description->leaves[0].frozen == frozen;
  esp_description_free(description);
  return good || complain("the frozen flag", 0, frozen, !frozen);
}

static bool operate(void) {
  struct esp_server_info info;
  struct esp_status st;
  for (uint64_t round = 0; round < rounds && !atomic_load(&failed); round++) {
    if (!flicker(true) || !flicker(false) || !declare())
      return false;
    if (esp_server_info(client, &info, &st) != ESP_OK || esp_ping(client, &st) != ESP_OK)
      return report("server info", &st);
    for (size_t i = 0; i < WORKERS; i++)
      if (esp_leaf_is_frozen(client, ids[i]))
        return complain("a leaf that nobody froze", i, 0, 1);
  }
  return true;
}

static void run(void) {
  static struct worker workers[WORKERS];
  size_t len = 0;
  for (; len < WORKERS; len++) {
    workers[len].self = len;
    if (pthread_create(&workers[len].thread, NULL, work, &workers[len]) != 0) {
      fprintf(stderr, "sharer: no thread to be had\n");
      atomic_store(&failed, true);
      break;
    }
  }
  if (!operate())
    atomic_store(&failed, true);
  for (size_t i = 0; i < len; i++)
    pthread_join(workers[i].thread, NULL);
}

int main(int argc, char **argv) {
  struct esp_client_options options = ESP_CLIENT_OPTIONS_INIT;
  struct esp_status st;
  if (argc != 3 || (rounds = strtoull(argv[2], NULL, 10)) == 0) {
    fprintf(stderr, "usage: sharer ADDRESS ROUNDS\n");
    return 2;
  }
  options.target = argv[1];
  for (size_t i = 0; i < ELEMENTS; i++)
    ones[i] = 1;
  if (esp_client_open(&options, &client, &st) != ESP_OK)
    return report("open", &st) ? EXIT_SUCCESS : EXIT_FAILURE;
  if (declare())
    run();
  esp_client_close(client);
  return atomic_load(&failed) ? EXIT_FAILURE : EXIT_SUCCESS;
}
