/* Which leaves a pull takes: those named by id, by path and by a selection, in this order; and what the reader has. */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/pull.h"

void esp_wanted_done(struct esp_wanted *wanted) {
  esp_layout_unref(wanted->layout);
  esp_free(wanted->leaves);
  esp_free(wanted->have);
  *wanted = (struct esp_wanted){0};
}

static enum esp_code add(struct esp_wanted *wanted, const struct esp_leaf *leaf, uint8_t *seen, struct esp_status *st) {
  uint32_t index = (uint32_t)(leaf - wanted->layout->leaves);
  if (seen[index / 8] & (1u << index % 8))
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s is named twice", leaf->path);
  seen[index / 8] |= (uint8_t)(1u << index % 8);
  wanted->leaves[wanted->len++] = index;
  return ESP_OK;
}

static enum esp_code add_ids(struct esp_wanted *wanted, const struct esp_pull_request *request, uint8_t *seen,
                             struct esp_status *st) {
  for (size_t i = 0; i < request->leaf_ids_len; i++) {
    const struct esp_leaf *leaf = esp_layout_leaf_by_id(wanted->layout, request->leaf_ids[i]);
    enum esp_code code = leaf == NULL ? esp_fail(st, ESP_NOT_FOUND, "no leaf has the id %" PRIu64, request->leaf_ids[i])
                                      : add(wanted, leaf, seen, st);
    if (code != ESP_OK)
      return code;
  }
  return ESP_OK;
}

static enum esp_code add_paths(struct esp_wanted *wanted, const struct esp_pull_request *request, uint8_t *seen,
                               struct esp_status *st) {
  for (size_t i = 0; i < request->paths_len; i++) {
    const char *path = request->paths[i];
    const struct esp_leaf *leaf = esp_layout_leaf_by_path(wanted->layout, path, strlen(path));
    enum esp_code code =
        leaf == NULL ? esp_leaf_unknown(wanted->layout, path, strlen(path), st) : add(wanted, leaf, seen, st);
    if (code != ESP_OK)
      return code;
  }
  return ESP_OK;
}

static enum esp_code add_selection(struct esp_wanted *wanted, const struct esp_pull_request *request, uint8_t *seen,
                                   struct esp_status *st) {
  bool named = request->leaf_ids_len > 0 || request->paths_len > 0;
  if (named && request->selection[0] == '\0')
    return ESP_OK;
  struct esp_selection sel = {0};
  enum esp_code code = esp_select(wanted->layout, request->selection, strlen(request->selection), &sel, st);
  for (size_t i = 0; i < sel.len && code == ESP_OK; i++)
    code = add(wanted, &wanted->layout->leaves[sel.leaves[i]], seen, st);
  esp_selection_done(&sel);
  return code;
}

/* A leaf that is gone, or is bound to another parameter or in another way by now, counts for nothing. */
static enum esp_code note_have(struct esp_wanted *wanted, const struct esp_pull_request *request,
                               struct esp_status *st) {
  wanted->have = esp_calloc(wanted->layout->leaves_len + 1, sizeof(*wanted->have));
  if (wanted->have == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a pull");
  for (size_t i = 0; i < request->have_len; i++) {
    const struct esp_have *have = &request->have[i];
    const struct esp_leaf *leaf = esp_layout_leaf_by_id(wanted->layout, have->leaf_id);
    if (leaf != NULL && leaf->view == have->view && esp_layout_place(wanted->layout, leaf)->id == have->param_id)
      wanted->have[leaf - wanted->layout->leaves] = have->version;
  }
  return ESP_OK;
}

static void add_up(struct esp_wanted *wanted) {
  for (size_t i = 0; i < wanted->len; i++) {
    uint64_t cost = esp_wanted_cost(wanted, i);
    wanted->bytes += esp_wanted_param(wanted, i)->bytes;
    wanted->cost += cost;
    if (cost > esp_wanted_cost(wanted, wanted->largest))
      wanted->largest = i;
  }
}

enum esp_code esp_wanted_init(struct esp_wanted *wanted, struct esp_layout *layout, uint64_t lineage,
                              const struct esp_pull_request *request, struct esp_status *st) {
  *wanted = (struct esp_wanted){.layout = layout};
  uint8_t *seen = esp_calloc(layout->leaves_len / 8 + 1, 1);
  /* Nothing is named twice, so there are never more than the tree's leaves. */
  wanted->leaves = esp_malloc_array(layout->leaves_len + 1, sizeof(*wanted->leaves));
  enum esp_code code = ESP_OK;
  if (seen == NULL || wanted->leaves == NULL)
    code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a pull");
  if (code == ESP_OK)
    code = add_ids(wanted, request, seen, st);
  if (code == ESP_OK)
    code = add_paths(wanted, request, seen, st);
  if (code == ESP_OK)
    code = add_selection(wanted, request, seen, st);
  if (code == ESP_OK && request->have_len > 0 && request->have_lineage == lineage)
    code = note_have(wanted, request, st);
  esp_free(seen);
  if (code == ESP_OK)
    add_up(wanted);
  else
    esp_wanted_done(wanted);
  return code;
}
