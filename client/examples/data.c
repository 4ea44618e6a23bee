/* The table of digits. Each line is 64 pixels and a label; zlib reads gzipped and plain files alike.
 *
 * The rows are shuffled once, by a fixed seed and a generator of our own, so that two workers and the process that
 * evaluates have the same training and test rows without talking to each other.
 *
 * Fails on a file that cannot be opened or read, and on a line that is not what it should be, which it names. */
#include "client/examples/data.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { LINE_BYTES_MAX = 512, PIXEL_MAX = 16 };

static const uint64_t shuffle_seed = 1797;

/* splitmix64 (Steele, Lea, Flood 2014). The modulo favours no row enough to matter: bounds are far below 2^64. */
size_t digits_random(uint64_t *state, size_t bound) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (size_t)((z ^ (z >> 31)) % bound);
}

/* Reads the integer at *text, from 0 to max, and the separator after it; false for anything else. */
static bool parse_field(char **text, long max, char separator, long *ret) {
  char *end = NULL;
  if (**text < '0' || **text > '9')
    return false;
  long value = strtol(*text, &end, 10);
  if (value > max || *end != separator)
    return false;
  *text = end + 1;
  *ret = value;
  return true;
}

static enum esp_code parse_line(char *line, size_t row, struct digits_data *data, struct esp_status *st) {
  long value = 0;
  for (size_t i = 0; i < DIGITS_PIXELS; i++) {
    if (!parse_field(&line, PIXEL_MAX, ',', &value))
      return esp_fail(st, ESP_INVALID_ARGUMENT, "line %zu: column %zu is not a pixel from 0 to %d followed by a comma",
                      row + 1, i + 1, PIXEL_MAX);
    data->pixels[row][i] = (float)value / PIXEL_MAX;
  }
  if (!parse_field(&line, DIGITS_CLASSES - 1, '\0', &value))
    return esp_fail(st, ESP_INVALID_ARGUMENT, "line %zu: column %d is not a label from 0 to %d at the line's end",
                    row + 1, DIGITS_PIXELS + 1, DIGITS_CLASSES - 1);
  data->labels[row] = (uint8_t)value;
  return ESP_OK;
}

static enum esp_code read_rows(gzFile table, struct digits_data *data, struct esp_status *st) {
  char line[LINE_BYTES_MAX];
  size_t row = 0;
  for (; gzgets(table, line, sizeof line) != NULL; row++) {
    line[strcspn(line, "\r\n")] = '\0';
    if (row == DIGITS_ROWS)
      return esp_fail(st, ESP_INVALID_ARGUMENT, "more than %d lines", DIGITS_ROWS);
    enum esp_code code = parse_line(line, row, data, st);
    if (code != ESP_OK)
      return code;
  }
  int error = Z_OK;
  const char *message = gzerror(table, &error);
  if (error != Z_OK)
    return esp_fail(st, ESP_DATA_LOSS, "after line %zu: %s", row, message);
  if (row != DIGITS_ROWS)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%zu lines, expected %d", row, DIGITS_ROWS);
  return ESP_OK;
}

static void swap_rows(struct digits_data *data, size_t a, size_t b) {
  float pixels[DIGITS_PIXELS];
  uint8_t label = data->labels[a];
  memcpy(pixels, data->pixels[a], sizeof pixels);
  memmove(data->pixels[a], data->pixels[b], sizeof pixels);
  memcpy(data->pixels[b], pixels, sizeof pixels);
  data->labels[a] = data->labels[b];
  data->labels[b] = label;
}

enum esp_code digits_load(const char *file, struct digits_data *ret, struct esp_status *st) {
  errno = 0;
  gzFile table = gzopen(file, "rb");
  if (table == NULL)
    return esp_fail(st, ESP_NOT_FOUND, "cannot open %s: %s", file, errno != 0 ? strerror(errno) : "out of memory");
  struct esp_status why = {0};
  enum esp_code code = read_rows(table, ret, &why);
  gzclose(table);
  if (code != ESP_OK)
    return esp_fail(st, code, "%s: %s", file, why.message);
  uint64_t state = shuffle_seed;
  for (size_t i = DIGITS_ROWS; i > 1; i--)
    swap_rows(ret, i - 1, digits_random(&state, i));
  return ESP_OK;
}
