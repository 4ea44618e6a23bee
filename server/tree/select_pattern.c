/* Patterns: `*`, ranges and alternatives inside one component (a glob), and `**` between components.
 *
 * Nothing is expanded. A glob is matched by the set of positions in the text that its items so far can end at, and a
 * pattern by the set of its components that can come next. So neither goes back, and no pattern is exponential.
 *
 * Parsing fails with INVALID_ARGUMENT and the column, and without memory; matching can't fail. */
#include <espalier/status.h>

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "tree/select_internal.h"

#undef esp_sel_fail /* the header's, for the analyzer */
#undef esp_sel_no_memory

enum esp_code esp_sel_fail(const struct esp_sel_source *source, size_t at, struct esp_status *st, const char *format,
                           ...) {
  char why[ESP_MESSAGE_BYTES_MAX / 2];
  va_list args;
  va_start(args, format);
  vsnprintf(why, sizeof why, format, args);
  va_end(args);
  size_t column = 1;
  for (size_t i = 0; i < at; i++) {
    column += ((unsigned char)source->text[i] & 0xc0) != 0x80;
  }
  if (source->name) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "named selection @%s, column %zu: %s", source->name, column, why);
  }
  return esp_fail(st, ESP_INVALID_ARGUMENT, "selector, column %zu: %s", column, why);
}

enum esp_code esp_sel_no_memory(struct esp_status *st) {
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a selection");
}

/* ---- parsing globs ---- */

struct glob_parser {
  const struct esp_sel_source *source;
  struct esp_arena *arena;
  bool dots;        /* a dot is one more character */
  bool alternative; /* inside braces */
};

/* A zeroed item behind *tail, which moves on to it; NULL without memory. */
static struct esp_sel_item *item_new(struct glob_parser *parser, struct esp_sel_item ***tail,
                                     enum esp_sel_item_kind kind) {
  struct esp_sel_item *item = esp_arena_alloc(parser->arena, sizeof *item);
  if (item) {
    *item = (struct esp_sel_item){.kind = kind};
    **tail = item;
    *tail = &item->next;
  }
  return item;
}

/* The digits at *at, which moves behind them; how many there are. */
static size_t digits_parse(const struct esp_sel_source *source, size_t *at, size_t end, uint64_t *ret_number) {
  size_t begin = *at;
  uint64_t number = 0;
  while (*at < end && source->text[*at] >= '0' && source->text[*at] <= '9') {
    if (*at - begin < ESP_SELECTOR_NUMBER_DIGITS_MAX) {
      number = 10 * number + (uint64_t)(source->text[*at] - '0');
    }
    ++*at;
  }
  *ret_number = number;
  return *at - begin;
}

/* `[0-11]` at *at. */
static enum esp_code range_parse(struct glob_parser *parser, size_t *at, size_t end, struct esp_sel_item *item,
                                 struct esp_status *st) {
  const struct esp_sel_source *source = parser->source;
  const char *text = source->text;
  size_t begin = (*at)++;
  size_t from_at = *at;
  size_t from_digits = digits_parse(source, at, end, &item->from);
  bool dash = *at < end && text[*at] == '-';
  *at += dash;
  size_t to_at = *at;
  size_t to_digits = digits_parse(source, at, end, &item->to);
  if (!dash || from_digits == 0 || to_digits == 0 || *at == end || text[*at] != ']') {
    return esp_sel_fail(source, begin, st, "\"[\" begins a range of numbers, as [0-11]");
  }
  ++*at;
  if (from_digits > ESP_SELECTOR_NUMBER_DIGITS_MAX || to_digits > ESP_SELECTOR_NUMBER_DIGITS_MAX) {
    return esp_sel_fail(source, from_digits > ESP_SELECTOR_NUMBER_DIGITS_MAX ? from_at : to_at, st,
                        "a number has more than %d digits", ESP_SELECTOR_NUMBER_DIGITS_MAX);
  }
  bool padded = (from_digits > 1 && text[from_at] == '0') || (to_digits > 1 && text[to_at] == '0');
  size_t digits = from_digits > to_digits ? from_digits : to_digits;
  item->width = padded ? digits : 0;
  return ESP_OK;
}

