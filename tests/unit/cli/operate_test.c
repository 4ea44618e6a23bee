/* Tests of the commands that change something. */
#include "tests/unit/cli/fixture.h"

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
  const char *const notes[] = {"it is gone"};
  fake.apply = (struct esp_apply_result){.epoch = 4, .matched = 2, .notes = notes, .notes_len = 1};
  assert_run("undo 3", "note: it is gone\nnothing was changed (epoch 4)\n");
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

/* ---- operations ---- */

static void assert_says(const char *line, const char *said) {
  run(line);
  assert_string_equal(result.err, "");
  assert_int_equal(result.exit_code, 0);
  assert_string_equal(fake.said, said);
}

static void every_command_is_its_operation(void **state) {
  (void)state;
  assert_says("freeze enc", "FREEZE enc\n");
  assert_says("thaw enc --reset-state", "THAW enc reset\n");
  assert_says("detach enc", "DETACH enc\n");
  assert_says("attach enc", "ATTACH enc\n");
  assert_says("tie head.w emb.w", "TIE head.w to:emb.w\n");
  assert_says("tie head.w --transpose emb.w --value mean", "TIE head.w to:emb.w transposed mean\n");
  assert_says("untie head.w", "UNTIE head.w\n");
  assert_says("untie head.w --state=reset", "UNTIE head.w reset\n");
  assert_says("regroup head fast", "REGROUP head to:fast\n");
  assert_says("adjust fast lr=0.1 adamw.beta1=0.8", "ADJUST name:fast lr=0.1 adamw.beta1=0.8\n");
  assert_says("copy a b", "COPY a to:b\n");
  assert_says("rename a b", "RENAME a to:b\n");
  assert_says("remove a", "REMOVE a\n");
  assert_says("reinit a zeros", "REINIT a\n");
  assert_says("reinit a constant(3)", "REINIT a init:1,3,0,0\n");
  assert_says("reinit a uniform(-1,1) --seed 7", "REINIT a init:2,-1,1,7\n");
  assert_says("reinit a normal(0,2)", "REINIT a init:3,0,2,0\n");
  assert_says("reset a", "RESET a\n");
  fake.group = "fast";
  assert_says("group delete fast", "DELETE name:fast\n");
  assert_says("name n a", "NAME name:n a\n");
  assert_says("name n ", "NAME name:n\n");
  assert_says("add a.b f64 3x4", "ADD a.b leaf:a.b,2,3,4,2,1,,,,0,0,0\n");
  assert_says("add a.b f32 3 --kind buffer --tag T --group g --frozen --detached --alias-of c --transpose --init "
              "constant(2)",
              "ADD a.b transposed init:1,2,0,0 leaf:a.b,1,3,0,1,2,T,g,c,1,1,1\n");
  assert_says("freeze enc --for 1h30m", "FREEZE enc for:5400000\n");
  assert_says("freeze --until-commit=9 enc --at-commit 7", "FREEZE enc at:7 until:9\n");
  assert_says("thaw enc --at-commit 7 --reset-state", "THAW enc reset at:7\n");
  assert_says("thaw layers.[11-0] --one-by-one --every 500", "THAW layers.[11-0] gradual:1,500\n");
  assert_says("timer cancel 3", "CANCEL timer:3\n");
  assert_says("freeze -- --odd", "FREEZE --odd\n");
  assert_says("undo", "UNDO\n");
  assert_says("undo 17", "UNDO epoch:17\n");
}

