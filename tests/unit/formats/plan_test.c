/* plan.c and plan_words.c: every operation in words, what each wrong line is told and where, and no memory. */
#include <string.h>

#include "base/alloc.h"
#include "formats/plan.h"
#include "tests/support/test.h"

/* ---- what an operation says, in words of this test's own ---- */

static char said[1024];

static void say(const char *format, ...) ESP_PRINTF(1, 2);
static void say(const char *format, ...) {
  size_t len = strlen(said);
  va_list args;
  va_start(args, format);
  vsnprintf(said + len, sizeof said - len, format, args);
  va_end(args);
}

static void say_text(const char *name, const char *text) {
  assert_non_null(text);
  if (text[0] != '\0')
    say(" %s=%s", name, text);
}

static void say_flag(const char *name, bool flag) {
  if (flag)
    say(" %s", name);
}

static void say_number(const char *name, uint64_t number) {
  if (number != 0)
    say(" %s=%llu", name, (unsigned long long)number);
}

static void say_op(const struct esp_plan_op *op) {
  static const char *const kinds[] = {"freeze", "thaw",   "detach", "attach", "tie",  "untie",  "regroup",
                                      "adjust", "set",    "copy",   "rename", "add",  "remove", "reinit",
                                      "reset",  "create", "define", "delete", "name", "cancel", "undo"};
  say("%s", kinds[op->kind]);
  say_text("selection", op->selection);
  say_text("to", op->to);
  say_text("name", op->name);
  say_text("file", op->file);
  say_flag("transposed", op->transposed);
  say_flag("mean", op->mean);
  say_flag("reset", op->reset_state);
  if (op->init.kind != ESP_PLAN_ZEROS || op->init.seed != 0)
    say(" init=%d,%g,%g,%llu", (int)op->init.kind, op->init.a, op->init.b, (unsigned long long)op->init.seed);
  for (size_t i = 0; i < op->hypers_len; i++)
    say(" %s:%s", op->hypers[i].name, op->hypers[i].value);
  if (op->dtype != ESP_DTYPE_NONE) {
    char shape[ESP_SHAPE_TEXT_MAX];
    say(" %s%s", esp_dtype_name(op->dtype), esp_shape_print(&op->shape, shape));
  }
  say_flag("buffer", op->is_buffer);
  say_flag("frozen", op->frozen);
  say_flag("detached", op->detached);
  say_text("tag", op->tag);
  say_text("group", op->group);
  say_text("alias", op->alias_of);
  say_number("epoch", op->epoch);
  say_number("at", op->at_commit);
  say_number("until", op->until_commit);
  say_number("for", op->for_ms);
  say_flag("gradual", op->one_by_one);
  say_number("every", op->every);
  say_number("timer", op->timer);
}

/* The text is these operations, separated by "; ". */
static void assert_says(const char *text, const char *want) {
  struct esp_plan plan;
  struct esp_status st;
  esp_plan_init(&plan);
  if (esp_plan_add_text(&plan, "f", text, strlen(text), &st) != ESP_OK)
    fail_msg("\"%s\": %s", text, st.message);
  said[0] = '\0';
  for (size_t i = 0; i < plan.len; i++) {
    say("%s", i > 0 ? "; " : "");
    say_op(&plan.ops[i]);
  }
  assert_string_equal(said, want);
  esp_plan_done(&plan);
  esp_plan_done(&plan);
}

static void assert_wrong(const char *text, const char *message) {
  struct esp_plan plan;
  struct esp_status st = {0};
  esp_plan_init(&plan);
  assert_int_equal(esp_plan_add_text(&plan, "f", text, strlen(text), &st), ESP_INVALID_ARGUMENT);
  assert_string_equal(st.message, message);
  esp_plan_done(&plan);
}

#define FREEZE_WORDS "SELECTION [--for TIME | --until-commit N] [--at-commit N]"
#define FREEZE_USAGE "freeze " FREEZE_WORDS

