/* Describe: the selected leaves and all groups, in pages.
 *
 * Happy path: without digests the layout of now is held and its pages are made one at a time, each when the one before
 * it was sent. With digests the engine's callback brings the layout, the digests and the statistics of one commit,
 * which are kept for the same pages.
 *
 * How it fails: a selection that matches nothing, or no memory: the call's status. */
#include <espalier/v1/admin.pb-c.h>

#include <string.h>

#include "base/alloc.h"
#include "rpc/methods.h"

struct describe_state {
  struct esp_call *call;
  struct esp_event got; /* the engine's callback, for digests */
  enum esp_code code;
  struct esp_status st;
  struct esp_layout *layout; /* ref'd */
  uint64_t commit;
  struct esp_selection sel;     /* owned */
  struct esp_digest *digests;   /* one a selected leaf; NULL without */
  struct esp_param_stat *stats; /* likewise */
  struct esp_digest all;
  size_t next; /* index in sel */
};

/* ---- pages ---- */

static bool add_groups(const struct esp_layout *layout, struct esp_page *page) {
  uint64_t *counts = esp_calloc(layout->groups_len, sizeof(*counts));
  bool ok = counts != NULL;
  for (size_t i = 0; i < layout->params_len && ok; i++)
    counts[layout->params[i].group]++;
  for (size_t i = 0; i < layout->groups_len && ok; i++) {
    Espalier__V1__GroupInfo group = ESPALIER__V1__GROUP_INFO__INIT;
    group.name = (char *)layout->groups[i].name;
    group.expression = (char *)layout->groups[i].expression;
    group.parameters = counts[i];
    ok = esp_page_add(page, 6, &group.base);
  }
  esp_free(counts);
  return ok;
}

static bool add_leaf(struct describe_state *state, size_t index, struct esp_page *page) {
  const struct esp_leaf *leaf = &state->layout->leaves[state->sel.leaves[index]];
  const struct esp_place *place = esp_layout_place(state->layout, leaf);
  const struct esp_leaf *primary = &state->layout->leaves[place->primary];
  const char *group = state->layout->groups[place->group].name;
  struct esp_param_stat stat;
  if (state->stats != NULL)
    stat = state->stats[index];
  else
    esp_place_stat(place, &stat);
  Espalier__V1__LeafInfo info = ESPALIER__V1__LEAF_INFO__INIT;
  info.id = leaf->id;
  info.path = (char *)leaf->path;
  struct esp_shape shape = esp_layout_shape(state->layout, leaf);
  info.n_shape = shape.rank;
  info.shape = shape.dims;
  info.dtype = (Espalier__V1__DType)place->dtype;
  info.kind = (Espalier__V1__Kind)leaf->kind;
  info.view = (Espalier__V1__View)leaf->view;
  info.group = (char *)group;
  if (strcmp(group, place->group_assigned) != 0)
    info.group_assigned = (char *)place->group_assigned;
  info.frozen = place->frozen;
  info.detached = leaf->detached;
  if (primary != leaf)
    info.tied_to = (char *)primary->path;
  info.tag = (char *)leaf->tag;
  info.parameter = place->id;
  info.steps = stat.steps;
  info.version = stat.version;
  info.bytes = stat.bytes;
  info.state_bytes = stat.state_bytes;
  if (state->digests != NULL)
    info.digest = (ProtobufCBinaryData){sizeof(state->digests[index].bytes), state->digests[index].bytes};
  return esp_page_add(page, 5, &info.base);
}

static bool fill_page(struct describe_state *state, struct esp_page *page) {
  Espalier__V1__DescribeResponse head = ESPALIER__V1__DESCRIBE_RESPONSE__INIT;
  head.epoch = state->layout->epoch;
  head.commit = state->commit;
  head.lineage = esp_engine_lineage(state->call->engine);
  head.leaf_count = state->sel.len;
  bool ok = esp_page_add_head(page, &head.base);
  if (ok && state->next == 0)
    ok = add_groups(state->layout, page);
  for (; ok && state->next < state->sel.len && page->len < ESP_PAGE_BYTES_USUAL; state->next++)
    ok = add_leaf(state, state->next, page);
  if (ok && state->next == state->sel.len && state->digests != NULL) {
    Espalier__V1__DescribeResponse last = ESPALIER__V1__DESCRIBE_RESPONSE__INIT;
    last.digest = (ProtobufCBinaryData){sizeof(state->all.bytes), state->all.bytes};
    ok = esp_page_add_head(page, &last.base);
  }
  return ok;
}

