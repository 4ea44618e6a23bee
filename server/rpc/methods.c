/* The table of methods. A method without a message handler is part of the protocol and not built yet; any other path is
 * unknown. Both answer UNIMPLEMENTED, and say which it is. */
#include "rpc/methods.h"

#include <string.h>

#define ADMIN "/espalier.v1.Admin/"

static const struct esp_method save = {.path = ADMIN "Save"};
static const struct esp_method load = {.path = ADMIN "Load"};

static const struct esp_method *const methods[] = {
    &esp_method_push_pull,
    &esp_method_push,
    &esp_method_pull,
    &esp_method_heartbeat,
    &esp_method_join,
    &esp_method_leave,
    &esp_method_watch,
    &esp_method_declare,
    &esp_method_stage,
    &esp_method_apply,
    &esp_method_describe,
    &esp_method_server_info,
    &esp_method_workers,
    &esp_method_history,
    &esp_method_explain,
    &esp_method_timers,
    &esp_method_health_check,
    &esp_method_health_watch,
    &esp_method_reflection_v1,
    &esp_method_reflection_v1alpha,
    &save,
    &load,
};

const struct esp_method *esp_method_find(const char *path, size_t len) {
  for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++)
    if (strlen(methods[i]->path) == len && memcmp(methods[i]->path, path, len) == 0)
      return methods[i];
  return NULL;
}

bool esp_method_has_service(const char *service) {
  size_t len = strlen(service);
  for (size_t i = 0; i < sizeof(methods) / sizeof(*methods); i++) {
    const char *path = methods[i]->path + 1;
    if (strncmp(path, service, len) == 0 && path[len] == '/')
      return true;
  }
  return false;
}
