/* What the engine's files share. Locks, in the order in which they may nest: transactions have a thread of their own;
 * watches.lock > commit_lock > sessions.lock; commit_lock > a parameter's queue lock. A push's lock, the budgets', the
 * plan's and values_lock are leaves: nothing is locked, and nobody is called, under them. */
#ifndef ESP_ENGINE_INTERNAL_H
#define ESP_ENGINE_INTERNAL_H

#include "base/why.h"
#include "engine/batch.h"
#include "engine/budget.h"
#include "engine/engine.h"
#include "engine/history.h"
#include "engine/map.h"
#include "engine/timers.h"
#include "engine/upload.h"

#define ESP_STAGES_MAX 1024 /* uploads for `set` that wait at once */
#define ESP_KEYS_MAX 256    /* idempotency keys that are remembered */
#define ESP_KEY_BYTES_MAX 255

/* Batches of less than this are run by the thread that makes them: a hand-over costs more. */
#define ESP_HERE_BYTES_MAX 32768

/* ---- pushes ---- */

enum esp_push_state {
  ESP_PUSH_WAITING,   /* for staging */
  ESP_PUSH_ARRIVING,  /* being fed */
  ESP_PUSH_ENDED,     /* by its own error, or from elsewhere: status says why */
  ESP_PUSH_COMMITTED, /* handed to the commit: it will be applied, answered or refused */
};

struct esp_push {
  _Atomic unsigned refs; /* the handle, the reservation that waits, the commit, the list's reader */
  struct esp_engine *engine;
  struct esp_push_header header;
  esp_push_callback callback;
  void *data;
  bool is_stage;
  bool is_declare;          /* the values of a declaration: its owner knows the targets */
  _Atomic bool counted;     /* among the engine's pushes in flight */
  bool replay;              /* its sequence was committed before */
  bool replay_known;        /* and reply has the answer */
  _Atomic uint64_t arrived; /* bytes; of a replay they are dropped */
  pthread_mutex_t lock;     /* of the next six */
  pthread_cond_t notified;
  enum esp_push_state state;
  bool notifying;     /* a callback runs */
  pthread_t notifier; /* in this thread */
  bool freed;         /* the handle is gone */
  struct esp_why why; /* of ENDED */
  struct esp_reservation reservation;
  struct esp_upload upload;
  struct esp_layout *layout;    /* that pieces are checked against; refreshed when a leaf is not in it */
  struct esp_push_reply reply;  /* written by the commit */
  _Atomic uint64_t progress_ms; /* when a byte arrived last */
  bool listed;                  /* in the engine's list of arriving pushes; under its lock, as the links */
  struct esp_push *list_next;
  struct esp_push *list_before;
  struct esp_push *waiter_next; /* replays that wait for the same answer */
};

void esp_push_ref(struct esp_push *push);
void esp_push_unref(struct esp_push *push);
/* Ends a push from elsewhere: DONE with this code, unless it was committed, had ended or was freed. */
void esp_push_end(struct esp_push *push, enum esp_code code, const struct esp_status *st);
/* Tells the owner and drops the staged bytes: the end of a committed push. */
void esp_push_answer(struct esp_push *push, enum esp_code code, const struct esp_status *st);
/* A whole push is to be committed from here on, and can't be ended any more; false where it has ended before. */
bool esp_push_hand_over(struct esp_push *push) ESP_WARN_UNUSED;
/* A whole stage or declaration leaves the arriving ones: no event comes any more. Fails where it was ended before. */
enum esp_code esp_push_set_aside(struct esp_push *push, struct esp_status *st) ESP_WARN_UNUSED;
/* Feeds a piece whose tensor the caller knows; NULL: the leaf of the tree that the piece names. */
enum esp_code esp_push_feed_target(struct esp_push *push, const struct esp_upload_target *target,
                                   const struct esp_piece *piece, struct esp_status *st) ESP_WARN_UNUSED;
/* A push, stage or declaration's values. */
enum esp_code esp_push_begin(struct esp_engine *engine, const struct esp_push_header *header,
                             esp_push_callback callback, void *data, bool is_stage, bool is_declare,
                             struct esp_push **ret, struct esp_status *st);
/* Ends those that made no progress for the stall time-out. */
void esp_pushes_tick(struct esp_engine *engine, uint64_t now_ms);

/* ---- sessions ---- */

