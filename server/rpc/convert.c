/* Messages to the engine's structs.
 *
 * Happy path: field by field, one function for each operation that has something to check. Lists (an operation's
 * hyperparameters, its leaf) are gathered in arrays beside the operations, whose sizes are counted first.
 *
 * How it fails: only what the engine can't be told at all is refused here. Whether an operation is allowed is the
 * engine's to say. */
#include "rpc/convert.h"

#include <string.h>

#include "base/alloc.h"

/* ---- leaves and nodes ---- */

static enum esp_code convert_shape(const Espalier__V1__LeafSpec *spec, struct esp_shape *ret, struct esp_status *st) {
  if (spec->n_shape > ESP_RANK_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "\"%s\" has rank %zu, and %d is the most", spec->path, spec->n_shape,
                    ESP_RANK_MAX);
  *ret = (struct esp_shape){.rank = (unsigned)spec->n_shape};
  for (size_t i = 0; i < spec->n_shape; i++)
    ret->dims[i] = spec->shape[i];
  return ESP_OK;
}

static enum esp_code convert_view(const char *path, Espalier__V1__View view, enum esp_view *ret,
                                  struct esp_status *st) {
  if (view > ESPALIER__V1__VIEW__VIEW_TRANSPOSE)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "\"%s\" has no view that is known (%d)", path, (int)view);
  *ret = (enum esp_view)view;
  return ESP_OK;
}

static enum esp_code convert_kinds(const Espalier__V1__LeafSpec *spec, struct esp_declare_leaf *ret,
                                   struct esp_status *st) {
  if (spec->dtype < ESPALIER__V1__DTYPE__DTYPE_F32 || spec->dtype > ESPALIER__V1__DTYPE__DTYPE_F16)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "\"%s\" has no dtype that is known (%d)", spec->path, (int)spec->dtype);
  if (spec->kind > ESPALIER__V1__KIND__KIND_BUFFER)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "\"%s\" has no kind that is known (%d)", spec->path, (int)spec->kind);
  ret->dtype = (enum esp_dtype)spec->dtype;
  ret->kind = spec->kind == ESPALIER__V1__KIND__KIND_BUFFER ? ESP_KIND_BUFFER : ESP_KIND_TRAINED;
  return convert_view(spec->path, spec->view, &ret->view, st);
}

static struct esp_init convert_init(const Espalier__V1__Initializer *init) {
  struct esp_init ret = {.kind = ESP_INIT_ZEROS};
  if (init == NULL)
    return ret;
  ret.seed = init->seed;
  switch (init->value_case) {
  case ESPALIER__V1__INITIALIZER__VALUE_CONSTANT:
    ret.kind = ESP_INIT_CONSTANT;
    ret.a = init->constant;
    break;
  case ESPALIER__V1__INITIALIZER__VALUE_UNIFORM:
    ret.kind = ESP_INIT_UNIFORM;
    ret.a = init->uniform->low;
    ret.b = init->uniform->high;
    break;
  case ESPALIER__V1__INITIALIZER__VALUE_NORMAL:
    ret.kind = ESP_INIT_NORMAL;
    ret.a = init->normal->mean;
    ret.b = init->normal->stddev;
    break;
  case ESPALIER__V1__INITIALIZER__VALUE_FOLLOWS:
    ret.kind = init->follows ? ESP_INIT_VALUE : ESP_INIT_ZEROS;
    break;
  default:
    break;
  }
  return ret;
}

enum esp_code esp_convert_leaf(const Espalier__V1__LeafSpec *spec, struct esp_declare_leaf *ret,
                               struct esp_status *st) {
  struct esp_declare_leaf leaf = {
      .path = spec->path,
      .path_len = strlen(spec->path),
      .tag = spec->tag,
      .group = spec->group,
      .alias_of = spec->alias_of,
      .frozen = spec->frozen,
      .detached = spec->detached,
      .init = convert_init(spec->init),
  };
  enum esp_code code = convert_shape(spec, &leaf.shape, st);
  if (code == ESP_OK)
    code = convert_kinds(spec, &leaf, st);
  if (code == ESP_OK)
    *ret = leaf;
  return code;
}

