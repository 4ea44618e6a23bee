/* A push while it comes in and is applied: what Push, Stage and PushPull have in common. */
#ifndef ESP_RPC_INTAKE_H
#define ESP_RPC_INTAKE_H

#include <espalier/v1/parameter_server.pb-c.h>

#include "base/why.h"
#include "engine/engine.h"
#include "rpc/call.h"
#include "wire/wire.h"

#define ESP_CHUNKS_FIELD_UP 2   /* of all requests that have chunks */
#define ESP_CHUNKS_FIELD_DOWN 3 /* of all responses that have chunks */

/*  begin --READY--> feed ... feed --whole--> commit --DONE--> is_done
 *    |                |
 *    +----------------+-- DONE, a feed that fails, or drop --> is_done, and no trace */
struct esp_intake {
  struct esp_call *call;  /* NULL before begin */
  struct esp_push *push;  /* NULL once let go of */
  struct esp_event ready; /* ESP_PUSH_READY */
  struct esp_event done;  /* ESP_PUSH_DONE */
  bool is_ready;          /* may be fed */
  bool is_committed;      /* the engine has it: `done` is owed */
  bool is_done;           /* the two below say how it ended */
  struct esp_why why;
  struct esp_push_reply reply;                /* where it has not failed */
  void (*changed)(struct esp_intake *intake); /* it became ready, or ended by itself */
};

typedef enum esp_code (*esp_intake_opener)(struct esp_engine *engine, const struct esp_push_header *header,
                                           esp_push_callback callback, void *data, struct esp_push **ret,
                                           struct esp_status *st);

/* Begins; `changed` follows, never from inside this. open is esp_push_new or esp_stage_new. On failure the intake is
 * done with that code. */
void esp_intake_begin(struct esp_intake *intake, struct esp_call *call, const struct esp_push_header *header,
                      esp_intake_opener open, void (*changed)(struct esp_intake *intake));
/* Feeds the chunks of the call's message; false where that ended it. */
bool esp_intake_feed(struct esp_intake *intake);
bool esp_intake_is_whole(const struct esp_intake *intake);
void esp_intake_commit(struct esp_intake *intake);
/* Ends a push before its commit, without a trace and without `changed`. Of one that is done or committed: nothing. */
void esp_intake_drop(struct esp_intake *intake);
/* The stream ended before the push was whole: ends it with INVALID_ARGUMENT. */
void esp_intake_cut(struct esp_intake *intake);
/* Frees what one that is done, or never began, has. Idempotent. */
void esp_intake_done(struct esp_intake *intake);

/* What the engine takes, of what the wire has. INVALID_ARGUMENT for a path that is no text. */
enum esp_code esp_piece_of_chunk(const struct esp_chunk *chunk, struct esp_piece *ret,
                                 struct esp_status *st) ESP_WARN_UNUSED;
struct esp_push_header esp_push_header_of(const Espalier__V1__PushHeader *header);
Espalier__V1__PushReply esp_push_reply_of(const struct esp_push_reply *reply);

#endif
