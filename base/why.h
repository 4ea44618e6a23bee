/* Why something failed, kept for later: as long as its text, where a struct esp_status has 2 KiB. What there is one of
 * for each push carries this instead. Zeroed: it has not failed. */
#ifndef ESP_BASE_WHY_H
#define ESP_BASE_WHY_H

#include <espalier/status.h>

struct esp_why {
  enum esp_code code;
  char *text; /* owned; NULL where there was no memory for it */
};

/* Keeps this instead of what was kept; st is read unless code is ESP_OK. Returns code. */
enum esp_code esp_why_keep(struct esp_why *why, enum esp_code code, const struct esp_status *st);
/* Writes it to st where it has failed; returns its code. */
enum esp_code esp_why_tell(const struct esp_why *why, struct esp_status *st) ESP_WARN_UNUSED;
/* Idempotent. */
void esp_why_done(struct esp_why *why);

#endif
