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
#include "engine/internal.h"

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
  uint64_t *ids;
  bool *added;
  struct esp_declare_reply reply;
  char *notes[ESP_NOTES_MAX];
};

/* ---- collecting ---- */

enum esp_code esp_declare_new(struct esp_engine *engine, const struct esp_push_header *header, esp_push_callback ready,
                              void *data, struct esp_declare **ret, struct esp_status *st) {
  struct esp_declare *declare = esp_calloc(1, sizeof(*declare));
  if (declare == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a declaration");
  declare->engine = engine;
  esp_arena_init(&declare->arena, DECLARE_MEMORY_MAX);
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
  for (size_t i = 0; i < ESP_NOTES_MAX; i++)
    esp_free(declare->notes[i]);
  esp_free(declare->leaves);
  esp_free(declare->nodes);
  esp_free(declare->ids);
  esp_free(declare->added);
  esp_free(declare);
}

static enum esp_code no_memory(struct esp_status *st) {
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for so large a declaration");
}

enum esp_code esp_declare_add_leaf(struct esp_declare *declare, const struct esp_declare_leaf *leaf,
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
  if (code != ESP_OK)
    return esp_fail(st, code, "leaf %s: %s", leaf->path, why.message);
  if (declare->leaves_len == DECLARE_LEAVES_MAX)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "a declaration may have %d leaves", DECLARE_LEAVES_MAX);
  if (!esp_grow((void **)&declare->leaves, &declare->leaves_capacity, declare->leaves_len + 1, sizeof(*leaf)))
    return no_memory(st);
  struct esp_declare_leaf *own = &declare->leaves[declare->leaves_len];
  *own = *leaf;
  own->path = esp_arena_strndup(&declare->arena, leaf->path, leaf->path_len);
  own->tag = leaf->tag[0] == '\0' ? "" : esp_arena_strndup(&declare->arena, leaf->tag, strlen(leaf->tag));
  own->group = leaf->group[0] == '\0' ? "" : esp_arena_strndup(&declare->arena, leaf->group, strlen(leaf->group));
  if (own->path == NULL || own->tag == NULL || own->group == NULL)
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
  if (node->tag[0] != '\0')
    return esp_fail(st, ESP_UNIMPLEMENTED, "node \"%s\": tags of inner nodes are not built yet", node->path);
  if (declare->nodes_len == DECLARE_NODES_MAX)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "a declaration may have %d nodes", DECLARE_NODES_MAX);
  if (!esp_grow((void **)&declare->nodes, &declare->nodes_capacity, declare->nodes_len + 1, sizeof(*node)))
    return no_memory(st);
  struct esp_declare_node *own = &declare->nodes[declare->nodes_len];
  *own = *node;
  own->tag = "";
  own->path = esp_arena_strndup(&declare->arena, node->path, node->path_len);
  own->group = esp_arena_strndup(&declare->arena, node->group, strlen(node->group));
  if (own->path == NULL || own->group == NULL)
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
  esp_push_free(declare->push); /* before the answer, which says that nothing is staged any more */
  declare->push = NULL;
  declare->callback(declare->data, code, st, code == ESP_OK ? &declare->reply : NULL);
  esp_declare_free(declare);
  atomic_fetch_sub(&engine->committing, 1);
}

static void declare_note(struct esp_declare *declare, const char *text) {
  for (size_t i = 0; i < declare->reply.notes_len; i++) {
    if (strcmp(declare->notes[i], text) == 0)
      return;
  }
  char *copy = declare->reply.notes_len < ESP_NOTES_MAX ? esp_strdup(text) : NULL;
  if (copy != NULL)
    declare->notes[declare->reply.notes_len++] = copy;
}

