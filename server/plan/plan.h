/* --plan: a file of operations in words (formats/plan.h) as a transaction of the engine. One thread, at the start. */
#ifndef ESP_PLAN_H
#define ESP_PLAN_H

#include <espalier/status.h>

#include "engine/engine.h"
#include "formats/plan.h"

/* A plan that was read. What request points to is in the other fields, and in the arena of words. */
struct esp_plan_request {
  struct esp_plan words;
  struct esp_operation *operations; /* owned, as the next two */
  struct esp_declare_leaf *leaves;  /* those that are added */
  struct esp_hyper_change *hypers;  /* of all adjusts, one after the other */
  struct esp_apply_request request; /* by the actor "plan", for the reason `--plan FILE` */
};

/* Reads a plan. groups are those that the server starts with. Messages begin with file and line. NOT_FOUND: it can't be
 * opened; INVALID_ARGUMENT: it is no plan, has no operation, one that makes no sense in a plan (set, undo, timer
 * cancel), or creates a group that is there or sets one that is not; RESOURCE_EXHAUSTED. *ret is the caller's to
 * esp_plan_request_done, also after a failure. */
enum esp_code esp_plan_request_read(const char *file, const struct esp_named *groups, size_t groups_len,
                                    struct esp_plan_request *ret, struct esp_status *st) ESP_WARN_UNUSED;
void esp_plan_request_done(struct esp_plan_request *plan); /* idempotent */

#endif
