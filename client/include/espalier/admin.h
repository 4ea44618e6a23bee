/* libespalier for operators and their tools: what changes the tree while it is trained, and what looks at it and at its
 * server. docs/surgery.md and docs/espctl.md have each operation by example.
 *
 * Order of arguments, threads, memory and errors are as in espalier/espalier.h. No call here needs a session. */
#ifndef ESPALIER_ADMIN_H
#define ESPALIER_ADMIN_H

#include <espalier/espalier.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- operations ---- */

/* What an operation does, and which fields of struct esp_op it uses. `selection` is an expression of the selector
 * language (docs/espctl.md), which must match a leaf; leaf, node and pattern are what it says where the operation wants
 * less. docs/espctl.md has each by example; the words of espctl's commands are these. */
enum esp_op_kind {
  ESP_OP_FREEZE, /* selection, at_commit, until_commit or for_ms: value, optimizer state and step count stand still.
                    Leaves tied to a selected one freeze with it */
  ESP_OP_THAW,   /* selection, reset_state; at_commit, or one_by_one with every */
  ESP_OP_SET,    /* selection, stage, reset_state. FAILED_PRECONDITION where the stage lacks a selected leaf */
  ESP_OP_DETACH, /* selection: gradients that come through these leaves are dropped. Leaves tied to them stay */
  ESP_OP_ATTACH, /* selection */
  ESP_OP_TIE, /* selection (a leaf, a node or a pattern), to (likewise), transposed, mean: it is bound to the parameter
                 of `to`, whose optimizer state, group and frozen flag hold. INVALID_ARGUMENT for another dtype, kind,
                 or shape under the view, a leaf with itself, a node with what is below it, overlapping selections */
  ESP_OP_UNTIE,          /* selection, reset_state: own parameters, with the values as these leaves saw them */
  ESP_OP_REGROUP,        /* selection, to (the group) */
  ESP_OP_ADJUST,         /* name (the group), hypers. INVALID_ARGUMENT for an unknown name lists the known ones */
  ESP_OP_COPY,           /* selection (a leaf or a node), to: values. INVALID_ARGUMENT for another shape or dtype */
  ESP_OP_RENAME,         /* selection (a node), to: the only operation that changes a path */
  ESP_OP_ADD,            /* leaf, of any init but ESP_VALUE; also where a leaf of this path was removed */
  ESP_OP_REMOVE,         /* selection. Declaring such a leaf again is FAILED_PRECONDITION from then on */
  ESP_OP_REINIT,         /* selection, init (not ESP_VALUE), a, b, seed: as a leaf that is declared */
  ESP_OP_RESET,          /* selection: optimizer state and step count begin afresh, values stay */
  ESP_OP_DEFINE_GROUP,   /* name, to (the optimizer expression): a new group, or another optimizer of one */
  ESP_OP_DELETE_GROUP,   /* name; what is assigned to it falls back to `default`, which can't be deleted */
  ESP_OP_NAME_SELECTION, /* name, selection: @name stands for it in selectors; NULL or "" forgets the name */
  ESP_OP_UNDO,         /* epoch: the transaction that made it, backwards; 0: the last one, unless that is a declaration.
                          NOT_FOUND where it is not remembered; FAILED_PRECONDITION, naming the epoch, where a later one
                          touched the same and was not undone. Overwritten values are not kept */
  ESP_OP_CANCEL_TIMER, /* timer, of esp_timers_list: it takes place no more. NOT_FOUND */
};

/* A hyperparameter's new value: `lr`, or `adamw.lr` where two members of a chain have one of that name; a number or a
 * schedule, as in an expression. */
struct esp_hyper {
  const char *name;
  const char *value;
};

