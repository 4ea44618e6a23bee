/* The words of one operation.
 *
 * Happy path: one table has each operation's name, arguments and options, and the function that takes its arguments;
 * the words are sorted into arguments and options, then taken.
 *
 * How it fails: with a sentence that says what the operation takes, and the index of the word that is wrong. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/duration.h"
#include "base/utf8.h"
#include "formats/plan_internal.h"

/* One bit an option. */
enum option {
  TRANSPOSE = 1 << 0,
  VALUE = 1 << 1,
  STATE = 1 << 2,
  RESET_STATE = 1 << 3,
  SEED = 1 << 4,
  INIT = 1 << 5,
  KIND = 1 << 6,
  TAG = 1 << 7,
  GROUP = 1 << 8,
  FROZEN = 1 << 9,
  DETACHED = 1 << 10,
  ALIAS_OF = 1 << 11,
  FOR = 1 << 12,
  UNTIL_COMMIT = 1 << 13,
  AT_COMMIT = 1 << 14,
  ONE_BY_ONE = 1 << 15,
  EVERY = 1 << 16,
};

static const struct {
  const char *name;
  enum option option;
  bool takes_word;
} options[] = {
    {"transpose", TRANSPOSE, false},
    {"value", VALUE, true},
    {"state", STATE, true},
    {"reset-state", RESET_STATE, false},
    {"seed", SEED, true},
    {"init", INIT, true},
    {"kind", KIND, true},
    {"tag", TAG, true},
    {"group", GROUP, true},
    {"frozen", FROZEN, false},
    {"detached", DETACHED, false},
    {"alias-of", ALIAS_OF, true},
    {"for", FOR, true},
    {"until-commit", UNTIL_COMMIT, true},
    {"at-commit", AT_COMMIT, true},
    {"one-by-one", ONE_BY_ONE, false},
    {"every", EVERY, true},
};
#define OPTIONS_LEN (sizeof options / sizeof options[0])

/* Words that are being read. */
struct words {
  struct esp_plan *plan;
  const char *const *words;
  size_t len;
  size_t at;                       /* the word that is looked at, for what is wrong */
  size_t args[ESP_PLAN_WORDS_MAX]; /* indices of those that are arguments */
  size_t args_len;
  size_t options_at[OPTIONS_LEN]; /* the index of each that came */
  struct esp_plan_op *op;
  struct esp_status *st;
};

/* A word, or the value that stands in one with its option (--seed=7). */
struct word {
  const char *text;
  size_t at; /* its index */
};

struct verb {
  const char *name; /* of groups and timers in two words */
  const char *usage;
  enum esp_plan_kind kind;
  unsigned args_min;
  unsigned args_max;
  unsigned options;
  enum esp_code (*take)(struct words *words); /* its arguments, of which there are as many as it takes */
};

static enum esp_code fail(struct words *words, size_t at, const char *format, ...) ESP_PRINTF(3, 4);
static enum esp_code fail(struct words *words, size_t at, const char *format, ...) {
  va_list args;
  words->at = at;
  va_start(args, format);
  esp_fail_v(words->st, ESP_INVALID_ARGUMENT, format, args);
  va_end(args);
  return ESP_INVALID_ARGUMENT;
}

/* ---- values ---- */

static enum esp_code copy_text(struct words *words, const char *text, size_t len, const char **ret) {
  const char *copy = esp_arena_strndup(&words->plan->arena, text, len);
  if (copy == NULL)
    return esp_fail(words->st, ESP_RESOURCE_EXHAUSTED, "no memory for so many operations");
  *ret = copy;
  return ESP_OK;
}

static struct word arg(const struct words *words, size_t index) {
  return (struct word){words->words[words->args[index]], words->args[index]};
}

/* A word that may not be empty. */
static enum esp_code take_text(struct words *words, struct word word, const char **ret) {
  if (word.text[0] == '\0')
    return fail(words, word.at, "an empty word, where a name or a selection was expected");
  if (!esp_utf8_is_text(word.text, strlen(word.text)))
    return fail(words, word.at, "this is not UTF-8 text");
  return copy_text(words, word.text, strlen(word.text), ret);
}

