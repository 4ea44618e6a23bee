/* An engine on the virtual clock, and blocking forms of its calls: each waits for its callback. */
#ifndef ESP_ENGINE_FIXTURE_H
#define ESP_ENGINE_FIXTURE_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/engine.h"
#include "engine/internal.h"
#include "tests/support/env_virtual.h"
#include "tests/support/test.h"

struct fixture {
  struct esp_env_virtual *twin;
  struct esp_engine *engine;
};

static inline void fixture_open_with(struct fixture *fixture, unsigned threads, enum esp_isa isa,
                                     const char *expression, uint64_t max_staged, enum esp_nonfinite on_nonfinite) {
  const struct esp_named groups[] = {{"default", expression}, {"head", "sgd(lr=1)"}};
  const struct esp_named assigns[] = {{"assigned", "head"}};
  struct esp_status st = {0};
  fixture->twin = esp_env_virtual_new(7);
  struct esp_engine_options options = {.env = esp_env_virtual_env(fixture->twin),
                                       .threads = threads,
                                       .isa = isa,
                                       .max_staged = max_staged,
                                       .max_copy_on_write = 64 << 20,
                                       .max_tree = UINT64_C(1) << 30,
                                       .stall_timeout_ms = 30000,
                                       .lease_ms = 30000,
                                       .session_retention_ms = 100000,
                                       .max_sessions = 8,
                                       .on_nonfinite = on_nonfinite,
                                       .groups = groups,
                                       .groups_len = 2,
                                       .assigns = assigns,
                                       .assigns_len = 1};
  if (esp_engine_new(&options, &fixture->engine, &st) != ESP_OK)
    fail_msg("%s", st.message);
}

static inline void fixture_open(struct fixture *fixture) {
  fixture_open_with(fixture, 2, ESP_ISA_SSE2, "sgd(lr=1)", 64 << 20, ESP_NONFINITE_REJECT);
}

static inline void fixture_close(struct fixture *fixture) {
  esp_engine_free(fixture->engine);
  esp_env_virtual_free(fixture->twin);
}

/* ---- what came back ---- */

struct outcome {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  bool ready;
  unsigned done; /* times */
  enum esp_code code;
  struct esp_status st;
  struct esp_push_reply push;
  uint64_t ids[64];
  uint64_t added;
  uint64_t epoch;
  uint64_t commit;
  uint64_t matched;
  size_t changes_len;
  size_t notes_len;
  char note[256];
  char text[2048]; /* the diff, a line a change */
  struct esp_digest digest;
  struct esp_param_stat stat; /* of the first leaf of a digest */
  struct esp_pull_header header;
  struct esp_pin pin; /* hold is NULL where the last event had none */
};

static inline void outcome_init(struct outcome *outcome) {
  memset(outcome, 0, sizeof(*outcome));
  pthread_mutex_init(&outcome->lock, NULL);
  pthread_cond_init(&outcome->changed, NULL);
}

static inline void outcome_end(struct outcome *outcome, enum esp_code code, const struct esp_status *st) {
  outcome->done++;
  outcome->code = code;
  if (code != ESP_OK) {
    assert_int_equal(st->code, code);
    outcome->st = *st;
  }
  pthread_cond_broadcast(&outcome->changed);
  pthread_mutex_unlock(&outcome->lock);
}

static inline void outcome_wait(struct outcome *outcome) {
  pthread_mutex_lock(&outcome->lock);
  while (outcome->done == 0)
    pthread_cond_wait(&outcome->changed, &outcome->lock);
  pthread_mutex_unlock(&outcome->lock);
}

static inline void on_push(void *data, enum esp_push_event event, enum esp_code code, const struct esp_status *st,
                           const struct esp_push_reply *reply) {
  struct outcome *outcome = data;
  pthread_mutex_lock(&outcome->lock);
  if (event == ESP_PUSH_READY) {
    assert_false(outcome->ready);
    outcome->ready = true;
    pthread_mutex_unlock(&outcome->lock);
    return;
  }
  if (reply != NULL)
    outcome->push = *reply;
  outcome_end(outcome, code, st);
}

static inline void on_declare(void *data, enum esp_code code, const struct esp_status *st,
                              const struct esp_declare_reply *reply) {
  struct outcome *outcome = data;
  pthread_mutex_lock(&outcome->lock);
  if (reply != NULL) {
    assert_true(reply->ids_len <= 64);
    if (reply->ids_len > 0)
      memcpy(outcome->ids, reply->ids, reply->ids_len * sizeof(uint64_t));
    outcome->added = reply->added;
    outcome->epoch = reply->epoch;
    outcome->commit = reply->commit;
    outcome->notes_len = reply->notes_len;
    if (reply->notes_len > 0)
      snprintf(outcome->note, sizeof(outcome->note), "%s", reply->notes[0]);
  }
  outcome_end(outcome, code, st);
}

