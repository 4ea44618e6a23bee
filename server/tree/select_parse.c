/* Selectors: text to a program.
 *
 *   union        = intersection { "|" intersection }
 *   intersection = negation { "&" negation }
 *   negation     = { "!" } chain
 *   chain        = term { ">" pattern }
 *   term         = "(" union ")" | pattern | "name:" glob | "tag:" glob | "group:" glob | "dtype:" glob | "kind:" glob
 *                | ("rank" | "size") (":" | "=" | "!=" | "<" | "<=" | ">" | ">=") number
 *                | "frozen" | "tied" | "detached" | "@" name
 *
 * The lexer cuts words and operators; what is in braces and brackets belongs to a word. The parser looks one token
 * ahead and goes down once for each pair of parentheses, which are counted. `a > b` is the pattern `a.b`, and `name:x`
 * is `**.x`, so chains of them are patterns.
 *
 * It fails with INVALID_ARGUMENT and the column, counted in characters from 1, and without memory. */
#include <espalier/status.h>

#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "tree/select_internal.h"

/* ---- lexer ---- */

enum token_kind {
  TOKEN_END,
  TOKEN_WORD,
  TOKEN_COLON,
  TOKEN_AT,
  TOKEN_OPEN,
  TOKEN_CLOSE,
  TOKEN_AND,
  TOKEN_OR,
  TOKEN_NOT,
  TOKEN_EQ,
  TOKEN_NE,
  TOKEN_LT,
  TOKEN_LE,
  TOKEN_GT,
  TOKEN_GE,
};

struct token {
  enum token_kind kind;
  size_t at;  /* byte offset in the selector */
  size_t len; /* bytes */
};

struct parser {
  struct esp_sel_program *program; /* what comes of it; its source is read */
  size_t at;                       /* the next byte to read */
  struct token next;               /* the token that was read last and not taken */
  size_t taken_end;                /* behind the token that was taken last */
  size_t depth;                    /* of open parentheses */
  struct esp_status *st;           /* of the caller */
};

