/* What a push and a pull send, and what they make of the answers.
 *
 * The happy path: leaves that are known to be frozen are left out; the push's header and chunks go out in messages of
 * the usual size, the pull's request in the last of them; then whatever the server sends is taken until both are
 * answered. A delta pull tells the server what the caller has, and passes over the weights that it does not send.
 *
 * How it fails: an attempt ends with the call's code. The next one sends everything again under the same sequence, but
 * for a push that was answered. Where the server refuses the session it is asked whether it still knows it:
 *
 *   alive                         the refusal stands, but for one: see superseded()
 *   started anew                  ABORTED, after on_lineage
 *   expired, sent once            that one was refused: again, with a sequence of the new session
 *   expired, sent more than once  FAILED_PRECONDITION: an earlier one may have been applied */
#include "client/src/exchange.h"

#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"

/* Leaves of one request, which must fit a message; fewer where it also says what the caller has of each. */
#define PULL_LEAVES_MAX 262144
#define DELTA_LEAVES_MAX 65536
#define JOINED_LEAVES_MAX 8192 /* of a request that shares a message with the end of a push */

/* ---- checks before anything is sent ---- */

static const char *path_of(const struct esp_leaf_known *leaf) {
  return leaf->path == NULL ? "?" : leaf->path;
}

/* Where the leaf is known: whether the bytes are its tensor's in that dtype. Which it travels in is the server's to
 * say. */
static enum esp_code check_bytes(const struct esp_leaf_known *leaf, const char *what, size_t index, size_t bytes,
                                 enum esp_leaf_dtype dtype, struct esp_status *st) {
  if (leaf == NULL || leaf->bytes == 0)
    return ESP_OK;
  enum esp_dtype own = (enum esp_dtype)leaf->dtype, wire = dtype == 0 ? own : (enum esp_dtype)dtype;
  uint64_t expected = leaf->bytes / esp_dtype_size(own) * esp_dtype_size(wire);
  if (bytes == expected)
    return ESP_OK;
  return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s has %" PRIu64 " bytes%s%s, and %s %zu for it %zu", path_of(leaf),
                  expected, dtype == 0 ? "" : " in ", dtype == 0 ? "" : esp_dtype_name(wire), what, index, bytes);
}

/* With the mutex held. */
static enum esp_code check_leaf(const struct esp_client *client, const char *what, size_t index,
                                const struct esp_weight *weight, const struct esp_leaf_known **ret,
                                struct esp_status *st) {
  if (weight->leaf == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%s %zu names no leaf (its id is 0)", what, index);
  if (weight->dtype != 0 && esp_dtype_size((enum esp_dtype)weight->dtype) == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%s %zu has dtype %u, which is none of enum esp_leaf_dtype", what, index,
                    (unsigned)weight->dtype);
  *ret = esp_leaves_find(&client->leaves, weight->leaf);
  enum esp_code code = check_bytes(*ret, what, index, weight->bytes, weight->dtype, st);
  if (code == ESP_OK && (weight->data == NULL || weight->bytes == 0))
    code = esp_fail(st, ESP_INVALID_ARGUMENT, "%s %zu (leaf id %" PRIu64 ") has no memory", what, index, weight->leaf);
  return code;
}

/* With the mutex held. */
static enum esp_code plan_push(const struct esp_client *client, struct esp_push *push, struct esp_status *st) {
  for (size_t i = 0; i < push->len; i++) {
    const struct esp_gradient *grad = &push->grads[i];
    const struct esp_weight same = {
        .leaf = grad->leaf, .data = (void *)grad->data, .bytes = grad->bytes, .dtype = grad->dtype};
    const struct esp_leaf_known *leaf = NULL;
    enum esp_code code = check_leaf(client, "gradient", i, &same, &leaf, st);
    if (code != ESP_OK)
      return code;
    push->skip[i] = leaf != NULL && leaf->frozen;
    push->skipped += push->skip[i];
    if (!push->skip[i] && __builtin_add_overflow(push->total_bytes, (uint64_t)grad->bytes, &push->total_bytes))
      return esp_fail(st, ESP_INVALID_ARGUMENT, "the gradients have more than 2^64 bytes");
  }
  return ESP_OK;
}

static enum esp_code check_rows(const struct esp_weight *weight, const struct esp_rows *rows, size_t index,
                                struct esp_status *st) {
  if (rows->bytes == 0 && rows->stride == 0)
    return ESP_OK;
  if (rows->bytes == 0 || weight->bytes % rows->bytes != 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "weight %zu has rows of %zu bytes, which do not divide its %zu bytes",
                    index, rows->bytes, weight->bytes);
  if (rows->stride < rows->bytes)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "weight %zu has rows of %zu bytes that begin every %zu bytes", index,
                    rows->bytes, rows->stride);
  return ESP_OK;
}

