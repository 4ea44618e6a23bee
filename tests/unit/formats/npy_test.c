/* Tests of formats/npy.c: NumPy's own bytes in and out, and every way to spoil a file. What NumPy itself says is in
 * interop_test.c. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "formats/npy.h"
#include "tests/support/env_virtual.h"
#include "tests/support/test.h"

/* numpy.save of numpy.array([[1.5, -2], [3, 4]], '<f4') and of numpy.float64(1.5), by NumPy 1.24. */
#define SPACES_10 "          "
#define SPACES_58 SPACES_10 SPACES_10 SPACES_10 SPACES_10 SPACES_10 "        "
static const char matrix_f32[] =
    "\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }" SPACES_58
    "\n\x00\x00\xc0\x3f\x00\x00\x00\xc0\x00\x00\x40\x40\x00\x00\x80\x40";
static const char scalar_f64[] =
    "\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (), }" SPACES_58
    "    \n\x00\x00\x00\x00\x00\x00\xf8\x3f";

/* A file of version 1 with this dictionary and this many bytes of data. Returns its length. */
static size_t make_file(char *file, const char *dict, size_t data_len) {
  size_t dict_len = strlen(dict);
  memcpy(file, "\x93NUMPY\x01\x00", 8);
  file[8] = (char)(dict_len & 0xff);
  file[9] = (char)(dict_len >> 8);
  memcpy(file + 10, dict, dict_len);
  memset(file + 10 + dict_len, 0, data_len);
  return 10 + dict_len + data_len;
}

/* Parses from a block of exactly that length, so that ASan sees a read past its end. */
static enum esp_code parse_exact(const char *file, size_t len, struct esp_npy *ret, struct esp_status *st) {
  char *copy = esp_malloc(len);
  memcpy(copy, file, len);
  struct esp_npy array = {0};
  enum esp_code code = esp_npy_parse(copy, len, &array, st);
  if (code == ESP_OK) {
    assert_true((const char *)array.data + array.bytes == copy + len);
    array.data = NULL;
    *ret = array;
  }
  esp_free(copy);
  return code;
}

static void assert_refused(const char *dict, size_t data_len, enum esp_code code, const char *what) {
  char file[1024];
  struct esp_status st;
  struct esp_npy array;
  size_t len = make_file(file, dict, data_len);
  assert_int_equal(parse_exact(file, len, &array, &st), code);
  if (strstr(st.message, what) == NULL)
    fail_msg("\"%s\" says \"%s\", not \"%s\"", dict, st.message, what);
}

static void assert_taken(const char *dict, size_t data_len, enum esp_dtype dtype, unsigned rank) {
  char file[1024];
  struct esp_status st;
  struct esp_npy array;
  size_t len = make_file(file, dict, data_len);
  if (parse_exact(file, len, &array, &st) != ESP_OK)
    fail_msg("\"%s\": %s", dict, st.message);
  assert_int_equal(array.dtype, dtype);
  assert_int_equal(array.shape.rank, rank);
  assert_int_equal(array.bytes, data_len);
}

static void numpys_bytes_are_read(void **state) {
  (void)state;
  struct esp_npy array;
  assert_int_equal(esp_npy_parse(matrix_f32, sizeof matrix_f32 - 1, &array, NULL), ESP_OK);
  assert_int_equal(array.dtype, ESP_DTYPE_F32);
  assert_int_equal(array.shape.rank, 2);
  assert_int_equal(array.shape.dims[0], 2);
  assert_int_equal(array.shape.dims[1], 2);
  float values[4];
  assert_int_equal(array.bytes, sizeof values);
  memcpy(values, array.data, sizeof values);
  assert_true(values[0] == 1.5f && values[1] == -2 && values[2] == 3 && values[3] == 4);
  assert_int_equal(esp_npy_parse(scalar_f64, sizeof scalar_f64 - 1, &array, NULL), ESP_OK);
  assert_int_equal(array.dtype, ESP_DTYPE_F64);
  assert_int_equal(array.shape.rank, 0);
  assert_int_equal(array.bytes, 8);
}

