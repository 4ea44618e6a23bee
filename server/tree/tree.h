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
#define ESP_GROUPS_MAX 65536     /* groups that edits may define */
#define ESP_SELECTIONS_MAX 65536 /* named selections of a tree */
#define ESP_TIMERS_MAX 65536     /* timers that wait */

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
  uint64_t changed_epoch; /* the last epoch that changed its path, binding, view or flag, or its parameter's flag or
                             group */
  uint64_t path_epoch;    /* the epoch since which it has its path */
  const char *tag;        /* "" for none */
  enum esp_kind kind;
  enum esp_view view;
  bool detached;
};

/* A parameter's place in a layout. */
struct esp_place {
  uint64_t id;                /* of the parameter, from 1, never reused */
  struct esp_object *storage; /* the engine's parameter */
  uint32_t primary;           /* index in layout->leaves of the leaf that was bound to it first; when that one leaves,
                                 the first of the others in path order follows. It may see it transposed */
  uint32_t leaves_len;        /* leaves bound to it */
  uint32_t group;             /* index in layout->groups: the one whose optimizer steps it (default where the assigned
                                 name is not defined). Of buffers too, which are never stepped */
  const char *group_assigned; /* the name that the nearest assignment gives */
  struct esp_shape shape;
  enum esp_dtype dtype;
  enum esp_kind kind;
  bool frozen;
  uint64_t timer; /* the id of the one that will freeze or thaw it; 0: none */
};

/* What a timer waits for: a commit that takes its number or a higher one, a count of commits of pushes, a time. */
enum esp_timer_due { ESP_TIMER_COMMIT = 1, ESP_TIMER_PUSHES = 2, ESP_TIMER_TIME = 3 }; /* the wire's values */

/* Freezes or thaws parameters later: those whose places have its id, one at least. */
struct esp_timer {
  uint64_t id; /* from 1, never reused */
  enum esp_timer_due due;
  uint64_t at;           /* a commit number; commits of pushes since the tree's beginning; ms since 1970 */
  uint64_t after;        /* of the latter two: how many, or how many ms, there were to go when it was set, for people */
  bool frozen;           /* what its parameters become */
  bool reset_state;      /* of a thaw */
  uint64_t until_commit; /* of a freeze: the commit at which it ends, 0: none */
  uint64_t for_ms;       /* of a freeze: how long it lasts, 0: no such end */
  uint64_t epoch;        /* of the transaction that set it */
  uint32_t params_len;   /* whose timer it is */
  const char *selection; /* that named its leaves, for people */
};

#define ESP_TIMER_TEXT_MAX 160
/* `thaw and reset state at commit 500 (timer 3)`, `thaw after 500 pushes (timer 4)`, `thaw after 600000 ms (timer 5)`,
 * `freeze at commit 100 until commit 200 (timer 6)`, `freeze at commit 100 for 5000 ms (timer 7)`. Returns buffer. */
const char *esp_timer_print(const struct esp_timer *timer, char buffer[ESP_TIMER_TEXT_MAX]);

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

/* The tag of an inner node; a leaf's is its own. */
struct esp_node_tag {
  const char *node;
  uint32_t node_len;
  const char *tag;
};

/* What @name stands for in a selector. */
struct esp_named_selection {
  const char *name;
  const char *text;
};

/* A leaf that was removed: who watches is told by its id, and a push that names it is none the worse for it. */
struct esp_leaf_gone {
  uint64_t id;
  uint64_t epoch; /* that has it no more */
  uint64_t bytes; /* of its tensor */
  enum esp_dtype dtype;
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
  struct esp_node_tag *tags; /* in path order */
  size_t tags_len;
  struct esp_named_selection *selections; /* by name */
  size_t selections_len;
  const char **removed; /* paths of leaves that were removed and not added again, in path order */
  size_t removed_len;
  struct esp_leaf_gone *gone; /* every leaf that was ever removed, by id */
  size_t gone_len;
  struct esp_timer *timers; /* that wait, by id */
  size_t timers_len;
  uint64_t timers_due[ESP_TIMER_TIME + 1]; /* by what timers wait for: the smallest `at`; UINT64_MAX: there is none */
  struct esp_names *names;
  struct esp_storages *storages; /* holds those of params; shared by layouts whose parameters are the same */
  uint64_t leaf_id_next;
  uint64_t param_id_next;
  uint64_t timer_id_next;
  uint64_t trained_len; /* leaves of kind trained */
  uint64_t frozen_len;  /* leaves whose parameter is frozen */
  uint64_t detached_len;
  uint64_t elements;   /* of all parameters */
  uint64_t leaf_bytes; /* of all leaves' tensors: what a push of everything may hold at most, beside gone_bytes */
  uint64_t gone_bytes; /* of all that were removed */
};

