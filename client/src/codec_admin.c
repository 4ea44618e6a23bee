/* Messages of the operators' service as bytes.
 *
 * The happy path: a request is packed from structs in an arena; the pages of an answer are unpacked one by one and
 * copied into one result, whose strings are in an arena that is freed with it. As codec.c, whose helpers it uses. */
#include <string.h>

#include "base/alloc.h"
#include "base/dtype.h"
#include "client/src/codec_pb.h"
#include "espalier/v1/admin.pb-c.h"

#define DIGEST_BYTES 16

/* ---- requests ---- */

enum esp_code esp_encode_describe(struct esp_buf *buf, const char *selection, bool with_digest, struct esp_status *st) {
  Espalier__V1__DescribeRequest message = ESPALIER__V1__DESCRIBE_REQUEST__INIT;
  message.selection = esp_pb_text(selection);
  message.digest = with_digest;
  return esp_pb_pack(buf, &message.base, st);
}

/* ---- the diff of an apply ---- */

struct apply_box {
  struct esp_apply_result result;   /* first, so that the caller's pointer is the box's */
  struct esp_apply_change *changes; /* owned; result.changes */
  size_t changes_capacity;          /* of changes */
  const char **notes;               /* owned; result.notes */
  size_t notes_capacity;            /* of notes */
  struct esp_arena arena;           /* the strings */
};

void esp_apply_result_free(struct esp_apply_result *result) {
  struct apply_box *box = (struct apply_box *)result;
  if (box == NULL)
    return;
  esp_arena_done(&box->arena);
  esp_free(box->changes);
  esp_free(box->notes);
  esp_free(box);
}

static bool add_change(struct apply_box *box, const Espalier__V1__Change *from) {
  size_t len = box->result.changes_len;
  if (!esp_grow((void **)&box->changes, &box->changes_capacity, len + 1, sizeof *box->changes))
    return false;
  struct esp_apply_change *change = &box->changes[len];
  change->leaf = from->leaf_id;
  bool ok = esp_pb_copy_text(&box->arena, from->path, &change->path) &&
            esp_pb_copy_text(&box->arena, from->field, &change->field) &&
            esp_pb_copy_text(&box->arena, from->from, &change->from) &&
            esp_pb_copy_text(&box->arena, from->to, &change->to) &&
            esp_pb_copy_text(&box->arena, from->because, &change->because);
  box->result.changes = box->changes;
  box->result.changes_len += ok;
  return ok;
}

static bool add_note(struct apply_box *box, const char *text) {
  size_t len = box->result.notes_len;
  if (!esp_grow((void **)&box->notes, &box->notes_capacity, len + 1, sizeof *box->notes))
    return false;
  bool ok = esp_pb_copy_text(&box->arena, text, &box->notes[len]);
  box->result.notes = box->notes;
  box->result.notes_len += ok;
  return ok;
}

static bool add_apply_page(struct apply_box *box, const Espalier__V1__ApplyResponse *page) {
  box->result.epoch = page->epoch;
  box->result.commit = page->commit;
  box->result.matched = page->matched > box->result.matched ? page->matched : box->result.matched;
  box->result.dry_run = page->dry_run != 0;
  for (size_t i = 0; i < page->n_changes; i++)
    if (!add_change(box, page->changes[i]))
      return false;
  for (size_t i = 0; i < page->n_notes; i++)
    if (!add_note(box, page->notes[i]))
      return false;
  return true;
}

static struct apply_box *apply_box_new(void) {
  struct apply_box *box = esp_calloc(1, sizeof *box);
  if (box != NULL)
    esp_arena_init(&box->arena, ESP_RESULT_BYTES_MAX);
  return box;
}

enum esp_code esp_decode_apply(struct esp_in in, struct esp_apply_result **result, struct esp_status *st) {
  struct esp_arena arena;
  Espalier__V1__ApplyResponse *page;
  enum esp_code code = esp_pb_unpack(in, NO_CHUNKS, &espalier__v1__apply_response__descriptor, &arena, &page, st);
  if (code == ESP_OK) {
    struct apply_box *box = *result == NULL ? apply_box_new() : (struct apply_box *)*result;
    if (box != NULL)
      *result = &box->result;
    if (box == NULL || !add_apply_page(box, page))
      code = esp_fail(st, ESP_RESOURCE_EXHAUSTED,
                      "out of memory for the server's answer: the changes of an apply, which was done");
  }
  esp_arena_done(&arena);
  return code;
}

/* ---- descriptions ---- */

struct description_box {
  struct esp_description description; /* first, so that the caller's pointer is the box's */
  struct esp_leaf_info *leaves;       /* owned; description.leaves */
  size_t leaves_capacity;             /* of leaves */
  struct esp_group_info *groups;      /* owned; description.groups */
  size_t groups_capacity;             /* of groups */
  struct esp_arena arena;             /* the strings */
};

void esp_description_free(struct esp_description *description) {
  struct description_box *box = (struct description_box *)description;
  if (box == NULL)
    return;
  esp_arena_done(&box->arena);
  esp_free(box->leaves);
  esp_free(box->groups);
  esp_free(box);
}

static void copy_digest(const ProtobufCBinaryData *from, uint8_t to[DIGEST_BYTES]) {
  if (from->len == DIGEST_BYTES)
    memcpy(to, from->data, DIGEST_BYTES);
}

static void copy_leaf(const Espalier__V1__LeafInfo *from, struct esp_leaf_info *leaf) {
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
}

