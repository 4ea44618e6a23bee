/* narrow: the library's pushes and pulls in 16 bits.
 *
 *   narrow ADDRESS
 *
 * The server is new, and steps by sgd(lr=1). Exit code 0: all was as it must be; otherwise a line on stderr says what
 * was not. Numbers are chosen so that each dtype has them exactly, but where rounding is what is looked at. */
#include <espalier/admin.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static esp_client *client;

static void expect(bool is_so, const char *what) {
  if (is_so)
    return;
  fprintf(stderr, "narrow: %s\n", what);
  exit(1);
}

static void check(enum esp_code code, const struct esp_status *st, const char *what) {
  if (code == ESP_OK)
    return;
  fprintf(stderr, "narrow: %s: %s: %s\n", what, esp_code_name(code), st->message);
  exit(1);
}

static void refused(enum esp_code code, enum esp_code expected, const struct esp_status *st, const char *message) {
  if (code == expected && strcmp(st->message, message) == 0)
    return;
  fprintf(stderr, "narrow: %s: %s, where this was due: %s\n", esp_code_name(code), code == ESP_OK ? "" : st->message,
          message);
  exit(1);
}

static esp_client *open_client(const char *address) {
  struct esp_client_options options = ESP_CLIENT_OPTIONS_INIT;
  options.target = address;
  options.deadline_ms = 60000;
  struct esp_status st;
  esp_client *opened;
  check(esp_client_open(&options, &opened, &st), &st, "open");
  return opened;
}

enum { W, B, D, LEAVES };
static esp_leaf_id ids[LEAVES];

static void declare(void) {
  const struct esp_leaf_spec specs[LEAVES] = {
      [W] = {.path = "net.w", .shape = {2, 3}, .rank = 2, .dtype = ESP_F32},
      [B] = {.path = "net.b", .shape = {4}, .rank = 1, .dtype = ESP_F32},
      [D] = {.path = "net.d", .shape = {2}, .rank = 1, .dtype = ESP_F64},
  };
  struct esp_status st;
  check(esp_declare(client, specs, LEAVES, ids, &st), &st, "declare");
}

/* -1, -2, ... in each dtype: what sgd(lr=1) makes positive. */
static const uint16_t w_bf16[6] = {0xbf80, 0xc000, 0xc040, 0xc080, 0xc0a0, 0xc0c0};
static const uint16_t b_f16[4] = {0xbc00, 0xc000, 0xc200, 0xc400};
static const double d_f64[2] = {-1, -2};

/* All leaves in one push, each in its own way. */
static void push(void) {
  const struct esp_gradient grads[LEAVES] = {
      {.leaf = ids[W], .data = w_bf16, .bytes = sizeof w_bf16, .dtype = ESP_BF16},
      {.leaf = ids[B], .data = b_f16, .bytes = sizeof b_f16, .dtype = ESP_F16},
      {.leaf = ids[D], .data = d_f64, .bytes = sizeof d_f64},
  };
  struct esp_push_result result;
  struct esp_status st;
  check(esp_push(client, grads, LEAVES, &result, &st), &st, "push");
  expect(result.applied == LEAVES, "a push steps all leaves");
}

static float w_f32[6], b_f32[4];
static uint16_t w_half[6], b_half[4];
static double d[2];

static void expect_values(unsigned pushes, const char *what) {
  for (unsigned i = 0; i < 6; i++)
    expect(w_f32[i] == (float)(pushes * (i + 1)), what);
  for (unsigned i = 0; i < 4; i++)
    expect(b_f32[i] == (float)(pushes * (i + 1)), what);
  for (unsigned i = 0; i < 2; i++)
    expect(d[i] == (double)pushes * (i + 1), what);
}

static void pull_own(unsigned pushes, const char *what) {
  const struct esp_weight weights[LEAVES] = {
      {.leaf = ids[W], .data = w_f32, .bytes = sizeof w_f32, .dtype = ESP_F32},
      {.leaf = ids[B], .data = b_f32, .bytes = sizeof b_f32},
      {.leaf = ids[D], .data = d, .bytes = sizeof d},
  };
  struct esp_status st;
  check(esp_pull(client, weights, LEAVES, NULL, &st), &st, what);
  expect_values(pushes, what);
}

