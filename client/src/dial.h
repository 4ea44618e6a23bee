/* Connecting a socket to a server, within a deadline. The sockets are the library's own and not gRPC's, so that a
 * connection whose peer has stopped reading can be broken: gRPC delays the closing of a channel until its write is
 * done, which is never. Any thread. */
#ifndef ESP_CLIENT_DIAL_H
#define ESP_CLIENT_DIAL_H

#include <stdatomic.h>
#include <stdint.h>

#include "client/src/address.h"

/* Connects; blocks until deadline_ms (of esp_now_ms) at most, or until shortly after *stop was set. *ret_fd is
 * non-blocking and close-on-exec. UNAVAILABLE says why there is no connection and what to do; PERMISSION_DENIED for a
 * Unix socket that this user may not open. */
enum esp_code esp_dial(const struct esp_address *address, uint64_t deadline_ms, const atomic_bool *stop, int *ret_fd,
                       struct esp_status *st) ESP_WARN_UNUSED;

#endif