static bool add_leaf(struct description_box *box, const Espalier__V1__LeafInfo *from) {
  size_t len = box->description.leaves_len;
  if (!esp_grow((void **)&box->leaves, &box->leaves_capacity, len + 1, sizeof *box->leaves))
    return false;
  struct esp_leaf_info *leaf = &box->leaves[len];
  memset(leaf, 0, sizeof *leaf);
  copy_leaf(from, leaf);
  bool ok = esp_pb_copy_text(&box->arena, from->path, &leaf->path) &&
            esp_pb_copy_text(&box->arena, from->group, &leaf->group) &&
            esp_pb_copy_text(&box->arena, from->group_assigned, &leaf->group_assigned) &&
            esp_pb_copy_text(&box->arena, from->tag, &leaf->tag) &&
            esp_pb_copy_text(&box->arena, from->tied_to, &leaf->tied_to);
  box->description.leaves = box->leaves;
  box->description.leaves_len += ok;
  return ok;
}

static bool add_group(struct description_box *box, const Espalier__V1__GroupInfo *from) {
  size_t len = box->description.groups_len;
  if (!esp_grow((void **)&box->groups, &box->groups_capacity, len + 1, sizeof *box->groups))
    return false;
  struct esp_group_info *group = &box->groups[len];
  group->parameters = from->parameters;
  bool ok = esp_pb_copy_text(&box->arena, from->name, &group->name) &&
            esp_pb_copy_text(&box->arena, from->expression, &group->expression);
  box->description.groups = box->groups;
  box->description.groups_len += ok;
  return ok;
}

static enum esp_code add_describe_page(struct description_box *box, const Espalier__V1__DescribeResponse *page,
                                       struct esp_status *st) {
  box->description.epoch = page->epoch;
  box->description.commit = page->commit;
  box->description.lineage = page->lineage;
  copy_digest(&page->digest, box->description.digest);
  for (size_t i = 0; i < page->n_leaves; i++) {
    if (page->leaves[i]->n_shape > ESP_LEAF_RANK_MAX)
      return esp_fail(st, ESP_INTERNAL, "the server described %s with rank %zu", page->leaves[i]->path,
                      page->leaves[i]->n_shape);
    if (!add_leaf(box, page->leaves[i]))
      return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for a description of the tree");
  }
  for (size_t i = 0; i < page->n_groups; i++)
    if (!add_group(box, page->groups[i]))
      return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for a description of the tree");
  return ESP_OK;
}

static struct description_box *description_box_new(void) {
  struct description_box *box = esp_calloc(1, sizeof *box);
  if (box != NULL)
    esp_arena_init(&box->arena, ESP_RESULT_BYTES_MAX);
  return box;
}

enum esp_code esp_decode_describe(struct esp_in in, struct esp_description **result, struct esp_status *st) {
  struct esp_arena arena;
  Espalier__V1__DescribeResponse *page;
  enum esp_code code = esp_pb_unpack(in, NO_CHUNKS, &espalier__v1__describe_response__descriptor, &arena, &page, st);
  if (code == ESP_OK) {
    struct description_box *box = *result == NULL ? description_box_new() : (struct description_box *)*result;
    if (box != NULL)
      *result = &box->description;
    code = box == NULL ? esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for a description of the tree")
                       : add_describe_page(box, page, st);
  }
  esp_arena_done(&arena);
  return code;
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

struct workers_box {
  struct esp_workers workers;   /* first, so that the caller's pointer is the box's */
  struct esp_worker_info *list; /* owned; workers.workers */
  size_t capacity;              /* of list */
  struct esp_arena arena;       /* the strings */
};

void esp_workers_free(struct esp_workers *workers) {
  struct workers_box *box = (struct workers_box *)workers;
  if (box == NULL)
    return;
  esp_arena_done(&box->arena);
  esp_free(box->list);
  esp_free(box);
}

static bool add_worker(struct workers_box *box, const Espalier__V1__WorkersResponse__Worker *from) {
  size_t len = box->workers.len;
  if (!esp_grow((void **)&box->list, &box->capacity, len + 1, sizeof *box->list))
    return false;
  struct esp_worker_info *worker = &box->list[len];
  *worker = (struct esp_worker_info){.session = from->session,
                                     .live = from->live != 0,
                                     .last_sequence = from->last_sequence,
                                     .in_flight = from->in_flight,
                                     .pushes = from->pushes,
                                     .last_seen_ms = from->last_seen_ms,
                                     .staleness = from->staleness};
  bool ok = esp_pb_copy_text(&box->arena, from->name, &worker->name) &&
            esp_pb_copy_text(&box->arena, from->peer, &worker->peer);
  box->workers.workers = box->list;
  box->workers.len += ok;
  return ok;
}

static bool add_workers_page(struct workers_box *box, const Espalier__V1__WorkersResponse *page) {
  for (size_t i = 0; i < page->n_workers; i++)
    if (!add_worker(box, page->workers[i]))
      return false;
  return true;
}

static struct workers_box *workers_box_new(void) {
  struct workers_box *box = esp_calloc(1, sizeof *box);
  if (box != NULL)
    esp_arena_init(&box->arena, ESP_RESULT_BYTES_MAX);
  return box;
}

enum esp_code esp_decode_workers(struct esp_in in, struct esp_workers **result, struct esp_status *st) {
  struct esp_arena arena;
  Espalier__V1__WorkersResponse *page;
  enum esp_code code = esp_pb_unpack(in, NO_CHUNKS, &espalier__v1__workers_response__descriptor, &arena, &page, st);
  if (code == ESP_OK) {
    struct workers_box *box = *result == NULL ? workers_box_new() : (struct workers_box *)*result;
    if (box != NULL)
      *result = &box->workers;
    if (box == NULL || !add_workers_page(box, page))
      code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for the list of workers");
  }
  esp_arena_done(&arena);
  return code;
}
