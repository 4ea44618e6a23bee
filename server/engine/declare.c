/* Declarations. Leaves and nodes are collected as they arrive, values are staged as a push's gradients are; at the end
 * the whole is one transaction on the transactions' thread: leaves that are there already are checked and joined, new
 * ones get memory, then the layout is published, with one item a new parameter that fills in its first value. All that
 * can fail comes before that. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arena.h"
#include "base/check.h"
#include "engine/operations.h"

#define DECLARE_LEAVES_MAX 8000000
#define DECLARE_NODES_MAX 1000000
#define DECLARE_MEMORY_MAX ((size_t)4 << 30) /* of paths and the like; the messages that bring them are no larger */

struct esp_declare {
  struct esp_job job; /* runs the transaction */
  struct esp_engine *engine;
  struct esp_push *push;  /* the values that follow */
  struct esp_arena arena; /* strings */
  struct esp_declare_leaf *leaves;
  size_t leaves_len;
  size_t leaves_capacity;
  struct esp_declare_node *nodes;
  size_t nodes_len;
  size_t nodes_capacity;
  esp_declare_callback callback; /* from commit on, as all that follows */
  void *data;
  struct esp_layout *layout; /* the new one, ref'd while its values are filled in */
  struct esp_batch *batch;
  struct esp_record *record;
  struct esp_work work; /* the states of new parameters, and what is to be told */
  struct esp_plan_asker asker;
  uint64_t *ids;
  bool *added;
  struct esp_declare_reply reply;
};

/* ---- collecting ---- */

enum esp_code esp_declare_new(struct esp_engine *engine, const struct esp_push_header *header, esp_push_callback ready,
                              void *data, struct esp_declare **ret, struct esp_status *st) {
  struct esp_declare *declare = esp_calloc(1, sizeof(*declare));
  if (declare == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a declaration");
  declare->engine = engine;
  esp_arena_init(&declare->arena, DECLARE_MEMORY_MAX);
  esp_work_init(&declare->work, engine);
  *ret = declare; /* before the answer that may come inside the next call */
  enum esp_code code = esp_push_begin(engine, header, ready, data, false, true, &declare->push, st);
  if (code != ESP_OK) {
    *ret = NULL;
    esp_declare_free(declare);
  }
  return code;
}

void esp_declare_free(struct esp_declare *declare) {
  if (declare == NULL)
    return;
  esp_push_free(declare->push);
  esp_arena_done(&declare->arena);
  esp_layout_unref(declare->layout);
  esp_work_done(&declare->work);
  esp_record_unref(declare->record);
  esp_free(declare->leaves);
  esp_free(declare->nodes);
  esp_free(declare->ids);
  esp_free(declare->added);
  esp_free(declare);
}

static enum esp_code no_memory(struct esp_status *st) {
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for so large a declaration");
}

enum esp_code esp_declare_leaf_check(const struct esp_engine *engine, const struct esp_declare_leaf *leaf,
                                     struct esp_status *st) {
  uint64_t elements, bytes;
  struct esp_status why = {0};
  enum esp_code code = esp_path_check(leaf->path, leaf->path_len, st);
  if (code != ESP_OK)
    return code;
  if (leaf->dtype == ESP_DTYPE_BF16 || leaf->dtype == ESP_DTYPE_F16)
    return esp_fail(st, ESP_UNIMPLEMENTED, "leaf %s: parameters of %s are not built yet", leaf->path,
                    esp_dtype_name(leaf->dtype));
  code = esp_shape_bytes(&leaf->shape, leaf->dtype, &elements, &bytes, &why);
  if (code == ESP_OK)
    code = esp_init_check(&leaf->init, &why);
  uint64_t bytes_max = engine->options.max_tensor;
  if (code == ESP_OK && bytes_max != 0 && bytes > bytes_max)
    code = esp_fail(&why, ESP_RESOURCE_EXHAUSTED, "it has %" PRIu64 " bytes, --max-tensor allows %" PRIu64, bytes,
                    bytes_max);
  return code == ESP_OK ? ESP_OK : esp_fail(st, code, "leaf %s: %s", leaf->path, why.message);
}

enum esp_code esp_declare_add_leaf(struct esp_declare *declare, const struct esp_declare_leaf *leaf,
                                   struct esp_status *st) {
  enum esp_code code = esp_declare_leaf_check(declare->engine, leaf, st);
  if (code != ESP_OK)
    return code;
  if (declare->leaves_len == DECLARE_LEAVES_MAX)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "a declaration may have %d leaves", DECLARE_LEAVES_MAX);
  if (!esp_grow((void **)&declare->leaves, &declare->leaves_capacity, declare->leaves_len + 1, sizeof(*leaf)))
    return no_memory(st);
  struct esp_declare_leaf *own = &declare->leaves[declare->leaves_len];
  *own = *leaf;
  own->path = esp_arena_strndup(&declare->arena, leaf->path, leaf->path_len);
  own->tag = leaf->tag[0] == '\0' ? "" : esp_arena_strndup(&declare->arena, leaf->tag, strlen(leaf->tag));
  own->group = leaf->group[0] == '\0' ? "" : esp_arena_strndup(&declare->arena, leaf->group, strlen(leaf->group));
  if (leaf->alias_of == NULL || leaf->alias_of[0] == '\0')
    own->alias_of = "";
  else
    own->alias_of = esp_arena_strndup(&declare->arena, leaf->alias_of, strlen(leaf->alias_of));
  if (own->path == NULL || own->tag == NULL || own->group == NULL || own->alias_of == NULL)
    return no_memory(st);
  declare->leaves_len++;
  atomic_store(&declare->push->progress_ms, esp_engine_now(declare->engine));
  return ESP_OK;
}

