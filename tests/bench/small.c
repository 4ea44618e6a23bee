/* espbench small: many small tensors beside one of as many bytes.
 *
 * One server has both; a round pushes and pulls the one, then the others. The values are exact, as espbench latency's
 * are, so that a value tells how many steps its leaf has made. */
#include <inttypes.h>
#include <signal.h>

#include "base/alloc.h"
#include "tests/bench/bench.h"

#define LEAVES 2000
#define LEAF_ELEMENTS 256 /* 1 KiB */
#define ELEMENTS ((size_t)LEAVES * LEAF_ELEMENTS)
#define STEPS 5 /* of each kind in a round: the fastest counts */
#define OPTIMIZER "sgd(lr=0.5)"

static const struct figure one_ms = {"one_ms", "push and pull of one tensor", "ms", LESS_IS_BETTER},
                           many_ms = {"many_ms", "of 2,000 tensors, as many bytes", "ms", LESS_IS_BETTER};

/* A tree's part: what is pushed and pulled together. */
struct part {
  size_t len; /* of leaves */
  struct esp_gradient grads[LEAVES];
  struct esp_weight weights[LEAVES];
  uint64_t steps;
  float *values; /* the leaves', one after the other */
};

struct bench {
  esp_client *client;
  float *gradient; /* of either part */
  struct part one;
  struct part many;
};

static float gradient_at(size_t i) {
  return (float)((int)(i % 5) - 2) / 1024;
}

static float *array_new(void) {
  float *array = esp_calloc(ELEMENTS, sizeof(float));
  if (array == NULL)
    bench_die("no memory for %zu bytes", ELEMENTS * sizeof(float));
  return array;
}

/* Leaves of one size: all elements together. */
static void declare(const struct bench *bench, struct part *part, const char *name, size_t len) {
  size_t elements = ELEMENTS / len;
  struct esp_leaf_spec *specs = esp_calloc(len, sizeof(*specs));
  esp_leaf_id *ids = esp_calloc(len, sizeof(*ids));
  char(*paths)[32] = esp_calloc(len, sizeof(*paths));
  struct esp_status st;
  if (specs == NULL || ids == NULL || paths == NULL)
    bench_die("no memory for %zu leaves", len);
  for (size_t i = 0; i < len; i++) {
    snprintf(paths[i], sizeof(paths[i]), "%s.%zu.bias", name, i);
    specs[i] = (struct esp_leaf_spec){.path = paths[i], .shape = {elements}, .rank = 1, .dtype = ESP_F32};
  }
  bench_check(esp_declare(bench->client, specs, len, ids, &st), "declare", &st);
  part->len = len;
  part->values = array_new();
  for (size_t i = 0; i < len; i++) {
    size_t bytes = elements * sizeof(float);
    part->grads[i] = (struct esp_gradient){.leaf = ids[i], .data = bench->gradient + i * elements, .bytes = bytes};
    part->weights[i] = (struct esp_weight){.leaf = ids[i], .data = part->values + i * elements, .bytes = bytes};
  }
  esp_free(specs);
  esp_free(ids);
  esp_free(paths);
}

static uint64_t step(const struct bench *bench, struct part *part) {
  struct esp_push_result result;
  struct esp_status st;
  uint64_t begin = bench_now_ns();
  bench_check(esp_push_pull(bench->client, part->grads, part->len, part->weights, part->len, &result, NULL, &st),
              "push and pull", &st);
  uint64_t ns = bench_now_ns() - begin;
  if (result.applied != part->len)
    bench_die("%" PRIu64 " leaves were stepped, and not %zu", result.applied, part->len);
  part->steps++;
  return ns;
}

static void check(const struct part *part) {
  for (size_t i = 0; i < ELEMENTS; i++) {
    float expected = -0.5F * gradient_at(i) * (float)part->steps;
    if (part->values[i] != expected)
      bench_die("element %zu of %zu leaves is %.9g, and %.9g after %" PRIu64 " steps", i, part->len,
                (double)part->values[i], (double)expected, part->steps);
  }
}

/* The two by turns. */
static void round_of(struct bench *bench, struct report *report) {
  uint64_t one = UINT64_MAX, many = UINT64_MAX;
  for (int i = 0; i < STEPS; i++) {
    uint64_t one_ns = step(bench, &bench->one), many_ns = step(bench, &bench->many);
    one = one_ns < one ? one_ns : one;
    many = many_ns < many ? many_ns : many;
  }
  report_add(report, &one_ms, (double)one / 1e6);
  report_add(report, &many_ms, (double)many / 1e6);
  report_limit(report, &many_ms, (double)one / 1e6);
}

int bench_small(const struct bench_options *options) {
  static struct bench bench; /* large */
  struct report report = {0};
  struct process server;
  char address[ADDRESS_MAX];
  report_begin(&report, "small");
  server_start(options, OPTIMIZER, &server, address);
  bench.client = bench_open(address);
  bench.gradient = array_new();
  for (size_t i = 0; i < ELEMENTS; i++)
    bench.gradient[i] = gradient_at(i);
  declare(&bench, &bench.one, "one", 1);
  declare(&bench, &bench.many, "many", LEAVES);
  for (uint64_t i = 0; i < options->rounds; i++)
    round_of(&bench, &report);
  check(&bench.one);
  check(&bench.many);
  esp_client_close(bench.client);
  process_end(&server, SIGTERM);
  esp_free(bench.one.values);
  esp_free(bench.many.values);
  esp_free(bench.gradient);
  report_print(&report, options->json);
  return 0;
}
