/* Selectors: text to a set of leaves.
 *
 * A lexer cuts the text into operands (paths and patterns) and operators; the parser takes one operand, so far, and
 * says UNIMPLEMENTED for any operator of the full language, which is to grow in parse(). An operand is compiled to
 * components and matched against the leaves below its literal beginning.
 *
 * `**` is matched like `*` in a shell, component by component, and `*` like it again inside a component: going back to
 * the last star is enough in both, so no pattern is exponential.
 *
 * Columns count characters from 1. It fails for syntax, where nothing matches, and without memory. */
#include <espalier/status.h>

#include <string.h>

#include "base/alloc.h"
#include "tree/tree_internal.h"

/* As many components as a path can have, and a `**` around each. */
#define PATTERN_LEN_MAX (2 * ESP_DEPTH_MAX + 1)
#define SUGGESTION_BYTES_MAX 1024

/* ---- lexer ---- */

enum token_kind { TOKEN_END, TOKEN_OPERAND, TOKEN_OPERATOR };

struct token {
  enum token_kind kind;
  size_t at;  /* byte offset in the selector */
  size_t len; /* bytes */
};

struct lexer {
  const char *text; /* the selector */
  size_t len;       /* bytes */
  size_t at;        /* the next byte to read */
};

/* The column of the character at byte offset `at`. */
static size_t column_of(const struct lexer *lexer, size_t at) {
  size_t column = 1;
  for (size_t i = 0; i < at; i++) {
    column += ((unsigned char)lexer->text[i] & 0xc0) != 0x80;
  }
  return column;
}

static bool is_operator(char byte) {
  return byte != '\0' && strchr("{}[]?&|!():><=@,", byte);
}

static enum esp_code lexer_next(struct lexer *lexer, struct token *ret, struct esp_status *st) {
  while (lexer->at < lexer->len && lexer->text[lexer->at] == ' ') {
    lexer->at++;
  }
  *ret = (struct token){.kind = TOKEN_END, .at = lexer->at};
  if (lexer->at < lexer->len && is_operator(lexer->text[lexer->at])) {
    *ret = (struct token){.kind = TOKEN_OPERATOR, .at = lexer->at++, .len = 1};
    return ESP_OK;
  }
  while (lexer->at < lexer->len && lexer->text[lexer->at] != ' ' && !is_operator(lexer->text[lexer->at])) {
    uint32_t character;
    size_t n = esp_utf8_next(lexer->text + lexer->at, lexer->len - lexer->at, &character);
    if (n == 0 || esp_character_is_control(character) || character == '"') {
      char text[20];
      return esp_fail(st, ESP_INVALID_ARGUMENT, "selector, column %zu: \"%s\" can't be part of a path",
                      column_of(lexer, lexer->at),
                      esp_path_print(lexer->text + lexer->at, n > 0 ? n : 1, text, sizeof text));
    }
    lexer->at += n;
    ret->kind = TOKEN_OPERAND;
  }
  ret->len = lexer->at - ret->at;
  return ESP_OK;
}

/* ---- patterns ---- */

struct component {
  const char *text; /* in the selector */
  size_t len;       /* bytes */
  bool any_depth;   /* `**` */
  bool literal;     /* has no star */
};

struct pattern {
  struct component components[PATTERN_LEN_MAX];
  size_t len;         /* of components */
  const char *prefix; /* the literal components at the beginning, as a path; of all of them where there is no star */
  size_t prefix_len;  /* bytes; 0: none */
  bool literal;       /* there is no star */
};

static enum esp_code component_init(struct component *component, const struct lexer *lexer, size_t begin, size_t end,
                                    struct esp_status *st) {
  const char *text = lexer->text + begin;
  *component = (struct component){.text = text, .len = end - begin};
  if (begin == end) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "selector, column %zu: a component is empty", column_of(lexer, begin));
  }
  component->literal = !memchr(text, '*', component->len);
  component->any_depth = component->len == 2 && memcmp(text, "**", 2) == 0;
  const char *stars = memmem(text, component->len, "**", 2);
  if (stars && !component->any_depth) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "selector, column %zu: ** has to be a whole component",
                    column_of(lexer, begin + (size_t)(stars - text)));
  }
  return ESP_OK;
}

