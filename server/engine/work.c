/* The work of a transaction.
 *
 * A parameter that gets what another one has at this commit waits for it: WAIT goes into its queue, GIVE into the
 * other's, right behind it in the order of the work. So whatever a GIVE may itself have to wait for was put into a
 * queue before it, and no two can wait for each other. */
#include "engine/work.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"

void esp_work_init(struct esp_work *work, struct esp_engine *engine) {
  *work = (struct esp_work){.engine = engine};
}

void esp_work_done(struct esp_work *work) {
  for (size_t i = 0; i < work->len; i++) {
    struct esp_action *action = &work->actions[i];
    if (action->item.kind == ESP_ITEM_MIGRATE)
      esp_param_states_free(action->param, action->item.migrate.state, action->item.migrate.states_len);
    if (action->item.kind == ESP_ITEM_GIVE)
      esp_object_unref(&action->item.give.to->object);
    esp_object_unref(&action->param->object);
  }
  for (size_t i = 0; i < work->notes_len; i++)
    esp_free(work->notes[i]);
  esp_free(work->actions);
  *work = (struct esp_work){.engine = work->engine};
}

bool esp_work_add(struct esp_work *work, struct esp_param *param, const struct esp_item *item) {
  if (!esp_grow((void **)&work->actions, &work->capacity, work->len + 1, sizeof(*work->actions)))
    return false;
  esp_object_ref(&param->object);
  work->actions[work->len++] = (struct esp_action){.param = param, .item = *item};
  return true;
}

bool esp_work_give(struct esp_work *work, struct esp_param *from, struct esp_param *to, struct esp_param *waits,
                   bool transposed, bool with_state) {
  struct esp_item wait = {.kind = ESP_ITEM_WAIT};
  struct esp_item give = {.kind = ESP_ITEM_GIVE,
                          .give = {.to = to, .transposed = transposed, .with_state = with_state}};
  bool waits_for_itself = waits == from; /* which comes in its own queue's order */
  size_t wait_at = waits_for_itself ? SIZE_MAX : work->len;
  if ((!waits_for_itself && !esp_work_add(work, waits, &wait)) || !esp_work_add(work, from, &give))
    return false;
  work->actions[work->len - 1].wait = wait_at;
  esp_object_ref(&to->object);
  return true;
}

void esp_work_note(struct esp_work *work, const char *format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  for (size_t i = 0; i < work->notes_len; i++) {
    if (strcmp(work->notes[i], text) == 0)
      return;
  }
  char *copy = work->notes_len < ESP_NOTES_MAX ? esp_strdup(text) : NULL;
  if (copy != NULL)
    work->notes[work->notes_len++] = copy;
}

void esp_work_note_groups(struct esp_work *work, const struct esp_layout *layout, uint64_t first_id) {
  for (uint64_t id = first_id; id < layout->leaf_id_next; id++) {
    const struct esp_leaf *leaf = esp_layout_leaf_by_id(layout, id);
    const struct esp_place *place = leaf == NULL ? NULL : esp_layout_place(layout, leaf);
    if (place != NULL && strcmp(place->group_assigned, layout->groups[place->group].name) != 0)
      esp_work_note(work, "group %s is not defined: %s steps what is assigned to it", place->group_assigned,
                    ESP_GROUP_DEFAULT);
  }
}

/* ---- memory ---- */

enum esp_code esp_room_check(const struct esp_engine *engine, const char *path, uint64_t bytes, struct esp_status *st) {
  const struct esp_world *world = &engine->world;
  uint64_t used = world->bytes_params + world->bytes_state, most = engine->options.max_tree;
  if (used <= most && bytes <= most - used)
    return ESP_OK;
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED,
                  "leaf %s: its %" PRIu64 " bytes, with the %" PRIu64
                  " of parameters and optimizer state that there are, exceed --max-tree %" PRIu64,
                  path, bytes, used, most);
}

enum esp_code esp_work_param_new(struct esp_work *work, const char *path, enum esp_dtype dtype,
                                 const struct esp_shape *shape, struct esp_param **ret, struct esp_status *st) {
  uint64_t elements, bytes;
  enum esp_code code = esp_shape_bytes(shape, dtype, &elements, &bytes, st);
  if (code == ESP_OK)
    code = esp_room_check(work->engine, path, bytes, st);
  if (code != ESP_OK)
    return code;
  *ret = esp_param_new(&work->engine->world, dtype, shape);
  if (*ret == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "leaf %s: no memory for its %" PRIu64 " bytes", path, bytes);
  return ESP_OK;
}

/* States are as large as the parameter each; their product might overflow. */
static enum esp_code states_room(const struct esp_work *work, const char *path, const struct esp_param *param,
                                 size_t states_len, struct esp_status *st) {
  if (states_len > 0 && param->bytes > UINT64_MAX / states_len)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "leaf %s: its optimizer state is too large", path);
  return esp_room_check(work->engine, path, param->bytes * states_len, st);
}

static enum esp_code states_memory(const char *path, const char *group, struct esp_status *st) {
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "leaf %s: no memory for the optimizer state of group %s", path, group);
}

/* ---- states that optimizers want ---- */

/* How one optimizer's states come from another's. */
struct passage {
  const struct esp_optim *from; /* NULL: none was looked at */
  const struct esp_optim *to;
  const char *group;
  uint64_t params;      /* that go this way */
  bool same;            /* nothing is to be done to them */
  struct esp_item item; /* MIGRATE, but for the memory */
};

