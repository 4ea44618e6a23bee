/* A worker: pushes without a pause, and logs each push.
 *
 *   push WORKER NUMBER START END EPOCH COMMIT APPLIED FROZEN DETACHED ABSENT NAMED SENT
 *
 * Gradients are small integers, a factor of (worker, number, leaf) times a pattern that knows rows from columns, so
 * that every sum of them is exact, and a transposed one is another. check.py computes both again. */
#include <inttypes.h>

#include "tests/integration/linear/linear.h"

#define BIG UINT64_C(0x300)  /* leaves of the tree that few pushes name */
#define WIDE UINT64_C(0x400) /* and fewer */

static int factor(uint64_t worker, uint64_t number, uint64_t leaf) {
  uint64_t hash = worker * UINT64_C(0x9e3779b97f4a7c15) + number * UINT64_C(0xbf58476d1ce4e5b9) +
                  leaf * UINT64_C(0x94d049bb133111eb);
  return (int)((hash >> 33) % 7) - 3;
}

static void fill(void *data, const struct esp_leaf_spec *spec, int times) {
  size_t rows = spec->rank == 2 ? spec->shape[0] : 1, cols = spec->shape[spec->rank - 1], i = 0;
  for (size_t row = 0; row < rows; row++) {
    for (size_t col = 0; col < cols; col++, i++) {
      int value = times * (int)(1 + (2 * row + col) % 3);
      if (spec->dtype == ESP_F32)
        ((float *)data)[i] = (float)value;
      else
        ((double *)data)[i] = value;
    }
  }
}

static uint64_t named_of(const struct linear *run, uint64_t worker, uint64_t number) {
  const struct load_recipe recipe = {.subset = true};
  uint64_t named = load_named(&run->tree, &recipe, run->options.seed + worker, number);
  named &= number % 8 == 0 ? UINT64_MAX : ~BIG;
  return named & (number % 32 == 0 ? UINT64_MAX : ~WIDE);
}

/* What a worker pushes with. */
struct pushing {
  const struct linear_worker *worker;
  esp_client *client;
  esp_leaf_id ids[LOAD_LEAVES_MAX];
  struct load_gradients grads;
};

static bool push(struct pushing *pushing, uint64_t number) {
  struct linear *run = pushing->worker->run;
  struct esp_gradient list[LOAD_LEAVES_MAX];
  struct esp_push_result result;
  struct esp_status st;
  uint64_t worker = pushing->worker->number, named = named_of(run, worker, number), sent = 0;
  size_t len = 0;
  for (size_t i = 0; i < run->tree.len; i++) {
    if ((named >> i & 1) == 0)
      continue;
    fill(pushing->grads.data[i], &run->tree.specs[i], factor(worker, number, i));
    list[len++] =
        (struct esp_gradient){.leaf = pushing->ids[i], .data = pushing->grads.data[i], .bytes = run->tree.bytes[i]};
    /* Nobody but this thread makes the library learn of another layout. */
    if (!esp_leaf_is_frozen(pushing->client, pushing->ids[i]))
      sent |= UINT64_C(1) << i;
  }
  uint64_t start_ns = linear_now_ns();
  enum esp_code code = esp_push(pushing->client, list, len, &result, &st);
  uint64_t end_ns = linear_now_ns();
  if (code == ESP_OK && (result.removed != 0 || result.skipped))
    code = esp_fail(&st, ESP_INTERNAL, "%" PRIu64 " leaves removed, skipped %d", result.removed, result.skipped);
  if (code != ESP_OK) {
    linear_fail(run, "push", &st);
    return false;
  }
  fprintf(run->log,
          "push\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64
          "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIx64 "\t%" PRIx64 "\n",
          worker, number, start_ns, end_ns, result.epoch, result.commit, result.applied, result.frozen, result.detached,
          result.absent, named, sent);
  return true;
}

void *linear_work(void *data) {
  struct pushing pushing = {.worker = data};
  struct linear *run = pushing.worker->run;
  struct esp_status st;
  if (!load_gradients_init(&pushing.grads, &run->tree)) {
    (void)!esp_fail(&st, ESP_RESOURCE_EXHAUSTED, "no memory for gradients");
    linear_fail(run, "start", &st);
    return NULL;
  }
  bool good = linear_open(run, &pushing.client);
  if (good && load_tree_declare(&run->tree, pushing.client, pushing.ids, &st) != ESP_OK) {
    linear_fail(run, "declare", &st);
    good = false;
  }
  for (uint64_t number = 1; good && !atomic_load(&run->stop); number++)
    good = push(&pushing, number);
  esp_client_close(pushing.client);
  load_gradients_done(&pushing.grads);
  return NULL;
}
