/* Explain: why leaves are as they are, in pages.
 *
 * Happy path: the explanation is taken of one moment, and held; a page is made when the one before it was sent, its
 * leaves' facts one after the other.
 *
 * How it fails: the selection, or no memory: the call's status. */
#include <espalier/v1/admin.pb-c.h>

#include "base/alloc.h"
#include "rpc/methods.h"

/* A leaf has at most a few hundred KiB of facts, where its path is as long as can be and each node of it is tagged. */
#define EXPLAIN_PAGE_BYTES_USUAL (512U << 10)

struct explain_state {
  struct esp_explain *explain;     /* owned, as the layout and the selection are by it */
  const struct esp_layout *layout; /* of that moment */
  uint64_t commit;
  const struct esp_selection *sel;
  size_t next; /* index in sel */
};

static bool pack_facts(const struct esp_leaf *leaf, const struct esp_facts *facts, struct esp_page *page) {
  Espalier__V1__ExplainResponse__Fact *list = esp_malloc_array(facts->len, sizeof(*list));
  Espalier__V1__ExplainResponse__Fact **pointers = esp_malloc_array(facts->len, sizeof(*pointers));
  Espalier__V1__ExplainResponse__Leaf entry = ESPALIER__V1__EXPLAIN_RESPONSE__LEAF__INIT;
  bool ok = list != NULL && pointers != NULL;
  entry.id = leaf->id;
  entry.path = (char *)leaf->path;
  entry.facts = pointers;
  for (; ok && entry.n_facts < facts->len; entry.n_facts++) {
    const struct esp_fact *from = &facts->list[entry.n_facts];
    Espalier__V1__ExplainResponse__Fact *fact = &list[entry.n_facts];
    espalier__v1__explain_response__fact__init(fact);
    fact->what = (char *)from->what;
    fact->value = (char *)from->value;
    fact->because = (char *)from->because;
    fact->epoch = from->epoch;
    pointers[entry.n_facts] = fact;
  }
  ok = ok && esp_page_add(page, 4, &entry.base);
  esp_free(list);
  esp_free(pointers);
  return ok;
}

static bool add_leaf(const struct explain_state *state, struct esp_page *page) {
  struct esp_facts facts;
  const struct esp_leaf *leaf = &state->layout->leaves[state->sel->leaves[state->next]];
  bool ok = esp_explain_leaf(state->explain, state->next, &facts) && pack_facts(leaf, &facts, page);
  esp_facts_done(&facts);
  return ok;
}

/* Writes the next page; the last one ends the call. There is at least one. */
static void write_page(struct esp_call *call) {
  struct explain_state *state = call->state;
  struct esp_page page = {0};
  Espalier__V1__ExplainResponse head = ESPALIER__V1__EXPLAIN_RESPONSE__INIT;
  head.epoch = state->layout->epoch;
  head.commit = state->commit;
  head.lineage = esp_engine_lineage(call->engine);
  bool ok = esp_page_add_head(&page, &head.base);
  for (; ok && state->next < state->sel->len && page.len < EXPLAIN_PAGE_BYTES_USUAL; state->next++)
    ok = add_leaf(state, &page);
  if (!ok) {
    esp_page_done(&page);
    esp_call_fail(call, ESP_RESOURCE_EXHAUSTED, "no memory for a page");
    return;
  }
  esp_call_write(call, esp_page_take(&page));
  if (state->next == state->sel->len)
    esp_call_finish(call, ESP_OK, NULL);
}

static void message(struct esp_call *call) {
  struct explain_state *state = call->state;
  struct esp_decoded decoded = {0};
  struct esp_status st;
  if (!esp_call_decode(call, &espalier__v1__explain_request__descriptor, &decoded))
    return;
  const Espalier__V1__ExplainRequest *request = (const Espalier__V1__ExplainRequest *)decoded.message;
  enum esp_code code = esp_explain_new(call->engine, request->selection, &state->explain, &st);
  esp_decoded_done(&decoded);
  if (code == ESP_OK) {
    state->layout = esp_explain_layout(state->explain, &state->commit, &state->sel);
    write_page(call);
  } else {
    esp_call_finish(call, code, &st);
  }
}

static void release(struct esp_call *call) {
  struct explain_state *state = call->state;
  esp_explain_free(state->explain);
}

const struct esp_method esp_method_explain = {
    .path = "/espalier.v1.Admin/Explain",
    .state_size = sizeof(struct explain_state),
    .message = message,
    .writable = write_page,
    .release = release,
};