/* "a, b" of those states of optim that were kept, or were not. */
static void print_states(const struct passage *passage, bool kept, char *text, size_t size) {
  size_t used = 0;
  text[0] = '\0';
  for (unsigned i = 0; i < passage->item.migrate.states_len && used < size; i++) {
    if ((passage->item.migrate.kept[i] != ESP_STATE_FRESH) == kept)
      used += (size_t)snprintf(text + used, size - used, "%s%s", used > 0 ? ", " : "",
                               esp_optim_state_name(passage->to, i));
  }
}

static void passage_note(struct esp_work *work, const struct passage *passage) {
  if (passage->params == 0 || passage->same)
    return;
  char kept[256], fresh[256];
  print_states(passage, true, kept, sizeof(kept));
  print_states(passage, false, fresh, sizeof(fresh));
  esp_work_note(work, "group %s, %" PRIu64 " parameter%s: state kept: %s%s%s; step counts %s", passage->group,
                passage->params, passage->params == 1 ? "" : "s", kept[0] == '\0' ? "none" : kept,
                fresh[0] == '\0' ? "" : "; afresh: ", fresh,
                passage->item.migrate.keep_steps ? "go on" : "start afresh");
}

/* A step count belongs to the states that it corrects: it goes on with any of them, or where there are none. */
static void passage_init(struct passage *passage, const struct esp_optim *from, const struct esp_optim *to,
                         const char *group) {
  unsigned states_len = (unsigned)esp_optim_states_len(to);
  bool any = false, same = states_len == esp_optim_states_len(from);
  *passage = (struct passage){.from = from, .to = to, .group = group, .item = {.kind = ESP_ITEM_MIGRATE}};
  passage->item.migrate.states_len = states_len;
  for (unsigned i = 0; i < states_len; i++) {
    size_t old = esp_optim_state_find(from, esp_optim_state_name(to, i));
    passage->item.migrate.kept[i] = old == SIZE_MAX ? ESP_STATE_FRESH : (uint8_t)old;
    any = any || old != SIZE_MAX;
    same = same && old == i;
  }
  passage->item.migrate.keep_steps = any || states_len == 0;
  passage->same = same;
}

static enum esp_code migrate(struct esp_work *work, const struct passage *passage, struct esp_param *param,
                             const char *path, struct esp_status *st) {
  struct esp_item item = passage->item;
  size_t states_len = item.migrate.states_len;
  enum esp_code code = states_room(work, path, param, states_len, st);
  if (code != ESP_OK)
    return code;
  if (states_len > 0) {
    item.migrate.state = esp_param_states_new(param, states_len);
    if (item.migrate.state == NULL)
      return states_memory(path, passage->group, st);
  }
  if (esp_work_add(work, param, &item))
    return ESP_OK;
  esp_param_states_free(param, item.migrate.state, states_len);
  return states_memory(path, passage->group, st);
}

struct passages {
  struct passage list[ESP_NOTES_MAX];
  size_t len;
};

static struct passage *passage_find(struct passages *passages, const struct esp_optim *from, const struct esp_optim *to,
                                    const char *group) {
  for (size_t i = 0; i < passages->len; i++) {
    if (passages->list[i].from == from && passages->list[i].to == to)
      return &passages->list[i];
  }
  if (passages->len == ESP_NOTES_MAX)
    passages->len--; /* the last of so many goes without a note */
  struct passage *passage = &passages->list[passages->len++];
  passage_init(passage, from, to, group);
  return passage;
}

static enum esp_code settle_param(struct esp_work *work, struct passages *passages, const struct esp_layout *layout,
                                  const struct esp_place *place, struct esp_status *st) {
  struct esp_param *param = esp_place_param(place);
  struct esp_optim *optim = esp_place_optim(layout, place);
  const char *path = layout->leaves[place->primary].path, *group = layout->groups[place->group].name;
  if (place->kind != ESP_KIND_TRAINED || param->optim == optim)
    return ESP_OK;
  if (param->optim == NULL) { /* new */
    enum esp_code code = states_room(work, path, param, esp_optim_states_len(optim), st);
    return code == ESP_OK && !esp_param_add_states(param, optim) ? states_memory(path, group, st) : code;
  }
  struct passage *passage = passage_find(passages, param->optim, optim, group);
  passage->params++;
  return passage->same ? ESP_OK : migrate(work, passage, param, path, st);
}

enum esp_code esp_work_settle(struct esp_work *work, const struct esp_layout *layout, struct esp_status *st) {
  struct passages passages = {0};
  enum esp_code code = ESP_OK;
  for (size_t i = 0; i < layout->params_len && code == ESP_OK; i++)
    code = settle_param(work, &passages, layout, &layout->params[i], st);
  for (size_t i = 0; i < passages.len; i++)
    passage_note(work, &passages.list[i]);
  return code;
}

void esp_work_settled(const struct esp_layout *layout) {
  for (size_t i = 0; i < layout->params_len; i++) {
    struct esp_param *param = esp_place_param(&layout->params[i]);
    struct esp_optim *optim = esp_place_optim(layout, &layout->params[i]);
    if (layout->params[i].kind != ESP_KIND_TRAINED || param->optim == optim)
      continue;
    esp_optim_unref(param->optim);
    param->optim = esp_optim_ref(optim);
  }
}

/* ---- publishing ---- */

void esp_work_enqueue(struct esp_work *work, struct esp_batch *batch) {
  ESP_CHECK(batch->len == 0);
  for (size_t i = 0; i < work->len; i++) {
    struct esp_action *action = &work->actions[i];
    action->item.is_urgent = true;
    if (action->item.kind == ESP_ITEM_GIVE && action->wait != SIZE_MAX) /* a batch's items stay where they are */
      action->item.give.wait = &batch->items[action->wait].item;
    esp_batch_enqueue(batch, action->param, &action->item);
    if (action->item.kind == ESP_ITEM_MIGRATE)
      action->item.migrate.state = NULL; /* the parameter's now */
  }
}