enum esp_code esp_declare_add_node(struct esp_declare *declare, const struct esp_declare_node *node,
                                   struct esp_status *st) {
  if (node->path_len > 0) {
    enum esp_code code = esp_path_check(node->path, node->path_len, st);
    if (code != ESP_OK)
      return code;
  }
  if (declare->nodes_len == DECLARE_NODES_MAX)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "a declaration may have %d nodes", DECLARE_NODES_MAX);
  if (!esp_grow((void **)&declare->nodes, &declare->nodes_capacity, declare->nodes_len + 1, sizeof(*node)))
    return no_memory(st);
  struct esp_declare_node *own = &declare->nodes[declare->nodes_len];
  *own = *node;
  own->path = esp_arena_strndup(&declare->arena, node->path, node->path_len);
  own->group = esp_arena_strndup(&declare->arena, node->group, strlen(node->group));
  own->tag = esp_arena_strndup(&declare->arena, node->tag, strlen(node->tag));
  if (own->path == NULL || own->group == NULL || own->tag == NULL)
    return no_memory(st);
  declare->nodes_len++;
  return ESP_OK;
}

enum esp_code esp_declare_feed(struct esp_declare *declare, const struct esp_piece *piece, struct esp_status *st) {
  if (piece->path_len > 0 || piece->leaf_id != 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a declaration's chunks name their leaves by index");
  if (piece->index >= declare->leaves_len)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a chunk has index %" PRIu64 ", but %zu leaves have been declared",
                    piece->index, declare->leaves_len);
  const struct esp_declare_leaf *leaf = &declare->leaves[piece->index];
  if (leaf->init.kind != ESP_INIT_VALUE)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: a value comes, but its initialiser is another", leaf->path);
  struct esp_upload_target target = {
      .key = piece->index + 1, .path = leaf->path, .dtype = leaf->dtype, .shape = &leaf->shape};
  uint64_t elements;
  enum esp_code code = esp_shape_bytes(&leaf->shape, leaf->dtype, &elements, &target.bytes, st);
  return code != ESP_OK ? code : esp_push_feed_target(declare->push, &target, piece, st);
}

/* ---- the transaction, on its thread ---- */

static void declare_answer(struct esp_declare *declare, enum esp_code code, const struct esp_status *st) {
  struct esp_engine *engine = declare->engine;
  /* Before the answer: from then on nothing is staged for it and, where it is refused, nothing counts for the tree. */
  esp_push_free(declare->push);
  declare->push = NULL;
  esp_layout_unref(declare->layout);
  declare->layout = NULL;
  declare->callback(declare->data, code, st, code == ESP_OK ? &declare->reply : NULL);
  esp_declare_free(declare);
  atomic_fetch_sub(&engine->committing, 1);
}