/* Positive ones are negative ones without their signs. */
static void expect_positive(const uint16_t *got, const uint16_t *negative, size_t len, const char *what) {
  for (size_t i = 0; i < len; i++)
    expect(got[i] == (negative[i] ^ 0x8000), what);
}

/* Each leaf in another dtype in one pull, plain and consistent, after one push. */
static void pull_mixed(bool consistent) {
  const struct esp_weight weights[LEAVES] = {
      {.leaf = ids[W], .data = w_half, .bytes = sizeof w_half, .dtype = ESP_BF16},
      {.leaf = ids[D], .data = d, .bytes = sizeof d},
      {.leaf = ids[B], .data = b_half, .bytes = sizeof b_half, .dtype = ESP_F16},
  };
  const struct esp_pull_options options = {.consistent = consistent};
  struct esp_pull_result result;
  struct esp_status st;
  memset(w_half, 0, sizeof w_half);
  memset(b_half, 0, sizeof b_half);
  check(esp_pull_with(client, weights, LEAVES, &options, &result, &st), &st, "a pull of several dtypes");
  expect(result.sent == LEAVES, "a pull sends all leaves");
  expect_positive(w_half, w_bf16, 6, "net.w in bf16");
  expect_positive(b_half, b_f16, 4, "net.b in f16");
}

/* Rows that lie apart, of 16 bits. */
static void pull_rows(void) {
  uint16_t memory[2][4] = {{7, 7, 7, 7}, {7, 7, 7, 7}};
  const struct esp_rows rows = {.bytes = 3 * sizeof(uint16_t), .stride = sizeof memory[0]};
  const struct esp_weight weight = {.leaf = ids[W], .data = memory, .bytes = sizeof w_half, .dtype = ESP_BF16};
  const struct esp_pull_options options = {.rows = &rows};
  struct esp_status st;
  check(esp_pull_with(client, &weight, 1, &options, NULL, &st), &st, "a pull by rows");
  for (size_t r = 0; r < 2; r++) {
    expect_positive(memory[r], w_bf16 + 3 * r, 3, "a row of net.w");
    expect(memory[r][3] == 7, "what is between rows is not touched");
  }
}

/* What memory holds in one dtype says nothing of another: `have` goes with the memory, whatever is asked for. */
static void pull_deltas(void) {
  struct esp_have have = {0};
  const enum esp_leaf_dtype dtypes[] = {ESP_F32, ESP_F32, ESP_BF16, ESP_BF16, ESP_F16, ESP_BF16, 0, ESP_F32};
  const bool is_sent[] = {true, false, true, false, true, true, true, false};
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
    const bool is_half = dtypes[i] == ESP_BF16 || dtypes[i] == ESP_F16;
    const struct esp_weight weight = {.leaf = ids[W],
                                      .data = is_half ? (void *)w_half : w_f32,
                                      .bytes = is_half ? sizeof w_half : sizeof w_f32,
                                      .dtype = dtypes[i]};
    const struct esp_pull_options options = {.have = &have};
    struct esp_pull_result result;
    struct esp_status st;
    check(esp_pull_with(client, &weight, 1, &options, &result, &st), &st, "a delta pull");
    expect(result.sent == is_sent[i] && have.changed == is_sent[i], "a delta pull sends what is had in another dtype");
    if (dtypes[i] == ESP_BF16)
      expect_positive(w_half, w_bf16, 6, "net.w in bf16, by deltas");
  }
}

static enum esp_code push_one(esp_leaf_id leaf, const void *data, size_t bytes, enum esp_leaf_dtype dtype,
                              struct esp_status *st) {
  const struct esp_gradient grad = {.leaf = leaf, .data = data, .bytes = bytes, .dtype = dtype};
  return esp_push(client, &grad, 1, NULL, st);
}