static void groups_are_created_once_and_set_after(void **state) {
  (void)state;
  assert_says("group create slow sgd(lr=1)", "DEFINE name:slow to:sgd(lr=1)\n");
  assert_int_equal(fake.apply_options.if_epoch, 4); /* the epoch at which there was none */
  assert_true(fake.applies == 2 && fake.dry_runs == 1);
  assert_fails("group set slow sgd(lr=1)", 3, "espctl: there is no group slow; group create makes one\n");
  fake.group = "fast";
  assert_says("group set fast sgd(lr=1) --if-epoch 9", "DEFINE name:fast to:sgd(lr=1)\n");
  assert_int_equal(fake.apply_options.if_epoch, 9);
  assert_says("group set default sgd(lr=1)", "DEFINE name:default to:sgd(lr=1)\n");
  assert_fails("group create fast sgd(lr=1)", 4,
               "espctl: there is a group fast already; group set gives it another optimizer\n");
  assert_true(fake.apply_options.dry_run); /* the last call was the question */
  /* What the operations before say counts. */
  assert_says("apply -e group\tdelete\tfast -e group\tcreate\tfast\tsgd(lr=2) -e group\tset\tfast\tsgd(lr=3)",
              "DELETE name:fast\nDEFINE name:fast to:sgd(lr=2)\nDEFINE name:fast to:sgd(lr=3)\n");
  assert_fails("apply -e group\tcreate\tslow\tsgd(lr=2) -e group\tcreate\tslow\tsgd(lr=2)", 4,
               "espctl: there is a group slow already; group set gives it another optimizer\n");
  assert_fails("group nosuch fast", 2, "espctl: group 'nosuch': expected create, set or delete\n");
  fake.code = ESP_UNAVAILABLE;
  fake.message = "gone";
  run("group create slow sgd(lr=1)");
  assert_int_equal(result.exit_code, 5);
}

static void wrong_words_are_an_error_of_usage(void **state) {
  (void)state;
  assert_fails("tie a", 2, "espctl: tie needs LEAF TO; see espctl help tie\n");
  assert_fails("tie a b --value max", 2, "espctl: 'max': expected keep or mean\n");
  assert_fails("freeze a --transpose", 2,
               "espctl: freeze takes no --transpose; espctl help freeze lists what it takes\n");
  assert_fails("reinit a one", 2,
               "espctl: 'one' is no initializer; expected zeros, constant(x), uniform(low,high) or "
               "normal(mean,stddev)\n");
  assert_fails("adjust fast lr", 2, "espctl: 'lr': expected NAME=VALUE, as lr=0.01\n");
  assert_fails("freeze a --for 1s --until-commit 5", 2,
               "espctl: --for and --until-commit both say when it ends: give one of them\n");
  assert_fails("thaw a --one-by-one", 2, "espctl: --one-by-one needs --every N, the commits between two thaws\n");
  assert_fails("tie a b --every 5", 2, "espctl: tie takes no --every; espctl help tie lists what it takes\n");
  assert_fails("timer cancel x", 2, "espctl: 'x' is no timer; expected a number from 1\n");
  assert_fails("timer list 3", 2, "espctl: timer 'list': expected cancel\n");
  assert_fails("timer cancel", 2, "espctl: timer needs ACTION ID; see espctl help timer\n");
  assert_fails("apply", 2, "espctl: there is no operation to apply; see espctl help apply\n");
  assert_fails("apply -e #", 2, "espctl: there is no operation to apply; see espctl help apply\n");
  assert_int_equal(fake.applies, 0);
}

static void several_are_one_transaction(void **state) {
  (void)state;
  fake.apply = (struct esp_apply_result){.epoch = 5, .commit = 6, .changes_len = 1, .changes = changes};
  assert_run("apply -e freeze\tenc --reason why -e tie\t'a\tb'\tc --operation reset\tenc",
             "enc.bias  frozen  no -> yes\n"
             "1 change; commit 6, epoch 5\n");
  assert_string_equal(fake.said, "FREEZE enc\nTIE a\tb to:c\nRESET enc\n");
  assert_string_equal(fake.reason, "why");
  assert_int_equal(fake.applies, 1);
  assert_fails("apply -e freeze -e thaw\ta", 2,
               "espctl: -e 1:1:7: freeze needs SELECTION [--for TIME | --until-commit N] [--at-commit N]\n");
  assert_fails("apply -e reset\ta\tb", 2, "espctl: -e:1:9: 'b' is one word too many for reset SELECTION\n");
}

