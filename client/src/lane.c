/* A lane: handles on one stream, one behind the other.
 *
 * The happy path: the thread takes a stream, sends the first handle's messages, then the next one's, and takes the
 * answers as they come, which is in the same order. What is answered, and whose memory is back, has ended. When nothing
 * is left the stream is given back, and the thread waits.
 *
 * How it fails: the server ends a stream with the first request that fails, after the answers before it. So the failure
 * is that of the first handle without an answer; it ends, or is tried again, as with the blocking calls (exchange.c).
 * Those behind it, which the server has not looked at, are sent again on another stream, in their order and under the
 * same sequences, and so is everything after a cut. A handle that is cancelled, or whose deadline passes, costs the
 * others their stream likewise.
 *
 * Deadlines are in the order of the handles: the first has the earliest. */
#include "client/src/lane.h"

#include "base/alloc.h"
#include "base/check.h"
#include "base/env.h"

static bool is_answered(const struct esp_handle *handle) {
  return esp_exchange_is_answered(&handle->ex);
}

/* ---- the list, with the mutex held ---- */

static void take_out(struct esp_handle *handle) {
  struct esp_lane *lane = handle->lane;
  struct esp_handle *before = NULL;
  for (struct esp_handle *at = lane->first; at != handle; at = at->next)
    before = at;
  if (before == NULL)
    lane->first = handle->next;
  else
    before->next = handle->next;
  if (lane->last == handle)
    lane->last = before;
  lane->sent_len -= handle->state == ESP_HANDLE_SENT;
  handle->state = ESP_HANDLE_ENDING;
  handle->next = NULL;
}

/* Puts a handle back that was taken out to be looked at. */
static void put_first(struct esp_lane *lane, struct esp_handle *handle) {
  handle->state = ESP_HANDLE_WAITING;
  handle->next = lane->first;
  lane->first = handle;
  if (lane->last == NULL)
    lane->last = handle;
}

static void put_last(struct esp_lane *lane, struct esp_handle *handle) {
  if (lane->last == NULL)
    lane->first = handle;
  else
    lane->last->next = handle;
  lane->last = handle;
}

static struct esp_handle *first_waiting(const struct esp_lane *lane) {
  struct esp_handle *at = lane->first;
  while (at != NULL && at->state == ESP_HANDLE_SENT)
    at = at->next;
  return at;
}

/* The last of those that were sent, which may have been sent by half. */
static struct esp_handle *last_sent(const struct esp_lane *lane) {
  struct esp_handle *last = NULL;
  for (struct esp_handle *at = lane->first; at != NULL && at->state == ESP_HANDLE_SENT; at = at->next)
    last = at;
  return last;
}

/* The first that waits for an answer. */
static struct esp_handle *first_unanswered(const struct esp_lane *lane) {
  struct esp_handle *at = lane->first;
  while (at != NULL && at->state == ESP_HANDLE_SENT && is_answered(at))
    at = at->next;
  return at != NULL && at->state == ESP_HANDLE_SENT ? at : NULL;
}

/* ---- sending ---- */

static bool needs_sequence(const struct esp_handle *handle) {
  return handle->ex.pushes && handle->ex.push.session.sequence == 0;
}

/* Takes a sequence for the push that is to be sent next, where that is so. Only a lane that has nothing else to do
 * waits for one. */
static enum esp_code reserve(struct esp_lane *lane, struct esp_status *st) {
  struct esp_client *client = lane->client;
  pthread_mutex_lock(&client->mutex);
  struct esp_handle *next = first_waiting(lane);
  bool needed = next != NULL && needs_sequence(next) && lane->reserved.sequence == 0;
  uint64_t deadline_ms = next == NULL ? 0 : next->ex.retry.deadline_ms;
  bool idle = lane->sent_len == 0;
  pthread_mutex_unlock(&client->mutex);
  if (!needed || esp_session_push_try(client, &lane->reserved) || !idle)
    return ESP_OK;
  return esp_session_push_begin(client, deadline_ms, &lane->reserved, st);
}

