/* Push and Stage: one push a stream, the simple form of what PushPull carries.
 *
 * Happy path: the first message has the header, with or without chunks. It is held until the engine has room (READY),
 * then fed, and the next is read. Once whole a push is committed and its reply ends the call; a stage is kept and its
 * token does.
 *
 * How it fails: whatever is wrong ends the call with the engine's status. A client that goes away before the push is
 * whole leaves no trace. */
#include "rpc/intake.h"
#include "rpc/methods.h"

struct push_state {
  struct esp_intake intake;
  struct esp_rest rest; /* what is not chunks in a message */
  bool is_stage;
};

static void finish(struct push_state *state) {
  struct esp_intake *intake = &state->intake;
  struct esp_status st;
  enum esp_code code = esp_why_tell(&intake->why, &st);
  if (code == ESP_OK) {
    Espalier__V1__PushReply reply = esp_push_reply_of(&intake->reply);
    esp_call_write_message(intake->call, &reply.base);
  }
  esp_call_finish(intake->call, code, &st);
}

/* Makes a stage of the whole push. */
static void keep_stage(struct push_state *state) {
  struct esp_intake *intake = &state->intake;
  Espalier__V1__StageReply reply = ESPALIER__V1__STAGE_REPLY__INIT;
  struct esp_push *push = intake->push;
  intake->push = NULL; /* the engine frees it */
  struct esp_status st;
  enum esp_code code = esp_stage_keep(push, &reply.stage, &reply.expires_ms, &st);
  esp_intake_drop(intake);
  if (code == ESP_OK)
    esp_call_write_message(intake->call, &reply.base);
  esp_call_finish(intake->call, code, &st);
}

/* Takes the chunks of the message that is held, and goes on. */
static void take_chunks(struct push_state *state) {
  if (!esp_intake_feed(&state->intake))
    finish(state);
  else if (!esp_intake_is_whole(&state->intake))
    esp_call_read(state->intake.call);
  else if (state->is_stage)
    keep_stage(state);
  else
    esp_intake_commit(&state->intake);
}

static void changed(struct esp_intake *intake) {
  struct push_state *state = (struct push_state *)((char *)intake - offsetof(struct push_state, intake));
  if (esp_call_is_over(intake->call))
    return;
  if (intake->is_done)
    finish(state);
  else
    take_chunks(state);
}

static enum esp_code push_header(const struct esp_rest *rest, struct esp_push_header *ret, bool *ret_has,
                                 struct esp_status *st) {
  struct esp_decoded decoded = {0};
  enum esp_code code = esp_decode(&espalier__v1__push_request__descriptor, rest->bytes, rest->len, &decoded, st);
  if (code != ESP_OK)
    return code;
  const Espalier__V1__PushHeader *header = ((Espalier__V1__PushRequest *)decoded.message)->push;
  if (header != NULL && (code = esp_tree_check(header->tree, st)) == ESP_OK) {
    *ret = esp_push_header_of(header);
    *ret_has = true;
  }
  esp_decoded_done(&decoded);
  return code;
}

static enum esp_code stage_header(const struct esp_rest *rest, struct esp_push_header *ret, bool *ret_has,
                                  struct esp_status *st) {
  struct esp_decoded decoded = {0};
  enum esp_code code = esp_decode(&espalier__v1__stage_request__descriptor, rest->bytes, rest->len, &decoded, st);
  if (code != ESP_OK)
    return code;
  const Espalier__V1__StageHeader *header = ((Espalier__V1__StageRequest *)decoded.message)->header;
  if (header != NULL && (code = esp_tree_check(header->tree, st)) == ESP_OK) {
    *ret = (struct esp_push_header){
        .total_bytes = header->total_bytes, .leaf_count = header->leaf_count, .wait_ms = header->wait_ms};
    *ret_has = true;
  }
  esp_decoded_done(&decoded);
  return code;
}

/* Reads the message's header, if it has one. */
static enum esp_code read_header(struct push_state *state, struct esp_call *call, struct esp_push_header *ret,
                                 bool *ret_has, struct esp_status *st) {
  *ret_has = false;
  state->rest.len = 0;
  enum esp_code code = esp_wire_rest(call->spans, call->spans_len, ESP_CHUNKS_FIELD_UP, &state->rest, st);
  if (code == ESP_OK && state->rest.len > 0)
    code = (state->is_stage ? stage_header : push_header)(&state->rest, ret, ret_has, st);
  bool has_begun = state->intake.call != NULL;
  if (code == ESP_OK && *ret_has == has_begun)
    code =
        esp_fail(st, ESP_INVALID_ARGUMENT, "%s",
                 has_begun ? "a second header came on a stream that has one push" : "the first message has no header");
  return code;
}

static void take_message(struct esp_call *call, bool is_stage) {
  struct push_state *state = call->state;
  state->is_stage = is_stage;
  struct esp_push_header header;
  struct esp_status st;
  bool has_header;
  enum esp_code code = read_header(state, call, &header, &has_header, &st);
  if (code != ESP_OK) {
    esp_intake_drop(&state->intake);
    esp_call_finish(call, code, &st);
  } else if (!has_header) {
    take_chunks(state);
  } else {
    esp_intake_begin(&state->intake, call, &header, is_stage ? esp_stage_new : esp_push_new, changed);
    if (state->intake.is_done)
      finish(state);
  }
}

static void push_message(struct esp_call *call) {
  take_message(call, false);
}

static void stage_message(struct esp_call *call) {
  take_message(call, true);
}

static void half_close(struct esp_call *call) {
  struct push_state *state = call->state;
  if (state->intake.call == NULL) {
    esp_call_fail(call, ESP_INVALID_ARGUMENT, "the stream ended before its header came");
    return;
  }
  esp_intake_cut(&state->intake);
  finish(state);
}

static void drain(struct esp_call *call) {
  struct push_state *state = call->state;
  if (state->intake.call == NULL)
    esp_call_fail(call, ESP_UNAVAILABLE, ESP_SHUTDOWN_TEXT);
}

static void closed(struct esp_call *call) {
  struct push_state *state = call->state;
  esp_intake_drop(&state->intake);
}

static void release(struct esp_call *call) {
  struct push_state *state = call->state;
  esp_intake_done(&state->intake);
  esp_rest_done(&state->rest);
}

const struct esp_method esp_method_push = {
    .path = "/espalier.v1.ParameterServer/Push",
    .state_size = sizeof(struct push_state),
    .message = push_message,
    .half_close = half_close,
    .drain = drain,
    .closed = closed,
    .release = release,
};

const struct esp_method esp_method_stage = {
    .path = "/espalier.v1.ParameterServer/Stage",
    .state_size = sizeof(struct push_state),
    .message = stage_message,
    .half_close = half_close,
    .drain = drain,
    .closed = closed,
    .release = release,
};
