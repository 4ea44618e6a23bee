/* Why leaves are as they are: what the layout has of them, with what the history knows of how it came about.
 *
 * Happy path: layout and history are taken once; the history's lines that are about the selected leaves, and those
 * about nodes, groups and selections, are sorted, so that a leaf's are found without a walk; named selections are
 * evaluated once. Then leaf by leaf its facts are written down.
 *
 * How it fails: the selection, or no memory. What the history no longer has is left out of a fact; what would take too
 * long to find out is said to be left out. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/operations.h"

#define SHARES_MAX 16       /* leaves that one shares its parameter with, named one by one */
#define NAMED_MAX 16        /* named selections that a leaf is in, likewise */
#define CHANGES_MAX 8       /* of a leaf, the newest */
#define LOOKED_MAX 16000000 /* leaves that named selections are evaluated on, all together */
#define BECAUSE_MAX 512     /* bytes of who, and of why, that are shown */
#define SELECTION_MAX 1024  /* bytes of a selection's text that are shown */

/* A line of the history. */
struct line {
  uint64_t leaf_id; /* whose it is; 0: by its field and path, not a leaf's */
  const struct esp_record *record;
  const struct esp_change *change;
};

/* A leaf that shares its parameter. */
struct share {
  uint32_t param;
  uint32_t leaf; /* both by their index in the layout */
};

struct esp_explain {
  struct esp_engine *engine;
  struct esp_layout *layout; /* ref'd */
  uint64_t commit;
  struct esp_selection sel;    /* owned */
  struct esp_record **records; /* owned, each ref'd */
  size_t records_len;
  struct line *lines; /* owned; by subject, then in the order of time */
  size_t lines_len;
  size_t lines_capacity;
  struct esp_selection *named; /* owned; one a named selection of the layout, empty where it selects nothing */
  size_t named_len;            /* that were evaluated */
  struct share *shares;        /* owned; by parameter, then by leaf; none where no selected leaf shares its own */
  size_t shares_len;
  bool plan_waits;
  struct esp_status plan; /* then: why */
};

/* ---- the history's lines ---- */

static int subject_compare(const struct line *a, const struct line *b) {
  if (a->leaf_id != b->leaf_id)
    return a->leaf_id < b->leaf_id ? -1 : 1;
  if (a->leaf_id != 0)
    return 0;
  int order = strcmp(a->change->field, b->change->field);
  return order != 0 ? order : strcmp(a->change->path, b->change->path);
}

static int line_compare(const void *a, const void *b) {
  const struct line *x = a, *y = b;
  int order = subject_compare(x, y);
  if (order != 0)
    return order;
  if (x->record->epoch != y->record->epoch)
    return x->record->epoch < y->record->epoch ? -1 : 1;
  return x->change < y->change ? -1 : x->change > y->change;
}

