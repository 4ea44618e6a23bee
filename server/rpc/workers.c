/* Workers: every session, in pages.
 *
 * Happy path: the ids of all sessions are taken at once, then they are looked up a few at a time, so that pushes, which
 * need the same lock, never wait for long; a page is made when the one before it was sent. Sessions that go meanwhile
 * are left out.
 *
 * How it fails: no memory: the call's status. */
#include <espalier/v1/admin.pb-c.h>

#include "base/alloc.h"
#include "rpc/methods.h"

#define LOOKED_UP_AT_ONCE 32

struct workers_state {
  uint64_t *ids; /* owned */
  size_t len;
  size_t next; /* index of the session to look up */
};

static bool add_worker(const struct esp_worker *worker, struct esp_page *page) {
  Espalier__V1__WorkersResponse__Worker entry = ESPALIER__V1__WORKERS_RESPONSE__WORKER__INIT;
  entry.session = worker->session;
  entry.name = (char *)worker->name;
  entry.peer = (char *)worker->peer;
  entry.live = worker->live;
  entry.last_sequence = worker->last_sequence;
  entry.in_flight = worker->in_flight;
  entry.pushes = worker->pushes;
  entry.last_seen_ms = worker->seen_ms;
  entry.staleness = worker->staleness;
  return esp_page_add(page, 1, &entry.base);
}

static bool fill_page(struct esp_engine *engine, struct workers_state *state, struct esp_page *page) {
  struct esp_worker workers[LOOKED_UP_AT_ONCE];
  bool ok = true;
  while (ok && state->next < state->len && page->len < ESP_PAGE_BYTES_USUAL) {
    size_t left = state->len - state->next;
    size_t asked = left < LOOKED_UP_AT_ONCE ? left : LOOKED_UP_AT_ONCE;
    size_t found = esp_sessions_describe(engine, &state->ids[state->next], asked, workers);
    for (size_t i = 0; i < found && ok; i++)
      ok = add_worker(&workers[i], page);
    state->next += asked;
  }
  return ok;
}

/* Writes the next page; the last one ends the call. The first is written even if it is empty. */
static void write_page(struct esp_call *call) {
  struct workers_state *state = call->state;
  struct esp_page page = {0};
  if (!fill_page(call->engine, state, &page)) {
    esp_page_done(&page);
    esp_call_fail(call, ESP_RESOURCE_EXHAUSTED, "no memory for a page");
    return;
  }
  esp_call_write(call, esp_page_take(&page));
  if (state->next == state->len)
    esp_call_finish(call, ESP_OK, NULL);
}

static void message(struct esp_call *call) {
  struct workers_state *state = call->state;
  struct esp_decoded decoded = {0};
  struct esp_status st;
  if (!esp_call_decode(call, &espalier__v1__workers_request__descriptor, &decoded))
    return;
  esp_decoded_done(&decoded);
  enum esp_code code = esp_sessions_list(call->engine, &state->ids, &state->len, &st);
  if (code == ESP_OK)
    write_page(call);
  else
    esp_call_finish(call, code, &st);
}

static void release(struct esp_call *call) {
  esp_free(((struct workers_state *)call->state)->ids);
}

const struct esp_method esp_method_workers = {
    .path = "/espalier.v1.Admin/Workers",
    .state_size = sizeof(struct workers_state),
    .message = message,
    .writable = write_page,
    .release = release,
};
