/* Pulls. A plain pull takes the layout of its beginning; each tensor is then pinned when its turn comes, by an item in
 * its parameter's queue: so a pull sees every push that was committed before it asked, never half of one, and holds up
 * nobody. A consistent pull (pull_consistent.c) pins them all at one commit, before the first one is given. */
#include "engine/pull.h"

#include <inttypes.h>

#include "base/alloc.h"
#include "base/check.h"

/* ---- callbacks ---- */

void esp_pull_fail(struct esp_pull *pull, enum esp_code code, const struct esp_status *st) {
  pull->callback(pull->data, code, st, NULL);
}

void esp_pull_give_header(struct esp_pull *pull) {
  struct esp_pull_event event = {.header = &pull->header};
  pull->callback(pull->data, ESP_OK, NULL, &event);
}

/* Makes of the value what is wanted of leaf i: turned, narrowed, or as it lies. */
static enum esp_code see(const struct esp_wanted *wanted, size_t i, struct esp_hold *hold, struct esp_status *st) {
  if (esp_wanted_is_plain(wanted, i))
    return ESP_OK;
  const struct esp_leaf *leaf = esp_wanted_leaf(wanted, i);
  const struct esp_param *param = esp_wanted_param(wanted, i);
  const bool transposed = leaf->view == ESP_VIEW_TRANSPOSE;
  const struct esp_seen seen = {.transposed = transposed,
                                .rows = transposed ? param->cols : 1,
                                .cols = transposed ? param->rows : param->elements,
                                .dtype = param->dtype,
                                .wire_dtype = esp_wanted_dtype(wanted, i)};
  struct esp_status why;
  enum esp_code code = esp_hold_copy(hold, &seen, &why);
  return code == ESP_OK ? ESP_OK : esp_fail(st, code, "leaf %s: %s", leaf->path, why.message);
}

void esp_pull_give(struct esp_pull *pull, struct esp_hold *hold, uint64_t version) {
  const size_t next = pull->next++;
  const struct esp_leaf *leaf = esp_wanted_leaf(&pull->wanted, next);
  struct esp_pull_event event = {0};
  struct esp_pin pin;
  struct esp_status st;
  enum esp_code code = hold == NULL ? ESP_OK : see(&pull->wanted, next, hold, &st);
  if (code != ESP_OK) {
    esp_hold_unref(hold);
    esp_pull_fail(pull, code, &st);
    return;
  }
  if (hold != NULL) {
    pin = (struct esp_pin){.leaf_id = leaf->id,
                           .param_id = esp_layout_place(pull->wanted.layout, leaf)->id,
                           .version = version,
                           .view = leaf->view,
                           .dtype = esp_wanted_dtype(&pull->wanted, next),
                           .shape = esp_layout_shape(pull->wanted.layout, leaf),
                           .bytes = esp_hold_bytes(hold),
                           .bytes_len = (size_t)esp_wanted_bytes(&pull->wanted, next),
                           .hold = hold};
    event.pin = &pin;
    atomic_fetch_add(&pull->engine->bytes_pulled, pin.bytes_len);
  }
  pull->callback(pull->data, ESP_OK, NULL, &event);
}

/* ---- plain pulls ---- */

static void plain_pinned(struct esp_item *item) {
  struct esp_pull *pull = (struct esp_pull *)item;
  struct esp_hold *hold = pull->hold;
  pull->hold = NULL;
  if (item->pin.failed) {
    struct esp_status st;
    enum esp_code code =
        esp_fail(&st, ESP_RESOURCE_EXHAUSTED, "leaf %s: no memory to keep its value apart while it is read",
                 esp_wanted_leaf(&pull->wanted, pull->next)->path);
    esp_hold_unref(hold);
    esp_pull_fail(pull, code, &st);
    return;
  }
  if (hold->buffer == NULL) { /* unchanged */
    esp_hold_unref(hold);
    hold = NULL;
  }
  esp_pull_give(pull, hold, item->pin.version);
}

/* The hold's bytes were granted. */
static void plain_pin(struct esp_pull *pull) {
  struct esp_param *param = esp_wanted_param(&pull->wanted, pull->next);
  pull->hold->bytes = pull->reservation.bytes;
  pull->item.kind = ESP_ITEM_PIN;
  pull->item.done = plain_pinned;
  pull->item.pin.hold = pull->hold;
  pull->item.pin.have = esp_wanted_have(&pull->wanted, pull->next);
  if (esp_param_enqueue(param, &pull->item))
    esp_param_start(param);
}

static void plain_answered(struct esp_reservation *reservation, enum esp_code code, const struct esp_status *st) {
  struct esp_pull *pull = (struct esp_pull *)((char *)reservation - offsetof(struct esp_pull, reservation));
  if (code == ESP_OK) {
    plain_pin(pull);
    return;
  }
  esp_hold_unref(pull->hold);
  pull->hold = NULL;
  esp_pull_fail(pull, code, st);
}

