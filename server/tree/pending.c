/* Assignments and tags of nodes that an edit collected, and how they get into the layout's sorted arrays.
 *
 * An edit collects them unsorted, with all the memory that merging them takes, and merges them at once when somebody
 * looks (esp_edit_view) or at the end: assigning or tagging a million nodes is one sort, and looking can't fail. One
 * that says what is there already is nothing; of several to one node the last counts.
 *
 * Only making room fails, without memory. */
#include <espalier/status.h>

#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tree/tree_internal.h"

/* How an assignment and a tag lie in memory, both. */
struct noted {
  const char *node;
  uint32_t node_len;
  const char *text; /* NULL while merging: it goes */
};
_Static_assert(sizeof(struct noted) == sizeof(struct esp_assignment) &&
                   offsetof(struct noted, node_len) == offsetof(struct esp_assignment, node_len) &&
                   offsetof(struct noted, text) == offsetof(struct esp_assignment, group),
               "an assignment is a noted one");
_Static_assert(sizeof(struct noted) == sizeof(struct esp_node_tag) &&
                   offsetof(struct noted, node_len) == offsetof(struct esp_node_tag, node_len) &&
                   offsetof(struct noted, text) == offsetof(struct esp_node_tag, tag),
               "a tag is a noted one");

static struct noted noted_at(const void *array, size_t index) {
  struct noted noted;
  memcpy(&noted, (const char *)array + index * sizeof noted, sizeof noted);
  return noted;
}

static void noted_put(void *array, size_t index, struct noted noted) {
  memcpy((char *)array + index * sizeof noted, &noted, sizeof noted);
}

static int noted_compare(const struct noted *noted, const struct esp_sort_item *item) {
  return esp_path_compare(noted->node, noted->node_len, item->path, item->path_len);
}

void esp_pendings_add(struct esp_pendings *pendings, const char *node, size_t node_len,
                      const struct esp_pending *pending) {
  ESP_CHECK(pendings->len < pendings->capacity);
  size_t index = pendings->len++;
  pendings->pending[index] = *pending;
  pendings->items[index] =
      (struct esp_sort_item){.path = node, .path_len = (uint32_t)node_len, .index = (uint32_t)index};
}

void esp_pendings_done(struct esp_pendings *pendings) {
  esp_free(pendings->items);
  esp_free(pendings->pending);
  *pendings = (struct esp_pendings){0};
}

/* array: of `len` elements, the pendings' own. n more, beside those that are to come from kept groups. */
static bool reserve(struct esp_edit *edit, struct esp_pendings *pendings, size_t n, size_t kept, void **array,
                    size_t *capacity, size_t len) {
  size_t more = pendings->len + kept + n;
  return more <= UINT32_MAX &&
         esp_grow((void **)&pendings->pending, &pendings->capacity, more, sizeof *pendings->pending) &&
         esp_grow((void **)&pendings->items, &pendings->items_capacity, 2 * more, sizeof *pendings->items) &&
         esp_grow(array, capacity, len + more, sizeof(struct noted)) && esp_edit_reserve_changes(edit, n);
}

bool esp_edit_reserve_groups(struct esp_edit *edit, size_t n) {
  return reserve(edit, &edit->groups, n, edit->kept_len, (void **)&edit->layout->assignments,
                 &edit->assignments_capacity, edit->layout->assignments_len);
}

bool esp_edit_reserve_tags(struct esp_edit *edit, size_t n) {
  return reserve(edit, &edit->tags, n, 0, (void **)&edit->layout->tags, &edit->tags_capacity, edit->layout->tags_len);
}

/* An array and what is to be merged into it. */
struct merge {
  struct esp_edit *edit;         /* borrowed */
  struct esp_pendings *pendings; /* borrowed */
  void *array;                   /* of noted ones */
  size_t len;                    /* of array */
  const char *field;             /* of the diff's lines */
  bool is_group;                 /* a node may be a leaf */
};

