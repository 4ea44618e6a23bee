/* Tests of client/cli/table.c: alignment, empty columns, many rows. */
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "tests/support/test.h"

#define COLUMNS 4

/* Rows of cells, one after the other. */
static void row_of(const void *data, size_t index, struct esp_cli_row *ret) {
  const char *const *cells = data;
  for (size_t c = 0; c < COLUMNS; c++)
    ret->cells[c] = cells[index * COLUMNS + c];
}

static void assert_table(bool titles, const char *const *cells, size_t rows, const char *expected) {
  const struct esp_cli_column titled[COLUMNS] = {{"PATH", false}, {"STEPS", true}, {"NOTE", false}, {"Z", false}};
  const struct esp_cli_column bare[COLUMNS] = {{NULL, false}, {NULL, true}, {NULL, false}, {NULL, false}};
  const struct esp_cli_table table = {titles ? titled : bare, COLUMNS, rows, row_of, cells};
  char *text = NULL;
  size_t len = 0;
  FILE *out = open_memstream(&text, &len);
  esp_cli_table_print(&table, out);
  fclose(out);
  assert_string_equal(text, expected);
  free(text);
}

static void columns_are_as_wide_as_they_need(void **state) {
  (void)state;
  const char *const cells[] = {"a.long.path", "7", "x", "end", "b", "123456", "", "e", "caf\xc3\xa9", "0", "yy", ""};
  assert_table(true, cells, 3,
               "PATH          STEPS  NOTE  Z\n"
               "a.long.path       7  x     end\n"
               "b            123456        e\n"
               "caf\xc3\xa9              0  yy\n");
}

static void empty_columns_are_left_out(void **state) {
  (void)state;
  const char *const cells[] = {"a", "1", "", "", "b", "22", "", ""};
  assert_table(true, cells, 2,
               "PATH  STEPS\n"
               "a         1\n"
               "b        22\n");
  assert_table(false, cells, 2, "a   1\nb  22\n");
  const char *const first_empty[] = {"", "1", "", "n", "", "2", "", ""};
  assert_table(false, first_empty, 2, "1  n\n2\n");
}

static void no_rows_print_nothing(void **state) {
  (void)state;
  assert_table(true, NULL, 0, "");
}

static void count_row(const void *data, size_t index, struct esp_cli_row *ret) {
  (void)data;
  snprintf(ret->scratch[0], ESP_CLI_SCRATCH_MAX, "%zu", index);
  ret->cells[0] = ret->scratch[0];
}

/* A million rows: two passes and no memory for them. */
static void a_million_rows_stream(void **state) {
  (void)state;
  const struct esp_cli_column column = {NULL, true};
  const struct esp_cli_table table = {&column, 1, 1000000, count_row, NULL};
  FILE *out = fopen("/dev/null", "w");
  assert_non_null(out);
  esp_cli_table_print(&table, out);
  assert_int_equal(fclose(out), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(columns_are_as_wide_as_they_need),
      ESP_TEST(empty_columns_are_left_out),
      ESP_TEST(no_rows_print_nothing),
      ESP_TEST(a_million_rows_stream),
  };
  return cmocka_run_group_tests_name("cli.table", tests, NULL, NULL);
}
