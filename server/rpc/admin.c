/* Apply and ServerInfo.
 *
 * Apply's happy path: the operations are handed to the engine as one transaction; its callback, which may come from any
 * thread, encodes the diff into pages while it is there to be read, and the call's handler sends them.
 *
 * How it fails: an operation that is not built is refused by its name before the engine hears of any. */
#include <espalier/v1/admin.pb-c.h>

#include "base/alloc.h"
#include "rpc/methods.h"

/* ---- Apply ---- */

struct apply_state {
  struct esp_call *call;
  struct esp_event done; /* the engine's callback */
  enum esp_code code;
  struct esp_status st;
  struct esp_page *pages; /* encoded */
  size_t pages_len;
  size_t pages_capacity;
};

static enum esp_code refuse(const char *what, struct esp_status *st) {
  return esp_fail(st, ESP_UNIMPLEMENTED, "%s is not built yet", what);
}

static enum esp_code convert_freeze(const Espalier__V1__Operation__Freeze *freeze, struct esp_operation *ret,
                                    struct esp_status *st) {
  if (freeze->for_ms != 0)
    return refuse("a freeze that ends after a time (for_ms)", st);
  if (freeze->until_commit != 0)
    return refuse("a freeze that ends at a commit (until_commit)", st);
  if (freeze->at_commit != 0)
    return refuse("a freeze that begins later (at_commit)", st);
  *ret = (struct esp_operation){.kind = ESP_OPERATION_FREEZE, .selection = freeze->selection};
  return ESP_OK;
}

static enum esp_code convert_thaw(const Espalier__V1__Operation__Thaw *thaw, struct esp_operation *ret,
                                  struct esp_status *st) {
  if (thaw->at_commit != 0)
    return refuse("a thaw that begins later (at_commit)", st);
  if (thaw->one_by_one || thaw->every_commits != 0)
    return refuse("a gradual thaw (one_by_one)", st);
  *ret = (struct esp_operation){
      .kind = ESP_OPERATION_THAW, .selection = thaw->selection, .reset_state = thaw->reset_state};
  return ESP_OK;
}

static enum esp_code convert(const Espalier__V1__Operation *operation, struct esp_operation *ret,
                             struct esp_status *st) {
  switch (operation->operation_case) {
  case ESPALIER__V1__OPERATION__OPERATION__NOT_SET:
    return esp_fail(st, ESP_INVALID_ARGUMENT, "an operation is empty, or of a kind that this server does not know");
  case ESPALIER__V1__OPERATION__OPERATION_FREEZE:
    return convert_freeze(operation->freeze, ret, st);
  case ESPALIER__V1__OPERATION__OPERATION_THAW:
    return convert_thaw(operation->thaw, ret, st);
  case ESPALIER__V1__OPERATION__OPERATION_SET:
    *ret = (struct esp_operation){.kind = ESP_OPERATION_SET,
                                  .selection = operation->set->selection,
                                  .reset_state = operation->set->reset_state,
                                  .stage = operation->set->stage};
    return ESP_OK;
  default:
    break;
  }
  const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(&espalier__v1__operation__descriptor,
                                                                                  (unsigned)operation->operation_case);
  return esp_fail(st, ESP_UNIMPLEMENTED, "the operation %s is not built yet", field->name);
}

/* The engine's reply becomes pages. */
static bool add_page(struct apply_state *state, const struct esp_apply_reply *reply) {
  if (!esp_grow((void **)&state->pages, &state->pages_capacity, state->pages_len + 1, sizeof(*state->pages)))
    return false;
  Espalier__V1__ApplyResponse head = ESPALIER__V1__APPLY_RESPONSE__INIT;
  head.epoch = reply->epoch;
  head.commit = reply->commit;
  head.lineage = reply->lineage;
  head.dry_run = reply->dry_run;
  head.matched = reply->matched;
  state->pages[state->pages_len] = (struct esp_page){0};
  return esp_page_add_head(&state->pages[state->pages_len++], &head.base);
}

static bool add_change(struct esp_page *page, const struct esp_change *change) {
  Espalier__V1__Change entry = ESPALIER__V1__CHANGE__INIT;
  entry.path = (char *)change->path;
  entry.leaf_id = change->leaf_id;
  entry.field = (char *)change->field;
  entry.from = (char *)change->from;
  entry.to = (char *)change->to;
  entry.because = (char *)change->because;
  return esp_page_add(page, 4, &entry.base);
}

static bool encode_reply(struct apply_state *state, const struct esp_apply_reply *reply) {
  bool ok = add_page(state, reply);
  for (size_t i = 0; i < reply->notes_len && ok; i++)
    ok = esp_page_add_text(&state->pages[0], 5, reply->notes[i]);
  for (size_t i = 0; i < reply->diff.len && ok; i++) {
    if (state->pages[state->pages_len - 1].len >= ESP_PAGE_BYTES_USUAL)
      ok = add_page(state, reply);
    if (ok)
      ok = add_change(&state->pages[state->pages_len - 1], &reply->diff.changes[i]);
  }
  return ok;
}

