/* What is in each group, added up from the leaves of a description. */
#include <string.h>

#include "base/alloc.h"
#include "client/cli/cli.h"

static uint64_t elements_of(const struct esp_leaf_info *leaf) {
  uint64_t elements = 1;
  for (unsigned i = 0; i < leaf->rank; i++)
    elements *= leaf->shape[i];
  return elements;
}

/* The sum of this name. Neighbours are mostly in one group, so the last one that was found is looked at first. */
static struct esp_cli_group *find(struct esp_cli_group *groups, size_t len, const char *name, size_t *last) {
  for (size_t i = 0; i < len; i++) {
    size_t at = (*last + i) % len;
    if (strcmp(groups[at].info->name, name) == 0) {
      *last = at;
      return &groups[at];
    }
  }
  return NULL;
}

static void add(struct esp_cli_group *group, const struct esp_leaf_info *leaf) {
  group->leaves++;
  group->leaves_frozen += leaf->frozen;
  if (leaf->tied_to[0] != '\0')
    return;
  uint64_t elements = elements_of(leaf);
  group->elements += elements;
  group->elements_frozen += leaf->frozen ? elements : 0;
  group->bytes += leaf->bytes;
  group->state_bytes += leaf->state_bytes;
}

struct esp_cli_group *esp_cli_groups_sum(const struct esp_description *description) {
  size_t len = description->groups_len;
  struct esp_cli_group *groups = esp_calloc(len + 1, sizeof *groups);
  if (groups == NULL)
    return NULL;
  for (size_t i = 0; i < len; i++)
    groups[i].info = &description->groups[i];
  size_t last = 0;
  for (size_t i = 0; i < description->leaves_len; i++) {
    const struct esp_leaf_info *leaf = &description->leaves[i];
    struct esp_cli_group *group = find(groups, len, leaf->group, &last);
    if (group != NULL)
      add(group, leaf);
  }
  return groups;
}
