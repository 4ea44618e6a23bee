/* The order of commits: the same pushes in the same order give the same bits with any number of threads and any
 * instruction set; what was frozen stands still under full load, and equals a replay of what came before. */
#include <stdlib.h>

#include "fixture.h"

#define LEAVES 5
static const size_t lens[LEAVES] = {1, 1000, 65536, 65537, 140001};

static void declare_all(struct fixture *fixture, uint64_t ids[LEAVES]) {
  char path[16];
  for (unsigned i = 0; i < LEAVES; i++) {
    snprintf(path, sizeof(path), "%s.l%u", i < 2 ? "enc" : "dec", i);
    ids[i] = declare_vector(fixture, path, lens[i]);
  }
}

/* The gradient of push `seed` for one leaf. */
static void fill(double *grad, size_t len, uint64_t seed, unsigned leaf) {
  uint64_t random = seed * 1000003 + leaf;
  for (size_t i = 0; i < len; i++)
    grad[i] = (double)(int64_t)esp_test_random(&random) / 1e19;
}

static double *memory(void) {
  return malloc(lens[LEAVES - 1] * sizeof(double));
}

/* Pushes a random part of the leaves, each cut at random places. */
static uint64_t push_random(struct fixture *fixture, const uint64_t *ids, uint64_t seed, uint64_t cuts, double *grad) {
  struct outcome outcome;
  struct esp_push *push;
  struct esp_push_header header = {0};
  uint64_t mask = seed * 7 % 31 + 1;
  for (unsigned i = 0; i < LEAVES; i++) {
    if (mask >> i & 1) {
      header.leaf_count++;
      header.total_bytes += lens[i] * 8;
    }
  }
  outcome_init(&outcome);
  assert_int_equal(esp_push_new(fixture->engine, &header, on_push, &outcome, &push, NULL), ESP_OK);
  for (unsigned i = 0; i < LEAVES; i++) {
    if (!(mask >> i & 1))
      continue;
    fill(grad, lens[i], seed, i);
    for (size_t at = 0, step; at < lens[i] * 8; at += step) {
      step = 1 + esp_test_random(&cuts) % (lens[i] * 4 + 100);
      step = step < lens[i] * 8 - at ? step : lens[i] * 8 - at;
      assert_int_equal(feed(push, ids[i], at, (const char *)grad + at, step, NULL), ESP_OK);
    }
  }
  esp_push_commit(push);
  outcome_wait(&outcome);
  assert_int_equal(outcome.code, ESP_OK);
  esp_push_free(push);
  return outcome.push.commit;
}

static void test_any_threads_any_isa_any_cut(void **state) {
  (void)state;
  static const unsigned threads[] = {1, 2, 7, 16};
  double *grad = memory();
  struct outcome first = {0}, now;
  for (unsigned isa = 0; isa < ESP_ISA_LEN; isa++) {
    for (unsigned t = 0; t < 4 && esp_isa_supported(isa); t++) {
      struct fixture fixture;
      uint64_t ids[LEAVES];
      fixture_open_with(&fixture, threads[t], isa, "sgd(lr=0.1, momentum=0.9, nesterov=true) | adamw(lr=0.01)",
                        64 << 20, ESP_NONFINITE_REJECT);
      declare_all(&fixture, ids);
      for (uint64_t seed = 1; seed <= 6; seed++)
        push_random(&fixture, ids, seed, seed + 100 * t, grad);
      assert_int_equal(digest(&fixture, "", &now), ESP_OK);
      if (first.done == 0)
        first = now;
      assert_memory_equal(&now.digest, &first.digest, sizeof(now.digest));
      fixture_close(&fixture);
    }
  }
  free(grad);
}

/* ---- under load ---- */

#define PUSHERS 4
#define PUSHES 24

struct pusher {
  struct fixture *fixture;
  const uint64_t *ids;
  uint64_t seed;            /* of its first push; the others follow */
  uint64_t commits[PUSHES]; /* of each */
};

static void *pusher_run(void *data) {
  struct pusher *pusher = data;
  double *grad = memory();
  for (unsigned i = 0; i < PUSHES; i++)
    pusher->commits[i] = push_random(pusher->fixture, pusher->ids, pusher->seed + i, pusher->seed, grad);
  free(grad);
  return NULL;
}

/* Replays the pushes below a commit number, in order, on a fresh engine; `frozen_at` freezes enc at that place. */
static struct esp_digest replay(const struct pusher *pushers, uint64_t below) {
  struct fixture fixture;
  struct outcome outcome;
  uint64_t ids[LEAVES];
  double *grad = memory();
  fixture_open_with(&fixture, 1, ESP_ISA_SSE2, "adamw(lr=0.01, weight_decay=0.1)", 64 << 20, ESP_NONFINITE_REJECT);
  declare_all(&fixture, ids);
  for (uint64_t commit = 1; commit < below; commit++) {
    for (unsigned p = 0; p < PUSHERS; p++) {
      for (unsigned i = 0; i < PUSHES; i++) {
        if (pushers[p].commits[i] == commit)
          push_random(&fixture, ids, pushers[p].seed + i, 1, grad);
      }
    }
  }
  assert_int_equal(digest(&fixture, "enc", &outcome), ESP_OK);
  free(grad);
  fixture_close(&fixture);
  return outcome.digest;
}

static void test_freeze_under_load(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome frozen, at_once, later;
  struct pusher pushers[PUSHERS];
  pthread_t threads[PUSHERS];
  uint64_t ids[LEAVES];
  fixture_open_with(&fixture, 3, ESP_ISA_SSE2, "adamw(lr=0.01, weight_decay=0.1)", 64 << 20, ESP_NONFINITE_REJECT);
  declare_all(&fixture, ids);
  for (unsigned p = 0; p < PUSHERS; p++) {
    pushers[p] = (struct pusher){.fixture = &fixture, .ids = ids, .seed = 1 + p * 1000};
    assert_int_equal(pthread_create(&threads[p], NULL, pusher_run, &pushers[p]), 0);
  }
  struct esp_engine_info info;
  do
    esp_engine_info(fixture.engine, &info);
  while (info.pushes_applied < PUSHERS * PUSHES / 3);
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "enc", &frozen), ESP_OK);
  assert_int_equal(digest(&fixture, "enc", &at_once), ESP_OK);
  for (unsigned p = 0; p < PUSHERS; p++)
    pthread_join(threads[p], NULL);
  assert_int_equal(digest(&fixture, "enc", &later), ESP_OK);
  assert_memory_equal(&at_once.digest, &later.digest, sizeof(later.digest));
  struct esp_digest replayed = replay(pushers, frozen.commit);
  assert_memory_equal(&replayed, &later.digest, sizeof(replayed));
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_any_threads_any_isa_any_cut),
      ESP_TEST(test_freeze_under_load),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
