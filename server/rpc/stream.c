/* PushPull: any number of pushes and pulls on one stream, answered in the order in which they were asked.
 *
 * Each request is an entry in a queue from its first message until its answer was written:
 *
 *   push:  RECEIVING --whole--> APPLYING --DONE--> answered when it is first in the queue
 *   pull:  WAITING --first in the queue--> its messages are written, one at a time
 *
 * Where a pull came in the message that ended the push before it, the push's answer is in the pull's first message: one
 * packet, for which the client wakes up once.
 *
 * Happy path: a message is read, what is not chunks decoded. A push header adds an entry, whose chunks are fed once the
 * engine has room (the message is held until then, and no other is read); a whole push is committed at once and the
 * next message read, so that pushes overlap.
 *
 * How it fails: the first request that fails is the last that is looked at; the answers before it are written, then its
 * status ends the stream. A client that goes away drops the push that is not whole; those that were committed go on
 * without it. */
#include <inttypes.h>

#include "base/alloc.h"
#include "rpc/intake.h"
#include "rpc/methods.h"
#include "rpc/puller.h"

#define WRITES_AHEAD_MAX 4 /* messages that may wait to be sent when the next pull begins */

struct stream;

struct entry {
  struct entry *next;
  struct stream *stream;
  bool is_push;
  bool is_joined; /* a pull that came with the end of the push before it: their answers share a message */
  union {
    struct esp_intake intake; /* of a push */
    struct esp_puller puller; /* of a pull */
  };
};

struct stream {
  struct esp_call *call;
  struct entry *first; /* requests that are not answered, in order */
  struct entry *last;
  size_t entries_len;
  struct entry *receiving;    /* the push that is not whole, one of the entries, or NULL */
  struct esp_rest rest;       /* what is not chunks in a message */
  struct esp_decoded request; /* the same, decoded, while a message is being dealt with */
  bool may_read;              /* the message that was asked for has come, and no other was asked for */
  bool is_holding;            /* a message waits until `receiving` may be fed */
  bool has_ended;             /* the client has sent all, or a request failed: nothing is read any more */
  bool is_draining;           /* the server is shutting down: the stream ends when nothing is under way */
  enum esp_code code;         /* how the stream ends after its entries, of what was no entry */
  struct esp_status st;
};

static void intake_changed(struct esp_intake *intake);
static void puller_changed(struct esp_puller *puller);

/* ---- answers ---- */

static void free_entry(struct entry *entry) {
  if (entry->is_push)
    esp_intake_done(&entry->intake);
  else
    esp_puller_done(&entry->puller);
  esp_free(entry);
}

static void pop(struct stream *stream) {
  struct entry *entry = stream->first;
  stream->first = entry->next;
  stream->entries_len--;
  free_entry(entry);
}

/* Answers the first entry as far as that goes now; false where it has to be waited for, or the stream has failed. */
static bool answer_first(struct stream *stream) {
  struct entry *entry = stream->first;
  if (!entry->is_push && esp_call_unsent(stream->call) < WRITES_AHEAD_MAX)
    esp_puller_step(&entry->puller);
  bool is_done = entry->is_push ? entry->intake.is_done : entry->puller.is_done;
  if (!is_done)
    return false;
  struct esp_status st;
  enum esp_code code = esp_why_tell(entry->is_push ? &entry->intake.why : &entry->puller.why, &st);
  if (code != ESP_OK) {
    stream->has_ended = true;
    if (!entry->is_push)
      esp_puller_write_lead(&entry->puller);
    esp_call_finish(stream->call, code, &st);
    return false;
  }
  if (entry->is_push) {
    Espalier__V1__PushReply reply = esp_push_reply_of(&entry->intake.reply);
    Espalier__V1__StreamResponse response = ESPALIER__V1__STREAM_RESPONSE__INIT;
    response.push = &reply;
    bool is_joined = entry->next != NULL && entry->next->is_joined;
    if (!is_joined || !esp_puller_lead(&entry->next->puller, &response.base))
      esp_call_write_message(stream->call, &response.base);
  }
  pop(stream);
  return true;
}

