/* What requests say, as the engine takes it: leaves and nodes of a declaration, operations of a transaction; and back,
 * a diff. Strings stay where they are, so that what is converted lives no longer than what it was. Pure functions; any
 * thread. */
#ifndef ESP_RPC_CONVERT_H
#define ESP_RPC_CONVERT_H

#include <espalier/status.h>
#include <espalier/v1/admin.pb-c.h>
#include <espalier/v1/parameter_server.pb-c.h>

#include <stddef.h>

#include "engine/engine.h"

/* INVALID_ARGUMENT, naming the leaf, for a rank that is too high and for a dtype, kind or view that is not known. */
enum esp_code esp_convert_leaf(const Espalier__V1__LeafSpec *spec, struct esp_declare_leaf *ret,
                               struct esp_status *st) ESP_WARN_UNUSED;
struct esp_declare_node esp_convert_node(const Espalier__V1__NodeSpec *spec);

/* The operations of a transaction, and what they refer to. */
struct esp_converted {
  struct esp_operation *operations;
  size_t len;
  struct esp_declare_leaf *leaves; /* room for one an operation */
  struct esp_hyper_change *hypers; /* of all operations, one after the other */
};
/* INVALID_ARGUMENT for what no server could do (an operation that is empty or of an unknown kind, a leaf that is added
 * without its description or with a value that follows), RESOURCE_EXHAUSTED without memory. Of several operations the
 * message says which. */
enum esp_code esp_convert_operations(Espalier__V1__Operation *const *from, size_t len, struct esp_converted *ret,
                                     struct esp_status *st) ESP_WARN_UNUSED;
void esp_converted_done(struct esp_converted *converted); /* idempotent; of a zeroed one too */

/* A line of a diff, for a reply. */
Espalier__V1__Change esp_convert_change(const struct esp_change *change);

#endif
