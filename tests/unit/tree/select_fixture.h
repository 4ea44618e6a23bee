/* Selectors in tests: a tree that has something for every term, and an evaluator that follows the words of
 * docs/selectors.md, one leaf at a time, trying everything. It is exponential and takes valid selectors only. */
#ifndef ESP_TREE_SELECT_FIXTURE_H
#define ESP_TREE_SELECT_FIXTURE_H

#include <stdio.h>

#include "base/alloc.h"
#include "fixture.h"

/* ---- the tree ---- */

struct select_leaf {
  const char *path;
  struct esp_shape shape;
  enum esp_dtype dtype;
  enum esp_kind kind;
  const char *tag;
  bool frozen;
  bool detached;
  const char *tied_to; /* NULL, or the path of a leaf that comes before it */
};

#define SELECT_SCALAR                                                                                                  \
  { .rank = 0 }
#define SELECT_VECTOR                                                                                                  \
  { .dims = {7}, .rank = 1 }
#define SELECT_MATRIX                                                                                                  \
  { .dims = {3, 5}, .rank = 2 }

/* In path order. */
static const struct select_leaf select_leaves[] = {
    {"a.a.a", SELECT_MATRIX, ESP_DTYPE_F32, ESP_KIND_TRAINED, "T", false, false, NULL},
    {"a.a.b", SELECT_VECTOR, ESP_DTYPE_F32, ESP_KIND_TRAINED, "", true, false, NULL},
    {"a.ab.a", SELECT_MATRIX, ESP_DTYPE_F64, ESP_KIND_TRAINED, "", false, true, NULL},
    {"a.ba", SELECT_SCALAR, ESP_DTYPE_F32, ESP_KIND_BUFFER, "U", false, false, NULL},
    {"a-.\xc3\xa9"
     "b",
     SELECT_MATRIX, ESP_DTYPE_F32, ESP_KIND_TRAINED, "", false, false, NULL},
    {"aa.a.a", SELECT_MATRIX, ESP_DTYPE_F32, ESP_KIND_TRAINED, "", false, false, "a.a.a"},
    {"aa.bb", SELECT_VECTOR, ESP_DTYPE_F32, ESP_KIND_TRAINED, "t.U", true, true, NULL},
    {"ab", SELECT_SCALAR, ESP_DTYPE_F64, ESP_KIND_TRAINED, "T", false, false, NULL},
    {"b.00", SELECT_VECTOR, ESP_DTYPE_F32, ESP_KIND_TRAINED, "", false, false, NULL},
    {"b.03.a", SELECT_VECTOR, ESP_DTYPE_F32, ESP_KIND_TRAINED, "", false, false, NULL},
    {"b.10.a", SELECT_VECTOR, ESP_DTYPE_F32, ESP_KIND_TRAINED, "", false, false, NULL},
    {"b.3.a", SELECT_MATRIX, ESP_DTYPE_F32, ESP_KIND_TRAINED, "", false, false, NULL},
    {"b.a.a.a.a", SELECT_MATRIX, ESP_DTYPE_F32, ESP_KIND_BUFFER, "", false, false, NULL},
    {"b.a.b", SELECT_VECTOR, ESP_DTYPE_F32, ESP_KIND_TRAINED, "", false, false, NULL},
    {"b.a1b2.a", SELECT_VECTOR, ESP_DTYPE_F32, ESP_KIND_TRAINED, "", true, false, NULL},
    {"b.aab.b.0", SELECT_VECTOR, ESP_DTYPE_F32, ESP_KIND_TRAINED, "", false, false, NULL},
    {"ba.a", SELECT_VECTOR, ESP_DTYPE_F64, ESP_KIND_TRAINED, "", false, false, NULL},
    {"frozen.a", SELECT_VECTOR, ESP_DTYPE_F32, ESP_KIND_TRAINED, "", false, false, NULL},
    {"\xc3\xa9", SELECT_VECTOR, ESP_DTYPE_F32, ESP_KIND_TRAINED, "", false, false, "b.00"},
};

