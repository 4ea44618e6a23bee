/* The tree: paths, selectors and layouts. Pure data: no I/O, no threads, no tensor values.
 *
 * A layout is the immutable snapshot of everything but values: leaves in path order, the parameters that they are
 * bound to, groups and their assignments, flags. It is built aside by an edit (struct esp_edit) and published by
 * whoever owns the pointer (the engine). Readers keep the version that they hold.
 *
 * Path order compares components, so the leaves below a node are neighbours: a node is a range of leaves. */
#ifndef ESP_TREE_H
#define ESP_TREE_H

#include <espalier/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/dtype.h"

#define ESP_COMPONENT_BYTES_MAX 255
#define ESP_PATH_BYTES_MAX 4096
#define ESP_DEPTH_MAX 64
#define ESP_NAME_BYTES_MAX 255 /* of a group or a tag */
#define ESP_GROUP_NAME_BYTES_MAX ESP_NAME_BYTES_MAX
#define ESP_TAG_BYTES_MAX ESP_NAME_BYTES_MAX
#define ESP_SELECTOR_BYTES_MAX 8192
#define ESP_GROUP_DEFAULT "default"

enum esp_kind { ESP_KIND_TRAINED = 1, ESP_KIND_BUFFER = 2 };     /* the wire's values */
enum esp_view { ESP_VIEW_IDENTITY = 0, ESP_VIEW_TRANSPOSE = 1 }; /* the wire's values */

/* ---- paths ---- */

/* INVALID_ARGUMENT, saying which component and why: empty, too long or deep, bad UTF-8, a control character (U+0000 to
 * U+001F, U+007F to U+009F), a blank, or one of the characters that selectors use: * ? { } [ ] ( ) & | ! : < > = @ , "
 * len without the NUL. */
enum esp_code esp_path_check(const char *path, size_t len, struct esp_status *st) ESP_WARN_UNUSED;
/* The rule for names of groups and for tags: that of a component, but dots are allowed (`torch.nn.LayerNorm`). what is
 * "group" or "tag", for the message. */
enum esp_code esp_name_check(const char *what, const char *name, struct esp_status *st) ESP_WARN_UNUSED;

#define ESP_PATH_TEXT_MAX 208
/* A path, name or selector that may be anything, to be shown to people: control characters and bytes that are not UTF-8
 * as \xNN, cut with "..." where it does not fit. ESP_PATH_TEXT_MAX is a good size for messages. Returns buffer. */
const char *esp_path_print(const char *path, size_t len, char *buffer, size_t size);

/* <0, 0, >0 in path order. */
int esp_path_compare(const char *a, size_t a_len, const char *b, size_t b_len);
/* Whether path is node or below it; the empty node is the root. */
bool esp_path_within(const char *path, size_t len, const char *node, size_t node_len);

/* ---- counted objects that a layout refers to and does not know ---- */

/* The first member of whatever stands behind a parameter (the engine's struct esp_param) or a group (its optimizer). */
struct esp_object {
  _Atomic uint64_t refs;
  void (*destroy)(struct esp_object *object); /* when refs reaches 0; any thread */
};
void esp_object_ref(struct esp_object *object);
void esp_object_unref(struct esp_object *object); /* NULL is fine */

/* ---- layouts ---- */

struct esp_leaf {
  uint64_t id;      /* from 1, never reused */
  const char *path; /* NUL-terminated, owned by the layout's names */
  uint32_t path_len;
  uint32_t param;         /* index in layout->params */
  uint64_t changed_epoch; /* the last epoch that changed this leaf or its parameter's flags */
  const char *tag;        /* "" for none */
  enum esp_kind kind;
  enum esp_view view;
  bool detached;
};

/* A parameter's place in a layout. */
struct esp_place {
  uint64_t id;                /* of the parameter, from 1, never reused */
  struct esp_object *storage; /* the engine's parameter */
  uint32_t primary;           /* index in layout->leaves of the first leaf bound to it */
  uint32_t leaves_len;        /* leaves bound to it */
  uint32_t group;             /* index in layout->groups: the one whose optimizer steps it (default where the assigned
                                 name is not defined). Of buffers too, which are never stepped */
  const char *group_assigned; /* the name that the nearest assignment gives */
  struct esp_shape shape;
  enum esp_dtype dtype;
  enum esp_kind kind;
  bool frozen;
};

