/* Declarations.
 *
 * The happy path: every spec is checked, the session is joined where there is none, and one client stream carries the
 * header, the specs in messages of about half a MiB, and then the values, straight from the caller's memory. The
 * reply's runs of ids are expanded, the leaves become known, and their frozen flags are asked for. Where
 * on_new_lineage says so their specs are kept, and declared again in a new lineage.
 *
 * How it fails: a bad spec fails before anything is sent, naming the leaf. A cut connection is retried: declaring what
 * is there already is a join. A session that the server has forgotten is replaced; a server that started anew fails the
 * call with ABORTED where leaves of the old lineage are known, and the next declaration starts afresh. */
#include <inttypes.h>
#include <stdlib.h>
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
  const struct esp_node_spec *nodes; /* the caller's */
  size_t nodes_len;                  /* of nodes */
  uint64_t *bytes;                   /* of each leaf's tensor; owned */
  bool again;                        /* in a new lineage, by the library */
  uint64_t total_bytes;              /* of the values that travel */
  uint64_t values;                   /* leaves that have one */
  struct esp_session session;        /* of this attempt */
  struct esp_retry retry;            /* of all attempts */
  struct esp_declare_reply reply;    /* owned; once there */
};

/* ---- checks ---- */

/* NULL is fine. */
static enum esp_code check_text(const char *of, const char *path, const char *what, const char *text,
                                struct esp_status *st) {
  if (text == NULL || strlen(text) <= ESP_WIRE_PATH_MAX)
    return ESP_OK;
  return esp_fail(st, ESP_INVALID_ARGUMENT, "%s %s: its %s has %zu bytes, of %d at most", of, path, what, strlen(text),
                  ESP_WIRE_PATH_MAX);
}

static enum esp_code check_texts(const struct esp_leaf_spec *spec, struct esp_status *st) {
  enum esp_code code = check_text("leaf", spec->path, "tag", spec->tag, st);
  if (code == ESP_OK)
    code = check_text("leaf", spec->path, "group", spec->group, st);
  return code == ESP_OK ? check_text("leaf", spec->path, "alias_of", spec->alias_of, st) : code;
}

static enum esp_code check_first_value(const struct esp_leaf_spec *spec, struct esp_status *st) {
  bool is_alias = spec->alias_of != NULL && spec->alias_of[0] != 0;
  if ((unsigned)spec->init > ESP_VALUE)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: its init is %u, which is none of enum esp_leaf_init",
                    spec->path, (unsigned)spec->init);
  if (spec->init == ESP_VALUE && is_alias)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s has the value of %s, so its init can't be ESP_VALUE", spec->path,
                    spec->alias_of);
  if (spec->init == ESP_VALUE && spec->value == NULL)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: its init is ESP_VALUE, and its value NULL", spec->path);
  if (spec->transposed && !is_alias)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s is transposed, but names no leaf that it is an alias of",
                    spec->path);
  return ESP_OK;
}

enum esp_code esp_leaf_spec_check(const struct esp_leaf_spec *spec, size_t index, uint64_t *ret_bytes,
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
  enum esp_code code = check_first_value(spec, st);
  if (code == ESP_OK)
    code = check_texts(spec, st);
  if (code != ESP_OK)
    return code;
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
    enum esp_code code = esp_leaf_spec_check(&declare->specs[i], i, &declare->bytes[i], st);
    if (code != ESP_OK)
      return code;
    if (declare->specs[i].init != ESP_VALUE)
      continue;
    if (declare->client->options.on_new_lineage == ESP_LINEAGE_REDECLARE)
      return esp_fail(st, ESP_INVALID_ARGUMENT,
                      "leaf %s: its init is ESP_VALUE, whose value ESP_LINEAGE_REDECLARE could not declare again",
                      declare->specs[i].path);
    declare->values++;
    if (__builtin_add_overflow(declare->total_bytes, declare->bytes[i], &declare->total_bytes))
      return esp_fail(st, ESP_INVALID_ARGUMENT, "the values have more than 2^64 bytes");
  }
  return ESP_OK;
}

