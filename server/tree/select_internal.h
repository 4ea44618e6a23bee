/* What the files of the selector language share: a selector as it was parsed. Nobody else includes it.
 *
 *   select_pattern.c  one component's pattern, and patterns of paths: parsing and matching
 *   select_parse.c    the lexer and the grammar: text to a program
 *   select_term.c     one term of a program to a bitmap of leaves
 *   select_explain.c  what to say where nothing matches
 *   select_order.c    nodes in the order in which a pattern names them
 *   select.c          the program on bitmaps, and named selections */
#ifndef ESP_TREE_SELECT_INTERNAL_H
#define ESP_TREE_SELECT_INTERNAL_H

#include <espalier/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "tree/tree_internal.h"

#define ESP_SELECTOR_PARENTHESES_MAX 64
#define ESP_SELECTOR_NUMBER_DIGITS_MAX 18
#define ESP_SELECTOR_NAMED_MAX 64 /* different ones, with those that they name themselves */

/* The text of a selector, which all that is parsed from it points into. */
struct esp_sel_source {
  const char *text; /* borrowed */
  size_t len;       /* bytes */
  const char *name; /* of the named selection whose text this is; NULL: the caller's own text */
};

/* INVALID_ARGUMENT with the column of the character at byte offset `at`. */
enum esp_code esp_sel_fail(const struct esp_sel_source *source, size_t at, struct esp_status *st, const char *format,
                           ...) ESP_PRINTF(4, 5);
enum esp_code esp_sel_no_memory(struct esp_status *st);
#ifdef __clang_analyzer__ /* what it can't see in another file: these never return ESP_OK */
#define esp_sel_fail(source, at, st, ...) ((void)esp_sel_fail(source, at, st, __VA_ARGS__), ESP_INVALID_ARGUMENT)
#define esp_sel_no_memory(st) ((void)esp_sel_no_memory(st), ESP_RESOURCE_EXHAUSTED)
#endif

/* ---- patterns (select_pattern.c) ---- */

enum esp_sel_item_kind { ESP_SEL_TEXT, ESP_SEL_STAR, ESP_SEL_RANGE, ESP_SEL_CHOICE };

struct esp_sel_choice;

/* A piece of a glob. */
struct esp_sel_item {
  struct esp_sel_item *next; /* the piece behind it, or NULL */
  enum esp_sel_item_kind kind;
  const char *text;               /* TEXT: in the source */
  size_t len;                     /* TEXT: bytes */
  uint64_t from;                  /* RANGE: as it is written, so it may be the larger one */
  uint64_t to;                    /* RANGE */
  size_t width;                   /* RANGE: digits of every number; 0: as many as it needs */
  struct esp_sel_choice *choices; /* CHOICE */
};

/* One alternative of a CHOICE. */
struct esp_sel_choice {
  struct esp_sel_choice *next;
  struct esp_sel_item *items; /* NULL: the empty one */
};

/* What a component of a path, or a name, is matched against. */
struct esp_sel_glob {
  struct esp_sel_item *items; /* NULL: only "" matches */
  bool literal;               /* one item, a TEXT */
};

/* Parses source[begin .. end). A dot is one more character where dots are allowed, as in names, and an error where not.
 */
enum esp_code esp_sel_glob_parse(const struct esp_sel_source *source, struct esp_arena *arena, size_t begin, size_t end,
                                 bool dots, struct esp_sel_glob *ret, struct esp_status *st) ESP_WARN_UNUSED;
/* text is of ESP_COMPONENT_BYTES_MAX bytes at most. */
bool esp_sel_glob_matches(const struct esp_sel_glob *glob, const char *text, size_t len);

#define ESP_SEL_RANKS_MAX 8
/* How many numbers say which of its ranges' numbers and which alternatives a text that matches is made of. */
size_t esp_sel_glob_rank_len(const struct esp_sel_glob *glob);
/* These numbers, from the left on, of a text that matches: the place of an alternative in its braces, then those inside
 * it; how far a number is from the first one of its range. Where it can be read in several ways, as the first
 * alternatives have it. There are ESP_SEL_RANKS_MAX at most. */
void esp_sel_glob_rank(const struct esp_sel_glob *glob, const char *text, size_t len, uint64_t *ret);

/* A pattern of paths. It may grow at its end, which is what `>` does. */
struct esp_sel_pattern {
  struct esp_sel_glob *globs; /* in order; `**` is none of them */
  size_t len;                 /* of globs: ESP_DEPTH_MAX at most */
  uint64_t loops;             /* bit i: any number of components may stand before what globs[i] matches */
  bool loop_end;              /* it ends with `**` */
  const char *text;           /* all of it as one path, with its stars */
  size_t text_len;            /* bytes */
  size_t prefix_globs;        /* the first ones, which are literal and without `**` before them */
  size_t prefix_len;          /* the bytes of text that they are */
};