/* The line of the diff for a node, which had `from` ("": none). */
static void note(const struct merge *merge, const struct esp_sort_item *item, const char *from) {
  struct esp_edit *edit = merge->edit;
  const struct esp_pending *pending = &merge->pendings->pending[item->index];
  const struct esp_leaf *leaf =
      merge->is_group ? esp_layout_leaf_by_path(edit->layout, item->path, item->path_len) : NULL;
  edit->changed = true;
  esp_edit_add_change(edit, &(struct esp_change){.leaf_id = leaf ? leaf->id : 0,
                                                 .path = item->path,
                                                 .field = merge->field,
                                                 .from = from,
                                                 .to = pending->text ? pending->text : "",
                                                 .because = pending->because});
}

/* The text of a node that is there is replaced, or set to NULL where it is to go. */
static void replace_at(const struct merge *merge, size_t at, const struct esp_sort_item *item) {
  struct noted old = noted_at(merge->array, at);
  const char *text = merge->pendings->pending[item->index].text;
  if (!text || strcmp(old.text, text) != 0) {
    note(merge, item, old.text);
    old.text = text;
    noted_put(merge->array, at, old);
  }
}

/* Replaces the texts of nodes that have one. What is left in the items, sorted, are the new nodes: their number. */
static size_t replace(const struct merge *merge) {
  struct esp_sort_item *items = merge->pendings->items;
  size_t at = 0;
  size_t left = 0;
  for (size_t i = 0; i < merge->pendings->len; i++) {
    struct esp_sort_item item = items[i];
    if (i + 1 < merge->pendings->len &&
        esp_path_compare(item.path, item.path_len, items[i + 1].path, items[i + 1].path_len) == 0) {
      continue; /* a later one counts */
    }
    int order = 1;
    for (; at < merge->len; at++) {
      struct noted old = noted_at(merge->array, at);
      order = noted_compare(&old, &item);
      if (order >= 0) {
        break;
      }
    }
    if (at < merge->len && order == 0) {
      replace_at(merge, at, &item);
    } else if (merge->pendings->pending[item.index].text) {
      note(merge, &item, "");
      items[left++] = item;
    }
  }
  return left;
}

static void drop_gone(struct merge *merge) {
  size_t left = 0;
  for (size_t i = 0; i < merge->len; i++) {
    struct noted noted = noted_at(merge->array, i);
    if (noted.text) {
      noted_put(merge->array, left++, noted);
    }
  }
  merge->len = left;
}

/* From the back, in place. */
static void insert(struct merge *merge, size_t items_left) {
  size_t old_left = merge->len;
  merge->len += items_left;
  while (items_left > 0) {
    const struct esp_sort_item *item = &merge->pendings->items[items_left - 1];
    struct noted old = old_left > 0 ? noted_at(merge->array, old_left - 1) : (struct noted){0};
    if (old_left > 0 && noted_compare(&old, item) > 0) {
      noted_put(merge->array, old_left + items_left - 1, old);
      old_left--;
    } else {
      noted_put(merge->array, old_left + items_left - 1,
                (struct noted){.node = item->path,
                               .node_len = item->path_len,
                               .text = merge->pendings->pending[item->index].text});
      items_left--;
    }
  }
}

static void merge_all(struct merge *merge) {
  struct esp_pendings *pendings = merge->pendings;
  if (pendings->len == 0) {
    return;
  }
  esp_sort_paths(pendings->items, pendings->items + pendings->len, pendings->len);
  size_t fresh = replace(merge);
  drop_gone(merge);
  insert(merge, fresh);
  pendings->len = 0;
}

void esp_edit_merge_groups(struct esp_edit *edit) {
  struct merge merge = {.edit = edit, .pendings = &edit->groups, .field = "group", .is_group = true};
  merge.array = edit->layout->assignments;
  merge.len = edit->layout->assignments_len;
  merge_all(&merge);
  edit->layout->assignments_len = merge.len;
}

void esp_edit_merge_tags(struct esp_edit *edit) {
  struct merge merge = {.edit = edit, .pendings = &edit->tags, .field = "tag"};
  merge.array = edit->layout->tags;
  merge.len = edit->layout->tags_len;
  merge_all(&merge);
  edit->layout->tags_len = merge.len;
}