/* Settings of a node count at its birth: where it had leaves, an assignment or a tag before, they are passed over. */
static enum esp_code declare_nodes(struct esp_declare *declare, const struct esp_layout *base, struct esp_edit *edit,
                                   struct esp_status *st) {
  for (size_t i = 0; i < declare->nodes_len; i++) {
    const struct esp_declare_node *node = &declare->nodes[i];
    enum esp_code code = ESP_OK;
    size_t first, len;
    esp_layout_range(base, node->path, node->path_len, &first, &len);
    if (len > 0 || esp_layout_assignment(base, node->path, node->path_len) != NULL ||
        esp_layout_tag(base, node->path, node->path_len) != NULL)
      continue;
    if (node->group[0] != '\0')
      code = esp_edit_assign(edit, node->path, node->path_len, node->group, st);
    if (code == ESP_OK && node->tag[0] != '\0')
      code = esp_edit_tag(edit, node->path, node->path_len, node->tag, st);
    if (code != ESP_OK)
      return code;
  }
  return ESP_OK;
}

static bool is_alias(const struct esp_declare_leaf *leaf) {
  return leaf->alias_of[0] != '\0';
}

static enum esp_code declare_leaves(struct esp_declare *declare, struct esp_edit *edit, struct esp_status *st) {
  size_t len = declare->leaves_len;
  struct esp_leaf_new *news = esp_malloc_array(len + 1, sizeof(*news));
  declare->ids = esp_malloc_array(len + 1, sizeof(*declare->ids));
  declare->added = esp_malloc_array(len + 1, sizeof(*declare->added));
  enum esp_code code = ESP_OK;
  if (news == NULL || declare->ids == NULL || declare->added == NULL)
    code = no_memory(st);
  for (size_t i = 0; i < len && code == ESP_OK; i++) {
    const struct esp_declare_leaf *leaf = &declare->leaves[i];
    news[i] = (struct esp_leaf_new){.path = leaf->path,
                                    .path_len = leaf->path_len,
                                    .shape = leaf->shape,
                                    .dtype = leaf->dtype,
                                    .kind = leaf->kind,
                                    .tag = leaf->tag,
                                    .group = leaf->group,
                                    .frozen = leaf->frozen && !is_alias(leaf),
                                    .detached = leaf->detached};
  }
  if (code == ESP_OK)
    code = esp_edit_add(edit, news, len, declare->ids, declare->added, st);
  esp_free(news);
  return code;
}

/* Marks the leaves of the view that lie below a node that is declared frozen, or detached. */
static void mark_below(const struct esp_declare *declare, const struct esp_layout *view, bool frozen, uint8_t *chosen) {
  for (size_t i = 0; i < declare->nodes_len; i++) {
    const struct esp_declare_node *node = &declare->nodes[i];
    size_t first = 0, len = 0;
    if (frozen ? node->frozen : node->detached)
      esp_layout_range(view, node->path, node->path_len, &first, &len);
    memset(chosen + first, 1, len);
  }
}

/* Leaves of this declaration below a frozen node are born frozen, below a detached one detached: the new ones have ids
 * that base does not. */
static enum esp_code declare_below(struct esp_declare *declare, const struct esp_layout *base, struct esp_edit *edit,
                                   bool frozen, struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(edit);
  struct esp_selection sel = {.leaves = esp_malloc_array(view->leaves_len + 1, sizeof(uint32_t))};
  uint8_t *chosen = esp_calloc(view->leaves_len + 1, 1);
  enum esp_code code = sel.leaves == NULL || chosen == NULL ? no_memory(st) : ESP_OK;
  if (code == ESP_OK)
    mark_below(declare, view, frozen, chosen);
  for (size_t i = 0; i < view->leaves_len && code == ESP_OK; i++) {
    if (chosen[i] && view->leaves[i].id >= base->leaf_id_next)
      sel.leaves[sel.len++] = (uint32_t)i;
  }
  if (code == ESP_OK && sel.len > 0)
    code = frozen ? esp_edit_freeze(edit, &sel, true, st) : esp_edit_detach(edit, &sel, true, st);
  esp_free(chosen);
  esp_selection_done(&sel);
  return code;
}