static inline void on_apply(void *data, enum esp_code code, const struct esp_status *st,
                            const struct esp_apply_reply *reply) {
  struct outcome *outcome = data;
  pthread_mutex_lock(&outcome->lock);
  if (reply != NULL) {
    outcome->epoch = reply->epoch;
    outcome->commit = reply->commit;
    outcome->matched = reply->matched;
    outcome->changes_len = reply->diff.len;
    outcome->notes_len = reply->notes_len;
    if (reply->notes_len > 0)
      snprintf(outcome->note, sizeof(outcome->note), "%s", reply->notes[0]);
    size_t used = 0;
    for (size_t i = 0; i < reply->diff.len && used < sizeof(outcome->text); i++) {
      const struct esp_change *change = &reply->diff.changes[i];
      used += (size_t)snprintf(outcome->text + used, sizeof(outcome->text) - used, "%s %s %s->%s\n", change->path,
                               change->field, change->from, change->to);
    }
  }
  outcome_end(outcome, code, st);
}

static inline void on_digest(void *data, enum esp_code code, const struct esp_status *st,
                             const struct esp_digest_reply *reply) {
  struct outcome *outcome = data;
  pthread_mutex_lock(&outcome->lock);
  if (reply != NULL) {
    outcome->digest = reply->all;
    outcome->commit = reply->commit;
    if (reply->sel.len > 0)
      outcome->stat = reply->stats[0];
  }
  outcome_end(outcome, code, st);
}

static inline void on_pull(void *data, enum esp_code code, const struct esp_status *st,
                           const struct esp_pull_event *event) {
  struct outcome *outcome = data;
  pthread_mutex_lock(&outcome->lock);
  outcome->pin.hold = NULL; /* an unchanged leaf, the header, or the end */
  if (event != NULL && event->header != NULL)
    outcome->header = *event->header;
  if (event != NULL && event->pin != NULL)
    outcome->pin = *event->pin;
  outcome_end(outcome, code, st);
}

/* ---- blocking calls ---- */

/* A spec of a trained f64 vector of zeros. */
static inline struct esp_declare_leaf vector_f64(const char *path, uint64_t len) {
  return (struct esp_declare_leaf){.path = path,
                                   .path_len = strlen(path),
                                   .shape = {.rank = 1, .dims = {len}},
                                   .dtype = ESP_DTYPE_F64,
                                   .kind = ESP_KIND_TRAINED,
                                   .tag = "",
                                   .group = ""};
}

static inline enum esp_code declare(struct fixture *fixture, const struct esp_declare_leaf *leaves, size_t len,
                                    struct outcome *ret) {
  struct outcome ready;
  struct esp_declare *declare = NULL;
  outcome_init(&ready);
  outcome_init(ret);
  const struct esp_push_header header = {0};
  enum esp_code code = esp_declare_new(fixture->engine, &header, on_push, &ready, &declare, &ret->st);
  for (size_t i = 0; i < len && code == ESP_OK; i++)
    code = esp_declare_add_leaf(declare, &leaves[i], &ret->st);
  if (code != ESP_OK) {
    esp_declare_free(declare);
    return ret->code = code;
  }
  esp_declare_commit(declare, on_declare, ret);
  outcome_wait(ret);
  return ret->code;
}

/* Declares an f64 vector and returns its id. */
static inline uint64_t declare_vector(struct fixture *fixture, const char *path, uint64_t len) {
  struct outcome outcome;
  struct esp_declare_leaf leaf = vector_f64(path, len);
  if (declare(fixture, &leaf, 1, &outcome) != ESP_OK)
    fail_msg("%s", outcome.st.message);
  return outcome.ids[0];
}

static inline enum esp_code feed(struct esp_push *push, uint64_t leaf, uint64_t offset, const void *data, size_t len,
                                 struct esp_status *st) {
  struct esp_span span = {.data = data, .len = len};
  struct esp_piece piece = {.leaf_id = leaf, .path = "", .offset = offset, .data = esp_cursor_init(&span, 1)};
  return esp_push_feed(push, &piece, st);
}

struct grad {
  uint64_t leaf;
  const void *data;
  size_t bytes;
};

/* Begins a push and feeds it; the caller commits or frees *ret. */
static inline enum esp_code push_arrive(struct fixture *fixture, uint64_t session, uint64_t sequence,
                                        const struct grad *grads, size_t len, struct outcome *ret_outcome,
                                        struct esp_push **ret) {
  outcome_init(ret_outcome);
  struct esp_push_header header = {.session = session, .sequence = sequence, .leaf_count = len};
  for (size_t i = 0; i < len; i++)
    header.total_bytes += grads[i].bytes;
  *ret = NULL;
  enum esp_code code = esp_push_new(fixture->engine, &header, on_push, ret_outcome, ret, &ret_outcome->st);
  if (code == ESP_OK && ret_outcome->done > 0)
    code = ret_outcome->code; /* no memory for what was reserved */
  else if (code == ESP_OK)
    assert_true(ret_outcome->ready);
  for (size_t i = 0; i < len && code == ESP_OK; i++)
    code = feed(*ret, grads[i].leaf, 0, grads[i].data, grads[i].bytes, &ret_outcome->st);
  if (code != ESP_OK) {
    esp_push_free(*ret);
    *ret = NULL;
  }
  return code;
}

