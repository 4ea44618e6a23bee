/* The server's housekeeping: signals and timers, on a libuv loop in the main thread. */
#ifndef ESP_OPS_H
#define ESP_OPS_H

#include <espalier/status.h>

#include <stdint.h>

#include "engine/engine.h"
#include "rpc/rpc.h"

struct esp_ops;

/* From here on SIGTERM and SIGINT are caught, once a process: the first is acted on by esp_ops_run, a second one ends
 * the process at once with 128 plus its number. The engine is borrowed. INTERNAL: libuv says why. */
enum esp_code esp_ops_new(struct esp_engine *engine, uint64_t drain_timeout_ms, struct esp_ops **ret,
                          struct esp_status *st) ESP_WARN_UNUSED;
/* Ticks the engine until a signal comes; then drains: new work is refused, what is under way ends, or is cancelled
 * after the drain time-out. Returns when the server's last call has ended. Blocks; once, on the thread that called
 * esp_ops_new. */
void esp_ops_run(struct esp_ops *ops, struct esp_rpc_server *server);
/* After esp_ops_run, or without it. NULL is fine. Signals stay caught: a second one still ends the process. */
void esp_ops_free(struct esp_ops *ops);

#endif
