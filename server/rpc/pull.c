/* Pull: one request, and a puller's messages. */
#include "rpc/methods.h"
#include "rpc/puller.h"

static void finish_if_done(struct esp_puller *puller) {
  struct esp_status st;
  if (puller->is_done)
    esp_call_finish(puller->call, esp_why_tell(&puller->why, &st), &st);
}

static void message(struct esp_call *call) {
  struct esp_puller *puller = call->state;
  struct esp_decoded request = {0};
  if (!esp_call_decode(call, &espalier__v1__pull_request__descriptor, &request))
    return;
  esp_puller_begin(puller, call, &request, (const Espalier__V1__PullRequest *)request.message, finish_if_done);
  esp_puller_step(puller);
  finish_if_done(puller);
}

static void writable(struct esp_call *call) {
  esp_puller_step(call->state);
  finish_if_done(call->state);
}

static void closed(struct esp_call *call) {
  esp_puller_close(call->state);
}

static void release(struct esp_call *call) {
  esp_puller_done(call->state);
}

const struct esp_method esp_method_pull = {
    .path = "/espalier.v1.ParameterServer/Pull",
    .state_size = sizeof(struct esp_puller),
    .message = message,
    .writable = writable,
    .closed = closed,
    .release = release,
};
