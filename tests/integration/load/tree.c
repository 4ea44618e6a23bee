/* Declaring and filling: see tree.h. Random numbers are splitmix64's, begun anew for each (seed, number, leaf), so that
 * neither the order of the pushes nor the leaves that a push leaves out have a say in any other's. */
#include "tests/integration/load/tree.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

/* ---- the tree ---- */

static bool parse_shape(const char *text, struct esp_leaf_spec *ret, size_t *ret_elements) {
  size_t elements = 1;
  for (;;) {
    char *end;
    unsigned long long dim = strtoull(text, &end, 10);
    if (end == text || dim == 0 || dim > 1u << 30 || ret->rank == ESP_LEAF_RANK_MAX ||
        __builtin_mul_overflow(elements, (size_t)dim, &elements))
      return false;
    ret->shape[ret->rank++] = dim;
    if (*end == '\0')
      break;
    if (*end != 'x')
      return false;
    text = end + 1;
  }
  *ret_elements = elements;
  return true;
}

bool load_tree_add(struct load_tree *tree, char *text) {
  char *dtype = strchr(text, ':');
  char *shape = dtype == NULL ? NULL : strchr(dtype + 1, ':');
  if (shape == NULL || tree->len == LOAD_LEAVES_MAX)
    return false;
  *dtype++ = '\0';
  *shape++ = '\0';
  struct esp_leaf_spec spec = {.path = text, .dtype = strcmp(dtype, "f32") == 0 ? ESP_F32 : ESP_F64};
  if (strcmp(dtype, "f32") != 0 && strcmp(dtype, "f64") != 0)
    return false;
  if (!parse_shape(shape, &spec, &tree->elements[tree->len]))
    return false;
  tree->bytes[tree->len] = tree->elements[tree->len] * (spec.dtype == ESP_F32 ? sizeof(float) : sizeof(double));
  tree->specs[tree->len++] = spec;
  return true;
}

uint64_t load_tree_all(const struct load_tree *tree) {
  return tree->len == LOAD_LEAVES_MAX ? UINT64_MAX : (UINT64_C(1) << tree->len) - 1;
}

enum esp_code load_tree_declare(const struct load_tree *tree, esp_client *client, esp_leaf_id *ret_ids,
                                struct esp_status *st) {
  return esp_declare(client, tree->specs, tree->len, ret_ids, st);
}

/* ---- gradients ---- */

bool load_gradients_init(struct load_gradients *grads, const struct load_tree *tree) {
  *grads = (struct load_gradients){0};
  for (size_t i = 0; i < tree->len; i++) {
    grads->data[i] = esp_malloc(tree->bytes[i]);
    if (grads->data[i] == NULL) {
      load_gradients_done(grads);
      return false;
    }
  }
  return true;
}

void load_gradients_done(struct load_gradients *grads) {
  for (size_t i = 0; i < LOAD_LEAVES_MAX; i++)
    esp_free(grads->data[i]);
  *grads = (struct load_gradients){0};
}

static uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
  return value ^ (value >> 31);
}

static uint64_t begin(uint64_t seed, uint64_t number, uint64_t leaf) {
  return mix(mix(mix(seed + 1) ^ number) + leaf);
}

static uint64_t next(uint64_t *state) {
  *state += UINT64_C(0x9e3779b97f4a7c15);
  return mix(*state);
}

uint64_t load_named(const struct load_tree *tree, const struct load_recipe *recipe, uint64_t seed, uint64_t number) {
  uint64_t state = begin(seed, number, LOAD_LEAVES_MAX);
  return recipe->subset ? next(&state) & load_tree_all(tree) : load_tree_all(tree);
}

static void fill(void *data, const struct load_tree *tree, size_t leaf, bool random, uint64_t state) {
  for (size_t i = 0; i < tree->elements[leaf]; i++) {
    double value = random ? (double)(next(&state) >> 11) * 0x1p-52 - 1 : 1;
    if (tree->specs[leaf].dtype == ESP_F32)
      ((float *)data)[i] = (float)value;
    else
      ((double *)data)[i] = value;
  }
}

size_t load_fill(struct load_gradients *grads, const struct load_tree *tree, const struct load_recipe *recipe,
                 uint64_t seed, uint64_t number, uint64_t set, const esp_leaf_id *ids, struct esp_gradient *ret) {
  size_t len = 0;
  for (size_t i = 0; i < tree->len; i++) {
    if ((set >> i & 1) == 0)
      continue;
    fill(grads->data[i], tree, i, recipe->random, begin(seed, number, i));
    ret[len++] = (struct esp_gradient){.leaf = ids[i], .data = grads->data[i], .bytes = tree->bytes[i]};
  }
  return len;
}
