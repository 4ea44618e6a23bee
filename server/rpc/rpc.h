/* The gRPC side of the server: completion queues, the method table, messages to and from the engine. */
#ifndef ESP_RPC_H
#define ESP_RPC_H

#include <espalier/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/engine.h"

struct esp_rpc_server;

struct esp_rpc_options {
  const char *const *listen; /* "127.0.0.1:7433", "[::1]:0", "unix:/path" */
  size_t listen_len;
  unsigned threads;     /* completion-queue threads, 1 to 64 */
  unsigned max_streams; /* open streams a connection */
  uint64_t
      stall_timeout_ms; /* --stall-timeout: a client that takes nothing of a reply for so long is cut off; 0: never */
};

/* Binds, starts threads and serves. Addresses must be checked before (esp_listen_check). UNAVAILABLE names the address
 * that can't be bound. */
enum esp_code esp_rpc_server_new(const struct esp_rpc_options *options, struct esp_engine *engine,
                                 struct esp_rpc_server **ret, struct esp_status *st) ESP_WARN_UNUSED;
/* The addresses that it listens on, with the real ports, in the order of options->listen. Borrowed. */
size_t esp_rpc_server_addresses(const struct esp_rpc_server *server, const char *const **ret);
/* Takes no new calls and drops connections that are idle; calls under way go on (streams without a push under way are
 * ended with UNAVAILABLE). Does not block; `done` is called once, from any thread, when the last call has ended. The
 * engine is to be drained before. */
void esp_rpc_server_shutdown(struct esp_rpc_server *server, void (*done)(void *data), void *data);
/* Cancels the calls that are left. Does not block. */
void esp_rpc_server_cancel(struct esp_rpc_server *server);
/* After done was called: joins the threads, frees. Blocks. NULL is fine. */
void esp_rpc_server_free(struct esp_rpc_server *server);

/* Whether an address may be listened on without TLS: loopback (127.0.0.0/8, [::1], localhost) and unix: always, others
 * only with insecure. INVALID_ARGUMENT for what is no address; FAILED_PRECONDITION, naming --insecure, for a refusal.
 */
enum esp_code esp_listen_check(const char *address, bool insecure, struct esp_status *st) ESP_WARN_UNUSED;

#endif
