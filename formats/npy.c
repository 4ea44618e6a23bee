/* NumPy's .npy files.
 *
 * A file is the magic "\x93NUMPY", two bytes of version, the length of a header (u16 in version 1, u32 later), the
 * header, and the elements. The header is the text of a Python dictionary with the keys descr, fortran_order and shape;
 * a small strict parser below reads exactly that (NumPy evaluates it as Python), so that nothing of a foreign file is
 * believed but three checked values.
 *
 * Reading fails with the place and the reason, before anything is allocated (nothing is). Writing goes through an
 * atomic file. */
#include "formats/npy.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MAGIC "\x93NUMPY"
#define MAGIC_BYTES 6
#define ALIGNMENT 64 /* NumPy's: the data begins at a multiple of it */
#define DESCR_BYTES_MAX 15

/* What the dictionary said. */
struct dict {
  char descr[DESCR_BYTES_MAX + 1]; /* "" until it was read */
  bool fortran_order;
  bool fortran_order_seen;
  struct esp_shape shape;
  bool shape_seen;
};

/* The dictionary's text and how far it is read. */
struct text {
  const char *start;
  const char *at;
  const char *end;
  struct esp_status *st; /* where an error goes */
};

static enum esp_code text_fail(const struct text *text, const char *expected) {
  return esp_fail(text->st, ESP_INVALID_ARGUMENT,
                  "not a .npy file that NumPy wrote: its header needs %s at character %td", expected,
                  text->at - text->start + 1);
}

static void skip_spaces(struct text *text) {
  while (text->at < text->end && (*text->at == ' ' || *text->at == '\n' || *text->at == '\t'))
    text->at++;
}

/* Moves past `mark`, and spaces before it, where it comes next. */
static bool take(struct text *text, const char *mark) {
  skip_spaces(text);
  size_t len = strlen(mark);
  if ((size_t)(text->end - text->at) < len || memcmp(text->at, mark, len) != 0)
    return false;
  text->at += len;
  return true;
}

/* A quoted string without escapes, which no header of ours needs; what is longer than fits is an error. */
static enum esp_code take_string(struct text *text, char *ret, size_t size) {
  skip_spaces(text);
  if (text->at == text->end || (*text->at != '\'' && *text->at != '"'))
    return text_fail(text, "a quoted string");
  const char *from = text->at + 1;
  const char *to = memchr(from, *text->at, (size_t)(text->end - from));
  if (to == NULL || (size_t)(to - from) >= size || memchr(from, '\\', (size_t)(to - from)) != NULL)
    return text_fail(text, "a short quoted string");
  memcpy(ret, from, (size_t)(to - from));
  ret[to - from] = '\0';
  text->at = to + 1;
  return ESP_OK;
}

static enum esp_code take_dimension(struct text *text, uint64_t *ret) {
  skip_spaces(text);
  if (text->at == text->end || *text->at < '0' || *text->at > '9')
    return text_fail(text, "a number");
  uint64_t value = 0;
  for (; text->at < text->end && *text->at >= '0' && *text->at <= '9'; text->at++) {
    unsigned digit = (unsigned)(*text->at - '0');
    if (value > (UINT64_MAX - digit) / 10)
      return text_fail(text, "a number under 2^64");
    value = value * 10 + digit;
  }
  *ret = value;
  return ESP_OK;
}

/* A tuple: "()", "(3,)", "(3, 4)"; "(3)" is a number in Python. */
static enum esp_code take_shape(struct text *text, struct esp_shape *ret) {
  *ret = (struct esp_shape){0};
  if (!take(text, "("))
    return text_fail(text, "'('");
  bool comma = true;
  while (!take(text, ")")) {
    if (!comma)
      return text_fail(text, "',' or ')'");
    if (ret->rank == ESP_RANK_MAX)
      return esp_fail(text->st, ESP_INVALID_ARGUMENT, "the array has more than %d dimensions", ESP_RANK_MAX);
    enum esp_code code = take_dimension(text, &ret->dims[ret->rank]);
    if (code != ESP_OK)
      return code;
    ret->rank++;
    comma = take(text, ",");
  }
  return ret->rank == 1 && !comma ? text_fail(text, "',' in a shape of one dimension,") : ESP_OK;
}

static enum esp_code take_descr(struct text *text, struct dict *dict) {
  if (take(text, "["))
    return esp_fail(text->st, ESP_INVALID_ARGUMENT,
                    "the array has a structured dtype; save one of its fields, as float32 or float64");
  return take_string(text, dict->descr, sizeof dict->descr);
}

