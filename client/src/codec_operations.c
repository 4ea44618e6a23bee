/* An Apply as bytes: its operations, each as the message of its kind. As codec.c, whose helpers it uses. */
#include "base/alloc.h"
#include "client/src/codec_pb.h"

typedef Espalier__V1__Operation__Adjust__HyperparametersEntry entry;

/* One operation and all that it may consist of. */
struct operation {
  Espalier__V1__Operation operation;
  union {
    Espalier__V1__Operation__Freeze freeze;
    Espalier__V1__Operation__Thaw thaw;
    Espalier__V1__Operation__Detach detach;
    Espalier__V1__Operation__Attach attach;
    Espalier__V1__Operation__Tie tie;
    Espalier__V1__Operation__Untie untie;
    Espalier__V1__Operation__Regroup regroup;
    Espalier__V1__Operation__Adjust adjust;
    Espalier__V1__Operation__Set set;
    Espalier__V1__Operation__Copy copy;
    Espalier__V1__Operation__Rename rename;
    Espalier__V1__Operation__Add add;
    Espalier__V1__Operation__Remove remove;
    Espalier__V1__Operation__Reinit reinit;
    Espalier__V1__Operation__ResetState reset;
    Espalier__V1__Operation__DefineGroup define_group;
    Espalier__V1__Operation__DeleteGroup delete_group;
    Espalier__V1__Operation__NameSelection name_selection;
    Espalier__V1__Operation__Undo undo;
    Espalier__V1__Operation__CancelTimer cancel_timer;
  } part;
  struct esp_pb_leaf leaf; /* of an add */
  struct esp_pb_init init; /* of a reinit */
};

/* Lists that the operations of one transaction share. */
struct request {
  struct operation *operations;
  Espalier__V1__Operation **list;
  entry *entries;      /* hyperparameters of all adjusts, one after the other */
  entry **entry_list;  /* one an entry */
  size_t entries_used; /* of both */
};

/* Begins the part of this kind. */
#define PART(fill, name, type, NAME)                                                                                   \
  (espalier__v1__operation__##type##__init(&(fill)->part.name),                                                        \
   (fill)->operation.operation_case = ESPALIER__V1__OPERATION__OPERATION_##NAME,                                       \
   (fill)->operation.name = &(fill)->part.name)

static void fill_freeze(const struct esp_op *op, struct operation *fill) {
  Espalier__V1__Operation__Freeze *freeze = PART(fill, freeze, freeze, FREEZE);
  freeze->selection = esp_pb_text(op->selection);
  freeze->for_ms = op->for_ms;
  freeze->until_commit = op->until_commit;
  freeze->at_commit = op->at_commit;
}

static void fill_thaw(const struct esp_op *op, struct operation *fill) {
  Espalier__V1__Operation__Thaw *thaw = PART(fill, thaw, thaw, THAW);
  thaw->selection = esp_pb_text(op->selection);
  thaw->reset_state = op->reset_state;
  thaw->at_commit = op->at_commit;
  thaw->one_by_one = op->one_by_one;
  thaw->every_commits = op->every;
}

static void fill_tie(const struct esp_op *op, struct operation *fill) {
  Espalier__V1__Operation__Tie *tie = PART(fill, tie, tie, TIE);
  tie->leaf = esp_pb_text(op->selection);
  tie->to = esp_pb_text(op->to);
  tie->view = op->transposed ? ESPALIER__V1__VIEW__VIEW_TRANSPOSE : ESPALIER__V1__VIEW__VIEW_IDENTITY;
  tie->value = op->mean ? ESPALIER__V1__OPERATION__TIE__VALUE__MEAN : ESPALIER__V1__OPERATION__TIE__VALUE__KEEP;
}

static void fill_adjust(const struct esp_op *op, struct request *request, struct operation *fill) {
  Espalier__V1__Operation__Adjust *adjust = PART(fill, adjust, adjust, ADJUST);
  adjust->group = esp_pb_text(op->name);
  adjust->n_hyperparameters = op->hypers_len;
  adjust->hyperparameters = &request->entry_list[request->entries_used];
  for (size_t i = 0; i < op->hypers_len; i++) {
    entry *one = &request->entries[request->entries_used];
    espalier__v1__operation__adjust__hyperparameters_entry__init(one);
    one->key = esp_pb_text(op->hypers[i].name);
    one->value = esp_pb_text(op->hypers[i].value);
    request->entry_list[request->entries_used++] = one;
  }
}

static void fill_set(const struct esp_op *op, struct operation *fill) {
  Espalier__V1__Operation__Set *set = PART(fill, set, set, SET);
  set->selection = esp_pb_text(op->selection);
  set->stage = op->stage;
  set->reset_state = op->reset_state;
}

static void fill_add(const struct esp_op *op, struct operation *fill) {
  esp_pb_fill_leaf(op->leaf, &fill->leaf);
  PART(fill, add, add, ADD)->leaf = &fill->leaf.leaf;
}

static void fill_reinit(const struct esp_op *op, struct operation *fill) {
  Espalier__V1__Operation__Reinit *reinit = PART(fill, reinit, reinit, REINIT);
  esp_pb_fill_init(op->init, op->a, op->b, op->seed, &fill->init);
  reinit->selection = esp_pb_text(op->selection);
  reinit->init = &fill->init.init;
}