/* With the mutex held. */
static enum esp_code plan_pull(const struct esp_client *client, struct esp_pull *pull, struct esp_status *st) {
  if (pull->len == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a pull names one leaf at least");
  for (size_t i = 0; i < pull->len; i++) {
    const struct esp_weight *weight = &pull->weights[i];
    const struct esp_leaf_known *leaf;
    enum esp_code code = check_leaf(client, "weight", i, weight, &leaf, st);
    if (code == ESP_OK && pull->rows != NULL)
      code = check_rows(weight, &pull->rows[i], i, st);
    if (code != ESP_OK)
      return code;
  }
  for (size_t i = 0; i < pull->len && pull->have != NULL; i++)
    pull->have[i].changed = false;
  return ESP_OK;
}

void esp_exchange_set_options(struct esp_exchange *ex, const struct esp_pull_options *options) {
  if (options == NULL)
    return;
  ex->pull.consistent = options->consistent;
  ex->pull.have = options->have;
  ex->pull.rows = options->rows;
}

enum esp_code esp_exchange_plan(struct esp_exchange *ex, struct esp_status *st) {
  struct esp_client *client = ex->client;
  ex->retry = esp_client_retry(client);
  if (ex->pushes) {
    ex->push.skip = esp_calloc(ex->push.len + 1, sizeof *ex->push.skip);
    if (ex->push.skip == NULL)
      return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for a push of %zu leaves", ex->push.len);
  }
  pthread_mutex_lock(&client->mutex);
  ex->leaves_lineage = client->leaves.len == 0 ? 0 : client->leaves_lineage;
  enum esp_code code = ex->pushes ? plan_push(client, &ex->push, st) : ESP_OK;
  if (code == ESP_OK && ex->pulls)
    code = plan_pull(client, &ex->pull, st);
  pthread_mutex_unlock(&client->mutex);
  return code;
}

void esp_exchange_done(struct esp_exchange *ex) {
  if (ex->push.session.sequence != 0)
    esp_session_push_end(ex->client, &ex->push.session);
  esp_free(ex->push.skip);
}

/* ---- sending ---- */

/* Of the first weight that has one, unless the answer must be of a certain one. */
static uint64_t have_lineage_of(const struct esp_pull *pull) {
  uint64_t lineage = pull->have == NULL ? 0 : pull->lineage;
  for (size_t i = 0; i < pull->len && pull->have != NULL && lineage == 0; i++)
    lineage = pull->have[i].lineage;
  return lineage;
}

enum esp_code esp_exchange_start(struct esp_exchange *ex, struct esp_status *st) {
  uint64_t lineage = 0;
  ex->asked = false;
  enum esp_code code = esp_session_leaves_check(ex->client, ex->leaves_lineage, ex->retry.deadline_ms, &lineage, st);
  if (code != ESP_OK)
    return code;
  ex->push.head_sent = false;
  ex->push.at = ex->push.offset = 0;
  struct esp_pull *pull = &ex->pull;
  pull->asked = pull->answered = pull->at = 0;
  pull->filled = 0;
  pull->has_head = false;
  pull->lineage = lineage;
  pull->have_lineage = have_lineage_of(pull);
  return ESP_OK;
}

static bool push_is_sent(const struct esp_exchange *ex) {
  return !ex->pushes || ex->push.done || (ex->push.head_sent && ex->push.at == ex->push.len);
}

bool esp_exchange_is_sent(const struct esp_exchange *ex) {
  return push_is_sent(ex) && (!ex->pulls || ex->pull.asked == ex->pull.len);
}

static enum esp_code append_head(struct esp_exchange *ex, struct esp_call *call, struct esp_status *st) {
  struct esp_push *push = &ex->push;
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
  push->head_sent = true;
  push->sends++;
  return code;
}

/* As much of the push as a message carries. */
static enum esp_code append_push(struct esp_exchange *ex, struct esp_call *call, struct esp_status *st) {
  struct esp_push *push = &ex->push;
  enum esp_code code = push->head_sent ? ESP_OK : append_head(ex, call, st);
  struct esp_chunk_writer writer = {.call = call, .deadline_ms = ex->retry.deadline_ms};
  esp_call_lend_under(call, &ex->loans);
  while (code == ESP_OK && push->at < push->len && !esp_chunks_is_full(&writer)) {
    const struct esp_gradient *grad = &push->grads[push->at];
    struct esp_chunk_name name = {.leaf = grad->leaf, .dtype = (enum esp_dtype)grad->dtype};
    if (!push->skip[push->at])
      code = esp_chunks_fill(&writer, &name, grad->data, grad->bytes, &push->offset, st);
    if (push->skip[push->at] || push->offset == grad->bytes) {
      push->at++;
      push->offset = 0;
    }
  }
  esp_call_lend_under(call, NULL);
  return code;
}

/* Where the request for the weights from `from` on ends. */
static size_t request_end(const struct esp_pull *pull, size_t from) {
  size_t max = pull->consistent ? pull->len : pull->have != NULL ? DELTA_LEAVES_MAX : PULL_LEAVES_MAX;
  return pull->len - from < max ? pull->len : from + max;
}

/* Asks for the weights that are left, or as many as one request can name. */
static enum esp_code append_pull(struct esp_exchange *ex, struct esp_call *call, struct esp_status *st) {
  struct esp_pull *pull = &ex->pull;
  size_t end = request_end(pull, pull->asked);
  struct esp_pull_ask ask = {.weights = pull->weights + pull->asked,
                             .have = pull->have == NULL ? NULL : pull->have + pull->asked,
                             .len = end - pull->asked,
                             .consistent = pull->consistent,
                             .have_lineage = pull->have_lineage,
                             .wait_ms = esp_left_ms(ex->retry.deadline_ms)};
  struct esp_buf buf = {0};
  enum esp_code code = esp_encode_pull(&buf, &ask, st);
  if (code == ESP_OK && buf.len > ESP_CHUNK_BYTES_MAX)
    code = esp_fail(st, ESP_INVALID_ARGUMENT,
                    "a consistent pull of %zu leaves takes a request of %zu bytes, more than a message of %u", ask.len,
                    buf.len, ESP_CHUNK_BYTES_MAX);
  if (code == ESP_OK)
    esp_call_append(call, buf.data, buf.len);
  esp_buf_done(&buf);
  pull->asked = end;
  return code;
}

/* The last message of a push asks for the weights, too, where the request is not large itself: one message less for the
 * server to wake up for. */
enum esp_code esp_exchange_send(struct esp_exchange *ex, struct esp_call *call, struct esp_status *st) {
  bool pushes = !push_is_sent(ex);
  enum esp_code code = pushes ? append_push(ex, call, st) : ESP_OK;
  ex->asked = true;
  if (code == ESP_OK && push_is_sent(ex) && ex->pulls && ex->pull.asked < ex->pull.len &&
      (!pushes || request_end(&ex->pull, ex->pull.asked) - ex->pull.asked <= JOINED_LEAVES_MAX))
    code = append_pull(ex, call, st);
  return code == ESP_OK ? esp_call_send(call, false, ex->retry.deadline_ms, st) : code;
}

/* ---- receiving ---- */

/* Whether the server was told that the caller has this weight, and nothing of it has come since. */
static bool is_had(const struct esp_pull *pull, size_t index) {
  return pull->have_lineage != 0 && pull->have[index].lineage == pull->have_lineage;
}

/* Writes bytes of the weight that is due, from the first on that is not there. */
static enum esp_code write_weight(const struct esp_pull *pull, struct esp_cursor cursor, struct esp_status *st) {
  const struct esp_weight *weight = &pull->weights[pull->at];
  struct esp_rows rows = {.bytes = weight->bytes, .stride = weight->bytes};
  if (pull->rows != NULL && pull->rows[pull->at].bytes != 0)
    rows = pull->rows[pull->at];
  uint64_t offset = pull->filled, left = cursor.left;
  while (left > 0) {
    uint64_t row = offset / rows.bytes, in_row = offset % rows.bytes;
    uint64_t len = left < rows.bytes - in_row ? left : rows.bytes - in_row;
    if (!esp_cursor_copy(&cursor, (uint8_t *)weight->data + row * rows.stride + in_row, (size_t)len))
      return esp_fail(st, ESP_INTERNAL, "a chunk of leaf id %" PRIu64 " is shorter than it says", weight->leaf);
    offset += len;
    left -= len;
  }
  return ESP_OK;
}

/* What the caller has is nothing from the first byte that is written to the last, and then the new value. */
static void note_have(const struct esp_pull *pull, const struct esp_chunk *chunk) {
  if (pull->have == NULL)
    return;
  struct esp_have *have = &pull->have[pull->at];
  if (pull->filled == 0)
    *have = (struct esp_have){.parameter = chunk->tensor.parameter,
                              .version = chunk->tensor.version,
                              .view = (uint32_t)chunk->tensor.view,
                              .dtype = (uint32_t)chunk->tensor.dtype,
                              .changed = true};
  if (pull->filled + chunk->data.left == pull->weights[pull->at].bytes && have->parameter != 0)
    have->lineage = pull->result.lineage;
}

static enum esp_code take_chunk(void *data, const struct esp_chunk *chunk, struct esp_status *st) {
  struct esp_pull *pull = &((struct esp_exchange *)data)->pull;
  size_t end = request_end(pull, pull->answered);
  while (pull->at < end && pull->filled == 0 && chunk->leaf_id != pull->weights[pull->at].leaf &&
         is_had(pull, pull->at))
    pull->at++;
  if (pull->asked == 0 || pull->at == end || !pull->has_head)
    return esp_fail(st, ESP_INTERNAL, "the server sent a chunk of leaf id %" PRIu64 " that nobody asked for",
                    chunk->leaf_id);
  const struct esp_weight *weight = &pull->weights[pull->at];
  if (chunk->leaf_id != weight->leaf || chunk->offset != pull->filled)
    return esp_fail(st, ESP_INTERNAL,
                    "the server sent leaf id %" PRIu64 " from byte %" PRIu64 " on, where leaf id %" PRIu64
                    " from byte %" PRIu64 " on was due",
                    chunk->leaf_id, chunk->offset, weight->leaf, pull->filled);
  uint64_t len = chunk->data.left;
  enum esp_dtype dtype = (enum esp_dtype)weight->dtype;
  if (pull->filled == 0 && dtype != ESP_DTYPE_NONE && chunk->tensor.dtype != dtype)
    return esp_fail(st, ESP_INTERNAL, "the server sent leaf id %" PRIu64 " as %s, where %s was asked for", weight->leaf,
                    esp_dtype_name(chunk->tensor.dtype), esp_dtype_name(dtype));
  if ((chunk->has_tensor && chunk->tensor.bytes != 0 && chunk->tensor.bytes != weight->bytes) ||
      len > weight->bytes - pull->filled)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "weight %zu has memory for %zu bytes; leaf id %" PRIu64 " has %" PRIu64,
                    pull->at, weight->bytes, weight->leaf,
                    chunk->has_tensor && chunk->tensor.bytes != 0 ? chunk->tensor.bytes : pull->filled + len);
  note_have(pull, chunk);
  enum esp_code code = write_weight(pull, chunk->data, st);
  pull->filled += len;
  if (pull->filled == weight->bytes) {
    pull->at++;
    pull->filled = 0;
  }
  return code;
}

