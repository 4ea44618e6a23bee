/* Join, Leave and Heartbeat: a worker's session. Each answers at once. */
#include <espalier/v1/parameter_server.pb-c.h>

#include "rpc/methods.h"

/* Where the worker calls from, for those who list workers. Not on the way of pushes, which come too often. */
static void note_peer(struct esp_call *call, uint64_t session) {
  char text[ESP_PEER_BYTES_MAX + 1];
  esp_call_peer(call, text, sizeof(text));
  esp_session_note_peer(call->engine, session, text);
}

static void join(struct esp_call *call) {
  struct esp_decoded decoded = {0};
  if (!esp_call_decode(call, &espalier__v1__join_request__descriptor, &decoded))
    return;
  const Espalier__V1__JoinRequest *request = (const Espalier__V1__JoinRequest *)decoded.message;
  struct esp_join got;
  struct esp_status st;
  enum esp_code code = esp_session_join(call->engine, request->worker, request->session, &got, &st);
  if (code == ESP_OK) {
    note_peer(call, got.session);
    Espalier__V1__JoinReply reply = ESPALIER__V1__JOIN_REPLY__INIT;
    reply.session = got.session;
    reply.lineage = got.lineage;
    reply.last_sequence = got.last_sequence;
    reply.epoch = got.epoch;
    reply.commit = got.commit;
    reply.lease_ms = got.lease_ms;
    reply.in_flight_max = got.in_flight_max;
    reply.chunk_bytes_max = got.chunk_bytes_max;
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
    note_peer(call, got.session);
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

#define SERVER "/espalier.v1.ParameterServer/"

const struct esp_method esp_method_join = {.path = SERVER "Join", .answers_always = true, .message = join};
const struct esp_method esp_method_leave = {.path = SERVER "Leave", .answers_always = true, .message = leave};
const struct esp_method esp_method_heartbeat = {
    .path = SERVER "Heartbeat", .answers_always = true, .message = heartbeat};
