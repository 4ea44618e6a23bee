/* Apply and ServerInfo.
 *
 * Apply's happy path: the operations are handed to the engine as one transaction; its callback, which may come from any
 * thread, encodes the diff into pages while it is there to be read, and the call's handler sends them.
 *
 * How it fails: what can't be handed over (convert.h) is refused before the engine hears of any operation; the rest is
 * the engine's to refuse. */
#include <espalier/v1/admin.pb-c.h>

#include <stdio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "rpc/convert.h"
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
  Espalier__V1__Change entry = esp_convert_change(change);
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
    state->code = esp_fail(&state->st, ESP_UNAVAILABLE, ESP_REPLY_LOST_TEXT);
  esp_event_post(&state->done);
}

static void handle_done(struct esp_event *event) {
  struct apply_state *state = (struct apply_state *)((char *)event - offsetof(struct apply_state, done));
  for (size_t i = 0; i < state->pages_len && state->code == ESP_OK; i++)
    esp_call_write(state->call, esp_page_take(&state->pages[i]));
  esp_call_finish(state->call, state->code, &state->st);
}

static void start_apply(struct esp_call *call, const Espalier__V1__ApplyRequest *request,
                        const struct esp_converted *converted) {
  struct apply_state *state = call->state;
  char peer[ESP_PEER_BYTES_MAX + 1];
  esp_call_peer(call, peer, sizeof(peer));
  struct esp_apply_request wanted = {
      .operations = converted->operations,
      .operations_len = converted->len,
      .if_epoch = request->if_epoch,
      .dry_run = request->dry_run,
      .idempotency_key = request->idempotency_key,
      .max_leaves = request->max_leaves,
      .actor = peer,
      .reason = request->reason,
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
  struct esp_converted converted = {0};
  struct esp_status st;
  enum esp_code code = ESP_OK;
  if (request->n_operations == 0)
    code = esp_fail(&st, ESP_INVALID_ARGUMENT, "there are no operations to apply");
  if (code == ESP_OK)
    code = esp_convert_operations(request->operations, request->n_operations, &converted, &st);
  if (code == ESP_OK)
    start_apply(call, request, &converted);
  else
    esp_call_finish(call, code, &st);
  esp_converted_done(&converted);
  esp_decoded_done(&decoded);
}

static void apply_release(struct esp_call *call) {
  struct apply_state *state = call->state;
  for (size_t i = 0; i < state->pages_len; i++)
    esp_page_done(&state->pages[i]);
  esp_free(state->pages);
}

/* ---- ServerInfo ---- */

/* What the machine counts for this process, or 0 where it does not say. */
static uint64_t resident_bytes(void) {
  unsigned long long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  if (file == NULL)
    return 0;
  if (fscanf(file, "%*s %llu", &pages) != 1)
    pages = 0;
  (void)fclose(file);
  return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void write_info(struct esp_call *call, const struct esp_engine_info *info) {
  struct esp_rpc_stat stat;
  struct esp_status plan = {0};
  esp_rpc_server_stat(call->server, &stat);
  Espalier__V1__MemoryInfo memory = ESPALIER__V1__MEMORY_INFO__INIT;
  memory.parameters = info->memory_params;
  memory.state = info->memory_state;
  memory.staged = info->memory_staged;
  memory.staged_max = info->memory_staged_max;
  memory.copy_on_write = info->memory_copy_on_write;
  memory.copy_on_write_max = info->memory_copy_on_write_max;
  memory.spare = info->memory_spare;
  memory.resident = resident_bytes();
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
  reply.pulls_active = info->pulls_active;
  reply.draining = info->draining;
  reply.watches = info->watches;
  reply.bytes_pushed = info->bytes_pushed;
  reply.bytes_pulled = info->bytes_pulled;
  reply.connections = stat.connections;
  reply.connections_max = stat.connections_max;
  reply.connections_refused = stat.connections_refused;
  reply.streams = stat.streams;
  reply.in_flight = info->pushes_in_flight;
  reply.in_flight_max = info->pushes_in_flight_max;
  if (esp_engine_plan_waits(call->engine, &plan))
    reply.plan_waits = plan.message;
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
    .answers_always = true,
    .message = apply,
    .release = apply_release,
};

const struct esp_method esp_method_server_info = {
    .path = "/espalier.v1.Admin/ServerInfo",
    .answers_always = true,
    .message = server_info,
};
