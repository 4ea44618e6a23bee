/* Instruction sets: their names, what this machine has, and their tables of kernels.
 *
 * The compiler's own test asks the processor and whether the operating system saves the registers. All tables are
 * linked everywhere; only running them needs the machine. Fails for words that are no name and for what is missing. */
#include <string.h>

#include "base/check.h"
#include "optim/optim.h"
#include "optim/rules.h"

static const char *const isa_names[ESP_ISA_LEN] = {
    [ESP_ISA_SSE2] = "sse2",
    [ESP_ISA_AVX2] = "avx2",
    [ESP_ISA_AVX512] = "avx512",
};

static const struct esp_kernels *const isa_kernels[ESP_ISA_LEN] = {
    [ESP_ISA_SSE2] = &esp_kernels_sse2,
    [ESP_ISA_AVX2] = &esp_kernels_avx2,
    [ESP_ISA_AVX512] = &esp_kernels_avx512,
};

const char *esp_isa_name(enum esp_isa isa) {
  ESP_CHECK((unsigned)isa < ESP_ISA_LEN);
  return isa_names[isa];
}

/* The lists match the flags in CMakeLists.txt. */
bool esp_isa_supported(enum esp_isa isa) {
  switch (isa) {
  case ESP_ISA_SSE2:
    return true; /* part of x86-64 */
  case ESP_ISA_AVX2:
    return __builtin_cpu_supports("avx2");
  case ESP_ISA_AVX512:
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
  case ESP_ISA_LEN:
    break;
  }
  return false;
}

static enum esp_isa isa_best(void) {
  enum esp_isa best = ESP_ISA_SSE2;
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    if (esp_isa_supported(isa))
      best = isa;
  }
  return best;
}

enum esp_code esp_isa_parse(const char *text, enum esp_isa *ret, struct esp_status *st) {
  if (strcmp(text, "auto") == 0) {
    *ret = isa_best();
    return ESP_OK;
  }
  for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
    if (strcmp(text, isa_names[isa]) != 0)
      continue;
    if (!esp_isa_supported(isa))
      return esp_fail(st, ESP_FAILED_PRECONDITION,
                      "this machine does not have the instruction set %s; the best that it has is %s", text,
                      isa_names[isa_best()]);
    *ret = isa;
    return ESP_OK;
  }
  return esp_fail(st, ESP_INVALID_ARGUMENT, "unknown instruction set '%.64s': expected auto, sse2, avx2 or avx512",
                  text);
}

const struct esp_kernels_of *esp_kernels_get(enum esp_isa isa, enum esp_dtype dtype) {
  ESP_CHECK((unsigned)isa < ESP_ISA_LEN);
  ESP_CHECK(dtype == ESP_DTYPE_F32 || dtype == ESP_DTYPE_F64);
  return dtype == ESP_DTYPE_F32 ? &isa_kernels[isa]->f32 : &isa_kernels[isa]->f64;
}

const struct esp_kernels_half *esp_kernels_half_get(enum esp_isa isa, enum esp_dtype dtype) {
  ESP_CHECK((unsigned)isa < ESP_ISA_LEN);
  ESP_CHECK(dtype == ESP_DTYPE_BF16 || dtype == ESP_DTYPE_F16);
  return dtype == ESP_DTYPE_BF16 ? &isa_kernels[isa]->bf16 : &isa_kernels[isa]->f16;
}
