/* A plan's file to a transaction.
 *
 * Happy path: the file's text becomes operations in words, and each of these one of the engine, field by field; each
 * has its line with it, so that whatever is wrong with it later is said of that line.
 *
 * How it fails: with file and line. What the operations name is not looked at here: that is the engine's to say. */
#include "plan/plan.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

#define PLACE_FILE_BYTES_MAX 200 /* of a file's name, in messages */

/* ---- the file ---- */

static enum esp_code fail_errno(const char *file, const char *what, struct esp_status *st) {
  int error = errno;
  return esp_fail(st, error == ENOENT ? ESP_NOT_FOUND : ESP_INVALID_ARGUMENT, "--plan: %.200s can't be %s: %s", file,
                  what, strerror(error));
}

/* All of it, or one byte more than a plan may have. */
static enum esp_code read_all(FILE *in, const char *file, char **ret, size_t *ret_len, struct esp_status *st) {
  char *text = NULL;
  size_t len = 0, capacity = 0, got = 1;
  while (got > 0 && len <= ESP_PLAN_BYTES_MAX) {
    if (!esp_grow((void **)&text, &capacity, len + (64U << 10), 1)) {
      esp_free(text);
      return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "--plan: no memory for %.200s", file);
    }
    got = fread(text + len, 1, capacity - len, in);
    len += got;
  }
  if (ferror(in)) {
    enum esp_code code = fail_errno(file, "read", st);
    esp_free(text);
    return code;
  }
  *ret = text;
  *ret_len = len;
  return ESP_OK;
}

static enum esp_code read_words(const char *file, struct esp_plan *plan, struct esp_status *st) {
  char *text = NULL;
  size_t len = 0;
  struct esp_status why;
  FILE *in = fopen(file, "r");
  if (in == NULL)
    return fail_errno(file, "opened", st);
  enum esp_code code = read_all(in, file, &text, &len, st);
  (void)fclose(in);
  if (code != ESP_OK)
    return code;
  code = esp_plan_add_text(plan, file, text, len, &why);
  esp_free(text);
  if (code == ESP_OK && plan->len == 0)
    code = esp_fail(&why, ESP_INVALID_ARGUMENT, "%.200s: it has no operation", file);
  return code == ESP_OK ? ESP_OK : esp_fail(st, code, "--plan: %s", why.message);
}

/* ---- operations ---- */

static enum esp_operation_kind kind_of(enum esp_plan_kind kind) {
  static const enum esp_operation_kind kinds[] = {
      [ESP_PLAN_FREEZE] = ESP_OPERATION_FREEZE,
      [ESP_PLAN_THAW] = ESP_OPERATION_THAW,
      [ESP_PLAN_DETACH] = ESP_OPERATION_DETACH,
      [ESP_PLAN_ATTACH] = ESP_OPERATION_ATTACH,
      [ESP_PLAN_TIE] = ESP_OPERATION_TIE,
      [ESP_PLAN_UNTIE] = ESP_OPERATION_UNTIE,
      [ESP_PLAN_REGROUP] = ESP_OPERATION_REGROUP,
      [ESP_PLAN_ADJUST] = ESP_OPERATION_ADJUST,
      [ESP_PLAN_SET] = ESP_OPERATION_SET,
      [ESP_PLAN_COPY] = ESP_OPERATION_COPY,
      [ESP_PLAN_RENAME] = ESP_OPERATION_RENAME,
      [ESP_PLAN_ADD] = ESP_OPERATION_ADD,
      [ESP_PLAN_REMOVE] = ESP_OPERATION_REMOVE,
      [ESP_PLAN_REINIT] = ESP_OPERATION_REINIT,
      [ESP_PLAN_RESET] = ESP_OPERATION_RESET,
      [ESP_PLAN_CREATE_GROUP] = ESP_OPERATION_DEFINE_GROUP,
      [ESP_PLAN_SET_GROUP] = ESP_OPERATION_DEFINE_GROUP,
      [ESP_PLAN_DELETE_GROUP] = ESP_OPERATION_DELETE_GROUP,
      [ESP_PLAN_NAME_SELECTION] = ESP_OPERATION_NAME_SELECTION,
      [ESP_PLAN_CANCEL_TIMER] = ESP_OPERATION_CANCEL_TIMER,
      [ESP_PLAN_UNDO] = ESP_OPERATION_UNDO,
  };
  return kinds[kind];
}