struct esp_declare_node esp_convert_node(const Espalier__V1__NodeSpec *spec) {
  return (struct esp_declare_node){
      .path = spec->path,
      .path_len = strlen(spec->path),
      .tag = spec->tag,
      .group = spec->group,
      .frozen = spec->frozen,
      .detached = spec->detached,
  };
}

/* ---- operations ---- */

static struct esp_operation convert_freeze(const Espalier__V1__Operation__Freeze *freeze) {
  return (struct esp_operation){.kind = ESP_OPERATION_FREEZE,
                                .selection = freeze->selection,
                                .at_commit = freeze->at_commit,
                                .until_commit = freeze->until_commit,
                                .for_ms = freeze->for_ms};
}

static struct esp_operation convert_thaw(const Espalier__V1__Operation__Thaw *thaw) {
  return (struct esp_operation){.kind = ESP_OPERATION_THAW,
                                .selection = thaw->selection,
                                .reset_state = thaw->reset_state,
                                .at_commit = thaw->at_commit,
                                .one_by_one = thaw->one_by_one,
                                .every = thaw->every_commits};
}

static enum esp_code convert_tie(const Espalier__V1__Operation__Tie *tie, struct esp_operation *ret,
                                 struct esp_status *st) {
  struct esp_operation op = {.kind = ESP_OPERATION_TIE, .selection = tie->leaf, .to = tie->to};
  if (tie->value > ESPALIER__V1__OPERATION__TIE__VALUE__MEAN)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a tie of \"%s\" with no value that is known (%d)", tie->leaf,
                    (int)tie->value);
  op.mean = tie->value == ESPALIER__V1__OPERATION__TIE__VALUE__MEAN;
  enum esp_code code = convert_view(tie->leaf, tie->view, &op.view, st);
  if (code == ESP_OK)
    *ret = op;
  return code;
}

static enum esp_code convert_add(const Espalier__V1__Operation__Add *add, struct esp_declare_leaf *leaf,
                                 struct esp_operation *ret, struct esp_status *st) {
  if (add->leaf == NULL)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "an operation adds a leaf without saying which");
  enum esp_code code = esp_convert_leaf(add->leaf, leaf, st);
  if (code != ESP_OK)
    return code;
  if (leaf->init.kind == ESP_INIT_VALUE)
    return esp_fail(st, ESP_INVALID_ARGUMENT,
                    "\"%s\": the value of an added leaf can't follow (follows); add it with another initializer, then "
                    "set it",
                    leaf->path);
  *ret = (struct esp_operation){.kind = ESP_OPERATION_ADD, .leaf = leaf};
  return ESP_OK;
}

/* Overwrites values, so it is told how in so many words: no initializer is not zeros here. */
static enum esp_code convert_reinit(const Espalier__V1__Operation__Reinit *reinit, struct esp_operation *ret,
                                    struct esp_status *st) {
  if (reinit->init == NULL || reinit->init->value_case == ESPALIER__V1__INITIALIZER__VALUE__NOT_SET)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a reinit of \"%s\" without an initializer that is known",
                    reinit->selection);
  if (reinit->init->value_case == ESPALIER__V1__INITIALIZER__VALUE_FOLLOWS)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a reinit of \"%s\" with a value that follows: that is a set",
                    reinit->selection);
  *ret = (struct esp_operation){
      .kind = ESP_OPERATION_REINIT, .selection = reinit->selection, .init = convert_init(reinit->init)};
  return ESP_OK;
}

/* Takes as many of *hypers as it needs. */
static struct esp_operation convert_adjust(const Espalier__V1__Operation__Adjust *adjust,
                                           struct esp_hyper_change **hypers) {
  struct esp_hyper_change *changes = *hypers;
  for (size_t i = 0; i < adjust->n_hyperparameters; i++)
    changes[i] =
        (struct esp_hyper_change){.name = adjust->hyperparameters[i]->key, .value = adjust->hyperparameters[i]->value};
  *hypers += adjust->n_hyperparameters;
  return (struct esp_operation){
      .kind = ESP_OPERATION_ADJUST, .name = adjust->group, .hypers = changes, .hypers_len = adjust->n_hyperparameters};
}

