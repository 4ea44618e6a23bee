/* Timers as bytes. As codec_admin.c: pages are copied into one result, whose strings are in an arena. */
#include "base/alloc.h"
#include "client/src/codec_pb.h"
#include "espalier/v1/admin.pb-c.h"

struct timers_box {
  struct esp_timers timers;    /* first, so that the caller's pointer is the box's */
  struct esp_timer_info *list; /* owned; timers.timers */
  size_t capacity;             /* of list */
  struct esp_arena arena;      /* the strings */
};

void esp_timers_free(struct esp_timers *timers) {
  struct timers_box *box = (struct timers_box *)timers;
  if (box == NULL)
    return;
  esp_arena_done(&box->arena);
  esp_free(box->list);
  esp_free(box);
}

static bool add_timer(struct timers_box *box, const Espalier__V1__TimersResponse__Timer *from) {
  size_t len = box->timers.len;
  if (!esp_grow((void **)&box->list, &box->capacity, len + 1, sizeof *box->list))
    return false;
  box->list[len] = (struct esp_timer_info){.timer = from->id,
                                           .wait = (enum esp_timer_wait)from->due,
                                           .at = from->at,
                                           .left = from->left,
                                           .freezes = from->freezes != 0,
                                           .reset_state = from->reset_state != 0,
                                           .until_commit = from->until_commit,
                                           .for_ms = from->for_ms,
                                           .leaves = from->leaves,
                                           .epoch = from->epoch};
  bool ok = esp_pb_copy_text(&box->arena, from->selection, &box->list[len].selection);
  box->timers.timers = box->list;
  box->timers.len += ok;
  return ok;
}

static bool add_page(struct timers_box *box, const Espalier__V1__TimersResponse *page) {
  box->timers.epoch = page->epoch;
  box->timers.commit = page->commit;
  box->timers.lineage = page->lineage;
  for (size_t i = 0; i < page->n_timers; i++)
    if (!add_timer(box, page->timers[i]))
      return false;
  return true;
}

static struct timers_box *timers_box_new(void) {
  struct timers_box *box = esp_calloc(1, sizeof *box);
  if (box != NULL)
    esp_arena_init(&box->arena, ESP_RESULT_BYTES_MAX);
  return box;
}

enum esp_code esp_decode_timers(struct esp_in in, struct esp_timers **result, struct esp_status *st) {
  struct esp_arena arena;
  Espalier__V1__TimersResponse *page;
  enum esp_code code = esp_pb_unpack(in, NO_CHUNKS, &espalier__v1__timers_response__descriptor, &arena, &page, st);
  if (code == ESP_OK) {
    struct timers_box *box = *result == NULL ? timers_box_new() : (struct timers_box *)*result;
    if (box != NULL)
      *result = &box->timers;
    if (box == NULL || !add_page(box, page))
      code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "out of memory for the list of timers");
  }
  esp_arena_done(&arena);
  return code;
}