/* A decimal number of len bytes: neither hexadecimal nor infinite. */
static bool read_number(const char *text, size_t len, double *ret) {
  char copy[64];
  if (len == 0 || len >= sizeof copy || strspn(text, "+-.0123456789eE") < len)
    return false;
  memcpy(copy, text, len);
  copy[len] = '\0';
  char *end;
  double number = strtod(copy, &end);
  if (*end != '\0' || !isfinite(number))
    return false;
  *ret = number;
  return true;
}

static bool read_u64(const char **text, uint64_t *ret) {
  uint64_t value = 0;
  const char *at = *text;
  for (; *at >= '0' && *at <= '9'; at++) {
    unsigned digit = (unsigned)(*at - '0');
    if (value > (UINT64_MAX - digit) / 10)
      return false;
    value = value * 10 + digit;
  }
  if (at == *text)
    return false;
  *text = at;
  *ret = value;
  return true;
}

/* "(1, 2)": as many numbers as wanted, and nothing after them. */
static bool read_numbers(const char *text, double *ret, size_t len) {
  if (*text++ != '(')
    return false;
  for (size_t i = 0; i < len; i++) {
    text += strspn(text, " ");
    size_t number_len = strcspn(text, " ,)");
    if (!read_number(text, number_len, &ret[i]))
      return false;
    text += number_len;
    text += strspn(text, " ");
    if (*text++ != (i + 1 < len ? ',' : ')'))
      return false;
  }
  return *text == '\0';
}

static enum esp_code take_init(struct words *words, struct word word, struct esp_plan_init *ret) {
  static const struct {
    const char *name;
    enum esp_plan_init_kind kind;
    size_t numbers;
  } inits[] = {{"constant", ESP_PLAN_CONSTANT, 1}, {"uniform", ESP_PLAN_UNIFORM, 2}, {"normal", ESP_PLAN_NORMAL, 2}};
  const char *text = word.text;
  double numbers[2] = {0};
  struct esp_plan_init init = {.kind = ESP_PLAN_ZEROS, .seed = ret->seed};
  bool ok = strcmp(text, "zeros") == 0;
  for (size_t i = 0; i < 3 && !ok; i++) {
    size_t len = strlen(inits[i].name);
    ok = strncmp(text, inits[i].name, len) == 0 && read_numbers(text + len, numbers, inits[i].numbers);
    init.kind = inits[i].kind;
  }
  if (!ok)
    return fail(words, word.at,
                "'%s' is no initializer; expected zeros, constant(x), uniform(low,high) or normal(mean,stddev)", text);
  init.a = numbers[0];
  init.b = numbers[1];
  *ret = init;
  return ESP_OK;
}

static enum esp_code take_dtype(struct words *words, struct word word) {
  for (enum esp_dtype dtype = ESP_DTYPE_F32; dtype <= ESP_DTYPE_F16; dtype++) {
    if (strcmp(word.text, esp_dtype_name(dtype)) != 0)
      continue;
    words->op->dtype = dtype;
    return ESP_OK;
  }
  return fail(words, word.at, "'%s' is no dtype; expected f32, f64, bf16 or f16", word.text);
}

/* "64x32", "[64, 32]" as it is printed, or "scalar". */
static bool read_shape(const char *text, struct esp_shape *ret) {
  struct esp_shape shape = {0};
  bool brackets = *text == '[';
  text += brackets;
  bool is_scalar = strcmp(text, brackets ? "]" : "scalar") == 0;
  while (!is_scalar) {
    if (shape.rank == ESP_RANK_MAX || !read_u64(&text, &shape.dims[shape.rank]) || shape.dims[shape.rank] == 0)
      return false;
    shape.rank++;
    if (*text == '\0' || strcmp(text, "]") == 0)
      break;
    if (*text++ != (brackets ? ',' : 'x'))
      return false;
    text += brackets ? strspn(text, " ") : 0;
  }
  if (!is_scalar && brackets != (*text == ']'))
    return false;
  *ret = shape;
  return true;
}

/* ---- options ---- */

