/* The pool: every share of every job runs once, and what was submitted runs before the pool is gone. */
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

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(test_every_share_once)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
