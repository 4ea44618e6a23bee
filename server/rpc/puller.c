/* Makes a pull's messages from pinned tensors, without copying them.
 *
 * Happy path: the header begins the first message; then each leaf's tensor is pinned in turn and cut into chunks. A
 * piece of any size is referred to where it lies, by a slice that holds the pin until gRPC has sent it; a small one is
 * copied, so that many small leaves share a message and a slice. A message of about 1 MiB is written, and the next one
 * made when it was sent. The end is in the last one.
 *
 * How it fails: the engine's callback with a code, or no memory: the puller is done with that code. Slices are
 * destroyed on gRPC's threads, where esp_hold_unref calls nobody. */
#include "rpc/puller.h"

#include "base/alloc.h"
#include "base/handoff.h"
#include "rpc/intake.h"
#include "wire/wire.h"

#define COPIED_BYTES_MAX 4096 /* pieces up to this size are copied: a slice of their own would cost more */

static void fail_memory(struct esp_puller *puller) {
  struct esp_status st;
  (void)esp_why_keep(&puller->why, esp_fail(&st, ESP_RESOURCE_EXHAUSTED, "no memory for a pull's message"), &st);
  puller->is_done = true;
}

/* ---- the message under way ---- */

static bool add_slice(struct esp_puller *puller, grpc_slice slice) {
  if (!esp_grow((void **)&puller->slices, &puller->slices_capacity, puller->slices_len + 1, sizeof(*puller->slices))) {
    grpc_slice_unref(slice);
    return false;
  }
  puller->slices[puller->slices_len++] = slice;
  return true;
}

/* Makes the copied bytes a slice. */
static bool close_page(struct esp_puller *puller) {
  if (puller->page.len == 0)
    return true;
  grpc_slice slice = grpc_slice_from_copied_buffer((const char *)puller->page.bytes, puller->page.len);
  puller->page.len = 0;
  return add_slice(puller, slice);
}

static bool add_bytes(struct esp_puller *puller, const void *bytes, size_t len) {
  puller->message_len += len;
  return esp_page_add_bytes(&puller->page, bytes, len);
}

static bool add_message(struct esp_puller *puller, const ProtobufCMessage *message) {
  size_t before = puller->page.len;
  if (!esp_page_add_head(&puller->page, message))
    return false;
  puller->message_len += puller->page.len - before;
  return true;
}

static void unpin(void *hold) {
  esp_handoff_take();
  esp_hold_unref(hold);
}

/* Adds len bytes of the pinned tensor as they lie. */
static bool add_pinned(struct esp_puller *puller, const char *bytes, size_t len) {
  if (!close_page(puller))
    return false;
  esp_hold_ref(puller->pin.hold);
  esp_handoff_give();
  puller->message_len += len;
  return add_slice(puller, grpc_slice_new_with_user_data((void *)bytes, len, unpin, puller->pin.hold));
}

static void drop_slices(struct esp_puller *puller) {
  for (size_t i = 0; i < puller->slices_len; i++)
    grpc_slice_unref(puller->slices[i]);
  puller->slices_len = 0;
}

/* Writes the message under way. */
static bool write_message(struct esp_puller *puller) {
  if (!close_page(puller))
    return false;
  esp_call_write(puller->call, grpc_raw_byte_buffer_create(puller->slices, puller->slices_len));
  drop_slices(puller);
  puller->message_len = 0;
  puller->leads = false;
  return true;
}

bool esp_puller_lead(struct esp_puller *puller, const ProtobufCMessage *answer) {
  puller->leads = !puller->is_done && add_message(puller, answer);
  return puller->leads;
}

void esp_puller_write_lead(struct esp_puller *puller) {
  if (puller->leads && !write_message(puller))
    fail_memory(puller);
}

/* ---- pins ---- */

static void release_pin(struct esp_puller *puller) {
  if (puller->has_pin)
    esp_hold_unref(puller->pin.hold);
  puller->has_pin = false;
  puller->offset = 0;
}

/* The engine's callback, from any thread: leaves word, and posts the event where the one who asked has gone on. */
static void on_pull(void *data, enum esp_code code, const struct esp_status *st, const struct esp_pull_event *event) {
  struct esp_puller *puller = data;
  (void)esp_why_keep(&puller->why, code, st);
  puller->has_header = code == ESP_OK && event->header != NULL;
  puller->has_pin = code == ESP_OK && event->pin != NULL;
  if (puller->has_header)
    puller->header = *event->header;
  else if (puller->has_pin)
    puller->pin = *event->pin;
  else if (code == ESP_OK)
    puller->unchanged++;
  if (pthread_equal(puller->asker, pthread_self()) && puller->is_asking)
    puller->has_come = true;
  else
    esp_event_post(&puller->got);
}