static enum esp_code take_push_reply(struct esp_exchange *ex, const struct esp_stream_reply *reply,
                                     struct esp_status *st) {
  struct esp_push *push = &ex->push;
  if (!ex->pushes || push->done || reply->sequence != push->session.sequence)
    return esp_fail(st, ESP_INTERNAL, "the server answered push %" PRIu64 ", which is not the one that was sent",
                    reply->sequence);
  push->result = reply->push;
  /* The server did not see what was not sent. */
  push->result.frozen += push->skipped;
  push->result.absent -= push->skipped < push->result.absent ? push->skipped : push->result.absent;
  push->done = true;
  return ESP_OK;
}

static enum esp_code take_pull_head(struct esp_pull *pull, const struct esp_pull_head *head, struct esp_status *st) {
  if (pull->asked == 0)
    return esp_fail(st, ESP_INTERNAL, "the server answered a pull that nobody asked for");
  if (pull->lineage != 0 && head->lineage != pull->lineage) {
    pull->lineage_met = head->lineage;
    return esp_fail(st, ESP_ABORTED, "the server answered in lineage %016" PRIx64 ", not in %016" PRIx64, head->lineage,
                    pull->lineage);
  }
  if (pull->answered == 0)
    pull->result = (struct esp_pull_result){.commit = head->commit, .epoch = head->epoch, .lineage = head->lineage};
  pull->lineage = head->lineage; /* of all requests */
  pull->has_head = true;
  return ESP_OK;
}

