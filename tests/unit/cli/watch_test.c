/* Tests of watch: events in, lines out. The virtual clock stands still. */
#include "tests/unit/cli/fixture.h"

#define AT "2026-01-31T12:00:00.000Z  epoch 5  commit 1204  "

/* What the watch is to bring; a test sets fake.events to such a list. */
#define EVENT(list)                                                                                                    \
  {                                                                                                                    \
    ESP_OK, {                                                                                                          \
      .epoch = 5, .commit = 1204, .lineage = 0xabc, .changes_len = sizeof(list) / sizeof(list)[0], .changes = list     \
    }                                                                                                                  \
  }
#define FOLLOW(list) (fake.events = (list), fake.events_at = 0, fake.events_len = sizeof(list) / sizeof(list)[0])

static void each_change_is_a_line(void **state) {
  (void)state;
  static const struct esp_layout_change changes[] = {
      {.leaf = 1, .path = ""},                   /* enc.bias, which was frozen */
      {.leaf = 2, .path = "", .frozen = true},   /* enc.mean */
      {.leaf = 3, .path = "", .detached = true}, /* head.weight */
      {.leaf = 4, .path = "", .frozen = true},   /* tied, as before */
      {.leaf = 9, .path = "new", .frozen = true},
      {.leaf = 4, .path = "", .removed = true},
      {.leaf = 3, .path = ""},
      {.leaf = 77, .path = "", .frozen = true}, /* nobody's: selected by nothing */
      {.leaf = 78, .path = "", .removed = true}};
  static const struct fake_event events[] = {EVENT(changes)};
  FOLLOW(events);
  assert_run("watch --count 7", AT "enc.bias  thawed\n" AT "enc.mean  frozen\n" AT "head.weight  detached\n" AT
                                   "new  added\n" AT "new  frozen\n" AT "tied  removed\n" AT "head.weight  attached\n");
  assert_int_equal(fake.watched_since, 4); /* the description's epoch: nothing is missed between the two */
  assert_string_equal(fake.selection, "(all)");
}

static void count_ends_it_within_an_event(void **state) {
  (void)state;
  static const struct esp_layout_change changes[] = {{.leaf = 1, .path = ""}, {.leaf = 4, .path = ""}};
  static const struct fake_event events[] = {EVENT(changes)};
  FOLLOW(events);
  assert_run("watch --count 1", AT "enc.bias  thawed\n");
}

/* A leaf that is new is asked for: only the server knows what a selection means. */
static void new_leaves_count_if_selected(void **state) {
  (void)state;
  static const struct esp_layout_change none[] = {{.leaf = 50, .path = "elsewhere"},
                                                  {.leaf = 51, .path = "elsewhere2"}};
  static const struct esp_layout_change gone[] = {{.leaf = 4, .path = "", .removed = true}};
  static const struct esp_layout_change back[] = {{.leaf = 52, .path = "elsewhere3"}, {.leaf = 4, .path = "tied"}};
  static const struct fake_event events[] = {EVENT(none), EVENT(gone), EVENT(back)};
  FOLLOW(events);
  assert_run("watch enc --count 2", AT "tied  removed\n" AT "tied  added\n");
  assert_int_equal(fake.describes, 3); /* at the beginning, and once for each event with new leaves */
}

static void a_new_lineage_begins_anew(void **state) {
  (void)state;
  static const struct esp_layout_change first[] = {{.leaf = 1, .path = ""}};
  static const struct esp_layout_change all[] = {{.leaf = 1, .path = "other"}};
  static const struct fake_event told[] = {EVENT(first), {ESP_ABORTED, {0}}, EVENT(all)};
  static const char lines[] =
      "2026-01-31T12:00:00.000Z  epoch 0  commit 0  the server has lost its state: a new lineage\n" AT "other  added\n";
  FOLLOW(told);
  run("watch --count 3");
  assert_int_equal(result.exit_code, 0);
  assert_string_equal(result.out + strlen(AT "enc.bias  thawed\n"), lines);
  assert_int_equal(fake.watched_since, 0);
  /* Where the library has not noticed: the description was of another lineage. */
  static struct fake_event silent[2] = {EVENT(first), EVENT(all)};
  silent[0].event.lineage = silent[1].event.lineage = 0xdef;
  FOLLOW(silent);
  assert_run("watch --count 2", lines);
}

static void json_is_one_line_a_change(void **state) {
  (void)state;
  static const struct esp_layout_change changes[] = {{.leaf = 1, .path = ""}, {.leaf = 4, .path = ""}};
  static const struct fake_event events[] = {EVENT(changes)};
  FOLLOW(events);
  run("watch --json --count 2");
  assert_string_equal(result.err, "");
  char *second = strchr(result.out, '\n');
  *second++ = '\0';
  json_t *json = json_loads(result.out, 0, NULL);
  assert_string_equal(json_string_value(json_object_get(json, "time")), "2026-01-31T12:00:00.000Z");
  assert_string_equal(json_string_value(json_object_get(json, "path")), "enc.bias");
  assert_string_equal(json_string_value(json_object_get(json, "what")), "thawed");
  assert_string_equal(json_string_value(json_object_get(json, "lineage")), "0000000000000abc");
  assert_int_equal(int_of(json, "epoch"), 5);
  assert_int_equal(int_of(json, "commit"), 1204);
  assert_int_equal(int_of(json, "id"), 1);
  json_decref(json);
  json = json_loads(second, 0, NULL);
  assert_string_equal(json_string_value(json_object_get(json, "path")), "tied");
  json_decref(json);
}

static void what_ends_it_is_an_error(void **state) {
  (void)state;
  static const struct fake_event events[] = {{ESP_UNIMPLEMENTED, {0}}};
  FOLLOW(events);
  assert_fails("watch", 6, "espctl: the watch has ended\n");
  fake.code = ESP_NOT_FOUND;
  fake.message = "nothing matches 'nosuch'";
  assert_fails("watch nosuch", 3, "espctl: nothing matches 'nosuch'\n");
}

/* It prints all, or fails. */
static void without_memory_it_fails(void **state) {
  (void)state;
  static const struct esp_layout_change changes[] = {{.leaf = 1, .path = ""}, {.leaf = 9, .path = "new"}};
  static const struct fake_event events[] = {EVENT(changes)};
  static const char *const lines[] = {"watch --count 2", "watch --json --count 2"};
  for (size_t i = 0; i < 2; i++) {
    FOLLOW(events);
    run(lines[i]);
    char *whole = strdup(result.out);
    unsigned successes = 0;
    for (int64_t n = 0; n < 400 && successes < 100; n++) {
      FOLLOW(events);
      esp_alloc_fail_at(n);
      run(lines[i]);
      esp_alloc_fail_at(-1);
      if (result.exit_code == 0)
        assert_string_equal(result.out, whole);
      successes += result.exit_code == 0;
    }
    assert_true(successes >= 100);
    free(whole);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(each_change_is_a_line),     TEST(count_ends_it_within_an_event), TEST(new_leaves_count_if_selected),
      TEST(a_new_lineage_begins_anew), TEST(json_is_one_line_a_change),     TEST(what_ends_it_is_an_error),
      TEST(without_memory_it_fails),
  };
  return cmocka_run_group_tests_name("cli.watch", tests, NULL, NULL);
}
