/* The history as bytes: pages put together by codec_answer.c.
 *
 * A long diff comes in several entries of one epoch, which may be on several pages: they are put together. Changes of
 * all transactions are in one list, which moves while it grows, so that pointers into it are set at each page's end. */
#include "client/src/codec_pb.h"

enum { TRANSACTIONS, CHANGES };

enum esp_code esp_encode_history(struct esp_buf *buf, uint64_t since_epoch, uint64_t limit, struct esp_status *st) {
  Espalier__V1__HistoryRequest message = ESPALIER__V1__HISTORY_REQUEST__INIT;
  message.since_epoch = since_epoch;
  message.limit = limit;
  return esp_pb_pack(buf, &message.base, st);
}

/* The transaction that this entry is of: the last one, where it goes on. NULL without memory. */
static struct esp_transaction_info *take_entry(struct esp_answer *answer,
                                               const Espalier__V1__HistoryResponse__Transaction *from) {
  struct esp_transaction_info *list = answer->lists[TRANSACTIONS].items;
  size_t len = answer->lists[TRANSACTIONS].len;
  if (len > 0 && list[len - 1].epoch == from->epoch)
    return &list[len - 1];
  struct esp_transaction_info *info = esp_answer_add(answer, TRANSACTIONS, sizeof *info);
  if (info == NULL)
    return NULL;
  *info = (struct esp_transaction_info){
      .epoch = from->epoch, .commit = from->commit, .at_ms = from->at_ms, .changes_total = from->changes_total};
  bool ok = esp_answer_copy_text(answer, from->actor, &info->actor) &&
            esp_answer_copy_text(answer, from->reason, &info->reason);
  return ok ? info : NULL;
}

static bool add_entry(struct esp_answer *answer, const Espalier__V1__HistoryResponse__Transaction *from) {
  struct esp_transaction_info *info = take_entry(answer, from);
  for (size_t i = 0; info != NULL && i < from->n_changes; i++, info->changes_len++)
    if (!esp_answer_add_change(answer, CHANGES, from->changes[i]))
      return false;
  return info != NULL;
}

static enum esp_code add_page(struct esp_answer *answer, void *result, const void *message, struct esp_status *st) {
  struct esp_history *history = result;
  const Espalier__V1__HistoryResponse *page = message;
  (void)st;
  for (size_t i = 0; i < page->n_transactions; i++)
    if (!add_entry(answer, page->transactions[i]))
      return ESP_RESOURCE_EXHAUSTED;
  struct esp_transaction_info *list = answer->lists[TRANSACTIONS].items;
  const struct esp_apply_change *changes = answer->lists[CHANGES].items;
  history->transactions = list;
  history->len = answer->lists[TRANSACTIONS].len;
  for (size_t i = 0, at = 0; i < history->len && changes != NULL; at += list[i++].changes_len)
    list[i].changes = changes + at;
  return ESP_OK;
}

enum esp_code esp_decode_history(struct esp_in in, struct esp_history **result, struct esp_status *st) {
  static const struct esp_answer_kind kind = {&espalier__v1__history_response__descriptor, sizeof(struct esp_history),
                                              add_page, "the history of the tree"};
  return esp_answer_add_page(&kind, in, result, st);
}

void esp_history_free(struct esp_history *history) {
  esp_answer_free(history);
}
