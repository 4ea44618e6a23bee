/* A step whose gradients arrive transposed equals the step on their transposes, written out: every small shape, shapes
 * that cross tiles, panels and blocks, every mix of the two kinds, any cut. */
#include "fixture.h"

#define SIDE_MAX 7
#define LARGE_LEN (160 * 600) /* elements */
#define GRADS 3

static unsigned char x0[LARGE_LEN * 8], grads[GRADS][LARGE_LEN * 8 + 8], mirrored[GRADS][LARGE_LEN * 8 + 8];

/* A value after some steps, with its state. */
struct outcome {
  unsigned char x[LARGE_LEN * 8];
  unsigned char states[2][LARGE_LEN * 8];
};
static struct outcome got, want;

struct shape {
  enum esp_dtype dtype;
  size_t rows;
  size_t cols;
};

static void put(unsigned char *data, enum esp_dtype dtype, size_t i, double value) {
  const float value_f32 = (float)value;
  if (dtype == ESP_DTYPE_F32)
    memcpy(data + i * 4, &value_f32, 4);
  else
    memcpy(data + i * 8, &value, 8);
}

/* The same gradients twice: as the parameter lies, and transposed; both at odd bytes. */
static void make(const struct shape *shape) {
  uint64_t seed = shape->rows * 1000 + shape->cols;
  for (size_t r = 0; r < shape->rows; r++) {
    for (size_t c = 0; c < shape->cols; c++) {
      put(x0, shape->dtype, r * shape->cols + c, next_unit(&seed) - 0.5);
      for (size_t i = 0; i < GRADS; i++) {
        const double value = next_unit(&seed) - 0.5;
        put(grads[i] + i, shape->dtype, r * shape->cols + c, value);
        put(mirrored[i] + i, shape->dtype, c * shape->rows + r, value);
      }
    }
  }
}

/* Two steps on gradients of which those in the set `transposed` come so; in ranges of about `cut` elements. */
static void run(const struct esp_optim *optim, const struct shape *shape, enum esp_isa isa, unsigned transposed,
                size_t grads_len, double scale, size_t cut, struct outcome *ret) {
  const size_t n = shape->rows * shape->cols, bytes = n * esp_dtype_size(shape->dtype);
  struct esp_grad list[GRADS];
  for (size_t i = 0; i < GRADS; i++)
    list[i] = transposed >> i & 1
                  ? (struct esp_grad){mirrored[i] + i, .transposed = true, .rows = shape->rows, .cols = shape->cols}
                  : (struct esp_grad){.data = grads[i] + i};
  memcpy(ret->x, x0, bytes);
  memset(ret->states[0], 0, bytes);
  memset(ret->states[1], 0, bytes);
  void *const states[] = {ret->states[0], ret->states[1]};
  for (uint64_t t = 1; t <= 2; t++) {
    struct esp_step step;
    esp_optim_step_init(optim, t, NULL, &step);
    for (size_t first = 0; first < n; first += cut)
      esp_optim_apply(optim, &step, isa, shape->dtype, first, n - first < cut ? n - first : cut, list, grads_len, scale,
                      ret->x, ret->x, states);
  }
}

static void assert_same(const struct shape *shape, unsigned transposed, size_t cut) {
  const size_t size = esp_dtype_size(shape->dtype), bytes = shape->rows * shape->cols * size;
  for (size_t i = 0; i < bytes; i++) {
    if (got.x[i] != want.x[i] || got.states[0][i] != want.states[0][i] || got.states[1][i] != want.states[1][i])
      fail_msg("[%zu, %zu] of %s, transposed %u, cut %zu: element %zu differs", shape->rows, shape->cols,
               esp_dtype_name(shape->dtype), transposed, cut, i / size);
  }
}

static void try_mixes(const struct esp_optim *optim, const struct shape *shape, enum esp_isa isa, size_t cut) {
  make(shape);
  for (size_t grads_len = 1; grads_len <= GRADS; grads_len++) {
    const double scale = grads_len % 2 == 1 ? 1 : 0.3;
    run(optim, shape, ESP_ISA_SSE2, 0, grads_len, scale, SIZE_MAX / 2, &want);
    for (unsigned transposed = 0; transposed < 1U << grads_len; transposed++) {
      run(optim, shape, isa, transposed, grads_len, scale, cut, &got);
      assert_same(shape, transposed, cut);
    }
  }
}

static void equals_the_transpose_of_every_small_shape(void **state) {
  (void)state;
  struct esp_optim *optim = must_parse("sgd(lr=0.5, weight_decay=0.1) | adamw(lr=0.1)");
  for (enum esp_dtype dtype = ESP_DTYPE_F32; dtype <= ESP_DTYPE_F64; dtype++) {
    for (size_t rows = 1; rows <= SIDE_MAX; rows++) {
      for (size_t cols = 1; cols <= SIDE_MAX; cols++) {
        const struct shape shape = {.dtype = dtype, .rows = rows, .cols = cols};
        for (size_t cut = 1; cut <= rows * cols; cut++)
          try_mixes(optim, &shape, ESP_ISA_SSE2, cut);
      }
    }
  }
  esp_optim_unref(optim);
}

static void equals_the_transpose_across_tiles(void **state) {
  (void)state;
  static const size_t sides[][2] = {{160, 600}, {600, 160}, {17, 129}, {33, 128}, {9, 127}, {2, 30001},
                                    {30001, 2}, {700, 130}, {1, 5000}, {5000, 1}, {16, 512}};
  struct esp_optim *optim = must_parse("sgd(lr=0.5, weight_decay=0.1) | adamw(lr=0.1)");
  for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
    for (enum esp_dtype dtype = ESP_DTYPE_F32; dtype <= ESP_DTYPE_F64; dtype++) {
      const struct shape shape = {.dtype = dtype, .rows = sides[i][0], .cols = sides[i][1]};
      for (enum esp_isa isa = ESP_ISA_SSE2; isa < ESP_ISA_LEN; isa++) {
        if (esp_isa_supported(isa))
          try_mixes(optim, &shape, isa, isa == ESP_ISA_SSE2 ? LARGE_LEN : 4321);
      }
    }
  }
  esp_optim_unref(optim);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(equals_the_transpose_of_every_small_shape),
      ESP_TEST(equals_the_transpose_across_tiles),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
