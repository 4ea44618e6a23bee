/* A push from its header to its commit. Its bytes are reserved, then it arrives piece by piece, and when it is whole it
 * is handed to the commit; until then it can be ended from elsewhere (a stall, a retry that supersedes it, shutdown).
 * Ending only marks it and tells the owner: the bytes are the owner's until it frees the handle, so nobody pulls memory
 * away from a thread that copies into it.
 *
 *     WAITING --> ARRIVING --> COMMITTED --> answered
 *         \___________\____--> ENDED */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "engine/internal.h"

void esp_push_ref(struct esp_push *push) {
  atomic_fetch_add(&push->refs, 1);
}

void esp_push_unref(struct esp_push *push) {
  if (atomic_fetch_sub(&push->refs, 1) != 1)
    return;
  esp_upload_done(&push->upload);
  esp_layout_unref(push->layout);
  esp_why_done(&push->why);
  pthread_cond_destroy(&push->notified);
  pthread_mutex_destroy(&push->lock);
  esp_free(push);
}

/* ---- telling the owner ---- */

/* Under the lock, which is given up for the callback. Callbacks of one push come one at a time; one that leads to
 * another in the same thread nests. */
static void push_notify(struct esp_push *push, enum esp_push_event event, enum esp_code code,
                        const struct esp_status *st, const struct esp_push_reply *reply) {
  while (push->notifying && !pthread_equal(push->notifier, pthread_self()))
    pthread_cond_wait(&push->notified, &push->lock);
  if (push->freed && push->state != ESP_PUSH_COMMITTED)
    return;
  bool nested = push->notifying;
  push->notifying = true;
  push->notifier = pthread_self();
  pthread_mutex_unlock(&push->lock);
  push->callback(push->data, event, code, st, reply);
  pthread_mutex_lock(&push->lock);
  push->notifying = nested;
  pthread_cond_broadcast(&push->notified);
}

void esp_push_end(struct esp_push *push, enum esp_code code, const struct esp_status *st) {
  pthread_mutex_lock(&push->lock);
  if (!push->freed && (push->state == ESP_PUSH_WAITING || push->state == ESP_PUSH_ARRIVING)) {
    push->state = ESP_PUSH_ENDED;
    (void)esp_why_keep(&push->why, code, st);
    atomic_fetch_add(&push->engine->pushes_refused, 1);
    push_notify(push, ESP_PUSH_DONE, code, st, NULL);
  }
  pthread_mutex_unlock(&push->lock);
}

/* ---- the list of arriving pushes, for the stall time-out ---- */

static void list_add(struct esp_push *push) {
  struct esp_engine *engine = push->engine;
  pthread_mutex_lock(&engine->list_lock);
  push->listed = true;
  push->list_next = engine->arriving;
  if (engine->arriving != NULL)
    engine->arriving->list_before = push;
  engine->arriving = push;
  pthread_mutex_unlock(&engine->list_lock);
}

static void list_remove(struct esp_push *push) {
  struct esp_engine *engine = push->engine;
  pthread_mutex_lock(&engine->list_lock);
  if (push->listed) {
    if (push->list_before != NULL)
      push->list_before->list_next = push->list_next;
    else
      engine->arriving = push->list_next;
    if (push->list_next != NULL)
      push->list_next->list_before = push->list_before;
    push->listed = false;
  }
  pthread_mutex_unlock(&engine->list_lock);
}

/* The first that has stalled, ref'd, or NULL. */
static struct esp_push *list_stalled(struct esp_engine *engine, uint64_t now_ms) {
  pthread_mutex_lock(&engine->list_lock);
  struct esp_push *push = engine->arriving;
  for (; push != NULL; push = push->list_next) {
    uint64_t since_ms = atomic_load(&push->progress_ms);
    if (now_ms > since_ms && now_ms - since_ms >= engine->options.stall_timeout_ms)
      break;
  }
  if (push != NULL)
    esp_push_ref(push);
  pthread_mutex_unlock(&engine->list_lock);
  return push;
}

