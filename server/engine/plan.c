/* A plan: the one transaction that has to be applied before any push is.
 *
 * Happy path: it is applied when the engine is given it, or, where its selections match nothing yet, at the end of the
 * first declaration after which they do; the answer of that declaration waits for it, so that who declared may push as
 * soon as he hears of it. Pushes look whether the plan waits when they begin: it never waits again once it was applied.
 *
 * How it fails: what is wrong without any leaf is the result of esp_engine_plan. Later failures are kept as the reason
 * for which pushes are refused, and those who declare are told. Attempts come one after the other; who asks during one
 * gets the next. */
#include <string.h>

#include "base/alloc.h"
#include "engine/operations.h"

/* ---- what can be said without leaves ---- */

static enum esp_code path_check(const char *path, struct esp_status *st) {
  return esp_path_check(path, strlen(path), st);
}

/* What an operation names, as far as it can be read without a tree. */
static enum esp_code words_check(const struct esp_engine *engine, const struct esp_operation *op,
                                 struct esp_status *st) {
  enum esp_code code = esp_operation_check(op, st);
  if (code != ESP_OK)
    return code;
  if (op->kind == ESP_OPERATION_ADD)
    return esp_declare_leaf_check(engine, op->leaf, st);
  if (op->kind == ESP_OPERATION_RENAME) {
    code = path_check(op->selection, st);
    return code == ESP_OK ? path_check(op->to, st) : code;
  }
  if (!esp_operation_needs_leaves(op))
    return ESP_OK;
  code = esp_selector_check(op->selection, strlen(op->selection), st);
  if (code == ESP_OK && (op->kind == ESP_OPERATION_TIE || op->kind == ESP_OPERATION_COPY))
    code = esp_selector_check(op->to, strlen(op->to), st);
  if (code == ESP_OK && op->kind == ESP_OPERATION_REGROUP)
    code = esp_name_check("group", op->to, st);
  return code;
}

static enum esp_code plan_check(const struct esp_engine *engine, const struct esp_apply_request *request,
                                struct esp_status *st) {
  for (size_t i = 0; i < request->operations_len; i++) {
    struct esp_status why;
    enum esp_code code = words_check(engine, &request->operations[i], &why);
    if (code != ESP_OK)
      return esp_operation_fail(&request->operations[i], i, request->operations_len, code, &why, st);
  }
  return ESP_OK;
}

/* ---- at the start ---- */

/* Waits for a transaction's end. */
struct start {
  struct esp_plan_wait *plan;
  bool dry_run;
  pthread_mutex_t lock;
  pthread_cond_t ended;
  bool done;
  enum esp_code code;
  struct esp_status st;
};

static void on_start(void *data, enum esp_code code, const struct esp_status *st, const struct esp_apply_reply *reply) {
  struct start *start = data;
  if (code == ESP_OK && !start->dry_run)
    start->plan->told(start->plan->told_data, code, st, reply);
  pthread_mutex_lock(&start->lock);
  start->done = true;
  start->code = code;
  if (code != ESP_OK)
    start->st = *st;
  pthread_cond_signal(&start->ended);
  pthread_mutex_unlock(&start->lock);
}

static enum esp_code apply_now(struct esp_engine *engine, const struct esp_apply_request *request,
                               struct esp_status *st) {
  struct start start = {.plan = &engine->plan, .dry_run = request->dry_run};
  pthread_mutex_init(&start.lock, NULL);
  pthread_cond_init(&start.ended, NULL);
  esp_engine_apply(engine, request, on_start, &start);
  pthread_mutex_lock(&start.lock);
  while (!start.done)
    pthread_cond_wait(&start.ended, &start.lock);
  pthread_mutex_unlock(&start.lock);
  pthread_cond_destroy(&start.ended);
  pthread_mutex_destroy(&start.lock);
  if (start.code != ESP_OK)
    *st = start.st;
  return start.code;
}

/* Groups, hyperparameters and the like are tried now, although those operations wait that select leaves. */
static enum esp_code try_leafless(struct esp_engine *engine, const struct esp_apply_request *request,
                                  struct esp_status *st) {
  struct esp_apply_request dry = *request;
  struct esp_operation *operations = esp_malloc_array(request->operations_len + 1, sizeof(*operations));
  if (operations == NULL)
    return esp_transaction_memory(st);
  dry.operations = operations;
  dry.operations_len = 0;
  dry.dry_run = true;
  for (size_t i = 0; i < request->operations_len; i++) {
    if (!esp_operation_needs_leaves(&request->operations[i]))
      operations[dry.operations_len++] = request->operations[i];
  }
  enum esp_code code = dry.operations_len == 0 ? ESP_OK : apply_now(engine, &dry, st);
  esp_free(operations);
  return code;
}

