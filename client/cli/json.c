/* What commands print with --json: one object on one or more lines, its keys listed in docs/espctl.md.
 *
 * Lists are the object's last member and are printed item by item: Jansson makes the object around them without its
 * closing brace (JSON_EMBED), then each item. A tree of a million leaves as one JSON value would take a gigabyte. */
#include <inttypes.h>

#include "base/dtype.h"
#include "client/cli/cli.h"

json_int_t esp_cli_json_u64(uint64_t value) {
  return value > (uint64_t)INT64_MAX ? (json_int_t)INT64_MAX : (json_int_t)value;
}
#define U64 esp_cli_json_u64

json_t *esp_cli_json_shape(const uint64_t *dims, unsigned rank) {
  json_t *array = json_array();
  for (unsigned i = 0; array != NULL && i < rank; i++) {
    if (json_array_append_new(array, json_integer(U64(dims[i]))) != 0) {
      json_decref(array);
      return NULL;
    }
  }
  return array;
}

bool esp_cli_json_object(FILE *out, json_t *object) {
  bool ok = object != NULL && json_dumpf(object, out, JSON_INDENT(2)) == 0;
  json_decref(object);
  fputc('\n', out);
  return ok;
}

/* Begins an object with the members of `head`, which it takes, and a list after them. */
static bool list_begin(FILE *out, json_t *head, const char *name) {
  fputc('{', out);
  bool ok = head != NULL && json_dumpf(head, out, JSON_EMBED) == 0;
  json_decref(head);
  fprintf(out, ", \"%s\": [", name);
  return ok;
}

static bool list_item(FILE *out, size_t index, json_t *item) {
  fputs(index > 0 ? ",\n  " : "\n  ", out);
  bool ok = item != NULL && json_dumpf(item, out, 0) == 0;
  json_decref(item);
  return ok;
}

static void list_end(FILE *out, size_t len) {
  fputs(len > 0 ? "\n]}\n" : "]}\n", out);
}

static json_t *memory_json(const struct esp_server_info *info) {
  return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "parameters", U64(info->memory_parameters), "state",
                   U64(info->memory_state), "staged", U64(info->memory_staged), "staged_max",
                   U64(info->memory_staged_max), "copy_on_write", U64(info->memory_copy_on_write), "copy_on_write_max",
                   U64(info->memory_copy_on_write_max), "spare", U64(info->memory_spare), "resident",
                   U64(info->memory_resident));
}

static json_t *pushes_json(const struct esp_server_info *info) {
  return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "applied", U64(info->pushes_applied), "refused",
                   U64(info->pushes_refused), "nonfinite", U64(info->pushes_nonfinite), "bytes",
                   U64(info->bytes_pushed), "in_flight", U64(info->in_flight), "in_flight_max",
                   U64(info->in_flight_max));
}

static json_t *network_json(const struct esp_server_info *info) {
  return json_pack("{s:I, s:I, s:I, s:I, s:I}", "connections", U64(info->connections), "connections_max",
                   U64(info->connections_max), "connections_refused", U64(info->connections_refused), "streams",
                   U64(info->streams), "watches", U64(info->watches));
}

static json_t *status_json(const char *server, const struct esp_server_info *info) {
  char lineage[ESP_CLI_TEXT_MAX];
  return json_pack("{s:s, s:s, s:s, s:s, s:I, s:b, s:I, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:{s:I, s:I, "
                   "s:I}, s:o, s:s}",
                   "server", server, "version", info->version, "mode", info->mode, "isa", info->isa, "uptime_ms",
                   U64(info->uptime_ms), "draining", info->draining, "epoch", U64(info->epoch), "commit",
                   U64(info->commit), "lineage", esp_cli_print_id(info->lineage, lineage), "leaves", U64(info->leaves),
                   "frozen", U64(info->frozen), "parameters", U64(info->parameters), "elements", U64(info->elements),
                   "sessions", U64(info->sessions), "threads", U64(info->threads), "memory", memory_json(info),
                   "pushes", pushes_json(info), "pulls", "served", U64(info->pulls), "bytes", U64(info->bytes_pulled),
                   "active", U64(info->pulls_active), "network", network_json(info), "plan_waits", info->plan_waits);
}

bool esp_cli_json_status(FILE *out, const char *server, const struct esp_server_info *info) {
  return esp_cli_json_object(out, status_json(server, info));
}

