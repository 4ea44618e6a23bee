/* The parts of an undo: places (undo_places.c), bindings (undo_bindings.c), groups (undo_groups.c), timers
 * (undo_timers.c), and the rest (undo.c). */
#ifndef ESP_ENGINE_UNDO_H
#define ESP_ENGINE_UNDO_H

#include "engine/operations.h"

/* A node that is renamed back, whose path had to_len bytes of `to` and gets from_len bytes of `from` again. */
struct esp_undo_move {
  const char *to;
  const char *from;
  size_t to_len;
  size_t from_len;
  size_t line; /* of its leaves' lines in the diff, the first */
};

struct esp_undo {
  struct esp_transaction *tx;
  const struct esp_record *record; /* borrowed */
  size_t own;                      /* lines that the edit had before */
  bool is_last;                    /* nothing came after it, in this transaction neither */
  struct esp_undo_move *moves;     /* of the diff, from the last to the first; owned */
  size_t moves_len;
  size_t moves_capacity;
  const char **since; /* nodes that later transactions have assigned groups to; owned, the paths are not */
  size_t since_len;
  size_t since_capacity;
  bool *regrouped; /* by leaf, once places are as they were: whether since then its group was assigned; owned */
};

bool esp_undo_is_field(const struct esp_change *change, const char *field);
/* The leaf of a line in the tree of now; NULL where it is gone. */
const struct esp_leaf *esp_undo_leaf_of(const struct esp_layout *view, const struct esp_change *change);
/* Whether it says what a leaf was bound to. */
bool esp_undo_is_binding(const struct esp_change *change);
/* By leaf of the view: the first of its lines that is one of those, + 1, or 0. NULL without memory. */
size_t *esp_undo_first_lines(const struct esp_undo *undo, const struct esp_layout *view,
                             bool (*is_one)(const struct esp_change *));

/* Lines of parameters, by leaf: the first of its lines of this field + 1, or 0. Those that a leaf got after it had left
 * the parameter that it is bound to again are another one's, and do not count. NULL without memory. */
size_t *esp_undo_param_lines(const struct esp_undo *undo, const struct esp_layout *view, const char *field);

/* Leaves that are chosen line by line. */
struct esp_chosen {
  const struct esp_layout *view; /* borrowed: nothing changes the order of its leaves meanwhile */
  uint8_t *marks;                /* by leaf */
  struct esp_selection sel;      /* owned */
};
enum esp_code esp_chosen_init(struct esp_chosen *chosen, const struct esp_layout *view,
                              struct esp_status *st) ESP_WARN_UNUSED;
void esp_chosen_done(struct esp_chosen *chosen);
/* After the last was marked: all of them, in path order. */
const struct esp_selection *esp_chosen_list(struct esp_chosen *chosen);

/* Each leaf's timer is the one that it had. What it waited for may have been: then there is a note, and what is frozen
 * keeps the timer that is to thaw it. After flags. */
enum esp_code esp_undo_timers(const struct esp_undo *undo, struct esp_status *st) ESP_WARN_UNUSED;
/* Added leaves go, renamed ones get their former paths. */
enum esp_code esp_undo_places(struct esp_undo *undo, struct esp_status *st) ESP_WARN_UNUSED;
/* Finds what was regrouped since; after places. */
enum esp_code esp_undo_regrouped(struct esp_undo *undo, struct esp_status *st) ESP_WARN_UNUSED;
/* Leaves are bound to what they were bound to, and are its primary leaf again where they were. */
enum esp_code esp_undo_bindings(const struct esp_undo *undo, struct esp_status *st) ESP_WARN_UNUSED;
/* The id in `parameter 7 (a.w)`; ret_primary, if not NULL, gets what is behind the parenthesis, or NULL. */
uint64_t esp_undo_parameter(const char *text, const char **ret_primary);
/* Groups and what is assigned to nodes; after places and bindings. */
enum esp_code esp_undo_groups(const struct esp_undo *undo, struct esp_status *st) ESP_WARN_UNUSED;

#endif
