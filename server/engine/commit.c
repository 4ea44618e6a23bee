/* The commit of a list of pushes: one push in mode async, a round's in the others. Leaves are resolved against the
 * layout of now: gradients for frozen, detached and removed leaves are dropped here, those of one parameter become one
 * step, summed in the order of the list and then of the paths. Then, under the commit lock, the commit takes its
 * number and puts one item into each parameter's queue; whatever can fail comes before that. When all items have run,
 * the pushes are answered. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "engine/norms.h"

/* One gradient that is to be applied. */
struct entry {
  uint32_t param; /* index in the layout */
  uint32_t push;  /* index in the list */
  uint32_t leaf;  /* index in the layout */
  const struct esp_slot *slot;
};

struct member {
  struct esp_push *push; /* ref'd */
  struct esp_why why;    /* it is refused, if it is */
  bool nonfinite;        /* refused for a NaN or an infinity */
};

struct commit {
  struct esp_parked parked; /* while it waits for timers */
  struct esp_engine *engine;
  struct esp_layout *layout; /* ref'd: the optimizers and parameters that the items use */
  struct esp_batch *batch;
  struct entry *entries;
  size_t entries_len;
  size_t entries_max;
  struct esp_grad *grads;      /* of all entries, in order: what the items point to */
  struct esp_measure *measure; /* NULL until an optimizer wants to know norms */
  uint64_t bytes;              /* of all pushes */
  size_t members_len;
  struct member members[];
};

static void commit_free(struct commit *commit) {
  if (commit == NULL)
    return;
  for (size_t i = 0; i < commit->members_len; i++)
    esp_why_done(&commit->members[i].why);
  esp_layout_unref(commit->layout);
  esp_free(commit->entries);
  esp_free(commit->grads);
  esp_measure_free(commit->measure);
  esp_free(commit);
}

/* ---- resolving ---- */

static enum esp_code refuse_nonfinite(enum esp_isa isa, const struct esp_leaf *leaf, const struct esp_slot *slot,
                                      struct esp_status *st) {
  const uint8_t *at = slot->data + slot->nonfinite * esp_dtype_size(slot->dtype);
  float widened = 0;
  if (esp_dtype_size(slot->dtype) == sizeof(uint16_t))
    esp_widen(isa, slot->dtype, 1, at, &widened);
  double value = slot->dtype == ESP_DTYPE_F64   ? *(const double *)at
                 : slot->dtype == ESP_DTYPE_F32 ? (double)*(const float *)at
                                                : (double)widened;
  return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s: element %" PRIu64 " of the gradient is %s", leaf->path,
                  slot->nonfinite,
                  isnan(value) ? "NaN"
                  : value > 0  ? "+infinity"
                               : "-infinity");
}

/* Where one tensor of a push goes: an entry, or one of the counts. */
static void resolve_slot(struct commit *commit, uint32_t index, const struct esp_slot *slot) {
  struct member *member = &commit->members[index];
  struct esp_push_reply *reply = &member->push->reply;
  const struct esp_leaf *leaf = esp_layout_leaf_by_id(commit->layout, slot->key);
  if (leaf == NULL) {
    reply->removed++;
    return;
  }
  reply->absent--;
  const struct esp_place *place = esp_layout_place(commit->layout, leaf);
  if (place->frozen) {
    reply->frozen++;
  } else if (leaf->detached) {
    reply->detached++;
  } else if (slot->nonfinite != ESP_ALL_FINITE && commit->engine->options.on_nonfinite == ESP_NONFINITE_SKIP) {
    reply->skipped = true;
  } else if (slot->nonfinite != ESP_ALL_FINITE) {
    struct esp_status st;
    (void)esp_why_keep(&member->why, refuse_nonfinite(commit->engine->options.isa, leaf, slot, &st), &st);
    member->nonfinite = true;
  } else {
    reply->applied++;
    commit->entries[commit->entries_len++] = (struct entry){
        .param = leaf->param, .push = index, .leaf = (uint32_t)(leaf - commit->layout->leaves), .slot = slot};
  }
}

