/* What others make of our files, and we of theirs: NumPy's numpy.load and numpy.save, and the safetensors library.
 * Debian has no package of the latter: without it the test checks the file in Python against the format's rules.
 * ESPALIER_PYTHON names another Python, of a virtual environment say. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/env.h"
#include "formats/npy.h"
#include "formats/safetensors.h"
#include "tests/support/test.h"

static char directory[] = "interop-XXXXXX";

/* Runs a Python script in the directory of the test; an assertion in it is a failure here. */
static void python(const char *script) {
  const char *program = getenv("ESPALIER_PYTHON");
  FILE *file = fopen("script.py", "w");
  assert_non_null(file);
  assert_true(fputs(script, file) >= 0);
  assert_int_equal(fclose(file), 0);
  char command[4096];
  snprintf(command, sizeof command, "'%s' script.py", program != NULL ? program : "/usr/bin/python3");
  assert_int_equal(system(command), 0);
  unlink("script.py");
}

static size_t read_file(const char *name, char *bytes, size_t size) {
  FILE *file = fopen(name, "rb");
  assert_non_null(file);
  size_t len = fread(bytes, 1, size, file);
  fclose(file);
  unlink(name);
  return len;
}

static void numpy_reads_ours(void **state) {
  (void)state;
  const float f32[] = {0, 1.5f, -2, 3e38f, 4, 5};
  const double f64[] = {1e-300, -0.1};
  const struct esp_npy arrays[] = {{ESP_DTYPE_F32, {{2, 3}, 2}, f32, sizeof f32},
                                   {ESP_DTYPE_F64, {{2}, 1}, f64, sizeof f64},
                                   {ESP_DTYPE_F64, {{0}, 0}, f64, sizeof f64[0]},
                                   {ESP_DTYPE_F32, {{1, 1, 1, 1, 1, 1, 1, 6}, 8}, f32, sizeof f32}};
  const char *const names[] = {"a.npy", "b.npy", "c.npy", "d.npy"};
  for (size_t i = 0; i < 4; i++)
    assert_int_equal(esp_npy_write(esp_env_system(), names[i], &arrays[i], NULL), ESP_OK);
  python("import numpy as np, io, os\n"
         "f32 = np.array([[0, 1.5, -2], [3e38, 4, 5]], '<f4')\n"
         "f64 = np.array([1e-300, -0.1])\n"
         "want = {'a': f32, 'b': f64, 'c': f64[0], 'd': f32.reshape(1, 1, 1, 1, 1, 1, 1, 6)}\n"
         "for name, array in want.items():\n"
         "    got = np.load(name + '.npy', allow_pickle=False)\n"
         "    assert got.dtype == array.dtype and got.shape == array.shape and (got == array).all(), (name, got)\n"
         "    theirs = io.BytesIO()\n"
         "    np.save(theirs, array)\n"
         "    assert open(name + '.npy', 'rb').read() == theirs.getvalue(), name\n"
         "    os.remove(name + '.npy')\n");
}

static void we_read_numpys(void **state) {
  (void)state;
  python("import numpy as np\n"
         "array = np.array([[1, 2, 3], [4, 5, 6]], '<f8')\n"
         "for version in (1, 2, 3):\n"
         "    with open(f'{version}.npy', 'wb') as file:\n"
         "        np.lib.format.write_array(file, array, (version, 0))\n"
         "for name, other in dict(half='<f2', big='>f4', int='<i8', bool='?').items():\n"
         "    np.save(name, array.astype(other))\n"
         "np.save('fortran', np.asfortranarray(array))\n"
         "np.save('fields', np.zeros(2, [('x', '<f4'), ('y', '<f4')]))\n");
  char bytes[1024];
  struct esp_npy array;
  struct esp_status st;
  const char *const good[] = {"1.npy", "2.npy", "3.npy"};
  for (size_t i = 0; i < 3; i++) {
    size_t len = read_file(good[i], bytes, sizeof bytes);
    assert_int_equal(esp_npy_parse(bytes, len, &array, &st), ESP_OK);
    const double want[] = {1, 2, 3, 4, 5, 6};
    assert_int_equal(array.dtype, ESP_DTYPE_F64);
    assert_int_equal(array.shape.rank, 2);
    assert_int_equal(array.shape.dims[1], 3);
    assert_int_equal(array.bytes, sizeof want);
    assert_memory_equal(array.data, want, sizeof want);
  }
  const char *const bad[] = {"half.npy", "big.npy", "int.npy", "bool.npy", "fortran.npy", "fields.npy"};
  const char *const why[] = {"float16", "'>f4'", "'<i8'", "'|b1'", "Fortran", "structured"};
  for (size_t i = 0; i < 6; i++) {
    size_t len = read_file(bad[i], bytes, sizeof bytes);
    assert_int_not_equal(esp_npy_parse(bytes, len, &array, &st), ESP_OK);
    assert_non_null(strstr(st.message, why[i]));
  }
}

