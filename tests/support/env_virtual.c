/* The twin of env_system.c. The disk is a list of named files under one lock; a handle keeps its file alive when the
 * name goes to another. Each operation first asks whether it is the one that has to fail. */
#include "tests/support/env_virtual.h"

#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "base/check.h"
#include "tests/support/test.h"

struct stored {
  struct stored *next; /* of the disk's list */
  char *path;          /* owned; NULL when the name is gone and only the handle is left */
  uint8_t *bytes;      /* owned */
  size_t len;          /* of bytes */
  size_t capacity;     /* of bytes */
  size_t synced;       /* the length that survives a crash */
  bool open;           /* a handle points here */
};

struct esp_file {
  struct stored *stored; /* in the disk's list while the handle is open */
};

struct esp_env_virtual {
  struct esp_env env;     /* what the code under test sees */
  pthread_mutex_t lock;   /* guards all below */
  uint64_t elapsed_ms;    /* since the twin was made */
  uint64_t random_state;  /* the seed, and then on */
  struct stored *files;   /* the disk */
  int64_t fail_countdown; /* successes before the failure; negative: none to come */
  bool failed;            /* it has come */
};

#define NOW_MS_START 1000
#define WALL_MS_START UINT64_C(1769860800000) /* 2026-01-31T12:00:00Z */

static struct esp_env_virtual *lock(void *data) {
  struct esp_env_virtual *twin = data;
  ESP_CHECK(pthread_mutex_lock(&twin->lock) == 0);
  return twin;
}

static void unlock(struct esp_env_virtual *twin) {
  ESP_CHECK(pthread_mutex_unlock(&twin->lock) == 0);
}

/* Counts an operation; true where it has to fail. */
static bool must_fail(struct esp_env_virtual *twin) {
  bool now = twin->fail_countdown == 0;
  if (twin->fail_countdown >= 0)
    twin->fail_countdown--;
  twin->failed |= now;
  return now;
}

static enum esp_code fail_injected(struct esp_status *st, const char *what, const char *path) {
  return esp_fail(st, ESP_INTERNAL, "cannot %s %s: the test's disk failed", what, path);
}

static struct stored *find(struct esp_env_virtual *twin, const char *path) {
  struct stored *stored = twin->files;
  while (stored != NULL && (stored->path == NULL || strcmp(stored->path, path) != 0))
    stored = stored->next;
  return stored;
}

static void drop_if_unused(struct esp_env_virtual *twin, struct stored *stored) {
  if (stored->path != NULL || stored->open)
    return;
  struct stored **link = &twin->files;
  while (*link != stored)
    link = &(*link)->next;
  *link = stored->next;
  esp_free(stored->bytes);
  esp_free(stored);
}

static void drop_name(struct esp_env_virtual *twin, struct stored *stored) {
  esp_free(stored->path);
  stored->path = NULL;
  drop_if_unused(twin, stored);
}

static uint64_t virtual_now_ms(void *data) {
  struct esp_env_virtual *twin = lock(data);
  uint64_t now = NOW_MS_START + twin->elapsed_ms;
  unlock(twin);
  return now;
}

static uint64_t virtual_wall_ms(void *data) {
  struct esp_env_virtual *twin = lock(data);
  uint64_t now = WALL_MS_START + twin->elapsed_ms;
  unlock(twin);
  return now;
}

static uint64_t virtual_random_u64(void *data) {
  struct esp_env_virtual *twin = lock(data);
  uint64_t value = esp_test_random(&twin->random_state);
  unlock(twin);
  return value;
}

static enum esp_code create_locked(struct esp_env_virtual *twin, const char *path, struct esp_file **ret,
                                   struct esp_status *st) {
  if (must_fail(twin))
    return fail_injected(st, "create", path);
  if (find(twin, path) != NULL)
    return esp_fail(st, ESP_ALREADY_EXISTS, "cannot create %s: File exists", path);
  struct esp_file *file = esp_calloc(1, sizeof(*file));
  struct stored *stored = esp_calloc(1, sizeof(*stored));
  char *name = esp_strdup(path);
  if (file == NULL || stored == NULL || name == NULL) {
    esp_free(file);
    esp_free(stored);
    esp_free(name);
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "cannot create %s: out of memory", path);
  }
  *stored = (struct stored){.next = twin->files, .path = name, .open = true};
  twin->files = stored;
  file->stored = stored;
  *ret = file;
  return ESP_OK;
}

static enum esp_code virtual_file_create(void *data, const char *path, struct esp_file **ret, struct esp_status *st) {
  struct esp_env_virtual *twin = lock(data);
  enum esp_code code = create_locked(twin, path, ret, st);
  unlock(twin);
  return code;
}

static enum esp_code virtual_file_write(void *data, struct esp_file *file, const void *bytes, size_t len,
                                        struct esp_status *st) {
  struct esp_env_virtual *twin = lock(data);
  struct stored *stored = file->stored;
  enum esp_code code = ESP_OK;
  if (must_fail(twin)) {
    code = fail_injected(st, "write", stored->path);
    len /= 2;
  }
  if (!esp_grow((void **)&stored->bytes, &stored->capacity, stored->len + len, 1)) {
    code = esp_fail(st, ESP_RESOURCE_EXHAUSTED, "cannot write %s: out of memory", stored->path);
  } else if (len > 0) {
    memcpy(stored->bytes + stored->len, bytes, len);
    stored->len += len;
  }
  unlock(twin);
  return code;
}