static json_t *description_head(const struct esp_description *description) {
  char lineage[ESP_CLI_TEXT_MAX];
  return json_pack("{s:I, s:I, s:s}", "epoch", U64(description->epoch), "commit", U64(description->commit), "lineage",
                   esp_cli_print_id(description->lineage, lineage));
}

static json_t *groups_json(const struct esp_description *description) {
  json_t *groups = json_array();
  for (size_t i = 0; groups != NULL && i < description->groups_len; i++) {
    const struct esp_group_info *group = &description->groups[i];
    if (json_array_append_new(groups, json_pack("{s:s, s:s, s:I}", "name", group->name, "optimizer", group->expression,
                                                "parameters", U64(group->parameters))) != 0) {
      json_decref(groups);
      return NULL;
    }
  }
  return groups;
}

static json_t *leaf_json(const struct esp_leaf_info *leaf) {
  return json_pack("{s:s, s:I, s:o, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:I, s:I, s:I, s:I}", "path", leaf->path,
                   "id", U64(leaf->leaf), "shape", esp_cli_json_shape(leaf->shape, leaf->rank), "dtype",
                   esp_dtype_name((enum esp_dtype)leaf->dtype), "kind", leaf->kind == ESP_BUFFER ? "buffer" : "trained",
                   "group", leaf->group, "group_assigned", leaf->group_assigned, "tag", leaf->tag, "tied_to",
                   leaf->tied_to, "frozen", leaf->frozen, "detached", leaf->detached, "steps", U64(leaf->steps),
                   "version", U64(leaf->version), "bytes", U64(leaf->bytes), "state_bytes", U64(leaf->state_bytes));
}

bool esp_cli_json_tree(FILE *out, const struct esp_description *description) {
  json_t *head = description_head(description);
  if (head == NULL || json_object_set_new(head, "groups", groups_json(description)) != 0) {
    json_decref(head);
    return false;
  }
  bool ok = list_begin(out, head, "leaves");
  for (size_t i = 0; ok && i < description->leaves_len; i++)
    ok = list_item(out, i, leaf_json(&description->leaves[i]));
  list_end(out, description->leaves_len);
  return ok;
}

static json_t *group_json(const struct esp_cli_group *group) {
  return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "name", group->info->name, "optimizer",
                   group->info->expression, "parameters", U64(group->info->parameters), "leaves", U64(group->leaves),
                   "leaves_frozen", U64(group->leaves_frozen), "elements", U64(group->elements), "elements_frozen",
                   U64(group->elements_frozen), "bytes", U64(group->bytes), "state_bytes", U64(group->state_bytes));
}

bool esp_cli_json_groups(FILE *out, const struct esp_description *description, const struct esp_cli_group *groups) {
  bool ok = list_begin(out, description_head(description), "groups");
  for (size_t i = 0; ok && i < description->groups_len; i++)
    ok = list_item(out, i, group_json(&groups[i]));
  list_end(out, description->groups_len);
  return ok;
}

bool esp_cli_json_group(FILE *out, const struct esp_cli_group *group, const struct esp_description *description,
                        const size_t *members) {
  json_t *head = description_head(description);
  json_t *sums = group_json(group);
  bool ok = head != NULL && sums != NULL && json_object_update(head, sums) == 0 && json_object_del(head, "leaves") == 0;
  json_decref(sums);
  if (!ok) {
    json_decref(head);
    return false;
  }
  ok = list_begin(out, head, "leaves");
  for (size_t i = 0; ok && i < group->leaves; i++)
    ok = list_item(out, i, leaf_json(&description->leaves[members[i]]));
  list_end(out, (size_t)group->leaves);
  return ok;
}

static json_t *worker_json(const struct esp_worker_info *worker) {
  char session[ESP_CLI_TEXT_MAX];
  return json_pack("{s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I}", "name", worker->name, "peer", worker->peer,
                   "session", esp_cli_print_id(worker->session, session), "live", worker->live, "pushes",
                   U64(worker->pushes), "in_flight", U64(worker->in_flight), "last_sequence",
                   U64(worker->last_sequence), "staleness", U64(worker->staleness), "last_seen_ms",
                   U64(worker->last_seen_ms));
}

bool esp_cli_json_workers(FILE *out, const struct esp_worker_info *workers, size_t len) {
  bool ok = list_begin(out, json_pack("{s:I}", "count", U64(len)), "workers");
  for (size_t i = 0; ok && i < len; i++)
    ok = list_item(out, i, worker_json(&workers[i]));
  list_end(out, len);
  return ok;
}