/* Settings of a node count at its birth: where it had leaves or an assignment before, they are passed over. */
static enum esp_code declare_nodes(struct esp_declare *declare, const struct esp_layout *base, struct esp_edit *edit,
                                   struct esp_status *st) {
  for (size_t i = 0; i < declare->nodes_len; i++) {
    const struct esp_declare_node *node = &declare->nodes[i];
    size_t first, len;
    esp_layout_range(base, node->path, node->path_len, &first, &len);
    if (node->group[0] == '\0' || len > 0 || esp_layout_assignment(base, node->path, node->path_len) != NULL)
      continue;
    enum esp_code code = esp_edit_assign(edit, node->path, node->path_len, node->group, st);
    if (code != ESP_OK)
      return code;
  }
  return ESP_OK;
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
                                    .frozen = leaf->frozen};
  }
  if (code == ESP_OK)
    code = esp_edit_add(edit, news, len, declare->ids, declare->added, st);
  esp_free(news);
  return code;
}

/* Leaves of this declaration below a frozen node are born frozen: the new ones have ids that base does not. */
static enum esp_code declare_frozen(struct esp_declare *declare, const struct esp_layout *base, struct esp_edit *edit,
                                    struct esp_status *st) {
  const struct esp_layout *view = esp_edit_view(edit);
  struct esp_selection sel = {.leaves = esp_malloc_array(view->leaves_len + 1, sizeof(uint32_t))};
  uint8_t *chosen = esp_calloc(view->leaves_len + 1, 1);
  enum esp_code code = sel.leaves == NULL || chosen == NULL ? no_memory(st) : ESP_OK;
  for (size_t i = 0; i < declare->nodes_len && code == ESP_OK; i++) {
    const struct esp_declare_node *node = &declare->nodes[i];
    size_t first = 0, len = 0;
    if (node->frozen)
      esp_layout_range(view, node->path, node->path_len, &first, &len);
    memset(chosen + first, 1, len);
  }
  for (size_t i = 0; i < view->leaves_len && code == ESP_OK; i++) {
    if (chosen[i] && view->leaves[i].id >= base->leaf_id_next)
      sel.leaves[sel.len++] = (uint32_t)i;
  }
  if (code == ESP_OK && sel.len > 0)
    code = esp_edit_freeze(edit, &sel, true, st);
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

/* Memory is asked for only within the bound: the system would promise more than it has. */
static enum esp_code room_check(const struct esp_declare *declare, const struct esp_declare_leaf *leaf, uint64_t bytes,
                                struct esp_status *st) {
  const struct esp_world *world = &declare->engine->world;
  uint64_t used = world->bytes_params + world->bytes_state, most = declare->engine->options.max_tree;
  if (used <= most && bytes <= most - used)
    return ESP_OK;
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED,
                  "leaf %s: its %" PRIu64 " bytes, with the %" PRIu64
                  " of parameters and optimizer state that there are, exceed --max-tree %" PRIu64,
                  leaf->path, bytes, used, most);
}

static enum esp_code declare_params(struct esp_declare *declare, struct esp_edit *edit, struct esp_status *st) {
  for (size_t i = 0; i < declare->leaves_len; i++) {
    const struct esp_declare_leaf *leaf = &declare->leaves[i];
    uint64_t elements, bytes;
    enum esp_code code = esp_shape_bytes(&leaf->shape, leaf->dtype, &elements, &bytes, st);
    if (code == ESP_OK)
      code = value_check(declare, i, st);
    if (code != ESP_OK)
      return code;
    if (!declare->added[i])
      continue;
    code = room_check(declare, leaf, bytes, st);
    if (code != ESP_OK)
      return code;
    struct esp_param *param = esp_param_new(&declare->engine->world, leaf->dtype, elements);
    if (param == NULL)
      return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "leaf %s: no memory for its %" PRIu64 " bytes", leaf->path, bytes);
    esp_edit_bind(edit, declare->ids[i], &param->object);
    declare->reply.added++;
  }
  return ESP_OK;
}

