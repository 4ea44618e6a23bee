/* Tests of espctl's commands as an operator meets them: a line in; output, errors and exit code out. The client library
 * is replaced by the functions below, which answer what a test wants and remember what they were asked. The real one is
 * met by the integration tests. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "client/cli/cli.h"
#include "tests/support/env_virtual.h"
#include "tests/support/test.h"

/* ---- the client ---- */

struct esp_client {
  struct esp_client_options options; /* as it was opened */
};

static struct {
  enum esp_code code;            /* what every call fails with; ESP_OK: none does */
  const char *message;           /* of that failure */
  struct esp_apply_result apply; /* what esp_apply returns */
  uint64_t commit_after;         /* what esp_server_info returns */
  uint64_t lineage_after;
  bool reshaped;                     /* esp_get returns another shape than esp_describe */
  struct esp_client_options options; /* of the last open */
  struct esp_op op;                  /* of the last apply */
  struct esp_apply_options apply_options;
  char selection[64];       /* of the last describe or apply */
  struct esp_tensor staged; /* of the last stage, without its data */
  double staged_first;      /* its first element */
  unsigned open;            /* clients, descriptions, results not freed */
} fake;

static const uint8_t digest[16] = {0xde, 0xad};
static const struct esp_leaf_info leaves[] = {
    {.leaf = 1,
     .path = "enc.bias",
     .shape = {3},
     .rank = 1,
     .dtype = ESP_F32,
     .kind = ESP_TRAINED,
     .group = "default",
     .group_assigned = "",
     .tag = "",
     .tied_to = "",
     .frozen = true,
     .steps = 1200,
     .version = 7,
     .bytes = 12,
     .state_bytes = 24,
     .digest = {1, 2}},
    {.leaf = 2,
     .path = "enc.mean",
     .rank = 0,
     .dtype = ESP_F64,
     .kind = ESP_BUFFER,
     .group = "default",
     .group_assigned = "",
     .tag = "",
     .tied_to = "",
     .bytes = 8},
    {.leaf = 3,
     .path = "head.weight",
     .shape = {1, 3},
     .rank = 2,
     .dtype = ESP_F32,
     .kind = ESP_TRAINED,
     .group = "default",
     .group_assigned = "fast",
     .tag = "Linear",
     .tied_to = "",
     .steps = 9,
     .version = 9,
     .bytes = 12,
     .state_bytes = 24},
    {.leaf = 4,
     .path = "tied",
     .shape = {3},
     .rank = 1,
     .dtype = ESP_F32,
     .kind = ESP_TRAINED,
     .group = "default",
     .group_assigned = "",
     .tag = "",
     .tied_to = "enc.bias",
     .frozen = true,
     .steps = 1200,
     .version = 7,
     .bytes = 12,
     .state_bytes = 24},
};
static const struct esp_group_info groups[] = {{"default", "adam(lr=0.001)", 3}};

const char *esp_version(void) {
  return "1.2.3";
}

static enum esp_code answer(struct esp_status *st) {
  return fake.code == ESP_OK ? ESP_OK : esp_fail(st, fake.code, "%s", fake.message);
}

