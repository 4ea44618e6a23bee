/* Which leaves are frozen, as the server last said.
 *
 * The happy path: a reply names a later epoch than the flags are of, and Watch tells what changed since. One thread
 * asks at a time; another that finds it asking goes on with the flags of before, and its next reply brings it here
 * again. */
#include "client/src/client.h"

struct refresh {
  struct esp_client *client;
  uint64_t epoch; /* the highest that was told */
};

static enum esp_code take_event(void *data, struct esp_in in, struct esp_status *st) {
  struct refresh *refresh = data;
  struct esp_client *client = refresh->client;
  struct esp_event event;
  enum esp_code code = esp_decode_event(in, &event, st);
  if (code != ESP_OK)
    return code;
  pthread_mutex_lock(&client->mutex);
  for (size_t i = 0; i < event.leaves_len; i++) {
    struct esp_leaf_known *leaf = esp_leaves_find(&client->leaves, event.leaves[i].leaf);
    if (leaf != NULL)
      leaf->frozen = event.leaves[i].frozen;
  }
  pthread_mutex_unlock(&client->mutex);
  refresh->epoch = event.epoch > refresh->epoch ? event.epoch : refresh->epoch;
  esp_event_done(&event);
  return ESP_OK;
}

/* With `refreshing` set by the caller. */
static void watch(struct esp_client *client, uint64_t since, uint64_t epoch, uint64_t deadline_ms) {
  struct refresh refresh = {.client = client, .epoch = epoch};
  struct esp_buf request = {0};
  enum esp_code code = esp_encode_watch(&request, since, NULL);
  if (code == ESP_OK)
    code = esp_client_call(client, ESP_METHOD_WORKER("Watch"), &request, deadline_ms, take_event, &refresh, 0, NULL);
  esp_buf_done(&request);
  pthread_mutex_lock(&client->mutex);
  if (code == ESP_OK && refresh.epoch > client->flags_epoch)
    client->flags_epoch = refresh.epoch;
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
    watch(client, since, epoch, deadline_ms);
}

void esp_flags_reload(struct esp_client *client, uint64_t epoch, uint64_t deadline_ms) {
  pthread_mutex_lock(&client->mutex);
  bool mine = true;
  while (client->refreshing && mine)
    mine = esp_client_wait(client, deadline_ms);
  /* Without the flags of the new leaves those of the old ones count as unknown too, so that the next reply asks for
   * all. */
  client->flags_epoch = 0;
  client->refreshing = client->refreshing || mine;
  pthread_mutex_unlock(&client->mutex);
  if (mine)
    watch(client, 0, epoch, deadline_ms);
}