/* ---- tests ---- */

static void every_operation(void **state) {
  (void)state;
  assert_says("freeze enc", "freeze selection=enc");
  assert_says("thaw enc", "thaw selection=enc");
  assert_says("thaw --reset-state enc", "thaw selection=enc reset");
  assert_says("detach enc", "detach selection=enc");
  assert_says("attach enc", "attach selection=enc");
  assert_says("tie head.w emb.w", "tie selection=head.w to=emb.w");
  assert_says("tie head.w emb.w --transpose --value mean", "tie selection=head.w to=emb.w transposed mean");
  assert_says("tie --value keep a b", "tie selection=a to=b");
  assert_says("untie head.w", "untie selection=head.w");
  assert_says("untie head.w --state reset", "untie selection=head.w reset");
  assert_says("untie head.w --state=copy", "untie selection=head.w");
  assert_says("regroup head fast", "regroup selection=head to=fast");
  assert_says("adjust fast lr=0.1", "adjust name=fast lr:0.1");
  assert_says("adjust fast adamw.lr=cosine(1,warmup=2) x==", "adjust name=fast adamw.lr:cosine(1,warmup=2) x:=");
  assert_says("set enc.b b.npy --reset-state", "set selection=enc.b file=b.npy reset");
  assert_says("copy a b", "copy selection=a to=b");
  assert_says("rename a b", "rename selection=a to=b");
  assert_says("remove a", "remove selection=a");
  assert_says("reset a", "reset selection=a");
  assert_says("group create fast 'sgd(lr=1) | sgd(lr=2)'", "create to=sgd(lr=1) | sgd(lr=2) name=fast");
  assert_says("group set fast sgd(lr=1)", "define to=sgd(lr=1) name=fast");
  assert_says("group delete fast", "delete name=fast");
  assert_says("name backbone 'enc & !name:bias'", "name selection=enc & !name:bias name=backbone");
  assert_says("name backbone ''", "name name=backbone");
  assert_says("timer cancel 3", "cancel timer=3");
  assert_says("undo", "undo");
  assert_says("undo 18446744073709551615", "undo epoch=18446744073709551615");
}

static void timed(void **state) {
  (void)state;
  assert_says("freeze enc --for 10m", "freeze selection=enc for=600000");
  assert_says("freeze --for=1h30m enc", "freeze selection=enc for=5400000");
  assert_says("freeze enc --until-commit 500", "freeze selection=enc until=500");
  assert_says("freeze enc --at-commit 1", "freeze selection=enc at=1");
  assert_says("freeze enc --until-commit 2 --at-commit 1", "freeze selection=enc at=1 until=2");
  assert_says("freeze enc --at-commit 18446744073709551615 --for 500ms",
              "freeze selection=enc at=18446744073709551615 for=500");
  assert_says("thaw enc --at-commit 7 --reset-state", "thaw selection=enc reset at=7");
  assert_says("thaw 'layers.[11-0]' --one-by-one --every 500", "thaw selection=layers.[11-0] gradual every=500");
  assert_says("thaw --every=1 --one-by-one --reset-state a", "thaw selection=a reset gradual every=1");
  assert_says("timer cancel 18446744073709551615", "cancel timer=18446744073709551615");
  static const char *const times[] = {"", "0s", "10", "10 m", "-1s", "1.5h", "m", "30m1h", "213503982335d"};
  for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
    char line[64], message[128];
    snprintf(line, sizeof line, "freeze a --for '%s'", times[i]);
    snprintf(message, sizeof message, "f:1:16: '%s' is no time; expected one as 500ms, 10s, 10m, 1h30m, 2d", times[i]);
    assert_wrong(line, message);
  }
}

