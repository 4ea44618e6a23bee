/* Tests of base/dtype.c. */
#include <stdbool.h>
#include <string.h>

#include "base/dtype.h"
#include "tests/support/test.h"

static const struct {
  enum esp_dtype dtype;
  const char *name;
  size_t size;
} dtypes[] = {
    {ESP_DTYPE_NONE, "none", 0},       {ESP_DTYPE_F32, "f32", 4},
    {ESP_DTYPE_F64, "f64", 8},         {ESP_DTYPE_BF16, "bf16", 2},
    {ESP_DTYPE_F16, "f16", 2},         {(enum esp_dtype)5, "none", 0},
    {(enum esp_dtype) - 1, "none", 0}, {(enum esp_dtype)INT32_MAX, "none", 0},
};

static void names_and_sizes(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
    assert_string_equal(esp_dtype_name(dtypes[i].dtype), dtypes[i].name);
    assert_int_equal(esp_dtype_size(dtypes[i].dtype), dtypes[i].size);
  }
}

/* Every dtype and every shape of rank up to 3 with dimensions 0 to 3. */
static void small_shapes_exhaustively(void **state) {
  (void)state;
  for (size_t d = 0; d < sizeof(dtypes) / sizeof(dtypes[0]); d++)
    for (unsigned rank = 0; rank <= 3; rank++)
      for (unsigned code = 0; code < 1u << (2 * rank); code++) {
        struct esp_shape shape = {.rank = rank};
        uint64_t product = 1;
        for (unsigned i = 0; i < rank; i++)
          product *= shape.dims[i] = code >> (2 * i) & 3;
        uint64_t elements = 7, bytes = 7;
        struct esp_status st;
        enum esp_code got = esp_shape_bytes(&shape, dtypes[d].dtype, &elements, &bytes, &st);
        bool valid = product > 0 && dtypes[d].size > 0;
        assert_int_equal(got, valid ? ESP_OK : ESP_INVALID_ARGUMENT);
        assert_int_equal(elements, valid ? product : 7);
        assert_int_equal(bytes, valid ? product * dtypes[d].size : 7);
      }
}

static void large_shapes_stop_at_2_to_the_62(void **state) {
  (void)state;
  uint64_t elements, bytes;
  struct esp_status st;
  struct esp_shape shape = {.dims = {UINT64_C(1) << 30, UINT64_C(1) << 30}, .rank = 2};
  assert_int_equal(esp_shape_bytes(&shape, ESP_DTYPE_F32, &elements, &bytes, &st), ESP_OK);
  assert_int_equal(bytes, UINT64_C(1) << 62);
  assert_int_equal(esp_shape_bytes(&shape, ESP_DTYPE_F64, &elements, &bytes, &st), ESP_INVALID_ARGUMENT);
  assert_string_equal(st.message, "shape [1073741824, 1073741824] of f64 is over 2^62 bytes");
  shape.dims[0]++;
  assert_int_equal(esp_shape_bytes(&shape, ESP_DTYPE_F32, &elements, &bytes, NULL), ESP_INVALID_ARGUMENT);
  shape = (struct esp_shape){.dims = {UINT64_MAX}, .rank = 1};
  assert_int_equal(esp_shape_bytes(&shape, ESP_DTYPE_F16, &elements, &bytes, NULL), ESP_INVALID_ARGUMENT);
  /* A product that wraps round to something small. */
  shape = (struct esp_shape){.dims = {UINT64_C(1) << 32, UINT64_C(1) << 32, 2}, .rank = 3};
  assert_int_equal(esp_shape_bytes(&shape, ESP_DTYPE_F16, &elements, &bytes, NULL), ESP_INVALID_ARGUMENT);
  shape = (struct esp_shape){.dims = {1, 1, 1, 1, 1, 1, 1, 1}, .rank = 8};
  assert_int_equal(esp_shape_bytes(&shape, ESP_DTYPE_F64, &elements, &bytes, NULL), ESP_OK);
  shape.rank = 9;
  assert_int_equal(esp_shape_bytes(&shape, ESP_DTYPE_F64, &elements, &bytes, &st), ESP_INVALID_ARGUMENT);
  assert_string_equal(st.message, "rank 9 is over 8");
}

static void equality(void **state) {
  (void)state;
  struct esp_shape a = {.dims = {2, 3, 9}, .rank = 2}, b = {.dims = {2, 3, 8}, .rank = 2};
  assert_true(esp_shape_equal(&a, &b)); /* what lies past the rank does not count */
  b.rank = 3;
  assert_false(esp_shape_equal(&a, &b));
  a.rank = 3;
  assert_false(esp_shape_equal(&a, &b));
  a.rank = b.rank = 0;
  assert_true(esp_shape_equal(&a, &b));
}

static void printing(void **state) {
  (void)state;
  char text[ESP_SHAPE_TEXT_MAX];
  assert_string_equal(esp_shape_print(&(struct esp_shape){.rank = 0}, text), "[]");
  assert_string_equal(esp_shape_print(&(struct esp_shape){.dims = {64, 32}, .rank = 2}, text), "[64, 32]");
  struct esp_shape most = {.rank = 9};
  memset(most.dims, 0xff, sizeof(most.dims));
  assert_ptr_equal(esp_shape_print(&most, text), text);
  assert_int_equal(strlen(text), 8 * 20 + 7 * 2 + 2 + strlen(", ..."));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(names_and_sizes),
      ESP_TEST(small_shapes_exhaustively),
      ESP_TEST(large_shapes_stop_at_2_to_the_62),
      ESP_TEST(equality),
      ESP_TEST(printing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
