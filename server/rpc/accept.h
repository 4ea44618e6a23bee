/* Connections: the sockets that listen, a thread that accepts, and a bound on how many there are.
 *
 * gRPC's own listener is not used: at the first accept that fails for another reason than that nobody is there (too
 * many open files, say) gRPC 1.51 stops listening for good, it knows no bound, and waits for the first byte of a
 * connection for ever. */
#ifndef ESP_RPC_ACCEPT_H
#define ESP_RPC_ACCEPT_H

#include <espalier/status.h>

#include <stddef.h>
#include <stdint.h>

struct esp_accept;

struct esp_accept_options {
  const char *const *listen; /* addresses that esp_listen_check took */
  size_t listen_len;
  uint64_t connections_max;  /* --max-connections */
  uint64_t stall_timeout_ms; /* --stall-timeout, 0 for none: a connection that has not begun HTTP/2 by then, or within
                                10 s, is closed */
  uint64_t user_timeout_ms;  /* of esp_listen_open */
  /* Takes a connection's socket: a client that speaks HTTP/2, whose first bytes are still to be read. Called by the
   * thread that accepts. */
  void (*connected)(void *data, int fd);
  void *data;
};

/* Listens, without accepting. Raises this process's limit of open files to what connections_max needs; where the
 * machine does not let it, fewer connections are taken and a warning is logged. UNAVAILABLE names the address that
 * can't be bound. */
enum esp_code esp_accept_new(const struct esp_accept_options *options, struct esp_accept **ret,
                             struct esp_status *st) ESP_WARN_UNUSED;
/* The addresses that it listens on, with the real ports, in the order of options->listen. Borrowed. */
size_t esp_accept_addresses(const struct esp_accept *accept, const char *const **ret);
/* Starts the thread. */
enum esp_code esp_accept_start(struct esp_accept *accept, struct esp_status *st) ESP_WARN_UNUSED;
/* Closes the listening sockets and the connections that were not handed on; no `connected` comes once this has
 * returned. Waits for the thread, never for the network. Idempotent. */
void esp_accept_stop(struct esp_accept *accept);
void esp_accept_free(struct esp_accept *accept); /* stops it; NULL is fine */

struct esp_accept_stat {
  uint64_t connections;     /* that are open */
  uint64_t connections_max; /* what the machine allows of --max-connections */
  uint64_t refused;         /* since the start: closed at once, since there were as many as may be */
};
/* Any thread. */
void esp_accept_stat(struct esp_accept *accept, struct esp_accept_stat *ret);

#endif
