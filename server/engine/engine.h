/* The engine: sessions, staging, commit order, applying, reads and admin transactions. It owns the tree's layout and
 * the parameters' values, and a pool of threads that runs kernels. It knows nothing of gRPC.
 *
 * Threads: every function may be called from any thread unless it says otherwise. Callbacks come from any thread
 * (the pool's, the one that calls esp_engine_tick, or the caller's own inside a call), never with a lock of the engine
 * held, so a callback may call the engine. They must not block.
 *
 * Calls on one push, one declaration or one pull must not overlap each other, callbacks excepted. */
#ifndef ESP_ENGINE_H
#define ESP_ENGINE_H

#include <espalier/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/env.h"
#include "base/span.h"
#include "optim/optim.h"
#include "tree/tree.h"

#define ESP_WORKER_NAME_BYTES_MAX 255
#define ESP_IN_FLIGHT_MAX 64 /* sequences of one session that may be open at once */
#define ESP_NOTES_MAX 16     /* notes in one reply */

struct esp_engine;

enum esp_nonfinite { ESP_NONFINITE_REJECT, ESP_NONFINITE_SKIP };

struct esp_named {
  const char *name;
  const char *value;
};

struct esp_engine_options {
  const struct esp_env *env;       /* borrowed for the engine's life */
  unsigned threads;                /* of the pool that runs kernels; 1 to 256 */
  enum esp_isa isa;                /* must be supported */
  uint64_t max_staged;             /* --max-staged */
  uint64_t max_tree;               /* --max-tree: bytes of parameters and optimizer state */
  uint64_t stall_timeout_ms;       /* --stall-timeout */
  uint64_t lease_ms;               /* --lease */
  uint64_t session_retention_ms;   /* --session-retention */
  uint64_t max_sessions;           /* --max-sessions */
  enum esp_nonfinite on_nonfinite; /* --on-nonfinite */
  const struct esp_named *groups;  /* name and expression; one is "default" */
  size_t groups_len;
  const struct esp_named *assigns; /* node path and group name */
  size_t assigns_len;
};

/* INVALID_ARGUMENT names the group or assignment that is wrong. */
enum esp_code esp_engine_new(const struct esp_engine_options *options, struct esp_engine **ret,
                             struct esp_status *st) ESP_WARN_UNUSED;
/* After every push, pull, declaration and apply has ended (their callbacks were called) and every pin was released.
 * NULL is fine. */
void esp_engine_free(struct esp_engine *engine);

/* Ends what has waited too long: waits for staging, stalled pushes, stages, leases, sessions. To be called every 100 ms
 * or so. */
void esp_engine_tick(struct esp_engine *engine);

/* From here on new pushes, declarations, stages, joins and applies fail with UNAVAILABLE; those that wait for staging
 * too. What is under way goes on. Idempotent. */
void esp_engine_drain(struct esp_engine *engine);
/* Nothing staged or being applied. */
bool esp_engine_is_idle(struct esp_engine *engine);

/* ---- sessions ---- */

struct esp_join {
  uint64_t session;
  uint64_t lineage;
  uint64_t last_sequence;
  uint64_t epoch;
  uint64_t commit;
  uint64_t lease_ms;
};

/* resume 0: a new session. INVALID_ARGUMENT: the name is longer than ESP_WORKER_NAME_BYTES_MAX or not UTF-8;
 * FAILED_PRECONDITION: resume names a session that is unknown, has left or has expired (the message says so and has the
 * lineage); RESOURCE_EXHAUSTED: --max-sessions. */
enum esp_code esp_session_join(struct esp_engine *engine, const char *worker, uint64_t resume, struct esp_join *ret,
                               struct esp_status *st) ESP_WARN_UNUSED;
/* Idempotent for a session that is known or was. */
enum esp_code esp_session_leave(struct esp_engine *engine, uint64_t session, struct esp_status *st) ESP_WARN_UNUSED;
/* Renews the lease; *ret has all but last_sequence. FAILED_PRECONDITION as for join. */
enum esp_code esp_session_heartbeat(struct esp_engine *engine, uint64_t session, struct esp_join *ret,
                                    struct esp_status *st) ESP_WARN_UNUSED;

/* ---- pushes and stages ---- */

