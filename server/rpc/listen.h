/* Unix sockets among the addresses to listen on. */
#ifndef ESP_RPC_LISTEN_H
#define ESP_RPC_LISTEN_H

#include <espalier/status.h>

/* The path of "unix:PATH", in place, or NULL. */
const char *esp_listen_unix_path(const char *address);
/* Removes a socket that nobody listens on any more. UNAVAILABLE where somebody does, or where the path is something
 * else. */
enum esp_code esp_listen_clear(const char *path, struct esp_status *st) ESP_WARN_UNUSED;

#endif
