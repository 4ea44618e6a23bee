/* The libuv loop: a timer that ticks the engine, and the way from a signal to the program's end:
 *
 *   serving --signal--> draining --last call ended--> done
 *                          |  drain time-out: the calls that are left are cancelled
 *                          `--second signal--> the process ends at once
 *
 * The signal handler is our own rather than libuv's, so that the second signal does not depend on a loop that may be
 * busy or over. Other threads, and the handler, reach the loop through uv_async_send alone. */
#include "ops/ops.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "base/alloc.h"
#include "base/check.h"
#include "base/log.h"

#define TICK_MS 100

struct esp_ops {
  uv_loop_t loop;                /* run by the main thread */
  uv_async_t signalled;          /* sent by the signal handler */
  uv_async_t ended;              /* sent by the thread on which the last call ended */
  uv_timer_t tick;               /* of the engine */
  uv_timer_t patience;           /* the drain time-out; not active before the drain */
  struct esp_engine *engine;     /* borrowed */
  struct esp_rpc_server *server; /* borrowed; from esp_ops_run on */
  uint64_t drain_timeout_ms;     /* from the signal to the cancelling of calls */
};

/* What the handler knows; a process has one set of signal handlers. */
static atomic_int signal_first;              /* the number of the first signal, or 0 */
static _Atomic(struct esp_ops *) signal_ops; /* to be told of it, or NULL */

static void signal_handle(int number) {
  int none = 0;
  if (!atomic_compare_exchange_strong(&signal_first, &none, number)) {
    _exit(128 + number);
  }
  struct esp_ops *ops = atomic_load(&signal_ops);
  if (ops) {
    uv_async_send(&ops->signalled);
  }
}

static void signals_catch(struct esp_ops *ops) {
  struct sigaction action = {.sa_handler = signal_handle, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
  atomic_store(&signal_first, 0);
  atomic_store(&signal_ops, ops);
  ESP_CHECK(sigaction(SIGTERM, &action, NULL) == 0 && sigaction(SIGINT, &action, NULL) == 0);
}

static void tick_fired(uv_timer_t *timer) {
  struct esp_ops *ops = timer->data;
  esp_engine_tick(ops->engine);
}

static void patience_ended(uv_timer_t *timer) {
  struct esp_ops *ops = timer->data;
  esp_log(ESP_LOG_WARN, "the drain time-out is over: calls that are left are cancelled");
  esp_rpc_server_cancel(ops->server);
}

/* Any thread. */
static void server_ended(void *data) {
  struct esp_ops *ops = data;
  uv_async_send(&ops->ended);
}

static void drain(uv_async_t *async) {
  struct esp_ops *ops = async->data;
  esp_engine_drain(ops->engine);
  ESP_CHECK(uv_timer_start(&ops->patience, patience_ended, ops->drain_timeout_ms, 0) == 0);
  esp_rpc_server_shutdown(ops->server, server_ended, ops);
  /* After both: who reads the line may count on it. */
  esp_log(ESP_LOG_INFO, "%s: draining", strsignal(atomic_load(&signal_first)));
}

static void close_one(uv_handle_t *handle, void *data) {
  (void)data;
  if (!uv_is_closing(handle)) {
    uv_close(handle, NULL);
  }
}

/* With every handle closed uv_run returns. */
static void finish(uv_async_t *async) {
  atomic_store(&signal_ops, NULL);
  uv_walk(async->loop, close_one, NULL);
}

static int handles_init(struct esp_ops *ops) {
  int err = 0;
  if ((err = uv_async_init(&ops->loop, &ops->signalled, drain)) ||
      (err = uv_async_init(&ops->loop, &ops->ended, finish)) || (err = uv_timer_init(&ops->loop, &ops->tick)) ||
      (err = uv_timer_init(&ops->loop, &ops->patience))) {
    return err;
  }
  ops->signalled.data = ops;
  ops->ended.data = ops;
  ops->tick.data = ops;
  ops->patience.data = ops;
  return uv_timer_start(&ops->tick, tick_fired, TICK_MS, TICK_MS);
}

enum esp_code esp_ops_new(struct esp_engine *engine, uint64_t drain_timeout_ms, struct esp_ops **ret,
                          struct esp_status *st) {
  struct esp_ops *ops = esp_calloc(1, sizeof(*ops));
  if (!ops) {
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for the event loop");
  }
  ops->engine = engine;
  ops->drain_timeout_ms = drain_timeout_ms;
  int err = uv_loop_init(&ops->loop);
  if (err) {
    esp_free(ops);
    return esp_fail(st, ESP_INTERNAL, "the event loop can't start: %s", uv_strerror(err));
  }
  err = handles_init(ops);
  if (err) {
    esp_ops_free(ops);
    return esp_fail(st, ESP_INTERNAL, "the event loop can't start: %s", uv_strerror(err));
  }
  signals_catch(ops);
  *ret = ops;
  return ESP_OK;
}

void esp_ops_run(struct esp_ops *ops, struct esp_rpc_server *server) {
  ops->server = server;
  uv_run(&ops->loop, UV_RUN_DEFAULT);
  esp_log(ESP_LOG_INFO, "drained");
}

void esp_ops_free(struct esp_ops *ops) {
  if (!ops) {
    return;
  }
  struct esp_ops *self = ops;
  atomic_compare_exchange_strong(&signal_ops, &self, NULL);
  uv_walk(&ops->loop, close_one, NULL);
  uv_run(&ops->loop, UV_RUN_DEFAULT);
  ESP_CHECK(uv_loop_close(&ops->loop) == 0);
  esp_free(ops);
}
