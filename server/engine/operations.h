/* What each admin operation does to a transaction: it edits the layout, and says what is to be done to parameters. */
#ifndef ESP_ENGINE_OPERATIONS_H
#define ESP_ENGINE_OPERATIONS_H

#include "engine/work.h"

/* How far the engine is: what timers go by. */
struct esp_moment {
  uint64_t commit;
  uint64_t push_commits;
  uint64_t wall_ms;
};

/* A transaction that is being built. */
struct esp_transaction {
  struct esp_engine *engine;
  struct esp_moment moment; /* when it began */
  struct esp_edit *edit;
  struct esp_work work;
  uint64_t matched;       /* leaves that selections matched */
  uint64_t max_leaves;    /* 0: no bound */
  uint64_t undoes;        /* the epoch that an operation took back, 0: none */
  bool settles;           /* parameters may have another optimizer afterwards, or are new */
  bool gives_timers_back; /* timers may wait again that were taken away before */
};

/* INVALID_ARGUMENT where the operation lacks what its kind needs. */
enum esp_code esp_operation_check(const struct esp_operation *op, struct esp_status *st) ESP_WARN_UNUSED;
/* Whether it works on leaves that have to be there before it. */
bool esp_operation_needs_leaves(const struct esp_operation *op);
/* Says of which of a transaction's operations something is said. */
enum esp_code esp_operation_fail(const struct esp_operation *op, size_t index, size_t len, enum esp_code code,
                                 const struct esp_status *why, struct esp_status *st);
/* stage: of ESP_OPERATION_SET, else NULL. After a failure the transaction can only be dropped. */
enum esp_code esp_operation_run(struct esp_transaction *tx, const struct esp_operation *op,
                                const struct esp_push *stage, struct esp_status *st) ESP_WARN_UNUSED;

/* The optimizer state of the leaves' parameters begins afresh, of all or of those that are frozen. Buffers have none:
 * they are passed over. */
enum esp_code esp_operation_reset(struct esp_transaction *tx, const struct esp_selection *sel, bool only_frozen,
                                  struct esp_status *st) ESP_WARN_UNUSED;
/* The transaction is answered when what is being applied to the leaves' parameters is over. */
enum esp_code esp_operation_wait(struct esp_transaction *tx, const struct esp_selection *sel,
                                 struct esp_status *st) ESP_WARN_UNUSED;
/* Freezes or thaws, with a timer for each parameter (NULL: none), and the items for it. */
enum esp_code esp_operation_freeze(struct esp_transaction *tx, bool frozen, bool reset_state,
                                   const struct esp_selection *sel, const struct esp_timer *timer,
                                   struct esp_status *st) ESP_WARN_UNUSED;
/* freeze and thaw with all that they may say of when (timing.c). */
enum esp_code esp_operation_timing_check(const struct esp_operation *op, struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_operation_freeze_timed(struct esp_transaction *tx, const struct esp_operation *op,
                                         const struct esp_selection *sel, struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_operation_thaw_one_by_one(struct esp_transaction *tx, const struct esp_operation *op,
                                            struct esp_status *st) ESP_WARN_UNUSED;
/* Whether what the timer waits for is still to come. */
bool esp_timer_is_ahead(const struct esp_timer *timer, const struct esp_moment *moment);
/* Those that bind leaves to parameters anew, or move values between them (binding.c). */
enum esp_code esp_operation_tie(struct esp_transaction *tx, const struct esp_operation *op,
                                struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_operation_untie(struct esp_transaction *tx, const struct esp_operation *op,
                                  const struct esp_selection *sel, struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_operation_copy(struct esp_transaction *tx, const struct esp_operation *op,
                                 struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_operation_add(struct esp_transaction *tx, const struct esp_operation *op,
                                struct esp_status *st) ESP_WARN_UNUSED;
/* A new leaf that has no parameter of its own, and the leaf that it is tied to, which may be an alias too. */
struct esp_alias {
  uint64_t id;
  const char *of;
  enum esp_view view;
  bool frozen; /* born so: with all that it is tied to */
};
/* NOT_FOUND; INVALID_ARGUMENT: why they can't be tied, or a circle. */
enum esp_code esp_tie_aliases(struct esp_edit *edit, const struct esp_alias *aliases, size_t len,
                              struct esp_status *st) ESP_WARN_UNUSED;
/* What a leaf says of itself (declare.c). INVALID_ARGUMENT, UNIMPLEMENTED, RESOURCE_EXHAUSTED (--max-tensor). */
enum esp_code esp_declare_leaf_check(const struct esp_engine *engine, const struct esp_declare_leaf *leaf,
                                     struct esp_status *st) ESP_WARN_UNUSED;
/* Adds the leaves of operations that add one each, as many of len as can be added at once; *ret_done: how many were. On
 * failure it is the place of the operation that failed. */
enum esp_code esp_operation_adds(struct esp_transaction *tx, const struct esp_operation *ops, size_t len,
                                 size_t *ret_done, struct esp_status *st) ESP_WARN_UNUSED;
/* Those about groups (grouping.c). */
enum esp_code esp_operation_regroup(struct esp_transaction *tx, const struct esp_operation *op,
                                    const struct esp_selection *sel, struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_operation_adjust(struct esp_transaction *tx, const struct esp_operation *op,
                                   struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_operation_define(struct esp_transaction *tx, const struct esp_operation *op,
                                   struct esp_status *st) ESP_WARN_UNUSED;
/* An earlier transaction, backwards (undo.c). NOT_FOUND; FAILED_PRECONDITION naming the later epoch that touched the
 * same, or where its diff was not kept. */
enum esp_code esp_operation_undo(struct esp_transaction *tx, const struct esp_operation *op,
                                 struct esp_status *st) ESP_WARN_UNUSED;
/* The optimizer of a group from its expression. */
enum esp_code esp_group_optim_new(const char *name, struct esp_optim *optim, struct esp_group *ret,
                                  struct esp_status *st) ESP_WARN_UNUSED;

/* Counts leaves, against max_leaves. */
enum esp_code esp_transaction_count(struct esp_transaction *tx, uint64_t leaves, struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_transaction_memory(struct esp_status *st);

#endif
