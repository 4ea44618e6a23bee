/* Which leaves are frozen, as the server last said.
 *
 * The happy path: a reply names a later epoch than the flags are of, and Watch tells what changed since. One thread
 * asks at a time; another that finds it asking goes on with the flags of before, and its next reply brings it here
 * again. An open watch (watch.c) brings its events here as they come; what it has overtaken is not taken any more, and
 * asked for again. */
#include "base/alloc.h"
#include "client/src/client.h"

bool esp_flags_take(struct esp_client *client, const struct esp_layout_event *event, uint64_t epoch) {
  pthread_mutex_lock(&client->mutex);
  bool ok = epoch >= client->flags_latest && event->lineage == client->leaves_lineage;
  for (size_t i = 0; i < event->changes_len && ok; i++) {
    struct esp_leaf_known *leaf = esp_leaves_find(&client->leaves, event->changes[i].leaf);
    if (leaf != NULL)
      leaf->frozen = event->changes[i].frozen;
  }
  if (ok)
    client->flags_latest = epoch;
  pthread_mutex_unlock(&client->mutex);
  return ok;
}

struct refresh {
  struct esp_client *client;
  uint64_t epoch; /* that is told of, or an earlier one: the reply's, then the last page's */
  bool overtaken; /* by a watch: some flags were not taken */
};

static enum esp_code take_event(void *data, struct esp_in in, struct esp_status *st) {
  struct refresh *refresh = data;
  struct esp_layout_event *event;
  enum esp_code code = esp_decode_event(in, &event, st);
  if (code != ESP_OK)
    return code;
  refresh->epoch = event->epoch > refresh->epoch ? event->epoch : refresh->epoch;
  refresh->overtaken = !esp_flags_take(refresh->client, event, refresh->epoch) || refresh->overtaken;
  esp_free(event);
  return ESP_OK;
}

static enum esp_code ask(struct esp_client *client, uint64_t since, uint64_t deadline_ms, esp_message_handler handler,
                         void *data, size_t answers_min, struct esp_status *st) {
  struct esp_buf request = {0};
  enum esp_code code = esp_encode_watch(&request, since, false, st);
  if (code == ESP_OK)
    code = esp_client_call(client, ESP_METHOD_WORKER("Watch"), &request, deadline_ms, handler, data, answers_min, st);
  esp_buf_done(&request);
  return code;
}

/* With `refreshing` set by the caller. */
static void refresh(struct esp_client *client, uint64_t since, uint64_t epoch, uint64_t deadline_ms) {
  struct refresh told = {.client = client, .epoch = epoch};
  enum esp_code code = ask(client, since, deadline_ms, take_event, &told, 0, NULL);
  pthread_mutex_lock(&client->mutex);
  if (code == ESP_OK && !told.overtaken && told.epoch > client->flags_epoch)
    client->flags_epoch = told.epoch;
  client->refreshing = false;
  pthread_cond_broadcast(&client->changed);
  pthread_mutex_unlock(&client->mutex);
}

void esp_flags_refresh(struct esp_client *client, uint64_t epoch, uint64_t deadline_ms) {
  pthread_mutex_lock(&client->mutex);
  uint64_t since = client->flags_epoch;
  bool needed = epoch > since && client->leaves.len > 0 && !client->refreshing;
  client->refreshing = client->refreshing || needed;
  pthread_mutex_unlock(&client->mutex);
  if (needed)
    refresh(client, since, epoch, deadline_ms);
}

void esp_flags_want(struct esp_client *client, uint64_t epoch) {
  pthread_mutex_lock(&client->mutex);
  if (epoch > client->flags_epoch && epoch > client->flags_wanted) {
    client->flags_wanted = epoch;
    pthread_cond_signal(&client->heart_due);
  }
  pthread_mutex_unlock(&client->mutex);
}

void esp_flags_reload(struct esp_client *client, uint64_t epoch, uint64_t deadline_ms) {
  pthread_mutex_lock(&client->mutex);
  bool mine = true;
  while (client->refreshing && mine)
    mine = esp_client_wait(client, deadline_ms);
  /* Without the flags of the new leaves those of the old ones count as unknown too, so that the next reply asks for
   * all. */
  client->flags_epoch = client->flags_latest = 0;
  client->refreshing = client->refreshing || mine;
  pthread_mutex_unlock(&client->mutex);
  if (mine)
    refresh(client, 0, epoch, deadline_ms);
}

static enum esp_code keep_event(void *data, struct esp_in in, struct esp_status *st) {
  struct esp_layout_event **event = data;
  esp_free(*event);
  *event = NULL;
  return esp_decode_event(in, event, st);
}

enum esp_code esp_layout_now(struct esp_client *client, uint64_t deadline_ms, struct esp_layout_event **ret,
                             struct esp_status *st) {
  struct esp_layout_event *event = NULL;
  /* Nothing has changed since the last epoch that there can be. */
  enum esp_code code = ask(client, UINT64_MAX, deadline_ms, keep_event, &event, 1, st);
  if (code == ESP_OK)
    *ret = event;
  else
    esp_free(event);
  return code;
}