/* The engine's callback, from any thread. */
static void on_apply(void *data, enum esp_code code, const struct esp_status *st, const struct esp_apply_reply *reply) {
  struct apply_state *state = data;
  state->code = code;
  if (code != ESP_OK)
    state->st = *st;
  else if (!encode_reply(state, reply))
    state->code = esp_fail(&state->st, ESP_RESOURCE_EXHAUSTED,
                           "the operations were applied, at epoch %llu, but there is no memory for the diff",
                           (unsigned long long)reply->epoch);
  esp_event_post(&state->done);
}

static void handle_done(struct esp_event *event) {
  struct apply_state *state = (struct apply_state *)((char *)event - offsetof(struct apply_state, done));
  for (size_t i = 0; i < state->pages_len && state->code == ESP_OK; i++)
    esp_call_write(state->call, esp_page_take(&state->pages[i]));
  esp_call_finish(state->call, state->code, &state->st);
}

static void start_apply(struct esp_call *call, const Espalier__V1__ApplyRequest *request,
                        struct esp_operation *operations) {
  struct apply_state *state = call->state;
  struct esp_status st;
  enum esp_code code = ESP_OK;
  for (size_t i = 0; i < request->n_operations && code == ESP_OK; i++)
    code = convert(request->operations[i], &operations[i], &st);
  if (code != ESP_OK) {
    esp_call_finish(call, code, &st);
    return;
  }
  struct esp_apply_request wanted = {
      .operations = operations,
      .operations_len = request->n_operations,
      .if_epoch = request->if_epoch,
      .dry_run = request->dry_run,
      .idempotency_key = request->idempotency_key,
      .max_leaves = request->max_leaves,
  };
  state->call = call;
  esp_event_arm(&state->done, call, handle_done);
  esp_engine_apply(call->engine, &wanted, on_apply, state);
}

static void apply(struct esp_call *call) {
  struct esp_decoded decoded = {0};
  if (!esp_call_decode(call, &espalier__v1__apply_request__descriptor, &decoded))
    return;
  const Espalier__V1__ApplyRequest *request = (const Espalier__V1__ApplyRequest *)decoded.message;
  struct esp_operation *operations = esp_malloc_array(request->n_operations, sizeof(*operations));
  if (request->n_operations == 0)
    esp_call_fail(call, ESP_INVALID_ARGUMENT, "there are no operations to apply");
  else if (operations == NULL)
    esp_call_fail(call, ESP_RESOURCE_EXHAUSTED, "no memory for %zu operations", request->n_operations);
  else
    start_apply(call, request, operations);
  esp_free(operations);
  esp_decoded_done(&decoded);
}

static void apply_release(struct esp_call *call) {
  struct apply_state *state = call->state;
  for (size_t i = 0; i < state->pages_len; i++)
    esp_page_done(&state->pages[i]);
  esp_free(state->pages);
}

/* ---- ServerInfo ---- */

static void write_info(struct esp_call *call, const struct esp_engine_info *info) {
  Espalier__V1__MemoryInfo memory = ESPALIER__V1__MEMORY_INFO__INIT;
  memory.parameters = info->memory_params;
  memory.state = info->memory_state;
  memory.staged = info->memory_staged;
  memory.staged_max = info->memory_staged_max;
  memory.copy_on_write = info->memory_copy_on_write;
  Espalier__V1__ServerInfoReply reply = ESPALIER__V1__SERVER_INFO_REPLY__INIT;
  reply.version = (char *)ESPALIER_VERSION;
  reply.lineage = info->lineage;
  reply.epoch = info->epoch;
  reply.commit = info->commit;
  reply.uptime_ms = info->uptime_ms;
  reply.mode = (char *)"async";
  reply.leaves = info->leaves;
  reply.parameters = info->params;
  reply.elements = info->elements;
  reply.frozen = info->frozen;
  reply.sessions = info->sessions_live;
  reply.memory = &memory;
  reply.isa = (char *)esp_isa_name(info->isa);
  reply.threads = info->threads;
  reply.pushes_applied = info->pushes_applied;
  reply.pushes_refused = info->pushes_refused;
  reply.pushes_nonfinite = info->pushes_nonfinite;
  reply.pulls = info->pulls;
  reply.draining = info->draining;
  reply.bytes_pushed = info->bytes_pushed;
  reply.bytes_pulled = info->bytes_pulled;
  esp_call_write_message(call, &reply.base);
  esp_call_finish(call, ESP_OK, NULL);
}

static void server_info(struct esp_call *call) {
  struct esp_decoded decoded = {0};
  if (!esp_call_decode(call, &espalier__v1__server_info_request__descriptor, &decoded))
    return;
  struct esp_engine_info info;
  esp_engine_info(call->engine, &info);
  write_info(call, &info);
  esp_decoded_done(&decoded);
}

const struct esp_method esp_method_apply = {
    .path = "/espalier.v1.Admin/Apply",
    .state_size = sizeof(struct apply_state),
    .message = apply,
    .release = apply_release,
};

const struct esp_method esp_method_server_info = {.path = "/espalier.v1.Admin/ServerInfo", .message = server_info};