/* One of two words, of which the second makes it true. */
static enum esp_code take_choice(struct words *words, struct word word, const char *no, const char *yes, bool *ret) {
  if (strcmp(word.text, no) != 0 && strcmp(word.text, yes) != 0)
    return fail(words, word.at, "'%s': expected %s or %s", word.text, no, yes);
  *ret = strcmp(word.text, yes) == 0;
  return ESP_OK;
}

static enum esp_code take_seed(struct words *words, struct word word) {
  const char *end = word.text;
  if (!read_u64(&end, &words->op->init.seed) || *end != '\0')
    return fail(words, word.at, "'%s' is no seed; expected a number from 0 to 2^64-1", word.text);
  return ESP_OK;
}

/* A number from 1 of something. */
static enum esp_code take_count(struct words *words, struct word word, const char *of, uint64_t *ret) {
  const char *end = word.text;
  uint64_t value = 0;
  if (!read_u64(&end, &value) || *end != '\0' || value == 0)
    return fail(words, word.at, "'%s' is no %s; expected a number from 1", word.text, of);
  *ret = value;
  return ESP_OK;
}

static enum esp_code take_duration(struct words *words, struct word word, uint64_t *ret) {
  uint64_t ms = 0;
  if (!esp_duration_parse(word.text, &ms) || ms == 0)
    return fail(words, word.at, "'%s' is no time; expected one as 500ms, 10s, 10m, 1h30m, 2d", word.text);
  *ret = ms;
  return ESP_OK;
}

/* The option, with its value where it takes one. */
static enum esp_code take_option(struct words *words, enum option option, struct word word) {
  struct esp_plan_op *op = words->op;
  switch (option) {
  case TRANSPOSE:
    op->transposed = true;
    return ESP_OK;
  case VALUE:
    return take_choice(words, word, "keep", "mean", &op->mean);
  case STATE:
    return take_choice(words, word, "copy", "reset", &op->reset_state);
  case RESET_STATE:
    op->reset_state = true;
    return ESP_OK;
  case SEED:
    return take_seed(words, word);
  case INIT:
    return take_init(words, word, &op->init);
  case KIND:
    return take_choice(words, word, "trained", "buffer", &op->is_buffer);
  case TAG:
    return take_text(words, word, &op->tag);
  case GROUP:
    return take_text(words, word, &op->group);
  case FROZEN:
    op->frozen = true;
    return ESP_OK;
  case DETACHED:
    op->detached = true;
    return ESP_OK;
  case ALIAS_OF:
    return take_text(words, word, &op->alias_of);
  case FOR:
    return take_duration(words, word, &op->for_ms);
  case UNTIL_COMMIT:
    return take_count(words, word, "commit", &op->until_commit);
  case AT_COMMIT:
    return take_count(words, word, "commit", &op->at_commit);
  case ONE_BY_ONE:
    op->one_by_one = true;
    return ESP_OK;
  case EVERY:
    return take_count(words, word, "count of commits", &op->every);
  }
  return ESP_OK;
}

/* ---- arguments ---- */

static enum esp_code take_selection(struct words *words) {
  return take_text(words, arg(words, 0), &words->op->selection);
}

/* The index of an option that came. */
static size_t option_at(const struct words *words, enum option option) {
  size_t i = 0;
  while (options[i].option != option)
    i++;
  return words->options_at[i];
}

static enum esp_code take_freeze(struct words *words) {
  const struct esp_plan_op *op = words->op;
  enum esp_code code = take_selection(words);
  if (code == ESP_OK && op->for_ms != 0 && op->until_commit != 0)
    return fail(words, option_at(words, FOR), "--for and --until-commit both say when it ends: give one of them");
  if (code == ESP_OK && op->until_commit != 0 && op->until_commit <= op->at_commit)
    return fail(words, option_at(words, UNTIL_COMMIT), "--until-commit %" PRIu64 " is not after --at-commit %" PRIu64,
                op->until_commit, op->at_commit);
  return code;
}

