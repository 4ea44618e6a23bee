/* Declarations.
 *
 * The happy path: every spec is checked, the session is joined where there is none, and one client stream carries the
 * header, the specs in messages of about half a MiB, and then the values, straight from the caller's memory. The
 * reply's runs of ids are expanded, the leaves become known, and their frozen flags are asked for.
 *
 * How it fails: a bad spec fails before anything is sent, naming the leaf. A cut connection is retried: declaring what
 * is there already is a join. A session that the server has forgotten is replaced; a server that started anew fails the
 * call with ABORTED where leaves of the old lineage are known, and the next declaration starts afresh. */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/dtype.h"
#include "client/src/client.h"

/* Specs of one message. One spec has some 13 KiB at most, so that the message stays far below the largest. */
#define SPECS_BYTES_USUAL ((size_t)512 << 10)

struct declare {
  struct esp_client *client;
  const struct esp_leaf_spec *specs; /* the caller's */
  size_t len;                        /* of specs */
  uint64_t *bytes;                   /* of each leaf's tensor; owned */
  uint64_t total_bytes;              /* of the values that travel */
  uint64_t values;                   /* leaves that have one */
  struct esp_session session;        /* of this attempt */
  struct esp_retry retry;            /* of all attempts */
  struct esp_declare_reply reply;    /* owned; once there */
};

/* ---- checks ---- */

static enum esp_code check_spec(const struct esp_leaf_spec *spec, size_t index, uint64_t *ret_bytes,
                                struct esp_status *st) {
  if (spec->path == NULL || spec->path[0] == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %zu has no path", index);
  if (strlen(spec->path) > ESP_WIRE_PATH_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %zu: its path has %zu bytes, of %d at most", index,
                    strlen(spec->path), ESP_WIRE_PATH_MAX);
  if (spec->rank > ESP_LEAF_RANK_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s has rank %u, of %d at most", spec->path, spec->rank,
                    ESP_LEAF_RANK_MAX);
  if ((unsigned)spec->kind > ESP_BUFFER)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: its kind is %u, neither ESP_TRAINED nor ESP_BUFFER", spec->path,
                    (unsigned)spec->kind);
  if (esp_dtype_size((enum esp_dtype)spec->dtype) == 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: its dtype is %u, which is none of enum esp_leaf_dtype",
                    spec->path, (unsigned)spec->dtype);
  if ((unsigned)spec->init > ESP_VALUE)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: its init is %u, which is none of enum esp_leaf_init",
                    spec->path, (unsigned)spec->init);
  if (spec->init == ESP_VALUE && spec->value == NULL)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: its init is ESP_VALUE, and its value NULL", spec->path);
  for (size_t i = 0; i < 2; i++) {
    const char *text = i == 0 ? spec->tag : spec->group;
    if (text != NULL && strlen(text) > ESP_WIRE_PATH_MAX)
      return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: its %s has %zu bytes, of %d at most", spec->path,
                      i == 0 ? "tag" : "group", strlen(text), ESP_WIRE_PATH_MAX);
  }
  struct esp_shape shape = {.rank = spec->rank};
  memcpy(shape.dims, spec->shape, spec->rank * sizeof shape.dims[0]);
  struct esp_status why;
  uint64_t elements;
  if (esp_shape_bytes(&shape, (enum esp_dtype)spec->dtype, &elements, ret_bytes, &why) != ESP_OK)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: %s", spec->path, why.message);
  return ESP_OK;
}