struct esp_push_header {
  uint64_t session; /* 0: none */
  uint64_t sequence;
  uint64_t total_bytes;
  uint64_t leaf_count;
  uint64_t wait_ms;
  uint64_t require_epoch;
  uint64_t lineage;
};

struct esp_push_reply {
  uint64_t sequence;
  uint64_t commit;
  uint64_t epoch;
  uint64_t lineage;
  uint64_t applied;
  uint64_t frozen;
  uint64_t detached;
  uint64_t absent;
  uint64_t removed;
  bool skipped;
  bool replayed;
};

/* A piece of a tensor, as it arrived. Borrowed for the call. */
struct esp_piece {
  uint64_t leaf_id; /* or: */
  const char *path; /* "" for none */
  size_t path_len;
  uint64_t index; /* declarations only: the leaf's place in it */
  uint64_t offset;
  bool has_tensor; /* the sender described the tensor; what it said is checked */
  bool has_shape;
  struct esp_shape shape;
  enum esp_dtype dtype;  /* ESP_DTYPE_NONE: not said */
  uint64_t tensor_bytes; /* 0: not said */
  uint64_t rows_len;     /* not 0: UNIMPLEMENTED */
  struct esp_cursor data;
};

struct esp_push;

enum esp_push_event {
  ESP_PUSH_READY, /* the bytes are reserved: read on and feed */
  ESP_PUSH_DONE,  /* the last event: code, st and (on success) reply say how it ended */
};

/* st and reply are borrowed for the call; reply is NULL unless code is ESP_OK. */
typedef void (*esp_push_callback)(void *data, enum esp_push_event event, enum esp_code code,
                                  const struct esp_status *st, const struct esp_push_reply *reply);

/* Begins a push. On ESP_OK exactly one READY comes (perhaps inside this call), unless DONE comes first; DONE comes
 * once, unless the push is freed before its commit. Refusals are this call's result, with no event: UNAVAILABLE
 * (draining), INVALID_ARGUMENT (sequence 0 with a session or without; a leaf count or total that the tree cannot hold),
 * RESOURCE_EXHAUSTED (more than --max-staged; too many in flight), FAILED_PRECONDITION (session expired or unknown; a
 * sequence that is older than the window), ABORTED (lineage). A sequence that was committed is a replay: its payload is
 * counted and dropped, and DONE brings the first answer. An uncommitted original of the same sequence is ended with
 * ABORTED. */
enum esp_code esp_push_new(struct esp_engine *engine, const struct esp_push_header *header, esp_push_callback callback,
                           void *data, struct esp_push **ret, struct esp_status *st) ESP_WARN_UNUSED;

/* Takes one piece. Only after READY. The code is the whole push's result where it is not ESP_OK (no DONE follows; free
 * it): INVALID_ARGUMENT or NOT_FOUND naming the leaf; ABORTED, DEADLINE_EXCEEDED or the like where the push was ended
 * from elsewhere. */
enum esp_code esp_push_feed(struct esp_push *push, const struct esp_piece *piece,
                            struct esp_status *st) ESP_WARN_UNUSED;

/* All of the header's leaves and bytes have arrived. */
bool esp_push_is_whole(const struct esp_push *push);
/* The bytes that have arrived and those that the header declared, for the message of a stream that ended early. */
void esp_push_progress(const struct esp_push *push, uint64_t *ret_bytes, uint64_t *ret_total);

/* Commits a whole push: DONE comes when it is applied (perhaps inside this call) or refused: INVALID_ARGUMENT naming
 * the leaf and element of a non-finite gradient or a gradient for a buffer, ABORTED for require_epoch. */
void esp_push_commit(struct esp_push *push);

/* Drops the handle. Before the commit that leaves no trace and frees the reservation, and no event comes once it has
 * returned; after the commit the push goes on, and DONE comes all the same. NULL is fine. */
void esp_push_free(struct esp_push *push);

/* A stage is a push whose end is a token. header.session must be 0. Values of trained leaves must be finite; buffers
 * take anything. Feed, is_whole and free are the push's; instead of commit: */
enum esp_code esp_stage_new(struct esp_engine *engine, const struct esp_push_header *header, esp_push_callback callback,
                            void *data, struct esp_push **ret, struct esp_status *st) ESP_WARN_UNUSED;