static enum esp_code pattern_init(struct pattern *pattern, const struct lexer *lexer, const struct token *token,
                                  struct esp_status *st) {
  pattern->len = 0;
  pattern->prefix = lexer->text + token->at;
  pattern->prefix_len = 0;
  pattern->literal = true;
  size_t depth = 0; /* components that stand for one of a path */
  size_t token_end = token->at + token->len;
  for (size_t begin = token->at, end; begin <= token_end; begin = end + 1) {
    const char *dot = memchr(lexer->text + begin, '.', token_end - begin);
    end = dot ? (size_t)(dot - lexer->text) : token_end;
    struct component component;
    enum esp_code code = component_init(&component, lexer, begin, end, st);
    if (code != ESP_OK) {
      return code;
    }
    if (component.any_depth && pattern->len > 0 && pattern->components[pattern->len - 1].any_depth) {
      continue; /* `**.**` is `**` */
    }
    depth += !component.any_depth;
    if (depth > ESP_DEPTH_MAX) {
      return esp_fail(st, ESP_INVALID_ARGUMENT, "selector, column %zu: more than %d components, which no path has",
                      column_of(lexer, begin), ESP_DEPTH_MAX);
    }
    pattern->literal = pattern->literal && component.literal;
    pattern->prefix_len = pattern->literal ? end - token->at : pattern->prefix_len;
    pattern->components[pattern->len++] = component;
  }
  return ESP_OK;
}

/* Whether a component of a path matches one that may have stars. */
static bool component_matches(const struct component *component, const char *text, size_t len) {
  if (component->literal) {
    return component->len == len && memcmp(component->text, text, len) == 0;
  }
  size_t i = 0;
  size_t at = 0;
  size_t star = SIZE_MAX; /* behind the last star */
  size_t star_at = 0;     /* where what that star does not take begins */
  while (at < len) {
    if (i < component->len && component->text[i] == '*') {
      star = ++i;
      star_at = at;
    } else if (i < component->len && component->text[i] == text[at]) {
      i++;
      at++;
    } else if (star != SIZE_MAX) {
      i = star;
      at = ++star_at;
    } else {
      return false;
    }
  }
  while (i < component->len && component->text[i] == '*') {
    i++;
  }
  return i == component->len;
}

static size_t component_end(const char *path, size_t len, size_t begin) {
  const char *dot = memchr(path + begin, '.', len - begin);
  return dot ? (size_t)(dot - path) : len;
}

/* Whether the pattern matches the path or a node above it. */
static bool pattern_matches(const struct pattern *pattern, const char *path, size_t len) {
  size_t i = 0;
  size_t at = 0;          /* the next component of the path; len + 1 behind the last */
  size_t star = SIZE_MAX; /* behind the last `**` */
  size_t star_at = 0;     /* where what that `**` does not take begins */
  while (i < pattern->len) {
    const struct component *component = &pattern->components[i];
    if (component->any_depth) {
      star = ++i;
      star_at = at;
      continue;
    }
    if (at > len) {
      return false; /* the last `**` taking more would leave even less */
    }
    size_t end = component_end(path, len, at);
    if (component_matches(component, path + at, end - at)) {
      i++;
      at = end + 1;
    } else if (star != SIZE_MAX) {
      i = star;
      at = star_at = component_end(path, len, star_at) + 1;
    } else {
      return false;
    }
  }
  return true;
}

/* ---- selections ---- */

void esp_selection_done(struct esp_selection *sel) {
  esp_free(sel->leaves);
  *sel = (struct esp_selection){0};
}

static enum esp_code no_memory(struct esp_status *st) {
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a selection");
}

static enum esp_code select_range(size_t first, size_t len, struct esp_selection *ret, struct esp_status *st) {
  uint32_t *leaves = len > 0 ? esp_malloc_array(len, sizeof *leaves) : NULL;
  if (len > 0 && !leaves) {
    return no_memory(st);
  }
  for (size_t i = 0; i < len; i++) {
    leaves[i] = (uint32_t)(first + i);
  }
  *ret = (struct esp_selection){.leaves = leaves, .len = len};
  return ESP_OK;
}