struct esp_group {
  const char *name;
  const char *expression;   /* as printed */
  struct esp_object *optim; /* the engine's */
};

struct esp_assignment {
  const char *node; /* "" is the root */
  uint32_t node_len;
  const char *group;
};

struct esp_names; /* strings, counted, shared by the layouts of a tree and only ever added to */

struct esp_layout {
  _Atomic uint64_t refs;
  uint64_t epoch;          /* 1 for the first, which is empty */
  struct esp_leaf *leaves; /* in path order */
  size_t leaves_len;
  struct esp_place *params; /* in the order of their primary leaves' paths */
  size_t params_len;
  uint32_t *by_id; /* index in leaves + 1, or 0; by leaf id */
  size_t by_id_len;
  struct esp_group *groups; /* by name; never empty: "default" is there */
  size_t groups_len;
  struct esp_assignment *assignments; /* in path order; the root's is always there */
  size_t assignments_len;
  struct esp_names *names;
  uint64_t leaf_id_next;
  uint64_t param_id_next;
  uint64_t trained_len; /* leaves of kind trained */
  uint64_t frozen_len;  /* leaves whose parameter is frozen */
  uint64_t elements;    /* of all parameters */
  uint64_t leaf_bytes;  /* of all leaves' tensors: what a push of everything may hold at most */
};

/* An empty tree of epoch 1 with these groups; one must be "default" and names must be unique. Objects are ref'd and may
 * be NULL. INVALID_ARGUMENT for the names. */
enum esp_code esp_layout_new(const struct esp_group *groups, size_t groups_len, struct esp_layout **ret,
                             struct esp_status *st) ESP_WARN_UNUSED;
struct esp_layout *esp_layout_ref(struct esp_layout *layout);
void esp_layout_unref(struct esp_layout *layout); /* NULL is fine; any thread */

const struct esp_leaf *esp_layout_leaf_by_id(const struct esp_layout *layout, uint64_t id); /* NULL: none */
const struct esp_leaf *esp_layout_leaf_by_path(const struct esp_layout *layout, const char *path, size_t len);
/* The range of leaves that are node or below it; the empty node is all. */
void esp_layout_range(const struct esp_layout *layout, const char *node, size_t node_len, size_t *ret_first,
                      size_t *ret_len);
const struct esp_place *esp_layout_place(const struct esp_layout *layout, const struct esp_leaf *leaf);
const struct esp_group *esp_layout_group_of(const struct esp_layout *layout, const struct esp_leaf *leaf);
/* The assignment of exactly this node, by binary search; NULL: none. */
const struct esp_assignment *esp_layout_assignment(const struct esp_layout *layout, const char *node, size_t node_len);
/* Up to three paths (leaves or inner nodes) nearest to text, as `"a.b", "a.c"`, into buffer, as many as fit; returns
 * buffer. Nearest by a small edit distance, of the whole path or of its last components; where nothing is so near, what
 * lies right below the deepest node of text that exists; "" in an empty tree. Of a large tree 20,000 leaves, evenly
 * spaced, and the nodes above them are looked at. */
const char *esp_layout_suggest(const struct esp_layout *layout, const char *text, char *buffer, size_t size);

/* ---- selectors ---- */

/* Leaves by their index in the layout they were selected from, ascending. */
struct esp_selection {
  uint32_t *leaves; /* owned */
  size_t len;
};

/* Selects by a path (the node and everything below it) or a pattern, in which `*` stands for any bytes inside one
 * component
 * (`layer*`) or for a whole one, and the component `**` for any number of components, also none. A pattern is matched
 * against leaves and the nodes above them, exactly as a path is: what matches is selected with everything below it. ""
 * selects all, also in an empty tree. `frozen` and `tied` are words of the selector language (`frozen.**` is the node).
 * INVALID_ARGUMENT with the column for syntax, UNIMPLEMENTED (naming the operator and column) for the rest of the
 * selector language, NOT_FOUND with suggestions where it matches nothing. */
enum esp_code esp_select(const struct esp_layout *layout, const char *text, size_t len, struct esp_selection *ret,
                         struct esp_status *st) ESP_WARN_UNUSED;
void esp_selection_done(struct esp_selection *sel); /* idempotent */

/* ---- edits: a transaction on a copy ---- */