static unsigned in_flight_max(const struct esp_client *client) {
  return client->options.in_flight_max == 0 ? ESP_OPEN_MAX : client->options.in_flight_max;
}

/* The first waiting handle becomes a SENT one, where it may; NULL otherwise. */
static struct esp_handle *claim(struct esp_lane *lane) {
  struct esp_client *client = lane->client;
  pthread_mutex_lock(&client->mutex);
  struct esp_handle *next = first_waiting(lane);
  if (next != NULL &&
      (lane->sent_len == in_flight_max(client) || (needs_sequence(next) && lane->reserved.sequence == 0)))
    next = NULL;
  if (next != NULL) {
    next->state = ESP_HANDLE_SENT;
    lane->sent_len++;
  }
  pthread_mutex_unlock(&client->mutex);
  if (next != NULL && needs_sequence(next)) {
    next->ex.push.session = lane->reserved;
    lane->reserved = (struct esp_session){0};
  }
  return next;
}

static void end(struct esp_handle *handle, enum esp_code code) {
  pthread_mutex_lock(&handle->ex.client->mutex);
  take_out(handle);
  pthread_mutex_unlock(&handle->ex.client->mutex);
  esp_handle_end(handle, code);
}

/* Sends a message of the handle whose turn it is; *ret_sent says whether there was one. */
static enum esp_code send_next(struct esp_lane *lane, struct esp_call *call, bool *ret_sent, struct esp_status *st) {
  pthread_mutex_lock(&lane->client->mutex);
  struct esp_handle *handle = last_sent(lane);
  pthread_mutex_unlock(&lane->client->mutex);
  *ret_sent = false;
  if (handle == NULL || esp_exchange_is_sent(&handle->ex)) {
    enum esp_code code = reserve(lane, st);
    if (code != ESP_OK)
      return code;
    handle = claim(lane);
    if (handle == NULL)
      return ESP_OK;
    code = esp_exchange_start(&handle->ex, &handle->st);
    if (code != ESP_OK) {
      end(handle, code); /* its leaves are of another lineage: nothing was sent, the others go on */
      *ret_sent = true;
      return ESP_OK;
    }
  }
  *ret_sent = true;
  return esp_exchange_send(&handle->ex, call, st);
}

/* ---- a stream's life ---- */

/* What the thread looks at in each turn. */
struct view {
  bool empty;                    /* there are no handles */
  bool cancelling;               /* a sent one is to end */
  struct esp_handle *answered;   /* the first one, where it is */
  struct esp_handle *unanswered; /* the first that waits for its answer */
  uint64_t deadline_ms;          /* of the first one */
};

static struct view look(struct esp_lane *lane) {
  pthread_mutex_lock(&lane->client->mutex);
  struct esp_handle *first = lane->first;
  bool answered = first != NULL && first->state == ESP_HANDLE_SENT && is_answered(first);
  struct view view = {.empty = first == NULL,
                      .cancelling = lane->cancelling,
                      .answered = answered ? first : NULL,
                      .unanswered = first_unanswered(lane),
                      .deadline_ms = first == NULL ? 0 : first->ex.retry.deadline_ms};
  pthread_mutex_unlock(&lane->client->mutex);
  return view;
}