static enum esp_pull_answer plain_next(struct esp_pull *pull) {
  struct esp_status st;
  bool granted = false;
  enum esp_code code = ESP_OK;
  pull->hold = esp_hold_new(&pull->engine->world);
  pull->reservation.answered = plain_answered;
  if (pull->hold == NULL)
    code = esp_fail(&st, ESP_RESOURCE_EXHAUSTED, "no memory for a pull");
  else
    code = esp_pull_reserve(pull, esp_wanted_cost(&pull->wanted, pull->next), &granted, &st);
  if (code != ESP_OK)
    plain_answered(&pull->reservation, code, &st);
  else if (granted)
    plain_pin(pull);
  return granted || code != ESP_OK ? ESP_PULL_ASKED : ESP_PULL_WAITS;
}

/* ---- all pulls ---- */

enum esp_code esp_pull_reserve(struct esp_pull *pull, uint64_t bytes, bool *ret_granted, struct esp_status *st) {
  uint64_t now_ms = esp_engine_now(pull->engine);
  return esp_budget_request(&pull->engine->world.copies, &pull->reservation, bytes, now_ms,
                            esp_wait_deadline(pull->engine, now_ms, pull->request.wait_ms), ret_granted, st);
}

/* A pull that can never be served is refused before it begins. */
static enum esp_code check_cost(const struct esp_pull *pull, struct esp_status *st) {
  uint64_t max = pull->engine->options.max_copy_on_write;
  if (pull->request.consistent && pull->wanted.cost > max)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED,
                    "a consistent pull of these %zu leaves may need %" PRIu64
                    " bytes, but --max-copy-on-write is %" PRIu64 ": pull less at once, or raise it",
                    pull->wanted.len, pull->wanted.cost, max);
  if (pull->request.consistent || pull->wanted.len == 0)
    return ESP_OK;
  uint64_t cost = esp_wanted_cost(&pull->wanted, pull->wanted.largest);
  if (cost <= max)
    return ESP_OK;
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED,
                  "leaf %s: a pull of it may need %" PRIu64 " bytes, but --max-copy-on-write is %" PRIu64 ": raise it",
                  esp_wanted_leaf(&pull->wanted, pull->wanted.largest)->path, cost, max);
}

enum esp_code esp_pull_new(struct esp_engine *engine, const struct esp_pull_request *request,
                           esp_pull_callback callback, void *data, struct esp_pull **ret, struct esp_status *st) {
  struct esp_pull *pull = esp_calloc(1, sizeof(*pull));
  if (pull == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a pull");
  pull->engine = engine;
  pull->request = *request;
  pull->callback = callback;
  pull->data = data;
  atomic_fetch_add(&engine->pulls_active, 1);
  struct esp_layout *layout = esp_engine_layout(engine, &pull->header.commit);
  enum esp_code code = esp_wanted_init(&pull->wanted, layout, engine->lineage, request, st);
  if (code == ESP_OK)
    code = check_cost(pull, st);
  if (code != ESP_OK) {
    esp_pull_free(pull);
    return code;
  }
  pull->header.epoch = layout->epoch;
  pull->header.lineage = engine->lineage;
  pull->header.leaf_count = pull->wanted.len;
  pull->header.total_bytes = pull->wanted.bytes;
  atomic_fetch_add(&engine->pulls, 1);
  *ret = pull;
  return ESP_OK;
}

enum esp_pull_answer esp_pull_next(struct esp_pull *pull) {
  if (!pull->begun) {
    pull->begun = true;
    if (pull->request.consistent)
      return esp_pull_begin_consistent(pull);
    esp_pull_give_header(pull);
    return ESP_PULL_ASKED;
  }
  if (pull->next == pull->wanted.len)
    return ESP_PULL_END;
  if (!pull->request.consistent)
    return plain_next(pull);
  struct esp_taken *taken = &pull->taken[pull->next];
  struct esp_hold *hold = taken->hold;
  taken->hold = NULL;
  esp_pull_give(pull, hold, taken->version);
  return ESP_PULL_ASKED;
}

bool esp_pull_cancel(struct esp_pull *pull) {
  return esp_budget_cancel(&pull->engine->world.copies, &pull->reservation);
}

void esp_pull_free(struct esp_pull *pull) {
  if (pull == NULL)
    return;
  esp_hold_unref(pull->hold);
  for (size_t i = pull->next; pull->taken != NULL && i < pull->wanted.len; i++)
    esp_hold_unref(pull->taken[i].hold);
  esp_free(pull->taken);
  esp_wanted_done(&pull->wanted);
  atomic_fetch_sub(&pull->engine->pulls_active, 1);
  esp_free(pull);
}