static void a_file_has_one_a_line(void **state) {
  (void)state;
  char file[] = "/tmp/espctl-plan-XXXXXX";
  char line[128], message[160];
  int fd = mkstemp(file);
  FILE *stream = fdopen(fd, "w");
  fputs("# the head is trained anew\nfreeze enc\n\nadjust head lr=0.1 # slowly\n", stream);
  fflush(stream);
  snprintf(line, sizeof line, "apply -e reset\thead %s", file);
  assert_says(line, "RESET head\nFREEZE enc\nADJUST name:head lr=0.1\n");
  fputs("  detach\n", stream);
  fclose(stream);
  snprintf(message, sizeof message, "espctl: %s:5:9: detach needs SELECTION\n", file);
  snprintf(line, sizeof line, "apply %s", file);
  assert_fails(line, 2, message);
  unlink(file);
  run(line);
  assert_int_equal(result.exit_code, 3);
  assert_int_equal(fake.applies, 1);
}

static void set_uploads_what_it_sets(void **state) {
  (void)state;
  run("apply -e freeze\tenc -e set\tenc.bias\t/nonexistent/b.npy");
  assert_int_equal(result.exit_code, 3);
  assert_int_equal(fake.applies, 0);
}

/* ---- many leaves ---- */

static void many_leaves_need_a_yes(void **state) {
  (void)state;
  fake.apply = (struct esp_apply_result){.epoch = 4, .commit = 6, .changes_len = 1, .changes = changes};
  fake.matches = 10000;
  run("freeze enc");
  assert_int_equal(fake.apply_options.max_leaves, 10000);
  assert_int_equal(result.exit_code, 0);
  assert_int_equal(fake.applies, 1);
  fake.matches = 10001;
  assert_fails("freeze enc", 4,
               "espctl: this touches 10001 leaves, more than 10000: look with --dry-run, then pass --yes or a larger "
               "--max-leaves\n");
  assert_true(fake.apply_options.dry_run); /* nothing was applied */
  assert_fails("freeze enc --max-leaves 3", 4,
               "espctl: this touches 10001 leaves, more than 3: look with --dry-run, then pass --yes or a larger "
               "--max-leaves\n");
  run("freeze enc --yes");
  assert_int_equal(fake.apply_options.max_leaves, 0);
  assert_int_equal(result.exit_code, 0);
  run("freeze enc --max-leaves 20000");
  assert_int_equal(fake.apply_options.max_leaves, 20000);
  assert_int_equal(result.exit_code, 0);
}

static void a_dry_run_of_many_leaves_is_not_asked_about(void **state) {
  (void)state;
  fake.apply = (struct esp_apply_result){.epoch = 4, .changes_len = 1, .changes = changes};
  fake.matches = 10001;
  assert_run(
      "freeze enc --dry-run",
      "enc.bias  frozen  no -> yes\n"
      "1 change, 10001 leaves matched; this was a dry run. To make exactly this change, run it with --if-epoch 4 "
      "--yes\n");
  assert_fails("freeze enc --dry-run --max-leaves 5", 4, "espctl: too many leaves\n");
}

/* A refusal for another reason stays what it is. */
static void other_refusals_stand(void **state) {
  (void)state;
  fake.code = ESP_FAILED_PRECONDITION;
  fake.message = "the stage was used";
  assert_fails("freeze enc", 4, "espctl: the stage was used\n");
  assert_fails("freeze enc --yes", 4, "espctl: the stage was used\n");
}

static void what_is_of_no_leaf_says_nothing_of_leaves(void **state) {
  (void)state;
  static const struct esp_apply_change of_group[] = {{0, "fast", "optimizer", "sgd(lr=1)", "adam(lr=0.1)", ""},
                                                     {3, "a.b", "path", "a.b", "c.d", ""},
                                                     {4, "tied", "parameter", "own", "enc.bias transposed", ""}};
  fake.apply = (struct esp_apply_result){.epoch = 5, .commit = 6, .changes_len = 3, .changes = of_group};
  assert_run("adjust fast lr=1", "fast  optimizer  sgd(lr=1) -> adam(lr=0.1)\n"
                                 "a.b   path       a.b -> c.d\n"
                                 "tied  parameter  own -> enc.bias transposed\n"
                                 "3 changes; commit 6, epoch 5\n");
  fake.apply = (struct esp_apply_result){.epoch = 5};
  assert_run("adjust fast lr=1", "nothing to change: it is so already (epoch 5)\n");
}

