/* The engine's beginning, end and small readings. A start is a new lineage: what an earlier server committed is not
 * here. Draining refuses what is new and lets what is under way finish. */
#include "engine/engine.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "engine/operations.h"

uint64_t esp_engine_now(const struct esp_engine *engine) {
  return engine->options.env->now_ms(engine->options.env->data);
}

uint64_t esp_engine_wall(const struct esp_engine *engine) {
  return engine->options.env->wall_ms(engine->options.env->data);
}

uint64_t esp_engine_random(const struct esp_engine *engine) {
  uint64_t value;
  do
    value = engine->options.env->random_u64(engine->options.env->data);
  while (value == 0);
  return value;
}

uint64_t esp_wait_deadline(const struct esp_engine *engine, uint64_t now_ms, uint64_t wait_ms) {
  if (wait_ms == 0)
    wait_ms = engine->options.stall_timeout_ms;
  uint64_t margin_ms = wait_ms / 10 < 500 ? wait_ms / 10 : 500;
  return now_ms + (wait_ms > UINT64_MAX / 2 ? UINT64_MAX / 2 : wait_ms - margin_ms);
}

/* ---- groups ---- */

static enum esp_code group_parse(const struct esp_named *named, struct esp_group *ret, struct esp_status *st) {
  struct esp_status why;
  struct esp_optim *optim;
  enum esp_code code = esp_optim_parse(named->value, &optim, &why);
  if (code != ESP_OK)
    return esp_fail(st, code, "group %s: %s", named->name, why.message);
  return esp_group_optim_new(named->name, optim, ret, st);
}

