/* Timers that are due.
 *
 * A timer of commit N is a transaction that takes the number N, or the next that is free after it, and no push takes N
 * or a higher one before it. So a commit of pushes that finds a timer due, under the commit lock, does not take its
 * number: it is parked. The transactions' thread runs the timers' transaction, and then those that were parked look at
 * the layout again and go on, in the order in which they came. A timer that counts pushes stops them likewise. What
 * becomes due with a commit is submitted with it: nobody need push for it to happen.
 *
 * For the pushes this costs one comparison, with the smallest number that any timer waits for.
 *
 * The transaction can fail for want of memory only. Then the parked are refused, and it is tried again with the next
 * push or tick. */
#include "engine/timers.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "engine/operations.h"

/* ---- when ---- */

static bool is_due(const struct esp_timer *timer, const struct esp_moment *moment) {
  switch (timer->due) {
  case ESP_TIMER_COMMIT:
    return timer->at <= moment->commit + 1;
  case ESP_TIMER_PUSHES:
    return timer->at <= moment->push_commits;
  default:
    return timer->at <= moment->wall_ms;
  }
}

/* Whether there is a timer that pushes wait for. */
static bool any_due(const struct esp_engine *engine) {
  const uint64_t *due = engine->layout->timers_due;
  return due[ESP_TIMER_COMMIT] <= engine->commit + 1 || due[ESP_TIMER_PUSHES] <= engine->push_commits;
}

static void stop_find(struct esp_engine *engine) {
  const uint64_t *due = engine->layout->timers_due;
  struct esp_timers *timers = &engine->timers;
  uint64_t next = engine->commit + 1;
  uint64_t left =
      due[ESP_TIMER_PUSHES] > engine->push_commits ? due[ESP_TIMER_PUSHES] - engine->push_commits : 0; /* may go */
  uint64_t stop_at = left > UINT64_MAX - next ? UINT64_MAX : next + left;
  stop_at = due[ESP_TIMER_COMMIT] < stop_at ? due[ESP_TIMER_COMMIT] : stop_at;
  timers->stop_at = timers->first != NULL || timers->resuming ? 0 : stop_at;
}

/* ---- submitting, parking ---- */

static void submit(struct esp_engine *engine) {
  if (engine->timers.submitted)
    return;
  engine->timers.submitted = true;
  atomic_fetch_add(&engine->committing, 1);
  esp_transactions_submit(engine, &engine->timers.job);
}

void esp_timers_look(struct esp_engine *engine) {
  stop_find(engine);
  if (any_due(engine))
    submit(engine);
}

bool esp_timers_park(struct esp_engine *engine, struct esp_parked *parked) {
  struct esp_timers *timers = &engine->timers;
  bool due = any_due(engine);
  if (due)
    submit(engine);
  else if (parked->resumed || (timers->first == NULL && !timers->resuming))
    return false;
  if (timers->first == NULL || parked->resumed) {
    parked->next = timers->first;
    timers->first = parked;
    timers->last = timers->last == NULL ? parked : timers->last;
  } else {
    parked->next = NULL;
    timers->last->next = parked;
    timers->last = parked;
  }
  return true;
}

/* Whether there is one that waits for no push. */
static bool is_time(const struct esp_engine *engine) {
  return !engine->draining && engine->layout->timers_due[ESP_TIMER_TIME] <= esp_engine_wall(engine);
}

void esp_timers_tick(struct esp_engine *engine) {
  pthread_mutex_lock(&engine->commit_lock);
  if (any_due(engine) || is_time(engine))
    submit(engine);
  pthread_mutex_unlock(&engine->commit_lock);
}

/* ---- going on ---- */

static struct esp_parked *parked_take(struct esp_timers *timers) {
  struct esp_parked *parked = timers->first;
  timers->first = parked->next;
  timers->last = timers->first == NULL ? NULL : timers->last;
  return parked;
}