enum esp_code esp_client_open(const struct esp_client_options *options, esp_client **ret, struct esp_status *st) {
  struct esp_client *client = esp_calloc(1, sizeof *client);
  if (client == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory");
  fake.options = *options;
  *ret = client;
  return ESP_OK;
}

void esp_client_close(esp_client *client) {
  esp_free(client);
}

enum esp_code esp_ping(esp_client *client, struct esp_status *st) {
  assert_non_null(client);
  return answer(st);
}

enum esp_code esp_server_info(esp_client *client, struct esp_server_info *ret, struct esp_status *st) {
  assert_non_null(client);
  if (fake.code != ESP_OK)
    return answer(st);
  *ret = (struct esp_server_info){.version = "1.2.4",
                                  .mode = "async",
                                  .isa = "avx2",
                                  .lineage = fake.lineage_after,
                                  .epoch = 4,
                                  .commit = fake.commit_after,
                                  .uptime_ms = 11100000,
                                  .leaves = 4,
                                  .parameters = 3,
                                  .elements = 7,
                                  .frozen = 2,
                                  .sessions = 2,
                                  .threads = 8,
                                  .memory_parameters = 1572864,
                                  .memory_state = 3145728,
                                  .memory_staged_max = UINT64_C(4) << 30,
                                  .pushes_applied = 1200,
                                  .pushes_refused = 3,
                                  .pulls = 77,
                                  .bytes_pushed = 2048,
                                  .bytes_pulled = 1};
  return ESP_OK;
}

enum esp_code esp_describe(esp_client *client, const char *selection, bool with_digest, struct esp_description **ret,
                           struct esp_status *st) {
  assert_non_null(client);
  snprintf(fake.selection, sizeof fake.selection, "%s", selection != NULL ? selection : "(all)");
  if (fake.code != ESP_OK)
    return answer(st);
  struct esp_description *description = esp_calloc(1, sizeof *description);
  if (description == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory");
  *description = (struct esp_description){.epoch = 4,
                                          .commit = 1203,
                                          .lineage = 0xabc,
                                          .leaves_len = 4,
                                          .leaves = leaves,
                                          .groups_len = 1,
                                          .groups = groups};
  if (with_digest)
    memcpy(description->digest, digest, sizeof digest);
  if (selection != NULL && strcmp(selection, "none") == 0)
    description->leaves_len = 0;
  *ret = description;
  return ESP_OK;
}

void esp_description_free(struct esp_description *description) {
  esp_free(description);
}

enum esp_code esp_apply(esp_client *client, const struct esp_op *ops, size_t len,
                        const struct esp_apply_options *options, struct esp_apply_result **ret, struct esp_status *st) {
  assert_non_null(client);
  assert_int_equal(len, 1);
  fake.op = ops[0];
  fake.apply_options = *options;
  snprintf(fake.selection, sizeof fake.selection, "%s", ops[0].selection);
  if (fake.code != ESP_OK)
    return answer(st);
  struct esp_apply_result *result = esp_malloc(sizeof *result);
  if (result == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory");
  *result = fake.apply;
  result->dry_run = options->dry_run;
  *ret = result;
  return ESP_OK;
}

void esp_apply_result_free(struct esp_apply_result *result) {
  esp_free(result);
}

enum esp_code esp_stage(esp_client *client, const char *path, const struct esp_tensor *tensor, uint64_t *ret_stage,
                        struct esp_status *st) {
  assert_non_null(client);
  assert_non_null(path);
  fake.staged = *tensor;
  memcpy(&fake.staged_first, tensor->data, sizeof fake.staged_first);
  *ret_stage = 55;
  return answer(st);
}

enum esp_code esp_get(esp_client *client, const char *path, struct esp_tensor *ret, struct esp_status *st) {
  assert_non_null(client);
  for (size_t i = 0; fake.code == ESP_OK && i < sizeof leaves / sizeof leaves[0]; i++) {
    if (strcmp(leaves[i].path, path) != 0)
      continue;
    struct esp_tensor tensor = {.dtype = leaves[i].dtype, .rank = leaves[i].rank, .bytes = leaves[i].bytes};
    memcpy(tensor.shape, leaves[i].shape, sizeof tensor.shape);
    tensor.data = esp_calloc(1, tensor.bytes);
    if (tensor.data == NULL)
      return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory");
    memset(tensor.data, (int)i + 1, tensor.bytes);
    tensor.shape[0] += fake.reshaped;
    *ret = tensor;
    return ESP_OK;
  }
  return fake.code == ESP_OK ? esp_fail(st, ESP_NOT_FOUND, "no leaf '%s'", path) : answer(st);
}

void esp_memory_free(void *memory) {
  esp_free(memory);
}

/* ---- running a line ---- */

/* What a run left behind. */
static struct {
  int exit_code;
  char *out; /* of the C library */
  size_t out_len;
  char *err;
} result;
static struct esp_env_virtual *twin;

static void forget_result(void) {
  free(result.out);
  free(result.err);
  result.out = NULL;
  result.err = NULL;
}

static void run(const char *line) {
  static char words[1024];
  char *argv[16] = {(char *)(uintptr_t) "espctl"};
  int argc = 1;
  size_t err_len = 0;
  forget_result();
  snprintf(words, sizeof words, "%s", line);
  char *rest = words;
  for (char *word; (word = strsep(&rest, " ")) != NULL && argc < 15;)
    argv[argc++] = word;
  FILE *out = open_memstream(&result.out, &result.out_len);
  FILE *err = open_memstream(&result.err, &err_len);
  result.exit_code = esp_cli_main(argc, argv, esp_env_virtual_env(twin), out, err);
  fclose(out);
  fclose(err);
}

static void assert_run(const char *line, const char *out) {
  run(line);
  assert_string_equal(result.err, "");
  assert_string_equal(result.out, out);
  assert_int_equal(result.exit_code, 0);
}

static void assert_fails(const char *line, int exit_code, const char *err) {
  run(line);
  assert_string_equal(result.err, err);
  assert_int_equal(result.exit_code, exit_code);
}

static json_t *run_json(const char *line) {
  run(line);
  assert_string_equal(result.err, "");
  assert_int_equal(result.exit_code, 0);
  json_error_t error;
  json_t *value = json_loads(result.out, JSON_REJECT_DUPLICATES, &error);
  if (value == NULL)
    fail_msg("%s: %s in %s", line, error.text, result.out);
  assert_true(json_is_object(value));
  return value;
}

static json_int_t int_of(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  if (!json_is_integer(value))
    fail_msg("no integer '%s'", key);
  return json_integer_value(value);
}

static int setup(void **state) {
  json_set_alloc_funcs(esp_malloc, esp_free);
  unsetenv("ESPALIER_SERVER");
  memset(&fake, 0, sizeof fake);
  fake.commit_after = 1203;
  fake.lineage_after = 0xabc;
  int failed = esp_test_setup(state);
  twin = esp_env_virtual_new(1);
  return failed != 0 || twin == NULL;
}

static int teardown(void **state) {
  forget_result();
  esp_env_virtual_free(twin);
  return esp_test_teardown(state);
}

/* ---- looking ---- */

static void status_is_read_at_a_glance(void **state) {
  (void)state;
  assert_run("status", "server   127.0.0.1:7433, version 1.2.4, up 3h 5m, 8 threads, isa avx2\n"
                       "tree     4 leaves (2 frozen), 3 parameters, 7 elements\n"
                       "order    epoch 4, commit 1203, lineage 0000000000000abc, mode async\n"
                       "workers  2\n"
                       "pushes   1200 applied, 3 refused, 0 not finite; 2.0 KiB received\n"
                       "pulls    77; 1 B sent\n"
                       "memory   values 1.5 MiB, optimizer state 3.0 MiB, staged 0 B of at most 4.0 GiB, "
                       "copy-on-write 0 B\n");
  json_t *json = run_json("status --json --server here:1");
  assert_string_equal(json_string_value(json_object_get(json, "server")), "here:1");
  assert_string_equal(json_string_value(json_object_get(json, "lineage")), "0000000000000abc");
  assert_int_equal(int_of(json, "commit"), 1203);
  assert_int_equal(int_of(json_object_get(json, "memory"), "state"), 3145728);
  assert_int_equal(int_of(json_object_get(json, "pushes"), "refused"), 3);
  json_decref(json);
}

static void tree_is_a_table_with_totals(void **state) {
  (void)state;
  assert_run("tree", "PATH         SHAPE   DTYPE  GROUP    FROZEN  STEPS  NOTE\n"
                     "enc.bias     [3]     f32    default  yes      1200\n"
                     "enc.mean     []      f64    default  -           -  buffer\n"
                     "head.weight  [1, 3]  f32    default  -           9  no group is called fast\n"
                     "tied         [3]     f32    default  yes      1200  tied to enc.bias\n"
                     "\n"
                     "GROUP    PARAMETERS  OPTIMIZER\n"
                     "default           3  adam(lr=0.001)\n"
                     "\n"
                     "4 leaves, 2 frozen, 1 tied; values 32 B, optimizer state 48 B; epoch 4, commit 1203\n");
  assert_string_equal(fake.selection, "(all)");
  run("tree enc.**");
  assert_string_equal(fake.selection, "enc.**");
  assert_run("tree none", "no leaves: no worker has declared any yet (epoch 4)\n");
}

static void tree_has_all_in_json(void **state) {
  (void)state;
  json_t *json = run_json("tree --json");
  assert_int_equal(int_of(json, "epoch"), 4);
  const json_t *list = json_object_get(json, "leaves");
  assert_int_equal(json_array_size(list), 4);
  const json_t *leaf = json_array_get(list, 2);
  assert_string_equal(json_string_value(json_object_get(leaf, "path")), "head.weight");
  assert_string_equal(json_string_value(json_object_get(leaf, "group_assigned")), "fast");
  assert_string_equal(json_string_value(json_object_get(leaf, "kind")), "trained");
  assert_int_equal(json_integer_value(json_array_get(json_object_get(leaf, "shape"), 1)), 3);
  assert_true(json_is_false(json_object_get(leaf, "frozen")));
  assert_int_equal(int_of(leaf, "steps"), 9);
  const json_t *group = json_array_get(json_object_get(json, "groups"), 0);
  assert_string_equal(json_string_value(json_object_get(group, "optimizer")), "adam(lr=0.001)");
  json_decref(json);
  json = run_json("tree none --json");
  assert_int_equal(json_array_size(json_object_get(json, "leaves")), 0);
  json_decref(json);
}

static void digest_is_a_line_a_leaf(void **state) {
  (void)state;
  assert_run("digest enc", "01020000000000000000000000000000  enc.bias\n"
                           "00000000000000000000000000000000  enc.mean\n"
                           "00000000000000000000000000000000  head.weight\n"
                           "00000000000000000000000000000000  tied\n"
                           "dead0000000000000000000000000000  <all>  at commit 1203\n");
  json_t *json = run_json("digest --json");
  assert_string_equal(json_string_value(json_object_get(json, "digest")), "dead0000000000000000000000000000");
  const json_t *leaf = json_array_get(json_object_get(json, "leaves"), 0);
  assert_string_equal(json_string_value(json_object_get(leaf, "digest")), "01020000000000000000000000000000");
  json_decref(json);
}

static void local_commands_open_no_client(void **state) {
  (void)state;
  assert_run("version", "espctl 1.2.3\n");
  assert_run("--version", "espctl 1.2.3\n");
  json_t *json = run_json("version --json");
  assert_string_equal(json_string_value(json_object_get(json, "version")), "1.2.3");
  json_decref(json);
  run("help");
  assert_int_equal(result.exit_code, 0);
  assert_null(fake.options.target);
}

static void ping_waits_only_when_told(void **state) {
  (void)state;
  assert_run("ping", "127.0.0.1:7433 answered after 0ms\n");
  assert_int_equal(fake.options.attempts_max, 5);
  assert_int_equal(fake.options.deadline_ms, 30000);
  assert_run("ping --timeout 2m", "127.0.0.1:7433 answered after 0ms\n");
  assert_int_equal(fake.options.attempts_max, 0);
  assert_int_equal(fake.options.deadline_ms, 120000);
}

static void assert_fits_a_terminal(const char *text) {
  for (const char *line = text; *line != '\0';) {
    size_t len = strcspn(line, "\n");
    if (len > 80)
      fail_msg("too long for a terminal: %.*s", (int)len, line);
    line += len + (line[len] == '\n');
  }
}

/* Help comes from the tables: every command and option is in it. */
static void help_lists_everything(void **state) {
  (void)state;
  static const char *const options[] = {"--server ADDR", "--json",       "--timeout TIME",
                                        "--dry-run",     "--if-epoch N", "--max-leaves N",
                                        "--reset-state", "--help",       "--version"};
  size_t len;
  const struct esp_cli_command *commands = esp_cli_commands(&len);
  for (size_t i = 0; i < len; i++) {
    char line[64];
    run("help");
    assert_non_null(strstr(result.out, commands[i].summary));
    assert_fits_a_terminal(result.out);
    snprintf(line, sizeof line, "help %s", commands[i].name);
    run(line);
    assert_non_null(strstr(result.out, commands[i].help));
    assert_fits_a_terminal(result.out);
    snprintf(line, sizeof line, "%s --help", commands[i].name);
    char *help = strdup(result.out);
    run(line);
    assert_string_equal(result.out, help);
    free(help);
  }
  run("help");
  for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
    assert_non_null(strstr(result.out, options[i]));
  run("help thaw");
  assert_non_null(strstr(result.out, "--reset-state"));
  run("help freeze");
  assert_null(strstr(result.out, "--reset-state"));
  assert_fails("help nosuch", 2, "espctl: there is no command 'nosuch'; espctl help lists them\n");
}

static void no_command_is_a_wrong_line(void **state) {
  (void)state;
  run("--json");
  assert_int_equal(result.exit_code, 2);
  assert_int_equal(result.out_len, 0);
  assert_non_null(strstr(result.err, "usage: espctl"));
}

/* ---- changing ---- */

static const struct esp_apply_change changes[] = {{1, "enc.bias", "frozen", "no", "yes", ""},
                                                  {4, "tied", "frozen", "no", "yes", "enc.bias"},
                                                  {3, "head.weight", "value", "", "", ""}};

static void a_change_is_shown_with_its_reasons(void **state) {
  (void)state;
  const char *const notes[] = {"group fast is not defined"};
  fake.apply = (struct esp_apply_result){
      .epoch = 5, .commit = 1204, .matched = 1, .changes_len = 3, .changes = changes, .notes_len = 1, .notes = notes};
  assert_run("freeze enc", "enc.bias     frozen  no -> yes\n"
                           "tied         frozen  no -> yes  because tied to enc.bias\n"
                           "head.weight  value\n"
                           "note: group fast is not defined\n"
                           "3 changes, 1 leaf matched; commit 1204, epoch 5\n");
  assert_int_equal(fake.op.kind, ESP_OP_FREEZE);
  assert_string_equal(fake.selection, "enc");
  assert_false(fake.apply_options.dry_run);
  json_t *json = run_json("freeze enc --json");
  assert_int_equal(int_of(json, "epoch"), 5);
  assert_int_equal(int_of(json, "matched"), 1);
  const json_t *change = json_array_get(json_object_get(json, "changes"), 1);
  assert_string_equal(json_string_value(json_object_get(change, "because")), "enc.bias");
  assert_string_equal(json_string_value(json_array_get(json_object_get(json, "notes"), 0)), notes[0]);
  json_decref(json);
}

static void a_dry_run_says_how_to_do_it(void **state) {
  (void)state;
  fake.apply = (struct esp_apply_result){.epoch = 4, .matched = 2, .changes_len = 1, .changes = changes};
  assert_run("thaw enc --dry-run --reset-state --max-leaves 9",
             "enc.bias  frozen  no -> yes\n"
             "1 change, 2 leaves matched; this was a dry run. To make exactly this change, run it with --if-epoch 4\n");
  assert_int_equal(fake.op.kind, ESP_OP_THAW);
  assert_true(fake.op.reset_state);
  assert_true(fake.apply_options.dry_run);
  assert_int_equal(fake.apply_options.max_leaves, 9);
  run("thaw enc --if-epoch 4");
  assert_int_equal(fake.apply_options.if_epoch, 4);
  assert_false(fake.op.reset_state);
}

static void nothing_to_change_is_no_error(void **state) {
  (void)state;
  fake.apply = (struct esp_apply_result){.epoch = 4, .matched = 2};
  assert_run("freeze enc", "nothing to change: 2 leaves matched and are so already (epoch 4)\n");
}

static void refusals_say_what_to_do(void **state) {
  (void)state;
  fake.code = ESP_NOT_FOUND;
  fake.message = "nothing matches 'nosuch'; nearest: enc.bias";
  assert_fails("freeze nosuch", 3, "espctl: nothing matches 'nosuch'; nearest: enc.bias\n");
  assert_fails("freeze nosuch --json", 3, "espctl: nothing matches 'nosuch'; nearest: enc.bias\n");
  assert_int_equal(result.out_len, 0);
  fake.code = ESP_ABORTED;
  fake.message = "the tree is at epoch 5, not 4";
  assert_fails("freeze enc --if-epoch 4", 4,
               "espctl: the tree is at epoch 5, not 4\n"
               "espctl: look at what it would change now with --dry-run, which prints the epoch to use\n");
  fake.code = ESP_UNAVAILABLE;
  fake.message = "nothing listens";
  assert_fails("tree", 5, "espctl: nothing listens\n");
  assert_fails("freeze enc", 5,
               "espctl: nothing listens\n"
               "espctl: nothing confirms the change: once the server answers look with espctl tree, or run it again\n");
  fake.code = ESP_UNIMPLEMENTED;
  fake.message = "";
  assert_fails("thaw enc", 6, "espctl: UNIMPLEMENTED\n");
}

/* ---- files ---- */

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
  fake.apply = (struct esp_apply_result){.epoch = 4, .matched = 1, .changes_len = 1, .changes = changes + 2};
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
  assert_run("export m.safetensors", "wrote 4 leaves, 44 B, to m.safetensors\nall of commit 1203\n");
  size_t len;
  const char *bytes = esp_env_virtual_read(twin, "m.safetensors", &len);
  uint64_t header_len;
  memcpy(&header_len, bytes, sizeof header_len);
  json_t *header = json_loadb(bytes + 8, header_len, 0, NULL);
  assert_int_equal(json_object_size(header), 5);
  const json_t *metadata = json_object_get(header, "__metadata__");
  assert_string_equal(json_string_value(json_object_get(metadata, "format")), "pt");
  assert_string_equal(json_string_value(json_object_get(metadata, "version")), "1.2.3");
  assert_string_equal(json_string_value(json_object_get(metadata, "commit")), "1203");
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

static void export_says_when_training_went_on(void **state) {
  (void)state;
  fake.commit_after = 1260;
  assert_run("export m.safetensors enc",
             "wrote 4 leaves, 44 B, to m.safetensors\n"
             "training went on meanwhile: each tensor is whole, and of a commit from 1203 to 1260\n");
  assert_string_equal(fake.selection, "enc");
  json_t *json = run_json("export m.safetensors --json");
  assert_int_equal(int_of(json, "commit_after"), 1260);
  assert_int_equal(int_of(json, "bytes"), 44);
  assert_true(json_is_false(json_object_get(json, "consistent")));
  json_decref(json);
}

static void export_leaves_no_half_file(void **state) {
  (void)state;
  fake.lineage_after = 0xdef;
  assert_fails("export m", 4, "espctl: the server lost its state during the export; m was not written\n");
  fake.lineage_after = 0xabc;
  fake.reshaped = true;
  assert_fails("export m", 4, "espctl: enc.bias changed its shape or dtype during the export; run it again\n");
  fake.reshaped = false;
  assert_fails("export /dev/null", 2, "espctl: /dev/null is no ordinary file; name one\n");
  assert_fails("export .", 2, "espctl: . is no ordinary file; name one\n");
  assert_fails("export m none", 3,
               "espctl: there is nothing to export: no worker has declared any leaf; m was not written\n");
  assert_fails("export -", 2, "espctl: export writes a file, not standard output; name one\n");
  assert_int_equal(esp_env_virtual_files_len(twin), 0);
  for (int64_t n = 0;; n++) {
    esp_env_virtual_fail_at(twin, n);
    run("export m");
    if (!esp_env_virtual_has_failed(twin))
      break;
    assert_int_not_equal(result.exit_code, 0);
    assert_true(strlen(result.err) > 0);
    assert_int_equal(result.out_len, 0);
    assert_true(esp_env_virtual_files_len(twin) <= 1);
  }
  assert_int_equal(result.exit_code, 0);
}

/* ---- when things break ---- */

static void a_full_disk_under_the_output_is_an_error(void **state) {
  (void)state;
  FILE *out = fopen("/dev/full", "w");
  size_t err_len;
  char *const argv[] = {(char *)(uintptr_t) "espctl", (char *)(uintptr_t) "tree"};
  assert_non_null(out);
  forget_result();
  FILE *err = open_memstream(&result.err, &err_len);
  assert_int_equal(esp_cli_main(2, argv, esp_env_virtual_env(twin), out, err), 1);
  fclose(err);
  fclose(out);
  assert_string_equal(result.err, "espctl: cannot write the result: No space left on device\n");
}

/* Without memory a command fails and says so; it never prints something incomplete and succeeds. */
static void a_failed_allocation_is_never_a_success(void **state) {
  (void)state;
  fake.apply = (struct esp_apply_result){.epoch = 5, .commit = 6, .matched = 3, .changes_len = 3, .changes = changes};
  const char *const lines[] = {"status --json",     "tree --json", "digest --json",  "freeze enc --json",
                               "get head.weight w", "export m",    "export m --json"};
  for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
    run(lines[i]);
    char *whole = strdup(result.out);
    for (int64_t n = 0; n < 10000; n++) {
      esp_alloc_fail_at(n);
      run(lines[i]);
      esp_alloc_fail_at(-1);
      if (result.exit_code != 0) {
        assert_true(strlen(result.err) > 0);
        continue;
      }
      assert_string_equal(result.out, whole);
      if (n > 400) /* more than any of these allocates */
        break;
    }
    assert_int_equal(result.exit_code, 0);
    free(whole);
  }
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(status_is_read_at_a_glance),
      TEST(tree_is_a_table_with_totals),
      TEST(tree_has_all_in_json),
      TEST(digest_is_a_line_a_leaf),
      TEST(local_commands_open_no_client),
      TEST(ping_waits_only_when_told),
      TEST(help_lists_everything),
      TEST(no_command_is_a_wrong_line),
      TEST(a_change_is_shown_with_its_reasons),
      TEST(a_dry_run_says_how_to_do_it),
      TEST(nothing_to_change_is_no_error),
      TEST(refusals_say_what_to_do),
      TEST(set_reads_npy),
      TEST(get_writes_npy),
      TEST(export_writes_every_leaf),
      TEST(export_says_when_training_went_on),
      TEST(export_leaves_no_half_file),
      TEST(a_full_disk_under_the_output_is_an_error),
      TEST(a_failed_allocation_is_never_a_success),
  };
  return cmocka_run_group_tests_name("cli.commands", tests, NULL, NULL);
}