static inline enum esp_code push_many(struct fixture *fixture, uint64_t session, uint64_t sequence,
                                      const struct grad *grads, size_t len, struct outcome *ret) {
  struct esp_push *push;
  enum esp_code code = push_arrive(fixture, session, sequence, grads, len, ret, &push);
  if (code != ESP_OK)
    return ret->code = code;
  assert_true(esp_push_is_whole(push));
  esp_push_commit(push);
  outcome_wait(ret);
  assert_int_equal(ret->done, 1);
  esp_push_free(push);
  return ret->code;
}

static inline enum esp_code push_one(struct fixture *fixture, uint64_t leaf, const void *data, size_t bytes,
                                     struct outcome *ret) {
  struct grad grad = {.leaf = leaf, .data = data, .bytes = bytes};
  return push_many(fixture, 0, 0, &grad, 1, ret);
}

static inline enum esp_code apply_request(struct fixture *fixture, const struct esp_apply_request *request,
                                          struct outcome *ret) {
  outcome_init(ret);
  esp_engine_apply(fixture->engine, request, on_apply, ret);
  outcome_wait(ret);
  return ret->code;
}

static inline enum esp_code apply_ops(struct fixture *fixture, const struct esp_operation *ops, size_t len,
                                      struct outcome *ret) {
  struct esp_apply_request request = {
      .operations = ops, .operations_len = len, .idempotency_key = "", .actor = "ann", .reason = "because"};
  return apply_request(fixture, &request, ret);
}

static inline enum esp_code apply_one(struct fixture *fixture, enum esp_operation_kind kind, const char *selection,
                                      struct outcome *ret) {
  const struct esp_operation op = {.kind = kind, .selection = selection};
  return apply_ops(fixture, &op, 1, ret);
}

static inline void apply_ok(struct fixture *fixture, struct esp_operation op, struct outcome *ret) {
  if (apply_ops(fixture, &op, 1, ret) != ESP_OK)
    fail_msg("%s", ret->st.message);
}

static inline enum esp_code digest(struct fixture *fixture, const char *selection, struct outcome *ret) {
  outcome_init(ret);
  esp_engine_digest(fixture->engine, selection, on_digest, ret);
  outcome_wait(ret);
  return ret->code;
}

/* Asks for the next event and waits for it; false at the end. */
static inline bool pull_next(struct esp_pull *pull, struct outcome *outcome) {
  outcome->done = 0;
  if (esp_pull_next(pull) == ESP_PULL_END)
    return false;
  outcome_wait(outcome);
  return true;
}

/* Begins a pull and waits for its header, in outcome->header. */
static inline enum esp_code pull_begin(struct fixture *fixture, const struct esp_pull_request *request,
                                       struct outcome *outcome, struct esp_pull **ret) {
  outcome_init(outcome);
  *ret = NULL;
  outcome->code = esp_pull_new(fixture->engine, request, on_pull, outcome, ret, &outcome->st);
  if (outcome->code == ESP_OK)
    assert_true(pull_next(*ret, outcome));
  if (outcome->code != ESP_OK) {
    esp_pull_free(*ret);
    *ret = NULL;
  }
  return outcome->code;
}

/* Pins one leaf's value. */
static inline struct esp_pin pin_one(struct fixture *fixture, uint64_t leaf) {
  struct outcome outcome;
  struct esp_pull *pull;
  struct esp_pull_request request = {.leaf_ids = &leaf, .leaf_ids_len = 1, .selection = ""};
  if (pull_begin(fixture, &request, &outcome, &pull) != ESP_OK)
    fail_msg("%s", outcome.st.message);
  assert_true(pull_next(pull, &outcome));
  assert_int_equal(outcome.code, ESP_OK);
  struct esp_pin pin = outcome.pin;
  assert_false(pull_next(pull, &outcome));
  esp_pull_free(pull);
  return pin;
}

/* The first element of an f64 leaf. */
static inline double first_of(struct fixture *fixture, uint64_t leaf) {
  struct esp_pin pin = pin_one(fixture, leaf);
  double value = *(const double *)pin.bytes;
  esp_hold_unref(pin.hold);
  return value;
}

/* Bytes that pulls have reserved. */
static inline uint64_t copies(struct fixture *fixture) {
  struct esp_engine_info info;
  esp_engine_info(fixture->engine, &info);
  return info.memory_copy_on_write;
}

static inline uint64_t staged(struct fixture *fixture) {
  struct esp_engine_info info;
  esp_engine_info(fixture->engine, &info);
  return info.memory_staged;
}

#endif