static enum esp_code check_node(const struct declare *declare, const struct esp_node_spec *node, size_t index,
                                struct esp_status *st) {
  if (node->path == NULL)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "node %zu has no path; \"\" is the root", index);
  if (declare->client->options.on_new_lineage == ESP_LINEAGE_REDECLARE && (node->tag != NULL || node->group != NULL))
    return esp_fail(st, ESP_INVALID_ARGUMENT,
                    "node %s: it has a tag or a group, which ESP_LINEAGE_REDECLARE could not declare again",
                    node->path);
  enum esp_code code = check_text("node", "", "path", node->path, st);
  if (code == ESP_OK)
    code = check_text("node", node->path, "tag", node->tag, st);
  return code == ESP_OK ? check_text("node", node->path, "group", node->group, st) : code;
}

static enum esp_code check_nodes(const struct declare *declare, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  for (size_t i = 0; i < declare->nodes_len && code == ESP_OK; i++)
    code = check_node(declare, &declare->nodes[i], i, st);
  return code;
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
  for (size_t i = 0; i < declare->nodes_len + declare->len && code == ESP_OK; i++) {
    code = i < declare->nodes_len ? esp_encode_node(&buf, &declare->nodes[i], st)
                                  : esp_encode_leaf(&buf, &declare->specs[i - declare->nodes_len], st);
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
  if (!has_past)
    return ESP_OK;
  return declare->again ? code
                        : esp_session_fail_lineage(client, declare->session.lineage, declare->retry.deadline_ms, st);
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

static void free_known(struct esp_leaf_known *known, size_t len) {
  for (size_t i = 0; known != NULL && i < len; i++) {
    esp_free(known[i].path);
    esp_free(known[i].spec);
  }
  esp_free(known);
}

static bool is_within(const char *path, const char *node) {
  size_t len = strlen(node);
  return len == 0 || (strncmp(path, node, len) == 0 && (path[len] == 0 || path[len] == '.'));
}

/* A copy that is declared again by itself: what its nodes gave it at birth is its own. */
static struct esp_leaf_spec *copy_spec(const struct declare *declare, const struct esp_leaf_spec *spec) {
  struct esp_leaf_spec *copy = esp_leaf_spec_copy(spec);
  for (size_t i = 0; copy != NULL && i < declare->nodes_len; i++) {
    if (!is_within(spec->path, declare->nodes[i].path))
      continue;
    copy->frozen |= declare->nodes[i].frozen;
    copy->detached |= declare->nodes[i].detached;
  }
  return copy;
}

/* The leaves as they will be known; NULL without memory. */
static struct esp_leaf_known *list_known(const struct declare *declare, const esp_leaf_id *ids) {
  bool keep = declare->client->options.on_new_lineage == ESP_LINEAGE_REDECLARE;
  struct esp_leaf_known *known = esp_calloc(declare->len + 1, sizeof *known);
  for (size_t i = 0; known != NULL && i < declare->len; i++) {
    const struct esp_leaf_spec *spec = &declare->specs[i];
    known[i] = (struct esp_leaf_known){.id = ids[i],
                                       .bytes = declare->bytes[i],
                                       .dtype = spec->dtype,
                                       .path = esp_strdup(spec->path),
                                       .spec = keep ? copy_spec(declare, spec) : NULL};
    if (known[i].path == NULL || (keep && known[i].spec == NULL)) {
      free_known(known, i + 1);
      return NULL;
    }
  }
  return known;
}

static enum esp_code learn(struct declare *declare, const esp_leaf_id *ids, struct esp_status *st) {
  struct esp_leaf_known *known = list_known(declare, ids);
  if (known == NULL || !esp_client_learn(declare->client, declare->reply.lineage, known, declare->len)) {
    free_known(known, declare->len);
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for %zu declared leaves", declare->len);
  }
  esp_free(known);
  return ESP_OK;
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

enum esp_code esp_declare_with(esp_client *client, const struct esp_leaf_spec *leaves, size_t len,
                               const struct esp_declare_options *options, esp_leaf_id *ret_leaves,
                               struct esp_status *st) {
  struct declare declare = {.client = client, .specs = leaves, .len = len, .retry = esp_client_retry(client)};
  if (options != NULL) {
    declare.nodes = options->nodes;
    declare.nodes_len = options->nodes_len;
  }
  enum esp_code code = len == 0 ? esp_fail(st, ESP_INVALID_ARGUMENT, "a declaration has one leaf at least") : ESP_OK;
  if (code == ESP_OK)
    code = check_specs(&declare, st);
  if (code == ESP_OK)
    code = check_nodes(&declare, st);
  if (code == ESP_OK)
    code = run(&declare, st);
  if (code == ESP_OK)
    code = finish(&declare, ret_leaves, st);
  esp_declare_reply_done(&declare.reply);
  esp_free(declare.bytes);
  return code;
}

enum esp_code esp_declare(esp_client *client, const struct esp_leaf_spec *leaves, size_t len, esp_leaf_id *ret_leaves,
                          struct esp_status *st) {
  return esp_declare_with(client, leaves, len, NULL, ret_leaves, st);
}

/* ---- again, in a new lineage ---- */

static int by_id(const void *a, const void *b) {
  const struct esp_leaf_known *x = a, *y = b;
  return (x->id > y->id) - (x->id < y->id);
}

/* Copies of what was declared, in the order of the ids, and the lineage that they are of. NULL where there is nothing
 * to declare, or a leaf that was not declared, or no memory. */
static struct esp_leaf_known *list_specs(struct esp_client *client, size_t *ret_len, uint64_t *ret_lineage) {
  size_t len = 0;
  bool ok = true;
  pthread_mutex_lock(&client->mutex);
  struct esp_leaf_known *list = esp_calloc(client->leaves.len + 1, sizeof *list);
  for (size_t i = 0; list != NULL && ok && i < client->leaves.capacity; i++) {
    const struct esp_leaf_known *leaf = &client->leaves.places[i];
    if (leaf->id == 0)
      continue;
    list[len] =
        (struct esp_leaf_known){.id = leaf->id, .spec = leaf->spec == NULL ? NULL : esp_leaf_spec_copy(leaf->spec)};
    ok = list[len++].spec != NULL;
  }
  *ret_lineage = client->leaves_lineage;
  pthread_mutex_unlock(&client->mutex);
  if (list == NULL || !ok || len == 0) {
    free_known(list, len);
    return NULL;
  }
  qsort(list, len, sizeof *list, by_id);
  *ret_len = len;
  return list;
}

/* Whether the leaves have the ids that they had. The client's leaves are of the new lineage then. */
static bool accept(struct declare *declare, const struct esp_leaf_known *list, uint64_t lineage_old) {
  struct esp_client *client = declare->client;
  esp_leaf_id *ids = esp_malloc_array(declare->len + 1, sizeof *ids);
  bool same = ids != NULL &&
              esp_id_runs_expand(declare->reply.runs, declare->reply.runs_len, ids, declare->len, NULL) == ESP_OK;
  for (size_t i = 0; i < declare->len && same; i++)
    same = ids[i] == list[i].id;
  esp_free(ids);
  pthread_mutex_lock(&client->mutex);
  if (same && client->leaves_lineage == lineage_old)
    client->leaves_lineage = declare->reply.lineage;
  pthread_mutex_unlock(&client->mutex);
  return same;
}

static bool declare_list(struct declare *declare, const struct esp_leaf_known *list, uint64_t lineage_old) {
  struct esp_leaf_spec *specs = esp_malloc_array(declare->len, sizeof *specs);
  bool ok = specs != NULL;
  for (size_t i = 0; i < declare->len && ok; i++)
    specs[i] = *list[i].spec;
  declare->specs = specs;
  ok = ok && check_specs(declare, NULL) == ESP_OK && run(declare, NULL) == ESP_OK && accept(declare, list, lineage_old);
  if (ok)
    esp_flags_reload(declare->client, declare->reply.epoch, declare->retry.deadline_ms);
  esp_declare_reply_done(&declare->reply);
  esp_free(declare->bytes);
  esp_free(specs);
  return ok;
}

bool esp_declare_again(struct esp_client *client, uint64_t deadline_ms) {
  uint64_t lineage_old;
  struct declare declare = {.client = client, .again = true, .retry = esp_client_retry(client)};
  struct esp_leaf_known *list = list_specs(client, &declare.len, &lineage_old);
  if (list == NULL)
    return false;
  declare.retry.deadline_ms = deadline_ms;
  bool ok = declare_list(&declare, list, lineage_old);
  free_known(list, declare.len);
  return ok;
}