static enum esp_code take_pull_end(struct esp_pull *pull, struct esp_status *st) {
  size_t end = request_end(pull, pull->answered);
  while (pull->at < end && pull->filled == 0 && is_had(pull, pull->at))
    pull->at++;
  if (!pull->has_head || pull->at != end)
    return esp_fail(st, ESP_INTERNAL, "the server ended a pull before all leaves were there");
  pull->answered = end;
  pull->has_head = false; /* the next request's answer has its own */
  pull->done = end == pull->len;
  for (size_t i = 0; i < pull->len && pull->done && pull->have != NULL; i++)
    pull->result.unchanged += !pull->have[i].changed;
  pull->result.sent = pull->len - pull->result.unchanged;
  return ESP_OK;
}

static enum esp_code take_message(struct esp_exchange *ex, struct esp_in in, struct esp_status *st) {
  struct esp_stream_reply reply;
  enum esp_code code = esp_decode_stream(in, &reply, st);
  if (code == ESP_OK && reply.has_push)
    code = take_push_reply(ex, &reply, st);
  if (code == ESP_OK && reply.has_head)
    code = take_pull_head(&ex->pull, &reply.head, st);
  if (code == ESP_OK)
    code = esp_wire_chunks(in.spans, in.len, ESP_RESPONSE_CHUNKS, take_chunk, ex, st);
  if (code == ESP_OK && reply.has_end)
    code = take_pull_end(&ex->pull, st);
  return code;
}

