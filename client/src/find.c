/* Looking leaves up by their paths, without a session.
 *
 * The happy path: the layout's listing, as Watch gives it, is gone through once; each leaf is looked for among the
 * paths that were asked for, which are sorted. What was found becomes known. It fails with NOT_FOUND where a path is no
 * leaf's, and is retried as a whole. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "client/src/client.h"

/* A path that is looked for. */
struct wanted {
  const char *path; /* the caller's */
  size_t index;     /* among the caller's */
  esp_leaf_id leaf; /* 0: not found yet */
  bool frozen;      /* once found */
};

struct find {
  struct wanted *wanted; /* sorted by path; owned */
  size_t len;            /* of wanted */
  uint64_t lineage;      /* of the listing */
  uint64_t epoch;        /* likewise */
};

static int by_path(const void *a, const void *b) {
  return strcmp(((const struct wanted *)a)->path, ((const struct wanted *)b)->path);
}

static enum esp_code check_paths(const char *const *paths, size_t len, struct esp_status *st) {
  if (len == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "no path was given");
  for (size_t i = 0; i < len; i++)
    if (paths[i] == NULL || paths[i][0] == 0)
      return esp_fail(st, ESP_INVALID_ARGUMENT, "path %zu is empty", i);
  return ESP_OK;
}

static struct wanted *list_wanted(const char *const *paths, size_t len) {
  struct wanted *wanted = esp_malloc_array(len, sizeof *wanted);
  for (size_t i = 0; wanted != NULL && i < len; i++)
    wanted[i] = (struct wanted){.path = paths[i], .index = i};
  if (wanted != NULL)
    qsort(wanted, len, sizeof *wanted, by_path);
  return wanted;
}

/* The first of those with this path, which may have been asked for more than once; NULL where it was not. */
static struct wanted *look_up(const struct find *find, const char *path) {
  struct wanted key = {.path = path};
  struct wanted *at = bsearch(&key, find->wanted, find->len, sizeof *at, by_path);
  while (at != NULL && at > find->wanted && strcmp(at[-1].path, path) == 0)
    at--;
  return at;
}

static enum esp_code take_event(void *data, struct esp_in in, struct esp_status *st) {
  struct find *find = data;
  struct esp_layout_event *event;
  enum esp_code code = esp_decode_event(in, &event, st);
  if (code != ESP_OK)
    return code;
  find->lineage = event->lineage;
  find->epoch = event->epoch;
  for (size_t i = 0; i < event->changes_len; i++) {
    const struct esp_layout_change *change = &event->changes[i];
    struct wanted *at = change->removed ? NULL : look_up(find, change->path);
    for (; at != NULL && at < find->wanted + find->len && strcmp(at->path, change->path) == 0; at++) {
      at->leaf = change->leaf;
      at->frozen = change->frozen;
    }
  }
  esp_free(event);
  return ESP_OK;
}

static enum esp_code check_found(struct esp_client *client, const struct find *find, struct esp_status *st) {
  size_t missing = SIZE_MAX;
  const char *path = NULL;
  for (size_t i = 0; i < find->len; i++)
    if (find->wanted[i].leaf == 0 && find->wanted[i].index < missing) {
      missing = find->wanted[i].index;
      path = find->wanted[i].path;
    }
  if (path == NULL)
    return ESP_OK;
  return esp_fail(st, ESP_NOT_FOUND, "no leaf has the path \"%s\" on the server at %s, at epoch %" PRIu64, path,
                  client->address.text, find->epoch);
}

static void free_known(struct esp_leaf_known *known, size_t len) {
  for (size_t i = 0; known != NULL && i < len; i++)
    esp_free(known[i].path);
  esp_free(known);
}

/* What the client does not know better already: a leaf that it has declared has a size. */
static bool is_new(struct esp_client *client, const struct find *find, esp_leaf_id leaf) {
  pthread_mutex_lock(&client->mutex);
  bool known = client->leaves_lineage == find->lineage && esp_leaves_find(&client->leaves, leaf) != NULL;
  pthread_mutex_unlock(&client->mutex);
  return !known;
}

static enum esp_code learn(struct esp_client *client, const struct find *find, struct esp_status *st) {
  size_t len = 0;
  struct esp_leaf_known *known = esp_calloc(find->len, sizeof *known);
  bool ok = known != NULL;
  for (size_t i = 0; i < find->len && ok; i++) {
    const struct wanted *wanted = &find->wanted[i];
    if (!is_new(client, find, wanted->leaf))
      continue;
    known[len] =
        (struct esp_leaf_known){.id = wanted->leaf, .path = esp_strdup(wanted->path), .frozen = wanted->frozen};
    ok = known[len++].path != NULL;
  }
  if (!ok || !esp_client_learn(client, find->lineage, known, len)) {
    free_known(known, len);
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for %zu leaves that were found", find->len);
  }
  esp_free(known);
  return ESP_OK;
}

static enum esp_code attempt(struct esp_client *client, struct find *find, uint64_t deadline_ms,
                             struct esp_status *st) {
  for (size_t i = 0; i < find->len; i++)
    find->wanted[i].leaf = 0;
  struct esp_buf request = {0};
  enum esp_code code = esp_encode_watch(&request, 0, false, st);
  if (code == ESP_OK)
    code = esp_client_call(client, ESP_METHOD_WORKER("Watch"), &request, deadline_ms, take_event, find, 1, st);
  esp_buf_done(&request);
  return code;
}

enum esp_code esp_find(esp_client *client, const char *const *paths, size_t len, esp_leaf_id *ret_leaves,
                       struct esp_status *st) {
  struct esp_retry retry = esp_client_retry(client);
  enum esp_code code = check_paths(paths, len, st);
  if (code != ESP_OK)
    return code;
  struct find find = {.wanted = list_wanted(paths, len), .len = len};
  if (find.wanted == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for %zu paths", len);
  do
    code = attempt(client, &find, retry.deadline_ms, st);
  while (code != ESP_OK && esp_retry_wait(&retry, code));
  if (code == ESP_OK)
    code = check_found(client, &find, st);
  if (code == ESP_OK)
    code = esp_session_found(client, find.lineage, st);
  if (code == ESP_OK)
    code = learn(client, &find, st);
  for (size_t i = 0; code == ESP_OK && i < len; i++)
    ret_leaves[find.wanted[i].index] = find.wanted[i].leaf;
  esp_free(find.wanted);
  return code;
}