static void files_are_numpys_byte_for_byte(void **state) {
  (void)state;
  const float matrix[] = {1.5f, -2, 3, 4};
  const double scalar = 1.5;
  struct esp_env_virtual *twin = esp_env_virtual_new(1);
  const struct esp_env *env = esp_env_virtual_env(twin);
  struct esp_npy array = {ESP_DTYPE_F32, {{2, 2}, 2}, matrix, sizeof matrix};
  assert_int_equal(esp_npy_write(env, "a.npy", &array, NULL), ESP_OK);
  size_t len;
  const void *bytes = esp_env_virtual_read(twin, "a.npy", &len);
  assert_int_equal(len, sizeof matrix_f32 - 1);
  assert_memory_equal(bytes, matrix_f32, len);
  array = (struct esp_npy){ESP_DTYPE_F64, {{0}, 0}, &scalar, sizeof scalar};
  assert_int_equal(esp_npy_write(env, "a.npy", &array, NULL), ESP_OK);
  bytes = esp_env_virtual_read(twin, "a.npy", &len);
  assert_int_equal(len, sizeof scalar_f64 - 1);
  assert_memory_equal(bytes, scalar_f64, len);
  esp_env_virtual_free(twin);
}

/* What is written is read again, for every rank and both dtypes, and the data begins where SIMD likes it. */
static void every_rank_makes_the_round_trip(void **state) {
  (void)state;
  double data[256] = {1, 2, 3};
  for (unsigned rank = 0; rank <= ESP_RANK_MAX; rank++) {
    for (int dtype = ESP_DTYPE_F32; dtype <= ESP_DTYPE_F64; dtype++) {
      struct esp_npy array = {.dtype = (enum esp_dtype)dtype, .shape = {.rank = rank}, .data = data};
      for (unsigned i = 0; i < rank; i++)
        array.shape.dims[i] = i % 2 + 1;
      uint64_t elements, bytes;
      assert_int_equal(esp_shape_bytes(&array.shape, array.dtype, &elements, &bytes, NULL), ESP_OK);
      array.bytes = bytes;
      char file[4096];
      size_t len;
      assert_int_equal(esp_npy_make_header(&array, file, &len, NULL), ESP_OK);
      assert_int_equal(len % 64, 0);
      memcpy(file + len, data, bytes);
      struct esp_npy read;
      assert_int_equal(parse_exact(file, len + bytes, &read, NULL), ESP_OK);
      assert_int_equal(read.dtype, array.dtype);
      assert_true(esp_shape_equal(&read.shape, &array.shape));
    }
  }
}

/* The longest header that there can be has room. */
static void the_longest_header_fits(void **state) {
  (void)state;
  struct esp_npy array = {ESP_DTYPE_F32, {{1, 1, 1, 1, 1, 1, 1, UINT64_C(1) << 59}, 8}, NULL, (size_t)1 << 61};
  char header[ESP_NPY_HEADER_BYTES_MAX];
  size_t len;
  assert_int_equal(esp_npy_make_header(&array, header, &len, NULL), ESP_OK);
  assert_true(len <= sizeof header);
  assert_int_equal(header[len - 1], '\n');
}

static void every_cut_is_an_error(void **state) {
  (void)state;
  for (size_t len = 0; len < sizeof matrix_f32 - 1; len++) {
    struct esp_status st;
    struct esp_npy array;
    assert_int_equal(parse_exact(matrix_f32, len, &array, &st), ESP_INVALID_ARGUMENT);
    assert_non_null(strstr(st.message, len < 6 ? "not a .npy file" : "cut off"));
  }
}

/* Any byte of the header set to anything: an error or a smaller truth, never a read outside the file (ASan). */
static void no_spoilt_byte_leads_astray(void **state) {
  (void)state;
  char file[sizeof matrix_f32];
  for (size_t at = 0; at < 128; at++) {
    for (int byte = 0; byte < 256; byte++) {
      struct esp_npy array;
      memcpy(file, matrix_f32, sizeof matrix_f32);
      file[at] = (char)byte;
      if (parse_exact(file, sizeof matrix_f32 - 1, &array, NULL) == ESP_OK)
        assert_true(array.bytes <= sizeof file);
    }
  }
}