bool esp_exchange_is_answered(const struct esp_exchange *ex) {
  return (!ex->pushes || ex->push.done) && (!ex->pulls || ex->pull.done);
}

enum esp_code esp_exchange_receive(struct esp_exchange *ex, struct esp_call *call, struct esp_status *st) {
  struct esp_received message;
  enum esp_code code = esp_call_recv(call, ex->retry.deadline_ms, &message, st);
  if (code == ESP_OK && message.spans == NULL)
    code =
        esp_fail(st, ESP_UNAVAILABLE, "the server at %s ended the stream before it answered", ex->client->address.text);
  return code == ESP_OK ? take_message(ex, (struct esp_in){.spans = message.spans, .len = message.spans_len}, st)
                        : code;
}

/* ---- after a failure ---- */

static enum esp_code renew(struct esp_exchange *ex, struct esp_status *st) {
  struct esp_push *push = &ex->push;
  if (push->sends > 1)
    return esp_fail(st, ESP_FAILED_PRECONDITION,
                    "the session expired while push %" PRIu64
                    " was sent again: it may or may not have been applied; later pushes get a new session",
                    push->session.sequence);
  esp_session_push_end(ex->client, &push->session);
  push->session.sequence = 0;
  push->sends = 0;
  return ESP_OK;
}