/* Sends and receives until nothing is left, or something fails. */
static enum esp_code pump(struct esp_lane *lane, struct esp_call *call, struct esp_status *st) {
  for (;;) {
    struct view view = look(lane);
    bool busy = false;
    enum esp_code code = ESP_OK;
    if (view.empty)
      return ESP_OK;
    if (view.cancelling)
      return esp_fail(st, ESP_CANCELLED, "another operation was cancelled");
    bool late = esp_left_ms(view.deadline_ms) == 0;
    if (view.answered != NULL && esp_loans_are_back(&view.answered->ex.loans)) {
      end(view.answered, ESP_OK);
      lane->failures = 0;
      continue;
    }
    if (view.unanswered != NULL && esp_call_may_recv(call)) {
      code = esp_exchange_receive(&view.unanswered->ex, call, st);
      busy = true;
    } else if (esp_call_may_send(call)) {
      code = send_next(lane, call, &busy, st);
    }
    if (code == ESP_OK && !busy && late)
      code = view.answered == NULL ? esp_call_give_up(call, st)
                                   : esp_fail(st, ESP_CANCELLED, "memory did not come back before the deadline");
    if (code != ESP_OK)
      return code;
    if (!busy) /* memory comes back without a word */
      esp_call_step(call, view.answered != NULL ? esp_now_ms() + 1 : view.deadline_ms);
  }
}

static void set_stream(struct esp_lane *lane, struct esp_stream *stream) {
  pthread_mutex_lock(&lane->client->mutex);
  lane->stream = stream;
  lane->cancelling = lane->cancelling && stream == NULL;
  pthread_mutex_unlock(&lane->client->mutex);
}

/* Carries out what there is on one stream. */
static enum esp_code carry_out(struct esp_lane *lane, struct esp_status *st) {
  struct esp_client *client = lane->client;
  struct view view = look(lane);
  struct esp_stream *stream;
  if (view.empty)
    return ESP_OK;
  enum esp_code code = esp_stream_take(client, view.deadline_ms, &stream, st);
  if (code != ESP_OK)
    return code;
  set_stream(lane, stream);
  code = pump(lane, stream->call, st);
  set_stream(lane, NULL);
  if (code == ESP_OK)
    esp_stream_give(client, stream);
  else
    esp_stream_drop(client, stream);
  if (lane->reserved.sequence != 0)
    esp_session_push_end(client, &lane->reserved);
  lane->reserved = (struct esp_session){0};
  return code;
}

/* ---- after a failure: nothing is lent any more ---- */

static void end_cancelled(struct esp_handle *handle) {
  const char *push = handle->ex.push.sends > 0 ? "; its push may or may not have been applied" : "";
  esp_handle_end(handle, esp_fail(&handle->st, ESP_CANCELLED, "the operation was cancelled%s", push));
}

/* Takes all that were sent out of the lane, in their order; where none was, the first one. */
static struct esp_handle *take_sent(struct esp_lane *lane) {
  struct esp_handle *list = NULL, **end_of_list = &list;
  pthread_mutex_lock(&lane->client->mutex);
  lane->cancelling = false;
  size_t len = lane->sent_len > 0 ? lane->sent_len : lane->first != NULL;
  for (; len > 0; len--) {
    struct esp_handle *handle = lane->first;
    take_out(handle);
    *end_of_list = handle;
    end_of_list = &handle->next;
  }
  pthread_mutex_unlock(&lane->client->mutex);
  return list;
}

static void put_back(struct esp_handle *handle) {
  struct esp_lane *lane = handle->lane;
  pthread_mutex_lock(&lane->client->mutex);
  bool cancelled = handle->cancelled || lane->client->refusing;
  if (!cancelled)
    put_first(lane, handle);
  pthread_mutex_unlock(&lane->client->mutex);
  if (cancelled)
    end_cancelled(handle);
}

/* Whether a failure that is this handle's is not the end of it; *code becomes what the failure came to. */
static bool outlives(struct esp_handle *handle, enum esp_code *code, const struct esp_status *st) {
  struct esp_retry *retry = &handle->ex.retry;
  handle->st = *st;
  enum esp_code after = esp_exchange_recover(&handle->ex, *code, &handle->st);
  if (after == ESP_OK)
    return esp_left_ms(retry->deadline_ms) > 0;
  *code = after;
  uint64_t wait_ms; /* of a call of its own; the lane has another measure */
  return esp_retry_next(retry, after, esp_now_ms(), 0, &wait_ms);
}