/* The copy is made when something changes; what changes nothing is cheap. Edits of one tree come one after the other
 * (the caller's business); readers of older layouts need no care. A call that fails leaves base as it was, and the edit
 * good for esp_edit_free only: esp_edit_finish fails then. */
struct esp_edit;

/* One line of a diff: one a leaf and operation, those of assignments one a node. Strings live as long as the diff. */
struct esp_change {
  uint64_t leaf_id; /* 0: not a leaf's */
  const char *path;
  const char *field; /* "leaf", "frozen", "value", "group", "tag", ... */
  const char *from;  /* "" for what was not there */
  const char *to;
  const char *because; /* the path of the selected leaf that this one is tied to, or "" */
};

struct esp_diff {
  struct esp_change *changes;
  size_t len;
  void *memory; /* what the strings live in */
};
void esp_diff_done(struct esp_diff *diff); /* idempotent */

/* A new leaf. Strings are copied, and none is NULL. */
struct esp_leaf_new {
  const char *path;
  size_t path_len;
  struct esp_shape shape;
  enum esp_dtype dtype;
  enum esp_kind kind;
  const char *tag;   /* "" for none */
  const char *group; /* an explicit assignment of the leaf, or ""; ignored where the leaf is there already */
  bool frozen;
};

/* A copy of base to be changed. base is ref'd. NULL without memory. */
struct esp_edit *esp_edit_new(struct esp_layout *base);
void esp_edit_free(struct esp_edit *edit); /* NULL is fine; drops what was not finished */

/* Assigns group to node ("" is the root) from here on, also for leaves declared later. Assigning what is there already
 * changes nothing; of several assignments to one node in one edit the last counts. The group's name need not be
 * defined. INVALID_ARGUMENT for a bad path or name. */
enum esp_code esp_edit_assign(struct esp_edit *edit, const char *node, size_t node_len, const char *group,
                              struct esp_status *st) ESP_WARN_UNUSED;

/* Adds leaves, all or none (the edit is then to be freed). Those that are there already with equal shape, dtype and
 * kind are joined: nothing of them changes. INVALID_ARGUMENT naming the leaf for: a bad path, shape or dtype, a
 * duplicate in the batch, a leaf that would lie below another leaf or above one, or a leaf that is there with another
 * shape, dtype or kind (the message has both). ret_ids and ret_added have len entries: the leaf's id, and whether it is
 * new. storage of a new leaf is NULL until esp_edit_bind. */
enum esp_code esp_edit_add(struct esp_edit *edit, const struct esp_leaf_new *leaves, size_t len, uint64_t *ret_ids,
                           bool *ret_added, struct esp_status *st) ESP_WARN_UNUSED;

/* Gives the new leaf's parameter its storage; the reference passes to the edit. Each new leaf needs one before finish.
 */
void esp_edit_bind(struct esp_edit *edit, uint64_t leaf_id, struct esp_object *storage);

/* Freezes or thaws the parameters of the selected leaves (selected from the edit's current view). Those tied to them
 * change with them, and say because. */
enum esp_code esp_edit_freeze(struct esp_edit *edit, const struct esp_selection *sel, bool frozen,
                              struct esp_status *st) ESP_WARN_UNUSED;

/* Notes in the diff that the value of the selected leaves is overwritten; the layout's epoch goes up, its flags stay.
 */
enum esp_code esp_edit_touch_value(struct esp_edit *edit, const struct esp_selection *sel,
                                   struct esp_status *st) ESP_WARN_UNUSED;

/* The layout as the edit has it so far: to select from. Borrowed, and only until the edit's next change. The first look
 * after leaves or assignments changed resolves groups, which takes a walk over all leaves: not for a loop that assigns.
 */
const struct esp_layout *esp_edit_view(const struct esp_edit *edit);

/* Ends the edit and frees it. Where nothing changed *ret_layout is base itself, ref'd, and the diff empty; else a
 * layout of the next epoch. *ret_diff is the caller's to esp_diff_done. It fails only where an earlier call on the edit
 * did, with that one's code; the edit is freed then too. */
enum esp_code esp_edit_finish(struct esp_edit *edit, struct esp_layout **ret_layout, struct esp_diff *ret_diff,
                              struct esp_status *st) ESP_WARN_UNUSED;

#endif
