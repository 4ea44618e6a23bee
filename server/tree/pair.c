/* Pairing leaves for what ties or copies them.
 *
 * A template is a path whose components may have wildcards. A leaf's path is matched from its beginning; what each
 * wildcard stands for is kept, and put in place of the other template's wildcards; what is left of the path behind the
 * match is appended. Fails for templates that don't fit each other and for leaves without another half; nothing else.
 */
#include <espalier/status.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "tree/tree_internal.h"

#define WILDCARDS_MAX 16

/* A part of a template: a text, or a wildcard. Parts of one component follow each other without a dot. */
struct part {
  enum { PART_TEXT, PART_STAR, PART_DEPTH } kind;
  const char *text;
  size_t len;
};

#define PARTS_MAX (2 * WILDCARDS_MAX + 2)

struct template {
  const char *text;
  size_t len;
  struct part parts[PARTS_MAX];
  size_t parts_len;
  size_t wildcards_len;
};

/* What a wildcard stood for. */
struct capture {
  const char *text;
  size_t len;
};

static enum esp_code template_fail(struct esp_status *st, const struct template *template, size_t at,
                                   const char *what) {
  char text[ESP_PATH_TEXT_MAX];
  return esp_fail(st, ESP_INVALID_ARGUMENT, "\"%s\", column %zu: %s",
                  esp_path_print(template->text, template->len, text, sizeof text), at + 1, what);
}

/* With `a` in place of its wildcards it has to be a path. */
static enum esp_code template_check(const struct template *template, struct esp_status *st) {
  char *path = esp_malloc(template->len + 1);
  if (!path) {
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a path");
  }
  for (size_t i = 0; i < template->len; i++) {
    path[i] = template->text[i] == '*' ? 'a' : template->text[i];
  }
  enum esp_code code = esp_path_check(path, template->len, st);
  esp_free(path);
  return code;
}

/* Whether the wildcard of `len` bytes at `at` is a whole component. */
static bool is_component(const struct template *template, size_t at, size_t len) {
  return (at == 0 || template->text[at - 1] == '.') && (at + len == template->len || template->text[at + len] == '.');
}

static enum esp_code template_init(struct template *template, const char *text, struct esp_status *st) {
  *template = (struct template){.text = text, .len = strlen(text)};
  enum esp_code code = template_check(template, st);
  for (size_t at = 0; at < template->len && code == ESP_OK;) {
    struct part part = {.kind = PART_TEXT, .text = text + at, .len = strcspn(text + at, "*")};
    if (part.len == 0) {
      part.len = strspn(text + at, "*");
      part.kind = part.len == 1 ? PART_STAR : PART_DEPTH;
      if (part.len > 2 || (part.kind == PART_DEPTH && !is_component(template, at, part.len))) {
        return template_fail(st, template, at, "** has to be a whole component");
      }
      if (++template->wildcards_len > WILDCARDS_MAX) {
        return template_fail(st, template, at, "too many wildcards");
      }
    }
    template->parts[template->parts_len++] = part;
    at += part.len;
  }
  return code;
}

/* The nth wildcard stands for the nth: they have to be of one kind. */
static enum esp_code templates_fit(const struct template *from, const struct template *to, struct esp_status *st) {
  size_t i = 0;
  size_t k = 0;
  for (;;) {
    while (i < from->parts_len && from->parts[i].kind == PART_TEXT) {
      i++;
    }
    while (k < to->parts_len && to->parts[k].kind == PART_TEXT) {
      k++;
    }
    bool from_ends = i == from->parts_len;
    bool to_ends = k == to->parts_len;
    if (from_ends && to_ends) {
      return ESP_OK;
    }
    if (from_ends || to_ends || from->parts[i].kind != to->parts[k].kind) {
      return template_fail(st, to, to_ends ? to->len : (size_t)(to->parts[k].text - to->text),
                           "its wildcards are not those of the other pattern, in their order");
    }
    i++;
    k++;
  }
}

/* ---- matching ---- */

/* Matches parts from `part` on against the path from `at` on; *ret_end is where the match ends, at a dot or the end. A
 * wildcard takes as little as it can: a star of one component, a depth one whole component or more. The recursion is as
 * deep as the template has parts. */
static bool match(const struct template *template, size_t part, const char *path, size_t len, size_t at,
                  struct capture *captures, size_t *ret_end) {
  if (part == template->parts_len) {
    *ret_end = at;
    return at == len || path[at] == '.';
  }
  const struct part *now = &template->parts[part];
  if (now->kind == PART_TEXT) {
    return len - at >= now->len && memcmp(path + at, now->text, now->len) == 0 &&
           match(template, part + 1, path, len, at + now->len, captures, ret_end);
  }
  for (size_t end = at; end <= len; end++) {
    bool component_ends = end == len || path[end] == '.';
    *captures = (struct capture){.text = path + at, .len = end - at};
    if ((now->kind == PART_STAR || (end > at && component_ends)) &&
        match(template, part + 1, path, len, end, captures + 1, ret_end)) {
      return true;
    }
    if (now->kind == PART_STAR && component_ends) {
      return false;
    }
  }
  return false;
}

