/* Aligned tables for people: one pass over the rows for the widths, one that prints. The last column is not padded, so
 * that lines have no trailing spaces. */
#include "client/cli/cli.h"

#define GAP 2 /* spaces between columns */

/* What the first pass found out. */
struct widths {
  size_t of[ESP_CLI_COLUMNS_MAX]; /* 0: the column is empty and left out */
};

static void widen(size_t *width, const char *cell) {
  size_t cell_width = esp_cli_text_width(cell);
  if (cell_width > *width)
    *width = cell_width;
}

static struct widths measure(const struct esp_cli_table *table, struct esp_cli_row *row) {
  struct widths widths = {0};
  for (size_t i = 0; i < table->rows_len; i++) {
    table->row(table->data, i, row);
    for (size_t c = 0; c < table->columns_len; c++)
      widen(&widths.of[c], row->cells[c]);
  }
  for (size_t c = 0; c < table->columns_len; c++) {
    if (widths.of[c] > 0 && table->columns[c].title != NULL)
      widen(&widths.of[c], table->columns[c].title);
  }
  return widths;
}

static void print_line(const struct esp_cli_table *table, const struct widths *widths, const char *const *cells,
                       FILE *out) {
  size_t owed = 0; /* spaces before the next thing that is not one */
  for (size_t c = 0; c < table->columns_len; c++) {
    if (widths->of[c] == 0)
      continue;
    size_t pad = widths->of[c] - esp_cli_text_width(cells[c]);
    if (table->columns[c].right)
      owed += pad;
    if (cells[c][0] != '\0') {
      fprintf(out, "%*s%s", (int)owed, "", cells[c]);
      owed = 0;
    }
    owed += GAP + (table->columns[c].right ? 0 : pad);
  }
  fputc('\n', out);
}

void esp_cli_table_print(const struct esp_cli_table *table, FILE *out) {
  struct esp_cli_row row;
  struct widths widths = measure(table, &row);
  if (table->rows_len == 0)
    return;
  if (table->columns[0].title != NULL) {
    for (size_t c = 0; c < table->columns_len; c++)
      row.cells[c] = table->columns[c].title;
    print_line(table, &widths, row.cells, out);
  }
  for (size_t i = 0; i < table->rows_len; i++) {
    table->row(table->data, i, &row);
    print_line(table, &widths, row.cells, out);
  }
}
