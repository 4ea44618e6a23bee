/* Watches: each change of the layout is told once to each that waits, and none is missed between two waits. */
#include <stdatomic.h>

#include "fixture.h"

static void count(void *data) {
  atomic_fetch_add((_Atomic unsigned *)data, 1);
}

static uint64_t epoch_now(struct fixture *fixture) {
  struct esp_layout *layout = esp_engine_layout(fixture->engine, NULL);
  uint64_t epoch = layout->epoch;
  esp_layout_unref(layout);
  return epoch;
}

static uint64_t watches(struct fixture *fixture) {
  struct esp_engine_info info;
  esp_engine_info(fixture->engine, &info);
  return info.watches;
}

static void freeze(struct fixture *fixture, bool on) {
  struct outcome outcome;
  assert_int_equal(apply_one(fixture, on ? ESP_OPERATION_FREEZE : ESP_OPERATION_THAW, "a", &outcome), ESP_OK);
}

static void test_a_change_is_told_before_it_is_answered(void **state) {
  (void)state;
  struct fixture fixture;
  struct esp_watch watch = {0};
  struct outcome outcome;
  _Atomic unsigned told = 0;
  const double one = 1;
  fixture_open(&fixture);
  uint64_t a = declare_vector(&fixture, "a", 1);
  esp_watch_init(&watch, fixture.engine, count, &told);
  assert_int_equal(watches(&fixture), 1);
  esp_watch_wait(&watch, epoch_now(&fixture));
  assert_int_equal(push_one(&fixture, a, &one, 8, &outcome), ESP_OK);
  freeze(&fixture, false);
  assert_int_equal(told, 0); /* the layout is what it was */
  freeze(&fixture, true);
  assert_int_equal(told, 1);
  freeze(&fixture, false);
  assert_int_equal(told, 1); /* nobody waited */
  uint64_t before = epoch_now(&fixture);
  esp_watch_wait(&watch, before - 1);
  assert_int_equal(told, 2); /* told of what it has missed */
  esp_watch_wait(&watch, before);
  assert_int_equal(told, 2);
  declare_vector(&fixture, "b", 1);
  assert_int_equal(told, 3);
  esp_watch_done(&watch);
  esp_watch_done(&watch);
  assert_int_equal(watches(&fixture), 0);
  fixture_close(&fixture);
}

/* Every subset of four that wait is cancelled, and the others are told. */
static void test_cancel(void **state) {
  (void)state;
  struct fixture fixture;
  fixture_open(&fixture);
  declare_vector(&fixture, "a", 1);
  for (unsigned cancelled = 0; cancelled < 16; cancelled++) {
    struct esp_watch watch[4] = {0};
    _Atomic unsigned told[4] = {0};
    for (unsigned i = 0; i < 4; i++) {
      esp_watch_init(&watch[i], fixture.engine, count, &told[i]);
      assert_false(esp_watch_cancel(&watch[i]));
      esp_watch_wait(&watch[i], epoch_now(&fixture));
    }
    for (unsigned i = 0; i < 4; i++)
      if (cancelled >> i & 1)
        assert_true(esp_watch_cancel(&watch[i]));
    freeze(&fixture, cancelled % 2 == 0);
    for (unsigned i = 0; i < 4; i++) {
      assert_int_equal(told[i], (cancelled >> i & 1) == 0);
      assert_false(esp_watch_cancel(&watch[i]));
      esp_watch_done(&watch[i]);
    }
  }
  fixture_close(&fixture);
}

/* A watch that waits again inside its callback, until `most` was published, while others are added and cancelled. */
struct follower {
  struct fixture *fixture;
  struct esp_watch watch;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  uint64_t seen;
  uint64_t most;
  unsigned told;
};

static void follow(void *data) {
  struct follower *follower = data;
  uint64_t seen = epoch_now(follower->fixture);
  pthread_mutex_lock(&follower->lock);
  assert_true(seen > follower->seen);
  follower->seen = seen;
  follower->told++;
  bool is_last = seen == follower->most;
  pthread_cond_broadcast(&follower->changed);
  pthread_mutex_unlock(&follower->lock);
  if (!is_last)
    esp_watch_wait(&follower->watch, seen);
}

static void *cancel_often(void *data) {
  struct follower *follower = data;
  bool over = false;
  while (!over) {
    struct esp_watch watch = {0};
    _Atomic unsigned told = 0;
    esp_watch_init(&watch, follower->fixture->engine, count, &told);
    esp_watch_wait(&watch, epoch_now(follower->fixture));
    if (!esp_watch_cancel(&watch))
      while (told == 0) /* it is coming */
        sched_yield();
    esp_watch_done(&watch);
    pthread_mutex_lock(&follower->lock);
    over = follower->seen == follower->most;
    pthread_mutex_unlock(&follower->lock);
  }
  return NULL;
}

static void test_none_is_missed(void **state) {
  (void)state;
  enum { CHANGES = 300 };
  struct fixture fixture;
  struct follower follower = {.fixture = &fixture};
  pthread_t other;
  fixture_open(&fixture);
  declare_vector(&fixture, "a", 1);
  pthread_mutex_init(&follower.lock, NULL);
  pthread_cond_init(&follower.changed, NULL);
  follower.seen = epoch_now(&fixture);
  follower.most = follower.seen + CHANGES;
  esp_watch_init(&follower.watch, fixture.engine, follow, &follower);
  esp_watch_wait(&follower.watch, follower.seen);
  assert_int_equal(pthread_create(&other, NULL, cancel_often, &follower), 0);
  for (int i = 0; i < CHANGES; i++)
    freeze(&fixture, i % 2 == 0);
  pthread_mutex_lock(&follower.lock);
  while (follower.seen != follower.most)
    pthread_cond_wait(&follower.changed, &follower.lock);
  pthread_mutex_unlock(&follower.lock);
  pthread_join(other, NULL);
  assert_int_equal(follower.told, CHANGES); /* each before its answer, so one by one */
  esp_watch_done(&follower.watch);
  pthread_cond_destroy(&follower.changed);
  pthread_mutex_destroy(&follower.lock);
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_a_change_is_told_before_it_is_answered),
      ESP_TEST(test_cancel),
      ESP_TEST(test_none_is_missed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