static void contradictions(void **state) {
  (void)state;
  assert_wrong("freeze a --for 1s --until-commit 5",
               "f:1:10: --for and --until-commit both say when it ends: give one of them");
  assert_wrong("freeze a --until-commit=5 --for=1s",
               "f:1:27: --for and --until-commit both say when it ends: give one of them");
  assert_wrong("freeze a --at-commit 5 --until-commit 5", "f:1:24: --until-commit 5 is not after --at-commit 5");
  assert_wrong("freeze --until-commit=4 a --at-commit 5", "f:1:8: --until-commit 4 is not after --at-commit 5");
  assert_wrong("freeze a --at-commit 0", "f:1:22: '0' is no commit; expected a number from 1");
  assert_wrong("freeze a --until-commit 1x", "f:1:25: '1x' is no commit; expected a number from 1");
  assert_wrong("freeze a --until-commit -1", "f:1:25: '-1' is no commit; expected a number from 1");
  assert_wrong("freeze a --every 5", "f:1:10: freeze takes no --every; it is " FREEZE_USAGE);
  assert_wrong("thaw a --one-by-one", "f:1:8: --one-by-one needs --every N, the commits between two thaws");
  assert_wrong("thaw a --every 5", "f:1:8: --every needs --one-by-one");
  assert_wrong("thaw a --one-by-one --every 5 --at-commit 9",
               "f:1:31: --one-by-one begins now: it takes no --at-commit");
  assert_wrong("thaw a --one-by-one --every 0", "f:1:29: '0' is no count of commits; expected a number from 1");
  assert_wrong("thaw a --for 1s",
               "f:1:8: thaw takes no --for; it is thaw SELECTION [--reset-state] [--at-commit N | --one-by-one --every "
               "N]");
  assert_wrong("timer", "f:1:6: timer needs cancel");
  assert_wrong("timer list", "f:1:7: timer 'list': expected cancel");
  assert_wrong("timer cancel", "f:1:13: timer cancel needs ID");
  assert_wrong("timer cancel 0", "f:1:14: '0' is no timer; expected a number from 1");
  assert_wrong("timer cancel 18446744073709551616",
               "f:1:14: '18446744073709551616' is no timer; expected a number from 1");
  assert_wrong("timer cancel 1 2", "f:1:16: '2' is one word too many for timer cancel ID");
  assert_wrong("cancel 1", "f:1:1: there is no operation 'cancel'");
}

static void initializers(void **state) {
  (void)state;
  assert_says("reinit a zeros", "reinit selection=a");
  assert_says("reinit a constant(0.5)", "reinit selection=a init=1,0.5,0,0");
  assert_says("reinit a uniform(-1,1) --seed 7", "reinit selection=a init=2,-1,1,7");
  assert_says("reinit --seed 18446744073709551615 a 'normal( 0 , 2e-2 )'",
              "reinit selection=a init=3,0,0.02,18446744073709551615");
  static const char *const wrong[] = {"",
                                      "zero",
                                      "zeros()",
                                      "constant",
                                      "constant()",
                                      "constant(1",
                                      "constant(1,2)",
                                      "uniform(1)",
                                      "uniform(1,2,)",
                                      "normal(1,x)",
                                      "normal(1;2)",
                                      "constant(nan)",
                                      "constant(0x1)",
                                      "constant(1)1",
                                      "constant(1e999)",
                                      "constant(1e)",
                                      "constant(--1)",
                                      "uniform(1,2)x"};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    char line[64], message[256];
    snprintf(line, sizeof line, "reinit a '%s'", wrong[i]);
    snprintf(message, sizeof message,
             "f:1:10: '%s' is no initializer; expected zeros, constant(x), uniform(low,high) or normal(mean,stddev)",
             wrong[i]);
    assert_wrong(line, message);
  }
}

