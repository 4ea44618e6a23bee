/* A stack of PushPull streams, so that a push needs no new call.
 *
 * The happy path: a thread takes the stream that was used last, uses it alone, and gives it back. Where all are in use
 * it opens another, up to a bound, and then waits for one; with several channels new ones take turns. A stream on which
 * anything failed is dropped, and one whose connection has hung up is dropped when it is taken, so that a restart of
 * the server costs no attempt. */
#include "base/alloc.h"
#include "client/src/client.h"

static void stream_free(struct esp_stream *stream) {
  esp_call_free(stream->call);
  esp_conn_unref(stream->conn);
  esp_free(stream);
}

static enum esp_code stream_open(struct esp_client *client, uint64_t deadline_ms, struct esp_stream **ret,
                                 struct esp_status *st) {
  struct esp_stream *stream = esp_calloc(1, sizeof *stream);
  if (stream == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for a stream");
  enum esp_code code = esp_client_connect_next(client, deadline_ms, &client->closing, &stream->conn, st);
  if (code == ESP_OK)
    code = esp_call_new(stream->conn, ESP_METHOD_WORKER("PushPull"), &stream->call, st);
  if (code != ESP_OK) {
    stream_free(stream);
    return code;
  }
  *ret = stream;
  return ESP_OK;
}

/* Frees a place for a stream. */
static void count_down(struct esp_client *client) {
  pthread_mutex_lock(&client->mutex);
  client->streams_len--;
  pthread_cond_broadcast(&client->changed);
  pthread_mutex_unlock(&client->mutex);
}

/* Takes an idle stream, or a place for a new one (*ret is NULL then). */
static enum esp_code take_place(struct esp_client *client, uint64_t deadline_ms, struct esp_stream **ret,
                                struct esp_status *st) {
  enum esp_code code = ESP_OK;
  pthread_mutex_lock(&client->mutex);
  while (client->idle == NULL && client->streams_len == ESP_STREAMS_MAX && code == ESP_OK)
    if (!esp_client_wait(client, deadline_ms))
      code = esp_fail(st, ESP_DEADLINE_EXCEEDED, "%d calls of this client were under way until the deadline",
                      ESP_STREAMS_MAX);
  if (code == ESP_OK) {
    *ret = client->idle;
    if (client->idle != NULL)
      client->idle = client->idle->next;
    else
      client->streams_len++;
  }
  pthread_mutex_unlock(&client->mutex);
  return code;
}

enum esp_code esp_stream_take(struct esp_client *client, uint64_t deadline_ms, struct esp_stream **ret,
                              struct esp_status *st) {
  for (;;) {
    struct esp_stream *stream;
    enum esp_code code = take_place(client, deadline_ms, &stream, st);
    if (code != ESP_OK)
      return code;
    if (stream == NULL) {
      code = stream_open(client, deadline_ms, ret, st);
      if (code != ESP_OK)
        count_down(client);
      return code;
    }
    if (esp_conn_is_usable(stream->conn)) {
      *ret = stream;
      return ESP_OK;
    }
    esp_stream_drop(client, stream);
  }
}

void esp_stream_give(struct esp_client *client, struct esp_stream *stream) {
  pthread_mutex_lock(&client->mutex);
  stream->next = client->idle;
  client->idle = stream;
  pthread_cond_broadcast(&client->changed);
  pthread_mutex_unlock(&client->mutex);
}

void esp_stream_drop(struct esp_client *client, struct esp_stream *stream) {
  stream_free(stream);
  count_down(client);
}

void esp_stream_drop_idle(struct esp_client *client) {
  for (;;) {
    pthread_mutex_lock(&client->mutex);
    struct esp_stream *stream = client->idle;
    if (stream != NULL)
      client->idle = stream->next;
    pthread_mutex_unlock(&client->mutex);
    if (stream == NULL)
      return;
    esp_stream_drop(client, stream);
  }
}
