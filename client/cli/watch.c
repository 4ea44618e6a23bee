/* watch: what changes in the tree, one line a change, as it happens.
 *
 * The happy path: describe what is selected, then follow what comes after that. An event says how leaves are now; where
 * one is otherwise than it was, a line is printed. The library connects again by itself. After a server has lost its
 * state everything is forgotten, and the new tree is followed from its beginning.
 *
 * It ends with --count, or by a signal, which needs no answer from us: each line is written out by itself. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "client/cli/cli.h"

/* A selected leaf, as it was last heard of. */
struct watched {
  esp_leaf_id leaf;
  char *path; /* owned */
  bool frozen;
  bool detached;
  bool is_new; /* the event that is being taken has it for the first time */
};

struct watch {
  struct esp_cli *cli;
  const char *selection;  /* NULL: every leaf */
  esp_watch *events;      /* owned; NULL: not open */
  uint64_t lineage;       /* what leaves is of; 0: not known yet */
  struct watched *leaves; /* by id */
  size_t len;             /* of leaves */
  size_t capacity;        /* of leaves */
  uint64_t lines;         /* printed */
};

/* ---- the leaves ---- */

static void forget(struct watch *watch) {
  for (size_t i = 0; i < watch->len; i++)
    esp_free(watch->leaves[i].path);
  watch->len = 0;
}

