/* Sessions and their sequences. A sequence is OPEN while its push arrives, COMMITTED while it is applied, DONE when its
 * answer is known; the last ESP_IN_FLIGHT_MAX are kept. A retry of an open one supersedes it, of a committed one gets
 * the same answer, so a gradient is never applied twice. A lease says whether a worker is there; the sequences outlive
 * it until --session-retention.
 *
 *     FREE -> OPEN -> COMMITTED -> DONE
 *       ^______|  refused, superseded, client gone */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "engine/internal.h"

void esp_sessions_init(struct esp_sessions *sessions) {
  *sessions = (struct esp_sessions){0};
  pthread_mutex_init(&sessions->lock, NULL);
}

void esp_sessions_done(struct esp_sessions *sessions) {
  for (size_t i = 0; i < sessions->map.capacity; i++)
    esp_free((void *)sessions->map.entries[i].value);
  esp_map_done(&sessions->map);
  pthread_mutex_destroy(&sessions->lock);
}

/* Under the lock. */
static struct esp_session *session_find(struct esp_engine *engine, uint64_t id) {
  const uintptr_t *value = esp_map_get(&engine->sessions.map, id);
  return value == NULL ? NULL : (struct esp_session *)*value;
}

static enum esp_code session_unknown(const struct esp_engine *engine, uint64_t id, struct esp_status *st) {
  return esp_fail(st, ESP_FAILED_PRECONDITION,
                  "session %016" PRIx64 " is unknown: it has left, has expired (--session-retention), or belongs to "
                  "another lineage than this server's %016" PRIx64 "; join again",
                  id, engine->lineage);
}

static void join_fill(struct esp_engine *engine, struct esp_join *ret) {
  pthread_mutex_lock(&engine->commit_lock);
  ret->epoch = engine->layout->epoch;
  ret->commit = engine->commit;
  pthread_mutex_unlock(&engine->commit_lock);
  ret->lineage = engine->lineage;
  ret->lease_ms = engine->options.lease_ms;
  ret->in_flight_max = engine->options.max_in_flight;
  ret->chunk_bytes_max = engine->options.max_chunk;
}

/* Under the lock; NULL with the reason. */
static struct esp_session *session_add(struct esp_engine *engine, const char *worker, uint64_t commit,
                                       struct esp_status *st) {
  struct esp_sessions *sessions = &engine->sessions;
  if (sessions->map.len >= engine->options.max_sessions) {
    (void)esp_fail(st, ESP_RESOURCE_EXHAUSTED, "there are %zu sessions, which is --max-sessions", sessions->map.len);
    return NULL;
  }
  struct esp_session *session = esp_calloc(1, sizeof(*session));
  if (session == NULL || !esp_map_reserve(&sessions->map, sessions->map.len + 1)) {
    esp_free(session);
    (void)esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a session");
    return NULL;
  }
  do
    session->id = esp_engine_random(engine);
  while (session_find(engine, session->id) != NULL);
  snprintf(session->name, sizeof(session->name), "%s", worker);
  session->last_commit = commit;
  esp_map_put(&sessions->map, session->id, (uintptr_t)session);
  return session;
}

enum esp_code esp_session_join(struct esp_engine *engine, const char *worker, uint64_t resume, struct esp_join *ret,
                               struct esp_status *st) {
  if (strlen(worker) > ESP_WORKER_NAME_BYTES_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the worker's name has %zu bytes, %d are allowed", strlen(worker),
                    ESP_WORKER_NAME_BYTES_MAX);
  if (engine->draining)
    return esp_fail(st, ESP_UNAVAILABLE, "the server is shutting down");
  struct esp_status local = {0};
  struct esp_join join = {0};
  join_fill(engine, &join);
  pthread_mutex_lock(&engine->sessions.lock);
  struct esp_session *session =
      resume == 0 ? session_add(engine, worker, join.commit, &local) : session_find(engine, resume);
  if (session != NULL) {
    session->seen_ms = esp_engine_now(engine);
    join.session = session->id;
    join.last_sequence = session->high;
  }
  pthread_mutex_unlock(&engine->sessions.lock);
  if (session == NULL)
    return resume == 0 ? esp_fail(st, local.code, "%s", local.message) : session_unknown(engine, resume, st);
  *ret = join;
  return ESP_OK;
}

/* Under the lock. */
static void session_remove(struct esp_engine *engine, struct esp_session *session) {
  ESP_CHECK(session->committed_len == 0);
  esp_map_remove(&engine->sessions.map, session->id);
  esp_free(session);
}

