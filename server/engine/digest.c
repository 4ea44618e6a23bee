/* Digests: one item in each selected parameter's queue, put there at one commit. A parameter's later steps wait for its
 * own digest, and for no other's. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/check.h"
#include "engine/internal.h"

struct digest {
  struct esp_engine *engine;
  struct esp_layout *layout; /* ref'd */
  struct esp_selection sel;
  uint64_t commit;
  struct esp_batch *batch;
  uint32_t *item_of; /* by parameter of the layout: its item + 1, or 0 */
  struct esp_digest *digests;
  struct esp_param_stat *stats;
  esp_digest_callback callback;
  void *data;
};

static void digest_free(struct digest *digest) {
  if (digest == NULL)
    return;
  esp_layout_unref(digest->layout);
  esp_selection_done(&digest->sel);
  esp_free(digest->item_of);
  esp_free(digest->digests);
  esp_free(digest->stats);
  esp_free(digest);
}

/* XXH128 over each leaf's path, a zero byte and its digest. */
static struct esp_digest digest_all(const struct digest *digest) {
  struct esp_digest all;
  XXH3_state_t *state = XXH3_createState();
  ESP_CHECK(state != NULL);
  XXH3_128bits_reset(state);
  for (size_t i = 0; i < digest->sel.len; i++) {
    const struct esp_leaf *leaf = &digest->layout->leaves[digest->sel.leaves[i]];
    XXH3_128bits_update(state, leaf->path, leaf->path_len + 1);
    XXH3_128bits_update(state, digest->digests[i].bytes, sizeof(digest->digests[i].bytes));
  }
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
  XXH3_freeState(state);
  memcpy(all.bytes, canonical.digest, sizeof(all.bytes));
  return all;
}

static void digest_done(struct esp_batch *batch, void *data) {
  struct digest *digest = data;
  struct esp_engine *engine = digest->engine;
  for (size_t i = 0; i < digest->sel.len; i++) {
    const struct esp_leaf *leaf = &digest->layout->leaves[digest->sel.leaves[i]];
    const struct esp_item *item = &batch->items[digest->item_of[leaf->param] - 1].item;
    esp_place_stat(esp_layout_place(digest->layout, leaf), &digest->stats[i]);
    digest->stats[i].steps = item->hash.steps;
    digest->stats[i].version = item->hash.version;
    digest->digests[i] = item->hash.digest;
  }
  struct esp_digest_reply reply = {.layout = digest->layout,
                                   .commit = digest->commit,
                                   .sel = digest->sel,
                                   .digests = digest->digests,
                                   .stats = digest->stats,
                                   .all = digest_all(digest)};
  digest->callback(digest->data, ESP_OK, NULL, &reply);
  digest_free(digest);
  atomic_fetch_sub(&engine->committing, 1);
}

static enum esp_code digest_prepare(struct digest *digest, const char *selection, struct esp_status *st) {
  enum esp_code code = esp_select(digest->layout, selection, strlen(selection), &digest->sel, st);
  if (code != ESP_OK)
    return code;
  digest->item_of = esp_calloc(digest->layout->params_len + 1, sizeof(*digest->item_of));
  digest->digests = esp_malloc_array(digest->sel.len + 1, sizeof(*digest->digests));
  digest->stats = esp_malloc_array(digest->sel.len + 1, sizeof(*digest->stats));
  digest->batch = esp_batch_new(digest->engine->pool, digest->sel.len, digest_done, digest);
  if (digest->item_of != NULL && digest->digests != NULL && digest->stats != NULL && digest->batch != NULL)
    return ESP_OK;
  esp_batch_free(digest->batch);
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for the digests of %zu leaves", digest->sel.len);
}

static void digest_enqueue(struct digest *digest) {
  struct esp_item item = {.kind = ESP_ITEM_HASH};
  for (size_t i = 0; i < digest->sel.len; i++) {
    const struct esp_leaf *leaf = &digest->layout->leaves[digest->sel.leaves[i]];
    if (digest->item_of[leaf->param] != 0)
      continue; /* tied to one that was before it */
    esp_batch_enqueue(digest->batch, esp_place_param(esp_layout_place(digest->layout, leaf)), &item);
    digest->item_of[leaf->param] = (uint32_t)digest->batch->len;
  }
}

/* False where the layout changed meanwhile: to be tried again. */
static bool digest_try(struct esp_engine *engine, const char *selection, esp_digest_callback callback, void *data) {
  struct esp_status st;
  struct digest *digest = esp_calloc(1, sizeof(*digest));
  if (digest == NULL) {
    callback(data, esp_fail(&st, ESP_RESOURCE_EXHAUSTED, "no memory for a digest"), &st, NULL);
    return true;
  }
  *digest = (struct digest){.engine = engine, .callback = callback, .data = data};
  digest->layout = esp_engine_layout(engine, NULL);
  enum esp_code code = digest_prepare(digest, selection, &st);
  if (code != ESP_OK) {
    digest_free(digest);
    callback(data, code, &st, NULL);
    return true;
  }
  struct esp_batch *batch = digest->batch;
  pthread_mutex_lock(&engine->commit_lock);
  bool same = engine->layout == digest->layout;
  if (same) {
    atomic_fetch_add(&engine->committing, 1);
    digest->commit = engine->commit;
    digest_enqueue(digest);
  }
  pthread_mutex_unlock(&engine->commit_lock);
  if (same) {
    esp_batch_start(batch, false);
  } else {
    esp_batch_free(batch);
    digest_free(digest);
  }
  return same;
}

void esp_engine_digest(struct esp_engine *engine, const char *selection, esp_digest_callback callback, void *data) {
  while (!digest_try(engine, selection, callback, data)) {
  }
}
