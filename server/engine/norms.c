/* Norms. Each tensor's squares are summed over ranges of a fixed size, the ranges in their order, the tensors in that
 * of the parameters: so the bits depend neither on the number of threads nor on how the stream was cut. */
#include "engine/norms.h"

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"

static const struct esp_place *run_place(const struct esp_measure *measure, const struct esp_run *run) {
  return &measure->layout->params[run->param];
}

static unsigned run_norms(const struct esp_measure *measure, const struct esp_run *run) {
  return esp_optim_norms(esp_place_optim(measure->layout, run_place(measure, run)));
}

static size_t run_ranges(const struct esp_measure *measure, const struct esp_run *run) {
  size_t elements = esp_place_param(run_place(measure, run))->elements;
  return (elements + ESP_SQUARES_ELEMENTS - 1) / ESP_SQUARES_ELEMENTS;
}

bool esp_layout_wants_norms(const struct esp_layout *layout) {
  for (size_t i = 0; i < layout->groups_len; i++) {
    if (esp_optim_norms(esp_group_get_optim(&layout->groups[i])) != 0)
      return true;
  }
  return false;
}

/* ---- runs ---- */

struct esp_measure *esp_measure_new(struct esp_engine *engine, size_t tensors, uint64_t bytes,
                                    void (*done)(struct esp_measure *measure)) {
  struct esp_measure *measure = esp_calloc(1, sizeof(*measure));
  if (measure == NULL)
    return NULL;
  size_t ranges = (size_t)(bytes / (ESP_SQUARES_ELEMENTS * sizeof(uint16_t))) + tensors + 1; /* of the least dtype */
  measure->engine = engine;
  measure->done = done;
  measure->capacity = tensors;
  measure->runs = esp_malloc_array(tensors + 1, sizeof(*measure->runs));
  measure->old_runs = esp_malloc_array(tensors + 1, sizeof(*measure->old_runs));
  measure->old_grads = esp_malloc_array(tensors + 1, sizeof(*measure->old_grads));
  measure->ranges = esp_malloc_array(ranges, sizeof(*measure->ranges));
  if (measure->runs != NULL && measure->old_runs != NULL && measure->old_grads != NULL && measure->ranges != NULL)
    return measure;
  esp_measure_free(measure);
  return NULL;
}

void esp_measure_free(struct esp_measure *measure) {
  if (measure == NULL)
    return;
  esp_free(measure->runs);
  esp_free(measure->old_runs);
  esp_free(measure->old_grads);
  esp_free(measure->ranges);
  esp_free(measure->groups);
  esp_free(measure);
}

/* The gradients' list is about to be written anew: the old runs get a copy of it. */
static void keep_old(struct esp_measure *measure) {
  size_t used = 0;
  measure->old_runs_len = 0;
  for (size_t i = 0; i < measure->runs_len; i++) {
    struct esp_run *old = &measure->old_runs[measure->old_runs_len++];
    *old = measure->runs[i];
    ESP_CHECK(used + old->grads_len <= measure->capacity);
    memcpy(&measure->old_grads[used], old->grads, old->grads_len * sizeof(*old->grads));
    old->grads = &measure->old_grads[used];
    used += old->grads_len;
  }
  measure->runs_len = 0;
}

bool esp_measure_begin(struct esp_measure *measure, const struct esp_layout *layout) {
  double *groups = esp_realloc(measure->groups, layout->groups_len * sizeof(*groups));
  if (groups == NULL)
    return false;
  measure->groups = groups;
  measure->layout = layout;
  keep_old(measure);
  return true;
}

void esp_measure_add(struct esp_measure *measure, uint32_t param, const struct esp_grad *grads, size_t grads_len) {
  ESP_CHECK(measure->runs_len < measure->capacity);
  measure->runs[measure->runs_len++] = (struct esp_run){.param = param, .grads = grads, .grads_len = grads_len};
}

static bool is_same(const struct esp_run *a, const struct esp_run *b) {
  bool same = a->grads_len == b->grads_len;
  for (size_t i = 0; i < a->grads_len && same; i++) /* where data is the same, its dimensions are */
    same = a->grads[i].data == b->grads[i].data && a->grads[i].transposed == b->grads[i].transposed;
  return same;
}

/* Takes over what was measured of those that are the same: a parameter's gradients lie where they lay. */
static void carry(struct esp_measure *measure) {
  struct esp_map map = {0};
  if (!esp_map_reserve(&map, measure->old_runs_len))
    measure->old_runs_len = 0; /* measured again */
  for (size_t i = 0; i < measure->old_runs_len; i++) {
    if (measure->old_runs[i].known)
      esp_map_put(&map, (uintptr_t)measure->old_runs[i].grads[0].data, i);
  }
  for (size_t i = 0; i < measure->runs_len; i++) {
    struct esp_run *run = &measure->runs[i];
    const uintptr_t *index = esp_map_get(&map, (uintptr_t)run->grads[0].data);
    if (index == NULL || !is_same(run, &measure->old_runs[*index]))
      continue;
    run->known = true;
    run->norms.param = measure->old_runs[*index].norms.param;
  }
  measure->old_runs_len = 0;
  esp_map_done(&map);
}

