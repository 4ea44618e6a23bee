/* Tests of top where standard output is no terminal, on the virtual clock, and of one snapshot as it is printed. What
 * it does with a terminal is seen by tests/integration/espctl_test.py. */
#include <inttypes.h>

#include "tests/unit/cli/fixture.h"

#define LAST                                                                                                           \
  "network  3 of at most 1000 connections, 2 refused; 9 streams, 5 watches\n"                                          \
  "memory   values           1.5 MiB\n"                                                                                \
  "         optimizer state  3.0 MiB\n"                                                                                \
  "         staged           [#####...............]  1.0 GiB of at most 4.0 GiB\n"                                     \
  "         copy-on-write    [....................]  4.0 KiB of at most 1.0 GiB\n"                                     \
  "         spare            8.0 KiB\n"                                                                                \
  "         whole process    5.0 MiB\n"                                                                                \
  "\n"                                                                                                                 \
  "GROUP    PARAMETERS  ELEMENTS  VALUES  STATE  FROZEN  OPTIMIZER\n"                                                  \
  "default           3         7    32 B   48 B     43%  adam(lr=0.001)\n"                                             \
  "slow              0         0     0 B    0 B       -  sgd(lr=0.1)\n"                                                \
  "\n"
#define WORKERS                                                                                                        \
  "WORKER  PEER              SESSION           LEASE  PUSHES  IN FLIGHT  BEHIND  LAST SEEN\n"                          \
  "-                         fffffffffffffffe  gone      200          2      31      1m 5s\n"                          \
  "gpu-1   ipv4:10.0.0.1:99  0000000000000007  live     1000          0       0       40ms\n"

static unsigned answers; /* that esp_server_info has given */

/* Half a second later with each call: 30 pushes of 50 KiB, 5 pulls. */
static enum esp_code advancing(struct esp_server_info *info, struct esp_status *st) {
  (void)st;
  esp_env_virtual_advance(twin, 500);
  info->pushes_applied += 30 * answers;
  info->bytes_pushed += 30 * 51200 * answers;
  info->pushes_refused += answers;
  info->pulls += 5 * answers;
  answers++;
  return ESP_OK;
}

static void rates_are_differences(void **state) {
  (void)state;
  static const char head[] = "server   127.0.0.1:7433, version 1.2.4, up 3h 5m, 8 threads, isa avx2\n"
                             "tree     4 leaves (2 frozen), 3 parameters, 7 elements\n"
                             "order    epoch 4, commit 1203, lineage 0000000000000abc, mode async\n";
  char expected[4096];
  answers = 0;
  fake.on_info = advancing;
  snprintf(expected, sizeof expected, "%s%s%s%s%s\n%s%s%s%s%s\n", head,
           "pushes   -, - in; refused -, not finite -; 4 of at most 640 in flight\n",
           "pulls    -, - out; 1 under way\n", LAST, WORKERS, head,
           "pushes   60.0/s, 2.9 MiB/s in; refused 2.0/s, not finite 0.0/s; 4 of at most 640 in flight\n",
           "pulls    10.0/s, 0 B/s out; 1 under way\n", LAST, WORKERS);
  assert_run("top --count 2 --interval 1ms", expected);
  assert_int_equal(fake.options.attempts_max, 1);
  assert_int_equal(fake.options.deadline_ms, 2000);
  assert_int_equal(fake.describes, 1); /* the epoch stood still */
}

/* Answers, does not, and is another server then. */
static enum esp_code restarting(struct esp_server_info *info, struct esp_status *st) {
  enum esp_code code = advancing(info, st);
  if (answers == 2 || answers == 3)
    return esp_fail(st, ESP_UNAVAILABLE, "nobody is there");
  info->lineage += answers;
  info->epoch += answers;
  return code;
}

static void a_server_that_goes_is_waited_for(void **state) {
  (void)state;
  answers = 0;
  fake.on_info = restarting;
  run("top --count 4 --interval 1ms");
  assert_int_equal(result.exit_code, 0);
  assert_string_equal(result.err, "");
  const char *first = strstr(result.out, "NO ANSWER since 500ms: nobody is there\nserver   127.0.0.1:7433");
  const char *second = strstr(result.out, "NO ANSWER since 1s: nobody is there\n");
  assert_non_null(first);
  assert_true(second > first);
  assert_non_null(strstr(second, "lineage 0000000000000abd")); /* what was last known */
  const char *back = strstr(second, "lineage 0000000000000ac0");
  assert_non_null(back);
  assert_non_null(strstr(back, "pushes   -, - in"));
  assert_int_equal(fake.describes, 2);
}