static const struct esp_node_tag select_tags[] = {
    {"a", 1, "T"}, {"a.a", 3, "U"}, {"b", 1, "t.U"}, {"b.a", 3, "T"}, {"b.a.a", 5, "T"}, {"gone", 4, "V"},
};

static const struct esp_named_selection select_named[] = {
    {"a", "name:a & !frozen"}, {"bad", "a |"},    {"deep", "@twice | @a | @twice"}, {"loop", "a & @pool"},
    {"none", "a & nosuch"},    {"pool", "@self"}, {"self", "@a | @loop"},           {"twice", "@a & tag:T"},
};

/* Gives the layout, which nobody else has, a copy of an array. */
static inline void *select_array(const void *array, size_t bytes) {
  void *copy = esp_malloc(bytes);
  assert_non_null(copy);
  return memcpy(copy, array, bytes);
}

static inline struct esp_layout *select_tree(void) {
  struct esp_layout *layout = tree_empty();
  struct esp_leaf_new leaves[LEN_OF(select_leaves)];
  for (size_t i = 0; i < LEN_OF(select_leaves); i++) {
    const struct select_leaf *leaf = &select_leaves[i];
    leaves[i] = leaf_of(leaf->path);
    leaves[i].shape = leaf->shape;
    leaves[i].dtype = leaf->dtype;
    leaves[i].kind = leaf->kind;
    leaves[i].tag = leaf->tag;
    leaves[i].frozen = leaf->frozen;
  }
  struct esp_edit *edit = esp_edit_new(layout);
  struct esp_status st;
  expect_ok(esp_edit_assign(edit, "a.a", 3, "head", &st), &st);
  expect_ok(esp_edit_assign(edit, "b", 1, "nobody's", &st), &st);
  edit_add_ok(edit, leaves, LEN_OF(leaves));
  struct esp_diff diff = finish_ok(edit, &layout);
  esp_diff_done(&diff);
  for (size_t i = 0; i < LEN_OF(select_leaves); i++) { /* what is done to one leaf after the other */
    layout->leaves[i].detached = select_leaves[i].detached;
    for (size_t to = 0; select_leaves[i].tied_to && to < i; to++) {
      if (strcmp(layout->leaves[to].path, select_leaves[i].tied_to) == 0) {
        layout->leaves[i].param = layout->leaves[to].param;
        layout->params[layout->leaves[to].param].leaves_len++;
      }
    }
  }
  layout->tags = select_array(select_tags, sizeof select_tags);
  layout->tags_len = LEN_OF(select_tags);
  layout->selections = select_array(select_named, sizeof select_named);
  layout->selections_len = LEN_OF(select_named);
  return layout;
}

/* ---- the naive evaluator ---- */

struct naive_text {
  const char *at;
  size_t len;
};

/* A text behind another one. free it. */
static inline char *naive_join(struct naive_text a, struct naive_text b) {
  char *joined = malloc(a.len + b.len + 1);
  assert_non_null(joined);
  memcpy(joined, a.at, a.len);
  memcpy(joined + a.len, b.at, b.len);
  joined[a.len + b.len] = '\0';
  return joined;
}

static inline struct naive_text naive_from(struct naive_text text, size_t n) {
  return (struct naive_text){text.at + n, text.len - n};
}

