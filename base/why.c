/* How it fails: without memory the code is kept, and the text is another. */
#include "base/why.h"

#include <stddef.h>

#include "base/alloc.h"

enum esp_code esp_why_keep(struct esp_why *why, enum esp_code code, const struct esp_status *st) {
  esp_why_done(why);
  why->code = code;
  if (code != ESP_OK)
    why->text = esp_strdup(st->message);
  return code;
}

enum esp_code esp_why_tell(const struct esp_why *why, struct esp_status *st) {
  if (why->code == ESP_OK)
    return ESP_OK;
  return esp_fail(st, why->code, "%s", why->text == NULL ? "there was no memory for the reason" : why->text);
}

void esp_why_done(struct esp_why *why) {
  esp_free(why->text);
  *why = (struct esp_why){ESP_OK, NULL};
}
