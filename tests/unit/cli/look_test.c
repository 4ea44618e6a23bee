/* Tests of the commands that look. */
#include "tests/unit/cli/fixture.h"

static void status_is_read_at_a_glance(void **state) {
  (void)state;
  assert_run("status", "server   127.0.0.1:7433, version 1.2.4, up 3h 5m, 8 threads, isa avx2\n"
                       "tree     4 leaves (2 frozen), 3 parameters, 7 elements\n"
                       "order    epoch 4, commit 1203, lineage 0000000000000abc, mode async\n"
                       "workers  2\n"
                       "pushes   1200 applied, 3 refused, 0 not finite; 2.0 KiB received; 4 of at most 640 in flight\n"
                       "pulls    77 served; 1 B sent; 1 under way\n"
                       "network  3 of at most 1000 connections, 2 refused; 9 streams, 5 watches\n"
                       "memory   values           1.5 MiB\n"
                       "         optimizer state  3.0 MiB\n"
                       "         staged           1.0 GiB of at most 4.0 GiB\n"
                       "         copy-on-write    4.0 KiB of at most 1.0 GiB\n"
                       "         spare            8.0 KiB\n"
                       "         whole process    5.0 MiB\n");
  json_t *json = run_json("status --json --server here:1");
  assert_string_equal(json_string_value(json_object_get(json, "server")), "here:1");
  assert_string_equal(json_string_value(json_object_get(json, "lineage")), "0000000000000abc");
  assert_int_equal(int_of(json, "commit"), 1203);
  assert_int_equal(int_of(json_object_get(json, "memory"), "state"), 3145728);
  assert_int_equal(int_of(json_object_get(json, "memory"), "copy_on_write_max"), 1 << 30);
  assert_int_equal(int_of(json_object_get(json, "memory"), "spare"), 8192);
  assert_int_equal(int_of(json_object_get(json, "memory"), "resident"), 5 << 20);
  assert_int_equal(int_of(json_object_get(json, "pushes"), "refused"), 3);
  assert_int_equal(int_of(json_object_get(json, "pushes"), "in_flight_max"), 640);
  assert_int_equal(int_of(json_object_get(json, "pulls"), "active"), 1);
  assert_int_equal(int_of(json_object_get(json, "network"), "connections_refused"), 2);
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
                     "slow              0  sgd(lr=0.1)\n"
                     "\n"
                     "4 leaves, 2 frozen, 1 tied; values 32 B, optimizer state 48 B; epoch 4, commit 1203\n");
  assert_string_equal(fake.selection, "(all)");
  run("tree enc.**");
  assert_string_equal(fake.selection, "enc.**");
  assert_run("tree none", "no leaves: no worker has declared any yet (epoch 4)\n");
}

static void select_lists_what_matches(void **state) {
  (void)state;
  assert_run("select enc|tied",
             "enc.bias     [3]     f32\n"
             "enc.mean     []      f64  buffer\n"
             "head.weight  [1, 3]  f32  no group is called fast\n"
             "tied         [3]     f32  tied to enc.bias\n"
             "4 leaves, 2 frozen, 1 tied; values 32 B, optimizer state 48 B; epoch 4, commit 1203\n");
  assert_string_equal(fake.selection, "enc|tied");
  json_t *json = run_json("select enc --json");
  assert_int_equal(json_array_size(json_object_get(json, "leaves")), 4);
  json_decref(json);
  run("select");
  assert_int_equal(result.exit_code, 2);
}