enum esp_code esp_session_leave(struct esp_engine *engine, uint64_t id, struct esp_status *st) {
  if (id == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "no session is named");
  pthread_mutex_lock(&engine->sessions.lock);
  struct esp_session *session = session_find(engine, id);
  /* One whose pushes are being applied goes when it is old: its answers are still to be recorded. */
  if (session != NULL && session->committed_len == 0)
    session_remove(engine, session);
  else if (session != NULL)
    session->seen_ms = 0;
  pthread_mutex_unlock(&engine->sessions.lock);
  return ESP_OK;
}

enum esp_code esp_session_heartbeat(struct esp_engine *engine, uint64_t id, struct esp_join *ret,
                                    struct esp_status *st) {
  struct esp_join join = {.session = id};
  pthread_mutex_lock(&engine->sessions.lock);
  struct esp_session *session = session_find(engine, id);
  if (session != NULL)
    session->seen_ms = esp_engine_now(engine);
  pthread_mutex_unlock(&engine->sessions.lock);
  if (session == NULL)
    return session_unknown(engine, id, st);
  join_fill(engine, &join);
  *ret = join;
  return ESP_OK;
}

/* How long nothing was heard of the session. Under the lock, before which now_ms may have been read: a session that was
 * heard of in between is not old. */
static uint64_t silent_ms(const struct esp_session *session, uint64_t now_ms) {
  return now_ms > session->seen_ms ? now_ms - session->seen_ms : 0;
}

void esp_sessions_tick(struct esp_engine *engine, uint64_t now_ms) {
  pthread_mutex_lock(&engine->sessions.lock);
  struct esp_map *map = &engine->sessions.map;
  for (size_t i = 0; i < map->capacity;) {
    struct esp_session *session = (struct esp_session *)map->entries[i].value;
    bool old = map->entries[i].key != 0 && session->committed_len == 0 &&
               (session->seen_ms == 0 || silent_ms(session, now_ms) > engine->options.session_retention_ms);
    if (old)
      session_remove(engine, session); /* another entry may have moved to this place */
    else
      i++;
  }
  pthread_mutex_unlock(&engine->sessions.lock);
}

/* Under the lock. */
static bool session_is_live(const struct esp_engine *engine, const struct esp_session *session, uint64_t now_ms) {
  return session->seen_ms != 0 && silent_ms(session, now_ms) <= engine->options.lease_ms;
}

uint64_t esp_sessions_live(struct esp_engine *engine) {
  uint64_t live = 0, now_ms = esp_engine_now(engine);
  pthread_mutex_lock(&engine->sessions.lock);
  const struct esp_map *map = &engine->sessions.map;
  for (size_t i = 0; i < map->capacity; i++) {
    const struct esp_session *session = (const struct esp_session *)map->entries[i].value;
    if (map->entries[i].key != 0 && session_is_live(engine, session, now_ms))
      live++;
  }
  pthread_mutex_unlock(&engine->sessions.lock);
  return live;
}

/* ---- for people ---- */

void esp_session_note_peer(struct esp_engine *engine, uint64_t id, const char *peer) {
  pthread_mutex_lock(&engine->sessions.lock);
  struct esp_session *session = session_find(engine, id);
  if (session != NULL)
    snprintf(session->peer, sizeof(session->peer), "%s", peer);
  pthread_mutex_unlock(&engine->sessions.lock);
}

void esp_session_name(struct esp_engine *engine, uint64_t id, char name[ESP_WORKER_NAME_BYTES_MAX + 1]) {
  name[0] = '\0';
  pthread_mutex_lock(&engine->sessions.lock);
  const struct esp_session *session = session_find(engine, id);
  if (session != NULL)
    snprintf(name, sizeof(session->name), "%s", session->name);
  pthread_mutex_unlock(&engine->sessions.lock);
}