static void mark_wanted(struct esp_measure *measure) {
  unsigned all = 0;
  for (size_t i = 0; i < measure->runs_len; i++)
    all |= run_norms(measure, &measure->runs[i]);
  for (size_t i = 0; i < measure->runs_len; i++)
    measure->runs[i].wanted = (all & ESP_NORM_GLOBAL) != 0 || run_norms(measure, &measure->runs[i]) != 0;
}

/* ---- measuring ---- */

static bool is_due(const struct esp_run *run) {
  return run->wanted && !run->known;
}

static double measure_range(const struct esp_measure *measure, const struct esp_run *run, size_t range) {
  const struct esp_param *param = esp_place_param(run_place(measure, run));
  size_t first = range * ESP_SQUARES_ELEMENTS;
  size_t n = param->elements - first < ESP_SQUARES_ELEMENTS ? param->elements - first : ESP_SQUARES_ELEMENTS;
  return esp_optim_squares(measure->engine->options.isa, param->dtype, first, n, run->grads, run->grads_len, 1);
}

/* All that was due has been measured. */
static void add_up(struct esp_measure *measure) {
  for (size_t i = 0; i < measure->runs_len; i++) {
    struct esp_run *run = &measure->runs[i];
    if (!is_due(run))
      continue;
    run->norms.param = 0;
    for (size_t range = 0; range < run_ranges(measure, run); range++)
      run->norms.param += measure->ranges[run->first_range + range];
    run->known = true;
  }
}

/* Sums over groups and over all. What nobody wants is left out of them, and nobody looks at it. */
static void sum_up(struct esp_measure *measure) {
  double global = 0;
  memset(measure->groups, 0, measure->layout->groups_len * sizeof(*measure->groups));
  for (size_t i = 0; i < measure->runs_len; i++) {
    const struct esp_run *run = &measure->runs[i];
    global += run->norms.param;
    measure->groups[run_place(measure, run)->group] += run->norms.param;
  }
  for (size_t i = 0; i < measure->runs_len; i++) {
    measure->runs[i].norms.group = measure->groups[run_place(measure, &measure->runs[i])->group];
    measure->runs[i].norms.global = global;
  }
}

/* The run that is due and has the range. Ranges of those that are not due begin where the next one's do. */
static const struct esp_run *run_of(const struct esp_measure *measure, size_t range) {
  size_t low = 0, high = measure->runs_len;
  while (high - low > 1) {
    size_t middle = low + (high - low) / 2;
    if (measure->runs[middle].first_range <= range)
      low = middle;
    else
      high = middle;
  }
  while (!is_due(&measure->runs[low])) {
    ESP_CHECK(low > 0);
    low--;
  }
  return &measure->runs[low];
}

static void measure_share(struct esp_job *job, unsigned share) {
  struct esp_measure *measure = (struct esp_measure *)job;
  const struct esp_run *run = run_of(measure, share);
  measure->ranges[share] = measure_range(measure, run, share - run->first_range);
  if (atomic_fetch_sub_explicit(&measure->pending, 1, memory_order_acq_rel) != 1)
    return;
  add_up(measure);
  measure->done(measure);
}

/* Gives each run that is due its place; the number of ranges. */
static size_t place_ranges(struct esp_measure *measure, uint64_t *ret_bytes) {
  size_t ranges = 0;
  *ret_bytes = 0;
  for (size_t i = 0; i < measure->runs_len; i++) {
    struct esp_run *run = &measure->runs[i];
    run->first_range = ranges;
    if (is_due(run)) {
      ranges += run_ranges(measure, run);
      *ret_bytes += esp_place_param(run_place(measure, run))->bytes;
    }
  }
  return ranges;
}

bool esp_measure_start(struct esp_measure *measure) {
  uint64_t bytes;
  mark_wanted(measure);
  carry(measure);
  size_t ranges = place_ranges(measure, &bytes);
  if (bytes > ESP_HERE_BYTES_MAX) {
    measure->pending = ranges;
    measure->job = (struct esp_job){.run = measure_share, .shares = (unsigned)ranges};
    esp_pool_submit(measure->engine->pool, &measure->job);
    return true;
  }
  for (size_t range = 0; range < ranges; range++) { /* so little is not worth a hand-over */
    const struct esp_run *run = run_of(measure, range);
    measure->ranges[range] = measure_range(measure, run, range - run->first_range);
  }
  add_up(measure);
  sum_up(measure);
  return false;
}
