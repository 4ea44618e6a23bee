/* formats/plan.c: what is taken has all its strings; what is not says where, and leaves the plan as it was before. */
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "formats/plan.h"
#include "tests/fuzz/fuzz.h"

static void check_text(const char *text) {
  ESP_CHECK(text != NULL && esp_fuzz_is_utf8(text, strlen(text)));
}

static void check_op(const struct esp_plan_op *op) {
  const char *const texts[] = {op->selection, op->to, op->name, op->file, op->tag, op->group, op->alias_of};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
    check_text(texts[i]);
  ESP_CHECK(op->kind <= ESP_PLAN_UNDO && op->init.kind <= ESP_PLAN_NORMAL);
  ESP_CHECK((op->kind == ESP_PLAN_ADJUST) == (op->hypers_len > 0));
  for (size_t i = 0; i < op->hypers_len; i++) {
    check_text(op->hypers[i].name);
    check_text(op->hypers[i].value);
  }
  ESP_CHECK(op->shape.rank <= ESP_RANK_MAX);
  ESP_CHECK((op->kind == ESP_PLAN_ADD) == (op->dtype != ESP_DTYPE_NONE));
}

static void check_timer(const struct esp_plan_op *op) {
  bool freezes = op->kind == ESP_PLAN_FREEZE;
  bool thaws = op->kind == ESP_PLAN_THAW;
  ESP_CHECK(freezes || (op->until_commit == 0 && op->for_ms == 0));
  ESP_CHECK(op->until_commit == 0 || (op->for_ms == 0 && op->until_commit > op->at_commit));
  ESP_CHECK(freezes || thaws || op->at_commit == 0);
  ESP_CHECK(op->one_by_one == (op->every > 0));
  ESP_CHECK(!op->one_by_one || (thaws && op->at_commit == 0));
  ESP_CHECK((op->kind == ESP_PLAN_CANCEL_TIMER) == (op->timer > 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  size_t live = esp_alloc_live();
  struct esp_plan plan;
  struct esp_status st;
  esp_plan_init(&plan);
  enum esp_code code = esp_plan_add_text(&plan, "f", size > 0 ? (const char *)data : "", size, &st);
  for (size_t i = 0; i < plan.len; i++) {
    check_op(&plan.ops[i]);
    check_timer(&plan.ops[i]);
  }
  if (code != ESP_OK) {
    ESP_CHECK(code == ESP_INVALID_ARGUMENT && strncmp(st.message, "f:", 2) == 0);
    esp_fuzz_check_failure(code, &st);
  }
  esp_plan_done(&plan);
  ESP_CHECK(esp_alloc_live() == live);
  return 0;
}