/* With the groups resolved: optimizer state, and what the caller should hear of. */
static enum esp_code declare_states(struct esp_declare *declare, struct esp_status *st) {
  for (size_t i = 0; i < declare->leaves_len; i++) {
    if (!declare->added[i])
      continue;
    const struct esp_leaf *leaf = esp_layout_leaf_by_id(declare->layout, declare->ids[i]);
    const struct esp_place *place = esp_layout_place(declare->layout, leaf);
    const struct esp_group *group = &declare->layout->groups[place->group];
    size_t states_len =
        leaf->kind == ESP_KIND_TRAINED ? esp_optim_states_len(esp_place_optim(declare->layout, place)) : 0;
    for (size_t j = 0; j < states_len; j++) { /* each is as large as the parameter; the product might overflow */
      enum esp_code code = room_check(declare, &declare->leaves[i], (j + 1) * esp_place_param(place)->bytes, st);
      if (code != ESP_OK)
        return code;
    }
    if (!esp_param_add_states(esp_place_param(place), states_len))
      return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "leaf %s: no memory for the optimizer state of group %s", leaf->path,
                      group->name);
    if (strcmp(place->group_assigned, group->name) != 0) {
      char text[2 * ESP_GROUP_NAME_BYTES_MAX];
      snprintf(text, sizeof(text), "group %s is not defined: %s steps what is assigned to it", place->group_assigned,
               group->name);
      declare_note(declare, text);
    }
  }
  return ESP_OK;
}

static void declare_enqueue(struct esp_declare *declare) {
  for (size_t i = 0; i < declare->leaves_len; i++) {
    const struct esp_declare_leaf *leaf = &declare->leaves[i];
    if (!declare->added[i] || leaf->init.kind == ESP_INIT_ZEROS)
      continue;
    struct esp_item item = {.kind = ESP_ITEM_FILL, .fill = {.init = leaf->init}};
    if (leaf->init.kind == ESP_INIT_VALUE)
      item = (struct esp_item){.kind = ESP_ITEM_WRITE,
                               .write = {.from = esp_upload_slot(&declare->push->upload, i + 1)->data}};
    const struct esp_leaf *at = esp_layout_leaf_by_id(declare->layout, declare->ids[i]);
    esp_batch_enqueue(declare->batch, esp_place_param(esp_layout_place(declare->layout, at)), &item);
  }
}

static void declare_done(struct esp_batch *batch, void *data) {
  (void)batch;
  declare_answer(data, ESP_OK, NULL);
}

/* Builds the layout and everything it needs; nothing is to be seen of it yet. */
static enum esp_code declare_build(struct esp_declare *declare, struct esp_layout *base, struct esp_status *st) {
  struct esp_diff diff = {0};
  struct esp_edit *edit = esp_edit_new(base);
  if (edit == NULL)
    return no_memory(st);
  enum esp_code code = declare_nodes(declare, base, edit, st);
  if (code == ESP_OK)
    code = declare_leaves(declare, edit, st);
  if (code == ESP_OK)
    code = declare_params(declare, edit, st);
  if (code == ESP_OK && declare->nodes_len > 0)
    code = declare_frozen(declare, base, edit, st);
  if (code != ESP_OK) {
    esp_edit_free(edit);
    return code;
  }
  code = esp_edit_finish(edit, &declare->layout, &diff, st);
  if (code != ESP_OK)
    return code;
  esp_diff_done(&diff);
  code = declare_states(declare, st);
  if (code != ESP_OK)
    return code;
  declare->batch = esp_batch_new(declare->engine->pool, declare->reply.added, declare_done, declare);
  return declare->batch == NULL ? no_memory(st) : ESP_OK;
}

static void declare_publish(struct esp_declare *declare, struct esp_layout *base) {
  struct esp_engine *engine = declare->engine;
  struct esp_layout *old = NULL;
  struct esp_batch *batch = declare->batch;
  declare->reply.ids = declare->ids;
  declare->reply.ids_len = declare->leaves_len;
  declare->reply.lineage = engine->lineage;
  declare->reply.notes = (const char *const *)declare->notes;
  pthread_mutex_lock(&engine->commit_lock);
  if (declare->layout != base)
    esp_engine_publish(engine, esp_layout_ref(declare->layout), &old);
  declare->reply.epoch = engine->layout->epoch;
  declare->reply.commit = engine->commit;
  declare_enqueue(declare);
  pthread_mutex_unlock(&engine->commit_lock);
  esp_layout_unref(old);
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
