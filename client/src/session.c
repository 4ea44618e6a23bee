/* The session: joining, sequences, the lease, and what becomes of it when the server forgets it or starts anew.
 *
 * The happy path: the first call that needs a session joins, the heart renews its lease every third of it, each push
 * takes the next sequence, and close leaves.
 *
 *   none --join--> alive --the server refuses it--> asked (join with resume) --> alive
 *                                                        |--> expired: joined anew, same lineage
 *                                                        '--> joined anew, another lineage: on_lineage, ABORTED
 *
 * One thread joins at a time; the others wait for it. A sequence stays open until its push has ended, whatever way, and
 * none is taken that is further than the server's window from the oldest open one: a slow retry is never overtaken so
 * far that the server has forgotten its answer. */
#include <inttypes.h>

#include "client/src/client.h"

/* The heart asks again after this where the server gives no lease. */
#define LEASE_MS_DEFAULT 30000

static enum esp_code take_join(void *data, struct esp_in in, struct esp_status *st) {
  return esp_decode_join(in, data, st);
}

static enum esp_code ask_join(struct esp_client *client, uint64_t resume, uint64_t deadline_ms,
                              struct esp_session_reply *ret, struct esp_status *st) {
  struct esp_buf request = {0};
  enum esp_code code = esp_encode_join(&request, client->worker, resume, st);
  if (code == ESP_OK)
    code = esp_client_call(client, ESP_METHOD_WORKER("Join"), &request, deadline_ms, take_join, ret, 1, st);
  esp_buf_done(&request);
  return code;
}

/* Makes a new session the client's, with the mutex held. True where the lineage changed. */
static bool install(struct esp_client *client, const struct esp_session_reply *reply) {
  bool changed = client->lineage != 0 && client->lineage != reply->lineage;
  client->session = reply->session;
  client->lineage = reply->lineage;
  client->lease_ms = reply->lease_ms == 0 ? LEASE_MS_DEFAULT : reply->lease_ms;
  client->in_flight_max =
      reply->in_flight_max == 0 || reply->in_flight_max > ESP_OPEN_MAX ? ESP_OPEN_MAX : reply->in_flight_max;
  client->sequence_next = 1;
  client->open_len = 0;
  if (changed)
    client->flags_epoch = 0;
  pthread_cond_signal(&client->heart_due);
  return changed;
}

/* Waits, with the mutex held, until no other thread joins. */
static enum esp_code wait_joined(struct esp_client *client, uint64_t deadline_ms, struct esp_status *st) {
  while (client->joining)
    if (!esp_client_wait(client, deadline_ms))
      return esp_fail(st, ESP_DEADLINE_EXCEEDED, "the server at %s did not answer before the deadline",
                      client->address.text);
  return ESP_OK;
}

/* With the mutex held, which is let go meanwhile. */
static enum esp_code join_first(struct esp_client *client, uint64_t deadline_ms, struct esp_status *st) {
  client->joining = true;
  pthread_mutex_unlock(&client->mutex);
  struct esp_session_reply reply;
  enum esp_code code = ask_join(client, 0, deadline_ms, &reply, st);
  pthread_mutex_lock(&client->mutex);
  client->joining = false;
  if (code == ESP_OK)
    install(client, &reply);
  pthread_cond_broadcast(&client->changed);
  return code;
}

/* With the mutex held. */
static enum esp_code ensure(struct esp_client *client, uint64_t deadline_ms, struct esp_status *st) {
  enum esp_code code = wait_joined(client, deadline_ms, st);
  if (code == ESP_OK && client->session == 0)
    code = join_first(client, deadline_ms, st);
  return code;
}

enum esp_code esp_session_get(struct esp_client *client, uint64_t deadline_ms, struct esp_session *ret,
                              struct esp_status *st) {
  pthread_mutex_lock(&client->mutex);
  enum esp_code code = ensure(client, deadline_ms, st);
  if (code == ESP_OK)
    *ret = (struct esp_session){.session = client->session, .lineage = client->lineage};
  pthread_mutex_unlock(&client->mutex);
  return code;
}

bool esp_session_known(struct esp_client *client, struct esp_session *ret) {
  pthread_mutex_lock(&client->mutex);
  bool known = client->session != 0;
  if (known)
    *ret = (struct esp_session){.session = client->session, .lineage = client->lineage};
  pthread_mutex_unlock(&client->mutex);
  return known;
}

/* ---- sequences ---- */

static bool has_room(const struct esp_client *client) {
  uint64_t oldest = client->sequence_next;
  for (size_t i = 0; i < client->open_len; i++)
    oldest = client->open[i] < oldest ? client->open[i] : oldest;
  return client->open_len < ESP_OPEN_MAX && client->sequence_next - oldest < client->in_flight_max;
}

