/* Log lines of programs, to stderr: "2026-01-31T12:00:00.000Z info  text". Library code returns errors instead.
 * Any thread; one line is one write. */
#ifndef ESP_BASE_LOG_H
#define ESP_BASE_LOG_H

#include <espalier/status.h>

enum esp_log_level { ESP_LOG_DEBUG, ESP_LOG_INFO, ESP_LOG_WARN, ESP_LOG_ERROR };

void esp_log_level_set(enum esp_log_level level_min); /* default info; before threads start */
void esp_log(enum esp_log_level level, const char *format, ...) ESP_PRINTF(2, 3);

#endif