static json_t *timer_json(const struct esp_timer_info *timer) {
  static const char *const waits[] = {"", "commit", "pushes", "time"};
  bool is_known = timer->wait >= ESP_WAIT_COMMIT && timer->wait <= ESP_WAIT_TIME;
  return json_pack("{s:I, s:s, s:s, s:I, s:I, s:b, s:I, s:I, s:s, s:I, s:I}", "timer", U64(timer->timer), "does",
                   timer->freezes ? "freeze" : "thaw", "wait", waits[is_known ? timer->wait : 0], "at", U64(timer->at),
                   "left", U64(timer->left), "reset_state", timer->reset_state, "until_commit",
                   U64(timer->until_commit), "for_ms", U64(timer->for_ms), "selection", timer->selection, "leaves",
                   U64(timer->leaves), "epoch", U64(timer->epoch));
}

bool esp_cli_json_timers(FILE *out, const struct esp_timers *timers) {
  char lineage[ESP_CLI_TEXT_MAX];
  bool ok = list_begin(out,
                       json_pack("{s:I, s:I, s:s}", "epoch", U64(timers->epoch), "commit", U64(timers->commit),
                                 "lineage", esp_cli_print_id(timers->lineage, lineage)),
                       "timers");
  for (size_t i = 0; ok && i < timers->len; i++)
    ok = list_item(out, i, timer_json(&timers->timers[i]));
  list_end(out, timers->len);
  return ok;
}

bool esp_cli_json_digest(FILE *out, const struct esp_description *description) {
  char text[ESP_CLI_TEXT_MAX];
  json_t *head = description_head(description);
  if (head == NULL ||
      json_object_set_new(head, "digest", json_string(esp_cli_print_digest(description->digest, text))) != 0) {
    json_decref(head);
    return false;
  }
  bool ok = list_begin(out, head, "leaves");
  for (size_t i = 0; ok && i < description->leaves_len; i++) {
    const struct esp_leaf_info *leaf = &description->leaves[i];
    ok = list_item(out, i,
                   json_pack("{s:s, s:s}", "path", leaf->path, "digest", esp_cli_print_digest(leaf->digest, text)));
  }
  list_end(out, description->leaves_len);
  return ok;
}

static json_t *notes_json(const struct esp_apply_result *result) {
  json_t *notes = json_array();
  for (size_t i = 0; notes != NULL && i < result->notes_len; i++) {
    if (json_array_append_new(notes, json_string(result->notes[i])) != 0) {
      json_decref(notes);
      return NULL;
    }
  }
  return notes;
}

static json_t *change_json(const struct esp_apply_change *change) {
  return json_pack("{s:s, s:s, s:s, s:s, s:s}", "path", change->path, "field", change->field, "from", change->from,
                   "to", change->to, "because", change->because);
}

static json_t *changes_json(const struct esp_apply_change *changes, size_t len) {
  json_t *list = json_array();
  for (size_t i = 0; list != NULL && i < len; i++) {
    if (json_array_append_new(list, change_json(&changes[i])) != 0) {
      json_decref(list);
      return NULL;
    }
  }
  return list;
}

static json_t *transaction_json(const struct esp_transaction_info *info) {
  char time[ESP_CLI_TEXT_MAX];
  return json_pack("{s:I, s:I, s:s, s:s, s:s, s:I, s:o}", "epoch", U64(info->epoch), "commit", U64(info->commit),
                   "time", esp_cli_print_time(info->at_ms, time), "actor", info->actor, "reason", info->reason,
                   "changes_total", U64(info->changes_total), "changes",
                   changes_json(info->changes, info->changes_len));
}

bool esp_cli_json_history(FILE *out, const struct esp_history *history) {
  bool ok = list_begin(out, json_pack("{s:I}", "count", U64(history->len)), "transactions");
  for (size_t i = 0; ok && i < history->len; i++)
    ok = list_item(out, i, transaction_json(&history->transactions[i]));
  list_end(out, history->len);
  return ok;
}

/* The list that item makes of [0, len), or null where it is not known. */
static json_t *list_json(bool known, const void *items, size_t len, json_t *(*item)(const void *items, size_t index)) {
  if (!known)
    return json_null();
  json_t *list = json_array();
  for (size_t i = 0; list != NULL && i < len; i++) {
    if (json_array_append_new(list, item(items, i)) != 0) {
      json_decref(list);
      return NULL;
    }
  }
  return list;
}