static void resolve_member(struct commit *commit, uint32_t index) {
  struct member *member = &commit->members[index];
  struct esp_push *push = member->push;
  size_t entries_len = commit->entries_len;
  push->reply = (struct esp_push_reply){.sequence = push->header.sequence,
                                        .epoch = commit->layout->epoch,
                                        .lineage = commit->engine->lineage,
                                        .absent = commit->layout->trained_len};
  esp_why_done(&member->why);
  member->nonfinite = false;
  if (push->header.require_epoch != 0 && push->header.require_epoch != commit->layout->epoch) {
    struct esp_status st;
    enum esp_code code = esp_fail(&st, ESP_ABORTED, "the push requires epoch %" PRIu64 ", the tree is at %" PRIu64,
                                  push->header.require_epoch, commit->layout->epoch);
    (void)esp_why_keep(&member->why, code, &st);
  }
  for (size_t i = 0; i < push->upload.slots_len && member->why.code == ESP_OK; i++)
    resolve_slot(commit, index, &push->upload.slots[i]);
  if (push->reply.skipped)
    push->reply.applied = 0;
  if (push->reply.skipped || member->why.code != ESP_OK)
    commit->entries_len = entries_len;
}

static int entry_compare(const void *a, const void *b) {
  const struct entry *x = a, *y = b;
  if (x->param != y->param)
    return x->param < y->param ? -1 : 1;
  if (x->push != y->push)
    return x->push < y->push ? -1 : 1;
  return x->leaf < y->leaf ? -1 : x->leaf > y->leaf;
}

/* A push in path order, which is how our client sends, is sorted already. */
static void entries_sort(struct commit *commit) {
  for (size_t i = 1; i < commit->entries_len; i++) {
    if (entry_compare(&commit->entries[i - 1], &commit->entries[i]) > 0) {
      qsort(commit->entries, commit->entries_len, sizeof(*commit->entries), entry_compare);
      return;
    }
  }
}

/* The gradients of parameters [i, ...) that are one parameter's: returns where the next one's begin. */
static size_t run_end(const struct commit *commit, size_t i) {
  uint32_t param = commit->entries[i].param;
  while (i < commit->entries_len && commit->entries[i].param == param)
    i++;
  return i;
}

static void commit_resolve(struct commit *commit) {
  commit->entries_len = 0;
  for (uint32_t i = 0; i < commit->members_len; i++)
    resolve_member(commit, i);
  entries_sort(commit);
}

/* What the items point to. */
static void grads_list(struct commit *commit) {
  for (size_t i = 0; i < commit->entries_len; i++) {
    const struct entry *entry = &commit->entries[i];
    const struct esp_param *param = esp_place_param(&commit->layout->params[entry->param]);
    commit->grads[i] = (struct esp_grad){.data = entry->slot->data,
                                         .transposed = commit->layout->leaves[entry->leaf].view == ESP_VIEW_TRANSPOSE,
                                         .rows = param->rows,
                                         .cols = param->cols,
                                         .dtype = entry->slot->dtype};
  }
}

static void commit_go(struct commit *commit);

static void commit_measured(struct esp_measure *measure);

/* After the layout was resolved: the runs whose norms are wanted, where any are. */
static enum esp_code measure_begin(struct commit *commit, struct esp_status *st) {
  bool wants = esp_layout_wants_norms(commit->layout);
  if (wants && commit->measure == NULL) {
    commit->measure = esp_measure_new(commit->engine, commit->entries_max, commit->bytes, commit_measured);
    if (commit->measure == NULL)
      return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for the norms of a push");
    commit->measure->data = commit;
  }
  if (commit->measure != NULL && !esp_measure_begin(commit->measure, commit->layout))
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for the norms of a push");
  grads_list(commit);
  for (size_t i = 0, end; commit->measure != NULL && i < commit->entries_len; i = end) {
    end = run_end(commit, i);
    esp_measure_add(commit->measure, commit->entries[i].param, &commit->grads[i], end - i);
  }
  return ESP_OK;
}