/* One operation. Zero the struct, then set what its kind uses; the rest is passed over. */
struct esp_op {
  enum esp_op_kind kind;
  const char *selection;
  bool reset_state;        /* thaw, set, untie: start the optimizer afresh */
  uint64_t stage;          /* set: what esp_stage returned */
  const char *to;          /* the other leaf, node or pattern; the group; the new path; the expression */
  const char *name;        /* of a group, or of a selection */
  bool transposed;         /* tie: the selected leaf sees the other's tensor transposed */
  bool mean;               /* tie: the value is the mean of both; else that of `to` */
  enum esp_leaf_init init; /* reinit, with a, b and seed as in struct esp_leaf_spec */
  double a;
  double b;
  uint64_t seed;
  const struct esp_hyper *hypers; /* adjust */
  size_t hypers_len;
  const struct esp_leaf_spec *leaf; /* add */
  uint64_t epoch;                   /* undo */
  uint64_t at_commit;    /* freeze, thaw: not now but as this commit, or the next after it, by a timer; 0: now */
  uint64_t until_commit; /* freeze: it is thawed as this commit, or the next after it; 0: it is not */
  uint64_t for_ms;       /* freeze: it is thawed so long after it froze, by the wall clock; 0: it is not */
  bool one_by_one;       /* thaw: the nodes that the selection (a path, a pattern, or such with | between them) names,
                            one after the other in the order in which it is written, the first now */
  uint64_t every;        /* then: each so many commits of pushes after the one before */
  uint64_t timer;        /* cancel */
};

struct esp_apply_options {
  uint64_t if_epoch;           /* ABORTED unless the tree is at this epoch; 0: any */
  bool dry_run;                /* change nothing, return the diff and the epoch for if_epoch */
  uint64_t max_leaves;         /* refuse to touch more; 0: no bound */
  const char *reason;          /* for the history; NULL for none */
  const char *idempotency_key; /* a call with the key of an earlier one gets that one's answer, and nothing is applied
                                  again, also from another process; 255 bytes at most; NULL: a random one, for the
                                  retries of this call */
};

struct esp_apply_change {
  esp_leaf_id leaf; /* 0: not a leaf's */
  const char *path;
  const char *field;
  const char *from;
  const char *to;
  const char *because; /* the selected leaf that this one is tied to, or "" */
};

struct esp_apply_result {
  uint64_t epoch;   /* after it */
  uint64_t commit;  /* its own; 0 where nothing changed, and in a dry run */
  uint64_t matched; /* leaves that the selections matched */
  bool dry_run;
  size_t changes_len;
  const struct esp_apply_change *changes;
  size_t notes_len;
  const char *const *notes;
};

/* Applies operations as one transaction: all or none, each on what those before it left. When it returns it is true:
 * after a freeze not one bit of the frozen parameters changes. Retried under an idempotency key. options may be NULL;
 * *ret (which may be NULL) is to be freed with esp_apply_result_free. NOT_FOUND with the nearest paths, ABORTED
 * (if_epoch), FAILED_PRECONDITION (max_leaves), INVALID_ARGUMENT, UNIMPLEMENTED; of several operations the message says
 * which (`operation 2 of 3: ...`). */
enum esp_code esp_apply(esp_client *client, const struct esp_op *ops, size_t len,
                        const struct esp_apply_options *options, struct esp_apply_result **ret,
                        struct esp_status *st) ESP_WARN_UNUSED;
void esp_apply_result_free(struct esp_apply_result *result); /* NULL is fine */

/* Uploads one tensor for ESP_OP_SET. dtype and shape must be the leaf's. */
enum esp_code esp_stage(esp_client *client, const char *path, const struct esp_tensor *tensor, uint64_t *ret_stage,
                        struct esp_status *st) ESP_WARN_UNUSED;

/* Overwrites one leaf's value, also of a frozen one: every later pull has it. dtype and shape must be the leaf's. ret
 * may be NULL. */
enum esp_code esp_set(esp_client *client, const char *path, const struct esp_tensor *tensor,
                      struct esp_apply_result **ret, struct esp_status *st) ESP_WARN_UNUSED;

/* ---- what was done, and what is to come ---- */

/* A transaction that changed something. */
struct esp_transaction_info {
  uint64_t epoch;     /* after it */
  uint64_t commit;    /* its own: pushes before it have lower ones */
  const char *actor;  /* where it was asked from, or who; "" where nobody said */
  uint64_t at_ms;     /* since 1970, by the server's clock */
  const char *reason; /* as in esp_apply_options, or "" */
  size_t changes_len;
  const struct esp_apply_change *changes;
  uint64_t changes_total; /* more than changes_len where the diff was too long to be kept */
};

