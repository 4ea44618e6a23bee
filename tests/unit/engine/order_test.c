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

/* Replays the pushes below a commit number, in order, on a fresh engine. */
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

static uint64_t version_of(struct fixture *fixture, uint64_t id) {
  struct esp_param_stat stat;
  struct esp_layout *layout = esp_engine_layout(fixture->engine, NULL);
  esp_place_stat(esp_layout_place(layout, esp_layout_leaf_by_id(layout, id)), &stat);
  esp_layout_unref(layout);
  return stat.version;
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
  uint64_t version_once = version_of(&fixture, ids[1]); /* read past the queue: nothing may be under way any more */
  assert_int_equal(digest(&fixture, "enc", &at_once), ESP_OK);
  for (unsigned p = 0; p < PUSHERS; p++)
    pthread_join(threads[p], NULL);
  assert_int_equal(version_of(&fixture, ids[1]), version_once);
  assert_int_equal(digest(&fixture, "enc", &later), ESP_OK);
  assert_memory_equal(&at_once.digest, &later.digest, sizeof(later.digest));
  struct esp_digest replayed = replay(pushers, frozen.commit);
  assert_memory_equal(&replayed, &later.digest, sizeof(replayed));
  fixture_close(&fixture);
}

/* A freeze returns only when what was committed before it has been applied: the step waits in the queue behind a digest
 * that takes a while, and is there when the freeze returns. */
static void test_freeze_waits_for_what_is_applied(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome digested, pushed, frozen;
  struct esp_push *push;
  const size_t len = 4000000;
  fixture_open_with(&fixture, 2, ESP_ISA_SSE2, "sgd(lr=1)", 64 << 20, ESP_NONFINITE_REJECT);
  uint64_t a = declare_vector(&fixture, "a", len);
  double *grad = calloc(len, sizeof(double));
  const struct grad one = {a, grad, len * sizeof(double)};
  assert_int_equal(push_arrive(&fixture, 0, 0, &one, 1, &pushed, &push), ESP_OK);
  outcome_init(&digested);
  esp_engine_digest(fixture.engine, "a", on_digest, &digested);
  esp_push_commit(push);
  assert_int_equal(apply_one(&fixture, ESP_OPERATION_FREEZE, "a", &frozen), ESP_OK);
  assert_int_equal(version_of(&fixture, a), 2);
  outcome_wait(&digested);
  outcome_wait(&pushed);
  assert_true(pushed.push.commit < frozen.commit);
  esp_push_free(push);
  free(grad);
  fixture_close(&fixture);
}

/* ---- linearizability: what each push met, checked against the total order ---- */

#define MANY 1000 /* leaves, so that a push takes a while to resolve */
#define MANY_PUSHES 60
#define CYCLES_MAX 100000

struct record {
  uint64_t commit, epoch, frozen;
};

struct many {
  struct fixture *fixture;
  struct grad grads[MANY];
  struct record records[MANY_PUSHES];
};

static _Atomic unsigned many_running;

static void *many_run(void *data) {
  struct many *many = data;
  for (unsigned i = 0; i < MANY_PUSHES; i++) {
    struct outcome outcome;
    assert_int_equal(push_many(many->fixture, 0, 0, many->grads, MANY, &outcome), ESP_OK);
    many->records[i] = (struct record){outcome.push.commit, outcome.push.epoch, outcome.push.frozen};
  }
  many_running--;
  return NULL;
}

static void declare_many(struct fixture *fixture, uint64_t ids[MANY]) {
  static char paths[MANY][8];
  for (unsigned first = 0; first < MANY; first += 50) {
    struct esp_declare_leaf leaves[50];
    struct outcome outcome;
    for (unsigned i = 0; i < 50; i++) {
      snprintf(paths[first + i], sizeof(paths[0]), "p%u", first + i);
      leaves[i] = vector_f64(paths[first + i], 1);
    }
    assert_int_equal(declare(fixture, leaves, 50, &outcome), ESP_OK);
    memcpy(&ids[first], outcome.ids, 50 * sizeof(uint64_t));
  }
}

static void test_every_push_meets_the_layout_of_its_place(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  static const double one = 1;
  uint64_t ids[MANY];
  struct record *cycles = calloc(CYCLES_MAX, sizeof(*cycles));
  struct many *manys = calloc(PUSHERS, sizeof(*manys));
  pthread_t threads[PUSHERS];
  fixture_open(&fixture);
  declare_many(&fixture, ids);
  many_running = PUSHERS;
  for (unsigned p = 0; p < PUSHERS; p++) {
    manys[p].fixture = &fixture;
    for (unsigned i = 0; i < MANY; i++)
      manys[p].grads[i] = (struct grad){ids[i], &one, 8};
    assert_int_equal(pthread_create(&threads[p], NULL, many_run, &manys[p]), 0);
  }
  unsigned cycles_len = 0;
  for (; many_running > 0 && cycles_len < CYCLES_MAX; cycles_len++) {
    bool freeze = cycles_len % 2 == 0;
    assert_int_equal(apply_one(&fixture, freeze ? ESP_OPERATION_FREEZE : ESP_OPERATION_THAW, "**", &outcome), ESP_OK);
    cycles[cycles_len] = (struct record){outcome.commit, outcome.epoch, freeze ? MANY : 0};
  }
  for (unsigned p = 0; p < PUSHERS; p++)
    pthread_join(threads[p], NULL);
  double steps = 0;
  for (unsigned p = 0; p < PUSHERS; p++) {
    for (unsigned i = 0; i < MANY_PUSHES; i++) {
      const struct record *record = &manys[p].records[i];
      struct record met = {0, cycles[0].epoch - 1, 0};
      for (unsigned c = 0; c < cycles_len && cycles[c].commit < record->commit; c++)
        met = cycles[c];
      assert_int_equal(record->epoch, met.epoch);
      assert_int_equal(record->frozen, met.frozen);
      steps += record->frozen == 0;
    }
  }
  assert_true(first_of(&fixture, ids[0]) == -steps && first_of(&fixture, ids[MANY - 1]) == -steps);
  free(manys);
  free(cycles);
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_any_threads_any_isa_any_cut),
      ESP_TEST(test_freeze_under_load),
      ESP_TEST(test_freeze_waits_for_what_is_applied),
      ESP_TEST(test_every_push_meets_the_layout_of_its_place),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
