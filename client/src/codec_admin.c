/* Messages of the operators' service as bytes.
 *
 * The happy path: a request is packed from structs in an arena; the pages of an answer are put together by
 * codec_answer.c. */
#include <string.h>

#include "client/src/codec_pb.h"

#define DIGEST_BYTES 16

/* ---- requests ---- */

enum esp_code esp_encode_describe(struct esp_buf *buf, const char *selection, bool with_digest, struct esp_status *st) {
  Espalier__V1__DescribeRequest message = ESPALIER__V1__DESCRIBE_REQUEST__INIT;
  message.selection = esp_pb_text(selection);
  message.digest = with_digest;
  return esp_pb_pack(buf, &message.base, st);
}

/* ---- the diff of an apply ---- */

enum { CHANGES, NOTES };

static bool add_note(struct esp_answer *answer, const char *text) {
  const char **note = esp_answer_add(answer, NOTES, sizeof *note);
  return note != NULL && esp_answer_copy_text(answer, text, note);
}

static enum esp_code add_apply_page(struct esp_answer *answer, void *data, const void *message, struct esp_status *st) {
  struct esp_apply_result *result = data;
  const Espalier__V1__ApplyResponse *page = message;
  bool ok = true;
  (void)st;
  for (size_t i = 0; i < page->n_changes && ok; i++)
    ok = esp_answer_add_change(answer, CHANGES, page->changes[i]);
  for (size_t i = 0; i < page->n_notes && ok; i++)
    ok = add_note(answer, page->notes[i]);
  result->epoch = page->epoch;
  result->commit = page->commit;
  result->matched = page->matched > result->matched ? page->matched : result->matched;
  result->dry_run = page->dry_run != 0;
  result->changes = answer->lists[CHANGES].items;
  result->changes_len = answer->lists[CHANGES].len;
  result->notes = answer->lists[NOTES].items;
  result->notes_len = answer->lists[NOTES].len;
  return ok ? ESP_OK : ESP_RESOURCE_EXHAUSTED;
}

enum esp_code esp_decode_apply(struct esp_in in, struct esp_apply_result **result, struct esp_status *st) {
  static const struct esp_answer_kind kind = {&espalier__v1__apply_response__descriptor,
                                              sizeof(struct esp_apply_result), add_apply_page,
                                              "the server's answer: the changes of an apply, which was done"};
  return esp_answer_add_page(&kind, in, result, st);
}

void esp_apply_result_free(struct esp_apply_result *result) {
  esp_answer_free(result);
}

/* ---- descriptions ---- */

enum { LEAVES, GROUPS };

static void copy_digest(const ProtobufCBinaryData *from, uint8_t to[DIGEST_BYTES]) {
  if (from->len == DIGEST_BYTES)
    memcpy(to, from->data, DIGEST_BYTES);
}

static bool add_leaf(struct esp_answer *answer, const Espalier__V1__LeafInfo *from) {
  struct esp_leaf_info *leaf = esp_answer_add(answer, LEAVES, sizeof *leaf);
  if (leaf == NULL)
    return false;
  leaf->leaf = from->id;
  leaf->rank = (unsigned)from->n_shape;
  for (size_t i = 0; i < from->n_shape; i++)
    leaf->shape[i] = from->shape[i];
  leaf->dtype = (enum esp_leaf_dtype)from->dtype;
  leaf->kind = (enum esp_leaf_kind)from->kind;
  leaf->frozen = from->frozen != 0;
  leaf->detached = from->detached != 0;
  leaf->steps = from->steps;
  leaf->version = from->version;
  leaf->bytes = from->bytes;
  leaf->state_bytes = from->state_bytes;
  copy_digest(&from->digest, leaf->digest);
  return esp_answer_copy_text(answer, from->path, &leaf->path) &&
         esp_answer_copy_text(answer, from->group, &leaf->group) &&
         esp_answer_copy_text(answer, from->group_assigned, &leaf->group_assigned) &&
         esp_answer_copy_text(answer, from->tag, &leaf->tag) &&
         esp_answer_copy_text(answer, from->tied_to, &leaf->tied_to);
}

static bool add_group(struct esp_answer *answer, const Espalier__V1__GroupInfo *from) {
  struct esp_group_info *group = esp_answer_add(answer, GROUPS, sizeof *group);
  if (group == NULL)
    return false;
  group->parameters = from->parameters;
  return esp_answer_copy_text(answer, from->name, &group->name) &&
         esp_answer_copy_text(answer, from->expression, &group->expression);
}

static enum esp_code add_describe_page(struct esp_answer *answer, void *data, const void *message,
                                       struct esp_status *st) {
  struct esp_description *description = data;
  const Espalier__V1__DescribeResponse *page = message;
  bool ok = true;
  for (size_t i = 0; i < page->n_leaves && ok; i++) {
    if (page->leaves[i]->n_shape > ESP_LEAF_RANK_MAX)
      return esp_fail(st, ESP_INTERNAL, "the server described %s with rank %zu", page->leaves[i]->path,
                      page->leaves[i]->n_shape);
    ok = add_leaf(answer, page->leaves[i]);
  }
  for (size_t i = 0; i < page->n_groups && ok; i++)
    ok = add_group(answer, page->groups[i]);
  description->epoch = page->epoch;
  description->commit = page->commit;
  description->lineage = page->lineage;
  copy_digest(&page->digest, description->digest);
  description->leaves = answer->lists[LEAVES].items;
  description->leaves_len = answer->lists[LEAVES].len;
  description->groups = answer->lists[GROUPS].items;
  description->groups_len = answer->lists[GROUPS].len;
  return ok ? ESP_OK : ESP_RESOURCE_EXHAUSTED;
}

