/* The search for a NaN or an infinity.
 *
 * Clean data, the usual case, runs at the speed of memory: the exponent bits of a whole sub-block are tested without a
 * branch. Only a sub-block that fails is searched. Integer arithmetic on data of any alignment; nothing here fails. */
#include "optim/optim.h"
#include "optim/rules.h"

#define SUB_BLOCK_ELEMENTS 2048

size_t esp_finite_check(enum esp_isa isa, enum esp_dtype dtype, size_t n, const void *data) {
  const size_t element = esp_dtype_size(dtype);
  bool (*const finite)(size_t n, const void *data) =
      element == sizeof(uint16_t) ? esp_kernels_half_get(isa, dtype)->finite : esp_kernels_get(isa, dtype)->finite;
  const char *bytes = data;
  for (size_t first = 0; first < n; first += SUB_BLOCK_ELEMENTS) {
    const size_t len = n - first < SUB_BLOCK_ELEMENTS ? n - first : SUB_BLOCK_ELEMENTS;
    if (finite(len, bytes + first * element))
      continue;
    size_t bad = first;
    while (finite(1, bytes + bad * element))
      bad++;
    return bad;
  }
  return n;
}