static enum esp_code take_fortran_order(struct text *text, struct dict *dict) {
  dict->fortran_order_seen = true;
  dict->fortran_order = take(text, "True");
  return dict->fortran_order || take(text, "False") ? ESP_OK : text_fail(text, "True or False");
}

static enum esp_code take_entry(struct text *text, struct dict *dict) {
  char key[16];
  enum esp_code code = take_string(text, key, sizeof key);
  if (code != ESP_OK)
    return code;
  if (!take(text, ":"))
    return text_fail(text, "':'");
  if (strcmp(key, "descr") == 0 && dict->descr[0] == '\0')
    return take_descr(text, dict);
  if (strcmp(key, "fortran_order") == 0 && !dict->fortran_order_seen)
    return take_fortran_order(text, dict);
  if (strcmp(key, "shape") == 0 && !dict->shape_seen) {
    dict->shape_seen = true;
    return take_shape(text, &dict->shape);
  }
  return text_fail(text, "the keys descr, fortran_order and shape, once each, before what stands");
}

static enum esp_code take_dict(struct text *text, struct dict *dict) {
  if (!take(text, "{"))
    return text_fail(text, "'{'");
  bool comma = true;
  while (!take(text, "}")) {
    if (!comma)
      return text_fail(text, "',' or '}'");
    enum esp_code code = take_entry(text, dict);
    if (code != ESP_OK)
      return code;
    comma = take(text, ",");
  }
  skip_spaces(text);
  if (text->at != text->end)
    return text_fail(text, "nothing but spaces");
  if (dict->descr[0] == '\0' || !dict->fortran_order_seen || !dict->shape_seen)
    return text_fail(text, "the keys descr, fortran_order and shape");
  return ESP_OK;
}

static enum esp_code dtype_of_descr(const char *descr, enum esp_dtype *ret, struct esp_status *st) {
  if (strcmp(descr, "<f2") == 0)
    return esp_fail(st, ESP_UNIMPLEMENTED,
                    "the array is float16, which is not built yet; save array.astype('<f4') instead");
  if (strcmp(descr, "<f4") != 0 && strcmp(descr, "<f8") != 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT,
                    "the array's dtype is '%s'; expected '<f4' or '<f8': save array.astype('<f4') or "
                    "array.astype('<f8') instead",
                    descr);
  *ret = descr[2] == '4' ? ESP_DTYPE_F32 : ESP_DTYPE_F64;
  return ESP_OK;
}

/* Finds the dictionary. */
static enum esp_code find_dict(const uint8_t *bytes, size_t len, const uint8_t **ret, size_t *ret_len,
                               struct esp_status *st) {
  if (len < MAGIC_BYTES || memcmp(bytes, MAGIC, MAGIC_BYTES) != 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "not a .npy file: it does not begin with NumPy's magic bytes");
  if (len < MAGIC_BYTES + 2)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the .npy file is cut off after %zu bytes", len);
  unsigned version = bytes[MAGIC_BYTES];
  if (version < 1 || version > 3 || bytes[MAGIC_BYTES + 1] != 0)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the .npy file is of version %u.%u; expected 1.0, 2.0 or 3.0", version,
                    bytes[MAGIC_BYTES + 1]);
  size_t count_bytes = version == 1 ? 2 : 4;
  size_t start = MAGIC_BYTES + 2 + count_bytes;
  if (len < start)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the .npy file is cut off after %zu bytes", len);
  uint32_t dict_len = 0;
  for (size_t i = 0; i < count_bytes; i++)
    dict_len |= (uint32_t)bytes[MAGIC_BYTES + 2 + i] << (8 * i);
  if (dict_len > ESP_NPY_DICT_BYTES_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the .npy file's header has %" PRIu32 " bytes; expected %d at most",
                    dict_len, ESP_NPY_DICT_BYTES_MAX);
  if (len - start < dict_len)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the .npy file is cut off after %zu bytes, in its header", len);
  *ret = bytes + start;
  *ret_len = dict_len;
  return ESP_OK;
}

/* The data must be all of the array and nothing more: a file that was cut off, or to which something was appended, is
 * no array to load. */
static enum esp_code check_bytes(const struct dict *dict, enum esp_dtype dtype, size_t got, struct esp_status *st) {
  uint64_t elements = 0;
  uint64_t bytes = 0;
  enum esp_code code = esp_shape_bytes(&dict->shape, dtype, &elements, &bytes, st);
  if (code != ESP_OK)
    return code;
  char shape[ESP_SHAPE_TEXT_MAX];
  if (got != bytes)
    return esp_fail(
        st, ESP_INVALID_ARGUMENT, "the .npy file has %zu bytes of data; its shape %s of %s needs %" PRIu64 "%s", got,
        esp_shape_print(&dict->shape, shape), esp_dtype_name(dtype), bytes, got < bytes ? ": it is cut off" : "");
  return ESP_OK;
}

