/* What the files of server/tree share. Nobody else includes it. */
#ifndef ESP_TREE_INTERNAL_H
#define ESP_TREE_INTERNAL_H

#include <espalier/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "tree/tree.h"

/* ---- characters (path.c) ---- */

/* Bytes of the character at the start of text, 1 to 4; 0 where it is not valid UTF-8 (left is at least 1). */
size_t esp_utf8_next(const char *text, size_t left, uint32_t *ret_character);
bool esp_character_is_control(uint32_t character);

/* ---- sorting (sort.c) ---- */

/* One path of a batch that is to be sorted. */
struct esp_sort_item {
  uint64_t key;      /* sort.c's: eight bytes of the path, as a number in path order */
  const char *path;  /* valid, or "" */
  uint32_t path_len; /* bytes */
  uint32_t index;    /* the caller's: its place in the batch */
};

/* Into path order; equal paths stay in their order. scratch has len items too. Cannot fail, worst case n log n. */
void esp_sort_paths(struct esp_sort_item *items, struct esp_sort_item *scratch, size_t len);

/* ---- names (layout.c) ---- */

/* Strings that were made together. A block never moves, so older layouts may be read while a newer one adds its own. */
struct esp_text_block {
  struct esp_text_block *next; /* older */
  char bytes[];                /* strings, each with its NUL */
};

struct esp_names {
  _Atomic uint64_t refs;         /* layouts and diffs */
  struct esp_text_block *blocks; /* newest first; changed by the one edit that finishes, read by the last unref */
};

/* A new block of so many bytes at the head of the list: its bytes, or NULL without memory. */
char *esp_text_block_new(struct esp_text_block **list, size_t bytes);
void esp_text_blocks_free(struct esp_text_block *list);
struct esp_names *esp_names_ref(struct esp_names *names);
void esp_names_unref(struct esp_names *names); /* NULL is fine */

/* ---- layouts (layout.c) ---- */

/* A copy of base, with references of its own, to be changed before it is shown to anybody. NULL without memory. */
struct esp_layout *esp_layout_copy(const struct esp_layout *base);
/* The index of the first leaf that is not before path. */
size_t esp_layout_lower_bound(const struct esp_layout *layout, const char *path, size_t len);

/* ---- suggestions (suggest.c) ---- */

/* esp_layout_suggest of a text that has a length. */
const char *esp_suggest(const struct esp_layout *layout, const char *text, size_t len, char *buffer, size_t size);

/* ---- groups (assign.c) ---- */

/* An assignment of this edit that is not in the layout's array yet. */
struct esp_pending {
  const char *group; /* in the edit's texts */
  bool born;         /* it came with a new leaf, whose own line in the diff tells of it */
};

/* The index of the group of that name, or of "default", which is always there. */
size_t esp_group_find(const struct esp_layout *layout, const char *name);

/* Points every parameter at the group that its nearest enclosing assignment names. */
void esp_groups_resolve(struct esp_layout *layout);

/* ---- edits (edit.c) ---- */

/* What the strings of a diff live in. */
struct esp_diff_memory {
  struct esp_names *names; /* paths and groups; ref'd at finish */
  struct esp_arena texts;  /* descriptions of leaves */
};

struct esp_edit {
  struct esp_layout *base;             /* ref'd, never changed */
  struct esp_layout *layout;           /* the copy; NULL until there is something to change */
  size_t assignments_capacity;         /* of layout->assignments */
  struct esp_text_block *texts;        /* strings of what is new; they pass to the layout's names at finish */
  struct esp_change *changes;          /* the diff so far */
  size_t changes_len;                  /* used */
  size_t changes_capacity;             /* always enough for a line for each pending assignment beside changes_len */
  struct esp_diff_memory *memory;      /* for the diff */
  struct esp_sort_item *pending_items; /* the nodes of pending, and behind them as much room to sort in */
  size_t pending_items_capacity;       /* at least twice pending_len */
  struct esp_pending *pending;         /* assignments that esp_edit_settle is to merge, oldest first */
  size_t pending_len;                  /* used */
  size_t pending_capacity;             /* at least pending_len */
  bool groups_stale;                   /* leaves or assignments changed since groups were resolved */
  bool changed;                        /* there is a next epoch */
  enum esp_code failed;                /* of the first call that failed: the edit can't be finished */
};

/* The layout as it is now, but for groups, which may be stale. */
const struct esp_layout *esp_edit_now(const struct esp_edit *edit);
/* Makes the copy where there is none yet; false without memory. */
bool esp_edit_own(struct esp_edit *edit);
/* Makes room for n more lines of the diff; false without memory. */
bool esp_edit_reserve_changes(struct esp_edit *edit, size_t n);
/* Makes room for n more pending assignments, so that adding and settling them can't fail; false without memory. The
 * edit must own its layout. */
bool esp_edit_reserve_pending(struct esp_edit *edit, size_t n);
/* Adds one, for which there is room. Strings are in the edit's texts. */
void esp_edit_add_pending(struct esp_edit *edit, const char *node, size_t node_len, const char *group, bool born);
/* Merges pending assignments and resolves groups, where that is due. */
void esp_edit_settle(struct esp_edit *edit);
/* Notes a failure: the edit can only be freed from here on. Returns code. */
enum esp_code esp_edit_failed(struct esp_edit *edit, enum esp_code code);

#endif
