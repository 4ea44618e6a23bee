/* Paths that are near to a text which matched nothing: what the operator may have meant.
 *
 * Nodes are compared by edit distance (insertions, deletions, replacements and swaps of neighbours), by their whole
 * path and by as many last components as the text has. Where none is near, what lies right below the deepest node of
 * the text that exists is the answer: the places where one could go on from there.
 *
 * The work is bounded: LEAVES_MAX leaves, evenly spaced, with the nodes above them, and a band of the distance matrix.
 * Nothing here can fail or allocates. */
#include <stdio.h>
#include <string.h>

#include "tree/tree_internal.h"

#define LEAVES_MAX 20000
#define TEXT_BYTES_MAX 255 /* nothing is near to a longer text */
#define DISTANCE_MAX 3
#define FOUND_MAX 3
#define PATTERN_CHARACTERS "*[{"

struct found {
  const char *path; /* a leaf's, of which path_len bytes are the node's */
  size_t path_len;  /* bytes */
  size_t distance;  /* from the text */
};

struct search {
  const char *text;              /* what a node is to be near to */
  size_t text_len;               /* 1 to TEXT_BYTES_MAX */
  size_t components;             /* of text */
  size_t distance_max;           /* what is near */
  struct found found[FOUND_MAX]; /* nearest first */
  size_t found_len;              /* used */
};

static size_t min(size_t a, size_t b) {
  return a < b ? a : b;
}

/* The distance of a and b, or any number over max where it is greater. a_len is TEXT_BYTES_MAX at most, max
 * DISTANCE_MAX. */
static size_t distance(const char *a, size_t a_len, const char *b, size_t b_len, size_t max) {
  if (a_len > b_len + max || b_len > a_len + max) {
    return max + 1;
  }
  if (a_len == 0 || b_len == 0) {
    return a_len + b_len;
  }
  size_t memory[3][TEXT_BYTES_MAX + DISTANCE_MAX + 2];
  size_t *before = memory[0]; /* row i - 2 */
  size_t *above = memory[1];  /* row i - 1 */
  size_t *row = memory[2];
  for (size_t j = 0; j <= b_len; j++) {
    above[j] = j;
  }
  for (size_t i = 1; i <= a_len; i++) {
    size_t low = i > max ? i - max : 1; /* cells farther from the diagonal are over max */
    size_t high = min(i + max, b_len);
    row[low - 1] = low == 1 ? i : max + 1;
    if (i + max <= b_len) {
      above[high] = max + 1;
    }
    for (size_t j = low; j <= high; j++) {
      size_t cost = min(above[j - 1] + (a[i - 1] != b[j - 1]), min(above[j], row[j - 1]) + 1);
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost = min(cost, before[j - 2] + 1);
      }
      row[j] = cost;
    }
    size_t *free_row = before;
    before = above;
    above = row;
    row = free_row;
  }
  return above[b_len];
}

/* The part of path that is its last n components. */
static size_t tail_begin(const char *path, size_t len, size_t n) {
  size_t begin = len;
  while (begin > 0 && (path[begin - 1] != '.' || --n > 0)) {
    begin--;
  }
  return begin;
}

/* Keeps the node where it is one of the nearest. */
static void search_consider(struct search *search, const char *path, size_t path_len) {
  size_t near = distance(search->text, search->text_len, path, path_len, search->distance_max);
  size_t begin = tail_begin(path, path_len, search->components);
  if (begin > 0) {
    near = min(near,
               1 + distance(search->text, search->text_len, path + begin, path_len - begin, search->distance_max - 1));
  }
  if (near > search->distance_max) {
    return;
  }
  size_t at = search->found_len;
  while (at > 0 && search->found[at - 1].distance > near) {
    at--;
  }
  if (at == FOUND_MAX) {
    return;
  }
  search->found_len = min(search->found_len + 1, FOUND_MAX);
  memmove(&search->found[at + 1], &search->found[at], (search->found_len - at - 1) * sizeof search->found[0]);
  search->found[at] = (struct found){.path = path, .path_len = path_len, .distance = near};
}

/* Every node once: of each leaf, those of its path that the leaf before it does not have. */
static void search_run(struct search *search, const struct esp_layout *layout) {
  const struct esp_leaf *last = NULL;
  size_t stride = layout->leaves_len / LEAVES_MAX + 1;
  for (size_t i = 0; i < layout->leaves_len; i += stride) {
    const struct esp_leaf *leaf = &layout->leaves[i];
    for (size_t end = 0; end < leaf->path_len; end++) {
      const char *dot = memchr(leaf->path + end, '.', leaf->path_len - end);
      end = dot ? (size_t)(dot - leaf->path) : leaf->path_len;
      if (!last || !esp_path_within(last->path, last->path_len, leaf->path, end)) {
        search_consider(search, leaf->path, end);
      }
    }
    last = leaf;
  }
}

static bool node_exists(const struct esp_layout *layout, const char *node, size_t len) {
  size_t first;
  size_t leaves;
  esp_layout_range(layout, node, len, &first, &leaves);
  return leaves > 0;
}

/* The deepest node that exists of a path: how many bytes of it. */
static size_t existing_len(const struct esp_layout *layout, const char *path, size_t len) {
  while (len > 0 && !node_exists(layout, path, len)) {
    const char *dot = memrchr(path, '.', len);
    len = dot ? (size_t)(dot - path) : 0;
  }
  return len;
}

