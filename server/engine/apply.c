/* Admin transactions. A request is copied and run on the transactions' thread, so there is one at a time: its
 * operations edit a copy of the layout, and what they do to parameters (write a value, reset a state, wait for what
 * came before) is collected as items. Then, under the commit lock, the layout is published and the items go into the
 * parameters' queues. The answer comes when they have run: what was being applied to a frozen parameter is over by
 * then. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "engine/internal.h"

#define OPERATIONS_MAX 10000
#define CHANGES_KEPT_MAX 1000000 /* lines of all remembered diffs together: the oldest make room */

/* What an operation does to one parameter. */
struct action {
  struct esp_param *param; /* the layouts hold it */
  struct esp_item item;
};

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
  uint64_t max_leaves;
  char key[ESP_KEY_BYTES_MAX + 1];
  struct esp_layout *layout; /* the new one, ref'd while items run */
  struct esp_layout *base;   /* likewise */
  struct action *actions;
  size_t actions_len;
  size_t actions_capacity;
  struct esp_push **stages; /* one an operation that has one: ref'd, or NULL */
  struct esp_push **taken;  /* likewise: those that this transaction used up */
  uint64_t resets;
  pthread_mutex_t lock; /* of the next three */
  bool done;
  struct waiter *waiters;
  enum esp_code code; /* of a transaction that is done, as the next two */
  struct esp_status st;
  struct esp_apply_reply reply;
  char *notes[1];
};