enum esp_code esp_sessions_list(struct esp_engine *engine, uint64_t **ret, size_t *ret_len, struct esp_status *st) {
  const struct esp_map *map = &engine->sessions.map;
  size_t len = 0;
  pthread_mutex_lock(&engine->sessions.lock);
  uint64_t *ids = esp_malloc_array(map->len, sizeof(*ids));
  for (size_t i = 0; i < map->capacity && ids != NULL; i++) {
    if (map->entries[i].key != 0)
      ids[len++] = map->entries[i].key;
  }
  pthread_mutex_unlock(&engine->sessions.lock);
  if (ids == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for the list of sessions");
  *ret = ids;
  *ret_len = len;
  return ESP_OK;
}

/* Under the lock. */
static void session_describe(const struct esp_engine *engine, const struct esp_session *session, uint64_t commit,
                             uint64_t now_ms, struct esp_worker *ret) {
  *ret = (struct esp_worker){.session = session->id,
                             .live = session_is_live(engine, session, now_ms),
                             .last_sequence = session->high,
                             .in_flight = session->in_flight_len,
                             .pushes = session->pushes,
                             .seen_ms = silent_ms(session, now_ms)};
  memcpy(ret->name, session->name, sizeof(ret->name));
  memcpy(ret->peer, session->peer, sizeof(ret->peer));
  /* It may have pushed since the commit number was read. */
  ret->staleness = commit > session->last_commit ? commit - session->last_commit : 0;
}

size_t esp_sessions_describe(struct esp_engine *engine, const uint64_t *ids, size_t len, struct esp_worker *ret) {
  struct esp_join now = {0};
  size_t found = 0;
  join_fill(engine, &now);
  pthread_mutex_lock(&engine->sessions.lock);
  for (size_t i = 0; i < len; i++) {
    const struct esp_session *session = session_find(engine, ids[i]);
    if (session != NULL && session->seen_ms != 0) /* one that has left waits for its last answers only */
      session_describe(engine, session, now.commit, esp_engine_now(engine), &ret[found++]);
  }
  pthread_mutex_unlock(&engine->sessions.lock);
  return found;
}

/* ---- sequences ---- */

static struct esp_sequence *sequence_of(struct esp_session *session, uint64_t sequence) {
  return &session->window[sequence % ESP_IN_FLIGHT_MAX];
}

/* Under the lock. */
static enum esp_code sequence_take(struct esp_session *session, uint64_t in_flight_max, struct esp_push *push,
                                   struct esp_push **ret_superseded, struct esp_status *st) {
  uint64_t sequence = push->header.sequence;
  struct esp_sequence *entry = sequence_of(session, sequence);
  if (entry->sequence > sequence ||
      (session->high >= ESP_IN_FLIGHT_MAX && sequence <= session->high - ESP_IN_FLIGHT_MAX))
    return esp_fail(st, ESP_FAILED_PRECONDITION,
                    "sequence %" PRIu64 " is older than the last %d of its session, which end at %" PRIu64
                    ": whether it was applied is no longer known",
                    sequence, ESP_IN_FLIGHT_MAX, session->high);
  bool same = entry->sequence == sequence;
  bool busy = entry->state == ESP_SEQUENCE_OPEN || entry->state == ESP_SEQUENCE_COMMITTED;
  if (!same && session->in_flight_len >= in_flight_max)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED,
                    "%u pushes of this session are in flight, which is --max-in-flight: sequence %" PRIu64
                    " has to wait for an answer",
                    session->in_flight_len, sequence);
  if (!same && busy)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED,
                    "sequence %" PRIu64 " is still in flight: a later one is at most %d away", entry->sequence,
                    ESP_IN_FLIGHT_MAX - 1);
  if (same && (entry->state == ESP_SEQUENCE_COMMITTED || entry->state == ESP_SEQUENCE_DONE)) {
    push->replay = true;
    push->replay_known = entry->state == ESP_SEQUENCE_DONE;
    push->reply = entry->reply;
    return ESP_OK;
  }
  if (same && entry->state == ESP_SEQUENCE_OPEN) {
    *ret_superseded = entry->push;
    esp_push_ref(entry->push);
  } else {
    session->in_flight_len++;
    entry->earlier = entry->state == ESP_SEQUENCE_DONE ? entry->sequence : 0;
  }
  entry->sequence = sequence;
  entry->state = ESP_SEQUENCE_OPEN;
  entry->push = push;
  return ESP_OK;
}

enum esp_code esp_sequence_open(struct esp_engine *engine, struct esp_push *push, struct esp_push **ret_superseded,
                                struct esp_status *st) {
  *ret_superseded = NULL;
  if (push->header.session == 0)
    return ESP_OK;
  pthread_mutex_lock(&engine->sessions.lock);
  struct esp_session *session = session_find(engine, push->header.session);
  if (session != NULL)
    session->seen_ms = esp_engine_now(engine);
  enum esp_code code = session == NULL
                           ? ESP_FAILED_PRECONDITION
                           : sequence_take(session, engine->options.max_in_flight, push, ret_superseded, st);
  pthread_mutex_unlock(&engine->sessions.lock);
  return session == NULL ? session_unknown(engine, push->header.session, st) : code;
}