static void safetensors_reads_ours(void **state) {
  (void)state;
  const struct esp_safetensors_metadata metadata[] = {{"format", "pt"}, {"commit", "12"}};
  const struct esp_safetensors_tensor tensors[] = {{"a.odd", ESP_DTYPE_F32, {{3}, 1}},
                                                   {"b.\xc3\xa9 \"q\"", ESP_DTYPE_F64, {{1, 2}, 2}},
                                                   {"c", ESP_DTYPE_F64, {{0}, 0}}};
  const double f64[] = {1.25, -3, 1e300}; /* b, then c: large elements come first */
  const float f32[] = {1, 2, 3};
  struct esp_safetensors_writer writer;
  assert_int_equal(esp_safetensors_begin(&writer, esp_env_system(), "m.safetensors", tensors, 3, metadata, 2, NULL),
                   ESP_OK);
  assert_int_equal(esp_safetensors_write(&writer, f64, sizeof f64, NULL), ESP_OK);
  assert_int_equal(esp_safetensors_write(&writer, f32, sizeof f32, NULL), ESP_OK);
  assert_int_equal(esp_safetensors_commit(&writer, NULL), ESP_OK);
  esp_safetensors_abort(&writer);
  python("import json, os, struct, numpy as np\n"
         "def by_the_rules(name):\n"
         "    raw = open(name, 'rb').read()\n"
         "    n, = struct.unpack('<Q', raw[:8])\n"
         "    header = json.loads(raw[8:8 + n])\n"
         "    metadata = header.pop('__metadata__')\n"
         "    assert n % 8 == 0 and all(type(v) is str for v in metadata.values())\n"
         "    tensors, end = {}, 0\n"
         "    for key, t in sorted(header.items(), key=lambda item: item[1]['data_offsets']):\n"
         "        start, stop = t['data_offsets']\n"
         "        dtype = np.dtype({'F32': '<f4', 'F64': '<f8'}[t['dtype']])\n"
         "        assert start == end and start % dtype.itemsize == 0, 'no holes, aligned'\n"
         "        tensors[key] = np.frombuffer(raw[8 + n + start:8 + n + stop], dtype).reshape(t['shape'])\n"
         "        end = stop\n"
         "    assert 8 + n + end == len(raw)\n"
         "    return tensors, metadata\n"
         "def by_the_library(name):\n"
         "    with safetensors.safe_open(name, 'np') as file:\n"
         "        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()\n"
         "readers = [by_the_rules]\n"
         "try:\n"
         "    import safetensors\n"
         "    readers.append(by_the_library)\n"
         "except ImportError:\n"
         "    pass\n"
         "for reader in readers:\n"
         "    tensors, metadata = reader('m.safetensors')\n"
         "    assert metadata == {'format': 'pt', 'commit': '12'}, metadata\n"
         "    assert sorted(tensors) == ['a.odd', 'b.\\u00e9 \"q\"', 'c'], tensors\n"
         "    assert (tensors['a.odd'] == np.array([1, 2, 3], 'f4')).all() and tensors['a.odd'].dtype == 'f4'\n"
         "    assert (tensors['b.\\u00e9 \"q\"'] == np.array([[1.25, -3]])).all()\n"
         "    assert tensors['c'].shape == () and tensors['c'] == 1e300\n"
         "os.remove('m.safetensors')\n");
}

static int enter(void **state) {
  (void)state;
  return mkdtemp(directory) == NULL || chdir(directory) != 0;
}

static int leave(void **state) {
  (void)state;
  return chdir("..") != 0 || rmdir(directory) != 0; /* the tests have removed their files */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(numpy_reads_ours),
      ESP_TEST(we_read_numpys),
      ESP_TEST(safetensors_reads_ours),
  };
  return cmocka_run_group_tests_name("formats.interop", tests, enter, leave);
}