/* Frees the push in any case. The stage keeps its reservation until an apply takes it or it expires (after twice
 * --stall-timeout). */
enum esp_code esp_stage_keep(struct esp_push *push, uint64_t *ret_stage, uint64_t *ret_expires_ms,
                             struct esp_status *st) ESP_WARN_UNUSED;

/* ---- declarations ---- */

struct esp_declare_leaf {
  const char *path;
  size_t path_len;
  struct esp_shape shape;
  enum esp_dtype dtype;
  enum esp_kind kind;
  const char *tag;
  const char *group;
  bool frozen;
  struct esp_init init;
};

struct esp_declare_node {
  const char *path;
  size_t path_len;
  const char *tag;
  const char *group;
  bool frozen;
};

struct esp_declare_reply {
  const uint64_t *ids; /* one a leaf, in the order in which they were added */
  size_t ids_len;
  uint64_t added;
  uint64_t epoch;
  uint64_t commit;
  uint64_t lineage;
  const char *const *notes;
  size_t notes_len;
};

typedef void (*esp_declare_callback)(void *data, enum esp_code code, const struct esp_status *st,
                                     const struct esp_declare_reply *reply);

struct esp_declare;

/* session 0: none; total_bytes: of the values that follow, which are reserved in --max-staged. ready is called once, as
 * ESP_PUSH_READY or ESP_PUSH_DONE (failed) of a push. */
enum esp_code esp_declare_new(struct esp_engine *engine, const struct esp_push_header *header, esp_push_callback ready,
                              void *data, struct esp_declare **ret, struct esp_status *st) ESP_WARN_UNUSED;