/* Reads on where that is due: nothing is held, and not too much is unanswered. */
static void read_on(struct stream *stream) {
  uint64_t entries_max = esp_rpc_server_options(stream->call->server)->max_in_flight;
  if (!stream->may_read || stream->is_holding || stream->has_ended || stream->entries_len >= entries_max ||
      esp_call_is_over(stream->call))
    return;
  stream->may_read = false;
  esp_call_read(stream->call);
}

/* Writes the answers that are there, ends the stream if that was all, else reads on. */
static void advance(struct stream *stream) {
  if (esp_call_is_over(stream->call))
    return;
  while (stream->first != NULL && answer_first(stream)) {
  }
  if (stream->first == NULL && stream->has_ended)
    esp_call_finish(stream->call, stream->code, &stream->st);
  else if (stream->first == NULL && stream->is_draining)
    esp_call_fail(stream->call, ESP_UNAVAILABLE, ESP_SHUTDOWN_TEXT);
  read_on(stream);
}

/* ---- requests ---- */

/* What fails without being an entry. Nothing is read any more. */
static void fail(struct stream *stream, enum esp_code code) {
  stream->has_ended = true;
  stream->code = code;
  if (stream->receiving == NULL)
    return;
  /* The push is the last entry: its answer is the failure. */
  struct esp_intake *intake = &stream->receiving->intake;
  esp_intake_drop(intake);
  (void)esp_why_keep(&intake->why, code, &stream->st);
  stream->receiving = NULL;
}

static struct entry *add_entry(struct stream *stream, bool is_push) {
  struct entry *entry = esp_calloc(1, sizeof(*entry));
  if (entry == NULL) {
    fail(stream, esp_fail(&stream->st, ESP_RESOURCE_EXHAUSTED, "no memory for a request"));
    return NULL;
  }
  entry->stream = stream;
  entry->is_push = is_push;
  if (stream->first == NULL)
    stream->first = entry;
  else
    stream->last->next = entry;
  stream->last = entry;
  stream->entries_len++;
  return entry;
}

static void begin_push(struct stream *stream, const Espalier__V1__PushHeader *header) {
  if (stream->receiving != NULL) {
    fail(stream, esp_fail(&stream->st, ESP_INVALID_ARGUMENT, "a push began before the one before it was whole"));
    return;
  }
  enum esp_code code = esp_tree_check(header->tree, &stream->st);
  if (code != ESP_OK) {
    fail(stream, code);
    return;
  }
  struct entry *entry = add_entry(stream, true);
  if (entry == NULL)
    return;
  struct esp_push_header wanted = esp_push_header_of(header);
  esp_intake_begin(&entry->intake, stream->call, &wanted, esp_push_new, intake_changed);
  if (entry->intake.is_done)
    stream->has_ended = true;
  else
    stream->receiving = entry;
}

static void begin_pull(struct stream *stream, const Espalier__V1__PullRequest *request, bool is_joined) {
  if (stream->receiving != NULL) {
    fail(stream, esp_fail(&stream->st, ESP_INVALID_ARGUMENT, "a pull began before the push before it was whole"));
    return;
  }
  struct entry *entry = add_entry(stream, false);
  if (entry == NULL)
    return;
  entry->is_joined = is_joined;
  esp_puller_begin(&entry->puller, stream->call, &stream->request, request, puller_changed);
  if (entry->puller.is_done)
    stream->has_ended = true;
}

/* Feeds the chunks to the push that is being received; what completes it commits it. */
static void feed(struct stream *stream) {
  struct esp_intake *intake = &stream->receiving->intake;
  if (!esp_intake_feed(intake)) {
    stream->has_ended = true;
    stream->receiving = NULL;
  } else if (esp_intake_is_whole(intake)) {
    stream->receiving = NULL;
    esp_intake_commit(intake);
  }
}

static enum esp_code refuse_chunk(void *data, const struct esp_chunk *chunk, struct esp_status *st) {
  (void)data;
  (void)chunk;
  return esp_fail(st, ESP_INVALID_ARGUMENT, "a chunk came that belongs to no push: the one before it is whole");
}