static void added_leaves(void **state) {
  (void)state;
  assert_says("add a.b f32 3", "add selection=a.b f32[3]");
  assert_says("add a.b f64 3x4x5", "add selection=a.b f64[3, 4, 5]");
  assert_says("add a.b bf16 scalar", "add selection=a.b bf16[]");
  assert_says("add a.b f16 '[3, 4]'", "add selection=a.b f16[3, 4]");
  assert_says("add a.b f16 []", "add selection=a.b f16[]");
  assert_says("add a.b f32 1x1x1x1x1x1x1x1", "add selection=a.b f32[1, 1, 1, 1, 1, 1, 1, 1]");
  assert_says(
      "add a.b f32 3 --init constant(2) --seed 4 --kind buffer --tag T --group g --frozen --detached --alias-of c "
      "--transpose",
      "add selection=a.b transposed init=1,2,0,4 f32[3] buffer frozen detached tag=T group=g alias=c");
  assert_wrong("add a f8 3", "f:1:7: 'f8' is no dtype; expected f32, f64, bf16 or f16");
  static const char *const shapes[] = {"",
                                       "0",
                                       "3x0",
                                       "3x",
                                       "x3",
                                       "3,4",
                                       "[3",
                                       "3]",
                                       "[3x4]",
                                       "-1",
                                       "3 4",
                                       "[3,,4]",
                                       "3.5",
                                       "[3]]",
                                       "[3]x",
                                       "scalars",
                                       "[scalar]",
                                       "1x1x1x1x1x1x1x1x1",
                                       "18446744073709551616"};
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
    char line[64], message[256];
    snprintf(line, sizeof line, "add a f32 '%s'", shapes[i]);
    snprintf(message, sizeof message,
             "f:1:11: '%s' is no shape; expected dimensions from 1 as 64x32, at most 8 of them, or scalar", shapes[i]);
    assert_wrong(line, message);
  }
  assert_wrong("add a f32 3 --kind odd", "f:1:20: 'odd': expected trained or buffer");
  assert_wrong("add a f32 3x3 --transpose", "f:1:26: --transpose needs --alias-of LEAF");
}

static void a_file_is_lines(void **state) {
  (void)state;
  assert_says("", "");
  assert_says("\n  # nothing yet\n\t\n", "");
  assert_says("# first\nfreeze a\r\n\r\n  thaw b # the rest\nreset c",
              "freeze selection=a; thaw selection=b; reset selection=c");
  assert_says("freeze a#b", "freeze selection=a#b"); /* no word begins there */
  assert_says("freeze '#a'", "freeze selection=#a");
  assert_wrong("freeze a\n\n  frezee b\n", "f:3:3: there is no operation 'frezee'");
  assert_wrong("freeze \xc3\xa9 \xc3\xa9", "f:1:10: '\xc3\xa9' is one word too many for " FREEZE_USAGE);
  assert_wrong("freeze a\nfreeze \xff", "f:2:1: the line is not UTF-8 text");
  struct esp_plan plan;
  struct esp_status st;
  esp_plan_init(&plan);
  assert_int_equal(esp_plan_add_text(&plan, "f", "freeze a\0b", 10, &st), ESP_INVALID_ARGUMENT);
  assert_string_equal(st.message, "f:1:1: the line is not UTF-8 text");
  assert_int_equal(esp_plan_add_text(&plan, "f", "", ESP_PLAN_BYTES_MAX + 1u, &st), ESP_INVALID_ARGUMENT);
  assert_string_equal(st.message, "f: it has more than 16777216 bytes, the most of a plan");
  esp_plan_done(&plan);
}

static void quotes_are_a_shell_s(void **state) {
  (void)state;
  assert_says("freeze 'a b'", "freeze selection=a b");
  assert_says("freeze \"a b\"", "freeze selection=a b");
  assert_says("freeze a' 'b\" \"c", "freeze selection=a b c");
  assert_says("freeze 'a\\\"b'", "freeze selection=a\\\"b");
  assert_says("freeze \"a\\\"b\\\\c\\d$e\"", "freeze selection=a\"b\\c\\d$e");
  assert_says("freeze a\\ b\\'", "freeze selection=a b'");
  assert_says("freeze \"it's\"", "freeze selection=it's");
  assert_wrong("freeze 'a", "f:1:8: a quote that is not closed on its line");
  assert_wrong("freeze a\"b\\\"", "f:1:9: a quote that is not closed on its line");
  assert_wrong("freeze a\\", "f:1:9: a backslash with nothing after it");
  assert_wrong("freeze ''", "f:1:8: an empty word, where a name or a selection was expected");
}

