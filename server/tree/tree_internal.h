/* What the files of server/tree share. Nobody else includes it. */
#ifndef ESP_TREE_INTERNAL_H
#define ESP_TREE_INTERNAL_H

#include <espalier/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "tree/tree.h"

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
/* Gives the layout, whose parameters are others than those of the layout that it is a copy of, references of its own to
 * their storages: those with an id below param_id_next are held by that layout, the references to the others pass.
 * false without memory, and nothing has changed. */
bool esp_layout_hold(struct esp_layout *layout, uint64_t param_id_next);
/* Of leaves that are gone, by id: for bsearch and qsort. */
int esp_gone_compare(const void *a, const void *b);
/* The index of the first leaf that is not before path. */
size_t esp_layout_lower_bound(const struct esp_layout *layout, const char *path, size_t len);

/* ---- suggestions (suggest.c) ---- */

/* esp_layout_suggest of a text that has a length. */
const char *esp_suggest(const struct esp_layout *layout, const char *text, size_t len, char *buffer, size_t size);

#define ESP_SUGGEST_NAMES_MAX 12

/* Of names that are told one after the other, those nearest to a text. */
struct esp_suggest_names {
  const char *text; /* borrowed, as the names are */
  size_t len;       /* bytes */
  struct {
    const char *name;
    size_t distance;              /* from the text; what is far is all alike */
  } found[ESP_SUGGEST_NAMES_MAX]; /* nearest first, else in the order they were told */
  size_t found_len;               /* used */
  bool more;                      /* some found no place */
};
void esp_suggest_names_add(struct esp_suggest_names *names, const char *name); /* "" is passed over, as are repeats */
/* `"a", "b"` into buffer, and `, ...` where there are more or they do not fit; returns buffer. */
const char *esp_suggest_names_print(const struct esp_suggest_names *names, char *buffer, size_t size);

/* ---- removed paths (edit_remove.c) ---- */

bool esp_layout_is_removed(const struct esp_layout *layout, const char *path, size_t len);
/* Forgets that paths of leaves that are there now were removed. */
void esp_layout_forget_removed(struct esp_layout *layout);

/* ---- tags of nodes (edit_group.c) ---- */

/* The index of the first tag that is not before the node. */
size_t esp_layout_tags_from(const struct esp_layout *layout, const char *node, size_t len);

/* ---- timers (edit_timer.c) ---- */

/* Finds layout->timers_due. */
void esp_timers_due_find(struct esp_layout *layout);
/* The index of the first timer whose id is not below this one. */
size_t esp_timers_lower_bound(const struct esp_layout *layout, uint64_t id);
/* What the diff says of a parameter's timer; "" for id 0. What it was is kept for the diff. NULL without memory. */
const char *esp_edit_timer_text(struct esp_edit *edit, uint64_t id);
/* Forgets timers that no parameter has any more, and counts those of the others. */
void esp_edit_drop_timers(struct esp_edit *edit);
/* The timers of base that the diff tells of pass to it. */
void esp_edit_pass_timers(struct esp_edit *edit, struct esp_diff *diff);

/* ---- groups (assign.c) ---- */

/* The index of the group of that name, or of "default", which is always there. */
size_t esp_group_find(const struct esp_layout *layout, const char *name);

/* Points every parameter at the group that its nearest enclosing assignment names. By index of a parameter, marks has
 * the index of one of the edit's kept + 1, or 0: such a one keeps its group by an assignment, which is made pending. On
 * return it has ESP_MARK_CHANGED for those whose group changed, else 0. */
void esp_groups_resolve(struct esp_edit *edit, uint32_t *marks);
#define ESP_MARK_CHANGED UINT32_MAX

/* ---- assignments and tags that were collected (pending.c) ---- */

/* An assignment or a tag of this edit that is not in the layout's array yet. */
struct esp_pending {
  const char *text;    /* the group or tag, which lives as long as the tree's names; NULL: none from here on */
  const char *because; /* for the line of the diff */
};

struct esp_pendings {
  struct esp_sort_item *items; /* the nodes of pending, and behind them as much room to sort in */
  size_t items_capacity;       /* at least twice len */
  struct esp_pending *pending; /* oldest first */
  size_t capacity;             /* at least len */
  size_t len;                  /* used */
};

/* Adds one, for which there is room. Strings are in the edit's texts or in the tree's names already. */
void esp_pendings_add(struct esp_pendings *pendings, const char *node, size_t node_len,
                      const struct esp_pending *pending);
void esp_pendings_done(struct esp_pendings *pendings);
/* Makes room for n more of them, so that adding and settling them can't fail; false without memory. The edit must own
 * its layout. */
bool esp_edit_reserve_groups(struct esp_edit *edit, size_t n);
bool esp_edit_reserve_tags(struct esp_edit *edit, size_t n);
/* Merges what is pending into the layout's arrays, with its lines in the diff. */
void esp_edit_merge_groups(struct esp_edit *edit);
void esp_edit_merge_tags(struct esp_edit *edit);

/* ---- edits (edit.c) ---- */

/* What the strings of a diff live in. */
struct esp_diff_memory {
  struct esp_names *names; /* paths and groups; ref'd at finish */
  struct esp_arena texts;  /* descriptions of leaves and bindings */
};

