/* One term of a selector to a bitmap of leaves.
 *
 * A path is a range, found by binary search. A pattern is matched along the leaves in path order: the states before
 * each component of the last leaf's path are kept, so that a leaf begins where its path leaves the one before it. A
 * node that matches is selected with everything below it, a node below which nothing can match any more is passed over:
 * its end is searched for, not walked to. So a node is looked at once, however many leaves it has.
 *
 * Nothing here fails or allocates. */
#include <string.h>

#include "tree/select_internal.h"

static void bits_fill(uint64_t *bits, size_t first, size_t len) {
  size_t end = first + len;
  for (size_t i = first; i < end;) {
    size_t n = 64 - i % 64 < end - i ? 64 - i % 64 : end - i;
    bits[i / 64] |= (n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1) << i % 64;
    i += n;
  }
}

/* ---- patterns ---- */

struct walk {
  const struct esp_layout *layout;
  const struct esp_sel_pattern *pattern;
  uint64_t *bits;
  size_t end;                         /* behind the last leaf */
  size_t base;                        /* where in each path the components that are to match begin */
  size_t known;                       /* components of the last path that were matched */
  size_t ends[ESP_DEPTH_MAX];         /* the bytes of it up to each */
  uint64_t states[ESP_DEPTH_MAX + 1]; /* before each of them, and behind the last */
};

static size_t common_len(const struct esp_leaf *a, const struct esp_leaf *b) {
  size_t len = a->path_len < b->path_len ? a->path_len : b->path_len;
  size_t i = 0;
  while (i + 8 <= len && memcmp(a->path + i, b->path + i, 8) == 0) {
    i += 8;
  }
  while (i < len && a->path[i] == b->path[i]) {
    i++;
  }
  return i;
}

