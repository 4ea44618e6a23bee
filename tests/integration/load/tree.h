/* The tree that the load programs declare, and gradients for it that are a pure function of (seed, number, leaf): what
 * a push had can be computed again from its line in the log. */
#ifndef LOAD_TREE_H
#define LOAD_TREE_H

#include <espalier/espalier.h>

/* Sets of leaves are bits of a uint64_t. */
#define LOAD_LEAVES_MAX 64

struct load_tree {
  struct esp_leaf_spec specs[LOAD_LEAVES_MAX]; /* all trained, zeros at first; the paths are the arguments' */
  size_t elements[LOAD_LEAVES_MAX];            /* of each leaf */
  size_t bytes[LOAD_LEAVES_MAX];               /* of each leaf */
  size_t len;                                  /* of the three */
};

/* What the gradients are. */
struct load_recipe {
  bool random; /* from -1 to 1; otherwise ones */
  bool subset; /* each push names each leaf with probability 1/2; otherwise all */
};

/* One worker's memory for gradients. */
struct load_gradients {
  void *data[LOAD_LEAVES_MAX]; /* owned, one a leaf */
};

/* Adds "PATH:DTYPE:SHAPE", as encoder.weight:f64:100x10. Cuts the text, and keeps it. False where it is not that. */
bool load_tree_add(struct load_tree *tree, char *text);
uint64_t load_tree_all(const struct load_tree *tree);
enum esp_code load_tree_declare(const struct load_tree *tree, esp_client *client, esp_leaf_id *ret_ids,
                                struct esp_status *st) ESP_WARN_UNUSED;

/* False without memory. */
bool load_gradients_init(struct load_gradients *grads, const struct load_tree *tree);
void load_gradients_done(struct load_gradients *grads);

/* The leaves that a push names. */
uint64_t load_named(const struct load_tree *tree, const struct load_recipe *recipe, uint64_t seed, uint64_t number);
/* Computes the gradients of the leaves in `set` and lists them in ret; returns how many they are. */
size_t load_fill(struct load_gradients *grads, const struct load_tree *tree, const struct load_recipe *recipe,
                 uint64_t seed, uint64_t number, uint64_t set, const esp_leaf_id *ids, struct esp_gradient *ret);

#endif