/* One after the other; the next timer that is due stops it. */
static void resume_run(struct esp_job *job, unsigned share) {
  (void)share;
  struct esp_engine *engine = (struct esp_engine *)((char *)job - offsetof(struct esp_engine, timers.resume));
  struct esp_timers *timers = &engine->timers;
  for (;;) {
    pthread_mutex_lock(&engine->commit_lock);
    if (timers->first == NULL || any_due(engine))
      break;
    struct esp_parked *parked = parked_take(timers);
    pthread_mutex_unlock(&engine->commit_lock);
    parked->resumed = true;
    parked->go(parked, ESP_OK, NULL);
  }
  timers->resuming = false;
  esp_timers_look(engine);
  pthread_mutex_unlock(&engine->commit_lock);
}

static void refuse(struct esp_parked *parked, enum esp_code code, const struct esp_status *why) {
  struct esp_status st;
  code = esp_fail(&st, code, "a timer is due before this push, and failed: %.512s", why->message);
  while (parked != NULL) {
    struct esp_parked *next = parked->next;
    parked->go(parked, code, &st);
    parked = next;
  }
}

static void timers_run(struct esp_job *job, unsigned share) {
  (void)share;
  struct esp_engine *engine = (struct esp_engine *)((char *)job - offsetof(struct esp_engine, timers.job));
  struct esp_timers *timers = &engine->timers;
  struct esp_parked *refused = NULL;
  timers->code = ESP_OK;
  esp_apply_timers(engine);
  pthread_mutex_lock(&engine->commit_lock);
  timers->submitted = false;
  if (timers->code != ESP_OK) {
    refused = timers->first;
    timers->first = timers->last = NULL;
    stop_find(engine);
  } else {
    esp_timers_look(engine);
    if (is_time(engine)) /* since it began */
      submit(engine);
    if (!any_due(engine) && timers->first != NULL && !timers->resuming) {
      timers->resuming = true;
      esp_pool_submit(engine->pool, &timers->resume);
    }
  }
  pthread_mutex_unlock(&engine->commit_lock);
  refuse(refused, timers->code, &timers->st);
  atomic_fetch_sub(&engine->committing, 1);
}

void esp_timers_init(struct esp_timers *timers) {
  *timers = (struct esp_timers){
      .job = {.run = timers_run, .shares = 1}, .resume = {.run = resume_run, .shares = 1}, .stop_at = UINT64_MAX};
}

/* ---- the transaction ---- */

/* The timers that are due, copied: edits change the layout's. Those that follow each other and thaw alike are one step.
 */
struct firing {
  struct esp_timer *due;
  size_t due_len;
  size_t *steps;  /* of each */
  size_t *bounds; /* by step: where its leaves begin in sel; the next one's begin where they end */
  size_t steps_len;
  struct esp_selection sel; /* of all steps */
};

static void firing_done(struct firing *firing) {
  esp_free(firing->due);
  esp_free(firing->steps);
  esp_free(firing->bounds);
  esp_selection_done(&firing->sel);
}

static bool is_one_step(const struct esp_timer *a, const struct esp_timer *b) {
  return !a->frozen && !b->frozen && a->reset_state == b->reset_state;
}

/* The step of the timer, or SIZE_MAX where it is not due. */
static size_t step_of(const struct firing *firing, uint64_t timer) {
  size_t low = 0, high = firing->due_len;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (firing->due[middle].id < timer)
      low = middle + 1;
    else
      high = middle;
  }
  return low < firing->due_len && firing->due[low].id == timer ? firing->steps[low] : SIZE_MAX;
}

static bool firing_init(struct firing *firing, const struct esp_layout *view, const struct esp_moment *moment) {
  *firing = (struct firing){0};
  firing->due = esp_malloc_array(view->timers_len + 1, sizeof(*firing->due));
  firing->steps = esp_malloc_array(view->timers_len + 1, sizeof(*firing->steps));
  firing->bounds = esp_calloc(view->timers_len + 2, sizeof(*firing->bounds));
  firing->sel.leaves = esp_malloc_array(view->leaves_len + 1, sizeof(uint32_t));
  if (firing->due == NULL || firing->steps == NULL || firing->bounds == NULL || firing->sel.leaves == NULL)
    return false;
  for (size_t i = 0; i < view->timers_len; i++) {
    size_t at = firing->due_len;
    if (!is_due(&view->timers[i], moment))
      continue;
    firing->due[at] = view->timers[i];
    firing->steps_len += at == 0 || !is_one_step(&firing->due[at - 1], &firing->due[at]);
    firing->steps[at] = firing->steps_len - 1;
    firing->due_len++;
  }
  return true;
}

