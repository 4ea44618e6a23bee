/* Admin transactions. A request is copied and run on the transactions' thread, so there is one at a time: its
 * operations edit a copy of the layout, and what they do to parameters (write a value, reset a state, wait for what
 * came before) is collected as items. Then, under the commit lock, the layout is published and the items go into the
 * parameters' queues. The answer comes when they have run: what was being applied to a frozen parameter is over by
 * then. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/check.h"
#include "engine/operations.h"

#define QUICK_LEAVES_MAX 1000    /* that a transaction walks over, about 50 us, which a thread that serves can spare */
#define CHANGES_KEPT_MAX 1000000 /* lines of all remembered diffs together: the oldest make room */

struct waiter {
  struct waiter *next;
  esp_apply_callback callback;
  void *data;
};

struct esp_apply {
  struct esp_job job;    /* runs the transaction */
  _Atomic unsigned refs; /* of the one that runs it, and of the memory of keys */
  struct esp_engine *engine;
  struct esp_operation *operations;
  size_t operations_len;
  uint64_t if_epoch;
  bool dry_run;
  bool fires; /* instead of operations: what timers are due */
  char key[ESP_KEY_BYTES_MAX + 1];
  uint64_t key_hash;
  struct esp_arena arena;    /* strings of the operations, and what they point to */
  struct esp_layout *layout; /* the new one, ref'd while items run */
  struct esp_layout *base;   /* likewise */
  struct esp_transaction tx;
  struct esp_push **stages; /* one an operation that has one: ref'd, or NULL */
  struct esp_push **taken;  /* likewise: those that this transaction used up */
  pthread_mutex_t lock;     /* of the next three */
  bool done;
  struct waiter *waiters;
  enum esp_code code; /* of a transaction that is done, as the next two */
  struct esp_status st;
  struct esp_record *record; /* has the reply's diff */
  struct esp_apply_reply reply;
  char *notes[ESP_NOTES_MAX];
};

/* Lets go of what only the transaction itself needs; its answer stays for retries. Idempotent. */
static void apply_release(struct esp_apply *apply) {
  for (size_t i = 0; i < apply->operations_len; i++) {
    if (apply->stages[i] != NULL)
      esp_push_unref(apply->stages[i]);
    esp_push_free(apply->taken[i]);
  }
  apply->operations_len = 0;
  esp_layout_unref(apply->layout);
  esp_layout_unref(apply->base);
  apply->layout = apply->base = NULL;
  esp_free(apply->operations);
  esp_free(apply->stages);
  esp_free(apply->taken);
  esp_arena_done(&apply->arena);
  esp_work_done(&apply->tx.work);
  apply->operations = NULL;
  apply->stages = apply->taken = NULL;
}

static void apply_unref(struct esp_apply *apply) {
  if (apply == NULL || atomic_fetch_sub(&apply->refs, 1) != 1)
    return;
  apply_release(apply);
  esp_record_unref(apply->record);
  for (size_t i = 0; i < apply->reply.notes_len; i++)
    esp_free(apply->notes[i]);
  pthread_mutex_destroy(&apply->lock);
  esp_free(apply);
}

/* ---- answering ---- */

/* Tells everybody who waits; later retries under the same key find it done. */
static void apply_answer(struct esp_apply *apply, enum esp_code code, const struct esp_status *st) {
  struct esp_engine *engine = apply->engine;
  apply_release(apply);
  pthread_mutex_lock(&apply->lock);
  apply->done = true;
  apply->code = code;
  if (code != ESP_OK)
    apply->st = *st;
  struct waiter *waiter = apply->waiters;
  apply->waiters = NULL;
  pthread_mutex_unlock(&apply->lock);
  while (waiter != NULL) {
    struct waiter *next = waiter->next;
    waiter->callback(waiter->data, code, &apply->st, code == ESP_OK ? &apply->reply : NULL);
    esp_free(waiter);
    waiter = next;
  }
  apply_unref(apply);
  atomic_fetch_sub(&engine->committing, 1);
}

/* Moves this request's waiters to an earlier transaction of the same key, or answers them with what it did. */
static void apply_join(struct esp_apply *apply, struct esp_apply *first) {
  struct waiter *waiter = apply->waiters;
  pthread_mutex_lock(&first->lock);
  bool done = first->done;
  if (!done) {
    waiter->next = first->waiters;
    first->waiters = waiter;
    apply->waiters = NULL;
  }
  pthread_mutex_unlock(&first->lock);
  if (done) {
    waiter->callback(waiter->data, first->code, &first->st, first->code == ESP_OK ? &first->reply : NULL);
    esp_free(waiter);
    apply->waiters = NULL;
  }
  struct esp_engine *engine = apply->engine;
  apply_unref(apply);
  atomic_fetch_sub(&engine->committing, 1);
}