/* Under the lock: the entry that the push has open, or NULL. */
static struct esp_sequence *sequence_open_by(struct esp_engine *engine, const struct esp_push *push,
                                             struct esp_session **ret_session) {
  *ret_session = session_find(engine, push->header.session);
  if (*ret_session == NULL)
    return NULL;
  struct esp_sequence *entry = sequence_of(*ret_session, push->header.sequence);
  return entry->state == ESP_SEQUENCE_OPEN && entry->push == push ? entry : NULL;
}

void esp_sequence_drop(struct esp_engine *engine, struct esp_push *push) {
  if (push->header.session == 0)
    return;
  pthread_mutex_lock(&engine->sessions.lock);
  struct esp_session *session;
  struct esp_sequence *entry = sequence_open_by(engine, push, &session);
  if (entry != NULL) {
    bool was_done = entry->earlier != 0; /* forgotten, it would be applied once more */
    *entry = (struct esp_sequence){
        .sequence = entry->earlier, .state = was_done ? ESP_SEQUENCE_DONE : ESP_SEQUENCE_FREE, .reply = entry->reply};
    session->in_flight_len--;
  }
  pthread_mutex_unlock(&engine->sessions.lock);
}

enum esp_code esp_sequence_commit(struct esp_engine *engine, struct esp_push *push, struct esp_status *st) {
  if (push->header.session == 0)
    return ESP_OK;
  pthread_mutex_lock(&engine->sessions.lock);
  struct esp_session *session;
  struct esp_sequence *entry = sequence_open_by(engine, push, &session);
  if (entry != NULL) {
    entry->state = ESP_SEQUENCE_COMMITTED;
    entry->push = NULL;
    entry->earlier = 0;
    session->committed_len++;
    session->pushes++;
    session->seen_ms = esp_engine_now(engine);
    if (session->high < entry->sequence)
      session->high = entry->sequence;
  }
  pthread_mutex_unlock(&engine->sessions.lock);
  if (session == NULL)
    return session_unknown(engine, push->header.session, st);
  if (entry == NULL)
    return esp_fail(st, ESP_ABORTED, "sequence %" PRIu64 " was sent again, and that one took this one's place",
                    push->header.sequence);
  return ESP_OK;
}

struct esp_push *esp_sequence_done(struct esp_engine *engine, struct esp_push *push) {
  if (push->header.session == 0)
    return NULL;
  pthread_mutex_lock(&engine->sessions.lock);
  struct esp_session *session = session_find(engine, push->header.session);
  ESP_CHECK(session != NULL);
  struct esp_sequence *entry = sequence_of(session, push->header.sequence);
  ESP_CHECK(entry->sequence == push->header.sequence && entry->state == ESP_SEQUENCE_COMMITTED);
  struct esp_push *waiters = entry->waiters;
  entry->waiters = NULL;
  entry->state = ESP_SEQUENCE_DONE;
  entry->reply = push->reply;
  if (session->last_commit < push->reply.commit)
    session->last_commit = push->reply.commit;
  session->committed_len--;
  session->in_flight_len--;
  pthread_mutex_unlock(&engine->sessions.lock);
  return waiters;
}

enum esp_code esp_sequence_replay(struct esp_engine *engine, struct esp_push *push, struct esp_status *st) {
  if (push->replay_known)
    return ESP_OK;
  bool found = false;
  pthread_mutex_lock(&engine->sessions.lock);
  struct esp_session *session = session_find(engine, push->header.session);
  struct esp_sequence *entry = session == NULL ? NULL : sequence_of(session, push->header.sequence);
  if (entry != NULL && entry->sequence == push->header.sequence) {
    found = true;
    push->replay_known = entry->state == ESP_SEQUENCE_DONE;
    if (push->replay_known) {
      push->reply = entry->reply;
    } else {
      push->waiter_next = entry->waiters;
      entry->waiters = push;
    }
  }
  pthread_mutex_unlock(&engine->sessions.lock);
  return found ? ESP_OK
               : esp_fail(st, ESP_FAILED_PRECONDITION, "the answer to sequence %" PRIu64 " is no longer kept",
                          push->header.sequence);
}