static bool add_header(struct esp_puller *puller) {
  Espalier__V1__PullHeader header = ESPALIER__V1__PULL_HEADER__INIT;
  header.epoch = puller->header.epoch;
  header.commit = puller->header.commit;
  header.lineage = puller->header.lineage;
  header.leaf_count = puller->header.leaf_count;
  header.total_bytes = puller->header.total_bytes;
  Espalier__V1__PullResponse first = ESPALIER__V1__PULL_RESPONSE__INIT;
  first.header = &header;
  return add_message(puller, &first.base);
}

/* Deals with what came: a failure, the header, a pin or that there is nothing new. */
static bool take_got(struct esp_puller *puller) {
  puller->is_done = puller->why.code != ESP_OK;
  return puller->is_done || !puller->has_header || add_header(puller);
}

static void handle_got(struct esp_event *event) {
  struct esp_puller *puller = (struct esp_puller *)((char *)event - offsetof(struct esp_puller, got));
  if (esp_call_is_over(puller->call))
    release_pin(puller);
  else if (!take_got(puller))
    fail_memory(puller);
  else
    esp_puller_step(puller);
  puller->changed(puller);
}

static bool add_end(struct esp_puller *puller) {
  Espalier__V1__PullEnd end = ESPALIER__V1__PULL_END__INIT;
  Espalier__V1__PullResponse last = ESPALIER__V1__PULL_RESPONSE__INIT;
  end.sent = puller->sent;
  end.unchanged = puller->unchanged;
  last.end = &end;
  return add_message(puller, &last.base);
}

/* Asks for what comes next, or ends. What comes at once, as most does, takes no event: of small tensors that would be a
 * good part of the work. */
static bool ask_next(struct esp_puller *puller) {
  esp_event_arm(&puller->got, puller->call, handle_got);
  puller->asker = pthread_self();
  puller->has_come = false;
  puller->is_asking = true;
  enum esp_pull_answer answer = esp_pull_next(puller->pull);
  puller->is_asking = false;
  if (puller->has_come) {
    esp_event_cancel(&puller->got);
    return take_got(puller);
  }
  switch (answer) {
  case ESP_PULL_ASKED:
    return true;
  case ESP_PULL_WAITS:
    /* The message under way holds tensors: others may wait for those in turn. */
    return puller->message_len == 0 || write_message(puller);
  case ESP_PULL_END:
    break;
  }
  esp_event_cancel(&puller->got);
  if (!add_end(puller) || !write_message(puller))
    return false;
  esp_why_done(&puller->why);
  puller->is_done = true;
  return true;
}

/* Adds as much of the pinned tensor as the message takes. */
static bool add_chunk(struct esp_puller *puller) {
  const struct esp_pin *pin = &puller->pin;
  size_t room = ESP_CHUNK_BYTES_USUAL - puller->message_len;
  size_t left = pin->bytes_len - puller->offset;
  size_t len = left < room ? left : room;
  struct esp_chunk_tensor tensor = {.dtype = pin->dtype,
                                    .has_shape = true,
                                    .shape = pin->shape,
                                    .bytes = pin->bytes_len,
                                    .parameter = pin->param_id,
                                    .version = pin->version,
                                    .view = pin->view};
  uint8_t prefix[ESP_CHUNK_PREFIX_MAX];
  size_t prefix_len = esp_wire_chunk_prefix(prefix, ESP_CHUNKS_FIELD_DOWN, pin->leaf_id, 0, puller->offset,
                                            puller->offset == 0 ? &tensor : NULL, len);
  const char *bytes = (const char *)pin->bytes + puller->offset;
  if (!add_bytes(puller, prefix, prefix_len) ||
      !(len <= COPIED_BYTES_MAX ? add_bytes(puller, bytes, len) : add_pinned(puller, bytes, len)))
    return false;
  puller->offset += len;
  if (puller->offset == pin->bytes_len) {
    puller->sent++;
    release_pin(puller);
  }
  return true;
}

void esp_puller_step(struct esp_puller *puller) {
  while (!puller->is_done && puller->got.call == NULL) {
    if (!puller->has_pin) {
      if (!ask_next(puller))
        fail_memory(puller);
      continue;
    }
    if (!add_chunk(puller)) {
      fail_memory(puller);
      return;
    }
    /* A message that has no room for a chunk worth sending is full. */
    if (puller->message_len + COPIED_BYTES_MAX < ESP_CHUNK_BYTES_USUAL)
      continue;
    if (!write_message(puller))
      fail_memory(puller);
    return;
  }
}

