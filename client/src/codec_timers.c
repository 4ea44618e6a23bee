/* Timers as bytes: pages put together by codec_answer.c. */
#include "client/src/codec_pb.h"

static bool add_timer(struct esp_answer *answer, const Espalier__V1__TimersResponse__Timer *from) {
  struct esp_timer_info *timer = esp_answer_add(answer, 0, sizeof *timer);
  if (timer == NULL)
    return false;
  *timer = (struct esp_timer_info){.timer = from->id,
                                   .wait = (enum esp_timer_wait)from->due,
                                   .at = from->at,
                                   .left = from->left,
                                   .freezes = from->freezes != 0,
                                   .reset_state = from->reset_state != 0,
                                   .until_commit = from->until_commit,
                                   .for_ms = from->for_ms,
                                   .leaves = from->leaves,
                                   .epoch = from->epoch};
  return esp_answer_copy_text(answer, from->selection, &timer->selection);
}

static enum esp_code add_page(struct esp_answer *answer, void *result, const void *message, struct esp_status *st) {
  struct esp_timers *timers = result;
  const Espalier__V1__TimersResponse *page = message;
  bool ok = true;
  (void)st;
  for (size_t i = 0; i < page->n_timers && ok; i++)
    ok = add_timer(answer, page->timers[i]);
  timers->epoch = page->epoch;
  timers->commit = page->commit;
  timers->lineage = page->lineage;
  timers->timers = answer->lists[0].items;
  timers->len = answer->lists[0].len;
  return ok ? ESP_OK : ESP_RESOURCE_EXHAUSTED;
}

enum esp_code esp_decode_timers(struct esp_in in, struct esp_timers **result, struct esp_status *st) {
  static const struct esp_answer_kind kind = {&espalier__v1__timers_response__descriptor, sizeof(struct esp_timers),
                                              add_page, "the list of timers"};
  return esp_answer_add_page(&kind, in, result, st);
}

void esp_timers_free(struct esp_timers *timers) {
  esp_answer_free(timers);
}
