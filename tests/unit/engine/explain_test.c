/* Explanations: each fact from what made it so, those that many leaves share, and those that nobody knows any more. */
#include "base/utf8.h"
#include "fixture.h"

/* All facts of one leaf, a line each: `what: value (because) epoch`. */
static const char *explain_one(struct fixture *fixture, const char *path) {
  static char said[8192];
  struct esp_explain *explain = NULL;
  struct esp_facts facts;
  struct esp_status st;
  size_t used = 0;
  uint64_t commit;
  const struct esp_selection *sel;
  if (esp_explain_new(fixture->engine, path, &explain, &st) != ESP_OK)
    fail_msg("%s", st.message);
  const struct esp_layout *layout = esp_explain_layout(explain, &commit, &sel);
  assert_int_equal(sel->len, 1);
  assert_string_equal(layout->leaves[sel->leaves[0]].path, path);
  assert_true(esp_explain_leaf(explain, 0, &facts));
  for (size_t i = 0; i < facts.len && used < sizeof(said); i++) {
    const struct esp_fact *fact = &facts.list[i];
    used += (size_t)snprintf(said + used, sizeof(said) - used, "%s: %s", fact->what, fact->value);
    used +=
        (size_t)snprintf(said + used, sizeof(said) - used, fact->because[0] != '\0' ? " (%s)" : "%s", fact->because);
    if (fact->epoch != 0)
      used += (size_t)snprintf(said + used, sizeof(said) - used, " %llu", (unsigned long long)fact->epoch);
    used += (size_t)snprintf(said + used, sizeof(said) - used, "\n");
  }
  esp_facts_done(&facts);
  esp_explain_free(explain);
  return said;
}

static void assert_says(struct fixture *fixture, const char *path, const char *line) {
  const char *said = explain_one(fixture, path);
  char whole[512];
  snprintf(whole, sizeof(whole), "\n%s\n", line);
  if (strncmp(said, whole + 1, strlen(line) + 1) != 0 && strstr(said, whole) == NULL)
    fail_msg("%s does not say \"%s\":\n%s", path, line, said);
}

static void assert_says_nothing_of(struct fixture *fixture, const char *path, const char *what) {
  const char *said = explain_one(fixture, path);
  if (strstr(said, what) != NULL)
    fail_msg("%s says \"%s\":\n%s", path, what, said);
}

/* Epoch 2 is the fixture's assignment, 3 the declaration. */
static void open_tree(struct fixture *fixture) {
  struct outcome outcome;
  fixture_open(fixture);
  struct esp_declare_leaf leaves[5] = {vector_f64("enc.a", 2), vector_f64("enc.b", 2), vector_f64("assigned.w", 2),
                                       vector_f64("mean", 2), vector_f64("born", 2)};
  leaves[1].tag = "Linear";
  leaves[1].group = "nobody";
  leaves[3].kind = ESP_KIND_BUFFER;
  leaves[4].frozen = true;
  assert_int_equal(declare(fixture, leaves, 5, &outcome), ESP_OK);
  assert_int_equal(outcome.epoch, 3);
}

static void test_what_it_is(void **state) {
  (void)state;
  struct fixture fixture;
  open_tree(&fixture);
  assert_string_equal(explain_one(&fixture, "enc.a"),
                      "leaf: f64 [2], trained (added by somebody: declaration) 3\n"
                      "parameter: 1 (its own)\n"
                      "group: default (assigned to the root)\n"
                      "optimizer: sgd(lr=1)\n"
                      "frozen: no\n"
                      "detached: no\n"
                      "steps: 0 (version 1 of its value)\n"
                      "a gradient: is applied (group default steps it)\n"
                      "changed: leaf: (none) -> f64 [2] (by somebody: declaration) 3\n");
  assert_says(&fixture, "enc.b", "tag: Linear (its own)");
  assert_says(&fixture, "enc.b", "group: default (nobody, which is assigned to enc.b, is not defined) 3");
  assert_says(&fixture, "assigned.w", "group: head (assigned to assigned)");
  assert_says(&fixture, "mean", "leaf: f64 [2], buffer (added by somebody: declaration) 3");
  assert_says(&fixture, "mean", "a gradient: is refused (it is a buffer: it is set, not trained)");
  assert_says_nothing_of(&fixture, "mean", "steps: ");
  assert_says(&fixture, "born", "frozen: yes (born so, added by somebody: declaration) 3");
  fixture_close(&fixture);
}

