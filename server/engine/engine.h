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

#include "base/arena.h"
#include "base/env.h"
#include "base/span.h"
#include "optim/optim.h"
#include "tree/tree.h"

#define ESP_PEER_BYTES_MAX 127
#define ESP_WORKER_NAME_BYTES_MAX 255
#define ESP_IN_FLIGHT_MAX 64     /* the most that max_in_flight may be: sequences of one session that are remembered */
#define ESP_NOTES_MAX 16         /* notes in one reply */
#define ESP_OPERATIONS_MAX 10000 /* in one transaction */

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
  uint64_t max_copy_on_write;      /* --max-copy-on-write */
  uint64_t max_tree;               /* --max-tree: bytes of parameters and optimizer state */
  uint64_t max_tensor;             /* --max-tensor: bytes of one leaf; 0: no bound */
  uint64_t max_chunk;              /* --max-chunk: bytes of one piece; 0: no bound */
  uint64_t max_in_flight;          /* --max-in-flight: of one session; 0: ESP_IN_FLIGHT_MAX, the most */
  uint64_t max_pushes;             /* --max-pushes: in flight, of all sessions and without one; 0: no bound */
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
bool esp_engine_is_draining(const struct esp_engine *engine);
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
  uint64_t in_flight_max; /* sequences that may be open at once */
  uint64_t chunk_bytes_max;
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
/* Notes where the session's worker calls from, for people; longer than ESP_PEER_BYTES_MAX is cut. */
void esp_session_note_peer(struct esp_engine *engine, uint64_t session, const char *peer);

struct esp_worker {
  uint64_t session;
  char name[ESP_WORKER_NAME_BYTES_MAX + 1];
  char peer[ESP_PEER_BYTES_MAX + 1];
  bool live;              /* its lease has not run out */
  uint64_t last_sequence; /* the highest that was committed; 0: none */
  uint64_t in_flight;     /* sequences that have begun and are not answered */
  uint64_t pushes;        /* that were committed */
  uint64_t seen_ms;       /* since its last sign of life */
  uint64_t staleness;     /* commits since its last push or, before the first, since it joined */
};
/* The ids of all sessions, in no order; *ret is the caller's to esp_free. RESOURCE_EXHAUSTED without memory. */
enum esp_code esp_sessions_list(struct esp_engine *engine, uint64_t **ret, size_t *ret_len,
                                struct esp_status *st) ESP_WARN_UNUSED;
/* Looks up sessions, in the order of their ids; those that have gone are left out. Returns how many are in ret, which
 * has room for len. Pushes wait while it looks: a few dozen at once. */
size_t esp_sessions_describe(struct esp_engine *engine, const uint64_t *ids, size_t len, struct esp_worker *ret);

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
  const char *alias_of; /* the path of the leaf, of this declaration or of the tree, that it is tied to; "" for none.
                           Its value is that one's: init is passed over. Born frozen it freezes both */
  enum esp_view view;   /* of an alias */
  bool frozen;
  bool detached;
  struct esp_init init;
};

