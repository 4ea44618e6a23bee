/* espctl's commands as an operator meets them: a line in; output, errors and exit code out. The client library is
 * replaced by the functions below, which answer what a test wants and remember what they were asked. The real one is
 * met by the integration tests. */
#ifndef ESP_CLI_FIXTURE_H
#define ESP_CLI_FIXTURE_H

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "client/cli/cli.h"
#include "tests/support/env_virtual.h"
#include "tests/support/test.h"

/* ---- the client ---- */

/* What esp_watch_next answers. */
struct fake_event {
  enum esp_code code;
  struct esp_layout_event event; /* with ESP_OK */
};

struct esp_client {
  struct esp_client_options options; /* as it was opened */
};

static struct {
  enum esp_code code;            /* what every call fails with; ESP_OK: none does */
  const char *message;           /* of that failure */
  struct esp_apply_result apply; /* what esp_apply returns */
  uint64_t commit_after;         /* what esp_server_info returns */
  uint64_t lineage_after;
  enum esp_code (*on_info)(struct esp_server_info *info, struct esp_status *st); /* has the last word; NULL: none */
  const struct fake_event *events;                                               /* what a watch is to bring */
  size_t events_len;                                                             /* of events */
  size_t events_at;                                                              /* how many it has brought */
  uint64_t watched_since;            /* the epoch of the last esp_watch_open */
  unsigned pulls;                    /* calls of esp_pull_with */
  bool consistent;                   /* the last of them */
  enum esp_code pull_code;           /* what it alone fails with */
  unsigned describes;                /* calls of esp_describe */
  enum esp_code workers_code;        /* what esp_workers_list alone fails with */
  bool no_workers;                   /* esp_workers_list returns none */
  struct esp_client_options options; /* of the last open */
  char target[64];                   /* its target */
  struct esp_op op;                  /* of the last apply; of several the first */
  char said[1024];                   /* what all of them were, one a line */
  unsigned applies;                  /* calls of esp_apply */
  unsigned dry_runs;                 /* those of them that were dry runs */
  uint64_t matches;                  /* leaves that operations match, beyond a bound: refused; 0: as `apply` says */
  const char *group;                 /* the only one that there is, but for `default`; NULL: none */
  char reason[64];                   /* of the last apply */
  struct esp_history history;        /* what esp_history_list returns */
  struct esp_timers timers;          /* what esp_timers_list returns */
  uint64_t since_epoch;              /* it was asked for */
  uint64_t limit;                    /* likewise */
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
static const struct esp_group_info groups[] = {{"default", "adam(lr=0.001)", 3}, {"slow", "sgd(lr=0.1)", 0}};
static const struct esp_worker_info workers[] = {
    {.session = 7, .name = "gpu-1", .peer = "ipv4:10.0.0.1:99", .live = true, .pushes = 1000, .last_seen_ms = 40},
    {.session = UINT64_MAX - 1,
     .name = "",
     .peer = "",
     .last_sequence = 300,
     .in_flight = 2,
     .pushes = 200,
     .last_seen_ms = 65000,
     .staleness = 31}};

const char *esp_version(void) {
  return "1.2.3";
}

static inline enum esp_code answer(struct esp_status *st) {
  return fake.code == ESP_OK ? ESP_OK : esp_fail(st, fake.code, "%s", fake.message);
}

/* Answers with a copy of this, for the caller to free; ret is a pointer to a pointer to its type. */
static inline enum esp_code answer_copy(const void *from, size_t size, void *ret, struct esp_status *st) {
  if (fake.code != ESP_OK)
    return answer(st);
  void *copy = esp_malloc(size);
  if (copy == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory");
  memcpy(copy, from, size);
  memcpy(ret, &copy, sizeof copy);
  return ESP_OK;
}

enum esp_code esp_client_open(const struct esp_client_options *options, esp_client **ret, struct esp_status *st) {
  struct esp_client *client = esp_calloc(1, sizeof *client);
  if (client == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory");
  fake.options = *options;
  snprintf(fake.target, sizeof fake.target, "%s", options->target);
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
                                  .memory_staged = UINT64_C(1) << 30,
                                  .memory_staged_max = UINT64_C(4) << 30,
                                  .memory_copy_on_write = 4096,
                                  .memory_copy_on_write_max = UINT64_C(1) << 30,
                                  .memory_spare = 8192,
                                  .memory_resident = UINT64_C(5) << 20,
                                  .pushes_applied = 1200,
                                  .pushes_refused = 3,
                                  .pulls = 77,
                                  .pulls_active = 1,
                                  .bytes_pushed = 2048,
                                  .bytes_pulled = 1,
                                  .connections = 3,
                                  .connections_max = 1000,
                                  .connections_refused = 2,
                                  .streams = 9,
                                  .in_flight = 4,
                                  .in_flight_max = 640,
                                  .watches = 5};
  return fake.on_info != NULL ? fake.on_info(ret, st) : ESP_OK;
}

enum esp_code esp_describe(esp_client *client, const char *selection, bool with_digest, struct esp_description **ret,
                           struct esp_status *st) {
  assert_non_null(client);
  snprintf(fake.selection, sizeof fake.selection, "%s", selection != NULL ? selection : "(all)");
  fake.describes++;
  struct esp_description description = {.epoch = 4,
                                        .commit = 1203,
                                        .lineage = 0xabc,
                                        .leaves_len = 4,
                                        .leaves = leaves,
                                        .groups_len = 2,
                                        .groups = groups};
  if (with_digest)
    memcpy(description.digest, digest, sizeof digest);
  if (selection != NULL && strcmp(selection, "none") == 0)
    description.leaves_len = 0;
  return answer_copy(&description, sizeof description, ret, st);
}

void esp_description_free(struct esp_description *description) {
  esp_free(description);
}

enum esp_code esp_workers_list(esp_client *client, struct esp_workers **ret, struct esp_status *st) {
  assert_non_null(client);
  if (fake.code == ESP_OK && fake.workers_code != ESP_OK)
    return esp_fail(st, fake.workers_code, "no workers");
  const struct esp_workers list = {.len = fake.no_workers ? 0 : 2, .workers = workers};
  return answer_copy(&list, sizeof list, ret, st);
}

void esp_workers_free(struct esp_workers *list) {
  esp_free(list);
}

/* A watch that brings fake.events, one after the other. */
struct esp_watch {
  struct esp_layout_event current;
};

enum esp_code esp_watch_open(esp_client *client, uint64_t since_epoch, esp_layout_callback callback, void *data,
                             esp_watch **ret, struct esp_status *st) {
  assert_non_null(client);
  assert_null(callback);
  (void)data;
  fake.watched_since = since_epoch;
  struct esp_watch *watch = esp_malloc(sizeof *watch);
  if (watch == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory");
  *ret = watch;
  return ESP_OK;
}

enum esp_code esp_watch_next(esp_watch *watch, uint64_t timeout_ms, const struct esp_layout_event **ret,
                             struct esp_status *st) {
  (void)timeout_ms;
  assert_true(fake.events_at < fake.events_len); /* it has what it was to print, and should have ended */
  const struct fake_event *next = &fake.events[fake.events_at++];
  if (next->code != ESP_OK)
    return esp_fail(st, next->code, "the watch has ended");
  watch->current = next->event;
  *ret = &watch->current;
  return ESP_OK;
}

void esp_watch_close(esp_watch *watch) {
  esp_free(watch);
}

static inline void say(const char *format, ...) ESP_PRINTF(1, 2);
static inline void say(const char *format, ...) {
  size_t len = strlen(fake.said);
  va_list args;
  va_start(args, format);
  vsnprintf(fake.said + len, sizeof fake.said - len, format, args);
  va_end(args);
}

/* Everything that an operation says, in words of its own. */
static inline void say_op(const struct esp_op *op) {
  static const char *const kinds[] = {"FREEZE",  "THAW",   "SET",    "DETACH", "ATTACH", "TIE",    "UNTIE",
                                      "REGROUP", "ADJUST", "COPY",   "RENAME", "ADD",    "REMOVE", "REINIT",
                                      "RESET",   "DEFINE", "DELETE", "NAME",   "UNDO",   "CANCEL"};
  say("%s", kinds[op->kind]);
  if (op->name != NULL && op->name[0] != '\0')
    say(" name:%s", op->name);
  if (op->selection != NULL && op->selection[0] != '\0')
    say(" %s", op->selection);
  if (op->to != NULL && op->to[0] != '\0')
    say(" to:%s", op->to);
  say("%s%s%s", op->transposed ? " transposed" : "", op->mean ? " mean" : "", op->reset_state ? " reset" : "");
  if (op->stage != 0)
    say(" stage:%u", (unsigned)op->stage);
  if (op->epoch != 0)
    say(" epoch:%u", (unsigned)op->epoch);
  if (op->at_commit != 0)
    say(" at:%u", (unsigned)op->at_commit);
  if (op->until_commit != 0)
    say(" until:%u", (unsigned)op->until_commit);
  if (op->for_ms != 0)
    say(" for:%u", (unsigned)op->for_ms);
  if (op->one_by_one || op->every != 0)
    say(" gradual:%d,%u", op->one_by_one, (unsigned)op->every);
  if (op->timer != 0)
    say(" timer:%u", (unsigned)op->timer);
  if (op->init != ESP_ZEROS)
    say(" init:%d,%g,%g,%u", (int)op->init, op->a, op->b, (unsigned)op->seed);
  for (size_t i = 0; i < op->hypers_len; i++)
    say(" %s=%s", op->hypers[i].name, op->hypers[i].value);
  if (op->leaf != NULL)
    say(" leaf:%s,%u,%u,%u,%d,%d,%s,%s,%s,%d,%d,%d", op->leaf->path, op->leaf->rank, (unsigned)op->leaf->shape[0],
        (unsigned)op->leaf->shape[1], (int)op->leaf->dtype, (int)op->leaf->kind, op->leaf->tag, op->leaf->group,
        op->leaf->alias_of, op->leaf->transposed, op->leaf->frozen, op->leaf->detached);
  say("\n");
}

/* As the server answers: a refusal of too many leaves, of a group that is not there, or what the test wants. */
static inline enum esp_code check_apply(const struct esp_op *op, const struct esp_apply_options *options,
                                        struct esp_status *st) {
  if (fake.code != ESP_OK)
    return answer(st);
  bool is_there = op->name != NULL && fake.group != NULL && strcmp(op->name, fake.group) == 0;
  if (op->kind == ESP_OP_DELETE_GROUP && strcmp(op->name, "default") == 0)
    return esp_fail(st, ESP_FAILED_PRECONDITION, "default can't be deleted");
  if (op->kind == ESP_OP_DELETE_GROUP && !is_there)
    return esp_fail(st, ESP_NOT_FOUND, "no group %s", op->name);
  if (options->max_leaves != 0 && fake.matches > options->max_leaves)
    return esp_fail(st, ESP_FAILED_PRECONDITION, "too many leaves");
  return ESP_OK;
}

enum esp_code esp_apply(esp_client *client, const struct esp_op *ops, size_t len,
                        const struct esp_apply_options *options, struct esp_apply_result **ret, struct esp_status *st) {
  assert_non_null(client);
  fake.op = ops[0];
  fake.apply_options = *options;
  fake.applies++;
  fake.dry_runs += options->dry_run;
  fake.said[0] = '\0';
  for (size_t i = 0; i < len; i++)
    say_op(&ops[i]);
  snprintf(fake.selection, sizeof fake.selection, "%s", ops[0].selection != NULL ? ops[0].selection : "");
  snprintf(fake.reason, sizeof fake.reason, "%s", options->reason != NULL ? options->reason : "(none)");
  enum esp_code code = check_apply(&ops[0], options, st);
  if (code != ESP_OK || ret == NULL)
    return code;
  struct esp_apply_result result = fake.apply;
  result.dry_run = options->dry_run;
  result.matched = fake.matches != 0 ? fake.matches : result.matched;
  return answer_copy(&result, sizeof result, ret, st);
}

void esp_apply_result_free(struct esp_apply_result *result) {
  esp_free(result);
}

enum esp_code esp_history_list(esp_client *client, uint64_t since_epoch, uint64_t limit, struct esp_history **ret,
                               struct esp_status *st) {
  assert_non_null(client);
  fake.since_epoch = since_epoch;
  fake.limit = limit;
  return answer_copy(&fake.history, sizeof fake.history, ret, st);
}

void esp_history_free(struct esp_history *history) {
  esp_free(history);
}

enum esp_code esp_timers_list(esp_client *client, struct esp_timers **ret, struct esp_status *st) {
  assert_non_null(client);
  return answer_copy(&fake.timers, sizeof fake.timers, ret, st);
}

void esp_timers_free(struct esp_timers *timers) {
  esp_free(timers);
}

enum esp_code esp_explain(esp_client *client, const char *selection, struct esp_explanation **ret,
                          struct esp_status *st) {
  static const struct esp_leaf_fact facts[] = {{"frozen", "yes", "frozen by ann: it\x1b[2J learns", 4},
                                               {"steps", "12\n00", "", 0}};
  static const struct esp_leaf_explanation list[] = {{.leaf = 1, .path = "enc.bias", .facts_len = 2, .facts = facts},
                                                     {.leaf = 2, .path = "enc.w", .facts_len = 1, .facts = facts + 1}};
  static const struct esp_explanation all = {.epoch = 4, .commit = 9, .lineage = 10, .len = 2, .leaves = list};
  assert_non_null(client);
  snprintf(fake.selection, sizeof fake.selection, "%s", selection);
  return answer_copy(&all, sizeof all, ret, st);
}

void esp_explanation_free(struct esp_explanation *explanation) {
  esp_free(explanation);
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
    *ret = tensor;
    return ESP_OK;
  }
  return fake.code == ESP_OK ? esp_fail(st, ESP_NOT_FOUND, "no leaf '%s'", path) : answer(st);
}

enum esp_code esp_find(esp_client *client, const char *const *paths, size_t len, esp_leaf_id *ret_leaves,
                       struct esp_status *st) {
  assert_non_null(client);
  for (size_t i = 0; i < len; i++) {
    assert_string_equal(paths[i], leaves[i].path);
    ret_leaves[i] = leaves[i].leaf;
  }
  return answer(st);
}

/* Each leaf's bytes are its id. */
enum esp_code esp_pull_with(esp_client *client, const struct esp_weight *weights, size_t len,
                            const struct esp_pull_options *options, struct esp_pull_result *ret,
                            struct esp_status *st) {
  assert_non_null(client);
  fake.pulls++;
  fake.consistent = options->consistent;
  if (fake.pull_code != ESP_OK)
    return esp_fail(st, fake.pull_code, "no pull");
  for (size_t i = 0; i < len; i++) {
    assert_int_equal(weights[i].bytes, leaves[weights[i].leaf - 1].bytes);
    memset(weights[i].data, (int)weights[i].leaf, weights[i].bytes);
  }
  *ret = (struct esp_pull_result){.commit = 1210, .epoch = 4, .lineage = fake.lineage_after, .sent = len};
  return ESP_OK;
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

static inline void forget_result(void) {
  free(result.out);
  free(result.err);
  result.out = NULL;
  result.err = NULL;
}

static inline void run(const char *line) {
  static char words[1024];
  char *argv[32] = {(char *)(uintptr_t) "espctl"};
  int argc = 1;
  size_t err_len = 0;
  forget_result();
  snprintf(words, sizeof words, "%s", line);
  char *rest = words;
  for (char *word; (word = strsep(&rest, " ")) != NULL && argc < 31;)
    argv[argc++] = word;
  FILE *out = open_memstream(&result.out, &result.out_len);
  FILE *err = open_memstream(&result.err, &err_len);
  result.exit_code = esp_cli_main(argc, argv, esp_env_virtual_env(twin), out, err);
  fclose(out);
  fclose(err);
}

static inline void assert_run(const char *line, const char *out) {
  run(line);
  assert_string_equal(result.err, "");
  assert_string_equal(result.out, out);
  assert_int_equal(result.exit_code, 0);
}

static inline void assert_fails(const char *line, int exit_code, const char *err) {
  run(line);
  assert_string_equal(result.err, err);
  assert_int_equal(result.exit_code, exit_code);
}

static inline json_t *run_json(const char *line) {
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

static inline json_int_t int_of(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  if (!json_is_integer(value))
    fail_msg("no integer '%s'", key);
  return json_integer_value(value);
}

static inline int setup(void **state) {
  json_set_alloc_funcs(esp_malloc, esp_free);
  unsetenv("ESPALIER_SERVER");
  memset(&fake, 0, sizeof fake);
  fake.commit_after = 1203;
  fake.lineage_after = 0xabc;
  int failed = esp_test_setup(state);
  twin = esp_env_virtual_new(1);
  return failed != 0 || twin == NULL;
}

static inline int teardown(void **state) {
  forget_result();
  esp_env_virtual_free(twin);
  return esp_test_teardown(state);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

#endif
