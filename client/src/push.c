/* Pushes and pulls on one stream.
 *
 * The happy path: leaves that are known to be frozen are left out, the push takes a sequence, its header and chunks go
 * out on a stream that is open already, a pull's request right behind them, and then whatever the server sends is taken
 * until both are answered.
 *
 * How it fails: an attempt ends with the call's code, and its stream is dropped, which waits for the lent memory.
 * UNAVAILABLE is sent again with the same sequence, unless the push was answered already: then only the pull is. Where
 * the server refuses the session it is asked whether it still knows it:
 *
 *   alive                         the refusal stands
 *   started anew                  ABORTED, after on_lineage
 *   expired, sent once            that one was refused: again, with a sequence of the new session
 *   expired, sent more than once  FAILED_PRECONDITION: an earlier one may have been applied */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "client/src/client.h"

/* Leaves of one PullRequest, which must fit a message. */
#define PULL_LEAVES_MAX 262144

struct push {
  const struct esp_gradient *grads; /* the caller's */
  size_t len;                       /* of grads */
  bool *skip;                       /* one a gradient: known to be frozen, not sent; owned */
  uint64_t skipped;                 /* of them */
  uint64_t total_bytes;             /* of those that are sent */
  struct esp_session session;       /* with the sequence */
  bool begun;                       /* the sequence is taken */
  unsigned sends;                   /* attempts that have sent something under this sequence */
  bool done;                        /* the reply is there */
  struct esp_push_result result;    /* once done */
};

struct pull {
  const struct esp_weight *weights; /* the caller's */
  size_t len;                       /* of weights */
  size_t asked;                     /* weights whose request was sent in this attempt */
  size_t at;                        /* the weight that is due */
  uint64_t filled;                  /* bytes of it that are there */
  uint64_t lineage;                 /* that the answer must be of; 0: any */
  bool has_head;                    /* result is there */
  struct esp_pull_result result;    /* of the first request */
  bool done;                        /* all weights are there */
};

/* One call of the user's: a push, a pull, or both. */
struct exchange {
  struct esp_client *client;
  struct push *push;      /* NULL: none */
  struct pull *pull;      /* NULL: none */
  struct esp_retry retry; /* of all attempts */
  bool asked;             /* the server was, in this attempt */
};

/* ---- checks before anything is sent ---- */

static const char *path_of(const struct esp_leaf_known *leaf) {
  return leaf->path == NULL ? "?" : leaf->path;
}

