/* Watch: which leaves changed since an epoch, and, where the client follows, later changes as they happen.
 *
 *     request --> tells of the layout of now, page by page --> ends (not followed)
 *                     ^                                 \
 *                     +---- the layout changed ---- waits (followed)
 *
 * What is told is the difference between what the client knows, an epoch, and the layout of now. So nothing is queued:
 * a client that is slow gets many changes as one, and the last state at any rate.
 *
 * How it fails: no memory for a page: the call's status. At the shutdown a client that follows is sent away. */
#include <espalier/v1/parameter_server.pb-c.h>

#include "rpc/methods.h"

struct watch_state {
  struct esp_call *call;
  bool is_begun;             /* the request has come */
  bool is_following;         /* and wants to hear of more: watch is initialised */
  struct esp_watch watch;    /* tells of a change, once changed is armed */
  struct esp_event changed;  /* the engine's callback */
  struct esp_layout *layout; /* that is being told of, ref'd; NULL where all of it was */
  uint64_t commit;           /* when it was taken */
  uint64_t since_epoch;      /* what the client knows before it has heard all of layout */
  size_t next;               /* index of the leaf to look at */
};

/* ---- pages ---- */

static bool add_leaf(const struct watch_state *state, const struct esp_leaf *leaf, struct esp_page *page) {
  Espalier__V1__LayoutEvent__Leaf entry = ESPALIER__V1__LAYOUT_EVENT__LEAF__INIT;
  entry.id = leaf->id;
  entry.frozen = esp_layout_place(state->layout, leaf)->frozen;
  entry.detached = leaf->detached;
  if (leaf->path_epoch > state->since_epoch)
    entry.path = (char *)leaf->path;
  return esp_page_add(page, 4, &entry.base);
}

static bool add_gone(const struct esp_leaf_gone *gone, struct esp_page *page) {
  Espalier__V1__LayoutEvent__Leaf entry = ESPALIER__V1__LAYOUT_EVENT__LEAF__INIT;
  entry.id = gone->id;
  entry.removed = true;
  return esp_page_add(page, 4, &entry.base);
}

/* Leaves, and behind them those that were removed. */
static size_t entries_len(const struct esp_layout *layout) {
  return layout->leaves_len + layout->gone_len;
}

/* A client that knows nothing has nothing to forget. */
static bool add_entry(const struct watch_state *state, size_t index, struct esp_page *page) {
  const struct esp_layout *layout = state->layout;
  if (index < layout->leaves_len) {
    const struct esp_leaf *leaf = &layout->leaves[index];
    return leaf->changed_epoch <= state->since_epoch || add_leaf(state, leaf, page);
  }
  const struct esp_leaf_gone *gone = &layout->gone[index - layout->leaves_len];
  return state->since_epoch == 0 || gone->epoch <= state->since_epoch || add_gone(gone, page);
}

static bool fill_page(struct watch_state *state, uint64_t lineage, struct esp_page *page) {
  const struct esp_layout *layout = state->layout;
  bool ok = true;
  for (; ok && state->next < entries_len(layout) && page->len < ESP_PAGE_BYTES_USUAL; state->next++)
    ok = add_entry(state, state->next, page);
  /* Before the last page the client is not at the new epoch: if it breaks off here, it is to ask from where it was. */
  bool is_last = state->next == entries_len(layout);
  Espalier__V1__LayoutEvent head = ESPALIER__V1__LAYOUT_EVENT__INIT;
  head.epoch = is_last ? layout->epoch : state->since_epoch;
  head.commit = state->commit;
  head.lineage = lineage;
  return ok && esp_page_add_head(page, &head.base);
}

static void end_layout(struct watch_state *state) {
  state->since_epoch = state->layout->epoch;
  esp_layout_unref(state->layout);
  state->layout = NULL;
}

static void write_page(struct esp_call *call) {
  struct watch_state *state = call->state;
  struct esp_page page = {0};
  if (!fill_page(state, esp_engine_lineage(call->engine), &page)) {
    esp_page_done(&page);
    esp_call_fail(call, ESP_RESOURCE_EXHAUSTED, "no memory for a page");
    return;
  }
  esp_call_write(call, esp_page_take(&page));
  if (state->next < entries_len(state->layout))
    return;
  end_layout(state);
  if (!state->is_following)
    esp_call_finish(call, ESP_OK, NULL);
}

static void tell(struct esp_call *call) {
  struct watch_state *state = call->state;
  state->layout = esp_engine_layout(call->engine, &state->commit);
  state->next = 0;
  write_page(call);
}

/* ---- following ---- */

/* The engine's callback, from any thread. */
static void on_change(void *data) {
  struct watch_state *state = data;
  esp_event_post(&state->changed);
}

static void handle_change(struct esp_event *event) {
  struct watch_state *state = (struct watch_state *)((char *)event - offsetof(struct watch_state, changed));
  struct esp_call *call = state->call;
  if (!esp_call_is_over(call))
    tell(call);
}

static void writable(struct esp_call *call) {
  struct watch_state *state = call->state;
  if (state->layout != NULL) {
    write_page(call);
    return;
  }
  esp_event_arm(&state->changed, call, handle_change);
  esp_watch_wait(&state->watch, state->since_epoch);
}

/* ---- the call ---- */

static void message(struct esp_call *call) {
  struct watch_state *state = call->state;
  struct esp_decoded decoded = {0};
  if (!esp_call_decode(call, &espalier__v1__watch_request__descriptor, &decoded))
    return;
  const Espalier__V1__WatchRequest *request = (const Espalier__V1__WatchRequest *)decoded.message;
  state->call = call;
  state->is_begun = true;
  state->since_epoch = request->since_epoch;
  state->is_following = request->follow;
  esp_decoded_done(&decoded);
  if (state->is_following)
    esp_watch_init(&state->watch, call->engine, on_change, state);
  tell(call);
}

/* One that does not follow is nearly over, and ends by itself. */
static void drain(struct esp_call *call) {
  const struct watch_state *state = call->state;
  if (!state->is_begun || state->is_following)
    esp_call_fail(call, ESP_UNAVAILABLE, ESP_SHUTDOWN_TEXT);
}

static void closed(struct esp_call *call) {
  struct watch_state *state = call->state;
  if (esp_watch_cancel(&state->watch))
    esp_event_cancel(&state->changed);
}

static void release(struct esp_call *call) {
  struct watch_state *state = call->state;
  esp_watch_done(&state->watch);
  esp_layout_unref(state->layout);
}

const struct esp_method esp_method_watch = {
    .path = "/espalier.v1.ParameterServer/Watch",
    .state_size = sizeof(struct watch_state),
    .message = message,
    .writable = writable,
    .drain = drain,
    .closed = closed,
    .release = release,
};