/* Puts the components of source[begin .. end) behind what the pattern (zeroed at first) has. */
enum esp_code esp_sel_pattern_append(struct esp_sel_pattern *pattern, const struct esp_sel_source *source,
                                     struct esp_arena *arena, size_t begin, size_t end,
                                     struct esp_status *st) ESP_WARN_UNUSED;
/* Puts `**` behind it. */
enum esp_code esp_sel_pattern_append_any_depth(struct esp_sel_pattern *pattern, struct esp_arena *arena,
                                               struct esp_status *st) ESP_WARN_UNUSED;

/* A pattern is matched component by component: bit i of a state says that globs[i] may come next. A state of 0 matches
 * nothing any more. */
uint64_t esp_sel_pattern_begin(const struct esp_sel_pattern *pattern);
/* The state behind one more component; *ret_matched: the path up to here matches. The pattern is not empty. */
uint64_t esp_sel_pattern_step(const struct esp_sel_pattern *pattern, uint64_t state, const char *component, size_t len,
                              bool *ret_matched);

/* ---- programs (select_parse.c) ---- */

enum esp_sel_kind {
  ESP_SEL_PATTERN,
  ESP_SEL_TAG,
  ESP_SEL_GROUP,
  ESP_SEL_DTYPE,
  ESP_SEL_KIND,
  ESP_SEL_RANK,
  ESP_SEL_SIZE,
  ESP_SEL_FROZEN,
  ESP_SEL_TIED,
  ESP_SEL_DETACHED,
  ESP_SEL_NAMED,
};

enum esp_sel_comparison { ESP_SEL_EQ, ESP_SEL_NE, ESP_SEL_LT, ESP_SEL_LE, ESP_SEL_GT, ESP_SEL_GE };

/* What by itself selects leaves. */
struct esp_sel_term {
  enum esp_sel_kind kind;
  size_t value_at;                    /* offset in the source of what is behind the colon or the @ */
  size_t value_len;                   /* bytes */
  struct esp_sel_pattern pattern;     /* PATTERN; TAG: what is behind `>`, below the tagged nodes */
  struct esp_sel_glob glob;           /* TAG, GROUP: the name */
  unsigned values;                    /* DTYPE, KIND: bit v for the value v */
  enum esp_sel_comparison comparison; /* RANK, SIZE */
  uint64_t number;                    /* RANK, SIZE */
};

enum esp_sel_op { ESP_SEL_TERM, ESP_SEL_NOT, ESP_SEL_AND, ESP_SEL_OR };

/* A term puts a set on a stack, an operator takes its operands from there and puts its result. */
struct esp_sel_step {
  enum esp_sel_op op;
  struct esp_sel_term *term; /* TERM */
  size_t at;                 /* offset in the source of what it was parsed from, operands included */
  size_t len;                /* bytes */
};

struct esp_sel_program {
  struct esp_sel_source source;
  struct esp_arena arena; /* terms and all that belongs to them */
  struct esp_sel_step *steps;
  size_t steps_len;
  size_t steps_capacity;
};

/* The source's text is not empty; it is borrowed. */
enum esp_code esp_sel_parse(const struct esp_sel_source *source, struct esp_sel_program *ret,
                            struct esp_status *st) ESP_WARN_UNUSED;
void esp_sel_program_done(struct esp_sel_program *program); /* idempotent */

/* ---- terms (select_term.c) ---- */

/* Whether nothing but a path is matched, so that the leaves are one range. */
bool esp_sel_pattern_is_path(const struct esp_sel_pattern *pattern);
/* Sets bit i % 64 of bits[i / 64] for each leaf i that the term selects. It is not NAMED. */
void esp_sel_term_run(const struct esp_layout *layout, const struct esp_sel_term *term, uint64_t *bits);

/* ---- failures (select_explain.c) ---- */

/* Why nothing is selected: the term that matches nothing by itself, or the operator that left nothing. */
struct esp_sel_culprit {
  const struct esp_sel_program *program; /* the selector's own, or a named selection's */
  const struct esp_sel_step *step;       /* of that program */
  const struct esp_sel_step *left;       /* AND: the left operand's */
  size_t left_len;                       /* AND: how many leaves that one selects */
  size_t right_len;                      /* AND */
};

/* NOT_FOUND with the reason, and with what there is instead. The tree is not empty. */
enum esp_code esp_sel_explain(const struct esp_layout *layout, const struct esp_sel_culprit *culprit,
                              struct esp_status *st);
/* INVALID_ARGUMENT: there is no selection of that name; those that there are. */
enum esp_code esp_sel_fail_unnamed(const struct esp_layout *layout, const struct esp_sel_source *source,
                                   const struct esp_sel_term *term, struct esp_status *st);

#endif