struct esp_declare_node {
  const char *path;
  size_t path_len;
  const char *tag;
  const char *group;
  bool frozen;
  bool detached;
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

/* What the reader has of a leaf: sent again only where parameter, version or view are others by now, or where he asks
 * for another dtype than he has. */
struct esp_have {
  uint64_t leaf_id;
  uint64_t param_id;
  uint64_t version;
  enum esp_view view;
  enum esp_dtype dtype; /* ESP_DTYPE_NONE: the parameter's */
};

struct esp_pull_request {
  const uint64_t *leaf_ids;
  size_t leaf_ids_len;
  const char *const *paths;
  size_t paths_len;
  const char *selection; /* "" for none; nothing named at all: every leaf */
  bool consistent;       /* one commit across all leaves */
  enum esp_dtype dtype;  /* in which the values are wanted; ESP_DTYPE_NONE: each parameter's own */
  const uint8_t *dtypes; /* one a leaf of leaf_ids, instead, where it is not ESP_DTYPE_NONE; NULL: no */
  uint64_t wait_ms;      /* for --max-copy-on-write; 0: --stall-timeout */
  uint64_t have_lineage; /* of what is in have; of another lineage it counts for nothing */
  const struct esp_have *have;
  size_t have_len;
};

struct esp_pull_header {
  uint64_t epoch;
  uint64_t commit;
  uint64_t lineage;
  uint64_t leaf_count;  /* asked for */
  uint64_t total_bytes; /* of those */
};

/* Keeps a value as it is while somebody reads it. */
struct esp_hold;
/* Any thread; nobody is called from inside: it may be used in a slice's destroy callback. NULL is fine for unref. */
void esp_hold_ref(struct esp_hold *hold);
void esp_hold_unref(struct esp_hold *hold);

/* A tensor's value, held: it does not change and is not freed until the hold is let go. */
struct esp_pin {
  uint64_t leaf_id;
  uint64_t param_id;
  uint64_t version;
  enum esp_view view;
  enum esp_dtype dtype;
  struct esp_shape shape;
  const void *bytes;
  size_t bytes_len;
  struct esp_hold *hold;
};

/* First the header, then one event a leaf: with a pin, whose hold passes to the callee, or without one, where the
 * reader has the value already. */
struct esp_pull_event {
  const struct esp_pull_header *header;
  const struct esp_pin *pin;
};

struct esp_pull;
/* code is ESP_OK with an event, or the pull's end. All is borrowed for the call. */
typedef void (*esp_pull_callback)(void *data, enum esp_code code, const struct esp_status *st,
                                  const struct esp_pull_event *event);

enum esp_pull_answer {
  ESP_PULL_END,   /* everything was given; no callback comes */
  ESP_PULL_ASKED, /* one callback comes, perhaps inside the call */
  ESP_PULL_WAITS, /* likewise, once others have let go of enough of --max-copy-on-write: who waits must not himself keep
                     a hold that depends on his going on */
};

/* Resolves and checks everything. NOT_FOUND names the leaf (a removed one too); INVALID_ARGUMENT for a selection's
 * syntax, a leaf named twice or a dtype that is not narrower than the leaf's (UNIMPLEMENTED: for another than f32);
 * RESOURCE_EXHAUSTED names --max-copy-on-write where the pull can never fit into it. The request is borrowed until the
 * header came. */
enum esp_code esp_pull_new(struct esp_engine *engine, const struct esp_pull_request *request,
                           esp_pull_callback callback, void *data, struct esp_pull **ret,
                           struct esp_status *st) ESP_WARN_UNUSED;
/* Asks for the header, then for the next leaf's tensor. Waits for updates that were committed before and for
 * --max-copy-on-write (DEADLINE_EXCEEDED after wait_ms, naming it), never for the network. A consistent pull waits for
 * its header only; UNAVAILABLE where meanwhile the tree grew beyond what it had asked for. OUT_OF_RANGE, naming the
 * leaf: an element is too large for the dtype that is wanted. */
enum esp_pull_answer esp_pull_next(struct esp_pull *pull);
/* True: the pull waited for --max-copy-on-write, and the callback that was to come does not. Then, or once it has come,
 * the pull may be freed. */
bool esp_pull_cancel(struct esp_pull *pull);
/* Not between esp_pull_next and its callback. NULL is fine. */
void esp_pull_free(struct esp_pull *pull);

/* ---- admin ---- */

enum esp_operation_kind {
  ESP_OPERATION_FREEZE,         /* selection; at_commit, until_commit, for_ms */
  ESP_OPERATION_THAW,           /* selection, reset_state; at_commit; one_by_one with every */
  ESP_OPERATION_DETACH,         /* selection */
  ESP_OPERATION_ATTACH,         /* selection */
  ESP_OPERATION_TIE,            /* selection (a leaf, a node or a pattern) to `to`, view, mean */
  ESP_OPERATION_UNTIE,          /* selection, reset_state */
  ESP_OPERATION_REGROUP,        /* selection, `to` is the group */
  ESP_OPERATION_ADJUST,         /* name is the group, hypers */
  ESP_OPERATION_SET,            /* selection, stage, reset_state */
  ESP_OPERATION_COPY,           /* values of selection (a leaf or a node) to `to` */
  ESP_OPERATION_RENAME,         /* selection (a node) to `to` */
  ESP_OPERATION_ADD,            /* leaf */
  ESP_OPERATION_REMOVE,         /* selection */
  ESP_OPERATION_REINIT,         /* selection, init (not ESP_INIT_VALUE) */
  ESP_OPERATION_RESET,          /* optimizer state and step count of selection */
  ESP_OPERATION_DEFINE_GROUP,   /* name, `to` is the expression */
  ESP_OPERATION_DELETE_GROUP,   /* name */
  ESP_OPERATION_NAME_SELECTION, /* name, selection ("": forget the name) */
  ESP_OPERATION_CANCEL_TIMER,   /* timer */
  ESP_OPERATION_UNDO,           /* the transaction that made `epoch`; 0: the last one, if that is no declaration */
};

/* Strings are copied, and NULL counts as "". A pattern that ties, copies or renames pairs the nth wildcard with the
 * nth. */
struct esp_operation {
  enum esp_operation_kind kind;
  const char *selection;
  const char *to;
  const char *name;
  enum esp_view view;
  bool mean; /* tie: the value is the mean of both, not what `to` has */
  bool reset_state;
  uint64_t stage;
  uint64_t epoch;
  uint64_t at_commit;    /* freeze, thaw: not now, but as this commit, or the next after it; 0: now */
  uint64_t until_commit; /* freeze: it ends as this commit, or the next after it; 0: it does not */
  uint64_t for_ms;       /* freeze: it ends so long after it began; 0: it does not */
  bool one_by_one;       /* thaw: what the selection names (esp_select_in_order), the first now */
  uint64_t every;        /* then: the next after so many commits of pushes, and so on */
  uint64_t timer;
  struct esp_init init;
  const struct esp_hyper_change *hypers;
  size_t hypers_len;
  const struct esp_declare_leaf *leaf; /* its value can't follow */
  const char *place;                   /* where it is written, for errors; not copied; NULL: its number in the list */
};

struct esp_apply_request {
  const struct esp_operation *operations;
  size_t operations_len;
  uint64_t if_epoch;
  bool dry_run;
  const char *idempotency_key; /* "" for none; 255 bytes at most */
  uint64_t max_leaves;         /* 0: no bound */
  const char *actor;           /* who asks, for the history; NULL counts as "" */
  const char *reason;          /* for the history; likewise */
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

/* A transaction that has to be applied before any push is. Where its selections match, that is done when this returns,
 * ESP_OK. Where they do not yet, it is tried again after every declaration, which is answered after that, and every
 * transaction that changed the tree; until it has been applied, pushes are refused (FAILED_PRECONDITION, with the
 * reason). Any other failure, of what is wrong whatever leaves there will be, too, is the result. told is called when
 * it was applied, and when an attempt failed for another reason than the last one did, from any thread. The request,
 * which has no key, is borrowed for the engine's life. Once, before the engine is asked for anything else; blocks. */
enum esp_code esp_engine_plan(struct esp_engine *engine, const struct esp_apply_request *request,
                              esp_apply_callback told, void *data, struct esp_status *st) ESP_WARN_UNUSED;
/* Whether the plan waits, and then why. */
bool esp_engine_plan_waits(struct esp_engine *engine, struct esp_status *ret_why);

/* ---- history ---- */

/* A transaction that changed something. Immutable once it is in the history. */
struct esp_record {
  _Atomic uint64_t refs;
  uint64_t epoch;  /* after it */
  uint64_t commit; /* its own number: pushes before it have lower ones */
  uint64_t undoes; /* the epoch of the transaction that it took back, and did nothing else; 0: none */
  uint64_t at_ms;  /* since 1970 */
  char *actor;     /* who asked; "" where nobody said */
  char *reason;
  struct esp_diff diff; /* empty where it was too long to be kept */
  uint64_t changes_len; /* lines that it had */
  bool is_declaration;  /* a worker's, not an operator's */
};
void esp_record_unref(struct esp_record *record); /* NULL is fine; any thread */

/* Those that are kept of the transactions with epochs above since_epoch, the newest `limit` of them (0: all), oldest
 * first, ref'd; the array is the caller's to esp_free. RESOURCE_EXHAUSTED without memory. */
enum esp_code esp_engine_history(struct esp_engine *engine, uint64_t since_epoch, uint64_t limit,
                                 struct esp_record ***ret, size_t *ret_len, struct esp_status *st) ESP_WARN_UNUSED;

/* ---- reads ---- */

/* The layout of now; esp_layout_unref it. */
struct esp_layout *esp_engine_layout(struct esp_engine *engine, uint64_t *ret_commit);
uint64_t esp_engine_lineage(const struct esp_engine *engine);

/* ---- why ---- */

/* One thing that is so of a leaf: "group", "head", "assigned to encoder". */
struct esp_fact {
  const char *what;    /* static */
  const char *value;   /* as the next: the layout's, or in the arena of the facts */
  const char *because; /* "" where there is nothing to say */
  uint64_t epoch;      /* of the transaction that made it so, where the history has it; else 0 */
};

struct esp_facts {
  struct esp_fact *list; /* owned */
  size_t len;
  size_t capacity;
  struct esp_arena arena; /* strings */
};
void esp_facts_done(struct esp_facts *facts); /* idempotent */

/* Why the selected leaves are as they are now: layout and history of one moment. One thread at a time. */
struct esp_explain;
/* As esp_select; RESOURCE_EXHAUSTED without memory. To be freed before the engine. */
enum esp_code esp_explain_new(struct esp_engine *engine, const char *selection, struct esp_explain **ret,
                              struct esp_status *st) ESP_WARN_UNUSED;
void esp_explain_free(struct esp_explain *explain); /* NULL is fine */
/* All borrowed. */
const struct esp_layout *esp_explain_layout(const struct esp_explain *explain, uint64_t *ret_commit,
                                            const struct esp_selection **ret_sel);
/* The facts of the index'th selected leaf, some 50 at most but for its tags; *ret is to be esp_facts_done, and before
 * the explanation is freed. False without memory. */
bool esp_explain_leaf(const struct esp_explain *explain, size_t index, struct esp_facts *ret) ESP_WARN_UNUSED;

/* ---- watches ---- */

typedef void (*esp_watch_callback)(void *data);

/* Tells of changes of the layout, before the transaction is answered that made them. In its owner's memory, zeroed
 * before esp_watch_init; its fields are the engine's. */
struct esp_watch {
  struct esp_engine *engine; /* NULL: not initialised, or done */
  esp_watch_callback callback;
  void *data;
  bool is_waiting; /* in the list of those that wait; under its lock, as the links */
  struct esp_watch *next;
  struct esp_watch *before;
};
void esp_watch_init(struct esp_watch *watch, struct esp_engine *engine, esp_watch_callback callback, void *data);
/* One callback follows, perhaps inside this call, once the layout is of a later epoch than this one. To be asked again
 * after it, and not before; what happened meanwhile is told then, however much it was, by one callback. */
void esp_watch_wait(struct esp_watch *watch, uint64_t epoch);
/* True: the watch waited, and no callback comes. False: it did not wait, or its callback is coming or has come. Does
 * not block. */
bool esp_watch_cancel(struct esp_watch *watch);
/* Neither while it waits nor while its callback is coming. Idempotent. */
void esp_watch_done(struct esp_watch *watch);

/* ---- readings ---- */

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
  uint64_t memory_copy_on_write_max;
  uint64_t memory_spare; /* kept for the next push or copy */
  uint64_t push_commits; /* commits of pushes since the tree's beginning: what timers count */
  uint64_t wall_ms;      /* since 1970: what timers go by */
  uint64_t pushes_applied;
  uint64_t pushes_refused;
  uint64_t pushes_nonfinite;
  uint64_t pushes_in_flight; /* begun and not answered */
  uint64_t pushes_in_flight_max;
  uint64_t pulls;
  uint64_t pulls_active;
  uint64_t bytes_pushed;
  uint64_t bytes_pulled;
  unsigned threads;
  enum esp_isa isa;
  uint64_t watches; /* that were initialised and are not done */
  bool draining;
};
void esp_engine_info(struct esp_engine *engine, struct esp_engine_info *ret);

#endif
