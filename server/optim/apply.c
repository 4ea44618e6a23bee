/* One step on a range of a parameter, block by block.
 *
 * A tile's gradient is read in place or made (gradient.c); its blocks go through the chain's rules while block, states
 * and scratch are in L1, then the value is written. A tile is a block, but where a gradient arrived transposed: there
 * it is a rectangle, so that what is gathered is used by whole cache lines. Kernels work element by element, so neither
 * tiles and blocks nor the caller's cut change a bit. Nothing here fails. */
#include "optim/gradient.h"
#include "optim/optim.h"
#include "optim/rules.h"

#define PANEL_BYTES 64

/* A step under way. */
struct work {
  const struct esp_optim *optim;
  const struct esp_step *step;
  struct esp_gradient gradient;
  const void *x;       /* whole tensors: the value before, */
  void *x_out;         /* the value after, */
  void *const *states; /* and the chain's state */
};

static const void *const_at(const void *data, size_t offset) {
  return (const char *)data + offset;
}

static void *at(void *data, size_t offset) {
  return (char *)data + offset;
}

static size_t least(size_t a, size_t b) {
  return a < b ? a : b;
}

/* At most ESP_BLOCK_ELEMENTS (with states, gradient and value, scratch takes 24 KiB of f64). The gradient may be in
 * scratch. Inlined, since a block is small enough to notice a call. */
static inline __attribute__((always_inline)) void apply_block(const struct work *work, uint64_t first, size_t n,
                                                              const void *gradient, void *scratch) {
  const struct esp_optim *optim = work->optim;
  const struct esp_kernels_of *kernels = work->gradient.kernels;
  const size_t offset = first * work->gradient.size;
  const void *x = const_at(work->x, offset);
  for (size_t i = 0; i < optim->members_len; i++) {
    const struct esp_member *member = &optim->members[i];
    void *states[ESP_RULE_STATES_MAX] = {NULL};
    for (size_t k = 0; k < member->rule->states_len(member->values); k++)
      states[k] = at(work->states[member->states_first + k], offset);
    kernels->rules[member->rule->kernel](n, work->step->scalars[i], gradient, x, states, scratch);
    gradient = scratch; /* a member's update is the next one's gradient */
  }
  kernels->finish(n, x, work->step->scale, scratch, at(work->x_out, offset));
}

static void apply_plain(const struct work *work, uint64_t first, size_t n) {
  _Alignas(64) double scratch[ESP_BLOCK_ELEMENTS];
  for (const uint64_t end = first + n; first < end; first += ESP_BLOCK_ELEMENTS) {
    const size_t block = least(end - first, ESP_BLOCK_ELEMENTS);
    apply_block(work, first, block, esp_gradient_range(&work->gradient, first, block, scratch), scratch);
  }
}

static void apply_tile(const struct work *work, struct esp_tile tile) {
  struct esp_tile_room room;
  _Alignas(64) double scratch[ESP_BLOCK_ELEMENTS];
  const void *gradient = esp_gradient_tile(&work->gradient, tile, &room);
  for (size_t r = 0; r < tile.height; r++) {
    for (size_t c = 0; c < tile.width; c += ESP_BLOCK_ELEMENTS)
      apply_block(work, tile.first + r * work->gradient.matrix->cols + c, least(tile.width - c, ESP_BLOCK_ELEMENTS),
                  const_at(gradient, (r * tile.width + c) * work->gradient.size), scratch);
  }
}

/* Rows that fit a tile several times are taken as they follow each other; longer ones are cut into rectangles. */
static void apply_transposed(const struct work *work, uint64_t first, size_t n) {
  const size_t height_max = PANEL_BYTES / work->gradient.size;
  const size_t tile_max = ESP_TILE_BYTES / work->gradient.size;
  const size_t width_max = tile_max / height_max;
  const uint64_t cols = work->gradient.matrix->cols;
  for (size_t taken = 0; n > 0; first += taken, n -= taken) {
    const uint64_t col = first % cols;
    if (cols <= width_max || col != 0 || n < cols) {
      taken = least(n, cols <= width_max ? tile_max : least(cols - col, tile_max));
      apply_tile(work, (struct esp_tile){.first = first, .height = 1, .width = taken});
      continue;
    }
    const size_t height = least(n / cols, height_max);
    for (size_t c = 0; c < cols; c += width_max)
      apply_tile(work, (struct esp_tile){.first = first + c, .height = height, .width = least(cols - c, width_max)});
    taken = height * cols;
  }
}

void esp_optim_apply(const struct esp_optim *optim, const struct esp_step *step, enum esp_isa isa, enum esp_dtype dtype,
                     uint64_t first, size_t n, const struct esp_grad *grads, size_t grads_len, double grad_scale,
                     const void *x, void *x_out, void *const *states) {
  struct work work = {.optim = optim, .step = step, .x = x, .x_out = x_out, .states = states};
  esp_gradient_init(&work.gradient, isa, dtype, grads, grads_len, grad_scale);
  if (work.gradient.matrix == NULL)
    apply_plain(&work, first, n);
  else
    apply_transposed(&work, first, n);
}