/* Two texts of one operation. */
static void fill_pair(char **a, const char *text_a, char **b, const char *text_b) {
  *a = esp_pb_text(text_a);
  *b = esp_pb_text(text_b);
}

static void fill_operation(const struct esp_op *op, struct request *request, struct operation *fill) {
  espalier__v1__operation__init(&fill->operation);
  switch (op->kind) {
  case ESP_OP_FREEZE:
    fill_freeze(op, fill);
    break;
  case ESP_OP_THAW:
    fill_thaw(op, fill);
    break;
  case ESP_OP_SET:
    fill_set(op, fill);
    break;
  case ESP_OP_DETACH:
    PART(fill, detach, detach, DETACH)->selection = esp_pb_text(op->selection);
    break;
  case ESP_OP_ATTACH:
    PART(fill, attach, attach, ATTACH)->selection = esp_pb_text(op->selection);
    break;
  case ESP_OP_TIE:
    fill_tie(op, fill);
    break;
  case ESP_OP_UNTIE:
    PART(fill, untie, untie, UNTIE)->selection = esp_pb_text(op->selection);
    fill->part.untie.reset_state = op->reset_state;
    break;
  case ESP_OP_REGROUP:
    PART(fill, regroup, regroup, REGROUP);
    fill_pair(&fill->part.regroup.selection, op->selection, &fill->part.regroup.group, op->to);
    break;
  case ESP_OP_ADJUST:
    fill_adjust(op, request, fill);
    break;
  case ESP_OP_COPY:
    PART(fill, copy, copy, COPY);
    fill_pair(&fill->part.copy.from, op->selection, &fill->part.copy.to, op->to);
    break;
  case ESP_OP_RENAME:
    PART(fill, rename, rename, RENAME);
    fill_pair(&fill->part.rename.from, op->selection, &fill->part.rename.to, op->to);
    break;
  case ESP_OP_ADD:
    fill_add(op, fill);
    break;
  case ESP_OP_REMOVE:
    PART(fill, remove, remove, REMOVE)->selection = esp_pb_text(op->selection);
    break;
  case ESP_OP_REINIT:
    fill_reinit(op, fill);
    break;
  case ESP_OP_RESET:
    PART(fill, reset, reset_state, RESET)->selection = esp_pb_text(op->selection);
    break;
  case ESP_OP_DEFINE_GROUP:
    PART(fill, define_group, define_group, DEFINE_GROUP);
    fill_pair(&fill->part.define_group.name, op->name, &fill->part.define_group.expression, op->to);
    break;
  case ESP_OP_DELETE_GROUP:
    PART(fill, delete_group, delete_group, DELETE_GROUP)->name = esp_pb_text(op->name);
    break;
  case ESP_OP_UNDO:
    PART(fill, undo, undo, UNDO)->epoch = op->epoch;
    break;
  case ESP_OP_CANCEL_TIMER:
    PART(fill, cancel_timer, cancel_timer, CANCEL_TIMER)->timer = op->timer;
    break;
  case ESP_OP_NAME_SELECTION:
    PART(fill, name_selection, name_selection, NAME_SELECTION);
    fill_pair(&fill->part.name_selection.name, op->name, &fill->part.name_selection.selection, op->selection);
    break;
  }
}

static bool request_new(const struct esp_op *ops, size_t len, struct request *request) {
  size_t entries_len = 0;
  for (size_t i = 0; i < len; i++)
    entries_len += ops[i].kind == ESP_OP_ADJUST ? ops[i].hypers_len : 0;
  request->operations = esp_malloc_array(len + 1, sizeof *request->operations);
  request->list = esp_malloc_array(len + 1, sizeof(Espalier__V1__Operation *));
  request->entries = esp_malloc_array(entries_len + 1, sizeof *request->entries);
  request->entry_list = esp_malloc_array(entries_len + 1, sizeof(entry *));
  return request->operations != NULL && request->list != NULL && request->entries != NULL &&
         request->entry_list != NULL;
}

static void request_done(struct request *request) {
  esp_free(request->operations);
  esp_free(request->list);
  esp_free(request->entries);
  esp_free(request->entry_list);
}

enum esp_code esp_encode_apply(struct esp_buf *buf, const struct esp_op *ops, size_t len,
                               const struct esp_apply_options *options, const char *key, struct esp_status *st) {
  struct request request = {0};
  enum esp_code code = ESP_OK;
  if (!request_new(ops, len, &request))
    code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for %zu operations", len);
  if (code == ESP_OK) {
    for (size_t i = 0; i < len; i++) {
      fill_operation(&ops[i], &request, &request.operations[i]);
      request.list[i] = &request.operations[i].operation;
    }
    Espalier__V1__ApplyRequest message = ESPALIER__V1__APPLY_REQUEST__INIT;
    message.n_operations = len;
    message.operations = request.list;
    message.if_epoch = options->if_epoch;
    message.dry_run = options->dry_run;
    message.max_leaves = options->max_leaves;
    message.reason = esp_pb_text(options->reason);
    message.idempotency_key = (char *)key;
    code = esp_pb_pack(buf, &message.base, st);
  }
  request_done(&request);
  return code;
}
