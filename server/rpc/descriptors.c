/* The descriptors are embedded as protoc wrote them (proto/CMakeLists.txt), so what reflection says can't differ from
 * what is served. A name is found by walking down the scopes that it names. */
#include "rpc/descriptors.h"

#include <string.h>

#include "base/check.h"

__asm__(".section .rodata\n"
        ".global esp_descriptors_begin\n"
        ".global esp_descriptors_end\n"
        "esp_descriptors_begin:\n"
        ".incbin \"" ESP_DESCRIPTORS_FILE "\"\n"
        "esp_descriptors_end:\n"
        ".previous\n");
extern const uint8_t esp_descriptors_begin[], esp_descriptors_end[];

enum esp_code esp_descriptors_load(struct esp_decoded *ret, struct esp_status *st) {
  enum esp_code code = esp_decode(&espalier__descriptor__file_set__descriptor, esp_descriptors_begin,
                                  (size_t)(esp_descriptors_end - esp_descriptors_begin), ret, st);
  ESP_CHECK(code == ESP_OK || code == ESP_RESOURCE_EXHAUSTED);
  return code;
}

size_t esp_descriptors_file(const esp_file_set *set, const char *name) {
  size_t at = 0;
  while (at < set->n_file && strcmp(set->file[at]->name, name) != 0)
    at++;
  return at;
}

/* What is left of a full name inside the scope that its beginning names: "" for the scope itself, NULL where it is not
 * in there. */
static const char *inside(const char *symbol, const char *scope) {
  size_t len = strlen(scope);
  if (strncmp(symbol, scope, len) != 0)
    return NULL;
  if (symbol[len] == '\0')
    return symbol + len;
  return symbol[len] == '.' && symbol[len + 1] != '\0' ? symbol + len + 1 : NULL;
}

static bool has_name(Espalier__Descriptor__Named *const *named, size_t len, const char *name) {
  bool found = false;
  for (size_t i = 0; i < len; i++)
    found |= strcmp(named[i]->name, name) == 0;
  return found;
}

/* An enum's values lie beside it, as in C. */
static bool has_enum(Espalier__Descriptor__Enum *const *enums, size_t len, const char *name) {
  bool found = false;
  for (size_t i = 0; i < len; i++)
    found |= strcmp(enums[i]->name, name) == 0 || has_name(enums[i]->value, enums[i]->n_value, name);
  return found;
}

static bool has_service(Espalier__Descriptor__Service *const *services, size_t len, const char *name) {
  bool found = false;
  for (size_t i = 0; i < len; i++) {
    const char *rest = inside(name, services[i]->name);
    found |= rest != NULL && (rest[0] == '\0' || has_name(services[i]->method, services[i]->n_method, rest));
  }
  return found;
}

/* The innermost message that the name begins with, or NULL; *name becomes what is left of it. */
static const Espalier__Descriptor__Message *find_message(const Espalier__Descriptor__File *file, const char **name) {
  const Espalier__Descriptor__Message *found = NULL;
  Espalier__Descriptor__Message *const *messages = file->message_type;
  for (size_t i = 0, len = file->n_message_type; i < len;) {
    const char *rest = inside(*name, messages[i]->name);
    if (rest == NULL) {
      i++;
      continue;
    }
    found = messages[i];
    *name = rest;
    messages = found->nested_type;
    len = found->n_nested_type;
    i = 0;
  }
  return found;
}

static bool file_has_symbol(const Espalier__Descriptor__File *file, const char *symbol) {
  const char *rest = inside(symbol, file->package);
  if (rest == NULL)
    return false;
  const Espalier__Descriptor__Message *message = find_message(file, &rest);
  if (message == NULL)
    return has_enum(file->enum_type, file->n_enum_type, rest) || has_service(file->service, file->n_service, rest);
  return rest[0] == '\0' || has_name(message->field, message->n_field, rest) ||
         has_name(message->oneof_decl, message->n_oneof_decl, rest) ||
         has_enum(message->enum_type, message->n_enum_type, rest);
}

size_t esp_descriptors_symbol(const esp_file_set *set, const char *symbol) {
  size_t at = 0;
  while (at < set->n_file && !file_has_symbol(set->file[at], symbol))
    at++;
  return at;
}

bool esp_descriptors_has_message(const esp_file_set *set, const char *name) {
  bool found = false;
  for (size_t i = 0; i < set->n_file && !found; i++) {
    const char *rest = inside(name, set->file[i]->package);
    found = rest != NULL && find_message(set->file[i], &rest) != NULL && rest[0] == '\0';
  }
  return found;
}
