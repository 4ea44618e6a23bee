/* The history as bytes. As codec_admin.c: pages are copied into one result, whose strings are in an arena.
 *
 * A long diff comes in several entries of one epoch, which may be on several pages: they are put together. Changes of
 * all transactions are in one list, which moves while it grows, so that pointers into it are set at each page's end. */
#include "base/alloc.h"
#include "client/src/codec_pb.h"
#include "espalier/v1/admin.pb-c.h"

struct history_box {
  struct esp_history history;        /* first, so that the caller's pointer is the box's */
  struct esp_transaction_info *list; /* owned; history.transactions */
  size_t capacity;                   /* of list */
  struct esp_apply_change *changes;  /* owned; of all, in their order */
  size_t changes_len;
  size_t changes_capacity;
  struct esp_arena arena; /* the strings */
};

enum esp_code esp_encode_history(struct esp_buf *buf, uint64_t since_epoch, uint64_t limit, struct esp_status *st) {
  Espalier__V1__HistoryRequest message = ESPALIER__V1__HISTORY_REQUEST__INIT;
  message.since_epoch = since_epoch;
  message.limit = limit;
  return esp_pb_pack(buf, &message.base, st);
}

void esp_history_free(struct esp_history *history) {
  struct history_box *box = (struct history_box *)history;
  if (box == NULL)
    return;
  esp_arena_done(&box->arena);
  esp_free(box->list);
  esp_free(box->changes);
  esp_free(box);
}

static bool add_change(struct history_box *box, const Espalier__V1__Change *from) {
  if (!esp_grow((void **)&box->changes, &box->changes_capacity, box->changes_len + 1, sizeof *box->changes))
    return false;
  struct esp_apply_change *change = &box->changes[box->changes_len];
  change->leaf = from->leaf_id;
  bool ok = esp_pb_copy_text(&box->arena, from->path, &change->path) &&
            esp_pb_copy_text(&box->arena, from->field, &change->field) &&
            esp_pb_copy_text(&box->arena, from->from, &change->from) &&
            esp_pb_copy_text(&box->arena, from->to, &change->to) &&
            esp_pb_copy_text(&box->arena, from->because, &change->because);
  box->changes_len += ok;
  return ok;
}

/* The transaction that this entry is of: the last one, where it goes on. NULL without memory. */
static struct esp_transaction_info *take_entry(struct history_box *box,
                                               const Espalier__V1__HistoryResponse__Transaction *from) {
  size_t len = box->history.len;
  if (len > 0 && box->list[len - 1].epoch == from->epoch)
    return &box->list[len - 1];
  if (!esp_grow((void **)&box->list, &box->capacity, len + 1, sizeof *box->list))
    return NULL;
  struct esp_transaction_info *info = &box->list[len];
  *info = (struct esp_transaction_info){
      .epoch = from->epoch, .commit = from->commit, .at_ms = from->at_ms, .changes_total = from->changes_total};
  if (!esp_pb_copy_text(&box->arena, from->actor, &info->actor) ||
      !esp_pb_copy_text(&box->arena, from->reason, &info->reason))
    return NULL;
  box->history.len++;
  return info;
}

static bool add_entry(struct history_box *box, const Espalier__V1__HistoryResponse__Transaction *from) {
  struct esp_transaction_info *info = take_entry(box, from);
  for (size_t i = 0; info != NULL && i < from->n_changes; i++, info->changes_len++)
    if (!add_change(box, from->changes[i]))
      return false;
  return info != NULL;
}

static bool add_page(struct history_box *box, const Espalier__V1__HistoryResponse *page) {
  bool ok = true;
  for (size_t i = 0; i < page->n_transactions && ok; i++)
    ok = add_entry(box, page->transactions[i]);
  size_t at = 0;
  for (size_t i = 0; i < box->history.len; i++) {
    box->list[i].changes = box->changes == NULL ? NULL : box->changes + at;
    at += box->list[i].changes_len;
  }
  box->history.transactions = box->list;
  return ok;
}

static struct history_box *history_box_new(void) {
  struct history_box *box = esp_calloc(1, sizeof *box);
  if (box != NULL)
    esp_arena_init(&box->arena, ESP_RESULT_BYTES_MAX);
  return box;
}

enum esp_code esp_decode_history(struct esp_in in, struct esp_history **result, struct esp_status *st) {
  struct esp_arena arena;
  Espalier__V1__HistoryResponse *page;
  enum esp_code code = esp_pb_unpack(in, NO_CHUNKS, &espalier__v1__history_response__descriptor, &arena, &page, st);
  if (code == ESP_OK) {
    struct history_box *box = *result == NULL ? history_box_new() : (struct history_box *)*result;
    if (box != NULL)
      *result = &box->history;
    if (box == NULL || !add_page(box, page))
      code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for the history of the tree");
  }
  esp_arena_done(&arena);
  return code;
}
