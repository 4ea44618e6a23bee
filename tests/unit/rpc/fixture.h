/* A server in the test's own process, on an engine of the system's clock. */
#ifndef ESP_RPC_FIXTURE_H
#define ESP_RPC_FIXTURE_H

#include <pthread.h>
#include <stdbool.h>

#include "engine/engine.h"
#include "rpc/rpc.h"
#include "tests/support/test.h"

struct ended {
  pthread_mutex_t mutex;
  pthread_cond_t cond;
  bool is_ended;
};

static inline void on_ended(void *data) {
  struct ended *ended = data;
  pthread_mutex_lock(&ended->mutex);
  ended->is_ended = true;
  pthread_cond_signal(&ended->cond);
  pthread_mutex_unlock(&ended->mutex);
}

/* Waits for the end of all calls. */
static inline void end(struct esp_rpc_server *server) {
  struct ended ended = {.mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
  esp_rpc_server_shutdown(server, on_ended, &ended);
  pthread_mutex_lock(&ended.mutex);
  while (!ended.is_ended)
    pthread_cond_wait(&ended.cond, &ended.mutex);
  pthread_mutex_unlock(&ended.mutex);
  esp_rpc_server_free(server);
}

static inline struct esp_engine *make_engine(void) {
  static const struct esp_named group = {"default", "sgd(lr=1)"};
  const struct esp_engine_options options = {
      .env = esp_env_system(),
      .threads = 1,
      .max_staged = 1 << 20,
      .max_tree = 1 << 20,
      .max_copy_on_write = 1 << 20,
      .stall_timeout_ms = 30000,
      .lease_ms = 30000,
      .session_retention_ms = 30000,
      .max_sessions = 1000,
      .groups = &group,
      .groups_len = 1,
  };
  struct esp_engine *engine = NULL;
  struct esp_status st;
  assert_int_equal(esp_engine_new(&options, &engine, &st), ESP_OK);
  return engine;
}

static inline enum esp_code start(struct esp_engine *engine, const char *const *listen, size_t listen_len,
                                  struct esp_rpc_server **ret, struct esp_status *st) {
  const struct esp_rpc_options options = {.listen = listen,
                                          .listen_len = listen_len,
                                          .threads = 2,
                                          .max_connections = 4,
                                          .max_streams = 10,
                                          .max_message = 1 << 20,
                                          .max_in_flight = 4,
                                          .stall_timeout_ms = 30000,
                                          .idle_timeout_ms = 60000,
                                          .keepalive_ms = 60000,
                                          .keepalive_timeout_ms = 30000};
  return esp_rpc_server_new(&options, engine, ret, st);
}

#endif
