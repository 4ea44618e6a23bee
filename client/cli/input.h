/* A whole file in memory, as a command was given it. */
#ifndef ESP_CLI_INPUT_H
#define ESP_CLI_INPUT_H

#include <espalier/status.h>

#include <stddef.h>
#include <stdint.h>

struct esp_cli_input {
  uint8_t *data;
  size_t capacity;
  size_t len;
};

/* Reads FILE to its end; "-" is standard input. NOT_FOUND, RESOURCE_EXHAUSTED, else INTERNAL with the system's reason.
 */
enum esp_code esp_cli_input_read(struct esp_cli_input *input, const char *file, struct esp_status *st) ESP_WARN_UNUSED;
void esp_cli_input_free(struct esp_cli_input *input);

#endif