struct esp_sequence {
  uint64_t sequence; /* 0: never used */
  enum { ESP_SEQUENCE_FREE, ESP_SEQUENCE_OPEN, ESP_SEQUENCE_COMMITTED, ESP_SEQUENCE_DONE } state;
  struct esp_push *push;    /* OPEN: whose */
  struct esp_push *waiters; /* COMMITTED: replays to be answered with it */
  uint64_t earlier;         /* OPEN: the one that was DONE here before, and is again where this one is dropped; or 0 */
  struct esp_push_reply reply; /* of DONE, or of `earlier` */
};

struct esp_session {
  uint64_t id;
  char name[ESP_WORKER_NAME_BYTES_MAX + 1];
  char peer[ESP_PEER_BYTES_MAX + 1];             /* "" where nobody said */
  uint64_t seen_ms;                              /* last sign of life; 0: it has left */
  uint64_t pushes;                               /* that were committed */
  uint64_t last_commit;                          /* of its last push that was applied; before that, when it joined */
  uint64_t high;                                 /* highest sequence committed */
  unsigned in_flight_len;                        /* sequences OPEN or COMMITTED */
  unsigned committed_len;                        /* of these, COMMITTED: being applied */
  struct esp_sequence window[ESP_IN_FLIGHT_MAX]; /* by sequence modulo its length */
};

struct esp_sessions {
  pthread_mutex_t lock;
  struct esp_map map; /* id to struct esp_session */
};

void esp_sessions_init(struct esp_sessions *sessions);
void esp_sessions_done(struct esp_sessions *sessions);
/* Takes the push's sequence: sets push->replay, or *ret_superseded to the original (ref'd) that it replaces. */
enum esp_code esp_sequence_open(struct esp_engine *engine, struct esp_push *push, struct esp_push **ret_superseded,
                                struct esp_status *st) ESP_WARN_UNUSED;
/* Gives it back where the push still has it open. */
void esp_sequence_drop(struct esp_engine *engine, struct esp_push *push);
/* Under the commit lock: from here on a retry is a replay. ABORTED where the push was superseded, FAILED_PRECONDITION
 * where the session has left. */
enum esp_code esp_sequence_commit(struct esp_engine *engine, struct esp_push *push,
                                  struct esp_status *st) ESP_WARN_UNUSED;
/* Records push->reply; returns the replays that waited for it, as a list. */
struct esp_push *esp_sequence_done(struct esp_engine *engine, struct esp_push *push);
/* Of a replay: sets replay_known, with the first answer in push->reply, or keeps it among the waiters.
 * FAILED_PRECONDITION where the answer is no longer kept. */
enum esp_code esp_sequence_replay(struct esp_engine *engine, struct esp_push *push,
                                  struct esp_status *st) ESP_WARN_UNUSED;
void esp_sessions_tick(struct esp_engine *engine, uint64_t now_ms);
uint64_t esp_sessions_live(struct esp_engine *engine);
/* The worker's name; "" for no session, or one that is not known. */
void esp_session_name(struct esp_engine *engine, uint64_t id, char name[ESP_WORKER_NAME_BYTES_MAX + 1]);

/* ---- watches ---- */

struct esp_watches {
  pthread_mutex_t lock;    /* of the list; taken before commit_lock */
  struct esp_watch *first; /* those that wait */
  _Atomic uint64_t len;    /* of all */
};

void esp_watches_init(struct esp_watches *watches);
void esp_watches_done(struct esp_watches *watches);
/* After a layout was published, and without commit_lock: calls those that wait. */
void esp_watches_wake(struct esp_engine *engine);

/* ---- transactions ---- */

struct esp_stage {
  struct esp_push *push; /* the upload and its reservation */
  uint64_t expires_ms;
};

/* Runs fn on the transactions' thread, after those before it. The job is in the owner's memory. */
void esp_transactions_submit(struct esp_engine *engine, struct esp_job *job);
/* Runs it in the caller's thread, as if that were the transactions'; false where that one has something to do. */
bool esp_transactions_run_here(struct esp_engine *engine, struct esp_job *job);

struct esp_apply; /* an admin transaction */

/* Somebody whose answer waits for an attempt to apply the plan. */
struct esp_plan_asker {
  esp_apply_callback callback;
  void *data;
  struct esp_plan_asker *next;
};

/* The transaction that comes before any push. */
struct esp_plan_wait {
  const struct esp_apply_request *request; /* borrowed; NULL: there is no plan */
  esp_apply_callback told;
  void *told_data;
  _Atomic bool waits;            /* it has not been applied yet; false for good once it has */
  pthread_mutex_t lock;          /* of waits and of all that follows */
  bool running;                  /* there is an attempt */
  bool again;                    /* and somebody has asked for the next one */
  bool was_told;                 /* of a failure, which is why */
  struct esp_plan_asker *askers; /* who have asked for the next one */
  struct esp_plan_asker *served; /* who wait for this one */
  struct esp_status why;         /* it waits */
};