static enum esp_code items_parse(struct glob_parser *parser, size_t begin, size_t end, struct esp_sel_item **ret,
                                 struct esp_status *st);

static bool is_blank(char byte) {
  return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

/* `{a,b}` at *at. Blanks around an alternative do not count. */
static enum esp_code choice_parse(struct glob_parser *parser, size_t *at, size_t end, struct esp_sel_item *item,
                                  struct esp_status *st) {
  const char *text = parser->source->text;
  size_t open = *at;
  struct esp_sel_choice **tail = &item->choices;
  while (text[*at] != '}') {
    size_t begin = *at + 1; /* behind the brace or a comma */
    for (++*at; *at < end && text[*at] != ',' && text[*at] != '}'; ++*at) {
      if (text[*at] == '{') {
        return esp_sel_fail(parser->source, *at, st, "braces inside braces");
      }
    }
    if (*at == end) {
      return esp_sel_fail(parser->source, open, st, "\"{\" has no \"}\"");
    }
    size_t behind = *at;
    while (begin < behind && is_blank(text[begin])) {
      begin++;
    }
    while (begin < behind && is_blank(text[behind - 1])) {
      behind--;
    }
    struct esp_sel_choice *choice = esp_arena_alloc(parser->arena, sizeof *choice);
    if (!choice) {
      return esp_sel_no_memory(st);
    }
    *choice = (struct esp_sel_choice){0};
    *tail = choice;
    tail = &choice->next;
    parser->alternative = true;
    enum esp_code code = items_parse(parser, begin, behind, &choice->items, st);
    parser->alternative = false;
    if (code != ESP_OK) {
      return code;
    }
  }
  ++*at;
  if (!item->choices->next && !item->choices->items) {
    return esp_sel_fail(parser->source, open, st, "the braces are empty");
  }
  return ESP_OK;
}

/* What is not said in a glob, by its first byte; NULL: text. */
static const char *fault_of(const struct glob_parser *parser, char byte) {
  switch (byte) {
  case ']':
    return "\"]\" without \"[\"";
  case '}':
    return "\"}\" without \"{\"";
  case ',':
    return "\",\" outside of braces";
  case '.':
    return parser->dots          ? NULL
           : parser->alternative ? "a dot inside braces, which are for one component"
                                 : "a dot, and name: takes one component";
  default:
    return is_blank(byte) ? "a blank inside an alternative" : NULL;
  }
}

static enum esp_code item_parse(struct glob_parser *parser, size_t *at, size_t end, struct esp_sel_item ***tail,
                                struct esp_status *st) {
  const char *text = parser->source->text;
  enum esp_sel_item_kind kind = text[*at] == '*'   ? ESP_SEL_STAR
                                : text[*at] == '[' ? ESP_SEL_RANGE
                                : text[*at] == '{' ? ESP_SEL_CHOICE
                                                   : ESP_SEL_TEXT;
  struct esp_sel_item *item = item_new(parser, tail, kind);
  if (!item) {
    return esp_sel_no_memory(st);
  }
  if (kind == ESP_SEL_RANGE) {
    return range_parse(parser, at, end, item, st);
  }
  if (kind == ESP_SEL_CHOICE) {
    return choice_parse(parser, at, end, item, st);
  }
  if (kind == ESP_SEL_STAR) {
    if (++*at < end && text[*at] == '*') {
      return esp_sel_fail(parser->source, *at - 1, st,
                          parser->dots ? "** is for paths; in a name * is any bytes, dots too"
                                       : "** has to be a whole component");
    }
    return ESP_OK;
  }
  item->text = text + *at;
  for (; *at < end && !strchr("*[{", text[*at]); ++*at) {
    const char *fault = fault_of(parser, text[*at]);
    if (fault) {
      return esp_sel_fail(parser->source, *at, st, "%s", fault);
    }
    item->len++;
  }
  return ESP_OK;
}

static enum esp_code items_parse(struct glob_parser *parser, size_t begin, size_t end, struct esp_sel_item **ret,
                                 struct esp_status *st) {
  struct esp_sel_item **tail = ret;
  enum esp_code code = ESP_OK;
  for (size_t at = begin; code == ESP_OK && at < end;) {
    code = item_parse(parser, &at, end, &tail, st);
  }
  return code;
}

enum esp_code esp_sel_glob_parse(const struct esp_sel_source *source, struct esp_arena *arena, size_t begin, size_t end,
                                 bool dots, struct esp_sel_glob *ret, struct esp_status *st) {
  struct glob_parser parser = {.source = source, .arena = arena, .dots = dots};
  struct esp_sel_glob glob = {0};
  enum esp_code code = items_parse(&parser, begin, end, &glob.items, st);
  if (code != ESP_OK) {
    return code;
  }
  glob.literal = glob.items && glob.items->kind == ESP_SEL_TEXT && !glob.items->next;
  *ret = glob;
  return ESP_OK;
}

/* ---- matching globs ---- */

/* A set of positions in a text: 0, before it, to ESP_COMPONENT_BYTES_MAX, behind the longest. */
struct positions {
  uint64_t words[(ESP_COMPONENT_BYTES_MAX + 1) / 64];
};

static void positions_add(struct positions *set, size_t at) {
  set->words[at / 64] |= UINT64_C(1) << at % 64;
}

/* The first one from `at` on, or SIZE_MAX. */
static size_t positions_next(const struct positions *set, size_t at) {
  size_t word = at / 64;
  uint64_t left = word < sizeof set->words / 8 ? set->words[word] >> at % 64 << at % 64 : 0;
  while (left == 0 && ++word < sizeof set->words / 8) {
    left = set->words[word];
  }
  return left != 0 ? 64 * word + (size_t)__builtin_ctzll(left) : SIZE_MAX;
}

/* Adds the ends of the numbers of a range that begin at `at`. */
static void range_match(const struct esp_sel_item *item, const char *text, size_t len, size_t at,
                        struct positions *ends) {
  uint64_t low = item->from < item->to ? item->from : item->to;
  uint64_t high = item->from < item->to ? item->to : item->from;
  uint64_t number = 0;
  for (size_t i = at; i < len && i < at + ESP_SELECTOR_NUMBER_DIGITS_MAX; i++) {
    if (text[i] < '0' || text[i] > '9' || (item->width == 0 && i > at && text[at] == '0')) {
      return;
    }
    number = 10 * number + (uint64_t)(text[i] - '0');
    if (number >= low && number <= high && (item->width == 0 || i + 1 - at == item->width)) {
      positions_add(ends, i + 1);
    }
  }
}

static void items_match(const struct esp_sel_item *items, const char *text, size_t len, struct positions *set);

static struct positions item_match(const struct esp_sel_item *item, const char *text, size_t len,
                                   const struct positions *begins) {
  struct positions ends = {0};
  if (item->kind == ESP_SEL_CHOICE) {
    for (const struct esp_sel_choice *choice = item->choices; choice; choice = choice->next) {
      struct positions of_choice = *begins;
      items_match(choice->items, text, len, &of_choice);
      for (size_t i = 0; i < sizeof ends.words / 8; i++) {
        ends.words[i] |= of_choice.words[i];
      }
    }
    return ends;
  }
  size_t at = positions_next(begins, 0);
  if (item->kind == ESP_SEL_STAR) {
    for (; at <= len; at++) {
      positions_add(&ends, at);
    }
    return ends;
  }
  for (; at != SIZE_MAX; at = positions_next(begins, at + 1)) {
    if (item->kind == ESP_SEL_RANGE) {
      range_match(item, text, len, at, &ends);
    } else if (item->len <= len - at && memcmp(item->text, text + at, item->len) == 0) {
      positions_add(&ends, at + item->len);
    }
  }
  return ends;
}

/* From where the items may begin to where they may end. */
static void items_match(const struct esp_sel_item *items, const char *text, size_t len, struct positions *set) {
  for (const struct esp_sel_item *item = items; item; item = item->next) {
    *set = item_match(item, text, len, set);
  }
}

bool esp_sel_glob_matches(const struct esp_sel_glob *glob, const char *text, size_t len) {
  const struct esp_sel_item *first = glob->items;
  if (glob->literal) {
    return first->len == len && memcmp(first->text, text, len) == 0;
  }
  if (first && first->kind == ESP_SEL_STAR && !first->next) {
    return true;
  }
  struct positions set = {.words = {1}};
  if (first && first->kind == ESP_SEL_TEXT) { /* most texts end here */
    if (first->len > len || memcmp(first->text, text, first->len) != 0) {
      return false;
    }
    set = (struct positions){0};
    positions_add(&set, first->len);
    first = first->next;
  }
  items_match(first, text, len, &set);
  return set.words[len / 64] >> len % 64 & 1;
}

/* ---- which of the alternatives ---- */

static size_t rank_len(const struct esp_sel_item *items) {
  size_t len = 0;
  for (const struct esp_sel_item *item = items; item; item = item->next) {
    size_t most = 0; /* of one alternative */
    for (const struct esp_sel_choice *choice = item->choices; choice; choice = choice->next) {
      size_t inside = rank_len(choice->items); /* where there are no braces */
      most = inside > most ? inside : most;
    }
    len += (item->kind == ESP_SEL_CHOICE || item->kind == ESP_SEL_RANGE) + most;
  }
  return len;
}

size_t esp_sel_glob_rank_len(const struct esp_sel_glob *glob) {
  return rank_len(glob->items);
}

/* The first of these ends behind which the items match up to `len`, or SIZE_MAX. */
static size_t end_before(const struct esp_sel_item *items, const char *text, size_t len, const struct positions *ends) {
  for (size_t at = positions_next(ends, 0); at <= len; at = positions_next(ends, at + 1)) {
    struct positions set = {0};
    positions_add(&set, at);
    items_match(items, text, len, &set);
    if (set.words[len / 64] >> len % 64 & 1) {
      return at;
    }
  }
  return SIZE_MAX;
}

/* How far the number text[at .. end) is from the range's first. */
static uint64_t range_rank(const struct esp_sel_item *item, const char *text, size_t at, size_t end) {
  uint64_t number = 0;
  for (; at < end; at++) {
    number = 10 * number + (uint64_t)(text[at] - '0');
  }
  return number < item->from ? item->from - number : number - item->from;
}

/* The ranks of items that match text[at .. len), to *ranks, which moves behind them. */
static void items_rank(const struct esp_sel_item *items, const char *text, size_t at, size_t len, uint64_t **ranks) {
  for (const struct esp_sel_item *item = items; item; item = item->next) {
    struct positions begin = {0};
    positions_add(&begin, at);
    size_t end = SIZE_MAX;
    uint64_t place = 0;
    for (const struct esp_sel_choice *choice = item->choices; choice && end == SIZE_MAX; choice = choice->next) {
      struct positions ends = begin;
      items_match(choice->items, text, len, &ends);
      end = end_before(item->next, text, len, &ends);
      if (end != SIZE_MAX) {
        *(*ranks)++ = place;
        items_rank(choice->items, text, at, end, ranks);
      }
      place++;
    }
    if (item->kind != ESP_SEL_CHOICE) {
      struct positions ends = item_match(item, text, len, &begin);
      end = end_before(item->next, text, len, &ends);
    }
    if (item->kind == ESP_SEL_RANGE) {
      *(*ranks)++ = range_rank(item, text, at, end);
    }
    ESP_CHECK(end <= len); /* it matches */
    at = end;
  }
}

void esp_sel_glob_rank(const struct esp_sel_glob *glob, const char *text, size_t len, uint64_t *ret) {
  items_rank(glob->items, text, 0, len, &ret);
}

/* ---- patterns ---- */

/* The end of the component that begins at `at`: a dot inside braces is none. */
static size_t component_end(const struct esp_sel_source *source, size_t at, size_t end) {
  bool braces = false;
  for (; at < end && (braces || source->text[at] != '.'); at++) {
    braces = source->text[at] == '{' || (braces && source->text[at] != '}');
  }
  return at;
}

/* Puts text behind the pattern's own, with a dot between them. */
static enum esp_code text_append(struct esp_sel_pattern *pattern, struct esp_arena *arena, const char *text, size_t len,
                                 struct esp_status *st) {
  char *joined = esp_arena_alloc(arena, pattern->text_len + 1 + len);
  if (!joined) {
    return esp_sel_no_memory(st);
  }
  size_t at = 0;
  if (pattern->text_len > 0) {
    memcpy(joined, pattern->text, pattern->text_len);
    joined[pattern->text_len] = '.';
    at = pattern->text_len + 1;
  }
  memcpy(joined + at, text, len);
  pattern->text = joined;
  pattern->text_len = at + len;
  return ESP_OK;
}

/* Makes room for n more globs. */
static enum esp_code globs_reserve(struct esp_sel_pattern *pattern, struct esp_arena *arena, size_t n,
                                   struct esp_status *st) {
  struct esp_sel_glob *globs = esp_arena_alloc(arena, (pattern->len + n) * sizeof *globs);
  if (!globs) {
    return esp_sel_no_memory(st);
  }
  if (pattern->len > 0) {
    memcpy(globs, pattern->globs, pattern->len * sizeof *globs);
  }
  pattern->globs = globs;
  return ESP_OK;
}

/* One component, for which there is room. */
static enum esp_code component_append(struct esp_sel_pattern *pattern, const struct esp_sel_source *source,
                                      struct esp_arena *arena, size_t begin, size_t end, struct esp_status *st) {
  if (begin == end) {
    return esp_sel_fail(source, begin, st, "a component is empty");
  }
  if (end - begin == 2 && memcmp(source->text + begin, "**", 2) == 0) {
    pattern->loop_end = true;
    return ESP_OK;
  }
  if (pattern->len == ESP_DEPTH_MAX) {
    return esp_sel_fail(source, begin, st, "more than %d components, which no path has", ESP_DEPTH_MAX);
  }
  struct esp_sel_glob *glob = &pattern->globs[pattern->len];
  enum esp_code code = esp_sel_glob_parse(source, arena, begin, end, false, glob, st);
  if (code != ESP_OK) {
    return code;
  }
  if (glob->literal && pattern->prefix_globs == pattern->len && !pattern->loop_end) {
    pattern->prefix_len += (pattern->prefix_globs++ > 0) + end - begin;
  }
  pattern->loops |= (uint64_t)pattern->loop_end << pattern->len;
  pattern->loop_end = false;
  pattern->len++;
  return ESP_OK;
}

enum esp_code esp_sel_pattern_append(struct esp_sel_pattern *pattern, const struct esp_sel_source *source,
                                     struct esp_arena *arena, size_t begin, size_t end, struct esp_status *st) {
  size_t n = 1;
  for (size_t at = begin; at < end; at++) {
    n += source->text[at] == '.';
  }
  enum esp_code code = text_append(pattern, arena, source->text + begin, end - begin, st);
  code = code == ESP_OK ? globs_reserve(pattern, arena, n < ESP_DEPTH_MAX ? n : ESP_DEPTH_MAX, st) : code;
  for (size_t at = begin; code == ESP_OK && at <= end;) {
    size_t component = at;
    at = component_end(source, at, end) + 1;
    code = component_append(pattern, source, arena, component, at - 1, st);
  }
  return code;
}

enum esp_code esp_sel_pattern_append_any_depth(struct esp_sel_pattern *pattern, struct esp_arena *arena,
                                               struct esp_status *st) {
  pattern->loop_end = true;
  return text_append(pattern, arena, "**", 2, st);
}

uint64_t esp_sel_pattern_begin(const struct esp_sel_pattern *pattern) {
  return pattern->len > 0;
}

uint64_t esp_sel_pattern_step(const struct esp_sel_pattern *pattern, uint64_t state, const char *component, size_t len,
                              bool *ret_matched) {
  uint64_t next = state & pattern->loops;
  bool matched = false;
  for (uint64_t left = state; left != 0; left &= left - 1) {
    size_t i = (size_t)__builtin_ctzll(left);
    if (!esp_sel_glob_matches(&pattern->globs[i], component, len)) {
      continue;
    }
    if (i + 1 == pattern->len) {
      matched = true;
    } else {
      next |= UINT64_C(2) << i;
    }
  }
  *ret_matched = matched;
  return next;
}
