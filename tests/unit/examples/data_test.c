/* The table of digits: what it holds, that the shuffle is the same each time, and that a bad file is named with its
 * line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/examples/data.h"

#include <cmocka.h>

static struct digits_data data, again;

static void test_load(void **state) {
  (void)state;
  size_t counts[DIGITS_CLASSES] = {0}, in_test[DIGITS_CLASSES] = {0};
  assert_int_equal(digits_load(DIGITS_DATA, &data, NULL), ESP_OK);
  float low = 1, high = 0;
  for (size_t row = 0; row < DIGITS_ROWS; row++) {
    counts[data.labels[row]]++;
    in_test[data.labels[row]] += row >= DIGITS_TRAIN;
    for (size_t i = 0; i < DIGITS_PIXELS; i++) {
      low = data.pixels[row][i] < low ? data.pixels[row][i] : low;
      high = data.pixels[row][i] > high ? data.pixels[row][i] : high;
    }
  }
  assert_true(low == 0 && high == 1);
  const size_t expected[DIGITS_CLASSES] = {178, 182, 177, 183, 181, 182, 181, 179, 174, 180}; /* counted with awk */
  for (size_t class = 0; class < DIGITS_CLASSES; class ++) {
    assert_int_equal(counts[class], expected[class]);
    assert_in_range(in_test[class], 20, 55); /* shuffled, not cut off at the end */
  }
}

/* Loaded again, into other memory: the same rows in the same order. */
static void test_same_order_each_time(void **state) {
  (void)state;
  assert_int_equal(digits_load(DIGITS_DATA, &data, NULL), ESP_OK);
  assert_int_equal(digits_load(DIGITS_DATA, &again, NULL), ESP_OK);
  assert_memory_equal(&data, &again, sizeof data);
}

static void load_text(const char *text, char *ret_message, size_t size) {
  char file[] = "/tmp/espalier-digits-XXXXXX";
  int fd = mkstemp(file);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
  close(fd);
  struct esp_status st;
  assert_int_equal(digits_load(file, &again, &st), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(st.message, file));
  snprintf(ret_message, size, "%s", st.message + strlen(file) + 2);
  unlink(file);
}

static void test_bad_files(void **state) {
  (void)state;
  char message[512], pixels[3 * DIGITS_PIXELS + 1] = "";
  for (int i = 0; i < DIGITS_PIXELS; i++)
    strcat(pixels, "16,");
  load_text("", message, sizeof message);
  assert_string_equal(message, "0 lines, expected 1797");
  load_text("0,1,17,3\n", message, sizeof message);
  assert_string_equal(message, "line 1: column 3 is not a pixel from 0 to 16 followed by a comma");
  load_text("0,-1\n", message, sizeof message);
  assert_string_equal(message, "line 1: column 2 is not a pixel from 0 to 16 followed by a comma");
  const char *labels[] = {"10\n", "\n", "3,\n", "x\n"};
  for (size_t i = 0; i < sizeof labels / sizeof *labels; i++) {
    char text[1024];
    snprintf(text, sizeof text, "%s9\n%s%s", pixels, pixels, labels[i]);
    load_text(text, message, sizeof message);
    assert_string_equal(message, "line 2: column 65 is not a label from 0 to 9 at the line's end");
  }
}

static void test_no_file(void **state) {
  (void)state;
  struct esp_status st;
  assert_int_equal(digits_load("no/such/file.csv.gz", &again, &st), ESP_NOT_FOUND);
  assert_string_equal(st.message, "cannot open no/such/file.csv.gz: No such file or directory");
}

static void test_random_is_even(void **state) {
  (void)state;
  uint64_t random = 1;
  size_t counts[10] = {0};
  for (int i = 0; i < 10000; i++)
    counts[digits_random(&random, 10)]++;
  for (int i = 0; i < 10; i++)
    assert_in_range(counts[i], 850, 1150);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_load),    cmocka_unit_test(test_same_order_each_time), cmocka_unit_test(test_bad_files),
      cmocka_unit_test(test_no_file), cmocka_unit_test(test_random_is_even),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