/* Long texts are cut between characters, for clients that take nothing but UTF-8, and are fit for a terminal. */
static void test_long_texts_are_cut(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  open_tree(&fixture);
  char reason[1300], selection[2600];
  for (size_t i = 0; i < 600; i++)
    memcpy(reason + 2 * i, "\xc3\xa9", 3);
  memcpy(reason, "a\n", 2);
  for (size_t odd = 0; odd < 2; odd++) { /* its characters begin at even bytes, and at odd ones */
    size_t len = (size_t)snprintf(selection, sizeof(selection), "enc.a |%s", odd ? " " : "");
    for (size_t i = 0; i < 1000; i++)
      len += (size_t)snprintf(selection + len, sizeof(selection) - len, "%s", i % 100 == 99 ? "." : "\xc3\xa9");
    selection[len - 1] = '\0';
    const struct esp_operation ops[] = {
        {.kind = ESP_OPERATION_FREEZE, .selection = selection, .for_ms = 9},
        {.kind = ESP_OPERATION_NAME_SELECTION, .name = "long", .selection = selection},
    };
    const struct esp_apply_request request = {
        .operations = ops, .operations_len = 2, .idempotency_key = "", .actor = reason + odd, .reason = reason + odd};
    if (apply_request(&fixture, &request, &outcome) != ESP_OK)
      fail_msg("%s", outcome.st.message);
    const char *said = explain_one(&fixture, "enc.a");
    assert_true(esp_utf8_is_text(said, strlen(said)));
    assert_non_null(strstr(said, odd ? "(by \\x0a" : "(frozen by a\\x0a"));
    assert_non_null(strstr(said, "\xc3\xa9...: "));
  }
  fixture_close(&fixture);
}

static void test_what_was_done_to_it(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  open_tree(&fixture);
  const double grad[2] = {1, 1};
  struct esp_layout *layout = esp_engine_layout(fixture.engine, NULL);
  uint64_t a = esp_layout_leaf_by_path(layout, "enc.a", 5)->id;
  esp_layout_unref(layout);
  assert_int_equal(push_one(&fixture, a, grad, sizeof(grad), &outcome), ESP_OK);
  assert_says(&fixture, "enc.a", "steps: 1 (version 2 of its value)");
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_TIE, .selection = "born", .to = "enc.a"}, &outcome);
  assert_says(&fixture, "enc.a", "parameter: 1 (it is the primary leaf of the 2 that share it)");
  assert_says(&fixture, "enc.a", "shared with: born");
  assert_says(&fixture, "born", "parameter: 1 (tied to enc.a, the primary leaf of the 2 that share it) 4");
  assert_says(&fixture, "born", "shared with: enc.a");
  assert_says(&fixture, "born", "group: default (assigned to the root, where its primary leaf enc.a is)");
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "enc.a"}, &outcome);
  assert_says(&fixture, "enc.a", "frozen: yes (frozen by ann: because) 5");
  assert_says(&fixture, "born", "frozen: yes (frozen with enc.a by ann: because) 5");
  assert_says(&fixture, "born", "a gradient: is dropped (its parameter is frozen)");
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_THAW, .selection = "enc.a"}, &outcome);
  assert_says(&fixture, "enc.a", "frozen: no (thawed by ann: because) 6");
  assert_says(&fixture, "enc.a", "changed: frozen: true -> false (by ann: because) 6");
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_DETACH, .selection = "born"}, &outcome);
  assert_says(&fixture, "born", "detached: yes (detached by ann: because) 7");
  assert_says(&fixture, "born", "a gradient: is dropped (the leaf is detached)");
  assert_says(&fixture, "enc.a", "a gradient: is applied (group default steps it)");
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_NAME_SELECTION, .name = "all", .selection = "enc"},
           &outcome);
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_NAME_SELECTION, .name = "gone", .selection = "nil"},
           &outcome);
  assert_says(&fixture, "enc.b", "selection: @all (it is enc) 8");
  assert_says_nothing_of(&fixture, "born", "selection: ");
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_REGROUP, .selection = "enc", .to = "head"}, &outcome);
  assert_says(&fixture, "enc.a", "group: head (assigned to enc) 10");
  apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_DEFINE_GROUP, .name = "head", .to = "sgd(lr=0.5)"},
           &outcome);
  assert_says(&fixture, "enc.a", "optimizer: sgd(lr=0.5) (defined by ann: because) 11");
  assert_says_nothing_of(&fixture, "enc.a", "timer: ");
  apply_ok(&fixture,
           (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = "enc | mean", .until_commit = 1000},
           &outcome);
  assert_says(&fixture, "born", "timer: thaw at commit 1000 (timer 1) (set for enc | mean) 12");
  fixture_close(&fixture);
}