/* Sorts the leaves by step; those of a step stay in path order. */
static void firing_select(struct firing *firing, const struct esp_layout *view) {
  size_t *bounds = firing->bounds;
  for (size_t i = 0; i < view->leaves_len; i++) {
    size_t step = step_of(firing, esp_layout_place(view, &view->leaves[i])->timer);
    if (step != SIZE_MAX)
      bounds[step + 2]++;
  }
  for (size_t step = 0; step < firing->steps_len; step++) /* a place further, until it is filled */
    bounds[step + 2] += bounds[step + 1];
  for (size_t i = 0; i < view->leaves_len; i++) {
    size_t step = step_of(firing, esp_layout_place(view, &view->leaves[i])->timer);
    if (step != SIZE_MAX)
      firing->sel.leaves[bounds[step + 1]++] = (uint32_t)i;
  }
}

/* `timer 3 of epoch 12: encoder; timer 4 of epoch 12: head`. NULL without memory. */
static char *reason_of(const struct firing *firing) {
  char text[1024], shown[ESP_PATH_TEXT_MAX];
  size_t used = 0, i = 0;
  text[0] = '\0';
  for (; i < firing->due_len && used + 128 + ESP_PATH_TEXT_MAX < sizeof(text); i++) {
    const struct esp_timer *timer = &firing->due[i];
    used += (size_t)snprintf(text + used, sizeof(text) - used, "%stimer %" PRIu64 " of epoch %" PRIu64 ": %s",
                             i > 0 ? "; " : "", timer->id, timer->epoch,
                             esp_path_print(timer->selection, strlen(timer->selection), shown, sizeof(shown)));
  }
  if (i < firing->due_len)
    snprintf(text + used, sizeof(text) - used, "; and %zu more", firing->due_len - i);
  return esp_strdup(text);
}

/* When the freeze ends that begins now. False: it does not. */
static bool thaw_of(const struct esp_timer *timer, const struct esp_moment *moment, struct esp_timer *ret) {
  *ret = (struct esp_timer){.due = ESP_TIMER_COMMIT, .at = timer->until_commit, .selection = timer->selection};
  if (timer->for_ms != 0) {
    uint64_t at = moment->wall_ms + timer->for_ms;
    ret->due = ESP_TIMER_TIME;
    ret->at = at < timer->for_ms ? UINT64_MAX : at;
    ret->after = timer->for_ms;
  }
  return timer->frozen && (timer->until_commit != 0 || timer->for_ms != 0);
}

enum esp_code esp_timers_fire(struct esp_transaction *tx, struct esp_record *record, struct esp_status *st) {
  struct firing firing;
  const struct esp_layout *view = esp_edit_view(tx->edit);
  bool ok = firing_init(&firing, view, &tx->moment);
  char *reason = ok ? reason_of(&firing) : NULL;
  enum esp_code code = reason == NULL ? esp_transaction_memory(st) : ESP_OK;
  if (code == ESP_OK) {
    firing_select(&firing, view);
    esp_free(record->reason);
    record->reason = reason;
  }
  for (size_t i = 0; i < firing.due_len && code == ESP_OK; i++) {
    if (i > 0 && firing.steps[i] == firing.steps[i - 1])
      continue;
    const struct esp_timer *timer = &firing.due[i];
    const size_t *bounds = &firing.bounds[firing.steps[i]];
    struct esp_timer thaw;
    bool ends = thaw_of(timer, &tx->moment, &thaw);
    struct esp_selection sel = {.leaves = firing.sel.leaves + bounds[0], .len = bounds[1] - bounds[0]};
    tx->matched += sel.len;
    code = esp_operation_freeze(tx, timer->frozen, timer->reset_state, &sel, ends ? &thaw : NULL, st);
  }
  firing_done(&firing);
  return code;
}