/* With the mutex held, and room. */
static void take_sequence(struct esp_client *client, struct esp_session *ret) {
  *ret =
      (struct esp_session){.session = client->session, .lineage = client->lineage, .sequence = client->sequence_next++};
  client->open[client->open_len++] = ret->sequence;
}

enum esp_code esp_session_push_begin(struct esp_client *client, uint64_t deadline_ms, struct esp_session *ret,
                                     struct esp_status *st) {
  pthread_mutex_lock(&client->mutex);
  enum esp_code code = ensure(client, deadline_ms, st);
  while (code == ESP_OK && !has_room(client)) {
    if (!esp_client_wait(client, deadline_ms))
      code = esp_fail(st, ESP_DEADLINE_EXCEEDED, "%" PRIu64 " pushes of this client were under way until the deadline",
                      client->in_flight_max);
    else
      code = ensure(client, deadline_ms, st);
  }
  if (code == ESP_OK)
    take_sequence(client, ret);
  pthread_mutex_unlock(&client->mutex);
  return code;
}

bool esp_session_push_try(struct esp_client *client, struct esp_session *ret) {
  pthread_mutex_lock(&client->mutex);
  bool ok = client->session != 0 && !client->joining && has_room(client);
  if (ok)
    take_sequence(client, ret);
  pthread_mutex_unlock(&client->mutex);
  return ok;
}

void esp_session_push_end(struct esp_client *client, const struct esp_session *session) {
  pthread_mutex_lock(&client->mutex);
  for (size_t i = 0; client->session == session->session && i < client->open_len; i++)
    if (client->open[i] == session->sequence) {
      client->open[i] = client->open[--client->open_len];
      pthread_cond_broadcast(&client->changed);
      break;
    }
  pthread_mutex_unlock(&client->mutex);
}

/* ---- when the server refuses a session ---- */

/* Asks with the mutex let go. *ret_resumed: the server knows the session. */
static enum esp_code ask_again(struct esp_client *client, uint64_t session, uint64_t deadline_ms, bool *ret_resumed,
                               struct esp_session_reply *ret, struct esp_status *st) {
  pthread_mutex_unlock(&client->mutex);
  enum esp_code code = ask_join(client, session, deadline_ms, ret, st);
  *ret_resumed = code == ESP_OK;
  if (code == ESP_FAILED_PRECONDITION)
    code = ask_join(client, 0, deadline_ms, ret, st);
  pthread_mutex_lock(&client->mutex);
  return code;
}

enum esp_code esp_session_check(struct esp_client *client, const struct esp_session *session, uint64_t deadline_ms,
                                enum esp_session_state *ret, struct esp_status *st) {
  bool resumed = false, notify = false;
  struct esp_session_reply reply = {0};
  pthread_mutex_lock(&client->mutex);
  enum esp_code code = wait_joined(client, deadline_ms, st);
  if (code == ESP_OK && client->session == session->session) {
    client->joining = true;
    code = ask_again(client, session->session, deadline_ms, &resumed, &reply, st);
    client->joining = false;
    resumed = resumed && reply.lineage == session->lineage;
    if (code == ESP_OK && !resumed)
      notify = install(client, &reply);
    pthread_cond_broadcast(&client->changed);
  }
  if (code == ESP_OK)
    *ret = resumed                               ? ESP_SESSION_ALIVE
           : client->lineage == session->lineage ? ESP_SESSION_EXPIRED
                                                 : ESP_SESSION_LINEAGE;
  pthread_mutex_unlock(&client->mutex);
  if (notify && client->options.on_lineage != NULL)
    client->options.on_lineage(client->options.on_lineage_data, session->lineage, reply.lineage);
  return code;
}

void esp_session_meet(struct esp_client *client, uint64_t lineage_old, uint64_t lineage_new) {
  pthread_mutex_lock(&client->mutex);
  bool notify = client->session == 0 && client->lineage != lineage_new;
  if (notify)
    client->lineage = lineage_new;
  pthread_mutex_unlock(&client->mutex);
  if (notify && client->options.on_lineage != NULL)
    client->options.on_lineage(client->options.on_lineage_data, lineage_old, lineage_new);
}

enum esp_code esp_session_fail_lineage(struct esp_client *client, uint64_t lineage_old, uint64_t deadline_ms,
                                       struct esp_status *st) {
  bool again = client->options.on_new_lineage == ESP_LINEAGE_REDECLARE && esp_declare_again(client, deadline_ms);
  pthread_mutex_lock(&client->mutex);
  uint64_t lineage_new = client->lineage;
  pthread_mutex_unlock(&client->mutex);
  return esp_fail(st, ESP_ABORTED,
                  "the server at %s started anew and lost commits: its lineage is %016" PRIx64
                  ", the leaves were declared in %016" PRIx64 "; %s",
                  client->address.text, lineage_new, lineage_old,
                  again ? "they were declared again" : "declare them again");
}

