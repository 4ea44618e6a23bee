/* The standard health service. The server and each of its services are SERVING until the shutdown begins; a stream of
 * Watch is told so before it is ended. */
#include <grpc/health/v1/health.pb-c.h>
#include <string.h>

#include "rpc/methods.h"

typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus status_type;
#define STATUS(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name

struct health_state {
  status_type sent; /* the last status that a watcher was sent; UNKNOWN: none yet */
};

/* The status of the service that the request names, or false where the call was failed. */
static bool take_status(struct esp_call *call, status_type *ret) {
  struct esp_decoded decoded = {0};
  if (!esp_call_decode(call, &grpc__health__v1__health_check_request__descriptor, &decoded))
    return false;
  const char *service = ((const Grpc__Health__V1__HealthCheckRequest *)decoded.message)->service;
  if (service[0] != '\0' && !esp_method_has_service(service))
    *ret = STATUS(SERVICE_UNKNOWN);
  else
    *ret = esp_engine_is_draining(call->engine) ? STATUS(NOT_SERVING) : STATUS(SERVING);
  esp_decoded_done(&decoded);
  return true;
}

static void write_status(struct esp_call *call, status_type status) {
  Grpc__Health__V1__HealthCheckResponse reply = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
  reply.status = status;
  esp_call_write_message(call, &reply.base);
}

static void check(struct esp_call *call) {
  status_type status;
  if (!take_status(call, &status))
    return;
  if (status == STATUS(SERVICE_UNKNOWN)) {
    esp_call_fail(call, ESP_NOT_FOUND, "there is no such service");
    return;
  }
  write_status(call, status);
  esp_call_finish(call, ESP_OK, NULL);
}

/* Services don't come and go, so the next that there is to say is the shutdown. */
static void watch(struct esp_call *call) {
  struct health_state *state = call->state;
  if (take_status(call, &state->sent))
    write_status(call, state->sent);
}

static void watch_drain(struct esp_call *call) {
  const struct health_state *state = call->state;
  if (state->sent == STATUS(SERVING))
    write_status(call, STATUS(NOT_SERVING));
  esp_call_fail(call, ESP_UNAVAILABLE, ESP_SHUTDOWN_TEXT);
}

const struct esp_method esp_method_health_check = {
    .path = "/grpc.health.v1.Health/Check",
    .answers_always = true,
    .message = check,
};
const struct esp_method esp_method_health_watch = {
    .path = "/grpc.health.v1.Health/Watch",
    .state_size = sizeof(struct health_state),
    .message = watch,
    .drain = watch_drain,
};