static void commit_refuse(struct commit *commit, enum esp_code code, const struct esp_status *st) {
  for (size_t i = 0; i < commit->members_len; i++)
    (void)esp_why_keep(&commit->members[i].why, code, st);
}

/* Looks at the layout of now; false where that can't be done. */
static bool commit_look(struct commit *commit) {
  struct esp_layout *layout = esp_engine_layout(commit->engine, NULL);
  if (layout == commit->layout) {
    esp_layout_unref(layout);
    return true;
  }
  esp_layout_unref(commit->layout);
  commit->layout = layout;
  commit_resolve(commit);
  struct esp_status st;
  enum esp_code code = measure_begin(commit, &st);
  if (code != ESP_OK)
    commit_refuse(commit, code, &st);
  return code == ESP_OK;
}

/* ---- under the commit lock ---- */

/* Takes the sequences; members that lost theirs meanwhile are refused, and their entries passed over. */
static void commit_admit(struct commit *commit) {
  struct esp_engine *engine = commit->engine;
  bool any = false;
  for (size_t i = 0; i < commit->members_len; i++) {
    struct member *member = &commit->members[i];
    struct esp_status st;
    if (member->why.code == ESP_OK)
      (void)esp_why_keep(&member->why, esp_sequence_commit(engine, member->push, &st), &st);
    any = any || member->why.code == ESP_OK;
  }
  if (any) {
    engine->commit++;
    engine->push_commits++;
  }
  for (size_t i = 0; i < commit->members_len; i++)
    commit->members[i].push->reply.commit = engine->commit;
}

/* Gradients of a member that was refused just now move out of the way. (Its part of the norms stays in them.) */
static size_t grads_admitted(const struct commit *commit, size_t first, size_t end) {
  size_t len = 0;
  for (size_t i = first; i < end; i++) {
    if (commit->members[commit->entries[i].push].why.code == ESP_OK)
      commit->grads[first + len++] = commit->grads[i];
  }
  return len;
}

static void commit_enqueue(struct commit *commit) {
  size_t run = 0;
  for (size_t i = 0, end; i < commit->entries_len; i = end, run++) {
    const struct esp_place *place = &commit->layout->params[commit->entries[i].param];
    end = run_end(commit, i);
    size_t grads_len = grads_admitted(commit, i, end);
    if (grads_len == 0)
      continue;
    ESP_CHECK(grads_len <= ESP_ITEM_GRADS_MAX);
    struct esp_item item = {.kind = ESP_ITEM_STEP,
                            .step = {.optim = esp_place_optim(commit->layout, place),
                                     .grads = &commit->grads[i],
                                     .grads_len = grads_len,
                                     .grad_scale = 1}};
    if (commit->measure != NULL)
      item.step.norms = commit->measure->runs[run].norms;
    esp_batch_enqueue(commit->batch, esp_place_param(place), &item);
  }
}

/* ---- the whole ---- */

/* All items have run: the pushes are answered, and the replays that waited for them. */
static void commit_done(struct esp_batch *batch, void *data) {
  (void)batch;
  struct commit *commit = data;
  struct esp_engine *engine = commit->engine;
  for (size_t i = 0; i < commit->members_len; i++) {
    struct member *member = &commit->members[i];
    if (member->nonfinite || member->push->reply.skipped)
      atomic_fetch_add(&engine->pushes_nonfinite, 1);
    struct esp_status st;
    enum esp_code code = esp_why_tell(&member->why, &st);
    if (code != ESP_OK) {
      esp_sequence_drop(engine, member->push);
      esp_push_answer(member->push, code, &st);
      continue;
    }
    struct esp_push *waiter = esp_sequence_done(engine, member->push);
    while (waiter != NULL) {
      struct esp_push *next = waiter->waiter_next;
      waiter->reply = member->push->reply;
      esp_push_answer(waiter, ESP_OK, NULL);
      waiter = next;
    }
    esp_push_answer(member->push, ESP_OK, NULL);
  }
  commit_free(commit);
  atomic_fetch_sub(&engine->committing, 1);
}

