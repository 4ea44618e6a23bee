/* The descriptors of all services, which are built into the program, and what can be found in them. */
#ifndef ESP_RPC_DESCRIPTORS_H
#define ESP_RPC_DESCRIPTORS_H

#include <espalier/status.h>

#include <descriptor.pb-c.h>
#include <stdbool.h>

#include "rpc/codec.h"

/* ret->message is an Espalier__Descriptor__FileSet: files come after those that they import. RESOURCE_EXHAUSTED without
 * memory. Its files, packed again, are what protoc wrote. */
enum esp_code esp_descriptors_load(struct esp_decoded *ret, struct esp_status *st) ESP_WARN_UNUSED;

typedef Espalier__Descriptor__FileSet esp_file_set;
/* The index of the file of this name, or set->n_file. */
size_t esp_descriptors_file(const esp_file_set *set, const char *name);
/* That of the file in which this full name, without a leading dot, is declared: a message, field, oneof, enum, value,
 * service or method. */
size_t esp_descriptors_symbol(const esp_file_set *set, const char *symbol);
/* Whether there is a message of this full name. */
bool esp_descriptors_has_message(const esp_file_set *set, const char *name);

#endif
