/* A plan's file as a transaction: that every operation arrives with all that was written, and what is refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plan/plan.h"
#include "tests/support/test.h"

static const struct esp_named groups[] = {{"default", "sgd(lr=1)"}, {"head", "sgd(lr=0.1)"}};

/* Reads this text as a plan: the file has the name in `name`, which is then gone. */
static enum esp_code read_text(const char *text, char name[32], struct esp_plan_request *ret, struct esp_status *st) {
  snprintf(name, 32, "/tmp/plan-test-XXXXXX");
  int fd = mkstemp(name);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
  close(fd);
  enum esp_code code = esp_plan_request_read(name, groups, 2, ret, st);
  unlink(name);
  return code;
}

static void test_operations(void **state) {
  (void)state;
  struct esp_plan_request plan;
  struct esp_status st = {0};
  char name[32], place[64], reason[64];
  const char *text = "# what is trained\n"
                     "freeze encoder\n"
                     "thaw encoder.top --reset-state\n"
                     "tie a b --transpose --value mean\n"
                     "untie c --state reset\n"
                     "regroup d head\n"
                     "adjust head lr=0.5 momentum=0.9\n"
                     "adjust default lr=2\n"
                     "add e.w f64 2x3 --init 'normal(0,2)' --seed 7 --tag T --group head --frozen --detached\n"
                     "add e.b f32 3 --kind buffer --alias-of e.c\n"
                     "reinit f 'uniform(-1,1)'\n"
                     "\n"
                     "group create slow 'sgd(lr=0.1)'\n"
                     "group set slow 'sgd(lr=0.2)'\n"
                     "group set head 'sgd(lr=0.3)'\n"
                     "group delete head\n"
                     "group create head 'sgd(lr=0.4)'\n"
                     "name back 'a | b'\n"
                     "detach g\nattach g\ncopy h i\nrename j k\nremove l\nreset m\n";
  if (read_text(text, name, &plan, &st) != ESP_OK)
    fail_msg("%s", st.message);
  const struct esp_operation *op = plan.request.operations;
  static const enum esp_operation_kind kinds[] = {
      ESP_OPERATION_FREEZE,       ESP_OPERATION_THAW,         ESP_OPERATION_TIE,          ESP_OPERATION_UNTIE,
      ESP_OPERATION_REGROUP,      ESP_OPERATION_ADJUST,       ESP_OPERATION_ADJUST,       ESP_OPERATION_ADD,
      ESP_OPERATION_ADD,          ESP_OPERATION_REINIT,       ESP_OPERATION_DEFINE_GROUP, ESP_OPERATION_DEFINE_GROUP,
      ESP_OPERATION_DEFINE_GROUP, ESP_OPERATION_DELETE_GROUP, ESP_OPERATION_DEFINE_GROUP, ESP_OPERATION_NAME_SELECTION,
      ESP_OPERATION_DETACH,       ESP_OPERATION_ATTACH,       ESP_OPERATION_COPY,         ESP_OPERATION_RENAME,
      ESP_OPERATION_REMOVE,       ESP_OPERATION_RESET};
  assert_int_equal(plan.request.operations_len, sizeof(kinds) / sizeof(*kinds));
  for (size_t i = 0; i < plan.request.operations_len; i++)
    assert_int_equal(op[i].kind, kinds[i]);
  snprintf(place, sizeof(place), "%s:2", name);
  assert_string_equal(op[0].place, place);
  snprintf(place, sizeof(place), "%s:13", name);
  assert_string_equal(op[10].place, place);
  assert_string_equal(op[0].selection, "encoder");
  assert_true(op[1].reset_state && !op[0].reset_state);
  assert_true(op[2].mean && op[2].view == ESP_VIEW_TRANSPOSE);
  assert_string_equal(op[2].to, "b");
  assert_true(op[3].reset_state);
  assert_string_equal(op[4].to, "head");
  assert_string_equal(op[5].name, "head");
  assert_int_equal(op[5].hypers_len, 2);
  assert_string_equal(op[5].hypers[1].name, "momentum");
  assert_string_equal(op[5].hypers[1].value, "0.9");
  assert_string_equal(op[6].hypers[0].value, "2");
  const struct esp_declare_leaf *leaf = op[7].leaf;
  assert_string_equal(leaf->path, "e.w");
  assert_int_equal(leaf->path_len, 3);
  assert_true(leaf->shape.rank == 2 && leaf->shape.dims[1] == 3 && leaf->dtype == ESP_DTYPE_F64);
  assert_true(leaf->frozen && leaf->detached && leaf->kind == ESP_KIND_TRAINED);
  assert_string_equal(leaf->tag, "T");
  assert_string_equal(leaf->group, "head");
  assert_true(leaf->init.kind == ESP_INIT_NORMAL && leaf->init.b == 2 && leaf->init.seed == 7);
  assert_true(op[8].leaf->kind == ESP_KIND_BUFFER);
  assert_string_equal(op[8].leaf->alias_of, "e.c");
  assert_true(op[9].init.kind == ESP_INIT_UNIFORM && op[9].init.a == -1 && op[9].init.b == 1);
  assert_string_equal(op[15].name, "back");
  assert_string_equal(op[15].selection, "a | b");
  assert_string_equal(op[19].to, "k");
  assert_string_equal(plan.request.actor, "plan");
  snprintf(reason, sizeof(reason), "--plan %s", name);
  assert_string_equal(plan.request.reason, reason);
  assert_true(!plan.request.dry_run && plan.request.max_leaves == 0 && plan.request.if_epoch == 0);
  esp_plan_request_done(&plan);
  esp_plan_request_done(&plan);
}