static int index_compare(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static bool has_index(const struct esp_selection *sel, uint32_t index) {
  return sel->len > 0 && bsearch(&index, sel->leaves, sel->len, sizeof(*sel->leaves), index_compare) != NULL;
}

static bool is_asked_for(const struct esp_explain *explain, uint64_t leaf_id) {
  const struct esp_leaf *leaf = esp_layout_leaf_by_id(explain->layout, leaf_id);
  return leaf != NULL && has_index(&explain->sel, (uint32_t)(leaf - explain->layout->leaves));
}

static enum esp_code no_memory(struct esp_status *st) {
  return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory to explain so much");
}

/* A selected leaf's line is that leaf's; one about a node, a group or a selection is its own, and so is a leaf's own
 * assignment, which other leaves may follow. */
static bool take_line(struct esp_explain *explain, const struct esp_record *record, const struct esp_change *change) {
  uint64_t ids[] = {change->leaf_id, 0};
  bool takes[] = {change->leaf_id != 0 && is_asked_for(explain, change->leaf_id),
                  change->leaf_id == 0 || strcmp(change->field, "group") == 0};
  for (size_t i = 0; i < 2; i++) {
    if (!takes[i])
      continue;
    if (!esp_grow((void **)&explain->lines, &explain->lines_capacity, explain->lines_len + 1, sizeof(*explain->lines)))
      return false;
    explain->lines[explain->lines_len++] = (struct line){.leaf_id = ids[i], .record = record, .change = change};
  }
  return true;
}

static enum esp_code take_lines(struct esp_explain *explain, struct esp_status *st) {
  enum esp_code code = esp_engine_history(explain->engine, 0, 0, &explain->records, &explain->records_len, st);
  for (size_t i = 0; i < explain->records_len && code == ESP_OK; i++) {
    const struct esp_record *record = explain->records[i];
    for (size_t k = 0; k < record->diff.len && record->epoch <= explain->layout->epoch && code == ESP_OK; k++)
      code = take_line(explain, record, &record->diff.changes[k]) ? ESP_OK : no_memory(st);
  }
  if (explain->lines_len > 0)
    qsort(explain->lines, explain->lines_len, sizeof(*explain->lines), line_compare);
  return code;
}

/* The lines of one subject: those from *ret on, of which there are so many as are returned. */
static size_t find_lines(const struct esp_explain *explain, const struct line *subject, const struct line **ret) {
  size_t first = 0, end = explain->lines_len;
  while (first < end) {
    size_t middle = first + (end - first) / 2;
    if (subject_compare(&explain->lines[middle], subject) < 0)
      first = middle + 1;
    else
      end = middle;
  }
  while (end < explain->lines_len && subject_compare(&explain->lines[end], subject) == 0)
    end++;
  *ret = explain->lines + first;
  return end - first;
}

/* The newest line of a node, a group or a selection; NULL: none is kept. */
static const struct line *find_newest(const struct esp_explain *explain, const char *field, const char *path) {
  const struct line *lines;
  const struct esp_change change = {.field = field, .path = path};
  size_t len = find_lines(explain, &(struct line){.change = &change}, &lines);
  return len == 0 ? NULL : &lines[len - 1];
}

/* ---- leaves of one parameter ---- */

static int share_compare(const void *a, const void *b) {
  const struct share *x = a, *y = b;
  if (x->param != y->param)
    return x->param < y->param ? -1 : 1;
  return x->leaf < y->leaf ? -1 : x->leaf > y->leaf;
}

static enum esp_code take_shares(struct esp_explain *explain, struct esp_status *st) {
  const struct esp_layout *layout = explain->layout;
  size_t capacity = 0;
  bool any = false;
  for (size_t i = 0; i < explain->sel.len && !any; i++)
    any = layout->params[layout->leaves[explain->sel.leaves[i]].param].leaves_len > 1;
  for (size_t i = 0; i < layout->leaves_len && any; i++) {
    if (layout->params[layout->leaves[i].param].leaves_len == 1)
      continue;
    if (!esp_grow((void **)&explain->shares, &capacity, explain->shares_len + 1, sizeof(*explain->shares)))
      return no_memory(st);
    explain->shares[explain->shares_len++] = (struct share){.param = layout->leaves[i].param, .leaf = (uint32_t)i};
  }
  if (explain->shares_len > 0)
    qsort(explain->shares, explain->shares_len, sizeof(*explain->shares), share_compare);
  return ESP_OK;
}

/* ---- named selections ---- */

static enum esp_code look_at_named(struct esp_explain *explain, struct esp_status *st) {
  const struct esp_layout *layout = explain->layout;
  size_t most = LOOKED_MAX / (layout->leaves_len + 1) + 1;
  size_t len = layout->selections_len < most ? layout->selections_len : most;
  explain->named = esp_calloc(len + 1, sizeof(*explain->named));
  if (explain->named == NULL)
    return no_memory(st);
  for (; explain->named_len < len; explain->named_len++) {
    const struct esp_named_selection *named = &layout->selections[explain->named_len];
    struct esp_status why; /* one that selects nothing now is nobody's fault */
    enum esp_code code =
        esp_select(layout, named->text, strlen(named->text), &explain->named[explain->named_len], &why);
    if (code == ESP_RESOURCE_EXHAUSTED)
      return no_memory(st);
  }
  return ESP_OK;
}

/* ---- beginning and end ---- */

enum esp_code esp_explain_new(struct esp_engine *engine, const char *selection, struct esp_explain **ret,
                              struct esp_status *st) {
  struct esp_explain *explain = esp_calloc(1, sizeof(*explain));
  if (explain == NULL)
    return no_memory(st);
  explain->engine = engine;
  explain->layout = esp_engine_layout(engine, &explain->commit);
  explain->plan_waits = esp_engine_plan_waits(engine, &explain->plan);
  enum esp_code code = esp_select(explain->layout, selection, strlen(selection), &explain->sel, st);
  if (code == ESP_OK)
    code = take_lines(explain, st);
  if (code == ESP_OK)
    code = take_shares(explain, st);
  if (code == ESP_OK)
    code = look_at_named(explain, st);
  if (code == ESP_OK)
    *ret = explain;
  else
    esp_explain_free(explain);
  return code;
}

void esp_explain_free(struct esp_explain *explain) {
  if (explain == NULL)
    return;
  for (size_t i = 0; i < explain->records_len; i++)
    esp_record_unref(explain->records[i]);
  for (size_t i = 0; explain->named != NULL && i <= explain->named_len; i++)
    esp_selection_done(&explain->named[i]);
  esp_free(explain->named);
  esp_free(explain->shares);
  esp_free(explain->records);
  esp_free(explain->lines);
  esp_selection_done(&explain->sel);
  esp_layout_unref(explain->layout);
  esp_free(explain);
}

const struct esp_layout *esp_explain_layout(const struct esp_explain *explain, uint64_t *ret_commit,
                                            const struct esp_selection **ret_sel) {
  *ret_commit = explain->commit;
  *ret_sel = &explain->sel;
  return explain->layout;
}

/* ---- facts ---- */

void esp_facts_done(struct esp_facts *facts) {
  esp_free(facts->list);
  esp_arena_done(&facts->arena);
  *facts = (struct esp_facts){0};
}

/* A leaf whose facts are written down. */
struct subject {
  const struct esp_explain *explain;
  const struct esp_leaf *leaf;
  const struct esp_place *place;
  const struct line *lines; /* of the leaf, the oldest first */
  size_t lines_len;
  struct esp_facts *facts;
  bool ok; /* there was memory for all so far */
};

static const char *text(struct subject *subject, const char *format, ...) ESP_PRINTF(2, 3);
static const char *text(struct subject *subject, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int len = vsnprintf(NULL, 0, format, args);
  va_end(args);
  char *ret = esp_arena_alloc(&subject->facts->arena, (size_t)len + 1);
  if (ret == NULL)
    return NULL;
  va_start(args, format);
  vsnprintf(ret, (size_t)len + 1, format, args);
  va_end(args);
  return ret;
}

static void add(struct subject *subject, const char *what, const char *value, const char *because, uint64_t epoch) {
  struct esp_facts *facts = subject->facts;
  subject->ok = subject->ok && value != NULL && because != NULL &&
                esp_grow((void **)&facts->list, &facts->capacity, facts->len + 1, sizeof(*facts->list));
  if (subject->ok)
    facts->list[facts->len++] = (struct esp_fact){.what = what, .value = value, .because = because, .epoch = epoch};
}

/* Who made a transaction, and why: `frozen by ann: the head is enough`. */
static const char *by(struct subject *subject, const char *did, const struct esp_record *record) {
  char actor[BECAUSE_MAX], reason[BECAUSE_MAX];
  esp_path_print(record->actor, strlen(record->actor), actor, sizeof(actor));
  esp_path_print(record->reason, strlen(record->reason), reason, sizeof(reason));
  return text(subject, "%s%sby %s%s%s", did, did[0] != '\0' ? " " : "", actor[0] != '\0' ? actor : "somebody",
              reason[0] != '\0' ? ": " : "", reason);
}

/* The newest of the leaf's lines with this field, or NULL. */
static const struct line *newest(const struct subject *subject, const char *field) {
  for (size_t i = subject->lines_len; i > 0; i--) {
    if (strcmp(subject->lines[i - 1].change->field, field) == 0)
      return &subject->lines[i - 1];
  }
  return NULL;
}

static void tell_leaf(struct subject *subject) {
  const struct line *line = newest(subject, "leaf");
  char shape[ESP_SHAPE_TEXT_MAX];
  const struct esp_shape dims = esp_layout_shape(subject->explain->layout, subject->leaf);
  bool is_buffer = subject->leaf->kind == ESP_KIND_BUFFER;
  add(subject, "leaf",
      text(subject, "%s %s, %s", esp_dtype_name(subject->place->dtype), esp_shape_print(&dims, shape),
           is_buffer ? "buffer" : "trained"),
      line == NULL ? "" : by(subject, "added", line->record), line == NULL ? 0 : line->record->epoch);
}

/* The tag of a node that is named by the first bytes of a path, or NULL. */
static const struct esp_node_tag *find_tag(const struct esp_layout *layout, const char *path, size_t len) {
  size_t first = 0, end = layout->tags_len;
  while (first < end) {
    size_t middle = first + (end - first) / 2;
    const struct esp_node_tag *tag = &layout->tags[middle];
    int order = esp_path_compare(tag->node, tag->node_len, path, len);
    if (order == 0)
      return tag;
    if (order < 0)
      first = middle + 1;
    else
      end = middle;
  }
  return NULL;
}

/* Its own tag, and those of the nodes above it, from the root on. */
static void tell_tags(struct subject *subject) {
  const struct esp_layout *layout = subject->explain->layout;
  const struct esp_leaf *leaf = subject->leaf;
  if (leaf->tag[0] != '\0')
    add(subject, "tag", leaf->tag, "its own", 0);
  for (size_t len = 0; len < leaf->path_len; len++) {
    const struct esp_node_tag *tag = len == 0 || leaf->path[len] == '.' ? find_tag(layout, leaf->path, len) : NULL;
    if (tag == NULL)
      continue;
    const struct line *line = find_newest(subject->explain, "tag", tag->node);
    add(subject, "tag", tag->tag, tag->node_len == 0 ? "of the root" : text(subject, "of %s", tag->node),
        line == NULL ? 0 : line->record->epoch);
  }
}

static void tell_parameter(struct subject *subject) {
  const struct esp_layout *layout = subject->explain->layout;
  const struct esp_place *place = subject->place;
  const struct esp_leaf *primary = &layout->leaves[place->primary];
  const struct line *line = newest(subject, "parameter");
  bool is_transposed = subject->leaf->view == ESP_VIEW_TRANSPOSE;
  const char *because = "its own";
  if (place->leaves_len > 1 && primary == subject->leaf)
    because = text(subject, "it is the primary leaf of the %" PRIu32 " that share it", place->leaves_len);
  else if (place->leaves_len > 1)
    because = text(subject, "tied to %s, the primary leaf of the %" PRIu32 " that share it", primary->path,
                   place->leaves_len);
  add(subject, "parameter", text(subject, "%" PRIu64 "%s", place->id, is_transposed ? " transposed" : ""), because,
      line == NULL ? 0 : line->record->epoch);
}

static void tell_shares(struct subject *subject) {
  const struct esp_explain *explain = subject->explain;
  uint32_t told = 0, others = subject->place->leaves_len - 1;
  size_t at = 0, end = explain->shares_len;
  while (at < end) { /* to the first of the parameter */
    size_t middle = at + (end - at) / 2;
    if (explain->shares[middle].param < subject->leaf->param)
      at = middle + 1;
    else
      end = middle;
  }
  for (; others > 0 && at < explain->shares_len && told < SHARES_MAX; at++) {
    const struct esp_leaf *leaf = &explain->layout->leaves[explain->shares[at].leaf];
    if (leaf->param != subject->leaf->param)
      break;
    if (leaf == subject->leaf)
      continue;
    add(subject, "shared with", leaf->path, leaf->view == subject->leaf->view ? "" : "which sees it transposed", 0);
    told++;
  }
  if (told < others)
    add(subject, "shared with", text(subject, "%" PRIu32 " more", others - told), "", 0);
}

static void tell_group(struct subject *subject) {
  const struct esp_layout *layout = subject->explain->layout;
  const struct esp_place *place = subject->place;
  const struct esp_leaf *primary = &layout->leaves[place->primary];
  const struct esp_group *group = &layout->groups[place->group];
  const struct esp_assignment *at = esp_layout_nearest(layout, primary->path, primary->path_len);
  const struct line *line = find_newest(subject->explain, "group", at->node);
  const struct line *defined = find_newest(subject->explain, "optimizer", group->name);
  const char *node = at->node_len == 0 ? "the root" : at->node;
  const char *of = primary == subject->leaf ? "" : text(subject, ", where its primary leaf %s is", primary->path);
  bool falls_back = strcmp(place->group_assigned, group->name) != 0;
  const char *because =
      of == NULL   ? NULL
      : falls_back ? text(subject, "%s, which is assigned to %s%s, is not defined", place->group_assigned, node, of)
                   : text(subject, "assigned to %s%s", node, of);
  add(subject, "group", group->name, because, line == NULL ? 0 : line->record->epoch);
  if (place->kind == ESP_KIND_TRAINED)
    add(subject, "optimizer", group->expression, defined == NULL ? "" : by(subject, "defined", defined->record),
        defined == NULL ? 0 : defined->record->epoch);
}

/* A flag, and who set it to what it is: where no line is kept, it may have been born so. */
static void tell_flag(struct subject *subject, const char *field, bool is_set, const char *did, const char *undid) {
  const struct line *line = newest(subject, field);
  const struct line *born = line == NULL ? newest(subject, "leaf") : NULL;
  if (line != NULL && strcmp(line->change->to, is_set ? "true" : "false") != 0) { /* what made it so is not told */
    add(subject, field, is_set ? "yes" : "no", "", 0);
    return;
  }
  const char *because = "";
  if (line != NULL && line->change->because[0] != '\0')
    because = text(subject, "%s with %s", is_set ? did : undid, line->change->because);
  else if (line != NULL)
    because = is_set ? did : undid;
  else if (is_set && born != NULL)
    because = "born so, added";
  else if (is_set)
    because = "since before what the history keeps";
  if (line == NULL)
    line = is_set ? born : NULL;
  if (line != NULL && because != NULL)
    because = by(subject, because, line->record);
  add(subject, field, is_set ? "yes" : "no", because, line == NULL ? 0 : line->record->epoch);
}

static void tell_timer(struct subject *subject) {
  const struct esp_timer *timer = esp_layout_timer(subject->explain->layout, subject->place->timer);
  char when[ESP_TIMER_TEXT_MAX], selection[SELECTION_MAX];
  if (timer == NULL)
    return;
  esp_path_print(timer->selection, strlen(timer->selection), selection, sizeof(selection));
  add(subject, "timer", text(subject, "%s", esp_timer_print(timer, when)), text(subject, "set for %s", selection),
      timer->epoch);
}

static void tell_selections(struct subject *subject) {
  const struct esp_explain *explain = subject->explain;
  const struct esp_layout *layout = explain->layout;
  uint32_t index = (uint32_t)(subject->leaf - layout->leaves);
  size_t told = 0;
  for (size_t i = 0; i < explain->named_len; i++) {
    const struct esp_named_selection *named = &layout->selections[i];
    if (!has_index(&explain->named[i], index) || told++ >= NAMED_MAX)
      continue;
    char at_name[ESP_NAME_BYTES_MAX + 2], selection[SELECTION_MAX];
    esp_path_print(named->text, strlen(named->text), selection, sizeof(selection));
    snprintf(at_name, sizeof(at_name), "@%s", named->name);
    const struct line *line = find_newest(explain, "selection", at_name);
    add(subject, "selection", text(subject, "%s", at_name), text(subject, "it is %s", selection),
        line == NULL ? 0 : line->record->epoch);
  }
  if (told > NAMED_MAX)
    add(subject, "selection", text(subject, "%zu more", told - NAMED_MAX), "", 0);
  if (explain->named_len < layout->selections_len)
    add(subject, "selection", "?",
        text(subject, "%zu named selections of this large tree were not looked at",
             layout->selections_len - explain->named_len),
        0);
}

/* What becomes of a gradient for it, in the order in which pushes are looked at. */
static void tell_push(struct subject *subject) {
  const struct esp_explain *explain = subject->explain;
  struct esp_param_stat stat;
  if (subject->leaf->kind == ESP_KIND_BUFFER) {
    add(subject, "a gradient", "is refused", "it is a buffer: it is set, not trained", 0);
    return;
  }
  esp_place_stat(subject->place, &stat);
  add(subject, "steps", text(subject, "%" PRIu64, stat.steps),
      text(subject, "version %" PRIu64 " of its value", stat.version), 0);
  if (explain->plan_waits)
    add(subject, "a gradient", "is refused", text(subject, "the server's plan waits: %s", explain->plan.message), 0);
  else if (subject->place->frozen)
    add(subject, "a gradient", "is dropped", "its parameter is frozen", 0);
  else if (subject->leaf->detached)
    add(subject, "a gradient", "is dropped", "the leaf is detached", 0);
  else
    add(subject, "a gradient", "is applied",
        text(subject, "group %s steps it", explain->layout->groups[subject->place->group].name), 0);
}

static void tell_changes(struct subject *subject) {
  size_t first = subject->lines_len > CHANGES_MAX ? subject->lines_len - CHANGES_MAX : 0;
  if (first > 0)
    add(subject, "changed", text(subject, "%zu times before that", first), "", 0);
  for (size_t i = first; i < subject->lines_len; i++) {
    const struct esp_change *change = subject->lines[i].change;
    add(subject, "changed",
        text(subject, "%s: %s -> %s", change->field, change->from[0] != '\0' ? change->from : "(none)",
             change->to[0] != '\0' ? change->to : "(none)"),
        by(subject, "", subject->lines[i].record), subject->lines[i].record->epoch);
  }
}

/* A leaf's lines are found by its id alone. */
static const struct esp_change unnamed = {.field = "", .path = ""};

bool esp_explain_leaf(const struct esp_explain *explain, size_t index, struct esp_facts *ret) {
  struct subject subject = {
      .explain = explain, .leaf = &explain->layout->leaves[explain->sel.leaves[index]], .facts = ret, .ok = true};
  *ret = (struct esp_facts){0};
  esp_arena_init(&ret->arena, 0);
  subject.place = esp_layout_place(explain->layout, subject.leaf);
  subject.lines_len =
      find_lines(explain, &(struct line){.leaf_id = subject.leaf->id, .change = &unnamed}, &subject.lines);
  tell_leaf(&subject);
  tell_tags(&subject);
  tell_parameter(&subject);
  tell_shares(&subject);
  tell_group(&subject);
  tell_flag(&subject, "frozen", subject.place->frozen, "frozen", "thawed");
  if (subject.leaf->kind == ESP_KIND_TRAINED)
    tell_flag(&subject, "detached", subject.leaf->detached, "detached", "attached");
  tell_timer(&subject);
  tell_selections(&subject);
  tell_push(&subject);
  tell_changes(&subject);
  return subject.ok;
}