/* Deals with the message from its chunks on, or holds it where they can't be taken yet. */
static void take_chunks(struct stream *stream) {
  struct esp_call *call = stream->call;
  stream->is_holding = stream->receiving != NULL && !stream->receiving->intake.is_ready;
  if (stream->is_holding)
    return;
  bool feeds = stream->receiving != NULL;
  if (feeds) {
    feed(stream);
  } else if (!stream->has_ended) {
    enum esp_code code =
        esp_wire_chunks(call->spans, call->spans_len, ESP_CHUNKS_FIELD_UP, refuse_chunk, NULL, &stream->st);
    if (code != ESP_OK)
      fail(stream, code);
  }
  const Espalier__V1__StreamRequest *request = (const Espalier__V1__StreamRequest *)stream->request.message;
  if (request != NULL && request->pull != NULL && !stream->has_ended)
    begin_pull(stream, request->pull, feeds);
  esp_decoded_done(&stream->request);
}

static void message(struct esp_call *call) {
  struct stream *stream = call->state;
  stream->call = call;
  stream->may_read = true;
  stream->rest.len = 0;
  enum esp_code code = esp_wire_rest(call->spans, call->spans_len, ESP_CHUNKS_FIELD_UP, &stream->rest, &stream->st);
  if (code == ESP_OK && stream->rest.len > 0)
    code = esp_decode(&espalier__v1__stream_request__descriptor, stream->rest.bytes, stream->rest.len, &stream->request,
                      &stream->st);
  if (code != ESP_OK) {
    fail(stream, code);
  } else {
    const Espalier__V1__StreamRequest *request = (const Espalier__V1__StreamRequest *)stream->request.message;
    if (request != NULL && request->push != NULL)
      begin_push(stream, request->push);
    take_chunks(stream);
  }
  advance(stream);
}

/* The push that is being received may be fed, or has ended; or one that was committed is done. */
static void intake_changed(struct esp_intake *intake) {
  struct entry *entry = (struct entry *)((char *)intake - offsetof(struct entry, intake));
  struct stream *stream = entry->stream;
  if (entry == stream->receiving && intake->is_done) {
    stream->receiving = NULL;
    stream->has_ended = true;
    stream->is_holding = false;
    esp_decoded_done(&stream->request);
  }
  if (entry == stream->receiving && stream->is_holding)
    take_chunks(stream);
  advance(stream);
}

static void puller_changed(struct esp_puller *puller) {
  advance(((struct entry *)((char *)puller - offsetof(struct entry, puller)))->stream);
}

/* ---- the stream ---- */

static void half_close(struct esp_call *call) {
  struct stream *stream = call->state;
  stream->call = call;
  stream->may_read = true;
  stream->has_ended = true;
  if (stream->receiving != NULL)
    esp_intake_cut(&stream->receiving->intake);
  stream->receiving = NULL;
  advance(stream);
}

static void writable(struct esp_call *call) {
  advance(call->state);
}

static void drain(struct esp_call *call) {
  struct stream *stream = call->state;
  stream->call = call;
  stream->is_draining = true;
  advance(stream);
}

static void closed(struct esp_call *call) {
  struct stream *stream = call->state;
  if (stream->receiving != NULL)
    esp_intake_drop(&stream->receiving->intake);
  stream->receiving = NULL;
  if (stream->first != NULL && !stream->first->is_push) /* no other pull has begun */
    esp_puller_close(&stream->first->puller);
}

static void release(struct esp_call *call) {
  struct stream *stream = call->state;
  while (stream->first != NULL)
    pop(stream);
  esp_decoded_done(&stream->request);
  esp_rest_done(&stream->rest);
}

const struct esp_method esp_method_push_pull = {
    .path = "/espalier.v1.ParameterServer/PushPull",
    .state_size = sizeof(struct stream),
    .is_eager = true,
    .message = message,
    .half_close = half_close,
    .writable = writable,
    .drain = drain,
    .closed = closed,
    .release = release,
};