/* Has the plan tried once more; the callback comes after that, perhaps inside this call. False: no plan waits, and no
 * callback comes. asker may be NULL. Whoever asks keeps the engine from being idle. */
bool esp_plan_ask(struct esp_engine *engine, struct esp_plan_asker *asker);
/* FAILED_PRECONDITION, with the reason, while the plan waits. */
enum esp_code esp_plan_admit(struct esp_engine *engine, struct esp_status *st) ESP_WARN_UNUSED;

struct esp_remembered {
  uint64_t hash;           /* of its key: what is looked through is short */
  struct esp_apply *apply; /* ref'd; NULL: an empty place */
};

struct esp_group_optim {
  struct esp_object object;
  struct esp_optim *optim;
};

struct esp_engine {
  struct esp_engine_options options; /* its groups and assigns are not kept */
  uint64_t lineage;
  uint64_t started_ms;
  struct esp_world world;
  struct esp_pool *pool;         /* kernels */
  struct esp_pool *transactions; /* one thread: layout changes, one after the other */
  pthread_mutex_t commit_lock;   /* of the next four; held for the hand-over of a commit to its queues, and no longer */
  struct esp_layout *layout;
  uint64_t commit;       /* the last number */
  uint64_t push_commits; /* how many of them were of pushes */
  struct esp_timers timers;
  struct esp_budget staging;
  struct esp_sessions sessions;
  struct esp_watches watches;
  struct esp_history history;
  struct esp_plan_wait plan;
  pthread_mutex_t list_lock; /* of arriving */
  struct esp_push *arriving;
  pthread_mutex_t stages_lock;
  struct esp_map stages;                          /* token to struct esp_stage */
  struct esp_remembered remembered[ESP_KEYS_MAX]; /* the transactions thread's */
  size_t remembered_next;                         /* likewise, as the next */
  size_t remembered_changes;                      /* lines of their diffs */
  _Atomic bool draining;
  _Atomic uint64_t committing; /* commits and transactions that have not ended */
  _Atomic uint64_t pushes_in_flight;
  _Atomic uint64_t pushes_applied;
  _Atomic uint64_t pushes_refused;
  _Atomic uint64_t pushes_nonfinite;
  _Atomic uint64_t pulls;
  _Atomic uint64_t pulls_active;
  _Atomic uint64_t bytes_pushed;
  _Atomic uint64_t bytes_pulled;
};

uint64_t esp_engine_now(const struct esp_engine *engine);
uint64_t esp_engine_wall(const struct esp_engine *engine); /* since 1970, for people */
/* Until when somebody may be kept waiting who waits for wait_ms (0: --stall-timeout): a little less, so that the caller
 * hears why. */
uint64_t esp_wait_deadline(const struct esp_engine *engine, uint64_t now_ms, uint64_t wait_ms);
uint64_t esp_engine_random(const struct esp_engine *engine); /* never 0 */
/* Commits pushes as one commit: each is answered when all of it is applied, or refused. Takes a reference of each. */
void esp_commit_pushes(struct esp_engine *engine, struct esp_push *const *pushes, size_t len);
/* Borrowed. */
struct esp_optim *esp_group_get_optim(const struct esp_group *group);
struct esp_optim *esp_place_optim(const struct esp_layout *layout, const struct esp_place *place);
struct esp_param *esp_place_param(const struct esp_place *place);
/* NOT_FOUND with the nearest paths, or what is wrong with the path. */
enum esp_code esp_leaf_unknown(const struct esp_layout *layout, const char *path, size_t len, struct esp_status *st);
/* Publishes under the commit lock, which is held: takes the reference to layout, and a commit number; the record, which
 * has the diff, gets both. */
uint64_t esp_engine_publish(struct esp_engine *engine, struct esp_layout *layout, struct esp_record *record,
                            struct esp_layout **ret_old);

/* Stages (stage.c). */
void esp_stages_tick(struct esp_engine *engine, uint64_t now_ms);
void esp_stages_done(struct esp_engine *engine);
/* The stage's push, ref'd, or NULL; `take` forgets the token. */
struct esp_push *esp_stage_find(struct esp_engine *engine, uint64_t stage, bool take);
void esp_remembered_done(struct esp_engine *engine);

#endif
