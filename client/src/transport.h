/* The client's only door to gRPC: connections, and calls on them, driven by the thread that waits for them.
 *
 * A call is used by one thread at a time, esp_call_wake excepted. Deadlines are absolute, on esp_now_ms's clock. Memory
 * that was lent to a call is free when esp_call_settle or esp_call_free has returned, or the account that it was lent
 * under is at 0, and not before: gRPC keeps references to it until the kernel has taken the bytes. */
#ifndef ESP_CLIENT_TRANSPORT_H
#define ESP_CLIENT_TRANSPORT_H

#include <espalier/status.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

/* gRPC's own start and end, counted. */
void esp_transport_init(void);
void esp_transport_done(void);

/* ---- connections ---- */

struct esp_conn; /* one socket to the server; counted references; any thread */

/* Takes over the socket in any case. address is for error messages and the HTTP/2 authority; copied. RESOURCE_EXHAUSTED
 * without memory or file descriptors. */
enum esp_code esp_conn_new(int fd, const char *address, struct esp_conn **ret, struct esp_status *st) ESP_WARN_UNUSED;
struct esp_conn *esp_conn_ref(struct esp_conn *conn);
void esp_conn_unref(struct esp_conn *conn); /* NULL is fine */
/* Whether a new call makes sense on it: its peer has not hung up, and no call on it was cut or waited in vain. */
bool esp_conn_is_usable(const struct esp_conn *conn);
/* Shuts the socket down: every call on it ends, and all lent memory comes back. */
void esp_conn_break(struct esp_conn *conn);

/* ---- calls ---- */

struct esp_call;

/* How many pieces of memory are lent. Zero it; it stays where it is until it is back at 0. */
struct esp_loans {
  atomic_size_t count;      /* not back yet */
  struct esp_loans *parent; /* counts them too; NULL: none */
};
bool esp_loans_are_back(const struct esp_loans *loans);

/* Begins a call of `method` ("/espalier.v1.ParameterServer/Join"), which is static. Does not block. */
enum esp_code esp_call_new(struct esp_conn *conn, const char *method, struct esp_call **ret,
                           struct esp_status *st) ESP_WARN_UNUSED;
/* Cancels what is under way and waits until all memory that was lent is back; breaks the connection where that takes
 * long. NULL is fine. */
void esp_call_free(struct esp_call *call);

/* Builds the next message. */
void esp_call_append(struct esp_call *call, const void *bytes, size_t len);      /* copies */
void esp_call_append_loan(struct esp_call *call, const void *bytes, size_t len); /* refers to the caller's memory */
/* Counts what is lent from now on in an account of the caller's too, which several calls may have one after the other;
 * NULL: in the call's own only. */
void esp_call_lend_under(struct esp_call *call, struct esp_loans *loans);
/* Sends it, after the one before has left; `last` ends the sending side. A code other than ESP_OK is how the call
 * ended: what the server said, UNAVAILABLE where the connection was cut, or DEADLINE_EXCEEDED. Then only esp_call_free
 * is left. */
enum esp_code esp_call_send(struct esp_call *call, bool last, uint64_t deadline_ms,
                            struct esp_status *st) ESP_WARN_UNUSED;

struct esp_received {
  const struct esp_span
      *spans; /* the message, borrowed until the call's next function; NULL: the call has ended well */
  size_t spans_len;
  size_t bytes; /* of all spans */
};
/* Waits for the next message. Codes as above. */
enum esp_code esp_call_recv(struct esp_call *call, uint64_t deadline_ms, struct esp_received *ret,
                            struct esp_status *st) ESP_WARN_UNUSED;
/* Waits until the memory that was lent is back; ESP_OK leaves the call open for more. */
enum esp_code esp_call_settle(struct esp_call *call, uint64_t deadline_ms, struct esp_status *st) ESP_WARN_UNUSED;

/* For a thread that sends and receives at a time: */

/* Whether esp_call_send would not wait. */
bool esp_call_may_send(struct esp_call *call);
/* Whether esp_call_recv would not wait: there is a message, or the call has ended. */
bool esp_call_may_recv(struct esp_call *call);
/* Waits until either may have changed, the deadline, or esp_call_wake. */
void esp_call_step(struct esp_call *call, uint64_t deadline_ms);
/* DEADLINE_EXCEEDED, as of esp_call_send and esp_call_recv: its connection is not usable any more. */
enum esp_code esp_call_give_up(struct esp_call *call, struct esp_status *st);
/* Ends an esp_call_step, the one under way or the next. Any thread, while the call is not freed. */
void esp_call_wake(struct esp_call *call);

#endif