/* ---- begin and end ---- */

static enum esp_code check_request(const Espalier__V1__PullRequest *request, struct esp_status *st) {
  enum esp_code code = esp_tree_check(request->tree, st);
  if (code == ESP_OK && request->n_dtypes > 0 && request->n_dtypes != request->n_leaf_ids)
    code = esp_fail(st, ESP_INVALID_ARGUMENT, "a pull of %zu leaf_ids has %zu dtypes", request->n_leaf_ids,
                    request->n_dtypes);
  return code;
}

/* Makes the engine's form of the leaves' dtypes. What is none stays none. */
static enum esp_code take_dtypes(struct esp_puller *puller, const Espalier__V1__PullRequest *request,
                                 struct esp_status *st) {
  if (request->n_dtypes == 0)
    return ESP_OK;
  puller->dtypes = esp_malloc_array(request->n_dtypes, sizeof(*puller->dtypes));
  if (puller->dtypes == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a pull");
  for (size_t i = 0; i < request->n_dtypes; i++) {
    uint32_t dtype = (uint32_t)request->dtypes[i];
    puller->dtypes[i] = (uint8_t)(dtype < UINT8_MAX ? dtype : UINT8_MAX);
  }
  return ESP_OK;
}

/* Makes the engine's form of what the client has. */
static enum esp_code take_have(struct esp_puller *puller, const Espalier__V1__PullRequest *request,
                               struct esp_status *st) {
  if (request->n_have == 0)
    return ESP_OK;
  puller->have = esp_malloc_array(request->n_have, sizeof(*puller->have));
  if (puller->have == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "no memory for a pull");
  for (size_t i = 0; i < request->n_have; i++) {
    const Espalier__V1__PullRequest__Have *have = request->have[i];
    puller->have[i] = (struct esp_have){.leaf_id = have->leaf_id,
                                        .param_id = have->parameter,
                                        .version = have->version,
                                        .view = have->view == ESPALIER__V1__VIEW__VIEW_TRANSPOSE ? ESP_VIEW_TRANSPOSE
                                                                                                 : ESP_VIEW_IDENTITY,
                                        .dtype = (enum esp_dtype)have->dtype};
  }
  return ESP_OK;
}

void esp_puller_begin(struct esp_puller *puller, struct esp_call *call, struct esp_decoded *decoded,
                      const Espalier__V1__PullRequest *request, void (*changed)(struct esp_puller *puller)) {
  puller->call = call;
  puller->changed = changed;
  puller->request = *decoded;
  *decoded = (struct esp_decoded){0};
  struct esp_status st;
  enum esp_code code = check_request(request, &st);
  if (code == ESP_OK)
    code = take_have(puller, request, &st);
  if (code == ESP_OK)
    code = take_dtypes(puller, request, &st);
  if (code == ESP_OK) {
    struct esp_pull_request wanted = {
        .leaf_ids = request->leaf_ids,
        .leaf_ids_len = request->n_leaf_ids,
        .paths = (const char *const *)request->paths,
        .paths_len = request->n_paths,
        .selection = request->selection,
        .consistent = request->consistent,
        .dtype = (enum esp_dtype)request->dtype,
        .dtypes = puller->dtypes,
        .wait_ms = request->wait_ms,
        .have_lineage = request->have_lineage,
        .have = puller->have,
        .have_len = request->n_have,
    };
    code = esp_pull_new(call->engine, &wanted, on_pull, puller, &puller->pull, &st);
  }
  puller->is_done = esp_why_keep(&puller->why, code, &st) != ESP_OK;
}

void esp_puller_close(struct esp_puller *puller) {
  if (puller->got.call != NULL && esp_pull_cancel(puller->pull))
    esp_event_cancel(&puller->got);
}

void esp_puller_done(struct esp_puller *puller) {
  release_pin(puller);
  esp_pull_free(puller->pull);
  puller->pull = NULL;
  drop_slices(puller);
  esp_free(puller->slices);
  puller->slices = NULL;
  puller->slices_capacity = 0;
  esp_page_done(&puller->page);
  esp_free(puller->have);
  puller->have = NULL;
  esp_free(puller->dtypes);
  puller->dtypes = NULL;
  esp_why_done(&puller->why);
  esp_decoded_done(&puller->request);
}