static enum esp_code select_pattern(const struct esp_layout *layout, const struct pattern *pattern,
                                    struct esp_selection *ret, struct esp_status *st) {
  size_t first;
  size_t len;
  esp_layout_range(layout, pattern->prefix, pattern->prefix_len, &first, &len);
  if (pattern->literal) {
    return select_range(first, len, ret, st);
  }
  struct esp_selection sel = {0};
  size_t capacity = 0;
  for (size_t i = first; i < first + len; i++) {
    if (!pattern_matches(pattern, layout->leaves[i].path, layout->leaves[i].path_len)) {
      continue;
    }
    if (!esp_grow((void **)&sel.leaves, &capacity, sel.len + 1, sizeof *sel.leaves)) {
      esp_selection_done(&sel);
      return no_memory(st);
    }
    sel.leaves[sel.len++] = (uint32_t)i;
  }
  *ret = sel;
  return ESP_OK;
}

static enum esp_code nothing_matches(const struct esp_layout *layout, const struct lexer *lexer,
                                     const struct token *operand, struct esp_status *st) {
  char text[ESP_PATH_TEXT_MAX];
  char suggestion[SUGGESTION_BYTES_MAX];
  const char *operand_text = lexer->text + operand->at;
  esp_path_print(operand_text, operand->len, text, sizeof text);
  if (layout->leaves_len == 0) {
    return esp_fail(st, ESP_NOT_FOUND, "no leaf matches \"%s\": the tree is empty", text);
  }
  return esp_fail(st, ESP_NOT_FOUND, "no leaf matches \"%s\"; nearest: %s", text,
                  esp_suggest(layout, operand_text, operand->len, suggestion, sizeof suggestion));
}

/* The words of the full language that look like paths. */
static bool is_keyword(const struct lexer *lexer, const struct token *token) {
  const char *text = lexer->text + token->at;
  return (token->len == 6 && memcmp(text, "frozen", 6) == 0) || (token->len == 4 && memcmp(text, "tied", 4) == 0);
}

static enum esp_code not_built(const struct lexer *lexer, const struct token *token, struct esp_status *st) {
  return esp_fail(st, ESP_UNIMPLEMENTED,
                  "selector, column %zu: \"%.*s\" is not built yet; paths and patterns of * and ** are",
                  column_of(lexer, token->at), (int)token->len, lexer->text + token->at);
}

/* One operand and nothing else. */
static enum esp_code parse(struct lexer *lexer, struct token *ret_operand, struct esp_status *st) {
  struct token next;
  enum esp_code code = lexer_next(lexer, ret_operand, st);
  if (code != ESP_OK) {
    return code;
  }
  if (ret_operand->kind == TOKEN_END) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "selector, column %zu: a path or pattern is missing",
                    column_of(lexer, ret_operand->at));
  }
  if (ret_operand->kind == TOKEN_OPERATOR) {
    return not_built(lexer, ret_operand, st);
  }
  code = lexer_next(lexer, &next, st);
  if (code != ESP_OK) {
    return code;
  }
  if (next.kind == TOKEN_OPERATOR) {
    return not_built(lexer, &next, st);
  }
  if (next.kind == TOKEN_OPERAND) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "selector, column %zu: an operator is missing",
                    column_of(lexer, next.at));
  }
  return is_keyword(lexer, ret_operand) ? not_built(lexer, ret_operand, st) : ESP_OK;
}

enum esp_code esp_select(const struct esp_layout *layout, const char *text, size_t len, struct esp_selection *ret,
                         struct esp_status *st) {
  if (len == 0) {
    return select_range(0, layout->leaves_len, ret, st);
  }
  if (len > ESP_SELECTOR_BYTES_MAX) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a selector of %zu bytes is longer than %d", len, ESP_SELECTOR_BYTES_MAX);
  }
  struct lexer lexer = {.text = text, .len = len};
  struct token operand;
  struct pattern pattern;
  struct esp_selection sel;
  enum esp_code code = parse(&lexer, &operand, st);
  code = code == ESP_OK ? pattern_init(&pattern, &lexer, &operand, st) : code;
  code = code == ESP_OK ? select_pattern(layout, &pattern, &sel, st) : code;
  if (code != ESP_OK) {
    return code;
  }
  if (sel.len == 0) {
    esp_selection_done(&sel);
    return nothing_matches(layout, &lexer, &operand, st);
  }
  *ret = sel;
  return ESP_OK;
}
