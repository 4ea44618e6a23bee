/* formats/npy.c: what is read and written again reads the same, and a refusal is a sentence. */
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "formats/npy.h"
#include "tests/fuzz/fuzz.h"

static void check_again(const struct esp_npy *array) {
  char header[ESP_NPY_HEADER_BYTES_MAX];
  size_t header_len = 0;
  struct esp_status st;
  ESP_CHECK(esp_npy_make_header(array, header, &header_len, &st) == ESP_OK);
  ESP_CHECK(header_len <= sizeof header && header_len % 64 == 0);
  uint8_t *file = esp_malloc(header_len + array->bytes);
  ESP_CHECK(file != NULL);
  memcpy(file, header, header_len);
  memcpy(file + header_len, array->data, array->bytes);
  struct esp_npy again = {0};
  ESP_CHECK(esp_npy_parse(file, header_len + array->bytes, &again, &st) == ESP_OK);
  ESP_CHECK(again.dtype == array->dtype && esp_shape_equal(&again.shape, &array->shape));
  ESP_CHECK(again.bytes == array->bytes && memcmp(again.data, array->data, array->bytes) == 0);
  esp_free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct esp_npy array = {0};
  struct esp_status st;
  enum esp_code code = esp_npy_parse(data, size, &array, &st);
  if (code != ESP_OK) {
    esp_fuzz_check_failure(code, &st);
    ESP_CHECK(code == ESP_INVALID_ARGUMENT || code == ESP_UNIMPLEMENTED);
    return 0;
  }
  /* The data is the file's last bytes, all that the shape needs. */
  ESP_CHECK((const uint8_t *)array.data + array.bytes == data + size);
  check_again(&array);
  return 0;
}