struct esp_history {
  size_t len;
  const struct esp_transaction_info *transactions; /* oldest first */
};

/* The transactions that the server remembers with epochs above since_epoch, the newest `limit` of them (0: all). *ret
 * is to be freed with esp_history_free. Errors are those of any call, and RESOURCE_EXHAUSTED without memory. */
enum esp_code esp_history_list(esp_client *client, uint64_t since_epoch, uint64_t limit, struct esp_history **ret,
                               struct esp_status *st) ESP_WARN_UNUSED;
void esp_history_free(struct esp_history *history); /* NULL is fine */

/* What a timer waits for. The values are the wire's. */
enum esp_timer_wait { ESP_WAIT_COMMIT = 1, ESP_WAIT_PUSHES = 2, ESP_WAIT_TIME = 3 };

/* A freeze or a thaw that is yet to come; a leaf has at most one. Freezing or thawing it by hand takes its timer away.
 */
struct esp_timer_info {
  uint64_t timer; /* its id */
  enum esp_timer_wait wait;
  uint64_t at;           /* a commit number; commits of pushes since the tree's beginning; milliseconds since 1970 */
  uint64_t left;         /* until then: commits, or milliseconds; 0: it is due */
  bool freezes;          /* else it thaws */
  bool reset_state;      /* of a thaw */
  uint64_t until_commit; /* of a freeze, as in struct esp_op */
  uint64_t for_ms;       /* likewise */
  const char *selection; /* that named its leaves when it was set */
  uint64_t leaves;       /* that have it now */
  uint64_t epoch;        /* of the transaction that set it */
};

struct esp_timers {
  uint64_t epoch;
  uint64_t commit;
  uint64_t lineage;
  size_t len;
  const struct esp_timer_info *timers; /* in the order in which they were set */
};

/* Lists the timers that wait. *ret is to be freed with esp_timers_free. Errors as of esp_history_list. */
enum esp_code esp_timers_list(esp_client *client, struct esp_timers **ret, struct esp_status *st) ESP_WARN_UNUSED;
void esp_timers_free(struct esp_timers *timers); /* NULL is fine */

/* ---- what is there, and why ---- */

struct esp_leaf_info {
  esp_leaf_id leaf;
  const char *path;
  uint64_t shape[ESP_LEAF_RANK_MAX];
  unsigned rank;
  enum esp_leaf_dtype dtype;
  enum esp_leaf_kind kind;
  const char *group;
  const char *group_assigned; /* "" unless the assigned group is not defined */
  const char *tag;
  const char *tied_to; /* the primary leaf's path, or "" */
  bool frozen;
  bool detached;
  uint64_t steps;
  uint64_t version;
  uint64_t bytes;
  uint64_t state_bytes;
  uint8_t digest[16]; /* where it was asked for */
};

struct esp_group_info {
  const char *name;
  const char *expression;
  uint64_t parameters;
};

struct esp_description {
  uint64_t epoch;
  uint64_t commit;
  uint64_t lineage;
  size_t leaves_len;
  const struct esp_leaf_info *leaves; /* in path order */
  size_t groups_len;
  const struct esp_group_info *groups;
  uint8_t digest[16]; /* of all selected leaves, where it was asked for */
};

/* Describes the selected leaves; selection NULL or "" is all. with_digest: XXH128 of each parameter's value, states and
 * step count, and of all of them, at one commit. *ret is to be freed with esp_description_free. */
enum esp_code esp_describe(esp_client *client, const char *selection, bool with_digest, struct esp_description **ret,
                           struct esp_status *st) ESP_WARN_UNUSED;
void esp_description_free(struct esp_description *description); /* NULL is fine */

/* One thing that is so of a leaf: "group", "head", "assigned to encoder". */
struct esp_leaf_fact {
  const char *what;
  const char *value;
  const char *because; /* "" where there is nothing to say */
  uint64_t epoch;      /* of the transaction that made it so, where the server remembers it; else 0 */
};

