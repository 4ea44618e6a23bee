/* What comes in on each connection and is not seen: gRPC 1.51 gathers a message until it is whole before it looks at
 * its length, so a client that announces 4 GiB and goes on sending would be given 4 GiB. Here connections are watched
 * from outside, by the bytes that their sockets took and the messages that came of them. And it counts calls, since
 * gRPC holds a client to the bound on streams only once the client has agreed to it.
 *
 * By one thread at a time. A connection is the number of its socket. */
#ifndef ESP_RPC_INFLOW_H
#define ESP_RPC_INFLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct esp_inflow {
  uint64_t calls;     /* open */
  uint64_t seen;      /* stands for what came of the connection so far: of this look */
  uint64_t seen_was;  /* of the last one */
  uint64_t bytes;     /* that the socket had taken when something came of them last */
  uint64_t bytes_was; /* at the last look */
  bool is_endless;    /* more came in than the messages of its calls may have */
};

struct esp_inflows {
  struct esp_inflow *by_connection;
  size_t len;
  size_t capacity;
};
void esp_inflows_done(struct esp_inflows *inflows);

/* A call begins: returns how many are open on its connection with it; 0 without memory. */
uint64_t esp_inflows_enter(struct esp_inflows *inflows, int connection);
/* And ends. */
void esp_inflows_leave(struct esp_inflows *inflows, int connection);

/* A look at all connections: begin, then each open call (by a number of its own) with how many messages have come and
 * gone on it, then end. bytes_max is what may come in on a connection for each of its calls while none of them gets a
 * message; received tells how many bytes a connection has taken in all. */
void esp_inflows_begin(struct esp_inflows *inflows);
void esp_inflows_add(struct esp_inflows *inflows, int connection, uint64_t call, uint64_t messages);
void esp_inflows_end(struct esp_inflows *inflows, uint64_t bytes_max, uint64_t (*received)(int connection));
/* What the last look found. */
bool esp_inflows_is_endless(const struct esp_inflows *inflows, int connection);

/* The bytes that a TCP connection has taken; 0 of other sockets: a Unix socket is open to the server's own user only.
 */
uint64_t esp_inflow_received(int connection);

#endif
