/* What a transaction does to parameters, in its order, beside what it does to the layout: collected while the layout is
 * edited, put into the parameters' queues when it is published. Everything that can fail comes before that. The
 * transactions' thread. */
#ifndef ESP_ENGINE_WORK_H
#define ESP_ENGINE_WORK_H

#include "engine/internal.h"

struct esp_action {
  struct esp_param *param; /* ref'd */
  struct esp_item item;
  size_t wait; /* of a GIVE: the place in the work of the WAIT that it ends, or SIZE_MAX */
};

struct esp_work {
  struct esp_engine *engine;
  struct esp_action *actions;
  size_t len;
  size_t capacity;
  uint64_t resets; /* parameters whose state was reset */
  char *notes[ESP_NOTES_MAX];
  size_t notes_len;
};

void esp_work_init(struct esp_work *work, struct esp_engine *engine);
/* Frees what has not gone into a queue. Idempotent. */
void esp_work_done(struct esp_work *work);
/* False without memory. */
bool esp_work_add(struct esp_work *work, struct esp_param *param, const struct esp_item *item) ESP_WARN_UNUSED;
/* Whatever comes after it in to's queue finds there what `from` has at this commit: value and, with_state, optimizer
 * state, of which both have the same. `to` is fresh. transposed: from lies the other way round. */
bool esp_work_give(struct esp_work *work, struct esp_param *from, struct esp_param *to, struct esp_param *waits,
                   bool transposed, bool with_state) ESP_WARN_UNUSED;
/* Once each; more than ESP_NOTES_MAX are dropped, as where there is no memory: notes tell, they do not do. */
void esp_work_note(struct esp_work *work, const char *format, ...) ESP_PRINTF(2, 3);

/* Of leaves with this id and higher ones: what is assigned to them and not defined. */
void esp_work_note_groups(struct esp_work *work, const struct esp_layout *layout, uint64_t first_id);

/* RESOURCE_EXHAUSTED naming the leaf where so many more bytes exceed --max-tree. */
enum esp_code esp_room_check(const struct esp_engine *engine, const char *path, uint64_t bytes,
                             struct esp_status *st) ESP_WARN_UNUSED;
/* A parameter of zeros without state, within --max-tree. */
enum esp_code esp_work_param_new(struct esp_work *work, const char *path, enum esp_dtype dtype,
                                 const struct esp_shape *shape, struct esp_param **ret,
                                 struct esp_status *st) ESP_WARN_UNUSED;
/* Gives each parameter of the layout the state that its optimizer wants: new ones zeros, others what they have and the
 * new optimizer has too, with a note that says what was kept. The layout is about to be published. */
enum esp_code esp_work_settle(struct esp_work *work, const struct esp_layout *layout,
                              struct esp_status *st) ESP_WARN_UNUSED;

/* The layout was published. */
void esp_work_settled(const struct esp_layout *layout);

/* Under the commit lock. The batch has room. */
void esp_work_enqueue(struct esp_work *work, struct esp_batch *batch);

#endif