/* Lets go of what only the transaction itself needs; its answer stays for retries. Idempotent. */
static void apply_release(struct esp_apply *apply) {
  for (size_t i = 0; i < apply->operations_len; i++) {
    esp_free((char *)apply->operations[i].selection);
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
  esp_free(apply->actions);
  apply->operations = NULL;
  apply->stages = apply->taken = NULL;
  apply->actions = NULL;
}

static void apply_unref(struct esp_apply *apply) {
  if (apply == NULL || atomic_fetch_sub(&apply->refs, 1) != 1)
    return;
  apply_release(apply);
  esp_diff_done(&apply->reply.diff);
  esp_free(apply->notes[0]);
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

static struct esp_apply *remembered_find(struct esp_engine *engine, const char *key) {
  for (size_t i = 0; i < ESP_KEYS_MAX && key[0] != '\0'; i++) {
    if (strcmp(engine->remembered[i].key, key) == 0)
      return engine->remembered[i].apply;
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
  snprintf(place->key, sizeof(place->key), "%s", apply->key);
  place->apply = apply;
  atomic_fetch_add(&apply->refs, 1);
}

void esp_remembered_done(struct esp_engine *engine) {
  for (size_t i = 0; i < ESP_KEYS_MAX; i++)
    apply_unref(engine->remembered[i].apply);
}

/* ---- the operations ---- */

static bool action_add(struct esp_apply *apply, struct esp_param *param, struct esp_item item) {
  if (!esp_grow((void **)&apply->actions, &apply->actions_capacity, apply->actions_len + 1, sizeof(struct action)))
    return false;
  apply->actions[apply->actions_len++] = (struct action){.param = param, .item = item};
  return true;
}

static enum esp_code no_memory(struct esp_status *st) {
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for so large a transaction");
}

/* A freeze waits for what is being applied to all that it names, also to what was frozen a moment ago by somebody
 * else; a thaw that resets does so for what it thaws. */
static enum esp_code operation_freeze(struct esp_apply *apply, struct esp_edit *edit, const struct esp_operation *op,
                                      const struct esp_selection *sel, struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(edit);
  bool frozen = op->kind == ESP_OPERATION_FREEZE;
  for (size_t i = 0; i < sel->len; i++) {
    const struct esp_place *place = esp_layout_place(view, &view->leaves[sel->leaves[i]]);
    struct esp_item item = {.kind = ESP_ITEM_BARRIER};
    if (!frozen && !(op->reset_state && place->frozen))
      continue;
    if (!frozen) {
      item.kind = ESP_ITEM_RESET;
      apply->resets++;
    }
    if (!action_add(apply, esp_place_param(place), item))
      return no_memory(st);
  }
  return esp_edit_freeze(edit, sel, frozen, st);
}

static enum esp_code operation_set(struct esp_apply *apply, struct esp_edit *edit, size_t index,
                                   const struct esp_selection *sel, struct esp_status *st) {
  const struct esp_operation *op = &apply->operations[index];
  const struct esp_layout *view = esp_edit_view(edit);
  struct esp_push *stage = esp_stage_find(apply->engine, op->stage, false);
  apply->stages[index] = stage;
  if (stage == NULL)
    return esp_fail(st, ESP_FAILED_PRECONDITION,
                    "there is no stage %" PRIu64 ": it was used, or has expired (twice --stall-timeout); stage again",
                    op->stage);
  for (size_t i = 0; i < sel->len; i++) {
    const struct esp_leaf *leaf = &view->leaves[sel->leaves[i]];
    struct esp_param *param = esp_place_param(esp_layout_place(view, leaf));
    const struct esp_slot *slot = esp_upload_slot(&stage->upload, leaf->id);
    if (slot == NULL)
      return esp_fail(st, ESP_FAILED_PRECONDITION, "leaf %s is selected, but the stage has no value for it",
                      leaf->path);
    struct esp_item write = {.kind = ESP_ITEM_WRITE, .write = {.from = slot->data}};
    struct esp_item reset = {.kind = ESP_ITEM_RESET};
    if (!action_add(apply, param, write) || (op->reset_state && !action_add(apply, param, reset)))
      return no_memory(st);
    apply->resets += op->reset_state;
  }
  return esp_edit_touch_value(edit, sel, st);
}

static enum esp_code operation_run(struct esp_apply *apply, struct esp_edit *edit, size_t index,
                                   struct esp_status *st) {
  const struct esp_operation *op = &apply->operations[index];
  struct esp_selection sel = {0};
  struct esp_status why = {0};
  enum esp_code code = esp_select(esp_edit_view(edit), op->selection, strlen(op->selection), &sel, &why);
  if (code == ESP_OK) {
    apply->reply.matched += sel.len;
    if (apply->max_leaves != 0 && apply->reply.matched > apply->max_leaves)
      code = esp_fail(&why, ESP_FAILED_PRECONDITION,
                      "this touches %" PRIu64 " leaves, more than the %" PRIu64 " that were allowed",
                      apply->reply.matched, apply->max_leaves);
  }
  if (code == ESP_OK)
    code = op->kind == ESP_OPERATION_SET ? operation_set(apply, edit, index, &sel, &why)
                                         : operation_freeze(apply, edit, op, &sel, &why);
  esp_selection_done(&sel);
  if (code != ESP_OK && apply->operations_len > 1)
    return esp_fail(st, code, "operation %zu of %zu: %s", index + 1, apply->operations_len, why.message);
  return code == ESP_OK ? ESP_OK : esp_fail(st, code, "%s", why.message);
}

/* ---- the transaction, on its thread ---- */

static void apply_done(struct esp_batch *batch, void *data) {
  (void)batch;
  apply_answer(data, ESP_OK, NULL);
}

/* Edits a copy; on success apply->layout is the new layout (or base itself) and the diff is there. */
static enum esp_code apply_build(struct esp_apply *apply, struct esp_status *st) {
  struct esp_edit *edit = esp_edit_new(apply->base);
  if (edit == NULL)
    return no_memory(st);
  for (size_t i = 0; i < apply->operations_len; i++) {
    enum esp_code code = operation_run(apply, edit, i, st);
    if (code != ESP_OK) {
      esp_edit_free(edit);
      return code;
    }
  }
  return esp_edit_finish(edit, &apply->layout, &apply->reply.diff, st);
}

static enum esp_code apply_note(struct esp_apply *apply, struct esp_status *st) {
  if (apply->resets == 0)
    return ESP_OK;
  char text[128];
  snprintf(text, sizeof(text), "parameters whose optimizer state and step count were reset: %" PRIu64, apply->resets);
  apply->notes[0] = esp_strdup(text);
  if (apply->notes[0] == NULL)
    return no_memory(st);
  apply->reply.notes = (const char *const *)apply->notes;
  apply->reply.notes_len = 1;
  return ESP_OK;
}

static void apply_publish(struct esp_apply *apply, struct esp_batch *batch) {
  struct esp_engine *engine = apply->engine;
  struct esp_layout *old = NULL;
  for (size_t i = 0; i < apply->operations_len; i++)
    apply->taken[i] = esp_stage_find(engine, apply->operations[i].stage, true);
  pthread_mutex_lock(&engine->commit_lock);
  if (apply->layout != apply->base)
    apply->reply.commit = esp_engine_publish(engine, esp_layout_ref(apply->layout), &old);
  for (size_t i = 0; i < apply->actions_len; i++)
    esp_batch_enqueue(batch, apply->actions[i].param, &apply->actions[i].item);
  pthread_mutex_unlock(&engine->commit_lock);
  esp_layout_unref(old);
  esp_batch_start(batch, false);
}

static void apply_run(struct esp_job *job, unsigned share) {
  (void)share;
  struct esp_apply *apply = (struct esp_apply *)job;
  struct esp_engine *engine = apply->engine;
  struct esp_status st;
  struct esp_apply *first = remembered_find(engine, apply->key);
  if (first != NULL) {
    apply_join(apply, first);
    return;
  }
  apply->base = esp_engine_layout(engine, NULL);
  enum esp_code code = ESP_OK;
  if (apply->if_epoch != 0 && apply->if_epoch != apply->base->epoch)
    code =
        esp_fail(&st, ESP_ABORTED,
                 "the tree is at epoch %" PRIu64 ", not at the expected %" PRIu64 ": look again, and use the new epoch",
                 apply->base->epoch, apply->if_epoch);
  if (code == ESP_OK)
    code = apply_build(apply, &st);
  if (code == ESP_OK)
    code = apply_note(apply, &st);
  struct esp_batch *batch = NULL;
  if (code == ESP_OK && !apply->dry_run) {
    batch = esp_batch_new(engine->pool, apply->actions_len, apply_done, apply);
    if (batch == NULL)
      code = no_memory(&st);
  }
  if (code != ESP_OK || apply->dry_run) {
    apply->reply.epoch = apply->base->epoch;
    apply_answer(apply, code, &st);
    return;
  }
  apply->reply.epoch = apply->layout->epoch;
  remember(engine, apply);
  apply_publish(apply, batch);
}

/* ---- the request ---- */

static enum esp_code request_check(const struct esp_engine *engine, const struct esp_apply_request *request,
                                   struct esp_status *st) {
  if (engine->draining)
    return esp_fail(st, ESP_UNAVAILABLE, "the server is shutting down");
  if (request->operations_len == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "no operation is named");
  if (request->operations_len > OPERATIONS_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%zu operations, a transaction may have %d", request->operations_len,
                    OPERATIONS_MAX);
  if (strlen(request->idempotency_key) > ESP_KEY_BYTES_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the idempotency key has %zu bytes, %d are allowed",
                    strlen(request->idempotency_key), ESP_KEY_BYTES_MAX);
  for (size_t i = 0; i < request->operations_len; i++) {
    if (request->operations[i].selection[0] == '\0')
      return esp_fail(st, ESP_INVALID_ARGUMENT, "operation %zu names no leaves; ** is all of them", i + 1);
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
  apply->max_leaves = request->max_leaves;
  apply->reply.lineage = engine->lineage;
  apply->reply.dry_run = request->dry_run;
  snprintf(apply->key, sizeof(apply->key), "%s", request->idempotency_key);
  pthread_mutex_init(&apply->lock, NULL);
  apply->operations = esp_calloc(request->operations_len, sizeof(*apply->operations));
  apply->stages = esp_calloc(request->operations_len, sizeof(struct esp_push *));
  apply->taken = esp_calloc(request->operations_len, sizeof(struct esp_push *));
  apply->waiters = esp_calloc(1, sizeof(*apply->waiters));
  if (apply->operations == NULL || apply->stages == NULL || apply->taken == NULL || apply->waiters == NULL)
    goto fail;
  for (; apply->operations_len < request->operations_len; apply->operations_len++) {
    struct esp_operation *op = &apply->operations[apply->operations_len];
    *op = request->operations[apply->operations_len];
    op->selection = esp_strdup(op->selection);
    if (op->selection == NULL)
      goto fail;
  }
  return apply;
fail:
  esp_free(apply->waiters);
  apply_unref(apply);
  return NULL;
}

void esp_engine_apply(struct esp_engine *engine, const struct esp_apply_request *request, esp_apply_callback callback,
                      void *data) {
  struct esp_status st;
  struct esp_apply *apply = NULL;
  enum esp_code code = request_check(engine, request, &st);
  if (code == ESP_OK) {
    apply = apply_new(engine, request);
    if (apply == NULL)
      code = no_memory(&st);
  }
  if (code != ESP_OK) {
    callback(data, code, &st, NULL);
    return;
  }
  *apply->waiters = (struct waiter){.callback = callback, .data = data};
  atomic_fetch_add(&engine->committing, 1);
  apply->job.run = apply_run;
  apply->job.shares = 1;
  esp_transactions_submit(engine, &apply->job);
}
