/* client/src/codec*.c: each reply that the client unpacks, of a server that may send anything. */
#include "base/alloc.h"
#include "base/check.h"
#include "client/src/codec.h"
#include "tests/fuzz/fuzz.h"

static enum esp_code decode_join(struct esp_in in, struct esp_status *st) {
  struct esp_session_reply reply;
  return esp_decode_join(in, &reply, st);
}

static enum esp_code decode_heartbeat(struct esp_in in, struct esp_status *st) {
  struct esp_session_reply reply;
  return esp_decode_heartbeat(in, &reply, st);
}

static enum esp_code decode_event(struct esp_in in, struct esp_status *st) {
  struct esp_layout_event *event = NULL;
  enum esp_code code = esp_decode_event(in, &event, st);
  esp_free(event);
  return code;
}

static enum esp_code decode_stream(struct esp_in in, struct esp_status *st) {
  struct esp_stream_reply reply;
  return esp_decode_stream(in, &reply, st);
}

/* The ids of a declaration of up to 64 leaves, or that they are not as many. */
static enum esp_code decode_declare(struct esp_in in, struct esp_status *st) {
  struct esp_declare_reply reply = {0};
  enum esp_code code = esp_decode_declare(in, &reply, st);
  esp_leaf_id ids[64];
  for (size_t len = 0; code == ESP_OK && len <= 64; len++) {
    struct esp_status expand_st;
    enum esp_code expand_code = esp_id_runs_expand(reply.runs, reply.runs_len, ids, len, &expand_st);
    if (expand_code != ESP_OK)
      esp_fuzz_check_failure(expand_code, &expand_st);
  }
  esp_declare_reply_done(&reply);
  return code;
}

static enum esp_code decode_stage(struct esp_in in, struct esp_status *st) {
  uint64_t stage = 0;
  return esp_decode_stage(in, &stage, st);
}

/* Pages add up; the same one twice is two. */
static enum esp_code decode_apply(struct esp_in in, struct esp_status *st) {
  struct esp_apply_result *result = NULL;
  enum esp_code code = esp_decode_apply(in, &result, st);
  if (code == ESP_OK)
    code = esp_decode_apply(in, &result, st);
  esp_apply_result_free(result);
  return code;
}

static enum esp_code decode_describe(struct esp_in in, struct esp_status *st) {
  struct esp_description *description = NULL;
  enum esp_code code = esp_decode_describe(in, &description, st);
  if (code == ESP_OK)
    code = esp_decode_describe(in, &description, st);
  esp_description_free(description);
  return code;
}

static enum esp_code decode_server_info(struct esp_in in, struct esp_status *st) {
  struct esp_server_info info;
  return esp_decode_server_info(in, &info, st);
}

static enum esp_code decode_workers(struct esp_in in, struct esp_status *st) {
  struct esp_workers *workers = NULL;
  enum esp_code code = esp_decode_workers(in, &workers, st);
  if (code == ESP_OK)
    code = esp_decode_workers(in, &workers, st);
  esp_workers_free(workers);
  return code;
}

static enum esp_code decode_timers(struct esp_in in, struct esp_status *st) {
  struct esp_timers *timers = NULL;
  enum esp_code code = esp_decode_timers(in, &timers, st);
  if (code == ESP_OK)
    code = esp_decode_timers(in, &timers, st);
  esp_timers_free(timers);
  return code;
}

static enum esp_code decode_history(struct esp_in in, struct esp_status *st) {
  struct esp_history *history = NULL;
  enum esp_code code = esp_decode_history(in, &history, st);
  if (code == ESP_OK)
    code = esp_decode_history(in, &history, st);
  esp_history_free(history);
  return code;
}

static enum esp_code decode_explain(struct esp_in in, struct esp_status *st) {
  struct esp_explanation *explanation = NULL;
  enum esp_code code = esp_decode_explain(in, &explanation, st);
  if (code == ESP_OK)
    code = esp_decode_explain(in, &explanation, st);
  esp_explanation_free(explanation);
  return code;
}

static enum esp_code (*const decoders[])(struct esp_in in, struct esp_status *st) = {
    decode_join,     decode_heartbeat,   decode_event,   decode_stream, decode_declare, decode_stage,   decode_apply,
    decode_describe, decode_server_info, decode_workers, decode_timers, decode_history, decode_explain,
};

/* The first byte is the reply's type, the next two where the rest is cut. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  size_t live = esp_alloc_live();
  struct esp_fuzz_input input = {.at = data, .left = size};
  size_t which = esp_fuzz_below(&input, sizeof decoders / sizeof decoders[0]);
  uint8_t cuts[2];
  cuts[0] = esp_fuzz_byte(&input);
  cuts[1] = esp_fuzz_byte(&input);
  struct esp_fuzz_spans spans;
  esp_fuzz_cut(&spans, cuts, 2, input);
  struct esp_status st;
  enum esp_code code = decoders[which]((struct esp_in){.spans = spans.spans, .len = spans.len}, &st);
  if (code != ESP_OK)
    esp_fuzz_check_failure(code, &st);
  esp_fuzz_spans_done(&spans);
  ESP_CHECK(esp_alloc_live() == live);
  return 0;
}
