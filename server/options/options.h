/* The options of espalierd: one table (table.c) feeds the flags, --help, the YAML file and the reference in
 * docs/server.md. Used by one thread, before others start. */
#ifndef ESP_OPTIONS_H
#define ESP_OPTIONS_H

#include <espalier/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "engine/engine.h"

#define ESP_OPTIONS_LIST_MAX 1024       /* values of one repeatable option */
#define ESP_OPTIONS_TEXT_BYTES_MAX 8192 /* bytes of one value */

/* The values of a repeatable option. */
struct esp_options_list {
  char **items; /* owned, as are the strings */
  size_t len;
};

/* What was asked for, defaults filled in. Numbers are uint64_t so that one parser writes them; the table bounds them.
 */
struct esp_options {
  char *config;                   /* the YAML file, or NULL */
  struct esp_options_list listen; /* addresses; at least one */
  bool insecure;                  /* addresses beyond loopback are fine without TLS */
  uint64_t threads;               /* of the pool that runs kernels; 1 to 256 */
  uint64_t rpc_threads;           /* completion-queue threads; 1 to 64 */
  uint64_t isa_choice;            /* place in the table's words; isa is what it comes to on this machine */
  enum esp_isa isa;               /* supported */
  uint64_t max_staged;            /* bytes */
  uint64_t max_copy_on_write;     /* bytes */
  uint64_t max_tree;              /* bytes */
  uint64_t stall_timeout_ms;
  uint64_t drain_timeout_ms;
  uint64_t lease_ms;
  uint64_t session_retention_ms;
  uint64_t max_sessions;
  uint64_t max_connections;
  uint64_t max_streams;     /* a connection */
  uint64_t max_message;     /* bytes; more than max_chunk */
  uint64_t max_chunk;       /* bytes */
  uint64_t max_tensor;      /* bytes of a leaf */
  uint64_t max_in_flight;   /* of a session; 1 to ESP_IN_FLIGHT_MAX */
  uint64_t max_pushes;      /* of all sessions */
  uint64_t idle_timeout_ms; /* of a connection */
  uint64_t keepalive_ms;
  uint64_t keepalive_timeout_ms;
  uint64_t on_nonfinite;          /* an enum esp_nonfinite */
  struct esp_options_list group;  /* "NAME=EXPR" cut in two at the '='; one is "default" */
  struct esp_options_list assign; /* "PATH=GROUP" likewise */
  struct esp_named *groups;       /* views of `group`, for the engine; owned */
  struct esp_named *assigns;      /* views of `assign`; owned */
  char *plan;                     /* a file of operations, or NULL */
  uint64_t log_level;             /* an enum esp_log_level */
  bool version;                   /* asked for the version: nothing else was checked */
  bool help;                      /* likewise for help */
  bool print_markdown;            /* likewise for the reference */
};

/* Reads the flags and, where --config names one, the file; flags win. INVALID_ARGUMENT names the option and what it
 * takes; FAILED_PRECONDITION: the machine lacks the instruction set; NOT_FOUND: the file can't be opened. *ret is
 * the caller's to esp_options_done, also after a failure. */
enum esp_code esp_options_parse(int argc, char *const *argv, struct esp_options *ret,
                                struct esp_status *st) ESP_WARN_UNUSED;
void esp_options_done(struct esp_options *options); /* idempotent */

/* What --help prints. */
void esp_options_print_help(FILE *out);
/* The reference in docs/server.md. */
void esp_options_print_markdown(FILE *out);

#endif