/* Behind the last leaf of the node that is the first `len` bytes of leaf i's path. */
static size_t node_end(const struct walk *walk, size_t i, size_t len) {
  const struct esp_leaf *leaves = walk->layout->leaves;
  size_t low = i; /* is within the node; walk->end is not */
  size_t step = 1;
  while (step < walk->end - low &&
         esp_path_within(leaves[low + step].path, leaves[low + step].path_len, leaves[i].path, len)) {
    low += step;
    step *= 2;
  }
  size_t high = step < walk->end - low ? low + step : walk->end;
  while (high - low > 1) {
    size_t middle = low + (high - low) / 2;
    if (esp_path_within(leaves[middle].path, leaves[middle].path_len, leaves[i].path, len)) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return high;
}

/* Matches leaf i from its component `depth` on; the next leaf to be looked at. */
static size_t walk_leaf(struct walk *walk, size_t i, size_t depth) {
  const struct esp_leaf *leaf = &walk->layout->leaves[i];
  for (size_t at = depth > 0 ? walk->ends[depth - 1] + 1 : walk->base; at < leaf->path_len;) {
    const char *dot = memchr(leaf->path + at, '.', leaf->path_len - at);
    size_t end = dot ? (size_t)(dot - leaf->path) : leaf->path_len;
    bool matched;
    uint64_t state = esp_sel_pattern_step(walk->pattern, walk->states[depth], leaf->path + at, end - at, &matched);
    walk->ends[depth++] = end;
    walk->states[depth] = state;
    if (matched || state == 0) {
      walk->known = depth;
      size_t behind = end < leaf->path_len ? node_end(walk, i, end) : i + 1;
      bits_fill(walk->bits, i, matched ? behind - i : 0);
      return behind;
    }
    at = end + 1;
  }
  walk->known = depth;
  return i + 1;
}

bool esp_sel_pattern_is_path(const struct esp_sel_pattern *pattern) {
  return pattern->prefix_globs == pattern->len;
}

/* The leaves that the pattern matches below node; "" is the root. */
static void pattern_run(const struct esp_layout *layout, const struct esp_sel_pattern *pattern, const char *node,
                        size_t node_len, uint64_t *bits) {
  char joined[ESP_PATH_BYTES_MAX];
  const char *path = pattern->prefix_len > 0 ? pattern->text : node;
  size_t path_len = pattern->prefix_len > 0 ? pattern->prefix_len : node_len;
  if (pattern->prefix_len > 0 && node_len > 0) {
    path = joined;
    path_len = node_len + 1 + pattern->prefix_len;
    if (path_len > sizeof joined) {
      return;
    }
    memcpy(joined, node, node_len);
    joined[node_len] = '.';
    memcpy(joined + node_len + 1, pattern->text, pattern->prefix_len);
  }
  size_t first;
  size_t len;
  esp_layout_range(layout, path, path_len, &first, &len);
  if (esp_sel_pattern_is_path(pattern)) {
    bits_fill(bits, first, len);
    return;
  }
  struct walk walk = {.layout = layout, .pattern = pattern, .bits = bits, .end = first + len};
  walk.base = path_len > 0 ? path_len + 1 : 0;
  walk.states[0] = UINT64_C(1) << pattern->prefix_globs;
  const struct esp_leaf *last = NULL;
  for (size_t i = first; i < walk.end;) {
    const struct esp_leaf *leaf = &layout->leaves[i];
    size_t depth = 0;
    for (size_t common = last ? common_len(last, leaf) : 0; depth < walk.known && walk.ends[depth] < common;) {
      depth++;
    }
    last = leaf;
    i = walk_leaf(&walk, i, depth);
  }
}

/* ---- names ---- */

/* Whether a name matches, remembering the answer for the last one: neighbours share theirs. */
struct name_match {
  const struct esp_sel_glob *glob;
  const char *last; /* NULL: none yet */
  bool matched;     /* last */
};

static bool name_matches(struct name_match *match, const char *name) {
  if (name != match->last) {
    match->last = name;
    match->matched = *name != '\0' && esp_sel_glob_matches(match->glob, name, strlen(name));
  }
  return match->matched;
}

static void tag_run(const struct esp_layout *layout, const struct esp_sel_term *term, uint64_t *bits) {
  struct name_match match = {.glob = &term->glob};
  for (size_t i = 0; i < layout->tags_len; i++) {
    const struct esp_node_tag *tag = &layout->tags[i];
    if (name_matches(&match, tag->tag)) {
      pattern_run(layout, &term->pattern, tag->node, tag->node_len, bits);
    }
  }
  for (size_t i = 0; term->pattern.len == 0 && i < layout->leaves_len; i++) { /* a leaf has no children */
    bits[i / 64] |= (uint64_t)name_matches(&match, layout->leaves[i].tag) << i % 64;
  }
}

static void group_run(const struct esp_layout *layout, const struct esp_sel_term *term, uint64_t *bits) {
  struct name_match match = {.glob = &term->glob};
  struct name_match match_assigned = {.glob = &term->glob};
  for (size_t i = 0; i < layout->leaves_len; i++) {
    const struct esp_place *place = &layout->params[layout->leaves[i].param];
    bool matched =
        name_matches(&match, layout->groups[place->group].name) || name_matches(&match_assigned, place->group_assigned);
    bits[i / 64] |= (uint64_t)matched << i % 64;
  }
}

/* ---- the rest ---- */

static bool compare(uint64_t a, enum esp_sel_comparison comparison, uint64_t b) {
  switch (comparison) {
  case ESP_SEL_EQ:
    return a == b;
  case ESP_SEL_NE:
    return a != b;
  case ESP_SEL_LT:
    return a < b;
  case ESP_SEL_LE:
    return a <= b;
  case ESP_SEL_GT:
    return a > b;
  default:
    return a >= b;
  }
}

static uint64_t elements(const struct esp_shape *shape) {
  uint64_t n = 1;
  for (unsigned i = 0; i < shape->rank; i++) {
    n *= shape->dims[i];
  }
  return n;
}

static bool leaf_matches(const struct esp_sel_term *term, const struct esp_leaf *leaf, const struct esp_place *place) {
  switch (term->kind) {
  case ESP_SEL_DTYPE:
    return term->values >> place->dtype & 1;
  case ESP_SEL_KIND:
    return term->values >> leaf->kind & 1;
  case ESP_SEL_RANK:
    return compare(place->shape.rank, term->comparison, term->number);
  case ESP_SEL_SIZE:
    return compare(elements(&place->shape), term->comparison, term->number);
  case ESP_SEL_FROZEN:
    return place->frozen;
  case ESP_SEL_TIED:
    return place->leaves_len > 1;
  default:
    return leaf->detached;
  }
}

void esp_sel_term_run(const struct esp_layout *layout, const struct esp_sel_term *term, uint64_t *bits) {
  switch (term->kind) {
  case ESP_SEL_PATTERN:
    pattern_run(layout, &term->pattern, "", 0, bits);
    break;
  case ESP_SEL_TAG:
    tag_run(layout, term, bits);
    break;
  case ESP_SEL_GROUP:
    group_run(layout, term, bits);
    break;
  default:
    for (size_t i = 0; i < layout->leaves_len; i++) {
      const struct esp_leaf *leaf = &layout->leaves[i];
      bits[i / 64] |= (uint64_t)leaf_matches(term, leaf, &layout->params[leaf->param]) << i % 64;
    }
  }
}
