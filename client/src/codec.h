/* Messages as bytes, to and from plain structs: all that the client knows of protobuf-c is in codec*.c.
 *
 * Encoders append to a buffer; RESOURCE_EXHAUSTED without memory. Decoders take one whole message, chunks excepted, and
 * fail with INTERNAL where the bytes are not what the server should send. No threads, no I/O. */
#ifndef ESP_CLIENT_CODEC_H
#define ESP_CLIENT_CODEC_H

#include <espalier/admin.h>

#include "base/span.h"
#include "wire/wire.h"

#define ESP_REQUEST_CHUNKS 2  /* the field of the chunks in every message to the server */
#define ESP_RESPONSE_CHUNKS 3 /* and in every one from it */

struct esp_buf {
  uint8_t *data;   /* owned */
  size_t len;      /* used */
  size_t capacity; /* of data */
};
void esp_buf_done(struct esp_buf *buf); /* idempotent */

/* A message that was received: decoders leave its chunks aside. */
struct esp_in {
  const struct esp_span *spans; /* borrowed */
  size_t len;                   /* of spans */
};

/* ---- sessions ---- */

struct esp_session_reply {
  uint64_t session; /* 0 in the reply to a heartbeat */
  uint64_t lineage;
  uint64_t epoch;
  uint64_t lease_ms;
  uint64_t in_flight_max; /* 0 in the reply to a heartbeat */
};
enum esp_code esp_encode_join(struct esp_buf *buf, const char *worker, uint64_t resume,
                              struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_encode_session(struct esp_buf *buf, uint64_t session,
                                 struct esp_status *st) ESP_WARN_UNUSED; /* of Leave and Heartbeat */
enum esp_code esp_decode_join(struct esp_in in, struct esp_session_reply *ret, struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_decode_heartbeat(struct esp_in in, struct esp_session_reply *ret,
                                   struct esp_status *st) ESP_WARN_UNUSED;

/* ---- layout events ---- */

enum esp_code esp_encode_watch(struct esp_buf *buf, uint64_t since_epoch, bool follow,
                               struct esp_status *st) ESP_WARN_UNUSED;
/* *ret is one block, changes and paths included: esp_free. */
enum esp_code esp_decode_event(struct esp_in in, struct esp_layout_event **ret, struct esp_status *st) ESP_WARN_UNUSED;

/* ---- pushes and pulls ---- */

struct esp_push_head {
  uint64_t session;
  uint64_t sequence;
  uint64_t total_bytes;
  uint64_t leaf_count;
  uint64_t wait_ms;
  uint64_t lineage;
};
struct esp_pull_head {
  uint64_t epoch;
  uint64_t commit;
  uint64_t lineage;
  uint64_t total_bytes;
};
/* What a StreamResponse or PullResponse has beside its chunks. */
struct esp_stream_reply {
  bool has_push;
  uint64_t sequence;           /* where has_push */
  uint64_t lineage;            /* where has_push */
  struct esp_push_result push; /* where has_push */
  bool has_head;
  struct esp_pull_head head; /* where has_head */
  bool has_end;
};
enum esp_code esp_encode_push(struct esp_buf *buf, const struct esp_push_head *head,
                              struct esp_status *st) ESP_WARN_UNUSED;
struct esp_pull_ask {
  const struct esp_weight *weights; /* whose leaves are asked for */
  const struct esp_have *have;      /* one a weight; NULL: nothing is told */
  size_t len;                       /* of weights */
  bool consistent;
  uint64_t have_lineage; /* of those in `have` that are told; 0: none */
  uint64_t wait_ms;
};
/* A StreamRequest with a pull. */
enum esp_code esp_encode_pull(struct esp_buf *buf, const struct esp_pull_ask *ask,
                              struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_encode_pull_path(struct esp_buf *buf, const char *path, uint64_t wait_ms,
                                   struct esp_status *st) ESP_WARN_UNUSED; /* a PullRequest */
enum esp_code esp_decode_stream(struct esp_in in, struct esp_stream_reply *ret, struct esp_status *st) ESP_WARN_UNUSED;

/* ---- declarations and stages ---- */

struct esp_declare_head {
  uint64_t session;
  uint64_t total_bytes; /* of the values that follow */
  uint64_t leaf_count;  /* leaves that have one */
  uint64_t wait_ms;
};
enum esp_code esp_encode_declare(struct esp_buf *buf, const struct esp_declare_head *head,
                                 struct esp_status *st) ESP_WARN_UNUSED;
/* One leaf of a DeclareRequest: appended to others they are one message. The spec was checked. */
enum esp_code esp_encode_leaf(struct esp_buf *buf, const struct esp_leaf_spec *spec,
                              struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_encode_node(struct esp_buf *buf, const struct esp_node_spec *spec,
                              struct esp_status *st) ESP_WARN_UNUSED; /* likewise */
struct esp_id_run {
  uint64_t first;
  uint64_t count;
};
struct esp_declare_reply {
  uint64_t epoch;
  uint64_t lineage;
  size_t runs_len;
  struct esp_id_run *runs; /* owned */
};
void esp_declare_reply_done(struct esp_declare_reply *reply); /* idempotent */
enum esp_code esp_decode_declare(struct esp_in in, struct esp_declare_reply *ret,
                                 struct esp_status *st) ESP_WARN_UNUSED;
/* The ids of the runs, which must be len in all: INTERNAL otherwise. */
enum esp_code esp_id_runs_expand(const struct esp_id_run *runs, size_t runs_len, esp_leaf_id *ret, size_t len,
                                 struct esp_status *st) ESP_WARN_UNUSED;

enum esp_code esp_encode_stage(struct esp_buf *buf, uint64_t total_bytes, uint64_t wait_ms,
                               struct esp_status *st) ESP_WARN_UNUSED;
/* What precedes data_len bytes of a tensor that is named by its path. tensor may be NULL. */
enum esp_code esp_encode_chunk_path(struct esp_buf *buf, const char *path, uint64_t offset,
                                    const struct esp_tensor *tensor, size_t data_len,
                                    struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_decode_stage(struct esp_in in, uint64_t *ret_stage, struct esp_status *st) ESP_WARN_UNUSED;

/* ---- operators ---- */

/* The operations were checked. */
enum esp_code esp_encode_apply(struct esp_buf *buf, const struct esp_op *ops, size_t len,
                               const struct esp_apply_options *options, const char *key,
                               struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_encode_history(struct esp_buf *buf, uint64_t since_epoch, uint64_t limit,
                                 struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_encode_explain(struct esp_buf *buf, const char *selection, struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_encode_describe(struct esp_buf *buf, const char *selection, bool with_digest,
                                  struct esp_status *st) ESP_WARN_UNUSED;
/* A page is added to what *result has; a NULL *result is made first. */
enum esp_code esp_decode_apply(struct esp_in in, struct esp_apply_result **result,
                               struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_decode_history(struct esp_in in, struct esp_history **result, struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_decode_timers(struct esp_in in, struct esp_timers **result, struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_decode_explain(struct esp_in in, struct esp_explanation **result,
                                 struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_decode_describe(struct esp_in in, struct esp_description **result,
                                  struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_decode_server_info(struct esp_in in, struct esp_server_info *ret,
                                     struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_decode_workers(struct esp_in in, struct esp_workers **result, struct esp_status *st) ESP_WARN_UNUSED;

#endif
