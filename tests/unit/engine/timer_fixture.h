/* Waiting for what timers do, and keeping them from doing it. */
#ifndef ESP_ENGINE_TIMER_FIXTURE_H
#define ESP_ENGINE_TIMER_FIXTURE_H

#include <sched.h>

#include "fixture.h"

static const double one[2] = {1, 1}; /* a gradient */

static inline struct outcome push_ok(struct fixture *fixture, uint64_t leaf) {
  struct outcome outcome;
  if (push_one(fixture, leaf, one, sizeof(one), &outcome) != ESP_OK)
    fail_msg("%s", outcome.st.message);
  return outcome;
}

/* ---- waiting ---- */

struct signal {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  bool raised;
  bool open; /* of a gate */
};

static inline void signal_init(struct signal *signal) {
  memset(signal, 0, sizeof(*signal));
  pthread_mutex_init(&signal->lock, NULL);
  pthread_cond_init(&signal->changed, NULL);
}

static inline void signal_raise(void *data) {
  struct signal *signal = data;
  pthread_mutex_lock(&signal->lock);
  signal->raised = true;
  pthread_cond_broadcast(&signal->changed);
  pthread_mutex_unlock(&signal->lock);
}

static inline void signal_wait(struct signal *signal) {
  pthread_mutex_lock(&signal->lock);
  while (!signal->raised)
    pthread_cond_wait(&signal->changed, &signal->lock);
  signal->raised = false;
  pthread_mutex_unlock(&signal->lock);
}

/* The layout of this epoch or a later one, once it is there. */
static inline struct esp_layout *layout_of(struct fixture *fixture, uint64_t epoch) {
  struct signal signal;
  struct esp_watch watch = {0};
  signal_init(&signal);
  esp_watch_init(&watch, fixture->engine, signal_raise, &signal);
  struct esp_layout *layout = esp_engine_layout(fixture->engine, NULL);
  while (layout->epoch < epoch) {
    esp_watch_wait(&watch, layout->epoch);
    signal_wait(&signal);
    esp_layout_unref(layout);
    layout = esp_engine_layout(fixture->engine, NULL);
  }
  esp_watch_done(&watch);
  return layout;
}

static inline void wait_epoch(struct fixture *fixture, uint64_t epoch) {
  esp_layout_unref(layout_of(fixture, epoch));
}

/* ---- a gate: holds up the transactions' thread in the middle of the next transaction, when that is published ---- */

struct gate {
  struct signal signal;
  struct esp_watch watch;
};

static inline void gate_hold(void *data) {
  struct gate *gate = data;
  pthread_mutex_lock(&gate->signal.lock);
  gate->signal.raised = true;
  pthread_cond_broadcast(&gate->signal.changed);
  while (!gate->signal.open)
    pthread_cond_wait(&gate->signal.changed, &gate->signal.lock);
  pthread_mutex_unlock(&gate->signal.lock);
}

/* Runs a transaction up to its gate. */
static inline void gate_close(struct gate *gate, struct fixture *fixture, const struct esp_operation *op,
                              struct outcome *outcome) {
  const struct esp_apply_request request = {
      .operations = op, .operations_len = 1, .idempotency_key = "", .actor = "", .reason = ""};
  struct esp_layout *layout = esp_engine_layout(fixture->engine, NULL);
  memset(gate, 0, sizeof(*gate));
  signal_init(&gate->signal);
  esp_watch_init(&gate->watch, fixture->engine, gate_hold, gate);
  esp_watch_wait(&gate->watch, layout->epoch);
  esp_layout_unref(layout);
  outcome_init(outcome);
  esp_engine_apply(fixture->engine, &request, on_apply, outcome);
  signal_wait(&gate->signal);
}

static inline void gate_open(struct gate *gate, struct outcome *outcome) {
  pthread_mutex_lock(&gate->signal.lock);
  gate->signal.open = true;
  pthread_cond_broadcast(&gate->signal.changed);
  pthread_mutex_unlock(&gate->signal.lock);
  outcome_wait(outcome);
  assert_int_equal(outcome->code, ESP_OK);
  esp_watch_done(&gate->watch);
}

/* ---- readings ---- */

static inline struct esp_engine_info info_of(struct fixture *fixture) {
  struct esp_engine_info info;
  esp_engine_info(fixture->engine, &info);
  return info;
}

/* The transaction that took this number, ref'd, once it is in the history. */
static inline struct esp_record *record_of(struct fixture *fixture, uint64_t commit) {
  struct esp_record *found = NULL;
  while (found == NULL) {
    struct esp_record **records;
    size_t len;
    struct esp_status st;
    assert_int_equal(esp_engine_history(fixture->engine, 0, 0, &records, &len, &st), ESP_OK);
    for (size_t i = 0; i < len; i++) {
      if (records[i]->commit == commit)
        found = records[i];
      else
        esp_record_unref(records[i]);
    }
    esp_free(records);
    sched_yield();
  }
  return found;
}

/* The transaction of this number is one of timers. */
static inline void expect_fired(struct fixture *fixture, uint64_t commit, const char *reason) {
  struct esp_record *record = record_of(fixture, commit);
  assert_string_equal(record->actor, "timer");
  assert_string_equal(record->reason, reason);
  esp_record_unref(record);
}

static inline bool is_frozen(struct fixture *fixture, const char *path) {
  struct esp_layout *layout = esp_engine_layout(fixture->engine, NULL);
  const struct esp_leaf *leaf = esp_layout_leaf_by_path(layout, path, strlen(path));
  assert_non_null(leaf);
  bool frozen = esp_layout_place(layout, leaf)->frozen;
  esp_layout_unref(layout);
  return frozen;
}

static inline size_t timers_len(struct fixture *fixture) {
  struct esp_layout *layout = esp_engine_layout(fixture->engine, NULL);
  size_t len = layout->timers_len;
  esp_layout_unref(layout);
  return len;
}

#endif
