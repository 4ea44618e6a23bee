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
  unsigned threads;          /* completion-queue threads, 1 to 64 */
  uint64_t max_connections;  /* --max-connections: beyond it they are closed at once */
  unsigned max_streams;      /* --max-streams: calls open at once on one connection */
  uint64_t max_message;      /* --max-message: bytes of a message that comes in; at most INT32_MAX */
  uint64_t max_in_flight;    /* --max-in-flight: requests of one stream that are read before it is answered */
  uint64_t stall_timeout_ms; /* --stall-timeout: a client that takes nothing of a reply for so long, or a connection
                                that says nothing at first, is cut off; 0: never */
  uint64_t idle_timeout_ms;  /* --idle-timeout: a connection without calls is closed after this; at most INT32_MAX */
  uint64_t keepalive_ms;     /* --keepalive: a silent connection is asked for a sign of life after this, */
  uint64_t keepalive_timeout_ms; /* --keepalive-timeout: and closed after this without one; both at most INT32_MAX */
};

/* Binds, starts threads and serves. Addresses must be checked before (esp_listen_check). UNAVAILABLE names the address
 * that can't be bound. */
enum esp_code esp_rpc_server_new(const struct esp_rpc_options *options, struct esp_engine *engine,
                                 struct esp_rpc_server **ret, struct esp_status *st) ESP_WARN_UNUSED;
/* The addresses that it listens on, with the real ports, in the order of options->listen. Borrowed. */
size_t esp_rpc_server_addresses(const struct esp_rpc_server *server, const char *const **ret);
/* Takes no new connections; calls under way go on (streams without a push under way are ended with UNAVAILABLE), and
 * those that come later are told of the shutdown, or served as far as a drained engine does. When the calls that it
 * found have ended, connections are closed. Does not block; `done` is called once, from any thread, when the last call
 * has ended. The engine is to be drained before. */
void esp_rpc_server_shutdown(struct esp_rpc_server *server, void (*done)(void *data), void *data);
/* Ends the calls that are left, with UNAVAILABLE. Does not block. */
void esp_rpc_server_cancel(struct esp_rpc_server *server);
/* After done was called: joins the threads, frees. Blocks. NULL is fine. */
void esp_rpc_server_free(struct esp_rpc_server *server);

/* Whether an address may be listened on without TLS: loopback (127.0.0.0/8, [::1], localhost) and unix: always, others
 * only with insecure. INVALID_ARGUMENT for what is no address; FAILED_PRECONDITION, naming --insecure, for a refusal.
 */
enum esp_code esp_listen_check(const char *address, bool insecure, struct esp_status *st) ESP_WARN_UNUSED;

#endif
