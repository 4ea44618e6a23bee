/* Tests of the commands that read and write files: set, get, export. */
#include "tests/unit/cli/fixture.h"

static const struct esp_apply_change change = {3, "head.weight", "value", "", "", ""};

/* A file of the machine's disk, which set reads. */
static void with_file(const void *bytes, size_t len, void (*use)(const char *path)) {
  char path[] = "espctl-test-XXXXXX";
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, bytes, len), len);
  close(fd);
  use(path);
  unlink(path);
}

static const char npy[] = "\x93NUMPY\x01\x00\x37\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}"
                          "\x00\x00\x00\x00\x00\x00\xf8\x3f";

static void set_uploads(const char *path) {
  char line[128];
  snprintf(line, sizeof line, "set head.weight %s --dry-run --reset-state", path);
  fake.apply = (struct esp_apply_result){.epoch = 4, .matched = 1, .changes_len = 1, .changes = &change};
  run(line);
  assert_string_equal(result.err, "");
  assert_int_equal(result.exit_code, 0);
  assert_int_equal(fake.op.kind, ESP_OP_SET);
  assert_int_equal(fake.op.stage, 55);
  assert_true(fake.op.reset_state);
  assert_true(fake.apply_options.dry_run);
  assert_string_equal(fake.selection, "head.weight");
  assert_int_equal(fake.staged.dtype, ESP_F64);
  assert_int_equal(fake.staged.rank, 1);
  assert_int_equal(fake.staged.shape[0], 1);
  assert_int_equal(fake.staged.bytes, 8);
  assert_true(fake.staged_first == 1.5);
}

static void set_names_the_bad_file(const char *path) {
  char line[128];
  char expected[256];
  snprintf(line, sizeof line, "set head.weight %s", path);
  snprintf(expected, sizeof expected,
           "espctl: %s: the .npy file has 7 bytes of data; its shape [1] of f64 needs 8: it is cut off\n", path);
  assert_fails(line, 4, expected);
}

static void set_reads_npy(void **state) {
  (void)state;
  with_file(npy, sizeof npy - 1, set_uploads);
  with_file(npy, sizeof npy - 2, set_names_the_bad_file);
  assert_fails("set enc no/such/file.npy", 3, "espctl: cannot open no/such/file.npy: No such file or directory\n");
  run("set enc .");
  assert_int_equal(result.exit_code, 1);
  assert_non_null(strstr(result.err, "cannot read .: Is a directory"));
}

static void get_writes_npy(void **state) {
  (void)state;
  assert_run("get head.weight w.npy", "wrote head.weight, [1, 3] of f32, 12 B, to w.npy\n");
  size_t len;
  const char *bytes = esp_env_virtual_read(twin, "w.npy", &len);
  assert_int_equal(len, 128 + 12);
  assert_memory_equal(bytes + 128, "\3\3\3\3\3\3\3\3\3\3\3\3", 12);
  json_t *json = run_json("get enc.mean m.npy --json");
  assert_string_equal(json_string_value(json_object_get(json, "dtype")), "f64");
  assert_int_equal(json_array_size(json_object_get(json, "shape")), 0);
  json_decref(json);
  run("get head.weight -");
  assert_int_equal(result.exit_code, 0);
  assert_int_equal(result.out_len, 128 + 12);
  assert_memory_equal(result.out, "\x93NUMPY", 6);
  assert_fails("get nosuch w.npy", 3, "espctl: no leaf 'nosuch'\n");
  assert_fails("get head.weight /dev/null", 2,
               "espctl: /dev/null is no ordinary file; name one, or - for standard output\n");
  assert_fails("get head.weight - --json", 2,
               "espctl: standard output can't have both the tensor (-) and --json; name a file\n");
}

static void export_writes_every_leaf(void **state) {
  (void)state;
  assert_run("export m.safetensors", "wrote 4 leaves, 44 B, to m.safetensors\nall of commit 1210\n");
  assert_true(fake.consistent);
  assert_int_equal(fake.pulls, 1);
  size_t len;
  const char *bytes = esp_env_virtual_read(twin, "m.safetensors", &len);
  uint64_t header_len;
  memcpy(&header_len, bytes, sizeof header_len);
  json_t *header = json_loadb(bytes + 8, header_len, 0, NULL);
  assert_int_equal(json_object_size(header), 5);
  const json_t *metadata = json_object_get(header, "__metadata__");
  assert_string_equal(json_string_value(json_object_get(metadata, "format")), "pt");
  assert_string_equal(json_string_value(json_object_get(metadata, "version")), "1.2.3");
  assert_string_equal(json_string_value(json_object_get(metadata, "commit")), "1210");
  assert_string_equal(json_string_value(json_object_get(metadata, "epoch")), "4");
  assert_string_equal(json_string_value(json_object_get(metadata, "lineage")), "0000000000000abc");
  for (size_t i = 0; i < 4; i++) { /* each leaf's bytes are where the header says */
    const json_t *offsets = json_object_get(json_object_get(header, leaves[i].path), "data_offsets");
    json_int_t from = json_integer_value(json_array_get(offsets, 0));
    json_int_t to = json_integer_value(json_array_get(offsets, 1));
    assert_int_equal(to - from, leaves[i].bytes);
    for (json_int_t at = from; at < to; at++)
      assert_int_equal(bytes[8 + header_len + (size_t)at], i + 1);
  }
  json_decref(header);
}