/* A parameter whose primary leaf is another one now, or has another path, and whose group is to stay. */
struct esp_kept {
  uint32_t param;      /* index in layout->params */
  const char *because; /* for the line of the diff */
};

/* The text of a shape, dtype and kind. A tree has few of them, so those met lately are kept. */
struct esp_known {
  struct esp_shape shape;
  enum esp_dtype dtype;
  enum esp_kind kind;
  const char *text; /* NULL: the slot is free */
};
#define ESP_KNOWN_LEN 64

/* The neighbours of a leaf in the ring of those that are bound to its parameter: indices of leaves. */
struct esp_ring_link {
  uint32_t before;
  uint32_t after;
};

struct esp_edit {
  struct esp_layout *base;        /* ref'd, never changed */
  struct esp_layout *layout;      /* the copy; NULL until there is something to change */
  size_t assignments_capacity;    /* of layout->assignments */
  size_t tags_capacity;           /* of layout->tags */
  size_t timers_capacity;         /* of layout->timers */
  struct esp_timer *formers;      /* timers of base that lines tell of, perhaps more than once */
  size_t formers_len;             /* used */
  size_t formers_capacity;        /* at least formers_len */
  uint64_t timer_told;            /* the last one that a line told of; 0: none yet */
  const char *timer_text;         /* its text */
  struct esp_text_block *texts;   /* strings of what is new; they pass to the layout's names at finish */
  struct esp_change *changes;     /* the diff so far */
  size_t changes_len;             /* used */
  size_t changes_capacity;        /* always enough for a line for each pending and kept one beside changes_len */
  struct esp_diff_memory *memory; /* for the diff */
  struct esp_known *known;        /* ESP_KNOWN_LEN of them, or NULL until there is a first */
  struct esp_pendings groups;     /* assignments that esp_edit_settle is to merge */
  struct esp_pendings tags;       /* tags of nodes, likewise */
  struct esp_kept *kept;          /* since groups were resolved */
  size_t kept_len;                /* used */
  size_t kept_capacity;           /* at least kept_len */
  uint32_t *marks;                /* room for a number a parameter; nobody's between calls */
  size_t marks_capacity;          /* at least layout->params_len */
  struct esp_ring_link *ring;     /* by index of a leaf, in no order; valid while ring_len is not 0 */
  size_t ring_len;                /* 0, or layout->leaves_len */
  size_t ring_capacity;           /* of ring */
  bool groups_stale;              /* leaves or assignments changed since groups were resolved */
  bool params_stale;              /* params are not in order, or nobody is bound to some of them */
  bool timers_stale;              /* no parameter may have some of the timers any more */
  bool storages_stale;            /* layout->params has others than layout->storages holds */
  bool changed;                   /* there is a next epoch */
  enum esp_code failed;           /* of the first call that failed: the edit can't be finished */
};

/* The layout as it is now; groups and the order of parameters may be stale. */
const struct esp_layout *esp_edit_now(const struct esp_edit *edit);
/* Makes the copy where there is none yet; false without memory. */
bool esp_edit_own(struct esp_edit *edit);
/* Makes room for n more lines of the diff; false without memory. */
bool esp_edit_reserve_changes(struct esp_edit *edit, size_t n);
/* The next line, for which there is room. */
struct esp_change *esp_edit_add_change(struct esp_edit *edit, const struct esp_change *change);
/* Notes a failure: the edit can only be freed from here on. Returns code. */
enum esp_code esp_edit_failed(struct esp_edit *edit, enum esp_code code);
/* What the diff says of a leaf: `f32 [64, 32]`. NULL without memory. */
const char *esp_edit_leaf_text(struct esp_edit *edit, const struct esp_shape *shape, enum esp_dtype dtype,
                               enum esp_kind kind);
/* What it says of a binding: `parameter 7 (a.w) transposed`. primary: the parameter's primary leaf. NULL without
 * memory.
 */
const char *esp_edit_binding_text(struct esp_edit *edit, uint64_t param_id, const struct esp_leaf *primary,
                                  enum esp_view view);
/* A copy that lives as long as the tree's names. NULL without memory. */
const char *esp_edit_text(struct esp_edit *edit, const char *text, size_t len);
/* Makes an array longer, or leaves it as it is; false without memory. array is the address of the pointer. */
bool esp_edit_lengthen(void *array, size_t len, size_t size);

/* ---- settling (edit_settle.c) ---- */

/* Merges what is pending, puts parameters in order and resolves groups, where that is due. */
void esp_edit_settle(struct esp_edit *edit);
/* The same, if groups are stale or something is pending: what follows may then read a parameter's group. */
void esp_edit_settle_groups(struct esp_edit *edit);
/* Makes room for n more parameters that keep their groups, so that it can't fail; false without memory. */
bool esp_edit_reserve_kept(struct esp_edit *edit, size_t n);
/* The parameter's group, which was resolved before its primary leaf changed, is to stay. There is room. */
void esp_edit_keep_group(struct esp_edit *edit, uint32_t param, const char *because);
/* A leaf less is bound to the parameter; with the last one it goes. */
void esp_edit_unbind(struct esp_edit *edit, uint32_t param);

/* INVALID_ARGUMENT where a selection of this name and text would refer to itself, naming those that it does that
 * through. */
enum esp_code esp_selection_check(const struct esp_layout *layout, const char *name, const char *text,
                                  struct esp_status *st) ESP_WARN_UNUSED;

#endif