static json_t *fact_item(const void *items, size_t index) {
  const struct esp_leaf_fact *fact = (const struct esp_leaf_fact *)items + index;
  return json_pack("{s:s, s:s, s:s, s:I}", "what", fact->what, "value", fact->value, "because", fact->because, "epoch",
                   U64(fact->epoch));
}

bool esp_cli_json_explain(FILE *out, const struct esp_explanation *explanation) {
  char lineage[ESP_CLI_TEXT_MAX];
  bool ok = list_begin(out,
                       json_pack("{s:I, s:I, s:s}", "epoch", U64(explanation->epoch), "commit",
                                 U64(explanation->commit), "lineage", esp_cli_print_id(explanation->lineage, lineage)),
                       "leaves");
  for (size_t i = 0; ok && i < explanation->len; i++) {
    const struct esp_leaf_explanation *leaf = &explanation->leaves[i];
    ok = list_item(out, i,
                   json_pack("{s:I, s:s, s:o}", "id", U64(leaf->leaf), "path", leaf->path, "facts",
                             list_json(true, leaf->facts, leaf->facts_len, fact_item)));
  }
  list_end(out, explanation->len);
  return ok;
}

bool esp_cli_json_apply(FILE *out, const struct esp_apply_result *result) {
  bool ok =
      list_begin(out,
                 json_pack("{s:I, s:I, s:I, s:b, s:o}", "epoch", U64(result->epoch), "commit", U64(result->commit),
                           "matched", U64(result->matched), "dry_run", result->dry_run, "notes", notes_json(result)),
                 "changes");
  for (size_t i = 0; ok && i < result->changes_len; i++)
    ok = list_item(out, i, change_json(&result->changes[i]));
  list_end(out, result->changes_len);
  return ok;
}

/* ---- watch and top ---- */

/* A line of its own, for programs that read one at a time. */
static bool json_line(FILE *out, json_t *object) {
  bool ok = object != NULL && json_dumpf(object, out, JSON_COMPACT) == 0;
  json_decref(object);
  fputc('\n', out);
  return ok;
}

bool esp_cli_json_change(FILE *out, const struct esp_cli_change *change) {
  char time[ESP_CLI_TEXT_MAX];
  char lineage[ESP_CLI_TEXT_MAX];
  return json_line(out, json_pack("{s:s, s:I, s:I, s:s, s:I, s:s, s:s}", "time",
                                  esp_cli_print_time(change->wall_ms, time), "epoch", U64(change->epoch), "commit",
                                  U64(change->commit), "lineage", esp_cli_print_id(change->lineage, lineage), "id",
                                  U64(change->leaf), "path", change->path, "what", change->what));
}

static json_t *rates_json(const struct esp_cli_snapshot *snapshot) {
  const struct esp_cli_rates *rates = &snapshot->rates;
  if (!snapshot->has_rates)
    return json_null();
  return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "pushes", rates->pushes, "pulls", rates->pulls, "bytes_pushed",
                   rates->bytes_pushed, "bytes_pulled", rates->bytes_pulled, "refused", rates->refused, "nonfinite",
                   rates->nonfinite);
}

static json_t *worker_item(const void *items, size_t index) {
  return worker_json((const struct esp_worker_info *)items + index);
}

static json_t *group_item(const void *items, size_t index) {
  return group_json((const struct esp_cli_group *)items + index);
}

bool esp_cli_json_snapshot(FILE *out, const struct esp_cli_snapshot *snapshot) {
  char time[ESP_CLI_TEXT_MAX];
  esp_cli_print_time(snapshot->wall_ms, time);
  if (snapshot->st.code != ESP_OK)
    return json_line(out, json_pack("{s:s, s:b, s:I, s:s}", "time", time, "answered", 0, "silent_ms",
                                    U64(snapshot->silent_ms), "error", snapshot->st.message));
  size_t workers_len = snapshot->workers != NULL ? snapshot->workers_list->len : 0;
  json_t *workers = list_json(snapshot->workers != NULL, snapshot->workers, workers_len, worker_item);
  size_t groups_len = snapshot->groups != NULL ? snapshot->description->groups_len : 0;
  json_t *groups = list_json(snapshot->groups != NULL, snapshot->groups, groups_len, group_item);
  return json_line(out, json_pack("{s:s, s:b, s:o, s:o, s:o, s:o}", "time", time, "answered", 1, "status",
                                  status_json(snapshot->server, &snapshot->info), "rates", rates_json(snapshot),
                                  "workers", workers, "groups", groups));
}