/* An empty tree of epoch 1 with these groups; one must be "default" and names must be unique. Objects are ref'd and may
 * be NULL. INVALID_ARGUMENT for the names. */
enum esp_code esp_layout_new(const struct esp_group *groups, size_t groups_len, struct esp_layout **ret,
                             struct esp_status *st) ESP_WARN_UNUSED;
struct esp_layout *esp_layout_ref(struct esp_layout *layout);
void esp_layout_unref(struct esp_layout *layout); /* NULL is fine; any thread */

const struct esp_leaf *esp_layout_leaf_by_id(const struct esp_layout *layout, uint64_t id); /* NULL: none */
const struct esp_leaf *esp_layout_leaf_by_path(const struct esp_layout *layout, const char *path, size_t len);
/* A leaf that was removed; NULL: none of this id. */
const struct esp_leaf_gone *esp_layout_gone_by_id(const struct esp_layout *layout, uint64_t id);
/* The range of leaves that are node or below it; the empty node is all. */
void esp_layout_range(const struct esp_layout *layout, const char *node, size_t node_len, size_t *ret_first,
                      size_t *ret_len);
const struct esp_place *esp_layout_place(const struct esp_layout *layout, const struct esp_leaf *leaf);
/* The leaf's own shape: the parameter's, as the leaf's view has it. */
struct esp_shape esp_layout_shape(const struct esp_layout *layout, const struct esp_leaf *leaf);
/* NULL: it does not wait (any more). */
const struct esp_timer *esp_layout_timer(const struct esp_layout *layout, uint64_t id);
/* Of a layout that nobody else has seen: timers of its own epoch that count pushes wait for so many more. */
void esp_layout_postpone(struct esp_layout *layout, uint64_t pushes);
/* The group of exactly this name; NULL: not defined. */
const struct esp_group *esp_layout_group(const struct esp_layout *layout, const char *name);
const struct esp_group *esp_layout_group_of(const struct esp_layout *layout, const struct esp_leaf *leaf);
/* The assignment of exactly this node, by binary search; NULL: none. */
const struct esp_assignment *esp_layout_assignment(const struct esp_layout *layout, const char *node, size_t node_len);
/* The tag of exactly this inner node; NULL: none. */
const struct esp_node_tag *esp_layout_tag(const struct esp_layout *layout, const char *node, size_t node_len);
/* The assignment that counts for a path: the nearest one of it or of what is above it. The root's is always there. */
const struct esp_assignment *esp_layout_nearest(const struct esp_layout *layout, const char *path, size_t path_len);
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

/* Selects leaves by an expression of the selector language (docs/selectors.md):
 *
 *   encoder                     a path: the node and everything below it
 *   encoder.layers.*.weight     * is any bytes in one component or a whole one, ** any number of components; {a,b} and
 *                               [0-5] (either way round; [00-11] has two digits) are alternatives in one component
 *   name:bias                   leaves with a component of this name (or pattern) in their path
 *   tag:LayerNorm               leaves with this tag (or pattern), or under a node that has it
 *   tag:Chain > enc             what lies under the child `enc` (a path or pattern) of such a node
 *   group:head                  leaves that this group (or pattern) steps, or that it is assigned to but not defined
 *   dtype:f32  kind:buffer      (or patterns)
 *   rank:1  size>=1000000       of the leaf, size in elements; both take : = != < <= > >=
 *   frozen  tied  detached      @backbone (a named selection)
 *   & | ! and parentheses       ! binds tightest, then &, then |
 *
 * A pattern is matched against leaves and the nodes above them, as a path is: what matches is selected with everything
 * below it. "" selects all, also in an empty tree. A word is a path where a node of that name is meant: `frozen.**`.
 * INVALID_ARGUMENT with the column for syntax, an unknown word and a named selection that is not there (those there are
 * listed) or that refers to itself; NOT_FOUND with suggestions where it matches nothing: of the path, tag, group or
 * name that by itself matches nothing, where there is one, else it says which & or ! left nothing. Depth of parentheses
 * and of named selections is bounded. */
