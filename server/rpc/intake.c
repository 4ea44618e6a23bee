/* Between a stream's messages and the engine's struct esp_push. intake.h draws the states.
 *
 * Happy path: begin asks the engine for room, READY comes, the chunks of one message after another are fed as they lie
 * in gRPC's slices, the whole push is committed, and DONE brings the reply.
 *
 * How it fails: whatever ends the push sets is_done with a code and lets go of the engine's handle. Events of the
 * engine that were on their way by then are cancelled. */
#include "rpc/intake.h"

#include <inttypes.h>

#include "base/utf8.h"

static void let_go(struct esp_intake *intake) {
  esp_push_free(intake->push);
  intake->push = NULL;
  esp_event_cancel(&intake->ready);
  esp_event_cancel(&intake->done);
}

/* Once the handle is gone: until then the engine's callback may write to why. */
static void end_with(struct esp_intake *intake, enum esp_code code, const struct esp_status *st) {
  let_go(intake);
  (void)esp_why_keep(&intake->why, code, st);
  intake->is_done = true;
}

/* The engine's callback, from any thread: leaves word and posts the event. */
static void on_push(void *data, enum esp_push_event event, enum esp_code code, const struct esp_status *st,
                    const struct esp_push_reply *reply) {
  struct esp_intake *intake = data;
  if (event == ESP_PUSH_READY) {
    esp_event_post(&intake->ready);
    return;
  }
  if (esp_why_keep(&intake->why, code, st) == ESP_OK)
    intake->reply = *reply;
  esp_event_post(&intake->done);
}

static void handle_ready(struct esp_event *event) {
  struct esp_intake *intake = (struct esp_intake *)((char *)event - offsetof(struct esp_intake, ready));
  intake->is_ready = true;
  intake->changed(intake);
}

static void handle_done(struct esp_event *event) {
  struct esp_intake *intake = (struct esp_intake *)((char *)event - offsetof(struct esp_intake, done));
  let_go(intake);
  intake->is_done = true;
  intake->changed(intake);
}

void esp_intake_begin(struct esp_intake *intake, struct esp_call *call, const struct esp_push_header *header,
                      esp_intake_opener open, void (*changed)(struct esp_intake *intake)) {
  intake->call = call;
  intake->changed = changed;
  esp_event_arm(&intake->ready, call, handle_ready);
  esp_event_arm(&intake->done, call, handle_done);
  struct esp_status st;
  enum esp_code code = open(call->engine, header, on_push, intake, &intake->push, &st);
  if (code != ESP_OK)
    end_with(intake, code, &st);
}

enum esp_code esp_piece_of_chunk(const struct esp_chunk *chunk, struct esp_piece *ret, struct esp_status *st) {
  if (chunk->path_len > 0 && !esp_utf8_is_text(chunk->path, chunk->path_len))
    return esp_fail(st, ESP_INVALID_ARGUMENT, "field path of Chunk is not UTF-8 text without a NUL");
  *ret = (struct esp_piece){
      .leaf_id = chunk->leaf_id,
      .path = chunk->path,
      .path_len = chunk->path_len,
      .index = chunk->index,
      .offset = chunk->offset,
      .data = chunk->data,
  };
  if (chunk->has_tensor) {
    ret->has_tensor = true;
    ret->has_shape = chunk->tensor.has_shape;
    ret->shape = chunk->tensor.shape;
    ret->dtype = chunk->tensor.dtype;
    ret->tensor_bytes = chunk->tensor.bytes;
    ret->rows_len = chunk->tensor.rows_len;
  }
  return ESP_OK;
}

static enum esp_code feed_chunk(void *data, const struct esp_chunk *chunk, struct esp_status *st) {
  struct esp_intake *intake = data;
  struct esp_piece piece;
  enum esp_code code = esp_piece_of_chunk(chunk, &piece, st);
  return code == ESP_OK ? esp_push_feed(intake->push, &piece, st) : code;
}

bool esp_intake_feed(struct esp_intake *intake) {
  struct esp_status st;
  enum esp_code code =
      esp_wire_chunks(intake->call->spans, intake->call->spans_len, ESP_CHUNKS_FIELD_UP, feed_chunk, intake, &st);
  if (code == ESP_OK)
    return true;
  end_with(intake, code, &st);
  return false;
}

bool esp_intake_is_whole(const struct esp_intake *intake) {
  return intake->push != NULL && esp_push_is_whole(intake->push);
}

void esp_intake_commit(struct esp_intake *intake) {
  intake->is_committed = true;
  esp_push_commit(intake->push);
}

void esp_intake_drop(struct esp_intake *intake) {
  if (intake->call == NULL || intake->is_done || intake->is_committed)
    return;
  struct esp_status st;
  end_with(intake, esp_fail(&st, ESP_CANCELLED, "the push was dropped"), &st);
}

void esp_intake_cut(struct esp_intake *intake) {
  uint64_t bytes, total;
  esp_push_progress(intake->push, &bytes, &total);
  struct esp_status st;
  enum esp_code code = esp_fail(&st, ESP_INVALID_ARGUMENT,
                                "the stream ended after %" PRIu64 " of %" PRIu64
                                " bytes of a push, or before all of its leaves came: nothing was applied",
                                bytes, total);
  end_with(intake, code, &st);
}

void esp_intake_done(struct esp_intake *intake) {
  esp_why_done(&intake->why);
}

struct esp_push_header esp_push_header_of(const Espalier__V1__PushHeader *header) {
  return (struct esp_push_header){
      .session = header->session,
      .sequence = header->sequence,
      .total_bytes = header->total_bytes,
      .leaf_count = header->leaf_count,
      .wait_ms = header->wait_ms,
      .require_epoch = header->require_epoch,
      .lineage = header->lineage,
  };
}

Espalier__V1__PushReply esp_push_reply_of(const struct esp_push_reply *reply) {
  Espalier__V1__PushReply message = ESPALIER__V1__PUSH_REPLY__INIT;
  message.sequence = reply->sequence;
  message.commit = reply->commit;
  message.epoch = reply->epoch;
  message.lineage = reply->lineage;
  message.applied = reply->applied;
  message.frozen = reply->frozen;
  message.detached = reply->detached;
  message.absent = reply->absent;
  message.removed = reply->removed;
  message.skipped = reply->skipped;
  message.replayed = reply->replayed;
  return message;
}