static bool is_blank(char byte) {
  return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

static bool is_operator(char byte) {
  return byte != '\0' && strchr(":@()&|!=<>", byte);
}

/* The character at `at` is one that a word may have: what is behind it, or 0 with the status. */
static size_t character_end(const struct parser *parser, size_t at) {
  const struct esp_sel_source *source = &parser->program->source;
  uint32_t character;
  size_t n = esp_utf8_next(source->text + at, source->len - at, &character);
  if (n > 0 && !esp_character_is_control(character) && character != '"' && character != '?') {
    return at + n;
  }
  char text[20];
  (void)esp_sel_fail(source, at, parser->st, "\"%s\" can't be part of a path",
                     esp_path_print(source->text + at, n > 0 ? n : 1, text, sizeof text));
  return 0;
}

/* A word: up to a blank or an operator. Inside braces blanks belong to it. */
static enum esp_code word_read(struct parser *parser) {
  const struct esp_sel_source *source = &parser->program->source;
  size_t open = SIZE_MAX; /* the brace that is open */
  while (parser->at < source->len && !is_operator(source->text[parser->at])) {
    char byte = source->text[parser->at];
    if (is_blank(byte)) {
      if (open == SIZE_MAX) {
        break;
      }
      parser->at++;
      continue;
    }
    size_t end = character_end(parser, parser->at);
    if (end == 0) {
      return ESP_INVALID_ARGUMENT;
    }
    if (byte == '{' && open == SIZE_MAX) {
      open = parser->at;
    } else if (byte == '}') {
      open = SIZE_MAX;
    }
    parser->at = end;
  }
  if (open != SIZE_MAX) {
    return esp_sel_fail(source, open, parser->st, "\"{\" has no \"}\"");
  }
  parser->next = (struct token){.kind = TOKEN_WORD, .at = parser->next.at, .len = parser->at - parser->next.at};
  return ESP_OK;
}

static enum token_kind operator_kind(char byte, bool equals) {
  switch (byte) {
  case ':':
    return TOKEN_COLON;
  case '@':
    return TOKEN_AT;
  case '(':
    return TOKEN_OPEN;
  case ')':
    return TOKEN_CLOSE;
  case '&':
    return TOKEN_AND;
  case '|':
    return TOKEN_OR;
  case '!':
    return equals ? TOKEN_NE : TOKEN_NOT;
  case '<':
    return equals ? TOKEN_LE : TOKEN_LT;
  case '>':
    return equals ? TOKEN_GE : TOKEN_GT;
  default:
    return TOKEN_EQ;
  }
}

/* Takes the token that is next and reads the one behind it. */
static enum esp_code advance(struct parser *parser) {
  const struct esp_sel_source *source = &parser->program->source;
  parser->taken_end = parser->next.at + parser->next.len;
  while (parser->at < source->len && is_blank(source->text[parser->at])) {
    parser->at++;
  }
  parser->next = (struct token){.kind = TOKEN_END, .at = parser->at};
  if (parser->at == source->len) {
    return ESP_OK;
  }
  char byte = source->text[parser->at];
  if (!is_operator(byte)) {
    return word_read(parser);
  }
  bool equals = strchr("!<>", byte) && parser->at + 1 < source->len && source->text[parser->at + 1] == '=';
  parser->next.kind = operator_kind(byte, equals);
  parser->next.len = 1 + equals;
  parser->at += parser->next.len;
  return ESP_OK;
}

/* ---- programs ---- */

static enum esp_code step_add(struct parser *parser, enum esp_sel_op op, struct esp_sel_term *term, size_t at) {
  struct esp_sel_program *program = parser->program;
  if (!esp_grow((void **)&program->steps, &program->steps_capacity, program->steps_len + 1, sizeof *program->steps)) {
    return esp_sel_no_memory(parser->st);
  }
  program->steps[program->steps_len++] =
      (struct esp_sel_step){.op = op, .term = term, .at = at, .len = parser->taken_end - at};
  return ESP_OK;
}

/* ---- terms ---- */

/* Fails: something else was expected where the next token is. */
static enum esp_code unexpected(const struct parser *parser, const char *expected) {
  const struct esp_sel_source *source = &parser->program->source;
  if (parser->next.kind == TOKEN_END) {
    return esp_sel_fail(source, parser->next.at, parser->st, "%s is missing", expected);
  }
  char text[ESP_PATH_TEXT_MAX];
  return esp_sel_fail(source, parser->next.at, parser->st, "%s is missing before \"%s\"", expected,
                      esp_path_print(source->text + parser->next.at, parser->next.len, text, sizeof text));
}

static bool token_is(const struct parser *parser, const struct token *token, const char *word) {
  return token->len == strlen(word) && memcmp(parser->program->source.text + token->at, word, token->len) == 0;
}

/* The glob of a name that may have dots; it begins the term's value. */
static enum esp_code name_glob(struct parser *parser, struct esp_sel_term *term, const struct token *value) {
  return esp_sel_glob_parse(&parser->program->source, &parser->program->arena, value->at, value->at + value->len, true,
                            &term->glob, parser->st);
}

static enum esp_code term_name(struct parser *parser, struct esp_sel_term *term, const struct token *value) {
  const struct esp_sel_source *source = &parser->program->source;
  struct esp_sel_glob glob; /* only to see that it is one component */
  if (value->len == 2 && memcmp(source->text + value->at, "**", 2) == 0) {
    return esp_sel_fail(source, value->at, parser->st,
                        "name: takes one component, or a pattern of one, and ** is any number");
  }
  term->kind = ESP_SEL_PATTERN;
  enum esp_code code =
      esp_sel_glob_parse(source, &parser->program->arena, value->at, value->at + value->len, false, &glob, parser->st);
  code = code == ESP_OK ? esp_sel_pattern_append_any_depth(&term->pattern, &parser->program->arena, parser->st) : code;
  return code == ESP_OK ? esp_sel_pattern_append(&term->pattern, source, &parser->program->arena, value->at,
                                                 value->at + value->len, parser->st)
                        : code;
}

static enum esp_code term_tag(struct parser *parser, struct esp_sel_term *term, const struct token *value) {
  term->kind = ESP_SEL_TAG;
  return name_glob(parser, term, value);
}

static enum esp_code term_group(struct parser *parser, struct esp_sel_term *term, const struct token *value) {
  term->kind = ESP_SEL_GROUP;
  return name_glob(parser, term, value);
}

/* Fails where the glob matched none of the values that there are. */
static enum esp_code values_check(const struct parser *parser, const struct esp_sel_term *term,
                                  const struct token *value, const char *what, const char *known) {
  char text[ESP_PATH_TEXT_MAX];
  const struct esp_sel_source *source = &parser->program->source;
  return term->values != 0
             ? ESP_OK
             : esp_sel_fail(source, value->at, parser->st, "\"%s\" is no %s; these are: %s",
                            esp_path_print(source->text + value->at, value->len, text, sizeof text), what, known);
}

static enum esp_code term_dtype(struct parser *parser, struct esp_sel_term *term, const struct token *value) {
  term->kind = ESP_SEL_DTYPE;
  enum esp_code code = name_glob(parser, term, value);
  for (enum esp_dtype dtype = ESP_DTYPE_F32; code == ESP_OK && dtype <= ESP_DTYPE_F16; dtype++) {
    const char *name = esp_dtype_name(dtype);
    term->values |= (unsigned)esp_sel_glob_matches(&term->glob, name, strlen(name)) << dtype;
  }
  return code == ESP_OK ? values_check(parser, term, value, "dtype", "f32, f64, bf16, f16") : code;
}

static enum esp_code term_kind(struct parser *parser, struct esp_sel_term *term, const struct token *value) {
  term->kind = ESP_SEL_KIND;
  enum esp_code code = name_glob(parser, term, value);
  if (code != ESP_OK) {
    return code;
  }
  term->values = (unsigned)esp_sel_glob_matches(&term->glob, "trained", 7) << ESP_KIND_TRAINED |
                 (unsigned)esp_sel_glob_matches(&term->glob, "buffer", 6) << ESP_KIND_BUFFER;
  return values_check(parser, term, value, "kind", "trained, buffer");
}

static enum esp_code number_parse(struct parser *parser, struct esp_sel_term *term, const struct token *value) {
  const struct esp_sel_source *source = &parser->program->source;
  for (size_t i = value->at; i < value->at + value->len; i++) {
    if (source->text[i] < '0' || source->text[i] > '9') {
      return esp_sel_fail(source, i, parser->st, "a number of digits is expected, as 1000000");
    }
    term->number = 10 * term->number + (uint64_t)(source->text[i] - '0'); /* too many digits are refused */
  }
  return value->len <= ESP_SELECTOR_NUMBER_DIGITS_MAX
             ? ESP_OK
             : esp_sel_fail(source, value->at, parser->st, "a number has more than %d digits",
                            ESP_SELECTOR_NUMBER_DIGITS_MAX);
}

static enum esp_code term_rank(struct parser *parser, struct esp_sel_term *term, const struct token *value) {
  term->kind = ESP_SEL_RANK;
  return number_parse(parser, term, value);
}

static enum esp_code term_size(struct parser *parser, struct esp_sel_term *term, const struct token *value) {
  term->kind = ESP_SEL_SIZE;
  return number_parse(parser, term, value);
}

/* What a word before a colon, or before a comparison, can be. */
static const struct qualifier {
  const char *word;
  bool number; /* is compared with one */
  enum esp_code (*parse)(struct parser *parser, struct esp_sel_term *term, const struct token *value);
} qualifiers[] = {
    {"name", false, term_name}, {"tag", false, term_tag},  {"group", false, term_group}, {"dtype", false, term_dtype},
    {"kind", false, term_kind}, {"rank", true, term_rank}, {"size", true, term_size},
};

static const struct qualifier *qualifier_find(const struct parser *parser, const struct token *word) {
  for (size_t i = 0; i < sizeof qualifiers / sizeof qualifiers[0]; i++) {
    if (token_is(parser, word, qualifiers[i].word)) {
      return &qualifiers[i];
    }
  }
  return NULL;
}

/* The next token is a word that is a value; it is taken. */
static enum esp_code take_word(struct parser *parser, const char *expected, struct token *ret) {
  if (parser->next.kind != TOKEN_WORD) {
    return unexpected(parser, expected);
  }
  *ret = parser->next;
  return advance(parser);
}

/* A word was taken, and a colon or a comparison is next. */
static enum esp_code parse_qualified(struct parser *parser, struct esp_sel_term *term, const struct token *word) {
  static const enum esp_sel_comparison comparisons[] = {
      [TOKEN_COLON] = ESP_SEL_EQ, [TOKEN_EQ] = ESP_SEL_EQ, [TOKEN_NE] = ESP_SEL_NE, [TOKEN_LT] = ESP_SEL_LT,
      [TOKEN_LE] = ESP_SEL_LE,    [TOKEN_GT] = ESP_SEL_GT, [TOKEN_GE] = ESP_SEL_GE,
  };
  const struct qualifier *qualifier = qualifier_find(parser, word);
  char text[ESP_PATH_TEXT_MAX];
  if (!qualifier || (parser->next.kind != TOKEN_COLON && !qualifier->number)) {
    const struct esp_sel_source *source = &parser->program->source;
    esp_path_print(source->text + word->at, word->len, text, sizeof text);
    return parser->next.kind == TOKEN_COLON
               ? esp_sel_fail(source, word->at, parser->st,
                              "\"%s:\" is not known; these are: name:, tag:, group:, dtype:, kind:, rank:, size:", text)
               : esp_sel_fail(source, word->at, parser->st, "\"%s\" is no number; rank and size can be compared", text);
  }
  term->comparison = comparisons[parser->next.kind];
  enum esp_code code = advance(parser);
  struct token value = {0};
  code = code == ESP_OK ? take_word(parser, qualifier->number ? "a number" : "a name or pattern", &value) : code;
  if (code != ESP_OK) {
    return code;
  }
  term->value_at = value.at;
  term->value_len = value.len;
  return qualifier->parse(parser, term, &value);
}

/* "@" is next. */
static enum esp_code parse_named(struct parser *parser, struct esp_sel_term *term) {
  const struct esp_sel_source *source = &parser->program->source;
  struct token value = {0};
  enum esp_code code = advance(parser);
  code = code == ESP_OK ? take_word(parser, "the name of a selection", &value) : code;
  if (code != ESP_OK) {
    return code;
  }
  for (size_t i = value.at; i < value.at + value.len; i++) {
    if (strchr("*[]{},", source->text[i])) {
      return esp_sel_fail(source, i, parser->st, "the name of a selection is no pattern");
    }
  }
  term->kind = ESP_SEL_NAMED;
  term->value_at = value.at;
  term->value_len = value.len;
  return ESP_OK;
}

static bool is_comparison(enum token_kind kind) {
  return kind == TOKEN_EQ || kind == TOKEN_NE || kind == TOKEN_LT || kind == TOKEN_LE || kind == TOKEN_GT ||
         kind == TOKEN_GE;
}

/* A word is next: a qualifier, a flag, or a path or pattern. */
static enum esp_code parse_word(struct parser *parser, struct esp_sel_term *term) {
  struct token word = parser->next;
  enum esp_code code = advance(parser);
  if (code != ESP_OK) {
    return code;
  }
  const struct qualifier *qualifier = qualifier_find(parser, &word);
  bool compared = is_comparison(parser->next.kind) &&
                  (parser->next.kind != TOKEN_GT || (qualifier && qualifier->number)); /* else `a > b` */
  if (parser->next.kind == TOKEN_COLON || compared) {
    return parse_qualified(parser, term, &word);
  }
  term->kind = token_is(parser, &word, "frozen")     ? ESP_SEL_FROZEN
               : token_is(parser, &word, "tied")     ? ESP_SEL_TIED
               : token_is(parser, &word, "detached") ? ESP_SEL_DETACHED
                                                     : ESP_SEL_PATTERN;
  return term->kind != ESP_SEL_PATTERN
             ? ESP_OK
             : esp_sel_pattern_append(&term->pattern, &parser->program->source, &parser->program->arena, word.at,
                                      word.at + word.len, parser->st);
}

/* ---- grammar ---- */

static enum esp_code parse_union(struct parser *parser);

/* What stands left of `>` was parsed: a term, or NULL for parentheses. */
static enum esp_code parse_children(struct parser *parser, struct esp_sel_term *term) {
  enum esp_code code = ESP_OK;
  while (code == ESP_OK && parser->next.kind == TOKEN_GT) {
    if (!term || (term->kind != ESP_SEL_PATTERN && term->kind != ESP_SEL_TAG)) {
      return esp_sel_fail(&parser->program->source, parser->next.at, parser->st,
                          "left of \">\" is a path, a pattern, name: or tag:, whose nodes have children");
    }
    struct token child = {0};
    code = advance(parser);
    code = code == ESP_OK ? take_word(parser, "a path or pattern", &child) : code;
    if (code == ESP_OK && parser->next.kind == TOKEN_COLON) {
      return esp_sel_fail(&parser->program->source, child.at, parser->st, "right of \">\" is a path or pattern");
    }
    code = code == ESP_OK ? esp_sel_pattern_append(&term->pattern, &parser->program->source, &parser->program->arena,
                                                   child.at, child.at + child.len, parser->st)
                          : code;
  }
  return code;
}

/* "(" is next. */
static enum esp_code parse_parentheses(struct parser *parser) {
  const struct esp_sel_source *source = &parser->program->source;
  size_t open = parser->next.at;
  if (parser->depth == ESP_SELECTOR_PARENTHESES_MAX) {
    return esp_sel_fail(source, open, parser->st, "more than %d parentheses are open", ESP_SELECTOR_PARENTHESES_MAX);
  }
  parser->depth++;
  enum esp_code code = advance(parser);
  code = code == ESP_OK ? parse_union(parser) : code;
  parser->depth--;
  if (code != ESP_OK) {
    return code;
  }
  if (parser->next.kind == TOKEN_END) {
    return esp_sel_fail(source, open, parser->st, "\"(\" has no \")\"");
  }
  return parser->next.kind == TOKEN_CLOSE ? advance(parser) : unexpected(parser, "an operator");
}

static enum esp_code parse_chain(struct parser *parser) {
  size_t at = parser->next.at;
  if (parser->next.kind == TOKEN_OPEN) {
    enum esp_code code = parse_parentheses(parser);
    return code == ESP_OK ? parse_children(parser, NULL) : code;
  }
  if (parser->next.kind != TOKEN_WORD && parser->next.kind != TOKEN_AT) {
    return unexpected(parser, "a path or pattern");
  }
  struct esp_sel_term *term = esp_arena_alloc(&parser->program->arena, sizeof *term);
  if (!term) {
    return esp_sel_no_memory(parser->st);
  }
  *term = (struct esp_sel_term){0};
  enum esp_code code = parser->next.kind == TOKEN_AT ? parse_named(parser, term) : parse_word(parser, term);
  code = code == ESP_OK ? parse_children(parser, term) : code;
  return code == ESP_OK ? step_add(parser, ESP_SEL_TERM, term, at) : code;
}

static enum esp_code parse_negation(struct parser *parser) {
  size_t at = parser->next.at;
  bool negated = false;
  enum esp_code code = ESP_OK;
  while (code == ESP_OK && parser->next.kind == TOKEN_NOT) {
    negated = !negated;
    code = advance(parser);
  }
  code = code == ESP_OK ? parse_chain(parser) : code;
  return code == ESP_OK && negated ? step_add(parser, ESP_SEL_NOT, NULL, at) : code;
}

static enum esp_code parse_intersection(struct parser *parser) {
  size_t at = parser->next.at;
  enum esp_code code = parse_negation(parser);
  while (code == ESP_OK && parser->next.kind == TOKEN_AND) {
    code = advance(parser);
    code = code == ESP_OK ? parse_negation(parser) : code;
    code = code == ESP_OK ? step_add(parser, ESP_SEL_AND, NULL, at) : code;
  }
  return code;
}

static enum esp_code parse_union(struct parser *parser) {
  size_t at = parser->next.at;
  enum esp_code code = parse_intersection(parser);
  while (code == ESP_OK && parser->next.kind == TOKEN_OR) {
    code = advance(parser);
    code = code == ESP_OK ? parse_intersection(parser) : code;
    code = code == ESP_OK ? step_add(parser, ESP_SEL_OR, NULL, at) : code;
  }
  return code;
}

enum esp_code esp_sel_parse(const struct esp_sel_source *source, struct esp_sel_program *ret, struct esp_status *st) {
  if (source->len > ESP_SELECTOR_BYTES_MAX) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "a selector of %zu bytes is longer than %d", source->len,
                    ESP_SELECTOR_BYTES_MAX);
  }
  struct esp_sel_program program = {.source = *source};
  struct parser parser = {.program = &program, .st = st};
  esp_arena_init(&program.arena, 0);
  enum esp_code code = advance(&parser);
  code = code == ESP_OK ? parse_union(&parser) : code;
  if (code == ESP_OK && parser.next.kind != TOKEN_END) {
    code = parser.next.kind == TOKEN_CLOSE ? esp_sel_fail(source, parser.next.at, st, "\")\" without \"(\"")
           : parser.next.kind == TOKEN_WORD || parser.next.kind == TOKEN_OPEN || parser.next.kind == TOKEN_AT ||
                   parser.next.kind == TOKEN_NOT
               ? esp_sel_fail(source, parser.next.at, st, "an operator is missing")
               : unexpected(&parser, "a path or pattern");
  }
  if (code != ESP_OK) {
    esp_sel_program_done(&program);
    return code;
  }
  *ret = program;
  return ESP_OK;
}

void esp_sel_program_done(struct esp_sel_program *program) {
  esp_arena_done(&program->arena);
  esp_free(program->steps);
  program->steps = NULL;
  program->steps_len = program->steps_capacity = 0;
}

enum esp_code esp_selector_check(const char *text, size_t len, struct esp_status *st) {
  const struct esp_sel_source source = {.text = text, .len = len};
  struct esp_sel_program program;
  if (len == 0) {
    return ESP_OK;
  }
  enum esp_code code = esp_sel_parse(&source, &program, st);
  if (code == ESP_OK) {
    esp_sel_program_done(&program);
  }
  return code;
}