static enum esp_code check_specs(struct declare *declare, struct esp_status *st) {
  declare->bytes = esp_malloc_array(declare->len + 1, sizeof *declare->bytes);
  if (declare->bytes == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for a declaration of %zu leaves", declare->len);
  for (size_t i = 0; i < declare->len; i++) {
    enum esp_code code = check_spec(&declare->specs[i], i, &declare->bytes[i], st);
    if (code != ESP_OK)
      return code;
    if (declare->specs[i].init != ESP_VALUE)
      continue;
    declare->values++;
    if (__builtin_add_overflow(declare->total_bytes, declare->bytes[i], &declare->total_bytes))
      return esp_fail(st, ESP_INVALID_ARGUMENT, "the values have more than 2^64 bytes");
  }
  return ESP_OK;
}

/* ---- sending ---- */

static enum esp_code send_buf(struct declare *declare, struct esp_call *call, struct esp_buf *buf,
                              struct esp_status *st) {
  esp_call_append(call, buf->data, buf->len);
  buf->len = 0;
  return esp_call_send(call, false, declare->retry.deadline_ms, st);
}

static enum esp_code send_specs(struct declare *declare, struct esp_call *call, struct esp_status *st) {
  struct esp_buf buf = {0};
  struct esp_declare_head head = {.session = declare->session.session,
                                  .total_bytes = declare->total_bytes,
                                  .leaf_count = declare->values,
                                  .wait_ms = esp_left_ms(declare->retry.deadline_ms)};
  enum esp_code code = esp_encode_declare(&buf, &head, st);
  for (size_t i = 0; i < declare->len && code == ESP_OK; i++) {
    code = esp_encode_leaf(&buf, &declare->specs[i], st);
    if (code == ESP_OK && buf.len >= SPECS_BYTES_USUAL)
      code = send_buf(declare, call, &buf, st);
  }
  if (code == ESP_OK && buf.len > 0)
    code = send_buf(declare, call, &buf, st);
  esp_buf_done(&buf);
  return code;
}

/* Ends the stream too. */
static enum esp_code send_values(struct declare *declare, struct esp_call *call, struct esp_status *st) {
  struct esp_chunk_writer writer = {.call = call, .deadline_ms = declare->retry.deadline_ms};
  for (size_t i = 0; i < declare->len; i++) {
    if (declare->specs[i].init != ESP_VALUE)
      continue;
    struct esp_chunk_name name = {.index = i};
    enum esp_code code = esp_chunks_put(&writer, &name, declare->specs[i].value, (size_t)declare->bytes[i], st);
    if (code != ESP_OK)
      return code;
  }
  return esp_call_send(call, true, declare->retry.deadline_ms, st);
}

static enum esp_code take_reply(void *data, struct esp_in in, struct esp_status *st) {
  struct declare *declare = data;
  esp_declare_reply_done(&declare->reply);
  return esp_decode_declare(in, &declare->reply, st);
}

static enum esp_code attempt(struct declare *declare, struct esp_status *st) {
  uint64_t deadline_ms = declare->retry.deadline_ms;
  struct esp_conn *conn;
  struct esp_call *call = NULL;
  enum esp_code code = esp_session_get(declare->client, deadline_ms, &declare->session, st);
  if (code == ESP_OK)
    code = esp_client_connect(declare->client, deadline_ms, &conn, st);
  if (code != ESP_OK)
    return code;
  code = esp_call_new(conn, ESP_METHOD_WORKER("Declare"), &call, st);
  esp_conn_unref(conn);
  if (code == ESP_OK)
    code = send_specs(declare, call, st);
  if (code == ESP_OK)
    code = send_values(declare, call, st);
  if (code == ESP_OK)
    code = esp_client_answers(call, deadline_ms, take_reply, declare, 1, st);
  esp_call_free(call);
  return code;
}

/* After a refusal of the session: ESP_OK to go on with another one, or the code to return. */
static enum esp_code recover(struct declare *declare, enum esp_code code, struct esp_status *st) {
  struct esp_client *client = declare->client;
  enum esp_session_state state;
  if (code != ESP_FAILED_PRECONDITION ||
      esp_session_check(client, &declare->session, declare->retry.deadline_ms, &state, NULL) != ESP_OK ||
      state == ESP_SESSION_ALIVE)
    return code;
  pthread_mutex_lock(&client->mutex);
  bool has_past = client->leaves.len > 0 && client->leaves_lineage != client->lineage;
  pthread_mutex_unlock(&client->mutex);
  return has_past ? esp_session_fail_lineage(client, declare->session.lineage, st) : ESP_OK;
}

static enum esp_code run(struct declare *declare, struct esp_status *st) {
  for (;;) {
    enum esp_code code = attempt(declare, st);
    if (code == ESP_OK)
      return ESP_OK;
    code = recover(declare, code, st);
    if (code == ESP_OK && esp_left_ms(declare->retry.deadline_ms) > 0)
      continue;
    if (code == ESP_OK)
      return esp_fail(st, ESP_DEADLINE_EXCEEDED, "the session had to be renewed, and the deadline has passed");
    if (!esp_retry_wait(&declare->retry, code))
      return code;
  }
}

/* ---- what is known afterwards ---- */

static void free_paths(char **paths, size_t len) {
  for (size_t i = 0; paths != NULL && i < len; i++)
    esp_free(paths[i]);
  esp_free(paths);
}

static char **copy_paths(const struct esp_leaf_spec *specs, size_t len) {
  char **paths = esp_calloc(len + 1, sizeof *paths);
  for (size_t i = 0; paths != NULL && i < len; i++) {
    paths[i] = esp_strdup(specs[i].path);
    if (paths[i] == NULL) {
      free_paths(paths, i);
      return NULL;
    }
  }
  return paths;
}

/* Leaves of an older lineage are forgotten here, and only here. */
static enum esp_code learn(struct declare *declare, const esp_leaf_id *ids, struct esp_status *st) {
  struct esp_client *client = declare->client;
  char **paths = copy_paths(declare->specs, declare->len);
  pthread_mutex_lock(&client->mutex);
  if (client->leaves_lineage != declare->reply.lineage)
    esp_leaves_done(&client->leaves);
  bool ok = paths != NULL && esp_leaves_reserve(&client->leaves, declare->len);
  for (size_t i = 0; i < declare->len && ok; i++) {
    struct esp_leaf_known leaf = {.id = ids[i], .bytes = declare->bytes[i], .path = paths[i]};
    esp_leaves_put(&client->leaves, &leaf);
    paths[i] = NULL;
  }
  if (ok)
    client->leaves_lineage = declare->reply.lineage;
  pthread_mutex_unlock(&client->mutex);
  free_paths(paths, declare->len);
  return ok ? ESP_OK : esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for %zu declared leaves", declare->len);
}

static enum esp_code finish(struct declare *declare, esp_leaf_id *ret_leaves, struct esp_status *st) {
  esp_leaf_id *ids = esp_malloc_array(declare->len + 1, sizeof *ids);
  if (ids == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for %zu declared leaves", declare->len);
  enum esp_code code = esp_id_runs_expand(declare->reply.runs, declare->reply.runs_len, ids, declare->len, st);
  if (code == ESP_OK)
    code = learn(declare, ids, st);
  if (code == ESP_OK) {
    esp_flags_reload(declare->client, declare->reply.epoch, declare->retry.deadline_ms);
    memcpy(ret_leaves, ids, declare->len * sizeof *ids);
  }
  esp_free(ids);
  return code;
}

enum esp_code esp_declare(esp_client *client, const struct esp_leaf_spec *leaves, size_t len, esp_leaf_id *ret_leaves,
                          struct esp_status *st) {
  struct declare declare = {.client = client, .specs = leaves, .len = len, .retry = esp_client_retry(client)};
  enum esp_code code = len == 0 ? esp_fail(st, ESP_INVALID_ARGUMENT, "a declaration has one leaf at least") : ESP_OK;
  if (code == ESP_OK)
    code = check_specs(&declare, st);
  if (code == ESP_OK)
    code = run(&declare, st);
  if (code == ESP_OK)
    code = finish(&declare, ret_leaves, st);
  esp_declare_reply_done(&declare.reply);
  esp_free(declare.bytes);
  return code;
}
