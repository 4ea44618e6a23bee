/* The workload: its tensors and the gradients. Every push has the same gradients, a few values by turns, one of them 0,
 * so that what an element is after so many steps does not depend on who pushed when (rule.c). */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "tests/bench/bench.h"

#define GRADIENTS 5 /* different values */

static float gradient(size_t element) {
  return (float)((int)(element % GRADIENTS) - 2) * 0.001F;
}

/* ---- the list ---- */

/* Cuts "NAME DIM DIM ..." and keeps a copy of the name. */
static void read_leaf(struct workload *load, char *line) {
  char *save = NULL;
  const char *name = strtok_r(line, " \n", &save), *dim;
  struct esp_leaf_spec *spec = &load->specs[load->len];
  if (load->len == LEAVES_MAX || name == NULL)
    bench_die("%s has lines that name no tensor, or more than %d", SHAPES, LEAVES_MAX);
  *spec = (struct esp_leaf_spec){.path = esp_strdup(name), .dtype = ESP_F32};
  size_t elements = 1;
  while ((dim = strtok_r(NULL, " \n", &save)) != NULL && spec->rank < ESP_LEAF_RANK_MAX) {
    spec->shape[spec->rank] = strtoull(dim, NULL, 10);
    elements *= spec->shape[spec->rank++];
  }
  if (spec->path == NULL || elements == 0)
    bench_die("%s: %s has no elements", SHAPES, name);
  load->elements[load->len++] = elements;
  load->bytes += elements * sizeof(float);
}

static void *must_have(void *memory, size_t bytes) {
  if (memory == NULL)
    bench_die("no memory for %zu bytes", bytes);
  return memory;
}

static void *make_gradients(const struct workload *load, size_t elements) {
  if (load->wire == 0) {
    float *grads = must_have(esp_malloc_array(elements, sizeof(*grads)), elements * sizeof(*grads));
    for (size_t j = 0; j < elements; j++)
      grads[j] = gradient(j);
    return grads;
  }
  uint16_t *grads = must_have(esp_malloc_array(elements, sizeof(*grads)), elements * sizeof(*grads));
  for (size_t j = 0; j < elements; j++)
    grads[j] = j < GRADIENTS ? half_round(load->wire, gradient(j)) : grads[j - GRADIENTS];
  return grads;
}

static void make_weight(struct workload *load, size_t i) {
  const size_t bytes = load->grads[i].bytes;
  load->weights[i].data = must_have(esp_malloc(bytes), bytes);
  memset(load->weights[i].data, 0xFF,
         bytes); /* the pages are there before anything is timed; no number: see pull_all */
}

static void make_memory(struct workload *load, size_t i, bool weights) {
  size_t bytes = load->elements[i] * (load->wire == 0 ? sizeof(float) : sizeof(uint16_t));
  load->grads[i] =
      (struct esp_gradient){.data = make_gradients(load, load->elements[i]), .bytes = bytes, .dtype = load->wire};
  load->weights[i] = (struct esp_weight){.bytes = bytes, .dtype = load->wire};
  if (weights)
    make_weight(load, i);
}

static void read_list(struct workload *load) {
  char line[512];
  FILE *list = fopen(SHAPES, "r");
  *load = (struct workload){0};
  if (list == NULL)
    bench_die("%s can't be read", SHAPES);
  while (fgets(line, sizeof(line), list) != NULL)
    read_leaf(load, line);
  fclose(list);
}

void workload_init(struct workload *load, enum esp_leaf_dtype wire, bool weights) {
  read_list(load);
  load->wire = wire;
  for (size_t i = 0; i < load->len; i++)
    make_memory(load, i, weights);
}

void workload_share(struct workload *load, const struct workload *other) {
  *load = *other;
  for (size_t i = 0; i < load->len; i++)
    make_weight(load, i);
}

/* Takes the list's sizes alone. */
static void measure_list(size_t *ret_all, size_t *ret_largest) {
  static struct workload load; /* large */
  read_list(&load);
  *ret_all = load.bytes;
  *ret_largest = 0;
  for (size_t i = 0; i < load.len; i++) {
    size_t bytes = load.elements[i] * sizeof(float);
    *ret_largest = bytes > *ret_largest ? bytes : *ret_largest;
    esp_free((void *)load.specs[i].path);
  }
}

size_t workload_bytes(void) {
  size_t all, largest;
  measure_list(&all, &largest);
  return all;
}

size_t workload_bytes_largest(void) {
  size_t all, largest;
  measure_list(&all, &largest);
  return largest;
}

void workload_declare(struct workload *load, esp_client *client) {
  struct esp_status st;
  bench_check(esp_declare(client, load->specs, load->len, load->ids, &st), "declare", &st);
  for (size_t i = 0; i < load->len; i++)
    load->grads[i].leaf = load->weights[i].leaf = load->ids[i];
}