/* The library requires no epoch, so a push of a session that is alive is refused with ABORTED only where another send
 * of it took its place. With one that was cut this happens when its bytes arrive after the header of the next one. That
 * is no answer: the late one is applied, or was cut half way. The next send hears the former's reply, and takes the
 * place of the latter. A send that was cut arrives once at most, so this comes to an end. */
static enum esp_code superseded(const struct esp_push *push, struct esp_status *st) {
  return esp_fail(st, ESP_UNAVAILABLE,
                  "push %" PRIu64 " was cut and sent again, and its first send arrived late, in place of the next one: "
                  "it may or may not have been applied",
                  push->session.sequence);
}

/* Of a client without a session: what the server's lineage is, was in the answer, or has to be asked. */
static enum esp_code recover_reader(struct esp_exchange *ex, enum esp_code code, struct esp_status *st) {
  struct esp_layout_event *now;
  uint64_t met = ex->pull.lineage_met;
  if (met == 0 && ex->leaves_lineage != 0 && esp_layout_now(ex->client, ex->retry.deadline_ms, &now, NULL) == ESP_OK) {
    met = now->lineage;
    esp_free(now);
  }
  if (met == 0 || met == ex->leaves_lineage)
    return code;
  esp_session_meet(ex->client, ex->leaves_lineage, met);
  return esp_session_fail_lineage(ex->client, ex->leaves_lineage, ex->retry.deadline_ms, st);
}

enum esp_code esp_exchange_recover(struct esp_exchange *ex, enum esp_code code, struct esp_status *st) {
  bool pushing = ex->push.session.sequence != 0 && !ex->push.done;
  bool suspicious = code == ESP_ABORTED || code == ESP_FAILED_PRECONDITION || (code == ESP_NOT_FOUND && !pushing);
  if (!suspicious || !ex->asked)
    return code;
  struct esp_session session = ex->push.session;
  if (session.sequence == 0 && !esp_session_known(ex->client, &session))
    return recover_reader(ex, code, st);
  bool is_resend = pushing && code == ESP_ABORTED && ex->push.sends > 1;
  enum esp_session_state state = ESP_SESSION_ALIVE;
  if (esp_session_check(ex->client, &session, ex->retry.deadline_ms, &state, NULL) != ESP_OK && !is_resend)
    return code; /* of a resend the next one says what it was */
  if (state == ESP_SESSION_LINEAGE)
    return esp_session_fail_lineage(ex->client, session.lineage, ex->retry.deadline_ms, st);
  if (state == ESP_SESSION_EXPIRED && pushing)
    return renew(ex, st);
  return is_resend ? superseded(&ex->push, st) : code;
}
