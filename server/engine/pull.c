/* Pulls. The layout of the beginning says which parameters; each is then pinned when its turn comes, by an item in its
 * queue: so a pull sees every push that was committed before it asked, never half of one, and holds up nobody. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "engine/internal.h"

struct esp_pull {
  struct esp_item item; /* pins the leaf that is being asked for */
  struct esp_engine *engine;
  esp_pull_callback callback;
  void *data;
  struct esp_layout *layout; /* ref'd */
  uint32_t *leaves;          /* indices in it, in the order in which they are to come */
  size_t leaves_len;
  size_t next;
};

void esp_pull_free(struct esp_pull *pull) {
  if (pull == NULL)
    return;
  esp_layout_unref(pull->layout);
  esp_free(pull->leaves);
  esp_free(pull);
}

static enum esp_code pull_add(struct esp_pull *pull, const struct esp_leaf *leaf, uint8_t *seen,
                              struct esp_status *st) {
  uint32_t index = (uint32_t)(leaf - pull->layout->leaves);
  if (seen[index / 8] & (1u << index % 8))
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s is named twice", leaf->path);
  seen[index / 8] |= (uint8_t)(1u << index % 8);
  pull->leaves[pull->leaves_len++] = index;
  return ESP_OK;
}

static enum esp_code pull_ids(struct esp_pull *pull, const struct esp_pull_request *request, uint8_t *seen,
                              struct esp_status *st) {
  for (size_t i = 0; i < request->leaf_ids_len; i++) {
    const struct esp_leaf *leaf = esp_layout_leaf_by_id(pull->layout, request->leaf_ids[i]);
    enum esp_code code = leaf == NULL ? esp_fail(st, ESP_NOT_FOUND, "no leaf has the id %" PRIu64, request->leaf_ids[i])
                                      : pull_add(pull, leaf, seen, st);
    if (code != ESP_OK)
      return code;
  }
  return ESP_OK;
}

static enum esp_code pull_paths(struct esp_pull *pull, const struct esp_pull_request *request, uint8_t *seen,
                                struct esp_status *st) {
  for (size_t i = 0; i < request->paths_len; i++) {
    const char *path = request->paths[i];
    const struct esp_leaf *leaf = esp_layout_leaf_by_path(pull->layout, path, strlen(path));
    enum esp_code code =
        leaf == NULL ? esp_leaf_unknown(pull->layout, path, strlen(path), st) : pull_add(pull, leaf, seen, st);
    if (code != ESP_OK)
      return code;
  }
  return ESP_OK;
}

static enum esp_code pull_selection(struct esp_pull *pull, const struct esp_pull_request *request, uint8_t *seen,
                                    struct esp_status *st) {
  bool named = request->leaf_ids_len > 0 || request->paths_len > 0;
  if (named && request->selection[0] == '\0')
    return ESP_OK;
  struct esp_selection sel = {0};
  enum esp_code code = esp_select(pull->layout, request->selection, strlen(request->selection), &sel, st);
  for (size_t i = 0; i < sel.len && code == ESP_OK; i++)
    code = pull_add(pull, &pull->layout->leaves[sel.leaves[i]], seen, st);
  esp_selection_done(&sel);
  return code;
}

static enum esp_code pull_resolve(struct esp_pull *pull, const struct esp_pull_request *request,
                                  struct esp_status *st) {
  size_t len = pull->layout->leaves_len;
  uint8_t *seen = esp_calloc(len / 8 + 1, 1);
  /* Nothing is named twice, so there are never more than the tree's leaves. */
  pull->leaves = esp_malloc_array(len + 1, sizeof(uint32_t));
  enum esp_code code = ESP_OK;
  if (seen == NULL || pull->leaves == NULL)
    code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a pull");
  if (code == ESP_OK)
    code = pull_ids(pull, request, seen, st);
  if (code == ESP_OK)
    code = pull_paths(pull, request, seen, st);
  if (code == ESP_OK)
    code = pull_selection(pull, request, seen, st);
  esp_free(seen);
  return code;
}

static void pull_pinned(struct esp_item *item) {
  struct esp_pull *pull = (struct esp_pull *)item;
  const struct esp_leaf *leaf = &pull->layout->leaves[pull->leaves[pull->next++]];
  const struct esp_place *place = esp_layout_place(pull->layout, leaf);
  struct esp_status st;
  if (item->pin.buffer == NULL) {
    enum esp_code code = esp_fail(&st, ESP_RESOURCE_EXHAUSTED,
                                  "leaf %s: no memory to keep its value apart while it is read", leaf->path);
    pull->callback(pull->data, code, &st, NULL);
    return;
  }
  struct esp_pin pin = {.leaf_id = leaf->id,
                        .param_id = place->id,
                        .version = item->pin.version,
                        .view = leaf->view,
                        .dtype = place->dtype,
                        .shape = place->shape,
                        .bytes = item->pin.buffer->data,
                        .bytes_len = item->pin.buffer->len,
                        .buffer = item->pin.buffer};
  atomic_fetch_add(&pull->engine->bytes_pulled, pin.bytes_len);
  pull->callback(pull->data, ESP_OK, NULL, &pin);
}

enum esp_code esp_pull_new(struct esp_engine *engine, const struct esp_pull_request *request,
                           esp_pull_callback callback, void *data, struct esp_pull **ret,
                           struct esp_pull_header *ret_header, struct esp_status *st) {
  struct esp_pull *pull = esp_calloc(1, sizeof(*pull));
  if (pull == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a pull");
  struct esp_pull_header header = {.lineage = engine->lineage};
  pull->engine = engine;
  pull->callback = callback;
  pull->data = data;
  pull->item.kind = ESP_ITEM_PIN;
  pull->item.done = pull_pinned;
  pull->layout = esp_engine_layout(engine, &header.commit);
  enum esp_code code = pull_resolve(pull, request, st);
  if (code != ESP_OK) {
    esp_pull_free(pull);
    return code;
  }
  header.epoch = pull->layout->epoch;
  header.leaf_count = pull->leaves_len;
  for (size_t i = 0; i < pull->leaves_len; i++)
    header.total_bytes +=
        esp_place_param(esp_layout_place(pull->layout, &pull->layout->leaves[pull->leaves[i]]))->bytes;
  atomic_fetch_add(&engine->pulls, 1);
  *ret_header = header;
  *ret = pull;
  return ESP_OK;
}

bool esp_pull_next(struct esp_pull *pull) {
  if (pull->next == pull->leaves_len)
    return false;
  struct esp_param *param =
      esp_place_param(esp_layout_place(pull->layout, &pull->layout->leaves[pull->leaves[pull->next]]));
  if (esp_param_enqueue(param, &pull->item))
    esp_param_start(param);
  return true;
}