static enum esp_code layout_assign(struct esp_engine *engine, const struct esp_engine_options *options,
                                   struct esp_status *st) {
  struct esp_diff diff = {0};
  struct esp_edit *edit = esp_edit_new(engine->layout);
  if (edit == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for the tree");
  for (size_t i = 0; i < options->assigns_len; i++) {
    const struct esp_named *assign = &options->assigns[i];
    struct esp_status why;
    enum esp_code code = esp_edit_assign(edit, assign->name, strlen(assign->name), assign->value, &why);
    if (code != ESP_OK) {
      esp_edit_free(edit);
      return esp_fail(st, code, "assignment %s=%s: %s", assign->name, assign->value, why.message);
    }
  }
  struct esp_layout *layout;
  enum esp_code code = esp_edit_finish(edit, &layout, &diff, st);
  if (code != ESP_OK)
    return code;
  esp_diff_done(&diff);
  esp_layout_unref(engine->layout);
  engine->layout = layout;
  return ESP_OK;
}

static enum esp_code layout_init(struct esp_engine *engine, const struct esp_engine_options *options,
                                 struct esp_status *st) {
  struct esp_group *groups = esp_calloc(options->groups_len + 1, sizeof(*groups));
  if (groups == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for the groups");
  enum esp_code code = ESP_OK;
  for (size_t i = 0; i < options->groups_len && code == ESP_OK; i++)
    code = group_parse(&options->groups[i], &groups[i], st);
  if (code == ESP_OK)
    code = esp_layout_new(groups, options->groups_len, &engine->layout, st);
  for (size_t i = 0; i < options->groups_len; i++)
    esp_object_unref(groups[i].optim); /* the layout has its own */
  esp_free(groups);
  return code == ESP_OK ? layout_assign(engine, options, st) : code;
}

/* ---- the engine ---- */

enum esp_code esp_engine_new(const struct esp_engine_options *options, struct esp_engine **ret, struct esp_status *st) {
  ESP_CHECK(options->threads >= 1 && options->threads <= 256 && esp_isa_supported(options->isa));
  struct esp_engine *engine = esp_calloc(1, sizeof(*engine));
  if (engine == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for an engine");
  engine->options = *options;
  if (options->max_in_flight == 0 || options->max_in_flight > ESP_IN_FLIGHT_MAX)
    engine->options.max_in_flight = ESP_IN_FLIGHT_MAX;
  engine->lineage = esp_engine_random(engine);
  engine->started_ms = esp_engine_now(engine);
  pthread_mutex_init(&engine->commit_lock, NULL);
  pthread_mutex_init(&engine->list_lock, NULL);
  pthread_mutex_init(&engine->stages_lock, NULL);
  esp_budget_init(&engine->staging, "--max-staged", "staging", options->max_staged);
  esp_budget_init(&engine->world.copies, "--max-copy-on-write", "copies on write", options->max_copy_on_write);
  pthread_mutex_init(&engine->world.values_lock, NULL);
  esp_sessions_init(&engine->sessions);
  esp_watches_init(&engine->watches);
  esp_history_init(&engine->history);
  esp_timers_init(&engine->timers);
  pthread_mutex_init(&engine->plan.lock, NULL);
  engine->world.isa = options->isa;
  enum esp_code code = layout_init(engine, options, st);
  if (code == ESP_OK)
    code = esp_pool_new(options->threads, "kernel", &engine->pool, st);
  if (code == ESP_OK)
    code = esp_pool_new(1, "admin", &engine->transactions, st);
  if (code != ESP_OK) {
    esp_engine_free(engine);
    return code;
  }
  engine->world.pool = engine->pool;
  *ret = engine;
  return ESP_OK;
}

void esp_engine_free(struct esp_engine *engine) {
  if (engine == NULL)
    return;
  /* The pools run what was given to them first: admin work ends in the kernels' pool, not the other way round. */
  esp_pool_free(engine->transactions);
  esp_pool_free(engine->pool);
  esp_stages_done(engine);
  esp_remembered_done(engine);
  esp_layout_unref(engine->layout);
  ESP_CHECK(engine->arriving == NULL && engine->committing == 0 && engine->timers.first == NULL);
  esp_watches_done(&engine->watches);
  esp_history_done(&engine->history);
  pthread_mutex_destroy(&engine->plan.lock);
  esp_sessions_done(&engine->sessions);
  esp_budget_done(&engine->staging);
  esp_budget_done(&engine->world.copies);
  pthread_mutex_destroy(&engine->world.values_lock);
  pthread_mutex_destroy(&engine->stages_lock);
  pthread_mutex_destroy(&engine->list_lock);
  pthread_mutex_destroy(&engine->commit_lock);
  esp_free(engine);
}

void esp_engine_tick(struct esp_engine *engine) {
  uint64_t now_ms = esp_engine_now(engine);
  esp_budget_tick(&engine->staging, now_ms);
  esp_budget_tick(&engine->world.copies, now_ms);
  esp_pushes_tick(engine, now_ms);
  esp_stages_tick(engine, now_ms);
  esp_sessions_tick(engine, now_ms);
  esp_timers_tick(engine);
}

void esp_engine_drain(struct esp_engine *engine) {
  engine->draining = true;
  esp_budget_close(&engine->staging);
}

bool esp_engine_is_draining(const struct esp_engine *engine) {
  return engine->draining;
}

bool esp_engine_is_idle(struct esp_engine *engine) {
  pthread_mutex_lock(&engine->list_lock);
  bool arriving = engine->arriving != NULL;
  pthread_mutex_unlock(&engine->list_lock);
  return !arriving && engine->committing == 0;
}

void esp_transactions_submit(struct esp_engine *engine, struct esp_job *job) {
  esp_pool_submit(engine->transactions, job);
}

bool esp_transactions_run_here(struct esp_engine *engine, struct esp_job *job) {
  return esp_pool_run_here(engine->transactions, job);
}

/* ---- layouts ---- */

struct esp_layout *esp_engine_layout(struct esp_engine *engine, uint64_t *ret_commit) {
  pthread_mutex_lock(&engine->commit_lock);
  struct esp_layout *layout = esp_layout_ref(engine->layout);
  if (ret_commit != NULL)
    *ret_commit = engine->commit;
  pthread_mutex_unlock(&engine->commit_lock);
  return layout;
}

uint64_t esp_engine_publish(struct esp_engine *engine, struct esp_layout *layout, struct esp_record *record,
                            struct esp_layout **ret_old) {
  *ret_old = engine->layout;
  engine->layout = layout;
  record->epoch = layout->epoch;
  record->commit = ++engine->commit;
  record->changes_len = record->diff.len;
  esp_timers_look(engine);
  return record->commit;
}

uint64_t esp_engine_lineage(const struct esp_engine *engine) {
  return engine->lineage;
}

struct esp_optim *esp_group_get_optim(const struct esp_group *group) {
  return ((const struct esp_group_optim *)group->optim)->optim;
}

struct esp_optim *esp_place_optim(const struct esp_layout *layout, const struct esp_place *place) {
  return esp_group_get_optim(&layout->groups[place->group]);
}

struct esp_param *esp_place_param(const struct esp_place *place) {
  return (struct esp_param *)place->storage;
}

void esp_place_stat(const struct esp_place *place, struct esp_param_stat *ret) {
  const struct esp_param *param = esp_place_param(place);
  *ret = (struct esp_param_stat){.steps = param->steps,
                                 .version = param->version,
                                 .bytes = param->bytes,
                                 .state_bytes = esp_param_state_bytes(param)};
}

enum esp_code esp_leaf_unknown(const struct esp_layout *layout, const char *path, size_t len, struct esp_status *st) {
  char text[ESP_PATH_BYTES_MAX + 1], near[512];
  enum esp_code code = esp_path_check(path, len, st);
  if (code != ESP_OK)
    return code;
  snprintf(text, sizeof(text), "%.*s", (int)len, path);
  size_t first, below;
  esp_layout_range(layout, path, len, &first, &below);
  if (below > 0)
    return esp_fail(st, ESP_NOT_FOUND,
                    "%.200s is a node with %zu leaves below it, not a leaf: name one of them, as %.200s", text, below,
                    layout->leaves[first].path);
  esp_layout_suggest(layout, text, near, sizeof(near));
  return esp_fail(st, ESP_NOT_FOUND, "no leaf has the path %.200s%s%s", text,
                  near[0] == '\0' ? "" : "; nearest: ", near);
}

void esp_engine_info(struct esp_engine *engine, struct esp_engine_info *ret) {
  struct esp_budget_use staging = esp_budget_use(&engine->staging), copies = esp_budget_use(&engine->world.copies);
  struct esp_engine_info info = {
      .lineage = engine->lineage,
      .wall_ms = esp_engine_wall(engine),
      .uptime_ms = esp_engine_now(engine) - engine->started_ms,
      .sessions_live = esp_sessions_live(engine),
      .memory_params = engine->world.bytes_params,
      .memory_state = engine->world.bytes_state,
      .memory_staged = staging.bytes,
      .memory_staged_max = engine->options.max_staged,
      .memory_copy_on_write = copies.bytes,
      .memory_copy_on_write_max = engine->options.max_copy_on_write,
      .memory_spare = staging.spare + copies.spare,
      .pushes_applied = engine->pushes_applied,
      .pushes_refused = engine->pushes_refused,
      .pushes_nonfinite = engine->pushes_nonfinite,
      .pushes_in_flight = engine->pushes_in_flight,
      .pushes_in_flight_max = engine->options.max_pushes,
      .pulls = engine->pulls,
      .pulls_active = engine->pulls_active,
      .bytes_pushed = engine->bytes_pushed,
      .bytes_pulled = engine->bytes_pulled,
      .threads = engine->options.threads,
      .isa = engine->options.isa,
      .watches = engine->watches.len,
      .draining = engine->draining,
  };
  pthread_mutex_lock(&engine->commit_lock);
  struct esp_layout *layout = esp_layout_ref(engine->layout);
  info.commit = engine->commit;
  info.push_commits = engine->push_commits;
  pthread_mutex_unlock(&engine->commit_lock);
  info.epoch = layout->epoch;
  info.leaves = layout->leaves_len;
  info.params = layout->params_len;
  info.elements = layout->elements;
  info.frozen = layout->frozen_len;
  esp_layout_unref(layout);
  *ret = info;
}