/* An earlier transaction of the same key, or NULL. */
static struct esp_apply *remembered_find(struct esp_engine *engine, const struct esp_apply *apply) {
  for (size_t i = 0; i < ESP_KEYS_MAX && apply->key[0] != '\0'; i++) {
    const struct esp_remembered *place = &engine->remembered[i];
    if (place->hash == apply->key_hash && place->apply != NULL && strcmp(place->apply->key, apply->key) == 0)
      return place->apply;
  }
  return NULL;
}

static void forget(struct esp_engine *engine, struct esp_remembered *place) {
  if (place->apply == NULL)
    return;
  engine->remembered_changes -= place->apply->reply.diff.len;
  apply_unref(place->apply);
  *place = (struct esp_remembered){0};
}

static void remember(struct esp_engine *engine, struct esp_apply *apply) {
  if (apply->key[0] == '\0')
    return;
  struct esp_remembered *place = &engine->remembered[engine->remembered_next++ % ESP_KEYS_MAX];
  forget(engine, place);
  engine->remembered_changes += apply->reply.diff.len;
  for (size_t i = 0; i < ESP_KEYS_MAX && engine->remembered_changes > CHANGES_KEPT_MAX; i++)
    forget(engine, &engine->remembered[(engine->remembered_next + i) % ESP_KEYS_MAX]);
  *place = (struct esp_remembered){apply->key_hash, apply};
  atomic_fetch_add(&apply->refs, 1);
}

void esp_remembered_done(struct esp_engine *engine) {
  for (size_t i = 0; i < ESP_KEYS_MAX; i++)
    apply_unref(engine->remembered[i].apply);
}

/* ---- building it ---- */

/* Runs the operation at *index, and those that can be run with it at once; *index goes behind them. */
static enum esp_code operation_run(struct esp_apply *apply, size_t *index, struct esp_status *st) {
  const struct esp_operation *op = &apply->operations[*index];
  struct esp_status why = {0};
  enum esp_code code;
  size_t done = 0;
  if (op->kind == ESP_OPERATION_SET)
    apply->stages[*index] = esp_stage_find(apply->engine, op->stage, false);
  if (op->kind == ESP_OPERATION_ADD)
    code = esp_operation_adds(&apply->tx, op, apply->operations_len - *index, &done, &why);
  else
    code = esp_operation_run(&apply->tx, op, apply->stages[*index], &why);
  done += op->kind != ESP_OPERATION_ADD && code == ESP_OK;
  *index += done;
  if (code == ESP_OK)
    return ESP_OK;
  return esp_operation_fail(&apply->operations[*index], *index, apply->operations_len, code, &why, st);
}

/* ---- the transaction, on its thread ---- */

/* Leaves that it added or named anew may be those that the plan waits for. */
static void apply_done(struct esp_batch *batch, void *data) {
  (void)batch;
  struct esp_apply *apply = data;
  struct esp_engine *engine = apply->engine;
  atomic_fetch_add(&engine->committing, 1); /* the engine stays until the plan was asked for */
  apply_answer(apply, ESP_OK, NULL);
  (void)esp_plan_ask(engine, NULL);
  atomic_fetch_sub(&engine->committing, 1);
}

/* Edits a copy; on success apply->layout is the new layout (or base itself) and the diff is there. */
static enum esp_code apply_build(struct esp_apply *apply, struct esp_status *st) {
  struct esp_transaction *tx = &apply->tx;
  tx->edit = esp_edit_new(apply->base);
  if (tx->edit == NULL)
    return esp_transaction_memory(st);
  for (size_t i = 0; i < apply->operations_len;) {
    enum esp_code code = operation_run(apply, &i, st);
    if (code != ESP_OK) {
      esp_edit_free(tx->edit);
      return code;
    }
  }
  enum esp_code code = apply->fires ? esp_timers_fire(tx, apply->record, st) : ESP_OK;
  if (code != ESP_OK) {
    esp_edit_free(tx->edit);
    return code;
  }
  code = esp_edit_finish(tx->edit, &apply->layout, &apply->record->diff, st);
  apply->reply.diff = apply->record->diff;
  apply->record->undoes = apply->operations_len == 1 ? tx->undoes : 0;
  if (code == ESP_OK)
    esp_work_note_groups(&tx->work, apply->layout, apply->base->leaf_id_next);
  if (code == ESP_OK && tx->settles)
    code = esp_work_settle(&tx->work, apply->layout, st);
  return code;
}