/* The place of the first leaf whose id is not lower. */
static size_t place_of(const struct watch *watch, esp_leaf_id leaf) {
  size_t low = 0;
  for (size_t high = watch->len; low < high;) {
    size_t middle = low + (high - low) / 2;
    if (watch->leaves[middle].leaf < leaf)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static struct watched *find(const struct watch *watch, esp_leaf_id leaf) {
  size_t place = place_of(watch, leaf);
  return place < watch->len && watch->leaves[place].leaf == leaf ? &watch->leaves[place] : NULL;
}

/* Ids go up, so that this is the end mostly. */
static struct watched *insert(struct watch *watch, esp_leaf_id leaf, const char *path, struct esp_status *st) {
  char *copy = esp_strdup(path);
  if (copy == NULL || !esp_grow((void **)&watch->leaves, &watch->capacity, watch->len + 1, sizeof *watch->leaves)) {
    esp_free(copy);
    esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory to watch %zu leaves", watch->len + 1);
    return NULL;
  }
  size_t place = place_of(watch, leaf);
  memmove(&watch->leaves[place + 1], &watch->leaves[place], (watch->len - place) * sizeof *watch->leaves);
  watch->len++;
  watch->leaves[place] = (struct watched){.leaf = leaf, .path = copy};
  return &watch->leaves[place];
}

static void erase(struct watch *watch, struct watched *known) {
  size_t place = (size_t)(known - watch->leaves);
  esp_free(known->path);
  watch->len--;
  memmove(known, known + 1, (watch->len - place) * sizeof *known);
}

/* ---- what is selected ---- */

/* What the selection matches at one moment. */
struct roster {
  struct esp_description *description; /* owned */
  const struct esp_leaf_info **leaves; /* owned; of the description, by id */
};

static void roster_done(struct roster *roster) {
  esp_free(roster->leaves);
  esp_description_free(roster->description);
}

static int by_id(const void *a, const void *b) {
  const struct esp_leaf_info *left = *(const struct esp_leaf_info *const *)a;
  const struct esp_leaf_info *right = *(const struct esp_leaf_info *const *)b;
  return left->leaf < right->leaf ? -1 : left->leaf > right->leaf;
}

/* To be done with roster_done in any case. */
static enum esp_code roster_init(struct roster *roster, const struct watch *watch, struct esp_status *st) {
  *roster = (struct roster){0};
  enum esp_code code = esp_describe(watch->cli->client, watch->selection, false, &roster->description, st);
  if (code != ESP_OK)
    return code;
  size_t len = roster->description->leaves_len;
  roster->leaves = esp_malloc_array(len + 1, sizeof *roster->leaves);
  if (roster->leaves == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory to watch %zu leaves", len);
  for (size_t i = 0; i < len; i++)
    roster->leaves[i] = &roster->description->leaves[i];
  qsort(roster->leaves, len, sizeof *roster->leaves, by_id);
  return ESP_OK;
}

static bool roster_has(const struct roster *roster, esp_leaf_id leaf) {
  const struct esp_leaf_info key = {.leaf = leaf};
  const struct esp_leaf_info *key_place = &key;
  return bsearch(&key_place, roster->leaves, roster->description->leaves_len, sizeof *roster->leaves, by_id) != NULL;
}

/* What is there when the watch begins, and what comes after that. */
static enum esp_code begin(struct watch *watch, struct esp_status *st) {
  struct roster roster;
  enum esp_code code = roster_init(&roster, watch, st);
  for (size_t i = 0; code == ESP_OK && i < roster.description->leaves_len; i++) {
    const struct esp_leaf_info *leaf = roster.leaves[i];
    struct watched *known = insert(watch, leaf->leaf, leaf->path, st);
    if (known == NULL) {
      code = st->code;
      break;
    }
    known->frozen = leaf->frozen;
    known->detached = leaf->detached;
  }
  if (code == ESP_OK) {
    watch->lineage = roster.description->lineage;
    code = esp_watch_open(watch->cli->client, roster.description->epoch, NULL, NULL, &watch->events, st);
  }
  roster_done(&roster);
  return code;
}

/* Takes the event's new leaves into the watch if they are selected, which the server has to be asked for. */
static enum esp_code welcome(struct watch *watch, const struct esp_layout_event *event, struct esp_status *st) {
  struct roster roster = {0};
  bool asked = watch->selection == NULL;
  enum esp_code code = ESP_OK;
  for (size_t i = 0; code == ESP_OK && i < event->changes_len; i++) {
    const struct esp_layout_change *change = &event->changes[i];
    if (change->removed || change->path[0] == '\0' || find(watch, change->leaf) != NULL)
      continue;
    if (!asked) {
      code = roster_init(&roster, watch, st);
      asked = true;
    }
    if (code != ESP_OK || (watch->selection != NULL && !roster_has(&roster, change->leaf)))
      continue;
    struct watched *known = insert(watch, change->leaf, change->path, st);
    if (known == NULL)
      code = st->code;
    else
      known->is_new = true;
  }
  roster_done(&roster);
  return code == ESP_NOT_FOUND ? ESP_OK : code; /* what was selected has gone, and nothing new is */
}

/* ---- events ---- */

static bool is_full(const struct watch *watch) {
  return watch->cli->count != 0 && watch->lines >= watch->cli->count;
}

/* One line, which is to be seen at once. False: it cannot be written. */
static bool print(struct watch *watch, const struct esp_cli_change *change) {
  FILE *out = watch->cli->out;
  bool ok = true;
  if (is_full(watch))
    return true;
  if ((watch->cli->options & ESP_CLI_JSON) != 0)
    ok = esp_cli_json_change(out, change);
  else
    esp_cli_render_change(out, change);
  watch->lines++;
  return esp_cli_flush(watch->cli) && ok;
}

static bool print_leaf(struct watch *watch, const struct esp_layout_event *event, const struct watched *known,
                       const char *what) {
  const struct esp_env *env = watch->cli->env;
  const struct esp_cli_change change = {.wall_ms = env->wall_ms(env->data),
                                        .epoch = event->epoch,
                                        .commit = event->commit,
                                        .lineage = event->lineage,
                                        .leaf = known->leaf,
                                        .path = known->path,
                                        .what = what};
  return print(watch, &change);
}

/* Prints what has become of a known leaf, and takes it over. */
static bool compare(struct watch *watch, const struct esp_layout_event *event, struct watched *known,
                    const struct esp_layout_change *change) {
  bool ok = true;
  if (change->removed) {
    ok = print_leaf(watch, event, known, "removed");
    erase(watch, known);
    return ok;
  }
  if (known->is_new)
    ok = print_leaf(watch, event, known, "added");
  if (ok && change->frozen != known->frozen)
    ok = print_leaf(watch, event, known, change->frozen ? "frozen" : "thawed");
  if (ok && change->detached != known->detached)
    ok = print_leaf(watch, event, known, change->detached ? "detached" : "attached");
  known->is_new = false;
  known->frozen = change->frozen;
  known->detached = change->detached;
  return ok;
}

static enum esp_code take_event(struct watch *watch, const struct esp_layout_event *event, bool *ret_ok,
                                struct esp_status *st) {
  enum esp_code code = welcome(watch, event, st);
  watch->lineage = event->lineage;
  for (size_t i = 0; code == ESP_OK && *ret_ok && i < event->changes_len; i++) {
    struct watched *known = find(watch, event->changes[i].leaf);
    if (known != NULL)
      *ret_ok = compare(watch, event, known, &event->changes[i]);
  }
  return code;
}

/* The server has lost its state: what it has now is followed from its beginning. */
static enum esp_code start_over(struct watch *watch, bool *ret_ok, struct esp_status *st) {
  const struct esp_env *env = watch->cli->env;
  const struct esp_cli_change change = {
      .wall_ms = env->wall_ms(env->data), .path = "", .what = "the server has lost its state: a new lineage"};
  *ret_ok = print(watch, &change);
  forget(watch);
  watch->lineage = 0;
  esp_watch_close(watch->events);
  watch->events = NULL;
  return esp_watch_open(watch->cli->client, 0, NULL, NULL, &watch->events, st);
}

static enum esp_code follow(struct watch *watch, bool *ret_ok, struct esp_status *st) {
  enum esp_code code = ESP_OK;
  while (code == ESP_OK && *ret_ok && !is_full(watch)) {
    const struct esp_layout_event *event = NULL;
    code = esp_watch_next(watch->events, UINT64_MAX, &event, st);
    bool is_other = code == ESP_OK && watch->lineage != 0 && event->lineage != watch->lineage;
    if (code == ESP_ABORTED || is_other)
      code = start_over(watch, ret_ok, st);
    else if (code == ESP_OK)
      code = take_event(watch, event, ret_ok, st);
  }
  return code;
}

enum esp_cli_exit esp_cli_run_watch(struct esp_cli *cli) {
  struct esp_status st;
  struct watch watch = {.cli = cli, .selection = cli->args_len > 0 ? cli->args[0] : NULL};
  bool ok = true; /* what was printed could be */
  enum esp_code code = begin(&watch, &st);
  if (code == ESP_OK)
    code = follow(&watch, &ok, &st);
  esp_watch_close(watch.events);
  forget(&watch);
  esp_free(watch.leaves);
  return code == ESP_OK ? esp_cli_finish(cli, ok) : esp_cli_fail(cli, &st);
}