static void versions_differ_in_the_lengths_width(void **state) {
  (void)state;
  const char *dict = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n";
  for (int version = 0; version <= 4; version++) {
    char file[256] = "\x93NUMPY";
    size_t start = version == 1 ? 10 : 12;
    file[6] = (char)version;
    file[8] = (char)strlen(dict);
    memcpy(file + start, dict, strlen(dict));
    struct esp_npy array;
    enum esp_code code = parse_exact(file, start + strlen(dict) + 4, &array, NULL);
    assert_int_equal(code, version >= 1 && version <= 3 ? ESP_OK : ESP_INVALID_ARGUMENT);
  }
  char file[64] = "\x93NUMPY\x02\x00\x00\x00\x01\x00"; /* a header of 64 KiB, were it there */
  struct esp_status st;
  struct esp_npy array;
  assert_int_equal(parse_exact(file, sizeof file, &array, &st), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(st.message, "65536 bytes"));
}

static void dictionaries_are_read_as_python_does(void **state) {
  (void)state;
  assert_taken("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", 12, ESP_DTYPE_F32, 1);
  assert_taken("{\"shape\":(3,),\"descr\":\"<f8\",\"fortran_order\":False}", 24, ESP_DTYPE_F64, 1);
  assert_taken(" { 'fortran_order' : False , 'shape' : ( ) , 'descr' : '<f4' } \n", 4, ESP_DTYPE_F32, 0);
  assert_taken("{'descr':'<f4','fortran_order':False,'shape':(1,2,3,)}", 24, ESP_DTYPE_F32, 3);
  assert_taken("{'descr':'<f4','fortran_order':False,'shape':(1, 1, 1, 1, 1, 1, 1, 1)}", 4, ESP_DTYPE_F32, 8);
}

static void other_dictionaries_are_refused(void **state) {
  (void)state;
  const enum esp_code bad = ESP_INVALID_ARGUMENT;
  assert_refused("", 4, bad, "'{'");
  assert_refused("{}", 4, bad, "the keys");
  assert_refused("{'descr': '<f4', 'fortran_order': False, }", 4, bad, "the keys");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x", 4, bad, "nothing but spaces");
  assert_refused("{'descr': '<f4', 'descr': '<f4', 'shape': (1,)}", 4, bad, "once each");
  assert_refused("{'descr': '<f4' 'fortran_order': False}", 4, bad, "',' or '}'");
  assert_refused("{'descr' '<f4'}", 4, bad, "':'");
  assert_refused("{'colour': 1}", 4, bad, "the keys");
  assert_refused("{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}", 4, bad, "True or False");
  assert_refused("{'descr': <f4}", 4, bad, "quoted string");
  assert_refused("{'descr': '<f4", 4, bad, "quoted string");
  assert_refused("{'descr': '\\x3cf4'}", 4, bad, "quoted string");
  assert_refused("{'descr': 'a very long name of a dtype'}", 4, bad, "quoted string");
  assert_refused("{'descr': '', 'fortran_order': False, 'shape': (1,)}", 4, bad, "the keys");
}

static void arrays_that_are_none_of_ours_say_what_to_do(void **state) {
  (void)state;
  const enum esp_code bad = ESP_INVALID_ARGUMENT;
  assert_refused("{'descr': '<f2', 'fortran_order': False, 'shape': (2,)}", 4, ESP_UNIMPLEMENTED, "float16");
  assert_refused("{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}", 4, bad, "'>f4'; expected '<f4' or '<f8'");
  assert_refused("{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}", 8, bad, "astype");
  assert_refused("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", 4, bad, "structured");
  assert_refused("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1)}", 4, bad, "ascontiguousarray");
}

