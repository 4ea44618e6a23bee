/* tree/select*.c on a small tree that has something for every term, against an evaluator that tries everything. */
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/tree/select_fixture.h"

#define NAIVE_BYTES_MAX 160 /* of a selector that is given to the evaluator, which is exponential in each word */
#define NAIVE_STARS_MAX 12

/* Whether the evaluator gets through it. */
static bool is_small(const char *text, size_t len) {
  size_t stars = 0;
  for (size_t i = 0; i < len; i++)
    stars += strchr("*{,>@", text[i]) != NULL;
  return len <= NAIVE_BYTES_MAX && stars <= NAIVE_STARS_MAX;
}

static void check_selection(const struct esp_layout *layout, const char *text, size_t len,
                            const struct esp_selection *sel) {
  size_t at = 0;
  bool small = is_small(text, len);
  for (uint32_t i = 0; i < layout->leaves_len; i++) {
    bool is_selected = at < sel->len && sel->leaves[at] == i;
    if (small)
      ESP_CHECK(is_selected == naive_selects(layout, i, text, len));
    at += is_selected;
  }
  ESP_CHECK(at == sel->len); /* ascending, and all of them leaves */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct esp_layout *layout; /* of the process */
  if (layout == NULL)
    layout = select_tree();
  size_t live = esp_alloc_live();
  const char *text = size > 0 ? (const char *)data : "";
  struct esp_selection sel = {0};
  struct esp_status st;
  struct esp_status syntax;
  enum esp_code checked = esp_selector_check(text, size, &syntax);
  enum esp_code code = esp_select(layout, text, size, &sel, &st);
  if (code == ESP_OK || code == ESP_NOT_FOUND)
    check_selection(layout, text, size, &sel);
  else
    ESP_CHECK(code == ESP_INVALID_ARGUMENT);
  ESP_CHECK((code == ESP_OK) == (sel.leaves != NULL));
  if (checked != ESP_OK) {
    ESP_CHECK(code == checked && strcmp(st.message, syntax.message) == 0);
    esp_fuzz_check_failure(checked, &syntax);
  } else { /* only a named selection may be wrong still */
    ESP_CHECK(code != ESP_INVALID_ARGUMENT || memchr(text, '@', size) != NULL);
  }
  if (code != ESP_OK)
    esp_fuzz_check_failure(code, &st);
  esp_selection_done(&sel);
  ESP_CHECK(esp_alloc_live() == live);
  return 0;
}