enum esp_code esp_select(const struct esp_layout *layout, const char *text, size_t len, struct esp_selection *ret,
                         struct esp_status *st) ESP_WARN_UNUSED;
void esp_selection_done(struct esp_selection *sel); /* idempotent */
/* The leaves whose parameters have this timer. RESOURCE_EXHAUSTED without memory. */
enum esp_code esp_layout_timed(const struct esp_layout *layout, uint64_t timer, struct esp_selection *ret,
                               struct esp_status *st) ESP_WARN_UNUSED;
/* The nodes that a path, a pattern, `name:` or several of them with | between them name, one selection each, in the
 * order in which they are written: {a,b} and [11-0] from the left on, the leftmost component the slowest, what
 * wildcards match in path order; a leaf that an earlier one has is left out of later ones, and one of no leaves does
 * not come. *ret (each to esp_selection_done) is the caller's to esp_free. INVALID_ARGUMENT for any other expression;
 * NOT_FOUND. */
enum esp_code esp_select_in_order(const struct esp_layout *layout, const char *text, size_t len,
                                  struct esp_selection **ret, size_t *ret_len, struct esp_status *st) ESP_WARN_UNUSED;
/* Whether text is a selector as far as that can be told without a tree: INVALID_ARGUMENT with the column. A named
 * selection need not be there. "" is one. */
enum esp_code esp_selector_check(const char *text, size_t len, struct esp_status *st) ESP_WARN_UNUSED;

/* Two leaves, by their index in a layout. */
struct esp_pair {
  uint32_t from;
  uint32_t to;
};

/* Pairs leaves with leaves: a leaf with a leaf, everything below a node with what has the same path below another node,
 * or what a pattern of `*` and `**` (here: one component or more) matches with what the other pattern becomes when its
 * nth wildcard stands for what the first one's nth did (`encoder.* decoder.*`). *ret is the caller's to esp_free, in
 * the order of `from`. INVALID_ARGUMENT: syntax; other wildcards; a leaf with itself, a node with one below it, a leaf
 * on both sides. NOT_FOUND, naming the leaf: nothing matches, or a leaf's other half is not there. */
enum esp_code esp_pair_leaves(const struct esp_layout *layout, const char *from, const char *to, struct esp_pair **ret,
                              size_t *ret_len, struct esp_status *st) ESP_WARN_UNUSED;

/* ---- edits: a transaction on a copy ---- */

/* The copy is made when something changes; what changes nothing is cheap. Edits of one tree come one after the other
 * (the caller's business); readers of older layouts need no care. A call that fails leaves base as it was, and the edit
 * good for esp_edit_free only: esp_edit_finish fails then. */
struct esp_edit;

/* One line of a diff: one a leaf and operation, those of assignments one a node. Strings live as long as the diff.
 *
 *   path   field             from -> to
 *   leaf   leaf              "" -> `f32 [64, 32]`, of a buffer with ` buffer` behind it: added. The other way round:
 *                            removed; of what it was there are lines to "", too: "frozen" and "detached" where it was
 *                            `true`, "timer" and "tag" where it had one, and "parameter" where that one stays
 *   leaf   path              its former path -> its new one, which is the line's
 *   leaf   parameter         `parameter 7 (a.w)`: its id and its primary leaf, then ` transposed` for a leaf that
 *                            sees it so: tied, untied
 *   leaf   frozen, detached  `false`, `true`
 *   leaf   value, state      "" -> how it is overwritten
 *   leaf   timer             as esp_timer_print has it, "" for none -> another one. Times are durations, as they were
 *                            set, so that a dry run says what the real one will
 *   leaf   stepped_by        one group -> another, whose optimizer steps it from here on, of which no assignment
 *                            tells: the group assigned was defined or deleted, or the leaf was tied, or one that it is
 *                            tied to was assigned
 *   node   group             what is assigned to exactly this node ("": nothing) -> another group. With because
 *                            where an edit writes it so that a parameter keeps its group: the leaf that was its
 *                            primary one, or the former path of what was renamed
 *   node   tag               the inner node's tag ("": none) -> another one
 *   group  optimizer         its expression ("": not defined) -> another one
 *   @name  selection         what the name stands for ("": nothing) -> another expression */