/* A leaf that shares with many, and was changed often: some are told, and how many there are. */
static void test_many(void **state) {
  (void)state;
  struct fixture fixture;
  struct outcome outcome;
  char paths[40][16];
  struct esp_declare_leaf leaves[40];
  fixture_open(&fixture);
  for (int i = 0; i < 40; i++) {
    snprintf(paths[i], sizeof(paths[i]), "l.%02d", i);
    leaves[i] = vector_f64(paths[i], 2);
    leaves[i].alias_of = i == 0 ? "" : "l.00";
  }
  assert_int_equal(declare(&fixture, leaves, 40, &outcome), ESP_OK);
  for (int i = 0; i < 10; i++)
    apply_ok(
        &fixture,
        (struct esp_operation){.kind = i % 2 == 0 ? ESP_OPERATION_FREEZE : ESP_OPERATION_THAW, .selection = "l.07"},
        &outcome);
  for (int i = 0; i < 20; i++) {
    char name[16];
    snprintf(name, sizeof(name), "s%d", i);
    apply_ok(&fixture, (struct esp_operation){.kind = ESP_OPERATION_NAME_SELECTION, .name = name, .selection = "l"},
             &outcome);
  }
  assert_says(&fixture, "l.39", "shared with: l.00");
  assert_says(&fixture, "l.39", "shared with: l.15");
  assert_says(&fixture, "l.39", "shared with: 23 more");
  assert_says(&fixture, "l.39", "selection: 4 more");
  assert_says_nothing_of(&fixture, "l.39", "shared with: l.16");
  assert_says(&fixture, "l.00", "changed: 3 times before that");
  assert_says(&fixture, "l.00", "frozen: no (thawed with l.07 by ann: because) 13");
  fixture_close(&fixture);
}

static void test_refusals(void **state) {
  (void)state;
  struct fixture fixture;
  struct esp_explain *explain = NULL;
  struct esp_status st;
  open_tree(&fixture);
  assert_int_equal(esp_explain_new(fixture.engine, "nil", &explain, &st), ESP_NOT_FOUND);
  assert_int_equal(esp_explain_new(fixture.engine, "a & &", &explain, &st), ESP_INVALID_ARGUMENT);
  assert_null(explain);
  /* Without memory, from the first allocation that fails to the one that does not. */
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  for (int64_t fail = 0; code != ESP_OK; fail++) {
    struct esp_facts facts = {0};
    assert_true(fail < 1000);
    esp_alloc_fail_at(fail);
    code = esp_explain_new(fixture.engine, "**", &explain, &st);
    bool ok = code == ESP_OK && esp_explain_leaf(explain, 0, &facts);
    esp_alloc_fail_at(-1);
    assert_true(code == ESP_OK || code == ESP_RESOURCE_EXHAUSTED);
    esp_facts_done(&facts);
    esp_explain_free(explain);
    explain = NULL;
    code = ok ? ESP_OK : ESP_RESOURCE_EXHAUSTED;
  }
  fixture_close(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(test_what_it_is), ESP_TEST(test_long_texts_are_cut),
                                     ESP_TEST(test_what_was_done_to_it), ESP_TEST(test_many), ESP_TEST(test_refusals)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