/* What the work has to tell passes to the reply. */
static void apply_note(struct esp_apply *apply) {
  struct esp_work *work = &apply->tx.work;
  if (work->resets > 0)
    esp_work_note(work, "parameters whose optimizer state and step count were reset: %" PRIu64, work->resets);
  memcpy(apply->notes, work->notes, work->notes_len * sizeof(char *));
  apply->reply.notes = (const char *const *)apply->notes;
  apply->reply.notes_len = work->notes_len;
  apply->reply.matched = apply->tx.matched;
  work->notes_len = 0;
}

/* Under the commit lock: pushes may have been committed since the transaction began, with which its new timers count
 * from now on. Fails where one waits for a commit that has come meanwhile. */
static enum esp_code timers_begin(struct esp_apply *apply, struct esp_status *st) {
  const struct esp_engine *engine = apply->engine;
  struct esp_layout *layout = apply->layout;
  if (layout->timer_id_next == apply->base->timer_id_next && !apply->tx.gives_timers_back)
    return ESP_OK;
  for (size_t i = 0; i < layout->timers_len && !apply->fires; i++) {
    const struct esp_timer *timer = &layout->timers[i];
    if (timer->due == ESP_TIMER_COMMIT && timer->at <= engine->commit &&
        esp_layout_timer(apply->base, timer->id) == NULL)
      return esp_fail(st, ESP_FAILED_PRECONDITION,
                      "commit %" PRIu64 " came while this was being prepared: the tree is at %" PRIu64, timer->at,
                      engine->commit);
  }
  if (engine->push_commits != apply->tx.moment.push_commits)
    esp_layout_postpone(layout, engine->push_commits - apply->tx.moment.push_commits);
  return ESP_OK;
}

/* A failure changes nothing. */
static enum esp_code apply_publish(struct esp_apply *apply, struct esp_batch *batch, struct esp_status *st) {
  struct esp_engine *engine = apply->engine;
  struct esp_layout *old = NULL;
  pthread_mutex_lock(&engine->commit_lock);
  bool changed = apply->layout != apply->base;
  enum esp_code code = changed ? timers_begin(apply, st) : ESP_OK;
  if (code != ESP_OK) {
    pthread_mutex_unlock(&engine->commit_lock);
    return code;
  }
  if (changed)
    apply->reply.commit = esp_engine_publish(engine, esp_layout_ref(apply->layout), apply->record, &old);
  esp_work_enqueue(&apply->tx.work, batch);
  pthread_mutex_unlock(&engine->commit_lock);
  esp_layout_unref(old);
  remember(engine, apply);
  for (size_t i = 0; i < apply->operations_len; i++)
    apply->taken[i] = esp_stage_find(engine, apply->operations[i].stage, true);
  if (apply->tx.settles)
    esp_work_settled(apply->layout);
  if (changed) {
    esp_history_add(&engine->history, apply->record);
    esp_watches_wake(engine);
  }
  esp_batch_start_urgent(batch);
  return ESP_OK;
}

static void apply_run(struct esp_job *job, unsigned share) {
  (void)share;
  struct esp_apply *apply = (struct esp_apply *)job;
  struct esp_engine *engine = apply->engine;
  struct esp_status st;
  struct esp_apply *first = remembered_find(engine, apply);
  if (first != NULL) {
    apply_join(apply, first);
    return;
  }
  apply->tx.moment.wall_ms = esp_engine_wall(engine);
  pthread_mutex_lock(&engine->commit_lock);
  apply->base = esp_layout_ref(engine->layout);
  apply->tx.moment.commit = engine->commit;
  apply->tx.moment.push_commits = engine->push_commits;
  pthread_mutex_unlock(&engine->commit_lock);
  enum esp_code code = ESP_OK;
  if (apply->if_epoch != 0 && apply->if_epoch != apply->base->epoch)
    code =
        esp_fail(&st, ESP_ABORTED,
                 "the tree is at epoch %" PRIu64 ", not at the expected %" PRIu64 ": look again, and use the new epoch",
                 apply->base->epoch, apply->if_epoch);
  if (code == ESP_OK)
    code = apply_build(apply, &st);
  apply_note(apply);
  struct esp_batch *batch = NULL;
  if (code == ESP_OK && !apply->dry_run) {
    batch = esp_history_reserve(&engine->history) ? esp_batch_new(engine->pool, apply->tx.work.len, apply_done, apply)
                                                  : NULL;
    if (batch == NULL)
      code = esp_transaction_memory(&st);
  }
  if (code == ESP_OK && !apply->dry_run) {
    apply->reply.epoch = apply->layout->epoch;
    code = apply_publish(apply, batch, &st);
    if (code == ESP_OK)
      return;
    esp_batch_free(batch);
  }
  apply->reply.epoch = apply->base->epoch;
  apply_answer(apply, code, &st);
}