/* Every field that the server's diffs have. */
static void each_field_of_a_diff_is_readable(void **state) {
  (void)state;
  static const struct esp_apply_change of_all[] = {
      {1, "a.w", "leaf", "", "f32 [3, 4]", ""},
      {2, "a.b", "leaf", "f32 [3] buffer", "", ""},
      {3, "c.d", "path", "a.d", "c.d", ""},
      {4, "t", "parameter", "parameter 7 (t)", "parameter 5 (e.w) transposed", "e.w"},
      {5, "x", "frozen", "false", "true", "e.w"},
      {6, "x", "detached", "true", "false", ""},
      {7, "x", "value", "", "copied from a.b", ""},
      {8, "x", "state", "", "reset", ""},
      {8, "x", "timer", "thaw at commit 500 (timer 3)", "", ""},
      {9, "x", "stepped_by", "default", "fast", ""},
      {0, "", "group", "default", "fast", ""},
      {0, "enc", "group", "", "slow", "enc.old"},
      {0, "enc", "tag", "Chain", "", ""},
      {0, "fast", "optimizer", "", "sgd(lr=1)", ""},
      {0, "@head", "selection", "a|b", "a", ""},
  };
  fake.apply = (struct esp_apply_result){.epoch = 5, .commit = 6, .changes_len = 15, .changes = of_all};
  assert_run("remove a.b", "a.w     leaf        added: f32 [3, 4]\n"
                           "a.b     leaf        removed: f32 [3] buffer\n"
                           "c.d     path        a.d -> c.d\n"
                           "t       parameter   7 (t) -> 5 (e.w) transposed             because tied to e.w\n"
                           "x       frozen      false -> true                           because tied to e.w\n"
                           "x       detached    true -> false\n"
                           "x       value       copied from a.b\n"
                           "x       state       reset\n"
                           "x       timer       thaw at commit 500 (timer 3) -> (none)\n"
                           "x       stepped by  default -> fast\n"
                           "(root)  group       default -> fast\n"
                           "enc     group       (none) -> slow                          as before at enc.old\n"
                           "enc     tag         Chain -> (none)\n"
                           "fast    optimizer   (none) -> sgd(lr=1)\n"
                           "@head   selection   a|b -> a\n"
                           "15 changes; commit 6, epoch 5\n");
}

static void without_memory_nothing_is_applied_by_half(void **state) {
  (void)state;
  static const char line[] = "apply -e add\ta.b\tf32\t3 -e adjust\tg\ta=1\tb=2 -e tie\ta\tb";
  run(line);
  char said[sizeof fake.said];
  memcpy(said, fake.said, sizeof said);
  fake.applies = 0;
  int64_t n = 0;
  do {
    unsigned before = fake.applies;
    esp_alloc_fail_at(n);
    run(line);
    esp_alloc_fail_at(-1);
    assert_true(result.exit_code == 0 || result.exit_code == 8);
    if (fake.applies > before)
      assert_string_equal(fake.said, said);
  } while (result.exit_code != 0 && n++ < 1000);
  assert_in_range(n, 5, 999);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(a_change_is_shown_with_its_reasons),
      TEST(a_dry_run_says_how_to_do_it),
      TEST(nothing_to_change_is_no_error),
      TEST(refusals_say_what_to_do),
      TEST(every_command_is_its_operation),
      TEST(groups_are_created_once_and_set_after),
      TEST(wrong_words_are_an_error_of_usage),
      TEST(several_are_one_transaction),
      TEST(a_file_has_one_a_line),
      TEST(set_uploads_what_it_sets),
      TEST(many_leaves_need_a_yes),
      TEST(a_dry_run_of_many_leaves_is_not_asked_about),
      TEST(other_refusals_stand),
      TEST(what_is_of_no_leaf_says_nothing_of_leaves),
      TEST(each_field_of_a_diff_is_readable),
      TEST(without_memory_nothing_is_applied_by_half),
  };
  return cmocka_run_group_tests_name("cli.operate", tests, NULL, NULL);
}
