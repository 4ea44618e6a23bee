/* Clock, randomness and disk behind one interface, so that tests drive them: env_system.c is the machine's,
 * tests/support/env_virtual.h a twin with a virtual clock, seeded randomness and an in-memory disk that fails on
 * command. All functions may be called from any thread. */
#ifndef ESP_BASE_ENV_H
#define ESP_BASE_ENV_H

#include <espalier/status.h>

#include <stddef.h>
#include <stdint.h>

struct esp_file; /* one open file of one environment */

struct esp_env {
  void *data;                         /* the implementation's own */
  uint64_t (*now_ms)(void *data);     /* monotonic, for time-outs */
  uint64_t (*wall_ms)(void *data);    /* since 1970, for people */
  uint64_t (*random_u64)(void *data); /* not predictable (the twin: from its seed) */
  /* Creates PATH anew for writing; fails where it exists. */
  enum esp_code (*file_create)(void *data, const char *path, struct esp_file **ret, struct esp_status *st);
  enum esp_code (*file_write)(void *data, struct esp_file *file, const void *bytes, size_t len, struct esp_status *st);
  enum esp_code (*file_sync)(void *data, struct esp_file *file, struct esp_status *st);
  void (*file_close)(void *data, struct esp_file *file); /* NULL is fine */
  /* Atomically; the directory is synced after it. */
  enum esp_code (*file_rename)(void *data, const char *from, const char *to, struct esp_status *st);
  enum esp_code (*file_remove)(void *data, const char *path, struct esp_status *st);
};

/* The machine's own. Static storage. */
const struct esp_env *esp_env_system(void);

/* Writes a whole file in pieces so that readers see the old one or the new one, never a part:
 * begin opens PATH.tmp-<random>, write appends, commit syncs and renames, abort removes. After a failed write or
 * commit only abort may follow. */
struct esp_atomic_file {
  const struct esp_env *env;
  struct esp_file *file; /* NULL when nothing is open */
  char *path;            /* the final name */
  char *path_tmp;        /* the name until commit */
};
enum esp_code esp_atomic_file_begin(struct esp_atomic_file *file, const struct esp_env *env, const char *path,
                                    struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_atomic_file_write(struct esp_atomic_file *file, const void *bytes, size_t len,
                                    struct esp_status *st) ESP_WARN_UNUSED;
enum esp_code esp_atomic_file_commit(struct esp_atomic_file *file, struct esp_status *st) ESP_WARN_UNUSED;
void esp_atomic_file_abort(struct esp_atomic_file *file); /* idempotent; after commit it does nothing */

#endif