static inline bool naive_blank(char byte) {
  return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

static inline struct naive_text naive_trim(struct naive_text text) {
  while (text.len > 0 && naive_blank(*text.at)) {
    text = naive_from(text, 1);
  }
  while (text.len > 0 && naive_blank(text.at[text.len - 1])) {
    text.len--;
  }
  return text;
}

static inline bool naive_glob(struct naive_text glob, struct naive_text text);

/* A range at the start of glob: a number of the text that is in it, as it would be printed, and then the rest. */
static inline bool naive_range(struct naive_text glob, struct naive_text text) {
  unsigned long long from, to;
  char from_text[20], to_text[20];
  int end = 0;
  sscanf(glob.at, "[%19[0-9]-%19[0-9]]%n", from_text, to_text, &end);
  from = strtoull(from_text, NULL, 10);
  to = strtoull(to_text, NULL, 10);
  bool padded = (from_text[0] == '0' && from_text[1]) || (to_text[0] == '0' && to_text[1]);
  size_t width = strlen(from_text) > strlen(to_text) ? strlen(from_text) : strlen(to_text);
  for (size_t n = 1; n <= 18 && n <= text.len && text.at[n - 1] >= '0' && text.at[n - 1] <= '9'; n++) {
    char digits[20] = {0}, printed[20];
    memcpy(digits, text.at, n);
    unsigned long long number = strtoull(digits, NULL, 10);
    snprintf(printed, sizeof printed, "%0*llu", padded ? (int)width : 1, number);
    bool within = from <= to ? number >= from && number <= to : number >= to && number <= from;
    if (within && strcmp(printed, digits) == 0 && naive_glob(naive_from(glob, (size_t)end), naive_from(text, n))) {
      return true;
    }
  }
  return false;
}

/* Alternatives at the start of glob: each of them, with the rest behind it. */
static inline bool naive_choice(struct naive_text glob, struct naive_text text) {
  struct naive_text behind = naive_from(glob, (size_t)((char *)memchr(glob.at, '}', glob.len) - glob.at) + 1);
  for (size_t at = 1; glob.at + at < behind.at;) {
    size_t len = 0;
    while (glob.at[at + len] != ',' && glob.at[at + len] != '}') {
      len++;
    }
    char *joined = naive_join(naive_trim((struct naive_text){glob.at + at, len}), behind);
    bool matched = naive_glob((struct naive_text){joined, strlen(joined)}, text);
    free(joined);
    if (matched) {
      return true;
    }
    at += len + 1;
  }
  return false;
}

static inline bool naive_glob(struct naive_text glob, struct naive_text text) {
  if (glob.len == 0) {
    return text.len == 0;
  }
  if (*glob.at == '*') {
    return naive_glob(naive_from(glob, 1), text) || (text.len > 0 && naive_glob(glob, naive_from(text, 1)));
  }
  if (*glob.at == '[') {
    return naive_range(glob, text);
  }
  if (*glob.at == '{') {
    return naive_choice(glob, text);
  }
  return text.len > 0 && *glob.at == *text.at && naive_glob(naive_from(glob, 1), naive_from(text, 1));
}

/* The length of the first component; a dot in braces ends none. */
static inline size_t naive_component_len(struct naive_text text) {
  bool braces = false;
  size_t n = 0;
  for (; n < text.len && (braces || text.at[n] != '.'); n++) {
    braces = text.at[n] == '{' || (braces && text.at[n] != '}');
  }
  return n;
}

static inline struct naive_text naive_rest(struct naive_text text, size_t component_len) {
  return component_len < text.len ? naive_from(text, component_len + 1) : (struct naive_text){text.at, 0};
}

/* The pattern, or what is left of it (nothing: at is NULL), matches the whole path, which may be the root. */
static inline bool naive_pattern(struct naive_text pattern, struct naive_text path) {
  if (!pattern.at) {
    return path.len == 0;
  }
  size_t n = naive_component_len(pattern);
  struct naive_text rest = n < pattern.len ? naive_from(pattern, n + 1) : (struct naive_text){NULL, 0};
  size_t component = naive_component_len(path);
  if (n == 2 && memcmp(pattern.at, "**", 2) == 0) {
    return naive_pattern(rest, path) || (path.len > 0 && naive_pattern(pattern, naive_rest(path, component)));
  }
  return path.len > 0 && naive_glob((struct naive_text){pattern.at, n}, (struct naive_text){path.at, component}) &&
         naive_pattern(rest, naive_rest(path, component));
}

/* One leaf and a selector's text that is read from left to right. */
struct naive_selector {
  const struct esp_layout *layout;
  size_t leaf;
  const char *at;
  const char *end;
};

static inline char naive_peek(struct naive_selector *sel) {
  while (sel->at < sel->end && naive_blank(*sel->at)) {
    sel->at++;
  }
  return sel->at < sel->end ? *sel->at : '\0';
}

static inline bool naive_take(struct naive_selector *sel, const char *text) {
  size_t len = strlen(text);
  if (naive_peek(sel) == '\0' || (size_t)(sel->end - sel->at) < len || memcmp(sel->at, text, len) != 0) {
    return false;
  }
  sel->at += len;
  return true;
}

static inline struct naive_text naive_word(struct naive_selector *sel) {
  naive_peek(sel);
  struct naive_text word = {sel->at, 0};
  for (bool braces = false; sel->at < sel->end && (braces || !naive_blank(*sel->at)); sel->at++) {
    if (!braces && strchr(":@()&|!=<>", *sel->at)) {
      break;
    }
    braces = *sel->at == '{' || (braces && *sel->at != '}');
  }
  word.len = (size_t)(sel->at - word.at);
  return word;
}

static inline bool naive_is(struct naive_text word, const char *text) {
  return word.len == strlen(text) && memcmp(word.at, text, word.len) == 0;
}

static inline bool naive_name(struct naive_text glob, const char *name) {
  return *name && naive_glob(glob, (struct naive_text){name, strlen(name)});
}

/* What stands left of `>`, or alone: nodes. */
struct naive_nodes {
  enum { NAIVE_PATTERN, NAIVE_NAME, NAIVE_TAG } kind;
  struct naive_text text;
};

/* The leaf's path up to byte `end` is one of the nodes. */
static inline bool naive_node(const struct naive_selector *sel, const struct naive_nodes *nodes, size_t end) {
  const struct esp_leaf *leaf = &sel->layout->leaves[sel->leaf];
  struct naive_text path = {leaf->path, end};
  if (nodes->kind == NAIVE_PATTERN) {
    return naive_pattern(nodes->text, path);
  }
  if (nodes->kind == NAIVE_NAME) {
    size_t begin = end;
    while (begin > 0 && path.at[begin - 1] != '.') {
      begin--;
    }
    return end > 0 && naive_glob(nodes->text, naive_from(path, begin));
  }
  for (size_t i = 0; i < sel->layout->tags_len; i++) {
    const struct esp_node_tag *tag = &sel->layout->tags[i];
    if (tag->node_len == end && memcmp(tag->node, path.at, end) == 0 && naive_name(nodes->text, tag->tag)) {
      return true;
    }
  }
  return end == leaf->path_len && naive_name(nodes->text, leaf->tag);
}

/* Some node on the way to the leaf, from byte `begin` on, matches the first of the patterns, and so on. */
static inline bool naive_children(const struct naive_selector *sel, const struct naive_text *patterns, size_t len,
                                  size_t begin) {
  const struct esp_leaf *leaf = &sel->layout->leaves[sel->leaf];
  if (len == 0) {
    return true;
  }
  for (size_t end = begin; end <= leaf->path_len; end++) {
    bool boundary = end == begin || end == leaf->path_len || leaf->path[end] == '.';
    if (boundary && naive_pattern(patterns[0], (struct naive_text){leaf->path + begin, end - begin})) {
      size_t next = end == begin ? begin : end < leaf->path_len ? end + 1 : end;
      if (naive_children(sel, patterns + 1, len - 1, next)) {
        return true;
      }
    }
  }
  return false;
}

static inline bool naive_chain(struct naive_selector *sel, struct naive_nodes nodes) {
  struct naive_text patterns[64];
  size_t len = 0;
  while (naive_take(sel, ">")) {
    assert_true(len < LEN_OF(patterns));
    patterns[len++] = naive_word(sel);
  }
  const struct esp_leaf *leaf = &sel->layout->leaves[sel->leaf];
  for (size_t end = 0; end <= leaf->path_len; end++) {
    bool boundary = end == 0 || end == leaf->path_len || leaf->path[end] == '.';
    size_t next = end == 0 ? 0 : end < leaf->path_len ? end + 1 : end;
    if (boundary && naive_node(sel, &nodes, end) && naive_children(sel, patterns, len, next)) {
      return true;
    }
  }
  return false;
}

static inline bool naive_compared(struct naive_selector *sel, unsigned long long value) {
  const char *const operators[] = {"!=", "<=", ">=", "<", ">", "=", ":"};
  size_t which = 0;
  while (!naive_take(sel, operators[which])) {
    which++;
  }
  char digits[24] = {0};
  struct naive_text word = naive_word(sel);
  memcpy(digits, word.at, word.len);
  unsigned long long number = strtoull(digits, NULL, 10);
  const bool results[] = {value != number, value <= number, value >= number, value<number, value> number,
                          value == number, value == number};
  return results[which];
}

static inline bool naive_union(struct naive_selector *sel);

static inline bool naive_named(struct naive_selector *sel) {
  struct naive_text name = naive_word(sel);
  for (size_t i = 0; i < sel->layout->selections_len; i++) {
    const struct esp_named_selection *named = &sel->layout->selections[i];
    if (naive_is(name, named->name)) {
      struct naive_selector inner = *sel;
      inner.at = named->text;
      inner.end = named->text + strlen(named->text);
      return naive_union(&inner);
    }
  }
  return false;
}

static inline bool naive_term(struct naive_selector *sel) {
  const struct esp_leaf *leaf = &sel->layout->leaves[sel->leaf];
  const struct esp_place *place = esp_layout_place(sel->layout, leaf);
  if (naive_take(sel, "(")) {
    bool matched = naive_union(sel);
    assert_true(naive_take(sel, ")"));
    return matched;
  }
  if (naive_take(sel, "@")) {
    return naive_named(sel);
  }
  struct naive_text word = naive_word(sel);
  char next = naive_peek(sel);
  if ((naive_is(word, "rank") || naive_is(word, "size")) && next && strchr(":!<>=", next)) {
    unsigned long long size = 1;
    for (unsigned i = 0; i < place->shape.rank; i++) {
      size *= place->shape.dims[i];
    }
    return naive_compared(sel, naive_is(word, "rank") ? place->shape.rank : size);
  }
  if (naive_take(sel, ":")) {
    struct naive_text value = naive_word(sel);
    if (naive_is(word, "name") || naive_is(word, "tag")) {
      return naive_chain(sel, (struct naive_nodes){naive_is(word, "tag") ? NAIVE_TAG : NAIVE_NAME, value});
    }
    return naive_is(word, "dtype") ? naive_name(value, esp_dtype_name(place->dtype))
           : naive_is(word, "kind")
               ? naive_name(value, leaf->kind == ESP_KIND_BUFFER ? "buffer" : "trained")
               : naive_name(value, sel->layout->groups[place->group].name) || naive_name(value, place->group_assigned);
  }
  if (naive_is(word, "frozen") || naive_is(word, "tied") || naive_is(word, "detached")) {
    return *word.at == 'f' ? place->frozen : *word.at == 't' ? place->leaves_len > 1 : leaf->detached;
  }
  return naive_chain(sel, (struct naive_nodes){NAIVE_PATTERN, word});
}

static inline bool naive_negation(struct naive_selector *sel) {
  return naive_take(sel, "!") ? !naive_negation(sel) : naive_term(sel);
}

static inline bool naive_intersection(struct naive_selector *sel) {
  bool matched = naive_negation(sel);
  while (naive_take(sel, "&")) {
    matched = naive_negation(sel) && matched;
  }
  return matched;
}

static inline bool naive_union(struct naive_selector *sel) {
  bool matched = naive_intersection(sel);
  while (naive_take(sel, "|")) {
    matched = naive_intersection(sel) || matched;
  }
  return matched;
}

/* Whether the selector selects the leaf. */
static inline bool naive_selects(const struct esp_layout *layout, size_t leaf, const char *text, size_t len) {
  struct naive_selector sel = {.layout = layout, .leaf = leaf, .at = text, .end = text + len};
  return len == 0 || naive_union(&sel);
}

#endif