/* The other half's path into `path`, of ESP_PATH_BYTES_MAX + 1 bytes; false where it is too long. */
static bool substitute(const struct template *to, const struct capture *captures, const char *rest, size_t rest_len,
                       char *path, size_t *ret_len) {
  size_t used = 0;
  for (size_t i = 0; i <= to->parts_len; i++) {
    const char *text = rest;
    size_t len = rest_len;
    if (i < to->parts_len && to->parts[i].kind == PART_TEXT) {
      text = to->parts[i].text;
      len = to->parts[i].len;
    } else if (i < to->parts_len) {
      text = captures->text;
      len = captures->len;
      captures++;
    }
    if (len > ESP_PATH_BYTES_MAX - used) {
      return false;
    }
    if (len > 0) { /* a star may stand for nothing */
      memcpy(path + used, text, len);
    }
    used += len;
  }
  path[used] = '\0';
  *ret_len = used;
  return true;
}

/* ---- pairs ---- */

struct pairing {
  const struct esp_layout *layout;
  struct template from;
  struct template to;
  struct esp_pair *pairs;
  size_t len;
  size_t capacity;
};

static enum esp_code pairing_add(struct pairing *pairing, const struct esp_leaf *leaf, const struct capture *captures,
                                 size_t end, struct esp_status *st) {
  char path[ESP_PATH_BYTES_MAX + 1];
  size_t len = 0;
  if (!substitute(&pairing->to, captures, leaf->path + end, leaf->path_len - end, path, &len)) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "the other half of leaf %s would have too long a path", leaf->path);
  }
  const struct esp_leaf *other = esp_layout_leaf_by_path(pairing->layout, path, len);
  if (!other) {
    char text[ESP_PATH_TEXT_MAX];
    return esp_fail(st, ESP_NOT_FOUND, "leaf %s has no other half: there is no leaf %s", leaf->path,
                    esp_path_print(path, len, text, sizeof text));
  }
  if (other == leaf) {
    return esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s can't be paired with itself", leaf->path);
  }
  if (!esp_grow((void **)&pairing->pairs, &pairing->capacity, pairing->len + 1, sizeof *pairing->pairs)) {
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for pairs of leaves");
  }
  pairing->pairs[pairing->len++] = (struct esp_pair){.from = (uint32_t)(leaf - pairing->layout->leaves),
                                                     .to = (uint32_t)(other - pairing->layout->leaves)};
  return ESP_OK;
}

static int index_compare(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a;
  uint32_t y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

/* No leaf is on both sides. `from` ascends. */
static enum esp_code pairing_check(const struct pairing *pairing, struct esp_status *st) {
  uint32_t *tos = esp_malloc_array(pairing->len + 1, sizeof *tos);
  if (!tos) {
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for pairs of leaves");
  }
  for (size_t i = 0; i < pairing->len; i++) {
    tos[i] = pairing->pairs[i].to;
  }
  qsort(tos, pairing->len, sizeof *tos, index_compare);
  enum esp_code code = ESP_OK;
  for (size_t i = 0, k = 0; i < pairing->len && code == ESP_OK; i++) {
    while (k < pairing->len && tos[k] < pairing->pairs[i].from) {
      k++;
    }
    if (k < pairing->len && tos[k] == pairing->pairs[i].from) {
      code = esp_fail(st, ESP_INVALID_ARGUMENT, "leaf %s is on both sides", pairing->layout->leaves[tos[k]].path);
    }
  }
  esp_free(tos);
  return code;
}

static enum esp_code pairing_match(struct pairing *pairing, struct esp_status *st) {
  const struct esp_layout *layout = pairing->layout;
  const struct template *from = &pairing->from;
  size_t first = 0;
  size_t len = layout->leaves_len;
  if (from->wildcards_len == 0) {
    esp_layout_range(layout, from->text, from->len, &first, &len);
  }
  for (size_t i = first; i < first + len; i++) {
    const struct esp_leaf *leaf = &layout->leaves[i];
    struct capture captures[WILDCARDS_MAX] = {0};
    size_t end = 0;
    if (match(from, 0, leaf->path, leaf->path_len, 0, captures, &end)) {
      enum esp_code code = pairing_add(pairing, leaf, captures, end, st);
      if (code != ESP_OK) {
        return code;
      }
    }
  }
  if (pairing->len > 0) {
    return pairing_check(pairing, st);
  }
  char text[ESP_PATH_TEXT_MAX];
  char near[512];
  return esp_fail(st, ESP_NOT_FOUND, "no leaf matches \"%s\"; nearest: %s",
                  esp_path_print(from->text, from->len, text, sizeof text),
                  esp_layout_suggest(layout, from->text, near, sizeof near));
}

enum esp_code esp_pair_leaves(const struct esp_layout *layout, const char *from, const char *to, struct esp_pair **ret,
                              size_t *ret_len, struct esp_status *st) {
  struct pairing pairing = {.layout = layout};
  enum esp_code code = template_init(&pairing.from, from, st);
  code = code == ESP_OK ? template_init(&pairing.to, to, st) : code;
  code = code == ESP_OK ? templates_fit(&pairing.from, &pairing.to, st) : code;
  const struct template *a = &pairing.from;
  const struct template *b = &pairing.to;
  if (code == ESP_OK && a->wildcards_len == 0 && a->len != b->len &&
      (esp_path_within(a->text, a->len, b->text, b->len) || esp_path_within(b->text, b->len, a->text, a->len))) {
    code = esp_fail(st, ESP_INVALID_ARGUMENT, "one of %.200s and %.200s lies below the other", from, to);
  }
  code = code == ESP_OK ? pairing_match(&pairing, st) : code;
  if (code != ESP_OK) {
    esp_free(pairing.pairs);
    return code;
  }
  *ret = pairing.pairs;
  *ret_len = pairing.len;
  return ESP_OK;
}