static struct esp_init init_of(const struct esp_plan_init *init) {
  static const enum esp_init_kind kinds[] = {[ESP_PLAN_ZEROS] = ESP_INIT_ZEROS,
                                             [ESP_PLAN_CONSTANT] = ESP_INIT_CONSTANT,
                                             [ESP_PLAN_UNIFORM] = ESP_INIT_UNIFORM,
                                             [ESP_PLAN_NORMAL] = ESP_INIT_NORMAL};
  return (struct esp_init){.kind = kinds[init->kind], .a = init->a, .b = init->b, .seed = init->seed};
}

static struct esp_declare_leaf leaf_of(const struct esp_plan_op *op) {
  return (struct esp_declare_leaf){.path = op->selection,
                                   .path_len = strlen(op->selection),
                                   .shape = op->shape,
                                   .dtype = op->dtype,
                                   .kind = op->is_buffer ? ESP_KIND_BUFFER : ESP_KIND_TRAINED,
                                   .tag = op->tag,
                                   .group = op->group,
                                   .alias_of = op->alias_of,
                                   .view = op->transposed ? ESP_VIEW_TRANSPOSE : ESP_VIEW_IDENTITY,
                                   .frozen = op->frozen,
                                   .detached = op->detached,
                                   .init = init_of(&op->init)};
}

static struct esp_operation operation_of(const struct esp_plan_op *op) {
  return (struct esp_operation){.kind = kind_of(op->kind),
                                .selection = op->selection,
                                .to = op->to,
                                .name = op->name,
                                .view = op->transposed ? ESP_VIEW_TRANSPOSE : ESP_VIEW_IDENTITY,
                                .mean = op->mean,
                                .reset_state = op->reset_state,
                                .at_commit = op->at_commit,
                                .until_commit = op->until_commit,
                                .for_ms = op->for_ms,
                                .one_by_one = op->one_by_one,
                                .every = op->every,
                                .init = init_of(&op->init)};
}

/* What can't be meant before there is anything. */
static const char *why_not(enum esp_plan_kind kind) {
  switch (kind) {
  case ESP_PLAN_SET:
    return "a plan can't set values: have a worker declare them, or set them with espctl";
  case ESP_PLAN_UNDO:
    return "a plan can't undo: there is nothing before it";
  case ESP_PLAN_CANCEL_TIMER:
    return "a plan can't cancel a timer: there is none before it";
  default:
    return NULL;
  }
}

/* As espctl has it: `group create` is of a group that is not there, `group set` of one that is. */
static const char *why_no_group(const struct esp_plan *words, size_t index, const struct esp_named *groups,
                                size_t groups_len) {
  bool creates = words->ops[index].kind == ESP_PLAN_CREATE_GROUP, is_there = false;
  if (!creates && words->ops[index].kind != ESP_PLAN_SET_GROUP)
    return NULL;
  if (!esp_plan_says_group(words, index, &is_there)) {
    for (size_t i = 0; i < groups_len; i++)
      is_there = is_there || strcmp(groups[i].name, words->ops[index].name) == 0;
  }
  if (creates && is_there)
    return "the group is there already; group set gives it another optimizer";
  return creates || is_there ? NULL : "there is no such group; group create makes one";
}

static enum esp_code no_memory(size_t len, struct esp_status *st) {
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "--plan: no memory for %zu operations", len);
}

