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

bool esp_cli_json_status(FILE *out, const char *server, const struct esp_server_info *info) {
  char lineage[ESP_CLI_TEXT_MAX];
  return esp_cli_json_object(
      out,
      json_pack(
          "{s:s, s:s, s:s, s:s, s:I, s:b, s:I, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:{s:I, s:I, s:I, s:I, s:I}, "
          "s:{s:I, s:I, s:I, s:I}, s:{s:I, s:I}}",
          "server", server, "version", info->version, "mode", info->mode, "isa", info->isa, "uptime_ms",
          U64(info->uptime_ms), "draining", info->draining, "epoch", U64(info->epoch), "commit", U64(info->commit),
          "lineage", esp_cli_print_lineage(info->lineage, lineage), "leaves", U64(info->leaves), "frozen",
          U64(info->frozen), "parameters", U64(info->parameters), "elements", U64(info->elements), "sessions",
          U64(info->sessions), "threads", U64(info->threads), "memory", "parameters", U64(info->memory_parameters),
          "state", U64(info->memory_state), "staged", U64(info->memory_staged), "staged_max",
          U64(info->memory_staged_max), "copy_on_write", U64(info->memory_copy_on_write), "pushes", "applied",
          U64(info->pushes_applied), "refused", U64(info->pushes_refused), "nonfinite", U64(info->pushes_nonfinite),
          "bytes", U64(info->bytes_pushed), "pulls", "served", U64(info->pulls), "bytes", U64(info->bytes_pulled)));
}

static json_t *description_head(const struct esp_description *description) {
  char lineage[ESP_CLI_TEXT_MAX];
  return json_pack("{s:I, s:I, s:s}", "epoch", U64(description->epoch), "commit", U64(description->commit), "lineage",
                   esp_cli_print_lineage(description->lineage, lineage));
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

bool esp_cli_json_apply(FILE *out, const struct esp_apply_result *result) {
  bool ok =
      list_begin(out,
                 json_pack("{s:I, s:I, s:I, s:b, s:o}", "epoch", U64(result->epoch), "commit", U64(result->commit),
                           "matched", U64(result->matched), "dry_run", result->dry_run, "notes", notes_json(result)),
                 "changes");
  for (size_t i = 0; ok && i < result->changes_len; i++) {
    const struct esp_apply_change *change = &result->changes[i];
    ok = list_item(out, i,
                   json_pack("{s:s, s:s, s:s, s:s, s:s}", "path", change->path, "field", change->field, "from",
                             change->from, "to", change->to, "because", change->because));
  }
  list_end(out, result->changes_len);
  return ok;
}