/* The value that follows must have come, and be one that can be trained. */
static enum esp_code value_check(const struct esp_declare *declare, size_t index, struct esp_status *st) {
  const struct esp_declare_leaf *leaf = &declare->leaves[index];
  if (leaf->init.kind != ESP_INIT_VALUE)
    return ESP_OK;
  const struct esp_slot *slot = esp_upload_slot(&declare->push->upload, index + 1);
  if (slot == NULL)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: its value was to follow, and did not", leaf->path);
  if (slot->nonfinite != ESP_ALL_FINITE && leaf->kind == ESP_KIND_TRAINED)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: element %" PRIu64 " of the value is not finite", leaf->path,
                    slot->nonfinite);
  return ESP_OK;
}

static enum esp_code declare_params(struct esp_declare *declare, struct esp_edit *edit, struct esp_status *st) {
  for (size_t i = 0; i < declare->leaves_len; i++) {
    const struct esp_declare_leaf *leaf = &declare->leaves[i];
    enum esp_code code = value_check(declare, i, st);
    if (code != ESP_OK)
      return code;
    declare->reply.added += declare->added[i];
    if (!declare->added[i] || is_alias(leaf))
      continue;
    struct esp_param *param = NULL;
    code = esp_work_param_new(&declare->work, leaf->path, leaf->dtype, &leaf->shape, &param, st);
    if (code != ESP_OK)
      return code;
    esp_edit_bind(edit, declare->ids[i], &param->object);
  }
  return ESP_OK;
}

/* A new leaf's settings say which parameter it is bound to; one that was there keeps its own. */
static enum esp_code declare_aliases(struct esp_declare *declare, struct esp_edit *edit, struct esp_status *st) {
  struct esp_alias *aliases = NULL;
  size_t len = 0, capacity = 0;
  for (size_t i = 0; i < declare->leaves_len; i++) {
    const struct esp_declare_leaf *leaf = &declare->leaves[i];
    if (!declare->added[i] || !is_alias(leaf))
      continue;
    if (!esp_grow((void **)&aliases, &capacity, len + 1, sizeof(*aliases))) {
      esp_free(aliases);
      return no_memory(st);
    }
    aliases[len++] =
        (struct esp_alias){.id = declare->ids[i], .of = leaf->alias_of, .view = leaf->view, .frozen = leaf->frozen};
  }
  enum esp_code code = len == 0 ? ESP_OK : esp_tie_aliases(edit, aliases, len, st);
  esp_free(aliases);
  return code;
}

static void declare_enqueue(struct esp_declare *declare) {
  esp_work_enqueue(&declare->work, declare->batch);
  for (size_t i = 0; i < declare->leaves_len; i++) {
    const struct esp_declare_leaf *leaf = &declare->leaves[i];
    if (!declare->added[i] || is_alias(leaf) || leaf->init.kind == ESP_INIT_ZEROS)
      continue;
    struct esp_item item = {.kind = ESP_ITEM_FILL, .fill = {.init = leaf->init}};
    if (leaf->init.kind == ESP_INIT_VALUE)
      item = (struct esp_item){.kind = ESP_ITEM_WRITE,
                               .write = {.from = esp_upload_slot(&declare->push->upload, i + 1)->data}};
    const struct esp_leaf *at = esp_layout_leaf_by_id(declare->layout, declare->ids[i]);
    esp_batch_enqueue(declare->batch, esp_place_param(esp_layout_place(declare->layout, at)), &item);
  }
}

static void declare_planned(void *data, enum esp_code code, const struct esp_status *st,
                            const struct esp_apply_reply *reply) {
  struct esp_declare *declare = data;
  if (code != ESP_OK) {
    esp_work_note(&declare->work, "pushes are refused until the server's plan can be applied: %s", st->message);
  } else {
    declare->reply.epoch = reply->epoch;
    declare->reply.commit = reply->commit != 0 ? reply->commit : declare->reply.commit;
    esp_work_note(&declare->work, "the server's plan was applied: epoch %" PRIu64, reply->epoch);
  }
  declare->reply.notes_len = declare->work.notes_len;
  declare_answer(declare, ESP_OK, NULL);
}

/* Who declared leaves that a plan waits for is answered when it has been applied: his first push finds it so. */
static void declare_done(struct esp_batch *batch, void *data) {
  (void)batch;
  struct esp_declare *declare = data;
  declare->asker = (struct esp_plan_asker){.callback = declare_planned, .data = declare};
  if (!esp_plan_ask(declare->engine, &declare->asker))
    declare_answer(declare, ESP_OK, NULL);
}