/* ---- the request ---- */

static enum esp_code request_check(const struct esp_engine *engine, const struct esp_apply_request *request,
                                   struct esp_status *st) {
  if (engine->draining)
    return esp_fail(st, ESP_UNAVAILABLE, "the server is shutting down");
  if (request->operations_len == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "no operation is named");
  if (request->operations_len > ESP_OPERATIONS_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%zu operations, a transaction may have %d", request->operations_len,
                    ESP_OPERATIONS_MAX);
  if (strlen(request->idempotency_key) > ESP_KEY_BYTES_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the idempotency key has %zu bytes, %d are allowed",
                    strlen(request->idempotency_key), ESP_KEY_BYTES_MAX);
  return ESP_OK;
}

/* ---- a copy of the request ---- */

static const char *copy_text(struct esp_arena *arena, const char *text) {
  return text == NULL || text[0] == '\0' ? "" : esp_arena_strndup(arena, text, strlen(text));
}

static bool copy_leaf(struct esp_arena *arena, struct esp_operation *op) {
  struct esp_declare_leaf *leaf = esp_arena_alloc(arena, sizeof(*leaf));
  if (leaf == NULL)
    return false;
  *leaf = *op->leaf;
  leaf->path = esp_arena_strndup(arena, leaf->path, leaf->path_len);
  leaf->tag = copy_text(arena, leaf->tag);
  leaf->group = copy_text(arena, leaf->group);
  leaf->alias_of = copy_text(arena, leaf->alias_of);
  op->leaf = leaf;
  return leaf->path != NULL && leaf->tag != NULL && leaf->group != NULL && leaf->alias_of != NULL;
}

static bool copy_hypers(struct esp_arena *arena, struct esp_operation *op) {
  struct esp_hyper_change *hypers = esp_arena_alloc(arena, (op->hypers_len + 1) * sizeof(*hypers));
  bool ok = hypers != NULL;
  for (size_t i = 0; i < op->hypers_len && ok; i++) {
    hypers[i].name = copy_text(arena, op->hypers[i].name);
    hypers[i].value = copy_text(arena, op->hypers[i].value);
    ok = hypers[i].name != NULL && hypers[i].value != NULL;
  }
  op->hypers = hypers;
  return ok;
}

static bool copy_operation(struct esp_arena *arena, struct esp_operation *op) {
  op->selection = copy_text(arena, op->selection);
  op->to = copy_text(arena, op->to);
  op->name = copy_text(arena, op->name);
  return op->selection != NULL && op->to != NULL && op->name != NULL && copy_hypers(arena, op) &&
         (op->leaf == NULL || copy_leaf(arena, op));
}

static enum esp_code operations_check(const struct esp_apply *apply, struct esp_status *st) {
  for (size_t i = 0; i < apply->operations_len; i++) {
    struct esp_status why;
    enum esp_code code = esp_operation_check(&apply->operations[i], &why);
    if (code != ESP_OK && apply->operations_len == 1)
      return esp_fail(st, code, "the operation is not complete: %s", why.message);
    if (code != ESP_OK)
      return esp_operation_fail(&apply->operations[i], i, apply->operations_len, code, &why, st);
  }
  return ESP_OK;
}