struct esp_leaf_explanation {
  esp_leaf_id leaf;
  const char *path;
  size_t facts_len;
  const struct esp_leaf_fact *facts;
};

struct esp_explanation {
  uint64_t epoch; /* all of it is of one moment */
  uint64_t commit;
  uint64_t lineage;
  size_t len;
  const struct esp_leaf_explanation *leaves; /* in path order */
};

/* Why the selected leaves are as they are, for people: what binds, groups, freezes, tags and selects them, who made it
 * so, and what becomes of a gradient for them. The words may change with the server's version. *ret is to be freed with
 * esp_explanation_free. NOT_FOUND with suggestions, INVALID_ARGUMENT with the column, RESOURCE_EXHAUSTED without
 * memory. */
enum esp_code esp_explain(esp_client *client, const char *selection, struct esp_explanation **ret,
                          struct esp_status *st) ESP_WARN_UNUSED;
void esp_explanation_free(struct esp_explanation *explanation); /* NULL is fine */

/* ---- the server and its workers ---- */

struct esp_server_info {
  char version[32];
  char mode[32];
  char isa[16];
  uint64_t lineage;
  uint64_t epoch;
  uint64_t commit;
  uint64_t uptime_ms;
  uint64_t leaves;
  uint64_t parameters;
  uint64_t elements;
  uint64_t frozen;   /* leaves */
  uint64_t sessions; /* workers with a live lease */
  uint64_t threads;
  uint64_t memory_parameters; /* all memory in bytes; a bound of 0 is none */
  uint64_t memory_state;
  uint64_t memory_staged;
  uint64_t memory_staged_max;
  uint64_t memory_copy_on_write;
  uint64_t memory_copy_on_write_max;
  uint64_t memory_spare;    /* kept for the next push or copy */
  uint64_t memory_resident; /* of the whole process, as its machine counts it */
  uint64_t pushes_applied;  /* counts since the start */
  uint64_t pushes_refused;
  uint64_t pushes_nonfinite;
  uint64_t pulls;
  uint64_t pulls_active; /* under way now */
  uint64_t bytes_pushed;
  uint64_t bytes_pulled;
  uint64_t connections; /* open now; a bound of 0 is none */
  uint64_t connections_max;
  uint64_t connections_refused; /* since the start */
  uint64_t streams;             /* calls open now, of all connections */
  uint64_t in_flight;           /* pushes begun and not answered, of all sessions */
  uint64_t in_flight_max;
  uint64_t watches; /* that follow the layout now */
  bool draining;
  char plan_waits[ESP_MESSAGE_BYTES_MAX]; /* why the server's plan was not applied yet, and pushes are refused; "":
                                             there is none that waits */
};
enum esp_code esp_server_info(esp_client *client, struct esp_server_info *ret, struct esp_status *st) ESP_WARN_UNUSED;

/* A session that the server remembers. */
struct esp_worker_info {
  uint64_t session;
  const char *name; /* as the worker gave it, for people */
  const char *peer; /* where its last Join or Heartbeat came from, as 192.0.2.7:4711; unix: a Unix socket */
  bool live;        /* its lease has not run out */
  uint64_t last_sequence;
  uint64_t in_flight;    /* pushes begun and not answered */
  uint64_t pushes;       /* committed */
  uint64_t last_seen_ms; /* milliseconds since it was last heard of */
  uint64_t staleness;    /* commits since its last */
};

struct esp_workers {
  size_t len;
  const struct esp_worker_info *workers; /* in no order */
};

/* Lists the workers whose sessions the server remembers. *ret is to be freed with esp_workers_free. Needs no session.
 * Errors are those of any call: UNAVAILABLE, DEADLINE_EXCEEDED, UNIMPLEMENTED, RESOURCE_EXHAUSTED without memory. */
enum esp_code esp_workers_list(esp_client *client, struct esp_workers **ret, struct esp_status *st) ESP_WARN_UNUSED;
void esp_workers_free(struct esp_workers *workers); /* NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
