/* The workload: its tensors, the gradients, and what adam makes of them.
 *
 * Every push has the same gradients, a few values by turns, one of them 0. With a gradient that stays the same both
 * moments of adam are as if they were of one step: m / (1 - beta1^t) is g, v / (1 - beta2^t) is its square. So each
 * step moves an element by the same, whoever pushed and whenever a leaf was frozen: its value tells how many steps it
 * has made. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "tests/bench/bench.h"

#define TOLERANCE 1e-3 /* of all that an element moved: each step rounds */

static float gradient(size_t element) {
  return (float)((int)(element % 5) - 2) * 0.001F;
}

static double value_after(size_t element, uint64_t steps) {
  double grad = gradient(element);
  return -(double)steps * LEARNING_RATE * grad / (fabs(grad) + 1e-8);
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

static void make_memory(struct workload *load, size_t i, bool weights) {
  size_t bytes = load->elements[i] * sizeof(float);
  float *grads = esp_malloc(bytes);
  void *values = weights ? esp_calloc(1, bytes) : NULL; /* the pages are there before anything is timed */
  if (grads == NULL || (weights && values == NULL))
    bench_die("no memory for %zu bytes", bytes);
  for (size_t j = 0; j < load->elements[i]; j++)
    grads[j] = gradient(j);
  load->grads[i] = (struct esp_gradient){.data = grads, .bytes = bytes};
  load->weights[i] = (struct esp_weight){.data = values, .bytes = bytes};
}

void workload_init(struct workload *load, bool weights) {
  char line[512];
  FILE *list = fopen(SHAPES, "r");
  *load = (struct workload){0};
  if (list == NULL)
    bench_die("%s can't be read", SHAPES);
  while (fgets(line, sizeof(line), list) != NULL)
    read_leaf(load, line);
  fclose(list);
  for (size_t i = 0; i < load->len; i++)
    make_memory(load, i, weights);
}

void workload_declare(struct workload *load, esp_client *client) {
  struct esp_status st;
  bench_check(esp_declare(client, load->specs, load->len, load->ids, &st), "declare", &st);
  for (size_t i = 0; i < load->len; i++)
    load->grads[i].leaf = load->weights[i].leaf = load->ids[i];
}

/* ---- the check ---- */

static void check_leaf(const struct workload *load, size_t i, uint64_t steps) {
  const float *values = load->weights[i].data;
  double allowed = TOLERANCE * LEARNING_RATE * (double)steps;
  for (size_t j = 0; j < load->elements[i]; j++) {
    if (!(fabs(values[j] - value_after(j, steps)) <= allowed))
      bench_die("leaf %s: element %zu is %.9g, and %.9g after %" PRIu64 " steps", load->specs[i].path, j,
                (double)values[j], value_after(j, steps), steps);
  }
}

void workload_check(struct workload *load, const struct esp_description *description) {
  if (description->leaves_len != load->len)
    bench_die("the tree has %zu leaves, and not %zu", description->leaves_len, load->len);
  for (size_t i = 0; i < load->len; i++) {
    const struct esp_leaf_info *info = NULL;
    for (size_t j = 0; j < load->len; j++)
      info = description->leaves[j].leaf == load->ids[i] ? &description->leaves[j] : info;
    if (info == NULL)
      bench_die("the tree has no leaf %s", load->specs[i].path);
    check_leaf(load, i, info->steps);
  }
}