/* The first byte of text that makes it a pattern, or NULL. */
static const char *pattern_begin(const char *text, size_t len) {
  for (size_t i = 0; i < len; i++) {
    if (text[i] != '\0' && strchr(PATTERN_CHARACTERS, text[i])) {
      return text + i;
    }
  }
  return NULL;
}

/* What to search for: a path as it is; of a pattern its literal beginning where that is no node, else its last
 * component where that is literal. Nothing (text_len 0) otherwise. */
static void search_init(struct search *search, const struct esp_layout *layout, const char *text, size_t len,
                        size_t literal_len) {
  *search = (struct search){.text = text, .text_len = len, .components = 1};
  if (literal_len < len) {
    search->text_len = literal_len;
    if (node_exists(layout, text, literal_len)) {
      const char *dot = memrchr(text, '.', len);
      const char *component = dot ? dot + 1 : text;
      search->text = component;
      search->text_len = len - (size_t)(component - text);
      if (pattern_begin(component, search->text_len)) {
        search->text_len = 0;
      }
    }
  }
  if (search->text_len > TEXT_BYTES_MAX) {
    search->text_len = 0;
  }
  for (size_t i = 0; i < search->text_len; i++) {
    search->components += search->text[i] == '.';
  }
  search->distance_max = min(1 + search->text_len / 4, DISTANCE_MAX);
}

/* The first nodes right below node, or node itself where it is a leaf. */
static void search_children(struct search *search, const struct esp_layout *layout, const char *node, size_t len) {
  size_t at;
  size_t left;
  esp_layout_range(layout, node, len, &at, &left);
  while (left > 0 && search->found_len < FOUND_MAX) {
    const struct esp_leaf *leaf = &layout->leaves[at];
    size_t begin = len > 0 ? min(len + 1, leaf->path_len) : 0;
    const char *dot = memchr(leaf->path + begin, '.', leaf->path_len - begin);
    struct found found = {.path = leaf->path, .path_len = dot ? (size_t)(dot - leaf->path) : leaf->path_len};
    search->found[search->found_len++] = found;
    size_t first;
    size_t leaves;
    esp_layout_range(layout, found.path, found.path_len, &first, &leaves);
    at += leaves;
    left -= leaves;
  }
}

/* Puts one more text, in quotes, behind the *used bytes of a list; false where it does not fit. */
static bool list_add(char *buffer, size_t size, size_t *used, const char *text, size_t len) {
  char printed[ESP_PATH_TEXT_MAX];
  esp_path_print(text, len, printed, sizeof printed);
  size_t need = strlen(printed) + (*used > 0 ? 4 : 2);
  if (*used + need >= size) {
    return false;
  }
  *used += (size_t)snprintf(buffer + *used, size - *used, "%s\"%s\"", *used > 0 ? ", " : "", printed);
  return true;
}

const char *esp_suggest(const struct esp_layout *layout, const char *text, size_t len, char *buffer, size_t size) {
  const char *star = pattern_begin(text, len);
  const char *dot = star ? memrchr(text, '.', (size_t)(star - text)) : NULL;
  size_t literal_len = !star ? len : dot ? (size_t)(dot - text) : 0;
  struct search search;
  search_init(&search, layout, text, len, literal_len);
  if (search.text_len > 0) {
    search_run(&search, layout);
  }
  if (search.found_len == 0) {
    search_children(&search, layout, text, existing_len(layout, text, literal_len));
  }
  size_t used = 0;
  if (size > 0) {
    buffer[0] = '\0';
  }
  for (size_t i = 0; i < search.found_len; i++) {
    if (!list_add(buffer, size, &used, search.found[i].path, search.found[i].path_len)) {
      break;
    }
  }
  return buffer;
}

const char *esp_layout_suggest(const struct esp_layout *layout, const char *text, char *buffer, size_t size) {
  return esp_suggest(layout, text, strlen(text), buffer, size);
}

void esp_suggest_names_add(struct esp_suggest_names *names, const char *name) {
  for (size_t i = 0; i < names->found_len; i++) {
    if (strcmp(names->found[i].name, name) == 0) {
      return;
    }
  }
  if (*name == '\0') {
    return;
  }
  size_t name_len = strlen(name);
  size_t max = min(1 + names->len / 4, DISTANCE_MAX);
  size_t near = max + 1;
  if (names->len <= TEXT_BYTES_MAX && name_len <= TEXT_BYTES_MAX) {
    near = min(near, distance(names->text, names->len, name, name_len, max));
  }
  size_t at = names->found_len;
  while (at > 0 && names->found[at - 1].distance > near) {
    at--;
  }
  names->more = names->more || names->found_len == ESP_SUGGEST_NAMES_MAX;
  if (at == ESP_SUGGEST_NAMES_MAX) {
    return;
  }
  names->found_len = min(names->found_len + 1, ESP_SUGGEST_NAMES_MAX);
  memmove(&names->found[at + 1], &names->found[at], (names->found_len - at - 1) * sizeof names->found[0]);
  names->found[at].name = name;
  names->found[at].distance = near;
}

const char *esp_suggest_names_print(const struct esp_suggest_names *names, char *buffer, size_t size) {
  static const char dots[] = ", ...";
  size_t used = 0;
  size_t i = 0;
  buffer[0] = '\0';
  while (i < names->found_len &&
         list_add(buffer, size - sizeof dots, &used, names->found[i].name, strlen(names->found[i].name))) {
    i++;
  }
  if (i < names->found_len || names->more) {
    memcpy(buffer + used, dots, sizeof dots);
  }
  return buffer;
}