static void wrong_words_say_where(void **state) {
  (void)state;
  assert_wrong("freeze", "f:1:7: freeze needs " FREEZE_WORDS);
  assert_wrong("freeze  # all", "f:1:9: freeze needs " FREEZE_WORDS);
  assert_wrong("tie a", "f:1:6: tie needs LEAF TO [--transpose] [--value keep|mean]");
  assert_wrong("tie a b c", "f:1:9: 'c' is one word too many for tie LEAF TO [--transpose] [--value keep|mean]");
  assert_wrong("tie a b --value max", "f:1:17: 'max': expected keep or mean");
  assert_wrong("tie a b --value=max", "f:1:9: 'max': expected keep or mean");
  assert_wrong("tie a b --value", "f:1:16: --value needs a value");
  assert_wrong("tie a b --transpose=yes", "f:1:9: --transpose takes no value");
  assert_wrong("freeze a --transpose", "f:1:10: freeze takes no --transpose; it is " FREEZE_USAGE);
  assert_wrong("freeze a --nosuch=x", "f:1:10: freeze takes no --nosuch; it is " FREEZE_USAGE);
  assert_wrong("untie a --state keep", "f:1:17: 'keep': expected copy or reset");
  assert_wrong("reinit a zeros --seed -1", "f:1:23: '-1' is no seed; expected a number from 0 to 2^64-1");
  assert_wrong("reinit a zeros --seed 18446744073709551616",
               "f:1:23: '18446744073709551616' is no seed; expected a number from 0 to 2^64-1");
  assert_wrong("adjust fast", "f:1:12: adjust needs GROUP NAME=VALUE...");
  assert_wrong("adjust fast lr", "f:1:13: 'lr': expected NAME=VALUE, as lr=0.01");
  assert_wrong("adjust fast lr=1 =2", "f:1:18: '=2': expected NAME=VALUE, as lr=0.01");
  assert_wrong("adjust fast lr=", "f:1:13: 'lr=': expected NAME=VALUE, as lr=0.01");
  assert_wrong("group", "f:1:6: group needs create, set or delete");
  assert_wrong("group show fast", "f:1:7: group 'show': expected create, set or delete");
  assert_wrong("group create fast", "f:1:18: group create needs GROUP OPTIMIZER");
  assert_wrong("create fast sgd", "f:1:1: there is no operation 'create'");
  assert_wrong("'group create' fast sgd", "f:1:1: there is no operation 'group create'");
  assert_wrong("undo 0", "f:1:6: '0' is no epoch; expected a number from 1");
  assert_wrong("undo 1x", "f:1:6: '1x' is no epoch; expected a number from 1");
  assert_wrong("undo 1 2", "f:1:8: '2' is one word too many for undo [EPOCH]");
  assert_wrong("name '' a", "f:1:6: an empty word, where a name or a selection was expected");
  assert_says("freeze -- --odd", "freeze selection=--odd");
  assert_says("adjust -- --g a=--b", "adjust name=--g a:--b");
}