static void what_one_call_lacks_the_others_have(void **state) {
  (void)state;
  fake.workers_code = ESP_UNIMPLEMENTED;
  run("top --count 1");
  assert_int_equal(result.exit_code, 0);
  assert_non_null(strstr(result.out, "\nworkers  not known: no workers\n"));
  assert_non_null(strstr(result.out, "\nGROUP "));
  fake.workers_code = ESP_OK;
  fake.no_workers = true;
  run("top --count 1");
  assert_non_null(strstr(result.out, "\n\nno workers\n"));
}

static void json_is_one_line_a_snapshot(void **state) {
  (void)state;
  answers = 0;
  fake.on_info = restarting;
  run("top --json --count 2 --interval 1ms");
  assert_string_equal(result.err, "");
  assert_int_equal(result.exit_code, 0);
  char *second = strchr(result.out, '\n');
  *second++ = '\0';
  json_t *json = json_loads(result.out, 0, NULL);
  assert_true(json_is_true(json_object_get(json, "answered")));
  assert_true(json_is_null(json_object_get(json, "rates")));
  assert_int_equal(int_of(json_object_get(json, "status"), "commit"), 1203);
  assert_int_equal(int_of(json_array_get(json_object_get(json, "workers"), 0), "staleness"), 31);
  assert_int_equal(int_of(json_array_get(json_object_get(json, "groups"), 0), "elements_frozen"), 3);
  json_decref(json);
  json = json_loads(second, 0, NULL);
  assert_true(json_is_false(json_object_get(json, "answered")));
  assert_int_equal(int_of(json, "silent_ms"), 500);
  assert_string_equal(json_string_value(json_object_get(json, "error")), "nobody is there");
  json_decref(json);
  fake.on_info = advancing;
  answers = 0;
  run("top --json --count 2 --interval 1ms");
  json = json_loads(strchr(result.out, '\n'), 0, NULL);
  const json_t *rates = json_object_get(json, "rates");
  assert_true(json_real_value(json_object_get(rates, "pushes")) == 60);
  assert_true(json_real_value(json_object_get(rates, "bytes_pushed")) == 3072000);
  assert_true(json_real_value(json_object_get(rates, "refused")) == 2);
  json_decref(json);
}

#define MANY 100

static size_t lines_of(const struct esp_cli_snapshot *snapshot, unsigned rows) {
  char *text = NULL;
  size_t len = 0;
  size_t lines = 0;
  FILE *out = open_memstream(&text, &len);
  esp_cli_render_snapshot(out, snapshot, 80, rows);
  fclose(out);
  for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++)
    lines++;
  free(text);
  return lines;
}

/* However many groups and workers there are, and whatever is not known. */
static void a_snapshot_fits_its_window(void **state) {
  (void)state;
  struct esp_worker_info many_workers[MANY];
  struct esp_cli_group many_groups[MANY];
  struct esp_description description = {0};
  struct esp_workers list = {0};
  struct esp_cli_snapshot snapshot = {.server = "here", .has_info = true, .groups = many_groups};
  snapshot.description = &description;
  snapshot.workers_list = &list;
  for (size_t i = 0; i < MANY; i++) {
    many_workers[i] = workers[0];
    many_groups[i] = (struct esp_cli_group){.info = &groups[0]};
  }
  for (unsigned rows = 0; rows < 3 * MANY; rows++) {
    for (unsigned i = 0; i < 4 * 4 * 4; i++) {
      static const size_t lens[] = {0, 1, 5, MANY};
      list.len = lens[i % 4];
      description.groups_len = lens[i / 4 % 4];
      snapshot.workers = (i / 16 & 1) != 0 ? many_workers : NULL;
      snapshot.st.code = (i / 32 & 1) != 0 ? ESP_UNAVAILABLE : ESP_OK;
      size_t lines = lines_of(&snapshot, rows);
      size_t always = 12 + (snapshot.st.code != ESP_OK);
      if (lines > (rows > always ? rows : always))
        fail_msg("%zu lines in a window of %u", lines, rows);
    }
  }
  list.len = description.groups_len = 5;
  snapshot.workers = many_workers;
  snapshot.st.code = ESP_OK;
  assert_int_equal(lines_of(&snapshot, 40), 12 + 7 + 7); /* all of them where there is room */
}

static void without_memory_it_goes_on(void **state) {
  (void)state;
  for (int64_t n = 0; n < 200; n++) {
    answers = 0;
    fake.on_info = advancing;
    esp_alloc_fail_at(n);
    run("top --count 3 --interval 1ms");
    esp_alloc_fail_at(-1);
    if (n > 0) /* at 0 there is no client */
      assert_int_equal(result.exit_code, 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(rates_are_differences),
      TEST(a_server_that_goes_is_waited_for),
      TEST(what_one_call_lacks_the_others_have),
      TEST(json_is_one_line_a_snapshot),
      TEST(a_snapshot_fits_its_window),
      TEST(without_memory_it_goes_on),
  };
  return cmocka_run_group_tests_name("cli.top", tests, NULL, NULL);
}
