/* Join, Leave, Heartbeat and Watch: a worker's sessions, and what changed in the layout. Each answers at once. */
#include <espalier/v1/parameter_server.pb-c.h>

#include "rpc/methods.h"
#include "wire/wire.h"

/* ---- sessions ---- */

static void join(struct esp_call *call) {
  struct esp_decoded decoded = {0};
  if (!esp_call_decode(call, &espalier__v1__join_request__descriptor, &decoded))
    return;
  const Espalier__V1__JoinRequest *request = (const Espalier__V1__JoinRequest *)decoded.message;
  struct esp_join got;
  struct esp_status st;
  enum esp_code code = esp_session_join(call->engine, request->worker, request->session, &got, &st);
  if (code == ESP_OK) {
    Espalier__V1__JoinReply reply = ESPALIER__V1__JOIN_REPLY__INIT;
    reply.session = got.session;
    reply.lineage = got.lineage;
    reply.last_sequence = got.last_sequence;
    reply.epoch = got.epoch;
    reply.commit = got.commit;
    reply.lease_ms = got.lease_ms;
    reply.in_flight_max = ESP_IN_FLIGHT_MAX;
    reply.chunk_bytes_max = ESP_CHUNK_BYTES_MAX;
    esp_call_write_message(call, &reply.base);
  }
  esp_call_finish(call, code, &st);
  esp_decoded_done(&decoded);
}

static void leave(struct esp_call *call) {
  struct esp_decoded decoded = {0};
  if (!esp_call_decode(call, &espalier__v1__leave_request__descriptor, &decoded))
    return;
  struct esp_status st;
  enum esp_code code = esp_session_leave(call->engine, ((Espalier__V1__LeaveRequest *)decoded.message)->session, &st);
  if (code == ESP_OK) {
    Espalier__V1__LeaveReply reply = ESPALIER__V1__LEAVE_REPLY__INIT;
    esp_call_write_message(call, &reply.base);
  }
  esp_call_finish(call, code, &st);
  esp_decoded_done(&decoded);
}

static void heartbeat(struct esp_call *call) {
  struct esp_decoded decoded = {0};
  if (!esp_call_decode(call, &espalier__v1__heartbeat_request__descriptor, &decoded))
    return;
  struct esp_join got;
  struct esp_status st;
  enum esp_code code =
      esp_session_heartbeat(call->engine, ((Espalier__V1__HeartbeatRequest *)decoded.message)->session, &got, &st);
  if (code == ESP_OK) {
    Espalier__V1__HeartbeatReply reply = ESPALIER__V1__HEARTBEAT_REPLY__INIT;
    reply.lineage = got.lineage;
    reply.epoch = got.epoch;
    reply.commit = got.commit;
    reply.lease_ms = got.lease_ms;
    esp_call_write_message(call, &reply.base);
  }
  esp_call_finish(call, code, &st);
  esp_decoded_done(&decoded);
}

/* ---- Watch ---- */

struct watch_state {
  struct esp_layout *layout; /* ref'd */
  uint64_t commit;
  uint64_t since_epoch;
  size_t next; /* index of the leaf to look at */
};

/* Writes the next page of changed leaves; the last one ends the call. The first is written even if it is empty. */
static void write_page(struct esp_call *call) {
  struct watch_state *state = call->state;
  struct esp_page page = {0};
  Espalier__V1__LayoutEvent head = ESPALIER__V1__LAYOUT_EVENT__INIT;
  head.epoch = state->layout->epoch;
  head.commit = state->commit;
  head.lineage = esp_engine_lineage(call->engine);
  bool ok = esp_page_add_head(&page, &head.base);
  for (; ok && state->next < state->layout->leaves_len && page.len < ESP_PAGE_BYTES_USUAL; state->next++) {
    const struct esp_leaf *leaf = &state->layout->leaves[state->next];
    if (leaf->changed_epoch <= state->since_epoch)
      continue;
    Espalier__V1__LayoutEvent__Leaf entry = ESPALIER__V1__LAYOUT_EVENT__LEAF__INIT;
    entry.id = leaf->id;
    entry.frozen = esp_layout_place(state->layout, leaf)->frozen;
    entry.detached = leaf->detached;
    if (state->since_epoch == 0)
      entry.path = (char *)leaf->path;
    ok = esp_page_add(&page, 4, &entry.base);
  }
  if (!ok) {
    esp_page_done(&page);
    esp_call_fail(call, ESP_RESOURCE_EXHAUSTED, "no memory for a page");
    return;
  }
  esp_call_write(call, esp_page_take(&page));
  if (state->next == state->layout->leaves_len)
    esp_call_finish(call, ESP_OK, NULL);
}

static void watch(struct esp_call *call) {
  struct watch_state *state = call->state;
  struct esp_decoded decoded = {0};
  if (!esp_call_decode(call, &espalier__v1__watch_request__descriptor, &decoded))
    return;
  const Espalier__V1__WatchRequest *request = (const Espalier__V1__WatchRequest *)decoded.message;
  state->since_epoch = request->since_epoch;
  bool follow = request->follow;
  esp_decoded_done(&decoded);
  if (follow) {
    esp_call_fail(call, ESP_UNIMPLEMENTED, "following the layout's events (follow) is not built yet");
    return;
  }
  state->layout = esp_engine_layout(call->engine, &state->commit);
  write_page(call);
}

static void watch_release(struct esp_call *call) {
  esp_layout_unref(((struct watch_state *)call->state)->layout);
}

#define SERVER "/espalier.v1.ParameterServer/"

const struct esp_method esp_method_join = {.path = SERVER "Join", .message = join};
const struct esp_method esp_method_leave = {.path = SERVER "Leave", .message = leave};
const struct esp_method esp_method_heartbeat = {.path = SERVER "Heartbeat", .message = heartbeat};
const struct esp_method esp_method_watch = {
    .path = SERVER "Watch",
    .state_size = sizeof(struct watch_state),
    .message = watch,
    .writable = write_page,
    .release = watch_release,
};
