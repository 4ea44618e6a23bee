/* Operations of a plan to those of the library.
 *
 * Happy path: field by field, with arrays for what an operation refers to. A `set` reads its file and uploads it, so
 * that the operation has a stage to name.
 *
 * How it fails: a file that can't be read or is no array, an upload that the server refuses. Nothing has changed then;
 * what was uploaded expires by itself. */
#include <string.h>

#include "base/alloc.h"
#include "client/cli/cli.h"
#include "client/cli/input.h"
#include "formats/npy.h"

/* Reads the file and uploads its array, which the server checks against the leaf. */
static enum esp_code stage(struct esp_cli *cli, const char *path, const char *file, uint64_t *ret_stage,
                           struct esp_status *st) {
  struct esp_cli_input input = {0};
  struct esp_npy array;
  enum esp_code code = esp_cli_input_read(&input, file, st);
  if (code != ESP_OK)
    return code;
  code = esp_npy_parse(input.data, input.len, &array, st);
  if (code != ESP_OK) {
    esp_fail(st, code, "%s: %s", file, st->message);
    goto done;
  }
  struct esp_tensor tensor = {.dtype = (enum esp_leaf_dtype)array.dtype,
                              .rank = array.shape.rank,
                              .data = input.data + (input.len - array.bytes), /* the data ends the file */
                              .bytes = array.bytes};
  for (unsigned i = 0; i < array.shape.rank; i++)
    tensor.shape[i] = array.shape.dims[i];
  code = esp_stage(cli->client, path, &tensor, ret_stage, st);
done:
  esp_cli_input_free(&input);
  return code;
}

static enum esp_op_kind kind_of(enum esp_plan_kind kind) {
  static const enum esp_op_kind kinds[] = {
      [ESP_PLAN_FREEZE] = ESP_OP_FREEZE,
      [ESP_PLAN_THAW] = ESP_OP_THAW,
      [ESP_PLAN_DETACH] = ESP_OP_DETACH,
      [ESP_PLAN_ATTACH] = ESP_OP_ATTACH,
      [ESP_PLAN_TIE] = ESP_OP_TIE,
      [ESP_PLAN_UNTIE] = ESP_OP_UNTIE,
      [ESP_PLAN_REGROUP] = ESP_OP_REGROUP,
      [ESP_PLAN_ADJUST] = ESP_OP_ADJUST,
      [ESP_PLAN_SET] = ESP_OP_SET,
      [ESP_PLAN_COPY] = ESP_OP_COPY,
      [ESP_PLAN_RENAME] = ESP_OP_RENAME,
      [ESP_PLAN_ADD] = ESP_OP_ADD,
      [ESP_PLAN_REMOVE] = ESP_OP_REMOVE,
      [ESP_PLAN_REINIT] = ESP_OP_REINIT,
      [ESP_PLAN_RESET] = ESP_OP_RESET,
      [ESP_PLAN_CREATE_GROUP] = ESP_OP_DEFINE_GROUP,
      [ESP_PLAN_SET_GROUP] = ESP_OP_DEFINE_GROUP,
      [ESP_PLAN_DELETE_GROUP] = ESP_OP_DELETE_GROUP,
      [ESP_PLAN_NAME_SELECTION] = ESP_OP_NAME_SELECTION,
      [ESP_PLAN_CANCEL_TIMER] = ESP_OP_CANCEL_TIMER,
      [ESP_PLAN_UNDO] = ESP_OP_UNDO,
  };
  return kinds[kind];
}

static enum esp_leaf_init init_of(enum esp_plan_init_kind kind) {
  static const enum esp_leaf_init inits[] = {[ESP_PLAN_ZEROS] = ESP_ZEROS,
                                             [ESP_PLAN_CONSTANT] = ESP_CONSTANT,
                                             [ESP_PLAN_UNIFORM] = ESP_UNIFORM,
                                             [ESP_PLAN_NORMAL] = ESP_NORMAL};
  return inits[kind];
}

static struct esp_leaf_spec leaf_of(const struct esp_plan_op *op) {
  struct esp_leaf_spec leaf = {.path = op->selection,
                               .rank = op->shape.rank,
                               .dtype = (enum esp_leaf_dtype)op->dtype,
                               .kind = op->is_buffer ? ESP_BUFFER : ESP_TRAINED,
                               .tag = op->tag,
                               .group = op->group,
                               .frozen = op->frozen,
                               .init = init_of(op->init.kind),
                               .a = op->init.a,
                               .b = op->init.b,
                               .seed = op->init.seed,
                               .alias_of = op->alias_of,
                               .transposed = op->transposed,
                               .detached = op->detached};
  memcpy(leaf.shape, op->shape.dims, op->shape.rank * sizeof leaf.shape[0]);
  return leaf;
}

static struct esp_op op_of(const struct esp_plan_op *op) {
  return (struct esp_op){.kind = kind_of(op->kind),
                         .selection = op->selection,
                         .reset_state = op->reset_state,
                         .to = op->to,
                         .name = op->name,
                         .transposed = op->transposed,
                         .mean = op->mean,
                         .init = init_of(op->init.kind),
                         .a = op->init.a,
                         .b = op->init.b,
                         .seed = op->init.seed,
                         .epoch = op->epoch,
                         .at_commit = op->at_commit,
                         .until_commit = op->until_commit,
                         .for_ms = op->for_ms,
                         .one_by_one = op->one_by_one,
                         .every = op->every,
                         .timer = op->timer};
}

static enum esp_code ops_new(const struct esp_plan *plan, struct esp_cli_ops *ret, struct esp_status *st) {
  size_t hypers_len = 0;
  for (size_t i = 0; i < plan->len; i++)
    hypers_len += plan->ops[i].hypers_len;
  ret->ops = esp_calloc(plan->len + 1, sizeof *ret->ops);
  ret->leaves = esp_calloc(plan->len + 1, sizeof *ret->leaves);
  ret->hypers = esp_calloc(hypers_len + 1, sizeof *ret->hypers);
  if (ret->ops == NULL || ret->leaves == NULL || ret->hypers == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for %zu operations", plan->len);
  return ESP_OK;
}

enum esp_code esp_cli_ops_make(struct esp_cli *cli, const struct esp_plan *plan, struct esp_cli_ops *ret,
                               struct esp_status *st) {
  struct esp_cli_ops made = {0};
  size_t hypers_len = 0;
  enum esp_code code = ops_new(plan, &made, st);
  for (; code == ESP_OK && made.len < plan->len; made.len++) {
    const struct esp_plan_op *from = &plan->ops[made.len];
    struct esp_op *op = &made.ops[made.len];
    *op = op_of(from);
    op->hypers = &made.hypers[hypers_len];
    op->hypers_len = from->hypers_len;
    for (size_t i = 0; i < from->hypers_len; i++)
      made.hypers[hypers_len++] = (struct esp_hyper){from->hypers[i].name, from->hypers[i].value};
    if (from->kind == ESP_PLAN_ADD) {
      made.leaves[made.len] = leaf_of(from);
      op->leaf = &made.leaves[made.len];
    }
    if (from->kind == ESP_PLAN_SET)
      code = stage(cli, from->selection, from->file, &op->stage, st);
  }
  if (code == ESP_OK)
    *ret = made;
  else
    esp_cli_ops_done(&made);
  return code;
}

void esp_cli_ops_done(struct esp_cli_ops *ops) {
  esp_free(ops->ops);
  esp_free(ops->leaves);
  esp_free(ops->hypers);
  *ops = (struct esp_cli_ops){0};
}
