/* A text of operations, line by line.
 *
 * Happy path: a line is cut into words, whose quotes are taken off into the plan's arena and whose columns are
 * remembered; plan_words.c makes an operation of them.
 *
 * How it fails: with the place of the word that is wrong, or of the quote that is not closed. */
#include "formats/plan.h"

#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "formats/plan_internal.h"

void esp_plan_init(struct esp_plan *plan) {
  *plan = (struct esp_plan){0};
  esp_arena_init(&plan->arena, ESP_PLAN_MEMORY_MAX);
}

void esp_plan_done(struct esp_plan *plan) {
  esp_free(plan->ops);
  esp_arena_done(&plan->arena);
  plan->ops = NULL;
  plan->len = plan->capacity = 0;
}

static enum esp_code no_memory(struct esp_status *st) {
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for so many operations");
}

enum esp_code esp_plan_add_words(struct esp_plan *plan, const char *const *words, size_t words_len, size_t *ret_word,
                                 struct esp_status *st) {
  size_t at = 0;
  struct esp_plan_op op;
  if (plan->len == ESP_PLAN_OPERATIONS_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "more than %d operations, which is the most of a transaction",
                    ESP_PLAN_OPERATIONS_MAX);
  if (!esp_grow((void **)&plan->ops, &plan->capacity, plan->len + 1, sizeof *plan->ops))
    return no_memory(st);
  enum esp_code code = esp_plan_read_words(plan, words, words_len, &op, &at, st);
  if (code == ESP_OK)
    plan->ops[plan->len++] = op;
  else if (ret_word != NULL)
    *ret_word = at;
  return code;
}

bool esp_plan_says_group(const struct esp_plan *plan, size_t index, bool *ret_is_there) {
  const char *name = plan->ops[index].name;
  for (size_t i = index; i-- > 0;) {
    const struct esp_plan_op *op = &plan->ops[i];
    bool is_definition = op->kind == ESP_PLAN_CREATE_GROUP || op->kind == ESP_PLAN_SET_GROUP;
    if ((!is_definition && op->kind != ESP_PLAN_DELETE_GROUP) || strcmp(op->name, name) != 0)
      continue;
    *ret_is_there = is_definition;
    return true;
  }
  return false;
}

/* ---- lines ---- */

/* A text that is being read. */
struct reader {
  struct esp_plan *plan;
  const char *source;
  size_t line;       /* from 1 */
  const char *begin; /* of the line */
  const char *end;   /* of the line, its end excluded */
  const char *at;    /* in the line */
  const char *words[ESP_PLAN_WORDS_MAX];
  const char *places[ESP_PLAN_WORDS_MAX + 1]; /* where each begins, and the end */
  size_t words_len;
};

static enum esp_code fail_at(const struct reader *reader, const char *place, const char *message,
                             struct esp_status *st) {
  size_t column = 1;
  for (const char *at = reader->begin; at < place; at++)
    column += ((unsigned char)*at & 0xC0) != 0x80;
  return esp_fail(st, ESP_INVALID_ARGUMENT, "%s:%zu:%zu: %s", reader->source, reader->line, column, message);
}

static bool is_blank(char byte) {
  return byte == ' ' || byte == '\t';
}

/* Takes a quoted part, after its first quote, to *to. False: it is not closed. */
static bool take_quoted(struct reader *reader, char quote, char **to) {
  for (; reader->at < reader->end; reader->at++) {
    char byte = *reader->at;
    if (byte == quote) {
      reader->at++;
      return true;
    }
    bool is_escape =
        quote == '"' && byte == '\\' && reader->at + 1 < reader->end && (reader->at[1] == '"' || reader->at[1] == '\\');
    if (is_escape)
      reader->at++;
    *(*to)++ = *reader->at;
  }
  return false;
}

/* Takes one word, which is not empty on the line, without its quotes. */
static enum esp_code take_word(struct reader *reader, struct esp_status *st) {
  const char *place = reader->at;
  char *word = esp_arena_alloc(&reader->plan->arena, (size_t)(reader->end - place) + 1);
  if (word == NULL)
    return no_memory(st);
  char *to = word;
  while (reader->at < reader->end && !is_blank(*reader->at)) {
    const char *here = reader->at;
    char byte = *reader->at++;
    if (byte == '\'' || byte == '"') {
      if (!take_quoted(reader, byte, &to))
        return fail_at(reader, here, "a quote that is not closed on its line", st);
      continue;
    }
    if (byte == '\\' && reader->at == reader->end)
      return fail_at(reader, here, "a backslash with nothing after it", st);
    *to++ = byte == '\\' ? *reader->at++ : byte;
  }
  *to = '\0';
  if (reader->words_len == ESP_PLAN_WORDS_MAX)
    return fail_at(reader, place, "too many words for one operation", st);
  reader->places[reader->words_len] = place;
  reader->words[reader->words_len++] = word;
  return ESP_OK;
}

static enum esp_code read_line(struct reader *reader, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  reader->words_len = 0;
  reader->at = reader->begin;
  while (code == ESP_OK) {
    while (reader->at < reader->end && is_blank(*reader->at))
      reader->at++;
    if (reader->at == reader->end || *reader->at == '#')
      break;
    code = take_word(reader, st);
  }
  if (code != ESP_OK || reader->words_len == 0)
    return code;
  size_t word = reader->words_len;
  struct esp_status why;
  reader->places[reader->words_len] = reader->at;
  code = esp_plan_add_words(reader->plan, reader->words, reader->words_len, &word, &why);
  if (code == ESP_INVALID_ARGUMENT)
    return fail_at(reader, reader->places[word], why.message, st);
  if (code == ESP_OK)
    reader->plan->ops[reader->plan->len - 1].line = reader->line;
  return code == ESP_OK ? ESP_OK : esp_fail(st, code, "%s", why.message);
}

enum esp_code esp_plan_add_text(struct esp_plan *plan, const char *source, const char *text, size_t len,
                                struct esp_status *st) {
  struct reader reader = {.plan = plan, .source = source, .line = 1, .begin = text};
  const char *end = text + len;
  if (len > ESP_PLAN_BYTES_MAX)
    return esp_fail(st, ESP_INVALID_ARGUMENT, "%s: it has more than %u bytes, the most of a plan", source,
                    ESP_PLAN_BYTES_MAX);
  enum esp_code code = ESP_OK;
  for (; code == ESP_OK && reader.begin < end; reader.line++) {
    const char *newline = memchr(reader.begin, '\n', (size_t)(end - reader.begin));
    reader.end = newline != NULL ? newline : end;
    const char *next = newline != NULL ? newline + 1 : end;
    if (reader.end > reader.begin && reader.end[-1] == '\r')
      reader.end--;
    code = esp_utf8_is_text(reader.begin, (size_t)(reader.end - reader.begin))
               ? read_line(&reader, st)
               : fail_at(&reader, reader.begin, "the line is not UTF-8 text", st);
    reader.begin = next;
  }
  return code;
}