static enum esp_code take_thaw(struct words *words) {
  const struct esp_plan_op *op = words->op;
  enum esp_code code = take_selection(words);
  if (code == ESP_OK && op->one_by_one && op->every == 0)
    return fail(words, option_at(words, ONE_BY_ONE), "--one-by-one needs --every N, the commits between two thaws");
  if (code == ESP_OK && op->every != 0 && !op->one_by_one)
    return fail(words, option_at(words, EVERY), "--every needs --one-by-one");
  if (code == ESP_OK && op->one_by_one && op->at_commit != 0)
    return fail(words, option_at(words, AT_COMMIT), "--one-by-one begins now: it takes no --at-commit");
  return code;
}

static enum esp_code take_timer(struct words *words) {
  return take_count(words, arg(words, 0), "timer", &words->op->timer);
}

static enum esp_code take_selection_and_to(struct words *words) {
  enum esp_code code = take_selection(words);
  return code == ESP_OK ? take_text(words, arg(words, 1), &words->op->to) : code;
}

static enum esp_code take_set(struct words *words) {
  enum esp_code code = take_selection(words);
  return code == ESP_OK ? take_text(words, arg(words, 1), &words->op->file) : code;
}

static enum esp_code take_group_name(struct words *words) {
  return take_text(words, arg(words, 0), &words->op->name);
}

static enum esp_code take_group(struct words *words) {
  enum esp_code code = take_group_name(words);
  return code == ESP_OK ? take_text(words, arg(words, 1), &words->op->to) : code;
}

/* An empty selection forgets the name. */
static enum esp_code take_name(struct words *words) {
  enum esp_code code = take_text(words, arg(words, 0), &words->op->name);
  if (code != ESP_OK || arg(words, 1).text[0] == '\0')
    return code;
  return take_text(words, arg(words, 1), &words->op->selection);
}

static enum esp_code take_reinit(struct words *words) {
  enum esp_code code = take_selection(words);
  return code == ESP_OK ? take_init(words, arg(words, 1), &words->op->init) : code;
}

static enum esp_code take_hyper(struct words *words, struct word whole, struct esp_plan_hyper *ret) {
  const char *word = whole.text;
  const char *equals = strchr(word, '=');
  if (equals == NULL || equals == word || equals[1] == '\0')
    return fail(words, whole.at, "'%s': expected NAME=VALUE, as lr=0.01", word);
  if (!esp_utf8_is_text(word, strlen(word)))
    return fail(words, whole.at, "this is not UTF-8 text");
  enum esp_code code = copy_text(words, word, (size_t)(equals - word), &ret->name);
  return code == ESP_OK ? copy_text(words, equals + 1, strlen(equals + 1), &ret->value) : code;
}

static enum esp_code take_adjust(struct words *words) {
  enum esp_code code = take_group_name(words);
  size_t len = words->args_len - 1;
  struct esp_plan_hyper *hypers = esp_arena_alloc(&words->plan->arena, len * sizeof *hypers);
  if (code == ESP_OK && hypers == NULL)
    code = esp_fail(words->st, ESP_RESOURCE_EXHAUSTED, "no memory for so many operations");
  for (size_t i = 0; i < len && code == ESP_OK; i++)
    code = take_hyper(words, arg(words, i + 1), &hypers[i]);
  words->op->hypers = hypers;
  words->op->hypers_len = len;
  return code;
}

static enum esp_code take_add(struct words *words) {
  enum esp_code code = take_selection(words);
  if (code == ESP_OK)
    code = take_dtype(words, arg(words, 1));
  if (code == ESP_OK && !read_shape(arg(words, 2).text, &words->op->shape))
    return fail(words, arg(words, 2).at,
                "'%s' is no shape; expected dimensions from 1 as 64x32, at most %d of them, or scalar",
                arg(words, 2).text, ESP_RANK_MAX);
  if (code == ESP_OK && words->op->transposed && words->op->alias_of[0] == '\0')
    return fail(words, words->len, "--transpose needs --alias-of LEAF");
  return code;
}

static enum esp_code take_undo(struct words *words) {
  if (words->args_len == 0)
    return ESP_OK;
  return take_count(words, arg(words, 0), "epoch", &words->op->epoch);
}