static enum esp_code pull_one(esp_leaf_id leaf, void *data, size_t bytes, enum esp_leaf_dtype dtype,
                              struct esp_status *st) {
  const struct esp_weight weight = {.leaf = leaf, .data = data, .bytes = bytes, .dtype = dtype};
  return esp_pull(client, &weight, 1, NULL, st);
}

static void refusals(void) {
  struct esp_status st;
  const uint16_t nan[4] = {0, 0, 0, 0x7e00};
  const double wide[4] = {0};
  refused(push_one(ids[B], b_f16, 4, ESP_F16, &st), ESP_INVALID_ARGUMENT, &st,
          "leaf net.b has 8 bytes in f16, and gradient 0 for it 4");
  refused(push_one(ids[B], b_f16, 8, 0, &st), ESP_INVALID_ARGUMENT, &st,
          "leaf net.b has 16 bytes, and gradient 0 for it 8");
  refused(push_one(ids[B], b_f16, 8, 9, &st), ESP_INVALID_ARGUMENT, &st,
          "gradient 0 has dtype 9, which is none of enum esp_leaf_dtype");
  refused(push_one(ids[B], wide, sizeof wide, ESP_F64, &st), ESP_INVALID_ARGUMENT, &st,
          "leaf net.b: dtype f32, bf16 or f16 expected, got f64");
  refused(push_one(ids[D], w_f32, 8, ESP_F32, &st), ESP_UNIMPLEMENTED, &st,
          "leaf net.d: dtype f64 expected, got f32: only f32 travels narrower yet");
  refused(push_one(ids[B], nan, 8, ESP_F16, &st), ESP_INVALID_ARGUMENT, &st,
          "leaf net.b: element 3 of the gradient is NaN");
  refused(pull_one(ids[B], b_half, 4, ESP_BF16, &st), ESP_INVALID_ARGUMENT, &st,
          "leaf net.b has 8 bytes in bf16, and weight 0 for it 4");
  refused(pull_one(ids[D], d, 4, ESP_BF16, &st), ESP_UNIMPLEMENTED, &st,
          "leaf net.d: dtype f64 expected, got bf16: only f32 travels narrower yet");
}

/* After a gradient of -65536 twice an element is beyond f16, and not beyond bf16. */
static void overflow(void) {
  const uint16_t large[4] = {0, 0, 0xc780, 0};
  struct esp_status st;
  for (unsigned i = 0; i < 2; i++)
    check(push_one(ids[B], large, sizeof large, ESP_BF16, &st), &st, "a push of a large element");
  refused(pull_one(ids[B], b_half, sizeof b_half, ESP_F16, &st), ESP_OUT_OF_RANGE, &st,
          "leaf net.b: element 2 is too large for f16");
  check(pull_one(ids[B], b_half, sizeof b_half, ESP_BF16, &st), &st, "a pull in bf16");
  expect(b_half[2] == 0x4800, "131,076 is rounded to 131,072 in bf16");
}

/* Leaves that somebody else declared, of which this client knows no bytes. */
static void found(const char *address) {
  const char *paths[] = {"net.w"};
  struct esp_status st;
  esp_client *own = client;
  esp_leaf_id id;
  client = open_client(address);
  check(esp_find(client, paths, 1, &id, &st), &st, "find");
  check(pull_one(id, w_half, sizeof w_half, ESP_BF16, &st), &st, "a reader's pull");
  expect_positive(w_half, w_bf16, 6, "net.w for a reader");
  refused(pull_one(id, w_half, sizeof w_half, 0, &st), ESP_INVALID_ARGUMENT, &st,
          "weight 0 has memory for 12 bytes; leaf id 1 has 24");
  esp_client_close(client);
  client = own;
}

int main(int argc, char **argv) {
  expect(argc == 2, "usage: narrow ADDRESS");
  client = open_client(argv[1]);
  declare();
  push();
  pull_own(1, "a push in 16 bits");
  pull_mixed(false);
  pull_mixed(true);
  pull_rows();
  pull_deltas();
  found(argv[1]);
  refusals();
  pull_own(1, "what is refused changes nothing");
  push();
  pull_own(2, "two pushes in 16 bits");
  overflow();
  esp_client_close(client);
  return 0;
}
