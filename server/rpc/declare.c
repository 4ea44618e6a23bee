/* Declare: a client stream that is one transaction.
 *
 * Happy path: the first message has the header, with or without leaves. It is held until the engine has room for the
 * values that follow (READY); then each message's nodes, leaves and chunks are added and the next is read. The end of
 * the stream commits, and the reply has the leaves' ids as runs, since new leaves get consecutive ones.
 *
 * How it fails: whatever is wrong ends the call with the engine's status, and a client that goes away declares nothing:
 * only an orderly end of the stream commits. */
#include "rpc/convert.h"
#include "rpc/intake.h"
#include "rpc/methods.h"

struct declare_state {
  struct esp_call *call;
  struct esp_declare *declare; /* NULL before the header, and once committed or dropped */
  struct esp_event ready;      /* the engine has room */
  struct esp_event refused;    /* the engine ended it: code and st say why */
  struct esp_event committed;  /* the transaction is done: code and st, or reply */
  struct esp_rest rest;        /* what is not chunks in a message */
  struct esp_decoded request;  /* the same, decoded, while a message is being dealt with */
  bool has_header;             /* it came */
  bool has_chunks;             /* so no leaves may follow */
  enum esp_code code;
  struct esp_status st;
  struct esp_page reply; /* encoded in the engine's callback, where the ids are borrowed */
};

static void drop(struct declare_state *state) {
  esp_declare_free(state->declare);
  state->declare = NULL;
  esp_event_cancel(&state->ready);
  esp_event_cancel(&state->refused);
}

static void fail(struct declare_state *state, enum esp_code code, const struct esp_status *st) {
  esp_call_finish(state->call, code, st);
  drop(state);
}

/* ---- leaves and nodes ---- */

static enum esp_code add_leaf(struct esp_declare *declare, const Espalier__V1__LeafSpec *spec, struct esp_status *st) {
  struct esp_declare_leaf leaf;
  enum esp_code code = esp_convert_leaf(spec, &leaf, st);
  return code == ESP_OK ? esp_declare_add_leaf(declare, &leaf, st) : code;
}

static enum esp_code add_node(struct esp_declare *declare, const Espalier__V1__NodeSpec *spec, struct esp_status *st) {
  struct esp_declare_node node = esp_convert_node(spec);
  return esp_declare_add_node(declare, &node, st);
}

static enum esp_code feed_chunk(void *data, const struct esp_chunk *chunk, struct esp_status *st) {
  struct declare_state *state = data;
  state->has_chunks = true;
  struct esp_piece piece;
  enum esp_code code = esp_piece_of_chunk(chunk, &piece, st);
  return code == ESP_OK ? esp_declare_feed(state->declare, &piece, st) : code;
}