static const struct verb verbs[] = {
    {"freeze", "SELECTION [--for TIME | --until-commit N] [--at-commit N]", ESP_PLAN_FREEZE, 1, 1,
     FOR | UNTIL_COMMIT | AT_COMMIT, take_freeze},
    {"thaw", "SELECTION [--reset-state] [--at-commit N | --one-by-one --every N]", ESP_PLAN_THAW, 1, 1,
     RESET_STATE | AT_COMMIT | ONE_BY_ONE | EVERY, take_thaw},
    {"detach", "SELECTION", ESP_PLAN_DETACH, 1, 1, 0, take_selection},
    {"attach", "SELECTION", ESP_PLAN_ATTACH, 1, 1, 0, take_selection},
    {"tie", "LEAF TO [--transpose] [--value keep|mean]", ESP_PLAN_TIE, 2, 2, TRANSPOSE | VALUE, take_selection_and_to},
    {"untie", "SELECTION [--state copy|reset]", ESP_PLAN_UNTIE, 1, 1, STATE, take_selection},
    {"regroup", "SELECTION GROUP", ESP_PLAN_REGROUP, 2, 2, 0, take_selection_and_to},
    {"adjust", "GROUP NAME=VALUE...", ESP_PLAN_ADJUST, 2, ESP_PLAN_WORDS_MAX, 0, take_adjust},
    {"set", "PATH FILE.npy [--reset-state]", ESP_PLAN_SET, 2, 2, RESET_STATE, take_set},
    {"copy", "FROM TO", ESP_PLAN_COPY, 2, 2, 0, take_selection_and_to},
    {"rename", "FROM TO", ESP_PLAN_RENAME, 2, 2, 0, take_selection_and_to},
    {"add",
     "PATH DTYPE SHAPE [--init INIT] [--seed N] [--kind trained|buffer] [--tag NAME] [--group GROUP] [--frozen] "
     "[--detached] [--alias-of LEAF [--transpose]]",
     ESP_PLAN_ADD, 3, 3, INIT | SEED | KIND | TAG | GROUP | FROZEN | DETACHED | ALIAS_OF | TRANSPOSE, take_add},
    {"remove", "SELECTION", ESP_PLAN_REMOVE, 1, 1, 0, take_selection},
    {"reinit", "SELECTION INIT [--seed N]", ESP_PLAN_REINIT, 2, 2, SEED, take_reinit},
    {"reset", "SELECTION", ESP_PLAN_RESET, 1, 1, 0, take_selection},
    {"group create", "GROUP OPTIMIZER", ESP_PLAN_CREATE_GROUP, 2, 2, 0, take_group},
    {"group set", "GROUP OPTIMIZER", ESP_PLAN_SET_GROUP, 2, 2, 0, take_group},
    {"group delete", "GROUP", ESP_PLAN_DELETE_GROUP, 1, 1, 0, take_group_name},
    {"name", "NAME SELECTION", ESP_PLAN_NAME_SELECTION, 2, 2, 0, take_name},
    {"timer cancel", "ID", ESP_PLAN_CANCEL_TIMER, 1, 1, 0, take_timer},
    {"undo", "[EPOCH]", ESP_PLAN_UNDO, 0, 1, 0, take_undo},
};
#define VERBS_LEN (sizeof verbs / sizeof verbs[0])

const char *esp_plan_usage(const char *name) {
  for (size_t i = 0; i < VERBS_LEN; i++)
    if (strcmp(verbs[i].name, name) == 0)
      return verbs[i].usage;
  return NULL;
}

/* ---- words ---- */

/* First words that take another one, and which. */
static const struct {
  const char *name;
  const char *actions;
} families[] = {{"group", "create, set or delete"}, {"timer", "cancel"}};
#define FAMILIES_LEN (sizeof families / sizeof families[0])

/* Whether a verb is called by this word or, where `action` is not NULL, by these two. */
static bool is_verb(const char *verb, const char *word, const char *action) {
  size_t len = strcspn(verb, " ");
  if (strlen(word) != len || strncmp(verb, word, len) != 0)
    return false;
  return action == NULL ? verb[len] == '\0' : verb[len] == ' ' && strcmp(verb + len + 1, action) == 0;
}

/* The operation that the first words name; *ret_next is the word behind them. NULL: there is none, and the status says
 * so. */
