/* Makes a pull's messages from pinned tensors, without copying them.
 *
 * Happy path: the header begins the first message; then each leaf's tensor is pinned in turn and cut into chunks. A
 * piece of any size is referred to where it lies, by a slice that holds the pin until gRPC has sent it; a small one is
 * copied, so that many small leaves share a message and a slice. A message of about 1 MiB is written, and the next one
 * made when it was sent. The end is in the last one.
 *
 * How it fails: the engine's callback with a code, or no memory: the puller is done with that code. Slices are
 * destroyed on gRPC's threads, where esp_pin_unref takes no lock. */
#include "rpc/puller.h"

#include "base/alloc.h"
#include "base/handoff.h"
#include "rpc/intake.h"
#include "wire/wire.h"

#define COPIED_BYTES_MAX 4096 /* pieces up to this size are copied: a slice of their own would cost more */

static void fail_memory(struct esp_puller *puller) {
  puller->code = esp_fail(&puller->st, ESP_RESOURCE_EXHAUSTED, "no memory for a pull's message");
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

static void unpin(void *buffer) {
  esp_handoff_take();
  esp_pin_unref(buffer);
}

/* Adds len bytes of the pinned tensor as they lie. */
static bool add_pinned(struct esp_puller *puller, const char *bytes, size_t len) {
  if (!close_page(puller))
    return false;
  esp_pin_ref(puller->pin.buffer);
  esp_handoff_give();
  puller->message_len += len;
  return add_slice(puller, grpc_slice_new_with_user_data((void *)bytes, len, unpin, puller->pin.buffer));
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
  return true;
}

/* ---- pins ---- */

static void release_pin(struct esp_puller *puller) {
  if (puller->has_pin)
    esp_pin_unref(puller->pin.buffer);
  puller->has_pin = false;
  puller->offset = 0;
}

/* The engine's callback, from any thread: leaves word and posts the event. */
static void on_pin(void *data, enum esp_code code, const struct esp_status *st, const struct esp_pin *pin) {
  struct esp_puller *puller = data;
  puller->code = code;
  if (code == ESP_OK) {
    puller->pin = *pin;
    puller->has_pin = true;
  } else {
    puller->st = *st;
  }
  esp_event_post(&puller->got);
}

static void handle_got(struct esp_event *event) {
  struct esp_puller *puller = (struct esp_puller *)((char *)event - offsetof(struct esp_puller, got));
  if (esp_call_is_over(puller->call))
    release_pin(puller);
  else if (puller->code != ESP_OK)
    puller->is_done = true;
  else
    esp_puller_step(puller);
  puller->changed(puller);
}

/* Asks for the next tensor, or ends. */
static bool next_pin(struct esp_puller *puller) {
  esp_event_arm(&puller->got, puller->call, handle_got);
  if (esp_pull_next(puller->pull))
    return true;
  esp_event_cancel(&puller->got);
  Espalier__V1__PullEnd end = ESPALIER__V1__PULL_END__INIT;
  Espalier__V1__PullResponse last = ESPALIER__V1__PULL_RESPONSE__INIT;
  end.sent = puller->sent;
  last.end = &end;
  if (!add_message(puller, &last.base) || !write_message(puller))
    return false;
  puller->code = ESP_OK;
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
      if (!next_pin(puller))
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
  if (code != ESP_OK)
    return code;
  const char *what = request->consistent                                        ? "a consistent pull"
                     : request->dtype != ESPALIER__V1__DTYPE__DTYPE_UNSPECIFIED ? "a pull in another dtype"
                     : request->n_have > 0                                      ? "a delta pull (have)"
                                                                                : NULL;
  return what == NULL ? ESP_OK : esp_fail(st, ESP_UNIMPLEMENTED, "%s is not built yet", what);
}

void esp_puller_begin(struct esp_puller *puller, struct esp_call *call, const Espalier__V1__PullRequest *request,
                      void (*changed)(struct esp_puller *puller)) {
  puller->call = call;
  puller->changed = changed;
  struct esp_pull_request wanted = {
      .leaf_ids = request->leaf_ids,
      .leaf_ids_len = request->n_leaf_ids,
      .paths = (const char *const *)request->paths,
      .paths_len = request->n_paths,
      .selection = request->selection,
  };
  struct esp_pull_header got;
  puller->code = check_request(request, &puller->st);
  if (puller->code == ESP_OK)
    puller->code = esp_pull_new(call->engine, &wanted, on_pin, puller, &puller->pull, &got, &puller->st);
  if (puller->code != ESP_OK) {
    puller->is_done = true;
    return;
  }
  Espalier__V1__PullHeader header = ESPALIER__V1__PULL_HEADER__INIT;
  header.epoch = got.epoch;
  header.commit = got.commit;
  header.lineage = got.lineage;
  header.leaf_count = got.leaf_count;
  header.total_bytes = got.total_bytes;
  Espalier__V1__PullResponse first = ESPALIER__V1__PULL_RESPONSE__INIT;
  first.header = &header;
  if (!add_message(puller, &first.base))
    fail_memory(puller);
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
}
