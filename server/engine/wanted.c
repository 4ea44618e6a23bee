/* Which leaves a pull takes, in which dtype: those named by id, by path and by a selection, in this order; and what the
 * reader has. */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/pull.h"

void esp_wanted_done(struct esp_wanted *wanted) {
  esp_layout_unref(wanted->layout);
  esp_free(wanted->leaves);
  esp_free(wanted->dtypes);
  esp_free(wanted->have);
  *wanted = (struct esp_wanted){0};
}

/* The dtype of NONE is the parameter's. */
static enum esp_code add(struct esp_wanted *wanted, const struct esp_leaf *leaf, enum esp_dtype dtype,
                         struct esp_status *st) {
  uint32_t index = (uint32_t)(leaf - wanted->layout->leaves);
  enum esp_dtype own = esp_layout_place(wanted->layout, leaf)->dtype;
  if (wanted->dtypes[index] != ESP_DTYPE_NONE)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s is named twice", leaf->path);
  enum esp_code code = dtype == ESP_DTYPE_NONE ? ESP_OK : esp_travel_check(leaf->path, own, dtype, st);
  if (code != ESP_OK)
    return code;
  wanted->dtypes[index] = (uint8_t)(dtype == ESP_DTYPE_NONE ? own : dtype);
  wanted->leaves[wanted->len++] = index;
  return ESP_OK;
}

static enum esp_code add_ids(struct esp_wanted *wanted, const struct esp_pull_request *request, struct esp_status *st) {
  for (size_t i = 0; i < request->leaf_ids_len; i++) {
    const struct esp_leaf *leaf = esp_layout_leaf_by_id(wanted->layout, request->leaf_ids[i]);
    bool has_dtype = request->dtypes != NULL && request->dtypes[i] != ESP_DTYPE_NONE;
    enum esp_dtype dtype = has_dtype ? (enum esp_dtype)request->dtypes[i] : request->dtype;
    enum esp_code code = leaf == NULL ? esp_fail(st, ESP_NOT_FOUND, "no leaf has the id %" PRIu64, request->leaf_ids[i])
                                      : add(wanted, leaf, dtype, st);
    if (code != ESP_OK)
      return code;
  }
  return ESP_OK;
}

static enum esp_code add_paths(struct esp_wanted *wanted, const struct esp_pull_request *request,
                               struct esp_status *st) {
  for (size_t i = 0; i < request->paths_len; i++) {
    const char *path = request->paths[i];
    const struct esp_leaf *leaf = esp_layout_leaf_by_path(wanted->layout, path, strlen(path));
    enum esp_code code =
        leaf == NULL ? esp_leaf_unknown(wanted->layout, path, strlen(path), st) : add(wanted, leaf, request->dtype, st);
    if (code != ESP_OK)
      return code;
  }
  return ESP_OK;
}

static enum esp_code add_selection(struct esp_wanted *wanted, const struct esp_pull_request *request,
                                   struct esp_status *st) {
  bool named = request->leaf_ids_len > 0 || request->paths_len > 0;
  if (named && request->selection[0] == '\0')
    return ESP_OK;
  struct esp_selection sel = {0};
  enum esp_code code = esp_select(wanted->layout, request->selection, strlen(request->selection), &sel, st);
  for (size_t i = 0; i < sel.len && code == ESP_OK; i++)
    code = add(wanted, &wanted->layout->leaves[sel.leaves[i]], request->dtype, st);
  esp_selection_done(&sel);
  return code;
}

/* A leaf that is gone, is bound to another parameter or in another way by now, or is wanted in another dtype than the
 * reader's, counts for nothing. */
static bool is_had(const struct esp_wanted *wanted, const struct esp_leaf *leaf, const struct esp_have *have) {
  const struct esp_place *place = esp_layout_place(wanted->layout, leaf);
  enum esp_dtype dtype = have->dtype == ESP_DTYPE_NONE ? place->dtype : have->dtype;
  return leaf->view == have->view && place->id == have->param_id &&
         (enum esp_dtype)wanted->dtypes[leaf - wanted->layout->leaves] == dtype;
}

static enum esp_code note_have(struct esp_wanted *wanted, const struct esp_pull_request *request,
                               struct esp_status *st) {
  wanted->have = esp_calloc(wanted->layout->leaves_len + 1, sizeof(*wanted->have));
  if (wanted->have == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a pull");
  for (size_t i = 0; i < request->have_len; i++) {
    const struct esp_have *have = &request->have[i];
    const struct esp_leaf *leaf = esp_layout_leaf_by_id(wanted->layout, have->leaf_id);
    if (leaf != NULL && is_had(wanted, leaf, have))
      wanted->have[leaf - wanted->layout->leaves] = have->version;
  }
  return ESP_OK;
}

static void add_up(struct esp_wanted *wanted) {
  for (size_t i = 0; i < wanted->len; i++) {
    uint64_t cost = esp_wanted_cost(wanted, i);
    wanted->bytes += esp_wanted_bytes(wanted, i);
    wanted->cost += cost;
    if (cost > esp_wanted_cost(wanted, wanted->largest))
      wanted->largest = i;
  }
}

enum esp_code esp_wanted_init(struct esp_wanted *wanted, struct esp_layout *layout, uint64_t lineage,
                              const struct esp_pull_request *request, struct esp_status *st) {
  *wanted = (struct esp_wanted){.layout = layout};
  wanted->dtypes = esp_calloc(layout->leaves_len + 1, sizeof(*wanted->dtypes));
  /* Nothing is named twice, so there are never more than the tree's leaves. */
  wanted->leaves = esp_malloc_array(layout->leaves_len + 1, sizeof(*wanted->leaves));
  enum esp_code code = ESP_OK;
  if (wanted->dtypes == NULL || wanted->leaves == NULL)
    code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a pull");
  if (code == ESP_OK)
    code = add_ids(wanted, request, st);
  if (code == ESP_OK)
    code = add_paths(wanted, request, st);
  if (code == ESP_OK)
    code = add_selection(wanted, request, st);
  if (code == ESP_OK && request->have_len > 0 && request->have_lineage == lineage)
    code = note_have(wanted, request, st);
  if (code == ESP_OK)
    add_up(wanted);
  else
    esp_wanted_done(wanted);
  return code;
}