/* Those that are a selection and nothing else; NULL for others. */
static const char *selection_of(const Espalier__V1__Operation *from, enum esp_operation_kind *ret_kind) {
  switch (from->operation_case) {
  case ESPALIER__V1__OPERATION__OPERATION_DETACH:
    *ret_kind = ESP_OPERATION_DETACH;
    return from->detach->selection;
  case ESPALIER__V1__OPERATION__OPERATION_ATTACH:
    *ret_kind = ESP_OPERATION_ATTACH;
    return from->attach->selection;
  case ESPALIER__V1__OPERATION__OPERATION_REMOVE:
    *ret_kind = ESP_OPERATION_REMOVE;
    return from->remove->selection;
  case ESPALIER__V1__OPERATION__OPERATION_RESET:
    *ret_kind = ESP_OPERATION_RESET;
    return from->reset->selection;
  default:
    return NULL;
  }
}

/* Those that have nothing to be checked. */
static enum esp_code convert_plain(const Espalier__V1__Operation *from, struct esp_operation *ret) {
  enum esp_operation_kind kind;
  const char *selection = selection_of(from, &kind);
  if (selection != NULL) {
    *ret = (struct esp_operation){.kind = kind, .selection = selection};
    return ESP_OK;
  }
  switch (from->operation_case) {
  case ESPALIER__V1__OPERATION__OPERATION_FREEZE:
    *ret = convert_freeze(from->freeze);
    return ESP_OK;
  case ESPALIER__V1__OPERATION__OPERATION_THAW:
    *ret = convert_thaw(from->thaw);
    return ESP_OK;
  case ESPALIER__V1__OPERATION__OPERATION_UNTIE:
    *ret = (struct esp_operation){
        .kind = ESP_OPERATION_UNTIE, .selection = from->untie->selection, .reset_state = from->untie->reset_state};
    return ESP_OK;
  case ESPALIER__V1__OPERATION__OPERATION_REGROUP:
    *ret = (struct esp_operation){
        .kind = ESP_OPERATION_REGROUP, .selection = from->regroup->selection, .to = from->regroup->group};
    return ESP_OK;
  case ESPALIER__V1__OPERATION__OPERATION_SET:
    *ret = (struct esp_operation){.kind = ESP_OPERATION_SET,
                                  .selection = from->set->selection,
                                  .reset_state = from->set->reset_state,
                                  .stage = from->set->stage};
    return ESP_OK;
  case ESPALIER__V1__OPERATION__OPERATION_COPY:
    *ret = (struct esp_operation){.kind = ESP_OPERATION_COPY, .selection = from->copy->from, .to = from->copy->to};
    return ESP_OK;
  case ESPALIER__V1__OPERATION__OPERATION_RENAME:
    *ret =
        (struct esp_operation){.kind = ESP_OPERATION_RENAME, .selection = from->rename->from, .to = from->rename->to};
    return ESP_OK;
  case ESPALIER__V1__OPERATION__OPERATION_DEFINE_GROUP:
    *ret = (struct esp_operation){
        .kind = ESP_OPERATION_DEFINE_GROUP, .name = from->define_group->name, .to = from->define_group->expression};
    return ESP_OK;
  case ESPALIER__V1__OPERATION__OPERATION_DELETE_GROUP:
    *ret = (struct esp_operation){.kind = ESP_OPERATION_DELETE_GROUP, .name = from->delete_group->name};
    return ESP_OK;
  case ESPALIER__V1__OPERATION__OPERATION_CANCEL_TIMER:
    *ret = (struct esp_operation){.kind = ESP_OPERATION_CANCEL_TIMER, .timer = from->cancel_timer->timer};
    return ESP_OK;
  case ESPALIER__V1__OPERATION__OPERATION_UNDO:
    *ret = (struct esp_operation){.kind = ESP_OPERATION_UNDO, .epoch = from->undo->epoch};
    return ESP_OK;
  case ESPALIER__V1__OPERATION__OPERATION_NAME_SELECTION:
    *ret = (struct esp_operation){.kind = ESP_OPERATION_NAME_SELECTION,
                                  .name = from->name_selection->name,
                                  .selection = from->name_selection->selection};
    return ESP_OK;
  default:
    return ESP_INVALID_ARGUMENT;
  }
}

