/* Messages of the operators' service as bytes.
 *
 * The happy path: a request is packed from structs in an arena; the pages of an answer are unpacked one by one and
 * copied into one result, whose strings are in an arena that is freed with it. As codec.c, whose helpers it uses. */
#include <string.h>

#include "base/alloc.h"
#include "base/dtype.h"
#include "client/src/codec_pb.h"
#include "espalier/v1/admin.pb-c.h"

/* Of the strings of one answer: a million leaves have some hundred bytes each. */
#define RESULT_BYTES_MAX ((size_t)1 << 30)
#define DIGEST_BYTES 16

/* ---- requests ---- */

/* One operation and all that it may consist of. */
struct operation {
  Espalier__V1__Operation operation;
  Espalier__V1__Operation__Freeze freeze;
  Espalier__V1__Operation__Thaw thaw;
  Espalier__V1__Operation__Set set;
};

static void fill_operation(const struct esp_op *op, struct operation *fill) {
  espalier__v1__operation__init(&fill->operation);
  espalier__v1__operation__freeze__init(&fill->freeze);
  espalier__v1__operation__thaw__init(&fill->thaw);
  espalier__v1__operation__set__init(&fill->set);
  switch (op->kind) {
  case ESP_OP_FREEZE:
    fill->operation.operation_case = ESPALIER__V1__OPERATION__OPERATION_FREEZE;
    fill->operation.freeze = &fill->freeze;
    fill->freeze.selection = esp_pb_text(op->selection);
    break;
  case ESP_OP_THAW:
    fill->operation.operation_case = ESPALIER__V1__OPERATION__OPERATION_THAW;
    fill->operation.thaw = &fill->thaw;
    fill->thaw.selection = esp_pb_text(op->selection);
    fill->thaw.reset_state = op->reset_state;
    break;
  case ESP_OP_SET:
    fill->operation.operation_case = ESPALIER__V1__OPERATION__OPERATION_SET;
    fill->operation.set = &fill->set;
    fill->set.selection = esp_pb_text(op->selection);
    fill->set.stage = op->stage;
    fill->set.reset_state = op->reset_state;
    break;
  }
}

enum esp_code esp_encode_apply(struct esp_buf *buf, const struct esp_op *ops, size_t len,
                               const struct esp_apply_options *options, const char *key, struct esp_status *st) {
  struct operation *fills = esp_malloc_array(len + 1, sizeof *fills);
  Espalier__V1__Operation **list = esp_malloc_array(len + 1, sizeof *list);
  enum esp_code code = ESP_OK;
  if (fills == NULL || list == NULL)
    code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for %zu operations", len);
  if (code == ESP_OK) {
    for (size_t i = 0; i < len; i++) {
      fill_operation(&ops[i], &fills[i]);
      list[i] = &fills[i].operation;
    }
    Espalier__V1__ApplyRequest message = ESPALIER__V1__APPLY_REQUEST__INIT;
    message.n_operations = len;
    message.operations = list;
    message.if_epoch = options->if_epoch;
    message.dry_run = options->dry_run;
    message.max_leaves = options->max_leaves;
    message.reason = esp_pb_text(options->reason);
    message.idempotency_key = (char *)key;
    code = esp_pb_pack(buf, &message.base, st);
  }
  esp_free(list);
  esp_free(fills);
  return code;
}

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

static bool copy_text(struct esp_arena *arena, const char *text, const char **ret) {
  *ret = text[0] == 0 ? "" : esp_arena_strndup(arena, text, strlen(text));
  return *ret != NULL;
}

static bool add_change(struct apply_box *box, const Espalier__V1__Change *from) {
  size_t len = box->result.changes_len;
  if (!esp_grow((void **)&box->changes, &box->changes_capacity, len + 1, sizeof *box->changes))
    return false;
  struct esp_apply_change *change = &box->changes[len];
  change->leaf = from->leaf_id;
  bool ok = copy_text(&box->arena, from->path, &change->path) && copy_text(&box->arena, from->field, &change->field) &&
            copy_text(&box->arena, from->from, &change->from) && copy_text(&box->arena, from->to, &change->to) &&
            copy_text(&box->arena, from->because, &change->because);
  box->result.changes = box->changes;
  box->result.changes_len += ok;
  return ok;
}

static bool add_note(struct apply_box *box, const char *text) {
  size_t len = box->result.notes_len;
  if (!esp_grow((void **)&box->notes, &box->notes_capacity, len + 1, sizeof *box->notes))
    return false;
  bool ok = copy_text(&box->arena, text, &box->notes[len]);
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
    esp_arena_init(&box->arena, RESULT_BYTES_MAX);
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
      code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for the changes of an apply (it was applied)");
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
  bool ok = copy_text(&box->arena, from->path, &leaf->path) && copy_text(&box->arena, from->group, &leaf->group) &&
            copy_text(&box->arena, from->group_assigned, &leaf->group_assigned) &&
            copy_text(&box->arena, from->tag, &leaf->tag) && copy_text(&box->arena, from->tied_to, &leaf->tied_to);
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
  bool ok =
      copy_text(&box->arena, from->name, &group->name) && copy_text(&box->arena, from->expression, &group->expression);
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
    esp_arena_init(&box->arena, RESULT_BYTES_MAX);
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
  if (from->memory == NULL)
    return;
  info->memory_parameters = from->memory->parameters;
  info->memory_state = from->memory->state;
  info->memory_staged = from->memory->staged;
  info->memory_staged_max = from->memory->staged_max;
  info->memory_copy_on_write = from->memory->copy_on_write;
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
