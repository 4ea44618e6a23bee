/* The locks of gRPC, which are Abseil's. */
#ifndef ESP_RPC_LOCKS_H
#define ESP_RPC_LOCKS_H

#ifdef __cplusplus
extern "C" {
#endif

/* Debian builds Abseil with its search for deadlocks, which notes each lock and unlock of each mutex in a graph: a
 * tenth of a unary call's instructions. This switches it off for the process, before gRPC is used. */
void esp_locks_unwatched(void);

#ifdef __cplusplus
}
#endif

#endif