void esp_pushes_tick(struct esp_engine *engine, uint64_t now_ms) {
  struct esp_push *push;
  while ((push = list_stalled(engine, now_ms)) != NULL) {
    struct esp_status st;
    uint64_t bytes, total;
    esp_push_progress(push, &bytes, &total);
    enum esp_code code =
        esp_fail(&st, ESP_DEADLINE_EXCEEDED,
                 "nothing came for %" PRIu64 " ms (--stall-timeout) after %" PRIu64 " of %" PRIu64 " bytes",
                 engine->options.stall_timeout_ms, bytes, total);
    list_remove(push);
    esp_push_end(push, code, &st);
    esp_push_unref(push);
  }
}

/* ---- beginning ---- */

/* Counts a push among those in flight, of which there is a bound. */
static enum esp_code push_enter(struct esp_push *push, struct esp_status *st) {
  struct esp_engine *engine = push->engine;
  uint64_t before = atomic_fetch_add(&engine->pushes_in_flight, 1);
  atomic_store(&push->counted, true);
  if (engine->options.max_pushes == 0 || before < engine->options.max_pushes)
    return ESP_OK;
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED,
                  "%" PRIu64 " pushes of all sessions are in flight, which is --max-pushes: try again when one has "
                  "been answered",
                  engine->options.max_pushes);
}

/* Idempotent. */
static void push_leave(struct esp_push *push) {
  if (atomic_exchange(&push->counted, false))
    atomic_fetch_sub(&push->engine->pushes_in_flight, 1);
}

/* Gives back what an uncommitted push holds. Idempotent. */
static void push_drop(struct esp_push *push) {
  push_leave(push);
  esp_sequence_drop(push->engine, push);
  list_remove(push);
  if (esp_budget_release(&push->engine->staging, &push->reservation))
    esp_push_unref(push); /* the reservation's: it will not be answered */
}

static void push_ready(struct esp_push *push) {
  pthread_mutex_lock(&push->lock);
  if (push->state == ESP_PUSH_WAITING && !push->freed) {
    push->state = ESP_PUSH_ARRIVING;
    push_notify(push, ESP_PUSH_READY, ESP_OK, NULL, NULL);
  }
  pthread_mutex_unlock(&push->lock);
}

/* The reservation was granted: the memory is taken now, and reading begins. */
static void push_granted(struct esp_push *push) {
  struct esp_engine *engine = push->engine;
  struct esp_status st;
  enum esp_code code = esp_upload_init(&push->upload, &engine->staging, push->header.total_bytes,
                                       push->header.leaf_count, engine->options.isa, &st);
  if (code != ESP_OK) {
    esp_push_end(push, code, &st);
    return;
  }
  atomic_store(&push->progress_ms, esp_engine_now(engine));
  list_add(push);
  pthread_mutex_lock(&push->lock);
  bool freed = push->freed;
  pthread_mutex_unlock(&push->lock);
  if (freed)
    push_drop(push); /* the handle went while the answer was coming */
  else
    push_ready(push);
}

static void reservation_answered(struct esp_reservation *reservation, enum esp_code code, const struct esp_status *st) {
  struct esp_push *push = (struct esp_push *)((char *)reservation - offsetof(struct esp_push, reservation));
  if (code != ESP_OK)
    esp_push_end(push, code, st);
  else
    push_granted(push);
  esp_push_unref(push); /* the reservation's */
}

/* What the tree can't hold is refused before anything is reserved for it. */
static enum esp_code header_check(const struct esp_engine *engine, const struct esp_layout *layout,
                                  const struct esp_push_header *header, bool is_declare, struct esp_status *st) {
  if (engine->draining)
    return esp_fail(st, ESP_UNAVAILABLE, "the server is shutting down");
  if (header->lineage != 0 && header->lineage != engine->lineage)
    return esp_fail(st, ESP_ABORTED,
                    "this push is for lineage %016" PRIx64 ", but the server has lineage %016" PRIx64
                    ": it started anew and lost what was committed",
                    header->lineage, engine->lineage);
  /* Leaves that were removed may still be named by those who have not heard of it. */
  if (!is_declare && header->leaf_count > layout->leaves_len + layout->gone_len)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%" PRIu64 " leaves are declared, but the tree has %zu",
                    header->leaf_count, layout->leaves_len);
  if (!is_declare && header->total_bytes > layout->leaf_bytes + layout->gone_bytes)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%" PRIu64 " bytes are declared, but all leaves together have %" PRIu64,
                    header->total_bytes, layout->leaf_bytes);
  if ((header->leaf_count == 0) != (header->total_bytes == 0))
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%" PRIu64 " bytes in %" PRIu64 " leaves are declared",
                    header->total_bytes, header->leaf_count);
  return ESP_OK;
}

