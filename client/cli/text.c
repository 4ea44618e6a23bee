/* Numbers as people read them. Nothing here fails. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "client/cli/cli.h"

const char *esp_cli_print_bytes(uint64_t bytes, char *text) {
  static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) {
    snprintf(text, ESP_CLI_TEXT_MAX, "%" PRIu64 " B", bytes);
    return text;
  }
  double value = (double)bytes / 1024;
  size_t unit = 0;
  for (; value >= 1023.95 && unit + 1 < sizeof units / sizeof units[0]; unit++) /* 1023.95 would be printed as 1024.0 */
    value /= 1024;
  snprintf(text, ESP_CLI_TEXT_MAX, "%.1f %s", value, units[unit]);
  return text;
}

/* The two largest units: more is noise. */
const char *esp_cli_print_duration(uint64_t ms, char *text) {
  uint64_t s = ms / 1000;
  if (s == 0)
    snprintf(text, ESP_CLI_TEXT_MAX, "%" PRIu64 "ms", ms);
  else if (s < 60)
    snprintf(text, ESP_CLI_TEXT_MAX, "%" PRIu64 "s", s);
  else if (s < 3600)
    snprintf(text, ESP_CLI_TEXT_MAX, "%" PRIu64 "m %" PRIu64 "s", s / 60, s % 60);
  else if (s < 86400)
    snprintf(text, ESP_CLI_TEXT_MAX, "%" PRIu64 "h %" PRIu64 "m", s / 3600, s / 60 % 60);
  else
    snprintf(text, ESP_CLI_TEXT_MAX, "%" PRIu64 "d %" PRIu64 "h", s / 86400, s / 3600 % 24);
  return text;
}

const char *esp_cli_print_time(uint64_t wall_ms, char *text) {
  time_t seconds = (time_t)(wall_ms / 1000);
  struct tm parts = {0};
  gmtime_r(&seconds, &parts);
  size_t len = strftime(text, ESP_CLI_TEXT_MAX, "%Y-%m-%dT%H:%M:%S", &parts);
  snprintf(text + len, ESP_CLI_TEXT_MAX - len, ".%03uZ", (unsigned)(wall_ms % 1000));
  return text;
}

const char *esp_cli_print_of(uint64_t count, uint64_t bound, char *text) {
  if (bound == 0)
    snprintf(text, ESP_CLI_TEXT_MAX, "%" PRIu64, count);
  else
    snprintf(text, ESP_CLI_TEXT_MAX, "%" PRIu64 " of at most %" PRIu64, count, bound);
  return text;
}

const char *esp_cli_print_digest(const uint8_t digest[16], char *text) {
  for (size_t i = 0; i < 16; i++)
    snprintf(text + 2 * i, ESP_CLI_TEXT_MAX - 2 * i, "%02x", digest[i]);
  return text;
}

const char *esp_cli_print_id(uint64_t id, char *text) {
  snprintf(text, ESP_CLI_TEXT_MAX, "%016" PRIx64, id);
  return text;
}

const char *esp_cli_plural(uint64_t count) {
  return count == 1 ? "" : "s";
}

const char *esp_cli_print_share(uint64_t part, uint64_t whole, char *text) {
  double percent = whole > 0 ? 100 * ((double)part / (double)whole) : 0;
  if (part == 0)
    snprintf(text, ESP_CLI_TEXT_MAX, "-");
  else if (percent < 1)
    snprintf(text, ESP_CLI_TEXT_MAX, "<1%%");
  else if (part < whole && percent > 99)
    snprintf(text, ESP_CLI_TEXT_MAX, ">99%%");
  else
    snprintf(text, ESP_CLI_TEXT_MAX, "%.0f%%", percent);
  return text;
}

const char *esp_cli_print_plain(const char *text, char *ret, size_t size) {
  size_t len = 0;
  for (; *text != '\0' && len + 1 < size; text++) {
    unsigned char byte = (unsigned char)*text;
    bool is_c1 = byte == 0xC2 && (unsigned char)text[1] >= 0x80 && (unsigned char)text[1] < 0xA0;
    ret[len++] = (char)(byte < 0x20 || byte == 0x7F || is_c1 ? '?' : byte);
    text += is_c1;
  }
  ret[len] = '\0';
  return ret;
}

size_t esp_cli_text_width(const char *text) {
  size_t width = 0;
  for (; *text != '\0'; text++)
    width += ((unsigned char)*text & 0xC0) != 0x80; /* bytes that begin a character of UTF-8 */
  return width;
}

struct esp_shape esp_cli_shape_of(const uint64_t *dims, unsigned rank) {
  struct esp_shape shape = {.rank = rank < ESP_RANK_MAX ? rank : ESP_RANK_MAX};
  memcpy(shape.dims, dims, shape.rank * sizeof dims[0]);
  return shape;
}

const char *esp_cli_print_shape(const uint64_t *dims, unsigned rank, char *text) {
  const struct esp_shape shape = esp_cli_shape_of(dims, rank);
  return esp_shape_print(&shape, text);
}