struct esp_change {
  uint64_t leaf_id; /* 0: not a leaf's */
  const char *path; /* of the leaf or node after the operation ("" is the root); a group's name; a selection's with @ */
  const char *field;
  const char *from; /* "" for what was not there */
  const char *to;
  const char *because; /* the path of the leaf, selected or tied to, that makes this one change, or "" */
};

struct esp_diff {
  struct esp_change *changes;
  size_t len;
  struct esp_timer *timers; /* that there were before, of those in lines of field "timer", by id */
  size_t timers_len;
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
  bool detached; /* ignored of a buffer */
  bool again;    /* although a leaf of this path was removed */
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
 * new. storage of a new leaf is NULL until esp_edit_bind. FAILED_PRECONDITION naming a leaf that was removed, unless it
 * comes `again`. */
enum esp_code esp_edit_add(struct esp_edit *edit, const struct esp_leaf_new *leaves, size_t len, uint64_t *ret_ids,
                           bool *ret_added, struct esp_status *st) ESP_WARN_UNUSED;

/* What esp_edit_add of each of them, one after the other, would do, in one walk, where all are new and nothing is
 * against any: lines of the diff are in their order. ret_ids has len entries. False, and the edit is as it was, where
 * something is, or there is no memory: adding each by itself tells which, and what. */
bool esp_edit_add_new(struct esp_edit *edit, const struct esp_leaf_new *leaves, size_t len,
                      uint64_t *ret_ids) ESP_WARN_UNUSED;

/* Gives the parameter of a new or untied leaf its storage; the reference passes to the edit. Each needs one before
 * finish (of leaves that were tied meanwhile, only those whose place has none). */
void esp_edit_bind(struct esp_edit *edit, uint64_t leaf_id, struct esp_object *storage);

/* Freezes or thaws the parameters of the selected leaves (selected from the edit's current view). Those tied to them
 * change with them, and say because. */
enum esp_code esp_edit_freeze(struct esp_edit *edit, const struct esp_selection *sel, bool frozen,
                              struct esp_status *st) ESP_WARN_UNUSED;

/* Gives the selected leaves' parameters (buffers' too) a timer, in place of the one that each may have. timer->id 0: a
 * new one, whose id and epoch are set by the edit; else one that there was before: those whose timer it is stay as they
 * are, and where nobody has it any more it comes back as it is given. Strings are copied. NULL takes theirs away;
 * esp_edit_freeze does that too, of every parameter that it selects, also where the flag is that already. A leaf that
 * is tied gets the timer of the parameter that it is tied to, one that is untied keeps for its own parameter the one of
 * the same id; a timer that no parameter has any more is gone. RESOURCE_EXHAUSTED past ESP_TIMERS_MAX. */
enum esp_code esp_edit_timer(struct esp_edit *edit, const struct esp_selection *sel, const struct esp_timer *timer,
                             struct esp_status *st) ESP_WARN_UNUSED;
/* esp_edit_freeze, and in one step a timer for each parameter that is selected; NULL: none. */
enum esp_code esp_edit_freeze_timed(struct esp_edit *edit, const struct esp_selection *sel, bool frozen,
                                    const struct esp_timer *timer, struct esp_status *st) ESP_WARN_UNUSED;
/* esp_edit_freeze that leaves timers as they are. */
enum esp_code esp_edit_freeze_only(struct esp_edit *edit, const struct esp_selection *sel, bool frozen,
                                   struct esp_status *st) ESP_WARN_UNUSED;
/* Takes a timer away from all that have it. NOT_FOUND (those that wait are listed). */
enum esp_code esp_edit_cancel_timer(struct esp_edit *edit, uint64_t timer, struct esp_status *st) ESP_WARN_UNUSED;

/* Notes in the diff that something of the selected leaves' parameters is overwritten that no layout has: field
 * ("value" or "state") is static, to says how ("set", "reset", "copied from a.b") and is copied. The layout's epoch
 * goes up, its flags stay. */
enum esp_code esp_edit_touch(struct esp_edit *edit, const struct esp_selection *sel, const char *field, const char *to,
                             struct esp_status *st) ESP_WARN_UNUSED;

/* The same of what pairs of leaves bring: `to` of each, with those tied to it, has the value `how FROM`, say `copied
 * from a.b`; of several that go to one parameter the last one counts. */
enum esp_code esp_edit_touch_pairs(struct esp_edit *edit, const struct esp_pair *pairs, size_t len, const char *how,
                                   struct esp_status *st) ESP_WARN_UNUSED;

/* Detaches or attaches the selected leaves themselves; those tied to them stay as they are. Buffers are passed over. */
enum esp_code esp_edit_detach(struct esp_edit *edit, const struct esp_selection *sel, bool detached,
                              struct esp_status *st) ESP_WARN_UNUSED;

/* Whether a leaf can be bound to the parameter of another one: esp_edit_tie's INVALID_ARGUMENT, or ESP_OK. */
enum esp_code esp_tie_check(const struct esp_layout *layout, uint32_t leaf, uint32_t to, enum esp_view view,
                            struct esp_status *st) ESP_WARN_UNUSED;
/* Binds a leaf to the parameter that another one is bound to, seen through `view` from that one: both by their index in
 * the edit's view, which tying does not change. The leaf's former parameter goes when no leaf is bound to it any more,
 * and its storage is let go. No group of a parameter that stays changes: where the place of its new primary leaf would
 * change it, an explicit assignment is written. Already bound so: nothing changes. Ties (and renames) in a row, without
 * a look at the view between them, are cheap, and one step as to groups: nothing is written for a parameter that they
 * make go. INVALID_ARGUMENT, naming both leaves and what differs: the leaf
 * itself, another kind or dtype, another shape under the view, a transpose of what is not of rank 2. */
enum esp_code esp_edit_tie(struct esp_edit *edit, uint32_t leaf, uint32_t to, enum esp_view view,
                           struct esp_status *st) ESP_WARN_UNUSED;
/* Makes a leaf, by its index in the view, the primary one of the parameter that it is bound to, whose group stays. */
enum esp_code esp_edit_lead(struct esp_edit *edit, uint32_t leaf, struct esp_status *st) ESP_WARN_UNUSED;
/* Gives each selected leaf that shares its parameter one of its own, of the leaf's shape and an identity view, with the
 * group and the flag of the old one; where all leaves of a parameter are selected, its primary leaf keeps it. The new
 * ones have no storage until esp_edit_bind: ret_leaves (room for sel->len) gets their leaves' ids, ret_from the ids of
 * the parameters they had, ret_views how they saw them. */
enum esp_code esp_edit_untie(struct esp_edit *edit, const struct esp_selection *sel, uint64_t *ret_leaves,
                             uint64_t *ret_from, enum esp_view *ret_views, size_t *ret_len,
                             struct esp_status *st) ESP_WARN_UNUSED;

/* Defines a group or gives it another optimizer (the expression as printed; optim is ref'd); with the expression that
 * it has nothing changes. Parameters whose assigned group was not defined follow. INVALID_ARGUMENT for the name,
 * RESOURCE_EXHAUSTED past ESP_GROUPS_MAX. */
enum esp_code esp_edit_group(struct esp_edit *edit, const char *name, const char *expression, struct esp_object *optim,
                             struct esp_status *st) ESP_WARN_UNUSED;
/* What is assigned to it falls back to "default". NOT_FOUND (the known ones are listed), FAILED_PRECONDITION for
 * "default". */
enum esp_code esp_edit_group_delete(struct esp_edit *edit, const char *name, struct esp_status *st) ESP_WARN_UNUSED;
/* Tells in the diff of leaves that are not selected themselves but share a parameter with one that is, and that this
 * group, or "default" where it is not defined, steps from here on: to be called before the selection is assigned to it.
 */
enum esp_code esp_edit_note_regroup(struct esp_edit *edit, const struct esp_selection *sel, const char *group,
                                    struct esp_status *st) ESP_WARN_UNUSED;
/* Drops the explicit assignment of exactly this node; none is no change. FAILED_PRECONDITION for the root,
 * INVALID_ARGUMENT for a bad path. */
enum esp_code esp_edit_unassign(struct esp_edit *edit, const char *node, size_t node_len,
                                struct esp_status *st) ESP_WARN_UNUSED;

/* Names a selection, whose syntax is checked, or forgets the name (text ""). INVALID_ARGUMENT, also where it would
 * refer to itself by way of others (what it names need not be there yet), NOT_FOUND (the known ones are listed),
 * RESOURCE_EXHAUSTED past ESP_SELECTIONS_MAX. */
enum esp_code esp_edit_name_selection(struct esp_edit *edit, const char *name, const char *text,
                                      struct esp_status *st) ESP_WARN_UNUSED;
/* Tags an inner node ("" is the root), also one that is not there yet; tag "": no tag. INVALID_ARGUMENT for the path,
 * also where it is a leaf's, whose tag is its own, or the tag. */
enum esp_code esp_edit_tag(struct esp_edit *edit, const char *node, size_t node_len, const char *tag,
                           struct esp_status *st) ESP_WARN_UNUSED;

/* Gives a node, with everything below it, another path; ids, bindings, flags and groups stay, explicit assignments and
 * tags go with it. Where its new place would change groups, an explicit assignment is written: of the node, if there is
 * nothing else at its new place, else of the leaves. The new path may be a removed leaf's, the old one is not
 * remembered. NOT_FOUND (suggestions); INVALID_ARGUMENT for the path or the root, or where a leaf would lie below or
 * above another one or be there already. */
enum esp_code esp_edit_rename(struct esp_edit *edit, const char *from, size_t from_len, const char *to, size_t to_len,
                              struct esp_status *st) ESP_WARN_UNUSED;
/* Takes leaves out of the tree, and parameters that no leaf is bound to any more. The paths are remembered: they can't
 * be declared again (esp_edit_add: FAILED_PRECONDITION naming the leaf) unless the new leaf says that it may. */
enum esp_code esp_edit_remove(struct esp_edit *edit, const struct esp_selection *sel,
                              struct esp_status *st) ESP_WARN_UNUSED;

/* The layout as the edit has it so far: to select from. Borrowed, and only until the edit's next change. The first look
 * after leaves or assignments changed resolves groups, which takes a walk over all leaves: not for a loop that assigns.
 */
const struct esp_layout *esp_edit_view(const struct esp_edit *edit);

/* The same for loops that rename or tie, which then take no walk each: leaves, bindings and groups are right, but
 * parameters may be out of order, and such that no leaf is bound to any more (leaves_len 0) among them. */
const struct esp_layout *esp_edit_peek(struct esp_edit *edit);

/* The diff so far, settled as by esp_edit_view. Borrowed, and only until the edit's next change. */
const struct esp_change *esp_edit_changes(const struct esp_edit *edit, size_t *ret_len);

/* Ends the edit and frees it. Where nothing changed *ret_layout is base itself, ref'd, and the diff empty; else a
 * layout of the next epoch. *ret_diff is the caller's to esp_diff_done. It fails where an earlier call on the edit did,
 * with that one's code, and with RESOURCE_EXHAUSTED; the edit is freed then too. */
enum esp_code esp_edit_finish(struct esp_edit *edit, struct esp_layout **ret_layout, struct esp_diff *ret_diff,
                              struct esp_status *st) ESP_WARN_UNUSED;

#endif