static enum esp_code convert(const Espalier__V1__Operation *from, struct esp_declare_leaf *leaf,
                             struct esp_hyper_change **hypers, struct esp_operation *ret, struct esp_status *st) {
  switch (from->operation_case) {
  case ESPALIER__V1__OPERATION__OPERATION_TIE:
    return convert_tie(from->tie, ret, st);
  case ESPALIER__V1__OPERATION__OPERATION_ADD:
    return convert_add(from->add, leaf, ret, st);
  case ESPALIER__V1__OPERATION__OPERATION_REINIT:
    return convert_reinit(from->reinit, ret, st);
  case ESPALIER__V1__OPERATION__OPERATION_ADJUST:
    *ret = convert_adjust(from->adjust, hypers);
    return ESP_OK;
  default:
    break;
  }
  if (convert_plain(from, ret) != ESP_OK)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "an operation is empty, or of a kind that this server does not know");
  return ESP_OK;
}

static enum esp_code converted_new(Espalier__V1__Operation *const *from, size_t len, struct esp_converted *ret,
                                   struct esp_status *st) {
  size_t hypers_len = 0;
  for (size_t i = 0; i < len; i++)
    if (from[i]->operation_case == ESPALIER__V1__OPERATION__OPERATION_ADJUST)
      hypers_len += from[i]->adjust->n_hyperparameters;
  ret->operations = esp_malloc_array(len + 1, sizeof(*ret->operations));
  ret->leaves = esp_malloc_array(len + 1, sizeof(*ret->leaves));
  ret->hypers = esp_malloc_array(hypers_len + 1, sizeof(*ret->hypers));
  if (ret->operations == NULL || ret->leaves == NULL || ret->hypers == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for %zu operations", len);
  return ESP_OK;
}

enum esp_code esp_convert_operations(Espalier__V1__Operation *const *from, size_t len, struct esp_converted *ret,
                                     struct esp_status *st) {
  struct esp_converted converted = {0};
  struct esp_status why = {0};
  if (len > ESP_OPERATIONS_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%zu operations, a transaction may have %d", len, ESP_OPERATIONS_MAX);
  enum esp_code code = converted_new(from, len, &converted, st);
  struct esp_hyper_change *hypers = converted.hypers;
  for (size_t i = 0; i < len && code == ESP_OK; i++) {
    code = convert(from[i], &converted.leaves[i], &hypers, &converted.operations[i], &why);
    if (code != ESP_OK && len > 1)
      code = esp_fail(st, code, "operation %zu of %zu: %s", i + 1, len, why.message);
    else if (code != ESP_OK)
      code = esp_fail(st, code, "%s", why.message);
  }
  converted.len = len;
  if (code == ESP_OK)
    *ret = converted;
  else
    esp_converted_done(&converted);
  return code;
}

void esp_converted_done(struct esp_converted *converted) {
  esp_free(converted->operations);
  esp_free(converted->leaves);
  esp_free(converted->hypers);
  *converted = (struct esp_converted){0};
}

/* ---- diffs ---- */

Espalier__V1__Change esp_convert_change(const struct esp_change *change) {
  Espalier__V1__Change ret = ESPALIER__V1__CHANGE__INIT;
  ret.path = (char *)change->path;
  ret.leaf_id = change->leaf_id;
  ret.field = (char *)change->field;
  ret.from = (char *)change->from;
  ret.to = (char *)change->to;
  ret.because = (char *)change->because;
  return ret;
}