enum esp_code esp_session_leaves_check(struct esp_client *client, uint64_t leaves_lineage, uint64_t deadline_ms,
                                       uint64_t *ret_lineage, struct esp_status *st) {
  pthread_mutex_lock(&client->mutex);
  uint64_t lineage = client->lineage;
  uint64_t known = client->leaves.len == 0 ? 0 : client->leaves_lineage;
  pthread_mutex_unlock(&client->mutex);
  if (known != 0 && lineage != 0 && lineage != known)
    return esp_session_fail_lineage(client, known, deadline_ms, st);
  if (leaves_lineage != 0 && leaves_lineage != known)
    return esp_fail(st, ESP_ABORTED,
                    "the leaves of lineage %016" PRIx64 " were declared again in %016" PRIx64 " after this call began",
                    leaves_lineage, known);
  *ret_lineage = lineage;
  return ESP_OK;
}

enum esp_code esp_session_found(struct esp_client *client, uint64_t lineage, struct esp_status *st) {
  pthread_mutex_lock(&client->mutex);
  if (client->session == 0)
    client->lineage = lineage;
  uint64_t own = client->lineage;
  pthread_mutex_unlock(&client->mutex);
  if (own != lineage)
    return esp_fail(st, ESP_ABORTED,
                    "the server at %s started anew and lost commits: its lineage is %016" PRIx64
                    ", the session's is %016" PRIx64,
                    client->address.text, lineage, own);
  return ESP_OK;
}

/* ---- the lease ---- */

static enum esp_code take_heartbeat(void *data, struct esp_in in, struct esp_status *st) {
  return esp_decode_heartbeat(in, data, st);
}

static enum esp_code take_nothing(void *data, struct esp_in in, struct esp_status *st) {
  (void)data;
  (void)in;
  (void)st;
  return ESP_OK;
}

static enum esp_code ask_session(struct esp_client *client, const char *method, uint64_t session, uint64_t deadline_ms,
                                 esp_message_handler handler, void *data) {
  struct esp_buf request = {0};
  enum esp_code code = esp_encode_session(&request, session, NULL);
  if (code == ESP_OK)
    code = esp_client_call(client, method, &request, deadline_ms, handler, data, 1, NULL);
  esp_buf_done(&request);
  return code;
}

/* A heartbeat that fails is left to the next one, and a session that the server has forgotten to the next push, in
 * whose thread the caller can be told. */
static void beat(struct esp_client *client, uint64_t session, uint64_t deadline_ms) {
  struct esp_session_reply reply = {0};
  if (ask_session(client, ESP_METHOD_WORKER("Heartbeat"), session, deadline_ms, take_heartbeat, &reply) == ESP_OK)
    esp_flags_refresh(client, reply.epoch, deadline_ms);
}

/* What the heart is to do next, with the mutex held; false to wait until *wake_ms. */
static bool is_due(struct esp_client *client, uint64_t *session, uint64_t *wake_ms) {
  uint64_t now_ms = esp_now_ms();
  if (client->session != *session) {
    *session = client->session;
    *wake_ms = now_ms + client->lease_ms / 3;
  }
  if (*session == 0)
    *wake_ms = now_ms + LEASE_MS_DEFAULT;
  return client->flags_wanted != 0 || now_ms >= *wake_ms;
}

void *esp_session_heart(void *data) {
  struct esp_client *client = data;
  uint64_t session = 0, wake_ms = UINT64_MAX;
  pthread_mutex_lock(&client->mutex);
  while (!atomic_load(&client->closing)) {
    if (!is_due(client, &session, &wake_ms)) {
      esp_cond_wait(&client->heart_due, &client->mutex, wake_ms);
      continue;
    }
    uint64_t wanted = client->flags_wanted;
    uint64_t end_ms = esp_now_ms() + (session == 0 ? LEASE_MS_DEFAULT : client->lease_ms) / 3;
    client->flags_wanted = 0;
    if (wanted == 0)
      wake_ms = end_ms;
    pthread_mutex_unlock(&client->mutex);
    if (wanted != 0)
      esp_flags_refresh(client, wanted, end_ms);
    else
      beat(client, session, end_ms);
    pthread_mutex_lock(&client->mutex);
  }
  pthread_mutex_unlock(&client->mutex);
  return NULL;
}

void esp_session_leave(struct esp_client *client, uint64_t deadline_ms) {
  pthread_mutex_lock(&client->mutex);
  uint64_t session = client->session;
  bool reachable = client->conns[0] != NULL && esp_conn_is_usable(client->conns[0]);
  pthread_mutex_unlock(&client->mutex);
  /* Where the answer does not come the lease ends the session. */
  if (session != 0 && reachable)
    ask_session(client, ESP_METHOD_WORKER("Leave"), session, deadline_ms, take_nothing, NULL);
}