static enum esp_code sequence_check(const struct esp_push_header *header, struct esp_status *st) {
  if (header->session != 0 && header->sequence == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a push of a session needs a sequence, from 1");
  if (header->session == 0 && header->sequence != 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a sequence needs a session");
  return ESP_OK;
}

static struct esp_push *push_alloc(struct esp_engine *engine, const struct esp_push_header *header,
                                   esp_push_callback callback, void *data) {
  struct esp_push *push = esp_calloc(1, sizeof(*push));
  if (push == NULL)
    return NULL;
  push->refs = 1;
  push->engine = engine;
  push->header = *header;
  push->callback = callback;
  push->data = data;
  push->reservation.answered = reservation_answered;
  push->layout = esp_engine_layout(engine, NULL);
  pthread_mutex_init(&push->lock, NULL);
  pthread_cond_init(&push->notified, NULL);
  return push;
}

/* Takes the sequence and ends the original that this one supersedes. */
static enum esp_code push_open(struct esp_push *push, struct esp_status *st) {
  struct esp_push *superseded;
  enum esp_code code = esp_sequence_open(push->engine, push, &superseded, st);
  if (code == ESP_OK && superseded != NULL) {
    struct esp_status why;
    enum esp_code aborted =
        esp_fail(&why, ESP_ABORTED, "sequence %" PRIu64 " was sent again, and that one took this one's place",
                 push->header.sequence);
    esp_push_end(superseded, aborted, &why);
    esp_push_unref(superseded);
  }
  return code;
}

enum esp_code esp_push_begin(struct esp_engine *engine, const struct esp_push_header *header,
                             esp_push_callback callback, void *data, bool is_stage, bool is_declare,
                             struct esp_push **ret, struct esp_status *st) {
  struct esp_push *push = push_alloc(engine, header, callback, data);
  if (push == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a push");
  push->is_stage = is_stage;
  push->is_declare = is_declare;
  bool is_push = !is_stage && !is_declare, granted = false;
  uint64_t now_ms = esp_engine_now(engine);
  enum esp_code code = header_check(engine, push->layout, header, is_declare, st);
  if (code == ESP_OK && is_push)
    code = sequence_check(header, st);
  if (code == ESP_OK && is_push)
    code = esp_plan_admit(engine, st);
  if (code == ESP_OK && is_push)
    code = push_enter(push, st);
  if (code == ESP_OK && is_push)
    code = push_open(push, st);
  esp_push_ref(push); /* the reservation's while it waits, and this function's */
  if (code == ESP_OK && !push->replay)
    code = esp_budget_request(&engine->staging, &push->reservation,
                              esp_upload_cost(header->total_bytes, header->leaf_count), now_ms,
                              esp_wait_deadline(engine, now_ms, header->wait_ms), &granted, st);
  if (code != ESP_OK) {
    push_leave(push);
    esp_sequence_drop(engine, push);
    esp_push_unref(push);
    esp_push_unref(push);
    atomic_fetch_add(&engine->pushes_refused, 1);
    return code;
  }
  *ret = push;
  if (!push->replay && !granted)
    return ESP_OK;
  if (push->replay)
    push_ready(push);
  else
    push_granted(push);
  esp_push_unref(push);
  return ESP_OK;
}

enum esp_code esp_push_new(struct esp_engine *engine, const struct esp_push_header *header, esp_push_callback callback,
                           void *data, struct esp_push **ret, struct esp_status *st) {
  return esp_push_begin(engine, header, callback, data, false, false, ret, st);
}

/* ---- arriving ---- */

/* The leaf that a piece names, in the layout that the push knows or, where it is not there, in that of now. */
static const struct esp_leaf *piece_leaf(struct esp_push *push, const struct esp_piece *piece) {
  for (int fresh = 0;; fresh++) {
    const struct esp_leaf *leaf = piece->leaf_id != 0
                                      ? esp_layout_leaf_by_id(push->layout, piece->leaf_id)
                                      : esp_layout_leaf_by_path(push->layout, piece->path, piece->path_len);
    if (leaf != NULL || fresh > 0)
      return leaf;
    esp_layout_unref(push->layout);
    push->layout = esp_engine_layout(push->engine, NULL);
  }
}

static enum esp_code leaf_missing(const struct esp_push *push, const struct esp_piece *piece, struct esp_status *st) {
  if (piece->leaf_id != 0)
    return esp_fail(st, ESP_NOT_FOUND, "no leaf has the id %" PRIu64, piece->leaf_id);
  if (piece->path_len == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a chunk names no leaf: it needs leaf_id or path");
  return esp_leaf_unknown(push->layout, piece->path, piece->path_len, st);
}

/* A gradient for a leaf that was removed is taken, and counted at the commit. */
static bool gone_target(const struct esp_push *push, const struct esp_piece *piece, struct esp_upload_target *ret) {
  const struct esp_leaf_gone *gone =
      piece->leaf_id == 0 || push->is_stage ? NULL : esp_layout_gone_by_id(push->layout, piece->leaf_id);
  if (gone == NULL)
    return false;
  *ret = (struct esp_upload_target){
      .key = gone->id, .path = "that was removed", .dtype = gone->dtype, .bytes = gone->bytes, .may_be_narrow = true};
  return true;
}

/* shape: memory for the leaf's own, to which the target points. */
static enum esp_code push_target(struct esp_push *push, const struct esp_piece *piece, struct esp_shape *shape,
                                 struct esp_upload_target *ret, struct esp_status *st) {
  const struct esp_leaf *leaf = piece_leaf(push, piece);
  if (leaf == NULL)
    return gone_target(push, piece, ret) ? ESP_OK : leaf_missing(push, piece, st);
  if (leaf->kind == ESP_KIND_BUFFER && !push->is_stage)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s is a buffer: it takes no gradient", leaf->path);
  const struct esp_place *place = esp_layout_place(push->layout, leaf);
  *shape = esp_layout_shape(push->layout, leaf);
  *ret = (struct esp_upload_target){.key = leaf->id,
                                    .path = leaf->path,
                                    .dtype = place->dtype,
                                    .shape = shape,
                                    .bytes = esp_place_param(place)->bytes,
                                    .may_be_narrow = !push->is_stage};
  return ESP_OK;
}

/* A replay's bytes are only counted: its answer is there already. */
static enum esp_code push_count(struct esp_push *push, const struct esp_piece *piece, struct esp_status *st) {
  if (piece->data.left > push->header.total_bytes - push->arrived)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "more than the %" PRIu64 " bytes that the header declares",
                    push->header.total_bytes);
  push->arrived += piece->data.left;
  return ESP_OK;
}

static enum esp_code push_take(struct esp_push *push, const struct esp_upload_target *target,
                               const struct esp_piece *piece, struct esp_status *st) {
  struct esp_upload_target own = {0};
  struct esp_shape shape;
  enum esp_code code = ESP_OK;
  if (push->replay)
    return push_count(push, piece, st);
  if (target == NULL) {
    code = push_target(push, piece, &shape, &own, st);
    target = &own;
  }
  uint64_t bytes_max = push->engine->options.max_chunk;
  if (code == ESP_OK && bytes_max != 0 && piece->data.left > bytes_max)
    code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "leaf %s: a chunk has %" PRIu64 " bytes, --max-chunk allows %" PRIu64,
                    target->path, piece->data.left, bytes_max);
  if (code == ESP_OK)
    code = esp_upload_feed(&push->upload, target, piece, st);
  if (code == ESP_OK)
    push->arrived += piece->data.left;
  return code;
}

enum esp_code esp_push_feed_target(struct esp_push *push, const struct esp_upload_target *target,
                                   const struct esp_piece *piece, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  pthread_mutex_lock(&push->lock);
  ESP_CHECK(push->state == ESP_PUSH_ARRIVING || push->state == ESP_PUSH_ENDED);
  if (push->state == ESP_PUSH_ENDED)
    code = esp_why_tell(&push->why, st);
  pthread_mutex_unlock(&push->lock);
  if (code != ESP_OK)
    return code;
  atomic_store(&push->progress_ms, esp_engine_now(push->engine));
  atomic_fetch_add(&push->engine->bytes_pushed, piece->data.left);
  code = push_take(push, target, piece, st);
  if (code == ESP_OK)
    return ESP_OK;
  pthread_mutex_lock(&push->lock);
  if (push->state == ESP_PUSH_ARRIVING) {
    push->state = ESP_PUSH_ENDED; /* its owner knows: no DONE */
    struct esp_status had;
    (void)esp_why_keep(&push->why, esp_fail(&had, code, "the push had failed"), &had);
    atomic_fetch_add(&push->engine->pushes_refused, 1);
  }
  pthread_mutex_unlock(&push->lock);
  return code;
}

enum esp_code esp_push_feed(struct esp_push *push, const struct esp_piece *piece, struct esp_status *st) {
  return esp_push_feed_target(push, NULL, piece, st);
}

bool esp_push_is_whole(const struct esp_push *push) {
  return push->replay ? push->arrived == push->header.total_bytes : esp_upload_is_whole(&push->upload);
}

void esp_push_progress(const struct esp_push *push, uint64_t *ret_bytes, uint64_t *ret_total) {
  *ret_bytes = push->arrived;
  *ret_total = push->header.total_bytes;
}

/* ---- the end ---- */

static void push_replay(struct esp_push *push) {
  struct esp_status st;
  esp_push_ref(push);
  enum esp_code code = esp_sequence_replay(push->engine, push, &st);
  if (code != ESP_OK || push->replay_known)
    esp_push_answer(push, code, &st);
  /* else esp_push_answer comes with the original's, and has the reference */
}

bool esp_push_hand_over(struct esp_push *push) {
  ESP_CHECK(esp_push_is_whole(push) && !push->is_stage && !push->is_declare);
  list_remove(push);
  pthread_mutex_lock(&push->lock);
  bool ended = push->state == ESP_PUSH_ENDED;
  if (!ended)
    push->state = ESP_PUSH_COMMITTED;
  pthread_mutex_unlock(&push->lock);
  return !ended;
}

void esp_push_commit(struct esp_push *push) {
  if (!esp_push_hand_over(push))
    return; /* DONE has come, or comes */
  if (push->replay)
    push_replay(push);
  else
    esp_commit_pushes(push->engine, &push, 1);
}

void esp_push_answer(struct esp_push *push, enum esp_code code, const struct esp_status *st) {
  if (push->replay)
    push->reply.replayed = true;
  else
    atomic_fetch_add(code == ESP_OK ? &push->engine->pushes_applied : &push->engine->pushes_refused, 1);
  esp_upload_done(&push->upload);
  (void)esp_budget_release(&push->engine->staging, &push->reservation);
  push_leave(push);
  pthread_mutex_lock(&push->lock);
  push_notify(push, ESP_PUSH_DONE, code, st, code == ESP_OK ? &push->reply : NULL);
  pthread_mutex_unlock(&push->lock);
  esp_push_unref(push);
}

void esp_push_free(struct esp_push *push) {
  if (push == NULL)
    return;
  pthread_mutex_lock(&push->lock);
  push->freed = true;
  bool committed = push->state == ESP_PUSH_COMMITTED;
  while (!committed && push->notifying && !pthread_equal(push->notifier, pthread_self()))
    pthread_cond_wait(&push->notified, &push->lock);
  pthread_mutex_unlock(&push->lock);
  if (!committed)
    push_drop(push);
  esp_push_unref(push);
}

enum esp_code esp_push_set_aside(struct esp_push *push, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  list_remove(push);
  pthread_mutex_lock(&push->lock);
  if (push->state == ESP_PUSH_ENDED)
    code = esp_why_tell(&push->why, st);
  else
    push->state = ESP_PUSH_ENDED; /* nobody is told anything of it any more */
  pthread_mutex_unlock(&push->lock);
  return code;
}