/* What becomes of a handle behind the one that failed: it is to be sent again, but for one whose attempts are used up.
 */
static void settle_behind(struct esp_handle *handle, enum esp_code code, const struct esp_status *st) {
  bool keep = true;
  if (code == ESP_UNAVAILABLE)
    keep = outlives(handle, &code, st);
  else if (code != ESP_DEADLINE_EXCEEDED && code != ESP_CANCELLED && handle->ex.push.head_sent && !handle->ex.push.done)
    handle->ex.push.sends--; /* the server has looked at nothing behind what it refused */
  if (keep)
    put_back(handle);
  else
    esp_handle_end(handle, code);
}

/* Decides on all that were sent. Those behind the one that failed come first, since that one may take a while. Returns
 * what the failure came to. */
static enum esp_code settle(struct esp_lane *lane, enum esp_code code, const struct esp_status *st) {
  struct esp_handle *failed = take_sent(lane), *behind = NULL, *next;
  for (; failed != NULL && is_answered(failed); failed = next) {
    next = failed->next;
    esp_handle_end(failed, ESP_OK);
    lane->failures = 0;
  }
  for (struct esp_handle *at = failed == NULL ? NULL : failed->next; at != NULL; at = next) {
    next = at->next; /* reversed, since they are put back in front */
    at->next = behind;
    behind = at;
  }
  for (; behind != NULL; behind = next) {
    next = behind->next;
    settle_behind(behind, code, st);
  }
  if (failed == NULL)
    return code;
  if (code == ESP_CANCELLED || outlives(failed, &code, st))
    put_back(failed);
  else
    esp_handle_end(failed, code);
  return code;
}

/* ---- the thread ---- */

/* Waits before the next attempt, the longer the more have failed, unless there is nothing left to be tried again. */
static void back_off(struct esp_lane *lane) {
  struct esp_client *client = lane->client;
  const struct esp_env *env = esp_env_system();
  uint64_t until_ms = esp_now_ms() + esp_backoff_ms(client->options.backoff_ms, client->options.backoff_ms_max,
                                                    lane->failures++, env->random_u64(env->data));
  pthread_mutex_lock(&client->mutex);
  while (lane->first != NULL && !atomic_load(&client->closing) && esp_left_ms(until_ms) > 0)
    esp_cond_wait(&lane->work, &client->mutex, until_ms);
  pthread_mutex_unlock(&client->mutex);
}

static void *run(void *data) {
  struct esp_lane *lane = data;
  struct esp_client *client = lane->client;
  pthread_mutex_lock(&client->mutex);
  for (;;) {
    while (lane->first == NULL && !atomic_load(&client->closing))
      pthread_cond_wait(&lane->work, &client->mutex);
    if (lane->first == NULL)
      break;
    pthread_mutex_unlock(&client->mutex);
    struct esp_status st;
    enum esp_code code = carry_out(lane, &st);
    if (code != ESP_OK)
      code = settle(lane, code, &st);
    if (esp_code_is_transient(code))
      back_off(lane);
    pthread_mutex_lock(&client->mutex);
  }
  pthread_mutex_unlock(&client->mutex);
  return NULL;
}

/* ---- for others ---- */