/* ---- the check ---- */

static void check_values(const struct workload *load, size_t i, const float *values, const float *expected,
                         uint64_t steps) {
  for (size_t j = 0; j < load->elements[i]; j++) {
    if (values[j] != expected[j % GRADIENTS])
      bench_die("leaf %s: element %zu is %.9g, and %.9g after %" PRIu64 " steps", load->specs[i].path, j,
                (double)values[j], (double)expected[j % GRADIENTS], steps);
  }
}

/* What was pulled as it is in a step. */
static void check_halves(const struct workload *load, size_t i, const float *expected) {
  const uint16_t *halves = load->weights[i].data;
  uint16_t rounded[GRADIENTS];
  for (size_t j = 0; j < GRADIENTS; j++)
    rounded[j] = half_round(load->wire, expected[j]);
  for (size_t j = 0; j < load->elements[i]; j++) {
    if (halves[j] != rounded[j % GRADIENTS])
      bench_die("leaf %s: element %zu of 16 bits is %04x, and %04x of %.9g", load->specs[i].path, j,
                (unsigned)halves[j], (unsigned)rounded[j % GRADIENTS], (double)expected[j % GRADIENTS]);
  }
}

static void expect(const struct workload *load, size_t i, const struct rule *rule, uint64_t steps,
                   float ret[GRADIENTS]) {
  for (size_t j = 0; j < GRADIENTS; j++) {
    float sent = load->wire == 0 ? gradient(j) : half_value(load->wire, half_round(load->wire, gradient(j)));
    ret[j] = rule_replay(rule, (float)load->specs[i].a, sent, steps);
  }
}

/* What weights hold, as they travelled. */
static void check_pulled(const struct workload *load, size_t i, const struct rule *rule, uint64_t steps) {
  float expected[GRADIENTS];
  expect(load, i, rule, steps, expected);
  if (load->wire == 0)
    check_values(load, i, load->weights[i].data, expected, steps);
  else
    check_halves(load, i, expected);
}

static void check_exact(const struct workload *load, size_t i, const float *exact, const struct rule *rule,
                        uint64_t steps) {
  float expected[GRADIENTS];
  expect(load, i, rule, steps, expected);
  check_values(load, i, exact, expected, steps);
}

void workload_check_pulled(const struct workload *load, const char *optimizer, uint64_t steps) {
  struct rule rule;
  rule_parse(optimizer, &rule);
  for (size_t i = 0; i < load->len; i++)
    check_pulled(load, i, &rule, steps);
}

static void pull_all(const struct esp_weight *weights, size_t len, esp_client *client) {
  struct esp_pull_options options = {.consistent = true};
  struct esp_status st;
  for (size_t i = 0; i < len; i++)
    memset(weights[i].data, 0xFF, weights[i].bytes); /* not a number: what is not pulled is seen */
  bench_check(esp_pull_with(client, weights, len, &options, NULL, &st), "pull", &st);
}

/* The values themselves; where weights travel otherwise, in memory that is kept for the next check. */
static const struct esp_weight *pull_exact(struct workload *load, esp_client *client) {
  static struct esp_weight exact[LEAVES_MAX];
  pull_all(load->weights, load->len, client);
  if (load->wire == 0)
    return load->weights;
  for (size_t i = 0; i < load->len; i++) {
    size_t bytes = load->elements[i] * sizeof(float);
    void *data = exact[i].data != NULL ? exact[i].data : must_have(esp_malloc(bytes), bytes);
    exact[i] = (struct esp_weight){.leaf = load->ids[i], .data = data, .bytes = bytes};
  }
  pull_all(exact, load->len, client);
  return exact;
}

uint64_t workload_check(struct workload *load, esp_client *client, const char *optimizer) {
  struct esp_description *description;
  struct esp_status st;
  struct rule rule;
  uint64_t total = 0;
  rule_parse(optimizer, &rule);
  const struct esp_weight *exact = pull_exact(load, client);
  bench_check(esp_describe(client, NULL, false, &description, &st), "describe", &st);
  for (size_t i = 0; i < load->len; i++) {
    const struct esp_leaf_info *info = NULL;
    for (size_t j = 0; j < description->leaves_len; j++)
      info = description->leaves[j].leaf == load->ids[i] ? &description->leaves[j] : info;
    if (info == NULL)
      bench_die("the tree has no leaf %s", load->specs[i].path);
    check_pulled(load, i, &rule, info->steps);
    if (exact != load->weights)
      check_exact(load, i, exact[i].data, &rule, info->steps);
    total += info->steps;
  }
  esp_description_free(description);
  return total;
}
