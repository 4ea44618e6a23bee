/* Durations as people write them: 500ms, 10m, 1h30m. Any thread. */
#ifndef ESP_BASE_DURATION_H
#define ESP_BASE_DURATION_H

#include <stdbool.h>
#include <stdint.h>

/* Whole numbers with units (d, h, m, s, ms), the larger before the smaller and each once at most. False, with *ret_ms
 * untouched, for anything else and for more than 2^64-1 ms. */
bool esp_duration_parse(const char *text, uint64_t *ret_ms);

#endif
