/* tree/path.c: the check against the rule written down again, the order against its words, and printing. */
#include <string.h>

#include "base/check.h"
#include "tests/fuzz/fuzz.h"
#include "tree/tree.h"

/* ---- the rule, as tree.h has it ---- */

static bool is_fit_component(const char *text, size_t len) {
  if (len == 0 || len > ESP_COMPONENT_BYTES_MAX || !esp_fuzz_is_plain(text, len))
    return false;
  for (size_t i = 0; i < len; i++) {
    if (strchr(" *?{}[]()&|!:<>=@,\"", text[i]) != NULL)
      return false;
  }
  return true;
}

static size_t component_len(const char *path, size_t len) {
  const char *dot = len > 0 ? memchr(path, '.', len) : NULL;
  return dot != NULL ? (size_t)(dot - path) : len;
}

static bool is_fit_path(const char *path, size_t len) {
  size_t depth = 0;
  for (size_t begin = 0; begin <= len; depth++) {
    size_t n = component_len(path + begin, len - begin);
    if (!is_fit_component(path + begin, n))
      return false;
    begin += n + 1;
  }
  return len <= ESP_PATH_BYTES_MAX && depth <= ESP_DEPTH_MAX;
}

/* Component by component, a missing one first. */
static int compare_by_words(const char *a, size_t a_len, const char *b, size_t b_len) {
  for (;;) {
    size_t a_n = component_len(a, a_len);
    size_t b_n = component_len(b, b_len);
    int order = memcmp(a, b, a_n < b_n ? a_n : b_n);
    if (order != 0 || a_n != b_n)
      return order != 0 ? order : a_n < b_n ? -1 : 1;
    if (a_n == a_len || b_n == b_len)
      return (a_n < a_len) - (b_n < b_len);
    a += a_n + 1, a_len -= a_n + 1;
    b += b_n + 1, b_len -= b_n + 1;
  }
}

static int sign(int number) {
  return (number > 0) - (number < 0);
}

/* ---- the checks ---- */

static void check_print(const char *text, size_t len, size_t size, bool is_fit) {
  char buffer[256];
  memset(buffer, '#', sizeof buffer);
  const char *printed = esp_path_print(text, len, buffer, size);
  size_t printed_len = strnlen(printed, sizeof buffer);
  ESP_CHECK(size == 0 ? printed_len == 0 : printed == buffer && printed_len < size);
  ESP_CHECK(buffer[size] == '#'); /* size is under 256 */
  ESP_CHECK(esp_fuzz_is_plain(printed, printed_len));
  if (is_fit && len < size)
    ESP_CHECK(printed_len == len && memcmp(printed, text, len) == 0);
}

static void check_order(const char *a, size_t a_len, const char *b, size_t b_len) {
  int order = sign(esp_path_compare(a, a_len, b, b_len));
  ESP_CHECK(order == -sign(esp_path_compare(b, b_len, a, a_len)));
  bool is_within = esp_path_within(a, a_len, b, b_len);
  ESP_CHECK(!is_within || b_len == 0 || order >= 0);
  if (!is_fit_path(a, a_len) || !is_fit_path(b, b_len))
    return;
  ESP_CHECK(order == sign(compare_by_words(a, a_len, b, b_len)));
  ESP_CHECK((order == 0) == (a_len == b_len && memcmp(a, b, a_len) == 0));
}

/* The first byte is the size of a buffer, the second where the rest is cut in two. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct esp_fuzz_input input = {.at = data, .left = size};
  size_t print_size = esp_fuzz_below(&input, 255);
  size_t cut = esp_fuzz_byte(&input);
  const char *path = input.left > 0 ? (const char *)input.at : "";
  struct esp_status st;
  bool is_fit = is_fit_path(path, input.left);
  enum esp_code code = esp_path_check(path, input.left, &st);
  ESP_CHECK((code == ESP_OK) == is_fit);
  if (code != ESP_OK)
    esp_fuzz_check_failure(code, &st);
  check_print(path, input.left, print_size, is_fit);
  cut = cut < input.left ? cut : input.left;
  check_order(path, cut, path + cut, input.left - cut);
  return 0;
}