static const struct verb *find_verb(struct words *words, size_t *ret_next) {
  const char *actions = NULL;
  if (words->len == 0) {
    (void)fail(words, 0, "no operation is named");
    return NULL;
  }
  const char *name = words->words[0];
  for (size_t i = 0; i < FAMILIES_LEN; i++)
    if (strcmp(name, families[i].name) == 0)
      actions = families[i].actions;
  size_t names_len = actions == NULL ? 1 : 2;
  if (words->len < names_len) {
    (void)fail(words, words->len, "%s needs %s", name, actions);
    return NULL;
  }
  for (size_t i = 0; i < VERBS_LEN; i++) {
    if (!is_verb(verbs[i].name, name, actions == NULL ? NULL : words->words[1]))
      continue;
    *ret_next = names_len;
    return &verbs[i];
  }
  if (actions != NULL)
    (void)fail(words, 1, "%s '%s': expected %s", name, words->words[1], actions);
  else
    (void)fail(words, 0, "there is no operation '%s'", name);
  return NULL;
}

/* The option at this index, with its value, and how many words they are. */
static enum esp_code take_option_at(struct words *words, const struct verb *verb, size_t at, size_t *ret_len) {
  const char *word = words->words[at];
  size_t name_len = strcspn(word, "=");
  bool has_value = word[name_len] == '=';
  for (size_t i = 0; i < OPTIONS_LEN; i++) {
    if (name_len - 2 != strlen(options[i].name) || strncmp(word + 2, options[i].name, name_len - 2) != 0)
      continue;
    if ((verb->options & options[i].option) == 0)
      break;
    if (has_value && !options[i].takes_word)
      return fail(words, at, "--%s takes no value", options[i].name);
    *ret_len = options[i].takes_word && !has_value ? 2 : 1;
    if (at + *ret_len > words->len)
      return fail(words, words->len, "%s needs a value", word);
    words->options_at[i] = at;
    struct word value = {has_value ? word + name_len + 1 : words->words[at + *ret_len - 1], at + *ret_len - 1};
    return take_option(words, options[i].option, value);
  }
  return fail(words, at, "%s takes no %.*s; it is %s %s", verb->name, (int)name_len, word, verb->name, verb->usage);
}

static enum esp_code sort_words(struct words *words, const struct verb *verb, size_t at) {
  bool is_over = false; /* -- came */
  for (size_t len = 1; at < words->len; at += len, len = 1) {
    const char *word = words->words[at];
    if (!is_over && strcmp(word, "--") == 0) {
      is_over = true;
    } else if (!is_over && strncmp(word, "--", 2) == 0) {
      enum esp_code code = take_option_at(words, verb, at, &len);
      if (code != ESP_OK)
        return code;
    } else if (words->args_len == verb->args_max) {
      return fail(words, at, "'%s' is one word too many for %s %s", word, verb->name, verb->usage);
    } else {
      words->args[words->args_len++] = at;
    }
  }
  if (words->args_len < verb->args_min)
    return fail(words, words->len, "%s needs %s", verb->name, verb->usage);
  return ESP_OK;
}

enum esp_code esp_plan_read_words(struct esp_plan *plan, const char *const *list, size_t len, struct esp_plan_op *ret,
                                  size_t *ret_word, struct esp_status *st) {
  struct esp_plan_op op = {.selection = "", .to = "", .name = "", .file = "", .tag = "", .group = "", .alias_of = ""};
  struct words words = {.plan = plan, .words = list, .len = len, .op = &op, .st = st};
  size_t next = 0;
  enum esp_code code = ESP_INVALID_ARGUMENT;
  const struct verb *verb = NULL;
  if (len > ESP_PLAN_WORDS_MAX)
    (void)fail(&words, ESP_PLAN_WORDS_MAX, "too many words for one operation");
  else
    verb = find_verb(&words, &next);
  if (verb != NULL) {
    op.kind = verb->kind;
    code = sort_words(&words, verb, next);
    if (code == ESP_OK)
      code = verb->take(&words);
  }
  if (code == ESP_OK)
    *ret = op;
  else
    *ret_word = words.at;
  return code;
}
