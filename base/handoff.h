/* The order between handing memory to libgrpc and its destroy callback on one of libgrpc's threads. gRPC orders the two
 * itself, but is not built for the thread sanitizer, which needs to see it once more. Any thread; no lock, no call, so
 * it may run in such a callback. */
#ifndef ESP_BASE_HANDOFF_H
#define ESP_BASE_HANDOFF_H

/* Right before memory, or what its callback will look at, goes to gRPC. */
void esp_handoff_give(void);
/* The first thing in the callback. */
void esp_handoff_take(void);

#endif
