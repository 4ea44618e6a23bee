/* The kernels of an element type of 16 bits: kernels.c includes this once for each, with
 *   ESP_EXPONENT   its exponent bits
 *   ESP_WIDEN(x)   a float of the same value
 *   ESP_NARROW(x)  the nearest to a float
 *   ESP_TYPED(x)   the name x with a suffix
 * No include guard, for that reason. */

/* As that of floats (kernels_typed.h). */
static bool ESP_TYPED(finite)(size_t n, const void *data) {
  const esp_u16_any *bits = data;
  uint16_t seen = 0;
  for (size_t i = 0; i < n; i++)
    seen |= (uint16_t)((bits[i] & ESP_EXPONENT) + (ESP_EXPONENT & -ESP_EXPONENT));
  return (seen & 0x8000) == 0;
}

static void ESP_TYPED(widen)(size_t n, const void *from_data, void *out_data) {
  const esp_u16_any *from = from_data;
  esp_f32_any *out = out_data;
#pragma GCC ivdep
  for (size_t i = 0; i < n; i++)
    out[i] = ESP_WIDEN(from[i]);
}

static void ESP_TYPED(add)(size_t n, const void *a_data, const void *b_data, void *out_data) {
  const esp_f32_any *a = a_data;
  const esp_u16_any *b = b_data;
  esp_f32_any *out = out_data;
#pragma GCC ivdep
  for (size_t i = 0; i < n; i++)
    out[i] = a[i] + ESP_WIDEN(b[i]);
}

static void ESP_TYPED(narrow)(size_t n, const void *from_data, void *out_data) {
  const esp_f32_any *from = from_data;
  esp_u16_any *out = out_data;
#pragma GCC ivdep
  for (size_t i = 0; i < n; i++)
    out[i] = ESP_NARROW(from[i]);
}