static enum esp_code convert(struct esp_plan_request *plan, size_t index, const char *file,
                             struct esp_hyper_change **hypers, struct esp_status *st) {
  const struct esp_plan_op *from = &plan->words.ops[index];
  struct esp_operation *op = &plan->operations[index];
  char place[PLACE_FILE_BYTES_MAX + 32];
  int place_len = snprintf(place, sizeof(place), "%.*s:%zu", PLACE_FILE_BYTES_MAX, file, from->line);
  *op = operation_of(from);
  op->place = esp_arena_strndup(&plan->words.arena, place, (size_t)place_len);
  if (op->place == NULL)
    return no_memory(plan->words.len, st);
  op->hypers = *hypers;
  op->hypers_len = from->hypers_len;
  for (size_t i = 0; i < from->hypers_len; i++)
    *(*hypers)++ = (struct esp_hyper_change){.name = from->hypers[i].name, .value = from->hypers[i].value};
  if (from->kind == ESP_PLAN_ADD) {
    plan->leaves[index] = leaf_of(from);
    op->leaf = &plan->leaves[index];
  }
  return ESP_OK;
}

static enum esp_code convert_all(struct esp_plan_request *plan, const char *file, const struct esp_named *groups,
                                 size_t groups_len, struct esp_status *st) {
  size_t len = plan->words.len, hypers_len = 0;
  for (size_t i = 0; i < len; i++)
    hypers_len += plan->words.ops[i].hypers_len;
  plan->operations = esp_calloc(len, sizeof(*plan->operations));
  plan->leaves = esp_calloc(len, sizeof(*plan->leaves));
  plan->hypers = esp_calloc(hypers_len + 1, sizeof(*plan->hypers));
  if (plan->operations == NULL || plan->leaves == NULL || plan->hypers == NULL)
    return no_memory(len, st);
  struct esp_hyper_change *hypers = plan->hypers;
  for (size_t i = 0; i < len; i++) {
    enum esp_code code = convert(plan, i, file, &hypers, st);
    if (code != ESP_OK)
      return code;
    const char *why = why_not(plan->words.ops[i].kind);
    if (why == NULL)
      why = why_no_group(&plan->words, i, groups, groups_len);
    if (why != NULL)
      return esp_fail(st, ESP_INVALID_ARGUMENT, "--plan: %s: %s", plan->operations[i].place, why);
  }
  return ESP_OK;
}

enum esp_code esp_plan_request_read(const char *file, const struct esp_named *groups, size_t groups_len,
                                    struct esp_plan_request *ret, struct esp_status *st) {
  *ret = (struct esp_plan_request){0};
  esp_plan_init(&ret->words);
  enum esp_code code = read_words(file, &ret->words, st);
  if (code == ESP_OK)
    code = convert_all(ret, file, groups, groups_len, st);
  if (code != ESP_OK)
    return code;
  char shown[ESP_PATH_TEXT_MAX], text[sizeof("--plan ") + ESP_PATH_TEXT_MAX]; /* clients want a reason in UTF-8 */
  int len = snprintf(text, sizeof(text), "--plan %s", esp_path_print(file, strlen(file), shown, sizeof(shown)));
  const char *reason = esp_arena_strndup(&ret->words.arena, text, (size_t)len);
  if (reason == NULL)
    return no_memory(ret->words.len, st);
  ret->request = (struct esp_apply_request){.operations = ret->operations,
                                            .operations_len = ret->words.len,
                                            .idempotency_key = "",
                                            .actor = "plan",
                                            .reason = reason};
  return ESP_OK;
}

void esp_plan_request_done(struct esp_plan_request *plan) {
  esp_plan_done(&plan->words);
  esp_free(plan->operations);
  esp_free(plan->leaves);
  esp_free(plan->hypers);
  plan->operations = NULL;
  plan->leaves = NULL;
  plan->hypers = NULL;
}