enum esp_code esp_decode_describe(struct esp_in in, struct esp_description **result, struct esp_status *st) {
  static const struct esp_answer_kind kind = {&espalier__v1__describe_response__descriptor,
                                              sizeof(struct esp_description), add_describe_page,
                                              "a description of the tree"};
  return esp_answer_add_page(&kind, in, result, st);
}

void esp_description_free(struct esp_description *description) {
  esp_answer_free(description);
}

/* ---- the server ---- */

static void copy_name(char *to, size_t to_len, const char *from) {
  size_t len = strlen(from);
  len = len < to_len ? len : to_len - 1;
  memcpy(to, from, len);
  to[len] = 0;
}

static void copy_server_info(const Espalier__V1__ServerInfoReply *from, struct esp_server_info *info) {
  copy_name(info->version, sizeof info->version, from->version);
  copy_name(info->mode, sizeof info->mode, from->mode);
  copy_name(info->isa, sizeof info->isa, from->isa);
  info->lineage = from->lineage;
  info->epoch = from->epoch;
  info->commit = from->commit;
  info->uptime_ms = from->uptime_ms;
  info->leaves = from->leaves;
  info->parameters = from->parameters;
  info->elements = from->elements;
  info->frozen = from->frozen;
  info->sessions = from->sessions;
  info->threads = from->threads;
  info->pushes_applied = from->pushes_applied;
  info->pushes_refused = from->pushes_refused;
  info->pushes_nonfinite = from->pushes_nonfinite;
  info->pulls = from->pulls;
  info->bytes_pushed = from->bytes_pushed;
  info->bytes_pulled = from->bytes_pulled;
  info->draining = from->draining != 0;
  info->connections = from->connections;
  info->connections_max = from->connections_max;
  info->connections_refused = from->connections_refused;
  info->streams = from->streams;
  info->in_flight = from->in_flight;
  info->in_flight_max = from->in_flight_max;
  info->pulls_active = from->pulls_active;
  info->watches = from->watches;
  copy_name(info->plan_waits, sizeof info->plan_waits, from->plan_waits);
  if (from->memory == NULL)
    return;
  info->memory_parameters = from->memory->parameters;
  info->memory_state = from->memory->state;
  info->memory_staged = from->memory->staged;
  info->memory_staged_max = from->memory->staged_max;
  info->memory_copy_on_write = from->memory->copy_on_write;
  info->memory_copy_on_write_max = from->memory->copy_on_write_max;
  info->memory_spare = from->memory->spare;
  info->memory_resident = from->memory->resident;
}

enum esp_code esp_decode_server_info(struct esp_in in, struct esp_server_info *ret, struct esp_status *st) {
  struct esp_arena arena;
  Espalier__V1__ServerInfoReply *message;
  enum esp_code code = esp_pb_unpack(in, NO_CHUNKS, &espalier__v1__server_info_reply__descriptor, &arena, &message, st);
  if (code == ESP_OK) {
    *ret = (struct esp_server_info){0};
    copy_server_info(message, ret);
  }
  esp_arena_done(&arena);
  return code;
}

/* ---- workers ---- */

static bool add_worker(struct esp_answer *answer, const Espalier__V1__WorkersResponse__Worker *from) {
  struct esp_worker_info *worker = esp_answer_add(answer, 0, sizeof *worker);
  if (worker == NULL)
    return false;
  *worker = (struct esp_worker_info){.session = from->session,
                                     .live = from->live != 0,
                                     .last_sequence = from->last_sequence,
                                     .in_flight = from->in_flight,
                                     .pushes = from->pushes,
                                     .last_seen_ms = from->last_seen_ms,
                                     .staleness = from->staleness};
  return esp_answer_copy_text(answer, from->name, &worker->name) &&
         esp_answer_copy_text(answer, from->peer, &worker->peer);
}

static enum esp_code add_workers_page(struct esp_answer *answer, void *data, const void *message,
                                      struct esp_status *st) {
  struct esp_workers *workers = data;
  const Espalier__V1__WorkersResponse *page = message;
  bool ok = true;
  (void)st;
  for (size_t i = 0; i < page->n_workers && ok; i++)
    ok = add_worker(answer, page->workers[i]);
  workers->workers = answer->lists[0].items;
  workers->len = answer->lists[0].len;
  return ok ? ESP_OK : ESP_RESOURCE_EXHAUSTED;
}

enum esp_code esp_decode_workers(struct esp_in in, struct esp_workers **result, struct esp_status *st) {
  static const struct esp_answer_kind kind = {&espalier__v1__workers_response__descriptor, sizeof(struct esp_workers),
                                              add_workers_page, "the list of workers"};
  return esp_answer_add_page(&kind, in, result, st);
}

void esp_workers_free(struct esp_workers *workers) {
  esp_answer_free(workers);
}