static void too_much_is_refused(void **state) {
  (void)state;
  char line[2048] = "adjust g";
  for (size_t i = 0; i < ESP_PLAN_WORDS_MAX - 2; i++)
    strcat(line, " a=1");
  struct esp_plan plan;
  struct esp_status st;
  esp_plan_init(&plan);
  assert_int_equal(esp_plan_add_text(&plan, "f", line, strlen(line), &st), ESP_OK);
  assert_int_equal(plan.ops[0].hypers_len, 126);
  strcat(line, " b=1");
  assert_int_equal(esp_plan_add_text(&plan, "f", line, strlen(line), &st), ESP_INVALID_ARGUMENT);
  assert_string_equal(st.message, "f:1:514: too many words for one operation");
  const char *words[ESP_PLAN_WORDS_MAX + 1];
  for (size_t i = 0; i <= ESP_PLAN_WORDS_MAX; i++)
    words[i] = "freeze";
  size_t word = 0;
  assert_int_equal(esp_plan_add_words(&plan, words, ESP_PLAN_WORDS_MAX + 1, &word, &st), ESP_INVALID_ARGUMENT);
  assert_int_equal(word, ESP_PLAN_WORDS_MAX);
  assert_int_equal(esp_plan_add_words(&plan, words, 0, &word, &st), ESP_INVALID_ARGUMENT);
  assert_string_equal(st.message, "no operation is named");
  while (plan.len < ESP_PLAN_OPERATIONS_MAX)
    assert_int_equal(esp_plan_add_words(&plan, words, 2, NULL, NULL), ESP_OK);
  assert_int_equal(esp_plan_add_text(&plan, "f", "freeze a", 8, &st), ESP_INVALID_ARGUMENT);
  assert_string_equal(st.message, "f:1:9: more than 10000 operations, which is the most of a transaction");
  esp_plan_done(&plan);
}

/* Words from elsewhere may not be UTF-8. */
static void words_are_text(void **state) {
  (void)state;
  static const char *const lines[][3] = {
      {"freeze", "\xff", NULL}, {"adjust", "a", "b=\xff"}, {"group", "delete", "\xff"}};
  struct esp_plan plan;
  struct esp_status st;
  esp_plan_init(&plan);
  for (size_t i = 0; i < 3; i++) {
    size_t word = 0;
    size_t len = lines[i][2] == NULL ? 2 : 3;
    assert_int_equal(esp_plan_add_words(&plan, lines[i], len, &word, &st), ESP_INVALID_ARGUMENT);
    assert_string_equal(st.message, "this is not UTF-8 text");
    assert_int_equal(word, len - 1);
  }
  assert_int_equal(plan.len, 0);
  esp_plan_done(&plan);
}

static void without_memory(void **state) {
  (void)state;
  static const char text[] = "adjust g a=1 b=2\nadd a f32 3 --tag T --group g --alias-of c\nname n 'a b'\n";
  enum esp_code code = ESP_RESOURCE_EXHAUSTED;
  unsigned failures = 0;
  for (int64_t n = 0; code != ESP_OK; n++) {
    struct esp_plan plan;
    struct esp_status st;
    esp_plan_init(&plan);
    esp_alloc_fail_at(n);
    code = esp_plan_add_text(&plan, "f", text, sizeof text - 1, &st);
    esp_alloc_fail_at(-1);
    if (code != ESP_OK) {
      failures++;
      assert_int_equal(code, ESP_RESOURCE_EXHAUSTED);
      assert_string_equal(st.message, "no memory for so many operations");
    }
    esp_plan_done(&plan);
  }
  assert_true(failures >= 2); /* the list, and the strings' blocks */
}

static void usages(void **state) {
  (void)state;
  assert_string_equal(esp_plan_usage("tie"), "LEAF TO [--transpose] [--value keep|mean]");
  assert_string_equal(esp_plan_usage("group delete"), "GROUP");
  assert_null(esp_plan_usage("group"));
  assert_null(esp_plan_usage("nosuch"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      ESP_TEST(every_operation),      ESP_TEST(initializers),          ESP_TEST(timed),
      ESP_TEST(contradictions),       ESP_TEST(added_leaves),          ESP_TEST(a_file_is_lines),
      ESP_TEST(quotes_are_a_shell_s), ESP_TEST(wrong_words_say_where), ESP_TEST(too_much_is_refused),
      ESP_TEST(words_are_text),       ESP_TEST(without_memory),        ESP_TEST(usages),
  };
  return cmocka_run_group_tests_name("formats.plan", tests, NULL, NULL);
}
