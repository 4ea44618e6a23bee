/* The handwritten digits: loading the table, the split that all processes agree on, and random numbers from a seed. */
#ifndef ESP_EXAMPLES_DATA_H
#define ESP_EXAMPLES_DATA_H

#include <espalier/status.h>

#include <stddef.h>
#include <stdint.h>

enum {
  DIGITS_PIXELS = 64,
  DIGITS_CLASSES = 10,
  DIGITS_ROWS = 1797,
  DIGITS_TRAIN = DIGITS_ROWS * 8 / 10, /* rows before this one are for training, the others for the test */
};

/* The whole table, its rows in the order of a fixed shuffle. 460 KB: keep it off the stack. */
struct digits_data {
  float pixels[DIGITS_ROWS][DIGITS_PIXELS]; /* 0 to 1 */
  uint8_t labels[DIGITS_ROWS];              /* 0 to 9 */
};

/* Reads the table from a CSV file, gzipped or plain, and shuffles its rows: the same order in every process. NOT_FOUND:
 * the file cannot be opened; INVALID_ARGUMENT names the line. *ret may be partly written on failure. */
enum esp_code digits_load(const char *file, struct digits_data *ret, struct esp_status *st) ESP_WARN_UNUSED;

/* A number from 0 to below `bound` (which is not 0); *state, which starts as the seed, is moved on. */
size_t digits_random(uint64_t *state, size_t bound);

#endif