enum esp_code esp_npy_parse(const void *buffer, size_t len, struct esp_npy *ret, struct esp_status *st) {
  const uint8_t *header = NULL;
  size_t header_len = 0;
  enum esp_code code = find_dict(buffer, len, &header, &header_len, st);
  if (code != ESP_OK)
    return code;
  const char *start = (const char *)header;
  struct text text = {.start = start, .at = start, .end = start + header_len, .st = st};
  struct dict dict = {0};
  enum esp_dtype dtype = ESP_DTYPE_NONE;
  code = take_dict(&text, &dict);
  if (code == ESP_OK)
    code = dtype_of_descr(dict.descr, &dtype, st);
  if (code != ESP_OK)
    return code;
  if (dict.fortran_order)
    return esp_fail(st, ESP_INVALID_ARGUMENT,
                    "the array is in Fortran order; save numpy.ascontiguousarray(array) instead");
  size_t bytes = len - (size_t)(header + header_len - (const uint8_t *)buffer);
  code = check_bytes(&dict, dtype, bytes, st);
  if (code != ESP_OK)
    return code;
  *ret = (struct esp_npy){.dtype = dtype, .shape = dict.shape, .data = header + header_len, .bytes = bytes};
  return ESP_OK;
}

static size_t print_shape(const struct esp_shape *shape, char *text, size_t size) {
  size_t len = 0;
  for (unsigned i = 0; i < shape->rank; i++)
    len += (size_t)snprintf(text + len, size - len, "%s%" PRIu64, i > 0 ? ", " : "", shape->dims[i]);
  if (shape->rank == 1)
    len += (size_t)snprintf(text + len, size - len, ",");
  return len;
}

enum esp_code esp_npy_make_header(const struct esp_npy *array, char *ret_header, size_t *ret_len,
                                  struct esp_status *st) {
  if (array->dtype != ESP_DTYPE_F32 && array->dtype != ESP_DTYPE_F64)
    return esp_fail(st, ESP_UNIMPLEMENTED, "a tensor of %s can't be written as .npy yet; expected f32 or f64",
                    esp_dtype_name(array->dtype));
  uint64_t elements = 0;
  uint64_t bytes = 0;
  enum esp_code code = esp_shape_bytes(&array->shape, array->dtype, &elements, &bytes, st);
  if (code != ESP_OK)
    return code;
  char shape[ESP_SHAPE_TEXT_MAX];
  if (bytes != array->bytes)
    return esp_fail(st, ESP_INVALID_ARGUMENT,
                    "a tensor of %zu bytes can't be written: its shape %s of %s needs %" PRIu64, array->bytes,
                    esp_shape_print(&array->shape, shape), esp_dtype_name(array->dtype), bytes);
  shape[print_shape(&array->shape, shape, sizeof shape)] = '\0';
  size_t size = ESP_NPY_HEADER_BYTES_MAX;
  size_t start = MAGIC_BYTES + 4;
  size_t len = start + (size_t)snprintf(ret_header + start, size - start,
                                        "{'descr': '<f%zu', 'fortran_order': False, 'shape': (%s), }",
                                        esp_dtype_size(array->dtype), shape);
  size_t total = (len / ALIGNMENT + 1) * ALIGNMENT; /* the line feed has room */
  memset(ret_header + len, ' ', total - len);
  ret_header[total - 1] = '\n';
  memcpy(ret_header, MAGIC "\x01", MAGIC_BYTES + 2);
  ret_header[MAGIC_BYTES + 2] = (char)((total - start) & 0xff);
  ret_header[MAGIC_BYTES + 3] = (char)((total - start) >> 8);
  *ret_len = total;
  return ESP_OK;
}

enum esp_code esp_npy_write(const struct esp_env *env, const char *path, const struct esp_npy *array,
                            struct esp_status *st) {
  char header[ESP_NPY_HEADER_BYTES_MAX];
  size_t header_len = 0;
  enum esp_code code = esp_npy_make_header(array, header, &header_len, st);
  if (code != ESP_OK)
    return code;
  struct esp_atomic_file file = {0};
  code = esp_atomic_file_begin(&file, env, path, st);
  if (code == ESP_OK)
    code = esp_atomic_file_write(&file, header, header_len, st);
  if (code == ESP_OK)
    code = esp_atomic_file_write(&file, array->data, array->bytes, st);
  if (code == ESP_OK)
    code = esp_atomic_file_commit(&file, st);
  esp_atomic_file_abort(&file);
  return code;
}
