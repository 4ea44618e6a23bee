/* Results of rounds, and how they are printed. What makes a report fail is a fault of this program, and ends it. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "tests/bench/bench.h"

/* One a round. Zeroed: none. */
struct values {
  double *at; /* owned */
  size_t len;
  size_t capacity;
};

struct result {
  const struct figure *figure;
  char *word; /* owned; NULL: a number */
  struct values values;
  struct values limits;
};

/* ---- what is told ---- */

static struct result *find(const struct report *report, const struct figure *figure) {
  for (size_t i = 0; i < report->len; i++) {
    if (report->results[i].figure == figure)
      return &report->results[i];
  }
  return NULL;
}

static struct result *find_or_make(struct report *report, const struct figure *figure) {
  struct result *result = find(report, figure);
  if (result != NULL)
    return result;
  if (!esp_grow((void **)&report->results, &report->capacity, report->len + 1, sizeof(*report->results)))
    bench_die("no memory for results");
  report->results[report->len] = (struct result){.figure = figure};
  return &report->results[report->len++];
}

static void append(struct values *values, double value, const char *name) {
  if (!isfinite(value))
    bench_die("%s is no number", name);
  if (!esp_grow((void **)&values->at, &values->capacity, values->len + 1, sizeof(*values->at)))
    bench_die("no memory for results");
  values->at[values->len++] = value;
}

void report_add(struct report *report, const struct figure *figure, double value) {
  append(&find_or_make(report, figure)->values, value, figure->name);
}

void report_limit(struct report *report, const struct figure *figure, double limit) {
  struct result *result = find(report, figure);
  if (result == NULL)
    bench_die("%s has a limit and no value", figure->name);
  append(&result->limits, limit, figure->name);
}

void report_word(struct report *report, const struct figure *figure, const char *word) {
  struct result *result = find_or_make(report, figure);
  esp_free(result->word);
  result->word = esp_strdup(word);
  if (result->word == NULL)
    bench_die("no memory for results");
}

/* Read, and never changed. */
static void read_congestion_control(char *ret, size_t size) {
  FILE *file = fopen("/proc/sys/net/ipv4/tcp_congestion_control", "r");
  if (file == NULL || fgets(ret, (int)size, file) == NULL)
    bench_die("the congestion control can't be read");
  ret[strcspn(ret, "\n")] = '\0';
  fclose(file);
}

void report_begin(struct report *report, const char *benchmark) {
  static const struct figure name = {"benchmark", "benchmark", "", MORE_IS_BETTER},
                             control = {"congestion_control", "congestion control", "", MORE_IS_BETTER},
                             cores = {"cores", "cores of the machine", "", MORE_IS_BETTER},
                             load = {"load", "its load before the run", "", LESS_IS_BETTER};
  char text[64];
  double before;
  read_congestion_control(text, sizeof(text));
  if (getloadavg(&before, 1) != 1)
    bench_die("the machine's load can't be read");
  report_word(report, &name, benchmark);
  report_word(report, &control, text);
  report_add(report, &cores, (double)sysconf(_SC_NPROCESSORS_ONLN));
  report_add(report, &load, before);
}

/* ---- what is printed ---- */

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

/* Of at least one value. Sorts. */
static double median(struct values *values) {
  qsort(values->at, values->len, sizeof(*values->at), compare);
  size_t half = values->len / 2;
  return values->len % 2 == 1 ? values->at[half] : (values->at[half - 1] + values->at[half]) / 2;
}

/* How near to the limit: 1 is at it, less is worse. False where nothing can be said. */
static bool ratio_of(enum better better, double value, double limit, double *ret) {
  double part = better == MORE_IS_BETTER ? value : limit, whole = better == MORE_IS_BETTER ? limit : value;
  if (!(limit > 0 && whole > 0))
    return false;
  *ret = part / whole;
  return true;
}

static void print_word(const struct result *result, bool json) {
  const struct figure *figure = result->figure;
  if (!json) {
    printf("%-50s %11s\n", figure->text, result->word);
    return;
  }
  json_t *object = json_pack("{s:s, s:s, s:s, s:n, s:n, s:n, s:n, s:n}", "name", figure->name, "value", result->word,
                             "unit", figure->unit, "limit", "ratio", "min", "max", "rounds");
  if (object == NULL || json_dumpf(object, stdout, 0) != 0)
    bench_die("%s can't be printed", figure->name);
  json_decref(object);
  printf("\n");
}

static void print_json(struct result *result) {
  const struct figure *figure = result->figure;
  double value = median(&result->values), limit, ratio;
  bool has_limit = result->limits.len > 0;
  limit = has_limit ? median(&result->limits) : 0;
  bool has_ratio = has_limit && ratio_of(figure->better, value, limit, &ratio);
  json_t *object = json_pack("{s:s, s:f, s:s, s:o, s:o, s:f, s:f, s:I}", "name", figure->name, "value", value, "unit",
                             figure->unit, "limit", has_limit ? json_real(limit) : json_null(), "ratio",
                             has_ratio ? json_real(ratio) : json_null(), "min", result->values.at[0], "max",
                             result->values.at[result->values.len - 1], "rounds", (json_int_t)result->values.len);
  if (object == NULL || json_dumpf(object, stdout, JSON_REAL_PRECISION(6)) != 0)
    bench_die("%s can't be printed", figure->name);
  json_decref(object);
  printf("\n");
}

/* A line without spaces at its end. */
static void print_text(struct result *result) {
  const struct figure *figure = result->figure;
  const struct values *values = &result->values;
  double value = median(&result->values), ratio;
  char limits[32] = "", part[16] = "";
  printf("%-50s %11.6g", figure->text, value);
  if (result->limits.len > 0) {
    double limit = median(&result->limits);
    snprintf(limits, sizeof(limits), "%.6g", limit);
    if (ratio_of(figure->better, value, limit, &ratio))
      snprintf(part, sizeof(part), "%.3f", ratio);
  }
  if (values->len > 1)
    printf(" %-5s %11s %6s %11.6g %11.6g %6zu\n", figure->unit, limits, part, values->at[0],
           values->at[values->len - 1], values->len);
  else if (limits[0] != '\0')
    printf(" %-5s %11s %6s\n", figure->unit, limits, part);
  else
    printf("%s%s\n", figure->unit[0] == '\0' ? "" : " ", figure->unit);
}

static void result_done(struct result *result) {
  esp_free(result->word);
  esp_free(result->values.at);
  esp_free(result->limits.at);
}

void report_print(struct report *report, bool json) {
  if (!json)
    printf("%-50s %11s %-5s %11s %6s %11s %11s %6s\n", "", "value", "unit", "limit", "ratio", "min", "max", "rounds");
  for (size_t i = 0; i < report->len; i++) {
    struct result *result = &report->results[i];
    if (result->word != NULL)
      print_word(result, json);
    else
      (json ? print_json : print_text)(result);
    result_done(result);
  }
  esp_free(report->results);
  *report = (struct report){0};
  if (fflush(stdout) != 0)
    bench_die("the results can't be written");
}
