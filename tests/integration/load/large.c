/* large: one tensor of many bytes, or a tree of many leaves, through the library, and how long each call took.
 *
 *   large ADDRESS tensor MIB      declares a tensor of f32, pushes and pulls it, and looks at every element
 *   large ADDRESS leaves COUNT    declares so many leaves, joins them, lists them, freezes and thaws them
 *
 * The server is new, and steps by sgd(lr=1). The tensor needs its size in memory once here, and in the server twice.
 * Prints a line a call. Exit code 0: all was as it must be; otherwise a line on stderr says what was not. */
#include <espalier/admin.h>

#include <inttypes.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LAYERS 1000                   /* leaves are spread over so many nodes */
#define PERIOD 1000003                /* elements after which gradients repeat: no power of two */
#define DEADLINE_MS UINT64_C(3600000) /* of a call: it takes as long as it takes */

static esp_client *client;

static double now_s(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void check(enum esp_code code, const struct esp_status *st, const char *what) {
  if (code == ESP_OK)
    return;
  fprintf(stderr, "large: %s: %s: %s\n", what, esp_code_name(code), st->message);
  exit(1);
}

static void expect(bool is_so, const char *what) {
  if (is_so)
    return;
  fprintf(stderr, "large: %s\n", what);
  exit(1);
}

/* Prints what ended now; bytes 0: none were moved. */
static void report(const char *what, double begin_s, double bytes) {
  double took_s = now_s() - begin_s;
  if (bytes > 0)
    printf("%-8s %8.3f s  %6.2f GB/s\n", what, took_s, bytes / took_s / 1e9);
  else
    printf("%-8s %8.3f s\n", what, took_s);
  fflush(stdout);
}

/* ---- one tensor ---- */

static void run_tensor(uint64_t mib) {
  size_t bytes = (size_t)mib << 20, len = bytes / sizeof(float);
  struct esp_leaf_spec spec = {.path = "large", .shape = {len}, .rank = 1, .dtype = ESP_F32};
  struct esp_status st;
  esp_leaf_id leaf;
  float *memory = malloc(bytes);
  expect(memory != NULL, "no memory for the tensor");
  for (size_t i = 0; i < len; i++)
    memory[i] = (float)(i % PERIOD);
  struct esp_gradient gradient = {.leaf = 0, .data = memory, .bytes = bytes};
  struct esp_weight weight = {.leaf = 0, .data = memory, .bytes = bytes};
  double begin_s = now_s();
  check(esp_declare(client, &spec, 1, &leaf, &st), &st, "declare");
  report("declare", begin_s, 0);
  gradient.leaf = weight.leaf = leaf;
  begin_s = now_s();
  check(esp_push(client, &gradient, 1, NULL, &st), &st, "push");
  report("push", begin_s, (double)bytes);
  memset(memory, 0xff, bytes); /* NaN: nothing is taken for pulled that was there before */
  begin_s = now_s();
  check(esp_pull(client, &weight, 1, NULL, &st), &st, "pull");
  report("pull", begin_s, (double)bytes);
  for (size_t i = 0; i < len; i++)
    expect(memory[i] == -(float)(i % PERIOD), "an element is not minus its gradient");
  free(memory);
}

/* ---- many leaves ---- */

static void freeze(enum esp_op_kind kind, uint64_t count, const char *what) {
  const struct esp_op op = {.kind = kind, .selection = "model"};
  struct esp_apply_result *result;
  struct esp_status st;
  double begin_s = now_s();
  check(esp_apply(client, &op, 1, NULL, &result, &st), &st, what);
  report(what, begin_s, 0);
  expect(result->matched == count && result->changes_len == count, "not all leaves changed");
  esp_apply_result_free(result);
}

static void list(uint64_t count) {
  struct esp_description *description;
  struct esp_status st;
  double begin_s = now_s();
  check(esp_describe(client, NULL, false, &description, &st), &st, "list");
  report("list", begin_s, 0);
  expect(description->leaves_len == count, "not all leaves are listed");
  esp_description_free(description);
}

/* Declares again, in another order: the answer's ids are runs of one. */
static void join_reversed(struct esp_leaf_spec *specs, esp_leaf_id *leaves, uint64_t count) {
  esp_leaf_id last = leaves[count - 1];
  struct esp_status st;
  for (uint64_t i = 0; i < count / 2; i++) {
    struct esp_leaf_spec spec = specs[i];
    specs[i] = specs[count - 1 - i];
    specs[count - 1 - i] = spec;
  }
  double begin_s = now_s();
  check(esp_declare(client, specs, count, leaves, &st), &st, "join");
  report("join", begin_s, 0);
  expect(leaves[0] == last, "a leaf has another id than before");
}

static void run_leaves(uint64_t count) {
  struct esp_leaf_spec *specs = calloc(count, sizeof(*specs));
  esp_leaf_id *leaves = calloc(count, sizeof(*leaves));
  char(*paths)[64] = calloc(count, sizeof(*paths));
  expect(specs != NULL && leaves != NULL && paths != NULL, "no memory for the leaves");
  for (uint64_t i = 0; i < count; i++) {
    (void)snprintf(paths[i], sizeof(paths[i]), "model.layers.%" PRIu64 ".block.%" PRIu64 ".weight", i % LAYERS,
                   i / LAYERS);
    specs[i] = (struct esp_leaf_spec){.path = paths[i], .shape = {16}, .rank = 1, .dtype = ESP_F32};
  }
  struct esp_status st;
  double begin_s = now_s();
  check(esp_declare(client, specs, count, leaves, &st), &st, "declare");
  report("declare", begin_s, 0);
  join_reversed(specs, leaves, count);
  list(count);
  freeze(ESP_OP_FREEZE, count, "freeze");
  freeze(ESP_OP_THAW, count, "thaw");
  free(specs);
  free(leaves);
  free(paths);
}

int main(int argc, char **argv) {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_TOP_PAD, 64 << 20);
  uint64_t count = argc == 4 ? strtoull(argv[3], NULL, 10) : 0;
  bool is_tensor = argc == 4 && strcmp(argv[2], "tensor") == 0;
  if (count == 0 || (!is_tensor && strcmp(argv[2], "leaves") != 0)) {
    fprintf(stderr, "large ADDRESS tensor MIB | large ADDRESS leaves COUNT\n");
    return 2;
  }
  struct esp_client_options options = ESP_CLIENT_OPTIONS_INIT;
  struct esp_status st;
  options.target = argv[1];
  options.deadline_ms = DEADLINE_MS;
  check(esp_client_open(&options, &client, &st), &st, "open");
  if (is_tensor)
    run_tensor(count);
  else
    run_leaves(count);
  esp_client_close(client);
  return 0;
}
