/* The way from a signal to the end, with engine and server played by this test: the four functions that ops calls are
 * defined here. */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "ops/ops.h"
#include "tests/support/test.h"

static void (*ended)(void *data); /* given to the server by the drain */
static void *ended_data;
static int drains, shutdowns, cancels, ticks;
static void (*on_tick)(void);     /* what the test does at each tick, or NULL */
static void (*on_shutdown)(void); /* likewise */

void esp_engine_drain(struct esp_engine *engine) {
  (void)engine;
  drains++;
}

void esp_engine_tick(struct esp_engine *engine) {
  (void)engine;
  ticks++;
  if (on_tick) {
    on_tick();
  }
}

void esp_rpc_server_shutdown(struct esp_rpc_server *server, void (*done)(void *data), void *data) {
  (void)server;
  assert_int_equal(drains, 1); /* the engine first */
  shutdowns++;
  ended = done;
  ended_data = data;
  if (on_shutdown) {
    on_shutdown();
  }
}

void esp_rpc_server_cancel(struct esp_rpc_server *server) {
  (void)server;
  cancels++;
  ended(ended_data);
}

static void run(uint64_t drain_timeout_ms) {
  struct esp_ops *ops = NULL;
  drains = shutdowns = cancels = ticks = 0;
  assert_int_equal(esp_ops_new(NULL, drain_timeout_ms, &ops, NULL), ESP_OK);
  if (!on_tick) {
    raise(SIGTERM); /* before the loop runs: acted on all the same */
  }
  esp_ops_run(ops, NULL);
  esp_ops_free(ops);
}

static void end_now(void) {
  ended(ended_data);
}

static void *end_thread(void *data) {
  (void)data;
  ended(ended_data);
  return NULL;
}

static pthread_t ending; /* joined after the run: libuv hides from the thread sanitizer how it hands over */

static void end_elsewhere(void) {
  assert_int_equal(pthread_create(&ending, NULL, end_thread, NULL), 0);
}

static void test_drains(void **state) {
  (void)state;
  on_shutdown = end_now;
  run(60000);
  assert_int_equal(shutdowns, 1);
  assert_int_equal(cancels, 0);
  on_shutdown = end_elsewhere;
  run(60000);
  assert_int_equal(pthread_join(ending, NULL), 0);
  assert_int_equal(shutdowns, 1);
  assert_int_equal(cancels, 0);
  on_shutdown = NULL;
}

static void interrupt_once(void) {
  if (ticks == 2) {
    raise(SIGINT);
  }
}

static void test_ticks_until_the_signal(void **state) {
  (void)state;
  on_tick = interrupt_once;
  on_shutdown = end_now;
  run(60000);
  assert_int_equal(ticks, 2);
  assert_int_equal(shutdowns, 1);
  on_tick = NULL;
  on_shutdown = NULL;
}

static void test_cancels_after_the_timeout(void **state) {
  (void)state;
  run(1);
  assert_int_equal(shutdowns, 1);
  assert_int_equal(cancels, 1);
}

static void terminate(void) {
  raise(SIGTERM);
}

/* In a child, whose calls never end: only the second signal ends it. */
static void second_signal(int first, void (*second)(void), int expected) {
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    struct esp_ops *ops = NULL;
    on_shutdown = second;
    if (esp_ops_new(NULL, 60000, &ops, NULL)) {
      _exit(99);
    }
    raise(first);
    drains = 0;
    esp_ops_run(ops, NULL);
    _exit(98);
  }
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), expected);
}

static void interrupt(void) {
  raise(SIGINT);
}

static void test_second_signal(void **state) {
  (void)state;
  second_signal(SIGTERM, terminate, 128 + SIGTERM);
  second_signal(SIGTERM, interrupt, 128 + SIGINT);
  second_signal(SIGINT, interrupt, 128 + SIGINT);
}

static void test_free_without_run(void **state) {
  (void)state;
  struct esp_ops *ops = NULL;
  assert_int_equal(esp_ops_new(NULL, 1, &ops, NULL), ESP_OK);
  esp_ops_free(ops);
  raise(SIGTERM); /* with nobody to tell: it is remembered, and nothing else */
  esp_ops_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(test_second_signal),          ESP_TEST(test_drains),
      ESP_TEST(test_ticks_until_the_signal), ESP_TEST(test_cancels_after_the_timeout),
      ESP_TEST(test_free_without_run),
  };
  esp_log_level_set(ESP_LOG_ERROR);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