static void piecewise_says_when_training_went_on(void **state) {
  (void)state;
  fake.commit_after = 1260;
  assert_run("export m.safetensors enc --piecewise",
             "wrote 4 leaves, 44 B, to m.safetensors\n"
             "training went on meanwhile: each tensor is whole, and of a commit from 1203 to 1260\n");
  assert_string_equal(fake.selection, "enc");
  assert_false(fake.consistent);
  json_t *json = run_json("export m.safetensors --json --piecewise");
  assert_int_equal(int_of(json, "commit"), 1203);
  assert_int_equal(int_of(json, "commit_after"), 1260);
  assert_int_equal(int_of(json, "bytes"), 44);
  assert_true(json_is_false(json_object_get(json, "consistent")));
  json_decref(json);
  size_t len;
  size_t piecewise_len;
  const void *bytes = esp_env_virtual_read(twin, "m.safetensors", &piecewise_len);
  assert_non_null(bytes);
  json = run_json("export whole --json");
  assert_int_equal(int_of(json, "commit"), 1210);
  assert_true(json_is_true(json_object_get(json, "consistent")));
  json_decref(json);
  const void *whole = esp_env_virtual_read(twin, "whole", &len);
  assert_int_equal(len, piecewise_len);
  assert_memory_equal((const char *)whole + len - 44, (const char *)bytes + len - 44, 44);
}

static void too_much_at_once_says_what_helps(void **state) {
  (void)state;
  fake.pull_code = ESP_RESOURCE_EXHAUSTED;
  assert_fails("export m", 8,
               "espctl: no pull\n"
               "espctl: --piecewise needs little memory, and the values may be of different commits\n");
  assert_fails("export m --piecewise", 8, "espctl: no pull\n");
  assert_int_equal(esp_env_virtual_files_len(twin), 0);
}

static enum esp_code another_lineage(struct esp_server_info *info, struct esp_status *st) {
  (void)st;
  info->lineage = 0xdef;
  return ESP_OK;
}

static void export_leaves_no_half_file(void **state) {
  (void)state;
  fake.lineage_after = 0xdef;
  assert_fails("export m", 4, "espctl: the server lost its state during the export; m was not written\n");
  assert_fails("export m --piecewise", 4, "espctl: the server lost its state during the export; m was not written\n");
  fake.lineage_after = 0xabc;
  fake.on_info = another_lineage; /* after the last piece */
  assert_fails("export m --piecewise", 4, "espctl: the server lost its state during the export; m was not written\n");
  fake.on_info = NULL;
  assert_fails("export /dev/null", 2, "espctl: /dev/null is no ordinary file; name one\n");
  assert_fails("export .", 2, "espctl: . is no ordinary file; name one\n");
  assert_fails("export m none", 3,
               "espctl: there is nothing to export: no worker has declared any leaf; m was not written\n");
  assert_fails("export -", 2, "espctl: export writes a file, not standard output; name one\n");
  assert_int_equal(esp_env_virtual_files_len(twin), 0);
  static const char *const lines[] = {"export m", "export m --piecewise"};
  for (int64_t n = 0; n < 1000; n++) {
    esp_env_virtual_fail_at(twin, n / 2);
    run(lines[n % 2]);
    if (!esp_env_virtual_has_failed(twin))
      break;
    assert_int_not_equal(result.exit_code, 0);
    assert_true(strlen(result.err) > 0);
    assert_int_equal(result.out_len, 0);
    assert_true(esp_env_virtual_files_len(twin) <= 1);
  }
  assert_int_equal(result.exit_code, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(set_reads_npy),
      TEST(get_writes_npy),
      TEST(export_writes_every_leaf),
      TEST(piecewise_says_when_training_went_on),
      TEST(too_much_at_once_says_what_helps),
      TEST(export_leaves_no_half_file),
  };
  return cmocka_run_group_tests_name("cli.files", tests, NULL, NULL);
}