/* With the mutex held. */
static enum esp_code prepare(struct esp_client *client, struct esp_handle *handle, struct esp_status *st) {
  if (client->refusing)
    return esp_fail(st, ESP_CANCELLED, "the client is being closed");
  unsigned channels = esp_client_channels(client);
  ESP_CHECK(channels > 0);
  if (client->lanes == NULL) {
    client->lanes = esp_calloc(channels, sizeof *client->lanes);
    for (unsigned i = 0; client->lanes != NULL && i < channels; i++) {
      client->lanes[i].client = client;
      esp_cond_init(&client->lanes[i].work);
    }
  }
  if (client->lanes == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for handles");
  handle->lane = &client->lanes[client->lane_next++ % channels];
  if (!handle->lane->started)
    handle->lane->started = pthread_create(&handle->lane->thread, NULL, run, handle->lane) == 0;
  if (handle->callback != NULL && !client->caller_started)
    client->caller_started = pthread_create(&client->caller, NULL, esp_handle_caller, client) == 0;
  if (!handle->lane->started || (handle->callback != NULL && !client->caller_started))
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no thread to be had for handles");
  return ESP_OK;
}

enum esp_code esp_lanes_give(struct esp_client *client, struct esp_handle *handle, struct esp_handle **ret,
                             struct esp_status *st) {
  pthread_mutex_lock(&client->mutex);
  enum esp_code code = prepare(client, handle, st);
  if (code == ESP_OK) {
    struct esp_lane *lane = handle->lane;
    *ret = handle;
    client->handles_len++;
    put_last(lane, handle);
    pthread_cond_signal(&lane->work);
    if (lane->stream != NULL)
      esp_call_wake(lane->stream->call);
  }
  pthread_mutex_unlock(&client->mutex);
  return code;
}

/* With the mutex held. True where the handle is out of its lane, and the caller is to end it. */
static bool cancel(struct esp_handle *handle) {
  struct esp_lane *lane = handle->lane;
  if (handle->state == ESP_HANDLE_WAITING) {
    take_out(handle);
    pthread_cond_signal(&lane->work); /* there may be nothing left to wait for */
    return true;
  }
  handle->cancelled = true;
  lane->cancelling = lane->cancelling || handle->state == ESP_HANDLE_SENT;
  if (handle->state == ESP_HANDLE_SENT && lane->stream != NULL)
    esp_call_wake(lane->stream->call);
  return false;
}

void esp_lane_cancel(struct esp_handle *handle) {
  struct esp_client *client = handle->ex.client;
  pthread_mutex_lock(&client->mutex);
  bool mine = !atomic_load_explicit(&handle->done, memory_order_relaxed) && cancel(handle);
  pthread_mutex_unlock(&client->mutex);
  if (mine)
    end_cancelled(handle);
}

/* Cancels what is in a lane: the sent ones, then one of those that wait, until there is none. */
static void cancel_all(struct esp_client *client, struct esp_lane *lane) {
  for (;;) {
    struct esp_handle *mine = NULL;
    pthread_mutex_lock(&client->mutex);
    for (struct esp_handle *at = lane->first, *next; at != NULL && mine == NULL; at = next) {
      next = at->next;
      mine = cancel(at) ? at : NULL;
    }
    pthread_mutex_unlock(&client->mutex);
    if (mine == NULL)
      return;
    end_cancelled(mine);
  }
}

void esp_lanes_cancel(struct esp_client *client, uint64_t deadline_ms) {
  pthread_mutex_lock(&client->mutex);
  client->refusing = true;
  pthread_mutex_unlock(&client->mutex);
  for (unsigned i = 0; client->lanes != NULL && i < esp_client_channels(client); i++)
    cancel_all(client, &client->lanes[i]);
  pthread_mutex_lock(&client->mutex);
  while (client->handles_len > 0 && esp_cond_wait(&client->ended, &client->mutex, deadline_ms)) {
  }
  pthread_mutex_unlock(&client->mutex);
}

void esp_lanes_join(struct esp_client *client) {
  for (unsigned i = 0; client->lanes != NULL && i < esp_client_channels(client); i++) {
    struct esp_lane *lane = &client->lanes[i];
    pthread_mutex_lock(&client->mutex);
    pthread_cond_signal(&lane->work);
    pthread_mutex_unlock(&client->mutex);
    if (lane->started)
      pthread_join(lane->thread, NULL);
    pthread_cond_destroy(&lane->work);
  }
  pthread_mutex_lock(&client->mutex);
  pthread_cond_signal(&client->to_call);
  pthread_mutex_unlock(&client->mutex);
  if (client->caller_started)
    pthread_join(client->caller, NULL);
  esp_free(client->lanes);
}
