/* What plan.c and plan_words.c share. */
#ifndef ESP_FORMATS_PLAN_INTERNAL_H
#define ESP_FORMATS_PLAN_INTERNAL_H

#include "formats/plan.h"

/* The operation of these words, strings in the plan's arena. As esp_plan_add_words. */
enum esp_code esp_plan_read_words(struct esp_plan *plan, const char *const *words, size_t words_len,
                                  struct esp_plan_op *ret, size_t *ret_word, struct esp_status *st) ESP_WARN_UNUSED;

#endif