/* Builds the layout and everything it needs; nothing is to be seen of it yet. */
static enum esp_code declare_build(struct esp_declare *declare, struct esp_layout *base, struct esp_status *st) {
  char worker[ESP_WORKER_NAME_BYTES_MAX + 1];
  esp_session_name(declare->engine, declare->push->header.session, worker);
  declare->record = esp_record_new(esp_engine_wall(declare->engine), worker, "declaration");
  if (declare->record == NULL || !esp_history_reserve(&declare->engine->history))
    return no_memory(st);
  declare->record->is_declaration = true;
  struct esp_edit *edit = esp_edit_new(base);
  if (edit == NULL)
    return no_memory(st);
  enum esp_code code = declare_nodes(declare, base, edit, st);
  if (code == ESP_OK)
    code = declare_leaves(declare, edit, st);
  if (code == ESP_OK)
    code = declare_params(declare, edit, st);
  if (code == ESP_OK)
    code = declare_aliases(declare, edit, st);
  if (code == ESP_OK && declare->nodes_len > 0)
    code = declare_below(declare, base, edit, true, st);
  if (code == ESP_OK && declare->nodes_len > 0)
    code = declare_below(declare, base, edit, false, st);
  if (code != ESP_OK) {
    esp_edit_free(edit);
    return code;
  }
  code = esp_edit_finish(edit, &declare->layout, &declare->record->diff, st);
  if (code != ESP_OK)
    return code;
  if (declare->layout != base)
    code = esp_work_settle(&declare->work, declare->layout, st);
  if (code != ESP_OK)
    return code;
  esp_work_note_groups(&declare->work, declare->layout, base->leaf_id_next);
  declare->batch =
      esp_batch_new(declare->engine->pool, declare->reply.added + declare->work.len, declare_done, declare);
  return declare->batch == NULL ? no_memory(st) : ESP_OK;
}

static void declare_publish(struct esp_declare *declare, struct esp_layout *base) {
  struct esp_engine *engine = declare->engine;
  struct esp_layout *old = NULL;
  struct esp_batch *batch = declare->batch;
  declare->reply.ids = declare->ids;
  declare->reply.ids_len = declare->leaves_len;
  declare->reply.lineage = engine->lineage;
  declare->reply.notes = (const char *const *)declare->work.notes;
  declare->reply.notes_len = declare->work.notes_len;
  pthread_mutex_lock(&engine->commit_lock);
  bool changed = declare->layout != base;
  if (changed)
    esp_engine_publish(engine, esp_layout_ref(declare->layout), declare->record, &old);
  declare->reply.epoch = engine->layout->epoch;
  declare->reply.commit = engine->commit;
  declare_enqueue(declare);
  pthread_mutex_unlock(&engine->commit_lock);
  esp_layout_unref(old);
  if (changed) {
    esp_work_settled(declare->layout);
    esp_history_add(&engine->history, declare->record);
    esp_watches_wake(engine);
  }
  esp_batch_start(batch, false);
}

static void declare_run(struct esp_job *job, unsigned share) {
  (void)share;
  struct esp_declare *declare = (struct esp_declare *)job;
  struct esp_status st;
  struct esp_layout *base = esp_engine_layout(declare->engine, NULL);
  enum esp_code code = declare_build(declare, base, &st);
  if (code == ESP_OK)
    declare_publish(declare, base);
  else
    declare_answer(declare, code, &st);
  esp_layout_unref(base);
}

void esp_declare_commit(struct esp_declare *declare, esp_declare_callback callback, void *data) {
  struct esp_status st;
  enum esp_code code = esp_push_set_aside(declare->push, &st);
  declare->callback = callback;
  declare->data = data;
  atomic_fetch_add(&declare->engine->committing, 1);
  if (code == ESP_OK && !esp_push_is_whole(declare->push)) {
    uint64_t bytes, total;
    esp_push_progress(declare->push, &bytes, &total);
    code =
        esp_fail(&st, ESP_INVALID_ARGUMENT,
                 "the declaration ended after %" PRIu64 " of the %" PRIu64 " bytes of values that its header declares",
                 bytes, total);
  }
  if (code != ESP_OK) {
    declare_answer(declare, code, &st);
    return;
  }
  declare->job.run = declare_run;
  declare->job.shares = 1;
  esp_transactions_submit(declare->engine, &declare->job);
}
