/* Operations on a tree in words: what espctl's commands say, and what a file of them says, one a line.
 *
 *   # the head is trained anew, on a frozen encoder
 *   freeze encoder
 *   tie head.weight embedding.weight --transpose
 *   adjust head lr=0.01
 *
 * Words are separated by blanks. Single quotes keep everything, double quotes all but \" and \\, and a backslash
 * outside of quotes keeps the character after it; nothing is ever expanded. A # at the start of a word begins a
 * comment. Options may stand anywhere after the operation; after -- nothing is an option.
 *
 * Selections, optimizer expressions and the values of hyperparameters are text here, whose syntax the server checks. No
 * threads, no I/O. */
#ifndef ESP_FORMATS_PLAN_H
#define ESP_FORMATS_PLAN_H

#include <espalier/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/dtype.h"

#define ESP_PLAN_OPERATIONS_MAX 10000    /* as many as one transaction may have */
#define ESP_PLAN_WORDS_MAX 128           /* in one operation */
#define ESP_PLAN_BYTES_MAX (16u << 20)   /* of one file */
#define ESP_PLAN_MEMORY_MAX (256u << 20) /* of all strings of a plan */

enum esp_plan_kind {
  ESP_PLAN_FREEZE,
  ESP_PLAN_THAW,
  ESP_PLAN_DETACH,
  ESP_PLAN_ATTACH,
  ESP_PLAN_TIE,
  ESP_PLAN_UNTIE,
  ESP_PLAN_REGROUP,
  ESP_PLAN_ADJUST,
  ESP_PLAN_SET,
  ESP_PLAN_COPY,
  ESP_PLAN_RENAME,
  ESP_PLAN_ADD,
  ESP_PLAN_REMOVE,
  ESP_PLAN_REINIT,
  ESP_PLAN_RESET,
  ESP_PLAN_CREATE_GROUP, /* one that is not there yet */
  ESP_PLAN_SET_GROUP,    /* one that is there: another optimizer */
  ESP_PLAN_DELETE_GROUP,
  ESP_PLAN_NAME_SELECTION,
  ESP_PLAN_CANCEL_TIMER,
  ESP_PLAN_UNDO,
};

enum esp_plan_init_kind { ESP_PLAN_ZEROS, ESP_PLAN_CONSTANT, ESP_PLAN_UNIFORM, ESP_PLAN_NORMAL };

struct esp_plan_init {
  enum esp_plan_init_kind kind;
  double a; /* the constant; low; mean */
  double b; /* high; stddev */
  uint64_t seed;
};

struct esp_plan_hyper {
  const char *name;
  const char *value;
};

/* One operation. Strings that its kind does not use are "". */
struct esp_plan_op {
  enum esp_plan_kind kind;
  size_t line;                         /* of the text that has it, from 1; 0: it came in words */
  const char *selection;               /* also the leaf, node or pattern, and the path that is added */
  const char *to;                      /* the other leaf, node or pattern; the group; the new path; the expression */
  const char *name;                    /* of a group or a selection */
  const char *file;                    /* set: where the value is */
  bool transposed;                     /* tie, add */
  bool mean;                           /* tie */
  bool reset_state;                    /* thaw, untie, set */
  struct esp_plan_init init;           /* reinit, add */
  const struct esp_plan_hyper *hypers; /* adjust */
  size_t hypers_len;
  enum esp_dtype dtype; /* of the leaf that is added, as all that follows */
  struct esp_shape shape;
  bool is_buffer;
  bool frozen;
  bool detached;
  const char *tag;
  const char *group;
  const char *alias_of;
  uint64_t epoch;        /* undo; 0: the last transaction */
  uint64_t at_commit;    /* freeze, thaw; 0: now */
  uint64_t until_commit; /* freeze; 0: until it is thawed */
  uint64_t for_ms;       /* freeze; likewise */
  bool one_by_one;       /* thaw */
  uint64_t every;        /* then: commits of pushes */
  uint64_t timer;        /* timer cancel */
};

struct esp_plan {
  struct esp_plan_op *ops; /* owned */
  size_t len;
  size_t capacity;        /* of ops */
  struct esp_arena arena; /* their strings */
};
void esp_plan_init(struct esp_plan *plan);
void esp_plan_done(struct esp_plan *plan); /* idempotent */

/* Adds the operation that these words are, its name first; they are copied. INVALID_ARGUMENT says what is wrong and
 * what was expected; *ret_word (which may be NULL) is then the index of the word that is wrong, words_len where one is
 * missing. RESOURCE_EXHAUSTED without memory. On failure the plan is as it was. */
enum esp_code esp_plan_add_words(struct esp_plan *plan, const char *const *words, size_t words_len, size_t *ret_word,
                                 struct esp_status *st) ESP_WARN_UNUSED;
/* Adds the operations of a text, none or more. INVALID_ARGUMENT begins with source, line and column, the latter counted
 * in characters: `plan.txt:3:6: ...`. On failure the plan holds what came before. */
enum esp_code esp_plan_add_text(struct esp_plan *plan, const char *source, const char *text, size_t len,
                                struct esp_status *st) ESP_WARN_UNUSED;

/* Whether an operation before this one defines or deletes the group that it names; then whether the group is there. */
bool esp_plan_says_group(const struct esp_plan *plan, size_t index, bool *ret_is_there);

/* What an operation is made of, for help: its words after the name, as "LEAF TO [--transpose] [--value keep|mean]".
 * NULL: no operation of this name (of groups and timers it is `group create` and the like). Static. */
const char *esp_plan_usage(const char *name);

#endif