static void a_group_is_shown_with_its_leaves(void **state) {
  (void)state;
  assert_run("group show default", "GROUP    PARAMETERS  ELEMENTS  VALUES  STATE  FROZEN  OPTIMIZER\n"
                                   "default           3         7    32 B   48 B     43%  adam(lr=0.001)\n"
                                   "\n"
                                   "PATH         SHAPE   DTYPE  FROZEN  STEPS  NOTE\n"
                                   "enc.bias     [3]     f32    yes      1200\n"
                                   "enc.mean     []      f64    -           -  buffer\n"
                                   "head.weight  [1, 3]  f32    -           9  no group is called fast\n"
                                   "tied         [3]     f32    yes      1200  tied to enc.bias\n");
  assert_run("group show slow", "GROUP  PARAMETERS  ELEMENTS  VALUES  STATE  FROZEN  OPTIMIZER\n"
                                "slow            0         0     0 B    0 B       -  sgd(lr=0.1)\n");
  json_t *json = run_json("group show default --json");
  assert_string_equal(json_string_value(json_object_get(json, "optimizer")), "adam(lr=0.001)");
  assert_int_equal(int_of(json, "elements_frozen"), 3);
  assert_int_equal(int_of(json, "epoch"), 4);
  assert_int_equal(json_array_size(json_object_get(json, "leaves")), 4);
  json_decref(json);
  assert_fails("group show fast", 3,
               "espctl: there is no group fast; 1 leaf is assigned to it and in the group default meanwhile\n");
  assert_fails("group show nosuch", 3, "espctl: there is no group nosuch; espctl groups lists them\n");
  assert_fails("group show a b", 2, "espctl: group show needs GROUP, and nothing else\n");
}

static void history_is_told_oldest_first(void **state) {
  (void)state;
  static const struct esp_apply_change changes[] = {{1, "enc.bias", "frozen", "false", "true", ""},
                                                    {4, "tied", "frozen", "false", "true", "enc.bias"}};
  const struct esp_transaction_info list[] = {
      {.epoch = 4,
       .commit = 9,
       .actor = "unix",
       .at_ms = 1000,
       .reason = "it\x1b[2J learns",
       .changes_len = 2,
       .changes = changes,
       .changes_total = 2},
      {.epoch = 5, .commit = 12, .actor = "", .at_ms = 2500, .reason = "", .changes_total = 1000000}};
  fake.history = (struct esp_history){.len = 2, .transactions = list};
  assert_run("history", "epoch 4  commit 9  1970-01-01T00:00:01.000Z  by unix\n"
                        "reason: it?[2J learns\n"
                        "enc.bias  frozen  false -> true\n"
                        "tied      frozen  false -> true  because tied to enc.bias\n"
                        "\n"
                        "epoch 5  commit 12  1970-01-01T00:00:02.500Z\n"
                        "1000000 changes, which were too many to be remembered one by one\n");
  json_t *json = run_json("history 3 --count 2 --json");
  assert_true(fake.since_epoch == 3 && fake.limit == 2);
  const json_t *first = json_array_get(json_object_get(json, "transactions"), 0);
  assert_int_equal(int_of(first, "epoch"), 4);
  assert_string_equal(json_string_value(json_object_get(first, "actor")), "unix");
  assert_string_equal(json_string_value(json_object_get(first, "time")), "1970-01-01T00:00:01.000Z");
  assert_int_equal(json_array_size(json_object_get(first, "changes")), 2);
  json_decref(json);
  fake.history.len = 0;
  assert_run("history", "nothing was changed, as far as the server remembers\n");
  assert_fails("history 3x", 2, "espctl: '3x' is no epoch; expected a number\n");
  assert_fails("history 18446744073709551616", 2, "espctl: '18446744073709551616' is no epoch; expected a number\n");
}