/* Adds what the held message has. */
static enum esp_code take_content(struct declare_state *state, struct esp_status *st) {
  const Espalier__V1__DeclareRequest *request = (const Espalier__V1__DeclareRequest *)state->request.message;
  if (request != NULL && state->has_chunks && request->n_leaves + request->n_nodes > 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaves or nodes came after chunks: all of them come first");
  enum esp_code code = ESP_OK;
  for (size_t i = 0; request != NULL && i < request->n_nodes && code == ESP_OK; i++)
    code = add_node(state->declare, request->nodes[i], st);
  for (size_t i = 0; request != NULL && i < request->n_leaves && code == ESP_OK; i++)
    code = add_leaf(state->declare, request->leaves[i], st);
  if (code != ESP_OK)
    return code;
  return esp_wire_chunks(state->call->spans, state->call->spans_len, ESP_CHUNKS_FIELD_UP, feed_chunk, state, st);
}

static void take_message(struct declare_state *state) {
  struct esp_status st;
  enum esp_code code = take_content(state, &st);
  esp_decoded_done(&state->request);
  if (code == ESP_OK)
    esp_call_read(state->call);
  else
    fail(state, code, &st);
}

/* ---- begin ---- */

/* The engine's callback, from any thread. */
static void on_room(void *data, enum esp_push_event event, enum esp_code code, const struct esp_status *st,
                    const struct esp_push_reply *reply) {
  struct declare_state *state = data;
  (void)reply;
  if (event == ESP_PUSH_READY) {
    esp_event_post(&state->ready);
    return;
  }
  state->code = code;
  state->st = *st;
  esp_event_post(&state->refused);
}

static void handle_ready(struct esp_event *event) {
  struct declare_state *state = (struct declare_state *)((char *)event - offsetof(struct declare_state, ready));
  if (!esp_call_is_over(state->call))
    take_message(state);
}

static void handle_refused(struct esp_event *event) {
  struct declare_state *state = (struct declare_state *)((char *)event - offsetof(struct declare_state, refused));
  fail(state, state->code, &state->st);
}

static void begin(struct declare_state *state, const Espalier__V1__DeclareHeader *header) {
  struct esp_push_header wanted = {.session = header->session,
                                   .total_bytes = header->total_bytes,
                                   .leaf_count = header->leaf_count,
                                   .wait_ms = header->wait_ms};
  struct esp_status st;
  enum esp_code code = esp_tree_check(header->tree, &st);
  if (code == ESP_OK) {
    esp_event_arm(&state->ready, state->call, handle_ready);
    esp_event_arm(&state->refused, state->call, handle_refused);
    code = esp_declare_new(state->call->engine, &wanted, on_room, state, &state->declare, &st);
  }
  if (code != ESP_OK)
    fail(state, code, &st);
}

static void message(struct esp_call *call) {
  struct declare_state *state = call->state;
  state->call = call;
  state->rest.len = 0;
  struct esp_status st;
  enum esp_code code = esp_wire_rest(call->spans, call->spans_len, ESP_CHUNKS_FIELD_UP, &state->rest, &st);
  if (code == ESP_OK && state->rest.len > 0)
    code = esp_decode(&espalier__v1__declare_request__descriptor, state->rest.bytes, state->rest.len, &state->request,
                      &st);
  const Espalier__V1__DeclareRequest *request = (const Espalier__V1__DeclareRequest *)state->request.message;
  bool has_header = request != NULL && request->header != NULL;
  if (code == ESP_OK && has_header == state->has_header)
    code = esp_fail(&st, ESP_INVALID_ARGUMENT, "%s",
                    has_header ? "a second header came" : "the first message has no header");
  if (code != ESP_OK) {
    fail(state, code, &st);
  } else if (has_header) {
    state->has_header = true;
    begin(state, request->header);
  } else {
    take_message(state);
  }
}

/* ---- commit ---- */

/* The ids as runs of consecutive ones. */
static bool encode_ids(struct esp_page *page, const uint64_t *ids, size_t ids_len) {
  for (size_t i = 0, n; i < ids_len; i += n) {
    for (n = 1; i + n < ids_len && ids[i + n] == ids[i] + n; n++) {
    }
    Espalier__V1__DeclareReply__IdRun run = ESPALIER__V1__DECLARE_REPLY__ID_RUN__INIT;
    run.first = ids[i];
    run.count = n;
    if (!esp_page_add(page, 1, &run.base))
      return false;
  }
  return true;
}

static bool encode_reply(struct esp_page *page, const struct esp_declare_reply *reply) {
  Espalier__V1__DeclareReply head = ESPALIER__V1__DECLARE_REPLY__INIT;
  head.added = reply->added;
  head.epoch = reply->epoch;
  head.commit = reply->commit;
  head.lineage = reply->lineage;
  bool ok = encode_ids(page, reply->ids, reply->ids_len) && esp_page_add_head(page, &head.base);
  for (size_t i = 0; i < reply->notes_len && ok; i++)
    ok = esp_page_add_text(page, 6, reply->notes[i]);
  return ok;
}

/* The engine's callback, from any thread. */
static void on_commit(void *data, enum esp_code code, const struct esp_status *st,
                      const struct esp_declare_reply *reply) {
  struct declare_state *state = data;
  state->code = code;
  if (code != ESP_OK)
    state->st = *st;
  else if (!encode_reply(&state->reply, reply))
    state->code = esp_fail(&state->st, ESP_UNAVAILABLE, ESP_REPLY_LOST_TEXT);
  esp_event_post(&state->committed);
}

static void handle_committed(struct esp_event *event) {
  struct declare_state *state = (struct declare_state *)((char *)event - offsetof(struct declare_state, committed));
  if (state->code == ESP_OK)
    esp_call_write(state->call, esp_page_take(&state->reply));
  esp_call_finish(state->call, state->code, &state->st);
}

static void half_close(struct esp_call *call) {
  struct declare_state *state = call->state;
  if (!state->has_header) {
    esp_call_fail(call, ESP_INVALID_ARGUMENT, "the stream ended before its header came");
    return;
  }
  esp_event_cancel(&state->refused);
  struct esp_declare *declare = state->declare;
  state->declare = NULL;
  esp_event_arm(&state->committed, call, handle_committed);
  esp_declare_commit(declare, on_commit, state);
}

/* ---- the end ---- */

static void drain(struct esp_call *call) {
  struct declare_state *state = call->state;
  if (!state->has_header)
    esp_call_fail(call, ESP_UNAVAILABLE, ESP_SHUTDOWN_TEXT);
}

static void closed(struct esp_call *call) {
  struct declare_state *state = call->state;
  if (state->declare != NULL)
    drop(state);
}

static void release(struct esp_call *call) {
  struct declare_state *state = call->state;
  esp_decoded_done(&state->request);
  esp_rest_done(&state->rest);
  esp_page_done(&state->reply);
}

const struct esp_method esp_method_declare = {
    .path = "/espalier.v1.ParameterServer/Declare",
    .state_size = sizeof(struct declare_state),
    .message = message,
    .half_close = half_close,
    .drain = drain,
    .closed = closed,
    .release = release,
};