enum esp_code esp_engine_plan(struct esp_engine *engine, const struct esp_apply_request *request,
                              esp_apply_callback told, void *data, struct esp_status *st) {
  struct esp_plan_wait *plan = &engine->plan;
  plan->request = request;
  plan->told = told;
  plan->told_data = data;
  enum esp_code code = plan_check(engine, request, st);
  if (code == ESP_OK)
    code = apply_now(engine, request, st);
  if (code != ESP_NOT_FOUND)
    return code;
  plan->why = *st;
  code = try_leafless(engine, request, st);
  plan->waits = code == ESP_OK;
  return code;
}

/* ---- later ---- */

static void plan_attempt(struct esp_engine *engine);

/* Takes over what the attempt has found out. Those to be answered by it are returned, and whether there is to be
 * another one. */
static struct esp_plan_asker *plan_note(struct esp_plan_wait *plan, enum esp_code code, const struct esp_status *st,
                                        bool *ret_is_new, bool *ret_again) {
  pthread_mutex_lock(&plan->lock);
  *ret_is_new = code == ESP_OK || !plan->was_told || strcmp(plan->why.message, st->message) != 0;
  if (code == ESP_OK)
    plan->waits = false;
  else
    plan->why = *st;
  plan->was_told = true;
  struct esp_plan_asker *served = plan->served;
  plan->served = NULL;
  if (code == ESP_OK) { /* whoever has asked meanwhile too */
    struct esp_plan_asker **end = &served;
    while (*end != NULL)
      end = &(*end)->next;
    *end = plan->askers;
    plan->askers = NULL;
  }
  *ret_again = code != ESP_OK && (plan->again || plan->askers != NULL);
  plan->running = *ret_again;
  pthread_mutex_unlock(&plan->lock);
  return served;
}

static void on_attempt(void *data, enum esp_code code, const struct esp_status *st,
                       const struct esp_apply_reply *reply) {
  struct esp_engine *engine = data;
  struct esp_plan_wait *plan = &engine->plan;
  bool is_new, again;
  struct esp_plan_asker *asker = plan_note(plan, code, st, &is_new, &again);
  if (is_new)
    plan->told(plan->told_data, code, st, reply);
  if (again) /* before the answers: those who wait for them keep the engine */
    plan_attempt(engine);
  while (asker != NULL) {
    struct esp_plan_asker *next = asker->next;
    asker->callback(asker->data, code, st, reply);
    asker = next;
  }
}

static void plan_attempt(struct esp_engine *engine) {
  struct esp_plan_wait *plan = &engine->plan;
  pthread_mutex_lock(&plan->lock);
  plan->served = plan->askers;
  plan->askers = NULL;
  plan->again = false;
  pthread_mutex_unlock(&plan->lock);
  esp_engine_apply(engine, plan->request, on_attempt, engine);
}

bool esp_plan_ask(struct esp_engine *engine, struct esp_plan_asker *asker) {
  struct esp_plan_wait *plan = &engine->plan;
  if (!plan->waits)
    return false;
  pthread_mutex_lock(&plan->lock);
  bool waits = plan->waits, starts = waits && !plan->running;
  if (waits && asker != NULL) {
    asker->next = plan->askers;
    plan->askers = asker;
  }
  plan->again = waits;
  plan->running = waits;
  pthread_mutex_unlock(&plan->lock);
  if (starts)
    plan_attempt(engine);
  return waits;
}

enum esp_code esp_plan_admit(struct esp_engine *engine, struct esp_status *st) {
  struct esp_status why;
  if (!esp_engine_plan_waits(engine, &why))
    return ESP_OK;
  return esp_fail(st, ESP_FAILED_PRECONDITION,
                  "the server's plan comes before any push, and can't be applied to the tree as it is: %s",
                  why.message);
}

bool esp_engine_plan_waits(struct esp_engine *engine, struct esp_status *ret_why) {
  struct esp_plan_wait *plan = &engine->plan;
  if (!plan->waits)
    return false;
  pthread_mutex_lock(&plan->lock);
  bool waits = plan->waits;
  *ret_why = plan->why;
  pthread_mutex_unlock(&plan->lock);
  return waits;
}