static void leaves_are_explained(void **state) {
  (void)state;
  assert_run("explain enc", "enc.bias\n"
                            "  frozen  yes    frozen by ann: it?[2J learns  epoch 4\n"
                            "  steps   12?00\n"
                            "\n"
                            "enc.w\n"
                            "  steps  12?00\n");
  assert_string_equal(fake.selection, "enc");
  json_t *json = run_json("explain enc --json");
  assert_int_equal(int_of(json, "epoch"), 4);
  assert_int_equal(int_of(json, "commit"), 9);
  assert_string_equal(json_string_value(json_object_get(json, "lineage")), "000000000000000a");
  assert_int_equal(json_array_size(json_object_get(json, "leaves")), 2);
  const json_t *leaf = json_array_get(json_object_get(json, "leaves"), 0);
  assert_int_equal(int_of(leaf, "id"), 1);
  assert_string_equal(json_string_value(json_object_get(leaf, "path")), "enc.bias");
  assert_int_equal(json_array_size(json_object_get(leaf, "facts")), 2);
  const json_t *fact = json_array_get(json_object_get(leaf, "facts"), 0);
  assert_string_equal(json_string_value(json_object_get(fact, "what")), "frozen");
  assert_string_equal(json_string_value(json_object_get(fact, "value")), "yes");
  assert_string_equal(json_string_value(json_object_get(fact, "because")), "frozen by ann: it\x1b[2J learns");
  assert_int_equal(int_of(fact, "epoch"), 4);
  json_decref(json);
  assert_fails("explain", 2, "espctl: explain needs SELECTION; see espctl help explain\n");
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

/* What is tied counts once; the share is one of elements. */
static void groups_are_added_up(void **state) {
  (void)state;
  assert_run("groups", "GROUP    PARAMETERS  ELEMENTS  VALUES  STATE  FROZEN  OPTIMIZER\n"
                       "default           3         7    32 B   48 B     43%  adam(lr=0.001)\n"
                       "slow              0         0     0 B    0 B       -  sgd(lr=0.1)\n");
  assert_string_equal(fake.selection, "(all)");
  json_t *json = run_json("groups --json");
  assert_int_equal(int_of(json, "commit"), 1203);
  const json_t *group = json_array_get(json_object_get(json, "groups"), 0);
  assert_string_equal(json_string_value(json_object_get(group, "optimizer")), "adam(lr=0.001)");
  assert_int_equal(int_of(group, "leaves"), 4);
  assert_int_equal(int_of(group, "leaves_frozen"), 2);
  assert_int_equal(int_of(group, "elements"), 7);
  assert_int_equal(int_of(group, "elements_frozen"), 3);
  assert_int_equal(int_of(group, "bytes"), 32);
  assert_int_equal(int_of(group, "state_bytes"), 48);
  json_decref(json);
}

static void workers_are_a_table(void **state) {
  (void)state;
  assert_run("workers", "WORKER  PEER              SESSION           LEASE  PUSHES  IN FLIGHT  BEHIND  LAST SEEN\n"
                        "-                         fffffffffffffffe  gone      200          2      31      1m 5s\n"
                        "gpu-1   ipv4:10.0.0.1:99  0000000000000007  live     1000          0       0       40ms\n");
  json_t *json = run_json("workers --json");
  assert_int_equal(int_of(json, "count"), 2);
  const json_t *worker = json_array_get(json_object_get(json, "workers"), 0);
  assert_string_equal(json_string_value(json_object_get(worker, "session")), "fffffffffffffffe");
  assert_int_equal(int_of(worker, "last_sequence"), 300);
  assert_int_equal(int_of(worker, "in_flight"), 2);
  assert_int_equal(int_of(worker, "staleness"), 31);
  assert_int_equal(int_of(worker, "last_seen_ms"), 65000);
  assert_true(json_is_false(json_object_get(worker, "live")));
  json_decref(json);
  fake.no_workers = true;
  assert_run("workers", "no workers: none has joined yet, or the server remembers none\n");
  fake.code = ESP_UNIMPLEMENTED;
  fake.message = "Workers is not built yet";
  assert_fails("workers", 6, "espctl: Workers is not built yet\n");
}

static const struct esp_timer_info timers[] = {
    {.timer = 3, .wait = ESP_WAIT_COMMIT, .at = 1204, .left = 1, .selection = "enc", .leaves = 2, .epoch = 4},
    {.timer = 12,
     .wait = ESP_WAIT_PUSHES,
     .at = 1500,
     .left = 300,
     .reset_state = true,
     .selection = "layers.[11-0] \x1b[2J",
     .leaves = 1,
     .epoch = 5},
    {.timer = 13,
     .wait = ESP_WAIT_TIME,
     .at = 1000,
     .left = 0,
     .freezes = true,
     .until_commit = 9000,
     .selection = "head",
     .leaves = 1,
     .epoch = 5},
    {.timer = 14,
     .wait = ESP_WAIT_COMMIT,
     .at = 2000,
     .left = 797,
     .freezes = true,
     .for_ms = 5400000,
     .selection = "",
     .leaves = 4,
     .epoch = 6}};

static void timers_are_a_table(void **state) {
  (void)state;
  fake.timers = (struct esp_timers){.epoch = 6, .commit = 1203, .lineage = 0xabc, .len = 4, .timers = timers};
  assert_run("timers",
             "TIMER  DOES                      WHEN                             LEFT  LEAVES  EPOCH  SELECTION\n"
             "    3  thaw                      commit 1204                  1 commit       2      4  enc\n"
             "   12  thaw, state reset         push 1500                  300 pushes       1      5  "
             "layers.[11-0] ?[2J\n"
             "   13  freeze until commit 9000  1970-01-01T00:00:01.000Z          0ms       1      5  head\n"
             "   14  freeze for 1h 30m         commit 2000               797 commits       4      6\n");
  json_t *json = run_json("timers --json");
  assert_int_equal(int_of(json, "epoch"), 6);
  assert_int_equal(int_of(json, "commit"), 1203);
  assert_string_equal(json_string_value(json_object_get(json, "lineage")), "0000000000000abc");
  const json_t *list = json_object_get(json, "timers");
  assert_int_equal(json_array_size(list), 4);
  const json_t *thaw = json_array_get(list, 1), *freeze = json_array_get(list, 2);
  assert_int_equal(int_of(thaw, "timer"), 12);
  assert_string_equal(json_string_value(json_object_get(thaw, "does")), "thaw");
  assert_string_equal(json_string_value(json_object_get(thaw, "wait")), "pushes");
  assert_true(int_of(thaw, "at") == 1500 && int_of(thaw, "left") == 300 && int_of(thaw, "leaves") == 1);
  assert_true(json_is_true(json_object_get(thaw, "reset_state")));
  assert_string_equal(json_string_value(json_object_get(freeze, "does")), "freeze");
  assert_string_equal(json_string_value(json_object_get(freeze, "wait")), "time");
  assert_string_equal(json_string_value(json_object_get(freeze, "selection")), "head");
  assert_true(int_of(freeze, "until_commit") == 9000 && int_of(freeze, "for_ms") == 0 && int_of(freeze, "epoch") == 5);
  assert_int_equal(int_of(json_array_get(list, 3), "for_ms"), 5400000);
  json_decref(json);
  fake.timers.len = 0;
  assert_run("timers", "no timers: nothing will freeze or thaw by itself (epoch 6)\n");
  fake.code = ESP_UNIMPLEMENTED;
  fake.message = "there is no method";
  assert_fails("timers", 6, "espctl: there is no method\n");
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

static void ping_waits_only_when_told(void **state) {
  (void)state;
  assert_run("ping", "127.0.0.1:7433 answered after 0ms\n");
  assert_int_equal(fake.options.attempts_max, 5);
  assert_int_equal(fake.options.deadline_ms, 30000);
  assert_run("ping --timeout 2m", "127.0.0.1:7433 answered after 0ms\n");
  assert_int_equal(fake.options.attempts_max, 0);
  assert_int_equal(fake.options.deadline_ms, 120000);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(status_is_read_at_a_glance),
      TEST(tree_is_a_table_with_totals),
      TEST(tree_has_all_in_json),
      TEST(select_lists_what_matches),
      TEST(history_is_told_oldest_first),
      TEST(leaves_are_explained),
      TEST(a_group_is_shown_with_its_leaves),
      TEST(groups_are_added_up),
      TEST(workers_are_a_table),
      TEST(timers_are_a_table),
      TEST(digest_is_a_line_a_leaf),
      TEST(ping_waits_only_when_told),
  };
  return cmocka_run_group_tests_name("cli.look", tests, NULL, NULL);
}