static void commit_unparked(struct esp_parked *parked, enum esp_code code, const struct esp_status *st);

static struct commit *commit_new(struct esp_engine *engine, struct esp_push *const *pushes, size_t len) {
  struct commit *commit = esp_calloc(1, sizeof(*commit) + len * sizeof(commit->members[0]));
  if (commit == NULL)
    return NULL;
  size_t slots = 0;
  commit->parked.go = commit_unparked;
  commit->engine = engine;
  commit->members_len = len;
  for (size_t i = 0; i < len; i++) {
    commit->members[i].push = pushes[i];
    slots += pushes[i]->upload.slots_len;
    commit->bytes += pushes[i]->header.total_bytes;
  }
  commit->entries_max = slots;
  commit->entries = esp_malloc_array(slots + 1, sizeof(*commit->entries));
  commit->grads = esp_malloc_array(slots + 1, sizeof(*commit->grads));
  commit->batch = esp_batch_new(engine->pool, slots, commit_done, commit);
  if (commit->entries != NULL && commit->grads != NULL && commit->batch != NULL)
    return commit;
  esp_batch_free(commit->batch);
  commit_free(commit);
  return NULL;
}

static void refuse_all(struct esp_engine *engine, struct esp_push *const *pushes, size_t len) {
  struct esp_status st;
  enum esp_code code = esp_fail(&st, ESP_RESOURCE_EXHAUSTED, "no memory to commit a push");
  for (size_t i = 0; i < len; i++) {
    esp_sequence_drop(engine, pushes[i]);
    esp_push_answer(pushes[i], code, &st);
  }
}

/* Under the commit lock, which it gives back. */
static void commit_hand_over(struct commit *commit) {
  struct esp_engine *engine = commit->engine;
  struct esp_batch *batch = commit->batch;
  bool here = commit->bytes <= ESP_HERE_BYTES_MAX;
  bool near = esp_timers_are_near(engine);
  commit_admit(commit);
  commit_enqueue(commit);
  if (near)
    esp_timers_look(engine);
  pthread_mutex_unlock(&engine->commit_lock);
  esp_batch_start(batch, here);
}

/* Resolved outside the lock, and again in the rare case that the layout changed meanwhile. Comes back here when norms
 * have been measured, and when the timers have run that were due before it. */
static void commit_go(struct commit *commit) {
  struct esp_engine *engine = commit->engine;
  for (;;) {
    bool ok = commit_look(commit);
    if (ok && commit->measure != NULL && esp_measure_start(commit->measure))
      return;
    pthread_mutex_lock(&engine->commit_lock);
    if (ok && esp_timers_are_near(engine) && esp_timers_park(engine, &commit->parked)) {
      pthread_mutex_unlock(&engine->commit_lock);
      return;
    }
    if (engine->layout == commit->layout || !ok)
      break;
    pthread_mutex_unlock(&engine->commit_lock);
  }
  commit_hand_over(commit);
}

static void commit_unparked(struct esp_parked *parked, enum esp_code code, const struct esp_status *st) {
  struct commit *commit = (struct commit *)parked;
  if (code == ESP_OK) {
    commit_go(commit);
    return;
  }
  commit_refuse(commit, code, st);
  pthread_mutex_lock(&commit->engine->commit_lock);
  commit_hand_over(commit);
}

static void commit_measured(struct esp_measure *measure) {
  commit_go(measure->data);
}

void esp_commit_pushes(struct esp_engine *engine, struct esp_push *const *pushes, size_t len) {
  for (size_t i = 0; i < len; i++)
    esp_push_ref(pushes[i]);
  struct commit *commit = commit_new(engine, pushes, len);
  if (commit == NULL) {
    refuse_all(engine, pushes, len);
    return;
  }
  atomic_fetch_add(&engine->committing, 1);
  commit_go(commit);
}