static void shapes_are_checked(void **state) {
  (void)state;
  const enum esp_code bad = ESP_INVALID_ARGUMENT;
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1)}", 4, bad, "','");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': 1}", 4, bad, "'('");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1 2)}", 4, bad, "',' or ')'");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", 4, bad, "a number");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (,)}", 4, bad, "a number");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1,", 4, bad, "a number");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (0,)}", 0, bad, "dimension 0");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551616,)}", 4, bad, "2^64");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551615,)}", 4, bad, "2^62");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", 4, bad, "2^62");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", 4, bad, "8 dimensions");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}", 23, bad,
                 "[2, 3] of f32 needs 24: it is cut");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}", 25, bad, "has 25 bytes of data");
}

static void what_cannot_be_written_is_refused(void **state) {
  (void)state;
  char header[ESP_NPY_HEADER_BYTES_MAX];
  size_t len;
  struct esp_npy array = {ESP_DTYPE_BF16, {{2}, 1}, "....", 4};
  assert_int_equal(esp_npy_make_header(&array, header, &len, NULL), ESP_UNIMPLEMENTED);
  array.dtype = ESP_DTYPE_F32;
  assert_int_equal(esp_npy_make_header(&array, header, &len, NULL), ESP_INVALID_ARGUMENT);
  array.shape.dims[0] = 0;
  assert_int_equal(esp_npy_make_header(&array, header, &len, NULL), ESP_INVALID_ARGUMENT);
  struct esp_env_virtual *twin = esp_env_virtual_new(1);
  assert_int_equal(esp_npy_write(esp_env_virtual_env(twin), "a.npy", &array, NULL), ESP_INVALID_ARGUMENT);
  assert_int_equal(esp_env_virtual_files_len(twin), 0);
  esp_env_virtual_free(twin);
}

static void a_failed_write_leaves_the_old_file(void **state) {
  (void)state;
  const float matrix[] = {1.5f, -2, 3, 4};
  const double scalar = 1.5;
  const struct esp_npy old = {ESP_DTYPE_F64, {{0}, 0}, &scalar, sizeof scalar};
  const struct esp_npy new = {ESP_DTYPE_F32, {{2, 2}, 2}, matrix, sizeof matrix};
  int failures = 0;
  for (int64_t n = 0;; n++) {
    struct esp_env_virtual *twin = esp_env_virtual_new(1);
    const struct esp_env *env = esp_env_virtual_env(twin);
    struct esp_status st;
    assert_int_equal(esp_npy_write(env, "a.npy", &old, NULL), ESP_OK);
    esp_env_virtual_fail_at(twin, n);
    enum esp_code code = esp_npy_write(env, "a.npy", &new, &st);
    bool failed = esp_env_virtual_has_failed(twin);
    assert_int_equal(code != ESP_OK, failed);
    size_t len;
    const void *bytes = esp_env_virtual_read(twin, "a.npy", &len);
    if (len == sizeof scalar_f64 - 1)
      assert_memory_equal(bytes, scalar_f64, len);
    else
      assert_memory_equal(bytes, matrix_f32, sizeof matrix_f32 - 1);
    assert_int_equal(esp_env_virtual_files_len(twin), 1);
    esp_env_virtual_free(twin);
    if (!failed)
      break;
    failures++;
  }
  assert_int_equal(failures, 6); /* create, two writes, sync, rename, the directory's sync */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(numpys_bytes_are_read),
      ESP_TEST(files_are_numpys_byte_for_byte),
      ESP_TEST(every_rank_makes_the_round_trip),
      ESP_TEST(the_longest_header_fits),
      ESP_TEST(every_cut_is_an_error),
      ESP_TEST(no_spoilt_byte_leads_astray),
      ESP_TEST(versions_differ_in_the_lengths_width),
      ESP_TEST(dictionaries_are_read_as_python_does),
      ESP_TEST(other_dictionaries_are_refused),
      ESP_TEST(arrays_that_are_none_of_ours_say_what_to_do),
      ESP_TEST(shapes_are_checked),
      ESP_TEST(what_cannot_be_written_is_refused),
      ESP_TEST(a_failed_write_leaves_the_old_file),
  };
  return cmocka_run_group_tests_name("formats.npy", tests, NULL, NULL);
}
