/* Timers: what waits to freeze or thaw something, in pages.
 *
 * Happy path: the layout of now is held, the leaves of each timer are counted at once, and pushes and clock are read
 * once, right after; a page is made when the one before it was sent.
 *
 * How it fails: no memory: the call's status. */
#include <espalier/v1/admin.pb-c.h>

#include "base/alloc.h"
#include "rpc/methods.h"

struct timers_state {
  struct esp_layout *layout;   /* ref'd */
  uint64_t commit;             /* of the layout */
  struct esp_engine_info info; /* its count of pushes and its clock */
  uint64_t *leaves;            /* owned; of each timer of the layout */
  size_t next;                 /* index of the timer to tell of */
};

/* The leaves whose parameter has it. */
static bool count_leaves(struct timers_state *state) {
  const struct esp_layout *layout = state->layout;
  state->leaves = esp_calloc(layout->timers_len + 1, sizeof(*state->leaves));
  if (state->leaves == NULL)
    return false;
  for (size_t i = 0; i < layout->params_len && layout->timers_len > 0; i++) {
    const struct esp_timer *timer = esp_layout_timer(layout, layout->params[i].timer);
    if (timer != NULL)
      state->leaves[timer - layout->timers] += layout->params[i].leaves_len;
  }
  return true;
}

static uint64_t left_of(const struct esp_timer *timer, const struct timers_state *state) {
  uint64_t now = timer->due == ESP_TIMER_COMMIT   ? state->commit
                 : timer->due == ESP_TIMER_PUSHES ? state->info.push_commits
                                                  : state->info.wall_ms;
  return timer->at > now ? timer->at - now : 0;
}

static bool add_timer(const struct timers_state *state, struct esp_page *page) {
  const struct esp_timer *timer = &state->layout->timers[state->next];
  Espalier__V1__TimersResponse__Timer entry = ESPALIER__V1__TIMERS_RESPONSE__TIMER__INIT;
  entry.id = timer->id;
  entry.due = (Espalier__V1__TimersResponse__Timer__Due)timer->due;
  entry.at = timer->at;
  entry.left = left_of(timer, state);
  entry.freezes = timer->frozen;
  entry.reset_state = timer->reset_state;
  entry.until_commit = timer->until_commit;
  entry.for_ms = timer->for_ms;
  entry.selection = (char *)timer->selection;
  entry.leaves = state->leaves[state->next];
  entry.epoch = timer->epoch;
  return esp_page_add(page, 4, &entry.base);
}

/* Writes the next page; the last one ends the call. There is at least one. */
static void write_page(struct esp_call *call) {
  struct timers_state *state = call->state;
  struct esp_page page = {0};
  Espalier__V1__TimersResponse head = ESPALIER__V1__TIMERS_RESPONSE__INIT;
  head.epoch = state->layout->epoch;
  head.commit = state->commit;
  head.lineage = esp_engine_lineage(call->engine);
  bool ok = esp_page_add_head(&page, &head.base);
  for (; ok && state->next < state->layout->timers_len && page.len < ESP_PAGE_BYTES_USUAL; state->next++)
    ok = add_timer(state, &page);
  if (!ok) {
    esp_page_done(&page);
    esp_call_fail(call, ESP_RESOURCE_EXHAUSTED, "no memory for a page");
    return;
  }
  esp_call_write(call, esp_page_take(&page));
  if (state->next == state->layout->timers_len)
    esp_call_finish(call, ESP_OK, NULL);
}

static void message(struct esp_call *call) {
  struct timers_state *state = call->state;
  struct esp_decoded decoded = {0};
  if (!esp_call_decode(call, &espalier__v1__timers_request__descriptor, &decoded))
    return;
  esp_decoded_done(&decoded);
  state->layout = esp_engine_layout(call->engine, &state->commit);
  esp_engine_info(call->engine, &state->info);
  if (count_leaves(state))
    write_page(call);
  else
    esp_call_fail(call, ESP_RESOURCE_EXHAUSTED, "no memory for %zu timers", state->layout->timers_len);
}

static void release(struct esp_call *call) {
  struct timers_state *state = call->state;
  esp_layout_unref(state->layout);
  esp_free(state->leaves);
}

const struct esp_method esp_method_timers = {
    .path = "/espalier.v1.Admin/Timers",
    .state_size = sizeof(struct timers_state),
    .message = message,
    .writable = write_page,
    .release = release,
};