/* Writes the next page; the last one ends the call. */
static void write_page(struct esp_call *call) {
  struct describe_state *state = call->state;
  struct esp_page page = {0};
  if (!fill_page(state, &page)) {
    esp_page_done(&page);
    esp_call_fail(call, ESP_RESOURCE_EXHAUSTED, "no memory for a page");
    return;
  }
  esp_call_write(call, esp_page_take(&page));
  if (state->next == state->sel.len)
    esp_call_finish(call, ESP_OK, NULL);
}

/* ---- with digests ---- */

static void *copy(const void *from, size_t count, size_t size) {
  void *to = esp_malloc_array(count, size);
  if (to != NULL && count > 0)
    memcpy(to, from, count * size);
  return to;
}

static bool keep_reply(struct describe_state *state, const struct esp_digest_reply *reply) {
  state->layout = esp_layout_ref(reply->layout);
  state->commit = reply->commit;
  state->all = reply->all;
  state->sel.len = reply->sel.len;
  state->sel.leaves = copy(reply->sel.leaves, reply->sel.len, sizeof(*reply->sel.leaves));
  state->digests = copy(reply->digests, reply->sel.len, sizeof(*reply->digests));
  state->stats = copy(reply->stats, reply->sel.len, sizeof(*reply->stats));
  return state->sel.leaves != NULL && state->digests != NULL && state->stats != NULL;
}

/* The engine's callback, from any thread. */
static void on_digest(void *data, enum esp_code code, const struct esp_status *st,
                      const struct esp_digest_reply *reply) {
  struct describe_state *state = data;
  state->code = code;
  if (code != ESP_OK)
    state->st = *st;
  else if (!keep_reply(state, reply))
    state->code = esp_fail(&state->st, ESP_RESOURCE_EXHAUSTED, "no memory for %zu digests", reply->sel.len);
  esp_event_post(&state->got);
}

static void handle_got(struct esp_event *event) {
  struct describe_state *state = (struct describe_state *)((char *)event - offsetof(struct describe_state, got));
  if (esp_call_is_over(state->call))
    return;
  if (state->code == ESP_OK)
    write_page(state->call);
  else
    esp_call_finish(state->call, state->code, &state->st);
}

/* ---- the request ---- */

static void describe(struct esp_call *call) {
  struct describe_state *state = call->state;
  struct esp_decoded decoded = {0};
  if (!esp_call_decode(call, &espalier__v1__describe_request__descriptor, &decoded))
    return;
  const Espalier__V1__DescribeRequest *request = (const Espalier__V1__DescribeRequest *)decoded.message;
  state->call = call;
  if (request->norms) {
    esp_call_fail(call, ESP_UNIMPLEMENTED, "norms are not built yet");
  } else if (request->digest) {
    esp_event_arm(&state->got, call, handle_got);
    esp_engine_digest(call->engine, request->selection, on_digest, state);
  } else {
    state->layout = esp_engine_layout(call->engine, &state->commit);
    state->code = esp_select(state->layout, request->selection, strlen(request->selection), &state->sel, &state->st);
    if (state->code == ESP_OK)
      write_page(call);
    else
      esp_call_finish(call, state->code, &state->st);
  }
  esp_decoded_done(&decoded);
}

static void release(struct esp_call *call) {
  struct describe_state *state = call->state;
  esp_layout_unref(state->layout);
  esp_selection_done(&state->sel);
  esp_free(state->digests);
  esp_free(state->stats);
}

const struct esp_method esp_method_describe = {
    .path = "/espalier.v1.Admin/Describe",
    .state_size = sizeof(struct describe_state),
    .message = describe,
    .writable = write_page,
    .release = release,
};