/* Strings are copied. INVALID_ARGUMENT, UNIMPLEMENTED (bf16, f16) naming the leaf. */
enum esp_code esp_declare_add_leaf(struct esp_declare *declare, const struct esp_declare_leaf *leaf,
                                   struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_declare_add_node(struct esp_declare *declare, const struct esp_declare_node *node,
                                   struct esp_status *st) ESP_WARN_UNUSED;
/* A piece of a value, after all leaves; its leaf is piece->index (or path). */
enum esp_code esp_declare_feed(struct esp_declare *declare, const struct esp_piece *piece,
                               struct esp_status *st) ESP_WARN_UNUSED;
/* Ends the stream: commits, or refuses with the callback's code. The handle is gone. */
void esp_declare_commit(struct esp_declare *declare, esp_declare_callback callback, void *data);
void esp_declare_free(struct esp_declare *declare); /* NULL is fine; not after commit */

/* ---- pulls ---- */

struct esp_pull_request {
  const uint64_t *leaf_ids;
  size_t leaf_ids_len;
  const char *const *paths;
  size_t paths_len;
  const char *selection; /* "" for none; nothing named at all: every leaf */
};

struct esp_pull_header {
  uint64_t epoch;
  uint64_t commit;
  uint64_t lineage;
  uint64_t leaf_count;
  uint64_t total_bytes;
};

/* A tensor's value, held: it does not change and is not freed until the pin is released. */
struct esp_pin {
  uint64_t leaf_id;
  uint64_t param_id;
  uint64_t version;
  enum esp_view view;
  enum esp_dtype dtype;
  struct esp_shape shape;
  const void *bytes;
  size_t bytes_len;
  struct esp_buffer *buffer; /* the engine's */
};
/* Takes no lock: it may be called from a slice's destroy callback. Once a pin. */
void esp_pin_ref(struct esp_buffer *buffer);
void esp_pin_unref(struct esp_buffer *buffer);

struct esp_pull;
/* code is ESP_OK with a pin (whose reference passes to the callee), or the pull's end. */
typedef void (*esp_pull_callback)(void *data, enum esp_code code, const struct esp_status *st,
                                  const struct esp_pin *pin);

/* Resolves and checks everything. NOT_FOUND names the leaf (a removed one too); INVALID_ARGUMENT for a selection's
 * syntax or a leaf named twice. */
enum esp_code esp_pull_new(struct esp_engine *engine, const struct esp_pull_request *request,
                           esp_pull_callback callback, void *data, struct esp_pull **ret,
                           struct esp_pull_header *ret_header, struct esp_status *st) ESP_WARN_UNUSED;
/* Asks for the next leaf's tensor: one callback follows, perhaps inside this call. Waits for updates that were
 * committed before, never for the network. Returns false, with no callback, when all were given. */
bool esp_pull_next(struct esp_pull *pull);
/* Not between esp_pull_next and its callback. NULL is fine. */
void esp_pull_free(struct esp_pull *pull);

/* ---- admin ---- */

enum esp_operation_kind { ESP_OPERATION_FREEZE, ESP_OPERATION_THAW, ESP_OPERATION_SET };

struct esp_operation {
  enum esp_operation_kind kind;
  const char *selection; /* copied */
  bool reset_state;      /* thaw, set */
  uint64_t stage;        /* set */
};

struct esp_apply_request {
  const struct esp_operation *operations;
  size_t operations_len;
  uint64_t if_epoch;
  bool dry_run;
  const char *idempotency_key; /* "" for none; 255 bytes at most */
  uint64_t max_leaves;         /* 0: no bound */
};

struct esp_apply_reply {
  uint64_t epoch;
  uint64_t commit;
  uint64_t lineage;
  uint64_t matched;
  bool dry_run;
  struct esp_diff diff; /* borrowed for the callback */
  const char *const *notes;
  size_t notes_len;
};

typedef void (*esp_apply_callback)(void *data, enum esp_code code, const struct esp_status *st,
                                   const struct esp_apply_reply *reply);

/* One callback follows, perhaps inside this call, when the transaction is true: nothing that is being applied can still
 * change what it froze, and what it sets is set. Refusals, which change nothing: NOT_FOUND, INVALID_ARGUMENT, ABORTED
 * (if_epoch), FAILED_PRECONDITION (more leaves than max_leaves, a stage that lacks a selected leaf), UNAVAILABLE
 * (draining). The request is copied. */
void esp_engine_apply(struct esp_engine *engine, const struct esp_apply_request *request, esp_apply_callback callback,
                      void *data);

/* ---- reads ---- */

/* The layout of now; esp_layout_unref it. */
struct esp_layout *esp_engine_layout(struct esp_engine *engine, uint64_t *ret_commit);
uint64_t esp_engine_lineage(const struct esp_engine *engine);

/* Of a parameter of a layout: changes while pushes are applied. */
struct esp_param_stat {
  uint64_t steps;
  uint64_t version;
  uint64_t bytes;
  uint64_t state_bytes;
};
void esp_place_stat(const struct esp_place *place, struct esp_param_stat *ret);

struct esp_digest {
  uint8_t bytes[16]; /* XXH128, big-endian */
};

struct esp_digest_reply {
  struct esp_layout *layout; /* borrowed for the callback */
  uint64_t commit;
  struct esp_selection sel;           /* borrowed for the callback */
  const struct esp_digest *digests;   /* one a selected leaf */
  const struct esp_param_stat *stats; /* likewise: at that commit */
  struct esp_digest all;              /* XXH128 over each leaf's path, a zero byte and its digest, in path order */
};
typedef void (*esp_digest_callback)(void *data, enum esp_code code, const struct esp_status *st,
                                    const struct esp_digest_reply *reply);
/* Digests of the selected leaves' parameters, all at one commit: XXH128 over the value, the states in table order and
 * the step count as a little-endian u64. One callback follows. */
void esp_engine_digest(struct esp_engine *engine, const char *selection, esp_digest_callback callback, void *data);

struct esp_engine_info {
  uint64_t lineage;
  uint64_t epoch;
  uint64_t commit;
  uint64_t uptime_ms;
  uint64_t leaves;
  uint64_t params;
  uint64_t elements;
  uint64_t frozen;
  uint64_t sessions_live;
  uint64_t memory_params;
  uint64_t memory_state;
  uint64_t memory_staged;
  uint64_t memory_staged_max;
  uint64_t memory_copy_on_write;
  uint64_t pushes_applied;
  uint64_t pushes_refused;
  uint64_t pushes_nonfinite;
  uint64_t pulls;
  uint64_t bytes_pushed;
  uint64_t bytes_pulled;
  unsigned threads;
  enum esp_isa isa;
  bool draining;
};
void esp_engine_info(struct esp_engine *engine, struct esp_engine_info *ret);

#endif