static enum esp_code virtual_file_sync(void *data, struct esp_file *file, struct esp_status *st) {
  struct esp_env_virtual *twin = lock(data);
  enum esp_code code = ESP_OK;
  if (must_fail(twin))
    code = fail_injected(st, "sync", file->stored->path);
  else
    file->stored->synced = file->stored->len;
  unlock(twin);
  return code;
}

static void virtual_file_close(void *data, struct esp_file *file) {
  if (file == NULL)
    return;
  struct esp_env_virtual *twin = lock(data);
  file->stored->open = false;
  drop_if_unused(twin, file->stored);
  esp_free(file);
  unlock(twin);
}

static enum esp_code rename_locked(struct esp_env_virtual *twin, const char *from, const char *to,
                                   struct esp_status *st) {
  if (must_fail(twin))
    return fail_injected(st, "rename", from);
  struct stored *stored = find(twin, from);
  if (stored == NULL)
    return esp_fail(st, ESP_NOT_FOUND, "cannot rename %s: No such file or directory", from);
  char *name = esp_strdup(to);
  if (name == NULL)
    return esp_fail(st, ESP_RESOURCE_EXHAUSTED, "cannot rename %s: out of memory", from);
  struct stored *replaced = find(twin, to);
  if (replaced != NULL && replaced != stored)
    drop_name(twin, replaced);
  esp_free(stored->path);
  stored->path = name;
  return must_fail(twin) ? fail_injected(st, "sync the directory of", to) : ESP_OK;
}

static enum esp_code virtual_file_rename(void *data, const char *from, const char *to, struct esp_status *st) {
  struct esp_env_virtual *twin = lock(data);
  enum esp_code code = rename_locked(twin, from, to, st);
  unlock(twin);
  return code;
}

static enum esp_code virtual_file_remove(void *data, const char *path, struct esp_status *st) {
  struct esp_env_virtual *twin = lock(data);
  enum esp_code code = ESP_OK;
  struct stored *stored = find(twin, path);
  if (must_fail(twin))
    code = fail_injected(st, "remove", path);
  else if (stored == NULL)
    code = esp_fail(st, ESP_NOT_FOUND, "cannot remove %s: No such file or directory", path);
  else
    drop_name(twin, stored);
  unlock(twin);
  return code;
}

struct esp_env_virtual *esp_env_virtual_new(uint64_t seed) {
  struct esp_env_virtual *twin = esp_calloc(1, sizeof(*twin));
  if (twin == NULL)
    return NULL;
  twin->env = (struct esp_env){
      .data = twin,
      .now_ms = virtual_now_ms,
      .wall_ms = virtual_wall_ms,
      .random_u64 = virtual_random_u64,
      .file_create = virtual_file_create,
      .file_write = virtual_file_write,
      .file_sync = virtual_file_sync,
      .file_close = virtual_file_close,
      .file_rename = virtual_file_rename,
      .file_remove = virtual_file_remove,
  };
  ESP_CHECK(pthread_mutex_init(&twin->lock, NULL) == 0);
  twin->random_state = seed;
  twin->fail_countdown = -1;
  return twin;
}

void esp_env_virtual_free(struct esp_env_virtual *twin) {
  if (twin == NULL)
    return;
  while (twin->files != NULL) {
    ESP_CHECK(!twin->files->open);
    drop_name(twin, twin->files);
  }
  pthread_mutex_destroy(&twin->lock);
  esp_free(twin);
}

const struct esp_env *esp_env_virtual_env(struct esp_env_virtual *twin) {
  return &twin->env;
}

void esp_env_virtual_advance(struct esp_env_virtual *twin, uint64_t ms) {
  lock(twin)->elapsed_ms += ms;
  unlock(twin);
}

void esp_env_virtual_fail_at(struct esp_env_virtual *twin, int64_t countdown) {
  lock(twin)->fail_countdown = countdown;
  twin->failed = false;
  unlock(twin);
}

bool esp_env_virtual_has_failed(struct esp_env_virtual *twin) {
  bool failed = lock(twin)->failed;
  unlock(twin);
  return failed;
}

void esp_env_virtual_crash(struct esp_env_virtual *twin) {
  for (struct stored *stored = lock(twin)->files; stored != NULL; stored = stored->next)
    stored->len = stored->synced;
  unlock(twin);
}

const void *esp_env_virtual_read(struct esp_env_virtual *twin, const char *path, size_t *ret_len) {
  const struct stored *stored = find(lock(twin), path);
  const void *bytes = stored == NULL ? NULL : stored->len == 0 ? (const void *)"" : stored->bytes;
  if (stored != NULL)
    *ret_len = stored->len;
  unlock(twin);
  return bytes;
}

size_t esp_env_virtual_files_len(struct esp_env_virtual *twin) {
  size_t len = 0;
  for (const struct stored *stored = lock(twin)->files; stored != NULL; stored = stored->next)
    len += stored->path != NULL;
  unlock(twin);
  return len;
}