/* With the mutex held. */
static enum esp_code check_leaf(const struct esp_client *client, const char *what, size_t index, esp_leaf_id id,
                                const void *data, size_t bytes, const struct esp_leaf_known **ret,
                                struct esp_status *st) {
  if (id == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%s %zu names no leaf (its id is 0)", what, index);
  const struct esp_leaf_known *leaf = esp_leaves_find(&client->leaves, id);
  if (leaf != NULL && leaf->bytes != bytes)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s has %" PRIu64 " bytes, and %s %zu for it %zu", path_of(leaf),
                    leaf->bytes, what, index, bytes);
  if (data == NULL || bytes == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%s %zu (leaf id %" PRIu64 ") has no memory", what, index, id);
  *ret = leaf;
  return ESP_OK;
}

static enum esp_code plan_push(struct esp_client *client, struct push *push, struct esp_status *st) {
  push->skip = esp_calloc(push->len + 1, sizeof *push->skip);
  if (push->skip == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for a push of %zu leaves", push->len);
  enum esp_code code = ESP_OK;
  pthread_mutex_lock(&client->mutex);
  for (size_t i = 0; i < push->len && code == ESP_OK; i++) {
    const struct esp_gradient *grad = &push->grads[i];
    const struct esp_leaf_known *leaf = NULL;
    code = check_leaf(client, "gradient", i, grad->leaf, grad->data, grad->bytes, &leaf, st);
    if (code != ESP_OK)
      break;
    push->skip[i] = leaf != NULL && leaf->frozen;
    push->skipped += push->skip[i];
    if (!push->skip[i] && __builtin_add_overflow(push->total_bytes, (uint64_t)grad->bytes, &push->total_bytes))
      code = esp_fail(st, ESP_INVALID_ARGUMENT, "the gradients have more than 2^64 bytes");
  }
  pthread_mutex_unlock(&client->mutex);
  return code;
}

static enum esp_code plan_pull(struct esp_client *client, const struct pull *pull, struct esp_status *st) {
  if (pull->len == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a pull names one leaf at least");
  enum esp_code code = ESP_OK;
  pthread_mutex_lock(&client->mutex);
  for (size_t i = 0; i < pull->len && code == ESP_OK; i++) {
    const struct esp_weight *weight = &pull->weights[i];
    const struct esp_leaf_known *leaf;
    code = check_leaf(client, "weight", i, weight->leaf, weight->data, weight->bytes, &leaf, st);
  }
  pthread_mutex_unlock(&client->mutex);
  return code;
}

/* ---- sending ---- */

static enum esp_code send_push(struct exchange *ex, struct esp_call *call, struct esp_status *st) {
  struct push *push = ex->push;
  struct esp_push_head head = {.session = push->session.session,
                               .sequence = push->session.sequence,
                               .total_bytes = push->total_bytes,
                               .leaf_count = push->len - push->skipped,
                               .wait_ms = esp_left_ms(ex->retry.deadline_ms),
                               .lineage = push->session.lineage};
  struct esp_buf buf = {0};
  enum esp_code code = esp_encode_push(&buf, &head, st);
  if (code == ESP_OK)
    esp_call_append(call, buf.data, buf.len);
  esp_buf_done(&buf);
  push->sends++;
  struct esp_chunk_writer writer = {.call = call, .deadline_ms = ex->retry.deadline_ms};
  for (size_t i = 0; i < push->len && code == ESP_OK; i++) {
    struct esp_chunk_name name = {.leaf = push->grads[i].leaf};
    if (!push->skip[i])
      code = esp_chunks_put(&writer, &name, push->grads[i].data, push->grads[i].bytes, st);
  }
  return code == ESP_OK ? esp_call_send(call, false, ex->retry.deadline_ms, st) : code;
}

/* Asks for the weights that are left, or as many as one request can name. */
static enum esp_code send_pull(struct exchange *ex, struct esp_call *call, struct esp_status *st) {
  struct pull *pull = ex->pull;
  size_t len = pull->len - pull->asked < PULL_LEAVES_MAX ? pull->len - pull->asked : PULL_LEAVES_MAX;
  struct esp_buf buf = {0};
  enum esp_code code = esp_encode_pull(&buf, pull->weights + pull->asked, len, esp_left_ms(ex->retry.deadline_ms), st);
  if (code == ESP_OK) {
    esp_call_append(call, buf.data, buf.len);
    code = esp_call_send(call, false, ex->retry.deadline_ms, st);
  }
  esp_buf_done(&buf);
  pull->asked += len;
  return code;
}

/* ---- receiving ---- */

static enum esp_code take_chunk(void *data, const struct esp_chunk *chunk, struct esp_status *st) {
  struct pull *pull = data;
  if (pull == NULL || pull->at == pull->asked)
    return esp_fail(st, ESP_INTERNAL, "the server sent a chunk of leaf id %" PRIu64 " that nobody asked for",
                    chunk->leaf_id);
  const struct esp_weight *weight = &pull->weights[pull->at];
  if (chunk->leaf_id != weight->leaf || chunk->offset != pull->filled)
    return esp_fail(st, ESP_INTERNAL,
                    "the server sent leaf id %" PRIu64 " from byte %" PRIu64 " on, where leaf id %" PRIu64
                    " from byte %" PRIu64 " on was due",
                    chunk->leaf_id, chunk->offset, weight->leaf, pull->filled);
  uint64_t len = chunk->data.left;
  if ((chunk->has_tensor && chunk->tensor.bytes != 0 && chunk->tensor.bytes != weight->bytes) ||
      len > weight->bytes - pull->filled)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "weight %zu has memory for %zu bytes; leaf id %" PRIu64 " has %" PRIu64,
                    pull->at, weight->bytes, weight->leaf,
                    chunk->has_tensor && chunk->tensor.bytes != 0 ? chunk->tensor.bytes : pull->filled + len);
  struct esp_cursor cursor = chunk->data;
  if (!esp_cursor_copy(&cursor, (uint8_t *)weight->data + pull->filled, (size_t)len))
    return esp_fail(st, ESP_INTERNAL, "a chunk of leaf id %" PRIu64 " is shorter than it says", weight->leaf);
  pull->filled += len;
  if (pull->filled == weight->bytes) {
    pull->at++;
    pull->filled = 0;
  }
  return ESP_OK;
}

static enum esp_code take_push_reply(struct push *push, const struct esp_stream_reply *reply, struct esp_status *st) {
  if (push == NULL || push->done || reply->sequence != push->session.sequence)
    return esp_fail(st, ESP_INTERNAL, "the server answered push %" PRIu64 ", which is not the one that was sent",
                    reply->sequence);
  push->result = reply->push;
  /* The server did not see what was not sent. */
  push->result.frozen += push->skipped;
  push->result.absent -= push->skipped < push->result.absent ? push->skipped : push->result.absent;
  push->done = true;
  return ESP_OK;
}

static enum esp_code take_pull_head(struct pull *pull, const struct esp_pull_head *head, struct esp_status *st) {
  if (pull == NULL)
    return esp_fail(st, ESP_INTERNAL, "the server answered a pull that nobody asked for");
  if (pull->lineage != 0 && head->lineage != pull->lineage)
    return esp_fail(st, ESP_ABORTED, "the server answered in lineage %016" PRIx64 ", not in %016" PRIx64, head->lineage,
                    pull->lineage);
  if (!pull->has_head)
    pull->result = (struct esp_pull_result){.commit = head->commit, .epoch = head->epoch};
  pull->has_head = true;
  return ESP_OK;
}

static enum esp_code take_pull_end(struct pull *pull, struct esp_status *st) {
  if (pull == NULL || !pull->has_head || pull->at != pull->asked)
    return esp_fail(st, ESP_INTERNAL, "the server ended a pull before all leaves were there");
  pull->done = pull->at == pull->len;
  return ESP_OK;
}

/* Takes one message. *ret_ended: a pull's request is answered, so the next may be sent. */
static enum esp_code take_message(struct exchange *ex, struct esp_in in, bool *ret_ended, struct esp_status *st) {
  struct esp_stream_reply reply;
  enum esp_code code = esp_decode_stream(in, &reply, st);
  if (code == ESP_OK && reply.has_push)
    code = take_push_reply(ex->push, &reply, st);
  if (code == ESP_OK && reply.has_head)
    code = take_pull_head(ex->pull, &reply.head, st);
  if (code == ESP_OK)
    code = esp_wire_chunks(in.spans, in.len, ESP_RESPONSE_CHUNKS, take_chunk, ex->pull, st);
  if (code == ESP_OK && reply.has_end)
    code = take_pull_end(ex->pull, st);
  *ret_ended = reply.has_end;
  return code;
}

static bool is_done(const struct exchange *ex) {
  return (ex->push == NULL || ex->push->done) && (ex->pull == NULL || ex->pull->done);
}

static enum esp_code receive(struct exchange *ex, struct esp_call *call, struct esp_status *st) {
  while (!is_done(ex)) {
    struct esp_received message;
    enum esp_code code = esp_call_recv(call, ex->retry.deadline_ms, &message, st);
    if (code == ESP_OK && message.spans == NULL)
      code = esp_fail(st, ESP_UNAVAILABLE, "the server at %s ended the stream before it answered",
                      ex->client->address.text);
    bool ended = false;
    if (code == ESP_OK)
      code = take_message(ex, (struct esp_in){.spans = message.spans, .len = message.spans_len}, &ended, st);
    if (code == ESP_OK && ended && !ex->pull->done)
      code = send_pull(ex, call, st);
    if (code != ESP_OK)
      return code;
  }
  return ESP_OK;
}

/* ---- attempts ---- */

static enum esp_code prepare(struct exchange *ex, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  if (ex->push != NULL && !ex->push->begun) {
    code = esp_session_push_begin(ex->client, ex->retry.deadline_ms, &ex->push->session, st);
    ex->push->begun = code == ESP_OK;
  }
  uint64_t lineage = 0;
  if (code == ESP_OK)
    code = esp_session_leaves_check(ex->client, &lineage, st);
  if (code == ESP_OK && ex->pull != NULL) {
    ex->pull->asked = ex->pull->at = 0;
    ex->pull->filled = 0;
    ex->pull->has_head = false;
    ex->pull->lineage = lineage;
  }
  return code;
}

static enum esp_code attempt(struct exchange *ex, struct esp_status *st) {
  struct esp_stream *stream;
  ex->asked = false;
  enum esp_code code = prepare(ex, st);
  if (code == ESP_OK)
    code = esp_stream_take(ex->client, ex->retry.deadline_ms, &stream, st);
  if (code != ESP_OK)
    return code;
  ex->asked = true;
  if (ex->push != NULL && !ex->push->done)
    code = send_push(ex, stream->call, st);
  if (code == ESP_OK && ex->pull != NULL)
    code = send_pull(ex, stream->call, st);
  if (code == ESP_OK)
    code = receive(ex, stream->call, st);
  /* All is answered, so a stream that still holds memory of the caller's is only not worth keeping. */
  if (code == ESP_OK && esp_call_settle(stream->call, ex->retry.deadline_ms, NULL) == ESP_OK)
    esp_stream_give(ex->client, stream);
  else
    esp_stream_drop(ex->client, stream);
  return code;
}

static enum esp_code renew(struct exchange *ex, struct esp_status *st) {
  struct push *push = ex->push;
  if (push->sends > 1)
    return esp_fail(st, ESP_FAILED_PRECONDITION,
                    "the session expired while push %" PRIu64
                    " was sent again: it may or may not have been applied; later pushes get a new session",
                    push->session.sequence);
  esp_session_push_end(ex->client, &push->session);
  push->begun = false;
  push->sends = 0;
  return ESP_OK;
}

/* After a refusal that may come from a session or lineage that is no more: ESP_OK to go on, or the code to return. */
static enum esp_code recover(struct exchange *ex, enum esp_code code, struct esp_status *st) {
  bool pushing = ex->push != NULL && ex->push->begun && !ex->push->done;
  bool suspicious = code == ESP_ABORTED || code == ESP_FAILED_PRECONDITION || (code == ESP_NOT_FOUND && !pushing);
  struct esp_session session = {0};
  if (!suspicious || !ex->asked)
    return code;
  if (ex->push != NULL && ex->push->begun)
    session = ex->push->session;
  else if (ex->pull != NULL && ex->pull->lineage != 0)
    (void)!esp_session_get(ex->client, ex->retry.deadline_ms, &session, NULL);
  enum esp_session_state state = ESP_SESSION_ALIVE;
  if (session.session == 0 || esp_session_check(ex->client, &session, ex->retry.deadline_ms, &state, NULL) != ESP_OK)
    return code;
  if (state == ESP_SESSION_LINEAGE)
    return esp_session_fail_lineage(ex->client, session.lineage, st);
  return state == ESP_SESSION_EXPIRED && pushing ? renew(ex, st) : code;
}

static enum esp_code run(struct exchange *ex, struct esp_status *st) {
  for (;;) {
    enum esp_code code = attempt(ex, st);
    if (code == ESP_OK)
      return ESP_OK;
    enum esp_code after = recover(ex, code, st);
    if (after == ESP_OK && esp_left_ms(ex->retry.deadline_ms) > 0)
      continue;
    if (after != code || !esp_retry_wait(&ex->retry, code))
      return after == ESP_OK ? code : after;
  }
}

/* ---- the calls ---- */

static enum esp_code exchange(struct esp_client *client, struct push *push, struct pull *pull, struct esp_status *st) {
  struct exchange ex = {.client = client, .push = push, .pull = pull, .retry = esp_client_retry(client)};
  enum esp_code code = push == NULL ? ESP_OK : plan_push(client, push, st);
  if (code == ESP_OK && pull != NULL)
    code = plan_pull(client, pull, st);
  if (code == ESP_OK)
    code = run(&ex, st);
  if (push != NULL && push->begun)
    esp_session_push_end(client, &push->session);
  if (push != NULL && push->done)
    esp_flags_refresh(client, push->result.epoch, ex.retry.deadline_ms);
  if (push != NULL)
    esp_free(push->skip);
  return code;
}

enum esp_code esp_push(esp_client *client, const struct esp_gradient *grads, size_t len, struct esp_push_result *ret,
                       struct esp_status *st) {
  struct push push = {.grads = grads, .len = len};
  enum esp_code code = exchange(client, &push, NULL, st);
  if (code == ESP_OK && ret != NULL)
    *ret = push.result;
  return code;
}

enum esp_code esp_pull(esp_client *client, const struct esp_weight *weights, size_t len, struct esp_pull_result *ret,
                       struct esp_status *st) {
  struct pull pull = {.weights = weights, .len = len};
  enum esp_code code = exchange(client, NULL, &pull, st);
  if (code == ESP_OK && ret != NULL)
    *ret = pull.result;
  return code;
}

enum esp_code esp_push_pull(esp_client *client, const struct esp_gradient *grads, size_t grads_len,
                            const struct esp_weight *weights, size_t weights_len, struct esp_push_result *ret_push,
                            struct esp_pull_result *ret_pull, struct esp_status *st) {
  struct push push = {.grads = grads, .len = grads_len};
  struct pull pull = {.weights = weights, .len = weights_len};
  enum esp_code code = exchange(client, &push, &pull, st);
  if (code == ESP_OK && ret_push != NULL)
    *ret_push = push.result;
  if (code == ESP_OK && ret_pull != NULL)
    *ret_pull = pull.result;
  return code;
}

bool esp_leaf_is_frozen(esp_client *client, esp_leaf_id leaf) {
  pthread_mutex_lock(&client->mutex);
  const struct esp_leaf_known *known = esp_leaves_find(&client->leaves, leaf);
  bool frozen = known != NULL && known->frozen;
  pthread_mutex_unlock(&client->mutex);
  return frozen;
}
