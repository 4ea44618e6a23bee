/* The search for a NaN or an infinity.
 *
 * Clean data, the usual case, runs at the speed of memory: the exponent bits of a whole sub-block are tested without a
 * branch. Only a sub-block that fails is searched. Integer arithmetic on data of any alignment; nothing here fails. */
#include "optim/optim.h"
#include "optim/rules.h"

#define SUB_BLOCK_ELEMENTS 2048

size_t esp_finite_check(enum esp_isa isa, enum esp_dtype dtype, size_t n, const void *data) {
  const struct esp_kernels_of *kernels = esp_kernels_get(isa, dtype);
  const size_t element = esp_dtype_size(dtype);
  const char *bytes = data;
  for (size_t first = 0; first < n; first += SUB_BLOCK_ELEMENTS) {
    const size_t len = n - first < SUB_BLOCK_ELEMENTS ? n - first : SUB_BLOCK_ELEMENTS;
    if (kernels->finite(len, bytes + first * element))
      continue;
    size_t bad = first;
    while (kernels->finite(1, bytes + bad * element))
      bad++;
    return bad;
  }
  return n;
}
