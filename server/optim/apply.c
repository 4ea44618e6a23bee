/* One step on a range of a parameter, block by block.
 *
 * A block's gradient (read in place where there is one and it needs no factor, else summed into scratch) goes through
 * the chain's rules while block, states and scratch are in L1, then the value is written. Kernels work element by
 * element, so neither the blocks nor the caller's cut change a bit. Nothing here fails. */
#include "base/check.h"
#include "optim/optim.h"
#include "optim/rules.h"

#define BLOCK_ELEMENTS 512 /* scratch, gradient, value and three states take 24 KiB of f64; larger measured slower */

static const void *const_at(const void *data, size_t offset) {
  return (const char *)data + offset;
}

static void *at(void *data, size_t offset) {
  return (char *)data + offset;
}

/* The gradient of a block: borrowed from the caller, or made in scratch. */
static const void *block_gradient(const struct esp_kernels_of *kernels, size_t n, size_t offset,
                                  const void *const *grads, size_t grads_len, double grad_scale, void *scratch) {
  const void *sum = const_at(grads[0], offset);
  for (size_t i = 1; i < grads_len; i++) {
    kernels->add(n, sum, const_at(grads[i], offset), scratch);
    sum = scratch;
  }
  if (grad_scale != 1) {
    kernels->multiply(n, sum, grad_scale, scratch);
    sum = scratch;
  }
  return sum;
}

static void block_chain(const struct esp_optim *optim, const struct esp_step *step,
                        const struct esp_kernels_of *kernels, size_t n, size_t offset, const void *gradient,
                        const void *x, void *const *states, void *scratch) {
  for (size_t i = 0; i < optim->members_len; i++) {
    const struct esp_member *member = &optim->members[i];
    void *block_states[ESP_RULE_STATES_MAX] = {NULL};
    for (size_t k = 0; k < member->rule->states_len(member->values); k++)
      block_states[k] = at(states[member->states_first + k], offset);
    kernels->rules[member->rule->kernel](n, step->scalars[i], gradient, x, block_states, scratch);
    gradient = scratch; /* a member's update is the next one's gradient */
  }
}

void esp_optim_apply(const struct esp_optim *optim, const struct esp_step *step, enum esp_isa isa, enum esp_dtype dtype,
                     size_t n, const void *const *grads, size_t grads_len, double grad_scale, const void *x,
                     void *x_out, void *const *states) {
  ESP_CHECK(grads_len >= 1);
  const struct esp_kernels_of *kernels = esp_kernels_get(isa, dtype);
  const size_t element = esp_dtype_size(dtype);
  _Alignas(64) double scratch[BLOCK_ELEMENTS];
  for (size_t first = 0; first < n; first += BLOCK_ELEMENTS) {
    const size_t block = n - first < BLOCK_ELEMENTS ? n - first : BLOCK_ELEMENTS;
    const size_t offset = first * element;
    const void *x_block = const_at(x, offset);
    const void *gradient = block_gradient(kernels, block, offset, grads, grads_len, grad_scale, scratch);
    block_chain(optim, step, kernels, block, offset, gradient, x_block, states, scratch);
    kernels->finish(block, x_block, step->scale, scratch, at(x_out, offset));
  }
}
