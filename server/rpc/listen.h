/* Listening sockets. */
#ifndef ESP_RPC_LISTEN_H
#define ESP_RPC_LISTEN_H

#include <espalier/status.h>

#include <stddef.h>
#include <stdint.h>

#define ESP_LISTEN_SOCKETS_MAX 8 /* of one address: a host's name may stand for several */

struct esp_listener {
  char *address; /* owned; as it was given, but with the real port; NULL where nothing is open */
  int fds[ESP_LISTEN_SOCKETS_MAX];
  size_t fds_len;
};

/* Listens on an address that esp_listen_check took, without blocking sockets. A host's name is looked up (which may
 * block) and listened on at all of its addresses that this machine has. The file of a Unix socket has mode 0600; one
 * that nobody listens on any more is replaced. TCP connections end where what was sent stays unacknowledged for
 * user_timeout_ms. UNAVAILABLE names the address and what is in the way. */
enum esp_code esp_listen_open(const char *address, uint64_t user_timeout_ms, struct esp_listener *ret,
                              struct esp_status *st) ESP_WARN_UNUSED;
/* Closes the sockets and removes a Unix socket's file; the address stays. Idempotent. */
void esp_listen_close(struct esp_listener *listener);
/* The same, and frees the address. Idempotent; of a zeroed one too. */
void esp_listen_done(struct esp_listener *listener);

/* The other end of a connection, by its socket, as 192.0.2.7:4711, [2001:db8::7]:4711 or unix, for people; of one that
 * is gone: unknown. */
void esp_listen_peer(int connection, char *ret, size_t size);

/* The path of "unix:PATH", in place, or NULL. */
const char *esp_listen_unix_path(const char *address);
/* Removes a socket that nobody listens on any more. UNAVAILABLE where somebody does, or where the path is something
 * else. */
enum esp_code esp_listen_clear(const char *path, struct esp_status *st) ESP_WARN_UNUSED;

#endif
