/* History: the last transactions with their diffs, in pages.
 *
 * Happy path: the records are taken at once, and held; a page is made when the one before it was sent. A transaction
 * whose diff is longer than a page goes on in the next one, under the same epoch.
 *
 * How it fails: no memory: the call's status. */
#include <espalier/v1/admin.pb-c.h>

#include <string.h>

#include "base/alloc.h"
#include "rpc/convert.h"
#include "rpc/methods.h"

struct history_state {
  struct esp_record **records; /* owned, each ref'd */
  size_t len;
  size_t next;        /* index of the record to tell of */
  size_t next_change; /* in it */
};

#define CHANGES_AT_ONCE 256
#define BYTES_AT_ONCE (16U << 10) /* a change more, of long paths, still fits the page */

/* A record, or as much of its diff as is packed at once. */
static bool add_record(struct history_state *state, struct esp_page *page) {
  const struct esp_record *record = state->records[state->next];
  Espalier__V1__HistoryResponse__Transaction entry = ESPALIER__V1__HISTORY_RESPONSE__TRANSACTION__INIT;
  Espalier__V1__Change changes[CHANGES_AT_ONCE], *list[CHANGES_AT_ONCE];
  entry.epoch = record->epoch;
  entry.commit = record->commit;
  entry.actor = record->actor;
  entry.at_ms = record->at_ms;
  entry.reason = record->reason;
  entry.changes_total = record->changes_len;
  entry.changes = list;
  size_t bytes = 0;
  while (entry.n_changes < CHANGES_AT_ONCE && bytes < BYTES_AT_ONCE && state->next_change < record->diff.len) {
    const struct esp_change *change = &record->diff.changes[state->next_change++];
    changes[entry.n_changes] = esp_convert_change(change);
    list[entry.n_changes] = &changes[entry.n_changes];
    entry.n_changes++;
    bytes += strlen(change->path) + strlen(change->from) + strlen(change->to) + strlen(change->because);
  }
  if (state->next_change == record->diff.len) {
    state->next++;
    state->next_change = 0;
  }
  return esp_page_add(page, 1, &entry.base);
}

/* Writes the next page; the last one ends the call. The first is written even if it is empty. */
static void write_page(struct esp_call *call) {
  struct history_state *state = call->state;
  struct esp_page page = {0};
  bool ok = true;
  while (ok && state->next < state->len && page.len < ESP_PAGE_BYTES_USUAL)
    ok = add_record(state, &page);
  if (!ok) {
    esp_page_done(&page);
    esp_call_fail(call, ESP_RESOURCE_EXHAUSTED, "no memory for a page");
    return;
  }
  esp_call_write(call, esp_page_take(&page));
  if (state->next == state->len)
    esp_call_finish(call, ESP_OK, NULL);
}

static void message(struct esp_call *call) {
  struct history_state *state = call->state;
  struct esp_decoded decoded = {0};
  struct esp_status st;
  if (!esp_call_decode(call, &espalier__v1__history_request__descriptor, &decoded))
    return;
  const Espalier__V1__HistoryRequest *request = (const Espalier__V1__HistoryRequest *)decoded.message;
  enum esp_code code =
      esp_engine_history(call->engine, request->since_epoch, request->limit, &state->records, &state->len, &st);
  esp_decoded_done(&decoded);
  if (code == ESP_OK)
    write_page(call);
  else
    esp_call_finish(call, code, &st);
}

static void release(struct esp_call *call) {
  struct history_state *state = call->state;
  for (size_t i = 0; i < state->len; i++)
    esp_record_unref(state->records[i]);
  esp_free(state->records);
}

const struct esp_method esp_method_history = {
    .path = "/espalier.v1.Admin/History",
    .state_size = sizeof(struct history_state),
    .message = message,
    .writable = write_page,
    .release = release,
};
