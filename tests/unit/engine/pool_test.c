/* The pool: every share of every job runs once, and what was submitted runs before the pool is gone, in its order. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "engine/pool.h"
#include "tests/support/test.h"

struct work {
  struct esp_job job;
  _Atomic unsigned ran[100];
};

static void work_run(struct esp_job *job, unsigned share) {
  atomic_fetch_add(&((struct work *)job)->ran[share], 1);
}

static void test_every_share_once(void **state) {
  (void)state;
  static const unsigned threads[] = {1, 2, 7};
  for (unsigned t = 0; t < 3; t++) {
    static struct work works[50];
    struct esp_pool *pool;
    assert_int_equal(esp_pool_new(threads[t], "test", &pool, NULL), ESP_OK);
    for (unsigned i = 0; i < 50; i++) {
      works[i] = (struct work){.job = {.run = work_run, .shares = 1 + i * 2}};
      esp_pool_submit(pool, &works[i].job);
    }
    esp_pool_free(pool);
    for (unsigned i = 0; i < 50; i++) {
      for (unsigned share = 0; share < 100; share++)
        assert_int_equal(works[i].ran[share], share < works[i].job.shares ? 1 : 0);
    }
  }
  esp_pool_free(NULL);
}

/* A job that notes when it ran, on a pool of one thread. */
struct noted {
  struct esp_job job;
  unsigned number;
  unsigned *order; /* of all, and how many have run */
  unsigned *ran;
};

static void noted_run(struct esp_job *job, unsigned share) {
  (void)share;
  struct noted *noted = (struct noted *)job;
  noted->order[(*noted->ran)++] = noted->number;
}

/* Submits and hurries from the pool's own thread, which so does not come to any of them meanwhile. */
struct mover {
  struct esp_job job;
  struct esp_pool *pool;
  struct noted *noted; /* 5 */
};

static void mover_run(struct esp_job *job, unsigned share) {
  (void)share;
  struct mover *mover = (struct mover *)job;
  struct noted *noted = mover->noted;
  esp_pool_hurry(mover->pool, &noted[0].job); /* nothing waits */
  for (unsigned i = 0; i < 4; i++)
    esp_pool_submit(mover->pool, &noted[i].job);
  esp_pool_hurry(mover->pool, &noted[3].job); /* the last */
  esp_pool_hurry(mover->pool, &noted[3].job); /* the first */
  esp_pool_hurry(mover->pool, &noted[1].job); /* one between */
  esp_pool_hurry(mover->pool, &noted[4].job); /* does not wait */
  esp_pool_submit_first(mover->pool, &noted[4].job);
}

static void test_order(void **state) {
  (void)state;
  static const unsigned want[] = {4, 1, 3, 0, 2};
  unsigned order[5], ran = 0;
  struct noted noted[5];
  struct esp_pool *pool;
  assert_int_equal(esp_pool_new(1, "test", &pool, NULL), ESP_OK);
  for (unsigned i = 0; i < 5; i++)
    noted[i] = (struct noted){.job = {.run = noted_run, .shares = 1}, .number = i, .order = order, .ran = &ran};
  struct mover mover = {.job = {.run = mover_run, .shares = 1}, .pool = pool, .noted = noted};
  esp_pool_submit(pool, &mover.job);
  esp_pool_free(pool);
  assert_int_equal(ran, 5);
  assert_memory_equal(order, want, sizeof(want));
}

/* Runs in the caller's thread or in the pool's, hands the pool work, and tries to run some here. */
struct lender {
  struct esp_job job;
  struct esp_pool *pool;
  struct noted *noted; /* 2 */
  pthread_t thread;    /* which it ran in */
  bool was_refused;
  unsigned ran; /* of the noted, at its end */
};

static void lender_run(struct esp_job *job, unsigned share) {
  (void)share;
  struct lender *lender = (struct lender *)job;
  lender->thread = pthread_self();
  esp_pool_submit(lender->pool, &lender->noted[0].job);
  lender->was_refused = !esp_pool_run_here(lender->pool, &lender->noted[1].job);
  for (unsigned i = 0; i < 1000; i++) /* where the pool's thread does not keep out, it comes by now */
    sched_yield();
  lender->ran = *lender->noted[0].ran;
}

/* While a job runs in the caller's thread, no other does, and afterwards those that came meanwhile run. */
static void test_run_here(void **state) {
  (void)state;
  for (unsigned own = 0; own < 2; own++) {
    unsigned order[2], ran = 0;
    struct noted noted[2];
    struct esp_pool *pool;
    assert_int_equal(esp_pool_new(1, "test", &pool, NULL), ESP_OK);
    for (unsigned i = 0; i < 2; i++)
      noted[i] = (struct noted){.job = {.run = noted_run, .shares = 1}, .number = i, .order = order, .ran = &ran};
    struct lender lender = {.job = {.run = lender_run, .shares = 1}, .pool = pool, .noted = noted, .ran = 9};
    if (own == 0)
      assert_true(esp_pool_run_here(pool, &lender.job));
    else
      esp_pool_submit(pool, &lender.job);
    esp_pool_free(pool);
    assert_int_equal(pthread_equal(lender.thread, pthread_self()) != 0, own == 0);
    assert_true(lender.was_refused);
    assert_int_equal(lender.ran, 0);
    assert_int_equal(ran, 1);
    assert_int_equal(order[0], 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(test_every_share_once), ESP_TEST(test_order), ESP_TEST(test_run_here)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