static void test_timed(void **state) {
  (void)state;
  struct esp_plan_request plan;
  struct esp_status st = {0};
  char name[32];
  const char *text = "freeze a --at-commit 7 --until-commit 9\n"
                     "freeze b --for 10m\n"
                     "thaw c --at-commit 8 --reset-state\n"
                     "thaw 'd.[3-0]' --one-by-one --every 500\n";
  if (read_text(text, name, &plan, &st) != ESP_OK)
    fail_msg("%s", st.message);
  const struct esp_operation *op = plan.request.operations;
  assert_true(op[0].at_commit == 7 && op[0].until_commit == 9 && op[0].for_ms == 0);
  assert_true(op[1].for_ms == 600000 && op[1].at_commit == 0);
  assert_true(op[2].at_commit == 8 && op[2].reset_state && !op[2].one_by_one);
  assert_true(op[3].one_by_one && op[3].every == 500);
  esp_plan_request_done(&plan);
}

static void test_refusals(void **state) {
  (void)state;
  const struct {
    const char *text;
    const char *why;
  } cases[] = {
      {"", ": it has no operation"},
      {"# nothing\n\n", ": it has no operation"},
      {"freeze a\nfreze b\n", ":2:1: there is no operation 'freze'"},
      {"freeze a\n  freeze\n", ":2:9: freeze needs SELECTION"},
      {"freeze 'a\n", ":1:8: a quote that is not closed"},
      {"freeze \xff\n", ":1:1: the line is not UTF-8 text"},
      {"freeze a\nset a b.npy\n", ":2: a plan can't set values"},
      {"undo\n", ":1: a plan can't undo"},
      {"timer cancel 3\n", ":1: a plan can't cancel a timer"},
      {"group create head 'sgd(lr=1)'\n", ":1: the group is there already"},
      {"group create x 'sgd(lr=1)'\ngroup create x 'sgd(lr=1)'\n", ":2: the group is there already"},
      {"group set x 'sgd(lr=1)'\n", ":1: there is no such group"},
      {"group delete head\ngroup set head 'sgd(lr=1)'\n", ":2: there is no such group"},
  };
  for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
    struct esp_plan_request plan;
    struct esp_status st = {0};
    char name[32], expected[256];
    assert_int_equal(read_text(cases[i].text, name, &plan, &st), ESP_INVALID_ARGUMENT);
    snprintf(expected, sizeof(expected), "--plan: %s%s", name, cases[i].why);
    if (strncmp(st.message, expected, strlen(expected)) != 0)
      fail_msg("case %zu: %s", i, st.message);
    esp_plan_request_done(&plan);
  }
}

static void test_no_file(void **state) {
  (void)state;
  struct esp_plan_request plan;
  struct esp_status st = {0};
  assert_int_equal(esp_plan_request_read("/nonexistent/plan", groups, 2, &plan, &st), ESP_NOT_FOUND);
  assert_non_null(strstr(st.message, "/nonexistent/plan can't be opened"));
  esp_plan_request_done(&plan);
  assert_int_equal(esp_plan_request_read("/tmp", groups, 2, &plan, &st), ESP_INVALID_ARGUMENT);
  assert_non_null(strstr(st.message, "/tmp can't be read"));
  esp_plan_request_done(&plan);
}

/* It goes to the history, and so to clients that take nothing but UTF-8. */
static void test_a_name_that_is_no_text(void **state) {
  (void)state;
  struct esp_plan_request plan;
  struct esp_status st = {0};
  char name[32], other[40], reason[64];
  if (read_text("freeze a\n", name, &plan, &st) != ESP_OK)
    fail_msg("%s", st.message);
  esp_plan_request_done(&plan);
  snprintf(other, sizeof(other), "%s\xe9\n", name);
  FILE *file = fopen(other, "w");
  assert_non_null(file);
  fputs("freeze a\n", file);
  fclose(file);
  assert_int_equal(esp_plan_request_read(other, groups, 2, &plan, &st), ESP_OK);
  assert_int_equal(unlink(other), 0);
  snprintf(reason, sizeof(reason), "--plan %s\\xe9\\x0a", name);
  assert_string_equal(plan.request.reason, reason);
  esp_plan_request_done(&plan);
}

int main(void) {
  const struct CMUnitTest tests[] = {ESP_TEST(test_operations), ESP_TEST(test_timed), ESP_TEST(test_refusals),
                                     ESP_TEST(test_no_file), ESP_TEST(test_a_name_that_is_no_text)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