/* NULL without memory. */
static struct esp_apply *apply_new(struct esp_engine *engine, const struct esp_apply_request *request) {
  struct esp_apply *apply = esp_calloc(1, sizeof(*apply));
  if (apply == NULL)
    return NULL;
  apply->refs = 1;
  apply->engine = engine;
  apply->if_epoch = request->if_epoch;
  apply->dry_run = request->dry_run;
  apply->reply.lineage = engine->lineage;
  apply->reply.dry_run = request->dry_run;
  snprintf(apply->key, sizeof(apply->key), "%s", request->idempotency_key);
  apply->key_hash = XXH3_64bits(apply->key, strlen(apply->key));
  pthread_mutex_init(&apply->lock, NULL);
  esp_arena_init(&apply->arena, 0);
  apply->tx = (struct esp_transaction){.engine = engine, .max_leaves = request->max_leaves};
  esp_work_init(&apply->tx.work, engine);
  apply->operations = esp_calloc(request->operations_len + 1, sizeof(*apply->operations));
  apply->stages = esp_calloc(request->operations_len + 1, sizeof(struct esp_push *));
  apply->taken = esp_calloc(request->operations_len + 1, sizeof(struct esp_push *));
  apply->waiters = esp_calloc(1, sizeof(*apply->waiters));
  apply->record = esp_record_new(esp_engine_wall(engine), request->actor, request->reason);
  if (apply->operations == NULL || apply->stages == NULL || apply->taken == NULL || apply->waiters == NULL ||
      apply->record == NULL)
    goto fail;
  for (; apply->operations_len < request->operations_len; apply->operations_len++) {
    struct esp_operation *op = &apply->operations[apply->operations_len];
    *op = request->operations[apply->operations_len];
    if (!copy_operation(&apply->arena, op))
      goto fail;
  }
  return apply;
fail:
  esp_free(apply->waiters);
  apply_unref(apply);
  return NULL;
}

static bool sets_flags(const struct esp_operation *op) {
  bool is_timed = op->at_commit != 0 || op->until_commit != 0 || op->for_ms != 0;
  if (op->kind == ESP_OPERATION_FREEZE || op->kind == ESP_OPERATION_THAW)
    return !is_timed && !op->one_by_one && !op->reset_state;
  return op->kind == ESP_OPERATION_DETACH || op->kind == ESP_OPERATION_ATTACH;
}

/* Whether it takes less to run it than to hand it to another thread, which costs two wake-ups: it sets flags in a small
 * tree, and nothing is being applied that it would wait for or lend a hand with. */
static bool is_quick(const struct esp_apply *apply) {
  struct esp_engine *engine = apply->engine;
  if (atomic_load(&engine->committing) > 1) /* besides itself */
    return false;
  for (size_t i = 0; i < apply->operations_len; i++) {
    if (!sets_flags(&apply->operations[i]))
      return false;
  }
  pthread_mutex_lock(&engine->commit_lock);
  size_t leaves_len = engine->layout->leaves_len;
  pthread_mutex_unlock(&engine->commit_lock);
  return apply->operations_len * leaves_len <= QUICK_LEAVES_MAX;
}

void esp_engine_apply(struct esp_engine *engine, const struct esp_apply_request *request, esp_apply_callback callback,
                      void *data) {
  struct esp_status st;
  enum esp_code code = request_check(engine, request, &st);
  struct esp_apply *apply = code == ESP_OK ? apply_new(engine, request) : NULL;
  if (apply == NULL) {
    callback(data, code == ESP_OK ? esp_transaction_memory(&st) : code, &st, NULL);
    return;
  }
  code = operations_check(apply, &st);
  if (code != ESP_OK) {
    esp_free(apply->waiters);
    apply_unref(apply);
    callback(data, code, &st, NULL);
    return;
  }
  *apply->waiters = (struct waiter){.callback = callback, .data = data};
  atomic_fetch_add(&engine->committing, 1);
  apply->job.run = apply_run;
  apply->job.shares = 1;
  if (!is_quick(apply) || !esp_transactions_run_here(engine, &apply->job))
    esp_transactions_submit(engine, &apply->job);
}

/* ---- timers ---- */

static void timers_answered(void *data, enum esp_code code, const struct esp_status *st,
                            const struct esp_apply_reply *reply) {
  (void)reply;
  struct esp_timers *timers = data;
  if (code == ESP_OK) /* from the pool, perhaps when the next transaction is being built */
    return;
  timers->code = code;
  timers->st = *st;
}

void esp_apply_timers(struct esp_engine *engine) {
  const struct esp_apply_request request = {.idempotency_key = "", .actor = "timer", .reason = ""};
  struct esp_apply *apply = apply_new(engine, &request);
  if (apply == NULL) {
    engine->timers.code = esp_transaction_memory(&engine->timers.st);
    return;
  }
  apply->fires = true;
  *apply->waiters = (struct waiter){.callback = timers_answered, .data = &engine->timers};
  atomic_fetch_add(&engine->committing, 1);
  apply_run(&apply->job, 0);
}
